/* engine/fmath.h - the few transcendental functions that results depend on, in double, from IEEE operations
 * alone: the C library's own differ between versions and machines. Errors are a few units in the last place.
 * Pure. */
#ifndef FORAY_ENGINE_FMATH_H
#define FORAY_ENGINE_FMATH_H

#include <stdint.h>

double fm_exp(double x);                        /* 0 below -708; +infinity above 709 */
double fm_log(double x);                        /* x > 0 and normal */
void fm_sincos(double x, double *s, double *c); /* |x| < 2^26 */
/* ln of the sum of exp(x[i]), i < n, with *max_out (may be NULL) the largest: 8 interleaved partial sums. NaN
 * counts as -infinity; n >= 1. */
double fm_logsumexp(const float *x, int32_t n, float *max_out);

#endif
