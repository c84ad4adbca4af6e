/* unit/sessions.h - the same random doorbells and the same broken records on two devices, and where they
 * differ: for tests that hold a device against ref. */
#ifndef FORAY_UNIT_SESSIONS_H
#define FORAY_UNIT_SESSIONS_H

#include "unit/harness.h"
#include "unit/tiny_program.h"

#include <stdio.h>

static uint64_t rng_state;
static inline uint32_t below(uint32_t n) {
  rng_state ^= rng_state << 13;
  rng_state ^= rng_state >> 7;
  rng_state ^= rng_state << 17;
  return (uint32_t)(rng_state >> 32) % n;
}
static inline int32_t between(int32_t lo, int32_t hi) { return lo + (int32_t)below((uint32_t)(hi - lo + 1)); }

static inline void random_run(struct foray_rec_run *r, struct foray_rec_run *like) {
  r->flags = (below(2) ? FORAY_RUN_SAMPLE : 0) | (below(4) ? 0 : FORAY_RUN_FLUSH) |
             (below(4) ? 0 : FORAY_RUN_STOP_BEFORE);
  r->inv_temp = r->flags & FORAY_RUN_SAMPLE ? 1u << between(14, 18) : 0;
  r->seed = (uint64_t)below(1u << 30) << 32 | below(1u << 30);
  r->tests = below(4);
  r->ring_head = below(100);
  r->cum_min = below(3) ? 0 : -between(1, 20 << 16);
  r->check = below(2) ? 0 : (uint32_t)between(1, 7);
  r->step_limit = below(12) ? 0 : 1 + below(400);
  r->stop_n = below(3) ? 0 : 1 + below(FORAY_ABI_STOP_IDS);
  for (uint32_t i = 0; i < FORAY_ABI_STOP_IDS; i++) r->stop_ids[i] = below(TINY_VOCAB);
  for (int i = 0; i < 8; i++) r->stop_rule[i] = 0;
  if (below(4) == 0) r->stop_rule[0] = -between(0, 1 << 14), r->stop_rule[1] = 65536;
  for (int e = 0; e < 2; e++) {
    for (int i = 0; i < FORAY_ABI_FEATURES; i++)
      r->exit_rule[8 * e + i] = below(3) ? 0 : between(-65536, 65536);
    if (below(2)) r->exit_rule[8 * e] = -between(0, 1 << 16), r->exit_rule[8 * e + 1] = 1 << 16;
  }
  *like = *r;
}

static inline uint32_t length_of(struct tiny *t) {
  uint32_t w[FORAY_ABI_STATE_WORDS];
  struct foray_rec_state st;
  if (foray_dev_download(t->d, t->state, w, sizeof w, NULL) != FORAY_OK) return 0;
  foray_rec_state_unpack(w, &st);
  return st.len;
}

/* Where the two devices differ, or NULL. */
static inline const char *difference(struct tiny *a, struct tiny *b, enum foray_status sa,
                                     enum foray_status sb) {
  static uint8_t x[TINY_HEAP], y[TINY_HEAP];
  static struct foray_rec_ring ra[TINY_RING], rb[TINY_RING];
  uint64_t ca[FORAY_COUNTER_COUNT], cb[FORAY_COUNTER_COUNT];
  if (sa != sb) return "status";
  if (memcmp(&a->res, &b->res, sizeof a->res)) return "result";
  if (a->res.error == 0 && a->res.drafted) {
    if (!tiny_ring(a, ra) || !tiny_ring(b, rb)) return "ring cannot be read";
    if (memcmp(ra, rb, a->res.drafted * sizeof *ra)) return "ring";
  }
  if (foray_dev_download(a->d, 64, x, sizeof x - 64, NULL) != FORAY_OK ||
      foray_dev_download(b->d, 64, y, sizeof y - 64, NULL) != FORAY_OK)
    return "heap cannot be read";
  /* of saved columns only exponent and mantissas mean something */
  const uint64_t column = foray_dev_y32_bytes(TINY_WIDTH);
  for (int k = 0; k < 64; k++) {
    memset(x + a->resid - 64 + column * (uint64_t)k + 4, 0, 60);
    memset(y + b->resid - 64 + column * (uint64_t)k + 4, 0, 60);
  }
  if (memcmp(x, y, sizeof x - 64)) return "heap";
  foray_dev_counters(a->d, ca);
  foray_dev_counters(b->d, cb);
  /* time, and what only hardware counts */
  for (int i = FORAY_COUNTER_CYC_SEQ; i < FORAY_COUNTER_COUNT; i++) ca[i] = cb[i] = 0;
  ca[FORAY_COUNTER_BUSY] = cb[FORAY_COUNTER_BUSY] = 0;
  return memcmp(ca, cb, sizeof ca) ? "counters" : NULL;
}

/* One program, `runs` doorbells with rollbacks between them. */
static inline const char *session(const char *spec, uint64_t seed, int runs, uint32_t cols_max,
                                  uint64_t *drafted) {
  static struct tiny a, b;
  rng_state = seed * 0x9E3779B97F4A7C15u + 1;
  for (int i = 0; i < 8; i++) (void)below(2);
  const uint32_t cols = 1 + below(cols_max);
  const bool opened = tiny_open(&a, "ref", seed, cols) && tiny_open(&b, spec, seed, cols);
  CU_ASSERT_TRUE_FATAL(opened);
  const char *bad = NULL;
  for (int i = 0; i < runs && !bad; i++) {
    uint32_t tokens[48];
    random_run(&a.run, &b.run);
    const uint32_t len = length_of(&a), start = below(3) ? len : below(len + 1);
    const uint32_t n = below(8) == 0 || start + 48 > TINY_MAX_POS ? 1 : 1 + below(40);
    for (uint32_t k = 0; k < n; k++) tokens[k] = below(200) ? below(TINY_VOCAB) : TINY_VOCAB;
    const bool score = below(6) == 0;
    if (score) a.run.flags = b.run.flags = FORAY_RUN_SCORE, a.run.inv_temp = b.run.inv_temp = 0;
    const uint32_t drafts = score ? 0 : below(TINY_RING + 1),
                   from = start < TINY_MAX_POS ? start : below(TINY_MAX_POS);
    const enum foray_status sa = tiny_run(&a, tokens, n, from, drafts),
                            sb = tiny_run(&b, tokens, n, from, drafts);
    bad = difference(&a, &b, sa, sb);
    if (bad) printf("%s: %s; ref: %s\n", bad, sb ? b.err.msg : "", sa ? a.err.msg : "");
    *drafted += a.res.drafted;
    if (below(10) == 0) { /* a new context */
      CU_ASSERT_TRUE(tiny_reset(&a, 64) && tiny_reset(&b, 64));
    }
  }
  tiny_close(&a);
  tiny_close(&b);
  return bad;
}

/* Descriptors with a broken word. */
static inline void broken_descriptors(const char *spec, uint32_t cols, uint64_t seeds) {
  static struct tiny a, b;
  static const uint32_t prompt[] = {3, 50, 7, 99, 21, 0, 64, 8, 77, 31, 12};
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", 5, cols) && tiny_open(&b, spec, 5, cols));
  int errors = 0, bad = 0;
  for (uint64_t seed = 1; seed <= seeds; seed++) {
    rng_state = seed * 0x9E3779B97F4A7C15u;
    for (int i = 0; i < 8; i++) (void)below(2);
    const uint32_t desc = below(a.n), word = below(8), old = a.w[desc][word];
    const uint32_t broken = old ^ (below(2) ? 1u << below(32) : below(1u << 14));
    /* scratch addresses that only the larger scratchpad has */
    if (word < 4 && ((old ^ broken) & 0x1c000)) continue;
    for (int i = 0; i < 2; i++) {
      struct tiny *t = i ? &b : &a;
      CU_ASSERT_EQUAL(
          foray_dev_upload(t->d, t->prog + 64 * (uint64_t)desc + 4 * (uint64_t)word, &broken, 4, NULL),
          FORAY_OK);
      CU_ASSERT_TRUE(tiny_reset(t, 64));
    }
    const enum foray_status sa = tiny_run(&a, prompt, 11, 0, 4), sb = tiny_run(&b, prompt, 11, 0, 4);
    const char *what = difference(&a, &b, sa, sb);
    if (what)
      printf("seed %llu, descriptor %u word %u: %s differs\n", (unsigned long long)seed, desc, word, what),
          bad++;
    errors += a.res.error != 0;
    for (int i = 0; i < 2; i++) {
      struct tiny *t = i ? &b : &a;
      CU_ASSERT_EQUAL(
          foray_dev_upload(t->d, t->prog + 64 * (uint64_t)desc + 4 * (uint64_t)word, &old, 4, NULL),
          FORAY_OK);
    }
  }
  CU_ASSERT_EQUAL(bad, 0);
  CU_ASSERT(errors > (int)seeds / 6 && errors < (int)seeds); /* both kinds occurred */
  tiny_close(&a);
  tiny_close(&b);
}

/* Run blocks and contexts with a broken word. */
static inline void broken_run_blocks(const char *spec, uint32_t cols, uint32_t step) {
  static struct tiny a, b;
  static const uint32_t prompt[] = {3, 50, 7, 99, 21};
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", 7, cols) && tiny_open(&b, spec, 7, cols));
  rng_state = 77;
  int bad = 0;
  uint32_t codes = 0;
  for (uint32_t word = 0; word < FORAY_ABI_RUN_WORDS + FORAY_ABI_STATE_WORDS; word += step)
    for (int way = 0; way < 3; way++) {
      const uint32_t flip = way == 0 ? 1u << below(32) : way == 1 ? below(1u << 9) : below(1u << 31);
      enum foray_status st[2];
      for (int i = 0; i < 2; i++) {
        struct tiny *t = i ? &b : &a;
        CU_ASSERT_TRUE(tiny_reset(t, 64));
        CU_ASSERT_EQUAL(tiny_run(t, prompt, 5, 0, 3), FORAY_OK);
        uint32_t run[FORAY_ABI_RUN_WORDS], state[FORAY_ABI_STATE_WORDS];
        t->run.feed_n = 2, t->run.start = 4, t->run.max_drafts = 2;
        t->run.flags = word % 2 ? 0 : FORAY_RUN_SCORE;
        if (t->run.flags) t->run.max_drafts = 0;
        foray_rec_run_pack(&t->run, run);
        CU_ASSERT_EQUAL(foray_dev_download(t->d, t->state, state, sizeof state, NULL), FORAY_OK);
        if (word < FORAY_ABI_RUN_WORDS)
          run[word] ^= flip;
        else
          state[word - FORAY_ABI_RUN_WORDS] ^= flip;
        CU_ASSERT_EQUAL(foray_dev_upload(t->d, t->state, state, sizeof state, NULL), FORAY_OK);
        CU_ASSERT_EQUAL(foray_dev_upload(t->d, t->run_addr, run, sizeof run, NULL), FORAY_OK);
        st[i] = foray_dev_run(t->d, t->run_addr, 0, &t->res, &t->err);
        t->run.flags = 0;
      }
      codes |= 1u << a.res.error;
      const char *what = difference(&a, &b, st[0], st[1]);
      if (what)
        printf("word %u ^ %x: %s differs (errors %u, %u)\n", word, flip, what, a.res.error, b.res.error),
            bad++;
    }
  CU_ASSERT_EQUAL(bad, 0);
  CU_ASSERT(step > 1 || (codes & 1u << FORAY_DEVERR_RUN && codes & 1u << FORAY_DEVERR_ADDRESS &&
                         codes & 1u << FORAY_DEVERR_STATE && codes & 1u << FORAY_DEVERR_RING && codes & 1u));
  tiny_close(&a);
  tiny_close(&b);
}

#endif
