/* A small random model of any architecture whose matrices cycle through all tensor types, written to a file.
 */
#ifndef FORAY_TESTS_ENGINE_SYNTH_H
#define FORAY_TESTS_ENGINE_SYNTH_H

#include "core/philox.h"
#include "model/gguf_write.h"
#include "model/quant.h"

#include <CUnit/CUnit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct synth_rng {
  uint64_t seed;
  uint32_t n;
};
static inline uint32_t synth_u32(struct synth_rng *r) {
  return foray_philox4x32(r->seed, r->n++, 1, 2, 3).v[0];
}
/* Roughly normal, deviation 1. */
static inline float synth_normal(struct synth_rng *r) {
  float s = 0;
  for (int i = 0; i < 6; i++) s += (float)synth_u32(r) * 0x1p-32f;
  return (s - 3.0f) * 1.41421356f;
}

static inline void synth_half(uint8_t *p, float v) {
  float t[1] = {v};
  CU_ASSERT_EQUAL(foray_quantise_row(FORAY_GGML_F16, t, p, 1), FORAY_OK);
}

/* rows x cols blocks of a type, values of deviation about `dev`; from malloc. */
static inline uint8_t *synth_matrix(struct synth_rng *r, uint32_t type, size_t rows, size_t cols, float dev) {
  const struct foray_type_info *ti = foray_type_info(type);
  const size_t row_bytes = foray_type_row_bytes(type, cols), blocks = cols / ti->elems;
  uint8_t *m = malloc(rows * row_bytes);
  float *f = malloc(cols * sizeof *f);
  if (!m || !f) abort();
  for (size_t i = 0; i < rows; i++) {
    uint8_t *row = m + i * row_bytes;
    for (size_t k = 0; k < cols; k++) f[k] = dev * synth_normal(r);
    if (foray_quantise_row(type, f, row, cols) == FORAY_OK) continue;
    for (size_t k = 0; k < row_bytes; k++) row[k] = (uint8_t)synth_u32(r);
    for (size_t b = 0; b < blocks; b++) {
      uint8_t *p = row + b * ti->bytes;
      const float jitter = 0.5f + (float)(synth_u32(r) & 255) / 255.0f;
      switch (type) {
      case FORAY_GGML_Q5_0: synth_half(p, dev * jitter / 9.0f); break;
      case FORAY_GGML_Q5_1:
        synth_half(p, dev * jitter / 9.0f);
        synth_half(p + 2, -15.5f * dev * jitter / 9.0f);
        break;
      case FORAY_GGML_Q4_K:
        synth_half(p, dev * jitter / 250.0f);
        synth_half(p + 2, 7.5f * dev * jitter / 250.0f);
        break;
      case FORAY_GGML_Q5_K:
        synth_half(p, dev * jitter / 500.0f);
        synth_half(p + 2, 15.5f * dev * jitter / 500.0f);
        break;
      default: synth_half(p + 208, dev * jitter / 1300.0f); break; /* Q6_K */
      }
    }
  }
  free(f);
  return m;
}

enum { SYNTH_EMBD = 256, SYNTH_FF = 256, SYNTH_VOCAB = 107, SYNTH_WINDOW = 20 };

static const uint32_t synth_types[] = {FORAY_GGML_Q4_K, FORAY_GGML_Q6_K, FORAY_GGML_Q5_0, FORAY_GGML_Q8_0,
                                       FORAY_GGML_Q4_1, FORAY_GGML_Q4_0, FORAY_GGML_Q5_1, FORAY_GGML_Q5_K,
                                       FORAY_GGML_F16,  FORAY_GGML_BF16, FORAY_GGML_F32};
enum { SYNTH_TYPES = sizeof synth_types / sizeof *synth_types };

struct synth {
  struct foray_gguf_writer *w;
  struct synth_rng r;
  uint8_t *owned[512];
  int n_owned, next_type;
};

static inline void synth_put(struct synth *s, const char *name, uint32_t type, uint64_t rows, uint64_t cols,
                             float dev) {
  uint8_t *m = synth_matrix(&s->r, type, (size_t)rows, (size_t)cols, dev);
  s->owned[s->n_owned++] = m;
  if (rows == 1)
    for (uint64_t i = 0; i < cols && !strstr(name, "bias"); i++)
      ((float *)(void *)m)[i] += 1.0f; /* norm weights */
  const uint64_t ne[2] = {cols, rows};
  foray_gguf_writer_tensor(s->w, name, type, rows == 1 ? 1 : 2, ne, m);
}

static inline void synth_layer(struct synth *s, int il, const char *arch, int q, int kv, int head) {
  const struct {
    const char *name;
    int rows, cols;
    const char *only;
  } t[] = {{"attn_norm.weight", 1, SYNTH_EMBD, ""},
           {"attn_q.weight", q, SYNTH_EMBD, ""},
           {"attn_k.weight", kv, SYNTH_EMBD, ""},
           {"attn_v.weight", kv, SYNTH_EMBD, ""},
           {"attn_q.bias", 1, q, "qwen2"},
           {"attn_k.bias", 1, kv, "qwen2"},
           {"attn_v.bias", 1, kv, "qwen2"},
           {"attn_q_norm.weight", 1, head, "gemma3"},
           {"attn_k_norm.weight", 1, head, "gemma3"},
           {"attn_output.weight", SYNTH_EMBD, q, ""},
           {"post_attention_norm.weight", 1, SYNTH_EMBD, "gemma3"},
           {"ffn_norm.weight", 1, SYNTH_EMBD, ""},
           {"ffn_gate.weight", SYNTH_FF, SYNTH_EMBD, ""},
           {"ffn_up.weight", SYNTH_FF, SYNTH_EMBD, ""},
           {"ffn_down.weight", SYNTH_EMBD, SYNTH_FF, ""},
           {"post_ffw_norm.weight", 1, SYNTH_EMBD, "gemma3"}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    char name[64];
    if (*t[i].only && strcmp(t[i].only, arch)) continue;
    snprintf(name, sizeof name, "blk.%d.%s", il, t[i].name);
    const uint32_t type = t[i].rows == 1 ? FORAY_GGML_F32 : synth_types[s->next_type++ % SYNTH_TYPES];
    synth_put(s, name, type, (uint64_t)t[i].rows, (uint64_t)t[i].cols,
              t[i].rows == 1 ? 0.2f : 1.5f / sqrtf((float)t[i].cols));
  }
}

/* Writes the model; *path (cap bytes) receives its name, to be unlinked by the caller. tied: no
 * output.weight. */
static inline void synth_write(const char *arch, bool tied, uint64_t seed, char *path, size_t cap) {
  const int gemma = !strcmp(arch, "gemma3"), layers = 3, kvs = gemma ? 1 : 2, head = gemma ? 64 : 32, q = 256;
  struct synth *s = calloc(1, sizeof *s);
  if (!s) abort();
  s->r.seed = seed;
  s->w = foray_gguf_writer_open();
  char key[96];
#define SYNTH_KEY(name) (snprintf(key, sizeof key, "%s.%s", arch, (name)), key)
  foray_gguf_writer_str(s->w, "general.architecture", arch);
  foray_gguf_writer_u32(s->w, SYNTH_KEY("block_count"), (uint32_t)layers);
  foray_gguf_writer_u32(s->w, SYNTH_KEY("embedding_length"), SYNTH_EMBD);
  foray_gguf_writer_u32(s->w, SYNTH_KEY("feed_forward_length"), SYNTH_FF);
  foray_gguf_writer_u32(s->w, SYNTH_KEY("context_length"), 512);
  foray_gguf_writer_u32(s->w, SYNTH_KEY("attention.head_count"), (uint32_t)(q / head));
  foray_gguf_writer_u32(s->w, SYNTH_KEY("attention.head_count_kv"), (uint32_t)kvs);
  foray_gguf_writer_f32(s->w, SYNTH_KEY("attention.layer_norm_rms_epsilon"), 1e-6f);
  if (gemma) {
    foray_gguf_writer_u32(s->w, SYNTH_KEY("attention.key_length"), 64);
    foray_gguf_writer_u32(s->w, SYNTH_KEY("attention.value_length"), 64);
    foray_gguf_writer_u32(s->w, SYNTH_KEY("attention.sliding_window"), SYNTH_WINDOW);
    foray_gguf_writer_u32(s->w, SYNTH_KEY("attention.sliding_window_pattern"), 2);
    foray_gguf_writer_f32(s->w, SYNTH_KEY("rope.freq_base"), 1e6f);
  }
  char(*text)[16] = malloc(SYNTH_VOCAB * sizeof *text);
  const char *tokens[SYNTH_VOCAB];
  int32_t kinds[SYNTH_VOCAB];
  if (!text) abort();
  for (int i = 0; i < SYNTH_VOCAB; i++) {
    snprintf(text[i], sizeof text[i], "t%d", i);
    tokens[i] = text[i];
    kinds[i] = 1;
  }
  foray_gguf_writer_str(s->w, "tokenizer.ggml.model", "gpt2");
  foray_gguf_writer_str(s->w, "tokenizer.ggml.pre", "smollm");
  foray_gguf_writer_arr_str(s->w, "tokenizer.ggml.tokens", tokens, SYNTH_VOCAB);
  foray_gguf_writer_arr(s->w, "tokenizer.ggml.token_type", FORAY_GGUF_I32, kinds, SYNTH_VOCAB);
  foray_gguf_writer_arr_str(s->w, "tokenizer.ggml.merges", tokens, 0);
  synth_put(s, "token_embd.weight", tied ? FORAY_GGML_Q6_K : FORAY_GGML_Q8_0, SYNTH_VOCAB, SYNTH_EMBD,
            1.0f / 16.0f);
  synth_put(s, "output_norm.weight", FORAY_GGML_F32, 1, SYNTH_EMBD, 0.2f);
  if (!tied) synth_put(s, "output.weight", FORAY_GGML_Q6_K, SYNTH_VOCAB, SYNTH_EMBD, 1.0f / 16.0f);
  for (int il = 0; il < layers; il++) synth_layer(s, il, arch, q, kvs * head, head);
  snprintf(path, cap, "/tmp/foray_synth_%s_%d_%d.gguf", arch, tied, (int)getpid());
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(foray_gguf_writer_save(s->w, path, &err), FORAY_OK);
  if (err.code) printf("  synth: %s\n", err.msg);
  foray_gguf_writer_close(s->w);
  for (int i = 0; i < s->n_owned; i++) free(s->owned[i]);
  free(text);
  free(s);
}

#endif
