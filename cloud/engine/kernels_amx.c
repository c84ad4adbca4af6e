/* engine/kernels_amx.c - matrix products on int8 tiles. The integers are those of kernels_impl.h, which also
 * gives everything else here; so the bits are too. Few columns go the other way. */
#if defined(__x86_64__)
#include "engine/vec_avx512.h"

#include "engine/kernels.h"

#define EK_TABLE    ek_ops_amx
#define EK_ISA      FORAY_ISA_AMX
#define EK_WIDTH    16
#define EK_OWN_GEMM gemm_amx
static void gemm_amx(const struct ek_mat *w, const struct ek_act *x, int n, float *const *y, int b0, int b1,
                     void *scratch);
#include "engine/kernels_impl.h"

enum { CHUNK = 32 }; /* groups that are unpacked at a time, so that they stay in the first cache */

/* The least number of columns for which the tiles are faster, measured on Sapphire Rapids. */
static int worth(enum ek_format f) { return f == EK_Q8_0 ? 10 : f == EK_Q6_K ? 9 : 6; }

struct amx_scratch {
  int8_t w[CHUNK][8][64]; /* signed weights, 4 columns of 16 rows in 64 bytes: a tile's right operand */
  float a[CHUNK][2][16], b[CHUNK][16];
  int32_t c[2][2][16][16]; /* sums of the groups in hand, and of those that the tiles work on meanwhile */
};
_Static_assert(sizeof(struct amx_scratch) <= EK_SCRATCH_BYTES, "gemm scratch");

struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t colsb[16];
  uint8_t rows[16];
};

/* Tiles 0-3: sums; 4, 5: activations; 6, 7: weights. depth: columns of one product, 32 or 16. */
static void configure(int width, int depth) {
  struct tile_config t __attribute__((aligned(64))) = {.palette = 1};
  for (int i = 0; i < 4; i++) {
    t.rows[i] = (uint8_t)width;
    t.colsb[i] = 64;
  }
  for (int i = 4; i < 6; i++) {
    t.rows[i] = (uint8_t)width;
    t.colsb[i] = (uint16_t)depth;
  }
  for (int i = 6; i < 8; i++) {
    t.rows[i] = (uint8_t)(depth / 4);
    t.colsb[i] = 64;
  }
  _tile_loadconfig(&t);
}

EK_INLINE void unpack_chunk(const struct ek_mat *w, const uint8_t *blk, int g0, int g1, struct amx_scratch *s,
                            const enum ek_format F) {
  const int bits = fmt_bits(F);
  const uint8_t *p = blk + w->meta_bytes + (size_t)g0 * (size_t)bits * 64;
  const vb bias = _mm512_set1_epi8((char)(F == EK_Q8_0 ? 128 : fmt_off(F)));
  for (int g = g0; g < g1; g++, p += bits * 64) {
    vb v[8];
    vf b;
    EK_UNROLL
    for (int i = 0; i < bits; i++) vec_prefetch(p + 4096 + 64 * i);
    unpack(p, bits, v);
    EK_UNROLL
    for (int i = 0; i < 8; i++)
      _mm512_store_si512(s->w[g - g0][i], fmt_off(F) ? _mm512_sub_epi8(v[i], bias) : v[i]);
    vf a[2];
    scales(F, blk, g, a, &b);
    vf_store(s->a[g - g0][0], a[0]);
    if (F == EK_Q6_K) vf_store(s->a[g - g0][1], a[1]);
    if (fmt_min(F)) vf_store(s->b[g - g0], b);
  }
}

#define PRODUCT(C, A, B, q, w, to)                                                                           \
  do {                                                                                                       \
    _tile_zero(C);                                                                                           \
    _tile_loadd(A, (q), EK_GROUP);                                                                           \
    _tile_loadd(B, (w), 64);                                                                                 \
    _tile_dpbssd(C, A, B);                                                                                   \
    _tile_stored(C, (to)[C], 64);                                                                            \
  } while (0)

/* Integer sums of up to two groups (one for Q6_K, a tile for each half) from q, w into c. */
EK_INLINE void products(const int8_t *q, size_t step, const int8_t *w, int left, int32_t (*c)[16][16],
                        const int kind) {
  if (kind == 2) {
    PRODUCT(0, 4, 6, q, w, c);
    PRODUCT(1, 5, 7, q + 16, w + 256, c);
  } else {
    PRODUCT(0, 4, 6, q, w, c);
    if (left < 2) return;
    PRODUCT(1, 5, 7, q + step, w + 512, c);
  }
}

/* Groups [g0, g1) of one act block. W >= its width: what is computed for the columns beyond it is dropped.
 * The tiles are one step ahead of the float work, because a tile's sums come out some fifty cycles late. */
EK_INLINE void block_chunk(const struct ek_act *x, float *const *y, int row, int rows, int g0, int g1,
                           struct amx_scratch *s, const int W, const int kind) {
  const size_t width = (size_t)x->width, step = width * EK_GROUP;
  const int per = kind == 2 ? 1 : 2; /* groups that four sum tiles hold */
  const int8_t *q = x->q + (size_t)g0 * step, *wp = s->w[0][0];
  int turn = 0;
  products(q, step, wp, g1 - g0, s->c[0], kind);
  vf acc[16];
  EK_UNROLL
  for (int c = 0; c < W; c++) {
    acc[c] = vf_set1(0.0f);
    if (g0 && c < x->width) {
      const float *from = y[x->col0 + c] + row;
      acc[c] = rows == 16 ? vf_load(from) : _mm512_maskz_loadu_ps((__mmask16)((1u << rows) - 1), from);
    }
  }
  for (int g = g0; g < g1; g += per, turn ^= 1) {
    const int left = g1 - g;
    if (left > per) {
      q += (size_t)per * step;
      wp += per * 512;
      products(q, step, wp, left - per, s->c[turn ^ 1], kind);
    }
    for (int j = 0; j < per && j < left; j++) {
      const float *d = x->d + (size_t)(g + j) * width, *sm = x->s + (size_t)(g + j) * width;
      const vf a0 = vf_load(s->a[g + j - g0][0]);
      if (kind == 2) {
        const vf a1 = vf_load(s->a[g + j - g0][1]);
        EK_UNROLL
        for (int c = 0; c < W; c++) {
          const vf dv = vf_set1(d[c]);
          acc[c] = vf_fma(vf_mul(a0, dv), vi_to_f(_mm512_load_si512(s->c[turn][2 * j][c])), acc[c]);
          acc[c] = vf_fma(vf_mul(a1, dv), vi_to_f(_mm512_load_si512(s->c[turn][2 * j + 1][c])), acc[c]);
        }
      } else {
        const vf b = kind == 1 ? vf_load(s->b[g + j - g0]) : a0;
        EK_UNROLL
        for (int c = 0; c < W; c++) {
          acc[c] = vf_fma(vf_mul(a0, vf_set1(d[c])), vi_to_f(_mm512_load_si512(s->c[turn][j][c])), acc[c]);
          if (kind == 1) acc[c] = vf_fma(b, vf_set1(sm[c]), acc[c]);
        }
      }
    }
  }
  EK_UNROLL
  for (int c = 0; c < W; c++)
    if (c < x->width) put_rows(y[x->col0 + c] + row, acc[c], rows);
}

typedef void block_fn(const struct ek_act *, float *const *, int, int, int, int, struct amx_scratch *);
#define BLOCK_FN(name, W, kind)                                                                              \
  static void name(const struct ek_act *x, float *const *y, int row, int rows, int g0, int g1,               \
                   struct amx_scratch *s) {                                                                  \
    block_chunk(x, y, row, rows, g0, g1, s, W, kind);                                                        \
  }
BLOCK_FN(block_4_0, 4, 0)
BLOCK_FN(block_4_1, 4, 1)
BLOCK_FN(block_4_2, 4, 2)
BLOCK_FN(block_8_0, 8, 0)
BLOCK_FN(block_8_1, 8, 1)
BLOCK_FN(block_8_2, 8, 2)
BLOCK_FN(block_12_0, 12, 0)
BLOCK_FN(block_12_1, 12, 1)
BLOCK_FN(block_12_2, 12, 2)
BLOCK_FN(block_16_0, 16, 0)
BLOCK_FN(block_16_1, 16, 1)
BLOCK_FN(block_16_2, 16, 2)

typedef void unpack_fn(const struct ek_mat *, const uint8_t *, int, int, struct amx_scratch *);
#define UNPACK_FN(name, F)                                                                                   \
  static void name(const struct ek_mat *w, const uint8_t *blk, int g0, int g1, struct amx_scratch *s) {      \
    unpack_chunk(w, blk, g0, g1, s, F);                                                                      \
  }
UNPACK_FN(unpack_q4_0, EK_Q4_0)
UNPACK_FN(unpack_q4_1, EK_Q4_1)
UNPACK_FN(unpack_q5_0, EK_Q5_0)
UNPACK_FN(unpack_q5_1, EK_Q5_1)
UNPACK_FN(unpack_q8_0, EK_Q8_0)
UNPACK_FN(unpack_q4_k, EK_Q4_K)
UNPACK_FN(unpack_q5_k, EK_Q5_K)
UNPACK_FN(unpack_q6_k, EK_Q6_K)

static void gemm_amx(const struct ek_mat *w, const struct ek_act *x, int n, float *const *y, int b0, int b1,
                     void *scratch) {
  static unpack_fn *const unpackers[] = {unpack_q4_0, unpack_q4_1, unpack_q5_0, unpack_q5_1,
                                         unpack_q8_0, unpack_q4_k, unpack_q5_k, unpack_q6_k};
  static block_fn *const blocks[4][3] = {{block_4_0, block_4_1, block_4_2},
                                         {block_8_0, block_8_1, block_8_2},
                                         {block_12_0, block_12_1, block_12_2},
                                         {block_16_0, block_16_1, block_16_2}};
  if (w->format >= EK_F32 || (n == 1 && x[0].width < worth(w->format))) {
    gemm(w, x, n, y, b0, b1, scratch);
    return;
  }
  struct amx_scratch *s = scratch;
  const int groups = w->cols / EK_GROUP, kind = w->format == EK_Q6_K ? 2 : fmt_min(w->format);
  const int depth = kind == 2 ? 16 : 32;
  int configured = 0;
  for (int b = b0; b < b1; b++) {
    const uint8_t *blk = w->data + (size_t)b * w->block_bytes;
    const int row = b * EK_ROWS, rows = w->rows - row < EK_ROWS ? w->rows - row : EK_ROWS;
    for (int g0 = 0; g0 < groups; g0 += CHUNK) {
      const int g1 = g0 + CHUNK < groups ? g0 + CHUNK : groups;
      unpackers[w->format](w, blk, g0, g1, s);
      /* The tile loads are opaque to the compiler: what was unpacked must be in memory before them. */
      __asm__ volatile("" ::: "memory");
      for (int i = 0; i < n; i++) {
        if (x[i].width != configured) configure(configured = x[i].width, depth);
        blocks[(x[i].width - 1) / 4][kind](x + i, y, row, rows, g0, g1, s);
      }
    }
  }
  _tile_release();
}
#else
typedef int foray_not_this_processor;
#endif
