/* Micro kernel of the packer's matrix product for any machine. */
#define GEMM_LANES 4
#define GEMM_MR    4
#define GEMM_NV    2
#define GEMM_NAME  foray_pack_gemm_kernel_generic
#include "model/pack_gemm_kernel.h"
