/* FedAvg and FedProx on LoRA weights. Only devices with the same model can be averaged, so each model has a
 * federation of its own. A and B are averaged separately, as these methods do; that is not the average of B A
 * (docs/cotuning.md). */
#include "cotune/algos.h"

#include <stdlib.h>
#include <string.h>

#include "core/err.h"

enum foray_status foray_algo_average(struct foray_fed *f, const int *who, const int *percent, int n,
                                     double prox, int steps, struct foray_err *err);

/* One round of local training and averaging, for every group of devices with one model. */
enum foray_status foray_algo_average(struct foray_fed *f, const int *who, const int *percent, int n,
                                     double prox, int steps, struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  for (int m = 0; !st && m < f->n_models; m++) {
    int total = 0, first = -1;
    for (int i = 0; i < n; i++)
      if (f->device[who[i]].model == m) {
        total += f->device[who[i]].share.n;
        if (first < 0) first = who[i];
      }
    if (first < 0 || !total) continue;
    size_t count = f->device[first].own.n;
    float *start = malloc(count * sizeof *start), *got = malloc(count * sizeof *got),
          *sum = malloc(count * sizeof *sum);
    if (!start || !got || !sum) st = foray_err_set(err, FORAY_E_NOMEM, "averaging: out of memory");
    /* all devices of a group hold the same weights between rounds (slot: weights of each tensor, then its
     * moments) */
    for (int i = 0; !st && i < n; i++) {
      struct foray_device *d = &f->device[who[i]];
      struct foray_learner *l = f->model[m].l;
      struct foray_buf msg;
      if (d->model != m) continue;
      foray_slot_put(&d->own, l);
      foray_params_get(l->net, start);
      if (who[i] == first) memcpy(sum, start, count * sizeof *sum);
      l->optim.prox = prox, l->optim.anchor = start;
      st = foray_fed_device_ce(f, who[i], steps * percent[i] / 100, err);
      l->optim.prox = 0, l->optim.anchor = NULL;
      if (st) break;
      foray_params_get(l->net, got);
      for (size_t k = 0; k < count; k++) got[k] -= start[k];
      st = foray_wire_put_values(&msg, FORAY_WIRE_DELTA, f->round, who[i], got, count, err);
      if (!st) {
        foray_wire_send(&f->wire, true, &msg);
        st = foray_wire_get_values(&msg, FORAY_WIRE_DELTA, got, count, err);
      }
      foray_buf_deinit(&msg);
      if (!st) foray_fed_add(sum, got, count, (double)d->share.n / total);
    }
    for (int k = 0; !st && k < f->n_devices; k++) { /* down to every device of the group, asked or not */
      struct foray_device *d = &f->device[k];
      struct foray_learner *l = f->model[m].l;
      struct foray_buf msg;
      if (d->model != m) continue;
      st = foray_wire_put_values(&msg, FORAY_WIRE_WEIGHTS, f->round, k, sum, count, err);
      if (!st) {
        foray_wire_send(&f->wire, false, &msg);
        st = foray_wire_get_values(&msg, FORAY_WIRE_WEIGHTS, got, count, err);
      }
      foray_buf_deinit(&msg);
      if (st) break;
      foray_slot_put(&d->own, l);
      foray_params_set(l->net, got);
      st = foray_slot_take(&d->own, l, err);
    }
    free(start), free(got), free(sum);
  }
  return st;
}

static enum foray_status with(struct foray_fed *f, const int *who, const int *percent, int n, double prox,
                              struct foray_err *err) {
  enum foray_status st =
      foray_algo_average(f, who, percent, n, prox, f->c->dst_steps + f->c->saml_steps, err);
  return st ? st : foray_fed_ce(f, f->cloud, NULL, &f->pub_cursor, 1, f->c->server_steps, err);
}
static enum foray_status fedavg(struct foray_fed *f, const int *who, const int *percent, int n,
                                struct foray_err *err) {
  return with(f, who, percent, n, 0, err);
}
static enum foray_status fedprox(struct foray_fed *f, const int *who, const int *percent, int n,
                                 struct foray_err *err) {
  return with(f, who, percent, n, f->c->prox, err);
}
const struct foray_algo foray_algo_fedavg = {"fedavg", "LoRA weights averaged within devices of one model",
                                             false, false, fedavg};
const struct foray_algo foray_algo_fedprox = {"fedprox", "FedAvg with a proximal term", false, false,
                                              fedprox};
