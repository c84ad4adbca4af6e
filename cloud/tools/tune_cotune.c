/* foray-tune dst, dpm, saml, run, compare. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/args.h"
#include "core/clock.h"
#include "core/err.h"
#include "cotune/algos.h"
#include "cotune/compare.h"
#include "cotune/dpm.h"
#include "cotune/privacy.h"
#include "tune.h"
#include "train/adapter.h"

struct machine {
  struct foray_pool *pool;
  struct foray_mm *gemm;
};
static enum foray_status machine_open(struct machine *m, int threads, const char *kernel,
                                      struct foray_err *err) {
  enum foray_mm_kind kind = !strcmp(kernel, "f32") ? FORAY_MM_F32 : FORAY_MM_AMX;
  *m = (struct machine){0};
  enum foray_status st = foray_pool_open(threads, &m->pool, err);
  if (!st) st = foray_mm_open(kind, m->pool, &m->gemm, err);
  if (!st && !strcmp(kernel, "amx") && foray_mm_kind_of(m->gemm) != FORAY_MM_AMX)
    st = foray_err_set(err, FORAY_E_UNSUPPORTED, "kernel amx: this processor (or FORAY_ISA) has no AMX");
  return st;
}
static void machine_close(struct machine *m) {
  foray_mm_close(m->gemm);
  foray_pool_close(m->pool);
}
static int finish(enum foray_status st, const struct foray_err *err) {
  if (!st) return 0;
  fprintf(stderr, "foray-tune: %s\n", err->msg);
  return st == FORAY_E_CANCELLED ? 130 : 1;
}
/* -1: go on; else the exit status. */
static int parse(const struct foray_command *cmd, int argc, char **argv, int *rest, int want) {
  struct foray_err err = {0};
  switch (foray_args_parse(cmd, argc, argv, rest, &err)) {
  case FORAY_ARGS_RUN: break;
  case FORAY_ARGS_DONE: return 0;
  default: fprintf(stderr, "foray-tune: %s\n", err.msg); return 2;
  }
  if (argc - *rest == want) return -1;
  fprintf(stderr, "usage: %s %s\n", cmd->name, cmd->usage);
  return 2;
}

static int cmd_run(int argc, char **argv, const volatile sig_atomic_t *stop, bool compare) {
  const char *config = NULL, *algorithm = NULL, *work = NULL, *wire = NULL;
  int threads = -1, rounds = 0, rest;
  int64_t seed = -1;
  bool json = false;
  const struct foray_opt opts[] = {
      {"config", 'c', FORAY_OPT_STR, &config, "FILE", "the run (docs/cotuning.md lists the keys)", 0, 0},
      {"algorithm", 'a', FORAY_OPT_STR, &algorithm, "NAME",
       "standalone, central, fedavg, fedprox, fedmkt, fedcollm, offsite, proxyfl, coplm", 0, 0},
      {"rounds", 0, FORAY_OPT_INT, &rounds, "N", "in place of the file's", 1, 1000},
      {"seed", 's', FORAY_OPT_I64, &seed, "N", "in place of the file's", 0, 9e15},
      {"work", 0, FORAY_OPT_STR, &work, "DIR", "proxy, checkpoints and results", 0, 0},
      {"threads", 't', FORAY_OPT_INT, &threads, "N", "threads (0: one per processor); changes no bit", 0,
       256},
      {"wire-log", 0, FORAY_OPT_STR, &wire, "FILE", "keep every byte that crosses between cloud and devices",
       0, 0},
      {"json", 0, FORAY_OPT_FLAG, &json, NULL, "events and result as JSON on stdout, progress on stderr", 0,
       0},
      {0}};
  const struct foray_command cmd = {
      compare ? "foray-tune compare" : "foray-tune run", "--config FILE [OPTIONS]",
      compare ? "Run several algorithms and seeds and write one table (Markdown, CSV, SVG)."
              : "Co-tune a cloud model and devices: rounds from one configuration file.",
      opts, "Ctrl-C keeps the rounds that are complete; the same command goes on with them."};
  int rc = parse(&cmd, argc, argv, &rest, 0);
  struct foray_fed_config *c = calloc(1, sizeof *c);
  struct foray_err err = {0};
  struct machine m = {0};
  struct foray_fed *f = NULL;
  struct foray_fed_result r;
  if (rc >= 0 || !c) {
    free(c);
    return rc >= 0 ? rc : 1;
  }
  enum foray_status st = config ? foray_fed_config_read(config, c, &err)
                                : foray_err_set(&err, FORAY_E_ARG, "--config FILE is needed");
  if (!st) {
    if (threads >= 0) c->threads = threads;
    if (rounds) c->rounds = rounds;
    if (seed >= 0) c->seed = (uint64_t)seed;
    if (algorithm)
      memset(c->algorithm, 0, sizeof c->algorithm),
          snprintf(c->algorithm, sizeof c->algorithm, "%s", algorithm);
    if (work) memset(c->work, 0, sizeof c->work), snprintf(c->work, sizeof c->work, "%s", work);
    st = machine_open(&m, c->threads, c->kernel, &err);
  }
  FILE *log = json ? stderr : stdout;
  if (!st && compare) {
    st = foray_compare(c, m.gemm, stdout, stderr, NULL, stop, &err);
  } else if (!st) {
    st = foray_fed_open(c, m.gemm, log, json ? stdout : NULL, stop, &f, &err);
    if (!st && wire && !(f->wire.log = fopen(wire, "wb")))
      st = foray_err_set(&err, FORAY_E_IO, "%s: %s", wire, strerror(errno));
    if (!st) st = foray_fed_run(f, &r, &err);
    if (f && f->wire.log) fclose(f->wire.log);
    char *text = st ? NULL : foray_fed_result_json(f, &r);
    if (text) puts(text);
    free(text);
    foray_fed_close(f);
  }
  machine_close(&m);
  free(c);
  return finish(st, &err);
}

/* ---- one model on one device's data ---- */
struct encs {
  struct foray_dataset d;
  struct foray_enc *enc;
  struct foray_share all;
};
static enum foray_status encs_open(struct encs *e, const struct foray_strlist *files,
                                   const struct foray_style *s, int max_tokens, struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  int left_out = 0;
  for (int i = 0; !st && i < files->n; i++)
    st = foray_dataset_add(&e->d, files->v[i], "data", 1 << 20, 0, err);
  e->enc = calloc((size_t)e->d.n + 1, sizeof *e->enc);
  e->all.index = malloc(((size_t)e->d.n + 1) * sizeof *e->all.index);
  if (!st && (!e->enc || !e->all.index)) st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  for (int i = 0; !st && i < e->d.n; i++) {
    enum foray_status one = foray_enc_make(s, &e->d.ex[i], max_tokens, &e->enc[i], err);
    if (!one)
      e->all.index[e->all.n++] = i;
    else if (one != FORAY_E_LIMIT)
      st = one;
    else
      left_out++;
  }
  if (!st && left_out)
    fprintf(stderr, "%d of %d examples have more than %d tokens and are left out\n", left_out, e->d.n,
            max_tokens);
  if (!st && !e->all.n) st = foray_err_set(err, FORAY_E_ARG, "no example of at most %d tokens", max_tokens);
  return st;
}
static void encs_close(struct encs *e) {
  for (int i = 0; e->enc && i < e->d.n; i++) foray_enc_deinit(&e->enc[i]);
  free(e->enc);
  foray_share_deinit(&e->all);
  foray_dataset_deinit(&e->d);
}

static enum foray_status save_adapter(const struct foray_learner *l, const char *dir, struct foray_err *err) {
  struct foray_adapter_info info = {0};
  uint8_t digest[FORAY_SHA256_BYTES];
  char path[4096];
  foray_model_sha256(l->model, digest);
  foray_sha256_hex(digest, info.base_sha256);
  snprintf(info.base_name, sizeof info.base_name, "%s", l->model->name);
  enum foray_status st = foray_adapter_save_peft(l->net, 0, l->rank, &info, dir, err);
  snprintf(path, sizeof path, "%s/adapter.gguf", dir);
  return st ? st : foray_adapter_save_gguf(l->net, 0, l->rank, &info, path, err);
}

/* Learning curve as a line; values by step. */
static void curve(const char *dir, const float *v, int n) {
  char path[4096];
  float lo = 1e30f, hi = -1e30f;
  snprintf(path, sizeof path, "%s/loss.svg", dir);
  FILE *f = n > 1 ? fopen(path, "wb") : NULL;
  if (!f) return;
  for (int i = 0; i < n; i++) lo = v[i] < lo ? v[i] : lo, hi = v[i] > hi ? v[i] : hi;
  if (!(hi > lo)) hi = lo + 1;
  fprintf(f,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"640\" height=\"300\" font-family=\"sans-serif\" "
          "font-size=\"12\">\n"
          "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/><text x=\"4\" y=\"24\">%.3f</text><text "
          "x=\"4\" y=\"274\">%.3f</text>\n"
          "<text x=\"60\" y=\"294\">step 1</text><text x=\"620\" y=\"294\" text-anchor=\"end\">step "
          "%d</text>\n<polyline fill=\"none\" "
          "stroke=\"#3b6ea5\" points=\"",
          (double)hi, (double)lo, n);
  for (int i = 0; i < n; i++)
    fprintf(f, "%.1f,%.1f ", 60 + 560.0 * i / (n - 1), 270 - 250.0 * (double)((v[i] - lo) / (hi - lo)));
  fprintf(f, "\"/>\n</svg>\n");
  fclose(f);
}

static int cmd_dst(int argc, char **argv, const volatile sig_atomic_t *stop) {
  struct foray_strlist data = {.n = 0};
  const char *out = NULL, *kernel = "auto", *init = NULL;
  int threads = 0, steps = 100, batch = 4, max_tokens = 320, rank = 8, every = 10, rest, warmup = 5;
  int64_t seed = 1;
  double lr = 2e-4, alpha = 2, drop = 0, decay = 0;
  bool json = false, plain = false, checkpoint = false, dry = false;
  struct foray_dp dp = {.clip = 0, .noise = 1};
  const struct foray_opt opts[] = {
      {"dp-clip", 0, FORAY_OPT_DOUBLE, &dp.clip, "C",
       "private steps: bound of each example's gradient (0: not private)", 0, 1e6},
      {"dp-noise", 0, FORAY_OPT_DOUBLE, &dp.noise, "S", "deviation of the noise, in bounds", 0, 1e6},
      {"data", 'd', FORAY_OPT_LIST, &data, "FILE",
       "JSON lines with prompt and completion; may be given many times", 0, 0},
      {"out", 'o', FORAY_OPT_STR, &out, "DIR", "adapter, checkpoint, curve (default: NAME.dst)", 0, 0},
      {"init", 0, FORAY_OPT_STR, &init, "ADAPTER", "start from this adapter (PEFT folder or GGUF)", 0, 0},
      {"steps", 0, FORAY_OPT_INT, &steps, "N", "updates", 1, 1 << 24},
      {"warmup", 0, FORAY_OPT_INT, &warmup, "N", "updates with rising learning rate", 0, 1 << 20},
      {"batch", 0, FORAY_OPT_INT, &batch, "N", "examples of an update", 1, 1024},
      {"max-tokens", 0, FORAY_OPT_INT, &max_tokens, "N", "longer examples are left out", 16, 8192},
      {"rank", 0, FORAY_OPT_INT, &rank, "N", "rank of the LoRA", 1, 256},
      {"scale", 0, FORAY_OPT_DOUBLE, &alpha, "X", "alpha / rank of the LoRA", 0.001, 1000},
      {"drop", 0, FORAY_OPT_DOUBLE, &drop, "P", "dropout of its inputs", 0, 0.9},
      {"lr", 0, FORAY_OPT_DOUBLE, &lr, "X", "learning rate (cosine to a tenth)", 0, 1},
      {"decay", 0, FORAY_OPT_DOUBLE, &decay, "X", "decoupled weight decay", 0, 10},
      {"save-every", 0, FORAY_OPT_INT, &every, "N", "updates between checkpoints", 1, 1 << 20},
      {"checkpointing", 0, FORAY_OPT_FLAG, &checkpoint, NULL,
       "keep only the states between blocks: less memory, a third slower", 0, 0},
      {"plain", 0, FORAY_OPT_FLAG, &plain, NULL, "no chat template", 0, 0},
      {"seed", 's', FORAY_OPT_I64, &seed, "N", "everything random follows from it", 0, 9e15},
      {"threads", 't', FORAY_OPT_INT, &threads, "N", "threads (0: one per processor); changes no bit", 0,
       256},
      {"kernel", 0, FORAY_OPT_STR, &kernel, "NAME", "auto, amx or f32", 0, 0},
      {"dry-run", 0, FORAY_OPT_FLAG, &dry, NULL, "say how much memory and time it takes, and stop", 0, 0},
      {"json", 0, FORAY_OPT_FLAG, &json, NULL, "one JSON object a step on stdout", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray-tune dst", "--data FILE [OPTIONS] MODEL",
                                    "Tune a model on a device's own data (LoRA).", opts,
                                    "The same command goes on where a run was stopped or killed."};
  int rc = parse(&cmd, argc, argv, &rest, 1);
  if (rc >= 0) return rc;
  struct foray_err err = {0};
  struct machine m = {0};
  struct foray_model *model = NULL;
  struct foray_learner *l = NULL;
  struct encs e = {{0}, NULL, {0}};
  struct foray_cursor cur = {0};
  char def[256], path[4096], *note = NULL;
  float *loss = calloc((size_t)steps, sizeof *loss);
  enum foray_status st = data.n ? FORAY_OK : foray_err_set(&err, FORAY_E_ARG, "--data FILE is needed");
  if (!st) st = foray_model_open(argv[rest], &model, &err);
  if (!st) st = machine_open(&m, threads, kernel, &err);
  struct foray_learner_opts lo = {.rank = rank,
                                  .alpha_over_rank = (float)alpha,
                                  .drop = (float)drop,
                                  .rows = batch * max_tokens,
                                  .checkpoint = checkpoint,
                                  .plain = plain,
                                  .seed = (uint64_t)seed};
  if (!st && dry) {
    const struct foray_model_config *c = &model->config;
    double block =
               (double)c->n_layer * ((double)c->n_embd * c->head_dim * (2 * c->n_head + 2 * c->n_head_kv) +
                                     3.0 * c->n_embd * c->n_ff),
           head = (double)c->n_embd * c->n_vocab, rows = (double)batch * max_tokens,
           acts = rows * 4 *
                      ((checkpoint ? 1 : c->n_layer) *
                           (2.0 * c->n_head * c->head_dim + 2.0 * c->n_head_kv * c->head_dim + c->n_embd +
                            2.0 * c->n_ff) +
                       (double)c->n_layer * c->n_embd) +
                  128.0 * c->n_vocab * 12;
    bool amx = foray_mm_kind_of(m.gemm) == FORAY_MM_AMX;
    printf("weights %.0f MiB, activations %.0f MiB at %d tokens a step; %.1f TFLOP a step, about %.1f s on "
           "one core at %d GFLOP/s\n",
           (block + head) * 4 / 1048576, acts / 1048576, batch * max_tokens,
           (checkpoint ? 6 : 4) * (block + head) * rows / 1e12,
           (checkpoint ? 6 : 4) * (block + head) * rows / (amx ? 2e11 : 5e10), amx ? 200 : 50);
    goto done;
  }
  if (!st) st = foray_learner_open(model, m.gemm, &lo, &l, &err);
  if (!st) st = encs_open(&e, &data, &l->style, max_tokens, &err);
  if (st) goto done;
  if (!out) {
    snprintf(def, sizeof def, "%s.dst", model->name);
    out = def;
  }
  l->optim = foray_optim_default(lr);
  l->optim.schedule = FORAY_LR_COSINE, l->optim.warmup = warmup, l->optim.steps = steps, l->optim.floor = 0.1,
  l->optim.decay = decay;
  if (mkdir(out, 0777) && errno != EEXIST)
    st = foray_err_set(&err, FORAY_E_IO, "%s: %s", out, strerror(errno));
  if (!st && init) st = foray_adapter_load(l->net, 0, rank, init, &err);
  snprintf(path, sizeof path, "%s/checkpoint.safetensors", out);
  if (!st && access(path, R_OK) == 0) {
    st = foray_checkpoint_load(l->net, &l->optim, &note, path, &err);
    long long pass;
    if (!st && sscanf(note, "%d %u %lld", &cur.at, &cur.epoch, &pass) == 3) l->pass = pass;
    if (!st) fprintf(stderr, "going on behind step %d\n", l->optim.step);
  }
  FILE *log = json ? stderr : stdout;
  double t0 = foray_clock_s();
  uint64_t tokens = 0;
  int first = l->optim.step;
  struct foray_loss_how how = {.ce = 1, .lm = {FORAY_DIV_KL, 0, 1, true, false}};
  while (!st && l->optim.step < steps && !*stop) {
    const struct foray_enc *pick[1024];
    int index[1024], n = batch;
    struct foray_lm_sums sums = {0};
    double norm = 0, value = 0;
    if (dp.clip > 0) {
      dp.seed = (uint64_t)seed, dp.step = (uint64_t)l->optim.step;
      n = foray_dp_sample(&dp, e.all.n, (double)batch / e.all.n, index, 1024);
      for (int i = 0; i < n; i++) index[i] = e.all.index[index[i]];
    } else {
      foray_fed_next(&e.all, &cur, (uint64_t)seed, 1, batch, index);
    }
    for (int i = 0; i < n; i++) pick[i] = &e.enc[index[i]], tokens += (uint64_t)e.enc[index[i]].n;
    if (dp.clip > 0) {
      st = foray_dp_step(&dp, l, pick, n, batch, &value, &err);
    } else {
      st = foray_learner_load(l, pick, n, true, &err);
      if (!st) st = foray_learner_loss(l, &how, NULL, NULL, true, &sums, NULL, &err);
      if (!st) norm = foray_learner_update(l), value = sums.ce / sums.ce_weight;
    }
    if (st) break;
    double s = foray_clock_s() - t0;
    int at = l->optim.step;
    if (loss) loss[at - 1] = (float)value;
    if (json)
      printf("{\"step\":%d,\"loss\":%.5f,\"norm\":%.4f,\"tokens_per_s\":%.1f}\n", at, value, norm,
             (double)tokens / s),
          fflush(stdout);
    if (at % 10 == 0 || at == steps)
      fprintf(log, "step %d of %d: loss %.4f, %.0f tokens/s, %.0f s left\n", at, steps, value,
              (double)tokens / s, s / (at - first) * (steps - at)),
          fflush(log);
    if (at % every == 0 || at == steps || *stop) {
      char text[64];
      snprintf(text, sizeof text, "%d %u %lld", cur.at, cur.epoch, (long long)l->pass);
      st = foray_checkpoint_save(l->net, &l->optim, text, path, &err);
    }
  }
  if (!st && l->optim.step < steps) {
    char text[64];
    snprintf(text, sizeof text, "%d %u %lld", cur.at, cur.epoch, (long long)l->pass);
    st = foray_checkpoint_save(l->net, &l->optim, text, path, &err);
    if (!st)
      st = foray_err_set(&err, FORAY_E_CANCELLED, "stopped at step %d of %d; the same command goes on",
                         l->optim.step, steps);
  }
  if (!st) st = save_adapter(l, out, &err);
  if (!st && dp.clip > 0) {
    double delta = 1.0 / e.all.n, q = (double)batch / e.all.n;
    fprintf(log, "private: epsilon %.3f at delta %.2g (%d steps, rate %.4f, noise %.3g)\n",
            foray_dp_epsilon(q < 1 ? q : 1, dp.noise, (uint64_t)steps, delta, NULL), delta, steps, q,
            dp.noise);
  }
  if (!st && loss && first == 0) curve(out, loss, steps);
done:
  encs_close(&e);
  foray_learner_close(l);
  foray_model_close(model);
  machine_close(&m);
  free(note), free(loss);
  return finish(st, &err);
}

static int cmd_dpm(int argc, char **argv, const volatile sig_atomic_t *stop) {
  struct foray_strlist data = {.n = 0};
  const char *out = NULL, *kernel = "auto";
  int threads = 0, rest;
  int64_t seed = 1;
  struct foray_dpm_opts o = {.layers = 8,
                             .rank = 16,
                             .steps = 100,
                             .batch = 4,
                             .max_tokens = 256,
                             .k = 64,
                             .lr = 5e-4,
                             .mu = 0.5,
                             .tau = 1,
                             .stop = stop};
  const struct foray_opt opts[] = {
      {"data", 'd', FORAY_OPT_LIST, &data, "FILE", "public text: JSON lines with prompt and completion", 0,
       0},
      {"out", 'o', FORAY_OPT_STR, &out, "FILE", "proxy (default: NAME-proxyN.gguf)", 0, 0},
      {"layers", 0, FORAY_OPT_INT, &o.layers, "N", "blocks to keep", 1, 512},
      {"rank", 0, FORAY_OPT_INT, &o.rank, "N", "rank in which the kept blocks move", 1, 256},
      {"steps", 0, FORAY_OPT_INT, &o.steps, "N", "updates", 0, 1 << 24},
      {"batch", 0, FORAY_OPT_INT, &o.batch, "N", "texts of an update", 1, 1024},
      {"max-tokens", 0, FORAY_OPT_INT, &o.max_tokens, "N", "longer texts are left out", 16, 8192},
      {"top", 0, FORAY_OPT_INT, &o.k, "N", "candidates of the teacher's distribution that are told apart", 1,
       4096},
      {"lr", 0, FORAY_OPT_DOUBLE, &o.lr, "X", "learning rate (cosine to a tenth)", 0, 1},
      {"mu", 0, FORAY_OPT_DOUBLE, &o.mu, "X", "share of the divergence in the loss", 0, 1},
      {"seed", 's', FORAY_OPT_I64, &seed, "N", "everything random follows from it", 0, 9e15},
      {"threads", 't', FORAY_OPT_INT, &threads, "N", "threads (0: one per processor); changes no bit", 0,
       256},
      {"kernel", 0, FORAY_OPT_STR, &kernel, "NAME", "auto, amx or f32", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray-tune dpm", "--data FILE [OPTIONS] MODEL",
                                    "Cut a proxy from a large model and distil it.", opts, NULL};
  int rc = parse(&cmd, argc, argv, &rest, 1);
  if (rc >= 0) return rc;
  struct foray_err err = {0};
  struct machine m = {0};
  struct foray_model *model = NULL;
  struct foray_learner *l = NULL;
  struct foray_dataset d = {0};
  struct foray_dpm_report r;
  char def[256], **text = NULL;
  o.seed = (uint64_t)seed, o.log = stdout;
  enum foray_status st = data.n ? FORAY_OK : foray_err_set(&err, FORAY_E_ARG, "--data FILE is needed");
  for (int i = 0; !st && i < data.n; i++) st = foray_dataset_add(&d, data.v[i], "public", 1 << 20, 0, &err);
  if (!st && !(text = calloc((size_t)d.n + 1, sizeof *text)))
    st = foray_err_set(&err, FORAY_E_NOMEM, "out of memory");
  for (int i = 0; !st && i < d.n; i++) {
    size_t n = strlen(d.ex[i].prompt) + strlen(d.ex[i].completion) + 2;
    if ((text[i] = malloc(n)))
      snprintf(text[i], n, "%s\n%s", d.ex[i].prompt, d.ex[i].completion);
    else
      st = foray_err_set(&err, FORAY_E_NOMEM, "out of memory");
  }
  if (!st) st = foray_model_open(argv[rest], &model, &err);
  if (!st) st = machine_open(&m, threads, kernel, &err);
  struct foray_learner_opts lo = {.rank = 1, .rows = o.batch * o.max_tokens, .plain = true, .seed = 1};
  if (!st) st = foray_learner_open(model, m.gemm, &lo, &l, &err);
  if (!st && !out) {
    snprintf(def, sizeof def, "%s-proxy%d.gguf", model->name, o.layers);
    out = def;
  }
  if (!st) st = foray_dpm_make(l, (const char *const *)text, d.n, &o, out, &r, &err);
  if (!st)
    printf("%s: %d blocks, %.1f MiB; KL(model || proxy) %.4f -> %.4f nats a token, same first choice %.3f -> "
           "%.3f\n",
           out, r.layers, (double)r.bytes / 1048576, r.kl_before, r.kl_after, r.agree_before, r.agree_after);
  for (int i = 0; text && i < d.n; i++) free(text[i]);
  free(text);
  foray_dataset_deinit(&d);
  foray_learner_close(l);
  foray_model_close(model);
  machine_close(&m);
  return finish(st, &err);
}

static int cmd_saml(int argc, char **argv, const volatile sig_atomic_t *stop) {
  struct foray_strlist data = {.n = 0};
  const char *out = "saml", *kernel = "auto";
  int threads = 0, steps = 50, rest;
  int64_t seed = 1;
  struct foray_fed_config *c = calloc(1, sizeof *c);
  struct foray_err err = {0};
  if (!c) return 1;
  *c = (struct foray_fed_config){.batch = 4,
                                 .max_tokens = 256,
                                 .rank = 8,
                                 .k = 64,
                                 .lr = 2e-4,
                                 .alpha = 0.5,
                                 .beta = 0.5,
                                 .tau = 1,
                                 .rest = true};
  const char *div = "kl";
  const struct foray_opt opts[] = {
      {"data", 'd', FORAY_OPT_LIST, &data, "FILE", "JSON lines with prompt and completion", 0, 0},
      {"out", 'o', FORAY_OPT_STR, &out, "DIR", "adapters go to DIR/proxy and DIR/device", 0, 0},
      {"steps", 0, FORAY_OPT_INT, &steps, "N", "updates of both", 1, 1 << 24},
      {"batch", 0, FORAY_OPT_INT, &c->batch, "N", "examples of an update", 1, 1024},
      {"max-tokens", 0, FORAY_OPT_INT, &c->max_tokens, "N", "longer examples are left out", 16, 8192},
      {"rank", 0, FORAY_OPT_INT, &c->rank, "N", "rank of both LoRA", 1, 256},
      {"top", 0, FORAY_OPT_INT, &c->k, "N", "candidates that each side tells the other", 1, 4096},
      {"lr", 0, FORAY_OPT_DOUBLE, &c->lr, "X", "learning rate", 0, 1},
      {"alpha", 0, FORAY_OPT_DOUBLE, &c->alpha, "X", "share of the divergence in the device's loss", 0, 1},
      {"beta", 0, FORAY_OPT_DOUBLE, &c->beta, "X", "share of the divergence in the proxy's loss", 0, 1},
      {"tau", 0, FORAY_OPT_DOUBLE, &c->tau, "X", "temperature of the divergence", 0.05, 100},
      {"div", 0, FORAY_OPT_STR, &div, "NAME", "kl, rkl, jsd, tvd, skew-kl", 0, 0},
      {"seed", 's', FORAY_OPT_I64, &seed, "N", "everything random follows from it", 0, 9e15},
      {"threads", 't', FORAY_OPT_INT, &threads, "N", "threads (0: one per processor); changes no bit", 0,
       256},
      {"kernel", 0, FORAY_OPT_STR, &kernel, "NAME", "auto, amx or f32", 0, 0},
      {0}};
  const struct foray_command cmd = {
      "foray-tune saml", "--data FILE [OPTIONS] PROXY DEVICE",
      "Let two models learn from each other's distributions, across tokenizers.", opts, NULL};
  int rc = parse(&cmd, argc, argv, &rest, 2);
  if (rc >= 0) {
    free(c);
    return rc;
  }
  struct machine m = {0};
  struct foray_fed_model pair[2] = {{0}};
  struct foray_fed f = {.c = c, .stop = stop, .model = pair, .n_models = 2, .cloud = 0, .proxy = -1};
  enum foray_status st = data.n ? FORAY_OK : foray_err_set(&err, FORAY_E_ARG, "--data FILE is needed");
  if (!st && !foray_div_find(div, &c->div))
    st = foray_err_set(&err, FORAY_E_ARG, "--div %s is not known", div);
  c->seed = (uint64_t)seed;
  if (!st) st = machine_open(&m, threads, kernel, &err);
  for (int i = 0; !st && i < data.n; i++) st = foray_dataset_add(&f.pub, data.v[i], "data", 1 << 20, 0, &err);
  for (int k = 0; !st && k < 2; k++) {
    struct foray_learner_opts lo = {
        .rank = c->rank, .rows = c->batch * c->max_tokens, .seed = c->seed + (uint64_t)k};
    st = foray_model_open(argv[rest + k], &pair[k].m, &err);
    if (!st) st = foray_learner_open(pair[k].m, m.gemm, &lo, &pair[k].l, &err);
    if (!st) pair[k].l->optim.lr = c->lr;
    if (!st && !(pair[k].pub = calloc((size_t)f.pub.n + 1, sizeof *pair[k].pub)))
      st = foray_err_set(&err, FORAY_E_NOMEM, "out of memory");
  }
  int kept = 0, total = f.pub.n;
  for (int i = 0; !st && i < total; i++) { /* what both can hold */
    bool fits = true;
    struct foray_example x = f.pub.ex[i];
    for (int k = 0; !st && k < 2; k++) {
      foray_enc_deinit(&pair[k].pub[kept]);
      enum foray_status one = foray_enc_make(&pair[k].l->style, &x, c->max_tokens, &pair[k].pub[kept], &err);
      fits = fits && !one;
      if (one && one != FORAY_E_LIMIT) st = one;
    }
    f.pub.ex[i] = f.pub.ex[kept], f.pub.ex[kept] = x;
    kept += fits;
  }
  int all = f.pub.n;
  f.pub.n = kept;
  if (!st && !kept)
    st = foray_err_set(&err, FORAY_E_ARG, "no example of at most %d tokens under both", c->max_tokens);
  if (!st) st = foray_align_open(pair[0].m->tokenizer, pair[1].m->tokenizer, &pair[1].from_cloud, &err);
  if (!st) st = foray_align_open(pair[1].m->tokenizer, pair[0].m->tokenizer, &pair[1].to_cloud, &err);
  for (int at = 0; !st && at < steps; at += 10) {
    int n = steps - at < 10 ? steps - at : 10;
    struct foray_pair p = {0, 1, c->beta, c->alpha, true, true, false, NULL, &f.pub_cursor, 1, n};
    double t0 = foray_clock_s();
    st = foray_fed_mutual(&f, &p, &err);
    if (!st)
      printf("step %d of %d, %.1f s a step\n", at + n, steps, (foray_clock_s() - t0) / n), fflush(stdout);
  }
  if (!st && mkdir(out, 0777) && errno != EEXIST)
    st = foray_err_set(&err, FORAY_E_IO, "%s: %s", out, strerror(errno));
  for (int k = 0; !st && k < 2; k++) {
    char dir[4096];
    snprintf(dir, sizeof dir, "%s/%s", out, k ? "device" : "proxy");
    st = save_adapter(pair[k].l, dir, &err);
  }
  f.pub.n = all;
  for (int k = 0; k < 2; k++) {
    for (int i = 0; pair[k].pub && i < all; i++) foray_enc_deinit(&pair[k].pub[i]);
    free(pair[k].pub);
    foray_align_close(pair[k].from_cloud), foray_align_close(pair[k].to_cloud);
    foray_learner_close(pair[k].l);
    foray_model_close(pair[k].m);
  }
  foray_dataset_deinit(&f.pub);
  machine_close(&m);
  free(c);
  return finish(st, &err);
}

void foray_tune_usage(FILE *f) {
  fputs("       foray-tune dst --data FILE [OPTIONS] MODEL\n"
        "       foray-tune dpm --data FILE [OPTIONS] MODEL\n"
        "       foray-tune saml --data FILE [OPTIONS] PROXY DEVICE\n"
        "       foray-tune run --config FILE [OPTIONS]\n"
        "       foray-tune compare --config FILE [OPTIONS]\n"
        "       foray-tune keygen FILE\n"
        "       foray-tune publish --key FILE [OPTIONS] ADAPTER.gguf\n"
        "       foray-tune versions --key FILE [OPTIONS]\n"
        "       foray-tune show [--key FILE.pub] ADAPTER|VERSION.frel\n",
        f);
}

bool foray_tune_command(int argc, char **argv, const volatile sig_atomic_t *stop, int *rc) {
  const char *name = argv[0];
  if (!strcmp(name, "dst"))
    *rc = cmd_dst(argc, argv, stop);
  else if (!strcmp(name, "dpm"))
    *rc = cmd_dpm(argc, argv, stop);
  else if (!strcmp(name, "saml"))
    *rc = cmd_saml(argc, argv, stop);
  else if (!strcmp(name, "run") || !strcmp(name, "compare"))
    *rc = cmd_run(argc, argv, stop, !strcmp(name, "compare"));
  else
    return foray_tune_store_command(argc, argv, rc);
  return true;
}
