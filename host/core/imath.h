/* core/imath.h - the integer functions of the numeric contract (docs/numerics.md 2 and 3). Every device,
 * RTL included, gives the same bits as these; each line states its error against the exact function.
 * Tables: gen/foray_tables.h, made by hw/abi. All functions are pure and total: no input is undefined. */
#ifndef FORAY_CORE_IMATH_H
#define FORAY_CORE_IMATH_H

#include <stdint.h>

/* The one rounding rule: floor((v + 2^(s-1)) / 2^s), ties upward; s <= 0 is a left shift, saturating at
 * int64; s >= 63 gives 0 (-1 only where the rule does: v = INT64_MIN, s = 63, is 0 too by half-up). */
static inline int64_t foray_rshift_round(int64_t v, int s) {
  if (s > 62) return 0;
  if (s > 0) return (v >> s) + ((v >> (s - 1)) & 1);
  if (s == 0 || v == 0) return v;
  if (s < -62) return v > 0 ? INT64_MAX : INT64_MIN;
  int64_t r = (int64_t)((uint64_t)v << -s);
  return r >> -s == v ? r : v > 0 ? INT64_MAX : INT64_MIN;
}
/* Number of bits of |v| (0 for 0, 64 for INT64_MIN). */
static inline int foray_bitlen64(int64_t v) {
  uint64_t a = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
  return a ? 64 - __builtin_clzll(a) : 0;
}
static inline int32_t foray_sat32(int64_t v) {
  return v > INT32_MAX ? INT32_MAX : v < -INT32_MAX ? -INT32_MAX : (int32_t)v;
}

/* log2 of v > 0, Q32 (v = 0 gives INT64_MIN / 2). Absolute error < 2^-22. */
int64_t foray_log2_q32(uint64_t v);
/* 2^(-f / 2^16) for f in [0, 65536], Q30. Absolute error < 1.0e-6. */
int32_t foray_exp2_neg_q30(uint32_t f_q16);
/* 2^(f / 2^16) for f in [0, 65535], Q30 in [1, 2). Relative error < 1.0e-6. */
int32_t foray_exp2_frac_q30(uint32_t f_q16);
/* Mantissa r (Q31, in [2^30, 2^31]) and exponent with 1/sqrt(v) = r * 2^(*e - 31), v > 0.
 * Relative error < 2^-28. v = 0 gives r = 0. */
uint32_t foray_rsqrt(uint64_t v, int *e);
/* Sine and cosine of a phase in turns, Q32 (2^32 = one turn). Q30, absolute error < 4e-7. */
void foray_sincos_q30(uint32_t phase, int32_t *s, int32_t *c);
/* 1 / (1 + e^-x) for x in Q16, Q30. Absolute error < 3.1e-6; exactly 0 and 1 beyond +-16. */
int32_t foray_sigmoid_q30(int64_t x_q16);
/* Digamma of x > 0 (Q16 in and out). Absolute error < 4e-5 for x >= 1/16. */
int32_t foray_digamma_q16(uint32_t x_q16);
/* base^(-2 i / dim) / (2 pi) in turns per position, Q64 (base >= 2, i < dim / 2). Relative error < 2^-40;
 * phases follow as the upper half of position * freq mod 2^64. Integer throughout, so that every host makes
 * the same table. */
uint64_t foray_rope_freq_q64(uint32_t base, uint32_t dim, uint32_t i);

#endif
