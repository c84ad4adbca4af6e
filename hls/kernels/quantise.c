/* QUANT, ADD and EMBED, docs/numerics.md 6: what only changes the form of a vector. */
#include "include/hls_ops.h"

HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_quant(foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS], uint32_t c0,
                     uint32_t c1) {
#ifdef FORAY_HLS_TOP_quant
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_PORT_RETURN
#endif
  HLS_LOCAL int32_t x[HLS_N];
  HLS_LOCAL int64_t v[HLS_N];
  HLS_LOCAL int16_t m[HLS_N];
  HLS_LOCAL uint8_t shift[FORAY_HLS_GROUPS];
  struct foray_desc_quant d;
  foray_desc_quant_unpack(desc, &d);
  for (uint32_t c = c0; c < c1; c++) {
    HLS_TRIP(1, 8)
    int32_t e = hls_load_y32(scratch, hls_y32_at(d.src, d.n, c), d.n, x);
    for (uint32_t i = 0; i < d.n; i++) {
      HLS_PIPELINE
      HLS_TRIP(32, 16384)
      v[i] = x[i];
    }
    int32_t out = hls_to_a16(v, d.n, &e, 0, m, shift);
    hls_store_a16(scratch, hls_a16_at(d.dst, d.n, c), d.n, m, shift, out);
  }
}

HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_add(foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS], uint32_t c0, uint32_t c1) {
#ifdef FORAY_HLS_TOP_add
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_PORT_RETURN
#endif
  HLS_LOCAL int32_t x[HLS_N], y[HLS_N];
  HLS_LOCAL int64_t v[HLS_N];
  struct foray_desc_add d;
  foray_desc_add_unpack(desc, &d);
  for (uint32_t c = c0; c < c1; c++) {
    HLS_TRIP(1, 8)
    uint32_t at = hls_y32_at(d.acc, d.n, c);
    int32_t ex = hls_load_y32(scratch, at, d.n, x);
    int32_t ey = hls_load_y32(scratch, hls_y32_at(d.src, d.n, c), d.n, y);
    int32_t e = ex > ey ? ex : ey;
    for (uint32_t i = 0; i < d.n; i++) {
      HLS_PIPELINE
      HLS_TRIP(32, 16384)
      v[i] = hls_round(x[i], e - ex) + hls_round(y[i], e - ey);
    }
    e = hls_norm30(v, d.n, e, x);
    hls_store_y32(scratch, at, d.n, x, e);
  }
}

/* One row of a Q8S matrix. Of each beat of four columns the row needs the word that holds its four bytes. */
static void embed_row(const foray_word *heap, const struct foray_desc_embed *d, uint32_t row, int64_t *v) {
  struct hls_layout l = hls_layout_of(FORAY_QTYPE_Q8S, d->rows, d->cols, 0);
  uint64_t base = (uint64_t)d->addr * HLS_BEAT, at = base + l.data + l.block * (row / 16);
  uint32_t r = row % 16;
  int64_t mant = (uint16_t)(heap[base + row / 4] >> (16 * (row % 4))), scale = 0;
  for (uint32_t g = 0; g < l.groups; g++) {
    HLS_TRIP(1, 2048)
    if (g % 4 == 0 && g) at += 33 * HLS_BEAT;
    scale = mant * (uint8_t)(heap[at + g % 4 * 2 + r / 8] >> (8 * (r % 8)));
    for (uint32_t j = 0; j < 8; j++) {
      HLS_PIPELINE
      uint32_t bytes = (uint32_t)(heap[at + (1 + g % 4 * 8 + j) * HLS_BEAT + r / 2] >> (32 * (r % 2)));
      for (uint32_t i = 0; i < 4; i++) {
        HLS_UNROLL
        v[g * FORAY_ABI_GROUP + 4 * j + i] = scale * (int8_t)(uint8_t)(bytes >> (8 * i));
      }
    }
  }
}

HLS_MEMORY(heap, gmem)
HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
HLS_MEMORY(tokens, gmem3)
void foray_hls_embed(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                     uint32_t c0, uint32_t c1, const uint32_t tokens[FORAY_ABI_COLS_MAX]) {
#ifdef FORAY_HLS_TOP_embed
  HLS_PORT_HEAP
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_VITIS(INTERFACE m_axi port = tokens bundle = gmem3 offset = slave depth = 8)
  HLS_PORT_RETURN
#endif
  HLS_LOCAL int64_t v[HLS_N];
  HLS_LOCAL int32_t x[HLS_N];
  struct foray_desc_embed d;
  foray_desc_embed_unpack(desc, &d);
  for (uint32_t c = c0; c < c1; c++) {
    HLS_TRIP(1, 8)
    embed_row(heap, &d, tokens[c], v);
    int32_t e = hls_norm30(v, d.cols, d.exp, x);
    hls_store_y32(scratch, hls_y32_at(d.dst, d.cols, c), d.cols, x, e);
  }
}
