/* SILU_MUL, docs/numerics.md 6. */
#include "include/hls_ops.h"

static void gate_column(foray_word *scratch, const struct foray_desc_silu_mul *d, uint32_t col) {
  HLS_LOCAL int32_t gate[HLS_N], up[HLS_N];
  HLS_LOCAL int64_t v[HLS_N];
  HLS_LOCAL int16_t m[HLS_N];
  HLS_LOCAL uint8_t shift[FORAY_HLS_GROUPS];
  int32_t eg = hls_load_y32(scratch, hls_y32_at(d->gate, d->n, col), d->n, gate);
  int32_t eu = hls_load_y32(scratch, hls_y32_at(d->up, d->n, col), d->n, up);
  for (uint32_t i = 0; i < d->n; i++) {
    HLS_PIPELINE
    HLS_TRIP(32, 16384)
    int64_t g = gate[i], s = hls_sigmoid(hls_round(g, -(eg + 16)));
    v[i] = hls_round(g * s, 30) * up[i];
  }
  int32_t e = eg + eu, out = hls_to_a16(v, d->n, &e, 0, m, shift);
  hls_store_a16(scratch, hls_a16_at(d->dst, d->n, col), d->n, m, shift, out);
}

HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_silu_mul(foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS], uint32_t c0,
                        uint32_t c1) {
#ifdef FORAY_HLS_TOP_silu_mul
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_PORT_RETURN
#endif
  struct foray_desc_silu_mul d;
  foray_desc_silu_mul_unpack(desc, &d);
  for (uint32_t c = c0; c < c1; c++) {
    HLS_TRIP(1, 8)
    gate_column(scratch, &d, c);
  }
}
