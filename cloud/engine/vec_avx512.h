/* engine/vec_avx512.h - 16 virtual lanes in one zmm register. */
#ifndef FORAY_ENGINE_VEC_AVX512_H
#define FORAY_ENGINE_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef __m512 vf;
typedef __m512i vi;
typedef __m512i vb;

static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline float vf_hmax(vf a) { return _mm512_reduce_max_ps(a); }
static inline vf vf_abs(vf a) { return _mm512_abs_ps(a); }
static inline vf vf_zero_below(vf a, vf x, float limit) {
  return _mm512_mask_mov_ps(a, _mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_LT_OQ), _mm512_setzero_ps());
}
static inline vf vf_scale2(vf a, vf n) {
  return _mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
}
static inline vf vf_from_f16(const uint16_t *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline void vf_to_f16(uint16_t *p, vf a) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline vf vf_from_bf16(const uint16_t *p) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline vf vf_from_u8(const uint8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline vf vf_from_i8(const int8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline vf vi_to_f(vi a) { return _mm512_cvtepi32_ps(a); }
static inline int32_t vf_low_bytes(int8_t *p, vf a) {
  __m128i b = _mm512_cvtepi32_epi8(_mm512_castps_si512(a));
  _mm_storeu_si128((__m128i *)p, b);
  return _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(b));
}
static inline vb vb_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline vb vb_and1(vb a, uint8_t m) { return _mm512_and_si512(a, _mm512_set1_epi8((char)m)); }
#define vb_shr_and(a, n, m) _mm512_and_si512(_mm512_srli_epi16((a), (n)), _mm512_set1_epi8((char)(m)))
#define vb_or_shl(a, h, n, m)                                                                                \
  _mm512_ternarylogic_epi64((a), _mm512_slli_epi16((h), (n)), _mm512_set1_epi8((char)(m)), 0xf8)
#define vb_or_shr(a, h, n, m)                                                                                \
  _mm512_ternarylogic_epi64((a), _mm512_srli_epi16((h), (n)), _mm512_set1_epi8((char)(m)), 0xf8)
static inline vi vi_dot(vi acc, vb w, const int8_t *x) {
  int32_t x4;
  memcpy(&x4, x, 4);
  return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x4));
}
/* a + b / 16, b a multiple of 16 (VEC_HIGH16: 8-bit weights up to 240 do not overflow vi_dot) */
#define VEC_HIGH16 1
static inline vi vi_add_16th(vi a, vi b) { return _mm512_add_epi32(a, _mm512_srai_epi32(b, 4)); }
#define VEC_OFF8         128
#define vi_dot8(a, w, x) vi_dot(a, w, x)
#define vec_prefetch(p)  _mm_prefetch((const char *)(p), _MM_HINT_T0)

#endif
