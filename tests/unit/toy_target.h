/* unit/toy_target.h - a "model" whose logits are a hash of the whole prefix: deterministic, cheap, and any
 * slip in positions, cache or history changes them. It stands in for the engine behind batch/target.h. */
#ifndef FORAY_UNIT_TOY_TARGET_H
#define FORAY_UNIT_TOY_TARGET_H

#include "batch/target.h"

enum { TOY_VOCAB = 24, TOY_EOG = 0, TOY_PAGE = 8 };

struct toy {
  struct foray_target target;
  uint64_t salt;               /* another model */
  uint32_t eog_in_256;         /* about how often it ends a text */
  uint32_t cached, cached_max; /* tokens in all sequences; pass refuses more than cached_max (0: no limit) */
  uint32_t pass_us;            /* real time that a pass takes */
  uint64_t passes, shared;     /* passes run; tokens taken over from other sequences */
  int open_seqs, open_samplers;
};

void toy_init(struct toy *t, uint64_t salt, uint32_t ctx);

/* What plain decoding gives, by a loop of its own: up to max_tokens ids into out; the end's reason. */
enum foray_finish toy_plain(struct toy *t, const struct foray_gen_request *r, uint32_t *out, uint32_t *n);
double toy_logprob(struct toy *t, const uint32_t *prefix, uint32_t n, uint32_t id);

#endif
