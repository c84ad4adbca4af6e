#include "unit/harness.h"

#include "core/philox.h"
#include "rt/policy.h"
#include "rt/timeline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float uniform(uint64_t seed, uint32_t i, uint32_t lane) {
  return (float)(foray_philox4x32(seed, i, lane, 0, 0).v[0] >> 8) * (1.f / 16777216.f);
}

/* ---------------------------------------------------------------- timeline */
TEST(timeline_commit_keeps_what_the_tail_had_right) {
  struct foray_timeline t;
  struct foray_err e = {0};
  foray_timeline_init(&t, 12, 7);
  const uint32_t prompt[] = {1, 2, 3}, draft[] = {10, 11, 12, 13}, say[] = {10, 11, 99};
  CU_ASSERT_EQUAL_FATAL(foray_timeline_start(&t, prompt, 3, &e), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_timeline_draft(&t, draft, 4, &e), FORAY_OK);
  uint32_t kept = 77;
  CU_ASSERT_EQUAL(foray_timeline_commit(&t, 3, say, 3, &kept, &e), FORAY_OK);
  CU_ASSERT_EQUAL(kept, 2);
  CU_ASSERT_EQUAL(t.n, 6);
  CU_ASSERT_EQUAL(t.n_committed, 6);
  CU_ASSERT_EQUAL(t.tok[5], 99);
  /* a tail that is right to its end stays as the new draft */
  const uint32_t more[] = {20, 21, 22};
  CU_ASSERT_EQUAL(foray_timeline_draft(&t, more, 3, &e), FORAY_OK);
  CU_ASSERT_EQUAL(foray_timeline_commit(&t, 6, more, 2, &kept, &e), FORAY_OK);
  CU_ASSERT_EQUAL(kept, 2);
  CU_ASSERT_EQUAL(foray_timeline_tail(&t), 1);
  CU_ASSERT_EQUAL(t.tok[8], 22);
  /* tokens for another position, or beyond the context, are refused and change nothing */
  CU_ASSERT_EQUAL(foray_timeline_commit(&t, 7, more, 1, NULL, &e), FORAY_E_STATE);
  const uint32_t many[8] = {0};
  CU_ASSERT_EQUAL(foray_timeline_draft(&t, many, 4, &e), FORAY_E_LIMIT);
  CU_ASSERT_EQUAL(t.n, 9);
  foray_timeline_truncate(&t, 0);
  CU_ASSERT_EQUAL(t.n, 3);
  CU_ASSERT_EQUAL(t.n_committed, 3);
  foray_timeline_deinit(&t);
}

/* ---------------------------------------------------------------- goodput formulas */
/* E = (1 - a^(g+1)) / (1 - a), and the RTT_max table of arXiv 2606.25091 (g = 5, t_d = 10 ms). */
TEST(goodput_formula_gives_the_published_table) {
  const double alpha[4] = {.5, .7, .85, .9};
  const struct {
    double ar;
    int ms[4]; /* -1: never */
  } row[] = {{.100, {47, 144, 265, 319}},
             {.050, {-1, 47, 108, 134}},
             {.030, {-1, 8, 45, 61}},
             {.020, {-1, -1, 13, 24}}};
  for (size_t r = 0; r < sizeof row / sizeof row[0]; r++)
    for (int i = 0; i < 4; i++) {
      double e = (1 - pow(alpha[i], 6)) / (1 - alpha[i]);
      CU_ASSERT_DOUBLE_EQUAL(foray_goodput_expect(alpha[i], 5), e, 1e-12);
      double ms = 1e3 * foray_goodput_rtt_max(alpha[i], 5, .010, row[r].ar);
      if (row[r].ms[i] < 0)
        CU_ASSERT_TRUE(ms < 0)
      else
        CU_ASSERT_EQUAL((int)lround(ms), row[r].ms[i]);
    }
  CU_ASSERT_DOUBLE_EQUAL(foray_goodput_expect(1, 5), 6, 0);
}

/* "RTT_max with the best gamma <= 16, t_ar = 50 ms" and "t_ar = 20 ms" of the same section. */
TEST(goodput_best_gamma_gives_the_published_table) {
  const double alpha[4] = {.5, .7, .85, .9};
  const struct {
    double ar, td;
    int ms[4];
  } row[] = {{.050, .002, {39, 94, 230, 335}}, {.050, .005, {29, 73, 184, 287}},
             {.050, .010, {18, 49, 128, 207}}, {.050, .020, {5, 20, 58, 96}},
             {.020, .002, {12, 29, 74, 115}},  {.020, .010, {0, 4, 14, 24}}};
  for (size_t r = 0; r < sizeof row / sizeof row[0]; r++)
    for (int i = 0; i < 4; i++) {
      double best = -1;
      for (uint32_t g = 1; g <= 16; g++)
        best = fmax(best, foray_goodput_rtt_max(alpha[i], g, row[r].td, row[r].ar));
      CU_ASSERT_TRUE(fabs(1e3 * best - row[r].ms[i]) <= .51);
      /* the rule agrees: just inside the window it drafts, just outside it does not */
      struct foray_policy_times t = {
          .draft = (float)row[r].td, .verify = (float)row[r].ar, .plain = (float)row[r].ar};
      if (best > .002) {
        t.rtt = (float)(best - .001);
        CU_ASSERT_TRUE(foray_goodput_best(&t, alpha[i], 16) > 0);
      }
      t.rtt = (float)(best + .001);
      CU_ASSERT_EQUAL(foray_goodput_best(&t, alpha[i], 16), 0);
    }
}

/* "Best gamma grows with RTT (t_d = 2 ms, t_ar = 50, a = .7: 6 at 5 ms, 9 at 100 ms)". */
TEST(goodput_best_gamma_grows_with_rtt) {
  struct foray_policy_times t = {.draft = .002f, .verify = .050f, .rtt = .005f};
  CU_ASSERT_EQUAL(foray_goodput_best(&t, .7, 16), 6);
  t.rtt = .100f;
  uint32_t far = foray_goodput_best(&t, .7, 16);
  CU_ASSERT_TRUE(far >= 8 && far <= 9);
}

/* ---------------------------------------------------------------- stop rules */
static uint32_t block(const struct foray_policy_cfg *cfg, struct foray_policy_state *s,
                      const struct foray_conf *c, uint32_t n) {
  uint32_t k = 0;
  *s = foray_policy_next(cfg, s, &(struct foray_policy_event){.type = FORAY_POLICY_EV_BLOCK});
  for (struct foray_policy_action a = foray_policy_decide(cfg, s); a.kind == FORAY_POLICY_DRAFT && k < n;
       a = foray_policy_decide(cfg, s)) {
    uint32_t took = 0;
    bool stop = false;
    while (!stop && took < a.max && k + took < n) { /* as a device does it */
      const struct foray_conf *x = &c[k + took++];
      stop = x->top < a.stop_top || x->margin < a.stop_margin || x->entropy > a.stop_entropy;
    }
    *s = foray_policy_next(
        cfg, s, &(struct foray_policy_event){.type = FORAY_POLICY_EV_DRAFT, .conf = c + k, .n = took});
    k += took;
  }
  return k;
}

TEST(each_stop_rule_stops_behind_the_first_doubtful_token) {
  struct foray_conf c[16];
  for (int i = 0; i < 16; i++)
    c[i] = (struct foray_conf){
        .top = .95f, .margin = .9f, .entropy = .2f, .aleatoric = .1f, .epistemic = .1f, .depth = 1};
  c[3] = (struct foray_conf){
      .top = .2f, .margin = .05f, .entropy = 4, .aleatoric = 2, .epistemic = .5f, .depth = 1};
  for (int kind = 0; kind < FORAY_POLICY_KINDS; kind++) {
    struct foray_policy_cfg cfg = foray_policy_default((enum foray_policy_kind)kind);
    cfg.max = 8;
    struct foray_policy_state s = foray_policy_start(&cfg);
    uint32_t n = block(&cfg, &s, c, 16);
    CU_ASSERT_EQUAL(n, kind == FORAY_POLICY_FIXED ? 8 : 4);
    cfg.min = 6; /* below the minimum nothing stops; the doubtful token lies behind */
    s = foray_policy_start(&cfg);
    n = block(&cfg, &s, c, 16);
    CU_ASSERT_TRUE(kind == FORAY_POLICY_GOODPUT ? n == 6 : n == 8);
  }
}

TEST(adaptive_threshold_follows_acceptance) {
  struct foray_policy_cfg cfg = foray_policy_default(FORAY_POLICY_ADAPTIVE);
  struct foray_policy_state s = foray_policy_start(&cfg), low = s;
  for (int i = 0; i < 400; i++) {
    s = foray_policy_next(
        &cfg, &s, &(struct foray_policy_event){.type = FORAY_POLICY_EV_VERDICT, .n = 4, .accepted = 4});
    low =
        foray_policy_next(&cfg, &low, &(struct foray_policy_event){.type = FORAY_POLICY_EV_VERDICT, .n = 4});
  }
  CU_ASSERT_TRUE(s.eta < cfg.threshold - .3f); /* all right: be bolder */
  CU_ASSERT_TRUE(low.eta > cfg.threshold + .3f);
  CU_ASSERT_TRUE(low.alpha < .1f && s.alpha > .9f);
}

TEST(goodput_switches_off_where_it_cannot_pay_and_probes_again) {
  struct foray_policy_cfg cfg = foray_policy_default(FORAY_POLICY_GOODPUT);
  struct foray_policy_state s = foray_policy_start(&cfg);
  struct foray_policy_event slow = {.type = FORAY_POLICY_EV_TIMES,
                                    .times = {.rtt = .5f, .draft = .05f, .verify = .03f, .plain = .03f}};
  s = foray_policy_next(&cfg, &s, &slow);
  uint32_t off = 0, drafts = 0;
  for (int i = 0; i < 64; i++) {
    s = foray_policy_next(&cfg, &s, &(struct foray_policy_event){.type = FORAY_POLICY_EV_BLOCK});
    struct foray_policy_action a = foray_policy_decide(&cfg, &s);
    off += a.kind == FORAY_POLICY_OFF;
    drafts += a.kind == FORAY_POLICY_DRAFT;
  }
  CU_ASSERT_EQUAL(off, 60);
  CU_ASSERT_EQUAL(drafts, 4);
  struct foray_policy_event fast = {.type = FORAY_POLICY_EV_TIMES,
                                    .times = {.rtt = .001f, .draft = .001f, .verify = .03f, .plain = .03f}};
  for (int i = 0; i < 60; i++) s = foray_policy_next(&cfg, &s, &fast);
  s = foray_policy_next(&cfg, &s, &(struct foray_policy_event){.type = FORAY_POLICY_EV_BLOCK});
  CU_ASSERT_EQUAL(foray_policy_decide(&cfg, &s).kind, FORAY_POLICY_DRAFT);
}

TEST(goodput_drafts_longer_over_a_longer_link) {
  struct foray_conf c[32];
  for (int i = 0; i < 32; i++)
    c[i] = (struct foray_conf){.top = .8f, .margin = .7f, .entropy = .6f, .depth = 1};
  uint32_t len[2];
  for (int far = 0; far < 2; far++) {
    struct foray_policy_cfg cfg = foray_policy_default(FORAY_POLICY_GOODPUT);
    cfg.learn = false;
    cfg.max = 32;
    struct foray_policy_state s = foray_policy_start(&cfg);
    s = foray_policy_next(
        &cfg, &s,
        &(struct foray_policy_event){
            .type = FORAY_POLICY_EV_TIMES,
            .times = {.rtt = far ? .2f : .002f, .draft = .008f, .verify = .03f, .verify_tok = .002f}});
    len[far] = block(&cfg, &s, c, 32);
  }
  CU_ASSERT_TRUE(len[1] > len[0]);
}

/* Verification time = 30 ms + 4 ms a draft, with noise: both are found from totals alone. */
TEST(verification_cost_is_fitted_from_whole_verifications) {
  struct foray_policy_cfg cfg = foray_policy_default(FORAY_POLICY_GOODPUT);
  struct foray_policy_state s = foray_policy_start(&cfg);
  for (uint32_t i = 0; i < 200; i++) {
    uint32_t n = foray_philox4x32(3, i, 0, 0, 0).v[0] % 12;
    float v = .030f + .004f * (float)n + .004f * (uniform(4, i, 0) - .5f);
    s = foray_policy_next(
        &cfg, &s,
        &(struct foray_policy_event){.type = FORAY_POLICY_EV_TIMES, .n = n, .times = {.verify = v}});
    CU_ASSERT_TRUE(s.t.verify >= 0 && s.t.verify_tok >= 0);
  }
  CU_ASSERT_DOUBLE_EQUAL(s.t.verify, .030, .003);
  CU_ASSERT_DOUBLE_EQUAL(s.t.verify_tok, .004, .0006);
}

/* ---------------------------------------------------------------- learning, replay */
/* Planted: acceptance depends on margin and depth, and the top probability is noise. The model must find the
 * signal: after training its predictions separate right from wrong far better than the top probability. */
TEST(logistic_model_learns_a_planted_signal) {
  struct foray_logit m;
  foray_logit_start(&m);
  double hit_top = 0, hit_model = 0, pairs = 0, brier_top = 0, brier_model = 0, tested = 0;
  float p_right[400], p_wrong[400], q_right[400], q_wrong[400];
  int nr = 0, nw = 0;
  for (uint32_t i = 0; i < 6000; i++) {
    struct foray_conf c = {.top = .5f + .49f * uniform(1, i, 0),
                           .margin = uniform(1, i, 1),
                           .entropy = uniform(1, i, 2),
                           .depth = uniform(1, i, 3) < .5f ? .25f : 1};
    float z = 6 * c.margin - 3 + 3 * (c.depth - 1);
    bool right = uniform(1, i, 4) < 1 / (1 + expf(-z));
    if (i >= 5000) {
      float p = foray_logit_predict(&m, &c, 0), want = right ? 1 : 0;
      brier_top += (c.top - want) * (c.top - want);
      brier_model += (p - want) * (p - want);
      tested++;
      if (right && nr < 400) p_right[nr] = p, q_right[nr++] = c.top;
      if (!right && nw < 400) p_wrong[nw] = p, q_wrong[nw++] = c.top;
    } else
      foray_logit_learn(&m, &c, 0, right);
  }
  for (int a = 0; a < nr; a++)
    for (int b = 0; b < nw; b++, pairs++)
      hit_model += p_right[a] > p_wrong[b], hit_top += q_right[a] > q_wrong[b];
  CU_ASSERT_TRUE(pairs > 1000);
  CU_ASSERT_TRUE(hit_model / pairs > .85); /* area under the curve */
  CU_ASSERT_TRUE(hit_top / pairs < .6);
  CU_ASSERT_TRUE(brier_model / tested < .6 * brier_top / tested);
  /* before any verdict the model says what the top probability says */
  foray_logit_start(&m);
  struct foray_conf c = {.top = .8f, .margin = .1f, .entropy = 1, .depth = .5f};
  CU_ASSERT_DOUBLE_EQUAL(foray_logit_predict(&m, &c, 3), .8, 1e-5);
}

struct round {
  struct foray_conf conf[FORAY_POLICY_BLOCK_MAX];
  uint32_t right; /* how many leading tokens the target would accept */
};

/* A recorded trace (confidences and how far each block would have been right) replays any policy, and twice
 * the same policy gives the same decisions. Acting on one copy of a state does not touch another. */
TEST(a_trace_replays_every_policy) {
  static struct round trace[200];
  for (uint32_t i = 0; i < 200; i++) {
    trace[i].right = FORAY_POLICY_BLOCK_MAX;
    for (uint32_t j = 0; j < FORAY_POLICY_BLOCK_MAX; j++) {
      float top = uniform(9, i, j);
      top = 1 - top * top;
      trace[i].conf[j] = (struct foray_conf){.top = top,
                                             .margin = top * top,
                                             .entropy = 4 * (1 - top),
                                             .aleatoric = 2 * (1 - top),
                                             .epistemic = .3f,
                                             .depth = 1};
      if (trace[i].right == FORAY_POLICY_BLOCK_MAX && uniform(9, i, 100 + j) > top) trace[i].right = j;
    }
  }
  uint32_t total_fixed = 0;
  for (int kind = 0; kind < FORAY_POLICY_KINDS; kind++) {
    struct foray_policy_cfg cfg = foray_policy_default((enum foray_policy_kind)kind);
    cfg.max = 12;
    uint32_t len[2][200], wasted = 0, total = 0;
    for (int again = 0; again < 2; again++) {
      struct foray_policy_state s = foray_policy_start(&cfg);
      for (int i = 0; i < 200; i++) {
        struct foray_policy_state before = s;
        uint32_t n = block(&cfg, &s, trace[i].conf, FORAY_POLICY_BLOCK_MAX);
        struct foray_policy_state s2 = before;
        CU_ASSERT_EQUAL(block(&cfg, &s2, trace[i].conf, FORAY_POLICY_BLOCK_MAX), n);
        uint32_t acc = trace[i].right < n ? trace[i].right : n;
        s = foray_policy_next(
            &cfg, &s,
            &(struct foray_policy_event){
                .type = FORAY_POLICY_EV_VERDICT, .conf = trace[i].conf, .n = n, .accepted = acc});
        len[again][i] = n;
        if (!again) wasted += n - acc, total += n;
      }
    }
    CU_ASSERT_EQUAL(memcmp(len[0], len[1], sizeof len[0]), 0);
    CU_ASSERT_TRUE(total > 0);
    if (kind == FORAY_POLICY_FIXED)
      total_fixed = wasted;
    else
      CU_ASSERT_TRUE(wasted <
                     total_fixed / 2); /* every rule that looks wastes less than the one that does not */
  }
}

TEST(policy_names_are_parsed_or_refused) {
  enum foray_policy_kind k = FORAY_POLICY_FIXED;
  for (int i = 0; i < FORAY_POLICY_KINDS; i++) {
    CU_ASSERT_TRUE(foray_policy_parse(foray_policy_name((enum foray_policy_kind)i), &k));
    CU_ASSERT_EQUAL(k, (enum foray_policy_kind)i);
  }
  CU_ASSERT_FALSE(foray_policy_parse("best", &k));
}
