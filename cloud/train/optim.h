/* train/optim.h - AdamW with decoupled weight decay over the trained parameters of a network, gradient
 * clipping, and learning-rate schedules. Everything is computed in one fixed order, so a step has the same
 * bits for every thread count. */
#ifndef FORAY_TRAIN_OPTIM_H
#define FORAY_TRAIN_OPTIM_H

#include "train/net.h"

enum foray_schedule { FORAY_LR_CONSTANT, FORAY_LR_LINEAR, FORAY_LR_COSINE };

struct foray_optim {
  double lr, beta1, beta2, eps, decay;
  double clip; /* of the norm over all gradients; 0 = none */
  enum foray_schedule schedule;
  int warmup, steps;   /* rising from 0; total, for the falling part */
  double floor;        /* the rate falls to floor * lr */
  double prox;         /* FedProx: adds prox * (w - anchor) to the gradient */
  const float *anchor; /* all trained values in order of foray_net_params (only [from, to)); borrowed */
  int step;            /* updates made so far */
};
/* AdamW(0.9, 0.999), eps 1e-8, clip 1, constant rate. */
struct foray_optim foray_optim_default(double lr);
double foray_optim_rate(const struct foray_optim *o); /* of the coming step */
/* One update from the gradients times grad_scale (1 / number of accumulated parts, say), which are cleared.
 * Returns the norm before clipping. */
double foray_optim_step(struct foray_optim *o, struct foray_net *n, double grad_scale);
void foray_optim_clear(struct foray_net *n); /* gradients to zero */

/* The moved part [from, to) of every trained parameter as one vector, in order of foray_net_params. */
size_t foray_params_count(struct foray_net *n);
void foray_params_get(struct foray_net *n, float *out);
void foray_params_set(struct foray_net *n, const float *in);
void foray_params_grad(struct foray_net *n, float *out);
/* Moments too: 3 x count floats (weights, first, second moments). */
void foray_params_get_state(struct foray_net *n, float *out);
void foray_params_set_state(struct foray_net *n, const float *in);

/* Which ranks of every LoRA the optimiser moves from now on: rows [from, to) of a and b. */
void foray_net_move_ranks(struct foray_net *n, int from, int to);

#endif
