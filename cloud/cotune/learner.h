/* cotune/learner.h - one model that learns: network, LoRA, optimiser, and a batch of examples in it. The
 * pieces that every algorithm is made of are steps of it.
 *
 *   foray_learner_load(l, enc, n, &err);                      // forward pass of n examples
 *   foray_learner_top(l, 64, 1, tops, &err);                  // what it says before each token of the
 * completions foray_learner_loss(l, &how, goals, true, &sums, ce, &err) // loss; gradients are added
 *   foray_learner_update(l);                                  // AdamW
 *
 * Thread rule: one caller; loops run on the pool of the matrix context. */
#ifndef FORAY_COTUNE_LEARNER_H
#define FORAY_COTUNE_LEARNER_H

#include "cotune/data.h"
#include "train/decode.h"
#include "train/optim.h"

struct foray_learner_opts {
  int rank, private_rank; /* shared ranks [0, rank), private ones behind them */
  float alpha_over_rank;  /* scale of the LoRA; 0: 2 */
  unsigned targets;
  float drop;
  int rows;               /* of a batch */
  bool checkpoint, plain; /* plain: no chat template */
  const int *layers;      /* cut; NULL: all blocks */
  int n_layers;
  uint64_t seed;
};

/* Which gradient a loss has. */
struct foray_loss_how {
  float ce, div; /* weights of the two parts */
  struct foray_lm_opts lm;
};

struct foray_learner {
  const struct foray_model *model; /* borrowed */
  struct foray_style style;
  struct foray_net *net;
  struct foray_acts *acts;
  struct foray_lm *lm;
  struct foray_optim optim;
  int rank, private_rank;
  float **d;
  /* the batch */
  int rows, m, n_seg, labels;
  int32_t *tok;
  struct foray_segment *seg;
  const struct foray_enc **enc;
  struct foray_lm_goal *goal;
  uint64_t tokens; /* trained on so far */
  int64_t pass;
};

enum foray_status foray_learner_open(const struct foray_model *m, struct foray_mm *gemm,
                                     const struct foray_learner_opts *o, struct foray_learner **out,
                                     struct foray_err *err) FORAY_NODISCARD;
void foray_learner_close(struct foray_learner *l); /* NULL is allowed */

/* How many of enc[0..n) fit into one batch. */
int foray_learner_fit(const struct foray_learner *l, const struct foray_enc *const *enc, int n);
/* Forward pass; training: with dropout noise of its own. */
enum foray_status foray_learner_load(struct foray_learner *l, const struct foray_enc *const *enc, int n,
                                     bool training, struct foray_err *err) FORAY_NODISCARD;
/* tops: one after another for all completion tokens of the batch (l->labels of them), each with room for k.
 */
enum foray_status foray_learner_top(struct foray_learner *l, int k, float tau, struct foray_sparse *tops,
                                    struct foray_err *err) FORAY_NODISCARD;
/* goals: like tops (n = 0: no divergence there), or NULL. gate (by example, or NULL): false leaves the
 * divergence of an example out. ce (by example, may be NULL): its mean cross entropy. With train the
 * gradients of the mean over labels are added. */
enum foray_status foray_learner_loss(struct foray_learner *l, const struct foray_loss_how *how,
                                     const struct foray_sparse *goals, const bool *gate, bool train,
                                     struct foray_lm_sums *sums, double *ce,
                                     struct foray_err *err) FORAY_NODISCARD;
double foray_learner_update(struct foray_learner *l); /* norm of the gradient */

/* Cross entropy per token over examples; the answers by greedy decoding (owned strings). */
enum foray_status foray_learner_perplexity(struct foray_learner *l, const struct foray_enc *const *enc, int n,
                                           double *perplexity, double *accuracy,
                                           struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_learner_answer(struct foray_learner *l, const struct foray_enc *const *enc, int n,
                                       int max_new, char **answers, struct foray_err *err) FORAY_NODISCARD;

/* Owned lists for tops. */
struct foray_tops {
  struct foray_sparse *v;
  int32_t *row;
  float *p;
  int n, k;
};
enum foray_status foray_tops_open(int n, int k, struct foray_tops *out,
                                  struct foray_err *err) FORAY_NODISCARD;
void foray_tops_close(struct foray_tops *t);

#endif
