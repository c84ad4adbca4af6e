/* prof/prof.h - where the time and the bytes of a draft program go: collects what a watched device tells
 * (dev/trace.h), names it by the model's parts, and makes a report of it.
 *
 *   struct foray_prof *p;
 *   foray_prof_open(program, n_desc, info->ns_busy, &p, &err);
 *   foray_dev_trace(dev, &(struct foray_dev_trace){foray_prof_event, p}, &err);
 *   ... runs ...
 *   json_t *report = foray_prof_report(p, &meta);            // owned; everything below reads only this
 *   foray_prof_table(stdout, report); foray_prof_roofline(stdout, report); foray_prof_svg(file, report);
 *   foray_prof_perfetto(p, file, token_text, tokenizer);     // needs the events themselves
 *
 * Report: {"format": "foray-profile", "version": 1, "unit": "ns" or "cycles", ..., "ops": [row], "layers":
 * [row]}, a row {"name", "calls", "columns", "time", "fastest", "bytes", "macs"} (fastest: the time if each
 * call had been as fast as its descriptor's fastest) and, where the device counts them, "busy", "starved",
 * "blocked", "row_misses". Thread rule: one caller. */
#ifndef FORAY_PROF_PROF_H
#define FORAY_PROF_PROF_H

#include "dev/device.h"

#include <jansson.h>
#include <stdio.h>

struct foray_prof; /* opaque */

enum {
  FORAY_PROF_EVENTS_MAX = 1 << 20, /* kept for the trace; totals go on beyond */
  FORAY_PROF_VERSION = 1,
};

/* desc: the program's descriptors (copied). FORAY_E_NOMEM. */
enum foray_status foray_prof_open(const uint32_t (*desc)[FORAY_ABI_DESC_WORDS], uint32_t n_desc, bool ns,
                                  struct foray_prof **out, struct foray_err *err) FORAY_NODISCARD;
void foray_prof_close(struct foray_prof *p); /* NULL is allowed */

/* For foray_dev_trace: arg is the struct foray_prof. */
void foray_prof_event(void *arg, const struct foray_trace_event *e);

/* By how much each counter of the device rose meanwhile. For devices that tell no RUNs these are the totals,
 * and BUSY the time; else nothing happens. Before the report. */
void foray_prof_totals(struct foray_prof *p, const uint64_t counter[FORAY_COUNTER_COUNT]);

struct foray_prof_meta {
  const char *device, *model;
  uint32_t prompt_tokens;
  double roof;          /* bytes a ns (GB/s) or a cycle that the memory could give; 0: not known */
  const char *roof_how; /* where that figure comes from */
};
/* NULL when there is no memory. Owned by the caller. */
json_t *foray_prof_report(const struct foray_prof *p, const struct foray_prof_meta *m);

/* FORAY_E_FORMAT: not a report of this version. The text says what is wrong with it. */
enum foray_status foray_prof_check(const json_t *report, struct foray_err *err) FORAY_NODISCARD;

void foray_prof_table(FILE *f, const json_t *report);
/* Two reports side by side, row by row, by falling difference. */
void foray_prof_compare(FILE *f, const json_t *a, const char *a_name, const json_t *b, const char *b_name);
/* Rate against intensity in characters, and the distance of each op from its roof. */
void foray_prof_roofline(FILE *f, const json_t *report);
void foray_prof_svg(FILE *f, const json_t *report);

/* Trace Event JSON, which ui.perfetto.dev and chrome://tracing open: tracks for runs, passes, ops, engines,
 * memory and tokens. text: bytes of a token id (as foray_tokenizer_piece); may be NULL. */
void foray_prof_perfetto(const struct foray_prof *p, FILE *f,
                         const char *(*text)(const void *arg, uint32_t id, size_t *len), const void *arg);

/* What descriptor i is: its name ("ffn_down", "exit_head", "head"), its layer or -1, its exit or -1. */
const char *foray_prof_name(const struct foray_prof *p, uint32_t desc, int *layer, int *exit);

#endif
