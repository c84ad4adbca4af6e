/* foray serve: the OpenAI API at the edge. Drafts are made here, the cloud verifies them; one generation at a
 * time uses the device, the others wait in line. The loop thread owns HTTP, the worker thread owns the
 * generator. */
#include "core/clock.h"
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/gen_opts.h"
#include "http/api.h"

#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { QUEUE_MAX = 64 };

struct job {
  struct job *next;
  uint64_t id;
  struct foray_gen_request *q; /* owned */
  bool cancelled;              /* under lock */
};

/* From the worker to the loop. */
struct note {
  struct note *next;
  uint64_t id;
  uint32_t token, n, drafted, accepted;
  enum foray_finish finish;
  struct foray_err err;
};

struct totals {
  uint64_t drafted, accepted, verifications, tokens, bytes_up, bytes_down, device_bytes, runs, failed;
  uint64_t exit_drafted[FORAY_EXITS_SHOWN_MAX], exit_accepted[FORAY_EXITS_SHOWN_MAX];
  int exit_layer[FORAY_EXITS_SHOWN_MAX];
  uint32_t n_exits;
  double draft_seconds, wait_seconds, seconds;
};

struct serve {
  struct gen_opts o;
  struct foray_generator *g;
  struct foray_http_api *api;
  struct foray_http_server *http;
  struct event_base *base;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  struct job *jobs, **last_job, *running;
  uint32_t n_jobs;
  struct note *notes, **last_note;
  struct totals t;
  bool stop;
  int fd;
};

static void poke(struct serve *s) {
  uint64_t one = 1;
  (void)!write(s->fd, &one, sizeof one);
}

/* ---------------------------------------------------------------- the worker */

static void post(struct serve *s, const struct note *n) {
  struct note *c = malloc(sizeof *c);
  if (!c) return; /* the client's connection ends by its own time-out */
  *c = *n;
  c->next = NULL;
  pthread_mutex_lock(&s->lock);
  *s->last_note = c;
  s->last_note = &c->next;
  pthread_mutex_unlock(&s->lock);
  poke(s);
}

static bool on_token(void *user, const struct foray_token *t) {
  struct serve *s = user;
  pthread_mutex_lock(&s->lock);
  const bool go = !s->running->cancelled && !s->stop;
  const uint64_t id = s->running->id;
  pthread_mutex_unlock(&s->lock);
  if (go) post(s, &(struct note){.id = id, .token = (uint32_t)t->id, .n = 1});
  return go;
}

static void add_up(struct serve *s, const struct foray_result *r, bool ok) {
  pthread_mutex_lock(&s->lock);
  struct totals *t = &s->t;
  t->runs++;
  t->failed += !ok;
  t->drafted += r->drafted;
  t->accepted += r->accepted;
  t->verifications += r->verifications;
  t->tokens += r->tokens;
  t->bytes_up += r->bytes_up;
  t->bytes_down += r->bytes_down;
  t->device_bytes += r->device_bytes;
  t->draft_seconds += r->draft_seconds;
  t->wait_seconds += r->wait_seconds;
  t->seconds += r->seconds;
  if (r->n_exits > t->n_exits) t->n_exits = r->n_exits;
  for (uint32_t e = 0; e <= r->n_exits && e < FORAY_EXITS_SHOWN_MAX; e++) {
    t->exit_layer[e] = r->exits[e].layer;
    t->exit_drafted[e] += r->exits[e].drafted;
    t->exit_accepted[e] += r->exits[e].accepted;
  }
  pthread_mutex_unlock(&s->lock);
}

static void run(struct serve *s, const struct job *j) {
  const struct foray_gen_request *q = j->q;
  struct foray_request r;
  gen_opts_request(&s->o, &r);
  r.ids = (const int32_t *)q->prompt;
  r.n_ids = q->n_prompt;
  r.max_tokens = q->max_tokens;
  r.ignore_eos = q->ignore_eos;
  r.temperature = q->sampling.temperature;
  r.top_k = q->sampling.top_k;
  r.top_p = q->sampling.top_p;
  r.min_p = q->sampling.min_p;
  r.repeat_penalty = q->sampling.repeat_penalty;
  r.presence_penalty = q->sampling.presence_penalty;
  r.frequency_penalty = q->sampling.frequency_penalty;
  r.repeat_last_n = q->sampling.repeat_last_n;
  r.seed = q->sampling.seed;
  r.bias_ids = q->sampling.bias_ids;
  r.bias = q->sampling.bias;
  r.n_bias = q->sampling.n_bias;
  /* the public request wants them with a NUL behind */
  char stop[FORAY_PROTO_STOPS_MAX][FORAY_PROTO_STOP_BYTES_MAX + 1];
  const char *stops[FORAY_PROTO_STOPS_MAX];
  for (uint32_t i = 0; i < q->n_stops; i++) {
    memcpy(stop[i], q->stops[i], q->stop_len[i]);
    stop[i][q->stop_len[i]] = 0;
    stops[i] = stop[i];
  }
  r.stops = stops;
  r.n_stops = q->n_stops;
  struct foray_result res = {0};
  struct note n = {.id = j->id};
  enum foray_status st = foray_generator_run(s->g, &r, on_token, s, &res, &n.err);
  add_up(s, &res, st == FORAY_OK);
  if (!st) n.err = (struct foray_err){0}; /* what it tried again is no failure */
  n.drafted = res.drafted;
  n.accepted = res.accepted;
  for (int f = 1; f < FORAY_FINISH_COUNT && !st; f++)
    if (!strcmp(res.finish, foray_finish_name((enum foray_finish)f))) n.finish = (enum foray_finish)f;
  foray_result_deinit(&res);
  post(s, &n);
}

static void *worker(void *arg) {
  struct serve *s = arg;
  for (;;) {
    pthread_mutex_lock(&s->lock);
    while (!s->jobs && !s->stop) pthread_cond_wait(&s->wake, &s->lock);
    struct job *j = s->stop ? NULL : s->jobs;
    if (j) {
      if (!(s->jobs = j->next)) s->last_job = &s->jobs;
      s->running = j;
    }
    pthread_mutex_unlock(&s->lock);
    if (!j) return NULL;
    run(s, j);
    pthread_mutex_lock(&s->lock);
    s->running = NULL;
    s->n_jobs--;
    pthread_mutex_unlock(&s->lock);
    free(j->q);
    free(j);
  }
}

/* ---------------------------------------------------------------- the loop: backend of the API */

static enum foray_status start(void *self, uint64_t id, const char *tenant, const struct foray_gen_request *r,
                               struct foray_err *err) {
  struct serve *s = self;
  (void)tenant;
  struct job *j = calloc(1, sizeof *j);
  if (j) j->q = foray_gen_request_copy(r);
  if (!j || !j->q) {
    free(j);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  }
  j->id = id;
  pthread_mutex_lock(&s->lock);
  const bool full = s->n_jobs >= QUEUE_MAX;
  if (!full) {
    *s->last_job = j;
    s->last_job = &j->next;
    s->n_jobs++;
    pthread_cond_signal(&s->wake);
  }
  pthread_mutex_unlock(&s->lock);
  if (!full) return FORAY_OK; /* cppcheck-suppress memleak; the queue has it */
  free(j->q);
  free(j);
  return foray_err_set(err, FORAY_E_BUSY, "%d generations wait for this edge already", QUEUE_MAX);
}

static void cancel(void *self, uint64_t id) {
  struct serve *s = self;
  pthread_mutex_lock(&s->lock);
  for (struct job **at = &s->jobs; *at; at = &(*at)->next)
    if ((*at)->id == id) {
      struct job *j = *at;
      if (!(*at = j->next)) s->last_job = at;
      s->n_jobs--;
      free(j->q);
      free(j);
      break;
    }
  if (s->running && s->running->id == id) {
    s->running->cancelled = true;
    foray_generator_interrupt(s->g);
  }
  pthread_mutex_unlock(&s->lock);
}

static void metrics(void *self, struct foray_prom *p) {
  struct serve *s = self;
  pthread_mutex_lock(&s->lock);
  const struct totals t = s->t;
  const uint32_t waiting = s->n_jobs;
  pthread_mutex_unlock(&s->lock);
  foray_prom_gauge(p, "vllm:num_requests_waiting", "Generations in line for the device.", waiting);
  foray_prom_counter(p, "vllm:spec_decode_num_drafts_total", "Verifications.", t.verifications);
  foray_prom_counter(p, "vllm:spec_decode_num_draft_tokens_total", "Drafted tokens.", t.drafted);
  foray_prom_counter(p, "vllm:spec_decode_num_accepted_tokens_total", "Drafted tokens that were accepted.",
                     t.accepted);
  foray_prom_counter(p, "foray:drafts_wasted_total", "Drafted tokens that were not accepted.",
                     t.drafted - t.accepted);
  static const char *const names[] = {"foray:exit_drafted_total", "foray:exit_accepted_total"};
  for (int k = 0; k < 2; k++) {
    foray_prom_family(p, names[k], "counter", k ? "Accepted drafts by exit." : "Drafts by exit.");
    for (uint32_t e = 0; e <= t.n_exits && e < FORAY_EXITS_SHOWN_MAX; e++) {
      char l[48];
      snprintf(l, sizeof l, "exit=\"%u\",layer=\"%d\"", e, t.exit_layer[e]);
      foray_prom_sample(p, names[k], l, (double)(k ? t.exit_accepted[e] : t.exit_drafted[e]));
    }
  }
  foray_prom_family(p, "foray:link_bytes_total", "counter", "Bytes on the link to the cloud.");
  foray_prom_sample(p, "foray:link_bytes_total", "direction=\"up\"", (double)t.bytes_up);
  foray_prom_sample(p, "foray:link_bytes_total", "direction=\"down\"", (double)t.bytes_down);
  foray_prom_counter(p, "foray:device_bytes_total", "Bytes streamed from device memory for drafts.",
                     t.device_bytes);
  foray_prom_family(p, "foray:seconds_total", "counter", "Where the time of generations went.");
  foray_prom_sample(p, "foray:seconds_total", "part=\"draft\"", t.draft_seconds);
  foray_prom_sample(p, "foray:seconds_total", "part=\"wait\"", t.wait_seconds);
  foray_prom_sample(p, "foray:seconds_total", "part=\"all\"", t.seconds);
}

static void on_notes(evutil_socket_t fd, short what, void *arg) {
  (void)what;
  struct serve *s = arg;
  uint64_t v;
  (void)!read(fd, &v, sizeof v);
  pthread_mutex_lock(&s->lock);
  struct note *n = s->notes;
  s->notes = NULL;
  s->last_note = &s->notes;
  pthread_mutex_unlock(&s->lock);
  while (n) {
    struct note *next = n->next;
    if (n->err.code)
      foray_http_api_failed(s->api, n->id, n->err.code, n->err.msg, 0);
    else
      foray_http_api_tokens(s->api, n->id,
                            &(struct foray_http_tokens){.ids = &n->token,
                                                        .n = n->n,
                                                        .finish = n->finish,
                                                        .drafted = n->drafted,
                                                        .accepted = n->accepted});
    free(n);
    n = next;
  }
}

static void on_signal(evutil_socket_t sig, short what, void *arg) {
  (void)sig;
  (void)what;
  event_base_loopbreak(arg);
}

static enum foray_status serve(struct serve *s, const char *host, int port, struct foray_err *err) {
  const char *words = s->o.tokenizer ? s->o.tokenizer : s->o.edge;
  struct foray_model *model = NULL;
  pthread_t thread;
  const struct foray_http_backend be = {
      .self = s, .start = start, .cancel = cancel, .metrics = metrics, .top_logprobs = UINT32_MAX};
  enum foray_status st = foray_model_open(words, &model, err);
  if (!st) st = foray_http_api_create(&be, &s->api, err);
  struct foray_http_server_opts ho = {
      .base = s->base, .host = host, .port = port, .handler = foray_http_api_handle, .user = s->api};
  if (!st) st = foray_http_server_open(&ho, &s->http, err);
  struct event *note = NULL, *term = NULL, *inter = NULL;
  if (!st) {
    const char *name = foray_generator_cloud_model(s->g);
    foray_http_api_serve(s->api, model, *name ? name : model->name, s->o.ctx ? (uint32_t)s->o.ctx : 4096);
    note = event_new(s->base, s->fd, EV_READ | EV_PERSIST, on_notes, s);
    term = evsignal_new(s->base, SIGTERM, on_signal, s->base);
    inter = evsignal_new(s->base, SIGINT, on_signal, s->base);
    if (!note || !term || !inter || pthread_create(&thread, NULL, worker, s) != 0)
      st = foray_err_set(err, FORAY_E_NOMEM, "cannot start the worker");
  }
  if (!st) {
    event_add(note, NULL);
    event_add(term, NULL);
    event_add(inter, NULL);
    fprintf(stderr, "foray serve: http://%s:%d/v1\n", host, foray_http_server_port(s->http));
    event_base_dispatch(s->base);
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    foray_generator_interrupt(s->g);
    pthread_join(thread, NULL);
  }
  foray_http_server_close(s->http);
  foray_http_api_destroy(s->api);
  if (note) event_free(note);
  if (term) event_free(term);
  if (inter) event_free(inter);
  foray_model_close(model);
  return st;
}

int cmd_serve(int argc, char **argv) {
  struct serve s = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .fd = -1};
  const char *address = "127.0.0.1:8080";
  s.last_job = &s.jobs;
  s.last_note = &s.notes;
  gen_opts_init(&s.o);
  const struct foray_opt own[] = {
      {"http", 0, FORAY_OPT_STR, &address, "[HOST:]PORT", "address to listen on (127.0.0.1:8080)", 0, 0},
      {0}};
  struct foray_opt table[GEN_OPTS_MAX];
  gen_opts_table(&s.o, own, table);
  const struct foray_command cmd = {
      "foray serve", "-m MODEL [OPTIONS]",
      "The OpenAI API on this machine: the edge model drafts here, the cloud verifies; the text is the cloud "
      "model's own.",
      table,
      "Sampling is what each request says; the options of drafting hold for all. There is no authentication: "
      "it listens on 127.0.0.1 unless told otherwise.\n"
      "  foray serve -m qwen2.5-coder-0.5b-instruct --cloud HOST:PORT --http 8080"};
  struct foray_err err = {0};
  int rest, port;
  char host[256];
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (rest < argc) foray_err_set(&err, FORAY_E_ARG, "what is '%s'?", argv[rest]);
  if (err.code || gen_opts_finish(&s.o, &err) || foray_http_address(address, host, sizeof host, &port, &err))
    return tool_fail(cmd.name, &err);
  tool_interrupt_install();
  if (gen_opts_open(&s.o, &s.g, &err)) return tool_fail(cmd.name, &err);
  tool_interrupt_target(NULL, NULL);
  signal(SIGPIPE, SIG_IGN);
  s.base = event_base_new();
  s.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  enum foray_status st =
      s.base && s.fd >= 0 ? serve(&s, host, port, &err) : foray_err_set(&err, FORAY_E_NOMEM, "event loop");
  if (s.base) event_base_free(s.base);
  if (s.fd >= 0) close(s.fd);
  for (struct note *n; (n = s.notes); free(n)) s.notes = n->next;
  for (struct job *j; (j = s.jobs); free(j)) {
    s.jobs = j->next;
    free(j->q);
  }
  gen_opts_close(s.g);
  return st ? tool_fail(cmd.name, &err) : TOOL_EXIT_OK;
}
