/* Runs every kernel of the target engine on the same pseudo-random inputs and prints a hash of the bits of
 * each result. kernel_hashes scalar|native: the plain C lanes, or this processor's best. All lines must be
 * the same on every processor (tests/e2e/test_neon.sh). */
#include "engine/f16.h"
#include "engine/kernels.h"
#include "engine/repack.h"
#include "unit/engine/synth.h"

enum { ROWS = 75, COLS = 768, M = 13, HEADS = 6, DIM = 80, POS = 150, PAGES = 3 };

static uint64_t hash(const void *p, size_t n) {
  uint64_t h = 1469598103934665603u;
  for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)p)[i]) * 1099511628211u;
  return h;
}
static void say(const char *what, const char *which, const void *p, size_t n) {
  printf("%-10s %-6s %016llx\n", what, which, (unsigned long long)hash(p, n));
}
static void *get(size_t n) {
  void *p = aligned_alloc(64, (n + 8191) / 64 * 64);
  if (!p) exit(1);
  memset(p, 0, (n + 8191) / 64 * 64);
  return p;
}

static void products(const struct ek_ops *ops, struct synth_rng *r) {
  const int groups = COLS / EK_GROUP;
  float *x = get(sizeof *x * M * COLS), *y = get(sizeof *y * M * ROWS), *ys[M];
  void *scratch = get(EK_SCRATCH_BYTES);
  for (int i = 0; i < M * COLS; i++) x[i] = synth_normal(r) * ((i & 63) == 5 ? 30.0f : 1.0f);
  for (int i = 0; i < EK_GROUP; i++) x[COLS + i] = 0.0f;
  struct ek_act a[2];
  for (int b = 0, c = 0; b < 2; b++) {
    const size_t w = b ? M - 8 : 8, cells = w * (size_t)groups;
    a[b] = (struct ek_act){.width = (int)w,
                           .col0 = c,
                           .q = get(cells * EK_GROUP),
                           .d = get(cells * 4),
                           .s = get(cells * 4),
                           .n32 = get(cells * 4),
                           .n16 = get(cells * 8),
                           .xf = get(cells * EK_GROUP * 4)};
    for (int i = 0; i < (int)w; i++, c++) ops->quantise(x + c * COLS, COLS, &a[b], i, 0, groups);
    say("quantise", b ? "5" : "8", a[b].q, cells * EK_GROUP);
    say("scales", b ? "5" : "8", a[b].d, cells * 4);
    say("sums", b ? "5" : "8", a[b].n16, cells * 8);
  }
  for (int c = 0; c < M; c++) ys[c] = y + c * ROWS;
  for (int t = 0; t < SYNTH_TYPES; t++) {
    const uint32_t type = synth_types[t];
    uint8_t *src = synth_matrix(r, type, ROWS, COLS, 0.05f);
    struct ek_mat m;
    if (!ek_mat_shape(&m, type, ROWS, COLS)) exit(1);
    uint8_t *data = get(ek_mat_bytes(&m) + 8192);
    ek_repack(&m, src, foray_type_row_bytes(type, COLS), data, 0, ek_blocks(&m));
    m.data = data;
    ops->gemm(&m, a, 2, ys, 0, ek_blocks(&m), scratch);
    say("gemm", foray_type_info(type)->name, y, sizeof *y * M * ROWS);
    free(src);
    free(data);
  }
}

static void vectors(const struct ek_ops *ops, struct synth_rng *r) {
  enum { N = 1008, ODD = 1003 };
  float *x = get(sizeof *x * N), *w = get(sizeof *w * N), *y = get(sizeof *y * N);
  for (int i = 0; i < N; i++) x[i] = 40.0f * synth_normal(r), w[i] = synth_normal(r);
  x[3] = -300.0f, x[4] = 300.0f, x[5] = 0.0f;
  ops->rmsnorm(y, x, w, ODD, 1e-6f);
  say("rmsnorm", "", y, sizeof *y * ODD);
  ops->silu_mul(y, x, w, N);
  say("silu", "", y, sizeof *y * N);
  ops->gelu_mul(y, x, w, N);
  say("gelu", "", y, sizeof *y * N);
}

static void attention(const struct ek_ops *ops, struct synth_rng *r) {
  uint16_t *page[PAGES];
  float *k = get(sizeof *k * DIM), *v = get(sizeof *v * DIM), *q = get(sizeof *q * HEADS * DIM),
        *out = get(sizeof *out * HEADS * DIM), *scores = get(sizeof *scores * HEADS * PAGES * EK_PAGE);
  for (int p = 0; p < PAGES; p++) page[p] = get((size_t)2 * DIM * EK_PAGE * 2);
  for (int s = 0; s < POS; s++) {
    for (int i = 0; i < DIM; i++) k[i] = synth_normal(r), v[i] = synth_normal(r) * (i == 7 ? 1e-7f : 3.0f);
    uint16_t *base = page[s / EK_PAGE];
    ops->kv_put(k, v, DIM, base, base + DIM * EK_PAGE, s % EK_PAGE);
  }
  say("kv_put", "", page[1], (size_t)2 * DIM * EK_PAGE * 2);
  for (int i = 0; i < HEADS * DIM; i++) q[i] = synth_normal(r);
  const struct ek_kv kv = {page, 0, DIM * EK_PAGE};
  ops->attention(out, q, HEADS, DIM, &kv, 0, POS - 1, 0.11f, scores, PAGES * EK_PAGE);
  say("attention", "all", out, sizeof *out * HEADS * DIM);
  ops->attention(out, q, HEADS, DIM, &kv, 70, POS - 5, 0.11f, scores, PAGES * EK_PAGE);
  say("attention", "window", out, sizeof *out * HEADS * DIM);
}

int main(int argc, char **argv) {
  const struct ek_ops *ops = &ek_ops_scalar;
  if (argc > 1 && !strcmp(argv[1], "native")) {
#if defined(__aarch64__)
    ops = &ek_ops_neon;
#endif
  }
  struct synth_rng r = {2025, 0};
  products(ops, &r);
  vectors(ops, &r);
  attention(ops, &r);
  return 0;
}
