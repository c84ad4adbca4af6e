/* Every op of the `cpu` device gives the bits of the reference kernels: constrained-random shapes and
 * contents, corner values, 1..8 columns, each instruction set of this machine, several thread counts. */
#include "unit/harness.h"

#include "core/cpu.h"
#include "dev/cpu_ops.h"
#include "dev/exit.h"
#include "dev/ref.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLS = FORAY_ABI_COLS_MAX, N_MAX = 4096 + 64 };

static uint64_t rng_state;
static uint32_t rnd(void) {
  rng_state ^= rng_state << 13;
  rng_state ^= rng_state >> 7;
  rng_state ^= rng_state << 17;
  return (uint32_t)(rng_state >> 32);
}
static uint32_t below(uint32_t n) { return rnd() % n; }
static int between(int lo, int hi) { return lo + (int)below((uint32_t)(hi - lo + 1)); }

/* Contents: 0 all largest, 1 all smallest, 2 zero, 3 extremes, 4 of mixed sizes, 5 small, 6 any bits at all.
 */
enum { STYLES = 7, ANY = 6 };

static int32_t mantissa30(int style) {
  const int32_t b = 1 << FORAY_ABI_Y32_BITS;
  switch (style) {
  case 0: return b;
  case 1: return -b;
  case 2: return 0;
  case 3: return rnd() & 1 ? b : -b;
  case 4: return (int32_t)rnd() >> between(1, 31);
  case 5: return between(-3, 3);
  default: return (int32_t)rnd();
  }
}

static int32_t exponent(int style) {
  return style == ANY ? (int32_t)rnd() : below(8) ? between(-60, 20) : between(-8191, 8191);
}

struct y32 {
  int32_t exp, m[N_MAX];
};
struct a16 {
  int32_t exp;
  int16_t m[N_MAX];
  uint8_t shift[N_MAX / 32];
};
static struct foray_y32 view_y(struct y32 *y) { return (struct foray_y32){&y->exp, y->m}; }
static struct foray_a16 view_a(struct a16 *a) { return (struct foray_a16){&a->exp, a->m, a->shift}; }

static void fill_y(struct y32 *y, uint32_t n, int style) {
  y->exp = exponent(style);
  for (uint32_t i = 0; i < n; i++) y->m[i] = mantissa30(style);
}
static void fill_a(struct a16 *a, uint32_t n, int style) {
  a->exp = exponent(style);
  for (uint32_t i = 0; i < n; i++)
    a->m[i] = style == ANY ? (int16_t)rnd() : (int16_t)(mantissa30(style) >> (30 - FORAY_ABI_A16_BITS));
  for (uint32_t g = 0; g < n / 32; g++)
    a->shift[g] = style == ANY ? (uint8_t)rnd()
                  : style < 2  ? (uint8_t)(15 * (1 - style))
                               : (uint8_t)below(16);
}

/* The two results must be alike to the last byte, whatever lay there before. */
struct both {
  struct y32 y[2][COLS];
  struct a16 a[2][COLS];
};
static void wipe(struct both *b) { memset(b, 0x5A, sizeof *b); }
static bool same_y(const struct both *b) { return !memcmp(b->y[0], b->y[1], sizeof b->y[0]); }
static bool same_a(const struct both *b) { return !memcmp(b->a[0], b->a[1], sizeof b->a[0]); }

struct bench {
  struct foray_cpu_ops *ops;
  const struct foray_kernels *k;
  struct both out;
  struct y32 y[COLS], z[COLS];
  struct a16 a[COLS];
  int32_t gamma[N_MAX], logits[2][COLS][N_MAX];
  uint8_t heap[1 << 20] __attribute__((aligned(64)));
};

static struct foray_matrix random_matrix(struct bench *t, uint32_t qtype, uint32_t rows, uint32_t cols,
                                         bool bias) {
  struct foray_matrix w = {.qtype = qtype, .rows = rows, .cols = cols};
  w.exp = below(4) ? between(-60, 10) : between(-8000, 8000);
  w.bias_exp = bias ? w.exp + between(-40, 40) : 0;
  CU_ASSERT_FATAL(foray_dev_matrix_of(qtype, rows, cols, bias, &w.layout) &&
                  w.layout.bytes <= sizeof t->heap);
  const int style = (int)below(5);
  for (uint64_t i = 0; i < w.layout.bytes; i++)
    t->heap[i] = style == 0   ? 0xff
                 : style == 1 ? 0x80
                 : style == 2 ? (rnd() & 1 ? 0x7f : 0x80)
                              : (uint8_t)rnd();
  w.mant = (const uint16_t *)(const void *)t->heap;
  w.bias = bias ? (const int32_t *)(const void *)(t->heap + w.layout.bias_at) : NULL;
  w.data = t->heap + w.layout.data_at;
  return w;
}

static bool try_gemv(struct bench *t) {
  const uint32_t cols = 32 * (1 + below(below(4) ? 12 : 60)), rows = 1 + below(cols > 800 ? 200 : 400);
  const int k = between(1, COLS);
  struct foray_matrix w = random_matrix(t, FORAY_QTYPE_Q4A + (rnd() & 1), rows, cols, rnd() & 1);
  struct foray_a16 src[COLS];
  struct foray_y32 dst[2][COLS];
  wipe(&t->out);
  for (int c = 0; c < k; c++) {
    fill_a(&t->a[c], cols, (int)below(STYLES));
    src[c] = view_a(&t->a[c]);
    for (int i = 0; i < 2; i++) dst[i][c] = view_y(&t->out.y[i][c]);
  }
  foray_ref_kernels.gemv(NULL, &w, k, src, dst[0]);
  t->k->gemv(t->ops, &w, k, src, dst[1]);
  return same_y(&t->out);
}

static bool try_head(struct bench *t) {
  const uint32_t cols = 32 * (1 + below(8)), rows = 1 + below(2500), used = 1 + below(rows);
  const int k = between(1, COLS);
  struct foray_matrix w = random_matrix(t, FORAY_QTYPE_Q4A + (rnd() & 1), rows, cols, false);
  struct foray_a16 src[COLS];
  int32_t *logits[2][COLS];
  memset(t->logits, 0x5A, sizeof t->logits);
  for (int c = 0; c < k; c++) {
    fill_a(&t->a[c], cols, (int)below(STYLES));
    if (rnd() & 1) t->a[c].exp = between(-20, 20) - w.exp - 46; /* where logits neither vanish nor saturate */
    src[c] = view_a(&t->a[c]);
    for (int i = 0; i < 2; i++) logits[i][c] = t->logits[i][c];
  }
  foray_ref_kernels.head(NULL, &w, used, k, src, logits[0]);
  t->k->head(t->ops, &w, used, k, src, logits[1]);
  return !memcmp(t->logits[0], t->logits[1], sizeof t->logits[0]);
}

static bool try_rmsnorm(struct bench *t) {
  const uint32_t n = 32 * (1 + below(below(4) ? 30 : 128));
  struct foray_desc_rmsnorm d = {.n = n, .root_n = foray_dev_root_n(n)};
  d.eps_mant = rnd() >> below(31);
  d.eps_exp = between(-80, 20);
  d.gamma_exp = between(-40, 40);
  const int style = (int)below(STYLES);
  for (uint32_t i = 0; i < n; i++) t->gamma[i] = style == ANY ? (int32_t)rnd() : mantissa30(style);
  fill_y(&t->y[0], n, (int)below(STYLES));
  wipe(&t->out);
  for (int i = 0; i < 2; i++)
    (i ? t->k : &foray_ref_kernels)->rmsnorm(t->ops, &d, t->gamma, view_y(&t->y[0]), view_a(&t->out.a[i][0]));
  return same_a(&t->out);
}

static bool try_silu_mul(struct bench *t) {
  const uint32_t n = 32 * (1 + below(below(4) ? 30 : 128));
  fill_y(&t->y[0], n, (int)below(STYLES));
  fill_y(&t->z[0], n, (int)below(STYLES));
  if (rnd() & 1) t->y[0].exp = between(-50, -8); /* where the sigmoid bends */
  wipe(&t->out);
  for (int i = 0; i < 2; i++)
    (i ? t->k : &foray_ref_kernels)
        ->silu_mul(t->ops, n, view_y(&t->y[0]), view_y(&t->z[0]), view_a(&t->out.a[i][0]));
  return same_a(&t->out);
}

static bool try_quant(struct bench *t) {
  const uint32_t n = 32 * (1 + below(below(4) ? 30 : 128));
  fill_y(&t->y[0], n, (int)below(STYLES));
  for (uint32_t g = 0; g < n / 32; g++) { /* groups of very different sizes */
    const int s = between(0, 31);
    for (uint32_t i = 0; i < 32; i++) t->y[0].m[g * 32 + i] >>= s;
  }
  wipe(&t->out);
  for (int i = 0; i < 2; i++)
    (i ? t->k : &foray_ref_kernels)->quant(t->ops, n, view_y(&t->y[0]), view_a(&t->out.a[i][0]));
  return same_a(&t->out);
}

static bool try_add(struct bench *t) {
  const uint32_t n = 32 * (1 + below(below(4) ? 30 : 128));
  fill_y(&t->y[0], n, (int)below(STYLES));
  fill_y(&t->z[0], n, (int)below(STYLES));
  if (below(4)) t->z[0].exp = t->y[0].exp + between(-34, 34);
  if (below(8) == 0) /* cancels to nothing, or nearly */
    for (uint32_t i = 0; i < n; i++) t->z[0].m[i] = -t->y[0].m[i] + (int32_t)(below(n) == 0);
  wipe(&t->out);
  for (int i = 0; i < 2; i++) {
    memcpy(&t->out.y[i][0], &t->y[0], sizeof t->y[0]);
    (i ? t->k : &foray_ref_kernels)->add(t->ops, n, view_y(&t->out.y[i][0]), view_y(&t->z[0]));
  }
  return same_y(&t->out);
}

static bool try_embed_and_rope(struct bench *t) {
  const uint32_t cols = 32 * (1 + below(20)), rows = 1 + below(40);
  struct foray_matrix w = random_matrix(t, FORAY_QTYPE_Q8S, rows, cols, false);
  struct foray_desc_rope d = {.flags = rnd() & 1 ? FORAY_DF_NEOX : 0, .head_dim = 32, .heads = cols / 32};
  uint64_t freq[16];
  for (int i = 0; i < 16; i++) freq[i] = (uint64_t)rnd() << 32 | rnd();
  const uint32_t row = below(rows), position = below(65536);
  wipe(&t->out);
  for (int i = 0; i < 2; i++) {
    const struct foray_kernels *k = i ? t->k : &foray_ref_kernels;
    k->embed(t->ops, &w, row, view_y(&t->out.y[i][0]));
    k->rope(t->ops, &d, freq, position, view_y(&t->out.y[i][0]));
  }
  return same_y(&t->out);
}

/* Records by KV_PUT for some positions and any bits at all for the others. */
static bool try_attention(struct bench *t) {
  static const uint32_t per_kv_of[] = {1, 2, 3, 7};
  const uint32_t hd = 32 * (below(3) ? 2 : 1 + below(8)), kv_heads = 1 + below(3),
                 per_kv = per_kv_of[below(4)];
  const uint32_t heads = kv_heads * per_kv, record = foray_dev_kv_record(hd);
  const uint32_t room = (uint32_t)sizeof t->heap / (record * kv_heads);
  const uint32_t max_pos = 8 + below(room < 300 ? room - 8 : 292);
  struct foray_kv kv = {t->heap, max_pos, record, hd, kv_heads};
  struct foray_desc_attn d = {.head_dim = hd, .heads = heads, .kv_heads = kv_heads};
  if (heads * hd > N_MAX) return true;
  d.scale = (uint32_t)between(1 << 23, 1 << 24);
  d.scale_exp = below(4) ? between(-40, -20) : between(-110, 50);
  const bool garbage = below(4) == 0;
  if (garbage)
    for (uint32_t i = 0; i < max_pos * record * kv_heads; i++) t->heap[i] = (uint8_t)rnd();
  else
    for (uint32_t p = 0; p < max_pos; p++) {
      const int style = below(3) ? 4 : (int)below(STYLES);
      fill_y(&t->y[0], kv_heads * hd, style);
      fill_y(&t->z[0], kv_heads * hd, style);
      t->y[0].exp = between(-34, -26);
      t->z[0].exp = between(-34, -26);
      (p & 1 ? t->k : &foray_ref_kernels)->kv_put(t->ops, &kv, p, view_y(&t->y[0]), view_y(&t->z[0]));
    }
  const int k = between(1, below(2) ? 2 : COLS);
  uint32_t position[COLS];
  struct foray_y32 q[COLS];
  struct foray_a16 dst[2][COLS];
  wipe(&t->out);
  const uint32_t first = below(max_pos);
  for (int c = 0; c < k; c++) {
    fill_y(&t->y[c], heads * hd, below(3) ? 4 : (int)below(STYLES));
    if (below(8)) t->y[c].exp = between(-34, -24);
    position[c] = first + (uint32_t)c < max_pos ? first + (uint32_t)c : max_pos - 1;
    q[c] = view_y(&t->y[c]);
    for (int i = 0; i < 2; i++) dst[i][c] = view_a(&t->out.a[i][c]);
  }
  foray_ref_kernels.attn(NULL, &d, &kv, k, position, q, dst[0]);
  t->k->attn(t->ops, &d, &kv, k, position, q, dst[1]);
  return same_a(&t->out);
}

static bool try_exit_stream(struct bench *t) {
  enum { ROWS = sizeof t->logits[0] / sizeof(int32_t) };
  static struct foray_exit_unit u[2];
  static uint32_t ids[ROWS];
  int32_t *logits = t->logits[0][0];
  const uint32_t n = 1 + below(below(3) ? 3000 : ROWS);
  struct foray_sampling s = {.on = below(3) != 0,
                             .inv_temp = 1u << between(8, 20),
                             .seed = (uint64_t)rnd() << 32 | rnd(),
                             .position = below(9999)};
  const int spread = between(8, 31);
  for (uint32_t i = 0; i < n; i++) logits[i] = (int32_t)rnd() >> (31 - spread);
  if (below(4) == 0)
    for (uint32_t i = 0; i < n; i++) logits[i] = between(0, 2); /* ties */
  if (below(8) == 0) memset(logits, 0x80, n * sizeof *logits);
  for (uint32_t i = 0; i < n; i++) ids[i] = (i * 40503u + 77) & 0xfffff;
  const uint32_t *map = rnd() & 1 ? ids : NULL;
  for (int i = 0; i < 2; i++) {
    foray_exit_clear(&u[i]);
    (i ? t->k : &foray_ref_kernels)->exit_stream(t->ops, logits, map, n, &s, &u[i]);
  }
  return !memcmp(&u[0], &u[1], sizeof u[0]);
}

typedef bool try_fn(struct bench *t);

/* On each instruction set and with each number of threads, from one seed each. */
static void on_all(try_fn *fn, int rounds) {
  static struct bench t;
  for (int isa = FORAY_ISA_SCALAR; isa <= FORAY_ISA_AMX; isa++) {
    enum foray_isa parsed;
    if (foray_isa_parse(foray_isa_name((enum foray_isa)isa), &parsed, NULL) != FORAY_OK) continue;
    for (int threads = 1; threads <= 3; threads++) {
      struct foray_err err;
      CU_ASSERT_FATAL(foray_cpu_ops_open(parsed, threads, &t.ops, &err) == FORAY_OK);
      t.k = foray_cpu_ops_kernels(t.ops);
      int bad = 0, first = -1;
      for (int r = 0; r < rounds; r++) {
        rng_state = 0x9E3779B97F4A7C15u * (uint64_t)(r + 1) + (uint64_t)threads * 7919 + (uint64_t)isa;
        for (int i = 0; i < 4; i++) (void)rnd();
        if (!fn(&t)) bad++, first = first < 0 ? r : first;
      }
      if (bad)
        printf("%s, %d threads: %d of %d rounds differ, first %d\n", foray_isa_name(parsed), threads, bad,
               rounds, first);
      CU_ASSERT_EQUAL(bad, 0);
      foray_cpu_ops_close(t.ops);
    }
  }
}

TEST(gemv_equals_ref) { on_all(try_gemv, 30); }
TEST(head_equals_ref) { on_all(try_head, 12); }
TEST(rmsnorm_equals_ref) { on_all(try_rmsnorm, 300); }
TEST(silu_mul_equals_ref) { on_all(try_silu_mul, 300); }
TEST(quant_equals_ref) { on_all(try_quant, 300); }
TEST(add_equals_ref) { on_all(try_add, 300); }
TEST(embed_and_rope_equal_ref) { on_all(try_embed_and_rope, 50); }
TEST(attention_equals_ref) { on_all(try_attention, 25); }
TEST(exit_stream_equals_ref) { on_all(try_exit_stream, 25); }
