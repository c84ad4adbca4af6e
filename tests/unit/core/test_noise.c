/* The integer functions against long double, and the noise against its distribution. */
#include "unit/harness.h"

#include "core/imath.h"
#include "core/noise.h"
#include "core/philox.h"
#include "gen/foray_tables.h"

#include <math.h>
#include <stdlib.h>

#define LD(x) ((long double)(x))

TEST(rounding_is_half_up_and_saturates) {
  CU_ASSERT_EQUAL(foray_rshift_round(5, 1), 3);
  CU_ASSERT_EQUAL(foray_rshift_round(-5, 1), -2);
  CU_ASSERT_EQUAL(foray_rshift_round(-6, 2), -1);
  CU_ASSERT_EQUAL(foray_rshift_round(INT64_MAX, 62), 2);
  CU_ASSERT_EQUAL(foray_rshift_round(INT64_MIN, 62), -2);
  CU_ASSERT_EQUAL(foray_rshift_round(INT64_MIN, 63), 0);
  CU_ASSERT_EQUAL(foray_rshift_round(3, -2), 12);
  CU_ASSERT_EQUAL(foray_rshift_round(3, -62), INT64_MAX);
  CU_ASSERT_EQUAL(foray_rshift_round(-3, -100), INT64_MIN);
  CU_ASSERT_EQUAL(foray_rshift_round(0, -100), 0);
  CU_ASSERT_EQUAL(foray_bitlen64(INT64_MIN), 64);
  CU_ASSERT_EQUAL(foray_bitlen64(-1), 1);
  CU_ASSERT_EQUAL(foray_bitlen64(0), 0);
}

/* Each table entry is the exact value rounded to nearest (one half unit, plus long double's own error). */
TEST(tables_are_exact) {
  long double worst = 0;
  for (int i = 0; i <= 1024; i++) {
    worst = fmaxl(worst, fabsl(log2l(1 + i / 1024.0L) * 0x1p31L - foray_tab_log2[i]));
    worst = fmaxl(worst, fabsl(sinl(M_PIl / 2 * i / 1024) * 0x1p30L - foray_tab_sin[i]));
    worst = fmaxl(worst, fabsl(1 / (1 + expl(-i / 64.0L)) * 0x1p30L - foray_tab_sigmoid[i]));
  }
  for (int i = 0; i <= 512; i++) {
    long double v = i / 1024.0L;
    worst = fmaxl(worst, fabsl((i ? -log1pl(-v) / v : 1) * 0x1p30L - foray_tab_nlog[i]));
  }
  for (int i = 0; i <= 256; i++) worst = fmaxl(worst, fabsl(exp2l(i / 256.0L) * 0x1p30L - foray_tab_exp2[i]));
  for (int i = 0; i <= 768; i++)
    worst = fmaxl(worst, fabsl(1 / sqrtl(1 + i / 256.0L) * 0x1p30L - foray_tab_rsqrt[i]));
  CU_ASSERT(worst <= 0.5001L);
}

TEST(functions_keep_their_stated_error) {
  long double e_log = 0, e_exp = 0, e_rs = 0, e_sin = 0, e_sig = 0, e_psi = 0;
  uint64_t x = 88172645463325252u;
  for (int k = 0; k < 400000; k++) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    uint64_t v = x >> (k % 64);
    if (v) {
      e_log = fmaxl(e_log, fabsl(foray_log2_q32(v) / 0x1p32L - log2l(LD(v))));
      int e;
      uint32_t r = foray_rsqrt(v, &e);
      e_rs = fmaxl(e_rs, fabsl(ldexpl(r, e - 31) * sqrtl(LD(v)) - 1));
    }
    uint32_t f = (uint32_t)x & 0xffff;
    e_exp = fmaxl(e_exp, fabsl(foray_exp2_neg_q30(f) / 0x1p30L - exp2l(-(f / 0x1p16L))));
    int32_t s, c;
    foray_sincos_q30((uint32_t)x, &s, &c);
    long double a = 2 * M_PIl * (uint32_t)x / 0x1p32L;
    e_sin = fmaxl(e_sin, fmaxl(fabsl(s / 0x1p30L - sinl(a)), fabsl(c / 0x1p30L - cosl(a))));
    int64_t q = (int64_t)(x % (40 << 16)) - (20 << 16);
    e_sig = fmaxl(e_sig, fabsl(foray_sigmoid_q30(q) / 0x1p30L - 1 / (1 + expl(-q / 0x1p16L))));
  }
  CU_ASSERT(e_log < 0x1p-22L);
  CU_ASSERT(e_rs < 0x1p-28L);
  CU_ASSERT(e_exp < 1e-6L);
  CU_ASSERT(e_sin < 4e-7L);
  CU_ASSERT(e_sig < 3.1e-6L);
  for (uint32_t q = 4096; q < 60u << 16; q += 977) { /* psi = derivative of lgamma, by a central difference */
    long double t = q / 0x1p16L, h = 1e-4L;
    e_psi = fmaxl(e_psi, fabsl(foray_digamma_q16(q) / 0x1p16L - (lgammal(t + h) - lgammal(t - h)) / (2 * h)));
  }
  CU_ASSERT(e_psi < 4e-5L);
  CU_ASSERT_EQUAL(foray_exp2_neg_q30(0), 1 << 30);
  CU_ASSERT_EQUAL(foray_sigmoid_q30(INT64_MAX), 1 << 30);
  CU_ASSERT_EQUAL(foray_sigmoid_q30(-(16 << 16)), 0);
}

TEST(rope_frequencies_are_exact_to_2_pow_minus_40) {
  const uint32_t bases[] = {10000, 100000, 1000000, 500000};
  long double worst = 0;
  for (int b = 0; b < 4; b++)
    for (uint32_t i = 0; i < 64; i++) {
      long double want = powl(bases[b], -(2.0L * i) / 128) / (2 * M_PIl);
      worst = fmaxl(worst, fabsl(foray_rope_freq_q64(bases[b], 128, i) / 0x1p64L / want - 1));
    }
  CU_ASSERT(worst < 0x1p-40L);
}

static long double gumbel_exact(uint32_t w) { return -logl(-logl((2 * LD(w) + 1) / 0x1p33L)); }

TEST(gumbel_is_exact_to_0_6_units) {
  long double worst = 0;
  int32_t lo = INT32_MAX, hi = INT32_MIN;
  for (uint64_t w = 0; w < (uint64_t)1 << 32; w += 4001) {
    int32_t g = foray_gumbel_from_word_q16((uint32_t)w);
    worst = fmaxl(worst, fabsl(g - gumbel_exact((uint32_t)w) * 65536));
  }
  for (uint32_t k = 0; k < 100000; k++) { /* both tails, and around the switch at u = 1/2 */
    const uint32_t ws[] = {k, 0xffffffffu - k, 0x80000000u + k, 0x7fffffffu - k};
    for (int j = 0; j < 4; j++) {
      int32_t g = foray_gumbel_from_word_q16(ws[j]);
      worst = fmaxl(worst, fabsl(g - gumbel_exact(ws[j]) * 65536));
      if (g < lo) lo = g;
      if (g > hi) hi = g;
    }
  }
  CU_ASSERT(worst < 0.6L);
  CU_ASSERT_EQUAL(hi, FORAY_GUMBEL_Q16_MAX);
  CU_ASSERT_EQUAL(lo, FORAY_GUMBEL_Q16_MIN);
}

TEST(gumbel_fill_equals_single_values) {
  int32_t out[61];
  for (uint32_t first = 0; first < 9; first++) {
    foray_gumbel_fill_q16(77, 5, first, 61, out);
    for (uint32_t k = 0; k < 61; k++) CU_ASSERT_EQUAL(out[k], foray_gumbel_q16(77, 5, first + k));
  }
  CU_ASSERT_NOT_EQUAL(foray_gumbel_q16(77, 5, 3), foray_gumbel_q16(77, 6, 3));
  CU_ASSERT_NOT_EQUAL(foray_gumbel_q16(77, 5, 3), foray_gumbel_q16(78, 5, 3));
}

/* Gumbel-max must draw from softmax: chi-square over 40,000 positions of a fixed logit vector with 16 tokens.
 * 15 degrees of freedom: 37.7 is the 0.1 % point. The seed is fixed, so the test is deterministic. */
TEST(gumbel_max_draws_from_softmax) {
  enum { V = 16, N = 40000 };
  double logit[V], p[V], z = 0;
  int count[V] = {0};
  for (int i = 0; i < V; i++) logit[i] = 2.5 * sin(i * 1.7), z += exp(logit[i]);
  for (int i = 0; i < V; i++) p[i] = exp(logit[i]) / z;
  for (uint32_t pos = 0; pos < N; pos++) {
    int64_t best = INT64_MIN;
    int arg = 0;
    for (int i = 0; i < V; i++) {
      int64_t k = llround(logit[i] * 65536) + foray_gumbel_q16(2026, pos, (uint32_t)i * 331);
      if (k > best) best = k, arg = i;
    }
    count[arg]++;
  }
  double chi = 0;
  for (int i = 0; i < V; i++) chi += (count[i] - N * p[i]) * (count[i] - N * p[i]) / (N * p[i]);
  CU_ASSERT(chi < 37.7);
}
