#include "dev/cpu_gemv.h"

#include "model/image.h"

#include <string.h>

enum { GROUP = FORAY_IMAGE_GROUP, ROWS = FORAY_IMAGE_ROWS };

void foray_cpu_gemv_prepare(enum foray_cpu_form form, const int16_t *mant, const uint8_t *shift,
                            uint32_t groups, int k, int k_total, struct foray_cpu_group *x) {
  for (uint32_t g = 0; g < groups; g++) {
    struct foray_cpu_group *o = &x[(size_t)g * (size_t)k_total + (size_t)k];
    const int16_t *m = mant + (size_t)g * GROUP;
    int32_t sum = 0, hi = 0;
    for (int i = 0; i < GROUP; i++) sum += m[i];
    if (form == FORAY_CPU_FORM_BYTE) {
      for (int i = 0; i < GROUP; i++) {
        o->a.byte.hi[i] = (int8_t)(m[i] >> 8);
        o->a.byte.lo[i] = (uint8_t)(m[i] & 255);
        hi += m[i] >> 8;
      }
    } else {
      static const uint8_t order[8] = {0, 2, 1, 3, 4, 6, 5, 7};
      for (int i = 0; i < GROUP; i++) o->a.pair[i] = m[(i & ~7) + order[i & 7]];
    }
    o->sum = sum;
    o->bias = -128 * hi;
    o->shift = shift[g];
  }
}

/* The plain versions: for machines without AVX2, and as the second opinion in tests. */
static int mantissa(const struct foray_cpu_group *x, int col) {
  return x->a.byte.hi[col] * 256 + x->a.byte.lo[col];
}

static void q4a_scalar(const uint8_t *block, uint32_t groups, const struct foray_cpu_group *x, int k,
                       int64_t *acc, size_t acc_stride) {
  for (int c = 0; c < k; c++) memset(acc + (size_t)c * acc_stride, 0, ROWS * sizeof *acc);
  for (uint32_t g = 0; g < groups; g++) {
    const uint8_t *codes = block + foray_image_codes_at(FORAY_IMAGE_Q4A, g);
    const uint8_t *beats = block + foray_image_beats_at(FORAY_IMAGE_Q4A, g);
    for (int c = 0; c < k; c++) {
      const struct foray_cpu_group *xg = &x[(size_t)g * (size_t)k + (size_t)c];
      int32_t dot[ROWS] = {0};
      for (int j = 0; j < 4; j++)
        for (int i = 0; i < 4; i++) {
          int32_t a = mantissa(xg, 8 * j + i), b = mantissa(xg, 8 * j + 4 + i);
          for (int r = 0; r < ROWS; r++) {
            int w = beats[64 * j + 4 * r + i];
            dot[r] += (w & 15) * a + (w >> 4) * b;
          }
        }
      int64_t *out = acc + (size_t)c * acc_stride;
      for (int r = 0; r < ROWS; r++) {
        int64_t t = (int64_t)codes[r] * (16 * dot[r] - codes[ROWS + r] * xg->sum);
        out[r] += (int64_t)((uint64_t)t << xg->shift);
      }
    }
  }
}

static void q8s_scalar(const uint8_t *block, uint32_t groups, const struct foray_cpu_group *x, int k,
                       int64_t *acc, size_t acc_stride) {
  for (int c = 0; c < k; c++) memset(acc + (size_t)c * acc_stride, 0, ROWS * sizeof *acc);
  for (uint32_t g = 0; g < groups; g++) {
    const uint8_t *codes = block + foray_image_codes_at(FORAY_IMAGE_Q8S, g);
    const int8_t *beats = (const int8_t *)block + foray_image_beats_at(FORAY_IMAGE_Q8S, g);
    for (int c = 0; c < k; c++) {
      const struct foray_cpu_group *xg = &x[(size_t)g * (size_t)k + (size_t)c];
      int32_t dot[ROWS] = {0};
      for (int j = 0; j < 8; j++)
        for (int i = 0; i < 4; i++) {
          int32_t a = mantissa(xg, 4 * j + i);
          for (int r = 0; r < ROWS; r++) dot[r] += beats[64 * j + 4 * r + i] * a;
        }
      int64_t *out = acc + (size_t)c * acc_stride;
      for (int r = 0; r < ROWS; r++) out[r] += (int64_t)((uint64_t)((int64_t)codes[r] * dot[r]) << xg->shift);
    }
  }
}

const struct foray_cpu_gemv foray_cpu_gemv_scalar = {FORAY_CPU_FORM_BYTE, q4a_scalar, q8s_scalar};

const struct foray_cpu_gemv *foray_cpu_gemv_of(enum foray_isa isa) {
#if defined(__x86_64__)
  if (isa >= FORAY_ISA_AVX512) return &foray_cpu_gemv_avx512;
  if (isa == FORAY_ISA_AVX2) return &foray_cpu_gemv_avx2;
#endif
  (void)isa;
  return &foray_cpu_gemv_scalar;
}
