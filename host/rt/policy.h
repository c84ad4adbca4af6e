/* rt/policy.h - how many tokens to draft, and when to stop. A policy is a pure function: the same
 * configuration and the same events give the same decisions, so that a recorded trace replays any policy.
 * No clock, no randomness, no allocation; times come in as events.
 *
 *   struct foray_policy_cfg cfg = foray_policy_default(FORAY_POLICY_GOODPUT);
 *   struct foray_policy_state s = foray_policy_start(&cfg);
 *   for (;;) {                                          // one round
 *     s = foray_policy_next(&cfg, &s, &(struct foray_policy_event){.type = FORAY_POLICY_EV_BLOCK});
 *     struct foray_policy_action a = foray_policy_decide(&cfg, &s);
 *     while (a.kind == FORAY_POLICY_DRAFT) {            // a.max more tokens may be drafted in one doorbell
 *       ... draft one token with confidence c ...
 *       s = foray_policy_next(&cfg, &s, &(struct foray_policy_event){.type = FORAY_POLICY_EV_DRAFT, .conf =
 * &c, .n = 1}); a = foray_policy_decide(&cfg, &s);
 *     }
 *     ... send, wait ...
 *     s = foray_policy_next(&cfg, &s, &(struct foray_policy_event){
 *           .type = FORAY_POLICY_EV_VERDICT, .conf = block, .n = drafted, .accepted = accepted});
 *   }
 *
 * Lossless order (DESIGN 7): a decision looks at the prefix and at tokens that stay in the block; a sampled
 * token is never dropped because its probability is low. Thread rule: plain data. */
#ifndef FORAY_RT_POLICY_H
#define FORAY_RT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum { FORAY_POLICY_BLOCK_MAX = 32, FORAY_LOGIT_FEATURES = 8 };

/* What the device says about the distribution a token was drawn from. */
struct foray_conf {
  float top;       /* largest probability, 0..1 */
  float margin;    /* largest minus second, 0..1 */
  float entropy;   /* nats */
  float aleatoric; /* -sum (a_k/a_0)(psi(a_k+1)-psi(a_0+1)) over the evidence a of the top candidates; 0 =
                      unknown */
  float epistemic; /* K/(a_0+K); 0 = unknown */
  float depth;     /* share of the layers that ran for this token, (0..1] */
};

enum foray_policy_kind {
  FORAY_POLICY_FIXED,    /* always max */
  FORAY_POLICY_MAXPROB,  /* stop after a token with top < threshold */
  FORAY_POLICY_MARGIN,   /* stop after a token with margin < threshold */
  FORAY_POLICY_ENTROPY,  /* AdaEDL: stop when 1 - sqrt(0.2 entropy) < eta, eta adapted as below */
  FORAY_POLICY_EVIDENCE, /* stop when 1 - aleatoric*epistemic (clamped) < threshold */
  FORAY_POLICY_ADAPTIVE, /* Draft & Verify: max-prob with eta moved towards a target acceptance */
  FORAY_POLICY_GOODPUT,  /* tokens per second: knows RTT, draft and verify time; may switch drafting off */
  FORAY_POLICY_KINDS,
};

struct foray_policy_cfg {
  enum foray_policy_kind kind;
  uint32_t min, max; /* drafts a block, 0 <= min <= max <= FORAY_POLICY_BLOCK_MAX */
  float threshold;   /* MAXPROB, MARGIN, EVIDENCE; start value of eta for ENTROPY and ADAPTIVE */
  float target;      /* acceptance that ENTROPY and ADAPTIVE steer to (.9) */
  bool learn; /* GOODPUT: judge tokens by the online logistic model instead of the raw top probability */
  bool may_switch_off;  /* GOODPUT: FORAY_POLICY_OFF allowed */
  uint32_t probe_every; /* rounds after which a switched-off policy tries one block again */
};

/* Online logistic regression: P(accepted | confidence). Plain data. */
struct foray_logit {
  float w[FORAY_LOGIT_FEATURES];
  float g2[FORAY_LOGIT_FEATURES]; /* AdaGrad's sums of squared gradients */
  uint32_t seen;
};
void foray_logit_start(struct foray_logit *m); /* prior: P = top probability */
float foray_logit_predict(const struct foray_logit *m, const struct foray_conf *c, uint32_t k);
void foray_logit_learn(struct foray_logit *m, const struct foray_conf *c, uint32_t k, bool accepted);

/* Seconds. Unknown = 0; each is a running mean of what TIMES events brought. */
struct foray_policy_times {
  float rtt;        /* network and queueing of one round, without verification */
  float draft;      /* per drafted token */
  float verify;     /* one verification pass with one position */
  float verify_tok; /* more for each further position */
  float plain;      /* per token when the cloud decodes alone, t_ar */
};

struct foray_policy_state {
  struct foray_logit model;
  struct foray_policy_times t;
  float eta;        /* ENTROPY, ADAPTIVE */
  float rate;       /* running acceptance of blocks, .5/.5 */
  float alpha;      /* running acceptance by position, slow */
  uint32_t rounds;  /* verdicts seen */
  uint32_t off_for; /* rounds since switched off; 0 = on */
  float fit[5];     /* running weight and means of n, seconds, n^2, n * seconds of verifications */
  /* the block under way */
  uint32_t k;    /* drafted */
  float survive; /* probability that all k are accepted */
  float expect;  /* expected tokens of the round so far, the extra one included */
  bool stopped;
};

enum foray_policy_event_type {
  FORAY_POLICY_EV_BLOCK,   /* a new block begins */
  FORAY_POLICY_EV_DRAFT,   /* conf[n] tokens were added to the block */
  FORAY_POLICY_EV_VERDICT, /* of conf[n] drafted tokens, `accepted` were right */
  FORAY_POLICY_EV_TIMES,   /* measurements; fields that are 0 are not measured. verify alone is the time of a
                              whole verification of n drafts: its fixed part and slope are fitted */
};
struct foray_policy_event {
  enum foray_policy_event_type type;
  const struct foray_conf *conf; /* borrowed for the call */
  uint32_t n, accepted;
  struct foray_policy_times times;
};

enum foray_policy_action_kind {
  FORAY_POLICY_DRAFT, /* draft up to `max` more tokens before asking again */
  FORAY_POLICY_STOP,  /* send what there is */
  FORAY_POLICY_OFF,   /* drafting does not pay: let the cloud decode alone */
};
struct foray_policy_action {
  enum foray_policy_action_kind kind;
  uint32_t max;
  float stop_top, stop_margin,
      stop_entropy; /* the same rule as device thresholds: stop after a token with top or
                        margin below, or entropy above (0, 0, +large = never) */
};

struct foray_policy_cfg foray_policy_default(enum foray_policy_kind kind);
const char *foray_policy_name(enum foray_policy_kind kind);
/* False for an unknown name. */
bool foray_policy_parse(const char *name, enum foray_policy_kind *out);
struct foray_policy_state foray_policy_start(const struct foray_policy_cfg *cfg);
struct foray_policy_state foray_policy_next(const struct foray_policy_cfg *cfg,
                                            const struct foray_policy_state *s,
                                            const struct foray_policy_event *ev);
struct foray_policy_action foray_policy_decide(const struct foray_policy_cfg *cfg,
                                               const struct foray_policy_state *s);

/* The formulas behind GOODPUT (speculative.md 0 and 2). alpha: acceptance per position, in [0, 1]. */
/* Expected tokens of a round of `gamma` drafts: (1 - alpha^(gamma+1)) / (1 - alpha). */
double foray_goodput_expect(double alpha, uint32_t gamma);
/* Seconds a token of synchronous drafting: (gamma draft + rtt + verify(gamma+1)) / E. */
double foray_goodput_seconds(const struct foray_policy_times *t, double alpha, uint32_t gamma);
/* The longest RTT at which `gamma` drafts still beat plain decoding: (E-1) plain - gamma draft; < 0: never.
 */
double foray_goodput_rtt_max(double alpha, uint32_t gamma, double draft, double plain);
/* Best gamma in 0..max (0: drafting does not pay, compared with t->plain when it is known). */
uint32_t foray_goodput_best(const struct foray_policy_times *t, double alpha, uint32_t max);

#endif
