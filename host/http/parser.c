#include "http/parser.h"

#include <string.h>

/* Steps of a chunked body. */
enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER };

void foray_http_parser_init(struct foray_http_parser *p) {
  *p = (struct foray_http_parser){.state = FORAY_HTTP_EMPTY};
  foray_buf_init(&p->head, FORAY_HTTP_HEAD_MAX + 1);
  foray_buf_init(&p->body, FORAY_HTTP_BODY_MAX + 1);
}
void foray_http_parser_deinit(struct foray_http_parser *p) {
  foray_buf_deinit(&p->head);
  foray_buf_deinit(&p->body);
}
void foray_http_parser_reset(struct foray_http_parser *p) {
  struct foray_buf head = p->head, body = p->body;
  *p = (struct foray_http_parser){.state = FORAY_HTTP_EMPTY, .head = head, .body = body};
  foray_buf_clear(&p->head);
  if (p->body.cap > 65536) { /* an idle connection keeps no large buffer */
    foray_buf_deinit(&p->body);
    foray_buf_init(&p->body, FORAY_HTTP_BODY_MAX + 1);
  }
  foray_buf_clear(&p->body);
}

static void fail(struct foray_http_parser *p, int status, const char *reason) {
  p->state = FORAY_HTTP_ERROR;
  p->status = status;
  p->reason = reason;
}

static bool is_token(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c && strchr("!#$%&'*+-.^_`|~", c));
}

const char *foray_http_header_get(const struct foray_http_request *r, const char *name) {
  for (uint32_t i = 0; i < r->n_headers; i++)
    if (!strcmp(r->headers[i].name, name)) return r->headers[i].value;
  return NULL;
}

/* ---------------------------------------------------------------- head */

static void request_line(struct foray_http_parser *p, char *line) {
  struct foray_http_request *r = &p->request;
  char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;
  if (!version || target == line) {
    fail(p, 400, "malformed request line");
    return;
  }
  *target++ = 0;
  *version++ = 0;
  for (const char *c = line; *c; c++)
    if (!is_token((unsigned char)*c)) {
      fail(p, 400, "malformed method");
      return;
    }
  if (strlen(target) > FORAY_HTTP_TARGET_MAX) {
    fail(p, 414, "the request target is too long");
    return;
  }
  for (const char *c = target; *c; c++)
    if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f) {
      fail(p, 400, "malformed request target");
      return;
    }
  if (strncmp(version, "HTTP/", 5) != 0) {
    fail(p, 400, "malformed request line");
    return;
  }
  if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0) {
    fail(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    return;
  }
  if (*target != '/') {
    fail(p, 400, "the request target must be a path");
    return;
  }
  r->minor = version[7] - '0';
  r->method = line;
  r->path = target;
  char *q = strchr(target, '?');
  if (q) *q++ = 0;
  r->query = q ? q : "";
}

static void header_line(struct foray_http_parser *p, char *line, char *end) {
  struct foray_http_request *r = &p->request;
  char *c = line;
  for (; is_token((unsigned char)*c); c++)
    if (*c >= 'A' && *c <= 'Z') *c = (char)(*c + 32);
  if (c == line || *c != ':') { /* folded lines and blanks before the colon land here */
    fail(p, 400, "malformed header");
    return;
  }
  *c++ = 0;
  while (*c == ' ' || *c == '\t') c++;
  while (end > c && (end[-1] == ' ' || end[-1] == '\t')) end--;
  *end = 0;
  for (const char *v = c; v < end; v++)
    if (((unsigned char)*v < ' ' && *v != '\t') || *v == 0x7f) {
      fail(p, 400, "control character in a header");
      return;
    }
  if (r->n_headers == FORAY_HTTP_HEADERS_MAX) {
    fail(p, 431, "too many headers");
    return;
  }
  r->headers[r->n_headers++] = (struct foray_http_header){line, c};
}

static bool equal_nocase(const char *a, const char *b) {
  for (; *a && *b; a++, b++) {
    char x = *a, y = *b;
    if (x >= 'A' && x <= 'Z') x = (char)(x + 32);
    if (x != y) return false;
  }
  return *a == *b;
}

/* What the headers say about the body and the connection. */
static void meaning(struct foray_http_parser *p) {
  struct foray_http_request *r = &p->request;
  uint32_t hosts = 0, lengths = 0, codings = 0;
  r->keep_alive = r->minor == 1;
  p->left = 0;
  for (uint32_t i = 0; i < r->n_headers; i++) {
    const char *n = r->headers[i].name, *v = r->headers[i].value;
    if (!strcmp(n, "host")) {
      hosts++;
    } else if (!strcmp(n, "content-length")) {
      lengths++;
      size_t k = strlen(v);
      if (k == 0 || k > 15 || strspn(v, "0123456789") != k) {
        fail(p, 400, "malformed Content-Length");
        return;
      }
      p->left = 0;
      for (; *v; v++) p->left = p->left * 10 + (uint64_t)(*v - '0');
    } else if (!strcmp(n, "transfer-encoding")) {
      codings++;
      if (!equal_nocase(v, "chunked")) {
        fail(p, 501, "the only transfer coding known is chunked");
        return;
      }
    } else if (!strcmp(n, "connection")) {
      if (equal_nocase(v, "close")) r->keep_alive = false;
      if (equal_nocase(v, "keep-alive") && r->minor == 0) r->keep_alive = true;
    } else if (!strcmp(n, "content-encoding")) {
      if (!equal_nocase(v, "identity")) { /* nothing is ever inflated here */
        fail(p, 415, "compressed bodies are not accepted");
        return;
      }
    } else if (!strcmp(n, "expect")) {
      if (!equal_nocase(v, "100-continue")) {
        fail(p, 417, "unknown expectation");
        return;
      }
      r->expect_continue = r->minor == 1;
    }
  }
  if (lengths > 1 || codings > 1 || (lengths && codings) || (codings && r->minor == 0)) {
    fail(p, 400, "the length of the body is given in two ways");
    return;
  }
  if (r->minor == 1 && hosts != 1) {
    fail(p, 400, "exactly one Host header is needed");
    return;
  }
  p->chunked = codings == 1;
  p->chunk_step = CHUNK_SIZE;
  if (p->left > FORAY_HTTP_BODY_MAX) {
    fail(p, 413, "the body is too large");
    return;
  }
  p->state = FORAY_HTTP_BODY;
}

static void parse_head(struct foray_http_parser *p) {
  char *s = (char *)p->head.data, *end = s + p->head.len - 2; /* the empty line stays out */
  if (memchr(s, 0, p->head.len)) {
    fail(p, 400, "NUL in the headers");
    return;
  }
  bool first = true;
  while (s < end) {
    char *nl = memchr(s, '\n', (size_t)(end - s));
    if (!nl || nl == s || nl[-1] != '\r') {
      fail(p, 400, "lines end in CR LF");
      return;
    }
    nl[-1] = 0;
    if (memchr(s, '\r', (size_t)(nl - 1 - s))) {
      fail(p, 400, "lone CR");
      return;
    }
    if (first)
      request_line(p, s);
    else
      header_line(p, s, nl - 1);
    if (p->state == FORAY_HTTP_ERROR) return;
    first = false;
    s = nl + 1;
  }
  meaning(p);
}

/* ---------------------------------------------------------------- body */

static void done(struct foray_http_parser *p) {
  if (foray_buf_add(&p->body, "", 1) != FORAY_OK) { /* the NUL behind it */
    fail(p, 503, "out of memory");
    return;
  }
  p->request.body = (const char *)p->body.data;
  p->request.body_len = p->body.len - 1;
  p->state = FORAY_HTTP_DONE;
}

static size_t take(struct foray_http_parser *p, const char *d, size_t n) {
  if (n > p->left) n = (size_t)p->left;
  if (p->body.len + n > FORAY_HTTP_BODY_MAX)
    fail(p, 413, "the body is too large");
  else if (foray_buf_add(&p->body, d, n) != FORAY_OK)
    fail(p, 503, "out of memory");
  p->left -= n;
  return n;
}

/* The size line of a chunk; no extensions: they have no use here but to confuse. */
static void chunk_size(struct foray_http_parser *p) {
  uint64_t v = 0;
  for (uint32_t i = 0; i < p->n_line; i++) {
    char c = p->line[i];
    uint32_t d;
    if (c >= '0' && c <= '9')
      d = (uint32_t)(c - '0');
    else if (c >= 'a' && c <= 'f')
      d = (uint32_t)(c - 'a' + 10);
    else if (c >= 'A' && c <= 'F')
      d = (uint32_t)(c - 'A' + 10);
    else
      d = 16;
    if (d == 16) {
      fail(p, 400, "malformed chunk");
      return;
    }
    v = v * 16 + d;
    if (v > FORAY_HTTP_BODY_MAX) {
      fail(p, 413, "the body is too large");
      return;
    }
  }
  if (p->n_line == 0) {
    fail(p, 400, "malformed chunk");
    return;
  }
  p->left = v;
  p->chunk_step = v ? CHUNK_DATA : CHUNK_TRAILER;
}

static size_t feed_chunked(struct foray_http_parser *p, const char *d, size_t n) {
  if (p->chunk_step == CHUNK_DATA) {
    size_t used = take(p, d, n);
    if (p->left == 0) p->chunk_step = CHUNK_DATA_END;
    return used;
  }
  /* a line: a size, the nothing behind a chunk, or the empty trailer */
  if (*d != '\n') {
    if (p->n_line == FORAY_HTTP_CHUNK_LINE_MAX)
      fail(p, 400, "malformed chunk");
    else
      p->line[p->n_line++] = *d;
    return 1;
  }
  if (p->n_line == 0 || p->line[--p->n_line] != '\r') {
    fail(p, 400, "lines end in CR LF");
    return 1;
  }
  if (p->chunk_step == CHUNK_SIZE)
    chunk_size(p);
  else if (p->n_line) /* trailers are refused: they could replace headers */
    fail(p, 400, "malformed chunk");
  else if (p->chunk_step == CHUNK_TRAILER)
    done(p);
  else
    p->chunk_step = CHUNK_SIZE;
  p->n_line = 0;
  return 1;
}

/* Up to and with the empty line. A few CR LF before a request are allowed (RFC 9112 2.2). */
static size_t feed_head(struct foray_http_parser *p, const char *d, size_t n) {
  size_t used = 0;
  while (used < n) {
    if (p->head.len == 0 && p->n_line < 4 && (d[used] == '\r' || d[used] == '\n')) {
      p->n_line++;
      used++;
      continue;
    }
    const char *nl = memchr(d + used, '\n', n - used);
    size_t m = nl ? (size_t)(nl - d) + 1 - used : n - used;
    p->state = FORAY_HTTP_HEAD;
    if (p->head.len + m > FORAY_HTTP_HEAD_MAX) {
      fail(p, 431, "the headers are too large");
      return used;
    }
    if (foray_buf_add(&p->head, d + used, m) != FORAY_OK) {
      fail(p, 503, "out of memory");
      return used;
    }
    used += m;
    const uint8_t *h = p->head.data;
    size_t len = p->head.len;
    if (nl && len >= 3 && h[len - 3] == '\n' && h[len - 2] == '\r') {
      p->n_line = 0;
      parse_head(p);
      return used;
    }
    if (nl && len >= 2 && h[len - 2] == '\n') {
      fail(p, 400, "lines end in CR LF");
      return used;
    }
  }
  return used;
}

size_t foray_http_parser_feed(struct foray_http_parser *p, const void *data, size_t n) {
  const char *d = data;
  size_t used = 0;
  while (used < n && p->state != FORAY_HTTP_DONE && p->state != FORAY_HTTP_ERROR) {
    if (p->state != FORAY_HTTP_BODY)
      used += feed_head(p, d + used, n - used);
    else if (p->chunked)
      used += feed_chunked(p, d + used, n - used);
    else
      used += take(p, d + used, n - used);
    if (p->state == FORAY_HTTP_BODY && !p->chunked && p->left == 0) done(p);
  }
  return used;
}
