#include "stub.h"

#include "dev/exit.h"
#include "dev/ref.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCRATCH_UNITS = 1 << 17, QUEUE = 1 << 16 };

static struct {
  uint8_t *heap;
  uint64_t heap_bytes, wrong;
  uint8_t scratch[(size_t)SCRATCH_UNITS * 64];
  /* what the streams of the present op must bring */
  const uint8_t *ws;
  uint32_t ax_n, ax_i, kr_n, kr_i;
  uint64_t ax[QUEUE]; /* heap offsets of units */
  struct {
    uint64_t at;
    uint32_t n;
  } kr[FORAY_ABI_HEADS_MAX];
  uint32_t kv_i, kv_at;
  /* logits */
  int32_t *logits[FORAY_ABI_COLS_MAX];
  int32_t store[FORAY_ABI_COLS_MAX][1 << 18];
  uint32_t lg_row, lg_col, lg_c0, lg_c1, lg_used;
  const uint32_t *ids;
  struct foray_exit_unit unit[FORAY_ABI_COLS_MAX];
} g;

void foray_stub_bind(uint8_t *heap, uint64_t heap_bytes) {
  g.heap = heap, g.heap_bytes = heap_bytes, g.wrong = 0;
}
uint64_t foray_stub_wrong(void) { return g.wrong; }

static void wrong(const char *what, uint64_t at) {
  if (g.wrong++ < 10) fprintf(stderr, "stub: %s differs at heap byte %llu\n", what, (unsigned long long)at);
}

static struct foray_a16 a16(uint32_t unit, uint32_t n, uint32_t col) {
  uint8_t *p = g.scratch + (uint64_t)unit * 64 + foray_dev_a16_bytes(n) * col;
  return (struct foray_a16){(int32_t *)(void *)p, (int16_t *)(void *)(p + 64),
                            p + 64 + foray_dev_up(2 * (uint64_t)n, 64)};
}
static struct foray_y32 y32(uint32_t unit, uint32_t n, uint32_t col) {
  uint8_t *p = g.scratch + (uint64_t)unit * 64 + foray_dev_y32_bytes(n) * col;
  return (struct foray_y32){(int32_t *)(void *)p, (int32_t *)(void *)(p + 64)};
}
static struct foray_matrix matrix(uint32_t qtype, uint32_t rows, uint32_t cols, bool bias, uint32_t addr,
                                  int32_t exp, int32_t bias_exp) {
  struct foray_matrix m = {.qtype = qtype, .rows = rows, .cols = cols, .exp = exp, .bias_exp = bias_exp};
  (void)foray_dev_matrix_of(qtype, rows, cols, bias, &m.layout);
  const uint8_t *p = g.heap + (uint64_t)addr * 64;
  m.mant = (const uint16_t *)(const void *)p;
  m.bias = bias ? (const int32_t *)(const void *)(p + m.layout.bias_at) : NULL;
  m.data = p + m.layout.data_at;
  return m;
}

static void want(uint64_t at, uint64_t bytes) {
  for (uint64_t b = 0; b < bytes && g.ax_n < QUEUE; b += 64) g.ax[g.ax_n++] = at + b;
}

void foray_stub_sp_read(int unit, uint32_t *data);
void foray_stub_sp_write(int unit, const uint32_t *data, int strobes);
void foray_stub_op(const uint32_t *desc, int c0, int c1, int pos0, int kv, int max_pos,
                   const uint32_t *tokens, unsigned char score, int *ws_bits, int *ax_units);
void foray_stub_ws(const uint32_t *data, int bits);
void foray_stub_ax(const uint32_t *data);
int foray_stub_logit(int *col, int *row, int *id, int *logit, int *last);
int foray_stub_kr(long long *addr, int *bytes);
int foray_stub_kv(const uint32_t *data, unsigned char last);
void foray_stub_clear(void);
void foray_stub_exit_logit(int col, int id, int logit, unsigned char sample, int inv_temp, long long seed,
                           int position);
void foray_stub_finish(int col, int cum, const uint32_t *exit_rule, const uint32_t *stop_rule,
                       uint32_t *entry, unsigned char *exit_ge0, unsigned char *stop_lt0);

void foray_stub_sp_read(int unit, uint32_t *data) { memcpy(data, g.scratch + (size_t)unit * 64, 64); }
void foray_stub_sp_write(int unit, const uint32_t *data, int strobes) {
  for (int l = 0; l < 16; l++)
    if (strobes >> l & 1) memcpy(g.scratch + (size_t)unit * 64 + 4 * l, data + l, 4);
}

static struct foray_kv kv_of(uint32_t kv, uint32_t offset, uint32_t hd, uint32_t heads, uint32_t max_pos) {
  return (struct foray_kv){g.heap + ((uint64_t)kv + offset) * 64, max_pos, foray_dev_kv_record(hd), hd,
                           heads};
}

void foray_stub_op(const uint32_t *w, int c0, int c1, int pos0, int kv_unit, int max_pos,
                   const uint32_t *tokens, unsigned char score, int *ws_bits, int *ax_units) {
  const struct foray_kernels *k = &foray_ref_kernels;
  (void)score;
  g.ax_n = g.ax_i = g.kr_n = g.kr_i = g.kv_i = g.kv_at = 0;
  g.lg_used = 0;
  *ws_bits = 0;
  uint32_t a = (uint32_t)c0, b = (uint32_t)c1;
  switch (w[0] & 0xff) {
  case FORAY_OP_EMBED: {
    struct foray_desc_embed d;
    foray_desc_embed_unpack(w, &d);
    struct foray_matrix m = matrix(d.qtype, d.rows, d.cols, false, d.addr, d.exp, 0);
    for (uint32_t c = a; c < b; c++) {
      k->embed(NULL, &m, tokens[c], y32(d.dst, d.cols, c));
      uint64_t at = (uint64_t)d.addr * 64;
      want(at + tokens[c] / 32 * 64, 64);
      want(at + m.layout.data_at + tokens[c] / 16 * m.layout.block_bytes, m.layout.block_bytes);
    }
    break;
  }
  case FORAY_OP_RMSNORM: {
    struct foray_desc_rmsnorm d;
    foray_desc_rmsnorm_unpack(w, &d);
    for (uint32_t c = a; c < b; c++) {
      k->rmsnorm(NULL, &d, (const int32_t *)(const void *)(g.heap + (uint64_t)d.gamma * 64),
                 y32(d.src, d.n, c), a16(d.dst, d.n, c));
      want((uint64_t)d.gamma * 64, 4 * (uint64_t)d.n);
    }
    break;
  }
  case FORAY_OP_GEMV: {
    struct foray_desc_gemv d;
    foray_desc_gemv_unpack(w, &d);
    bool bias = (d.flags & FORAY_DF_BIAS) != 0;
    struct foray_matrix m = matrix(d.qtype, d.rows, d.cols, bias, d.addr, d.exp, d.bias_exp);
    struct foray_a16 src[8];
    struct foray_y32 dst[8];
    for (uint32_t c = a; c < b; c++)
      src[c - a] = a16(d.src, d.cols, c), dst[c - a] = y32(d.dst, m.layout.rows_pad, c);
    k->gemv(NULL, &m, c1 - c0, src, dst);
    g.ws = m.data;
    *ws_bits = (int)(m.layout.block_bytes * (m.layout.rows_pad / 16) * 8);
    uint64_t at = (uint64_t)d.addr * 64;
    if (bias) want(at + m.layout.bias_at, 4 * (uint64_t)m.layout.rows_pad);
    want(at, m.layout.bias_at);
    if (bias) want(at + m.layout.bias_at, 4 * (uint64_t)m.layout.rows_pad);
    break;
  }
  case FORAY_OP_HEAD: {
    struct foray_desc_head d;
    foray_desc_head_unpack(w, &d);
    struct foray_matrix m = matrix(d.qtype, d.rows, d.cols, false, d.addr, d.exp, 0);
    struct foray_a16 src[8];
    for (uint32_t c = a; c < b; c++) src[c - a] = a16(d.src, d.cols, c), g.logits[c - a] = g.store[c - a];
    k->head(NULL, &m, d.used, c1 - c0, src, g.logits);
    uint32_t take = (d.used + 15) & ~15u;
    g.ws = m.data;
    *ws_bits = (int)(m.layout.block_bytes * (take / 16) * 8);
    uint64_t at = (uint64_t)d.addr * 64;
    if (!d.ids)
      want(at, foray_dev_up(2 * (uint64_t)take, 64));
    else
      for (uint32_t r = 0; r < take; r += 512) {
        uint32_t n = take - r < 512 ? take - r : 512;
        want(at + 2 * (uint64_t)r, 2 * (uint64_t)n);
        want((uint64_t)d.ids * 64 + 4 * (uint64_t)r, 4 * (uint64_t)n);
      }
    g.ids = d.ids ? (const uint32_t *)(const void *)(g.heap + (uint64_t)d.ids * 64) : NULL;
    g.lg_used = d.used, g.lg_c0 = a, g.lg_c1 = b, g.lg_col = a, g.lg_row = 0;
    break;
  }
  case FORAY_OP_ROPE: {
    struct foray_desc_rope d;
    foray_desc_rope_unpack(w, &d);
    for (uint32_t c = a; c < b; c++) {
      k->rope(NULL, &d, (const uint64_t *)(const void *)(g.heap + (uint64_t)d.freq * 64), (uint32_t)pos0 + c,
              y32(d.vec, d.heads * d.head_dim, c));
      want((uint64_t)d.freq * 64, 4 * (uint64_t)d.head_dim);
    }
    break;
  }
  case FORAY_OP_KV_PUT: {
    struct foray_desc_kv_put d;
    foray_desc_kv_put_unpack(w, &d);
    struct foray_kv kv = kv_of((uint32_t)kv_unit, d.offset, d.head_dim, d.heads, (uint32_t)max_pos);
    uint32_t n = d.heads * d.head_dim;
    for (uint32_t c = a; c < b; c++) k->kv_put(NULL, &kv, (uint32_t)pos0 + c, y32(d.k, n, c), y32(d.v, n, c));
    break;
  }
  case FORAY_OP_ATTN: {
    struct foray_desc_attn d;
    foray_desc_attn_unpack(w, &d);
    struct foray_kv kv = kv_of((uint32_t)kv_unit, d.offset, d.head_dim, d.kv_heads, (uint32_t)max_pos);
    struct foray_y32 q[8];
    struct foray_a16 dst[8];
    uint32_t pos[8], n = d.heads * d.head_dim;
    for (uint32_t c = a; c < b; c++)
      q[c - a] = y32(d.q, n, c), dst[c - a] = a16(d.dst, n, c), pos[c - a] = (uint32_t)pos0 + c;
    k->attn(NULL, &d, &kv, c1 - c0, pos, q, dst);
    for (uint32_t h = 0; h < d.kv_heads; h++) {
      g.kr[h].at = (uint64_t)(kv.base - g.heap) + (uint64_t)h * kv.max_pos * kv.record;
      g.kr[h].n = ((uint32_t)pos0 + b) * kv.record;
    }
    g.kr_n = d.kv_heads;
    break;
  }
  case FORAY_OP_SILU_MUL: {
    struct foray_desc_silu_mul d;
    foray_desc_silu_mul_unpack(w, &d);
    for (uint32_t c = a; c < b; c++)
      k->silu_mul(NULL, d.n, y32(d.gate, d.n, c), y32(d.up, d.n, c), a16(d.dst, d.n, c));
    break;
  }
  case FORAY_OP_QUANT: {
    struct foray_desc_quant d;
    foray_desc_quant_unpack(w, &d);
    for (uint32_t c = a; c < b; c++) k->quant(NULL, d.n, y32(d.src, d.n, c), a16(d.dst, d.n, c));
    break;
  }
  case FORAY_OP_ADD: {
    struct foray_desc_add d;
    foray_desc_add_unpack(w, &d);
    for (uint32_t c = a; c < b; c++) k->add(NULL, d.n, y32(d.acc, d.n, c), y32(d.src, d.n, c));
    break;
  }
  default: break;
  }
  *ax_units = (int)g.ax_n;
}

void foray_stub_ws(const uint32_t *data, int bits) {
  if (memcmp(data, g.ws, (size_t)bits / 8)) wrong("weight beat", (uint64_t)(g.ws - g.heap));
  g.ws += bits / 8;
}
void foray_stub_ax(const uint32_t *data) {
  if (g.ax_i < g.ax_n && memcmp(data, g.heap + g.ax[g.ax_i], 64)) wrong("aux unit", g.ax[g.ax_i]);
  g.ax_i++;
}
int foray_stub_logit(int *col, int *row, int *id, int *logit, int *last) {
  *col = *row = *id = *logit = *last = 0;
  if (g.lg_row >= g.lg_used) return 0;
  uint32_t block = g.lg_row & ~15u;
  *col = (int)g.lg_col, *row = (int)g.lg_row;
  *id = (int)(g.ids ? g.ids[g.lg_row] : g.lg_row);
  *logit = g.store[g.lg_col - g.lg_c0][g.lg_row];
  *last = g.lg_row + 1 == g.lg_used;
  g.lg_row++;
  if (g.lg_row % 16 == 0 || g.lg_row == g.lg_used) {
    if (++g.lg_col < g.lg_c1)
      g.lg_row = block;
    else
      g.lg_col = g.lg_c0;
  }
  return 1;
}
int foray_stub_kr(long long *addr, int *bytes) {
  *addr = *bytes = 0;
  if (g.kr_i == g.kr_n) return 0;
  *addr = (long long)g.kr[g.kr_i].at, *bytes = (int)g.kr[g.kr_i].n;
  g.kr_i++;
  return 1;
}
/* 1 at the end of a request. */
int foray_stub_kv(const uint32_t *data, unsigned char last) {
  uint32_t left = g.kr[g.kv_i].n - g.kv_at, n = left < 64 ? left : 64;
  if (memcmp(data, g.heap + g.kr[g.kv_i].at + g.kv_at, n)) wrong("KV beat", g.kr[g.kv_i].at + g.kv_at);
  if ((left <= 64) != (last != 0)) wrong("end of KV", g.kr[g.kv_i].at + g.kv_at);
  g.kv_at += 64;
  if (left > 64) return 0;
  g.kv_i++, g.kv_at = 0;
  return 1;
}
void foray_stub_clear(void) {
  for (int c = 0; c < FORAY_ABI_COLS_MAX; c++) foray_exit_clear(&g.unit[c]);
}
void foray_stub_exit_logit(int col, int id, int logit, unsigned char sample, int inv_temp, long long seed,
                           int position) {
  struct foray_sampling s = {sample != 0, (uint32_t)inv_temp, (uint64_t)seed, (uint32_t)position};
  int32_t l = logit;
  uint32_t i = (uint32_t)id;
  foray_ref_exit_stream(NULL, &l, &i, 1, &s, &g.unit[col]);
}
void foray_stub_finish(int col, int cum, const uint32_t *exit_rule, const uint32_t *stop_rule,
                       uint32_t *entry, unsigned char *exit_ge0, unsigned char *stop_lt0) {
  struct foray_rec_ring r;
  memset(&r, 0, sizeof r);
  foray_exit_finish(&g.unit[col], cum, &r);
  foray_rec_ring_pack(&r, entry);
  *exit_ge0 = foray_exit_rule((const int32_t *)exit_rule, &r) >= 0;
  *stop_lt0 = foray_exit_rule((const int32_t *)stop_rule, &r) < 0;
}
