#include "core/imath.h"

#include "gen/foray_tables.h"

int64_t foray_log2_q32(uint64_t v) {
  if (v == 0) return INT64_MIN / 2;
  int k = 63 - __builtin_clzll(v);
  uint64_t m = v << (63 - k) << 1; /* fraction of the mantissa, Q64 */
  uint32_t i = (uint32_t)(m >> 54);
  uint64_t f = (m >> 22) & 0xffffffffu; /* Q32 inside the interval */
  uint64_t a = foray_tab_log2[i], b = foray_tab_log2[i + 1];
  uint64_t t = 2 * a + (((b - a) * f) >> 31); /* Q32 */
  return ((int64_t)k << 32) + (int64_t)t;
}

int32_t foray_exp2_frac_q30(uint32_t f) {
  f &= 0xffff;
  uint32_t i = f >> 8, r = f & 0xff;
  uint32_t a = foray_tab_exp2[i], b = foray_tab_exp2[i + 1];
  return (int32_t)(a + (((b - a) * r + 128) >> 8));
}

int32_t foray_exp2_neg_q30(uint32_t f) {
  if (f == 0) return 1 << 30;
  if (f >= 65536) return 1 << 29;
  return (foray_exp2_frac_q30(65536 - f) + 1) >> 1;
}

uint32_t foray_rsqrt(uint64_t v, int *e) {
  *e = 0;
  if (v == 0) return 0;
  int k = (63 - __builtin_clzll(v)) & ~1;               /* v = m * 2^k, m in [1, 4) */
  uint64_t m = k <= 30 ? v << (30 - k) : v >> (k - 30); /* Q30 in [2^30, 2^32) */
  uint64_t d = m - (1u << 30);
  uint32_t i = (uint32_t)(d >> 22), f = (uint32_t)(d & 0x3fffff);
  uint64_t a = foray_tab_rsqrt[i], b = foray_tab_rsqrt[i + 1];
  uint64_t r = a - (((a - b) * f) >> 22); /* Q30 in (1/2, 1], error < 1.5e-6 */
  /* One Newton step: r (3 - m r^2) / 2. */
  uint64_t mr = (m * r) >> 30;   /* Q30, <= 2 */
  uint64_t mr2 = (mr * r) >> 28; /* Q32, close to 1 */
  uint64_t h = 3 * ((uint64_t)1 << 32) - mr2;
  uint64_t r1 = (r * h) >> 32; /* Q31 of the halved product: r * h / 2, Q30 + 1 */
  if (r1 > 0x80000000u) r1 = 0x80000000u;
  *e = -(k / 2);
  return (uint32_t)r1;
}

static int32_t quarter_sin(uint32_t p) { /* p in [0, 2^30]: quarter turn */
  uint32_t i = p >> 20, f = p & 0xfffff;
  if (i >= 1024) return 1 << 30;
  int64_t a = foray_tab_sin[i], b = foray_tab_sin[i + 1];
  return (int32_t)(a + (((b - a) * (int64_t)f) >> 20));
}

void foray_sincos_q30(uint32_t phase, int32_t *s, int32_t *c) {
  uint32_t q = phase >> 30, p = phase & 0x3fffffff;
  int32_t a = quarter_sin(p), b = quarter_sin((1u << 30) - p);
  *s = q == 0 ? a : q == 1 ? b : q == 2 ? -a : -b;
  *c = q == 0 ? b : q == 1 ? -a : q == 2 ? -b : a;
}

int32_t foray_sigmoid_q30(int64_t x) {
  if (x <= -(16 << 16)) return 0;
  if (x >= 16 << 16) return 1 << 30;
  int64_t a = x < 0 ? -x : x; /* behind the limits: the smallest int64 has no negative */
  uint32_t i = (uint32_t)(a >> 10), f = (uint32_t)(a & 1023);
  int64_t t0 = foray_tab_sigmoid[i], t1 = foray_tab_sigmoid[i + 1];
  int32_t y = (int32_t)(t0 + (((t1 - t0) * (int64_t)f) >> 10));
  return x < 0 ? (1 << 30) - y : y;
}

/* Recurrence up to x >= 8, then ln x - 1/(2x) - 1/(12 x^2) + 1/(120 x^4). A few divisions, per token only. */
int32_t foray_digamma_q16(uint32_t x_q16) {
  uint64_t x = x_q16 ? x_q16 : 1;
  int64_t sub = 0; /* Q32 */
  while (x < 8u << 16) {
    sub += (int64_t)(((uint64_t)1 << 48) / x);
    x += 1u << 16;
  }
  int64_t inv = (int64_t)(((uint64_t)1 << 48) / x); /* 1/x, Q32, <= 2^29 */
  int64_t inv2 = (inv * inv) >> 32;
  int64_t ln = ((foray_log2_q32(x) - ((int64_t)16 << 32)) >> 4) * (2977044472LL >> 4) >> 24;
  int64_t r = ln - inv / 2 - inv2 / 12 + (((inv2 * inv2) >> 32) / 120) - sub;
  return foray_sat32(foray_rshift_round(r, 16));
}

/* base^(-2i/dim) = 2^-(2i/dim * log2 base); the power of two by products of 2^(-2^-k), each the square root
 * of the one before. Q62 throughout. */
uint64_t foray_rope_freq_q64(uint32_t base, uint32_t dim, uint32_t i) {
  typedef unsigned __int128 u128;
  if (base < 2 || dim < 2) return 0;
  int k = 31 - __builtin_clz(base);
  u128 m = (u128)base << (62 - k); /* [1, 2) Q62 */
  uint64_t frac = 0;               /* log2, Q56 */
  for (int bit = 55; bit >= 0; bit--) {
    m = (m * m) >> 62;
    if (m >> 63) {
      m >>= 1;
      frac |= (uint64_t)1 << bit;
    }
  }
  uint64_t l2 = ((uint64_t)k << 56) + frac; /* < 32 in Q56: fits 61 bits */
  u128 x = (u128)l2 * 2 * i / dim;          /* Q56 */
  int whole = (int)(x >> 56);
  if (whole > 60) return 0;
  uint64_t f = (uint64_t)x & (((uint64_t)1 << 56) - 1);
  u128 r = (u128)1 << 62, step = (u128)1 << 61; /* 2^-1, Q62 */
  for (int bit = 55; bit >= 0; bit--) {
    /* step = sqrt(step), Q62 */
    u128 v = step << 62, lo = 0;
    for (int b = 62; b >= 0; b--) {
      u128 t = lo | ((u128)1 << b);
      if (t * t <= v) lo = t;
    }
    step = lo;
    if ((f >> bit) & 1) r = (r * step) >> 62;
  }
  const uint64_t inv2pi_q66 = 11743562013128004906u; /* 1 / (2 pi) * 2^66, rounded: 0.159 * 2^66 */
  r = (r * inv2pi_q66) >> 62;                        /* Q66 */
  return (uint64_t)(r >> (whole + 2));
}
