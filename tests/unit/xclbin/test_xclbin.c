/* The xclbin writer and reader: what is written comes back, bad descriptions are refused by name, broken
 * files never lead outside the file. That XRT takes the files is shown by tests/e2e/test_xrt.sh. */
#include "unit/harness.h"

#include "xclbin/xclbin.h"

#include <stdlib.h>
#include <string.h>

static const char good[] =
    "{\"name\":\"k\",\"platform\":\"p\",\"memory\":[{\"tag\":\"b0\",\"base\":\"0x0\",\"kib\":1024},"
    "{\"tag\":\"b1\",\"type\":\"HBM\",\"base\":\"0x100000\",\"kib\":64}],"
    "\"kernels\":[{\"name\":\"add\",\"control\":\"chain\",\"instances\":[{\"name\":\"u2\",\"base\":"
    "\"0x20000\",\"banks\":[1,0]},"
    "{\"name\":\"u1\",\"base\":\"0x10000\"}],\"args\":[{\"name\":\"a\",\"type\":\"int*\",\"offset\":\"0x10\"}"
    ","
    "{\"name\":\"n\",\"type\":\"int\",\"offset\":\"0x1c\"},{\"name\":\"c\",\"type\":\"int*\",\"offset\":"
    "\"0x24\"}]}]}";

static const struct foray_xclbin_section *find(const struct foray_xclbin *x, const char *kind) {
  for (uint32_t i = 0; i < x->n_sections; i++)
    if (!strcmp(foray_xclbin_kind(x->section[i].kind), kind)) return &x->section[i];
  return NULL;
}

TEST(what_is_written_comes_back) {
  uint8_t *p, *q;
  size_t n, m;
  struct foray_err err = {0};
  struct foray_xclbin x, y;
  CU_ASSERT_EQUAL_FATAL(foray_xclbin_build(good, "bits", 4, FORAY_XCLBIN_HW_EMU, &p, &n, &err), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_xclbin_parse(p, n, &x, &err), FORAY_OK);
  CU_ASSERT_STRING_EQUAL(x.platform, "p");
  CU_ASSERT_EQUAL(x.mode, FORAY_XCLBIN_HW_EMU);
  const struct foray_xclbin_section *bits = find(&x, "BITSTREAM"), *ip = find(&x, "IP_LAYOUT"),
                                    *c = find(&x, "CONNECTIVITY");
  CU_ASSERT_FATAL(bits && ip && c);
  CU_ASSERT(bits->bytes == 4 && !memcmp(p + bits->at, "bits", 4));
  CU_ASSERT_STRING_EQUAL((const char *)p + ip->at + 8 + 16, "add:u1"); /* units by address */
  CU_ASSERT_STRING_EQUAL((const char *)p + ip->at + 8 + 80 + 16, "add:u2");
  CU_ASSERT_EQUAL(p[ip->at + 8 + 5], 1); /* chain */
  /* argument 2 of unit 1 (u2) goes to bank 0, its argument 0 to bank 1 */
  const int32_t want[4][3] = {{0, 0, 0}, {2, 0, 0}, {0, 1, 1}, {2, 1, 0}};
  CU_ASSERT_EQUAL(c->bytes, 4 + sizeof want);
  CU_ASSERT(!memcmp(p + c->at + 4, want, sizeof want));
  CU_ASSERT_EQUAL_FATAL(foray_xclbin_build(good, "other", 5, FORAY_XCLBIN_HW_EMU, &q, &m, &err), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_xclbin_parse(q, m, &y, &err), FORAY_OK);
  CU_ASSERT(memcmp(x.uuid, y.uuid, 16) != 0);
  free(p);
  free(q);
}

TEST(bad_descriptions_are_refused_by_name) {
  static const struct {
    const char *from, *to, *says;
  } bad[] = {{"{\"name\":\"k\"", "{\"name\":", "line 1"},
             {"\"kib\":1024", "\"kib\":0", "memory 0"},
             {"\"HBM\"", "\"XYZ\"", "XYZ"},
             {"\"tag\":\"b0\"", "\"tag\":\"a name of over 16 letters\"", "memory 0"},
             {"[1,0]", "[7,0]", "no bank 7"},
             {"\"chain\"", "\"soft\"", "control"},
             {"\"0x10\"", "\"0x0c\"", "argument 0"},
             {"\"0x10\"", "\"ten\"", "argument 0"},
             {"\"0x20000\"", "\"0x10000\"", "one base"},
             {"\"name\":\"add\"", "\"name\":\"a<b\"", "kernel 0"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[2048];
    const char *at = strstr(good, bad[i].from);
    CU_ASSERT_PTR_NOT_NULL_FATAL(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, bad[i].to, at + strlen(bad[i].from));
    struct foray_err err = {0};
    uint8_t *p;
    size_t n;
    CU_ASSERT_EQUAL(foray_xclbin_build(text, "x", 1, FORAY_XCLBIN_FLAT, &p, &n, &err), FORAY_E_FORMAT);
    CU_ASSERT_PTR_NULL(p);
    if (!strstr(err.msg, bad[i].says)) printf("%zu: %s\n", i, err.msg);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, bad[i].says));
  }
}

TEST(broken_files_are_refused_or_shown_without_harm) {
  uint8_t *p;
  size_t n;
  struct foray_xclbin x;
  CU_ASSERT_EQUAL_FATAL(foray_xclbin_build(good, "bits", 4, FORAY_XCLBIN_FLAT, &p, &n, NULL), FORAY_OK);
  FILE *sink = fopen("/dev/null", "w");
  CU_ASSERT_PTR_NOT_NULL_FATAL(sink);
  for (size_t cut = 0; cut < n; cut += cut < 800 ? 1 : 37) {
    uint8_t *q = malloc(cut ? cut : 1); /* of just that size: a sanitizer sees its end */
    CU_ASSERT_PTR_NOT_NULL_FATAL(q);
    memcpy(q, p, cut);
    CU_ASSERT_EQUAL(foray_xclbin_parse(q, cut, &x, NULL), FORAY_E_FORMAT);
    free(q);
  }
  uint8_t *q = malloc(n);
  CU_ASSERT_PTR_NOT_NULL_FATAL(q);
  unsigned refused = 0;
  for (size_t at = 304; at < n; at++)
    for (int bit = 0; bit < 8; bit += 7) {
      memcpy(q, p, n);
      q[at] ^= (uint8_t)(1u << bit);
      if (foray_xclbin_parse(q, n, &x, NULL) == FORAY_OK)
        foray_xclbin_show(q, &x, sink);
      else
        refused++;
    }
  CU_ASSERT(refused > 50);
  fclose(sink);
  free(p);
  free(q);
}
