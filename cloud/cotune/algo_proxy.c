/* Algorithms with a proxy. Co-PLMs: domain-specific tuning (DST) and structure-agnostic mutual learning
 * (SAML) on the device, aggregation of the proxy's shared ranks, mutual learning of proxy and cloud model on
 * the server. ProxyFL: the same without distilled proxy, private ranks and feedback. Offsite-tuning: the
 * first and last blocks of the cloud model are tuned on the device inside the cut model, and plugged back. */
#include "cotune/algos.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "cotune/secagg.h"

static struct foray_learner *proxy_of(struct foray_fed *f) { return f->model[f->proxy].l; }

/* The proxy as device k has it: shared ranks of its copy, private ranks of its own; `shared` says which of
 * them move. */
static void wear(struct foray_fed *f, struct foray_device *d, bool shared) {
  struct foray_learner *l = proxy_of(f);
  foray_net_move_ranks(l->net, l->rank, l->rank + l->private_rank);
  foray_slot_put(&d->priv, l);
  foray_net_move_ranks(l->net, 0, l->rank);
  foray_slot_put(&d->copy, l);
  if (!shared) {
    foray_net_move_ranks(l->net, l->rank, l->rank + l->private_rank);
    l->optim.step = d->priv.step;
  }
}
static enum foray_status keep(struct foray_fed *f, struct foray_device *d, bool shared,
                              struct foray_err *err) {
  return foray_slot_take(shared ? &d->copy : &d->priv, proxy_of(f), err);
}
/* The proxy as the server has it: shared ranks, and private ones that say nothing. */
static void wear_server(struct foray_fed *f) {
  struct foray_learner *l = proxy_of(f);
  foray_net_move_ranks(l->net, l->rank, l->rank + l->private_rank);
  foray_slot_put(&f->private_start, l);
  foray_net_move_ranks(l->net, 0, l->rank);
  foray_slot_put(&f->pi, l);
}

/* Shared ranks down to device k; returns what arrived in its copy (moments are the device's). */
static enum foray_status send_down(struct foray_fed *f, int k, float *start, struct foray_err *err) {
  struct foray_device *d = &f->device[k];
  struct foray_learner *l = proxy_of(f);
  struct foray_buf m;
  wear_server(f);
  size_t n = foray_params_count(l->net);
  foray_params_get(l->net, start);
  enum foray_status st = foray_wire_put_values(&m, FORAY_WIRE_WEIGHTS, f->round, k, start, n, err);
  if (!st) {
    foray_wire_send(&f->wire, false, &m);
    st = foray_wire_get_values(&m, FORAY_WIRE_WEIGHTS, start, n, err);
  }
  foray_buf_deinit(&m);
  if (st) return st;
  if (d->copy.n) foray_slot_put(&d->copy, l);
  foray_params_set(l->net, start);
  return foray_slot_take(&d->copy, l, err);
}

/* What device k changed, up; added to sum with its weight. */
static enum foray_status send_up(struct foray_fed *f, int k, const float *start, float *delta, float *sum,
                                 double weight, struct foray_err *err) {
  struct foray_learner *l = proxy_of(f);
  struct foray_buf m;
  wear(f, &f->device[k], true);
  size_t n = foray_params_count(l->net);
  foray_params_get(l->net, delta);
  for (size_t i = 0; i < n; i++) delta[i] -= start[i];
  enum foray_status st = foray_wire_put_values(&m, FORAY_WIRE_DELTA, f->round, k, delta, n, err);
  if (!st) {
    foray_wire_send(&f->wire, true, &m);
    st = foray_wire_get_values(&m, FORAY_WIRE_DELTA, delta, n, err);
  }
  foray_buf_deinit(&m);
  if (!st) foray_fed_add(sum, delta, n, weight);
  return st;
}

/* The same for all devices of a round at once, under masks: what crosses is masked fixed point, and the
 * server takes the masks off the sum. Values are the weighted changes; a change beyond the range of the fixed
 * point is cut to it. */
static enum foray_status send_up_masked(struct foray_fed *f, const int *who, int n, float *const *start,
                                        int total, float *sum, struct foray_err *err) {
  struct foray_learner *l = proxy_of(f);
  struct foray_secagg_device *d = calloc((size_t)n, sizeof *d);
  struct foray_secagg_share(*answer)[FORAY_SECAGG_DEVICES] = calloc((size_t)n, sizeof *answer);
  uint8_t public[FORAY_SECAGG_DEVICES][FORAY_SECAGG_SECRET] = {{0}};
  bool all[FORAY_SECAGG_DEVICES];
  int threshold = n / 2 + 1;
  wear_server(f);
  size_t count = foray_params_count(l->net);
  float *v = malloc(count * sizeof *v);
  uint32_t *masked = malloc(count * sizeof *masked), *acc = calloc(count, sizeof *acc);
  enum foray_status st = d && answer && v && masked && acc
                             ? FORAY_OK
                             : foray_err_set(err, FORAY_E_NOMEM, "secure sum: out of memory");
  for (int i = 0; !st && i < n; i++) {
    st = foray_secagg_open(&d[i], i, n, threshold, err);
    memcpy(public[i], d[i].mask_public, FORAY_SECAGG_SECRET);
    all[i] = true;
  }
  for (int i = 0; !st && i < n; i++) { /* keys and shares go through the server; then the masked values */
    struct foray_secagg_share key[FORAY_SECAGG_DEVICES], seed[FORAY_SECAGG_DEVICES];
    uint64_t setup = FORAY_SECAGG_SECRET + 2 * sizeof *key * (uint64_t)(n - 1);
    st = foray_secagg_split(&d[i], key, seed, err);
    for (int h = 0; !st && h < n; h++) answer[h][i] = seed[h];
    foray_wire_count(&f->wire, true, setup + sizeof *key * (uint64_t)n); /* the answers too */
    foray_wire_count(&f->wire, false, (uint64_t)(n - 1) * (FORAY_SECAGG_SECRET + 2 * sizeof *key));
    wear(f, &f->device[who[i]], true);
    foray_params_get(l->net, v);
    double w = total ? (double)f->device[who[i]].share.n / total : 0;
    for (size_t k = 0; k < count; k++) {
      float x = (float)(w * ((double)v[k] - (double)start[i][k]));
      v[k] = fmaxf(-FORAY_SECAGG_RANGE, fminf(FORAY_SECAGG_RANGE, x));
    }
    if (!st) st = foray_secagg_mask(&d[i], public, v, count, masked, err);
    for (size_t k = 0; !st && k < count; k++) acc[k] += masked[k];
    if (f->wire.log && !st) fwrite(masked, sizeof *masked, count, f->wire.log);
    foray_wire_count(&f->wire, true, FORAY_WIRE_HEADER + sizeof *masked * count);
  }
  if (!st) st = foray_secagg_unmask(n, threshold, all, all, answer, public, acc, count, v, err);
  if (!st) foray_fed_add(sum, v, count, 1);
  free(d), free(answer), free(v), free(masked), free(acc);
  return st;
}

/* Device side of a round. */
static enum foray_status device_round(struct foray_fed *f, int k, int percent, bool dst,
                                      struct foray_err *err) {
  struct foray_device *d = &f->device[k];
  const struct foray_fed_config *c = f->c;
  struct foray_learner *own = f->model[d->model].l, *p = proxy_of(f);
  uint64_t before = own->tokens + p->tokens;
  enum foray_status st = FORAY_OK;
  if (dst) { /* private ranks of the proxy and the device's own model, on its data; shared ranks stand still
              */
    if (p->private_rank) {
      struct foray_cursor same = d->cursor;
      wear(f, d, false);
      st = foray_fed_ce(f, f->proxy, &d->share, &same, 100 + (uint32_t)k, c->dst_steps * percent / 100, err);
      if (!st) st = keep(f, d, false, err);
    }
    uint64_t counted = d->tokens;
    if (!st) st = foray_fed_device_ce(f, k, c->dst_steps * percent / 100, err);
    d->tokens = counted;
  }
  if (st) return st;
  int steps = (dst ? c->saml_steps : c->dst_steps + c->saml_steps) * percent / 100;
  foray_slot_put(&d->own, own);
  wear(f, d, true);
  struct foray_pair pair = {f->proxy, d->model,  c->beta,    c->alpha,          true, true,
                            false,    &d->share, &d->cursor, 100 + (uint32_t)k, steps};
  st = foray_fed_mutual(f, &pair, err);
  if (!st) st = foray_slot_take(&d->own, own, err);
  if (!st) st = keep(f, d, true, err);
  d->tokens += own->tokens + p->tokens - before;
  return st;
}

static enum foray_status proxy_round(struct foray_fed *f, const int *who, const int *percent, int n,
                                     bool full, struct foray_err *err) {
  struct foray_learner *l = proxy_of(f);
  bool masked =
      f->c->secure && n >= 2; /* one device alone has nobody to hide behind, and sends nothing then */
  int total = 0;
  wear_server(f);
  size_t count = foray_params_count(l->net);
  float *start[FORAY_FED_DEVICES] = {NULL}, *delta = malloc(count * sizeof *delta),
        *sum = malloc(count * sizeof *sum);
  enum foray_status st = delta && sum ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "round: out of memory");
  for (int i = 0; i < n; i++) total += f->device[who[i]].share.n;
  if (!st) foray_params_get(l->net, sum);
  for (int i = 0; !st && i < n; i++) {
    if (f->round == 0) foray_wire_count(&f->wire, false, f->proxy_bytes); /* the core goes down once */
    if (!(start[i] = malloc(count * sizeof *start[i])))
      st = foray_err_set(err, FORAY_E_NOMEM, "round: out of memory");
    if (!st) st = send_down(f, who[i], start[i], err);
    if (!st) st = device_round(f, who[i], percent[i], full, err);
    if (!st && !f->c->secure)
      st = send_up(f, who[i], start[i], delta, sum, total ? (double)f->device[who[i]].share.n / total : 0,
                   err);
  }
  if (!st && masked) st = send_up_masked(f, who, n, start, total, sum, err);
  if (!st) {
    wear_server(f);
    foray_params_set(l->net, sum);
    st = foray_slot_take(&f->pi, l, err);
  }
  for (int i = 0; i < n; i++) free(start[i]);
  free(delta), free(sum);
  return st;
}

static enum foray_status coplm(struct foray_fed *f, const int *who, const int *percent, int n,
                               struct foray_err *err) {
  enum foray_status st = proxy_round(f, who, percent, n, true, err);
  if (st) return st;
  wear_server(f);
  foray_slot_put(&f->cloud_slot, f->model[f->cloud].l);
  struct foray_pair p = {f->cloud, f->proxy,       f->c->gamma, f->c->gamma,       true, true, true,
                         NULL,     &f->pub_cursor, 1,           f->c->server_steps};
  st = foray_fed_mutual(f, &p, err);
  if (!st) st = foray_slot_take(&f->pi, proxy_of(f), err);
  return st ? st : foray_slot_take(&f->cloud_slot, f->model[f->cloud].l, err);
}
const struct foray_algo foray_algo_coplm = {
    "coplm", "distilled proxy: DST and SAML on devices, feedback into the cloud model", true, true, coplm};

static enum foray_status proxyfl(struct foray_fed *f, const int *who, const int *percent, int n,
                                 struct foray_err *err) {
  enum foray_status st = proxy_round(f, who, percent, n, false, err);
  foray_slot_put(&f->cloud_slot, f->model[f->cloud].l);
  if (!st) st = foray_fed_ce(f, f->cloud, NULL, &f->pub_cursor, 1, f->c->server_steps, err);
  return st ? st : foray_slot_take(&f->cloud_slot, f->model[f->cloud].l, err);
}
const struct foray_algo foray_algo_proxyfl = {
    "proxyfl", "deep mutual learning with an undistilled proxy, averaged", true, false, proxyfl};

/* ---- offsite-tuning ---- */
/* Trainable blocks at each end of a cut of m blocks; the cut keeps at least as many of the whole model's
 * ends. */
static int ends_of(int m) { return m >= 4 ? 2 : m / 2; }
static bool at_the_ends(const struct foray_net *n, int i) {
  int e = ends_of(n->n_layer);
  return i < e || i >= n->n_layer - e;
}
/* Block of the whole model that block i of the cut stands for, at the ends. */
static int whole_block(const struct foray_net *cut, const struct foray_net *whole, int i) {
  return i < ends_of(cut->n_layer) ? i : whole->n_layer - (cut->n_layer - i);
}
static void move_ends(struct foray_learner *l) {
  foray_net_move_ranks(l->net, 0, l->rank);
  for (int i = 0; i < l->net->n_layer; i++)
    for (int j = 0; j < FORAY_LIN_N; j++) {
      struct foray_lin *y = &l->net->layer[i].lin[j];
      if (!at_the_ends(l->net, i)) y->a.to = y->a.from, y->b.to = y->b.from;
    }
}

static enum foray_status offsite(struct foray_fed *f, const int *who, const int *percent, int n,
                                 struct foray_err *err) {
  struct foray_learner *l = proxy_of(f), *big = f->model[f->cloud].l;
  const struct foray_fed_config *c = f->c;
  int total = 0;
  wear_server(f);
  move_ends(l);
  size_t count = foray_params_count(l->net);
  float *start = malloc((count + 1) * sizeof *start), *got = malloc((count + 1) * sizeof *got),
        *sum = malloc((count + 1) * sizeof *sum);
  enum foray_status st =
      start && got && sum ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "round: out of memory");
  for (int i = 0; i < n; i++) total += f->device[who[i]].share.n;
  if (!st) foray_params_get(l->net, start), memcpy(sum, start, count * sizeof *sum);
  for (int i = 0; !st && i < n; i++) {
    struct foray_device *d = &f->device[who[i]];
    struct foray_buf m;
    if (f->round == 0) foray_wire_count(&f->wire, false, f->proxy_bytes);
    foray_wire_count(&f->wire, false, FORAY_WIRE_HEADER + 2 * count);
    if (d->copy.n) {
      foray_slot_put(&d->copy, l);
    } else {
      st = foray_slot_take(&d->copy, l, err);
      if (st) break;
    }
    foray_params_set(l->net, start);
    struct foray_cursor same = d->cursor;
    st = foray_fed_ce(f, f->proxy, &d->share, &same, 100 + (uint32_t)who[i], c->saml_steps * percent[i] / 100,
                      err);
    if (!st) st = foray_slot_take(&d->copy, l, err);
    if (st) break;
    foray_params_get(l->net, got);
    for (size_t k = 0; k < count; k++) got[k] -= start[k];
    st = foray_wire_put_values(&m, FORAY_WIRE_DELTA, f->round, who[i], got, count, err);
    if (!st) {
      foray_wire_send(&f->wire, true, &m);
      st = foray_wire_get_values(&m, FORAY_WIRE_DELTA, got, count, err);
    }
    foray_buf_deinit(&m);
    if (!st) foray_fed_add(sum, got, count, total ? (double)d->share.n / total : 0);
    if (!st) st = foray_fed_device_ce(f, who[i], c->dst_steps * percent[i] / 100, err);
  }
  if (!st) { /* back into the shared ranks, and into the same blocks of the whole model */
    foray_params_set(l->net, sum);
    foray_net_move_ranks(l->net, 0, l->rank);
    st = foray_slot_take(&f->pi, l, err);
    foray_slot_put(&f->cloud_slot, big);
    for (int i = 0; !st && i < l->net->n_layer; i++)
      for (int j = 0; j < FORAY_LIN_N && at_the_ends(l->net, i); j++) {
        const struct foray_lin *x = &l->net->layer[i].lin[j];
        struct foray_lin *y = &big->net->layer[whole_block(l->net, big->net, i)].lin[j];
        memcpy(y->a.w, x->a.w, (size_t)l->rank * (size_t)x->n_in * sizeof(float));
        memcpy(y->b.w, x->b.w, (size_t)l->rank * (size_t)x->n_out * sizeof(float));
      }
    if (!st) st = foray_slot_take(&f->cloud_slot, big, err);
  }
  foray_net_move_ranks(l->net, 0, l->rank);
  free(start), free(got), free(sum);
  return st;
}
const struct foray_algo foray_algo_offsite = {
    "offsite", "end blocks tuned on devices inside a distilled cut, plugged back", true, true, offsite};
