#include "http/api_impl.h"

#include "core/err.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void asked_deinit(struct asked *a) {
  free(a->bias_ids);
  free(a->bias);
  a->bias_ids = NULL;
  a->bias = NULL;
}

/* jansson recurses once a level: what is too deep never reaches it. */
static bool too_deep(const char *s, size_t n) {
  int depth = 0;
  bool text = false;
  for (size_t i = 0; i < n; i++) {
    if (text) {
      if (s[i] == '\\')
        i++;
      else if (s[i] == '"')
        text = false;
    } else if (s[i] == '"') {
      text = true;
    } else if (s[i] == '{' || s[i] == '[') {
      if (++depth > FORAY_HTTP_JSON_DEPTH_MAX) return true;
    } else if (s[i] == '}' || s[i] == ']') {
      depth--;
    }
  }
  return false;
}

json_t *api_json(const char *body, size_t len, struct foray_err *err) {
  if (too_deep(body, len)) {
    foray_err_set(err, FORAY_E_LIMIT, "the JSON body is nested deeper than %d levels",
                  FORAY_HTTP_JSON_DEPTH_MAX);
    return NULL;
  }
  json_error_t why;
  json_t *o = json_loadb(body, len, JSON_REJECT_DUPLICATES, &why);
  if (!o) {
    foray_err_set(err, FORAY_E_ARG, "the body is no JSON: %s (line %d)", why.text, why.line);
  } else if (!json_is_object(o)) {
    json_decref(o);
    o = NULL;
    foray_err_set(err, FORAY_E_ARG, "the body must be a JSON object");
  }
  return o;
}

/* ---------------------------------------------------------------- fields */

static enum foray_status number(json_t *o, const char *key, double lo, double hi, double *v,
                                struct foray_err *err) {
  json_t *f = json_object_get(o, key);
  if (!f || json_is_null(f)) return FORAY_OK;
  if (!json_is_number(f)) return foray_err_set(err, FORAY_E_ARG, "'%s' must be a number", key);
  double d = json_number_value(f);
  if (!(d >= lo && d <= hi))
    return foray_err_set(err, FORAY_E_ARG, "'%s' is %g; it must lie between %g and %g", key, d, lo, hi);
  *v = d;
  return FORAY_OK;
}
static enum foray_status integer(json_t *o, const char *key, int64_t lo, int64_t hi, int64_t *v, bool *has,
                                 struct foray_err *err) {
  json_t *f = json_object_get(o, key);
  if (!f || json_is_null(f)) return FORAY_OK;
  if (!json_is_integer(f)) return foray_err_set(err, FORAY_E_ARG, "'%s' must be an integer", key);
  int64_t d = json_integer_value(f);
  if (d < lo || d > hi)
    return foray_err_set(err, FORAY_E_ARG, "'%s' is %lld; it must lie between %lld and %lld", key,
                         (long long)d, (long long)lo, (long long)hi);
  *v = d;
  if (has) *has = true;
  return FORAY_OK;
}
static enum foray_status boolean(json_t *o, const char *key, bool *v, struct foray_err *err) {
  json_t *f = json_object_get(o, key);
  if (!f || json_is_null(f)) return FORAY_OK;
  if (!json_is_boolean(f)) return foray_err_set(err, FORAY_E_ARG, "'%s' must be true or false", key);
  *v = json_is_true(f);
  return FORAY_OK;
}

/* What would change the answer and is not done here must not pass silently. */
static enum foray_status refused(json_t *o, struct foray_err *err) {
  static const char *const fields[] = {"tools", "functions", "suffix", "grammar", "json_schema"};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    json_t *f = json_object_get(o, fields[i]);
    if (f && !json_is_null(f) && !(json_is_array(f) && json_array_size(f) == 0) &&
        !(json_is_string(f) && json_string_length(f) == 0))
      return foray_err_set(err, FORAY_E_UNSUPPORTED, "'%s' is not supported", fields[i]);
  }
  json_t *echo = json_object_get(o, "echo");
  if (echo && json_is_true(echo)) return foray_err_set(err, FORAY_E_UNSUPPORTED, "'echo' is not supported");
  json_t *f = json_object_get(o, "response_format"), *t = f ? json_object_get(f, "type") : NULL;
  if (t && !(json_is_string(t) && !strcmp(json_string_value(t), "text")))
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "'response_format' other than text is not supported");
  return FORAY_OK;
}

static enum foray_status bias(json_t *o, uint32_t vocab, struct asked *out, struct foray_err *err) {
  json_t *f = json_object_get(o, "logit_bias");
  if (!f || json_is_null(f)) return FORAY_OK;
  if (!json_is_object(f)) return foray_err_set(err, FORAY_E_ARG, "'logit_bias' must be an object");
  size_t n = json_object_size(f);
  if (n > FORAY_HTTP_BIAS_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "'logit_bias' has %zu entries; at most %d", n,
                         FORAY_HTTP_BIAS_MAX);
  out->bias_ids = calloc(n + 1, sizeof *out->bias_ids);
  out->bias = calloc(n + 1, sizeof *out->bias);
  if (!out->bias_ids || !out->bias) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  const char *key;
  json_t *v;
  json_object_foreach(f, key, v) {
    char *end;
    errno = 0;
    unsigned long id = strtoul(key, &end, 10);
    if (errno || end == key || *end || *key == '-' || id >= vocab)
      return foray_err_set(err, FORAY_E_ARG, "'logit_bias': no token has the id '%.20s'", key);
    double d = json_is_number(v) ? json_number_value(v) : NAN;
    if (!(d >= -100 && d <= 100))
      return foray_err_set(err, FORAY_E_ARG, "'logit_bias' of %s must lie between -100 and 100", key);
    out->bias_ids[out->s.n_bias] = (uint32_t)id;
    out->bias[out->s.n_bias++] = (float)d;
  }
  out->s.bias_ids = out->bias_ids;
  out->s.bias = out->bias;
  return FORAY_OK;
}

static enum foray_status logprobs(const struct foray_http_api *a, json_t *o, bool chat, struct asked *out,
                                  struct foray_err *err) {
  int64_t top = 0;
  bool on = false, has = false;
  json_t *f = json_object_get(o, "logprobs");
  if (chat || json_is_boolean(f)) { /* llama.cpp's clients send a boolean to completions as well */
    if (boolean(o, "logprobs", &on, err) ||
        integer(o, "top_logprobs", 0, FORAY_HTTP_TOP_LOGPROBS_MAX, &top, &has, err))
      return err->code;
    if (has && top && !on)
      return foray_err_set(err, FORAY_E_ARG, "'top_logprobs' needs 'logprobs' to be true");
  } else if (integer(o, "logprobs", 0, FORAY_HTTP_TOP_LOGPROBS_MAX, &top, &on, err)) {
    return err->code;
  }
  if (on && a->be.top_logprobs == UINT32_MAX)
    return foray_err_set(err, FORAY_E_UNSUPPORTED,
                         "log-probabilities are not available here: ask the cloud's own endpoint");
  out->logprobs = on ? (uint32_t)top + 1 : 0;
  return FORAY_OK;
}

enum foray_status api_asked(const struct foray_http_api *a, json_t *o, bool chat, struct asked *out,
                            struct foray_err *err) {
  *out = (struct asked){0};
  double temp = 1, top_p = 1, min_p = 0, rep = 1, pres = 0, freq = 0;
  int64_t max = 16, n = 1, seed = 0, top_k = 0, last = 64, best = 0;
  bool has_seed = false, has_best = false;
  json_t *so = json_object_get(o, "stream_options");
  if (so && !json_is_null(so) && !json_is_object(so))
    return foray_err_set(err, FORAY_E_ARG, "'stream_options' must be an object");
  if (refused(o, err) || number(o, "temperature", 0, 100, &temp, err) ||
      number(o, "top_p", 0, 1, &top_p, err) || number(o, "min_p", 0, 1, &min_p, err) ||
      number(o, "repeat_penalty", 0.01, 100, &rep, err) || number(o, "presence_penalty", -2, 2, &pres, err) ||
      number(o, "frequency_penalty", -2, 2, &freq, err) ||
      integer(o, "top_k", 0, 1 << 20, &top_k, NULL, err) ||
      integer(o, "repeat_last_n", -1, 1 << 20, &last, NULL, err) ||
      integer(o, "n", 1, FORAY_HTTP_CHOICES_MAX, &n, NULL, err) ||
      integer(o, "best_of", 1, 64, &best, &has_best, err) ||
      integer(o, "seed", INT64_MIN, INT64_MAX, &seed, &has_seed, err) ||
      integer(o, "max_tokens", 1, FORAY_PROTO_TOKENS_MAX, &max, &out->has_max, err) ||
      integer(o, "max_completion_tokens", 1, FORAY_PROTO_TOKENS_MAX, &max, &out->has_max, err) ||
      boolean(o, "stream", &out->stream, err) || boolean(o, "ignore_eos", &out->ignore_eos, err) ||
      boolean(so, "include_usage", &out->include_usage, err) || logprobs(a, o, chat, out, err))
    return err->code;
  if (has_best && best != n)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "'best_of' other than 'n' is not supported");
  json_t *model = json_object_get(o, "model");
  if (model && !json_is_null(model) && !json_is_string(model))
    return foray_err_set(err, FORAY_E_ARG, "'model' must be a string");
  if (!has_seed && getrandom(&seed, sizeof seed, 0) < 0) seed = 0;
  out->max_tokens = (uint32_t)max;
  out->n = (uint32_t)n;
  out->s = (struct foray_gen_sampling){.temperature = (float)temp,
                                       .top_k = (uint32_t)top_k,
                                       .top_p = (float)top_p,
                                       .min_p = (float)min_p,
                                       .repeat_penalty = (float)rep,
                                       .presence_penalty = (float)pres,
                                       .frequency_penalty = (float)freq,
                                       .repeat_last_n = (int32_t)last,
                                       .seed = (uint64_t)seed};
  if (out->s.top_p <= 0) { /* the wire's zero means off; here it means "only the best" */
    out->s.top_p = 1;
    out->s.top_k = 1;
  }
  return bias(o, foray_tokenizer_n_vocab(a->model->tokenizer), out, err);
}

enum foray_status api_stops(json_t *o, struct gen *g, struct foray_err *err) {
  json_t *f = json_object_get(o, "stop");
  if (!f || json_is_null(f)) return FORAY_OK;
  if (!json_is_string(f) && !json_is_array(f))
    return foray_err_set(err, FORAY_E_ARG, "'stop' must be a string or a list of strings");
  size_t n = json_is_array(f) ? json_array_size(f) : 1;
  if (n > FORAY_HTTP_STOPS_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "%zu stop strings; at most %d", n, FORAY_HTTP_STOPS_MAX);
  g->stops = calloc(n + 1, sizeof(*g->stops));
  g->stop_len = calloc(n + 1, sizeof *g->stop_len);
  if (!g->stops || !g->stop_len) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  for (size_t i = 0; i < n; i++) {
    json_t *s = json_is_array(f) ? json_array_get(f, i) : f;
    if (!json_is_string(s)) return foray_err_set(err, FORAY_E_ARG, "'stop' must hold strings");
    size_t len = json_string_length(s);
    if (len == 0) continue;
    if (len > FORAY_HTTP_STOP_BYTES_MAX)
      return foray_err_set(err, FORAY_E_LIMIT, "a stop string of %zu bytes; at most %d", len,
                           FORAY_HTTP_STOP_BYTES_MAX);
    char *copy = malloc(len + 1);
    if (!copy) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
    memcpy(copy, json_string_value(s), len + 1);
    g->stops[g->n_stops] = copy;
    g->stop_len[g->n_stops++] = (uint32_t)len;
  }
  return FORAY_OK;
}

/* ---------------------------------------------------------------- messages */

/* A message's content: a string, or a list of text parts, which are joined. */
static char *content_of(json_t *m, struct foray_err *err) {
  json_t *c = json_object_get(m, "content");
  if (!c || json_is_null(c)) return strdup("");
  if (json_is_string(c)) return strdup(json_string_value(c));
  if (!json_is_array(c)) {
    foray_err_set(err, FORAY_E_ARG, "a message's 'content' must be a string or a list of parts");
    return NULL;
  }
  struct foray_buf b;
  foray_buf_init(&b, FORAY_HTTP_BODY_MAX);
  enum foray_status st = foray_buf_add(&b, "", 0);
  size_t i;
  json_t *part;
  json_array_foreach(c, i, part) {
    json_t *t = json_object_get(part, "text");
    if (!json_is_string(t)) {
      foray_err_set(err, FORAY_E_UNSUPPORTED, "a message part other than text is not supported");
      foray_buf_deinit(&b);
      return NULL;
    }
    if (!st) st = foray_buf_add(&b, json_string_value(t), json_string_length(t));
  }
  char *out = st ? NULL : strdup(b.len ? (const char *)b.data : "");
  foray_buf_deinit(&b);
  return out;
}

enum foray_status api_messages(const struct foray_http_api *a, json_t *o, struct foray_ids *ids,
                               struct foray_buf *text, struct foray_err *err) {
  json_t *list = json_object_get(o, "messages");
  size_t n = json_array_size(list);
  if (!json_is_array(list) || n == 0)
    return foray_err_set(err, FORAY_E_ARG, "'messages' must be a list with at least one message");
  if (n > FORAY_HTTP_MESSAGES_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "%zu messages; at most %d", n, FORAY_HTTP_MESSAGES_MAX);
  if (a->chat_err.code)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "no chat with this model: %s", a->chat_err.msg);
  struct foray_chat_message *msgs = calloc(n, sizeof *msgs);
  enum foray_status st = msgs ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  for (size_t i = 0; i < n && !st; i++) {
    json_t *m = json_array_get(list, i), *role = json_object_get(m, "role");
    if (!json_is_string(role)) {
      st = foray_err_set(err, FORAY_E_ARG, "message %zu has no 'role'", i);
      break;
    }
    msgs[i].role = json_string_value(role);
    if (!strcmp(msgs[i].role, "developer")) msgs[i].role = "system";
    char *c = content_of(m, err);
    if (!c) st = err->code ? err->code : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
    msgs[i].content = c;
  }
  if (!st && text) st = foray_chat_render(&a->chat, msgs, n, true, text, err);
  if (!st && ids) st = foray_chat_encode(&a->chat, a->model->tokenizer, msgs, n, true, ids, err);
  for (size_t i = 0; msgs && i < n; i++) free((void *)(uintptr_t)msgs[i].content);
  free(msgs);
  return st;
}
