/* cotune/data.h - examples (prompt, completion, domain) from JSON lines, how they are dealt to devices, and
 * their tokens for one model.
 *
 * Thread rule: one thread. Everything random follows from a seed. */
#ifndef FORAY_COTUNE_DATA_H
#define FORAY_COTUNE_DATA_H

#include "cotune/align.h"
#include "model/chat.h"
#include "model/model.h"

enum { FORAY_DOMAINS_MAX = 16, FORAY_DOMAIN_NAME = 32, FORAY_LINE_MAX = 1 << 20 };

struct foray_example {
  char *prompt, *completion; /* owned, UTF-8 */
  int domain;
};
struct foray_dataset {
  struct foray_example *ex;
  int n, cap;
  char domain[FORAY_DOMAINS_MAX][FORAY_DOMAIN_NAME];
  int n_domains;
};
/* Adds {"prompt", "completion"} of each line of path; longer ones than max_chars together are left out, at
 * most max_n are taken (0: all). Errors name the line. */
enum foray_status foray_dataset_add(struct foray_dataset *d, const char *path, const char *domain,
                                    int max_chars, int max_n, struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_dataset_put(struct foray_dataset *d, const char *prompt, const char *completion,
                                    const char *domain, struct foray_err *err) FORAY_NODISCARD;
int foray_dataset_domain(const struct foray_dataset *d, const char *name); /* -1: none of that name */
void foray_dataset_deinit(struct foray_dataset *d);

/* Which examples belong to whom; owned list of numbers. */
struct foray_share {
  int *index, n;
};
void foray_share_deinit(struct foray_share *s);
/* By domain: device k gets what has domain[k]; devices with the same one share it evenly, in turn. */
enum foray_status foray_split_domain(const struct foray_dataset *d, const int *domain, int devices,
                                     struct foray_share *out, struct foray_err *err) FORAY_NODISCARD;
/* Each domain is dealt in proportions drawn from Dirichlet(alpha, ..., alpha); small alpha: very unequal. */
enum foray_status foray_split_dirichlet(const struct foray_dataset *d, double alpha, int devices,
                                        uint64_t seed, struct foray_share *out,
                                        struct foray_err *err) FORAY_NODISCARD;
/* A permutation of 0..n-1. */
void foray_shuffle(int *v, int n, uint64_t seed, uint32_t stream);

/* An example in the tokens of one model. */
struct foray_enc {
  int32_t *ids;           /* n: prompt, completion, end token */
  int n, answer;          /* the completion starts at answer > 0 */
  struct foray_cut cut;   /* of the completion: cut.n = n - answer */
  const char *completion; /* borrowed from the example */
};
/* How a model is spoken to: its chat template, or plain text with a line break where it has none. */
struct foray_style {
  const struct foray_model *m;
  bool has_chat;
  struct foray_chat chat;
  int32_t end_id; /* behind a completion */
};
enum foray_status foray_style_open(const struct foray_model *m, bool plain, struct foray_style *out,
                                   struct foray_err *err) FORAY_NODISCARD;
/* FORAY_E_LIMIT when it has more than max_tokens. */
enum foray_status foray_enc_make(const struct foray_style *s, const struct foray_example *e, int max_tokens,
                                 struct foray_enc *out, struct foray_err *err) FORAY_NODISCARD;
/* The whole text as one completion behind the start token: for distillation. */
enum foray_status foray_enc_text(const struct foray_style *s, const char *text, int max_tokens,
                                 struct foray_enc *out, struct foray_err *err) FORAY_NODISCARD;
void foray_enc_deinit(struct foray_enc *e);

#endif
