#include "journal/pack.h"

#include "foray.pb-c.h"

#include <stdlib.h>
#include <string.h>

enum foray_status foray_request_pack(const struct foray_gen_request *r, struct foray_buf *out) {
  const struct foray_gen_sampling *p = &r->sampling;
  Foray__Wire__Sampling sp = FORAY__WIRE__SAMPLING__INIT;
  sp.temperature = p->temperature;
  sp.top_k = p->top_k;
  sp.top_p = p->top_p;
  sp.min_p = p->min_p;
  sp.repeat_penalty = p->repeat_penalty;
  sp.presence_penalty = p->presence_penalty;
  sp.frequency_penalty = p->frequency_penalty;
  sp.repeat_last_n = p->repeat_last_n;
  sp.seed = p->seed;
  /* protobuf-c takes non-const pointers and does not write through them when packing */
  sp.n_bias_id = sp.n_bias = p->n_bias;
  sp.bias_id = (uint32_t *)(uintptr_t)p->bias_ids;
  sp.bias = (float *)(uintptr_t)p->bias;
  Foray__Wire__Open m = FORAY__WIRE__OPEN__INIT;
  ProtobufCBinaryData stops[FORAY_PROTO_STOPS_MAX];
  for (uint32_t i = 0; i < r->n_stops; i++)
    stops[i] = (ProtobufCBinaryData){r->stop_len[i], (uint8_t *)(uintptr_t)r->stops[i]};
  m.n_prompt = r->n_prompt;
  m.prompt = (uint32_t *)(uintptr_t)r->prompt;
  m.sampling = &sp;
  m.n_stop = r->n_stops;
  m.stop = stops;
  m.max_tokens = r->max_tokens;
  m.mode = (uint32_t)r->mode;
  m.ignore_eos = r->ignore_eos;
  const size_t n = foray__wire__open__get_packed_size(&m);
  uint8_t *b = malloc(n ? n : 1);
  if (!b) return FORAY_E_NOMEM;
  enum foray_status st = foray_buf_add(out, b, foray__wire__open__pack(&m, b));
  free(b);
  return st;
}

struct foray_gen_request *foray_request_unpack(const void *p, size_t n) {
  Foray__Wire__Open *m = foray__wire__open__unpack(NULL, n, p);
  struct foray_gen_request *out = NULL;
  const Foray__Wire__Sampling *s = m ? m->sampling : NULL;
  if (s && m->n_stop <= FORAY_PROTO_STOPS_MAX && s->n_bias == s->n_bias_id &&
      m->n_prompt <= FORAY_PROTO_PROMPT_MAX) {
    const char *stops[FORAY_PROTO_STOPS_MAX];
    uint32_t len[FORAY_PROTO_STOPS_MAX];
    for (size_t i = 0; i < m->n_stop; i++) {
      stops[i] = (const char *)m->stop[i].data;
      len[i] = m->stop[i].len > UINT32_MAX ? UINT32_MAX : (uint32_t)m->stop[i].len;
    }
    const struct foray_gen_request r = {.prompt = m->prompt,
                                        .n_prompt = (uint32_t)m->n_prompt,
                                        .max_tokens = m->max_tokens,
                                        .mode = (enum foray_mode)m->mode,
                                        .ignore_eos = m->ignore_eos,
                                        .sampling = {.temperature = s->temperature,
                                                     .top_k = s->top_k,
                                                     .top_p = s->top_p,
                                                     .min_p = s->min_p,
                                                     .repeat_penalty = s->repeat_penalty,
                                                     .presence_penalty = s->presence_penalty,
                                                     .frequency_penalty = s->frequency_penalty,
                                                     .repeat_last_n = s->repeat_last_n,
                                                     .seed = s->seed,
                                                     .bias_ids = s->bias_id,
                                                     .bias = s->bias,
                                                     .n_bias = (uint32_t)s->n_bias},
                                        .stops = stops,
                                        .stop_len = len,
                                        .n_stops = (uint32_t)m->n_stop};
    if (foray_gen_request_check(&r, NULL) == FORAY_OK) out = foray_gen_request_copy(&r);
  }
  if (m) foray__wire__open__free_unpacked(m, NULL);
  return out;
}
