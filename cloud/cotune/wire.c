#include "cotune/wire.h"

#include <math.h>
#include <string.h>

#include "core/err.h"
#include "model/quant.h"

static const uint32_t MAGIC = 0x54434f46; /* "FOCT" */

static enum foray_status head(struct foray_buf *m, enum foray_wire_kind kind, int round, int device,
                              uint32_t count) {
  uint32_t h[6] = {MAGIC, (uint32_t)kind, (uint32_t)round, (uint32_t)device, count, 0};
  foray_buf_init(m, FORAY_WIRE_MAX);
  return foray_buf_add(m, h, sizeof h);
}
static enum foray_status fail(enum foray_status st, struct foray_err *err) {
  return st ? foray_err_set(err, st, "message: %s", st == FORAY_E_LIMIT ? "too large" : "out of memory")
            : FORAY_OK;
}

enum foray_status foray_wire_put_values(struct foray_buf *m, enum foray_wire_kind kind, int round, int device,
                                        const float *v, size_t n, struct foray_err *err) {
  enum foray_status st = n < UINT32_MAX ? head(m, kind, round, device, (uint32_t)n) : FORAY_E_LIMIT;
  uint16_t block[512];
  for (size_t at = 0; !st && at < n;) {
    size_t k = n - at < 512 ? n - at : 512;
    for (size_t i = 0; i < k; i++) block[i] = foray_f32_bf16(v[at + i]);
    st = foray_buf_add(m, block, k * 2);
    at += k;
  }
  return fail(st, err);
}

enum foray_status foray_wire_put_tops(struct foray_buf *m, int round, int device,
                                      const struct foray_sparse *tops, const int *count, const double *ce,
                                      int examples, struct foray_err *err) {
  enum foray_status st = head(m, FORAY_WIRE_TOPS, round, device, (uint32_t)examples);
  for (int e = 0; !st && e < examples; e++) {
    float c = ce ? (float)ce[e] : 0;
    st = foray_buf_add(m, &c, sizeof c);
    for (int i = 0; !st && i < count[e]; i++, tops++) {
      uint16_t n = (uint16_t)tops->n, p;
      st = foray_buf_add(m, &n, 2);
      for (int k = 0; !st && k < tops->n; k++) {
        p = foray_f32_bf16(tops->p[k]);
        st = foray_buf_add(m, &tops->row[k], 4);
        if (!st) st = foray_buf_add(m, &p, 2);
      }
    }
  }
  return fail(st, err);
}

void foray_wire_count(struct foray_wire *w, bool up, uint64_t bytes) { *(up ? &w->up : &w->down) += bytes; }
void foray_wire_send(struct foray_wire *w, bool up, const struct foray_buf *m) {
  foray_wire_count(w, up, m->len);
  if (w->log) fwrite(m->data, 1, m->len, w->log);
}

enum foray_status foray_wire_head(const struct foray_buf *m, struct foray_wire_head *out,
                                  struct foray_err *err) {
  uint32_t h[6];
  if (m->len < sizeof h) return foray_err_set(err, FORAY_E_FORMAT, "message of %zu bytes: truncated", m->len);
  memcpy(h, m->data, sizeof h);
  if (h[0] != MAGIC)
    return foray_err_set(err, FORAY_E_FORMAT, "message does not begin with its magic number");
  *out = (struct foray_wire_head){(enum foray_wire_kind)h[1], (int)h[2], (int)h[3], h[4]};
  return FORAY_OK;
}

enum foray_status foray_wire_get_values(const struct foray_buf *m, enum foray_wire_kind kind, float *v,
                                        size_t n, struct foray_err *err) {
  struct foray_wire_head h;
  enum foray_status st = foray_wire_head(m, &h, err);
  if (st) return st;
  if (h.kind != kind || h.count != n || m->len != FORAY_WIRE_HEADER + 2 * n)
    return foray_err_set(err, FORAY_E_FORMAT,
                         "message of kind %d with %u values in %zu bytes; expected kind %d, %zu values",
                         (int)h.kind, h.count, m->len, (int)kind, n);
  for (size_t i = 0; i < n; i++) {
    uint16_t b;
    memcpy(&b, m->data + FORAY_WIRE_HEADER + 2 * i, 2);
    v[i] = foray_bf16_f32(b);
    if (!isfinite(v[i])) return foray_err_set(err, FORAY_E_FORMAT, "message: value %zu is not finite", i);
  }
  return FORAY_OK;
}

enum foray_status foray_wire_get_tops(const struct foray_buf *m, int k, uint32_t vocab,
                                      struct foray_sparse *tops, const int *count, double *ce, int examples,
                                      struct foray_err *err) {
  struct foray_wire_head h;
  size_t at = FORAY_WIRE_HEADER;
  enum foray_status st = foray_wire_head(m, &h, err);
  if (!st && (h.kind != FORAY_WIRE_TOPS || h.count != (uint32_t)examples))
    st = foray_err_set(err, FORAY_E_FORMAT, "message of kind %d for %u examples", (int)h.kind, h.count);
  for (int e = 0; !st && e < examples; e++) {
    float c = 0;
    bool ok = at + sizeof c <= m->len;
    if (ok) memcpy(&c, m->data + at, sizeof c);
    at += sizeof c;
    if (ce) ce[e] = (double)c;
    for (int i = 0; ok && i < count[e]; i++, tops++) {
      uint16_t n = 0, p;
      if ((ok = at + 2 <= m->len)) memcpy(&n, m->data + at, 2);
      at += 2;
      ok = ok && n <= k && at + 6 * (size_t)n <= m->len;
      tops->n = ok ? n : 0;
      for (int q = 0; ok && q < n; q++, at += 6) {
        memcpy(&tops->row[q], m->data + at, 4);
        memcpy(&p, m->data + at + 4, 2);
        tops->p[q] = foray_bf16_f32(p);
        ok = (uint32_t)tops->row[q] < vocab && tops->p[q] >= 0 && tops->p[q] <= 1.0f;
      }
    }
    if (!ok || !isfinite(c))
      st = foray_err_set(err, FORAY_E_FORMAT, "message: example %d: truncated or out of range", e);
  }
  if (!st && at != m->len)
    st = foray_err_set(err, FORAY_E_FORMAT, "message: %zu bytes behind its end", m->len - at);
  return st;
}
