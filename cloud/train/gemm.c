#include "train/gemm.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"

struct foray_mm {
  enum foray_mm_kind kind;
  struct foray_pool *pool;
  uint16_t *a; /* rounded left operand */
  size_t a_cap;
};

#if defined(__x86_64__)
static bool amx_ready(void) { return foray_mm_amx_ready(); }
#else
static bool amx_ready(void) { return false; }
#endif

enum foray_status foray_mm_open(enum foray_mm_kind kind, struct foray_pool *pool, struct foray_mm **out,
                                struct foray_err *err) {
  struct foray_mm *g = calloc(1, sizeof *g);
  if (!g) return foray_err_set(err, FORAY_E_NOMEM, "matrix context: out of memory");
  g->kind = kind == FORAY_MM_AMX && amx_ready() ? FORAY_MM_AMX : FORAY_MM_F32;
  g->pool = pool;
  /* One BLAS thread: parallel loops are the pool's, and small products run inside them. */
  openblas_set_num_threads(1);
  *out = g;
  return FORAY_OK;
}

void foray_mm_close(struct foray_mm *g) {
  if (!g) return;
  free(g->a);
  free(g);
}

enum foray_mm_kind foray_mm_kind_of(const struct foray_mm *g) { return g->kind; }
struct foray_pool *foray_mm_pool(const struct foray_mm *g) {
  return g->pool;
}

static int round_up(int v, int to) { return (v + to - 1) / to * to; }

#if defined(__x86_64__)
struct pack_job {
  const float *src;
  size_t ld, panel;
  bool transposed;
  int k, kp, n;
  uint16_t *out;
};
static void pack_part(void *arg, int part, int thread) {
  const struct pack_job *j = arg;
  (void)thread;
  foray_mm_amx_pack_panel(j->src, j->ld, j->transposed, j->k, j->kp, j->n, part * FORAY_AMX_COLS,
                          j->out + (size_t)part * j->panel);
}
#endif

enum foray_status foray_mm_pack(const struct foray_mm *g, const float *src, int k, int n, size_t ld,
                                bool transposed, bool borrow, struct foray_mm_b *b, struct foray_err *err) {
  *b = (struct foray_mm_b){.k = k, .n = n, .transposed = transposed, .ld = ld};
#if defined(__x86_64__)
  if (g->kind == FORAY_MM_AMX) {
    int kp = round_up(k, FORAY_AMX_STEP), np = round_up(n, FORAY_AMX_COLS);
    struct pack_job j = {src, ld, (size_t)kp * FORAY_AMX_COLS, transposed, k, kp, n, NULL};
    b->tiles = aligned_alloc(64, (size_t)kp * (size_t)np * 2);
    if (!b->tiles) return foray_err_set(err, FORAY_E_NOMEM, "packed matrix %d x %d: out of memory", k, n);
    j.out = b->tiles;
    foray_pool_run(g->pool, pack_part, &j, np / FORAY_AMX_COLS);
    return FORAY_OK;
  }
#else
  (void)g;
#endif
  if (borrow) {
    b->borrowed = true;
    b->f32 = (float *)(uintptr_t)src;
    return FORAY_OK;
  }
  size_t rows = (size_t)(transposed ? n : k), cols = (size_t)(transposed ? k : n);
  b->f32 = malloc(rows * cols * sizeof(float));
  if (!b->f32) return foray_err_set(err, FORAY_E_NOMEM, "matrix %d x %d: out of memory", k, n);
  for (size_t r = 0; r < rows; r++) memcpy(b->f32 + r * cols, src + r * ld, cols * sizeof(float));
  b->ld = cols;
  return FORAY_OK;
}

void foray_mm_b_free(struct foray_mm_b *b) {
  if (!b->borrowed) free(b->f32);
  free(b->tiles);
  *b = (struct foray_mm_b){0};
}

struct run_job {
  int m, mp, kp, block;
  const float *a;
  size_t lda;
  const struct foray_mm_b *b;
  float *c;
  size_t ldc;
  bool add;
  uint16_t *ar;
};

#if defined(__x86_64__)
static void round_part(void *arg, int part, int thread) {
  const struct run_job *j = arg;
  (void)thread;
  foray_mm_amx_round(j->a, j->lda, j->m, j->b->k, j->kp, part * FORAY_AMX_ROWS, FORAY_AMX_ROWS, j->ar);
}
static void panel_part(void *arg, int part, int thread) {
  const struct run_job *j = arg;
  (void)thread;
  int col0 = part * FORAY_AMX_COLS, left = j->b->n - col0;
  foray_mm_amx_panel(j->ar, j->m, j->mp, j->kp, j->b->tiles + (size_t)col0 * (size_t)j->kp, j->c + col0,
                     j->ldc, left < FORAY_AMX_COLS ? left : FORAY_AMX_COLS, j->add);
}
#endif

static void f32_part(void *arg, int part, int thread) {
  const struct run_job *j = arg;
  (void)thread;
  int r0 = part * j->block, rows = j->m - r0 < j->block ? j->m - r0 : j->block;
  foray_mm_small(j->b->transposed, rows, j->b->n, j->b->k, 1.0f, j->a + (size_t)r0 * j->lda, j->lda,
                 j->b->f32, j->b->ld, j->c + (size_t)r0 * j->ldc, j->ldc, j->add);
}

enum foray_status foray_mm_run(struct foray_mm *g, int m, const float *a, size_t lda,
                               const struct foray_mm_b *b, float *c, size_t ldc, bool add,
                               struct foray_err *err) {
  struct run_job j = {.m = m, .a = a, .lda = lda, .b = b, .c = c, .ldc = ldc, .add = add};
  if (m <= 0) return FORAY_OK;
#if defined(__x86_64__)
  if (b->tiles) {
    j.kp = round_up(b->k, FORAY_AMX_STEP);
    j.mp = round_up(m, FORAY_AMX_ROWS);
    size_t need = (size_t)j.mp * (size_t)j.kp * 2;
    if (need > g->a_cap) {
      free(g->a);
      g->a_cap = 0;
      g->a = aligned_alloc(64, need);
      if (!g->a) return foray_err_set(err, FORAY_E_NOMEM, "matrix product: out of memory");
      g->a_cap = need;
    }
    j.ar = g->a;
    foray_pool_run(g->pool, round_part, &j, j.mp / FORAY_AMX_ROWS);
    foray_pool_run(g->pool, panel_part, &j, (b->n + FORAY_AMX_COLS - 1) / FORAY_AMX_COLS);
    return FORAY_OK;
  }
#endif
  (void)err;
  (void)g;
  j.block = 64;
  foray_pool_run(g->pool, f32_part, &j, (m + j.block - 1) / j.block);
  return FORAY_OK;
}

void foray_mm_small(bool b_transposed, int m, int n, int k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float *c, size_t ldc, bool add) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, b_transposed ? CblasTrans : CblasNoTrans, m, n, k, alpha, a,
              (int)lda, b, (int)ldb, add ? 1.0f : 0.0f, c, (int)ldc);
}

void foray_mm_small_tn(int m, int n, int k, float alpha, const float *a, size_t lda, const float *b,
                       size_t ldb, float *c, size_t ldc, bool add) {
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, n, k, alpha, a, (int)lda, b, (int)ldb,
              add ? 1.0f : 0.0f, c, (int)ldc);
}

struct tn_job {
  int m, k, n, block;
  const float *a, *b;
  size_t lda, ldb, ldc;
  float *c;
  bool add;
};
static void tn_part(void *arg, int part, int thread) {
  const struct tn_job *j = arg;
  (void)thread;
  int n0 = part * j->block, n = j->n - n0 < j->block ? j->n - n0 : j->block;
  foray_mm_small_tn(j->k, n, j->m, 1.0f, j->a, j->lda, j->b + n0, j->ldb, j->c + n0, j->ldc, j->add);
}

void foray_mm_tn(struct foray_mm *g, int m, int k, int n, const float *a, size_t lda, const float *b,
                 size_t ldb, float *c, size_t ldc, bool add) {
  struct tn_job j = {m, k, n, 256, a, b, lda, ldb, ldc, c, add};
  foray_pool_run(g->pool, tn_part, &j, (n + j.block - 1) / j.block);
}
