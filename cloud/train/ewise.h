/* train/ewise.h - the element-wise parts of a block and their derivatives, on rows of a batch. Parallel over
 * rows; each row is computed by one thread, so results do not depend on the thread count. */
#ifndef FORAY_TRAIN_EWISE_H
#define FORAY_TRAIN_EWISE_H

#include "core/pool.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* y = x / rms(x) * w, rows of n. */
void foray_ew_rmsnorm(struct foray_pool *p, int m, int n, float eps, const float *x, const float *w,
                      float *y);
/* dx += d(rmsnorm)/dx . dy; dw (n, may be NULL) += sum over rows. */
void foray_ew_rmsnorm_back(struct foray_pool *p, int m, int n, float eps, const float *x, const float *w,
                           const float *dy, float *dx, float *dw);
/* h = silu(g) * u over rows of n */
void foray_ew_silu_mul(struct foray_pool *p, int m, int n, const float *g, const float *u, float *h);
/* Replaces g by d loss/d g and u by d loss/d u, given dh. */
void foray_ew_silu_mul_back(struct foray_pool *p, int m, int n, float *g, float *u, const float *dh);
/* The same with the tanh form of GELU in place of SiLU. */
void foray_ew_gelu_mul(struct foray_pool *p, int m, int n, const float *g, const float *u, float *h);
void foray_ew_gelu_mul_back(struct foray_pool *p, int m, int n, float *g, float *u, const float *dh);
/* y = x with a share `drop` of its elements set to zero and the others divided by 1 - drop; which ones
 * follows from (key, pass, index) alone. add: y += the same of x (the transpose, for gradients). */
void foray_ew_dropout(struct foray_pool *p, size_t n, float drop, uint64_t key, uint32_t pass, const float *x,
                      float *y, bool add);
/* out[i] += sum over m rows of x[., i], rows in order */
void foray_ew_col_sum(struct foray_pool *p, int m, int n, const float *x, float *out);
/* y += x, n values in all */
void foray_ew_add(struct foray_pool *p, size_t n, float *y, const float *x);
/* x[i] = exp(x[i] - shift), returns the sum (pairwise enough for thousands of terms: sixteen lanes). */
float foray_ew_exp_sum(float *x, int n, float shift);
float foray_ew_max(const float *x, int n);

/* Rotates the first dim elements of each head; sin/cos by position from tab (see foray_ew_rope_table); sign
 * -1 rotates back (the transpose). neox: pairs (i, i + dim/2), else (2i, 2i+1). */
void foray_ew_rope(float *x, int heads, int head_dim, int dim, int neox, const float *tab, float sign);
/* tab[2i], tab[2i+1] = cos, sin of scale * position * base^(-2i/dim) / factor[i], dim/2 pairs; factor may be
 * NULL. */
void foray_ew_rope_table(int dim, float base, float scale, const float *factor, int position, float *tab);

#endif
