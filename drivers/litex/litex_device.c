/* Device `litex`: a LiteX board over a serial line or Ethernet.
 *   litex:/dev/ttyUSB0,map=build/boards/ulx3s/foray-map.json
 *   litex:udp://192.168.1.50,map=FILE
 * Without `map` the file is taken from $FORAY_LITEX_MAP. The SoC has no processor, so the memory is brought
 * up from here. */
#include "cardhost/cardhost.h"
#include "dev/plugin.h"
#include "litex/bus.h"
#include "litex/map.h"

#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DFII_HARDWARE = 1 /* bit 0 of the control CSR: the controller has the memory, else we have */ };

struct soc {
  struct foray_litex_bus bus;
  struct foray_litex_map map;
};

static enum foray_status reg_read(void *self, uint32_t offset, uint32_t *v, struct foray_err *err) {
  struct soc *s = self;
  return s->bus.read(s->bus.self, s->map.foray + offset, v, 1, err);
}
static enum foray_status reg_write(void *self, uint32_t offset, uint32_t v, struct foray_err *err) {
  struct soc *s = self;
  return s->bus.write(s->bus.self, s->map.foray + offset, &v, 1, err);
}

enum { PIECE = 1024 /* words moved through an aligned buffer */ };

/* The bus moves words: bytes in front of and behind them come along, and are written back as they were. */
static enum foray_status mem_move(struct soc *s, uint64_t at, uint8_t *to, const uint8_t *from,
                                  uint64_t bytes, struct foray_err *err) {
  uint32_t w[PIECE];
  while (bytes) {
    const uint64_t skip = at % 4, room = sizeof w - skip, n = bytes < room ? bytes : room;
    const uint32_t base = (uint32_t)(s->map.ram + at - skip);
    const size_t words = (size_t)((skip + n + 3) / 4);
    enum foray_status st = FORAY_OK;
    if (to || skip) st = s->bus.read(s->bus.self, base, w, to ? words : 1, err);
    if (!st && from && (skip + n) % 4 && words > (skip ? 1 : 0))
      st = s->bus.read(s->bus.self, base + 4 * (uint32_t)(words - 1), w + words - 1, 1, err);
    if (st) return st;
    if (to) memcpy(to, (uint8_t *)w + skip, (size_t)n);
    if (from) {
      memcpy((uint8_t *)w + skip, from, (size_t)n);
      if ((st = s->bus.write(s->bus.self, base, w, words, err))) return st;
    }
    to = to ? to + n : NULL, from = from ? from + n : NULL;
    at += n, bytes -= n;
  }
  return FORAY_OK;
}
static enum foray_status mem_read(void *self, uint64_t at, void *to, uint64_t bytes, struct foray_err *err) {
  return mem_move(self, at, to, NULL, bytes, err);
}
static enum foray_status mem_write(void *self, uint64_t at, const void *from, uint64_t bytes,
                                   struct foray_err *err) {
  return mem_move(self, at, NULL, from, bytes, err);
}

static void soc_close(void *self) {
  struct soc *s = self;
  if (s->bus.close) s->bus.close(s->bus.self);
  free(s);
}

/* ---------------------------------------------------------------- memory */
static void pause_cycles(const struct foray_litex_map *m, uint32_t cycles) {
  const uint64_t ns = (uint64_t)cycles * 1000000000u / m->clock_hz + 1000;
  const struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  (void)nanosleep(&t, NULL);
}

/* Takes the memory from the controller, sends the commands of its data sheet, gives it back (LiteDRAM's
 * "software control" and "hardware control"). Done only when the controller does not have it yet: a second
 * process must not disturb the first. */
static enum foray_status bring_up(struct soc *s, struct foray_err *err) {
  const struct foray_litex_map *m = &s->map;
  const struct foray_litex_bus *b = &s->bus;
  if (!m->n_steps) return FORAY_OK;
  uint32_t control;
  enum foray_status st = b->read(b->self, m->control, &control, 1, err);
  if (st || (control & DFII_HARDWARE)) return st;
  if (strcmp(m->memory, "SDR") != 0)
    return foray_err_set(
        err, FORAY_E_UNSUPPORTED,
        "%s: its %s memory needs its read delays trained, which this driver does not do: use a SoC with a "
        "processor that trains it at start",
        m->board, m->memory);
  for (int i = 0; i < m->n_steps && !st; i++) {
    const struct foray_litex_step *k = &m->steps[i];
    const uint32_t value[][2] = {
        {m->address, k->address}, {m->bank, k->bank}, {m->command, k->command}, {m->issue, 1}};
    if (k->control) st = b->write(b->self, m->control, &k->control, 1, err);
    for (size_t v = 0; v < 4 && !st && k->command; v++)
      st = b->write(b->self, value[v][0], &value[v][1], 1, err);
    pause_cycles(m, k->delay_cycles);
  }
  const uint32_t hardware = DFII_HARDWARE;
  if (!st) st = b->write(b->self, m->control, &hardware, 1, err);
  return st;
}

/* A word at 0, at each power of two and at the end, all different and then all inverted: finds missing
 * address lines, a memory that is smaller than said, and one that was not brought up. */
static enum foray_status memory_holds(struct soc *s, struct foray_err *err) {
  uint32_t at[40];
  int n = 0;
  at[n++] = 0;
  for (uint32_t a = 4; a && a < s->map.ram_bytes - 4; a <<= 1) at[n++] = a;
  at[n++] = s->map.ram_bytes - 4;
  for (uint32_t flip = 0; flip < 2; flip++) {
    for (int i = 0; i < 2 * n; i++) { /* all writes, then all reads */
      const uint32_t where = at[i % n],
                     want = ((uint32_t)(i % n) * 0x9E3779B9u + 0x5bd1e995u) ^ (flip ? UINT32_MAX : 0);
      uint32_t v = want;
      enum foray_status st = i < n ? s->bus.write(s->bus.self, s->map.ram + where, &v, 1, err)
                                   : s->bus.read(s->bus.self, s->map.ram + where, &v, 1, err);
      if (st) return st;
      if (v != want)
        return foray_err_set(err, FORAY_E_DEVICE,
                             "%s: memory at 0x%x of 0x%x bytes holds 0x%08x instead of 0x%08x: it is smaller "
                             "than said, or not "
                             "initialised",
                             s->map.board, (unsigned)where, (unsigned)s->map.ram_bytes, (unsigned)v,
                             (unsigned)want);
    }
  }
  return FORAY_OK;
}

/* ---------------------------------------------------------------- class */
/* "WHERE,map=FILE" */
static enum foray_status split(const char *detail, char where[256], char map[1024], struct foray_err *err) {
  const char *comma = strchr(detail, ',');
  const size_t n = comma ? (size_t)(comma - detail) : strlen(detail);
  const char *env = getenv("FORAY_LITEX_MAP"), *file = env ? env : "";
  if (comma && strncmp(comma, ",map=", 5) != 0)
    return foray_err_set(err, FORAY_E_ARG, "litex: '%s': only ,map=FILE may follow the place", comma);
  if (comma) file = comma + 5;
  if (n == 0 || n >= 256 || strlen(file) >= 1024)
    return foray_err_set(err, FORAY_E_ARG, "litex: '%.80s' is no place", detail);
  if (!*file)
    return foray_err_set(err, FORAY_E_ARG,
                         "litex: say where the SoC's map is, "
                         "litex:%.*s,map=build/boards/BOARD/foray-map.json or FORAY_LITEX_MAP",
                         (int)n, detail);
  memcpy(where, detail, n);
  where[n] = 0;
  snprintf(map, 1024, "%s", file);
  return FORAY_OK;
}

static const char *describe(const char *detail, struct foray_dev_info *info) {
  *info = (struct foray_dev_info){.abi_hash = FORAY_ABI_HASH, .cols_max = 1, .scratch_units = 1};
  snprintf(info->name, sizeof info->name, "litex%s%.20s", *detail ? ":" : "", detail);
  snprintf(info->about, sizeof info->about, "LiteX board over a serial line or Ethernet");
  return *detail
             ? NULL
             : "name the board: litex:/dev/ttyUSB0,map=FILE or litex:udp://HOST,map=FILE (docs/boards.md)";
}

static enum foray_status open_litex(const char *detail, const struct foray_dev_opts *opts,
                                    struct foray_dev_info *info, void **self, struct foray_err *err) {
  char where[256], file[1024];
  struct soc *s = calloc(1, sizeof *s);
  if (!s) return foray_err_set(err, FORAY_E_NOMEM, "litex");
  enum foray_status st = split(detail, where, file, err);
  if (!st) st = foray_litex_map_read(file, &s->map, err);
  if (!st && opts->heap_bytes > s->map.ram_bytes)
    st = foray_err_set(err, FORAY_E_LIMIT, "%s: %llu bytes are needed, it has %u", s->map.board,
                       (unsigned long long)opts->heap_bytes, (unsigned)s->map.ram_bytes);
  if (!st) st = foray_litex_bus_open(where, &s->bus, err);
  const struct foray_bus bus = {.arg = s,
                                .read32 = reg_read,
                                .write32 = reg_write,
                                .mem_read = mem_read,
                                .mem_write = mem_write,
                                .close = soc_close};
  struct foray_cardhost_id id; /* first of all: a stranger's memory is not touched */
  if (!st) st = foray_cardhost_identify(&bus, where, &id, err);
  if (!st) st = bring_up(s, err);
  if (!st) st = memory_holds(s, err);
  const struct foray_cardhost_opts o = {.where = where,
                                        .mem_base = s->map.ram,
                                        .mem_bytes = s->map.ram_bytes,
                                        .heap_bytes = opts->heap_bytes,
                                        .poll_us = 20000};
  struct foray_cardhost *h;
  if (!st) st = foray_cardhost_open(&bus, &o, &h, err);
  if (st) {
    soc_close(s);
    return st;
  }
  foray_cardhost_info(h, info);
  snprintf(info->about, sizeof info->about, "LiteX %s, configuration %s, %u MB of %s memory", s->map.board,
           s->map.config, (unsigned)(s->map.ram_bytes >> 20), s->map.memory);
  *self = h;
  return FORAY_OK;
}

static void close_litex(void *self) { foray_cardhost_close(self); }
static enum foray_status upload(void *self, uint64_t addr, const void *src, uint64_t bytes,
                                struct foray_err *err) {
  return foray_cardhost_upload(self, addr, src, bytes, err);
}
static enum foray_status download(void *self, uint64_t addr, void *dst, uint64_t bytes,
                                  struct foray_err *err) {
  return foray_cardhost_download(self, addr, dst, bytes, err);
}
static enum foray_status run(void *self, uint32_t unit, uint32_t deadline_ms, struct foray_dev_result *res,
                             struct foray_err *err) {
  return foray_cardhost_run(self, unit, deadline_ms, res, err);
}
static void counters(void *self, uint64_t out[FORAY_COUNTER_COUNT]) { foray_cardhost_counters(self, out); }

static const struct foray_dev_class class_litex = {
    .name = "litex",
    .describe = describe,
    .open = open_litex,
    .close = close_litex,
    .upload = upload,
    .download = download,
    .run = run,
    .counters = counters,
};
const struct foray_dev_plugin foray_dev_plugin = {FORAY_DEV_PLUGIN_VERSION, FORAY_ABI_HASH, &class_litex};
