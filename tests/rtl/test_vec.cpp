// foray_vec against host/dev/ref_vector.c: random ops, shapes, columns and contents, random gaps in the aux stream; the whole
// scratchpad must be the same bits afterwards.
#include "Vvec_tb.h"
#include "tb.hpp"

enum { UNITS = 1 << 15 };

struct bench {
  Vvec_tb dut;
  std::vector<tb_unit> scratch{UNITS}, expect{UNITS};
  std::deque<tb_unit> ax;
  tb_rng rng;
  uint64_t cycles = 0, busy = 0;
  int gaps = 0; // of 8 cycles, how many have no beat
  bool offered = false;

  explicit bench(uint64_t seed) : rng(seed) {}

  void reset() {
    dut.rst_ni = 0, dut.cmd_valid_i = 0, dut.ax_valid_i = 0;
    for (int i = 0; i < 4; i++) tick();
    dut.rst_ni = 1;
    tick();
  }

  void tick() {
    // inputs that stand before the edge
    if (!offered) offered = !ax.empty() && (int)rng.below(8) >= gaps;
    dut.ax_valid_i = offered;
    if (offered)
      memcpy(&dut.ax_data_i[0], ax.front().w, 64);
    else
      for (int i = 0; i < 16; i++) dut.ax_data_i[i] = 0xdeadbeef;
    dut.clk_i = 0;
    dut.eval();
    bool re = dut.sp_re_o, we = dut.sp_we_o, take = offered && dut.ax_ready_o;
    uint32_t ra = dut.sp_raddr_o, wa = dut.sp_waddr_o, strb = dut.sp_wstrb_o;
    tb_unit w, rd = {};
    memcpy(w.w, &dut.sp_wdata_o[0], 64);
    if (re) rd = scratch[ra % UNITS];
    if (we)
      for (int i = 0; i < 16; i++)
        if (strb >> i & 1) scratch[wa % UNITS].w[i] = w.w[i];
    if (take) ax.pop_front(), offered = false;
    dut.clk_i = 1;
    dut.eval();
    if (re) memcpy(&dut.sp_rdata_i[0], rd.w, 64);
    cycles++;
  }

  bool run(const uint32_t *desc, int c0, int c1, uint32_t pos0, const uint32_t *token) {
    memcpy(&dut.desc_i[0], desc, 64);
    dut.c0_i = (uint8_t)c0, dut.c1_i = (uint8_t)c1, dut.pos0_i = pos0;
    memcpy(&dut.token_i[0], token, 32);
    dut.cmd_valid_i = 1;
    tick();
    dut.cmd_valid_i = 0;
    uint64_t start = cycles;
    for (;;) {
      dut.clk_i = 0;
      dut.eval();
      if (dut.done_o) break;
      tick();
      if (cycles - start > 4000000) return false;
    }
    tick();
    busy = cycles - start;
    return true;
  }
};

static foray_y32 y32(std::vector<tb_unit> &s, uint32_t at, uint32_t n, int c) {
  uint8_t *p = (uint8_t *)&s[at + (foray_dev_y32_bytes(n) / 64) * (uint32_t)c];
  return {(int32_t *)p, (int32_t *)(p + 64)};
}
static foray_a16 a16(std::vector<tb_unit> &s, uint32_t at, uint32_t n, int c) {
  uint8_t *p = (uint8_t *)&s[at + (foray_dev_a16_bytes(n) / 64) * (uint32_t)c];
  return {(int32_t *)p, (int16_t *)(p + 64), p + 64 + foray_dev_up(2 * (uint64_t)n, 64)};
}

// A vector with a random spread of magnitudes; sometimes zero, sometimes any bits.
static void fill(tb_rng &r, foray_y32 v, uint32_t n, int exp_lo, int exp_hi) {
  int kind = (int)r.below(8), top = kind == 0 ? 0 : kind == 1 ? 31 : r.range(1, 30), spread = r.range(0, top);
  *v.exp = r.one_in(12) ? (int32_t)r.next() : r.range(exp_lo, exp_hi);
  if (r.one_in(10)) *v.exp = FORAY_ABI_EXP_ZERO;
  int bits = top;
  for (uint32_t i = 0; i < n; i++) {
    if (i % 32 == 0 || r.one_in(64)) bits = top - (int)r.below((uint32_t)spread + 1);
    v.m[i] = tb_mantissa(r, bits);
  }
}

static uint32_t root_n(uint32_t n) { // floor(sqrt(n) 2^16)
  uint64_t v = (uint64_t)n << 32, r = 0;
  for (uint64_t b = (uint64_t)1 << 31; b; b >>= 1)
    if ((r + b) * (r + b) <= v) r += b;
  return (uint32_t)r;
}

static uint32_t size(tb_rng &r, int big) { return 32 * (uint32_t)(r.one_in(6) ? r.range(1, big) : r.range(1, 9)); }

static const char *const op_name[] = {"EMBED", "RMSNORM", "ROPE", "SILU_MUL", "QUANT", "ADD"};

// One random case. Returns false when the bits differ.
static bool run_case(bench &b, int op, uint32_t force_n) {
  tb_rng &r = b.rng;
  uint32_t desc[16], token[8];
  int c1 = r.one_in(3) ? r.range(1, 8) : 1, c0 = r.one_in(2) ? 0 : (int)r.below((uint32_t)c1);
  uint32_t pos0 = r.below(65528), n = force_n ? force_n : size(r, op == 0 ? 24 : 70);
  if (force_n) c0 = 0, c1 = 1;
  b.gaps = force_n ? 0 : r.one_in(2) ? 0 : (int)r.below(8);
  b.ax.clear();
  for (auto &t : token) t = r.below(400);
  uint32_t at[3] = {1 + r.below(50), 10000 + r.below(50), 20000 + r.below(50)};
  auto push = [&](const void *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) {
      tb_unit u = {};
      memcpy(u.w, (const uint8_t *)p + i, bytes - i < 64 ? bytes - i : 64);
      b.ax.push_back(u);
    }
  };
  std::vector<uint8_t> image;
  std::vector<int32_t> gamma;
  std::vector<uint64_t> freq;
  foray_matrix m = {};
  foray_desc_rmsnorm dn = {};
  foray_desc_rope dr = {};
  switch (op) {
  case 0: {
    uint32_t rows = 400;
    if (!foray_dev_matrix_of(FORAY_QTYPE_Q8S, rows, n, false, &m.layout)) return false;
    image.resize(m.layout.bytes + 64);
    uint8_t *p = (uint8_t *)(((uintptr_t)image.data() + 63) & ~(uintptr_t)63);
    int kind = (int)r.below(4);
    for (size_t i = 0; i < m.layout.bytes; i++) p[i] = kind == 0 && i >= m.layout.data_at ? 0 : kind == 1 ? (uint8_t)(r.one_in(2) ? 0x80 : 0xff) : (uint8_t)r.next();
    m.qtype = FORAY_QTYPE_Q8S, m.rows = rows, m.cols = n, m.exp = r.one_in(8) ? r.range(-32768, 32767) : r.range(-60, 60);
    m.mant = (const uint16_t *)p, m.data = p + m.layout.data_at;
    foray_desc_embed d = {};
    d.qtype = FORAY_QTYPE_Q8S, d.dst = at[0], d.cols = n, d.rows = rows, d.exp = m.exp;
    foray_desc_embed_pack(&d, desc);
    for (int c = c0; c < c1; c++) {
      push(p + token[c] / 32 * 64, 64);
      push(m.data + token[c] / 16 * m.layout.block_bytes, m.layout.block_bytes);
      fill(r, y32(b.scratch, at[0], n, c), n, -40, 40);
    }
    break;
  }
  case 1:
    gamma.resize(n);
    for (auto &g : gamma) g = tb_mantissa(r, r.range(0, 31));
    dn.src = at[0], dn.dst = at[1], dn.n = n, dn.gamma_exp = r.one_in(8) ? r.range(-32768, 32767) : r.range(-40, 10);
    dn.eps_exp = r.one_in(4) ? r.range(-32768, 32767) : r.range(-70, 0), dn.eps_mant = (uint32_t)r.next() >> r.below(32);
    dn.root_n = root_n(n);
    foray_desc_rmsnorm_pack(&dn, desc);
    for (int c = c0; c < c1; c++) {
      fill(r, y32(b.scratch, at[0], n, c), n, -50, 10);
      push(gamma.data(), 4 * n);
    }
    break;
  case 2:
    dr.head_dim = 32 * (uint32_t)r.range(1, 8), dr.heads = (uint32_t)r.range(1, r.one_in(8) ? 30 : 5), dr.vec = at[0];
    if (force_n) dr.head_dim = 64, dr.heads = force_n / 64;
    if (r.one_in(2) || force_n) dr.flags |= FORAY_DF_NEOX;
    n = dr.head_dim * dr.heads;
    freq.resize(dr.head_dim / 2);
    for (uint32_t i = 0; i < freq.size(); i++)
      freq[i] = r.one_in(8) ? r.next() >> r.below(64) : r.one_in(8) ? (uint64_t)r.below(8) << 61 : foray_rope_freq_q64(10000, dr.head_dim, i);
    foray_desc_rope_pack(&dr, desc);
    for (int c = c0; c < c1; c++) {
      fill(r, y32(b.scratch, at[0], n, c), n, -50, 10);
      push(freq.data(), 8 * freq.size());
    }
    break;
  case 3: {
    foray_desc_silu_mul d = {};
    d.gate = at[0], d.up = at[1], d.dst = at[2], d.n = n;
    foray_desc_silu_mul_pack(&d, desc);
    for (int c = c0; c < c1; c++)
      fill(r, y32(b.scratch, at[0], n, c), n, -60, 12), fill(r, y32(b.scratch, at[1], n, c), n, -60, 12);
    break;
  }
  case 4: {
    foray_desc_quant d = {};
    d.src = at[0], d.dst = at[1], d.n = n;
    foray_desc_quant_pack(&d, desc);
    for (int c = c0; c < c1; c++) fill(r, y32(b.scratch, at[0], n, c), n, -60, 12);
    break;
  }
  default: {
    foray_desc_add d = {};
    d.acc = at[0], d.src = at[1], d.n = n;
    foray_desc_add_pack(&d, desc);
    int e = r.range(-50, 20), gap = r.one_in(2) ? 3 : 45;
    for (int c = c0; c < c1; c++)
      fill(r, y32(b.scratch, at[0], n, c), n, e, e + gap), fill(r, y32(b.scratch, at[1], n, c), n, e, e + gap);
    if (r.one_in(6)) // the one sum that needs 33 bits
      for (int c = c0; c < c1; c++) {
        foray_y32 x = y32(b.scratch, at[0], n, c), y = y32(b.scratch, at[1], n, c);
        *y.exp = *x.exp, x.m[n - 1] = y.m[n - 1] = r.one_in(2) ? INT32_MAX : INT32_MIN;
      }
  }
  }
  b.expect = b.scratch;
  for (int c = c0; c < c1; c++) {
    auto &s = b.expect;
    switch (op) {
    case 0: foray_ref_embed(nullptr, &m, token[c], y32(s, at[0], n, c)); break;
    case 1: foray_ref_rmsnorm(nullptr, &dn, gamma.data(), y32(s, at[0], n, c), a16(s, at[1], n, c)); break;
    case 2: foray_ref_rope(nullptr, &dr, freq.data(), pos0 + (uint32_t)c, y32(s, at[0], n, c)); break;
    case 3: foray_ref_silu_mul(nullptr, n, y32(s, at[0], n, c), y32(s, at[1], n, c), a16(s, at[2], n, c)); break;
    case 4: foray_ref_quant(nullptr, n, y32(s, at[0], n, c), a16(s, at[1], n, c)); break;
    default: foray_ref_add(nullptr, n, y32(s, at[0], n, c), y32(s, at[1], n, c));
    }
    if (op == 1 || op == 3 || op == 4) { // padding after the shifts: the device writes zeros
      foray_a16 v = a16(s, at[op == 3 ? 2 : 1], n, c);
      memset(v.shift + n / 32, 0, foray_dev_up(n / 32, 64) - n / 32);
    }
  }
  if (!b.run(desc, c0, c1, pos0, token)) {
    printf("test_vec: %s n %u columns %d..%d: no end\n", op_name[op], n, c0, c1);
    return false;
  }
  if (!b.ax.empty()) {
    printf("test_vec: %s n %u: %zu beats not taken\n", op_name[op], n, b.ax.size());
    return false;
  }
  for (uint32_t u = 0; u < UNITS; u++)
    if (memcmp(&b.scratch[u], &b.expect[u], 64)) {
      int i = 0;
      while (b.scratch[u].w[i] == b.expect[u].w[i]) i++;
      printf("test_vec: %s n %u columns %d..%d at %u %u %u: unit %u word %d is %08x, not %08x\n", op_name[op], n, c0, c1, at[0],
             at[1], at[2], u, i, b.scratch[u].w[i], b.expect[u].w[i]);
      return false;
    }
  return true;
}

int main(int argc, char **argv) {
  Verilated::commandArgs(argc, argv);
  uint64_t seed = tb_env("FORAY_SEED", 1), count = tb_env("FORAY_CASES", 3000);
  int only = (int)tb_env("FORAY_OP", 6);
  Verilated::randReset(2);
  bench b(seed);
  b.reset();
  for (uint64_t i = 0; i < count; i++)
    if (!run_case(b, only < 6 ? only : (int)(i % 6), 0)) {
      printf("test_vec: FAILED at case %llu of seed %llu\n", (unsigned long long)i, (unsigned long long)seed);
      return 1;
    }
  printf("test_vec: %llu cases equal, %llu cycles;", (unsigned long long)count, (unsigned long long)b.cycles);
  static const uint32_t at_n[] = {896, 896, 896, 4864, 896, 896};
  for (int op = 0; op < 6; op++) {
    if (!run_case(b, op, at_n[op])) return 1;
    printf(" %s(%u) %llu", op_name[op], at_n[op], (unsigned long long)b.busy);
  }
  printf(" cycles\n");
  return 0;
}
