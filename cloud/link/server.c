#include "link/server.h"

#include "core/clock.h"
#include "core/err.h"
#include "tls/guard.h"
#include "tls/tls.h"

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
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct conn {
  struct conn *next, **prev;
  struct foray_server *s;
  struct bufferevent *bev;
  struct event *timer;
  uint64_t id, address;
  bool inherited;
};

struct foray_server {
  struct foray_server_opts o;
  struct event_base *base;
  struct ev_token_bucket_cfg *rate;
  struct foray_hub *hub;
  struct evconnlistener *tcp, *local;
  struct event *wake, *drain;
  char *unix_path;
  int wake_fd, port;
  struct conn *conns;
  struct foray_server_hooks hooks;
  struct foray_server_stats stats;
  bool stopping, served;
  int64_t drain_end;
  atomic_int stops, reloads;
  void (*on_reload)(void *);
  void *reload_arg;
  /* mailbox of other threads */
  pthread_mutex_t lock;
  bool has_progress, has_serve, has_failed;
  char what[64];
  uint64_t done, total;
  struct foray_batch *batch;
  struct foray_cloud_identity id;
  struct foray_err failed;
};

/* ---------------------------------------------------------------- connections */

static void conn_end(struct conn *c) {
  struct foray_server *s = c->s;
  foray_hub_disconnect(s->hub, c->id);
  s->stats.open--;
  if ((*c->prev = c->next)) c->next->prev = c->prev;
  if (c->bev) bufferevent_free(c->bev);
  if (c->timer) event_free(c->timer);
  if (c->inherited || (s->stopping && !s->conns && !(s->hooks.busy && s->hooks.busy(s->hooks.arg))))
    event_base_loopbreak(s->base);
  free(c);
}

/* Sends what waits. False: the connection has ended and c is gone. */
static bool conn_flush(struct conn *c) {
  const uint8_t *p;
  size_t n = foray_hub_output(c->s->hub, c->id, &p);
  struct evbuffer *out = bufferevent_get_output(c->bev);
  bool ending = foray_hub_ending(c->s->hub, c->id);
  /* A reader that is too slow fills the machine's own bounded buffer, which then ends the connection. */
  if (n && (ending || evbuffer_get_length(out) < FORAY_PROTO_OUTPUT_MAX) &&
      bufferevent_write(c->bev, p, n) == 0) {
    c->s->stats.bytes_out += n;
    foray_hub_output_consumed(c->s->hub, c->id, n);
  }
  if (ending) {
    bufferevent_disable(c->bev, EV_READ);
    if (evbuffer_get_length(out) == 0) {
      conn_end(c);
      return false;
    }
  }
  int64_t d = foray_hub_deadline(c->s->hub, c->id);
  if (d != INT64_MAX) {
    int64_t ns = d - foray_clock_ns() + 1000;
    if (ns < 0) ns = 0;
    struct timeval tv = {.tv_sec = ns / 1000000000, .tv_usec = ns % 1000000000 / 1000};
    event_add(c->timer, &tv);
  }
  return true;
}

static void flush_all(struct foray_server *s) {
  for (struct conn *c = s->conns, *next; c; c = next) {
    next = c->next;
    conn_flush(c);
  }
}

static void on_read(struct bufferevent *bev, void *arg) {
  struct conn *c = arg;
  struct evbuffer *in = bufferevent_get_input(bev);
  c->s->stats.bytes_in += evbuffer_get_length(in);
  for (size_t n; (n = evbuffer_get_contiguous_space(in)) > 0; evbuffer_drain(in, n))
    if (foray_hub_feed(c->s->hub, c->id, evbuffer_pullup(in, (ssize_t)n), n, foray_clock_ns(), NULL) !=
        FORAY_OK)
      break; /* the hub marks it as ending, with the reason in the output */
  conn_flush(c);
}
static void on_written(struct bufferevent *bev, void *arg) {
  (void)bev;
  conn_flush(arg);
}
static void on_event(struct bufferevent *bev, short what, void *arg) {
  struct conn *c = arg;
  if (!(what & BEV_EVENT_CONNECTED)) {
    conn_end(c);
    return;
  }
  SSL *ssl = bufferevent_openssl_get_ssl(bev); /* the handshake is done */
  X509 *cert = ssl ? SSL_get_peer_certificate(ssl) : NULL;
  char name[64] = "";
  if (cert && X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, sizeof name) < 0)
    name[0] = 0;
  X509_free(cert);
  if (ssl && SSL_session_reused(ssl)) c->s->stats.tls_resumed++;
  foray_hub_identify(c->s->hub, c->id, c->address, name);
}
static void on_timer(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct conn *c = arg;
  if (foray_hub_tick(c->s->hub, c->id, foray_clock_ns(), NULL) != FORAY_OK) {
    conn_end(c);
    return;
  }
  conn_flush(c);
}

static uint32_t from_address(const struct foray_server *s, uint64_t address) {
  uint32_t n = 0;
  for (const struct conn *c = s->conns; c; c = c->next) n += c->address == address;
  return n;
}

/* address: of a TCP peer (guard.h), 0 for others. */
static void conn_start(struct foray_server *s, int fd, bool inherited, uint64_t address) {
  if (address && from_address(s, address) >= s->o.conns_per_address) {
    close(fd);
    s->stats.refused++;
    return;
  }
  struct conn *c = calloc(1, sizeof *c);
  uint64_t id = c ? foray_hub_connect(s->hub, foray_clock_ns()) : 0;
  if (!id) { /* full: the edge tries again later */
    free(c);
    close(fd);
    s->stats.refused++;
    return;
  }
  s->stats.conns++;
  s->stats.open++;
  evutil_make_socket_nonblocking(fd);
  *c = (struct conn){
      .next = s->conns, .prev = &s->conns, .s = s, .id = id, .address = address, .inherited = inherited};
  if (s->conns) s->conns->prev = &c->next;
  s->conns = c;
  if (address && s->o.tls) {
    SSL *ssl = SSL_new(foray_tls_ctx(s->o.tls));
    if (ssl)
      c->bev =
          bufferevent_openssl_socket_new(s->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    if (ssl && !c->bev) SSL_free(ssl);
    if (c->bev) bufferevent_openssl_set_allow_dirty_shutdown(c->bev, 1);
  } else {
    c->bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
  }
  c->timer = evtimer_new(s->base, on_timer, c);
  if (!c->bev || !c->timer) {
    if (!c->bev) close(fd);
    conn_end(c);
    return;
  }
  foray_hub_identify(s->hub, id, address, "");
  bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
  if (address && s->rate) bufferevent_set_rate_limit(c->bev, s->rate);
  bufferevent_enable(c->bev, EV_READ | EV_WRITE);
  conn_flush(c);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg) {
  (void)l;
  (void)len;
  int one = 1;
  if (sa->sa_family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  conn_start(arg, fd, false, sa->sa_family == AF_UNIX ? 0 : foray_guard_address(sa));
}

void foray_server_hook(struct foray_server *s, const struct foray_server_hooks *h) {
  s->hooks = *h;
  foray_hub_sink(s->hub, h->result, h->arg);
}
void foray_server_set_auth(struct foray_server *s, const struct foray_hub_auth *a) {
  foray_hub_set_auth(s->hub, a);
}
void foray_server_set_tls(struct foray_server *s, struct foray_tls *tls) { s->o.tls = tls; }
struct event_base *foray_server_base(struct foray_server *s) {
  return s->base;
}
void foray_server_stats_get(const struct foray_server *s, struct foray_server_stats *out) { *out = s->stats; }

/* ---------------------------------------------------------------- other threads */

static void poke(struct foray_server *s) {
  uint64_t one = 1;
  (void)!write(s->wake_fd, &one, sizeof one);
}
void foray_server_notify(struct foray_server *s) { poke(s); }
void foray_server_reload(struct foray_server *s) {
  atomic_store(&s->reloads, 1);
  poke(s);
}
void foray_server_on_reload(struct foray_server *s, void (*fn)(void *), void *arg) {
  s->on_reload = fn;
  s->reload_arg = arg;
}
void foray_server_stop(struct foray_server *s) {
  atomic_fetch_add(&s->stops, 1);
  poke(s);
}
void foray_server_post_progress(struct foray_server *s, const char *what, uint64_t done, uint64_t total) {
  pthread_mutex_lock(&s->lock);
  snprintf(s->what, sizeof s->what, "%s", what);
  s->done = done;
  s->total = total;
  s->has_progress = true;
  pthread_mutex_unlock(&s->lock);
  poke(s);
}
void foray_server_post_serve(struct foray_server *s, struct foray_batch *batch,
                             const struct foray_cloud_identity *id) {
  pthread_mutex_lock(&s->lock);
  s->batch = batch;
  s->id = *id;
  s->has_serve = true;
  pthread_mutex_unlock(&s->lock);
  poke(s);
}
void foray_server_post_failed(struct foray_server *s, const struct foray_err *why) {
  pthread_mutex_lock(&s->lock);
  s->failed = *why;
  s->has_failed = true;
  pthread_mutex_unlock(&s->lock);
  poke(s);
}

void foray_server_wake_scheduler(struct foray_server *s) {
  pthread_mutex_lock(&s->lock);
  if (s->batch) foray_batch_wake(s->batch);
  pthread_mutex_unlock(&s->lock);
}

static void drain(struct foray_server *s) {
  uint32_t busy = 0;
  if (foray_clock_ns() >= s->drain_end || atomic_load(&s->stops) > 1) {
    foray_hub_goodbye(s->hub, "the server ends");
  } else {
    busy = foray_hub_goodbye_idle(s->hub, "the server ends");
    if (s->hooks.busy) busy += s->hooks.busy(s->hooks.arg);
  }
  flush_all(s);
  if (!s->conns && !busy) event_base_loopbreak(s->base);
  if (busy) {
    struct timeval tv = {.tv_usec = 50000};
    event_add(s->drain, &tv);
  }
}
static void on_drain(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  drain(arg);
}

static void on_wake(evutil_socket_t fd, short what, void *arg) {
  (void)what;
  struct foray_server *s = arg;
  uint64_t v;
  (void)!read(fd, &v, sizeof v);
  pthread_mutex_lock(&s->lock);
  bool progress = s->has_progress, serve = s->has_serve, failed = s->has_failed;
  char text[64];
  memcpy(text, s->what, sizeof text);
  uint64_t done = s->done, total = s->total;
  s->has_progress = s->has_serve = s->has_failed = false;
  pthread_mutex_unlock(&s->lock);
  if (atomic_exchange(&s->reloads, 0) && s->on_reload) s->on_reload(s->reload_arg);
  if (progress) foray_hub_progress(s->hub, text, done, total);
  if (serve) {
    foray_hub_serve(s->hub, s->batch, &s->id);
    if (s->hooks.serve) s->hooks.serve(s->hooks.arg, s->batch, &s->id);
  }
  if (failed) {
    foray_hub_fail(s->hub, s->failed.code, s->failed.msg);
    s->stopping = true;
    s->drain_end = foray_clock_ns() + 1000000000; /* for those whose hello is still on the way */
  }
  foray_hub_pump(s->hub);
  if (atomic_load(&s->stops) && !s->stopping) {
    s->stopping = true;
    s->drain_end = foray_clock_ns() + (int64_t)s->o.drain_ms * 1000000;
    if (s->tcp) evconnlistener_disable(s->tcp);
    if (s->local) evconnlistener_disable(s->local);
    if (s->hooks.drain) s->hooks.drain(s->hooks.arg);
  }
  flush_all(s);
  if (s->stopping) {
    if (failed && foray_hub_count(s->hub)) { /* let a hello come in and be answered */
      struct timeval tv = {.tv_usec = 300000};
      event_add(s->drain, &tv);
    } else {
      drain(s);
    }
  }
}

/* ---------------------------------------------------------------- life */

static void note_port(struct foray_server *s) {
  struct sockaddr_storage sa;
  socklen_t len = sizeof sa;
  if (getsockname(evconnlistener_get_fd(s->tcp), (struct sockaddr *)&sa, &len) == 0 &&
      sa.ss_family != AF_UNIX)
    s->port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
                                             : ((struct sockaddr_in *)&sa)->sin_port);
}

static enum foray_status listen_inherited(struct foray_server *s, struct foray_err *err) {
  evutil_make_socket_nonblocking(s->o.listen_fd);
  s->tcp = evconnlistener_new(s->base, on_accept, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0,
                              s->o.listen_fd);
  if (!s->tcp)
    return foray_err_set(err, FORAY_E_NET, "file descriptor %d is no listening socket", s->o.listen_fd);
  note_port(s);
  return FORAY_OK;
}

static enum foray_status listen_tcp(struct foray_server *s, struct foray_err *err) {
  char port[16];
  snprintf(port, sizeof port, "%d", s->o.port);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *ai = NULL;
  int r = getaddrinfo(s->o.host, port, &hints, &ai);
  if (r != 0) return foray_err_set(err, FORAY_E_NET, "host '%s': %s", s->o.host, gai_strerror(r));
  s->tcp = evconnlistener_new_bind(s->base, on_accept, s,
                                   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 128,
                                   ai->ai_addr, (int)ai->ai_addrlen);
  int e = errno;
  freeaddrinfo(ai);
  if (!s->tcp)
    return foray_err_set(err, FORAY_E_NET, "cannot listen on %s port %d: %s", s->o.host, s->o.port,
                         strerror(e));
  note_port(s);
  return FORAY_OK;
}

static enum foray_status listen_unix(struct foray_server *s, struct foray_err *err) {
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  if (strlen(s->o.unix_path) >= sizeof sa.sun_path)
    return foray_err_set(err, FORAY_E_ARG, "%s: the path is too long for a Unix socket", s->o.unix_path);
  memcpy(sa.sun_path, s->o.unix_path, strlen(s->o.unix_path) + 1);
  struct stat st;
  if (stat(sa.sun_path, &st) == 0 && S_ISSOCK(st.st_mode)) { /* of a server that was killed? */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool live = fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
    if (fd >= 0) close(fd);
    if (live) return foray_err_set(err, FORAY_E_BUSY, "%s: another server listens there", sa.sun_path);
    unlink(sa.sun_path);
  }
  s->local = evconnlistener_new_bind(s->base, on_accept, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
                                     128, (struct sockaddr *)&sa, sizeof sa);
  if (!s->local)
    return foray_err_set(err, FORAY_E_NET, "cannot listen on %s: %s", sa.sun_path, strerror(errno));
  s->unix_path = strdup(sa.sun_path);
  return FORAY_OK;
}

enum foray_status foray_server_open(const struct foray_server_opts *o, struct foray_server **out,
                                    struct foray_err *err) {
  *out = NULL;
  struct foray_server *s = calloc(1, sizeof *s);
  if (!s) return foray_err_set(err, FORAY_E_NOMEM, "server");
  s->o = *o;
  if (!s->o.conns_max) s->o.conns_max = FORAY_LINK_CONNS;
  if (!s->o.conns_per_address) s->o.conns_per_address = FORAY_LINK_CONNS_PER_ADDRESS;
  if (!s->o.bytes_per_second) s->o.bytes_per_second = FORAY_LINK_BYTES_PER_SECOND;
  if (!s->o.cloud.hello_ns) s->o.cloud.hello_ns = (int64_t)FORAY_LINK_HELLO_MS * 1000000;
  s->rate = ev_token_bucket_cfg_new(s->o.bytes_per_second, s->o.bytes_per_second, EV_RATE_LIMIT_MAX,
                                    EV_RATE_LIMIT_MAX, NULL);
  pthread_mutex_init(&s->lock, NULL);
  s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  s->base = event_base_new();
  enum foray_status st = FORAY_OK;
  if (s->wake_fd < 0 || !s->base ||
      !(s->wake = event_new(s->base, s->wake_fd, EV_READ | EV_PERSIST, on_wake, s)) ||
      !(s->drain = evtimer_new(s->base, on_drain, s)))
    st = foray_err_set(err, FORAY_E_NOMEM, "event loop");
  if (st == FORAY_OK) {
    event_add(s->wake, NULL);
    st = foray_hub_create(&s->o.cloud, s->o.conns_max, &s->hub, err);
  }
  if (st == FORAY_OK && s->o.listen_fd > 0)
    st = listen_inherited(s, err);
  else if (st == FORAY_OK && s->o.host)
    st = listen_tcp(s, err);
  if (st == FORAY_OK && s->o.unix_path) st = listen_unix(s, err);
  if (st == FORAY_OK && s->o.fd >= 0) {
    int type;
    socklen_t len = sizeof type;
    if (getsockopt(s->o.fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM)
      st = foray_err_set(err, FORAY_E_ARG, "file descriptor %d is no connected stream", s->o.fd);
    else
      conn_start(s, s->o.fd, true, 0);
  }
  if (st != FORAY_OK) {
    foray_server_close(s);
    return st;
  }
  *out = s;
  return FORAY_OK;
}

void foray_server_close(struct foray_server *s) {
  if (!s) return;
  while (s->conns) conn_end(s->conns);
  if (s->tcp) evconnlistener_free(s->tcp);
  if (s->local) evconnlistener_free(s->local);
  if (s->unix_path) unlink(s->unix_path);
  free(s->unix_path);
  if (s->wake) event_free(s->wake);
  if (s->drain) event_free(s->drain);
  if (s->base) event_base_free(s->base);
  if (s->rate) ev_token_bucket_cfg_free(s->rate);
  if (s->wake_fd >= 0) close(s->wake_fd);
  foray_hub_destroy(s->hub);
  pthread_mutex_destroy(&s->lock);
  free(s);
}

int foray_server_port(const struct foray_server *s) { return s->port; }

enum foray_status foray_server_run(struct foray_server *s, struct foray_err *err) {
  /* An edge may be gone when its answer is written: that is an error code here, not a signal. */
  sigset_t pipe, old;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &old);
  event_base_dispatch(s->base);
  if (!sigismember(&old, SIGPIPE)) sigtimedwait(&pipe, NULL, &(struct timespec){0, 0});
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (!s->failed.code) return FORAY_OK;
  if (err) *err = s->failed;
  return s->failed.code;
}
