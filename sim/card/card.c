#include "card/card.h"

#include "core/err.h"
#include "dev/device.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct foray_card {
  struct foray_card_opts o;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pthread_t worker;
  bool quit, busy, asked;
  _Atomic bool stop;
  uint32_t cols;
  uint32_t control, irq_global, irq_enable, irq_status;
  uint64_t heap_at;
  uint32_t heap_units, run_unit, error, error_desc, scratch_units;
  uint64_t counters[FORAY_COUNTER_COUNT],
      before[FORAY_COUNTER_COUNT]; /* before: of devices that were replaced */
  /* the worker's own */
  struct foray_dev *dev;
  uint64_t dev_at, dev_bytes;
  struct foray_err trouble;
};

static enum foray_status device_at(struct foray_card *c, uint64_t off, uint64_t bytes) {
  if (c->dev && c->dev_at == off && c->dev_bytes == bytes) return FORAY_OK;
  if (c->dev) {
    uint64_t v[FORAY_COUNTER_COUNT];
    foray_dev_counters(c->dev, v);
    for (int i = 0; i < FORAY_COUNTER_COUNT; i++) c->before[i] += v[i];
    foray_dev_close(c->dev);
    c->dev = NULL;
  }
  const struct foray_dev_opts o = {
      .heap_bytes = bytes, .threads = c->o.threads, .heap = c->o.mem + off, .stop = &c->stop};
  enum foray_status st = foray_dev_open(c->o.device, &o, &c->dev, &c->trouble);
  if (st == FORAY_OK) c->dev_at = off, c->dev_bytes = bytes;
  return st;
}

/* One doorbell, without the lock. What the card cannot name by a device error, it calls ADDRESS or RUN. */
static void run_once(struct foray_card *c, uint64_t heap_at, uint32_t units, uint32_t run_unit,
                     uint32_t *error, uint32_t *desc) {
  uint64_t bytes = (uint64_t)units * FORAY_ABI_UNIT, off = heap_at - c->o.mem_base;
  *desc = UINT32_MAX;
  c->trouble = (struct foray_err){0};
  if (heap_at < c->o.mem_base || off > c->o.mem_bytes || units == 0 || bytes > c->o.mem_bytes - off ||
      off % FORAY_ABI_UNIT) {
    (void)foray_err_set(&c->trouble, FORAY_E_ARG, "heap of %u units at %#llx lies outside the card's memory",
                        units, (unsigned long long)heap_at);
    *error = FORAY_DEVERR_ADDRESS;
    return;
  }
  struct foray_dev_result res = {0};
  enum foray_status st = device_at(c, off, bytes);
  if (st == FORAY_OK && run_unit >= units) {
    *error = FORAY_DEVERR_ADDRESS;
    return;
  }
  if (st == FORAY_OK) st = foray_dev_run(c->dev, (uint64_t)run_unit * FORAY_ABI_UNIT, 0, &res, &c->trouble);
  *error = res.error ? res.error : st == FORAY_OK ? FORAY_DEVERR_NONE : FORAY_DEVERR_RUN;
  *desc = res.error_desc;
  if (st == FORAY_OK || res.error) c->trouble = (struct foray_err){0};
}

static void *work(void *arg) {
  struct foray_card *c = arg;
  pthread_mutex_lock(&c->lock);
  for (;;) {
    while (!c->asked && !c->quit) pthread_cond_wait(&c->changed, &c->lock);
    if (c->quit) break;
    c->asked = false;
    const uint64_t at = c->heap_at;
    const uint32_t units = c->heap_units, unit = c->run_unit;
    uint32_t error, desc;
    pthread_mutex_unlock(&c->lock);
    run_once(c, at, units, unit, &error, &desc);
    uint64_t now[FORAY_COUNTER_COUNT] = {0};
    if (c->dev) foray_dev_counters(c->dev, now);
    pthread_mutex_lock(&c->lock);
    c->error = error, c->error_desc = error ? desc : 0;
    for (int i = 0; i < FORAY_COUNTER_COUNT; i++) c->counters[i] = c->before[i] + now[i];
    c->busy = false;
    c->control = FORAY_CARD_DONE | FORAY_CARD_IDLE | FORAY_CARD_READY;
    const uint32_t rise = c->irq_enable & 3 & ~c->irq_status;
    c->irq_status |= rise;
    const bool ring = rise && c->irq_global & 1 && c->o.irq;
    pthread_cond_broadcast(&c->changed);
    if (ring) {
      pthread_mutex_unlock(&c->lock);
      c->o.irq(c->o.irq_arg);
      pthread_mutex_lock(&c->lock);
    }
  }
  pthread_mutex_unlock(&c->lock);
  return NULL;
}

enum foray_status foray_card_open(const struct foray_card_opts *o, struct foray_card **out,
                                  struct foray_err *err) {
  *out = NULL;
  if (!o->device || !o->mem || o->mem_bytes == 0 || o->mem_bytes % FORAY_ABI_UNIT ||
      o->mem_base % FORAY_ABI_UNIT || (uintptr_t)o->mem % FORAY_ABI_UNIT ||
      o->mem_base + o->mem_bytes < o->mem_base)
    return foray_err_set(err, FORAY_E_ARG, "card: wants a device and memory in whole units of %d bytes",
                         FORAY_ABI_UNIT);
  struct foray_card *c = calloc(1, sizeof *c);
  if (!c) return foray_err_set(err, FORAY_E_NOMEM, "card");
  c->o = *o;
  c->control = FORAY_CARD_IDLE | FORAY_CARD_READY;
  /* Opened at once, so that a wrong device class is an error of open and SCRATCH_UNITS is known. */
  uint64_t whole = o->mem_bytes < (uint64_t)UINT32_MAX * FORAY_ABI_UNIT ? o->mem_bytes : FORAY_ABI_UNIT;
  enum foray_status st = device_at(c, 0, whole);
  if (st != FORAY_OK) {
    if (err) *err = c->trouble;
    free(c);
    return foray_err_prefix(err, "card");
  }
  c->cols = foray_dev_info(c->dev)->cols_max;
  c->scratch_units = foray_dev_info(c->dev)->scratch_units;
  pthread_mutex_init(&c->lock, NULL);
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&c->changed, &attr);
  pthread_condattr_destroy(&attr);
  if (pthread_create(&c->worker, NULL, work, c)) {
    foray_dev_close(c->dev);
    free(c);
    return foray_err_set(err, FORAY_E_NOMEM, "card: no thread");
  }
  *out = c;
  return FORAY_OK;
}

void foray_card_close(struct foray_card *c) {
  if (!c) return;
  pthread_mutex_lock(&c->lock);
  while (c->busy) pthread_cond_wait(&c->changed, &c->lock);
  c->quit = true;
  pthread_cond_broadcast(&c->changed);
  pthread_mutex_unlock(&c->lock);
  pthread_join(c->worker, NULL);
  foray_dev_close(c->dev);
  pthread_mutex_destroy(&c->lock);
  pthread_cond_destroy(&c->changed);
  free(c);
}

static uint32_t half(uint64_t v, bool high) { return (uint32_t)(high ? v >> 32 : v); }

uint32_t foray_card_read(struct foray_card *c, uint32_t offset) {
  uint32_t v = 0;
  pthread_mutex_lock(&c->lock);
  switch (offset) {
  case FORAY_REG_CONTROL:
    v = c->control;
    c->control &= ~(uint32_t)(FORAY_CARD_DONE | FORAY_CARD_READY);
    break;
  case FORAY_REG_IRQ_GLOBAL: v = c->irq_global; break;
  case FORAY_REG_IRQ_ENABLE: v = c->irq_enable; break;
  case FORAY_REG_IRQ_STATUS: v = c->irq_status; break;
  case FORAY_REG_ARG_HEAP_LO: v = half(c->heap_at, false); break;
  case FORAY_REG_ARG_HEAP_HI: v = half(c->heap_at, true); break;
  case FORAY_REG_ARG_HEAP_UNITS: v = c->heap_units; break;
  case FORAY_REG_ARG_RUN: v = c->run_unit; break;
  case FORAY_REG_TYPE: v = FORAY_TYPE_ID; break;
  case FORAY_REG_VERSION: v = FORAY_ABI_VERSION; break;
  case FORAY_REG_ABI_HASH_LO: v = half(FORAY_ABI_HASH, false); break;
  case FORAY_REG_ABI_HASH_HI: v = half(FORAY_ABI_HASH, true); break;
  case FORAY_REG_BUILD_ID: v = 0x6d6f6465; break; /* "mode": a model, not a bitstream */
  case FORAY_REG_SCRATCH_UNITS: v = c->scratch_units; break;
  case FORAY_REG_STOP: v = c->stop; break;
  case FORAY_REG_COLS: v = c->cols; break;
  case FORAY_REG_ERROR: v = c->error; break;
  case FORAY_REG_ERROR_DESC: v = c->error_desc; break;
  default:
    if (offset >= FORAY_REG_COUNTERS && offset < FORAY_REG_COUNTERS + 8 * FORAY_COUNTER_COUNT &&
        offset % 4 == 0)
      v = half(c->counters[(offset - FORAY_REG_COUNTERS) / 8], offset & 4);
  }
  pthread_mutex_unlock(&c->lock);
  return v;
}

void foray_card_write(struct foray_card *c, uint32_t offset, uint32_t v) {
  pthread_mutex_lock(&c->lock);
  switch (offset) {
  case FORAY_REG_CONTROL:
    if (!(v & FORAY_CARD_START) || c->busy) break;
    c->control = FORAY_CARD_START;
    c->stop = false;
    c->busy = c->asked = true;
    pthread_cond_broadcast(&c->changed);
    break;
  case FORAY_REG_STOP: c->stop = v & 1; break;
  case FORAY_REG_IRQ_GLOBAL: c->irq_global = v & 1; break;
  case FORAY_REG_IRQ_ENABLE: c->irq_enable = v & 3; break;
  case FORAY_REG_IRQ_STATUS: c->irq_status ^= v & 3; break;
  case FORAY_REG_ARG_HEAP_LO: c->heap_at = (c->heap_at & ~(uint64_t)UINT32_MAX) | v; break;
  case FORAY_REG_ARG_HEAP_HI: c->heap_at = (c->heap_at & UINT32_MAX) | (uint64_t)v << 32; break;
  case FORAY_REG_ARG_HEAP_UNITS: c->heap_units = v; break;
  case FORAY_REG_ARG_RUN: c->run_unit = v; break;
  default: break;
  }
  pthread_mutex_unlock(&c->lock);
}

bool foray_card_wait(struct foray_card *c, int ms) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += ms / 1000;
  until.tv_nsec += (long)(ms % 1000) * 1000000;
  if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
  pthread_mutex_lock(&c->lock);
  int rc = 0;
  while (c->busy && rc != ETIMEDOUT) rc = pthread_cond_timedwait(&c->changed, &c->lock, &until);
  const bool idle = !c->busy;
  pthread_mutex_unlock(&c->lock);
  return idle;
}

const char *foray_card_trouble(struct foray_card *c) { return c->trouble.msg; }

/* ---- a window in shared memory ---- */

static void publish(struct foray_card *c, volatile uint32_t *w) {
  for (uint32_t at = FORAY_REG_TYPE; at < FORAY_REG_COUNTERS + 8 * FORAY_COUNTER_COUNT; at += 4)
    w[at / 4] = foray_card_read(c, at);
}

void foray_card_serve(struct foray_card *c, volatile uint32_t *w, const atomic_bool *stop) {
  static const uint32_t args[] = {FORAY_REG_IRQ_GLOBAL,  FORAY_REG_IRQ_ENABLE,     FORAY_REG_ARG_HEAP_LO,
                                  FORAY_REG_ARG_HEAP_HI, FORAY_REG_ARG_HEAP_UNITS, FORAY_REG_ARG_RUN};
  const struct timespec nap = {0, 50000};
  publish(c, w);
  w[FORAY_REG_CONTROL / 4] = FORAY_CARD_IDLE | FORAY_CARD_READY;
  while (!atomic_load(stop)) {
    if (!(w[FORAY_REG_CONTROL / 4] & FORAY_CARD_START) || w[FORAY_REG_CONTROL / 4] == UINT32_MAX) {
      nanosleep(&nap, NULL);
      continue;
    }
    atomic_thread_fence(memory_order_acquire);
    for (size_t i = 0; i < sizeof args / sizeof *args; i++) foray_card_write(c, args[i], w[args[i] / 4]);
    foray_card_write(c, FORAY_REG_IRQ_STATUS, foray_card_read(c, FORAY_REG_IRQ_STATUS)); /* taken */
    foray_card_write(c, FORAY_REG_CONTROL, FORAY_CARD_START);
    w[FORAY_REG_STOP / 4] = 0;
    while (!foray_card_wait(c, 1))
      if (w[FORAY_REG_STOP / 4] & 1) foray_card_write(c, FORAY_REG_STOP, 1);
    publish(c, w);
    atomic_thread_fence(memory_order_release);
    w[FORAY_REG_CONTROL / 4] = foray_card_read(c, FORAY_REG_CONTROL);
  }
}
