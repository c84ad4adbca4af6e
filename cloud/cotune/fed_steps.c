/* The steps that algorithms are made of. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/philox.h"
#include "cotune/fed.h"

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "co-tuning: out of memory");
}

enum foray_status foray_fed_stopped(const struct foray_fed *f, struct foray_err *err) {
  return f->stop && *f->stop
             ? foray_err_set(err, FORAY_E_CANCELLED, "stopped in round %d; the same command goes on with it",
                             f->round + 1)
             : FORAY_OK;
}

/* ---- slots ---- */
enum foray_status foray_slot_take(struct foray_slot *s, struct foray_learner *l, struct foray_err *err) {
  size_t n = foray_params_count(l->net);
  if (s->n != n) {
    free(s->state);
    s->n = 0;
    if (!(s->state = malloc((3 * n + 1) * sizeof(float)))) return nomem(err);
    s->n = n;
  }
  foray_params_get_state(l->net, s->state);
  s->step = l->optim.step;
  return FORAY_OK;
}
void foray_slot_put(const struct foray_slot *s, struct foray_learner *l) {
  foray_params_set_state(l->net, s->state);
  l->optim.step = s->step;
}
void foray_slot_free(struct foray_slot *s) {
  free(s->state);
  *s = (struct foray_slot){0};
}

/* ---- order ---- */
void foray_fed_next(const struct foray_share *s, struct foray_cursor *c, uint64_t seed, uint32_t stream,
                    int n, int *out) {
  int *order = malloc((size_t)s->n * sizeof *order);
  uint32_t made = 0;
  for (int i = 0; i < n; i++) {
    if (c->at >= s->n) c->at = 0, c->epoch++;
    if (order && made != c->epoch + 1) {
      for (int k = 0; k < s->n; k++) order[k] = k;
      foray_shuffle(order, s->n, seed, stream * 4099u + c->epoch);
      made = c->epoch + 1;
    }
    out[i] = s->index[order ? order[c->at] : c->at];
    c->at++;
  }
  free(order);
}

/* All public examples as a share. */
static enum foray_status public_share(const struct foray_fed *f, struct foray_share *s,
                                      struct foray_err *err) {
  *s = (struct foray_share){malloc((size_t)(f->pub.n ? f->pub.n : 1) * sizeof *s->index), f->pub.n};
  if (!s->index) return nomem(err);
  for (int i = 0; i < s->n; i++) s->index[i] = i;
  return FORAY_OK;
}

struct foray_align *foray_fed_align(const struct foray_fed *f, int a, int b) {
  bool cloud_a = a == f->cloud || a == f->proxy;
  return cloud_a ? f->model[b].from_cloud : f->model[a].to_cloud;
}

void foray_fed_add(float *base, const float *delta, size_t n, double weight) {
  for (size_t i = 0; i < n; i++) base[i] += (float)(weight * (double)delta[i]);
}

static struct foray_loss_how how_of(const struct foray_fed *f, double div) {
  const struct foray_fed_config *c = f->c;
  return (struct foray_loss_how){(float)(1 - div), (float)div, {c->div, 0.5f, (float)c->tau, c->rest, true}};
}

/* ---- cross entropy ---- */
enum foray_status foray_fed_ce(struct foray_fed *f, int model, const struct foray_share *share,
                               struct foray_cursor *cur, uint32_t stream, int steps, struct foray_err *err) {
  struct foray_fed_model *m = &f->model[model];
  struct foray_share all = {0};
  const struct foray_enc *enc = share ? m->train : m->pub, *batch[1024];
  struct foray_loss_how how = how_of(f, 0);
  int pick[1024], n = f->c->batch;
  enum foray_status st = share ? FORAY_OK : public_share(f, &all, err);
  if (!share) share = &all;
  for (int s = 0; !st && s < steps && share->n; s++) {
    struct foray_lm_sums sums = {0};
    foray_fed_next(share, cur, f->c->seed, stream, n, pick);
    for (int i = 0; i < n; i++) batch[i] = &enc[pick[i]];
    if ((st = foray_fed_stopped(f, err))) break;
    st = foray_learner_load(m->l, batch, n, true, err);
    if (!st) st = foray_learner_loss(m->l, &how, NULL, NULL, true, &sums, NULL, err);
    if (!st) foray_learner_update(m->l);
  }
  foray_share_deinit(&all);
  return st;
}

enum foray_status foray_fed_device_ce(struct foray_fed *f, int device, int steps, struct foray_err *err) {
  struct foray_device *d = &f->device[device];
  struct foray_learner *l = f->model[d->model].l;
  uint64_t before = l->tokens;
  foray_slot_put(&d->own, l);
  enum foray_status st = foray_fed_ce(f, d->model, &d->share, &d->cursor, 100 + (uint32_t)device, steps, err);
  if (!st) st = foray_slot_take(&d->own, l, err);
  d->tokens += l->tokens - before;
  return st;
}

/* ---- mutual learning ---- */
struct side {
  struct foray_fed_model *m;
  const struct foray_enc *enc[1024];
  struct foray_tops top, goal; /* what it says; what the other says, in its words */
  double ce[1024];
  bool gate[1024];
};

/* from's tops in to's tokens, example by example. */
static enum foray_status project(struct foray_fed *f, const struct foray_pair *p, bool a_to_b,
                                 struct side *from, struct side *to, int n, struct foray_err *err) {
  struct foray_align *al = foray_fed_align(f, a_to_b ? p->a : p->b, a_to_b ? p->b : p->a);
  enum foray_status st = FORAY_OK;
  for (int i = 0, x = 0, y = 0; !st && i < n; x += from->enc[i]->cut.n, y += to->enc[i]->cut.n, i++)
    st = foray_align_project(al, from->enc[i]->completion, &from->enc[i]->cut, from->top.v + x,
                             &to->enc[i]->cut, f->c->k, to->goal.v + y, NULL, err);
  return st;
}

static enum foray_status say(struct foray_fed *f, struct side *s, int n, bool gate, bool training,
                             struct foray_err *err) {
  struct foray_learner *l = s->m->l;
  struct foray_loss_how how = how_of(f, 0);
  struct foray_lm_sums sums = {0};
  enum foray_status st = foray_learner_load(l, s->enc, n, training, err);
  foray_tops_close(&s->top), foray_tops_close(&s->goal);
  if (!st) st = foray_tops_open(l->labels, f->c->k, &s->top, err);
  if (!st) st = foray_tops_open(l->labels, f->c->k, &s->goal, err);
  if (!st) st = foray_learner_top(l, f->c->k, (float)f->c->tau, s->top.v, err);
  if (!st && gate) st = foray_learner_loss(l, &how, NULL, NULL, false, &sums, s->ce, err);
  return st;
}

static enum foray_status learn(struct foray_fed *f, struct side *s, double w, bool gate,
                               struct foray_err *err) {
  struct foray_loss_how how = how_of(f, w);
  struct foray_lm_sums sums = {0};
  enum foray_status st =
      foray_learner_loss(s->m->l, &how, s->goal.v, gate ? s->gate : NULL, true, &sums, NULL, err);
  if (!st) foray_learner_update(s->m->l);
  return st;
}

enum foray_status foray_fed_mutual(struct foray_fed *f, const struct foray_pair *p, struct foray_err *err) {
  struct side *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
  struct foray_share all = {0};
  const struct foray_share *share = p->share;
  int n = f->c->batch, pick[1024];
  enum foray_status st = a && b ? FORAY_OK : nomem(err);
  if (!st && !share) {
    st = public_share(f, &all, err);
    share = &all;
  }
  if (!st) a->m = &f->model[p->a], b->m = &f->model[p->b];
  for (int s = 0; !st && s < p->steps && share->n; s++) {
    if ((st = foray_fed_stopped(f, err))) break;
    foray_fed_next(share, p->cursor, f->c->seed, p->stream, n, pick);
    for (int i = 0; i < n; i++) {
      a->enc[i] = &(p->share ? a->m->train : a->m->pub)[pick[i]];
      b->enc[i] = &(p->share ? b->m->train : b->m->pub)[pick[i]];
    }
    st = say(f, a, n, p->gate, p->train_a, err);
    if (!st) st = say(f, b, n, p->gate, p->train_b, err);
    if (!st && p->train_b) st = project(f, p, true, a, b, n, err);
    if (!st && p->train_a) st = project(f, p, false, b, a, n, err);
    for (int i = 0; i < n; i++) a->gate[i] = b->ce[i] < a->ce[i], b->gate[i] = a->ce[i] < b->ce[i];
    /* both have spoken before either moves: the peers are detached */
    if (!st && p->train_a) st = learn(f, a, p->wa, p->gate, err);
    if (!st && p->train_b) st = learn(f, b, p->wb, p->gate, err);
  }
  if (a) foray_tops_close(&a->top), foray_tops_close(&a->goal);
  if (b) foray_tops_close(&b->top), foray_tops_close(&b->goal);
  foray_share_deinit(&all);
  free(a), free(b);
  return st;
}

/* ---- who takes part ---- */
int foray_fed_draw(const struct foray_fed *f, int round, int *who, int *percent) {
  const struct foray_fed_config *c = f->c;
  int order[FORAY_FED_DEVICES], n = 0;
  int asked = (int)ceil(c->participation * f->n_devices - 1e-9);
  for (int i = 0; i < f->n_devices; i++) order[i] = i;
  foray_shuffle(order, f->n_devices, c->seed, 0x20000u + (uint32_t)round);
  for (int i = 0; i < asked; i++) {
    struct foray_philox u = foray_philox4x32(c->seed, (uint32_t)order[i], (uint32_t)round, 0x77686f, 0);
    if ((double)u.v[0] / 4294967296.0 < c->dropout) continue;
    int at = n++; /* in order of their numbers, whatever the draw was */
    for (; at > 0 && who[at - 1] > order[i]; at--) who[at] = who[at - 1], percent[at] = percent[at - 1];
    who[at] = order[i];
    percent[at] = (double)u.v[1] / 4294967296.0 < c->straggler ? 50 : 100;
  }
  return n;
}
