/* The draft program on the reference device: catch-up, rollback, batches, stop rules, and every error code.
 */
#include "unit/harness.h"
#include "unit/tiny_program.h"

#include <stdio.h>

static const uint32_t prompt[] = {3, 50, 7,  99, 21, 0, 64, 8,  77, 31, 12,
                                  5, 88, 43, 9,  61, 2, 18, 33, 70, 54};
enum { P = sizeof prompt / sizeof *prompt };

static const int32_t always[FORAY_ABI_FEATURES] = {0};

static void exit_always(struct tiny *t, uint32_t e) {
  t->run.tests |= 1u << e;
  memcpy(t->run.exit_rule + e * FORAY_ABI_FEATURES, always, sizeof always);
}

/* What must not depend on how a position was reached: everything but the exit bookkeeping and the running
 * sum. */
static bool same_choice(const struct foray_rec_ring *a, const struct foray_rec_ring *b) {
  struct foray_rec_ring x = *a, y = *b;
  x.exit = y.exit = x.tried = y.tried = x.flags = y.flags = 0;
  x.cum = y.cum = 0;
  return !memcmp(&x, &y, sizeof x);
}

static bool kv_equal(struct tiny *a, struct tiny *b, uint32_t positions) {
  uint8_t *x = malloc(a->kv_bytes), *y = malloc(b->kv_bytes);
  bool ok = x && y && foray_dev_download(a->d, a->kv, x, a->kv_bytes, &a->err) == FORAY_OK &&
            foray_dev_download(b->d, b->kv, y, b->kv_bytes, &b->err) == FORAY_OK;
  uint32_t rec = foray_dev_kv_record(TINY_HD);
  uint64_t layer = foray_dev_kv_bytes(TINY_HD, TINY_KVH, TINY_MAX_POS);
  for (uint32_t l = 0; ok && l < TINY_LAYERS; l++)
    for (uint32_t h = 0; h < TINY_KVH; h++) {
      uint64_t at = layer * l + (uint64_t)h * TINY_MAX_POS * rec;
      ok &= !memcmp(x + at, y + at, (size_t)positions * rec);
    }
  free(x);
  free(y);
  return ok;
}

TEST(catch_up_equals_full_depth) {
  static struct tiny a, b;
  static struct foray_rec_ring ra[TINY_RING], rb[TINY_RING];
  for (uint32_t cols = 1; cols <= 8; cols += cols == 1 ? 2 : 5)
    for (uint32_t slots = 8; slots <= 64; slots += 56) {
      CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", 1, cols));
      CU_ASSERT_TRUE_FATAL(tiny_open(&b, "ref", 1, 8));
      CU_ASSERT_TRUE_FATAL(tiny_reset(&a, slots));
      /* a: ten tokens by the first exit, then one at full depth */
      exit_always(&a, 0);
      CU_ASSERT_EQUAL_FATAL(tiny_run(&a, prompt, P, 0, 10), FORAY_OK);
      CU_ASSERT_TRUE_FATAL(tiny_ring(&a, ra));
      uint32_t seq[64], n = P;
      memcpy(seq, prompt, sizeof prompt);
      for (uint32_t i = 0; i < 10; i++) {
        CU_ASSERT_EQUAL(ra[i].exit, 0);
        CU_ASSERT_EQUAL(ra[i].position, P + i);
        seq[n++] = ra[i].token;
      }
      struct foray_rec_state st;
      uint32_t w[FORAY_ABI_STATE_WORDS];
      CU_ASSERT_EQUAL(foray_dev_download(a.d, a.state, w, sizeof w, NULL), FORAY_OK);
      foray_rec_state_unpack(w, &st);
      CU_ASSERT(st.done[2] < st.done[0]); /* something is pending, else this test shows nothing */
      a.run.tests = 0;
      CU_ASSERT_EQUAL_FATAL(tiny_run(&a, seq + n - 1, 1, n - 1, 3), FORAY_OK);
      CU_ASSERT_TRUE(tiny_ring(&a, ra));
      /* b: the same tokens fed, never an exit */
      CU_ASSERT_EQUAL_FATAL(tiny_run(&b, seq, n, 0, 3), FORAY_OK);
      CU_ASSERT_TRUE(tiny_ring(&b, rb));
      for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(ra[i].exit, 2);
        CU_ASSERT(same_choice(&ra[i], &rb[i]));
      }
      CU_ASSERT(kv_equal(&a, &b, n + 2));
      tiny_close(&a);
      tiny_close(&b);
    }
}

TEST(mixed_exits_equal_full_depth_wherever_the_depth_is_full) {
  static struct tiny a, b;
  static struct foray_rec_ring ra[TINY_RING], rb[TINY_RING];
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", 6, 4));
  CU_ASSERT_TRUE_FATAL(tiny_open(&b, "ref", 6, 8));
  a.run.tests = 3;
  a.run.exit_rule[0] = -52428, a.run.exit_rule[1] = 65536; /* exit 0 from 0.8, exit 1 from 0.4 */
  a.run.exit_rule[8] = -26214, a.run.exit_rule[9] = 65536;
  CU_ASSERT_EQUAL_FATAL(tiny_run(&a, prompt, P, 0, 24), FORAY_OK);
  CU_ASSERT_TRUE_FATAL(tiny_ring(&a, ra));
  uint32_t seq[64], n = P, by[3] = {0};
  memcpy(seq, prompt, sizeof prompt);
  for (uint32_t i = 0; i < 24; i++) {
    by[ra[i].exit]++;
    if (ra[i].exit == 2) {
      CU_ASSERT_TRUE_FATAL(tiny_reset(&b, 64));
      CU_ASSERT_EQUAL_FATAL(tiny_run(&b, seq, n, 0, 1), FORAY_OK);
      CU_ASSERT_TRUE(tiny_ring(&b, rb));
      CU_ASSERT(same_choice(&ra[i], &rb[0]));
    }
    seq[n++] = ra[i].token;
  }
  CU_ASSERT(by[0] && by[1] && by[2]); /* all depths occurred */

  tiny_close(&a);
  tiny_close(&b);
}

TEST(rollback_equals_a_fresh_context) {
  static struct tiny a, b;
  static struct foray_rec_ring ra[TINY_RING], rb[TINY_RING];
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", 2, 8));
  CU_ASSERT_TRUE_FATAL(tiny_open(&b, "ref", 2, 8));
  exit_always(&a, 1);
  CU_ASSERT_EQUAL_FATAL(tiny_run(&a, prompt, P, 0, 9), FORAY_OK);
  a.run.tests = 0;
  const uint32_t other[] = {11, 13};
  for (uint32_t start = 1; start <= P + 8; start += 4) {
    uint32_t full[64], n = start + 2;
    CU_ASSERT_TRUE_FATAL(tiny_reset(&b, 64));
    CU_ASSERT_TRUE(tiny_reset(&a, 64));
    exit_always(&a, 0);
    CU_ASSERT_EQUAL_FATAL(tiny_run(&a, prompt, P, 0, 9), FORAY_OK);
    CU_ASSERT_TRUE(tiny_ring(&a, ra));
    memcpy(full, prompt, sizeof prompt);
    for (uint32_t i = 0; i < 9; i++) full[P + i] = ra[i].token;
    full[start] = other[0], full[start + 1] = other[1];
    a.run.tests = 0;
    CU_ASSERT_EQUAL_FATAL(tiny_run(&a, other, 2, start, 2), FORAY_OK);
    CU_ASSERT_TRUE(tiny_ring(&a, ra));
    CU_ASSERT_EQUAL_FATAL(tiny_run(&b, full, n, 0, 2), FORAY_OK);
    CU_ASSERT_TRUE(tiny_ring(&b, rb));
    for (int i = 0; i < 2; i++) CU_ASSERT(same_choice(&ra[i], &rb[i]));
    CU_ASSERT_EQUAL(a.res.len, b.res.len);
  }
  tiny_close(&a);
  tiny_close(&b);
}

TEST(score_dumps_do_not_depend_on_the_batch) {
  static struct tiny t[3];
  static int32_t l[3][P][128];
  const uint32_t cols[] = {1, 3, 8};
  for (int k = 0; k < 3; k++) {
    CU_ASSERT_TRUE_FATAL(tiny_open(&t[k], "ref", 3, cols[k]));
    if (k == 2) { /* and with positions pending from before */
      exit_always(&t[k], 0);
      CU_ASSERT_EQUAL_FATAL(tiny_run(&t[k], prompt, 6, 0, 1), FORAY_OK);
    }
    t[k].run.flags = FORAY_RUN_SCORE;
    uint32_t from = k == 2 ? 6 : 0;
    CU_ASSERT_EQUAL_FATAL(tiny_run(&t[k], prompt + from, P - from, from, 0), FORAY_OK);
    CU_ASSERT_EQUAL(t[k].res.dumped, P - from);
    for (uint32_t i = from; i < P; i++)
      CU_ASSERT_EQUAL(foray_dev_download(t[k].d, t[k].dump + (i - from) * 448, l[k][i], TINY_VOCAB * 4, NULL),
                      FORAY_OK);
    for (uint32_t i = from; i < P; i++) CU_ASSERT_EQUAL(memcmp(l[k][i], l[0][i], TINY_VOCAB * 4), 0);
    tiny_close(&t[k]);
  }
  int64_t spread = 0;
  for (int i = 0; i < TINY_VOCAB; i++) spread |= l[0][P - 1][i] ^ l[0][0][i];
  CU_ASSERT(spread != 0);
}

TEST(stop_rules) {
  static struct tiny t;
  static struct foray_rec_ring r[TINY_RING], q[TINY_RING];
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 4, 8));
  CU_ASSERT_EQUAL_FATAL(tiny_run(&t, prompt, P, 0, 12), FORAY_OK);
  CU_ASSERT_EQUAL(t.res.drafted, 12);
  CU_ASSERT_EQUAL(t.res.stop, FORAY_STOP_MAX);
  CU_ASSERT_EQUAL(t.res.len, P + 11); /* the last draft is not fed */
  CU_ASSERT_TRUE_FATAL(tiny_ring(&t, r));
  uint32_t at = 5; /* stop at the first occurrence of the sixth token */
  for (uint32_t i = 0; i < at; i++)
    if (r[i].token == r[5].token) at = i;
  t.run.stop_ids[1] = r[5].token, t.run.stop_ids[0] = 12345, t.run.stop_n = 2;
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, P, 0, 12), FORAY_OK);
  CU_ASSERT_EQUAL(t.res.drafted, at + 1);
  CU_ASSERT_EQUAL(t.res.stop, FORAY_STOP_ID);
  t.run.stop_n = 0;
  /* the rule on probability: the first entry below the smallest but one stops */
  int32_t least = INT32_MAX;
  for (int i = 0; i < 12; i++)
    if (r[i].top_prob < least) least = r[i].top_prob;
  uint32_t where = 0;
  while (r[where].top_prob != least) where++;
  t.run.stop_rule[0] = -least - 1, t.run.stop_rule[1] = 65536; /* fires for p <= least */
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, P, 0, 12), FORAY_OK);
  CU_ASSERT_EQUAL(t.res.drafted, where + 1);
  CU_ASSERT_EQUAL(t.res.stop, FORAY_STOP_RULE);
  CU_ASSERT_TRUE(tiny_ring(&t, q));
  CU_ASSERT_EQUAL(q[where].flags, FORAY_RING_STOP_RULE);
  t.run.flags = FORAY_RUN_STOP_BEFORE;
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, P, 0, 12), FORAY_OK);
  CU_ASSERT_EQUAL(t.res.drafted, where);
  t.run.flags = 0;
  memset(t.run.stop_rule, 0, sizeof t.run.stop_rule);
  t.run.cum_min = r[3].cum + 1;
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, P, 0, 12), FORAY_OK);
  CU_ASSERT_EQUAL(t.res.drafted, 4);
  t.run.cum_min = 0;
  /* the ring wraps */
  t.run.ring_head = 29;
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, P, 0, 12), FORAY_OK);
  CU_ASSERT_TRUE(tiny_ring(&t, q));
  CU_ASSERT_EQUAL(memcmp(q, r, 12 * sizeof *r), 0);
  t.run.ring_head = 0;
  /* sampling is reproducible and depends on the seed */
  t.run.flags = FORAY_RUN_SAMPLE, t.run.inv_temp = 1 << 14, t.run.seed = 7;
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, P, 0, 12), FORAY_OK);
  CU_ASSERT_TRUE(tiny_ring(&t, q));
  t.run.seed = 8;
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, P, 0, 12), FORAY_OK);
  CU_ASSERT_TRUE(tiny_ring(&t, r));
  bool differ = false;
  for (int i = 0; i < 12; i++) differ |= q[i].token != r[i].token;
  CU_ASSERT(differ);
  t.run.flags = 0, t.run.inv_temp = 0;
  /* the context ends */
  static uint32_t longer[TINY_MAX_POS];
  for (uint32_t i = 0; i < TINY_MAX_POS; i++) longer[i] = i % TINY_VOCAB;
  CU_ASSERT_EQUAL(tiny_run(&t, longer, TINY_MAX_POS - 2, 0, 12), FORAY_OK);
  CU_ASSERT_EQUAL(t.res.drafted, 3);
  CU_ASSERT_EQUAL(t.res.stop, FORAY_STOP_CONTEXT);
  CU_ASSERT_EQUAL(t.res.len, TINY_MAX_POS);
  uint64_t counter[FORAY_COUNTER_COUNT];
  foray_dev_counters(t.d, counter);
  CU_ASSERT(counter[FORAY_COUNTER_WEIGHT_BYTES] > 0 && counter[FORAY_COUNTER_DRAFTED] > 60);
  tiny_close(&t);
}

TEST(a_broken_off_run_can_be_repeated) {
  static struct tiny a, b;
  static struct foray_rec_ring ra[TINY_RING], rb[TINY_RING];
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", 6, 8));
  CU_ASSERT_TRUE_FATAL(tiny_open(&b, "ref", 6, 8));
  CU_ASSERT_EQUAL_FATAL(tiny_run(&b, prompt, P, 0, 4), FORAY_OK);
  CU_ASSERT_TRUE(tiny_ring(&b, rb));
  for (uint32_t limit = 1; limit < 300; limit += 23) {
    CU_ASSERT_TRUE(tiny_reset(&a, 64));
    a.run.step_limit = limit;
    enum foray_status st = tiny_run(&a, prompt, P, 0, 4);
    if (st != FORAY_OK) {
      CU_ASSERT_EQUAL(st, FORAY_E_DEVICE);
      CU_ASSERT_EQUAL(a.res.error, FORAY_DEVERR_STEPS);
      CU_ASSERT_EQUAL(a.res.stop, FORAY_STOP_ERROR);
    }
    a.run.step_limit = 0;
    uint32_t from = a.res.len < P ? a.res.len : P - 1;
    CU_ASSERT_EQUAL_FATAL(tiny_run(&a, prompt + from, P - from, from, 4), FORAY_OK);
    CU_ASSERT_TRUE(tiny_ring(&a, ra));
    CU_ASSERT_EQUAL(memcmp(ra, rb, 4 * sizeof *ra), 0);
  }
  /* a deadline that has passed before the second pass */
  static uint32_t longer[TINY_MAX_POS];
  CU_ASSERT_TRUE(tiny_reset(&a, 64));
  uint32_t w[FORAY_ABI_RUN_WORDS];
  a.run.feed_n = TINY_MAX_POS, a.run.start = 0, a.run.max_drafts = 0;
  foray_rec_run_pack(&a.run, w);
  CU_ASSERT_EQUAL(foray_dev_upload(a.d, a.feed, longer, sizeof longer, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_upload(a.d, a.run_addr, w, sizeof w, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_run(a.d, a.run_addr, 1, &a.res, &a.err), FORAY_E_TIMEOUT);
  CU_ASSERT_EQUAL(a.res.error, FORAY_DEVERR_DEADLINE);
  CU_ASSERT(a.res.len < TINY_MAX_POS);
  tiny_close(&a);
  tiny_close(&b);
}

/* ---- each error code, by one wrong thing in a good program ---- */

static uint32_t find(struct tiny *t, uint32_t op, uint32_t nth) {
  for (uint32_t i = 0; i < t->n; i++)
    if ((t->w[i][0] & 0xff) == op && nth-- == 0) return i;
  return 0;
}

static uint32_t code_with(struct tiny *t, uint32_t at, uint32_t word, uint32_t value) {
  uint32_t keep = t->w[at][word];
  t->w[at][word] = value;
  CU_ASSERT_EQUAL(foray_dev_upload(t->d, t->prog, t->w, t->n * 64, NULL), FORAY_OK);
  CU_ASSERT_TRUE(tiny_reset(t, 64));
  enum foray_status st = tiny_run(t, prompt, P, 0, 2);
  CU_ASSERT_EQUAL(st, FORAY_E_DEVICE);
  t->w[at][word] = keep;
  return t->res.error;
}

TEST(bad_descriptors_end_with_their_code) {
  static struct tiny t;
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 7, 4));
  CU_ASSERT_EQUAL_FATAL(tiny_run(&t, prompt, P, 0, 2), FORAY_OK);
#define BAD(op, nth, word, value, code)                                                                      \
  CU_ASSERT_EQUAL(code_with(&t, find(&t, FORAY_OP_##op, nth), word, value), FORAY_DEVERR_##code)
  BAD(GEMV, 2, 0, 0, OPCODE);
  BAD(GEMV, 2, 0, 200, OPCODE);
  BAD(PROG, 0, 0, 2, ORDER);
  BAD(PROG, 0, 15, 1, ABI);
  BAD(PROG, 0, 9, 1, FIELD);
  BAD(PROG, 0, 1, 3, SHAPE);
  BAD(PROG, 0, 1, 4097, SHAPE);
  BAD(PROG, 0, 1, 40, ORDER);
  BAD(PROG, 0, 1, 4000, ORDER);       /* what follows END */
  BAD(PROG, 0, 2, 0x00000303, SHAPE); /* no columns */
  BAD(PROG, 0, 2, 0x00040204, ORDER);
  BAD(PROG, 0, 4, 1u << 31, SCRATCH);
  BAD(SEG, 1, 1, 2, ORDER);
  BAD(TEST, 1, 1, 0, ORDER);
  BAD(TEST, 0, 0, FORAY_OP_TEST | FORAY_DF_FINAL << 8, ORDER);
  BAD(EXIT, 0, 0, FORAY_OP_QUANT, SHAPE);
  BAD(EXIT, 0, 3, 1, FIELD);
  BAD(END, 0, 0, FORAY_OP_EXIT, ORDER);
  BAD(EMBED, 0, 4, 0, ADDRESS);
  BAD(EMBED, 0, 4, UINT32_MAX, ADDRESS);
  BAD(EMBED, 0, 3, TINY_VOCAB - 1, SHAPE);
  BAD(EMBED, 0, 0, FORAY_OP_EMBED | FORAY_QTYPE_Q4A << 16, FIELD);
  BAD(RMSNORM, 0, 3, 65, SHAPE);
  BAD(RMSNORM, 0, 7, 12345, FIELD);
  BAD(RMSNORM, 0, 4, TINY_HEAP / 64, ADDRESS);
  BAD(RMSNORM, 0, 2, 0, SCRATCH); /* on top of its source */
  BAD(GEMV, 0, 3, 48, SHAPE);
  BAD(GEMV, 0, 3, 0, SHAPE);
  BAD(GEMV, 0, 4, 1u << 20, SHAPE);
  BAD(GEMV, 0, 1, UINT32_MAX, SCRATCH);
  BAD(GEMV, 0, 0, FORAY_OP_GEMV | 7u << 16, FIELD);
  BAD(GEMV, 3, 6, 5u << 16, FIELD); /* exponent of a bias that is not there */
  BAD(HEAD, 0, 7, 0, SHAPE);
  BAD(HEAD, 0, 7, TINY_TRIM + 1, SHAPE);
  BAD(HEAD, 0, 2, UINT32_MAX, ADDRESS);
  BAD(HEAD, 0, 0, FORAY_OP_RMSNORM, FIELD);
  BAD(ROPE, 0, 2, 33 | 1u << 16, SHAPE);
  BAD(ROPE, 0, 3, 0, ADDRESS);
  BAD(KV_PUT, 1, 4, 1u << 20, KV);
  BAD(KV_PUT, 0, 3, 32 | 200u << 16, KV);
  BAD(ATTN, 0, 5, 3, SHAPE);
  BAD(ATTN, 0, 6, 1u << 25, FIELD);
  BAD(ATTN, 2, 4, UINT32_MAX, KV);
  BAD(SILU_MUL, 0, 4, 0, SHAPE);
  BAD(SILU_MUL, 0, 3, 0x7fffffff, SCRATCH);
  BAD(QUANT, 0, 3, 1, SHAPE);
  BAD(ADD, 0, 2, 0, SCRATCH);
#undef BAD
  tiny_close(&t);
}

TEST(bad_runs_and_contexts_end_with_their_code) {
  static struct tiny t;
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 8, 4));
  struct foray_rec_run good = t.run;
#define BAD(code, drafts, n, start, ...)                                                                     \
  do {                                                                                                       \
    t.run = good;                                                                                            \
    __VA_ARGS__;                                                                                             \
    CU_ASSERT_TRUE(tiny_reset(&t, 64));                                                                      \
    CU_ASSERT_EQUAL(tiny_run(&t, prompt, n, start, drafts), FORAY_E_DEVICE);                                 \
    CU_ASSERT_EQUAL(t.res.error, FORAY_DEVERR_##code);                                                       \
  } while (0)
  BAD(RUN, 1, P, 0, t.run.magic = 1);
  BAD(RUN, 1, P, 0, t.run.flags = 1u << 30);
  BAD(RUN, 1, P, 0, t.run.flags = FORAY_RUN_SAMPLE);
  BAD(RUN, 1, P, 0, t.run.inv_temp = 5);
  BAD(RUN, 1, P, 0, t.run.stop_n = 9);
  BAD(RUN, 1, P, 5, (void)0);
  BAD(RUN, 1, 0, 0, (void)0);
  BAD(RUN, 1, P, 0, t.run.flags = FORAY_RUN_SCORE);
  BAD(ADDRESS, 1, P, 0, t.run.program = 0);
  BAD(ADDRESS, 1, P, 0, t.run.program = TINY_HEAP / 64);
  BAD(ADDRESS, 1, P, 0, t.run.state = UINT32_MAX);
  BAD(ADDRESS, 1, P, 0, t.run.feed = 0);
  BAD(ADDRESS, 1, P, 0, t.run.ring = TINY_HEAP / 64 - 1);
  BAD(RING, 8, P, 0, t.run.ring_slots = 7);
  BAD(RING, 8, P, 0, t.run.ring_head = TINY_RING);
  BAD(DUMP, 0, P, 0, t.run.flags = FORAY_RUN_SCORE; t.run.dump_units = 3);
  BAD(STATE, 1, P, 0, t.run.state = t.run.program);
  t.run = good;
  const uint32_t big[] = {3, TINY_VOCAB};
  CU_ASSERT_TRUE(tiny_reset(&t, 64));
  CU_ASSERT_EQUAL(tiny_run(&t, big, 2, 0, 1), FORAY_E_DEVICE);
  CU_ASSERT_EQUAL(t.res.error, FORAY_DEVERR_TOKEN);
  static uint32_t longer[TINY_MAX_POS];
  CU_ASSERT_TRUE(tiny_reset(&t, 64));
  CU_ASSERT_EQUAL(tiny_run(&t, longer, 9, 0, 0), FORAY_OK);
  CU_ASSERT_EQUAL(tiny_run(&t, longer, TINY_MAX_POS - 8, 9, 0), FORAY_E_DEVICE);
  CU_ASSERT_EQUAL(t.res.error, FORAY_DEVERR_CONTEXT);
  CU_ASSERT_TRUE(tiny_reset(&t, 3)); /* fewer residual slots than columns */
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, P, 0, 1), FORAY_E_DEVICE);
  CU_ASSERT_EQUAL(t.res.error, FORAY_DEVERR_STATE);
  CU_ASSERT_EQUAL(foray_dev_run(t.d, TINY_HEAP, 0, &t.res, &t.err), FORAY_E_DEVICE);
  CU_ASSERT_EQUAL(foray_dev_run(t.d, 3, 0, &t.res, &t.err), FORAY_E_ARG);
  CU_ASSERT_EQUAL(foray_dev_upload(t.d, TINY_HEAP - 4, big, 8, NULL), FORAY_E_ARG);
#undef BAD
  tiny_close(&t);
}

TEST(heap_blocks_are_aligned_and_reused) {
  struct foray_dev *d;
  uint64_t a[3], b;
  CU_ASSERT_EQUAL_FATAL(foray_dev_open("ref", &(struct foray_dev_opts){.heap_bytes = 4096}, &d, NULL),
                        FORAY_OK);
  for (int i = 0; i < 3; i++) {
    CU_ASSERT_EQUAL(foray_dev_alloc(d, 1000, &a[i], NULL), FORAY_OK);
    CU_ASSERT(a[i] != 0 && a[i] % 64 == 0);
  }
  CU_ASSERT_EQUAL(foray_dev_alloc(d, 1024, &b, NULL), FORAY_E_LIMIT);
  CU_ASSERT_EQUAL(foray_dev_alloc(d, UINT64_MAX - 3, &b, NULL), FORAY_E_LIMIT);
  foray_dev_free(d, a[1]);
  CU_ASSERT_EQUAL(foray_dev_alloc(d, 1024, &b, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(b, a[1]);
  foray_dev_close(d);
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(foray_dev_open("nothing", NULL, &d, &err), FORAY_E_NOTFOUND);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "ref"));
  CU_ASSERT_EQUAL(foray_dev_open("ref:fast", NULL, &d, &err), FORAY_E_UNSUPPORTED);
}
