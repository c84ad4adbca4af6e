#include "batch/engine_target.h"

#include "core/err.h"
#include "engine/sampler.h"
#include "model/model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EOG_MAX = 64, READ_BYTES = 1 << 20, PASS_MAX = 1024 };

struct foray_engine_target {
  struct foray_target vtable;
  struct foray_engine_target_info info;
  struct foray_model *model;
  struct foray_engine *engine;
  struct foray_sampler_scratch *scratch; /* of all samplers: they run one after another */
  int32_t eog[EOG_MAX];
  int32_t n_eog;
  struct foray_engine_item items[PASS_MAX];
};

static enum foray_status seq_open(void *self, void **seq, struct foray_err *err) {
  struct foray_engine_seq *s = NULL;
  enum foray_status st = foray_engine_seq_open(((struct foray_engine_target *)self)->engine, &s, err);
  *seq = s;
  return st;
}
static enum foray_status seq_share(void *self, void *dst, void *src, uint32_t *len) {
  (void)self;
  int32_t n = (int32_t)*len;
  enum foray_status st = foray_engine_seq_share(dst, src, &n, NULL);
  *len = (uint32_t)n;
  return st;
}
static void seq_close(void *self, void *seq) {
  (void)self;
  foray_engine_seq_close(seq);
}
static void seq_truncate(void *self, void *seq, uint32_t len) {
  (void)self;
  (void)!foray_engine_seq_truncate(seq, (int32_t)len); /* only a len beyond the end fails */
}
static enum foray_status pass(void *self, const struct foray_target_item *it, int n, struct foray_err *err) {
  struct foray_engine_target *t = self;
  if (n > PASS_MAX) return foray_err_set(err, FORAY_E_LIMIT, "%d sequences in one pass", n);
  for (int i = 0; i < n; i++)
    t->items[i] = (struct foray_engine_item){.seq = it[i].seq,
                                             .tokens = it[i].tokens,
                                             .n = it[i].n,
                                             .n_logits = it[i].n_logits,
                                             .logits = it[i].logits};
  return foray_engine_pass(t->engine, t->items, n, err);
}
static enum foray_status score(void *self, void *seq, const int32_t *tokens, int32_t n, int32_t from,
                               double *logp, struct foray_err *err) {
  return foray_engine_score(((struct foray_engine_target *)self)->engine, seq, tokens, n, from, logp, err);
}
static enum foray_status sampler_open(void *self, const struct foray_gen_request *r, void **out,
                                      struct foray_err *err) {
  struct foray_engine_target *t = self;
  const struct foray_gen_sampling *s = &r->sampling;
  struct foray_logit_bias *bias = NULL;
  if (s->n_bias) {
    bias = malloc(s->n_bias * sizeof *bias);
    if (!bias) return foray_err_set(err, FORAY_E_NOMEM, "logit bias");
    for (uint32_t i = 0; i < s->n_bias; i++)
      bias[i] = (struct foray_logit_bias){(int32_t)s->bias_ids[i], s->bias[i]};
  }
  /* The wire's zero means off where the sampler's neutral value is one (proto/params.h). */
  struct foray_sampler_params p = {.temperature = s->temperature,
                                   .top_k = s->top_k > INT32_MAX ? 0 : (int32_t)s->top_k,
                                   .top_p = s->top_p > 0 ? s->top_p : 1.0f,
                                   .min_p = s->min_p,
                                   .repeat_last_n = s->repeat_last_n,
                                   .repeat_penalty = s->repeat_penalty > 0 ? s->repeat_penalty : 1.0f,
                                   .presence_penalty = s->presence_penalty,
                                   .frequency_penalty = s->frequency_penalty,
                                   .seed = s->seed,
                                   .ignore_eos = r->ignore_eos,
                                   .n_bias = (int32_t)s->n_bias,
                                   .bias = bias};
  struct foray_sampler *sm = NULL;
  enum foray_status st =
      foray_sampler_open_on(t->scratch, &p, (int32_t)t->vtable.vocab, t->eog, t->n_eog, &sm, err);
  free(bias);
  *out = sm;
  return st;
}
static void sampler_close(void *self, void *s) {
  (void)self;
  foray_sampler_close(s);
}
static int32_t pick(void *self, void *s, const float *logits, const int32_t *history, int32_t n) {
  (void)self;
  return foray_sampler_pick(s, logits, history, n, NULL);
}
static const char *piece(void *self, int32_t id, size_t *len) {
  const struct foray_tokenizer *tok = ((struct foray_engine_target *)self)->model->tokenizer;
  if (foray_tokenizer_kind(tok, id) == FORAY_TOKEN_CONTROL) {
    *len = 0;
    return "";
  }
  return foray_tokenizer_piece(tok, id, len);
}
static bool is_eog(void *self, int32_t id) {
  const struct foray_engine_target *t = self;
  for (int32_t i = 0; i < t->n_eog; i++)
    if (t->eog[i] == id) return true;
  return false;
}

static void logprobs(void *self, const float *logits, int32_t id, uint32_t k, double *logp, uint32_t *top) {
  const int32_t n = (int32_t)((struct foray_engine_target *)self)->vtable.vocab;
  logp[0] = foray_engine_logprob(logits, n, id);
  const double norm = (double)logits[id] - logp[0];
  /* k is small: an insertion list, larger logit first, then lower id */
  uint32_t m = 0;
  for (int32_t i = 0; i < n && k; i++) {
    if (m == k && !(logits[i] > logits[top[k - 1]])) continue;
    uint32_t at = m < k ? m++ : k - 1;
    for (; at > 0 && logits[i] > logits[top[at - 1]]; at--) top[at] = top[at - 1];
    top[at] = (uint32_t)i;
  }
  for (uint32_t i = 0; i < k; i++) logp[1 + i] = i < m ? (double)logits[top[i]] - norm : -INFINITY;
}

/* By reading, not through the mapping: the file's pages would count as this process's memory. */
static enum foray_status hash_file(const char *path, uint8_t out[FORAY_SHA256_BYTES], struct foray_err *err) {
  FILE *f = fopen(path, "rb");
  struct foray_sha256 *h = foray_sha256_open();
  uint8_t *buf = malloc(READ_BYTES);
  enum foray_status st = FORAY_OK;
  if (!f)
    st = foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  else if (!h || !buf)
    st = foray_err_set(err, FORAY_E_NOMEM, "%s: checksum", path);
  else {
    for (size_t n; (n = fread(buf, 1, READ_BYTES, f)) > 0;) foray_sha256_update(h, buf, n);
    if (ferror(f)) st = foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  }
  if (h) foray_sha256_close(h, st == FORAY_OK ? out : NULL);
  free(buf);
  if (f) fclose(f);
  return st;
}

enum foray_status foray_engine_target_open(const char *model, const struct foray_engine_opts *opts,
                                           struct foray_engine_target **out, struct foray_err *err) {
  *out = NULL;
  struct foray_engine_target *t = calloc(1, sizeof *t);
  if (!t) return foray_err_set(err, FORAY_E_NOMEM, "target");
  enum foray_status st = foray_model_open(model, &t->model, err);
  const char *path = st == FORAY_OK ? foray_gguf_path(t->model->gguf) : NULL;
  if (st == FORAY_OK) st = foray_engine_open(path, opts, &t->engine, err);
  if (st == FORAY_OK) st = hash_file(path, t->info.model_sha256, err);
  if (st != FORAY_OK) {
    foray_engine_target_close(t);
    return st;
  }
  const struct foray_engine_info *e = t->info.engine = foray_engine_info(t->engine);
  memcpy(t->info.name, t->model->name, sizeof t->info.name);
  foray_tokenizer_hash(t->model->tokenizer, t->info.tokenizer_sha256);
  for (int32_t i = 0; i < e->n_vocab && t->n_eog < EOG_MAX; i++)
    if (foray_tokenizer_is_eog(t->model->tokenizer, i)) t->eog[t->n_eog++] = i;
  t->vtable = (struct foray_target){t,
                                    (uint32_t)e->n_vocab,
                                    (uint32_t)e->n_ctx,
                                    seq_open,
                                    seq_close,
                                    seq_truncate,
                                    pass,
                                    score,
                                    sampler_open,
                                    sampler_close,
                                    pick,
                                    piece,
                                    is_eog,
                                    logprobs,
                                    seq_share,
                                    (uint32_t)e->page_tokens,
                                    0};
  if (opts && opts->kv_bytes_max)
    t->vtable.kv_tokens = opts->kv_bytes_max / e->page_bytes * (uint64_t)e->page_tokens;
  t->scratch = foray_sampler_scratch_open(e->n_vocab);
  if (!t->scratch) {
    foray_engine_target_close(t);
    return foray_err_set(err, FORAY_E_NOMEM, "target");
  }
  *out = t;
  return FORAY_OK;
}

void foray_engine_target_close(struct foray_engine_target *t) {
  if (!t) return;
  foray_sampler_scratch_close(t->scratch);
  foray_engine_close(t->engine);
  foray_model_close(t->model);
  free(t);
}
const struct foray_model *foray_engine_target_model(const struct foray_engine_target *t) { return t->model; }
const struct foray_target *foray_engine_target_vtable(struct foray_engine_target *t) { return &t->vtable; }
const struct foray_engine_target_info *foray_engine_target_info(const struct foray_engine_target *t) {
  return &t->info;
}
struct foray_engine *foray_engine_target_engine(struct foray_engine_target *t) {
  return t->engine;
}
