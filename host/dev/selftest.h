/* dev/selftest.h - conformance of a device: small draft programs on it and on `ref` side by side. Needs 1 MiB
 * of device memory and moves some megabytes, so it also runs over slow lines. */
#ifndef FORAY_DEV_SELFTEST_H
#define FORAY_DEV_SELFTEST_H

#include "dev/device.h"

/* Told of each part: why is NULL when it passed, else what differed. */
typedef void foray_selftest_fn(void *arg, const char *part, const char *why);

struct foray_selftest_opts {
  uint32_t blocks; /* draft blocks of the random sessions; 0: 100 */
  uint64_t seed;
};

/* Parts: open, memory, programs, rollback, errors, counters, blocks, reset. FORAY_OK when all passed,
 * FORAY_E_MISMATCH when one differed, else what opening the device gave. Nothing of it depends on time. */
enum foray_status foray_dev_selftest(const char *spec, const struct foray_selftest_opts *o,
                                     foray_selftest_fn *tell, void *arg,
                                     struct foray_err *err) FORAY_NODISCARD;

#endif
