#include "batch/impl.h"

#include "core/clock.h"
#include "core/err.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { TENANTS_MAX = 1024, ITEMS_MAX = 1024, PREFIX_ENTRIES = 128 };

/* ---------------------------------------------------------------- queues */

void foray_batch_msg_free(struct foray_batch_msg *m) {
  free((void *)(uintptr_t)m->request);
  free(m->ids);
  free(m->logp);
  free(m->top);
  m->top = NULL;
  m->request = NULL;
  m->ids = NULL;
  m->logp = NULL;
}

static void enqueue(struct queue *q, struct node *n) {
  n->next = NULL;
  *q->last = n;
  q->last = &n->next;
}
static struct node *dequeue(struct queue *q) {
  struct node *n = q->first;
  if (n && !(q->first = n->next)) q->last = &q->first;
  return n;
}
static void queue_free(struct queue *q) {
  for (struct node *n; (n = dequeue(q));) {
    foray_batch_msg_free(&n->m);
    free(n);
  }
}

enum foray_status foray_batch_submit(struct foray_batch *b, const struct foray_batch_msg *cmd) {
  struct node *n = malloc(sizeof *n);
  if (!n) return FORAY_E_NOMEM;
  n->m = *cmd;
  n->m.ids = NULL;
  n->m.logp = NULL;
  n->m.top = NULL;
  if (cmd->request) n->m.request = foray_gen_request_copy(cmd->request);
  if (cmd->n_ids) {
    n->m.ids = malloc(cmd->n_ids * sizeof *cmd->ids);
    if (n->m.ids) memcpy(n->m.ids, cmd->ids, cmd->n_ids * sizeof *cmd->ids);
  }
  if ((cmd->request && !n->m.request) || (cmd->n_ids && !n->m.ids)) {
    foray_batch_msg_free(&n->m);
    free(n);
    return FORAY_E_NOMEM;
  }
  pthread_mutex_lock(&b->lock);
  enqueue(&b->commands, n);
  b->woken = true;
  pthread_cond_signal(&b->wake);
  pthread_mutex_unlock(&b->lock);
  return FORAY_OK;
}

bool foray_batch_result(struct foray_batch *b, struct foray_batch_msg *out) {
  pthread_mutex_lock(&b->lock);
  struct node *n = dequeue(&b->results);
  pthread_mutex_unlock(&b->lock);
  if (!n) return false;
  *out = n->m;
  free(n);
  return true;
}

/* Takes what m owns. Out of memory here loses an answer; the edge's deadline or resume covers that. */
void batch_answer(struct foray_batch *b, struct foray_batch_msg m) {
  struct node *n = m.conn ? malloc(sizeof *n) : NULL;
  if (!n) {
    foray_batch_msg_free(&m);
    return;
  }
  n->m = m;
  pthread_mutex_lock(&b->lock);
  enqueue(&b->results, n);
  pthread_mutex_unlock(&b->lock);
}

void batch_fail(struct foray_batch *b, uint64_t conn, uint32_t session, bool is_request,
                enum foray_status code, const char *text, uint32_t retry_ms) {
  struct foray_batch_msg m = {.kind = FORAY_BATCH_FAILED,
                              .conn = conn,
                              .session = session,
                              .is_request = is_request,
                              .code = code,
                              .retry_ms = retry_ms};
  size_t n = strnlen(text, sizeof m.text - 1);
  memcpy(m.text, text, n);
  batch_answer(b, m);
}

uint32_t *batch_widen(const int32_t *ids, uint32_t n) {
  uint32_t *v = malloc((n ? n : 1) * sizeof *v);
  for (uint32_t i = 0; v && i < n; i++) v[i] = (uint32_t)ids[i];
  return v;
}

/* ---------------------------------------------------------------- life */

static int64_t monotonic(void *arg) {
  (void)arg;
  return foray_clock_ns();
}
static void system_random(void *arg, void *p, size_t n) {
  (void)arg;
  if (getrandom(p, n, 0) != (ssize_t)n) memset(p, 0, n);
}

enum foray_status foray_batch_create(const struct foray_target *target, const struct foray_batch_opts *o,
                                     struct foray_batch **out, struct foray_err *err) {
  *out = NULL;
  struct foray_batch *b = calloc(1, sizeof *b);
  if (!b) return foray_err_set(err, FORAY_E_NOMEM, "scheduler");
  b->t = target;
  if (o) b->o = *o;
  if (!b->o.sessions_max) b->o.sessions_max = 1024;
  if (!b->o.rows_max) b->o.rows_max = 64;
  if (!b->o.tokens_max) b->o.tokens_max = 512;
  if (!b->o.slice) b->o.slice = 256;
  if (b->o.slice > b->o.tokens_max) b->o.slice = b->o.tokens_max;
  if (!b->o.ttl_ns) b->o.ttl_ns = 600000000000;
  if (!b->o.now) b->o.now = monotonic;
  if (!b->o.random) b->o.random = system_random;
  b->commands.last = &b->commands.first;
  b->results.last = &b->results.first;
  b->last_score = &b->scores;
  foray_hist_init_counts(&b->stats.fill);
  foray_hist_init_counts(&b->stats.rows_hist);
  foray_hist_init_seconds(&b->stats.verify);
  foray_hist_init_seconds(&b->stats.queue);
  b->shown = b->stats;
  if (!b->o.backlog_max) b->o.backlog_max = 1 << 18;
  if (!b->o.deadline_ns) b->o.deadline_ns = 500000000;
  if (!b->o.age_ns) b->o.age_ns = 5000000000;
  if (!b->o.beside) b->o.beside = 64;
  size_t n = b->o.sessions_max;
  for (b->n_buckets = 16; b->n_buckets < n; b->n_buckets *= 2) continue;
  /* a pass feeds at most tokens_max positions, or one slice and its guesses more */
  size_t tokens = (size_t)b->o.tokens_max + b->o.slice + b->o.rows_max;
  b->sessions = calloc(n, sizeof(*b->sessions));
  b->wants = calloc(n, sizeof *b->wants);
  b->who = calloc(n, sizeof(*b->who));
  b->ready = calloc(n, sizeof(*b->ready));
  b->by_handle = calloc(b->n_buckets, sizeof(*b->by_handle));
  b->by_id = calloc(b->n_buckets, sizeof(*b->by_id));
  b->tenants = calloc(TENANTS_MAX, sizeof *b->tenants);
  b->order = calloc(2 * n, sizeof *b->order);
  b->plan = calloc(n, sizeof *b->plan);
  b->items = calloc(n, sizeof *b->items);
  b->tokens = calloc(tokens, sizeof *b->tokens);
  b->o.random(b->o.arg, &b->next_id, sizeof b->next_id);
  pthread_mutex_init(&b->lock, NULL);
  pthread_cond_init(&b->wake, NULL);
  if (!b->sessions || !b->wants || !b->who || !b->order || !b->plan || !b->items || !b->tokens || !b->ready ||
      !b->by_handle || !b->by_id || !b->tenants) {
    foray_batch_destroy(b);
    return foray_err_set(err, FORAY_E_NOMEM, "scheduler");
  }
  b->n_tenants = 1;
  b->tenants[0].weight = 1;
  if (b->o.items_max == 0 || b->o.items_max > ITEMS_MAX) b->o.items_max = ITEMS_MAX;
  if (b->o.prefix_entries >= 0)
    b->prefix =
        foray_prefix_open(target, b->o.prefix_entries ? (uint32_t)b->o.prefix_entries : PREFIX_ENTRIES);
  *out = b;
  return FORAY_OK;
}

static void score_free(struct foray_batch *b, struct score *q) {
  if (q->seq) b->t->seq_close(b->t->self, q->seq);
  free(q->ids);
  free(q->logp);
  free(q);
}

void foray_batch_destroy(struct foray_batch *b) {
  if (!b) return;
  if (b->sessions)
    for (uint32_t i = 0; i < b->n_sessions; i++) foray_session_destroy(b->t, b->sessions[i]);
  while (b->scores) {
    struct score *q = b->scores;
    b->scores = q->next;
    score_free(b, q);
  }
  foray_prefix_close(b->prefix);
  queue_free(&b->commands);
  queue_free(&b->results);
  free(b->sessions);
  free(b->wants);
  free(b->who);
  free(b->ready);
  free(b->by_handle);
  free(b->by_id);
  free(b->tenants);
  free(b->order);
  free(b->plan);
  free(b->items);
  free(b->tokens);
  free(b->logits);
  pthread_mutex_destroy(&b->lock);
  pthread_cond_destroy(&b->wake);
  free(b);
}

/* ---------------------------------------------------------------- commands */

static struct foray_session **handle_slot(struct foray_batch *b, uint64_t conn, uint32_t handle) {
  const uint64_t h = (conn * 0x9e3779b97f4a7c15u) ^ (handle * 0xd1342543de82ef95u);
  return &b->by_handle[(h >> 32) & (b->n_buckets - 1)];
}
static struct foray_session **id_slot(struct foray_batch *b, uint64_t id) {
  return &b->by_id[id & (b->n_buckets - 1)];
}
static struct foray_session *find(struct foray_batch *b, uint64_t conn, uint32_t handle) {
  struct foray_session *s = *handle_slot(b, conn, handle);
  while (s && (s->conn != conn || s->handle != handle)) s = s->next_handle;
  return s;
}
static struct foray_session *find_id(struct foray_batch *b, uint64_t id) {
  struct foray_session *s = *id_slot(b, id);
  while (s && s->id != id) s = s->next_id;
  return s;
}
/* Ties s to a connection; conn 0 unties it. */
static void tie(struct foray_batch *b, struct foray_session *s, uint64_t conn, uint32_t handle) {
  if (s->conn) {
    struct foray_session **at = handle_slot(b, s->conn, s->handle);
    while (*at != s) at = &(*at)->next_handle;
    *at = s->next_handle;
    b->stats.attached--;
  }
  s->conn = conn;
  s->handle = handle;
  if (!conn) return;
  struct foray_session **at = handle_slot(b, conn, handle);
  s->next_handle = *at;
  *at = s;
  b->stats.attached++;
}

void batch_ready(struct foray_batch *b, struct foray_session *s) {
  /* Prompts are read at once, before the first draft asks for it; not again by those who had to give memory
   * up, or two of them would take it from each other for ever. */
  const bool want =
      s->conn != 0 && s->finish == FORAY_FINISH_NONE &&
      (s->n_rounds || s->req->mode == FORAY_MODE_PLAIN || (foray_session_uncached(s) > 1 && !s->evicted));
  if (want && !s->ready_at) {
    b->ready[b->n_ready++] = s;
    s->ready_at = b->n_ready;
  } else if (!want && s->ready_at) {
    struct foray_session *last = b->ready[--b->n_ready];
    b->ready[s->ready_at - 1] = last;
    last->ready_at = s->ready_at;
    s->ready_at = 0;
  }
}

void batch_remove(struct foray_batch *b, struct foray_session *s) {
  if (s->logged) foray_journal_end(b->o.journal, s->id);
  foray_prefix_keep(b->prefix, b->tenants[s->tenant].id, s->tokens, s->cached, s->seq);
  tie(b, s, 0, 0);
  batch_ready(b, s);
  struct foray_session **at = id_slot(b, s->id);
  while (*at != s) at = &(*at)->next_id;
  *at = s->next_id;
  struct foray_session *last = b->sessions[--b->n_sessions];
  b->sessions[s->at] = last;
  last->at = s->at;
  b->tenants[s->tenant].sessions--;
  foray_session_destroy(b->t, s);
}

/* The tenant of this name; the first (everybody) when there are too many. */
static uint32_t tenant_of(struct foray_batch *b, uint64_t id, double weight, uint32_t priority) {
  uint32_t i = 0;
  while (i < b->n_tenants && b->tenants[i].id != id) i++;
  if (i == TENANTS_MAX) { /* one that has nothing here gives its place up */
    for (i = 1; i < TENANTS_MAX && b->tenants[i].sessions; i++) continue;
    if (i == TENANTS_MAX) return 0;
    b->tenants[i] = (struct tenant){.id = id};
  }
  if (i == b->n_tenants) b->tenants[b->n_tenants++] = (struct tenant){.id = id};
  struct tenant *t = &b->tenants[i];
  t->weight = weight > 0 ? weight : 1;
  t->priority = priority;
  if (t->sessions == 0 && t->share < b->clock)
    t->share = b->clock; /* what it did not use it cannot save up */
  return i;
}

static void detach(struct foray_batch *b, struct foray_session *s) {
  tie(b, s, 0, 0);
  foray_session_reset_rounds(s);
  batch_ready(b, s);
}

static void expire(struct foray_batch *b, int64_t now) {
  if (now - b->expired_at < b->o.ttl_ns / 16) return; /* it looks at all sessions */
  b->expired_at = now;
  for (uint32_t i = 0; i < b->n_sessions;) {
    struct foray_session *s = b->sessions[i];
    if (s->conn == 0 && now - s->touched >= b->o.ttl_ns)
      batch_remove(b, s);
    else
      i++;
  }
}

static bool make_room(struct foray_batch *b) {
  if (b->n_sessions < b->o.sessions_max) return true;
  struct foray_session *old = NULL;
  for (uint32_t i = 0; i < b->n_sessions; i++)
    if (b->sessions[i]->conn == 0 && (!old || b->sessions[i]->touched < old->touched)) old = b->sessions[i];
  if (old) batch_remove(b, old);
  return old != NULL;
}

static void admit(struct foray_batch *b, struct foray_session *s, uint32_t tenant) {
  s->tenant = tenant;
  b->tenants[tenant].sessions++;
  s->next_id = *id_slot(b, s->id);
  *id_slot(b, s->id) = s;
  s->at = b->n_sessions;
  b->sessions[b->n_sessions++] = s;
}

enum foray_status foray_batch_restore(struct foray_batch *b, struct foray_journal_session *j,
                                      struct foray_err *err) {
  if (b->n_sessions == b->o.sessions_max || find_id(b, j->id))
    return foray_err_set(err, FORAY_E_LIMIT, "no room for a session of the commit log");
  struct foray_session *s;
  enum foray_status st = foray_session_create(b->t, j->request, j->ids, j->n_ids, &s, err);
  if (st) return st;
  j->request = NULL; /* taken */
  s->id = j->id;
  s->logged = true;
  memcpy(s->secret_sha256, j->secret_sha256, sizeof s->secret_sha256);
  s->touched = s->waiting_since = b->o.now(b->o.arg);
  admit(b, s, tenant_of(b, j->tenant, j->weight, j->priority));
  b->stats.restored++;
  return FORAY_OK;
}

/* Milliseconds after which it is worth to ask again: what is waiting now will be done by then. */
static uint32_t retry_after(const struct foray_batch *b, uint64_t tokens) {
  const struct foray_batch_stats *st = &b->stats;
  double rate = st->engine_ns > 0 ? (double)st->tokens * 1e9 / (double)st->engine_ns : 0;
  double ms = rate > 0 ? 1e3 * (double)tokens / rate : 1000;
  return ms < 100 ? 100 : ms > 60000 ? 60000 : (uint32_t)ms;
}

/* No room is said at once, with a time: better than a promise that makes everybody slow. */
static bool admitted(struct foray_batch *b, const struct foray_batch_msg *m) {
  const char *why = NULL;
  uint64_t live = 0, backlog = 0, more = (uint64_t)m->request->n_prompt + m->n_ids;
  for (uint32_t i = 0; i < b->n_sessions; i++) {
    const struct foray_session *s = b->sessions[i];
    if (!s->conn || s->finish != FORAY_FINISH_NONE) continue;
    live += s->n_prompt + s->n_gen;
    if (s->ready_at) backlog += foray_session_uncached(s);
  }
  if (!make_room(b))
    why = "the server has no room for another session";
  else if (b->t->kv_tokens && live && live + more > b->t->kv_tokens)
    why = "the memory for keys and values is full";
  else if (backlog && backlog + more > b->o.backlog_max)
    why = "too many prompts wait to be read";
  if (!why) return true;
  b->stats.refused++;
  batch_fail(b, m->conn, m->session, false, FORAY_E_BUSY, why, retry_after(b, backlog + more));
  return false;
}

static void on_open(struct foray_batch *b, struct foray_batch_msg *m, int64_t now) {
  if (!admitted(b, m)) return;
  struct foray_session *s;
  struct foray_err err = {0};
  enum foray_status st = foray_session_create(b->t, (struct foray_gen_request *)(uintptr_t)m->request, m->ids,
                                              m->n_ids, &s, &err);
  if (st != FORAY_OK) {
    batch_fail(b, m->conn, m->session, false, st, err.msg, 0);
    return;
  }
  m->request = NULL; /* taken */
  b->stats.opened++;
  s->id = b->next_id++ & INT64_MAX; /* the journal's ids are signed */
  struct foray_batch_msg r = {
      .kind = FORAY_BATCH_OPENED, .conn = m->conn, .session = m->session, .id = s->id};
  b->o.random(b->o.arg, r.secret, sizeof r.secret);
  foray_sha256_once(r.secret, sizeof r.secret, s->secret_sha256);
  s->touched = s->waiting_since = now;
  admit(b, s, tenant_of(b, m->tenant, m->weight, m->priority));
  tie(b, s, m->conn, m->session);
  batch_ready(b, s);
  if (b->o.journal && !m->unlogged) {
    struct foray_journal_session j = {.id = s->id,
                                      .tenant = m->tenant,
                                      .weight = m->weight,
                                      .priority = m->priority,
                                      .request = s->req,
                                      .ids = m->ids,
                                      .n_ids = m->n_ids};
    memcpy(j.secret_sha256, s->secret_sha256, sizeof j.secret_sha256);
    foray_journal_begin(b->o.journal, &j);
    s->logged = true;
  }
  batch_answer(b, r);
  if (s->finish != FORAY_FINISH_NONE) /* the committed prefix had ended already */
    batch_answer(
        b, (struct foray_batch_msg){
               .kind = FORAY_BATCH_VERDICT, .conn = m->conn, .session = m->session, .finish = s->finish});
}

static void on_resume(struct foray_batch *b, const struct foray_batch_msg *m, int64_t now) {
  struct foray_session *s = find_id(b, m->id);
  uint8_t diff = 0, hash[FORAY_SHA256_BYTES];
  foray_sha256_once(m->secret, sizeof m->secret, hash);
  for (size_t i = 0; s && i < sizeof hash; i++) diff |= s->secret_sha256[i] ^ hash[i];
  if (!s || diff || m->have > s->n_gen || b->tenants[s->tenant].id != m->tenant) {
    batch_fail(b, m->conn, m->session, false, FORAY_E_NOTFOUND, "no such session on this server", 0);
    return;
  }
  b->stats.resumed++;
  foray_session_reset_rounds(s); /* also takes it from a connection that is only half dead */
  tie(b, s, m->conn, m->session);
  s->touched = s->waiting_since = now;
  batch_ready(b, s);
  struct foray_batch_msg r = {.kind = FORAY_BATCH_STATE,
                              .conn = m->conn,
                              .session = m->session,
                              .have = m->have,
                              .n_ids = s->n_gen - m->have,
                              .finish = s->finish};
  r.ids = batch_widen(s->tokens + s->n_prompt + m->have, r.n_ids);
  if (!r.ids)
    batch_fail(b, m->conn, m->session, false, FORAY_E_NOMEM, "out of memory", 0);
  else
    batch_answer(b, r);
}

static void on_cancel(struct foray_batch *b, struct foray_session *s) {
  if (s->finish != FORAY_FINISH_NONE) return;
  s->finish = FORAY_FINISH_CANCEL;
  s->n_rounds = s->n_guess = 0;
  batch_ready(b, s);
  batch_answer(b,
               (struct foray_batch_msg){
                   .kind = FORAY_BATCH_VERDICT, .conn = s->conn, .session = s->handle, .finish = s->finish});
}

static void on_score(struct foray_batch *b, const struct foray_batch_msg *m) {
  struct score *q = calloc(1, sizeof *q);
  struct foray_err err = {0};
  enum foray_status st = FORAY_E_NOMEM;
  if (q) {
    q->conn = m->conn;
    q->request = m->session;
    q->n = m->n_ids;
    q->first = m->start;
    q->ids = malloc(m->n_ids * sizeof *q->ids);
    q->logp = malloc(m->n_ids * sizeof *q->logp);
    if (q->ids && q->logp) st = b->t->seq_open(b->t->self, &q->seq, &err);
  }
  if (st != FORAY_OK) {
    batch_fail(b, m->conn, m->session, true, st, err.code ? err.msg : "out of memory", 0);
    if (q) score_free(b, q);
    return;
  }
  for (uint32_t i = 0; i < m->n_ids; i++) q->ids[i] = (int32_t)m->ids[i];
  *b->last_score = q;
  b->last_score = &q->next;
}

void batch_score_drop(struct foray_batch *b, struct score **at) {
  struct score *q = *at;
  *at = q->next;
  if (!q->next) b->last_score = at;
  score_free(b, q);
}

static void command(struct foray_batch *b, struct foray_batch_msg *m, int64_t now) {
  struct foray_session *s = NULL;
  if (m->kind == FORAY_BATCH_DRAFT || m->kind == FORAY_BATCH_CANCEL || m->kind == FORAY_BATCH_CLOSE) {
    s = find(b, m->conn, m->session);
    if (!s) return; /* failed or taken over meanwhile */
    s->touched = now;
  }
  switch (m->kind) {
  case FORAY_BATCH_OPEN: on_open(b, m, now); break;
  case FORAY_BATCH_RESUME: on_resume(b, m, now); break;
  case FORAY_BATCH_DRAFT:
    if (foray_session_draft(s, m->round, m->epoch, m->start, m->ids, m->n_ids, now)) {
      batch_ready(b, s);
      b->stats.rounds++;
      b->stats.drafted += m->n_ids;
    } else {
      batch_ready(b, s); /* it may have shown older rounds to be wrong */
      b->stats.stale_rounds++;
    }
    break;
  case FORAY_BATCH_CANCEL: on_cancel(b, s); break;
  case FORAY_BATCH_CLOSE:
    for (uint32_t e = 0; e < m->exits.n; e++) {
      b->stats.exit_drafted[e] += m->exits.drafted[e];
      b->stats.exit_accepted[e] += m->exits.accepted[e];
    }
    batch_remove(b, s);
    break;
  case FORAY_BATCH_SCORE: on_score(b, m); break;
  case FORAY_BATCH_DETACH:
    for (uint32_t i = 0; i < b->n_sessions; i++)
      if (b->sessions[i]->conn == m->conn) {
        detach(b, b->sessions[i]);
        b->sessions[i]->touched = now;
      }
    for (struct score **at = &b->scores; *at;)
      if ((*at)->conn == m->conn)
        batch_score_drop(b, at);
      else
        at = &(*at)->next;
    break;
  case FORAY_BATCH_OPENED:
  case FORAY_BATCH_VERDICT:
  case FORAY_BATCH_STATE:
  case FORAY_BATCH_SCORED:
  case FORAY_BATCH_FAILED: break;
  }
}

static bool take_commands(struct foray_batch *b, int64_t now) {
  struct queue q;
  pthread_mutex_lock(&b->lock);
  q.first = b->commands.first;
  q.last = &q.first;
  b->commands.first = NULL;
  b->commands.last = &b->commands.first;
  pthread_mutex_unlock(&b->lock);
  if (!q.first) return false;
  for (struct node *n = q.first, *next; n; n = next) {
    next = n->next;
    command(b, &n->m, now);
    foray_batch_msg_free(&n->m);
    free(n);
  }
  return true;
}

/* ---------------------------------------------------------------- a step */

static void publish(struct foray_batch *b) {
  struct foray_batch_stats *s = &b->stats;
  struct foray_prefix_stats p;
  foray_prefix_stats_get(b->prefix, &p);
  s->sessions = b->n_sessions;
  s->waiting = b->n_ready;
  s->prefix_queries = p.queries;
  s->prefix_hits = p.hits;
  pthread_mutex_lock(&b->lock);
  b->shown = *s;
  pthread_mutex_unlock(&b->lock);
}

bool foray_batch_step(struct foray_batch *b) {
  int64_t now = b->o.now(b->o.arg);
  bool any = take_commands(b, now);
  expire(b, now);
  const int64_t before = b->stats.engine_ns + b->stats.sample_ns;
  any |= batch_run_pass(b);
  if (any) b->stats.own_ns += b->o.now(b->o.arg) - now - (b->stats.engine_ns + b->stats.sample_ns - before);
  any |= batch_run_score(b);
  if (any) publish(b);
  if (any && b->o.notify) b->o.notify(b->o.arg);
  return any;
}

void foray_batch_wait(struct foray_batch *b) {
  pthread_mutex_lock(&b->lock);
  while (!b->woken && !b->commands.first) pthread_cond_wait(&b->wake, &b->lock);
  b->woken = false;
  pthread_mutex_unlock(&b->lock);
}
void foray_batch_wake(struct foray_batch *b) {
  pthread_mutex_lock(&b->lock);
  b->woken = true;
  pthread_cond_signal(&b->wake);
  pthread_mutex_unlock(&b->lock);
}
void foray_batch_stats_get(struct foray_batch *b, struct foray_batch_stats *s) {
  pthread_mutex_lock(&b->lock);
  *s = b->shown;
  pthread_mutex_unlock(&b->lock);
}
