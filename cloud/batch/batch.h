/* batch/batch.h - the scheduler: all sessions of a server, and one engine pass after another made of
 * whatever waits (drafts, plain steps, slices of prompts, scores).
 *
 *   engine thread:  while (!stop) { foray_batch_wait(b, -1); while (foray_batch_step(b)) ; }
 *   loop thread:    foray_batch_submit(b, &cmd); ... on notify: while (foray_batch_result(b, &r)) ...
 *
 * Commands and results are queues; everything else belongs to the thread that calls step. Single-threaded use
 * (tests, virtual time) is submit, step, result in a row. Sessions never touch each other's tokens: logits
 * depend on a session's own prefix, whatever shares the pass. A session whose connection ends stays for
 * ttl_ns so that it can be resumed. */
#ifndef FORAY_BATCH_BATCH_H
#define FORAY_BATCH_BATCH_H

#include "batch/target.h"
#include "core/hist.h"
#include "journal/journal.h"

struct foray_batch; /* opaque */

struct foray_batch_opts {
  uint32_t sessions_max;         /* all together; 0: 1024. The oldest detached one makes room */
  uint32_t rows_max;             /* logit rows of a pass; 0: 64 */
  uint32_t tokens_max, slice;    /* positions of a pass, prompt slice; 0: 512, 256 */
  int64_t ttl_ns;                /* of a detached session; 0: 10 min */
  uint32_t beside;               /* prompt positions of a pass in which others make choices; 0: 64 */
  uint32_t items_max;            /* sessions of a pass; 0: 1024 */
  uint32_t backlog_max;          /* prompt tokens waiting to be read; more are refused; 0: 262144 */
  int32_t prefix_entries;        /* beginnings kept for others of the same tenant; 0: 128; -1: none */
  int64_t deadline_ns;           /* a session that waits longer goes before those of its class; 0: 0.5 s */
  int64_t age_ns;                /* waiting so long counts as one priority class; 0: 5 s */
  struct foray_journal *journal; /* commit log, borrowed; NULL: none */
  int64_t (*now)(void *arg);     /* clock; NULL: the monotonic one */
  void (*random)(void *arg, void *p, size_t n); /* NULL: the system's */
  void (*notify)(void *arg);                    /* results wait (called by the engine thread); may be NULL */
  void *arg;
};

enum foray_batch_kind {
  FORAY_BATCH_OPEN, /* result OPENED or FAILED */
  FORAY_BATCH_RESUME,
  FORAY_BATCH_DRAFT,
  FORAY_BATCH_CANCEL,
  FORAY_BATCH_CLOSE,
  FORAY_BATCH_SCORE,
  FORAY_BATCH_DETACH, /* the connection ended */
  /* results */
  FORAY_BATCH_OPENED,
  FORAY_BATCH_VERDICT,
  FORAY_BATCH_STATE,
  FORAY_BATCH_SCORED,
  FORAY_BATCH_FAILED
};

/* A command or a result. submit copies request and ids. Results own ids and logp until
 * foray_batch_msg_free. */
struct foray_batch_msg {
  enum foray_batch_kind kind;
  uint64_t conn;    /* > 0, chosen by the caller, never used twice */
  uint32_t session; /* handle, or score request */
  bool is_request;  /* FAILED: of a score request */
  const struct foray_gen_request *request;
  uint32_t *ids;
  uint32_t n_ids;
  uint32_t round, epoch, start, accepted, have;
  enum foray_finish finish;
  uint64_t id;
  uint8_t secret[FORAY_SESSION_SECRET_BYTES];
  int64_t verify_ns, queue_ns;
  double *logp;  /* SCORED; VERDICT of a request with logprobs k + 1: [k + 1] of its one token */
  uint32_t *top; /* [k] */
  uint32_t n_logp;
  struct foray_exit_counts exits; /* CLOSE */
  bool unlogged;                  /* OPEN: nobody can resume it, so the commit log needs not know it */
  uint64_t tenant;                /* OPEN, RESUME: who shares with whom; 0: everybody without a name */
  double weight;                  /* OPEN: share of the tenant where not all fit; 0: 1 */
  uint32_t priority;              /* OPEN: class, 0 first */
  uint32_t retry_ms;              /* FAILED with E_BUSY: worth another try after this time */
  bool last;
  enum foray_status code;
  char text[128];
};
void foray_batch_msg_free(struct foray_batch_msg *m);

/* target is borrowed. */
enum foray_status foray_batch_create(const struct foray_target *target, const struct foray_batch_opts *o,
                                     struct foray_batch **out, struct foray_err *err) FORAY_NODISCARD;
/* Before the first step: a session of an earlier process, as the commit log has it; it waits for RESUME.
 * Takes j->request (set to NULL) on success. */
enum foray_status foray_batch_restore(struct foray_batch *b, struct foray_journal_session *j,
                                      struct foray_err *err) FORAY_NODISCARD;
void foray_batch_destroy(struct foray_batch *b);

/* Any thread. FORAY_E_NOMEM. */
enum foray_status foray_batch_submit(struct foray_batch *b,
                                     const struct foray_batch_msg *cmd) FORAY_NODISCARD;
/* Any thread; false: nothing there. */
bool foray_batch_result(struct foray_batch *b, struct foray_batch_msg *out);

/* Engine thread: takes the commands and runs at most one pass. False: there was nothing to do. */
bool foray_batch_step(struct foray_batch *b);
/* Engine thread: sleeps until there are commands, work, or foray_batch_wake was called. */
void foray_batch_wait(struct foray_batch *b);
void foray_batch_wake(struct foray_batch *b);

struct foray_batch_stats {
  uint64_t passes, rows, tokens, rounds, stale_rounds, drafted, accepted, generated;
  uint64_t evictions; /* sessions that lost their keys and values to others */
  uint64_t opened, resumed, refused, restored;
  uint64_t accepted_at[FORAY_PROTO_DRAFT_MAX]; /* rounds whose draft i was accepted */
  uint64_t exit_drafted[FORAY_PROTO_EXITS_MAX], exit_accepted[FORAY_PROTO_EXITS_MAX]; /* edges' own reports */
  uint64_t prefix_queries, prefix_hits; /* prompt tokens looked up, and found */
  int64_t engine_ns, sample_ns, own_ns; /* in passes of the target, in its sampler, in the scheduler itself */
  uint32_t sessions, attached, waiting; /* held; with a connection; ready for the next pass */
  struct foray_hist fill, rows_hist, verify,
      queue; /* sessions and rows a pass; seconds a pass, seconds waited */
};
/* Any thread: as of the last step. */
void foray_batch_stats_get(struct foray_batch *b, struct foray_batch_stats *s);

#endif
