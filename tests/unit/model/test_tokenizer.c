/* Tokenizers against the ids that llama.cpp gives (tests/golden/make_tokens.py), and against themselves. */
#include "unit/harness.h"
#include "unit/tiny_model.h"

#include "core/hash.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t unhex(const char *h, char *out) {
  size_t n = strlen(h) / 2;
  for (size_t i = 0; i < n; i++) {
    unsigned v;
    sscanf(h + 2 * i, "%2x", &v);
    out[i] = (char)v;
  }
  return n;
}

static bool same(const struct foray_ids *got, const json_t *want) {
  if (got->n != json_array_size(want)) return false;
  for (size_t i = 0; i < got->n; i++)
    if (got->ids[i] != json_integer_value(json_array_get(want, i))) return false;
  return true;
}

static void show(const char *what, const struct foray_ids *got, const json_t *want) {
  printf("  %s\n    got ", what);
  for (size_t i = 0; i < got->n && i < 40; i++) printf(" %d", got->ids[i]);
  printf("\n    want");
  for (size_t i = 0; i < json_array_size(want) && i < 40; i++)
    printf(" %lld", (long long)json_integer_value(json_array_get(want, i)));
  printf("\n");
}

static struct foray_tokenizer *open_model(const char *name, struct foray_gguf **g) {
  const char *path = foray_test_model(name);
  struct foray_tokenizer *t = NULL;
  struct foray_err err = {0};
  if (!path) return NULL;
  if (foray_gguf_open(path, g, &err) || foray_tokenizer_open(*g, &t, &err)) {
    printf("  %s\n", err.msg);
    CU_FAIL_FATAL("a model of the cache does not open");
  }
  return t;
}

static void check_golden(const char *file, const char *name) {
  struct foray_gguf *g = NULL;
  struct foray_tokenizer *t = open_model(name, &g);
  if (!t) {
    foray_test_skip(name);
    return;
  }
  json_error_t je;
  json_t *doc = json_load_file(foray_test_path(file), 0, &je);
  CU_ASSERT_PTR_NOT_NULL_FATAL(doc);
  CU_ASSERT_EQUAL(foray_tokenizer_n_vocab(t), json_integer_value(json_object_get(doc, "n_vocab")));
  CU_ASSERT_EQUAL(foray_tokenizer_adds_bos(t), json_is_true(json_object_get(doc, "add_bos")));

  const json_t *eog = json_object_get(doc, "eog");
  size_t n_eog = 0;
  struct foray_sha256 *h = foray_sha256_open();
  for (int32_t i = 0; i < (int32_t)foray_tokenizer_n_vocab(t); i++) {
    n_eog += foray_tokenizer_is_eog(t, i);
    size_t len;
    const char *p = foray_tokenizer_piece(t, i, &len);
    uint32_t n = (uint32_t)len;
    foray_sha256_update(h, &n, 4);
    foray_sha256_update(h, p, len);
  }
  uint8_t digest[FORAY_SHA256_BYTES];
  char hex[FORAY_SHA256_HEX];
  foray_sha256_close(h, digest);
  foray_sha256_hex(digest, hex);
  CU_ASSERT_STRING_EQUAL(hex, json_string_value(json_object_get(doc, "pieces_sha256")));
  CU_ASSERT_EQUAL(n_eog, json_array_size(eog));
  for (size_t i = 0; i < json_array_size(eog); i++)
    CU_ASSERT_TRUE(foray_tokenizer_is_eog(t, (int32_t)json_integer_value(json_array_get(eog, i))));

  const json_t *cases = json_object_get(doc, "cases");
  CU_ASSERT_TRUE(json_array_size(cases) > 200);
  char text[8192];
  for (size_t i = 0; i < json_array_size(cases); i++) {
    const json_t *c = json_array_get(cases, i);
    const char *hextext = json_string_value(json_array_get(c, 0));
    size_t n = unhex(hextext, text);
    for (int special = 0; special < 2; special++) {
      const json_t *want = json_array_get(c, special && json_array_size(c) == 3 ? 2 : 1);
      struct foray_ids ids = {0};
      CU_ASSERT_EQUAL(foray_tokenizer_encode(t, text, n, special ? FORAY_ENCODE_SPECIAL : 0, &ids, NULL),
                      FORAY_OK);
      if (!same(&ids, want)) {
        show(hextext, &ids, want);
        CU_FAIL("ids differ from llama.cpp's");
      }
      foray_ids_deinit(&ids);
    }
  }
  json_decref(doc);
  foray_tokenizer_close(t);
  foray_gguf_close(g);
}

TEST(tokens_equal_llama_cpp_smollm) {
  check_golden("tests/golden/tokens-smollm.json", "smollm2-135m-instruct");
}
TEST(tokens_equal_llama_cpp_qwen2) {
  check_golden("tests/golden/tokens-qwen2.json", "qwen2.5-coder-0.5b-instruct");
}
TEST(tokens_equal_llama_cpp_qwen2_big) {
  check_golden("tests/golden/tokens-qwen2.json", "qwen2.5-coder-1.5b-instruct");
}
TEST(tokens_equal_llama_cpp_gemma) { check_golden("tests/golden/tokens-gemma.json", "gemma3-270m"); }

/* ---------------------------------------------------------------- without real models */

static struct foray_model *tiny(enum foray_arch arch, struct foray_buf *b) {
  struct foray_tiny d = foray_tiny_default(arch);
  struct foray_model *m = NULL;
  d.n_layer = 1;
  foray_tiny_build(&d, b);
  CU_ASSERT_EQUAL_FATAL(foray_model_open_memory(b->data, b->len, "tiny", &m, NULL), FORAY_OK);
  return m;
}

static const char *const texts[] = {"",
                                    "hello world",
                                    "  the  and\n\n\n 12 123 ",
                                    "caf\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80 \xc2\xa0",
                                    "I'm don't WE'LL",
                                    "a\0b",
                                    "\r\n\t\x01\x7f"};

/* Ids one at a time: each piece of output is whole characters, and all of them are the text. */
TEST(streamed_text_is_whole_characters) {
  for (int a = 0; a < 3; a++) {
    struct foray_buf file, out;
    struct foray_model *m = tiny((enum foray_arch)a, &file);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
      struct foray_ids ids = {0};
      struct foray_detok d = {0};
      size_t n = i == 5 ? 3 : strlen(texts[i]);
      foray_buf_init(&out, 1 << 16);
      CU_ASSERT_EQUAL(foray_tokenizer_encode(m->tokenizer, texts[i], n, FORAY_ENCODE_BOS, &ids, NULL),
                      FORAY_OK);
      for (size_t k = 0; k < ids.n; k++) {
        CU_ASSERT_EQUAL(foray_detok_feed(&d, m->tokenizer, ids.ids[k], &out), FORAY_OK);
        if (out.len < n)
          CU_ASSERT_NOT_EQUAL((uint8_t)texts[i][out.len] & 0xc0, 0x80); /* the next byte begins a character */
      }
      CU_ASSERT_EQUAL(d.n_held, 0);
      CU_ASSERT_EQUAL(out.len, n);
      CU_ASSERT_EQUAL(n ? memcmp(out.data, texts[i], n) : 0, 0);
      foray_ids_deinit(&ids);
      foray_buf_deinit(&out);
    }
    foray_model_close(m);
    foray_buf_deinit(&file);
  }
}

/* Bytes that are no UTF-8 come out as they are, as soon as that is certain; held ones at the end. */
TEST(streamed_bytes_that_are_no_text_pass) {
  struct foray_buf file, out;
  struct foray_model *m = tiny(FORAY_ARCH_GEMMA3, &file); /* its byte tokens are 6 + value */
  struct foray_detok d = {0};
  foray_buf_init(&out, 1 << 10);
  const uint8_t bytes[] = {0xe4, 0xb8, 'x', 0xff, 0xed, 0xa0, 0x80, 0xf0, 0x9f, 0x98};
  const size_t seen[] = {0, 0, 3, 4, 4, 6, 7, 7, 7, 7};
  for (size_t i = 0; i < sizeof bytes; i++) {
    CU_ASSERT_EQUAL(foray_detok_feed(&d, m->tokenizer, 6 + bytes[i], &out), FORAY_OK);
    CU_ASSERT_EQUAL(out.len, seen[i]);
  }
  CU_ASSERT_EQUAL(foray_detok_finish(&d, &out), FORAY_OK);
  CU_ASSERT_TRUE(out.len == sizeof bytes && !memcmp(out.data, bytes, sizeof bytes));
  CU_ASSERT_EQUAL(foray_detok_feed(&d, m->tokenizer, 320, &out), FORAY_E_ARG);
  CU_ASSERT_EQUAL(foray_detok_feed(&d, m->tokenizer, -1, &out), FORAY_E_ARG);
  CU_ASSERT_EQUAL(foray_detok_feed(&d, m->tokenizer, 1, &out), FORAY_OK); /* a control token: not shown */
  CU_ASSERT_EQUAL(out.len, sizeof bytes);
  foray_buf_deinit(&out);
  foray_model_close(m);
  foray_buf_deinit(&file);
}

/* A megabyte in one piece: quadratic merging would take minutes. */
TEST(long_pieces_take_no_quadratic_time) {
  enum { LEN = 1 << 20 };
  char *text = malloc(LEN);
  CU_ASSERT_PTR_NOT_NULL_FATAL(text);
  for (int a = 0; a < 3; a++)
    for (int kind = 0; kind < 3; kind++) {
      struct foray_buf file;
      struct foray_model *m = tiny((enum foray_arch)a, &file);
      struct foray_ids ids = {0};
      for (int i = 0; i < LEN; i++) text[i] = kind == 0 ? 'h' : kind == 1 ? ' ' : "the"[i % 3];
      CU_ASSERT_EQUAL(foray_tokenizer_encode(m->tokenizer, text, LEN, 0, &ids, NULL), FORAY_OK);
      CU_ASSERT_TRUE(ids.n >= LEN / 8 && ids.n <= LEN);
      foray_ids_deinit(&ids);
      foray_model_close(m);
      foray_buf_deinit(&file);
    }
  free(text);
}

TEST(hash_tells_tokenizers_apart) {
  uint8_t h[3][FORAY_SHA256_BYTES], again[FORAY_SHA256_BYTES];
  for (int a = 0; a < 4; a++) {
    struct foray_buf file;
    struct foray_model *m = tiny((enum foray_arch)(a % 3), &file);
    foray_tokenizer_hash(m->tokenizer, a < 3 ? h[a] : again);
    foray_model_close(m);
    foray_buf_deinit(&file);
  }
  CU_ASSERT_EQUAL(memcmp(h[0], again, sizeof again), 0);
  CU_ASSERT_NOT_EQUAL(memcmp(h[0], h[1], sizeof again), 0); /* they differ in the pre-tokenizer alone */
  CU_ASSERT_NOT_EQUAL(memcmp(h[1], h[2], sizeof again), 0);
}

/* Class 7 of bad files: the number of a byte token is two upper-case hexadecimal digits, nothing else. */
TEST(class_6_7_bad_byte_tokens_and_lengths) {
  static const char *const names[] = {"<0x-1>", "<0x+1>", "<0x 1>", "<0x1>", "<0x123>",
                                      "<0xGG>", "",       "<0x41",  "<0xab>"};
  for (size_t i = 0; i < 2 + sizeof names / sizeof *names; i++) {
    const char *tokens[] = {"<unk>", i < 9 ? names[i] : "<0x41>", "a"};
    const int32_t kinds[] = {2, 6, 1, 1};
    const float scores[] = {0, 0, 0, 0};
    struct foray_gguf_writer *w = foray_gguf_writer_open();
    foray_gguf_writer_str(w, "tokenizer.ggml.model", "llama");
    foray_gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
    foray_gguf_writer_arr_str(w, "tokenizer.ggml.tokens", tokens, 3);
    foray_gguf_writer_arr(w, "tokenizer.ggml.token_type", FORAY_GGUF_I32, kinds, i == 9 ? 2 : 3);
    foray_gguf_writer_arr(w, "tokenizer.ggml.scores", FORAY_GGUF_F32, scores, i == 10 ? 4 : 3);
    struct foray_buf b;
    struct foray_gguf *g;
    struct foray_tokenizer *t = NULL;
    struct foray_err err = {0};
    foray_buf_init(&b, 1 << 16);
    CU_ASSERT_EQUAL_FATAL(foray_gguf_writer_save_buf(w, &b, NULL), FORAY_OK);
    CU_ASSERT_EQUAL_FATAL(foray_gguf_open_memory(b.data, b.len, "bad.gguf", &g, NULL), FORAY_OK);
    CU_ASSERT_EQUAL(foray_tokenizer_open(g, &t, &err), FORAY_E_FORMAT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, i < 9 ? "not of the form <0xNN>" : "3 tokens, but"));
    foray_tokenizer_close(t);
    foray_gguf_close(g);
    foray_gguf_writer_close(w);
    foray_buf_deinit(&b);
  }
}
