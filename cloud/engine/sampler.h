/* engine/sampler.h - the target's sampler: a pure function (logits, history, parameters, position) -> token
 * id. Plain decoding, verification and every server call this same function, so a token is decided by the
 * prefix, the parameters and the seed alone.
 *
 *   struct foray_sampler_params p = foray_sampler_params_default();
 *   p.temperature = 0.8f; p.top_p = 0.95f; p.seed = 7;
 *   struct foray_sampler *sm;
 *   if (foray_sampler_open(&p, n_vocab, eog_ids, n_eog, &sm, &err) != FORAY_OK) die(err.msg);
 *   int32_t id = foray_sampler_pick(sm, logits, history, n_history, NULL); // position = n_history
 *   foray_sampler_close(sm);
 *
 * Steps, in this order (llama.cpp's names and defaults):
 *   1. logit_bias is added; ignore_eos gives every end-of-generation id the bias -infinity.
 *   2. penalties over the last repeat_last_n tokens of the history (-1: all; 0: off): for an id that occurs c
 * > 0 times, logit <= 0 ? logit * repeat_penalty : logit / repeat_penalty, then logit -= c * frequency +
 * presence.
 *   3. top_k: the k largest logits survive (0 or >= n_vocab: all).
 *   4. top_p: with the ids in descending order of probability (softmax at temperature 1 over the survivors),
 * the shortest prefix whose sum is >= top_p survives (>= 1: all).
 *   5. min_p: ids whose probability is below min_p times the largest one's are dropped, that is
 *      whose logit lies more than -ln(min_p) below the largest (0: none).
 *   6. temperature <= 0: the survivor with the largest logit. Otherwise the survivor that maximises
 *      round(logit / T * 65536) + gumbel_q16(seed, position, id)    (core/noise.h)
 *      which is a draw from softmax(logit / T) over the survivors.
 * Order of ids is total: larger logit first, then lower id; ties of step 6 go to the lowest id. At least one
 * id survives each step. A NaN logit counts as -infinity. All float work is in a fixed order with this
 * library's own exp, so the choice is the same on every machine and instruction set. */
#ifndef FORAY_ENGINE_SAMPLER_H
#define FORAY_ENGINE_SAMPLER_H

#include <foray/status.h>
#include <stdbool.h>
#include <stdint.h>

struct foray_logit_bias {
  int32_t id;
  float bias; /* may be -INFINITY (never) */
};

struct foray_sampler_params {
  float temperature;                   /* 0.8; <= 0: greedy */
  int32_t top_k;                       /* 40; 0: off */
  float top_p;                         /* 0.95; >= 1: off */
  float min_p;                         /* 0.05; <= 0: off */
  int32_t repeat_last_n;               /* 64; 0: off; -1: the whole history */
  float repeat_penalty;                /* 1.0: off; must be > 0 */
  float presence_penalty;              /* 0.0: off */
  float frequency_penalty;             /* 0.0: off */
  uint64_t seed;                       /* 0 */
  bool ignore_eos;                     /* false */
  int32_t n_bias;                      /* 0 */
  const struct foray_logit_bias *bias; /* [n_bias], copied by foray_sampler_open; NULL when n_bias is 0 */
};
struct foray_sampler_params foray_sampler_params_default(void);
/* Greedy, no filters: what `--temp 0` means. */
struct foray_sampler_params foray_sampler_params_greedy(void);

/* Says what is wrong with p (NaN, repeat_penalty <= 0, |penalty| > 2^20, a bias id outside the vocabulary,
 * ...). */
enum foray_status foray_sampler_params_check(const struct foray_sampler_params *p, int32_t n_vocab,
                                             struct foray_err *err) FORAY_NODISCARD;

/* Opaque; parameters plus scratch memory, no state that a choice depends on. Thread rule: one thread at a
 * time. */
struct foray_sampler;

/* eog[0..n_eog): the model's end-of-generation ids (copied), used by ignore_eos. Checks p. */
enum foray_status foray_sampler_open(const struct foray_sampler_params *p, int32_t n_vocab,
                                     const int32_t *eog, int32_t n_eog, struct foray_sampler **out,
                                     struct foray_err *err) FORAY_NODISCARD;
void foray_sampler_close(struct foray_sampler *s); /* NULL is allowed */

/* Three words an id that samplers of one thread can share, so that ten thousand idle ones cost little. It
 * must outlive them. NULL: no memory. */
struct foray_sampler_scratch *foray_sampler_scratch_open(int32_t n_vocab);
void foray_sampler_scratch_close(struct foray_sampler_scratch *x); /* NULL is allowed */
/* As foray_sampler_open, on a borrowed scratch of the same n_vocab. */
enum foray_status foray_sampler_open_on(struct foray_sampler_scratch *x, const struct foray_sampler_params *p,
                                        int32_t n_vocab, const int32_t *eog, int32_t n_eog,
                                        struct foray_sampler **out, struct foray_err *err) FORAY_NODISCARD;

/* What else is known about a choice; filled only when asked for. */
struct foray_sampler_choice {
  double logprob; /* natural log, plain softmax of the given logits (no penalties, filters or temperature) */
  double logprob_sampling; /* natural log in the distribution that was sampled from (0 when greedy) */
  int32_t survivors;       /* ids left after step 5; 1 when greedy */
};

/* The token that follows history[0..n_history) (prompt included; position = n_history). logits: [n_vocab],
 * read only. more may be NULL. Cannot fail; always returns an id in [0, n_vocab). */
int32_t foray_sampler_pick(struct foray_sampler *s, const float *logits, const int32_t *history,
                           int32_t n_history, struct foray_sampler_choice *more);

/* The distribution that step 6 samples from: prob[0..n_vocab) sums to 1 (within 1e-12); for p/q rejection and
 * tests. Greedy: one 1. */
void foray_sampler_probs(struct foray_sampler *s, const float *logits, const int32_t *history,
                         int32_t n_history, double *prob);

#endif
