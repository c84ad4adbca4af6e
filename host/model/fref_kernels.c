#include "core/cpu.h"

#define VL           4
#define MR           2
#define NR           2
#define FMA(a, b, c) ((c) + (a) * (b))
#define KERNELS      foray_fref_portable
#include "model/fref_kernels_body.h"

const struct foray_fref_kernels *foray_fref_kernels(void) {
#if defined(__x86_64__)
  switch (foray_cpu_isa()) {
  case FORAY_ISA_AMX:
  case FORAY_ISA_AVX512: return &foray_fref_avx512;
  case FORAY_ISA_AVX2: return &foray_fref_avx2;
  default: break;
  }
#endif
  return &foray_fref_portable;
}
