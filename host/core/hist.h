/* core/hist.h - a histogram with fixed bounds, for metrics. Not thread-safe; copy it under the owner's lock.
 */
#ifndef FORAY_CORE_HIST_H
#define FORAY_CORE_HIST_H

#include <stdint.h>

enum { FORAY_HIST_MAX = 20 };

struct foray_hist {
  const double *bounds; /* [n] ascending, static */
  uint32_t n;
  uint64_t counts[FORAY_HIST_MAX + 1]; /* counts[i]: bounds[i - 1] < value <= bounds[i] */
  uint64_t total;
  double sum;
};

/* Static bounds: seconds from 0.1 ms to 60 s; token and sequence counts from 1 to 8192. */
void foray_hist_init_seconds(struct foray_hist *h);
void foray_hist_init_counts(struct foray_hist *h);
void foray_hist_add(struct foray_hist *h, double value);
/* Upper bound of the bucket that holds quantile q of what was added; 0 when empty. */
double foray_hist_quantile(const struct foray_hist *h, double q);

#endif
