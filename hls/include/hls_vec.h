/* include/hls_vec.h - vectors of the scratchpad (docs/numerics.md 2): loading into local buffers, the two
 * ways of rounding, storing. Only the bytes that belong to a vector are written; padding keeps what it had.
 */
#ifndef FORAY_HLS_VEC_H
#define FORAY_HLS_VEC_H

#include "include/hls_math.h"

/* Words of a column. */
static inline uint32_t hls_y32_words(uint32_t n) { return HLS_BEAT + (n + 15) / 16 * HLS_BEAT; }
static inline uint32_t hls_a16_words(uint32_t n) {
  return HLS_BEAT + (n + 31) / 32 * HLS_BEAT + (n / 32 + 63) / 64 * HLS_BEAT;
}
static inline uint32_t hls_y32_at(uint32_t unit, uint32_t n, uint32_t col) {
  return unit * HLS_BEAT + hls_y32_words(n) * col;
}
static inline uint32_t hls_a16_at(uint32_t unit, uint32_t n, uint32_t col) {
  return unit * HLS_BEAT + hls_a16_words(n) * col;
}

static inline int32_t hls_low(foray_word w) { return (int32_t)(uint32_t)w; }
static inline int32_t hls_high(foray_word w) { return (int32_t)(uint32_t)(w >> 32); }
static inline foray_word hls_pair(int32_t low, int32_t high) {
  return (foray_word)(uint32_t)low | (foray_word)(uint32_t)high << 32;
}
static inline void hls_put_exp(foray_word *scratch, uint32_t at, int32_t e) {
  scratch[at] = (scratch[at] & ~(foray_word)0xffffffffu) | (uint32_t)e;
}

/* n elements (a multiple of 16) at word `at`, clamped; returns the exponent, clamped. One beat an iteration.
 */
static inline int32_t hls_load_y32(const foray_word *scratch, uint32_t at, uint32_t n, int32_t *m) {
  for (uint32_t b = 0; b < n / 16; b++) {
    HLS_PIPELINE
    HLS_TRIP(1, 2048)
    for (uint32_t k = 0; k < HLS_BEAT; k++) {
      HLS_UNROLL
      foray_word w = scratch[at + HLS_BEAT + b * HLS_BEAT + k];
      m[b * 16 + 2 * k] = hls_clamp_y(hls_low(w));
      m[b * 16 + 2 * k + 1] = hls_clamp_y(hls_high(w));
    }
  }
  return hls_clamp_exp(hls_low(scratch[at]));
}

static inline void hls_store_y32(foray_word *scratch, uint32_t at, uint32_t n, const int32_t *m, int32_t e) {
  for (uint32_t b = 0; b < n / 16; b++) {
    HLS_PIPELINE
    HLS_TRIP(1, 2048)
    for (uint32_t k = 0; k < HLS_BEAT; k++) {
      HLS_UNROLL
      scratch[at + HLS_BEAT + b * HLS_BEAT + k] = hls_pair(m[b * 16 + 2 * k], m[b * 16 + 2 * k + 1]);
    }
  }
  hls_put_exp(scratch, at, e);
}

/* norm30: v 2^e to mantissas of at most 30 bits; returns their exponent. v and m have n elements, a multiple
 * of
 * 16. The bits of the largest magnitude are those of the OR of all of them, so the first pass has no compare.
 */
static inline int32_t hls_norm30(const int64_t *v, uint32_t n, int64_t e, int32_t *m) {
  uint64_t any = 0;
  for (uint32_t i = 0; i < n; i++) {
    HLS_PIPELINE
    HLS_TRIP(16, 2048)
    any |= hls_abs(v[i]);
  }
  int s = hls_bits_u(any) - FORAY_ABI_Y32_BITS;
  for (uint32_t i = 0; i < n; i++) {
    HLS_PIPELINE
    HLS_TRIP(16, 2048)
    m[i] = any ? (int32_t)hls_round(v[i], s) : 0;
  }
  return any ? hls_clamp_exp(e + s) : FORAY_ABI_EXP_ZERO;
}

/* to_a16: v 2^exp[group] to groups of 16-bit mantissas with shifts; returns the vector's exponent. exp_step
 * 0: one exponent for all groups. n is a multiple of 32. */
static inline int32_t hls_to_a16(const int64_t *v, uint32_t n, const int32_t *exp, uint32_t exp_step,
                                 int16_t *m, uint8_t *shift) {
  HLS_LOCAL uint8_t bits[FORAY_HLS_GROUPS];
  int32_t top = INT32_MIN;
  for (uint32_t g = 0; g < n / FORAY_ABI_GROUP; g++) {
    HLS_TRIP(1, 2048)
    uint64_t any = 0;
    for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
      HLS_PIPELINE
      any |= hls_abs(v[g * FORAY_ABI_GROUP + i]);
    }
    int b = hls_bits_u(any);
    bits[g] = (uint8_t)b;
    if (b && b + exp[g * exp_step] > top) top = b + exp[g * exp_step];
  }
  int none = top == INT32_MIN;
  int32_t base = none ? 0 : top - FORAY_ABI_A16_BITS - FORAY_ABI_SHIFT_MAX;
  for (uint32_t g = 0; g < n / FORAY_ABI_GROUP; g++) {
    HLS_TRIP(1, 2048)
    int32_t e = exp[g * exp_step];
    int32_t s = bits[g] ? FORAY_ABI_SHIFT_MAX - (top - (bits[g] + e)) : 0;
    if (s < 0 || none) s = 0;
    shift[g] = (uint8_t)s;
    for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
      HLS_PIPELINE
      m[g * FORAY_ABI_GROUP + i] = none ? 0 : (int16_t)hls_round(v[g * FORAY_ABI_GROUP + i], base + s - e);
    }
  }
  return none ? FORAY_ABI_EXP_ZERO : hls_clamp_exp(base);
}

static inline void hls_store_a16(foray_word *scratch, uint32_t at, uint32_t n, const int16_t *m,
                                 const uint8_t *shift, int32_t e) {
  for (uint32_t b = 0; b < n / 32; b++) {
    HLS_PIPELINE
    HLS_TRIP(1, 2048)
    for (uint32_t k = 0; k < HLS_BEAT; k++) {
      HLS_UNROLL
      const int16_t *x = m + b * 32 + k * 4;
      scratch[at + HLS_BEAT + b * HLS_BEAT + k] =
          (foray_word)(uint16_t)x[0] | (foray_word)(uint16_t)x[1] << 16 | (foray_word)(uint16_t)x[2] << 32 |
          (foray_word)(uint16_t)x[3] << 48;
    }
  }
  uint32_t shifts = at + HLS_BEAT + n / 32 * HLS_BEAT;
  for (uint32_t w = 0; w < (n / 32 + 7) / 8; w++) {
    HLS_PIPELINE
    HLS_TRIP(1, 2048)
    foray_word x = scratch[shifts + w];
    for (uint32_t k = 0; k < 8; k++) {
      HLS_UNROLL
      if (w * 8 + k < n / 32)
        x = (x & ~((foray_word)0xff << (8 * k))) | (foray_word)shift[w * 8 + k] << (8 * k);
    }
    scratch[shifts + w] = x;
  }
  hls_put_exp(scratch, at, e);
}

#endif
