/* train/corpus.h - the training text: what a model writes itself, and how likely it found each token.
 *
 * No data set is needed. A chat model is given the head of a user turn (a hint: "Translate to German:", ...)
 * and writes the rest of the request itself; then it answers. Every position that the model wrote carries the
 * k most likely next tokens with their log-probabilities, which is what the exits are trained towards.
 *
 * Generation runs many conversations at once through the trainer's own matrix kernel, because at a hundred
 * columns a decode step is limited by arithmetic and not by memory. */
#ifndef FORAY_TRAIN_CORPUS_H
#define FORAY_TRAIN_CORPUS_H

#include "model/model.h"
#include "train/gemm.h"
#include <signal.h>

enum { FORAY_CORPUS_TOP = 24 };

struct foray_doc {
  int n;        /* tokens */
  int first;    /* tokens [first, n) were written by the model */
  int answer;   /* tokens [answer, n) are its answer */
  int category; /* of the hint */
  int32_t *ids;
  int32_t *top; /* (n - first) x FORAY_CORPUS_TOP ids, most likely first: candidates for token first + i */
  float *logp;  /* their log-probabilities at temperature 1 */
};

struct foray_corpus {
  struct foray_doc *doc; /* owned, with their arrays */
  int n, cap;
  uint64_t scored; /* sum of n - first */
  char writer[65]; /* SHA-256 of the model that wrote it */
  uint32_t n_vocab;
};

struct foray_corpus_opts {
  int slots, ctx; /* conversations at once; most tokens of one */
  uint64_t seed;
  uint64_t tokens;                   /* stop when this many tokens have been written */
  double seconds;                    /* ... or after this time; 0 = no limit */
  const char *save;                  /* path to save to from time to time; NULL = none */
  const volatile sig_atomic_t *stop; /* ends early, keeping what is there */
  void (*progress)(void *arg, uint64_t scored, double per_second);
  void *arg;
};

/* Continues after what c already holds (c->n documents), so that a run that was stopped can go on. */
enum foray_status foray_corpus_generate(struct foray_corpus *c, const struct foray_model *m,
                                        struct foray_mm *g, const struct foray_corpus_opts *o,
                                        struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_corpus_save(const struct foray_corpus *c, const char *path,
                                    struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_corpus_load(struct foray_corpus *c, const char *path,
                                    struct foray_err *err) FORAY_NODISCARD;
void foray_corpus_deinit(struct foray_corpus *c);

/* ids by falling frequency over what the model wrote (ties: lower id first), then control and single-byte
 * tokens that never occurred, cut or filled up to `want`; returns how many. ids has room for want. *coverage
 * is the share of written tokens that the list holds. */
int foray_corpus_vocab(const struct foray_corpus *c, const struct foray_tokenizer *t, int want, uint32_t *ids,
                       double *coverage, struct foray_err *err);

/* Hints by category (hints.c). */
int foray_hint_categories(void);
const char *foray_hint_category_name(int category);
/* Writes one hint; everything follows from (seed, doc). */
int foray_hint_make(uint64_t seed, uint32_t doc, char *out, size_t cap); /* returns the category */

#endif
