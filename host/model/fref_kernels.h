/* model/fref_kernels.h - the three inner loops of the float reference. One element of a product is always
 * summed in the same way (lane l takes every VL-th term, then the lanes are added in order, then the tail),
 * whatever the tile it is computed in; VL differs between instruction sets. Not for others. */
#ifndef FORAY_MODEL_FREF_KERNELS_H
#define FORAY_MODEL_FREF_KERNELS_H

#include <stddef.h>

struct foray_fref_kernels {
  /* y[p * ldy + r] = sum over i of w[r * k + i] * x[p * k + i], for rows x n elements */
  void (*mm)(const float *w, size_t rows, const float *x, size_t n, size_t k, float *y, size_t ldy);
  float (*dot)(const float *a, const float *b, size_t n);
  void (*axpy)(float *y, float a, const float *x, size_t n); /* y += a * x */
};

extern const struct foray_fref_kernels foray_fref_portable, foray_fref_avx2, foray_fref_avx512;
/* The best ones for foray_cpu_isa(). */
const struct foray_fref_kernels *foray_fref_kernels(void);

#endif
