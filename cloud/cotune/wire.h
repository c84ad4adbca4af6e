/* cotune/wire.h - what crosses between cloud and devices in a round: messages as bytes, and how many.
 * Whatever an algorithm learns from the other side it decodes from such a message, so that counts and
 * rounding are real.
 *
 * A message: 24 bytes of header (magic, kind, round, device, count, reserved; little endian), then the
 * payload. Values travel as bf16. Thread rule: one thread. */
#ifndef FORAY_COTUNE_WIRE_H
#define FORAY_COTUNE_WIRE_H

#include "core/buf.h"
#include "train/lm.h"
#include <stdio.h>

enum foray_wire_kind {
  FORAY_WIRE_WEIGHTS = 1, /* adapter weights, cloud to device */
  FORAY_WIRE_DELTA,       /* change of adapter weights, device to cloud */
  FORAY_WIRE_TOPS,        /* distributions on public text, either way */
  FORAY_WIRE_MODEL,       /* a model file, once (counted, not copied) */
  FORAY_WIRE_RAW,         /* raw examples: the centralised upper bound alone does this */
};
enum { FORAY_WIRE_HEADER = 24, FORAY_WIRE_MAX = 1 << 30 };

struct foray_wire {
  uint64_t up, down; /* bytes so far */
  FILE *log;         /* every byte that crosses, or NULL */
};
struct foray_wire_head {
  enum foray_wire_kind kind;
  int round, device;
  uint32_t count;
};

/* Builds a message in *m (initialised here). */
enum foray_status foray_wire_put_values(struct foray_buf *m, enum foray_wire_kind kind, int round, int device,
                                        const float *v, size_t n, struct foray_err *err) FORAY_NODISCARD;
/* n lists, each with the mean cross entropy of its sender on that example before it when ce is not NULL (one
 * per example; count[e] lists belong to example e). */
enum foray_status foray_wire_put_tops(struct foray_buf *m, int round, int device,
                                      const struct foray_sparse *tops, const int *count, const double *ce,
                                      int examples, struct foray_err *err) FORAY_NODISCARD;
/* Counts it (and logs it); towards the cloud when `up`. */
void foray_wire_send(struct foray_wire *w, bool up, const struct foray_buf *m);
void foray_wire_count(struct foray_wire *w, bool up, uint64_t bytes);

enum foray_status foray_wire_head(const struct foray_buf *m, struct foray_wire_head *out,
                                  struct foray_err *err) FORAY_NODISCARD;
/* FORAY_E_FORMAT when the message does not hold exactly n values of that kind. */
enum foray_status foray_wire_get_values(const struct foray_buf *m, enum foray_wire_kind kind, float *v,
                                        size_t n, struct foray_err *err) FORAY_NODISCARD;
/* Lists have room for k pairs; rows must be below vocab. */
enum foray_status foray_wire_get_tops(const struct foray_buf *m, int k, uint32_t vocab,
                                      struct foray_sparse *tops, const int *count, double *ce, int examples,
                                      struct foray_err *err) FORAY_NODISCARD;

#endif
