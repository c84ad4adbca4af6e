/* dev/device_impl.h - what a device implements. Drivers, simulators and HLS register their class with
 * foray_dev_register before the first open; host/dev knows only its own two. */
#ifndef FORAY_DEV_DEVICE_IMPL_H
#define FORAY_DEV_DEVICE_IMPL_H

#include "dev/device.h"

struct foray_dev_class {
  const char *name; /* "ref" */
  /* Fills info and returns NULL, or why this machine lacks it. detail = text after ':' or "". */
  const char *(*describe)(const char *detail, struct foray_dev_info *info);
  /* *self is owned by the device until close. info is already described; set heap_bytes to what was got. */
  enum foray_status (*open)(const char *detail, const struct foray_dev_opts *opts,
                            struct foray_dev_info *info, void **self, struct foray_err *err);
  void (*close)(void *self);
  /* Ranges are already checked against info.heap_bytes. */
  enum foray_status (*upload)(void *self, uint64_t addr, const void *src, uint64_t bytes,
                              struct foray_err *err);
  enum foray_status (*download)(void *self, uint64_t addr, void *dst, uint64_t bytes, struct foray_err *err);
  /* FORAY_OK whenever the device answered, also with res->error; another status only when it did not. */
  enum foray_status (*run)(void *self, uint32_t run_unit, uint32_t deadline_ms, struct foray_dev_result *res,
                           struct foray_err *err);
  void (*counters)(void *self, uint64_t out[FORAY_COUNTER_COUNT]);
  /* Optional (NULL: cannot). From now on t->event is told of each run; t->event NULL: no longer. Copy *t. */
  void (*trace)(void *self, const struct foray_dev_trace *t);
  bool takes_heap; /* opts->heap is honoured */
};

/* cls must live for the whole process. FORAY_E_LIMIT when too many, FORAY_E_STATE for a name that is taken.
 * Not thread-safe: call at start. */
enum foray_status foray_dev_register(const struct foray_dev_class *cls,
                                     struct foray_err *err) FORAY_NODISCARD;

/* Devices whose heap is host memory (ref, cpu): memory + the shared interpreter + a table of kernels. */
struct foray_kernels; /* dev/kernels.h */
struct foray_soft;    /* opaque */
enum foray_status foray_soft_open(const struct foray_kernels *k, void *kernel_arg, uint64_t heap_bytes,
                                  uint32_t scratch_units, uint32_t cols_max, struct foray_soft **out,
                                  struct foray_err *err) FORAY_NODISCARD;
/* For a device whose memory the processor does not touch (OpenCL): the interpreter names its places by
 * addresses that it never dereferences, hands them to the kernels, and moves bytes by these calls, in program
 * order. `area` gives the addresses of a zeroed area (instead of an earlier one of that kind), NULL when
 * there is no room. */
enum foray_soft_area { FORAY_SOFT_HEAP, FORAY_SOFT_SCRATCH, FORAY_SOFT_LOGITS, FORAY_SOFT_AREAS };
struct foray_soft_memory {
  void *(*area)(void *arg, enum foray_soft_area which, uint64_t bytes);
  void (*copy)(void *arg, void *to, const void *from, uint64_t bytes); /* place to place */
  void (*get)(void *arg, void *to, const void *from, uint64_t bytes);  /* place to processor */
  void (*put)(void *arg, void *to, const void *from, uint64_t bytes);  /* processor to place */
  void (*settle)(void *arg);                                           /* until all of this has been done */
};
/* As foray_soft_open, on that memory; m must live as long as the device. upload and download are then the
 * device's own business. */
enum foray_status foray_soft_open_on(const struct foray_soft_memory *m, const struct foray_kernels *k,
                                     void *arg, uint64_t heap_bytes, uint32_t scratch_units,
                                     uint32_t cols_max, struct foray_soft **out,
                                     struct foray_err *err) FORAY_NODISCARD;
void foray_soft_close(struct foray_soft *s);
/* Works in the caller's memory (64-byte aligned, a multiple of 64 bytes) from now on; NULL changes nothing.
 */
/* opts->stop. */
void foray_soft_stop_flag(struct foray_soft *s, const _Atomic bool *stop);
void foray_soft_use_heap(struct foray_soft *s, void *heap, uint64_t bytes);
/* Zeroed host memory for a heap of that many bytes (a multiple of 64); NULL: none. */
uint8_t *foray_soft_heap_map(uint64_t bytes);
void foray_soft_heap_unmap(uint8_t *p, uint64_t bytes); /* NULL is allowed */
uint8_t *foray_soft_heap(struct foray_soft *s);
uint64_t foray_soft_heap_bytes(const struct foray_soft *s);
enum foray_status foray_soft_upload(void *s, uint64_t addr, const void *src, uint64_t bytes,
                                    struct foray_err *err);
enum foray_status foray_soft_download(void *s, uint64_t addr, void *dst, uint64_t bytes,
                                      struct foray_err *err);
enum foray_status foray_soft_run(void *s, uint32_t run_unit, uint32_t deadline_ms,
                                 struct foray_dev_result *res, struct foray_err *err);
void foray_soft_counters(void *s, uint64_t out[FORAY_COUNTER_COUNT]);
void foray_soft_trace(void *s, const struct foray_dev_trace *t);

#endif
