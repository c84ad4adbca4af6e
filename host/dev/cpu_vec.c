#include "dev/cpu_vec.h"

#include "core/imath.h"
#include "dev/ref.h"

static uint64_t finish_plain(int64_t *acc, const uint16_t *mant, uint32_t n, int t) {
  uint64_t any = 0;
  for (uint32_t i = 0; i < n; i++) {
    int64_t y = foray_rshift_round(acc[i], t) * mant[i];
    acc[i] = y;
    any |= (uint64_t)(y < 0 ? -y : y);
  }
  return any;
}

static void narrow_plain(const int64_t *v, uint32_t n, int s, int32_t *m) {
  for (uint32_t i = 0; i < n; i++) m[i] = (int32_t)foray_rshift_round(v[i], s);
}

static void logits_plain(const int64_t *acc, const uint16_t *mant, uint32_t n, int t, int s, int32_t *logit) {
  for (uint32_t i = 0; i < n; i++)
    logit[i] = foray_sat32(foray_rshift_round(foray_rshift_round(acc[i], t) * mant[i], s));
}

const struct foray_cpu_vec foray_cpu_vec_plain = {
    .finish = finish_plain,
    .narrow = narrow_plain,
    .logits = logits_plain,
    .rmsnorm = foray_ref_rmsnorm,
    .silu_mul = foray_ref_silu_mul,
    .quant = foray_ref_quant,
    .add = foray_ref_add,
};

const struct foray_cpu_vec *foray_cpu_vec_of(enum foray_isa isa) {
#if defined(__x86_64__)
  if (isa >= FORAY_ISA_AVX512) return &foray_cpu_vec_avx512;
#endif
  (void)isa;
  return &foray_cpu_vec_plain;
}
