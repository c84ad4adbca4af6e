/* model/quant.h - the tensor types of GGUF files: sizes, names, and their values as floats.
 *
 * Values follow the formats' definitions exactly: float32 arithmetic in the order written in quant.c, no
 * contraction, so every machine gets the same bits. Pure functions, any thread. */
#ifndef FORAY_MODEL_QUANT_H
#define FORAY_MODEL_QUANT_H

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* X(name, id in the file, elements of a block, bytes of a block, can be dequantised) */
#define FORAY_GGML_TYPES(X)                                                                                  \
  X(F32, 0, 1, 4, true)                                                                                      \
  X(F16, 1, 1, 2, true)                                                                                      \
  X(Q4_0, 2, 32, 18, true)                                                                                   \
  X(Q4_1, 3, 32, 20, true)                                                                                   \
  X(Q5_0, 6, 32, 22, true)                                                                                   \
  X(Q5_1, 7, 32, 24, true)                                                                                   \
  X(Q8_0, 8, 32, 34, true)                                                                                   \
  X(Q4_K, 12, 256, 144, true)                                                                                \
  X(Q5_K, 13, 256, 176, true)                                                                                \
  X(Q6_K, 14, 256, 210, true)                                                                                \
  X(I8, 24, 1, 1, false)                                                                                     \
  X(I16, 25, 1, 2, false)                                                                                    \
  X(I32, 26, 1, 4, false)                                                                                    \
  X(I64, 27, 1, 8, false)                                                                                    \
  X(BF16, 30, 1, 2, true)

enum foray_ggml_type {
#define X(name, id, elems, bytes, deq) FORAY_GGML_##name = id,
  FORAY_GGML_TYPES(X)
#undef X
};

struct foray_type_info {
  uint32_t id;
  const char *name; /* "Q4_K" */
  uint32_t elems;   /* of one block, along ne[0] */
  uint32_t bytes;   /* of one block */
  bool dequant;     /* foray_dequant_row takes it */
};

/* NULL for an id that Foray does not read. */
const struct foray_type_info *foray_type_info(uint32_t id);
/* Bytes of a row of n elements; 0 when the type is unknown or n is not a multiple of its block. */
size_t foray_type_row_bytes(uint32_t id, size_t n);

/* dst[0..n) = values of n elements at src (any alignment). FORAY_E_UNSUPPORTED for a type without float
 * values, FORAY_E_ARG when n is not a multiple of the block. */
enum foray_status foray_dequant_row(uint32_t type, const void *src, float *dst, size_t n) FORAY_NODISCARD;

/* Writers for files that Foray makes: round to nearest (ties to even for the halves, away from zero for Q8_0,
 * as llama.cpp does). n must be a multiple of the block; types F32, F16, BF16, Q8_0, Q4_0, Q4_1. */
enum foray_status foray_quantise_row(uint32_t type, const float *src, void *dst, size_t n) FORAY_NODISCARD;

static inline float foray_bits_f32(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}
static inline uint32_t foray_f32_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}
static inline float foray_bf16_f32(uint16_t h) { return foray_bits_f32((uint32_t)h << 16); }
/* IEEE half to float, exact, NaN payload kept. */
static inline float foray_fp16_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 0x3ffu;
  if (exp == 31) return foray_bits_f32(sign | 0x7f800000u | man << 13);
  if (exp) return foray_bits_f32(sign | (exp + 112) << 23 | man << 13);
  /* subnormal: man * 2^-24, exact in float32 */
  float f = (float)man * 0x1p-24f;
  return foray_bits_f32(foray_f32_bits(f) | sign);
}
uint16_t foray_f32_fp16(float f); /* round to nearest even, overflow to infinity, NaN stays NaN */
uint16_t foray_f32_bf16(float f); /* round to nearest even, NaN stays NaN */

#endif
