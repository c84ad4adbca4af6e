/* model/config.h - what a model's metadata says about its shape, checked. Plain data, read-only after
 * foray_config_read. */
#ifndef FORAY_MODEL_CONFIG_H
#define FORAY_MODEL_CONFIG_H

#include "model/gguf.h"

enum foray_arch { FORAY_ARCH_LLAMA = 0, FORAY_ARCH_QWEN2 = 1, FORAY_ARCH_GEMMA3 = 2 };
/* NORM rotates neighbours (2i, 2i+1), NEOX rotates (i, i + rope_dim/2). */
enum foray_rope_style { FORAY_ROPE_NORM = 0, FORAY_ROPE_NEOX = 1 };
enum foray_act { FORAY_ACT_SILU = 0, FORAY_ACT_GELU_TANH = 1 };

/* Named limits: a file above one of them is refused. */
enum {
  FORAY_LAYERS_MAX = 512,
  FORAY_HEADS_MAX = 1024,
  FORAY_HEAD_DIM_MAX = 1024,
  FORAY_EMBD_MAX = 1 << 20,
  FORAY_FF_MAX = 1 << 22,
  FORAY_VOCAB_MAX = 1 << 22,
  FORAY_CTX_TRAIN_MAX = 1 << 27
};

struct foray_model_config {
  enum foray_arch arch;
  uint32_t n_layer;
  uint32_t n_embd;
  uint32_t n_ff;
  uint32_t n_head;    /* query heads */
  uint32_t n_head_kv; /* divides n_head */
  uint32_t head_dim;  /* of q, k and v; even; n_head * head_dim may differ from n_embd */
  uint32_t n_vocab;   /* rows of token_embd, and tokens of the tokenizer */
  uint32_t n_ctx_train;
  float rms_eps;
  enum foray_rope_style rope_style;
  uint32_t rope_dim;     /* rotated elements of a head, even, <= head_dim */
  float rope_base;       /* of global layers */
  float rope_base_local; /* of layers with a window (gemma3); equal to rope_base elsewhere */
  float rope_scale;      /* positions are multiplied by this (linear scaling of global layers); 1 without */
  float attn_scale;      /* logits of attention = q.k * attn_scale */
  uint32_t window;       /* local layers see keys with (query position - key position) < window; 0 = none */
  uint32_t
      window_pattern;  /* layer il is local when window and il % pattern < pattern - 1; 0 = no local layer */
  bool qkv_bias;       /* qwen2: F32 bias on q, k, v */
  bool qk_norm;        /* gemma3: RMS norm of each head of q and k before RoPE */
  bool post_norms;     /* gemma3: RMS norm after attention and after the feed-forward, before the adds */
  bool tied;           /* no output.weight: the embedding is the head */
  float embd_scale;    /* embeddings are multiplied by this: 1, or sqrt(n_embd) for gemma3 */
  enum foray_act act;  /* gate activation */
  float logit_softcap; /* logits = c * tanh(logits / c) when not 0 */
  float attn_softcap;  /* the same for attention logits when not 0 */
};

static inline bool foray_config_layer_local(const struct foray_model_config *c, uint32_t layer) {
  return c->window && c->window_pattern && layer % c->window_pattern < c->window_pattern - 1;
}
static inline float foray_config_layer_rope_base(const struct foray_model_config *c, uint32_t layer) {
  return foray_config_layer_local(c, layer) ? c->rope_base_local : c->rope_base;
}

const char *foray_arch_name(enum foray_arch a); /* "llama", "qwen2", "gemma3" */

/* Fills *out from a file. FORAY_E_UNSUPPORTED names an unknown architecture or feature (rope scaling other
 * than linear, per-layer head counts), FORAY_E_FORMAT names the key that is missing or out of range. */
enum foray_status foray_config_read(const struct foray_gguf *g, struct foray_model_config *out,
                                    struct foray_err *err) FORAY_NODISCARD;

#endif
