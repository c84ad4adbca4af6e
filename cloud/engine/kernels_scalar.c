/* engine/kernels_scalar.c - see kernels_impl.h. */
#include "engine/vec_scalar.h"

#define EK_NARROW 1
#define EK_TABLE  ek_ops_scalar
#define EK_ISA    FORAY_ISA_SCALAR
#define EK_WIDTH  8
#include "engine/kernels_impl.h"
