/* foray/status.h - result codes and error text.
 *
 *   struct foray_err err = {0};
 *   if (foray_model_open("smollm2-135m-instruct", &model, &err) != FORAY_OK) {
 *     fprintf(stderr, "%s\n", err.msg);   // "model.gguf: offset 1832: tensor 'blk.0...' ends past the file"
 *     return 1;
 *   }
 *
 * Every function that can fail returns enum foray_status and takes a struct foray_err * (may be NULL)
 * that receives one sentence: what, where, and what to do. The library never prints, exits or aborts
 * for anything that a file, a peer or a caller's value can cause. */
#ifndef FORAY_STATUS_H
#define FORAY_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, value, text): values are stable across versions. */
#define FORAY_STATUS_MAP(X)                                                                                  \
  X(OK, 0, "success")                                                                                        \
  X(E_NOMEM, -1, "out of memory")                                                                            \
  X(E_IO, -2, "input/output error")                                                                          \
  X(E_FORMAT, -3, "malformed data")                                                                          \
  X(E_UNSUPPORTED, -4, "not supported")                                                                      \
  X(E_ARG, -5, "invalid argument")                                                                           \
  X(E_LIMIT, -6, "limit exceeded")                                                                           \
  X(E_STATE, -7, "call not allowed in this state")                                                           \
  X(E_NOTFOUND, -8, "not found")                                                                             \
  X(E_MISMATCH, -9, "versions or hashes do not match")                                                       \
  X(E_DEVICE, -10, "device error")                                                                           \
  X(E_TIMEOUT, -11, "timed out")                                                                             \
  X(E_CLOSED, -12, "connection closed")                                                                      \
  X(E_PROTO, -13, "protocol violation")                                                                      \
  X(E_CANCELLED, -14, "cancelled")                                                                           \
  X(E_BUSY, -15, "busy")                                                                                     \
  X(E_NET, -16, "network error")                                                                             \
  X(E_DENIED, -17, "not allowed")

enum foray_status {
#define X(name, value, text) FORAY_##name = value,
  FORAY_STATUS_MAP(X)
#undef X
};

enum { FORAY_ERR_MSG_MAX = 512 };

/* Caller-owned. Zero-initialise. msg is always NUL-terminated; empty when code is FORAY_OK. */
struct foray_err {
  enum foray_status code;
  char msg[FORAY_ERR_MSG_MAX];
};

#if defined(__GNUC__)
#define FORAY_API       __attribute__((visibility("default")))
#define FORAY_NODISCARD __attribute__((warn_unused_result))
#else
#define FORAY_API
#define FORAY_NODISCARD
#endif

/* "FORAY_E_IO" and "input/output error"; never NULL, also for unknown codes. */
FORAY_API const char *foray_status_name(enum foray_status s);
FORAY_API const char *foray_status_text(enum foray_status s);

#ifdef __cplusplus
}
#endif
#endif
