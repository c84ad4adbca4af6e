#include "hosttools/gen_opts.h"

#include "core/err.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void gen_opts_init(struct gen_opts *o) {
  *o = (struct gen_opts){
      .n_predict = 128, .top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64, .draft_max = 8};
}

void gen_opts_table(struct gen_opts *o, const struct foray_opt *own, struct foray_opt *table) {
  const struct foray_opt shared[] = {
      {"edge|model", 'm', FORAY_OPT_STR, &o->edge, "NAME|FILE",
       "model that drafts at the edge (catalogue name, GGUF file or weight image)", 0, 0},
      {"cloud", 0, FORAY_OPT_STR, &o->cloud, "WHERE",
       "spawn:MODEL (a forayd of our own), HOST:PORT (TLS unless it is this machine), tcp:HOST:PORT, "
       "unix:PATH; "
       "default spawn: with the edge's model",
       0, 0},
      {"cloud-tls", 0, FORAY_OPT_STR, &o->cloud_tls, "DIR",
       "certificates for the cloud: ca.crt, and client.crt + client.key or token (~/.config/foray/tls)", 0,
       0},
      {"device", 0, FORAY_OPT_STR, &o->device, "DEVICE",
       "where drafts are computed, see `foray devices` (default cpu)", 0, 0},
      {"exits", 0, FORAY_OPT_STR, &o->exits, "FILE",
       "exits file (default: the shipped one of the model; 'none')", 0, 0},
      {"no-exits", 0, FORAY_OPT_FLAG, &o->no_exits, NULL, "draft at full depth only", 0, 0},
      {"full-head", 0, FORAY_OPT_FLAG, &o->full_head, NULL,
       "draft among all token ids instead of the trimmed vocabulary", 0, 0},
      {"plain", 0, FORAY_OPT_FLAG, &o->plain, NULL, "decode in the cloud without drafts", 0, 0},
      {"alone", 0, FORAY_OPT_FLAG, &o->alone, NULL, "the edge model alone: its own text, not the cloud's", 0,
       0},
      {"tokenizer", 0, FORAY_OPT_STR, &o->tokenizer, "NAME|FILE",
       "model whose tokenizer is used with --plain and no edge model", 0, 0},
      {"ctx-size", 'c', FORAY_OPT_INT, &o->ctx, "N", "positions of context (default 4096)", 0, 131072},
      {"threads", 't', FORAY_OPT_INT, &o->threads, "N", "threads of the edge device (0: one per processor)",
       0, 256},
      {"threads-cloud", 0, FORAY_OPT_INT, &o->cloud_threads, "N",
       "threads of a spawned forayd (0: one per processor)", 0, 256},
      {"n-predict|predict", 'n', FORAY_OPT_INT, &o->n_predict, "N", "tokens to generate at most (128)", 1,
       1 << 20},
      {"temp|temperature", 0, FORAY_OPT_DOUBLE, &o->temp, "T",
       "temperature of the target's sampler; 0 is greedy (0)", 0, 100},
      {"top-k", 0, FORAY_OPT_INT, &o->top_k, "K", "keep the K likeliest tokens; 0: all (0)", 0, 1 << 20},
      {"top-p", 0, FORAY_OPT_DOUBLE, &o->top_p, "P", "keep the likeliest tokens that sum to P; 1: all (1)", 0,
       1},
      {"min-p", 0, FORAY_OPT_DOUBLE, &o->min_p, "P",
       "drop tokens less likely than P times the best; 0: none (0)", 0, 1},
      {"repeat-penalty", 0, FORAY_OPT_DOUBLE, &o->repeat_penalty, "X",
       "penalty of repeated tokens; 1: off (1)", 0.01, 100},
      {"repeat-last-n", 0, FORAY_OPT_INT, &o->repeat_last_n, "N",
       "tokens the penalties look back; -1: all (64)", -1, 1 << 20},
      {"presence-penalty", 0, FORAY_OPT_DOUBLE, &o->presence_penalty, "X",
       "penalty of tokens that were there (0)", -100, 100},
      {"frequency-penalty", 0, FORAY_OPT_DOUBLE, &o->frequency_penalty, "X",
       "penalty by how often a token was there (0)", -100, 100},
      {"logit-bias", 'l', FORAY_OPT_LIST, &o->bias, "ID(+|-)X",
       "add X to a token's logit, e.g. 15043-100; many times", 0, 0},
      {"seed", 's', FORAY_OPT_I64, &o->seed, "N", "seed of the sampler (0)", 0, 0},
      {"ignore-eos", 0, FORAY_OPT_FLAG, &o->ignore_eos, NULL, "go on after the end-of-text token", 0, 0},
      {"stop|reverse-prompt", 'r', FORAY_OPT_LIST, &o->stops, "TEXT", "end when TEXT appears; many times", 0,
       0},
      {"policy", 0, FORAY_OPT_STR, &o->policy, "NAME",
       "how much to draft: goodput, fixed, maxprob, margin, entropy, evidence, adaptive (maxprob on this "
       "machine, goodput over a network)",
       0, 0},
      {"draft-max|draft|spec-draft-n-max", 0, FORAY_OPT_INT, &o->draft_max, "N", "drafts a block at most (8)",
       1, 32},
      {"draft-min|spec-draft-n-min", 0, FORAY_OPT_INT, &o->draft_min, "N", "drafts a block at least (0)", 0,
       32},
      {"draft-p-min|spec-draft-p-min", 0, FORAY_OPT_DOUBLE, &o->draft_p_min, "P", "threshold of the policy",
       0, 1},
      {"exit-threshold", 0, FORAY_OPT_DOUBLE, &o->exit_threshold, "P",
       "leave the model early when surer than P (default: the exits file's)", 0, 2},
      {"no-check", 0, FORAY_OPT_FLAG, &o->no_check, NULL,
       "keep early drafts as they are when full depth comes past them", 0, 0},
      {"no-ahead", 0, FORAY_OPT_FLAG, &o->no_ahead, NULL,
       "wait for a verdict instead of drafting on (always so with a cloud on this machine)", 0, 0},
      {"chat-template", 0, FORAY_OPT_STR, &o->chat_template, "NAME",
       "chatml, qwen, smollm, gemma, llama3, llama2 or none (default: the file's)", 0, 0},
      {"system-prompt|sys|system", 0, FORAY_OPT_STR, &o->system, "TEXT", "system turn", 0, 0},
      {"json", 0, FORAY_OPT_FLAG, &o->json, NULL, "print one JSON object", 0, 0},
      {"quiet", 'q', FORAY_OPT_FLAG, &o->quiet, NULL, "no progress and no summary", 0, 0},
  };
  size_t n = 0;
  for (; own->name && n < GEN_OPTS_MAX - 1; own++) table[n++] = *own;
  for (size_t i = 0; i < sizeof shared / sizeof *shared && n < GEN_OPTS_MAX - 1; i++) table[n++] = shared[i];
  table[n] = (struct foray_opt){0};
}

/* "15043-100", "15043+1.5": llama.cpp's form. */
static enum foray_status parse_bias(const char *text, uint32_t *id, float *value, struct foray_err *err) {
  char *end, *end2;
  errno = 0;
  unsigned long v = strtoul(text, &end, 10);
  if (end != text && (*end == '+' || *end == '-') && !errno && v <= INT32_MAX) {
    double d = strcmp(end, "-inf") ? strtod(end, &end2) : -INFINITY;
    if (!strcmp(end, "-inf") || (end2 != end && !*end2 && isfinite(d))) {
      *id = (uint32_t)v;
      *value = (float)d;
      return FORAY_OK;
    }
  }
  return foray_err_set(err, FORAY_E_ARG, "--logit-bias '%s': write it as ID+VALUE or ID-VALUE", text);
}

enum foray_status gen_opts_finish(struct gen_opts *o, struct foray_err *err) {
  static char spawn[4096];
  if (o->plain && o->alone) return foray_err_set(err, FORAY_E_ARG, "--plain and --alone exclude each other");
  if (!o->edge && !o->plain)
    return foray_err_set(err, FORAY_E_ARG, "name the edge model with -m, or use --plain --cloud");
  if (o->alone && o->cloud) return foray_err_set(err, FORAY_E_ARG, "--alone needs no --cloud");
  if (!o->cloud && !o->alone) {
    const char *m = o->edge ? o->edge : o->tokenizer;
    if (!m) return foray_err_set(err, FORAY_E_ARG, "name the cloud with --cloud");
    snprintf(spawn, sizeof spawn, "spawn:%s", m);
    o->cloud = spawn;
  }
  for (int i = 0; i < o->bias.n; i++) {
    enum foray_status s = parse_bias(o->bias.v[i], &o->bias_ids[i], &o->bias_values[i], err);
    if (s) return s;
  }
  o->cloud_args[0] = "--quiet"; /* its errors only: the progress of loading comes over the link */
  if (o->cloud_threads) {
    snprintf(o->threads_text, sizeof o->threads_text, "%d", o->cloud_threads);
    o->cloud_args[1] = "--threads";
    o->cloud_args[2] = o->threads_text;
  }
  return FORAY_OK;
}

void gen_opts_request(const struct gen_opts *o, struct foray_request *r) {
  *r = foray_request_default();
  r->mode = o->plain ? FORAY_GENERATE_PLAIN : o->alone ? FORAY_GENERATE_ALONE : FORAY_GENERATE_SPECULATIVE;
  r->max_tokens = (uint32_t)o->n_predict;
  r->temperature = (float)o->temp;
  r->top_k = (uint32_t)o->top_k;
  r->top_p = (float)o->top_p;
  r->min_p = (float)o->min_p;
  r->repeat_penalty = (float)o->repeat_penalty;
  r->presence_penalty = (float)o->presence_penalty;
  r->frequency_penalty = (float)o->frequency_penalty;
  r->repeat_last_n = o->repeat_last_n;
  r->seed = (uint64_t)o->seed;
  r->ignore_eos = o->ignore_eos;
  r->bias_ids = o->bias_ids;
  r->bias = o->bias_values;
  r->n_bias = (uint32_t)o->bias.n;
  r->stops = o->stops.v;
  r->n_stops = (uint32_t)o->stops.n;
  r->policy = o->policy;
  r->draft_max = (uint32_t)o->draft_max;
  r->draft_min = (uint32_t)o->draft_min;
  r->draft_p_min = (float)o->draft_p_min;
  r->exit_threshold = (float)o->exit_threshold;
  r->no_check = o->no_check;
  r->no_ahead = o->no_ahead;
  r->chat_template = o->chat_template;
  r->system = o->system;
}

struct bars {
  struct tool_progress bar;
  char what[64];
  bool open, quiet;
};

static bool on_progress(void *user, const char *what, uint64_t done, uint64_t total) {
  struct bars *b = user;
  if (!b->open || strcmp(b->what, what)) {
    if (b->open) tool_progress_end(&b->bar, true);
    snprintf(b->what, sizeof b->what, "%s", what);
    tool_progress_begin(&b->bar, b->what, false, b->quiet);
    b->open = true;
  }
  tool_progress_update(&b->bar, done, total);
  return !tool_interrupted();
}

static void interrupt_generator(void *arg) { foray_generator_interrupt(arg); }

void gen_opts_close(struct foray_generator *g) {
  tool_interrupt_target(NULL, NULL);
  foray_generator_close(g);
}

enum foray_status gen_opts_open(const struct gen_opts *o, struct foray_generator **g, struct foray_err *err) {
  struct bars bars = {.quiet = o->quiet};
  struct foray_generator_opts go = {.edge = o->plain ? NULL : o->edge,
                                    .device = o->device,
                                    .exits = o->exits,
                                    .cloud = o->cloud,
                                    .cloud_tls = o->cloud_tls,
                                    .cloud_args = o->cloud_args,
                                    .tokenizer =
                                        o->plain ? (o->tokenizer ? o->tokenizer : o->edge) : o->tokenizer,
                                    .ctx = (uint32_t)o->ctx,
                                    .threads = o->threads,
                                    .no_exits = o->no_exits,
                                    .full_head = o->full_head,
                                    .progress = on_progress,
                                    .progress_user = &bars};
  enum foray_status s = foray_generator_open(&go, g, err);
  if (bars.open) tool_progress_end(&bars.bar, s == FORAY_OK);
  if (!s) tool_interrupt_target(interrupt_generator, *g);
  return s;
}
