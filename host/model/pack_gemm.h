/* model/pack_gemm.h - float matrix product of the packer's calibration. Internal to pack*.c.
 *
 * Every element of the result is one sum over k in rising order, one multiplication and one addition rounded
 * each, cut into runs of FORAY_PACK_GEMM_KC that are added in order: the same bits for any ISA and thread
 * count.
 */
#ifndef FORAY_MODEL_PACK_GEMM_H
#define FORAY_MODEL_PACK_GEMM_H

#include "core/pool.h"
#include <stddef.h>

enum { FORAY_PACK_GEMM_KC = 256, FORAY_PACK_GEMM_MT = 128, FORAY_PACK_GEMM_NT = 256 };

struct foray_pack_gemm; /* scratch for the threads of one pool */

/* pool may be NULL. NULL: out of memory. */
struct foray_pack_gemm *foray_pack_gemm_open(struct foray_pool *pool);
void foray_pack_gemm_close(struct foray_pack_gemm *g);

/* C[m x n] (row stride ldc) = beta C + alpha A B, beta 0 or 1, where A(i,k) = a[i * a_row + k * a_col] and
 * B(k,j) = b[k * b_row + j * b_col]. upper_only: tiles that lie wholly below the diagonal are left alone. C
 * must not overlap A or B. */
struct foray_pack_gemm_args {
  size_t m, n, k;
  float alpha, beta;
  const float *a;
  size_t a_row, a_col;
  const float *b;
  size_t b_row, b_col;
  float *c;
  size_t ldc;
  int upper_only;
};
void foray_pack_gemm_run(struct foray_pack_gemm *g, const struct foray_pack_gemm_args *args);

/* One tile from packed panels, internal: pa holds k columns of MR rows per panel, pb k rows of NR columns.
 * acc is MT x NT. */
struct foray_pack_gemm_kernel {
  size_t mr, nr;
  /* c[mr x nr] (stride ldc) += pa^T pb over k */
  void (*run)(size_t k, const float *pa, const float *pb, float *c, size_t ldc);
};
extern const struct foray_pack_gemm_kernel foray_pack_gemm_kernel_generic;
#if defined(__x86_64__)
extern const struct foray_pack_gemm_kernel foray_pack_gemm_kernel_avx2;
extern const struct foray_pack_gemm_kernel foray_pack_gemm_kernel_avx512;
#endif

#endif
