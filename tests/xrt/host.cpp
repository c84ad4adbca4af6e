// A native C++ host, as XRT's documentation teaches them: one run, sub-buffers, many runs out of order on two
// units, a wait with a time-out, a buffer that nobody synced.
#include <cstdio>
#include <string>
#include <vector>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

static int wrong = 0;
static void expect(bool ok, const char *what) {
  if (!ok) std::printf("WRONG: %s\n", what), wrong++;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  constexpr int N = 256, RUNS = 12;
  xrt::device device(argc > 2 ? std::stoi(argv[2]) : 0);
  auto uuid = device.load_xclbin(argv[1]);
  xrt::kernel vadd(device, uuid, "vadd");
  expect(vadd.group_id(0) == 0 && vadd.group_id(2) == 1, "memory banks of the arguments");

  xrt::bo a(device, N * 4, vadd.group_id(0)), b(device, N * 4, vadd.group_id(1)),
      c(device, N * 4, vadd.group_id(2));
  int *pa = a.map<int *>(), *pb = b.map<int *>(), *pc = c.map<int *>();
  for (int i = 0; i < N; i++) pa[i] = i, pb[i] = 3 * i, pc[i] = -1;
  a.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  b.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  expect(c.address() >= 0x100000000ull, "c lies in bank 1");
  auto run = vadd(a, b, c, N);
  expect(run.wait() == ERT_CMD_STATE_COMPLETED, "state of the run");
  expect(pc[1] == -1, "without a sync the host still has its own bytes");
  c.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
  for (int i = 0; i < N; i++) expect(pc[i] == 4 * i, "sum");

  // The second half only, through sub-buffers.
  xrt::bo ha(a, N * 2, N * 2), hc(c, N * 2, N * 2);
  for (int i = 0; i < N; i++) pa[i] = 1000 + i;
  ha.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  auto half = vadd(ha, b, hc, N / 2);
  half.wait();
  c.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
  for (int i = 0; i < N; i++) expect(pc[i] == (i < N / 2 ? 4 * i : 1000 + i + 3 * (i - N / 2)), "half");

  // Many at once over both units, awaited backwards.
  std::vector<xrt::bo> out;
  std::vector<xrt::run> runs;
  a.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  for (int k = 0; k < RUNS; k++) {
    out.emplace_back(device, N * 4, vadd.group_id(2));
    runs.push_back(vadd(a, b, out.back(), N - k));
  }
  for (int k = RUNS - 1; k >= 0; k--) {
    expect(runs[k].wait() == ERT_CMD_STATE_COMPLETED, "state of one of many");
    out[k].sync(XCL_BO_SYNC_BO_FROM_DEVICE);
    int *p = out[k].map<int *>();
    for (int i = 0; i < N - k; i++) expect(p[i] == pa[i] + pb[i], "sum of one of many");
    for (int i = N - k; i < N; i++) expect(p[i] == 0, "beyond n");
  }
  // One object again and again; polling instead of waiting.
  xrt::run again(vadd);
  again.set_arg(0, a), again.set_arg(1, b), again.set_arg(2, c), again.set_arg(3, 8);
  for (int k = 0; k < 20; k++) {
    again.start();
    while (again.state() != ERT_CMD_STATE_COMPLETED) again.wait(std::chrono::milliseconds(1));
  }
  std::printf("%s\n", wrong ? "host: wrong" : "host: right");
  return wrong != 0;
}
