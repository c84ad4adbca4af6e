/* Matrix products with AVX-512 VNNI: 16 rows lie in the 16 lanes, one 64-byte beat is one register.
 * vpdpbusd multiplies unsigned by signed bytes, so a mantissa goes in as two bytes: the signed high one
 * against unsigned weights, the unsigned low one against signed weights (4-bit codes are both; int8 weights
 * get +128 for the high part, undone through `bias`). Sums of a group stay below 2^31, t below 2^28 (Q4A),
 * and codes * t << shift is 64 bits wide, even and odd rows apart. */
#include "dev/cpu_gemv.h"

#include "model/image.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

enum {
  PREFETCH = 1536, /* bytes ahead: about the latency of memory at the rate of one core */
  PAIR4 = 64 + 2 * 256,
  QUAD8 = 64 + 4 * 512,
};

static inline __attribute__((always_inline)) __m512i bcast(const void *p) {
  int32_t v;
  memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}

static inline __attribute__((always_inline)) __m512i codes16(const uint8_t *p) {
  return _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)p));
}

struct sums {
  __m512i even, odd; /* int64: rows 0 2 4 .. 14, rows 1 3 .. 15 */
};

/* s += (sc * t) << shift */
static inline __attribute__((always_inline)) void take(struct sums *s, __m512i t, __m512i sc, __m512i sc_odd,
                                                       const struct foray_cpu_group *x) {
  __m512i sh = _mm512_set1_epi64(x->shift);
  __m512i pe = _mm512_mul_epi32(t, sc), po = _mm512_mul_epi32(_mm512_srli_epi64(t, 32), sc_odd);
  s->even = _mm512_add_epi64(s->even, _mm512_sllv_epi64(pe, sh));
  s->odd = _mm512_add_epi64(s->odd, _mm512_sllv_epi64(po, sh));
}

static inline __attribute__((always_inline)) void put(const struct sums *s, int64_t *out) {
  const __m512i lo = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  const __m512i hi = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(s->even, lo, s->odd));
  _mm512_storeu_si512(out + 8, _mm512_permutex2var_epi64(s->even, hi, s->odd));
}

static inline __attribute__((always_inline)) void group_q4a(const uint8_t *codes, const uint8_t *beats,
                                                            const struct foray_cpu_group *x, const int k,
                                                            struct sums *s) {
  const __m512i low = _mm512_set1_epi8(15);
  __m512i hi[4], lo[4];
  for (int c = 0; c < k; c++) hi[c] = lo[c] = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    __m512i w = _mm512_load_si512(beats + 64 * j);
    __m512i w0 = _mm512_and_si512(w, low), w1 = _mm512_and_si512(_mm512_srli_epi16(w, 4), low);
#pragma GCC unroll 4
    for (int c = 0; c < k; c++) {
      hi[c] = _mm512_dpbusd_epi32(hi[c], w0, bcast(x[c].a.byte.hi + 8 * j));
      lo[c] = _mm512_dpbusd_epi32(lo[c], bcast(x[c].a.byte.lo + 8 * j), w0);
      hi[c] = _mm512_dpbusd_epi32(hi[c], w1, bcast(x[c].a.byte.hi + 8 * j + 4));
      lo[c] = _mm512_dpbusd_epi32(lo[c], bcast(x[c].a.byte.lo + 8 * j + 4), w1);
    }
  }
  __m512i sc = codes16(codes), zp = codes16(codes + 16), sc_odd = _mm512_srli_epi64(sc, 32);
#pragma GCC unroll 4
  for (int c = 0; c < k; c++) {
    __m512i dot16 = _mm512_add_epi32(_mm512_slli_epi32(hi[c], 12), _mm512_slli_epi32(lo[c], 4));
    __m512i t = _mm512_sub_epi32(dot16, _mm512_mullo_epi32(zp, _mm512_set1_epi32(x[c].sum)));
    take(&s[c], t, sc, sc_odd, &x[c]);
  }
}

static inline __attribute__((always_inline)) void block_q4a(const uint8_t *b, uint32_t groups,
                                                            const struct foray_cpu_group *x, const int k,
                                                            int stride, int64_t *acc, size_t acc_stride) {
  struct sums s[4];
  for (int c = 0; c < k; c++) s[c].even = s[c].odd = _mm512_setzero_si512();
  uint32_t g = 0;
  for (; g + 2 <= groups; g += 2, b += PAIR4) {
#pragma GCC unroll 9
    for (int i = 0; i < PAIR4 / 64; i++) _mm_prefetch((const char *)b + PREFETCH + 64 * i, _MM_HINT_T0);
    group_q4a(b, b + 64, x, k, s);
    x += stride;
    group_q4a(b + 32, b + 64 + 256, x, k, s);
    x += stride;
  }
  if (g < groups) group_q4a(b, b + 64, x, k, s);
#pragma GCC unroll 4
  for (int c = 0; c < k; c++) put(&s[c], acc + (size_t)c * acc_stride);
}

static inline __attribute__((always_inline)) void group_q8s(const uint8_t *codes, const uint8_t *beats,
                                                            const struct foray_cpu_group *x, const int k,
                                                            struct sums *s) {
  const __m512i flip = _mm512_set1_epi8(-128);
  __m512i hi[4], lo[4];
#pragma GCC unroll 4
  for (int c = 0; c < k; c++) {
    hi[c] = _mm512_set1_epi32(x[c].bias);
    lo[c] = _mm512_setzero_si512();
  }
#pragma GCC unroll 8
  for (int j = 0; j < 8; j++) {
    __m512i w = _mm512_load_si512(beats + 64 * j), u = _mm512_xor_si512(w, flip);
#pragma GCC unroll 4
    for (int c = 0; c < k; c++) {
      hi[c] = _mm512_dpbusd_epi32(hi[c], u, bcast(x[c].a.byte.hi + 4 * j));
      lo[c] = _mm512_dpbusd_epi32(lo[c], bcast(x[c].a.byte.lo + 4 * j), w);
    }
  }
  __m512i sc = codes16(codes), sc_odd = _mm512_srli_epi64(sc, 32);
#pragma GCC unroll 4
  for (int c = 0; c < k; c++)
    take(&s[c], _mm512_add_epi32(_mm512_slli_epi32(hi[c], 8), lo[c]), sc, sc_odd, &x[c]);
}

static inline __attribute__((always_inline)) void block_q8s(const uint8_t *b, uint32_t groups,
                                                            const struct foray_cpu_group *x, const int k,
                                                            int stride, int64_t *acc, size_t acc_stride) {
  struct sums s[4];
  for (int c = 0; c < k; c++) s[c].even = s[c].odd = _mm512_setzero_si512();
  for (uint32_t g = 0; g < groups; b += QUAD8) {
    const uint32_t n = groups - g < 4 ? groups - g : 4;
    _mm_prefetch((const char *)b + PREFETCH, _MM_HINT_T0);
    for (uint32_t i = 0; i < n; i++, g++, x += stride) {
      const uint8_t *beats = b + 64 + 512 * (size_t)i;
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++) _mm_prefetch((const char *)beats + PREFETCH + 64 * j, _MM_HINT_T0);
      group_q8s(b + 16 * (size_t)i, beats, x, k, s);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < k; c++) put(&s[c], acc + (size_t)c * acc_stride);
}

/* Four columns are what the registers hold; more are done in passes over a block that is then in L2. */
#define BY_COLUMNS(name, block_fn)                                                                           \
  static void name(const uint8_t *b, uint32_t groups, const struct foray_cpu_group *x, int k, int64_t *acc,  \
                   size_t acc_stride) {                                                                      \
    int done = 0;                                                                                            \
    for (; k - done >= 4; done += 4)                                                                         \
      block_fn(b, groups, x + done, 4, k, acc + (size_t)done * acc_stride, acc_stride);                      \
    x += done;                                                                                               \
    acc += (size_t)done * acc_stride;                                                                        \
    switch (k - done) {                                                                                      \
    case 1: block_fn(b, groups, x, 1, k, acc, acc_stride); break;                                            \
    case 2: block_fn(b, groups, x, 2, k, acc, acc_stride); break;                                            \
    case 3: block_fn(b, groups, x, 3, k, acc, acc_stride); break;                                            \
    default: break;                                                                                          \
    }                                                                                                        \
  }
BY_COLUMNS(q4a_avx512, block_q4a)
BY_COLUMNS(q8s_avx512, block_q8s)

const struct foray_cpu_gemv foray_cpu_gemv_avx512 = {FORAY_CPU_FORM_BYTE, q4a_avx512, q8s_avx512};
#else
typedef int foray_cpu_gemv_avx512_unused;
#endif
