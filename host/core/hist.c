#include "core/hist.h"

static const double seconds[] = {.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1,
                                 .25,   .5,     1,     2.5,  5,     10,   20,  40,   60};
static const double counts[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};

void foray_hist_init_seconds(struct foray_hist *h) {
  *h = (struct foray_hist){.bounds = seconds, .n = sizeof seconds / sizeof *seconds};
}
void foray_hist_init_counts(struct foray_hist *h) {
  *h = (struct foray_hist){.bounds = counts, .n = sizeof counts / sizeof *counts};
}

void foray_hist_add(struct foray_hist *h, double value) {
  uint32_t i = 0;
  while (i < h->n && value > h->bounds[i]) i++;
  h->counts[i]++;
  h->total++;
  h->sum += value;
}

double foray_hist_quantile(const struct foray_hist *h, double q) {
  uint64_t seen = 0;
  for (uint32_t i = 0; i < h->n; i++) {
    seen += h->counts[i];
    if (h->total && (double)seen >= q * (double)h->total) return h->bounds[i];
  }
  return h->total ? h->bounds[h->n - 1] : 0;
}
