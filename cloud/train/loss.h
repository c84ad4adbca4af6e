/* train/loss.h - how far an exit (or full depth) is from the writer of the text.
 *
 * The goal at a position is the writer's distribution over the rows of the head in question: the candidates
 * that the text carries, and what is left of the probability spread evenly over the rows. So a head that
 * covers few ids is taught to be unsure where the right one is not among them. Loss = KL(goal || head). */
#ifndef FORAY_TRAIN_LOSS_H
#define FORAY_TRAIN_LOSS_H

#include "train/corpus.h"
#include "train/net.h"

enum { FORAY_LOSS_TEMPS = 13 };
/* Inverse temperatures at which confidence is recorded for calibration. */
extern const float FORAY_LOSS_TEMP[FORAY_LOSS_TEMPS];

/* The scored rows of a batch. */
struct foray_goals {
  int n;
  int *row;            /* row of the batch whose successor is predicted */
  int *before;         /* row of the position before it; -1: the document begins */
  const int32_t **top; /* FORAY_CORPUS_TOP candidates, borrowed from the corpus */
  const float **logp;
  float *weight; /* of the position in the loss */
  int32_t *next; /* the token that follows in the text */
  int cap;
};

/* What a head said at one position. */
struct foray_guess {
  int32_t id;                   /* most likely token */
  float sure[FORAY_LOSS_TEMPS]; /* its probability at each inverse temperature */
  float kl;
};

/* What exits with `prev` read of the position before: its final state, or, where that token left early too,
 * what the exit itself made of it. */
struct foray_chain {
  const float *last; /* residual after the last block, m x D of the batch */
  int early;         /* tokens in a row that left at this exit before */
  bool mix; /* training: half of the positions, drawn from `draw`, read the exit's own guess instead */
  uint32_t draw;
  float scale; /* of that guess (early > 0): the calibration that map and prev do not hold yet */
};

struct foray_loss; /* scratch */
enum foray_status foray_loss_open(const struct foray_net *n, int max_rows, struct foray_loss **out,
                                  struct foray_err *err) FORAY_NODISCARD;
void foray_loss_close(struct foray_loss *l);

/* Head `e` (an exit, or -1 = full depth) on the residual `state` (m x D of the batch) of its layer. *kl gets
 * the weighted mean. With d_state != NULL: adds weight * d(mean KL)/d state, and to the gradients of the
 * exit's maps (what `prev` reads counts as given). chain: for exits with prev only. guess (goals->n, may be
 * NULL) receives what it says. */
enum foray_status foray_loss_head(struct foray_loss *l, struct foray_net *n, int e, const float *state,
                                  const struct foray_chain *chain, const struct foray_goals *goals,
                                  float weight, float *d_state, double *kl, struct foray_guess *guess,
                                  struct foray_err *err) FORAY_NODISCARD;

/* What full depth itself holds likely behind rows row[0..R): FORAY_CORPUS_TOP ids of the trimmed head, most
 * likely first, and their log-probabilities (R x FORAY_CORPUS_TOP each). */
enum foray_status foray_loss_top(struct foray_loss *l, struct foray_net *n, const float *last, const int *row,
                                 int R, int32_t *top, float *logp, struct foray_err *err) FORAY_NODISCARD;

void foray_goals_deinit(struct foray_goals *g);
/* Adds the scored positions of a document that starts at row `start` of the batch. prompt_weight: of
 * positions before the answer (0 leaves them out). */
enum foray_status foray_goals_add(struct foray_goals *g, const struct foray_doc *d, int start,
                                  float prompt_weight, struct foray_err *err) FORAY_NODISCARD;

/* map = ridge regression from normalised states x (rows x K) to y (rows x D); x and y are read through these
 * sums, which the caller adds up batch by batch. */
struct foray_ridge {
  int K, D;
  double rows;
  float *xx, *yx; /* K x K: sum of x x^T; D x K: sum of y x^T */
};
enum foray_status foray_ridge_open(int K, int D, struct foray_ridge *r,
                                   struct foray_err *err) FORAY_NODISCARD;
void foray_ridge_add(struct foray_ridge *r, struct foray_mm *g, int m, const float *x, const float *y);
/* map: D x K. lambda is relative to the mean diagonal of xx. */
enum foray_status foray_ridge_solve(struct foray_ridge *r, double lambda, float *map,
                                    struct foray_err *err) FORAY_NODISCARD;
void foray_ridge_close(struct foray_ridge *r);

#endif
