#include "train/ewise.h"

#include <math.h>
#include <string.h>

#include "core/philox.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define WIDE __attribute__((optimize("O3"), target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define WIDE
#endif

enum { ROWS = 16 }; /* rows of one part */

/* exp by 2^n * polynomial, relative error below 3e-7 on [-87, 88]; a plain loop body, so that compilers
 * vectorise it. */
static inline float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  float t = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer in the low bits */
  uint32_t bits;
  memcpy(&bits, &t, 4);
  float n = t - 12582912.0f;
  float r = x - n * 0.693359375f - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  uint32_t e = (bits + 127u) << 23;
  float s;
  memcpy(&s, &e, 4);
  return p * s;
}

WIDE float foray_ew_exp_sum(float *x, int n, float shift) {
  float lane[16] = {0};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) {
      float v = fast_exp(x[i + j] - shift);
      x[i + j] = v;
      lane[j] += v;
    }
  for (int j = 0; i < n; i++, j++) lane[j] += x[i] = fast_exp(x[i] - shift);
  float s = 0;
  for (int j = 0; j < 16; j++) s += lane[j];
  return s;
}

WIDE float foray_ew_max(const float *x, int n) {
  float lane[16];
  for (int j = 0; j < 16; j++) lane[j] = -INFINITY;
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
  for (; i < n; i++) lane[0] = x[i] > lane[0] ? x[i] : lane[0];
  for (int j = 1; j < 16; j++) lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
  return lane[0];
}

WIDE static float dot(const float *a, const float *b, int n) {
  float lane[16] = {0};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) lane[j] += a[i + j] * b[i + j];
  for (; i < n; i++) lane[0] += a[i] * b[i];
  float s = 0;
  for (int j = 0; j < 16; j++) s += lane[j];
  return s;
}

struct norm_job {
  int m, n;
  float eps;
  const float *x, *w, *dy;
  float *y;
};

static void norm_part(void *arg, int part, int thread) {
  const struct norm_job *j = arg;
  (void)thread;
  for (int r = part * ROWS; r < (part + 1) * ROWS && r < j->m; r++) {
    const float *x = j->x + (size_t)r * (size_t)j->n;
    float *y = j->y + (size_t)r * (size_t)j->n;
    float s = 1.0f / sqrtf(dot(x, x, j->n) / (float)j->n + j->eps);
    for (int i = 0; i < j->n; i++) y[i] = x[i] * s * j->w[i];
  }
}

void foray_ew_rmsnorm(struct foray_pool *p, int m, int n, float eps, const float *x, const float *w,
                      float *y) {
  struct norm_job j = {m, n, eps, x, w, NULL, y};
  foray_pool_run(p, norm_part, &j, (m + ROWS - 1) / ROWS);
}

static void norm_back_part(void *arg, int part, int thread) {
  const struct norm_job *j = arg;
  (void)thread;
  int n = j->n;
  for (int r = part * ROWS; r < (part + 1) * ROWS && r < j->m; r++) {
    const float *x = j->x + (size_t)r * (size_t)n, *dy = j->dy + (size_t)r * (size_t)n;
    float *dx = j->y + (size_t)r * (size_t)n;
    float s = 1.0f / sqrtf(dot(x, x, n) / (float)n + j->eps), t = 0;
    for (int i = 0; i < n; i++) t += dy[i] * j->w[i] * x[i];
    t *= s * s * s / (float)n;
    for (int i = 0; i < n; i++) dx[i] += dy[i] * j->w[i] * s - x[i] * t;
  }
}

void foray_ew_rmsnorm_back(struct foray_pool *p, int m, int n, float eps, const float *x, const float *w,
                           const float *dy, float *dx, float *dw) {
  struct norm_job j = {m, n, eps, x, w, dy, dx};
  foray_pool_run(p, norm_back_part, &j, (m + ROWS - 1) / ROWS);
  if (!dw) return;
  for (int r = 0; r < m; r++) {
    const float *xr = x + (size_t)r * (size_t)n, *d = dy + (size_t)r * (size_t)n;
    float s = 1.0f / sqrtf(dot(xr, xr, n) / (float)n + eps);
    for (int i = 0; i < n; i++) dw[i] += d[i] * xr[i] * s;
  }
}

struct silu_job {
  size_t total;
  float *g, *u, *h;
  const float *cg, *cu, *dh;
  bool gelu;
};
enum { CHUNK = 1 << 15 };

WIDE static void silu_fwd(size_t n, const float *restrict g, const float *restrict u, float *restrict h) {
  for (size_t i = 0; i < n; i++) h[i] = g[i] / (1.0f + fast_exp(-g[i])) * u[i];
}
WIDE static void silu_bwd(size_t n, float *restrict g, float *restrict u, const float *restrict dh) {
  for (size_t i = 0; i < n; i++) {
    float s = 1.0f / (1.0f + fast_exp(-g[i])), d = dh[i], a = g[i];
    g[i] = d * u[i] * s * (1.0f + a * (1.0f - s));
    u[i] = d * a * s;
  }
}
/* GELU, tanh form: tanh(y) = 1 - 2 / (exp(2y) + 1) */
static inline float gelu_tanh(float g) {
  return 1.0f - 2.0f / (fast_exp(1.59576912f * (g + 0.044715f * g * g * g)) + 1.0f);
}
WIDE static void gelu_fwd(size_t n, const float *restrict g, const float *restrict u, float *restrict h) {
  for (size_t i = 0; i < n; i++) h[i] = 0.5f * g[i] * (1.0f + gelu_tanh(g[i])) * u[i];
}
WIDE static void gelu_bwd(size_t n, float *restrict g, float *restrict u, const float *restrict dh) {
  for (size_t i = 0; i < n; i++) {
    float a = g[i], t = gelu_tanh(a), d = dh[i];
    float slope = 0.5f * (1.0f + t) + 0.5f * a * (1.0f - t * t) * 0.79788456f * (1.0f + 0.134145f * a * a);
    g[i] = d * u[i] * slope;
    u[i] = d * 0.5f * a * (1.0f + t);
  }
}
static size_t chunk(size_t total, int part) {
  size_t left = total - (size_t)part * CHUNK;
  return left < CHUNK ? left : CHUNK;
}
static void silu_part(void *arg, int part, int thread) {
  const struct silu_job *j = arg;
  size_t o = (size_t)part * CHUNK, n = chunk(j->total, part);
  (void)thread;
  if (j->dh)
    (j->gelu ? gelu_bwd : silu_bwd)(n, j->g + o, j->u + o, j->dh + o);
  else
    (j->gelu ? gelu_fwd : silu_fwd)(n, j->cg + o, j->cu + o, j->h + o);
}

void foray_ew_silu_mul(struct foray_pool *p, int m, int n, const float *g, const float *u, float *h) {
  struct silu_job j = {.total = (size_t)m * (size_t)n, .cg = g, .cu = u, .h = h};
  foray_pool_run(p, silu_part, &j, (int)((j.total + CHUNK - 1) / CHUNK));
}
void foray_ew_silu_mul_back(struct foray_pool *p, int m, int n, float *g, float *u, const float *dh) {
  struct silu_job j = {.total = (size_t)m * (size_t)n, .g = g, .u = u, .dh = dh};
  foray_pool_run(p, silu_part, &j, (int)((j.total + CHUNK - 1) / CHUNK));
}

void foray_ew_gelu_mul(struct foray_pool *p, int m, int n, const float *g, const float *u, float *h) {
  struct silu_job j = {.total = (size_t)m * (size_t)n, .cg = g, .cu = u, .h = h, .gelu = true};
  foray_pool_run(p, silu_part, &j, (int)((j.total + CHUNK - 1) / CHUNK));
}
void foray_ew_gelu_mul_back(struct foray_pool *p, int m, int n, float *g, float *u, const float *dh) {
  struct silu_job j = {.total = (size_t)m * (size_t)n, .g = g, .u = u, .dh = dh, .gelu = true};
  foray_pool_run(p, silu_part, &j, (int)((j.total + CHUNK - 1) / CHUNK));
}

struct drop_job {
  size_t total;
  uint64_t key;
  uint32_t pass, below;
  float scale;
  const float *x;
  float *y;
  bool add;
};
static void drop_part(void *arg, int part, int thread) {
  const struct drop_job *j = arg;
  size_t o = (size_t)part * CHUNK, n = o + chunk(j->total, part);
  (void)thread;
  for (size_t i = o; i < n; i += 8) { /* eight 16-bit uniforms of one generator call */
    struct foray_philox r =
        foray_philox4x32(j->key, (uint32_t)(i / 8), (uint32_t)(i / 8 >> 32), 0x64726f70, j->pass);
    for (size_t k = i; k < i + 8 && k < n; k++) {
      uint32_t u = r.v[(k - i) / 2] >> (k % 2 ? 16 : 0) & 0xffff;
      float v = u < j->below ? 0 : j->x[k] * j->scale;
      j->y[k] = j->add ? j->y[k] + v : v;
    }
  }
}
void foray_ew_dropout(struct foray_pool *p, size_t n, float drop, uint64_t key, uint32_t pass, const float *x,
                      float *y, bool add) {
  struct drop_job j = {n, key, pass, (uint32_t)(drop * 65536.0f), 1.0f / (1.0f - drop), x, y, add};
  foray_pool_run(p, drop_part, &j, (int)((n + CHUNK - 1) / CHUNK));
}

struct col_job {
  int m, n;
  const float *x;
  float *out;
};
static void col_part(void *arg, int part, int thread) {
  const struct col_job *j = arg;
  int c0 = part * 256, c1 = c0 + 256 < j->n ? c0 + 256 : j->n;
  (void)thread;
  for (int r = 0; r < j->m; r++)
    for (int c = c0; c < c1; c++) j->out[c] += j->x[(size_t)r * (size_t)j->n + (size_t)c];
}
void foray_ew_col_sum(struct foray_pool *p, int m, int n, const float *x, float *out) {
  struct col_job j = {m, n, x, out};
  foray_pool_run(p, col_part, &j, (n + 255) / 256);
}

struct add_job {
  size_t total;
  float *y;
  const float *x;
};
static void add_part(void *arg, int part, int thread) {
  const struct add_job *j = arg;
  size_t o = (size_t)part * CHUNK, n = chunk(j->total, part);
  (void)thread;
  for (size_t i = o; i < o + n; i++) j->y[i] += j->x[i];
}
void foray_ew_add(struct foray_pool *p, size_t n, float *y, const float *x) {
  struct add_job j = {n, y, x};
  foray_pool_run(p, add_part, &j, (int)((n + CHUNK - 1) / CHUNK));
}

void foray_ew_rope_table(int dim, float base, float scale, const float *factor, int position, float *tab) {
  for (int i = 0; i < dim / 2; i++) {
    double a = (double)scale * (double)position * pow((double)base, -2.0 * i / dim);
    if (factor) a /= (double)factor[i];
    tab[2 * i] = (float)cos(a);
    tab[2 * i + 1] = (float)sin(a);
  }
}

void foray_ew_rope(float *x, int heads, int head_dim, int dim, int neox, const float *tab, float sign) {
  for (int h = 0; h < heads; h++, x += head_dim)
    for (int i = 0; i < dim / 2; i++) {
      int p = neox ? i : 2 * i, q = neox ? i + dim / 2 : 2 * i + 1;
      float c = tab[2 * i], s = tab[2 * i + 1] * sign, a = x[p], b = x[q];
      x[p] = a * c - b * s;
      x[q] = a * s + b * c;
    }
}
