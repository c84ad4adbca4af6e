#include "simlink/link.h"

#include <stdlib.h>
#include <string.h>

struct packet {
  struct packet *next;
  int64_t at;
  size_t n, used;
  uint8_t bytes[];
};

struct dir {
  struct packet *first, **last;
  int64_t busy_until; /* of the sender's interface */
  int64_t arrived;    /* of the last packet: order is kept */
  int64_t broken_at;  /* when the receiver learns of a cut */
};

struct foray_simlink {
  struct foray_simlink_config c;
  struct dir d[2];
  bool cut; /* what is sent now goes nowhere */
  uint64_t state;
  struct foray_simlink_stats stats;
};

static uint64_t draw(struct foray_simlink *l) { /* splitmix64 */
  uint64_t z = (l->state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
static bool chance(struct foray_simlink *l, uint32_t p) { return p && (draw(l) & 0xffff) < p; }
static uint64_t below(struct foray_simlink *l, uint64_t n) { return n ? draw(l) % n : 0; }

static void clear(struct foray_simlink *l) {
  for (int i = 0; i < 2; i++) {
    struct dir *d = &l->d[i];
    while (d->first) {
      struct packet *p = d->first;
      d->first = p->next;
      free(p);
    }
    *d = (struct dir){.broken_at = INT64_MAX};
    d->last = &d->first;
  }
  l->cut = false;
}

struct foray_simlink *foray_simlink_create(const struct foray_simlink_config *c, uint64_t seed) {
  struct foray_simlink *l = calloc(1, sizeof *l);
  if (!l) return NULL;
  l->c = *c;
  if (!l->c.packet) l->c.packet = 1400;
  l->state = seed;
  clear(l);
  return l;
}
void foray_simlink_destroy(struct foray_simlink *l) {
  if (!l) return;
  clear(l);
  free(l);
}
void foray_simlink_connect(struct foray_simlink *l) { clear(l); }

static bool put(struct dir *d, const uint8_t *p, size_t n, int64_t at) {
  struct packet *k = malloc(sizeof *k + n);
  if (!k) return false;
  *k = (struct packet){.at = at, .n = n};
  if (n) memcpy(k->bytes, p, n);
  *d->last = k;
  d->last = &k->next;
  return true;
}

/* Bytes of the frame that begins at p (type, LEB128 length, payload), or all when it is not whole. */
static size_t frame_size(const uint8_t *p, size_t n) {
  size_t len = 0;
  for (size_t k = 1; k < n && k < 5; k++) {
    len |= (size_t)(p[k] & 0x7f) << (7 * (k - 1));
    if (!(p[k] & 0x80)) return k + 1 + len <= n ? k + 1 + len : n;
  }
  return n;
}

static bool send_packet(struct foray_simlink *l, enum foray_sim_dir dir, const uint8_t *p, size_t n,
                        int64_t now) {
  struct dir *d = &l->d[dir], *back = &l->d[!dir];
  l->stats.packets++;
  int64_t start = d->busy_until > now ? d->busy_until : now;
  int64_t wire = l->c.bytes_per_s ? (int64_t)n * 1000000000 / l->c.bytes_per_s : 0;
  d->busy_until = start + wire;
  int64_t at = d->busy_until + l->c.delay + (int64_t)below(l, (uint64_t)l->c.jitter);
  while (chance(l, l->c.loss)) {
    l->stats.lost++;
    at += l->c.retry;
  }
  if (at < d->arrived) at = d->arrived;
  d->arrived = at;
  if (chance(l, l->c.cut)) {
    l->stats.cuts++;
    l->cut = true;
    bool told = !chance(l, l->c.half_open);
    if (told) {
      d->broken_at = at;
      back->broken_at = at + l->c.delay;
    } else {
      l->stats.half_opens++;
    }
    return put(d, p, (size_t)below(l, n + 1), at);
  }
  if (chance(l, l->c.scramble)) {
    l->stats.scrambled++;
    struct packet *prev = d->first;
    while (prev && prev->next) prev = prev->next;
    if (prev && prev->used == 0 && (draw(l) & 1)) { /* overtakes the one before */
      struct packet **at_prev = &d->first;
      while (*at_prev != prev) at_prev = &(*at_prev)->next;
      struct packet *k = malloc(sizeof *k + n);
      if (!k) return false;
      *k = (struct packet){.next = prev, .at = prev->at, .n = n};
      memcpy(k->bytes, p, n);
      *at_prev = k;
      return true;
    }
    if (!put(d, p, n, at)) return false; /* arrives twice */
  }
  return put(d, p, n, at);
}

bool foray_simlink_send(struct foray_simlink *l, enum foray_sim_dir d, const uint8_t *p, size_t n,
                        int64_t now) {
  while (n && !l->cut) {
    size_t part = n < l->c.packet ? n : l->c.packet;
    /* Doubled and reordered packets are whole frames: with bytes of frames mixed up nothing could be told
     * from data. Transports with a check sum never do that. */
    if (l->c.scramble) part = frame_size(p, n);
    if (!send_packet(l, d, p, part, now)) return false;
    p += part;
    n -= part;
  }
  return true;
}

int64_t foray_simlink_next(const struct foray_simlink *l) {
  int64_t t = INT64_MAX;
  for (int i = 0; i < 2; i++) {
    if (l->d[i].first && l->d[i].first->at < t) t = l->d[i].first->at;
    if (l->d[i].broken_at < t) t = l->d[i].broken_at;
  }
  return t;
}

size_t foray_simlink_receive(struct foray_simlink *l, enum foray_sim_dir dir, uint8_t *buf, size_t cap,
                             int64_t now) {
  struct dir *d = &l->d[dir];
  size_t got = 0;
  while (d->first && d->first->at <= now && got < cap) {
    struct packet *p = d->first;
    size_t n = p->n - p->used < cap - got ? p->n - p->used : cap - got;
    memcpy(buf + got, p->bytes + p->used, n);
    got += n;
    p->used += n;
    if (p->used < p->n) break;
    if (!(d->first = p->next)) d->last = &d->first;
    free(p);
  }
  return got;
}

bool foray_simlink_broken(const struct foray_simlink *l, enum foray_sim_dir d, int64_t now) {
  return l->d[d].broken_at <= now && !(l->d[d].first && l->d[d].first->at <= now);
}
void foray_simlink_stats_get(const struct foray_simlink *l, struct foray_simlink_stats *s) { *s = l->stats; }
