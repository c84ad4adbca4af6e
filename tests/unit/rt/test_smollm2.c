/* The whole edge on a real model: SmolLM2-135M packed here and now (with the exits that are shipped for it),
 * the fast device against the definition, and the text a person would expect. */
#include "unit/harness.h"

#include "core/pool.h"
#include "dev/device.h"
#include "model/model.h"
#include "model/pack.h"
#include "model/tokenizer.h"
#include "rt/drafter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct foray_model *model;
static struct foray_image *image;
static struct foray_tokenizer *tok;

/* Packs once for all tests of this program. */
static bool ready(void) {
  const char *path = foray_test_model("smollm2-135m-instruct");
  struct foray_err e = {0};
  if (!path) {
    foray_test_skip("smollm2-135m-instruct is not on this machine: foray pull smollm2-135m-instruct");
    return false;
  }
  if (image) return true;
  char out[] = "/tmp/foray-test-XXXXXX";
  int fd = mkstemp(out);
  CU_ASSERT_TRUE_FATAL(fd >= 0);
  close(fd);
  struct foray_pool *pool = NULL;
  enum foray_status s = foray_pool_open(0, &pool, &e);
  if (s == FORAY_OK) s = foray_model_open(path, &model, &e);
  if (s == FORAY_OK) s = foray_tokenizer_open(model->gguf, &tok, &e);
  struct foray_pack_opts o = {.pool = pool, .calib = FORAY_PACK_CALIB_OFF};
  if (s == FORAY_OK) s = foray_pack_run(model, &o, out, NULL, &e);
  if (s == FORAY_OK) s = foray_image_open(out, &image, &e);
  unlink(out); /* the mapping stays */
  foray_pool_close(pool);
  if (s != FORAY_OK) printf("  %s\n", e.msg);
  CU_ASSERT_EQUAL_FATAL(s, FORAY_OK);
  return true;
}

struct rig {
  struct foray_dev *dev;
  struct foray_drafter *d;
};
static struct rig rig_open(const char *spec, bool no_exits) {
  struct rig r = {0};
  struct foray_err e = {0};
  struct foray_drafter_opts o = {.ctx = 256, .no_exits = no_exits};
  uint64_t heap = 0;
  enum foray_status s = foray_drafter_heap_bytes(image, &o, &heap, &e);
  if (s == FORAY_OK) s = foray_dev_open(spec, &(struct foray_dev_opts){.heap_bytes = heap}, &r.dev, &e);
  if (s == FORAY_OK) s = foray_drafter_open(image, r.dev, &o, &r.d, &e);
  if (s != FORAY_OK) printf("  %s: %s\n", spec, e.msg);
  CU_ASSERT_EQUAL_FATAL(s, FORAY_OK);
  return r;
}
static void rig_close(struct rig *r) {
  foray_drafter_close(r->d);
  foray_dev_close(r->dev);
}

static uint32_t prompt(uint32_t *out) {
  static const char text[] =
      "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
  struct foray_ids ids = {0};
  CU_ASSERT_EQUAL_FATAL(
      foray_tokenizer_encode(tok, text, sizeof text - 1, FORAY_ENCODE_SPECIAL | FORAY_ENCODE_BOS, &ids, NULL),
      FORAY_OK);
  uint32_t n = (uint32_t)ids.n;
  CU_ASSERT_TRUE_FATAL(n > 4 && n < 100);
  for (uint32_t i = 0; i < n; i++) out[i] = (uint32_t)ids.ids[i];
  foray_ids_deinit(&ids);
  return n;
}

TEST(smollm2_on_the_cpu_device_says_paris) {
  if (!ready()) return;
  struct rig r = rig_open("cpu", true);
  uint32_t t[256], n = prompt(t), got = 0;
  struct foray_draft d[FORAY_DRAFT_MAX];
  struct foray_draft_params p = foray_drafter_defaults(r.d);
  p.max = 12;
  p.n_stop = 1;
  p.stop_ids[0] = (uint32_t)foray_tokenizer_eos(tok);
  CU_ASSERT_EQUAL_FATAL(foray_drafter_sync(r.d, t, n, NULL), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_drafter_draft(r.d, &p, d, &got, NULL), FORAY_OK);
  char text[256] = "";
  size_t len = 0;
  for (uint32_t i = 0; i < got; i++) {
    size_t k = 0;
    const char *piece = foray_tokenizer_piece(tok, (int32_t)d[i].id, &k);
    len += (size_t)snprintf(text + len, sizeof text - len, "%.*s", (int)k, piece);
  }
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "Paris"));
  if (!strstr(text, "Paris")) printf("  %s\n", text);
  rig_close(&r);
}

static bool same(const struct foray_draft *a, const struct foray_draft *b) {
  bool ok = a->id == b->id && a->exit == b->exit && memcmp(&a->conf, &b->conf, sizeof a->conf) == 0;
  for (uint32_t i = 0; ok && i < a->n_cand; i++)
    ok = a->cand[i].id == b->cand[i].id && a->cand[i].logprob == b->cand[i].logprob;
  return ok;
}

/* The definition takes seconds a token, so few of them: the widths, heads and head rows of a real model. */
TEST(smollm2_cpu_equals_ref) {
  if (!ready()) return;
  struct rig a = rig_open("ref", false), b = rig_open("cpu", false);
  uint32_t t[256], n = prompt(t), na = 0, nb = 0;
  struct foray_draft x[FORAY_DRAFT_MAX], y[FORAY_DRAFT_MAX];
  struct foray_draft_params p = foray_drafter_defaults(a.d);
  p.max = 3;
  p.temperature = .7f;
  p.seed = 5;
  t[0] = t[n - 3], t[1] = t[n - 2], t[2] = t[n - 1];
  CU_ASSERT_EQUAL_FATAL(foray_drafter_sync(a.d, t, 3, NULL), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_drafter_sync(b.d, t, 3, NULL), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_drafter_draft(a.d, &p, x, &na, NULL), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_drafter_draft(b.d, &p, y, &nb, NULL), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(na, nb);
  CU_ASSERT_EQUAL(na, 3);
  for (uint32_t i = 0; i < na; i++) CU_ASSERT_TRUE(same(&x[i], &y[i]));
  rig_close(&a);
  rig_close(&b);
}

/* Catch-up and rollback with real weights: blocks of random length, random exits, cuts; the fast device only.
 */
TEST(smollm2_drafts_do_not_depend_on_history) {
  if (!ready()) return;
  struct rig lived = rig_open("cpu", false), full = rig_open("cpu", true);
  uint32_t t[256], n = prompt(t), start = n, checked = 0, early = 0;
  struct foray_draft a[FORAY_DRAFT_MAX], b[FORAY_DRAFT_MAX];
  for (uint32_t k = 0; k < 8; k++) {
    struct foray_draft_params p = foray_drafter_defaults(lived.d);
    p.max = 2 + k * 5 % 7;
    for (uint32_t e = 0; e < FORAY_DRAFT_EXITS_MAX; e++) p.exit_top[e] = (e + k) % 3 ? .3f : 2;
    uint32_t na = 0, nb = 0;
    CU_ASSERT_EQUAL_FATAL(foray_drafter_sync(lived.d, t, n, NULL), FORAY_OK);
    CU_ASSERT_EQUAL_FATAL(foray_drafter_draft(lived.d, &p, a, &na, NULL), FORAY_OK);
    p.max = 1;
    for (uint32_t i = 0; i < na; i++) {
      if (a[i].exit == foray_drafter_exits(lived.d)) {
        CU_ASSERT_EQUAL_FATAL(foray_drafter_sync(full.d, t, n, NULL), FORAY_OK);
        CU_ASSERT_EQUAL_FATAL(foray_drafter_draft(full.d, &p, b, &nb, NULL), FORAY_OK);
        b[0].exit = a[i].exit;
        CU_ASSERT_TRUE(same(&a[i], &b[0]));
        checked++;
      } else
        early++;
      t[n++] = a[i].id;
    }
    if (k % 3 == 2) n = start + (n - start) / 2; /* the cloud disagrees */
  }
  CU_ASSERT_TRUE(checked > 5);
  if (image->config.n_exits) CU_ASSERT_TRUE(early > 0);
  rig_close(&lived);
  rig_close(&full);
  foray_image_close(image);
  foray_tokenizer_close(tok);
  foray_model_close(model);
  image = NULL;
}
