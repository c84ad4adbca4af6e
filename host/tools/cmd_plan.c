/* foray plan: what a board would do with a model. */
#include "core/args.h"
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"
#include "hosttools/show.h"
#include "model/pack.h"
#include "rt/plan.h"
#include "rt/policy.h"

#include <string.h>

struct ask {
  const char *model, *board, *exits;
  int position, ctx, gamma;
  double alpha, plain_ms;
  bool json;
};

static bool on_progress(void *user, const char *what, double done) {
  struct tool_progress *bar = user;
  bar->what = what;
  tool_progress_update(bar, (uint64_t)(done * 1000), 1000);
  return !tool_interrupted();
}

/* The image of the model, packed when it is not in the cache. */
static enum foray_status image_of(const struct ask *a, struct foray_image **out, struct foray_err *err) {
  char path[4096];
  struct foray_model *m = NULL;
  struct foray_pool *pool = NULL;
  struct tool_progress bar = {0};
  tool_progress_begin(&bar, "packing the edge model (once)", false, a->json);
  enum foray_status s = foray_model_open(a->model, &m, err);
  if (!s) s = foray_pool_open(0, &pool, err);
  struct foray_pack_opts po = {.pool = pool, .progress = on_progress, .user = &bar, .exits_path = a->exits};
  if (!s) s = foray_pack_cached(m, &po, path, sizeof path, err);
  if (!s) s = foray_image_open(path, out, err);
  foray_pool_close(pool);
  foray_model_close(m);
  return s;
}

static json_t *plan_json(const struct ask *a, const struct foray_board *b, const struct foray_plan *p) {
  json_t *depths = json_array();
  for (uint32_t e = 0; e < p->n_depths; e++) {
    const struct foray_plan_depth *d = &p->depth[e];
    json_array_append_new(
        depths,
        json_pack("{s:I s:f s:f s:f s:f s:f s:f}", "layer", (json_int_t)d->layer, "weight_bytes",
                  d->weight_bytes, "kv_bytes", d->kv_bytes, "stream_cycles", d->stream_cycles, "lost_cycles",
                  d->lost_cycles, "seconds", d->seconds, "rtt_max",
                  foray_goodput_rtt_max(a->alpha, (uint32_t)a->gamma, d->seconds, a->plain_ms / 1e3)));
  }
  return json_pack("{s:s s:s s:s s:s s:f s:f s:I s:b s:I s:o}", "how", "computed", "board", b->name, "config",
                   b->config, "model", a->model, "clock_hz", b->clock_hz, "bytes_per_cycle", p->rate,
                   "heap_bytes", (json_int_t)p->heap_bytes, "fits", p->fits, "position",
                   (json_int_t)a->position, "depths", depths);
}

static void print_plan(const struct ask *a, const struct foray_board *b, const struct foray_plan *p) {
  printf("%s: %s; configuration %s at %.0f MHz, memory %s\n", b->name, b->about, b->config, b->clock_hz / 1e6,
         b->memory_name);
  printf("  memory  %.1f of %.0f MiB needed with %d positions: %s\n", (double)p->heap_bytes / 1048576,
         b->memory_bytes / 1048576, a->ctx,
         p->fits ? "fits" : "DOES NOT FIT (fewer positions: --ctx; fewer bits: foray pack --bits)");
  printf("  stream  %.1f bytes a cycle\n\n", p->rate);
  printf("  %-12s %10s %10s %12s %10s   %s\n", "leaves after", "weights MB", "KV MB", "cycles", "tokens/s",
         "RTT up to which drafting pays");
  for (uint32_t e = 0; e < p->n_depths; e++) {
    const struct foray_plan_depth *d = &p->depth[e];
    const double rtt = foray_goodput_rtt_max(a->alpha, (uint32_t)a->gamma, d->seconds, a->plain_ms / 1e3);
    char limit[32];
    if (rtt > 0)
      snprintf(limit, sizeof limit, "%.0f ms", rtt * 1e3);
    else
      snprintf(limit, sizeof limit, "never");
    printf("  layer %-6u %10.1f %10.2f %12.0f %10.2f   %s\n", d->layer, d->weight_bytes / 1e6,
           d->kv_bytes / 1e6, d->stream_cycles + d->lost_cycles, 1 / d->seconds, limit);
  }
  printf("\nComputed, not measured: position %d, %d drafts a round, acceptance %.2f, %.0f ms a token of "
         "plain cloud decoding.\n",
         a->position, a->gamma, a->alpha, a->plain_ms);
}

static int list_boards(bool json) {
  json_t *all = json ? json_array() : NULL;
  for (uint32_t i = 0; foray_board_at(i); i++) {
    const struct foray_board *b = foray_board_at(i);
    if (json)
      json_array_append_new(all, json_pack("{s:s s:s s:s s:f}", "name", b->name, "about", b->about, "memory",
                                           b->memory_name, "memory_bytes", b->memory_bytes));
    else
      printf("%-12s %s, %s, %.0f MiB\n", b->name, b->about, b->memory_name, b->memory_bytes / 1048576);
  }
  return json ? show_json(all) : TOOL_EXIT_OK;
}

int cmd_plan(int argc, char **argv) {
  struct ask a = {.position = 512, .ctx = 1024, .gamma = 6, .alpha = 0.8, .plain_ms = 40};
  bool list = false;
  const struct foray_opt opts[] = {
      {"model", 'm', FORAY_OPT_STR, &a.model, "NAME|FILE", "the edge model", 0, 0},
      {"board", 0, FORAY_OPT_STR, &a.board, "BOARD", "the board; --list names them", 0, 0},
      {"list", 0, FORAY_OPT_FLAG, &list, NULL, "list the boards", 0, 0},
      {"exits", 0, FORAY_OPT_STR, &a.exits, "FILE", "exits file (default: the shipped one of this model)", 0,
       0},
      {"position", 0, FORAY_OPT_INT, &a.position, "N", "tokens before the one that is planned (512)", 1,
       65535},
      {"ctx", 'c', FORAY_OPT_INT, &a.ctx, "N", "positions of the context (1024)", 1, 65536},
      {"draft-max", 0, FORAY_OPT_INT, &a.gamma, "N", "drafts of a round (6)", 1, 64},
      {"acceptance", 0, FORAY_OPT_DOUBLE, &a.alpha, "A",
       "part of the drafts that is accepted, token by token (0.8)", 0, 0.999},
      {"plain-ms", 0, FORAY_OPT_DOUBLE, &a.plain_ms, "MS",
       "milliseconds a token of plain cloud decoding (40)", 0.01, 1e6},
      {"json", 0, FORAY_OPT_FLAG, &a.json, NULL, "print JSON", 0, 0},
      {0}};
  const struct foray_command cmd = {
      "foray plan", "--board BOARD -m MODEL [OPTIONS]",
      "Compute what a board would do with a model: memory, speed by depth, worthwhile round trips.", opts,
      "Nothing is run: bytes come from the weight image, cycles from the model of docs/boards.md."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (list) return list_boards(a.json);
  const struct foray_board *b = a.board ? foray_board_find(a.board) : NULL;
  if (!a.board || !a.model) {
    foray_err_set(&err, FORAY_E_ARG, "--board and -m are needed (--list names the boards)");
    return tool_fail(cmd.name, &err);
  }
  if (!b) {
    foray_err_set(&err, FORAY_E_ARG, "board '%s' is unknown; foray plan --list names them", a.board);
    return tool_fail(cmd.name, &err);
  }
  if (a.position >= a.ctx) {
    foray_err_set(&err, FORAY_E_ARG, "--position %d needs a larger --ctx than %d", a.position, a.ctx);
    return tool_fail(cmd.name, &err);
  }
  struct foray_image *img = NULL;
  struct foray_plan p;
  enum foray_status s = image_of(&a, &img, &err);
  if (!s) s = foray_plan_make(img, b, (uint32_t)a.position, (uint32_t)a.ctx, &p, &err);
  foray_image_close(img);
  if (s) return tool_fail(cmd.name, &err);
  if (a.json) return show_json(plan_json(&a, b, &p));
  print_plan(&a, b, &p);
  return TOOL_EXIT_OK;
}
