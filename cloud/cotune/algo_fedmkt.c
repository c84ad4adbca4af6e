/* FedMKT: devices and cloud exchange their top-K distributions on public text, and each learns from the other
 * on the examples where the other's cross entropy is lower (DualMinCE, over label tokens). Alignment by byte
 * offsets in place of the edit-distance map; what cannot be aligned is left out instead of being replaced by
 * an unlike position. */
#include "cotune/algos.h"

#include <stdlib.h>
#include <string.h>

#include "core/err.h"

enum { BATCHES = 1024 };

/* What one side says about the round's public examples. */
struct said {
  struct foray_tops top;
  double *ce;
  int *count;
};
static void said_free(struct said *s) {
  foray_tops_close(&s->top);
  free(s->ce), free(s->count);
  *s = (struct said){0};
}

static enum foray_status speak(struct foray_fed *f, int model, const int *pick, int n, struct said *out,
                               struct foray_err *err) {
  struct foray_fed_model *m = &f->model[model];
  struct foray_loss_how how = {.ce = 1, .lm = {FORAY_DIV_KL, 0, 1, true, false}};
  int total = 0, at = 0;
  *out =
      (struct said){.ce = calloc((size_t)n + 1, sizeof(double)), .count = calloc((size_t)n + 1, sizeof(int))};
  for (int i = 0; i < n; i++) total += m->pub[pick[i]].cut.n;
  enum foray_status st = out->ce && out->count ? foray_tops_open(total, f->c->k, &out->top, err)
                                               : foray_err_set(err, FORAY_E_NOMEM, "FedMKT: out of memory");
  for (int i = 0; !st && i < n; i += f->c->batch) {
    const struct foray_enc *enc[1024];
    struct foray_lm_sums sums = {0};
    int k = n - i < f->c->batch ? n - i : f->c->batch;
    for (int e = 0; e < k; e++) enc[e] = &m->pub[pick[i + e]], out->count[i + e] = enc[e]->cut.n;
    st = foray_learner_load(m->l, enc, k, false, err);
    if (!st) st = foray_learner_top(m->l, f->c->k, (float)f->c->tau, out->top.v + at, err);
    if (!st) st = foray_learner_loss(m->l, &how, NULL, NULL, false, &sums, out->ce + i, err);
    at += m->l->labels;
  }
  return st;
}

/* The message of what was said, there and back again. */
static enum foray_status cross(struct foray_fed *f, bool up, int device, int model, struct said *s, int n,
                               struct foray_err *err) {
  struct foray_buf m;
  enum foray_status st = foray_wire_put_tops(&m, f->round, device, s->top.v, s->count, s->ce, n, err);
  if (!st) {
    foray_wire_send(&f->wire, up, &m);
    st = foray_wire_get_tops(&m, f->c->k, f->model[model].m->config.n_vocab, s->top.v, s->count, s->ce, n,
                             err);
  }
  foray_buf_deinit(&m);
  return st;
}

/* `to` learns from the best of n_from others, example by example. */
static enum foray_status distil(struct foray_fed *f, int to, const int *from, struct said *const *said,
                                int n_from, const int *pick, int n, struct foray_err *err) {
  struct foray_fed_model *m = &f->model[to];
  struct foray_loss_how how = {
      (float)(1 - f->c->gamma), (float)f->c->gamma, {f->c->div, 0.5f, (float)f->c->tau, f->c->rest, true}};
  struct foray_loss_how plain = {.ce = 1, .lm = {FORAY_DIV_KL, 0, 1, true, false}};
  enum foray_status st = FORAY_OK;
  int *at = calloc((size_t)n_from + 1, sizeof *at);
  if (!at) return foray_err_set(err, FORAY_E_NOMEM, "FedMKT: out of memory");
  for (int i = 0; !st && i < n; i += f->c->batch) {
    const struct foray_enc *enc[1024];
    struct foray_lm_sums sums = {0};
    struct foray_tops goal = {0};
    double own[1024];
    int k = n - i < f->c->batch ? n - i : f->c->batch, y = 0;
    if ((st = foray_fed_stopped(f, err))) break;
    for (int e = 0; e < k; e++) enc[e] = &m->pub[pick[i + e]];
    st = foray_learner_load(m->l, enc, k, true, err);
    if (!st) st = foray_learner_loss(m->l, &plain, NULL, NULL, false, &sums, own, err);
    if (!st) st = foray_tops_open(m->l->labels, f->c->k, &goal, err);
    for (int e = 0; !st && e < k; e++) {
      int best = -1;
      double ce = own[e];
      for (int q = 0; q < n_from; q++)
        if (said[q]->ce[i + e] < ce) ce = said[q]->ce[i + e], best = q;
      if (best >= 0)
        st = foray_align_project(foray_fed_align(f, from[best], to), enc[e]->completion,
                                 &f->model[from[best]].pub[pick[i + e]].cut, said[best]->top.v + at[best],
                                 &enc[e]->cut, f->c->k, goal.v + y, NULL, err);
      y += enc[e]->cut.n;
      for (int q = 0; q < n_from; q++) at[q] += said[q]->count[i + e];
    }
    if (!st) st = foray_learner_loss(m->l, &how, goal.v, NULL, true, &sums, NULL, err);
    if (!st) foray_learner_update(m->l);
    foray_tops_close(&goal);
  }
  free(at);
  return st;
}

static enum foray_status fedmkt(struct foray_fed *f, const int *who, const int *percent, int n,
                                struct foray_err *err) {
  int steps = f->c->server_steps < BATCHES ? f->c->server_steps : BATCHES, N = steps * f->c->batch;
  int *pick = malloc((size_t)(N ? N : 1) * sizeof *pick), from[FORAY_FED_DEVICES] = {0};
  struct said said[FORAY_FED_DEVICES] = {{{0}, NULL, NULL}}, *list[FORAY_FED_DEVICES] = {NULL},
              cloud = {{0}, NULL, NULL};
  struct foray_share all = {malloc((size_t)(f->pub.n ? f->pub.n : 1) * sizeof(int)), f->pub.n};
  enum foray_status st =
      pick && all.index ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "FedMKT: out of memory");
  for (int i = 0; all.index && i < all.n; i++) all.index[i] = i;
  if (!st && all.n) foray_fed_next(&all, &f->pub_cursor, f->c->seed, 1, N, pick);
  if (!all.n) N = 0;
  for (int i = 0; !st && i < n; i++) {
    struct foray_device *d = &f->device[who[i]];
    st = foray_fed_device_ce(f, who[i], f->c->dst_steps * percent[i] / 100, err);
    if (!st) st = speak(f, d->model, pick, N, &said[i], err);
    if (!st) st = cross(f, true, who[i], d->model, &said[i], N, err);
    from[i] = d->model, list[i] = &said[i];
  }
  foray_slot_put(&f->cloud_slot, f->model[f->cloud].l);
  if (!st) st = distil(f, f->cloud, from, list, n, pick, N, err);
  if (!st) st = foray_slot_take(&f->cloud_slot, f->model[f->cloud].l, err);
  if (!st) st = speak(f, f->cloud, pick, N, &cloud, err);
  for (int i = 0; !st && i < n; i++) {
    struct foray_device *d = &f->device[who[i]];
    struct foray_learner *l = f->model[d->model].l;
    struct said *one = &cloud;
    int done = f->c->saml_steps * percent[i] / 100, take = done * f->c->batch < N ? done * f->c->batch : N;
    if ((st = cross(f, false, who[i], f->cloud, &cloud, N, err))) break;
    foray_slot_put(&d->own, l);
    st = distil(f, d->model, &f->cloud, &one, 1, pick, take, err);
    if (!st) st = foray_slot_take(&d->own, l, err);
  }
  for (int i = 0; i < n; i++) said_free(&said[i]);
  said_free(&cloud);
  foray_share_deinit(&all);
  free(pick);
  return st;
}
const struct foray_algo foray_algo_fedmkt = {
    "fedmkt", "top-K distributions on public text, each learns from the better one", false, false, fedmkt};
