/* UART bone: the bus over a line of bytes. Writes are not answered by the SoC, so each is followed by a read
 * of the words just written: that both confirms and checks them. */
#include "litex/bus.h"
#include "litex/bytes.h"

#include "core/clock.h"
#include "core/err.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  BURST = 64 /* words; the count is one byte */,
  HEAD = 6,
  SOC_FORGETS_MS = 120,
  CMD_WRITE = 1,
  CMD_READ = 2
};

struct line {
  int fd;
  char name[128];
  uint64_t repeats;
};

static enum foray_status lost(const struct line *l, struct foray_err *err, const char *what) {
  return foray_err_set(err, FORAY_E_IO, "%s: %s: %s", l->name, what, strerror(errno));
}

/* Waits until the descriptor is ready; FORAY_E_TIMEOUT at the deadline. */
static enum foray_status ready(const struct line *l, short events, int64_t deadline_ns,
                               struct foray_err *err) {
  for (;;) {
    const int64_t left = deadline_ns - foray_clock_ns();
    struct pollfd p = {.fd = l->fd, .events = events};
    const int n = poll(&p, 1, left > 0 ? (int)(left / 1000000) + 1 : 0);
    if (n > 0) return FORAY_OK;
    if (n == 0 && left <= 0) return FORAY_E_TIMEOUT;
    if (n < 0 && errno != EINTR) return lost(l, err, "waiting");
  }
}

static enum foray_status send_all(const struct line *l, const uint8_t *p, size_t n, struct foray_err *err) {
  const int64_t deadline = foray_clock_ns() + (int64_t)2000 * 1000000;
  while (n) {
    enum foray_status st = ready(l, POLLOUT, deadline, err);
    if (st == FORAY_E_TIMEOUT) return foray_err_set(err, FORAY_E_IO, "%s takes no more bytes", l->name);
    if (st) return st;
    const ssize_t k = write(l->fd, p, n);
    if (k < 0 && errno != EINTR && errno != EAGAIN) return lost(l, err, "sending");
    if (k > 0) p += k, n -= (size_t)k;
  }
  return FORAY_OK;
}

static enum foray_status receive(const struct line *l, uint8_t *p, size_t n, int ms, struct foray_err *err) {
  const int64_t deadline = foray_clock_ns() + (int64_t)ms * 1000000;
  while (n) {
    enum foray_status st = ready(l, POLLIN, deadline, err);
    if (st) return st;
    const ssize_t k = read(l->fd, p, n);
    if (k == 0) return foray_err_set(err, FORAY_E_IO, "%s: the other end has closed the line", l->name);
    if (k < 0 && errno != EINTR && errno != EAGAIN) return lost(l, err, "receiving");
    if (k > 0) p += k, n -= (size_t)k;
  }
  return FORAY_OK;
}

/* After a failed transfer: the SoC forgets a half command when nothing comes for 100 ms; what it still sends
 * is thrown away. */
static enum foray_status settle(const struct line *l, struct foray_err *err) {
  const int64_t end = foray_clock_ns() + (int64_t)10 * SOC_FORGETS_MS * 1000000;
  for (;;) {
    uint8_t dump[256];
    const enum foray_status st = ready(l, POLLIN, foray_clock_ns() + (int64_t)SOC_FORGETS_MS * 1000000, err);
    if (st == FORAY_E_TIMEOUT) return FORAY_OK;
    if (st) return st;
    const ssize_t k = read(l->fd, dump, sizeof dump);
    if (k == 0) return foray_err_set(err, FORAY_E_IO, "%s: the other end has closed the line", l->name);
    if (k < 0 && errno != EINTR && errno != EAGAIN) return lost(l, err, "receiving");
    if (foray_clock_ns() > end) return foray_err_set(err, FORAY_E_IO, "%s: bytes come without end", l->name);
  }
}

static void head(uint8_t *p, int cmd, size_t words, uint32_t addr) {
  p[0] = (uint8_t)cmd;
  p[1] = (uint8_t)words;
  put32(p + 2, addr / 4);
}

static enum foray_status read_burst(struct line *l, uint32_t addr, uint32_t *out, size_t n, int ms,
                                    struct foray_err *err) {
  uint8_t cmd[HEAD], data[4 * BURST];
  head(cmd, CMD_READ, n, addr);
  enum foray_status st = send_all(l, cmd, sizeof cmd, err);
  if (!st) st = receive(l, data, 4 * n, ms, err);
  for (size_t i = 0; !st && i < n; i++) out[i] = get32(data + 4 * i);
  return st;
}

static int patience(int attempt) {
  const int ms = FORAY_LITEX_REPLY_MS << attempt;
  return ms > 2000 ? 2000 : ms;
}

static enum foray_status line_read(void *self, uint32_t addr, uint32_t *out, size_t n,
                                   struct foray_err *err) {
  struct line *l = self;
  for (size_t at = 0; at < n;) {
    const size_t k = n - at < BURST ? n - at : BURST;
    int attempt = 0;
    for (;; attempt++) {
      enum foray_status st = read_burst(l, addr + 4 * (uint32_t)at, out + at, k, patience(attempt), err);
      if (st == FORAY_OK) break;
      if (st != FORAY_E_TIMEOUT) return st;
      if (attempt + 1 == FORAY_LITEX_TRIES)
        return foray_err_set(
            err, FORAY_E_TIMEOUT,
            "%s: no answer to a read of %zu words at 0x%08x after %d attempts; is the board powered, "
            "its bitstream loaded, the speed right?",
            l->name, k, (unsigned)(addr + 4 * (uint32_t)at), FORAY_LITEX_TRIES);
      l->repeats++;
      if ((st = settle(l, err))) return st;
    }
    at += k;
  }
  return FORAY_OK;
}

static enum foray_status line_write(void *self, uint32_t addr, const uint32_t *in, size_t n,
                                    struct foray_err *err) {
  struct line *l = self;
  for (size_t at = 0; at < n;) {
    const size_t k = n - at < BURST ? n - at : BURST;
    const uint32_t where = addr + 4 * (uint32_t)at;
    uint8_t cmd[HEAD + 4 * BURST];
    uint32_t back[BURST];
    head(cmd, CMD_WRITE, k, where);
    for (size_t i = 0; i < k; i++) put32(cmd + HEAD + 4 * i, in[at + i]);
    for (int attempt = 0;; attempt++) {
      enum foray_status st = send_all(l, cmd, HEAD + 4 * k, err);
      /* A register need not read back as it was written, a burst into memory must. */
      if (!st) st = read_burst(l, where, back, k, patience(attempt), err);
      if (st == FORAY_OK && (k == 1 || !memcmp(back, in + at, 4 * k))) break;
      if (st != FORAY_OK && st != FORAY_E_TIMEOUT) return st;
      if (attempt + 1 == FORAY_LITEX_TRIES)
        return foray_err_set(err, FORAY_E_TIMEOUT, "%s: %zu words written at 0x%08x %s after %d attempts",
                             l->name, k, (unsigned)where, st ? "were not confirmed" : "read back as others",
                             FORAY_LITEX_TRIES);
      l->repeats++;
      if ((st = settle(l, err))) return st;
    }
    at += k;
  }
  return FORAY_OK;
}

static void line_close(void *self) {
  struct line *l = self;
  if (!l) return;
  close(l->fd);
  free(l);
}

enum foray_status foray_litex_uartbone_open(int fd, const char *name, struct foray_litex_bus *out,
                                            struct foray_err *err) {
  memset(out, 0, sizeof *out);
  struct line *l = calloc(1, sizeof *l);
  if (!l) {
    close(fd);
    return foray_err_set(err, FORAY_E_NOMEM, "%s", name);
  }
  l->fd = fd;
  snprintf(l->name, sizeof l->name, "%s", name);
  out->self = l;
  out->read = line_read;
  out->write = line_write;
  out->close = line_close;
  out->repeats = &l->repeats;
  return settle(l, err);
}
