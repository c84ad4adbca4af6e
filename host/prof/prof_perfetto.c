/* Trace Event JSON. One process, a track a thread id; a cycle is shown as a nanosecond. */
#include "prof/prof_impl.h"

#include <stdlib.h>
#include <string.h>

enum { RUNS = 1, TOKENS, PASSES, OPS, MEMORY, ENGINES /* and the five behind it */ };

static const char *const bytes_name[PROF_BYTES] = {"weights", "kv", "vectors", "residuals and descriptors"};

static double us(const struct foray_prof *p, uint64_t t) {
  return (double)(t - (p->n_events ? p->events[0].begin : 0)) / 1e3;
}

static void head(FILE *f, bool *first, const char *phase, int track) {
  fprintf(f, "%s{\"ph\":\"%s\",\"pid\":1,\"tid\":%d", *first ? "" : ",\n", phase, track);
  *first = false;
}

static void string(FILE *f, const char *key, const char *s, size_t len) {
  json_t *j = json_stringn_nocheck(s, len);
  char *text = j ? json_dumps(j, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
  fprintf(f, "\"%s\":%s", key, text ? text : "\"?\""); /* bytes that are not UTF-8 cannot be dumped */
  free(text);
  json_decref(j);
}

static void track(FILE *f, bool *first, int tid, const char *name) {
  head(f, first, "M", tid);
  fprintf(f, ",\"name\":\"thread_name\",\"args\":{\"name\":\"%s\"}}", name);
  head(f, first, "M", tid);
  fprintf(f, ",\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":%d}}", tid);
}

static void slice(const struct foray_prof *p, FILE *f, bool *first, int tid, const struct prof_event *e) {
  head(f, first, "X", tid);
  fprintf(f, ",\"ts\":%.3f,\"dur\":%.3f,", us(p, e->begin), (double)(e->end - e->begin) / 1e3);
}

static void where(FILE *f, const struct prof_event *e) {
  fprintf(f, "\"position\":%u,\"columns\":%u,\"segment\":%u", e->position, e->columns, e->segment);
}

static void bytes(FILE *f, const struct prof_event *e) {
  for (int k = 0; k < PROF_BYTES; k++)
    if (e->bytes[k]) fprintf(f, ",\"%s bytes\":%llu", bytes_name[k], (unsigned long long)e->bytes[k]);
}

static void part_name(const struct foray_prof *p, FILE *f, const struct prof_event *e) {
  const struct prof_part *part = &p->part[e->desc];
  if (part->layer >= 0)
    fprintf(f, "\"name\":\"%d %s\"", part->layer, part->name);
  else
    fprintf(f, "\"name\":\"%s\"", part->name);
}

static void op(const struct foray_prof *p, FILE *f, bool *first, const struct prof_event *e, int tid) {
  slice(p, f, first, tid, e);
  part_name(p, f, e);
  fprintf(f, ",\"args\":{\"descriptor\":%u,", e->desc);
  where(f, e);
  bytes(f, e);
  fputs("}}", f);
}

static void memory(const struct foray_prof *p, FILE *f, bool *first, const struct prof_event *e) {
  int most = 0;
  uint64_t sum = 0;
  for (int k = 0; k < PROF_BYTES; k++) {
    sum += e->bytes[k];
    if (e->bytes[k] > e->bytes[most]) most = k;
  }
  if (!sum) return;
  slice(p, f, first, MEMORY, e);
  fprintf(f, "\"name\":\"%s\",\"args\":{\"bytes\":%llu", bytes_name[most], (unsigned long long)sum);
  bytes(f, e);
  fputs("}}", f);
  head(f, first, "C", MEMORY);
  fprintf(f, ",\"ts\":%.3f,\"name\":\"%s\",\"args\":{\"rate\":%.3f}}", us(p, e->begin),
          p->ns ? "GB/s" : "bytes a cycle",
          e->end > e->begin ? (double)sum / (double)(e->end - e->begin) : 0);
}

void foray_prof_perfetto(const struct foray_prof *p, FILE *f,
                         const char *(*text)(const void *arg, uint32_t id, size_t *len), const void *arg) {
  bool first = true, spans = false;
  uint64_t token_begin = p->n_events ? p->events[0].begin : 0;
  fprintf(
      f,
      "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"unit\":\"%s\",\"events_lost\":%llu},\"traceEvents\":[\n",
      p->ns ? "ns" : "cycles, shown as ns", (unsigned long long)p->lost);
  head(f, &first, "M", 0);
  fputs(",\"name\":\"process_name\",\"args\":{\"name\":\"draft program\"}}", f);
  track(f, &first, RUNS, "doorbells");
  track(f, &first, TOKENS, "tokens by exit");
  track(f, &first, PASSES, "segment passes");
  track(f, &first, OPS, "ops");
  track(f, &first, MEMORY, "memory");
  for (int i = FORAY_ENGINE_MATRIX; i < FORAY_ENGINE_COUNT; i++) {
    char name[32];
    snprintf(name, sizeof name, "%s engine", prof_engine_name(i));
    track(f, &first, ENGINES + i, name);
  }
  for (size_t i = 0; i < p->n_events && !spans; i++) spans = p->events[i].kind == FORAY_TRACE_SPAN;
  for (size_t i = 0; i < p->n_events; i++) {
    const struct prof_event *e = &p->events[i];
    switch (e->kind) {
    case FORAY_TRACE_RUN:
      slice(p, f, &first, RUNS, e);
      fprintf(f, "\"name\":\"run\",\"args\":{\"start\":%u,\"fed\":%u}}", e->position, e->columns);
      break;
    case FORAY_TRACE_PASS:
      slice(p, f, &first, PASSES, e);
      fprintf(f, "\"name\":\"segment %u\",\"args\":{", e->segment);
      where(f, e);
      bytes(f, e);
      fputs("}}", f);
      break;
    case FORAY_TRACE_OP:
      if (e->desc >= p->n) break;
      op(p, f, &first, e, OPS);
      if (!spans) op(p, f, &first, e, ENGINES + e->engine);
      memory(p, f, &first, e);
      break;
    case FORAY_TRACE_SPAN:
      if (e->desc < p->n)
        op(p, f, &first, e, e->engine == FORAY_ENGINE_MEMORY ? MEMORY : ENGINES + e->engine);
      break;
    case FORAY_TRACE_TOKEN: {
      struct prof_event t = *e;
      size_t len = 0;
      const char *s = text ? text(arg, e->token, &len) : NULL;
      char id[24];
      if (!s || !len) len = (size_t)snprintf(id, sizeof id, "<%u>", e->token), s = id;
      t.begin = token_begin > e->end ? e->end : token_begin;
      slice(p, f, &first, TOKENS, &t);
      string(f, "name", s, len);
      fprintf(f, ",\"args\":{\"id\":%u,\"exit\":%d,\"segment\":%u,\"position\":%u,\"top probability\":%.4f}}",
              e->token, e->exit, e->segment, e->position, e->top_prob / 65536.0);
      token_begin = e->end;
      break;
    }
    default: break;
    }
  }
  fputs("\n]}\n", f);
}
