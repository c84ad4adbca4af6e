/* Gradients and speed of the trainer on a real model, for comparison with another framework.
 *
 *   train_probe grad MODEL KERNEL SIZE ADAPTER OUT ID...     loss and LoRA gradients on one sequence
 *   train_probe bench MODEL KERNEL THREADS RANK SEQS LEN STEPS CHECKPOINT
 *
 * grad writes the gradients as a PEFT adapter folder (each matrix holds its gradient) and prints the loss;
 * ADAPTER is a PEFT folder that is written first when it does not exist (random A and B). bench prints tokens
 * a second of AdamW steps after one warm-up, and the peak resident memory. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/philox.h"
#include "train/adapter.h"
#include "train/lm.h"

struct probe {
  struct foray_model *model;
  struct foray_pool *pool;
  struct foray_mm *gemm;
  struct foray_net *n;
  struct foray_acts *acts;
  struct foray_lm *lm;
  struct foray_err err;
};

static int fail(const struct probe *p) {
  fprintf(stderr, "train_probe: %s\n", p->err.msg);
  return 1;
}

static bool open_probe(struct probe *p, const char *model, const char *kernel, int threads, int rank,
                       int rows, bool checkpoint) {
  enum foray_mm_kind kind = !strcmp(kernel, "f32") ? FORAY_MM_F32 : FORAY_MM_AMX;
  return !foray_model_open(model, &p->model, &p->err) && !foray_pool_open(threads, &p->pool, &p->err) &&
         !foray_mm_open(kind, p->pool, &p->gemm, &p->err) &&
         !foray_net_open(p->model, p->gemm, 0, &p->n, &p->err) && !foray_net_full_head(p->n, true, &p->err) &&
         !foray_net_add_lora(p->n, 0, rank, 2.0f * (float)rank, 3, &p->err) &&
         !foray_acts_open_with(p->n, rows, checkpoint, &p->acts, &p->err) &&
         !foray_lm_open(p->n, rows, &p->lm, &p->err);
}

static float g_size;
static void random_b(void *arg, struct foray_param *p) {
  uint32_t *stream = arg;
  (*stream)++;
  if (*stream % 2) return; /* a, then b of each matrix: b is zero until somebody fills it */
  for (size_t i = 0; i < p->n; i++)
    p->w[i] = g_size * ((float)foray_philox4x32(11, (uint32_t)i, *stream, 0, 0).v[0] / 2147483648.0f - 1.0f);
}
static void gradient_out(void *arg, struct foray_param *p) {
  (void)arg;
  memcpy(p->w, p->g, p->n * sizeof(float));
}

static bool pass(struct probe *p, const int32_t *tok, const struct foray_segment *seg, int n_seg, int rows,
                 float **d, double *loss) {
  struct foray_lm_opts o = {FORAY_DIV_KL, 0, 1, true, false};
  struct foray_lm_sums s = {0};
  struct foray_lm_goal *g = malloc((size_t)rows * sizeof *g);
  int n = 0;
  for (int k = 0; g && k < n_seg; k++)
    for (int i = seg[k].start; i + 1 < seg[k].start + seg[k].len; i++)
      g[n++] = (struct foray_lm_goal){.row = i, .next = tok[i + 1], .ce_weight = 1};
  memset(d[p->n->n_layer], 0, (size_t)rows * (size_t)p->n->D * sizeof(float));
  bool ok = g && !foray_net_forward(p->n, p->acts, rows, tok, seg, n_seg, &p->err) &&
            !foray_lm_loss(p->lm, p->acts, g, n, &o, 1.0f / (float)n, d[p->n->n_layer], &s, NULL, &p->err) &&
            !foray_net_backward(p->n, p->acts, d, &p->err);
  *loss = s.ce / s.ce_weight;
  free(g);
  return ok;
}

static int grad(int argc, char **argv) {
  struct probe p = {0};
  struct foray_adapter_info info = {0};
  int n = argc - 7;
  int32_t tok[512];
  double loss;
  uint32_t stream = 0;
  if (n < 2 || n > 512 || !open_probe(&p, argv[2], argv[3], 2, 4, n, true)) return fail(&p);
  g_size = strtof(argv[4], NULL);
  for (int i = 0; i < n; i++) tok[i] = (int32_t)strtol(argv[7 + i], NULL, 10);
  snprintf(info.base_name, sizeof info.base_name, "%s", p.model->name);
  foray_net_params(p.n, random_b, &stream);
  if (foray_adapter_save_peft(p.n, 0, 4, &info, argv[5], &p.err)) return fail(&p);
  char gguf[4096];
  snprintf(gguf, sizeof gguf, "%s/adapter.gguf", argv[5]);
  if (foray_adapter_save_gguf(p.n, 0, 4, &info, gguf, &p.err)) return fail(&p);
  float **d = calloc((size_t)p.n->n_layer + 1, sizeof *d);
  d[p.n->n_layer] = malloc((size_t)n * (size_t)p.n->D * sizeof(float));
  struct foray_segment seg = {0, n};
  if (!pass(&p, tok, &seg, 1, n, d, &loss)) return fail(&p);
  foray_net_params(p.n, gradient_out, NULL);
  if (foray_adapter_save_peft(p.n, 0, 4, &info, argv[6], &p.err)) return fail(&p);
  printf("%.9g\n", loss);
  return 0;
}

static int bench(int argc, char **argv) {
  struct probe p = {0};
  if (argc < 10) return 2;
  int threads = (int)strtol(argv[4], NULL, 10), rank = (int)strtol(argv[5], NULL, 10);
  int seqs = (int)strtol(argv[6], NULL, 10), len = (int)strtol(argv[7], NULL, 10);
  int steps = (int)strtol(argv[8], NULL, 10), rows = seqs * len;
  struct foray_optim o = foray_optim_default(1e-4);
  double loss = 0, t0 = 0;
  if (!open_probe(&p, argv[2], argv[3], threads, rank, rows, strtol(argv[9], NULL, 10) != 0)) return fail(&p);
  int32_t *tok = malloc((size_t)rows * sizeof *tok);
  struct foray_segment *seg = malloc((size_t)seqs * sizeof *seg);
  float **d = calloc((size_t)p.n->n_layer + 1, sizeof *d);
  d[p.n->n_layer] = malloc((size_t)rows * (size_t)p.n->D * sizeof(float));
  for (int i = 0; i < rows; i++)
    tok[i] = (int32_t)(foray_philox4x32(1, (uint32_t)i, 0, 0, 0).v[0] % 20000 + 1000);
  for (int s = 0; s < seqs; s++) seg[s] = (struct foray_segment){s * len, len};
  for (int i = 0; i <= steps; i++) {
    if (i == 1) t0 = foray_clock_s();
    if (!pass(&p, tok, seg, seqs, rows, d, &loss)) return fail(&p);
    foray_optim_step(&o, p.n, 1);
  }
  double s = foray_clock_s() - t0;
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  printf("{\"kernel\":\"%s\",\"tokens_per_s\":%.1f,\"loss\":%.6f,\"peak_mib\":%.0f}\n",
         foray_mm_kind_of(p.gemm) == FORAY_MM_AMX ? "bf16" : "f32", steps * rows / s, loss,
         (double)u.ru_maxrss / 1024);
  return 0;
}

int main(int argc, char **argv) {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  if (argc > 7 && !strcmp(argv[1], "grad")) return grad(argc, argv);
  if (argc > 9 && !strcmp(argv[1], "bench")) return bench(argc, argv);
  fputs("usage: train_probe grad MODEL KERNEL SIZE ADAPTER OUT ID... | bench MODEL KERNEL THREADS RANK SEQS "
        "LEN "
        "STEPS CHECKPOINT\n",
        stderr);
  return 2;
}
