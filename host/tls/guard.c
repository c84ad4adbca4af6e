#include "tls/guard.h"

#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

static const int64_t MS = 1000000;

uint64_t foray_guard_address(const struct sockaddr *sa) {
  if (sa->sa_family == AF_INET)
    return ((uint64_t)1 << 32) | ((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr;
  if (sa->sa_family != AF_INET6) return 1;
  const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
  uint32_t last;
  if (IN6_IS_ADDR_V4MAPPED(a)) {
    memcpy(&last, (const uint8_t *)a + 12, 4);
    return ((uint64_t)1 << 32) | last;
  }
  uint64_t net;
  memcpy(&net, a, 8);
  return net | ((uint64_t)1 << 63);
}

static struct foray_guard_slot *find(struct foray_guard *g, uint64_t address) {
  for (int i = 0; i < FORAY_GUARD_SLOTS; i++)
    if (g->slots[i].address == address) return &g->slots[i];
  return NULL;
}

bool foray_guard_open(struct foray_guard *g, uint64_t address, int64_t now) {
  const struct foray_guard_slot *s = find(g, address);
  return !s || now >= s->shut_until;
}

void foray_guard_failed(struct foray_guard *g, uint64_t address, int64_t now) {
  struct foray_guard_slot *s = find(g, address);
  if (!s) {
    s = &g->slots[0];
    for (int i = 1; i < FORAY_GUARD_SLOTS && s->address; i++)
      if (!g->slots[i].address || g->slots[i].touched < s->touched) s = &g->slots[i];
    *s = (struct foray_guard_slot){.address = address, .since = now};
  }
  if (now - s->since > FORAY_GUARD_WINDOW_MS * MS) {
    s->failures = 0;
    s->since = now;
  }
  s->touched = now;
  if (++s->failures > FORAY_GUARD_FAILURES) {
    s->shut_until = now + FORAY_GUARD_SHUT_MS * MS;
    s->failures = 0;
    s->since = now;
  }
}
