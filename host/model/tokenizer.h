/* model/tokenizer.h - text to token ids and back, equal to llama.cpp on every input.
 *
 * Kinds: byte-pair encoding (tokenizer.ggml.model = gpt2; pre = smollm, qwen2, gpt-2, llama-bpe and the names
 * that llama.cpp treats alike) and SPM with byte fallback (llama). Text is any bytes: what is not UTF-8 is
 * taken as llama.cpp takes it (docs of foray_tokenizer_encode).
 *
 * Thread rule: immutable after open; any number of threads may encode and decode at once. A foray_detok
 * belongs to one thread. */
#ifndef FORAY_MODEL_TOKENIZER_H
#define FORAY_MODEL_TOKENIZER_H

#include "core/buf.h"
#include "core/hash.h"
#include "model/gguf.h"

struct foray_tokenizer; /* opaque */

enum foray_token_kind { /* as tokenizer.ggml.token_type */
                        FORAY_TOKEN_UNDEFINED = 0,
                        FORAY_TOKEN_NORMAL = 1,
                        FORAY_TOKEN_UNKNOWN = 2,
                        FORAY_TOKEN_CONTROL = 3,
                        FORAY_TOKEN_USER_DEFINED = 4,
                        FORAY_TOKEN_UNUSED = 5,
                        FORAY_TOKEN_BYTE = 6,
};

enum foray_encode_flags {
  /* Names of control tokens in the text become these tokens. Leave it off for text that a user wrote, or
   * users inject control tokens. USER_DEFINED tokens match either way. */
  FORAY_ENCODE_SPECIAL = 1,
  /* Adds BOS and EOS where the file's metadata asks for them (add_bos_token, add_eos_token). */
  FORAY_ENCODE_BOS = 2,
};

/* Growing list of ids; zero-initialise. ids is owned: free with foray_ids_deinit. */
struct foray_ids {
  int32_t *ids;
  size_t n, cap;
};
void foray_ids_deinit(struct foray_ids *v);
enum foray_status foray_ids_add(struct foray_ids *v, int32_t id) FORAY_NODISCARD; /* FORAY_E_NOMEM */

/* Builds the tables from a file's metadata; the gguf must outlive the tokenizer (token texts stay in its
 * mapping). FORAY_E_UNSUPPORTED names an unknown model or pre-tokenizer; FORAY_E_FORMAT what is malformed. */
enum foray_status foray_tokenizer_open(const struct foray_gguf *g, struct foray_tokenizer **out,
                                       struct foray_err *err) FORAY_NODISCARD;
void foray_tokenizer_close(struct foray_tokenizer *t); /* NULL is allowed */

/* Appends the ids of text[0..len) to *out. flags: enum foray_encode_flags. FORAY_E_NOMEM, FORAY_E_LIMIT (a
 * pattern ran into its match limit, or len >= 2^30); out keeps what was appended before. Time is O(len log
 * len). */
enum foray_status foray_tokenizer_encode(const struct foray_tokenizer *t, const char *text, size_t len,
                                         unsigned flags, struct foray_ids *out,
                                         struct foray_err *err) FORAY_NODISCARD;

/* The text is the concatenation of the spans; control tokens are recognised inside spans with `special` only.
 * Adjacent spans are one text for the pre-tokenizer, so that the result for harmless content equals the
 * encoding of the joined text with FORAY_ENCODE_SPECIAL. */
struct foray_span {
  const char *text; /* borrowed */
  size_t len;
  bool special;
};
enum foray_status foray_tokenizer_encode_spans(const struct foray_tokenizer *t,
                                               const struct foray_span *spans, size_t n_spans, unsigned flags,
                                               struct foray_ids *out, struct foray_err *err) FORAY_NODISCARD;

uint32_t foray_tokenizer_n_vocab(const struct foray_tokenizer *t);
/* Raw bytes that token id stands for (may be part of a character); *len is set. Control tokens give their
 * name
 * ("<|im_end|>"). "" for an id outside the vocabulary. Borrowed, not NUL-terminated. */
const char *foray_tokenizer_piece(const struct foray_tokenizer *t, int32_t id, size_t *len);
enum foray_token_kind foray_tokenizer_kind(const struct foray_tokenizer *t, int32_t id);
/* The id whose text in the file is exactly this, or -1. */
int32_t foray_tokenizer_find(const struct foray_tokenizer *t, const char *text, size_t len);

/* -1 where the file has none. */
int32_t foray_tokenizer_bos(const struct foray_tokenizer *t);
int32_t foray_tokenizer_eos(const struct foray_tokenizer *t);
int32_t foray_tokenizer_unk(const struct foray_tokenizer *t);
int32_t foray_tokenizer_pad(const struct foray_tokenizer *t);
bool foray_tokenizer_adds_bos(const struct foray_tokenizer *t);
/* SPM files that put a space before the text (it is taken off again by foray_detok). */
bool foray_tokenizer_adds_space(const struct foray_tokenizer *t);
/* True for every token that ends a reply: eos, eot, eom and known end names. */
bool foray_tokenizer_is_eog(const struct foray_tokenizer *t, int32_t id);

/* Identity for the hello message: SHA-256 over kind, pre-tokenizer, flags, special ids, and text, kind and
 * score of each token, and the merges. Two models with the same hash give the same ids for the same text. */
void foray_tokenizer_hash(const struct foray_tokenizer *t, uint8_t out[FORAY_SHA256_BYTES]);

/* Streaming text of ids. Whole characters only: the bytes of an unfinished UTF-8 sequence are held back until
 * it is complete or certainly invalid (then they pass as they are). Zero-initialise; set `special` to show
 * control tokens by name (they are left out otherwise). */
struct foray_detok {
  bool special;
  bool started; /* internal: the one leading space that SPM added has been dealt with */
  uint8_t held[4];
  uint8_t n_held;
};
/* Appends the text that token id completes to *out (may be nothing). FORAY_E_NOMEM, FORAY_E_LIMIT of the
 * buffer, FORAY_E_ARG for an id outside the vocabulary. */
enum foray_status foray_detok_feed(struct foray_detok *d, const struct foray_tokenizer *t, int32_t id,
                                   struct foray_buf *out) FORAY_NODISCARD;
/* Appends held bytes as they are; the detokeniser can be used again. */
enum foray_status foray_detok_finish(struct foray_detok *d, struct foray_buf *out) FORAY_NODISCARD;

#endif
