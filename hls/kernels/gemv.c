/* What both matrix kernels share: activations into local memory, rows to a Y32 vector, the bias. */
#include "include/hls_ops.h"

void hls_act_load(const foray_word *scratch, uint32_t src, uint32_t cols, uint32_t c0, uint32_t c1,
                  struct hls_act *a) {
  for (uint32_t c = c0; c < c1; c++) {
    HLS_TRIP(1, 8)
    uint32_t at = hls_a16_at(src, cols, c), k = c - c0, shifts = at + HLS_BEAT + cols / 32 * HLS_BEAT;
    a->exp[k] = hls_clamp_exp(hls_low(scratch[at]));
    for (uint32_t g = 0; g < cols / FORAY_ABI_GROUP; g++) { /* a group is a beat of mantissas */
      HLS_PIPELINE
      HLS_TRIP(1, 2048)
      int32_t sum = 0;
      for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
        HLS_UNROLL
        foray_word w = scratch[at + HLS_BEAT + g * HLS_BEAT + i / 4];
        int32_t m = hls_clamp_a((int16_t)(uint16_t)(w >> (16 * (i % 4))));
        a->m[k][g * FORAY_ABI_GROUP + i] = (int16_t)m;
        sum += m;
      }
      a->sum[k][g] = sum;
      a->shift[k][g] = (uint8_t)((scratch[shifts + g / 8] >> (8 * (g % 8))) & FORAY_ABI_SHIFT_MAX);
    }
  }
}

/* Both terms are norm30 results: mantissas below 2^31, exponents in range. */
static int32_t add_norm(int64_t *v, const int32_t *a, int32_t ea, const int32_t *b, int32_t eb, uint32_t n,
                        int32_t *m) {
  int32_t e = ea > eb ? ea : eb;
  for (uint32_t i = 0; i < n; i++) {
    HLS_PIPELINE
    HLS_TRIP(16, 2048)
    v[i] = hls_round(a[i], e - ea) + hls_round(b[i], e - eb);
  }
  return hls_norm30(v, n, e, m);
}

/* rows_pad sums times their row mantissas, in v, become a column. */
static void store_column(const foray_word *heap, foray_word *scratch, const struct foray_desc_gemv *d,
                         const struct hls_layout *l, uint32_t col, int32_t exp, int64_t *v) {
  HLS_LOCAL int32_t y[FORAY_HLS_ROWS], b[FORAY_HLS_ROWS];
  int32_t e = hls_norm30(v, l->rows_pad, exp, y);
  if (d->flags & FORAY_DF_BIAS) {
    uint64_t at = (uint64_t)d->addr * HLS_BEAT + l->bias;
    for (uint32_t i = 0; i < l->rows_pad / 2; i++) {
      HLS_PIPELINE
      HLS_TRIP(8, 2048)
      v[2 * i] = hls_low(heap[at + i]);
      v[2 * i + 1] = hls_high(heap[at + i]);
    }
    int32_t eb = hls_norm30(v, l->rows_pad, d->bias_exp, b);
    e = add_norm(v, y, e, b, eb, l->rows_pad, y);
  }
  hls_store_y32(scratch, hls_y32_at(d->dst, l->rows_pad, col), l->rows_pad, y, e);
}

enum { MANTISSA_ROWS = 512 }; /* row mantissas are fetched for this many rows at once: 16 beats */

void hls_gemv(const foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
              uint32_t qtype, uint32_t c0, uint32_t c1, struct hls_product *p) {
  struct foray_desc_gemv d;
  foray_desc_gemv_unpack(desc, &d);
  struct hls_layout l = hls_layout_of(qtype, d.rows, d.cols, (d.flags & FORAY_DF_BIAS) != 0);
  uint64_t base = (uint64_t)d.addr * HLS_BEAT;
  uint32_t n = c1 - c0;
  int t = hls_product_shift(l.groups);
  HLS_LOCAL foray_word mant[MANTISSA_ROWS / 4];
  int64_t acc[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK];
  HLS_SPLIT(acc, 0)
  hls_act_load(scratch, d.src, d.cols, c0, c1, &p->act);
  for (uint32_t r0 = 0; r0 < l.rows_pad; r0 += FORAY_ABI_ROW_BLOCK) {
    HLS_TRIP(1, 1024)
    if (r0 % MANTISSA_ROWS == 0)
      for (uint32_t i = 0; i < MANTISSA_ROWS / 4; i++) {
        HLS_PIPELINE
        if (r0 / 4 + i < l.bias) mant[i] = heap[base + r0 / 4 + i];
      }
    uint64_t at = base + l.data + l.block * (r0 / FORAY_ABI_ROW_BLOCK);
    if (qtype == FORAY_QTYPE_Q4A)
      hls_q4_block(heap, at, l.groups, n, &p->act, acc);
    else
      hls_q8_block(heap, at, l.groups, n, &p->act, acc);
    for (uint32_t r = 0; r < FORAY_ABI_ROW_BLOCK; r++) {
      HLS_PIPELINE
      int64_t m = (uint16_t)(mant[(r0 % MANTISSA_ROWS + r) / 4] >> (16 * (r % 4)));
      for (uint32_t k = 0; k < FORAY_HLS_COLS; k++) {
        HLS_UNROLL
        if (k < n) p->out[k][r0 + r] = hls_round(acc[k][r], t) * m;
      }
    }
  }
  for (uint32_t k = 0; k < n; k++) {
    HLS_TRIP(1, 8)
    store_column(heap, scratch, &d, &l, c0 + k, p->act.exp[k] + d.exp + t, p->out[k]);
  }
}
