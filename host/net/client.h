/* net/client.h - the edge machine of proto/edge_sm.h on a real byte stream.
 *
 *   struct foray_client_opts o = {.uri = "spawn:smollm2-135m-instruct"};
 *   foray_client_open(&o, &c, &err);                       // connects in the background
 *   foray_client_request(c, &request, &session, &err);
 *   while (foray_client_wait(c, -1, &ev, &err) == FORAY_OK)  // the next event
 *     if (ev.kind == FORAY_EDGE_TOKENS) ...
 *   foray_client_close(c);
 *
 * URIs: "tls:HOST:PORT", "tcp:HOST:PORT", "HOST:PORT" (TLS unless HOST is this machine), "unix:PATH", "fd:N"
 * (a connected stream, taken), "spawn:MODEL" (starts forayd from the folder of the running program, else from
 * PATH, on a socket pair; it dies with this process). A lost link is made anew with growing pauses, for
 * spawn: by a new forayd, until retry_max_ms have passed without a Welcome; then wait returns FORAY_E_NET.
 *
 * One thread owns a client; only foray_client_interrupt may be called from elsewhere (also from a signal
 * handler). The library ignores SIGPIPE per call and installs no handler. */
#ifndef FORAY_NET_CLIENT_H
#define FORAY_NET_CLIENT_H

#include "proto/edge_sm.h"

struct foray_client; /* opaque */

struct foray_client_opts {
  const char *uri;
  struct foray_edge_config edge;
  /* Folder with ca.crt, and client.crt + client.key or a file `token` (foray enroll makes it); NULL:
   * $XDG_CONFIG_HOME/foray/tls. Used for TLS; its token also on plain links. */
  const char *tls_dir;
  int64_t retry_max_ms; /* 0: 30 s; negative: no second try */
  /* spawn: only */
  const char *spawn_program;     /* NULL: found as above */
  const char *const *spawn_args; /* NULL-terminated, after `-m MODEL --fd N`; NULL: none */
  bool spawn_quiet;              /* its stderr goes to /dev/null */
};

enum foray_status foray_client_open(const struct foray_client_opts *o, struct foray_client **out,
                                    struct foray_err *err) FORAY_NODISCARD;
/* Says goodbye, waits at most 200 ms for it to be sent, closes; a spawned forayd is reaped. NULL is fine. */
void foray_client_close(struct foray_client *c);

/* Runs the loop until there is an event, at most timeout_ms (negative: no limit; 0: just looks). FORAY_OK
 * with *ev filled, FORAY_E_TIMEOUT, FORAY_E_CANCELLED (interrupted), or the error that ends the client. */
enum foray_status foray_client_wait(struct foray_client *c, int timeout_ms, struct foray_edge_event *ev,
                                    struct foray_err *err) FORAY_NODISCARD;
/* Waits until the cloud is ready; `progress` (may be NULL) sees FORAY_EDGE_PROGRESS events. */
enum foray_status foray_client_wait_ready(struct foray_client *c, int timeout_ms,
                                          void (*progress)(const struct foray_edge_event *, void *),
                                          void *user, struct foray_err *err) FORAY_NODISCARD;
/* Makes the present or next wait return FORAY_E_CANCELLED. Async-signal-safe. */
void foray_client_interrupt(struct foray_client *c);

/* The machine's calls, followed by an attempt to write without blocking. */
enum foray_status foray_client_request(struct foray_client *c, const struct foray_gen_request *r,
                                       uint32_t *session, struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_client_draft(struct foray_client *c, uint32_t session, uint32_t start,
                                     const uint32_t *ids, uint32_t n, uint32_t *round,
                                     struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_client_cancel(struct foray_client *c, uint32_t session,
                                      struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_client_score(struct foray_client *c, const uint32_t *ids, uint32_t n, uint32_t first,
                                     uint32_t *request, struct foray_err *err) FORAY_NODISCARD;
/* counts: what the session drafted by exit, for the operator; may be NULL. */
void foray_client_end(struct foray_client *c, uint32_t session, const struct foray_exit_counts *counts);

/* For foray_edge_view, _server_info, _stats_get. Do not feed it. */
struct foray_edge *foray_client_edge(struct foray_client *c);
/* Process id of the spawned forayd, 0: none (tests kill it). */
int foray_client_spawned_pid(const struct foray_client *c);

#endif
