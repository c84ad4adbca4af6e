#include "cardhost/cardhost.h"

#include "core/clock.h"
#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  START = 1,
  DONE = 2,
  IDLE = 4,
  ONES_US = 20,          /* first pause between polls */
  SPINS = 64,            /* polls before the first pause */
  POLL_US = 500,         /* longest pause */
  LIMIT_MS = 120000,     /* of a run without a deadline */
  STOP_MS = 2000,        /* a card must end a run so soon after STOP */
  ATTACH_MS = 1000,      /* a card may still be at the run of a process that ended */
  MODEL_ID = 0x6d6f6465, /* build id of sim/card: BUSY counts nanoseconds there */
  RESULT_WORDS = 6
};

struct foray_cardhost {
  struct foray_bus bus;
  struct foray_cardhost_id id;
  struct foray_cardhost_traffic traffic;
  uint64_t mem_base, heap_bytes;
  uint64_t since[FORAY_COUNTER_COUNT]; /* what the card had counted when it was opened */
  uint32_t limit_ms, poll_us;
  bool dead; /* it did not stop: nothing that it says can be trusted */
  char where[64];
};

static enum foray_status gone(struct foray_err *err, const char *where) {
  return foray_err_set(
      err, FORAY_E_CLOSED,
      "%s: all reads give ones: the card was removed or lost its power or link; put it back and rescan "
      "the bus (echo 1 > /sys/bus/pci/rescan) or restart the board",
      where);
}

static enum foray_status read_reg(const struct foray_bus *b, uint32_t at, uint32_t *v,
                                  struct foray_err *err) {
  *v = UINT32_MAX;
  return b->read32(b->arg, at, v, err);
}

enum foray_status foray_cardhost_identify(const struct foray_bus *b, const char *where,
                                          struct foray_cardhost_id *id, struct foray_err *err) {
  static const uint32_t regs[] = {FORAY_REG_TYPE,        FORAY_REG_VERSION,  FORAY_REG_ABI_HASH_LO,
                                  FORAY_REG_ABI_HASH_HI, FORAY_REG_BUILD_ID, FORAY_REG_SCRATCH_UNITS,
                                  FORAY_REG_COLS};
  enum { N = sizeof regs / sizeof *regs };
  uint32_t v[N], ones = 0;
  memset(id, 0, sizeof *id);
  for (int i = 0; i < N; i++) {
    enum foray_status st = read_reg(b, regs[i], &v[i], err);
    if (st != FORAY_OK) return st;
    ones += v[i] == UINT32_MAX;
  }
  if (ones == N) return gone(err, where);
  if (v[0] != FORAY_TYPE_ID)
    return foray_err_set(err, FORAY_E_FORMAT,
                         "%s: register TYPE is %08x, not %08x: no Foray card, or its bitstream is not loaded",
                         where, v[0], (unsigned)FORAY_TYPE_ID);
  id->version = v[1], id->abi_hash = (uint64_t)v[3] << 32 | v[2];
  id->build_id = v[4], id->scratch_units = v[5], id->cols = v[6];
  if (id->abi_hash != FORAY_ABI_HASH || id->version != FORAY_ABI_VERSION)
    return foray_err_set(
        err, FORAY_E_MISMATCH,
        "%s: the card has ABI %016llx (version %u), this host %016llx (version %u): load a bitstream of this "
        "release",
        where, (unsigned long long)id->abi_hash, id->version, (unsigned long long)FORAY_ABI_HASH,
        (unsigned)FORAY_ABI_VERSION);
  if (id->cols < 1 || id->cols > FORAY_ABI_COLS_MAX || id->scratch_units == 0)
    return foray_err_set(err, FORAY_E_FORMAT, "%s: the card claims %u columns and %u scratch units", where,
                         id->cols, id->scratch_units);
  return FORAY_OK;
}

/* ---- counted accesses ---- */

static enum foray_status rd(struct foray_cardhost *h, uint32_t at, uint32_t *v, struct foray_err *err) {
  h->traffic.reg_reads++;
  return read_reg(&h->bus, at, v, err);
}
static enum foray_status wr(struct foray_cardhost *h, uint32_t at, uint32_t v, struct foray_err *err) {
  h->traffic.reg_writes++;
  return h->bus.write32(h->bus.arg, at, v, err);
}

static enum foray_status refuse(const struct foray_cardhost *h, struct foray_err *err) {
  return foray_err_set(err, FORAY_E_DEVICE,
                       "%s: the card did not stop and is still busy: reload its bitstream or restart it",
                       h->where);
}

static void pause_us(struct foray_cardhost *h, uint32_t us) {
  h->traffic.waits++;
  if (h->bus.wait) {
    (void)h->bus.wait(h->bus.arg, us);
    return;
  }
  nanosleep(&(struct timespec){0, (long)us * 1000}, NULL);
}

/* Until CONTROL says done or idle. FORAY_E_TIMEOUT (err untouched) at `until`. */
static enum foray_status wait_idle(struct foray_cardhost *h, int64_t until, struct foray_err *err) {
  uint32_t us = ONES_US;
  for (uint32_t polls = 0;; polls++) {
    uint32_t v;
    enum foray_status st = rd(h, FORAY_REG_CONTROL, &v, err);
    if (st != FORAY_OK) return st;
    if (v == UINT32_MAX) return gone(err, h->where);
    if (v & DONE || (v & IDLE && !(v & START))) return FORAY_OK;
    if (foray_clock_ns() >= until) return FORAY_E_TIMEOUT;
    if (polls < SPINS) continue;
    pause_us(h, us);
    us = us * 2 > h->poll_us ? h->poll_us : us * 2;
  }
}

/* The card's own counters; false when it stopped answering on the way, the rest is then left alone. */
static bool read_counters(struct foray_cardhost *h, uint64_t out[FORAY_COUNTER_COUNT]) {
  for (uint32_t i = 0; i < FORAY_COUNTER_COUNT; i++) {
    uint32_t lo, hi;
    if (h->dead || rd(h, FORAY_REG_COUNTERS + 8 * i, &lo, NULL) != FORAY_OK ||
        rd(h, FORAY_REG_COUNTERS + 8 * i + 4, &hi, NULL) != FORAY_OK)
      return false;
    out[i] = (uint64_t)hi << 32 | lo;
  }
  return true;
}

static enum foray_status wait_end(struct foray_cardhost *h, uint32_t ms, struct foray_err *err) {
  if (h->bus.finish) return h->bus.finish(h->bus.arg, ms, err);
  return wait_idle(h, foray_clock_ns() + (int64_t)ms * 1000000, err);
}

enum foray_status foray_cardhost_open(const struct foray_bus *bus, const struct foray_cardhost_opts *o,
                                      struct foray_cardhost **out, struct foray_err *err) {
  *out = NULL;
  struct foray_cardhost *h = calloc(1, sizeof *h);
  if (!h) return foray_err_set(err, FORAY_E_NOMEM, "card");
  h->bus = *bus;
  snprintf(h->where, sizeof h->where, "%s", o->where ? o->where : "card");
  h->mem_base = o->mem_base;
  h->heap_bytes = (o->heap_bytes ? foray_dev_up(o->heap_bytes, FORAY_ABI_UNIT) : o->mem_bytes) /
                  FORAY_ABI_UNIT * FORAY_ABI_UNIT;
  const uint64_t most = (uint64_t)(UINT32_MAX - 1) * FORAY_ABI_UNIT;
  if (h->heap_bytes > most && o->heap_bytes == 0) h->heap_bytes = most;
  h->limit_ms = o->limit_ms ? o->limit_ms : LIMIT_MS;
  h->poll_us = o->poll_us ? o->poll_us : POLL_US;
  enum foray_status st = foray_cardhost_identify(bus, h->where, &h->id, err);
  if (st == FORAY_OK && (h->heap_bytes == 0 || h->heap_bytes > o->mem_bytes || h->heap_bytes > most))
    st = foray_err_set(err, FORAY_E_LIMIT, "%s: a heap of %llu bytes; the card's memory window has %llu",
                       h->where, (unsigned long long)o->heap_bytes, (unsigned long long)o->mem_bytes);
  if (st == FORAY_OK && !bus->start) {
    st = wait_idle(h, foray_clock_ns() + (int64_t)ATTACH_MS * 1000000, err);
    if (st == FORAY_E_TIMEOUT)
      st = foray_err_set(
          err, FORAY_E_BUSY,
          "%s: the card is busy and does not become idle: another process drives it, or its last "
          "run hangs (reload the bitstream)",
          h->where);
  }
  if (st != FORAY_OK) {
    free(h);
    return st;
  }
  (void)read_counters(h, h->since);
  memset(&h->traffic, 0, sizeof h->traffic);
  *out = h;
  return FORAY_OK;
}

void foray_cardhost_close(struct foray_cardhost *h) {
  if (!h) return;
  if (h->bus.close) h->bus.close(h->bus.arg);
  free(h);
}

void foray_cardhost_info(const struct foray_cardhost *h, struct foray_dev_info *info) {
  info->abi_hash = h->id.abi_hash;
  info->heap_bytes = h->heap_bytes;
  info->scratch_units = h->id.scratch_units;
  info->cols_max = h->id.cols;
  info->ns_busy = h->id.build_id == MODEL_ID;
}

void foray_cardhost_traffic(const struct foray_cardhost *h, struct foray_cardhost_traffic *t) {
  *t = h->traffic;
}

enum foray_status foray_cardhost_upload(struct foray_cardhost *h, uint64_t addr, const void *src,
                                        uint64_t bytes, struct foray_err *err) {
  if (h->dead) return refuse(h, err);
  h->traffic.mem_write_bytes += bytes;
  return bytes ? h->bus.mem_write(h->bus.arg, addr, src, bytes, err) : FORAY_OK;
}

enum foray_status foray_cardhost_download(struct foray_cardhost *h, uint64_t addr, void *dst, uint64_t bytes,
                                          struct foray_err *err) {
  if (h->dead) return refuse(h, err);
  h->traffic.mem_read_bytes += bytes;
  return bytes ? h->bus.mem_read(h->bus.arg, addr, dst, bytes, err) : FORAY_OK;
}

/* Starts a run: by the scheduler of the bus, or by CONTROL once it is idle. */
static enum foray_status ring_doorbell(struct foray_cardhost *h, uint32_t run_unit, struct foray_err *err) {
  uint32_t control;
  if (h->bus.start) return h->bus.start(h->bus.arg, run_unit, err);
  enum foray_status st = rd(h, FORAY_REG_CONTROL, &control, err); /* also clears a done that nobody took */
  if (st != FORAY_OK) return st;
  if (control == UINT32_MAX) return gone(err, h->where);
  if (!(control & IDLE))
    return foray_err_set(err, FORAY_E_BUSY,
                         "%s: the card is busy with a run that is not ours: another process drives it",
                         h->where);
  const struct {
    uint32_t reg, v;
  } args[] = {{FORAY_REG_ARG_HEAP_LO, (uint32_t)h->mem_base},
              {FORAY_REG_ARG_HEAP_HI, (uint32_t)(h->mem_base >> 32)},
              {FORAY_REG_ARG_HEAP_UNITS, (uint32_t)(h->heap_bytes / FORAY_ABI_UNIT)},
              {FORAY_REG_ARG_RUN, run_unit},
              {FORAY_REG_CONTROL, START}};
  for (size_t i = 0; i < sizeof args / sizeof *args; i++) {
    st = wr(h, args[i].reg, args[i].v, err);
    if (st != FORAY_OK) return st;
  }
  return FORAY_OK;
}

/* What the card wrote into the run block; all zero when it refused the block before it began. */
static enum foray_status results(struct foray_cardhost *h, uint32_t run_unit, struct foray_dev_result *res,
                                 struct foray_err *err) {
  uint32_t w[FORAY_ABI_RUN_WORDS] = {0};
  struct foray_rec_run probe = {.error = 1};
  uint32_t first = 0;
  foray_rec_run_pack(&probe, w);
  while (first < FORAY_ABI_RUN_WORDS && w[first] != 1) first++; /* where the results begin */
  enum foray_status st = rd(h, FORAY_REG_ERROR, &res->error, err);
  if (st == FORAY_OK && res->error == UINT32_MAX) return gone(err, h->where);
  if (st == FORAY_OK && res->error) st = rd(h, FORAY_REG_ERROR_DESC, &res->error_desc, err);
  const uint64_t at = (uint64_t)run_unit * FORAY_ABI_UNIT + 4 * (uint64_t)first;
  if (st != FORAY_OK) return st;
  if (at + 4 * RESULT_WORDS > h->heap_bytes) {
    res->stop = FORAY_STOP_ERROR;
    return FORAY_OK;
  }
  memset(w, 0, sizeof w);
  st = foray_cardhost_download(h, at, w + first, 4 * RESULT_WORDS, err);
  if (st != FORAY_OK) return st;
  struct foray_rec_run r;
  foray_rec_run_unpack(w, &r);
  if (r.error == res->error)
    res->drafted = r.drafted, res->len = r.len, res->stop = r.stop, res->dumped = r.dumped;
  else
    res->stop = FORAY_STOP_ERROR;
  return FORAY_OK;
}

enum foray_status foray_cardhost_run(struct foray_cardhost *h, uint32_t run_unit, uint32_t deadline_ms,
                                     struct foray_dev_result *res, struct foray_err *err) {
  memset(res, 0, sizeof *res);
  if (h->dead) return refuse(h, err);
  h->traffic.runs++;
  enum foray_status st = ring_doorbell(h, run_unit, err);
  if (st != FORAY_OK) return st;
  const uint32_t ms = deadline_ms ? deadline_ms : h->limit_ms;
  st = wait_end(h, ms, err);
  const bool late = st == FORAY_E_TIMEOUT;
  if (late) {
    st = wr(h, FORAY_REG_STOP, 1, err);
    if (st == FORAY_OK) st = wait_end(h, STOP_MS, err);
    if (st == FORAY_E_TIMEOUT) {
      h->dead = true;
      return refuse(h, err);
    }
  }
  if (st == FORAY_OK) st = results(h, run_unit, res, err);
  return st;
}

void foray_cardhost_counters(struct foray_cardhost *h, uint64_t out[FORAY_COUNTER_COUNT]) {
  uint64_t now[FORAY_COUNTER_COUNT];
  if (!read_counters(h, now)) return; /* zeros, as the caller has made them */
  for (uint32_t i = 0; i < FORAY_COUNTER_COUNT; i++) out[i] = now[i] - h->since[i];
}
