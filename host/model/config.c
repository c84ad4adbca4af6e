#include "model/config.h"

#include "core/err.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const arch_names[] = {"llama", "qwen2", "gemma3"};

const char *foray_arch_name(enum foray_arch a) {
  return (unsigned)a < sizeof arch_names / sizeof *arch_names ? arch_names[a] : "?";
}

/* The keys of a file carry its architecture's name in front. */
struct reader {
  const struct foray_gguf *g;
  const char *arch;
  struct foray_err *err;
  char key[96];
};

static const char *key(struct reader *r, const char *suffix) {
  snprintf(r->key, sizeof r->key, "%s.%s", r->arch, suffix);
  return r->key;
}

/* Reads an integer and checks its range; optional ones keep their default. */
static enum foray_status number(struct reader *r, const char *suffix, bool needed, uint32_t lo, uint32_t hi,
                                uint32_t *out) {
  const char *k = key(r, suffix);
  enum foray_status s =
      needed ? foray_gguf_get_u32(r->g, k, out, r->err) : foray_gguf_opt_u32(r->g, k, out, r->err);
  if (s == FORAY_E_NOTFOUND)
    return foray_err_set(r->err, FORAY_E_FORMAT, "%s: key '%s' is missing", foray_gguf_path(r->g), k);
  if (s) return s;
  if (*out < lo || *out > hi)
    return foray_err_set(r->err, FORAY_E_FORMAT, "%s: key '%s' is %u; it must be from %u to %u",
                         foray_gguf_path(r->g), k, *out, lo, hi);
  return FORAY_OK;
}

static enum foray_status real(struct reader *r, const char *suffix, bool needed, float lo, float hi,
                              float *out) {
  const char *k = key(r, suffix);
  enum foray_status s =
      needed ? foray_gguf_get_f32(r->g, k, out, r->err) : foray_gguf_opt_f32(r->g, k, out, r->err);
  if (s == FORAY_E_NOTFOUND)
    return foray_err_set(r->err, FORAY_E_FORMAT, "%s: key '%s' is missing", foray_gguf_path(r->g), k);
  if (s) return s;
  if (!(*out >= lo && *out <= hi))
    return foray_err_set(r->err, FORAY_E_FORMAT, "%s: key '%s' is %g; it must be from %g to %g",
                         foray_gguf_path(r->g), k, (double)*out, (double)lo, (double)hi);
  return FORAY_OK;
}

static enum foray_status unsupported(struct reader *r, const char *what) {
  return foray_err_set(r->err, FORAY_E_UNSUPPORTED, "%s: %s", foray_gguf_path(r->g), what);
}

static enum foray_status read_rope(struct reader *r, struct foray_model_config *c) {
  enum foray_status s;
  c->rope_dim = c->head_dim;
  if ((s = number(r, "rope.dimension_count", false, 2, c->head_dim, &c->rope_dim))) return s;
  if (c->rope_dim % 2) return unsupported(r, "an odd number of rotated dimensions");
  c->rope_base = 10000.0f;
  if ((s = real(r, "rope.freq_base", false, 1.0f, 1e12f, &c->rope_base))) return s;
  c->rope_base_local = c->rope_base;
  c->rope_scale = 1.0f;
  struct foray_gguf_str kind = {"linear", 6};
  if ((s = foray_gguf_opt_str(r->g, key(r, "rope.scaling.type"), &kind, r->err))) return s;
  if (kind.len == 4 && memcmp(kind.ptr, "none", 4) == 0) return FORAY_OK;
  float factor = 1.0f;
  if ((s = real(r, "rope.scaling.factor", false, 1e-3f, 1e6f, &factor))) return s;
  if (kind.len != 6 || memcmp(kind.ptr, "linear", 6)) {
    return foray_err_set(r->err, FORAY_E_UNSUPPORTED,
                         "%s: RoPE scaling of type '%.*s'; none and linear are supported",
                         foray_gguf_path(r->g), (int)(kind.len < 40 ? kind.len : 40), kind.ptr);
  }
  c->rope_scale = 1.0f / factor;
  return FORAY_OK;
}

static enum foray_status read_gemma3(struct reader *r, struct foray_model_config *c) {
  enum foray_status s;
  c->rope_style = FORAY_ROPE_NEOX;
  c->act = FORAY_ACT_GELU_TANH;
  c->qk_norm = c->post_norms = true;
  c->embd_scale = sqrtf((float)c->n_embd);
  c->rope_base_local = 10000.0f;
  if ((s = real(r, "rope.freq_base_swa", false, 1.0f, 1e12f, &c->rope_base_local))) return s;
  if ((s = number(r, "attention.sliding_window", true, 0, FORAY_CTX_TRAIN_MAX, &c->window))) return s;
  const struct foray_gguf_kv *kv = foray_gguf_find_kv(r->g, key(r, "attention.sliding_window_pattern"));
  if (kv && kv->type == FORAY_GGUF_ARRAY)
    return unsupported(r, "a sliding-window pattern given layer by layer");
  c->window_pattern = 6; /* five local layers, then a global one; newer files say so themselves */
  if ((s = number(r, "attention.sliding_window_pattern", false, 1, FORAY_LAYERS_MAX, &c->window_pattern)))
    return s;
  if ((s = real(r, "final_logit_softcapping", false, 0.0f, 1e6f, &c->logit_softcap))) return s;
  if ((s = real(r, "attn_logit_softcapping", false, 0.0f, 1e6f, &c->attn_softcap))) return s;
  /* Only the 27B model (62 layers) scales queries by its width instead of by the head size. */
  if (c->n_layer == 62) c->attn_scale = 1.0f / sqrtf((float)c->n_embd / (float)c->n_head);
  return FORAY_OK;
}

static enum foray_status read_shape(struct reader *r, struct foray_model_config *c) {
  enum foray_status s;
  static const char *const per_layer[] = {"attention.head_count", "attention.head_count_kv",
                                          "feed_forward_length"};
  for (size_t i = 0; i < sizeof per_layer / sizeof *per_layer; i++) {
    const struct foray_gguf_kv *kv = foray_gguf_find_kv(r->g, key(r, per_layer[i]));
    if (kv && kv->type == FORAY_GGUF_ARRAY)
      return unsupported(r, "head counts or widths that differ by layer");
  }
  uint32_t experts = 0;
  if ((s = number(r, "expert_count", false, 0, UINT32_MAX, &experts))) return s;
  if (experts) return unsupported(r, "a mixture of experts");
  if ((s = number(r, "block_count", true, 1, FORAY_LAYERS_MAX, &c->n_layer))) return s;
  if ((s = number(r, "embedding_length", true, 1, FORAY_EMBD_MAX, &c->n_embd))) return s;
  if ((s = number(r, "feed_forward_length", true, 1, FORAY_FF_MAX, &c->n_ff))) return s;
  if ((s = number(r, "context_length", true, 1, FORAY_CTX_TRAIN_MAX, &c->n_ctx_train))) return s;
  if ((s = number(r, "attention.head_count", true, 1, FORAY_HEADS_MAX, &c->n_head))) return s;
  c->n_head_kv = c->n_head;
  if ((s = number(r, "attention.head_count_kv", false, 1, c->n_head, &c->n_head_kv))) return s;
  if (c->n_head % c->n_head_kv)
    return foray_err_set(r->err, FORAY_E_FORMAT,
                         "%s: %u query heads are not a multiple of %u key/value heads", foray_gguf_path(r->g),
                         c->n_head, c->n_head_kv);
  c->head_dim = c->n_embd / c->n_head;
  bool given = foray_gguf_find_kv(r->g, key(r, "attention.key_length")) != NULL;
  if (!given && c->n_embd % c->n_head)
    return foray_err_set(r->err, FORAY_E_FORMAT, "%s: width %u is not a multiple of %u heads",
                         foray_gguf_path(r->g), c->n_embd, c->n_head);
  if ((s = number(r, "attention.key_length", false, 2, FORAY_HEAD_DIM_MAX, &c->head_dim))) return s;
  uint32_t value_length = c->head_dim;
  if ((s = number(r, "attention.value_length", false, 2, FORAY_HEAD_DIM_MAX, &value_length))) return s;
  if (value_length != c->head_dim) return unsupported(r, "keys and values of different sizes");
  if (c->head_dim < 2 || c->head_dim > FORAY_HEAD_DIM_MAX || c->head_dim % 2)
    return foray_err_set(r->err, FORAY_E_FORMAT, "%s: head size %u; it must be even and from 2 to %d",
                         foray_gguf_path(r->g), c->head_dim, FORAY_HEAD_DIM_MAX);
  c->attn_scale = 1.0f / sqrtf((float)c->head_dim);
  return real(r, "attention.layer_norm_rms_epsilon", true, 0.0f, 1.0f, &c->rms_eps);
}

/* The embedding says how many tokens there are; other places must agree (tokenizer: foray_model_open). */
static enum foray_status read_vocab(struct reader *r, struct foray_model_config *c) {
  const struct foray_gguf_tensor *t = foray_gguf_find_tensor(r->g, "token_embd.weight");
  if (!t || t->n_dims != 2 || t->ne[1] > FORAY_VOCAB_MAX)
    return foray_err_set(r->err, FORAY_E_FORMAT,
                         "%s: tensor 'token_embd.weight' is missing or has a wrong shape",
                         foray_gguf_path(r->g));
  c->n_vocab = (uint32_t)t->ne[1];
  uint32_t said = c->n_vocab;
  enum foray_status s = number(r, "vocab_size", false, 1, FORAY_VOCAB_MAX, &said);
  if (s) return s;
  if (said != c->n_vocab)
    return foray_err_set(r->err, FORAY_E_FORMAT, "%s: key '%s' is %u, but the embedding has %u rows",
                         foray_gguf_path(r->g), key(r, "vocab_size"), said, c->n_vocab);
  c->tied = foray_gguf_find_tensor(r->g, "output.weight") == NULL;
  return FORAY_OK;
}

enum foray_status foray_config_read(const struct foray_gguf *g, struct foray_model_config *out,
                                    struct foray_err *err) {
  struct foray_gguf_str name;
  enum foray_status s = foray_gguf_get_str(g, "general.architecture", &name, err);
  if (s == FORAY_E_NOTFOUND)
    return foray_err_set(err, FORAY_E_FORMAT, "%s: key 'general.architecture' is missing",
                         foray_gguf_path(g));
  if (s) return s;
  size_t arch = 0, n = sizeof arch_names / sizeof *arch_names;
  while (arch < n && (strlen(arch_names[arch]) != name.len || memcmp(arch_names[arch], name.ptr, name.len)))
    arch++;
  if (arch == n)
    return foray_err_set(err, FORAY_E_UNSUPPORTED,
                         "%s: architecture '%.*s'; llama, qwen2 and gemma3 are supported", foray_gguf_path(g),
                         (int)(name.len < 40 ? name.len : 40), name.ptr);
  struct foray_model_config c = {.arch = (enum foray_arch)arch, .embd_scale = 1.0f, .act = FORAY_ACT_SILU};
  struct reader r = {.g = g, .arch = arch_names[arch], .err = err};
  if ((s = read_shape(&r, &c)) || (s = read_vocab(&r, &c)) || (s = read_rope(&r, &c))) return s;
  switch (c.arch) {
  case FORAY_ARCH_LLAMA:
    c.rope_style = FORAY_ROPE_NORM;
    c.qkv_bias = foray_gguf_find_tensor(g, "blk.0.attn_q.bias") != NULL;
    break;
  case FORAY_ARCH_QWEN2:
    c.rope_style = FORAY_ROPE_NEOX;
    c.qkv_bias = true;
    break;
  case FORAY_ARCH_GEMMA3:
    if ((s = read_gemma3(&r, &c))) return s;
    break;
  }
  *out = c;
  return FORAY_OK;
}
