/* Whole draft programs on the Verilated RTL and on ref: results, rings, heap and counters must be alike, also
 * when the memory holds back handshakes at random. */
#include "unit/harness.h"
#include "unit/sessions.h"

#include <stdio.h>

/* "mid" unless FORAY_TEST_SIM says otherwise. */
static const char *config(void) {
  const char *c = getenv("FORAY_TEST_SIM");
  return c ? c : "mid";
}

static bool spec_of(char *spec, size_t cap, const char *options, uint32_t *cols) {
  struct foray_dev *d;
  struct foray_err err;
  snprintf(spec, cap, "sim:%s%s", config(), options);
  if (foray_dev_open(spec, &(struct foray_dev_opts){.heap_bytes = 1 << 20}, &d, &err) != FORAY_OK) {
    foray_test_skip(err.msg);
    return false;
  }
  *cols = foray_dev_info(d)->cols_max;
  foray_dev_close(d);
  return true;
}

static int sessions(const char *options, uint64_t first, uint64_t n, uint64_t *drafted) {
  char spec[64];
  uint32_t cols;
  if (!spec_of(spec, sizeof spec, options, &cols)) return -1;
  int bad = 0;
  for (uint64_t seed = first; seed < first + n; seed++) {
    const char *what = session(spec, seed, 6, cols, drafted);
    if (what) printf("%s, seed %llu: %s differs\n", spec, (unsigned long long)seed, what), bad++;
  }
  return bad;
}

TEST(random_sessions_equal_ref) {
  uint64_t drafted = 0;
  const char *n = getenv("FORAY_TEST_SIM_N");
  uint64_t seeds = n ? strtoull(n, NULL, 10) : 3;
  int bad = sessions("", 0, seeds, &drafted);
  if (bad < 0) return;
  CU_ASSERT_EQUAL(bad, 0);
  CU_ASSERT_EQUAL(sessions(",mem=ddr4,stall=40,jitter=30,seed=3", 100, seeds, &drafted), 0);
  CU_ASSERT(drafted > 20);
}

/* ---- faults: an error code or another status, no hang, and the next program runs ---- */

static const uint32_t prompt[] = {3, 50, 7, 99, 21, 0, 64};
enum { PROMPT = sizeof prompt / sizeof *prompt, DRAFTS = 4 };

/* A fresh context and a plain draft, which must be ref's. */
static bool runs_well(struct tiny *t, struct tiny *ref) {
  struct foray_rec_ring a[TINY_RING], b[TINY_RING];
  return tiny_reset(t, 64) && tiny_reset(ref, 64) && tiny_run(t, prompt, PROMPT, 0, DRAFTS) == FORAY_OK &&
         tiny_run(ref, prompt, PROMPT, 0, DRAFTS) == FORAY_OK && t->res.drafted == DRAFTS &&
         tiny_ring(t, a) && tiny_ring(ref, b) && !memcmp(a, b, DRAFTS * sizeof *a);
}

/* A run on a device with these options; its status and result stay in t. False: not built. */
static bool faulty(struct tiny *t, struct tiny *ref, const char *options, enum foray_status *st) {
  char spec[64];
  uint32_t cols;
  if (!spec_of(spec, sizeof spec, "", &cols)) return false;
  snprintf(spec, sizeof spec, "sim:%s%s", config(), options);
  CU_ASSERT_TRUE_FATAL(tiny_open(ref, "ref", 9, 1) && tiny_open(t, spec, 9, 1));
  *st = tiny_run(t, prompt, PROMPT, 0, DRAFTS);
  return true;
}

TEST(memory_errors_end_with_a_code) {
  static struct tiny t, ref;
  /* in the run block, the program, the first weights, the middle of a token; writes of KV, residuals */
  const char *const options[] = {
      ",badread=1",  ",badread=9",  ",badread=60",  ",badread=333",
      ",badwrite=1", ",badwrite=9", ",badwrite=40", ",badread=200,mem=ddr4,stall=50"};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    enum foray_status st;
    if (!faulty(&t, &ref, options[i], &st)) return;
    CU_ASSERT_EQUAL(st, FORAY_E_DEVICE);
    CU_ASSERT_EQUAL(t.res.error, FORAY_DEVERR_BUS);
    CU_ASSERT_TRUE(runs_well(&t, &ref));
    tiny_close(&t);
    tiny_close(&ref);
  }
}

TEST(silent_memory_is_given_up) {
  static struct tiny t, ref;
  enum foray_status st;
  if (!faulty(&t, &ref, ",dead=100,deadfor=700000", &st)) return;
  CU_ASSERT_EQUAL(st, FORAY_E_DEVICE);
  CU_ASSERT_EQUAL(t.res.error, FORAY_DEVERR_BUS);
  CU_ASSERT_TRUE(runs_well(&t, &ref)); /* late answers are not taken for those of this run */
  tiny_close(&t);
  tiny_close(&ref);
}

TEST(reset_in_the_middle) {
  static struct tiny t, ref;
  for (int at = 50; at < 30000; at = at * 5 + 13) {
    char options[32];
    enum foray_status st;
    snprintf(options, sizeof options, ",resetat=%d", at);
    if (!faulty(&t, &ref, options, &st)) return;
    CU_ASSERT_EQUAL(st, FORAY_E_DEVICE);
    CU_ASSERT_TRUE(runs_well(&t, &ref));
    tiny_close(&t);
    tiny_close(&ref);
  }
}

TEST(doorbell_while_busy_is_kept) {
  static struct tiny t, ref;
  enum foray_status st;
  uint64_t c[FORAY_COUNTER_COUNT];
  if (!faulty(&t, &ref, ",again=700", &st)) return;
  CU_ASSERT_EQUAL(st, FORAY_OK);
  foray_dev_counters(t.d, c);
  CU_ASSERT_EQUAL(c[FORAY_COUNTER_RUNS], 2);
  CU_ASSERT_EQUAL(c[FORAY_COUNTER_DRAFTED], 2 * DRAFTS);
  CU_ASSERT_TRUE(runs_well(&t, &ref));
  tiny_close(&t);
  tiny_close(&ref);
}

TEST(deadline_ends_the_block) {
  static struct tiny t, ref;
  enum foray_status st;
  if (!faulty(&t, &ref, "", &st)) return;
  CU_ASSERT_EQUAL(st, FORAY_OK);
  uint32_t w[FORAY_ABI_RUN_WORDS], tokens[100] = {0};
  t.run.feed_n = 100, t.run.start = 0, t.run.max_drafts = TINY_RING;
  foray_rec_run_pack(&t.run, w);
  CU_ASSERT_EQUAL(foray_dev_upload(t.d, t.feed, tokens, sizeof tokens, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_upload(t.d, t.run_addr, w, sizeof w, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_run(t.d, t.run_addr, 1, &t.res, &t.err), FORAY_E_TIMEOUT);
  CU_ASSERT_EQUAL(t.res.error, FORAY_DEVERR_DEADLINE);
  CU_ASSERT_TRUE(runs_well(&t, &ref));
  tiny_close(&t);
  tiny_close(&ref);
}

/* Every cycle of a run has one owner. */
TEST(counters_explain_every_cycle) {
  static struct tiny t, ref;
  enum foray_status st;
  uint64_t c[FORAY_COUNTER_COUNT], sum = 0;
  if (!faulty(&t, &ref, ",mem=ddr4,stall=20", &st)) return;
  CU_ASSERT_EQUAL(st, FORAY_OK);
  foray_dev_counters(t.d, c);
  for (int i = FORAY_COUNTER_CYC_SEQ; i <= FORAY_COUNTER_EXIT_BLOCKED; i++) sum += c[i];
  CU_ASSERT_EQUAL(sum, c[FORAY_COUNTER_BUSY]);
  CU_ASSERT(c[FORAY_COUNTER_MATRIX_BUSY] > 0 && c[FORAY_COUNTER_ATTN_BUSY] > 0 &&
            c[FORAY_COUNTER_EXIT_BUSY] > 0);
  tiny_close(&t);
  tiny_close(&ref);
}

TEST(broken_records_end_alike) {
  char spec[64];
  uint32_t cols;
  if (!spec_of(spec, sizeof spec, "", &cols)) return;
  broken_descriptors(spec, cols, 30);
  broken_run_blocks(spec, cols, 17);
}
