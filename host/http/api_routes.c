#include "http/api_impl.h"

#include "core/err.h"

#include <stdlib.h>
#include <string.h>

static void health(struct foray_http_api *a, struct foray_http_exchange *x) {
  if (a->model && !a->draining) {
    api_reply_json(x, 200, json_pack("{s:s}", "status", "ok"));
    return;
  }
  api_error(x, 503, "unavailable_error", NULL, a->draining ? "the server ends" : "Loading model");
}

static json_t *model_object(const struct foray_http_api *a) {
  return json_pack("{s:s,s:s,s:I,s:s,s:I}", "id", a->name, "object", "model", "created", (json_int_t)a->since,
                   "owned_by", "foray", "max_model_len", (json_int_t)a->ctx);
}

static void models(struct foray_http_api *a, struct foray_http_exchange *x) {
  json_t *list = json_array();
  if (a->model) json_array_append_new(list, model_object(a));
  api_reply_json(x, 200, json_pack("{s:s,s:o}", "object", "list", "data", list));
}
static void one_model(struct foray_http_api *a, struct foray_http_exchange *x, const char *name) {
  if (a->model && !strcmp(name, a->name))
    api_reply_json(x, 200, model_object(a));
  else
    api_error(x, 404, "invalid_request_error", "model", "no such model here");
}

static void props(struct foray_http_api *a, struct foray_http_exchange *x) {
  size_t n = 0;
  const int32_t bos = foray_tokenizer_bos(a->model->tokenizer),
                eos = foray_tokenizer_eos(a->model->tokenizer);
  const char *b = bos >= 0 ? foray_tokenizer_piece(a->model->tokenizer, bos, &n) : "";
  json_t *bt = api_text(b, n);
  n = 0;
  const char *e = eos >= 0 ? foray_tokenizer_piece(a->model->tokenizer, eos, &n) : "";
  json_t *o = json_pack("{s:s,s:i,s:{s:i},s:o,s:o,s:s,s:s}", "model_alias", a->name, "total_slots",
                        (int)a->be.running_max, "default_generation_settings", "n_ctx", (int)a->ctx,
                        "bos_token", bt, "eos_token", api_text(e, n), "chat_template",
                        a->chat_err.code ? "" : foray_chat_kind_name(a->chat.kind), "build_info",
                        "foray " FORAY_VERSION);
  api_reply_json(x, 200, o);
}

static void metrics(struct foray_http_api *a, struct foray_http_exchange *x) {
  struct foray_buf out;
  foray_buf_init(&out, 1 << 20);
  char labels[192];
  foray_prom_label(labels, sizeof labels, "model_name", a->name);
  struct foray_prom p = {.out = &out, .labels = labels};
  foray_prom_counter(&p, "vllm:prompt_tokens_total", "Prompt tokens of API requests.", a->m.prompt_tokens);
  foray_prom_counter(&p, "vllm:generation_tokens_total", "Tokens made for API requests.",
                     a->m.generation_tokens);
  foray_prom_family(&p, "vllm:request_success_total", "counter", "API generations that ended, by reason.");
  static const char *const why[FORAY_FINISH_COUNT] = {NULL, "stop", "length", "stop_token", "abort"};
  for (int i = 1; i < FORAY_FINISH_COUNT; i++) {
    char l[48];
    foray_prom_label(l, sizeof l, "finished_reason", why[i]);
    foray_prom_sample(&p, "vllm:request_success_total", l, (double)a->m.finished[i]);
  }
  foray_prom_counter(&p, "foray:request_failed_total", "API generations that failed.", a->m.failed);
  foray_prom_gauge(&p, "vllm:num_requests_running", "API generations under way.", a->running);
  foray_prom_hist(&p, "vllm:time_to_first_token_seconds", "From a request to its first token.", &a->m.first);
  foray_prom_hist(&p, "vllm:inter_token_latency_seconds", "Between two tokens of a generation.",
                  &a->m.between);
  foray_prom_hist(&p, "vllm:e2e_request_latency_seconds", "From a request to its last token.", &a->m.whole);
  foray_prom_hist(&p, "vllm:request_prompt_tokens", "Tokens of a prompt.", &a->m.prompt);
  foray_prom_hist(&p, "vllm:request_generation_tokens", "Tokens of a generation.", &a->m.generated);
  if (a->be.metrics) a->be.metrics(a->be.self, &p);
  if (p.status == FORAY_OK)
    foray_http_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", out.data, out.len);
  else
    api_error(x, 500, "server_error", NULL, "out of memory");
  foray_buf_deinit(&out);
}

/* ---------------------------------------------------------------- text and ids */

static bool flag(json_t *o, const char *key, bool def) {
  json_t *f = json_object_get(o, key);
  return json_is_boolean(f) ? json_is_true(f) : def;
}

static enum foray_status tokenize(struct foray_http_api *a, json_t *o, json_t **answer,
                                  struct foray_err *err) {
  json_t *content = json_object_get(o, "content");
  if (!json_is_string(content)) return foray_err_set(err, FORAY_E_ARG, "'content' must be a string");
  unsigned flags = (flag(o, "add_special", false) ? FORAY_ENCODE_BOS : 0u) |
                   (flag(o, "parse_special", true) ? FORAY_ENCODE_SPECIAL : 0u);
  struct foray_ids ids = {0};
  enum foray_status st = foray_tokenizer_encode(a->model->tokenizer, json_string_value(content),
                                                json_string_length(content), flags, &ids, err);
  json_t *list = json_array();
  bool pieces = flag(o, "with_pieces", false);
  for (size_t i = 0; i < ids.n; i++) {
    size_t n;
    const char *p = foray_tokenizer_piece(a->model->tokenizer, ids.ids[i], &n);
    json_array_append_new(list, pieces ? json_pack("{s:i,s:o}", "id", ids.ids[i], "piece", api_text(p, n))
                                       : json_integer(ids.ids[i]));
  }
  foray_ids_deinit(&ids);
  *answer = json_pack("{s:o}", "tokens", list);
  return st;
}

static enum foray_status detokenize(struct foray_http_api *a, json_t *o, json_t **answer,
                                    struct foray_err *err) {
  json_t *list = json_object_get(o, "tokens"), *v;
  if (!json_is_array(list)) return foray_err_set(err, FORAY_E_ARG, "'tokens' must be a list of ids");
  struct foray_detok d = {.special = true};
  struct foray_buf text;
  foray_buf_init(&text, TEXT_MAX);
  enum foray_status st = FORAY_OK;
  size_t i;
  json_array_foreach(list, i, v) {
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    if (id < 0 || id >= foray_tokenizer_n_vocab(a->model->tokenizer))
      st = foray_err_set(err, FORAY_E_ARG, "'tokens': element %zu is no token id of this model", i);
    else if (foray_detok_feed(&d, a->model->tokenizer, (int32_t)id, &text))
      st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
    if (st) break;
  }
  if (!st && foray_detok_finish(&d, &text)) st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  if (!st)
    *answer = json_pack("{s:o}", "content", api_text(text.len ? (const char *)text.data : "", text.len));
  foray_buf_deinit(&text);
  return st;
}

static enum foray_status template(struct foray_http_api *a, json_t *o, json_t **answer,
                                  struct foray_err *err) {
  struct foray_buf text; foray_buf_init(&text, TEXT_MAX);
  enum foray_status st = api_messages(a, o, NULL, &text, err);
  if (!st) *answer = json_pack("{s:o}", "prompt", api_text((const char *)text.data, text.len));
  foray_buf_deinit(&text);
  return st;
}

static void post(struct foray_http_api *a, struct foray_http_exchange *x,
                 enum foray_status (*fn)(struct foray_http_api *, json_t *, json_t **, struct foray_err *)) {
  const struct foray_http_request *r = foray_http_exchange_request(x);
  struct foray_err err = {0};
  json_t *o = api_json(r->body, r->body_len, &err), *answer = NULL;
  enum foray_status st = o ? fn(a, o, &answer, &err) : err.code;
  json_decref(o);
  if (st) {
    json_decref(answer);
    api_error(x, api_status_of(st), "invalid_request_error", NULL, err.msg);
  } else {
    api_reply_json(x, 200, answer);
  }
}

bool api_route(struct foray_http_api *a, struct foray_http_exchange *x, const char *tenant) {
  (void)tenant;
  const struct foray_http_request *r = foray_http_exchange_request(x);
  static const char *const gets[] = {"/health", "/v1/health", "/v1/models", "/props", "/metrics", "/version"};
  static const char *const posts[] = {"/tokenize", "/detokenize", "/apply-template"};
  const bool get = !strcmp(r->method, "GET") || !strcmp(r->method, "HEAD");
  bool known = !strncmp(r->path, "/v1/models/", 11), wants_post = false;
  for (size_t i = 0; i < sizeof gets / sizeof *gets; i++) known |= !strcmp(r->path, gets[i]);
  for (size_t i = 0; i < sizeof posts / sizeof *posts; i++) wants_post |= !strcmp(r->path, posts[i]);
  if (!known && !wants_post) return false;
  if (wants_post ? strcmp(r->method, "POST") != 0 : !get) {
    foray_http_exchange_header(x, "Allow", wants_post ? "POST" : "GET");
    api_error(x, 405, "invalid_request_error", NULL, wants_post ? "use POST" : "use GET");
  } else if (!strcmp(r->path, "/health") || !strcmp(r->path, "/v1/health")) {
    health(a, x);
  } else if (!strcmp(r->path, "/v1/models")) {
    models(a, x);
  } else if (!strncmp(r->path, "/v1/models/", 11)) {
    one_model(a, x, r->path + 11);
  } else if (!strcmp(r->path, "/metrics")) {
    metrics(a, x);
  } else if (!strcmp(r->path, "/version")) {
    api_reply_json(x, 200, json_pack("{s:s}", "version", FORAY_VERSION));
  } else if (!a->model) {
    api_error(x, 503, "unavailable_error", NULL, "Loading model");
  } else if (!strcmp(r->path, "/props")) {
    props(a, x);
  } else if (!strcmp(r->path, "/tokenize")) {
    post(a, x, tokenize);
  } else if (!strcmp(r->path, "/detokenize")) {
    post(a, x, detokenize);
  } else {
    post(a, x, template);
  }
  return true;
}
