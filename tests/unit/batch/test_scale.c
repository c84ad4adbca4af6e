/* The scheduler under load: sixty-four sessions that join, leave, cancel, resume, are evicted, refused and
 * share their beginnings; every token must be the one of plain decoding. With the toy, whose logits are a
 * hash of the whole prefix, and with the real engine on a small random model. */
#include "unit/harness.h"
#include "unit/tiny_model.h"
#include "unit/toy_target.h"

#include "batch/batch.h"
#include "batch/engine_target.h"
#include "batch/plan.h"
#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SESSIONS = 64, GEN_MAX = 48, PROMPT_MAX = 160, DRAFTS = 6 };

static uint64_t rng;
static uint32_t below(uint32_t n) {
  rng = rng * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(rng >> 33) % n;
}
static int64_t fake_now;
static int64_t now_of(void *arg) {
  (void)arg;
  return fake_now += 1000;
}

struct client {
  uint32_t prompt[PROMPT_MAX];
  struct foray_gen_request r;
  uint32_t want[GEN_MAX + 1], n_want;
  enum foray_finish want_finish;
  uint64_t tenant;
  /* what it has seen */
  bool open, opened, ended, cancelled;
  uint64_t conn, id;
  uint8_t secret[16];
  uint32_t got[GEN_MAX + 64], n;
  uint32_t round, epoch, drafted[DRAFTS], n_drafted;
  bool flying;
  int64_t retry_at;
};

struct stress {
  const struct foray_target *t;
  struct foray_batch *b;
  struct client c[SESSIONS];
  uint64_t next_conn;
  uint32_t wrong, busy, failed, cancels, resumes;
};

/* One session alone in a scheduler of its own: plain decoding. */
static void reference(const struct foray_target *t, struct client *c) {
  struct foray_batch *b;
  const struct foray_batch_opts o = {.prefix_entries = -1, .now = now_of};
  CU_ASSERT_EQUAL_FATAL(foray_batch_create(t, &o, &b, NULL), FORAY_OK);
  struct foray_gen_request r = c->r;
  r.mode = FORAY_MODE_PLAIN;
  struct foray_batch_msg m = {.kind = FORAY_BATCH_OPEN, .conn = 1, .request = &r};
  CU_ASSERT_EQUAL_FATAL(foray_batch_submit(b, &m), FORAY_OK);
  while (foray_batch_step(b)) continue;
  while (foray_batch_result(b, &m)) {
    for (uint32_t i = 0; i < m.n_ids; i++) c->want[c->n_want++] = m.ids[i];
    if (m.kind == FORAY_BATCH_VERDICT) c->want_finish = m.finish;
    foray_batch_msg_free(&m);
  }
  foray_batch_destroy(b);
}

static void make_client(struct stress *w, uint32_t i) {
  struct client *c = &w->c[i];
  *c = (struct client){.tenant = below(3)};
  const uint32_t vocab = w->t->vocab < 300 ? w->t->vocab : 250;
  uint32_t n = 0, shared = 24 * below(5); /* a system prompt that several have */
  for (; n < shared; n++) c->prompt[n] = 1 + (n * 7) % (vocab - 1);
  for (uint32_t own = 1 + below(40); own; own--) c->prompt[n++] = 1 + below(vocab - 1);
  c->r = (struct foray_gen_request){.prompt = c->prompt,
                                    .n_prompt = n,
                                    .max_tokens = 1 + below(GEN_MAX),
                                    .mode = below(3) ? FORAY_MODE_SPECULATIVE : FORAY_MODE_PLAIN,
                                    .ignore_eos = below(2)};
  c->r.sampling.temperature = below(2) ? 0.9f : 0;
  c->r.sampling.seed = rng;
  if (below(3) == 0) c->r.sampling.repeat_penalty = 1.2f;
  c->r.sampling.repeat_last_n = 64;
  reference(w->t, c);
}

static void submit(struct stress *w, struct foray_batch_msg m) {
  CU_ASSERT_EQUAL_FATAL(foray_batch_submit(w->b, &m), FORAY_OK);
}
static void open_client(struct stress *w, struct client *c) {
  c->conn = w->next_conn++;
  c->open = true;
  submit(w, (struct foray_batch_msg){.kind = FORAY_BATCH_OPEN,
                                     .conn = c->conn,
                                     .request = &c->r,
                                     .ids = c->got,
                                     .n_ids = c->n,
                                     .tenant = c->tenant,
                                     .weight = 1 + (double)c->tenant,
                                     .priority = (uint32_t)c->tenant});
  c->epoch = c->round = 0;
  c->flying = false;
}

static void take(struct client *c, const uint32_t *ids, uint32_t n) {
  for (uint32_t i = 0; i < n && c->n < GEN_MAX; i++) c->got[c->n++] = ids[i];
}

static void hear(struct stress *w) {
  struct foray_batch_msg m;
  while (foray_batch_result(w->b, &m)) {
    struct client *c = NULL;
    for (uint32_t i = 0; i < SESSIONS; i++)
      if (w->c[i].open && w->c[i].conn == m.conn) c = &w->c[i];
    if (c && m.kind == FORAY_BATCH_OPENED) {
      c->opened = true;
      c->id = m.id;
      memcpy(c->secret, m.secret, 16);
    } else if (c && m.kind == FORAY_BATCH_STATE) {
      c->opened = true;
      take(c, m.ids, m.n_ids);
      c->ended |= m.finish != FORAY_FINISH_NONE;
    } else if (c && m.kind == FORAY_BATCH_VERDICT) {
      if (m.round) {
        CU_ASSERT(c->flying && m.round == c->round && m.accepted <= c->n_drafted);
        take(c, c->drafted, m.accepted);
        if (m.accepted < c->n_drafted && m.finish == FORAY_FINISH_NONE) c->epoch++;
        c->flying = false;
      }
      take(c, m.ids, m.n_ids);
      c->ended |= m.finish != FORAY_FINISH_NONE;
      if (c->ended && !c->cancelled) CU_ASSERT_EQUAL(m.finish, c->want_finish);
    } else if (c && m.kind == FORAY_BATCH_FAILED) {
      c->open = c->opened = c->flying = false;
      if (m.code == FORAY_E_BUSY) {
        w->busy++;
        CU_ASSERT(m.retry_ms >= 100);
      } else {
        w->failed++;
        printf("failed: %s\n", m.text);
      }
    }
    if (c) {
      CU_ASSERT(c->n <= c->n_want);
      if (c->n > c->n_want || memcmp(c->got, c->want, c->n * sizeof *c->got) != 0) w->wrong++;
    }
    foray_batch_msg_free(&m);
  }
}

static void act(struct stress *w, struct client *c) {
  if (!c->open) {
    open_client(w, c);
    return;
  }
  if (!c->opened) return;
  const uint32_t dice = below(100);
  if (dice == 0) { /* the connection goes, another one resumes; sometimes long after */
    submit(w, (struct foray_batch_msg){.kind = FORAY_BATCH_DETACH, .conn = c->conn});
    c->conn = w->next_conn++;
    c->opened = c->flying = false;
    c->epoch = c->round = 0;
    struct foray_batch_msg m = {
        .kind = FORAY_BATCH_RESUME, .conn = c->conn, .id = c->id, .have = c->n, .tenant = c->tenant};
    memcpy(m.secret, c->secret, 16);
    submit(w, m);
    w->resumes++;
  } else if (dice == 1 && c->n > 2) {
    submit(w, (struct foray_batch_msg){.kind = FORAY_BATCH_CANCEL, .conn = c->conn});
    c->cancelled = true;
    w->cancels++;
  } else if (dice == 2) { /* leaves without its end and begins anew, with what it has */
    submit(w, (struct foray_batch_msg){.kind = FORAY_BATCH_CLOSE, .conn = c->conn});
    c->open = c->opened = false;
  } else if (c->r.mode == FORAY_MODE_SPECULATIVE && !c->flying && !c->cancelled) {
    c->n_drafted = 1 + below(DRAFTS);
    for (uint32_t i = 0; i < c->n_drafted; i++)
      c->drafted[i] = below(10) < 8 && c->n + i < c->n_want ? c->want[c->n + i] : below(w->t->vocab);
    c->flying = true;
    submit(w, (struct foray_batch_msg){.kind = FORAY_BATCH_DRAFT,
                                       .conn = c->conn,
                                       .round = ++c->round,
                                       .epoch = c->epoch,
                                       .start = c->n,
                                       .ids = c->drafted,
                                       .n_ids = c->n_drafted});
  }
}

/* False: it did not come to an end. */
static bool run(struct stress *w, const struct foray_batch_opts *o, uint64_t seed) {
  rng = seed * 77 + 1;
  w->next_conn = 1;
  for (uint32_t i = 0; i < SESSIONS; i++) make_client(w, i);
  CU_ASSERT_EQUAL_FATAL(foray_batch_create(w->t, o, &w->b, NULL), FORAY_OK);
  uint32_t started = 8, left = SESSIONS;
  for (int turn = 0; left && turn < 200000; turn++) {
    if (started < SESSIONS && below(4) == 0) started++;
    for (uint32_t i = 0; i < started; i++)
      if (!w->c[i].ended && below(3)) act(w, &w->c[i]);
    foray_batch_step(w->b);
    hear(w);
    left = 0;
    for (uint32_t i = 0; i < SESSIONS; i++) {
      if (w->c[i].ended && w->c[i].open) {
        submit(w, (struct foray_batch_msg){.kind = FORAY_BATCH_CLOSE, .conn = w->c[i].conn});
        w->c[i].open = false;
        if (!w->c[i].cancelled)
          CU_ASSERT(w->c[i].n == w->c[i].n_want &&
                    memcmp(w->c[i].got, w->c[i].want, w->c[i].n * sizeof(uint32_t)) == 0);
      }
      left += !w->c[i].ended;
    }
  }
  while (foray_batch_step(w->b)) continue;
  return left == 0;
}

TEST(every_token_is_that_of_plain_decoding_toy) {
  static struct stress w;
  uint64_t evictions = 0, hits = 0, resumes = 0, cancels = 0, busy = 0;
  for (uint64_t seed = 0; seed < 6; seed++) {
    struct toy toy;
    toy_init(&toy, seed, 220);
    w = (struct stress){.t = &toy.target};
    if (seed % 2) toy.cached_max = 600; /* a few sessions' worth */
    if (seed == 5) toy.target.kv_tokens = 1200;
    const struct foray_batch_opts o = {
        .now = now_of, .tokens_max = 96, .slice = 16, .rows_max = 32, .sessions_max = seed == 4 ? 40 : 128};
    CU_ASSERT(run(&w, &o, seed));
    CU_ASSERT(w.wrong == 0 && w.failed == 0);
    struct foray_batch_stats st;
    foray_batch_stats_get(w.b, &st);
    evictions += st.evictions;
    hits += st.prefix_hits;
    resumes += w.resumes;
    cancels += w.cancels;
    busy += w.busy;
    CU_ASSERT_EQUAL(st.sessions, 0);
    foray_batch_destroy(w.b);
    CU_ASSERT(toy.open_seqs == 0 && toy.open_samplers == 0 && toy.cached == 0);
  }
  /* all of it did happen */
  CU_ASSERT(evictions > 10 && hits > 1000 && resumes > 10 && cancels > 3 && busy > 3);
}

TEST(every_token_is_that_of_plain_decoding_engine) {
  static struct stress w;
  struct foray_tiny d = foray_tiny_default(FORAY_ARCH_LLAMA);
  struct foray_buf file;
  foray_tiny_build(&d, &file);
  char path[] = "/tmp/foray-tiny-XXXXXX.gguf";
  int fd = mkstemps(path, 5);
  CU_ASSERT_FATAL(fd >= 0 && write(fd, file.data, file.len) == (ssize_t)file.len);
  close(fd);
  foray_buf_deinit(&file);
  struct foray_engine_opts eo = foray_engine_opts_default();
  eo.threads = 2;
  struct foray_engine_target *plenty, *tight;
  struct foray_err err = {0};
  CU_ASSERT_EQUAL_FATAL(foray_engine_target_open(path, &eo, &plenty, &err), FORAY_OK);
  eo.kv_bytes_max = 10 * foray_engine_target_info(plenty)->engine->page_bytes;
  CU_ASSERT_EQUAL_FATAL(foray_engine_target_open(path, &eo, &tight, &err), FORAY_OK);
  unlink(path);
  struct foray_target t = *foray_engine_target_vtable(tight);
  t.kv_tokens = 0; /* admit them all: memory must do */
  w = (struct stress){.t = &t};
  const struct foray_batch_opts o = {.now = now_of, .tokens_max = 96, .slice = 32, .rows_max = 32};
  CU_ASSERT(run(&w, &o, 1));
  CU_ASSERT(w.wrong == 0 && w.failed == 0);
  struct foray_batch_stats st;
  foray_batch_stats_get(w.b, &st);
  CU_ASSERT(st.evictions > 10);
  CU_ASSERT(st.prefix_hits > 200);
  CU_ASSERT(foray_engine_kv_bytes(foray_engine_target_engine(tight)) <= eo.kv_bytes_max);
  foray_batch_destroy(w.b);
  CU_ASSERT_EQUAL(foray_engine_kv_bytes(foray_engine_target_engine(tight)), 0);
  foray_engine_target_close(tight);
  foray_engine_target_close(plenty);
}

TEST(ten_thousand_idle_sessions_cost_little) {
  struct toy toy;
  toy_init(&toy, 1, 200);
  const struct foray_batch_opts o = {.now = now_of, .sessions_max = 10000, .prefix_entries = -1};
  struct foray_batch *b;
  CU_ASSERT_EQUAL_FATAL(foray_batch_create(&toy.target, &o, &b, NULL), FORAY_OK);
  uint32_t prompt[2] = {1, 2};
  struct foray_gen_request r = {.prompt = prompt, .n_prompt = 2, .max_tokens = 10};
  struct foray_batch_msg m = {.kind = FORAY_BATCH_OPEN, .request = &r};
  for (uint32_t i = 0; i < 10000; i++) {
    m.conn = 1 + i / 100;
    m.session = i % 100;
    CU_ASSERT_EQUAL_FATAL(foray_batch_submit(b, &m), FORAY_OK);
  }
  while (foray_batch_step(b)) continue;
  struct foray_batch_stats st;
  foray_batch_stats_get(b, &st);
  CU_ASSERT(st.sessions == 10000 && st.refused == 0 && st.waiting == 0);
  m.conn = 500;
  CU_ASSERT_EQUAL(foray_batch_submit(b, &m), FORAY_OK); /* one more than there may be, and all are attached */
  (void)foray_batch_step(b);
  foray_batch_stats_get(b, &st);
  CU_ASSERT_EQUAL(st.refused, 1);
  foray_batch_destroy(b);
}

/* ---------------------------------------------------------------- the plan */

TEST(shares_follow_weights_and_classes) {
  /* Two tenants that always want: the tokens they get follow their weights. */
  double share[2] = {0, 0}, weight[2] = {3, 1}, had[2] = {0, 0};
  for (int pass = 0; pass < 4000; pass++) {
    struct foray_plan_want w[8];
    uint32_t order[16];
    struct foray_plan_item it[8];
    for (uint32_t i = 0; i < 8; i++)
      w[i] = (struct foray_plan_want){.uncached = 1, .guesses = 3, .since = i, .share = share[i % 2]};
    struct foray_plan_limits l = {.items = 8, .rows = 4, .tokens = 64, .slice = 8};
    uint32_t n = foray_plan_pass(w, 8, &l, order, it);
    for (uint32_t i = 0; i < n; i++) {
      uint32_t k = it[i].want % 2, m = it[i].feed + it[i].guesses;
      had[k] += m;
      share[k] += m / weight[k];
    }
  }
  CU_ASSERT(had[0] > 2.9 * had[1] && had[0] < 3.1 * had[1]);
  /* class before share, deadline within a class, age lifts */
  struct foray_plan_want w[3] = {{.uncached = 1, .since = 100, .priority = 2, .share = 0},
                                 {.uncached = 1, .since = 200, .priority = 1, .share = 9},
                                 {.uncached = 1, .since = 300, .priority = 1, .share = 99, .deadline = 350}};
  uint32_t order[6];
  struct foray_plan_item it[3];
  struct foray_plan_limits l = {.items = 1, .rows = 1, .tokens = 8, .slice = 8, .now = 340, .age_ns = 1000};
  CU_ASSERT(foray_plan_pass(w, 3, &l, order, it) == 1 && it[0].want == 1);
  l.now = 350;
  CU_ASSERT(foray_plan_pass(w, 3, &l, order, it) == 1 && it[0].want == 2);
  l.now = 2250; /* the first has waited two classes' time, the others not */
  w[1].since = w[2].since = 2240;
  w[2].deadline = 0;
  CU_ASSERT(foray_plan_pass(w, 3, &l, order, it) == 1 && it[0].want == 0);
}

TEST(prompts_stay_short_beside_choices) {
  struct foray_plan_want w[2] = {{.uncached = 500, .since = 1}, {.uncached = 1, .since = 2}};
  uint32_t order[4];
  struct foray_plan_item it[2];
  struct foray_plan_limits l = {.items = 4, .rows = 8, .tokens = 512, .slice = 256, .beside = 64};
  CU_ASSERT_EQUAL(foray_plan_pass(w, 2, &l, order, it), 2);
  CU_ASSERT(it[0].want == 1 && it[0].chooses && it[1].feed == 64);
  CU_ASSERT_EQUAL(foray_plan_pass(w, 1, &l, order, it), 1);
  CU_ASSERT_EQUAL(it[0].feed, 256);
  CU_ASSERT_EQUAL(foray_plan_draft_max(64, 4, 32), 15);
  CU_ASSERT_EQUAL(foray_plan_draft_max(64, 64, 32), 1);
  CU_ASSERT_EQUAL(foray_plan_draft_max(64, 1, 32), 32);
}

TEST(another_tenant_cannot_take_a_session_up) {
  struct toy toy;
  toy_init(&toy, 2, 200);
  struct foray_batch *b;
  const struct foray_batch_opts o = {.now = now_of};
  CU_ASSERT_EQUAL_FATAL(foray_batch_create(&toy.target, &o, &b, NULL), FORAY_OK);
  uint32_t prompt[4] = {1, 2, 3, 4};
  struct foray_gen_request r = {.prompt = prompt, .n_prompt = 4, .max_tokens = 4};
  struct foray_batch_msg m = {.kind = FORAY_BATCH_OPEN, .conn = 1, .request = &r, .tenant = 5}, got;
  CU_ASSERT_EQUAL(foray_batch_submit(b, &m), FORAY_OK);
  while (foray_batch_step(b)) continue;
  CU_ASSERT(foray_batch_result(b, &got) && got.kind == FORAY_BATCH_OPENED);
  struct foray_batch_msg take = {.kind = FORAY_BATCH_RESUME, .conn = 2, .id = got.id, .tenant = 6};
  memcpy(take.secret, got.secret, sizeof take.secret);
  for (int k = 0; k < 2; k++) { /* with the secret, as another and as itself */
    CU_ASSERT_EQUAL(foray_batch_submit(b, &take), FORAY_OK);
    while (foray_batch_step(b)) continue;
    CU_ASSERT(foray_batch_result(b, &got));
    CU_ASSERT_EQUAL(got.kind, k ? FORAY_BATCH_STATE : FORAY_BATCH_FAILED);
    foray_batch_msg_free(&got);
    take.tenant = 5;
    take.conn = 3;
  }
  foray_batch_destroy(b);
}

TEST(beginnings_are_shared_within_a_tenant_only) {
  struct toy toy;
  toy_init(&toy, 2, 200);
  const struct foray_batch_opts o = {.now = now_of};
  struct foray_batch *b;
  CU_ASSERT_EQUAL_FATAL(foray_batch_create(&toy.target, &o, &b, NULL), FORAY_OK);
  uint32_t prompt[40];
  for (uint32_t i = 0; i < 40; i++) prompt[i] = 1 + i % 20;
  struct foray_gen_request r = {.prompt = prompt, .n_prompt = 40, .max_tokens = 2, .mode = FORAY_MODE_PLAIN};
  const uint64_t tenants[] = {1, 2, 1};
  const uint64_t expect[] = {0, 0, 32}; /* whole pages of 8 before the last token */
  for (uint64_t k = 0; k < 3; k++) {
    struct foray_batch_stats st;
    foray_batch_stats_get(b, &st);
    uint64_t hits = st.prefix_hits;
    struct foray_batch_msg m = {.kind = FORAY_BATCH_OPEN, .conn = 1 + k, .request = &r, .tenant = tenants[k]};
    CU_ASSERT_EQUAL(foray_batch_submit(b, &m), FORAY_OK);
    while (foray_batch_step(b)) continue;
    foray_batch_stats_get(b, &st);
    CU_ASSERT_EQUAL(st.prefix_hits - hits, expect[k]);
  }
  /* All but the token that makes logits is kept: a session that only wants its prompt read has nothing to do.
   */
  r.mode = FORAY_MODE_SPECULATIVE;
  r.n_prompt = 33;
  struct foray_batch_msg whole = {.kind = FORAY_BATCH_OPEN, .conn = 9, .request = &r, .tenant = 1}, got;
  CU_ASSERT_EQUAL(foray_batch_submit(b, &whole), FORAY_OK);
  while (foray_batch_step(b)) continue;
  bool opened = false;
  while (foray_batch_result(b, &got)) {
    if (got.conn == 9) CU_ASSERT_EQUAL(got.kind, FORAY_BATCH_OPENED);
    opened |= got.conn == 9;
    foray_batch_msg_free(&got);
  }
  CU_ASSERT(opened);
  foray_batch_destroy(b);
  CU_ASSERT_EQUAL(toy.open_seqs, 0);
}
