/* train/train.h - `foray-tune exits` as a library: text, ridge start, joint training of LoRA and exits,
 * calibration, report, file. Each stage keeps its result in the work directory, so a run that was interrupted
 * goes on where it stopped; with the same arguments, seed, thread count and kernel it gives the same file. */
#ifndef FORAY_TRAIN_TRAIN_H
#define FORAY_TRAIN_TRAIN_H

#include "train/corpus.h"
#include "train/loss.h"
#include <stdio.h>

struct foray_tune_opts {
  const struct foray_model *model;  /* the edge model that gets exits */
  const struct foray_model *target; /* whose text and distribution are learnt; NULL = model itself */
  const char *out, *work;           /* exits file; directory for text and checkpoints (exists) */
  const char *command;              /* recorded in the file */
  int n_exits, layer[FORAY_EXITS_MAX];
  int head_rows; /* of each exit */
  bool prev;     /* exits read what the position before kept */
  bool own;      /* exits learn full depth's own distribution instead of the writer's; needs rank 0 */
  int vocab;     /* rows of the trimmed head */
  int rank;      /* of the LoRA; 0 = frozen model, maps only */
  int first;     /* first block with a LoRA */
  double alpha, lr, map_lr, clip, decay;
  double exit_weight, full_weight, prompt_weight;
  int steps, batch, warmup;
  int schedule; /* steps that the learning rate is laid out for; 0 = steps. A checkpoint belongs to a
                   schedule, so a run can be ended early by asking for fewer steps of the same one */
  int skip_from, skip_to; /* measure the model without these blocks, and train nothing; both 0: no */
  int eval_tokens;        /* held-out positions that are measured */
  int ridge_tokens;
  double ridge_lambda, threshold;
  uint64_t seed;
  struct foray_corpus_opts text; /* slots, ctx, tokens, seconds */
  struct foray_mm *gemm;
  const volatile sig_atomic_t *stop;
  FILE *log;  /* progress for people; NULL = silent */
  FILE *json; /* one object a line; NULL = none */
};

/* Everything. FORAY_E_CANCELLED when stopped (the work directory then holds what is needed to go on). */
enum foray_status foray_tune_exits(const struct foray_tune_opts *o, struct foray_err *err) FORAY_NODISCARD;

/* ---- stages, for the tests ---- */
struct foray_tune {
  const struct foray_tune_opts *o;
  struct foray_corpus corpus;
  struct foray_net *net;
  struct foray_acts *acts;
  struct foray_loss *loss;
  float **d_state;
  struct foray_own { /* by document: what full depth holds likely, (n - first) x FORAY_CORPUS_TOP each */
    int32_t *top;
    float *logp;
  } * own;
  float **low; /* by document: states before block `first`, once computed */
  float *low_batch;
  int step;
  double threshold[FORAY_EXITS_MAX]; /* of each exit, by the report; 2 = it does not pay */
  int check;                         /* early tokens that may wait for full depth's look, by the report */
  double ratio;                      /* accepted tokens a byte with them, over full depth */
  double coverage;                   /* of the vocabulary list over the text */
  uint64_t tokens;                   /* trained on */
};
/* Document d is held out. */
static inline bool foray_tune_held_out(int d) { return d % 16 == 15; }

struct foray_adamw {
  double lr, map_lr, decay, clip;
  int step; /* 1.. */
};
/* One update from the gradients, which are cleared. Returns the norm of the gradient before clipping. */
double foray_adamw_step(struct foray_net *n, const struct foray_adamw *a);
/* Warm-up, then cosine to a tenth. */
double foray_lr_at(double lr, int step, int steps, int warmup);

/* Measures the held-out documents with every head, chooses temperatures, folds them into the maps, and fills
 * report (JSON text, owned by the caller). */
enum foray_status foray_tune_report(struct foray_tune *t, bool calibrate, char **report,
                                    struct foray_err *err) FORAY_NODISCARD;

#endif
