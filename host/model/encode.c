/* Text to ids. The text is cut at special tokens; what lies between is encoded piece by piece. */
#include "core/checked.h"
#include "core/err.h"
#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 1 << 30 };

void foray_ids_deinit(struct foray_ids *v) {
  free(v->ids);
  *v = (struct foray_ids){0};
}

enum foray_status foray_ids_add(struct foray_ids *v, int32_t id) {
  if (v->n == v->cap) {
    size_t cap = v->cap ? v->cap * 2 : 64;
    int32_t *p = realloc(v->ids, cap * sizeof *p);
    if (!p) return FORAY_E_NOMEM;
    v->ids = p;
    v->cap = cap;
  }
  v->ids[v->n++] = id;
  return FORAY_OK;
}

/* ---------------------------------------------------------------- merging */

/* Symbols of a piece form a doubly linked list in an array; candidate merges lie in a binary heap, best
 * first. An entry whose symbols changed since it was pushed is dropped when it surfaces. */
struct sym {
  uint32_t id;        /* BPE: symbol number */
  uint32_t at, len;   /* SPM: place in the text; len == 0: merged away */
  int32_t prev, next; /* -1: none */
};
struct cand {
  float score;   /* SPM: higher is better */
  uint32_t rank; /* BPE: lower is better */
  int32_t left, right;
  uint32_t left_id, right_id; /* BPE: what the symbols were; SPM: left_id = joined length */
  uint32_t result;
};

struct work {
  const struct foray_tokenizer *t;
  struct foray_ids *out;
  struct sym *syms;
  size_t n_syms, cap_syms;
  struct cand *heap;
  size_t n_heap, cap_heap;
  pcre2_match_data *match;
  pcre2_match_context *limits;
  struct foray_buf text, subject; /* BPE: bytes to encode, and the same for matching */
};

static bool better(const struct cand *a, const struct cand *b) {
  if (a->score != b->score) return a->score > b->score;
  if (a->rank != b->rank) return a->rank < b->rank;
  return a->left < b->left;
}

static enum foray_status heap_push(struct work *w, struct cand c) {
  if (w->n_heap == w->cap_heap) {
    size_t cap = w->cap_heap ? w->cap_heap * 2 : 256;
    struct cand *p = realloc(w->heap, cap * sizeof *p);
    if (!p) return FORAY_E_NOMEM;
    w->heap = p;
    w->cap_heap = cap;
  }
  size_t i = w->n_heap++;
  while (i && better(&c, &w->heap[(i - 1) / 2])) {
    w->heap[i] = w->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  w->heap[i] = c;
  return FORAY_OK;
}

static struct cand heap_pop(struct work *w) {
  struct cand top = w->heap[0], last = w->heap[--w->n_heap];
  size_t i = 0;
  for (;;) {
    size_t c = 2 * i + 1;
    if (c >= w->n_heap) break;
    if (c + 1 < w->n_heap && better(&w->heap[c + 1], &w->heap[c])) c++;
    if (!better(&w->heap[c], &last)) break;
    w->heap[i] = w->heap[c];
    i = c;
  }
  w->heap[i] = last;
  return top;
}

static enum foray_status reserve_syms(struct work *w, size_t n) {
  if (n <= w->cap_syms) return FORAY_OK;
  struct sym *p = realloc(w->syms, n * sizeof *p);
  if (!p) return FORAY_E_NOMEM;
  w->syms = p;
  w->cap_syms = n;
  return FORAY_OK;
}

static void unlink_right(struct work *w, int32_t left, int32_t right) {
  w->syms[left].next = w->syms[right].next;
  if (w->syms[right].next >= 0) w->syms[w->syms[right].next].prev = left;
  w->syms[right].len = 0;
}

/* ---------------------------------------------------------------- BPE */

static enum foray_status bpe_try(struct work *w, int32_t left, int32_t right) {
  if (left < 0 || right < 0) return FORAY_OK;
  const struct foray_merge *m = foray_find_merge(w->t, w->syms[left].id, w->syms[right].id);
  if (!m) return FORAY_OK;
  return heap_push(w, (struct cand){.rank = m->rank,
                                    .left = left,
                                    .right = right,
                                    .left_id = m->left,
                                    .right_id = m->right,
                                    .result = m->result});
}

static enum foray_status bpe_emit(struct work *w, uint32_t id) {
  if (id < w->t->n_vocab) return foray_ids_add(w->out, (int32_t)id);
  /* A symbol that is no token: llama.cpp takes its text byte by byte and drops bytes that are no token's
   * text. */
  const struct foray_gguf_str s = w->t->strs.strs[id];
  for (size_t i = 0; i < s.len; i++) {
    int32_t b = foray_tokenizer_find(w->t, s.ptr + i, 1);
    if (b < 0) continue;
    enum foray_status st = foray_ids_add(w->out, b);
    if (st) return st;
  }
  return FORAY_OK;
}

/* The token whose piece is exactly this word, or -1: spells the word in the vocabulary's alphabet first. */
static int32_t whole_word(const struct work *w, const uint8_t *p, size_t n) {
  char text[256];
  size_t o = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t c = foray_byte_codepoint(p[i]);
    if (o + 2 > sizeof text) return -1;
    if (c >= 0x80) text[o++] = (char)(0xc0 | c >> 6);
    text[o++] = (char)(c < 0x80 ? c : 0x80 | (c & 63));
  }
  return foray_tokenizer_find(w->t, text, o);
}

static enum foray_status bpe_word(struct work *w, const uint8_t *p, size_t n) {
  enum foray_status s;
  if (w->t->ignore_merges) {
    int32_t id = whole_word(w, p, n);
    if (id >= 0) return foray_ids_add(w->out, id);
  }
  if ((s = reserve_syms(w, n))) return s;
  w->n_heap = 0;
  for (size_t i = 0; i < n; i++)
    w->syms[i] = (struct sym){.id = w->t->byte_sym[p[i]],
                              .len = 1,
                              .prev = (int32_t)i - 1,
                              .next = i + 1 < n ? (int32_t)i + 1 : -1};
  for (size_t i = 1; i < n; i++)
    if ((s = bpe_try(w, (int32_t)i - 1, (int32_t)i))) return s;
  while (w->n_heap) {
    struct cand c = heap_pop(w);
    struct sym *l = &w->syms[c.left], *r = &w->syms[c.right];
    if (!l->len || !r->len || l->next != c.right || l->id != c.left_id || r->id != c.right_id) continue;
    l->id = c.result;
    unlink_right(w, c.left, c.right);
    if ((s = bpe_try(w, l->prev, c.left)) || (s = bpe_try(w, c.left, l->next))) return s;
  }
  for (int32_t i = 0; i >= 0; i = w->syms[i].next)
    if ((s = bpe_emit(w, w->syms[i].id))) return s;
  return FORAY_OK;
}

static enum foray_status bpe_split(struct work *w, const uint8_t *text, const uint8_t *subject, size_t n,
                                   int level);

static enum foray_status bpe_part(struct work *w, const uint8_t *text, const uint8_t *subject, size_t n,
                                  int level) {
  if (n == 0) return FORAY_OK;
  if (level == 0 && w->t->patterns[1]) return bpe_split(w, text, subject, n, 1);
  return bpe_word(w, text, n);
}

/* Cuts at the matches of a pattern; what lies between matches is a part too. Each part is a text of its own
 * for the next pattern: its look-ahead ends where the part ends. */
static enum foray_status bpe_split(struct work *w, const uint8_t *text, const uint8_t *subject, size_t n,
                                   int level) {
  size_t at = 0;
  enum foray_status s;
  while (at < n) {
    int rc = pcre2_match(w->t->patterns[level], subject, n, at, PCRE2_NO_UTF_CHECK, w->match, w->limits);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) return rc == PCRE2_ERROR_NOMEMORY ? FORAY_E_NOMEM : FORAY_E_LIMIT;
    const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(w->match);
    size_t begin = ov[0], end = ov[1];
    if (end <= at) break; /* no pattern matches nothing; never loop on it */
    if ((s = bpe_part(w, text + at, subject + at, begin - at, level))) return s;
    if ((s = bpe_part(w, text + begin, subject + begin, end - begin, level))) return s;
    at = end;
  }
  return bpe_part(w, text + at, subject + at, n - at, level);
}

/* Reads a code point as llama.cpp does: overlong forms and surrogates count; false: the byte at p is not one.
 */
static bool code_point(const uint8_t *p, size_t n, uint32_t *cp, size_t *used) {
  static const uint8_t masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 0;
  if (len == 0 || len > n) return false;
  uint32_t c = p[0] & masks[len];
  for (size_t i = 1; i < len; i++) {
    if ((p[i] & 0xc0) != 0x80) return false;
    c = c << 6 | (p[i] & 63);
  }
  if (c > 0x10ffff) return false;
  *cp = c;
  *used = len;
  return true;
}

static size_t put_utf8(uint32_t c, uint8_t out[4]) {
  if (c < 0x80) {
    out[0] = (uint8_t)c;
    return 1;
  }
  if (c < 0x800) {
    out[0] = (uint8_t)(0xc0 | c >> 6);
    out[1] = (uint8_t)(0x80 | (c & 63));
    return 2;
  }
  if (c < 0x10000) {
    out[0] = (uint8_t)(0xe0 | c >> 12);
    out[1] = (uint8_t)(0x80 | (c >> 6 & 63));
    out[2] = (uint8_t)(0x80 | (c & 63));
    return 3;
  }
  out[0] = (uint8_t)(0xf0 | c >> 18);
  out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
  out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
  out[3] = (uint8_t)(0x80 | (c & 63));
  return 4;
}

/* Invalid bytes become U+FFFD one by one. The subject for PCRE2 must be strict UTF-8, so that surrogates,
 * which the encoded bytes keep, are shown to it as U+FFFD: the same length, and in no class of the patterns
 * either. */
static enum foray_status bpe_text(struct work *w, const char *p, size_t n) {
  enum foray_status s;
  foray_buf_clear(&w->text);
  foray_buf_clear(&w->subject);
  for (size_t i = 0; i < n;) {
    uint8_t utf8[4];
    uint32_t c = 0xfffd;
    size_t used = 1, len;
    if (!code_point((const uint8_t *)p + i, n - i, &c, &used)) {
      c = 0xfffd;
      used = 1;
    }
    i += used;
    len = put_utf8(c, utf8);
    if ((s = foray_buf_add(&w->text, utf8, len))) return s;
    if (c >= 0xd800 && c <= 0xdfff) put_utf8(0xfffd, utf8);
    if ((s = foray_buf_add(&w->subject, utf8, len))) return s;
  }
  if (w->text.len == 0) return FORAY_OK;
  if (!w->match) {
    w->match = pcre2_match_data_create(4, NULL);
    w->limits = pcre2_match_context_create(NULL);
    if (!w->match || !w->limits) return FORAY_E_NOMEM;
  }
  /* Every pattern is linear in what it looks at; the limit is there for the day that one is not. */
  size_t limit = 10000 + 64 * w->text.len;
  pcre2_set_match_limit(w->limits, limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
  return bpe_split(w, w->text.data, w->subject.data, w->text.len, 0);
}

/* ---------------------------------------------------------------- SPM */

static enum foray_status spm_try(struct work *w, const char *text, int32_t left, int32_t right) {
  if (left < 0 || right < 0) return FORAY_OK;
  const struct sym *l = &w->syms[left], *r = &w->syms[right];
  int32_t id = foray_tokenizer_find(w->t, text + l->at, l->len + r->len);
  if (id < 0) return FORAY_OK;
  return heap_push(
      w, (struct cand){.score = w->t->scores[id], .left = left, .right = right, .left_id = l->len + r->len});
}

static enum foray_status spm_text(struct work *w, const char *p, size_t n, bool space_first) {
  enum foray_status s = FORAY_OK;
  foray_buf_clear(&w->text);
  if (space_first) s = foray_buf_add(&w->text, "\xe2\x96\x81", 3);
  for (size_t i = 0; i < n && !s; i++)
    s = p[i] == ' ' ? foray_buf_add(&w->text, "\xe2\x96\x81", 3) : foray_buf_add(&w->text, p + i, 1);
  if (s) return s;
  const char *text = (const char *)w->text.data;
  size_t len = w->text.len, count = 0;
  if ((s = reserve_syms(w, len))) return s;
  for (size_t at = 0; at < len; count++) {
    /* Characters by their first byte only, as llama.cpp cuts them. */
    static const uint8_t by_nibble[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    size_t k = by_nibble[(uint8_t)text[at] >> 4];
    if (k > len - at) k = len - at;
    w->syms[count] = (struct sym){.at = (uint32_t)at,
                                  .len = (uint32_t)k,
                                  .prev = (int32_t)count - 1,
                                  .next = at + k < len ? (int32_t)count + 1 : -1};
    at += k;
  }
  w->n_heap = 0;
  for (size_t i = 1; i < count; i++)
    if ((s = spm_try(w, text, (int32_t)i - 1, (int32_t)i))) return s;
  while (w->n_heap) {
    struct cand c = heap_pop(w);
    struct sym *l = &w->syms[c.left], *r = &w->syms[c.right];
    if (!l->len || !r->len || l->next != c.right || l->len + r->len != c.left_id) continue;
    l->len += r->len;
    unlink_right(w, c.left, c.right);
    if ((s = spm_try(w, text, l->prev, c.left)) || (s = spm_try(w, text, c.left, l->next))) return s;
  }
  for (int32_t i = count ? 0 : -1; i >= 0; i = w->syms[i].next) {
    const struct sym *y = &w->syms[i];
    int32_t id = foray_tokenizer_find(w->t, text + y->at, y->len);
    if (id >= 0) {
      if ((s = foray_ids_add(w->out, id))) return s;
      continue;
    }
    for (uint32_t k = 0; k < y->len; k++) {
      id = w->t->byte_token[(uint8_t)text[y->at + k]];
      if (id < 0) id = w->t->unk;
      if (id >= 0 && (s = foray_ids_add(w->out, id))) return s;
    }
  }
  return FORAY_OK;
}

/* ---------------------------------------------------------------- special tokens */

struct hit {
  uint32_t at, len;
  int32_t id;
};
struct hits {
  struct hit *v;
  size_t n, cap;
};

static enum foray_status add_hit(struct hits *h, struct hit x) {
  if (h->n == h->cap) {
    size_t cap = h->cap ? h->cap * 2 : 64;
    struct hit *p = realloc(h->v, cap * sizeof *p);
    if (!p) return FORAY_E_NOMEM;
    h->v = p;
    h->cap = cap;
  }
  h->v[h->n++] = x;
  return FORAY_OK;
}

static int by_priority(const void *a, const void *b) {
  const struct hit *x = a, *y = b;
  if (x->len != y->len) return x->len > y->len ? -1 : 1;
  if (x->id != y->id) return x->id < y->id ? -1 : 1;
  return (x->at > y->at) - (x->at < y->at);
}
static int by_place(const void *a, const void *b) {
  const struct hit *x = a, *y = b;
  return (x->at > y->at) - (x->at < y->at);
}

/* Finds every occurrence of a special token that is allowed at its place, then keeps the longest ones that do
 * not overlap: the same as cutting at one token after the other, longest first. special_to[i] = end of the
 * span with control tokens that byte i lies in, or 0. */
static enum foray_status find_special(const struct foray_tokenizer *t, const char *text, size_t len,
                                      const uint32_t *special_to, struct hits *h) {
  enum foray_status s;
  for (size_t i = 0; i < len; i++) {
    uint32_t node = 0;
    for (size_t k = i; k < len; k++) {
      node = t->trie[node].child;
      while (node && t->trie[node].byte != (uint8_t)text[k]) node = t->trie[node].sibling;
      if (!node) break;
      int32_t id = t->trie[node].token;
      if (id < 0) continue;
      if (t->kinds[id] != FORAY_TOKEN_USER_DEFINED && k + 1 > special_to[i]) continue;
      if ((s = add_hit(h, (struct hit){(uint32_t)i, (uint32_t)(k + 1 - i), id}))) return s;
    }
  }
  if (h->n == 0) return FORAY_OK;
  qsort(h->v, h->n, sizeof *h->v, by_priority);
  uint8_t *taken = calloc(len, 1);
  if (!taken) return FORAY_E_NOMEM;
  size_t kept = 0;
  for (size_t i = 0; i < h->n; i++) {
    struct hit x = h->v[i];
    if (memchr(taken + x.at, 1, x.len)) continue;
    memset(taken + x.at, 1, x.len);
    h->v[kept++] = x;
  }
  free(taken);
  h->n = kept;
  qsort(h->v, h->n, sizeof *h->v, by_place);
  return FORAY_OK;
}

static enum foray_status encode_raw(struct work *w, const char *p, size_t n, bool after_special) {
  if (n == 0) return FORAY_OK;
  if (w->t->model == FORAY_TOK_BPE) return bpe_text(w, p, n);
  return spm_text(w, p, n, w->t->add_space_prefix && after_special);
}

static enum foray_status encode_all(struct work *w, const char *text, size_t len, const uint32_t *special_to,
                                    struct hits *h, unsigned flags) {
  enum foray_status s;
  size_t at = 0;
  bool after_special = true;
  if ((flags & FORAY_ENCODE_BOS) && w->t->add_bos && (s = foray_ids_add(w->out, w->t->bos))) return s;
  if ((s = find_special(w->t, text, len, special_to, h))) return s;
  for (size_t i = 0; i < h->n; i++) {
    if ((s = encode_raw(w, text + at, h->v[i].at - at, after_special))) return s;
    if ((s = foray_ids_add(w->out, h->v[i].id))) return s;
    at = h->v[i].at + h->v[i].len;
    after_special = true;
  }
  if ((s = encode_raw(w, text + at, len - at, after_special))) return s;
  if ((flags & FORAY_ENCODE_BOS) && w->t->add_eos) return foray_ids_add(w->out, w->t->eos);
  return FORAY_OK;
}

enum foray_status foray_tokenizer_encode_spans(const struct foray_tokenizer *t,
                                               const struct foray_span *spans, size_t n_spans, unsigned flags,
                                               struct foray_ids *out, struct foray_err *err) {
  size_t len = 0;
  for (size_t i = 0; i < n_spans; i++)
    if (!foray_add_size(len, spans[i].len, &len) || len >= TEXT_MAX)
      return foray_err_set(err, FORAY_E_LIMIT, "the text is longer than %d bytes", TEXT_MAX);
  struct work w = {.t = t, .out = out};
  struct hits hits = {0};
  foray_buf_init(&w.text, SIZE_MAX / 2);
  foray_buf_init(&w.subject, SIZE_MAX / 2);
  char *text = malloc(len + 1);
  uint32_t *special_to = malloc((len + 1) * sizeof *special_to);
  enum foray_status s = text && special_to ? FORAY_OK : FORAY_E_NOMEM;
  if (!s) {
    for (size_t i = 0, at = 0; i < n_spans; i++) {
      if (spans[i].len) memcpy(text + at, spans[i].text, spans[i].len);
      for (size_t k = 0; k < spans[i].len; k++)
        special_to[at + k] = spans[i].special ? (uint32_t)(at + spans[i].len) : 0;
      at += spans[i].len;
    }
    s = encode_all(&w, text, len, special_to, &hits, flags);
  }
  free(text);
  free(special_to);
  free(hits.v);
  free(w.syms);
  free(w.heap);
  foray_buf_deinit(&w.text);
  foray_buf_deinit(&w.subject);
  pcre2_match_data_free(w.match);
  pcre2_match_context_free(w.limits);
  if (s == FORAY_E_LIMIT)
    return foray_err_set(err, s, "the pre-tokenizer's pattern ran into its limit on this text");
  if (s) return foray_err_set(err, s, "out of memory while encoding %zu bytes", len);
  return FORAY_OK;
}

enum foray_status foray_tokenizer_encode(const struct foray_tokenizer *t, const char *text, size_t len,
                                         unsigned flags, struct foray_ids *out, struct foray_err *err) {
  const struct foray_span span = {text, len, (flags & FORAY_ENCODE_SPECIAL) != 0};
  return foray_tokenizer_encode_spans(t, &span, 1, flags, out, err);
}
