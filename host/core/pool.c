#include "core/pool.h"

#include "core/cpu.h"
#include "core/err.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

/* A decode step is a few hundred short loops, so a sleeping team would spend its time waking up: workers
 * spin for a while, then sleep on the condition variable. The spin is short enough that an idle process
 * costs nothing, and it gives the processor away every few microseconds: two processes on the same cores make
 * way for each other. A loop waits only for workers that have joined it. One that does not get a processor in
 * time is not missed: the others take the parts. */
enum { SPIN_ROUNDS = 20000, YIELD_EVERY = 64, THREADS_MAX = 256 };

/* state = generation of the loop, whether workers may still join it, and how many are in it. */
#define GENERATION(s) ((s) >> 32)
#define OPEN          ((uint64_t)1 << 31)
#define ACTIVE(s)     ((s) & (OPEN - 1))

struct worker {
  struct foray_pool *pool;
  pthread_t id;
  int index;
};

struct foray_pool {
  int threads;
  struct worker *workers; /* threads - 1 of them: the caller is thread 0 */
  int started;
  foray_pool_fn *fn;
  void *arg;
  int parts;
  _Atomic uint64_t state;
  _Atomic int next; /* next part to hand out */
  _Atomic int sleepers;
  _Atomic int stop;
  pthread_mutex_t mu;
  pthread_cond_t wake;
};

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* The i-th turn of a waiting loop. */
static void wait_turn(int i) {
  if (i % YIELD_EVERY == YIELD_EVERY - 1)
    sched_yield();
  else
    relax();
}

static void drain(struct foray_pool *p, int thread) {
  for (;;) {
    int part = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
    if (part >= p->parts) return;
    p->fn(p->arg, part, thread);
  }
}

static void *worker_main(void *arg) {
  struct worker *w = arg;
  struct foray_pool *p = w->pool;
  uint64_t seen = 0;
  for (;;) {
    uint64_t now;
    for (int i = 0; GENERATION(now = atomic_load(&p->state)) == seen && i < SPIN_ROUNDS; i++) wait_turn(i);
    if (GENERATION(now) == seen) {
      pthread_mutex_lock(&p->mu);
      atomic_fetch_add(&p->sleepers, 1);
      while (GENERATION(now = atomic_load(&p->state)) == seen) pthread_cond_wait(&p->wake, &p->mu);
      atomic_fetch_sub(&p->sleepers, 1);
      pthread_mutex_unlock(&p->mu);
    }
    if (atomic_load(&p->stop)) return NULL;
    /* fn, arg and parts may be read from here to the subtraction: the caller waits for that one. */
    while ((now & OPEN) && !atomic_compare_exchange_weak(&p->state, &now, now + 1)) continue;
    seen = GENERATION(now);
    if (!(now & OPEN)) continue;
    drain(p, w->index);
    atomic_fetch_sub(&p->state, 1);
  }
}

static void begin(struct foray_pool *p, uint64_t open) {
  uint64_t generation = (GENERATION(atomic_load(&p->state)) + 1) & UINT32_MAX;
  atomic_store(&p->state, generation << 32 | open);
  if (atomic_load(&p->sleepers)) {
    pthread_mutex_lock(&p->mu);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mu);
  }
}

enum foray_status foray_pool_open(int threads, struct foray_pool **out, struct foray_err *err) {
  *out = NULL;
  if (threads <= 0) threads = foray_cpu_count();
  if (threads > THREADS_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "%d threads asked for; at most %d are allowed", threads,
                         THREADS_MAX);
  struct foray_pool *p = calloc(1, sizeof *p);
  if (!p) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a thread team");
  p->threads = threads;
  pthread_mutex_init(&p->mu, NULL);
  pthread_cond_init(&p->wake, NULL);
  p->workers = calloc((size_t)threads, sizeof *p->workers);
  if (!p->workers) {
    foray_pool_close(p);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory for %d threads", threads);
  }
  for (int i = 0; i < threads - 1; i++) {
    p->workers[i] = (struct worker){.pool = p, .index = i + 1};
    int rc = pthread_create(&p->workers[i].id, NULL, worker_main, &p->workers[i]);
    if (rc) {
      foray_pool_close(p);
      return foray_err_set(err, FORAY_E_NOMEM, "cannot start thread %d of %d (error %d)", i + 2, threads, rc);
    }
    p->started++;
  }
  *out = p;
  return FORAY_OK;
}

void foray_pool_close(struct foray_pool *p) {
  if (!p) return;
  if (p->started) {
    atomic_store(&p->stop, 1);
    begin(p, 0);
    for (int i = 0; i < p->started; i++) pthread_join(p->workers[i].id, NULL);
  }
  pthread_cond_destroy(&p->wake);
  pthread_mutex_destroy(&p->mu);
  free(p->workers);
  free(p);
}

int foray_pool_threads(const struct foray_pool *p) { return p ? p->threads : 1; }

void foray_pool_run(struct foray_pool *p, foray_pool_fn *fn, void *arg, int parts) {
  if (!p || p->started == 0 || parts <= 1) {
    for (int i = 0; i < parts; i++) fn(arg, i, 0);
    return;
  }
  p->fn = fn;
  p->arg = arg;
  p->parts = parts;
  atomic_store(&p->next, 0);
  begin(p, OPEN);
  drain(p, 0);
  atomic_fetch_and(&p->state, ~OPEN);
  for (int i = 0; ACTIVE(atomic_load(&p->state)); i = (i + 1) % YIELD_EVERY) wait_turn(i);
}
