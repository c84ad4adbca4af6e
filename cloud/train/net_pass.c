/* Forward and reverse pass over a packed batch. What the reverse pass needs is kept per layer (inputs, q k v
 * after RoPE, attention output, gate and up); norms, probabilities and SiLU are computed again. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "train/ewise.h"
#include "train/net.h"

struct layer_acts {
  float *q, *k, *v, *att, *mid, *gate, *up;
};

struct foray_acts {
  int cap, m, n_seg, seg_cap;
  float **state; /* n_layer + 1 of m x D */
  struct layer_acts *layer;
  int n_layer;
  struct foray_segment *seg;
  int *pos;
  float *tab; /* RoPE tables by position */
  int tab_rows;
  float *n, *h, *dq, *dk, *dv, *dn, *datt, *dh; /* scratch */
};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "activations: out of memory (smaller --batch?)");
}

static float *floats(int rows, int cols) { return malloc((size_t)rows * (size_t)cols * sizeof(float)); }

enum foray_status foray_acts_open(const struct foray_net *n, int max_rows, struct foray_acts **out,
                                  struct foray_err *err) {
  struct foray_acts *a = calloc(1, sizeof *a);
  if (!a) return nomem(err);
  a->cap = max_rows;
  a->n_layer = n->n_layer;
  a->state = calloc((size_t)n->n_layer + 1, sizeof *a->state);
  a->layer = calloc((size_t)n->n_layer, sizeof *a->layer);
  a->pos = malloc((size_t)max_rows * sizeof(int));
  bool ok = a->state && a->layer && a->pos;
  for (int i = 0; ok && i <= n->n_layer; i++) ok = (a->state[i] = floats(max_rows, n->D)) != NULL;
  for (int i = 0; ok && i < n->n_layer; i++) {
    struct layer_acts *y = &a->layer[i];
    y->q = floats(max_rows, n->Q), y->k = floats(max_rows, n->K), y->v = floats(max_rows, n->K);
    y->att = floats(max_rows, n->Q), y->mid = floats(max_rows, n->D);
    y->gate = floats(max_rows, n->F), y->up = floats(max_rows, n->F);
    ok = y->q && y->k && y->v && y->att && y->mid && y->gate && y->up;
  }
  if (ok) {
    a->n = floats(max_rows, n->D), a->h = floats(max_rows, n->F), a->dq = floats(max_rows, n->Q);
    a->dk = floats(max_rows, n->K), a->dv = floats(max_rows, n->K), a->dn = floats(max_rows, n->D);
    a->datt = floats(max_rows, n->Q), a->dh = floats(max_rows, n->F);
    ok = a->n && a->h && a->dq && a->dk && a->dv && a->dn && a->datt && a->dh;
  }
  if (!ok) {
    foray_acts_close(a);
    return nomem(err);
  }
  *out = a;
  return FORAY_OK;
}

void foray_acts_close(struct foray_acts *a) {
  if (!a) return;
  for (int i = 0; a->state && i <= a->n_layer; i++) free(a->state[i]);
  for (int i = 0; a->layer && i < a->n_layer; i++) {
    struct layer_acts *y = &a->layer[i];
    free(y->q), free(y->k), free(y->v), free(y->att), free(y->mid), free(y->gate), free(y->up);
  }
  free(a->n), free(a->h), free(a->dq), free(a->dk), free(a->dv), free(a->dn), free(a->datt), free(a->dh);
  free(a->state), free(a->layer), free(a->seg), free(a->pos), free(a->tab);
  free(a);
}

const float *foray_acts_state(const struct foray_acts *a, int l) { return a->state[l]; }
float *foray_acts_state_edit(struct foray_acts *a, int l) { return a->state[l]; }

/* ---- linear maps ---- */
struct bias_job {
  int m, n;
  const float *bias;
  float *y;
};
static void bias_part(void *arg, int part, int thread) {
  const struct bias_job *j = arg;
  (void)thread;
  for (int r = part * 32; r < (part + 1) * 32 && r < j->m; r++)
    for (int i = 0; i < j->n; i++) j->y[(size_t)r * (size_t)j->n + (size_t)i] += j->bias[i];
}

/* The low-rank operands change every step, so they are packed for each product: small next to it. */
static enum foray_status small_product(struct foray_mm *g, int m, int n, int k, bool transposed,
                                       const float *a, const float *b, float *c, bool add,
                                       struct foray_err *err) {
  struct foray_mm_b p;
  enum foray_status st = foray_mm_pack(g, b, k, n, (size_t)(transposed ? k : n), transposed, true, &p, err);
  if (!st) st = foray_mm_run(g, m, a, (size_t)k, &p, c, (size_t)n, add, err);
  foray_mm_b_free(&p);
  return st;
}

/* t = scale * x a^T, owned by the caller */
static enum foray_status lora_inner(struct foray_mm *g, const struct foray_lin *l, int m, const float *x,
                                    float **t, struct foray_err *err) {
  *t = floats(m, l->rank);
  if (!*t) return nomem(err);
  enum foray_status st = small_product(g, m, l->rank, l->n_in, true, x, l->a.w, *t, false, err);
  for (size_t i = 0; i < (size_t)m * (size_t)l->rank; i++) (*t)[i] *= l->scale;
  return st;
}

enum foray_status foray_lin_forward(struct foray_mm *g, const struct foray_lin *l, int m, const float *x,
                                    float *y, struct foray_err *err) {
  enum foray_status st = foray_mm_run(g, m, x, (size_t)l->n_in, &l->fwd, y, (size_t)l->n_out, false, err);
  if (!st && l->bias) {
    struct bias_job j = {m, l->n_out, l->bias, y};
    foray_pool_run(foray_mm_pool(g), bias_part, &j, (m + 31) / 32);
  }
  if (!st && l->rank) {
    float *t = NULL;
    st = lora_inner(g, l, m, x, &t, err);
    if (!st) st = small_product(g, m, l->n_out, l->rank, false, t, l->b.w, y, true, err);
    free(t);
  }
  return st;
}

enum foray_status foray_lin_backward(struct foray_mm *g, struct foray_lin *l, int m, const float *x,
                                     const float *dy, float *dx, bool add, struct foray_err *err) {
  enum foray_status st = foray_mm_run(g, m, dy, (size_t)l->n_out, &l->bwd, dx, (size_t)l->n_in, add, err);
  if (st || !l->rank) return st;
  float *t = NULL, *dt = floats(m, l->rank);
  st = dt ? lora_inner(g, l, m, x, &t, err) : nomem(err);
  if (!st) {
    foray_mm_tn(g, m, l->rank, l->n_out, t, (size_t)l->rank, dy, (size_t)l->n_out, l->b.g, (size_t)l->n_out,
                true);
    st = small_product(g, m, l->rank, l->n_out, true, dy, l->b.w, dt, false, err);
  }
  if (!st) {
    for (size_t i = 0; i < (size_t)m * (size_t)l->rank; i++) dt[i] *= l->scale;
    foray_mm_tn(g, m, l->rank, l->n_in, dt, (size_t)l->rank, x, (size_t)l->n_in, l->a.g, (size_t)l->n_in,
                true);
    st = small_product(g, m, l->n_in, l->rank, false, dt, l->a.w, dx, true, err);
  }
  free(t);
  free(dt);
  return st;
}

/* ---- attention: one part = one (segment, kv head) ---- */
struct attn_job {
  const struct foray_net *n;
  struct foray_acts *a;
  struct layer_acts *y;
  bool back, failed;
};

static void attn_forward_one(const struct attn_job *j, struct foray_segment s, int kv, float *p) {
  const struct foray_net *n = j->n;
  int hd = (int)n->cfg.head_dim, group = (int)(n->cfg.n_head / n->cfg.n_head_kv);
  size_t Q = (size_t)n->Q, K = (size_t)n->K, T = (size_t)s.len, row = (size_t)s.start, ko = (size_t)(kv * hd);
  for (int h = kv * group; h < (kv + 1) * group; h++) {
    size_t qo = row * Q + (size_t)(h * hd);
    foray_mm_small(true, s.len, s.len, hd, n->cfg.attn_scale, j->y->q + qo, Q, j->y->k + row * K + ko, K, p,
                   T, false);
    for (size_t i = 0; i < T; i++) {
      float *r = p + i * T;
      float sum = foray_ew_exp_sum(r, (int)i + 1, foray_ew_max(r, (int)i + 1)), inv = 1.0f / sum;
      for (size_t c = 0; c <= i; c++) r[c] *= inv;
      memset(r + i + 1, 0, (T - i - 1) * sizeof(float));
    }
    if (!j->back) {
      foray_mm_small(false, s.len, hd, s.len, 1, p, T, j->y->v + row * K + ko, K, j->y->att + qo, Q, false);
      continue;
    }
    /* dv += p^T do; dp = do v^T; ds = p * (dp - sum(dp * p)); dq = ds k; dk += ds^T q */
    float *dp = p + T * T;
    const float *dout = j->a->datt + qo;
    bool more = h > kv * group;
    foray_mm_small_tn(s.len, hd, s.len, 1, p, T, dout, Q, j->a->dv + row * K + ko, K, more);
    foray_mm_small(true, s.len, s.len, hd, 1, dout, Q, j->y->v + row * K + ko, K, dp, T, false);
    for (size_t i = 0; i < T; i++) {
      float *r = p + i * T, *d = dp + i * T, sum = 0;
      for (size_t c = 0; c <= i; c++) sum += r[c] * d[c];
      for (size_t c = 0; c < T; c++) d[c] = r[c] * (d[c] - sum);
    }
    foray_mm_small(false, s.len, hd, s.len, n->cfg.attn_scale, dp, T, j->y->k + row * K + ko, K,
                   j->a->dq + qo, Q, false);
    foray_mm_small_tn(s.len, hd, s.len, n->cfg.attn_scale, dp, T, j->y->q + qo, Q, j->a->dk + row * K + ko, K,
                      more);
  }
}

static void attn_part(void *arg, int part, int thread) {
  struct attn_job *j = arg;
  int kvs = (int)j->n->cfg.n_head_kv;
  struct foray_segment s = j->a->seg[part / kvs];
  (void)thread;
  float *p = malloc((size_t)s.len * (size_t)s.len * 2 * sizeof(float));
  if (!p) {
    j->failed = true;
    return;
  }
  attn_forward_one(j, s, part % kvs, p);
  free(p);
}

static enum foray_status attention(struct foray_net *n, struct foray_acts *a, int layer, bool back,
                                   struct foray_err *err) {
  struct attn_job j = {n, a, &a->layer[layer], back, false};
  foray_pool_run(foray_mm_pool(n->gemm), attn_part, &j, a->n_seg * (int)n->cfg.n_head_kv);
  return j.failed ? nomem(err) : FORAY_OK;
}

static void rope_rows(const struct foray_net *n, const struct foray_acts *a, float *x, int heads,
                      float sign) {
  int hd = (int)n->cfg.head_dim, dim = (int)n->cfg.rope_dim;
  for (int r = 0; r < a->m; r++)
    foray_ew_rope(x + (size_t)r * (size_t)(heads * hd), heads, hd, dim, n->cfg.rope_style == FORAY_ROPE_NEOX,
                  a->tab + (size_t)a->pos[r] * (size_t)dim, sign);
}

static enum foray_status prepare(struct foray_net *n, struct foray_acts *a, int m,
                                 const struct foray_segment *seg, int n_seg, struct foray_err *err) {
  int longest = 0, dim = (int)n->cfg.rope_dim;
  if (m > a->cap) return foray_err_set(err, FORAY_E_ARG, "batch of %d rows, %d at most", m, a->cap);
  a->m = m;
  a->n_seg = n_seg;
  if (n_seg > a->seg_cap) {
    free(a->seg);
    a->seg_cap = 0;
    a->seg = malloc((size_t)n_seg * sizeof *seg);
    if (!a->seg) return nomem(err);
    a->seg_cap = n_seg;
  }
  for (int i = 0; i < n_seg; i++) {
    a->seg[i] = seg[i];
    if (seg[i].len > longest) longest = seg[i].len;
    for (int r = 0; r < seg[i].len; r++) a->pos[seg[i].start + r] = r;
  }
  if (longest > a->tab_rows) {
    free(a->tab);
    a->tab_rows = 0;
    a->tab = floats(longest, dim);
    if (!a->tab) return nomem(err);
    a->tab_rows = longest;
    for (int i = 0; i < longest; i++)
      foray_ew_rope_table(dim, n->cfg.rope_base, i, a->tab + (size_t)i * (size_t)dim);
  }
  return FORAY_OK;
}

static enum foray_status blocks(struct foray_net *n, struct foray_acts *a, int from, struct foray_err *err) {
  struct foray_pool *pool = foray_mm_pool(n->gemm);
  int m = a->m;
  size_t mD = (size_t)m * (size_t)n->D;
  enum foray_status st = FORAY_OK;
  for (int i = from; !st && i < n->n_layer; i++) {
    struct foray_net_layer *y = &n->layer[i];
    struct layer_acts *c = &a->layer[i];
    if (i >= n->skip_from && i < n->skip_to) {
      memcpy(a->state[i + 1], a->state[i], mD * sizeof(float));
      continue;
    }
    foray_ew_rmsnorm(pool, m, n->D, n->cfg.rms_eps, a->state[i], y->norm1, a->n);
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_Q], m, a->n, c->q, err))) break;
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_K], m, a->n, c->k, err))) break;
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_V], m, a->n, c->v, err))) break;
    rope_rows(n, a, c->q, (int)n->cfg.n_head, 1);
    rope_rows(n, a, c->k, (int)n->cfg.n_head_kv, 1);
    if ((st = attention(n, a, i, false, err))) break;
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_O], m, c->att, c->mid, err))) break;
    foray_ew_add(pool, mD, c->mid, a->state[i]);
    foray_ew_rmsnorm(pool, m, n->D, n->cfg.rms_eps, c->mid, y->norm2, a->n);
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_GATE], m, a->n, c->gate, err))) break;
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_UP], m, a->n, c->up, err))) break;
    foray_ew_silu_mul(pool, m, n->F, c->gate, c->up, a->h);
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_DOWN], m, a->h, a->state[i + 1], err))) break;
    foray_ew_add(pool, mD, a->state[i + 1], c->mid);
  }
  return st;
}

enum foray_status foray_net_forward(struct foray_net *n, struct foray_acts *a, int m, const int32_t *tokens,
                                    const struct foray_segment *seg, int n_seg, struct foray_err *err) {
  enum foray_status st = prepare(n, a, m, seg, n_seg, err);
  for (int r = 0; !st && r < m; r++) foray_net_embed(n, tokens[r], a->state[0] + (size_t)r * (size_t)n->D);
  return st ? st : blocks(n, a, 0, err);
}

enum foray_status foray_net_forward_from(struct foray_net *n, struct foray_acts *a, int m, const float *low,
                                         const struct foray_segment *seg, int n_seg, struct foray_err *err) {
  enum foray_status st = prepare(n, a, m, seg, n_seg, err);
  if (st) return st;
  memcpy(a->state[n->first], low, (size_t)m * (size_t)n->D * sizeof(float));
  return blocks(n, a, n->first, err);
}

enum foray_status foray_net_backward(struct foray_net *n, struct foray_acts *a, float *const *d_state,
                                     struct foray_err *err) {
  struct foray_pool *pool = foray_mm_pool(n->gemm);
  int m = a->m;
  size_t mD = (size_t)m * (size_t)n->D;
  float *dx = calloc(mD, sizeof(float));
  enum foray_status st = dx ? FORAY_OK : nomem(err);
  if (!st && d_state[n->n_layer]) foray_ew_add(pool, mD, dx, d_state[n->n_layer]);
  for (int i = n->n_layer - 1; !st && i >= n->first; i--) {
    struct foray_net_layer *y = &n->layer[i];
    struct layer_acts *c = &a->layer[i];
    /* feed-forward; gate and up are replaced by their gradients after their last use */
    foray_ew_silu_mul(pool, m, n->F, c->gate, c->up, a->h);
    if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_DOWN], m, a->h, dx, a->dh, false, err))) break;
    foray_ew_silu_mul_back(pool, m, n->F, c->gate, c->up, a->dh);
    foray_ew_rmsnorm(pool, m, n->D, n->cfg.rms_eps, c->mid, y->norm2, a->n);
    if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_GATE], m, a->n, c->gate, a->dn, false, err)))
      break;
    if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_UP], m, a->n, c->up, a->dn, true, err))) break;
    foray_ew_rmsnorm_back(pool, m, n->D, n->cfg.rms_eps, c->mid, y->norm2, a->dn, dx, NULL);
    /* attention */
    if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_O], m, c->att, dx, a->datt, false, err))) break;
    if ((st = attention(n, a, i, true, err))) break;
    rope_rows(n, a, a->dq, (int)n->cfg.n_head, -1);
    rope_rows(n, a, a->dk, (int)n->cfg.n_head_kv, -1);
    foray_ew_rmsnorm(pool, m, n->D, n->cfg.rms_eps, a->state[i], y->norm1, a->n);
    if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_Q], m, a->n, a->dq, a->dn, false, err))) break;
    if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_K], m, a->n, a->dk, a->dn, true, err))) break;
    if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_V], m, a->n, a->dv, a->dn, true, err))) break;
    foray_ew_rmsnorm_back(pool, m, n->D, n->cfg.rms_eps, a->state[i], y->norm1, a->dn, dx, NULL);
    if (d_state[i]) foray_ew_add(pool, mD, dx, d_state[i]);
  }
  free(dx);
  return st;
}
