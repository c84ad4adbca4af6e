/* Etherbone: the bus over UDP. Each request carries a number that the reply brings back, so that late and
 * doubled replies are told apart; writes are confirmed by a read of their last word in the same packet. */
#include "litex/bus.h"
#include "litex/bytes.h"

#include "core/clock.h"
#include "core/err.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORDS = 255 /* the counts are one byte */, PACKET_HEAD = 8, RECORD_HEAD = 4, PACKET_MAX = 4096 };

struct port {
  int fd;
  char name[128];
  uint32_t number;
  uint64_t repeats;
};

/* One record: n_w writes from `addr` on, then n_r reads. Returns the packet's length. */
static size_t request(uint8_t *p, uint32_t addr, const uint32_t *in, size_t n_w, uint32_t read_from,
                      size_t n_r, uint32_t number) {
  static const uint8_t start[PACKET_HEAD] = {0x4e, 0x6f, 0x10, 0x44};
  memcpy(p, start, PACKET_HEAD);
  uint8_t *q = p + PACKET_HEAD;
  q[0] = 0, q[1] = 0x0f, q[2] = (uint8_t)n_w, q[3] = (uint8_t)n_r;
  q += RECORD_HEAD;
  if (n_w) {
    put32(q, addr);
    q += 4;
    for (size_t i = 0; i < n_w; i++, q += 4) put32(q, in[i]);
  }
  put32(q, number); /* where the reply "writes" to: our number */
  q += 4;
  for (size_t i = 0; i < n_r; i++, q += 4) put32(q, read_from + 4 * (uint32_t)i);
  return (size_t)(q - p);
}

/* A reply to request `number` with n words? Anything else on the port is ignored. */
static bool is_reply(const uint8_t *p, size_t len, uint32_t number, size_t n, uint32_t *out) {
  if (len < PACKET_HEAD + RECORD_HEAD + 4 + 4 * n) return false;
  if (p[0] != 0x4e || p[1] != 0x6f || (p[2] & 0xf0) != 0x10 || p[3] != 0x44) return false;
  const uint8_t *q = p + PACKET_HEAD;
  if (q[2] != n || q[3] != 0 || get32(q + RECORD_HEAD) != number) return false;
  for (size_t i = 0; i < n; i++) out[i] = get32(q + RECORD_HEAD + 4 + 4 * i);
  return true;
}

static enum foray_status transfer(struct port *t, uint32_t addr, const uint32_t *in, size_t n_w,
                                  uint32_t read_from, size_t n_r, uint32_t *out, struct foray_err *err) {
  uint8_t packet[PACKET_MAX], got[PACKET_MAX];
  for (int attempt = 0; attempt < FORAY_LITEX_TRIES; attempt++) {
    const uint32_t number = ++t->number;
    const size_t len = request(packet, addr, in, n_w, read_from, n_r, number);
    /* A board that is not there yet makes the next call fail once: not the end. */
    if (send(t->fd, packet, len, 0) < 0 && errno != ECONNREFUSED && errno != EINTR && errno != ENOBUFS)
      return foray_err_set(err, FORAY_E_NET, "%s: sending: %s", t->name, strerror(errno));
    const int ms = FORAY_LITEX_REPLY_MS << attempt;
    const int64_t deadline = foray_clock_ns() + (int64_t)(ms > 2000 ? 2000 : ms) * 1000000;
    for (;;) {
      const int64_t left = deadline - foray_clock_ns();
      struct pollfd p = {.fd = t->fd, .events = POLLIN};
      const int n = left > 0 ? poll(&p, 1, (int)(left / 1000000) + 1) : 0;
      if (n == 0) break;
      if (n < 0) continue;
      const ssize_t k = recv(t->fd, got, sizeof got, 0);
      if (k >= 0 && is_reply(got, (size_t)k, number, n_r, out)) return FORAY_OK;
    }
    t->repeats++;
  }
  return foray_err_set(
      err, FORAY_E_TIMEOUT,
      "%s: no answer to a %s at 0x%08x after %d attempts; is the board powered and its bitstream loaded?",
      t->name, n_w ? "write" : "read", (unsigned)(n_w ? addr : read_from), FORAY_LITEX_TRIES);
}

static enum foray_status port_read(void *self, uint32_t addr, uint32_t *out, size_t n,
                                   struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  for (size_t at = 0; at < n && !st;) {
    const size_t k = n - at < WORDS ? n - at : WORDS;
    st = transfer(self, 0, NULL, 0, addr + 4 * (uint32_t)at, k, out + at, err);
    at += k;
  }
  return st;
}

static enum foray_status port_write(void *self, uint32_t addr, const uint32_t *in, size_t n,
                                    struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  for (size_t at = 0; at < n && !st;) {
    const size_t k = n - at < WORDS ? n - at : WORDS;
    const uint32_t where = addr + 4 * (uint32_t)at;
    uint32_t last;
    st = transfer(self, where, in + at, k, where + 4 * (uint32_t)(k - 1), 1, &last, err);
    at += k;
  }
  return st;
}

static void port_close(void *self) {
  struct port *t = self;
  if (!t) return;
  close(t->fd);
  free(t);
}

enum foray_status foray_litex_etherbone_open(int fd, const char *name, struct foray_litex_bus *out,
                                             struct foray_err *err) {
  memset(out, 0, sizeof *out);
  struct port *t = calloc(1, sizeof *t);
  if (!t) {
    close(fd);
    return foray_err_set(err, FORAY_E_NOMEM, "%s", name);
  }
  t->fd = fd;
  t->number = (uint32_t)foray_clock_ns() ^ (uint32_t)getpid()
                                               << 16; /* replies to an earlier process are no replies */
  snprintf(t->name, sizeof t->name, "%s", name);
  out->self = t;
  out->read = port_read;
  out->write = port_write;
  out->close = port_close;
  out->repeats = &t->repeats;
  return FORAY_OK;
}
