/* Whole draft programs on `ref` and another device side by side: random prompts, exits, checks, stop rules,
 * sampling, rollbacks, scoring, broken descriptors. Results, rings, the last byte of the heap and all
 * counters but the clock must be alike, on `cpu` with each instruction set and on `hls`. */
#include "unit/harness.h"
#include "unit/sessions.h"

#include "core/cpu.h"

#include <stdio.h>

static bool on_each_isa(char *spec, size_t cap, int isa) {
  enum foray_isa parsed;
  snprintf(spec, cap, "cpu:%s", foray_isa_name((enum foray_isa)isa));
  return foray_isa_parse(spec + 4, &parsed, NULL) == FORAY_OK;
}

/* One past the last instruction set: the devices that are not `cpu`. */
enum { OTHERS = FORAY_ISA_AMX + 2 };
static bool on_each_device(char *spec, size_t cap, int i) {
  if (i <= FORAY_ISA_AMX) return on_each_isa(spec, cap, i);
  snprintf(spec, cap, "hls");
  return true;
}

TEST(random_sessions_equal_ref) {
  char spec[32];
  for (int i = FORAY_ISA_SCALAR; i < OTHERS; i++) {
    if (!on_each_device(spec, sizeof spec, i)) continue;
    uint64_t drafted = 0;
    int bad = 0;
    for (uint64_t seed = 0; seed < 16; seed++) {
      const char *what = session(spec, seed, 12, FORAY_ABI_COLS_MAX, &drafted);
      if (what) printf("%s, seed %llu: %s differs\n", spec, (unsigned long long)seed, what), bad++;
    }
    CU_ASSERT_EQUAL(bad, 0);
    CU_ASSERT(drafted > 200); /* else the sessions show little */
  }
}

<<<<<<< HEAD:tests/unit/dev/test_device_programs.c
static void broken_descriptors(const char *spec) {
  static struct tiny a, b;
  static const uint32_t prompt[] = {3, 50, 7, 99, 21, 0, 64, 8, 77, 31, 12};
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", 5, 8) && tiny_open(&b, spec, 5, 8));
  int errors = 0, bad = 0;
  for (uint64_t seed = 1; seed <= 300; seed++) {
    rng_state = seed * 0x9E3779B97F4A7C15u;
    for (int i = 0; i < 8; i++) (void)below(2);
    const uint32_t desc = below(a.n), word = below(8), old = a.w[desc][word];
    const uint32_t broken = old ^ (below(2) ? 1u << below(32) : below(1u << 16));
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
=======
TEST(broken_descriptors_end_alike) {
  char spec[32];
  int errors;
  CU_ASSERT_TRUE_FATAL(on_each_isa(spec, sizeof spec, foray_cpu_isa()));
  CU_ASSERT_EQUAL(broken_descriptors(spec, 8, 300, &errors), 0);
>>>>>>> 1d6be53 (Device sim: Verilated spine against memory models; whole programs equal to ref with stand-ins for the units):tests/unit/dev/test_cpu_programs.c
  CU_ASSERT(errors > 50 && errors < 300); /* both kinds occurred */
}

TEST(broken_descriptors_end_alike) {
  char spec[32];
  CU_ASSERT_TRUE_FATAL(on_each_isa(spec, sizeof spec, foray_cpu_isa()));
  broken_descriptors(spec);
  broken_descriptors("hls");
}

/* The run block and the context too: every word broken in turn. */
TEST(broken_run_blocks_end_alike) {
  static struct tiny a, b;
  static const uint32_t prompt[] = {3, 50, 7, 99, 21};
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", 7, 4) && tiny_open(&b, "hls", 7, 4));
  rng_state = 77;
  int bad = 0;
  uint32_t codes = 0;
  for (uint32_t word = 0; word < FORAY_ABI_RUN_WORDS + FORAY_ABI_STATE_WORDS; word++)
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
  CU_ASSERT(codes & 1u << FORAY_DEVERR_RUN && codes & 1u << FORAY_DEVERR_ADDRESS &&
            codes & 1u << FORAY_DEVERR_STATE && codes & 1u << FORAY_DEVERR_RING && codes & 1u);
  tiny_close(&a);
  tiny_close(&b);
}

TEST(device_names) {
  struct foray_dev *d;
  struct foray_err err;
  char spec[32];
  for (int isa = FORAY_ISA_SCALAR; isa <= FORAY_ISA_AMX; isa++) {
    if (!on_each_isa(spec, sizeof spec, isa)) continue;
    CU_ASSERT_EQUAL_FATAL(foray_dev_open(spec, NULL, &d, &err), FORAY_OK);
    CU_ASSERT_STRING_EQUAL(foray_dev_info(d)->name, spec);
    CU_ASSERT(foray_dev_info(d)->heap_bytes >= 1 << 20);
    foray_dev_close(d);
  }
  CU_ASSERT_EQUAL(foray_dev_open("cpu:sse9", NULL, &d, &err), FORAY_E_UNSUPPORTED);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "avx2"));
}
