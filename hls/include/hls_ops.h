/* include/hls_ops.h - the op kernels. Arguments that all have:
 *
 *   heap     the memory behind the m_axi port, in words
 *   scratch  the scratchpad: on-chip memory inside foray_top, a second port where an op is a kernel of its
 * own desc     the op's descriptor, 16 words of hw/abi, already checked (hls_validate) c0, c1   columns [c0,
 * c1) of the scratch vectors; c1 <= FORAY_HLS_COLS pos0     position of column 0
 *
 * foray_hls_<op> is a kernel of its own (ports of its own when it is the top); hls_<op> is the same inside
 * foray_top, where large buffers are shared between ops. */
#ifndef FORAY_HLS_OPS_H
#define FORAY_HLS_OPS_H

#include "include/hls_vec.h"

/* ---- matrix products ---- */

/* Activations of a pass, taken from scratch once: mantissas clamped, the sum of each group. */
struct hls_act {
  int16_t m[FORAY_HLS_COLS][HLS_N];
  uint8_t shift[FORAY_HLS_COLS][FORAY_HLS_GROUPS];
  int32_t sum[FORAY_HLS_COLS][FORAY_HLS_GROUPS];
  int32_t exp[FORAY_HLS_COLS];
};
struct hls_product {
  struct hls_act act;
  int64_t out[FORAY_HLS_COLS][FORAY_HLS_ROWS];
};

/* Where the parts of a matrix lie, in words from its start. */
struct hls_layout {
  uint32_t groups, rows_pad;
  uint64_t bias, data, block; /* block: words of 16 rows */
};
static inline struct hls_layout hls_layout_of(uint32_t qtype, uint32_t rows, uint32_t cols, int bias) {
  struct hls_layout l;
  l.groups = cols / FORAY_ABI_GROUP;
  l.rows_pad = (rows + 15) & ~15u;
  l.bias = (uint64_t)(l.rows_pad + 31) / 32 * HLS_BEAT;
  l.data = l.bias + (bias ? (uint64_t)l.rows_pad / 16 * HLS_BEAT : 0);
  l.block = qtype == FORAY_QTYPE_Q4A ? ((uint64_t)(l.groups + 1) / 2 + 4 * (uint64_t)l.groups) * HLS_BEAT
                                     : ((uint64_t)(l.groups + 3) / 4 + 8 * (uint64_t)l.groups) * HLS_BEAT;
  return l;
}

void hls_act_load(const foray_word *scratch, uint32_t src, uint32_t cols, uint32_t c0, uint32_t c1,
                  struct hls_act *a);
/* Exact sums of 16 rows whose block begins at word `at`, for n columns. */
void hls_q4_block(const foray_word *heap, uint64_t at, uint32_t groups, uint32_t n, const struct hls_act *a,
                  int64_t acc[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK]);
void hls_q8_block(const foray_word *heap, uint64_t at, uint32_t groups, uint32_t n, const struct hls_act *a,
                  int64_t acc[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK]);
/* t of docs/numerics.md 5. */
static inline int hls_product_shift(uint32_t groups) { return 4 + hls_bits_u(groups - 1); }

/* qtype: as in desc; an argument, so that a build for one type holds one type. */
void hls_gemv(const foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
              uint32_t qtype, uint32_t c0, uint32_t c1, struct hls_product *p);
void foray_hls_gemv_q4(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                       uint32_t c0, uint32_t c1);
void foray_hls_gemv_q8(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                       uint32_t c0, uint32_t c1);

/* ---- attention ---- */

/* kv: unit of the context's KV memory. */
void foray_hls_kv_put(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                      uint32_t c0, uint32_t c1, uint32_t pos0, uint32_t kv, uint32_t max_pos);
void foray_hls_attention(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                         uint32_t c0, uint32_t c1, uint32_t pos0, uint32_t kv, uint32_t max_pos);

/* ---- vectors ---- */

void foray_hls_rmsnorm(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                       uint32_t c0, uint32_t c1);
void foray_hls_rope(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                    uint32_t c0, uint32_t c1, uint32_t pos0);
void foray_hls_silu_mul(foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS], uint32_t c0,
                        uint32_t c1);
void foray_hls_quant(foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS], uint32_t c0,
                     uint32_t c1);
void foray_hls_add(foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS], uint32_t c0, uint32_t c1);
void foray_hls_embed(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                     uint32_t c0, uint32_t c1, const uint32_t tokens[FORAY_ABI_COLS_MAX]);

/* ---- exit unit ---- */

struct hls_sampling {
  uint32_t on, inv_temp, position;
  uint64_t seed;
};
enum { HLS_BINS = 512 };
/* One column's exit unit: docs/numerics.md 9. */
struct hls_exit {
  uint32_t rows, best_id;
  int32_t best_logit, top_logit[FORAY_ABI_TOPK];
  uint32_t top_id[FORAY_ABI_TOPK];
  int64_t best_key;
  uint64_t bin_z[HLS_BINS], bin_fz[HLS_BINS];
};

void hls_exit_clear(struct hls_exit *u);
void hls_exit_take(struct hls_exit *u, int32_t logit, uint32_t id);
/* Features, candidates, the choice; cum_before: sum of log2(top probability) so far. */
void hls_exit_finish(const struct hls_exit *u, int32_t cum_before, struct foray_rec_ring *r);
int64_t hls_exit_rule(const int32_t c[FORAY_ABI_FEATURES], const struct foray_rec_ring *r);

/* Gumbel noise of a token id, Q16. */
int32_t hls_gumbel(uint64_t seed, uint32_t position, uint32_t id);
/* Keeps the id of the largest key; key = logit / T + noise, or the logit. */
void hls_sample_take(struct hls_exit *u, const struct hls_sampling *s, int32_t logit, uint32_t id);

/* Streams the logits of each column into units[column - c0]. dump: unit where the logits of column c0 go,
 * those of the next one `dump_step` units behind; 0: nowhere (and with a dump, no exit unit is fed). */
void hls_head(foray_word *heap, const foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
              uint32_t c0, uint32_t c1, const struct hls_sampling *s, uint32_t dump, uint32_t dump_step,
              struct hls_act *act, struct hls_exit units[FORAY_HLS_COLS]);
/* The head as a kernel of its own: one column, its ring entry (RING_WORDS words) to `ring` in the heap. */
void foray_hls_exit_head(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                         uint32_t c0, uint32_t sample, uint32_t inv_temp, uint64_t seed, uint32_t position,
                         uint32_t ring);

/* The sampler as a kernel of its own: n logits (Q16) at unit `logits`, id = index; the chosen id to unit
 * `out`. */
void foray_hls_sample(foray_word *heap, uint32_t logits, uint32_t n, uint32_t sample, uint32_t inv_temp,
                      uint64_t seed, uint32_t position, uint32_t out);

/* Matrix entry i of 32-bit words at word `at`. */
static inline uint32_t hls_word32(const foray_word *heap, uint64_t at, uint64_t i) {
  foray_word w = heap[at + i / 2];
  return (uint32_t)(i & 1 ? w >> 32 : w);
}

#endif
