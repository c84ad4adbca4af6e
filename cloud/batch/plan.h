/* batch/plan.h - which sessions go into the next pass and with how much: a pure function, so that a
 * recorded queue replays any rule.
 *
 * One pass reads all weights once whatever is in it; up to `rows` logit rows and `tokens` input positions
 * it costs little more than a single token. So everything that can make a choice goes in, and what room is
 * left is filled with prompts, in slices. Where not all fit, the order is: priority class (0 first; who has
 * waited age_ns counts one class higher for each), then who is over its deadline, then whose tenant had the
 * smallest weighted share of tokens so far, then who waits longest. */
#ifndef FORAY_BATCH_PLAN_H
#define FORAY_BATCH_PLAN_H

#include <stdint.h>

struct foray_plan_want {
  uint32_t uncached; /* tokens to be fed before a choice can be made */
  uint32_t guesses;  /* worth a position each, behind them */
  int64_t since;     /* waiting from; smaller is served first */
  int64_t deadline;  /* shall be in a pass by then; 0: none */
  double share;      /* weighted tokens that its tenant had */
  uint32_t priority; /* class, 0 first */
};
struct foray_plan_limits {
  uint32_t items, rows, tokens, slice; /* slice: most prompt tokens of one session in a pass, >= 1 */
  uint32_t beside; /* most prompt tokens of a pass in which somebody makes a choice; 0: no such limit */
  int64_t now;
  int64_t age_ns; /* 0: nobody gets older */
};
struct foray_plan_item {
  uint32_t want; /* index */
  uint32_t feed, guesses;
  uint32_t chooses; /* 1: logits of guesses + 1 rows; 0: feeds only */
};

/* Writes at most limits.items (and at most n) items; returns how many, 0 only for n = 0. order: 2 n words of
 * scratch. Every want gets its turn: the first in the order is always in. */
uint32_t foray_plan_pass(const struct foray_plan_want *w, uint32_t n, const struct foray_plan_limits *l,
                         uint32_t *order, struct foray_plan_item *out);

/* Draft length that pays now, for each of n sessions that share `rows` rows a pass: what is left of an even
 * share after the row that every session needs; at most draft_max. */
uint32_t foray_plan_draft_max(uint32_t rows, uint32_t sessions, uint32_t draft_max);

#endif
