#include "cotune/porter.h"

#include <stdbool.h>
#include <string.h>

struct word {
  char *s;
  size_t n;
};

static bool vowel_letter(char c) { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'; }
/* y is a consonant at the start and after a vowel. */
static bool consonant(const char *s, size_t i) {
  bool flip = false;
  while (s[i] == 'y' && i > 0) flip = !flip, i--;
  bool c = s[i] == 'y' || !vowel_letter(s[i]);
  return flip ? !c : c;
}
static int measure(const char *s, size_t n) {
  int m = 0;
  for (size_t i = 1; i < n; i++) m += consonant(s, i) && !consonant(s, i - 1);
  return m;
}
static bool has_vowel(const char *s, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!consonant(s, i)) return true;
  return false;
}
static bool double_consonant(const char *s, size_t n) {
  return n >= 2 && s[n - 1] == s[n - 2] && consonant(s, n - 1);
}
static bool cvc(const char *s, size_t n) {
  if (n == 2) return !consonant(s, 0) && consonant(s, 1);
  return n >= 3 && consonant(s, n - 3) && !consonant(s, n - 2) && consonant(s, n - 1) && s[n - 1] != 'w' &&
         s[n - 1] != 'x' && s[n - 1] != 'y';
}
static bool ends(const struct word *w, const char *suffix) {
  size_t k = strlen(suffix);
  return w->n >= k && !memcmp(w->s + w->n - k, suffix, k);
}
static void put(struct word *w, size_t cut, const char *with) {
  size_t k = strlen(with);
  w->n -= cut;
  memcpy(w->s + w->n, with, k);
  w->n += k;
}

/* A list of suffixes; the first that matches decides, whether its condition (m > least) holds or not. */
struct rule {
  const char *suffix, *with;
};
static void apply(struct word *w, const struct rule *r, int least) {
  for (; r->suffix; r++) {
    size_t k = strlen(r->suffix);
    if (!ends(w, r->suffix)) continue;
    if (measure(w->s, w->n - k) > least) put(w, k, r->with);
    return;
  }
}

static void step1a(struct word *w) {
  if (ends(w, "ies"))
    put(w, 3, w->n == 4 ? "ie" : "i");
  else if (ends(w, "sses"))
    put(w, 4, "ss");
  else if (!ends(w, "ss") && ends(w, "s"))
    w->n--;
}

static void step1b(struct word *w) {
  if (ends(w, "ied")) {
    put(w, 3, w->n == 4 ? "ie" : "i");
    return;
  }
  if (ends(w, "eed")) {
    if (measure(w->s, w->n - 3) > 0) w->n--;
    return;
  }
  size_t k = ends(w, "ed") && has_vowel(w->s, w->n - 2)    ? 2
             : ends(w, "ing") && has_vowel(w->s, w->n - 3) ? 3
                                                           : 0;
  if (!k) return;
  w->n -= k;
  char last = w->n ? w->s[w->n - 1] : 0;
  if (ends(w, "at") || ends(w, "bl") || ends(w, "iz"))
    put(w, 0, "e");
  else if (double_consonant(w->s, w->n))
    w->n -= last != 'l' && last != 's' && last != 'z';
  else if (measure(w->s, w->n) == 1 && cvc(w->s, w->n))
    put(w, 0, "e");
}

static void step1c(struct word *w) {
  if (ends(w, "y") && w->n > 2 && consonant(w->s, w->n - 2)) w->s[w->n - 1] = 'i';
}

static void step2(struct word *w) {
  static const struct rule rules[] = {
      {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
      {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"}, {"eli", "e"},     {"ousli", "ous"},
      {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},  {"alism", "al"},  {"iveness", "ive"},
      {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},  {"iviti", "ive"}, {"biliti", "ble"},
      {"fulli", "ful"},   {NULL, NULL}};
  while (ends(w, "alli") && measure(w->s, w->n - 4) > 0) put(w, 4, "al");
  if (ends(w, "logi")) { /* the condition counts the l to the stem */
    if (measure(w->s, w->n - 3) > 0) w->n--;
    return;
  }
  apply(w, rules, 0);
}

static void step3(struct word *w) {
  static const struct rule rules[] = {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"},
                                      {"ical", "ic"},  {"ful", ""},   {"ness", ""},    {NULL, NULL}};
  apply(w, rules, 0);
}

static void step4(struct word *w) {
  static const struct rule before[] = {{"al", ""},    {"ance", ""}, {"ence", ""}, {"er", ""},
                                       {"ic", ""},    {"able", ""}, {"ible", ""}, {"ant", ""},
                                       {"ement", ""}, {"ment", ""}, {"ent", ""},  {NULL, NULL}};
  static const struct rule after[] = {{"ou", ""},  {"ism", ""}, {"ate", ""}, {"iti", ""},
                                      {"ous", ""}, {"ive", ""}, {"ize", ""}, {NULL, NULL}};
  for (const struct rule *r = before; r->suffix; r++)
    if (ends(w, r->suffix)) {
      apply(w, before, 1);
      return;
    }
  if (ends(w, "ion")) {
    size_t k = w->n - 3;
    if (k && measure(w->s, k) > 1 && (w->s[k - 1] == 's' || w->s[k - 1] == 't')) w->n = k;
    return;
  }
  apply(w, after, 1);
}

static void step5(struct word *w) {
  if (ends(w, "e")) {
    int m = measure(w->s, w->n - 1);
    if (m > 1 || (m == 1 && !cvc(w->s, w->n - 1))) w->n--;
  }
  if (ends(w, "ll") && measure(w->s, w->n - 1) > 1) w->n--;
}

size_t foray_porter_stem(char *word, size_t len) {
  static const struct rule whole[] = {
      {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
      {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
      {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
      {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};
  struct word w = {word, len};
  if (len <= 2 || len + 1 >= FORAY_STEM_MAX) return len;
  for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
    if (strlen(whole[i].suffix) == len && ends(&w, whole[i].suffix)) {
      put(&w, len, whole[i].with);
      return w.n;
    }
  step1a(&w);
  step1b(&w);
  step1c(&w);
  step2(&w);
  step3(&w);
  step4(&w);
  step5(&w);
  return w.n;
}
