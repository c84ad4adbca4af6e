/* train/lm.h - what a network says about the next token, and losses on it: cross entropy with the token that
 * follows, and a divergence from a distribution that somebody else (a teacher, a peer) gave.
 *
 * A given distribution is a list of at most K (row, probability) pairs; what is missing to 1 lies in one more
 * bucket, the rest, which stands for all other rows of the head. The divergence compares the buckets, so with
 * K = all rows it is the exact one, and with fewer it is a lower bound that loses no mass. Without `rest` the
 * pairs are taken as the whole distribution (as in FedMKT).
 *
 * Loss at a position = ce_weight * CE(next) + div_weight * D(goal, head at temperature tau) * tau^2 when
 * asked. Thread rule: as train/net.h. */
#ifndef FORAY_TRAIN_LM_H
#define FORAY_TRAIN_LM_H

#include "train/net.h"

enum foray_div {
  FORAY_DIV_KL,     /* KL(goal || head): gradient q - p */
  FORAY_DIV_RKL,    /* KL(head || goal) */
  FORAY_DIV_JSD,    /* beta KL(goal || M) + (1-beta) KL(head || M), M = beta goal + (1-beta) head */
  FORAY_DIV_TVD,    /* half the L1 distance */
  FORAY_DIV_SKEW_KL /* KL(goal || beta goal + (1-beta) head) */
};
const char *foray_div_name(enum foray_div d);
bool foray_div_find(const char *name, enum foray_div *out);

/* A sparse distribution: probabilities of distinct rows of a head, n <= cap. */
struct foray_sparse {
  int n;
  int32_t *row;
  float *p;
};

/* One scored position. */
struct foray_lm_goal {
  int row;                         /* of the batch: the head reads its final state */
  int32_t next;                    /* row of the head that follows; -1: no cross entropy here */
  float ce_weight, div_weight;     /* 0 leaves the part out */
  const struct foray_sparse *goal; /* borrowed; NULL without a divergence */
};

struct foray_lm_opts {
  enum foray_div div;
  float beta, tau;
  bool rest;       /* missing mass is the rest bucket; else the goal is scaled to 1 */
  bool tau_square; /* multiply the divergence by tau^2 */
};

/* Sums over the goals, weights included, and what a report wants besides. */
struct foray_lm_sums {
  double ce, ce_weight, div, div_weight;
  double hits; /* positions whose most likely row is `next` (unweighted), of ce_n */
  uint64_t ce_n;
};

struct foray_lm; /* scratch; borrows the network */
enum foray_status foray_lm_open(struct foray_net *n, int max_rows, struct foray_lm **out,
                                struct foray_err *err) FORAY_NODISCARD;
void foray_lm_close(struct foray_lm *l);

/* Reads the state after the last block of the batch in `a`. With d_state (m x D, added to): the gradient of
 * scale * sum of losses; the head's and the last norm's own gradients are added where they are trained.
 * each (n, may be NULL) receives the loss of each goal. */
enum foray_status foray_lm_loss(struct foray_lm *l, const struct foray_acts *a,
                                const struct foray_lm_goal *goals, int n, const struct foray_lm_opts *o,
                                float scale, float *d_state, struct foray_lm_sums *sums, float *each,
                                struct foray_err *err) FORAY_NODISCARD;
/* The k most likely rows at batch rows[0..n), falling, probabilities of the whole softmax at temperature tau:
 * out[i].row and .p have room for k. */
enum foray_status foray_lm_top(struct foray_lm *l, const struct foray_acts *a, const int *rows, int n, int k,
                               float tau, struct foray_sparse *out, struct foray_err *err) FORAY_NODISCARD;
/* Logits of given states (m x D, residual after the last block), m x n_head. */
enum foray_status foray_lm_logits(struct foray_lm *l, int m, const float *state, float *logits,
                                  struct foray_err *err) FORAY_NODISCARD;

#endif
