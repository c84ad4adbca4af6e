/* http/server.h - HTTP/1.1 connections on a libevent loop: requests in, answers and event streams out.
 *
 *   struct foray_http_server_opts o = {.base = base, .host = "127.0.0.1", .port = 8080, .handler = fn};
 *   foray_http_server_open(&o, &srv, &err);
 *   static void fn(void *user, struct foray_http_exchange *x) { foray_http_reply_text(x, 200, "hello\n"); }
 *
 * Why not libevent's evhttp: in 2.1 it does not notice that a client leaves while its answer is made, knows
 * no limit on the time of a whole header, and reads ambiguous headers generously. Buffers, timers and TLS are
 * libevent's here as well; requests come from http/parser.h.
 *
 * One request of a connection is worked on at a time. An exchange lives from the handler's call until its
 * answer ended or on_gone was called, whichever is first; after that it must not be used. Everything happens
 * on the loop's thread. */
#ifndef FORAY_HTTP_SERVER_H
#define FORAY_HTTP_SERVER_H

#include "http/parser.h"

#include <foray/status.h>

struct event_base;
struct ssl_ctx_st;
struct foray_http_server;   /* opaque */
struct foray_http_exchange; /* opaque: one request and its answer */

struct foray_http_server_opts {
  struct event_base *base; /* borrowed */
  const char *host;        /* NULL: no listener of its own (foray_http_server_accept) */
  int port;                /* 0: any free one */
  int listen_fd;           /* listening socket of the service manager instead of host, taken; 0: none */
  struct ssl_ctx_st *tls;  /* borrowed; NULL: plain */
  void (*handler)(void *user, struct foray_http_exchange *x);
  void *user;
  uint32_t conns_max; /* 0: FORAY_HTTP_CONNS_MAX */
  /* Times in milliseconds, 0: those of http/limits.h. Tests make them short. */
  int head_ms, body_ms, idle_ms, stall_ms;
};

enum foray_status foray_http_server_open(const struct foray_http_server_opts *o,
                                         struct foray_http_server **out,
                                         struct foray_err *err) FORAY_NODISCARD;
/* Cuts all connections (on_gone is called). NULL is allowed. */
void foray_http_server_close(struct foray_http_server *s);
int foray_http_server_port(const struct foray_http_server *s);
/* A connected socket, taken. tls: NULL for plain. */
void foray_http_server_accept(struct foray_http_server *s, int fd, struct ssl_ctx_st *tls);
/* No new connections; those that have no request under way are closed, the others after their answer. */
void foray_http_server_drain(struct foray_http_server *s);
/* For a reload; connections under way keep theirs. */
void foray_http_server_set_tls(struct foray_http_server *s, struct ssl_ctx_st *tls);

/* "PORT", "HOST:PORT" or "[V6]:PORT"; without a host 127.0.0.1. FORAY_E_ARG. */
enum foray_status foray_http_address(const char *text, char *host, size_t cap, int *port,
                                     struct foray_err *err) FORAY_NODISCARD;

struct foray_http_server_stats {
  uint64_t conns, requests, refused, bytes_in, bytes_out, aborted;
  uint32_t open, busy; /* connections, requests under way */
};
void foray_http_server_stats(const struct foray_http_server *s, struct foray_http_server_stats *out);

const struct foray_http_request *foray_http_exchange_request(const struct foray_http_exchange *x);
/* Name that the client's TLS certificate carries, "" without one. */
const char *foray_http_exchange_peer(const struct foray_http_exchange *x);
/* Address for tls/guard.h; 1 for local sockets. */
uint64_t foray_http_exchange_address(const struct foray_http_exchange *x);
/* Called once when the client left, or was cut off, before the answer ended. */
void foray_http_exchange_on_gone(struct foray_http_exchange *x, void (*fn)(void *), void *arg);
/* Adds a header to the answer (before it begins); CR and LF are not allowed in it. */
void foray_http_exchange_header(struct foray_http_exchange *x, const char *name, const char *value);

bool foray_http_exchange_has(const struct foray_http_exchange *x, const char *name);

/* The whole answer; ends the exchange. */
void foray_http_reply(struct foray_http_exchange *x, int status, const char *type, const void *body,
                      size_t len);
/* An answer in pieces: begin, write as often as wanted, end. write returns false when the reader is too slow;
 * the connection is cut then, and on_gone was called. */
void foray_http_stream_begin(struct foray_http_exchange *x, int status, const char *type);
bool foray_http_stream_write(struct foray_http_exchange *x, const void *p, size_t n) FORAY_NODISCARD;
void foray_http_stream_end(struct foray_http_exchange *x);

/* Cuts the connection; on_gone is not called. */
void foray_http_exchange_abort(struct foray_http_exchange *x);

const char *foray_http_status_text(int status);

#endif
