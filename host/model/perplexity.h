/* model/perplexity.h - the arithmetic of `foray perplexity`, shared by every engine: windows as llama.cpp
 * cuts them, and accumulators of negative log-likelihood, KL divergence and top-1 agreement. Pure; the
 * caller runs the model. Zero-initialise a struct foray_score; one thread per score.
 *
 * llama.cpp's rule: the text is tokenised once, cut into windows of n_ctx tokens without overlap; the first
 * token of each window is replaced by BOS when the tokenizer adds BOS; each window is fed from an empty
 * context; logits of positions first .. n_ctx-2 with first = n_ctx/2 are scored against the token that
 * follows. */
#ifndef FORAY_MODEL_PERPLEXITY_H
#define FORAY_MODEL_PERPLEXITY_H

#include <stddef.h>
#include <stdint.h>

struct foray_score {
  uint64_t tokens; /* scored */
  double nll;      /* sum of -ln p(token) */
  double nll2;     /* sum of its squares, for the standard error */
  uint64_t kl_tokens;
  double kl;     /* sum of KL(reference || model) in nats */
  uint64_t top1; /* positions where both have the same argmax (lowest id on ties) */
};

/* Number of whole windows in n_tokens, at most chunks_max (0 = all). n_ctx >= 4. */
static inline size_t foray_ppl_windows(size_t n_tokens, size_t n_ctx, size_t chunks_max) {
  size_t n = n_tokens / n_ctx;
  return chunks_max && n > chunks_max ? chunks_max : n;
}
/* First position of a window whose logits are scored; the last is n_ctx - 2. So n_ctx - 1 - first are scored.
 */
static inline size_t foray_ppl_first(size_t n_ctx) { return n_ctx / 2; }
/* Copies window w of ids to out (n_ctx values), with bos put first when bos >= 0. */
void foray_ppl_window(const int32_t *ids, size_t w, size_t n_ctx, int32_t bos, int32_t *out);

/* Adds one position: logits (n_vocab of them) against the token that followed. */
void foray_score_add(struct foray_score *s, const float *logits, size_t n_vocab, int32_t next);
/* Adds the comparison of one position with a reference. */
void foray_score_add_kl(struct foray_score *s, const float *reference, const float *logits, size_t n_vocab);
/* Adds two partial scores. */
void foray_score_merge(struct foray_score *into, const struct foray_score *from);

double foray_score_ppl(const struct foray_score *s); /* exp(nll / tokens); NaN when nothing was scored */
double foray_score_ppl_stderr(const struct foray_score *s); /* one standard error of the perplexity */
double foray_score_kl(const struct foray_score *s);         /* mean, nats */
double foray_score_top1(const struct foray_score *s);       /* share, 0..1 */
/* ln of the softmax probability of id. */
double foray_log_prob(const float *logits, size_t n_vocab, int32_t id);

#endif
