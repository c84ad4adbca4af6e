/* KV_PUT and ATTN, docs/numerics.md 7 and 8. A kv head's records are read once, in blocks of 32 positions;
 * each block serves all query heads of the group and all columns of the pass before the next one is loaded.
 */
#include "include/hls_ops.h"

enum {
  HEAD_GROUPS = FORAY_ABI_HEAD_DIM_MAX / FORAY_ABI_GROUP,
  RECORD_WORDS = (FORAY_ABI_HEAD_DIM_MAX / 8 + 2 * FORAY_ABI_HEAD_DIM_MAX) / 8,
  BLOCK = FORAY_ABI_KV_BLOCK,
};

static uint32_t meta_words(uint32_t head_dim) { return (head_dim / 8 + 15) / 16 * 2; }
static uint32_t record_words(uint32_t head_dim) { return meta_words(head_dim) + head_dim / 4; }

/* ---- KV_PUT ---- */

/* 32 mantissas to codes; returns the 16-bit scale. */
static uint32_t encode(const int32_t *x, int32_t e, int8_t *codes) {
  uint64_t any = 0, top = 0;
  for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
    HLS_PIPELINE
    uint64_t a = hls_abs(x[i]);
    any |= a;
    if (a > top) top = a;
    codes[i] = 0;
  }
  if (!any) return 0;
  uint64_t num = (top << 32) / 127;
  int len = hls_bits_u(num);
  uint64_t s = (num + ((uint64_t)1 << (len - 11)) - 1) >> (len - 11);
  if (s == 2048) s = 1024, len++;
  int32_t x48 = e + len + 5;
  if (x48 < 0) return 0;
  if (x48 > 63) x48 = 63;
  int64_t inv = (int64_t)(((uint64_t)1 << 32) / s);
  for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
    HLS_PIPELINE
    int64_t c = hls_round(x[i] * inv, len - 11);
    codes[i] = (int8_t)(c > 127 ? 127 : c < -127 ? -127 : c);
  }
  return (uint32_t)x48 << 10 | (uint32_t)(s - 1024);
}

HLS_MEMORY(heap, gmem)
HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_kv_put(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                      uint32_t c0, uint32_t c1, uint32_t pos0, uint32_t kv, uint32_t max_pos) {
#ifdef FORAY_HLS_TOP_kv_put
  HLS_PORT_HEAP
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_PORT_SCALAR(pos0)
  HLS_PORT_SCALAR(kv)
  HLS_PORT_SCALAR(max_pos)
  HLS_PORT_RETURN
#endif
  HLS_LOCAL int32_t k[HLS_N], v[HLS_N];
  struct foray_desc_kv_put d;
  foray_desc_kv_put_unpack(desc, &d);
  uint32_t n = d.heads * d.head_dim, groups = d.head_dim / FORAY_ABI_GROUP, meta = meta_words(d.head_dim),
           words = record_words(d.head_dim);
  uint64_t base = (uint64_t)(kv + d.offset) * HLS_BEAT;
  for (uint32_t c = c0; c < c1; c++) {
    HLS_TRIP(1, 8)
    int32_t ek = hls_load_y32(scratch, hls_y32_at(d.k, n, c), n, k);
    int32_t ev = hls_load_y32(scratch, hls_y32_at(d.v, n, c), n, v);
    for (uint32_t h = 0; h < d.heads; h++) {
      foray_word rec[RECORD_WORDS];
      int8_t codes[FORAY_ABI_GROUP];
      for (uint32_t w = 0; w < meta; w++) rec[w] = 0;
      for (uint32_t g = 0; g < 2 * groups; g++) {
        int32_t x[FORAY_ABI_GROUP];
        for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
          HLS_PIPELINE
          uint32_t at = h * d.head_dim + g % groups * FORAY_ABI_GROUP + i;
          x[i] = g < groups ? k[at] : v[at];
        }
        rec[g / 4] |= (foray_word)encode(x, g < groups ? ek : ev, codes) << (16 * (g % 4));
        for (uint32_t w = 0; w < 4; w++) {
          foray_word x8 = 0;
          for (uint32_t i = 0; i < 8; i++) {
            HLS_UNROLL
            x8 |= (foray_word)(uint8_t)codes[8 * w + i] << (8 * i);
          }
          rec[meta + 4 * g + w] = x8;
        }
      }
      uint64_t at = base + ((uint64_t)h * max_pos + pos0 + c) * words;
      for (uint32_t w = 0; w < words; w++) {
        HLS_PIPELINE
        heap[at + w] = rec[w];
      }
    }
  }
}

/* ---- ATTN ---- */

/* One query head of one column. */
struct state {
  int32_t ml, mv[HEAD_GROUPS];
  int64_t l, acc[FORAY_ABI_HEAD_DIM_MAX];
};

static uint32_t scale_of(const foray_word *rec, uint32_t g) {
  return (uint32_t)(rec[g / 4] >> (16 * (g % 4))) & 0xffff;
}
static int32_t code_of(const foray_word *codes, uint32_t i) {
  return (int8_t)(uint8_t)(codes[i / 8] >> (8 * (i % 8)));
}

static void load_block(const foray_word *heap, uint64_t at, uint32_t words, foray_word *to) {
  HLS_INLINE_OFF
  for (uint32_t w = 0; w < words; w++) {
    HLS_PIPELINE
    HLS_TRIP(18, 2176)
    to[w] = heap[at + w];
  }
}

static int32_t score(const foray_word *rec, uint32_t meta, uint32_t groups, const int16_t *q,
                     const uint8_t *shift, int32_t exp_q, const struct foray_desc_attn *d) {
  const int64_t cap = 1 << 27;
  int64_t t = 0;
  for (uint32_t g = 0; g < groups; g++) {
    HLS_PIPELINE
    HLS_TRIP(1, 8)
    int32_t dot = 0;
    for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
      HLS_UNROLL
      dot += code_of(rec + meta + 4 * g, i) * q[g * FORAY_ABI_GROUP + i];
    }
    uint32_t s = scale_of(rec, g);
    int32_t e = shift[g] + exp_q + (int32_t)(s >> 10) - 48 + d->scale_exp + 16;
    int64_t term = hls_round((int64_t)dot * (1024 + (int32_t)(s & 1023)) * d->scale, -e);
    t += term > cap ? cap : term < -cap ? -cap : term;
  }
  return (int32_t)t;
}

static void begin(struct state *s) {
  s->ml = -(1 << 24);
  s->l = 0;
  for (uint32_t g = 0; g < HEAD_GROUPS; g++) s->mv[g] = -(1 << 24);
  for (uint32_t i = 0; i < FORAY_ABI_HEAD_DIM_MAX; i++) s->acc[i] = 0;
}

/* n positions' records enter the sums. */
static void take(const foray_word *recs, uint32_t words, uint32_t meta, uint32_t groups, uint32_t n,
                 const int32_t *t, struct state *s) {
  int32_t top = t[0], whole[BLOCK];
  int64_t p[BLOCK];
  for (uint32_t j = 1; j < n; j++) top = t[j] > top ? t[j] : top;
  int32_t ml = (top + 65535) >> 16;
  if (ml < s->ml) ml = s->ml;
  int64_t l = hls_round(s->l, ml - s->ml);
  for (uint32_t j = 0; j < n; j++) {
    HLS_PIPELINE
    HLS_TRIP(1, 32)
    int64_t below = (int64_t)ml * 65536 - t[j];
    whole[j] = (int32_t)(below >> 16);
    p[j] = hls_exp2_neg((uint32_t)(below & 0xffff));
    l += hls_round(p[j], whole[j]);
  }
  s->l = l;
  s->ml = ml;
  for (uint32_t g = 0; g < groups; g++) {
    HLS_TRIP(1, 8)
    int32_t mv = s->mv[g], a[BLOCK];
    uint32_t f[BLOCK];
    for (uint32_t j = 0; j < n; j++) {
      HLS_PIPELINE
      HLS_TRIP(1, 32)
      uint32_t x = scale_of(recs + j * words, groups + g);
      f[j] = 1024 + (x & 1023);
      a[j] = (int32_t)(x >> 10) + ml - whole[j];
      if (a[j] > mv) mv = a[j];
    }
    int64_t *acc = s->acc + g * FORAY_ABI_GROUP;
    for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
      HLS_UNROLL
      acc[i] = hls_round(acc[i], mv - s->mv[g]);
    }
    s->mv[g] = mv;
    for (uint32_t j = 0; j < n; j++) {
      HLS_PIPELINE
      HLS_TRIP(1, 32)
      int64_t w = hls_round(p[j] * f[j], 27 + mv - a[j]) * 256;
      for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
        HLS_UNROLL
        acc[i] += w * code_of(recs + j * words + meta + 4 * (groups + g), i);
      }
    }
  }
}

/* The weighted mean, in 64 bits with an exponent a group. */
static void finish(const struct state *s, uint32_t groups, int64_t *out, int32_t *exp) {
  int k = hls_bits_u(hls_abs(s->l)) - 32;
  uint64_t lambda = k >= 0 ? (uint64_t)s->l >> k : (uint64_t)s->l << -k;
  int64_t inv = (int64_t)(((uint64_t)1 << 63) / lambda);
  for (uint32_t g = 0; g < groups; g++) {
    HLS_TRIP(1, 8)
    uint64_t any = 0;
    for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
      HLS_PIPELINE
      any |= hls_abs(s->acc[g * FORAY_ABI_GROUP + i]);
    }
    int bits = hls_bits_u(any), sa = bits > 30 ? bits - 30 : 0;
    for (uint32_t i = 0; i < FORAY_ABI_GROUP; i++) {
      HLS_PIPELINE
      out[g * FORAY_ABI_GROUP + i] = hls_round(s->acc[g * FORAY_ABI_GROUP + i], sa) * inv;
    }
    exp[g] = sa - 63 - k + s->mv[g] - s->ml - 29;
  }
}

HLS_MEMORY(heap, gmem)
HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_attention(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                         uint32_t c0, uint32_t c1, uint32_t pos0, uint32_t kv, uint32_t max_pos) {
#ifdef FORAY_HLS_TOP_attention
  HLS_PORT_HEAP
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(c1)
  HLS_PORT_SCALAR(pos0)
  HLS_PORT_SCALAR(kv)
  HLS_PORT_SCALAR(max_pos)
  HLS_PORT_RETURN
#endif
  HLS_LOCAL int32_t x[HLS_N];
  HLS_LOCAL int64_t out[FORAY_HLS_COLS][HLS_N];
  HLS_LOCAL int32_t exps[FORAY_HLS_COLS][FORAY_HLS_GROUPS];
  HLS_LOCAL int16_t q[FORAY_HLS_COLS][HLS_N];
  HLS_LOCAL uint8_t shift[FORAY_HLS_COLS][FORAY_HLS_GROUPS];
  HLS_LOCAL struct state state[FORAY_HLS_HEADS][FORAY_HLS_COLS];
  HLS_LOCAL foray_word recs[BLOCK * RECORD_WORDS];
  int32_t exp_q[FORAY_HLS_COLS];
  struct foray_desc_attn d;
  foray_desc_attn_unpack(desc, &d);
  uint32_t n = d.heads * d.head_dim, groups = d.head_dim / FORAY_ABI_GROUP, share = d.heads / d.kv_heads,
           meta = meta_words(d.head_dim), words = record_words(d.head_dim), newest = pos0 + c1 - 1;
  for (uint32_t c = c0; c < c1; c++) { /* queries to A16 over all heads */
    HLS_TRIP(1, 8)
    int32_t e = hls_load_y32(scratch, hls_y32_at(d.q, n, c), n, x);
    for (uint32_t i = 0; i < n; i++) {
      HLS_PIPELINE
      HLS_TRIP(32, 16384)
      out[c - c0][i] = x[i];
    }
    exp_q[c - c0] = hls_to_a16(out[c - c0], n, &e, 0, q[c - c0], shift[c - c0]);
  }
  for (uint32_t h = 0; h < d.kv_heads; h++) {
    HLS_TRIP(1, 8)
    uint64_t base = (uint64_t)(kv + d.offset) * HLS_BEAT + (uint64_t)h * max_pos * words;
    for (uint32_t s = 0; s < share; s++)
      for (uint32_t c = c0; c < c1; c++) begin(&state[s][c - c0]);
    for (uint32_t p = 0; p <= newest; p += BLOCK) {
      HLS_TRIP(1, 2048)
      uint32_t have = newest - p + 1 < BLOCK ? newest - p + 1 : BLOCK;
      load_block(heap, base + (uint64_t)p * words, have * words, recs);
      for (uint32_t s = 0; s < share; s++)
        for (uint32_t c = c0; c < c1; c++) {
          HLS_TRIP(1, 8)
#ifdef FORAY_MUTANT_HLS_NOT_CAUSAL
          if (newest < p) continue;
          uint32_t own = newest - p + 1 < BLOCK ? newest - p + 1 : BLOCK, head = h * share + s;
#else
          if (pos0 + c < p) continue;
          uint32_t own = pos0 + c - p + 1 < BLOCK ? pos0 + c - p + 1 : BLOCK, head = h * share + s;
#endif
          int32_t t[BLOCK] = {0};
          for (uint32_t j = 0; j < own; j++) {
            HLS_TRIP(1, 32)
            t[j] = score(recs + j * words, meta, groups, q[c - c0] + head * d.head_dim,
                         shift[c - c0] + head * groups, exp_q[c - c0], &d);
          }
          take(recs, words, meta, groups, own, t, &state[s][c - c0]);
        }
    }
    for (uint32_t s = 0; s < share; s++)
      for (uint32_t c = c0; c < c1; c++) {
        uint32_t head = h * share + s;
        finish(&state[s][c - c0], groups, out[c - c0] + head * d.head_dim, exps[c - c0] + head * groups);
      }
  }
  for (uint32_t c = c0; c < c1; c++) {
    HLS_TRIP(1, 8)
    int32_t e = hls_to_a16(out[c - c0], n, exps[c - c0], 1, q[c - c0], shift[c - c0]);
    hls_store_a16(scratch, hls_a16_at(d.dst, n, c), n, q[c - c0], shift[c - c0], e);
  }
}
