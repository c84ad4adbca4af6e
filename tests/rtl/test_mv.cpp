// foray_mv against foray_ref_gemv and foray_ref_head: random shapes, formats, columns, corner values and
// stalls; the whole scratchpad and every logit are compared bit for bit.
#include "bench.h"
#define _Static_assert static_assert
#include "gen/foray_abi.h"
#include "model.h"

#include "Vmv_tb.h"

#include <memory>
#include <string>

using namespace bench;

namespace {

constexpr uint32_t kUnits = 4096;

struct Logit {
  uint32_t row, id;
  int32_t logit;
  bool last;
};

struct Bench {
  VerilatedContext ctx;
  std::unique_ptr<Vmv_tb> top{new Vmv_tb(&ctx)};
  Scratch scratch{kUnits};
  Source ws, ax;
  uint32_t lg_stall = 0;
  std::vector<Logit> logits[FORAY_ABI_COLS_MAX];
  uint64_t cycles = 0, waits = 0; // waits: the engine did not take an offered weight beat once it had begun
  bool begun = false, explained = true;
  uint8_t rdata[64] = {0};

  void tick() {
    ws.offer(), ax.offer();
    top->ws_valid_i = ws.valid, put(top->ws_data_i, ws.data());
    top->ax_valid_i = ax.valid, put(top->ax_data_i, ax.data());
    top->lg_ready_i = lg_stall == 0 || below(256) >= lg_stall;
    top->clk_i = 0;
    top->eval();
    bool took_ws = ws.valid && top->ws_ready_o, took_ax = ax.valid && top->ax_ready_o;
    if (took_ws) begun = true;
    if (begun && ws.valid && !top->ws_ready_o) waits++;
    if (top->busy_o && __builtin_popcount(top->act_o) != 1) explained = false;
    uint32_t we = top->sp_we_o, wa = top->sp_waddr_o, strb = top->sp_wstrb_o, re = top->sp_re_o,
             ra = top->sp_raddr_o;
    uint8_t wdata[64];
    get(top->sp_wdata_o, wdata);
    if (top->lg_valid_o && top->lg_ready_i)
      logits[top->lg_col_o].push_back(
          {top->lg_row_o, top->lg_id_o, static_cast<int32_t>(top->lg_logit_o), top->lg_last_o != 0});
    if (re) {
      if (ra >= kUnits) fail("read beyond the scratchpad");
      memcpy(rdata, scratch.unit(ra), 64); // the old word, also when it is written in this cycle
    }
    top->clk_i = 1;
    top->eval();
    if (we) {
      if (wa >= kUnits) fail("write beyond the scratchpad");
      for (int l = 0; l < 16; l++)
        if (strb >> l & 1) memcpy(scratch.unit(wa) + 4 * l, wdata + 4 * l, 4);
    }
    put(top->sp_rdata_i, rdata);
    if (took_ws) ws.took();
    if (took_ax) ax.took();
    cycles++;
  }
  void reset() {
    top->rst_ni = 0;
    for (int i = 0; i < 4; i++) tick();
    top->rst_ni = 1;
    tick();
  }
  void run(const uint8_t *desc, uint32_t c0, uint32_t c1, uint64_t limit) {
    put(top->desc_i, desc);
    top->c0_i = static_cast<CData>(c0), top->c1_i = static_cast<CData>(c1);
    top->cmd_valid_i = 1;
    tick();
    top->cmd_valid_i = 0;
    cycles = 0, waits = 0, begun = false;
    for (auto &l : logits) l.clear();
    while (!top->done_o) {
      tick();
      if (cycles > limit) fail("no end");
    }
    tick();
    if (top->busy_o) fail("busy after done");
    if (!ws.empty() || !ax.empty()) fail("beats left over");
  }
};

struct Case {
  bool head;
  model_matrix m{};
  std::vector<uint8_t> bytes;
  uint32_t used = 0, c0 = 0, ncols = 1, src = 0, dst = 0;
  std::vector<uint32_t> ids;
  std::string text() const {
    char s[200];
    snprintf(s, sizeof s, "%s q=%u rows=%u cols=%u used=%u bias=%d ids=%zu c0=%u ncols=%u exp=%d",
             head ? "HEAD" : "GEMV", m.qtype, m.rows, m.cols, used, m.bias, ids.size(), c0, ncols, m.exp);
    return s;
  }
};

void fill_matrix(Case &k) {
  k.bytes.assign(k.m.size, 0);
  int qs = static_cast<int>(below(8)), ss = static_cast<int>(below(8)), ms = static_cast<int>(below(8));
  auto *mant = reinterpret_cast<uint16_t *>(k.bytes.data());
  for (uint32_t r = 0; r < k.m.rows_pad; r++) mant[r] = static_cast<uint16_t>(value(ms, 0, 65535));
  if (k.m.bias) {
    auto *b = reinterpret_cast<int32_t *>(k.bytes.data() + k.m.bias_at);
    int bs = static_cast<int>(below(6)), bits = between(1, 31);
    for (uint32_t r = 0; r < k.m.rows_pad; r++)
      b[r] = bs == 0   ? INT32_MIN
             : bs == 1 ? 0
             : bs == 2 ? INT32_MAX
                       : static_cast<int32_t>(rnd()) >> (31 - bits);
  }
  uint8_t *data = k.bytes.data() + k.m.data_at;
  uint32_t per = k.m.qtype == FORAY_QTYPE_Q4A ? 2 : 4, beats = k.m.qtype == FORAY_QTYPE_Q4A ? 4 : 8;
  for (uint32_t b = 0; b < k.m.rows_pad / 16; b++)
    for (uint32_t g = 0; g < k.m.groups; g++) {
      uint8_t *quad = data + b * k.m.block_bytes + g / per * (64 + per * beats * 64);
      uint8_t *w = quad + 64 + g % per * beats * 64;
      uint32_t codes = 64 / per;
      for (uint32_t i = 0; i < codes; i++)
        quad[g % per * codes + i] = static_cast<uint8_t>(value(ss, 0, 255));
      for (uint32_t i = 0; i < beats * 64; i++)
        w[i] = k.m.qtype == FORAY_QTYPE_Q4A ? static_cast<uint8_t>(value(qs, 0, 15) | value(qs, 0, 15) << 4)
                                            : static_cast<uint8_t>(value(qs, -128, 127));
    }
  k.m.bytes = k.bytes.data();
}

void fill_scratch(Case &k, Scratch &s) {
  for (auto &b : s.mem) b = static_cast<uint8_t>(rnd());
  uint32_t units = model_a16_units(k.m.cols);
  for (uint32_t c = 0; c < k.ncols; c++) {
    uint8_t *p = s.unit(k.src + (k.c0 + c) * units);
    int style = static_cast<int>(below(9)), sh = static_cast<int>(below(8));
    int32_t e = below(8) == 0 ? static_cast<int32_t>(rnd()) : between(-60, 60);
    // HEAD: mostly where logits are of a usual size
    if (k.head && below(8)) e = -between(20, 75) - k.m.exp;
    memcpy(p, &e, 4);
    auto *m = reinterpret_cast<int16_t *>(p + 64);
    for (uint32_t i = 0; i < k.m.cols; i++)
      m[i] = static_cast<int16_t>(style == 8 ? static_cast<int>(rnd() >> 16) - 32768
                                             : value(style, -16384, 16384));
    for (uint32_t g = 0; g < k.m.groups; g++)
      p[64 + 2 * k.m.cols + g] = static_cast<uint8_t>(value(sh, 0, sh == 7 ? 255 : 15));
  }
}

std::vector<uint8_t> aux_bytes(const Case &k) {
  std::vector<uint8_t> ax;
  auto add = [&](const uint8_t *p, std::size_t n, std::size_t padded) {
    ax.insert(ax.end(), p, p + n);
    ax.resize(ax.size() + padded - n, 0xA5);
  };
  uint32_t rows = k.head ? (k.used + 15) / 16 * 16 : k.m.rows_pad;
  if (k.m.bias) add(k.bytes.data() + k.m.bias_at, 4 * rows, 4 * rows);
  for (uint32_t r = 0; r < rows; r += 512) {
    uint32_t n = rows - r < 512 ? rows - r : 512;
    add(k.bytes.data() + 2 * r, 2 * n, (2 * n + 63) / 64 * 64);
    if (!k.ids.empty()) add(reinterpret_cast<const uint8_t *>(k.ids.data() + r), 4 * n, 4 * n);
  }
  if (k.m.bias) add(k.bytes.data() + k.m.bias_at, 4 * rows, 4 * rows);
  return ax;
}

// Cycles of the run; ends the program when a bit differs.
uint64_t run_case(Bench &b, Case &k, uint32_t stall) {
  fill_matrix(k);
  fill_scratch(k, b.scratch);
  uint32_t words[16] = {0};
  if (k.head) {
    foray_desc_head d{};
    d.qtype = k.m.qtype, d.src = k.src, d.ids = k.ids.empty() ? 0 : 77;
    d.cols = k.m.cols, d.rows = k.m.rows, d.used = k.used, d.exp = k.m.exp;
    foray_desc_head_pack(&d, words);
  } else {
    foray_desc_gemv d{};
    d.qtype = k.m.qtype, d.src = k.src, d.dst = k.dst;
    d.flags = k.m.bias ? FORAY_DF_BIAS : 0;
    d.cols = k.m.cols, d.rows = k.m.rows, d.exp = k.m.exp;
    d.bias_exp = k.m.bias_exp;
    foray_desc_gemv_pack(&d, words);
  }
  std::vector<uint8_t> want = b.scratch.mem;
  uint8_t *src = want.data() + 64 * std::size_t(k.src + k.c0 * model_a16_units(k.m.cols));
  std::vector<int32_t> logits(std::size_t(k.used) * k.ncols);
  uint64_t bytes = k.head ? uint64_t(k.used + 15) / 16 * k.m.block_bytes : k.m.size - k.m.data_at;
  if (k.head)
    model_head(&k.m, k.used, static_cast<int>(k.ncols), src, logits.data());
  else
    model_gemv(&k.m, static_cast<int>(k.ncols), src,
               want.data() + 64 * std::size_t(k.dst + k.c0 * model_y32_units(k.m.rows_pad)));
  auto first = k.bytes.begin() + static_cast<std::ptrdiff_t>(k.m.data_at);
  b.ws.load(std::vector<uint8_t>(first, first + static_cast<std::ptrdiff_t>(bytes)), WSW / 8, stall);
  b.ax.load(aux_bytes(k), 64, stall);
  b.lg_stall = stall;
  b.run(reinterpret_cast<uint8_t *>(words), k.c0, k.c0 + k.ncols, 100000 + bytes * 16 + k.m.rows_pad * 200);
  if (memcmp(want.data(), b.scratch.mem.data(), want.size())) {
    for (std::size_t i = 0; i < want.size(); i += 4)
      if (memcmp(&want[i], &b.scratch.mem[i], 4)) {
        int32_t w, g;
        memcpy(&w, &want[i], 4), memcpy(&g, &b.scratch.mem[i], 4);
        fprintf(stderr, "unit %zu word %zu: want %d, got %d (src %u, dst %u)\n", i / 64, i % 64 / 4, w, g,
                k.src, k.dst);
        break;
      }
    fail(k.text().c_str());
  }
  if (!b.explained) fail("a busy cycle without exactly one reason");
  for (uint32_t c = 0; k.head && c < k.ncols; c++) {
    auto &l = b.logits[k.c0 + c];
    if (l.size() != k.used) fail((k.text() + ": number of logits").c_str());
    for (uint32_t r = 0; r < k.used; r++)
      if (l[r].row != r || l[r].id != (k.ids.empty() ? r : k.ids[r]) ||
          l[r].logit != logits[c * std::size_t(k.used) + r] || l[r].last != (r + 1 == k.used)) {
        fprintf(stderr, "column %u row %u: want %d, got %d (row %u, id %u)\n", c, r,
                logits[c * std::size_t(k.used) + r], l[r].logit, l[r].row, l[r].id);
        fail(k.text().c_str());
      }
  }
  return b.cycles;
}

Case make_case(uint32_t max_rows, uint32_t max_groups) {
  Case k;
  k.head = below(3) == 0;
  k.m.qtype = below(2) ? FORAY_QTYPE_Q4A : FORAY_QTYPE_Q8S;
  k.m.rows = 1 + below(below(3) ? 48 : max_rows);
  k.m.cols = 32 * (1 + below(below(3) ? 6 : max_groups));
  k.m.exp = below(8) ? between(-40, 10) : between(-32768, 32767);
  k.m.bias = !k.head && below(3) == 0;
  k.m.bias_exp = k.m.bias ? (below(4) ? between(-60, 40) : between(-32768, 32767)) : 0;
  if (k.head) k.used = 1 + below(k.m.rows);
  if (k.head && below(2)) {
    k.ids.resize((k.used + 15) / 16 * 16);
    for (auto &i : k.ids) i = rnd();
  }
  k.ncols = 1 + below(COLS);
  k.c0 = below(COLS - k.ncols + 1);
  model_matrix_layout(&k.m);
  k.src = below(8);
  k.dst = k.src + COLS * model_a16_units(k.m.cols) + below(8);
  return k;
}

} // namespace

int main(int argc, char **argv) {
  uint32_t cases = argc > 1 ? static_cast<uint32_t>(atoi(argv[1])) : 500;
  if (argc > 2) rng_state ^= strtoull(argv[2], nullptr, 0) * 0x100000001B3u;
  Bench b;
  b.reset();
  static const uint32_t stalls[] = {0, 0, 20, 128, 230};
  for (uint32_t i = 0; i < cases; i++) {
    Case k = make_case(i % 16 == 0 ? 1100 : 200, 24);
    while (k.dst + COLS * model_y32_units(k.m.rows_pad) > kUnits) k = make_case(200, 24);
    run_case(b, k, stalls[below(5)]);
  }
  // The stream does not pause: a matrix as wide as a small model's, no stalls.
  Case k;
  k.head = false;
  k.m.qtype = FORAY_QTYPE_Q4A, k.m.rows = 320, k.m.cols = 896, k.ncols = COLS;
  model_matrix_layout(&k.m);
  k.dst = COLS * model_a16_units(k.m.cols);
  uint64_t cycles = run_case(b, k, 0), beats = (k.m.size - k.m.data_at) / (WSW / 8);
  if (b.waits) fail("the weight stream paused");
  printf("ok: %u cases; %llu weight beats in %llu cycles\n", cases, static_cast<unsigned long long>(beats),
         static_cast<unsigned long long>(cycles));
  return 0;
}
