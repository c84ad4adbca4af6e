/* model/tokenizer_impl.h - tables shared by tokenizer.c (reading), encode.c and detok.c. Not for others. */
#ifndef FORAY_MODEL_TOKENIZER_IMPL_H
#define FORAY_MODEL_TOKENIZER_IMPL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "model/tokenizer.h"

enum foray_tok_model { FORAY_TOK_BPE, FORAY_TOK_SPM };

/* Strings to numbers: open addressing, keyed with a random value so that a file cannot choose its collisions.
 */
struct foray_strtab {
  uint32_t *slots; /* index + 1, 0 = free */
  size_t mask;
  uint64_t key;
  struct foray_gguf_str *strs; /* owned array, borrowed bytes */
  uint32_t n, cap;
};
enum foray_status foray_strtab_init(struct foray_strtab *t, size_t expected);
void foray_strtab_deinit(struct foray_strtab *t);
/* Index of the string, or UINT32_MAX. */
uint32_t foray_strtab_find(const struct foray_strtab *t, const char *p, size_t n);
/* Adds a new string whether or not an equal one is there; the later one is found from then on, as in
 * llama.cpp. */
enum foray_status foray_strtab_add(struct foray_strtab *t, const char *p, size_t n, uint32_t *out);

/* A merge rule: symbols are numbers of the string table (tokens first, other strings after them). */
struct foray_merge {
  uint32_t left, right, result;
  uint32_t rank;
};

/* Trie of the special tokens' texts. Children are a linked list: names of special tokens share few branches.
 */
struct foray_trie_node {
  uint32_t child, sibling; /* 0 = none */
  int32_t token;           /* -1 = none */
  uint8_t byte;
};

struct foray_tokenizer {
  enum foray_tok_model model;
  char pre[32];
  uint32_t n_vocab;
  struct foray_strtab strs; /* 0..n_vocab-1 are the tokens' texts */
  uint8_t *kinds;           /* enum foray_token_kind */
  float *scores;            /* SPM only, else NULL */
  uint8_t *eog;             /* bool by token */
  uint8_t *pieces;          /* decoded bytes of all tokens */
  size_t *piece_at;         /* n_vocab + 1 */
  int32_t bos, eos, unk, pad;
  bool add_bos, add_eos, add_space_prefix, ignore_merges;

  /* BPE */
  uint32_t byte_sym[256]; /* symbol of each byte */
  struct foray_merge *merges;
  uint32_t *merge_slots; /* index + 1 into merges */
  size_t merge_mask;
  uint32_t n_merges;
  char *joined;            /* texts of merge results that are no tokens */
  pcre2_code *patterns[2]; /* applied one after the other; the second may be NULL */

  /* SPM */
  int32_t byte_token[256];

  struct foray_trie_node *trie;
  uint32_t n_trie, cap_trie;
};

/* The 256 texts that stand for bytes in the vocabulary of GPT-2: printable ones for themselves. */
uint32_t foray_byte_codepoint(uint8_t b);

static inline uint64_t foray_pair_hash(uint32_t a, uint32_t b, uint64_t key) {
  unsigned __int128 m = (unsigned __int128)(((uint64_t)a << 32 | b) ^ key) * 0x9E3779B97F4A7C15u;
  return (uint64_t)m ^ (uint64_t)(m >> 64);
}
/* Rule for two adjacent symbols, or NULL. */
const struct foray_merge *foray_find_merge(const struct foray_tokenizer *t, uint32_t left, uint32_t right);

#endif
