/* Device `hls`: the HLS kernels (hls/kernels), compiled natively, behind the device interface. Heap and
 * scratchpad are host memory; the kernels see them as they see a board's. */
#include "dev/plugin.h"

#include "core/clock.h"
#include "core/err.h"
#include "include/hls_program.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "heap bytes are little-endian words");

enum { HEAP_DEFAULT = 64 << 20, MARKS = 2 };

struct hls {
  uint8_t *heap;
  uint64_t heap_bytes;
  foray_word *scratch;
  struct hls_machine *machine;
  struct foray_dev_trace trace;
  int64_t deadline_ns;
  const _Atomic bool *stop; /* NULL: none */
  /* what was counted when the open descriptor (0) and pass (1) began */
  struct {
    uint64_t begin, counter[FORAY_COUNTER_COUNT];
  } mark[MARKS];
};

/* Whose run the calling thread is in: the kernels have no argument for it. */
static _Thread_local struct hls *running;

int foray_hls_expired(void) {
  if (!running) return 0;
  if (running->stop && *running->stop) return 1;
  return running->deadline_ns && foray_clock_ns() > running->deadline_ns;
}

void foray_hls_begin(int pass) {
  if (!running || !running->trace.event) return;
  running->mark[pass].begin = (uint64_t)foray_clock_ns();
  memcpy(running->mark[pass].counter, running->machine->counter, sizeof running->mark[pass].counter);
}

void foray_hls_end(int pass, uint32_t desc, uint32_t op, uint32_t segment, uint32_t exit, uint32_t columns,
                   uint32_t position) {
  if (!running || !running->trace.event) return;
  struct foray_trace_event e = {.kind = pass ? FORAY_TRACE_PASS : FORAY_TRACE_OP,
                                .begin = running->mark[pass].begin,
                                .end = (uint64_t)foray_clock_ns(),
                                .desc = desc,
                                .op = op,
                                .segment = segment,
                                .exit = exit,
                                .columns = columns,
                                .position = position,
                                .engine = foray_engine_of(op)};
  for (int i = 0; i < FORAY_COUNTER_COUNT; i++)
    e.counter[i] = running->machine->counter[i] - running->mark[pass].counter[i];
  running->trace.event(running->trace.arg, &e);
}

void foray_hls_token(uint32_t segment, const struct foray_rec_ring *r) {
  if (!running || !running->trace.event) return;
  uint64_t now = (uint64_t)foray_clock_ns();
  running->trace.event(running->trace.arg, &(struct foray_trace_event){.kind = FORAY_TRACE_TOKEN,
                                                                       .begin = now,
                                                                       .end = now,
                                                                       .desc = UINT32_MAX,
                                                                       .segment = segment,
                                                                       .exit = r->exit,
                                                                       .columns = 1,
                                                                       .position = r->position,
                                                                       .engine = FORAY_ENGINE_EXIT,
                                                                       .ring = r});
}

static const char *describe(const char *detail, struct foray_dev_info *info) {
  *info = (struct foray_dev_info){.name = "hls",
                                  .about = "the HLS C kernels of hls/kernels, compiled natively, one thread",
                                  .abi_hash = FORAY_ABI_HASH,
                                  .scratch_units = FORAY_HLS_SCRATCH_UNITS,
                                  .cols_max = FORAY_HLS_COLS,
                                  .ns_busy = true};
  return *detail ? "takes no detail after the colon" : NULL;
}

static void close_hls(void *self) {
  struct hls *h = self;
  if (!h) return;
  foray_soft_heap_unmap(h->heap, h->heap_bytes);
  free(h->scratch);
  free(h->machine);
  free(h);
}

static enum foray_status open_hls(const char *detail, const struct foray_dev_opts *opts,
                                  struct foray_dev_info *info, void **self, struct foray_err *err) {
  (void)detail;
  uint64_t bytes = opts->heap_bytes ? opts->heap_bytes : HEAP_DEFAULT;
  if (bytes > (uint64_t)UINT32_MAX * FORAY_ABI_UNIT - FORAY_ABI_UNIT || bytes > SIZE_MAX / 2)
    return foray_err_set(err, FORAY_E_LIMIT, "device heap of %llu bytes is more than 32-bit units can name",
                         (unsigned long long)bytes);
  bytes = foray_dev_up(bytes, FORAY_ABI_UNIT);
  struct hls *h = calloc(1, sizeof *h);
  if (!h) return foray_err_set(err, FORAY_E_NOMEM, "device");
  h->stop = opts->stop;
  h->heap_bytes = bytes;
  h->heap = foray_soft_heap_map(bytes);
  h->scratch = calloc((size_t)FORAY_HLS_SCRATCH_UNITS, FORAY_ABI_UNIT);
  h->machine = calloc(1, sizeof *h->machine);
  if (!h->heap || !h->scratch || !h->machine) {
    close_hls(h);
    return foray_err_set(err, FORAY_E_NOMEM, "device heap of %llu bytes", (unsigned long long)bytes);
  }
  info->heap_bytes = bytes;
  *self = h;
  return FORAY_OK;
}

static enum foray_status upload(void *self, uint64_t addr, const void *src, uint64_t bytes,
                                struct foray_err *err) {
  struct hls *h = self;
  (void)err;
  if (bytes) memcpy(h->heap + addr, src, (size_t)bytes);
  return FORAY_OK;
}

static enum foray_status download(void *self, uint64_t addr, void *dst, uint64_t bytes,
                                  struct foray_err *err) {
  struct hls *h = self;
  (void)err;
  if (bytes) memcpy(dst, h->heap + addr, (size_t)bytes);
  return FORAY_OK;
}

static enum foray_status run(void *self, uint32_t run_unit, uint32_t deadline_ms,
                             struct foray_dev_result *res, struct foray_err *err) {
  struct hls *h = self;
  struct hls_machine *m = h->machine;
  (void)err;
  int64_t begun = foray_clock_ns();
  uint64_t before[FORAY_COUNTER_COUNT];
  memcpy(before, m->counter, sizeof before);
  h->deadline_ns = deadline_ms ? begun + (int64_t)deadline_ms * 1000000 : 0;
  running = h;
  hls_run((foray_word *)(void *)h->heap, h->scratch, (uint32_t)(h->heap_bytes / FORAY_ABI_UNIT), run_unit, m);
  running = NULL;
  *res = (struct foray_dev_result){.error = m->res.error,
                                   .error_desc = m->res.error_desc,
                                   .drafted = m->res.drafted,
                                   .len = m->res.len,
                                   .stop = m->res.stop,
                                   .dumped = m->res.dumped};
  int64_t ended = foray_clock_ns();
  m->counter[FORAY_COUNTER_BUSY] += (uint64_t)(ended - begun);
  if (h->trace.event) {
    struct foray_trace_event e = {.kind = FORAY_TRACE_RUN,
                                  .begin = (uint64_t)begun,
                                  .end = (uint64_t)ended,
                                  .desc = UINT32_MAX,
                                  .segment = UINT32_MAX,
                                  .exit = UINT32_MAX,
                                  .columns = m->c.run.feed_n,
                                  .position = m->c.run.start,
                                  .engine = FORAY_ENGINE_CONTROL};
    for (int i = 0; i < FORAY_COUNTER_COUNT; i++) e.counter[i] = m->counter[i] - before[i];
    h->trace.event(h->trace.arg, &e);
  }
  return FORAY_OK;
}

static void counters(void *self, uint64_t out[FORAY_COUNTER_COUNT]) {
  memcpy(out, ((struct hls *)self)->machine->counter, sizeof(uint64_t) * FORAY_COUNTER_COUNT);
}

static void trace(void *self, const struct foray_dev_trace *t) { ((struct hls *)self)->trace = *t; }

static const struct foray_dev_class class_hls = {
    .name = "hls",
    .describe = describe,
    .open = open_hls,
    .close = close_hls,
    .upload = upload,
    .download = download,
    .run = run,
    .counters = counters,
    .trace = trace,
};

const struct foray_dev_plugin foray_dev_plugin = {FORAY_DEV_PLUGIN_VERSION, FORAY_ABI_HASH, &class_hls};
