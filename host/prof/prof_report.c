/* The report: sums of descriptors by op and by layer, as JSON. */
#include "prof/prof_impl.h"

#include "core/err.h"

#include <stdlib.h>
#include <string.h>

double prof_num(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
const char *prof_str(const json_t *o, const char *key) {
  const char *s = json_string_value(json_object_get(o, key));
  return s ? s : "";
}

/* In a row, fastest is the time if each call had been as fast as the descriptor's fastest. */
static void add(struct prof_sum *to, const struct prof_sum *s) {
  to->fastest += s->fastest * s->calls;
  to->calls += s->calls, to->columns += s->columns, to->time += s->time, to->bytes += s->bytes;
  to->macs += s->macs, to->busy += s->busy, to->starved += s->starved, to->blocked += s->blocked;
  to->row_misses += s->row_misses, to->beats += s->beats;
}

static json_t *row(const char *name, const struct prof_sum *s, bool engines) {
  json_t *r = json_pack("{s:s s:I s:I s:I s:I s:I s:I}", "name", name, "calls", (json_int_t)s->calls,
                        "columns", (json_int_t)s->columns, "time", (json_int_t)s->time, "fastest",
                        (json_int_t)s->fastest, "bytes", (json_int_t)s->bytes, "macs", (json_int_t)s->macs);
  if (!r || !engines) return r;
  json_object_set_new(r, "busy", json_integer((json_int_t)s->busy));
  json_object_set_new(r, "starved", json_integer((json_int_t)s->starved));
  json_object_set_new(r, "blocked", json_integer((json_int_t)s->blocked));
  json_object_set_new(r, "row_misses", json_integer((json_int_t)s->row_misses));
  return r;
}

/* Rows whose descriptors have one name, in the order of the program. */
static json_t *by_op(const struct foray_prof *p) {
  json_t *rows = json_array();
  for (uint32_t i = 0; i < p->n; i++) {
    struct prof_sum s = {0};
    bool first = true;
    for (uint32_t k = 0; k < i && first; k++) first = strcmp(p->part[k].name, p->part[i].name) != 0;
    if (!first) continue;
    for (uint32_t k = i; k < p->n; k++)
      if (!strcmp(p->part[k].name, p->part[i].name)) add(&s, &p->sum[k]);
    if (s.calls) json_array_append_new(rows, row(p->part[i].name, &s, p->engines));
  }
  return rows;
}

static void layer_name(const struct foray_prof *p, uint32_t i, char *to, size_t cap) {
  const struct prof_part *part = &p->part[i];
  if (part->exit >= 0) {
    bool last = true;
    for (uint32_t k = i; k < p->n; k++) last &= p->part[k].exit <= part->exit;
    snprintf(to, cap, last ? "head" : "exit %d", part->exit);
  } else if (part->layer >= 0)
    snprintf(to, cap, "layer %d", part->layer);
  else
    snprintf(to, cap, "embed");
}

static json_t *by_layer(const struct foray_prof *p) {
  json_t *rows = json_array();
  for (uint32_t i = 0; i < p->n;) {
    struct prof_sum s = {0};
    char name[PROF_NAME];
    uint32_t k = i;
    layer_name(p, i, name, sizeof name);
    for (; k < p->n && p->part[k].layer == p->part[i].layer && p->part[k].exit == p->part[i].exit; k++)
      add(&s, &p->sum[k]);
    if (s.calls) json_array_append_new(rows, row(name, &s, p->engines));
    i = k;
  }
  return rows;
}

json_t *foray_prof_report(const struct foray_prof *p, const struct foray_prof_meta *m) {
  uint64_t in_ops = 0;
  json_t *exits = json_array(), *counters = json_object(), *engines = json_object();
  for (uint32_t i = 0; i < p->n; i++) in_ops += p->sum[i].time;
  for (int e = 0; e < FORAY_ABI_TESTS_MAX; e++)
    if (p->tokens[e])
      json_array_append_new(exits, json_pack("{s:i s:I}", "exit", e, "tokens", (json_int_t)p->tokens[e]));
  for (uint32_t i = 0; i < FORAY_COUNTER_COUNT; i++)
    json_object_set_new(counters, foray_counter_name(i), json_integer((json_int_t)p->counter[i]));
  for (int i = 0; p->engines && i < FORAY_ENGINE_COUNT; i++) {
    const struct foray_trace_engine *e = &p->engine[i];
    uint64_t used = e->busy + e->starved + e->blocked;
    json_object_set_new(engines, prof_engine_name(i),
                        json_pack("{s:I s:I s:I s:I}", "busy", (json_int_t)e->busy, "starved",
                                  (json_int_t)e->starved, "blocked", (json_int_t)e->blocked, "idle",
                                  (json_int_t)(p->runs.time > used ? p->runs.time - used : 0)));
  }
  double roof = m->roof > 0 ? m->roof : p->port_bytes;
  return json_pack(
      "{s:s s:i s:s s:s s:s s:I s:I s:I s:I s:I s:I s:f s:s s:o s:o s:o s:o s:o}", "format", "foray-profile",
      "version", FORAY_PROF_VERSION, "device", m->device, "model", m->model, "unit", p->ns ? "ns" : "cycles",
      "prompt_tokens", (json_int_t)m->prompt_tokens, "drafted", (json_int_t)p->drafted, "runs",
      (json_int_t)p->runs.calls, "time", (json_int_t)p->runs.time, "time_in_ops", (json_int_t)in_ops, "bytes",
      (json_int_t)p->runs.bytes, "roof", roof, "roof_how",
      m->roof > 0     ? m->roof_how
      : p->port_bytes ? "width of the memory ports"
                      : "not known",
      "exits", exits, "counters", counters, "engines", engines, "ops", by_op(p), "layers", by_layer(p));
}

enum foray_status foray_prof_check(const json_t *r, struct foray_err *err) {
  static const char *const row_keys[] = {"calls", "columns", "time", "fastest", "bytes", "macs"};
  if (strcmp(prof_str(r, "format"), "foray-profile"))
    return foray_err_set(err, FORAY_E_FORMAT, "not a profile: \"format\" is not \"foray-profile\"");
  if ((int)prof_num(r, "version") != FORAY_PROF_VERSION)
    return foray_err_set(err, FORAY_E_FORMAT, "profile of version %g; this program reads version %d",
                         prof_num(r, "version"), FORAY_PROF_VERSION);
  static const char *const lists[] = {"ops", "layers"};
  for (int l = 0; l < 2; l++) {
    const json_t *rows = json_object_get(r, lists[l]);
    if (!json_is_array(rows)) return foray_err_set(err, FORAY_E_FORMAT, "profile without \"%s\"", lists[l]);
    for (size_t i = 0; i < json_array_size(rows); i++) {
      const json_t *o = json_array_get(rows, i);
      bool good = json_is_string(json_object_get(o, "name"));
      for (size_t k = 0; k < sizeof row_keys / sizeof *row_keys; k++)
        good &= prof_num(o, row_keys[k]) >= 0 && json_is_number(json_object_get(o, row_keys[k]));
      if (!good)
        return foray_err_set(err, FORAY_E_FORMAT, "profile: row %zu of \"%s\" is malformed", i, lists[l]);
    }
  }
  return FORAY_OK;
}
