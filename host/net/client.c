#include "net/client.h"

#include "core/clock.h"
#include "core/err.h"
#include "net/spawn.h"
#include "tls/tls.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum uri_kind { URI_TCP, URI_TLS, URI_UNIX, URI_FD, URI_SPAWN };
enum { RETRY_FIRST_MS = 50, RETRY_LAST_MS = 2000, GOODBYE_MS = 200, REAP_MS = 3000 };

struct foray_client {
  struct foray_client_opts o;
  enum uri_kind kind;
  char *host; /* or path, or model; owned */
  int port, fd;
  struct foray_edge *edge;
  struct event_base *base;
  struct bufferevent *bev; /* the transport: a TLS bufferevent fits here as well */
  struct event *tick, *retry, *limit, *wake;
  int wake_fd;
  pid_t pid;
  struct foray_tls *tls; /* owned; NULL: plain */
  char token[FORAY_PROTO_TOKEN_MAX + 2];
  bool connected, limit_hit, interrupted, was_ready;
  int pause_ms;
  int64_t down_since;
  struct foray_err last;  /* why the link went down */
  struct foray_err fatal; /* code != 0: the client has ended */
  char **spawn_args;
};

static struct timeval in_ns(int64_t ns) {
  if (ns < 0) ns = 0;
  return (struct timeval){.tv_sec = ns / 1000000000, .tv_usec = ns % 1000000000 / 1000};
}

/* ---------------------------------------------------------------- SIGPIPE, per call */

struct pipe_guard {
  sigset_t old;
  bool was_pending;
};
static sigset_t pipe_set(void) {
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGPIPE);
  return s;
}
static void guard_begin(struct pipe_guard *g) {
  sigset_t s = pipe_set(), pending;
  sigpending(&pending);
  g->was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &s, &g->old);
}
static void guard_end(const struct pipe_guard *g) {
  sigset_t s = pipe_set(), pending;
  sigpending(&pending);
  if (!g->was_pending && sigismember(&pending, SIGPIPE) == 1)
    sigtimedwait(&s, NULL, &(struct timespec){0, 0});
  pthread_sigmask(SIG_SETMASK, &g->old, NULL);
}

/* ---------------------------------------------------------------- the link */

static void connect_now(struct foray_client *c);

static void drop_stream(struct foray_client *c) {
  if (c->bev) bufferevent_free(c->bev);
  c->bev = NULL;
  c->connected = false;
  if (c->pid) {
    foray_spawn_reap(c->pid, 200);
    c->pid = 0;
  }
}

/* Trying again cannot help with these. */
static bool hopeless(enum foray_status s) {
  return s == FORAY_E_MISMATCH || s == FORAY_E_UNSUPPORTED || s == FORAY_E_NOTFOUND || s == FORAY_E_FORMAT ||
         s == FORAY_E_ARG || s == FORAY_E_DENIED;
}

static void lost(struct foray_client *c, const struct foray_err *why) {
  c->last = *why;
  int64_t now = foray_clock_ns();
  if (foray_edge_is_ready(c->edge)) {
    c->was_ready = true;
    c->down_since = now;
    c->pause_ms = RETRY_FIRST_MS;
  }
  foray_edge_link_down(c->edge, why->msg, now);
  drop_stream(c);
  bool never_came = c->kind == URI_SPAWN && !c->was_ready; /* a program that dies at start dies again */
  if (hopeless(why->code) || c->kind == URI_FD || c->o.retry_max_ms < 0 || never_came ||
      now - c->down_since > c->o.retry_max_ms * 1000000) {
    c->fatal = *why;
    return;
  }
  struct timeval tv = in_ns((int64_t)c->pause_ms * 1000000);
  event_add(c->retry, &tv);
  c->pause_ms = c->pause_ms * 2 < RETRY_LAST_MS ? c->pause_ms * 2 : RETRY_LAST_MS;
}

static void arm_tick(struct foray_client *c) {
  int64_t d = foray_edge_deadline(c->edge);
  if (d == INT64_MAX) {
    event_del(c->tick);
    return;
  }
  struct timeval tv = in_ns(d - foray_clock_ns() + 1000);
  event_add(c->tick, &tv);
}

static void hand_over(struct foray_client *c) {
  const uint8_t *p;
  size_t n = c->bev && c->connected ? foray_edge_output(c->edge, &p) : 0;
  if (n && bufferevent_write(c->bev, p, n) == 0) foray_edge_output_consumed(c->edge, n);
}

static void on_read(struct bufferevent *bev, void *arg) {
  struct foray_client *c = arg;
  struct evbuffer *in = bufferevent_get_input(bev);
  struct foray_err err = {0};
  for (size_t n; (n = evbuffer_get_contiguous_space(in)) > 0;) {
    enum foray_status st =
        foray_edge_feed(c->edge, evbuffer_pullup(in, (ssize_t)n), n, foray_clock_ns(), &err);
    if (st != FORAY_OK) {
      lost(c, &err);
      return;
    }
    evbuffer_drain(in, n);
  }
  hand_over(c);
  arm_tick(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg) {
  struct foray_client *c = arg;
  if (what & BEV_EVENT_CONNECTED) {
    int one = 1; /* drafts are small and wait for an answer */
    if (c->kind <= URI_TLS) setsockopt(bufferevent_getfd(bev), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->connected = true;
    foray_edge_link_up(c->edge, foray_clock_ns());
    hand_over(c);
    arm_tick(c);
    return;
  }
  struct foray_err err = {0};
  SSL *ssl = bufferevent_openssl_get_ssl(bev);
  const long verify = ssl ? SSL_get_verify_result(ssl) : X509_V_OK;
  const unsigned long tls = ssl ? bufferevent_get_openssl_error(bev) : 0;
  if (verify != X509_V_OK) /* somebody else answers there: another try does not make it right */
    foray_err_set(&err, FORAY_E_DENIED, "the cloud at %s has a certificate that is not believed: %s",
                  c->o.uri, X509_verify_cert_error_string(verify));
  else if (tls && !c->was_ready && ERR_GET_REASON(tls) > SSL_AD_REASON_OFFSET)
    foray_err_set(&err, FORAY_E_DENIED, "the cloud at %s refuses us: %s", c->o.uri,
                  ERR_reason_error_string(tls));
  else if (what & BEV_EVENT_EOF)
    foray_err_set(&err, FORAY_E_NET, "the cloud at %s closed the connection", c->o.uri);
  else {
    int dns = bufferevent_socket_get_dns_error(bev);
    foray_err_set(&err, FORAY_E_NET, "the cloud at %s: %s", c->o.uri,
                  dns ? evutil_gai_strerror(dns) : evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
  }
  lost(c, &err);
}

static void on_tick(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct foray_client *c = arg;
  struct foray_err err = {0};
  if (foray_edge_tick(c->edge, foray_clock_ns(), &err) != FORAY_OK) {
    lost(c, &err);
    return;
  }
  hand_over(c);
  arm_tick(c);
}
static void on_retry(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  connect_now(arg);
}
static void on_limit(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  ((struct foray_client *)arg)->limit_hit = true;
}
static void on_wake(evutil_socket_t fd, short what, void *arg) {
  (void)what;
  uint64_t v;
  (void)!read(fd, &v, sizeof v);
  ((struct foray_client *)arg)->interrupted = true;
}

/* A stream that is connected already: the same path as after connecting. */
static void adopt(struct foray_client *c, int fd) {
  evutil_make_socket_nonblocking(fd);
  c->bev = bufferevent_socket_new(c->base, fd, BEV_OPT_CLOSE_ON_FREE);
  if (!c->bev) {
    close(fd);
    foray_err_set(&c->fatal, FORAY_E_NOMEM, "stream");
    return;
  }
  bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
  bufferevent_enable(c->bev, EV_READ | EV_WRITE);
  on_event(c->bev, BEV_EVENT_CONNECTED, c);
}

static void connect_now(struct foray_client *c) {
  struct foray_err err = {0};
  if (c->kind == URI_FD) {
    adopt(c, c->fd);
    c->fd = -1;
    return;
  }
  if (c->kind == URI_SPAWN) {
    int fd;
    if (foray_spawn(c->o.spawn_program, c->host, (const char *const *)c->spawn_args, c->o.spawn_quiet, &fd,
                    &c->pid, &err) == FORAY_OK)
      adopt(c, fd);
    else
      c->fatal = err;
    return;
  }
  if (c->tls) {
    SSL *ssl = foray_tls_client(c->tls, c->host);
    if (ssl)
      c->bev =
          bufferevent_openssl_socket_new(c->base, -1, ssl, BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE);
    if (ssl && !c->bev) SSL_free(ssl);
    if (c->bev) bufferevent_openssl_set_allow_dirty_shutdown(c->bev, 1);
  } else {
    c->bev = bufferevent_socket_new(c->base, -1, BEV_OPT_CLOSE_ON_FREE);
  }
  if (!c->bev) {
    foray_err_set(&c->fatal, FORAY_E_NOMEM, "stream");
    return;
  }
  bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
  bufferevent_enable(c->bev, EV_READ | EV_WRITE);
  int r;
  if (c->kind == URI_UNIX) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    memcpy(sa.sun_path, c->host, strlen(c->host));
    r = bufferevent_socket_connect(c->bev, (struct sockaddr *)&sa, sizeof sa);
  } else {
    r = bufferevent_socket_connect_hostname(c->bev, NULL, AF_UNSPEC, c->host, c->port);
  }
  if (r != 0 && c->bev && !event_pending(c->retry, EV_TIMEOUT, NULL) && !c->fatal.code) {
    foray_err_set(&err, FORAY_E_NET, "the cloud at %s: %s", c->o.uri, strerror(errno));
    lost(c, &err);
  }
}

/* ---------------------------------------------------------------- life */

static enum foray_status parse(struct foray_client *c, const char *uri, struct foray_err *err) {
  const char *rest = uri;
  c->fd = -1;
  if (strncmp(uri, "spawn:", 6) == 0) {
    c->kind = URI_SPAWN;
    rest += 6;
  } else if (strncmp(uri, "unix:", 5) == 0) {
    c->kind = URI_UNIX;
    rest += 5;
    if (strlen(rest) >= sizeof((struct sockaddr_un *)0)->sun_path)
      return foray_err_set(err, FORAY_E_ARG, "%s: the path is too long for a Unix socket", uri);
  } else if (strncmp(uri, "fd:", 3) == 0) {
    char *end;
    long v = strtol(rest + 3, &end, 10);
    if (*end || end == rest + 3 || v < 0 || v > 1 << 20)
      return foray_err_set(err, FORAY_E_ARG, "%s: fd:NUMBER is meant", uri);
    c->kind = URI_FD;
    c->fd = (int)v;
    return FORAY_OK;
  } else {
    const bool tcp = strncmp(uri, "tcp:", 4) == 0, tls = strncmp(uri, "tls:", 4) == 0;
    if (tcp || tls) rest += 4;
    const char *colon = strrchr(rest, ':');
    char *end = NULL;
    long port = colon ? strtol(colon + 1, &end, 10) : 0;
    if (!colon || colon == rest || port < 1 || port > 65535 || *end)
      return foray_err_set(err, FORAY_E_ARG,
                           "'%s' is no address of a cloud: HOST:PORT, unix:PATH, fd:N or spawn:MODEL", uri);
    c->kind = URI_TCP;
    c->port = (int)port;
    bool six = rest[0] == '[' && colon[-1] == ']'; /* [::1]:8700 */
    c->host = strndup(rest + six, (size_t)(colon - rest) - 2u * six);
    if (!c->host) return foray_err_set(err, FORAY_E_NOMEM, "address");
    /* What leaves this machine is encrypted, unless plain TCP is asked for by name. */
    if (tls || (!tcp && !foray_tls_is_loopback(c->host))) c->kind = URI_TLS;
    return FORAY_OK;
  }
  if (!*rest) return foray_err_set(err, FORAY_E_ARG, "'%s': something must follow the colon", uri);
  c->host = strdup(rest);
  return c->host ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "address");
}

static bool copy_args(struct foray_client *c) {
  size_t n = 0;
  while (c->o.spawn_args && c->o.spawn_args[n]) n++;
  c->spawn_args = calloc(n + 1, sizeof(char *));
  for (size_t i = 0; c->spawn_args && i < n; i++)
    if (!(c->spawn_args[i] = strdup(c->o.spawn_args[i]))) return false;
  return c->spawn_args != NULL;
}

/* The folder with our certificates, and a token from it. */
static enum foray_status credentials(struct foray_client *c, const struct foray_client_opts *o,
                                     struct foray_err *err) {
  char dir[4096], path[4200];
  const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME"), *token = getenv("FORAY_TOKEN");
  if (o->tls_dir)
    snprintf(dir, sizeof dir, "%s", o->tls_dir);
  else if (config && *config)
    snprintf(dir, sizeof dir, "%s/foray/tls", config);
  else
    snprintf(dir, sizeof dir, "%s/.config/foray/tls", home ? home : "");
  snprintf(path, sizeof path, "%s/token", dir);
  FILE *f = token && *token ? NULL : fopen(path, "re");
  if (token && *token)
    snprintf(c->token, sizeof c->token, "%s", token);
  else if (f && !fgets(c->token, sizeof c->token, f))
    c->token[0] = 0;
  if (f) fclose(f);
  c->token[strcspn(c->token, "\r\n")] = 0;
  if (c->kind != URI_TLS) return FORAY_OK;
  const struct foray_tls_opts to = {.dir = dir};
  enum foray_status st = foray_tls_open(&to, &c->tls, err);
  if (st) foray_err_prefix(err, "cloud '%s' needs TLS (tcp: in front asks for none)", o->uri);
  return st;
}

enum foray_status foray_client_open(const struct foray_client_opts *o, struct foray_client **out,
                                    struct foray_err *err) {
  *out = NULL;
  struct foray_client *c = calloc(1, sizeof *c);
  if (!c) return foray_err_set(err, FORAY_E_NOMEM, "client");
  c->wake_fd = -1;
  c->o = *o;
  if (!c->o.retry_max_ms) c->o.retry_max_ms = 30000;
  enum foray_status st = parse(c, o->uri, err);
  if (st == FORAY_OK) {
    c->o.uri = strdup(o->uri);
    c->o.spawn_program = o->spawn_program ? strdup(o->spawn_program) : NULL;
    c->base = event_base_new();
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!c->o.uri || !copy_args(c) || !c->base || c->wake_fd < 0 ||
        !(c->tick = evtimer_new(c->base, on_tick, c)) || !(c->retry = evtimer_new(c->base, on_retry, c)) ||
        !(c->limit = evtimer_new(c->base, on_limit, c)) ||
        !(c->wake = event_new(c->base, c->wake_fd, EV_READ | EV_PERSIST, on_wake, c)))
      st = foray_err_set(err, FORAY_E_NOMEM, "event loop");
  } else {
    c->o.uri = NULL;
    c->o.spawn_program = NULL;
  }
  if (st == FORAY_OK && c->kind <= URI_TLS) st = credentials(c, o, err);
  struct foray_edge_config ec = o->edge;
  if (*c->token && !ec.token) ec.token = c->token;
  if (st == FORAY_OK) st = foray_edge_create(&ec, &c->edge, err);
  if (st != FORAY_OK) {
    foray_client_close(c);
    return st;
  }
  event_add(c->wake, NULL);
  c->down_since = foray_clock_ns();
  c->pause_ms = RETRY_FIRST_MS;
  struct pipe_guard g;
  guard_begin(&g);
  connect_now(c);
  guard_end(&g);
  if (c->fatal.code) {
    if (err) *err = c->fatal;
    st = c->fatal.code;
    foray_client_close(c);
    return st;
  }
  *out = c;
  return FORAY_OK;
}

static void run_once(struct foray_client *c, int flags) {
  struct pipe_guard g;
  guard_begin(&g);
  event_base_loop(c->base, flags);
  guard_end(&g);
}

void foray_client_close(struct foray_client *c) {
  if (!c) return;
  if (c->bev && c->connected) {
    foray_edge_goodbye(c->edge, "done");
    hand_over(c);
    int64_t end = foray_clock_ns() + (int64_t)GOODBYE_MS * 1000000;
    while (c->bev && evbuffer_get_length(bufferevent_get_output(c->bev)) && foray_clock_ns() < end)
      run_once(c, EVLOOP_NONBLOCK);
  }
  if (c->bev) bufferevent_free(c->bev);
  if (c->pid) foray_spawn_reap(c->pid, REAP_MS);
  if (c->fd >= 0) close(c->fd);
  if (c->tick) event_free(c->tick);
  if (c->retry) event_free(c->retry);
  if (c->limit) event_free(c->limit);
  if (c->wake) event_free(c->wake);
  if (c->base) event_base_free(c->base);
  if (c->wake_fd >= 0) close(c->wake_fd);
  foray_tls_close(c->tls);
  foray_edge_destroy(c->edge);
  for (char **a = c->spawn_args; a && *a; a++) free(*a);
  free(c->spawn_args);
  free(c->host);
  free((void *)(uintptr_t)c->o.uri);
  free((void *)(uintptr_t)c->o.spawn_program);
  free(c);
}

void foray_client_interrupt(struct foray_client *c) {
  uint64_t one = 1;
  (void)!write(c->wake_fd, &one, sizeof one);
}

/* ---------------------------------------------------------------- waiting */

enum foray_status foray_client_wait(struct foray_client *c, int timeout_ms, struct foray_edge_event *ev,
                                    struct foray_err *err) {
  c->limit_hit = false;
  if (timeout_ms > 0) {
    struct timeval tv = in_ns((int64_t)timeout_ms * 1000000);
    event_add(c->limit, &tv);
  }
  enum foray_status st;
  for (bool looked = false;; looked = true) {
    hand_over(c);
    if (foray_edge_event(c->edge, ev)) {
      st = FORAY_OK;
      break;
    }
    if (c->interrupted) {
      c->interrupted = false;
      st = foray_err_set(err, FORAY_E_CANCELLED, "interrupted");
      break;
    }
    if (c->fatal.code) {
      if (err) *err = c->fatal;
      st = c->fatal.code;
      break;
    }
    if (c->limit_hit || (timeout_ms == 0 && looked)) {
      st = foray_err_set(err, FORAY_E_TIMEOUT, "no answer from the cloud at %s within %d ms", c->o.uri,
                         timeout_ms);
      break;
    }
    run_once(c, timeout_ms == 0 ? EVLOOP_NONBLOCK : EVLOOP_ONCE);
  }
  event_del(c->limit);
  return st;
}

enum foray_status foray_client_wait_ready(struct foray_client *c, int timeout_ms,
                                          void (*progress)(const struct foray_edge_event *, void *),
                                          void *user, struct foray_err *err) {
  int64_t end = foray_clock_ns() + (int64_t)timeout_ms * 1000000;
  while (!foray_edge_is_ready(c->edge)) {
    int left = -1;
    if (timeout_ms >= 0) {
      int64_t ms = (end - foray_clock_ns()) / 1000000;
      left = ms < 0 ? 0 : (int)ms;
    }
    struct foray_edge_event ev;
    enum foray_status st = foray_client_wait(c, left, &ev, err);
    if (st != FORAY_OK) return st;
    if (ev.kind == FORAY_EDGE_PROGRESS && progress) progress(&ev, user);
  }
  return FORAY_OK;
}

/* ---------------------------------------------------------------- the machine's calls */

static enum foray_status after(struct foray_client *c, enum foray_status st) {
  if (st != FORAY_OK) return st;
  hand_over(c);
  if (c->bev && c->connected) run_once(c, EVLOOP_NONBLOCK);
  return FORAY_OK;
}

enum foray_status foray_client_request(struct foray_client *c, const struct foray_gen_request *r,
                                       uint32_t *session, struct foray_err *err) {
  return after(c, foray_edge_open(c->edge, r, session, err));
}
enum foray_status foray_client_draft(struct foray_client *c, uint32_t session, uint32_t start,
                                     const uint32_t *ids, uint32_t n, uint32_t *round,
                                     struct foray_err *err) {
  return after(c, foray_edge_draft(c->edge, session, start, ids, n, foray_clock_ns(), round, err));
}
enum foray_status foray_client_cancel(struct foray_client *c, uint32_t session, struct foray_err *err) {
  return after(c, foray_edge_cancel(c->edge, session, err));
}
enum foray_status foray_client_score(struct foray_client *c, const uint32_t *ids, uint32_t n, uint32_t first,
                                     uint32_t *request, struct foray_err *err) {
  return after(c, foray_edge_score(c->edge, ids, n, first, request, err));
}
void foray_client_end(struct foray_client *c, uint32_t session, const struct foray_exit_counts *counts) {
  foray_edge_close_with(c->edge, session, counts);
  (void)!after(c, FORAY_OK);
}
struct foray_edge *foray_client_edge(struct foray_client *c) {
  return c->edge;
}
int foray_client_spawned_pid(const struct foray_client *c) { return (int)c->pid; }
