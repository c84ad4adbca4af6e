/* Adapters in both layouts, damaged files, and checkpoints that survive a kill at any moment. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/philox.h"
#include "train/adapter.h"
#include "train/lm.h"
#include "train/safetensors.h"
#include "unit/harness.h"

enum { ROWS = 24, RANK = 4 };
static const struct foray_model_config SMALL = {.arch = FORAY_ARCH_LLAMA,
                                                .n_layer = 2,
                                                .n_embd = 24,
                                                .n_ff = 32,
                                                .n_head = 3,
                                                .n_head_kv = 1,
                                                .head_dim = 8,
                                                .n_vocab = 30,
                                                .rms_eps = 1e-5f,
                                                .rope_dim = 8,
                                                .rope_base = 1000,
                                                .attn_scale = 0.35f,
                                                .tied = true};

struct rig {
  struct foray_pool *pool;
  struct foray_mm *gemm;
  struct foray_net *n;
  struct foray_acts *acts;
  struct foray_lm *lm;
};
static void noise(void *arg, struct foray_param *p) {
  uint32_t *s = arg;
  (*s)++;
  for (size_t i = 0; i < p->n; i++)
    p->w[i] = (float)foray_philox4x32(*s, (uint32_t)i, 0, 0, 0).v[0] / 4294967296.0f - 0.5f;
}
static void open_rig(struct rig *r, unsigned targets, int rank, uint32_t fill) {
  struct foray_err err = {0};
  CU_ASSERT_FATAL(foray_pool_open(1, &r->pool, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_mm_open(FORAY_MM_F32, r->pool, &r->gemm, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_net_open_random(&SMALL, r->gemm, 4, &r->n, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_net_full_head(r->n, true, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_net_add_lora_on(r->n, 0, rank, 8, targets, 0.1f, 1, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_acts_open(r->n, ROWS, &r->acts, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_lm_open(r->n, ROWS, &r->lm, &err) == FORAY_OK);
  if (fill) foray_net_params(r->n, noise, &fill);
}
static void close_rig(struct rig *r) {
  foray_lm_close(r->lm);
  foray_acts_close(r->acts);
  foray_net_close(r->n);
  foray_mm_close(r->gemm);
  foray_pool_close(r->pool);
}
static void temp(char out[64]) {
  snprintf(out, 64, "/tmp/foray-adapter-XXXXXX");
  CU_ASSERT_FATAL(mkdtemp(out) != NULL);
}
static void drop_dir(const char *dir) {
  static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors", "a.gguf", "check",
                                      "check.tmp"};
  char path[128];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    unlink(path);
  }
  CU_ASSERT(rmdir(dir) == 0);
}
static float *params(struct rig *r, size_t *n) {
  *n = foray_params_count(r->n);
  float *w = malloc(*n * sizeof(float));
  foray_params_get(r->n, w);
  return w;
}

TEST(both_layouts_give_the_adapter_back) {
  struct rig a, b, c;
  struct foray_err err = {0};
  struct foray_adapter_info info = {.base_name = "small", .drop = 0.1f}, got;
  char dir[64], gguf[96];
  size_t n;
  const unsigned targets = FORAY_LIN_ALL & ~(1u << FORAY_LIN_UP);
  open_rig(&a, targets, RANK, 10);
  open_rig(&b, targets, RANK, 99);
  open_rig(&c, targets, RANK, 500);
  temp(dir);
  snprintf(gguf, sizeof gguf, "%s/a.gguf", dir);
  CU_ASSERT_FATAL(foray_adapter_save_peft(a.n, 0, RANK, &info, dir, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_adapter_save_gguf(a.n, 0, RANK, &info, gguf, &err) == FORAY_OK);
  for (int k = 0; k < 2; k++) {
    CU_ASSERT(foray_adapter_info(k ? gguf : dir, &got, &err) == FORAY_OK);
    CU_ASSERT(got.rank == RANK && got.alpha == 8 && got.targets == targets);
  }
  CU_ASSERT(foray_adapter_load(b.n, 0, RANK, dir, &err) == FORAY_OK);
  CU_ASSERT(foray_adapter_load(c.n, 0, RANK, gguf, &err) == FORAY_OK);
  float *wa = params(&a, &n), *wb = params(&b, &n), *wc = params(&c, &n);
  CU_ASSERT(memcmp(wa, wb, n * sizeof(float)) == 0);
  CU_ASSERT(memcmp(wa, wc, n * sizeof(float)) == 0);
  /* Published order of q's rows: reshape(heads, 2, hd/2).swap(1, 2) of them is the order of the GGUF file. */
  char path[128];
  struct foray_st *st;
  snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
  CU_ASSERT_FATAL(foray_st_open(path, &st, &err) == FORAY_OK);
  const struct foray_st_tensor *t =
      foray_st_find(st, "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight");
  CU_ASSERT_FATAL(t && t->shape[0] == 24 && t->shape[1] == RANK);
  float *q = malloc(t->n * sizeof(float));
  foray_st_read(st, t, q);
  const struct foray_lin *l = &a.n->layer[1].lin[FORAY_LIN_Q];
  for (int h = 0; h < 3; h++)
    for (int i = 0; i < 4; i++)
      for (int s = 0; s < 2; s++)
        for (int k = 0; k < RANK; k++)
          CU_ASSERT(l->b.w[k * 24 + h * 8 + 2 * i + s] == q[(h * 8 + s * 4 + i) * RANK + k]);
  foray_st_close(st);
  free(q), free(wa), free(wb), free(wc);
  close_rig(&a), close_rig(&b), close_rig(&c);
  drop_dir(dir);
}

TEST(a_range_of_ranks_is_an_adapter) {
  struct rig a, b;
  struct foray_err err = {0};
  struct foray_adapter_info info = {0};
  char dir[64];
  open_rig(&a, FORAY_LIN_ALL, RANK, 10);
  open_rig(&b, FORAY_LIN_ALL, RANK, 77);
  temp(dir);
  float keep = b.n->layer[0].lin[0].a.w[3 * 24];
  CU_ASSERT(foray_adapter_save_peft(a.n, 1, 3, &info, dir, &err) == FORAY_OK);
  CU_ASSERT(foray_adapter_load(b.n, 0, RANK, dir, &err) == FORAY_E_MISMATCH);
  CU_ASSERT(foray_adapter_load(b.n, 1, 3, dir, &err) == FORAY_OK);
  const struct foray_lin *x = &a.n->layer[0].lin[0], *y = &b.n->layer[0].lin[0];
  CU_ASSERT(memcmp(x->a.w + 24, y->a.w + 24, 2 * 24 * sizeof(float)) == 0);
  CU_ASSERT(memcmp(x->b.w + 24, y->b.w + 24, 2 * 24 * sizeof(float)) == 0);
  CU_ASSERT(y->a.w[3 * 24] == keep && y->a.w[0] != x->a.w[0]);
  close_rig(&a), close_rig(&b);
  drop_dir(dir);
}

static void truncate_to(const char *path, const uint8_t *data, size_t n) {
  FILE *f = fopen(path, "wb");
  CU_ASSERT_FATAL(f != NULL && fwrite(data, 1, n, f) == n);
  fclose(f);
}
TEST(damaged_or_foreign_adapters_are_refused_and_change_nothing) {
  struct rig a, other;
  struct foray_err err = {0};
  struct foray_adapter_info info = {0};
  char dir[64], path[2][128];
  size_t n;
  open_rig(&a, FORAY_LIN_ALL, RANK, 10);
  open_rig(&other, 1u << FORAY_LIN_Q | 1u << FORAY_LIN_V, RANK, 11);
  temp(dir);
  snprintf(path[0], 128, "%s/adapter_model.safetensors", dir);
  snprintf(path[1], 128, "%s/a.gguf", dir);
  CU_ASSERT_FATAL(foray_adapter_save_peft(a.n, 0, RANK, &info, dir, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_adapter_save_gguf(a.n, 0, RANK, &info, path[1], &err) == FORAY_OK);
  CU_ASSERT(foray_adapter_load(other.n, 0, RANK, dir, &err) == FORAY_E_MISMATCH);
  CU_ASSERT(foray_adapter_load(other.n, 0, RANK, path[1], &err) == FORAY_E_MISMATCH);
  CU_ASSERT(foray_adapter_load(a.n, 0, RANK, "/nonexistent", &err) == FORAY_E_NOTFOUND);
  float *before = params(&a, &n);
  for (int k = 0; k < 2; k++) {
    FILE *f = fopen(path[k], "rb");
    uint8_t *data = malloc(1 << 20);
    size_t size = fread(data, 1, 1 << 20, f);
    fclose(f);
    for (size_t cut = 0; cut < size; cut += 1 + size / 37) {
      truncate_to(path[k], data, cut);
      CU_ASSERT(foray_adapter_load(a.n, 0, RANK, k ? path[1] : dir, &err) != FORAY_OK);
    }
    free(data);
  }
  float *after = params(&a, &n);
  CU_ASSERT(memcmp(before, after, n * sizeof(float)) == 0);
  free(before), free(after);
  close_rig(&a), close_rig(&other);
  drop_dir(dir);
}

TEST(safetensors_with_lying_headers_are_refused) {
  static const char *const bad[] = {
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,12]}}",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[1]"
      ",\"data_"
      "offsets\":[4,8]}}",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,8]}}",
      "{\"a\":{\"dtype\":\"Q4\",\"shape\":[2],\"data_offsets\":[0,8]}}",
      "{\"a\":7}",
      "[]",
      "{",
  };
  struct foray_err err = {0};
  struct foray_st *st;
  char dir[64], path[128];
  temp(dir);
  snprintf(path, sizeof path, "%s/check", dir);
  for (size_t i = 0; i <= sizeof bad / sizeof *bad; i++) {
    uint8_t data[512];
    const char *text = i < sizeof bad / sizeof *bad
                           ? bad[i]
                           : "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,8]}}";
    uint64_t len = strlen(text);
    memcpy(data, &len, 8);
    memcpy(data + 8, text, len);
    memcpy(data + 8 + len, "\x80\x3f\x00\xc0\x00\x00\x80\x40", 8);
    truncate_to(path, data, 16 + len);
    enum foray_status got = foray_st_open(path, &st, &err);
    if (i < sizeof bad / sizeof *bad) {
      CU_ASSERT(got == FORAY_E_FORMAT);
      continue;
    }
    CU_ASSERT_FATAL(got == FORAY_OK);
    float v[4];
    foray_st_read(st, foray_st_find(st, "a"), v);
    CU_ASSERT(v[0] == 1 && v[1] == -2 && v[2] == 0 && v[3] == 4);
    foray_st_close(st);
  }
  drop_dir(dir);
}

/* ---- resuming ---- */
enum { STEPS = 60 };
static bool train_on(struct rig *r, struct foray_optim *o, const char *path) {
  struct foray_err err = {0};
  struct foray_lm_opts lo = {FORAY_DIV_KL, 0, 1, true, false};
  struct foray_segment seg = {0, ROWS};
  for (; o->step < STEPS;) {
    struct foray_lm_goal g[ROWS];
    struct foray_lm_sums s = {0};
    int32_t tok[ROWS];
    float *d[3] = {0};
    for (int i = 0; i < ROWS; i++) tok[i] = (int32_t)((i * 7 + o->step * 3) % 30);
    for (int i = 0; i + 1 < ROWS; i++)
      g[i] = (struct foray_lm_goal){.row = i, .next = tok[i + 1], .ce_weight = 1};
    d[2] = calloc(ROWS * 24, sizeof(float));
    foray_net_set_pass(r->n, o->step);
    bool bad = foray_net_forward(r->n, r->acts, ROWS, tok, &seg, 1, &err) ||
               foray_lm_loss(r->lm, r->acts, g, ROWS - 1, &lo, 0.1f, d[2], &s, NULL, &err) ||
               foray_net_backward(r->n, r->acts, d, &err);
    free(d[2]);
    foray_optim_step(o, r->n, 1);
    if (bad || (path && foray_checkpoint_save(r->n, o, "here", path, &err))) return false;
  }
  return true;
}
TEST(a_killed_run_goes_on_to_the_same_bits) {
  struct rig a, b;
  struct foray_err err = {0};
  struct foray_optim o = foray_optim_default(1e-2);
  char dir[64], path[128], *note = NULL;
  size_t n;
  temp(dir);
  snprintf(path, sizeof path, "%s/check", dir);
  open_rig(&a, FORAY_LIN_ALL, RANK, 0);
  CU_ASSERT(train_on(&a, &o, NULL));
  for (int life = 0; life < 12; life++) {
    pid_t pid = fork();
    if (pid == 0) {
      struct rig c;
      struct foray_optim oc = foray_optim_default(1e-2);
      open_rig(&c, FORAY_LIN_ALL, RANK, 0);
      if (access(path, R_OK) == 0 && foray_checkpoint_load(c.n, &oc, NULL, path, &err)) _exit(2);
      _exit(train_on(&c, &oc, path) ? 0 : 1);
    }
    usleep(20000 + 3000 * (useconds_t)life); /* anywhere; the result must not depend on where */
    int status = 0;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    if (WIFEXITED(status)) CU_ASSERT(WEXITSTATUS(status) == 0);
  }
  open_rig(&b, FORAY_LIN_ALL, RANK, 0);
  struct foray_optim ob = foray_optim_default(1e-2);
  if (access(path, R_OK) == 0) CU_ASSERT(foray_checkpoint_load(b.n, &ob, &note, path, &err) == FORAY_OK);
  CU_ASSERT(!note || !strcmp(note, "here"));
  CU_ASSERT(train_on(&b, &ob, path));
  float *wa = params(&a, &n), *wb = params(&b, &n);
  CU_ASSERT(memcmp(wa, wb, n * sizeof(float)) == 0);
  /* a checkpoint of another shape is refused */
  struct rig c;
  open_rig(&c, FORAY_LIN_ALL, RANK + 1, 0);
  CU_ASSERT(foray_checkpoint_load(c.n, &ob, NULL, path, &err) == FORAY_E_MISMATCH);
  free(note), free(wa), free(wb);
  close_rig(&a), close_rig(&b), close_rig(&c);
  drop_dir(dir);
}
