/* The generation loop against a scripted toy target: whatever the drafter says, wherever it stops, and
 * however late verdicts come, the output is the target's own. */
#include "unit/harness.h"

#include "core/noise.h"
#include "core/philox.h"
#include "rt/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 50, EOS = 49, OUT_MAX = 400 };

static uint32_t rnd(uint64_t seed, uint32_t a, uint32_t b) { return foray_philox4x32(seed, a, b, 0, 0).v[0]; }

/* The target: the token after a prefix depends on its last three tokens, its length and the seed. */
static uint32_t choice(uint64_t seed, const uint32_t *tok, uint32_t n) {
  uint32_t h = n;
  for (uint32_t i = n > 3 ? n - 3 : 0; i < n; i++) h = h * 31 + tok[i];
  uint32_t r = rnd(seed, h, n);
  return r % 97 == 0 ? EOS : r / 97 % (VOCAB - 1);
}

static uint32_t plain(uint64_t seed, const uint32_t *prompt, uint32_t n, uint32_t max, uint32_t *out) {
  uint32_t tok[OUT_MAX + 64], k = 0;
  memcpy(tok, prompt, n * sizeof *tok);
  while (k < max) {
    out[k] = tok[n + k] = choice(seed, tok, n + k);
    if (out[k++] == EOS) break;
  }
  return k;
}

/* ---------------------------------------------------------------- toy cloud */
struct toy {
  uint64_t seed;
  uint32_t tok[OUT_MAX + 64], n; /* its own timeline */
  uint32_t produced, max;
  struct foray_verdict q[OUT_MAX];
  uint32_t head, tail;
  uint32_t late; /* polls before a verdict shows */
  uint32_t polls, up, down, proposals, passes, cancelled;
  uint32_t break_after; /* != 0: the verdict of that proposal is corrupted */
  int breakage;
  bool never_draft; /* drafts sent where the policy must be off */
};

static void say(struct toy *c, struct foray_verdict v) {
  c->q[c->tail++] = v;
  c->down += 4 + v.n;
}

static enum foray_status toy_propose(void *ctx, uint32_t at, const uint32_t *ids, uint32_t n, uint32_t alone,
                                     struct foray_err *err) {
  (void)err;
  struct toy *c = ctx;
  CU_ASSERT_EQUAL_FATAL(at, c->n);
  CU_ASSERT_TRUE_FATAL(!(n && alone));
  c->up += 4 + n;
  c->proposals++;
  c->passes += !alone;
  c->head = c->tail = 0;
  c->polls = rnd(c->seed, 77, c->proposals) % (c->late + 1);
  struct foray_verdict v = {.at = at, .verify_s = .001f};
  if (alone) { /* streamed in pieces */
    for (uint32_t i = 0; i < alone && !v.finish; i++) {
      v.ids[v.n++] = c->tok[c->n] = choice(c->seed, c->tok, c->n);
      c->n++;
      c->passes++;
      c->produced++;
      if (c->tok[c->n - 1] == EOS) v.finish = FORAY_FINISH_EOS;
      if (!v.finish && c->produced >= c->max) v.finish = FORAY_FINISH_LENGTH;
      v.more = i + 1 < alone && !v.finish;
      if (v.n == 3 || !v.more) {
        say(c, v);
        v = (struct foray_verdict){.at = c->n, .finish = v.finish};
      }
    }
    return FORAY_OK;
  }
  for (uint32_t i = 0; i <= n && !v.finish; i++) {
    uint32_t y = c->tok[c->n] = choice(c->seed, c->tok, c->n);
    c->n++;
    c->produced++;
    bool right = i < n && ids[i] == y;
    if (right)
      v.accepted++;
    else
      v.ids[v.n++] = y;
    if (y == EOS) v.finish = FORAY_FINISH_EOS;
    if (!v.finish && c->produced >= c->max) v.finish = FORAY_FINISH_LENGTH;
    if (!right) break;
  }
  if (c->proposals == c->break_after) {
    if (c->breakage == 0) v.at++;
    if (c->breakage == 1) v.accepted = n + 1;
    if (c->breakage == 2 && n) v.accepted = 0, v.n = 1, v.ids[0] = ids[0];
    if (c->breakage == 3) v.accepted = v.n = 0, v.finish = FORAY_FINISH_NONE;
  }
  say(c, v);
  return FORAY_OK;
}

static enum foray_status toy_wait(void *ctx, double timeout_s, struct foray_verdict *out, bool *ready,
                                  struct foray_err *err) {
  (void)err;
  struct toy *c = ctx;
  CU_ASSERT_TRUE_FATAL(c->head < c->tail);
  *ready = timeout_s < 0 || c->polls == 0;
  if (*ready)
    *out = c->q[c->head++];
  else
    c->polls--;
  return FORAY_OK;
}
static void toy_bytes(void *ctx, uint64_t *up, uint64_t *down) {
  *up = ((struct toy *)ctx)->up;
  *down = ((struct toy *)ctx)->down;
}
static void toy_cancel(void *ctx) { ((struct toy *)ctx)->cancelled++; }

static struct foray_link toy_link(struct toy *c, uint64_t seed, const uint32_t *prompt, uint32_t n,
                                  uint32_t max) {
  memset(c, 0, sizeof *c);
  c->seed = seed;
  c->max = max;
  c->n = n;
  memcpy(c->tok, prompt, n * sizeof *prompt);
  return (struct foray_link){
      .ctx = c, .propose = toy_propose, .wait = toy_wait, .bytes = toy_bytes, .cancel = toy_cancel};
}

/* ---------------------------------------------------------------- toy drafter */
struct toy_draft {
  uint64_t seed;
  uint32_t percent; /* how often it is right */
  uint32_t tok[OUT_MAX + 64], n;
  uint32_t drafted;
  uint32_t fail_at;
};

static enum foray_status td_sync(void *ctx, const uint32_t *tokens, uint32_t n, struct foray_err *err) {
  (void)err;
  struct toy_draft *d = ctx;
  CU_ASSERT_TRUE_FATAL(n <= OUT_MAX);
  memcpy(d->tok, tokens, n * sizeof *tokens);
  d->n = n;
  return FORAY_OK;
}
static enum foray_status td_draft(void *ctx, const struct foray_draft_params *p, struct foray_draft *out,
                                  uint32_t *n_out, struct foray_err *err) {
  (void)err;
  struct toy_draft *d = ctx;
  *n_out = 0;
  if (d->fail_at && d->drafted >= d->fail_at) return FORAY_E_DEVICE;
  for (uint32_t i = 0; i < p->max && d->n < OUT_MAX; i++) {
    uint32_t y = choice(d->seed, d->tok, d->n), h = rnd(d->seed + 1, y * 64 + d->n, d->tok[d->n - 1]);
    bool right = h % 100 < d->percent;
    uint32_t alt = (y + 1 + h / 100 % 5) % VOCAB;
    struct foray_draft *o = &out[i];
    *o = (struct foray_draft){.id = right ? y : alt, .exit = h / 1000 % 3, .bytes = 10, .n_cand = 3};
    o->conf =
        (struct foray_conf){.top = right ? .9f : .3f + .6f * (float)(h / 7 % 2), .margin = .3f, .entropy = 1};
    o->cand[0].id = o->id;
    o->cand[1].id = right ? alt : y;
    o->cand[2].id = (y + 9) % VOCAB;
    o->cand[0].logprob = (int32_t)(65536 * logf(.6f));
    o->cand[1].logprob = (int32_t)(65536 * logf(.25f));
    o->cand[2].logprob = (int32_t)(65536 * logf(.1f));
    d->tok[d->n++] = o->id;
    d->drafted++;
    ++*n_out;
    if (o->conf.top < p->stop_top || o->conf.margin < p->stop_margin) break;
  }
  return FORAY_OK;
}

/* ---------------------------------------------------------------- */
struct got {
  uint32_t id[OUT_MAX], n, source[4], stop_after;
  uint32_t first_position;
  uint32_t ev_drafted, ev_verdicts, ev_accepted, ev_tested; /* what the trace saw */
};
static void trace(void *me, const struct foray_policy_event *ev) {
  struct got *g = me;
  if (ev->type == FORAY_POLICY_EV_DRAFT) g->ev_drafted += ev->n;
  if (ev->type == FORAY_POLICY_EV_VERDICT)
    g->ev_verdicts++, g->ev_tested += ev->n, g->ev_accepted += ev->accepted;
}
static bool take(void *me, const struct foray_gen_token *t) {
  struct got *g = me;
  if (!g->n) g->first_position = t->position;
  CU_ASSERT_EQUAL(t->position, g->first_position + g->n);
  g->source[t->source]++;
  if (t->source == FORAY_TOKEN_CORRECTION) CU_ASSERT_NOT_EQUAL(t->rejected, t->id);
  if (t->source == FORAY_TOKEN_DRAFT) CU_ASSERT_EQUAL(t->rejected, t->id);
  g->id[g->n++] = t->id;
  return !g->stop_after || g->n < g->stop_after;
}

static const uint32_t eos = EOS;

TEST(output_is_the_targets_own_for_any_drafter_policy_and_delay) {
  uint64_t hits = 0, used = 0, drafted = 0, accepted = 0, off = 0;
  for (uint32_t seed = 1; seed <= 600; seed++) {
    uint32_t prompt[8], n = 1 + rnd(seed, 0, 1) % 8, max = 1 + rnd(seed, 0, 2) % 120, want[OUT_MAX];
    for (uint32_t i = 0; i < n; i++) prompt[i] = rnd(seed, 1, i) % VOCAB;
    uint32_t n_want = plain(seed, prompt, n, max, want);
    struct foray_gen_params p = foray_gen_defaults();
    p.max_tokens = max;
    p.policy = foray_policy_default((enum foray_policy_kind)(rnd(seed, 0, 3) % FORAY_POLICY_KINDS));
    p.policy.max = 1 + rnd(seed, 0, 4) % 20;
    p.policy.min = 1 + rnd(seed, 0, 5) % 3;
    if (p.policy.min > p.policy.max) p.policy.min = p.policy.max;
    p.ahead = rnd(seed, 0, 6) % 3 ? rnd(seed, 0, 7) % 12 : 0;
    p.branches = rnd(seed, 0, 8) % 5;
    p.temperature = rnd(seed, 0, 9) % 2 ? .8f : 0;
    p.seed = seed;
    p.eog = &eos;
    p.n_eog = rnd(seed, 0, 10) % 2;
    p.trace = trace;
    struct foray_policy_state st = foray_policy_start(&p.policy);
    if (rnd(seed, 0, 11) % 4 == 0) { /* a slow link and drafter: GOODPUT will hand over to the cloud */
      st.t = (struct foray_policy_times){.rtt = .5f, .draft = .2f, .verify = .03f, .plain = .03f};
      p.state = &st;
    }
    struct toy c;
    struct foray_link link = toy_link(&c, seed, prompt, n, max);
    c.late = rnd(seed, 0, 12) % 30;
    struct toy_draft d = {.seed = seed, .percent = rnd(seed, 0, 13) % 101};
    struct foray_draft_source src = {.ctx = &d,
                                     .sync = td_sync,
                                     .draft = td_draft,
                                     .n_exits = 2,
                                     .ctx_max = rnd(seed, 0, 14) % 8 ? OUT_MAX : n + 5};
    struct got g = {0};
    struct foray_gen_stats s;
    struct foray_err e = {0};
    CU_ASSERT_EQUAL_FATAL(
        foray_generate(prompt, n, &p, rnd(seed, 0, 15) % 10 ? &src : NULL, &link, take, &g, &s, &e),
        FORAY_OK);
    CU_ASSERT_EQUAL(g.n, n_want);
    CU_ASSERT_EQUAL(memcmp(g.id, want, n_want * sizeof *want), 0);
    CU_ASSERT_EQUAL(s.tokens, g.n);
    CU_ASSERT_EQUAL(s.finish, want[n_want - 1] == EOS ? FORAY_FINISH_EOS : FORAY_FINISH_LENGTH);
    CU_ASSERT_EQUAL(g.source[FORAY_TOKEN_DRAFT], s.accepted);
    CU_ASSERT_EQUAL(s.verifications, c.passes);
    CU_ASSERT_EQUAL(s.bytes_up, c.up);
    uint32_t by_exit = 0, right = 0;
    for (int x = 0; x <= FORAY_DRAFT_EXITS_MAX; x++)
      by_exit += s.exit_drafted[x], right += s.exit_accepted[x];
    CU_ASSERT_EQUAL(by_exit, s.drafted);
    CU_ASSERT_EQUAL(right, s.accepted);
    CU_ASSERT_EQUAL(g.ev_drafted, s.drafted);
    CU_ASSERT_EQUAL(g.ev_tested, s.drafted);
    CU_ASSERT_EQUAL(g.ev_accepted, s.accepted);
    hits += s.branch_hits;
    used += s.ahead_used;
    drafted += s.drafted;
    accepted += s.accepted;
    off += g.source[FORAY_TOKEN_PLAIN];
  }
  /* the paths were all taken */
  CU_ASSERT_TRUE(hits > 100);
  CU_ASSERT_TRUE(used > 1000);
  CU_ASSERT_TRUE(drafted > accepted && accepted > drafted / 10);
  CU_ASSERT_TRUE(off > 100);
}

/* A drafter that is always right, with guesses drafted ahead: each token is drafted once. */
TEST(a_right_guess_is_not_drafted_again) {
  for (int ahead = 0; ahead <= 9; ahead += 9) {
    uint32_t prompt[1] = {3}, want[OUT_MAX];
    struct foray_gen_params p = foray_gen_defaults();
    p.max_tokens = 30;
    p.policy = foray_policy_default(FORAY_POLICY_FIXED);
    p.policy.max = 4;
    p.ahead = (uint32_t)ahead;
    uint32_t seed = 1;
    while (plain(seed, prompt, 1, 30, want) < 30) seed++; /* a text without an early end */
    struct toy c;
    struct foray_link link = toy_link(&c, seed, prompt, 1, 30);
    c.late = 1000;
    struct toy_draft d = {.seed = seed, .percent = 100};
    struct foray_draft_source src = {
        .ctx = &d, .sync = td_sync, .draft = td_draft, .n_exits = 2, .ctx_max = OUT_MAX};
    struct got g = {0};
    struct foray_gen_stats s;
    CU_ASSERT_EQUAL_FATAL(foray_generate(prompt, 1, &p, &src, &link, take, &g, &s, NULL), FORAY_OK);
    CU_ASSERT_EQUAL(s.accepted, s.drafted);
    CU_ASSERT_EQUAL(s.verifications, 6); /* 4 + 1 tokens each */
    if (ahead) {
      CU_ASSERT_TRUE(s.ahead_used >= 16);
      CU_ASSERT_TRUE(d.drafted <= 30);
    } else
      CU_ASSERT_EQUAL(s.ahead_used, 0);
  }
}

TEST(impossible_verdicts_are_refused) {
  for (int b = 0; b < 4; b++) {
    uint32_t prompt[2] = {3, 4};
    struct toy c;
    struct foray_link link = toy_link(&c, 5, prompt, 2, 200);
    c.break_after = 2;
    c.breakage = b;
    struct toy_draft d = {.seed = 5, .percent = 60};
    struct foray_draft_source src = {
        .ctx = &d, .sync = td_sync, .draft = td_draft, .n_exits = 2, .ctx_max = OUT_MAX};
    struct foray_gen_params p = foray_gen_defaults();
    p.policy = foray_policy_default(FORAY_POLICY_FIXED);
    struct got g = {0};
    struct foray_err e = {0};
    CU_ASSERT_EQUAL(foray_generate(prompt, 2, &p, &src, &link, take, &g, NULL, &e), FORAY_E_PROTO);
    CU_ASSERT_PTR_NOT_NULL(strstr(e.msg, "verdict"));
  }
}

TEST(a_caller_can_stop_and_a_failing_drafter_is_an_error) {
  uint32_t prompt[2] = {3, 4};
  struct toy c;
  struct foray_link link = toy_link(&c, 5, prompt, 2, 200);
  struct toy_draft d = {.seed = 5, .percent = 90};
  struct foray_draft_source src = {
      .ctx = &d, .sync = td_sync, .draft = td_draft, .n_exits = 2, .ctx_max = OUT_MAX};
  struct foray_gen_params p = foray_gen_defaults();
  struct got g = {.stop_after = 7};
  struct foray_gen_stats s;
  CU_ASSERT_EQUAL(foray_generate(prompt, 2, &p, &src, &link, take, &g, &s, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(g.n, 7);
  CU_ASSERT_EQUAL(s.finish, FORAY_FINISH_CANCEL);
  CU_ASSERT_EQUAL(c.cancelled, 1);
  link = toy_link(&c, 5, prompt, 2, 200);
  d.fail_at = d.drafted + 9;
  g = (struct got){0};
  CU_ASSERT_EQUAL(foray_generate(prompt, 2, &p, &src, &link, take, &g, &s, NULL), FORAY_E_DEVICE);
  struct foray_err e = {0};
  CU_ASSERT_EQUAL(foray_generate(prompt, 0, &p, &src, &link, take, &g, &s, &e), FORAY_E_ARG);
}
