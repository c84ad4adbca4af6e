/* Tokenizers against the ids that llama.cpp gives (tests/golden/make_tokens.py), and against themselves. */
#include "unit/harness.h"

#include "core/hash.h"
#include "model/gguf.h"
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
