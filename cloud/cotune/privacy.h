/* cotune/privacy.h - differentially private steps on adapters (DP-SGD) and what they cost (Renyi accountant).
 *
 * One step: the gradient of each example is scaled to norm <= clip, the sum gets normal noise of deviation
 * noise * clip, and is divided by the expected batch. Noise is Philox of (seed, step, index): reproducible,
 * and as secret as the seed is kept. Pure functions but for the learner. */
#ifndef FORAY_COTUNE_PRIVACY_H
#define FORAY_COTUNE_PRIVACY_H

#include "cotune/learner.h"

/* Renyi divergence of order alpha (an integer >= 2) of one step with sampling rate q and noise multiplier
 * sigma: Poisson subsampling, Mironov, Talwar, Zhang 2019. */
double foray_rdp_step(int alpha, double q, double sigma);
/* Least epsilon over orders 2..512 for `steps` such steps at this delta; *order (may be NULL) is the best
 * one. */
double foray_dp_epsilon(double q, double sigma, uint64_t steps, double delta, int *order);
/* Least noise multiplier that keeps epsilon (bisection to 1e-3). */
double foray_dp_noise(double q, uint64_t steps, double epsilon, double delta);

struct foray_dp {
  double clip, noise;
  uint64_t seed;
  uint64_t step; /* made so far */
};
/* One private update from examples enc[0..n): cross entropy, one backward pass an example. expected: batch
 * size that the sum is divided by. */
enum foray_status foray_dp_step(struct foray_dp *dp, struct foray_learner *l,
                                const struct foray_enc *const *enc, int n, int expected, double *loss,
                                struct foray_err *err) FORAY_NODISCARD;
/* Which of n examples a step sees: each with probability q, independently. Returns how many (< cap). */
int foray_dp_sample(const struct foray_dp *dp, int n, double q, int *out, int cap);
/* Scales v to norm <= clip; returns the norm before. */
double foray_clip(float *v, size_t n, double clip);

#endif
