/* dev/cpu_gemv.h - the inner products of the `cpu` device: one row block (16 rows) of a packed matrix times
 * up to FORAY_CPU_COLS activation columns, exact in int64 (docs/numerics.md, docs/image.md):
 *
 *   acc[k][r] = sum over groups g of  sc[r,g] * (16 * sum q*a - zp[r,g] * sum a) << shift[k,g]     Q4A
 *   acc[k][r] = sum over groups g of  sc[r,g] * (sum q*a) << shift[k,g]                            Q8S
 *
 * Every version gives the same integers: nothing rounds, and the packer has checked that nothing overflows.
 * Shared by all: the columns are prepared once per op (foray_cpu_gemv_prepare), then row blocks may be done
 * in any order by any thread. All functions are pure; nothing is owned. */
#ifndef FORAY_DEV_CPU_GEMV_H
#define FORAY_DEV_CPU_GEMV_H

#include "core/cpu.h"
#include <stddef.h>
#include <stdint.h>

enum { FORAY_CPU_COLS = 8 };

/* One group (32 columns of the matrix) of one activation vector. VNNI multiplies bytes, so the mantissa is
 * split as a = 256 * hi + lo, hi signed and lo unsigned; AVX2 multiplies pairs of int16. */
struct foray_cpu_group {
  union {
    struct {
      int8_t hi[32];
      uint8_t lo[32];
    } byte;
    /* pairs (8c, 8c+2) (8c+1, 8c+3) (8c+4, 8c+6) (8c+5, 8c+7): as the bytes of a beat fall apart */
    int16_t pair[32];
  } a;
  int32_t sum;   /* of the 32 mantissas */
  int32_t bias;  /* -128 * sum of hi: undoes the offset that makes int8 weights unsigned */
  int64_t shift; /* 0..FORAY_A16_SHIFT_MAX */
};

/* What a kernel wants its columns to look like. */
enum foray_cpu_form { FORAY_CPU_FORM_BYTE, FORAY_CPU_FORM_PAIR };

/* x[g * k_total + k] = group g of column k. mant: groups * 32 mantissas, shift: groups. */
void foray_cpu_gemv_prepare(enum foray_cpu_form form, const int16_t *mant, const uint8_t *shift,
                            uint32_t groups, int k, int k_total, struct foray_cpu_group *x);

/* block: 16 rows, 64-byte aligned; x: groups * k groups; acc: k rows of 16, acc_stride apart (in int64). k in
 * 1..FORAY_CPU_COLS. Reads (prefetches, never faults) a little beyond the block. */
typedef void foray_cpu_gemv_fn(const uint8_t *block, uint32_t groups, const struct foray_cpu_group *x, int k,
                               int64_t *acc, size_t acc_stride);

struct foray_cpu_gemv {
  enum foray_cpu_form form;
  foray_cpu_gemv_fn *q4a, *q8s;
};
/* The kernels of an instruction set, or of the best one below it that this build has. */
const struct foray_cpu_gemv *foray_cpu_gemv_of(enum foray_isa isa);

extern const struct foray_cpu_gemv foray_cpu_gemv_scalar;
#if defined(__x86_64__)
extern const struct foray_cpu_gemv foray_cpu_gemv_avx2, foray_cpu_gemv_avx512;
#endif

#endif
