/* opencl/opencl.h - inside of the `opencl` device: a context, a queue, the program, three areas of memory,
 * and the kernel table that the shared interpreter (dev/program.c) calls. Nothing waits inside a pass: an op
 * is one to three enqueues; the processor reads one exit unit (8 KiB) for each exit test and column, and that
 * is where it waits. */
#ifndef FORAY_OPENCL_OPENCL_H
#define FORAY_OPENCL_OPENCL_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "dev/device_impl.h"
#include "dev/kernels.h"

/* The kernels of kernels.cl, by name. */
#define OCL_KERNELS(X)                                                                                       \
  X(embed)                                                                                                   \
  X(rmsnorm)                                                                                                 \
  X(quant)                                                                                                   \
  X(add)                                                                                                     \
  X(silu_mul)                                                                                                \
  X(rope) X(kv_put) X(attn) X(attn_end) X(prepare) X(gemv) X(gemv_end) X(head) X(exit_stream) X(exit_merge)
enum ocl_kernel {
#define X(name) OCL_##name,
  OCL_KERNELS(X)
#undef X
      OCL_KERNEL_COUNT
};

struct ocl_area {
  uint8_t *shadow; /* addresses that stand for the area; never dereferenced */
  uint64_t bytes;
  cl_mem mem;
};

struct ocl {
  cl_device_id device;
  cl_context context;
  cl_command_queue queue;
  cl_program program;
  cl_kernel kernel[OCL_KERNEL_COUNT];
  uint32_t lanes, local; /* LANES and LOCAL of kernels.cl */
  uint32_t group;        /* work-items of a group of the products, tuned */
  uint32_t units;        /* groups of the exit unit's stream */
  struct ocl_area area[FORAY_SOFT_AREAS];
  cl_mem y, any, x, exps, bias, unit; /* work space, grown when an op needs more */
  size_t y_bytes, any_bytes, x_bytes, exps_bytes, bias_bytes, unit_bytes;
  cl_int failed; /* first error since the last run; what = the call */
  const char *what;
  struct {
    const void *src; /* columns that `x` holds; NULL: none */
    uint32_t n, c0, ncols;
  } prepared;
  struct foray_soft *soft;
};

/* A device that can run the program, or why not (NULL: it can). name: at least 64 bytes. */
const char *ocl_fits(cl_device_id d, char *name, size_t cap);
/* The n-th device over all platforms; false beyond the last. */
bool ocl_device_at(uint32_t n, cl_device_id *d);

/* Builds the program for o->device, from the cache of binaries where it has one for this very driver. */
enum foray_status ocl_build(struct ocl *o, struct foray_err *err);
/* Text of an OpenCL error code. */
const char *ocl_error(cl_int e);
/* Chooses o->group by measurement (kept beside the binary). */
void ocl_tune(struct ocl *o);

/* Records the first failure; true when e is one. */
bool ocl_bad(struct ocl *o, cl_int e, const char *what);

extern const struct foray_kernels ocl_kernels;
extern const struct foray_soft_memory ocl_memory;
void ocl_release_space(struct ocl *o);
/* One product of a matrix at `matrix` (byte offset in the heap), for ocl_tune. */
void ocl_gemv_once(struct ocl *o, uint64_t matrix, const struct foray_dev_matrix *m, uint32_t q8s,
                   uint32_t group);
/* Room for `bytes` in a work space; false (and recorded) when there is none. */
bool ocl_room(struct ocl *o, cl_mem *m, size_t *have, size_t bytes);

#endif
