/* batch/impl.h - what the scheduler's files share: batch.c (queues, commands) and pass.c (passes). Not for
 * other libraries. */
#ifndef FORAY_BATCH_IMPL_H
#define FORAY_BATCH_IMPL_H

#include "batch/batch.h"
#include "batch/plan.h"
#include "batch/prefix.h"
#include "batch/session.h"

#include <pthread.h>

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

/* Whoever shares the server with others: an account, a board, or everybody without a name (id 0). */
struct tenant {
  uint64_t id;
  double weight, share; /* share: tokens computed for it, divided by its weight */
  uint32_t priority, sessions;
};

struct foray_batch {
  const struct foray_target *t;
  struct foray_batch_opts o;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool woken;
  struct queue commands, results;
  /* the engine thread's own */
  struct foray_session **sessions; /* all */
  uint32_t n_sessions;
  struct foray_session **ready; /* those that want something of the next pass */
  uint32_t n_ready;
  struct foray_session **by_handle, **by_id; /* tables of chains, n_buckets each (a power of two) */
  uint32_t n_buckets;
  struct tenant *tenants;
  uint32_t n_tenants;
  double clock; /* the smallest share of the tenants of the last pass: where newcomers begin */
  struct foray_prefix *prefix;
  struct score *scores, **last_score;
  uint64_t next_id;
  int64_t expired_at;
  struct foray_plan_want *wants;
  uint32_t *order;
  struct foray_plan_item *plan;
  struct foray_session **who; /* of plan[i] */
  struct foray_target_item *items;
  float *logits;
  size_t logit_rows;
  int32_t *tokens;
  struct foray_batch_stats stats, shown; /* the engine thread's; as of the last step, under lock */
};

/* Takes what m owns. Out of memory here loses an answer; the edge's deadline or resume covers that. */
void batch_answer(struct foray_batch *b, struct foray_batch_msg m);
void batch_fail(struct foray_batch *b, uint64_t conn, uint32_t session, bool is_request,
                enum foray_status code, const char *text, uint32_t retry_ms);
uint32_t *batch_widen(const int32_t *ids, uint32_t n); /* owned by the caller; NULL: no memory */
/* After anything that changes whether s wants something. */
void batch_ready(struct foray_batch *b, struct foray_session *s);
void batch_remove(struct foray_batch *b, struct foray_session *s);
void batch_score_drop(struct foray_batch *b, struct score **at);

bool batch_run_pass(struct foray_batch *b);
bool batch_run_score(struct foray_batch *b);

#endif
