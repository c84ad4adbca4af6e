/* The reference kernels of host/dev behind plain arguments, for the benches of tests/rtl (C++).
 * Vectors are scratchpad images as docs/numerics.md 2 lays them out; matrices as docs/image.md. */
#ifndef FORAY_TESTS_RTL_MODEL_H
#define FORAY_TESTS_RTL_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct model_matrix {
  uint32_t qtype, rows, cols;
  int32_t exp, bias_exp;
  int bias;
  const uint8_t *bytes; /* mantissas, bias, row blocks */
  /* set by model_matrix_layout: offsets in bytes, sizes */
  uint64_t bias_at, data_at, size, block_bytes;
  uint32_t rows_pad, groups;
};
struct model_attn {
  uint32_t head_dim, heads, kv_heads, scale, max_pos;
  int32_t scale_exp;
};

int model_matrix_layout(struct model_matrix *m);
/* Units of a column. */
uint32_t model_a16_units(uint32_t n);
uint32_t model_y32_units(uint32_t n);
uint32_t model_kv_record(uint32_t head_dim);
/* src, dst: column c at src + c * units * 64. */
void model_gemv(const struct model_matrix *m, int ncols, uint8_t *src, uint8_t *dst);
/* logits: ncols rows of `used`. */
void model_head(const struct model_matrix *m, uint32_t used, int ncols, uint8_t *src, int32_t *logits);
void model_kv_put(uint8_t *kv, uint32_t max_pos, uint32_t head_dim, uint32_t heads, uint32_t position,
                  uint8_t *k, uint8_t *v);
void model_attn(const struct model_attn *a, uint8_t *kv, int ncols, uint32_t first_position, uint8_t *q,
                uint8_t *dst);

#ifdef __cplusplus
}
#endif
#endif
