/* model/pack_block.h - float forward of one transformer block at a time, for calibration. Internal to the
 * packer. Weights are as the image has them (rows of q and k in half-split order).
 *
 * Thread rule: one caller; work is spread over the pool, results do not depend on its size. */
#ifndef FORAY_MODEL_PACK_BLOCK_H
#define FORAY_MODEL_PACK_BLOCK_H

#include "model/pack_gemm.h"
#include "model/pack_job.h"

enum { PB_Q, PB_K, PB_V, PB_O, PB_GATE, PB_UP, PB_DOWN, PB_MATRICES };

struct foray_pack_weights {
  float *w[PB_MATRICES]; /* rows x cols */
  float *norm[2];        /* attention, feed-forward: n_embd */
  float *bias[3];        /* q, k, v, or NULL */
};

struct foray_pack_block {
  const struct foray_image_config *c;
  struct foray_pool *pool;
  struct foray_pack_gemm *g;
  size_t cap;                  /* tokens */
  float *norm, *q, *k, *v, *o; /* scratch of cap tokens */
  float *gate, *up;
  float *rope; /* positions x head_dim: cos, sin */
  float *prob; /* threads x seq_max */
  size_t seq_max;
  /* Called before the matrices that read x are used: first is PB_Q, PB_O, PB_GATE or PB_DOWN. False stops. */
  bool (*before)(void *user, int first, const float *x, size_t n, size_t width);
  void *user;
};

/* cap tokens in sequences of at most seq_max. */
enum foray_status foray_pack_block_open(const struct foray_image_config *c, struct foray_pool *pool,
                                        struct foray_pack_gemm *g, size_t cap, size_t seq_max,
                                        struct foray_pack_block *b, struct foray_err *err) FORAY_NODISCARD;
void foray_pack_block_deinit(struct foray_pack_block *b);
/* x: n_seq * seq tokens x n_embd, in place. False when `before` stopped it. */
bool foray_pack_block_run(struct foray_pack_block *b, const struct foray_pack_weights *w, float *x,
                          size_t n_seq, size_t seq);

/* dst = rmsnorm(x) * weight, n tokens of width d. */
void foray_pack_rmsnorm(const struct foray_image_config *c, const float *x, const float *weight, float *dst,
                        size_t n, size_t d);
/* e^x by float arithmetic alone (relative error < 3e-7): the same bits on every machine. x <= 88. */
float foray_pack_exp(float x);

#endif
