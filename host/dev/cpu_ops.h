/* dev/cpu_ops.h - the op kernels of the `cpu` device: a thread team and the SIMD parts of cpu_gemv.h and
 * cpu_vec.h behind the table of dev/kernels.h. Same bits as foray_ref_kernels for any thread count and
 * instruction set.
 *
 * Thread rule: one caller at a time for each foray_cpu_ops. */
#ifndef FORAY_DEV_CPU_OPS_H
#define FORAY_DEV_CPU_OPS_H

#include "core/cpu.h"
#include "dev/kernels.h"

struct foray_cpu_ops; /* opaque; owned by whoever opened it */

/* threads 0: one per processor. isa must be one that this machine has. */
enum foray_status foray_cpu_ops_open(enum foray_isa isa, int threads, struct foray_cpu_ops **out,
                                     struct foray_err *err) FORAY_NODISCARD;
void foray_cpu_ops_close(struct foray_cpu_ops *o); /* NULL is allowed */
/* The table; its kernels take `o` as arg. Valid until close. */
const struct foray_kernels *foray_cpu_ops_kernels(const struct foray_cpu_ops *o);

#endif
