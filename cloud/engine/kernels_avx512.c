/* engine/kernels_avx512.c - see kernels_impl.h. */
#if defined(__x86_64__)
#include "engine/vec_avx512.h"

#define EK_TABLE ek_ops_avx512
#define EK_ISA   FORAY_ISA_AVX512
#define EK_WIDTH 8
#include "engine/kernels_impl.h"
#else
typedef int foray_not_this_processor;
#endif
