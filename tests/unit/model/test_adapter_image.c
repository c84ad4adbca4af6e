/* An adapter merged into an image: what it touches becomes the merged weights, what it does not touch keeps
 * its bytes, and the quick way over a base image gives what packing from the start gives. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/philox.h"
#include "model/lora.h"
#include "model/pack.h"
#include "unit/harness.h"
#include "unit/tiny_model.h"

enum { W = 64, RANK = 3 };
static float g_a[RANK * W], g_b[W * RANK];

static void adapter(const char *path, const char *tensor, const char *base) {
  struct foray_gguf_writer *w = foray_gguf_writer_open();
  char name[64];
  for (int i = 0; i < RANK * W; i++) {
    g_a[i] = 0.2f * ((float)foray_philox4x32(1, (uint32_t)i, 0, 0, 0).v[0] / 2147483648.0f - 1);
    g_b[i] = 0.2f * ((float)foray_philox4x32(2, (uint32_t)i, 0, 0, 0).v[0] / 2147483648.0f - 1);
  }
  foray_gguf_writer_str(w, "general.type", "adapter");
  foray_gguf_writer_str(w, "adapter.type", "lora");
  foray_gguf_writer_f32(w, "adapter.lora.alpha", 6);
  if (base) foray_gguf_writer_str(w, "foray.base_sha256", base);
  snprintf(name, sizeof name, "%s.lora_a", tensor);
  foray_gguf_writer_tensor(w, name, FORAY_GGML_F32, 2, (const uint64_t[]){W, RANK}, g_a);
  snprintf(name, sizeof name, "%s.lora_b", tensor);
  foray_gguf_writer_tensor(w, name, FORAY_GGML_F32, 2, (const uint64_t[]){RANK, W}, g_b);
  CU_ASSERT_FATAL(foray_gguf_writer_save(w, path, NULL) == FORAY_OK);
  foray_gguf_writer_close(w);
}

TEST(only_what_an_adapter_touches_changes) {
  struct foray_tiny d = foray_tiny_default(FORAY_ARCH_LLAMA);
  struct foray_buf b;
  struct foray_model *m;
  struct foray_err err = {0};
  struct foray_image *base, *quick, *whole;
  char dir[64] = "/tmp/foray-ai-XXXXXX", p[4][128];
  uint8_t sha[32];
  char hex[FORAY_SHA256_HEX];
  CU_ASSERT_FATAL(mkdtemp(dir) != NULL);
  d.head_dim = 32, d.n_head = 2, d.n_head_kv = 2, d.n_embd = W, d.n_ff = 2 * W;
  foray_tiny_build(&d, &b);
  CU_ASSERT_FATAL(foray_model_open_memory(b.data, b.len, "tiny", &m, &err) == FORAY_OK);
  foray_model_sha256(m, sha);
  foray_sha256_hex(sha, hex);
  for (int i = 0; i < 4; i++) snprintf(p[i], sizeof p[0], "%s/%d", dir, i);
  adapter(p[3], "blk.1.attn_q.weight", hex);
  struct foray_pack_opts o = {.exits_path = "", .calib = FORAY_PACK_CALIB_OFF, .bits_max = 20};
  CU_ASSERT_FATAL(foray_pack_run(m, &o, p[0], NULL, &err) == FORAY_OK);
  o.adapter_path = p[3];
  CU_ASSERT_FATAL(foray_pack_run(m, &o, p[2], NULL, &err) == FORAY_OK);
  o.base_image = p[0];
  o.calib = FORAY_PACK_CALIB_AUTO;
  CU_ASSERT_FATAL(foray_pack_run(m, &o, p[1], NULL, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_image_open(p[0], &base, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_image_open(p[1], &quick, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_image_open(p[2], &whole, &err) == FORAY_OK);
  int changed = 0;
  for (uint32_t i = 0; i < base->n_tensors; i++) {
    const struct foray_image_tensor *x = &base->tensors[i], *y = &quick->tensors[i], *z = &whole->tensors[i];
    CU_ASSERT_FATAL(x->bytes == y->bytes && x->bytes == z->bytes && x->type == y->type);
    bool same = !memcmp(foray_image_data(base) + x->off, foray_image_data(quick) + y->off, x->bytes);
    CU_ASSERT(!memcmp(foray_image_data(quick) + y->off, foray_image_data(whole) + z->off, x->bytes));
    CU_ASSERT(same == (x->role != FORAY_IMAGE_ATTN_Q || x->index != 1));
    changed += !same;
  }
  CU_ASSERT(changed == 1);
  const struct foray_image_tensor *q = foray_image_find(quick, FORAY_IMAGE_ATTN_Q, 1);
  const struct foray_gguf_tensor *s = foray_model_tensor(m, FORAY_ROLE_ATTN_Q, 1);
  double e = 0, ref = 0, plain = 0;
  for (uint32_t r = 0; r < q->rows; r++) {
    float got[W], want[W], before[W];
    uint32_t h = r / 32, i = r % 32, from = h * 32 + (i < 16 ? 2 * i : 2 * (i - 16) + 1);
    foray_image_row(quick, q, r, got);
    CU_ASSERT(foray_dequant_row(s->type, foray_tensor_row(s, from), before, W) == FORAY_OK);
    for (int c = 0; c < W; c++) {
      want[c] = before[c];
      for (int k = 0; k < RANK; k++) want[c] += 2 * g_b[from * RANK + (uint32_t)k] * g_a[k * W + c];
      e += pow((double)(got[c] - want[c]), 2), ref += pow((double)want[c], 2),
          plain += pow((double)(got[c] - before[c]), 2);
    }
  }
  CU_ASSERT(sqrt(e / ref) < 0.1 && plain > 4 * e);
  /* refusals: another base model, a tensor that is not there, another shape, an image of another model */
  o.base_image = NULL;
  adapter(p[3], "blk.1.attn_q.weight", "1111111111111111111111111111111111111111111111111111111111111111");
  CU_ASSERT(foray_pack_run(m, &o, "/tmp/never", NULL, &err) == FORAY_E_MISMATCH &&
            strstr(err.msg, "base model"));
  adapter(p[3], "blk.7.attn_q.weight", hex);
  CU_ASSERT(foray_pack_run(m, &o, "/tmp/never", NULL, &err) == FORAY_E_MISMATCH && strstr(err.msg, "blk.7"));
  adapter(p[3], "blk.1.ffn_gate.weight", hex);
  CU_ASSERT(foray_pack_run(m, &o, "/tmp/never", NULL, &err) == FORAY_E_MISMATCH);
  o.adapter_path = p[0];
  CU_ASSERT(foray_pack_run(m, &o, "/tmp/never", NULL, &err) == FORAY_E_FORMAT);
  foray_image_close(base), foray_image_close(quick), foray_image_close(whole);
  for (int i = 0; i < 4; i++) unlink(p[i]);
  rmdir(dir);
  foray_model_close(m);
  foray_buf_deinit(&b);
}
