// foray_kv_put against foray_ref_kv_put: random shapes, columns, exponents, magnitudes and stalls; the whole
// KV memory is compared byte for byte.
#include "bench.h"
#define _Static_assert static_assert
#include "gen/foray_abi.h"
#include "model.h"

#include "Vkv_put_tb.h"

#include <memory>

using namespace bench;

int main(int argc, char **argv) {
  uint32_t cases = argc > 1 ? static_cast<uint32_t>(atoi(argv[1])) : 1500;
  if (argc > 2) rng_state ^= strtoull(argv[2], nullptr, 0) * 0x100000001B3u;
  const uint32_t units = 4096, heap_units = 4096;
  VerilatedContext ctx;
  std::unique_ptr<Vkv_put_tb> top{new Vkv_put_tb(&ctx)};
  Scratch scratch(units);
  std::vector<uint8_t> heap(heap_units * 64), want;
  uint64_t cycles = 0, groups_done = 0;
  uint8_t rdata[64] = {0};
  uint32_t stall = 0;
  auto tick = [&] {
    top->kw_ready_i = stall == 0 || below(256) >= stall;
    top->clk_i = 0;
    top->eval();
    bool wrote = top->kw_valid_o && top->kw_ready_i;
    if (top->busy_o && __builtin_popcount(top->act_o) != 1) fail("a busy cycle without exactly one reason");
    if (top->sp_re_o) {
      if (top->sp_raddr_o >= units) fail("read beyond the scratchpad");
      memcpy(rdata, scratch.unit(top->sp_raddr_o), 64);
    }
    if (wrote) {
      uint8_t data[64];
      get(top->kw_data_o, data);
      if (top->kw_addr_o >= heap_units) fail("write beyond the heap");
      for (int i = 0; i < 64; i++)
        if (top->kw_strb_o >> i & 1)
          heap[std::size_t(top->kw_addr_o) * 64 + static_cast<std::size_t>(i)] = data[i];
    }
    top->clk_i = 1;
    top->eval();
    put(top->sp_rdata_i, rdata);
    cycles++;
  };
  top->rst_ni = 0;
  for (int i = 0; i < 4; i++) tick();
  top->rst_ni = 1;
  tick();
  for (uint32_t n = 0; n < cases; n++) {
    uint32_t hd = 32 * (1 + below(8)), heads = 1 + below(4), ncols = 1 + below(8), c0 = below(9 - ncols);
    uint32_t max_pos = c0 + ncols + below(20), pos0 = below(max_pos - c0 - ncols + 1);
    uint32_t kv_units = (model_kv_record(hd) * heads * max_pos + 63) / 64;
    uint32_t col_units = model_y32_units(heads * hd), k = below(4), v = k + 8 * col_units + below(4);
    if (kv_units + 8 > heap_units || v + 8 * col_units > units) continue;
    uint32_t kv = 1 + below(4), offset = below(3);
    for (auto &b : heap) b = static_cast<uint8_t>(rnd());
    for (uint32_t c = 0; c < 8; c++)
      for (uint32_t which : {k, v}) {
        uint8_t *p = scratch.unit(which + c * col_units);
        int32_t e = below(6)   ? between(-75, 20)
                    : below(2) ? between(-9000, 9000)
                               : static_cast<int32_t>(rnd());
        memcpy(p, &e, 4);
        auto *m = reinterpret_cast<int32_t *>(p + 64);
        for (uint32_t g = 0; g < heads * hd / 32; g++) {
          int style = static_cast<int>(below(9)), bits = between(0, 31);
          for (uint32_t i = 0; i < 32; i++)
            m[g * 32 + i] = style == 8   ? static_cast<int32_t>(rnd())
                            : style == 7 ? (rnd() & 1 ? 1 : -1) * (1 << (bits > 30 ? 30 : bits))
                            : style < 4  ? value(style, -(1 << 30), 1 << 30)
                                         : static_cast<int32_t>(rnd()) >> (31 - bits);
        }
      }
    want = heap;
    for (uint32_t c = c0; c < c0 + ncols; c++)
      model_kv_put(want.data() + 64 * std::size_t(kv + offset), max_pos, hd, heads, pos0 + c,
                   scratch.unit(k + c * col_units), scratch.unit(v + c * col_units));
    foray_desc_kv_put d{};
    d.k = k, d.v = v, d.head_dim = hd, d.heads = heads, d.offset = offset;
    uint32_t words[16];
    foray_desc_kv_put_pack(&d, words);
    put(top->desc_i, reinterpret_cast<uint8_t *>(words));
    top->c0_i = static_cast<CData>(c0), top->c1_i = static_cast<CData>(c0 + ncols);
    top->pos0_i = pos0, top->kv_i = kv, top->max_pos_i = max_pos;
    stall = below(2) ? 0 : below(240);
    top->cmd_valid_i = 1;
    tick();
    top->cmd_valid_i = 0;
    uint64_t begin = cycles;
    while (!top->done_o) {
      tick();
      if (cycles - begin > 2000000) fail("no end");
    }
    tick();
    groups_done += uint64_t(ncols) * heads * hd / 16;
    if (want != heap) {
      for (std::size_t i = 0; i < want.size(); i++)
        if (want[i] != heap[i]) {
          std::size_t rel = i - 64 * std::size_t(kv + offset), r = model_kv_record(hd);
          fprintf(stderr,
                  "record %zu byte %zu: want %d, got %d (head_dim %u heads %u max_pos %u pos0 %u c0 %u ncols "
                  "%u)\n",
                  rel / r, rel % r, want[i], heap[i], hd, heads, max_pos, pos0, c0, ncols);
          break;
        }
      fail("KV_PUT");
    }
  }
  printf("ok: %u cases, %.1f cycles a group of 32\n", cases,
         static_cast<double>(cycles) / static_cast<double>(groups_done));
  return 0;
}
