/* sim/link.h - an impaired byte stream in virtual time: what one side sends comes out at the other side
 * later, in pieces of any size, or not at all when the link is cut.
 *
 * A stream never loses, doubles or reorders bytes by itself (TCP hides that): loss shows as a stall while
 * the packet is sent again, a partition as a stall without end (half-open), and a broken connection as a cut
 * that swallows whatever is under way, at any byte. Bytes delivered twice or in another order can only come
 * from a broken transport; `scramble` does just that to whole frames, so that a test can see the machines
 * refuse it.
 *
 *   struct foray_simlink *l = foray_simlink_create(&cfg, seed);
 *   foray_simlink_send(l, FORAY_SIM_UP, bytes, n, now);
 *   t = foray_simlink_next(l);                      // when something arrives; INT64_MAX: never
 *   n = foray_simlink_receive(l, FORAY_SIM_UP, buf, sizeof buf, t);
 *
 * All chance comes from the seed. Not thread-safe. */
#ifndef FORAY_SIMLINK_LINK_H
#define FORAY_SIMLINK_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct foray_simlink; /* opaque; one connection after the other */

enum foray_sim_dir { FORAY_SIM_UP, FORAY_SIM_DOWN };

/* Probabilities are out of 2^16, times in ns. */
struct foray_simlink_config {
  int64_t delay, jitter; /* one way; jitter is uniform in [0, jitter), order is kept */
  int64_t bytes_per_s;   /* 0: no limit */
  uint32_t loss;         /* of a packet: it arrives after `retry` more */
  int64_t retry;
  uint32_t cut;       /* of a packet: the connection breaks somewhere inside it */
  uint32_t half_open; /* of a cut: nobody is told; bytes vanish until the connection is given up */
  uint32_t packet;    /* largest packet, bytes; 0: 1400. Small ones split frames */
  uint32_t scramble;  /* of a packet: it arrives twice, or after the next one */
};

struct foray_simlink *foray_simlink_create(const struct foray_simlink_config *c, uint64_t seed);
void foray_simlink_destroy(struct foray_simlink *l);

/* A fresh connection; what was under way is gone. */
void foray_simlink_connect(struct foray_simlink *l);
/* Takes all bytes (a stream with unlimited buffers). False: out of memory. */
bool foray_simlink_send(struct foray_simlink *l, enum foray_sim_dir d, const uint8_t *p, size_t n,
                        int64_t now);
/* When the next bytes, or the news of a cut, arrive at either side. */
int64_t foray_simlink_next(const struct foray_simlink *l);
/* Bytes that have arrived by now. */
size_t foray_simlink_receive(struct foray_simlink *l, enum foray_sim_dir d, uint8_t *buf, size_t cap,
                             int64_t now);
/* The receiver of direction d has learned by now that the connection is broken. */
bool foray_simlink_broken(const struct foray_simlink *l, enum foray_sim_dir d, int64_t now);

struct foray_simlink_stats {
  uint64_t packets, lost, cuts, half_opens, scrambled;
};
void foray_simlink_stats_get(const struct foray_simlink *l, struct foray_simlink_stats *s);

#endif
