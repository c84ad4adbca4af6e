/* core/cpu.h - which kernels this processor can run. Every level gives the same bits; a lower level can
 * be forced for tests and comparisons (FORAY_ISA=scalar|avx2|avx512|amx in the environment, --isa in tools).
 */
#ifndef FORAY_CORE_CPU_H
#define FORAY_CORE_CPU_H

#include <foray/status.h>

enum foray_isa {
  FORAY_ISA_SCALAR = 0,
  FORAY_ISA_NEON = 1,   /* aarch64 */
  FORAY_ISA_AVX2 = 2,   /* AVX2, FMA, F16C, BMI2 */
  FORAY_ISA_AVX512 = 3, /* + AVX-512 F/BW/DQ/VL/VNNI/VBMI */
  FORAY_ISA_AMX = 4,    /* + AMX tile, int8, bf16, with the kernel's permission */
};

/* The best level of this machine, or the lower one that FORAY_ISA names. Cached; thread-safe. */
enum foray_isa foray_cpu_isa(void);
/* The best level that the machine itself has, whatever the environment says. */
enum foray_isa foray_cpu_isa_native(void);
const char *foray_isa_name(enum foray_isa isa);
/* Parses a name; FORAY_E_ARG for an unknown one, FORAY_E_UNSUPPORTED for one this machine lacks. */
enum foray_status foray_isa_parse(const char *name, enum foray_isa *out,
                                  struct foray_err *err) FORAY_NODISCARD;
/* Logical processors that this process may run on (>= 1). */
int foray_cpu_count(void);

#endif
