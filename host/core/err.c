#include "core/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum foray_status foray_err_set(struct foray_err *err, enum foray_status code, const char *fmt, ...) {
  if (err) {
    va_list ap;
    err->code = code;
    va_start(ap, fmt);
    if (vsnprintf(err->msg, sizeof err->msg, fmt, ap) < 0) err->msg[0] = 0;
    va_end(ap);
  }
  return code;
}

enum foray_status foray_err_prefix(struct foray_err *err, const char *fmt, ...) {
  if (!err) return FORAY_E_STATE;
  char old[FORAY_ERR_MSG_MAX];
  memcpy(old, err->msg, sizeof old);
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
  va_end(ap);
  size_t at = n < 0 ? 0 : (size_t)n;
  if (at < sizeof err->msg) {
    snprintf(err->msg + at, sizeof err->msg - at, ": %s", old);
  }
  return err->code;
}

const char *foray_status_name(enum foray_status s) {
  switch (s) {
#define X(name, value, text)                                                                                 \
  case FORAY_##name: return "FORAY_" #name;
    FORAY_STATUS_MAP(X)
#undef X
  }
  return "FORAY_E_UNKNOWN";
}

const char *foray_status_text(enum foray_status s) {
  switch (s) {
#define X(name, value, text)                                                                                 \
  case FORAY_##name: return text;
    FORAY_STATUS_MAP(X)
#undef X
  }
  return "unknown status";
}
