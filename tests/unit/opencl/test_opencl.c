/* The OpenCL device in both of its mappings (row blocks in vectors, rows in work-items), and what it says
 * when nothing fits. Equality on whole programs is in unit/dev/test_devices.c too; here are random sessions.
 */
#include "unit/harness.h"
#include "unit/tiny_program.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t rng;
static uint32_t below(uint32_t n) {
  rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
  return (uint32_t)(rng >> 32) % n;
}

static void random_run(struct foray_rec_run *r) {
  r->flags = below(3) ? FORAY_RUN_SAMPLE : 0;
  if (below(3) == 0) r->flags |= FORAY_RUN_FLUSH;
  r->inv_temp = r->flags & FORAY_RUN_SAMPLE ? 1u << (14 + below(5)) : 0;
  r->seed = (uint64_t)below(1u << 30) << 32 | below(1u << 30);
  r->tests = below(4);
  r->check = below(3) ? 0 : 1 + below(7);
  r->step_limit = below(10) ? 0 : 1 + below(300);
  for (int e = 0; e < 2; e++) {
    memset(r->exit_rule + 8 * e, 0, 8 * sizeof *r->exit_rule);
    if (below(2)) r->exit_rule[8 * e] = -(int32_t)below(1 << 16), r->exit_rule[8 * e + 1] = 1 << 16;
  }
}

static bool same(struct tiny *a, struct tiny *b) {
  static uint8_t x[TINY_HEAP], y[TINY_HEAP];
  uint64_t ca[FORAY_COUNTER_COUNT], cb[FORAY_COUNTER_COUNT];
  if (memcmp(&a->res, &b->res, sizeof a->res)) return false;
  if (foray_dev_download(a->d, 64, x, TINY_HEAP - 64, NULL) ||
      foray_dev_download(b->d, 64, y, TINY_HEAP - 64, NULL))
    return false;
  foray_dev_counters(a->d, ca);
  foray_dev_counters(b->d, cb);
  ca[FORAY_COUNTER_BUSY] = cb[FORAY_COUNTER_BUSY] = 0;
  return !memcmp(x, y, TINY_HEAP - 64) && !memcmp(ca, cb, sizeof ca);
}

static void sessions(const char *shape, int n) {
  static struct tiny a, b;
  setenv("FORAY_OPENCL_SHAPE", shape, 1);
  for (int seed = 0; seed < n; seed++) {
    rng = (uint64_t)(seed + 1) * 0x9E3779B97F4A7C15u;
    for (int i = 0; i < 8; i++) (void)below(2);
    const uint32_t cols = 1 + below(FORAY_ABI_COLS_MAX);
    if (!tiny_open(&b, "opencl", (uint64_t)seed, cols)) {
      foray_test_skip(b.err.msg);
      unsetenv("FORAY_OPENCL_SHAPE");
      return;
    }
    CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", (uint64_t)seed, cols));
    uint32_t drafted = 0, len = 0;
    for (int i = 0; i < 8; i++) {
      uint32_t tokens[40], from = below(len + 1), k = 1 + below(32);
      if (from + k + TINY_RING > TINY_MAX_POS) from = 0;
      for (uint32_t j = 0; j < k; j++) tokens[j] = below(TINY_VOCAB);
      random_run(&a.run);
      if (below(5) == 0) a.run.flags = FORAY_RUN_SCORE, a.run.inv_temp = 0;
      b.run = a.run;
      const uint32_t drafts = a.run.flags & FORAY_RUN_SCORE ? 0 : below(TINY_RING);
      const enum foray_status sa = tiny_run(&a, tokens, k, from, drafts),
                              sb = tiny_run(&b, tokens, k, from, drafts);
      CU_ASSERT_EQUAL(sa, sb);
      if (!same(&a, &b)) {
        printf("%s, seed %d, run %d differs\n", shape, seed, i);
        CU_FAIL("device differs from ref");
        break;
      }
      len = a.res.error ? 0 : a.res.len;
      drafted += a.res.drafted;
    }
    CU_ASSERT(drafted > 0);
    tiny_close(&a);
    tiny_close(&b);
  }
  unsetenv("FORAY_OPENCL_SHAPE");
}

TEST(row_blocks_in_vectors_equal_ref) { sessions("cpu", 6); }
TEST(rows_in_work_items_equal_ref) { sessions("gpu", 3); }

TEST(a_device_that_is_not_there_is_named_with_what_is) {
  struct foray_dev *d;
  struct foray_err err = {0};
  struct tiny probe;
  if (!tiny_open(&probe, "opencl", 1, 1)) {
    foray_test_skip(probe.err.msg);
    return;
  }
  tiny_close(&probe);
  const char *const specs[] = {"opencl:99", "opencl:no such device"};
  for (int i = 0; i < 2; i++) {
    CU_ASSERT_EQUAL(foray_dev_open(specs[i], NULL, &d, &err), FORAY_E_UNSUPPORTED);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "no OpenCL device"));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "0 ")); /* the list */
  }
  CU_ASSERT_EQUAL(
      foray_dev_open("opencl", &(struct foray_dev_opts){.heap_bytes = (uint64_t)200 << 30}, &d, &err),
      FORAY_E_LIMIT);
}

/* The deadline is looked at between segments, with the queue drained. */
TEST(a_passed_deadline_leaves_a_consistent_context) {
  static struct tiny t;
  static uint32_t tokens[TINY_MAX_POS];
  if (!tiny_open(&t, "opencl", 3, 1)) {
    foray_test_skip(t.err.msg);
    return;
  }
  for (uint32_t i = 0; i < TINY_MAX_POS; i++) tokens[i] = i % TINY_VOCAB;
  uint32_t w[FORAY_ABI_RUN_WORDS];
  t.run.feed_n = TINY_MAX_POS - 1, t.run.max_drafts = 0;
  foray_rec_run_pack(&t.run, w);
  CU_ASSERT_EQUAL(foray_dev_upload(t.d, t.feed, tokens, sizeof tokens, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_upload(t.d, t.run_addr, w, sizeof w, NULL), FORAY_OK);
  const enum foray_status st = foray_dev_run(t.d, t.run_addr, 1, &t.res, &t.err);
  CU_ASSERT(st == FORAY_E_TIMEOUT || st == FORAY_OK); /* a machine may be that fast */
  CU_ASSERT(t.res.len <= TINY_MAX_POS - 1);
  CU_ASSERT_EQUAL(tiny_run(&t, tokens + t.res.len, 1, t.res.len, 1), FORAY_OK);
  tiny_close(&t);
}
