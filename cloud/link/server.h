/* link/server.h - the hub on real sockets: TCP, Unix and inherited streams over libevent.
 *
 *   foray_server_open(&opts, &srv, &err);       // binds
 *   ... another thread: foray_server_post_progress, then foray_server_post_serve(srv, batch, &identity) ...
 *   foray_server_run(srv, &err);                // until foray_server_stop, or the inherited stream ends
 *   foray_server_close(srv);
 *
 * Functions named post_, notify and stop may be called from any thread (stop and notify from signal handlers
 * too); the others from one. A connection's transport is a bufferevent, so that a TLS one can take its place.
 */
#ifndef FORAY_LINK_SERVER_H
#define FORAY_LINK_SERVER_H

#include "batch/hub.h"

struct foray_server; /* opaque */

struct foray_tls;

/* Limits of a connection, X(name, value, meaning); docs/security.md has them all. */
#define FORAY_LINK_LIMIT_MAP(X)                                                                              \
  X(CONNS, 1024, "connections of edges")                                                                     \
  X(CONNS_PER_ADDRESS, 256, "of them from one address")                                                      \
  X(BYTES_PER_SECOND, 4 << 20, "bytes a second that a connection may send, over a second")                   \
  X(HELLO_MS, 10000, "milliseconds from the connection to the end of Hello, TLS handshake included")

enum {
#define X(name, value, text) FORAY_LINK_##name = value,
  FORAY_LINK_LIMIT_MAP(X)
#undef X
};

struct foray_server_opts {
  const char *host;      /* NULL: no TCP. "127.0.0.1", "::1", a name */
  int port;              /* 0: any free one */
  const char *unix_path; /* NULL: none. A stale socket file is replaced, a live one is an error */
  int fd;                /* -1: none. A connected stream: the server ends with it */
  struct foray_tls *tls; /* of the TCP listener, borrowed; NULL: plain */
  uint32_t conns_max;    /* 0: FORAY_LINK_CONNS */
  uint32_t conns_per_address, bytes_per_second; /* 0: FORAY_LINK_* */
  int listen_fd; /* listening socket of the service manager instead of host, taken; 0: none */
  int drain_ms;  /* after stop: time for sessions under way before goodbye; 0: none */
  struct foray_cloud_config cloud;
};

enum foray_status foray_server_open(const struct foray_server_opts *o, struct foray_server **out,
                                    struct foray_err *err) FORAY_NODISCARD;
/* Another face of the same server (cloud/api) lives on the same loop and the same scheduler. All are called
 * on the loop's thread; any may be NULL. */
struct foray_server_hooks {
  void *arg;
  void (*serve)(void *arg, struct foray_batch *batch, const struct foray_cloud_identity *id);
  void (*result)(void *arg, const struct foray_batch_msg *m); /* of commands with FORAY_HUB_FOREIGN */
  void (*drain)(void *arg);                                   /* no new work from now on */
  uint32_t (*busy)(void *arg);                                /* what is still under way */
};
/* Who may come in over TCP; Unix sockets and inherited streams are the operator's own. Before run. */
void foray_server_set_auth(struct foray_server *s, const struct foray_hub_auth *a);
/* For a reload, on the loop's thread; connections under way keep theirs. */
void foray_server_set_tls(struct foray_server *s, struct foray_tls *tls);
void foray_server_hook(struct foray_server *s, const struct foray_server_hooks *h); /* before run */
struct event_base *foray_server_base(struct foray_server *s);
struct foray_server_stats {
  uint64_t conns, refused, bytes_in, bytes_out, tls_resumed;
  uint32_t open;
};
void foray_server_stats_get(const struct foray_server *s, struct foray_server_stats *out);

void foray_server_close(struct foray_server *s);     /* NULL is fine */
int foray_server_port(const struct foray_server *s); /* of the TCP listener */
enum foray_status foray_server_run(struct foray_server *s, struct foray_err *err) FORAY_NODISCARD;

void foray_server_post_progress(struct foray_server *s, const char *what, uint64_t done, uint64_t total);
/* batch and strings of id must outlive the server. */
void foray_server_post_serve(struct foray_server *s, struct foray_batch *batch,
                             const struct foray_cloud_identity *id);
/* Loading failed: peers are told, then run returns this error. */
void foray_server_post_failed(struct foray_server *s, const struct foray_err *why);
/* Calls what foray_server_on_reload set on the loop's thread; any thread, signal handlers too. */
void foray_server_reload(struct foray_server *s);
void foray_server_on_reload(struct foray_server *s, void (*fn)(void *), void *arg); /* before run */
void foray_server_notify(struct foray_server *s); /* results wait in the scheduler */
/* Wakes the scheduler of post_serve, if it came to that. */
void foray_server_wake_scheduler(struct foray_server *s);
/* Drains; a second call ends at once. */
void foray_server_stop(struct foray_server *s);

#endif
