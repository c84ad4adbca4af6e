/* rt/session.h - one generation: drafts from the edge, verdicts from the cloud, tokens to the caller.
 *
 *   struct foray_gen_params p = foray_gen_defaults();
 *   p.max_tokens = 128;
 *   struct foray_draft_source src = foray_drafter_source(drafter);    // or NULL below: the cloud decodes
 * alone struct foray_gen_stats st; enum foray_status s = foray_generate(prompt, n, &p, &src, &link, on_token,
 * me, &st, &err);
 *
 * What comes out is the cloud's own choice at every position, whatever the drafter does: a draft can only
 * make it come sooner (DESIGN 8, coupled). The transport is a vtable (struct foray_link), so that the same
 * driver runs over the real protocol, over a scripted toy target in tests, and in virtual time.
 *
 * Thread rule: a generation runs in the caller's thread; callbacks are called from it. */
#ifndef FORAY_RT_SESSION_H
#define FORAY_RT_SESSION_H

#include "proto/params.h" /* enum foray_finish */
#include "rt/drafter.h"

enum { FORAY_GEN_BLOCK_MAX = FORAY_POLICY_BLOCK_MAX, FORAY_GEN_VERDICT_MAX = 64 };

/* ---------------------------------------------------------------- what drafts */
/* Borrowed vtable; see rt/drafter.h for the contract of each call. */
struct foray_draft_source {
  void *ctx;
  enum foray_status (*sync)(void *ctx, const uint32_t *tokens, uint32_t n, struct foray_err *err);
  enum foray_status (*draft)(void *ctx, const struct foray_draft_params *p, struct foray_draft *out,
                             uint32_t *n_out, struct foray_err *err);
  /* Takes the synced tokens through all layers; *bytes = what that streamed. May be NULL: the first draft
   * does it. */
  enum foray_status (*prefill)(void *ctx, uint64_t *bytes, struct foray_err *err);
  uint32_t n_exits, ctx_max;
};
struct foray_draft_source foray_drafter_source(struct foray_drafter *d);

/* ---------------------------------------------------------------- what verifies */
/* The answer to one proposal, or a part of it. */
struct foray_verdict {
  uint32_t at;       /* position of the first token that this verdict settles */
  uint32_t accepted; /* the first `accepted` proposed tokens from `at` on are the target's choices */
  uint32_t n;        /* tokens behind them, the target's own: ids[n] */
  uint32_t ids[FORAY_GEN_VERDICT_MAX];
  bool more; /* further verdicts belong to the same proposal (cloud decoding alone) */
  enum foray_finish finish;
  float verify_s; /* seconds the cloud computed for this; 0 = it did not say */
};

struct foray_link {
  void *ctx;
  /* Proposes ids[n] for the positions from `at` on (at == tokens settled so far). n == 0 asks for the next
   * token only; alone > 0 (then n == 0) asks the cloud to decode up to `alone` tokens by itself. */
  enum foray_status (*propose)(void *ctx, uint32_t at, const uint32_t *ids, uint32_t n, uint32_t alone,
                               struct foray_err *err);
  /* Waits for a verdict at most timeout_s seconds (0: only looks; < 0: as long as it takes). *ready tells
   * whether *out was filled. An error ends the generation. */
  enum foray_status (*wait)(void *ctx, double timeout_s, struct foray_verdict *out, bool *ready,
                            struct foray_err *err);
  /* Bytes so far of this session; may be NULL. */
  void (*bytes)(void *ctx, uint64_t *up, uint64_t *down);
  /* Tells the cloud to stop; may be NULL. Called once when a token callback asks for it. */
  void (*cancel)(void *ctx);
};

/* ---------------------------------------------------------------- generation */
struct foray_gen_params {
  uint32_t max_tokens;
  float temperature; /* of the drafter; the target's sampler belongs to the link's side */
  uint64_t seed;     /* the session's, the same as the target's */
  float exit_top[FORAY_DRAFT_EXITS_MAX];
  uint32_t check; /* foray_draft_params.check */
  struct foray_policy_cfg policy;
  struct foray_policy_state
      *state;     /* carried over from generation to generation; NULL: a fresh one. In and out */
  uint32_t ahead; /* tokens to draft along the guessed continuation while a verdict is under way; 0: wait */
  uint32_t branches; /* runners-up to draft behind while waiting (<= FORAY_GEN_BRANCHES); 0: none */
  const uint32_t
      *eog; /* [n_eog] end-of-generation ids: nothing is drafted behind one. Borrowed; may be NULL */
  uint32_t n_eog;
  /* Sees every event that the policy sees (may be NULL): a recorded trace replays any policy (rt/policy.h),
   * and says per drafted token what the device knew and whether the target agreed. */
  void (*trace)(void *me, const struct foray_policy_event *ev);
};
enum { FORAY_GEN_BRANCHES = 4 };
struct foray_gen_params foray_gen_defaults(void);

enum foray_token_source {
  FORAY_TOKEN_DRAFT,      /* drafted at `exit` and accepted */
  FORAY_TOKEN_CORRECTION, /* the target's own, where a draft said something else */
  FORAY_TOKEN_BONUS,      /* the target's own behind a block that was all right */
  FORAY_TOKEN_PLAIN,      /* the target's own, nothing was drafted */
};

struct foray_gen_token {
  uint32_t id, position;
  enum foray_token_source source;
  uint32_t exit;          /* DRAFT, CORRECTION: where the drafted token left the model */
  uint32_t rejected;      /* CORRECTION: the id that was drafted */
  struct foray_conf conf; /* DRAFT, CORRECTION */
};

/* Return false to end the generation (FORAY_FINISH_CANCEL). */
typedef bool foray_gen_on_token(void *me, const struct foray_gen_token *t);

struct foray_gen_stats {
  uint32_t tokens,
      verifications;          /* passes of the target: proposals answered, and each token it decoded alone */
  uint32_t drafted, accepted; /* sent to the cloud; found right */
  uint32_t exit_drafted[FORAY_DRAFT_EXITS_MAX + 1], exit_accepted[FORAY_DRAFT_EXITS_MAX + 1];
  uint32_t exit_judged[FORAY_DRAFT_EXITS_MAX + 1]; /* accepted, or the first of its block that was not */
  uint32_t ahead_drafted,
      ahead_used;        /* drafted while waiting; of those, sent later without being drafted again */
  uint32_t branch_hits;  /* verdicts that a runner-up had foreseen */
  uint64_t draft_bytes;  /* streamed from device memory for all drafts, wasted ones too */
  uint64_t prompt_bytes; /* the same for the prompt, once */
  uint64_t bytes_up, bytes_down;
  double seconds, draft_seconds, wait_seconds;
  enum foray_finish finish;
};

/* prompt is borrowed for the call. source may be NULL. A drafter's failure is an error like a link's: the
 * caller may go on without a source. */
enum foray_status foray_generate(const uint32_t *prompt, uint32_t n_prompt, const struct foray_gen_params *p,
                                 const struct foray_draft_source *source, const struct foray_link *link,
                                 foray_gen_on_token *on_token, void *me, struct foray_gen_stats *stats,
                                 struct foray_err *err) FORAY_NODISCARD;

#endif
