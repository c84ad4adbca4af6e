#include "proto/cloud_sm.h"

#include "core/err.h"
#include "proto/frame.h"
#include "proto/request_wire.h"

#include "foray.pb-c.h"

#include <protobuf-c/protobuf-c.h>
#include <stdlib.h>
#include <string.h>

enum conn_state { C_WAIT_HELLO, C_GREETED, C_READY, C_ENDED };

struct event {
  struct foray_cloud_event e;
  struct foray_msg msg;              /* owned: what e points into */
  struct foray_gen_request *request; /* owned */
};

struct foray_cloud {
  struct foray_cloud_config cfg;
  enum conn_state state;
  struct foray_frame_reader in;
  struct foray_buf out;
  uint32_t version;
  uint64_t features;
  uint8_t want_tokenizer[32], want_model[32];
  bool wants_tokenizer, wants_model;
  char token[FORAY_PROTO_TOKEN_MAX + 1];
  uint32_t vocab, ctx;
  uint32_t open[FORAY_PROTO_SESSIONS_MAX], n_open; /* handles in use */
  uint32_t last_round[FORAY_PROTO_SESSIONS_MAX];   /* of each; 0: none yet */
  uint32_t scores[FORAY_PROTO_SCORES_MAX], n_scores;
  struct event *events;
  size_t first_event, n_events, cap_events;
  struct event shown;
  int64_t started, last_rx, last_ping;
  uint64_t nonce;
};

static void event_free(struct event *v) {
  foray_msg_free(&v->msg);
  free(v->request);
  *v = (struct event){0};
}

static struct event *push(struct foray_cloud *c, enum foray_cloud_event_kind kind) {
  if (c->n_events == c->cap_events) {
    size_t cap = c->cap_events ? 2 * c->cap_events : 8;
    struct event *v = realloc(c->events, cap * sizeof *v);
    if (!v) return NULL;
    c->events = v;
    c->cap_events = cap;
  }
  struct event *v = &c->events[c->n_events++];
  *v = (struct event){.e = {.kind = kind, .text = ""}};
  return v;
}

static uint32_t *slot(uint32_t *v, uint32_t n, uint32_t id) {
  for (uint32_t i = 0; i < n; i++)
    if (v[i] == id) return &v[i];
  return NULL;
}
static void drop(uint32_t *v, uint32_t *n, uint32_t id) {
  uint32_t *p = slot(v, *n, id);
  if (p) *p = v[--*n];
}
static void drop_session(struct foray_cloud *c, uint32_t handle) {
  uint32_t *p = slot(c->open, c->n_open, handle);
  if (!p) return;
  c->last_round[p - c->open] = c->last_round[c->n_open - 1];
  drop(c->open, &c->n_open, handle);
}

enum foray_status foray_cloud_create(const struct foray_cloud_config *cfg, int64_t now,
                                     struct foray_cloud **out, struct foray_err *err) {
  *out = NULL;
  struct foray_cloud *c = calloc(1, sizeof *c);
  if (!c) return foray_err_set(err, FORAY_E_NOMEM, "connection");
  if (cfg) c->cfg = *cfg;
  if (!c->cfg.hello_ns) c->cfg.hello_ns = 10000000000;
  if (!c->cfg.ping_ns) c->cfg.ping_ns = 5000000000;
  if (!c->cfg.dead_ns) c->cfg.dead_ns = 20000000000;
  if (!c->cfg.sessions_max || c->cfg.sessions_max > FORAY_PROTO_SESSIONS_MAX)
    c->cfg.sessions_max = FORAY_PROTO_SESSIONS_MAX;
  if (!c->cfg.draft_max || c->cfg.draft_max > FORAY_PROTO_DRAFT_MAX) c->cfg.draft_max = FORAY_PROTO_DRAFT_MAX;
  if (!c->cfg.rounds_max || c->cfg.rounds_max > FORAY_PROTO_ROUNDS_MAX)
    c->cfg.rounds_max = FORAY_PROTO_ROUNDS_MAX;
  c->started = c->last_rx = c->last_ping = now;
  foray_frame_reader_init(&c->in, 'E');
  foray_buf_init(&c->out, FORAY_PROTO_OUTPUT_MAX);
  *out = c;
  return FORAY_OK;
}

void foray_cloud_destroy(struct foray_cloud *c) {
  if (!c) return;
  for (size_t i = c->first_event; i < c->n_events; i++) event_free(&c->events[i]);
  free(c->events);
  event_free(&c->shown);
  foray_frame_reader_deinit(&c->in);
  foray_buf_deinit(&c->out);
  free(c);
}

size_t foray_cloud_output(const struct foray_cloud *c, const uint8_t **p) {
  *p = c->out.data;
  return c->out.len;
}
void foray_cloud_output_consumed(struct foray_cloud *c, size_t n) { foray_buf_consume(&c->out, n); }

#define SEND(c, TYPE, msg) foray_msg_write(&(c)->out, FORAY_FRAME_##TYPE, &(msg)->base, NULL)

static enum foray_status send_error(struct foray_cloud *c, uint32_t scope, uint32_t id,
                                    enum foray_status code, const char *text, uint32_t retry_ms) {
  char cut[FORAY_PROTO_TEXT_MAX];
  size_t n = strnlen(text, sizeof cut - 1);
  memcpy(cut, text, n);
  cut[n] = 0;
  Foray__Wire__Error m = FORAY__WIRE__ERROR__INIT;
  m.code = (int32_t)code;
  m.scope = scope;
  m.id = id;
  m.text = cut;
  m.retry_ms = retry_ms;
  return SEND(c, ERROR, &m);
}

/* ---------------------------------------------------------------- what the edge says */

static bool ids_ok(const struct foray_cloud *c, const uint32_t *ids, size_t n, uint32_t *bad) {
  for (size_t i = 0; i < n; i++)
    if (ids[i] >= c->vocab) {
      *bad = ids[i];
      return false;
    }
  return true;
}

static enum foray_status on_hello(struct foray_cloud *c, const Foray__Wire__Hello *m, struct foray_err *err) {
  if (c->state != C_WAIT_HELLO) return foray_err_set(err, FORAY_E_PROTO, "a second Hello");
  if (m->version_min > FORAY_PROTO_VERSION_MAX || m->version_max < FORAY_PROTO_VERSION_MIN ||
      m->version_min > m->version_max)
    return foray_err_set(err, FORAY_E_UNSUPPORTED,
                         "the edge speaks protocol versions %u to %u, this server %d to %d", m->version_min,
                         m->version_max, FORAY_PROTO_VERSION_MIN, FORAY_PROTO_VERSION_MAX);
  if ((m->tokenizer.len && m->tokenizer.len != 32) || (m->model.len && m->model.len != 32))
    return foray_err_set(err, FORAY_E_PROTO, "Hello: a hash must have 32 bytes");
  c->version = m->version_max < FORAY_PROTO_VERSION_MAX ? m->version_max : FORAY_PROTO_VERSION_MAX;
  c->features = m->features & FORAY_FEATURES_ALL;
  if ((c->wants_tokenizer = m->tokenizer.len == 32)) memcpy(c->want_tokenizer, m->tokenizer.data, 32);
  if ((c->wants_model = m->model.len == 32)) memcpy(c->want_model, m->model.data, 32);
  if (strlen(m->token) > FORAY_PROTO_TOKEN_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "Hello: a token has at most %d bytes", FORAY_PROTO_TOKEN_MAX);
  memcpy(c->token, m->token, strlen(m->token) + 1);
  c->state = C_GREETED;
  struct event *v = push(c, FORAY_CLOUD_HELLO);
  if (!v) return foray_err_set(err, FORAY_E_NOMEM, "event");
  v->e.text = c->token;
  return FORAY_OK;
}

/* A handle that may be given to a new session; *refused says that an Error frame answers instead. */
static enum foray_status new_handle(struct foray_cloud *c, uint32_t handle, bool *refused,
                                    struct foray_err *err) {
  *refused = false;
  if (slot(c->open, c->n_open, handle))
    return foray_err_set(err, FORAY_E_PROTO, "session handle %u is in use", handle);
  if (c->n_open < c->cfg.sessions_max) {
    c->last_round[c->n_open] = 0;
    c->open[c->n_open++] = handle;
    return FORAY_OK;
  }
  *refused = true;
  return send_error(c, 1, handle, FORAY_E_LIMIT, "too many sessions on this connection", 0);
}

static enum foray_status refuse(struct foray_cloud *c, uint32_t handle, enum foray_status code,
                                const char *text) {
  drop_session(c, handle);
  return send_error(c, 1, handle, code, text, 0);
}

static enum foray_status on_open(struct foray_cloud *c, struct foray_msg *msg, struct foray_err *err) {
  const Foray__Wire__Open *m = (const void *)msg->m;
  bool refused;
  enum foray_status st = new_handle(c, m->session, &refused, err);
  if (st != FORAY_OK || refused) return st;
  struct foray_request_wire w = {.stop_len = {0}};
  const struct foray_gen_request r = foray_request_from_wire(m, &w);
  const Foray__Wire__Sampling *s = m->sampling;
  struct foray_err why = {0};
  uint32_t bad = 0;
  if (s && s->n_bias_id != s->n_bias)
    foray_err_set(&why, FORAY_E_ARG, "logit bias: %zu ids and %zu values", s->n_bias_id, s->n_bias);
  else if (foray_gen_request_check(&r, &why) != FORAY_OK)
    ;
  else if (m->n_generated > m->max_tokens)
    foray_err_set(&why, FORAY_E_ARG, "%zu generated tokens, but max_tokens is %u", m->n_generated,
                  m->max_tokens);
  else if (m->n_prompt + m->n_generated > c->ctx)
    foray_err_set(&why, FORAY_E_LIMIT, "%zu tokens do not fit into the context of %u",
                  m->n_prompt + m->n_generated, c->ctx);
  else if (!ids_ok(c, m->prompt, m->n_prompt, &bad) || !ids_ok(c, m->generated, m->n_generated, &bad) ||
           (s && !ids_ok(c, s->bias_id, s->n_bias_id, &bad)))
    foray_err_set(&why, FORAY_E_ARG, "id %u is outside the vocabulary of %u", bad, c->vocab);
  if (why.code) return refuse(c, m->session, why.code, why.msg);
  struct foray_gen_request *copy = foray_gen_request_copy(&r);
  struct event *v = copy ? push(c, FORAY_CLOUD_OPEN) : NULL;
  if (!v) {
    free(copy);
    return foray_err_set(err, FORAY_E_NOMEM, "event");
  }
  v->request = copy;
  v->e.session = m->session;
  v->e.request = copy;
  v->e.ids = m->generated;
  v->e.n_ids = (uint32_t)m->n_generated;
  v->msg = *msg;
  *msg = (struct foray_msg){0};
  return FORAY_OK;
}

static enum foray_status on_resume(struct foray_cloud *c, struct foray_msg *msg, struct foray_err *err) {
  const Foray__Wire__Resume *m = (const void *)msg->m;
  if (m->secret.len != FORAY_SESSION_SECRET_BYTES)
    return foray_err_set(err, FORAY_E_PROTO, "Resume: a secret must have %d bytes",
                         FORAY_SESSION_SECRET_BYTES);
  bool refused;
  enum foray_status st = new_handle(c, m->session, &refused, err);
  if (st != FORAY_OK || refused) return st;
  struct event *v = push(c, FORAY_CLOUD_RESUME);
  if (!v) return foray_err_set(err, FORAY_E_NOMEM, "event");
  v->e.session = m->session;
  v->e.id = m->id;
  v->e.secret = m->secret.data;
  v->e.have = m->have;
  v->msg = *msg;
  *msg = (struct foray_msg){0};
  return FORAY_OK;
}

static enum foray_status on_draft(struct foray_cloud *c, struct foray_msg *msg, struct foray_err *err) {
  const Foray__Wire__Draft *m = (const void *)msg->m;
  const uint32_t *open = slot(c->open, c->n_open, m->session);
  if (!open) return FORAY_OK; /* failed meanwhile: the edge will hear of it */
  /* A gap or a repetition means that the transport is broken: better a new connection than a lost round. */
  uint32_t *last = &c->last_round[open - c->open];
  if (*last && m->round != *last + 1)
    return foray_err_set(err, FORAY_E_PROTO, "Draft: round %u after round %u", m->round, *last);
  *last = m->round;
  if (m->round == 0 || m->n_ids > c->cfg.draft_max || m->start > FORAY_PROTO_TOKENS_MAX)
    return foray_err_set(err, FORAY_E_PROTO, "Draft: round %u with %zu ids at %u", m->round, m->n_ids,
                         m->start);
  uint32_t bad;
  if (!ids_ok(c, m->ids, m->n_ids, &bad))
    return foray_err_set(err, FORAY_E_PROTO, "Draft: id %u is outside the vocabulary of %u", bad, c->vocab);
  struct event *v = push(c, FORAY_CLOUD_DRAFT);
  if (!v) return foray_err_set(err, FORAY_E_NOMEM, "event");
  v->e.session = m->session;
  v->e.round = m->round;
  v->e.epoch = m->epoch;
  v->e.start = m->start;
  v->e.ids = m->ids;
  v->e.n_ids = (uint32_t)m->n_ids;
  v->msg = *msg;
  *msg = (struct foray_msg){0};
  return FORAY_OK;
}

static enum foray_status on_score(struct foray_cloud *c, struct foray_msg *msg, struct foray_err *err) {
  const Foray__Wire__Score *m = (const void *)msg->m;
  if (c->n_scores == FORAY_PROTO_SCORES_MAX || slot(c->scores, c->n_scores, m->request))
    return foray_err_set(err, FORAY_E_PROTO, "Score: request %u is in use or one too many", m->request);
  struct foray_err why = {0};
  uint32_t bad;
  if (m->n_ids < 2 || m->n_ids > FORAY_PROTO_SCORE_MAX || m->first > m->n_ids - 2)
    foray_err_set(&why, FORAY_E_ARG, "scoring %zu ids from %u on", m->n_ids, m->first);
  else if (m->n_ids > c->ctx)
    foray_err_set(&why, FORAY_E_LIMIT, "%zu tokens do not fit into the context of %u", m->n_ids, c->ctx);
  else if (!ids_ok(c, m->ids, m->n_ids, &bad))
    foray_err_set(&why, FORAY_E_ARG, "id %u is outside the vocabulary of %u", bad, c->vocab);
  if (why.code) return send_error(c, 2, m->request, why.code, why.msg, 0);
  struct event *v = push(c, FORAY_CLOUD_SCORE);
  if (!v) return foray_err_set(err, FORAY_E_NOMEM, "event");
  c->scores[c->n_scores++] = m->request;
  v->e.session = m->request;
  v->e.ids = m->ids;
  v->e.n_ids = (uint32_t)m->n_ids;
  v->e.start = m->first;
  v->msg = *msg;
  *msg = (struct foray_msg){0};
  return FORAY_OK;
}

static enum foray_status on_plain(struct foray_cloud *c, enum foray_cloud_event_kind kind, uint32_t session,
                                  struct foray_err *err) {
  if (!slot(c->open, c->n_open, session)) return FORAY_OK;
  if (kind == FORAY_CLOUD_CLOSE) drop_session(c, session);
  struct event *v = push(c, kind);
  if (!v) return foray_err_set(err, FORAY_E_NOMEM, "event");
  v->e.session = session;
  return FORAY_OK;
}

static enum foray_status on_close(struct foray_cloud *c, const Foray__Wire__Close *m, struct foray_err *err) {
  if (m->n_exit_drafted > FORAY_PROTO_EXITS_MAX || m->n_exit_accepted != m->n_exit_drafted)
    return foray_err_set(err, FORAY_E_PROTO, "Close: counts of %zu and %zu exits", m->n_exit_drafted,
                         m->n_exit_accepted);
  const size_t before = c->n_events;
  enum foray_status st = on_plain(c, FORAY_CLOUD_CLOSE, m->session, err);
  if (st != FORAY_OK || c->n_events == before) return st;
  struct foray_exit_counts *x = &c->events[c->n_events - 1].e.exits;
  x->n = (uint32_t)m->n_exit_drafted;
  for (uint32_t i = 0; i < x->n; i++) {
    x->drafted[i] = m->exit_drafted[i];
    x->accepted[i] = m->exit_accepted[i] < m->exit_drafted[i] ? m->exit_accepted[i] : m->exit_drafted[i];
  }
  return st;
}

static enum foray_status dispatch(struct foray_cloud *c, const struct foray_frame *f, struct foray_err *err) {
  bool any_time =
      f->type == FORAY_FRAME_PING || f->type == FORAY_FRAME_PONG || f->type == FORAY_FRAME_GOODBYE;
  if (f->type != FORAY_FRAME_HELLO && c->state != C_READY && !(any_time && c->state == C_GREETED))
    return foray_err_set(err, FORAY_E_PROTO, "%s before %s", foray_frame_name((unsigned)f->type),
                         c->state == C_WAIT_HELLO ? "Hello" : "Welcome");
  struct foray_msg msg;
  enum foray_status st = foray_msg_read(f, &msg, err);
  if (st != FORAY_OK) return st;
  const void *p = msg.m;
  switch (f->type) {
  case FORAY_FRAME_HELLO: st = on_hello(c, p, err); break;
  case FORAY_FRAME_OPEN: st = on_open(c, &msg, err); break;
  case FORAY_FRAME_RESUME: st = on_resume(c, &msg, err); break;
  case FORAY_FRAME_DRAFT: st = on_draft(c, &msg, err); break;
  case FORAY_FRAME_SCORE: st = on_score(c, &msg, err); break;
  case FORAY_FRAME_CANCEL:
    st = on_plain(c, FORAY_CLOUD_CANCEL, ((const Foray__Wire__Cancel *)p)->session, err);
    break;
  case FORAY_FRAME_CLOSE: st = on_close(c, p, err); break;
  case FORAY_FRAME_PING: {
    Foray__Wire__Pong r = FORAY__WIRE__PONG__INIT;
    r.nonce = ((const Foray__Wire__Ping *)p)->nonce;
    st = SEND(c, PONG, &r);
    break;
  }
  case FORAY_FRAME_PONG: break;
  case FORAY_FRAME_GOODBYE: {
    struct event *v = push(c, FORAY_CLOUD_GOODBYE);
    if (!v) {
      st = FORAY_E_NOMEM;
      break;
    }
    v->e.text = ((const Foray__Wire__Goodbye *)p)->text;
    v->msg = msg;
    msg = (struct foray_msg){0};
    break;
  }
  case FORAY_FRAME_PROGRESS:
  case FORAY_FRAME_WELCOME:
  case FORAY_FRAME_OPENED:
  case FORAY_FRAME_VERDICT:
  case FORAY_FRAME_STATE:
  case FORAY_FRAME_SCORED:
  case FORAY_FRAME_ERROR: st = foray_err_set(err, FORAY_E_PROTO, "frame of the wrong direction"); break;
  }
  foray_msg_free(&msg);
  return st;
}

enum foray_status foray_cloud_feed(struct foray_cloud *c, const uint8_t *p, size_t n, int64_t now,
                                   struct foray_err *err) {
  struct foray_err local;
  if (!err) err = &local;
  *err = (struct foray_err){0};
  if (c->state == C_ENDED) return foray_err_set(err, FORAY_E_STATE, "bytes after the end");
  c->last_rx = now;
  while (n) {
    struct foray_frame f;
    size_t used;
    bool complete;
    enum foray_status st = foray_frame_feed(&c->in, p, n, &used, &f, &complete, err);
    if (st == FORAY_OK && complete) st = dispatch(c, &f, err);
    if (st != FORAY_OK) {
      if (!err->code) foray_err_set(err, st, "the peer reads too slowly");
      c->state = C_ENDED;
      (void)!send_error(c, 0, 0, err->code, err->msg, 0); /* if it fits; the connection ends either way */
      return err->code;
    }
    p += used;
    n -= used;
  }
  return FORAY_OK;
}

bool foray_cloud_event(struct foray_cloud *c, struct foray_cloud_event *ev) {
  event_free(&c->shown);
  if (c->first_event == c->n_events) return false;
  c->shown = c->events[c->first_event++];
  if (c->first_event == c->n_events) c->first_event = c->n_events = 0;
  *ev = c->shown.e;
  return true;
}

int64_t foray_cloud_deadline(const struct foray_cloud *c) {
  if (c->state == C_WAIT_HELLO) return c->started + c->cfg.hello_ns;
  if (c->state == C_ENDED) return INT64_MAX;
  int64_t a = c->last_rx + c->cfg.dead_ns, b = c->last_ping + c->cfg.ping_ns;
  int64_t quiet = c->last_rx + c->cfg.ping_ns; /* ping only a peer that is silent */
  if (b < quiet) b = quiet;
  return a < b ? a : b;
}

enum foray_status foray_cloud_tick(struct foray_cloud *c, int64_t now, struct foray_err *err) {
  if (c->state == C_ENDED) return FORAY_OK;
  if (c->state == C_WAIT_HELLO)
    return now < c->started + c->cfg.hello_ns ? FORAY_OK
                                              : foray_err_set(err, FORAY_E_TIMEOUT, "no Hello within %.1f s",
                                                              (double)c->cfg.hello_ns * 1e-9);
  if (now >= c->last_rx + c->cfg.dead_ns)
    return foray_err_set(err, FORAY_E_TIMEOUT, "nothing heard for %.1f s", (double)(now - c->last_rx) * 1e-9);
  if (now < c->last_ping + c->cfg.ping_ns || now < c->last_rx + c->cfg.ping_ns) return FORAY_OK;
  c->last_ping = now;
  Foray__Wire__Ping m = FORAY__WIRE__PING__INIT;
  m.nonce = ++c->nonce;
  return SEND(c, PING, &m);
}

/* ---------------------------------------------------------------- answers */

enum foray_status foray_cloud_send_progress(struct foray_cloud *c, const char *what, uint64_t done,
                                            uint64_t total) {
  if (c->state != C_GREETED) return FORAY_OK;
  Foray__Wire__Progress m = FORAY__WIRE__PROGRESS__INIT;
  m.what = (char *)(uintptr_t)what;
  m.done = done;
  m.total = total;
  return SEND(c, PROGRESS, &m);
}

enum foray_status foray_cloud_send_welcome(struct foray_cloud *c, const struct foray_cloud_identity *id,
                                           struct foray_err *err) {
  struct foray_err local;
  if (!err) err = &local;
  *err = (struct foray_err){0};
  if (c->state != C_GREETED) return foray_err_set(err, FORAY_E_STATE, "Welcome without Hello");
  enum foray_status st = FORAY_OK;
  if (c->wants_tokenizer && memcmp(c->want_tokenizer, id->tokenizer_sha256, 32) != 0)
    st = foray_err_set(err, FORAY_E_MISMATCH,
                       "the model '%s' here has another tokenizer than the edge's model: they cannot work "
                       "together",
                       id->model_name);
  else if (c->wants_model && memcmp(c->want_model, id->model_sha256, 32) != 0)
    st = foray_err_set(err, FORAY_E_MISMATCH, "the edge asked for another model file than '%s' here",
                       id->model_name);
  if (st != FORAY_OK) {
    c->state = C_ENDED;
    (void)!send_error(c, 0, 0, st, err->msg, 0);
    return st;
  }
  Foray__Wire__Welcome m = FORAY__WIRE__WELCOME__INIT;
  m.version = c->version;
  m.features = c->features;
  m.agent = (char *)(uintptr_t) "forayd/" FORAY_VERSION;
  m.tokenizer = (ProtobufCBinaryData){32, (uint8_t *)(uintptr_t)id->tokenizer_sha256};
  m.model = (ProtobufCBinaryData){32, (uint8_t *)(uintptr_t)id->model_sha256};
  m.model_name = (char *)(uintptr_t)(id->model_name ? id->model_name : "");
  m.vocab = c->vocab = id->vocab;
  m.ctx = c->ctx = id->ctx;
  m.draft_max = c->cfg.draft_max;
  m.rounds_max = c->cfg.rounds_max;
  m.sessions_max = c->cfg.sessions_max;
  m.instance = id->instance;
  c->state = C_READY;
  st = SEND(c, WELCOME, &m);
  return st == FORAY_OK ? st : foray_err_set(err, st, "Welcome");
}

enum foray_status foray_cloud_send_opened(struct foray_cloud *c, uint32_t session, uint64_t id,
                                          const uint8_t secret[FORAY_SESSION_SECRET_BYTES]) {
  if (c->state != C_READY || !slot(c->open, c->n_open, session)) return FORAY_OK;
  Foray__Wire__Opened m = FORAY__WIRE__OPENED__INIT;
  m.session = session;
  m.id = id;
  m.secret = (ProtobufCBinaryData){FORAY_SESSION_SECRET_BYTES, (uint8_t *)(uintptr_t)secret};
  return SEND(c, OPENED, &m);
}

static uint32_t tenths_ms(int64_t ns) {
  int64_t v = ns < 0 ? 0 : (ns + 50000) / 100000;
  return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

enum foray_status foray_cloud_send_verdict(struct foray_cloud *c, const struct foray_cloud_verdict *v) {
  if (c->state != C_READY || !slot(c->open, c->n_open, v->session)) return FORAY_OK;
  Foray__Wire__Verdict m = FORAY__WIRE__VERDICT__INIT;
  m.session = v->session;
  m.round = v->round;
  m.accepted = v->accepted;
  m.n_ids = v->n_ids;
  m.ids = (uint32_t *)(uintptr_t)v->ids;
  m.finish = (uint32_t)v->finish;
  m.verify = tenths_ms(v->verify_ns);
  m.queue = tenths_ms(v->queue_ns);
  return SEND(c, VERDICT, &m);
}

enum foray_status foray_cloud_send_state(struct foray_cloud *c, uint32_t session, uint32_t have,
                                         const uint32_t *ids, uint32_t n, enum foray_finish finish) {
  if (c->state != C_READY || !slot(c->open, c->n_open, session)) return FORAY_OK;
  Foray__Wire__State m = FORAY__WIRE__STATE__INIT;
  m.session = session;
  m.have = have;
  m.n_ids = n;
  m.ids = (uint32_t *)(uintptr_t)ids;
  m.finish = (uint32_t)finish;
  return SEND(c, STATE, &m);
}

enum foray_status foray_cloud_send_scored(struct foray_cloud *c, uint32_t request, uint32_t first,
                                          const double *logp, uint32_t n, bool last) {
  if (c->state != C_READY || !slot(c->scores, c->n_scores, request)) return FORAY_OK;
  if (last) drop(c->scores, &c->n_scores, request);
  while (n) {
    uint32_t part = n < FORAY_PROTO_SCORED_CHUNK_MAX ? n : FORAY_PROTO_SCORED_CHUNK_MAX;
    Foray__Wire__Scored m = FORAY__WIRE__SCORED__INIT;
    m.request = request;
    m.first = first;
    m.n_logp = part;
    m.logp = (double *)(uintptr_t)logp;
    m.last = last && part == n;
    enum foray_status st = SEND(c, SCORED, &m);
    if (st != FORAY_OK) return st;
    first += part;
    logp += part;
    n -= part;
  }
  return FORAY_OK;
}

enum foray_status foray_cloud_send_failed(struct foray_cloud *c, bool is_request, uint32_t id,
                                          enum foray_status code, const char *text, uint32_t retry_ms) {
  if (c->state != C_READY) return FORAY_OK;
  if (!(is_request ? slot(c->scores, c->n_scores, id) : slot(c->open, c->n_open, id))) return FORAY_OK;
  if (is_request)
    drop(c->scores, &c->n_scores, id);
  else
    drop_session(c, id);
  return send_error(c, is_request ? 2 : 1, id, code, text, retry_ms);
}

void foray_cloud_goodbye(struct foray_cloud *c, const char *text) {
  if (c->state == C_ENDED) return;
  Foray__Wire__Goodbye m = FORAY__WIRE__GOODBYE__INIT;
  m.text = (char *)(uintptr_t)text;
  (void)!SEND(c, GOODBYE, &m);
  c->state = C_ENDED;
}

uint32_t foray_cloud_busy(const struct foray_cloud *c) { return c->n_open + c->n_scores; }

void foray_cloud_refuse(struct foray_cloud *c, enum foray_status code, const char *text) {
  if (c->state == C_ENDED) return;
  (void)!send_error(c, 0, 0, code, text, 0);
  c->state = C_ENDED;
}
