#include "core/buf.h"

#include "core/checked.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void foray_buf_init(struct foray_buf *b, size_t max) { *b = (struct foray_buf){.max = max}; }

void foray_buf_deinit(struct foray_buf *b) {
  free(b->data);
  *b = (struct foray_buf){0};
}

static enum foray_status reserve(struct foray_buf *b, size_t n) {
  size_t need;
  if (!foray_add_size(b->len, n, &need) || need > b->max) return FORAY_E_LIMIT;
  if (need + 1 <= b->cap) return FORAY_OK;
  size_t cap = b->cap ? b->cap : 64;
  while (cap < need + 1) cap = cap > SIZE_MAX / 2 ? need + 1 : cap * 2;
  uint8_t *p = realloc(b->data, cap);
  if (!p) return FORAY_E_NOMEM;
  b->data = p;
  b->cap = cap;
  return FORAY_OK;
}

enum foray_status foray_buf_add(struct foray_buf *b, const void *p, size_t n) {
  enum foray_status s = reserve(b, n);
  if (s) return s;
  if (n) memcpy(b->data + b->len, p, n);
  b->len += n;
  b->data[b->len] = 0;
  return FORAY_OK;
}

enum foray_status foray_buf_addf(struct foray_buf *b, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  if (n < 0) return FORAY_E_ARG;
  enum foray_status s = reserve(b, (size_t)n);
  if (s) return s;
  va_start(ap, fmt);
  vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
  va_end(ap);
  b->len += (size_t)n;
  return FORAY_OK;
}

void foray_buf_consume(struct foray_buf *b, size_t n) {
  if (n > b->len) n = b->len;
  if (!n) return;
  memmove(b->data, b->data + n, b->len - n);
  b->len -= n;
  b->data[b->len] = 0;
}
