#include "http/api_impl.h"

#include <stdlib.h>
#include <string.h>

int api_status_of(enum foray_status s) {
  switch (s) {
  case FORAY_E_ARG:
  case FORAY_E_LIMIT:
  case FORAY_E_UNSUPPORTED: return 400;
  case FORAY_E_NOTFOUND: return 404;
  case FORAY_E_BUSY: return 429;
  case FORAY_E_STATE:
  case FORAY_E_CLOSED:
  case FORAY_E_NET: return 503;
  default: return 500;
  }
}

void api_reply_json(struct foray_http_exchange *x, int status, json_t *o) {
  char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
  json_decref(o);
  if (text)
    foray_http_reply(x, status, "application/json", text, strlen(text));
  else
    foray_http_reply(x, 500, "application/json", "{}", 2);
  free(text);
}

static json_t *error_object(int status, const char *type, const char *param, const char *text) {
  return json_pack("{s:{s:o,s:s,s:s?,s:i}}", "error", "message", api_text(text, strlen(text)), "type", type,
                   "param", param, "code", status);
}

void api_error(struct foray_http_exchange *x, int status, const char *type, const char *param,
               const char *text) {
  if ((status == 429 || status == 503) && !foray_http_exchange_has(x, "Retry-After"))
    foray_http_exchange_header(x, "Retry-After", "1");
  if (status == 401) foray_http_exchange_header(x, "WWW-Authenticate", "Bearer");
  api_reply_json(x, status, error_object(status, type, param, text));
}

void foray_http_api_error(struct foray_http_exchange *x, int status, const char *type, const char *text) {
  api_error(x, status, type, NULL, text);
}

/* Length of the valid UTF-8 character at p, 0 when there is none. */
static size_t character(const unsigned char *p, size_t n) {
  if (p[0] < 0x80) return 1;
  size_t k = p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
  if (p[0] >= 0xf5 || k == 0 || k > n) return 0;
  for (size_t i = 1; i < k; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
      (p[0] == 0xf4 && p[1] > 0x8f))
    return 0;
  return k;
}

json_t *api_text(const char *p, size_t n) {
  const unsigned char *s = (const unsigned char *)p;
  size_t bad = 0;
  for (size_t i = 0, k; i < n; i += k ? k : 1)
    if (!(k = character(s + i, n - i))) bad++;
  if (!bad) return json_stringn_nocheck(p, n);
  char *t = malloc(n + 2 * bad + 1);
  if (!t) return NULL;
  size_t m = 0;
  for (size_t i = 0, k; i < n; i += k ? k : 1) {
    k = character(s + i, n - i);
    memcpy(t + m, k ? p + i : "\xef\xbf\xbd", k ? k : 3);
    m += k ? k : 3;
  }
  json_t *o = json_stringn_nocheck(t, m);
  free(t);
  return o;
}

/* ---------------------------------------------------------------- log-probabilities */

static json_t *token_object(struct choice *c, uint32_t id, double logp) {
  size_t n;
  const char *p = foray_tokenizer_piece(c->g->api->model->tokenizer, (int32_t)id, &n);
  json_t *bytes = json_array();
  for (size_t i = 0; i < n; i++) json_array_append_new(bytes, json_integer((unsigned char)p[i]));
  return json_pack("{s:o,s:f,s:o}", "token", api_text(p, n), "logprob", logp > -9999 ? logp : -9999.0,
                   "bytes", bytes);
}

void choice_logprob(struct choice *c, uint32_t id, const double *logp, const uint32_t *top, size_t offset) {
  const uint32_t k = c->g->logprobs - 1;
  if (c->g->chat) {
    if (!c->content) c->content = json_array();
    json_t *o = token_object(c, id, logp[0]), *list = json_array();
    for (uint32_t i = 0; i < k; i++) json_array_append_new(list, token_object(c, top[i], logp[1 + i]));
    json_object_set_new(o, "top_logprobs", list);
    json_array_append_new(c->content, o);
    return;
  }
  for (int i = 0; i < 4; i++)
    if (!c->plain[i]) c->plain[i] = json_array();
  size_t n;
  const struct foray_tokenizer *t = c->g->api->model->tokenizer;
  const char *p = foray_tokenizer_piece(t, (int32_t)id, &n);
  json_array_append_new(c->plain[0], api_text(p, n));
  json_array_append_new(c->plain[1], json_real(logp[0] > -9999 ? logp[0] : -9999.0));
  json_t *map = json_object();
  for (uint32_t i = 0; i < k; i++) {
    p = foray_tokenizer_piece(t, (int32_t)top[i], &n);
    json_t *key = api_text(p, n);
    if (key) json_object_set_new_nocheck(map, json_string_value(key), json_real(logp[1 + i]));
    json_decref(key);
  }
  json_array_append_new(c->plain[2], map);
  json_array_append_new(c->plain[3], json_integer((json_int_t)offset));
}

/* What has been gathered since the last call; null without any. */
static json_t *take_logprobs(struct choice *c) {
  json_t *o = NULL;
  if (c->content) {
    o = json_pack("{s:o}", "content", c->content);
  } else if (c->plain[0]) {
    o = json_pack("{s:o,s:o,s:o,s:o}", "tokens", c->plain[0], "token_logprobs", c->plain[1], "top_logprobs",
                  c->plain[2], "text_offset", c->plain[3]);
  }
  c->content = NULL;
  memset(c->plain, 0, sizeof c->plain);
  return o ? o : json_null();
}

/* ---------------------------------------------------------------- answers */

static const char *reason(enum foray_finish f) {
  return f == FORAY_FINISH_LENGTH ? "length" : f == FORAY_FINISH_CANCEL ? "cancelled" : "stop";
}

static json_t *usage(const struct gen *g) {
  uint32_t made = 0;
  for (uint32_t i = 0; i < g->n_choices; i++) made += g->choices[i].tokens;
  json_t *o = json_pack("{s:i,s:i,s:i}", "prompt_tokens", (int)g->prompt_tokens, "completion_tokens",
                        (int)made, "total_tokens", (int)(g->prompt_tokens + made));
  if (g->drafted)
    json_object_set_new(o, "completion_tokens_details",
                        json_pack("{s:i,s:i}", "accepted_prediction_tokens", (int)g->accepted,
                                  "rejected_prediction_tokens", (int)(g->drafted - g->accepted)));
  return o;
}

static json_t *envelope(const struct gen *g, const char *object) {
  return json_pack("{s:s,s:s,s:I,s:s}", "id", g->id, "object", object, "created", (json_int_t)g->created,
                   "model", g->api->name);
}

/* One event of the stream; takes o. */
static bool event(struct gen *g, json_t *o) {
  char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
  json_decref(o);
  struct foray_buf b;
  foray_buf_init(&b, TEXT_MAX);
  bool ok = text && foray_buf_addf(&b, "data: %s\n\n", text) == FORAY_OK;
  if (ok && g->x) ok = foray_http_stream_write(g->x, b.data, b.len);
  foray_buf_deinit(&b);
  free(text);
  return ok && g->x;
}

static bool chunk(struct gen *g, json_t *choice, json_t *use) {
  json_t *o = envelope(g, g->chat ? "chat.completion.chunk" : "text_completion"), *list = json_array();
  if (choice) json_array_append_new(list, choice);
  json_object_set_new(o, "choices", list);
  if (g->include_usage) json_object_set_new(o, "usage", use ? use : json_null());
  return event(g, o);
}

void gen_begin_stream(struct gen *g) {
  g->begun = true;
  foray_http_stream_begin(g->x, 200, "text/event-stream; charset=utf-8");
  for (uint32_t i = 0; g->chat && g->x && i < g->n_choices; i++)
    if (!chunk(g,
               json_pack("{s:i,s:{s:s,s:s},s:n,s:n}", "index", (int)i, "delta", "role", "assistant",
                         "content", "", "logprobs", "finish_reason"),
               NULL))
      return;
}

bool gen_delta(struct choice *c, size_t upto, bool last) {
  struct gen *g = c->g;
  const char *p = (const char *)c->text.data + c->sent;
  size_t n = upto - c->sent;
  if (n == 0 && !last) return true;
  json_t *text = api_text(n ? p : "", n), *lp = take_logprobs(c), *o;
  json_t *why = last ? json_string(reason(c->finish)) : json_null();
  c->sent = upto;
  if (g->chat)
    o = json_pack("{s:i,s:o,s:o,s:o}", "index", (int)c->index, "delta",
                  n ? json_pack("{s:o}", "content", text) : json_object(), "logprobs", lp, "finish_reason",
                  why);
  else
    o = json_pack("{s:i,s:o,s:o,s:o}", "index", (int)c->index, "text", text, "logprobs", lp, "finish_reason",
                  why);
  if (g->chat && !n) json_decref(text);
  return chunk(g, o, NULL);
}

void gen_answer(struct gen *g) {
  if (g->stream) {
    if (g->include_usage && !chunk(g, NULL, usage(g))) return;
    static const char end[] = "data: [DONE]\n\n";
    if (g->x && foray_http_stream_write(g->x, end, sizeof end - 1)) foray_http_stream_end(g->x);
    g->x = NULL;
    return;
  }
  json_t *o = envelope(g, g->chat ? "chat.completion" : "text_completion"), *list = json_array();
  for (uint32_t i = 0; i < g->n_choices; i++) {
    struct choice *c = &g->choices[i];
    json_t *text = api_text(c->text.len ? (const char *)c->text.data : "", c->sent), *lp = take_logprobs(c);
    if (g->chat)
      json_array_append_new(list, json_pack("{s:i,s:{s:s,s:o},s:o,s:s}", "index", (int)i, "message", "role",
                                            "assistant", "content", text, "logprobs", lp, "finish_reason",
                                            reason(c->finish)));
    else
      json_array_append_new(list, json_pack("{s:i,s:o,s:o,s:s}", "index", (int)i, "text", text, "logprobs",
                                            lp, "finish_reason", reason(c->finish)));
  }
  json_object_set_new(o, "choices", list);
  json_object_set_new(o, "usage", usage(g));
  struct foray_http_exchange *x = g->x;
  g->x = NULL;
  api_reply_json(x, 200, o);
}

void gen_error(struct gen *g, int status, const char *type, const char *text) {
  struct foray_http_exchange *x = g->x;
  if (!x) return;
  if (!g->begun) {
    g->x = NULL;
    api_error(x, status, type, NULL, text);
    return;
  }
  if (event(g, error_object(status, type, NULL, text)) && g->x) foray_http_stream_end(g->x);
  g->x = NULL;
}
