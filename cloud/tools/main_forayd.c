/* forayd: the cloud side. One thread loads the model and runs the passes, the main thread runs the sockets.
 */
#include "batch/engine_target.h"
#include "core/args.h"
#include "core/cpu.h"
#include "core/err.h"
#include "cloudapi/cloudapi.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { DEFAULT_PORT = 8700 };

struct daemon {
  const char *model;
  struct foray_engine_opts engine;
  struct foray_batch_opts batch;
  struct foray_server *server;
  struct foray_cloudapi *api; /* NULL: no --http */
  struct foray_engine_target *target;
  struct foray_batch *sched;
  struct foray_cloud_identity id;
  atomic_bool stop;
  bool quiet;
  int last_percent;
};

static struct foray_server *signalled;
static void on_signal(int sig) {
  (void)sig;
  if (signalled) foray_server_stop(signalled);
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

static void *engine_main(void *arg) {
  struct daemon *d = arg;
  struct foray_err err = {0};
  enum foray_status st = foray_engine_target_open(d->model, &d->engine, &d->target, &err);
  if (st == FORAY_OK)
    st = foray_batch_create(foray_engine_target_vtable(d->target), &d->batch, &d->sched, &err);
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
  foray_server_post_serve(d->server, d->sched, &d->id);
  while (!atomic_load(&d->stop)) {
    while (!atomic_load(&d->stop) && foray_batch_step(d->sched)) continue;
    if (!atomic_load(&d->stop)) foray_batch_wait(d->sched);
  }
  return NULL;
}

static int fail(const struct foray_err *err) {
  fprintf(stderr, "forayd: %s\n", err->msg);
  return 1;
}

int main(int argc, char **argv) {
  const char *host = NULL, *unix_path = NULL, *isa = NULL, *http = NULL;
  int port = -1, fd = -1, ctx = 4096, kv_mb = 0, drain = 10;
  struct daemon d = {.engine = foray_engine_opts_default(), .last_percent = -1};
  int threads = 0;
  const struct foray_opt opts[] = {
      {"model", 'm', FORAY_OPT_STR, &d.model, "NAME|FILE", "model to serve", 0, 0},
      {"host", 0, FORAY_OPT_STR, &host, "HOST", "address to listen on (127.0.0.1)", 0, 0},
      {"port", 0, FORAY_OPT_INT, &port, "N", "TCP port (8700; 0: any free one)", 0, 65535},
      {"unix", 0, FORAY_OPT_STR, &unix_path, "PATH", "listen on a Unix socket instead", 0, 0},
      {"http", 0, FORAY_OPT_STR, &http, "[HOST:]PORT",
       "serve the OpenAI API, /metrics and /health over HTTP too (host 127.0.0.1; port 0: any free one)", 0,
       0},
      {"fd", 0, FORAY_OPT_INT, &fd, "N", "serve one inherited, connected stream and end with it", 0, 1 << 20},
      {"threads", 't', FORAY_OPT_INT, &threads, "N", "threads (0: one per processor)", 0, 1024},
      {"ctx-size", 'c', FORAY_OPT_INT, &ctx, "N", "longest session, tokens (4096; 0: what the model allows)",
       0, FORAY_PROTO_PROMPT_MAX},
      {"kv-mb", 0, FORAY_OPT_INT, &kv_mb, "MB", "memory for keys and values (0: no limit)", 0, 1 << 20},
      {"isa", 0, FORAY_OPT_STR, &isa, "NAME", "kernels: scalar, avx2, avx512, amx (the best there is)", 0, 0},
      {"drain", 0, FORAY_OPT_INT, &drain, "SECONDS", "after SIGTERM, time for sessions under way (10)", 0,
       3600},
      {"quiet", 'q', FORAY_OPT_FLAG, &d.quiet, NULL, "say nothing but errors", 0, 0},
      {0}};
  const struct foray_command cmd = {
      "forayd", "-m MODEL [OPTIONS]",
      "Serves a target model: verifies drafts and decodes, for many edges at once.", opts,
      "Listens on 127.0.0.1 unless told otherwise: there is no authentication yet, so do not give it a "
      "public "
      "address.\nSIGTERM and SIGINT end it: no new connections, sessions under way may finish, a second "
      "signal "
      "ends at once. Edges go on with another server at the token where they stopped."};
  struct foray_err err = {0};
  int rest = 0;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_RUN: break;
  case FORAY_ARGS_DONE: return 0;
  case FORAY_ARGS_ERROR: fprintf(stderr, "forayd: %s\n", err.msg); return 2;
  }
  if (!d.model || rest < argc) {
    if (!d.model)
      fprintf(stderr, "forayd: -m MODEL is needed; see forayd --help\n");
    else
      fprintf(stderr, "forayd: what is '%s'? See forayd --help\n", argv[rest]);
    return 2;
  }
  if (isa) {
    enum foray_isa v;
    if (foray_isa_parse(isa, &v, &err) != FORAY_OK) return fail(&err);
    d.engine.isa = (int)v;
  }
  d.engine.threads = threads;
  d.engine.n_ctx = ctx;
  d.engine.kv_bytes_max = (uint64_t)kv_mb << 20;
  d.engine.progress = progress;
  d.engine.progress_arg = &d;
  d.batch.notify = notify;
  d.batch.arg = &d;

  bool tcp = fd < 0 && (!unix_path || host || port >= 0);
  struct foray_server_opts so = {.host = tcp ? (host ? host : "127.0.0.1") : NULL,
                                 .port = port >= 0 ? port : DEFAULT_PORT,
                                 .unix_path = unix_path,
                                 .fd = fd,
                                 .drain_ms = fd >= 0 ? 0 : drain * 1000};
  if (foray_server_open(&so, &d.server, &err) != FORAY_OK) return fail(&err);
  signalled = d.server;
  struct sigaction sa = {.sa_handler = on_signal};
  sigaction(SIGTERM, &sa, NULL);
  if (fd < 0) sigaction(SIGINT, &sa, NULL);
  signal(SIGPIPE, SIG_IGN);
  if (tcp && !d.quiet)
    fprintf(stderr, "forayd: listening on %s port %d\n", so.host, foray_server_port(d.server));
  if (unix_path && !d.quiet) fprintf(stderr, "forayd: listening on %s\n", unix_path);

  if (http) {
    struct foray_cloudapi_opts ao = {0};
    char http_host[256];
    if (foray_http_address(http, http_host, sizeof http_host, &ao.port, &err) != FORAY_OK) return fail(&err);
    ao.host = http_host;
    if (foray_cloudapi_open(d.server, &ao, &d.api, &err) != FORAY_OK) return fail(&err);
    if (!d.quiet) fprintf(stderr, "forayd: HTTP on %s port %d\n", http_host, foray_cloudapi_port(d.api));
  }
  pthread_t engine;
  if (pthread_create(&engine, NULL, engine_main, &d) != 0) {
    foray_err_set(&err, FORAY_E_NOMEM, "cannot start a thread");
    return fail(&err);
  }
  enum foray_status st = foray_server_run(d.server, &err);
  atomic_store(&d.stop, true);
  /* Not through d.sched: the engine thread may be about to write it. It looks at stop before it sleeps, and
   * what was posted is behind a lock. */
  foray_server_wake_scheduler(d.server);
  pthread_join(engine, NULL);
  signal(SIGTERM, SIG_DFL);
  signalled = NULL;
  foray_cloudapi_close(d.api);
  foray_server_close(d.server);
  foray_batch_destroy(d.sched);
  foray_engine_target_close(d.target);
  return st == FORAY_OK ? 0 : fail(&err);
}
