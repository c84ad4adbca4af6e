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

TEST(broken_records_end_alike) {
  char spec[64];
  uint32_t cols;
  if (!spec_of(spec, sizeof spec, "", &cols)) return;
  broken_descriptors(spec, cols, 60);
  broken_run_blocks(spec, cols, 7);
}
