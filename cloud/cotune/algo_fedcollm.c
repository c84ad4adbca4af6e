/* FedCoLLM: device LoRA is averaged on the server, where cloud model and small model then teach each other on
 * public text; the small model's LoRA goes back. The published code has no gradient in its divergence; the
 * formula is used here. Where tokenizers differ the byte-offset alignment takes the place of equal ids. */
#include "cotune/algos.h"

#include <stdlib.h>

#include "core/err.h"

enum foray_status foray_algo_average(struct foray_fed *f, const int *who, const int *percent, int n,
                                     double prox, int steps, struct foray_err *err);

static enum foray_status fedcollm(struct foray_fed *f, const int *who, const int *percent, int n,
                                  struct foray_err *err) {
  int groups = 0;
  bool has[FORAY_FED_DEVICES + 2] = {false};
  enum foray_status st = foray_algo_average(f, who, percent, n, 0, f->c->dst_steps + f->c->saml_steps, err);
  for (int k = 0; k < f->n_devices; k++) groups += !has[f->device[k].model], has[f->device[k].model] = true;
  foray_slot_put(&f->cloud_slot, f->model[f->cloud].l);
  for (int m = 0, seen = 0; !st && m < f->n_models; m++) {
    struct foray_device *d = NULL;
    struct foray_learner *l = f->model[m].l;
    if (!has[m]) continue;
    for (int k = 0; !d && k < f->n_devices; k++)
      if (f->device[k].model == m) d = &f->device[k];
    int steps = f->c->server_steps * (seen + 1) / groups - f->c->server_steps * seen / groups;
    seen++;
    foray_slot_put(&d->own, l);
    struct foray_pair p = {f->cloud, m,    f->c->gamma,    f->c->gamma, true, true,
                           false,    NULL, &f->pub_cursor, 1,           steps};
    if ((st = foray_fed_mutual(f, &p, err))) break;
    size_t count = foray_params_count(l->net);
    float *w = malloc(count * sizeof *w);
    if (!w) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
    foray_params_get(l->net, w);
    for (int k = 0; !st && k < f->n_devices; k++) {
      struct foray_buf msg;
      if (f->device[k].model != m) continue;
      st = foray_wire_put_values(&msg, FORAY_WIRE_WEIGHTS, f->round, k, w, count, err);
      if (!st) {
        foray_wire_send(&f->wire, false, &msg);
        st = foray_wire_get_values(&msg, FORAY_WIRE_WEIGHTS, w, count, err);
      }
      foray_buf_deinit(&msg);
      if (st) break;
      foray_slot_put(&f->device[k].own, l);
      foray_params_set(l->net, w);
      st = foray_slot_take(&f->device[k].own, l, err);
    }
    free(w);
  }
  return st ? st : foray_slot_take(&f->cloud_slot, f->model[f->cloud].l, err);
}
const struct foray_algo foray_algo_fedcollm = {
    "fedcollm", "averaged device LoRA and cloud model distil each other", false, false, fedcollm};
