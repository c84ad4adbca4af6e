/* proto/edge_sm.h - the edge's half of the protocol, without I/O: bytes and time come in as arguments.
 *
 *   foray_edge_create(&cfg, &sm, &err);
 *   foray_edge_link_up(sm, now);                        // a byte stream to the cloud exists
 *   foray_edge_open(sm, &request, &session, &err);      // may be called before the link is up
 *   loop:
 *     n = foray_edge_output(sm, &p); ... write(p, n) ...; foray_edge_output_consumed(sm, written);
 *     foray_edge_feed(sm, bytes_read, n, now, &err);    // not OK: drop the link, then link_down
 *     foray_edge_tick(sm, now, &err);                   // at foray_edge_deadline(sm)
 *     while (foray_edge_event(sm, &ev)) ...             // OPENED, TOKENS, RESUMED, FAILED, ...
 *     foray_edge_draft(sm, session, view.n, ids, n, now, &round, &err);
 *
 * The machine keeps the committed tokens of every session. When a link ends, sessions stay: link_up on a new
 * stream resumes each at the last committed token, and a cloud that does not know a session any more (it was
 * restarted) is given the whole committed prefix; with the same seed it goes on with the same tokens.
 *
 * Rounds. A round is a list of guessed ids for consecutive positions. Several may be in flight, the
 * next one starting where the one before ends. What a verdict commits is appended to the session; when it
 * contradicts any guess that is still in flight, all of them are dropped at both ends (`diverged`, and the
 * session's epoch counts up) and the drafter starts again at view.n. Otherwise the rounds after it stay
 * valid. An empty round asks for one token without a guess.
 *
 * Times are nanoseconds of any monotonic clock. Not thread-safe. No function blocks. */
#ifndef FORAY_PROTO_EDGE_SM_H
#define FORAY_PROTO_EDGE_SM_H

#include "proto/params.h"

struct foray_edge; /* opaque */

struct foray_edge_config {
  const char *agent;               /* NULL: "foray/<version>" */
  const char *token;               /* access token, copied; NULL: none */
  const uint8_t *tokenizer_sha256; /* 32 bytes that the cloud must have; NULL: any */
  const uint8_t *model_sha256;     /* the same for the model file */
  uint64_t abi_hash;               /* of the device, 0: none */
  int64_t handshake_ns;            /* from link_up to Welcome, restarted by each Progress; 0: 30 s */
  int64_t ping_ns;                 /* idle time before a ping is sent; 0: 5 s */
  int64_t dead_ns;                 /* silence after which the link counts as dead; 0: 20 s */
  size_t memory_max;               /* bytes that all sessions may hold; 0: 256 MiB */
};

/* What the cloud said of itself at Welcome. Borrowed pointers live as long as the machine. */
struct foray_edge_server {
  uint32_t version, vocab, ctx, draft_max, rounds_max, sessions_max;
  uint64_t features, instance;
  char agent[64], model_name[128];
  uint8_t tokenizer_sha256[32], model_sha256[32];
};

struct foray_edge_stats {
  uint64_t bytes_up, bytes_down; /* stream bytes of all links, framing included */
  uint64_t frames_up, frames_down;
  uint64_t links, resumes, reopens; /* streams used, sessions resumed, sessions opened anew */
  int64_t rtt_ns, rtt_min_ns;       /* smoothed and least round trip of pings; 0: not measured yet */
};

enum foray_edge_event_kind {
  FORAY_EDGE_PROGRESS, /* the cloud is loading: done, total, text */
  FORAY_EDGE_READY,    /* Welcome came: foray_edge_server_info */
  FORAY_EDGE_OPENED,   /* session exists at the cloud (also after it was opened anew) */
  FORAY_EDGE_TOKENS,   /* a verdict, or tokens of plain mode */
  FORAY_EDGE_RESUMED,  /* after link_up: in flight rounds are gone, n_new tokens came along; draft on */
  FORAY_EDGE_SCORED,   /* a piece of a score answer */
  FORAY_EDGE_FAILED,   /* a session or score request failed for good: code, text */
  FORAY_EDGE_LINK_LOST /* link_down was called, or the cloud said goodbye: text; drop the stream */
};

/* ids and logp borrow memory that lives until the next foray_edge_event call. */
struct foray_edge_event {
  enum foray_edge_event_kind kind;
  uint32_t session; /* OPENED, TOKENS, RESUMED, FAILED */
  uint32_t request; /* SCORED, FAILED of a score request (is_request) */
  bool is_request;
  /* TOKENS, RESUMED */
  uint32_t round;      /* 0 in plain mode and for RESUMED */
  uint32_t n_drafted;  /* ids in that round */
  uint32_t n_accepted; /* of them equal to the target's choice */
  uint32_t first;      /* generated index of the first new token */
  const uint32_t *ids; /* n_new tokens newly committed: accepted ones first, then the target's own */
  uint32_t n_new;
  uint32_t n_free; /* trailing ones of n_new that were not part of this round's accepted ids */
  bool diverged;   /* guesses in flight were dropped; start again at the session's end */
  enum foray_finish finish;
  int64_t verify_ns, queue_ns; /* at the cloud, resolution 0.1 ms */
  int64_t rtt_ns;              /* send of the round to its verdict; 0 in plain mode */
  /* PROGRESS */
  uint64_t done, total;
  /* SCORED */
  const double *logp;
  uint32_t n_logp, logp_first;
  bool last;
  /* FAILED, LINK_LOST, PROGRESS */
  enum foray_status code;
  uint32_t retry_ms; /* FAILED with FORAY_E_BUSY: worth another try after this time; 0: unknown */
  const char *text;  /* never NULL */
};

/* A session as the edge knows it; pointers are borrowed until the next call that may commit. */
struct foray_edge_view {
  const uint32_t *tokens; /* prompt, then generated */
  uint32_t n_prompt, n_generated;
  uint32_t n_guessed; /* ids in flight beyond n_generated; the next round starts at n_generated + n_guessed */
  uint32_t rounds;    /* in flight */
  uint32_t epoch;
  bool open; /* the cloud knows it on this link: rounds may be sent */
  enum foray_finish finish;
};

enum foray_status foray_edge_create(const struct foray_edge_config *cfg, struct foray_edge **out,
                                    struct foray_err *err) FORAY_NODISCARD;
void foray_edge_destroy(struct foray_edge *e); /* NULL is fine */

void foray_edge_link_up(struct foray_edge *e, int64_t now);
void foray_edge_link_down(struct foray_edge *e, const char *why, int64_t now);
bool foray_edge_is_ready(const struct foray_edge *e); /* Welcome came on this link */

/* Not OK: the stream cannot go on (protocol violation, wrong tokenizer, ...). Nothing of a session is lost.
 * FORAY_E_MISMATCH and FORAY_E_UNSUPPORTED will not go away by trying again. */
enum foray_status foray_edge_feed(struct foray_edge *e, const uint8_t *p, size_t n, int64_t now,
                                  struct foray_err *err) FORAY_NODISCARD;
/* Bytes to send; borrowed until the next call on e. */
size_t foray_edge_output(const struct foray_edge *e, const uint8_t **p);
void foray_edge_output_consumed(struct foray_edge *e, size_t n);
/* When foray_edge_tick wants to be called; INT64_MAX: never. */
int64_t foray_edge_deadline(const struct foray_edge *e);
enum foray_status foray_edge_tick(struct foray_edge *e, int64_t now, struct foray_err *err) FORAY_NODISCARD;
bool foray_edge_event(struct foray_edge *e, struct foray_edge_event *ev);

enum foray_status foray_edge_open(struct foray_edge *e, const struct foray_gen_request *r, uint32_t *session,
                                  struct foray_err *err) FORAY_NODISCARD;
/* start = generated index of ids[0], which must be n_generated + n_guessed of the view. n may be 0 only with
 * nothing in flight. FORAY_E_BUSY: too many rounds in flight; FORAY_E_STATE: not open now, or finished. */
enum foray_status foray_edge_draft(struct foray_edge *e, uint32_t session, uint32_t start,
                                   const uint32_t *ids, uint32_t n, int64_t now, uint32_t *round,
                                   struct foray_err *err) FORAY_NODISCARD;
/* The cloud answers with a verdict whose finish is CANCELLED (or an earlier reason). */
enum foray_status foray_edge_cancel(struct foray_edge *e, uint32_t session,
                                    struct foray_err *err) FORAY_NODISCARD;
/* Forgets the session here and at the cloud. No event follows. */
void foray_edge_close(struct foray_edge *e, uint32_t session);
/* The same with a report; counts may be NULL. */
void foray_edge_close_with(struct foray_edge *e, uint32_t session, const struct foray_exit_counts *counts);
enum foray_status foray_edge_view(const struct foray_edge *e, uint32_t session,
                                  struct foray_edge_view *v) FORAY_NODISCARD;

/* Log-probabilities under the target (no sampler): value i of the answers, counted from `first`, is
 * log p(ids[i + 1] | ids[0..i]); the last one is for ids[n - 1]. Needs a ready link; lost with it (FAILED).
 */
enum foray_status foray_edge_score(struct foray_edge *e, const uint32_t *ids, uint32_t n, uint32_t first,
                                   uint32_t *request, struct foray_err *err) FORAY_NODISCARD;

/* Says goodbye; the caller sends the output and ends the stream. */
void foray_edge_goodbye(struct foray_edge *e, const char *why);

const struct foray_edge_server *foray_edge_server_info(const struct foray_edge *e); /* NULL before READY */
void foray_edge_stats_get(const struct foray_edge *e, struct foray_edge_stats *s);

#endif
