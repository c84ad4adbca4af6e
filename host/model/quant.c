#include "model/quant.h"

#include <math.h>

static const struct foray_type_info types[] = {
#define X(name, id, elems, bytes, deq) {id, #name, elems, bytes, deq},
    FORAY_GGML_TYPES(X)
#undef X
};

const struct foray_type_info *foray_type_info(uint32_t id) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (types[i].id == id) return &types[i];
  return NULL;
}

size_t foray_type_row_bytes(uint32_t id, size_t n) {
  const struct foray_type_info *t = foray_type_info(id);
  return t && n % t->elems == 0 ? n / t->elems * t->bytes : 0;
}

static inline uint16_t rd16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t rd32(const uint8_t *p) { return (uint32_t)rd16(p) | (uint32_t)rd16(p + 2) << 16; }
static inline float half(const uint8_t *p) { return foray_fp16_f32(rd16(p)); }

/* Each function takes the blocks of one row; the layouts are in the order of the bytes.
 * Q4_0: d, 16 bytes; element j is the low nibble of byte j, element j + 16 the high one. */
static void deq_q4_0(const uint8_t *b, float *y, size_t blocks) {
  for (; blocks--; b += 18, y += 32) {
    float d = half(b);
    for (int j = 0; j < 16; j++) {
      y[j] = (float)((b[2 + j] & 15) - 8) * d;
      y[j + 16] = (float)((b[2 + j] >> 4) - 8) * d;
    }
  }
}

/* Q4_1: d, m, 16 bytes; d * q + m. */
static void deq_q4_1(const uint8_t *b, float *y, size_t blocks) {
  for (; blocks--; b += 20, y += 32) {
    float d = half(b), m = half(b + 2);
    for (int j = 0; j < 16; j++) {
      y[j] = (float)(b[4 + j] & 15) * d + m;
      y[j + 16] = (float)(b[4 + j] >> 4) * d + m;
    }
  }
}

/* Q5_0: d, 32 fifth bits, 16 bytes. */
static void deq_q5_0(const uint8_t *b, float *y, size_t blocks) {
  for (; blocks--; b += 22, y += 32) {
    float d = half(b);
    uint32_t h = rd32(b + 2);
    for (int j = 0; j < 16; j++) {
      int lo = (b[6 + j] & 15) | (int)(h >> j & 1) << 4, hi = b[6 + j] >> 4 | (int)(h >> (j + 16) & 1) << 4;
      y[j] = (float)(lo - 16) * d;
      y[j + 16] = (float)(hi - 16) * d;
    }
  }
}

static void deq_q5_1(const uint8_t *b, float *y, size_t blocks) {
  for (; blocks--; b += 24, y += 32) {
    float d = half(b), m = half(b + 2);
    uint32_t h = rd32(b + 4);
    for (int j = 0; j < 16; j++) {
      int lo = (b[8 + j] & 15) | (int)(h >> j & 1) << 4, hi = b[8 + j] >> 4 | (int)(h >> (j + 16) & 1) << 4;
      y[j] = (float)lo * d + m;
      y[j + 16] = (float)hi * d + m;
    }
  }
}

static void deq_q8_0(const uint8_t *b, float *y, size_t blocks) {
  for (; blocks--; b += 34, y += 32) {
    float d = half(b);
    for (int j = 0; j < 32; j++) y[j] = (float)(int8_t)b[2 + j] * d;
  }
}

/* Scale and minimum of sub-block j (0..7) of Q4_K and Q5_K, six bits each in twelve bytes. */
static void scale_min(const uint8_t *s, int j, int *sc, int *mn) {
  if (j < 4) {
    *sc = s[j] & 63;
    *mn = s[j + 4] & 63;
  } else {
    *sc = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    *mn = s[j + 4] >> 4 | s[j] >> 6 << 4;
  }
}

/* Q4_K: d, dmin, 12 bytes of scales, 128 bytes; bytes 32k.. hold sub-block 2k low and 2k + 1 high. */
static void deq_q4_k(const uint8_t *b, float *y, size_t blocks) {
  for (; blocks--; b += 144, y += 256) {
    float d = half(b), dmin = half(b + 2);
    for (int j = 0; j < 8; j++) {
      int sc, mn;
      scale_min(b + 4, j, &sc, &mn);
      float dj = d * (float)sc, mj = dmin * (float)mn;
      const uint8_t *q = b + 16 + 32 * (j / 2);
      for (int l = 0; l < 32; l++) y[32 * j + l] = dj * (float)(j & 1 ? q[l] >> 4 : q[l] & 15) - mj;
    }
  }
}

/* Q5_K: as Q4_K with 32 bytes of fifth bits before the nibbles: bit j of byte l belongs to sub-block j. */
static void deq_q5_k(const uint8_t *b, float *y, size_t blocks) {
  for (; blocks--; b += 176, y += 256) {
    float d = half(b), dmin = half(b + 2);
    for (int j = 0; j < 8; j++) {
      int sc, mn;
      scale_min(b + 4, j, &sc, &mn);
      float dj = d * (float)sc, mj = dmin * (float)mn;
      const uint8_t *h = b + 16, *q = b + 48 + 32 * (j / 2);
      for (int l = 0; l < 32; l++)
        y[32 * j + l] = dj * (float)((j & 1 ? q[l] >> 4 : q[l] & 15) + (h[l] >> j & 1) * 16) - mj;
    }
  }
}

/* Q6_K: 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales, d. */
static void deq_q6_k(const uint8_t *b, float *y, size_t blocks) {
  for (; blocks--; b += 210, y += 256) {
    float d = half(b + 208);
    for (int h = 0; h < 2; h++) {
      const uint8_t *ql = b + 64 * h, *qh = b + 128 + 32 * h;
      const int8_t *sc = (const int8_t *)b + 192 + 8 * h;
      for (int quarter = 0; quarter < 4; quarter++)
        for (int l = 0; l < 32; l++) {
          int low = ql[l + 32 * (quarter & 1)];
          low = quarter & 2 ? low >> 4 : low & 15;
          int q = (low | (qh[l] >> (2 * quarter) & 3) << 4) - 32;
          y[128 * h + 32 * quarter + l] = d * (float)sc[2 * quarter + l / 16] * (float)q;
        }
    }
  }
}

enum foray_status foray_dequant_row(uint32_t type, const void *src, float *dst, size_t n) {
  const struct foray_type_info *t = foray_type_info(type);
  if (!t || !t->dequant) return FORAY_E_UNSUPPORTED;
  if (n % t->elems) return FORAY_E_ARG;
  const uint8_t *b = src;
  size_t blocks = n / t->elems;
  switch (type) {
  case FORAY_GGML_F32:
    if (n) memcpy(dst, src, n * 4);
    break;
  case FORAY_GGML_F16:
    for (size_t i = 0; i < n; i++) dst[i] = half(b + 2 * i);
    break;
  case FORAY_GGML_BF16:
    for (size_t i = 0; i < n; i++) dst[i] = foray_bf16_f32(rd16(b + 2 * i));
    break;
  case FORAY_GGML_Q4_0: deq_q4_0(b, dst, blocks); break;
  case FORAY_GGML_Q4_1: deq_q4_1(b, dst, blocks); break;
  case FORAY_GGML_Q5_0: deq_q5_0(b, dst, blocks); break;
  case FORAY_GGML_Q5_1: deq_q5_1(b, dst, blocks); break;
  case FORAY_GGML_Q8_0: deq_q8_0(b, dst, blocks); break;
  case FORAY_GGML_Q4_K: deq_q4_k(b, dst, blocks); break;
  case FORAY_GGML_Q5_K: deq_q5_k(b, dst, blocks); break;
  case FORAY_GGML_Q6_K: deq_q6_k(b, dst, blocks); break;
  default: return FORAY_E_UNSUPPORTED;
  }
  return FORAY_OK;
}

uint16_t foray_f32_fp16(float f) {
  uint32_t u = foray_f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
  if (a >= 0x47800000u) return (uint16_t)(sign | 0x7c00u); /* 2^16 and more */
  if (a < 0x38800000u) {
    /* Subnormal half: adding 0.5 puts its last bit at the last bit of the float, which rounds to nearest
     * even. */
    float r = foray_bits_f32(a) + 0.5f;
    return (uint16_t)(sign | (foray_f32_bits(r) - 0x3f000000u));
  }
  a += 0xfffu + (a >> 13 & 1); /* may carry into the exponent, and into infinity */
  return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}

uint16_t foray_f32_bf16(float f) {
  uint32_t u = foray_f32_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
  return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static void wr16(uint8_t *p, uint16_t v) {
  p[0] = (uint8_t)v;
  p[1] = (uint8_t)(v >> 8);
}

static void put_q8_0(const float *x, uint8_t *b, size_t blocks) {
  for (; blocks--; x += 32, b += 34) {
    float max = 0;
    for (int j = 0; j < 32; j++) max = fabsf(x[j]) > max ? fabsf(x[j]) : max;
    float d = max / 127.0f, id = d > 0 ? 1.0f / d : 0.0f;
    wr16(b, foray_f32_fp16(d));
    for (int j = 0; j < 32; j++) b[2 + j] = (uint8_t)(int8_t)roundf(x[j] * id);
  }
}

static void put_q4_0(const float *x, uint8_t *b, size_t blocks) {
  for (; blocks--; x += 32, b += 18) {
    float max = 0; /* the element of the largest magnitude, with its sign, takes code 0 */
    for (int j = 0; j < 32; j++) max = fabsf(x[j]) > fabsf(max) ? x[j] : max;
    float d = max / -8.0f, id = d != 0 ? 1.0f / d : 0.0f;
    wr16(b, foray_f32_fp16(d));
    for (int j = 0; j < 16; j++) {
      int lo = (int)(x[j] * id + 8.5f), hi = (int)(x[j + 16] * id + 8.5f);
      b[2 + j] = (uint8_t)((lo > 15 ? 15 : lo) | (hi > 15 ? 15 : hi) << 4);
    }
  }
}

static void put_q4_1(const float *x, uint8_t *b, size_t blocks) {
  for (; blocks--; x += 32, b += 20) {
    float lo = x[0], hi = x[0];
    for (int j = 1; j < 32; j++) {
      lo = x[j] < lo ? x[j] : lo;
      hi = x[j] > hi ? x[j] : hi;
    }
    float d = (hi - lo) / 15.0f, id = d > 0 ? 1.0f / d : 0.0f;
    wr16(b, foray_f32_fp16(d));
    wr16(b + 2, foray_f32_fp16(lo));
    for (int j = 0; j < 16; j++) {
      int a = (int)((x[j] - lo) * id + 0.5f), c = (int)((x[j + 16] - lo) * id + 0.5f);
      b[4 + j] = (uint8_t)((a > 15 ? 15 : a) | (c > 15 ? 15 : c) << 4);
    }
  }
}

enum foray_status foray_quantise_row(uint32_t type, const float *src, void *dst, size_t n) {
  const struct foray_type_info *t = foray_type_info(type);
  if (!t) return FORAY_E_UNSUPPORTED;
  if (n % t->elems) return FORAY_E_ARG;
  uint8_t *b = dst;
  switch (type) {
  case FORAY_GGML_F32:
    if (n) memcpy(dst, src, n * 4);
    break;
  case FORAY_GGML_F16:
    for (size_t i = 0; i < n; i++) wr16(b + 2 * i, foray_f32_fp16(src[i]));
    break;
  case FORAY_GGML_BF16:
    for (size_t i = 0; i < n; i++) wr16(b + 2 * i, foray_f32_bf16(src[i]));
    break;
  case FORAY_GGML_Q8_0: put_q8_0(src, b, n / 32); break;
  case FORAY_GGML_Q4_0: put_q4_0(src, b, n / 32); break;
  case FORAY_GGML_Q4_1: put_q4_1(src, b, n / 32); break;
  default: return FORAY_E_UNSUPPORTED;
  }
  return FORAY_OK;
}
