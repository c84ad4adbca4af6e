#include "cotune/privacy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/philox.h"

enum { ORDER_MAX = 512 };

static double log_add(double a, double b) {
  if (a < b) {
    double t = a;
    a = b, b = t;
  }
  return isinf(b) ? a : a + log1p(exp(b - a));
}

double foray_rdp_step(int alpha, double q, double sigma) {
  if (q <= 0) return 0;
  if (q >= 1) return alpha / (2 * sigma * sigma);
  double sum = -INFINITY, binomial = 0; /* log C(alpha, k) */
  for (int k = 0; k <= alpha; k++) {
    if (k) binomial += log((double)(alpha - k + 1)) - log((double)k);
    sum = log_add(sum, binomial + k * log(q) + (alpha - k) * log1p(-q) +
                           ((double)k * k - k) / (2 * sigma * sigma));
  }
  return sum / (alpha - 1);
}

double foray_dp_epsilon(double q, double sigma, uint64_t steps, double delta, int *order) {
  double best = INFINITY;
  for (int a = 2; a <= ORDER_MAX; a++) {
    double e = (double)steps * foray_rdp_step(a, q, sigma) + log(1 / delta) / (a - 1);
    if (e < best) {
      best = e;
      if (order) *order = a;
    }
  }
  return best;
}

double foray_dp_noise(double q, uint64_t steps, double epsilon, double delta) {
  double lo = 0.1, hi = 1;
  while (foray_dp_epsilon(q, hi, steps, delta, NULL) > epsilon && hi < 1e6) lo = hi, hi *= 2;
  while (hi - lo > 1e-3) {
    double mid = (lo + hi) / 2;
    if (foray_dp_epsilon(q, mid, steps, delta, NULL) > epsilon)
      lo = mid;
    else
      hi = mid;
  }
  return hi;
}

double foray_clip(float *v, size_t n, double clip) {
  double s = 0;
  for (size_t i = 0; i < n; i++) s += (double)v[i] * (double)v[i];
  s = sqrt(s);
  if (s > clip)
    for (size_t i = 0; i < n; i++) v[i] = (float)((double)v[i] * clip / s);
  return s;
}

static double normal(uint64_t seed, uint64_t step, uint64_t i) {
  struct foray_philox p =
      foray_philox4x32(seed, (uint32_t)i, (uint32_t)(i >> 32), (uint32_t)step, 0x64706e6f);
  double u = ((double)p.v[0] + 0.5) / 4294967296.0,
         v = ((double)p.v[1] + (double)p.v[2] / 4294967296.0) / 4294967296.0;
  return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

int foray_dp_sample(const struct foray_dp *dp, int n, double q, int *out, int cap) {
  int k = 0;
  for (int i = 0; i < n && k < cap; i++) {
    uint32_t u = foray_philox4x32(dp->seed, (uint32_t)i, (uint32_t)dp->step, 0x64707361, 0).v[0];
    if ((double)u / 4294967296.0 < q) out[k++] = i;
  }
  return k;
}

/* The moved parts of the gradient, written back. */
struct put {
  const float *g;
  size_t at;
};
static void put_one(void *arg, struct foray_param *p) {
  struct put *s = arg;
  memcpy(p->g + p->from, s->g + s->at, (p->to - p->from) * sizeof(float));
  s->at += p->to - p->from;
}

enum foray_status foray_dp_step(struct foray_dp *dp, struct foray_learner *l,
                                const struct foray_enc *const *enc, int n, int expected, double *loss,
                                struct foray_err *err) {
  size_t count = foray_params_count(l->net);
  float *one = malloc((count + 1) * sizeof *one), *sum = calloc(count + 1, sizeof *sum);
  struct foray_loss_how how = {.ce = 1, .lm = {FORAY_DIV_KL, 0, 1, true, false}};
  struct foray_lm_sums sums = {0};
  enum foray_status st =
      one && sum ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "private step: out of memory");
  for (int i = 0; !st && i < n; i++) {
    foray_optim_clear(l->net);
    st = foray_learner_load(l, enc + i, 1, true, err);
    if (!st) st = foray_learner_loss(l, &how, NULL, NULL, true, &sums, NULL, err);
    if (st) break;
    foray_params_grad(l->net, one);
    foray_clip(one, count, dp->clip);
    for (size_t k = 0; k < count; k++) sum[k] += one[k];
  }
  if (!st) {
    for (size_t k = 0; k < count; k++)
      sum[k] = (float)(((double)sum[k] + dp->noise * dp->clip * normal(dp->seed, dp->step, k)) / expected);
    foray_optim_clear(l->net);
    foray_net_params(l->net, put_one, &(struct put){sum, 0});
    double clip = l->optim.clip;
    l->optim.clip = 0; /* already bounded; the norm of noise is not to be clipped */
    foray_learner_update(l);
    l->optim.clip = clip;
    dp->step++;
    if (loss) *loss = sums.ce_weight > 0 ? sums.ce / sums.ce_weight : 0;
  }
  free(one), free(sum);
  return st;
}
