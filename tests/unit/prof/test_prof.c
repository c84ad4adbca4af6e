/* Profiles of the tiny program: the sums are the device's own counters, names follow the model's parts, what
 * is written can be read again. */
#include "unit/harness.h"
#include "unit/tiny_program.h"

#include "prof/prof.h"

#include <stdio.h>

static const uint32_t prompt[] = {3, 50, 7,  99, 21, 0, 64, 8,  77, 31, 12,
                                  5, 88, 43, 9,  61, 2, 18, 33, 70, 54};
enum { P = sizeof prompt / sizeof *prompt, DRAFTS = 24 };

static struct tiny t;
static struct foray_prof *prof;

static json_t *run(const char *spec) {
  struct foray_prof_meta meta = {spec, "tiny <&>", P, 10, "said so"};
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, spec, 6, 4));
  CU_ASSERT_EQUAL_FATAL(
      foray_prof_open((const uint32_t(*)[FORAY_ABI_DESC_WORDS])t.w, t.n, true, &prof, &t.err), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_trace(t.d, &(struct foray_dev_trace){foray_prof_event, prof}, &t.err), FORAY_OK);
  t.run.tests = 3;
  t.run.exit_rule[0] = -52428, t.run.exit_rule[1] = 65536; /* all depths occur */
  t.run.exit_rule[8] = -26214, t.run.exit_rule[9] = 65536;
  CU_ASSERT_EQUAL_FATAL(tiny_run(&t, prompt, P, 0, DRAFTS), FORAY_OK);
  json_t *r = foray_prof_report(prof, &meta);
  CU_ASSERT_PTR_NOT_NULL_FATAL(r);
  return r;
}
static void done(json_t *r) {
  json_decref(r);
  foray_prof_close(prof);
  tiny_close(&t);
}

static double num(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static double total(const json_t *r, const char *list, const char *key) {
  const json_t *rows = json_object_get(r, list);
  double s = 0;
  for (size_t i = 0; i < json_array_size(rows); i++) s += num(json_array_get(rows, i), key);
  return s;
}
static const json_t *row(const json_t *r, const char *list, const char *name) {
  const json_t *rows = json_object_get(r, list);
  for (size_t i = 0; i < json_array_size(rows); i++)
    if (!strcmp(json_string_value(json_object_get(json_array_get(rows, i), "name")), name))
      return json_array_get(rows, i);
  return NULL;
}

TEST(a_report_adds_up_to_the_counters) {
  json_t *r = run("ref");
  uint64_t c[FORAY_COUNTER_COUNT];
  foray_dev_counters(t.d, c);
  for (int i = 0; i < 2; i++) {
    const char *list = i ? "layers" : "ops";
    CU_ASSERT_EQUAL(total(r, list, "calls"), (double)c[FORAY_COUNTER_OPS]);
    CU_ASSERT_EQUAL(total(r, list, "time"), num(r, "time_in_ops"));
    CU_ASSERT(total(r, list, "fastest") <= total(r, list, "time"));
    CU_ASSERT_EQUAL(total(r, list, "macs"), total(r, "ops", "macs"));
  }
  CU_ASSERT_EQUAL(num(json_object_get(r, "counters"), "WEIGHT_BYTES"), (double)c[FORAY_COUNTER_WEIGHT_BYTES]);
  CU_ASSERT(num(r, "time_in_ops") <= num(r, "time"));
  CU_ASSERT_EQUAL(num(r, "drafted"), DRAFTS);
  double tokens = 0;
  const json_t *exits = json_object_get(r, "exits");
  for (size_t i = 0; i < json_array_size(exits); i++) tokens += num(json_array_get(exits, i), "tokens");
  CU_ASSERT_EQUAL(tokens, DRAFTS);
  done(r);
}

TEST(parts_have_their_names) {
  json_t *r = run("ref");
  static const char *const names[] = {"embed",    "attn_norm", "attn_q",      "attn_k", "attn_v",
                                      "rope_q",   "rope_k",    "kv_put",      "attn",   "attn_output",
                                      "attn_add", "ffn_norm",  "ffn_gate",    "ffn_up", "ffn_act",
                                      "ffn_down", "ffn_add",   "output_norm", "head"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    CU_ASSERT_PTR_NOT_NULL(row(r, "ops", names[i]));
    if (!row(r, "ops", names[i])) printf("no %s\n", names[i]);
  }
  static const char *const parts[] = {"embed", "layer 0", "layer 1", "layer 2", "exit 0", "exit 1", "head"};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    CU_ASSERT_PTR_NOT_NULL(row(r, "layers", parts[i]));
  /* a product's multiplications: rows x columns of the matrix x columns of the batch */
  const json_t *q = row(r, "ops", "attn_q");
  CU_ASSERT_EQUAL(num(q, "macs"), num(q, "columns") * TINY_HEADS * TINY_HD * TINY_WIDTH);
  /* every layer's program is alike */
  CU_ASSERT(num(row(r, "layers", "layer 0"), "calls") >= num(row(r, "layers", "layer 2"), "calls"));
  int layer, exit, heads = 0;
  for (uint32_t i = 0; i < t.n; i++)
    if (!strcmp(foray_prof_name(prof, i, &layer, &exit), "head")) {
      heads++;
      CU_ASSERT_EQUAL(exit, 2);
    }
  CU_ASSERT_EQUAL(heads, 1);
  CU_ASSERT_STRING_EQUAL(foray_prof_name(prof, t.n, &layer, &exit), "");
  done(r);
}

static char *written(void (*fn)(FILE *f, const json_t *r), const json_t *r, size_t *len) {
  char *text = NULL;
  FILE *f = open_memstream(&text, len);
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  fn(f, r);
  fclose(f);
  return text;
}

static const char *text_of(const void *arg, uint32_t id, size_t *len) {
  static char s[16];
  (void)arg;
  *len = (size_t)snprintf(s, sizeof s, id % 3 ? "\"t%u\"\n" : "\xff%u", id); /* to be escaped; not UTF-8 */
  return s;
}

static void perfetto(FILE *f, const json_t *r) {
  (void)r;
  foray_prof_perfetto(prof, f, text_of, NULL);
}

TEST(a_trace_is_json_with_every_op_on_its_track) {
  json_t *r = run("ref");
  size_t len;
  char *text = written(perfetto, r, &len);
  json_error_t je;
  json_t *j = json_loadb(text, len, 0, &je);
  CU_ASSERT_PTR_NOT_NULL_FATAL(j);
  const json_t *events = json_object_get(j, "traceEvents");
  double ops = 0, on_engines = 0, tokens = 0, named = 0;
  for (size_t i = 0; i < json_array_size(events); i++) {
    const json_t *e = json_array_get(events, i);
    const char *ph = json_string_value(json_object_get(e, "ph"));
    CU_ASSERT_PTR_NOT_NULL_FATAL(ph);
    CU_ASSERT_PTR_NOT_NULL(json_string_value(json_object_get(e, "name")));
    named += !strcmp(ph, "M");
    if (strcmp(ph, "X")) continue;
    CU_ASSERT(num(e, "dur") >= 0 && num(e, "ts") >= 0);
    ops += num(e, "tid") == 4, on_engines += num(e, "tid") > 5, tokens += num(e, "tid") == 2;
  }
  CU_ASSERT_EQUAL(ops, total(r, "ops", "calls"));
  CU_ASSERT_EQUAL(on_engines, ops);
  CU_ASSERT_EQUAL(tokens, DRAFTS);
  CU_ASSERT(named > 12);
  json_decref(j);
  free(text);
  done(r);
}

TEST(tables_roofline_and_svg_name_every_product) {
  json_t *r = run("ref");
  static void (*const fn[])(FILE *, const json_t *) = {foray_prof_table, foray_prof_roofline, foray_prof_svg};
  for (int i = 0; i < 3; i++) {
    size_t len;
    char *text = written(fn[i], r, &len);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "ffn_down"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "attn_q"));
    CU_ASSERT_PTR_NULL(strstr(text, "nan"));
    CU_ASSERT_PTR_NULL(strstr(text, "inf"));
    if (i == 2) CU_ASSERT_PTR_NOT_NULL(strstr(text, "tiny &lt;&amp;&gt;"));
    free(text);
  }
  done(r);
}

TEST(two_reports_are_compared_row_by_row) {
  json_t *r = run("ref"), *slow = json_deep_copy(r);
  json_t *down = (json_t *)(uintptr_t)row(slow, "ops", "ffn_down");
  json_object_set_new(down, "fastest", json_real(num(down, "fastest") * 3 + 1e9));
  char *text = NULL;
  size_t len;
  FILE *f = open_memstream(&text, &len);
  foray_prof_compare(f, r, "a.json", slow, "b.json");
  fclose(f);
  const char *first = strstr(text, "OP  "), *where = strstr(text, "ffn_down");
  CU_ASSERT_PTR_NOT_NULL_FATAL(first);
  CU_ASSERT_PTR_NOT_NULL_FATAL(where);
  CU_ASSERT_EQUAL(strchr(first, '\n') + 1, where); /* the largest difference stands first */
  free(text);
  json_decref(slow);
  done(r);
}

TEST(what_is_no_report_is_refused) {
  json_t *r = run("ref");
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(foray_prof_check(r, &err), FORAY_OK);
  static const char *const bad[] = {
      "{}",
      "[]",
      "{\"format\":\"foray-profile\",\"version\":99}",
      "{\"format\":\"foray-profile\",\"version\":1}",
      "{\"format\":\"foray-profile\",\"version\":1,\"ops\":[{}],\"layers\":[]}",
      "{\"format\":\"foray-profile\",\"version\":1,\"ops\":[{\"name\":\"x\",\"calls\":-1}],\"layers\":[]}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    json_t *j = json_loads(bad[i], 0, NULL);
    CU_ASSERT_EQUAL(foray_prof_check(j, &err), FORAY_E_FORMAT);
    json_decref(j);
  }
  done(r);
}

/* Hardware tells cycles through its counters; a device that tells nothing else still has a report. */
TEST(counters_alone_make_a_report_with_engines) {
  struct foray_prof_meta meta = {"sim", "tiny", 1, 0, ""};
  struct foray_err err;
  CU_ASSERT_EQUAL_FATAL(foray_prof_open(NULL, 0, false, &prof, &err), FORAY_OK);
  struct foray_trace_event e = {.kind = FORAY_TRACE_RUN, .desc = UINT32_MAX, .end = 1000, .port_bytes = 64};
  e.counter[FORAY_COUNTER_MATRIX_BUSY] = 700, e.counter[FORAY_COUNTER_MATRIX_STARVED] = 200;
  e.counter[FORAY_COUNTER_MATRIX_BLOCKED] = 50, e.counter[FORAY_COUNTER_CYC_SEQ] = 30;
  e.counter[FORAY_COUNTER_WEIGHT_BYTES] = 44800;
  foray_prof_event(prof, &e);
  json_t *r = foray_prof_report(prof, &meta);
  const json_t *m = json_object_get(json_object_get(r, "engines"), "matrix");
  CU_ASSERT_EQUAL(num(m, "busy"), 700);
  CU_ASSERT_EQUAL(num(m, "starved"), 200);
  CU_ASSERT_EQUAL(num(m, "blocked"), 50);
  CU_ASSERT_EQUAL(num(m, "idle"), 50); /* each cycle is one of the four */
  CU_ASSERT_EQUAL(num(r, "roof"), 64);
  CU_ASSERT_EQUAL(foray_prof_check(r, &err), FORAY_OK);
  size_t len;
  char *text = written(foray_prof_table, r, &len);
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "matrix"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "only its counters"));
  free(text);
  json_decref(r);
  foray_prof_close(prof);
}

/* A simulator tells ops without counters and no runs: bytes then are what the ops have to move. */
static void without_counters(void *arg, const struct foray_trace_event *e) {
  struct foray_trace_event bare = *e;
  memset(bare.counter, 0, sizeof bare.counter);
  if (e->kind != FORAY_TRACE_RUN) foray_prof_event(arg, &bare);
}

TEST(ops_without_counters_have_the_bytes_that_they_must_move) {
  struct foray_prof_meta meta = {"sim", "tiny", P, 0, ""};
  json_t *r = run("ref"), *bare;
  struct foray_prof *full = prof;
  tiny_close(&t);
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 6, 4));
  CU_ASSERT_EQUAL_FATAL(
      foray_prof_open((const uint32_t(*)[FORAY_ABI_DESC_WORDS])t.w, t.n, true, &prof, &t.err), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_trace(t.d, &(struct foray_dev_trace){without_counters, prof}, &t.err), FORAY_OK);
  t.run.tests = 3;
  t.run.exit_rule[0] = -52428, t.run.exit_rule[1] = 65536;
  t.run.exit_rule[8] = -26214, t.run.exit_rule[9] = 65536;
  CU_ASSERT_EQUAL_FATAL(tiny_run(&t, prompt, P, 0, DRAFTS), FORAY_OK);
  uint64_t c[FORAY_COUNTER_COUNT];
  foray_dev_counters(t.d, c);
  foray_prof_totals(prof, c);
  bare = foray_prof_report(prof, &meta);
  const json_t *rows = json_object_get(r, "ops");
  for (size_t i = 0; i < json_array_size(rows); i++) {
    const json_t *want = json_array_get(rows, i);
    const char *name = json_string_value(json_object_get(want, "name"));
    if (strncmp(name, "exit_", 5) == 0) continue; /* KEEP and PREV move residuals */
    CU_ASSERT_EQUAL(num(row(bare, "ops", name), "bytes"), num(want, "bytes"));
  }
  CU_ASSERT_EQUAL(num(bare, "bytes"), num(r, "bytes"));
  CU_ASSERT_EQUAL(num(bare, "time"), (double)c[FORAY_COUNTER_BUSY]);
  CU_ASSERT_EQUAL(num(bare, "runs"), 1);
  json_decref(bare);
  foray_prof_close(full);
  done(r);
}
