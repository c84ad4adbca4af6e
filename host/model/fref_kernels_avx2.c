#if defined(__x86_64__)
#include <immintrin.h>
#define VL           8
#define MR           3
#define NR           4
#define FMA(a, b, c) ((vec)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define KERNELS      foray_fref_avx2
#include "model/fref_kernels_body.h"
#else
typedef int foray_empty_avx2;
#endif
