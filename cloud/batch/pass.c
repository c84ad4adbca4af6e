/* One pass of the target: what goes in (plan.h), what comes out (session.h), and memory that runs out. */
#include "batch/impl.h"

#include <stdlib.h>
#include <string.h>

static bool chooses(const struct foray_session *s) { return s->n_rounds || s->req->mode == FORAY_MODE_PLAIN; }

static bool want_rows(struct foray_batch *b, size_t rows) {
  if (rows <= b->logit_rows) return true;
  float *p = realloc(b->logits, rows * b->t->vocab * sizeof *p);
  if (!p) return false;
  b->logits = p;
  b->logit_rows = rows;
  return true;
}

/* Frees keys and values that nobody in the pass needs: kept beginnings first, then the session that rested
 * longest (those without a connection before others). Its tokens are fed again when it goes on. */
static bool evict(struct foray_batch *b, uint32_t n_items) {
  if (foray_prefix_drop(b->prefix)) return true;
  struct foray_session *old = NULL;
  for (uint32_t i = 0; i < b->n_sessions; i++) {
    struct foray_session *s = b->sessions[i];
    bool used = s->cached == 0;
    for (uint32_t k = 0; k < n_items && !used; k++) used = b->who[k] == s;
    if (!used && (!old || (!s->conn && old->conn) || (!s->conn == !old->conn && s->touched < old->touched)))
      old = s;
  }
  if (!old) return false;
  b->t->seq_truncate(b->t->self, old->seq, 0);
  old->cached = 0;
  old->evicted = true;
  old->sought = false;
  b->stats.evictions++;
  batch_ready(b, old);
  return true;
}

static void settle(struct foray_batch *b, struct foray_session *s, const struct foray_plan_item *p,
                   const float *logits, int64_t began, int64_t ended) {
  struct foray_session_verdict v[FORAY_PROTO_ROUNDS_MAX + 1];
  uint32_t n = 0, before = s->n_gen;
  const int64_t from = logits ? b->o.now(b->o.arg) : 0;
  const enum foray_status st = foray_session_advance(s, b->t, p->feed, p->guesses, logits, v, &n);
  if (logits) b->stats.sample_ns += b->o.now(b->o.arg) - from;
  if (st != FORAY_OK) {
    batch_fail(b, s->conn, s->handle, false, FORAY_E_NOMEM, "out of memory", 0);
    batch_remove(b, s);
    return;
  }
  struct tenant *t = &b->tenants[s->tenant];
  t->share += (double)(p->feed + p->guesses) / t->weight;
  b->stats.generated += s->n_gen - before;
  if (s->logged && s->n_gen > before)
    foray_journal_tokens(b->o.journal, s->id, before, s->tokens + s->n_prompt + before, s->n_gen - before);
  if (!s->kept && s->cached >= s->n_prompt) {
    s->kept = true;
    foray_prefix_keep(b->prefix, t->id, s->tokens, s->n_prompt, s->seq);
  }
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
    if (v[i].n && !(m.ids = batch_widen(s->tokens + s->n_prompt + v[i].first, v[i].n))) {
      batch_fail(b, s->conn, s->handle, false, FORAY_E_NOMEM, "out of memory", 0);
      batch_remove(b, s);
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
    batch_answer(b, m);
  }
  s->touched = ended;
  if (p->chooses) s->waiting_since = ended; /* who is still being fed keeps its place in the queue */
  batch_ready(b, s);
}

/* Fills b->plan and b->who; how many. */
static uint32_t plan(struct foray_batch *b, int64_t now) {
  double least = 0;
  for (uint32_t i = 0; i < b->n_ready;) {
    struct foray_session *s = b->ready[i];
    if (s->cached == 0 && !s->sought) { /* others may have computed its beginning */
      s->cached =
          foray_prefix_find(b->prefix, b->tenants[s->tenant].id, s->tokens, s->n_prompt + s->n_gen, s->seq);
      s->sought = true;
      batch_ready(b, s); /* one that only wanted its prompt read may have nothing left to do */
    }
    i += i < b->n_ready && b->ready[i] == s;
  }
  const uint32_t n = b->n_ready;
  for (uint32_t i = 0; i < n; i++) {
    struct foray_session *s = b->ready[i];
    const struct tenant *t = &b->tenants[s->tenant];
    if (i == 0 || t->share < least) least = t->share;
    b->wants[i] = (struct foray_plan_want){.uncached = foray_session_uncached(s),
                                           .guesses = foray_session_useful(s, b->t),
                                           .since = s->waiting_since,
                                           .deadline = s->waiting_since + b->o.deadline_ns,
                                           .share = t->share,
                                           .priority = t->priority};
  }
  b->clock = least;
  const struct foray_plan_limits l = {.items = b->o.items_max,
                                      .rows = b->o.rows_max,
                                      .tokens = b->o.tokens_max,
                                      .slice = b->o.slice,
                                      .beside = b->o.beside,
                                      .now = now,
                                      .age_ns = b->o.age_ns};
  const uint32_t n_items = foray_plan_pass(b->wants, n, &l, b->order, b->plan);
  for (uint32_t i = 0; i < n_items; i++) {
    struct foray_plan_item *p = &b->plan[i];
    b->who[i] = b->ready[p->want];
    if (p->chooses &&
        !chooses(b->who[i])) { /* only wants its prompt read: all but the token that makes logits */
      p->feed--;
      p->chooses = 0;
    }
  }
  return n_items;
}

/* Fills b->items. */
static void inputs(struct foray_batch *b, uint32_t n_items) {
  size_t rows = 0, tokens = 0;
  for (uint32_t i = 0; i < n_items; i++) {
    const struct foray_plan_item *p = &b->plan[i];
    foray_session_input(b->who[i], p->feed, p->guesses, b->tokens + tokens);
    b->items[i] = (struct foray_target_item){.seq = b->who[i]->seq,
                                             .tokens = b->tokens + tokens,
                                             .n = (int32_t)(p->feed + p->guesses),
                                             .n_logits = p->chooses ? (int32_t)p->guesses + 1 : 0,
                                             .logits = p->chooses ? b->logits + rows * b->t->vocab : NULL};
    tokens += p->feed + p->guesses;
    if (p->chooses) rows += p->guesses + 1u;
  }
}

bool batch_run_pass(struct foray_batch *b) {
  if (!b->n_ready) return false;
  int64_t began = b->o.now(b->o.arg);
  uint32_t n_items = plan(b, began);
  if (!n_items) return false;
  struct foray_err err = {0};
  enum foray_status st;
  for (;;) {
    size_t rows = 0, tokens = 0;
    for (uint32_t i = 0; i < n_items; i++) {
      rows += b->plan[i].chooses ? b->plan[i].guesses + 1u : 0;
      tokens += b->plan[i].feed + b->plan[i].guesses;
    }
    if (!want_rows(b, rows)) {
      st = FORAY_E_NOMEM;
    } else {
      inputs(b, n_items);
      began = b->o.now(b->o.arg);
      st = b->t->pass(b->t->self, b->items, (int)n_items, &err);
      if (st == FORAY_OK) {
        b->stats.rows += rows;
        b->stats.tokens += tokens;
        foray_hist_add(&b->stats.rows_hist, (double)rows);
        break;
      }
    }
    const bool memory = st == FORAY_E_LIMIT || st == FORAY_E_NOMEM;
    if (memory && evict(b, n_items)) continue;
    if (memory && n_items > 1) {
      n_items = (n_items + 1) / 2; /* the first half now; the rest comes in the next pass */
      continue;
    }
    for (uint32_t i = 0; i < n_items; i++) {
      struct foray_session *s = b->who[i];
      batch_fail(b, s->conn, s->handle, false, st, err.code ? err.msg : "out of memory", 0);
      batch_remove(b, s);
    }
    return true;
  }
  const int64_t ended = b->o.now(b->o.arg);
  b->stats.passes++;
  b->stats.engine_ns += ended - began;
  foray_hist_add(&b->stats.fill, n_items);
  foray_hist_add(&b->stats.verify, (double)(ended - began) * 1e-9);
  for (uint32_t i = 0; i < n_items; i++) settle(b, b->who[i], &b->plan[i], b->items[i].logits, began, ended);
  return true;
}

bool batch_run_score(struct foray_batch *b) {
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
    batch_fail(b, q->conn, q->request, true, st, err.msg, 0);
    batch_score_drop(b, &b->scores);
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
    batch_answer(b, m);
  } else {
    batch_fail(b, q->conn, q->request, true, FORAY_E_NOMEM, "out of memory", 0);
  }
  batch_score_drop(b, &b->scores);
  return true;
}
