/* foray-tune: makes and inspects what adapts an edge model. Today: exits. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/args.h"
#include "core/err.h"
#include "train/train.h"
#include "tune.h"

static volatile sig_atomic_t g_stop;
static void on_signal(int sig) {
  (void)sig;
  g_stop = 1;
}

static const char NOTES[] = "The model (or --target) first writes text: it completes user turns from short "
                            "hints and answers them. Exits and "
                            "a LoRA on all blocks are then trained towards the writer's own next-token "
                            "distributions, starting from a ridge "
                            "regression. What was made so far is kept in --work; Ctrl-C stops cleanly and "
                            "the same command goes on. The exits "
                            "file records the arguments, the seed and the report.";

static bool layers(const char *list, struct foray_tune_opts *o) {
  while (*list) {
    char *end;
    long v = strtol(list, &end, 10);
    if (end == list || v < 1 || v > 511 || o->n_exits >= FORAY_EXITS_MAX) return false;
    o->layer[o->n_exits++] = (int)v;
    if (*end == ',')
      end++;
    else if (*end)
      return false;
    list = end;
  }
  return true;
}

/* The arguments as typed, without the paths of --work and --out, which say nothing about the result. */
static void record(char *out, size_t cap, int argc, char **argv) {
  size_t len = (size_t)snprintf(out, cap, "foray-tune exits");
  for (int i = 1; i < argc && len < cap; i++) {
    if (!strcmp(argv[i], "--work") || !strcmp(argv[i], "--out") || !strcmp(argv[i], "-o")) {
      i++;
      continue;
    }
    const char *slash = strrchr(argv[i], '/');
    len += (size_t)snprintf(out + len, cap - len, " %s", slash ? slash + 1 : argv[i]);
  }
}

static int fail(const struct foray_err *err) {
  fprintf(stderr, "foray-tune: %s\n", err->msg);
  return err->code == FORAY_E_CANCELLED ? 130 : 1;
}

static int cmd_exits(int argc, char **argv) {
  const char *target = NULL, *out = NULL, *work = NULL, *list = "6,9,12,15,18,21", *kernel = "auto";
  int threads = 0;
  int64_t tokens = 300000, seed = 1;
  bool want_json = false;
  char command[2048];
  bool no_prev = false, of_writer = false;
  struct foray_tune_opts o = {.head_rows = 4096,
                              .vocab = 16384,
                              .rank = 16,
                              .alpha = 32,
                              .lr = 5e-4,
                              .map_lr = 5e-4,
                              .clip = 1,
                              .decay = 0.01,
                              .exit_weight = 0.3,
                              .full_weight = 1,
                              .prompt_weight = 0.3,
                              .steps = 800,
                              .batch = 1536,
                              .warmup = 20,
                              .eval_tokens = 20000,
                              .ridge_tokens = 30000,
                              .ridge_lambda = 1e-3,
                              .threshold = 0,
                              .stop = &g_stop,
                              .text = {.slots = 160, .ctx = 352}};
  const struct foray_opt opts[] = {
      {"target", 0, FORAY_OPT_STR, &target, "NAME|FILE",
       "model that writes the text and is learnt from (default: MODEL)", 0, 0},
      {"out", 'o', FORAY_OPT_STR, &out, "FILE", "exits file (default: NAME.exits.gguf)", 0, 0},
      {"work", 0, FORAY_OPT_STR, &work, "DIR", "text and checkpoints (default: NAME.tune)", 0, 0},
      {"layers", 0, FORAY_OPT_STR, &list, "N,N,...",
       "blocks before each exit (those that do not pay are left out of the file)", 0, 0},
      {"exit-rows", 0, FORAY_OPT_INT, &o.head_rows, "N", "ids that an exit's head covers", 64, 1 << 20},
      {"no-prev", 0, FORAY_OPT_FLAG, &no_prev, NULL,
       "exits do not read the final state of the position before", 0, 0},
      {"of-writer", 0, FORAY_OPT_FLAG, &of_writer, NULL,
       "with --rank 0: exits learn the writer's distribution instead of their own model's full depth", 0, 0},
      {"vocab", 0, FORAY_OPT_INT, &o.vocab, "N", "ids of the trimmed head", 300, 1 << 20},
      {"rank", 0, FORAY_OPT_INT, &o.rank, "N", "rank of the LoRA; 0 trains the exits alone", 0, 256},
      {"first", 0, FORAY_OPT_INT, &o.first, "N", "first block with a LoRA (those below stay as they are)", 0,
       511},
      {"alpha", 0, FORAY_OPT_DOUBLE, &o.alpha, "X", "LoRA scale is X / rank", 0.01, 1024},
      {"lr", 0, FORAY_OPT_DOUBLE, &o.lr, "X", "learning rate of the LoRA", 0, 1},
      {"map-lr", 0, FORAY_OPT_DOUBLE, &o.map_lr, "X", "learning rate of the exits", 0, 1},
      {"exit-weight", 0, FORAY_OPT_DOUBLE, &o.exit_weight, "X", "weight of each exit's loss", 0, 100},
      {"full-weight", 0, FORAY_OPT_DOUBLE, &o.full_weight, "X", "weight of the loss at full depth", 0, 100},
      {"prompt-weight", 0, FORAY_OPT_DOUBLE, &o.prompt_weight, "X", "weight of positions in user turns", 0,
       1},
      {"steps", 0, FORAY_OPT_INT, &o.steps, "N", "updates", 0, 1000000},
      {"schedule", 0, FORAY_OPT_INT, &o.schedule, "N",
       "updates that the learning rate is laid out for (0: --steps)", 0, 1000000},
      {"warmup", 0, FORAY_OPT_INT, &o.warmup, "N", "updates with rising learning rate", 0, 100000},
      {"batch", 0, FORAY_OPT_INT, &o.batch, "N", "tokens of an update", 256, 65536},
      {"tokens", 0, FORAY_OPT_I64, &tokens, "N", "tokens of text that the writer writes", 1000, 1e9},
      {"slots", 0, FORAY_OPT_INT, &o.text.slots, "N", "conversations written at once", 1, 1024},
      {"ctx", 0, FORAY_OPT_INT, &o.text.ctx, "N", "longest conversation, tokens", 192, 1024},
      {"ridge-tokens", 0, FORAY_OPT_INT, &o.ridge_tokens, "N", "positions of the ridge start", 100, 1e9},
      {"eval-tokens", 0, FORAY_OPT_INT, &o.eval_tokens, "N", "held-out positions that are measured", 100,
       1e9},
      {"threshold", 0, FORAY_OPT_DOUBLE, &o.threshold, "P",
       "default confidence of an exit (0: the one that gains most on held-out text)", 0, 1},
      {"skip-from", 0, FORAY_OPT_INT, &o.skip_from, "N", "measure the model without blocks N..", 0, 511},
      {"skip-to", 0, FORAY_OPT_INT, &o.skip_to, "N", "... up to N-1, and train nothing", 0, 511},
      {"seed", 's', FORAY_OPT_I64, &seed, "N", "everything random follows from it", 0, 9e15},
      {"threads", 't', FORAY_OPT_INT, &threads, "N", "threads (0: one per processor)", 0, 256},
      {"kernel", 0, FORAY_OPT_STR, &kernel, "NAME", "auto, amx or f32 (recorded: results differ in rounding)",
       0, 0},
      {"json", 0, FORAY_OPT_FLAG, &want_json, NULL, "one JSON object a step on stdout", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray-tune exits", "[OPTIONS] MODEL",
                                    "Train early exits for an edge model.", opts, NOTES};
  struct foray_err err = {0};
  int rest;
  record(command, sizeof command, argc, argv);
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_RUN: break;
  case FORAY_ARGS_DONE: return 0;
  default: fprintf(stderr, "foray-tune: %s\n", err.msg); return 2;
  }
  if (argc - rest != 1 || !layers(list, &o)) {
    fprintf(
        stderr,
        "foray-tune: one MODEL, and --layers as rising numbers with commas; see foray-tune exits --help\n");
    return 2;
  }
  struct foray_model *model = NULL, *tmodel = NULL;
  struct foray_pool *pool = NULL;
  char def_out[256], def_work[256];
  enum foray_mm_kind kind = !strcmp(kernel, "f32") ? FORAY_MM_F32 : FORAY_MM_AMX;
  int rc = 1;
  if (foray_model_open(argv[rest], &model, &err) || (target && foray_model_open(target, &tmodel, &err)) ||
      foray_pool_open(threads, &pool, &err) || foray_mm_open(kind, pool, &o.gemm, &err)) {
    rc = fail(&err);
    goto done;
  }
  if (!strcmp(kernel, "amx") && foray_mm_kind_of(o.gemm) != FORAY_MM_AMX) {
    foray_err_set(&err, FORAY_E_UNSUPPORTED, "--kernel amx: this processor (or FORAY_ISA) has no AMX");
    rc = fail(&err);
    goto done;
  }
  snprintf(def_out, sizeof def_out, "%s.exits.gguf", model->name);
  snprintf(def_work, sizeof def_work, "%s.tune", model->name);
  o.prev = !no_prev;
  o.own = !o.rank && !of_writer;
  o.model = model, o.target = tmodel, o.command = command, o.seed = (uint64_t)seed;
  o.out = out ? out : def_out, o.work = work ? work : def_work;
  o.text.tokens = (uint64_t)tokens;
  o.log = want_json ? stderr : stdout;
  o.json = want_json ? stdout : NULL;
  if (mkdir(o.work, 0777) && errno != EEXIST) {
    foray_err_set(&err, FORAY_E_IO, "%s: %s", o.work, strerror(errno));
    rc = fail(&err);
    goto done;
  }
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  rc = foray_tune_exits(&o, &err) ? fail(&err) : 0;
done:
  foray_mm_close(o.gemm);
  foray_pool_close(pool);
  foray_model_close(tmodel);
  foray_model_close(model);
  return rc;
}

int main(int argc, char **argv) {
  /* Scratch of the training step is some megabytes at a time: keep it, instead of mapping and faulting it
   * anew. */
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  if (argc > 1 && (!strcmp(argv[1], "--man") || !strcmp(argv[1], "--completion-bash")))
    return cmd_exits(argc, argv);
  if (argc > 1 && !strcmp(argv[1], "exits")) return cmd_exits(argc - 1, argv + 1);
  if (argc > 1) {
    int rc;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (foray_tune_command(argc - 1, argv + 1, &g_stop, &rc)) return rc;
  }
  if (argc > 1 && !strcmp(argv[1], "--version")) {
    puts("foray-tune " FORAY_VERSION);
    return 0;
  }
  FILE *f = argc > 1 && !strcmp(argv[1], "--help") ? stdout : stderr;
  fputs("usage: foray-tune exits [OPTIONS] MODEL\n"
        "       foray-tune exits --help\n",
        f);
  foray_tune_usage(f);
  return f == stdout ? 0 : 2;
}
