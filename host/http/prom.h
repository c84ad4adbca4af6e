/* http/prom.h - Prometheus' text format 0.0.4. Each family starts with prom_family, then its samples.
 * Errors (out of memory) are kept in the writer and seen once at the end. */
#ifndef FORAY_HTTP_PROM_H
#define FORAY_HTTP_PROM_H

#include "core/buf.h"
#include "core/hist.h"

struct foray_prom {
  struct foray_buf *out; /* borrowed */
  const char *labels;    /* put into every sample, e.g. model_name="x"; "" for none */
  enum foray_status status;
};

/* Escapes value for a label: writes name="value". */
void foray_prom_label(char *out, size_t cap, const char *name, const char *value);
void foray_prom_family(struct foray_prom *p, const char *name, const char *type, const char *help);
/* labels: further ones without braces, or NULL. */
void foray_prom_sample(struct foray_prom *p, const char *name, const char *labels, double value);
/* family and one sample */
void foray_prom_counter(struct foray_prom *p, const char *name, const char *help, uint64_t value);
void foray_prom_gauge(struct foray_prom *p, const char *name, const char *help, double value);
void foray_prom_hist(struct foray_prom *p, const char *name, const char *help, const struct foray_hist *h);

#endif
