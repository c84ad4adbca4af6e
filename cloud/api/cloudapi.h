/* cloudapi/cloudapi.h - the OpenAI-compatible face of forayd: http/api.h over the scheduler that serves edge
 * sessions. A request is a plain session; nothing but its own prefix decides its tokens, so they are those of
 * `foray generate --plain` with the same seed.
 *
 * Lives on the loop of link/server.h; open before foray_server_run, close after it returned. */
#ifndef FORAY_CLOUDAPI_CLOUDAPI_H
#define FORAY_CLOUDAPI_CLOUDAPI_H

#include "http/api.h"
#include "link/server.h"

struct foray_cloudapi; /* opaque */

struct foray_cloudapi_opts {
  const char *host;
  int port; /* 0: any free one */
  struct foray_http_server_opts
      http; /* times and connections; its base, handler, host and port are set here */
  bool (*authorize)(void *arg, uint64_t address, const char *bearer, const char *peer,
                    enum foray_http_scope scope, char *tenant, size_t cap);    /* as in http/api.h */
  bool (*route)(void *arg, struct foray_http_exchange *x, const char *bearer); /* as in http/api.h */
  void *arg;
};

enum foray_status foray_cloudapi_open(struct foray_server *server, const struct foray_cloudapi_opts *o,
                                      struct foray_cloudapi **out, struct foray_err *err) FORAY_NODISCARD;
void foray_cloudapi_close(struct foray_cloudapi *c); /* NULL is allowed */
int foray_cloudapi_port(const struct foray_cloudapi *c);
/* The model that post_serve is going to announce; before that call, from its thread. Borrowed. */
void foray_cloudapi_model(struct foray_cloudapi *c, const struct foray_model *m);
struct foray_http_server *foray_cloudapi_http(struct foray_cloudapi *c);

#endif
