/* Rows of the source model as the image wants them. */
#include "model/pack_job.h"

#include "core/err.h"
#include "model/quant.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const struct foray_gguf_tensor *source(const struct foray_pack_job *j,
                                              const struct foray_image_tensor *t) {
  static const enum foray_role role[] = {
      [FORAY_IMAGE_ATTN_NORM] = FORAY_ROLE_ATTN_NORM,     [FORAY_IMAGE_ATTN_Q] = FORAY_ROLE_ATTN_Q,
      [FORAY_IMAGE_ATTN_K] = FORAY_ROLE_ATTN_K,           [FORAY_IMAGE_ATTN_V] = FORAY_ROLE_ATTN_V,
      [FORAY_IMAGE_ATTN_OUTPUT] = FORAY_ROLE_ATTN_OUTPUT, [FORAY_IMAGE_FFN_NORM] = FORAY_ROLE_FFN_NORM,
      [FORAY_IMAGE_FFN_GATE] = FORAY_ROLE_FFN_GATE,       [FORAY_IMAGE_FFN_UP] = FORAY_ROLE_FFN_UP,
      [FORAY_IMAGE_FFN_DOWN] = FORAY_ROLE_FFN_DOWN,       [FORAY_IMAGE_OUTPUT_NORM] = FORAY_ROLE_OUTPUT_NORM,
      [FORAY_IMAGE_TOKEN_EMBD] = FORAY_ROLE_TOKEN_EMBD,
  };
  if (t->role == FORAY_IMAGE_HEAD || t->role == FORAY_IMAGE_HEAD_FULL) return foray_model_head(j->m);
  return foray_model_tensor(j->m, role[t->role], t->index);
}

/* Row of the source that row r of the image is. */
static uint32_t source_row(const struct foray_pack_job *j, const struct foray_image_tensor *t, uint32_t r) {
  if (t->role == FORAY_IMAGE_HEAD) return j->vocab[r];
  if ((t->role == FORAY_IMAGE_ATTN_Q || t->role == FORAY_IMAGE_ATTN_K) &&
      j->m->config.rope_style == FORAY_ROPE_NORM) {
    uint32_t hd = j->m->config.head_dim, h = r / hd, i = r % hd;
    return h * hd + (i < hd / 2 ? 2 * i : 2 * (i - hd / 2) + 1);
  }
  return r;
}

/* Row r of q or k is multiplied by 2^this. A large bias of k (Qwen2) makes single channels of K a hundred
 * times larger than their neighbours, and a group of 32 int8 codes then has nothing left for these. The
 * channel pairs that RoPE rotates together are made smaller in k and as much larger in q, by powers of two:
 * no product changes, the codes do (docs/image.md; Qwen 0.5B: KL of int8 K from .0062 to .0003). 0.7 of the
 * bias' log2 measured best: 1 gave .0010. */
static int smoothing(const struct foray_pack_job *j, const struct foray_image_tensor *t, uint32_t r) {
  if (t->role != FORAY_IMAGE_ATTN_Q && t->role != FORAY_IMAGE_ATTN_K) return 0;
  const struct foray_model_config *c = &j->m->config;
  const struct foray_gguf_tensor *s = foray_model_tensor(j->m, FORAY_ROLE_ATTN_K_BIAS, t->index);
  uint32_t hd = c->head_dim, half = hd / 2, rows = c->n_head_kv * hd;
  if (!s || rows == 0) return 0;
  float *bias = malloc(rows * sizeof *bias);
  if (!bias || foray_dequant_row(s->type, s->data, bias, rows) != FORAY_OK) {
    free(bias);
    return 0; /* the caller meets the same failure */
  }
  const struct foray_image_tensor k = {.role = FORAY_IMAGE_ATTN_K, .index = t->index};
  uint32_t head = r / hd, pair = r % half;
  if (t->role == FORAY_IMAGE_ATTN_Q) head /= c->n_head / c->n_head_kv;
  double a = bias[source_row(j, &k, head * hd + pair)], b = bias[source_row(j, &k, head * hd + pair + half)];
  double square = a * a + b * b;
  free(bias);
  int e = square > 1 && isfinite(square) ? ilogb(square) : 0; /* 2 log2 of the pair's length */
  int shift = (7 * e + 10) / 20;
  if (shift > 12) shift = 12;
  return t->role == FORAY_IMAGE_ATTN_Q ? shift : -shift;
}

enum foray_status foray_pack_row(const struct foray_pack_job *j, const struct foray_image_tensor *t,
                                 uint32_t r, float *dst, struct foray_err *err) {
  if (t->role == FORAY_IMAGE_EXIT_NORM || t->role == FORAY_IMAGE_EXIT_MAP ||
      t->role == FORAY_IMAGE_EXIT_PREV) {
    const struct foray_exits_head *e = &j->exits->exit[t->index];
    const float *src = t->role == FORAY_IMAGE_EXIT_NORM
                           ? e->norm
                           : (t->role == FORAY_IMAGE_EXIT_MAP ? e->map : e->prev) + (size_t)r * t->cols;
    memcpy(dst, src, t->cols * sizeof *dst);
    return FORAY_OK;
  }
  const struct foray_gguf_tensor *s = source(j, t);
  if (!s) return foray_err_set(err, FORAY_E_FORMAT, "%s: no tensor %s", foray_gguf_path(j->m->gguf), t->name);
  uint32_t from = source_row(j, t, r);
  enum foray_status st = foray_dequant_row(s->type, foray_tensor_row(s, from), dst, t->cols);
  if (st != FORAY_OK) {
    return foray_err_set(err, st, "%s: %s: type %s has no float values", foray_gguf_path(j->m->gguf), s->name,
                         foray_type_info(s->type) ? foray_type_info(s->type)->name : "?");
  }
  if (j->exits) st = foray_exits_lora_merge(j->exits, s->name, dst, from, 1, t->cols, err);
  if (st == FORAY_OK && j->adapter)
    st = foray_exits_lora_merge(j->adapter, s->name, dst, from, 1, t->cols, err);
  int smooth = st == FORAY_OK ? smoothing(j, t, r) : 0;
  for (uint32_t i = 0; smooth && i < t->cols; i++) dst[i] = ldexpf(dst[i], smooth);
  for (uint32_t i = 0; st == FORAY_OK && i < t->cols; i++) {
    if (!isfinite(dst[i])) {
      st = foray_err_set(err, FORAY_E_FORMAT, "%s: %s: row %u, column %u is no finite number",
                         foray_gguf_path(j->m->gguf), s->name, from, i);
    }
  }
  return st;
}

struct matrix {
  const struct foray_pack_job *j;
  const struct foray_image_tensor *t;
  float *dst;
  atomic_int status;
};
enum { PART_ROWS = 64 };

static void matrix_part(void *arg, int part, int thread) {
  struct matrix *x = arg;
  (void)thread;
  for (uint32_t i = 0, r = (uint32_t)part * PART_ROWS; i < PART_ROWS && r < x->t->rows; i++, r++) {
    enum foray_status st = foray_pack_row(x->j, x->t, r, x->dst + (size_t)r * x->t->cols, NULL);
    if (st != FORAY_OK) atomic_store(&x->status, (int)st);
  }
}

enum foray_status foray_pack_matrix(const struct foray_pack_job *j, const struct foray_image_tensor *t,
                                    float *dst, struct foray_err *err) {
  struct matrix x = {.j = j, .t = t, .dst = dst};
  foray_pool_run(j->opts->pool, matrix_part, &x, (int)((t->rows + PART_ROWS - 1) / PART_ROWS));
  if (atomic_load(&x.status) == 0) return FORAY_OK;
  for (uint32_t r = 0; r < t->rows; r++) { /* again in this thread, for the text */
    enum foray_status st = foray_pack_row(j, t, r, dst + (size_t)r * t->cols, err);
    if (st != FORAY_OK) return st;
  }
  return FORAY_OK;
}

enum foray_status foray_pack_bias(const struct foray_pack_job *j, const struct foray_image_tensor *t,
                                  float *dst, struct foray_err *err) {
  enum foray_role role = t->role == FORAY_IMAGE_ATTN_Q   ? FORAY_ROLE_ATTN_Q_BIAS
                         : t->role == FORAY_IMAGE_ATTN_K ? FORAY_ROLE_ATTN_K_BIAS
                                                         : FORAY_ROLE_ATTN_V_BIAS;
  const struct foray_gguf_tensor *s = foray_model_tensor(j->m, role, t->index);
  float *v = malloc(t->rows * sizeof *v);
  if (!v) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  enum foray_status st = FORAY_OK;
  if (!s) {
    memset(v, 0, t->rows * sizeof *v);
  } else if ((st = foray_dequant_row(s->type, s->data, v, t->rows)) != FORAY_OK) {
    foray_err_set(err, st, "%s: %s has no float values", foray_gguf_path(j->m->gguf), s->name);
  }
  for (uint32_t r = 0; st == FORAY_OK && r < t->rows; r++) {
    dst[r] = ldexpf(v[source_row(j, t, r)], smoothing(j, t, r));
    if (!isfinite(dst[r])) {
      st = foray_err_set(err, FORAY_E_FORMAT, "%s: %s: element %u is no finite number",
                         foray_gguf_path(j->m->gguf), s->name, source_row(j, t, r));
    }
  }
  free(v);
  return st;
}

/* ---- rounding to nearest, two passes over the rows: spans, then codes ---- */

struct rounding {
  const struct foray_pack_job *j;
  const struct foray_image_tensor *t;
  struct foray_codes *c;
  double *err2, *ref2; /* per part */
  bool second;
  atomic_int status;
};

static void rounding_part(void *arg, int part, int thread) {
  struct rounding *x = arg;
  (void)thread;
  float *row = malloc(x->t->cols * sizeof *row);
  if (!row) {
    atomic_store(&x->status, (int)FORAY_E_NOMEM);
    return;
  }
  for (uint32_t i = 0, r = (uint32_t)part * PART_ROWS; i < PART_ROWS && r < x->t->rows; i++, r++) {
    enum foray_status st = foray_pack_row(x->j, x->t, r, row, NULL);
    if (st != FORAY_OK) {
      atomic_store(&x->status, (int)st);
    } else if (!x->second) {
      foray_codes_scale(x->c, r, row, 1.0f);
    } else {
      x->err2[part] += foray_codes_fit_row(x->c, r, row, NULL);
      for (uint32_t k = 0; k < x->t->cols; k++) x->ref2[part] += (double)(row[k] * row[k]);
    }
  }
  free(row);
}

enum foray_status foray_pack_round(const struct foray_pack_job *j, struct foray_image_tensor *t,
                                   struct foray_codes **out, struct foray_err *err) {
  int parts = (int)((t->rows + PART_ROWS - 1) / PART_ROWS);
  struct rounding x = {.j = j, .t = t};
  enum foray_status st = foray_codes_open(t->type, t->rows, t->cols, &x.c, err);
  if (st != FORAY_OK) return st;
  x.err2 = calloc((size_t)parts * 2, sizeof *x.err2);
  if (!x.err2) {
    foray_codes_close(x.c);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  }
  x.ref2 = x.err2 + parts;
  foray_pool_run(j->opts->pool, rounding_part, &x, parts);
  foray_codes_exp(x.c);
  x.second = true;
  if (!atomic_load(&x.status)) foray_pool_run(j->opts->pool, rounding_part, &x, parts);
  double e = 0, r = 0;
  for (int i = 0; i < parts; i++) {
    e += x.err2[i];
    r += x.ref2[i];
  }
  free(x.err2);
  if (atomic_load(&x.status)) {
    float *row = malloc(t->cols * sizeof *row);
    st = row ? FORAY_OK : FORAY_E_NOMEM;
    for (uint32_t i = 0; st == FORAY_OK && i < t->rows; i++) st = foray_pack_row(j, t, i, row, err);
    free(row);
    foray_codes_close(x.c);
    return st == FORAY_OK || st == FORAY_E_NOMEM ? foray_err_set(err, FORAY_E_NOMEM, "out of memory") : st;
  }
  t->exp = x.c->exp;
  t->rms_error = r > 0 ? (float)sqrt(e / r) : 0;
  *out = x.c;
  return FORAY_OK;
}
