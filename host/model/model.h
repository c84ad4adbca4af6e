/* model/model.h - an opened model file: metadata, tensors by role, tokenizer, identity.
 *
 *   struct foray_model *m;
 *   if (foray_model_open("smollm2-135m-instruct", &m, &err)) ...     // catalogue name or path
 *   const struct foray_gguf_tensor *q = foray_model_tensor(m, FORAY_ROLE_ATTN_Q, 3);
 *   foray_dequant_row(q->type, foray_tensor_row(q, r), row, q->ne[0]);
 *   foray_model_close(m);
 *
 * Every tensor that the architecture needs is there, has the shape that the configuration implies and a type
 * that can be dequantised; norms and biases are F32. Thread rule: immutable after open. */
#ifndef FORAY_MODEL_MODEL_H
#define FORAY_MODEL_MODEL_H

#include "core/hash.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

/* X(role, name in the file after "blk.N." for layer roles, per layer, shape: rows x columns)
 * Shapes: E n_embd, F n_ff, Q n_head*head_dim, K n_head_kv*head_dim, D head_dim, V n_vocab, R rope_dim/2. */
#define FORAY_ROLE_MAP(X)                                                                                    \
  X(TOKEN_EMBD, "token_embd.weight", false, 'V', 'E')                                                        \
  X(OUTPUT_NORM, "output_norm.weight", false, 1, 'E')                                                        \
  X(OUTPUT, "output.weight", false, 'V', 'E')                                                                \
  X(ROPE_FREQS, "rope_freqs.weight", false, 1, 'R')                                                          \
  X(ATTN_NORM, "attn_norm.weight", true, 1, 'E')                                                             \
  X(ATTN_Q, "attn_q.weight", true, 'Q', 'E')                                                                 \
  X(ATTN_K, "attn_k.weight", true, 'K', 'E')                                                                 \
  X(ATTN_V, "attn_v.weight", true, 'K', 'E')                                                                 \
  X(ATTN_Q_BIAS, "attn_q.bias", true, 1, 'Q')                                                                \
  X(ATTN_K_BIAS, "attn_k.bias", true, 1, 'K')                                                                \
  X(ATTN_V_BIAS, "attn_v.bias", true, 1, 'K')                                                                \
  X(ATTN_Q_NORM, "attn_q_norm.weight", true, 1, 'D')                                                         \
  X(ATTN_K_NORM, "attn_k_norm.weight", true, 1, 'D')                                                         \
  X(ATTN_OUTPUT, "attn_output.weight", true, 'E', 'Q')                                                       \
  X(ATTN_POST_NORM, "post_attention_norm.weight", true, 1, 'E')                                              \
  X(FFN_NORM, "ffn_norm.weight", true, 1, 'E')                                                               \
  X(FFN_GATE, "ffn_gate.weight", true, 'F', 'E')                                                             \
  X(FFN_UP, "ffn_up.weight", true, 'F', 'E')                                                                 \
  X(FFN_DOWN, "ffn_down.weight", true, 'E', 'F')                                                             \
  X(FFN_POST_NORM, "post_ffw_norm.weight", true, 1, 'E')

enum foray_role {
#define X(role, name, layer, rows, cols) FORAY_ROLE_##role,
  FORAY_ROLE_MAP(X)
#undef X
      FORAY_ROLES
};

struct foray_model {
  struct foray_gguf *gguf; /* owned */
  struct foray_model_config config;
  struct foray_tokenizer *tokenizer;        /* owned */
  const struct foray_gguf_tensor **tensors; /* owned table; use foray_model_tensor */
  char name[128];                           /* catalogue name, or the file's base name without .gguf */
  struct foray_model_lazy *lazy;            /* owned: digest that is computed at first use, with its lock */
};

/* path_or_name: a path when it contains '/' or ends in .gguf or such a file exists; else a name that is in
 * the cache. A catalogue name that was not pulled yet is FORAY_E_NOTFOUND and the text says "foray pull
 * NAME". */
enum foray_status foray_model_open(const char *path_or_name, struct foray_model **out,
                                   struct foray_err *err) FORAY_NODISCARD;
/* A GGUF file in memory (borrowed until close), for tests and fuzzing. */
enum foray_status foray_model_open_memory(const void *data, size_t size, const char *label,
                                          struct foray_model **out, struct foray_err *err) FORAY_NODISCARD;
void foray_model_close(struct foray_model *m); /* NULL is allowed */

/* NULL where this model has no such tensor. layer is ignored for roles that are not per layer. OUTPUT of a
 * tied model is NULL: foray_model_head gives the matrix that makes logits in both cases. */
const struct foray_gguf_tensor *foray_model_tensor(const struct foray_model *m, enum foray_role role,
                                                   uint32_t layer);
const struct foray_gguf_tensor *foray_model_head(const struct foray_model *m);
/* First byte of row r (< ne[1]) of a matrix. */
const uint8_t *foray_tensor_row(const struct foray_gguf_tensor *t, uint64_t r);

const char *foray_role_name(enum foray_role role); /* "attn_q.weight" */
bool foray_role_per_layer(enum foray_role role);
/* Writes "blk.3.attn_q.weight" (always NUL-terminated). */
void foray_role_tensor_name(enum foray_role role, uint32_t layer, char *out, size_t cap);

/* SHA-256 of the whole file; computed at the first call (about a second a gigabyte), then cached.
 * Thread-safe. */
void foray_model_sha256(const struct foray_model *m, uint8_t out[FORAY_SHA256_BYTES]);

#endif
