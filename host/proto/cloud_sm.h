/* proto/cloud_sm.h - the cloud's half of one connection, without I/O: it checks everything that the
 * edge says and hands it on as events; what the cloud answers goes through foray_cloud_send_*.
 *
 * The machine knows the connection only. Sessions outlive connections: they belong to the scheduler
 * (cloud/batch), and cloud/batch/hub.h joins the two. Order: Hello first, nothing else before it; the owner
 * answers with progress and then foray_cloud_send_welcome, which also checks the hashes that the edge asked
 * for. Requests that come before Welcome was sent are refused.
 *
 * Times are nanoseconds of any monotonic clock. Not thread-safe. */
#ifndef FORAY_PROTO_CLOUD_SM_H
#define FORAY_PROTO_CLOUD_SM_H

#include "proto/params.h"

struct foray_cloud; /* opaque: one connection */

struct foray_cloud_config {
  int64_t hello_ns;                             /* from the start to Hello; 0: 10 s */
  int64_t ping_ns;                              /* idle time before a ping; 0: 5 s */
  int64_t dead_ns;                              /* silence after which the connection is dead; 0: 20 s */
  uint32_t sessions_max, draft_max, rounds_max; /* 0: the limits of params.h */
};

/* The identity that Welcome carries. */
struct foray_cloud_identity {
  uint8_t tokenizer_sha256[32], model_sha256[32];
  const char *model_name;
  uint32_t vocab, ctx;
  uint64_t instance; /* random per process */
};

enum foray_cloud_event_kind {
  FORAY_CLOUD_HELLO,  /* answer with progress or welcome; text: the edge's token, "" for none */
  FORAY_CLOUD_OPEN,   /* request, generated */
  FORAY_CLOUD_RESUME, /* id, secret, have */
  FORAY_CLOUD_DRAFT,  /* round, epoch, start, ids */
  FORAY_CLOUD_CANCEL,
  FORAY_CLOUD_CLOSE,
  FORAY_CLOUD_SCORE,  /* request id in `session`, ids, start = first */
  FORAY_CLOUD_GOODBYE /* the edge leaves; text */
};

/* Pointers are borrowed until the next foray_cloud_event or foray_cloud_destroy. */
struct foray_cloud_event {
  enum foray_cloud_event_kind kind;
  uint32_t session; /* handle of this connection */
  const struct foray_gen_request *request;
  const uint32_t *ids; /* generated tokens, drafted ids, or ids to score */
  uint32_t n_ids;
  uint32_t round, epoch, start;
  uint64_t id;
  const uint8_t *secret; /* FORAY_SESSION_SECRET_BYTES */
  uint32_t have;
  struct foray_exit_counts exits; /* CLOSE */
  const char *text;
};

struct foray_cloud_verdict {
  uint32_t session, round;
  uint32_t accepted;   /* of the round; round 0: generated tokens before ids */
  const uint32_t *ids; /* the target's tokens after the accepted ones */
  uint32_t n_ids;
  enum foray_finish finish;
  int64_t verify_ns, queue_ns;
};

enum foray_status foray_cloud_create(const struct foray_cloud_config *cfg, int64_t now,
                                     struct foray_cloud **out, struct foray_err *err) FORAY_NODISCARD;
void foray_cloud_destroy(struct foray_cloud *c);

/* Not OK: the peer broke the protocol. An Error frame that says so is in the output: send it, then close. */
enum foray_status foray_cloud_feed(struct foray_cloud *c, const uint8_t *p, size_t n, int64_t now,
                                   struct foray_err *err) FORAY_NODISCARD;
bool foray_cloud_event(struct foray_cloud *c, struct foray_cloud_event *ev);
size_t foray_cloud_output(const struct foray_cloud *c, const uint8_t **p);
void foray_cloud_output_consumed(struct foray_cloud *c, size_t n);
int64_t foray_cloud_deadline(const struct foray_cloud *c);
enum foray_status foray_cloud_tick(struct foray_cloud *c, int64_t now, struct foray_err *err) FORAY_NODISCARD;

/* Each returns FORAY_E_LIMIT when the peer reads too slowly: close the connection (sessions survive).
 * Sending for a handle that the edge closed meanwhile is dropped and FORAY_OK. */
enum foray_status foray_cloud_send_progress(struct foray_cloud *c, const char *what, uint64_t done,
                                            uint64_t total) FORAY_NODISCARD;
/* FORAY_E_MISMATCH: the edge asked for another tokenizer or model; an Error frame is in the output. */
enum foray_status foray_cloud_send_welcome(struct foray_cloud *c, const struct foray_cloud_identity *id,
                                           struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_cloud_send_opened(struct foray_cloud *c, uint32_t session, uint64_t id,
                                          const uint8_t secret[FORAY_SESSION_SECRET_BYTES]) FORAY_NODISCARD;
enum foray_status foray_cloud_send_verdict(struct foray_cloud *c,
                                           const struct foray_cloud_verdict *v) FORAY_NODISCARD;
enum foray_status foray_cloud_send_state(struct foray_cloud *c, uint32_t session, uint32_t have,
                                         const uint32_t *ids, uint32_t n,
                                         enum foray_finish finish) FORAY_NODISCARD;
enum foray_status foray_cloud_send_scored(struct foray_cloud *c, uint32_t request, uint32_t first,
                                          const double *logp, uint32_t n, bool last) FORAY_NODISCARD;
/* Ends the session (is_request: the score request) for this connection. retry_ms: with FORAY_E_BUSY. */
enum foray_status foray_cloud_send_failed(struct foray_cloud *c, bool is_request, uint32_t id,
                                          enum foray_status code, const char *text,
                                          uint32_t retry_ms) FORAY_NODISCARD;
/* Sessions and score requests that are open on this connection. */
uint32_t foray_cloud_busy(const struct foray_cloud *c);
/* Ends the connection with an Error frame (scope: connection). */
void foray_cloud_refuse(struct foray_cloud *c, enum foray_status code, const char *text);
void foray_cloud_goodbye(struct foray_cloud *c, const char *text);

#endif
