/* dev/cpu_gemv.h - the inner products of the `cpu` device: row blocks (16 rows each) of a packed matrix times
 * up to FORAY_ABI_COLS_MAX activation columns, exact in int64 (docs/numerics.md, docs/image.md):
 *
 *   acc[k][r] = sum over groups g of  sc[r,g] * (16 * sum q*a - zp[r,g] * sum a) << shift[k,g]     Q4A
 *   acc[k][r] = sum over groups g of  sc[r,g] * (sum q*a) << shift[k,g]                            Q8S
 *
 * Every version gives the same integers: nothing rounds, and |a| <= 2^14, shift <= 15 keep each step inside
 * its type. The columns are prepared once per op (prepare), then runs of row blocks may be
 * done in any order by any thread. All functions are pure; nothing is owned. */
#ifndef FORAY_DEV_CPU_GEMV_H
#define FORAY_DEV_CPU_GEMV_H

#include "core/cpu.h"
#include "dev/kernels.h"

/* One group (32 columns of the matrix) of one activation vector. VNNI multiplies bytes, so a mantissa is
 * split as a = 256 * hi + lo with both signed; AVX2 multiplies pairs of int16. */
struct foray_cpu_group {
  union {
    struct {
      int8_t hi[32], lo[32];
    } byte;
    /* pairs (8c, 8c+2) (8c+1, 8c+3) (8c+4, 8c+6) (8c+5, 8c+7): as the bytes of a beat fall apart */
    int16_t pair[32];
  } a;
  int32_t sum;            /* of the 32 mantissas */
  int32_t neg_hi, neg_lo; /* minus the sums of hi and lo, each in int16 */
  int32_t shift;          /* 0..15 */
};

struct foray_cpu_run {
  const uint8_t *data;             /* first row block, 64-byte aligned */
  uint64_t block_bytes;            /* foray_dev_matrix.block_bytes */
  uint32_t blocks;                 /* of this run */
  uint32_t groups;                 /* of a row */
  const struct foray_cpu_group *x; /* groups * k */
  int k;                           /* columns, 1..FORAY_ABI_COLS_MAX */
  int64_t *acc;                    /* acc[c * stride + 16 * block + row] */
  size_t stride;                   /* at least 16 * blocks */
};
/* Prefetches (never faults) a little beyond the run. */
typedef void foray_cpu_gemv_fn(const struct foray_cpu_run *run);

/* x[g * k_total + k] = group g of column k, in the form that this table's kernels take. Clamps mantissas,
 * takes shifts modulo 16, as the reference does. */
typedef void foray_cpu_prepare_fn(struct foray_a16 a, uint32_t groups, int k, int k_total,
                                  struct foray_cpu_group *x);

struct foray_cpu_gemv {
  foray_cpu_prepare_fn *prepare;
  foray_cpu_gemv_fn *q4a, *q8s;
};
/* The kernels of an instruction set, or of the best one below it that this build has. */
const struct foray_cpu_gemv *foray_cpu_gemv_of(enum foray_isa isa);

/* As bytes (scalar, AVX-512, AMX) or as pairs (AVX2). */
foray_cpu_prepare_fn foray_cpu_prepare_bytes, foray_cpu_prepare_pairs;

extern const struct foray_cpu_gemv foray_cpu_gemv_scalar;
#if defined(__x86_64__)
extern const struct foray_cpu_gemv foray_cpu_gemv_avx2, foray_cpu_gemv_avx512;
#endif

#endif
