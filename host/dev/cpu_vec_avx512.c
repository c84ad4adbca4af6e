/* Vector operations with AVX-512. Products of 32-bit values need 64-bit lanes, so sixteen elements are kept
 * as eight even and eight odd ones; "EO order" below means an int64 array in which each sixteen elements lie
 * as evens, then odds. */
#include "dev/cpu_vec.h"

#if defined(__x86_64__)
#include "core/imath.h"
#include "dev/ref.h"
#include "gen/foray_tables.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* foray_rshift_round of int64 lanes for s in 1..62 (the caller has excluded the rest). */
INLINE __m512i round_right(__m512i v, int s) {
  __m512i bit = _mm512_sra_epi64(v, _mm_cvtsi32_si128(s - 1));
  return _mm512_add_epi64(_mm512_srai_epi64(bit, 1), _mm512_and_si512(bit, _mm512_set1_epi64(1)));
}
/* The same for every s whose left shift (s <= 0) cannot overflow. */
INLINE __m512i round_any(__m512i v, int s) {
  if (s > 62) return _mm512_setzero_si512();
  if (s > 0) return round_right(v, s);
  return _mm512_sll_epi64(v, _mm_cvtsi32_si128(-s));
}

INLINE __m512i clamp_y(__m512i m) {
  const __m512i b = _mm512_set1_epi32(1 << FORAY_ABI_Y32_BITS);
  return _mm512_max_epi32(_mm512_min_epi32(m, b), _mm512_sub_epi32(_mm512_setzero_si512(), b));
}
INLINE __m512i odd_of(__m512i v) { return _mm512_srli_epi64(v, 32); }
INLINE __m512i load_y(const int32_t *p) { return clamp_y(_mm512_loadu_si512(p)); }
/* low 32 bits of even and odd int64 lanes back to sixteen int32 */
INLINE __m512i join(__m512i even, __m512i odd) {
  return _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
}

static uint64_t finish(int64_t *acc, const uint16_t *mant, uint32_t n, int t) {
  __m512i any = _mm512_setzero_si512();
  for (uint32_t i = 0; i < n; i += 8) {
    __m512i y = round_right(_mm512_loadu_si512(acc + i), t);
    y = _mm512_mullo_epi64(y, _mm512_cvtepu16_epi64(_mm_loadu_si128((const __m128i *)(mant + i))));
    any = _mm512_or_si512(any, _mm512_abs_epi64(y));
    _mm512_storeu_si512(acc + i, y);
  }
  return (uint64_t)_mm512_reduce_or_epi64(any);
}

static void narrow(const int64_t *v, uint32_t n, int s, int32_t *m) {
  for (uint32_t i = 0; i < n; i += 8)
    _mm256_storeu_si256((__m256i *)(m + i), _mm512_cvtepi64_epi32(round_any(_mm512_loadu_si512(v + i), s)));
}

static void logits(const int64_t *acc, const uint16_t *mant, uint32_t n, int t, int s, int32_t *logit) {
  if (s <= 0 || s > 62) {
    foray_cpu_vec_plain.logits(acc, mant, n, t, s, logit);
    return;
  }
  const __m512i low = _mm512_set1_epi64(-INT32_MAX);
  for (uint32_t i = 0; i < n; i += 8) {
    __m512i y = round_right(_mm512_loadu_si512(acc + i), t);
    y = _mm512_mullo_epi64(y, _mm512_cvtepu16_epi64(_mm_loadu_si128((const __m128i *)(mant + i))));
    y = _mm512_max_epi64(round_right(y, s), low);
    const __mmask8 keep = (__mmask8)((1u << (n - i < 8 ? n - i : 8)) - 1);
    _mm256_mask_storeu_epi32(logit + i, keep, _mm512_cvtsepi64_epi32(y));
  }
}

/* to_a16 of an int64 array, exp[g * step] of group g; eo: v is in EO order. */
INLINE void to_a16(const int64_t *v, uint32_t n, const int32_t *exp, const int step, const int eo,
                   struct foray_a16 dst) {
  const uint32_t groups = n / FORAY_ABI_GROUP;
  static _Thread_local uint8_t bits[FORAY_ABI_COLUMNS_LIMIT / FORAY_ABI_GROUP];
  int32_t top = INT32_MIN;
  for (uint32_t g = 0; g < groups; g++) {
    const int64_t *x = v + (size_t)g * FORAY_ABI_GROUP;
    __m512i any = _mm512_or_si512(
        _mm512_or_si512(_mm512_abs_epi64(_mm512_loadu_si512(x)), _mm512_abs_epi64(_mm512_loadu_si512(x + 8))),
        _mm512_or_si512(_mm512_abs_epi64(_mm512_loadu_si512(x + 16)),
                        _mm512_abs_epi64(_mm512_loadu_si512(x + 24))));
    const uint64_t a = (uint64_t)_mm512_reduce_or_epi64(any);
    const int b = a ? 64 - __builtin_clzll(a) : 0;
    bits[g] = (uint8_t)b;
    if (b && b + exp[g * (uint32_t)step] > top) top = b + exp[g * (uint32_t)step];
  }
  if (top == INT32_MIN) {
    memset(dst.m, 0, n * sizeof *dst.m);
    memset(dst.shift, 0, groups);
    *dst.exp = FORAY_ABI_EXP_ZERO;
    return;
  }
  const int32_t base = top - FORAY_ABI_A16_BITS - FORAY_ABI_SHIFT_MAX;
  for (uint32_t g = 0; g < groups; g++) {
    const int64_t *x = v + (size_t)g * FORAY_ABI_GROUP;
    int16_t *m = dst.m + (size_t)g * FORAY_ABI_GROUP;
    const int32_t e = exp[g * (uint32_t)step];
    int32_t shift = bits[g] ? FORAY_ABI_SHIFT_MAX - (top - (bits[g] + e)) : 0;
    if (shift < 0) shift = 0;
    const int32_t s = bits[g] ? base + shift - e : 0; /* of zeros every shift is the same */
    dst.shift[g] = (uint8_t)shift;
    for (int h = 0; h < 2; h++, x += 16, m += 16) {
      __m512i a = round_any(_mm512_loadu_si512(x), s), b = round_any(_mm512_loadu_si512(x + 8), s);
      if (eo)
        _mm256_storeu_si256((__m256i *)m, _mm512_cvtepi32_epi16(join(a, b)));
      else {
        _mm_storeu_si128((__m128i *)m, _mm512_cvtepi64_epi16(a));
        _mm_storeu_si128((__m128i *)(m + 8), _mm512_cvtepi64_epi16(b));
      }
    }
  }
  *dst.exp = foray_clamp_exp(base);
}

static void to_a16_groups(const int64_t *v, uint32_t n, const int32_t *exp, struct foray_a16 dst) {
  to_a16(v, n, exp, 1, 0, dst);
}

static void quant(void *arg, uint32_t n, struct foray_y32 src, struct foray_a16 dst) {
  (void)arg;
  static _Thread_local int64_t v[FORAY_ABI_COLUMNS_LIMIT];
  for (uint32_t i = 0; i < n; i += 16) {
    const __m512i m = load_y(src.m + i);
    _mm512_storeu_si512(v + i, _mm512_cvtepi32_epi64(_mm512_castsi512_si256(m)));
    _mm512_storeu_si512(v + i + 8, _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(m, 1)));
  }
  const int32_t e = foray_clamp_exp(*src.exp);
  to_a16(v, n, &e, 0, 0, dst);
}

static void rmsnorm(void *arg, const struct foray_desc_rmsnorm *d, const int32_t *gamma, struct foray_y32 src,
                    struct foray_a16 dst) {
  const uint32_t n = d->n;
  static _Thread_local int64_t v[FORAY_ABI_NORM_LIMIT];
  const int32_t e = foray_clamp_exp(*src.exp);
  __m512i any = _mm512_setzero_si512();
  for (uint32_t i = 0; i < n; i += 16) any = _mm512_or_si512(any, _mm512_abs_epi32(load_y(src.m + i)));
  const uint32_t a = (uint32_t)_mm512_reduce_or_epi32(any);
  const int bits = a ? 32 - __builtin_clz(a) : 0, sx = bits > 24 ? bits - 24 : 0;
  __m512i sum = _mm512_setzero_si512();
  for (uint32_t i = 0; i < n; i += 16) {
    __m512i x = load_y(src.m + i);
    if (sx > 0) {
      __m512i bit = _mm512_sra_epi32(x, _mm_cvtsi32_si128(sx - 1));
      x = _mm512_add_epi32(_mm512_srai_epi32(bit, 1), _mm512_and_si512(bit, _mm512_set1_epi32(1)));
    }
    const __m512i o = odd_of(x);
    sum = _mm512_add_epi64(sum, _mm512_add_epi64(_mm512_mul_epi32(x, x), _mm512_mul_epi32(o, o)));
  }
  int64_t s = _mm512_reduce_add_epi64(sum);
  int64_t eps = foray_rshift_round((int64_t)d->eps_mant * n, 2 * (e + sx) - d->eps_exp);
  const int64_t cap = (int64_t)1 << 61;
  s += eps > cap ? cap : eps;
  int k;
  const uint32_t r = foray_rsqrt((uint64_t)s, &k);
  int64_t f = (int64_t)r * d->root_n;
  const int fs = foray_bitlen64(f) - 31;
  f = foray_rshift_round(f, fs);
  if (f > INT32_MAX) { /* rounded up to 2^31: one more bit than a lane's factor has */
    foray_ref_rmsnorm(arg, d, gamma, src, dst);
    return;
  }
  const __m512i factor = _mm512_set1_epi64(f);
  for (uint32_t i = 0; i < n; i += 16) {
    const __m512i x = load_y(src.m + i), w = _mm512_loadu_si512(gamma + i);
    const __m512i even = round_right(_mm512_mul_epi32(x, factor), 31);
    const __m512i odd = round_right(_mm512_mul_epi32(odd_of(x), factor), 31);
    _mm512_storeu_si512(v + i, _mm512_mul_epi32(even, w));
    _mm512_storeu_si512(v + i + 8, _mm512_mul_epi32(odd, odd_of(w)));
  }
  const int32_t ev = -sx + k - 31 - 16 + fs + 31 + d->gamma_exp;
  to_a16(v, n, &ev, 0, 1, dst);
}

/* foray_sigmoid_q30 of x in [-2^20, 2^20]. */
INLINE __m512i sigmoid(__m512i x) {
  const __m512i one = _mm512_set1_epi32(1 << 30), edge = _mm512_set1_epi32(16 << 16);
  const __m512i a = _mm512_abs_epi32(x);
  const __m512i i = _mm512_min_epi32(_mm512_srli_epi32(a, 10), _mm512_set1_epi32(1023));
  const __m512i f = _mm512_and_si512(a, _mm512_set1_epi32(1023));
  const __m512i t0 = _mm512_i32gather_epi32(i, (const int *)foray_tab_sigmoid, 4);
  const __m512i t1 = _mm512_i32gather_epi32(i, (const int *)foray_tab_sigmoid + 1, 4);
  __m512i y = _mm512_srli_epi32(_mm512_mullo_epi32(_mm512_sub_epi32(t1, t0), f), 10); /* below 2^32 */
  y = _mm512_add_epi32(t0, y);
  y = _mm512_mask_mov_epi32(y, _mm512_cmpge_epi32_mask(a, edge), one);
  return _mm512_mask_sub_epi32(y, _mm512_movepi32_mask(x), one, y);
}

static void silu_mul(void *arg, uint32_t n, struct foray_y32 gate, struct foray_y32 up,
                     struct foray_a16 dst) {
  (void)arg;
  static _Thread_local int64_t v[FORAY_ABI_COLUMNS_LIMIT];
  const int32_t eg = foray_clamp_exp(*gate.exp), eu = foray_clamp_exp(*up.exp);
  const int s = -(eg + 16);
  /* A left shift may not overflow: what ends beyond 2^20 is cut there first, where the sigmoid is constant.
   */
  const int left = s >= 0 ? 0 : s < -20 ? 20 : -s;
  const __m512i cut = _mm512_set1_epi32(s >= 0 ? 1 << 20 : (1 << 20) >> left);
  const __m512i neg_cut = _mm512_sub_epi32(_mm512_setzero_si512(), cut);
  const __m128i count = _mm_cvtsi32_si128(s > 0 ? s - 1 : left);
  for (uint32_t i = 0; i < n; i += 16) {
    const __m512i g = load_y(gate.m + i), u = load_y(up.m + i);
    __m512i x = g;
    if (s > 0) {
      const __m512i bit = _mm512_sra_epi32(g, count);
      x = _mm512_add_epi32(_mm512_srai_epi32(bit, 1), _mm512_and_si512(bit, _mm512_set1_epi32(1)));
    }
    x = _mm512_max_epi32(_mm512_min_epi32(x, cut), neg_cut);
    if (s < 0) x = _mm512_sll_epi32(x, count);
    const __m512i y = sigmoid(x);
    const __m512i even = round_right(_mm512_mul_epi32(g, y), 30);
    const __m512i odd = round_right(_mm512_mul_epi32(odd_of(g), odd_of(y)), 30);
    _mm512_storeu_si512(v + i, _mm512_mul_epi32(even, u));
    _mm512_storeu_si512(v + i + 8, _mm512_mul_epi32(odd, odd_of(u)));
  }
  const int32_t e = eg + eu;
  to_a16(v, n, &e, 0, 1, dst);
}

INLINE __m512i aligned_half(__m256i m, int s) { return round_any(_mm512_cvtepi32_epi64(m), s); }

static void add(void *arg, uint32_t n, struct foray_y32 acc, struct foray_y32 src) {
  (void)arg;
  static _Thread_local int64_t v[FORAY_ABI_COLUMNS_LIMIT];
  const int32_t ea = foray_clamp_exp(*acc.exp), eb = foray_clamp_exp(*src.exp), e = ea > eb ? ea : eb;
  __m512i any = _mm512_setzero_si512();
  for (uint32_t i = 0; i < n; i += 16) {
    const __m512i a = load_y(acc.m + i), b = load_y(src.m + i);
    const __m512i lo = _mm512_add_epi64(aligned_half(_mm512_castsi512_si256(a), e - ea),
                                        aligned_half(_mm512_castsi512_si256(b), e - eb));
    const __m512i hi = _mm512_add_epi64(aligned_half(_mm512_extracti64x4_epi64(a, 1), e - ea),
                                        aligned_half(_mm512_extracti64x4_epi64(b, 1), e - eb));
    any = _mm512_or_si512(any, _mm512_or_si512(_mm512_abs_epi64(lo), _mm512_abs_epi64(hi)));
    _mm512_storeu_si512(v + i, lo);
    _mm512_storeu_si512(v + i + 8, hi);
  }
  const uint64_t top = (uint64_t)_mm512_reduce_or_epi64(any);
  const int bits = top ? 64 - __builtin_clzll(top) : 0, s = bits - FORAY_ABI_Y32_BITS;
  narrow(v, n, s, acc.m);
  *acc.exp = bits ? foray_clamp_exp((int64_t)e + s) : FORAY_ABI_EXP_ZERO;
}

const struct foray_cpu_vec foray_cpu_vec_avx512 = {
    .finish = finish,
    .narrow = narrow,
    .logits = logits,
    .rmsnorm = rmsnorm,
    .silu_mul = silu_mul,
    .quant = quant,
    .add = add,
    .to_a16 = to_a16_groups,
    .attn_head = foray_cpu_attn_head_avx512,
};
#else
typedef int foray_cpu_vec_avx512_unused;
#endif
