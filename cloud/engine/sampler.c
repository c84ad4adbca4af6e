#include "engine/sampler.h"

#include "core/err.h"
#include "core/noise.h"
#include "core/philox.h"
#include "engine/fmath.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 24 }; /* whole nats of noise that word_min knows; the noise ends at 22.87 */

struct foray_sampler_scratch {
  float *work;
  int32_t *ids, *counts;
};

struct foray_sampler {
  struct foray_sampler_params p;
  struct foray_logit_bias *bias;
  int32_t *eog, n_eog;
  int32_t n_vocab;
  float *work;                       /* [n_vocab] logits after steps 1 and 2 */
  int32_t *ids;                      /* [n_vocab] survivors, larger logit first, then lower id */
  int32_t *counts;                   /* [n_vocab] zero between calls */
  struct foray_sampler_scratch *own; /* these three, unless they are borrowed */
  uint32_t word_min[LEVELS];         /* random words below word_min[k] give less than k nats of noise */
};

struct foray_sampler_params foray_sampler_params_default(void) {
  return (struct foray_sampler_params){.temperature = 0.8f,
                                       .top_k = 40,
                                       .top_p = 0.95f,
                                       .min_p = 0.05f,
                                       .repeat_last_n = 64,
                                       .repeat_penalty = 1.0f};
}

struct foray_sampler_params foray_sampler_params_greedy(void) {
  return (struct foray_sampler_params){.top_p = 1.0f, .repeat_last_n = 64, .repeat_penalty = 1.0f};
}

enum foray_status foray_sampler_params_check(const struct foray_sampler_params *p, int32_t n_vocab,
                                             struct foray_err *err) {
  const struct {
    const char *name;
    float v, lo, hi;
  } ranges[] = {
      {"temperature", p->temperature, -1e6f, 1e6f},
      {"top-p", p->top_p, 0.0f, 1e6f},
      {"min-p", p->min_p, -1e6f, 1e6f},
      {"repeat penalty", p->repeat_penalty, 1e-6f, 1e6f},
      {"presence penalty", p->presence_penalty, -1e6f, 1e6f},
      {"frequency penalty", p->frequency_penalty, -1e6f, 1e6f},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
    if (!(ranges[i].v >= ranges[i].lo && ranges[i].v <= ranges[i].hi))
      return foray_err_set(err, FORAY_E_ARG, "%s %g is outside %g..%g", ranges[i].name, (double)ranges[i].v,
                           (double)ranges[i].lo, (double)ranges[i].hi);
  if (p->top_k < 0) return foray_err_set(err, FORAY_E_ARG, "top-k %d is negative", (int)p->top_k);
  if (p->repeat_last_n < -1)
    return foray_err_set(err, FORAY_E_ARG, "repeat-last-n %d is below -1", (int)p->repeat_last_n);
  if (p->n_bias < 0 || (p->n_bias && !p->bias))
    return foray_err_set(err, FORAY_E_ARG, "%d logit biases", (int)p->n_bias);
  for (int32_t i = 0; i < p->n_bias; i++) {
    const struct foray_logit_bias *b = &p->bias[i];
    if (b->id < 0 || b->id >= n_vocab)
      return foray_err_set(err, FORAY_E_ARG, "logit bias for id %d: the vocabulary has %d", (int)b->id,
                           (int)n_vocab);
    if (isnan(b->bias) || b->bias > 1e6f)
      return foray_err_set(err, FORAY_E_ARG, "logit bias %g for id %d", (double)b->bias, (int)b->id);
  }
  return FORAY_OK;
}

/* The least word that gives about `level` nats. The noise rises with the word, but for an error of less than
 * one unit of Q16.16, which the four units cover. */
static uint32_t least_word(int level) {
  const int32_t want = level * 65536 - 4;
  uint32_t lo = 0, hi = UINT32_MAX;
  if (foray_gumbel_from_word_q16(hi) < want) return hi;
  while (lo < hi) {
    const uint32_t mid = lo + (hi - lo) / 2;
    if (foray_gumbel_from_word_q16(mid) >= want)
      hi = mid;
    else
      lo = mid + 1;
  }
  return lo;
}

struct foray_sampler_scratch *foray_sampler_scratch_open(int32_t n_vocab) {
  struct foray_sampler_scratch *x = calloc(1, sizeof *x);
  const size_t n = (size_t)n_vocab;
  if (!x) return NULL;
  x->work = malloc(n * sizeof *x->work);
  x->ids = malloc(n * sizeof *x->ids);
  x->counts = calloc(n, sizeof *x->counts);
  if (x->work && x->ids && x->counts) return x;
  foray_sampler_scratch_close(x);
  return NULL;
}
void foray_sampler_scratch_close(struct foray_sampler_scratch *x) {
  if (!x) return;
  free(x->work);
  free(x->ids);
  free(x->counts);
  free(x);
}

enum foray_status foray_sampler_open(const struct foray_sampler_params *p, int32_t n_vocab,
                                     const int32_t *eog, int32_t n_eog, struct foray_sampler **out,
                                     struct foray_err *err) {
  *out = NULL;
  struct foray_sampler_scratch *x = n_vocab > 0 ? foray_sampler_scratch_open(n_vocab) : NULL;
  if (n_vocab > 0 && !x)
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a sampler over %d ids", (int)n_vocab);
  enum foray_status st = foray_sampler_open_on(x, p, n_vocab, eog, n_eog, out, err);
  if (st == FORAY_OK)
    (*out)->own = x;
  else
    foray_sampler_scratch_close(x);
  return st;
}

enum foray_status foray_sampler_open_on(struct foray_sampler_scratch *x, const struct foray_sampler_params *p,
                                        int32_t n_vocab, const int32_t *eog, int32_t n_eog,
                                        struct foray_sampler **out, struct foray_err *err) {
  *out = NULL;
  if (n_vocab < 1 || n_eog < 0 || (n_eog && !eog))
    return foray_err_set(err, FORAY_E_ARG, "a sampler over %d ids with %d end ids", (int)n_vocab, (int)n_eog);
  enum foray_status st = foray_sampler_params_check(p, n_vocab, err);
  if (st != FORAY_OK) return st;
  struct foray_sampler *s = calloc(1, sizeof *s);
  if (!s) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a sampler");
  s->p = *p;
  s->n_vocab = n_vocab;
  s->work = x->work;
  s->ids = x->ids;
  s->counts = x->counts;
  s->bias = malloc(((size_t)p->n_bias + 1) * sizeof *s->bias);
  s->eog = malloc(((size_t)n_eog + 1) * sizeof *s->eog);
  if (!s->bias || !s->eog) {
    foray_sampler_close(s);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a sampler over %d ids", (int)n_vocab);
  }
  if (p->n_bias) memcpy(s->bias, p->bias, (size_t)p->n_bias * sizeof *s->bias);
  s->p.bias = s->bias;
  for (int32_t i = 0; i < n_eog; i++)
    if (eog[i] >= 0 && eog[i] < n_vocab) s->eog[s->n_eog++] = eog[i];
  for (int k = 0; k < LEVELS; k++) s->word_min[k] = least_word(k);
  *out = s;
  return FORAY_OK;
}

void foray_sampler_close(struct foray_sampler *s) {
  if (!s) return;
  foray_sampler_scratch_close(s->own);
  free(s->bias);
  free(s->eog);
  free(s);
}

/* ---- steps 1 and 2 ---- */

static void penalise(struct foray_sampler *s, const int32_t *history, int32_t n) {
  const struct foray_sampler_params *p = &s->p;
  const int32_t last = p->repeat_last_n < 0 || p->repeat_last_n > n ? n : p->repeat_last_n;
  const int32_t *h = history + (n - last);
  for (int32_t i = 0; i < last; i++)
    if (h[i] >= 0 && h[i] < s->n_vocab) s->counts[h[i]]++;
  for (int32_t i = 0; i < last; i++) {
    if (h[i] < 0 || h[i] >= s->n_vocab || !s->counts[h[i]]) continue;
    float *l = &s->work[h[i]];
    *l = *l <= 0.0f ? *l * p->repeat_penalty : *l / p->repeat_penalty;
    *l = *l - ((float)s->counts[h[i]] * p->frequency_penalty + p->presence_penalty);
    s->counts[h[i]] = 0;
  }
}

/* The logits that the later steps see: the caller's own, unless something changes them. */
static const float *adjusted(struct foray_sampler *s, const float *logits, const int32_t *history,
                             int32_t n) {
  const struct foray_sampler_params *p = &s->p;
  const bool pen = p->repeat_last_n != 0 && n > 0 &&
                   (p->repeat_penalty != 1.0f || p->presence_penalty != 0.0f || p->frequency_penalty != 0.0f);
  const bool eos = p->ignore_eos && s->n_eog;
  if (!pen && !eos && !p->n_bias) return logits;
  memcpy(s->work, logits, (size_t)s->n_vocab * sizeof *s->work);
  for (int32_t i = 0; i < p->n_bias; i++) s->work[s->bias[i].id] = s->work[s->bias[i].id] + s->bias[i].bias;
  if (eos)
    for (int32_t i = 0; i < s->n_eog; i++) s->work[s->eog[i]] = -INFINITY;
  if (pen) penalise(s, history, n);
  return s->work;
}

/* ---- order, selection ---- */

static inline float value(const float *l, int32_t id) { return isnan(l[id]) ? -INFINITY : l[id]; }

/* a comes after b in the order "larger logit first, then lower id". */
static inline bool after(const float *l, int32_t a, int32_t b) {
  const float x = value(l, a), y = value(l, b);
  return x < y || (x == y && a > b);
}

static int32_t argmax(const float *l, int32_t n) {
  int32_t best = 0;
  float m = value(l, 0);
  for (int32_t i = 1; i < n; i++)
    if (l[i] > m) {
      m = l[i];
      best = i;
    }
  return best;
}

/* Heap with the id that comes last on top. */
static void sift_down(const float *l, int32_t *h, int32_t n, int32_t i) {
  for (;;) {
    int32_t c = 2 * i + 1;
    if (c >= n) return;
    if (c + 1 < n && after(l, h[c + 1], h[c])) c++;
    if (!after(l, h[c], h[i])) return;
    const int32_t t = h[c];
    h[c] = h[i];
    h[i] = t;
    i = c;
  }
}

/* out[0..k) = the first k ids of the order, sorted. */
static void first_k(const float *l, int32_t n, int32_t k, int32_t *out) {
  for (int32_t i = 0; i < k; i++) out[i] = i;
  for (int32_t i = k / 2 - 1; i >= 0; i--) sift_down(l, out, k, i);
  float least = value(l, out[0]);
  for (int32_t i = k; i < n; i++) {
    if (!(l[i] > least)) continue; /* an equal one has a higher id than what is kept */
    out[0] = i;
    sift_down(l, out, k, 0);
    least = value(l, out[0]);
  }
  for (int32_t m = k - 1; m > 0; m--) {
    const int32_t t = out[0];
    out[0] = out[m];
    out[m] = t;
    sift_down(l, out, m, 0);
  }
}

/* Steps 3 to 5: fills s->ids and returns how many survive. 0 means all of them, and ids is not filled. */
static int32_t survivors(struct foray_sampler *s, const float *l) {
  const struct foray_sampler_params *p = &s->p;
  const int32_t n = s->n_vocab;
  const bool top_p = p->top_p<1.0f, min_p = p->min_p> 0.0f;
  int32_t kept = 0; /* sorted ids at hand; all survivors are among the first `limit` of the order */
  int32_t limit = p->top_k > 0 && p->top_k < n ? p->top_k : n;
  if (limit == n && !top_p && !min_p) return 0;
  if (limit < n) first_k(l, n, kept = limit, s->ids);
  const double max = (double)value(l, kept ? s->ids[0] : argmax(l, n));
  if (!isfinite(max)) {
    s->ids[0] = kept ? s->ids[0] : argmax(l, n);
    return 1;
  }
  if (top_p) {
    double total = 0.0;
    if (kept)
      for (int32_t i = 0; i < kept; i++) total += fm_exp((double)value(l, s->ids[i]) - max);
    else
      for (int32_t i = 0; i < n; i++) total += fm_exp((double)value(l, i) - max);
    const double want = (double)p->top_p * total;
    double sum = 0.0;
    int32_t i = 0;
    for (;;) {
      if (i == kept) { /* more of the order is needed than was sorted */
        if (kept == limit) break;
        kept = kept == 0 ? 256 : kept < limit / 8 ? kept * 8 : limit;
        if (kept > limit) kept = limit;
        first_k(l, n, kept, s->ids);
      }
      sum += fm_exp((double)value(l, s->ids[i++]) - max);
      if (sum >= want) break;
    }
    limit = kept = i;
  }
  if (min_p) {
    const double least = p->min_p < 1.0f ? max + fm_log((double)p->min_p) : max;
    if (!kept) {
      for (int32_t i = 0; i < n; i++) kept += (double)value(l, i) >= least;
      first_k(l, n, kept, s->ids);
    }
    while (kept > 1 && (double)value(l, s->ids[kept - 1]) < least) kept--;
  }
  return kept ? kept : 1;
}

/* ---- step 6 ---- */

/* round(logit / T * 65536), kept far from overflow. */
static inline int64_t fixed(float logit, double t) {
  const double x = (double)logit / t * 65536.0;
  if (!(x > -0x1p60)) return -((int64_t)1 << 60);
  if (x >= 0x1p60) return (int64_t)1 << 60;
  return (int64_t)rint(x);
}

/* All ids compete. An id can only win when its noise makes up for its distance to the best so far, and most
 * random words are too small for that: they are not turned into noise at all. */
static int32_t pick_all(const struct foray_sampler *s, const float *l, uint32_t pos) {
  const double t = (double)s->p.temperature;
  int32_t best_id = argmax(l, s->n_vocab);
  if (value(l, best_id) == -INFINITY) return best_id;
  int64_t best = fixed(l[best_id], t) + foray_gumbel_q16(s->p.seed, pos, (uint32_t)best_id);
  for (int32_t base = 0; base < s->n_vocab; base += 4) {
    const int32_t end = base + 4 < s->n_vocab ? base + 4 : s->n_vocab;
    /* One float comparison an id, on the safe side by a unit of Q16.16 and the float's own rounding. */
    const double floor_logit = ((double)(best - FORAY_GUMBEL_Q16_MAX) - 2.0) * t / 65536.0;
    bool any = false;
    for (int32_t i = base; i < end; i++) any |= (double)l[i] >= floor_logit - fabs(floor_logit) * 0x1p-40;
    if (!any) continue;
    const struct foray_philox r = foray_philox4x32(s->p.seed, (uint32_t)base >> 2, pos, 0x464F5241u, 0);
    for (int32_t i = base; i < end; i++) {
      if (isnan(l[i]) || l[i] == -INFINITY) continue;
      const int64_t f = fixed(l[i], t), need = best - f;
      if (need > FORAY_GUMBEL_Q16_MAX) continue;
      const uint32_t w = r.v[i & 3];
      if (need > 0 && w < s->word_min[need >> 16]) continue;
      const int64_t score = f + foray_gumbel_from_word_q16(w);
      if (score > best || (score == best && i < best_id)) {
        best = score;
        best_id = i;
      }
    }
  }
  return best_id;
}

static int32_t pick_few(const struct foray_sampler *s, const float *l, int32_t n, uint32_t pos) {
  const double t = (double)s->p.temperature;
  int32_t best_id = s->ids[0];
  int64_t best = INT64_MIN;
  for (int32_t k = 0; k < n; k++) {
    const int32_t id = s->ids[k];
    if (value(l, id) == -INFINITY) continue;
    const int64_t score = fixed(l[id], t) + foray_gumbel_q16(s->p.seed, pos, (uint32_t)id);
    if (score > best || (score == best && id < best_id)) {
      best = score;
      best_id = id;
    }
  }
  return best_id;
}

/* ln of the sum over the survivors (n of s->ids, or all when n is 0) of exp(fixed / 65536), relative to *top.
 */
static double log_mass(const struct foray_sampler *s, const float *l, int32_t n, int64_t *top) {
  const double t = (double)s->p.temperature;
  *top = fixed(value(l, n ? s->ids[0] : argmax(l, s->n_vocab)), t);
  double sum = 0.0;
  for (int32_t k = 0; k < (n ? n : s->n_vocab); k++) {
    const float v = value(l, n ? s->ids[k] : k);
    if (v != -INFINITY) sum += fm_exp((double)(fixed(v, t) - *top) / 65536.0);
  }
  return sum > 0.0 ? fm_log(sum) : 0.0;
}

int32_t foray_sampler_pick(struct foray_sampler *s, const float *logits, const int32_t *history,
                           int32_t n_history, struct foray_sampler_choice *more) {
  const float *l = adjusted(s, logits, history, n_history);
  int32_t id, n = 1;
  if (s->p.temperature <= 0.0f) {
    id = argmax(l, s->n_vocab);
  } else {
    n = survivors(s, l);
    id = n ? pick_few(s, l, n, (uint32_t)n_history) : pick_all(s, l, (uint32_t)n_history);
  }
  if (more) {
    more->logprob = (double)logits[id] - fm_logsumexp(logits, s->n_vocab, NULL);
    more->survivors = n ? n : s->n_vocab;
    more->logprob_sampling = 0.0;
    if (s->p.temperature > 0.0f) {
      int64_t top;
      const double mass = log_mass(s, l, n, &top);
      more->logprob_sampling = (double)(fixed(l[id], (double)s->p.temperature) - top) / 65536.0 - mass;
    }
  }
  return id;
}

void foray_sampler_probs(struct foray_sampler *s, const float *logits, const int32_t *history,
                         int32_t n_history, double *prob) {
  const float *l = adjusted(s, logits, history, n_history);
  for (int32_t i = 0; i < s->n_vocab; i++) prob[i] = 0.0;
  if (s->p.temperature <= 0.0f) {
    prob[argmax(l, s->n_vocab)] = 1.0;
    return;
  }
  const int32_t n = survivors(s, l);
  const double t = (double)s->p.temperature;
  const int32_t count = n ? n : s->n_vocab;
  int64_t top = fixed(value(l, n ? s->ids[0] : argmax(l, s->n_vocab)), t);
  double sum = 0.0;
  for (int32_t k = 0; k < count; k++) {
    const int32_t id = n ? s->ids[k] : k;
    const float v = value(l, id);
    prob[id] = v == -INFINITY ? 0.0 : fm_exp((double)(fixed(v, t) - top) / 65536.0);
    sum += prob[id];
  }
  if (!(sum > 0.0)) {
    prob[n ? s->ids[0] : argmax(l, s->n_vocab)] = 1.0;
    return;
  }
  for (int32_t k = 0; k < count; k++) prob[n ? s->ids[k] : k] /= sum;
}
