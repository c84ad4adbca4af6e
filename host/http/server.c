#include "http/server.h"

#include "core/err.h"
#include "tls/guard.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EXTRA_HEADERS_MAX = 1024, READ_AHEAD = 65536, LINGER_MS = 1000, PEER_MAX = 128 };

enum phase { PHASE_IDLE, PHASE_HEAD, PHASE_BODY, PHASE_ANSWER, PHASE_CLOSING };

struct foray_http_exchange {
  struct foray_http_exchange *next, **prev; /* all connections of the server */
  struct foray_http_server *s;
  struct bufferevent *bev;
  struct event *timer;
  struct foray_http_parser parser;
  enum phase phase;
  bool streaming, chunked, close_after, sent_continue, in_handler;
  void (*on_gone)(void *);
  void *gone_arg;
  char extra[EXTRA_HEADERS_MAX];
  size_t n_extra;
  char peer[PEER_MAX];
  uint64_t address;
};

struct foray_http_server {
  struct foray_http_server_opts o;
  struct evconnlistener *listener;
  struct foray_http_exchange *conns;
  struct foray_http_server_stats stats;
  int port;
  bool draining;
};

const char *foray_http_status_text(int status) {
  switch (status) {
  case 200: return "OK";
  case 204: return "No Content";
  case 400: return "Bad Request";
  case 401: return "Unauthorized";
  case 403: return "Forbidden";
  case 404: return "Not Found";
  case 405: return "Method Not Allowed";
  case 408: return "Request Timeout";
  case 413: return "Content Too Large";
  case 414: return "URI Too Long";
  case 415: return "Unsupported Media Type";
  case 417: return "Expectation Failed";
  case 429: return "Too Many Requests";
  case 431: return "Request Header Fields Too Large";
  case 500: return "Internal Server Error";
  case 501: return "Not Implemented";
  case 503: return "Service Unavailable";
  case 505: return "HTTP Version Not Supported";
  default: return "Status";
  }
}

/* ---------------------------------------------------------------- life of a connection */

static void arm(struct foray_http_exchange *x, int ms) {
  struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
  event_add(x->timer, &tv);
}

static void conn_end(struct foray_http_exchange *x) {
  struct foray_http_server *s = x->s;
  void (*fn)(void *) = x->on_gone;
  if (x->phase == PHASE_ANSWER) {
    s->stats.busy--;
    s->stats.aborted++;
    x->on_gone = NULL;
    x->phase = PHASE_CLOSING;
    if (fn) fn(x->gone_arg);
  }
  if ((*x->prev = x->next)) x->next->prev = x->prev;
  s->stats.open--;
  if (x->bev) bufferevent_free(x->bev);
  if (x->timer) event_free(x->timer);
  foray_http_parser_deinit(&x->parser);
  free(x);
}

/* From inside an answer: the memory goes later, from the loop. */
static void cut(struct foray_http_exchange *x) {
  void (*fn)(void *) = x->on_gone;
  x->s->stats.busy--;
  x->s->stats.aborted++;
  x->on_gone = NULL;
  x->phase = PHASE_CLOSING;
  bufferevent_disable(x->bev, EV_READ | EV_WRITE);
  arm(x, 0);
  if (fn) fn(x->gone_arg);
}

/* Sends what is queued, then closes; a reader that takes nothing is cut by the write time-out. */
static void close_softly(struct foray_http_exchange *x) {
  x->phase = PHASE_CLOSING;
  bufferevent_disable(x->bev, EV_READ);
  arm(x, x->s->o.stall_ms);
  if (evbuffer_get_length(bufferevent_get_output(x->bev)) == 0) arm(x, 0);
}

static void refuse(struct foray_http_exchange *x, int status, const char *why) {
  char body[256];
  int n = snprintf(
      body, sizeof body,
      "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":%d}}\n", why,
      status);
  evbuffer_add_printf(bufferevent_get_output(x->bev),
                      "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                      "Connection: close\r\n\r\n%s",
                      status, foray_http_status_text(status), n, body);
  x->s->stats.refused++;
  close_softly(x);
}

static void advance(struct foray_http_exchange *x);

static void answered(struct foray_http_exchange *x) {
  x->s->stats.busy--;
  x->on_gone = NULL;
  x->streaming = x->chunked = false;
  x->n_extra = 0;
  if (!x->parser.request.keep_alive || x->s->draining || x->close_after) {
    close_softly(x);
    return;
  }
  foray_http_parser_reset(&x->parser);
  x->phase = PHASE_IDLE;
  x->sent_continue = false;
  arm(x, x->s->o.idle_ms);
  if (!x->in_handler) advance(x); /* a pipelined request may be there already */
}

/* Feeds what has come to the parser and hands a whole request to the handler. */
static void advance(struct foray_http_exchange *x) {
  struct evbuffer *in = bufferevent_get_input(x->bev);
  size_t n;
  while (x->phase < PHASE_ANSWER && (n = evbuffer_get_contiguous_space(in)) > 0) {
    size_t used = foray_http_parser_feed(&x->parser, evbuffer_pullup(in, (ssize_t)n), n);
    evbuffer_drain(in, used);
    x->s->stats.bytes_in += used;
    const struct foray_http_parser *p = &x->parser;
    if (p->state == FORAY_HTTP_ERROR) {
      refuse(x, p->status, p->reason);
      return;
    }
    if (p->state >= FORAY_HTTP_HEAD && x->phase == PHASE_IDLE) {
      x->phase = PHASE_HEAD;
      arm(x, x->s->o.head_ms);
    }
    if (p->state >= FORAY_HTTP_BODY && x->phase == PHASE_HEAD) {
      x->phase = PHASE_BODY;
      arm(x, x->s->o.body_ms);
    }
    if (p->state == FORAY_HTTP_BODY && p->request.expect_continue && !x->sent_continue) {
      static const char go[] = "HTTP/1.1 100 Continue\r\n\r\n";
      bufferevent_write(x->bev, go, sizeof go - 1);
      x->sent_continue = true;
    }
    if (p->state != FORAY_HTTP_DONE) continue;
    event_del(x->timer);
    x->phase = PHASE_ANSWER;
    x->s->stats.requests++;
    x->s->stats.busy++;
    x->in_handler = true;
    x->s->o.handler(x->s->o.user, x);
    x->in_handler = false;
  }
}

static void on_read(struct bufferevent *bev, void *arg) {
  struct foray_http_exchange *x = arg;
  struct evbuffer *in = bufferevent_get_input(bev);
  if (x->phase == PHASE_CLOSING) evbuffer_drain(in, evbuffer_get_length(in));
  /* What comes during an answer waits in the buffer, whose size is bounded; an end is still noticed. */
  if (x->phase < PHASE_ANSWER) advance(x);
}
static void on_written(struct bufferevent *bev, void *arg) {
  (void)bev;
  struct foray_http_exchange *x = arg;
  if (x->phase == PHASE_CLOSING) {
    /* Half a close first: a reset would take the answer from a peer that is still sending. */
    evutil_socket_t fd = bufferevent_getfd(x->bev);
    if (fd >= 0 && !bufferevent_openssl_get_ssl(x->bev)) shutdown(fd, SHUT_WR);
    bufferevent_enable(x->bev, EV_READ);
    bufferevent_setwatermark(x->bev, EV_READ, 0, 0);
    arm(x, LINGER_MS);
  }
}

static void peer_name(struct foray_http_exchange *x) {
  SSL *ssl = bufferevent_openssl_get_ssl(x->bev);
  X509 *cert = ssl ? SSL_get_peer_certificate(ssl) : NULL;
  if (!cert) return;
  if (X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, x->peer, sizeof x->peer) < 0)
    x->peer[0] = 0;
  X509_free(cert);
}

static void on_event(struct bufferevent *bev, short what, void *arg) {
  (void)bev;
  struct foray_http_exchange *x = arg;
  if (what & BEV_EVENT_CONNECTED) { /* the TLS handshake is done */
    peer_name(x);
    arm(x, x->s->o.head_ms);
    return;
  }
  conn_end(x);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct foray_http_exchange *x = arg;
  if (x->phase == PHASE_HEAD)
    refuse(x, 408, "the headers took too long");
  else if (x->phase == PHASE_BODY)
    refuse(x, 408, "the body took too long");
  else
    conn_end(x);
}

void foray_http_server_accept(struct foray_http_server *s, int fd, struct ssl_ctx_st *tls) {
  struct foray_http_exchange *x = s->stats.open < s->o.conns_max ? calloc(1, sizeof *x) : NULL;
  if (!x) { /* full: nothing is read from those who come now */
    s->stats.refused++;
    close(fd);
    return;
  }
  evutil_make_socket_nonblocking(fd);
  x->s = s;
  x->next = s->conns;
  x->prev = &s->conns;
  if (s->conns) s->conns->prev = &x->next;
  s->conns = x;
  s->stats.open++;
  s->stats.conns++;
  foray_http_parser_init(&x->parser);
  if (tls) {
    SSL *ssl = SSL_new(tls);
    if (ssl)
      x->bev = bufferevent_openssl_socket_new(s->o.base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                              BEV_OPT_CLOSE_ON_FREE);
    if (ssl && !x->bev) SSL_free(ssl);
    if (x->bev) bufferevent_openssl_set_allow_dirty_shutdown(x->bev, 1);
  } else {
    x->bev = bufferevent_socket_new(s->o.base, fd, BEV_OPT_CLOSE_ON_FREE);
  }
  struct sockaddr_storage sa = {0};
  socklen_t len = sizeof sa;
  x->address =
      getpeername(fd, (struct sockaddr *)&sa, &len) == 0 ? foray_guard_address((struct sockaddr *)&sa) : 1;
  x->timer = evtimer_new(s->o.base, on_timer, x);
  if (!x->bev || !x->timer) {
    if (!x->bev) close(fd);
    conn_end(x);
    return;
  }
  bufferevent_setcb(x->bev, on_read, on_written, on_event, x);
  bufferevent_setwatermark(x->bev, EV_READ, 0, READ_AHEAD);
  struct timeval stall = {.tv_sec = s->o.stall_ms / 1000, .tv_usec = (s->o.stall_ms % 1000) * 1000};
  bufferevent_set_timeouts(x->bev, NULL, &stall);
  bufferevent_enable(x->bev, EV_READ | EV_WRITE);
  /* The first request must come at once, later ones may take their time. */
  arm(x, s->o.head_ms);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg) {
  (void)l;
  (void)len;
  struct foray_http_server *s = arg;
  int one = 1;
  if (sa->sa_family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  foray_http_server_accept(s, fd, s->o.tls);
}

/* ---------------------------------------------------------------- life of the server */

enum foray_status foray_http_address(const char *text, char *host, size_t cap, int *port,
                                     struct foray_err *err) {
  const char *colon = strrchr(text, ':'), *digits = colon ? colon + 1 : text, *h = colon ? text : "127.0.0.1";
  size_t n = colon ? (size_t)(colon - text) : strlen(h);
  if (n >= 2 && h[0] == '[' && h[n - 1] == ']') {
    h++;
    n -= 2;
  }
  char *end;
  errno = 0;
  unsigned long v = strtoul(digits, &end, 10);
  if (errno || end == digits || *end || *digits == '-' || v > 65535 || n == 0 || n >= cap)
    return foray_err_set(err, FORAY_E_ARG, "'%s' is no address: write PORT, HOST:PORT or [V6]:PORT", text);
  memcpy(host, h, n);
  host[n] = 0;
  *port = (int)v;
  return FORAY_OK;
}

static int or_default(int v, int d) { return v > 0 ? v : d; }

enum foray_status foray_http_server_open(const struct foray_http_server_opts *o,
                                         struct foray_http_server **out, struct foray_err *err) {
  *out = NULL;
  struct foray_http_server *s = calloc(1, sizeof *s);
  if (!s) return foray_err_set(err, FORAY_E_NOMEM, "HTTP server");
  s->o = *o;
  s->o.head_ms = or_default(o->head_ms, FORAY_HTTP_HEAD_MS_MAX);
  s->o.body_ms = or_default(o->body_ms, FORAY_HTTP_BODY_MS_MAX);
  s->o.idle_ms = or_default(o->idle_ms, FORAY_HTTP_IDLE_MS_MAX);
  s->o.stall_ms = or_default(o->stall_ms, FORAY_HTTP_STALL_MS_MAX);
  if (!s->o.conns_max) s->o.conns_max = FORAY_HTTP_CONNS_MAX;
  if (o->listen_fd > 0) {
    evutil_make_socket_nonblocking(o->listen_fd);
    s->listener = evconnlistener_new(o->base, on_accept, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0,
                                     o->listen_fd);
    if (s->listener) {
      *out = s;
      return FORAY_OK;
    }
    free(s);
    return foray_err_set(err, FORAY_E_NET, "file descriptor %d is no listening socket", o->listen_fd);
  }
  if (!o->host) {
    *out = s;
    return FORAY_OK;
  }
  char port[16];
  snprintf(port, sizeof port, "%d", o->port);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *ai = NULL;
  int r = getaddrinfo(o->host, port, &hints, &ai);
  if (r != 0) {
    free(s);
    return foray_err_set(err, FORAY_E_NET, "HTTP host '%s': %s", o->host, gai_strerror(r));
  }
  s->listener = evconnlistener_new_bind(o->base, on_accept, s,
                                        LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                        512, ai->ai_addr, (int)ai->ai_addrlen);
  int e = errno;
  freeaddrinfo(ai);
  if (!s->listener) {
    free(s);
    return foray_err_set(err, FORAY_E_NET, "cannot listen on %s port %d: %s", o->host, o->port, strerror(e));
  }
  struct sockaddr_storage sa;
  socklen_t len = sizeof sa;
  if (getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&sa, &len) == 0)
    s->port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
                                             : ((struct sockaddr_in *)&sa)->sin_port);
  *out = s;
  return FORAY_OK;
}

void foray_http_server_close(struct foray_http_server *s) {
  if (!s) return;
  if (s->listener) evconnlistener_free(s->listener);
  while (s->conns) conn_end(s->conns);
  free(s);
}

void foray_http_server_drain(struct foray_http_server *s) {
  s->draining = true;
  if (s->listener) evconnlistener_disable(s->listener);
  for (struct foray_http_exchange *x = s->conns, *next; x; x = next) {
    next = x->next;
    if (x->phase < PHASE_ANSWER) conn_end(x);
  }
}
void foray_http_server_set_tls(struct foray_http_server *s, struct ssl_ctx_st *tls) { s->o.tls = tls; }
int foray_http_server_port(const struct foray_http_server *s) { return s->port; }
void foray_http_server_stats(const struct foray_http_server *s, struct foray_http_server_stats *out) {
  *out = s->stats;
}

/* ---------------------------------------------------------------- answers */

const struct foray_http_request *foray_http_exchange_request(const struct foray_http_exchange *x) {
  return &x->parser.request;
}
uint64_t foray_http_exchange_address(const struct foray_http_exchange *x) { return x->address; }
const char *foray_http_exchange_peer(const struct foray_http_exchange *x) { return x->peer; }
void foray_http_exchange_on_gone(struct foray_http_exchange *x, void (*fn)(void *), void *arg) {
  x->on_gone = fn;
  x->gone_arg = arg;
}
void foray_http_exchange_header(struct foray_http_exchange *x, const char *name, const char *value) {
  if (strpbrk(name, "\r\n") || strpbrk(value, "\r\n")) return;
  int n = snprintf(x->extra + x->n_extra, sizeof x->extra - x->n_extra, "%s: %s\r\n", name, value);
  if (n > 0 && (size_t)n < sizeof x->extra - x->n_extra) x->n_extra += (size_t)n;
  x->extra[x->n_extra] = 0;
}

bool foray_http_exchange_has(const struct foray_http_exchange *x, const char *name) {
  return x->n_extra && strstr(x->extra, name) != NULL;
}

static void head(struct foray_http_exchange *x, int status, const char *type) {
  char date[64];
  time_t now = time(NULL);
  struct tm tm;
  strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
  const bool keep = x->parser.request.keep_alive && !x->s->draining && !x->close_after;
  evbuffer_add_printf(bufferevent_get_output(x->bev),
                      "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nX-Content-Type-Options: nosniff\r\n"
                      "Connection: %s\r\n%s",
                      status, foray_http_status_text(status), date, type, keep ? "keep-alive" : "close",
                      x->n_extra ? x->extra : "");
}

void foray_http_reply(struct foray_http_exchange *x, int status, const char *type, const void *body,
                      size_t len) {
  struct evbuffer *out = bufferevent_get_output(x->bev);
  head(x, status, type);
  evbuffer_add_printf(out, "Content-Length: %zu\r\n\r\n", len);
  if (strcmp(x->parser.request.method, "HEAD") != 0) bufferevent_write(x->bev, body, len);
  x->s->stats.bytes_out += len;
  answered(x);
}

void foray_http_stream_begin(struct foray_http_exchange *x, int status, const char *type) {
  x->streaming = true;
  x->chunked = x->parser.request.minor == 1;
  if (!x->chunked) x->close_after = true;
  head(x, status, type);
  evbuffer_add_printf(bufferevent_get_output(x->bev), "%sCache-Control: no-cache\r\n\r\n",
                      x->chunked ? "Transfer-Encoding: chunked\r\n" : "");
}

bool foray_http_stream_write(struct foray_http_exchange *x, const void *p, size_t n) {
  struct evbuffer *out = bufferevent_get_output(x->bev);
  if (n == 0) return true;
  if (evbuffer_get_length(out) + n > FORAY_HTTP_OUTPUT_MAX) {
    cut(x);
    return false;
  }
  if (x->chunked) evbuffer_add_printf(out, "%zx\r\n", n);
  evbuffer_add(out, p, n);
  if (x->chunked) evbuffer_add(out, "\r\n", 2);
  x->s->stats.bytes_out += n;
  return true;
}

void foray_http_exchange_abort(struct foray_http_exchange *x) {
  x->on_gone = NULL;
  cut(x);
}

void foray_http_stream_end(struct foray_http_exchange *x) {
  if (x->chunked) evbuffer_add(bufferevent_get_output(x->bev), "0\r\n\r\n", 5);
  answered(x);
}
