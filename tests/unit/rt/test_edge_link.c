/* foray_generate over the real protocol machines and the real scheduler, with a toy target, in one process:
 * links that break at random bytes, servers that are killed, plain sessions. The text is always plain
 * decoding's. */
#include "unit/harness.h"
#include "unit/toy_target.h"

#include "batch/hub.h"
#include "core/philox.h"
#include "rt/edge_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_MAX = 64, CTX = 160 };
#define MS INT64_C(1000000)

struct world {
  uint64_t seed, chance;
  int64_t now;
  struct toy toy;
  struct foray_edge *edge;
  struct foray_hub *hub;
  struct foray_batch *batch;
  uint64_t conn;
  uint32_t cut_in, kill_in; /* in 4096, at each step */
  uint32_t cuts, kills, steps;
  /* output */
  uint32_t id[OUT_MAX + 1], n, drafts_seen;
  /* drafter */
  uint32_t want[OUT_MAX], n_want, n_prompt, percent, have;
};

static uint32_t rnd(struct world *w, uint32_t n) {
  uint64_t k = w->chance++;
  return foray_philox4x32(w->seed, (uint32_t)k, (uint32_t)(k >> 32), 5, 0).v[0] % n;
}
static int64_t clock_of(void *arg) { return ((struct world *)arg)->now; }
static void random_of(void *arg, void *p, size_t n) {
  for (size_t i = 0; i < n; i++) ((uint8_t *)p)[i] = (uint8_t)rnd(arg, 256);
}

static void server_start(struct world *w) {
  struct foray_batch_opts o = {.now = clock_of, .random = random_of, .arg = w, .ttl_ns = 3000 * MS};
  struct foray_cloud_config cc = {.rounds_max = 4};
  struct foray_cloud_identity id = {.model_name = "toy", .vocab = TOY_VOCAB, .ctx = w->toy.target.ctx};
  CU_ASSERT_EQUAL_FATAL(foray_batch_create(&w->toy.target, &o, &w->batch, NULL), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_hub_create(&cc, 8, &w->hub, NULL), FORAY_OK);
  foray_hub_serve(w->hub, w->batch, &id);
}
static void server_stop(struct world *w) {
  foray_hub_destroy(w->hub);
  foray_batch_destroy(w->batch);
  w->conn = 0;
}
static void drop(struct world *w) {
  if (!w->conn) return;
  foray_edge_link_down(w->edge, "cut", w->now);
  foray_hub_disconnect(w->hub, w->conn);
  w->conn = 0;
}

/* One step of time: connects, moves some bytes, lets the target work. */
static void step(struct world *w) {
  const uint8_t *p;
  size_t n;
  w->now += (int64_t)(1 + rnd(w, 5)) * MS;
  w->steps++;
  if (w->conn && rnd(w, 4096) < w->cut_in) w->cuts++, drop(w);
  if (rnd(w, 4096) < w->kill_in) {
    w->kills++;
    drop(w);
    server_stop(w);
    server_start(w);
  }
  if (!w->conn) {
    w->conn = foray_hub_connect(w->hub, w->now);
    CU_ASSERT_TRUE_FATAL(w->conn != 0);
    foray_edge_link_up(w->edge, w->now);
  }
  if ((n = foray_edge_output(w->edge, &p))) {
    n = 1 + rnd(w, (uint32_t)n);
    CU_ASSERT_EQUAL_FATAL(foray_hub_feed(w->hub, w->conn, p, n, w->now, NULL), FORAY_OK);
    foray_edge_output_consumed(w->edge, n);
  }
  if (rnd(w, 2)) {
    (void)foray_batch_step(w->batch);
    foray_hub_pump(w->hub);
  }
  if ((n = foray_hub_output(w->hub, w->conn, &p))) {
    n = 1 + rnd(w, (uint32_t)n);
    CU_ASSERT_EQUAL_FATAL(foray_edge_feed(w->edge, p, n, w->now, NULL), FORAY_OK);
    foray_hub_output_consumed(w->hub, w->conn, n);
  }
}

static enum foray_status pump_wait(void *ctx, int timeout_ms, struct foray_edge_event *ev,
                                   struct foray_err *err) {
  struct world *w = ctx;
  (void)err;
  for (int i = 0;; i++) {
    if (foray_edge_event(w->edge, ev)) return FORAY_OK;
    if (timeout_ms >= 0 && i > timeout_ms) return FORAY_E_TIMEOUT;
    CU_ASSERT_TRUE_FATAL(w->steps < 200000);
    step(w);
  }
}
static enum foray_status pump_draft(void *ctx, uint32_t session, uint32_t start, const uint32_t *ids,
                                    uint32_t n, uint32_t *round, struct foray_err *err) {
  struct world *w = ctx;
  w->drafts_seen += n;
  return foray_edge_draft(w->edge, session, start, ids, n, w->now, round, err);
}
static enum foray_status pump_cancel(void *ctx, uint32_t session, struct foray_err *err) {
  return foray_edge_cancel(((struct world *)ctx)->edge, session, err);
}
static struct foray_edge *pump_edge(void *ctx) { return ((struct world *)ctx)->edge; }

static enum foray_status src_sync(void *ctx, const uint32_t *tokens, uint32_t n, struct foray_err *err) {
  (void)tokens, (void)err;
  ((struct world *)ctx)->have = n;
  return FORAY_OK;
}
static enum foray_status src_draft(void *ctx, const struct foray_draft_params *p, struct foray_draft *out,
                                   uint32_t *n, struct foray_err *err) {
  struct world *w = ctx;
  (void)err;
  for (*n = 0; *n < p->max; ++*n) {
    uint32_t k = w->have - w->n_prompt;
    bool right = k < w->n_want && rnd(w, 100) < w->percent;
    out[*n] = (struct foray_draft){.id = right ? w->want[k] : rnd(w, TOY_VOCAB), .conf = {.top = .7f}};
    w->have++;
  }
  return FORAY_OK;
}
static bool take(void *me, const struct foray_gen_token *t) {
  struct world *w = me;
  if (w->n < OUT_MAX) w->id[w->n++] = t->id;
  return true;
}

static void one(uint64_t seed, uint32_t *cuts, uint32_t *kills, uint32_t *accepted) {
  struct world *w = calloc(1, sizeof *w);
  w->seed = seed;
  toy_init(&w->toy, rnd(w, 1000), CTX);
  struct foray_edge_config ec = {0};
  CU_ASSERT_EQUAL_FATAL(foray_edge_create(&ec, &w->edge, NULL), FORAY_OK);
  server_start(w);
  w->cut_in = rnd(w, 3) ? 0 : rnd(w, 200);
  w->kill_in = rnd(w, 3) ? 0 : rnd(w, 60);
  w->percent = rnd(w, 101);
  uint32_t prompt[8];
  struct foray_gen_request r = {
      .prompt = prompt, .n_prompt = 1 + rnd(w, 8), .max_tokens = 1 + rnd(w, OUT_MAX)};
  for (uint32_t i = 0; i < r.n_prompt; i++) prompt[i] = rnd(w, TOY_VOCAB);
  r.sampling =
      (struct foray_gen_sampling){.temperature = rnd(w, 2) ? .8f : 0, .repeat_penalty = 1, .seed = seed};
  bool plain = rnd(w, 5) == 0;
  r.mode = plain ? FORAY_MODE_PLAIN : FORAY_MODE_SPECULATIVE;
  enum foray_finish finish = toy_plain(&w->toy, &r, w->want, &w->n_want);
  w->n_prompt = r.n_prompt;
  struct foray_edge_pump pump = {
      .ctx = w, .wait = pump_wait, .draft = pump_draft, .cancel = pump_cancel, .edge = pump_edge};
  uint32_t session = 0;
  CU_ASSERT_EQUAL_FATAL(foray_edge_open(w->edge, &r, &session, NULL), FORAY_OK);
  struct foray_edge_link el;
  foray_edge_link_init(&el, &pump, session, r.n_prompt, plain);
  struct foray_link link = foray_edge_link_of(&el);
  struct foray_draft_source src = {.ctx = w, .sync = src_sync, .draft = src_draft, .ctx_max = CTX};
  struct foray_gen_params p = foray_gen_defaults();
  p.max_tokens = r.max_tokens;
  p.policy = foray_policy_default((enum foray_policy_kind)rnd(w, FORAY_POLICY_KINDS));
  p.ahead = rnd(w, 2) ? rnd(w, 10) : 0;
  struct foray_policy_state st = foray_policy_start(&p.policy);
  if (rnd(w, 3) == 0) { /* goodput will hand over to the cloud for a while */
    st.t = (struct foray_policy_times){.rtt = .5f, .draft = .2f, .verify = .03f, .plain = .03f};
    p.state = &st;
  }
  struct foray_gen_stats s;
  struct foray_err e = {0};
  enum foray_status status =
      foray_generate(prompt, r.n_prompt, &p, plain ? NULL : &src, &link, take, w, &s, &e);
  if (status != FORAY_OK) printf("  seed %d: %s\n", (int)seed, e.msg);
  CU_ASSERT_EQUAL(status, FORAY_OK);
  CU_ASSERT_EQUAL(w->n, w->n_want);
  CU_ASSERT_EQUAL(memcmp(w->id, w->want, w->n_want * sizeof *w->want), 0);
  CU_ASSERT_EQUAL(s.finish, finish);
  CU_ASSERT_TRUE(s.bytes_up > 0 && s.bytes_down > 0);
  *cuts += w->cuts;
  *kills += w->kills;
  *accepted += s.accepted;
  foray_edge_link_deinit(&el);
  foray_edge_destroy(w->edge);
  server_stop(w);
  free(w);
}

TEST(a_generation_survives_cuts_and_killed_servers) {
  uint32_t cuts = 0, kills = 0, accepted = 0;
  for (uint64_t seed = 1; seed <= 400; seed++) one(seed, &cuts, &kills, &accepted);
  CU_ASSERT_TRUE(cuts > 50 && kills > 20 && accepted > 500);
}
