/* Who may come in: a certificate of our CA whose name is not in TLS-FOLDER/revoked, or a live token of the
 * scope. */
#include "core/clock.h"
#include "core/err.h"
#include "core/hash.h"
#include "cloudtools/daemon.h"
#include "tls/pki.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum foray_status daemon_auth_open(struct daemon *d, struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  const struct foray_tls_opts o = {.dir = d->tls_dir, .server = true, .client_certs = d->certs};
  if (d->tls_dir) st = foray_tls_open(&o, &d->tls, err);
  if (!st && d->tokens_path) st = foray_tokens_open(d->tokens_path, &d->tokens, err);
  return st;
}

enum foray_status daemon_auth_reload(struct daemon *d, struct foray_err *err) {
  if (!d->tls) return FORAY_OK;
  struct foray_tls *fresh;
  const struct foray_tls_opts o = {.dir = d->tls_dir, .server = true, .client_certs = d->certs};
  enum foray_status st = foray_tls_open(&o, &fresh, err);
  if (st) return st;
  struct foray_tls *old = d->tls;
  d->tls = fresh;
  foray_server_set_tls(d->server, fresh);
  if (d->api) foray_http_server_set_tls(foray_cloudapi_http(d->api), foray_tls_ctx(fresh));
  foray_tls_close(old); /* connections hold the context as long as they live */
  return FORAY_OK;
}

void daemon_auth_close(struct daemon *d) {
  foray_tls_close(d->tls);
  foray_tokens_close(d->tokens);
}

static bool revoked(const struct daemon *d, const char *name) {
  char path[DAEMON_PATH], line[256];
  int n = snprintf(path, sizeof path, "%s/revoked", d->tls_dir);
  FILE *f = n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
  bool found = false;
  while (f && !found && fgets(line, sizeof line, f)) {
    line[strcspn(line, " \t\r\n#")] = 0;
    found = !strcmp(line, name);
  }
  if (f) fclose(f);
  return found;
}

/* The name of who is let in goes to `name`, "" for nobody in particular. */
static bool let_in(struct daemon *d, uint64_t address, const char *peer, const char *token, unsigned scope,
                   char *name, size_t cap, struct foray_hub_grant *g) {
  const int64_t now = foray_clock_ns();
  *g = (struct foray_hub_grant){.weight = 1};
  name[0] = 0;
  if (!foray_guard_open(&d->guard, address, now)) return false;
  if (peer && *peer && d->tls) {
    if (revoked(d, peer)) return false;
    snprintf(name, cap, "cert:%s", peer);
  } else if (token && *token && d->tokens) {
    const struct foray_token *t = foray_tokens_find(d->tokens, token, scope, (int64_t)time(NULL));
    if (!t) {
      foray_guard_failed(&d->guard, address, now);
      return false;
    }
    snprintf(name, cap, "token:%s", t->name);
    g->weight = t->weight;
    g->priority = t->priority;
  } else if (d->tokens || d->certs == FORAY_TLS_REQUIRED) {
    return false;
  }
  if (*name) g->tenant = foray_fnv1a(name, strlen(name)) | 1;
  return true;
}

bool daemon_allow(void *arg, uint64_t address, const char *peer, const char *token,
                  struct foray_hub_grant *g) {
  char name[128];
  if (address == 0) { /* a Unix socket or an inherited stream: the operator's own */
    *g = (struct foray_hub_grant){.weight = 1};
    return true;
  }
  return let_in(arg, address, peer, token, FORAY_SCOPE_EDGE, name, sizeof name, g);
}

bool daemon_authorize(void *arg, uint64_t address, const char *bearer, const char *peer,
                      enum foray_http_scope scope, char *tenant, size_t cap) {
  struct foray_hub_grant g;
  return let_in(arg, address, peer, bearer,
                scope == FORAY_HTTP_SCOPE_METRICS ? FORAY_SCOPE_METRICS : FORAY_SCOPE_API, tenant, cap, &g);
}

/* POST /v1/enroll {"csr": PEM} with a token of scope enroll, which is used up by it. */
bool daemon_route(void *arg, struct foray_http_exchange *x, const char *bearer) {
  struct daemon *d = arg;
  const struct foray_http_request *r = foray_http_exchange_request(x);
  if (strcmp(r->path, "/v1/enroll") != 0 || !d->tls || !d->tokens) return false;
  const uint64_t address = foray_http_exchange_address(x);
  const int64_t now = foray_clock_ns();
  const struct foray_token *t =
      bearer && foray_guard_open(&d->guard, address, now)
          ? foray_tokens_find(d->tokens, bearer, FORAY_SCOPE_ENROLL, (int64_t)time(NULL))
          : NULL;
  if (!t) {
    if (bearer) foray_guard_failed(&d->guard, address, now);
    foray_http_api_error(x, 401, "authentication_error", "a live token of scope enroll is needed");
    return true;
  }
  char name[FORAY_TOKEN_NAME_MAX];
  memcpy(name, t->name, sizeof name);
  json_t *o = json_loadb(r->body, r->body_len, 0, NULL);
  json_t *csr = json_object_get(o, "csr");
  struct foray_buf cert;
  struct foray_err err = {0};
  foray_buf_init(&cert, FORAY_PKI_PEM_MAX);
  enum foray_status st = json_is_string(csr)
                             ? foray_pki_sign(d->tls_dir, json_string_value(csr), json_string_length(csr),
                                              name, FORAY_PKI_DAYS, &cert, &err)
                             : foray_err_set(&err, FORAY_E_ARG, "'csr' must be a certificate request in PEM");
  if (!st) st = foray_tokens_revoke(d->tokens_path, name, &err); /* before the answer: it works once */
  json_decref(o);
  if (st) {
    foray_http_api_error(x, st == FORAY_E_IO || st == FORAY_E_NOMEM ? 500 : 400, "invalid_request_error",
                         err.msg);
  } else {
    json_t *a = json_pack("{s:s#,s:s}", "certificate", (const char *)cert.data, (int)cert.len, "name", name);
    char *text = json_dumps(a, JSON_COMPACT);
    json_decref(a);
    foray_http_reply(x, text ? 200 : 500, "application/json", text ? text : "{}", text ? strlen(text) : 2);
    free(text);
  }
  foray_buf_deinit(&cert);
  return true;
}
