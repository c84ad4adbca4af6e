/* Packer: error of the codes, idempotence, second-order rounding, budget, determinism. */
#include "unit/harness.h"
#include "unit/tiny_model.h"

#include "core/philox.h"
#include "model/pack.h"
#include "model/pack_block.h"
#include "model/pack_codes.h"
#include "model/pack_gptq.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* About normal, sd 1: sum of four uniforms. */
static float noise(uint32_t i) {
  struct foray_philox p = foray_philox4x32(7, i, 0, 0, 0);
  double s = 0;
  for (int k = 0; k < 4; k++) s += (double)p.v[k] / 4294967296.0 - 0.5;
  return (float)(s * 1.7320508);
}

static struct foray_codes *fit(enum foray_image_type type, const float *w, uint32_t rows, uint32_t cols,
                               double *err2) {
  struct foray_codes *c;
  CU_ASSERT_EQUAL_FATAL(foray_codes_open(type, rows, cols, &c, NULL), FORAY_OK);
  for (uint32_t r = 0; r < rows; r++) foray_codes_scale(c, r, w + (size_t)r * cols, 1.0f);
  foray_codes_exp(c);
  *err2 = 0;
  for (uint32_t r = 0; r < rows; r++) *err2 += foray_codes_fit_row(c, r, w + (size_t)r * cols, NULL);
  return c;
}

static double rms_ratio(const struct foray_codes *c, const float *w) {
  float row[2048];
  double e = 0, s = 0;
  for (uint32_t r = 0; r < c->rows; r++) {
    foray_codes_row(c, r, row);
    for (uint32_t i = 0; i < c->cols; i++) {
      double v = (double)w[(size_t)r * c->cols + i], d = (double)row[i] - v;
      e += d * d;
      s += v * v;
    }
  }
  return sqrt(e / s);
}

enum { ROWS = 32, COLS = 192 };

static void random_matrix(float *w, float spread) {
  for (uint32_t r = 0; r < ROWS; r++) {
    float k = expf(spread * noise(100000 + r)); /* rows of different size */
    for (uint32_t i = 0; i < COLS; i++) w[r * COLS + i] = k * noise(r * COLS + i);
  }
}

/* Uniform 16 steps over the range of 32 normal values: about 4 sd / 15 / sqrt(12) = 0.08; 8 bits: 0.006. */
TEST(error_of_each_format_is_bounded) {
  static float w[ROWS * COLS];
  double e;
  random_matrix(w, 0.5f);
  struct foray_codes *c = fit(FORAY_IMAGE_Q4A, w, ROWS, COLS, &e);
  double r = rms_ratio(c, w);
  CU_ASSERT(r > 0.04 && r < 0.085);
  foray_codes_close(c);
  c = fit(FORAY_IMAGE_Q8S, w, ROWS, COLS, &e);
  r = rms_ratio(c, w);
  CU_ASSERT(r > 0.003 && r < 0.008);
  for (size_t i = 0; i < ROWS * COLS; i++) CU_ASSERT(c->q[i] != 0x80);
  foray_codes_close(c);
}

/* A group of a 4-bit source comes back as its own codes: error far below a step. */
TEST(affine_four_bit_source_is_found_again) {
  static float w[ROWS * COLS];
  for (uint32_t r = 0; r < ROWS; r++) {
    for (uint32_t g = 0; g < COLS / 32; g++) {
      float s = 0.01f + 0.02f * fabsf(noise(r * 100 + g)), m = -s * (6.0f + 2.0f * noise(5000 + r * 100 + g));
      for (uint32_t i = 0; i < 32; i++) {
        uint32_t q = i < 2 ? i * 15 : foray_philox4x32(3, r, g, i, 0).v[0] % 16; /* both ends are used */
        w[r * COLS + g * 32 + i] = s * (float)q + m;
      }
    }
  }
  double e;
  struct foray_codes *c = fit(FORAY_IMAGE_Q4A, w, ROWS, COLS, &e);
  CU_ASSERT(rms_ratio(c, w) < 0.012);
  foray_codes_close(c);
}

TEST(packing_unpacked_weights_again_changes_nothing) {
  static float w[ROWS * COLS], again[ROWS * COLS];
  random_matrix(w, 0.3f);
  for (enum foray_image_type type = FORAY_IMAGE_Q4A; type <= FORAY_IMAGE_Q8S; type++) {
    double e, e2;
    struct foray_codes *c = fit(type, w, ROWS, COLS, &e);
    for (uint32_t r = 0; r < ROWS; r++) foray_codes_row(c, r, again + r * COLS);
    /* with the same row scales */
    struct foray_codes *d;
    CU_ASSERT_EQUAL_FATAL(foray_codes_open(type, ROWS, COLS, &d, NULL), FORAY_OK);
    memcpy(d->mant, c->mant, ROWS * sizeof *d->mant);
    d->exp = c->exp;
    e2 = 0;
    for (uint32_t r = 0; r < ROWS; r++) e2 += foray_codes_fit_row(d, r, again + r * COLS, NULL);
    uint32_t same = 0;
    for (uint32_t g = 0; g < ROWS * COLS / 32; g++) {
      bool low = type == FORAY_IMAGE_Q8S, high = low; /* Q4A: the codes are unique where both ends are used */
      for (uint32_t i = 0; i < 32; i++) {
        low |= c->q[g * 32 + i] == 0;
        high |= c->q[g * 32 + i] == 15;
      }
      if (!low || !high) continue;
      same++;
      CU_ASSERT_EQUAL(c->sc[g], d->sc[g]);
      if (c->zp) CU_ASSERT_EQUAL(c->zp[g], d->zp[g]);
      CU_ASSERT_EQUAL(memcmp(c->q + g * 32, d->q + g * 32, 32), 0);
    }
    CU_ASSERT(same > ROWS * COLS / 32 / 2);
    CU_ASSERT(e2 < 0.02 * e);
    foray_codes_close(c);
    foray_codes_close(d);
  }
}

TEST(odd_groups) {
  float w[64] = {0}, back[64];
  double e;
  struct foray_codes *c = fit(FORAY_IMAGE_Q4A, w, 1, 64, &e); /* all zero */
  foray_codes_row(c, 0, back);
  for (int i = 0; i < 64; i++) CU_ASSERT_EQUAL(back[i], 0.0f);
  CU_ASSERT_EQUAL(e, 0.0);
  foray_codes_close(c);
  for (int i = 0; i < 64; i++) w[i] = i < 32 ? 3.0f : -0.001f; /* constant, far from 0; and tiny beside it */
  c = fit(FORAY_IMAGE_Q4A, w, 1, 64, &e);
  foray_codes_row(c, 0, back);
  CU_ASSERT_DOUBLE_EQUAL(back[7], 3.0, 0.01);
  CU_ASSERT_DOUBLE_EQUAL(back[40], -0.001, 0.0009);
  foray_codes_close(c);
  for (int i = 0; i < 64; i++) w[i] = i == 9 ? 1e30f : 1e-30f;
  c = fit(FORAY_IMAGE_Q8S, w, 1, 64, &e);
  foray_codes_row(c, 0, back);
  CU_ASSERT_DOUBLE_EQUAL(back[9], 1e30, 1e28);
  CU_ASSERT(isfinite(back[0]));
  foray_codes_close(c);
}

TEST(vectors_keep_30_bits) {
  float v[5] = {1.0f, -0.25f, 3e-5f, 123.456f, 0.0f};
  int32_t m[5], exp;
  foray_codes_v32(v, 5, m, &exp);
  for (int i = 0; i < 5; i++) CU_ASSERT_DOUBLE_EQUAL(ldexp((double)m[i], exp), v[i], 123.456 * 0x1p-30);
  CU_ASSERT(m[3] >= 1 << 29 && m[3] < 1 << 30);
}

/* ---- matrix product, factor, second-order rounding ---- */

TEST(matrix_product_is_the_same_on_every_kernel) {
  enum { M = 33, N = 70, K = 301 };
  float *a = malloc(M * K * sizeof *a), *b = malloc(K * N * sizeof *b), *c = calloc(M * N, sizeof *c);
  struct foray_pack_gemm *g = foray_pack_gemm_open(NULL);
  CU_ASSERT_FATAL(a && b && c && g);
  for (uint32_t i = 0; i < M * K; i++) a[i] = noise(i);
  for (uint32_t i = 0; i < K * N; i++) b[i] = noise(50000 + i);
  foray_pack_gemm_run(g, &(struct foray_pack_gemm_args){.m = M,
                                                        .n = N,
                                                        .k = K,
                                                        .alpha = 1,
                                                        .a = a,
                                                        .a_row = K,
                                                        .a_col = 1,
                                                        .b = b,
                                                        .b_row = N,
                                                        .b_col = 1,
                                                        .c = c,
                                                        .ldc = N});
  for (int i = 0; i < M; i++) {
    for (int j = 0; j < N; j++) { /* the definition in the header, word for word */
      float s = 0;
      for (int k0 = 0; k0 < K; k0 += FORAY_PACK_GEMM_KC) {
        float run = 0;
        for (int k = k0; k < K && k < k0 + FORAY_PACK_GEMM_KC; k++) {
          float p = a[i * K + k] * b[k * N + j];
          run += p;
        }
        s += run;
      }
      CU_ASSERT_EQUAL(c[i * N + j], s);
    }
  }
  foray_pack_gemm_close(g);
  free(a);
  free(b);
  free(c);
}

/* Inputs whose channels go together, as real ones do. */
static void gram(float *h, uint32_t k, uint32_t tokens) {
  float *x = malloc(k * sizeof *x);
  CU_ASSERT_PTR_NOT_NULL_FATAL(x);
  memset(h, 0, (size_t)k * k * sizeof *h);
  for (uint32_t t = 0; t < tokens; t++) {
    float common = noise(900000 + t);
    for (uint32_t i = 0; i < k; i++)
      x[i] = 0.4f * noise(t * k + i) + common * (0.5f + 0.5f * noise(800000 + i));
    for (uint32_t i = 0; i < k; i++) {
      for (uint32_t j = 0; j < k; j++) h[i * k + j] += x[i] * x[j] / (float)tokens;
    }
  }
  free(x);
}

TEST(factor_is_the_root_of_the_inverse) {
  enum { K = 160 };
  float *h = malloc(K * K * sizeof *h), *keep = malloc(K * K * sizeof *h), *u = malloc(K * K * sizeof *u);
  struct foray_pack_gemm *g = foray_pack_gemm_open(NULL);
  CU_ASSERT_FATAL(h && keep && u && g);
  gram(h, K, 300);
  double mean = 0;
  for (int i = 0; i < K; i++) mean += (double)h[i * K + i] / K;
  memcpy(keep, h, K * K * sizeof *h);
  for (int i = 0; i < K; i++) keep[i * K + i] += (float)(0.01 * mean);
  CU_ASSERT_EQUAL(foray_gptq_factor(g, h, u, K, NULL), FORAY_OK);
  double worst = 0; /* U^T U (H + damping) = 1 */
  for (int i = 0; i < K; i++) {
    double row[K];
    for (int j = 0; j < K; j++) {
      row[j] = 0;
      for (int t = 0; t <= i && t <= j; t++) row[j] += (double)u[t * K + i] * (double)u[t * K + j];
      if (j < i) CU_ASSERT_EQUAL(u[i * K + j], 0.0f);
    }
    for (int j = 0; j < K; j++) {
      double s = 0;
      for (int t = 0; t < K; t++) s += row[t] * (double)keep[t * K + j];
      worst = fmax(worst, fabs(s - (i == j)));
    }
  }
  CU_ASSERT(worst < 1e-2);
  for (int i = 0; i < K * K; i++) h[i] = NAN;
  CU_ASSERT_EQUAL(foray_gptq_factor(g, h, u, K, NULL), FORAY_E_FORMAT);
  memset(h, 0, K * K * sizeof *h); /* an input that never fires */
  CU_ASSERT_EQUAL(foray_gptq_factor(g, h, u, K, NULL), FORAY_OK);
  foray_pack_gemm_close(g);
  free(h);
  free(keep);
  free(u);
}

static double weighted(const struct foray_codes *c, const float *w, const float *h, uint32_t k) {
  float *row = malloc(k * sizeof *row);
  double sum = 0;
  CU_ASSERT_PTR_NOT_NULL_FATAL(row);
  for (uint32_t r = 0; r < c->rows; r++) {
    foray_codes_row(c, r, row);
    for (uint32_t i = 0; i < k; i++) row[i] -= w[r * k + i];
    for (uint32_t i = 0; i < k; i++) {
      for (uint32_t j = 0; j < k; j++) sum += (double)row[i] * (double)h[i * k + j] * (double)row[j];
    }
  }
  free(row);
  return sum;
}

/* Rounding against the inputs must beat rounding to nearest clearly on the error that counts. */
TEST(second_order_rounding_lowers_the_error_of_the_product) {
  enum { K = COLS };
  static float w[ROWS * COLS], copy[ROWS * COLS];
  float *h = malloc(K * K * sizeof *h), *keep = malloc(K * K * sizeof *h), *u = malloc(K * K * sizeof *u);
  struct foray_pack_gemm *g = foray_pack_gemm_open(NULL);
  CU_ASSERT_FATAL(h && keep && u && g);
  random_matrix(w, 0.3f);
  memcpy(copy, w, sizeof w);
  gram(h, K, 250);
  memcpy(keep, h, K * K * sizeof *h);
  CU_ASSERT_EQUAL_FATAL(foray_gptq_factor(g, h, u, K, NULL), FORAY_OK);
  for (enum foray_image_type type = FORAY_IMAGE_Q4A; type <= FORAY_IMAGE_Q8S; type++) {
    double e;
    struct foray_codes *nearest = fit(type, w, ROWS, COLS, &e), *second;
    CU_ASSERT_EQUAL_FATAL(foray_codes_open(type, ROWS, COLS, &second, NULL), FORAY_OK);
    memcpy(copy, w, sizeof w);
    CU_ASSERT_EQUAL(foray_gptq_round(g, NULL, copy, u, second, NULL), FORAY_OK);
    CU_ASSERT(weighted(second, w, keep, K) < 0.6 * weighted(nearest, w, keep, K));
    foray_codes_close(nearest);
    foray_codes_close(second);
  }
  foray_pack_gemm_close(g);
  free(h);
  free(keep);
  free(u);
}

TEST(exponential) {
  for (float x = -87.0f; x < 80.0f; x += 0.37f) {
    CU_ASSERT_DOUBLE_EQUAL(foray_pack_exp(x) / exp((double)x), 1.0, 4e-7);
  }
  CU_ASSERT_EQUAL(foray_pack_exp(-1000.0f), 0.0f);
}

/* ---- whole models ---- */

static struct foray_model *tiny(enum foray_arch arch, struct foray_buf *b, uint32_t n_embd) {
  struct foray_tiny d = foray_tiny_default(arch);
  struct foray_model *m = NULL;
  struct foray_err err = {0};
  d.head_dim = 32;
  d.n_embd = n_embd;
  d.n_ff = 2 * n_embd;
  foray_tiny_build(&d, b);
  CU_ASSERT_EQUAL_FATAL(foray_model_open_memory(b->data, b->len, "tiny", &m, &err), FORAY_OK);
  return m;
}

static struct foray_image *pack(const struct foray_model *m, struct foray_pack_opts *o) {
  char path[] = "/tmp/foray-test-XXXXXX";
  int fd = mkstemp(path);
  struct foray_image *img = NULL;
  struct foray_err err = {0};
  CU_ASSERT_FATAL(fd >= 0);
  close(fd);
  if (!o->exits_path) o->exits_path = "";
  enum foray_status st = foray_pack_run(m, o, path, NULL, &err);
  if (st != FORAY_OK) printf("    %s\n", err.msg);
  CU_ASSERT_EQUAL_FATAL(st, FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_image_open(path, &img, &err), FORAY_OK);
  CU_ASSERT_EQUAL(foray_image_verify(img, &err), FORAY_OK);
  unlink(path);
  return img;
}

/* Unpacking gives the source's rows back, within the error of the format, with q and k permuted for llama. */
TEST(unpacking_gives_the_source_rows) {
  for (int k = 0; k < 2; k++) {
    enum foray_arch arch = k ? FORAY_ARCH_QWEN2 : FORAY_ARCH_LLAMA;
    struct foray_buf b;
    struct foray_model *m = tiny(arch, &b, 64);
    struct foray_pack_opts o = {.calib = FORAY_PACK_CALIB_OFF, .bits_max = 20};
    struct foray_image *img = pack(m, &o);
    const struct foray_image_tensor *q = foray_image_find(img, FORAY_IMAGE_ATTN_Q, 1);
    const struct foray_gguf_tensor *s = foray_model_tensor(m, FORAY_ROLE_ATTN_Q, 1);
    CU_ASSERT_FATAL(q && s);
    float a[64], w[64];
    double e = 0, ref = 0;
    for (uint32_t r = 0; r < q->rows; r++) {
      uint32_t h = r / 32, i = r % 32, from = k ? r : h * 32 + (i < 16 ? 2 * i : 2 * (i - 16) + 1);
      foray_image_row(img, q, r, a);
      CU_ASSERT_EQUAL(foray_dequant_row(s->type, foray_tensor_row(s, from), w, 64), FORAY_OK);
      for (int c = 0; c < 64; c++) {
        e += (double)(a[c] - w[c]) * (double)(a[c] - w[c]);
        ref += (double)w[c] * (double)w[c];
      }
    }
    CU_ASSERT(sqrt(e / ref) < 0.1);
    CU_ASSERT_DOUBLE_EQUAL(sqrt(e / ref), (double)q->rms_error, 1e-3);
    if (k) {
      const struct foray_gguf_tensor *sb = foray_model_tensor(m, FORAY_ROLE_ATTN_K_BIAS, 0);
      const struct foray_image_tensor *t = foray_image_find(img, FORAY_IMAGE_ATTN_K, 0);
      float bias[256], want[256];
      CU_ASSERT_FATAL(sb && t->has_bias && t->rows <= 256);
      foray_image_bias(img, t, bias);
      CU_ASSERT_EQUAL(foray_dequant_row(sb->type, sb->data, want, t->rows), FORAY_OK);
      for (uint32_t i = 0; i < t->rows; i++) CU_ASSERT_DOUBLE_EQUAL(bias[i], want[i], 1e-6);
    }
    float norm[64], nw[64];
    const struct foray_gguf_tensor *sn = foray_model_tensor(m, FORAY_ROLE_FFN_NORM, 0);
    foray_image_row(img, foray_image_find(img, FORAY_IMAGE_FFN_NORM, 0), 0, norm);
    CU_ASSERT_EQUAL(foray_dequant_row(sn->type, sn->data, nw, 64), FORAY_OK);
    for (int i = 0; i < 64; i++) CU_ASSERT_DOUBLE_EQUAL(norm[i], nw[i], 1e-7);
    foray_image_close(img);
    foray_model_close(m);
    foray_buf_deinit(&b);
  }
}

static void calib_text(char *path) {
  int fd = mkstemp(path);
  CU_ASSERT_FATAL(fd >= 0);
  for (int i = 0; i < 400; i++) dprintf(fd, "line %d of a text that says little: %x %x\n", i, i * 77, i * i);
  close(fd);
}

TEST(budget_is_kept_and_used) {
  char text[] = "/tmp/foray-test-XXXXXX";
  struct foray_buf b;
  struct foray_model *m = tiny(FORAY_ARCH_QWEN2, &b, 192);
  calib_text(text);
  double last_cost = 1e9;
  const double budget[] = {6.0, 20.0};
  for (int i = 0; i < 2; i++) {
    struct foray_pack_opts o = {
        .calib = FORAY_PACK_CALIB_ON, .calib_path = text, .calib_tokens = 256, .bits_max = budget[i]};
    struct foray_image *img = pack(m, &o);
    double cost = 0;
    int eight = 0;
    for (uint32_t t = 0; t < img->n_tensors; t++) {
      cost += (double)img->tensors[t].cost;
      eight += img->tensors[t].role <= FORAY_IMAGE_FFN_DOWN && img->tensors[t].type == FORAY_IMAGE_Q8S;
    }
    CU_ASSERT(img->bits_per_block_weight <= budget[i]);
    CU_ASSERT(eight > 0);
    CU_ASSERT(cost < last_cost);
    CU_ASSERT(cost > 0);
    last_cost = cost;
    if (i == 1) CU_ASSERT_EQUAL(eight, 14);
    char *json;
    CU_ASSERT_EQUAL_FATAL(foray_image_inspect(img, &json, NULL), FORAY_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(json, "\"bits_per_block_weight\""));
    free(json);
    foray_image_close(img);
  }
  struct foray_pack_opts o = {.exits_path = "", .bits_max = 4.61};
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(foray_pack_run(m, &o, "/tmp/never", NULL, &err), FORAY_E_LIMIT);
  o.bits_max = 4.0;
  CU_ASSERT_EQUAL(foray_pack_run(m, &o, "/tmp/never", NULL, &err), FORAY_E_ARG);
  unlink(text);
  foray_model_close(m);
  foray_buf_deinit(&b);
}

TEST(threads_do_not_change_the_image) {
  char text[] = "/tmp/foray-test-XXXXXX";
  struct foray_buf b;
  struct foray_model *m = tiny(FORAY_ARCH_LLAMA, &b, 128);
  uint8_t sha[2][32];
  calib_text(text);
  for (int i = 0; i < 2; i++) {
    struct foray_pool *pool = NULL;
    if (i) CU_ASSERT_EQUAL_FATAL(foray_pool_open(3, &pool, NULL), FORAY_OK);
    struct foray_pack_opts o = {
        .pool = pool, .calib = FORAY_PACK_CALIB_ON, .calib_path = text, .calib_tokens = 256, .bits_max = 7};
    struct foray_image *img = pack(m, &o);
    memcpy(sha[i], img->sha256, 32);
    foray_image_close(img);
    foray_pool_close(pool);
  }
  CU_ASSERT_EQUAL(memcmp(sha[0], sha[1], 32), 0);
  unlink(text);
  foray_model_close(m);
  foray_buf_deinit(&b);
}

static bool stop_at_half(void *user, const char *what, double done) {
  (void)what;
  (*(int *)user)++;
  return done < 0.5;
}

TEST(refusals) {
  struct foray_buf b;
  struct foray_model *m;
  struct foray_err err = {0};
  struct foray_tiny d = foray_tiny_default(FORAY_ARCH_GEMMA3);
  foray_tiny_build(&d, &b);
  CU_ASSERT_EQUAL_FATAL(foray_model_open_memory(b.data, b.len, "g", &m, &err), FORAY_OK);
  struct foray_pack_opts o = {.exits_path = "", .calib = FORAY_PACK_CALIB_OFF, .bits_max = 20};
  CU_ASSERT_EQUAL(foray_pack_run(m, &o, "/tmp/never", NULL, &err), FORAY_E_UNSUPPORTED);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "gemma3"));
  foray_model_close(m);
  foray_buf_deinit(&b);
  m = tiny(FORAY_ARCH_LLAMA, &b, 64);
  int calls = 0;
  o.progress = stop_at_half;
  o.user = &calls;
  CU_ASSERT_EQUAL(foray_pack_run(m, &o, "/tmp/foray-test-never", NULL, &err), FORAY_E_CANCELLED);
  CU_ASSERT(calls > 1);
  CU_ASSERT_NOT_EQUAL(access("/tmp/foray-test-never", F_OK), 0);
  o.progress = NULL;
  CU_ASSERT_EQUAL(foray_pack_run(m, &o, "/nonexistent/x", NULL, &err), FORAY_E_IO);
  o.exits_path = "/nonexistent/exits";
  CU_ASSERT_NOT_EQUAL(foray_pack_run(m, &o, "/tmp/foray-test-never", NULL, &err), FORAY_OK);
  o.exits_path = "";
  o.vocab_path = "/nonexistent/list";
  CU_ASSERT_EQUAL(foray_pack_run(m, &o, "/tmp/foray-test-never", NULL, &err), FORAY_E_IO);
  foray_model_close(m);
  foray_buf_deinit(&b);
}

static bool stop_never(void *user, const char *what, double done) {
  (void)what;
  (void)done;
  (*(int *)user)++;
  return true;
}

static uint64_t layer_bytes(const struct foray_image *img) {
  uint64_t h = 0;
  for (uint32_t i = 0; i < img->n_tensors; i++) {
    const struct foray_image_tensor *t = &img->tensors[i];
    if (t->role <= FORAY_IMAGE_FFN_DOWN) h = h * 31 + foray_fnv1a(foray_image_data(img) + t->off, t->bytes);
  }
  return h;
}

/* Another vocabulary list makes another image, but takes the calibrated layers over; other text does not. */
TEST(cache_takes_calibrated_layers_over) {
  char text[] = "/tmp/foray-test-XXXXXX", list[] = "/tmp/foray-test-XXXXXX", dir[] = "/tmp/foray-test-XXXXXX";
  char path[3][4096];
  struct foray_buf b;
  struct foray_err err = {0};
  struct foray_model *m = tiny(FORAY_ARCH_QWEN2, &b, 64);
  struct foray_image *img[3];
  const char *old = getenv("XDG_CACHE_HOME");
  char *kept = old ? strdup(old) : NULL;
  calib_text(text);
  int fd = mkstemp(list);
  CU_ASSERT_FATAL(fd >= 0 && mkdtemp(dir) != NULL);
  CU_ASSERT_EQUAL(write(fd, "1\n2\n", 4), 4);
  close(fd);
  setenv("XDG_CACHE_HOME", dir, 1);
  int calls[4] = {0};
  for (int i = 0; i < 4; i++) { /* 0: first, 1: with a list, 2: the first again, 3: another text */
    struct foray_pack_opts o = {.exits_path = "",
                                .calib = FORAY_PACK_CALIB_ON,
                                .calib_path = text,
                                .calib_tokens = 256,
                                .bits_max = 8,
                                .progress = stop_never,
                                .user = &calls[i]};
    if (i == 1) o.vocab_path = list;
    if (i == 3) {
      FILE *f = fopen(text, "we");
      CU_ASSERT_PTR_NOT_NULL_FATAL(f);
      for (int k = 0; k < 300; k++) fprintf(f, "%d\n", k * k);
      fclose(f);
    }
    CU_ASSERT_EQUAL_FATAL(foray_pack_cached(m, &o, path[i % 3], sizeof path[0], &err), FORAY_OK);
    if (i < 2) CU_ASSERT_EQUAL_FATAL(foray_image_open(path[i], &img[i], &err), FORAY_OK);
    if (i == 2) CU_ASSERT_STRING_EQUAL(path[2], path[0]);
    if (i == 3) CU_ASSERT_EQUAL_FATAL(foray_image_open(path[0], &img[2], &err), FORAY_OK);
  }
  CU_ASSERT_STRING_NOT_EQUAL(path[0], path[1]);
  CU_ASSERT_EQUAL(layer_bytes(img[0]), layer_bytes(img[1]));
  CU_ASSERT_NOT_EQUAL(layer_bytes(img[0]), layer_bytes(img[2]));
  CU_ASSERT(img[1]->config.n_trim == 2 && img[1]->tensors[1].cost == img[0]->tensors[1].cost);
  CU_ASSERT(calls[1] < calls[0]); /* no calibration */
  CU_ASSERT_EQUAL(calls[2], 0);
  for (int i = 0; i < 3; i++) foray_image_close(img[i]);
  char cmd[4200];
  snprintf(cmd, sizeof cmd, "rm -rf '%s' '%s' '%s'", dir, text, list);
  CU_ASSERT_EQUAL(system(cmd), 0);
  if (kept) {
    setenv("XDG_CACHE_HOME", kept, 1);
  } else {
    unsetenv("XDG_CACHE_HOME");
  }
  free(kept);
  foray_model_close(m);
  foray_buf_deinit(&b);
}
