/* Second-order rounding: the factor of the inverse Hessian, and the walk over the columns. */
#include "model/pack_gptq.h"

#include "core/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NB = 64, GROUP = FORAY_IMAGE_GROUP, RUN = 128 };

/* The diagonal block [b, b+n) of h becomes R_bb (upper, R R^T = block), in double inside. inv receives its
 * inverse (upper, n x n, row stride NB). */
static bool diagonal(float *h, size_t k, size_t b, size_t n, float *inv) {
  double r[NB][NB];
  memset(r, 0, sizeof r);
  for (size_t j = n; j-- > 0;) {
    for (size_t i = 0; i <= j; i++) {
      double s = (double)h[(b + i) * k + b + j];
      for (size_t c = j + 1; c < n; c++) s -= r[i][c] * r[j][c];
      r[i][j] = s; /* divided below, once the pivot is known */
    }
    if (!(r[j][j] > 0) || !isfinite(r[j][j])) return false;
    double p = sqrt(r[j][j]);
    for (size_t i = 0; i < j; i++) r[i][j] /= p;
    r[j][j] = p;
  }
  double v[NB][NB];
  memset(v, 0, sizeof v);
  for (size_t j = 0; j < n; j++) {
    v[j][j] = 1 / r[j][j];
    for (size_t i = j; i-- > 0;) {
      double s = 0;
      for (size_t c = i + 1; c <= j; c++) s += r[i][c] * v[c][j];
      v[i][j] = -s / r[i][i];
    }
  }
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < n; j++) {
      h[(b + i) * k + b + j] = (float)r[i][j];
      inv[i * NB + j] = (float)v[i][j];
    }
  }
  return true;
}

/* h (upper) -> R (upper) with H = R R^T, from the last block column to the first; invs: inverses of the
 * diagonal blocks. */
static bool factor(struct foray_pack_gemm *g, float *h, size_t k, float *invs, float *panel) {
  size_t blocks = (k + NB - 1) / NB;
  for (size_t bi = blocks; bi-- > 0;) {
    size_t b = bi * NB, n = k - b < NB ? k - b : NB;
    float *inv = invs + bi * NB * NB;
    if (!diagonal(h, k, b, n, inv)) return false;
    if (!b) break;
    /* R[0..b, blk] = H[0..b, blk] R_bb^-T */
    for (size_t i = 0; i < b; i++) memcpy(panel + i * n, h + i * k + b, n * sizeof *panel);
    foray_pack_gemm_run(g, &(struct foray_pack_gemm_args){.m = b,
                                                          .n = n,
                                                          .k = n,
                                                          .alpha = 1,
                                                          .beta = 0,
                                                          .a = panel,
                                                          .a_row = n,
                                                          .a_col = 1,
                                                          .b = inv,
                                                          .b_row = 1,
                                                          .b_col = NB,
                                                          .c = h + b,
                                                          .ldc = k});
    for (size_t i = 0; i < b; i++) memcpy(panel + i * n, h + i * k + b, n * sizeof *panel);
    foray_pack_gemm_run(g, &(struct foray_pack_gemm_args){.m = b,
                                                          .n = b,
                                                          .k = n,
                                                          .alpha = -1,
                                                          .beta = 1,
                                                          .a = panel,
                                                          .a_row = n,
                                                          .a_col = 1,
                                                          .b = panel,
                                                          .b_row = 1,
                                                          .b_col = n,
                                                          .c = h,
                                                          .ldc = k,
                                                          .upper_only = 1});
  }
  return true;
}

/* u = R^-1, block column by block column: u[0..b, blk] = -u[0..b, 0..b] R[0..b, blk] inv_bb. */
static void invert(struct foray_pack_gemm *g, const float *r, float *u, size_t k, const float *invs,
                   float *panel) {
  enum { CUT = 512 };
  memset(u, 0, k * k * sizeof *u);
  for (size_t b = 0; b < k; b += NB) {
    size_t n = k - b < NB ? k - b : NB;
    const float *inv = invs + b / NB * NB * NB;
    for (size_t i = 0; i < n; i++) memcpy(u + (b + i) * k + b, inv + i * NB, n * sizeof *u);
    if (!b) continue;
    foray_pack_gemm_run(g, &(struct foray_pack_gemm_args){.m = b,
                                                          .n = n,
                                                          .k = n,
                                                          .alpha = 1,
                                                          .beta = 0,
                                                          .a = r + b,
                                                          .a_row = k,
                                                          .a_col = 1,
                                                          .b = inv,
                                                          .b_row = NB,
                                                          .b_col = 1,
                                                          .c = panel,
                                                          .ldc = n});
    for (size_t i = 0; i < b; i += CUT) { /* rows i.. of u are zero before column i */
      size_t m = b - i < CUT ? b - i : CUT;
      foray_pack_gemm_run(g, &(struct foray_pack_gemm_args){.m = m,
                                                            .n = n,
                                                            .k = b - i,
                                                            .alpha = -1,
                                                            .beta = 0,
                                                            .a = u + i * k + i,
                                                            .a_row = k,
                                                            .a_col = 1,
                                                            .b = panel + i * n,
                                                            .b_row = n,
                                                            .b_col = 1,
                                                            .c = u + i * k + b,
                                                            .ldc = k});
    }
  }
}

enum foray_status foray_gptq_factor(struct foray_pack_gemm *g, float *h, float *u, size_t k,
                                    struct foray_err *err) {
  float *invs = malloc(((k + NB - 1) / NB * NB * NB + k * NB) * sizeof *invs);
  if (!invs) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  float *panel = invs + (k + NB - 1) / NB * NB * NB;
  double mean = 0;
  for (size_t i = 0; i < k; i++) mean += (double)h[i * k + i];
  mean = mean > 0 && isfinite(mean) ? mean / (double)k : 1;
  bool ok = false;
  memcpy(u, h, k * k * sizeof *u); /* kept for another try */
  for (double damp = 0.01; !ok && damp < 20; damp *= 10) {
    memcpy(h, u, k * k * sizeof *h);
    for (size_t i = 0; i < k; i++) h[i * k + i] += (float)(mean * damp);
    ok = factor(g, h, k, invs, panel);
  }
  if (ok) invert(g, h, u, k, invs, panel);
  free(invs);
  return ok ? FORAY_OK
            : foray_err_set(err, FORAY_E_FORMAT, "calibration: the inputs of a matrix are no finite numbers");
}

struct walk {
  struct foray_codes *c;
  float *w;                /* rows x k */
  float *e;                /* rows x RUN: errors of the present run of columns */
  const float *u;          /* k x k */
  const float *importance; /* k: 1 / U_jj^2 */
  size_t run0, run;        /* columns of the run */
};
enum { PART = 16 };

static void scales(void *arg, int part, int thread) {
  struct walk *x = arg;
  (void)thread;
  for (uint32_t i = 0, r = (uint32_t)part * PART; i < PART && r < x->c->rows; i++, r++) {
    foray_codes_scale(x->c, r, x->w + (size_t)r * x->c->cols, 1.03f);
  }
}

static void row_run(const struct walk *x, uint32_t r) {
  struct foray_codes *c = x->c;
  size_t k = c->cols;
  float *w = x->w + (size_t)r * k, *e = x->e + (size_t)r * RUN;
  double unit = foray_codes_unit(c, r);
  for (size_t b = x->run0; b < x->run0 + x->run; b += GROUP) {
    uint8_t sc, zp, *q = c->q + (size_t)r * k + b;
    size_t end = x->run0 + x->run, at = (size_t)r * c->groups + b / GROUP;
    foray_codes_fit_group(c->type, unit, w + b, x->importance + b, &sc, &zp);
    c->sc[at] = sc;
    if (c->zp) c->zp[at] = zp;
    float s = (float)(unit * sc * (c->zp ? 16 : 1)), inv = s > 0 ? 1.0f / s : 0, z = (float)zp / 16.0f;
    for (size_t i = b; i < b + GROUP; i++) {
      const float *u = x->u + i * k;
      float v = w[i], y = v * inv, d;
      if (c->zp) {
        y += z;
        y = y < 0 ? 0 : y > 15 ? 15 : y;
        int code = (int)(y + 0.5f);
        *q++ = (uint8_t)(s > 0 ? code : 0);
        d = ((float)code - z) * s;
      } else {
        y = y < -127 ? -127 : y > 127 ? 127 : y;
        int code = (int)(y + 128.5f) - 128;
        *q++ = (uint8_t)(int8_t)(s > 0 ? code : 0);
        d = (float)code * s;
      }
      float err = (v - d) / u[i];
      e[i - x->run0] = err;
      for (size_t t = i + 1; t < end; t++) w[t] -= err * u[t];
    }
  }
}

static void rows_run(void *arg, int part, int thread) {
  struct walk *x = arg;
  (void)thread;
  for (uint32_t i = 0, r = (uint32_t)part * PART; i < PART && r < x->c->rows; i++, r++) row_run(x, r);
}

enum foray_status foray_gptq_round(struct foray_pack_gemm *g, struct foray_pool *pool, float *w,
                                   const float *u, struct foray_codes *c, struct foray_err *err) {
  size_t k = c->cols;
  int parts = (int)((c->rows + PART - 1) / PART);
  float *importance = malloc((k + (size_t)c->rows * RUN) * sizeof *importance);
  if (!importance) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  struct walk x = {.c = c, .w = w, .e = importance + k, .u = u, .importance = importance};
  for (size_t i = 0; i < k; i++) importance[i] = 1.0f / (u[i * k + i] * u[i * k + i]);
  foray_pool_run(pool, scales, &x, parts);
  foray_codes_exp(c);
  for (x.run0 = 0; x.run0 < k; x.run0 += RUN) {
    x.run = k - x.run0 < RUN ? k - x.run0 : RUN;
    foray_pool_run(pool, rows_run, &x, parts);
    size_t next = x.run0 + x.run;
    if (next >= k) break;
    foray_pack_gemm_run(g, &(struct foray_pack_gemm_args){.m = c->rows,
                                                          .n = k - next,
                                                          .k = x.run,
                                                          .alpha = -1,
                                                          .beta = 1,
                                                          .a = x.e,
                                                          .a_row = RUN,
                                                          .a_col = 1,
                                                          .b = u + x.run0 * k + next,
                                                          .b_row = k,
                                                          .b_col = 1,
                                                          .c = w + next,
                                                          .ldc = k});
  }
  free(importance);
  return FORAY_OK;
}
