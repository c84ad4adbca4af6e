/* batch/prefix.h - beginnings of sequences that were computed before, kept for sessions that begin the same
 * way (system prompts, the turns of a conversation). Kept per tenant: whether a beginning is known can be
 * seen in the time of an answer, so nobody may learn it of somebody else's text.
 *
 * An entry holds pages of keys and values that it shares with whoever uses them (seq_share of
 * batch/target.h); they are the same bits as computed anew. Belongs to the engine thread. */
#ifndef FORAY_BATCH_PREFIX_H
#define FORAY_BATCH_PREFIX_H

#include "batch/target.h"

struct foray_prefix;

struct foray_prefix_stats {
  uint64_t queries, hits; /* tokens asked for; tokens that were there */
  uint32_t entries;
};

/* NULL: no memory, or the target cannot share (then all calls do nothing). */
struct foray_prefix *foray_prefix_open(const struct foray_target *t, uint32_t entries_max);
void foray_prefix_close(struct foray_prefix *p);
/* Fills the empty seq with the longest known beginning of tokens[0..n), at most n - 1 of them; its length. */
uint32_t foray_prefix_find(struct foray_prefix *p, uint64_t tenant, const int32_t *tokens, uint32_t n,
                           void *seq);
/* Keeps the whole pages of seq, which holds tokens[0..n). */
void foray_prefix_keep(struct foray_prefix *p, uint64_t tenant, const int32_t *tokens, uint32_t n, void *seq);
/* Gives the least recently used entry up; false: there is none. */
bool foray_prefix_drop(struct foray_prefix *p);
void foray_prefix_stats_get(const struct foray_prefix *p, struct foray_prefix_stats *s);

#endif
