/* The reference device: the shared interpreter over the plain kernels, in one thread. Slow, and the
 * definition. */
#include "dev/device_impl.h"

#include "dev/kernels.h"

#include "core/err.h"

#include <stdio.h>

enum { SCRATCH_UNITS = 1 << 17 /* 8 MiB */ };

static const char *describe(const char *detail, struct foray_dev_info *info) {
  *info = (struct foray_dev_info){.name = "ref",
                                  .about = "reference device: plain C, one thread",
                                  .abi_hash = FORAY_ABI_HASH,
                                  .scratch_units = SCRATCH_UNITS,
                                  .cols_max = FORAY_ABI_COLS_MAX,
                                  .ns_busy = true};
  return *detail ? "takes no detail after the colon" : NULL;
}

static enum foray_status open_ref(const char *detail, const struct foray_dev_opts *opts,
                                  struct foray_dev_info *info, void **self, struct foray_err *err) {
  (void)detail;
  struct foray_soft *s;
  enum foray_status st =
      foray_soft_open(&foray_ref_kernels, NULL, opts->heap_bytes, SCRATCH_UNITS, FORAY_ABI_COLS_MAX, &s, err);
  if (st != FORAY_OK) return st;
  foray_soft_stop_flag(s, opts->stop);
  foray_soft_use_heap(s, opts->heap, opts->heap_bytes);
  info->heap_bytes = foray_soft_heap_bytes(s);
  *self = s;
  return FORAY_OK;
}

static void close_ref(void *self) { foray_soft_close(self); }

extern const struct foray_dev_class foray_dev_class_ref;
const struct foray_dev_class foray_dev_class_ref = {
    .name = "ref",
    .describe = describe,
    .open = open_ref,
    .close = close_ref,
    .upload = foray_soft_upload,
    .download = foray_soft_download,
    .run = foray_soft_run,
    .takes_heap = true,
    .counters = foray_soft_counters,
    .trace = foray_soft_trace,
};
