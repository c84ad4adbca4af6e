/* train/decode.h - text from a network in training, LoRA included: many prompts at once as columns of one
 * matrix product. Not one of the exact engines: its bits follow the trainer's kernel. */
#ifndef FORAY_TRAIN_DECODE_H
#define FORAY_TRAIN_DECODE_H

#include "train/lm.h"
#include <signal.h>

struct foray_decode_opts {
  int max_new;                              /* tokens after a prompt */
  float temperature;                        /* 0: the most likely token (ties: lower id) */
  uint64_t seed;                            /* of the samples; stream = number of the prompt */
  bool (*end)(const void *arg, int32_t id); /* ends a text; the token itself is not kept */
  const void *end_arg;
  const volatile sig_atomic_t *stop; /* NULL: nobody stops it */
};

/* prompt[i][0..len[i]) to out[i] (appended). Prompts are taken in groups whose tokens fit into `a`, which
 * must hold the longest one; order and results do not depend on the grouping beyond rounding. */
enum foray_status foray_decode(struct foray_net *n, struct foray_acts *a, struct foray_lm *lm, int count,
                               const int32_t *const *prompt, const int *len,
                               const struct foray_decode_opts *o, struct foray_ids *out,
                               struct foray_err *err) FORAY_NODISCARD;

#endif
