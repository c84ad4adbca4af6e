#include "dev/cpu_exit.h"

#include "core/noise.h"
#include "dev/ref.h"

#include <pthread.h>
#include <string.h>

static void insert(struct foray_exit_unit *u, int32_t logit, uint32_t id) {
  int k = FORAY_ABI_TOPK;
  while (k > 0 && (logit > u->top_logit[k - 1] || (logit == u->top_logit[k - 1] && id < u->top_id[k - 1])))
    k--;
  if (k == FORAY_ABI_TOPK) return;
  const size_t tail = (size_t)(FORAY_ABI_TOPK - 1 - k);
  memmove(u->top_logit + k + 1, u->top_logit + k, tail * sizeof *u->top_logit);
  memmove(u->top_id + k + 1, u->top_id + k, tail * sizeof *u->top_id);
  u->top_logit[k] = logit;
  u->top_id[k] = id;
}

void foray_cpu_exit_merge(struct foray_exit_unit *u, const struct foray_exit_unit *from) {
  const uint32_t top = from->rows < FORAY_ABI_TOPK ? from->rows : FORAY_ABI_TOPK;
  if (from->rows == 0) return;
  for (uint32_t k = 0; k < top; k++) insert(u, from->top_logit[k], from->top_id[k]);
  for (int b = 0; b < 512; b++) {
    u->bin_z[b] += from->bin_z[b];
    u->bin_fz[b] += from->bin_fz[b];
  }
  if (from->best_key > u->best_key || (from->best_key == u->best_key && from->best_id < u->best_id)) {
    u->best_key = from->best_key;
    u->best_id = from->best_id;
    u->best_logit = from->best_logit;
  }
  u->rows += from->rows;
}

static void exit_plain(const int32_t *logits, const uint32_t *ids, uint32_t first, uint32_t n,
                       const struct foray_sampling *s, struct foray_exit_unit *u) {
  uint32_t own[256];
  for (uint32_t at = 0; at < n; at += 256) {
    const uint32_t m = n - at < 256 ? n - at : 256;
    for (uint32_t i = 0; i < m && !ids; i++) own[i] = first + at + i;
    foray_ref_exit_stream(NULL, logits + first + at, ids ? ids + first + at : own, m, s, u);
  }
}

static uint32_t bounds[FORAY_CPU_NOISE_LAST + 1];

static void make_bounds(void) {
  enum { MARGIN = 16 }; /* the noise is monotone but for its last bit or two */
  for (int i = 0; i <= FORAY_CPU_NOISE_LAST; i++) {
    const int32_t least = FORAY_GUMBEL_Q16_MIN + (i << FORAY_CPU_NOISE_STEP) - MARGIN;
    uint32_t lo = 0, hi = UINT32_MAX;
    while (lo < hi) {
      const uint32_t mid = lo + (hi - lo) / 2;
      if (foray_gumbel_from_word_q16(mid) >= least)
        hi = mid;
      else
        lo = mid + 1;
    }
    bounds[i] = lo;
  }
}

const uint32_t *foray_cpu_noise_bounds(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_bounds);
  return bounds;
}

foray_cpu_exit_fn *foray_cpu_exit_of(enum foray_isa isa) {
#if defined(__x86_64__)
  if (isa >= FORAY_ISA_AVX512) return foray_cpu_exit_avx512;
#endif
  (void)isa;
  return exit_plain;
}
