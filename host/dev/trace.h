/* dev/trace.h - what a device tells about its runs while somebody watches (`foray profile`).
 *
 *   static void seen(void *arg, const struct foray_trace_event *e) { ... }
 *   foray_dev_trace(d, &(struct foray_dev_trace){seen, &mine}, &err);   // FORAY_E_UNSUPPORTED: cannot
 *   foray_dev_run(...);                                                 // events arrive during the call, or
 *   foray_dev_trace(d, NULL, &err);                                     // all at its end
 *
 * Order: a RUN comes behind everything that happened in it, a PASS behind its ops; OP, SPAN and TOKEN come by
 * rising `end`. OPs of one run do not overlap, and together with what is between them they are the run: where
 * hardware works on several descriptors at once (prefetch), an OP ends when its descriptor retires and begins
 * where the one before ended, and SPANs say which engine worked when. A device may leave out SPANs.
 *
 * Time: info.ns_busy ? nanoseconds of CLOCK_MONOTONIC : cycles since open. */
#ifndef FORAY_DEV_TRACE_H
#define FORAY_DEV_TRACE_H

#include "gen/foray_abi.h"
#include <stdbool.h>
#include <stdint.h>

enum foray_trace_kind {
  FORAY_TRACE_RUN,   /* a doorbell */
  FORAY_TRACE_PASS,  /* a segment over a batch of columns */
  FORAY_TRACE_OP,    /* a descriptor over a batch of columns */
  FORAY_TRACE_SPAN,  /* an engine at work for a descriptor */
  FORAY_TRACE_TOKEN, /* an exit decided: `ring` is the entry */
};

enum foray_engine {
  FORAY_ENGINE_MEMORY, /* read masters */
  FORAY_ENGINE_MATRIX,
  FORAY_ENGINE_ATTENTION,
  FORAY_ENGINE_VECTOR,
  FORAY_ENGINE_EXIT,
  FORAY_ENGINE_CONTROL, /* descriptor fetch, sequencer */
  FORAY_ENGINE_COUNT
};

/* Cycles of an engine inside [begin, end); idle is the rest. */
struct foray_trace_engine {
  uint64_t busy;    /* took or gave a beat, or computed */
  uint64_t starved; /* wanted input that was not there */
  uint64_t blocked; /* had output that nobody took */
};

struct foray_trace_event {
  enum foray_trace_kind kind;
  uint64_t begin, end;
  uint32_t desc;            /* descriptor; UINT32_MAX for RUN, PASS, TOKEN */
  uint32_t op;              /* FORAY_OP_*; 0 likewise */
  uint32_t segment;         /* UINT32_MAX for RUN */
  uint32_t exit;            /* exit number inside an exit section and for TOKEN, else UINT32_MAX */
  uint32_t columns;         /* of the batch */
  uint32_t position;        /* of its first column */
  enum foray_engine engine; /* of a SPAN; of an OP the one that does most of the work */
  uint64_t counter[FORAY_COUNTER_COUNT]; /* OP, PASS, RUN: by how much each rose */
  bool has_engines;                      /* OP, PASS, RUN: the next three lines are filled in */
  struct foray_trace_engine engines[FORAY_ENGINE_COUNT];
  uint64_t beats, row_misses;        /* of the memory */
  uint32_t port_bytes;               /* what the memory could move in a cycle; 0: not known */
  const struct foray_rec_ring *ring; /* TOKEN: borrowed during the call */
};

struct foray_dev_trace {
  void (*event)(void *arg, const struct foray_trace_event *e);
  void *arg;
};

/* Engine that an op belongs to. */
static inline enum foray_engine foray_engine_of(uint32_t op) {
  switch (op) {
  case FORAY_OP_GEMV:
  case FORAY_OP_HEAD: return FORAY_ENGINE_MATRIX;
  case FORAY_OP_KV_PUT:
  case FORAY_OP_ATTN: return FORAY_ENGINE_ATTENTION;
  case FORAY_OP_EXIT: return FORAY_ENGINE_EXIT;
  case FORAY_OP_PROG:
  case FORAY_OP_SEG:
  case FORAY_OP_TEST:
  case FORAY_OP_END: return FORAY_ENGINE_CONTROL;
  default: return FORAY_ENGINE_VECTOR;
  }
}

#endif
