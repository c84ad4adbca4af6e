/* dev/cpu_exit.h - the exit unit's stream of logits, split over threads and lanes (docs/numerics.md 9). What
 * the unit keeps is order-free, so each thread fills one of its own and they are merged. */
#ifndef FORAY_DEV_CPU_EXIT_H
#define FORAY_DEV_CPU_EXIT_H

#include "core/cpu.h"
#include "dev/kernels.h"

/* Rows first .. first + n - 1 of logits and ids (ids NULL: id = row) into u, as the reference does. */
typedef void foray_cpu_exit_fn(const int32_t *logits, const uint32_t *ids, uint32_t first, uint32_t n,
                               const struct foray_sampling *s, struct foray_exit_unit *u);
foray_cpu_exit_fn *foray_cpu_exit_of(enum foray_isa isa);

/* Adds what `from` has seen to `u`. */
void foray_cpu_exit_merge(struct foray_exit_unit *u, const struct foray_exit_unit *from);

/* The smallest word whose noise reaches at least FORAY_GUMBEL_Q16_MIN + (i << FORAY_CPU_NOISE_STEP), less a
 * margin for the rounding of the noise function: a row whose word is below cannot reach that. */
enum {
  FORAY_CPU_NOISE_STEP = 12, /* 1/16 nat */
  FORAY_CPU_NOISE_LAST = (1499061 + 205127) >> FORAY_CPU_NOISE_STEP,
};
const uint32_t *foray_cpu_noise_bounds(void); /* FORAY_CPU_NOISE_LAST + 1 of them; made at the first call */

#if defined(__x86_64__)
foray_cpu_exit_fn foray_cpu_exit_avx512;
#endif

#endif
