/* HTTP requests and JSON bodies: the first byte says how the rest is cut into pieces. Whatever comes, the
 * parser ends in one of its states, a whole request has NUL-terminated parts inside its buffers, and the cut
 * does not matter. */
#include "http/api_impl.h"

#include "core/err.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void run(struct foray_http_parser *p, const uint8_t *d, size_t n, size_t step) {
  foray_http_parser_init(p);
  for (size_t i = 0; i < n && p->state < FORAY_HTTP_DONE;) {
    size_t m = n - i < step ? n - i : step, used = foray_http_parser_feed(p, d + i, m);
    if (used == 0 && p->state < FORAY_HTTP_DONE) abort();
    i += used;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n < 1) return 0;
  struct foray_http_parser a, b;
  run(&a, data + 1, n - 1, n);
  run(&b, data + 1, n - 1, 1u + data[0] % 16);
  if (a.state != b.state || (a.state == FORAY_HTTP_ERROR && a.status != b.status)) abort();
  if (a.state == FORAY_HTTP_ERROR && a.status < 400) abort();
  if (a.state == FORAY_HTTP_DONE) {
    const struct foray_http_request *r = &a.request;
    if (r->path[0] != '/' || strlen(r->method) == 0 || r->body[r->body_len] != 0) abort();
    for (uint32_t i = 0; i < r->n_headers; i++)
      if (strpbrk(r->headers[i].value, "\r\n") || !*r->headers[i].name) abort();
    struct foray_err err = {0};
    json_t *o = api_json(r->body, r->body_len, &err);
    if (!o && !err.code) abort();
    json_decref(o);
  }
  struct foray_err err = {0};
  json_t *o = api_json((const char *)data + 1, n - 1, &err);
  json_decref(o);
  foray_http_parser_deinit(&a);
  foray_http_parser_deinit(&b);
  return 0;
}
