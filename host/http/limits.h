/* http/limits.h - the named limit of everything that an HTTP client sends. docs/security.md prints the table;
 * tests/unit/http checks each at the limit and one beyond. */
#ifndef FORAY_HTTP_LIMITS_H
#define FORAY_HTTP_LIMITS_H

/* X(name, value, unit and meaning, status of the answer) */
#define FORAY_HTTP_LIMIT_MAP(X)                                                                              \
  X(HEAD, 16384, "bytes in the request line and the headers", 431)                                           \
  X(HEADERS, 64, "header fields", 431)                                                                       \
  X(TARGET, 2048, "bytes in the request target", 414)                                                        \
  X(BODY, 4 << 20, "bytes in a body", 413)                                                                   \
  X(CHUNK_LINE, 64, "bytes in a chunk's size line", 400)                                                     \
  X(HEAD_MS, 10000, "milliseconds from the first byte of a request to the end of its headers", 408)          \
  X(BODY_MS, 30000, "milliseconds from there to the end of the body", 408)                                   \
  X(IDLE_MS, 60000, "milliseconds that a connection may wait for its next request", 0)                       \
  X(STALL_MS, 30000, "milliseconds in which a reader takes nothing of a waiting answer", 0)                  \
  X(OUTPUT, 4 << 20, "bytes of an event stream waiting for a slow reader", 0)                                \
  X(CONNS, 1024, "connections", 503)                                                                         \
  X(JSON_DEPTH, 32, "nested arrays and objects in a body", 400)                                              \
  X(CHOICES, 64, "prompts times n of a request", 400)                                                        \
  X(MESSAGES, 1024, "messages of a conversation", 400)                                                       \
  X(STOPS, 16, "stop strings", 400)                                                                          \
  X(STOP_BYTES, 256, "bytes in a stop string", 400)                                                          \
  X(BIAS, 1024, "entries of logit_bias", 400)                                                                \
  X(TOP_LOGPROBS, 20, "alternatives a token", 400)                                                           \
  X(RUNNING, 512, "generations under way, all clients together", 429)

enum {
#define X(name, value, text, status) FORAY_HTTP_##name##_MAX = value,
  FORAY_HTTP_LIMIT_MAP(X)
#undef X
};

#endif
