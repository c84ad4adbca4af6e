/* KV records and one-pass attention, docs/numerics.md 7 and 8. */
#include "dev/ref.h"

#include "core/imath.h"

#include <string.h>

static uint16_t load16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static uint16_t put_group(const int32_t *x, int32_t e, int8_t *codes) {
  uint64_t amax = 0;
  for (int i = 0; i < FORAY_ABI_GROUP; i++) {
    int64_t m = foray_clamp_y(x[i]);
    uint64_t a = (uint64_t)(m < 0 ? -m : m);
    if (a > amax) amax = a;
  }
  memset(codes, 0, FORAY_ABI_GROUP);
  if (amax == 0) return 0;
  uint64_t num = (amax << 32) / 127;
  int len = foray_bitlen64((int64_t)num);
  uint64_t s = (num + ((uint64_t)1 << (len - 11)) - 1) >> (len - 11);
  if (s == 2048) s = 1024, len++;
  int64_t x48 = (int64_t)e + len + 5; /* e + (len - 11 - 32) + 48 */
  if (x48 < 0) return 0;
  int64_t inv = (int64_t)(((uint64_t)1 << 32) / s);
  for (int i = 0; i < FORAY_ABI_GROUP; i++) {
    int64_t c = foray_rshift_round(foray_clamp_y(x[i]) * inv, len - 11);
    codes[i] = (int8_t)(c > 127 ? 127 : c < -127 ? -127 : c);
  }
  return (uint16_t)((x48 > 63 ? 63 : x48) << 10 | (int64_t)(s - 1024));
}

void foray_ref_kv_put(void *arg, const struct foray_kv *kv, uint32_t position, struct foray_y32 k,
                      struct foray_y32 v) {
  (void)arg;
  uint32_t d = kv->head_dim, groups = d / FORAY_ABI_GROUP, meta = kv->record - 2 * d;
  for (uint32_t h = 0; h < kv->heads; h++) {
    uint8_t *rec = kv->base + ((uint64_t)h * kv->max_pos + position) * kv->record;
    memset(rec, 0, meta);
    for (uint32_t g = 0; g < 2 * groups; g++) {
      struct foray_y32 y = g < groups ? k : v;
      uint16_t s =
          put_group(y.m + h * d + (g % groups) * 32, foray_clamp_exp(*y.exp), (int8_t *)rec + meta + g * 32);
      rec[2 * g] = (uint8_t)s, rec[2 * g + 1] = (uint8_t)(s >> 8);
    }
  }
}

struct head_state {
  int32_t ml, mv[FORAY_ABI_HEAD_DIM_MAX / 32];
  int64_t l, acc[FORAY_ABI_HEAD_DIM_MAX];
};

static int32_t score(const uint8_t *rec, uint32_t meta, uint32_t groups, const int16_t *q,
                     const uint8_t *shift, int32_t exp_q, const struct foray_desc_attn *d) {
  int64_t t = 0;
  const int64_t cap = 1 << 27;
  for (uint32_t g = 0; g < groups; g++) {
    uint32_t s = load16(rec + 2 * g);
    const int8_t *k = (const int8_t *)rec + meta + g * 32;
    int64_t dot = 0;
    for (int i = 0; i < 32; i++) dot += k[i] * q[g * 32 + (uint32_t)i];
    int32_t e = shift[g] + exp_q + (int32_t)(s >> 10) - 48 + d->scale_exp + 16;
    int64_t term = foray_rshift_round(dot * (1024 + (s & 1023)) * d->scale, -e);
    t += term > cap ? cap : term < -cap ? -cap : term;
  }
  return (int32_t)t;
}

static void block(const uint8_t *rec, uint32_t record, uint32_t meta, uint32_t groups, uint32_t n,
                  const int32_t *t, struct head_state *st) {
  int32_t top = t[0];
  for (uint32_t j = 1; j < n; j++)
    if (t[j] > top) top = t[j];
  int32_t ml = (top + 65535) >> 16;
  if (ml < st->ml) ml = st->ml;
  st->l = foray_rshift_round(st->l, ml - st->ml);
  st->ml = ml;
  int64_t p[FORAY_ABI_KV_BLOCK];
  int32_t whole[FORAY_ABI_KV_BLOCK];
  for (uint32_t j = 0; j < n; j++) {
    int64_t d = (int64_t)ml * 65536 - t[j];
    whole[j] = (int32_t)(d >> 16);
    p[j] = foray_exp2_neg_q30((uint32_t)(d & 0xffff));
    st->l += foray_rshift_round(p[j], whole[j]);
  }
  for (uint32_t g = 0; g < groups; g++) {
    int32_t mv = st->mv[g];
    for (uint32_t j = 0; j < n; j++) {
      int32_t a = (int32_t)(load16(rec + j * record + 2 * (groups + g)) >> 10) + ml - whole[j];
      if (a > mv) mv = a;
    }
    int64_t *acc = st->acc + g * 32;
    for (int i = 0; i < 32; i++) acc[i] = foray_rshift_round(acc[i], mv - st->mv[g]);
    st->mv[g] = mv;
    for (uint32_t j = 0; j < n; j++) {
      const uint8_t *r = rec + j * record;
      uint32_t s = load16(r + 2 * (groups + g));
      int32_t a = (int32_t)(s >> 10) + ml - whole[j];
      int64_t w = foray_rshift_round(p[j] * (1024 + (s & 1023)), 27 + mv - a);
      const int8_t *v = (const int8_t *)r + meta + (groups + g) * 32;
      for (int i = 0; i < 32; i++) acc[i] += 256 * w * v[i];
    }
  }
}

void foray_ref_attn(void *arg, const struct foray_desc_attn *d, const struct foray_kv *kv, int ncols,
                    const uint32_t *position, const struct foray_y32 *q, const struct foray_a16 *dst) {
  int64_t *out = foray_ref_work;
  static _Thread_local int32_t exps[FORAY_ABI_COLUMNS_LIMIT / 32];
  uint32_t hd = d->head_dim, groups = hd / 32, meta = kv->record - 2 * hd, per_kv = d->heads / d->kv_heads;
  for (int c = 0; c < ncols; c++) {
    foray_ref_quant(arg, d->heads * hd, q[c], dst[c]); /* q as A16 lives in dst until the end */
    int32_t exp_q = *dst[c].exp;
    for (uint32_t h = 0; h < d->heads; h++) {
      struct head_state st = {.ml = -(1 << 24)};
      for (uint32_t g = 0; g < groups; g++) st.mv[g] = -(1 << 24);
      const uint8_t *recs = kv->base + (uint64_t)(h / per_kv) * kv->max_pos * kv->record;
      for (uint32_t p = 0; p <= position[c]; p += FORAY_ABI_KV_BLOCK) {
        uint32_t n = position[c] - p + 1;
        if (n > FORAY_ABI_KV_BLOCK) n = FORAY_ABI_KV_BLOCK;
        int32_t t[FORAY_ABI_KV_BLOCK] = {0};
        for (uint32_t j = 0; j < n; j++)
          t[j] = score(recs + (uint64_t)(p + j) * kv->record, meta, groups, dst[c].m + h * hd,
                       dst[c].shift + h * groups, exp_q, d);
        block(recs + (uint64_t)p * kv->record, kv->record, meta, groups, n, t, &st);
      }
      int k = foray_bitlen64(st.l) - 32; /* l >= 2^29: its largest term is above one half */
      uint64_t lambda = k >= 0 ? (uint64_t)st.l >> k : (uint64_t)st.l << -k;
      int64_t inv = (int64_t)(((uint64_t)1 << 63) / lambda);
      for (uint32_t g = 0; g < groups; g++) {
        int bits = 0;
        for (int i = 0; i < 32; i++) {
          int b = foray_bitlen64(st.acc[g * 32 + (uint32_t)i]);
          if (b > bits) bits = b;
        }
        int sa = bits > 30 ? bits - 30 : 0;
        for (uint32_t i = 0; i < 32; i++)
          out[h * hd + g * 32 + i] = foray_rshift_round(st.acc[g * 32 + i], sa) * inv;
        exps[h * groups + g] = sa - 63 - k + st.mv[g] - st.ml - 29;
      }
    }
    foray_ref_to_a16(out, d->heads * hd, exps, 1, dst[c]);
  }
}
