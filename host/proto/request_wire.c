#include "proto/request_wire.h"

void foray_request_to_wire(const struct foray_gen_request *r, struct foray_request_wire *w,
                           Foray__Wire__Open *m) {
  const struct foray_gen_sampling *p = &r->sampling;
  Foray__Wire__Sampling *sp = &w->sampling;
  foray__wire__sampling__init(sp);
  sp->temperature = p->temperature;
  sp->top_k = p->top_k;
  sp->top_p = p->top_p;
  sp->min_p = p->min_p;
  sp->repeat_penalty = p->repeat_penalty;
  sp->presence_penalty = p->presence_penalty;
  sp->frequency_penalty = p->frequency_penalty;
  sp->repeat_last_n = p->repeat_last_n;
  sp->seed = p->seed;
  /* protobuf-c takes non-const pointers and does not write through them when packing */
  sp->n_bias_id = sp->n_bias = p->n_bias;
  sp->bias_id = (uint32_t *)(uintptr_t)p->bias_ids;
  sp->bias = (float *)(uintptr_t)p->bias;
  foray__wire__open__init(m);
  for (uint32_t i = 0; i < r->n_stops; i++)
    w->stops[i] = (ProtobufCBinaryData){r->stop_len[i], (uint8_t *)(uintptr_t)r->stops[i]};
  m->n_prompt = r->n_prompt;
  m->prompt = (uint32_t *)(uintptr_t)r->prompt;
  m->sampling = sp;
  m->n_stop = r->n_stops;
  m->stop = w->stops;
  m->max_tokens = r->max_tokens;
  m->mode = (uint32_t)r->mode;
  m->ignore_eos = r->ignore_eos;
}

struct foray_gen_request foray_request_from_wire(const Foray__Wire__Open *m, struct foray_request_wire *w) {
  struct foray_gen_request r = {.prompt = m->prompt,
                                .n_prompt = (uint32_t)m->n_prompt,
                                .max_tokens = m->max_tokens,
                                .mode = (enum foray_mode)m->mode,
                                .ignore_eos = m->ignore_eos,
                                .stops = w->stop,
                                .stop_len = w->stop_len,
                                .n_stops = (uint32_t)m->n_stop};
  for (uint32_t i = 0; i < m->n_stop && i < FORAY_PROTO_STOPS_MAX; i++) {
    w->stop[i] = (const char *)m->stop[i].data;
    w->stop_len[i] = m->stop[i].len > UINT32_MAX ? UINT32_MAX : (uint32_t)m->stop[i].len;
  }
  const Foray__Wire__Sampling *s = m->sampling;
  if (s)
    r.sampling = (struct foray_gen_sampling){.temperature = s->temperature,
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
                                             .n_bias = (uint32_t)s->n_bias_id};
  return r;
}
