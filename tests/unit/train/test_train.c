/* The trainer against finite differences, the tile kernel against single precision, and the pieces around it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/philox.h"
#include "train/loss.h"
#include "train/net.h"
#include "unit/harness.h"

static float rnd(uint32_t stream, uint32_t i) {
  return (float)foray_philox4x32(7, i, stream, 0, 0).v[0] / 2147483648.0f - 1.0f;
}

static const struct foray_model_config TINY = {.arch = FORAY_ARCH_QWEN2,
                                               .n_layer = 3,
                                               .n_embd = 32,
                                               .n_ff = 48,
                                               .n_head = 4,
                                               .n_head_kv = 2,
                                               .head_dim = 8,
                                               .n_vocab = 60,
                                               .rms_eps = 1e-6f,
                                               .rope_style = FORAY_ROPE_NEOX,
                                               .rope_dim = 8,
                                               .rope_base = 10000,
                                               .attn_scale = 0.35f,
                                               .qkv_bias = true,
                                               .tied = true};

struct rig {
  struct foray_pool *pool;
  struct foray_mm *gemm;
  struct foray_net *net;
  struct foray_acts *acts;
  struct foray_loss *loss;
  struct foray_goals goals;
  struct foray_doc doc[2];
  struct foray_segment seg[2];
  int32_t tokens[64];
  int m;
};

static void fill_random(void *arg, struct foray_param *p) {
  uint32_t *stream = arg;
  (*stream)++;
  for (size_t i = 0; i < p->n; i++) p->w[i] += 0.2f * rnd(*stream, (uint32_t)i);
}

static bool rig_open(struct rig *r, int threads) {
  struct foray_err err = {0};
  uint32_t ids[40], stream = 100;
  *r = (struct rig){0};
  for (uint32_t i = 0; i < 40; i++) ids[i] = (i * 7 + 3) % 60;
  if (foray_pool_open(threads, &r->pool, &err) || foray_mm_open(FORAY_MM_F32, r->pool, &r->gemm, &err) ||
      foray_net_open_random(&TINY, r->gemm, 5, &r->net, &err) || foray_net_set_vocab(r->net, ids, 40, &err) ||
      foray_net_add_lora(r->net, 0, 4, 8, 9, &err) || foray_net_add_exit(r->net, 1, 16, true, &err) ||
      foray_net_add_exit(r->net, 2, 40, false, &err) || foray_acts_open(r->net, 64, &r->acts, &err) ||
      foray_loss_open(r->net, 64, &r->loss, &err))
    return false;
  foray_net_params(r->net, fill_random, &stream);
  for (int d = 0; d < 2; d++) {
    struct foray_doc *doc = &r->doc[d];
    doc->n = d ? 9 : 13;
    doc->first = 2;
    doc->answer = 5;
    doc->ids = malloc((size_t)doc->n * 4);
    doc->top = malloc((size_t)doc->n * FORAY_CORPUS_TOP * 4);
    doc->logp = malloc((size_t)doc->n * FORAY_CORPUS_TOP * 4);
    for (int i = 0; i < doc->n; i++) {
      doc->ids[i] = (i * 11 + d * 17) % 60;
      for (int k = 0; k < FORAY_CORPUS_TOP; k++) {
        doc->top[i * FORAY_CORPUS_TOP + k] = (i * 13 + d * 5 + k * 2) % 60;
        doc->logp[i * FORAY_CORPUS_TOP + k] = -0.7f - 0.8f * (float)k;
      }
    }
    r->seg[d] = (struct foray_segment){r->m, doc->n};
    memcpy(r->tokens + r->m, doc->ids, (size_t)doc->n * 4);
    if (foray_goals_add(&r->goals, doc, r->m, 0.5f, &err)) return false;
    r->m += doc->n;
  }
  return true;
}

static void rig_close(struct rig *r) {
  for (int d = 0; d < 2; d++) free(r->doc[d].ids), free(r->doc[d].top), free(r->doc[d].logp);
  foray_goals_deinit(&r->goals);
  foray_loss_close(r->loss);
  foray_acts_close(r->acts);
  foray_net_close(r->net);
  foray_mm_close(r->gemm);
  foray_pool_close(r->pool);
}

static double rig_loss(struct rig *r, bool back) {
  static const float W[3] = {1.0f, 0.5f, 0.25f}; /* full depth, exit 0, exit 1 */
  struct foray_err err = {0};
  float *d[4] = {0};
  double total = 0, kl;
  float prev[64 * 32]; /* given: no gradient passes through it */
  for (uint32_t i = 0; i < 64 * 32; i++) prev[i] = rnd(77, i);
  CU_ASSERT_EQUAL_FATAL(foray_net_forward(r->net, r->acts, r->m, r->tokens, r->seg, 2, &err), FORAY_OK);
  for (int i = 0; back && i < 4; i++) d[i] = calloc((size_t)r->m * 32, sizeof(float));
  for (int e = -1; e < 2; e++) {
    int l = e < 0 ? 3 : r->net->exit[e].layer;
    struct foray_chain chain = {.last = prev};
    CU_ASSERT_EQUAL_FATAL(foray_loss_head(r->loss, r->net, e, foray_acts_state(r->acts, l), &chain, &r->goals,
                                          W[e + 1], d[l], &kl, NULL, &err),
                          FORAY_OK);
    total += (double)W[e + 1] * kl;
  }
  if (back) CU_ASSERT_EQUAL_FATAL(foray_net_backward(r->net, r->acts, d, &err), FORAY_OK);
  for (int i = 0; i < 4; i++) free(d[i]);
  return total;
}

struct probe {
  struct rig *r;
  int checked;
  double worst;
};

static void check_param(void *arg, struct foray_param *p) {
  struct probe *q = arg;
  if (strstr(p->name, ".norm")) return; /* fixed: the map after it makes it redundant */
  /* along the gradient's own direction, and along a random one */
  for (int kind = 0; kind < 2; kind++) {
    double dot = 0, len = 0;
    float *keep = malloc(p->n * sizeof(float)), *dir = malloc(p->n * sizeof(float));
    for (size_t i = 0; i < p->n; i++) {
      dir[i] = kind ? rnd(77, (uint32_t)i) : p->g[i];
      len += (double)dir[i] * (double)dir[i];
    }
    len = sqrt(len) + 1e-30;
    for (size_t i = 0; i < p->n; i++) dot += (double)p->g[i] * (double)dir[i] / len;
    memcpy(keep, p->w, p->n * sizeof(float));
    const double h = 2e-3;
    double f[2];
    for (int s = 0; s < 2; s++) {
      for (size_t i = 0; i < p->n; i++) p->w[i] = keep[i] + (float)((s ? -h : h) * (double)dir[i] / len);
      f[s] = rig_loss(q->r, false);
    }
    memcpy(p->w, keep, p->n * sizeof(float));
    double fd = (f[0] - f[1]) / (2 * h), bad = fabs(fd - dot) / (fabs(dot) + fabs(fd) + 2e-3);
    if (bad > q->worst) q->worst = bad;
    if (bad > 0.02) printf("%s kind %d: %g by hand, %g by differences\n", p->name, kind, dot, fd);
    q->checked++;
    free(keep);
    free(dir);
  }
}

TEST(gradients_equal_finite_differences) {
  struct rig r;
  CU_ASSERT_FATAL(rig_open(&r, 2));
  rig_loss(&r, true);
  struct probe q = {&r, 0, 0};
  foray_net_params(r.net, check_param, &q);
  CU_ASSERT_EQUAL(q.checked, 2 * (3 * 7 * 2 + 3));
  CU_ASSERT(q.worst < 0.02);
  rig_close(&r);
}

/* A segment must not see another: the loss of the second document alone equals its part in the packed batch.
 */
TEST(packed_sequences_do_not_see_each_other) {
  struct rig r;
  struct foray_err err = {0};
  CU_ASSERT_FATAL(rig_open(&r, 1));
  float packed[9 * 32];
  CU_ASSERT_EQUAL(foray_net_forward(r.net, r.acts, r.m, r.tokens, r.seg, 2, &err), FORAY_OK);
  memcpy(packed, foray_acts_state(r.acts, 3) + 13 * 32, sizeof packed);
  struct foray_segment one = {0, 9};
  CU_ASSERT_EQUAL(foray_net_forward(r.net, r.acts, 9, r.tokens + 13, &one, 1, &err), FORAY_OK);
  double worst = 0;
  for (int i = 0; i < 9 * 32; i++)
    worst = fmax(worst, fabs((double)(packed[i] - foray_acts_state(r.acts, 3)[i])));
  CU_ASSERT(worst < 1e-4);
  /* and causal: changing the last token leaves the earlier rows alone */
  memcpy(packed, foray_acts_state(r.acts, 3), sizeof packed);
  r.tokens[13 + 8] = 1;
  CU_ASSERT_EQUAL(foray_net_forward(r.net, r.acts, 9, r.tokens + 13, &one, 1, &err), FORAY_OK);
  CU_ASSERT(memcmp(packed, foray_acts_state(r.acts, 3), 8 * 32 * sizeof(float)) == 0);
  CU_ASSERT(memcmp(packed + 8 * 32, foray_acts_state(r.acts, 3) + 8 * 32, 32 * sizeof(float)) != 0);
  rig_close(&r);
}

TEST(thread_count_does_not_change_a_step) {
  struct rig a, b;
  CU_ASSERT_FATAL(rig_open(&a, 1));
  CU_ASSERT_FATAL(rig_open(&b, 3));
  CU_ASSERT(rig_loss(&a, true) == rig_loss(&b, true));
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < FORAY_LIN_N; j++) {
      const struct foray_param *p = &a.net->layer[i].lin[j].a, *q = &b.net->layer[i].lin[j].a;
      CU_ASSERT(memcmp(p->g, q->g, p->n * sizeof(float)) == 0);
    }
  rig_close(&a);
  rig_close(&b);
}

static double tile_error(int m, int n, int k, bool transposed, bool add) {
  struct foray_err err = {0};
  struct foray_pool *pool;
  struct foray_mm *g;
  struct foray_mm_b b;
  CU_ASSERT_EQUAL_FATAL(foray_pool_open(2, &pool, &err), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_mm_open(FORAY_MM_AMX, pool, &g, &err), FORAY_OK);
  float *x = malloc((size_t)m * (size_t)k * 4), *w = malloc((size_t)n * (size_t)k * 4),
        *y = malloc((size_t)m * (size_t)n * 4);
  for (int i = 0; i < m * k; i++) x[i] = rnd(1, (uint32_t)i);
  for (int i = 0; i < n * k; i++) w[i] = rnd(2, (uint32_t)i);
  for (int i = 0; i < m * n; i++) y[i] = 1;
  CU_ASSERT_EQUAL(foray_mm_pack(g, w, k, n, (size_t)(transposed ? k : n), transposed, true, &b, &err),
                  FORAY_OK);
  CU_ASSERT_EQUAL(foray_mm_run(g, m, x, (size_t)k, &b, y, (size_t)n, add, &err), FORAY_OK);
  double se = 0, ss = 0;
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      double s = add;
      for (int c = 0; c < k; c++)
        s += (double)x[i * k + c] * (double)(transposed ? w[j * k + c] : w[c * n + j]);
      se += (s - (double)y[i * n + j]) * (s - (double)y[i * n + j]);
      ss += s * s;
    }
  foray_mm_b_free(&b);
  foray_mm_close(g);
  foray_pool_close(pool);
  free(x), free(w), free(y);
  return sqrt(se / ss);
}

TEST(matrix_kernels_agree) {
  /* bf16 operands: relative error of a long dot product about 2^-9 */
  CU_ASSERT(tile_error(70, 45, 100, true, false) < 6e-3);
  CU_ASSERT(tile_error(64, 64, 64, false, true) < 6e-3);
  CU_ASSERT(tile_error(1, 33, 31, true, true) < 6e-3);
}

TEST(ridge_recovers_a_linear_map) {
  enum { D = 24, N = 400 };
  struct foray_err err = {0};
  struct foray_pool *pool;
  struct foray_mm *g;
  struct foray_ridge r;
  float w[D * D], map[D * D], *x = malloc(N * D * 4), *y = calloc(N * D, 4);
  CU_ASSERT_EQUAL_FATAL(foray_pool_open(1, &pool, &err), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_mm_open(FORAY_MM_F32, pool, &g, &err), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_ridge_open(D, D, &r, &err), FORAY_OK);
  for (int i = 0; i < D * D; i++) w[i] = rnd(3, (uint32_t)i);
  for (int i = 0; i < N * D; i++) x[i] = rnd(4, (uint32_t)i);
  for (int i = 0; i < N; i++)
    for (int o = 0; o < D; o++)
      for (int c = 0; c < D; c++) y[i * D + o] += w[o * D + c] * x[i * D + c];
  foray_ridge_add(&r, g, N, x, y);
  CU_ASSERT_EQUAL(foray_ridge_solve(&r, 1e-6, map, &err), FORAY_OK);
  double worst = 0;
  for (int i = 0; i < D * D; i++) worst = fmax(worst, fabs((double)(map[i] - w[i])));
  CU_ASSERT(worst < 1e-3);
  foray_ridge_close(&r);
  foray_mm_close(g);
  foray_pool_close(pool);
  free(x), free(y);
}
