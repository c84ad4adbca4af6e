#include "cloudapi/cloudapi.h"

#include "core/err.h"
#include "core/hash.h"
#include "obs/metrics.h"

#include <stdlib.h>
#include <string.h>

struct foray_cloudapi {
  struct foray_cloudapi_opts o;
  struct foray_server *server;
  struct foray_batch *batch; /* NULL: loading */
  const struct foray_model *model;
  struct foray_http_server *http;
  struct foray_http_api *api;
};

/* ---- the backend: each choice is a session on a connection of its own */

static enum foray_status start(void *self, uint64_t id, const char *tenant, const struct foray_gen_request *r,
                               struct foray_err *err) {
  struct foray_cloudapi *c = self;
  struct foray_batch_msg m = {
      .kind = FORAY_BATCH_OPEN, .conn = id | FORAY_HUB_FOREIGN, .request = r, .unlogged = true};
  if (*tenant) m.tenant = foray_fnv1a(tenant, strlen(tenant)) | 1;
  enum foray_status st = foray_batch_submit(c->batch, &m);
  return st ? foray_err_set(err, st, "out of memory for a session") : st;
}
/* Without memory for the command the session runs to its end; nobody listens to its results. */
static void end(struct foray_cloudapi *c, uint64_t conn) {
  (void)!foray_batch_submit(c->batch, &(struct foray_batch_msg){.kind = FORAY_BATCH_CLOSE, .conn = conn});
}
static void cancel(void *self, uint64_t id) { end(self, id | FORAY_HUB_FOREIGN); }

static void metrics(void *self, struct foray_prom *p) {
  struct foray_cloudapi *c = self;
  struct foray_obs_now now = {0};
  if (!c->batch) return;
  foray_batch_stats_get(c->batch, &now.batch);
  foray_server_stats_get(c->server, &now.link);
  foray_http_server_stats(c->http, &now.http);
  foray_obs_metrics(&now, p);
}

static bool authorize(void *self, uint64_t address, const char *bearer, const char *peer,
                      enum foray_http_scope scope, char *tenant, size_t cap) {
  struct foray_cloudapi *c = self;
  return c->o.authorize(c->o.arg, address, bearer, peer, scope, tenant, cap);
}

static bool route(void *self, struct foray_http_exchange *x, const char *bearer) {
  struct foray_cloudapi *c = self;
  return c->o.route && c->o.route(c->o.arg, x, bearer);
}

/* ---- what the server tells */

static void on_serve(void *arg, struct foray_batch *batch, const struct foray_cloud_identity *id) {
  struct foray_cloudapi *c = arg;
  c->batch = batch;
  if (c->model) foray_http_api_serve(c->api, c->model, id->model_name, id->ctx);
}

static void on_result(void *arg, const struct foray_batch_msg *m) {
  struct foray_cloudapi *c = arg;
  const uint64_t id = m->conn & ~FORAY_HUB_FOREIGN;
  if (m->kind == FORAY_BATCH_FAILED) {
    foray_http_api_failed(c->api, id, m->code, m->text, m->retry_ms);
  } else if (m->kind == FORAY_BATCH_VERDICT) {
    struct foray_http_tokens t = {
        .ids = m->ids, .n = m->n_ids, .finish = m->finish, .logp = m->n_logp ? m->logp : NULL, .top = m->top};
    if (m->finish != FORAY_FINISH_NONE) end(c, m->conn);
    foray_http_api_tokens(c->api, id, &t);
  }
}

static void on_drain(void *arg) {
  struct foray_cloudapi *c = arg;
  foray_http_api_drain(c->api);
  foray_http_server_drain(c->http);
}
/* Answers that are made, and those that are made but not sent. */
static uint32_t busy(void *arg) {
  const struct foray_cloudapi *c = arg;
  struct foray_http_server_stats st;
  foray_http_server_stats(c->http, &st);
  return foray_http_api_busy(c->api) + st.open;
}

enum foray_status foray_cloudapi_open(struct foray_server *server, const struct foray_cloudapi_opts *o,
                                      struct foray_cloudapi **out, struct foray_err *err) {
  struct foray_cloudapi *c = *out = calloc(1, sizeof *c);
  if (!c) return foray_err_set(err, FORAY_E_NOMEM, "HTTP API");
  c->o = *o;
  c->server = server;
  const struct foray_http_backend be = {.self = c,
                                        .start = start,
                                        .cancel = cancel,
                                        .metrics = metrics,
                                        .authorize = o->authorize ? authorize : NULL,
                                        .route = route,
                                        .top_logprobs = FORAY_HTTP_TOP_LOGPROBS_MAX};
  enum foray_status st = foray_http_api_create(&be, &c->api, err);
  struct foray_http_server_opts ho = o->http;
  ho.base = foray_server_base(server);
  ho.host = o->host;
  ho.port = o->port;
  ho.handler = foray_http_api_handle;
  ho.user = c->api;
  if (!st) st = foray_http_server_open(&ho, &c->http, err);
  if (st) {
    foray_cloudapi_close(c);
    *out = NULL;
    return st;
  }
  foray_server_hook(server,
                    &(struct foray_server_hooks){
                        .arg = c, .serve = on_serve, .result = on_result, .drain = on_drain, .busy = busy});
  return FORAY_OK;
}

void foray_cloudapi_close(struct foray_cloudapi *c) {
  if (!c) return;
  foray_http_server_close(c->http);
  foray_http_api_destroy(c->api);
  free(c);
}
int foray_cloudapi_port(const struct foray_cloudapi *c) { return foray_http_server_port(c->http); }
void foray_cloudapi_model(struct foray_cloudapi *c, const struct foray_model *m) { c->model = m; }
struct foray_http_server *foray_cloudapi_http(struct foray_cloudapi *c) {
  return c->http;
}
