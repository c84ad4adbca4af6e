#include "proto/edge_sm.h"

#include "core/checked.h"
#include "core/err.h"
#include "proto/frame.h"
#include "proto/request_wire.h"

#include "foray.pb-c.h"

#include <protobuf-c/protobuf-c.h>
#include <stdlib.h>
#include <string.h>

enum { EVENTS_MAX = 65536, GUESS_MAX = FORAY_PROTO_ROUNDS_MAX * FORAY_PROTO_DRAFT_MAX };

enum link_state { LINK_DOWN, LINK_HELLO, LINK_READY };
enum session_state {
  S_WAITING, /* no link: to be opened or resumed at the next Welcome */
  S_OPENING, /* Open was sent */
  S_RESUMING,
  S_OPEN,
  S_FAILED
};

struct round {
  uint32_t round, start, n;
  int64_t sent;
};

struct session {
  uint32_t handle;
  enum session_state state;
  struct foray_gen_request *req; /* owned; the prompt lies in tokens, not here */
  size_t req_bytes;
  uint32_t *tokens; /* owned: prompt, then generated */
  uint32_t n_prompt, n_gen, cap;
  bool known; /* id and secret are valid */
  uint64_t id;
  uint8_t secret[FORAY_SESSION_SECRET_BYTES];
  uint32_t epoch, last_round;
  struct round rounds[FORAY_PROTO_ROUNDS_MAX]; /* in flight, oldest first */
  uint32_t n_rounds;
  uint32_t guess[GUESS_MAX]; /* ids of all of them; guess[0] is at generated index rounds[0].start */
  uint32_t n_guess;
  enum foray_finish finish;
  bool cancel;
};

struct event {
  struct foray_edge_event e;
  char *text;   /* owned */
  double *logp; /* owned */
};

struct score {
  uint32_t request, next, end; /* answers so far reach `next`, the last is end - 1 */
};

struct foray_edge {
  struct foray_edge_config cfg;
  char agent[64], token[FORAY_PROTO_TOKEN_MAX + 1];
  uint8_t want_tokenizer[32], want_model[32];
  enum link_state link;
  struct foray_frame_reader in;
  struct foray_buf out;
  struct foray_edge_server server;
  bool have_server;
  struct session **sessions;
  uint32_t n_sessions, cap_sessions, next_handle;
  size_t memory;
  struct event *events; /* ring-free queue: [first, n) */
  size_t first_event, n_events, cap_events;
  struct event shown; /* what the last foray_edge_event lent out */
  struct score scores[FORAY_PROTO_SCORES_MAX];
  uint32_t n_scores, next_request;
  struct foray_edge_stats stats;
  int64_t last_rx, last_ping, hello_at, ping_sent;
  uint64_t nonce;
  bool ping_out;
};

/* ---------------------------------------------------------------- small things */

static struct session *find(const struct foray_edge *e, uint32_t handle) {
  for (uint32_t i = 0; i < e->n_sessions; i++)
    if (e->sessions[i]->handle == handle) return e->sessions[i];
  return NULL;
}

static enum foray_status take_memory(struct foray_edge *e, size_t n, struct foray_err *err) {
  if (n > e->cfg.memory_max - e->memory)
    return foray_err_set(err, FORAY_E_LIMIT, "sessions would hold more than %zu bytes", e->cfg.memory_max);
  e->memory += n;
  return FORAY_OK;
}

static size_t request_bytes(const struct foray_gen_request *r) {
  size_t n = sizeof *r + 128 + r->sampling.n_bias * 8u;
  for (uint32_t i = 0; i < r->n_stops; i++) n += r->stop_len[i] + 16u;
  return n;
}

static void session_free(struct foray_edge *e, struct session *s) {
  e->memory -= s->req_bytes + (size_t)s->cap * sizeof *s->tokens + sizeof *s;
  free(s->req);
  free(s->tokens);
  free(s);
}

static void drop_rounds(struct session *s) { s->n_rounds = s->n_guess = 0; }

static uint32_t guessed_end(const struct session *s) {
  if (!s->n_rounds) return s->n_gen;
  uint32_t end = s->rounds[0].start + s->n_guess;
  return end > s->n_gen ? end : s->n_gen;
}

static void event_free(struct event *v) {
  free(v->text);
  free(v->logp);
  *v = (struct event){0};
}

static struct event *push(struct foray_edge *e, enum foray_edge_event_kind kind, struct foray_err *err) {
  if (e->n_events == e->cap_events) {
    if (e->first_event) {
      memmove(e->events, e->events + e->first_event, (e->n_events - e->first_event) * sizeof *e->events);
      e->n_events -= e->first_event;
      e->first_event = 0;
    }
    if (e->n_events == e->cap_events) {
      size_t cap = e->cap_events ? 2 * e->cap_events : 16;
      struct event *v = cap > EVENTS_MAX ? NULL : realloc(e->events, cap * sizeof *v);
      if (!v) {
        foray_err_set(err, cap > EVENTS_MAX ? FORAY_E_LIMIT : FORAY_E_NOMEM, "event queue");
        return NULL;
      }
      e->events = v;
      e->cap_events = cap;
    }
  }
  struct event *v = &e->events[e->n_events++];
  *v = (struct event){.e = {.kind = kind}};
  return v;
}

static enum foray_status push_text(struct foray_edge *e, struct foray_edge_event ev, const char *text,
                                   struct foray_err *err) {
  struct event *v = push(e, ev.kind, err);
  if (!v) return err ? err->code : FORAY_E_NOMEM;
  v->e = ev;
  v->text = strndup(text ? text : "", FORAY_PROTO_TEXT_MAX);
  return FORAY_OK;
}

#define SEND(e, TYPE, msg, err)                                                                              \
  ((e)->stats.frames_up++, foray_msg_write(&(e)->out, FORAY_FRAME_##TYPE, &(msg)->base, err))

/* ---------------------------------------------------------------- life */

enum foray_status foray_edge_create(const struct foray_edge_config *cfg, struct foray_edge **out,
                                    struct foray_err *err) {
  *out = NULL;
  struct foray_edge *e = calloc(1, sizeof *e);
  if (!e) return foray_err_set(err, FORAY_E_NOMEM, "edge machine");
  if (cfg) e->cfg = *cfg;
  if (!e->cfg.handshake_ns) e->cfg.handshake_ns = 30000000000;
  if (!e->cfg.ping_ns) e->cfg.ping_ns = 5000000000;
  if (!e->cfg.dead_ns) e->cfg.dead_ns = 20000000000;
  if (!e->cfg.memory_max) e->cfg.memory_max = (size_t)256 << 20;
  const char *agent = e->cfg.agent ? e->cfg.agent : "foray/" FORAY_VERSION;
  size_t n = strnlen(agent, sizeof e->agent - 1);
  memcpy(e->agent, agent, n);
  if (e->cfg.token) { /* one that is too long cannot be right; the cloud says so */
    n = strnlen(e->cfg.token, sizeof e->token - 1);
    memcpy(e->token, e->cfg.token, n);
    e->cfg.token = e->token;
  }
  if (e->cfg.tokenizer_sha256) memcpy(e->want_tokenizer, e->cfg.tokenizer_sha256, 32);
  if (e->cfg.model_sha256) memcpy(e->want_model, e->cfg.model_sha256, 32);
  foray_frame_reader_init(&e->in, 'C');
  foray_buf_init(&e->out, FORAY_PROTO_OUTPUT_MAX);
  e->next_request = 1;
  *out = e;
  return FORAY_OK;
}

void foray_edge_destroy(struct foray_edge *e) {
  if (!e) return;
  for (uint32_t i = 0; i < e->n_sessions; i++) session_free(e, e->sessions[i]);
  free(e->sessions);
  for (size_t i = e->first_event; i < e->n_events; i++) event_free(&e->events[i]);
  free(e->events);
  event_free(&e->shown);
  foray_frame_reader_deinit(&e->in);
  foray_buf_deinit(&e->out);
  free(e);
}

void foray_edge_link_up(struct foray_edge *e, int64_t now) {
  if (e->link != LINK_DOWN) foray_edge_link_down(e, "replaced by a new link", now);
  foray_frame_reader_reset(&e->in);
  foray_buf_clear(&e->out);
  e->link = LINK_HELLO;
  e->hello_at = e->last_rx = e->last_ping = now;
  e->ping_out = false;
  e->stats.links++;
  Foray__Wire__Hello m = FORAY__WIRE__HELLO__INIT;
  m.version_min = FORAY_PROTO_VERSION_MIN;
  m.version_max = FORAY_PROTO_VERSION_MAX;
  m.features = FORAY_FEATURES_ALL;
  m.agent = e->agent;
  if (e->cfg.tokenizer_sha256) m.tokenizer = (ProtobufCBinaryData){32, e->want_tokenizer};
  if (e->cfg.model_sha256) m.model = (ProtobufCBinaryData){32, e->want_model};
  m.abi = e->cfg.abi_hash;
  m.token = e->token;
  (void)!SEND(e, HELLO, &m, NULL); /* an empty output has room; out of memory shows as a time-out */
}

void foray_edge_link_down(struct foray_edge *e, const char *why, int64_t now) {
  (void)now;
  if (e->link == LINK_DOWN) return;
  e->link = LINK_DOWN;
  foray_frame_reader_reset(&e->in);
  foray_buf_clear(&e->out);
  for (uint32_t i = 0; i < e->n_sessions; i++) {
    struct session *s = e->sessions[i];
    drop_rounds(s);
    if (s->state != S_FAILED && s->finish == FORAY_FINISH_NONE) s->state = S_WAITING;
  }
  for (uint32_t i = 0; i < e->n_scores; i++)
    (void)!push_text(e,
                     (struct foray_edge_event){.kind = FORAY_EDGE_FAILED,
                                               .is_request = true,
                                               .request = e->scores[i].request,
                                               .code = FORAY_E_NET},
                     "the link was lost before the score was complete", NULL);
  e->n_scores = 0;
  (void)!push_text(e, (struct foray_edge_event){.kind = FORAY_EDGE_LINK_LOST, .code = FORAY_E_NET}, why,
                   NULL);
}

bool foray_edge_is_ready(const struct foray_edge *e) { return e->link == LINK_READY; }

size_t foray_edge_output(const struct foray_edge *e, const uint8_t **p) {
  *p = e->out.data;
  return e->out.len;
}
void foray_edge_output_consumed(struct foray_edge *e, size_t n) {
  e->stats.bytes_up += n;
  foray_buf_consume(&e->out, n);
}

/* ---------------------------------------------------------------- opening and resuming */

static enum foray_status send_open(struct foray_edge *e, struct session *s, struct foray_err *err) {
  struct foray_request_wire w;
  Foray__Wire__Open m;
  foray_request_to_wire(s->req, &w, &m);
  m.session = s->handle;
  m.n_prompt = s->n_prompt; /* the prompt lies in tokens, not in the request */
  m.prompt = s->tokens;
  m.n_generated = s->n_gen;
  m.generated = s->tokens + s->n_prompt;
  s->state = S_OPENING;
  s->known = false;
  return SEND(e, OPEN, &m, err);
}

static enum foray_status start_session(struct foray_edge *e, struct session *s, struct foray_err *err) {
  if (!s->known || !(e->server.features & FORAY_FEATURE_RESUME)) return send_open(e, s, err);
  Foray__Wire__Resume m = FORAY__WIRE__RESUME__INIT;
  m.session = s->handle;
  m.id = s->id;
  m.secret = (ProtobufCBinaryData){sizeof s->secret, s->secret};
  m.have = s->n_gen;
  s->state = S_RESUMING;
  return SEND(e, RESUME, &m, err);
}

static enum foray_status send_cancel(struct foray_edge *e, const struct session *s, struct foray_err *err) {
  Foray__Wire__Cancel m = FORAY__WIRE__CANCEL__INIT;
  m.session = s->handle;
  return SEND(e, CANCEL, &m, err);
}

enum foray_status foray_edge_open(struct foray_edge *e, const struct foray_gen_request *r, uint32_t *session,
                                  struct foray_err *err) {
  enum foray_status st = foray_gen_request_check(r, err);
  if (st != FORAY_OK) return st;
  if (e->n_sessions >= FORAY_PROTO_SESSIONS_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "%d sessions are open", FORAY_PROTO_SESSIONS_MAX);
  if (e->n_sessions == e->cap_sessions) {
    uint32_t cap = e->cap_sessions ? 2 * e->cap_sessions : 4;
    struct session **v = realloc(e->sessions, cap * sizeof(*v));
    if (!v) return foray_err_set(err, FORAY_E_NOMEM, "session");
    e->sessions = v;
    e->cap_sessions = cap;
  }
  uint32_t cap = r->n_prompt + 64;
  size_t rb = request_bytes(r), bytes = rb + (size_t)cap * sizeof(uint32_t) + sizeof(struct session);
  st = take_memory(e, bytes, err);
  if (st != FORAY_OK) return st;
  struct session *s = calloc(1, sizeof *s);
  struct foray_gen_request slim = *r;
  slim.n_prompt = 0;
  uint32_t *tokens = malloc((size_t)cap * sizeof *tokens);
  struct foray_gen_request *copy = foray_gen_request_copy(&slim);
  if (!s || !tokens || !copy) {
    free(s);
    free(tokens);
    free(copy);
    e->memory -= bytes;
    return foray_err_set(err, FORAY_E_NOMEM, "session");
  }
  memcpy(tokens, r->prompt, r->n_prompt * sizeof *tokens);
  s->handle = e->next_handle++;
  s->req = copy;
  s->req_bytes = rb;
  s->tokens = tokens;
  s->cap = cap;
  s->n_prompt = r->n_prompt;
  e->sessions[e->n_sessions++] = s;
  *session = s->handle;
  if (e->link != LINK_READY) return FORAY_OK;
  if (e->n_sessions > e->server.sessions_max)
    st = foray_err_set(err, FORAY_E_LIMIT, "the cloud allows %u sessions", e->server.sessions_max);
  else
    st = start_session(e, s, err);
  if (st != FORAY_OK) {
    e->n_sessions--;
    session_free(e, s);
  }
  return st;
}

enum foray_status foray_edge_cancel(struct foray_edge *e, uint32_t session, struct foray_err *err) {
  struct session *s = find(e, session);
  if (!s) return foray_err_set(err, FORAY_E_ARG, "no session %u", session);
  if (s->finish != FORAY_FINISH_NONE || s->cancel) return FORAY_OK;
  s->cancel = true; /* sent again after a resume */
  return s->state == S_OPEN ? send_cancel(e, s, err) : FORAY_OK;
}

void foray_edge_close(struct foray_edge *e, uint32_t session) { foray_edge_close_with(e, session, NULL); }

void foray_edge_close_with(struct foray_edge *e, uint32_t session, const struct foray_exit_counts *counts) {
  for (uint32_t i = 0; i < e->n_sessions; i++) {
    struct session *s = e->sessions[i];
    if (s->handle != session) continue;
    if (e->link == LINK_READY && s->state != S_FAILED && s->state != S_WAITING) {
      Foray__Wire__Close m = FORAY__WIRE__CLOSE__INIT;
      m.session = session;
      if (counts && counts->n <= FORAY_PROTO_EXITS_MAX) {
        m.n_exit_drafted = m.n_exit_accepted = counts->n;
        m.exit_drafted = (uint32_t *)(uintptr_t)counts->drafted;
        m.exit_accepted = (uint32_t *)(uintptr_t)counts->accepted;
      }
      (void)!SEND(e, CLOSE, &m, NULL); /* when the output is full the cloud's own time-out does it */
    }
    memmove(&e->sessions[i], &e->sessions[i + 1], (e->n_sessions - i - 1) * sizeof *e->sessions);
    e->n_sessions--;
    session_free(e, s);
    return;
  }
}

enum foray_status foray_edge_view(const struct foray_edge *e, uint32_t session, struct foray_edge_view *v) {
  const struct session *s = find(e, session);
  if (!s) return FORAY_E_ARG;
  *v = (struct foray_edge_view){.tokens = s->tokens,
                                .n_prompt = s->n_prompt,
                                .n_generated = s->n_gen,
                                .n_guessed = guessed_end(s) - s->n_gen,
                                .rounds = s->n_rounds,
                                .epoch = s->epoch,
                                .open = e->link == LINK_READY && s->state == S_OPEN,
                                .finish = s->finish};
  return FORAY_OK;
}

enum foray_status foray_edge_draft(struct foray_edge *e, uint32_t session, uint32_t start,
                                   const uint32_t *ids, uint32_t n, int64_t now, uint32_t *round,
                                   struct foray_err *err) {
  struct session *s = find(e, session);
  if (!s) return foray_err_set(err, FORAY_E_ARG, "no session %u", session);
  if (e->link != LINK_READY || s->state != S_OPEN || s->finish != FORAY_FINISH_NONE)
    return foray_err_set(err, FORAY_E_STATE, "session %u takes no drafts now", session);
  if (s->req->mode != FORAY_MODE_SPECULATIVE)
    return foray_err_set(err, FORAY_E_STATE, "session %u is plain: the cloud decodes alone", session);
  if (n > e->server.draft_max)
    return foray_err_set(err, FORAY_E_LIMIT, "%u drafts in a round, the cloud takes %u", n,
                         e->server.draft_max);
  if (s->n_rounds >= e->server.rounds_max)
    return foray_err_set(err, FORAY_E_BUSY, "%u rounds are in flight", s->n_rounds);
  if (start != guessed_end(s))
    return foray_err_set(err, FORAY_E_ARG, "a round must start at %u, not at %u", guessed_end(s), start);
  if (n == 0 && s->n_rounds) return foray_err_set(err, FORAY_E_ARG, "an empty round behind others");
  Foray__Wire__Draft m = FORAY__WIRE__DRAFT__INIT;
  m.session = session;
  m.round = s->last_round + 1;
  m.epoch = s->epoch;
  m.start = start;
  m.n_ids = n;
  m.ids = (uint32_t *)(uintptr_t)ids;
  enum foray_status st = SEND(e, DRAFT, &m, err);
  if (st != FORAY_OK) return st;
  s->last_round++;
  s->rounds[s->n_rounds++] = (struct round){s->last_round, start, n, now};
  if (n) memcpy(s->guess + s->n_guess, ids, n * sizeof *ids);
  s->n_guess += n;
  if (round) *round = s->last_round;
  return FORAY_OK;
}

enum foray_status foray_edge_score(struct foray_edge *e, const uint32_t *ids, uint32_t n, uint32_t first,
                                   uint32_t *request, struct foray_err *err) {
  if (e->link != LINK_READY) return foray_err_set(err, FORAY_E_STATE, "the link is not ready");
  if (!(e->server.features & FORAY_FEATURE_SCORE))
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "this cloud does not score");
  if (n < 2 || n > FORAY_PROTO_SCORE_MAX || first > n - 2)
    return foray_err_set(err, FORAY_E_ARG, "scoring %u ids from %u on: 2..%d ids, the first below the last",
                         n, first, FORAY_PROTO_SCORE_MAX);
  if (e->n_scores == FORAY_PROTO_SCORES_MAX)
    return foray_err_set(err, FORAY_E_BUSY, "%u score requests wait for answers", e->n_scores);
  Foray__Wire__Score m = FORAY__WIRE__SCORE__INIT;
  m.request = e->next_request;
  m.n_ids = n;
  m.ids = (uint32_t *)(uintptr_t)ids;
  m.first = first;
  enum foray_status st = SEND(e, SCORE, &m, err);
  if (st != FORAY_OK) return st;
  e->scores[e->n_scores++] = (struct score){e->next_request, first, n - 1};
  *request = e->next_request++;
  return FORAY_OK;
}

void foray_edge_goodbye(struct foray_edge *e, const char *why) {
  if (e->link == LINK_DOWN) return;
  Foray__Wire__Goodbye m = FORAY__WIRE__GOODBYE__INIT;
  m.text = (char *)(uintptr_t)(why ? why : "");
  (void)!SEND(e, GOODBYE, &m, NULL);
}

const struct foray_edge_server *foray_edge_server_info(const struct foray_edge *e) {
  return e->have_server ? &e->server : NULL;
}
void foray_edge_stats_get(const struct foray_edge *e, struct foray_edge_stats *s) { *s = e->stats; }

/* ---------------------------------------------------------------- what the cloud says */

static enum foray_status commit(struct foray_edge *e, struct session *s, const uint32_t *ids, uint32_t n,
                                struct foray_err *err) {
  if (n > s->req->max_tokens - s->n_gen)
    return foray_err_set(err, FORAY_E_PROTO, "the cloud sent more than max_tokens tokens");
  if (s->n_gen + n > s->cap - s->n_prompt) {
    uint32_t cap = s->cap + s->cap / 2 + n;
    enum foray_status st = take_memory(e, (size_t)(cap - s->cap) * sizeof *s->tokens, err);
    if (st != FORAY_OK) return st;
    uint32_t *t = realloc(s->tokens, (size_t)cap * sizeof *t);
    if (!t) {
      e->memory -= (size_t)(cap - s->cap) * sizeof *s->tokens;
      return foray_err_set(err, FORAY_E_NOMEM, "tokens");
    }
    s->tokens = t;
    s->cap = cap;
  }
  if (n) memcpy(s->tokens + s->n_prompt + s->n_gen, ids, n * sizeof *ids);
  s->n_gen += n;
  return FORAY_OK;
}

static bool finish_ok(uint32_t f) { return f < FORAY_FINISH_COUNT; }

static enum foray_status on_welcome(struct foray_edge *e, const Foray__Wire__Welcome *m,
                                    struct foray_err *err) {
  if (e->link != LINK_HELLO) return foray_err_set(err, FORAY_E_PROTO, "a second Welcome");
  if (m->version < FORAY_PROTO_VERSION_MIN || m->version > FORAY_PROTO_VERSION_MAX)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "the cloud speaks protocol version %u, this program %d",
                         m->version, FORAY_PROTO_VERSION_MAX);
  if (m->tokenizer.len != 32 || m->model.len != 32 || !m->vocab || !m->ctx || !m->draft_max ||
      !m->rounds_max || !m->sessions_max)
    return foray_err_set(err, FORAY_E_PROTO, "Welcome lacks hashes or limits");
  struct foray_edge_server *v = &e->server;
  if (e->cfg.tokenizer_sha256 && memcmp(m->tokenizer.data, e->want_tokenizer, 32) != 0)
    return foray_err_set(
        err, FORAY_E_MISMATCH,
        "the cloud's model '%s' has another tokenizer than the edge's model: they cannot work "
        "together",
        m->model_name);
  if (e->cfg.model_sha256 && memcmp(m->model.data, e->want_model, 32) != 0)
    return foray_err_set(err, FORAY_E_MISMATCH, "the cloud serves another file as '%s'", m->model_name);
  *v = (struct foray_edge_server){.version = m->version,
                                  .vocab = m->vocab,
                                  .ctx = m->ctx,
                                  .features = m->features & FORAY_FEATURES_ALL,
                                  .instance = m->instance};
  v->draft_max = m->draft_max < FORAY_PROTO_DRAFT_MAX ? m->draft_max : FORAY_PROTO_DRAFT_MAX;
  v->rounds_max = m->rounds_max < FORAY_PROTO_ROUNDS_MAX ? m->rounds_max : FORAY_PROTO_ROUNDS_MAX;
  v->sessions_max = m->sessions_max;
  memcpy(v->agent, m->agent, strnlen(m->agent, sizeof v->agent - 1));
  memcpy(v->model_name, m->model_name, strnlen(m->model_name, sizeof v->model_name - 1));
  memcpy(v->tokenizer_sha256, m->tokenizer.data, 32);
  memcpy(v->model_sha256, m->model.data, 32);
  e->have_server = true;
  e->link = LINK_READY;
  if (!push(e, FORAY_EDGE_READY, err)) return FORAY_E_NOMEM;
  for (uint32_t i = 0; i < e->n_sessions; i++) {
    if (e->sessions[i]->state != S_WAITING) continue;
    enum foray_status st = start_session(e, e->sessions[i], err);
    if (st != FORAY_OK) return st;
  }
  return FORAY_OK;
}

static enum foray_status on_opened(struct foray_edge *e, const Foray__Wire__Opened *m,
                                   struct foray_err *err) {
  struct session *s = find(e, m->session);
  if (!s) return m->session < e->next_handle ? FORAY_OK : foray_err_set(err, FORAY_E_PROTO, "Opened: handle");
  if (s->state != S_OPENING || m->secret.len != FORAY_SESSION_SECRET_BYTES)
    return foray_err_set(err, FORAY_E_PROTO, "Opened for session %u, which was not asked for", m->session);
  s->id = m->id;
  memcpy(s->secret, m->secret.data, sizeof s->secret);
  s->known = true;
  s->state = S_OPEN;
  s->epoch = 0;
  struct event *v = push(e, FORAY_EDGE_OPENED, err);
  if (!v) return FORAY_E_NOMEM;
  v->e.session = s->handle;
  return s->cancel ? send_cancel(e, s, err) : FORAY_OK;
}

static enum foray_status on_state(struct foray_edge *e, const Foray__Wire__State *m, struct foray_err *err) {
  struct session *s = find(e, m->session);
  if (!s) return m->session < e->next_handle ? FORAY_OK : foray_err_set(err, FORAY_E_PROTO, "State: handle");
  if (s->state != S_RESUMING || m->have != s->n_gen || !finish_ok(m->finish))
    return foray_err_set(err, FORAY_E_PROTO, "State for session %u, which was not asked for", m->session);
  uint32_t first = s->n_gen;
  if (m->n_ids > s->req->max_tokens) return foray_err_set(err, FORAY_E_PROTO, "State: too many tokens");
  enum foray_status st = commit(e, s, m->ids, (uint32_t)m->n_ids, err);
  if (st != FORAY_OK) return st;
  s->state = S_OPEN;
  s->epoch = 0;
  s->finish = (enum foray_finish)m->finish;
  e->stats.resumes++;
  struct event *v = push(e, FORAY_EDGE_RESUMED, err);
  if (!v) return FORAY_E_NOMEM;
  v->e.session = s->handle;
  v->e.first = first;
  v->e.n_new = v->e.n_free = (uint32_t)m->n_ids;
  v->e.diverged = true;
  v->e.finish = s->finish;
  return s->cancel && s->finish == FORAY_FINISH_NONE ? send_cancel(e, s, err) : FORAY_OK;
}

static enum foray_status on_verdict(struct foray_edge *e, const Foray__Wire__Verdict *m, int64_t now,
                                    struct foray_err *err) {
  struct session *s = find(e, m->session);
  if (!s)
    return m->session < e->next_handle ? FORAY_OK : foray_err_set(err, FORAY_E_PROTO, "Verdict: handle");
  if (s->state != S_OPEN || s->finish != FORAY_FINISH_NONE || !finish_ok(m->finish))
    return foray_err_set(err, FORAY_E_PROTO, "Verdict for session %u, which waits for none", m->session);
  if (m->n_ids > FORAY_PROTO_FRAME_SMALL_MAX) return foray_err_set(err, FORAY_E_PROTO, "Verdict: ids");
  struct foray_edge_event v = {.kind = FORAY_EDGE_TOKENS,
                               .session = s->handle,
                               .round = m->round,
                               .first = s->n_gen,
                               .finish = (enum foray_finish)m->finish,
                               .verify_ns = (int64_t)m->verify * 100000,
                               .queue_ns = (int64_t)m->queue * 100000};
  enum foray_status st;
  if (m->round == 0) {
    if (m->n_ids && m->accepted != s->n_gen)
      return foray_err_set(err, FORAY_E_PROTO, "Verdict: tokens from %u on, expected from %u", m->accepted,
                           s->n_gen);
    if (m->n_ids == 0 && m->finish == FORAY_FINISH_NONE)
      return foray_err_set(err, FORAY_E_PROTO, "Verdict: nothing in it");
    if (s->req->mode == FORAY_MODE_SPECULATIVE && m->n_ids)
      return foray_err_set(err, FORAY_E_PROTO, "Verdict: tokens that no round asked for");
    st = commit(e, s, m->ids, (uint32_t)m->n_ids, err);
    if (st != FORAY_OK) return st;
    v.n_new = v.n_free = (uint32_t)m->n_ids;
    drop_rounds(s);
  } else {
    /* Verdicts come in the order of the rounds; those that were dropped here are dropped there as well. */
    if (!s->n_rounds || s->rounds[0].round != m->round || m->accepted > s->rounds[0].n)
      return foray_err_set(err, FORAY_E_PROTO, "Verdict for round %u, which is not the next one", m->round);
    const struct round r = s->rounds[0];
    uint32_t n_ids = (uint32_t)m->n_ids;
    bool all = m->accepted == r.n;
    if (n_ids == 0 && m->finish == FORAY_FINISH_NONE && (!all || (s->n_rounds == 1 && r.n == 0)))
      return foray_err_set(err, FORAY_E_PROTO, "Verdict for round %u without a token to go on from",
                           m->round);
    /* What is committed already (a bonus token that a later round had guessed) comes again in that round. */
    uint32_t known = s->n_gen - r.start, acc = m->accepted;
    if (known < acc + n_ids) {
      uint32_t from_acc = known < acc ? known : acc, from_ids = known > acc ? known - acc : 0;
      if (known > acc && memcmp(m->ids, s->tokens + s->n_prompt + r.start + acc, from_ids * sizeof *m->ids))
        return foray_err_set(err, FORAY_E_PROTO, "Verdict takes committed tokens back");
      if (acc - from_acc + n_ids - from_ids > s->req->max_tokens - s->n_gen)
        return foray_err_set(err, FORAY_E_PROTO, "the cloud sent more than max_tokens tokens");
      st = commit(e, s, s->guess + from_acc, acc - from_acc, err);
      if (st == FORAY_OK) st = commit(e, s, m->ids + from_ids, n_ids - from_ids, err);
      if (st != FORAY_OK) return st;
      v.n_new = acc - from_acc + n_ids - from_ids;
      v.n_free = n_ids - from_ids;
    } else if (m->finish == FORAY_FINISH_NONE && s->n_rounds == 1)
      return foray_err_set(err, FORAY_E_PROTO, "Verdict for round %u brings nothing new", m->round);
    v.n_drafted = r.n;
    v.n_accepted = acc;
    v.rtt_ns = now - r.sent;
    /* Do the later guesses still hold? */
    bool diverged = !all;
    for (uint32_t i = r.n; !diverged && i < s->n_guess && r.start + i < s->n_gen; i++)
      diverged = s->guess[i] != s->tokens[s->n_prompt + r.start + i];
    if (diverged) {
      s->epoch++;
      drop_rounds(s);
      v.diverged = true;
    } else {
      s->n_rounds--;
      s->n_guess -= r.n;
      memmove(s->rounds, s->rounds + 1, s->n_rounds * sizeof *s->rounds);
      memmove(s->guess, s->guess + r.n, s->n_guess * sizeof *s->guess);
    }
  }
  s->finish = v.finish;
  if (v.finish != FORAY_FINISH_NONE) drop_rounds(s);
  struct event *ev = push(e, FORAY_EDGE_TOKENS, err);
  if (!ev) return FORAY_E_NOMEM;
  ev->e = v;
  return FORAY_OK;
}

static enum foray_status on_scored(struct foray_edge *e, const Foray__Wire__Scored *m,
                                   struct foray_err *err) {
  struct score *q = NULL;
  for (uint32_t i = 0; i < e->n_scores; i++)
    if (e->scores[i].request == m->request) q = &e->scores[i];
  if (!q) return foray_err_set(err, FORAY_E_PROTO, "Scored for request %u, which does not wait", m->request);
  if (m->first != q->next || m->n_logp > q->end - q->next || m->n_logp == 0 ||
      m->last != (q->next + m->n_logp == q->end))
    return foray_err_set(err, FORAY_E_PROTO, "Scored: positions %u + %zu, expected from %u to %u", m->first,
                         m->n_logp, q->next, q->end);
  double *copy = malloc(m->n_logp * sizeof *copy);
  if (!copy) return foray_err_set(err, FORAY_E_NOMEM, "scores");
  memcpy(copy, m->logp, m->n_logp * sizeof *copy);
  struct event *v = push(e, FORAY_EDGE_SCORED, err);
  if (!v) {
    free(copy);
    return FORAY_E_NOMEM;
  }
  v->logp = copy;
  v->e.is_request = true;
  v->e.request = m->request;
  v->e.n_logp = (uint32_t)m->n_logp;
  v->e.logp_first = m->first;
  v->e.last = m->last;
  q->next += (uint32_t)m->n_logp;
  if (m->last) *q = e->scores[--e->n_scores];
  return FORAY_OK;
}

static enum foray_status on_error(struct foray_edge *e, const Foray__Wire__Error *m, struct foray_err *err) {
  enum foray_status code =
      m->code < 0 && m->code >= FORAY_E_DENIED ? (enum foray_status)m->code : FORAY_E_PROTO;
  if (m->scope == 1) {
    struct session *s = find(e, m->id);
    if (!s || s->state == S_FAILED) return FORAY_OK;
    if (s->state == S_RESUMING && code == FORAY_E_NOTFOUND) {
      /* another server, or the same one after a restart: it gets everything, and goes on the same way */
      e->stats.reopens++;
      return send_open(e, s, err);
    }
    if (s->state != S_RESUMING && code == FORAY_E_NOTFOUND) /* a repeated answer: the transport is broken */
      return foray_err_set(err, FORAY_E_PROTO, "Error: session %u was not being resumed", m->id);
    s->state = S_FAILED;
    drop_rounds(s);
    return push_text(
        e,
        (struct foray_edge_event){
            .kind = FORAY_EDGE_FAILED, .session = s->handle, .code = code, .retry_ms = m->retry_ms},
        m->text, err);
  }
  if (m->scope == 2) {
    for (uint32_t i = 0; i < e->n_scores; i++) {
      if (e->scores[i].request != m->id) continue;
      e->scores[i] = e->scores[--e->n_scores];
      return push_text(e,
                       (struct foray_edge_event){
                           .kind = FORAY_EDGE_FAILED, .is_request = true, .request = m->id, .code = code},
                       m->text, err);
    }
    return FORAY_OK;
  }
  return foray_err_set(err, code, "the cloud says: %s", m->text);
}

static void on_pong(struct foray_edge *e, uint64_t nonce, int64_t now) {
  if (!e->ping_out || nonce != e->nonce) return;
  e->ping_out = false;
  int64_t rtt = now - e->ping_sent;
  if (rtt < 1) rtt = 1;
  e->stats.rtt_ns = e->stats.rtt_ns ? e->stats.rtt_ns + (rtt - e->stats.rtt_ns) / 8 : rtt;
  if (!e->stats.rtt_min_ns || rtt < e->stats.rtt_min_ns) e->stats.rtt_min_ns = rtt;
}

static enum foray_status send_ping(struct foray_edge *e, int64_t now, struct foray_err *err) {
  Foray__Wire__Ping m = FORAY__WIRE__PING__INIT;
  m.nonce = ++e->nonce;
  e->ping_out = true;
  e->ping_sent = e->last_ping = now;
  return SEND(e, PING, &m, err);
}

static enum foray_status dispatch(struct foray_edge *e, const struct foray_frame *f, int64_t now,
                                  struct foray_err *err) {
  struct foray_msg m;
  enum foray_status st = foray_msg_read(f, &m, err);
  if (st != FORAY_OK) return st;
  e->stats.frames_down++;
  const void *p = m.m;
  bool early = e->link == LINK_HELLO;
  if (early && f->type != FORAY_FRAME_WELCOME && f->type != FORAY_FRAME_PROGRESS &&
      f->type != FORAY_FRAME_ERROR && f->type != FORAY_FRAME_PING && f->type != FORAY_FRAME_PONG &&
      f->type != FORAY_FRAME_GOODBYE) {
    foray_msg_free(&m);
    return foray_err_set(err, FORAY_E_PROTO, "%s before Welcome", foray_frame_name((unsigned)f->type));
  }
  switch (f->type) {
  case FORAY_FRAME_WELCOME:
    st = on_welcome(e, p, err);
    if (st == FORAY_OK) st = send_ping(e, now, err);
    break;
  case FORAY_FRAME_PROGRESS: {
    const Foray__Wire__Progress *g = p;
    e->hello_at = now;
    if (e->n_events > e->first_event && e->events[e->n_events - 1].e.kind == FORAY_EDGE_PROGRESS)
      event_free(&e->events[--e->n_events]); /* only the newest matters */
    st = push_text(e,
                   (struct foray_edge_event){.kind = FORAY_EDGE_PROGRESS, .done = g->done, .total = g->total},
                   g->what, err);
    break;
  }
  case FORAY_FRAME_OPENED: st = on_opened(e, p, err); break;
  case FORAY_FRAME_VERDICT: st = on_verdict(e, p, now, err); break;
  case FORAY_FRAME_STATE: st = on_state(e, p, err); break;
  case FORAY_FRAME_SCORED: st = on_scored(e, p, err); break;
  case FORAY_FRAME_ERROR: st = on_error(e, p, err); break;
  case FORAY_FRAME_PING: {
    Foray__Wire__Pong r = FORAY__WIRE__PONG__INIT;
    r.nonce = ((const Foray__Wire__Ping *)p)->nonce;
    st = SEND(e, PONG, &r, err);
    break;
  }
  case FORAY_FRAME_PONG: on_pong(e, ((const Foray__Wire__Pong *)p)->nonce, now); break;
  case FORAY_FRAME_GOODBYE:
    st = foray_err_set(err, FORAY_E_CLOSED, "the cloud closes: %s", ((const Foray__Wire__Goodbye *)p)->text);
    break;
  case FORAY_FRAME_HELLO:
  case FORAY_FRAME_OPEN:
  case FORAY_FRAME_RESUME:
  case FORAY_FRAME_DRAFT:
  case FORAY_FRAME_CANCEL:
  case FORAY_FRAME_CLOSE:
  case FORAY_FRAME_SCORE: st = foray_err_set(err, FORAY_E_PROTO, "frame of the wrong direction"); break;
  }
  foray_msg_free(&m);
  return st;
}

enum foray_status foray_edge_feed(struct foray_edge *e, const uint8_t *p, size_t n, int64_t now,
                                  struct foray_err *err) {
  if (e->link == LINK_DOWN) return foray_err_set(err, FORAY_E_STATE, "bytes without a link");
  struct foray_err local;
  if (!err) err = &local;
  *err = (struct foray_err){0};
  e->stats.bytes_down += n;
  e->last_rx = now;
  while (n) {
    struct foray_frame f;
    size_t used;
    bool complete;
    enum foray_status st = foray_frame_feed(&e->in, p, n, &used, &f, &complete, err);
    if (st == FORAY_OK && complete) st = dispatch(e, &f, now, err);
    if (st != FORAY_OK) return err->code ? err->code : foray_err_set(err, st, "out of memory");
    p += used;
    n -= used;
  }
  return FORAY_OK;
}

int64_t foray_edge_deadline(const struct foray_edge *e) {
  if (e->link == LINK_DOWN) return INT64_MAX;
  int64_t d = e->last_rx + e->cfg.dead_ns;
  if (e->link == LINK_HELLO && e->hello_at + e->cfg.handshake_ns < d) d = e->hello_at + e->cfg.handshake_ns;
  if (e->link == LINK_READY && e->last_ping + e->cfg.ping_ns < d) d = e->last_ping + e->cfg.ping_ns;
  return d;
}

enum foray_status foray_edge_tick(struct foray_edge *e, int64_t now, struct foray_err *err) {
  if (e->link == LINK_DOWN) return FORAY_OK;
  if (e->link == LINK_HELLO && now >= e->hello_at + e->cfg.handshake_ns)
    return foray_err_set(err, FORAY_E_TIMEOUT, "no Welcome from the cloud within %.1f s",
                         (double)e->cfg.handshake_ns * 1e-9);
  if (now >= e->last_rx + e->cfg.dead_ns)
    return foray_err_set(err, FORAY_E_TIMEOUT, "nothing heard from the cloud for %.1f s",
                         (double)(now - e->last_rx) * 1e-9);
  if (e->link == LINK_READY && now >= e->last_ping + e->cfg.ping_ns) return send_ping(e, now, err);
  return FORAY_OK;
}

bool foray_edge_event(struct foray_edge *e, struct foray_edge_event *ev) {
  event_free(&e->shown);
  while (e->first_event < e->n_events) {
    e->shown = e->events[e->first_event++];
    if (e->first_event == e->n_events) e->first_event = e->n_events = 0;
    struct event *v = &e->shown;
    bool of_session = v->e.kind == FORAY_EDGE_OPENED || v->e.kind == FORAY_EDGE_TOKENS ||
                      v->e.kind == FORAY_EDGE_RESUMED || (v->e.kind == FORAY_EDGE_FAILED && !v->e.is_request);
    if (of_session) {
      const struct session *s = find(e, v->e.session);
      if (!s) { /* closed meanwhile */
        event_free(v);
        continue;
      }
      v->e.ids = s->tokens + s->n_prompt + v->e.first;
    }
    v->e.text = v->text ? v->text : "";
    v->e.logp = v->logp;
    *ev = v->e;
    return true;
  }
  return false;
}
