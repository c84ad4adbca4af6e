/* Weight image: golden bytes of the layout, the inverse, and refusal of every bad field. */
#include "unit/harness.h"
#include "unit/tiny_model.h"

#include "core/hash.h"
#include "model/image_plan.h"
#include "model/pack.h"
#include "model/pack_codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A whole image of a tiny model in 64-byte aligned memory; free the result. */
static uint8_t *tiny_image(enum foray_arch arch, size_t *size) {
  struct foray_tiny d = foray_tiny_default(arch);
  struct foray_buf b;
  struct foray_model *m;
  struct foray_err err = {0};
  char path[] = "/tmp/foray-test-XXXXXX", list[] = "/tmp/foray-test-XXXXXX";
  d.head_dim = 32;
  foray_tiny_build(&d, &b);
  CU_ASSERT_EQUAL_FATAL(foray_model_open_memory(b.data, b.len, "tiny", &m, &err), FORAY_OK);
  int fd = mkstemp(path), fl = mkstemp(list);
  CU_ASSERT_FATAL(fd >= 0 && fl >= 0);
  CU_ASSERT_EQUAL_FATAL(write(fl, "5\n3\n# two more\n300\n7\n", 21), 21);
  struct foray_pack_opts o = {
      .exits_path = "", .vocab_path = list, .calib = FORAY_PACK_CALIB_OFF, .bits_max = 20};
  CU_ASSERT_EQUAL_FATAL(foray_pack_run(m, &o, path, NULL, &err), FORAY_OK);
  foray_model_close(m);
  foray_buf_deinit(&b);
  close(fd);
  close(fl);
  FILE *f = fopen(path, "re");
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  fseek(f, 0, SEEK_END);
  *size = (size_t)ftell(f);
  rewind(f);
  uint8_t *p = aligned_alloc(64, (*size + 63) / 64 * 64);
  CU_ASSERT_PTR_NOT_NULL_FATAL(p);
  CU_ASSERT_EQUAL(fread(p, 1, *size, f), *size);
  fclose(f);
  unlink(path);
  unlink(list);
  return p;
}

/* Where docs/image.md says that code q of (row, column) lies, written out by hand for 3 groups of Q4A. */
TEST(q4a_golden_bytes) {
  struct foray_codes *c;
  CU_ASSERT_EQUAL_FATAL(foray_codes_open(FORAY_IMAGE_Q4A, 17, 96, &c, NULL), FORAY_OK);
  for (uint32_t r = 0; r < 17; r++) {
    c->mant[r] = (uint16_t)(1000 + r);
    for (uint32_t g = 0; g < 3; g++) {
      c->sc[r * 3 + g] = (uint8_t)(10 * g + r);
      c->zp[r * 3 + g] = (uint8_t)(100 + 10 * g + r);
    }
    for (uint32_t i = 0; i < 96; i++) c->q[r * 96 + i] = (uint8_t)((r + i) % 16);
  }
  struct foray_image_layout l;
  CU_ASSERT_FATAL(foray_image_layout_of(FORAY_IMAGE_Q4A, 17, 96, true, &l));
  CU_ASSERT_EQUAL(l.rows_pad, 32);
  CU_ASSERT_EQUAL(l.bias_at, 64);
  CU_ASSERT_EQUAL(l.data_at, 64 + 128);
  CU_ASSERT_EQUAL(l.block_bytes, 2 * 64 + 3 * 256);
  CU_ASSERT_EQUAL(l.bytes, 64 + 128 + 2 * (2 * 64 + 3 * 256));
  uint8_t *p = calloc(l.bytes, 1);
  int32_t bias[17];
  for (int r = 0; r < 17; r++) bias[r] = -r;
  CU_ASSERT_PTR_NOT_NULL_FATAL(p);
  foray_codes_write(c, bias, p);
  CU_ASSERT_EQUAL(p[2 * 16] | p[2 * 16 + 1] << 8, 1016);
  CU_ASSERT_EQUAL(p[2 * 17], 0);
  CU_ASSERT_EQUAL(p[64 + 4 * 16], (uint8_t)-16);
  const uint8_t *b0 = p + 64 + 128, *b1 = b0 + 896;
  CU_ASSERT_EQUAL(b0[5], 5);             /* sc, group 0, row 5 */
  CU_ASSERT_EQUAL(b0[16 + 5], 105);      /* zp, group 0 */
  CU_ASSERT_EQUAL(b0[32 + 5], 15);       /* sc, group 1 */
  CU_ASSERT_EQUAL(b0[48 + 5], 115);      /* zp, group 1 */
  CU_ASSERT_EQUAL(b0[64 + 512 + 5], 25); /* second code beat: group 2 */
  CU_ASSERT_EQUAL(b0[64 + 512 + 32 + 5], 0);
  /* group 1, beat 2 covers columns 48..55 of the row; row 5, byte 3: low = column 51, high = column 55 */
  CU_ASSERT_EQUAL(b0[64 + 256 + 2 * 64 + 5 * 4 + 3], ((5 + 51) % 16) | ((5 + 55) % 16) << 4);
  CU_ASSERT_EQUAL(b1[0], 16); /* row 16 is lane 0 of block 1 */
  CU_ASSERT_EQUAL(b1[64 + 0], ((16 + 0) % 16) | ((16 + 4) % 16) << 4);
  CU_ASSERT_EQUAL(b1[64 + 4], 0); /* padding row */
  free(p);
  foray_codes_close(c);
}

TEST(q8s_golden_bytes) {
  struct foray_codes *c;
  CU_ASSERT_EQUAL_FATAL(foray_codes_open(FORAY_IMAGE_Q8S, 2, 160, &c, NULL), FORAY_OK);
  for (uint32_t r = 0; r < 2; r++) {
    for (uint32_t g = 0; g < 5; g++) c->sc[r * 5 + g] = (uint8_t)(10 * g + r + 1);
    for (uint32_t i = 0; i < 160; i++)
      c->q[r * 160 + i] = (uint8_t)(int8_t)(r ? -(int)i % 128 : (int)i % 128);
  }
  struct foray_image_layout l;
  CU_ASSERT_FATAL(foray_image_layout_of(FORAY_IMAGE_Q8S, 2, 160, false, &l));
  CU_ASSERT_EQUAL(l.block_bytes, 2 * 64 + 5 * 512);
  CU_ASSERT_EQUAL(l.bias_at, 0);
  CU_ASSERT_EQUAL(l.data_at, 64);
  uint8_t *p = calloc(l.bytes, 1);
  CU_ASSERT_PTR_NOT_NULL_FATAL(p);
  foray_codes_write(c, NULL, p);
  CU_ASSERT_EQUAL(p[64 + 3 * 16 + 1], 32);                             /* sc, group 3, row 1 */
  CU_ASSERT_EQUAL(p[64 + 64 + 4 * 512], 41);                           /* second code beat: group 4, row 0 */
  CU_ASSERT_EQUAL((int8_t)p[64 + 64 + 512 + 3 * 64 + 1 * 4 + 2], -46); /* group 1, beat 3, row 1: column 46 */
  free(p);
  foray_codes_close(c);
}

TEST(layout_refuses_nonsense) {
  struct foray_image_layout l;
  CU_ASSERT_FALSE(foray_image_layout_of(FORAY_IMAGE_Q4A, 0, 32, false, &l));
  CU_ASSERT_FALSE(foray_image_layout_of(FORAY_IMAGE_Q4A, 16, 33, false, &l));
  CU_ASSERT_FALSE(foray_image_layout_of(FORAY_IMAGE_Q4A, UINT32_MAX, 32, false, &l));
  CU_ASSERT_FALSE(foray_image_layout_of(FORAY_IMAGE_Q8S, 16, UINT32_MAX - 31, false, &l));
  CU_ASSERT_FALSE(foray_image_layout_of((enum foray_image_type)7, 16, 32, false, &l));
  CU_ASSERT_FALSE(foray_image_layout_of(FORAY_IMAGE_V32, 2, 32, false, &l));
}

static void check_whole(enum foray_arch arch) {
  size_t size;
  uint8_t *p = tiny_image(arch, &size);
  struct foray_image *img;
  struct foray_err err = {0};
  CU_ASSERT_EQUAL_FATAL(foray_image_open_memory(p, size, "tiny", &img, &err), FORAY_OK);
  CU_ASSERT_EQUAL(foray_image_verify(img, &err), FORAY_OK);
  CU_ASSERT_EQUAL(img->config.n_trim, 4);
  CU_ASSERT_EQUAL(img->vocab[2], 300);
  uint64_t end = 0;
  for (uint32_t i = 0; i < img->n_tensors; i++) {
    const struct foray_image_tensor *t = &img->tensors[i];
    CU_ASSERT(t->off >= end && t->off % 64 == 0);
    end = t->off + t->bytes;
    CU_ASSERT_PTR_EQUAL(foray_image_find(img, t->role, t->index), t);
  }
  CU_ASSERT_EQUAL(end, size);
  CU_ASSERT_EQUAL(img->stream_off % 4096, 0);
  CU_ASSERT_EQUAL(img->rest_off % 4096, 0);
  /* the trimmed head is those rows of the full one */
  const struct foray_image_tensor *full = foray_image_find(img, FORAY_IMAGE_HEAD_FULL, 0);
  const struct foray_image_tensor *head = foray_image_find(img, FORAY_IMAGE_HEAD, 0);
  CU_ASSERT_FATAL(full && head);
  float a[1024], b[1024];
  double worst = 0, top = 0;
  for (uint32_t r = 0; r < head->rows; r++) {
    foray_image_row(img, head, r, a);
    foray_image_row(img, full, img->vocab[r], b);
    for (uint32_t i = 0; i < head->cols; i++) {
      worst = fmax(worst, fabs((double)(a[i] - b[i])));
      top = fmax(top, fabs((double)b[i]));
    }
  }
  CU_ASSERT(worst <= top / 50);
  /* integers and floats of a row agree */
  int8_t q[1024];
  uint8_t sc[32];
  uint16_t mant;
  foray_image_row_q8s(img, full, 9, q, sc, &mant);
  foray_image_row(img, full, 9, b);
  for (uint32_t i = 0; i < full->cols; i++) {
    CU_ASSERT_DOUBLE_EQUAL(ldexp((double)mant * sc[i / 32] * q[i], full->exp), b[i],
                           fabs((double)b[i]) * 1e-6);
  }
  foray_image_close(img);
  free(p);
}
TEST(whole_image_llama) { check_whole(FORAY_ARCH_LLAMA); }
TEST(whole_image_qwen2) { check_whole(FORAY_ARCH_QWEN2); }

/* Changes bytes, puts the header's own hash right again, and expects the reader to refuse. */
static void refuse(const uint8_t *good, size_t size, size_t at, const void *bytes, size_t n,
                   const char *what) {
  uint8_t *p = aligned_alloc(64, (size + 63) / 64 * 64);
  struct foray_image *img = NULL;
  struct foray_err err = {0};
  CU_ASSERT_PTR_NOT_NULL_FATAL(p);
  memcpy(p, good, size);
  memcpy(p + at, bytes, n);
  if (memcmp(p, good, size) != 0) {
    foray_sha256_once(p, 4096 - 32, p + 4096 - 32);
    enum foray_status st = foray_image_open_memory(p, size, "bad", &img, &err);
    if (st == FORAY_OK) {
      printf("    accepted: %s\n", what);
      foray_image_close(img);
    }
    CU_ASSERT_NOT_EQUAL(st, FORAY_OK);
    CU_ASSERT(strncmp(err.msg, "bad: ", 5) == 0);
  }
  free(p);
}

/* Every 4-byte word of the fields of the header and of the first and last directory entries, and words of the
 * vocabulary list. */
TEST(refuses_every_bad_field) {
  size_t size;
  uint8_t *p = tiny_image(FORAY_ARCH_QWEN2, &size);
  static const uint32_t bad[] = {0xffffffffu, 0x7fffffffu, 0x40000001u};
  uint32_t n_tensors;
  memcpy(&n_tensors, p + 32, 4);
  for (size_t b = 0; b < 3; b++) {
    char what[64];
    /* 0..104 layout; 136..: 13 integers, epsilon mantissa and exponent, exits */
    for (size_t at = 0; at < 104; at += 4) {
      snprintf(what, sizeof what, "header word at %zu = %#x", at, bad[b]);
      refuse(p, size, at, &bad[b], 4, what);
    }
    for (size_t at = 136; at < 136 + 15 * 4 + 8 * 12; at += 4) {
      if (at == 136 + 14 * 4 && b == 0) continue; /* an exponent of -1 is in range */
      snprintf(what, sizeof what, "header word at %zu = %#x", at, bad[b]);
      refuse(p, size, at, &bad[b], 4, what);
    }
    refuse(p, size, 1000, &bad[b], 4, "reserved word of the header");
    for (uint32_t i = 0; i < n_tensors; i += n_tensors - 1) {
      size_t e = 4096 + (size_t)i * 128;
      for (size_t at = 48; at < 96; at += 4) {
        if (at == 48 + 24 && b == 0) continue; /* likewise */
        snprintf(what, sizeof what, "entry %u word at %zu = %#x", i, at, bad[b]);
        refuse(p, size, e + at, &bad[b], 4, what);
      }
      refuse(p, size, e + 104, &bad[b], 4, "reserved word of an entry");
    }
  }
  uint32_t nan = 0x7fc00000u, minus = 0xbf800000u;
  refuse(p, size, 4096 + 96, &nan, 4, "cost is NaN");
  refuse(p, size, 4096 + 100, &minus, 4, "error is negative");
  refuse(p, size, 4096, "\0", 1, "empty name");
  refuse(p, size, 4096 + 3, "\n", 1, "control character in a name");
  uint64_t vocab_off;
  memcpy(&vocab_off, p + 56, 8);
  uint32_t twice = 5, outside = FORAY_TINY_VOCAB;
  refuse(p, size, vocab_off + 4, &twice, 4, "id twice");
  refuse(p, size, vocab_off + 4, &outside, 4, "id outside");
  free(p);
}

TEST(refuses_cut_and_changed_files) {
  size_t size;
  uint8_t *p = tiny_image(FORAY_ARCH_LLAMA, &size);
  struct foray_image *img;
  struct foray_err err = {0};
  const size_t cut[] = {0, 1, 100, 4095, 4096, 5000, size / 2, size - 1};
  for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
    CU_ASSERT_EQUAL(foray_image_open_memory(p, cut[i], "cut", &img, &err), FORAY_E_FORMAT);
  }
  p[200] ^= 1; /* hash of the header */
  CU_ASSERT_EQUAL(foray_image_open_memory(p, size, "x", &img, &err), FORAY_E_FORMAT);
  p[200] ^= 1;
  p[size - 1] ^= 0x55; /* a body byte: open does not hash, verify does */
  CU_ASSERT_EQUAL_FATAL(foray_image_open_memory(p, size, "x", &img, &err), FORAY_OK);
  CU_ASSERT_EQUAL(foray_image_verify(img, &err), FORAY_E_MISMATCH);
  foray_image_close(img);
  p[size - 1] ^= 0x55;
  p[8] = 2; /* version */
  CU_ASSERT_EQUAL(foray_image_open_memory(p, size, "x", &img, &err), FORAY_E_UNSUPPORTED);
  p[8] = 1;
  CU_ASSERT_EQUAL(foray_image_open_memory(p + 1, size - 1, "x", &img, &err), FORAY_E_ARG);
  CU_ASSERT_EQUAL(foray_image_open("/nonexistent", &img, &err), FORAY_E_IO);
  CU_ASSERT_EQUAL(foray_image_open("/tmp", &img, &err), FORAY_E_IO);
  free(p);
}

/* A body whose hash is right but whose codes are not sound. */
TEST(verify_refuses_unsound_codes) {
  size_t size;
  uint8_t *p = tiny_image(FORAY_ARCH_QWEN2, &size);
  struct foray_image *img;
  struct foray_err err = {0};
  CU_ASSERT_EQUAL_FATAL(foray_image_open_memory(p, size, "x", &img, &err), FORAY_OK);
  const struct foray_image_tensor *head = foray_image_find(img, FORAY_IMAGE_HEAD, 0); /* 4 rows of 16 */
  size_t beat = head->data_off + 64, pad_code = head->data_off + 10, pad_beat = beat + 10 * 4;
  foray_image_close(img);
  const struct {
    size_t at;
    uint8_t v;
  } bad[] = {{beat, 0x80}, {pad_code, 1}, {pad_beat, 1}};
  for (int i = 0; i < 3; i++) {
    uint8_t old = p[bad[i].at];
    p[bad[i].at] = bad[i].v;
    foray_sha256_once(p + 4096, size - 4096, p + 104);
    foray_sha256_once(p, 4096 - 32, p + 4096 - 32);
    CU_ASSERT_EQUAL_FATAL(foray_image_open_memory(p, size, "x", &img, &err), FORAY_OK);
    CU_ASSERT_EQUAL(foray_image_verify(img, &err), FORAY_E_FORMAT);
    foray_image_close(img);
    p[bad[i].at] = old;
  }
  free(p);
}
