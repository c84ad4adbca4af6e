/* batch/target.h - what the scheduler needs from a model: the engine behind it is engine_target.h, tests put
 * a scripted toy in its place.
 *
 * The contract that makes generation exact: logits of a position depend on the tokens before it and on
 * nothing else, and pick is a pure function of (logits, history, request). Thread rule: the scheduler calls
 * everything from one thread. */
#ifndef FORAY_BATCH_TARGET_H
#define FORAY_BATCH_TARGET_H

#include "proto/params.h"

struct foray_target_item {
  void *seq;
  const int32_t *tokens; /* [n], appended to the sequence */
  int32_t n;
  int32_t n_logits; /* of the last n_logits positions */
  float *logits;    /* out [n_logits][vocab] */
};

struct foray_target {
  void *self;
  uint32_t vocab, ctx;
  enum foray_status (*seq_open)(void *self, void **seq, struct foray_err *err);
  void (*seq_close)(void *self, void *seq);
  /* len <= present length. Cannot fail otherwise. */
  void (*seq_truncate)(void *self, void *seq, uint32_t len);
  /* All or nothing. FORAY_E_LIMIT: no memory for keys and values; freeing other sequences may help. */
  enum foray_status (*pass)(void *self, const struct foray_target_item *items, int n, struct foray_err *err);
  /* Appends tokens and sets logp[i] = ln p(tokens[i] | all before), i >= from. */
  enum foray_status (*score)(void *self, void *seq, const int32_t *tokens, int32_t n, int32_t from,
                             double *logp, struct foray_err *err);
  enum foray_status (*sampler_open)(void *self, const struct foray_gen_request *r, void **sampler,
                                    struct foray_err *err);
  void (*sampler_close)(void *self, void *sampler);
  /* The token behind history[0..n). */
  int32_t (*pick)(void *self, void *sampler, const float *logits, const int32_t *history, int32_t n);
  /* Bytes of a token as the text shows them ("" for control tokens); borrowed. */
  const char *(*piece)(void *self, int32_t id, size_t *len);
  bool (*is_eog)(void *self, int32_t id);
  /* logp[0] = ln p(id), logp[1 + i] that of top[i], the k likeliest ids in falling order; plain softmax of
   * the logits. NULL: this target cannot say. */
  void (*logprobs)(void *self, const float *logits, int32_t id, uint32_t k, double *logp, uint32_t *top);
  /* dst (empty) shares the first *len positions of src, rounded down to whole pages. NULL: no sharing. */
  enum foray_status (*seq_share)(void *self, void *dst, void *src, uint32_t *len);
  uint32_t page_tokens;
  uint64_t kv_tokens; /* positions that fit into the memory for keys and values; 0: no limit known */
};

#endif
