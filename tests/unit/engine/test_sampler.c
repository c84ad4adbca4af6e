/* The sampler against a plain rendering of its definition, and its distribution against exact softmax. */
#include "core/noise.h"
#include "engine/sampler.h"
#include "unit/engine/synth.h"
#include "unit/harness.h"

static struct foray_sampler *open_sampler(const struct foray_sampler_params *p, int n) {
  struct foray_sampler *s = NULL;
  const int32_t eog[2] = {1, 3};
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(foray_sampler_open(p, n, eog, 2, &s, &err), FORAY_OK);
  if (!s) printf("  %s\n", err.msg);
  return s;
}

static struct foray_sampler_params plain(float temperature, uint64_t seed) {
  struct foray_sampler_params p = foray_sampler_params_greedy();
  p.temperature = temperature;
  p.seed = seed;
  return p;
}

/* The definition, step by step, with a full sort and no short cuts: fills keep[] and the adjusted logits. */
static void define(const struct foray_sampler_params *p, const float *logits, int n, const int32_t *hist,
                   int n_hist, float *l, bool *keep) {
  int order[512];
  memcpy(l, logits, (size_t)n * sizeof *l);
  for (int i = 0; i < p->n_bias; i++) l[p->bias[i].id] += p->bias[i].bias;
  if (p->ignore_eos) l[1] = l[3] = -INFINITY;
  const int last = p->repeat_last_n < 0 || p->repeat_last_n > n_hist ? n_hist : p->repeat_last_n;
  for (int i = 0; i < n; i++) {
    int c = 0;
    for (int k = n_hist - last; k < n_hist; k++) c += hist[k] == i;
    if (!c) continue;
    l[i] = l[i] <= 0 ? l[i] * p->repeat_penalty : l[i] / p->repeat_penalty;
    l[i] -= (float)c * p->frequency_penalty + p->presence_penalty;
  }
  for (int i = 0; i < n; i++) order[i] = i;
  for (int i = 1; i < n; i++)
    for (int k = i; k > 0 && l[order[k]] > l[order[k - 1]]; k--) {
      const int t = order[k];
      order[k] = order[k - 1];
      order[k - 1] = t;
    }
  int m = p->top_k > 0 && p->top_k < n ? p->top_k : n;
  if (p->top_p < 1) {
    double total = 0, sum = 0;
    for (int i = 0; i < m; i++) total += exp((double)l[order[i]] - (double)l[order[0]]);
    int i = 0;
    while (i < m && (sum += exp((double)l[order[i++]] - (double)l[order[0]])) < (double)p->top_p * total) {
    }
    m = i;
  }
  if (p->min_p > 0)
    while (m > 1 && exp((double)l[order[m - 1]] - (double)l[order[0]]) < (double)p->min_p) m--;
  for (int i = 0; i < n; i++) keep[i] = false;
  for (int i = 0; i < m; i++) keep[order[i]] = true;
}

static int32_t choose(const struct foray_sampler_params *p, const float *l, const bool *keep, int n,
                      uint32_t pos) {
  int32_t best = -1;
  int64_t top = 0;
  for (int i = 0; i < n; i++) {
    if (!keep[i] || l[i] == -INFINITY) continue;
    const int64_t s = p->temperature <= 0 ? 0
                                          : (int64_t)rint((double)l[i] / (double)p->temperature * 65536) +
                                                foray_gumbel_q16(p->seed, pos, (uint32_t)i);
    if (best < 0 || (p->temperature <= 0 ? l[i] > l[best] : s > top)) {
      best = i;
      top = s;
    }
  }
  return best;
}

TEST(follows_its_definition) {
  enum { V = 300 };
  struct synth_rng r = {11, 0};
  const struct foray_logit_bias bias[3] = {{7, 4.0f}, {9, -INFINITY}, {250, -2.0f}};
  for (int round = 0; round < 3000; round++) {
    float logits[V], l[V];
    bool keep[V];
    int32_t hist[80];
    const int n_hist = (int)(synth_u32(&r) % 80);
    for (int i = 0; i < V; i++) logits[i] = 3.0f * synth_normal(&r);
    for (int i = 0; i < V; i += 11) logits[i] = logits[(i * 7 + 3) % V]; /* ties */
    for (int i = 0; i < n_hist; i++) hist[i] = (int32_t)(synth_u32(&r) % V);
    struct foray_sampler_params p =
        plain(round % 5 == 0 ? 0.0f : 0.3f + (float)(round % 4) * 0.5f, (uint64_t)round);
    const uint32_t pick = synth_u32(&r);
    if (pick & 1) p.top_k = 1 + (int32_t)(synth_u32(&r) % V);
    if (pick & 2) p.top_p = 0.05f + (float)(synth_u32(&r) % 100) * 0.0094f;
    if (pick & 4) p.min_p = (float)(synth_u32(&r) % 100) * 0.005f;
    if (pick & 8) p.repeat_penalty = 1.3f;
    if (pick & 16) p.presence_penalty = 0.7f;
    if (pick & 32) p.frequency_penalty = 0.4f;
    if (pick & 64) p.repeat_last_n = -1;
    if (pick & 128) p.bias = bias, p.n_bias = 3;
    p.ignore_eos = pick & 256;
    define(&p, logits, V, hist, n_hist, l, keep);
    struct foray_sampler *s = open_sampler(&p, V);
    struct foray_sampler_choice more;
    const int32_t want = choose(&p, l, keep, V, (uint32_t)n_hist);
    const int32_t got = foray_sampler_pick(s, logits, hist, n_hist, &more);
    CU_ASSERT_EQUAL(got, want);
    CU_ASSERT_EQUAL(foray_sampler_pick(s, logits, hist, n_hist, NULL), want); /* no state between calls */
    double prob[V], sum = 0;
    foray_sampler_probs(s, logits, hist, n_hist, prob);
    int support = 0;
    for (int i = 0; i < V; i++) {
      sum += prob[i];
      if (p.temperature > 0) {
        CU_ASSERT_EQUAL(prob[i] > 0, keep[i] && l[i] > -INFINITY);
        support += keep[i];
      }
    }
    CU_ASSERT_DOUBLE_EQUAL(sum, 1.0, 1e-12);
    if (p.temperature > 0) {
      CU_ASSERT_EQUAL(more.survivors, support);
      CU_ASSERT_DOUBLE_EQUAL(exp(more.logprob_sampling), prob[got], 1e-9);
    }
    foray_sampler_close(s);
  }
}

/* Chi-square of draws over positions against the exact distribution; 0.001 quantile of the statistic by
 * Wilson-Hilferty. */
static void check_distribution(const struct foray_sampler_params *p, const float *logits, int n,
                               int bins_min) {
  enum { DRAWS = 40000 };
  struct foray_sampler *s = open_sampler(p, n);
  double *prob = calloc((size_t)n, sizeof *prob), stat = 0, rest = 0;
  int *seen = calloc((size_t)n, sizeof *seen), bins = 0, rest_seen = 0;
  int32_t *hist = calloc(DRAWS, sizeof *hist);
  if (!prob || !seen || !hist) abort();
  foray_sampler_probs(s, logits, hist, 0, prob);
  for (int i = 0; i < DRAWS; i++) seen[foray_sampler_pick(s, logits, hist, i, NULL)]++;
  for (int i = 0; i < n; i++) {
    const double e = prob[i] * DRAWS;
    if (e == 0) CU_ASSERT_EQUAL(seen[i], 0);
    if (e < 10) {
      rest += e;
      rest_seen += seen[i];
      continue;
    }
    stat += (seen[i] - e) * (seen[i] - e) / e;
    bins++;
  }
  if (rest > 10) {
    stat += (rest_seen - rest) * (rest_seen - rest) / rest;
    bins++;
  }
  const double k = bins - 1, z = 3.09, q = 1 - 2 / (9 * k) + z * sqrt(2 / (9 * k)), limit = k * q * q * q;
  if (!(stat < limit)) printf("  chi-square %g of %d bins, limit %g\n", stat, bins, limit);
  CU_ASSERT(stat < limit);
  CU_ASSERT(bins >= bins_min);
  foray_sampler_close(s);
  free(prob);
  free(seen);
  free(hist);
}

TEST(draws_the_softmax) {
  enum { V = 60 };
  struct synth_rng r = {12, 0};
  float logits[V];
  for (int i = 0; i < V; i++) logits[i] = 1.5f * synth_normal(&r);
  struct foray_sampler_params p = plain(1.0f, 5);
  p.repeat_last_n = 0;
  check_distribution(&p, logits, V, 30);
  p.temperature = 0.7f;
  check_distribution(&p, logits, V, 20);
  p.top_k = 12;
  check_distribution(&p, logits, V, 12);
  p.top_k = 0;
  p.top_p = 0.8f;
  check_distribution(&p, logits, V, 5);
  p.top_p = 1.0f;
  p.min_p = 0.1f;
  check_distribution(&p, logits, V, 5);
}

/* The short cut over a large vocabulary gives the choice of the plain loop. */
TEST(large_vocabulary) {
  enum { V = 50001 };
  struct synth_rng r = {13, 0};
  float *l = malloc(V * sizeof *l);
  bool *keep = malloc(V * sizeof *keep);
  if (!l || !keep) abort();
  for (int round = 0; round < 12; round++) {
    const float spread = round % 4 == 3 ? 0.0f : 0.5f + (float)round * 0.5f;
    for (int i = 0; i < V; i++) {
      l[i] = spread * synth_normal(&r);
      keep[i] = true;
    }
    struct foray_sampler_params p = plain(round & 1 ? 1.0f : 1.7f, (uint64_t)round * 99);
    struct foray_sampler *s = open_sampler(&p, V);
    for (int n = 0; n < 4; n++) {
      const int32_t hist[4] = {0};
      CU_ASSERT_EQUAL(foray_sampler_pick(s, l, hist, n, NULL), choose(&p, l, keep, V, (uint32_t)n));
    }
    foray_sampler_close(s);
  }
  free(l);
  free(keep);
}

TEST(odd_logits) {
  enum { V = 8 };
  const float sets[][V] = {
      {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN},
      {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
      {NAN, 1, -INFINITY, 1, 3e38f, -3e38f, 0, 0},
      {INFINITY, 1, 2, 3, 4, 5, 6, 7}};
  const int32_t want_greedy[] = {0, 0, 4, 0};
  for (int i = 0; i < 4; i++)
    for (int k = 0; k < 16; k++) {
      struct foray_sampler_params p = plain(k & 1 ? 1e-6f : 0.0f, 3);
      if (k & 2) p.top_k = 3;
      if (k & 4) p.top_p = 0.5f;
      if (k & 8) p.min_p = 0.5f;
      struct foray_sampler *s = open_sampler(&p, V);
      const int32_t id = foray_sampler_pick(s, sets[i], NULL, 0, NULL);
      CU_ASSERT(id >= 0 && id < V);
      CU_ASSERT_EQUAL(id, want_greedy[i]);
      foray_sampler_close(s);
    }
}

TEST(bad_parameters) {
  struct foray_sampler *s;
  struct foray_err err = {0};
  const struct foray_logit_bias out = {8, 1.0f}, nan = {1, NAN};
  struct foray_sampler_params p[8];
  for (int i = 0; i < 8; i++) p[i] = foray_sampler_params_default();
  p[0].temperature = NAN;
  p[1].repeat_penalty = 0.0f;
  p[2].top_k = -1;
  p[3].top_p = -0.1f;
  p[4].bias = &out, p[4].n_bias = 1;
  p[5].bias = &nan, p[5].n_bias = 1;
  p[6].repeat_last_n = -2;
  p[7].presence_penalty = INFINITY;
  for (int i = 0; i < 8; i++) {
    CU_ASSERT_EQUAL(foray_sampler_open(&p[i], 8, NULL, 0, &s, &err), FORAY_E_ARG);
    CU_ASSERT_PTR_NULL(s);
  }
}
