#include "unit/e2e_server.h"

#include "batch/engine_target.h"
#include "link/server.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct test_server {
  struct toy *toy;
  struct foray_engine_target *real;
  const struct foray_target *target;
  struct foray_server *srv;
  struct foray_batch *batch;
  struct foray_cloud_identity id;
  pthread_t loop, engine;
  atomic_bool stop;
  bool tcp, running;
  int port;
  char dir[64], uri[128];
};

static void *loop_main(void *arg) {
  (void)!foray_server_run(((struct test_server *)arg)->srv, NULL);
  return NULL;
}
static void *engine_main(void *arg) {
  struct test_server *s = arg;
  while (!atomic_load(&s->stop)) {
    while (!atomic_load(&s->stop) && foray_batch_step(s->batch)) continue;
    if (!atomic_load(&s->stop)) foray_batch_wait(s->batch);
  }
  return NULL;
}
static void notify(void *arg) { foray_server_notify(((struct test_server *)arg)->srv); }

bool test_server_restart(struct test_server *s) {
  char path[96];
  snprintf(path, sizeof path, "%s/sock", s->dir);
  struct foray_server_opts so = {
      .host = s->tcp ? "127.0.0.1" : NULL, .port = s->port, .unix_path = s->tcp ? NULL : path, .fd = -1};
  struct foray_batch_opts bo = {.notify = notify, .arg = s};
  if (foray_server_open(&so, &s->srv, NULL) != FORAY_OK) return false;
  if (foray_batch_create(s->target, &bo, &s->batch, NULL) != FORAY_OK) return false;
  s->port = foray_server_port(s->srv);
  if (s->tcp)
    snprintf(s->uri, sizeof s->uri, "127.0.0.1:%d", s->port);
  else
    snprintf(s->uri, sizeof s->uri, "unix:%s", path);
  foray_server_post_serve(s->srv, s->batch, &s->id);
  atomic_store(&s->stop, false);
  s->running = pthread_create(&s->loop, NULL, loop_main, s) == 0 &&
               pthread_create(&s->engine, NULL, engine_main, s) == 0;
  return s->running;
}

struct test_server *test_server_start(const char *model, struct toy *toy, bool tcp) {
  struct test_server *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->tcp = tcp;
  s->toy = toy;
  snprintf(s->dir, sizeof s->dir, "/tmp/foray-test-XXXXXX");
  if (!mkdtemp(s->dir)) goto failed;
  if (model) {
    struct foray_engine_opts o = foray_engine_opts_default();
    o.n_ctx = 1024;
    struct foray_err err = {0};
    if (foray_engine_target_open(model, &o, &s->real, &err) != FORAY_OK) {
      fprintf(stderr, "%s\n", err.msg);
      goto failed;
    }
    s->target = foray_engine_target_vtable(s->real);
    const struct foray_engine_target_info *i = foray_engine_target_info(s->real);
    memcpy(s->id.tokenizer_sha256, i->tokenizer_sha256, 32);
    memcpy(s->id.model_sha256, i->model_sha256, 32);
    s->id.model_name = i->name;
  } else {
    s->target = &toy->target;
    s->id.model_name = "toy";
  }
  s->id.vocab = s->target->vocab;
  s->id.ctx = s->target->ctx;
  if (test_server_restart(s)) return s;
failed:
  foray_engine_target_close(s->real);
  free(s);
  return NULL;
}

void test_server_kill(struct test_server *s) {
  if (!s->running) return;
  s->running = false;
  foray_server_stop(s->srv);
  foray_server_stop(s->srv); /* twice: at once */
  pthread_join(s->loop, NULL);
  atomic_store(&s->stop, true);
  foray_batch_wake(s->batch);
  pthread_join(s->engine, NULL);
  foray_server_close(s->srv);
  foray_batch_destroy(s->batch);
}

void test_server_stop(struct test_server *s) {
  test_server_kill(s);
  rmdir(s->dir);
  foray_engine_target_close(s->real);
  free(s);
}
const char *test_server_uri(const struct test_server *s) { return s->uri; }
