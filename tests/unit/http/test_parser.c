/* Requests out of bytes: what is read, what is refused, and that the cut into pieces does not matter. */
#include "unit/harness.h"

#include "http/parser.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Copies text to e; its length. */
static size_t put(char *e, const char *text) {
  size_t n = strlen(text);
  memcpy(e, text, n);
  return n;
}

/* Feeds s in pieces of `step` bytes; 0 when a whole request came, else the status. */
static int feed(struct foray_http_parser *p, const char *s, size_t n, size_t step) {
  foray_http_parser_init(p);
  for (size_t i = 0; i < n && p->state < FORAY_HTTP_DONE;) {
    size_t m = n - i < step ? n - i : step;
    i += foray_http_parser_feed(p, s + i, m);
  }
  return p->state == FORAY_HTTP_DONE ? 0 : p->state == FORAY_HTTP_ERROR ? p->status : -1;
}
static int status_of(const char *s) {
  struct foray_http_parser p;
  int whole = feed(&p, s, strlen(s), 1 << 20);
  foray_http_parser_deinit(&p);
  for (size_t step = 1; step < 8; step++) {
    CU_ASSERT_EQUAL(feed(&p, s, strlen(s), step), whole);
    foray_http_parser_deinit(&p);
  }
  return whole;
}

TEST(a_request_is_read) {
  struct foray_http_parser p;
  const char *s =
      "\r\nPOST /v1/x?a=b HTTP/1.1\r\nHost: h\r\nX-Two:  b c \t\r\nContent-Length: 5\r\n\r\nhelloGET";
  foray_http_parser_init(&p);
  CU_ASSERT_EQUAL(foray_http_parser_feed(&p, s, strlen(s)), strlen(s) - 3);
  CU_ASSERT_EQUAL_FATAL(p.state, FORAY_HTTP_DONE);
  CU_ASSERT_STRING_EQUAL(p.request.method, "POST");
  CU_ASSERT_STRING_EQUAL(p.request.path, "/v1/x");
  CU_ASSERT_STRING_EQUAL(p.request.query, "a=b");
  CU_ASSERT_STRING_EQUAL(foray_http_header_get(&p.request, "x-two"), "b c");
  CU_ASSERT_STRING_EQUAL(p.request.body, "hello");
  CU_ASSERT(p.request.keep_alive);
  foray_http_parser_reset(&p);
  s = "GET / HTTP/1.0\r\n\r\n";
  foray_http_parser_feed(&p, s, strlen(s));
  CU_ASSERT_EQUAL(p.state, FORAY_HTTP_DONE);
  CU_ASSERT(!p.request.keep_alive && p.request.body_len == 0);
  foray_http_parser_deinit(&p);
}

TEST(chunks_are_joined) {
  struct foray_http_parser p;
  const char *s = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                  "chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
  for (size_t step = 1; step < 20; step++) {
    CU_ASSERT_EQUAL(feed(&p, s, strlen(s), step), 0);
    CU_ASSERT_STRING_EQUAL(p.request.body, "abc0123456789");
    foray_http_parser_deinit(&p);
  }
}

TEST(what_has_two_meanings_is_refused) {
  static const struct {
    const char *s;
    int status;
  } cases[] = {
      {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 0},
      {"GET / HTTP/1.1\r\n\r\n", 400}, /* no Host */
      {"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: h\n\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n: h\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nX: \x01\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET /\x80 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505},
      {"G{T / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na", 415},
      {"POST / HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n", 417},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: x\r\n\r\n", 400},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int got = status_of(cases[i].s);
    if (got != cases[i].status) printf("case %zu: %d instead of %d\n", i, got, cases[i].status);
    CU_ASSERT_EQUAL(got, cases[i].status);
  }
  struct foray_http_parser p;
  static const char nul[] = "GET / HTTP/1.1\r\nHost: h\0x\r\n\r\n";
  CU_ASSERT_EQUAL(feed(&p, nul, sizeof nul - 1, 64), 400);
  foray_http_parser_deinit(&p);
}

/* A request whose `what` has exactly n of the unit: 0 at the limit, the limit's status one beyond. */
static int sized(const char *what, size_t n) {
  char *s = malloc(n + 65536), *e = s;
  struct foray_http_parser p;
  if (!strcmp(what, "head")) {
    e += put(e, "GET / HTTP/1.1\r\nHost: h\r\n");
    while ((size_t)(e - s) + 2 + 600 < n) {
      e += put(e, "x: ");
      memset(e, 'a', 500);
      e += 500;
      e += put(e, "\r\n");
    }
    size_t left = n - (size_t)(e - s) - 2 - 5;
    e += put(e, "y: ");
    memset(e, 'b', left);
    e += left;
    e += put(e, "\r\n\r\n");
  } else if (!strcmp(what, "headers")) {
    e += put(e, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (size_t i = 1; i < n; i++) e += put(e, "x: a\r\n");
    e += put(e, "\r\n");
  } else if (!strcmp(what, "target")) {
    e += put(e, "GET /");
    memset(e, 'a', n - 1);
    e += n - 1;
    e += put(e, " HTTP/1.1\r\nHost: h\r\n\r\n");
  } else if (!strcmp(what, "body")) {
    e += snprintf(e, 128, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", n);
    memset(e, 'a', n);
    e += n;
  } else {
    e += put(e, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    memset(e, '0', n - 2); /* with its CR and LF */
    e[n - 3] = '1';
    e += n - 2;
    e += put(e, "\r\na\r\n0\r\n\r\n");
  }
  int st = feed(&p, s, (size_t)(e - s), 4096);
  foray_http_parser_deinit(&p);
  free(s);
  return st;
}

TEST(limits_hold_at_and_over) {
  static const struct {
    const char *what;
    size_t limit;
    int status;
  } cases[] = {{"head", FORAY_HTTP_HEAD_MAX, 431},
               {"headers", FORAY_HTTP_HEADERS_MAX, 431},
               {"target", FORAY_HTTP_TARGET_MAX, 414},
               {"body", FORAY_HTTP_BODY_MAX, 413},
               {"chunk line", FORAY_HTTP_CHUNK_LINE_MAX + 1, 400}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    CU_ASSERT_EQUAL(sized(cases[i].what, cases[i].limit), 0);
    CU_ASSERT_EQUAL(sized(cases[i].what, cases[i].limit + 1), cases[i].status);
  }
  /* a chunked body is counted as it comes */
  char *s = malloc(FORAY_HTTP_BODY_MAX + 65536), *e = s;
  e += put(e, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < FORAY_HTTP_BODY_MAX / 4096; i++) {
    e += put(e, "1000\r\n");
    memset(e, 'a', 4096);
    e += 4096;
    e += put(e, "\r\n");
  }
  char *end = e;
  struct foray_http_parser p;
  e += put(e, "0\r\n\r\n");
  CU_ASSERT_EQUAL(feed(&p, s, (size_t)(e - s), 8192), 0);
  CU_ASSERT_EQUAL(p.request.body_len, FORAY_HTTP_BODY_MAX);
  foray_http_parser_deinit(&p);
  e = end + put(end, "1\r\na\r\n0\r\n\r\n");
  CU_ASSERT_EQUAL(feed(&p, s, (size_t)(e - s), 8192), 413);
  foray_http_parser_deinit(&p);
  free(s);
}
