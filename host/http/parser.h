/* http/parser.h - HTTP/1.1 requests out of bytes, without I/O: strict, bounded, and the same code under the
 * server (http/server.h) and the fuzzer.
 *
 *   foray_http_parser_init(&p);
 *   while (n) { used = foray_http_parser_feed(&p, bytes, n); ...; if (p.state == DONE || ERROR) break; }
 *   use p.request; foray_http_parser_reset(&p);      // the next request of the same connection
 *   foray_http_parser_deinit(&p);
 *
 * What could be read in two ways is refused, so that nothing smuggles a request past a proxy in front: lines
 * end in CR LF, no folded headers, no blank before a colon, one Host, one Content-Length or "chunked" and
 * never both. Not thread-safe. */
#ifndef FORAY_HTTP_PARSER_H
#define FORAY_HTTP_PARSER_H

#include "core/buf.h"
#include "http/limits.h"

#include <stdbool.h>

struct foray_http_header {
  const char *name, *value; /* NUL-terminated; name in lower case, value trimmed */
};

/* Borrowed from the parser until reset. */
struct foray_http_request {
  const char *method, *path, *query; /* path begins with '/', percent escapes as sent; query "" without '?' */
  struct foray_http_header headers[FORAY_HTTP_HEADERS_MAX];
  uint32_t n_headers;
  int minor; /* HTTP/1.minor */
  bool keep_alive, expect_continue;
  const char *body; /* NUL-terminated behind body_len bytes; never NULL */
  size_t body_len;
};
/* Value of the first header of this (lower-case) name, or NULL. */
const char *foray_http_header_get(const struct foray_http_request *r, const char *name);

enum foray_http_parse_state {
  FORAY_HTTP_EMPTY, /* nothing of a request has come */
  FORAY_HTTP_HEAD,
  FORAY_HTTP_BODY,
  FORAY_HTTP_DONE,
  FORAY_HTTP_ERROR /* status and reason say why; the connection cannot go on */
};

struct foray_http_parser {
  enum foray_http_parse_state state;
  int status;         /* ERROR: 400, 413, 414, 415, 417, 431, 501, 503, 505 */
  const char *reason; /* static */
  struct foray_http_request request;
  /* internal */
  struct foray_buf head, body;
  bool chunked;
  uint64_t left; /* of the body or the chunk */
  int chunk_step;
  char line[FORAY_HTTP_CHUNK_LINE_MAX];
  uint32_t n_line;
};

void foray_http_parser_init(struct foray_http_parser *p);
void foray_http_parser_deinit(struct foray_http_parser *p);
void foray_http_parser_reset(struct foray_http_parser *p);
/* Takes bytes up to the end of one request; returns how many it used. */
size_t foray_http_parser_feed(struct foray_http_parser *p, const void *data, size_t n);

#endif
