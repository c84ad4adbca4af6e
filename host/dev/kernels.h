/* dev/kernels.h - the op kernels of a device in host memory. host/dev/program.c fetches, checks and
 * sequences; a table of these does the arithmetic. `ref` supplies plain ones (ref_*.c, the definition); `cpu`
 * copies foray_ref_kernels and replaces what it does faster, with the same bits.
 *
 * All pointers are inside checked memory and 64-byte aligned unless said otherwise; shapes satisfy
 * docs/abi.md. Vector contents are NOT checked: a program may read scratch that it never wrote or wrote as
 * another type, so a kernel must be defined for any bits (mantissas beyond their bound give unspecified but
 * equal results: each kernel clamps mantissas and shifts as the views below do). */
#ifndef FORAY_DEV_KERNELS_H
#define FORAY_DEV_KERNELS_H

#include "dev/device.h"

/* A column of an A16 vector: value[i] = m[i] * 2^(shift[i / 32] + exp). |m| <= 2^14, shift 0..15. */
struct foray_a16 {
  int32_t *exp;   /* in the header unit */
  int16_t *m;     /* n */
  uint8_t *shift; /* n / 32 */
};
/* A column of a Y32 or R32 vector: value[i] = m[i] * 2^exp. |m| <= 2^30; all zero: exp = FORAY_ABI_EXP_ZERO.
 */
struct foray_y32 {
  int32_t *exp;
  int32_t *m;
};

struct foray_matrix {
  uint32_t qtype, rows, cols;
  int32_t exp, bias_exp;
  const uint16_t *mant; /* rows padded to 16 */
  const int32_t *bias;  /* NULL without; rows padded to 16 */
  const uint8_t *data;  /* row blocks of layout.block_bytes */
  struct foray_dev_matrix layout;
};

/* KV records of one layer: head h, position p at base + (h * max_pos + p) * record. base 64-byte aligned,
 * records 16. */
struct foray_kv {
  uint8_t *base;
  uint32_t max_pos, record, head_dim, heads;
};

/* What the exit unit keeps of a stream of logits; order-free, so any split over threads and lanes gives the
 * same. */
struct foray_exit_unit {
  uint32_t rows;
  int32_t top_logit[FORAY_ABI_TOPK]; /* falling; ties by rising id; missing ones -INT32_MAX */
  uint32_t top_id[FORAY_ABI_TOPK];
  /* sum of e^logit: logit * log2(e) = i + f; bin i (offset 256, clamped to 0..511) sums 2^f in Q30 and f *
   * 2^f in Q30 */
  uint64_t bin_z[512], bin_fz[512];
  int64_t best_key; /* largest (logit / T, Q16) + noise */
  uint32_t best_id; /* its id, the lowest among equals */
  int32_t best_logit;
};

struct foray_sampling {
  bool on;           /* false: key = logit */
  uint32_t inv_temp; /* Q16 */
  uint64_t seed;
  uint32_t position; /* of the token being chosen */
};

struct foray_kernels {
  void (*embed)(void *arg, const struct foray_matrix *w, uint32_t row, struct foray_y32 dst);
  /* n <= FORAY_ABI_NORM_LIMIT */
  void (*rmsnorm)(void *arg, const struct foray_desc_rmsnorm *d, const int32_t *gamma, struct foray_y32 src,
                  struct foray_a16 dst);
  /* One pass over the weights for ncols (1..8) columns. dst has rows padded to 16 elements. */
  void (*gemv)(void *arg, const struct foray_matrix *w, int ncols, const struct foray_a16 *src,
               const struct foray_y32 *dst);
  /* Logits (Q16) of rows 0 .. used - 1 for ncols columns; logits[c] has used places. */
  void (*head)(void *arg, const struct foray_matrix *w, uint32_t used, int ncols, const struct foray_a16 *src,
               int32_t *const *logits);
  /* Feeds n logits to a cleared exit unit; ids NULL: id = row. */
  void (*exit_stream)(void *arg, const int32_t *logits, const uint32_t *ids, uint32_t n,
                      const struct foray_sampling *s, struct foray_exit_unit *u);
  void (*rope)(void *arg, const struct foray_desc_rope *d, const uint64_t *freq, uint32_t position,
               struct foray_y32 v);
  void (*kv_put)(void *arg, const struct foray_kv *kv, uint32_t position, struct foray_y32 k,
                 struct foray_y32 v);
  /* Column c attends to positions 0 .. position[c]. All columns of a pass at once, so that records are read
   * once. */
  void (*attn)(void *arg, const struct foray_desc_attn *d, const struct foray_kv *kv, int ncols,
               const uint32_t *position, const struct foray_y32 *q, const struct foray_a16 *dst);
  void (*silu_mul)(void *arg, uint32_t n, struct foray_y32 gate, struct foray_y32 up, struct foray_a16 dst);
  void (*quant)(void *arg, uint32_t n, struct foray_y32 src, struct foray_a16 dst);
  void (*add)(void *arg, uint32_t n, struct foray_y32 acc, struct foray_y32 src);
};

/* arg is not used by these. */
extern const struct foray_kernels foray_ref_kernels;

/* Plain helpers that define the common steps (ref_vector.c); a fast kernel may call them or equal them. */

/* int64 values v[i] * 2^exp to a Y32 column: the largest magnitude gets FORAY_ABI_Y32_BITS bits. v is
 * overwritten. */
void foray_ref_norm30(int64_t *v, uint32_t n, int32_t exp, struct foray_y32 dst);
/* int64 values v[i] * 2^exp[i / 32] to an A16 column. exp_step 0: one exponent for all. */
void foray_ref_to_a16(const int64_t *v, uint32_t n, const int32_t *exp, int exp_step, struct foray_a16 dst);
static inline int32_t foray_clamp_exp(int64_t e) {
  return e > FORAY_ABI_EXP_MAX ? FORAY_ABI_EXP_MAX : e < -FORAY_ABI_EXP_MAX ? -FORAY_ABI_EXP_MAX : (int32_t)e;
}
static inline int32_t foray_clamp_y(int32_t m) {
  const int32_t b = 1 << FORAY_ABI_Y32_BITS;
  return m > b ? b : m < -b ? -b : m;
}
static inline int16_t foray_clamp_a(int16_t m) {
  const int16_t b = 1 << FORAY_ABI_A16_BITS;
  return m > b ? b : m < -b ? (int16_t)-b : m;
}

#endif
