/* http/api_impl.h - what the files of the API share. Not for other libraries. */
#ifndef FORAY_HTTP_API_IMPL_H
#define FORAY_HTTP_API_IMPL_H

#include "http/api.h"
#include "model/chat.h"

#include <jansson.h>

enum { ID_BYTES = 40, BUCKETS = 256, TENANT_BYTES = 64, TEXT_MAX = 64 << 20 };

/* One HTTP request that makes text: choices = prompts times n. */
struct gen {
  struct foray_http_api *api;
  struct foray_http_exchange *x; /* NULL: gone */
  bool chat, stream, begun, include_usage;
  bool working; /* the API is at work on it: on_gone only marks */
  char id[ID_BYTES];
  int64_t created;
  int64_t started_ns;
  uint32_t logprobs; /* 0, or alternatives + 1 */
  uint32_t n_choices, n_done, prompt_tokens, drafted, accepted;
  char **stops;
  uint32_t *stop_len, n_stops;
  struct choice *choices;
};

struct choice {
  struct gen *g;
  struct choice *next; /* in the table of running ids */
  uint64_t id;
  uint32_t index;
  struct foray_detok detok;
  struct foray_buf text;
  size_t sent;   /* bytes of text that the client has */
  size_t judged; /* bytes in which no stop string begins any more */
  uint32_t tokens;
  enum foray_finish finish;
  json_t *content, *plain[4]; /* log-probabilities: chat's list, or completions' four lists */
  int64_t last_ns;
  bool running;
};

struct foray_http_api {
  struct foray_http_backend be;
  const struct foray_model *model; /* NULL: loading */
  char name[128];
  uint32_t ctx;
  struct foray_chat chat;
  struct foray_err chat_err;
  bool draining;
  int64_t since;
  uint64_t next_id;
  struct choice *table[BUCKETS];
  uint32_t running;
  struct foray_http_server_stats *http;
  struct {
    uint64_t requests, prompt_tokens, generation_tokens, finished[FORAY_FINISH_COUNT], failed, drafted,
        accepted;
    struct foray_hist first, between, whole, prompt, generated;
  } m;
};

/* ---- api_request.c: JSON to what is asked for. All fill err with a text for the client. */

struct asked {
  uint32_t max_tokens, n;
  bool has_max;
  struct foray_gen_sampling s;
  uint32_t *bias_ids;
  float *bias;
  bool stream, include_usage, ignore_eos;
  uint32_t logprobs;
};
void asked_deinit(struct asked *a);
/* A body to a JSON object; depth, size and duplicates checked. NULL on error. */
json_t *api_json(const char *body, size_t len, struct foray_err *err);
enum foray_status api_asked(const struct foray_http_api *a, json_t *o, bool chat, struct asked *out,
                            struct foray_err *err);
enum foray_status api_stops(json_t *o, struct gen *g, struct foray_err *err);
/* messages to ids, by the chat template. */
enum foray_status api_messages(const struct foray_http_api *a, json_t *o, struct foray_ids *ids,
                               struct foray_buf *text, struct foray_err *err);

/* ---- api_answer.c: tokens to JSON */
void gen_begin_stream(struct gen *g);
bool gen_delta(struct choice *c, size_t upto, bool last); /* false: the reader is gone */
void gen_answer(struct gen *g);                           /* all choices are done */
void gen_error(struct gen *g, int status, const char *type, const char *text);
void choice_logprob(struct choice *c, uint32_t id, const double *logp, const uint32_t *top, size_t offset);
void api_error(struct foray_http_exchange *x, int status, const char *type, const char *param,
               const char *text);
void api_reply_json(struct foray_http_exchange *x, int status, json_t *o); /* takes o */
/* Bytes to valid UTF-8 (U+FFFD for what is none) as a JSON string. */
json_t *api_text(const char *p, size_t n);
int api_status_of(enum foray_status s);

/* ---- api_routes.c: everything that makes no tokens. True: handled. */
bool api_route(struct foray_http_api *a, struct foray_http_exchange *x, const char *tenant);

#endif
