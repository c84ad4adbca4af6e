/* hw/abi/tables.h - makes the function tables of docs/numerics.md 3 with integers only, so that every machine
 * writes the same file. Part of the generator: devices include the written tables (hw/gen/foray_tables.h).
 * Each entry is the exact value rounded to nearest (proved against long double in tests/unit/core). */
#ifndef FORAY_ABI_TABLES_H
#define FORAY_ABI_TABLES_H

#include <stdint.h>

typedef unsigned __int128 tab_u128;
typedef __int128 tab_i128;

#define TAB_ONE ((tab_i128)1 << 60) /* working format: Q60 */
#define TAB_LN2 799144290325165979  /* ln 2 in Q60 */
#define TAB_PI  3622009729038561421 /* pi in Q60 */

static int64_t tab_round(tab_i128 v, int frac) { /* Q60 to Q<frac>, half up */
  return (int64_t)((v + ((tab_i128)1 << (59 - frac))) >> (60 - frac));
}

/* log2 of m in [1, 2], Q60 in and out: one bit for each squaring. */
static tab_i128 tab_log2(tab_i128 m) {
  tab_i128 r = 0;
  if (m == 2 * TAB_ONE) return TAB_ONE;
  for (int bit = 59; bit >= 4; bit--) {
    m = (m * m) >> 60; /* m < 2^61: the product is below 2^122 */
    if (m >= 2 * TAB_ONE) {
      m >>= 1;
      r += (tab_i128)1 << bit;
    }
  }
  return r;
}

/* e^x, Q60, for |x| <= 1: Taylor. */
static tab_i128 tab_exp(tab_i128 x) {
  tab_i128 sum = TAB_ONE, term = TAB_ONE;
  for (int k = 1; k < 40; k++) {
    term = ((term * x) >> 60) / k;
    sum += term;
  }
  return sum;
}

static tab_i128 tab_sin(tab_i128 x) {
  tab_i128 sum = x, term = x, x2 = (x * x) >> 60;
  for (int k = 3; k < 40; k += 2) {
    term = -((term * x2) >> 60) / (k * (k - 1));
    sum += term;
  }
  return sum;
}

static tab_u128 tab_isqrt(tab_u128 v) {
  tab_u128 r = 0;
  for (int b = 63; b >= 0; b--) {
    tab_u128 t = r | ((tab_u128)1 << b);
    if (t <= v / t) r = t;
  }
  return r;
}

static int64_t tab_entry_log2(int i) { return tab_round(tab_log2(TAB_ONE + TAB_ONE / 1024 * i), 31); }
/* -ln(1 - v) / v at v = i / 1024, by its series: sum of v^k / (k + 1). */
static int64_t tab_entry_nlog(int i) {
  tab_i128 sum = 0, term = TAB_ONE, v = TAB_ONE / 1024 * i;
  for (int k = 0; k < 80; k++) {
    sum += term / (k + 1);
    term = (term * v) >> 60;
  }
  return tab_round(sum, 30);
}
static int64_t tab_entry_exp2(int i) { return tab_round(tab_exp((tab_i128)TAB_LN2 * i / 256), 30); }
/* 1 / sqrt(1 + i / 256) = sqrt(2^8 / m), in Q40 before rounding */
static int64_t tab_entry_rsqrt(int i) {
  return (int64_t)((tab_isqrt(((tab_u128)1 << 88) / (256u + (unsigned)i)) + 512) >> 10);
}
static int64_t tab_entry_sin(int i) { return tab_round(tab_sin((tab_i128)TAB_PI * i / 2048), 30); }
/* 1 / (1 + e^-x) at x = i / 64, x in [0, 16] */
static int64_t tab_entry_sigmoid(int i) {
  tab_i128 e = tab_exp(-(TAB_ONE / 64 * (i % 64)));
  tab_i128 e1 = tab_exp(-TAB_ONE);
  for (int k = 0; k < i / 64; k++) e = (e * e1) >> 60;
  return tab_round((((tab_i128)1 << 62) * ((tab_i128)1 << 58)) / (TAB_ONE + e), 30);
}

struct tab_def {
  const char *name, *what;
  int last; /* entries 0..last */
  int64_t (*entry)(int);
};
static const struct tab_def tab_defs[] = {
    {"LOG2", "log2(1 + i/1024), Q31", 1024, tab_entry_log2},
    {"NLOG", "-ln(1 - v)/v at v = i/1024, Q30", 512, tab_entry_nlog},
    {"EXP2", "2^(i/256), Q30", 256, tab_entry_exp2},
    {"RSQRT", "1/sqrt(1 + i/256), Q30", 768, tab_entry_rsqrt},
    {"SIN", "sin(pi/2 * i/1024), Q30", 1024, tab_entry_sin},
    {"SIGMOID", "1/(1 + exp(-i/64)), Q30", 1024, tab_entry_sigmoid},
};
enum { TAB_DEFS = sizeof tab_defs / sizeof tab_defs[0] };

#endif
