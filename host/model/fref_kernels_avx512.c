#if defined(__x86_64__)
#include <immintrin.h>
#define VL           16
#define MR           4
#define NR           6
#define FMA(a, b, c) ((vec)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define KERNELS      foray_fref_avx512
#include "model/fref_kernels_body.h"
#else
typedef int foray_empty_avx512;
#endif
