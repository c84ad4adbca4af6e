// foray_attn against foray_ref_attn: random shapes, columns, positions, codes, scales and stalls, usual and
// extreme scores; the whole scratchpad is compared bit for bit (but for the padding after the shifts of a
// column).
#include "bench.h"
#define _Static_assert static_assert
#include "gen/foray_abi.h"
#include "model.h"

#include "Vattn_tb.h"

#include <deque>
#include <memory>
#include <string>

using namespace bench;

namespace {

constexpr uint32_t kUnits = 8192;

struct Bench {
  VerilatedContext ctx;
  std::unique_ptr<Vattn_tb> top{new Vattn_tb(&ctx)};
  Scratch scratch{kUnits};
  std::vector<uint8_t> heap;
  std::deque<std::pair<uint64_t, uint64_t>> requests; // address, bytes left
  uint32_t stall = 0;
  uint64_t cycles = 0, beats = 0, busy = 0, starved = 0, read_bytes = 0;
  bool valid = false;
  uint8_t rdata[64] = {0};

  bool stalls() { return stall != 0 && below(256) < stall; }
  void tick() {
    if (!valid && !requests.empty()) valid = !stalls();
    uint8_t data[64];
    for (auto &d : data) d = static_cast<uint8_t>(cycles);
    if (valid) {
      uint64_t n = requests.front().second < 64 ? requests.front().second : 64;
      memcpy(data, heap.data() + requests.front().first, n);
    }
    top->kv_valid_i = valid, top->kv_last_i = valid && requests.front().second <= 64;
    put(top->kv_data_i, data);
    top->kr_ready_i = requests.size() < 4 && !stalls();
    top->clk_i = 0;
    top->eval();
    bool took = valid && top->kv_ready_o;
    if (top->busy_o && __builtin_popcount(top->act_o) != 1) fail("a busy cycle without exactly one reason");
    busy += top->act_o >> 2 & 1, starved += top->act_o >> 1 & 1;
    if (top->kr_valid_o && top->kr_ready_i) {
      if (top->kr_addr_o % 16 || top->kr_bytes_o % 16 || top->kr_bytes_o == 0 ||
          top->kr_addr_o + top->kr_bytes_o > heap.size())
        fail("a request outside the records");
      requests.push_back({top->kr_addr_o, top->kr_bytes_o});
      read_bytes += top->kr_bytes_o;
    }
    uint32_t we = top->sp_we_o, wa = top->sp_waddr_o, strb = top->sp_wstrb_o;
    uint8_t wdata[64];
    get(top->sp_wdata_o, wdata);
    if (top->sp_re_o) {
      if (top->sp_raddr_o >= kUnits) fail("read beyond the scratchpad");
      memcpy(rdata, scratch.unit(top->sp_raddr_o), 64);
    }
    top->clk_i = 1;
    top->eval();
    if (we) {
      if (wa >= kUnits) fail("write beyond the scratchpad");
      for (int l = 0; l < 16; l++)
        if (strb >> l & 1) memcpy(scratch.unit(wa) + 4 * l, wdata + 4 * l, 4);
    }
    put(top->sp_rdata_i, rdata);
    if (took) {
      auto &r = requests.front();
      beats++, valid = false;
      if (r.second <= 64)
        requests.pop_front();
      else
        r.first += 64, r.second -= 64;
    }
    cycles++;
  }
};

struct Case {
  struct model_attn a {};
  uint32_t c0 = 0, ncols = 1, pos0 = 0, q = 0, dst = 0, kv = 1, offset = 0;
  int style = 0;
};

void run_case(Bench &b, const Case &k) {
  const uint32_t n = k.a.heads * k.a.head_dim, rec = model_kv_record(k.a.head_dim),
                 groups = k.a.head_dim / 32;
  const uint32_t meta = rec - 2 * k.a.head_dim, qu = model_y32_units(n), du = model_a16_units(n);
  b.heap.resize(std::size_t(64) * (k.kv + k.offset) + std::size_t(rec) * k.a.kv_heads * k.a.max_pos + 64);
  for (auto &h : b.heap) h = static_cast<uint8_t>(rnd());
  uint8_t *kv = b.heap.data() + 64 * std::size_t(k.kv + k.offset);
  // scales near each other, so that several positions count; codes at random or at their ends
  int spread = k.style % 4 == 0 ? 20 : k.style % 4 == 1 ? 0 : 3, base = between(0, 63 - spread);
  int cs = static_cast<int>(below(12));
  for (uint32_t r = 0; r < k.a.kv_heads * k.a.max_pos; r++) {
    uint8_t *p = kv + std::size_t(r) * rec;
    for (uint32_t g = 0; g < 2 * groups; g++) {
      uint32_t s = static_cast<uint32_t>(base + between(0, spread)) << 10 | below(1024);
      if (k.style == 7) s = rnd() & 0xffff;
      p[2 * g] = static_cast<uint8_t>(s), p[2 * g + 1] = static_cast<uint8_t>(s >> 8);
    }
    if (cs < 4)
      for (uint32_t i = meta; i < rec; i++) p[i] = static_cast<uint8_t>(value(cs, -128, 127));
  }
  for (auto &m : b.scratch.mem) m = static_cast<uint8_t>(rnd());
  struct model_attn a = k.a;
  int32_t e0 = between(-60, 20);
  for (uint32_t c = k.c0; c < k.c0 + k.ncols; c++) {
    uint8_t *p = b.scratch.unit(k.q + c * qu);
    int32_t e = k.style == 6 ? static_cast<int32_t>(rnd()) : e0 + between(-2, 2);
    memcpy(p, &e, 4);
    auto *m = reinterpret_cast<int32_t *>(p + 64);
    int qs = static_cast<int>(below(10)), bits = between(1, 31);
    for (uint32_t i = 0; i < n; i++) {
      if (i % 32 == 0 && below(4) == 0) bits = between(1, 31);
      m[i] = qs < 3   ? value(qs, -(1 << 30), 1 << 30)
             : qs < 6 ? static_cast<int32_t>(rnd()) >> (31 - bits)
             : qs < 9 ? static_cast<int32_t>(rnd()) >> 1
                      : static_cast<int32_t>(rnd());
    }
  }
  a.scale = (1u << 23) + below((1u << 23) + 1);
  a.scale_exp = k.style == 5 ? between(-32768, 32767) : -18 - base - e0 + between(-10, 2);
  std::vector<uint8_t> want = b.scratch.mem;
  model_attn(&a, kv, static_cast<int>(k.ncols), k.pos0 + k.c0,
             want.data() + 64 * std::size_t(k.q + k.c0 * qu),
             want.data() + 64 * std::size_t(k.dst + k.c0 * du));
  foray_desc_attn d{};
  d.q = k.q, d.dst = k.dst, d.head_dim = a.head_dim, d.heads = a.heads, d.kv_heads = a.kv_heads;
  d.offset = k.offset, d.scale = a.scale, d.scale_exp = a.scale_exp;
  uint32_t words[16];
  foray_desc_attn_pack(&d, words);
  put(b.top->desc_i, reinterpret_cast<uint8_t *>(words));
  b.top->c0_i = static_cast<CData>(k.c0), b.top->c1_i = static_cast<CData>(k.c0 + k.ncols);
  b.top->pos0_i = k.pos0, b.top->kv_i = k.kv, b.top->max_pos_i = a.max_pos;
  b.top->cmd_valid_i = 1;
  b.tick();
  b.top->cmd_valid_i = 0;
  b.cycles = b.beats = b.busy = b.starved = b.read_bytes = 0;
  char text[200];
  snprintf(text, sizeof text, "head_dim %u heads %u/%u columns %u+%u pos0 %u style %d stall %u", a.head_dim,
           a.heads, a.kv_heads, k.c0, k.ncols, k.pos0, k.style, b.stall);
  while (!b.top->done_o) {
    b.tick();
    if (b.cycles > 1000000) fail((std::string("no end: ") + text).c_str());
  }
  uint64_t took = b.cycles;
  b.tick();
  if (b.top->busy_o) fail("busy after done");
  b.cycles = took;
  if (!b.requests.empty() || b.valid) fail("records left over");
  for (uint32_t c = k.c0; c < k.c0 + k.ncols; c++) {
    std::size_t pad = 64 * std::size_t(k.dst + c * du) + 64 + 2 * n + n / 32,
                end = 64 * std::size_t(k.dst + (c + 1) * du);
    for (; pad < end; pad++) want[pad] = b.scratch.mem[pad];
  }
  if (want != b.scratch.mem) {
    for (std::size_t i = 0; i < want.size(); i += 2)
      if (memcmp(&want[i], &b.scratch.mem[i], 2)) {
        int16_t w, g;
        memcpy(&w, &want[i], 2), memcpy(&g, &b.scratch.mem[i], 2);
        fprintf(stderr, "unit %zu half %zu: want %d, got %d (q %u, dst %u, %u units)\n", i / 64, i % 64 / 2,
                w, g, k.q, k.dst, du);
        break;
      }
    fail(text);
  }
}

} // namespace

int main(int argc, char **argv) {
  uint32_t cases = argc > 1 ? static_cast<uint32_t>(atoi(argv[1])) : 200;
  if (argc > 2) rng_state ^= strtoull(argv[2], nullptr, 0) * 0x100000001B3u;
  Bench b;
  b.top->rst_ni = 0;
  for (int i = 0; i < 4; i++) b.tick();
  b.top->rst_ni = 1;
  b.tick();
  for (uint32_t i = 0; i < cases; i++) {
    Case k;
    k.a.head_dim = 32 * (1 + below(below(3) ? 4 : 8));
    k.a.kv_heads = 1 + below(3);
    k.a.heads = k.a.kv_heads * (1 + below(below(4) ? 4 : 12));
    k.ncols = below(2) ? 1 : 1 + below(COLS);
    k.c0 = below(COLS - k.ncols + 1);
    uint32_t length = k.c0 + k.ncols + below(i % 8 == 0 ? 300 : 70);
    k.pos0 = length - k.c0 - k.ncols;
    k.a.max_pos = length + below(20);
    k.style = static_cast<int>(below(10));
    k.kv = 1 + below(3), k.offset = below(3);
    k.q = below(4);
    k.dst = k.q + COLS * model_y32_units(k.a.heads * k.a.head_dim) + below(4);
    if (k.a.heads * k.a.head_dim / 32 * k.ncols > 512) continue;
    if (k.dst + COLS * model_a16_units(k.a.heads * k.a.head_dim) > kUnits) continue;
    b.stall = below(2) ? 0 : below(250);
    run_case(b, k);
  }
  // the shape of a small model at 1,024 positions
  Case k;
  k.a.head_dim = 64, k.a.heads = 14, k.a.kv_heads = 2, k.a.max_pos = 1024, k.pos0 = 1023, k.style = 2;
  k.dst = model_y32_units(14 * 64);
  b.stall = 0;
  run_case(b, k);
  printf("ok: %u cases; 14 heads of 64 on 2 KV heads, 1,024 positions: %llu cycles for %llu bytes, %llu "
         "starved\n",
         cases, static_cast<unsigned long long>(b.cycles), static_cast<unsigned long long>(b.read_bytes),
         static_cast<unsigned long long>(b.starved));
  return 0;
}
