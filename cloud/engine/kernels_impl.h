/* engine/kernels_impl.h - the kernels over 16 virtual lanes, compiled once for each instruction set. The
 * including file has included its vec_<isa>.h and defined EK_TABLE (name of the table), EK_ISA and EK_WIDTH.
 * kernels.h has the definitions. Everything here is static: nothing compiled for one instruction set can be
 * linked into another. */
#include "engine/kernels.h"

#include <float.h>
#include <math.h>

#define EK_INLINE static inline __attribute__((always_inline))
/* Before loops of a few constant rounds over register arrays: left rolled, the arrays would live in memory.
 */
#if defined(EK_NARROW)
#define EK_UNROLL
#elif defined(__clang__)
#define EK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define EK_UNROLL _Pragma("GCC unroll 16")
#endif

EK_INLINE vf vf_exp(vf x0) {
  const vf x = vf_min(vf_max(x0, vf_set1(-87.0f)), vf_set1(88.0f));
  const vf magic = vf_set1(12582912.0f); /* 1.5 * 2^23: the sum's low bits are the nearest integer */
  const vf t = vf_add(vf_mul(x, vf_set1(1.44269504f)), magic), n = vf_sub(t, magic);
  const vf r = vf_fma(n, vf_set1(2.12194440e-4f), vf_fma(n, vf_set1(-0.693359375f), x));
  vf p = vf_set1(1.9875691500e-4f);
  p = vf_fma(p, r, vf_set1(1.3981999507e-3f));
  p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
  p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
  p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
  p = vf_fma(p, r, vf_set1(5.0000001201e-1f));
  p = vf_add(vf_fma(p, vf_mul(r, r), r), vf_set1(1.0f));
  return vf_zero_below(vf_scale2(p, t), x0, -86.0f);
}

EK_INLINE float lane_sum(vf a) {
  float l[16];
  vf_store(l, a);
  for (int step = 8; step; step >>= 1)
    for (int i = 0; i < step; i++) l[i] = l[i] + l[i + step];
  return l[0];
}

/* ---- quantise ---- */

static void quantise(const float *x, int k, const struct ek_act *act, int at, int g0, int g1) {
  const size_t w = (size_t)act->width, c = (size_t)at;
  if (act->xf)
    for (int i = g0 * EK_GROUP; i < k && i < g1 * EK_GROUP; i++) act->xf[(size_t)i * w + c] = x[i];
  if (!act->q) return;
  const vf magic = vf_set1(12582912.0f);
  for (int g = g0; g < g1; g++) {
    const size_t at_g = (size_t)g * w + c;
    int8_t *q = act->q + at_g * EK_GROUP;
    const vf x0 = vf_load(x + g * EK_GROUP), x1 = vf_load(x + g * EK_GROUP + 16);
    const float a = vf_hmax(vf_max(vf_abs(x0), vf_abs(x1)));
    const int live = a >= 1e-30f;
    const vf inv = vf_set1(live ? 127.0f / a : 0.0f);
    const int32_t s0 = vf_low_bytes(q, vf_add(vf_mul(x0, inv), magic));
    const int32_t s1 = vf_low_bytes(q + 16, vf_add(vf_mul(x1, inv), magic));
    const float d = live ? a / 127.0f : 0.0f;
    act->d[at_g] = d;
    act->s[at_g] = d * (float)(s0 + s1);
    act->n32[at_g] = -(s0 + s1);
    act->n16[2 * at_g] = -s0;
    act->n16[2 * at_g + 1] = -s1;
  }
}

/* ---- gemm ---- */

EK_INLINE int fmt_bits(enum ek_format f) {
  return f == EK_Q4_0 || f == EK_Q4_1 || f == EK_Q4_K   ? 4
         : f == EK_Q5_0 || f == EK_Q5_1 || f == EK_Q5_K ? 5
         : f == EK_Q6_K                                 ? 6
                                                        : 8;
}
EK_INLINE int fmt_off(enum ek_format f) {
  return f == EK_Q4_0 ? 8 : f == EK_Q5_0 ? 16 : f == EK_Q6_K ? 32 : f == EK_Q8_0 ? VEC_OFF8 : 0;
}
EK_INLINE int fmt_min(enum ek_format f) {
  return f == EK_Q4_1 || f == EK_Q5_1 || f == EK_Q4_K || f == EK_Q5_K;
}

/* The 8 byte vectors of one group: v[i] holds columns 4i..4i+3 of 16 rows. */
EK_INLINE void unpack(const uint8_t *p, int bits, vb v[8]) {
  if (bits == 8) {
    EK_UNROLL
    for (int i = 0; i < 8; i++) v[i] = vb_load(p + 64 * i);
    return;
  }
  EK_UNROLL
  for (int i = 0; i < 4; i++) {
    const vb x = vb_load(p + 64 * i);
    v[2 * i] = vb_and1(x, 15);
    v[2 * i + 1] = vb_shr_and(x, 4, 15);
  }
  if (bits == 5) {
    const vb h = vb_load(p + 256);
    v[0] = vb_or_shl(v[0], h, 4, 16);
    v[1] = vb_or_shl(v[1], h, 3, 16);
    v[2] = vb_or_shl(v[2], h, 2, 16);
    v[3] = vb_or_shl(v[3], h, 1, 16);
    v[4] = vb_or_shl(v[4], h, 0, 16);
    v[5] = vb_or_shr(v[5], h, 1, 16);
    v[6] = vb_or_shr(v[6], h, 2, 16);
    v[7] = vb_or_shr(v[7], h, 3, 16);
  } else if (bits == 6) {
    const vb h0 = vb_load(p + 256), h1 = vb_load(p + 320);
    v[0] = vb_or_shl(v[0], h0, 4, 48);
    v[1] = vb_or_shl(v[1], h0, 2, 48);
    v[2] = vb_or_shl(v[2], h0, 0, 48);
    v[3] = vb_or_shr(v[3], h0, 2, 48);
    v[4] = vb_or_shl(v[4], h1, 4, 48);
    v[5] = vb_or_shl(v[5], h1, 2, 48);
    v[6] = vb_or_shl(v[6], h1, 0, 48);
    v[7] = vb_or_shr(v[7], h1, 2, 48);
  }
}

/* The same for nibbles, with the odd vectors 16 times too large. */
EK_INLINE void unpack_high16(const uint8_t *p, vb v[8]) {
  EK_UNROLL
  for (int i = 0; i < 4; i++) {
    const vb x = vb_load(p + 64 * i);
    v[2 * i] = vb_and1(x, 15);
    v[2 * i + 1] = vb_and1(x, 240);
  }
}

/* Scales a (a[1] only for Q6_K) and offset b of group g. Products of a half float and a 6- or 8-bit integer
 * are exact. */
EK_INLINE void scales(enum ek_format f, const uint8_t *meta, int g, vf a[2], vf *b) {
  if (f == EK_Q6_K) {
    const uint8_t *sb = meta + (size_t)(g >> 3) * 288;
    const vf d = vf_from_f16((const uint16_t *)(const void *)sb);
    const int8_t *s = (const int8_t *)sb + 32 + (g & 7) * 32;
    a[0] = vf_mul(d, vf_from_i8(s));
    a[1] = vf_mul(d, vf_from_i8(s + 16));
  } else if (f == EK_Q4_K || f == EK_Q5_K) {
    const uint8_t *sb = meta + (size_t)(g >> 3) * 320;
    const uint8_t *s = sb + 64 + (g & 7) * 32;
    a[0] = vf_mul(vf_from_f16((const uint16_t *)(const void *)sb), vf_from_u8(s));
    *b = vf_mul(vf_from_f16((const uint16_t *)(const void *)(sb + 32)), vf_from_u8(s + 16));
  } else if (fmt_min(f)) {
    a[0] = vf_from_f16((const uint16_t *)(const void *)(meta + (size_t)g * 64));
    *b = vf_from_f16((const uint16_t *)(const void *)(meta + (size_t)g * 64 + 32));
  } else {
    a[0] = vf_from_f16((const uint16_t *)(const void *)(meta + (size_t)g * 32));
  }
}

EK_INLINE vi dot_any(int bits, vi acc, vb w, const int8_t *x) {
  return bits == 8 ? vi_dot8(acc, w, x) : vi_dot(acc, w, x);
}

EK_INLINE void put_rows(float *y, vf acc, int rows) {
  if (rows == 16) {
    vf_store(y, acc);
  } else {
    float t[16];
    vf_store(t, acc);
    memcpy(y, t, (size_t)rows * sizeof *y);
  }
}

/* M columns starting at c0 of the act block, one block of 16 rows. F and M are constants after inlining. */
EK_INLINE void gemm_block(const struct ek_mat *w, const uint8_t *blk, const struct ek_act *x, int c0,
                          float *const *y, int row, int rows, const enum ek_format F, const int M) {
  const int bits = fmt_bits(F), off = fmt_off(F), groups = w->cols / EK_GROUP;
  const size_t width = (size_t)x->width, gbytes = (size_t)bits * 64;
  /* With one column the shift of the high nibbles is the larger part of the work: done on their sum instead.
   */
  const int high16 = VEC_HIGH16 && bits == 4 && M == 1;
  const uint8_t *p = blk + w->meta_bytes;
  vf acc[4];
  EK_UNROLL
  for (int c = 0; c < M; c++) acc[c] = vf_set1(0.0f);
  for (int g = 0; g < groups; g++, p += gbytes) {
    const size_t at = (size_t)g * width + (size_t)c0;
    const int8_t *q = x->q + at * EK_GROUP;
    vb v[8];
    vf a[2], b;
    EK_UNROLL
    for (int i = 0; i < bits; i++) vec_prefetch(p + 3072 + 64 * i);
    if (high16)
      unpack_high16(p, v);
    else
      unpack(p, bits, v);
    scales(F, blk, g, a, &b);
    EK_UNROLL
    for (int c = 0; c < M; c++) {
      const int8_t *xq = q + c * EK_GROUP;
      const vf d = vf_set1(x->d[at + (size_t)c]);
      if (F == EK_Q6_K) {
        vi i0 = vi_set1(x->n16[2 * (at + (size_t)c)] * off),
           i1 = vi_set1(x->n16[2 * (at + (size_t)c) + 1] * off);
        EK_UNROLL
        for (int i = 0; i < 4; i++) i0 = vi_dot(i0, v[i], xq + 4 * i);
        EK_UNROLL
        for (int i = 4; i < 8; i++) i1 = vi_dot(i1, v[i], xq + 4 * i);
        acc[c] = vf_fma(vf_mul(a[0], d), vi_to_f(i0), acc[c]);
        acc[c] = vf_fma(vf_mul(a[1], d), vi_to_f(i1), acc[c]);
      } else {
        vi s = vi_set1(off ? x->n32[at + (size_t)c] * off : 0);
        if (high16) {
          vi t = vi_set1(0);
          EK_UNROLL
          for (int i = 0; i < 8; i += 2) {
            s = vi_dot(s, v[i], xq + 4 * i);
            t = vi_dot(t, v[i + 1], xq + 4 * i + 4);
          }
          s = vi_add_16th(s, t);
        } else {
          EK_UNROLL
          for (int i = 0; i < 8; i++) s = dot_any(bits, s, v[i], xq + 4 * i);
        }
        acc[c] = vf_fma(vf_mul(a[0], d), vi_to_f(s), acc[c]);
        if (fmt_min(F)) acc[c] = vf_fma(b, vf_set1(x->s[at + (size_t)c]), acc[c]);
      }
    }
  }
  EK_UNROLL
  for (int c = 0; c < M; c++) put_rows(y[x->col0 + c0 + c] + row, acc[c], rows);
}

EK_INLINE void gemm_float(const struct ek_mat *w, const uint8_t *blk, const struct ek_act *x, int c0,
                          float *const *y, int row, int rows, const enum ek_format F, const int M) {
  const size_t width = (size_t)x->width, esize = F == EK_F32 ? 4 : 2;
  vf acc[4];
  EK_UNROLL
  for (int c = 0; c < M; c++) acc[c] = vf_set1(0.0f);
  for (int k = 0; k < w->cols; k++) {
    const void *p = blk + (size_t)k * 16 * esize;
    const vf wv = F == EK_F32 ? vf_load(p) : F == EK_F16 ? vf_from_f16(p) : vf_from_bf16(p);
    EK_UNROLL
    for (int c = 0; c < M; c++)
      acc[c] = vf_fma(wv, vf_set1(x->xf[(size_t)k * width + (size_t)(c0 + c)]), acc[c]);
  }
  EK_UNROLL
  for (int c = 0; c < M; c++) put_rows(y[x->col0 + c0 + c] + row, acc[c], rows);
}

/* One function per format: the rows of the part, all act blocks, columns in runs of up to 8 (of 1 where
 * EK_NARROW is defined: unrolling buys the plain C lanes nothing but compile time). */
#ifdef EK_NARROW
#define GEMM_COLUMNS(fn, F)                                                                                  \
  for (int c = 0; c < x[i].width; c++) fn(w, blk, x + i, c, y, row, rows, F, 1);
#else
#define GEMM_COLUMNS(fn, F)                                                                                  \
  int c = 0;                                                                                                 \
  for (; c + 4 <= x[i].width; c += 4) fn(w, blk, x + i, c, y, row, rows, F, 4);                              \
  if (c + 3 == x[i].width)                                                                                   \
    fn(w, blk, x + i, c, y, row, rows, F, 3);                                                                \
  else if (c + 2 == x[i].width)                                                                              \
    fn(w, blk, x + i, c, y, row, rows, F, 2);                                                                \
  else if (c < x[i].width)                                                                                   \
    fn(w, blk, x + i, c, y, row, rows, F, 1);
#endif
#define GEMM_FORMAT(name, fn, F)                                                                             \
  static void name(const struct ek_mat *w, const struct ek_act *x, int n, float *const *y, int b0, int b1) { \
    for (int b = b0; b < b1; b++) {                                                                          \
      const uint8_t *blk = w->data + (size_t)b * w->block_bytes;                                             \
      const int row = b * EK_ROWS, rows = w->rows - row < EK_ROWS ? w->rows - row : EK_ROWS;                 \
      for (int i = 0; i < n; i++) {                                                                          \
        GEMM_COLUMNS(fn, F)                                                                                  \
      }                                                                                                      \
    }                                                                                                        \
  }
GEMM_FORMAT(gemm_q4_0, gemm_block, EK_Q4_0)
GEMM_FORMAT(gemm_q4_1, gemm_block, EK_Q4_1)
GEMM_FORMAT(gemm_q5_0, gemm_block, EK_Q5_0)
GEMM_FORMAT(gemm_q5_1, gemm_block, EK_Q5_1)
GEMM_FORMAT(gemm_q8_0, gemm_block, EK_Q8_0)
GEMM_FORMAT(gemm_q4_k, gemm_block, EK_Q4_K)
GEMM_FORMAT(gemm_q5_k, gemm_block, EK_Q5_K)
GEMM_FORMAT(gemm_q6_k, gemm_block, EK_Q6_K)
GEMM_FORMAT(gemm_f32, gemm_float, EK_F32)
GEMM_FORMAT(gemm_f16, gemm_float, EK_F16)
GEMM_FORMAT(gemm_bf16, gemm_float, EK_BF16)

static void gemm(const struct ek_mat *w, const struct ek_act *x, int n, float *const *y, int b0, int b1,
                 void *scratch) {
  static void (*const table[EK_FORMATS])(const struct ek_mat *, const struct ek_act *, int, float *const *,
                                         int, int) = {gemm_q4_0, gemm_q4_1, gemm_q5_0, gemm_q5_1,
                                                      gemm_q8_0, gemm_q4_k, gemm_q5_k, gemm_q6_k,
                                                      gemm_f32,  gemm_f16,  gemm_bf16};
  (void)scratch;
  table[w->format](w, x, n, y, b0, b1);
}

/* ---- element-wise ---- */

static void rmsnorm(float *y, const float *x, const float *w, int n, float eps) {
  vf lanes = vf_set1(0.0f);
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    const vf v = vf_load(x + i);
    lanes = vf_fma(v, v, lanes);
  }
  if (i < n) {
    float t[16] = {0};
    memcpy(t, x + i, (size_t)(n - i) * sizeof *t);
    lanes = vf_fma(vf_load(t), vf_load(t), lanes);
  }
  const float r = 1.0f / sqrtf(lane_sum(lanes) / (float)n + eps);
  for (i = 0; i + 16 <= n; i += 16)
    vf_store(y + i, vf_mul(vf_mul(vf_load(x + i), vf_set1(r)), vf_load(w + i)));
  for (; i < n; i++) y[i] = x[i] * r * w[i];
}

static void silu_mul(float *y, const float *g, const float *u, int n) {
  const vf one = vf_set1(1.0f), zero = vf_set1(0.0f);
  for (int i = 0; i < n; i += 16) {
    const vf x = vf_load(g + i);
    vf_store(y + i, vf_mul(vf_div(x, vf_add(one, vf_exp(vf_sub(zero, x)))), vf_load(u + i)));
  }
}

static void gelu_mul(float *y, const float *g, const float *u, int n) {
  const vf one = vf_set1(1.0f);
  for (int i = 0; i < n; i += 16) {
    const vf x = vf_load(g + i), x3 = vf_mul(vf_mul(x, x), x);
    const vf t = vf_mul(vf_fma(vf_set1(0.044715f), x3, x), vf_set1(-2.0f * 0.7978845608f));
    vf_store(y + i, vf_mul(vf_div(x, vf_add(one, vf_exp(t))), vf_load(u + i)));
  }
}

/* ---- attention ---- */

EK_INLINE void attn_scores(const float *q, int head_dim, const uint16_t *k, float scale, float *scores,
                           size_t stride, const int H) {
  vf acc[4][4];
  EK_UNROLL
  for (int h = 0; h < H; h++) EK_UNROLL
  for (int i = 0; i < 4; i++) acc[h][i] = vf_set1(0.0f);
  for (int d = 0; d < head_dim; d++, k += EK_PAGE) {
    const vf k0 = vf_from_f16(k), k1 = vf_from_f16(k + 16), k2 = vf_from_f16(k + 32),
             k3 = vf_from_f16(k + 48);
    EK_UNROLL
    for (int h = 0; h < H; h++) {
      const vf x = vf_set1(q[h * head_dim + d]);
      acc[h][0] = vf_fma(k0, x, acc[h][0]);
      acc[h][1] = vf_fma(k1, x, acc[h][1]);
      acc[h][2] = vf_fma(k2, x, acc[h][2]);
      acc[h][3] = vf_fma(k3, x, acc[h][3]);
    }
  }
  EK_UNROLL
  for (int h = 0; h < H; h++) EK_UNROLL
  for (int i = 0; i < 4; i++)
    vf_store(scores + (size_t)h * stride + 16 * i, vf_mul(acc[h][i], vf_set1(scale)));
}

/* Adds positions [s0, s1) of a page, 16 T dimensions from d0 on, to out. */
EK_INLINE void attn_values(float *out, int head_dim, int d0, const uint16_t *v, const float *e, size_t stride,
                           int s0, int s1, const int H, const int T) {
  vf acc[4][4];
  EK_UNROLL
  for (int h = 0; h < H; h++) EK_UNROLL
  for (int t = 0; t < T; t++) acc[h][t] = vf_load(out + h * head_dim + d0 + 16 * t);
  for (int s = s0; s < s1; s++) {
    const uint16_t *row = v + (size_t)s * (size_t)head_dim + d0;
    vf x[4];
    EK_UNROLL
    for (int t = 0; t < T; t++) x[t] = vf_from_f16(row + 16 * t);
    EK_UNROLL
    for (int h = 0; h < H; h++) {
      const vf p = vf_set1(e[(size_t)h * stride + (size_t)s]);
      EK_UNROLL
      for (int t = 0; t < T; t++) acc[h][t] = vf_fma(p, x[t], acc[h][t]);
    }
  }
  EK_UNROLL
  for (int h = 0; h < H; h++) EK_UNROLL
  for (int t = 0; t < T; t++) vf_store(out + h * head_dim + d0 + 16 * t, acc[h][t]);
}

static void attn_values_any(float *out, int head_dim, const uint16_t *v, const float *e, size_t stride,
                            int s0, int s1, int heads) {
  int d = 0;
  for (; d + 64 <= head_dim; d += 64) switch (heads) {
    case 1: attn_values(out, head_dim, d, v, e, stride, s0, s1, 1, 4); break;
    case 2: attn_values(out, head_dim, d, v, e, stride, s0, s1, 2, 4); break;
    case 3: attn_values(out, head_dim, d, v, e, stride, s0, s1, 3, 4); break;
    default: attn_values(out, head_dim, d, v, e, stride, s0, s1, 4, 4); break;
    }
  for (; d < head_dim; d += 16)
    for (int h = 0; h < heads; h++)
      attn_values(out + h * head_dim, head_dim, d, v, e + (size_t)h * stride, stride, s0, s1, 1, 1);
}

/* scores -> exp(score - max); positions outside [first, last] count nothing. Returns the sum. */
EK_INLINE float softmax_part(float *s, int first, int last) {
  const int n = (last / 16 + 1) * 16;
  for (int i = 0; i < first; i++) s[i] = -FLT_MAX;
  for (int i = last + 1; i < n; i++) s[i] = -FLT_MAX;
  vf m = vf_load(s), sum = vf_set1(0.0f);
  for (int i = 16; i < n; i += 16) m = vf_max(m, vf_load(s + i));
  const vf top = vf_set1(vf_hmax(m));
  for (int i = 0; i < n; i += 16) {
    const vf e = vf_exp(vf_sub(vf_load(s + i), top));
    vf_store(s + i, e);
    sum = vf_add(sum, e);
  }
  return lane_sum(sum);
}

static void attention(float *out, const float *q, int heads, int head_dim, const struct ek_kv *kv, int lo,
                      int hi, float scale, float *scores, size_t stride) {
  const int p0 = lo / EK_PAGE, p1 = hi / EK_PAGE, base = p0 * EK_PAGE;
  for (int h0 = 0; h0 < heads; h0 += 4) {
    const int hn = heads - h0 < 4 ? heads - h0 : 4;
    const float *qh = q + (size_t)h0 * (size_t)head_dim;
    float *o = out + (size_t)h0 * (size_t)head_dim, inv[4];
    for (int p = p0; p <= p1; p++) {
      const uint16_t *k = kv->pages[p] + kv->k_offset;
      float *s = scores + (size_t)(p - p0) * EK_PAGE;
      switch (hn) {
      case 1: attn_scores(qh, head_dim, k, scale, s, stride, 1); break;
      case 2: attn_scores(qh, head_dim, k, scale, s, stride, 2); break;
      case 3: attn_scores(qh, head_dim, k, scale, s, stride, 3); break;
      default: attn_scores(qh, head_dim, k, scale, s, stride, 4); break;
      }
    }
    for (int h = 0; h < hn; h++)
      inv[h] = 1.0f / softmax_part(scores + (size_t)h * stride, lo - base, hi - base);
    memset(o, 0, (size_t)hn * (size_t)head_dim * sizeof *o);
    for (int p = p0; p <= p1; p++)
      attn_values_any(o, head_dim, kv->pages[p] + kv->v_offset, scores + (size_t)(p - p0) * EK_PAGE, stride,
                      p == p0 ? lo - base : 0, p == p1 ? hi - p * EK_PAGE + 1 : EK_PAGE, hn);
    for (int h = 0; h < hn; h++)
      for (int d = 0; d < head_dim; d += 16) {
        float *od = o + h * head_dim + d;
        vf_store(od, vf_mul(vf_load(od), vf_set1(inv[h])));
      }
  }
}

static void kv_put(const float *k, const float *v, int head_dim, uint16_t *kpage, uint16_t *vpage, int slot) {
  for (int d = 0; d < head_dim; d += 16) {
    uint16_t t[16];
    vf_to_f16(t, vf_load(k + d));
    for (int i = 0; i < 16; i++) kpage[(size_t)(d + i) * EK_PAGE + (size_t)slot] = t[i];
    vf_to_f16(vpage + (size_t)slot * (size_t)head_dim + d, vf_load(v + d));
  }
}

#ifndef EK_OWN_GEMM
#define EK_OWN_GEMM gemm
#endif
const struct ek_ops EK_TABLE = {EK_ISA,   EK_WIDTH, quantise,  EK_OWN_GEMM, rmsnorm,
                                silu_mul, gelu_mul, attention, kv_put};
