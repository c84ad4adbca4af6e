/* core/clock.h - monotonic time for measurement and deadlines of real loops. Protocol and policy code
 * never calls this: time is an argument there (DESIGN 9). */
#ifndef FORAY_CORE_CLOCK_H
#define FORAY_CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t foray_clock_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
static inline double foray_clock_s(void) { return (double)foray_clock_ns() * 1e-9; }

#endif
