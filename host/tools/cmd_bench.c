/* foray bench: every prompt of a file, plain and drafted in the same run, compared token by token. */
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/gen_opts.h"
#include "hosttools/show.h"

#include <stdlib.h>
#include <string.h>

enum { CATEGORIES_MAX = 64, CATEGORY_NAME_MAX = 48 };

struct prompt {
  char *text; /* owned */
  int category;
};

struct sum {
  char name[CATEGORY_NAME_MAX];
  uint32_t prompts, equal;
  struct foray_result r; /* sums; ids and text unused */
  uint64_t plain_bytes_up, plain_bytes_down;
  double plain_seconds;
};

struct set {
  struct prompt *prompts; /* owned */
  size_t n, cap;
  struct sum sums[CATEGORIES_MAX];
  int n_categories;
};

static void set_free(struct set *s) {
  for (size_t i = 0; i < s->n; i++) free(s->prompts[i].text);
  free(s->prompts);
}

static int category(struct set *s, const char *name) {
  for (int i = 0; i < s->n_categories; i++)
    if (!strcmp(s->sums[i].name, name)) return i;
  if (s->n_categories == CATEGORIES_MAX) return -1;
  snprintf(s->sums[s->n_categories].name, CATEGORY_NAME_MAX, "%s", name);
  return s->n_categories++;
}

static enum foray_status add_line(struct set *s, const char *line, size_t len, const char *path,
                                  size_t number, struct foray_err *err) {
  json_error_t je;
  json_t *j = json_loadb(line, len, JSON_REJECT_DUPLICATES, &je);
  if (!j) return foray_err_set(err, FORAY_E_FORMAT, "%s: line %zu: %s", path, number, je.text);
  const char *cat = json_string_value(json_object_get(j, "category"));
  json_t *turns = json_object_get(j, "turns");
  const char *text =
      json_string_value(json_is_array(turns) ? json_array_get(turns, 0) : json_object_get(j, "prompt"));
  enum foray_status st = FORAY_OK;
  int c = text ? category(s, cat ? cat : "all prompts") : 0;
  if (!text)
    st = foray_err_set(err, FORAY_E_FORMAT, "%s: line %zu has neither \"turns\": [text] nor \"prompt\": text",
                       path, number);
  else if (c < 0)
    st = foray_err_set(err, FORAY_E_LIMIT, "%s: line %zu: more than %d categories", path, number,
                       CATEGORIES_MAX);
  if (!st && s->n == s->cap) {
    size_t cap = s->cap ? 2 * s->cap : 64;
    struct prompt *p = realloc(s->prompts, cap * sizeof *p);
    if (!p) st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
    if (p) s->prompts = p, s->cap = cap;
  }
  if (!st) {
    struct prompt *p = &s->prompts[s->n];
    p->category = c;
    p->text = strdup(text);
    if (p->text)
      s->n++;
    else
      st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  }
  json_decref(j);
  return st;
}

static enum foray_status load(struct set *s, const char *path, struct foray_err *err) {
  struct foray_buf in;
  enum foray_status st = tool_read_input(path, &in, err);
  size_t number = 0;
  for (const char *p = (const char *)in.data, *end = p ? p + in.len : p; !st && p < end;) {
    const char *nl = memchr(p, '\n', (size_t)(end - p));
    size_t len = nl ? (size_t)(nl - p) : (size_t)(end - p);
    number++;
    if (strspn(p, " \t\r") < len) st = add_line(s, p, len, path, number, err);
    p += len + 1;
  }
  foray_buf_deinit(&in);
  if (!st && !s->n) st = foray_err_set(err, FORAY_E_FORMAT, "%s: no prompts", path);
  return st;
}

/* With a limit the prompts are taken round robin over the categories, so that few prompts still show all. */
static void limit(struct set *s, size_t want) {
  if (!want || want >= s->n) return;
  size_t taken = 0;
  for (size_t round = 0; taken < want; round++)
    for (int c = 0; c < s->n_categories && taken < want; c++) {
      size_t seen = 0;
      for (size_t i = taken; i < s->n; i++) {
        size_t before = 0;
        for (size_t k = 0; k < taken; k++) before += s->prompts[k].category == c;
        if (before > round) break;
        if (s->prompts[i].category != c || seen++) continue;
        struct prompt p = s->prompts[i];
        memmove(&s->prompts[taken + 1], &s->prompts[taken], (i - taken) * sizeof p);
        s->prompts[taken++] = p;
        break;
      }
    }
  for (size_t i = want; i < s->n; i++) free(s->prompts[i].text);
  s->n = want;
}

static void add(struct sum *to, const struct foray_result *r, const struct foray_result *plain, bool equal) {
  to->prompts++;
  to->equal += equal;
  to->r.tokens += r->tokens;
  to->r.prompt_tokens += r->prompt_tokens;
  to->r.verifications += r->verifications;
  to->r.drafted += r->drafted;
  to->r.accepted += r->accepted;
  to->r.n_exits = r->n_exits;
  for (uint32_t e = 0; e < FORAY_EXITS_SHOWN_MAX; e++) {
    to->r.exits[e].layer = r->exits[e].layer;
    to->r.exits[e].drafted += r->exits[e].drafted;
    to->r.exits[e].accepted += r->exits[e].accepted;
    to->r.exits[e].judged += r->exits[e].judged;
  }
  to->r.bytes_up += r->bytes_up;
  to->r.bytes_down += r->bytes_down;
  to->r.device_bytes += r->device_bytes;
  to->r.device_prompt_bytes += r->device_prompt_bytes;
  to->r.seconds += r->seconds;
  to->r.draft_seconds += r->draft_seconds;
  to->r.wait_seconds += r->wait_seconds;
  to->plain_bytes_up += plain->bytes_up;
  to->plain_bytes_down += plain->bytes_down;
  to->plain_seconds += plain->seconds;
}

static double ratio(double a, double b) { return b > 0 ? a / b : 0; }

static json_t *sum_json(const struct sum *s) {
  const struct foray_result *r = &s->r;
  return json_pack("{s:I s:I s:I s:I s:I s:I s:I s:o s:I s:I s:I s:I s:I s:I s:f s:f s:f s:f s:f s:f s:f}",
                   "prompts", (json_int_t)s->prompts, "equal", (json_int_t)s->equal, "tokens",
                   (json_int_t)r->tokens, "prompt_tokens", (json_int_t)r->prompt_tokens, "verifications",
                   (json_int_t)r->verifications, "drafted", (json_int_t)r->drafted, "accepted",
                   (json_int_t)r->accepted, "exits", show_exits_json(r), "bytes_up", (json_int_t)r->bytes_up,
                   "bytes_down", (json_int_t)r->bytes_down, "plain_bytes_up", (json_int_t)s->plain_bytes_up,
                   "plain_bytes_down", (json_int_t)s->plain_bytes_down, "device_bytes",
                   (json_int_t)r->device_bytes, "device_prompt_bytes", (json_int_t)r->device_prompt_bytes,
                   "accepted_per_device_mb", ratio(r->accepted, (double)r->device_bytes / 1e6), "seconds",
                   r->seconds, "draft_seconds", r->draft_seconds, "wait_seconds", r->wait_seconds,
                   "plain_seconds", s->plain_seconds, "tokens_per_verification",
                   ratio(r->tokens, r->verifications), "speedup", ratio(s->plain_seconds, r->seconds));
}

static void print_row(const struct sum *s) {
  const struct foray_result *r = &s->r;
  printf("%-16s %4u/%-4u %7u %6.2f %7.1f%% %8.1f %8.1f %9.3f %8.2fx\n", s->name, s->equal, s->prompts,
         r->tokens, ratio(r->tokens, r->verifications), 100 * ratio(r->accepted, r->drafted),
         ratio((double)r->bytes_up, r->tokens), ratio((double)r->bytes_down, r->tokens),
         ratio(r->accepted, (double)r->device_bytes / 1e6), ratio(s->plain_seconds, r->seconds));
}

static bool keep_going(void *user, const struct foray_token *t) {
  (void)user;
  (void)t;
  return !tool_interrupted();
}

static enum foray_status run_all(struct set *set, struct foray_generator *g, const struct gen_opts *o,
                                 bool raw, struct sum *all, struct foray_err *err) {
  struct tool_progress bar;
  tool_progress_begin(&bar, "bench", false, o->quiet);
  enum foray_status s = FORAY_OK;
  for (size_t i = 0; !s && i < set->n; i++) {
    struct foray_request r;
    struct foray_result spec = {0}, plain = {0};
    gen_opts_request(o, &r);
    r.prompt = set->prompts[i].text;
    r.chat = !raw;
    r.mode = FORAY_GENERATE_PLAIN;
    s = foray_generator_run(g, &r, keep_going, NULL, &plain, err);
    r.mode = FORAY_GENERATE_SPECULATIVE;
    if (!s) s = foray_generator_run(g, &r, keep_going, NULL, &spec, err);
    if (s) {
      foray_err_prefix(err, "prompt %zu", i + 1);
    } else {
      bool equal = show_equal(&spec, &plain);
      add(&set->sums[set->prompts[i].category], &spec, &plain, equal);
      add(all, &spec, &plain, equal);
      if (!equal)
        fprintf(stderr, "prompt %zu (%s): the texts differ\n", i + 1,
                set->sums[set->prompts[i].category].name);
    }
    foray_result_deinit(&spec);
    foray_result_deinit(&plain);
    tool_progress_update(&bar, i + 1, set->n);
  }
  tool_progress_end(&bar, !s);
  return s;
}

int cmd_bench(int argc, char **argv) {
  struct gen_opts o;
  const char *path = NULL;
  int limit_n = 0;
  bool raw = false;
  gen_opts_init(&o);
  const struct foray_opt own[] = {
      {"prompts", 'f', FORAY_OPT_STR, &path, "FILE",
       "prompts, one JSON object a line: {\"category\", \"turns\": [text, ...]}; the first turn is used", 0,
       0},
      {"limit", 0, FORAY_OPT_INT, &limit_n, "N", "use N prompts, taken evenly over the categories (0: all)",
       0, 1 << 30},
      {"raw|no-conversation", 0, FORAY_OPT_FLAG, &raw, NULL,
       "continue the prompts as they are instead of answering them", 0, 0},
      {0}};
  struct foray_opt table[GEN_OPTS_MAX];
  gen_opts_table(&o, own, table);
  const struct foray_command cmd = {
      "foray bench", "--prompts FILE --edge MODEL --cloud spawn:MODEL [OPTIONS]",
      "Decode every prompt plainly in the cloud and with drafts, compare the texts, count everything.", table,
      "Columns: equal texts / prompts, tokens, tokens a verification, accepted drafts, bytes up and down a "
      "token,\n"
      "accepted tokens a megabyte streamed from device memory, speed against plain decoding in the same "
      "run."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (!path && rest < argc) path = argv[rest];
  if (!path || o.plain || o.alone) {
    foray_err_set(&err, FORAY_E_ARG,
                  path ? "--plain and --alone make no sense here" : "name the prompts with --prompts FILE");
    return tool_fail(cmd.name, &err);
  }
  if (gen_opts_finish(&o, &err)) return tool_fail(cmd.name, &err);
  struct set set = {0};
  struct sum all = {.name = "all"};
  struct foray_generator *g = NULL;
  int rc = TOOL_EXIT_OK;
  tool_interrupt_install();
  enum foray_status s = load(&set, path, &err);
  if (!s) limit(&set, (size_t)limit_n);
  if (!s) s = gen_opts_open(&o, &g, &err);
  if (!s) s = run_all(&set, g, &o, raw, &all, &err);
  if (s) {
    rc = tool_fail(cmd.name, &err);
  } else if (o.json) {
    json_t *j = sum_json(&all), *cats = json_object();
    json_object_set_new(j, "all", sum_json(&all));
    for (int c = 0; c < set.n_categories; c++)
      if (set.sums[c].prompts) json_object_set_new(cats, set.sums[c].name, sum_json(&set.sums[c]));
    json_object_set_new(j, "categories", cats);
    json_object_set_new(j, "edge", json_string(o.edge));
    json_object_set_new(j, "cloud", json_string(o.cloud));
    rc = show_json(j);
  } else {
    printf("%-16s %9s %7s %6s %8s %8s %8s %9s %9s\n", "CATEGORY", "EQUAL", "TOKENS", "T/VER", "ACCEPTED",
           "UP B/T", "DOWN B/T", "ACC/MB", "SPEED");
    for (int c = 0; c < set.n_categories; c++)
      if (set.sums[c].prompts) print_row(&set.sums[c]);
    print_row(&all);
  }
  if (!s && all.equal != all.prompts) rc = TOOL_EXIT_FAILURE;
  gen_opts_close(g);
  set_free(&set);
  return rc;
}
