/* engine/kernels.h - the operations of a forward pass, each with one canonical definition that every
 * instruction set follows to the bit. Internal to the engine.
 *
 * Notation: fma(a, b, c) is the correctly rounded a * b + c; every other float operation rounds on its own;
 * sums go in the order that is written. "Lanes" are 16 virtual ones: one zmm, two ymm, four q registers or a
 * plain array.
 *
 *   quantise   per group of 32 activations: A = max |x|; when A < 1e-30, d = 0 and q = 0; else d = A / 127
 * and q = nearest-even(x * (127 / A)). isum = sum of q. gemm       y[row] starts at 0; for each group g of 32
 * columns in ascending order: idot = sum of q * w (exact integers, w signed or unsigned as the type says) y =
 * fma(a * d, idot, y), where a is the weight group's scale  (two halves of 16 columns each for Q6_K) y =
 * fma(b, d * isum, y), where b is the weight group's offset (types that have one) Rows are in lanes, so there
 * is no horizontal sum. F32/F16/BF16 weights: y = fma(w, x, y), column by column. rmsnorm    lane[i % 16] =
 * fma(x[i], x[i], lane[i % 16]); lanes added as 8+8, 4+4, 2+2, 1+1; r = 1 / sqrt(sum / n + eps); y = (x * r)
 * * w attention  score = (sum over the head's dimensions, fma in ascending order) * scale; e = exp(score -
 * max); sum: lane[pos % 16] += e, lanes added as above; out = (fma(e, v, out) in ascending position) * (1 /
 * sum) silu, gelu x / (1 + exp(-x));  x / (1 + exp(-2u)), u = 0.79788456 * (x + 0.044715 x^3)  (the tanh
 * form) */
#ifndef FORAY_ENGINE_KERNELS_H
#define FORAY_ENGINE_KERNELS_H

#include "core/cpu.h"

#include <stddef.h>
#include <stdint.h>

enum { EK_ROWS = 16, EK_GROUP = 32, EK_SUPER = 256, EK_PAGE = 64, EK_BLOCK_MAX = 16 };

/* How a repacked matrix is stored. */
enum ek_format {
  EK_Q4_0,
  EK_Q4_1,
  EK_Q5_0,
  EK_Q5_1,
  EK_Q8_0,
  EK_Q4_K,
  EK_Q5_K,
  EK_Q6_K,
  EK_F32,
  EK_F16,
  EK_BF16,
  EK_FORMATS
};

/* A weight matrix, rows x cols, in blocks of 16 rows (the last one padded with zero weights). A block is
 * block_bytes long and 64-byte aligned: meta (scales), padding up to meta_bytes, then the payload.
 *   payload of a group of 32 columns: nibbles [4][64]: byte r*4+j of chunk c = row r, low nibble column 8c+j,
 * high nibble column 8c+4+j; 5-bit types add [64]: bit i of byte r*4+j = bit 4 of column 4i+j; 6-bit types
 * add [2][64]: bits 2f..2f+1 of byte r*4+j of part h = bits 4..5 of column 16h+4f+j; 8-bit: [8][64], byte
 * r*4+j of chunk i = column 4i+j, plus 128. meta: Q4_0 Q5_0 Q8_0: f16 d[groups][16]; Q4_1 Q5_1: f16 {d[16],
 * m[16]}[groups]; Q4_K Q5_K: { f16 d[16], m[16] (= -dmin); u8 {S[16], M[16]}[8] }[cols/256]; Q6_K: { f16
 * d[16]; i8 s[16][16] }[cols/256] F32, F16, BF16: no meta, payload [cols][16]. */
struct ek_mat {
  enum ek_format format;
  int32_t rows, cols;
  size_t meta_bytes, block_bytes;
  const uint8_t *data;
};
static inline int ek_blocks(const struct ek_mat *m) { return (int)((m->rows + EK_ROWS - 1) / EK_ROWS); }

/* Activations of a block of `width` columns (positions), quantised: q[groups][width][32] and, each
 * [groups][width], d, s = d * isum, n32 = -isum, and n16[groups][width][2] = minus the sums of the halves.
 * xf[cols][width] for float weights. */
struct ek_act {
  int width; /* 1..EK_BLOCK_MAX */
  int col0;  /* first column of the block in the output's table of columns */
  int8_t *q;
  float *d, *s;
  int32_t *n32, *n16;
  float *xf;
};

/* One head's view of a sequence's keys or values: page p holds positions 64p..64p+63 at base[p] + offset (in
 * f16 elements). Keys are [head_dim][64], values are [64][head_dim]. */
struct ek_kv {
  uint16_t *const *pages;
  size_t k_offset, v_offset;
};

/* Scratch that one thread needs in gemm. */
enum { EK_SCRATCH_BYTES = 40 * 1024 };

struct ek_ops {
  enum foray_isa isa;
  int block_width; /* widest column block that gemm takes well; <= EK_BLOCK_MAX */
  /* Groups [g0, g1) of one column x[0..k) into column `at` of an act block; act->q and act->xf may be NULL
   * (not wanted). For xf, groups are runs of 32 values, the last one may be shorter. */
  void (*quantise)(const float *x, int k, const struct ek_act *act, int at, int g0, int g1);
  /* y[x[i].col0 + c][row] for the rows of blocks [b0, b1), and each column c of the n act blocks. scratch:
   * EK_SCRATCH_BYTES, 64-byte aligned, of the calling thread. */
  void (*gemm)(const struct ek_mat *w, const struct ek_act *x, int n, float *const *y, int b0, int b1,
               void *scratch);
  void (*rmsnorm)(float *y, const float *x, const float *w, int n, float eps);
  void (*silu_mul)(float *y, const float *g, const float *u, int n); /* n a multiple of 16 */
  void (*gelu_mul)(float *y, const float *g, const float *u, int n);
  /* heads query heads [heads][head_dim] that share one kv head, over positions [lo, hi]; scores:
   * [heads][stride] scratch, stride >= 64 * (pages touched). head_dim a multiple of 16. */
  void (*attention)(float *out, const float *q, int heads, int head_dim, const struct ek_kv *kv, int lo,
                    int hi, float scale, float *scores, size_t stride);
  /* Stores one position's key (transposed) and value as f16. */
  void (*kv_put)(const float *k, const float *v, int head_dim, uint16_t *kpage, uint16_t *vpage, int slot);
};

/* The table of an instruction set; falls back to the next lower one that was compiled in. */
const struct ek_ops *ek_ops_get(enum foray_isa isa);
extern const struct ek_ops ek_ops_scalar;
#if defined(__x86_64__)
extern const struct ek_ops ek_ops_avx2, ek_ops_avx512, ek_ops_amx;
#elif defined(__aarch64__)
extern const struct ek_ops ek_ops_neon;
#endif

#endif
