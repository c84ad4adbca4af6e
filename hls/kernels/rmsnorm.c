/* RMSNORM, docs/numerics.md 6. */
#include "include/hls_ops.h"

static void normalise(const foray_word *heap, foray_word *scratch, const struct foray_desc_rmsnorm *d,
                      uint32_t col) {
  HLS_LOCAL int32_t x[HLS_NORM];
  HLS_LOCAL int64_t v[HLS_NORM];
  HLS_LOCAL int16_t m[HLS_NORM];
  HLS_LOCAL uint8_t shift[HLS_NORM / FORAY_ABI_GROUP];
  int32_t e = hls_load_y32(scratch, hls_y32_at(d->src, d->n, col), d->n, x);
  uint64_t any = 0;
  for (uint32_t i = 0; i < d->n; i++) {
    HLS_PIPELINE
    HLS_TRIP(32, 16384)
    any |= hls_abs(x[i]);
  }
  int bits = hls_bits_u(any), sx = bits > 24 ? bits - 24 : 0;
  int64_t squares = 0;
  for (uint32_t i = 0; i < d->n; i++) {
    HLS_PIPELINE
    HLS_TRIP(32, 16384)
    int64_t y = hls_round(x[i], sx);
    squares += y * y;
  }
  const int64_t cap = (int64_t)1 << 61;
  int64_t eps = hls_round((int64_t)d->eps_mant * d->n, 2 * (e + sx) - d->eps_exp);
  int k;
  uint32_t r = hls_rsqrt((uint64_t)(squares + (eps > cap ? cap : eps)), &k);
  int64_t f = (int64_t)r * d->root_n;
  int fs = hls_bits_u(hls_abs(f)) - 31;
  f = hls_round(f, fs);
  uint64_t gamma = (uint64_t)d->gamma * HLS_BEAT;
  for (uint32_t b = 0; b < d->n / 16; b++) {
    HLS_PIPELINE
    HLS_TRIP(2, 1024)
    for (uint32_t w = 0; w < HLS_BEAT; w++) {
      HLS_UNROLL
      foray_word g = heap[gamma + b * HLS_BEAT + w];
      uint32_t i = b * 16 + 2 * w;
      v[i] = hls_round(x[i] * f, 31) * hls_low(g);
      v[i + 1] = hls_round(x[i + 1] * f, 31) * hls_high(g);
    }
  }
  int32_t ev = -sx + k - 31 - 16 + fs + 31 + d->gamma_exp;
  int32_t out = hls_to_a16(v, d->n, &ev, 0, m, shift);
  hls_store_a16(scratch, hls_a16_at(d->dst, d->n, col), d->n, m, shift, out);
}

HLS_MEMORY(heap, gmem)
HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_rmsnorm(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                       uint32_t c0, uint32_t c1) {
#ifdef FORAY_HLS_TOP_rmsnorm
  HLS_PORT_HEAP
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_PORT_RETURN
#endif
  struct foray_desc_rmsnorm d;
  foray_desc_rmsnorm_unpack(desc, &d);
  for (uint32_t c = c0; c < c1; c++) {
    HLS_TRIP(1, 8)
    normalise(heap, scratch, &d, c);
  }
}
