#include "proto/params.h"

#include "core/checked.h"
#include "core/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *foray_finish_name(enum foray_finish f) {
  switch (f) {
  case FORAY_FINISH_NONE: return "none";
  case FORAY_FINISH_STOP: return "stop";
  case FORAY_FINISH_LENGTH: return "length";
  case FORAY_FINISH_EOS: return "eos";
  case FORAY_FINISH_CANCEL: return "cancelled";
  case FORAY_FINISH_COUNT: break;
  }
  return "?";
}

static bool within(float v, float lo, float hi) { return v >= lo && v <= hi; } /* false for NaN */

static enum foray_status sampling_check(const struct foray_gen_sampling *s, struct foray_err *err) {
  static const float big = 1048576.0f;
  const struct {
    const char *name;
    float v, lo, hi;
  } range[] = {
      {"temperature", s->temperature, 0, 1000},
      {"top_p", s->top_p, 0, 1},
      {"min_p", s->min_p, 0, 1},
      {"repeat_penalty", s->repeat_penalty, 0, big},
      {"presence_penalty", s->presence_penalty, -big, big},
      {"frequency_penalty", s->frequency_penalty, -big, big},
  };
  for (size_t i = 0; i < sizeof range / sizeof *range; i++)
    if (!within(range[i].v, range[i].lo, range[i].hi))
      return foray_err_set(err, FORAY_E_ARG, "%s is %g; it must lie in %g..%g", range[i].name,
                           (double)range[i].v, (double)range[i].lo, (double)range[i].hi);
  if (s->repeat_last_n < -1)
    return foray_err_set(err, FORAY_E_ARG, "repeat_last_n is %d; it must be -1 or more", s->repeat_last_n);
  if (s->n_bias > FORAY_PROTO_BIAS_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "%u logit biases, the limit is %d", s->n_bias,
                         FORAY_PROTO_BIAS_MAX);
  for (uint32_t i = 0; i < s->n_bias; i++)
    if (isnan(s->bias[i]) || s->bias[i] > big)
      return foray_err_set(err, FORAY_E_ARG, "logit bias of id %u is not a number below 2^20",
                           s->bias_ids[i]);
  return FORAY_OK;
}

enum foray_status foray_gen_request_check(const struct foray_gen_request *r, struct foray_err *err) {
  if (r->n_prompt < 1) return foray_err_set(err, FORAY_E_ARG, "the prompt is empty: it needs one token");
  if (r->n_prompt > FORAY_PROTO_PROMPT_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "a prompt of %u tokens, the limit is %d", r->n_prompt,
                         FORAY_PROTO_PROMPT_MAX);
  if (r->max_tokens < 1 || r->max_tokens > FORAY_PROTO_TOKENS_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "max_tokens is %u; it must lie in 1..%d", r->max_tokens,
                         FORAY_PROTO_TOKENS_MAX);
  if ((unsigned)r->mode >= FORAY_MODE_COUNT)
    return foray_err_set(err, FORAY_E_ARG, "mode %u is not known", (unsigned)r->mode);
  if (r->n_stops > FORAY_PROTO_STOPS_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "%u stop strings, the limit is %d", r->n_stops,
                         FORAY_PROTO_STOPS_MAX);
  for (uint32_t i = 0; i < r->n_stops; i++)
    if (r->stop_len[i] < 1 || r->stop_len[i] > FORAY_PROTO_STOP_BYTES_MAX)
      return foray_err_set(err, FORAY_E_LIMIT, "a stop string of %u bytes; it must have 1..%d",
                           r->stop_len[i], FORAY_PROTO_STOP_BYTES_MAX);
  return sampling_check(&r->sampling, err);
}

/* Places `count` items of `size` behind *at (multiples of 16) and says where. */
static bool place(size_t *at, size_t count, size_t size, size_t *where) {
  size_t bytes, end;
  if (!foray_mul_size(count, size, &bytes) || !foray_add_size(bytes, 15, &bytes)) return false;
  *where = *at;
  if (!foray_add_size(*at, bytes & ~(size_t)15, &end)) return false;
  *at = end;
  return true;
}
static void put(uint8_t *base, size_t where, const void *src, size_t n) {
  if (n) memcpy(base + where, src, n);
}

struct foray_gen_request *foray_gen_request_copy(const struct foray_gen_request *r) {
  size_t at = 0, o_self, o_prompt, o_bid, o_bias, o_ptr, o_len, o_text, text = 0;
  for (uint32_t i = 0; i < r->n_stops; i++)
    if (!foray_add_size(text, r->stop_len[i], &text)) return NULL;
  const struct foray_gen_sampling *s = &r->sampling;
  if (!place(&at, 1, sizeof *r, &o_self) || !place(&at, r->n_prompt, sizeof *r->prompt, &o_prompt) ||
      !place(&at, s->n_bias, sizeof *s->bias_ids, &o_bid) ||
      !place(&at, s->n_bias, sizeof *s->bias, &o_bias) || !place(&at, r->n_stops, sizeof *r->stops, &o_ptr) ||
      !place(&at, r->n_stops, sizeof *r->stop_len, &o_len) || !place(&at, text, 1, &o_text))
    return NULL;
  uint8_t *b = malloc(at);
  if (!b) return NULL;
  struct foray_gen_request *c = (struct foray_gen_request *)(void *)b;
  *c = *r;
  put(b, o_prompt, r->prompt, r->n_prompt * sizeof *r->prompt);
  put(b, o_bid, s->bias_ids, s->n_bias * sizeof *s->bias_ids);
  put(b, o_bias, s->bias, s->n_bias * sizeof *s->bias);
  put(b, o_len, r->stop_len, r->n_stops * sizeof *r->stop_len);
  const char **ptr = (const char **)(void *)(b + o_ptr);
  size_t t = o_text;
  for (uint32_t i = 0; i < r->n_stops; i++) {
    put(b, t, r->stops[i], r->stop_len[i]);
    ptr[i] = (const char *)b + t;
    t += r->stop_len[i];
  }
  c->prompt = (const uint32_t *)(void *)(b + o_prompt);
  c->sampling.bias_ids = (const uint32_t *)(void *)(b + o_bid);
  c->sampling.bias = (const float *)(void *)(b + o_bias);
  c->stop_len = (const uint32_t *)(void *)(b + o_len);
  c->stops = ptr;
  return c;
}
