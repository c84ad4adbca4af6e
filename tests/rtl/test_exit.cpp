// foray_exit against host/dev/ref_exit.c and exit.c: random streams over several columns, with gaps, with and without noise; the ring
// entries and the signs of the rules must be the same bits.
#include "Vexit_tb.h"
#include "tb.hpp"

#ifndef COLS
#define COLS 8
#endif

struct logit {
  int col;
  uint32_t id;
  int32_t value;
};

struct bench {
  Vexit_tb dut;
  tb_rng rng;
  uint64_t cycles = 0;
  explicit bench(uint64_t seed) : rng(seed) {}

  void eval() {
    dut.clk_i = 0;
    dut.eval();
  }
  void edge() {
    dut.clk_i = 1;
    dut.eval();
    cycles++;
  }
  void tick() { eval(), edge(); }
  void reset() {
    dut.rst_ni = 0, dut.clear_i = 0, dut.lg_valid_i = 0, dut.finish_i = 0;
    for (int i = 0; i < 4; i++) tick();
    dut.rst_ni = 1;
    tick();
  }
};

// Logits of one of several shapes: from flat to one far above, with ties and corner values.
static int32_t draw(tb_rng &r, int shape) {
  switch (shape) {
  case 0: return (int32_t)r.range(-20, 20) << 16;                      // ties
  case 1: return r.range(-(12 << 16), 12 << 16);
  case 2: return r.range(0, 30 << 16) - (r.one_in(50) ? 0 : 20 << 16); // a few stand out
  case 3: return (int32_t)r.next();                                    // anything, bins at both ends
  case 4: return r.one_in(3) ? INT32_MAX : r.one_in(2) ? -INT32_MAX : r.range(-5, 5);
  case 5: return -(int32_t)r.below(40u << 16);                         // no evidence
  default: return r.range(-(3 << 16), 3 << 16) + (r.one_in(300) ? 25 << 16 : 0);
  }
}

static bool run_case(bench &b, uint64_t index, uint32_t rows, int cols, bool sample, uint64_t *stream, uint64_t *finish) {
  tb_rng &r = b.rng;
  int shape = (int)r.below(7), gaps = stream ? 0 : r.one_in(2) ? 0 : (int)r.below(8);
  foray_sampling s = {sample, r.one_in(4) ? (uint32_t)r.next() >> r.below(32) : (uint32_t)r.range(1 << 14, 1 << 18), r.next(), r.below(65536)};
  std::vector<logit> in;
  std::vector<int32_t> value[COLS];
  std::vector<uint32_t> id(rows);
  bool trimmed = r.one_in(2);
  for (uint32_t i = 0; i < rows; i++) id[i] = trimmed ? r.below(1u << 20) : i;
  for (uint32_t i = 0; i < rows; i += 16)
    for (int c = 0; c < cols; c++)
      for (uint32_t k = i; k < rows && k < i + 16; k++) {
        value[c].push_back(draw(r, shape));
        in.push_back({c, id[k], value[c].back()});
      }
  // to the unit
  int32_t cum = (int32_t)(r.one_in(8) ? r.next() : (uint64_t)(int64_t)-r.range(0, 1 << 22)), rules[2][8];
  for (auto &rule : rules)
    for (auto &c : rule) c = r.one_in(4) ? (int32_t)r.next() : r.range(-(4 << 16), 4 << 16);
  b.dut.sample_i = s.on, b.dut.inv_temp_i = s.inv_temp, b.dut.seed_i = s.seed, b.dut.position_i = s.position, b.dut.cum_i = (uint32_t)cum;
  memcpy(&b.dut.exit_rule_i[0], rules[0], 32);
  memcpy(&b.dut.stop_rule_i[0], rules[1], 32);
  b.dut.clear_i = 1;
  b.tick();
  b.dut.clear_i = 0;
  uint64_t begun = b.cycles;
  if (stream) {
    while (b.dut.clear_busy_o) b.tick();
    begun = b.cycles;
  }
  for (size_t i = 0; i < in.size();) {
    bool offer = (int)r.below(8) >= gaps;
    b.dut.lg_valid_i = offer;
    b.dut.lg_col_i = (uint8_t)in[i].col, b.dut.lg_id_i = in[i].id, b.dut.lg_logit_i = (uint32_t)in[i].value;
    do {
      b.eval();
      if (offer && b.dut.lg_ready_o) i++, offer = false;
      b.edge();
      if (b.cycles - begun > 100000000) return printf("test_exit: stream stands\n"), false;
    } while (offer);
  }
  b.dut.lg_valid_i = 0;
  if (stream) *stream = b.cycles - begun;
  for (int c = 0; c < cols; c++) {
    foray_exit_unit u;
    foray_exit_clear(&u);
    s.position = b.dut.position_i + (uint32_t)c;
    foray_ref_exit_stream(nullptr, value[c].data(), id.data(), rows, &s, &u);
    foray_rec_ring want = {};
    foray_exit_finish(&u, cum, &want);
    uint32_t w[FORAY_ABI_RING_WORDS];
    foray_rec_ring_pack(&want, w);
    bool exit_ge0 = foray_exit_rule(rules[0], &want) >= 0, stop_lt0 = foray_exit_rule(rules[1], &want) < 0;
    b.dut.finish_i = 1, b.dut.col_i = (uint8_t)c;
    b.tick();
    b.dut.finish_i = 0;
    begun = b.cycles;
    for (;;) {
      b.eval();
      if (b.dut.done_o) break;
      b.edge();
      if (b.cycles - begun > 20000) return printf("test_exit: no end\n"), false;
    }
    b.edge();
    if (finish) *finish = b.cycles - begun;
    for (int i = 0; i < FORAY_ABI_RING_WORDS; i++)
      if (b.dut.entry_o[i] != w[i]) {
        printf("test_exit: case %llu, %u rows, column %d of %d, shape %d, noise %d: word %d is %08x, not %08x\n",
               (unsigned long long)index, rows, c, cols, shape, sample, i, b.dut.entry_o[i], w[i]);
        if (!tb_env("FORAY_ALL", 0)) return false;
      }
    if (b.dut.exit_ge0_o != exit_ge0 || b.dut.stop_lt0_o != stop_lt0)
      return printf("test_exit: case %llu: rules %d %d, not %d %d\n", (unsigned long long)index, b.dut.exit_ge0_o,
                    b.dut.stop_lt0_o, exit_ge0, stop_lt0), false;
  }
  return true;
}

int main(int argc, char **argv) {
  Verilated::commandArgs(argc, argv);
  uint64_t seed = tb_env("FORAY_SEED", 1), count = tb_env("FORAY_CASES", 1500);
  Verilated::randReset(2);
  bench b(seed);
  b.reset();
  for (uint64_t i = 0; i < count; i++) {
    uint32_t rows = b.rng.one_in(20) ? (uint32_t)b.rng.range(500, 3000) : (uint32_t)b.rng.range(1, b.rng.one_in(3) ? 12 : 120);
    if (!run_case(b, i, rows, b.rng.one_in(3) ? b.rng.range(1, COLS) : 1, b.rng.one_in(2), nullptr, nullptr)) {
      printf("test_exit: FAILED: differs, seed %llu\n", (unsigned long long)seed);
      return 1;
    }
  }
  printf("test_exit: %llu cases equal, %llu cycles;", (unsigned long long)count, (unsigned long long)b.cycles);
  uint64_t stream[2] = {0, 0}, finish = 0;
  for (int on = 0; on < 2; on++)
    if (!run_case(b, count, 20000, 1, on, &stream[on], &finish)) return 1;
  printf(" 20000 logits %llu cycles, with noise %llu; finish %llu\n", (unsigned long long)stream[0], (unsigned long long)stream[1],
         (unsigned long long)finish);
  return 0;
}
