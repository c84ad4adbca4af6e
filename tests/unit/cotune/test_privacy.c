/* The accountant against closed forms, numeric integration and a published value; private steps; secure sums.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/philox.h"
#include "cotune/privacy.h"
#include "cotune/secagg.h"
#include "unit/harness.h"
#include "unit/tiny_model.h"

/* log E_{x ~ N(0, s^2)} [((1 - q) + q e^{(2x - 1) / (2 s^2)})^a] / (a - 1), trapezoid rule. */
static double integral(int a, double q, double s) {
  double sum = 0, h = s / 400, lo = -40 * s, hi = a + 40 * s;
  for (double x = lo; x <= hi; x += h) {
    double ratio = (1 - q) + q * exp((2 * x - 1) / (2 * s * s));
    sum += exp(a * log(ratio) - x * x / (2 * s * s)) * h / (s * sqrt(6.283185307179586));
  }
  return log(sum) / (a - 1);
}
TEST(accountant) {
  CU_ASSERT_DOUBLE_EQUAL(foray_rdp_step(8, 1, 2), 1, 1e-12);
  CU_ASSERT(foray_rdp_step(8, 0, 2) == 0);
  static const double c[][3] = {{2, 0.01, 1}, {5, 0.1, 1.5}, {12, 0.02, 2}, {20, 0.01, 4}, {3, 0.5, 0.9}};
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    double want = integral((int)c[i][0], c[i][1], c[i][2]),
           got = foray_rdp_step((int)c[i][0], c[i][1], c[i][2]);
    CU_ASSERT(fabs(got - want) < 1e-6 * want + 1e-10);
  }
  /* Abadi et al. 2016, section 3.2: q = 0.01, sigma = 4, 10,000 steps, delta 1e-5: epsilon about 1.26 */
  int order;
  double e = foray_dp_epsilon(0.01, 4, 10000, 1e-5, &order);
  CU_ASSERT(fabs(e - 1.26) < 0.01 && order > 10 && order < 30);
  CU_ASSERT(foray_dp_epsilon(0.01, 4, 20000, 1e-5, NULL) > e &&
            foray_dp_epsilon(0.01, 5, 10000, 1e-5, NULL) < e);
  double s = foray_dp_noise(0.01, 10000, e, 1e-5);
  CU_ASSERT(fabs(s - 4) < 2e-3);
}

TEST(private_step_bounds_each_example) {
  struct foray_tiny d = foray_tiny_default(FORAY_ARCH_LLAMA);
  struct foray_buf b;
  struct foray_model *m;
  struct foray_pool *pool;
  struct foray_mm *g = NULL;
  struct foray_learner *l;
  struct foray_err err = {0};
  foray_tiny_build(&d, &b);
  CU_ASSERT_FATAL(foray_model_open_memory(b.data, b.len, "tiny", &m, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_pool_open(1, &pool, &err) == FORAY_OK &&
                  foray_mm_open(FORAY_MM_F32, pool, &g, &err) == FORAY_OK);
  struct foray_learner_opts o = {.rank = 2, .rows = 128, .plain = true, .seed = 1};
  CU_ASSERT_FATAL(foray_learner_open(m, g, &o, &l, &err) == FORAY_OK);
  struct foray_enc e[3];
  static const char *const text[] = {"hello world", "the other one", "12 12 12"};
  const struct foray_enc *p[3] = {&e[0], &e[1], &e[2]};
  for (int i = 0; i < 3; i++)
    CU_ASSERT_FATAL(foray_enc_text(&l->style, text[i], 64, &e[i], &err) == FORAY_OK);
  size_t n = foray_params_count(l->net);
  float *w0 = malloc(n * sizeof *w0), *w1 = malloc(n * sizeof *w1);
  l->optim.lr = 1;
  /* first AdamW moment = 0.1 * gradient: without noise its norm is at most 0.1 * clip, whatever the examples
   * are */
  struct foray_dp dp = {.clip = 0.01, .noise = 0, .seed = 3};
  double loss = 0;
  CU_ASSERT(foray_dp_step(&dp, l, p, 3, 3, &loss, &err) == FORAY_OK && loss > 0 && dp.step == 1);
  float *state = malloc(3 * n * sizeof *state);
  double norm = 0;
  for (int i = 0; i < l->net->n_layer; i++)
    for (int j = 0; j < FORAY_LIN_N; j++)
      for (int k = 0; k < 2; k++) {
        struct foray_param *q = k ? &l->net->layer[i].lin[j].b : &l->net->layer[i].lin[j].a;
        for (size_t z = 0; z < q->n; z++) norm += (double)q->m[z] * (double)q->m[z];
      }
  CU_ASSERT(sqrt(norm) <= 0.1 * 0.01 * 1.0001 && norm > 0);
  /* pure noise: deviation noise * clip / expected */
  dp = (struct foray_dp){.clip = 0.5, .noise = 2, .seed = 4};
  foray_params_get_state(l->net, state);
  memset(state, 0, 3 * n * sizeof *state);
  foray_params_set_state(l->net, state);
  CU_ASSERT(foray_dp_step(&dp, l, p, 0, 4, NULL, &err) == FORAY_OK);
  norm = 0;
  for (int j = 0; j < FORAY_LIN_N; j++) {
    struct foray_param *q = &l->net->layer[0].lin[j].a;
    for (size_t z = 0; z < q->n; z++) norm += (double)q->m[z] * (double)q->m[z] / (double)q->n / FORAY_LIN_N;
  }
  CU_ASSERT(fabs(sqrt(norm) / (0.1 * 2 * 0.5 / 4) - 1) < 0.1);
  int pick[64], seen = 0;
  for (int s = 0; s < 400; s++) dp.step = (uint64_t)s, seen += foray_dp_sample(&dp, 50, 0.1, pick, 64);
  CU_ASSERT(abs(seen - 2000) < 200);
  float v[2] = {3, 4};
  CU_ASSERT(fabs(foray_clip(v, 2, 1) - 5) < 1e-9 && fabsf(v[0] - 0.6f) < 1e-6f);
  for (int i = 0; i < 3; i++) foray_enc_deinit(&e[i]);
  free(w0), free(w1), free(state);
  foray_learner_close(l);
  foray_mm_close(g);
  foray_pool_close(pool);
  foray_model_close(m);
  foray_buf_deinit(&b);
}

TEST(shares_join_from_any_threshold_and_not_from_fewer) {
  struct foray_err err = {0};
  struct foray_secagg_share s[7], some[4];
  uint8_t secret[32], back[32];
  for (int i = 0; i < 32; i++) secret[i] = (uint8_t)(i * 7 + 1);
  CU_ASSERT_FATAL(foray_shamir_split(secret, 7, 4, s, &err) == FORAY_OK);
  for (int skip = 0; skip < 7; skip++) {
    for (int k = 0, at = skip; k < 4; k++, at = (at + 2) % 7) some[k] = s[at];
    foray_shamir_join(some, 4, back);
    CU_ASSERT(!memcmp(secret, back, 32));
    foray_shamir_join(some, 3, back);
    CU_ASSERT(memcmp(secret, back, 32) != 0);
  }
}

TEST(the_server_learns_the_sum_and_only_that) {
  enum { N = 5, VALUES = 3000 };
  struct foray_err err = {0};
  static struct foray_secagg_device d[N];
  static struct foray_secagg_share answer[N][FORAY_SECAGG_DEVICES];
  static uint8_t publics[FORAY_SECAGG_DEVICES][FORAY_SECAGG_SECRET];
  static float v[N][VALUES], sum[VALUES];
  static uint32_t masked[N][VALUES], acc[VALUES];
  for (int i = 0; i < N; i++) {
    CU_ASSERT_FATAL(foray_secagg_open(&d[i], i, N, 3, &err) == FORAY_OK);
    memcpy(publics[i], d[i].mask_public, FORAY_SECAGG_SECRET);
    for (int k = 0; k < VALUES; k++)
      v[i][k] = (float)foray_philox4x32(9, (uint32_t)k, (uint32_t)i, 0, 0).v[0] / 4294967296.0f - 0.5f;
  }
  for (int i = 0; i < N; i++) {
    struct foray_secagg_share key[N], seed[N];
    CU_ASSERT_FATAL(foray_secagg_split(&d[i], key, seed, &err) == FORAY_OK);
    for (int h = 0; h < N; h++) d[h].key_share[i] = key[h], d[h].seed_share[i] = seed[h];
    CU_ASSERT_FATAL(foray_secagg_mask(&d[i], publics, v[i], VALUES, masked[i], &err) == FORAY_OK);
  }
  /* a masked vector says nothing: its top bits are spread evenly */
  int high = 0;
  for (int k = 0; k < VALUES; k++) high += (int)(masked[0][k] >> 31);
  CU_ASSERT(abs(high - VALUES / 2) < 150);
  for (int lost = 0; lost < 4; lost++) {
    bool arrived[N], from[N];
    memset(acc, 0, sizeof acc);
    for (int i = 0; i < N; i++) {
      arrived[i] = from[i] = i >= lost;
      for (int k = 0; arrived[i] && k < VALUES; k++) acc[k] += masked[i][k];
    }
    for (int h = 0; h < N; h++)
      for (int i = 0; i < N; i++) answer[h][i] = arrived[i] ? d[h].seed_share[i] : d[h].key_share[i];
    enum foray_status st = foray_secagg_unmask(N, 3, arrived, from, answer, publics, acc, VALUES, sum, &err);
    CU_ASSERT(st == (lost < 3 ? FORAY_OK : FORAY_E_STATE));
    double worst = 0;
    for (int k = 0; !st && k < VALUES; k++) {
      double want = 0;
      for (int i = lost; i < N; i++) want += (double)v[i][k];
      worst = fmax(worst, fabs((double)sum[k] - want));
    }
    CU_ASSERT(st || worst < 4e-6);
  }
  v[0][5] = 17;
  CU_ASSERT(foray_secagg_mask(&d[0], publics, v[0], VALUES, masked[0], &err) == FORAY_E_LIMIT);
  CU_ASSERT(foray_secagg_open(&d[0], 0, 3, 1, &err) == FORAY_E_ARG);
}
