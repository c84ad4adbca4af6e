/* http/api.h - the OpenAI-compatible face (and llama.cpp's /health, /props, /tokenize, /detokenize) over
 * anything that makes tokens: forayd's scheduler, or an edge that drafts here and verifies in the cloud.
 *
 *   backend: struct foray_http_backend be = {.self = me, .start = start, .cancel = cancel, ...};
 *   foray_http_api_create(&be, &api, &err);
 *   server:  opts.handler = foray_http_api_handle; opts.user = api;
 *   tokens:  foray_http_api_tokens(api, id, &tokens); foray_http_api_failed(api, id, code, text);
 *
 * The layer turns text into ids and back, keeps stop strings out of the text, and writes answers and event
 * streams. It runs on the loop's thread only; the backend may not call back from inside start or cancel. */
#ifndef FORAY_HTTP_API_H
#define FORAY_HTTP_API_H

#include "core/hist.h"
#include "http/prom.h"
#include "http/server.h"
#include "model/model.h"
#include "proto/params.h"

struct foray_http_api; /* opaque */

enum foray_http_scope { FORAY_HTTP_SCOPE_GENERATE = 1, FORAY_HTTP_SCOPE_METRICS = 2 };

struct foray_http_backend {
  void *self;
  /* Begins a generation (request is copied); mode is PLAIN or SPECULATIVE as the backend likes it. tenant:
   * who asks, "" for nobody. FORAY_E_BUSY: no room now (429, Retry-After); others: 400 or 500. */
  enum foray_status (*start)(void *self, uint64_t id, const char *tenant, const struct foray_gen_request *r,
                             struct foray_err *err);
  /* The client left or one of its other choices failed; no callback follows. */
  void (*cancel)(void *self, uint64_t id);
  /* More samples for /metrics; may be NULL. */
  void (*metrics)(void *self, struct foray_prom *p);
  /* Who may do this: address is for tls/guard.h, bearer the presented token or NULL, peer the name in a
   * client certificate or "". Writes the tenant. NULL: everybody may do everything. */
  bool (*authorize)(void *self, uint64_t address, const char *bearer, const char *peer,
                    enum foray_http_scope scope, char *tenant, size_t cap);
  /* Further paths, with an authorization of their own. False: not one of them. May be NULL. */
  bool (*route)(void *self, struct foray_http_exchange *x, const char *bearer);
  uint32_t
      top_logprobs;     /* alternatives a token that it can report; UINT32_MAX: no log-probabilities at all */
  uint32_t running_max; /* 0: FORAY_HTTP_RUNNING_MAX */
};

enum foray_status foray_http_api_create(const struct foray_http_backend *be, struct foray_http_api **out,
                                        struct foray_err *err) FORAY_NODISCARD;
void foray_http_api_destroy(struct foray_http_api *a); /* after its server; NULL is allowed */

/* Until this is called every request for tokens is answered 503 "loading". model is borrowed; name as clients
 * shall write it. FORAY_E_*: the file's chat template is not known (completions work all the same: the error
 * is kept and told to those who want a chat). */
void foray_http_api_serve(struct foray_http_api *a, const struct foray_model *model, const char *name,
                          uint32_t ctx);
/* From now on 503 for new generations; those under way go on. */
void foray_http_api_drain(struct foray_http_api *a);
uint32_t foray_http_api_busy(const struct foray_http_api *a); /* generations under way */

/* For routes: OpenAI's error object. */
void foray_http_api_error(struct foray_http_exchange *x, int status, const char *type, const char *text);
void foray_http_api_handle(void *api, struct foray_http_exchange *x);

struct foray_http_tokens {
  const uint32_t *ids;
  uint32_t n;
  enum foray_finish finish; /* NONE: more come */
  /* With request->logprobs k + 1: logp[i * (k + 1)] of ids[i], then those of its k alternatives; top[i * k].
   */
  const double *logp;
  const uint32_t *top;
  uint32_t drafted, accepted; /* among them, for usage */
};
void foray_http_api_tokens(struct foray_http_api *a, uint64_t id, const struct foray_http_tokens *t);
/* retry_ms: with FORAY_E_BUSY, for Retry-After; 0: a second. */
void foray_http_api_failed(struct foray_http_api *a, uint64_t id, enum foray_status code, const char *text,
                           uint32_t retry_ms);

#endif
