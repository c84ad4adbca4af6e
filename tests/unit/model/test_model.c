/* Configuration and tensor checks, and the float reference on small random models: against llama.cpp's logits
 * (tests/golden/make_logits.py) and against itself. */
#include "unit/harness.h"
#include "unit/tiny_model.h"

#include "model/float_ref.h"
#include "model/model.h"
#include "model/perplexity.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct foray_model *open_tiny(const struct foray_tiny *d, struct foray_buf *b) {
  struct foray_model *m = NULL;
  struct foray_err err = {0};
  foray_tiny_build(d, b);
  if (foray_model_open_memory(b->data, b->len, "tiny", &m, &err)) {
    printf("  %s\n", err.msg);
    CU_FAIL_FATAL("a tiny model does not open");
  }
  return m;
}

static struct foray_float_ref *open_ref(const struct foray_model *m, struct foray_pool *pool, size_t n_ctx) {
  struct foray_float_ref *r = NULL;
  CU_ASSERT_EQUAL_FATAL(foray_float_ref_open(m, pool, n_ctx, &r, NULL), FORAY_OK);
  return r;
}

static void feed(struct foray_float_ref *r, const int32_t *ids, size_t n, float *logits, size_t n_logits) {
  CU_ASSERT_EQUAL_FATAL(foray_float_ref_feed(r, ids, n, logits, n_logits, NULL), FORAY_OK);
}

enum { N = 40, V = FORAY_TINY_VOCAB };
static void some_ids(int32_t *ids) {
  for (int i = 0; i < N; i++) ids[i] = (7 + i * i * 13) % 300;
}

/* FORAY_DUMP_TINY=FOLDER writes the models of the next test there, for make_logits.py. */
TEST(tiny_models_dump) {
  const char *dir = getenv("FORAY_DUMP_TINY");
  for (int a = 0; dir && a < 3; a++) {
    struct foray_tiny d = foray_tiny_default((enum foray_arch)a);
    struct foray_buf b;
    char path[4096];
    foray_tiny_build(&d, &b);
    snprintf(path, sizeof path, "%s/%s.gguf", dir, foray_arch_name(d.arch));
    FILE *f = fopen(path, "wb");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    CU_ASSERT_EQUAL(fwrite(b.data, 1, b.len, f), b.len);
    fclose(f);
    foray_buf_deinit(&b);
  }
}

TEST(logits_equal_llama_cpp_on_tiny_models) {
  json_error_t je;
  json_t *doc = json_load_file(foray_test_path("tests/golden/logits.json"), 0, &je);
  CU_ASSERT_EQUAL_FATAL(json_object_size(doc), 3);
  int32_t ids[N];
  some_ids(ids);
  for (int a = 0; a < 3; a++) {
    struct foray_tiny d = foray_tiny_default((enum foray_arch)a);
    struct foray_buf b;
    struct foray_model *m = open_tiny(&d, &b);
    struct foray_float_ref *r = open_ref(m, NULL, N);
    static float logits[N * V];
    feed(r, ids, N, logits, N);
    const json_t *want = json_object_get(doc, foray_arch_name(d.arch));
    double err = 0, norm = 0;
    for (int p = 0; p < N; p++) /* every 16th logit of every position is in the file */
      for (int v = 0; v < V; v += 16) {
        double w = json_number_value(json_array_get(want, (size_t)(p * (V / 16) + v / 16)));
        err += (w - (double)logits[p * V + v]) * (w - (double)logits[p * V + v]);
        norm += w * w;
      }
    if (!(sqrt(err / norm) < 2e-3))
      printf("  %s: relative error %g\n", foray_arch_name(d.arch), sqrt(err / norm));
    CU_ASSERT_TRUE(norm > 1 && sqrt(err / norm) < 2e-3); /* llama.cpp keeps K and V as halves */
    foray_float_ref_close(r);
    foray_model_close(m);
    foray_buf_deinit(&b);
  }
  json_decref(doc);
}

/* The cut into feeds, the thread count and truncation change no bit. */
TEST(feeds_threads_and_truncation_change_nothing) {
  int32_t ids[N];
  some_ids(ids);
  struct foray_pool *pool;
  CU_ASSERT_EQUAL_FATAL(foray_pool_open(3, &pool, NULL), FORAY_OK);
  for (int a = 0; a < 3; a++) {
    struct foray_tiny d = foray_tiny_default((enum foray_arch)a);
    d.type = FORAY_GGML_Q8_0;
    struct foray_buf b;
    struct foray_model *m = open_tiny(&d, &b);
    struct foray_float_ref *one = open_ref(m, NULL, N), *many = open_ref(m, pool, N + 3);
    static float whole[N * V], parts[N * V];
    feed(one, ids, N, whole, N);
    int32_t wrong[5] = {1, 2, 3, 4, 5};
    for (size_t at = 0, step = 1; at < N; at += step, step = step % 7 + 1) {
      if (at + step > N) step = N - at;
      feed(many, wrong, 3, NULL, 0); /* a draft that is taken back */
      foray_float_ref_truncate(many, at);
      feed(many, ids + at, step, parts + at * V, step);
    }
    CU_ASSERT_EQUAL(memcmp(whole, parts, sizeof whole), 0);
    static float last[2 * V];
    foray_float_ref_truncate(one, 0);
    feed(one, ids, N, last, 2);
    CU_ASSERT_EQUAL(memcmp(last, whole + (N - 2) * V, sizeof last), 0);
    struct foray_err err = {0};
    CU_ASSERT_EQUAL(foray_float_ref_feed(one, ids, 1, NULL, 0, &err), FORAY_E_LIMIT);
    foray_float_ref_truncate(one, 4);
    CU_ASSERT_EQUAL(foray_float_ref_feed(one, (int32_t[]){V}, 1, NULL, 0, &err), FORAY_E_ARG);
    CU_ASSERT_EQUAL(foray_float_ref_feed(one, (int32_t[]){-1}, 1, NULL, 0, &err), FORAY_E_ARG);
    CU_ASSERT_EQUAL(foray_float_ref_len(one), 4);
    foray_float_ref_close(one);
    foray_float_ref_close(many);
    foray_model_close(m);
    foray_buf_deinit(&b);
  }
  foray_pool_close(pool);
}

/* A window of 8: what lies 8 or more positions back reaches a local layer only through the positions between.
 * With one layer, it does not reach at all. */
TEST(window_hides_old_keys) {
  struct foray_tiny d = foray_tiny_default(FORAY_ARCH_GEMMA3);
  d.n_layer = 1;
  struct foray_buf b;
  struct foray_model *m = open_tiny(&d, &b);
  struct foray_float_ref *r = open_ref(m, NULL, N);
  static float x[V], y[V], z[V];
  int32_t ids[N];
  some_ids(ids);
  feed(r, ids, 12, x, 1);
  ids[3] = 299; /* position 3 from 11: distance 8 */
  foray_float_ref_truncate(r, 0);
  feed(r, ids, 12, y, 1);
  ids[4] = 299; /* distance 7 */
  foray_float_ref_truncate(r, 0);
  feed(r, ids, 12, z, 1);
  CU_ASSERT_EQUAL(memcmp(x, y, sizeof x), 0);
  CU_ASSERT_NOT_EQUAL(memcmp(y, z, sizeof x), 0);
  foray_float_ref_close(r);
  foray_model_close(m);
  foray_buf_deinit(&b);
}

struct seen {
  int inputs, residuals;
  size_t rows;
  float *down; /* doubles the input of ffn_down when set */
};
static void on_input(void *user, enum foray_role role, uint32_t layer, float *x, size_t n, size_t width) {
  struct seen *s = user;
  (void)layer;
  s->inputs++;
  s->rows += n;
  if (s->down && role == FORAY_ROLE_FFN_DOWN)
    for (size_t i = 0; i < n * width; i++) x[i] *= 2;
}
static void on_residual(void *user, int layer, float *x, size_t n, size_t pos) {
  (void)layer;
  (void)x;
  (void)n;
  (void)pos;
  ((struct seen *)user)->residuals++;
}

TEST(tensors_are_replaced_and_taps_see_inputs) {
  struct foray_tiny d = foray_tiny_default(FORAY_ARCH_LLAMA);
  struct foray_buf b;
  struct foray_model *m = open_tiny(&d, &b);
  struct foray_float_ref *r = open_ref(m, NULL, N);
  static float x[V], y[V], z[V];
  int32_t ids[N];
  some_ids(ids);
  feed(r, ids, 5, x, 1);
  /* Twice the weights of every ffn_down, or twice its input: the same logits. */
  struct seen s = {.down = x};
  struct foray_float_tap tap = {&s, on_input, on_residual};
  foray_float_ref_set_tap(r, &tap);
  foray_float_ref_truncate(r, 0);
  feed(r, ids, 5, y, 1);
  CU_ASSERT_EQUAL(s.inputs, 2 * 4 + 1);
  CU_ASSERT_EQUAL(s.rows, 2 * 4 * 5 + 1);
  CU_ASSERT_EQUAL(s.residuals, 3);
  foray_float_ref_set_tap(r, NULL);
  for (uint32_t l = 0; l < d.n_layer; l++) {
    const float *w = foray_float_ref_tensor(r, FORAY_ROLE_FFN_DOWN, l);
    float *twice = malloc((size_t)d.n_embd * d.n_ff * sizeof *twice);
    CU_ASSERT_TRUE_FATAL(w && twice);
    for (size_t i = 0; i < (size_t)d.n_embd * d.n_ff; i++) twice[i] = 2 * w[i];
    CU_ASSERT_EQUAL(foray_float_ref_set_tensor(r, FORAY_ROLE_FFN_DOWN, l, twice), FORAY_OK);
  }
  foray_float_ref_truncate(r, 0);
  feed(r, ids, 5, z, 1);
  CU_ASSERT_NOT_EQUAL(memcmp(x, y, sizeof x), 0);
  CU_ASSERT_EQUAL(memcmp(y, z, sizeof y), 0);
  CU_ASSERT_EQUAL(foray_float_ref_set_tensor(r, FORAY_ROLE_ATTN_Q_BIAS, 0, malloc(4)), FORAY_E_ARG);
  /* A head of its own for a tied model: the embedding stays as it is. */
  float *head = calloc((size_t)V * d.n_embd, sizeof *head);
  CU_ASSERT_EQUAL(foray_float_ref_set_tensor(r, FORAY_ROLE_OUTPUT, 0, head), FORAY_OK);
  foray_float_ref_truncate(r, 0);
  feed(r, ids, 5, z, 1);
  CU_ASSERT_EQUAL(z[7], 0.0f);
  CU_ASSERT_PTR_NOT_EQUAL(foray_float_ref_tensor(r, FORAY_ROLE_TOKEN_EMBD, 0), head);
  foray_float_ref_close(r);
  foray_model_close(m);
  foray_buf_deinit(&b);
}

/* ---------------------------------------------------------------- bad models */

/* Builds a file like the tiny one, with one key changed (or left out, value NULL), and expects a refusal. */
enum change { DROP, INT, REAL, WORD };
static void refused(enum foray_arch arch, const char *key, enum change how, double number, const char *word,
                    const char *why) {
  struct foray_tiny d = foray_tiny_default(arch);
  struct foray_buf good, bad;
  struct foray_gguf *g;
  struct foray_err err = {0};
  foray_tiny_build(&d, &good);
  CU_ASSERT_EQUAL_FATAL(foray_gguf_open_memory(good.data, good.len, "good", &g, NULL), FORAY_OK);
  struct foray_gguf_writer *w = foray_gguf_writer_open();
  for (size_t i = 0; i < foray_gguf_n_kv(g); i++) {
    const struct foray_gguf_kv *kv = foray_gguf_kv_at(g, i);
    if (kv->key.len != strlen(key) || memcmp(kv->key.ptr, key, kv->key.len)) foray_gguf_writer_copy_kv(w, kv);
  }
  if (how == INT) foray_gguf_writer_u32(w, key, (uint32_t)number);
  if (how == REAL) foray_gguf_writer_f32(w, key, (float)number);
  if (how == WORD) foray_gguf_writer_str(w, key, word);
  for (size_t i = 0; i < foray_gguf_n_tensors(g); i++) {
    const struct foray_gguf_tensor *t = foray_gguf_tensor_at(g, i);
    foray_gguf_writer_tensor(w, t->name, t->type, t->n_dims, t->ne, t->data);
  }
  foray_buf_init(&bad, (size_t)1 << 28);
  CU_ASSERT_EQUAL_FATAL(foray_gguf_writer_save_buf(w, &bad, NULL), FORAY_OK);
  struct foray_model *m = NULL;
  enum foray_status s = foray_model_open_memory(bad.data, bad.len, "bad.gguf", &m, &err);
  if (!s || !strstr(err.msg, why) || strncmp(err.msg, "bad.gguf: ", 10)) {
    printf("  %s: wanted '%s', got %s: %s\n", key, why, foray_status_name(s), err.msg);
    CU_FAIL("not refused as it should be");
  }
  foray_model_close(m);
  foray_gguf_writer_close(w);
  foray_gguf_close(g);
  foray_buf_deinit(&good);
  foray_buf_deinit(&bad);
}

TEST(class_9_hyper_parameters) {
  static const char *const needed[] = {"block_count",         "embedding_length",
                                       "feed_forward_length", "attention.head_count",
                                       "context_length",      "attention.layer_norm_rms_epsilon"};
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
    char key[64];
    snprintf(key, sizeof key, "llama.%s", needed[i]);
    refused(FORAY_ARCH_LLAMA, key, DROP, 0, NULL, "is missing");
    refused(FORAY_ARCH_LLAMA, key, WORD, 0, "x", "is of type string");
  }
  refused(FORAY_ARCH_LLAMA, "llama.block_count", INT, 513, NULL, "from 1 to 512");
  refused(FORAY_ARCH_LLAMA, "llama.block_count", INT, 0, NULL, "from 1 to 512");
  refused(FORAY_ARCH_LLAMA, "llama.block_count", INT, 4294967295.0, NULL, "from 1 to 512");
  refused(FORAY_ARCH_LLAMA, "llama.block_count", INT, 3, NULL, "tensor 'blk.2.attn_norm.weight' is missing");
  refused(FORAY_ARCH_LLAMA, "llama.block_count", INT, 1, NULL, "has no place");
  refused(FORAY_ARCH_LLAMA, "llama.embedding_length", INT, 128, NULL, "the metadata says");
  refused(FORAY_ARCH_LLAMA, "llama.feed_forward_length", INT, 0, NULL, "from 1");
  refused(FORAY_ARCH_LLAMA, "llama.feed_forward_length", INT, 95, NULL, "the metadata says");
  refused(FORAY_ARCH_LLAMA, "llama.attention.head_count", INT, 0, NULL, "from 1");
  refused(FORAY_ARCH_LLAMA, "llama.attention.head_count_kv", INT, 3, NULL, "not a multiple");
  refused(FORAY_ARCH_LLAMA, "llama.attention.head_count_kv", INT, 8, NULL, "from 1 to 4");
  refused(FORAY_ARCH_LLAMA, "llama.attention.key_length", INT, 15, NULL, "sizes");
  refused(FORAY_ARCH_LLAMA, "llama.attention.key_length", INT, 100000, NULL, "from 2 to 1024");
  refused(FORAY_ARCH_LLAMA, "llama.rope.dimension_count", INT, 18, NULL, "from 2 to 16");
  refused(FORAY_ARCH_LLAMA, "llama.attention.layer_norm_rms_epsilon", REAL, -1, NULL, "from 0 to 1");
  refused(FORAY_ARCH_LLAMA, "llama.attention.layer_norm_rms_epsilon", REAL, NAN, NULL, "finite");
  refused(FORAY_ARCH_LLAMA, "llama.rope.scaling.type", WORD, 0, "yarn", "'yarn'");
  refused(FORAY_ARCH_LLAMA, "llama.expert_count", INT, 8, NULL, "experts");
  refused(FORAY_ARCH_LLAMA, "llama.vocab_size", INT, 321, NULL, "320 rows");
  refused(FORAY_ARCH_GEMMA3, "gemma3.attention.sliding_window", DROP, 0, NULL, "is missing");
  refused(FORAY_ARCH_LLAMA, "general.architecture", WORD, 0, "mamba", "architecture 'mamba'");
  refused(FORAY_ARCH_LLAMA, "general.architecture", DROP, 0, NULL, "is missing");
  refused(FORAY_ARCH_LLAMA, "general.architecture", WORD, 0, "qwen2", "qwen2.");
  refused(FORAY_ARCH_LLAMA, "general.type", WORD, 0, "adapter", "'adapter'");
}

TEST(class_8_special_ids_and_tokenizer_kinds) {
  static const char *const ids[] = {"bos", "eos", "unknown", "padding", "eot", "eom"};
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
    char key[64];
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[i]);
    refused(FORAY_ARCH_QWEN2, key, INT, 320, NULL, "there are only 320 tokens");
    refused(FORAY_ARCH_GEMMA3, key, INT, 4294967295.0, NULL, "there are only 320 tokens");
  }
  refused(FORAY_ARCH_GEMMA3, "tokenizer.ggml.bos_token_id", DROP, 0, NULL, "BOS is to be added");
  refused(FORAY_ARCH_GEMMA3, "tokenizer.ggml.scores", DROP, 0, NULL, "scores' is missing");
  refused(FORAY_ARCH_GEMMA3, "tokenizer.ggml.scores", INT, 3, NULL, "array of f32 is needed");
  refused(FORAY_ARCH_QWEN2, "tokenizer.ggml.merges", DROP, 0, NULL, "merges' is missing");
  refused(FORAY_ARCH_QWEN2, "tokenizer.ggml.token_type", WORD, 0, "x", "array of i32 is needed");
  refused(FORAY_ARCH_QWEN2, "tokenizer.ggml.tokens", DROP, 0, NULL, "tokens' is missing");
  refused(FORAY_ARCH_QWEN2, "tokenizer.ggml.model", WORD, 0, "bert", "tokenizer model 'bert'");
  refused(FORAY_ARCH_QWEN2, "tokenizer.ggml.pre", WORD, 0, "poro-chat", "pre-tokenizer 'poro-chat'");
}

/* ---------------------------------------------------------------- scoring */

TEST(scores_equal_sums_done_by_hand) {
  struct foray_score s = {0}, t = {0};
  const float a[3] = {1, 2, 4}, b[3] = {1000, 1000, 1000};
  double za = exp(1) + exp(2) + exp(4);
  CU_ASSERT_DOUBLE_EQUAL(foray_log_prob(a, 3, 1), 2 - log(za), 1e-6);
  foray_score_add(&s, a, 3, 1);
  foray_score_add(&t, b, 3, 2);
  foray_score_merge(&s, &t);
  CU_ASSERT_EQUAL(s.tokens, 2);
  CU_ASSERT_DOUBLE_EQUAL(foray_score_ppl(&s), exp((log(za) - 2 + log(3)) / 2), 1e-5);
  foray_score_add_kl(&s, a, a, 3);
  CU_ASSERT_DOUBLE_EQUAL(foray_score_kl(&s), 0, 1e-9);
  CU_ASSERT_EQUAL(s.top1, 1);
  foray_score_add_kl(&s, a, b, 3);
  double kl = 0;
  for (int i = 0; i < 3; i++) kl += exp((double)a[i]) / za * (((double)a[i] - log(za)) + log(3));
  CU_ASSERT_DOUBLE_EQUAL(foray_score_kl(&s), kl / 2, 1e-6);
  CU_ASSERT_EQUAL(s.top1, 1); /* argmax of b is its first, of a its last */
  CU_ASSERT_EQUAL(foray_ppl_windows(1100, 512, 0), 2);
  CU_ASSERT_EQUAL(foray_ppl_windows(11000, 512, 10), 10);
  const int32_t ids[4] = {5, 6, 7, 8};
  int32_t w[2];
  foray_ppl_window(ids, 1, 2, 1, w);
  CU_ASSERT_TRUE(w[0] == 1 && w[1] == 8);
  foray_ppl_window(ids, 1, 2, -1, w);
  CU_ASSERT_EQUAL(w[0], 7);
}

/* The first 128 tokens of the licence file, against llama.cpp's figure (make_logits.py). */
TEST(real_smollm_perplexity_equals_llama_cpp) {
  const char *path = foray_test_model("smollm2-135m-instruct");
  if (!path) {
    foray_test_skip("smollm2-135m-instruct");
    return;
  }
  struct foray_model *m;
  struct foray_pool *pool;
  CU_ASSERT_EQUAL_FATAL(foray_model_open(path, &m, NULL), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_pool_open(0, &pool, NULL), FORAY_OK);
  FILE *f = fopen(foray_test_path("LICENSE"), "rb");
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  static char text[4096];
  size_t n = fread(text, 1, sizeof text, f);
  fclose(f);
  struct foray_ids ids = {0};
  CU_ASSERT_EQUAL(foray_tokenizer_encode(m->tokenizer, text, n, 0, &ids, NULL), FORAY_OK);
  CU_ASSERT_TRUE_FATAL(ids.n >= 256);
  struct foray_float_ref *r = open_ref(m, pool, 128);
  float *logits = malloc((size_t)64 * m->config.n_vocab * sizeof *logits);
  struct foray_score s = {0};
  feed(r, ids.ids, 128, logits, 64);
  for (size_t i = 0; i < 63; i++)
    foray_score_add(&s, logits + i * m->config.n_vocab, m->config.n_vocab, ids.ids[65 + i]);
  json_error_t je;
  json_t *doc = json_load_file(foray_test_path("tests/golden/licence-perplexity.json"), 0, &je);
  double want = json_number_value(json_object_get(doc, "smollm2-135m-instruct"));
  if (!(fabs(foray_score_ppl(&s) / want - 1) < 0.01)) printf("  %.4f, not %.4f\n", foray_score_ppl(&s), want);
  CU_ASSERT_TRUE(fabs(foray_score_ppl(&s) / want - 1) < 0.01); /* its activations are int8, ours float */
  json_decref(doc);
  free(logits);
  foray_ids_deinit(&ids);
  foray_float_ref_close(r);
  foray_pool_close(pool);
  foray_model_close(m);
}

/* ---------------------------------------------------------------- names and identity */

TEST(models_that_are_not_there_say_what_to_do) {
  struct foray_model *m = NULL;
  struct foray_err err = {0};
  const char *old = getenv("XDG_CACHE_HOME");
  char *keep = old ? strdup(old) : NULL;
  setenv("XDG_CACHE_HOME", "/tmp/foray-no-such-cache", 1);
  CU_ASSERT_EQUAL(foray_model_open("gemma3-270m", &m, &err), FORAY_E_NOTFOUND);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "foray pull gemma3-270m"));
  CU_ASSERT_EQUAL(foray_model_open("gemma4", &m, &err), FORAY_E_NOTFOUND);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "foray models"));
  CU_ASSERT_EQUAL(foray_model_open("./none.gguf", &m, &err), FORAY_E_NOTFOUND);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "./none.gguf: "));
  CU_ASSERT_PTR_NULL(m);
  if (keep)
    setenv("XDG_CACHE_HOME", keep, 1);
  else
    unsetenv("XDG_CACHE_HOME");
  free(keep);
}

TEST(digest_and_tensors_of_an_opened_model) {
  struct foray_tiny d = foray_tiny_default(FORAY_ARCH_QWEN2);
  struct foray_buf b;
  struct foray_model *m = open_tiny(&d, &b);
  uint8_t want[FORAY_SHA256_BYTES], got[FORAY_SHA256_BYTES];
  foray_sha256_once(b.data, b.len, want);
  for (int i = 0; i < 2; i++) {
    foray_model_sha256(m, got);
    CU_ASSERT_EQUAL(memcmp(want, got, sizeof got), 0);
  }
  char name[64];
  foray_role_tensor_name(FORAY_ROLE_ATTN_Q, 1, name, sizeof name);
  CU_ASSERT_STRING_EQUAL(name, "blk.1.attn_q.weight");
  CU_ASSERT_PTR_EQUAL(foray_model_tensor(m, FORAY_ROLE_ATTN_Q, 1), foray_gguf_find_tensor(m->gguf, name));
  CU_ASSERT_PTR_NULL(foray_model_tensor(m, FORAY_ROLE_ATTN_Q, 2));
  CU_ASSERT_PTR_NULL(foray_model_tensor(m, FORAY_ROLE_ATTN_Q_NORM, 0));
  CU_ASSERT_PTR_EQUAL(foray_model_head(m), foray_model_tensor(m, FORAY_ROLE_OUTPUT, 0));
  CU_ASSERT_TRUE(m->config.qkv_bias && !m->config.tied && m->config.rope_style == FORAY_ROPE_NEOX);
  foray_model_close(m);
  foray_buf_deinit(&b);
  d = foray_tiny_default(FORAY_ARCH_GEMMA3);
  m = open_tiny(&d, &b);
  CU_ASSERT_PTR_EQUAL(foray_model_head(m), foray_model_tensor(m, FORAY_ROLE_TOKEN_EMBD, 0));
  CU_ASSERT_TRUE(m->config.tied && m->config.qk_norm && m->config.window == 8);
  CU_ASSERT_TRUE(foray_config_layer_local(&m->config, 4) && !foray_config_layer_local(&m->config, 5));
  CU_ASSERT_EQUAL(foray_config_layer_rope_base(&m->config, 0), 1e4f);
  CU_ASSERT_EQUAL(foray_config_layer_rope_base(&m->config, 5), 1e6f);
  foray_model_close(m);
  foray_buf_deinit(&b);
}
