/* batch/session.h - one generation at the cloud: committed tokens, waiting drafts, and the rule that makes
 * tokens out of logits (coupled verification).
 *
 * The rule: at every position the target's own choice is the output. A guess only says which positions
 * can be computed in the same pass; it is accepted when it equals that choice. Stop strings, end of
 * generation and limits are judged on the target's tokens one by one, so the result is the same for any
 * guesses, none included. Used by the scheduler alone; not thread-safe. */
#ifndef FORAY_BATCH_SESSION_H
#define FORAY_BATCH_SESSION_H

#include "batch/target.h"
#include "core/hash.h"

enum { FORAY_SESSION_GUESS_MAX = FORAY_PROTO_ROUNDS_MAX * FORAY_PROTO_DRAFT_MAX };

struct foray_session_round {
  uint32_t round, start, n; /* start: generated index */
  int64_t arrived;
};

struct foray_session {
  uint64_t id;
  uint8_t secret_sha256[FORAY_SHA256_BYTES]; /* of what RESUME must show */
  bool logged;                               /* the journal has it */
  uint64_t conn;                             /* connection that it belongs to; 0: none now */
  uint32_t handle;
  struct foray_gen_request *req; /* owned */
  void *sampler, *seq;           /* owned, of the target */
  uint32_t cached;               /* tokens whose keys and values seq holds */
  int32_t *tokens;               /* owned: prompt, then generated */
  uint32_t n_prompt, n_gen, cap;
  uint32_t epoch;
  struct foray_session_round rounds[FORAY_PROTO_ROUNDS_MAX];
  uint32_t n_rounds;
  int32_t guess[FORAY_SESSION_GUESS_MAX]; /* guess[0] is for generated index n_gen */
  uint32_t n_guess;
  enum foray_finish finish;
  uint8_t tail[FORAY_PROTO_STOP_BYTES_MAX]; /* last bytes of the text, for stop strings */
  uint32_t n_tail;
  /* req->logprobs k + 1 (plain sessions): of the last token, [k + 1] and [k] */
  double *logp;  /* owned */
  uint32_t *top; /* owned */
  /* the scheduler's: places in its tables */
  struct foray_session *next_handle, *next_id;
  uint32_t at, ready_at, tenant; /* ready_at: place + 1, 0: not ready */
  bool sought, kept; /* beginning looked up since the cache was empty; prompt given to the prefix store */
  bool evicted;      /* lost its keys and values to others once */
  int64_t touched, waiting_since;
};

/* What one pass made of one session: filled by foray_session_advance, in the order of the rounds. */
struct foray_session_verdict {
  uint32_t round, accepted;
  uint32_t first, n; /* own tokens: generated indices first .. first + n - 1 */
  enum foray_finish finish;
  int64_t arrived;
};

/* req is taken on success. generated: tokens that an earlier server committed. */
enum foray_status foray_session_create(const struct foray_target *t, struct foray_gen_request *req,
                                       const uint32_t *generated, uint32_t n_generated,
                                       struct foray_session **out, struct foray_err *err) FORAY_NODISCARD;
void foray_session_destroy(const struct foray_target *t, struct foray_session *s);

/* Takes a round. False: it is stale or contradicts what is committed, and was dropped. */
bool foray_session_draft(struct foray_session *s, uint32_t round, uint32_t epoch, uint32_t start,
                         const uint32_t *ids, uint32_t n, int64_t now);
/* Forgets rounds and epoch: a new connection begins, or the old one ended. */
void foray_session_reset_rounds(struct foray_session *s);

/* Tokens that the sequence lacks before it can make the next choice (>= 1 for a live session). */
static inline uint32_t foray_session_uncached(const struct foray_session *s) {
  return s->n_prompt + s->n_gen - s->cached;
}
/* Guesses that are worth a position: what limits leave of n_guess. */
uint32_t foray_session_useful(const struct foray_session *s, const struct foray_target *t);

/* Tokens of the next pass: `feed` uncached ones, then `guesses` guesses (only when feed reaches the end).
 * Writes feed + guesses ids. */
void foray_session_input(const struct foray_session *s, uint32_t feed, uint32_t guesses, int32_t *out);

/* After that pass. logits: [guesses + 1][vocab] when feed reached the end, else NULL. Commits, rolls the
 * sequence back to what is committed, and writes at most FORAY_PROTO_ROUNDS_MAX + 1 verdicts.
 * FORAY_E_NOMEM: the session must be given up. */
enum foray_status foray_session_advance(struct foray_session *s, const struct foray_target *t, uint32_t feed,
                                        uint32_t guesses, const float *logits,
                                        struct foray_session_verdict *v,
                                        uint32_t *n_verdicts) FORAY_NODISCARD;

#endif
