/* The one check that tests/unit/engine/synth.h needs, for programs that are built for another processor,
 * where CUnit is not installed. */
#ifndef FORAY_CROSS_CUNIT_H
#define FORAY_CROSS_CUNIT_H
#include <stdio.h>
#include <stdlib.h>
#define CU_ASSERT_EQUAL(a, b)                                                                                \
  do {                                                                                                       \
    if ((a) == (b)) break;                                                                                   \
    fprintf(stderr, "%s:%d: not equal\n", __FILE__, __LINE__);                                               \
    exit(1);                                                                                                 \
  } while (0)
#endif
