#include "train/decode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/philox.h"
#include "train/ewise.h"

enum { GROUP = 32 }; /* prompts at a time */

/* Keys and values: [layer][slot][kv head][position][head_dim]. */
struct decoder {
  struct foray_net *n;
  struct foray_lm *lm;
  const struct foray_decode_opts *o;
  int slots, ctx, layer;
  int start[GROUP], at[GROUP], first[GROUP]; /* row of a prompt; tokens so far; number of the prompt */
  float *kc, *vc, *tab, *tab_local;
  float *x, *nx, *q, *q2, *k, *k2, *v, *att, *gate, *up, *h, *y, *logits, *score;
};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "decoding: out of memory");
}
static size_t kv_at(const struct decoder *d, int layer, int slot, int kv) {
  const struct foray_model_config *c = &d->n->cfg;
  return ((((size_t)layer * (size_t)d->slots + (size_t)slot) * c->n_head_kv + (size_t)kv) * (size_t)d->ctx) *
         c->head_dim;
}

static void keep(struct decoder *d, int layer, int slot, int pos, const float *k, const float *v) {
  size_t hd = d->n->cfg.head_dim;
  for (int kv = 0; kv < (int)d->n->cfg.n_head_kv; kv++) {
    size_t at = kv_at(d, layer, slot, kv) + (size_t)pos * hd;
    memcpy(d->kc + at, k + (size_t)kv * hd, hd * sizeof(float));
    memcpy(d->vc + at, v + (size_t)kv * hd, hd * sizeof(float));
  }
}
static void take_kv(void *arg, int layer, const float *k, const float *v) {
  struct decoder *d = arg;
  size_t K = (size_t)d->n->K;
  for (int s = 0; s < d->slots; s++)
    for (int p = 0; p < d->at[s]; p++)
      keep(d, layer, s, p, k + (size_t)(d->start[s] + p) * K, v + (size_t)(d->start[s] + p) * K);
}

static void attend_part(void *arg, int part, int thread) {
  struct decoder *d = arg;
  const struct foray_model_config *c = &d->n->cfg;
  int kvs = (int)c->n_head_kv, hd = (int)c->head_dim, group = (int)c->n_head / kvs, s = part / kvs,
      kv = part % kvs;
  int T = d->at[s] + 1, lo = d->n->layer[d->layer].local && T > (int)c->window ? T - (int)c->window : 0,
      m = T - lo;
  float *p = d->score + (size_t)part * (size_t)group * (size_t)d->ctx;
  const size_t base = kv_at(d, d->layer, s, kv) + (size_t)lo * (size_t)hd;
  size_t qo = (size_t)s * (size_t)d->n->Q + (size_t)(kv * group * hd);
  (void)thread;
  foray_mm_small(true, group, m, hd, c->attn_scale, d->q + qo, (size_t)hd, d->kc + base, (size_t)hd, p,
                 (size_t)m, false);
  for (int h = 0; h < group; h++) {
    float *r = p + (size_t)h * (size_t)m, inv = 1.0f / foray_ew_exp_sum(r, m, foray_ew_max(r, m));
    for (int i = 0; i < m; i++) r[i] *= inv;
  }
  foray_mm_small(false, group, hd, m, 1, p, (size_t)m, d->vc + base, (size_t)hd, d->att + qo, (size_t)hd,
                 false);
}

/* One token of every slot; d->x holds their embeddings and becomes the final residual. */
static enum foray_status step(struct decoder *d, struct foray_err *err) {
  struct foray_net *n = d->n;
  struct foray_pool *pool = foray_mm_pool(n->gemm);
  const struct foray_model_config *c = &n->cfg;
  int m = d->slots, hd = (int)c->head_dim, H = (int)c->n_head, KV = (int)c->n_head_kv, dim = (int)c->rope_dim;
  bool neox = c->rope_style == FORAY_ROPE_NEOX;
  size_t mD = (size_t)m * (size_t)n->D;
  enum foray_status st = FORAY_OK;
  for (int l = 0; !st && l < n->n_layer; l++) {
    struct foray_net_layer *y = &n->layer[l];
    float *q = y->qn ? d->q2 : d->q, *k = y->kn ? d->k2 : d->k;
    foray_ew_rmsnorm(pool, m, n->D, c->rms_eps, d->x, y->norm1, d->nx);
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_Q], m, d->nx, q, err))) break;
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_K], m, d->nx, k, err))) break;
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_V], m, d->nx, d->v, err))) break;
    if (y->qn) foray_ew_rmsnorm(pool, m * H, hd, c->rms_eps, q, y->qn, d->q);
    if (y->kn) foray_ew_rmsnorm(pool, m * KV, hd, c->rms_eps, k, y->kn, d->k);
    for (int s = 0; s < m; s++) {
      const float *tab = (y->local ? d->tab_local : d->tab) + (size_t)d->at[s] * (size_t)dim;
      foray_ew_rope(d->q + (size_t)s * (size_t)n->Q, H, hd, dim, neox, tab, 1);
      foray_ew_rope(d->k + (size_t)s * (size_t)n->K, KV, hd, dim, neox, tab, 1);
      keep(d, l, s, d->at[s], d->k + (size_t)s * (size_t)n->K, d->v + (size_t)s * (size_t)n->K);
    }
    d->layer = l;
    foray_pool_run(pool, attend_part, d, m * KV);
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_O], m, d->att, d->y, err))) break;
    if (y->post1) {
      foray_ew_rmsnorm(pool, m, n->D, c->rms_eps, d->y, y->post1, d->nx);
      foray_ew_add(pool, mD, d->x, d->nx);
    } else {
      foray_ew_add(pool, mD, d->x, d->y);
    }
    foray_ew_rmsnorm(pool, m, n->D, c->rms_eps, d->x, y->norm2, d->nx);
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_GATE], m, d->nx, d->gate, err))) break;
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_UP], m, d->nx, d->up, err))) break;
    (c->act == FORAY_ACT_GELU_TANH ? foray_ew_gelu_mul : foray_ew_silu_mul)(pool, m, n->F, d->gate, d->up,
                                                                            d->h);
    if ((st = foray_lin_forward(n->gemm, &y->lin[FORAY_LIN_DOWN], m, d->h, d->y, err))) break;
    if (y->post2) {
      foray_ew_rmsnorm(pool, m, n->D, c->rms_eps, d->y, y->post2, d->nx);
      foray_ew_add(pool, mD, d->x, d->nx);
    } else {
      foray_ew_add(pool, mD, d->x, d->y);
    }
  }
  return st;
}

static int32_t choose(const struct decoder *d, int s, const float *z) {
  int best = 0, V = d->n->n_head;
  float top = -INFINITY;
  for (int i = 0; i < V; i++) {
    float v = z[i];
    if (d->o->temperature > 0) {
      uint32_t u =
          foray_philox4x32(d->o->seed, (uint32_t)i, (uint32_t)d->at[s], (uint32_t)d->first[s], 0x64656364)
              .v[0];
      v = v / d->o->temperature - (float)log(-log(((double)u + 0.5) / 4294967296.0));
    }
    if (v > top) top = v, best = i;
  }
  return (int32_t)d->n->vocab[best];
}

static void close_decoder(struct decoder *d) {
  float *const all[] = {d->kc, d->vc, d->tab, d->tab_local, d->x,  d->nx, d->q, d->q2,     d->k,
                        d->k2, d->v,  d->att, d->gate,      d->up, d->h,  d->y, d->logits, d->score};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static enum foray_status open_decoder(struct decoder *d, struct foray_err *err) {
  const struct foray_net *n = d->n;
  const struct foray_model_config *c = &n->cfg;
  size_t S = (size_t)d->slots, kv = (size_t)n->n_layer * S * (size_t)n->K * (size_t)d->ctx;
  size_t tab = (size_t)d->ctx * c->rope_dim;
#define FLOATS(p, count) ((d->p = malloc((count) * sizeof(float))) != NULL)
  bool ok = FLOATS(kc, kv) && FLOATS(vc, kv) && FLOATS(tab, tab) && FLOATS(tab_local, tab) &&
            FLOATS(x, S * (size_t)n->D) && FLOATS(nx, S * (size_t)n->D) && FLOATS(q, S * (size_t)n->Q) &&
            FLOATS(q2, S * (size_t)n->Q) && FLOATS(k, S * (size_t)n->K) && FLOATS(k2, S * (size_t)n->K) &&
            FLOATS(v, S * (size_t)n->K) && FLOATS(att, S * (size_t)n->Q) && FLOATS(gate, S * (size_t)n->F) &&
            FLOATS(up, S * (size_t)n->F) && FLOATS(h, S * (size_t)n->F) && FLOATS(y, S * (size_t)n->D) &&
            FLOATS(logits, S * (size_t)n->n_head) && FLOATS(score, S * c->n_head * (size_t)d->ctx);
#undef FLOATS
  if (!ok) return nomem(err);
  foray_net_rope_tables(n, false, d->ctx, d->tab);
  foray_net_rope_tables(n, true, d->ctx, d->tab_local);
  return FORAY_OK;
}

static enum foray_status run_group(struct decoder *d, struct foray_acts *a, int base,
                                   const int32_t *const *prompt, const int *len, struct foray_ids *out,
                                   struct foray_err *err) {
  struct foray_net *n = d->n;
  struct foray_segment seg[GROUP];
  size_t D = (size_t)n->D, V = (size_t)n->n_head;
  int m = 0, count = d->slots, longest = 0;
  for (int s = 0; s < count; s++) {
    seg[s] = (struct foray_segment){m, len[base + s]};
    d->start[s] = m, d->at[s] = len[base + s], d->first[s] = base + s;
    m += len[base + s];
    if (len[base + s] > longest) longest = len[base + s];
  }
  d->ctx = longest + d->o->max_new;
  int32_t *tok = malloc((size_t)m * sizeof *tok);
  enum foray_status st = tok ? open_decoder(d, err) : nomem(err);
  for (int s = 0; !st && s < count; s++)
    memcpy(tok + d->start[s], prompt[base + s], (size_t)len[base + s] * sizeof *tok);
  foray_acts_on_kv(a, take_kv, d);
  if (!st) st = foray_net_forward(n, a, m, tok, seg, count, err);
  foray_acts_on_kv(a, NULL, NULL);
  free(tok);
  for (int s = 0; !st && s < count; s++)
    memcpy(d->x + (size_t)s * D, foray_acts_state(a, n->n_layer) + (size_t)(d->start[s] + d->at[s] - 1) * D,
           D * sizeof(float));
  bool done[GROUP] = {false};
  int left = count;
  for (int t = 0; !st && left && t < d->o->max_new; t++) {
    if (d->o->stop && *d->o->stop) return foray_err_set(err, FORAY_E_CANCELLED, "stopped");
    if ((st = foray_lm_logits(d->lm, count, d->x, d->logits, err))) break;
    for (int s = 0; s < count; s++) {
      int32_t id = done[s] ? 0 : choose(d, s, d->logits + (size_t)s * V);
      if (!done[s] && d->o->end(d->o->end_arg, id)) done[s] = true, left--;
      if (!done[s] && foray_ids_add(&out[base + s], id)) return nomem(err);
      foray_net_embed(n, id, d->x + (size_t)s * D);
    }
    if (!left || t + 1 == d->o->max_new) break;
    st = step(d, err);
    for (int s = 0; s < count; s++) d->at[s] += !done[s];
  }
  return st;
}

enum foray_status foray_decode(struct foray_net *n, struct foray_acts *a, struct foray_lm *lm, int count,
                               const int32_t *const *prompt, const int *len,
                               const struct foray_decode_opts *o, struct foray_ids *out,
                               struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  for (int at = 0; !st && at < count;) {
    struct decoder d = {.n = n, .lm = lm, .o = o};
    int rows = 0, cap = foray_acts_rows(a);
    while (at + d.slots < count && d.slots < GROUP && rows + len[at + d.slots] <= cap)
      rows += len[at + d.slots++];
    if (!d.slots)
      return foray_err_set(err, FORAY_E_ARG, "a prompt of %d tokens does not fit into %d rows", len[at], cap);
    int took = d.slots;
    st = run_group(&d, a, at, prompt, len, out, err);
    close_decoder(&d);
    at += took;
  }
  return st;
}
