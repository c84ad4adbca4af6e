/* cotune/metrics.h - Rouge-L and exact match as the published scripts compute them, to the last digit (golden
 * numbers in tests/unit/cotune). Text is UTF-8; sizes in bytes. Pure, any thread. */
#ifndef FORAY_COTUNE_METRICS_H
#define FORAY_COTUNE_METRICS_H

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>

/* Longest common subsequence of words: lower case, a-z and 0-9 only, words longer than three letters stemmed
 * when asked. */
struct foray_rouge {
  double precision, recall, f;
};
enum foray_status foray_rouge_l(const char *prediction, const char *reference, bool stem,
                                struct foray_rouge *out, struct foray_err *err) FORAY_NODISCARD;

enum foray_em_kind {
  FORAY_EM_SQUAD, /* lower case, no punctuation, no a/an/the, single spaces */
  FORAY_EM_PLAIN, /* the same with articles (Super-NaturalInstructions, MiniLLM) */
  FORAY_EM_GSM8K, /* the number behind "#### "; no such number in the prediction is wrong */
};
/* 1, 0, or -1 when there is no memory. A reference that normalises to nothing matches only nothing. */
int foray_exact_match(enum foray_em_kind kind, const char *prediction, const char *reference);
/* The normal form itself, for reports: owned by the caller, NULL without memory or, for GSM8K, without a
 * number. */
char *foray_em_normal(enum foray_em_kind kind, const char *text);

#endif
