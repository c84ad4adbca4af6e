/* engine/vec_avx2.h - 16 virtual lanes in two ymm registers: a holds lanes 0..7, b lanes 8..15. */
#ifndef FORAY_ENGINE_VEC_AVX2_H
#define FORAY_ENGINE_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef struct {
  __m256 a, b;
} vf;
typedef struct {
  __m256i a, b;
} vi;
typedef vi vb;

static inline vf vf_load(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void vf_store(float *p, vf x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
static inline vf vf_set1(float x) { return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline vf vf_add(vf x, vf y) { return (vf){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
static inline vf vf_sub(vf x, vf y) { return (vf){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
static inline vf vf_mul(vf x, vf y) { return (vf){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
static inline vf vf_div(vf x, vf y) { return (vf){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
static inline vf vf_fma(vf x, vf y, vf z) {
  return (vf){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline vf vf_max(vf x, vf y) { return (vf){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
static inline vf vf_min(vf x, vf y) { return (vf){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
static inline float vf_hmax(vf x) {
  const __m256 m = _mm256_max_ps(x.a, x.b);
  const __m128 h = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
  const __m128 g = _mm_max_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_max_ss(g, _mm_shuffle_ps(g, g, 1)));
}
static inline vf vf_abs(vf x) {
  const __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return (vf){_mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m)};
}
static inline vf vf_zero_below(vf v, vf x, float limit) {
  const __m256 t = _mm256_set1_ps(limit);
  return (vf){_mm256_andnot_ps(_mm256_cmp_ps(x.a, t, _CMP_LT_OQ), v.a),
              _mm256_andnot_ps(_mm256_cmp_ps(x.b, t, _CMP_LT_OQ), v.b)};
}
static inline __m256 scale2_half(__m256 a, __m256 n) {
  return _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
}
static inline vf vf_scale2(vf v, vf n) { return (vf){scale2_half(v.a, n.a), scale2_half(v.b, n.b)}; }
static inline vf vf_from_f16(const uint16_t *p) {
  return (vf){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
              _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
static inline void vf_to_f16(uint16_t *p, vf x) {
  _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline __m256 bf16_half(const uint16_t *p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
static inline vf vf_from_bf16(const uint16_t *p) { return (vf){bf16_half(p), bf16_half(p + 8)}; }
static inline vf vf_from_u8(const uint8_t *p) {
  return (vf){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p))),
              _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8))))};
}
static inline vf vf_from_i8(const int8_t *p) {
  return (vf){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))),
              _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8))))};
}
static inline vi vi_set1(int32_t x) { return (vi){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
static inline vf vi_to_f(vi x) { return (vf){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
static inline int32_t vf_low_bytes(int8_t *p, vf x) {
  uint32_t t[16];
  _mm256_storeu_si256((__m256i *)t, _mm256_castps_si256(x.a));
  _mm256_storeu_si256((__m256i *)(t + 8), _mm256_castps_si256(x.b));
  int32_t sum = 0;
  for (int l = 0; l < 16; l++) {
    p[l] = (int8_t)(t[l] & 255);
    sum += p[l];
  }
  return sum;
}
static inline vb vb_load(const uint8_t *p) {
  return (vb){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 32))};
}
static inline vb vb_and1(vb x, uint8_t m) {
  const __m256i k = _mm256_set1_epi8((char)m);
  return (vb){_mm256_and_si256(x.a, k), _mm256_and_si256(x.b, k)};
}
#define vb_shl_and(x, n, m) vb_and1((vb){_mm256_slli_epi16((x).a, (n)), _mm256_slli_epi16((x).b, (n))}, (m))
#define vb_shr_and(x, n, m) vb_and1((vb){_mm256_srli_epi16((x).a, (n)), _mm256_srli_epi16((x).b, (n))}, (m))
static inline vb vb_or(vb x, vb y) { return (vb){_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
/* a | ((h << n) & m), a | ((h >> n) & m) */
#define vb_or_shl(a, h, n, m) vb_or((a), vb_shl_and((h), (n), (m)))
#define vb_or_shr(a, h, n, m) vb_or((a), vb_shr_and((h), (n), (m)))
/* Pairs stay below 2 * 63 * 127 < 2^15 for weights of up to 6 bits, so maddubs never saturates. */
static inline vi vi_dot(vi acc, vb w, const int8_t *x) {
  int32_t x4;
  memcpy(&x4, x, 4);
  const __m256i xv = _mm256_set1_epi32(x4), one = _mm256_set1_epi16(1);
  return (vi){_mm256_add_epi32(acc.a, _mm256_madd_epi16(_mm256_maddubs_epi16(w.a, xv), one)),
              _mm256_add_epi32(acc.b, _mm256_madd_epi16(_mm256_maddubs_epi16(w.b, xv), one))};
}
/* 8-bit weights: |w| <= 128 and |x| <= 127 keep a pair at 32512, below saturation. No offset is left. */
#define VEC_HIGH16        0
#define vi_add_16th(a, b) ((void)(b), (a))
#define VEC_OFF8          0
static inline __m256i dot8_half(__m256i acc, __m256i w, __m256i xv) {
  const __m256i s = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
  const __m256i p = _mm256_maddubs_epi16(_mm256_abs_epi8(s), _mm256_sign_epi8(xv, s));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(p, _mm256_set1_epi16(1)));
}
static inline vi vi_dot8(vi acc, vb w, const int8_t *x) {
  int32_t x4;
  memcpy(&x4, x, 4);
  const __m256i xv = _mm256_set1_epi32(x4);
  return (vi){dot8_half(acc.a, w.a, xv), dot8_half(acc.b, w.b, xv)};
}
#define vec_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)

#endif
