/* A native C host. */
#include <stdio.h>
#include <xrt.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

enum { N = 300 };

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  xrtDeviceHandle device = xrtDeviceOpen(0);
  xuid_t id;
  if (!device || xrtDeviceLoadXclbinFile(device, argv[1]) || xrtDeviceGetXclbinUUID(device, id)) return 1;
  xrtKernelHandle vadd = xrtPLKernelOpenExclusive(device, id, "vadd:{vadd_2}");
  if (!vadd) return 1;
  xrtBufferHandle a = xrtBOAlloc(device, N * 4, 0, (unsigned)xrtKernelArgGroupId(vadd, 0)),
                  b = xrtBOAlloc(device, N * 4, 0, (unsigned)xrtKernelArgGroupId(vadd, 1)),
                  c = xrtBOAlloc(device, N * 4, 0, (unsigned)xrtKernelArgGroupId(vadd, 2));
  int *pa = xrtBOMap(a), *pb = xrtBOMap(b), *pc = xrtBOMap(c), wrong = 0;
  for (int i = 0; i < N; i++) pa[i] = 7 * i, pb[i] = -i, pc[i] = 0;
  xrtBOSync(a, XCL_BO_SYNC_BO_TO_DEVICE, N * 4, 0);
  xrtBOSync(b, XCL_BO_SYNC_BO_TO_DEVICE, N * 4, 0);
  xrtRunHandle run = xrtKernelRun(vadd, a, b, c, N);
  if (!run || xrtRunWait(run) != ERT_CMD_STATE_COMPLETED) return 1;
  xrtBOSync(c, XCL_BO_SYNC_BO_FROM_DEVICE, N * 4, 0);
  for (int i = 0; i < N; i++) wrong += pc[i] != 6 * i;
  uint32_t n = 0, control = 0;
  if (xrtKernelReadRegister(vadd, 0x34, &n) || n != N) wrong++;
  if (xrtKernelReadRegister(vadd, 0, &control) || !(control & 4)) wrong++; /* idle */
  xrtRunClose(run);
  xrtBOFree(a), xrtBOFree(b), xrtBOFree(c);
  xrtKernelClose(vadd);
  xrtDeviceClose(device);
  printf("%s\n", wrong ? "host: wrong" : "host: right");
  return wrong != 0;
}
