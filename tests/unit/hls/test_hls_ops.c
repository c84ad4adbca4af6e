/* Each HLS kernel against the reference kernel of the same op: random shapes, columns, vectors of every kind
 * of content (also bits that no op writes). The whole scratchpad and the whole heap must be alike afterwards,
 * so a byte that is written outside the result is a failure too. */
#include "unit/harness.h"
#include "unit/tiny_program.h"

#include "dev/exit.h"
#include "dev/ref.h"
#include "include/hls_program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nobody watches, nothing expires. */
int foray_hls_expired(void) { return 0; }
void foray_hls_begin(int pass) { (void)pass; }
void foray_hls_end(int pass, uint32_t desc, uint32_t op, uint32_t segment, uint32_t exit, uint32_t columns,
                   uint32_t position) {
  (void)pass, (void)desc, (void)op, (void)segment, (void)exit, (void)columns, (void)position;
}
void foray_hls_token(uint32_t segment, const struct foray_rec_ring *r) { (void)segment, (void)r; }

static uint64_t rng_state;
static uint64_t rnd(void) {
  rng_state ^= rng_state << 13, rng_state ^= rng_state >> 7, rng_state ^= rng_state << 17;
  return rng_state;
}
static uint32_t below(uint32_t n) { return (uint32_t)(rnd() >> 32) % n; }
static int32_t between(int32_t lo, int32_t hi) { return lo + (int32_t)below((uint32_t)(hi - lo + 1)); }

/* With FORAY_HLS_VECTORS=FOLDER one small call of each kernel is recorded there, for the bench of hls/vitis.
 */
static bool recording;

enum { HEAP = 1 << 20, SCRATCH = 1 << 20, BASE = 64 /* unit of the op's own memory */ };

/* Two copies of the memories: [0] for ref, [1] for the kernel. */
static _Alignas(64) uint8_t heap[2][HEAP], scratch[2][SCRATCH];
static uint32_t c0, c1, desc[FORAY_ABI_DESC_WORDS];

static foray_word *heap_words(void) { return (foray_word *)(void *)heap[1]; }
static foray_word *scratch_words(void) { return (foray_word *)(void *)scratch[1]; }

static struct foray_y32 y32(uint32_t unit, uint32_t n, uint32_t col) {
  uint8_t *p = scratch[0] + (uint64_t)unit * 64 + foray_dev_y32_bytes(n) * col;
  return (struct foray_y32){(int32_t *)(void *)p, (int32_t *)(void *)(p + 64)};
}
static struct foray_a16 a16(uint32_t unit, uint32_t n, uint32_t col) {
  uint8_t *p = scratch[0] + (uint64_t)unit * 64 + foray_dev_a16_bytes(n) * col;
  return (struct foray_a16){(int32_t *)(void *)p, (int16_t *)(void *)(p + 64),
                            p + 64 + foray_dev_up(2 * (uint64_t)n, 64)};
}

/* Memory of any bits, then exponents of a useful size in vectors that will be read. */
static void any_bits(void) {
  int style = between(0, 5);
  for (size_t i = 0; i < HEAP; i += 8) {
    uint64_t v = style == 0 ? 0 : rnd();
    memcpy(heap[0] + i, &v, 8);
  }
  for (size_t i = 0; i < SCRATCH; i += 4) {
    uint32_t v = (uint32_t)rnd();
    if (style == 1) v = v & 1 ? 0x40000000u : 0xC0000000u;
    if (style == 2) v = (uint32_t)((int32_t)v >> (v & 31));
    if (style == 3 && (v >> 8) % 50) v = 0;
    if (style == 4) v = v & 0x01ff01ff;
    memcpy(scratch[0] + i, &v, 4);
  }
}
static void exponents(uint32_t unit, uint64_t bytes, int32_t lo, int32_t hi) {
  bool wild = below(8) == 0;
  for (uint32_t c = 0; c < FORAY_ABI_COLS_MAX; c++) {
    int32_t e = wild ? (int32_t)rnd() : between(lo, hi);
    if (below(40) == 0) e = FORAY_ABI_EXP_ZERO;
    memcpy(scratch[0] + (uint64_t)unit * 64 + bytes * c, &e, 4);
  }
}
static void columns(void) {
  const uint32_t most = recording ? 4 : FORAY_ABI_COLS_MAX;
  c0 = below(most);
  c1 = c0 + 1 + below(most - c0);
}
static uint8_t before[2][HEAP];
static void twin(void) {
  memcpy(heap[1], heap[0], HEAP);
  memcpy(scratch[1], scratch[0], SCRATCH);
  if (!recording) return;
  memcpy(before[0], heap[0], HEAP);
  memcpy(before[1], scratch[0], SCRATCH);
}
static bool same(void) { return !memcmp(heap[0], heap[1], HEAP) && !memcmp(scratch[0], scratch[1], SCRATCH); }

/* hls/vitis/tb.c reads it. */
static void record(const char *kernel, const uint32_t *args, size_t n_args, const uint8_t *heap_after,
                   const uint8_t *scratch_after) {
  char path[4096], name[16] = "";
  uint32_t head[3] = {0x31564846, HEAP / 8, SCRATCH / 8}, a[16] = {0};
  if (!recording) return;
  snprintf(path, sizeof path, "%s/%s.bin", getenv("FORAY_HLS_VECTORS"), kernel);
  snprintf(name, sizeof name, "%s", kernel);
  memcpy(a, args, n_args * sizeof *args);
  FILE *f = fopen(path, "wb");
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  size_t put = fwrite(head, 1, sizeof head, f) + fwrite(name, 1, sizeof name, f) + fwrite(a, 1, sizeof a, f) +
               fwrite(desc, 1, sizeof desc, f) + fwrite(before[0], 1, HEAP, f) +
               fwrite(before[1], 1, SCRATCH, f) + fwrite(heap_after, 1, HEAP, f) +
               fwrite(scratch_after, 1, SCRATCH, f);
  CU_ASSERT_EQUAL(put, sizeof head + sizeof name + sizeof a + sizeof desc + 4 * (size_t)HEAP);
  fclose(f);
}
#define RECORD(kernel, ...)                                                                                  \
  record(kernel, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4, heap[0],      \
         scratch[0])

/* Units of two or three vectors behind one another. */
static uint32_t after(uint32_t unit, uint64_t column_bytes) {
  return unit + (uint32_t)(column_bytes / 64) * FORAY_ABI_COLS_MAX;
}

static struct foray_matrix matrix(uint32_t qtype, uint32_t rows, uint32_t cols, bool bias, int32_t exp,
                                  int32_t bias_exp) {
  struct foray_matrix m = {.qtype = qtype, .rows = rows, .cols = cols, .exp = exp, .bias_exp = bias_exp};
  CU_ASSERT_TRUE_FATAL(foray_dev_matrix_of(qtype, rows, cols, bias, &m.layout));
  CU_ASSERT_TRUE_FATAL(BASE * 64 + m.layout.bytes <= HEAP);
  uint8_t *p = heap[0] + BASE * 64;
  m.mant = (const uint16_t *)(const void *)p;
  m.bias = bias ? (const int32_t *)(const void *)(p + m.layout.bias_at) : NULL;
  m.data = p + m.layout.data_at;
  return m;
}

static bool try_gemv(void) {
  const uint32_t qtype = below(2) ? FORAY_QTYPE_Q4A : FORAY_QTYPE_Q8S,
                 cols = 32 * (1 + below(recording || below(8) ? 9 : 40)),
                 rows = 1 + below(recording || below(6) ? 70 : 600);
  const bool bias = below(3) == 0;
  any_bits();
  columns();
  uint32_t dst = after(0, foray_dev_a16_bytes(cols));
  exponents(0, foray_dev_a16_bytes(cols), -60, 20);
  struct foray_desc_gemv d = {.flags = bias ? FORAY_DF_BIAS : 0,
                              .qtype = qtype,
                              .src = 0,
                              .dst = dst,
                              .cols = cols,
                              .rows = rows,
                              .addr = BASE,
                              .exp = between(-50, 10),
                              .bias_exp = bias ? between(-40, 20) : 0};
  foray_desc_gemv_pack(&d, desc);
  struct foray_matrix m = matrix(qtype, rows, cols, bias, d.exp, d.bias_exp);
  twin();
  struct foray_a16 src[8];
  struct foray_y32 out[8];
  for (uint32_t c = c0; c < c1; c++) {
    src[c - c0] = a16(0, cols, c);
    out[c - c0] = y32(dst, m.layout.rows_pad, c);
  }
  foray_ref_gemv(NULL, &m, (int)(c1 - c0), src, out);
  if (qtype == FORAY_QTYPE_Q4A)
    foray_hls_gemv_q4(heap_words(), scratch_words(), desc, c0, c1);
  else
    foray_hls_gemv_q8(heap_words(), scratch_words(), desc, c0, c1);
  RECORD(qtype == FORAY_QTYPE_Q4A ? "gemv_q4" : "gemv_q8", c0, c1);
  return same();
}

static bool try_rmsnorm(void) {
  const uint32_t n = 32 * (1 + below(recording || below(10) ? 20 : 300));
  any_bits();
  columns();
  exponents(0, foray_dev_y32_bytes(n), -60, 20);
  struct foray_desc_rmsnorm d = {.src = 0,
                                 .dst = after(0, foray_dev_y32_bytes(n)),
                                 .n = n,
                                 .gamma = BASE,
                                 .gamma_exp = between(-40, 10),
                                 .eps_exp = between(-60, 10),
                                 .eps_mant = below(3) ? (uint32_t)rnd() : 0,
                                 .root_n = foray_dev_root_n(n)};
  foray_desc_rmsnorm_pack(&d, desc);
  twin();
  for (uint32_t c = c0; c < c1; c++)
    foray_ref_rmsnorm(NULL, &d, (const int32_t *)(const void *)(heap[0] + BASE * 64), y32(d.src, n, c),
                      a16(d.dst, n, c));
  foray_hls_rmsnorm(heap_words(), scratch_words(), desc, c0, c1);
  RECORD("rmsnorm", c0, c1);
  return same();
}

static bool try_rope(void) {
  const uint32_t hd = 32 * (1 + below(8)), heads = 1 + below(6), n = hd * heads, pos = below(65536);
  any_bits();
  columns();
  exponents(0, foray_dev_y32_bytes(n), -60, 20);
  struct foray_desc_rope d = {
      .flags = below(2) ? FORAY_DF_NEOX : 0, .vec = 0, .head_dim = hd, .heads = heads, .freq = BASE};
  foray_desc_rope_pack(&d, desc);
  twin();
  for (uint32_t c = c0; c < c1; c++)
    foray_ref_rope(NULL, &d, (const uint64_t *)(const void *)(heap[0] + BASE * 64), pos + c, y32(0, n, c));
  foray_hls_rope(heap_words(), scratch_words(), desc, c0, c1, pos);
  RECORD("rope", c0, c1, pos);
  return same();
}

static bool try_silu_quant_add(void) {
  const uint32_t n = 32 * (1 + below(recording || below(10) ? 20 : 200));
  any_bits();
  columns();
  const uint64_t y = foray_dev_y32_bytes(n);
  const uint32_t up = after(0, y), out = after(up, y);
  exponents(0, y, -60, 20);
  exponents(up, y, -60, 20);
  switch (below(3)) {
  case 0: {
    struct foray_desc_silu_mul d = {.gate = 0, .up = up, .dst = out, .n = n};
    foray_desc_silu_mul_pack(&d, desc);
    twin();
    for (uint32_t c = c0; c < c1; c++)
      foray_ref_silu_mul(NULL, n, y32(0, n, c), y32(up, n, c), a16(out, n, c));
    foray_hls_silu_mul(scratch_words(), desc, c0, c1);
    RECORD("silu_mul", c0, c1);
    break;
  }
  case 1: {
    struct foray_desc_quant d = {.src = 0, .dst = up, .n = n};
    foray_desc_quant_pack(&d, desc);
    twin();
    for (uint32_t c = c0; c < c1; c++) foray_ref_quant(NULL, n, y32(0, n, c), a16(up, n, c));
    foray_hls_quant(scratch_words(), desc, c0, c1);
    RECORD("quant", c0, c1);
    break;
  }
  default: {
    struct foray_desc_add d = {.acc = 0, .src = up, .n = n};
    foray_desc_add_pack(&d, desc);
    twin();
    for (uint32_t c = c0; c < c1; c++) foray_ref_add(NULL, n, y32(0, n, c), y32(up, n, c));
    foray_hls_add(scratch_words(), desc, c0, c1);
    RECORD("add", c0, c1);
    break;
  }
  }
  return same();
}

static bool try_embed(void) {
  const uint32_t cols = 32 * (1 + below(20)), rows = 1 + below(300);
  any_bits();
  columns();
  struct foray_desc_embed d = {
      .qtype = FORAY_QTYPE_Q8S, .dst = 3, .cols = cols, .rows = rows, .addr = BASE, .exp = between(-60, 20)};
  foray_desc_embed_pack(&d, desc);
  struct foray_matrix m = matrix(FORAY_QTYPE_Q8S, rows, cols, false, d.exp, 0);
  uint32_t tokens[FORAY_ABI_COLS_MAX];
  for (int c = 0; c < FORAY_ABI_COLS_MAX; c++) tokens[c] = below(rows);
  twin();
  for (uint32_t c = c0; c < c1; c++) foray_ref_embed(NULL, &m, tokens[c], y32(d.dst, cols, c));
  foray_hls_embed(heap_words(), scratch_words(), desc, c0, c1, tokens);
  RECORD("embed", c0, c1, tokens[0], tokens[1], tokens[2], tokens[3], tokens[4], tokens[5], tokens[6],
         tokens[7]);
  return same();
}

/* Records made by KV_PUT (or any bits, now and then), then attention over them. */
static bool try_attention(void) {
  const uint32_t hd = 32 * (1 + below(8)), kvh = 1 + below(3), share = 1 + below(4), heads = kvh * share,
                 n = heads * hd, nk = kvh * hd, max_pos = 8 + below(150), offset = below(5);
  if (foray_dev_kv_bytes(hd, kvh, max_pos) + (BASE + offset) * 64 > HEAP) return true;
  any_bits();
  columns();
  const uint32_t k = 0, v = after(k, foray_dev_y32_bytes(nk)), q = after(v, foray_dev_y32_bytes(nk)),
                 dst = after(q, foray_dev_y32_bytes(n));
  struct foray_kv kv = {heap[0] + (BASE + offset) * 64, max_pos, foray_dev_kv_record(hd), hd, kvh};
  struct foray_desc_kv_put p = {.k = k, .v = v, .head_dim = hd, .heads = kvh, .offset = offset};
  struct foray_desc_attn a = {
      .q = q, .dst = dst, .head_dim = hd, .heads = heads, .offset = offset, .kv_heads = kvh};
  foray_dev_attn_scale(hd, &a.scale, &a.scale_exp);
  if (below(6)) { /* useful records; else what was there */
    exponents(k, foray_dev_y32_bytes(nk), -45, -20);
    for (uint32_t pos = 0; pos < max_pos; pos++)
      foray_ref_kv_put(NULL, &kv, pos, y32(k, nk, pos % 8), y32(v, nk, (pos + pos / 7) % 8));
  }
  exponents(v, foray_dev_y32_bytes(nk), -45, -20);
  exponents(q, foray_dev_y32_bytes(n), -50, -20);
  const uint32_t pos0 = below(max_pos - FORAY_ABI_COLS_MAX + 1);
  foray_desc_kv_put_pack(&p, desc);
  twin();
  for (uint32_t c = c0; c < c1; c++) foray_ref_kv_put(NULL, &kv, pos0 + c, y32(k, nk, c), y32(v, nk, c));
  foray_hls_kv_put(heap_words(), scratch_words(), desc, c0, c1, pos0, BASE, max_pos);
  RECORD("kv_put", c0, c1, pos0, BASE, max_pos);
  if (!same()) return false;
  twin();
  foray_desc_attn_pack(&a, desc);
  struct foray_y32 qs[8];
  struct foray_a16 out[8];
  uint32_t position[8];
  for (uint32_t c = c0; c < c1; c++) {
    qs[c - c0] = y32(q, n, c);
    out[c - c0] = a16(dst, n, c);
    position[c - c0] = pos0 + c;
  }
  foray_ref_attn(NULL, &a, &kv, (int)(c1 - c0), position, qs, out);
  foray_hls_attention(heap_words(), scratch_words(), desc, c0, c1, pos0, BASE, max_pos);
  RECORD("attention", c0, c1, pos0, BASE, max_pos);
  return same();
}

static bool try_head(void) {
  static int32_t logits[2048];
  static struct foray_exit_unit u;
  const uint32_t qtype = below(4) ? FORAY_QTYPE_Q8S : FORAY_QTYPE_Q4A, cols = 32 * (1 + below(5)),
                 rows = 1 + below(below(4) ? 300 : 1300), used = below(3) ? rows : 1 + below(rows);
  any_bits();
  columns();
  exponents(0, foray_dev_a16_bytes(cols), -45, -15);
  struct foray_matrix m = matrix(qtype, rows, cols, false, between(-35, -15), 0);
  const uint32_t ids = BASE + (uint32_t)(foray_dev_up(m.layout.bytes, 64) / 64),
                 ring = ids + (4 * used + 63) / 64;
  if ((uint64_t)(ring + 2) * 64 > HEAP) return true;
  struct foray_desc_head d = {.qtype = qtype,
                              .src = 0,
                              .ids = below(2) ? ids : 0,
                              .cols = cols,
                              .rows = rows,
                              .addr = BASE,
                              .exp = m.exp,
                              .used = used};
  foray_desc_head_pack(&d, desc);
  twin();
  struct foray_sampling s = {below(2) != 0, 1 + below(1u << 20), rnd(), below(70000)};
  struct foray_a16 src = a16(0, cols, c0);
  int32_t *to = logits;
  foray_ref_head(NULL, &m, used, 1, &src, &to);
  foray_exit_clear(&u);
  foray_ref_exit_stream(NULL, logits, d.ids ? (const uint32_t *)(const void *)(heap[0] + ids * 64) : NULL,
                        used, &s, &u);
  struct foray_rec_ring r = {.position = s.position};
  foray_exit_finish(&u, 0, &r);
  uint32_t w[FORAY_ABI_RING_WORDS];
  foray_rec_ring_pack(&r, w);
  memcpy(heap[0] + (size_t)ring * 64, w, sizeof w);
  foray_hls_exit_head(heap_words(), scratch_words(), desc, c0, s.on, s.inv_temp, s.seed, s.position, ring);
  RECORD("exit_head", c0, s.on, s.inv_temp, (uint32_t)s.seed, (uint32_t)(s.seed >> 32), s.position, ring);
  if (!same()) return false;
  /* the sampler alone, on the same logits with id = index */
  foray_exit_clear(&u);
  foray_ref_exit_stream(NULL, logits, NULL, used, &s, &u);
  memcpy(heap[0] + BASE * 64, logits, 4 * (size_t)used);
  twin();
  memcpy(heap[0] + 64, &u.best_id, 4);
  memcpy(heap[0] + 68, &u.best_logit, 4);
  foray_hls_sample(heap_words(), BASE, used, s.on, s.inv_temp, s.seed, s.position, 1);
  RECORD("sample", BASE, used, s.on, s.inv_temp, (uint32_t)s.seed, (uint32_t)(s.seed >> 32), s.position, 1);
  return same();
}

static void rounds(bool (*fn)(void), int n, const char *name) {
  recording = getenv("FORAY_HLS_VECTORS") != NULL;
  int bad = 0, first = -1;
  for (int r = 0; r < n; r++) {
    rng_state = 0x9E3779B97F4A7C15u * (uint64_t)(r + 1);
    for (int i = 0; i < 4; i++) (void)rnd();
    if (!fn()) bad++, first = first < 0 ? r : first;
  }
  if (bad) printf("%s: %d of %d rounds differ, first %d\n", name, bad, n, first);
  CU_ASSERT_EQUAL(bad, 0);
}

TEST(gemv_q4_and_q8_equal_ref) { rounds(try_gemv, 320, "gemv"); }
TEST(rmsnorm_equals_ref) { rounds(try_rmsnorm, 240, "rmsnorm"); }
TEST(rope_equals_ref) { rounds(try_rope, 240, "rope"); }
TEST(silu_mul_quant_and_add_equal_ref) { rounds(try_silu_quant_add, 400, "silu, quant, add"); }
TEST(embed_equals_ref) { rounds(try_embed, 240, "embed"); }
TEST(kv_put_and_attention_equal_ref) { rounds(try_attention, 240, "attention"); }
TEST(head_exit_unit_and_sampler_equal_ref) { rounds(try_head, 240, "head"); }

/* A whole program through the kernel's own entry, on the memory that the reference device was given. */
TEST(the_top_runs_a_program_like_the_reference_device) {
  static struct tiny t;
  static const uint32_t prompt[] = {3, 50, 7, 99, 21, 0, 64, 8, 77, 31, 12};
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 6, 4));
  recording = getenv("FORAY_HLS_VECTORS") != NULL;
  t.run.tests = 3, t.run.check = 2, t.run.flags = FORAY_RUN_SAMPLE, t.run.inv_temp = 80000, t.run.seed = 5;
  t.run.exit_rule[0] = -52428, t.run.exit_rule[1] = 65536;
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, 11, 0, 0),
                  FORAY_OK); /* fed; now the run block of a draft, not yet run */
  uint32_t w[FORAY_ABI_RUN_WORDS];
  t.run.feed_n = 1, t.run.start = 10, t.run.max_drafts = 9;
  foray_rec_run_pack(&t.run, w);
  CU_ASSERT_EQUAL(foray_dev_upload(t.d, t.run_addr, w, sizeof w, NULL), FORAY_OK);
  memset(heap[0], 0, HEAP);
  memset(scratch[0], 0, SCRATCH);
  CU_ASSERT_EQUAL(foray_dev_download(t.d, 0, heap[0], TINY_HEAP, NULL), FORAY_OK);
  twin();
  CU_ASSERT_EQUAL(foray_dev_run(t.d, t.run_addr, 0, &t.res, &t.err), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_download(t.d, 0, heap[0], TINY_HEAP, NULL), FORAY_OK);
  uint64_t status = 1;
  foray_top(heap_words(), TINY_HEAP / 64, FORAY_DEV_UNITS(t.run_addr), &status);
  CU_ASSERT_EQUAL(status, 0);
  CU_ASSERT_EQUAL(t.res.drafted, 9);
  CU_ASSERT(same());
  RECORD("top", TINY_HEAP / 64, FORAY_DEV_UNITS(t.run_addr), 0, 0);
  tiny_close(&t);
}

/* The kernel's own entry: status has the error code and the descriptor. */
TEST(the_top_reports_in_its_status_register) {
  uint64_t status = 0;
  memset(heap[1], 0, HEAP);
  foray_top(heap_words(), HEAP / 64, 5, &status);
  CU_ASSERT_EQUAL(status & 0xffffffff, FORAY_DEVERR_RUN);
  CU_ASSERT_EQUAL(status >> 32, UINT32_MAX);
  foray_top(heap_words(), HEAP / 64, HEAP / 64, &status);
  CU_ASSERT_EQUAL(status & 0xffffffff, FORAY_DEVERR_ADDRESS);
}
