/* Which devices fit, the program and its cached binary, tuning. */
#include "opencl/opencl.h"

#include "core/clock.h"
#include "core/err.h"
#include "core/hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char source[] =
#include "opencl/kernels.inc"
    ;

enum { PLATFORMS_MAX = 16, DEVICES_MAX = 64, LOCAL_BYTES = 16384, PATH_CAP = 1024 };

const char *ocl_error(cl_int e) {
  switch (e) {
  case CL_DEVICE_NOT_AVAILABLE: return "device not available";
  case CL_MEM_OBJECT_ALLOCATION_FAILURE: return "no memory for a buffer";
  case CL_OUT_OF_RESOURCES: return "out of resources";
  case CL_OUT_OF_HOST_MEMORY: return "out of host memory";
  case CL_BUILD_PROGRAM_FAILURE: return "the program does not build";
  case CL_INVALID_BUFFER_SIZE: return "buffer larger than the device allows";
  case CL_INVALID_WORK_GROUP_SIZE: return "work-group size";
  case CL_INVALID_BINARY: return "binary of another driver";
  case CL_INVALID_VALUE: return "invalid value";
  default: return "error";
  }
}

bool ocl_device_at(uint32_t n, cl_device_id *out) {
  cl_platform_id p[PLATFORMS_MAX];
  cl_uint np = 0;
  if (clGetPlatformIDs(PLATFORMS_MAX, p, &np) != CL_SUCCESS) return false;
  for (cl_uint i = 0; i < np && i < PLATFORMS_MAX; i++) {
    cl_device_id d[DEVICES_MAX];
    cl_uint nd = 0;
    if (clGetDeviceIDs(p[i], CL_DEVICE_TYPE_ALL, DEVICES_MAX, d, &nd) != CL_SUCCESS) continue;
    if (nd > DEVICES_MAX) nd = DEVICES_MAX;
    if (n < nd) {
      *out = d[n];
      return true;
    }
    n -= nd;
  }
  return false;
}

#define INFO(d, what, v) (clGetDeviceInfo(d, what, sizeof(v), &(v), NULL) == CL_SUCCESS)

const char *ocl_fits(cl_device_id d, char *name, size_t cap) {
  static const char *const no_answer = "the driver does not answer";
  cl_bool yes;
  cl_ulong local;
  size_t items;
  char profile[32] = "", extensions[8192] = "";
  *name = 0;
  if (clGetDeviceInfo(d, CL_DEVICE_NAME, cap, name, NULL) != CL_SUCCESS) snprintf(name, cap, "?");
  if (!INFO(d, CL_DEVICE_AVAILABLE, yes)) return no_answer;
  if (!yes) return "not available";
  if (!INFO(d, CL_DEVICE_COMPILER_AVAILABLE, yes)) return no_answer;
  if (!yes) return "no compiler for OpenCL C";
  if (!INFO(d, CL_DEVICE_ENDIAN_LITTLE, yes)) return no_answer;
  if (!yes) return "big-endian";
  if (!INFO(d, CL_DEVICE_LOCAL_MEM_SIZE, local) || !INFO(d, CL_DEVICE_MAX_WORK_GROUP_SIZE, items))
    return no_answer;
  if (local < LOCAL_BYTES) return "less than 16 KiB of local memory";
  if (items < 1) return "no work-items";
  if (clGetDeviceInfo(d, CL_DEVICE_PROFILE, sizeof profile, profile, NULL) != CL_SUCCESS) return no_answer;
  /* 64-bit integers are optional in the embedded profile only. */
  if (strcmp(profile, "FULL_PROFILE") != 0 &&
      (clGetDeviceInfo(d, CL_DEVICE_EXTENSIONS, sizeof extensions, extensions, NULL) != CL_SUCCESS ||
       !strstr(extensions, "cles_khr_int64")))
    return "no 64-bit integers (embedded profile without cles_khr_int64)";
  return NULL;
}

/* ---- cache: $XDG_CACHE_HOME/foray/opencl/<key>.bin and .tune; the key covers source, options, device,
 * driver ---- */

static bool cache_path(const struct ocl *o, const char *options, const char *suffix, char *out, size_t cap) {
  char text[3][256] = {"", "", ""}, dir[PATH_CAP - 80];
  const cl_device_info what[3] = {CL_DEVICE_NAME, CL_DEVICE_VERSION, CL_DRIVER_VERSION};
  struct foray_sha256 *h = foray_sha256_open();
  if (!h) return false;
  foray_sha256_update(h, source, sizeof source);
  foray_sha256_update(h, options, strlen(options) + 1);
  for (int i = 0; i < 3; i++) {
    (void)clGetDeviceInfo(o->device, what[i], sizeof text[i], text[i], NULL);
    foray_sha256_update(h, text[i], strlen(text[i]) + 1);
  }
  uint8_t digest[FORAY_SHA256_BYTES];
  char hex[FORAY_SHA256_HEX];
  foray_sha256_close(h, digest);
  foray_sha256_hex(digest, hex);
  const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (!(xdg && *xdg) && !(home && *home)) return false;
  if (xdg && *xdg)
    snprintf(dir, sizeof dir, "%s", xdg);
  else
    snprintf(dir, sizeof dir, "%s/.cache", home);
  (void)mkdir(dir, 0700);
  const char *const below[] = {"/foray", "/opencl"};
  for (int i = 0; i < 2; i++) {
    size_t at = strlen(dir);
    snprintf(dir + at, sizeof dir - at, "%s", below[i]);
    if (mkdir(dir, 0755) != 0 && errno != EEXIST) return false;
  }
  int n = snprintf(out, cap, "%s/%.32s%s", dir, hex, suffix);
  return n > 0 && (size_t)n < cap;
}

static void *slurp(const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  void *p = NULL;
  long size;
  if (fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) > 0 && size < 256 << 20 && fseek(f, 0, SEEK_SET) == 0 &&
      (p = malloc((size_t)size)) && fread(p, 1, (size_t)size, f) != (size_t)size) {
    free(p);
    p = NULL;
  }
  *n = p ? (size_t)size : 0;
  fclose(f);
  return p;
}

/* Whole or not at all: a reader never sees half a file. */
static void spill(const char *path, const void *p, size_t n) {
  char tmp[PATH_CAP + 16];
  snprintf(tmp, sizeof tmp, "%s.%ld", path, (long)getpid());
  FILE *f = fopen(tmp, "wb");
  if (!f) return;
  bool ok = fwrite(p, 1, n, f) == n;
  ok = fclose(f) == 0 && ok;
  if (!ok || rename(tmp, path) != 0) unlink(tmp);
}

static void options_of(const struct ocl *o, char *out, size_t cap) {
  snprintf(out, cap, "-DLANES=%u -DLOCAL=%u", o->lanes, o->local);
}

static bool from_binary(struct ocl *o, const char *path, const char *options) {
  size_t n;
  unsigned char *p = slurp(path, &n);
  if (!p) return false;
  cl_int e, own;
  o->program = clCreateProgramWithBinary(o->context, 1, &o->device, &n, (const unsigned char **)&p, &own, &e);
  free(p);
  if (e == CL_SUCCESS && clBuildProgram(o->program, 1, &o->device, options, NULL, NULL) == CL_SUCCESS)
    return true;
  if (o->program) clReleaseProgram(o->program);
  o->program = NULL;
  return false;
}

static enum foray_status from_source(struct ocl *o, const char *options, struct foray_err *err) {
  const char *text = source;
  cl_int e;
  o->program = clCreateProgramWithSource(o->context, 1, &text, NULL, &e);
  if (e == CL_SUCCESS) e = clBuildProgram(o->program, 1, &o->device, options, NULL, NULL);
  if (e == CL_SUCCESS) return FORAY_OK;
  char log[400] = "", *whole = NULL;
  size_t n = 0;
  if (o->program &&
      clGetProgramBuildInfo(o->program, o->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n) == CL_SUCCESS &&
      (whole = malloc(n + 1)) &&
      clGetProgramBuildInfo(o->program, o->device, CL_PROGRAM_BUILD_LOG, n, whole, NULL) == CL_SUCCESS) {
    whole[n] = 0;
    snprintf(log, sizeof log, "%s", whole);
  }
  free(whole);
  return foray_err_set(err, FORAY_E_DEVICE, "opencl: %s (%d): %s", ocl_error(e), e, log);
}

enum foray_status ocl_build(struct ocl *o, struct foray_err *err) {
  char options[64], path[PATH_CAP];
  options_of(o, options, sizeof options);
  const bool cached = cache_path(o, options, ".bin", path, sizeof path);
  if (!cached || !from_binary(o, path, options)) {
    enum foray_status st = from_source(o, options, err);
    if (st != FORAY_OK) return st;
    size_t n = 0;
    unsigned char *p = NULL;
    if (cached && clGetProgramInfo(o->program, CL_PROGRAM_BINARY_SIZES, sizeof n, &n, NULL) == CL_SUCCESS &&
        n && (p = malloc(n)) &&
        clGetProgramInfo(o->program, CL_PROGRAM_BINARIES, sizeof p, &p, NULL) == CL_SUCCESS)
      spill(path, p, n);
    free(p);
  }
  static const char *const names[] = {
#define X(name) #name,
      OCL_KERNELS(X)
#undef X
  };
  for (int i = 0; i < OCL_KERNEL_COUNT; i++) {
    cl_int e;
    o->kernel[i] = clCreateKernel(o->program, names[i], &e);
    if (e != CL_SUCCESS)
      return foray_err_set(err, FORAY_E_DEVICE, "opencl: kernel %s: %s (%d)", names[i], ocl_error(e), e);
  }
  return FORAY_OK;
}

/* ---- tuning ---- */

static int64_t time_of(struct ocl *o, const struct foray_dev_matrix *m, uint32_t group) {
  int64_t best = INT64_MAX;
  for (int k = 0; k < 4; k++) { /* the first builds the kernel for that size */
    const int64_t t = foray_clock_ns();
    ocl_gemv_once(o, 0, m, 0, group);
    if (ocl_bad(o, clFinish(o->queue), "clFinish")) return INT64_MAX;
    const int64_t d = foray_clock_ns() - t;
    if (k && d < best) best = d;
  }
  return best;
}

void ocl_tune(struct ocl *o) {
  static const uint32_t cpu[] = {1, 4, 16, 0}, gpu[] = {32, 64, 128, 256, 0};
  const uint32_t *c = o->lanes == 16 ? cpu : gpu;
  char options[64], path[PATH_CAP];
  struct foray_dev_matrix m;
  size_t max = 1, n;
  o->group = *c;
  options_of(o, options, sizeof options);
  (void)INFO(o->device, CL_DEVICE_MAX_WORK_GROUP_SIZE, max);
  const bool cached = cache_path(o, options, ".tune", path, sizeof path);
  uint32_t *known = cached ? slurp(path, &n) : NULL;
  bool ok = false;
  for (const uint32_t *k = c; known && n == sizeof *known && *k; k++) ok |= *k == *known && *k <= max;
  if (ok) o->group = *known;
  free(known);
  if (ok || !foray_dev_matrix_of(FORAY_QTYPE_Q4A, 1536, 576, false, &m) ||
      m.bytes > o->area[FORAY_SOFT_HEAP].bytes)
    return;
  int64_t best = INT64_MAX;
  for (; *c && *c <= max; c++) {
    const int64_t t = time_of(o, &m, *c);
    if (t < best) best = t, o->group = *c;
  }
  if (cached && best != INT64_MAX) spill(path, &o->group, sizeof o->group);
}
