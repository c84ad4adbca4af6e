#include "batch/hub.h"

#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct conn {
  uint64_t id;
  struct foray_cloud *sm;
  bool greeted, ending;
  uint64_t address;
  char peer[64];
  struct foray_hub_grant grant;
};

struct foray_hub {
  struct foray_cloud_config cfg;
  struct foray_batch *batch; /* NULL while loading */
  struct foray_cloud_identity id;
  struct conn *conns;
  uint32_t n, max;
  uint64_t next;
  char what[64];
  uint64_t done, total;
  struct foray_hub_auth auth;
  void (*sink)(void *arg, const struct foray_batch_msg *m);
  void *sink_arg;
  struct foray_err failed; /* code != 0: nothing will ever be served */
};

static struct conn *find(struct foray_hub *h, uint64_t id) {
  for (uint32_t i = 0; i < h->n; i++)
    if (h->conns[i].id == id) return &h->conns[i];
  return NULL;
}

enum foray_status foray_hub_create(const struct foray_cloud_config *cfg, uint32_t conns_max,
                                   struct foray_hub **out, struct foray_err *err) {
  struct foray_hub *h = *out = calloc(1, sizeof *h);
  if (h) h->conns = calloc(conns_max, sizeof *h->conns);
  if (!h || !h->conns) {
    free(h);
    *out = NULL;
    return foray_err_set(err, FORAY_E_NOMEM, "connection table");
  }
  if (cfg) h->cfg = *cfg;
  h->max = conns_max;
  h->next = 1;
  snprintf(h->what, sizeof h->what, "loading");
  return FORAY_OK;
}

void foray_hub_destroy(struct foray_hub *h) {
  if (!h) return;
  for (uint32_t i = 0; i < h->n; i++) foray_cloud_destroy(h->conns[i].sm);
  free(h->conns);
  free(h);
}

static void keep(struct conn *c, enum foray_status st) {
  if (st != FORAY_OK) c->ending = true;
}

void foray_hub_progress(struct foray_hub *h, const char *what, uint64_t done, uint64_t total) {
  size_t n = strnlen(what, sizeof h->what - 1);
  memcpy(h->what, what, n);
  h->what[n] = 0;
  h->done = done;
  h->total = total;
  for (uint32_t i = 0; i < h->n; i++)
    if (h->conns[i].greeted)
      keep(&h->conns[i], foray_cloud_send_progress(h->conns[i].sm, h->what, done, total));
}

void foray_hub_serve(struct foray_hub *h, struct foray_batch *batch, const struct foray_cloud_identity *id) {
  h->batch = batch;
  h->id = *id;
  for (uint32_t i = 0; i < h->n; i++)
    if (h->conns[i].greeted) keep(&h->conns[i], foray_cloud_send_welcome(h->conns[i].sm, &h->id, NULL));
}

uint64_t foray_hub_connect(struct foray_hub *h, int64_t now) {
  if (h->n == h->max) return 0;
  struct conn *c = &h->conns[h->n];
  *c = (struct conn){.id = h->next};
  if (foray_cloud_create(&h->cfg, now, &c->sm, NULL) != FORAY_OK) return 0;
  h->n++;
  return h->next++;
}

void foray_hub_identify(struct foray_hub *h, uint64_t conn, uint64_t address, const char *peer) {
  struct conn *c = find(h, conn);
  if (!c) return;
  c->address = address;
  snprintf(c->peer, sizeof c->peer, "%s", peer);
}
void foray_hub_set_auth(struct foray_hub *h, const struct foray_hub_auth *a) { h->auth = *a; }

void foray_hub_disconnect(struct foray_hub *h, uint64_t conn) {
  struct conn *c = find(h, conn);
  if (!c) return;
  foray_cloud_destroy(c->sm);
  *c = h->conns[--h->n];
  /* Without memory for this command the sessions stay attached to nobody until the server ends. */
  if (h->batch)
    (void)!foray_batch_submit(h->batch, &(struct foray_batch_msg){.kind = FORAY_BATCH_DETACH, .conn = conn});
}

static enum foray_status on_event(struct foray_hub *h, struct conn *c, const struct foray_cloud_event *ev) {
  struct foray_batch_msg m = {.conn = c->id,
                              .session = ev->session,
                              .ids = (uint32_t *)(uintptr_t)ev->ids,
                              .n_ids = ev->n_ids,
                              .start = ev->start};
  switch (ev->kind) {
  case FORAY_CLOUD_HELLO:
    if (h->auth.allow && !h->auth.allow(h->auth.arg, c->address, c->peer, ev->text, &c->grant)) {
      foray_cloud_refuse(c->sm, FORAY_E_DENIED,
                         "a valid token or certificate is needed (foray enroll, or --token-file)");
      c->ending = true;
      return FORAY_OK;
    }
    c->greeted = true;
    if (h->failed.code) {
      foray_cloud_refuse(c->sm, h->failed.code, h->failed.msg);
      c->ending = true;
      return FORAY_OK;
    }
    if (h->batch) return foray_cloud_send_welcome(c->sm, &h->id, NULL);
    return foray_cloud_send_progress(c->sm, h->what, h->done, h->total);
  case FORAY_CLOUD_OPEN:
    m.kind = FORAY_BATCH_OPEN;
    m.request = ev->request;
    m.tenant = c->grant.tenant;
    m.weight = c->grant.weight;
    m.priority = c->grant.priority;
    break;
  case FORAY_CLOUD_RESUME:
    m.kind = FORAY_BATCH_RESUME;
    m.tenant = c->grant.tenant;
    m.id = ev->id;
    m.have = ev->have;
    memcpy(m.secret, ev->secret, sizeof m.secret);
    break;
  case FORAY_CLOUD_DRAFT:
    m.kind = FORAY_BATCH_DRAFT;
    m.round = ev->round;
    m.epoch = ev->epoch;
    break;
  case FORAY_CLOUD_CANCEL: m.kind = FORAY_BATCH_CANCEL; break;
  case FORAY_CLOUD_CLOSE:
    m.kind = FORAY_BATCH_CLOSE;
    m.exits = ev->exits;
    break;
  case FORAY_CLOUD_SCORE: m.kind = FORAY_BATCH_SCORE; break;
  case FORAY_CLOUD_GOODBYE: c->ending = true; return FORAY_OK;
  }
  return h->batch ? foray_batch_submit(h->batch, &m) : FORAY_E_STATE;
}

enum foray_status foray_hub_feed(struct foray_hub *h, uint64_t conn, const uint8_t *p, size_t n, int64_t now,
                                 struct foray_err *err) {
  struct conn *c = find(h, conn);
  if (!c || c->ending) return foray_err_set(err, FORAY_E_CLOSED, "connection has ended");
  enum foray_status st = foray_cloud_feed(c->sm, p, n, now, err);
  struct foray_cloud_event ev;
  /* What came before the violation counts: the peer may have been cut off in the middle. */
  while (!c->ending && foray_cloud_event(c->sm, &ev)) {
    enum foray_status s = on_event(h, c, &ev);
    if (s != FORAY_OK && st == FORAY_OK)
      st = foray_err_set(err, s, s == FORAY_E_MISMATCH ? "tokenizer or model differ" : "connection");
    keep(c, s);
  }
  keep(c, st);
  return st;
}

size_t foray_hub_output(struct foray_hub *h, uint64_t conn, const uint8_t **p) {
  struct conn *c = find(h, conn);
  return c ? foray_cloud_output(c->sm, p) : 0;
}
void foray_hub_output_consumed(struct foray_hub *h, uint64_t conn, size_t n) {
  struct conn *c = find(h, conn);
  if (c) foray_cloud_output_consumed(c->sm, n);
}
int64_t foray_hub_deadline(struct foray_hub *h, uint64_t conn) {
  struct conn *c = find(h, conn);
  return c ? foray_cloud_deadline(c->sm) : INT64_MAX;
}
enum foray_status foray_hub_tick(struct foray_hub *h, uint64_t conn, int64_t now, struct foray_err *err) {
  struct conn *c = find(h, conn);
  if (!c) return FORAY_OK;
  enum foray_status st = foray_cloud_tick(c->sm, now, err);
  keep(c, st);
  return st;
}
bool foray_hub_ending(struct foray_hub *h, uint64_t conn) {
  struct conn *c = find(h, conn);
  return !c || c->ending;
}

static enum foray_status deliver(struct conn *c, const struct foray_batch_msg *m) {
  switch (m->kind) {
  case FORAY_BATCH_OPENED: return foray_cloud_send_opened(c->sm, m->session, m->id, m->secret);
  case FORAY_BATCH_VERDICT:
    return foray_cloud_send_verdict(c->sm, &(struct foray_cloud_verdict){.session = m->session,
                                                                         .round = m->round,
                                                                         .accepted = m->accepted,
                                                                         .ids = m->ids,
                                                                         .n_ids = m->n_ids,
                                                                         .finish = m->finish,
                                                                         .verify_ns = m->verify_ns,
                                                                         .queue_ns = m->queue_ns});
  case FORAY_BATCH_STATE:
    return foray_cloud_send_state(c->sm, m->session, m->have, m->ids, m->n_ids, m->finish);
  case FORAY_BATCH_SCORED:
    return foray_cloud_send_scored(c->sm, m->session, m->start, m->logp, m->n_logp, m->last);
  case FORAY_BATCH_FAILED:
    return foray_cloud_send_failed(c->sm, m->is_request, m->session, m->code, m->text, m->retry_ms);
  case FORAY_BATCH_OPEN:
  case FORAY_BATCH_RESUME:
  case FORAY_BATCH_DRAFT:
  case FORAY_BATCH_CANCEL:
  case FORAY_BATCH_CLOSE:
  case FORAY_BATCH_SCORE:
  case FORAY_BATCH_DETACH: break;
  }
  return FORAY_OK;
}

void foray_hub_pump(struct foray_hub *h) {
  struct foray_batch_msg m;
  while (h->batch && foray_batch_result(h->batch, &m)) {
    if (m.conn & FORAY_HUB_FOREIGN) {
      if (h->sink) h->sink(h->sink_arg, &m);
      foray_batch_msg_free(&m);
      continue;
    }
    struct conn *c = find(h, m.conn);
    if (c && !c->ending) keep(c, deliver(c, &m));
    foray_batch_msg_free(&m);
  }
}

void foray_hub_sink(struct foray_hub *h, void (*fn)(void *arg, const struct foray_batch_msg *m), void *arg) {
  h->sink = fn;
  h->sink_arg = arg;
}

void foray_hub_goodbye(struct foray_hub *h, const char *text) {
  for (uint32_t i = 0; i < h->n; i++) {
    if (h->conns[i].greeted) foray_cloud_goodbye(h->conns[i].sm, text);
    h->conns[i].ending = true;
  }
}
uint32_t foray_hub_goodbye_idle(struct foray_hub *h, const char *text) {
  uint32_t busy = 0;
  for (uint32_t i = 0; i < h->n; i++) {
    if (!h->conns[i].ending && foray_cloud_busy(h->conns[i].sm)) {
      busy++;
      continue;
    }
    if (h->conns[i].greeted) foray_cloud_goodbye(h->conns[i].sm, text);
    h->conns[i].ending = true;
  }
  return busy;
}
void foray_hub_fail(struct foray_hub *h, enum foray_status code, const char *text) {
  foray_err_set(&h->failed, code, "%s", text);
  for (uint32_t i = 0; i < h->n; i++) {
    if (!h->conns[i].greeted) continue;
    foray_cloud_refuse(h->conns[i].sm, code, text);
    h->conns[i].ending = true;
  }
}
uint32_t foray_hub_count(const struct foray_hub *h) { return h->n; }
