#include "core/cpu.h"

#include "core/err.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const names[] = {"scalar", "neon", "avx2", "avx512", "amx"};

const char *foray_isa_name(enum foray_isa isa) {
  return (unsigned)isa < sizeof names / sizeof *names ? names[isa] : "unknown";
}

#if defined(__x86_64__)
#include <cpuid.h>

/* Linux gives a process the AMX tile state only on request (arch_prctl ARCH_REQ_XCOMP_PERM, component 18). */
static int amx_permitted(void) {
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  const unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24, amx_int8 = 1u << 25;
  if ((d & (amx_bf16 | amx_tile | amx_int8)) != (amx_bf16 | amx_tile | amx_int8)) return 0;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & (1u << 5))) return 0; /* avx512_bf16 */
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

enum foray_isa foray_cpu_isa_native(void) {
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")))
    return FORAY_ISA_SCALAR;
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi")))
    return FORAY_ISA_AVX2;
  return amx_permitted() ? FORAY_ISA_AMX : FORAY_ISA_AVX512;
}
#elif defined(__aarch64__)
enum foray_isa foray_cpu_isa_native(void) { return FORAY_ISA_NEON; }
#else
enum foray_isa foray_cpu_isa_native(void) { return FORAY_ISA_SCALAR; }
#endif

static int available(enum foray_isa want, enum foray_isa native) {
  if (want == FORAY_ISA_SCALAR) return 1;
  if (want == FORAY_ISA_NEON || native == FORAY_ISA_NEON) return want == native;
  return want <= native;
}

enum foray_status foray_isa_parse(const char *name, enum foray_isa *out, struct foray_err *err) {
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    if (strcmp(name, names[i])) continue;
    if (!available((enum foray_isa)i, foray_cpu_isa_native()))
      return foray_err_set(err, FORAY_E_UNSUPPORTED,
                           "instruction set '%s': this processor only has up to '%s'", name,
                           foray_isa_name(foray_cpu_isa_native()));
    *out = (enum foray_isa)i;
    return FORAY_OK;
  }
  return foray_err_set(err, FORAY_E_ARG,
                       "instruction set '%s' is unknown; use scalar, neon, avx2, avx512 or amx", name);
}

enum foray_isa foray_cpu_isa(void) {
  static _Atomic int cached = -1;
  int c = atomic_load(&cached);
  if (c >= 0) return (enum foray_isa)c;
  enum foray_isa isa = foray_cpu_isa_native();
  const char *env = getenv("FORAY_ISA");
  enum foray_isa forced;
  if (env && *env && foray_isa_parse(env, &forced, NULL) == FORAY_OK) isa = forced;
  atomic_store(&cached, (int)isa);
  return isa;
}

int foray_cpu_count(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? (int)n : 1;
}
