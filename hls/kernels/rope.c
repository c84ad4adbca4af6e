/* ROPE, docs/numerics.md 6. */
#include "include/hls_ops.h"

static void rotate(const foray_word *heap, foray_word *scratch, const struct foray_desc_rope *d, uint32_t col,
                   uint32_t position) {
  HLS_LOCAL int32_t x[HLS_N];
  int32_t sine[FORAY_ABI_HEAD_DIM_MAX / 2], cosine[FORAY_ABI_HEAD_DIM_MAX / 2];
  uint32_t n = d->heads * d->head_dim, half = d->head_dim / 2, at = hls_y32_at(d->vec, n, col);
  uint32_t neox = d->flags & FORAY_DF_NEOX;
  int32_t e = hls_load_y32(scratch, at, n, x);
  for (uint32_t i = 0; i < half; i++) {
    HLS_PIPELINE
    HLS_TRIP(16, 128)
    uint64_t phase = position * heap[(uint64_t)d->freq * HLS_BEAT + i];
    hls_sincos((uint32_t)(phase >> 32), &sine[i], &cosine[i]);
  }
  for (uint32_t h = 0; h < d->heads; h++)
    for (uint32_t i = 0; i < half; i++) {
      HLS_PIPELINE
      HLS_TRIP(16, 128)
      uint32_t p = h * d->head_dim + (neox ? i : 2 * i), q = p + (neox ? half : 1);
      int64_t a = x[p], b = x[q];
      x[p] = (int32_t)hls_round(a * cosine[i] - b * sine[i], 31);
      x[q] = (int32_t)hls_round(a * sine[i] + b * cosine[i], 31);
    }
  hls_store_y32(scratch, at, n, x, e == FORAY_ABI_EXP_ZERO ? e : hls_clamp_exp((int64_t)e + 1));
}

HLS_MEMORY(heap, gmem)
HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_rope(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                    uint32_t c0, uint32_t c1, uint32_t pos0) {
#ifdef FORAY_HLS_TOP_rope
  HLS_PORT_HEAP
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_PORT_SCALAR(pos0)
  HLS_PORT_RETURN
#endif
  struct foray_desc_rope d;
  foray_desc_rope_unpack(desc, &d);
  for (uint32_t c = c0; c < c1; c++) {
    HLS_TRIP(1, 8)
    rotate(heap, scratch, &d, c, pos0 + c);
  }
}
