#include "train/loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/philox.h"
#include "train/ewise.h"

const float FORAY_LOSS_TEMP[FORAY_LOSS_TEMPS] = {0.4f, 0.5f, 0.6f,  0.7f, 0.8f,  0.9f, 1.0f,
                                                 1.1f, 1.2f, 1.35f, 1.5f, 1.75f, 2.0f};

enum { BLOCK = 256 };

struct foray_loss {
  int cap;
  float *x, *n, *z, *p, *dz, *dn, *dx, *logits;
};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "loss: out of memory");
}

enum foray_status foray_loss_open(const struct foray_net *n, int max_rows, struct foray_loss **out,
                                  struct foray_err *err) {
  struct foray_loss *l = calloc(1, sizeof *l);
  if (!l) return nomem(err);
  size_t s = (size_t)max_rows * (size_t)n->D;
  l->cap = max_rows;
  l->x = calloc(s, 4), l->n = calloc(s, 4), l->z = calloc(s, 4), l->dz = calloc(s, 4), l->dn = calloc(s, 4);
  l->p = calloc(s, 4), l->dx = calloc(s, 4), l->logits = calloc((size_t)BLOCK * (size_t)n->n_head, 4);
  if (!l->x || !l->n || !l->z || !l->p || !l->dz || !l->dn || !l->dx || !l->logits) {
    foray_loss_close(l);
    return nomem(err);
  }
  *out = l;
  return FORAY_OK;
}
void foray_loss_close(struct foray_loss *l) {
  if (!l) return;
  free(l->x), free(l->n), free(l->z), free(l->p), free(l->dz), free(l->dn), free(l->dx), free(l->logits);
  free(l);
}

void foray_goals_deinit(struct foray_goals *g) {
  free(g->row), free(g->before), free(g->top), free(g->logp), free(g->weight), free(g->next);
  *g = (struct foray_goals){0};
}

enum foray_status foray_goals_add(struct foray_goals *g, const struct foray_doc *d, int start,
                                  float prompt_weight, struct foray_err *err) {
  int need = g->n + d->n - d->first;
  if (need > g->cap) {
    size_t cap = (size_t)need * 2;
    g->row = realloc(g->row, cap * sizeof *g->row);
    g->before = realloc(g->before, cap * sizeof *g->before);
    g->top = realloc(g->top, cap * sizeof *g->top);
    g->logp = realloc(g->logp, cap * sizeof *g->logp);
    g->weight = realloc(g->weight, cap * sizeof *g->weight);
    g->next = realloc(g->next, cap * sizeof *g->next);
    if (!g->row || !g->before || !g->top || !g->logp || !g->weight || !g->next) return nomem(err);
    g->cap = (int)cap;
  }
  for (int i = d->first; i < d->n; i++) {
    float w = i >= d->answer ? 1.0f : prompt_weight;
    if (w <= 0) continue;
    int k = g->n++;
    g->row[k] = start + i - 1;
    g->before[k] = i > 1 ? start + i - 2 : -1;
    g->top[k] = d->top + (size_t)(i - d->first) * FORAY_CORPUS_TOP;
    g->logp[k] = d->logp + (size_t)(i - d->first) * FORAY_CORPUS_TOP;
    g->weight[k] = w;
    g->next[k] = d->ids[i];
  }
  return FORAY_OK;
}

struct row_job {
  const struct foray_net *net;
  const struct foray_goals *goals;
  float *logits;
  int first, rows, V;
  float scale; /* of the gradient; 0 = none wanted */
  bool grad;
  struct foray_guess *guess;
  double kl[BLOCK];
};

static void row_part(void *arg, int part, int thread) {
  struct row_job *j = arg;
  int g = j->first + part, V = j->V, best = 0;
  float *z = j->logits + (size_t)part * (size_t)V;
  (void)thread;
  float top = foray_ew_max(z, V);
  while (z[best] < top) best++;
  /* entropy part and cross part of the KL, over the sparse goal plus the even rest */
  float mass = 0, q[FORAY_CORPUS_TOP];
  int32_t row[FORAY_CORPUS_TOP];
  double cross = 0, zsum = 0, ent = 0;
  for (int k = 0; k < FORAY_CORPUS_TOP; k++) {
    row[k] = j->net->row_of[j->goals->top[g][k]];
    if (row[k] >= V) row[k] = -1;
    q[k] = row[k] < 0 ? 0 : expf(j->goals->logp[g][k]);
    mass += q[k];
  }
  float rest = mass < 1 ? (1 - mass) / (float)V : 0;
  for (int k = 0; k < FORAY_CORPUS_TOP; k++)
    if (row[k] >= 0) {
      cross += (double)q[k] * (double)(z[row[k]] - top);
      ent += (double)q[k] * log((double)q[k] + 1e-30);
    }
  if (rest > 0) {
    for (int i = 0; i < V; i++) zsum += (double)(z[i] - top);
    cross += (double)rest * zsum;
    ent += (double)(rest * (float)V) * log((double)rest + 1e-30);
  }
  if (j->guess) {
    struct foray_guess *o = &j->guess[g];
    o->id = (int32_t)j->net->vocab[best];
    for (int t = 0; t < FORAY_LOSS_TEMPS; t++) {
      double s = 0;
      for (int i = 0; i < V; i++)
        if ((z[i] - top) * FORAY_LOSS_TEMP[t] > -16.0f) s += exp((double)((z[i] - top) * FORAY_LOSS_TEMP[t]));
      o->sure[t] = (float)(1.0 / s);
    }
  }
  float sum = foray_ew_exp_sum(z, V, top);
  j->kl[part] = ent - cross + (double)logf(sum) * (double)(mass + rest * (float)V);
  if (j->guess) j->guess[g].kl = (float)j->kl[part];
  if (!j->grad) return;
  float w = j->scale * j->goals->weight[g], inv = w / sum, even = w * rest;
  for (int i = 0; i < V; i++) z[i] = z[i] * inv - even;
  for (int k = 0; k < FORAY_CORPUS_TOP; k++)
    if (row[k] >= 0) z[row[k]] -= w * q[k];
}

static void gather(struct foray_loss *l, const struct foray_net *n, const float *state, const int *row, int R,
                   const float *norm, float *out) {
  size_t D = (size_t)n->D;
  for (int i = 0; i < R; i++) {
    if (row[i] >= 0)
      memcpy(l->x + (size_t)i * D, state + (size_t)row[i] * D, D * sizeof(float));
    else
      memset(l->x + (size_t)i * D, 0, D * sizeof(float));
  }
  foray_ew_rmsnorm(foray_mm_pool(n->gemm), R, n->D, n->cfg.rms_eps, l->x, norm, out);
}

/* l->z = map l->n + prev l->p; l->p as the chain says. */
static enum foray_status exit_state(struct foray_loss *l, struct foray_net *n, int e,
                                    const struct foray_chain *chain, const struct foray_goals *goals,
                                    const struct foray_mm_b *map, struct foray_err *err) {
  size_t D = (size_t)n->D;
  int R = goals->n;
  struct foray_mm_b prev = {0};
  enum foray_status st = foray_mm_run(n->gemm, R, l->n, D, map, l->z, D, false, err);
  if (st || !n->exit[e].prev.n) return st;
  if (!chain) return foray_err_set(err, FORAY_E_ARG, "exit %d reads the position before: no chain", e);
  st = foray_mm_pack(n->gemm, n->exit[e].prev.w, n->D, n->D, D, true, true, &prev, err);
  if (!st) {
    gather(l, n, chain->last, goals->before, R, n->out_norm, l->p);
    st = foray_mm_run(n->gemm, R, l->p, D, &prev, l->z, D, true, err);
  }
  for (int turn = 0; !st && turn < (chain->mix ? 1 : chain->early); turn++) {
    for (int i = 1; i < R; i++) {
      if (goals->before[i] != goals->row[i - 1]) continue;
      float scale = chain->scale;
      if (chain->mix) {
        uint32_t r = foray_philox4x32(chain->draw, (uint32_t)i, (uint32_t)e, 0x63686169, 0).v[0];
        if (r & 1) continue;
        scale = 0.6f + 0.1f * (float)(r >> 1 & 3); /* calibration will shrink it by as much */
      }
      float *to = l->p + (size_t)i * D;
      const float *from = l->z + (size_t)(i - 1) * D;
      for (size_t c = 0; c < D; c++) to[c] = scale * from[c];
    }
    st = foray_mm_run(n->gemm, R, l->n, D, map, l->z, D, false, err);
    if (!st) st = foray_mm_run(n->gemm, R, l->p, D, &prev, l->z, D, true, err);
  }
  foray_mm_b_free(&prev);
  return st;
}

enum foray_status foray_loss_head(struct foray_loss *l, struct foray_net *n, int e, const float *state,
                                  const struct foray_chain *chain, const struct foray_goals *goals,
                                  float weight, float *d_state, double *kl, struct foray_guess *guess,
                                  struct foray_err *err) {
  int R = goals->n, D = n->D, V = e < 0 ? n->n_head : n->exit[e].head_rows;
  size_t sD = (size_t)D, RD = (size_t)R * sD;
  const float *norm = e < 0 ? n->out_norm : n->exit[e].norm.w;
  struct foray_mm_b map = {0}, back = {0};
  struct foray_pool *pool = foray_mm_pool(n->gemm);
  double total = 0, sum = 0;
  enum foray_status st = FORAY_OK;
  *kl = 0;
  if (R > l->cap) return foray_err_set(err, FORAY_E_ARG, "loss over %d rows, %d at most", R, l->cap);
  for (int i = 0; i < R; i++) total += (double)goals->weight[i];
  if (total <= 0) return FORAY_OK;
  gather(l, n, state, goals->row, R, norm, l->n);
  float *z = l->n;
  if (e >= 0) {
    z = l->z;
    st = foray_mm_pack(n->gemm, n->exit[e].map.w, D, D, sD, true, true, &map, err);
    if (!st) st = foray_mm_pack(n->gemm, n->exit[e].map.w, D, D, sD, false, true, &back, err);
    if (!st) st = exit_state(l, n, e, chain, goals, &map, err);
  }
  struct row_job j = {
      .net = n, .goals = goals, .logits = l->logits, .V = V, .grad = d_state != NULL, .guess = guess};
  j.scale = (float)((double)weight / total);
  for (int at = 0; !st && at < R; at += BLOCK) {
    j.first = at;
    j.rows = R - at < BLOCK ? R - at : BLOCK;
    st = foray_mm_run(n->gemm, j.rows, z + (size_t)at * sD, sD, e < 0 ? &n->head_fwd : &n->exit_fwd[e],
                      l->logits, (size_t)V, false, err);
    if (st) break;
    foray_pool_run(pool, row_part, &j, j.rows);
    for (int i = 0; i < j.rows; i++) sum += j.kl[i] * (double)goals->weight[at + i];
    if (d_state)
      st = foray_mm_run(n->gemm, j.rows, l->logits, (size_t)V, e < 0 ? &n->head_bwd : &n->exit_bwd[e],
                        l->dz + (size_t)at * sD, sD, false, err);
  }
  *kl = sum / total;
  if (!st && d_state) {
    float *dn = l->dz;
    if (e >= 0) {
      dn = l->dn;
      foray_mm_tn(n->gemm, R, D, D, l->dz, sD, l->n, sD, n->exit[e].map.g, sD, true);
      if (n->exit[e].prev.n) foray_mm_tn(n->gemm, R, D, D, l->dz, sD, l->p, sD, n->exit[e].prev.g, sD, true);
      st = foray_mm_run(n->gemm, R, l->dz, sD, &back, dn, sD, false, err);
    }
    memset(l->dx, 0, RD * sizeof(float));
    for (int i = 0; i < R; i++) /* the other use of x is over */
      memcpy(l->x + (size_t)i * sD, state + (size_t)goals->row[i] * sD, sD * sizeof(float));
    foray_ew_rmsnorm_back(pool, R, D, n->cfg.rms_eps, l->x, norm, dn, l->dx, NULL);
    for (int i = 0; i < R; i++)
      for (int c = 0; c < D; c++)
        d_state[(size_t)goals->row[i] * sD + (size_t)c] += l->dx[(size_t)i * sD + (size_t)c];
  }
  foray_mm_b_free(&map);
  foray_mm_b_free(&back);
  return st;
}

struct top_job {
  const struct foray_net *net;
  float *logits;
  int V;
  int32_t *top;
  float *logp;
};

static void top_part(void *arg, int part, int thread) {
  struct top_job *j = arg;
  enum { K = FORAY_CORPUS_TOP };
  float *z = j->logits + (size_t)part * (size_t)j->V;
  int best[K] = {0}, n = 0;
  (void)thread;
  for (int i = 0; i < j->V; i++) { /* ties: the earlier row */
    if (n == K && !(z[i] > z[best[K - 1]])) continue;
    int at = n < K ? n++ : K - 1;
    for (; at > 0 && z[i] > z[best[at - 1]]; at--) best[at] = best[at - 1];
    best[at] = i;
  }
  float first = z[best[0]], value[K] = {0};
  for (int k = 0; k < n; k++) value[k] = z[best[k]] - first;
  float norm = logf(foray_ew_exp_sum(z, j->V, first));
  for (int k = 0; k < K; k++) {
    j->top[part * K + k] = (int32_t)j->net->vocab[best[k < n ? k : 0]];
    j->logp[part * K + k] = k < n ? value[k] - norm : -99.0f;
  }
}

enum foray_status foray_loss_top(struct foray_loss *l, struct foray_net *n, const float *last, const int *row,
                                 int R, int32_t *top, float *logp, struct foray_err *err) {
  if (R > l->cap) return foray_err_set(err, FORAY_E_ARG, "likely ids of %d rows, %d at most", R, l->cap);
  size_t D = (size_t)n->D;
  enum foray_status st = FORAY_OK;
  gather(l, n, last, row, R, n->out_norm, l->n);
  for (int at = 0; !st && at < R; at += BLOCK) {
    int rows = R - at < BLOCK ? R - at : BLOCK;
    struct top_job j = {n, l->logits, n->n_head, top + (size_t)at * FORAY_CORPUS_TOP,
                        logp + (size_t)at * FORAY_CORPUS_TOP};
    st = foray_mm_run(n->gemm, rows, l->n + (size_t)at * D, D, &n->head_fwd, l->logits, (size_t)n->n_head,
                      false, err);
    if (!st) foray_pool_run(foray_mm_pool(n->gemm), top_part, &j, rows);
  }
  return st;
}

enum foray_status foray_ridge_open(int K, int D, struct foray_ridge *r, struct foray_err *err) {
  *r = (struct foray_ridge){.K = K, .D = D};
  r->xx = calloc((size_t)K * (size_t)K, sizeof(float));
  r->yx = calloc((size_t)D * (size_t)K, sizeof(float));
  return r->xx && r->yx ? FORAY_OK : nomem(err);
}
void foray_ridge_close(struct foray_ridge *r) {
  free(r->xx), free(r->yx);
  *r = (struct foray_ridge){0};
}
void foray_ridge_add(struct foray_ridge *r, struct foray_mm *g, int m, const float *x, const float *y) {
  size_t D = (size_t)r->D, K = (size_t)r->K;
  foray_mm_tn(g, m, r->K, r->K, x, K, x, K, r->xx, K, true);
  foray_mm_tn(g, m, r->D, r->K, y, D, x, K, r->yx, K, true);
  r->rows += m;
}

/* Four sums side by side: a fixed order that a compiler may use lanes for. */
static double dot(const double *a, const double *b, size_t n) {
  double s[4] = {0};
  size_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (size_t k = 0; k < 4; k++) s[k] += a[i + k] * b[i + k];
  for (; i < n; i++) s[0] += a[i] * b[i];
  return (s[0] + s[1]) + (s[2] + s[3]);
}

/* Cholesky of xx + lambda I in double, then two triangular solves per output row. */
enum foray_status foray_ridge_solve(struct foray_ridge *r, double lambda, float *map, struct foray_err *err) {
  size_t K = (size_t)r->K, D = (size_t)r->D;
  double *a = malloc(K * K * sizeof *a), *u = malloc(K * K * sizeof *u), *t = malloc(K * sizeof *t),
         trace = 0;
  if (!a || !u || !t) {
    free(a), free(u), free(t);
    return nomem(err);
  }
  for (size_t i = 0; i < K; i++) trace += (double)r->xx[i * K + i];
  for (size_t i = 0; i < K * K; i++) a[i] = (double)r->xx[i];
  for (size_t i = 0; i < K; i++) a[i * K + i] += lambda * trace / (double)K + 1e-12;
  for (size_t i = 0; i < K; i++)
    for (size_t j = 0; j <= i; j++) {
      double s = a[i * K + j] - dot(a + i * K, a + j * K, j);
      a[i * K + j] = i == j ? sqrt(s > 1e-12 ? s : 1e-12) : s / a[j * K + j];
    }
  for (size_t i = 0; i < K; i++)
    for (size_t j = 0; j <= i; j++) u[j * K + i] = a[i * K + j]; /* the same by columns */
  for (size_t o = 0; o < D; o++) {
    for (size_t i = 0; i < K; i++) t[i] = ((double)r->yx[o * K + i] - dot(a + i * K, t, i)) / a[i * K + i];
    for (size_t i = K; i-- > 0;) t[i] = (t[i] - dot(u + i * K + i + 1, t + i + 1, K - i - 1)) / a[i * K + i];
    for (size_t i = 0; i < K; i++) map[o * K + i] = (float)t[i];
  }
  free(a), free(u), free(t);
  return FORAY_OK;
}
