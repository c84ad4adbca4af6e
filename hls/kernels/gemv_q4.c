/* Affine 4-bit matrix times K columns (docs/image.md, docs/numerics.md 5). A beat carries 8 columns of 16
 * rows, or the codes of two groups; whatever it is, it is consumed in one cycle: 128 products a column. */
#include "include/hls_ops.h"

enum { PAIR_BEATS = 9, BEATS = (FORAY_HLS_GROUPS + 1) / 2 + 4 * FORAY_HLS_GROUPS };

static void load(const foray_word *heap, uint64_t at, uint32_t beats, foray_word *to) {
  HLS_INLINE_OFF
  for (uint32_t b = 0; b < beats; b++) {
    HLS_PIPELINE
    HLS_TRIP(5, 2304)
    for (uint32_t w = 0; w < HLS_BEAT; w++) {
      HLS_UNROLL
      to[b * HLS_BEAT + w] = heap[at + b * HLS_BEAT + w];
    }
  }
}

static uint8_t code(const foray_word *beat, uint32_t i) { return (uint8_t)(beat[i / 8] >> (8 * (i % 8))); }

static void compute(const foray_word *in, uint32_t beats, uint32_t n, const struct hls_act *a,
                    int64_t acc[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK]) {
  HLS_INLINE_OFF
  int32_t part[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK], q[FORAY_ABI_ROW_BLOCK][8];
  uint8_t sc[2][FORAY_ABI_ROW_BLOCK], zp[2][FORAY_ABI_ROW_BLOCK];
  HLS_SPLIT(part, 0)
  HLS_SPLIT(q, 0)
  HLS_SPLIT(sc, 0)
  HLS_SPLIT(zp, 0)
  for (uint32_t k = 0; k < FORAY_HLS_COLS; k++)
    for (uint32_t r = 0; r < FORAY_ABI_ROW_BLOCK; r++) acc[k][r] = 0, part[k][r] = 0;
  uint32_t at = 0, g = 0; /* beat of the pair; group */
  for (uint32_t b = 0; b < beats; b++) {
    HLS_PIPELINE
    HLS_TRIP(5, 2304)
    const foray_word *beat = in + b * HLS_BEAT;
    if (at == 0) {
      for (uint32_t r = 0; r < FORAY_ABI_ROW_BLOCK; r++) {
        HLS_UNROLL
        sc[0][r] = code(beat, r), zp[0][r] = code(beat, 16 + r);
        sc[1][r] = code(beat, 32 + r), zp[1][r] = code(beat, 48 + r);
      }
    } else {
      uint32_t j = (at - 1) % 4, odd = (at - 1) / 4;
      for (uint32_t r = 0; r < FORAY_ABI_ROW_BLOCK; r++) {
        HLS_UNROLL
        uint32_t bytes = (uint32_t)(beat[r / 2] >> (32 * (r % 2)));
        for (uint32_t i = 0; i < 4; i++) {
          HLS_UNROLL
          q[r][i] = (int32_t)(bytes >> (8 * i) & 15);
          q[r][4 + i] = (int32_t)(bytes >> (8 * i + 4) & 15);
        }
      }
      for (uint32_t k = 0; k < FORAY_HLS_COLS; k++) {
        HLS_UNROLL
        if (k < n) {
          const int16_t *m = a->m[k] + g * FORAY_ABI_GROUP + 8 * j;
          for (uint32_t r = 0; r < FORAY_ABI_ROW_BLOCK; r++) {
            HLS_UNROLL
            int32_t s = part[k][r];
            for (uint32_t i = 0; i < 8; i++) {
              HLS_UNROLL
              s += q[r][i] * m[i];
            }
            part[k][r] = s;
            if (j == 3) {
#ifdef FORAY_MUTANT_HLS_ZERO_POINT
              zp[1][r] = zp[0][r];
#endif
              int32_t centred = 16 * s - zp[odd][r] * a->sum[k][g];
              acc[k][r] += (int64_t)sc[odd][r] * centred * ((int64_t)1 << a->shift[k][g]);
              part[k][r] = 0;
            }
          }
        }
      }
      if (j == 3) g++;
    }
    at = at == PAIR_BEATS - 1 ? 0 : at + 1;
  }
}

void hls_q4_block(const foray_word *heap, uint64_t at, uint32_t groups, uint32_t n, const struct hls_act *a,
                  int64_t acc[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK]) {
  HLS_DATAFLOW
  HLS_CHANNEL foray_word beats[BEATS * HLS_BEAT];
  HLS_WIDE(beats, 8)
  uint32_t count = (groups + 1) / 2 + 4 * groups;
  load(heap, at, count, beats);
  compute(beats, count, n, a, acc);
}

HLS_MEMORY(heap, gmem)
HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_gemv_q4(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                       uint32_t c0, uint32_t c1) {
#ifdef FORAY_HLS_TOP_gemv_q4
  HLS_PORT_HEAP
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_PORT_RETURN
#endif
  HLS_LOCAL struct hls_product p;
  hls_gemv(heap, scratch, desc, FORAY_QTYPE_Q4A, c0, c1, &p);
}
