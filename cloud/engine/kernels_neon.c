/* engine/kernels_neon.c - see kernels_impl.h. */
#if defined(__aarch64__)
#include "engine/vec_neon.h"

#define EK_TABLE ek_ops_neon
#define EK_ISA   FORAY_ISA_NEON
#define EK_WIDTH 8
#include "engine/kernels_impl.h"
#endif
