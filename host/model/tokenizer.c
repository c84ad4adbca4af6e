#include "core/checked.h"
#include "core/err.h"
#include "model/tokenizer_impl.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { SPECIAL_TEXT_MAX = 1024 };

/* ---------------------------------------------------------------- strings */

static uint64_t str_hash(const char *p, size_t n, uint64_t key) {
  uint64_t h = key ^ n;
  while (n) {
    uint64_t w = 0;
    size_t k = n < 8 ? n : 8;
    memcpy(&w, p, k);
    unsigned __int128 m = (unsigned __int128)(h ^ w) * 0xD6E8FEB86659FD93u;
    h = ((uint64_t)m ^ (uint64_t)(m >> 64)) + 0x9E3779B97F4A7C15u;
    p += k;
    n -= k;
  }
  return h ^ h >> 29;
}

static enum foray_status rehash(struct foray_strtab *t, size_t slots) {
  uint32_t *s = calloc(slots, sizeof *s);
  if (!s) return FORAY_E_NOMEM;
  free(t->slots);
  t->slots = s;
  t->mask = slots - 1;
  for (uint32_t i = 0; i < t->n; i++) {
    size_t at = str_hash(t->strs[i].ptr, t->strs[i].len, t->key) & t->mask;
    while (s[at]) {
      const struct foray_gguf_str o = t->strs[s[at] - 1];
      if (o.len == t->strs[i].len && memcmp(o.ptr, t->strs[i].ptr, o.len) == 0) break;
      at = (at + 1) & t->mask;
    }
    s[at] = i + 1;
  }
  return FORAY_OK;
}

enum foray_status foray_strtab_init(struct foray_strtab *t, size_t expected) {
  *t = (struct foray_strtab){0};
  if (getrandom(&t->key, sizeof t->key, GRND_NONBLOCK) != (ssize_t)sizeof t->key) t->key = (uintptr_t)t;
  size_t slots = 64;
  while (slots < expected * 2) slots *= 2;
  return rehash(t, slots);
}

void foray_strtab_deinit(struct foray_strtab *t) {
  free(t->slots);
  free(t->strs);
}

static size_t probe(const struct foray_strtab *t, const char *p, size_t n) {
  size_t at = str_hash(p, n, t->key) & t->mask;
  while (t->slots[at]) {
    const struct foray_gguf_str o = t->strs[t->slots[at] - 1];
    if (o.len == n && memcmp(o.ptr, p, n) == 0) break;
    at = (at + 1) & t->mask;
  }
  return at;
}

uint32_t foray_strtab_find(const struct foray_strtab *t, const char *p, size_t n) {
  return t->slots[probe(t, p, n)] - 1u; /* 0 becomes UINT32_MAX */
}

enum foray_status foray_strtab_add(struct foray_strtab *t, const char *p, size_t n, uint32_t *out) {
  if (t->n == t->cap) {
    uint32_t cap = t->cap ? t->cap * 2 : 64;
    struct foray_gguf_str *s = realloc(t->strs, cap * sizeof *s);
    if (!s) return FORAY_E_NOMEM;
    t->strs = s;
    t->cap = cap;
  }
  if ((size_t)t->n * 2 >= t->mask) {
    enum foray_status s = rehash(t, (t->mask + 1) * 2);
    if (s) return s;
  }
  t->strs[t->n] = (struct foray_gguf_str){p, n};
  t->slots[probe(t, p, n)] = ++t->n;
  *out = t->n - 1;
  return FORAY_OK;
}

/* ---------------------------------------------------------------- bytes as text */

uint32_t foray_byte_codepoint(uint8_t b) {
  if ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae) return b;
  if (b <= 0x20) return 256u + b;
  if (b == 0xad) return 256u + 67;
  return 256u + 33 + (b - 0x7fu); /* 0x7f..0xa0 */
}

/* Texts of the 256 bytes: one or two bytes of UTF-8 each, made once. */
static const char *byte_text(uint8_t b, size_t *len) {
  static _Thread_local char buf[2];
  uint32_t c = foray_byte_codepoint(b);
  *len = c < 0x80 ? 1 : 2;
  if (c < 0x80) {
    buf[0] = (char)c;
  } else {
    buf[0] = (char)(0xc0 | c >> 6);
    buf[1] = (char)(0x80 | (c & 63));
  }
  return buf;
}

/* Inverse: the byte that a code point of at most two UTF-8 bytes stands for, or -1. */
static int codepoint_byte(uint32_t c) {
  if (c < 256) return foray_byte_codepoint((uint8_t)c) == c ? (int)c : -1;
  if (c <= 256 + 0x20) return (int)c - 256;
  if (c <= 256 + 66) return (int)(c - 256 - 33 + 0x7f);
  return c == 256 + 67 ? 0xad : -1;
}

static size_t decode_bpe(const char *p, size_t n, uint8_t *out) {
  size_t o = 0;
  for (size_t i = 0; i < n;) {
    uint8_t a = (uint8_t)p[i];
    int b = -1;
    size_t used = 1;
    if (a < 0x80) {
      b = codepoint_byte(a);
    } else if ((a & 0xe0) == 0xc0 && i + 1 < n) {
      used = 2;
      b = codepoint_byte((a & 31u) << 6 | ((uint8_t)p[i + 1] & 63u));
    }
    if (b >= 0)
      out[o++] = (uint8_t)b;
    else
      for (size_t k = 0; k < used; k++) out[o++] = (uint8_t)p[i + k];
    i += used;
  }
  return o;
}

static size_t decode_spm(const char *p, size_t n, uint8_t *out) {
  size_t o = 0;
  for (size_t i = 0; i < n;) {
    if (n - i >= 3 && memcmp(p + i, "\xe2\x96\x81", 3) == 0) {
      out[o++] = ' ';
      i += 3;
    } else {
      out[o++] = (uint8_t)p[i++];
    }
  }
  return o;
}

static int hex(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

/* "<0xNN>" with two upper-case digits, and nothing else. */
static int byte_token_value(const struct foray_gguf_str s) {
  if (s.len != 6 || memcmp(s.ptr, "<0x", 3) || s.ptr[5] != '>') return -1;
  int hi = hex(s.ptr[3]), lo = hex(s.ptr[4]);
  return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

/* ---------------------------------------------------------------- reading */

struct loader {
  const struct foray_gguf *g;
  struct foray_tokenizer *t;
  struct foray_err *err;
};

__attribute__((format(printf, 3, 4))) static enum foray_status bad(struct loader *l, enum foray_status code,
                                                                   const char *fmt, ...) {
  char why[FORAY_ERR_MSG_MAX];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  return foray_err_set(l->err, code, "%s: %s", foray_gguf_path(l->g), why);
}

static enum foray_status no_memory(struct loader *l) {
  return bad(l, FORAY_E_NOMEM, "out of memory for the tokenizer");
}

static enum foray_status load_tokens(struct loader *l) {
  struct foray_tokenizer *t = l->t;
  const struct foray_gguf_kv *tokens, *kinds = NULL, *scores = NULL;
  enum foray_status s = foray_gguf_get_array(l->g, "tokenizer.ggml.tokens", FORAY_GGUF_STR, &tokens, l->err);
  if (s) return s == FORAY_E_NOTFOUND ? bad(l, FORAY_E_FORMAT, "key 'tokenizer.ggml.tokens' is missing") : s;
  if (tokens->count == 0 || tokens->count > INT32_MAX / 4)
    return bad(l, FORAY_E_FORMAT, "%llu tokens", (unsigned long long)tokens->count);
  t->n_vocab = (uint32_t)tokens->count;
  s = foray_gguf_get_array(l->g, "tokenizer.ggml.token_type", FORAY_GGUF_I32, &kinds, l->err);
  if (s && s != FORAY_E_NOTFOUND) return s;
  if (t->model == FORAY_TOK_SPM) {
    s = foray_gguf_get_array(l->g, "tokenizer.ggml.scores", FORAY_GGUF_F32, &scores, l->err);
    if (s)
      return s == FORAY_E_NOTFOUND ? bad(l, FORAY_E_FORMAT, "key 'tokenizer.ggml.scores' is missing") : s;
  }
  if ((kinds && kinds->count != t->n_vocab) || (scores && scores->count != t->n_vocab))
    return bad(l, FORAY_E_FORMAT, "%u tokens, but %llu token types and %llu scores", t->n_vocab,
               kinds ? (unsigned long long)kinds->count : 0, scores ? (unsigned long long)scores->count : 0);
  t->kinds = malloc(t->n_vocab);
  t->eog = calloc(t->n_vocab, 1);
  if (scores) t->scores = malloc((size_t)t->n_vocab * sizeof *t->scores);
  if (!t->kinds || !t->eog || (scores && !t->scores) || foray_strtab_init(&t->strs, t->n_vocab))
    return no_memory(l);
  size_t at = 0;
  struct foray_gguf_str str;
  for (uint32_t i = 0; foray_gguf_array_next(tokens, &at, &str); i++) {
    uint32_t kind = kinds ? foray_gguf_array_u32(kinds, i) : FORAY_TOKEN_NORMAL, id;
    if (kind > FORAY_TOKEN_BYTE)
      return bad(l, FORAY_E_FORMAT, "token %u has type %u, which does not exist", i, kind);
    t->kinds[i] = (uint8_t)kind;
    if (scores) {
      t->scores[i] = foray_gguf_array_f32(scores, i);
      if (!isfinite(t->scores[i])) return bad(l, FORAY_E_FORMAT, "the score of token %u is not a number", i);
    }
    if (foray_strtab_add(&t->strs, str.ptr, str.len, &id)) return no_memory(l);
  }
  return FORAY_OK;
}

static enum foray_status make_pieces(struct loader *l) {
  struct foray_tokenizer *t = l->t;
  size_t total = 0;
  for (uint32_t i = 0; i < t->n_vocab; i++) total += t->strs.strs[i].len;
  t->pieces = malloc(total + 1);
  t->piece_at = malloc(((size_t)t->n_vocab + 1) * sizeof *t->piece_at);
  if (!t->pieces || !t->piece_at) return no_memory(l);
  size_t at = 0;
  for (uint32_t i = 0; i < t->n_vocab; i++) {
    const struct foray_gguf_str s = t->strs.strs[i];
    t->piece_at[i] = at;
    int value;
    switch (t->kinds[i]) {
    case FORAY_TOKEN_NORMAL:
      at += t->model == FORAY_TOK_BPE ? decode_bpe(s.ptr, s.len, t->pieces + at)
                                      : decode_spm(s.ptr, s.len, t->pieces + at);
      break;
    case FORAY_TOKEN_BYTE:
      value = byte_token_value(s);
      if (value < 0)
        return bad(l, FORAY_E_FORMAT, "token %u is a byte token, but its text is not of the form <0xNN>", i);
      t->pieces[at++] = (uint8_t)value;
      break;
    case FORAY_TOKEN_UNUSED: break;
    default: memcpy(t->pieces + at, s.ptr, s.len); at += s.len;
    }
  }
  t->piece_at[t->n_vocab] = at;
  return FORAY_OK;
}

static enum foray_status special_id(struct loader *l, const char *key, int32_t *out) {
  uint32_t v = UINT32_MAX;
  *out = -1;
  if (!foray_gguf_find_kv(l->g, key)) return FORAY_OK;
  enum foray_status s = foray_gguf_get_u32(l->g, key, &v, l->err);
  if (s) return s;
  if (v >= l->t->n_vocab)
    return bad(l, FORAY_E_FORMAT, "key '%s' is %u, but there are only %u tokens", key, v, l->t->n_vocab);
  *out = (int32_t)v;
  return FORAY_OK;
}

/* Names that end a reply in the models of our architectures, whatever the metadata says. */
static const char *const end_names[] = {
    "<|eot_id|>",   "<|im_end|>", "<|end|>",  "<end_of_turn>", "<|endoftext|>",  "<|eom_id|>",
    "<EOT>",        "_<EOT>",     "</s>",     "<|fim_pad|>",   "<|repo_name|>",  "<reponame>",
    "<|file_sep|>", "<|return|>", "<|call|>", "<|flush|>",     "<|end_of_text|>"};

/* Such a token is a control token even where the file calls it normal text (many converters do): llama.cpp
 * sets them right in the same way, so that a template's end mark is one token. */
static void load_end_names(struct foray_tokenizer *t) {
  for (size_t i = 0; i < sizeof end_names / sizeof *end_names; i++) {
    int32_t id = foray_tokenizer_find(t, end_names[i], strlen(end_names[i]));
    if (id < 0) continue;
    t->eog[id] = 1;
    t->kinds[id] = FORAY_TOKEN_CONTROL;
  }
}

static enum foray_status load_special(struct loader *l) {
  struct foray_tokenizer *t = l->t;
  int32_t eot = -1, eom = -1;
  enum foray_status s;
  if ((s = special_id(l, "tokenizer.ggml.bos_token_id", &t->bos)) ||
      (s = special_id(l, "tokenizer.ggml.eos_token_id", &t->eos)) ||
      (s = special_id(l, "tokenizer.ggml.eot_token_id", &eot)) ||
      (s = special_id(l, "tokenizer.ggml.eom_token_id", &eom)) ||
      (s = special_id(l, "tokenizer.ggml.unknown_token_id", &t->unk)) ||
      (s = special_id(l, "tokenizer.ggml.padding_token_id", &t->pad)))
    return s;
  if (t->eos >= 0) t->eog[t->eos] = 1;
  if (eot >= 0) t->eog[eot] = 1;
  if (eom >= 0) t->eog[eom] = 1;
  t->add_bos = t->model == FORAY_TOK_SPM || strcmp(t->pre, "llama-bpe") == 0;
  t->add_space_prefix = t->model == FORAY_TOK_SPM;
  if ((s = foray_gguf_opt_bool(l->g, "tokenizer.ggml.add_bos_token", &t->add_bos, l->err)) ||
      (s = foray_gguf_opt_bool(l->g, "tokenizer.ggml.add_eos_token", &t->add_eos, l->err)) ||
      (s = foray_gguf_opt_bool(l->g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, l->err)))
    return s;
  if (t->add_bos && t->bos < 0)
    return bad(l, FORAY_E_FORMAT, "BOS is to be added, but tokenizer.ggml.bos_token_id is missing");
  if (t->add_eos && t->eos < 0)
    return bad(l, FORAY_E_FORMAT, "EOS is to be added, but tokenizer.ggml.eos_token_id is missing");
  return FORAY_OK;
}

static uint32_t trie_node(struct foray_tokenizer *t, uint8_t byte) {
  if (t->n_trie == t->cap_trie) {
    uint32_t cap = t->cap_trie ? t->cap_trie * 2 : 256;
    struct foray_trie_node *p = realloc(t->trie, cap * sizeof *p);
    if (!p) return 0;
    t->trie = p;
    t->cap_trie = cap;
  }
  t->trie[t->n_trie] = (struct foray_trie_node){.token = -1, .byte = byte};
  return t->n_trie++;
}

static enum foray_status make_trie(struct loader *l) {
  struct foray_tokenizer *t = l->t;
  trie_node(t, 0);
  if (!t->trie) return no_memory(l);
  for (uint32_t i = 0; i < t->n_vocab; i++) {
    const struct foray_gguf_str s = t->strs.strs[i];
    uint8_t kind = t->kinds[i];
    if ((kind != FORAY_TOKEN_CONTROL && kind != FORAY_TOKEN_USER_DEFINED && kind != FORAY_TOKEN_UNKNOWN) ||
        s.len == 0)
      continue;
    if (s.len > SPECIAL_TEXT_MAX)
      return bad(l, FORAY_E_LIMIT, "special token %u has %zu bytes; %d are allowed", i, s.len,
                 SPECIAL_TEXT_MAX);
    uint32_t at = 0;
    for (size_t k = 0; k < s.len; k++) {
      uint32_t c = t->trie[at].child;
      while (c && t->trie[c].byte != (uint8_t)s.ptr[k]) c = t->trie[c].sibling;
      if (!c) {
        if (!(c = trie_node(t, (uint8_t)s.ptr[k]))) return no_memory(l);
        t->trie[c].sibling = t->trie[at].child;
        t->trie[at].child = c;
      }
      at = c;
    }
    t->trie[at].token = (int32_t)i;
  }
  return FORAY_OK;
}

/* ---------------------------------------------------------------- byte-pair encoding */

const struct foray_merge *foray_find_merge(const struct foray_tokenizer *t, uint32_t left, uint32_t right) {
  if (!t->n_merges) return NULL;
  for (size_t at = foray_pair_hash(left, right, t->strs.key) & t->merge_mask; t->merge_slots[at];
       at = (at + 1) & t->merge_mask) {
    const struct foray_merge *m = &t->merges[t->merge_slots[at] - 1];
    if (m->left == left && m->right == right) return m;
  }
  return NULL;
}

static enum foray_status intern(struct loader *l, const char *p, size_t n, uint32_t *out) {
  *out = foray_strtab_find(&l->t->strs, p, n);
  if (*out != UINT32_MAX) return FORAY_OK;
  return foray_strtab_add(&l->t->strs, p, n, out) ? no_memory(l) : FORAY_OK;
}

static enum foray_status load_merges(struct loader *l) {
  struct foray_tokenizer *t = l->t;
  const struct foray_gguf_kv *kv;
  enum foray_status s = foray_gguf_get_array(l->g, "tokenizer.ggml.merges", FORAY_GGUF_STR, &kv, l->err);
  if (s) return s == FORAY_E_NOTFOUND ? bad(l, FORAY_E_FORMAT, "key 'tokenizer.ggml.merges' is missing") : s;
  size_t slots = 64, used = 0, at = 0;
  while (slots < kv->count * 2) slots *= 2;
  t->merges = malloc((size_t)(kv->count ? kv->count : 1) * sizeof *t->merges);
  t->merge_slots = calloc(slots, sizeof *t->merge_slots);
  t->merge_mask = slots - 1;
  /* Room for the texts of results and bytes that are no tokens; strings never move once they are in the
   * table. */
  t->joined = malloc((size_t)kv->bytes + 512);
  if (!t->merges || !t->merge_slots || !t->joined) return no_memory(l);
  for (int b = 0; b < 256; b++) {
    size_t n;
    const char *text = byte_text((uint8_t)b, &n);
    memcpy(t->joined + used, text, n);
    if ((s = intern(l, t->joined + used, n, &t->byte_sym[b]))) return s;
    used += n;
  }
  struct foray_gguf_str str;
  while (foray_gguf_array_next(kv, &at, &str)) {
    const char *space = str.len > 1 ? memchr(str.ptr + 1, ' ', str.len - 1) : NULL;
    if (!space) return bad(l, FORAY_E_FORMAT, "merge %u has no space between its two parts", t->n_merges);
    size_t left = (size_t)(space - str.ptr), right = str.len - left - 1;
    struct foray_merge m = {.rank = t->n_merges};
    if ((s = intern(l, str.ptr, left, &m.left)) || (s = intern(l, space + 1, right, &m.right))) return s;
    char *joined =
        t->joined + used; /* str.len - 1 bytes, of the str.len + 8 that this entry has in the file */
    memcpy(joined, str.ptr, left);
    memcpy(joined + left, space + 1, right);
    if ((s = intern(l, joined, left + right, &m.result))) return s;
    used += left + right;
    t->merges[t->n_merges++] = m;
    size_t slot = foray_pair_hash(m.left, m.right, t->strs.key) & t->merge_mask;
    while (t->merge_slots[slot] && (t->merges[t->merge_slots[slot] - 1].left != m.left ||
                                    t->merges[t->merge_slots[slot] - 1].right != m.right))
      slot = (slot + 1) & t->merge_mask;
    if (!t->merge_slots[slot]) t->merge_slots[slot] = t->n_merges; /* of equal rules the first one counts */
  }
  return FORAY_OK;
}

/* Classes for use inside brackets. LET and NUM are Unicode 15.1's letters and numbers, which llama.cpp has:
 * PCRE2 10.42 knows Unicode 14, so what was added since is written out. WS is White_Space: PCRE2's \s has one
 * character more (U+180E). */
#define LET                                                                                                  \
  "\\p{L}\\x{1123f}\\x{11240}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{"  \
  "13446}"                                                                                                   \
  "\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{2b739}\\x{2ebf0}-" \
  "\\x{2ee5d}"                                                                                               \
  "\\x{31350}-\\x{323af}"
#define NUM "\\p{N}\\x{11f50}-\\x{11f59}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"
#define WS                                                                                                   \
  "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define ENDS   "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define WORD   "[^\\r\\n" LET NUM "]?[" LET "]+"
#define SIGNS  " ?[^" WS LET NUM "]+[\\r\\n]*"
#define SPACES "[" WS "]*[\\r\\n]+|[" WS "]+(?![^" WS "])|[" WS "]+"
#define GPT2                                                                                                 \
  "'s|'t|'re|'ve|'m|'ll|'d| ?[" LET "]+| ?[" NUM "]+| ?[^" WS LET NUM "]+|[" WS "]+(?![^" WS "])|[" WS "]+"

/* Pre-tokenizers by name; names that llama.cpp treats alike share a row's patterns. */
static const struct {
  const char *name, *first, *second;
  bool ignore_merges;
} pres[] = {
    {"gpt-2", GPT2, NULL, false},
    {"default", GPT2, NULL, false},
    {"smollm", "[" NUM "]", GPT2, false},
    {"starcoder", "[" NUM "]", GPT2, false},
    {"qwen2", ENDS "|" WORD "|[" NUM "]|" SIGNS "|" SPACES, NULL, false},
    {"deepseek-r1-qwen", ENDS "|" WORD "|[" NUM "]|" SIGNS "|" SPACES, NULL, false},
    {"llama-bpe", ENDS "|" WORD "|[" NUM "]{1,3}|" SIGNS "|" SPACES, NULL, true},
    {"llama3", ENDS "|" WORD "|[" NUM "]{1,3}|" SIGNS "|" SPACES, NULL, true},
};

static enum foray_status compile(struct loader *l, const char *pattern, pcre2_code **out) {
  int code;
  PCRE2_SIZE at;
  *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK,
                       &code, &at, NULL);
  if (!*out)
    return bad(l, FORAY_E_UNSUPPORTED, "the pre-tokenizer's pattern does not compile (PCRE2 error %d)", code);
  (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* without JIT it is slower, not different */
  return FORAY_OK;
}

static enum foray_status load_bpe(struct loader *l) {
  struct foray_tokenizer *t = l->t;
  size_t n = sizeof pres / sizeof *pres, i = 0;
  while (i < n && strcmp(pres[i].name, t->pre)) i++;
  if (i == n)
    return bad(l, FORAY_E_UNSUPPORTED, "pre-tokenizer '%s'; gpt-2, smollm, qwen2 and llama-bpe are supported",
               t->pre);
  t->ignore_merges = pres[i].ignore_merges;
  enum foray_status s = compile(l, pres[i].first, &t->patterns[0]);
  if (!s && pres[i].second) s = compile(l, pres[i].second, &t->patterns[1]);
  return s ? s : load_merges(l);
}

static enum foray_status load_spm(struct loader *l) {
  struct foray_tokenizer *t = l->t;
  for (int b = 0; b < 256; b++) {
    char name[8];
    int n = snprintf(name, sizeof name, "<0x%02X>", b);
    char raw = (char)b;
    t->byte_token[b] = foray_tokenizer_find(t, name, (size_t)n);
    if (t->byte_token[b] < 0) t->byte_token[b] = foray_tokenizer_find(t, &raw, 1);
  }
  return FORAY_OK;
}

static enum foray_status load(struct loader *l) {
  struct foray_tokenizer *t = l->t;
  struct foray_gguf_str model, pre = {"default", 7};
  enum foray_status s = foray_gguf_get_str(l->g, "tokenizer.ggml.model", &model, l->err);
  if (s) return s == FORAY_E_NOTFOUND ? bad(l, FORAY_E_FORMAT, "key 'tokenizer.ggml.model' is missing") : s;
  if (model.len == 4 && memcmp(model.ptr, "gpt2", 4) == 0)
    t->model = FORAY_TOK_BPE;
  else if (model.len == 5 && memcmp(model.ptr, "llama", 5) == 0)
    t->model = FORAY_TOK_SPM;
  else
    return bad(l, FORAY_E_UNSUPPORTED, "tokenizer model '%.*s'; gpt2 and llama are supported",
               (int)(model.len < 40 ? model.len : 40), model.ptr);
  if ((s = foray_gguf_opt_str(l->g, "tokenizer.ggml.pre", &pre, l->err))) return s;
  snprintf(t->pre, sizeof t->pre, "%.*s", (int)(pre.len < 31 ? pre.len : 31), pre.ptr);
  if ((s = load_tokens(l))) return s;
  load_end_names(t);
  if ((s = make_pieces(l)) || (s = load_special(l)) || (s = make_trie(l))) return s;
  return t->model == FORAY_TOK_BPE ? load_bpe(l) : load_spm(l);
}

enum foray_status foray_tokenizer_open(const struct foray_gguf *g, struct foray_tokenizer **out,
                                       struct foray_err *err) {
  *out = NULL;
  struct loader l = {.g = g, .t = calloc(1, sizeof *l.t), .err = err};
  if (!l.t) return no_memory(&l);
  enum foray_status s = load(&l);
  if (s) {
    foray_tokenizer_close(l.t);
    return s;
  }
  *out = l.t;
  return FORAY_OK;
}

void foray_tokenizer_close(struct foray_tokenizer *t) {
  if (!t) return;
  foray_strtab_deinit(&t->strs);
  free(t->kinds);
  free(t->scores);
  free(t->eog);
  free(t->pieces);
  free(t->piece_at);
  free(t->merges);
  free(t->merge_slots);
  free(t->joined);
  free(t->trie);
  pcre2_code_free(t->patterns[0]);
  pcre2_code_free(t->patterns[1]);
  free(t);
}

/* ---------------------------------------------------------------- access */

uint32_t foray_tokenizer_n_vocab(const struct foray_tokenizer *t) { return t->n_vocab; }

static bool known(const struct foray_tokenizer *t, int32_t id) {
  return id >= 0 && (uint32_t)id < t->n_vocab;
}

const char *foray_tokenizer_piece(const struct foray_tokenizer *t, int32_t id, size_t *len) {
  *len = known(t, id) ? t->piece_at[id + 1] - t->piece_at[id] : 0;
  return *len ? (const char *)t->pieces + t->piece_at[id] : "";
}

enum foray_token_kind foray_tokenizer_kind(const struct foray_tokenizer *t, int32_t id) {
  return known(t, id) ? (enum foray_token_kind)t->kinds[id] : FORAY_TOKEN_UNDEFINED;
}

int32_t foray_tokenizer_find(const struct foray_tokenizer *t, const char *text, size_t len) {
  uint32_t i = foray_strtab_find(&t->strs, text, len);
  return i < t->n_vocab ? (int32_t)i : -1;
}

int32_t foray_tokenizer_bos(const struct foray_tokenizer *t) { return t->bos; }
int32_t foray_tokenizer_eos(const struct foray_tokenizer *t) { return t->eos; }
int32_t foray_tokenizer_unk(const struct foray_tokenizer *t) { return t->unk; }
int32_t foray_tokenizer_pad(const struct foray_tokenizer *t) { return t->pad; }
bool foray_tokenizer_adds_bos(const struct foray_tokenizer *t) { return t->add_bos; }
bool foray_tokenizer_adds_space(const struct foray_tokenizer *t) {
  return t->add_space_prefix && t->model == FORAY_TOK_SPM;
}
bool foray_tokenizer_is_eog(const struct foray_tokenizer *t, int32_t id) {
  return known(t, id) && t->eog[id];
}

void foray_tokenizer_hash(const struct foray_tokenizer *t, uint8_t out[FORAY_SHA256_BYTES]) {
  memset(out, 0, FORAY_SHA256_BYTES);
  struct foray_sha256 *h = foray_sha256_open();
  if (!h) return;
  const uint32_t head[] = {1,
                           (uint32_t)t->model,
                           t->n_vocab,
                           (uint32_t)t->bos,
                           (uint32_t)t->eos,
                           (uint32_t)t->unk,
                           (uint32_t)t->add_bos,
                           (uint32_t)t->add_eos,
                           (uint32_t)t->add_space_prefix,
                           t->n_merges};
  foray_sha256_update(h, head, sizeof head);
  foray_sha256_update(h, t->pre, strlen(t->pre) + 1);
  for (uint32_t i = 0; i < t->n_vocab; i++) {
    uint64_t len = t->strs.strs[i].len;
    foray_sha256_update(h, &len, sizeof len);
    foray_sha256_update(h, t->strs.strs[i].ptr, (size_t)len);
  }
  foray_sha256_update(h, t->kinds, t->n_vocab);
  if (t->scores) foray_sha256_update(h, t->scores, (size_t)t->n_vocab * sizeof *t->scores);
  for (uint32_t i = 0; i < t->n_merges; i++) foray_sha256_update(h, &t->merges[i], 12);
  foray_sha256_close(h, out);
}
