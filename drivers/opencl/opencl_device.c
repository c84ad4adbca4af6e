/* The `opencl` device: any OpenCL 1.2 device of any platform that the ICD loader finds. "opencl" takes the
 * first that fits, "opencl:1" the one with that number in the order of the platforms, "opencl:NAME" the first
 * whose name holds NAME. */
#include "opencl/opencl.h"

#include "dev/plugin.h"

#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCRATCH_UNITS = 1 << 17 /* 8 MiB */, NAME_CAP = 128, GPU_LOCAL = 64 };

/* *d for detail; or what there is. The text is of this thread, until the next call. */
static const char *choose(const char *detail, cl_device_id *out, uint32_t *number) {
  static _Thread_local char text[400];
  const bool by_number = *detail && strspn(detail, "0123456789") == strlen(detail) && strlen(detail) < 6;
  const uint32_t want = by_number ? (uint32_t)strtoul(detail, NULL, 10) : 0;
  size_t at = (size_t)snprintf(text, sizeof text, "no OpenCL device%s%s fits", *detail ? " " : "", detail);
  cl_device_id d;
  uint32_t n = 0;
  for (; ocl_device_at(n, &d); n++) {
    char name[NAME_CAP];
    const char *why = ocl_fits(d, name, sizeof name);
    const bool asked = by_number ? n == want : !*detail || strstr(name, detail);
    if (asked && !why) {
      *out = d;
      *number = n;
      return NULL;
    }
    if (at < sizeof text)
      at += (size_t)snprintf(text + at, sizeof text - at, "%s%u %.60s: %s", n ? "; " : ": ", n, name,
                             why ? why : "fits, but is not the one asked for");
  }
  if (n == 0)
    snprintf(text, sizeof text,
             "no OpenCL platform with a device is installed (for a processor: pocl-opencl-icd)");
  return text;
}

static const char *describe(const char *detail, struct foray_dev_info *info) {
  *info = (struct foray_dev_info){.name = "opencl",
                                  .about = "OpenCL device",
                                  .abi_hash = FORAY_ABI_HASH,
                                  .scratch_units = SCRATCH_UNITS,
                                  .cols_max = FORAY_ABI_COLS_MAX,
                                  .ns_busy = true};
  cl_device_id d;
  uint32_t n;
  const char *why = choose(detail, &d, &n);
  if (why) return why;
  char name[NAME_CAP], driver[64] = "";
  (void)ocl_fits(d, name, sizeof name);
  (void)clGetDeviceInfo(d, CL_DRIVER_VERSION, sizeof driver, driver, NULL);
  snprintf(info->name, sizeof info->name, "opencl:%u", n);
  snprintf(info->about, sizeof info->about, "%.60s, driver %.20s", name, driver);
  return NULL;
}

static void close_ocl(void *self) {
  struct ocl *o = self;
  foray_soft_close(o->soft);
  if (o->queue) clFinish(o->queue);
  ocl_release_space(o);
  for (int i = 0; i < OCL_KERNEL_COUNT; i++)
    if (o->kernel[i]) clReleaseKernel(o->kernel[i]);
  if (o->program) clReleaseProgram(o->program);
  if (o->queue) clReleaseCommandQueue(o->queue);
  if (o->context) clReleaseContext(o->context);
  free(o);
}

static enum foray_status failure(struct ocl *o, struct foray_err *err) {
  enum foray_status st = foray_err_set(
      err,
      o->failed == CL_MEM_OBJECT_ALLOCATION_FAILURE || o->failed == CL_INVALID_BUFFER_SIZE ? FORAY_E_NOMEM
                                                                                           : FORAY_E_DEVICE,
      "opencl: %s: %s (%d)", o->what ? o->what : "?", ocl_error(o->failed), o->failed);
  o->failed = CL_SUCCESS;
  return st;
}

static enum foray_status open_ocl(const char *detail, const struct foray_dev_opts *opts,
                                  struct foray_dev_info *info, void **self, struct foray_err *err) {
  struct ocl *o = calloc(1, sizeof *o);
  if (!o) return foray_err_set(err, FORAY_E_NOMEM, "device");
  uint32_t n;
  const char *why = choose(detail, &o->device, &n);
  if (why) {
    free(o);
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "opencl: %s", why);
  }
  cl_int e;
  cl_device_type type = CL_DEVICE_TYPE_GPU;
  cl_uint units = 1;
  cl_ulong largest = 0;
  size_t items = 1;
  (void)clGetDeviceInfo(o->device, CL_DEVICE_TYPE, sizeof type, &type, NULL);
  (void)clGetDeviceInfo(o->device, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL);
  (void)clGetDeviceInfo(o->device, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof largest, &largest, NULL);
  (void)clGetDeviceInfo(o->device, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof items, &items, NULL);
  const char *shape =
      getenv("FORAY_OPENCL_SHAPE"); /* cpu or gpu: the other mapping than the device's type says */
  const bool cpu = shape ? !strcmp(shape, "cpu") : (type & CL_DEVICE_TYPE_CPU) != 0;
  o->lanes = cpu ? 16 : 1;
  o->local = cpu ? 1 : items >= GPU_LOCAL ? GPU_LOCAL : 1;
  o->units = units < 2 ? 2 : units > 32 ? 32 : units;
  enum foray_status st = FORAY_OK;
  if (opts->heap_bytes > largest)
    st = foray_err_set(err, FORAY_E_LIMIT,
                       "opencl: a heap of %llu bytes; this device gives at most %llu at once",
                       (unsigned long long)opts->heap_bytes, (unsigned long long)largest);
  if (st == FORAY_OK) {
    o->context = clCreateContext(NULL, 1, &o->device, NULL, NULL, &e);
    if (!ocl_bad(o, e, "clCreateContext")) {
      o->queue = clCreateCommandQueue(o->context, o->device, 0, &e);
      (void)ocl_bad(o, e, "clCreateCommandQueue");
    }
    st = o->failed ? failure(o, err) : ocl_build(o, err);
  }
  if (st == FORAY_OK)
    st = foray_soft_open_on(&ocl_memory, &ocl_kernels, o, opts->heap_bytes, SCRATCH_UNITS, FORAY_ABI_COLS_MAX,
                            &o->soft, err);
  if (st == FORAY_OK) {
    ocl_tune(o);
    (void)ocl_bad(o, clFinish(o->queue), "clFinish");
  }
  if (o->failed) st = failure(o, err);
  if (st != FORAY_OK) {
    close_ocl(o);
    return st;
  }
  info->heap_bytes = foray_soft_heap_bytes(o->soft);
  *self = o;
  return FORAY_OK;
}

static enum foray_status upload(void *self, uint64_t addr, const void *src, uint64_t bytes,
                                struct foray_err *err) {
  struct ocl *o = self;
  ocl_memory.put(o, o->area[FORAY_SOFT_HEAP].shadow + addr, src, bytes);
  return o->failed ? failure(o, err) : FORAY_OK;
}
static enum foray_status download(void *self, uint64_t addr, void *dst, uint64_t bytes,
                                  struct foray_err *err) {
  struct ocl *o = self;
  ocl_memory.get(o, dst, o->area[FORAY_SOFT_HEAP].shadow + addr, bytes);
  return o->failed ? failure(o, err) : FORAY_OK;
}
static enum foray_status run(void *self, uint32_t run_unit, uint32_t deadline_ms,
                             struct foray_dev_result *res, struct foray_err *err) {
  struct ocl *o = self;
  o->prepared.src = NULL;
  enum foray_status st = foray_soft_run(o->soft, run_unit, deadline_ms, res, err);
  return o->failed ? failure(o, err) : st;
}
static void counters(void *self, uint64_t out[FORAY_COUNTER_COUNT]) {
  foray_soft_counters(((struct ocl *)self)->soft, out);
}
static void trace(void *self, const struct foray_dev_trace *t) {
  foray_soft_trace(((struct ocl *)self)->soft, t);
}

static const struct foray_dev_class ocl_class = {
    .name = "opencl",
    .describe = describe,
    .open = open_ocl,
    .close = close_ocl,
    .upload = upload,
    .download = download,
    .run = run,
    .counters = counters,
    .trace = trace,
};

const struct foray_dev_plugin foray_dev_plugin = {FORAY_DEV_PLUGIN_VERSION, FORAY_ABI_HASH, &ocl_class};
