/* unit/harness.h - CUnit with self-registering tests. A test file is a program of its own:
 *
 *   #include "unit/harness.h"
 *   TEST(rounds_up) { CU_ASSERT_EQUAL(f(3), 4); }
 *
 * `<program> [REGEX]` runs the tests whose name matches, prints each failed check with file and line, and
 * ends with "N passed, N failed" counted in tests. The exit status is 1 when one failed. */
#ifndef FORAY_UNIT_HARNESS_H
#define FORAY_UNIT_HARNESS_H

#include <CUnit/CUnit.h>

void foray_test_add(const char *name, void (*fn)(void));

#define TEST(name)                                                                                           \
  static void name(void);                                                                                    \
  __attribute__((constructor)) static void name##_register(void) { foray_test_add(#name, name); }            \
  static void name(void)

/* Path of a file of the source tree (tests run from its top), e.g. tests/golden/x.bin; static storage. */
const char *foray_test_path(const char *relative);
/* Path of a model from the catalogue if it is on this machine, else NULL (a test then calls
 * foray_test_skip and returns). */
const char *foray_test_model(const char *name);
/* Says aloud that a test was not run, and why; counted as skipped, never as passed. */
void foray_test_skip(const char *why);

#endif
