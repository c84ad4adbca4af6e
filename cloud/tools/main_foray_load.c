/* foray-load: many simulated boards against a real forayd. Each board is the edge's protocol machine on a
 * socket of its own; its drafts are right as often as a recorded drafter's were, and take as long. First all
 * prompts are decoded plainly: that is where right drafts come from, and every token of the loads is compared
 * with it. */
#include "core/args.h"
#include "core/clock.h"
#include "core/err.h"
#include "model/chat.h"
#include "model/model.h"
#include "proto/edge_sm.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CLIENTS_MAX = 20000, PROMPTS_MAX = 4096, STEPS_MAX = 32, DRAFT_MAX = 32, SAMPLES_MAX = 1 << 22 };

struct prompt {
  uint32_t *ids, n;
  uint32_t *want, n_want; /* what plain decoding gave */
  bool known;
};

struct sample {
  double seconds; /* a token */
  uint32_t tokens;
};

struct load;
struct board {
  struct load *l;
  struct foray_edge *sm;
  struct bufferevent *bev;
  struct event *tick, *draft;
  uint32_t session, prompt;
  bool connected, running;
  int64_t last; /* when its last tokens came, or the session began */
  uint64_t rng;
};

struct load {
  const char *uri;
  struct event_base *base;
  struct prompt *prompts;
  uint32_t n_prompts, next_prompt, max_tokens;
  bool plain, recording;
  uint32_t draft;
  double accept, draft_ms;
  struct board *boards;
  uint32_t n_boards, n_done;
  int64_t counted_from, until;
  struct sample *samples;
  uint32_t n_samples;
  uint64_t tokens, verdicts, drafted, accepted, wrong, bytes_up, bytes_down, finished;
  struct foray_err failed;
};

static void fail(struct load *l, enum foray_status st, const char *text) {
  if (!l->failed.code) foray_err_set(&l->failed, st, "%s", text);
  event_base_loopbreak(l->base);
}

static double chance(struct board *b) {
  b->rng = b->rng * 6364136223846793005u + 1442695040888963407u;
  return (double)(b->rng >> 11) * 0x1p-53;
}

static void flush(struct board *b) {
  const uint8_t *p;
  size_t n = b->connected ? foray_edge_output(b->sm, &p) : 0;
  if (n && bufferevent_write(b->bev, p, n) == 0) foray_edge_output_consumed(b->sm, n);
  int64_t d = foray_edge_deadline(b->sm);
  if (d == INT64_MAX) return;
  int64_t ns = d - foray_clock_ns() + 1000;
  struct timeval tv = {.tv_sec = ns > 0 ? ns / 1000000000 : 0,
                       .tv_usec = ns > 0 ? ns % 1000000000 / 1000 : 0};
  event_add(b->tick, &tv);
}

static void begin(struct board *b) {
  struct load *l = b->l;
  if (l->recording && l->next_prompt == l->n_prompts) {
    if (++l->n_done == l->n_boards) event_base_loopbreak(l->base);
    return;
  }
  b->prompt = l->next_prompt++ % l->n_prompts;
  struct prompt *p = &l->prompts[b->prompt];
  struct foray_gen_request r = {.prompt = p->ids,
                                .n_prompt = p->n,
                                .max_tokens = l->max_tokens,
                                .mode = l->plain ? FORAY_MODE_PLAIN : FORAY_MODE_SPECULATIVE};
  struct foray_err err = {0};
  if (foray_edge_open(b->sm, &r, &b->session, &err) != FORAY_OK) fail(l, err.code, err.msg);
  b->running = true;
  b->last = foray_clock_ns();
}

/* The board "drafts": after the time that it takes, ids that are right as often as recorded. */
static void plan_draft(struct board *b) {
  struct load *l = b->l;
  struct timeval tv = {.tv_usec = (suseconds_t)(l->draft * l->draft_ms * 1000)};
  event_add(b->draft, &tv);
}
static void on_draft(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct board *b = arg;
  struct load *l = b->l;
  struct foray_edge_view v;
  if (!b->running || foray_edge_view(b->sm, b->session, &v) != FORAY_OK || !v.open || v.finish) return;
  const struct prompt *p = &l->prompts[b->prompt];
  uint32_t ids[DRAFT_MAX], n = 0, round;
  for (; n < l->draft && v.n_generated + n < p->n_want; n++) {
    ids[n] = p->want[v.n_generated + n];
    if (chance(b) >= l->accept) { /* another token; what follows a wrong one is lost anyway */
      ids[n] = ids[n] ? ids[n] - 1 : 1;
    }
  }
  struct foray_err err = {0};
  if (foray_edge_draft(b->sm, b->session, v.n_generated, ids, n, foray_clock_ns(), &round, &err) != FORAY_OK)
    fail(l, err.code, err.msg);
  flush(b);
}

static void on_tokens(struct board *b, const struct foray_edge_event *ev) {
  struct load *l = b->l;
  struct prompt *p = &l->prompts[b->prompt];
  const int64_t now = foray_clock_ns();
  if (l->recording) {
    for (uint32_t i = 0; i < ev->n_new && p->n_want < l->max_tokens; i++) p->want[p->n_want++] = ev->ids[i];
    p->known |= ev->finish != FORAY_FINISH_NONE;
  } else {
    for (uint32_t i = 0; i < ev->n_new; i++)
      l->wrong += ev->first + i >= p->n_want || p->want[ev->first + i] != ev->ids[i];
    if (now >= l->counted_from && ev->n_new) {
      l->tokens += ev->n_new;
      l->verdicts++;
      l->drafted += ev->n_drafted;
      l->accepted += ev->n_accepted;
      if (ev->first && l->n_samples < SAMPLES_MAX) /* the first of a session pays for its prompt */
        l->samples[l->n_samples++] = (struct sample){(double)(now - b->last) * 1e-9 / ev->n_new, ev->n_new};
    }
  }
  b->last = now;
  if (ev->finish) {
    l->finished++;
    b->running = false;
    foray_edge_close(b->sm, b->session);
    begin(b);
  } else if (!l->plain) {
    plan_draft(b);
  }
}

static void events(struct board *b) {
  struct foray_edge_event ev;
  while (foray_edge_event(b->sm, &ev)) {
    if (ev.kind == FORAY_EDGE_READY) begin(b);
    if (ev.kind == FORAY_EDGE_OPENED && !b->l->plain) plan_draft(b);
    if (ev.kind == FORAY_EDGE_TOKENS) on_tokens(b, &ev);
    if (ev.kind == FORAY_EDGE_FAILED || ev.kind == FORAY_EDGE_LINK_LOST)
      fail(b->l, ev.code ? ev.code : FORAY_E_NET, ev.text);
  }
  flush(b);
}

static void on_read(struct bufferevent *bev, void *arg) {
  struct board *b = arg;
  struct evbuffer *in = bufferevent_get_input(bev);
  struct foray_err err = {0};
  for (size_t n; (n = evbuffer_get_contiguous_space(in)) > 0; evbuffer_drain(in, n))
    if (foray_edge_feed(b->sm, evbuffer_pullup(in, (ssize_t)n), n, foray_clock_ns(), &err) != FORAY_OK) {
      fail(b->l, err.code, err.msg);
      return;
    }
  events(b);
}
static void on_event(struct bufferevent *bev, short what, void *arg) {
  struct board *b = arg;
  if (!(what & BEV_EVENT_CONNECTED)) {
    fail(b->l, FORAY_E_NET, "a board lost its connection");
    return;
  }
  int one = 1;
  setsockopt(bufferevent_getfd(bev), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  b->connected = true;
  foray_edge_link_up(b->sm, foray_clock_ns());
  flush(b);
}
static void on_tick(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct board *b = arg;
  struct foray_err err = {0};
  if (foray_edge_tick(b->sm, foray_clock_ns(), &err) != FORAY_OK)
    fail(b->l, err.code, err.msg);
  else
    flush(b);
}

static enum foray_status connect_board(struct load *l, struct board *b, uint32_t i, struct foray_err *err) {
  b->l = l;
  b->rng = 0x9e3779b97f4a7c15u * (i + 1);
  enum foray_status st =
      foray_edge_create(&(struct foray_edge_config){.handshake_ns = 600000000000}, &b->sm, err);
  if (st) return st;
  b->bev = bufferevent_socket_new(l->base, -1, BEV_OPT_CLOSE_ON_FREE);
  b->tick = evtimer_new(l->base, on_tick, b);
  b->draft = evtimer_new(l->base, on_draft, b);
  if (!b->bev || !b->tick || !b->draft) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  bufferevent_setcb(b->bev, on_read, NULL, on_event, b);
  bufferevent_enable(b->bev, EV_READ | EV_WRITE);
  int r;
  if (!strncmp(l->uri, "unix:", 5)) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(l->uri + 5) >= sizeof sa.sun_path)
      return foray_err_set(err, FORAY_E_ARG, "%s: too long", l->uri);
    memcpy(sa.sun_path, l->uri + 5, strlen(l->uri + 5));
    r = bufferevent_socket_connect(b->bev, (struct sockaddr *)&sa, sizeof sa);
  } else {
    const char *colon = strrchr(l->uri, ':');
    char host[256];
    if (!colon || (size_t)(colon - l->uri) >= sizeof host)
      return foray_err_set(err, FORAY_E_ARG, "--cloud '%s': write HOST:PORT or unix:PATH", l->uri);
    memcpy(host, l->uri, (size_t)(colon - l->uri));
    host[colon - l->uri] = 0;
    r = bufferevent_socket_connect_hostname(b->bev, NULL, AF_UNSPEC, host, (int)strtol(colon + 1, NULL, 10));
  }
  return r == 0 ? FORAY_OK : foray_err_set(err, FORAY_E_NET, "cannot connect to %s", l->uri);
}

static void on_until(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  event_base_loopbreak(arg);
}

/* One load: n boards for a time (seconds > 0), or until every prompt is recorded. */
static enum foray_status run(struct load *l, uint32_t n, double warmup, double seconds,
                             struct foray_err *err) {
  l->n_boards = n;
  l->n_done = l->n_samples = 0;
  l->next_prompt = 0;
  l->tokens = l->verdicts = l->drafted = l->accepted = l->bytes_up = l->bytes_down = l->finished = 0;
  l->failed = (struct foray_err){0};
  l->boards = calloc(n, sizeof *l->boards);
  if (!l->boards) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  l->counted_from = foray_clock_ns() + (int64_t)(warmup * 1e9);
  enum foray_status st = FORAY_OK;
  for (uint32_t i = 0; i < n && !st; i++) st = connect_board(l, &l->boards[i], i, err);
  struct event *until = evtimer_new(l->base, on_until, l->base);
  if (!st && seconds > 0) {
    double all = warmup + seconds;
    struct timeval tv = {.tv_sec = (time_t)all, .tv_usec = (suseconds_t)((all - (double)(time_t)all) * 1e6)};
    event_add(until, &tv);
  }
  if (!st) event_base_dispatch(l->base);
  event_free(until);
  for (uint32_t i = 0; i < n; i++) {
    struct board *b = &l->boards[i];
    if (b->sm) {
      struct foray_edge_stats s;
      foray_edge_stats_get(b->sm, &s);
      l->bytes_up += s.bytes_up;
      l->bytes_down += s.bytes_down;
    }
    if (b->bev) bufferevent_free(b->bev);
    if (b->tick) event_free(b->tick);
    if (b->draft) event_free(b->draft);
    foray_edge_destroy(b->sm);
  }
  free(l->boards);
  l->boards = NULL;
  if (!st && l->failed.code) {
    *err = l->failed;
    st = l->failed.code;
  }
  return st;
}

/* ---------------------------------------------------------------- prompts, results */

static enum foray_status read_prompts(struct load *l, const char *path, const char *model, int most,
                                      struct foray_err *err) {
  struct foray_model *m;
  struct foray_chat chat;
  enum foray_status st = foray_model_open(model, &m, err);
  if (st) return st;
  st = foray_chat_open(m->gguf, NULL, &chat, err);
  FILE *f = st ? NULL : fopen(path, "r");
  if (!st && !f) st = foray_err_set(err, FORAY_E_IO, "%s cannot be read", path);
  char *line = NULL;
  size_t cap = 0;
  while (!st && l->n_prompts < (uint32_t)most && getline(&line, &cap, f) > 0) {
    json_t *o = json_loads(line, 0, NULL), *t = json_array_get(json_object_get(o, "turns"), 0);
    const char *text = json_string_value(t ? t : json_object_get(o, "prompt"));
    struct foray_ids ids = {0};
    if (text)
      st = foray_chat_encode(&chat, m->tokenizer, &(struct foray_chat_message){"user", text}, 1, true, &ids,
                             err);
    struct prompt *p = &l->prompts[l->n_prompts];
    if (!st && text && ids.n <= 1024) {
      p->n = (uint32_t)ids.n;
      p->ids = (uint32_t *)ids.ids;
      p->want = malloc(l->max_tokens * sizeof *p->want);
      if (!p->want) st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
      l->n_prompts++;
    } else {
      foray_ids_deinit(&ids);
    }
    json_decref(o);
  }
  free(line);
  if (f) fclose(f);
  foray_model_close(m);
  if (!st && !l->n_prompts)
    st = foray_err_set(err, FORAY_E_FORMAT, "%s has no prompts ({\"turns\": [...]})", path);
  return st;
}

static int by_seconds(const void *a, const void *b) {
  const struct sample *x = a, *y = b;
  return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}
/* Quantile over tokens of the time a token. */
static double quantile(const struct load *l, double q) {
  uint64_t all = 0, seen = 0;
  for (uint32_t i = 0; i < l->n_samples; i++) all += l->samples[i].tokens;
  for (uint32_t i = 0; i < l->n_samples; i++)
    if ((double)(seen += l->samples[i].tokens) >= q * (double)all) return l->samples[i].seconds;
  return 0;
}

static void report(struct load *l, uint32_t clients, double seconds) {
  qsort(l->samples, l->n_samples, sizeof *l->samples, by_seconds);
  printf("{\"mode\":\"%s\",\"clients\":%u,\"tokens_per_second\":%.2f,\"p50_ms\":%.2f,\"p95_ms\":%.2f,\"p99_"
         "ms\":%.2f,"
         "\"tokens\":%llu,\"tokens_per_verdict\":%.3f,\"acceptance\":%.3f,\"bytes_up_per_token\":%.2f,"
         "\"bytes_down_per_token\":%.2f,\"wrong\":%llu}\n",
         l->plain ? "plain" : "speculative", clients, (double)l->tokens / seconds, 1e3 * quantile(l, .5),
         1e3 * quantile(l, .95), 1e3 * quantile(l, .99), (unsigned long long)l->tokens,
         l->verdicts ? (double)l->tokens / (double)l->verdicts : 0,
         l->drafted ? (double)l->accepted / (double)l->drafted : 0,
         l->tokens ? (double)l->bytes_up / (double)l->tokens : 0,
         l->tokens ? (double)l->bytes_down / (double)l->tokens : 0, (unsigned long long)l->wrong);
  fflush(stdout);
}

static int complain(const struct foray_err *err) {
  fprintf(stderr, "foray-load: %s\n", err->msg);
  return err->code == FORAY_E_ARG ? 2 : 1;
}

int main(int argc, char **argv) {
  struct load l = {.max_tokens = 64};
  const char *model = NULL, *prompts = NULL, *clients = "1,2,4,8,16,32", *mode = "both";
  int tokens = 64, draft = 6, most = 32;
  double seconds = 5, warmup = 1;
  l.accept = 0.75;
  l.draft_ms = 2;
  const struct foray_opt opts[] = {
      {"cloud", 0, FORAY_OPT_STR, &l.uri, "WHERE", "HOST:PORT or unix:PATH of a forayd", 0, 0},
      {"model", 'm', FORAY_OPT_STR, &model, "NAME|FILE", "model whose tokenizer and template are used", 0, 0},
      {"prompts", 'f', FORAY_OPT_STR, &prompts, "FILE", "JSON lines as Spec-Bench has them", 0, 0},
      {"max-prompts", 0, FORAY_OPT_INT, &most, "N", "of them at most (32)", 1, PROMPTS_MAX},
      {"clients", 0, FORAY_OPT_STR, &clients, "N,N,...", "boards at a time, one load each (1,2,4,8,16,32)", 0,
       0},
      {"mode", 0, FORAY_OPT_STR, &mode, "MODE", "plain, speculative or both", 0, 0},
      {"n-predict", 'n', FORAY_OPT_INT, &tokens, "N", "tokens a session at most (64)", 2, 4096},
      {"draft", 0, FORAY_OPT_INT, &draft, "N", "drafts a round (6)", 1, DRAFT_MAX},
      {"accept", 0, FORAY_OPT_DOUBLE, &l.accept, "P", "chance that a draft is right (0.75)", 0, 1},
      {"draft-ms", 0, FORAY_OPT_DOUBLE, &l.draft_ms, "MS", "time that a board takes for a draft (2)", 0,
       10000},
      {"seconds", 0, FORAY_OPT_DOUBLE, &seconds, "S", "length of a load (5)", 0.1, 86400},
      {"warmup", 0, FORAY_OPT_DOUBLE, &warmup, "S", "before it is counted (1)", 0, 3600},
      {0}};
  const struct foray_command cmd = {
      "foray-load", "--cloud WHERE -m MODEL -f PROMPTS [OPTIONS]",
      "Many simulated boards against a forayd: tokens a second, time a token, bytes.", opts,
      "One JSON object a load. `wrong` counts tokens that differ from plain decoding: it must be 0."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return 0;
  case FORAY_ARGS_ERROR: return complain(&err);
  case FORAY_ARGS_RUN: break;
  }
  if (!l.uri || !model || !prompts) {
    foray_err_set(&err, FORAY_E_ARG, "--cloud, -m and -f are needed; see --help");
    return complain(&err);
  }
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &files);
  }
  l.max_tokens = (uint32_t)tokens;
  l.draft = (uint32_t)draft;
  l.base = event_base_new();
  l.prompts = calloc(PROMPTS_MAX, sizeof *l.prompts);
  l.samples = malloc(SAMPLES_MAX * sizeof *l.samples);
  enum foray_status st = l.base && l.prompts && l.samples
                             ? read_prompts(&l, prompts, model, most, &err)
                             : foray_err_set(&err, FORAY_E_NOMEM, "out of memory");
  l.plain = l.recording = true;
  if (!st) st = run(&l, l.n_prompts < 16 ? l.n_prompts : 16, 0, 0, &err);
  l.recording = false;
  for (int k = 0; k < 2 && !st; k++) {
    l.plain = k == 0;
    if (strcmp(mode, "both") != 0 && strcmp(mode, l.plain ? "plain" : "speculative") != 0) continue;
    for (const char *p = clients; *p && !st;) {
      char *end;
      unsigned long n = strtoul(p, &end, 10);
      if (end == p || n < 1 || n > CLIENTS_MAX) {
        st = foray_err_set(&err, FORAY_E_ARG, "--clients '%s': write numbers from 1 to %d", clients,
                           CLIENTS_MAX);
        break;
      }
      st = run(&l, (uint32_t)n, warmup, seconds, &err);
      if (!st) report(&l, (uint32_t)n, seconds);
      p = *end == ',' ? end + 1 : end;
    }
  }
  for (uint32_t i = 0; l.prompts && i < l.n_prompts; i++) {
    free(l.prompts[i].ids);
    free(l.prompts[i].want);
  }
  free(l.prompts);
  free(l.samples);
  if (l.base) event_base_free(l.base);
  if (st) return complain(&err);
  return l.wrong ? 1 : 0;
}
