/* Measures a device of host/dev on a real edge image; tests/perf/bench.sh runs it beside llama.cpp.
 *
 *   bench_cpu_device MODEL decode N [CONTEXT]    N tokens at full depth behind CONTEXT (default 16) tokens
 *   bench_cpu_device MODEL prefill N             N tokens fed at once
 *   bench_cpu_device MODEL ids N [CONTEXT]       the N ids (equal on every device)
 *
 * One JSON line: seconds a token (best and median of the blocks), bytes streamed a token. MODEL: a model file
 * or name (packed at first use into the cache), or an image *.fimg. Options before it: --device SPEC (cpu),
 * --threads N (2), --trim (choose among the trimmed vocabulary list), --quick (pack without calibration: the
 * speed is the same). */
#include "core/clock.h"
#include "core/pool.h"
#include "dev/device.h"
#include "model/image.h"
#include "model/model.h"
#include "model/pack.h"
#include "rt/drafter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 8, TIMES_MAX = 512, IDS_MAX = 65536, ROUNDS = 3 };

static struct foray_err err;

static void check(enum foray_status st) {
  if (st == FORAY_OK) return;
  fprintf(stderr, "bench_cpu_device: %s\n", err.msg);
  exit(1);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static struct foray_image *image_of(const char *name, bool quick) {
  struct foray_image *img;
  const size_t n = strlen(name);
  char path[4096];
  if (n > 5 && !strcmp(name + n - 5, ".fimg"))
    snprintf(path, sizeof path, "%s", name);
  else {
    struct foray_model *m;
    struct foray_pack_opts o = {.calib = quick ? FORAY_PACK_CALIB_OFF : FORAY_PACK_CALIB_AUTO};
    check(foray_pool_open(0, &o.pool, &err));
    check(foray_model_open(name, &m, &err));
    check(foray_pack_cached(m, &o, path, sizeof path, &err));
    foray_model_close(m);
    foray_pool_close(o.pool);
  }
  check(foray_image_open(path, &img, &err));
  return img;
}

static void decode(struct foray_drafter *d, uint32_t n, bool show_ids) {
  struct foray_draft_params p = foray_draft_defaults();
  struct foray_draft out[BLOCK];
  static double t[TIMES_MAX];
  uint32_t got, done = 0;
  int blocks = 0;
  p.max = BLOCK;
  for (int e = 0; e < FORAY_DRAFT_EXITS_MAX; e++) p.exit_top[e] = 2.f;
  struct foray_drafter_stats st;
  while (done < n && blocks < TIMES_MAX) {
    const double t0 = foray_clock_s();
    check(foray_drafter_draft(d, &p, out, &got, &err));
    if (got == 0) break;
    t[blocks++] = (foray_clock_s() - t0) / got;
    for (uint32_t i = 0; i < got && done + i < n && show_ids; i++) printf("%u ", out[i].id);
    done += got;
    if (done == BLOCK) foray_drafter_stats_reset(d); /* the first block carries the prefix */
  }
  foray_drafter_stats(d, &st);
  if (show_ids) {
    printf("\n");
    return;
  }
  if (blocks < 2) return;
  qsort(t + 1, (size_t)blocks - 1, sizeof *t, by_value);
  const uint64_t bytes = st.bytes_weights + st.bytes_kv;
  printf("{\"what\": \"decode\", \"tokens\": %u, \"best\": %.6f, \"median\": %.6f, \"tokens_per_s\": %.2f, "
         "\"bytes_per_token\": %.0f, \"gb_per_s\": %.2f}\n",
         done, t[1], t[1 + (blocks - 1) / 2], 1 / t[1 + (blocks - 1) / 2], (double)bytes / (done - BLOCK),
         (double)bytes / (done - BLOCK) / t[1 + (blocks - 1) / 2] * 1e-9);
}

static void prefill(struct foray_drafter *d, const uint32_t *ids, uint32_t n) {
  double best = 1e30;
  for (int r = 0; r < ROUNDS; r++) {
    check(foray_drafter_sync(d, ids + r, n, &err)); /* another beginning: nothing is reused */
    const double t0 = foray_clock_s();
    check(foray_drafter_prefill(d, &err));
    const double s = foray_clock_s() - t0;
    if (s < best) best = s;
  }
  printf("{\"what\": \"prefill\", \"tokens\": %u, \"best\": %.6f, \"tokens_per_s\": %.2f}\n", n, best,
         n / best);
}

int main(int argc, char **argv) {
  const char *device = "cpu";
  struct foray_dev_opts dopts = {.threads = 2};
  struct foray_drafter_opts o = {.no_exits = true, .full_head = true};
  bool quick = false;
  int i = 1;
  for (; i < argc && !strncmp(argv[i], "--", 2); i++) {
    if (!strcmp(argv[i], "--trim"))
      o.full_head = false;
    else if (!strcmp(argv[i], "--quick"))
      quick = true;
    else if (!strcmp(argv[i], "--device") && i + 1 < argc)
      device = argv[++i];
    else if (!strcmp(argv[i], "--threads") && i + 1 < argc)
      dopts.threads = (int)strtol(argv[++i], NULL, 10);
    else
      break;
  }
  if (argc - i < 3) {
    fprintf(stderr, "usage: bench_cpu_device [--device SPEC] [--threads N] [--trim] [--quick] MODEL "
                    "decode|prefill|ids N [CONTEXT]\n");
    return 2;
  }
  const char *what = argv[i + 1];
  const uint32_t n = (uint32_t)strtoul(argv[i + 2], NULL, 10),
                 context = argc - i > 3 ? (uint32_t)strtoul(argv[i + 3], NULL, 10) : 16;
  static uint32_t ids[IDS_MAX + ROUNDS];
  if (n < 1 || n > IDS_MAX || context < 1 || context > IDS_MAX) return 2;
  struct foray_image *img = image_of(argv[i], quick);
  for (uint32_t k = 0; k < IDS_MAX + ROUNDS; k++) ids[k] = (100 + k * 7919u % 20000u) % img->config.n_vocab;
  o.ctx = n + context + BLOCK;
  check(foray_drafter_heap_bytes(img, &o, &dopts.heap_bytes, &err));
  struct foray_dev *dev;
  struct foray_drafter *d;
  check(foray_dev_open(device, &dopts, &dev, &err));
  check(foray_drafter_open(img, dev, &o, &d, &err));
  if (!strcmp(what, "prefill"))
    prefill(d, ids, n);
  else {
    check(foray_drafter_sync(d, ids, context, &err));
    decode(d, n, !strcmp(what, "ids"));
  }
  foray_drafter_close(d);
  foray_dev_close(dev);
  foray_image_close(img);
  return 0;
}
