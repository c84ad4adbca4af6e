/* Metrics against numbers of the published scripts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cotune/metrics.h"
#include "cotune/porter.h"
#include "unit/harness.h"

TEST(stems_are_the_published_ones) {
  static const char *const pair[][2] = {
      {"ponies", "poni"},
      {"flies", "fli"},
      {"dies", "die"},
      {"enjoy", "enjoy"},
      {"agreed", "agre"},
      {"relational", "relat"},
      {"generalizations", "gener"},
      {"geology", "geolog"},
      {"happily", "happili"},
      {"hopefully", "hope"},
      {"controlling", "control"},
      {"sensibility", "sensibl"},
      {"abilities", "abil"},
      {"1990s", "1990"},
      {"skies", "sky"},
      {"dying", "die"},
      {"innings", "inning"},
      {"proceed", "proceed"},
      {"died", "die"},
      {"tried", "tri"},
      {"running", "run"},
      {"falling", "fall"},
      {"hissing", "hiss"},
      {"failing", "fail"},
      {"filing", "file"},
      {"feed", "feed"},
      {"plastered", "plaster"},
      {"motoring", "motor"},
      {"sing", "sing"},
      {"conflated", "conflat"},
      {"troubled", "troubl"},
      {"sized", "size"},
      {"hopping", "hop"},
      {"adoption", "adopt"},
      {"probate", "probat"},
      {"rate", "rate"},
      {"cease", "ceas"},
      {"controll", "control"},
      {"roll", "roll"},
      {"replacement", "replac"},
      {"by", "by"},
      {"caresses", "caress"},
      {"ties", "tie"},
      {"sky", "sky"},
  };
  for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) {
    char w[FORAY_STEM_MAX];
    memcpy(w, pair[i][0], strlen(pair[i][0]));
    size_t n = foray_porter_stem(w, strlen(pair[i][0]));
    w[n] = 0;
    if (strcmp(w, pair[i][1])) printf("%s: %s, not %s\n", pair[i][0], w, pair[i][1]);
    CU_ASSERT(!strcmp(w, pair[i][1]));
  }
}

static void rouge(const char *p, const char *r, bool stem, double wp, double wr, double wf) {
  struct foray_err err = {0};
  struct foray_rouge g;
  CU_ASSERT_FATAL(foray_rouge_l(p, r, stem, &g, &err) == FORAY_OK);
  CU_ASSERT(fabs(g.precision - wp) < 1e-6 && fabs(g.recall - wr) < 1e-6 && fabs(g.f - wf) < 1e-6);
}
TEST(rouge_l_golden) {
  rouge("testing two", "testing one two", false, 1, 2.0 / 3, 0.8);
  rouge("Ponies were running happily; flies died.", "The pony runs happy, a fly dies", false, 0, 0, 0);
  rouge("Ponies were running happily; flies died.", "The pony runs happy, a fly dies", true, 0.5, 3.0 / 7,
        0.4615385);
  rouge("", "something", true, 0, 0, 0);
  rouge("something", "  \n", true, 0, 0, 0);
  rouge("caf\xc3\xa9 noir", "caf noir", false, 1, 1, 1);
  rouge("a\nb\nc", "a b c", false, 1, 1, 1);
  rouge("the 3.5 km", "the 3 5 km", false, 1, 1, 1);
  rouge("b a", "a b", false, 0.5, 0.5, 0.5);
}

static void normal(enum foray_em_kind k, const char *text, const char *want) {
  char *got = foray_em_normal(k, text);
  CU_ASSERT_FATAL(got != NULL);
  if (strcmp(got, want)) printf("'%s' became '%s', not '%s'\n", text, got, want);
  CU_ASSERT(!strcmp(got, want));
  free(got);
}
TEST(exact_match_golden) {
  normal(FORAY_EM_SQUAD, "The U.S. Army", "us army");
  normal(FORAY_EM_SQUAD, "don't", "dont");
  normal(FORAY_EM_SQUAD, "an-the", "anthe");
  normal(FORAY_EM_SQUAD, "3.14", "314");
  normal(FORAY_EM_SQUAD, "\xe2\x80\x9cthe\xe2\x80\x9d cat", "\xe2\x80\x9c \xe2\x80\x9d cat");
  normal(FORAY_EM_SQUAD,
         "  A  \xc3\x89"
         "COLE\tthe\n",
         "\xc3\xa9"
         "cole");
  normal(FORAY_EM_SQUAD, "the", "");
  normal(FORAY_EM_PLAIN, "The U.S. Army", "the us army");
  normal(FORAY_EM_PLAIN, "A\xc2\xa0 b!", "a b");
  CU_ASSERT(foray_exact_match(FORAY_EM_SQUAD, "an Army.", "army") == 1);
  CU_ASSERT(foray_exact_match(FORAY_EM_PLAIN, "an Army.", "army") == 0);
  CU_ASSERT(foray_exact_match(FORAY_EM_GSM8K, "so\n#### 1,234", "x #### 1234") == 1);
  CU_ASSERT(foray_exact_match(FORAY_EM_GSM8K, "#### -3.5 km", "#### -3.5") == 1);
  CU_ASSERT(foray_exact_match(FORAY_EM_GSM8K, "#### 314", "#### 3.14") == 0);
  CU_ASSERT(foray_exact_match(FORAY_EM_GSM8K, "the answer is 7", "#### 7") == 0);
  CU_ASSERT(foray_exact_match(FORAY_EM_GSM8K, "####  7", "#### 7") == 0);
  CU_ASSERT(foray_exact_match(FORAY_EM_GSM8K, "#### x #### 7", "#### 7") == 1);
}
