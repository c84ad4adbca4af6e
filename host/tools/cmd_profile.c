/* foray profile: one prompt on one device, watched; where time and bytes went. */
#include "api/edge_node.h"
#include "core/args.h"
#include "core/clock.h"
#include "core/err.h"
#include "core/pool.h"
#include "dev/device.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"
#include "hosttools/show.h"
#include "model/chat.h"
#include "prof/prof.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { READ_BYTES = 64 << 20, READ_ROUNDS = 12 };

struct job {
  const char *model, *device, *exits, *prompt, *save, *svg, *trace;
  int ctx, threads, n, draft_max;
  double roof;
  bool json, quiet, raw, no_exits, full_head, with_prompt, compare;
  struct foray_edge_node *node;
  struct foray_prof *prof;
  uint32_t prompt_tokens;
  json_t *report;
};

/* ---- what the processor's memory gives, for devices that live in it ---- */

struct reading {
  const uint64_t *words;
  size_t n;
  uint64_t sum[64];
};

static void read_part(void *arg, int part, int thread) {
  struct reading *r = arg;
  (void)thread;
  size_t from = r->n / 64 * (size_t)part;
  uint64_t s[8] = {0};
  for (size_t i = from; i < from + r->n / 64; i += 8)
    for (size_t k = 0; k < 8; k++) s[k] += r->words[i + k];
  for (int k = 0; k < 8; k++) r->sum[part] += s[k];
}

/* GB/s of reading a buffer that no cache holds, the best of some rounds; 0 without memory. */
static double read_speed(int threads, struct foray_err *err) {
  struct foray_pool *pool = NULL;
  uint64_t *p = malloc(READ_BYTES);
  double best = 0;
  if (p && foray_pool_open(threads, &pool, err) == FORAY_OK) {
    memset(p, 1, READ_BYTES);
    for (int k = 0; k < READ_ROUNDS; k++) {
      struct reading r = {.words = p, .n = READ_BYTES / 8};
      int64_t begin = foray_clock_ns();
      foray_pool_run(pool, read_part, &r, 64);
      double speed = (double)READ_BYTES / (double)(foray_clock_ns() - begin);
      if (speed > best && r.sum[0]) best = speed;
    }
  }
  foray_pool_close(pool);
  free(p);
  return best;
}

/* ---- the run ---- */

static enum foray_status encode(const struct job *j, struct foray_ids *ids, struct foray_err *err) {
  const struct foray_model *m = foray_edge_node_model(j->node);
  struct foray_chat chat;
  if (j->raw || foray_chat_open(m->gguf, NULL, &chat, NULL) != FORAY_OK)
    return foray_tokenizer_encode(m->tokenizer, j->prompt, strlen(j->prompt), FORAY_ENCODE_BOS, ids, err);
  struct foray_chat_message turn = {"user", j->prompt};
  return foray_chat_encode(&chat, m->tokenizer, &turn, 1, true, ids, err);
}

/* A device that does not tell what it does still counts: totals, and an event a token. */
struct counted {
  bool on;
  uint64_t before[FORAY_COUNTER_COUNT];
};

static enum foray_status watch(struct job *j, struct counted *c, struct foray_err *err) {
  struct foray_dev *dev = foray_edge_node_device(j->node);
  struct foray_err why = {0};
  enum foray_status s = foray_dev_trace(dev, &(struct foray_dev_trace){foray_prof_event, j->prof}, &why);
  c->on = s == FORAY_E_UNSUPPORTED;
  foray_dev_counters(dev, c->before);
  if (s && !c->on) *err = why;
  return c->on ? FORAY_OK : s;
}

static void count_token(struct job *j, const struct counted *c, uint32_t exit) {
  struct foray_trace_event e = {
      .kind = FORAY_TRACE_TOKEN, .desc = UINT32_MAX, .exit = exit, .engine = FORAY_ENGINE_EXIT};
  if (c->on) foray_prof_event(j->prof, &e);
}

static void count_runs(struct job *j, const struct counted *c) {
  uint64_t now[FORAY_COUNTER_COUNT];
  foray_dev_counters(foray_edge_node_device(j->node), now);
  for (int i = 0; i < FORAY_COUNTER_COUNT; i++) now[i] -= c->before[i];
  foray_prof_totals(j->prof, now);
}

static enum foray_status draft(struct job *j, const struct foray_ids *ids, struct foray_err *err) {
  struct foray_drafter *d = foray_edge_node_drafter(j->node);
  struct foray_dev *dev = foray_edge_node_device(j->node);
  const struct foray_model *m = foray_edge_node_model(j->node);
  struct counted counted = {0};
  struct foray_draft_params p = foray_drafter_defaults(d);
  enum foray_status s = foray_drafter_sync(d, (const uint32_t *)ids->ids, (uint32_t)ids->n, err);
  if (!s && j->with_prompt) s = watch(j, &counted, err);
  if (!s) s = foray_drafter_prefill(d, err);
  if (!s && !j->with_prompt) s = watch(j, &counted, err);
  uint32_t have = 0, want = (uint32_t)j->n;
  bool over = false;
  while (!s && !over && have < want) {
    struct foray_draft out[FORAY_DRAFT_MAX];
    uint32_t got = 0;
    p.max = want - have < (uint32_t)j->draft_max ? want - have : (uint32_t)j->draft_max;
    s = foray_drafter_draft(d, &p, out, &got, err);
    have += got;
    for (uint32_t i = 0; !s && i < got; i++) count_token(j, &counted, out[i].exit);
    if (!s) over = got < p.max || foray_tokenizer_is_eog(m->tokenizer, (int32_t)out[got - 1].id);
    if (!s && tool_interrupted()) s = foray_err_set(err, FORAY_E_CANCELLED, "interrupted");
  }
  if (!s) count_runs(j, &counted);
  enum foray_status off = foray_dev_trace(dev, NULL, NULL);
  return s ? s : off;
}

static enum foray_status measure(struct job *j, struct foray_err *err) {
  struct foray_generator_opts o = {.edge = j->model,
                                   .device = j->device,
                                   .exits = j->exits,
                                   .ctx = (uint32_t)j->ctx,
                                   .threads = j->threads,
                                   .no_exits = j->no_exits,
                                   .full_head = j->full_head};
  struct foray_ids ids = {0};
  enum foray_status s = foray_edge_node_open(&o, false, &j->node, err);
  if (!s) s = encode(j, &ids, err);
  if (!s && ids.n == 0) s = foray_err_set(err, FORAY_E_ARG, "the prompt is empty");
  j->prompt_tokens = (uint32_t)ids.n;
  const struct foray_dev_info *info = s ? NULL : foray_dev_info(foray_edge_node_device(j->node));
  uint32_t n = 0;
  if (!s) {
    const uint32_t(*desc)[16] = foray_drafter_program(foray_edge_node_drafter(j->node), &n);
    s = foray_prof_open(desc, n, info->ns_busy, &j->prof, err);
  }
  if (!s) s = draft(j, &ids, err);
  foray_ids_deinit(&ids);
  if (s) return s;
  struct foray_prof_meta meta = {info->name, foray_edge_node_model(j->node)->name, j->prompt_tokens, j->roof,
                                 "given on the command line"};
  if (meta.roof <= 0 && info->ns_busy) {
    meta.roof = read_speed(strcmp(info->name, "ref") && strcmp(info->name, "hls") ? j->threads : 1, err);
    meta.roof_how = "reading this machine's memory just now, by as many threads";
  }
  j->report = foray_prof_report(j->prof, &meta);
  return j->report ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
}

/* ---- files ---- */

static const char *piece(const void *arg, uint32_t id, size_t *len) {
  return foray_tokenizer_piece(arg, (int32_t)id, len);
}

static enum foray_status write_file(const struct job *j, const char *path, int what, struct foray_err *err) {
  FILE *f = fopen(path, "w");
  if (!f) return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  if (what == 0) (void)json_dumpf(j->report, f, JSON_INDENT(1));
  if (what == 1) foray_prof_svg(f, j->report);
  if (what == 2) foray_prof_perfetto(j->prof, f, piece, foray_edge_node_model(j->node)->tokenizer);
  bool bad = ferror(f) != 0;
  bad |= fclose(f) != 0;
  return bad ? foray_err_set(err, FORAY_E_IO, "%s: cannot be written", path) : FORAY_OK;
}

static json_t *load(const char *path, struct foray_err *err) {
  json_error_t je;
  json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
  if (!j) {
    (void)foray_err_set(err, FORAY_E_FORMAT, "%s: line %d: %s", path, je.line, je.text);
    return NULL;
  }
  if (foray_prof_check(j, err) == FORAY_OK) return j;
  foray_err_prefix(err, "%s", path);
  json_decref(j);
  return NULL;
}

static int compare(const char *a_path, const char *b_path, bool json, struct foray_err *err) {
  json_t *a = load(a_path, err), *b = a ? load(b_path, err) : NULL;
  int rc = b ? TOOL_EXIT_OK : tool_fail("foray profile", err);
  if (b && json)
    rc = show_json(json_pack("{s:O s:O}", "a", a, "b", b));
  else if (b)
    foray_prof_compare(stdout, a, a_path, b, b_path);
  json_decref(a);
  json_decref(b);
  return rc;
}

static enum foray_status output(struct job *j, struct foray_err *err) {
  const char *const paths[3] = {j->save, j->svg, j->trace};
  enum foray_status s = FORAY_OK;
  for (int i = 0; i < 3 && !s; i++)
    if (paths[i]) s = write_file(j, paths[i], i, err);
  if (s) return s;
  if (j->json) {
    (void)show_json(json_incref(j->report));
    return FORAY_OK;
  }
  foray_prof_table(stdout, j->report);
  foray_prof_roofline(stdout, j->report);
  for (int i = 0; i < 3 && !j->quiet; i++)
    if (paths[i]) fprintf(stderr, "%s%s\n", paths[i], i == 2 ? ": open it at https://ui.perfetto.dev" : "");
  return FORAY_OK;
}

int cmd_profile(int argc, char **argv) {
  struct job j = {.n = 16, .draft_max = 8, .device = "cpu"};
  const struct foray_opt opts[] = {
      {"model|edge", 'm', FORAY_OPT_STR, &j.model, "NAME|FILE",
       "edge model (catalogue name, GGUF file or weight image)", 0, 0},
      {"device", 0, FORAY_OPT_STR, &j.device, "DEVICE", "see `foray devices` (default cpu)", 0, 0},
      {"prompt", 'p', FORAY_OPT_STR, &j.prompt, "TEXT", "the prompt; or the words behind the options", 0, 0},
      {"n-predict", 'n', FORAY_OPT_INT, &j.n, "N", "tokens to draft (16)", 1, 1 << 16},
      {"draft-max", 0, FORAY_OPT_INT, &j.draft_max, "N", "drafts a doorbell at most (8)", 1, FORAY_DRAFT_MAX},
      {"exits", 0, FORAY_OPT_STR, &j.exits, "FILE",
       "exits file (default: the shipped one of the model; 'none')", 0, 0},
      {"no-exits", 0, FORAY_OPT_FLAG, &j.no_exits, NULL, "draft at full depth only", 0, 0},
      {"full-head", 0, FORAY_OPT_FLAG, &j.full_head, NULL, "draft among all token ids", 0, 0},
      {"with-prompt", 0, FORAY_OPT_FLAG, &j.with_prompt, NULL, "watch the feeding of the prompt too", 0, 0},
      {"raw", 0, FORAY_OPT_FLAG, &j.raw, NULL, "continue the prompt as it is instead of answering it", 0, 0},
      {"ctx-size", 'c', FORAY_OPT_INT, &j.ctx, "N", "positions of context (default 4096)", 0, 131072},
      {"threads", 't', FORAY_OPT_INT, &j.threads, "N", "threads of the device (0: one per processor)", 0,
       256},
      {"roof", 0, FORAY_OPT_DOUBLE, &j.roof, "X",
       "memory's roof, GB/s or bytes a cycle (default: the device's ports, or a reading of this machine's "
       "memory)",
       0, 1e6},
      {"save", 'o', FORAY_OPT_STR, &j.save, "FILE", "write the report as JSON, for --compare", 0, 0},
      {"svg", 0, FORAY_OPT_STR, &j.svg, "FILE", "write the roofline as SVG", 0, 0},
      {"trace", 0, FORAY_OPT_STR, &j.trace, "FILE", "write a trace that ui.perfetto.dev opens", 0, 0},
      {"compare", 0, FORAY_OPT_FLAG, &j.compare, NULL, "show two saved reports side by side: --compare A B",
       0, 0},
      {"json", 0, FORAY_OPT_FLAG, &j.json, NULL, "print JSON", 0, 0},
      {"quiet", 'q', FORAY_OPT_FLAG, &j.quiet, NULL, "no messages", 0, 0},
      {0}};
  const struct foray_command cmd = {
      "foray profile", "-m MODEL [--device DEVICE] [OPTIONS] PROMPT | --compare A B",
      "Draft from a prompt on a device, and show where the time and the bytes went.", opts,
      "Tables by op and by layer: calls, columns a call, time, share, bytes, rate, share of the memory's "
      "roof; on "
      "devices\nthat count them, the cycles in which the op's engine was busy, starved of input or blocked "
      "by its "
      "consumer.\nA device that does not tell of its ops shows what its counters say. docs/profiling.md "
      "walks through an example."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (j.compare) {
    if (argc - rest == 2) return compare(argv[rest], argv[rest + 1], j.json, &err);
    (void)foray_err_set(&err, FORAY_E_ARG, "--compare takes two files that --save wrote");
    return tool_fail(cmd.name, &err);
  }
  if (!j.prompt && rest < argc) j.prompt = argv[rest++];
  if (!j.model || !j.prompt || rest < argc)
    (void)foray_err_set(&err, FORAY_E_ARG,
                        !j.model    ? "name the model with -m"
                        : !j.prompt ? "give a prompt"
                                    : "one prompt only: put it in quotes");
  if (err.code) return tool_fail(cmd.name, &err);
  tool_interrupt_install();
  enum foray_status s = measure(&j, &err);
  if (!s) s = output(&j, &err);
  json_decref(j.report);
  foray_prof_close(j.prof);
  foray_edge_node_close(j.node);
  return s ? tool_fail(cmd.name, &err) : TOOL_EXIT_OK;
}
