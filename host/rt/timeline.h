/* rt/timeline.h - what a session knows: the tokens that are settled, the drafted tail behind them, and the
 * seed of the sampling noise. It is the one mutable object of a session (DESIGN 1); everything else (device
 * caches, the cloud's copy) is derived from it and follows by "hand over the whole prefix, the common part is
 * reused". Rolling back is truncation.
 *
 *   [ prompt ............ | settled output ... | drafted, under way ... ]
 *   0                     n_prompt             n_committed              n
 *
 * Position of a token = number of tokens before it, prompt included; the noise that chooses the token at
 * position p is gumbel(seed, p, id). Thread rule: one owner. */
#ifndef FORAY_RT_TIMELINE_H
#define FORAY_RT_TIMELINE_H

#include <foray/status.h>
#include <stdint.h>

struct foray_timeline {
  uint32_t *tok; /* owned; tok[0 .. n) */
  uint32_t n;
  uint32_t n_prompt;
  uint32_t n_committed; /* n_prompt <= n_committed <= n */
  uint32_t cap;
  uint32_t max; /* most tokens this timeline may hold (context size) */
  uint64_t seed;
};

void foray_timeline_init(struct foray_timeline *t, uint32_t max, uint64_t seed);
void foray_timeline_deinit(struct foray_timeline *t);
/* Drops everything and starts with a prompt (copied). FORAY_E_LIMIT when it is longer than max. */
enum foray_status foray_timeline_start(struct foray_timeline *t, const uint32_t *prompt, uint32_t n,
                                       struct foray_err *err) FORAY_NODISCARD;
/* Adds drafted tokens behind the tail. FORAY_E_LIMIT past max; the timeline is unchanged then. */
enum foray_status foray_timeline_draft(struct foray_timeline *t, const uint32_t *ids, uint32_t n,
                                       struct foray_err *err) FORAY_NODISCARD;
/* Settles tokens from position `at` (== n_committed) on: where the drafted tail says the same it is kept, at
 * the first difference the rest of the tail is dropped. *kept (may be NULL) = how many of ids the tail had
 * right. */
enum foray_status foray_timeline_commit(struct foray_timeline *t, uint32_t at, const uint32_t *ids,
                                        uint32_t n, uint32_t *kept, struct foray_err *err) FORAY_NODISCARD;
/* Forgets all from position n on (n >= n_prompt); a settled tail may be cut too (stop strings). */
void foray_timeline_truncate(struct foray_timeline *t, uint32_t n);
static inline uint32_t foray_timeline_tail(const struct foray_timeline *t) { return t->n - t->n_committed; }

#endif
