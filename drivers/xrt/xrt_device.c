/* The `xrt` device: a Foray kernel on a card that Xilinx's XRT drives, or in its simulation (foray sim-xrt).
 * One buffer object, pinned to the memory bank that the kernel's heap argument is wired to, is the heap; one
 * XRT run is a draft block. Registers are read through the kernel's exclusive context.
 *
 * A detail is [INDEX or BDF][,xclbin=FILE][,kernel=NAME]; the file defaults to $FORAY_XCLBIN, then to
 * foray.xclbin beside XRT ($XILINX_XRT). */
#include "cardhost/cardhost.h"
#include "dev/plugin.h"

#include "core/err.h"

#include <ert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xrt.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

enum { PATH_CAP = 512, NAME_CAP = 64, HEAP_DEFAULT = 64 << 20 };

struct detail {
  char device[NAME_CAP], xclbin[PATH_CAP], kernel[NAME_CAP];
};

struct xrt {
  char where[NAME_CAP + 8];
  xrtDeviceHandle device;
  xrtKernelHandle kernel;
  xrtRunHandle run;
  xrtBufferHandle heap;
  uint64_t heap_bytes;
  struct foray_cardhost *host;
};

static const char *parse(const char *text, struct detail *d) {
  static const char *const bad = "wants an index or a BDF, then ,xclbin=FILE ,kernel=NAME";
  const char *env = getenv("FORAY_XCLBIN"), *home = getenv("XILINX_XRT");
  *d = (struct detail){.device = "0", .kernel = "foray_top"};
  if (env && *env)
    snprintf(d->xclbin, sizeof d->xclbin, "%s", env);
  else if (home)
    snprintf(d->xclbin, sizeof d->xclbin, "%s/foray.xclbin", home);
  size_t n = strcspn(text, ",");
  if (n >= sizeof d->device) return bad;
  if (n) snprintf(d->device, sizeof d->device, "%.*s", (int)n, text);
  for (text += n; *text == ','; text += n) {
    text++;
    n = strcspn(text, ",");
    const bool file = !strncmp(text, "xclbin=", 7), kernel = !strncmp(text, "kernel=", 7);
    if ((!file && !kernel) || n < 8 || n - 7 >= (file ? sizeof d->xclbin : sizeof d->kernel)) return bad;
    if (file)
      snprintf(d->xclbin, sizeof d->xclbin, "%.*s", (int)(n - 7), text + 7);
    else
      snprintf(d->kernel, sizeof d->kernel, "%.*s", (int)(n - 7), text + 7);
  }
  return NULL;
}

static const char *describe(const char *detail, struct foray_dev_info *info) {
  static _Thread_local char why[PATH_CAP + 120];
  struct detail d;
  *info = (struct foray_dev_info){.name = "xrt",
                                  .about = "kernel on a card of Xilinx's XRT",
                                  .abi_hash = FORAY_ABI_HASH,
                                  .scratch_units = 1,
                                  .cols_max = FORAY_ABI_COLS_MAX};
  const char *bad = parse(detail, &d);
  if (bad) return bad;
  snprintf(info->name, sizeof info->name, "xrt:%.26s", d.device);
  if (!getenv("XILINX_XRT"))
    return "XILINX_XRT is not set: source XRT's setup.sh, or run under 'foray sim-xrt --' for the simulation";
  if (access(d.xclbin, R_OK) != 0) {
    snprintf(why, sizeof why, "xclbin '%s': %s (set FORAY_XCLBIN, or ,xclbin=FILE)", d.xclbin,
             strerror(errno));
    return why;
  }
  snprintf(info->about, sizeof info->about, "XRT device %.16s, kernel %.24s", d.device, d.kernel);
  return NULL;
}

/* XRT puts its own text on stderr (or where xrt.ini says); errno is what its C calls leave. */
static enum foray_status failed(const struct xrt *x, const char *call, struct foray_err *err) {
  return foray_err_set(err, FORAY_E_DEVICE, "%s: %s failed: %s (XRT's own message is above, or in its log)",
                       x->where, call, errno ? strerror(errno) : "no reason given");
}

/* ---- the bus ---- */

static enum foray_status read32(void *arg, uint32_t at, uint32_t *v, struct foray_err *err) {
  struct xrt *x = arg;
  return xrtKernelReadRegister(x->kernel, at, v) ? failed(x, "xrtKernelReadRegister", err) : FORAY_OK;
}
static enum foray_status write32(void *arg, uint32_t at, uint32_t v, struct foray_err *err) {
  struct xrt *x = arg;
  return xrtKernelWriteRegister(x->kernel, at, v) ? failed(x, "xrtKernelWriteRegister", err) : FORAY_OK;
}
static enum foray_status mem_write(void *arg, uint64_t at, const void *from, uint64_t n,
                                   struct foray_err *err) {
  struct xrt *x = arg;
  if (xrtBOWrite(x->heap, from, n, at)) return failed(x, "xrtBOWrite", err);
  return xrtBOSync(x->heap, XCL_BO_SYNC_BO_TO_DEVICE, n, at) ? failed(x, "xrtBOSync", err) : FORAY_OK;
}
static enum foray_status mem_read(void *arg, uint64_t at, void *to, uint64_t n, struct foray_err *err) {
  struct xrt *x = arg;
  if (xrtBOSync(x->heap, XCL_BO_SYNC_BO_FROM_DEVICE, n, at)) return failed(x, "xrtBOSync", err);
  return xrtBORead(x->heap, to, n, at) ? failed(x, "xrtBORead", err) : FORAY_OK;
}

static enum foray_status start(void *arg, uint32_t run_unit, struct foray_err *err) {
  struct xrt *x = arg;
  if (xrtRunSetArg(x->run, 0, x->heap) ||
      xrtRunSetArg(x->run, 1, (uint32_t)(x->heap_bytes / FORAY_ABI_UNIT)) ||
      xrtRunSetArg(x->run, 2, run_unit))
    return failed(x, "xrtRunSetArg", err);
  return xrtRunStart(x->run) ? failed(x, "xrtRunStart", err) : FORAY_OK;
}

static enum foray_status finish(void *arg, uint32_t ms, struct foray_err *err) {
  struct xrt *x = arg;
  const int state = (int)xrtRunWaitFor(x->run, ms);
  switch (state) {
  case ERT_CMD_STATE_COMPLETED: return FORAY_OK;
  case ERT_CMD_STATE_ERROR:
  case ERT_CMD_STATE_ABORT:
  case ERT_CMD_STATE_NORESPONSE:
    return foray_err_set(
        err, FORAY_E_DEVICE,
        "%s: XRT ended the run in state %d (5 error, 6 abort, 9 no response): xbutil examine, "
        "then xbutil reset",
        x->where, state);
  default: return FORAY_E_TIMEOUT;
  }
}

/* ---- the device ---- */

static void drop(void *arg) {
  struct xrt *x = arg;
  if (x->run) xrtRunClose(x->run);
  if (x->heap) xrtBOFree(x->heap);
  if (x->kernel) xrtKernelClose(x->kernel);
  if (x->device) xrtDeviceClose(x->device);
  free(x);
}

static enum foray_status attach(struct xrt *x, const struct detail *d, struct foray_err *err) {
  xuid_t id;
  errno = 0;
  const bool index = strspn(d->device, "0123456789") == strlen(d->device);
  x->device = index ? xrtDeviceOpen((unsigned)strtoul(d->device, NULL, 10)) : xrtDeviceOpenByBDF(d->device);
  if (!x->device) return failed(x, "xrtDeviceOpen", err);
  if (xrtDeviceLoadXclbinFile(x->device, d->xclbin) || xrtDeviceGetXclbinUUID(x->device, id))
    return failed(x, "xrtDeviceLoadXclbinFile", err);
  x->kernel = xrtPLKernelOpenExclusive(x->device, id, d->kernel);
  if (!x->kernel) return failed(x, "xrtPLKernelOpenExclusive", err);
  const int group = xrtKernelArgGroupId(x->kernel, 0);
  if (group < 0) return failed(x, "xrtKernelArgGroupId", err);
  x->heap = xrtBOAlloc(x->device, x->heap_bytes, 0, (xrtMemoryGroup)group);
  if (!x->heap) return failed(x, "xrtBOAlloc", err);
  x->run = xrtRunOpen(x->kernel);
  return x->run ? FORAY_OK : failed(x, "xrtRunOpen", err);
}

static void close_xrt(void *self) { foray_cardhost_close(((struct xrt *)self)->host); }

static enum foray_status open_xrt(const char *detail, const struct foray_dev_opts *opts,
                                  struct foray_dev_info *info, void **self, struct foray_err *err) {
  struct detail d;
  const char *bad = parse(detail, &d);
  if (bad) return foray_err_set(err, FORAY_E_ARG, "xrt: %s", bad);
  struct xrt *x = calloc(1, sizeof *x);
  if (!x) return foray_err_set(err, FORAY_E_NOMEM, "xrt");
  snprintf(x->where, sizeof x->where, "xrt:%s", d.device);
  x->heap_bytes = foray_dev_up(opts->heap_bytes ? opts->heap_bytes : HEAP_DEFAULT, FORAY_ABI_UNIT);
  enum foray_status st = attach(x, &d, err);
  if (st == FORAY_OK) {
    const struct foray_bus bus = {.arg = x,
                                  .read32 = read32,
                                  .write32 = write32,
                                  .mem_read = mem_read,
                                  .mem_write = mem_write,
                                  .start = start,
                                  .finish = finish,
                                  .close = drop};
    st = foray_cardhost_open(&bus,
                             &(struct foray_cardhost_opts){.where = x->where,
                                                           .mem_base = xrtBOAddress(x->heap),
                                                           .mem_bytes = x->heap_bytes,
                                                           .heap_bytes = x->heap_bytes},
                             &x->host, err);
  }
  if (st != FORAY_OK) {
    drop(x);
    return st;
  }
  foray_cardhost_info(x->host, info);
  *self = x;
  return FORAY_OK;
}

static enum foray_status upload(void *self, uint64_t addr, const void *src, uint64_t bytes,
                                struct foray_err *err) {
  return foray_cardhost_upload(((struct xrt *)self)->host, addr, src, bytes, err);
}
static enum foray_status download(void *self, uint64_t addr, void *dst, uint64_t bytes,
                                  struct foray_err *err) {
  return foray_cardhost_download(((struct xrt *)self)->host, addr, dst, bytes, err);
}
static enum foray_status run(void *self, uint32_t run_unit, uint32_t deadline_ms,
                             struct foray_dev_result *res, struct foray_err *err) {
  return foray_cardhost_run(((struct xrt *)self)->host, run_unit, deadline_ms, res, err);
}
static void counters(void *self, uint64_t out[FORAY_COUNTER_COUNT]) {
  foray_cardhost_counters(((struct xrt *)self)->host, out);
}

static const struct foray_dev_class xrt_class = {
    .name = "xrt",
    .describe = describe,
    .open = open_xrt,
    .close = close_xrt,
    .upload = upload,
    .download = download,
    .run = run,
    .counters = counters,
};

const struct foray_dev_plugin foray_dev_plugin = {FORAY_DEV_PLUGIN_VERSION, FORAY_ABI_HASH, &xrt_class};
