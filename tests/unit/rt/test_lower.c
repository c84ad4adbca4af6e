#include "unit/harness.h"

#include "dev/device.h"
#include "rt/lower.h"
#include "tiny_image.h"

#include <stdio.h>

static struct foray_lowered *lower(const struct foray_image *img, struct foray_lower_opts o) {
  struct foray_lowered *lw = NULL;
  struct foray_err e = {0};
  enum foray_status s = foray_lower(img, &o, &lw, &e);
  if (s != FORAY_OK) printf("  %s\n", e.msg);
  CU_ASSERT_EQUAL_FATAL(s, FORAY_OK);
  return lw;
}

static void names(const struct foray_lowered *lw, char *out, size_t cap) {
  size_t n = 0;
  *out = 0;
  for (uint32_t i = 0; i < lw->n_desc && n < cap; i++)
    n += (size_t)snprintf(out + n, cap - n, "%s%s", i ? " " : "", foray_op_name(lw->desc[i][0] & 0xff));
}

#define LAYER    "RMSNORM GEMV GEMV GEMV ROPE ROPE KV_PUT ATTN GEMV ADD RMSNORM GEMV GEMV SILU_MUL GEMV ADD "
#define EXIT_OPS "TEST RMSNORM GEMV QUANT HEAD EXIT "

TEST(op_list_of_a_small_model) {
  struct tiny_image t;
  struct foray_err e = {0};
  struct tiny_opts o = {.seed = 1, .n_layer = 3, .n_exits = 2, .n_trim = 72};
  CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
  char text[8192];
  struct foray_lowered *lw = lower(t.img, (struct foray_lower_opts){.ctx = 64});
  names(lw, text, sizeof text);
  CU_ASSERT_STRING_EQUAL(text, "PROG SEG EMBED " LAYER EXIT_OPS "SEG " LAYER EXIT_OPS "SEG " LAYER
                               "TEST RMSNORM HEAD EXIT END");
  CU_ASSERT_EQUAL(lw->n_seg, 3);
  CU_ASSERT_EQUAL(lw->n_test, 3);
  CU_ASSERT_EQUAL(lw->test_layer[0], 1);
  CU_ASSERT_EQUAL(lw->test_layer[1], 2);
  CU_ASSERT_EQUAL(lw->test_layer[2], 3);
  /* without exits: the same cuts, so that the context fits both programs */
  struct foray_lowered *full = NULL;
  struct foray_lower_opts fo = {.no_exits = true, .full_head = true};
  CU_ASSERT_EQUAL_FATAL(foray_lower_again(t.img, lw, &fo, &full, &e), FORAY_OK);
  names(full, text, sizeof text);
  CU_ASSERT_STRING_EQUAL(text,
                         "PROG SEG EMBED " LAYER "SEG " LAYER "SEG " LAYER "TEST RMSNORM HEAD EXIT END");
  CU_ASSERT_EQUAL(full->n_test, 1);
  CU_ASSERT_EQUAL(lw->head_rows, 72);
  CU_ASSERT_EQUAL(full->head_rows, 203);
  CU_ASSERT_EQUAL(memcmp(&lw->map, &full->map, sizeof lw->map), 0);
  foray_lowered_free(lw);
  foray_lowered_free(full);
  tiny_image_free(&t);
}

/* The weight stream is read from front to back: no byte twice, none of it out of order, every matrix and norm
 * at its place in the image. */
TEST(weights_are_consumed_in_the_order_of_the_image) {
  for (uint32_t seed = 1; seed <= 20; seed++) {
    struct tiny_image t;
    struct foray_err e = {0};
    struct tiny_opts o = {.seed = seed,
                          .n_layer = 1 + seed % 6,
                          .n_exits = seed % 3 < 1 + seed % 6 ? seed % 3 : 0,
                          .n_trim = seed % 4 ? 72 : 0,
                          .prev = seed % 7 < 4,
                          .qwen2 = seed % 2,
                          .tied = seed % 5 < 2};
    if (o.n_layer == 1) o.n_exits = 0;
    if (o.n_layer == 2 && o.n_exits > 1) o.n_exits = 1;
    CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
    struct foray_lowered *lw = lower(t.img, (struct foray_lower_opts){.ctx = 64});
    uint64_t at = 0;
    uint32_t matrices = 0;
    for (uint32_t i = 0; i < lw->n_desc; i++) {
      uint64_t addr = 0, bytes = 0;
      struct foray_dev_matrix m = {0};
      if ((lw->desc[i][0] & 0xff) == FORAY_OP_GEMV) {
        struct foray_desc_gemv g;
        foray_desc_gemv_unpack(lw->desc[i], &g);
        CU_ASSERT_TRUE(foray_dev_matrix_of(g.qtype, g.rows, g.cols, (g.flags & FORAY_DF_BIAS) != 0, &m));
        addr = (uint64_t)g.addr * FORAY_ABI_UNIT;
        bytes = m.bytes;
        matrices++;
      } else if ((lw->desc[i][0] & 0xff) == FORAY_OP_RMSNORM) {
        struct foray_desc_rmsnorm n;
        foray_desc_rmsnorm_unpack(lw->desc[i], &n);
        addr = (uint64_t)n.gamma * FORAY_ABI_UNIT;
        bytes = (uint64_t)n.n * 4;
      }
      if (!bytes) continue;
      CU_ASSERT_TRUE(addr >= at);
      CU_ASSERT_TRUE(addr >= (uint64_t)lw->map.stream * FORAY_ABI_UNIT);
      CU_ASSERT_TRUE(addr + bytes <= (uint64_t)lw->map.stream * FORAY_ABI_UNIT + t.img->stream_bytes);
      at = addr + bytes;
    }
    CU_ASSERT_EQUAL(matrices, 7 * o.n_layer + t.img->config.n_exits * (1 + t.img->config.exit_prev));
    CU_ASSERT_EQUAL(lw->map.end, lw->map.rest + (t.img->rest_bytes + 63) / 64);
    foray_lowered_free(lw);
    tiny_image_free(&t);
  }
}

TEST(what_cannot_be_lowered_is_refused_by_name) {
  struct tiny_image t;
  struct foray_err e = {0};
  struct tiny_opts o = {.seed = 1, .n_layer = 9, .n_exits = 8, .n_trim = 72};
  struct foray_lowered *lw = NULL;
  CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
  CU_ASSERT_EQUAL(foray_lower(t.img, &(struct foray_lower_opts){.ctx = 64}, &lw, &e), FORAY_E_UNSUPPORTED);
  CU_ASSERT_PTR_NOT_NULL(strstr(e.msg, "8 exits"));
  CU_ASSERT_EQUAL(foray_lower(t.img, &(struct foray_lower_opts){.ctx = 1u << 30}, &lw, &e), FORAY_E_ARG);
  CU_ASSERT_EQUAL(foray_lower(t.img, &(struct foray_lower_opts){.columns = 99}, &lw, &e), FORAY_E_ARG);
  tiny_image_free(&t);
  o = (struct tiny_opts){.seed = 1, .n_layer = 2, .head_dim = 48};
  if (tiny_image_make(&o, &t, &e)) {
    CU_ASSERT_EQUAL(foray_lower(t.img, &(struct foray_lower_opts){.ctx = 64}, &lw, &e), FORAY_E_UNSUPPORTED);
    tiny_image_free(&t);
  }
  CU_ASSERT_PTR_NULL(lw);
}
