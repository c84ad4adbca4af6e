/* One head of the one-pass attention (docs/numerics.md 8) with AVX-512. A block of 32 positions: 8 scores at
 * a time, the 32 weights as two registers, then V two positions at a time. K codes become unsigned (+128) for
 * vpdpbusd against the two bytes of a q mantissa; the offset is undone by starting each of a group's eight
 * lanes at -16 * sum(q). A block's sum of weight * code stays below 2^26, so it is exact in int32 before it
 * goes to int64. */
#include "dev/cpu_vec.h"

#if defined(__x86_64__)
#include "core/imath.h"
#include "gen/foray_tables.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = FORAY_ABI_KV_BLOCK, GROUPS_MAX = FORAY_ABI_HEAD_DIM_MAX / 32, PAIRS_MAX = GROUPS_MAX / 2 };

struct query {
  __m512i hi[PAIRS_MAX], lo[PAIRS_MAX], start[PAIRS_MAX]; /* two groups a register */
  int64_t shift[GROUPS_MAX];                              /* s of a score term = this - X */
};

/* A block's records: pointers (those behind the end repeat the last one) and scales. */
struct block {
  uint32_t n;
  const uint8_t *rec[BLOCK];
  uint64_t scale[GROUPS_MAX / 2][BLOCK]; /* four u16 a word: K's groups, then V's */
};

struct state {
  int32_t ml, mv[GROUPS_MAX];
  int64_t l;
  int64_t acc[FORAY_ABI_HEAD_DIM_MAX];
};

/* foray_rshift_round of int64 lanes by one amount >= 0. */
INLINE __m512i round_by(__m512i v, int64_t s) {
  if (s > 62) return _mm512_setzero_si512();
  if (s == 0) return v;
  const __m512i bit = _mm512_sra_epi64(v, _mm_cvtsi64_si128(s - 1));
  return _mm512_add_epi64(_mm512_srai_epi64(bit, 1), _mm512_and_si512(bit, _mm512_set1_epi64(1)));
}

static void prepare_query(const struct foray_cpu_attn *a, struct query *q) {
  const uint32_t groups = a->head_dim / 32;
  for (uint32_t g = 0; g < groups; g += 2) {
    __m512i hi = _mm512_setzero_si512(), lo = hi, start = hi;
    for (uint32_t i = 0; i < 2 && g + i < groups; i++) {
      const __m512i m = _mm512_loadu_si512(a->q + (g + i) * 32);
      const __m512i h = _mm512_srai_epi16(_mm512_add_epi16(m, _mm512_set1_epi16(128)), 8);
      const __m256i h8 = _mm512_cvtepi16_epi8(h);
      const __m256i l8 = _mm512_cvtepi16_epi8(_mm512_sub_epi16(m, _mm512_slli_epi16(h, 8)));
      const int32_t sum = _mm512_reduce_add_epi32(_mm512_madd_epi16(m, _mm512_set1_epi16(1)));
      const __m256i s8 = _mm256_set1_epi32(-16 * sum);
      hi = i ? _mm512_inserti64x4(hi, h8, 1) : _mm512_inserti64x4(hi, h8, 0);
      lo = i ? _mm512_inserti64x4(lo, l8, 1) : _mm512_inserti64x4(lo, l8, 0);
      start = i ? _mm512_inserti64x4(start, s8, 1) : _mm512_inserti64x4(start, s8, 0);
      q->shift[g + i] = 48 - 16 - (int64_t)a->shift[g + i] - a->q_exp - a->scale_exp;
    }
    q->hi[g / 2] = hi;
    q->lo[g / 2] = lo;
    q->start[g / 2] = start;
  }
}

/* Lanes of eight registers to [group A of position 0..7][group B of position 0..7]. */
INLINE __m512i reduce8(const __m512i t[8]) {
  __m512i s[4], u[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    s[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(t[2 * i], t[2 * i + 1]),
                            _mm512_unpackhi_epi32(t[2 * i], t[2 * i + 1]));
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++)
    u[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(s[2 * i], s[2 * i + 1]),
                            _mm512_unpackhi_epi64(s[2 * i], s[2 * i + 1]));
  const __m512i v =
      _mm512_add_epi32(_mm512_shuffle_i32x4(u[0], u[1], 0x88), _mm512_shuffle_i32x4(u[0], u[1], 0xdd));
  return _mm512_shuffle_i32x4(v, v, 0xd8); /* A0-3 B0-3 A4-7 B4-7 to A A B B */
}

/* Scale u16 number `slot` of eight positions: exponent and mantissa, in int64 lanes. */
INLINE void scale_of(const struct block *b, uint32_t j, uint32_t slot, __m512i *x, __m512i *f) {
  const __m512i w =
      _mm512_srl_epi64(_mm512_loadu_si512(&b->scale[slot / 4][j]), _mm_cvtsi32_si128((int)(slot % 4 * 16)));
  *x = _mm512_and_si512(_mm512_srli_epi64(w, 10), _mm512_set1_epi64(63));
  *f = _mm512_add_epi64(_mm512_and_si512(w, _mm512_set1_epi64(1023)), _mm512_set1_epi64(1024));
}

/* clamp(R(dot * f * scale, shift - x), +-2^27) */
INLINE __m512i term(__m256i dot, __m512i x, __m512i f, __m512i scale, int64_t shift) {
  const __m512i cap = _mm512_set1_epi64(1 << 27), neg = _mm512_set1_epi64(-(1 << 27));
  const __m512i one = _mm512_set1_epi64(1), zero = _mm512_setzero_si512();
  const __m512i v = _mm512_mullo_epi64(_mm512_mul_epi32(_mm512_cvtepi32_epi64(dot), f), scale); /* 61 bits */
  const __m512i s = _mm512_sub_epi64(_mm512_set1_epi64(shift), x);
  const __m512i right = _mm512_sub_epi64(_mm512_min_epi64(s, _mm512_set1_epi64(63)), one);
  const __m512i bit = _mm512_srav_epi64(v, right);
  __m512i r = _mm512_add_epi64(_mm512_srai_epi64(bit, 1), _mm512_and_si512(bit, one));
  const __mmask8 left = _mm512_cmple_epi64_mask(s, zero);
  if (left) { /* cut before the shift: |v| >= 1 shifted by 27 is at the bound already */
    const __m512i by = _mm512_min_epi64(_mm512_sub_epi64(zero, s), _mm512_set1_epi64(27));
    const __m512i cut = _mm512_max_epi64(_mm512_min_epi64(v, cap), neg);
    r = _mm512_mask_sllv_epi64(r, left, cut, by);
  }
  return _mm512_max_epi64(_mm512_min_epi64(r, cap), neg);
}

static void scores(const struct foray_cpu_attn *a, const struct query *q, const struct block *b, int32_t *t) {
  const uint32_t groups = a->head_dim / 32, meta = a->record - 2 * a->head_dim;
  const __m512i flip = _mm512_set1_epi8(-128), scale = _mm512_set1_epi64(a->scale);
  for (uint32_t j = 0; j < b->n; j += 8) {
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t g = 0; g < groups; g += 2) {
      const __mmask16 both = g + 1 < groups ? 0xffff : 0xff;
      __m512i part[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++) {
        const uint8_t *k = b->rec[j + (uint32_t)i] + meta + g * 32;
        const __m512i u = _mm512_xor_si512(_mm512_maskz_loadu_epi32(both, k), flip);
        const __m512i hi = _mm512_dpbusd_epi32(_mm512_setzero_si512(), u, q->hi[g / 2]);
        const __m512i lo = _mm512_dpbusd_epi32(q->start[g / 2], u, q->lo[g / 2]);
        part[i] = _mm512_add_epi32(_mm512_slli_epi32(hi, 8), lo);
      }
      const __m512i dot = reduce8(part);
      __m512i x, f;
      scale_of(b, j, g, &x, &f);
      sum = _mm512_add_epi64(sum, term(_mm512_castsi512_si256(dot), x, f, scale, q->shift[g]));
      if (g + 1 == groups) break;
      scale_of(b, j, g + 1, &x, &f);
      sum = _mm512_add_epi64(sum, term(_mm512_extracti64x4_epi64(dot, 1), x, f, scale, q->shift[g + 1]));
    }
    _mm256_storeu_si256((__m256i *)(t + j), _mm512_cvtepi64_epi32(sum));
  }
}

/* foray_exp2_neg_q30 of fractions 0..65535. */
INLINE __m512i exp2_neg(__m512i frac) {
  const __m512i f =
      _mm512_and_si512(_mm512_sub_epi32(_mm512_set1_epi32(65536), frac), _mm512_set1_epi32(0xffff));
  const __m512i i = _mm512_srli_epi32(f, 8), r = _mm512_and_si512(f, _mm512_set1_epi32(255));
  const __m512i lo = _mm512_i32gather_epi32(i, (const int *)foray_tab_exp2, 4);
  const __m512i hi = _mm512_i32gather_epi32(i, (const int *)foray_tab_exp2 + 1, 4);
  __m512i y = _mm512_mullo_epi32(_mm512_sub_epi32(hi, lo), r);
  y = _mm512_add_epi32(lo, _mm512_srli_epi32(_mm512_add_epi32(y, _mm512_set1_epi32(128)), 8));
  y = _mm512_srli_epi32(_mm512_add_epi32(y, _mm512_set1_epi32(1)), 1);
  return _mm512_mask_mov_epi32(y, _mm512_testn_epi32_mask(frac, frac), _mm512_set1_epi32(1 << 30));
}

/* The 32 positions' weights of one V group (int16), and the rescale of its sums. */
static void weights(const struct block *b, uint32_t slot, const int32_t *p, const int32_t *whole, int32_t *mv,
                    int32_t ml, int64_t *acc, int16_t *w) {
  __m512i a[4], f[4], top = _mm512_set1_epi64(*mv);
  for (uint32_t i = 0; i < 4; i++) {
    const uint32_t left = 8 * i >= b->n ? 0 : b->n - 8 * i;
    const __mmask8 live = (__mmask8)((1u << (left < 8 ? left : 8)) - 1);
    __m512i x;
    scale_of(b, 8 * i, slot, &x, &f[i]);
    const __m512i fall = _mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)(whole + 8 * i)));
    a[i] = _mm512_sub_epi64(_mm512_add_epi64(x, _mm512_set1_epi64(ml)), fall);
    top = _mm512_mask_max_epi64(top, live, top, a[i]);
    f[i] = _mm512_maskz_mov_epi64(live, f[i]);
  }
  const int64_t now = _mm512_reduce_max_epi64(top), rise = now - *mv;
  if (rise > 0)
    for (int i = 0; i < 32; i += 8) _mm512_storeu_si512(acc + i, round_by(_mm512_loadu_si512(acc + i), rise));
  *mv = (int32_t)now;
  for (uint32_t i = 0; i < 4; i++) {
    const __m512i pf =
        _mm512_mul_epi32(_mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)(p + 8 * i))), f[i]);
    const __m512i s = _mm512_sub_epi64(_mm512_set1_epi64(26 + now), a[i]); /* one less than the shift */
    const __m512i bit = _mm512_srlv_epi64(pf, s);
    const __m512i v =
        _mm512_add_epi64(_mm512_srli_epi64(bit, 1), _mm512_and_si512(bit, _mm512_set1_epi64(1)));
    _mm_storeu_si128((__m128i *)(w + 8 * i), _mm512_cvtepi64_epi16(v));
  }
}

static void add_values(const struct block *b, uint32_t at, const int16_t *w, int64_t *acc) {
  __m512i lo = _mm512_setzero_si512(), hi = lo;
  for (uint32_t j = 0; j < b->n; j += 2) {
    const __m512i v0 = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(b->rec[j] + at)));
    const __m512i v1 = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(b->rec[j + 1] + at)));
    int32_t pair;
    memcpy(&pair, w + j, 4);
    lo = _mm512_dpwssd_epi32(lo, _mm512_unpacklo_epi16(v0, v1), _mm512_set1_epi32(pair));
    hi = _mm512_dpwssd_epi32(hi, _mm512_unpackhi_epi16(v0, v1), _mm512_set1_epi32(pair));
  }
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                last = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  const __m512i s[2] = {_mm512_permutex2var_epi64(lo, first, hi), _mm512_permutex2var_epi64(lo, last, hi)};
  for (int i = 0; i < 2; i++) {
    int64_t *o = acc + 16 * i;
    const __m512i x = _mm512_slli_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(s[i])), 8);
    const __m512i y = _mm512_slli_epi64(_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(s[i], 1)), 8);
    _mm512_storeu_si512(o, _mm512_add_epi64(_mm512_loadu_si512(o), x));
    _mm512_storeu_si512(o + 8, _mm512_add_epi64(_mm512_loadu_si512(o + 8), y));
  }
}

static void step(const struct foray_cpu_attn *a, const struct block *b, const int32_t *t, struct state *st) {
  const uint32_t groups = a->head_dim / 32, meta = a->record - 2 * a->head_dim;
  const __mmask32 live = b->n == 32 ? 0xffffffffu : (1u << b->n) - 1;
  const __m512i t0 = _mm512_loadu_si512(t), t1 = _mm512_loadu_si512(t + 16);
  const __m512i least = _mm512_set1_epi32(INT32_MIN);
  const int32_t top =
      _mm512_reduce_max_epi32(_mm512_max_epi32(_mm512_mask_mov_epi32(least, (__mmask16)live, t0),
                                               _mm512_mask_mov_epi32(least, (__mmask16)(live >> 16), t1)));
  int32_t ml = (top + 65535) >> 16;
  if (ml < st->ml) ml = st->ml;
  st->l = foray_rshift_round(st->l, ml - st->ml);
  st->ml = ml;
  int32_t p[BLOCK], whole[BLOCK];
  for (int i = 0; i < 2; i++) {
    const __m512i d =
        _mm512_sub_epi32(_mm512_set1_epi32((int32_t)((uint32_t)ml << 16)), i ? t1 : t0); /* unsigned */
    const __m512i w = _mm512_srli_epi32(d, 16);
    const __m512i e = exp2_neg(_mm512_and_si512(d, _mm512_set1_epi32(0xffff)));
    const __m512i v = _mm512_maskz_mov_epi32((__mmask16)(live >> (16 * i)), e);
    const __m512i bit = _mm512_srlv_epi32(v, _mm512_sub_epi32(w, _mm512_set1_epi32(1)));
    const __m512i r = _mm512_add_epi32(_mm512_srlv_epi32(v, w), _mm512_and_si512(bit, _mm512_set1_epi32(1)));
    st->l +=
        _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_cvtepu32_epi64(_mm512_castsi512_si256(r)),
                                                 _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(r, 1))));
    _mm512_storeu_si512(p + 16 * i, v);
    _mm512_storeu_si512(whole + 16 * i, w);
  }
  for (uint32_t g = 0; g < groups; g++) {
    int16_t w[BLOCK];
    weights(b, groups + g, p, whole, &st->mv[g], ml, st->acc + g * 32, w);
    add_values(b, meta + (groups + g) * 32, w, st->acc + g * 32);
  }
}

static void end(const struct foray_cpu_attn *a, const struct state *st) {
  const int k = foray_bitlen64(st->l) - 32;
  const uint64_t lambda = k >= 0 ? (uint64_t)st->l >> k : (uint64_t)st->l << -k;
  const __m512i inv = _mm512_set1_epi64((int64_t)(((uint64_t)1 << 63) / lambda));
  for (uint32_t g = 0; g < a->head_dim / 32; g++) {
    const int64_t *acc = st->acc + g * 32;
    __m512i any = _mm512_setzero_si512();
    for (int i = 0; i < 32; i += 8) any = _mm512_or_si512(any, _mm512_abs_epi64(_mm512_loadu_si512(acc + i)));
    const int bits = foray_bitlen64(_mm512_reduce_or_epi64(any)), sa = bits > 30 ? bits - 30 : 0;
    for (uint32_t i = 0; i < 32; i += 8)
      _mm512_storeu_si512(a->out + g * 32 + i,
                          _mm512_mullo_epi64(round_by(_mm512_loadu_si512(acc + i), sa), inv));
    a->exp[g] = sa - 63 - k + st->mv[g] - st->ml - 29;
  }
}

void foray_cpu_attn_head_avx512(const struct foray_cpu_attn *a) {
  const uint32_t groups = a->head_dim / 32;
  struct query q;
  struct state st;
  struct block b;
  prepare_query(a, &q);
  st.ml = -(1 << 24);
  st.l = 0;
  for (uint32_t g = 0; g < groups; g++) st.mv[g] = -(1 << 24);
  memset(st.acc, 0, a->head_dim * sizeof *st.acc);
  for (uint32_t at = 0; at < a->n; at += BLOCK) {
    b.n = a->n - at < BLOCK ? a->n - at : BLOCK;
    for (uint32_t j = 0; j < BLOCK; j++) {
      b.rec[j] = a->records + (uint64_t)(at + (j < b.n ? j : b.n - 1)) * a->record;
      for (uint32_t w = 0; w < (groups + 1) / 2; w++) memcpy(&b.scale[w][j], b.rec[j] + 8 * w, 8);
    }
    int32_t t[BLOCK] = {0};
    scores(a, &q, &b, t);
    step(a, &b, t, &st);
  }
  end(a, &st);
}
#else
typedef int foray_cpu_attn_avx512_unused;
#endif
