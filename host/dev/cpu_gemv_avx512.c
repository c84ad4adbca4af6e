/* Matrix products with AVX-512 VNNI: 16 rows lie in the 16 lanes, one 64-byte beat is one register.
 * vpdpbusd multiplies unsigned by signed bytes, so a mantissa goes in as two signed bytes, 256 * hi + lo.
 * 4-bit codes are taken as 16 * q (a nibble in the upper half of its byte), which is what the formula wants;
 * their zero points enter through vpdpwssd. Int8 weights get +128, undone through the sum of the group. All
 * sums of a group stay below 2^27; (codes << shift) * t is 64 bits wide, even and odd rows apart.
 *
 * One core cannot keep enough cache lines in flight on one sequential stream (the hardware prefetcher follows
 * a stream for some 20 lines, and stops at each page), so a run is cut into several parts that advance
 * together: 4 streams for one column, 2 for two. */
#include "dev/cpu_gemv.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

enum { PREFETCH = 2048, PAIR4 = 64 + 2 * 256, QUAD8 = 64 + 4 * 512, STREAMS = 4, COLS = 4 };

#define INLINE      static inline __attribute__((always_inline))
#define EACH_STREAM _Pragma("GCC unroll 4") for (int s = 0; s < streams; s++)
#define EACH_COLUMN _Pragma("GCC unroll 4") for (int c = 0; c < k; c++)

INLINE __m512i bcast(const int8_t *p) {
  int32_t v;
  memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}

INLINE __m512i codes16(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)p)); }

struct sums {
  __m512i even, odd; /* int64: rows 0 2 4 .. 14, rows 1 3 .. 15 */
};

/* s += (sc << shift) * t */
INLINE void take(struct sums *s, __m512i t, __m512i sc, const struct foray_cpu_group *x) {
  sc = _mm512_sllv_epi32(sc, _mm512_set1_epi32(x->shift));
  s->even = _mm512_add_epi64(s->even, _mm512_mul_epi32(t, sc));
  s->odd = _mm512_add_epi64(s->odd, _mm512_mul_epi32(_mm512_srli_epi64(t, 32), _mm512_srli_epi64(sc, 32)));
}

INLINE void put(const struct sums *s, int64_t *out) {
  const __m512i lo = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  const __m512i hi = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(s->even, lo, s->odd));
  _mm512_storeu_si512(out + 8, _mm512_permutex2var_epi64(s->even, hi, s->odd));
}

INLINE void group_q4a(const uint8_t *codes, const uint8_t *beats, const struct foray_cpu_group *x,
                      const int k, struct sums *sum) {
  const __m512i high = _mm512_set1_epi8((char)0xf0);
  const __m512i sc = codes16(codes), zp = codes16(codes + 16);
  __m512i hi[COLS], lo[COLS];
  EACH_COLUMN {
    hi[c] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), zp, _mm512_set1_epi32(x[c].neg_hi));
    lo[c] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), zp, _mm512_set1_epi32(x[c].neg_lo));
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    const __m512i w = _mm512_load_si512(beats + 64 * j);
    const __m512i w0 = _mm512_and_si512(_mm512_slli_epi16(w, 4), high), w1 = _mm512_and_si512(w, high);
    EACH_COLUMN {
      hi[c] = _mm512_dpbusd_epi32(hi[c], w0, bcast(x[c].a.byte.hi + 8 * j));
      lo[c] = _mm512_dpbusd_epi32(lo[c], w0, bcast(x[c].a.byte.lo + 8 * j));
      hi[c] = _mm512_dpbusd_epi32(hi[c], w1, bcast(x[c].a.byte.hi + 8 * j + 4));
      lo[c] = _mm512_dpbusd_epi32(lo[c], w1, bcast(x[c].a.byte.lo + 8 * j + 4));
    }
  }
  EACH_COLUMN take(&sum[c], _mm512_add_epi32(_mm512_slli_epi32(hi[c], 8), lo[c]), sc, &x[c]);
}

INLINE void group_q8s(const uint8_t *codes, const uint8_t *beats, const struct foray_cpu_group *x,
                      const int k, struct sums *sum) {
  const __m512i flip = _mm512_set1_epi8(-128);
  const __m512i sc = codes16(codes);
  __m512i hi[COLS], lo[COLS];
  EACH_COLUMN {
    hi[c] = _mm512_setzero_si512();
    lo[c] = _mm512_set1_epi32(-128 * x[c].sum);
  }
#pragma GCC unroll 8
  for (int j = 0; j < 8; j++) {
    const __m512i u = _mm512_xor_si512(_mm512_load_si512(beats + 64 * j), flip);
    EACH_COLUMN {
      hi[c] = _mm512_dpbusd_epi32(hi[c], u, bcast(x[c].a.byte.hi + 4 * j));
      lo[c] = _mm512_dpbusd_epi32(lo[c], u, bcast(x[c].a.byte.lo + 4 * j));
    }
  }
  EACH_COLUMN take(&sum[c], _mm512_add_epi32(_mm512_slli_epi32(hi[c], 8), lo[c]), sc, &x[c]);
}

/* The same columns of `streams` row blocks that lie `apart` bytes from each other. */
INLINE void blocks_q4a(const uint8_t *b, size_t apart, uint32_t groups, const struct foray_cpu_group *x,
                       const int k, const int streams, int xstep, int64_t *acc, size_t stride,
                       size_t acc_apart) {
  struct sums sum[STREAMS][COLS];
  EACH_STREAM EACH_COLUMN sum[s][c].even = sum[s][c].odd = _mm512_setzero_si512();
  for (uint32_t g = 0; g < groups; g += 2, b += PAIR4) {
    EACH_STREAM {
#pragma GCC unroll 9
      for (int i = 0; i < PAIR4 / 64; i++)
        _mm_prefetch((const char *)b + (size_t)s * apart + PREFETCH + 64 * i, _MM_HINT_T0);
    }
    EACH_STREAM group_q4a(b + (size_t)s * apart, b + (size_t)s * apart + 64, x, k, sum[s]);
    x += xstep;
    if (g + 1 == groups) break;
    EACH_STREAM group_q4a(b + (size_t)s * apart + 32, b + (size_t)s * apart + 64 + 256, x, k, sum[s]);
    x += xstep;
  }
  EACH_STREAM EACH_COLUMN put(&sum[s][c], acc + (size_t)c * stride + (size_t)s * acc_apart);
}

INLINE void blocks_q8s(const uint8_t *b, size_t apart, uint32_t groups, const struct foray_cpu_group *x,
                       const int k, const int streams, int xstep, int64_t *acc, size_t stride,
                       size_t acc_apart) {
  struct sums sum[STREAMS][COLS];
  EACH_STREAM EACH_COLUMN sum[s][c].even = sum[s][c].odd = _mm512_setzero_si512();
  for (uint32_t g = 0; g < groups; b += QUAD8) {
    const size_t n = groups - g < 4 ? groups - g : 4;
    EACH_STREAM _mm_prefetch((const char *)b + (size_t)s * apart + PREFETCH, _MM_HINT_T0);
    for (size_t i = 0; i < n; i++, g++, x += xstep) {
      const uint8_t *beats = b + 64 + 512 * i;
      EACH_STREAM {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
          _mm_prefetch((const char *)beats + (size_t)s * apart + PREFETCH + 64 * j, _MM_HINT_T0);
        group_q8s(b + (size_t)s * apart + 16 * i, beats + (size_t)s * apart, x, k, sum[s]);
      }
    }
  }
  EACH_STREAM EACH_COLUMN put(&sum[s][c], acc + (size_t)c * stride + (size_t)s * acc_apart);
}

/* k columns of a run, `streams` at a time; what is left over goes one by one. */
#define RUN(name, blocks_fn)                                                                                 \
  INLINE void name(const struct foray_cpu_run *n, int first, const int k, const int streams) {               \
    const uint32_t part = n->blocks / (uint32_t)streams;                                                     \
    const struct foray_cpu_group *x = n->x + first;                                                          \
    int64_t *acc = n->acc + (size_t)first * n->stride;                                                       \
    const uint8_t *b = n->data;                                                                              \
    for (uint32_t i = 0; i < part; i++, b += n->block_bytes, acc += 16)                                      \
      blocks_fn(b, part * n->block_bytes, n->groups, x, k, streams, n->k, acc, n->stride,                    \
                (size_t)part * 16);                                                                          \
    b += (uint32_t)(streams - 1) * part * n->block_bytes;                                                    \
    acc += (size_t)(streams - 1) * part * 16;                                                                \
    for (uint32_t i = part * (uint32_t)streams; i < n->blocks; i++, b += n->block_bytes, acc += 16)          \
      blocks_fn(b, 0, n->groups, x, k, 1, n->k, acc, n->stride, 0);                                          \
  }
RUN(columns_q4a, blocks_q4a)
RUN(columns_q8s, blocks_q8s)

/* Four columns are what the registers hold; more are done in passes over a run. */
#define BY_COLUMNS(name, columns_fn)                                                                         \
  static void name(const struct foray_cpu_run *n) {                                                          \
    int done = 0;                                                                                            \
    for (; n->k - done >= 4; done += 4) columns_fn(n, done, 4, 1);                                           \
    switch (n->k - done) {                                                                                   \
    case 1: columns_fn(n, done, 1, 4); break;                                                                \
    case 2: columns_fn(n, done, 2, 2); break;                                                                \
    case 3: columns_fn(n, done, 3, 1); break;                                                                \
    default: break;                                                                                          \
    }                                                                                                        \
  }
BY_COLUMNS(q4a_avx512, columns_q4a)
BY_COLUMNS(q8s_avx512, columns_q8s)

static void prepare(struct foray_a16 a, uint32_t groups, int k, int k_total, struct foray_cpu_group *x) {
  const __m512i bound = _mm512_set1_epi16(1 << FORAY_ABI_A16_BITS), one = _mm512_set1_epi16(1);
  for (uint32_t g = 0; g < groups; g++) {
    struct foray_cpu_group *o = &x[(size_t)g * (size_t)k_total + (size_t)k];
    __m512i m = _mm512_loadu_si512(a.m + (size_t)g * FORAY_ABI_GROUP);
    m = _mm512_max_epi16(_mm512_min_epi16(m, bound), _mm512_sub_epi16(_mm512_setzero_si512(), bound));
    const __m512i hi = _mm512_srai_epi16(_mm512_add_epi16(m, _mm512_set1_epi16(128)), 8);
    const __m512i lo = _mm512_sub_epi16(m, _mm512_slli_epi16(hi, 8));
    _mm256_storeu_si256((__m256i *)o->a.byte.hi, _mm512_cvtepi16_epi8(hi));
    _mm256_storeu_si256((__m256i *)o->a.byte.lo, _mm512_cvtepi16_epi8(lo));
    const int32_t sum = _mm512_reduce_add_epi32(_mm512_madd_epi16(m, one));
    const int32_t sum_hi = _mm512_reduce_add_epi32(_mm512_madd_epi16(hi, one));
    o->sum = sum;
    o->neg_hi = -sum_hi;
    o->neg_lo = 256 * sum_hi - sum;
    o->shift = a.shift[g] & FORAY_ABI_SHIFT_MAX;
  }
}

const struct foray_cpu_gemv foray_cpu_gemv_avx512 = {prepare, q4a_avx512, q8s_avx512};
#else
typedef int foray_cpu_gemv_avx512_unused;
#endif
