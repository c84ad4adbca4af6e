#include "engine/fmath.h"

#include <math.h>
#include <string.h>

static double of_bits(uint64_t u) {
  double d;
  memcpy(&d, &u, 8);
  return d;
}

double fm_exp(double x) {
  if (!(x >= -708.0)) return 0.0;
  if (x > 709.0) return INFINITY;
  /* x = n ln 2 + r, |r| <= 0.347; the first part of ln 2 has trailing zeros, so n * part is exact. */
  const double t = x * 1.4426950408889634 + 6755399441055744.0, n = t - 6755399441055744.0;
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0; /* 1/13! and down: the next term is below 2^-60 */
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * (r * r) + r + 1.0;
  return p * of_bits((uint64_t)((int64_t)n + 1023) << 52);
}

double fm_log(double x) {
  uint64_t u;
  memcpy(&u, &x, 8);
  int64_t e = (int64_t)(u >> 52) - 1023;
  double m = of_bits((u & 0xfffffffffffffULL) | 0x3ff0000000000000ULL);
  if (m > 1.4142135623730951) {
    m = m * 0.5;
    e++;
  }
  const double z = (m - 1.0) / (m + 1.0), z2 = z * z; /* |z| < 0.172; ln m = 2 atanh z */
  double p = 0.0;
  for (int k = 23; k >= 3; k -= 2) p = (p + 1.0 / (double)k) * z2;
  return ((double)e * 1.90821492927058770002e-10 + 2.0 * (z * p + z)) +
         (double)e * 6.93147180369123816490e-01;
}

void fm_sincos(double x, double *s, double *c) {
  /* x = n pi/2 + r; three parts of pi/2, the first two with 33 bits, so that n times them is exact. */
  const double t = x * 0.6366197723675814 + 6755399441055744.0, n = t - 6755399441055744.0;
  const double r = ((x - n * 1.57079632673412561417e+00) - n * 6.07710050630396597660e-11) -
                   n * 2.02226624879595063154e-21;
  const double z = r * r;
  double a = 0.0, b = 0.0; /* Taylor, from the last term down: |r| <= 0.786, r^19/19! < 2^-63 */
  for (int k = 18; k >= 2; k -= 2) {
    a = (1.0 + a) * (-z / (double)(k * (k + 1)));
    b = (1.0 + b) * (-z / (double)((k - 1) * k));
  }
  const double sr = r + r * a, cr = 1.0 + b;
  switch ((int64_t)n & 3) {
  case 0: *s = sr, *c = cr; break;
  case 1: *s = cr, *c = -sr; break;
  case 2: *s = -sr, *c = -cr; break;
  default: *s = -cr, *c = sr; break;
  }
}

double fm_logsumexp(const float *x, int32_t n, float *max_out) {
  float m = -INFINITY;
  for (int32_t i = 0; i < n; i++)
    if (x[i] > m) m = x[i];
  if (max_out) *max_out = m;
  if (m == -INFINITY || m == INFINITY) return (double)m;
  double part[8] = {0};
  for (int32_t i = 0; i < n; i++) part[i & 7] += fm_exp((double)x[i] - (double)m);
  return (double)m +
         fm_log(((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7])));
}
