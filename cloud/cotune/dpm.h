/* cotune/dpm.h - a distilled proxy model: some blocks of a large model at full width, taught by the whole
 * one. The result is a GGUF model file like any other. Thread rule: one caller. */
#ifndef FORAY_COTUNE_DPM_H
#define FORAY_COTUNE_DPM_H

#include "cotune/learner.h"
#include <stdio.h>

/* Which m of n blocks: two at each end and an even spread between (fewer than four: an even spread). Rising.
 */
void foray_dpm_layers(int n, int m, int *out);

struct foray_dpm_opts {
  int layers, rank, steps, batch, max_tokens, k;
  double lr, mu, tau; /* loss = (1 - mu) CE + mu KL(whole || proxy) */
  uint64_t seed;
  bool checkpoint;
  const volatile sig_atomic_t *stop;
  FILE *log;
};
struct foray_dpm_report {
  int layers;
  uint64_t bytes;                   /* of the file */
  double kl_before, kl_after;       /* per token, on held-out text, top-K with rest */
  double agree_before, agree_after; /* share of tokens with the same most likely one */
};
/* whole: a learner of the large model (its present weights teach; untouched). text: n strings, every eighth
 * is held out. Writes path (and path + ".json" with the report). FORAY_E_UNSUPPORTED for gemma3, whose window
 * pattern counts blocks. */
enum foray_status foray_dpm_make(struct foray_learner *whole, const char *const *text, int n,
                                 const struct foray_dpm_opts *o, const char *path,
                                 struct foray_dpm_report *report, struct foray_err *err) FORAY_NODISCARD;

/* The network's blocks with their LoRA merged, as a GGUF file: matrices that the LoRA touches as Q8_0 (F16
 * where rows do not divide by 32), everything else as it is in the model's file. */
enum foray_status foray_merge_write(const struct foray_net *n, const char *name, const char *path,
                                    struct foray_err *err) FORAY_NODISCARD;

#endif
