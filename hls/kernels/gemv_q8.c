/* Symmetric 8-bit matrix times K columns (docs/image.md, docs/numerics.md 5). A beat carries 4 columns of 16
 * rows, or the codes of four groups: one cycle each, 64 products a column. */
#include "include/hls_ops.h"

enum { QUAD_BEATS = 33, BEATS = (FORAY_HLS_GROUPS + 3) / 4 + 8 * FORAY_HLS_GROUPS };

static void load(const foray_word *heap, uint64_t at, uint32_t beats, foray_word *to) {
  HLS_INLINE_OFF
  for (uint32_t b = 0; b < beats; b++) {
    HLS_PIPELINE
    HLS_TRIP(9, 4224)
    for (uint32_t w = 0; w < HLS_BEAT; w++) {
      HLS_UNROLL
      to[b * HLS_BEAT + w] = heap[at + b * HLS_BEAT + w];
    }
  }
}

static void compute(const foray_word *in, uint32_t beats, uint32_t n, const struct hls_act *a,
                    int64_t acc[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK]) {
  HLS_INLINE_OFF
  int32_t part[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK];
  uint8_t sc[4][FORAY_ABI_ROW_BLOCK];
  HLS_SPLIT(part, 0)
  HLS_SPLIT(sc, 0)
  for (uint32_t k = 0; k < FORAY_HLS_COLS; k++)
    for (uint32_t r = 0; r < FORAY_ABI_ROW_BLOCK; r++) acc[k][r] = 0, part[k][r] = 0;
  uint32_t at = 0, g = 0; /* beat of the quad; group */
  for (uint32_t b = 0; b < beats; b++) {
    HLS_PIPELINE
    HLS_TRIP(9, 4224)
    const foray_word *beat = in + b * HLS_BEAT;
    if (at == 0) {
      for (uint32_t i = 0; i < 4 * FORAY_ABI_ROW_BLOCK; i++) {
        HLS_UNROLL
        sc[i / FORAY_ABI_ROW_BLOCK][i % FORAY_ABI_ROW_BLOCK] = (uint8_t)(beat[i / 8] >> (8 * (i % 8)));
      }
    } else {
      uint32_t j = (at - 1) % 8, which = (at - 1) / 8;
      for (uint32_t k = 0; k < FORAY_HLS_COLS; k++) {
        HLS_UNROLL
        if (k < n) {
          const int16_t *m = a->m[k] + g * FORAY_ABI_GROUP + 4 * j;
          for (uint32_t r = 0; r < FORAY_ABI_ROW_BLOCK; r++) {
            HLS_UNROLL
            uint32_t bytes = (uint32_t)(beat[r / 2] >> (32 * (r % 2)));
            int32_t s = part[k][r];
            for (uint32_t i = 0; i < 4; i++) {
              HLS_UNROLL
              s += (int8_t)(uint8_t)(bytes >> (8 * i)) * m[i];
            }
            part[k][r] = s;
            if (j == 7) {
              acc[k][r] += (int64_t)sc[which][r] * s * ((int64_t)1 << a->shift[k][g]);
              part[k][r] = 0;
            }
          }
        }
      }
      if (j == 7) g++;
    }
    at = at == QUAD_BEATS - 1 ? 0 : at + 1;
  }
}

void hls_q8_block(const foray_word *heap, uint64_t at, uint32_t groups, uint32_t n, const struct hls_act *a,
                  int64_t acc[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK]) {
  HLS_DATAFLOW
  HLS_CHANNEL foray_word beats[BEATS * HLS_BEAT];
  HLS_WIDE(beats, 8)
  uint32_t count = (groups + 3) / 4 + 8 * groups;
  load(heap, at, count, beats);
  compute(beats, count, n, a, acc);
}

HLS_MEMORY(heap, gmem)
HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_gemv_q8(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                       uint32_t c0, uint32_t c1) {
#ifdef FORAY_HLS_TOP_gemv_q8
  HLS_PORT_HEAP
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_PORT_RETURN
#endif
  HLS_LOCAL struct hls_product p;
  hls_gemv(heap, scratch, desc, FORAY_QTYPE_Q8S, c0, c1, &p);
}
