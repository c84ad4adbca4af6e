#include "train/lm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "train/ewise.h"

enum { BLOCK = 128 }; /* positions whose logits exist at a time */

struct foray_lm {
  struct foray_net *n;
  int cap;
  float *x, *nx, *dn, *dx, *logits;
};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "loss: out of memory (smaller batch?)");
}

static const char *const DIV_NAME[] = {"kl", "rkl", "jsd", "tvd", "skew-kl"};
const char *foray_div_name(enum foray_div d) { return DIV_NAME[d]; }
bool foray_div_find(const char *name, enum foray_div *out) {
  for (int i = 0; i < (int)(sizeof DIV_NAME / sizeof *DIV_NAME); i++)
    if (!strcmp(name, DIV_NAME[i])) {
      *out = (enum foray_div)i;
      return true;
    }
  return false;
}

enum foray_status foray_lm_open(struct foray_net *n, int max_rows, struct foray_lm **out,
                                struct foray_err *err) {
  struct foray_lm *l = calloc(1, sizeof *l);
  if (!l) return nomem(err);
  size_t D = (size_t)n->D, s = (size_t)max_rows * D;
  l->n = n;
  l->cap = max_rows;
  l->x = malloc(s * sizeof(float)), l->nx = malloc(s * sizeof(float));
  l->dn = malloc(s * sizeof(float)), l->dx = malloc(s * sizeof(float));
  l->logits = malloc((size_t)BLOCK * (size_t)n->n_head * sizeof(float));
  if (!l->x || !l->nx || !l->dn || !l->dx || !l->logits) {
    foray_lm_close(l);
    return nomem(err);
  }
  *out = l;
  return FORAY_OK;
}
void foray_lm_close(struct foray_lm *l) {
  if (!l) return;
  free(l->x), free(l->nx), free(l->dn), free(l->dx), free(l->logits);
  free(l);
}

/* ---- divergence over buckets ---- */
/* Value of one bucket with goal mass p and head mass q, and its derivative with respect to q. */
static double bucket(const struct foray_lm_opts *o, double p, double q, double *slope) {
  const double tiny = 1e-30, beta = (double)o->beta;
  double m;
  q = q < tiny ? tiny : q;
  switch (o->div) {
  case FORAY_DIV_KL: *slope = -p / q; return p > tiny ? p * log(p / q) : 0;
  case FORAY_DIV_RKL:
    p = p < 1e-12 ? 1e-12 : p; /* a goal of nothing at all would cost without bound */
    *slope = log(q / p) + 1;
    return q * log(q / p);
  case FORAY_DIV_JSD:
    m = beta * p + (1 - beta) * q;
    m = m < tiny ? tiny : m;
    *slope = (1 - beta) * (-beta * p / m + log(q / m) + 1 - (1 - beta) * q / m);
    return (p > tiny ? beta * p * log(p / m) : 0) + (1 - beta) * q * log(q / m);
  case FORAY_DIV_TVD: *slope = q > p ? 0.5 : q < p ? -0.5 : 0; return 0.5 * fabs(p - q);
  case FORAY_DIV_SKEW_KL:
    m = beta * p + (1 - beta) * q;
    m = m < tiny ? tiny : m;
    *slope = -(1 - beta) * p / m;
    return p > tiny ? p * log(p / m) : 0;
  }
  *slope = 0;
  return 0;
}

struct row_job {
  const struct foray_net *net;
  const struct foray_lm_goal *goals;
  const struct foray_lm_opts *o;
  float *logits;
  int first;
  float scale;
  bool grad, failed;
  double ce[BLOCK], div[BLOCK];
  bool hit[BLOCK];
};

/* Divergence at one position; z: logits minus their maximum. e = gradient with respect to the logits, added.
 */
static double divergence(const struct row_job *j, const struct foray_sparse *s, const float *z, float weight,
                         float *grad, float *q, bool *ok) {
  const struct foray_lm_opts *o = j->o;
  int V = j->net->n_head;
  double mass = 0, qs = 0, mean = 0, value = 0, rest_slope = 0, slope[512], *sl = slope;
  float inv_tau = 1.0f / o->tau;
  if (s->n > 512 && !(sl = malloc((size_t)s->n * sizeof *sl))) {
    *ok = false;
    return 0;
  }
  for (int i = 0; i < V; i++) q[i] = z[i] * inv_tau;
  float sum = foray_ew_exp_sum(q, V, 0), inv = 1.0f / sum;
  for (int k = 0; k < s->n; k++) mass += (double)s->p[k];
  double norm = !o->rest && mass > 0 ? 1 / mass : 1, rest = o->rest && mass < 1 ? 1 - mass : 0;
  for (int k = 0; k < s->n; k++) {
    double qk = (double)q[s->row[k]] * (double)inv;
    qs += qk;
    value += bucket(o, (double)s->p[k] * norm, qk, &sl[k]);
    mean += qk * sl[k];
  }
  double qr = qs < 1 ? 1 - qs : 0;
  if (s->n < V && (o->rest || o->div != FORAY_DIV_KL)) {
    value += bucket(o, rest, qr, &rest_slope);
    mean += qr * rest_slope;
  }
  double w = (double)weight * (o->tau_square ? (double)o->tau * (double)o->tau : 1);
  if (grad) {
    float step = (float)(w * (double)inv_tau), base = (float)(rest_slope - mean) * step * inv;
    for (int i = 0; i < V; i++) grad[i] += q[i] * base;
    for (int k = 0; k < s->n; k++) grad[s->row[k]] += q[s->row[k]] * inv * step * (float)(sl[k] - rest_slope);
  }
  if (sl != slope) free(sl);
  return value * (o->tau_square ? (double)o->tau * (double)o->tau : 1);
}

static void row_part(void *arg, int part, int thread) {
  struct row_job *j = arg;
  const struct foray_lm_goal *g = &j->goals[j->first + part];
  int V = j->net->n_head, best = 0;
  float *z = j->logits + (size_t)part * (size_t)V, *grad = NULL, *q = NULL;
  bool ok = true;
  (void)thread;
  j->ce[part] = j->div[part] = 0;
  float top = foray_ew_max(z, V);
  while (best < V - 1 && z[best] < top) best++;
  j->hit[part] = best == g->next;
  for (int i = 0; i < V; i++) z[i] -= top;
  bool div = g->goal && g->div_weight > 0, ce = g->next >= 0 && g->ce_weight > 0;
  if (div || (j->grad && ce)) {
    grad = calloc((size_t)V, sizeof(float));
    q = malloc((size_t)V * sizeof(float));
    ok = grad && q;
  }
  if (ok && div)
    j->div[part] = divergence(j, g->goal, z, j->scale * g->div_weight, j->grad ? grad : NULL, q, &ok);
  if (ok && g->next >= 0) {
    float zn = z[g->next];
    float sum = foray_ew_exp_sum(z, V, 0);
    j->ce[part] = log((double)sum) - (double)zn;
    if (j->grad && ce) {
      float w = j->scale * g->ce_weight, inv = w / sum;
      for (int i = 0; i < V; i++) grad[i] += z[i] * inv;
      grad[g->next] -= w;
    }
  }
  if (j->grad && ok) {
    if (grad)
      memcpy(z, grad, (size_t)V * sizeof(float));
    else
      memset(z, 0, (size_t)V * sizeof(float));
  }
  if (!ok) j->failed = true;
  free(grad);
  free(q);
}

/* Normalised states of n rows of the batch; row numbers are ints that lie `stride` bytes apart. */
static void gather(const struct foray_lm *l, const struct foray_acts *a, int n, const int *first,
                   size_t stride) {
  size_t D = (size_t)l->n->D;
  const float *state = foray_acts_state(a, l->n->n_layer);
  for (int i = 0; i < n; i++) {
    int row;
    memcpy(&row, (const char *)first + (size_t)i * stride, sizeof row);
    memcpy(l->x + (size_t)i * D, state + (size_t)row * D, D * sizeof(float));
  }
  foray_ew_rmsnorm(foray_mm_pool(l->n->gemm), n, l->n->D, l->n->cfg.rms_eps, l->x, l->n->out_norm, l->nx);
}

static enum foray_status block_logits(struct foray_lm *l, int at, int rows, struct foray_err *err) {
  size_t D = (size_t)l->n->D;
  return foray_mm_run(l->n->gemm, rows, l->nx + (size_t)at * D, D, &l->n->head_fwd, l->logits,
                      (size_t)l->n->n_head, false, err);
}

/* Gradient of the head's own weights from a block of d logits. */
static void head_grad(struct foray_lm *l, int at, int rows) {
  struct foray_net *n = l->n;
  struct foray_param *p = n->head_p.n ? &n->head_p : &n->embd_p;
  size_t V = (size_t)n->n_head, D = (size_t)n->D;
  if (p->n)
    foray_mm_tn(n->gemm, rows, (int)V, (int)D, l->logits, V, l->nx + (size_t)at * D, D, p->g, D, true);
}

enum foray_status foray_lm_loss(struct foray_lm *l, const struct foray_acts *a,
                                const struct foray_lm_goal *goals, int n, const struct foray_lm_opts *o,
                                float scale, float *d_state, struct foray_lm_sums *sums, float *each,
                                struct foray_err *err) {
  struct foray_net *net = l->n;
  struct foray_pool *pool = foray_mm_pool(net->gemm);
  size_t D = (size_t)net->D, V = (size_t)net->n_head;
  enum foray_status st = FORAY_OK;
  if (n > l->cap) return foray_err_set(err, FORAY_E_ARG, "loss over %d rows, %d at most", n, l->cap);
  if (!n) return FORAY_OK;
  gather(l, a, n, &goals->row, sizeof *goals);
  struct row_job j = {.net = net, .goals = goals, .o = o, .logits = l->logits, .scale = scale};
  j.grad = d_state != NULL;
  for (int at = 0; !st && at < n; at += BLOCK) {
    int rows = n - at < BLOCK ? n - at : BLOCK;
    j.first = at;
    if ((st = block_logits(l, at, rows, err))) break;
    foray_pool_run(pool, row_part, &j, rows);
    if (j.failed) return nomem(err);
    for (int i = 0; i < rows; i++) {
      const struct foray_lm_goal *g = &goals[at + i];
      sums->ce += j.ce[i] * (double)g->ce_weight;
      sums->div += j.div[i] * (double)g->div_weight;
      sums->ce_weight += g->next >= 0 ? (double)g->ce_weight : 0;
      sums->div_weight += g->goal ? (double)g->div_weight : 0;
      if (g->next >= 0 && g->ce_weight > 0) {
        sums->hits += j.hit[i] ? 1 : 0;
        sums->ce_n++;
      }
      if (each) each[at + i] = (float)(j.ce[i] * (double)g->ce_weight + j.div[i] * (double)g->div_weight);
    }
    if (!d_state) continue;
    head_grad(l, at, rows);
    st = foray_mm_run(net->gemm, rows, l->logits, V, &net->head_bwd, l->dn + (size_t)at * D, D, false, err);
  }
  if (st || !d_state) return st;
  memset(l->dx, 0, (size_t)n * D * sizeof(float));
  foray_ew_rmsnorm_back(pool, n, net->D, net->cfg.rms_eps, l->x, net->out_norm, l->dn, l->dx,
                        net->out_norm_p.n ? net->out_norm_p.g : NULL);
  for (int i = 0; i < n; i++)
    for (size_t c = 0; c < D; c++) d_state[(size_t)goals[i].row * D + c] += l->dx[(size_t)i * D + c];
  return FORAY_OK;
}

/* ---- the most likely rows ---- */
struct top_job {
  int V, k, first;
  float tau, *logits;
  struct foray_sparse *out;
};
/* A heap of the k best, smallest on top; of equal logits the lower row is the better one. */
static bool worse(const float *z, int32_t a, int32_t b) { return z[a] < z[b] || (!(z[a] > z[b]) && a > b); }
static void sift(const float *z, int32_t *h, int n, int i) {
  for (int c; (c = 2 * i + 1) < n; i = c) {
    if (c + 1 < n && worse(z, h[c + 1], h[c])) c++;
    if (!worse(z, h[c], h[i])) return;
    int32_t t = h[i];
    h[i] = h[c], h[c] = t;
  }
}
static void top_part(void *arg, int part, int thread) {
  struct top_job *j = arg;
  float *z = j->logits + (size_t)part * (size_t)j->V;
  struct foray_sparse *o = &j->out[j->first + part];
  (void)thread;
  for (int i = 0; i < j->V; i++) z[i] /= j->tau;
  o->n = 0;
  for (int i = 0; i < j->V; i++) {
    if (o->n < j->k) {
      o->row[o->n++] = i;
      if (o->n == j->k)
        for (int c = j->k / 2; c-- > 0;) sift(z, o->row, j->k, c);
    } else if (worse(z, o->row[0], i)) {
      o->row[0] = i;
      sift(z, o->row, j->k, 0);
    }
  }
  for (int c = o->n / 2; c-- > 0;) sift(z, o->row, o->n, c);
  for (int n = o->n; n > 1; n--) { /* the worst goes behind: falling order */
    int32_t t = o->row[0];
    o->row[0] = o->row[n - 1], o->row[n - 1] = t;
    sift(z, o->row, n - 1, 0);
  }
  float top = z[o->row[0]];
  for (int k = 0; k < o->n; k++) o->p[k] = z[o->row[k]] - top;
  float inv = 1.0f / foray_ew_exp_sum(z, j->V, top);
  for (int k = 0; k < o->n; k++) o->p[k] = expf(o->p[k]) * inv;
}

enum foray_status foray_lm_top(struct foray_lm *l, const struct foray_acts *a, const int *rows, int n, int k,
                               float tau, struct foray_sparse *out, struct foray_err *err) {
  struct top_job j = {.V = l->n->n_head, .k = k < l->n->n_head ? k : l->n->n_head, .tau = tau, .out = out};
  enum foray_status st = FORAY_OK;
  if (n > l->cap) return foray_err_set(err, FORAY_E_ARG, "%d rows, %d at most", n, l->cap);
  if (n) gather(l, a, n, rows, sizeof *rows);
  j.logits = l->logits;
  for (int at = 0; !st && at < n; at += BLOCK) {
    int m = n - at < BLOCK ? n - at : BLOCK;
    j.first = at;
    st = block_logits(l, at, m, err);
    if (!st) foray_pool_run(foray_mm_pool(l->n->gemm), top_part, &j, m);
  }
  return st;
}

enum foray_status foray_lm_logits(struct foray_lm *l, int m, const float *state, float *logits,
                                  struct foray_err *err) {
  struct foray_net *n = l->n;
  if (m > l->cap) return foray_err_set(err, FORAY_E_ARG, "%d rows, %d at most", m, l->cap);
  foray_ew_rmsnorm(foray_mm_pool(n->gemm), m, n->D, n->cfg.rms_eps, state, n->out_norm, l->nx);
  return foray_mm_run(n->gemm, m, l->nx, (size_t)n->D, &n->head_fwd, logits, (size_t)n->n_head, false, err);
}
