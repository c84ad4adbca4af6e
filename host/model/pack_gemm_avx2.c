/* Micro kernel of the packer's matrix product for avx2. */
#if defined(__x86_64__)
#define GEMM_LANES 8
#define GEMM_MR    6
#define GEMM_NV    2
#define GEMM_NAME  foray_pack_gemm_kernel_avx2
#include "model/pack_gemm_kernel.h"
#endif
