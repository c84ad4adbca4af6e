/* Micro kernel of the packer's matrix product for avx512. */
#if defined(__x86_64__)
#define GEMM_LANES 16
#define GEMM_MR    8
#define GEMM_NV    2
#define GEMM_NAME  foray_pack_gemm_kernel_avx512
#include "model/pack_gemm_kernel.h"
#endif
