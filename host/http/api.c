#include "http/api_impl.h"

#include "core/clock.h"
#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum foray_status foray_http_api_create(const struct foray_http_backend *be, struct foray_http_api **out,
                                        struct foray_err *err) {
  struct foray_http_api *a = *out = calloc(1, sizeof *a);
  if (!a) return foray_err_set(err, FORAY_E_NOMEM, "HTTP API");
  a->be = *be;
  if (!a->be.running_max) a->be.running_max = FORAY_HTTP_RUNNING_MAX;
  a->next_id = 1;
  a->since = (int64_t)time(NULL);
  foray_hist_init_seconds(&a->m.first);
  foray_hist_init_seconds(&a->m.between);
  foray_hist_init_seconds(&a->m.whole);
  foray_hist_init_counts(&a->m.prompt);
  foray_hist_init_counts(&a->m.generated);
  return FORAY_OK;
}

void foray_http_api_serve(struct foray_http_api *a, const struct foray_model *model, const char *name,
                          uint32_t ctx) {
  a->chat_err = (struct foray_err){0};
  (void)!foray_chat_open(model->gguf, NULL, &a->chat, &a->chat_err);
  snprintf(a->name, sizeof a->name, "%s", name);
  a->ctx = ctx;
  a->model = model;
}
void foray_http_api_drain(struct foray_http_api *a) { a->draining = true; }
uint32_t foray_http_api_busy(const struct foray_http_api *a) { return a->running; }

/* ---------------------------------------------------------------- a generation's life */

static struct choice **slot(struct foray_http_api *a, uint64_t id) {
  struct choice **at = &a->table[id % BUCKETS];
  while (*at && (*at)->id != id) at = &(*at)->next;
  return at;
}
static void unlist(struct choice *c) {
  struct choice **at = slot(c->g->api, c->id);
  if (!c->running) return;
  *at = c->next;
  c->running = false;
  c->g->api->running--;
}

static void gen_free(struct gen *g) {
  for (uint32_t i = 0; i < g->n_choices; i++) {
    struct choice *c = &g->choices[i];
    foray_buf_deinit(&c->text);
    json_decref(c->content);
    for (int k = 0; k < 4; k++) json_decref(c->plain[k]);
  }
  for (uint32_t i = 0; i < g->n_stops; i++) free(g->stops[i]);
  free(g->stops);
  free(g->stop_len);
  free(g->choices);
  free(g);
}

/* Ends everything that still runs for g, and g. */
static void gen_drop(struct gen *g) {
  for (uint32_t i = 0; i < g->n_choices; i++)
    if (g->choices[i].running) {
      unlist(&g->choices[i]);
      g->api->be.cancel(g->api->be.self, g->choices[i].id);
      g->api->m.finished[FORAY_FINISH_CANCEL]++;
    }
  if (g->x) foray_http_exchange_abort(g->x);
  gen_free(g);
}

/* The client left. Only a mark when the API itself is at work on g (a failed write is how it learns). */
static void on_gone(void *arg) {
  struct gen *g = arg;
  g->x = NULL;
  if (!g->working) gen_drop(g);
}

void foray_http_api_destroy(struct foray_http_api *a) {
  if (!a) return;
  for (int i = 0; i < BUCKETS; i++)
    while (a->table[i]) gen_drop(a->table[i]->g);
  free(a);
}

/* Bytes at the end of text that may be the beginning of a stop string. */
static size_t held_back(const struct gen *g, const char *text, size_t n) {
  size_t most = 0;
  for (uint32_t k = 0; k < g->n_stops; k++) {
    size_t m = g->stop_len[k] - 1 < n ? g->stop_len[k] - 1 : n;
    for (; m > most; m--)
      if (memcmp(text + n - m, g->stops[k], m) == 0) break;
    if (m > most) most = m;
  }
  return most;
}
/* Where the earliest stop string begins at or after `from`; n when none is there. */
static size_t stop_at(const struct gen *g, const char *text, size_t from, size_t n) {
  size_t best = n;
  for (uint32_t k = 0; k < g->n_stops; k++) {
    const char *p = from < n ? memmem(text + from, n - from, g->stops[k], g->stop_len[k]) : NULL;
    if (p && (size_t)(p - text) < best) best = (size_t)(p - text);
  }
  return best;
}

void foray_http_api_tokens(struct foray_http_api *a, uint64_t id, const struct foray_http_tokens *t) {
  struct choice *c = *slot(a, id);
  if (!c) return;
  struct gen *g = c->g;
  int64_t now = foray_clock_ns();
  for (uint32_t i = 0; i < t->n; i++) {
    size_t before = c->text.len;
    if (foray_detok_feed(&c->detok, a->model->tokenizer, (int32_t)t->ids[i], &c->text) != FORAY_OK) {
      foray_http_api_failed(a, id, FORAY_E_NOMEM, "no memory for the text", 0);
      return;
    }
    if (g->logprobs && t->logp)
      choice_logprob(c, t->ids[i], t->logp + (size_t)i * g->logprobs, t->top + (size_t)i * (g->logprobs - 1),
                     before);
    if (c->tokens++ == 0)
      foray_hist_add(&a->m.first, (double)(now - g->started_ns) * 1e-9);
    else
      foray_hist_add(&a->m.between, i == 0 ? (double)(now - c->last_ns) * 1e-9 : 0);
    c->last_ns = now;
  }
  a->m.generation_tokens += t->n;
  a->m.drafted += t->drafted;
  a->m.accepted += t->accepted;
  g->drafted += t->drafted;
  g->accepted += t->accepted;
  const bool last = t->finish != FORAY_FINISH_NONE;
  if (last && foray_detok_finish(&c->detok, &c->text) != FORAY_OK) c->text.len = c->sent;
  const char *text = c->text.data ? (const char *)c->text.data : "";
  size_t upto = stop_at(g, text, c->sent, c->text.len);
  if (upto == c->text.len && !last) upto -= held_back(g, text + c->sent, c->text.len - c->sent);
  if (last) {
    c->finish = t->finish;
    unlist(c);
    a->m.finished[t->finish]++;
    foray_hist_add(&a->m.whole, (double)(now - g->started_ns) * 1e-9);
    foray_hist_add(&a->m.generated, c->tokens);
    g->n_done++;
  }
  bool ok = true;
  g->working = true; /* writing: on_gone only marks */
  if (g->stream)
    ok = gen_delta(c, upto, last);
  else
    c->sent = upto;
  if (ok && g->n_done == g->n_choices) {
    gen_answer(g);
    ok = false;
  }
  g->working = false;
  if (!ok) gen_drop(g);
}

void foray_http_api_failed(struct foray_http_api *a, uint64_t id, enum foray_status code, const char *text,
                           uint32_t retry_ms) {
  struct choice *c = *slot(a, id);
  if (!c) return;
  struct gen *g = c->g;
  unlist(c);
  a->m.failed++;
  g->working = true;
  int status = api_status_of(code);
  if (status == 429 && retry_ms && g->x && !g->begun) {
    char after[16];
    snprintf(after, sizeof after, "%u", (retry_ms + 999) / 1000);
    foray_http_exchange_header(g->x, "Retry-After", after);
  }
  gen_error(g, status,
            status == 429   ? "rate_limit_error"
            : status >= 500 ? "server_error"
                            : "invalid_request_error",
            text);
  gen_drop(g);
}

/* ---------------------------------------------------------------- a request for text */

/* One prompt of completions: a string or a list of ids. */
static enum foray_status one_prompt(const struct foray_http_api *a, json_t *p, struct foray_ids *ids,
                                    struct foray_err *err) {
  if (json_is_string(p))
    return foray_tokenizer_encode(a->model->tokenizer, json_string_value(p), json_string_length(p),
                                  FORAY_ENCODE_BOS | FORAY_ENCODE_SPECIAL, ids, err);
  if (!json_is_array(p) || json_array_size(p) == 0)
    return foray_err_set(err, FORAY_E_ARG,
                         "'prompt' must be a string, a list of token ids, or a list of these");
  size_t i;
  json_t *v;
  json_array_foreach(p, i, v) {
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    if (id < 0 || id >= foray_tokenizer_n_vocab(a->model->tokenizer))
      return foray_err_set(err, FORAY_E_ARG, "'prompt': element %zu is no token id of this model", i);
    if (foray_ids_add(ids, (int32_t)id)) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  }
  return FORAY_OK;
}

static enum foray_status start(struct gen *g, const struct asked *q, const char *tenant,
                               const struct foray_ids *ids, uint32_t at, struct foray_err *err) {
  struct foray_http_api *a = g->api;
  if (ids->n == 0) return foray_err_set(err, FORAY_E_ARG, "the prompt is empty");
  if (ids->n >= a->ctx)
    return foray_err_set(err, FORAY_E_LIMIT, "the prompt has %zu tokens; the context is %u", ids->n, a->ctx);
  uint32_t room = a->ctx - (uint32_t)ids->n;
  struct foray_gen_request r = {.prompt = (const uint32_t *)ids->ids,
                                .n_prompt = (uint32_t)ids->n,
                                .max_tokens = g->chat && !q->has_max ? room : q->max_tokens,
                                .mode = FORAY_MODE_PLAIN,
                                .ignore_eos = q->ignore_eos,
                                .sampling = q->s,
                                .stops = (const char *const *)g->stops,
                                .stop_len = g->stop_len,
                                .n_stops = g->n_stops,
                                .logprobs = q->logprobs};
  if (r.max_tokens > room) r.max_tokens = room;
  enum foray_status st = foray_gen_request_check(&r, err);
  g->prompt_tokens += r.n_prompt;
  for (uint32_t k = 0; k < q->n && !st; k++) {
    struct choice *c = &g->choices[at + k];
    /* Each choice is a generation of its own seed: seed, seed + 1, ... */
    r.sampling.seed = q->s.seed + k;
    c->id = a->next_id++;
    st = a->be.start(a->be.self, c->id, tenant, &r, err);
    if (st) break;
    c->running = true;
    struct choice **slot_ = slot(a, c->id);
    *slot_ = c;
    c->next = NULL;
    a->running++;
    a->m.prompt_tokens += r.n_prompt;
    foray_hist_add(&a->m.prompt, r.n_prompt);
  }
  return st;
}

static void completions(struct foray_http_api *a, struct foray_http_exchange *x, bool chat,
                        const char *tenant) {
  const struct foray_http_request *r = foray_http_exchange_request(x);
  struct foray_err err = {0};
  struct asked q = {0};
  struct foray_ids ids = {0};
  struct gen *g = calloc(1, sizeof *g);
  json_t *o = g ? api_json(r->body, r->body_len, &err) : NULL, *prompts = NULL;
  enum foray_status st = g ? (o ? api_asked(a, o, chat, &q, &err) : err.code)
                           : foray_err_set(&err, FORAY_E_NOMEM, "out of memory");
  uint32_t n_prompts = 1;
  if (!st && !chat) {
    prompts = json_object_get(o, "prompt");
    json_t *first = json_array_get(prompts, 0);
    if (!prompts)
      st = foray_err_set(&err, FORAY_E_ARG, "'prompt' is missing");
    else if (json_is_string(first) || json_is_array(first)) /* a list of prompts */
      n_prompts = json_array_size(prompts) > FORAY_HTTP_CHOICES_MAX ? FORAY_HTTP_CHOICES_MAX + 1u
                                                                    : (uint32_t)json_array_size(prompts);
    else
      first = NULL;
    if (!first) n_prompts = 1;
  }
  if (!st && n_prompts * q.n > FORAY_HTTP_CHOICES_MAX)
    st = foray_err_set(&err, FORAY_E_LIMIT, "more than %d choices in one request", FORAY_HTTP_CHOICES_MAX);
  if (!st && a->running + n_prompts * q.n > a->be.running_max)
    st = foray_err_set(&err, FORAY_E_BUSY, "the server has %u generations under way; try again", a->running);
  if (!st) {
    g->api = a;
    g->x = x;
    g->chat = chat;
    g->working = true; /* until all have started */
    g->stream = q.stream;
    g->include_usage = q.include_usage;
    g->logprobs = q.logprobs;
    g->created = (int64_t)time(NULL);
    g->started_ns = foray_clock_ns();
    uint64_t salt = 0;
    if (getrandom(&salt, sizeof salt, 0) < 0) salt = (uint64_t)g->started_ns;
    snprintf(g->id, sizeof g->id, "%s-%016llx", chat ? "chatcmpl" : "cmpl", (unsigned long long)salt);
    g->choices = calloc(n_prompts * q.n, sizeof *g->choices);
    if (g->choices)
      g->n_choices = n_prompts * q.n;
    else
      st = foray_err_set(&err, FORAY_E_NOMEM, "out of memory");
    for (uint32_t i = 0; i < g->n_choices; i++) {
      g->choices[i].g = g;
      g->choices[i].index = i;
      foray_buf_init(&g->choices[i].text, TEXT_MAX);
    }
    if (!st) st = api_stops(o, g, &err);
    for (uint32_t p = 0; p < n_prompts && !st; p++) {
      ids.n = 0;
      bool list = n_prompts > 1 || json_is_string(json_array_get(prompts, 0)) ||
                  json_is_array(json_array_get(prompts, 0));
      if (chat)
        st = api_messages(a, o, &ids, NULL, &err);
      else
        st = one_prompt(a, list ? json_array_get(prompts, p) : prompts, &ids, &err);
      if (!st) st = start(g, &q, tenant, &ids, p * q.n, &err);
    }
  }
  json_decref(o);
  foray_ids_deinit(&ids);
  asked_deinit(&q);
  if (st) {
    int status = api_status_of(st);
    if (g && g->api) {
      g->x = NULL;
      gen_drop(g);
    } else {
      free(g);
    }
    api_error(x, status,
              status == 429   ? "rate_limit_error"
              : status >= 500 ? "server_error"
                              : "invalid_request_error",
              NULL, err.msg);
    return;
  }
  a->m.requests++;
  foray_http_exchange_on_gone(x, on_gone, g);
  if (g->stream) gen_begin_stream(g);
  g->working = false;
  if (!g->x) gen_drop(g);
}

void foray_http_api_handle(void *api, struct foray_http_exchange *x) {
  struct foray_http_api *a = api;
  const struct foray_http_request *r = foray_http_exchange_request(x);
  char tenant[TENANT_BYTES] = "";
  const char *id = foray_http_header_get(r, "x-request-id");
  if (id && strlen(id) <= 128) foray_http_exchange_header(x, "X-Request-Id", id);
  const bool open = !strcmp(r->path, "/health") || !strcmp(r->path, "/v1/health");
  const char *auth = foray_http_header_get(r, "authorization"),
             *bearer = foray_http_header_get(r, "x-api-key");
  if (auth && !strncmp(auth, "Bearer ", 7)) bearer = auth + 7;
  if (a->be.route && a->be.route(a->be.self, x, bearer)) return;
  if (!open && a->be.authorize) {
    enum foray_http_scope scope =
        !strcmp(r->path, "/metrics") ? FORAY_HTTP_SCOPE_METRICS : FORAY_HTTP_SCOPE_GENERATE;
    if (!a->be.authorize(a->be.self, foray_http_exchange_address(x), bearer, foray_http_exchange_peer(x),
                         scope, tenant, sizeof tenant)) {
      api_error(x, 401, "authentication_error", NULL, "a valid token is needed: Authorization: Bearer TOKEN");
      return;
    }
  }
  const bool chat = !strcmp(r->path, "/v1/chat/completions");
  if (!chat && strcmp(r->path, "/v1/completions") != 0) {
    if (!api_route(a, x, tenant)) api_error(x, 404, "invalid_request_error", NULL, "no such path");
    return;
  }
  if (strcmp(r->method, "POST") != 0) {
    foray_http_exchange_header(x, "Allow", "POST");
    api_error(x, 405, "invalid_request_error", NULL, "use POST");
  } else if (!a->model) {
    api_error(x, 503, "unavailable_error", NULL, "Loading model");
  } else if (a->draining) {
    api_error(x, 503, "unavailable_error", NULL, "the server ends");
  } else {
    completions(a, x, chat, tenant);
  }
}
