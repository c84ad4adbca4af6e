/* Matrix times vector, docs/numerics.md 5. Weight codes: docs/image.md. */
#include "dev/ref.h"

#include "core/imath.h"

#include <string.h>

int foray_ref_gemv_t(uint32_t groups) { return 4 + (groups > 1 ? 32 - __builtin_clz(groups - 1) : 0); }

static int64_t group_q4a(const uint8_t *block, uint32_t g, uint32_t r, const int16_t *a) {
  const uint8_t *pair = block + (g / 2) * (64 + 2 * 256);
  int64_t sc = pair[(g % 2) * 32 + r], zp = pair[(g % 2) * 32 + 16 + r];
#ifdef FORAY_MUTANT_SWAP_SCALE_OFFSET
  int64_t swap = sc;
  sc = zp, zp = swap;
#endif
  const uint8_t *beats = pair + 64 + (g % 2) * 256;
  int64_t dot = 0, sum = 0;
  for (uint32_t c = 0; c < 32; c++) {
    uint8_t byte = beats[c / 8 * 64 + r * 4 + c % 4];
    int64_t m = foray_clamp_a(a[c]);
    dot += (c % 8 < 4 ? byte & 15 : byte >> 4) * m;
    sum += m;
  }
  return sc * (16 * dot - zp * sum);
}

static int64_t group_q8s(const uint8_t *block, uint32_t g, uint32_t r, const int16_t *a) {
  const uint8_t *quad = block + (g / 4) * (64 + 4 * 512);
  int64_t sc = quad[(g % 4) * 16 + r], dot = 0;
  const int8_t *beats = (const int8_t *)quad + 64 + (g % 4) * 512;
  for (uint32_t c = 0; c < 32; c++) dot += beats[c / 4 * 64 + r * 4 + c % 4] * foray_clamp_a(a[c]);
  return sc * dot;
}

int64_t foray_ref_row(const struct foray_matrix *w, uint32_t row, struct foray_a16 src) {
  const uint8_t *block = w->data + (row / 16) * w->layout.block_bytes;
  int64_t acc = 0;
  for (uint32_t g = 0; g < w->layout.groups; g++) {
    const int16_t *a = src.m + g * 32;
    int64_t s =
        w->qtype == FORAY_QTYPE_Q4A ? group_q4a(block, g, row % 16, a) : group_q8s(block, g, row % 16, a);
    acc += s * ((int64_t)1 << (src.shift[g] & 15));
  }
  return foray_rshift_round(acc, foray_ref_gemv_t(w->layout.groups)) * w->mant[row];
}

void foray_ref_gemv(void *arg, const struct foray_matrix *w, int ncols, const struct foray_a16 *src,
                    const struct foray_y32 *dst) {
  (void)arg;
  int64_t *v = foray_ref_work;
  static _Thread_local int32_t bias[FORAY_ABI_COLUMNS_LIMIT];
  for (int c = 0; c < ncols; c++) {
    for (uint32_t r = 0; r < w->layout.rows_pad; r++) v[r] = foray_ref_row(w, r, src[c]);
    int32_t exp = foray_clamp_exp(*src[c].exp) + w->exp + foray_ref_gemv_t(w->layout.groups);
    foray_ref_norm30(v, w->layout.rows_pad, exp, dst[c]);
    if (w->bias) { /* ADD of the bias, brought to the bound of Y32 first */
      int32_t bexp;
      for (uint32_t r = 0; r < w->layout.rows_pad; r++) v[r] = w->bias[r];
      struct foray_y32 by = {&bexp, bias};
      foray_ref_norm30(v, w->layout.rows_pad, w->bias_exp, by);
      foray_ref_add(NULL, w->layout.rows_pad, dst[c], by);
    }
  }
}

void foray_ref_head(void *arg, const struct foray_matrix *w, uint32_t used, int ncols,
                    const struct foray_a16 *src, int32_t *const *logits) {
  (void)arg;
  for (int c = 0; c < ncols; c++) {
    int32_t exp = foray_clamp_exp(*src[c].exp) + w->exp + foray_ref_gemv_t(w->layout.groups);
    for (uint32_t r = 0; r < used; r++)
      logits[c][r] = foray_sat32(foray_rshift_round(foray_ref_row(w, r, src[c]), -(exp + 16)));
  }
}
