/* Float forward of one transformer block for calibration. */
#include "model/pack_block.h"

#include "core/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef float vec __attribute__((vector_size(16)));

float foray_pack_exp(float x) {
  if (x < -87.0f) return 0;
  float t = x * 1.44269504f, k = floorf(t + 0.5f);
  /* x - k ln 2 in two steps, then e^r on |r| <= ln(2)/2 by its series */
  float r = (x - k * 0.693145752f) - k * 1.42860677e-6f;
  float p =
      1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f +
                                          r * (0.0416666667f + r * (0.00833333333f + r * 0.00138888889f)))));
  return ldexpf(p, (int)k);
}

void foray_pack_rmsnorm(const struct foray_image_config *c, const float *x, const float *weight, float *dst,
                        size_t n, size_t d) {
  float eps = ldexpf((float)c->eps_mant, c->eps_exp);
  for (size_t i = 0; i < n; i++, x += d, dst += d) {
    double s = 0;
    for (size_t j = 0; j < d; j++) s += (double)(x[j] * x[j]);
    float k = (float)(1.0 / sqrt(s / (double)d + (double)eps));
    for (size_t j = 0; j < d; j++) dst[j] = x[j] * k * weight[j];
  }
}

enum foray_status foray_pack_block_open(const struct foray_image_config *c, struct foray_pool *pool,
                                        struct foray_pack_gemm *g, size_t cap, size_t seq_max,
                                        struct foray_pack_block *b, struct foray_err *err) {
  size_t q = (size_t)c->n_head * c->head_dim, kv = (size_t)c->n_head_kv * c->head_dim, hd = c->head_dim;
  *b = (struct foray_pack_block){.c = c, .pool = pool, .g = g, .cap = cap, .seq_max = seq_max};
  b->norm = malloc(cap * c->n_embd * sizeof(float));
  b->q = malloc(cap * q * sizeof(float));
  b->k = malloc(cap * kv * sizeof(float));
  b->v = malloc(cap * kv * sizeof(float));
  b->o = malloc(cap * q * sizeof(float));
  b->gate = malloc(cap * c->n_ff * sizeof(float));
  b->up = malloc(cap * c->n_ff * sizeof(float));
  b->rope = malloc(seq_max * hd * sizeof(float));
  b->prob = malloc((size_t)(pool ? foray_pool_threads(pool) : 1) * seq_max * sizeof(float));
  if (!b->norm || !b->q || !b->k || !b->v || !b->o || !b->gate || !b->up || !b->rope || !b->prob) {
    foray_pack_block_deinit(b);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory for %zu tokens of calibration", cap);
  }
  for (size_t p = 0; p < seq_max; p++) {
    for (size_t i = 0; i < hd / 2; i++) {
      double a = (double)p * pow((double)c->rope_base, -2.0 * (double)i / (double)hd);
      b->rope[p * hd + 2 * i] = (float)cos(a);
      b->rope[p * hd + 2 * i + 1] = (float)sin(a);
    }
  }
  return FORAY_OK;
}

void foray_pack_block_deinit(struct foray_pack_block *b) {
  free(b->norm);
  free(b->q);
  free(b->k);
  free(b->v);
  free(b->o);
  free(b->gate);
  free(b->up);
  free(b->rope);
  free(b->prob);
  memset(b, 0, sizeof *b);
}

/* y = x W^T (+ bias) */
static void product(struct foray_pack_block *b, const float *x, const float *w, const float *bias, float *y,
                    size_t n, size_t rows, size_t cols, bool add) {
  foray_pack_gemm_run(b->g, &(struct foray_pack_gemm_args){.m = n,
                                                           .n = rows,
                                                           .k = cols,
                                                           .alpha = 1,
                                                           .beta = add ? 1.0f : 0.0f,
                                                           .a = x,
                                                           .a_row = cols,
                                                           .a_col = 1,
                                                           .b = w,
                                                           .b_row = 1,
                                                           .b_col = cols,
                                                           .c = y,
                                                           .ldc = rows});
  if (!bias) return;
  for (size_t i = 0; i < n; i++) {
    for (size_t r = 0; r < rows; r++) y[i * rows + r] += bias[r];
  }
}

static void rope(const struct foray_pack_block *b, float *x, size_t n_seq, size_t seq, size_t heads) {
  size_t hd = b->c->head_dim, half = hd / 2;
  for (size_t t = 0; t < n_seq * seq; t++) {
    const float *cs = b->rope + t % seq * hd;
    for (size_t h = 0; h < heads; h++, x += hd) {
      for (size_t i = 0; i < half; i++) {
        float a = x[i], c = x[i + half];
        x[i] = a * cs[2 * i] - c * cs[2 * i + 1];
        x[i + half] = c * cs[2 * i] + a * cs[2 * i + 1];
      }
    }
  }
}

struct attention {
  const struct foray_pack_block *b;
  size_t seq;
};

/* One part = one head of one sequence. head_dim is a multiple of 32. */
static void attend(void *arg, int part, int thread) {
  const struct attention *a = arg;
  const struct foray_pack_block *b = a->b;
  const struct foray_image_config *c = b->c;
  size_t hd = c->head_dim, nq = c->n_head * hd, nkv = c->n_head_kv * hd, seq = a->seq;
  size_t s = (size_t)part / c->n_head, h = (size_t)part % c->n_head, kh = h / (c->n_head / c->n_head_kv);
  float *p = b->prob + (size_t)thread * b->seq_max;
  float scale = 1.0f / sqrtf((float)hd);
  for (size_t i = 0; i < seq; i++) {
    const float *q = b->q + (s * seq + i) * nq + h * hd;
    float *o = b->o + (s * seq + i) * nq + h * hd, top = -INFINITY, sum = 0;
    for (size_t j = 0; j <= i; j++) {
      const float *k = b->k + (s * seq + j) * nkv + kh * hd;
      vec acc[4] = {{0}, {0}, {0}, {0}};
      for (size_t d = 0; d < hd; d += 16) {
        vec qv[4], kvv[4];
        memcpy(qv, q + d, sizeof qv);
        memcpy(kvv, k + d, sizeof kvv);
        for (int v = 0; v < 4; v++) acc[v] += qv[v] * kvv[v];
      }
      vec t = (acc[0] + acc[1]) + (acc[2] + acc[3]);
      p[j] = ((t[0] + t[1]) + (t[2] + t[3])) * scale;
      top = p[j] > top ? p[j] : top;
    }
    memset(o, 0, hd * sizeof *o);
    for (size_t j = 0; j <= i; j++) {
      const float *v = b->v + (s * seq + j) * nkv + kh * hd;
      float w = foray_pack_exp(p[j] - top);
      sum += w;
      for (size_t d = 0; d < hd; d += 4) {
        vec ov, vv;
        memcpy(&ov, o + d, sizeof ov);
        memcpy(&vv, v + d, sizeof vv);
        ov += w * vv;
        memcpy(o + d, &ov, sizeof ov);
      }
    }
    for (size_t d = 0; d < hd; d++) o[d] /= sum;
  }
}

enum { SILU_PART = 1 << 16 };
struct silu {
  float *gate;
  const float *up;
  size_t n;
};
static void silu_part(void *arg, int part, int thread) {
  const struct silu *s = arg;
  (void)thread;
  size_t end = ((size_t)part + 1) * SILU_PART < s->n ? ((size_t)part + 1) * SILU_PART : s->n;
  for (size_t i = (size_t)part * SILU_PART; i < end; i++) {
    float g = s->gate[i];
    s->gate[i] = g / (1.0f + foray_pack_exp(g < -80.0f ? 80.0f : -g)) * s->up[i];
  }
}

bool foray_pack_block_run(struct foray_pack_block *b, const struct foray_pack_weights *w, float *x,
                          size_t n_seq, size_t seq) {
  const struct foray_image_config *c = b->c;
  size_t n = n_seq * seq, d = c->n_embd, f = c->n_ff, nq = (size_t)c->n_head * c->head_dim,
         nkv = (size_t)c->n_head_kv * c->head_dim;
#define BEFORE(first, in, width)                                                                             \
  if (b->before && !b->before(b->user, first, in, n, width)) return false
  foray_pack_rmsnorm(c, x, w->norm[0], b->norm, n, d);
  BEFORE(PB_Q, b->norm, d);
  product(b, b->norm, w->w[PB_Q], w->bias[0], b->q, n, nq, d, false);
  product(b, b->norm, w->w[PB_K], w->bias[1], b->k, n, nkv, d, false);
  product(b, b->norm, w->w[PB_V], w->bias[2], b->v, n, nkv, d, false);
  rope(b, b->q, n_seq, seq, c->n_head);
  rope(b, b->k, n_seq, seq, c->n_head_kv);
  struct attention a = {b, seq};
  foray_pool_run(b->pool, attend, &a, (int)(n_seq * c->n_head));
  BEFORE(PB_O, b->o, nq);
  product(b, b->o, w->w[PB_O], NULL, x, n, d, nq, true);
  foray_pack_rmsnorm(c, x, w->norm[1], b->norm, n, d);
  BEFORE(PB_GATE, b->norm, d);
  product(b, b->norm, w->w[PB_GATE], NULL, b->gate, n, f, d, false);
  product(b, b->norm, w->w[PB_UP], NULL, b->up, n, f, d, false);
  struct silu s = {b->gate, b->up, n * f};
  foray_pool_run(b->pool, silu_part, &s, (int)((n * f + SILU_PART - 1) / SILU_PART));
  BEFORE(PB_DOWN, b->gate, f);
  product(b, b->gate, w->w[PB_DOWN], NULL, x, n, d, f, true);
#undef BEFORE
  return true;
}
