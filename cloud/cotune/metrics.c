#include "cotune/metrics.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "cotune/porter.h"

/* ---- characters ---- */
/* One character at *p (before end); bytes that are no UTF-8 stand for themselves, with bit 31 set. */
static uint32_t next_char(const char **p, const char *end) {
  const uint8_t *s = (const uint8_t *)*p;
  size_t left = (size_t)(end - *p), n = s[0] < 0x80                   ? 1
                                        : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
                                        : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                                        : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                                                      : 0;
  uint32_t c = s[0];
  bool ok = n > 0 && n <= left;
  if (ok && n > 1) {
    c &= 0x7fu >> n;
    for (size_t i = 1; i < n; i++) ok = ok && (s[i] & 0xc0) == 0x80, c = c << 6 | (s[i] & 0x3fu);
  }
  *p += ok ? n : 1;
  return ok ? c : 0x80000000u | s[0];
}
static size_t put_char(char *out, uint32_t c) {
  if (c & 0x80000000u || c < 0x80) {
    out[0] = (char)(c & 0xff);
    return 1;
  }
  size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (size_t i = n; i-- > 1; c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
  out[0] = (char)((0xf00u >> n & 0xf0) | c);
  return n;
}
/* Simple lower case of Latin, Greek and Cyrillic letters. */
static uint32_t lower(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  if (c >= 0xc0 && c <= 0xde && c != 0xd7) return c + 32;
  if (c == 0x130) return 'i';
  if (c == 0x178) return 0xff;
  if ((c >= 0x100 && c <= 0x137) || (c >= 0x14a && c <= 0x177)) return c | 1;
  if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e)) return c & 1 ? c + 1 : c;
  if (c >= 0x391 && c <= 0x3a9) return c + 32;
  if (c >= 0x410 && c <= 0x42f) return c + 32;
  if (c >= 0x400 && c <= 0x40f) return c + 80;
  if (c >= 0x1e00 && c <= 0x1e95) return c | 1;
  return c == 0x212a ? 'k' : c; /* the sign of the unit kelvin */
}
static bool space(uint32_t c) {
  return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}
static bool punctuation(uint32_t c) {
  return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
}
/* Part of a word, where the ends of "a", "an" and "the" are looked for. */
static bool word_char(uint32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  if (c & 0x80000000u || space(c)) return false;
  if (c < 0xc0) return c == 0xaa || c == 0xb5 || c == 0xba || c == 0xb2 || c == 0xb3 || c == 0xb9;
  return c != 0xd7 && c != 0xf7 && !(c >= 0x2010 && c <= 0x206f) && !(c >= 0x3001 && c <= 0x3004) &&
         !(c >= 0x3008 && c <= 0x3020);
}

/* ---- exact match ---- */
static bool article(const char *s, size_t n) {
  return (n == 1 && s[0] == 'a') || (n == 2 && !memcmp(s, "an", 2)) || (n == 3 && !memcmp(s, "the", 3));
}

static char *number_behind_marks(const char *text) {
  for (const char *p = text; (p = strstr(p, "#### ")); p++) {
    const char *s = p + 5;
    size_t n = *s == '-', digits = strspn(s + n, "0123456789.,"), k = 0;
    if (!digits) continue;
    char *out = malloc(n + digits + 1);
    for (size_t i = 0; out && i < n + digits; i++)
      if (s[i] != ',') out[k++] = s[i];
    if (out) out[k] = 0;
    return out;
  }
  return NULL;
}

char *foray_em_normal(enum foray_em_kind kind, const char *text) {
  if (kind == FORAY_EM_GSM8K) return number_behind_marks(text);
  size_t n = strlen(text), m = 0, k = 0;
  const char *p = text, *end = text + n;
  char *low = malloc(n + 8), *out = malloc(n + 8); /* lower case is never longer here */
  if (!low || !out) {
    free(low), free(out);
    return NULL;
  }
  while (p < end) {
    uint32_t c = lower(next_char(&p, end));
    if (!punctuation(c)) m += put_char(low + m, c);
  }
  end = low + m;
  bool gap = false;
  for (p = low; p < end;) {
    const char *start = p;
    uint32_t c = next_char(&p, end);
    if (space(c)) {
      gap = true;
      continue;
    }
    if (word_char(c)) {
      for (const char *q = p; q < end && word_char(next_char(&q, end));) p = q;
      if (kind == FORAY_EM_SQUAD && article(start, (size_t)(p - start))) {
        gap = true;
        continue;
      }
    }
    if (gap && k) out[k++] = ' ';
    gap = false;
    memcpy(out + k, start, (size_t)(p - start));
    k += (size_t)(p - start);
  }
  out[k] = 0;
  free(low);
  return out;
}

int foray_exact_match(enum foray_em_kind kind, const char *prediction, const char *reference) {
  char *a = foray_em_normal(kind, prediction), *b = foray_em_normal(kind, reference);
  int same = a && b ? !strcmp(a, b) : kind == FORAY_EM_GSM8K ? 0 : -1;
  free(a), free(b);
  return same;
}

/* ---- Rouge-L ---- */
struct words {
  char *text; /* all words, joined */
  size_t *at; /* start of each; at[n] = end */
  size_t n;
};
static void words_free(struct words *w) { free(w->text), free(w->at); }

static bool words_of(const char *text, bool stem, struct words *w) {
  size_t len = strlen(text), k = 0;
  const char *p = text, *end = text + len;
  w->text = malloc(2 * len + FORAY_STEM_MAX);
  w->at = malloc((len + 2) * sizeof *w->at);
  w->n = 0;
  if (!w->text || !w->at) return false;
  w->at[0] = 0;
  for (bool more = true; more;) {
    uint32_t c = 0;
    more = p < end;
    if (more) c = lower(next_char(&p, end));
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      w->text[k++] = (char)c;
      continue;
    }
    size_t n = k - w->at[w->n];
    if (!n) continue;
    if (stem && n > 3 && n < FORAY_STEM_MAX - 1) {
      char buf[FORAY_STEM_MAX];
      memcpy(buf, w->text + w->at[w->n], n);
      n = foray_porter_stem(buf, n);
      memcpy(w->text + w->at[w->n], buf, n);
      k = w->at[w->n] + n;
    }
    if (n) w->at[++w->n] = k;
  }
  return true;
}
static bool same_word(const struct words *a, size_t i, const struct words *b, size_t j) {
  size_t n = a->at[i + 1] - a->at[i];
  return n == b->at[j + 1] - b->at[j] && !memcmp(a->text + a->at[i], b->text + b->at[j], n);
}

enum foray_status foray_rouge_l(const char *prediction, const char *reference, bool stem,
                                struct foray_rouge *out, struct foray_err *err) {
  struct words a = {0}, b = {0};
  size_t *row = NULL;
  *out = (struct foray_rouge){0};
  bool ok = words_of(prediction, stem, &a) && words_of(reference, stem, &b) &&
            (row = calloc(b.n + 1, sizeof *row)) != NULL;
  if (ok && a.n && b.n) {
    for (size_t i = 0; i < a.n; i++) {
      size_t diag = 0;
      for (size_t j = 0; j < b.n; j++) {
        size_t up = row[j + 1];
        row[j + 1] = same_word(&a, i, &b, j) ? diag + 1 : up > row[j] ? up : row[j];
        diag = up;
      }
    }
    double lcs = (double)row[b.n];
    out->precision = lcs / (double)a.n;
    out->recall = lcs / (double)b.n;
    if (lcs > 0) out->f = 2 * out->precision * out->recall / (out->precision + out->recall);
  }
  words_free(&a), words_free(&b);
  free(row);
  return ok ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "Rouge-L: out of memory");
}
