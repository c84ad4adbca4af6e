#include "dram.h"

#include <string.h>

static double max2(double a, double b) { return a > b ? a : b; }

void foray_channel_init(struct foray_channel *c, const struct foray_dram *t, double ratio, double latency,
                        uint32_t window) {
  memset(c, 0, sizeof *c);
  c->t = *t;
  c->ratio = ratio;
  c->latency = latency;
  c->window = window < 1 || window > FORAY_DRAM_WINDOW ? FORAY_DRAM_WINDOW : window;
  for (int b = 0; b < FORAY_DRAM_BANKS; b++) c->bank[b].open = -1;
  for (int g = 0; g < 16; g++) c->last_col[g] = c->last_act[g] = -1e9;
  for (int k = 0; k < 4; k++) c->acts[k] = -1e9;
  c->any_col = c->any_act = c->last_read = c->last_write = -1e9;
  c->refresh = t->refi;
}

bool foray_channel_push(struct foray_channel *c, uint64_t addr, uint64_t *done) {
  if (c->n == c->window) return false;
  /* neighbours lie in different bank groups, so that they follow one another at tCCD_S */
  uint64_t a = addr / c->t.access;
  uint32_t group = (uint32_t)(a % c->t.groups);
  a /= c->t.groups;
  a /= c->t.row_bytes / c->t.access;
  uint32_t bank = (uint32_t)(a % c->t.banks);
  struct foray_dram_access *q = &c->q[c->n++];
  *q = (struct foray_dram_access){done, a / c->t.banks, bank * c->t.groups + group, group, 0};
  if (!done) c->writes++;
  c->accesses++;
  return true;
}

/* Opens rows for accesses that wait, oldest first; an older one keeps its bank. */
static void open_rows(struct foray_channel *c, double now) {
  uint64_t taken = 0;
  const struct foray_dram *t = &c->t;
  for (uint32_t i = 0; i < c->n; i++) {
    struct foray_dram_access *q = &c->q[i];
    if (taken >> q->bank & 1) continue;
    taken |= (uint64_t)1 << q->bank;
    struct foray_dram_bank *b = &c->bank[q->bank];
    if (b->open == (int64_t)q->row) continue;
    double at = b->open >= 0 ? max2(now, b->pre) + t->rp : now;
    at = max2(at, b->act);
    at = max2(at, c->last_act[q->group] + t->rrd_l);
    at = max2(at, c->any_act + t->rrd_s);
    at = max2(at, c->acts[0] + t->faw);
    memmove(c->acts, c->acts + 1, 3 * sizeof *c->acts);
    c->acts[3] = at;
    c->any_act = c->last_act[q->group] = at;
    b->open = (int64_t)q->row;
    b->col = at + t->rcd;
    b->pre = at + t->ras;
    b->act = at + t->ras + t->rp;
    c->row_misses++;
  }
}

static double column_at(const struct foray_channel *c, const struct foray_dram_access *q, double now) {
  const struct foray_dram *t = &c->t;
  bool write = !q->done;
  double at = max2(now, c->bank[q->bank].col);
  at = max2(at, c->last_col[q->group] + t->ccd_l);
  at = max2(at, c->any_col + t->ccd_s);
  at = max2(at, c->bus - (write ? t->cwl : t->cl)); /* the data bus */
  if (write)
    at = max2(at, c->last_read + 2 - t->cwl); /* bus turnaround: two clocks between bursts */
  else
    at = max2(at, c->last_write + t->wtr);
  return at;
}

void foray_channel_cycle(struct foray_channel *c, uint64_t cycle) {
  const struct foray_dram *t = &c->t;
  double now = (double)cycle * c->ratio, end = now + c->ratio;
  if (t->refi && now >= c->refresh) {
    double from = max2(now, c->bus);
    for (int b = 0; b < FORAY_DRAM_BANKS; b++) {
      if (c->bank[b].open >= 0) from = max2(from, c->bank[b].pre);
      c->bank[b].open = -1;
    }
    for (int b = 0; b < FORAY_DRAM_BANKS; b++) c->bank[b].act = from + t->rp + t->rfc;
    c->stolen += t->rfc + t->rp;
    c->refresh += t->refi;
    c->refreshes++;
  }
  while (c->n) {
    open_rows(c, now);
    /* reads first, unless many writes wait; what is not preferred goes when nothing else can ever go, since
     * it may hold the row that the others need */
    bool writes = c->writes >= 16;
    uint32_t best = c->n;
    double at = end;
    for (int pass = 0; pass < 2 && best == c->n; pass++, writes = !writes) {
      bool possible = false;
      for (uint32_t i = 0; i < c->n; i++) {
        struct foray_dram_access *q = &c->q[i];
        if ((!q->done) != writes || c->bank[q->bank].open != (int64_t)q->row) continue;
        possible = true;
        double x = column_at(c, q, now);
        if (x < at) at = x, best = i;
      }
      if (possible) break;
    }
    if (best == c->n) break;
    struct foray_dram_access q = c->q[best];
    memmove(c->q + best, c->q + best + 1, (c->n - best - 1) * sizeof *c->q);
    c->n--;
    c->any_col = c->last_col[q.group] = at;
    struct foray_dram_bank *b = &c->bank[q.bank];
    if (q.done) {
      c->bus = at + t->cl + t->burst;
      c->last_read = c->bus;
      b->pre = max2(b->pre, at + t->rtp);
      *q.done = (uint64_t)(c->bus / c->ratio + c->latency) + 1;
    } else {
      c->writes--;
      c->bus = at + t->cwl + t->burst;
      c->last_write = c->bus;
      b->pre = max2(b->pre, c->bus + t->wr);
    }
    b->act = max2(b->act, b->pre + t->rp);
  }
}
