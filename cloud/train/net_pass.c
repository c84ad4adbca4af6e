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
  float *qraw, *kraw; /* before the norms of q and k */
  float *o, *down;    /* before the norms behind attention and feed-forward */
};

struct foray_acts {
  int cap, m, n_seg, seg_cap;
  bool checkpoint;
  float **state;            /* n_layer + 1 of m x D */
  struct layer_acts *layer; /* of each block, or one for all */
  int n_layer, n_sets;
  struct foray_segment *seg;
  int *pos;
  float *tab, *tab_local; /* RoPE tables by position; the same memory where layers do not differ */
  int tab_rows;
  int32_t *tokens;
  float *n, *h, *dq, *dk, *dv, *dn, *datt, *dh, *dx; /* scratch */
  foray_acts_kv_fn *on_kv;
  void *kv_arg;
};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "activations: out of memory (smaller --batch?)");
}

static float *floats(int rows, int cols) { return malloc((size_t)rows * (size_t)cols * sizeof(float)); }

/* The buffers of one block, as pairs of place and width (0: this architecture has none). */
enum { BLOCK_BUFS = 11 };
static void block_bufs(const struct foray_net *n, struct layer_acts *y, float **buf[BLOCK_BUFS],
                       int width[BLOCK_BUFS]) {
  float **const b[BLOCK_BUFS] = {&y->q,  &y->k,    &y->v,    &y->att, &y->mid, &y->gate,
                                 &y->up, &y->qraw, &y->kraw, &y->o,   &y->down};
  const int qk = n->cfg.qk_norm ? 1 : 0, post = n->cfg.post_norms ? 1 : 0;
  const int w[BLOCK_BUFS] = {n->Q, n->K,      n->K,      n->Q,        n->D,       n->F,
                             n->F, qk * n->Q, qk * n->K, post * n->D, post * n->D};
  memcpy(buf, b, sizeof b);
  memcpy(width, w, sizeof w);
}

enum foray_status foray_acts_open_with(const struct foray_net *n, int max_rows, bool checkpoint,
                                       struct foray_acts **out, struct foray_err *err) {
  struct foray_acts *a = calloc(1, sizeof *a);
  if (!a) return nomem(err);
  a->cap = max_rows;
  a->n_layer = n->n_layer;
  a->checkpoint = checkpoint;
  a->n_sets = checkpoint ? 1 : n->n_layer;
  a->state = calloc((size_t)n->n_layer + 1, sizeof *a->state);
  a->layer = calloc((size_t)a->n_sets, sizeof *a->layer);
  a->pos = malloc((size_t)max_rows * sizeof(int));
  a->tokens = malloc((size_t)max_rows * sizeof *a->tokens);
  bool ok = a->state && a->layer && a->pos && a->tokens;
  for (int i = 0; ok && i <= n->n_layer; i++) ok = (a->state[i] = floats(max_rows, n->D)) != NULL;
  for (int i = 0; ok && i < a->n_sets; i++) {
    float **buf[BLOCK_BUFS];
    int width[BLOCK_BUFS];
    block_bufs(n, &a->layer[i], buf, width);
    for (int k = 0; ok && k < BLOCK_BUFS; k++)
      if (width[k]) ok = (*buf[k] = floats(max_rows, width[k])) != NULL;
  }
  if (ok) {
    int wide = n->D > n->Q ? n->D : n->Q;
    a->n = floats(max_rows, wide), a->h = floats(max_rows, n->F), a->dq = floats(max_rows, n->Q);
    a->dk = floats(max_rows, n->K), a->dv = floats(max_rows, n->K), a->dn = floats(max_rows, wide);
    a->datt = floats(max_rows, n->Q), a->dh = floats(max_rows, n->F), a->dx = floats(max_rows, n->D);
    ok = a->n && a->h && a->dq && a->dk && a->dv && a->dn && a->datt && a->dh && a->dx;
  }
  if (!ok) {
    foray_acts_close(a);
    return nomem(err);
  }
  *out = a;
  return FORAY_OK;
}

enum foray_status foray_acts_open(const struct foray_net *n, int max_rows, struct foray_acts **out,
                                  struct foray_err *err) {
  return foray_acts_open_with(n, max_rows, false, out, err);
}

void foray_acts_close(struct foray_acts *a) {
  if (!a) return;
  for (int i = 0; a->state && i <= a->n_layer; i++) free(a->state[i]);
  for (int i = 0; a->layer && i < a->n_sets; i++) {
    struct layer_acts *y = &a->layer[i];
    free(y->q), free(y->k), free(y->v), free(y->att), free(y->mid), free(y->gate), free(y->up);
    free(y->qraw), free(y->kraw), free(y->o), free(y->down);
  }
  free(a->n), free(a->h), free(a->dq), free(a->dk), free(a->dv), free(a->dn), free(a->datt), free(a->dh);
  if (a->tab_local != a->tab) free(a->tab_local);
  free(a->state), free(a->layer), free(a->seg), free(a->pos), free(a->tab), free(a->tokens), free(a->dx);
  free(a);
}

int foray_acts_rows(const struct foray_acts *a) { return a->cap; }
const float *foray_acts_state(const struct foray_acts *a, int l) { return a->state[l]; }
float *foray_acts_state_edit(struct foray_acts *a, int l) { return a->state[l]; }
void foray_acts_on_kv(struct foray_acts *a, foray_acts_kv_fn *fn, void *arg) {
  a->on_kv = fn;
  a->kv_arg = arg;
}
static struct layer_acts *set_of(struct foray_acts *a, int layer) {
  return &a->layer[a->checkpoint ? 0 : layer];
}

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

/* What the LoRA sees: x, or a copy with elements left out (then owned by the caller through *owned). */
static const float *lora_input(struct foray_mm *g, const struct foray_lin *l, int m, const float *x,
                               float **owned) {
  if (l->drop <= 0) return x;
  if (!(*owned = floats(m, l->n_in))) return NULL;
  foray_ew_dropout(foray_mm_pool(g), (size_t)m * (size_t)l->n_in, l->drop, l->drop_key, l->drop_pass, x,
                   *owned, false);
  return *owned;
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
    float *t = NULL, *owned = NULL;
    const float *xd = lora_input(g, l, m, x, &owned);
    st = xd ? lora_inner(g, l, m, xd, &t, err) : nomem(err);
    if (!st) st = small_product(g, m, l->n_out, l->rank, false, t, l->b.w, y, true, err);
    free(t);
    free(owned);
  }
  return st;
}

/* Gradients of a and b, and dx += what flows through the LoRA. */
static enum foray_status lora_backward(struct foray_mm *g, struct foray_lin *l, int m, const float *x,
                                       const float *dy, float *dx, struct foray_err *err) {
  float *t = NULL, *owned = NULL, *dt = floats(m, l->rank);
  const float *xd = lora_input(g, l, m, x, &owned);
  enum foray_status st = dt && xd ? lora_inner(g, l, m, xd, &t, err) : nomem(err);
  if (!st) {
    foray_mm_tn(g, m, l->rank, l->n_out, t, (size_t)l->rank, dy, (size_t)l->n_out, l->b.g, (size_t)l->n_out,
                true);
    st = small_product(g, m, l->rank, l->n_out, true, dy, l->b.w, dt, false, err);
  }
  if (!st) {
    for (size_t i = 0; i < (size_t)m * (size_t)l->rank; i++) dt[i] *= l->scale;
    foray_mm_tn(g, m, l->rank, l->n_in, dt, (size_t)l->rank, xd, (size_t)l->n_in, l->a.g, (size_t)l->n_in,
                true);
    if (l->drop <= 0) {
      st = small_product(g, m, l->n_in, l->rank, false, dt, l->a.w, dx, true, err);
    } else { /* owned is free for the gradient of the thinned input now */
      st = small_product(g, m, l->n_in, l->rank, false, dt, l->a.w, owned, false, err);
      foray_ew_dropout(foray_mm_pool(g), (size_t)m * (size_t)l->n_in, l->drop, l->drop_key, l->drop_pass,
                       owned, dx, true);
    }
  }
  free(t);
  free(dt);
  free(owned);
  return st;
}

enum foray_status foray_lin_backward(struct foray_mm *g, struct foray_lin *l, int m, const float *x,
                                     const float *dy, float *dx, bool add, struct foray_err *err) {
  enum foray_status st = foray_mm_run(g, m, dy, (size_t)l->n_out, &l->bwd, dx, (size_t)l->n_in, add, err);
  if (!st && l->w.n)
    foray_mm_tn(g, m, l->n_out, l->n_in, dy, (size_t)l->n_out, x, (size_t)l->n_in, l->w.g, (size_t)l->n_in,
                true);
  if (!st && l->bias_p.n) foray_ew_col_sum(foray_mm_pool(g), m, l->n_out, dy, l->bias_p.g);
  return st || !l->rank ? st : lora_backward(g, l, m, x, dy, dx, err);
}

/* ---- attention: one part = one (segment, kv head) ---- */
struct attn_job {
  const struct foray_net *n;
  struct foray_acts *a;
  struct layer_acts *y;
  int window; /* keys further back are not seen; 0 = all are */
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
      size_t lo = j->window && i + 1 > (size_t)j->window ? i + 1 - (size_t)j->window : 0;
      int seen = (int)(i + 1 - lo);
      float sum = foray_ew_exp_sum(r + lo, seen, foray_ew_max(r + lo, seen)), inv = 1.0f / sum;
      memset(r, 0, lo * sizeof(float));
      for (size_t c = lo; c <= i; c++) r[c] *= inv;
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
  int window = n->layer[layer].local ? (int)n->cfg.window : 0;
  struct attn_job j = {n, a, set_of(a, layer), window, back, false};
  foray_pool_run(foray_mm_pool(n->gemm), attn_part, &j, a->n_seg * (int)n->cfg.n_head_kv);
  return j.failed ? nomem(err) : FORAY_OK;
}

static void rope_rows(const struct foray_net *n, const struct foray_acts *a, int layer, float *x, int heads,
                      float sign) {
  int hd = (int)n->cfg.head_dim, dim = (int)n->cfg.rope_dim;
  const float *tab = n->layer[layer].local ? a->tab_local : a->tab;
  for (int r = 0; r < a->m; r++)
    foray_ew_rope(x + (size_t)r * (size_t)(heads * hd), heads, hd, dim, n->cfg.rope_style == FORAY_ROPE_NEOX,
                  tab + (size_t)a->pos[r] * (size_t)dim, sign);
}

static enum foray_status rope_tables(const struct foray_net *n, struct foray_acts *a, int rows,
                                     struct foray_err *err) {
  int dim = (int)n->cfg.rope_dim;
  bool two = n->cfg.window && n->cfg.window_pattern;
  if (rows <= a->tab_rows) return FORAY_OK;
  if (a->tab_local != a->tab) free(a->tab_local);
  free(a->tab);
  a->tab_rows = 0;
  a->tab = floats(rows, dim);
  a->tab_local = two ? floats(rows, dim) : a->tab;
  if (!a->tab || !a->tab_local) return nomem(err);
  a->tab_rows = rows;
  foray_net_rope_tables(n, false, rows, a->tab);
  if (two) foray_net_rope_tables(n, true, rows, a->tab_local);
  return FORAY_OK;
}

static enum foray_status prepare(struct foray_net *n, struct foray_acts *a, int m,
                                 const struct foray_segment *seg, int n_seg, struct foray_err *err) {
  int longest = 0;
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
  return rope_tables(n, a, longest, err);
}

static void glu(const struct foray_net *n, int m, const struct layer_acts *c, float *h) {
  struct foray_pool *pool = foray_mm_pool(n->gemm);
  if (n->cfg.act == FORAY_ACT_GELU_TANH)
    foray_ew_gelu_mul(pool, m, n->F, c->gate, c->up, h);
  else
    foray_ew_silu_mul(pool, m, n->F, c->gate, c->up, h);
}

/* Block i: state[i] to state[i + 1], keeping in its set what the reverse step needs. With `again` the end is
 * left out, because state[i + 1] is known. */
static enum foray_status block(struct foray_net *n, struct foray_acts *a, int i, bool again,
                               struct foray_err *err) {
  struct foray_pool *pool = foray_mm_pool(n->gemm);
  struct foray_net_layer *y = &n->layer[i];
  struct layer_acts *c = set_of(a, i);
  const struct foray_model_config *cf = &n->cfg;
  int m = a->m, heads = (int)cf->n_head, kvs = (int)cf->n_head_kv, hd = (int)cf->head_dim;
  size_t mD = (size_t)m * (size_t)n->D;
  float *q = cf->qk_norm ? c->qraw : c->q, *k = cf->qk_norm ? c->kraw : c->k;
  enum foray_status st;
  foray_ew_rmsnorm(pool, m, n->D, cf->rms_eps, a->state[i], y->norm1, a->n);
  if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_Q], m, a->n, q, err))) return st;
  if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_K], m, a->n, k, err))) return st;
  if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_V], m, a->n, c->v, err))) return st;
  if (cf->qk_norm) {
    foray_ew_rmsnorm(pool, m * heads, hd, cf->rms_eps, q, y->qn, c->q);
    foray_ew_rmsnorm(pool, m * kvs, hd, cf->rms_eps, k, y->kn, c->k);
  }
  rope_rows(n, a, i, c->q, heads, 1);
  rope_rows(n, a, i, c->k, kvs, 1);
  if (a->on_kv && !again) a->on_kv(a->kv_arg, i, c->k, c->v);
  if ((st = attention(n, a, i, false, err))) return st;
  float *o = cf->post_norms ? c->o : c->mid;
  if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_O], m, c->att, o, err))) return st;
  if (cf->post_norms) foray_ew_rmsnorm(pool, m, n->D, cf->rms_eps, c->o, y->post1, c->mid);
  foray_ew_add(pool, mD, c->mid, a->state[i]);
  foray_ew_rmsnorm(pool, m, n->D, cf->rms_eps, c->mid, y->norm2, a->n);
  if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_GATE], m, a->n, c->gate, err))) return st;
  if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_UP], m, a->n, c->up, err))) return st;
  if (again && !cf->post_norms) return FORAY_OK;
  glu(n, m, c, a->h);
  float *d = cf->post_norms ? c->down : a->state[i + 1];
  if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_DOWN], m, a->h, d, err))) return st;
  if (again) return FORAY_OK;
  if (cf->post_norms) foray_ew_rmsnorm(pool, m, n->D, cf->rms_eps, c->down, y->post2, a->state[i + 1]);
  foray_ew_add(pool, mD, a->state[i + 1], c->mid);
  return FORAY_OK;
}

static bool skipped(const struct foray_net *n, int i) { return i >= n->skip_from && i < n->skip_to; }

static enum foray_status blocks(struct foray_net *n, struct foray_acts *a, int from, struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  for (int i = from; !st && i < n->n_layer; i++) {
    if (skipped(n, i))
      memcpy(a->state[i + 1], a->state[i], (size_t)a->m * (size_t)n->D * sizeof(float));
    else
      st = block(n, a, i, false, err);
  }
  return st;
}

enum foray_status foray_net_forward(struct foray_net *n, struct foray_acts *a, int m, const int32_t *tokens,
                                    const struct foray_segment *seg, int n_seg, struct foray_err *err) {
  enum foray_status st = prepare(n, a, m, seg, n_seg, err);
  if (!st) memcpy(a->tokens, tokens, (size_t)m * sizeof *tokens);
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

/* d of a norm's output to d of its input: dx (zeroed unless add) and the gradient of its weight. */
static void norm_back(struct foray_net *n, int rows, int width, const float *x, const float *w,
                      struct foray_param *p, const float *dy, float *dx, bool add) {
  if (!add) memset(dx, 0, (size_t)rows * (size_t)width * sizeof(float));
  foray_ew_rmsnorm_back(foray_mm_pool(n->gemm), rows, width, n->cfg.rms_eps, x, w, dy, dx,
                        p->n ? p->g : NULL);
}

/* Reverse step of block i: a->dx is the gradient of its output, and becomes that of its input. */
static enum foray_status block_back(struct foray_net *n, struct foray_acts *a, int i, struct foray_err *err) {
  struct foray_pool *pool = foray_mm_pool(n->gemm);
  struct foray_net_layer *y = &n->layer[i];
  struct layer_acts *c = set_of(a, i);
  const struct foray_model_config *cf = &n->cfg;
  int m = a->m, heads = (int)cf->n_head, kvs = (int)cf->n_head_kv, hd = (int)cf->head_dim;
  const float *d = a->dx;
  enum foray_status st;
  /* feed-forward; gate and up are replaced by their gradients after their last use */
  if (cf->post_norms) {
    norm_back(n, m, n->D, c->down, y->post2, &y->norm_p[FORAY_NORM_POST2], d, a->dn, false);
    d = a->dn;
  }
  glu(n, m, c, a->h);
  if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_DOWN], m, a->h, d, a->dh, false, err))) return st;
  if (cf->act == FORAY_ACT_GELU_TANH)
    foray_ew_gelu_mul_back(pool, m, n->F, c->gate, c->up, a->dh);
  else
    foray_ew_silu_mul_back(pool, m, n->F, c->gate, c->up, a->dh);
  foray_ew_rmsnorm(pool, m, n->D, cf->rms_eps, c->mid, y->norm2, a->n);
  if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_GATE], m, a->n, c->gate, a->dn, false, err)))
    return st;
  if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_UP], m, a->n, c->up, a->dn, true, err))) return st;
  norm_back(n, m, n->D, c->mid, y->norm2, &y->norm_p[FORAY_NORM_2], a->dn, a->dx, true);
  /* attention */
  d = a->dx;
  if (cf->post_norms) {
    norm_back(n, m, n->D, c->o, y->post1, &y->norm_p[FORAY_NORM_POST1], d, a->dn, false);
    d = a->dn;
  }
  if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_O], m, c->att, d, a->datt, false, err))) return st;
  if ((st = attention(n, a, i, true, err))) return st;
  rope_rows(n, a, i, a->dq, heads, -1);
  rope_rows(n, a, i, a->dk, kvs, -1);
  if (cf->qk_norm) { /* c->q and c->k have served; they take the gradients before the norms */
    norm_back(n, m * heads, hd, c->qraw, y->qn, &y->norm_p[FORAY_NORM_Q], a->dq, c->q, false);
    norm_back(n, m * kvs, hd, c->kraw, y->kn, &y->norm_p[FORAY_NORM_K], a->dk, c->k, false);
  }
  const float *dq = cf->qk_norm ? c->q : a->dq, *dk = cf->qk_norm ? c->k : a->dk;
  foray_ew_rmsnorm(pool, m, n->D, cf->rms_eps, a->state[i], y->norm1, a->n);
  if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_Q], m, a->n, dq, a->dn, false, err))) return st;
  if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_K], m, a->n, dk, a->dn, true, err))) return st;
  if ((st = foray_lin_backward(n->gemm, &y->lin[FORAY_LIN_V], m, a->n, a->dv, a->dn, true, err))) return st;
  norm_back(n, m, n->D, a->state[i], y->norm1, &y->norm_p[FORAY_NORM_1], a->dn, a->dx, true);
  return FORAY_OK;
}

enum foray_status foray_net_backward(struct foray_net *n, struct foray_acts *a, float *const *d_state,
                                     struct foray_err *err) {
  struct foray_pool *pool = foray_mm_pool(n->gemm);
  size_t D = (size_t)n->D, mD = (size_t)a->m * D;
  enum foray_status st = FORAY_OK;
  memset(a->dx, 0, mD * sizeof(float));
  if (d_state[n->n_layer]) foray_ew_add(pool, mD, a->dx, d_state[n->n_layer]);
  for (int i = n->n_layer - 1; !st && i >= n->first; i--) {
    if (!skipped(n, i)) {
      if (a->checkpoint) st = block(n, a, i, true, err);
      if (!st) st = block_back(n, a, i, err);
    }
    if (!st && d_state[i]) foray_ew_add(pool, mD, a->dx, d_state[i]);
  }
  if (st || !n->embd_p.n) return st;
  float scale = n->cfg.embd_scale != 0 ? n->cfg.embd_scale : 1;
  for (int r = 0; r < a->m; r++) {
    size_t id = a->tokens[r] < 0 || (uint32_t)a->tokens[r] >= n->cfg.n_vocab ? 0 : (size_t)a->tokens[r];
    for (size_t i = 0; i < D; i++) n->embd_p.g[id * D + i] += scale * a->dx[(size_t)r * D + i];
  }
  return FORAY_OK;
}
