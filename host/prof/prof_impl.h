/* Shared by the files of host/prof. */
#ifndef FORAY_PROF_IMPL_H
#define FORAY_PROF_IMPL_H

#include "prof/prof.h"

enum { PROF_NAME = 24 };

/* What a descriptor is in the model. */
enum prof_bytes { PROF_WEIGHTS, PROF_KV, PROF_VECTORS, PROF_REST, PROF_BYTES };

struct prof_part {
  char name[PROF_NAME];
  int16_t layer, exit; /* -1: none */
  uint8_t op;
  uint64_t macs_column, macs_position; /* multiplications of a column; and for each position it looks at */
  /* what the op has to move: a call, each column, each position up to the newest */
  uint64_t bytes_call[PROF_BYTES], bytes_column[PROF_BYTES], kv_position;
};

struct prof_sum {
  uint64_t calls, columns, time, fastest, bytes, macs, busy, starved, blocked, row_misses, beats;
};

struct prof_event {
  uint64_t begin, end, bytes[PROF_BYTES];
  uint32_t desc, position, token;
  int32_t top_prob, exit;
  uint8_t kind, engine, columns, segment;
};

struct foray_prof {
  struct prof_part *part; /* n */
  struct prof_sum *sum;   /* n; fastest: of one call */
  uint32_t n;
  bool ns, engines;
  struct prof_event *events; /* owned */
  size_t n_events, cap_events;
  uint64_t lost; /* events beyond the limit, or without memory */
  struct prof_sum runs;
  uint64_t counter[FORAY_COUNTER_COUNT];
  struct foray_trace_engine engine[FORAY_ENGINE_COUNT]; /* over the runs */
  uint64_t tokens[FORAY_ABI_TESTS_MAX], drafted;
  uint32_t port_bytes;
};

const char *prof_engine_name(int engine);

/* Reading a report. Absent numbers are 0. */
double prof_num(const json_t *o, const char *key);
const char *prof_str(const json_t *o, const char *key);

#endif
