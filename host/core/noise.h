/* core/noise.h - the sampling noise that edge and cloud share (docs/numerics.md 9).
 *
 * Both ends choose argmax_i( round(logit_i / T * 65536) + gumbel(seed, position, i) ), 64-bit arithmetic,
 * ties to the lowest id. Position = number of tokens before the one being chosen, the prompt included.
 * Integer only, so both ends have the same bits. Thread-safe, no state. */
#ifndef FORAY_CORE_NOISE_H
#define FORAY_CORE_NOISE_H

#include <stddef.h>
#include <stdint.h>

/* Bounds of the noise, Q16.16: 22.87 and -3.13. A candidate more than MAX - MIN below the best logit (after
 * division by T) can never win, so a sampler may skip it. Both bounds are reached. */
enum { FORAY_GUMBEL_Q16_MAX = 1499061, FORAY_GUMBEL_Q16_MIN = -205127 };

/* -ln(-ln(u)) in Q16.16, u = (2 w + 1) / 2^33, w = word (token mod 4) of Philox4x32-10 with key = seed and
 * counter = (token div 4, position, 0x464F5241, 0). |error| against the exact function of u < 0.6 * 2^-16. */
int32_t foray_gumbel_q16(uint64_t seed, uint32_t position, uint32_t token);
/* The same for tokens first .. first + n - 1; out has n places. About four times as fast. */
void foray_gumbel_fill_q16(uint64_t seed, uint32_t position, uint32_t first, size_t n, int32_t *out);
/* The transform alone: a uniform 32-bit word to noise. */
int32_t foray_gumbel_from_word_q16(uint32_t w);

#endif
