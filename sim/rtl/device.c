#include "sim.h"

#include "dev/plugin.h"
#include "dev/trace.h"

#include "core/args.h"
#include "core/clock.h"
#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef FORAY_SIM_STUB
#include "sim/stub/stub.h"
#endif

/* Configurations that may be built in (sim/sim.mk). */
extern const struct foray_sim_model foray_sim_model_tiny __attribute__((weak));
extern const struct foray_sim_model foray_sim_model_mid __attribute__((weak));
extern const struct foray_sim_model foray_sim_model_mid8 __attribute__((weak));
extern const struct foray_sim_model foray_sim_model_big __attribute__((weak));

/* Where the heap lies on the bus: above 32 bits, so that a lost upper half is seen. */
#define HEAP_BASE UINT64_C(0x500000000)

enum { CHECK_EVERY = 4096 /* cycles between two looks at the clock */, LITE_TIMEOUT = 1000 };

struct sim {
  const struct foray_sim_model *model;
  void *top;
  struct foray_mem *mem;
  uint8_t *heap;
  uint64_t heap_bytes;
  struct foray_sim_in in;
  struct foray_sim_out out;
  uint64_t cycles;
  int64_t reset_at, again_at; /* cycles after the doorbell; 0: never */
  struct foray_dev_trace trace;
  uint64_t owner[13], mark_owner[13],
      mark_at; /* cycles by owner since open, at the last op, and when that was */
  struct foray_mem_stats mark_mem;
  uint32_t ring_unit, ring_slots, ring_head; /* of the run, for TOKEN events */
};

struct choice {
  const struct foray_sim_model *model;
  struct foray_mem_cfg mem;
  int64_t reset_at, again_at;
};

/* detail = text after "sim:". NULL, or why it cannot be. */
static const char *choose(const char *detail, struct choice *c) {
  const struct foray_sim_model *const all[] = {&foray_sim_model_mid, &foray_sim_model_tiny,
                                               &foray_sim_model_mid8, &foray_sim_model_big};
  memset(c, 0, sizeof *c);
  (void)foray_mem_preset("ideal", &c->mem);
  char copy[256];
  if (snprintf(copy, sizeof copy, "%s", detail) >= (int)sizeof copy) return "its options are too long";
  char *save = NULL, *word = strtok_r(copy, ",", &save);
  const char *name = "mid";
  if (word && !strchr(word, '=')) name = word, word = strtok_r(NULL, ",", &save);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i] && !strcmp(all[i]->name, name)) c->model = all[i];
  if (!c->model) return "this configuration is not built in (make SIM_CONFIGS=...)";
  uint32_t mhz = 300, stall = 0, jitter = 0, seed = 1, bad_read = 0, bad_write = 0, dead = 0,
           dead_for = 1 << 30;
  for (; word; word = strtok_r(NULL, ",", &save)) {
    char *value = strchr(word, '=');
    if (!value) return "an option has no value: key=value";
    *value++ = 0;
    if (!strcmp(word, "mem")) {
      if (!foray_mem_preset(value, &c->mem)) return "no such memory: ideal, ddr4, lpddr4, sdr, hbm";
      continue;
    }
    char *end;
    unsigned long v = strtoul(value, &end, 10);
    if (*end || end == value || v > 1u << 30) return "an option wants a number";
    const struct {
      const char *key;
      uint32_t *to;
    } keys[] = {{"mhz", &mhz},   {"stall", &stall},      {"jitter", &jitter},
                {"seed", &seed}, {"badread", &bad_read}, {"badwrite", &bad_write},
                {"dead", &dead}, {"deadfor", &dead_for}};
    bool known = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
      if (!strcmp(word, keys[i].key)) *keys[i].to = (uint32_t)v, known = true;
    if (!strcmp(word, "resetat")) c->reset_at = (int64_t)v, known = true;
    if (!strcmp(word, "again")) c->again_at = (int64_t)v, known = true;
    if (!known) return "unknown option (sim/rtl/sim.h)";
  }
  if (mhz == 0 || stall > 95) return "mhz is 0 or stall above 95";
  c->mem.ports = c->model->ports, c->mem.port_bytes = c->model->port_bytes, c->mem.core_mhz = mhz;
  c->mem.stall = stall, c->mem.jitter = jitter, c->mem.seed = seed;
  c->mem.bad_read = bad_read, c->mem.bad_write = bad_write, c->mem.dead_after = dead,
  c->mem.dead_for = dead_for;
  return NULL;
}

static const char *describe(const char *detail, struct foray_dev_info *info) {
  struct choice c;
  const char *why = choose(detail, &c);
  *info = (struct foray_dev_info){.abi_hash = FORAY_ABI_HASH, .ns_busy = false};
  (void)snprintf(info->name, sizeof info->name, "sim%s%s", *detail ? ":" : "", detail);
  (void)snprintf(info->about, sizeof info->about, "Verilated RTL%s%s, memory %s, cycles not seconds",
                 c.model ? ", configuration " : "", c.model ? c.model->name : "", c.mem.name);
  if (why) return why;
  info->scratch_units = c.model->scratch_units;
  info->cols_max = c.model->cols;
  return NULL;
}

/* ---- clock ---- */

static void report(struct sim *s);

static void cycle(struct sim *s) {
  foray_mem_cycle(s->mem, &s->out.mem, &s->in.mem);
  s->model->cycle(s->top, &s->in, &s->out);
  s->cycles++;
  if (s->trace.event) {
    if (s->out.cycle) s->owner[__builtin_ctz(s->out.cycle)]++;
    if (s->out.trace.op || s->out.trace.pass || s->out.trace.token) report(s);
  }
}

static void reset(struct sim *s) {
  memset(&s->in, 0, sizeof s->in);
  foray_mem_reset(s->mem);
  for (int i = 0; i < 8; i++) {
    s->model->cycle(s->top, &s->in, &s->out);
    s->cycles++;
  }
  s->in.rst_n = true;
  cycle(s);
}

static bool reg_write(struct sim *s, uint32_t reg, uint32_t v) {
  bool aw = false, w = false;
  s->in.awvalid = s->in.wvalid = s->in.bready = true;
  s->in.awaddr = (uint16_t)reg, s->in.wdata = v;
  for (int i = 0; i < LITE_TIMEOUT; i++) {
    bool ga = s->in.awvalid && s->out.awready, gw = s->in.wvalid && s->out.wready, b = s->out.bvalid;
    cycle(s);
    if (ga) aw = true, s->in.awvalid = false;
    if (gw) w = true, s->in.wvalid = false;
    if (b && aw && w) {
      s->in.bready = false;
      return true;
    }
  }
  return false;
}

static bool reg_read(struct sim *s, uint32_t reg, uint32_t *v) {
  s->in.arvalid = s->in.rready = true;
  s->in.araddr = (uint16_t)reg;
  for (int i = 0; i < LITE_TIMEOUT; i++) {
    bool ga = s->in.arvalid && s->out.arready, r = s->out.rvalid;
    if (r) *v = s->out.rdata;
    cycle(s);
    if (ga) s->in.arvalid = false;
    if (r) {
      s->in.rready = false;
      return true;
    }
  }
  return false;
}

/* ---- class ---- */

static void close_sim(void *self) {
  struct sim *s = self;
  if (!s) return;
  if (s->top) s->model->close(s->top);
  foray_mem_free(s->mem);
  if (s->heap) munmap(s->heap, (size_t)s->heap_bytes);
  free(s);
}

static enum foray_status open_sim(const char *detail, const struct foray_dev_opts *opts,
                                  struct foray_dev_info *info, void **self, struct foray_err *err) {
  struct choice c;
  const char *why = choose(detail, &c);
  if (why) return foray_err_set(err, FORAY_E_ARG, "sim:%s: %s", detail, why);
  uint64_t bytes = opts->heap_bytes ? opts->heap_bytes : 64u << 20;
  if (bytes > (uint64_t)UINT32_MAX * FORAY_ABI_UNIT - FORAY_ABI_UNIT || bytes > SIZE_MAX / 2)
    return foray_err_set(err, FORAY_E_LIMIT, "device heap of %llu bytes is more than 32-bit units can name",
                         (unsigned long long)bytes);
  bytes = foray_dev_up(bytes, FORAY_ABI_UNIT);
  struct sim *s = calloc(1, sizeof *s);
  if (!s) return foray_err_set(err, FORAY_E_NOMEM, "sim");
  s->model = c.model;
  s->heap_bytes = bytes;
  s->reset_at = c.reset_at, s->again_at = c.again_at;
  void *p =
      mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  s->heap = p == MAP_FAILED ? NULL : p;
  if (s->heap) s->mem = foray_mem_new(&c.mem, s->heap, bytes, HEAP_BASE);
  s->top = c.model->open();
  if (!s->heap || !s->mem || !s->top) {
    close_sim(s);
    return foray_err_set(err, FORAY_E_NOMEM, "sim: heap of %llu bytes", (unsigned long long)bytes);
  }
#ifdef FORAY_SIM_STUB
  foray_stub_bind(s->heap, bytes);
#endif
  reset(s);
  uint32_t type = 0, lo = 0, hi = 0;
  if (!reg_read(s, FORAY_REG_TYPE, &type) || !reg_read(s, FORAY_REG_ABI_HASH_LO, &lo) ||
      !reg_read(s, FORAY_REG_ABI_HASH_HI, &hi) || type != FORAY_TYPE_ID) {
    close_sim(s);
    return foray_err_set(err, FORAY_E_DEVICE, "sim: the registers do not answer");
  }
  info->abi_hash = (uint64_t)hi << 32 | lo;
  info->heap_bytes = bytes;
  *self = s;
  return FORAY_OK;
}

static enum foray_status upload(void *self, uint64_t addr, const void *src, uint64_t bytes,
                                struct foray_err *err) {
  struct sim *s = self;
  (void)err;
  if (bytes) memcpy(s->heap + addr, src, (size_t)bytes);
  return FORAY_OK;
}

static enum foray_status download(void *self, uint64_t addr, void *dst, uint64_t bytes,
                                  struct foray_err *err) {
  struct sim *s = self;
  (void)err;
  if (bytes) memcpy(dst, s->heap + addr, (size_t)bytes);
  return FORAY_OK;
}

static void counters(void *self, uint64_t out[FORAY_COUNTER_COUNT]) {
  struct sim *s = self;
  for (uint32_t i = 0; i < FORAY_COUNTER_COUNT; i++) {
    uint32_t lo = 0, hi = 0;
    (void)reg_read(s, FORAY_REG_COUNTERS + 8 * i, &lo);
    (void)reg_read(s, FORAY_REG_COUNTERS + 8 * i + 4, &hi);
    out[i] = (uint64_t)hi << 32 | lo;
  }
}

static uint32_t word(const struct sim *s, uint64_t unit, uint32_t i) {
  uint32_t v = 0;
  if (unit * FORAY_ABI_UNIT + 4 * (uint64_t)i + 4 <= s->heap_bytes)
    memcpy(&v, s->heap + unit * FORAY_ABI_UNIT + 4 * (size_t)i, 4);
  return v;
}

static enum foray_status run(void *self, uint32_t run_unit, uint32_t deadline_ms,
                             struct foray_dev_result *res, struct foray_err *err) {
  struct sim *s = self;
  memset(res, 0, sizeof *res);
  int64_t limit = deadline_ms ? foray_clock_ns() + (int64_t)deadline_ms * 1000000 : 0;
  uint64_t at = (uint64_t)run_unit * FORAY_ABI_UNIT;
  bool block = run_unit && at + FORAY_RUN_BYTES <= s->heap_bytes;
  /* what a refused run does not write must not be read as its result */
  if (block) memset(s->heap + at + 4 * 112, 0, 4 * 6);
  s->ring_unit = word(s, run_unit, 8), s->ring_slots = word(s, run_unit, 9),
  s->ring_head = word(s, run_unit, 10);
  s->mark_at = s->cycles;
  bool ok = reg_write(s, FORAY_REG_ARG_HEAP_LO, (uint32_t)HEAP_BASE) &&
            reg_write(s, FORAY_REG_ARG_HEAP_HI, (uint32_t)(HEAP_BASE >> 32)) &&
            reg_write(s, FORAY_REG_ARG_HEAP_UNITS, (uint32_t)(s->heap_bytes / FORAY_ABI_UNIT)) &&
            reg_write(s, FORAY_REG_ARG_RUN, run_unit) && reg_write(s, FORAY_REG_IRQ_GLOBAL, 1) &&
            reg_write(s, FORAY_REG_IRQ_ENABLE, 1) && reg_write(s, FORAY_REG_CONTROL, 1);
  uint64_t begun = s->cycles;
  bool stopped = false, again = false;
  while (ok && (!s->out.irq || again)) {
    if (s->out.irq) { /* the first of two doorbells is through */
      again = false;
      ok = reg_write(s, FORAY_REG_IRQ_STATUS, 1);
      continue;
    }
    cycle(s);
    if (s->again_at && s->cycles - begun == (uint64_t)s->again_at) {
      s->again_at = 0;
      again = true;
      ok = reg_write(s, FORAY_REG_CONTROL, 1);
    }
    if (s->reset_at && s->cycles - begun == (uint64_t)s->reset_at) {
      s->reset_at = 0;
      reset(s);
      return foray_err_set(err, FORAY_E_DEVICE, "sim: reset in the middle of a run");
    }
    if (limit && !stopped && (s->cycles - begun) % CHECK_EVERY == 0 && foray_clock_ns() > limit) {
      stopped = true;
      ok = reg_write(s, FORAY_REG_STOP, 1);
    }
  }
  uint32_t v;
  ok = ok && reg_write(s, FORAY_REG_IRQ_STATUS, 1) && reg_read(s, FORAY_REG_CONTROL, &v) &&
       reg_read(s, FORAY_REG_ERROR, &res->error) && reg_read(s, FORAY_REG_ERROR_DESC, &res->error_desc);
  if (!ok) return foray_err_set(err, FORAY_E_DEVICE, "sim: a register does not answer");
  if (block) {
    res->drafted = word(s, run_unit, 114), res->len = word(s, run_unit, 115);
    res->stop = word(s, run_unit, 116), res->dumped = word(s, run_unit, 117);
  }
  if (res->error) res->stop = FORAY_STOP_ERROR;
#ifdef FORAY_SIM_STUB
  if (foray_stub_wrong()) return foray_err_set(err, FORAY_E_DEVICE, "sim: the units were given wrong data");
#endif
  return FORAY_OK;
}

/* ---- trace ---- */

static void set_trace(void *self, const struct foray_dev_trace *t) {
  struct sim *s = self;
  s->trace = *t;
  memcpy(s->mark_owner, s->owner, sizeof s->owner);
  s->mark_mem = *foray_mem_stats(s->mem);
  s->mark_at = s->cycles;
}

static void report(struct sim *s) {
  const struct foray_sim_trace *t = &s->out.trace;
  struct foray_trace_event e = {
      .begin = s->mark_at,
      .end = s->cycles,
      .desc = UINT32_MAX,
      .segment = t->seg,
      .exit = t->in_test ? t->exit : UINT32_MAX,
      .columns = t->columns,
      .position = t->position,
  };
  if (t->op) {
    e.kind = FORAY_TRACE_OP;
    e.desc = t->desc;
    e.op = t->opcode;
    e.engine = foray_engine_of(t->opcode);
    e.has_engines = true;
    static const enum foray_engine of[4] = {FORAY_ENGINE_MATRIX, FORAY_ENGINE_ATTENTION, FORAY_ENGINE_VECTOR,
                                            FORAY_ENGINE_EXIT};
    e.engines[FORAY_ENGINE_CONTROL].busy = s->owner[0] - s->mark_owner[0];
    for (int u = 0; u < 4; u++)
      e.engines[of[u]] = (struct foray_trace_engine){s->owner[1 + 3 * u] - s->mark_owner[1 + 3 * u],
                                                     s->owner[2 + 3 * u] - s->mark_owner[2 + 3 * u],
                                                     s->owner[3 + 3 * u] - s->mark_owner[3 + 3 * u]};
    const struct foray_mem_stats *m = foray_mem_stats(s->mem);
    e.beats = (m->read_bytes - s->mark_mem.read_bytes) / s->model->port_bytes;
    e.row_misses = m->row_misses - s->mark_mem.row_misses;
    e.port_bytes = s->model->port_bytes * s->model->ports;
    memcpy(s->mark_owner, s->owner, sizeof s->owner);
    s->mark_mem = *m;
    s->mark_at = s->cycles;
  } else if (t->token) {
    struct foray_rec_ring r;
    uint32_t slots = s->ring_slots ? s->ring_slots : 1;
    uint64_t slot = ((uint64_t)s->ring_head + t->entry) % slots,
             at = (s->ring_unit + 2 * slot) * FORAY_ABI_UNIT;
    uint32_t w[FORAY_ABI_RING_WORDS] = {0};
    if (at + sizeof w <= s->heap_bytes) memcpy(w, s->heap + at, sizeof w);
    foray_rec_ring_unpack(w, &r);
    e.kind = FORAY_TRACE_TOKEN, e.begin = s->cycles, e.exit = r.exit, e.columns = 1, e.position = r.position;
    e.engine = FORAY_ENGINE_EXIT, e.ring = &r;
    s->trace.event(s->trace.arg, &e);
    return;
  } else
    e.kind = FORAY_TRACE_PASS;
  s->trace.event(s->trace.arg, &e);
}

const struct foray_dev_class foray_dev_class_sim = {
    .name = "sim",
    .describe = describe,
    .open = open_sim,
    .close = close_sim,
    .upload = upload,
    .download = download,
    .run = run,
    .counters = counters,
    .trace = set_trace,
};

const struct foray_dev_plugin foray_dev_plugin = {FORAY_DEV_PLUGIN_VERSION, FORAY_ABI_HASH,
                                                  &foray_dev_class_sim};
