#include "unit/harness.h"

#include "core/buf.h"
#include "core/checked.h"
#include "core/cpu.h"
#include "core/err.h"
#include "core/hash.h"
#include "core/philox.h"
#include "core/pool.h"

#include <stdlib.h>
#include <string.h>

TEST(err_prefix_keeps_code_and_cuts_long_text) {
  struct foray_err e = {0};
  CU_ASSERT_EQUAL(foray_err_set(&e, FORAY_E_FORMAT, "offset %d: bad magic", 4), FORAY_E_FORMAT);
  CU_ASSERT_EQUAL(foray_err_prefix(&e, "%s", "a.gguf"), FORAY_E_FORMAT);
  CU_ASSERT_STRING_EQUAL(e.msg, "a.gguf: offset 4: bad magic");
  char longtext[2 * FORAY_ERR_MSG_MAX];
  memset(longtext, 'x', sizeof longtext - 1);
  longtext[sizeof longtext - 1] = 0;
  foray_err_prefix(&e, "%s", longtext);
  CU_ASSERT_EQUAL(strlen(e.msg), FORAY_ERR_MSG_MAX - 1);
}

TEST(checked_arithmetic_refuses_overflow) {
  size_t r = 7;
  CU_ASSERT_FALSE(foray_mul_size((size_t)1 << 33, (size_t)1 << 31, &r));
  CU_ASSERT_FALSE(foray_add_size(SIZE_MAX, 1, &r));
  CU_ASSERT_EQUAL(r, 7);
  uint64_t a = 0;
  CU_ASSERT_TRUE(foray_align_up_u64(33, 32, &a));
  CU_ASSERT_EQUAL(a, 64);
  CU_ASSERT_FALSE(foray_align_up_u64(UINT64_MAX - 3, 32, &a));
  CU_ASSERT_FALSE(foray_align_up_u64(1, 24, &a));
}

TEST(buf_stops_at_its_maximum_and_stays_whole) {
  struct foray_buf b;
  foray_buf_init(&b, 10);
  CU_ASSERT_EQUAL(foray_buf_add(&b, "12345678", 8), FORAY_OK);
  CU_ASSERT_EQUAL(foray_buf_add(&b, "abc", 3), FORAY_E_LIMIT);
  CU_ASSERT_STRING_EQUAL((char *)b.data, "12345678");
  foray_buf_consume(&b, 6);
  CU_ASSERT_EQUAL(foray_buf_addf(&b, "%d", 9012), FORAY_OK);
  CU_ASSERT_STRING_EQUAL((char *)b.data, "789012");
  foray_buf_deinit(&b);
}

/* Known-answer vectors of the Random123 distribution (kat_vectors, philox4x32 10). */
TEST(philox_known_answers) {
  struct foray_philox z = foray_philox4x32(0, 0, 0, 0, 0);
  const uint32_t zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  CU_ASSERT_EQUAL(memcmp(z.v, zero, sizeof zero), 0);
  const uint32_t f = 0xffffffff;
  struct foray_philox o = foray_philox4x32(0xffffffffffffffffu, f, f, f, f);
  const uint32_t ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  CU_ASSERT_EQUAL(memcmp(o.v, ones, sizeof ones), 0);
  struct foray_philox p =
      foray_philox4x32(0x299f31d0a4093822u, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344);
  const uint32_t pi[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  CU_ASSERT_EQUAL(memcmp(p.v, pi, sizeof pi), 0);
}

TEST(sha256_known_answer) {
  uint8_t d[FORAY_SHA256_BYTES];
  char hex[FORAY_SHA256_HEX];
  foray_sha256_once("abc", 3, d);
  foray_sha256_hex(d, hex);
  CU_ASSERT_STRING_EQUAL(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  struct foray_sha256 *h = foray_sha256_open();
  CU_ASSERT_PTR_NOT_NULL_FATAL(h);
  foray_sha256_update(h, "a", 1);
  foray_sha256_update(h, "bc", 2);
  uint8_t d2[FORAY_SHA256_BYTES];
  foray_sha256_close(h, d2);
  CU_ASSERT_EQUAL(memcmp(d, d2, sizeof d), 0);
}

static void mark(void *arg, int part, int thread) {
  (void)thread;
  ((int *)arg)[part]++;
}

TEST(pool_runs_each_part_once_for_many_loops) {
  for (int threads = 1; threads <= 3; threads++) {
    struct foray_pool *p = NULL;
    CU_ASSERT_EQUAL_FATAL(foray_pool_open(threads, &p, NULL), FORAY_OK);
    int hits[97] = {0};
    for (int loop = 0; loop < 2000; loop++) foray_pool_run(p, mark, hits, loop % 97 + 1);
    long sum = 0, want = 0;
    for (int i = 0; i < 97; i++) sum += hits[i];
    for (int loop = 0; loop < 2000; loop++) want += loop % 97 + 1;
    CU_ASSERT_EQUAL(sum, want);
    CU_ASSERT_EQUAL(hits[0], 2000);
    foray_pool_close(p);
  }
}

TEST(isa_names_are_parsed_or_refused) {
  enum foray_isa isa = FORAY_ISA_AMX;
  struct foray_err e = {0};
  CU_ASSERT_EQUAL(foray_isa_parse("scalar", &isa, &e), FORAY_OK);
  CU_ASSERT_EQUAL(isa, FORAY_ISA_SCALAR);
  CU_ASSERT_EQUAL(foray_isa_parse("avx1024", &isa, &e), FORAY_E_ARG);
  CU_ASSERT_PTR_NOT_NULL(strstr(e.msg, "avx1024"));
}
