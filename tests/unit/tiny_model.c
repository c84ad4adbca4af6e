#include "unit/tiny_model.h"

#include "core/philox.h"
#include "unit/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct foray_tiny foray_tiny_default(enum foray_arch arch) {
  struct foray_tiny d = {.arch = arch,
                         .n_layer = 2,
                         .n_embd = 64,
                         .n_head = 4,
                         .n_head_kv = 2,
                         .head_dim = 16,
                         .n_ff = 96,
                         .n_ctx = 512,
                         .window = 8,
                         .type = FORAY_GGML_F32,
                         .tied = arch != FORAY_ARCH_QWEN2,
                         .seed = 1};
  if (arch == FORAY_ARCH_GEMMA3) {
    d.n_layer = 7;
    d.head_dim = 32; /* heads x size differs from the width, as in the real one */
    d.n_head_kv = 1;
  }
  return d;
}

/* ---------------------------------------------------------------- tokenizers */

static const char *const merges[] = {"t h",
                                     "th e",
                                     "i n",
                                     "a n",
                                     "an d",
                                     "e r",
                                     "o n",
                                     "r e",
                                     "\xc4\xa0 t",
                                     "\xc4\xa0 a",
                                     "\xc4\xa0t he",
                                     "\xc4\xa0 s",
                                     "\xc4\xa0 i",
                                     "\xc4\xa0i n",
                                     "e n",
                                     "o r",
                                     "i t",
                                     "i s",
                                     "e s",
                                     "\xc4\xa0 o",
                                     "\xc4\xa0o f",
                                     "\xc4\xa0 w",
                                     "e d",
                                     "a t",
                                     "\xc4\xa0 b",
                                     "\xc4\xa0 c",
                                     "\xc4\xa0 f",
                                     "\xc4\xa0 \xc4\xa0",
                                     "\xc4\xa0\xc4\xa0 \xc4\xa0\xc4\xa0",
                                     "o u",
                                     "l l",
                                     "h e",
                                     "he l",
                                     "hel l",
                                     "hell o",
                                     "w or",
                                     "wor l",
                                     "worl d",
                                     "\xc4\xa0 wor",
                                     "\xc4\xa0wor ld",
                                     "l d",
                                     "\xc4\x8a \xc4\x8a",
                                     "1 2"};
enum { N_MERGES = sizeof merges / sizeof *merges };

/* Code point that stands for a byte in GPT-2's vocabulary: written out here once more, so that a test does
 * not check the library's table with itself. */
static size_t byte_text(int b, char *out) {
  int c = b;
  if (!((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)) {
    c = 256;
    for (int i = 0; i < b; i++) c += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
  }
  if (c < 128) {
    out[0] = (char)c;
    return 1;
  }
  out[0] = (char)(0xc0 | c >> 6);
  out[1] = (char)(0x80 | (c & 63));
  return 2;
}

struct vocab {
  char text[FORAY_TINY_VOCAB][32];
  struct foray_gguf_str strs[FORAY_TINY_VOCAB];
  int32_t kinds[FORAY_TINY_VOCAB];
  float scores[FORAY_TINY_VOCAB];
  int n;
};

static void put(struct vocab *v, const char *s, size_t len, int32_t kind, float score) {
  memcpy(v->text[v->n], s, len);
  v->strs[v->n] = (struct foray_gguf_str){v->text[v->n], len};
  v->kinds[v->n] = kind;
  v->scores[v->n++] = score;
}

static void fill_up(struct vocab *v, int32_t kind) {
  while (v->n < FORAY_TINY_VOCAB) {
    char s[32];
    int len = snprintf(s, sizeof s, "<unused%d>", v->n);
    put(v, s, (size_t)len, kind, 0);
  }
}

static void bpe(struct vocab *v, struct foray_gguf_writer *w, const char *pre) {
  static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  char s[32];
  for (int i = 0; i < 3; i++) put(v, special[i], strlen(special[i]), 3, 0);
  for (int b = 0; b < 256; b++) put(v, s, byte_text(b, s), 1, 0);
  for (int i = 0; i < N_MERGES; i++) {
    const char *space = strchr(merges[i] + 1, ' ');
    size_t left = (size_t)(space - merges[i]), right = strlen(space + 1);
    memcpy(s, merges[i], left);
    memcpy(s + left, space + 1, right);
    put(v, s, left + right, 1, 0);
  }
  fill_up(v, 5);
  foray_gguf_writer_str(w, "tokenizer.ggml.model", "gpt2");
  foray_gguf_writer_str(w, "tokenizer.ggml.pre", pre);
  foray_gguf_writer_arr_str(w, "tokenizer.ggml.merges", merges, N_MERGES);
  foray_gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 1);
  foray_gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 2);
  foray_gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
  foray_gguf_writer_str(
      w, "tokenizer.chat_template",
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
      "'<|im_end|>' + '\n'}}{% endfor %}");
}

static void spm(struct vocab *v, struct foray_gguf_writer *w) {
  static const char *const special[] = {"<pad>", "<eos>",           "<bos>",
                                        "<unk>", "<start_of_turn>", "<end_of_turn>"};
  static const char *const words[] = {"\xe2\x96\x81",
                                      "e",
                                      "t",
                                      "a",
                                      "o",
                                      "n",
                                      "h",
                                      "i",
                                      "s",
                                      "r",
                                      "l",
                                      "d",
                                      "w",
                                      "u",
                                      "he",
                                      "th",
                                      "the",
                                      "\xe2\x96\x81the",
                                      "in",
                                      "an",
                                      "and",
                                      "ll",
                                      "hell",
                                      "hello",
                                      "wo",
                                      "or",
                                      "wor",
                                      "world",
                                      "\xe2\x96\x81world",
                                      "\xe2\x96\x81\xe2\x96\x81",
                                      "on"};
  for (int i = 0; i < 6; i++) put(v, special[i], strlen(special[i]), i == 3 ? 2 : 3, 0);
  for (int b = 0; b < 256; b++) {
    char s[32];
    int len = snprintf(s, sizeof s, "<0x%02X>", b);
    put(v, s, (size_t)len, 6, 0);
  }
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) put(v, words[i], strlen(words[i]), 1, -(float)i);
  fill_up(v, 3);
  foray_gguf_writer_str(w, "tokenizer.ggml.model", "llama");
  foray_gguf_writer_arr(w, "tokenizer.ggml.scores", FORAY_GGUF_F32, v->scores, FORAY_TINY_VOCAB);
  foray_gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 2);
  foray_gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 1);
  foray_gguf_writer_u32(w, "tokenizer.ggml.unknown_token_id", 3);
  foray_gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
  foray_gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix", false);
  foray_gguf_writer_str(w, "tokenizer.chat_template", "{{ bos_token }}<start_of_turn>...");
}

/* ---------------------------------------------------------------- metadata and weights */

void foray_tiny_metadata(const struct foray_tiny *d, struct foray_gguf_writer *w) {
  const char *arch = foray_arch_name(d->arch);
  const struct {
    const char *key;
    uint32_t v;
  } ints[] = {{"block_count", d->n_layer},           {"context_length", d->n_ctx},
              {"embedding_length", d->n_embd},       {"feed_forward_length", d->n_ff},
              {"attention.head_count", d->n_head},   {"attention.head_count_kv", d->n_head_kv},
              {"attention.key_length", d->head_dim}, {"attention.value_length", d->head_dim}};
  char key[96];
  foray_gguf_writer_str(w, "general.architecture", arch);
  for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
    snprintf(key, sizeof key, "%s.%s", arch, ints[i].key);
    foray_gguf_writer_u32(w, key, ints[i].v);
  }
  if (d->arch == FORAY_ARCH_GEMMA3) foray_gguf_writer_u32(w, "gemma3.attention.sliding_window", d->window);
  snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
  foray_gguf_writer_f32(w, key, 1e-5f);
  snprintf(key, sizeof key, "%s.rope.freq_base", arch);
  foray_gguf_writer_f32(w, key, d->arch == FORAY_ARCH_LLAMA ? 1e4f : 1e6f);
  struct vocab *v = calloc(1, sizeof *v);
  CU_ASSERT_PTR_NOT_NULL_FATAL(v);
  if (d->arch == FORAY_ARCH_GEMMA3)
    spm(v, w);
  else
    bpe(v, w, d->arch == FORAY_ARCH_LLAMA ? "smollm" : "qwen2");
  foray_gguf_writer_arr_strn(w, "tokenizer.ggml.tokens", v->strs, FORAY_TINY_VOCAB);
  foray_gguf_writer_arr(w, "tokenizer.ggml.token_type", FORAY_GGUF_I32, v->kinds, FORAY_TINY_VOCAB);
  free(v);
}

struct weights {
  const struct foray_tiny *d;
  struct foray_gguf_writer *w;
  void *blocks[512]; /* borrowed by the writer until it has saved */
  int n;
  uint32_t stream;
};

/* Values in +-spread around middle. */
static void tensor(struct weights *s, const char *name, uint32_t cols, uint32_t rows, float middle,
                   float spread) {
  uint32_t type = rows > 0 ? s->d->type : (uint32_t)FORAY_GGML_F32;
  size_t n = (size_t)cols * (rows ? rows : 1);
  float *x = malloc(n * sizeof *x);
  void *b = malloc(foray_type_row_bytes(type, n));
  CU_ASSERT_TRUE_FATAL(x && b && s->n < 512);
  s->stream++;
  for (size_t i = 0; i < n; i++) {
    struct foray_philox r = foray_philox4x32(s->d->seed, (uint32_t)i, s->stream, 0, 0);
    x[i] = middle + spread * ((float)(r.v[0] >> 8) * 0x1p-23f - 1.0f);
  }
  CU_ASSERT_EQUAL_FATAL(foray_quantise_row(type, x, b, n), FORAY_OK);
  free(x);
  s->blocks[s->n++] = b;
  foray_gguf_writer_tensor(s->w, name, type, rows ? 2 : 1, (uint64_t[]){cols, rows}, b);
}

static void layer(struct weights *s, uint32_t l) {
  const struct foray_tiny *d = s->d;
  uint32_t Q = d->n_head * d->head_dim, K = d->n_head_kv * d->head_dim, E = d->n_embd, F = d->n_ff;
  bool bias = d->arch == FORAY_ARCH_QWEN2, gemma = d->arch == FORAY_ARCH_GEMMA3;
  const struct {
    const char *name;
    uint32_t cols, rows; /* rows == 0: a vector */
    bool there;
  } all[] = {{"attn_norm.weight", E, 0, true},
             {"attn_q.weight", E, Q, true},
             {"attn_k.weight", E, K, true},
             {"attn_v.weight", E, K, true},
             {"attn_q.bias", Q, 0, bias},
             {"attn_k.bias", K, 0, bias},
             {"attn_v.bias", K, 0, bias},
             {"attn_q_norm.weight", d->head_dim, 0, gemma},
             {"attn_k_norm.weight", d->head_dim, 0, gemma},
             {"attn_output.weight", Q, E, true},
             {"post_attention_norm.weight", E, 0, gemma},
             {"ffn_norm.weight", E, 0, true},
             {"ffn_gate.weight", E, F, true},
             {"ffn_up.weight", E, F, true},
             {"ffn_down.weight", F, E, true},
             {"post_ffw_norm.weight", E, 0, gemma}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char name[64];
    if (!all[i].there) continue;
    snprintf(name, sizeof name, "blk.%u.%s", l, all[i].name);
    bool norm = strstr(all[i].name, "norm") != NULL;
    tensor(s, name, all[i].cols, all[i].rows, norm ? 1.0f : 0.0f,
           norm || !all[i].rows ? 0.3f : 1.7f / sqrtf((float)all[i].cols));
  }
}

void foray_tiny_build(const struct foray_tiny *d, struct foray_buf *out) {
  struct weights s = {.d = d, .w = foray_gguf_writer_open()};
  struct foray_err err = {0};
  CU_ASSERT_PTR_NOT_NULL_FATAL(s.w);
  foray_buf_init(out, (size_t)1 << 30);
  foray_tiny_metadata(d, s.w);
  tensor(&s, "token_embd.weight", d->n_embd, FORAY_TINY_VOCAB, 0, d->arch == FORAY_ARCH_GEMMA3 ? 0.3f : 1.0f);
  tensor(&s, "output_norm.weight", d->n_embd, 0, 1.0f, 0.3f);
  if (!d->tied) tensor(&s, "output.weight", d->n_embd, FORAY_TINY_VOCAB, 0, 0.6f);
  for (uint32_t l = 0; l < d->n_layer; l++) layer(&s, l);
  if (foray_gguf_writer_save_buf(s.w, out, &err)) {
    printf("  %s\n", err.msg);
    CU_FAIL_FATAL("a tiny model cannot be made");
  }
  foray_gguf_writer_close(s.w);
  for (int i = 0; i < s.n; i++) free(s.blocks[i]);
}
