/* model/pack_gemm_kernel.h - body of one micro kernel; included with GEMM_LANES, GEMM_MR, GEMM_NV and
 * GEMM_NAME set. Vector extensions, so each file's own instruction set decides what it becomes. */
#include "model/pack_gemm.h"

#include <string.h>

typedef float gemm_vec __attribute__((vector_size(GEMM_LANES * 4)));
enum { GEMM_NR = GEMM_LANES * GEMM_NV };

/* All loops over the accumulators are unrolled in full, so that they live in registers and never in memory.
 */
static void run(size_t k, const float *pa, const float *pb, float *c, size_t ldc) {
  gemm_vec acc[GEMM_MR][GEMM_NV];
#pragma GCC unroll 16
  for (int r = 0; r < GEMM_MR; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < GEMM_NV; v++) acc[r][v] = (gemm_vec){0};
  }
  for (size_t i = 0; i < k; i++, pa += GEMM_MR, pb += GEMM_NR) {
    gemm_vec b[GEMM_NV];
#pragma GCC unroll 4
    for (int v = 0; v < GEMM_NV; v++) memcpy(&b[v], pb + v * GEMM_LANES, sizeof b[v]);
#pragma GCC unroll 16
    for (int r = 0; r < GEMM_MR; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < GEMM_NV; v++) acc[r][v] += pa[r] * b[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < GEMM_MR; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < GEMM_NV; v++) {
      gemm_vec t;
      memcpy(&t, c + (size_t)r * ldc + v * GEMM_LANES, sizeof t);
      t += acc[r][v];
      memcpy(c + (size_t)r * ldc + v * GEMM_LANES, &t, sizeof t);
    }
  }
}

const struct foray_pack_gemm_kernel GEMM_NAME = {GEMM_MR, GEMM_NR, run};
