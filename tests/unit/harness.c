#include "unit/harness.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TESTS_MAX = 512 };
static struct {
  const char *name;
  void (*fn)(void);
} tests[TESTS_MAX];
static int n_tests;
static int skipped_now;

void foray_test_add(const char *name, void (*fn)(void)) {
  if (n_tests == TESTS_MAX) {
    fprintf(stderr, "harness: more than %d tests in one program\n", TESTS_MAX);
    exit(2);
  }
  tests[n_tests].name = name;
  tests[n_tests++].fn = fn;
}

const char *foray_test_path(const char *relative) {
  static char path[4096];
  const char *top = getenv("FORAY_TOP");
  snprintf(path, sizeof path, "%s/%s", top ? top : ".", relative);
  return path;
}

const char *foray_test_model(const char *name) {
  static char path[4096];
  const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (xdg && *xdg)
    snprintf(path, sizeof path, "%s/foray/models/%s.gguf", xdg, name);
  else
    snprintf(path, sizeof path, "%s/.cache/foray/models/%s.gguf", home ? home : "", name);
  return access(path, R_OK) == 0 ? path : NULL;
}

void foray_test_skip(const char *why) {
  printf("  SKIPPED: %s\n", why);
  skipped_now = 1;
}

static void print_failures(void) {
  for (CU_pFailureRecord f = CU_get_failure_list(); f; f = f->pNext)
    printf("  %s:%u: %s\n", f->strFileName, f->uiLineNumber, f->strCondition);
}

int main(int argc, char **argv) {
  regex_t re;
  int have_re = 0, passed = 0, failed = 0, skipped = 0;
  if (argc > 1) {
    if (regcomp(&re, argv[1], REG_EXTENDED | REG_NOSUB)) {
      fprintf(stderr, "%s: '%s' is not a regular expression\n", argv[0], argv[1]);
      return 2;
    }
    have_re = 1;
  }
  if (CU_initialize_registry() != CUE_SUCCESS) return 2;
  CU_set_error_action(CUEA_IGNORE);
  CU_pSuite suite = CU_add_suite("tests", NULL, NULL);
  for (int i = 0; i < n_tests; i++) {
    if (have_re && regexec(&re, tests[i].name, 0, NULL, 0)) continue;
    CU_pTest t = CU_add_test(suite, tests[i].name, tests[i].fn);
    if (!t) return 2;
    skipped_now = 0;
    CU_run_test(suite, t);
    if (CU_get_number_of_failures()) {
      failed++;
      printf("FAILED %s\n", tests[i].name);
      print_failures();
    } else if (skipped_now) {
      skipped++;
    } else {
      passed++;
    }
    fflush(stdout);
  }
  CU_cleanup_registry();
  if (have_re) regfree(&re);
  const char *base = strrchr(argv[0], '/');
  printf("%s: %d passed, %d failed, %d skipped\n", base ? base + 1 : argv[0], passed, failed, skipped);
  return failed ? 1 : 0;
}
