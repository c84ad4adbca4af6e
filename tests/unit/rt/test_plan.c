/* foray plan: the bytes that are computed from the image are the bytes that the reference device counts. */
#include "unit/harness.h"

#include "dev/device.h"
#include "rt/drafter.h"
#include "rt/plan.h"
#include "tiny_image.h"

enum { CTX = 64, AT = 20 };

/* Streamed bytes of one more token that leaves at depth e (n_exits: full depth), counted by ref. */
static double counted(const struct foray_image *img, uint32_t e) {
  struct foray_err err = {0};
  const struct foray_drafter_opts o = {.ctx = CTX, .columns = 1};
  uint64_t heap;
  struct foray_dev *dev;
  struct foray_drafter *d;
  CU_ASSERT_EQUAL_FATAL(foray_drafter_heap_bytes(img, &o, &heap, &err), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_dev_open("ref", &(struct foray_dev_opts){.heap_bytes = heap}, &dev, &err),
                        FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_drafter_open(img, dev, &o, &d, &err), FORAY_OK);
  uint32_t ids[AT], got;
  for (uint32_t i = 0; i < AT; i++) ids[i] = i * 7 % 200;
  struct foray_draft_params p = foray_draft_defaults();
  struct foray_draft out[2];
  p.max = 1;
  for (uint32_t k = 0; k < FORAY_DRAFT_EXITS_MAX; k++)
    p.exit_top[k] = k == e ? 0 : 1; /* those before are tried in vain */
  /* all but the newest position are through all layers, so that no catch-up is counted */
  CU_ASSERT_EQUAL_FATAL(foray_drafter_sync(d, ids, AT, &err), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_drafter_prefill(d, &err), FORAY_OK);
  uint64_t a[FORAY_COUNTER_COUNT], b[FORAY_COUNTER_COUNT];
  foray_dev_counters(dev, a);
  CU_ASSERT_EQUAL_FATAL(foray_drafter_draft(d, &p, out, &got, &err), FORAY_OK);
  CU_ASSERT_EQUAL(got, 1);
  CU_ASSERT_EQUAL(out[0].exit, e);
  foray_dev_counters(dev, b);
  foray_drafter_close(d);
  foray_dev_close(dev);
  return (double)(b[FORAY_COUNTER_WEIGHT_BYTES] - a[FORAY_COUNTER_WEIGHT_BYTES] +
                  b[FORAY_COUNTER_VECTOR_BYTES] - a[FORAY_COUNTER_VECTOR_BYTES] +
                  b[FORAY_COUNTER_KV_READ_BYTES] - a[FORAY_COUNTER_KV_READ_BYTES]);
}

TEST(computed_bytes_are_counted_bytes) {
  for (uint64_t seed = 1; seed < 5; seed++) {
    struct tiny_image t;
    struct foray_err err = {0};
    const struct tiny_opts o = {.seed = seed, .n_layer = 4, .n_exits = 2, .n_trim = 72, .qwen2 = seed & 1};
    CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &err));
    struct foray_plan p;
    CU_ASSERT_EQUAL_FATAL(foray_plan_make(t.img, foray_board_find("kv260"), AT, CTX, &p, &err), FORAY_OK);
    CU_ASSERT_EQUAL(p.n_depths, 3);
    CU_ASSERT_EQUAL(p.depth[2].layer, 4);
    double before = 0;
    for (uint32_t e = 0; e < p.n_depths; e++) {
      const double all = p.depth[e].weight_bytes + p.depth[e].kv_bytes, real = counted(t.img, e);
      /* frequencies and ids are in the counters, padding of the small tensors is in the plan */
      if (fabs(all - real) > 0.05 * real)
        printf("depth %u: computed %.0f, counted %.0f\n", (unsigned)e, all, real);
      CU_ASSERT(fabs(all - real) <= 0.05 * real);
      CU_ASSERT(p.depth[e].seconds > before);
      before = p.depth[e].seconds;
    }
    tiny_image_free(&t);
  }
}

TEST(boards_are_found_and_small_memories_do_not_fit) {
  struct tiny_image t;
  struct foray_err err = {0};
  const struct tiny_opts o = {.seed = 1, .n_layer = 2};
  CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &err));
  struct foray_plan p;
  CU_ASSERT_PTR_NULL(foray_board_find("toaster"));
  for (uint32_t i = 0; foray_board_at(i); i++) {
    struct foray_board b = *foray_board_at(i);
    CU_ASSERT_EQUAL(foray_plan_make(t.img, &b, 10, CTX, &p, &err), FORAY_OK);
    CU_ASSERT(p.fits);
    CU_ASSERT(p.rate > 0 && p.rate <= b.port_bytes);
    b.memory_bytes = 1024;
    CU_ASSERT_EQUAL(foray_plan_make(t.img, &b, 10, CTX, &p, &err), FORAY_OK);
    CU_ASSERT(!p.fits);
  }
  const double share[FORAY_PLAN_DEPTHS_MAX] = {1};
  CU_ASSERT(fabs(foray_plan_draft_seconds(&p, share) - p.depth[0].seconds) < 1e-12);
  tiny_image_free(&t);
}
