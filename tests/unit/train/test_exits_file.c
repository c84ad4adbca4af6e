/* Writer and reader of the exits file, and how damage is met. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/exits.h"
#include "train/exits_file.h"
#include "unit/harness.h"

enum { D = 64, V = 300, R = 4, N_OUT = 96 };
static const char BASE[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static char dir[64], path[96];
static float norm[D], map[2][D * D], la[R * D], lb[R * N_OUT];
static uint32_t ids[V];

static enum foray_status make(struct foray_err *err) {
  snprintf(dir, sizeof dir, "/tmp/foray-exits-XXXXXX");
  if (!mkdtemp(dir)) return FORAY_E_IO;
  snprintf(path, sizeof path, "%s/a.exits.gguf", dir);
  for (int i = 0; i < D; i++) norm[i] = 1 + 0.01f * (float)i;
  for (int e = 0; e < 2; e++)
    for (int i = 0; i < D * D; i++) map[e][i] = sinf((float)(i + 7 * e));
  for (int i = 0; i < R * D; i++) la[i] = cosf((float)i);
  for (int i = 0; i < R * N_OUT; i++) lb[i] = sinf(2.0f * (float)i);
  for (uint32_t i = 0; i < V; i++) ids[i] = (i * 101) % 1009;
  const uint32_t layer[] = {3, 5}, rows[] = {128, 300};
  const float threshold[] = {0.7f, 0.8f};
  const float *norms[] = {norm, norm}, *maps[] = {map[0], map[1]}, *prevs[] = {map[1], map[0]};
  const struct foray_exits_write_lora lora = {"blk.2.attn_q.weight", R, D, N_OUT, la, lb};
  const struct foray_exits_write w = {.arch = "llama",
                                      .name = "tiny",
                                      .base_sha256 = BASE,
                                      .target_sha256 = "",
                                      .command = "test",
                                      .report_json = "{}",
                                      .seed = 4,
                                      .tokens = 5,
                                      .n_layer = 8,
                                      .n_embd = D,
                                      .n_exits = 2,
                                      .layer = layer,
                                      .head_rows = rows,
                                      .threshold = threshold,
                                      .norm = norms,
                                      .map = maps,
                                      .prev = prevs,
                                      .check = 3,
                                      .n_vocab = V,
                                      .vocab = ids,
                                      .n_lora = 1,
                                      .lora = &lora,
                                      .lora_alpha = 8};
  return foray_exits_file_write(path, &w, err);
}
static void clean(void) {
  unlink(path);
  rmdir(dir);
}

TEST(what_was_written_is_read) {
  struct foray_err err = {0};
  struct foray_exits *x;
  CU_ASSERT_EQUAL_FATAL(make(&err), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_exits_open(path, &x, &err), FORAY_OK);
  CU_ASSERT_EQUAL(x->n_exits, 2);
  CU_ASSERT_EQUAL(x->exit[1].layer, 5);
  CU_ASSERT_EQUAL(x->check, 3);
  CU_ASSERT_EQUAL(x->exit[0].head_rows, 128);
  CU_ASSERT(x->exit[1].threshold == 0.8f);
  CU_ASSERT_EQUAL(x->n_vocab, V);
  CU_ASSERT(memcmp(x->vocab, ids, sizeof ids) == 0);
  CU_ASSERT(memcmp(x->exit[0].norm, norm, sizeof norm) == 0);
  double worst = 0;
  for (int i = 0; i < D * D; i++) worst = fmax(worst, fabs((double)(x->exit[1].map[i] - map[1][i])));
  for (int i = 0; i < D * D; i++) worst = fmax(worst, fabs((double)(x->exit[1].prev[i] - map[0][i])));
  CU_ASSERT(worst < 1.0 / 127);
  CU_ASSERT_EQUAL(foray_exits_check_base(x, BASE, 8, D, &err), FORAY_OK);
  CU_ASSERT_EQUAL(foray_exits_check_base(x, BASE, 9, D, &err), FORAY_E_MISMATCH);
  /* W' = W + alpha / rank * b^T a, for some rows in the middle */
  float w[2 * D] = {0};
  CU_ASSERT_EQUAL(foray_exits_lora_merge(x, "blk.2.attn_q.weight", w, 10, 2, D, &err), FORAY_OK);
  worst = 0;
  for (int r = 0; r < 2; r++)
    for (int i = 0; i < D; i++) {
      double want = 0;
      for (int k = 0; k < R; k++) want += 2.0 * (double)lb[k * N_OUT + 10 + r] * (double)la[k * D + i];
      worst = fmax(worst, fabs(want - (double)w[r * D + i]));
    }
  CU_ASSERT(worst < 0.1);
  CU_ASSERT(w[0] != 0);
  CU_ASSERT_EQUAL(foray_exits_lora_merge(x, "blk.2.attn_q.weight", w, 95, 2, D, &err), FORAY_E_MISMATCH);
  CU_ASSERT_EQUAL(foray_exits_lora_merge(x, "blk.3.attn_q.weight", w, 0, 2, D, &err), FORAY_OK);
  foray_exits_close(x);
  char found[FORAY_EXITS_PATH_MAX];
  CU_ASSERT_EQUAL(foray_exits_locate(BASE, dir, found, sizeof found, &err), FORAY_OK);
  CU_ASSERT_STRING_EQUAL(found, path);
  char other[65];
  memcpy(other, BASE, 65);
  other[0] = 'f';
  CU_ASSERT_EQUAL(foray_exits_locate(other, dir, found, sizeof found, &err), FORAY_E_NOTFOUND);
  clean();
}

TEST(every_damaged_byte_of_a_tensor_is_noticed) {
  struct foray_err err = {0};
  struct foray_exits *x;
  CU_ASSERT_EQUAL_FATAL(make(&err), FORAY_OK);
  FILE *f = fopen(path, "rb");
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  fseek(f, 0, SEEK_END);
  long size = ftell(f);
  char *bytes = malloc((size_t)size);
  rewind(f);
  CU_ASSERT_EQUAL_FATAL(fread(bytes, 1, (size_t)size, f), (size_t)size);
  fclose(f);
  for (long at = 40; at < size; at += size / 40) {
    bytes[at] ^= 0x20;
    f = fopen(path, "wb");
    fwrite(bytes, 1, (size_t)size, f);
    fclose(f);
    enum foray_status st = foray_exits_open(path, &x, &err);
    /* texts that have no meaning for the reader (name, command) may differ; numbers may not */
    if (st == FORAY_OK) {
      CU_ASSERT(at < size / 2);
      foray_exits_close(x);
    }
    bytes[at] ^= 0x20;
  }
  for (long cut = 0; cut < size; cut += size / 20 + 1) {
    f = fopen(path, "wb");
    fwrite(bytes, 1, (size_t)cut, f);
    fclose(f);
    CU_ASSERT_NOT_EQUAL(foray_exits_open(path, &x, &err), FORAY_OK);
  }
  free(bytes);
  clean();
}
