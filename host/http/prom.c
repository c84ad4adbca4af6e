#include "http/prom.h"

#include <math.h>
#include <stdio.h>

#define ADD(p, ...)                                                                                          \
  do {                                                                                                       \
    if ((p)->status == FORAY_OK) (p)->status = foray_buf_addf((p)->out, __VA_ARGS__);                        \
  } while (0)

void foray_prom_label(char *out, size_t cap, const char *name, const char *value) {
  int k = snprintf(out, cap, "%s=\"", name);
  size_t n = k > 0 && (size_t)k < cap ? (size_t)k : 0;
  for (; *value && n + 4 < cap; value++) {
    if (*value == '\\' || *value == '"') out[n++] = '\\';
    out[n++] = (unsigned char)*value < ' ' ? ' ' : *value;
  }
  if (n + 1 < cap) out[n++] = '"';
  out[n] = 0;
}

void foray_prom_family(struct foray_prom *p, const char *name, const char *type, const char *help) {
  ADD(p, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void sample(struct foray_prom *p, const char *name, const char *suffix, const char *labels,
                   double value) {
  if (!labels) labels = "";
  const char *both = *labels && *p->labels ? "," : "";
  ADD(p, "%s%s{%s%s%s} ", name, suffix, p->labels, both, labels);
  if (value == floor(value) && fabs(value) < 9e15)
    ADD(p, "%.0f\n", value);
  else
    ADD(p, "%.9g\n", value);
}
void foray_prom_sample(struct foray_prom *p, const char *name, const char *labels, double value) {
  sample(p, name, "", labels, value);
}
void foray_prom_counter(struct foray_prom *p, const char *name, const char *help, uint64_t value) {
  foray_prom_family(p, name, "counter", help);
  sample(p, name, "", NULL, (double)value);
}
void foray_prom_gauge(struct foray_prom *p, const char *name, const char *help, double value) {
  foray_prom_family(p, name, "gauge", help);
  sample(p, name, "", NULL, value);
}
void foray_prom_hist(struct foray_prom *p, const char *name, const char *help, const struct foray_hist *h) {
  foray_prom_family(p, name, "histogram", help);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < h->n; i++) {
    char le[32];
    snprintf(le, sizeof le, "le=\"%g\"", h->bounds[i]);
    sum += h->counts[i];
    sample(p, name, "_bucket", le, (double)sum);
  }
  sample(p, name, "_bucket", "le=\"+Inf\"", (double)h->total);
  sample(p, name, "_sum", NULL, h->sum);
  sample(p, name, "_count", NULL, (double)h->total);
}
