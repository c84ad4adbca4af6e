/* train/gemm.h - the one matrix product of the trainer: C = A B or C += A B in single precision, with B
 * packed once because most right operands are frozen weights.
 *
 * Two kernels: OpenBLAS sgemm (any machine), and bf16 tiles where the processor has AMX (operands rounded to
 * bf16, sums in f32), which makes training possible on two cores. Both are deterministic for a given kernel;
 * the kernel is part of what a training run records. Neither takes part in any bit-exact contract. */
#ifndef FORAY_TRAIN_GEMM_H
#define FORAY_TRAIN_GEMM_H

#include "core/pool.h"
#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum foray_mm_kind { FORAY_MM_F32 = 0, FORAY_MM_AMX = 1 };

struct foray_mm; /* context: kernel choice, thread team, scratch; one caller at a time */

/* kind AMX falls back to F32 where the processor lacks it (ask foray_mm_kind_of). pool is borrowed. */
enum foray_status foray_mm_open(enum foray_mm_kind kind, struct foray_pool *pool, struct foray_mm **out,
                                struct foray_err *err) FORAY_NODISCARD;
void foray_mm_close(struct foray_mm *g);
enum foray_mm_kind foray_mm_kind_of(const struct foray_mm *g);
struct foray_pool *foray_mm_pool(const struct foray_mm *g);

/* The right operand: k x n. */
struct foray_mm_b {
  int k, n;
  bool transposed; /* F32: data is n x k */
  bool borrowed;   /* F32: data belongs to the caller */
  size_t ld;
  float *f32;      /* F32 kernel */
  uint16_t *tiles; /* AMX kernel: panels of 32 columns, each k/32 steps of two 16x16-pair tiles */
};

/* Packs B = src (k x n, row-major, ld) or, transposed, B = src^T with src n x k. The F32 kernel keeps a
 * pointer to src when `borrow` is set (src must then outlive b), else a copy. */
enum foray_status foray_mm_pack(const struct foray_mm *g, const float *src, int k, int n, size_t ld,
                                bool transposed, bool borrow, struct foray_mm_b *b,
                                struct foray_err *err) FORAY_NODISCARD;
void foray_mm_b_free(struct foray_mm_b *b);

/* C (m x n, ldc) = or += A (m x k, lda) B. FORAY_E_NOMEM only. */
enum foray_status foray_mm_run(struct foray_mm *g, int m, const float *a, size_t lda,
                               const struct foray_mm_b *b, float *c, size_t ldc, bool add,
                               struct foray_err *err) FORAY_NODISCARD;

/* C (k x n) = or += A^T B with A m x k, B m x n, both plain: gradients of small trained matrices. Single
 * precision on every kernel. */
void foray_mm_tn(struct foray_mm *g, int m, int k, int n, const float *a, size_t lda, const float *b,
                 size_t ldb, float *c, size_t ldc, bool add);
/* C (m x n) = or += A (m x k) B (k x n) or A B^T (B n x k), plain single precision, in the calling thread:
 * small matrices inside a parallel loop. */
void foray_mm_small(bool b_transposed, int m, int n, int k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float *c, size_t ldc, bool add);
void foray_mm_small_tn(int m, int n, int k, float alpha, const float *a, size_t lda, const float *b,
                       size_t ldb, float *c, size_t ldc, bool add);

/* ---- AMX kernel (gemm_amx.c), called by gemm.c after the processor was asked ---- */
enum { FORAY_AMX_COLS = 32, FORAY_AMX_STEP = 32, FORAY_AMX_ROWS = 32 };
bool foray_mm_amx_ready(void);
/* Rounds rows [row0, row0+rows) of A (f32, m x k) to bf16 rows of length kp (a multiple of 32, zero padded);
 * rows at or past m are zero. */
void foray_mm_amx_round(const float *a, size_t lda, int m, int k, int kp, int row0, int rows, uint16_t *out);
void foray_mm_amx_pack_panel(const float *src, size_t ld, bool transposed, int k, int kp, int n, int col0,
                             uint16_t *out);
/* One panel of 32 columns times all rows (mp rows of bf16, a multiple of 32); writes m x min(32, n-col0) of
 * C. */
void foray_mm_amx_panel(const uint16_t *a, int m, int mp, int kp, const uint16_t *panel, float *c, size_t ldc,
                        int cols, bool add);

#endif
