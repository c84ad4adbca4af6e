/* core/buf.h - growing byte buffer with a maximum given at init; a caller that hits it gets
 * FORAY_E_LIMIT instead of memory without end. Not thread-safe. */
#ifndef FORAY_CORE_BUF_H
#define FORAY_CORE_BUF_H

#include <foray/status.h>
#include <stddef.h>
#include <stdint.h>

struct foray_buf {
  uint8_t *data; /* owned; data[len] is always 0 once something was added, so text can be printed */
  size_t len, cap, max;
};

void foray_buf_init(struct foray_buf *b, size_t max);
void foray_buf_deinit(struct foray_buf *b);
/* Copies n bytes to the end. FORAY_E_LIMIT past max, FORAY_E_NOMEM; the buffer is unchanged then. */
enum foray_status foray_buf_add(struct foray_buf *b, const void *p, size_t n) FORAY_NODISCARD;
enum foray_status foray_buf_addf(struct foray_buf *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))) FORAY_NODISCARD;
/* Drops the first n (<= len) bytes. */
void foray_buf_consume(struct foray_buf *b, size_t n);
static inline void foray_buf_clear(struct foray_buf *b) { b->len = 0; }

#endif
