/* The API over a scripted backend, on a real loop and real sockets: shapes, streams, stop strings, limits,
 * and clients that leave or are slow. Tokens are bytes of a tiny model's vocabulary. */
#include "unit/harness.h"
#include "unit/tiny_model.h"

#include "core/err.h"
#include "http/api.h"

#include <errno.h>
#include <event2/event.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct world {
  struct event_base *base;
  struct foray_http_server *srv;
  struct foray_http_api *api;
  struct foray_model *model;
  struct foray_buf file, got;
  uint64_t ids[1024], cancelled[1024];
  uint32_t n_started, n_cancelled;
  struct foray_gen_request *last;
  enum foray_status answer; /* of start */
  bool locked;              /* a token is asked for */
};

static enum foray_status start(void *self, uint64_t id, const char *tenant, const struct foray_gen_request *r,
                               struct foray_err *err) {
  struct world *w = self;
  (void)tenant;
  if (w->answer) return foray_err_set(err, w->answer, "no room");
  free(w->last);
  w->last = foray_gen_request_copy(r);
  w->ids[w->n_started++] = id;
  return FORAY_OK;
}
static void cancel(void *self, uint64_t id) {
  struct world *w = self;
  w->cancelled[w->n_cancelled++] = id;
}
static bool authorize(void *self, uint64_t address, const char *bearer, const char *peer,
                      enum foray_http_scope scope, char *tenant, size_t cap) {
  (void)peer;
  (void)address;
  (void)scope;
  snprintf(tenant, cap, "t");
  return !((struct world *)self)->locked || (bearer && !strcmp(bearer, "secret"));
}

static void open_world(struct world *w, const struct foray_http_server_opts *times, uint32_t running_max,
                       bool serve) {
  *w = (struct world){0};
  struct foray_tiny d = foray_tiny_default(FORAY_ARCH_LLAMA);
  struct foray_err err = {0};
  foray_tiny_build(&d, &w->file);
  CU_ASSERT_EQUAL_FATAL(foray_model_open_memory(w->file.data, w->file.len, "tiny", &w->model, &err),
                        FORAY_OK);
  w->base = event_base_new();
  struct foray_http_backend be = {.self = w,
                                  .start = start,
                                  .cancel = cancel,
                                  .authorize = authorize,
                                  .top_logprobs = 20,
                                  .running_max = running_max};
  CU_ASSERT_EQUAL_FATAL(foray_http_api_create(&be, &w->api, &err), FORAY_OK);
  struct foray_http_server_opts so = times ? *times : (struct foray_http_server_opts){0};
  so.base = w->base;
  so.handler = foray_http_api_handle;
  so.user = w->api;
  CU_ASSERT_EQUAL_FATAL(foray_http_server_open(&so, &w->srv, &err), FORAY_OK);
  if (serve) foray_http_api_serve(w->api, w->model, "tiny", 512);
  foray_buf_init(&w->got, 64 << 20);
}
static void close_world(struct world *w) {
  foray_http_server_close(w->srv);
  foray_http_api_destroy(w->api);
  event_base_free(w->base);
  foray_model_close(w->model);
  foray_buf_deinit(&w->file);
  foray_buf_deinit(&w->got);
  free(w->last);
}

static int client(struct world *w) {
  int fd[2];
  CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
  foray_http_server_accept(w->srv, fd[1], NULL);
  return fd[0];
}
static void turn(struct world *w) {
  for (int i = 0; i < 4; i++) event_base_loop(w->base, EVLOOP_NONBLOCK);
}
static void say(struct world *w, int fd, const char *p, size_t n) {
  while (n) {
    ssize_t k = write(fd, p, n);
    if (k > 0) {
      p += k;
      n -= (size_t)k;
    } else if (errno != EAGAIN) {
      return;
    }
    turn(w);
  }
}
/* Reads until `until` is in what came since the last call (NULL: until the end); false: the stream ended
 * first. */
static bool hear(struct world *w, int fd, const char *until) {
  foray_buf_clear(&w->got);
  for (;;) {
    char b[65536];
    ssize_t k = read(fd, b, sizeof b);
    if (k > 0) CU_ASSERT_EQUAL_FATAL(foray_buf_add(&w->got, b, (size_t)k), FORAY_OK);
    if (k == 0 || (k < 0 && errno != EAGAIN)) return until == NULL;
    if (until && w->got.len && strstr((char *)w->got.data, until)) return true;
    if (k < 0) event_base_loop(w->base, EVLOOP_ONCE);
  }
}
static void post(struct world *w, int fd, const char *path, const char *body) {
  char head[512];
  int n = snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", path,
                   strlen(body));
  say(w, fd, head, (size_t)n);
  say(w, fd, body, strlen(body));
}
/* One request whose answer comes at once; its status. */
static int ask(struct world *w, const char *path, const char *body) {
  int fd = client(w);
  if (body) {
    post(w, fd, path, body);
  } else {
    char head[512];
    say(w, fd, head, (size_t)snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path));
  }
  hear(w, fd, "\r\n\r\n");
  int status = 0;
  if (w->got.len > 12) status = (int)strtol((char *)w->got.data + 9, NULL, 10);
  close(fd);
  turn(w);
  return status;
}
static const char *got(struct world *w) { return (const char *)w->got.data; }

/* Sends text as tokens of one byte each. */
static void tokens(struct world *w, uint32_t which, const char *text, enum foray_finish f) {
  uint32_t ids[256], n = 0;
  for (const char *p = text; *p; p++) {
    struct foray_ids v = {0};
    struct foray_err err;
    /* a byte's token: the encoding of that byte alone, whole characters aside */
    if ((unsigned char)*p < 0x80) {
      CU_ASSERT_EQUAL_FATAL(foray_tokenizer_encode(w->model->tokenizer, p, 1, 0, &v, &err), FORAY_OK);
      CU_ASSERT_EQUAL_FATAL(v.n, 1);
      ids[n++] = (uint32_t)v.ids[0];
    } else {
      for (int32_t id = 0; id < FORAY_TINY_VOCAB; id++) {
        size_t len;
        const char *piece = foray_tokenizer_piece(w->model->tokenizer, id, &len);
        if (len == 1 && piece[0] == *p) {
          ids[n++] = (uint32_t)id;
          break;
        }
      }
    }
    foray_ids_deinit(&v);
  }
  foray_http_api_tokens(w->api, w->ids[which], &(struct foray_http_tokens){.ids = ids, .n = n, .finish = f});
  turn(w);
}
static json_t *json_body(struct world *w) {
  const char *p = strstr(got(w), "\r\n\r\n");
  json_error_t e;
  json_t *o = p ? json_loads(p + 4, 0, &e) : NULL;
  CU_ASSERT_PTR_NOT_NULL_FATAL(o);
  return o;
}
static const char *text_at(json_t *o, int choice, bool chat) {
  json_t *c = json_array_get(json_object_get(o, "choices"), (size_t)choice);
  return json_string_value(chat ? json_object_get(json_object_get(c, "message"), "content")
                                : json_object_get(c, "text"));
}

TEST(an_answer_has_openai_shape) {
  struct world w;
  open_world(&w, NULL, 0, true);
  int fd = client(&w);
  post(&w, fd, "/v1/chat/completions",
       "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}],\"n\":2,"
       "\"seed\":5,"
       "\"temperature\":0.5,\"max_tokens\":9,\"logit_bias\":{\"7\":-100}}");
  turn(&w);
  CU_ASSERT_EQUAL_FATAL(w.n_started, 2);
  CU_ASSERT_EQUAL(w.last->sampling.seed, 6); /* the second choice's */
  CU_ASSERT_EQUAL(w.last->max_tokens, 9);
  CU_ASSERT_EQUAL(w.last->sampling.bias_ids[0], 7);
  CU_ASSERT_EQUAL(w.last->mode, FORAY_MODE_PLAIN);
  tokens(&w, 1, "two", FORAY_FINISH_LENGTH);
  tokens(&w, 0, "on", FORAY_FINISH_NONE);
  tokens(&w, 0, "e", FORAY_FINISH_EOS);
  CU_ASSERT(hear(&w, fd, "usage"));
  json_t *o = json_body(&w);
  CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(o, "object")), "chat.completion");
  CU_ASSERT_STRING_EQUAL(text_at(o, 0, true), "one");
  CU_ASSERT_STRING_EQUAL(text_at(o, 1, true), "two");
  json_t *c = json_array_get(json_object_get(o, "choices"), 1);
  CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(c, "finish_reason")), "length");
  CU_ASSERT_EQUAL(json_integer_value(json_object_get(json_object_get(o, "usage"), "completion_tokens")), 6);
  json_decref(o);
  /* the connection lives on */
  post(&w, fd, "/v1/completions", "{\"prompt\":[1,2,3],\"max_tokens\":1}");
  turn(&w);
  CU_ASSERT_EQUAL_FATAL(w.n_started, 3);
  CU_ASSERT_EQUAL(w.last->n_prompt, 3);
  tokens(&w, 2, "x", FORAY_FINISH_LENGTH);
  CU_ASSERT(hear(&w, fd, "usage"));
  o = json_body(&w);
  CU_ASSERT_STRING_EQUAL(text_at(o, 0, false), "x");
  json_decref(o);
  CU_ASSERT_EQUAL(w.n_cancelled, 0);
  CU_ASSERT_EQUAL(foray_http_api_busy(w.api), 0);
  close(fd);
  close_world(&w);
}

TEST(stop_strings_never_reach_the_text) {
  struct world w;
  open_world(&w, NULL, 0, true);
  int fd = client(&w);
  post(&w, fd, "/v1/completions", "{\"prompt\":\"a\",\"stop\":[\"END\",\"xyz\"],\"stream\":true}");
  turn(&w);
  CU_ASSERT_EQUAL_FATAL(w.n_started, 1);
  CU_ASSERT_EQUAL(w.last->n_stops, 2);
  tokens(&w, 0, "abcE", FORAY_FINISH_NONE);
  CU_ASSERT(hear(&w, fd, "abc"));
  CU_ASSERT_PTR_NULL(strstr(got(&w), "abcE")); /* may be the beginning of a stop string */
  tokens(&w, 0, "N", FORAY_FINISH_NONE);
  tokens(&w, 0, "xxy", FORAY_FINISH_NONE); /* was not: all but the new beginning comes */
  CU_ASSERT(hear(&w, fd, "ENx"));
  CU_ASSERT_PTR_NULL(strstr(got(&w), "ENxx"));
  tokens(&w, 0, "z", FORAY_FINISH_STOP);
  CU_ASSERT(hear(&w, fd, "[DONE]"));
  CU_ASSERT_PTR_NOT_NULL(strstr(got(&w), "\"finish_reason\":\"stop\""));
  CU_ASSERT_PTR_NULL(strstr(got(&w), "z\""));
  close(fd);
  close_world(&w);
}

TEST(characters_are_never_split) {
  struct world w;
  open_world(&w, NULL, 0, true);
  int fd = client(&w);
  post(&w, fd, "/v1/chat/completions",
       "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true,\"stream_options\":{\"include_"
       "usage\":true}}");
  turn(&w);
  tokens(&w, 0, "\xc3", FORAY_FINISH_NONE);
  tokens(&w, 0, "\xa9", FORAY_FINISH_NONE);
  tokens(&w, 0, "\xe2\x82", FORAY_FINISH_LENGTH); /* never completed: replaced, still valid JSON */
  CU_ASSERT(hear(&w, fd, "[DONE]"));
  CU_ASSERT_PTR_NOT_NULL(strstr(got(&w), "\"content\":\"\xc3\xa9\""));
  CU_ASSERT_PTR_NOT_NULL(strstr(got(&w), "\xef\xbf\xbd"));
  CU_ASSERT_PTR_NOT_NULL(strstr(got(&w), "\"completion_tokens\":4"));
  CU_ASSERT_PTR_NOT_NULL(strstr(got(&w), "\"role\":\"assistant\""));
  close(fd);
  close_world(&w);
}

TEST(bad_requests_say_what_is_wrong) {
  struct world w;
  open_world(&w, NULL, 0, true);
  static const struct {
    const char *path, *body;
    int status;
    const char *says;
  } cases[] = {
      {"/v1/completions", "{", 400, "no JSON"},
      {"/v1/completions", "[]", 400, "object"},
      {"/v1/completions", "{\"prompt\":\"a\",\"prompt\":\"b\"}", 400, "duplicate"},
      {"/v1/completions", "{}", 400, "'prompt' is missing"},
      {"/v1/completions", "{\"prompt\":[]}", 400, "prompt"},
      {"/v1/completions", "{\"prompt\":[-1]}", 400, "no token id"},
      {"/v1/completions", "{\"prompt\":[320]}", 400, "no token id"},
      {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":0}", 400, "max_tokens"},
      {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":1.5}", 400, "max_tokens"},
      {"/v1/completions", "{\"prompt\":\"a\",\"temperature\":-1}", 400, "temperature"},
      {"/v1/completions", "{\"prompt\":\"a\",\"temperature\":\"x\"}", 400, "temperature"},
      {"/v1/completions", "{\"prompt\":\"a\",\"top_p\":2}", 400, "top_p"},
      {"/v1/completions", "{\"prompt\":\"a\",\"n\":0}", 400, "'n'"},
      {"/v1/completions", "{\"prompt\":\"a\",\"best_of\":3}", 400, "best_of"},
      {"/v1/completions", "{\"prompt\":\"a\",\"echo\":true}", 400, "echo"},
      {"/v1/completions", "{\"prompt\":\"a\",\"stop\":[1]}", 400, "stop"},
      {"/v1/completions", "{\"prompt\":\"a\",\"logit_bias\":{\"320\":1}}", 400, "logit_bias"},
      {"/v1/completions", "{\"prompt\":\"a\",\"logit_bias\":{\"1\":101}}", 400, "logit_bias"},
      {"/v1/completions", "{\"prompt\":\"a\",\"stream_options\":1}", 400, "stream_options"},
      {"/v1/chat/completions", "{\"messages\":[]}", 400, "messages"},
      {"/v1/chat/completions", "{\"messages\":[{\"content\":\"x\"}]}", 400, "role"},
      {"/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":[{\"image_url\":1}]}]}", 400,
       "text"},
      {"/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{}]}", 400,
       "tools"},
      {"/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"top_logprobs\":3}",
       400, "logprobs"},
      {"/v1/chat/completions",
       "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"response_format\":{\"type\":\"json_object\"}"
       "}",
       400, "response_format"},
      {"/v1/chat/completions", NULL, 405, "POST"},
      {"/v1/models", "{}", 405, "GET"},
      {"/v1/models/none", NULL, 404, "model"},
      {"/nothing", NULL, 404, "path"},
      {"/tokenize", "{\"content\":5}", 400, "content"},
      {"/detokenize", "{\"tokens\":[9999]}", 400, "token id"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int st = ask(&w, cases[i].path, cases[i].body);
    if (st != cases[i].status || !strstr(got(&w), cases[i].says) || !strstr(got(&w), "\"error\""))
      printf("%s %s: %d %s\n", cases[i].path, cases[i].body ? cases[i].body : "", st, got(&w));
    CU_ASSERT_EQUAL(st, cases[i].status);
    CU_ASSERT_PTR_NOT_NULL(strstr(got(&w), cases[i].says));
  }
  CU_ASSERT_EQUAL(w.n_started, 0);
  w.answer = FORAY_E_BUSY;
  CU_ASSERT_EQUAL(ask(&w, "/v1/completions", "{\"prompt\":\"a\"}"), 429);
  CU_ASSERT_PTR_NOT_NULL(strstr(got(&w), "Retry-After: "));
  w.answer = FORAY_OK;
  w.locked = true;
  CU_ASSERT_EQUAL(ask(&w, "/v1/models", NULL), 401);
  CU_ASSERT_EQUAL(ask(&w, "/health", NULL), 200);
  int fd = client(&w);
  static const char with[] = "GET /v1/models HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\r\n";
  say(&w, fd, with, sizeof with - 1);
  CU_ASSERT(hear(&w, fd, "\"tiny\""));
  close(fd);
  close_world(&w);
}

/* A body with n of something, and what comes of it. */
static int sized(struct world *w, const char *what, int n) {
  struct foray_buf b;
  foray_buf_init(&b, 8 << 20);
  enum foray_status st = foray_buf_addf(&b, "{\"prompt\":\"a\"");
  const char *path = "/v1/completions";
  if (!strcmp(what, "depth")) {
    st = foray_buf_addf(&b, ",\"x\":");
    for (int i = 1; i < n; i++) st = foray_buf_add(&b, "[", 1);
    for (int i = 1; i < n; i++) st = foray_buf_add(&b, "]", 1);
  } else if (!strcmp(what, "choices")) {
    st = foray_buf_addf(&b, ",\"n\":%d", n);
  } else if (!strcmp(what, "prompts")) {
    foray_buf_clear(&b);
    st = foray_buf_addf(&b, "{\"prompt\":[\"a\"");
    for (int i = 1; i < n; i++) st = foray_buf_add(&b, ",\"b\"", 4);
    st = foray_buf_add(&b, "]", 1);
  } else if (!strcmp(what, "stops")) {
    st = foray_buf_addf(&b, ",\"stop\":[\"s\"");
    for (int i = 1; i < n; i++) st = foray_buf_add(&b, ",\"t\"", 4);
    st = foray_buf_add(&b, "]", 1);
  } else if (!strcmp(what, "stop bytes")) {
    st = foray_buf_addf(&b, ",\"stop\":\"");
    for (int i = 0; i < n; i++) st = foray_buf_add(&b, "s", 1);
    st = foray_buf_add(&b, "\"", 1);
  } else if (!strcmp(what, "bias")) {
    st = foray_buf_addf(&b, ",\"logit_bias\":{\"0\":1");
    for (int i = 1; i < n; i++) st = foray_buf_addf(&b, ",\"%0*d\":1", 3 + i / 300, i % 300);
    st = foray_buf_add(&b, "}", 1);
  } else if (!strcmp(what, "top")) {
    st = foray_buf_addf(&b, ",\"logprobs\":%d", n);
  } else {
    foray_buf_clear(&b);
    path = "/apply-template";
    st = foray_buf_addf(&b, "{\"messages\":[");
    for (int i = 0; i < n; i++)
      st = foray_buf_addf(&b, "%s{\"role\":\"%s\",\"content\":\"x\"}", i ? "," : "",
                          i % 2 ? "assistant" : "user");
    st = foray_buf_add(&b, "]", 1);
  }
  st = foray_buf_add(&b, "}", 1);
  CU_ASSERT_EQUAL_FATAL(st, FORAY_OK);
  uint32_t before = w->n_started;
  int fd = client(w);
  post(w, fd, path, (char *)b.data);
  turn(w);
  int status = 200;
  if (w->n_started == before) {
    hear(w, fd, "\r\n\r\n");
    status = (int)strtol(got(w) + 9, NULL, 10);
  }
  close(fd);
  turn(w);
  w->n_started = 0;
  w->n_cancelled = 0;
  foray_buf_deinit(&b);
  return status;
}

TEST(limits_hold_at_and_over) {
  struct world w;
  open_world(&w, NULL, 0, true);
  static const struct {
    const char *what;
    int limit;
  } cases[] = {{"depth", FORAY_HTTP_JSON_DEPTH_MAX},      {"choices", FORAY_HTTP_CHOICES_MAX},
               {"prompts", FORAY_HTTP_CHOICES_MAX},       {"stops", FORAY_HTTP_STOPS_MAX},
               {"stop bytes", FORAY_HTTP_STOP_BYTES_MAX}, {"bias", FORAY_HTTP_BIAS_MAX},
               {"top", FORAY_HTTP_TOP_LOGPROBS_MAX},      {"messages", FORAY_HTTP_MESSAGES_MAX}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int at = sized(&w, cases[i].what, cases[i].limit), over = sized(&w, cases[i].what, cases[i].limit + 1);
    if (at != 200 || over != 400)
      printf("%s: %d at the limit, %d over it: %s\n", cases[i].what, at, over, got(&w));
    CU_ASSERT_EQUAL(at, 200);
    CU_ASSERT_EQUAL(over, 400);
  }
  close_world(&w);
  open_world(&w, NULL, 3, true);
  int fd = client(&w);
  post(&w, fd, "/v1/completions", "{\"prompt\":\"a\",\"n\":2}");
  turn(&w);
  CU_ASSERT_EQUAL(ask(&w, "/v1/completions", "{\"prompt\":\"a\",\"n\":2}"), 429);
  int fd2 = client(&w);
  post(&w, fd2, "/v1/completions", "{\"prompt\":\"a\"}");
  turn(&w);
  CU_ASSERT_EQUAL(w.n_started, 3);
  close(fd);
  close(fd2);
  close_world(&w);
}

TEST(who_leaves_is_cancelled) {
  struct world w;
  open_world(&w, NULL, 0, true);
  for (int stream = 0; stream < 2; stream++) {
    w.n_started = w.n_cancelled = 0;
    int fd = client(&w);
    post(&w, fd, "/v1/completions",
         stream ? "{\"prompt\":\"a\",\"n\":2,\"stream\":true}" : "{\"prompt\":\"a\",\"n\":2}");
    turn(&w);
    CU_ASSERT_EQUAL_FATAL(w.n_started, 2);
    tokens(&w, 0, "ab", FORAY_FINISH_LENGTH);
    close(fd);
    turn(&w);
    CU_ASSERT_EQUAL_FATAL(w.n_cancelled, 1);
    CU_ASSERT_EQUAL(w.cancelled[0], w.ids[1]);
    tokens(&w, 1, "late", FORAY_FINISH_LENGTH); /* to nobody */
    CU_ASSERT_EQUAL(foray_http_api_busy(w.api), 0);
  }
  /* a reader that takes nothing: the stream is cut when its buffer is full, and the generation ends */
  w.n_started = w.n_cancelled = 0;
  int fd = client(&w);
  post(&w, fd, "/v1/completions", "{\"prompt\":\"a\",\"stream\":true}");
  turn(&w);
  for (int i = 0; i < 1000000 && !w.n_cancelled; i++)
    tokens(&w, 0, "abcdefghijklmnopqrst", FORAY_FINISH_NONE);
  CU_ASSERT_EQUAL(w.n_cancelled, 1);
  close(fd);
  /* a failure in the middle of a stream is an event, before it a status */
  w.n_started = w.n_cancelled = 0;
  fd = client(&w);
  post(&w, fd, "/v1/completions", "{\"prompt\":\"a\",\"stream\":true}");
  turn(&w);
  foray_http_api_failed(w.api, w.ids[0], FORAY_E_NOMEM, "no memory", 0);
  CU_ASSERT(hear(&w, fd, "0\r\n\r\n"));
  CU_ASSERT_PTR_NOT_NULL(strstr(got(&w), "data: {\"error\""));
  close(fd);
  close_world(&w);
}

TEST(slow_clients_run_out_of_time) {
  struct world w;
  struct foray_http_server_opts t = {
      .head_ms = 30, .body_ms = 30, .idle_ms = 30, .stall_ms = 2000, .conns_max = 2};
  open_world(&w, &t, 0, true);
  static const char *const parts[] = {
      "GET / HTTP/1.1\r\nHost: h\r\nX: ",
      "POST /tokenize HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n{"};
  for (int i = 0; i < 2; i++) { /* slow-loris: the time is of the whole head, not of one read */
    int fd = client(&w);
    say(&w, fd, parts[i], strlen(parts[i]));
    bool ended = false;
    while (!ended) { /* the 408 must come, however often a byte does */
      char b[4096];
      (void)!write(fd, "a", 1);
      usleep(1000);
      turn(&w);
      ssize_t n = read(fd, b, sizeof b - 1);
      if (n == 0) break;
      if (n < 0) continue;
      b[n] = 0;
      CU_ASSERT_PTR_NOT_NULL(strstr(b, " 408 "));
      ended = true;
    }
    CU_ASSERT(ended);
    close(fd);
  }
  int fd = client(&w); /* says nothing at all */
  CU_ASSERT(hear(&w, fd, NULL));
  close(fd);
  fd = client(&w); /* idle after an answer */
  static const char get[] = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";
  say(&w, fd, get, sizeof get - 1);
  CU_ASSERT(hear(&w, fd, "ok"));
  CU_ASSERT(hear(&w, fd, NULL));
  close(fd);
  turn(&w);
  int a = client(&w), b = client(&w), c = client(&w); /* one more than there may be */
  CU_ASSERT(hear(&w, c, NULL));
  CU_ASSERT_EQUAL(w.got.len, 0);
  close(a);
  close(b);
  close(c);
  close_world(&w);
}

TEST(pipelined_requests_are_answered_in_order) {
  struct world w;
  open_world(&w, NULL, 0, true);
  int fd = client(&w);
  static const char two[] =
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"}"
      "GET /version HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
  say(&w, fd, two, sizeof two - 1);
  turn(&w);
  CU_ASSERT_EQUAL_FATAL(w.n_started, 1);
  tokens(&w, 0, "first", FORAY_FINISH_LENGTH);
  CU_ASSERT(hear(&w, fd, NULL));
  const char *a = strstr(got(&w), "first"), *b = strstr(got(&w), "\"version\"");
  CU_ASSERT(a && b && a < b);
  close(fd);
  close_world(&w);
}

TEST(nothing_is_served_while_loading_or_draining) {
  struct world w;
  open_world(&w, NULL, 0, false);
  CU_ASSERT_EQUAL(ask(&w, "/health", NULL), 503);
  CU_ASSERT_EQUAL(ask(&w, "/v1/completions", "{\"prompt\":\"a\"}"), 503);
  CU_ASSERT_EQUAL(ask(&w, "/tokenize", "{\"content\":\"a\"}"), 503);
  foray_http_api_serve(w.api, w.model, "tiny", 512);
  CU_ASSERT_EQUAL(ask(&w, "/health", NULL), 200);
  int fd = client(&w);
  post(&w, fd, "/v1/completions", "{\"prompt\":\"a\"}");
  turn(&w);
  foray_http_api_drain(w.api);
  CU_ASSERT_EQUAL(ask(&w, "/v1/completions", "{\"prompt\":\"a\"}"), 503);
  foray_http_server_drain(w.srv);
  CU_ASSERT_EQUAL(foray_http_api_busy(w.api), 1);
  tokens(&w, 0, "whole", FORAY_FINISH_LENGTH); /* what was under way is answered, then the connection ends */
  CU_ASSERT(hear(&w, fd, NULL));
  CU_ASSERT_PTR_NOT_NULL(strstr(got(&w), "whole"));
  close(fd);
  close_world(&w);
}
