#include "core/noise.h"

#include "core/imath.h"
#include "core/philox.h"
#include "gen/foray_tables.h"

enum { DOMAIN = 0x464F5241 };
#define LN2_Q32 2977044472LL

/* E = -ln(u) as mantissa: below u = 1/2 the absolute precision of log2 is enough; above it E is close to
 * v = 1 - u, and v * (-ln(1 - v) / v) keeps the relative precision that the second logarithm needs. */
int32_t foray_gumbel_from_word_q16(uint32_t w) {
  uint64_t u = 2 * (uint64_t)w + 1; /* u / 2^33, odd, never 0 or 1 */
  uint64_t e;                       /* -ln(u), Q62 or less: value = e / 2^frac */
  int frac;
  if (w & 0x80000000u) {
    uint64_t v = ((uint64_t)1 << 33) - u; /* in (0, 2^32): v / 2^33 < 1/2 */
    uint32_t i = (uint32_t)(v >> 23), f = (uint32_t)(v & 0x7fffff);
    uint64_t a = foray_tab_nlog[i], b = foray_tab_nlog[i + 1];
    uint64_t slope = a + (((b - a) * f) >> 23); /* Q30 in [1, 1.39) */
    e = v * slope;                              /* < 2^32 * 2^30.5 */
    frac = 63;
  } else {
    e = (uint64_t)(((int64_t)33 << 32) - foray_log2_q32(u)); /* log2 units, Q32, in (1, 33] */
    e = ((e >> 8) * (uint64_t)LN2_Q32) >> 6;                 /* Q24 * Q32, then Q50, below 2^55 */
    frac = 50;
  }
  int64_t l = ((int64_t)frac << 32) - foray_log2_q32(e); /* -log2(E), Q32, |l| <= 33 */
  return (int32_t)foray_rshift_round((l >> 4) * (LN2_Q32 >> 4), 28 + 28 - 16);
}

int32_t foray_gumbel_q16(uint64_t seed, uint32_t position, uint32_t token) {
  struct foray_philox r = foray_philox4x32(seed, token >> 2, position, DOMAIN, 0);
  return foray_gumbel_from_word_q16(r.v[token & 3]);
}

void foray_gumbel_fill_q16(uint64_t seed, uint32_t position, uint32_t first, size_t n, int32_t *out) {
  for (size_t k = 0; k < n;) {
    uint32_t token = first + (uint32_t)k;
    struct foray_philox r = foray_philox4x32(seed, token >> 2, position, DOMAIN, 0);
    for (uint32_t j = token & 3; j < 4 && k < n; j++) out[k++] = foray_gumbel_from_word_q16(r.v[j]);
  }
}
