/* dev/cpu_vec.h - what the `cpu` device does besides inner products: rounding of product rows, vector
 * operations, attention, the exit stream. One table an instruction set; every entry gives the bits of the
 * plain kernels (dev/ref.h). Pure functions; nothing is owned. */
#ifndef FORAY_DEV_CPU_VEC_H
#define FORAY_DEV_CPU_VEC_H

#include "core/cpu.h"
#include "dev/kernels.h"

/* One query head of one column. */
struct foray_cpu_attn {
  uint32_t head_dim, record; /* a multiple of 32; bytes from one position's record to the next */
  uint32_t n;                /* positions 0 .. n - 1 */
  const uint8_t *records;    /* of the kv head, position 0 */
  const int16_t *q;          /* A16: head_dim mantissas, shifts of its groups, exponent */
  const uint8_t *shift;
  int32_t q_exp, scale, scale_exp;
  int64_t *out; /* head_dim values ... */
  int32_t *exp; /* ... with an exponent per group of 32 */
};

struct foray_cpu_vec {
  /* y[i] = R(acc[i], t) * mant[i], in place; returns the OR of all |y[i]|. n is a multiple of 16, t >= 1. */
  uint64_t (*finish)(int64_t *acc, const uint16_t *mant, uint32_t n, int t);
  /* m[i] = R(v[i], s); s >= bits of the largest |v| - 30. n is a multiple of 16. */
  void (*narrow)(const int64_t *v, uint32_t n, int s, int32_t *m);
  /* logit[i] = saturate32(R(R(acc[i], t) * mant[i], s)). Any n; acc and mant have places up to the next
   * multiple of 16. */
  void (*logits)(const int64_t *acc, const uint16_t *mant, uint32_t n, int t, int s, int32_t *logit);
  void (*rmsnorm)(void *arg, const struct foray_desc_rmsnorm *d, const int32_t *gamma, struct foray_y32 src,
                  struct foray_a16 dst);
  void (*silu_mul)(void *arg, uint32_t n, struct foray_y32 gate, struct foray_y32 up, struct foray_a16 dst);
  void (*quant)(void *arg, uint32_t n, struct foray_y32 src, struct foray_a16 dst);
  void (*add)(void *arg, uint32_t n, struct foray_y32 acc, struct foray_y32 src);
  /* int64 values with an exponent per group of 32 to A16, as foray_ref_to_a16 with exp_step 1. */
  void (*to_a16)(const int64_t *v, uint32_t n, const int32_t *exp, struct foray_a16 dst);
  /* NULL: the device takes the plain attention. */
  void (*attn_head)(const struct foray_cpu_attn *a);
};

const struct foray_cpu_vec *foray_cpu_vec_of(enum foray_isa isa);

extern const struct foray_cpu_vec foray_cpu_vec_plain;
#if defined(__x86_64__)
extern const struct foray_cpu_vec foray_cpu_vec_avx512;
void foray_cpu_attn_head_avx512(const struct foray_cpu_attn *a);
#endif

#endif
