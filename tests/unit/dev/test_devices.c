/* Every device that this machine has gives the same bits as `ref`: ring, context, KV memory, dumped logits.
 */
#include "unit/harness.h"
#include "unit/tiny_program.h"

#include <stdio.h>

static const uint32_t prompt[] = {3, 50, 7, 99, 21, 0, 64, 8, 77, 31, 12, 5, 88, 43, 9, 61, 2, 18, 33};
enum { P = sizeof prompt / sizeof *prompt };

static void fill(struct tiny *t) {
  t->run.tests = 3;
  t->run.exit_rule[0] = -52428, t->run.exit_rule[1] = 65536;
  t->run.exit_rule[8] = -26214, t->run.exit_rule[9] = 65536;
}

/* Words 1..15 of a column's header mean nothing; a device that was used before may have anything there. */
static void blank_headers(const struct tiny *t, uint8_t *heap) {
  for (uint32_t slot = 0; slot < 64; slot++)
    memset(heap + t->resid + slot * foray_dev_y32_bytes(TINY_WIDTH) + 4, 0, 60);
  const uint64_t each = foray_dev_a16_bytes(TINY_WIDTH), shifts = TINY_WIDTH / FORAY_ABI_GROUP;
  for (uint32_t slot = 0; slot < 9; slot++) {
    memset(heap + t->keep + slot * each + 4, 0, 60);
    memset(heap + t->keep + (slot + 1) * each - 64 + shifts, 0, 64 - shifts);
  }
}

/* Whole heaps: ref and the other were given the same bytes, so they must end with the same bytes. */
static void same_heap(struct tiny *a, struct tiny *b, const char *spec, const char *what) {
  static uint8_t x[TINY_HEAP], y[TINY_HEAP];
  CU_ASSERT_EQUAL(foray_dev_download(a->d, 0, x, TINY_HEAP, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_download(b->d, 0, y, TINY_HEAP, NULL), FORAY_OK);
  blank_headers(a, x);
  blank_headers(b, y);
  bool same = !memcmp(x, y, TINY_HEAP);
  CU_ASSERT(same);
  if (!same)
    for (size_t i = 0; i < TINY_HEAP; i++)
      if (x[i] != y[i]) {
        printf("%s, %s: first difference at heap byte %zu\n", spec, what, i);
        break;
      }
}

static void compare(const char *spec, uint64_t seed, uint32_t cols) {
  static struct tiny a, b;
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", seed, cols));
  if (!tiny_open(&b, spec, seed, cols)) {
    CU_ASSERT_EQUAL(b.err.code, FORAY_E_UNSUPPORTED); /* this machine lacks it */
    tiny_close(&a);
    return;
  }
  fill(&a), fill(&b);
  struct tiny *both[2] = {&a, &b};
  for (int k = 0; k < 2; k++) CU_ASSERT_EQUAL(tiny_run(both[k], prompt, P, 0, 20), FORAY_OK);
  same_heap(&a, &b, spec, "drafting");
  for (int k = 0; k < 2; k++) {
    both[k]->run.flags = FORAY_RUN_SAMPLE | FORAY_RUN_FLUSH, both[k]->run.inv_temp = 81920,
    both[k]->run.seed = seed;
    CU_ASSERT_EQUAL(tiny_run(both[k], prompt + 4, 9, 11, 17), FORAY_OK);
  }
  same_heap(&a, &b, spec, "rollback and sampling");
  for (int k = 0; k < 2; k++) {
    both[k]->run.flags = FORAY_RUN_SCORE, both[k]->run.inv_temp = 0;
    CU_ASSERT_EQUAL(tiny_run(both[k], prompt, P, 3, 0), FORAY_OK);
  }
  same_heap(&a, &b, spec, "scoring");
  for (int k = 0; k < 2; k++) { /* a long context: many blocks of attention */
    static uint32_t longer[TINY_MAX_POS];
    for (uint32_t i = 0; i < TINY_MAX_POS; i++) longer[i] = (i * i + (uint32_t)seed) % TINY_VOCAB;
    both[k]->run.flags = 0;
    CU_ASSERT_EQUAL(tiny_run(both[k], longer, TINY_MAX_POS - 3, 0, 9), FORAY_OK);
  }
  same_heap(&a, &b, spec, "long context");
  for (int k = 0; k < 2; k++) {
    both[k]->run.step_limit = 77;
    CU_ASSERT_EQUAL(tiny_run(both[k], prompt, P, 0, 20), FORAY_E_DEVICE);
  }
  same_heap(&a, &b, spec, "step limit");
  if (b.err.code && b.err.code != FORAY_E_DEVICE) printf("%s: %s\n", spec, b.err.msg);
  tiny_close(&a);
  tiny_close(&b);
}

TEST(devices_equal_the_reference_on_programs) {
  const char *const specs[] = {"ref",        "cpu",     "cpu:scalar", "cpu:avx2",
                               "cpu:avx512", "cpu:amx", "hls",        "opencl"};
  const uint32_t cols[] = {1, 4, 8};
  for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
    for (int k = 0; k < 3; k++) compare(specs[s], 11 + (uint64_t)k, cols[k]);
}

/* FORAY_TEST_DEVICES: further ones, separated by spaces, which must be there. */
TEST(named_devices_equal_the_reference) {
  const char *s = getenv("FORAY_TEST_DEVICES");
  while (s && *s) {
    char spec[256];
    size_t n = strcspn(s, " ");
    snprintf(spec, sizeof spec, "%.*s", (int)n, s);
    s += n + (s[n] == ' ');
    struct foray_dev *d;
    struct foray_err err = {0};
    const enum foray_status st = foray_dev_open(spec, NULL, &d, &err);
    if (st != FORAY_OK) printf("%s: %s\n", spec, err.msg);
    CU_ASSERT_EQUAL(st, FORAY_OK);
    if (st != FORAY_OK) continue;
    const uint32_t cols = foray_dev_info(d)->cols_max;
    foray_dev_close(d);
    for (uint32_t c = 1; c <= cols; c += 1 + c / 2) compare(spec, 40 + c, c);
  }
}

static void seen(void *arg, const struct foray_dev_info *info, const char *why) {
  (void)why;
  int *mask = arg;
  if (!strcmp(info->name, "ref")) *mask |= 1;
  if (!strncmp(info->name, "cpu", 3)) *mask |= 2;
  CU_ASSERT_EQUAL(info->abi_hash, FORAY_ABI_HASH);
}

TEST(the_list_names_the_built_in_devices) {
  int mask = 0;
  foray_dev_list(seen, &mask);
  CU_ASSERT_EQUAL(mask, 3);
}
