#include "dev/cpu_gemv.h"

#include "model/image.h"

#include <string.h>

enum { GROUP = FORAY_ABI_GROUP, ROWS = FORAY_ABI_ROW_BLOCK };

static struct foray_cpu_group *common(struct foray_a16 a, uint32_t g, int k, int k_total,
                                      struct foray_cpu_group *x, int16_t *m) {
  struct foray_cpu_group *o = &x[(size_t)g * (size_t)k_total + (size_t)k];
  int32_t sum = 0;
  for (int i = 0; i < GROUP; i++) {
    m[i] = foray_clamp_a(a.m[(size_t)g * GROUP + (size_t)i]);
    sum += m[i];
  }
  o->sum = sum;
  o->shift = a.shift[g] & FORAY_ABI_SHIFT_MAX;
  return o;
}

void foray_cpu_prepare_bytes(struct foray_a16 a, uint32_t groups, int k, int k_total,
                             struct foray_cpu_group *x) {
  for (uint32_t g = 0; g < groups; g++) {
    int16_t m[GROUP];
    struct foray_cpu_group *o = common(a, g, k, k_total, x, m);
    int32_t sum_hi = 0;
    for (int i = 0; i < GROUP; i++) {
      int hi = (m[i] + 128) >> 8; /* -64..64 */
      o->a.byte.hi[i] = (int8_t)hi;
      o->a.byte.lo[i] = (int8_t)(m[i] - 256 * hi);
      sum_hi += hi;
    }
    o->neg_hi = -sum_hi;
    o->neg_lo = 256 * sum_hi - o->sum;
  }
}

void foray_cpu_prepare_pairs(struct foray_a16 a, uint32_t groups, int k, int k_total,
                             struct foray_cpu_group *x) {
  static const uint8_t order[8] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (uint32_t g = 0; g < groups; g++) {
    int16_t m[GROUP];
    struct foray_cpu_group *o = common(a, g, k, k_total, x, m);
    for (int i = 0; i < GROUP; i++) o->a.pair[i] = m[(i & ~7) + order[i & 7]];
    o->neg_hi = o->neg_lo = 0;
  }
}

/* The plain versions: for machines without AVX2, and as the second opinion in tests. */
static int mantissa(const struct foray_cpu_group *x, int col) {
  return x->a.byte.hi[col] * 256 + x->a.byte.lo[col];
}

static void group_q4a(const uint8_t *codes, const uint8_t *beats, const struct foray_cpu_group *x,
                      int64_t *out) {
  int32_t dot[ROWS] = {0};
  for (int j = 0; j < 4; j++)
    for (int i = 0; i < 4; i++) {
      int32_t a = mantissa(x, 8 * j + i), b = mantissa(x, 8 * j + 4 + i);
      for (int r = 0; r < ROWS; r++) {
        int w = beats[64 * j + 4 * r + i];
        dot[r] += (w & 15) * a + (w >> 4) * b;
      }
    }
  for (int r = 0; r < ROWS; r++)
    out[r] += (int64_t)codes[r] * (16 * dot[r] - codes[ROWS + r] * x->sum) * ((int64_t)1 << x->shift);
}

static void group_q8s(const uint8_t *codes, const uint8_t *beats, const struct foray_cpu_group *x,
                      int64_t *out) {
  int32_t dot[ROWS] = {0};
  for (int j = 0; j < 8; j++)
    for (int i = 0; i < 4; i++) {
      int32_t a = mantissa(x, 4 * j + i);
      for (int r = 0; r < ROWS; r++) dot[r] += (int8_t)beats[64 * j + 4 * r + i] * a;
    }
  for (int r = 0; r < ROWS; r++) out[r] += (int64_t)codes[r] * dot[r] * ((int64_t)1 << x->shift);
}

typedef void group_fn(const uint8_t *codes, const uint8_t *beats, const struct foray_cpu_group *x,
                      int64_t *out);

static void run_scalar(const struct foray_cpu_run *n, enum foray_image_type type, group_fn *fn) {
  for (int c = 0; c < n->k; c++)
    memset(n->acc + (size_t)c * n->stride, 0, (size_t)n->blocks * ROWS * sizeof *n->acc);
  for (uint32_t b = 0; b < n->blocks; b++) {
    const uint8_t *block = n->data + b * n->block_bytes;
    for (uint32_t g = 0; g < n->groups; g++)
      for (int c = 0; c < n->k; c++)
        fn(block + foray_image_codes_at(type, g), block + foray_image_beats_at(type, g),
           &n->x[(size_t)g * (size_t)n->k + (size_t)c], n->acc + (size_t)c * n->stride + (size_t)b * ROWS);
  }
}
static void q4a_scalar(const struct foray_cpu_run *n) { run_scalar(n, FORAY_IMAGE_Q4A, group_q4a); }
static void q8s_scalar(const struct foray_cpu_run *n) { run_scalar(n, FORAY_IMAGE_Q8S, group_q8s); }

const struct foray_cpu_gemv foray_cpu_gemv_scalar = {foray_cpu_prepare_bytes, q4a_scalar, q8s_scalar};

const struct foray_cpu_gemv *foray_cpu_gemv_of(enum foray_isa isa) {
#if defined(__x86_64__)
  if (isa >= FORAY_ISA_AVX512) return &foray_cpu_gemv_avx512;
  if (isa == FORAY_ISA_AVX2) return &foray_cpu_gemv_avx2;
#endif
  (void)isa;
  return &foray_cpu_gemv_scalar;
}
