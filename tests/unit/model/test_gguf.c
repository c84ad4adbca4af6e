/* The 14 classes of bad file of model loaders, each refused with file, offset and reason; truncation at every
 * byte; round trips. */
#include "unit/harness.h"

#include "model/gguf.h"
#include "model/gguf_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file under construction: little-endian fields appended one by one. */
struct craft {
  uint8_t b[1 << 16];
  size_t n;
};
static void raw(struct craft *c, const void *p, size_t n) {
  memcpy(c->b + c->n, p, n);
  c->n += n;
}
static void u32(struct craft *c, uint32_t v) { raw(c, &v, 4); }
static void u64(struct craft *c, uint64_t v) { raw(c, &v, 8); }
static void str(struct craft *c, const char *s) {
  u64(c, strlen(s));
  raw(c, s, strlen(s));
}
static void begin(struct craft *c, uint64_t n_tensors, uint64_t n_kv) {
  c->n = 0;
  raw(c, "GGUF", 4);
  u32(c, 3);
  u64(c, n_tensors);
  u64(c, n_kv);
}
static void kv_u32(struct craft *c, const char *key, uint32_t v) {
  str(c, key);
  u32(c, FORAY_GGUF_U32);
  u32(c, v);
}
static void tensor2(struct craft *c, const char *name, uint64_t ne0, uint64_t ne1, uint32_t type,
                    uint64_t offset) {
  str(c, name);
  u32(c, 2);
  u64(c, ne0);
  u64(c, ne1);
  u32(c, type);
  u64(c, offset);
}
static void pad(struct craft *c, size_t extra) {
  while (c->n % 32) c->b[c->n++] = 0;
  memset(c->b + c->n, 1, extra);
  c->n += extra;
}

/* Opens a copy of exactly the file's size, so that AddressSanitizer sees a read past its end. */
static enum foray_status open_copy(const uint8_t *b, size_t n, struct foray_err *err) {
  uint8_t *copy = malloc(n ? n : 1);
  memcpy(copy, b, n);
  struct foray_gguf *g = NULL;
  enum foray_status s = foray_gguf_open_memory(copy, n, "bad.gguf", &g, err);
  foray_gguf_close(g);
  free(copy);
  return s;
}

static void refused(const struct craft *c, enum foray_status code, const char *why) {
  struct foray_err err = {0};
  enum foray_status s = open_copy(c->b, c->n, &err);
  if (s != code || !strstr(err.msg, why) || strncmp(err.msg, "bad.gguf: offset ", 17)) {
    printf("  wanted %s with '%s', got %s: %s\n", foray_status_name(code), why, foray_status_name(s),
           err.msg);
    CU_FAIL("not refused as it should be");
  }
}

TEST(magic_version_and_byte_order) {
  struct craft c = {0};
  begin(&c, 0, 0);
  CU_ASSERT_EQUAL(open_copy(c.b, c.n, NULL), FORAY_OK);
  c.b[4] = 2;
  CU_ASSERT_EQUAL(open_copy(c.b, c.n, NULL), FORAY_OK);
  c.b[4] = 1;
  refused(&c, FORAY_E_UNSUPPORTED, "version 1");
  c.b[4] = 4;
  refused(&c, FORAY_E_UNSUPPORTED, "version 4");
  memcpy(c.b + 4, "\0\0\0\3", 4);
  refused(&c, FORAY_E_UNSUPPORTED, "big-endian");
  c.b[0] = 'g';
  refused(&c, FORAY_E_FORMAT, "not a GGUF file");
}

TEST(class_1_counts_that_overflow) {
  struct craft c = {0};
  const uint64_t counts[] = {UINT64_MAX, INT64_MAX, (uint64_t)1 << 61, (uint64_t)1 << 32, 1000};
  for (size_t i = 0; i < 5; i++) {
    begin(&c, counts[i], 0);
    refused(&c, FORAY_E_FORMAT, "tensors do not fit");
    begin(&c, 0, counts[i]);
    refused(&c, FORAY_E_FORMAT, "metadata entries do not fit");
  }
}

TEST(class_2_3_4_shapes_and_sums_that_wrap) {
  struct craft c = {0};
  begin(&c, 1, 0);
  tensor2(&c, "t", 32, ((uint64_t)1 << 42) + 1, FORAY_GGML_F32, 0);
  pad(&c, 64);
  refused(&c, FORAY_E_FORMAT, "needs");
  begin(&c, 1, 0);
  tensor2(&c, "t", (uint64_t)1 << 32, (uint64_t)1 << 32, FORAY_GGML_F32, 0);
  pad(&c, 64);
  refused(&c, FORAY_E_FORMAT, "too large");
  begin(&c, 1, 0);
  tensor2(&c, "t", INT64_MAX - 31, 1, FORAY_GGML_F32, 0);
  pad(&c, 64);
  refused(&c, FORAY_E_FORMAT, "larger than 2^64"); /* size x 4 wraps */
  begin(&c, 1, 0);
  tensor2(&c, "t", UINT64_MAX, 1, FORAY_GGML_F32, 0); /* ne = -1 */
  pad(&c, 64);
  refused(&c, FORAY_E_FORMAT, "negative");
  begin(&c, 1, 0);
  tensor2(&c, "t", 0, 5, FORAY_GGML_F32, 0);
  refused(&c, FORAY_E_FORMAT, "zero");
  /* Five tensors of 2^62 bytes: the running sum wraps, each of them alone does not. */
  begin(&c, 5, 0);
  for (uint64_t i = 0; i < 5; i++) {
    char name[2] = {(char)('a' + i), 0};
    tensor2(&c, name, (uint64_t)1 << 60, 1, FORAY_GGML_F32, i << 62);
  }
  pad(&c, 64);
  refused(&c, FORAY_E_FORMAT, "larger than 2^64");
  begin(&c, 1, 0);
  tensor2(&c, "t", ((uint64_t)1 << 62) - 1, 4, FORAY_GGML_I8, 0); /* align-up of the end stays below 2^64 */
  refused(&c, FORAY_E_FORMAT, "too large");
}

TEST(class_5_data_outside_the_file) {
  struct craft c = {0};
  begin(&c, 1, 0);
  tensor2(&c, "t", 32, 2, FORAY_GGML_F32, 0);
  pad(&c, 255);
  refused(&c, FORAY_E_FORMAT, "needs 256 bytes");
  pad(&c, 1);
  c.n = (c.n + 31) / 32 * 32;
  CU_ASSERT_EQUAL(open_copy(c.b, c.n, NULL), FORAY_OK);
  begin(&c, 1, 0);
  tensor2(&c, "t", 32, 2, FORAY_GGML_F32, 32);
  pad(&c, 512);
  refused(&c, FORAY_E_FORMAT, "is where the one before it ends");
  begin(&c, 2, 0);
  tensor2(&c, "a", 32, 2, FORAY_GGML_F32, 0);
  tensor2(&c, "b", 32, 2, FORAY_GGML_F32, 0); /* overlaps a */
  pad(&c, 512);
  refused(&c, FORAY_E_FORMAT, "is where the one before it ends");
}

TEST(class_6_array_element_types) {
  struct craft c = {0};
  begin(&c, 0, 1);
  str(&c, "a");
  u32(&c, FORAY_GGUF_ARRAY);
  u32(&c, FORAY_GGUF_U8);
  u64(&c, 4);
  u32(&c, 0);
  struct foray_gguf *g;
  const struct foray_gguf_kv *kv;
  struct foray_err err = {0};
  CU_ASSERT_EQUAL_FATAL(foray_gguf_open_memory(c.b, c.n, "bad.gguf", &g, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_gguf_get_array(g, "a", FORAY_GGUF_F32, &kv, &err), FORAY_E_FORMAT);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "array of u8; array of f32 is needed"));
  CU_ASSERT_EQUAL(foray_gguf_get_array(g, "a", FORAY_GGUF_U8, &kv, &err), FORAY_OK);
  uint32_t v = 7;
  CU_ASSERT_EQUAL(foray_gguf_get_u32(g, "a", &v, &err), FORAY_E_FORMAT);
  CU_ASSERT_EQUAL(foray_gguf_get_u32(g, "b", &v, &err), FORAY_E_NOTFOUND);
  CU_ASSERT_EQUAL(foray_gguf_opt_u32(g, "b", &v, &err), FORAY_OK);
  CU_ASSERT_EQUAL(v, 7);
  foray_gguf_close(g);
  begin(&c, 0, 1); /* arrays of arrays */
  str(&c, "a");
  u32(&c, FORAY_GGUF_ARRAY);
  u32(&c, FORAY_GGUF_ARRAY);
  u64(&c, 0);
  refused(&c, FORAY_E_FORMAT, "element type 9");
}

TEST(class_10_lengths_beyond_the_file) {
  struct craft c = {0};
  const uint64_t lengths[] = {UINT64_MAX, (uint64_t)1 << 40, (uint64_t)1 << 30, 17};
  for (size_t i = 0; i < 4; i++) {
    begin(&c, 0, 1); /* a key */
    u64(&c, lengths[i]);
    raw(&c, "0123456789", 10);
    refused(&c, FORAY_E_FORMAT, "a key has a length");
    begin(&c, 0, 1); /* a string */
    str(&c, "k");
    u32(&c, FORAY_GGUF_STR);
    u64(&c, lengths[i]);
    raw(&c, "abc", 3);
    refused(&c, FORAY_E_FORMAT, "only 3 are left");
    for (uint32_t t = 0; t <= FORAY_GGUF_F64; t++) { /* arrays of every type */
      if (t == FORAY_GGUF_ARRAY) continue;
      begin(&c, 0, 1);
      str(&c, "k");
      u32(&c, FORAY_GGUF_ARRAY);
      u32(&c, t);
      u64(&c, lengths[i]);
      raw(&c, "abcdefg", 7);
      refused(&c, FORAY_E_FORMAT, "are left");
    }
  }
}

TEST(class_11_types_names_and_duplicates) {
  struct craft c = {0};
  begin(&c, 1, 0);
  tensor2(&c, "t", 32, 1, 4, 0); /* Q4_2, long gone: block size 0 in ggml's table */
  pad(&c, 64);
  refused(&c, FORAY_E_UNSUPPORTED, "type 4");
  begin(&c, 1, 0);
  tensor2(&c, "t", 32, 1, UINT32_MAX, 0);
  pad(&c, 64);
  refused(&c, FORAY_E_UNSUPPORTED, "type 4294967295");
  begin(&c, 1, 0);
  tensor2(&c, "t", 33, 1, FORAY_GGML_Q8_0, 0);
  pad(&c, 64);
  refused(&c, FORAY_E_FORMAT, "not a multiple of Q8_0's block");
  begin(&c, 2, 0);
  tensor2(&c, "t", 8, 1, FORAY_GGML_F32, 0);
  tensor2(&c, "t", 8, 1, FORAY_GGML_F32, 32);
  pad(&c, 64);
  refused(&c, FORAY_E_FORMAT, "tensor 't' occurs twice");
  begin(&c, 0, 2);
  kv_u32(&c, "k", 1);
  kv_u32(&c, "k", 1);
  refused(&c, FORAY_E_FORMAT, "key 'k' occurs twice");
  begin(&c, 0, 1);
  kv_u32(&c, "", 1);
  refused(&c, FORAY_E_FORMAT, "a key has 0 bytes");
  begin(&c, 0, 1);
  str(&c, "k");
  u32(&c, 13);
  u64(&c, 0);
  refused(&c, FORAY_E_FORMAT, "value type 13");
  for (uint32_t dims = 0; dims < 7; dims += 5) { /* 0 and 5 */
    begin(&c, 1, 0);
    str(&c, "t");
    u32(&c, dims);
    for (int i = 0; i < 6; i++) u64(&c, 1);
    refused(&c, FORAY_E_FORMAT, "dimensions");
  }
  char name[80];
  memset(name, 'n', 79);
  name[79] = 0;
  begin(&c, 1, 0);
  tensor2(&c, name, 8, 1, FORAY_GGML_F32, 0);
  refused(&c, FORAY_E_FORMAT, "name has 79 bytes");
}

TEST(class_12_alignment) {
  struct craft c = {0};
  const uint32_t bad[] = {0, 1, 3, 24, 33, 1u << 31, UINT32_MAX};
  for (size_t i = 0; i < 7; i++) {
    begin(&c, 0, 1);
    kv_u32(&c, "general.alignment", bad[i]);
    refused(&c, FORAY_E_FORMAT, "power of two");
  }
  begin(&c, 0, 1);
  str(&c, "general.alignment");
  u32(&c, FORAY_GGUF_STR);
  str(&c, "32");
  refused(&c, FORAY_E_FORMAT, "must be u32");
  begin(&c, 1, 1);
  kv_u32(&c, "general.alignment", 64);
  tensor2(&c, "t", 8, 1, FORAY_GGML_F32, 0);
  while (c.n % 64) c.b[c.n++] = 0;
  c.n += 32;
  CU_ASSERT_EQUAL(open_copy(c.b, c.n, NULL), FORAY_OK);
}

/* 10^5 keys must not take a quadratic time: 10^10 comparisons would not end within the test's time limit. */
TEST(class_13_many_keys) {
  struct foray_gguf_writer *w = foray_gguf_writer_open();
  char key[32];
  for (int i = 0; i < 100000; i++) {
    snprintf(key, sizeof key, "key.%d", i);
    foray_gguf_writer_u32(w, key, (uint32_t)i);
  }
  struct foray_buf b;
  foray_buf_init(&b, (size_t)1 << 28);
  CU_ASSERT_EQUAL_FATAL(foray_gguf_writer_save_buf(w, &b, NULL), FORAY_OK);
  struct foray_gguf *g;
  uint32_t v = 0;
  CU_ASSERT_EQUAL_FATAL(foray_gguf_open_memory(b.data, b.len, "many", &g, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_gguf_get_u32(g, "key.77777", &v, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(v, 77777);
  foray_gguf_close(g);
  foray_gguf_writer_u32(w, "key.500", 0);
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(foray_gguf_writer_save_buf(w, &b, &err), FORAY_E_FORMAT);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "'key.500' occurs twice"));
  foray_gguf_writer_close(w);
  foray_buf_deinit(&b);
}

static struct foray_gguf_writer *sample(const float *data, const uint8_t *q8) {
  struct foray_gguf_writer *w = foray_gguf_writer_open();
  const char *strs[] = {"", "two", "\xff\xfe"};
  const float fs[] = {1.5f, -2};
  foray_gguf_writer_str(w, "general.architecture", "none");
  foray_gguf_writer_u32(w, "u32", 4000000000u);
  foray_gguf_writer_u64(w, "u64", (uint64_t)1 << 40);
  foray_gguf_writer_i32(w, "i32", -5);
  foray_gguf_writer_f32(w, "f32", 0.25f);
  foray_gguf_writer_bool(w, "bool", true);
  foray_gguf_writer_strn(w, "bytes", "a\0b", 3);
  foray_gguf_writer_arr_str(w, "strs", strs, 3);
  foray_gguf_writer_arr(w, "floats", FORAY_GGUF_F32, fs, 2);
  foray_gguf_writer_tensor(w, "a", FORAY_GGML_F32, 1, (uint64_t[]){5}, data);
  foray_gguf_writer_tensor(w, "b", FORAY_GGML_Q8_0, 2, (uint64_t[]){32, 2}, q8);
  foray_gguf_writer_tensor(w, "c", FORAY_GGML_F32, 2, (uint64_t[]){2, 2}, data);
  return w;
}

TEST(what_is_written_is_read_back) {
  const float data[5] = {1, 2, 3, 4, 5};
  uint8_t q8[68];
  for (int i = 0; i < 68; i++) q8[i] = (uint8_t)i;
  struct foray_gguf_writer *w = sample(data, q8);
  struct foray_err err = {0};
  char path[] = "/tmp/foray-gguf-XXXXXX";
  int fd = mkstemp(path);
  CU_ASSERT_TRUE_FATAL(fd >= 0);
  close(fd);
  CU_ASSERT_EQUAL_FATAL(foray_gguf_writer_save(w, path, &err), FORAY_OK);
  foray_gguf_writer_close(w);
  struct foray_gguf *g;
  CU_ASSERT_EQUAL_FATAL(foray_gguf_open(path, &g, &err), FORAY_OK);
  uint32_t u = 0;
  uint64_t u64v = 0;
  float f = 0;
  bool b = false;
  struct foray_gguf_str s = {0};
  const struct foray_gguf_kv *kv;
  CU_ASSERT_EQUAL(foray_gguf_version(g), 3);
  CU_ASSERT_EQUAL(foray_gguf_n_kv(g), 9);
  CU_ASSERT_TRUE(foray_gguf_get_u32(g, "u32", &u, NULL) == FORAY_OK && u == 4000000000u);
  CU_ASSERT_TRUE(foray_gguf_get_u64(g, "u64", &u64v, NULL) == FORAY_OK && u64v == (uint64_t)1 << 40);
  CU_ASSERT_EQUAL(foray_gguf_get_u32(g, "u64", &u, NULL), FORAY_E_FORMAT); /* does not fit */
  CU_ASSERT_EQUAL(foray_gguf_get_u32(g, "i32", &u, NULL), FORAY_E_FORMAT); /* negative */
  CU_ASSERT_TRUE(foray_gguf_get_f32(g, "f32", &f, NULL) == FORAY_OK && f == 0.25f);
  CU_ASSERT_EQUAL(foray_gguf_get_f32(g, "u32", &f, NULL), FORAY_E_FORMAT);
  CU_ASSERT_TRUE(foray_gguf_get_bool(g, "bool", &b, NULL) == FORAY_OK && b);
  CU_ASSERT_TRUE(foray_gguf_get_str(g, "bytes", &s, NULL) == FORAY_OK && s.len == 3 &&
                 !memcmp(s.ptr, "a\0b", 3));
  CU_ASSERT_EQUAL_FATAL(foray_gguf_get_array(g, "strs", FORAY_GGUF_STR, &kv, NULL), FORAY_OK);
  size_t at = 0, lens[4] = {9, 9, 9, 9}, n = 0;
  while (foray_gguf_array_next(kv, &at, &s)) lens[n++] = s.len;
  CU_ASSERT_TRUE(n == 3 && lens[0] == 0 && lens[1] == 3 && lens[2] == 2);
  CU_ASSERT_EQUAL_FATAL(foray_gguf_get_array(g, "floats", FORAY_GGUF_F32, &kv, NULL), FORAY_OK);
  CU_ASSERT_TRUE(kv->count == 2 && foray_gguf_array_f32(kv, 1) == -2.0f);
  const struct foray_gguf_tensor *t = foray_gguf_find_tensor(g, "b");
  CU_ASSERT_PTR_NOT_NULL_FATAL(t);
  CU_ASSERT_TRUE(t->type == FORAY_GGML_Q8_0 && t->ne[0] == 32 && t->ne[1] == 2 && t->ne[2] == 1 &&
                 t->bytes == 68);
  CU_ASSERT_EQUAL(memcmp(t->data, q8, 68), 0);
  CU_ASSERT_EQUAL((uintptr_t)t->data % 32, 0);
  t = foray_gguf_find_tensor(g, "c");
  CU_ASSERT_TRUE(t && !memcmp(t->data, data, 16));
  CU_ASSERT_PTR_NULL(foray_gguf_find_tensor(g, "d"));
  foray_gguf_close(g);
  unlink(path);
  CU_ASSERT_EQUAL(foray_gguf_open(path, &g, &err), FORAY_E_NOTFOUND);
  CU_ASSERT_EQUAL(foray_gguf_open("/", &g, &err), FORAY_E_FORMAT);
}

TEST(class_13_14_truncation_at_every_byte) {
  const float data[5] = {1, 2, 3, 4, 5};
  uint8_t q8[68] = {0};
  struct foray_gguf_writer *w = sample(data, q8);
  struct foray_buf b;
  foray_buf_init(&b, 1 << 16);
  CU_ASSERT_EQUAL_FATAL(foray_gguf_writer_save_buf(w, &b, NULL), FORAY_OK);
  foray_gguf_writer_close(w);
  size_t needed = b.len - 16; /* the last tensor's padding may be missing */
  for (size_t n = 0; n < b.len; n++) {
    struct foray_err err = {0};
    enum foray_status s = open_copy(b.data, n, &err);
    if ((n < needed) != (s != FORAY_OK) || (s && strncmp(err.msg, "bad.gguf: offset ", 17))) {
      printf("  at %zu of %zu: %s\n", n, b.len, err.msg);
      CU_FAIL("truncated file");
    }
  }
  /* One byte changed: any answer will do, as long as it is an answer. */
  for (size_t i = 0; i < b.len; i++)
    for (int bit = 0; bit < 8; bit++) {
      b.data[i] ^= (uint8_t)(1 << bit);
      (void)open_copy(b.data, b.len, NULL);
      b.data[i] ^= (uint8_t)(1 << bit);
    }
  foray_buf_deinit(&b);
}

TEST(split_files_are_refused_with_advice) {
  struct craft c = {0};
  struct foray_err err = {0};
  begin(&c, 0, 1);
  kv_u32(&c, "split.count", 3);
  CU_ASSERT_EQUAL(open_copy(c.b, c.n, &err), FORAY_E_UNSUPPORTED);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "split"));
}

TEST(writer_refuses_bad_tensors) {
  struct foray_gguf_writer *w = foray_gguf_writer_open();
  struct foray_err err = {0};
  struct foray_buf b;
  foray_buf_init(&b, 1 << 16);
  foray_gguf_writer_tensor(w, "t", FORAY_GGML_Q8_0, 1, (uint64_t[]){31}, "");
  foray_gguf_writer_tensor(w, "later", FORAY_GGML_F32, 1, (uint64_t[]){1}, "");
  CU_ASSERT_EQUAL(foray_gguf_writer_save_buf(w, &b, &err), FORAY_E_ARG);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "'t'")); /* the first failure is the one that is told */
  foray_gguf_writer_close(w);
  foray_buf_deinit(&b);
}
