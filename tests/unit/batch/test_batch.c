/* The scheduler with the toy target: what a pass is made of, and that sessions do not touch each other. */
#include "unit/harness.h"
#include "unit/toy_target.h"

#include "batch/batch.h"
#include "batch/plan.h"
#include "core/err.h"

#include <stdlib.h>
#include <string.h>

TEST(plan_serves_the_oldest_and_stays_within_its_limits) {
  uint64_t rng = 1;
  for (int round = 0; round < 20000; round++) {
    struct foray_plan_want w[9];
    uint32_t order[18], n = 1 + (uint32_t)(rng >> 33) % 9, oldest = 0;
    struct foray_plan_item it[9];
    for (uint32_t i = 0; i < n; i++) {
      rng = rng * 6364136223846793005u + 1442695040888963407u;
      w[i] = (struct foray_plan_want){.uncached = 1 + (uint32_t)(rng >> 40) % ((rng >> 20) % 3 ? 1 : 40),
                                      .guesses = (uint32_t)(rng >> 50) % 9,
                                      .since = (int64_t)(rng >> 58)};
      if (w[i].since < w[oldest].since) oldest = i;
    }
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    struct foray_plan_limits l = {.items = 1 + (uint32_t)(rng >> 60),
                                  .rows = 1 + (uint32_t)(rng >> 59),
                                  .tokens = 8 + (uint32_t)(rng >> 58),
                                  .slice = 8};
    uint32_t k = foray_plan_pass(w, n, &l, order, it), rows = 0, tokens = 0;
    bool has_oldest = false, seen[9] = {false};
    CU_ASSERT_FATAL(k >= 1 && k <= n && k <= l.items);
    for (uint32_t i = 0; i < k; i++) {
      const struct foray_plan_want *v = &w[it[i].want];
      CU_ASSERT(!seen[it[i].want] && it[i].feed >= 1 && it[i].feed <= v->uncached &&
                it[i].guesses <= v->guesses);
      CU_ASSERT(it[i].chooses ? it[i].feed == v->uncached : it[i].guesses == 0);
      seen[it[i].want] = true;
      rows += it[i].chooses ? it[i].guesses + 1 : 0;
      tokens += it[i].feed + it[i].guesses;
      has_oldest |= v->since == w[oldest].since;
    }
    CU_ASSERT(rows <= l.rows && tokens <= l.tokens + 2 * l.slice);
    if (l.items > n) CU_ASSERT(has_oldest);
  }
}

static int64_t fake_now;
static int64_t now_of(void *arg) {
  (void)arg;
  return fake_now += 1000;
}

struct collected {
  uint32_t ids[4][64], n[4];
  enum foray_finish finish[4];
  uint64_t id[4];
  uint8_t secret[4][16];
  int failed;
  enum foray_status code;
};
static void collect(struct foray_batch *b, struct collected *c) {
  struct foray_batch_msg m;
  while (foray_batch_result(b, &m)) {
    uint32_t s = m.session;
    if (m.kind == FORAY_BATCH_VERDICT) {
      for (uint32_t i = 0; i < m.n_ids; i++) c->ids[s][c->n[s]++] = m.ids[i];
      c->finish[s] = m.finish;
    }
    if (m.kind == FORAY_BATCH_OPENED) {
      c->id[s] = m.id;
      memcpy(c->secret[s], m.secret, 16);
    }
    if (m.kind == FORAY_BATCH_FAILED) {
      c->failed++;
      c->code = m.code;
    }
    foray_batch_msg_free(&m);
  }
}

static struct foray_gen_request request(uint32_t *prompt, uint32_t n, uint64_t seed) {
  for (uint32_t i = 0; i < n; i++) prompt[i] = 1 + (uint32_t)(seed * 7 + i * i) % (TOY_VOCAB - 1);
  struct foray_gen_request r = {.prompt = prompt, .n_prompt = n, .max_tokens = 40, .mode = FORAY_MODE_PLAIN};
  r.sampling.temperature = 0.9f;
  r.sampling.seed = seed;
  return r;
}

TEST(sessions_in_one_pass_do_not_touch_each_other) {
  struct toy toy;
  toy_init(&toy, 3, 200);
  struct foray_batch_opts o = {.tokens_max = 24, .slice = 5, .now = now_of};
  struct foray_batch *b;
  CU_ASSERT_FATAL(foray_batch_create(&toy.target, &o, &b, NULL) == FORAY_OK);
  struct collected c = {0};
  uint32_t prompts[4][16];
  struct foray_gen_request r[4];
  for (uint32_t s = 0; s < 4; s++) {
    r[s] = request(prompts[s], 1 + 5 * s, s);
    struct foray_batch_msg m = {.kind = FORAY_BATCH_OPEN, .conn = 1, .session = s, .request = &r[s]};
    CU_ASSERT_EQUAL(foray_batch_submit(b, &m), FORAY_OK);
    (void)foray_batch_step(b); /* they start at different times */
  }
  while (foray_batch_step(b)) continue;
  collect(b, &c);
  for (uint32_t s = 0; s < 4; s++) {
    uint32_t want[64], n;
    enum foray_finish f = toy_plain(&toy, &r[s], want, &n);
    CU_ASSERT(c.n[s] == n && c.finish[s] == f && memcmp(want, c.ids[s], n * sizeof *want) == 0);
  }
  struct foray_batch_stats st;
  foray_batch_stats_get(b, &st);
  CU_ASSERT(st.passes < 4 * 40); /* they did share passes */
  foray_batch_destroy(b);
  CU_ASSERT(toy.open_seqs == 0 && toy.open_samplers == 0);
}

TEST(only_the_secret_resumes_and_only_until_it_expires) {
  struct toy toy;
  toy_init(&toy, 4, 200);
  struct foray_batch_opts o = {.now = now_of, .ttl_ns = 1000000, .prefix_entries = -1};
  struct foray_batch *b;
  CU_ASSERT_FATAL(foray_batch_create(&toy.target, &o, &b, NULL) == FORAY_OK);
  struct collected c = {0};
  uint32_t prompt[16];
  struct foray_gen_request r = request(prompt, 4, 9);
  struct foray_batch_msg open = {.kind = FORAY_BATCH_OPEN, .conn = 1, .request = &r};
  CU_ASSERT_EQUAL(foray_batch_submit(b, &open), FORAY_OK);
  CU_ASSERT(foray_batch_step(b));
  collect(b, &c);
  struct foray_batch_msg detach = {.kind = FORAY_BATCH_DETACH, .conn = 1};
  CU_ASSERT_EQUAL(foray_batch_submit(b, &detach), FORAY_OK);
  while (foray_batch_step(b)) continue; /* nobody listens: it stops decoding */
  struct foray_batch_msg resume = {.kind = FORAY_BATCH_RESUME, .conn = 2, .session = 1, .id = c.id[0]};
  memcpy(resume.secret, c.secret[0], 16);
  resume.secret[15] ^= 1;
  CU_ASSERT_EQUAL(foray_batch_submit(b, &resume), FORAY_OK);
  (void)foray_batch_step(b);
  collect(b, &c);
  CU_ASSERT(c.failed == 1 && c.code == FORAY_E_NOTFOUND);
  resume.secret[15] ^= 1;
  CU_ASSERT_EQUAL(foray_batch_submit(b, &resume), FORAY_OK);
  while (foray_batch_step(b)) continue;
  collect(b, &c);
  CU_ASSERT(c.failed == 1 && c.finish[1] != FORAY_FINISH_NONE);
  detach.conn = 2;
  CU_ASSERT_EQUAL(foray_batch_submit(b, &detach), FORAY_OK);
  (void)foray_batch_step(b);
  fake_now += 2000000;
  (void)foray_batch_step(b);
  resume.conn = 3;
  CU_ASSERT_EQUAL(foray_batch_submit(b, &resume), FORAY_OK);
  (void)foray_batch_step(b);
  collect(b, &c);
  CU_ASSERT_EQUAL(c.failed, 2);
  CU_ASSERT_EQUAL(toy.open_seqs, 0);
  foray_batch_destroy(b);
}

TEST(a_session_that_cannot_fit_fails_alone) {
  struct toy toy;
  toy_init(&toy, 5, 200);
  toy.cached_max = 20;
  struct foray_batch_opts o = {.now = now_of, .slice = 8};
  struct foray_batch *b;
  CU_ASSERT_FATAL(foray_batch_create(&toy.target, &o, &b, NULL) == FORAY_OK);
  struct collected c = {0};
  uint32_t prompts[2][30];
  struct foray_gen_request r[2] = {request(prompts[0], 3, 1), request(prompts[1], 30, 2)};
  r[0].max_tokens = 10;
  for (uint32_t s = 0; s < 2; s++) {
    struct foray_batch_msg m = {.kind = FORAY_BATCH_OPEN, .conn = 1, .session = s, .request = &r[s]};
    CU_ASSERT_EQUAL(foray_batch_submit(b, &m), FORAY_OK);
  }
  int steps = 0;
  while (foray_batch_step(b) && ++steps < 1000) continue;
  CU_ASSERT(steps < 1000);
  collect(b, &c);
  CU_ASSERT(c.failed == 1 && c.code == FORAY_E_LIMIT);
  uint32_t want[64], n;
  toy_plain(&toy, &r[0], want, &n);
  CU_ASSERT(c.n[0] == n && memcmp(want, c.ids[0], n * sizeof *want) == 0);
  foray_batch_destroy(b);
}
