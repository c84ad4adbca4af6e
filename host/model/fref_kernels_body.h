/* model/fref_kernels_body.h - included once by each fref_kernels*.c, which defines
 *   VL (lanes), MR x NR (rows x positions of a register tile), FMA(a, b, c), KERNELS (name of the table). */
#include "model/fref_kernels.h"

#include <string.h>

typedef float vec __attribute__((vector_size(VL * 4)));

static inline vec load(const float *p) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

static inline float lanes(vec v) {
  float s = 0;
  for (int i = 0; i < VL; i++) s += v[i];
  return s;
}

static float dot(const float *a, const float *b, size_t n) {
  vec acc = {0};
  size_t i = 0;
  for (; i + VL <= n; i += VL) acc = FMA(load(a + i), load(b + i), acc);
  float s = lanes(acc);
  for (; i < n; i++) s += a[i] * b[i];
  return s;
}

static void axpy(float *y, float a, const float *x, size_t n) {
  vec va = (vec){0} + a;
  size_t i = 0;
  for (; i + VL <= n; i += VL) {
    vec r = FMA(va, load(x + i), load(y + i));
    memcpy(y + i, &r, sizeof r);
  }
  for (; i < n; i++) y[i] += a * x[i];
}

/* A full tile: the sums of MR x NR elements side by side. */
static inline __attribute__((always_inline)) void tile(const float *w, const float *x, size_t k, float *y,
                                                       size_t ldy) {
  vec acc[MR][NR];
  memset(acc, 0, sizeof acc);
  size_t i = 0;
  for (; i + VL <= k; i += VL) {
    vec xv[NR];
#pragma GCC unroll 8
    for (int c = 0; c < NR; c++) xv[c] = load(x + (size_t)c * k + i);
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++) {
      vec wv = load(w + (size_t)r * k + i);
#pragma GCC unroll 8
      for (int c = 0; c < NR; c++) acc[r][c] = FMA(wv, xv[c], acc[r][c]);
    }
  }
  for (int r = 0; r < MR; r++)
    for (int c = 0; c < NR; c++) {
      float s = lanes(acc[r][c]);
      for (size_t t = i; t < k; t++) s += w[(size_t)r * k + t] * x[(size_t)c * k + t];
      y[(size_t)c * ldy + (size_t)r] = s;
    }
}

static void mm(const float *w, size_t rows, const float *x, size_t n, size_t k, float *y, size_t ldy) {
  size_t r = 0, p;
  for (; r + MR <= rows; r += MR) {
    for (p = 0; p + NR <= n; p += NR) tile(w + r * k, x + p * k, k, y + p * ldy + r, ldy);
    for (; p < n; p++)
      for (size_t q = r; q < r + MR; q++) y[p * ldy + q] = dot(w + q * k, x + p * k, k);
  }
  for (; r < rows; r++)
    for (p = 0; p < n; p++) y[p * ldy + r] = dot(w + r * k, x + p * k, k);
}

const struct foray_fref_kernels KERNELS = {mm, dot, axpy};
