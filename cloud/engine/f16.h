/* engine/f16.h - IEEE half and bfloat16, exact in both directions (round to nearest even), as F16C does it.
 */
#ifndef FORAY_ENGINE_F16_H
#define FORAY_ENGINE_F16_H

#include <stdint.h>
#include <string.h>

static inline float f32_of_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline uint32_t bits_of_f32(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

static inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023;
  if (e == 31) return f32_of_bits(sign | 0x7f800000u | (m ? 0x400000u | m << 13 : 0));
  if (e) return f32_of_bits(sign | (e + 112) << 23 | m << 13);
  const float v = (float)m * 0x1p-24f; /* subnormal or zero: exact */
  return sign ? -v : v;
}

static inline uint16_t f16_from_f32(float f) {
  const uint32_t u = bits_of_f32(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520 and up round to infinity */
  if (a >= 0x38800000u) {                                 /* normal: drop 13 bits, nearest even */
    const uint32_t r = a - (112u << 23);
    return (uint16_t)(sign | (r + 0xfff + (r >> 13 & 1)) >> 13);
  }
  if (a < 0x33000000u) return (uint16_t)sign; /* below half of the least subnormal */
  const uint32_t shift = 126 - (a >> 23), m = (a & 0x7fffff) | 0x800000;
  const uint32_t q = m >> shift, rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
  return (uint16_t)(sign | (q + (rest > half || (rest == half && (q & 1)))));
}

static inline float bf16_to_f32(uint16_t h) { return f32_of_bits((uint32_t)h << 16); }

#endif
