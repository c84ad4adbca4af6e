/* forayd: the cloud side. One thread loads the model and runs the passes, the main thread runs the sockets.
 */
#include "core/cpu.h"
#include "core/err.h"
#include "cloudtools/daemon.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { OPTIONS_MAX = 40 };

static struct foray_server *signalled;
static void on_signal(int sig) {
  (void)sig;
  if (signalled) foray_server_stop(signalled);
}

static void on_hangup(int sig) {
  (void)sig;
  if (signalled) foray_server_reload(signalled);
}
static void reload(void *arg) {
  struct foray_err err = {0};
  if (daemon_auth_reload(arg, &err))
    fprintf(stderr, "forayd: the old certificates stay: %s\n", err.msg);
  else
    fprintf(stderr, "forayd: reloaded\n");
}

static bool progress(void *arg, double done) {
  struct daemon *d = arg;
  int percent = (int)(done * 100);
  if (percent != d->last_percent) {
    d->last_percent = percent;
    foray_server_post_progress(d->server, "loading the model", (uint64_t)percent, 100);
  }
  return !atomic_load(&d->stop);
}
static void notify(void *arg) { foray_server_notify(((struct daemon *)arg)->server); }

/* What cannot be taken over (another model's ids, no room) is begun anew by its board. */
static void restore(void *arg, struct foray_journal_session *s) {
  struct daemon *d = arg;
  struct foray_err why = {0};
  const uint32_t vocab = foray_engine_target_vtable(d->target)->vocab;
  bool known = true;
  for (uint32_t i = 0; i < s->request->n_prompt; i++) known &= s->request->prompt[i] < vocab;
  for (uint32_t i = 0; i < s->n_ids; i++) known &= s->ids[i] < vocab;
  if ((!known || foray_batch_restore(d->sched, s, &why)) && !d->quiet)
    fprintf(stderr, "forayd: a session of the commit log is not taken over%s%s\n", why.code ? ": " : "",
            why.msg);
}

static void *engine_main(void *arg) {
  struct daemon *d = arg;
  struct foray_err err = {0};
  enum foray_status st = foray_engine_target_open(d->model, &d->engine, &d->target, &err);
  if (st == FORAY_OK && d->journal_path) st = foray_journal_open(d->journal_path, &d->journal, &err);
  if (st == FORAY_OK && d->journal)
    st = foray_journal_identity(d->journal, foray_engine_target_info(d->target)->model_sha256, &err);
  d->batch.journal = d->journal;
  if (st == FORAY_OK)
    st = foray_batch_create(foray_engine_target_vtable(d->target), &d->batch, &d->sched, &err);
  if (st == FORAY_OK && d->journal) {
    st = foray_journal_each(d->journal, restore, d, &err);
    if (st == FORAY_OK) st = foray_journal_start(d->journal, &err);
  }
  if (st != FORAY_OK) {
    foray_server_post_failed(d->server, &err);
    return NULL;
  }
  const struct foray_engine_target_info *i = foray_engine_target_info(d->target);
  d->id = (struct foray_cloud_identity){
      .model_name = i->name, .vocab = (uint32_t)i->engine->n_vocab, .ctx = (uint32_t)i->engine->n_ctx};
  memcpy(d->id.tokenizer_sha256, i->tokenizer_sha256, 32);
  memcpy(d->id.model_sha256, i->model_sha256, 32);
  if (getrandom(&d->id.instance, sizeof d->id.instance, 0) < 0) d->id.instance = 1;
  if (!d->quiet)
    fprintf(stderr, "forayd: %s (%s, %.1f MB of weights), context %d, %d threads, %s\n", i->name,
            i->engine->arch, (double)i->engine->weight_bytes / 1e6, i->engine->n_ctx, i->engine->threads,
            foray_isa_name(i->engine->isa));
  if (d->api) foray_cloudapi_model(d->api, foray_engine_target_model(d->target));
  daemon_notify("READY=1");
  foray_server_post_serve(d->server, d->sched, &d->id);
  while (!atomic_load(&d->stop)) {
    while (!atomic_load(&d->stop) && foray_batch_step(d->sched)) continue;
    if (!atomic_load(&d->stop)) foray_batch_wait(d->sched);
  }
  return NULL;
}

static int fail(const struct foray_err *err) {
  fprintf(stderr, "forayd: %s\n", err->msg);
  return err->code == FORAY_E_ARG ? 2 : 1;
}

/* The --config of the command line, before the rest is read: the command line wins over the file. */
static const char *config_of(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--config") && i + 1 < argc) return argv[i + 1];
    if (!strncmp(argv[i], "--config=", 9)) return argv[i] + 9;
  }
  return getenv("FORAY_ARG_CONFIG");
}

static int check_config(const struct foray_command *cmd, struct daemon *d, int argc, char **argv) {
  struct foray_err err = {0};
  if (argc != 3) {
    fprintf(stderr, "forayd check-config: name one file\n");
    return 2;
  }
  if (daemon_config_file(cmd, argv[2], &err) || daemon_check(d, &err)) return fail(&err);
  if (daemon_auth_open(d, &err)) return fail(&err);
  daemon_auth_close(d);
  printf("%s: ok\n", argv[2]);
  return 0;
}

/* Sockets and faces, as set. */
static enum foray_status open_all(struct daemon *d, struct foray_err *err) {
  if (d->isa) {
    enum foray_isa v;
    if (foray_isa_parse(d->isa, &v, err) != FORAY_OK) return err->code;
    d->engine.isa = (int)v;
  }
  d->engine.threads = d->threads;
  d->engine.n_ctx = d->ctx;
  d->engine.kv_bytes_max = (uint64_t)d->kv_mb << 20;
  d->engine.progress = progress;
  d->engine.progress_arg = d;
  d->batch.notify = notify;
  d->batch.arg = d;
  d->batch.sessions_max = (uint32_t)d->sessions;
  d->batch.rows_max = (uint32_t)d->rows;
  d->batch.tokens_max = (uint32_t)d->tokens_per_pass;
  d->batch.prefix_entries = d->prefixes;
  enum foray_status st = daemon_auth_open(d, err);
  if (st) return st;
  const int edge_fd = daemon_inherited("edge"), http_fd = daemon_inherited("http");
  const bool tcp = d->fd < 0 && (!d->unix_path || d->host || d->port >= 0 || edge_fd >= 0);
  const struct foray_server_opts so = {.host = tcp ? (d->host ? d->host : "127.0.0.1") : NULL,
                                       .port = d->port >= 0 ? d->port : DAEMON_PORT,
                                       .unix_path = d->unix_path,
                                       .fd = d->fd,
                                       .listen_fd = edge_fd > 0 ? edge_fd : 0,
                                       .tls = d->tls,
                                       .conns_max = (uint32_t)d->conns,
                                       .conns_per_address = (uint32_t)d->conns_per_address,
                                       .drain_ms = d->fd >= 0 ? 0 : d->drain * 1000};
  if ((st = foray_server_open(&so, &d->server, err))) return st;
  foray_server_set_auth(d->server, &(struct foray_hub_auth){d, daemon_allow});
  foray_server_on_reload(d->server, reload, d);
  if (tcp && !d->quiet)
    fprintf(stderr, "forayd: listening on %s port %d%s\n", so.host, foray_server_port(d->server),
            d->tls ? ", TLS" : "");
  if (d->unix_path && !d->quiet) fprintf(stderr, "forayd: listening on %s\n", d->unix_path);
  if (!d->http && http_fd < 0) return FORAY_OK;
  const struct foray_cloudapi_opts ao = {
      .host = d->http_host,
      .port = d->http_port,
      .http = {.tls = d->tls ? foray_tls_ctx(d->tls) : NULL, .listen_fd = http_fd > 0 ? http_fd : 0},
      .authorize = daemon_authorize,
      .route = daemon_route,
      .arg = d};
  if ((st = foray_cloudapi_open(d->server, &ao, &d->api, err))) return st;
  if (!d->quiet)
    fprintf(stderr, "forayd: HTTP on %s port %d%s\n", d->http_host, foray_cloudapi_port(d->api),
            d->tls ? ", TLS" : "");
  return FORAY_OK;
}

static void close_all(struct daemon *d) {
  foray_cloudapi_close(d->api);
  foray_server_close(d->server);
  foray_batch_destroy(d->sched);
  foray_journal_close(d->journal);
  foray_engine_target_close(d->target);
  daemon_auth_close(d);
}

static int serve(struct daemon *d, struct foray_err *err) {
  signal(SIGPIPE, SIG_IGN);
  if (open_all(d, err)) {
    close_all(d);
    return fail(err);
  }
  signalled = d->server;
  struct sigaction sa = {.sa_handler = on_signal};
  sigaction(SIGTERM, &sa, NULL);
  if (d->fd < 0) sigaction(SIGINT, &sa, NULL);
  sa.sa_handler = on_hangup;
  if (d->fd < 0) sigaction(SIGHUP, &sa, NULL);
  pthread_t engine;
  if (pthread_create(&engine, NULL, engine_main, d) != 0) {
    foray_err_set(err, FORAY_E_NOMEM, "cannot start a thread");
    return fail(err);
  }
  enum foray_status st = foray_server_run(d->server, err);
  daemon_notify("STOPPING=1");
  atomic_store(&d->stop, true);
  /* Not through d->sched: the engine thread may be about to write it. It looks at stop before it sleeps, and
   * what was posted is behind a lock. */
  foray_server_wake_scheduler(d->server);
  pthread_join(engine, NULL);
  signal(SIGTERM, SIG_DFL);
  signal(SIGHUP, SIG_IGN);
  signalled = NULL;
  close_all(d);
  return st == FORAY_OK ? 0 : fail(err);
}

int main(int argc, char **argv) {
  static struct daemon d;
  struct foray_opt opts[OPTIONS_MAX];
  daemon_defaults(&d);
  daemon_options(&d, opts);
  const struct foray_command cmd = {
      "forayd", "-m MODEL [OPTIONS] | init | token | check-config FILE",
      "Serves a target model: verifies drafts and decodes, for many edges at once.", opts,
      "Listens on 127.0.0.1 unless told otherwise; other addresses need --tls and --tokens or --client-certs "
      "required "
      "(docs/security.md).\n"
      "forayd init DIR makes a CA and certificates, forayd token adds and revokes tokens.\n"
      "SIGTERM and SIGINT end it: no new connections, sessions under way may finish, a second signal "
      "ends at once. Edges go on with another server at the token where they stopped. SIGHUP reads "
      "certificates anew."};
  struct foray_err err = {0};
  int rest = 0;
  if (argc > 1 && !strcmp(argv[1], "init")) return daemon_init(argc - 1, argv + 1);
  if (argc > 1 && !strcmp(argv[1], "token")) return daemon_token(argc - 1, argv + 1);
  if (argc > 1 && !strcmp(argv[1], "check-config")) return check_config(&cmd, &d, argc, argv);
  const char *config = config_of(argc, argv);
  if (config && daemon_config_file(&cmd, config, &err)) return fail(&err);
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_RUN: break;
  case FORAY_ARGS_DONE: return 0;
  case FORAY_ARGS_ERROR: fprintf(stderr, "forayd: %s\n", err.msg); return 2;
  }
  if (rest < argc) {
    fprintf(stderr, "forayd: what is '%s'? See forayd --help\n", argv[rest]);
    return 2;
  }
  if (daemon_check(&d, &err)) return fail(&err);
  return serve(&d, &err);
}
