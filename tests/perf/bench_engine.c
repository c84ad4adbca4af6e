/* Measures the target engine alone; tests/perf/bench.sh runs it beside llama.cpp.
 *   bench_engine MODEL load                      seconds to open, peak memory
 *   bench_engine MODEL decode|verify|prefill N [CONTEXT]   one line: seconds of one pass of N positions, best
 * and median bench_engine MODEL ppl FILE WINDOWS          perplexity of windows of 512, second halves, as
 * llama.cpp counts bench_engine MODEL hash FILE                 a hash of the logits of 64 positions (equal
 * for every --isa, --threads) Options before the model: --threads N, --isa NAME. */
#include "core/clock.h"
#include "core/hash.h"
#include "engine/engine.h"
#include "engine/fmath.h"
#include "model/perplexity.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct foray_err err;
static struct foray_engine *engine;

static void check(enum foray_status st) {
  if (st == FORAY_OK) return;
  fprintf(stderr, "bench_engine: %s\n", err.msg);
  exit(1);
}

static long peak_kib(void) {
  char line[256];
  long kib = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (!strncmp(line, "VmHWM:", 6)) kib = strtol(line + 6, NULL, 10);
  if (f) fclose(f);
  return kib;
}

/* Processor time of the whole process: what a pass costs when other programs take the processors away. */
static double cpu_s(void) {
  struct timespec ts;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int32_t *some_ids(int n) {
  int32_t *ids = malloc((size_t)n * sizeof *ids);
  for (int i = 0; ids && i < n; i++) ids[i] = (int32_t)(100 + (uint32_t)i * 7919u % 20000u);
  return ids;
}

/* Runs passes of n positions after `context` tokens, for about two seconds. */
static void bench(const char *what, int n, int context) {
  const int logits_of = strcmp(what, "prefill") ? n : 1;
  float *logits = malloc((size_t)logits_of * (size_t)foray_engine_info(engine)->n_vocab * sizeof *logits);
  int32_t *ids = some_ids(n + context + 1);
  struct foray_engine_seq *s;
  check(foray_engine_seq_open(engine, &s, &err));
  if (context) {
    const struct foray_engine_item it = {.seq = s, .tokens = ids, .n = context};
    check(foray_engine_pass(engine, &it, 1, &err));
  }
  double t[256], c[256], all = 0;
  int k = 0;
  while (k < 256 && (k < 3 || all < 2.0)) {
    const struct foray_engine_item it = {
        .seq = s, .tokens = ids + context, .n = n, .n_logits = logits_of, .logits = logits};
    const double t0 = foray_clock_s(), c0 = cpu_s();
    check(foray_engine_pass(engine, &it, 1, &err));
    t[k] = foray_clock_s() - t0;
    c[k] = cpu_s() - c0;
    all += t[k++];
    check(foray_engine_seq_truncate(s, context));
  }
  qsort(t, (size_t)k, sizeof *t, by_value);
  qsort(c, (size_t)k, sizeof *c, by_value);
  printf("{\"what\": \"%s\", \"n\": %d, \"context\": %d, \"best\": %.6f, \"median\": %.6f, \"cpu_best\": "
         "%.6f}\n",
         what, n, context, t[0], t[k / 2], c[0]);
  foray_engine_seq_close(s);
  free(ids);
  free(logits);
}

static struct foray_ids read_ids(const char *model, const char *file, int32_t *bos) {
  struct foray_gguf *g;
  struct foray_tokenizer *t;
  struct foray_ids ids = {0};
  check(foray_gguf_open(model, &g, &err));
  check(foray_tokenizer_open(g, &t, &err));
  FILE *f = fopen(file, "r");
  char *text = malloc(1 << 24);
  const size_t len = f && text ? fread(text, 1, 1 << 24, f) : 0;
  if (f) fclose(f);
  check(foray_tokenizer_encode(t, text, len, FORAY_ENCODE_BOS, &ids, &err));
  *bos = foray_tokenizer_adds_bos(t) ? foray_tokenizer_bos(t) : -1;
  free(text);
  foray_tokenizer_close(t);
  foray_gguf_close(g);
  return ids;
}

static void perplexity(const char *model, const char *file, int windows) {
  enum { CTX = 512 };
  int32_t bos;
  struct foray_ids ids = read_ids(model, file, &bos);
  const size_t n = foray_ppl_windows(ids.n, CTX, (size_t)windows), first = foray_ppl_first(CTX);
  double sum = 0, logp[CTX];
  struct foray_engine_seq *s;
  check(foray_engine_seq_open(engine, &s, &err));
  for (size_t w = 0; w < n; w++) {
    int32_t win[CTX];
    memcpy(win, ids.ids + w * CTX, sizeof win);
    if (bos >= 0) win[0] = bos;
    check(foray_engine_score(engine, s, win, CTX, (int32_t)first + 1, logp, &err));
    for (size_t i = first + 1; i < CTX; i++) sum -= logp[i];
    check(foray_engine_seq_truncate(s, 0));
    fprintf(stderr, "window %zu: %.4f\n", w + 1, fm_exp(sum / (double)((w + 1) * (CTX - 1 - first))));
  }
  const double tokens = (double)(n * (CTX - 1 - first));
  printf("{\"ppl\": %.6f, \"tokens\": %.0f}\n", fm_exp(sum / tokens), tokens);
  foray_engine_seq_close(s);
  foray_ids_deinit(&ids);
}

static void hash(const char *model, const char *file) {
  enum { N = 64 };
  int32_t bos;
  struct foray_ids ids = read_ids(model, file, &bos);
  const size_t floats = N * (size_t)foray_engine_info(engine)->n_vocab;
  float *logits = malloc(floats * sizeof *logits);
  struct foray_engine_seq *s;
  check(foray_engine_seq_open(engine, &s, &err));
  const struct foray_engine_item it = {.seq = s, .tokens = ids.ids, .n = N, .n_logits = N, .logits = logits};
  check(foray_engine_pass(engine, &it, 1, &err));
  uint64_t h = 1469598103934665603u;
  for (size_t i = 0; logits && i < floats; i++) {
    uint32_t u;
    memcpy(&u, &logits[i], 4);
    h = (h ^ u) * 1099511628211u;
  }
  printf("{\"isa\": \"%s\", \"hash\": \"%016llx\"}\n", foray_isa_name(foray_engine_info(engine)->isa),
         (unsigned long long)h);
  foray_engine_seq_close(s);
  foray_ids_deinit(&ids);
  free(logits);
}

int main(int argc, char **argv) {
  struct foray_engine_opts o = foray_engine_opts_default();
  int a = 1;
  for (; a + 1 < argc && argv[a][0] == '-'; a += 2) {
    enum foray_isa isa;
    if (!strcmp(argv[a], "--threads"))
      o.threads = (int)strtol(argv[a + 1], NULL, 10);
    else if (!strcmp(argv[a], "--isa")) {
      check(foray_isa_parse(argv[a + 1], &isa, &err));
      o.isa = (int)isa;
    }
  }
  if (argc - a < 2) {
    fprintf(stderr,
            "usage: bench_engine [--threads N] [--isa NAME] MODEL load|decode|verify|prefill|ppl|hash ...\n");
    return 2;
  }
  const char *model = argv[a], *what = argv[a + 1];
  const long n = argc > a + 2 ? strtol(argv[a + 2], NULL, 10) : 1,
             m = argc > a + 3 ? strtol(argv[a + 3], NULL, 10) : 0;
  const double t0 = foray_clock_s();
  check(foray_engine_open(model, &o, &engine, &err));
  const double opened = foray_clock_s() - t0;
  if (!strcmp(what, "load")) {
    const struct foray_engine_info *i = foray_engine_info(engine);
    printf("{\"what\": \"load\", \"seconds\": %.3f, \"peak_kib\": %ld, \"file_bytes\": %llu, "
           "\"weight_bytes\": %llu}\n",
           opened, peak_kib(), (unsigned long long)i->file_bytes, (unsigned long long)i->weight_bytes);
  } else if (!strcmp(what, "ppl") && argc > a + 2)
    perplexity(model, argv[a + 2], (int)m);
  else if (!strcmp(what, "hash") && argc > a + 2)
    hash(model, argv[a + 2]);
  else
    bench(what, (int)n, (int)m);
  foray_engine_close(engine);
  return 0;
}
