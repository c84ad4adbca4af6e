/* Vector operations of docs/numerics.md 2 and 6, as plain as they are written there. */
#include "dev/ref.h"

#include "core/imath.h"

#include <string.h>

_Thread_local int64_t foray_ref_work[FORAY_ABI_COLUMNS_LIMIT];

static int max_bits(const int64_t *v, uint32_t n) {
  uint64_t any = 0;
  int best = 0;
  for (uint32_t i = 0; i < n; i++) {
    int b = foray_bitlen64(v[i]);
    if (b > best) best = b;
    any |= (uint64_t)v[i];
  }
  return any ? best : 0;
}

void foray_ref_norm30(int64_t *v, uint32_t n, int32_t exp, struct foray_y32 dst) {
  int bits = max_bits(v, n);
  if (bits == 0) {
    memset(dst.m, 0, n * sizeof *dst.m);
    *dst.exp = FORAY_ABI_EXP_ZERO;
    return;
  }
  int s = bits - FORAY_ABI_Y32_BITS;
  for (uint32_t i = 0; i < n; i++) dst.m[i] = (int32_t)foray_rshift_round(v[i], s);
  *dst.exp = foray_clamp_exp((int64_t)exp + s);
}

void foray_ref_to_a16(const int64_t *v, uint32_t n, const int32_t *exp, int exp_step, struct foray_a16 dst) {
  uint32_t groups = n / FORAY_ABI_GROUP;
  int32_t top_all = INT32_MIN;
  for (uint32_t g = 0; g < groups; g++) {
    int bits = max_bits(v + g * FORAY_ABI_GROUP, FORAY_ABI_GROUP);
    if (bits && bits + exp[g * (uint32_t)exp_step] > top_all) top_all = bits + exp[g * (uint32_t)exp_step];
  }
  if (top_all == INT32_MIN) {
    memset(dst.m, 0, n * sizeof *dst.m);
    memset(dst.shift, 0, groups);
    *dst.exp = FORAY_ABI_EXP_ZERO;
    return;
  }
  int32_t base = top_all - FORAY_ABI_A16_BITS - FORAY_ABI_SHIFT_MAX;
  for (uint32_t g = 0; g < groups; g++) {
    const int64_t *x = v + g * FORAY_ABI_GROUP;
    int32_t e = exp[g * (uint32_t)exp_step];
    int bits = max_bits(x, FORAY_ABI_GROUP);
    int32_t shift = bits ? FORAY_ABI_SHIFT_MAX - (top_all - (bits + e)) : 0;
    if (shift < 0) shift = 0;
    dst.shift[g] = (uint8_t)shift;
    for (int i = 0; i < FORAY_ABI_GROUP; i++)
      dst.m[g * FORAY_ABI_GROUP + (uint32_t)i] = (int16_t)foray_rshift_round(x[i], base + shift - e);
  }
  *dst.exp = foray_clamp_exp(base);
}

void foray_ref_embed(void *arg, const struct foray_matrix *w, uint32_t row, struct foray_y32 dst) {
  (void)arg;
  int64_t v[FORAY_ABI_GROUP];
  const uint8_t *block = w->data + (row / 16) * w->layout.block_bytes;
  uint32_t r = row % 16;
  /* The largest code decides the shift, so it is found first; then each chunk is scaled alike. */
  int bits = 0;
  for (int pass = 0; pass < 2; pass++) {
    if (pass == 1 && bits == 0) {
      memset(dst.m, 0, w->cols * sizeof *dst.m);
      *dst.exp = FORAY_ABI_EXP_ZERO;
      return;
    }
    for (uint32_t g = 0; g < w->layout.groups; g++) {
      const uint8_t *quad = block + (g / 4) * (64 + 4 * 512);
      int64_t sc = (int64_t)quad[(g % 4) * 16 + r] * w->mant[row];
      const int8_t *beats = (const int8_t *)quad + 64 + (g % 4) * 512;
      for (uint32_t c = 0; c < 32; c++) v[c] = sc * beats[c / 4 * 64 + r * 4 + c % 4];
      if (pass == 0) {
        int b = max_bits(v, 32);
        if (b > bits) bits = b;
      } else
        for (uint32_t c = 0; c < 32; c++)
          dst.m[g * 32 + c] = (int32_t)foray_rshift_round(v[c], bits - FORAY_ABI_Y32_BITS);
    }
  }
  *dst.exp = foray_clamp_exp((int64_t)w->exp + bits - FORAY_ABI_Y32_BITS);
}

void foray_ref_rmsnorm(void *arg, const struct foray_desc_rmsnorm *d, const int32_t *gamma,
                       struct foray_y32 src, struct foray_a16 dst) {
  (void)arg;
  int64_t *v = foray_ref_work;
  int32_t e = foray_clamp_exp(*src.exp);
  for (uint32_t i = 0; i < d->n; i++) v[i] = foray_clamp_y(src.m[i]);
  int bits = max_bits(v, d->n), sx = bits > 24 ? bits - 24 : 0;
  int64_t s = 0;
  for (uint32_t i = 0; i < d->n; i++) {
    int64_t x = foray_rshift_round(v[i], sx);
    s += x * x;
  }
  int64_t eps = foray_rshift_round((int64_t)d->eps_mant * d->n, 2 * (e + sx) - d->eps_exp);
  const int64_t cap = (int64_t)1 << 61; /* + 2^62 of the squares: no overflow */
  s += eps > cap ? cap : eps;
  int k;
  uint32_t r = foray_rsqrt((uint64_t)s, &k);
  int64_t f = (int64_t)r * d->root_n; /* 2^31 * 2^23 */
  int fs = foray_bitlen64(f) - 31;
  f = foray_rshift_round(f, fs);
  for (uint32_t i = 0; i < d->n; i++) v[i] = foray_rshift_round(v[i] * f, 31) * gamma[i];
  int32_t ev = -sx + k - 31 - 16 + fs + 31 + d->gamma_exp;
  foray_ref_to_a16(v, d->n, &ev, 0, dst);
}

void foray_ref_quant(void *arg, uint32_t n, struct foray_y32 src, struct foray_a16 dst) {
  (void)arg;
  int64_t *v = foray_ref_work;
  int32_t e = foray_clamp_exp(*src.exp);
  for (uint32_t i = 0; i < n; i++) v[i] = foray_clamp_y(src.m[i]);
  foray_ref_to_a16(v, n, &e, 0, dst);
}

void foray_ref_add(void *arg, uint32_t n, struct foray_y32 acc, struct foray_y32 src) {
  (void)arg;
  int32_t ea = foray_clamp_exp(*acc.exp), eb = foray_clamp_exp(*src.exp), e = ea > eb ? ea : eb;
  int bits = 0;
  for (uint32_t i = 0; i < n; i++) {
    int64_t v = foray_rshift_round(foray_clamp_y(acc.m[i]), e - ea) +
                foray_rshift_round(foray_clamp_y(src.m[i]), e - eb);
    int b = foray_bitlen64(v);
    if (b > bits) bits = b;
  }
  int s = bits - FORAY_ABI_Y32_BITS;
  for (uint32_t i = 0; i < n; i++) {
    int64_t v = foray_rshift_round(foray_clamp_y(acc.m[i]), e - ea) +
                foray_rshift_round(foray_clamp_y(src.m[i]), e - eb);
    acc.m[i] = bits ? (int32_t)foray_rshift_round(v, s) : 0;
  }
  *acc.exp = bits ? foray_clamp_exp((int64_t)e + s) : FORAY_ABI_EXP_ZERO;
}

void foray_ref_silu_mul(void *arg, uint32_t n, struct foray_y32 gate, struct foray_y32 up,
                        struct foray_a16 dst) {
  (void)arg;
  int64_t *v = foray_ref_work;
  int32_t eg = foray_clamp_exp(*gate.exp), eu = foray_clamp_exp(*up.exp);
  for (uint32_t i = 0; i < n; i++) {
    int64_t g = foray_clamp_y(gate.m[i]);
    int64_t s = foray_rshift_round(g * foray_sigmoid_q30(foray_rshift_round(g, -(eg + 16))), 30);
    v[i] = s * foray_clamp_y(up.m[i]);
  }
  int32_t e = eg + eu;
  foray_ref_to_a16(v, n, &e, 0, dst);
}

void foray_ref_rope(void *arg, const struct foray_desc_rope *d, const uint64_t *freq, uint32_t position,
                    struct foray_y32 v) {
  (void)arg;
  uint32_t half = d->head_dim / 2;
  bool neox = (d->flags & FORAY_DF_NEOX) != 0;
  for (uint32_t i = 0; i < half; i++) {
    int32_t s, c;
    foray_sincos_q30((uint32_t)((position * freq[i]) >> 32), &s, &c);
    for (uint32_t h = 0; h < d->heads; h++) {
      int32_t *x = v.m + h * d->head_dim + (neox ? i : 2 * i), *y = x + (neox ? half : 1);
      int64_t a = foray_clamp_y(*x), b = foray_clamp_y(*y);
      *x = (int32_t)foray_rshift_round(a * c - b * s, 31);
      *y = (int32_t)foray_rshift_round(a * s + b * c, 31);
    }
  }
  int32_t e = foray_clamp_exp(*v.exp);
  *v.exp = e == FORAY_ABI_EXP_ZERO ? e : foray_clamp_exp((int64_t)e + 1);
}
