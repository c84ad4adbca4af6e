/* The layers over a slice of columns. A column is one position of one sequence; nothing that is computed for
 * a column depends on the other columns of the slice, except through keys and values of earlier positions of
 * its own sequence. */
#include "engine/internal.h"

#include "core/err.h"
#include "engine/fmath.h"
#include "engine/repack.h"

#include <stdlib.h>
#include <string.h>

enum foray_status engine_rope_grow(struct foray_engine *e, int32_t len, struct foray_err *err) {
  const size_t half = e->cfg.rope_dim / 2;
  for (int t = 0; t < e->n_rope; t++) {
    struct engine_rope *r = &e->rope[t];
    if (len <= r->len) continue;
    const int32_t to = (len / 128 + 1) * 128;
    if (to > r->cap) {
      const int32_t cap = to + to / 2;
      float *cs = realloc(r->cs, (size_t)cap * half * sizeof *cs);
      if (cs) r->cs = cs;
      float *sn = realloc(r->sn, (size_t)cap * half * sizeof *sn);
      if (sn) r->sn = sn;
      if (!cs || !sn)
        return foray_err_set(err, FORAY_E_NOMEM, "out of memory for RoPE tables of %d positions", (int)cap);
      r->cap = cap;
    }
    for (int32_t p = r->len; p < to; p++)
      for (size_t i = 0; i < half; i++) {
        double s, c;
        fm_sincos((double)p * r->freq[i], &s, &c);
        r->cs[(size_t)p * half + i] = (float)c;
        r->sn[(size_t)p * half + i] = (float)s;
      }
    r->len = to;
  }
  return FORAY_OK;
}

/* ---- activations ---- */

/* Lays the act blocks of n columns of k values out; q or xf is NULL when no matrix that follows wants it. */
static void acts_layout(struct foray_engine *e, int n, size_t k, bool quant, bool flt) {
  const int wide = e->ops->block_width;
  const size_t groups = (k + EK_GROUP - 1) / EK_GROUP;
  e->n_acts = 0;
  for (int c = 0; c < n; c += wide) {
    const size_t cell = (size_t)c * groups;
    struct ek_act *a = &e->acts[e->n_acts++];
    *a = (struct ek_act){.width = n - c < wide ? n - c : wide, .col0 = c};
    if (quant) {
      a->q = e->act_q + cell * EK_GROUP;
      a->d = e->act_d + cell;
      a->s = e->act_s + cell;
      a->n32 = e->act_n32 + cell;
      a->n16 = e->act_n16 + 2 * cell;
    }
    if (flt) a->xf = e->act_xf + cell * EK_GROUP;
  }
}

static bool is_float(const struct ek_mat *m) { return m->format >= EK_F32; }

struct stage {
  struct foray_engine *e;
  const struct engine_layer *l;
  int layer, n, segs;
  const float *post, *norm; /* of a residual stage */
};

static void act_put(struct foray_engine *e, const float *x, size_t k, int col, int g0, int g1) {
  const int wide = e->ops->block_width;
  e->ops->quantise(x, (int)k, &e->acts[col / wide], col % wide, g0, g1);
}

static int groups_of(size_t k) { return (int)((k + EK_GROUP - 1) / EK_GROUP); }

/* Runs parts of a stage on the team; a single part in the caller, to save the team's start. */
static void run(struct stage *s, foray_pool_fn *fn, int parts) {
  if (parts == 1)
    fn(s, 0, 0);
  else
    foray_pool_run(s->e->pool, fn, s, parts);
}

/* x = embedding */
static void embed_part(void *arg, int c, int thread) {
  struct foray_engine *e = ((struct stage *)arg)->e;
  (void)thread;
  float *x = e->x + (size_t)c * e->cfg.n_embd;
  ek_row(&e->embd, e->cols[c].token, x);
  if (e->cfg.embd_scale != 1.0f)
    for (uint32_t i = 0; i < e->cfg.n_embd; i++) x[i] = x[i] * e->cfg.embd_scale;
}

/* h = norm(x), quantised */
static void norm_part(void *arg, int c, int thread) {
  const struct stage *s = arg;
  struct foray_engine *e = s->e;
  const size_t E = e->cfg.n_embd;
  float *x = e->x + (size_t)c * E, *h = e->h + (size_t)c * E;
  (void)thread;
  e->ops->rmsnorm(h, x, s->norm, (int)E, e->cfg.rms_eps);
  act_put(e, h, E, c, 0, groups_of(E));
}

/* x += post(t), then as norm_part when a norm follows */
static void residual_part(void *arg, int c, int thread) {
  const struct stage *s = arg;
  struct foray_engine *e = s->e;
  const size_t E = e->cfg.n_embd;
  float *x = e->x + (size_t)c * E, *t = e->t + (size_t)c * E;
  if (s->post) e->ops->rmsnorm(t, t, s->post, (int)E, e->cfg.rms_eps);
  for (size_t i = 0; i < E; i++) x[i] = x[i] + t[i];
  if (s->norm) norm_part(arg, c, thread);
}

/* ---- matrix products ---- */

struct product {
  const struct ek_mat *m;
  float *const *y;
  int step, parts;
};
struct products {
  struct foray_engine *e;
  struct product p[3];
  int n;
};

static void product_part(void *arg, int part, int thread) {
  const struct products *j = arg;
  int i = 0;
  while (part >= j->p[i].parts) part -= j->p[i++].parts;
  const struct product *p = &j->p[i];
  const int blocks = ek_blocks(p->m), b0 = part * p->step, b1 = b0 + p->step < blocks ? b0 + p->step : blocks;
  j->e->ops->gemm(p->m, j->e->acts, j->e->n_acts, p->y, b0, b1, j->e->threads[thread].gemm);
}

static void product_add(struct products *j, const struct ek_mat *m, float *const *y) {
  const int blocks = ek_blocks(m), parts = j->e->info.threads * 8;
  struct product *p = &j->p[j->n++];
  *p = (struct product){.m = m, .y = y, .step = (blocks + parts - 1) / parts};
  p->parts = (blocks + p->step - 1) / p->step;
}

static void products_run(struct products *j) {
  int parts = 0;
  for (int i = 0; i < j->n; i++) parts += j->p[i].parts;
  foray_pool_run(j->e->pool, product_part, j, parts);
}

/* ---- attention ---- */

static void add_bias(float *x, const float *b, int n) {
  for (int i = 0; b && i < n; i++) x[i] = x[i] + b[i];
}

static void rope(const struct foray_engine *e, const struct engine_rope *r, float *x, int32_t pos) {
  const size_t half = e->cfg.rope_dim / 2;
  const float *cs = r->cs + (size_t)pos * half, *sn = r->sn + (size_t)pos * half;
  if (e->cfg.rope_style == FORAY_ROPE_NEOX) {
    for (size_t i = 0; i < half; i++) {
      const float a = x[i], b = x[i + half];
      x[i] = a * cs[i] - b * sn[i];
      x[i + half] = a * sn[i] + b * cs[i];
    }
  } else {
    for (size_t i = 0; i < half; i++) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cs[i] - b * sn[i];
      x[2 * i + 1] = a * sn[i] + b * cs[i];
    }
  }
}

/* Bias, norm and RoPE of q and k; stores k and v. */
static void qkv_part(void *arg, int c, int thread) {
  const struct stage *s = arg;
  struct foray_engine *e = s->e;
  const struct engine_layer *l = s->l;
  const struct engine_col *col = &e->cols[c];
  const int D = (int)e->cfg.head_dim, H = (int)e->cfg.n_head, G = (int)e->cfg.n_head_kv;
  float *q = e->q + (size_t)c * (size_t)e->q_dim, *k = e->k + (size_t)c * (size_t)e->kv_dim,
        *v = e->v + (size_t)c * (size_t)e->kv_dim;
  (void)thread;
  add_bias(q, l->q_bias, e->q_dim);
  add_bias(k, l->k_bias, e->kv_dim);
  add_bias(v, l->v_bias, e->kv_dim);
  for (int h = 0; h < H; h++) {
    if (l->q_norm) e->ops->rmsnorm(q + h * D, q + h * D, l->q_norm, D, e->cfg.rms_eps);
    rope(e, &e->rope[l->rope], q + h * D, col->rope_pos);
  }
  uint16_t *page = col->seq->pages[col->pos / EK_PAGE];
  for (int h = 0; h < G; h++) {
    if (l->k_norm) e->ops->rmsnorm(k + h * D, k + h * D, l->k_norm, D, e->cfg.rms_eps);
    rope(e, &e->rope[l->rope], k + h * D, col->rope_pos);
    uint16_t *kp = page + engine_page_offset(e, s->layer, h);
    e->ops->kv_put(k + h * D, v + h * D, D, kp, kp + (size_t)EK_PAGE * (size_t)D, col->pos % EK_PAGE);
  }
}

static void attention_part(void *arg, int part, int thread) {
  const struct stage *s = arg;
  struct foray_engine *e = s->e;
  const int G = (int)e->cfg.n_head_kv, D = (int)e->cfg.head_dim, heads = (int)e->cfg.n_head / G;
  const int c = part / G, h = part % G;
  const struct engine_col *col = &e->cols[c];
  const size_t off = engine_page_offset(e, s->layer, h);
  const struct ek_kv kv = {col->seq->pages, off, off + (size_t)EK_PAGE * (size_t)D};
  const size_t at = (size_t)c * (size_t)e->q_dim + (size_t)h * (size_t)heads * (size_t)D;
  const int lo = s->l->window && col->pos >= s->l->window ? col->pos - s->l->window + 1 : 0;
  e->ops->attention(e->att + at, e->q + at, heads, D, &kv, lo, col->pos, e->cfg.attn_scale,
                    e->threads[thread].scores, e->score_stride);
}

static void att_quant_part(void *arg, int c, int thread) {
  struct foray_engine *e = ((struct stage *)arg)->e;
  (void)thread;
  act_put(e, e->att + (size_t)c * (size_t)e->q_dim, (size_t)e->q_dim, c, 0, groups_of((size_t)e->q_dim));
}

/* gate = act(gate) * up, quantised; a column is cut into segs parts of whole groups */
static void ffn_part(void *arg, int part, int thread) {
  const struct stage *s = arg;
  struct foray_engine *e = s->e;
  (void)thread;
  const int c = part / s->segs, i = part % s->segs, groups = groups_of(e->cfg.n_ff);
  const int g0 = (int)((int64_t)groups * i / s->segs), g1 = (int)((int64_t)groups * (i + 1) / s->segs);
  const size_t k0 = (size_t)g0 * EK_GROUP,
               k1 = (size_t)g1 * EK_GROUP < e->cfg.n_ff ? (size_t)g1 * EK_GROUP : e->cfg.n_ff;
  float *g = e->gate + (size_t)c * e->cfg.n_ff, *u = e->up + (size_t)c * e->cfg.n_ff;
  (e->cfg.act == FORAY_ACT_SILU ? e->ops->silu_mul : e->ops->gelu_mul)(g + k0, g + k0, u + k0,
                                                                       (int)(k1 - k0));
  act_put(e, g, e->cfg.n_ff, c, g0, g1);
}

static void layer_run(struct stage *s) {
  struct foray_engine *e = s->e;
  const struct engine_layer *l = s->l;
  const int n = s->n;
  struct products qkv = {.e = e}, o = {.e = e}, gu = {.e = e}, down = {.e = e};
  product_add(&qkv, &l->q, e->cols_q);
  product_add(&qkv, &l->k, e->cols_k);
  product_add(&qkv, &l->v, e->cols_v);
  products_run(&qkv);
  run(s, qkv_part, n);
  foray_pool_run(e->pool, attention_part, s, n * (int)e->cfg.n_head_kv);
  acts_layout(e, n, (size_t)e->q_dim, !is_float(&l->o), is_float(&l->o));
  run(s, att_quant_part, n);
  product_add(&o, &l->o, e->cols_t);
  products_run(&o);
  acts_layout(e, n, e->cfg.n_embd, !is_float(&l->gate) || !is_float(&l->up),
              is_float(&l->gate) || is_float(&l->up));
  s->post = l->post_attn;
  s->norm = l->ffn_norm;
  run(s, residual_part, n);
  product_add(&gu, &l->gate, e->cols_gate);
  product_add(&gu, &l->up, e->cols_up);
  products_run(&gu);
  acts_layout(e, n, e->cfg.n_ff, !is_float(&l->down), is_float(&l->down));
  s->segs = n < 4 ? 4 : 1;
  run(s, ffn_part, n * s->segs);
  product_add(&down, &l->down, e->cols_t);
  products_run(&down);
}

/* Prepares the input of layer il (its norm), or after the last one of nothing. */
static void layer_input(struct stage *s, int il, foray_pool_fn *fn) {
  struct foray_engine *e = s->e;
  s->norm = NULL;
  if (il < (int)e->cfg.n_layer) {
    const struct engine_layer *l = &e->layers[il];
    const bool f = is_float(&l->q) || is_float(&l->k) || is_float(&l->v);
    const bool q = !is_float(&l->q) || !is_float(&l->k) || !is_float(&l->v);
    acts_layout(e, s->n, e->cfg.n_embd, q, f);
    s->norm = l->attn_norm;
    s->l = l;
    s->layer = il;
  }
  run(s, fn, s->n);
}

static void softcap(struct foray_engine *e, float *y) {
  const double c = (double)e->cfg.logit_softcap; /* c tanh(y / c) = c (1 - 2 / (exp(2 y / c) + 1)) */
  for (int32_t i = 0; i < e->info.n_vocab; i++)
    y[i] = (float)(c * (1.0 - 2.0 / (fm_exp(2.0 * (double)y[i] / c) + 1.0)));
}

static void softcap_part(void *arg, int c, int thread) {
  struct foray_engine *e = arg;
  (void)thread;
  softcap(e, e->cols_logits[c]);
}

void engine_slice(struct foray_engine *e, int n) {
  struct stage s = {.e = e, .n = n};
  const size_t E = e->cfg.n_embd;
  run(&s, embed_part, n);
  layer_input(&s, 0, norm_part);
  for (int il = 0; il < (int)e->cfg.n_layer; il++) {
    layer_run(&s);
    s.post = e->layers[il].post_ffn;
    layer_input(&s, il + 1, residual_part);
  }
  int m = 0; /* columns with logits move to the front */
  for (int c = 0; c < n; c++) {
    if (!e->cols[c].logits) continue;
    if (m != c) memcpy(e->x + (size_t)m * E, e->x + (size_t)c * E, E * sizeof(float));
    e->cols_logits[m++] = e->cols[c].logits;
  }
  if (!m) return;
  s.n = m;
  s.norm = e->output_norm;
  acts_layout(e, m, E, !is_float(&e->head), is_float(&e->head));
  run(&s, norm_part, m);
  struct products head = {.e = e};
  product_add(&head, &e->head, e->cols_logits);
  products_run(&head);
  if (e->cfg.logit_softcap != 0.0f) foray_pool_run(e->pool, softcap_part, e, m);
}
