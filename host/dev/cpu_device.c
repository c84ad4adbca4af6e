/* The cpu device: the shared interpreter over SIMD kernels and a thread team. "cpu" takes the best
 * instruction set of the machine, "cpu:avx2" a certain one. */
#include "dev/cpu_ops.h"
#include "dev/device_impl.h"

#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>

enum { SCRATCH_UNITS = 1 << 17 /* 8 MiB */ };

struct cpu {
  struct foray_cpu_ops *ops;
  struct foray_soft *soft;
};

static const char *describe(const char *detail, struct foray_dev_info *info) {
  enum foray_isa isa = foray_cpu_isa();
  *info = (struct foray_dev_info){.abi_hash = FORAY_ABI_HASH,
                                  .scratch_units = SCRATCH_UNITS,
                                  .cols_max = FORAY_ABI_COLS_MAX,
                                  .ns_busy = true};
  if (*detail && foray_isa_parse(detail, &isa, NULL) != FORAY_OK)
    return "wants an instruction set of this machine after the colon: scalar, avx2, avx512 or amx";
  snprintf(info->name, sizeof info->name, "cpu:%s", foray_isa_name(isa));
  snprintf(info->about, sizeof info->about, "this processor: %s, %d threads", foray_isa_name(isa),
           foray_cpu_count());
  return NULL;
}

static void close_cpu(void *self) {
  struct cpu *c = self;
  foray_soft_close(c->soft);
  foray_cpu_ops_close(c->ops);
  free(c);
}

static enum foray_status open_cpu(const char *detail, const struct foray_dev_opts *opts,
                                  struct foray_dev_info *info, void **self, struct foray_err *err) {
  enum foray_isa isa = foray_cpu_isa();
  enum foray_status st = *detail ? foray_isa_parse(detail, &isa, err) : FORAY_OK;
  if (st != FORAY_OK) return st;
  struct cpu *c = calloc(1, sizeof *c);
  if (!c) return foray_err_set(err, FORAY_E_NOMEM, "device");
  st = foray_cpu_ops_open(isa, opts->threads, &c->ops, err);
  if (st == FORAY_OK)
    st = foray_soft_open(foray_cpu_ops_kernels(c->ops), c->ops, opts->heap_bytes, SCRATCH_UNITS,
                         FORAY_ABI_COLS_MAX, &c->soft, err);
  if (st != FORAY_OK) {
    close_cpu(c);
    return st;
  }
  foray_soft_stop_flag(c->soft, opts->stop);
  foray_soft_use_heap(c->soft, opts->heap, opts->heap_bytes);
  info->heap_bytes = foray_soft_heap_bytes(c->soft);
  *self = c;
  return FORAY_OK;
}

static enum foray_status upload(void *self, uint64_t addr, const void *src, uint64_t bytes,
                                struct foray_err *err) {
  return foray_soft_upload(((struct cpu *)self)->soft, addr, src, bytes, err);
}
static enum foray_status download(void *self, uint64_t addr, void *dst, uint64_t bytes,
                                  struct foray_err *err) {
  return foray_soft_download(((struct cpu *)self)->soft, addr, dst, bytes, err);
}
static enum foray_status run(void *self, uint32_t run_unit, uint32_t deadline_ms,
                             struct foray_dev_result *res, struct foray_err *err) {
  return foray_soft_run(((struct cpu *)self)->soft, run_unit, deadline_ms, res, err);
}
static void counters(void *self, uint64_t out[FORAY_COUNTER_COUNT]) {
  foray_soft_counters(((struct cpu *)self)->soft, out);
}
static void trace(void *self, const struct foray_dev_trace *t) {
  foray_soft_trace(((struct cpu *)self)->soft, t);
}

extern const struct foray_dev_class foray_dev_class_cpu;
const struct foray_dev_class foray_dev_class_cpu = {
    .name = "cpu",
    .describe = describe,
    .open = open_cpu,
    .close = close_cpu,
    .upload = upload,
    .download = download,
    .run = run,
    .takes_heap = true,
    .counters = counters,
    .trace = trace,
};
