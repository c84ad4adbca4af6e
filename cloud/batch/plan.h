/* batch/plan.h - which sessions go into the next pass and with how much: a pure function, so that a
 * recorded queue replays any rule.
 *
 * One pass reads all weights once whatever is in it; up to `rows` logit rows and `tokens` input positions
 * it costs little more than a single token. So everything that can make a choice goes in (oldest first), and
 * what room is left is filled with prompts, in slices. */
#ifndef FORAY_BATCH_PLAN_H
#define FORAY_BATCH_PLAN_H

#include <stdint.h>

struct foray_plan_want {
  uint32_t uncached; /* tokens to be fed before a choice can be made */
  uint32_t guesses;  /* worth a position each, behind them */
  int64_t since;     /* waiting from; smaller is served first */
};
struct foray_plan_limits {
  uint32_t items, rows, tokens, slice; /* slice: most prompt tokens of one session in a pass, >= 1 */
};
struct foray_plan_item {
  uint32_t want; /* index */
  uint32_t feed, guesses;
  uint32_t chooses; /* 1: logits of guesses + 1 rows; 0: feeds only */
};

/* Writes at most limits.items (and at most n) items; returns how many, 0 only for n = 0. order: n words of
 * scratch. Every want gets its turn: the oldest is always in. */
uint32_t foray_plan_pass(const struct foray_plan_want *w, uint32_t n, const struct foray_plan_limits *l,
                         uint32_t *order, struct foray_plan_item *out);

#endif
