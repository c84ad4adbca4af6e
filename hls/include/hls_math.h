/* include/hls_math.h - the integer functions of docs/numerics.md 1 to 3 and 9 in the HLS subset: leading ones
 * by five or six comparisons, no builtins, tables from gen/foray_tables.h (each use becomes a ROM). */
#ifndef FORAY_HLS_MATH_H
#define FORAY_HLS_MATH_H

#include "gen/foray_tables.h"
#include "include/hls.h"

#define HLS_LOG2E_Q30 INT64_C(1549082005)
#define HLS_LN2_Q32   INT64_C(2977044472)

/* Bits of v: 0 for 0, 64 at most. */
static inline int hls_bits_u(uint64_t v) {
  int n = 0;
  for (int s = 32; s > 0; s >>= 1) {
    HLS_UNROLL
    if (v >> s) {
      v >>= s;
      n += s;
    }
  }
  return n + (v != 0);
}
static inline uint64_t hls_abs(int64_t v) { return v < 0 ? 0 - (uint64_t)v : (uint64_t)v; }

/* The rounding rule: half up; s <= 0 shifts left and saturates; s > 62 gives 0. */
static inline int64_t hls_round(int64_t v, int s) {
  if (s > 62) return 0;
  if (s > 0) return (v >> s) + ((v >> (s - 1)) & 1);
  if (s == 0 || v == 0) return v;
  if (s < -62) return v > 0 ? INT64_MAX : INT64_MIN;
  int64_t r = (int64_t)((uint64_t)v << -s);
  if (r >> -s == v) return r;
  return v > 0 ? INT64_MAX : INT64_MIN;
}

static inline int32_t hls_sat32(int64_t v) {
  if (v > INT32_MAX) return INT32_MAX;
  return v < -INT32_MAX ? -INT32_MAX : (int32_t)v;
}
static inline int32_t hls_clamp_exp(int64_t e) {
  if (e > FORAY_ABI_EXP_MAX) return FORAY_ABI_EXP_MAX;
  return e < -FORAY_ABI_EXP_MAX ? -FORAY_ABI_EXP_MAX : (int32_t)e;
}
static inline int32_t hls_clamp_y(int32_t m) {
  const int32_t top = 1 << FORAY_ABI_Y32_BITS;
  if (m > top) return top;
  return m < -top ? -top : m;
}
static inline int32_t hls_clamp_a(int32_t m) {
  const int32_t top = 1 << FORAY_ABI_A16_BITS;
  if (m > top) return top;
  return m < -top ? -top : m;
}

/* log2 of v > 0, Q32. */
static inline int64_t hls_log2_q32(uint64_t v) {
  if (v == 0) return INT64_MIN / 2;
  int k = hls_bits_u(v) - 1;
  uint64_t frac = (v << (63 - k)) << 1;
  uint32_t i = (uint32_t)(frac >> 54);
  uint64_t in = (frac >> 22) & 0xffffffffu, lo = foray_tab_log2[i], step = foray_tab_log2[i + 1] - lo;
  return ((int64_t)k << 32) + (int64_t)(2 * lo + ((step * in) >> 31));
}

/* 2^(f / 65536), f below 65536, Q30. */
static inline int32_t hls_exp2_frac(uint32_t f) {
  uint32_t i = (f >> 8) & 0xff, in = f & 0xff, lo = foray_tab_exp2[i], step = foray_tab_exp2[i + 1] - lo;
  return (int32_t)(lo + ((step * in + 128) >> 8));
}
/* 2^(-f / 65536), f to 65536, Q30. */
static inline int32_t hls_exp2_neg(uint32_t f) {
  if (f == 0) return 1 << 30;
  if (f >= 65536) return 1 << 29;
  return (hls_exp2_frac(65536 - f) + 1) >> 1;
}

/* 1 / sqrt(v) = r 2^(*e - 31); v = 0 gives r = 0. */
static inline uint32_t hls_rsqrt(uint64_t v, int *e) {
  *e = 0;
  if (v == 0) return 0;
  int k = (hls_bits_u(v) - 1) & ~1;
  uint64_t m = k <= 30 ? v << (30 - k) : v >> (k - 30), d = m - (1u << 30);
  uint32_t i = (uint32_t)(d >> 22), in = (uint32_t)(d & 0x3fffff);
  uint64_t hi = foray_tab_rsqrt[i], r = hi - (((hi - foray_tab_rsqrt[i + 1]) * in) >> 22);
  uint64_t m_r2 = (((m * r) >> 30) * r) >> 28;
  uint64_t better = (r * (((uint64_t)3 << 32) - m_r2)) >> 32;
  *e = -(k / 2);
  return better > 0x80000000u ? 0x80000000u : (uint32_t)better;
}

/* Sine of p quarter turns / 2^30, p to 2^30, Q30. */
static inline int32_t hls_quarter_sine(uint32_t p) {
  uint32_t i = p >> 20;
  if (i >= 1024) return 1 << 30;
  int64_t lo = foray_tab_sin[i], step = foray_tab_sin[i + 1] - lo;
  return (int32_t)(lo + ((step * (int64_t)(p & 0xfffff)) >> 20));
}
static inline void hls_sincos(uint32_t phase, int32_t *s, int32_t *c) {
  uint32_t p = phase & 0x3fffffff;
  int32_t a = hls_quarter_sine(p), b = hls_quarter_sine((1u << 30) - p);
  switch (phase >> 30) {
  case 0: *s = a, *c = b; break;
  case 1: *s = b, *c = -a; break;
  case 2: *s = -a, *c = -b; break;
  default: *s = -b, *c = a; break;
  }
}

/* 1 / (1 + e^-x), x Q16, Q30. */
static inline int32_t hls_sigmoid(int64_t x) {
  const int64_t end = 16 << 16;
  if (x <= -end) return 0;
  if (x >= end) return 1 << 30;
  int64_t a = x < 0 ? -x : x, lo = foray_tab_sigmoid[a >> 10], step = foray_tab_sigmoid[(a >> 10) + 1] - lo;
  int32_t y = (int32_t)(lo + ((step * (a & 1023)) >> 10));
  return x < 0 ? (1 << 30) - y : y;
}

/* Digamma of x > 0, Q16. The recurrence takes at most eight steps. */
static inline int32_t hls_digamma(uint32_t x_q16) {
  uint64_t x = x_q16 ? x_q16 : 1;
  int64_t sub = 0;
  for (int i = 0; i < 8; i++)
    if (x < 8u << 16) {
      sub += (int64_t)(((uint64_t)1 << 48) / x);
      x += 1u << 16;
    }
  int64_t inv = (int64_t)(((uint64_t)1 << 48) / x), inv2 = (inv * inv) >> 32;
  int64_t ln = ((hls_log2_q32(x) - ((int64_t)16 << 32)) >> 4) * (HLS_LN2_Q32 >> 4) >> 24;
  return hls_sat32(hls_round(ln - inv / 2 - inv2 / 12 + (((inv2 * inv2) >> 32) / 120) - sub, 16));
}

#endif
