#include "engine/repack.h"

#include "engine/f16.h"
#include "model/quant.h"

#include <string.h>

static const struct {
  uint32_t type;
  int bits, bias; /* weight = code - bias (times the scale) */
  int group_meta, super_meta;
} formats[EK_FORMATS] = {
    [EK_Q4_0] = {FORAY_GGML_Q4_0, 4, 8, 32, 0},   [EK_Q4_1] = {FORAY_GGML_Q4_1, 4, 0, 64, 0},
    [EK_Q5_0] = {FORAY_GGML_Q5_0, 5, 16, 32, 0},  [EK_Q5_1] = {FORAY_GGML_Q5_1, 5, 0, 64, 0},
    [EK_Q8_0] = {FORAY_GGML_Q8_0, 8, 128, 32, 0}, [EK_Q4_K] = {FORAY_GGML_Q4_K, 4, 0, 0, 320},
    [EK_Q5_K] = {FORAY_GGML_Q5_K, 5, 0, 0, 320},  [EK_Q6_K] = {FORAY_GGML_Q6_K, 6, 32, 0, 288},
    [EK_F32] = {FORAY_GGML_F32, 32, 0, 0, 0},     [EK_F16] = {FORAY_GGML_F16, 16, 0, 0, 0},
    [EK_BF16] = {FORAY_GGML_BF16, 16, 0, 0, 0},
};

static size_t group_bytes(enum ek_format f) { return (size_t)formats[f].bits * 64; }

bool ek_mat_shape(struct ek_mat *m, uint32_t type, int32_t rows, int32_t cols) {
  for (int f = 0; f < EK_FORMATS; f++) {
    if (formats[f].type != type) continue;
    *m = (struct ek_mat){.format = (enum ek_format)f, .rows = rows, .cols = cols};
    if (f >= EK_F32) {
      m->block_bytes = (size_t)cols * EK_ROWS * (size_t)formats[f].bits / 8;
      return true;
    }
    if (cols % (formats[f].super_meta ? EK_SUPER : EK_GROUP)) return false;
    const size_t meta = formats[f].super_meta ? (size_t)(cols / EK_SUPER) * (size_t)formats[f].super_meta
                                              : (size_t)(cols / EK_GROUP) * (size_t)formats[f].group_meta;
    m->meta_bytes = (meta + 63) & ~(size_t)63;
    m->block_bytes = m->meta_bytes + (size_t)(cols / EK_GROUP) * group_bytes(m->format);
    return true;
  }
  return false;
}

size_t ek_mat_bytes(const struct ek_mat *m) { return (size_t)ek_blocks(m) * m->block_bytes; }

/* Codes of 32 elements with nibbles qs[16] and optional fifth bits. */
static void codes32(const uint8_t *qs, const uint8_t *qh, uint8_t code[32]) {
  for (int i = 0; i < 16; i++) {
    code[i] = qs[i] & 15;
    code[i + 16] = qs[i] >> 4;
  }
  if (qh)
    for (int i = 0; i < 32; i++) code[i] = (uint8_t)(code[i] | (qh[i >> 3] >> (i & 7) & 1) << 4);
}

static void k_scale(const uint8_t *b, int j, uint8_t *s, uint8_t *m) {
  if (j < 4) {
    *s = b[j] & 63;
    *m = b[j + 4] & 63;
  } else {
    *s = (uint8_t)((b[j + 4] & 15) | (b[j - 4] >> 6) << 4);
    *m = (uint8_t)((b[j + 4] >> 4) | (b[j] >> 6) << 4);
  }
}

static void put16(uint8_t *meta, int r, const uint8_t *half) { memcpy(meta + 2 * r, half, 2); }
/* The same with the sign turned: K-quants subtract their minimum. */
static void put16_neg(uint8_t *meta, int r, const uint8_t *half) {
  meta[2 * r] = half[0];
  meta[2 * r + 1] = half[1] ^ 0x80;
}

/* Scales of row r, group g go to meta; its 32 codes (0..2^bits - 1) come back. */
static void read_group(enum ek_format f, const uint8_t *row, int g, int r, uint8_t *meta, uint8_t code[32]) {
  const uint8_t *b;
  switch (f) {
  case EK_Q4_0:
    b = row + (size_t)g * 18;
    put16(meta + (size_t)g * 32, r, b);
    codes32(b + 2, NULL, code);
    break;
  case EK_Q4_1:
    b = row + (size_t)g * 20;
    put16(meta + (size_t)g * 64, r, b);
    put16(meta + (size_t)g * 64 + 32, r, b + 2);
    codes32(b + 4, NULL, code);
    break;
  case EK_Q5_0:
    b = row + (size_t)g * 22;
    put16(meta + (size_t)g * 32, r, b);
    codes32(b + 6, b + 2, code);
    break;
  case EK_Q5_1:
    b = row + (size_t)g * 24;
    put16(meta + (size_t)g * 64, r, b);
    put16(meta + (size_t)g * 64 + 32, r, b + 2);
    codes32(b + 8, b + 4, code);
    break;
  case EK_Q8_0:
    b = row + (size_t)g * 34;
    put16(meta + (size_t)g * 32, r, b);
    for (int i = 0; i < 32; i++) code[i] = b[2 + i] ^ 0x80;
    break;
  case EK_Q4_K:
  case EK_Q5_K: {
    const int j = g & 7, five = f == EK_Q5_K;
    b = row + (size_t)(g >> 3) * (five ? 176 : 144);
    uint8_t *sb = meta + (size_t)(g >> 3) * 320;
    if (j == 0) {
      put16(sb, r, b);
      put16_neg(sb + 32, r, b + 2);
    }
    k_scale(b + 4, j, &sb[64 + j * 32 + r], &sb[64 + j * 32 + 16 + r]);
    const uint8_t *qh = b + 16, *qs = b + (five ? 48 : 16) + (j >> 1) * 32;
    for (int i = 0; i < 32; i++) {
      code[i] = (j & 1) ? qs[i] >> 4 : qs[i] & 15;
      if (five) code[i] = (uint8_t)(code[i] | (qh[i] >> j & 1) << 4);
    }
    break;
  }
  default: { /* EK_Q6_K */
    const int j = g & 7, half = j >> 2, quarter = j & 3;
    b = row + (size_t)(g >> 3) * 210;
    uint8_t *sb = meta + (size_t)(g >> 3) * 288;
    if (j == 0) put16(sb, r, b + 208);
    const uint8_t *ql = b + half * 64 + (quarter & 1) * 32, *qh = b + 128 + half * 32;
    for (int i = 0; i < 32; i++)
      code[i] = (uint8_t)((quarter >= 2 ? ql[i] >> 4 : ql[i] & 15) | (qh[i] >> (2 * quarter) & 3) << 4);
    sb[32 + j * 32 + r] = b[192 + half * 8 + quarter * 2];
    sb[32 + j * 32 + 16 + r] = b[192 + half * 8 + quarter * 2 + 1];
    break;
  }
  }
}

static void write_codes(enum ek_format f, uint8_t *p, int r, const uint8_t code[32]) {
  if (f == EK_Q8_0) {
    for (int i = 0; i < 8; i++) memcpy(p + 64 * i + 4 * r, code + 4 * i, 4);
    return;
  }
  for (int c = 0; c < 4; c++)
    for (int j = 0; j < 4; j++)
      p[64 * c + 4 * r + j] = (uint8_t)((code[8 * c + j] & 15) | (code[8 * c + 4 + j] & 15) << 4);
  if (formats[f].bits == 5) {
    for (int j = 0; j < 4; j++) {
      unsigned h = 0;
      for (int i = 0; i < 8; i++) h |= (unsigned)(code[4 * i + j] >> 4) << i;
      p[256 + 4 * r + j] = (uint8_t)h;
    }
  } else if (formats[f].bits == 6) {
    for (int half = 0; half < 2; half++)
      for (int j = 0; j < 4; j++) {
        unsigned h = 0;
        for (int i = 0; i < 4; i++) h |= (unsigned)(code[16 * half + 4 * i + j] >> 4) << (2 * i);
        p[256 + 64 * half + 4 * r + j] = (uint8_t)h;
      }
  }
}

void ek_repack(const struct ek_mat *m, const uint8_t *src, size_t row_bytes, uint8_t *dst, int b0, int b1) {
  const enum ek_format f = m->format;
  for (int b = b0; b < b1; b++) {
    uint8_t *blk = dst + (size_t)b * m->block_bytes;
    const int rows = m->rows - b * EK_ROWS < EK_ROWS ? m->rows - b * EK_ROWS : EK_ROWS;
    const uint8_t *first = src + (size_t)b * EK_ROWS * row_bytes;
    if (f >= EK_F32) {
      const size_t es = (size_t)formats[f].bits / 8;
      memset(blk, 0, m->block_bytes);
      for (int r = 0; r < rows; r++)
        for (int32_t k = 0; k < m->cols; k++)
          memcpy(blk + ((size_t)k * EK_ROWS + (size_t)r) * es, first + (size_t)r * row_bytes + (size_t)k * es,
                 es);
      continue;
    }
    memset(blk, 0, rows == EK_ROWS ? m->meta_bytes : m->block_bytes);
    uint8_t *p = blk + m->meta_bytes;
    for (int g = 0; g < m->cols / EK_GROUP; g++, p += group_bytes(f))
      for (int r = 0; r < rows; r++) {
        uint8_t code[32];
        read_group(f, first + (size_t)r * row_bytes, g, r, blk, code);
        write_codes(f, p, r, code);
      }
  }
}

static int code_at(enum ek_format f, const uint8_t *p, int r, int k) {
  if (f == EK_Q8_0) return p[64 * (k >> 2) + 4 * r + (k & 3)];
  const int at = 4 * r + (k & 3);
  int q = p[64 * (k >> 3) + at] >> ((k & 4) ? 4 : 0) & 15;
  if (formats[f].bits == 5) q |= (p[256 + at] >> (k >> 2) & 1) << 4;
  if (formats[f].bits == 6) q |= (p[256 + 64 * (k >> 4) + at] >> (2 * (k >> 2 & 3)) & 3) << 4;
  return q;
}

static float half_at(const uint8_t *meta, int r) {
  uint16_t h;
  memcpy(&h, meta + 2 * r, 2);
  return f16_to_f32(h);
}

void ek_row(const struct ek_mat *m, int32_t row, float *out) {
  const enum ek_format f = m->format;
  const uint8_t *blk = m->data + (size_t)(row / EK_ROWS) * m->block_bytes, *p = blk + m->meta_bytes;
  const int r = row % EK_ROWS;
  if (f >= EK_F32) {
    for (int32_t k = 0; k < m->cols; k++) {
      const size_t at = (size_t)k * EK_ROWS + (size_t)r;
      uint16_t h;
      if (f == EK_F32) {
        memcpy(out + k, blk + at * 4, 4);
        continue;
      }
      memcpy(&h, blk + at * 2, 2);
      out[k] = f == EK_F16 ? f16_to_f32(h) : bf16_to_f32(h);
    }
    return;
  }
  for (int g = 0; g < m->cols / EK_GROUP; g++, p += group_bytes(f))
    for (int k = 0; k < EK_GROUP; k++) {
      const float q = (float)(code_at(f, p, r, k) - formats[f].bias);
      float a, b = 0.0f;
      if (f == EK_Q6_K) {
        const uint8_t *sb = blk + (size_t)(g >> 3) * 288;
        a = half_at(sb, r) * (float)(int8_t)sb[32 + (g & 7) * 32 + (k >> 4) * 16 + r];
      } else if (formats[f].super_meta) {
        const uint8_t *sb = blk + (size_t)(g >> 3) * 320;
        a = half_at(sb, r) * (float)sb[64 + (g & 7) * 32 + r];
        b = half_at(sb + 32, r) * (float)sb[64 + (g & 7) * 32 + 16 + r];
      } else {
        const uint8_t *gm = blk + (size_t)g * (size_t)formats[f].group_meta;
        a = half_at(gm, r);
        if (formats[f].group_meta == 64) b = half_at(gm + 32, r);
      }
      out[g * EK_GROUP + k] = q * a + b;
    }
}
