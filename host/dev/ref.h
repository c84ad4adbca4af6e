/* dev/ref.h - the plain kernels, one file a family; signatures as in dev/kernels.h. `arg` is ignored. */
#ifndef FORAY_DEV_REF_H
#define FORAY_DEV_REF_H

#include "dev/kernels.h"

/* Work space of a thread inside one call: 64-bit values of the vector being made. */
extern _Thread_local int64_t foray_ref_work[FORAY_ABI_COLUMNS_LIMIT];

void foray_ref_embed(void *arg, const struct foray_matrix *w, uint32_t row, struct foray_y32 dst);
void foray_ref_rmsnorm(void *arg, const struct foray_desc_rmsnorm *d, const int32_t *gamma,
                       struct foray_y32 src, struct foray_a16 dst);
void foray_ref_gemv(void *arg, const struct foray_matrix *w, int ncols, const struct foray_a16 *src,
                    const struct foray_y32 *dst);
void foray_ref_head(void *arg, const struct foray_matrix *w, uint32_t used, int ncols,
                    const struct foray_a16 *src, int32_t *const *logits);
void foray_ref_exit_stream(void *arg, const int32_t *logits, const uint32_t *ids, uint32_t n,
                           const struct foray_sampling *s, struct foray_exit_unit *u);
void foray_ref_rope(void *arg, const struct foray_desc_rope *d, const uint64_t *freq, uint32_t position,
                    struct foray_y32 v);
void foray_ref_kv_put(void *arg, const struct foray_kv *kv, uint32_t position, struct foray_y32 k,
                      struct foray_y32 v);
void foray_ref_attn(void *arg, const struct foray_desc_attn *d, const struct foray_kv *kv, int ncols,
                    const uint32_t *position, const struct foray_y32 *q, const struct foray_a16 *dst);
void foray_ref_silu_mul(void *arg, uint32_t n, struct foray_y32 gate, struct foray_y32 up,
                        struct foray_a16 dst);
void foray_ref_quant(void *arg, uint32_t n, struct foray_y32 src, struct foray_a16 dst);
void foray_ref_add(void *arg, uint32_t n, struct foray_y32 acc, struct foray_y32 src);

/* y of one row and column before rounding to a vector (docs/numerics.md 5): |result| < 2^62, in units of
 * 2^(src exp + w exp + foray_ref_gemv_t). */
int64_t foray_ref_row(const struct foray_matrix *w, uint32_t row, struct foray_a16 src);
/* t = 4 + ceil(log2(groups)). */
int foray_ref_gemv_t(uint32_t groups);

#endif
