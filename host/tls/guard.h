/* tls/guard.h - counts wrong tokens by address and shuts the door on those that guess. Time comes in as
 * argument. Not thread-safe. */
#ifndef FORAY_TLS_GUARD_H
#define FORAY_TLS_GUARD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* X(name, value, meaning) */
#define FORAY_GUARD_LIMIT_MAP(X)                                                                             \
  X(FAILURES, 10, "wrong tokens of an address within WINDOW_MS; one more and it is shut out")                \
  X(WINDOW_MS, 60000, "milliseconds after which wrong tokens are forgotten")                                 \
  X(SHUT_MS, 60000, "milliseconds that it lasts")                                                            \
  X(SLOTS, 1024, "addresses remembered; the one that rested longest makes room")

enum {
#define X(name, value, text) FORAY_GUARD_##name = value,
  FORAY_GUARD_LIMIT_MAP(X)
#undef X
};

struct foray_guard_slot {
  uint64_t address; /* 0: free */
  uint32_t failures;
  int64_t since, shut_until, touched;
};
struct foray_guard {
  struct foray_guard_slot slots[FORAY_GUARD_SLOTS];
};

/* IPv4 address, or the upper half of an IPv6 one (a host has all of the lower); 1 for local sockets. */
uint64_t foray_guard_address(const struct sockaddr *sa);
bool foray_guard_open(struct foray_guard *g, uint64_t address, int64_t now_ns); /* false: shut out */
void foray_guard_failed(struct foray_guard *g, uint64_t address, int64_t now_ns);

#endif
