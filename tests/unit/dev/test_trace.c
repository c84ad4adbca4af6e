/* A watched device: what it tells adds up to its counters, tells every position and token, changes no bit. */
#include "unit/harness.h"
#include "unit/tiny_program.h"

static const uint32_t prompt[] = {3, 50, 7, 99, 21, 0, 64, 8, 77, 31, 12, 5, 88, 43, 9, 61, 2, 18, 33};
enum { P = sizeof prompt / sizeof *prompt, DRAFTS = 12 };

struct sums {
  uint64_t op[FORAY_COUNTER_COUNT], run[FORAY_COUNTER_COUNT], last_end, span_ns, run_ns;
  uint32_t ops, passes, runs, tokens, token[DRAFTS], exits, disorder;
};

static void seen(void *arg, const struct foray_trace_event *e) {
  struct sums *s = arg;
  if (e->end < e->begin) s->disorder++;
  switch (e->kind) {
  case FORAY_TRACE_OP:
    s->ops++;
    s->disorder += e->begin < s->last_end || e->op == 0 || e->columns == 0 || e->desc == UINT32_MAX;
    s->last_end = e->end;
    s->span_ns += e->end - e->begin;
    s->exits += e->exit != UINT32_MAX;
    for (int i = 0; i < FORAY_COUNTER_COUNT; i++) s->op[i] += e->counter[i];
    break;
  case FORAY_TRACE_PASS: s->passes++; break;
  case FORAY_TRACE_TOKEN:
    if (s->tokens < DRAFTS) s->token[s->tokens] = e->ring->token;
    s->tokens++;
    break;
  case FORAY_TRACE_RUN:
    s->runs++;
    s->run_ns += e->end - e->begin;
    for (int i = 0; i < FORAY_COUNTER_COUNT; i++) s->run[i] += e->counter[i];
    break;
  case FORAY_TRACE_SPAN: break;
  }
}

static void watched(const char *spec) {
  static struct tiny a, b;
  static struct foray_rec_ring ra[TINY_RING], rb[TINY_RING];
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, spec, 3, 4) && tiny_open(&b, spec, 3, 4));
  struct sums s = {0};
  CU_ASSERT_EQUAL(foray_dev_trace(a.d, &(struct foray_dev_trace){seen, &s}, &a.err), FORAY_OK);
  struct tiny *both[2] = {&a, &b};
  for (int k = 0; k < 2; k++) {
    both[k]->run.tests = 3;
    both[k]->run.exit_rule[0] = -52428, both[k]->run.exit_rule[1] = 65536;
    CU_ASSERT_EQUAL_FATAL(tiny_run(both[k], prompt, P, 0, DRAFTS), FORAY_OK);
  }
  CU_ASSERT_TRUE(tiny_ring(&a, ra) && tiny_ring(&b, rb));
  CU_ASSERT_EQUAL(memcmp(ra, rb, DRAFTS * sizeof *ra), 0);
  uint64_t c[FORAY_COUNTER_COUNT];
  foray_dev_counters(a.d, c);
  CU_ASSERT_EQUAL(s.runs, 1);
  CU_ASSERT_EQUAL(s.disorder, 0);
  CU_ASSERT_EQUAL(s.ops, c[FORAY_COUNTER_OPS]);
  CU_ASSERT_EQUAL(s.passes, c[FORAY_COUNTER_PASSES]);
  CU_ASSERT_EQUAL(s.tokens, DRAFTS);
  CU_ASSERT(s.exits > 0);
  CU_ASSERT(s.span_ns <= s.run_ns);
  for (int i = 0; i < DRAFTS; i++) CU_ASSERT_EQUAL(s.token[i], ra[i].token);
  for (int i = 0; i < FORAY_COUNTER_COUNT; i++) CU_ASSERT_EQUAL(s.run[i], c[i]);
  /* bytes that an op moves are told by ops alone; residuals move between them */
  const int by_op[] = {FORAY_COUNTER_OPS,          FORAY_COUNTER_WEIGHT_BYTES,  FORAY_COUNTER_EMBED_BYTES,
                       FORAY_COUNTER_VECTOR_BYTES, FORAY_COUNTER_KV_READ_BYTES, FORAY_COUNTER_KV_WRITE_BYTES,
                       FORAY_COUNTER_DESC_BYTES};
  for (size_t i = 0; i < sizeof by_op / sizeof *by_op; i++) CU_ASSERT_EQUAL(s.op[by_op[i]], c[by_op[i]]);
  CU_ASSERT(s.op[FORAY_COUNTER_WEIGHT_BYTES] > 0);
  /* and no longer */
  CU_ASSERT_EQUAL(foray_dev_trace(a.d, NULL, &a.err), FORAY_OK);
  uint32_t before = s.ops;
  CU_ASSERT_EQUAL(tiny_run(&a, prompt, P, 0, 1), FORAY_OK);
  CU_ASSERT_EQUAL(s.ops, before);
  tiny_close(&a);
  tiny_close(&b);
}

TEST(what_a_watched_device_tells_adds_up) {
  watched("ref");
  watched("cpu");
  watched("hls");
}
