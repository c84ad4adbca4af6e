#include "rt/edge_link.h"

#include "core/err.h"

#include <stdlib.h>
#include <string.h>

void foray_edge_link_init(struct foray_edge_link *el, const struct foray_edge_pump *pump, uint32_t session,
                          uint32_t n_prompt, bool plain) {
  struct foray_edge_stats st = {0};
  *el = (struct foray_edge_link){.pump = pump, .session = session, .n_prompt = n_prompt, .plain = plain};
  foray_edge_stats_get(pump->edge(pump->ctx), &st);
  el->up0 = st.bytes_up;
  el->down0 = st.bytes_down;
}

void foray_edge_link_deinit(struct foray_edge_link *el) {
  free(el->got);
  el->got = NULL;
}

/* Sends the proposal when the session can take it; not being able to yet is no error. */
static enum foray_status send_now(struct foray_edge_link *el, struct foray_err *err) {
  struct foray_edge_view v;
  uint32_t round = 0;
  if (!el->open || el->sent || el->plain) return FORAY_OK;
  enum foray_status s = foray_edge_view(el->pump->edge(el->pump->ctx), el->session, &v);
  if (s != FORAY_OK) return foray_err_set(err, s, "session %u is gone", el->session);
  if (v.rounds) el->sent = true; /* the news was older than the proposal */
  if (el->sent || !v.open || v.finish != FORAY_FINISH_NONE) return FORAY_OK;
  s = el->pump->draft(el->pump->ctx, el->session, el->at - el->n_prompt, el->ids, el->n, &round, err);
  if (s == FORAY_OK) el->sent = true;
  return s == FORAY_E_STATE || s == FORAY_E_BUSY ? FORAY_OK : s;
}

static enum foray_status propose(void *ctx, uint32_t at, const uint32_t *ids, uint32_t n, uint32_t alone,
                                 struct foray_err *err) {
  struct foray_edge_link *el = ctx;
  if (n > FORAY_GEN_BLOCK_MAX) return foray_err_set(err, FORAY_E_ARG, "a block of %u drafts", n);
  if (el->plain && !alone) return foray_err_set(err, FORAY_E_STATE, "a plain session takes no drafts");
  el->open = true;
  el->sent = false;
  el->at = at;
  el->n = n;
  el->alone = alone;
  if (n) memcpy(el->ids, ids, n * sizeof *ids);
  return send_now(el, err);
}

static enum foray_status keep(struct foray_edge_link *el, const uint32_t *ids, uint32_t n,
                              struct foray_err *err) {
  if (n > el->cap_got) {
    uint32_t *p = realloc(el->got, (size_t)n * sizeof *p);
    if (!p) return foray_err_set(err, FORAY_E_NOMEM, "%u tokens: out of memory", n);
    el->got = p;
    el->cap_got = n;
  }
  if (n) memcpy(el->got, ids, (size_t)n * sizeof *ids);
  el->n_got = n;
  return FORAY_OK;
}

static enum foray_status take(struct foray_edge_link *el, const struct foray_edge_event *ev,
                              struct foray_err *err) {
  enum foray_status s;
  switch (ev->kind) {
  case FORAY_EDGE_OPENED: el->sent = false; return send_now(el, err); /* rounds of the old link are gone */
  case FORAY_EDGE_RESUMED:
  case FORAY_EDGE_TOKENS:
    el->finish = ev->finish;
    el->verify_s = (float)((double)ev->verify_ns * 1e-9);
    if (!ev->n_new && ev->finish == FORAY_FINISH_NONE) { /* resumed with nothing: say it again */
      el->sent = false;
      return send_now(el, err);
    }
    if (ev->n_new && ev->first + el->n_prompt != el->at)
      return foray_err_set(err, FORAY_E_PROTO, "tokens for position %u, where %u is next",
                           ev->first + el->n_prompt, el->at);
    s = keep(el, ev->ids, ev->n_new, err);
    if (s != FORAY_OK) return s;
    el->accepted = 0; /* by comparison, so that a resumption counts like a verdict */
    while (el->accepted < el->n && el->accepted < ev->n_new && ev->ids[el->accepted] == el->ids[el->accepted])
      el->accepted++;
    return FORAY_OK;
  case FORAY_EDGE_FAILED:
    if (ev->is_request) return FORAY_OK;
    return foray_err_set(err, ev->code, "the cloud ended the session: %s", ev->text);
  default: return FORAY_OK;
  }
}

/* Hands on what came, in pieces that a verdict can hold. */
static void give(struct foray_edge_link *el, struct foray_verdict *out) {
  uint32_t n = el->n_got - el->accepted, more = 0;
  if (n > FORAY_GEN_VERDICT_MAX) more = n - FORAY_GEN_VERDICT_MAX, n = FORAY_GEN_VERDICT_MAX;
  *out = (struct foray_verdict){.at = el->at, .accepted = el->accepted, .n = n, .verify_s = el->verify_s};
  if (n) memcpy(out->ids, el->got + el->accepted, n * sizeof *out->ids);
  el->at += el->accepted + n;
  memmove(el->got, el->got + el->accepted + n, more * sizeof *el->got);
  el->n_got = more;
  el->accepted = 0;
  el->n = 0;
  out->more = more > 0;
  if (more) return;
  out->finish = el->finish;
  el->alone = el->alone > n ? el->alone - n : 0;
  out->more = el->finish == FORAY_FINISH_NONE && (el->plain || el->alone > 0);
  el->open = out->more;
  el->sent = false;
}

static enum foray_status wait_verdict(void *ctx, double timeout_s, struct foray_verdict *out, bool *ready,
                                      struct foray_err *err) {
  struct foray_edge_link *el = ctx;
  int ms = timeout_s < 0 ? -1 : timeout_s * 1e3 > 1e9 ? 1000000000 : (int)(timeout_s * 1e3);
  *ready = false;
  enum foray_status s = send_now(el, err);
  while (s == FORAY_OK && !el->n_got && el->finish == FORAY_FINISH_NONE) {
    struct foray_edge_event ev;
    s = el->pump->wait(el->pump->ctx, ms, &ev, err);
    if (s == FORAY_E_TIMEOUT) return FORAY_OK;
    if (s != FORAY_OK) return s;
    bool mine = ev.kind == FORAY_EDGE_OPENED || ev.kind == FORAY_EDGE_TOKENS ||
                ev.kind == FORAY_EDGE_RESUMED || (ev.kind == FORAY_EDGE_FAILED && !ev.is_request);
    if (mine && ev.session == el->session)
      s = take(el, &ev, err);
    else if (el->pump->other)
      el->pump->other(el->pump->ctx, &ev);
  }
  if (s != FORAY_OK) return s;
  give(el, out);
  *ready = true;
  return FORAY_OK;
}

static void traffic(void *ctx, uint64_t *up, uint64_t *down) {
  struct foray_edge_link *el = ctx;
  struct foray_edge_stats st = {0};
  foray_edge_stats_get(el->pump->edge(el->pump->ctx), &st);
  *up = st.bytes_up - el->up0;
  *down = st.bytes_down - el->down0;
}

static void cancel(void *ctx) {
  struct foray_edge_link *el = ctx;
  struct foray_err e;
  enum foray_status s = el->pump->cancel(el->pump->ctx, el->session, &e);
  (void)s; /* the generation ends here in any case */
}

struct foray_link foray_edge_link_of(struct foray_edge_link *el) {
  return (struct foray_link){
      .ctx = el, .propose = propose, .wait = wait_verdict, .bytes = traffic, .cancel = cancel};
}
