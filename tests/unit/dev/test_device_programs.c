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

TEST(broken_descriptors_end_alike) {
  char spec[32];
  CU_ASSERT_TRUE_FATAL(on_each_isa(spec, sizeof spec, (int)foray_cpu_isa()));
  broken_descriptors(spec, 8, 300);
  broken_descriptors("hls", 8, 300);
}

/* The run block and the context too: every word broken in turn. */
TEST(broken_run_blocks_end_alike) { broken_run_blocks("hls", 4, 1); }

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
