/* The two ends of the scale: every device alone, and everything in one place. */
#include "cotune/algos.h"

#include <stdlib.h>
#include <string.h>

#include "core/err.h"

static enum foray_status alone(struct foray_fed *f, const int *who, const int *percent, int n,
                               struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  int steps = f->c->dst_steps + f->c->saml_steps;
  for (int i = 0; !st && i < n; i++) st = foray_fed_device_ce(f, who[i], steps * percent[i] / 100, err);
  if (!st) st = foray_fed_ce(f, f->cloud, NULL, &f->pub_cursor, 1, f->c->server_steps, err);
  return st;
}
const struct foray_algo foray_algo_standalone = {
    "standalone", "each device trains on its own data; nothing crosses", false, false, alone};

/* Upper bound: all models learn from all data. The raw text goes up once. */
static enum foray_status central(struct foray_fed *f, const int *who, const int *percent, int n,
                                 struct foray_err *err) {
  struct foray_share all = {malloc((size_t)(f->train.n ? f->train.n : 1) * sizeof(int)), f->train.n};
  enum foray_status st = all.index ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  int steps = f->c->dst_steps + f->c->saml_steps;
  for (int i = 0; !st && i < all.n; i++) {
    all.index[i] = i;
    if (f->round == 0)
      foray_wire_count(&f->wire, true, strlen(f->train.ex[i].prompt) + strlen(f->train.ex[i].completion));
  }
  for (int i = 0; !st && i < n; i++) {
    struct foray_device *d = &f->device[who[i]];
    struct foray_learner *l = f->model[d->model].l;
    foray_slot_put(&d->own, l);
    st = foray_fed_ce(f, d->model, &all, &d->cursor, 100 + (uint32_t)who[i], steps * percent[i] / 100, err);
    if (!st) st = foray_slot_take(&d->own, l, err);
  }
  if (!st) st = foray_fed_ce(f, f->cloud, &all, &f->pub_cursor, 1, f->c->server_steps, err);
  foray_share_deinit(&all);
  return st;
}
const struct foray_algo foray_algo_central = {
    "central", "all data in one place (upper bound; raw text crosses)", false, false, central};
