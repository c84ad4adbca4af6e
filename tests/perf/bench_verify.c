/* bench_verify MODEL [SESSIONS DRAFTS [REPEATS]]: SESSIONS x (DRAFTS + 1) positions verified in one pass,
 * session by session, and token by token (plain decoding of one after another). One JSON line with the
 * seconds of each; the runs alternate, so that other load hits all three. */
#include "core/clock.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 96, REPEATS_MAX = 64 };

static struct foray_err err;
static void check(enum foray_status st) {
  if (st == FORAY_OK) return;
  fprintf(stderr, "bench_verify: %s\n", err.msg);
  exit(1);
}
static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
static double median(double *v, int n) {
  qsort(v, (size_t)n, sizeof *v, by_value);
  return v[n / 2];
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  const int sessions = argc > 3 ? (int)strtol(argv[2], NULL, 10) : 32;
  const int rows = 1 + (argc > 3 ? (int)strtol(argv[3], NULL, 10) : 8);
  const int repeats = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 5;
  if (sessions < 1 || sessions > 256 || rows < 2 || rows > 65 || repeats < 1 || repeats > REPEATS_MAX)
    return 2;
  struct foray_engine *e;
  struct foray_engine_opts o = foray_engine_opts_default();
  check(foray_engine_open(argv[1], &o, &e, &err));
  const int32_t vocab = foray_engine_info(e)->n_vocab;
  struct foray_engine_seq **seq = calloc((size_t)sessions, sizeof(*seq));
  struct foray_engine_item *it = calloc((size_t)sessions, sizeof *it);
  int32_t *ids = malloc((size_t)(CONTEXT + rows) * sizeof *ids);
  float *logits = malloc((size_t)sessions * (size_t)rows * (size_t)vocab * sizeof *logits);
  if (!seq || !it || !ids || !logits) return 1;
  for (int i = 0; i < CONTEXT + rows; i++) ids[i] = 100 + i * 37 % 5000;
  for (int s = 0; s < sessions; s++) {
    check(foray_engine_seq_open(e, &seq[s], &err));
    it[s] = (struct foray_engine_item){.seq = seq[s], .tokens = ids, .n = CONTEXT};
  }
  check(foray_engine_pass(e, it, sessions, &err));
  double t[3][REPEATS_MAX];
  for (int r = 0; r < repeats; r++)
    for (int how = 0; how < 3; how++) {
      for (int s = 0; s < sessions; s++) {
        (void)!foray_engine_seq_truncate(seq[s], CONTEXT);
        it[s] = (struct foray_engine_item){.seq = seq[s],
                                           .tokens = ids + CONTEXT,
                                           .n = rows,
                                           .n_logits = rows,
                                           .logits = logits + (size_t)s * (size_t)rows * (size_t)vocab};
      }
      const int64_t from = foray_clock_ns();
      if (how == 0) check(foray_engine_pass(e, it, sessions, &err));
      for (int s = 0; s < sessions && how; s++) {
        if (how == 1) check(foray_engine_pass(e, &it[s], 1, &err));
        for (int k = 0; k < rows && how == 2; k++) {
          struct foray_engine_item one = it[s];
          one.tokens += k;
          one.n = one.n_logits = 1;
          one.logits += (size_t)k * (size_t)vocab;
          check(foray_engine_pass(e, &one, 1, &err));
        }
      }
      t[how][r] = (double)(foray_clock_ns() - from) * 1e-9;
    }
  const double batch = median(t[0], repeats), each = median(t[1], repeats), token = median(t[2], repeats);
  printf("{\"sessions\":%d,\"drafts\":%d,\"one_pass_s\":%.4f,\"session_by_session_s\":%.4f,\"token_by_token_"
         "s\":%.4f,"
         "\"against_sessions\":%.2f,\"against_tokens\":%.2f}\n",
         sessions, rows - 1, batch, each, token, each / batch, token / batch);
  for (int s = 0; s < sessions; s++) foray_engine_seq_close(seq[s]);
  foray_engine_close(e);
  free(seq);
  free(it);
  free(ids);
  free(logits);
  return 0;
}
