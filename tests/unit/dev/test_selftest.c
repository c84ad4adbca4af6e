/* The self test passes the devices of this machine and finds devices that are a little wrong. */
#include "unit/harness.h"

#include "dev/device_impl.h"
#include "dev/ref.h"
#include "dev/selftest.h"

#include <stdio.h>
#include <string.h>

static char failed_parts[256];

static void on_part(void *arg, const char *part, const char *why) {
  if (!why) return;
  size_t at = strlen(failed_parts);
  snprintf(failed_parts + at, sizeof failed_parts - at, "%s ", part);
  if (arg) printf("%s: %s\n", part, why);
}

static enum foray_status test(const char *spec) {
  struct foray_err err = {0};
  *failed_parts = 0;
  return foray_dev_selftest(spec, &(struct foray_selftest_opts){.blocks = 10}, on_part,
                            strcmp(spec, "liar:none") ? NULL : failed_parts, &err);
}

TEST(devices_of_this_machine_pass) {
  CU_ASSERT_EQUAL(test("ref"), FORAY_OK);
  CU_ASSERT_EQUAL(test("cpu"), FORAY_OK);
  CU_ASSERT_STRING_EQUAL(failed_parts, "");
  CU_ASSERT_EQUAL(test("no such device"), FORAY_E_UNSUPPORTED);
  CU_ASSERT_STRING_EQUAL(failed_parts, "open ");
}

/* A device like ref but for one fault, which its detail names. */
static char fault[16];
static struct foray_kernels wrong;

static void add_wrong(void *arg, uint32_t n, struct foray_y32 acc, struct foray_y32 src) {
  foray_ref_add(arg, n, acc, src);
  if (!strcmp(fault, "add")) acc.m[n - 1] ^= 1;
}
static const char *describe(const char *detail, struct foray_dev_info *info) {
  snprintf(fault, sizeof fault, "%s", detail);
  *info = (struct foray_dev_info){
      .name = "liar", .abi_hash = FORAY_ABI_HASH, .scratch_units = 1 << 15, .cols_max = FORAY_ABI_COLS_MAX};
  return NULL;
}
static enum foray_status open_liar(const char *detail, const struct foray_dev_opts *o,
                                   struct foray_dev_info *info, void **self, struct foray_err *err) {
  (void)detail;
  struct foray_soft *s;
  wrong = foray_ref_kernels;
  wrong.add = add_wrong;
  enum foray_status st =
      foray_soft_open(&wrong, NULL, o->heap_bytes, info->scratch_units, info->cols_max, &s, err);
  if (st == FORAY_OK) info->heap_bytes = foray_soft_heap_bytes(s), *self = s;
  return st;
}
static void close_liar(void *self) { foray_soft_close(self); }
static enum foray_status upload(void *self, uint64_t at, const void *src, uint64_t n, struct foray_err *err) {
  enum foray_status st = foray_soft_upload(self, at, src, n, err);
  if (!strcmp(fault, "memory") && n == 65) foray_soft_heap(self)[at + 64] ^= 0x80;
  return st;
}
static enum foray_status run(void *self, uint32_t unit, uint32_t ms, struct foray_dev_result *res,
                             struct foray_err *err) {
  enum foray_status st = foray_soft_run(self, unit, ms, res, err);
  if (!strcmp(fault, "errors") && res->error == FORAY_DEVERR_RUN) res->error = FORAY_DEVERR_ADDRESS;
  return st;
}
static void counters(void *self, uint64_t out[FORAY_COUNTER_COUNT]) {
  foray_soft_counters(self, out);
  if (!strcmp(fault, "counters")) out[FORAY_COUNTER_KV_READ_BYTES]++;
}

static const struct foray_dev_class liar = {.name = "liar",
                                            .describe = describe,
                                            .open = open_liar,
                                            .close = close_liar,
                                            .upload = upload,
                                            .download = foray_soft_download,
                                            .run = run,
                                            .counters = counters};

TEST(each_fault_fails_its_part) {
  CU_ASSERT_EQUAL_FATAL(foray_dev_register(&liar, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(test("liar:none"), FORAY_OK);
  const char *const parts[][2] = {
      {"add", "programs "}, {"memory", "memory "}, {"errors", "errors "}, {"counters", "counters "}};
  for (size_t i = 0; i < 4; i++) {
    char spec[32];
    snprintf(spec, sizeof spec, "liar:%s", parts[i][0]);
    CU_ASSERT_EQUAL(test(spec), FORAY_E_MISMATCH);
    if (!strstr(failed_parts, parts[i][1])) printf("%s: failed parts are '%s'\n", spec, failed_parts);
    CU_ASSERT_PTR_NOT_NULL(strstr(failed_parts, parts[i][1]));
  }
}
