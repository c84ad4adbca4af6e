/* proto/verify_rules.h - p/q rejection verification over an injectable source of chance (optional mode;
 * the default, coupled verification, needs none of this).
 *
 * Distributions are integers on both sides, so that both ends and a test compute the same thing:
 *   draft   q: counts b[vocab], sum FORAY_RULE_Q = 2^16, made by foray_rule_quantise and *then* sampled from
 *   target  p: counts P[vocab], sum FORAY_RULE_P = 2^32
 * A drafted token x is accepted with probability min(1, P[x] / (b[x] 2^16)); at the first rejection the token
 * is drawn with weights max(0, P[y] - b[y] 2^16); behind a block that was all accepted, with weights P. The
 * output is then distributed exactly as P, for any q, as long as (DESIGN 7)
 *   - q is quantised first and the quantised q is what is sampled and what is verified with,
 *   - exit and stop are decided from the prefix and the distribution, before the token is drawn, or from
 * tokens that stay in the block: a drawn token is never dropped because its probability is low. A greedy
 * draft is the same rule with all of b on one token.
 *
 * Chance is two questions (not a stream of floats), so that a test can answer them in every possible way and
 * add the probabilities up exactly. No state; thread rule: that of the source. */
#ifndef FORAY_PROTO_VERIFY_RULES_H
#define FORAY_PROTO_VERIFY_RULES_H

#include <stdbool.h>
#include <stdint.h>

#define FORAY_RULE_Q ((uint32_t)1 << 16)
#define FORAY_RULE_P ((uint64_t)1 << 32)
enum { FORAY_RULE_GAMMA_MAX = 64 };

struct foray_chance {
  void *ctx;
  /* True with probability num / den, 0 <= num <= den, den > 0. */
  bool (*yes)(void *ctx, uint64_t num, uint64_t den);
  /* i with probability w[i] / total, total = sum of w > 0. */
  uint32_t (*pick)(void *ctx, const uint64_t *w, uint32_t n, uint64_t total);
};

/* Chance from Philox with a counter of its own: unbiased integers, no floats. */
struct foray_chance_philox {
  uint64_t seed;
  uint64_t counter;
  uint32_t stream; /* draft sampling, acceptance and residual use different ones */
};
struct foray_chance foray_chance_of(struct foray_chance_philox *s); /* s is borrowed */

/* Nearest lattice point of q (n non-negative weights, sum > 0): b sums to FORAY_RULE_Q. Ties to the lower id.
 */
void foray_rule_quantise(const double *q, uint32_t n, uint32_t *b);

/* Draws from b. */
uint32_t foray_rule_draw(const struct foray_chance *c, const uint32_t *b, uint32_t n, uint64_t *scratch);

/* Verifies x[gamma]: row j of b (gamma rows of n) is the distribution x[j] was drawn from, row j of p (gamma
 * + 1 rows) the target's at the same place. Returns how many are accepted; *extra = the token that follows
 * them. scratch: n values. */
uint32_t foray_rule_token(const struct foray_chance *c, const uint32_t *x, uint32_t gamma, uint32_t n,
                          const uint32_t *b, const uint64_t *p, uint64_t *scratch, uint32_t *extra);

/* One whole round in one place, both ends: the order that keeps it lossless, written once. */
struct foray_rule_round {
  void *ctx;
  uint32_t vocab, gamma; /* gamma <= FORAY_RULE_GAMMA_MAX */
  bool greedy;           /* the draft is q's argmax */
  double stop_below;     /* stop before a token whose largest q is below this; 0: never */
  void (*q)(void *ctx, const uint32_t *prefix, uint32_t n, double *q);   /* vocab weights */
  void (*p)(void *ctx, const uint32_t *prefix, uint32_t n, uint64_t *p); /* vocab counts, sum FORAY_RULE_P */
};
/* Appends 1 .. gamma + 1 tokens to seq[n] (room for them behind) and returns how many. work: bytes of
 * foray_rule_work_bytes(r). */
uint32_t foray_rule_play(const struct foray_rule_round *r, const struct foray_chance *c, uint32_t *seq,
                         uint32_t n, void *work);
uint64_t foray_rule_work_bytes(const struct foray_rule_round *r);

#endif
