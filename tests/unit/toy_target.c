#include "unit/toy_target.h"

#include "core/err.h"
#include "core/noise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct toy_seq {
  uint64_t *hash; /* of the prefix ending at each token */
  uint32_t n, cap;
};

static uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
static uint64_t step(uint64_t h, uint32_t token) { return mix(h + 0x9e3779b97f4a7c15u * (token + 1)); }

static void logits_of(const struct toy *t, uint64_t h, float *out) {
  for (uint32_t v = 0; v < TOY_VOCAB; v++) {
    uint64_t r = mix(h + v * 0xd1342543de82ef95u);
    out[v] = (float)(r & 0xffff) / 16384.0f; /* 0..4 */
    if (v == TOY_EOG) out[v] = ((r >> 16) & 0xff) < t->eog_in_256 ? 5.0f : -20.0f;
  }
}

static enum foray_status seq_open(void *self, void **seq, struct foray_err *err) {
  struct toy *t = self;
  *seq = calloc(1, sizeof(struct toy_seq));
  t->open_seqs++;
  return *seq ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "toy");
}
static void seq_close(void *self, void *seq) {
  struct toy *t = self;
  struct toy_seq *s = seq;
  t->open_seqs--;
  t->cached -= s->n;
  free(s->hash);
  free(s);
}
static enum foray_status seq_share(void *self, void *dst, void *src, uint32_t *len) {
  struct toy *t = self;
  struct toy_seq *d = dst, *s = src;
  uint32_t n = (*len < s->n ? *len : s->n) / TOY_PAGE * TOY_PAGE;
  *len = 0;
  free(d->hash);
  d->hash = malloc((n ? n : 1) * sizeof *d->hash);
  if (!d->hash) return FORAY_E_NOMEM;
  if (n) memcpy(d->hash, s->hash, n * sizeof *d->hash);
  d->n = d->cap = *len = n;
  t->cached += n; /* the toy copies: its memory counts twice */
  t->shared += n;
  return FORAY_OK;
}
static void seq_truncate(void *self, void *seq, uint32_t len) {
  struct toy *t = self;
  struct toy_seq *s = seq;
  t->cached -= s->n - len;
  s->n = len;
}
static bool append(struct toy *t, struct toy_seq *s, int32_t id) {
  if (s->n == s->cap) {
    uint32_t cap = s->cap ? 2 * s->cap : 64;
    uint64_t *h = realloc(s->hash, cap * sizeof *h);
    if (!h) return false;
    s->hash = h;
    s->cap = cap;
  }
  uint64_t h = s->n ? s->hash[s->n - 1] : t->salt;
  s->hash[s->n++] = step(h, (uint32_t)id);
  t->cached++;
  return true;
}
static enum foray_status pass(void *self, const struct foray_target_item *it, int n, struct foray_err *err) {
  struct toy *t = self;
  uint32_t more = 0;
  for (int i = 0; i < n; i++) more += (uint32_t)it[i].n;
  if (t->cached_max && t->cached + more > t->cached_max)
    return foray_err_set(err, FORAY_E_LIMIT, "the toy caches %u tokens", t->cached_max);
  for (int i = 0; i < n; i++) {
    struct toy_seq *s = it[i].seq;
    if (it[i].n < 1)
      return foray_err_set(err, FORAY_E_ARG, "toy item without tokens"); /* as the engine does */
    if (s->n + (uint32_t)it[i].n > t->target.ctx) return foray_err_set(err, FORAY_E_LIMIT, "toy context");
    for (int32_t k = 0; k < it[i].n; k++) {
      if (it[i].tokens[k] < 0 || it[i].tokens[k] >= TOY_VOCAB)
        return foray_err_set(err, FORAY_E_ARG, "toy id");
      if (!append(t, s, it[i].tokens[k])) return FORAY_E_NOMEM;
      int32_t row = k - (it[i].n - it[i].n_logits);
      if (row >= 0) logits_of(t, s->hash[s->n - 1], it[i].logits + row * TOY_VOCAB);
    }
  }
  t->passes++;
  if (t->pass_us) usleep(t->pass_us);
  return FORAY_OK;
}

static double logprob(const float *l, uint32_t id) {
  double sum = 0;
  for (int v = 0; v < TOY_VOCAB; v++) sum += exp((double)l[v]);
  return (double)l[id] - log(sum);
}
static enum foray_status score(void *self, void *seq, const int32_t *tokens, int32_t n, int32_t from,
                               double *logp, struct foray_err *err) {
  (void)err;
  struct toy *t = self;
  struct toy_seq *s = seq;
  for (int32_t i = 0; i < n; i++) {
    float l[TOY_VOCAB];
    if (i >= from && s->n) {
      logits_of(t, s->hash[s->n - 1], l);
      logp[i] = logprob(l, (uint32_t)tokens[i]);
    }
    if (!append(t, s, tokens[i])) return FORAY_E_NOMEM;
  }
  return FORAY_OK;
}
double toy_logprob(struct toy *t, const uint32_t *prefix, uint32_t n, uint32_t id) {
  uint64_t h = t->salt;
  for (uint32_t i = 0; i < n; i++) h = step(h, prefix[i]);
  float l[TOY_VOCAB];
  logits_of(t, h, l);
  return logprob(l, id);
}

static enum foray_status sampler_open(void *self, const struct foray_gen_request *r, void **out,
                                      struct foray_err *err) {
  struct toy *t = self;
  struct foray_gen_request *c = foray_gen_request_copy(r);
  if (!c) return foray_err_set(err, FORAY_E_NOMEM, "toy");
  t->open_samplers++;
  *out = c;
  return FORAY_OK;
}
static void sampler_close(void *self, void *s) {
  ((struct toy *)self)->open_samplers--;
  free(s);
}
static int32_t choose(const struct foray_gen_request *r, const float *logits, const int32_t *hist,
                      int32_t n) {
  float l[TOY_VOCAB];
  memcpy(l, logits, sizeof l);
  if (r->sampling.repeat_penalty > 1) /* history matters */
    for (int32_t i = n > 8 ? n - 8 : 0; i < n; i++) l[hist[i]] -= r->sampling.repeat_penalty - 1;
  if (r->ignore_eos) l[TOY_EOG] = -100;
  int32_t best = 0;
  int64_t best_key = INT64_MIN;
  for (int32_t v = 0; v < TOY_VOCAB; v++) {
    float temp = r->sampling.temperature;
    /* Kept far from overflow, as the engine's sampler does: a peer may ask for any temperature above 0. */
    int64_t key =
        llrint(fmax(-0x1p60, fmin(0x1p60, (double)l[v] / (double)(temp > 0 ? temp : 1.0f) * 65536.0)));
    if (temp > 0) key += foray_gumbel_q16(r->sampling.seed, (uint32_t)n, (uint32_t)v);
    if (key > best_key) {
      best_key = key;
      best = v;
    }
  }
  return best;
}
static int32_t pick(void *self, void *s, const float *logits, const int32_t *hist, int32_t n) {
  (void)self;
  return choose(s, logits, hist, n);
}
static const char *piece(void *self, int32_t id, size_t *len) {
  (void)self;
  static const char text[TOY_VOCAB][3] = {"",  "a", "b",  "c",  "d",  "e", "f", "g", "h", "i", "j", "k",
                                          "l", "m", "ab", "bc", "cd", " ", "x", "y", "z", "q", "r", "s"};
  *len = strlen(text[id]);
  return text[id];
}
static bool is_eog(void *self, int32_t id) {
  (void)self;
  return id == TOY_EOG;
}

static void logprobs(void *self, const float *logits, int32_t id, uint32_t k, double *logp, uint32_t *top) {
  (void)self;
  bool used[TOY_VOCAB] = {false};
  logp[0] = logprob(logits, (uint32_t)id);
  for (uint32_t i = 0; i < k; i++) {
    uint32_t best = TOY_VOCAB;
    for (uint32_t v = 0; v < TOY_VOCAB; v++)
      if (!used[v] && (best == TOY_VOCAB || logits[v] > logits[best])) best = v;
    used[best] = true;
    top[i] = best;
    logp[1 + i] = logprob(logits, best);
  }
}

void toy_init(struct toy *t, uint64_t salt, uint32_t ctx) {
  *t = (struct toy){.salt = mix(salt + 1), .eog_in_256 = 6};
  t->target = (struct foray_target){t,      TOY_VOCAB, ctx,          seq_open,      seq_close, seq_truncate,
                                    pass,   score,     sampler_open, sampler_close, pick,      piece,
                                    is_eog, logprobs,  seq_share,    TOY_PAGE,      0};
}

enum foray_finish toy_plain(struct toy *t, const struct foray_gen_request *r, uint32_t *out,
                            uint32_t *n_out) {
  int32_t *hist = malloc((r->n_prompt + r->max_tokens + 1) * sizeof *hist);
  char *text = calloc(1, 2 * r->max_tokens + 1u);
  uint64_t h = t->salt;
  uint32_t n = 0;
  enum foray_finish f = FORAY_FINISH_NONE;
  for (uint32_t i = 0; i < r->n_prompt; i++) h = step(h, r->prompt[i]), hist[i] = (int32_t)r->prompt[i];
  if (r->n_prompt >= t->target.ctx) f = FORAY_FINISH_LENGTH;
  while (f == FORAY_FINISH_NONE) {
    float l[TOY_VOCAB];
    logits_of(t, h, l);
    int32_t id = choose(r, l, hist, (int32_t)(r->n_prompt + n));
    hist[r->n_prompt + n] = id;
    out[n++] = (uint32_t)id;
    h = step(h, (uint32_t)id);
    size_t len;
    const char *p = piece(t, id, &len);
    memcpy(text + strlen(text), p, len);
    bool stop = false;
    for (uint32_t k = 0; k < r->n_stops; k++) {
      char s[FORAY_PROTO_STOP_BYTES_MAX + 1] = {0};
      memcpy(s, r->stops[k], r->stop_len[k]);
      stop |= strstr(text, s) != NULL;
    }
    if (id == TOY_EOG && !r->ignore_eos)
      f = FORAY_FINISH_EOS;
    else if (stop)
      f = FORAY_FINISH_STOP;
    else if (n == r->max_tokens || r->n_prompt + n >= t->target.ctx)
      f = FORAY_FINISH_LENGTH;
  }
  free(hist);
  free(text);
  *n_out = n;
  return f;
}
