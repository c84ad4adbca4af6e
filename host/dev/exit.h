/* dev/exit.h - what the exit unit makes of a finished stream: features, rules, the decision (docs/numerics.md
 * 9). */
#ifndef FORAY_DEV_EXIT_H
#define FORAY_DEV_EXIT_H

#include "dev/kernels.h"

void foray_exit_clear(struct foray_exit_unit *u);
/* Fills token, log_z .. cum, logprob, rows and candidates of a ring entry. cum_before = sum so far. u->rows
 * >= 1. */
void foray_exit_finish(const struct foray_exit_unit *u, int32_t cum_before, struct foray_rec_ring *r);
/* bias + sum(c * feature) of a rule's FORAY_ABI_FEATURES coefficients. */
int64_t foray_exit_rule(const int32_t *c, const struct foray_rec_ring *r);

#endif
