#include "batch/batch.h"

#include "batch/plan.h"
#include "batch/session.h"
#include "core/clock.h"
#include "core/err.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct node {
  struct node *next;
  struct foray_batch_msg m;
};
struct queue {
  struct node *first, **last;
};

struct score {
  struct score *next;
  uint64_t conn;
  uint32_t request, n, first, done;
  int32_t *ids;
  double *logp;
  void *seq;
};

struct foray_batch {
  const struct foray_target *t;
  struct foray_batch_opts o;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool woken;
  struct queue commands, results;
  /* the engine thread's own */
  struct foray_session **sessions;
  uint32_t n_sessions;
  struct score *scores, **last_score;
  uint64_t next_id;
  struct foray_plan_want *wants;
  struct foray_session **who;
  uint32_t *order;
  struct foray_plan_item *plan;
  struct foray_target_item *items;
  float *logits;
  size_t logit_rows;
  int32_t *tokens;
  struct foray_batch_stats stats, shown; /* the engine thread's; as of the last step, under lock */
};

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
static void answer(struct foray_batch *b, struct foray_batch_msg m) {
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

static void fail(struct foray_batch *b, uint64_t conn, uint32_t session, bool is_request,
                 enum foray_status code, const char *text) {
  struct foray_batch_msg m = {
      .kind = FORAY_BATCH_FAILED, .conn = conn, .session = session, .is_request = is_request, .code = code};
  size_t n = strnlen(text, sizeof m.text - 1);
  memcpy(m.text, text, n);
  answer(b, m);
}

static uint32_t *widen(const int32_t *ids, uint32_t n) {
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
  size_t n = b->o.sessions_max;
  /* a pass feeds at most tokens_max positions, or one slice and its guesses more */
  size_t tokens = (size_t)b->o.tokens_max + b->o.slice + b->o.rows_max;
  b->sessions = calloc(n, sizeof(*b->sessions));
  b->wants = calloc(n, sizeof *b->wants);
  b->who = calloc(n, sizeof(*b->who));
  b->order = calloc(n, sizeof *b->order);
  b->plan = calloc(n, sizeof *b->plan);
  b->items = calloc(n, sizeof *b->items);
  b->tokens = calloc(tokens, sizeof *b->tokens);
  b->o.random(b->o.arg, &b->next_id, sizeof b->next_id);
  pthread_mutex_init(&b->lock, NULL);
  pthread_cond_init(&b->wake, NULL);
  if (!b->sessions || !b->wants || !b->who || !b->order || !b->plan || !b->items || !b->tokens) {
    foray_batch_destroy(b);
    return foray_err_set(err, FORAY_E_NOMEM, "scheduler");
  }
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
  queue_free(&b->commands);
  queue_free(&b->results);
  free(b->sessions);
  free(b->wants);
  free(b->who);
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

static struct foray_session *find(struct foray_batch *b, uint64_t conn, uint32_t handle) {
  for (uint32_t i = 0; i < b->n_sessions; i++)
    if (b->sessions[i]->conn == conn && b->sessions[i]->handle == handle) return b->sessions[i];
  return NULL;
}

static void remove_session(struct foray_batch *b, struct foray_session *s) {
  for (uint32_t i = 0; i < b->n_sessions; i++)
    if (b->sessions[i] == s) {
      b->sessions[i] = b->sessions[--b->n_sessions];
      break;
    }
  foray_session_destroy(b->t, s);
}

static void detach(struct foray_session *s) {
  s->conn = 0;
  foray_session_reset_rounds(s);
}

static void expire(struct foray_batch *b, int64_t now) {
  for (uint32_t i = 0; i < b->n_sessions;) {
    struct foray_session *s = b->sessions[i];
    if (s->conn == 0 && now - s->touched >= b->o.ttl_ns)
      remove_session(b, s);
    else
      i++;
  }
}

static bool make_room(struct foray_batch *b) {
  if (b->n_sessions < b->o.sessions_max) return true;
  struct foray_session *old = NULL;
  for (uint32_t i = 0; i < b->n_sessions; i++)
    if (b->sessions[i]->conn == 0 && (!old || b->sessions[i]->touched < old->touched)) old = b->sessions[i];
  if (old) remove_session(b, old);
  return old != NULL;
}

static void on_open(struct foray_batch *b, struct foray_batch_msg *m, int64_t now) {
  if (!make_room(b)) {
    b->stats.refused++;
    fail(b, m->conn, m->session, false, FORAY_E_BUSY, "the server has no room for another session");
    return;
  }
  struct foray_session *s;
  struct foray_err err = {0};
  enum foray_status st = foray_session_create(b->t, (struct foray_gen_request *)(uintptr_t)m->request, m->ids,
                                              m->n_ids, &s, &err);
  if (st != FORAY_OK) {
    fail(b, m->conn, m->session, false, st, err.msg);
    return;
  }
  m->request = NULL; /* taken */
  b->stats.opened++;
  s->id = b->next_id++;
  b->o.random(b->o.arg, s->secret, sizeof s->secret);
  s->conn = m->conn;
  s->handle = m->session;
  s->touched = s->waiting_since = now;
  b->sessions[b->n_sessions++] = s;
  struct foray_batch_msg r = {
      .kind = FORAY_BATCH_OPENED, .conn = m->conn, .session = m->session, .id = s->id};
  memcpy(r.secret, s->secret, sizeof r.secret);
  answer(b, r);
  if (s->finish != FORAY_FINISH_NONE) /* the committed prefix had ended already */
    answer(b, (struct foray_batch_msg){
                  .kind = FORAY_BATCH_VERDICT, .conn = m->conn, .session = m->session, .finish = s->finish});
}

static void on_resume(struct foray_batch *b, const struct foray_batch_msg *m, int64_t now) {
  struct foray_session *s = NULL;
  for (uint32_t i = 0; i < b->n_sessions; i++)
    if (b->sessions[i]->id == m->id) s = b->sessions[i];
  uint8_t diff = 0;
  for (size_t i = 0; s && i < sizeof s->secret; i++) diff |= s->secret[i] ^ m->secret[i];
  if (!s || diff || m->have > s->n_gen) {
    fail(b, m->conn, m->session, false, FORAY_E_NOTFOUND, "no such session on this server");
    return;
  }
  b->stats.resumed++;
  foray_session_reset_rounds(s); /* also takes it from a connection that is only half dead */
  s->conn = m->conn;
  s->handle = m->session;
  s->touched = s->waiting_since = now;
  struct foray_batch_msg r = {.kind = FORAY_BATCH_STATE,
                              .conn = m->conn,
                              .session = m->session,
                              .have = m->have,
                              .n_ids = s->n_gen - m->have,
                              .finish = s->finish};
  r.ids = widen(s->tokens + s->n_prompt + m->have, r.n_ids);
  if (!r.ids)
    fail(b, m->conn, m->session, false, FORAY_E_NOMEM, "out of memory");
  else
    answer(b, r);
}

static void on_cancel(struct foray_batch *b, struct foray_session *s) {
  if (s->finish != FORAY_FINISH_NONE) return;
  s->finish = FORAY_FINISH_CANCEL;
  s->n_rounds = s->n_guess = 0;
  answer(b, (struct foray_batch_msg){
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
    fail(b, m->conn, m->session, true, st, err.code ? err.msg : "out of memory");
    if (q) score_free(b, q);
    return;
  }
  for (uint32_t i = 0; i < m->n_ids; i++) q->ids[i] = (int32_t)m->ids[i];
  *b->last_score = q;
  b->last_score = &q->next;
}

static void drop_score(struct foray_batch *b, struct score **at) {
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
      b->stats.rounds++;
      b->stats.drafted += m->n_ids;
    } else {
      b->stats.stale_rounds++;
    }
    break;
  case FORAY_BATCH_CANCEL: on_cancel(b, s); break;
  case FORAY_BATCH_CLOSE:
    for (uint32_t e = 0; e < m->exits.n; e++) {
      b->stats.exit_drafted[e] += m->exits.drafted[e];
      b->stats.exit_accepted[e] += m->exits.accepted[e];
    }
    remove_session(b, s);
    break;
  case FORAY_BATCH_SCORE: on_score(b, m); break;
  case FORAY_BATCH_DETACH:
    for (uint32_t i = 0; i < b->n_sessions; i++)
      if (b->sessions[i]->conn == m->conn) {
        detach(b->sessions[i]);
        b->sessions[i]->touched = now;
      }
    for (struct score **at = &b->scores; *at;)
      if ((*at)->conn == m->conn)
        drop_score(b, at);
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
  bool any = false;
  for (;;) {
    pthread_mutex_lock(&b->lock);
    struct node *n = dequeue(&b->commands);
    pthread_mutex_unlock(&b->lock);
    if (!n) return any;
    command(b, &n->m, now);
    foray_batch_msg_free(&n->m);
    free(n);
    any = true;
  }
}

/* ---------------------------------------------------------------- the pass */

static bool ready(const struct foray_session *s) {
  if (s->conn == 0 || s->finish != FORAY_FINISH_NONE) return false;
  /* prompts are read at once, before the first draft asks for it; not again by those who had to give memory
   * up, or two of them would take it from each other for ever */
  return s->n_rounds || s->req->mode == FORAY_MODE_PLAIN || (foray_session_uncached(s) > 1 && !s->evicted);
}
static bool chooses(const struct foray_session *s) { return s->n_rounds || s->req->mode == FORAY_MODE_PLAIN; }

static bool want_rows(struct foray_batch *b, size_t rows) {
  if (rows <= b->logit_rows) return true;
  float *p = realloc(b->logits, rows * b->t->vocab * sizeof *p);
  if (!p) return false;
  b->logits = p;
  b->logit_rows = rows;
  return true;
}

/* Frees the keys and values of a session that is not in the pass; its tokens are fed again when it goes on.
 */
static bool evict(struct foray_batch *b, uint32_t n_items) {
  struct foray_session *old = NULL;
  for (uint32_t i = 0; i < b->n_sessions; i++) {
    struct foray_session *s = b->sessions[i];
    bool used = s->cached == 0;
    for (uint32_t k = 0; k < n_items && !used; k++) used = b->who[b->plan[k].want] == s;
    if (!used && (!old || s->touched < old->touched)) old = s;
  }
  if (!old) return false;
  b->t->seq_truncate(b->t->self, old->seq, 0);
  old->cached = 0;
  old->evicted = true;
  b->stats.evictions++;
  return true;
}

static void settle(struct foray_batch *b, struct foray_session *s, const struct foray_plan_item *p,
                   const float *logits, int64_t began, int64_t ended) {
  struct foray_session_verdict v[FORAY_PROTO_ROUNDS_MAX + 1];
  uint32_t n = 0, before = s->n_gen;
  if (foray_session_advance(s, b->t, p->feed, p->guesses, logits, v, &n) != FORAY_OK) {
    fail(b, s->conn, s->handle, false, FORAY_E_NOMEM, "out of memory");
    remove_session(b, s);
    return;
  }
  b->stats.generated += s->n_gen - before;
  for (uint32_t i = 0; i < n; i++) {
    struct foray_batch_msg m = {.kind = FORAY_BATCH_VERDICT,
                                .conn = s->conn,
                                .session = s->handle,
                                .round = v[i].round,
                                .accepted = v[i].accepted,
                                .n_ids = v[i].n,
                                .finish = v[i].finish,
                                .verify_ns = ended - began,
                                .queue_ns = began - v[i].arrived};
    if (v[i].round) b->stats.accepted += v[i].accepted;
    for (uint32_t k = 0; v[i].round && k < v[i].accepted && k < FORAY_PROTO_DRAFT_MAX; k++)
      b->stats.accepted_at[k]++;
    if (v[i].n && !(m.ids = widen(s->tokens + s->n_prompt + v[i].first, v[i].n))) {
      fail(b, s->conn, s->handle, false, FORAY_E_NOMEM, "out of memory");
      remove_session(b, s);
      return;
    }
    if (s->logp && v[i].n) {
      const uint32_t k = s->req->logprobs;
      m.logp = malloc(k * sizeof *m.logp);
      m.top = malloc(k * sizeof *m.top);
      if (m.logp && m.top) {
        m.n_logp = k;
        memcpy(m.logp, s->logp, k * sizeof *m.logp);
        memcpy(m.top, s->top, (k - 1) * sizeof *m.top);
      }
    }
    foray_hist_add(&b->stats.queue, (double)m.queue_ns * 1e-9);
    answer(b, m);
  }
  s->touched = ended;
  if (p->chooses) s->waiting_since = ended; /* who is still being fed keeps its place in the queue */
}

static bool run_pass(struct foray_batch *b) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < b->n_sessions; i++) {
    struct foray_session *s = b->sessions[i];
    if (!ready(s)) continue;
    b->who[n] = s;
    b->wants[n++] =
        (struct foray_plan_want){foray_session_uncached(s), foray_session_useful(s, b->t), s->waiting_since};
  }
  if (!n) return false;
  struct foray_plan_limits l = {b->o.sessions_max, b->o.rows_max, b->o.tokens_max, b->o.slice};
  uint32_t n_items = foray_plan_pass(b->wants, n, &l, b->order, b->plan);
  struct foray_err err = {0};
  enum foray_status st;
  int64_t began = b->o.now(b->o.arg);
  for (;;) {
    size_t rows = 0, tokens = 0;
    for (uint32_t i = 0; i < n_items; i++)
      if (b->plan[i].chooses) {
        /* a session without a round only wants its prompt read: all but the token that makes logits */
        struct foray_session *s = b->who[b->plan[i].want];
        if (!chooses(s)) {
          b->plan[i].feed--;
          b->plan[i].chooses = 0;
        } else {
          rows += b->plan[i].guesses + 1u;
        }
      }
    if (!want_rows(b, rows)) {
      st = FORAY_E_NOMEM;
    } else {
      rows = 0;
      for (uint32_t i = 0; i < n_items; i++) {
        const struct foray_plan_item *p = &b->plan[i];
        struct foray_session *s = b->who[p->want];
        foray_session_input(s, p->feed, p->guesses, b->tokens + tokens);
        b->items[i] =
            (struct foray_target_item){.seq = s->seq,
                                       .tokens = b->tokens + tokens,
                                       .n = (int32_t)(p->feed + p->guesses),
                                       .n_logits = p->chooses ? (int32_t)p->guesses + 1 : 0,
                                       .logits = p->chooses ? b->logits + rows * b->t->vocab : NULL};
        tokens += p->feed + p->guesses;
        if (p->chooses) rows += p->guesses + 1u;
      }
      st = b->t->pass(b->t->self, b->items, (int)n_items, &err);
      if (st == FORAY_OK) {
        b->stats.rows += rows;
        foray_hist_add(&b->stats.rows_hist, (double)rows);
        b->stats.tokens += tokens;
        break;
      }
    }
    bool memory = st == FORAY_E_LIMIT || st == FORAY_E_NOMEM;
    if (memory && evict(b, n_items)) continue;
    if (memory && n_items > 1) {
      n_items = (n_items + 1) / 2; /* the older half first; the rest comes in the next pass */
      continue;
    }
    for (uint32_t i = 0; i < n_items; i++) {
      struct foray_session *s = b->who[b->plan[i].want];
      fail(b, s->conn, s->handle, false, st, err.code ? err.msg : "out of memory");
      remove_session(b, s);
    }
    return true;
  }
  int64_t ended = b->o.now(b->o.arg);
  b->stats.passes++;
  b->stats.engine_ns += ended - began;
  foray_hist_add(&b->stats.fill, n_items);
  foray_hist_add(&b->stats.verify, (double)(ended - began) * 1e-9);
  for (uint32_t i = 0; i < n_items; i++)
    settle(b, b->who[b->plan[i].want], &b->plan[i], b->items[i].logits, began, ended);
  return true;
}

static bool run_score(struct foray_batch *b) {
  struct score *q = b->scores;
  if (!q) return false;
  uint32_t n = q->n - q->done;
  if (n > b->o.tokens_max) n = b->o.tokens_max;
  struct foray_err err = {0};
  /* logp[i] is of ids[i] given what is before it: the wire's value i - 1 */
  int32_t from = q->first + 1 > q->done ? (int32_t)(q->first + 1 - q->done) : 0;
  enum foray_status st =
      b->t->score(b->t->self, q->seq, q->ids + q->done, (int32_t)n, from, q->logp + q->done, &err);
  if (st == FORAY_E_LIMIT && evict(b, 0)) return true; /* once more */
  if (st != FORAY_OK) {
    fail(b, q->conn, q->request, true, st, err.msg);
    drop_score(b, &b->scores);
    return true;
  }
  q->done += n;
  if (q->done < q->n) return true;
  uint32_t count = q->n - 1 - q->first;
  struct foray_batch_msg m = {.kind = FORAY_BATCH_SCORED,
                              .conn = q->conn,
                              .session = q->request,
                              .start = q->first,
                              .n_logp = count,
                              .last = true,
                              .logp = malloc(count * sizeof(double))};
  if (m.logp) {
    memcpy(m.logp, q->logp + q->first + 1, count * sizeof(double));
    answer(b, m);
  } else {
    fail(b, q->conn, q->request, true, FORAY_E_NOMEM, "out of memory");
  }
  drop_score(b, &b->scores);
  return true;
}

static void publish(struct foray_batch *b) {
  struct foray_batch_stats *s = &b->stats;
  s->sessions = b->n_sessions;
  s->attached = s->waiting = 0;
  for (uint32_t i = 0; i < b->n_sessions; i++) {
    s->attached += b->sessions[i]->conn != 0;
    s->waiting += ready(b->sessions[i]);
  }
  pthread_mutex_lock(&b->lock);
  b->shown = *s;
  pthread_mutex_unlock(&b->lock);
}

bool foray_batch_step(struct foray_batch *b) {
  int64_t now = b->o.now(b->o.arg);
  bool any = take_commands(b, now);
  expire(b, now);
  const int64_t before = b->stats.engine_ns;
  any |= run_pass(b);
  if (any) b->stats.own_ns += b->o.now(b->o.arg) - now - (b->stats.engine_ns - before);
  any |= run_score(b);
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
