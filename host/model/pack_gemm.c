/* Float matrix product over tiles of the result; each tile is one part of the pool and packs its own panels.
 */
#include "model/pack_gemm.h"

#include "core/cpu.h"

#include <stdlib.h>
#include <string.h>

/* MT and NT rounded up to any kernel's panel height and width */
enum {
  PA_MAX = (FORAY_PACK_GEMM_MT + 8) * FORAY_PACK_GEMM_KC,
  PB_MAX = (FORAY_PACK_GEMM_NT + 32) * FORAY_PACK_GEMM_KC
};
enum { TILE_LD = FORAY_PACK_GEMM_NT + 32, TILE_MAX = (FORAY_PACK_GEMM_MT + 8) * TILE_LD };

struct foray_pack_gemm {
  struct foray_pool *pool;
  const struct foray_pack_gemm_kernel *kernel;
  int threads;
  float *scratch; /* threads x (PA_MAX + PB_MAX + TILE_MAX) */
  const struct foray_pack_gemm_args *args;
  size_t m_tiles, n_tiles;
};

struct foray_pack_gemm *foray_pack_gemm_open(struct foray_pool *pool) {
  struct foray_pack_gemm *g = calloc(1, sizeof *g);
  if (!g) return NULL;
  g->pool = pool;
  g->threads = pool ? foray_pool_threads(pool) : 1;
  g->kernel = &foray_pack_gemm_kernel_generic;
#if defined(__x86_64__)
  if (foray_cpu_isa() >= FORAY_ISA_AVX512) {
    g->kernel = &foray_pack_gemm_kernel_avx512;
  } else if (foray_cpu_isa() >= FORAY_ISA_AVX2) {
    g->kernel = &foray_pack_gemm_kernel_avx2;
  }
#endif
  size_t bytes = (size_t)g->threads * (PA_MAX + PB_MAX + TILE_MAX) * sizeof(float);
  g->scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!g->scratch) {
    free(g);
    return NULL;
  }
  return g;
}

void foray_pack_gemm_close(struct foray_pack_gemm *g) {
  if (!g) return;
  free(g->scratch);
  free(g);
}

/* Panels of `width` lanes: dst[panel][k][lane], zero beyond count. Element (i, k) = src[i*row + k*col]. */
static void pack_panels(float *dst, const float *src, size_t row, size_t col, size_t count, size_t k,
                        size_t width) {
  for (size_t p = 0; p < count; p += width) {
    size_t live = count - p < width ? count - p : width;
    const float *s = src + p * row;
    if (row == 1) {
      for (size_t j = 0; j < k; j++) {
        memcpy(dst + j * width, s + j * col, live * sizeof *dst);
        for (size_t i = live; i < width; i++) dst[j * width + i] = 0;
      }
    } else {
      for (size_t i = 0; i < width; i++) {
        for (size_t j = 0; j < k; j++) dst[j * width + i] = i < live ? s[i * row + j * col] : 0;
      }
    }
    dst += k * width;
  }
}

static void tile(void *arg, int part, int thread) {
  struct foray_pack_gemm *g = arg;
  const struct foray_pack_gemm_args *a = g->args;
  size_t i0 = (size_t)part % g->m_tiles * FORAY_PACK_GEMM_MT,
         j0 = (size_t)part / g->m_tiles * FORAY_PACK_GEMM_NT;
  size_t m = a->m - i0 < FORAY_PACK_GEMM_MT ? a->m - i0 : FORAY_PACK_GEMM_MT;
  size_t n = a->n - j0 < FORAY_PACK_GEMM_NT ? a->n - j0 : FORAY_PACK_GEMM_NT;
  if (a->upper_only && i0 >= j0 + n) return;
  float *pa = g->scratch + (size_t)thread * (PA_MAX + PB_MAX + TILE_MAX), *pb = pa + PA_MAX,
        *acc = pb + PB_MAX;
  size_t mr = g->kernel->mr, nr = g->kernel->nr;
  memset(acc, 0, ((m + mr - 1) / mr * mr) * TILE_LD * sizeof *acc);
  for (size_t k0 = 0; k0 < a->k; k0 += FORAY_PACK_GEMM_KC) {
    size_t k = a->k - k0 < FORAY_PACK_GEMM_KC ? a->k - k0 : FORAY_PACK_GEMM_KC;
    pack_panels(pa, a->a + i0 * a->a_row + k0 * a->a_col, a->a_row, a->a_col, m, k, mr);
    pack_panels(pb, a->b + k0 * a->b_row + j0 * a->b_col, a->b_col, a->b_row, n, k, nr);
    for (size_t j = 0; j < n; j += nr) {
      for (size_t i = 0; i < m; i += mr)
        g->kernel->run(k, pa + i * k, pb + j * k, acc + i * TILE_LD + j, TILE_LD);
    }
  }
  for (size_t i = 0; i < m; i++) {
    float *c = a->c + (i0 + i) * a->ldc + j0;
    const float *s = acc + i * TILE_LD;
    if (a->beta != 0) {
      for (size_t j = 0; j < n; j++) c[j] += a->alpha * s[j];
    } else {
      for (size_t j = 0; j < n; j++) c[j] = a->alpha * s[j];
    }
  }
}

void foray_pack_gemm_run(struct foray_pack_gemm *g, const struct foray_pack_gemm_args *args) {
  if (!args->m || !args->n) return;
  g->args = args;
  g->m_tiles = (args->m + FORAY_PACK_GEMM_MT - 1) / FORAY_PACK_GEMM_MT;
  g->n_tiles = (args->n + FORAY_PACK_GEMM_NT - 1) / FORAY_PACK_GEMM_NT;
  foray_pool_run(g->pool, tile, g, (int)(g->m_tiles * g->n_tiles));
}
