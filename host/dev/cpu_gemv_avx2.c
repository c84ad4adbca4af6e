/* Matrix products with AVX2: eight rows in the lanes of a register, int16 pairs multiplied and added. In a
 * 16-bit lane of a beat lie the bytes of columns (0, 1) or (2, 3), so even and odd bytes, widened in place,
 * are the pairs (0, 2) and (1, 3): foray_cpu_prepare_pairs puts the mantissas in that order. */
#include "dev/cpu_gemv.h"

#include "model/image.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

enum { PREFETCH = 1024 };

static inline __attribute__((always_inline)) __m256i bcast(const int16_t *p) {
  int32_t v;
  memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}

struct sums {
  __m256i even, odd; /* int64: rows 0 2 4 6 and 1 3 5 7 of a half */
};

static inline __attribute__((always_inline)) void take(struct sums *s, __m256i t, __m256i sc, int32_t shift) {
  const __m128i sh = _mm_cvtsi32_si128(shift);
  __m256i pe = _mm256_mul_epi32(t, sc);
  __m256i po = _mm256_mul_epi32(_mm256_srli_epi64(t, 32), _mm256_srli_epi64(sc, 32));
  s->even = _mm256_add_epi64(s->even, _mm256_sll_epi64(pe, sh));
  s->odd = _mm256_add_epi64(s->odd, _mm256_sll_epi64(po, sh));
}

static inline __attribute__((always_inline)) void put(const struct sums *s, int64_t *out) {
  __m256i a = _mm256_unpacklo_epi64(s->even, s->odd), b = _mm256_unpackhi_epi64(s->even, s->odd);
  _mm256_storeu_si256((__m256i *)out, _mm256_permute2x128_si256(a, b, 0x20));
  _mm256_storeu_si256((__m256i *)(out + 4), _mm256_permute2x128_si256(a, b, 0x31));
}

static inline __attribute__((always_inline)) __m256i codes8(const uint8_t *p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

static inline __attribute__((always_inline)) __m256i madd(__m256i d, __m256i w, const int16_t *a) {
  return _mm256_add_epi32(d, _mm256_madd_epi16(w, bcast(a)));
}

/* Rows 8h .. 8h+7 of a block, k <= 4 columns. */
static inline __attribute__((always_inline)) void half_q4a(const uint8_t *b, uint32_t groups, int h,
                                                           const struct foray_cpu_group *x, const int k,
                                                           int stride, int64_t *acc, size_t acc_stride) {
  const __m256i low = _mm256_set1_epi16(15);
  struct sums s[4];
  for (int c = 0; c < k; c++) s[c].even = s[c].odd = _mm256_setzero_si256();
  for (uint32_t g = 0; g < groups; g++, x += stride) {
    const uint8_t *codes = b + foray_image_codes_at(FORAY_IMAGE_Q4A, g) + 8 * h;
    const uint8_t *beats = b + foray_image_beats_at(FORAY_IMAGE_Q4A, g) + 32 * h;
    __m256i d[4];
    for (int c = 0; c < k; c++) d[c] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      _mm_prefetch((const char *)beats + PREFETCH + 64 * j, _MM_HINT_T0);
      __m256i w = _mm256_load_si256((const __m256i *)(beats + 64 * j));
      __m256i w02 = _mm256_and_si256(w, low), w46 = _mm256_and_si256(_mm256_srli_epi16(w, 4), low);
      __m256i w13 = _mm256_and_si256(_mm256_srli_epi16(w, 8), low), w57 = _mm256_srli_epi16(w, 12);
#pragma GCC unroll 4
      for (int c = 0; c < k; c++) {
        const int16_t *a = x[c].a.pair + 8 * j;
        d[c] = madd(d[c], w02, a);
        d[c] = madd(d[c], w13, a + 2);
        d[c] = madd(d[c], w46, a + 4);
        d[c] = madd(d[c], w57, a + 6);
      }
    }
    __m256i sc = codes8(codes), zp = codes8(codes + 16);
#pragma GCC unroll 4
    for (int c = 0; c < k; c++) {
      __m256i t =
          _mm256_sub_epi32(_mm256_slli_epi32(d[c], 4), _mm256_mullo_epi32(zp, _mm256_set1_epi32(x[c].sum)));
      take(&s[c], t, sc, x[c].shift);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < k; c++) put(&s[c], acc + (size_t)c * acc_stride + 8 * h);
}

static inline __attribute__((always_inline)) void half_q8s(const uint8_t *b, uint32_t groups, int h,
                                                           const struct foray_cpu_group *x, const int k,
                                                           int stride, int64_t *acc, size_t acc_stride) {
  struct sums s[4];
  for (int c = 0; c < k; c++) s[c].even = s[c].odd = _mm256_setzero_si256();
  for (uint32_t g = 0; g < groups; g++, x += stride) {
    const uint8_t *codes = b + foray_image_codes_at(FORAY_IMAGE_Q8S, g) + 8 * h;
    const uint8_t *beats = b + foray_image_beats_at(FORAY_IMAGE_Q8S, g) + 32 * h;
    __m256i d[4];
    for (int c = 0; c < k; c++) d[c] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
      _mm_prefetch((const char *)beats + PREFETCH + 64 * j, _MM_HINT_T0);
      __m256i w = _mm256_load_si256((const __m256i *)(beats + 64 * j));
      __m256i w02 = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), w13 = _mm256_srai_epi16(w, 8);
#pragma GCC unroll 4
      for (int c = 0; c < k; c++) {
        const int16_t *a = x[c].a.pair + 4 * j;
        d[c] = madd(d[c], w02, a);
        d[c] = madd(d[c], w13, a + 2);
      }
    }
    __m256i sc = codes8(codes);
#pragma GCC unroll 4
    for (int c = 0; c < k; c++) take(&s[c], d[c], sc, x[c].shift);
  }
#pragma GCC unroll 4
  for (int c = 0; c < k; c++) put(&s[c], acc + (size_t)c * acc_stride + 8 * h);
}

/* k columns of a run, four at a time, each block once per four columns. */
#define BY_COLUMNS(name, half_fn)                                                                            \
  static void name(const struct foray_cpu_run *n) {                                                          \
    for (uint32_t i = 0; i < n->blocks; i++)                                                                 \
      for (int done = 0; done < n->k;) {                                                                     \
        const uint8_t *b = n->data + i * n->block_bytes;                                                     \
        int64_t *out = n->acc + (size_t)done * n->stride + 16 * (size_t)i;                                   \
        const struct foray_cpu_group *x = n->x + done;                                                       \
        const int k = n->k - done >= 4 ? 4 : n->k - done >= 2 ? 2 : 1;                                       \
        for (int h = 0; h < 2; h++) {                                                                        \
          if (k == 4) half_fn(b, n->groups, h, x, 4, n->k, out, n->stride);                                  \
          if (k == 2) half_fn(b, n->groups, h, x, 2, n->k, out, n->stride);                                  \
          if (k == 1) half_fn(b, n->groups, h, x, 1, n->k, out, n->stride);                                  \
        }                                                                                                    \
        done += k;                                                                                           \
      }                                                                                                      \
  }
BY_COLUMNS(q4a_avx2, half_q4a)
BY_COLUMNS(q8s_avx2, half_q8s)

const struct foray_cpu_gemv foray_cpu_gemv_avx2 = {foray_cpu_prepare_pairs, q4a_avx2, q8s_avx2};
#else
typedef int foray_cpu_gemv_avx2_unused;
#endif
