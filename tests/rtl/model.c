#include "model.h"

#include "dev/ref.h"

int model_matrix_layout(struct model_matrix *m) {
  struct foray_dev_matrix l;
  if (!foray_dev_matrix_of(m->qtype, m->rows, m->cols, m->bias != 0, &l)) return 0;
  m->bias_at = l.bias_at, m->data_at = l.data_at, m->size = l.bytes, m->block_bytes = l.block_bytes;
  m->rows_pad = l.rows_pad, m->groups = l.groups;
  return 1;
}

static struct foray_matrix matrix(const struct model_matrix *m) {
  struct foray_matrix w = {
      .qtype = m->qtype, .rows = m->rows, .cols = m->cols, .exp = m->exp, .bias_exp = m->bias_exp};
  w.mant = (const uint16_t *)(const void *)m->bytes;
  w.bias = m->bias ? (const int32_t *)(const void *)(m->bytes + m->bias_at) : NULL;
  w.data = m->bytes + m->data_at;
  foray_dev_matrix_of(m->qtype, m->rows, m->cols, m->bias != 0, &w.layout);
  return w;
}

static struct foray_a16 a16(uint8_t *p, uint32_t n, uint32_t c) {
  p += foray_dev_a16_bytes(n) * c;
  return (struct foray_a16){(int32_t *)(void *)p, (int16_t *)(void *)(p + 64),
                            p + 64 + foray_dev_up(2 * (uint64_t)n, 64)};
}
static struct foray_y32 y32(uint8_t *p, uint32_t n, uint32_t c) {
  p += foray_dev_y32_bytes(n) * c;
  return (struct foray_y32){(int32_t *)(void *)p, (int32_t *)(void *)(p + 64)};
}

uint32_t model_a16_units(uint32_t n) { return (uint32_t)(foray_dev_a16_bytes(n) / 64); }
uint32_t model_y32_units(uint32_t n) { return (uint32_t)(foray_dev_y32_bytes(n) / 64); }
uint32_t model_kv_record(uint32_t head_dim) { return foray_dev_kv_record(head_dim); }

void model_gemv(const struct model_matrix *m, int ncols, uint8_t *src, uint8_t *dst) {
  struct foray_matrix w = matrix(m);
  struct foray_a16 s[FORAY_ABI_COLS_MAX];
  struct foray_y32 d[FORAY_ABI_COLS_MAX];
  for (int c = 0; c < ncols; c++)
    s[c] = a16(src, m->cols, (uint32_t)c), d[c] = y32(dst, m->rows_pad, (uint32_t)c);
  foray_ref_gemv(NULL, &w, ncols, s, d);
}

void model_head(const struct model_matrix *m, uint32_t used, int ncols, uint8_t *src, int32_t *logits) {
  struct foray_matrix w = matrix(m);
  struct foray_a16 s[FORAY_ABI_COLS_MAX];
  int32_t *out[FORAY_ABI_COLS_MAX];
  for (int c = 0; c < ncols; c++) s[c] = a16(src, m->cols, (uint32_t)c), out[c] = logits + (size_t)c * used;
  foray_ref_head(NULL, &w, used, ncols, s, out);
}

void model_kv_put(uint8_t *kv, uint32_t max_pos, uint32_t head_dim, uint32_t heads, uint32_t position,
                  uint8_t *k, uint8_t *v) {
  struct foray_kv r = {kv, max_pos, foray_dev_kv_record(head_dim), head_dim, heads};
  foray_ref_kv_put(NULL, &r, position, y32(k, heads * head_dim, 0), y32(v, heads * head_dim, 0));
}

void model_attn(const struct model_attn *a, uint8_t *kv, int ncols, uint32_t first_position, uint8_t *q,
                uint8_t *dst) {
  struct foray_kv r = {kv, a->max_pos, foray_dev_kv_record(a->head_dim), a->head_dim, a->kv_heads};
  struct foray_desc_attn d = {.head_dim = (uint16_t)a->head_dim,
                              .heads = (uint16_t)a->heads,
                              .kv_heads = (uint16_t)a->kv_heads,
                              .scale_exp = (int16_t)a->scale_exp,
                              .scale = a->scale};
  struct foray_y32 qs[FORAY_ABI_COLS_MAX];
  struct foray_a16 ds[FORAY_ABI_COLS_MAX];
  uint32_t pos[FORAY_ABI_COLS_MAX], n = a->heads * a->head_dim;
  for (int c = 0; c < ncols; c++) {
    qs[c] = y32(q, n, (uint32_t)c), ds[c] = a16(dst, n, (uint32_t)c);
    pos[c] = first_position + (uint32_t)c;
  }
  foray_ref_attn(NULL, &d, &r, ncols, pos, qs, ds);
}
