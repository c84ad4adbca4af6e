/* What the integers cost: KL(float forward with the image's own weights || the device), so that only
 * activations, KV records and the functions of docs/numerics.md are measured, not the weights' rounding. On
 * SmolLM2 here; FORAY_COST_MODEL, FORAY_COST_IMAGE, FORAY_COST_TEXT and FORAY_COST_WINDOW (tokens) measure
 * another model, image, text, size. */
#include "unit/harness.h"

#include "dev/device.h"
#include "model/float_ref.h"
#include "model/pack.h"
#include "model/perplexity.h"
#include "model/tokenizer.h"
#include "rt/drafter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char sample[] = "The tower was built for the exhibition of 1889 and was meant to stand for "
                             "twenty years . It carried a weather "
                             "station , a wind tunnel and later the aerials of the city 's first radio , "
                             "which saved it from being pulled down . "
                             "Its designer had to sign a contract that made him answer for every accident , "
                             "and none happened during the work .";

/* The image's rows as the float reference's tensor; llama's q and k rows are stored permuted (docs/image.md).
 */
static enum foray_status put(struct foray_float_ref *r, const struct foray_image *img,
                             enum foray_image_role from, enum foray_role to, uint32_t layer) {
  const struct foray_image_tensor *t = foray_image_find(img, from, layer);
  if (!t) return FORAY_E_NOTFOUND;
  uint32_t hd = img->config.head_dim;
  bool permuted =
      img->config.arch == FORAY_ARCH_LLAMA && (to == FORAY_ROLE_ATTN_Q || to == FORAY_ROLE_ATTN_K);
  float *all = malloc((size_t)t->rows * t->cols * sizeof *all);
  if (!all) return FORAY_E_NOMEM;
  for (uint32_t i = 0; i < t->rows; i++) {
    uint32_t k = i % hd, at = k < hd / 2 ? 2 * k : 2 * (k - hd / 2) + 1;
    foray_image_row(img, t, i, all + (size_t)(permuted ? i - k + at : i) * t->cols);
  }
  enum foray_status s = foray_float_ref_set_tensor(r, to, layer, all);
  if (s != FORAY_OK || !t->has_bias) return s;
  float *bias = malloc(t->rows * sizeof *bias);
  if (!bias) return FORAY_E_NOMEM;
  foray_image_bias(img, t, bias); /* biased models have half-split RoPE: not permuted */
  return foray_float_ref_set_tensor(r,
                                    to == FORAY_ROLE_ATTN_Q   ? FORAY_ROLE_ATTN_Q_BIAS
                                    : to == FORAY_ROLE_ATTN_K ? FORAY_ROLE_ATTN_K_BIAS
                                                              : FORAY_ROLE_ATTN_V_BIAS,
                                    layer, bias);
}

static enum foray_status put_all(struct foray_float_ref *r, const struct foray_image *img) {
  static const struct {
    enum foray_image_role from;
    enum foray_role to;
  } roles[] = {
      {FORAY_IMAGE_ATTN_NORM, FORAY_ROLE_ATTN_NORM},     {FORAY_IMAGE_ATTN_Q, FORAY_ROLE_ATTN_Q},
      {FORAY_IMAGE_ATTN_K, FORAY_ROLE_ATTN_K},           {FORAY_IMAGE_ATTN_V, FORAY_ROLE_ATTN_V},
      {FORAY_IMAGE_ATTN_OUTPUT, FORAY_ROLE_ATTN_OUTPUT}, {FORAY_IMAGE_FFN_NORM, FORAY_ROLE_FFN_NORM},
      {FORAY_IMAGE_FFN_GATE, FORAY_ROLE_FFN_GATE},       {FORAY_IMAGE_FFN_UP, FORAY_ROLE_FFN_UP},
      {FORAY_IMAGE_FFN_DOWN, FORAY_ROLE_FFN_DOWN},
  };
  enum foray_status s = FORAY_OK;
  for (uint32_t l = 0; l < img->config.n_layer; l++)
    for (size_t k = 0; k < sizeof roles / sizeof *roles && s == FORAY_OK; k++)
      s = put(r, img, roles[k].from, roles[k].to, l);
  if (s == FORAY_OK) s = put(r, img, FORAY_IMAGE_OUTPUT_NORM, FORAY_ROLE_OUTPUT_NORM, 0);
  if (s == FORAY_OK) s = put(r, img, FORAY_IMAGE_HEAD_FULL, FORAY_ROLE_OUTPUT, 0);
  return s == FORAY_OK ? put(r, img, FORAY_IMAGE_TOKEN_EMBD, FORAY_ROLE_TOKEN_EMBD, 0) : s;
}

static enum foray_status image_of(const struct foray_model *m, struct foray_pool *pool,
                                  struct foray_image **img, struct foray_err *e) {
  const char *given = getenv("FORAY_COST_IMAGE");
  if (given) return foray_image_open(given, img, e);
  char path[] = "/tmp/foray-test-XXXXXX";
  int fd = mkstemp(path);
  if (fd < 0) return FORAY_E_IO;
  close(fd);
  struct foray_pack_opts o = {.pool = pool, .calib = FORAY_PACK_CALIB_OFF, .exits_path = ""};
  enum foray_status s = foray_pack_run(m, &o, path, NULL, e);
  if (s == FORAY_OK) s = foray_image_open(path, img, e);
  unlink(path); /* the mapping stays */
  return s;
}

TEST(integers_cost_less_than_their_bound) {
  const char *name = getenv("FORAY_COST_MODEL"), *text_path = getenv("FORAY_COST_TEXT");
  const char *window = getenv("FORAY_COST_WINDOW");
  const char *path = foray_test_model(name ? name : "smollm2-135m-instruct");
  if (!path) {
    foray_test_skip("the model is not on this machine: foray pull smollm2-135m-instruct");
    return;
  }
  struct foray_err e = {0};
  struct foray_pool *pool = NULL;
  struct foray_model *m = NULL;
  struct foray_image *img = NULL;
  struct foray_tokenizer *tok = NULL;
  struct foray_float_ref *ref = NULL;
  struct foray_dev *dev = NULL;
  struct foray_drafter *d = NULL;
  struct foray_ids ids = {0};
  static char text[16384];
  size_t len = sizeof sample - 1;
  memcpy(text, sample, len);
  if (text_path) {
    FILE *f = fopen(text_path, "rb");
    if (f) {
      len = fread(text, 1, sizeof text, f);
      fclose(f);
    }
  }
  enum foray_status s = foray_pool_open(0, &pool, &e);
  if (s == FORAY_OK) s = foray_model_open(path, &m, &e);
  if (s == FORAY_OK) s = image_of(m, pool, &img, &e);
  if (s == FORAY_OK) s = foray_tokenizer_open(m->gguf, &tok, &e);
  if (s == FORAY_OK) s = foray_tokenizer_encode(tok, text, len, 0, &ids, &e);
  size_t n = window ? strtoul(window, NULL, 10) : 96;
  if (n > ids.n) n = ids.n;
  if (n > 512) n = 512;
  struct foray_drafter_opts o = {.ctx = 512, .full_head = true, .logits = true, .no_exits = true};
  uint64_t heap = 0;
  if (s == FORAY_OK) s = foray_float_ref_open(m, pool, n, &ref, &e);
  if (s == FORAY_OK) s = put_all(ref, img);
  if (s == FORAY_OK) s = foray_drafter_heap_bytes(img, &o, &heap, &e);
  if (s == FORAY_OK) s = foray_dev_open("cpu", &(struct foray_dev_opts){.heap_bytes = heap}, &dev, &e);
  if (s == FORAY_OK) s = foray_drafter_open(img, dev, &o, &d, &e);
  if (s != FORAY_OK) printf("  %s\n", e.msg);
  CU_ASSERT_EQUAL_FATAL(s, FORAY_OK);
  size_t vocab = img->config.n_vocab, half = n / 2;
  float *want = malloc(half * vocab * sizeof *want), *got = malloc(vocab * sizeof *got);
  CU_ASSERT_FATAL(want && got);
  CU_ASSERT_EQUAL_FATAL(foray_float_ref_feed(ref, ids.ids, n, want, half, &e), FORAY_OK);
  struct foray_score score = {0};
  uint32_t u[512];
  for (size_t i = 0; i < n; i++) u[i] = (uint32_t)ids.ids[i];
  for (size_t i = n - half; i < n; i++) {
    CU_ASSERT_EQUAL_FATAL(foray_drafter_logits(d, u, (uint32_t)i + 1, 1, got, &e), FORAY_OK);
    foray_score_add_kl(&score, want + (i - (n - half)) * vocab, got, vocab);
  }
  double kl = foray_score_kl(&score), bound = img->config.arch == FORAY_ARCH_QWEN2 ? .004 : .002;
  if (name || window)
    printf("KL %.5f, same first choice %.4f, %zu positions\n", kl, foray_score_top1(&score), half);
  CU_ASSERT(kl < bound);
  CU_ASSERT(kl >= 0 && foray_score_top1(&score) > .9);
  free(want);
  free(got);
  foray_drafter_close(d);
  foray_dev_close(dev);
  foray_float_ref_close(ref);
  foray_ids_deinit(&ids);
  foray_tokenizer_close(tok);
  foray_image_close(img);
  foray_model_close(m);
  foray_pool_close(pool);
}
