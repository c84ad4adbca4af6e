#include "model/float_ref.h"

#include "core/checked.h"
#include "core/err.h"
#include "model/fref_kernels.h"
#include "model/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  BATCH = 512,    /* positions that pass through the layers together */
  ROWS_PART = 24, /* weight rows that a thread dequantises at a time */
};

/* Names of sizes: E n_embd, F n_ff, Q n_head * head_dim, K n_head_kv * head_dim, V n_vocab, B = BATCH. */
struct foray_float_ref {
  const struct foray_model *m;
  struct foray_pool *pool;
  const struct foray_fref_kernels *kern;
  float **own;    /* [layer * FORAY_ROLES + role]: replaced or expanded tensors, else NULL */
  float *scratch; /* threads x ROWS_PART x widest row */
  float *scores;  /* threads x n_ctx */
  size_t n_ctx, len;
  float *k, *v;              /* [layer][position][K] */
  double *freq, *freq_local; /* radians a position for each rotated pair: global and local layers */
  float *x, *norm, *q, *att, *proj, *gate, *up; /* B x E, E, Q, Q, E, F, F */
  struct foray_float_tap tap;
};

static size_t slot(enum foray_role role, uint32_t layer) {
  return (foray_role_per_layer(role) ? (size_t)layer * FORAY_ROLES : 0) + (size_t)role;
}

/* ---------------------------------------------------------------- weights */

/* Cannot fail: foray_model_open has checked type and row length. */
static void row_floats(const struct foray_gguf_tensor *t, uint64_t row, float *out) {
  if (foray_dequant_row(t->type, foray_tensor_row(t, row), out, (size_t)t->ne[0]))
    memset(out, 0, (size_t)t->ne[0] * sizeof *out);
}

static float *expand(const struct foray_gguf_tensor *t) {
  size_t n;
  if (!foray_mul_size((size_t)t->ne[0] * sizeof(float), (size_t)t->ne[1], &n)) return NULL;
  float *w = malloc(n);
  for (uint64_t r = 0; w && r < t->ne[1]; r++) row_floats(t, r, w + r * t->ne[0]);
  return w;
}

const float *foray_float_ref_tensor(struct foray_float_ref *r, enum foray_role role, uint32_t layer) {
  const struct foray_gguf_tensor *t = foray_model_tensor(r->m, role, layer);
  if (!t && role == FORAY_ROLE_OUTPUT && !r->own[role])
    return foray_float_ref_tensor(r, FORAY_ROLE_TOKEN_EMBD, 0);
  float **own = &r->own[slot(role, layer)];
  if (!*own && t) *own = expand(t);
  return *own;
}

enum foray_status foray_float_ref_set_tensor(struct foray_float_ref *r, enum foray_role role, uint32_t layer,
                                             float *owned) {
  if (!foray_model_tensor(r->m, role, layer) && role != FORAY_ROLE_OUTPUT) {
    free(owned);
    return FORAY_E_ARG;
  }
  float **own = &r->own[slot(role, layer)];
  free(*own);
  *own = owned;
  return FORAY_OK;
}

/* ---------------------------------------------------------------- products */

struct product {
  struct foray_float_ref *r;
  const struct foray_gguf_tensor *t; /* weights in the file, used when w is NULL */
  const float *w;
  size_t rows, cols, n, ldy;
  const float *x;
  float *y;
  size_t scratch_stride;
};

static void product_part(void *arg, int part, int thread) {
  struct product *p = arg;
  size_t first = (size_t)part * ROWS_PART, rows = p->rows - first < ROWS_PART ? p->rows - first : ROWS_PART;
  const float *w = p->w ? p->w + first * p->cols : NULL;
  if (!w) {
    float *s = p->r->scratch + (size_t)thread * p->scratch_stride;
    for (size_t i = 0; i < rows; i++) row_floats(p->t, first + i, s + i * p->cols);
    w = s;
  }
  p->r->kern->mm(w, rows, p->x, p->n, p->cols, p->y + first, p->ldy);
}

static size_t widest(const struct foray_model_config *c) {
  size_t q = (size_t)c->n_head * c->head_dim, w = c->n_embd > c->n_ff ? c->n_embd : c->n_ff;
  return w > q ? w : q;
}

/* y[n x rows] = x[n x cols] times the transposed matrix (role, layer). */
static void product(struct foray_float_ref *r, enum foray_role role, uint32_t layer, const float *x, size_t n,
                    float *y, size_t ldy) {
  const struct foray_gguf_tensor *t = foray_model_tensor(r->m, role, layer);
  const float *w = r->own[slot(role, layer)];
  if (role == FORAY_ROLE_OUTPUT && !t) {
    t = foray_model_tensor(r->m, FORAY_ROLE_TOKEN_EMBD, 0);
    if (!w) w = r->own[FORAY_ROLE_TOKEN_EMBD];
  }
  struct product p = {.r = r,
                      .t = t,
                      .w = w,
                      .rows = (size_t)t->ne[1],
                      .cols = (size_t)t->ne[0],
                      .n = n,
                      .ldy = ldy,
                      .x = x,
                      .y = y,
                      .scratch_stride = ROWS_PART * widest(&r->m->config)};
  foray_pool_run(r->pool, product_part, &p, (int)((p.rows + ROWS_PART - 1) / ROWS_PART));
}

/* F32 vectors of the file are used in place; they are aligned by the format. */
static const float *vector(const struct foray_float_ref *r, enum foray_role role, uint32_t layer) {
  const float *own = r->own[slot(role, layer)];
  const struct foray_gguf_tensor *t = foray_model_tensor(r->m, role, layer);
  return own ? own : t ? (const float *)(const void *)t->data : NULL;
}

/* ---------------------------------------------------------------- the small operations */

/* y = x / sqrt(mean(x^2) + eps) * w, for n vectors of width d; y may be x. */
static void rms_norm(const float *x, const float *w, float eps, float *y, size_t n, size_t d) {
  for (size_t i = 0; i < n; i++, x += d, y += d) {
    double sum = 0;
    for (size_t j = 0; j < d; j++) sum += (double)x[j] * x[j];
    float scale = (float)(1.0 / sqrt(sum / (double)d + (double)eps));
    for (size_t j = 0; j < d; j++) y[j] = x[j] * scale * w[j];
  }
}

static void add_bias(float *y, const float *b, size_t n, size_t d) {
  if (!b) return;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < d; j++) y[i * d + j] += b[j];
}

static void add(float *x, const float *y, size_t n) {
  for (size_t i = 0; i < n; i++) x[i] += y[i];
}

/* Rotates the heads of n vectors; the first is at position pos. */
static void rope(const struct foray_float_ref *r, uint32_t layer, float *x, size_t n, size_t heads,
                 size_t pos) {
  const struct foray_model_config *c = &r->m->config;
  const double *freq = foray_config_layer_local(c, layer) ? r->freq_local : r->freq;
  size_t half = c->rope_dim / 2, step = c->rope_style == FORAY_ROPE_NORM ? 2 : 1;
  size_t mate = c->rope_style == FORAY_ROPE_NORM ? 1 : half;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < half; j++) {
      double angle = (double)(pos + i) * freq[j];
      float co = (float)cos(angle), si = (float)sin(angle);
      for (size_t h = 0; h < heads; h++) {
        float *a = x + (i * heads + h) * c->head_dim + j * step, *b = a + mate;
        float a0 = *a, b0 = *b;
        *a = a0 * co - b0 * si;
        *b = a0 * si + b0 * co;
      }
    }
}

static float softcap(float x, float cap) { return cap > 0 ? cap * tanhf(x / cap) : x; }

static float activate(enum foray_act act, float x) {
  if (act == FORAY_ACT_SILU) return x / (1.0f + expf(-x));
  return 0.5f * x * (1.0f + tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x)));
}

struct attention {
  struct foray_float_ref *r;
  uint32_t layer;
  size_t pos;
};

/* One (position, head): weights over the keys it may see, then the mean of their values. */
static void attention_part(void *arg, int part, int thread) {
  struct attention *a = arg;
  struct foray_float_ref *r = a->r;
  const struct foray_model_config *c = &r->m->config;
  size_t i = (size_t)part / c->n_head, h = (size_t)part % c->n_head, at = a->pos + i, d = c->head_dim;
  size_t width = (size_t)c->n_head_kv * d, group = h / (c->n_head / c->n_head_kv);
  const float *q = r->q + (i * c->n_head + h) * d;
  const float *k = r->k + (size_t)a->layer * r->n_ctx * width + group * d;
  const float *v = r->v + (size_t)a->layer * r->n_ctx * width + group * d;
  size_t first = foray_config_layer_local(c, a->layer) && at + 1 > c->window ? at + 1 - c->window : 0;
  float *s = r->scores + (size_t)thread * r->n_ctx, max = -INFINITY;
  for (size_t j = first; j <= at; j++) {
    s[j] = softcap(r->kern->dot(q, k + j * width, d) * c->attn_scale, c->attn_softcap);
    if (s[j] > max) max = s[j];
  }
  double sum = 0;
  for (size_t j = first; j <= at; j++) sum += (double)(s[j] = expf(s[j] - max));
  float *y = r->att + (i * c->n_head + h) * d;
  memset(y, 0, d * sizeof *y);
  for (size_t j = first; j <= at; j++) r->kern->axpy(y, (float)((double)s[j] / sum), v + j * width, d);
}

static void tap_input(struct foray_float_ref *r, enum foray_role role, uint32_t layer, float *x, size_t n,
                      size_t width) {
  if (r->tap.input) r->tap.input(r->tap.user, role, layer, x, n, width);
}

static void tap_residual(struct foray_float_ref *r, int layer, size_t n) {
  if (r->tap.residual) r->tap.residual(r->tap.user, layer, r->x, n, r->len);
}

/* ---------------------------------------------------------------- the forward pass */

static void attention(struct foray_float_ref *r, uint32_t l, size_t n) {
  const struct foray_model_config *c = &r->m->config;
  size_t E = c->n_embd, Q = (size_t)c->n_head * c->head_dim, K = (size_t)c->n_head_kv * c->head_dim;
  float *k = r->k + ((size_t)l * r->n_ctx + r->len) * K, *v = r->v + ((size_t)l * r->n_ctx + r->len) * K;
  rms_norm(r->x, vector(r, FORAY_ROLE_ATTN_NORM, l), c->rms_eps, r->norm, n, E);
  tap_input(r, FORAY_ROLE_ATTN_Q, l, r->norm, n, E);
  product(r, FORAY_ROLE_ATTN_Q, l, r->norm, n, r->q, Q);
  product(r, FORAY_ROLE_ATTN_K, l, r->norm, n, k, K);
  product(r, FORAY_ROLE_ATTN_V, l, r->norm, n, v, K);
  add_bias(r->q, vector(r, FORAY_ROLE_ATTN_Q_BIAS, l), n, Q);
  add_bias(k, vector(r, FORAY_ROLE_ATTN_K_BIAS, l), n, K);
  add_bias(v, vector(r, FORAY_ROLE_ATTN_V_BIAS, l), n, K);
  if (c->qk_norm) {
    rms_norm(r->q, vector(r, FORAY_ROLE_ATTN_Q_NORM, l), c->rms_eps, r->q, n * c->n_head, c->head_dim);
    rms_norm(k, vector(r, FORAY_ROLE_ATTN_K_NORM, l), c->rms_eps, k, n * c->n_head_kv, c->head_dim);
  }
  rope(r, l, r->q, n, c->n_head, r->len);
  rope(r, l, k, n, c->n_head_kv, r->len);
  struct attention a = {r, l, r->len};
  foray_pool_run(r->pool, attention_part, &a, (int)(n * c->n_head));
  tap_input(r, FORAY_ROLE_ATTN_OUTPUT, l, r->att, n, Q);
  product(r, FORAY_ROLE_ATTN_OUTPUT, l, r->att, n, r->proj, E);
  if (c->post_norms) rms_norm(r->proj, vector(r, FORAY_ROLE_ATTN_POST_NORM, l), c->rms_eps, r->proj, n, E);
  add(r->x, r->proj, n * E);
}

static void feed_forward(struct foray_float_ref *r, uint32_t l, size_t n) {
  const struct foray_model_config *c = &r->m->config;
  size_t E = c->n_embd, F = c->n_ff;
  rms_norm(r->x, vector(r, FORAY_ROLE_FFN_NORM, l), c->rms_eps, r->norm, n, E);
  tap_input(r, FORAY_ROLE_FFN_GATE, l, r->norm, n, E);
  product(r, FORAY_ROLE_FFN_GATE, l, r->norm, n, r->gate, F);
  product(r, FORAY_ROLE_FFN_UP, l, r->norm, n, r->up, F);
  for (size_t i = 0; i < n * F; i++) r->gate[i] = activate(c->act, r->gate[i]) * r->up[i];
  tap_input(r, FORAY_ROLE_FFN_DOWN, l, r->gate, n, F);
  product(r, FORAY_ROLE_FFN_DOWN, l, r->gate, n, r->proj, E);
  if (c->post_norms) rms_norm(r->proj, vector(r, FORAY_ROLE_FFN_POST_NORM, l), c->rms_eps, r->proj, n, E);
  add(r->x, r->proj, n * E);
}

static void embed(struct foray_float_ref *r, const int32_t *ids, size_t n) {
  const struct foray_model_config *c = &r->m->config;
  const struct foray_gguf_tensor *t = foray_model_tensor(r->m, FORAY_ROLE_TOKEN_EMBD, 0);
  const float *own = r->own[FORAY_ROLE_TOKEN_EMBD];
  for (size_t i = 0; i < n; i++) {
    float *x = r->x + i * c->n_embd;
    if (own)
      memcpy(x, own + (size_t)ids[i] * c->n_embd, c->n_embd * sizeof *x);
    else
      row_floats(t, (uint64_t)ids[i], x);
    if (c->embd_scale != 1.0f)
      for (size_t j = 0; j < c->n_embd; j++) x[j] *= c->embd_scale;
  }
}

/* n <= BATCH positions; logits of the last n_logits of them. */
static void forward(struct foray_float_ref *r, const int32_t *ids, size_t n, float *logits, size_t n_logits) {
  const struct foray_model_config *c = &r->m->config;
  embed(r, ids, n);
  tap_residual(r, -1, n);
  for (uint32_t l = 0; l < c->n_layer; l++) {
    attention(r, l, n);
    feed_forward(r, l, n);
    tap_residual(r, (int)l, n);
  }
  r->len += n;
  if (!n_logits) return;
  rms_norm(r->x + (n - n_logits) * c->n_embd, vector(r, FORAY_ROLE_OUTPUT_NORM, 0), c->rms_eps, r->norm,
           n_logits, c->n_embd);
  tap_input(r, FORAY_ROLE_OUTPUT, 0, r->norm, n_logits, c->n_embd);
  product(r, FORAY_ROLE_OUTPUT, 0, r->norm, n_logits, logits, c->n_vocab);
  if (c->logit_softcap > 0)
    for (size_t i = 0; i < n_logits * c->n_vocab; i++) logits[i] = softcap(logits[i], c->logit_softcap);
}

enum foray_status foray_float_ref_feed(struct foray_float_ref *r, const int32_t *ids, size_t n, float *logits,
                                       size_t n_logits, struct foray_err *err) {
  const struct foray_model_config *c = &r->m->config;
  if (n > r->n_ctx - r->len)
    return foray_err_set(err, FORAY_E_LIMIT, "%zu tokens do not fit behind %zu in a context of %zu", n,
                         r->len, r->n_ctx);
  if (!logits) n_logits = 0;
  if (n_logits > n)
    return foray_err_set(err, FORAY_E_ARG, "logits of %zu positions, but only %zu are fed", n_logits, n);
  for (size_t i = 0; i < n; i++)
    if (ids[i] < 0 || (uint32_t)ids[i] >= c->n_vocab)
      return foray_err_set(err, FORAY_E_ARG, "token %d is outside the vocabulary of %u", ids[i], c->n_vocab);
  for (size_t done = 0; done < n;) {
    size_t k = n - done < BATCH ? n - done : BATCH, before = n - n_logits; /* positions without logits */
    size_t skip = before > done ? before - done : 0, want = skip < k ? k - skip : 0;
    forward(r, ids + done, k, logits, want);
    if (want) logits += want * c->n_vocab;
    done += k;
  }
  return FORAY_OK;
}

size_t foray_float_ref_len(const struct foray_float_ref *r) { return r->len; }

void foray_float_ref_truncate(struct foray_float_ref *r, size_t len) {
  if (len < r->len) r->len = len;
}

void foray_float_ref_set_tap(struct foray_float_ref *r, const struct foray_float_tap *tap) {
  r->tap = tap ? *tap : (struct foray_float_tap){0};
}

/* ---------------------------------------------------------------- life */

static float *floats(size_t a, size_t b, size_t c) {
  size_t n;
  if (!foray_mul_size(a, b, &n) || !foray_mul_size(n, c, &n) || !foray_mul_size(n, sizeof(float), &n))
    return NULL;
  return malloc(n ? n : 1);
}

static double *frequencies(const struct foray_float_ref *r, double base, double scale) {
  const struct foray_model_config *c = &r->m->config;
  const float *factors = vector(r, FORAY_ROLE_ROPE_FREQS, 0);
  double *f = malloc(c->rope_dim / 2 * sizeof *f);
  for (uint32_t j = 0; f && j < c->rope_dim / 2; j++)
    f[j] = scale * pow(base, -2.0 * j / c->rope_dim) / (factors ? (double)factors[j] : 1.0);
  return f;
}

enum foray_status foray_float_ref_open(const struct foray_model *m, struct foray_pool *pool, size_t n_ctx,
                                       struct foray_float_ref **out, struct foray_err *err) {
  const struct foray_model_config *c = &m->config;
  *out = NULL;
  if (n_ctx == 0 || n_ctx > (size_t)INT32_MAX / FORAY_HEADS_MAX)
    return foray_err_set(err, FORAY_E_ARG, "a context of %zu positions", n_ctx);
  struct foray_float_ref *r = calloc(1, sizeof *r);
  if (!r) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for the float reference");
  size_t threads = (size_t)(pool ? foray_pool_threads(pool) : 1), B = n_ctx < BATCH ? n_ctx : BATCH;
  size_t Q = (size_t)c->n_head * c->head_dim, K = (size_t)c->n_head_kv * c->head_dim;
  *r = (struct foray_float_ref){.m = m, .pool = pool, .kern = foray_fref_kernels(), .n_ctx = n_ctx};
  r->own = calloc((size_t)c->n_layer * FORAY_ROLES, sizeof *r->own);
  r->scratch = floats(threads, ROWS_PART, widest(c));
  r->scores = floats(threads, n_ctx, 1);
  r->k = floats(c->n_layer, n_ctx, K);
  r->v = floats(c->n_layer, n_ctx, K);
  r->x = floats(B, c->n_embd, 1);
  r->norm = floats(B, c->n_embd, 1);
  r->q = floats(B, Q, 1);
  r->att = floats(B, Q, 1);
  r->proj = floats(B, c->n_embd, 1);
  r->gate = floats(B, c->n_ff, 1);
  r->up = floats(B, c->n_ff, 1);
  if (r->own) {
    r->freq = frequencies(r, (double)c->rope_base, (double)c->rope_scale);
    r->freq_local = frequencies(r, (double)c->rope_base_local, 1.0);
  }
  if (!r->own || !r->scratch || !r->scores || !r->k || !r->v || !r->x || !r->norm || !r->q || !r->att ||
      !r->proj || !r->gate || !r->up || !r->freq || !r->freq_local) {
    foray_float_ref_close(r);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory for the float reference of a context of %zu",
                         n_ctx);
  }
  *out = r;
  return FORAY_OK;
}

void foray_float_ref_close(struct foray_float_ref *r) {
  if (!r) return;
  for (size_t i = 0; r->own && i < (size_t)r->m->config.n_layer * FORAY_ROLES; i++) free(r->own[i]);
  void *const all[] = {r->own, r->scratch, r->scores, r->k,    r->v,  r->x,    r->norm,
                       r->q,   r->att,     r->proj,   r->gate, r->up, r->freq, r->freq_local};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  free(r);
}
