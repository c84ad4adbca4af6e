#include "core/pool.h"

#include "core/cpu.h"
#include "core/err.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* A decode step is a few hundred short loops, so a sleeping team would spend its time waking up: workers
 * spin for a while, then sleep on the condition variable. The spin is short enough that an idle process
 * costs nothing and two processes on the same cores still make way for each other. */
enum { SPIN_ROUNDS = 20000, THREADS_MAX = 256 };

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
  _Atomic unsigned generation; /* odd bits unused; changes once a loop */
  _Atomic int next;            /* next part to hand out */
  _Atomic int busy;            /* workers that have not finished the present loop */
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
  unsigned seen = 0;
  for (;;) {
    unsigned now;
    for (int i = 0;
         (now = atomic_load_explicit(&p->generation, memory_order_acquire)) == seen && i < SPIN_ROUNDS; i++)
      relax();
    if (now == seen) {
      pthread_mutex_lock(&p->mu);
      atomic_fetch_add(&p->sleepers, 1);
      while ((now = atomic_load(&p->generation)) == seen) pthread_cond_wait(&p->wake, &p->mu);
      atomic_fetch_sub(&p->sleepers, 1);
      pthread_mutex_unlock(&p->mu);
    }
    seen = now;
    if (atomic_load(&p->stop)) return NULL;
    drain(p, w->index);
    atomic_fetch_sub_explicit(&p->busy, 1, memory_order_release);
  }
}

static void begin(struct foray_pool *p) {
  atomic_store(&p->busy, p->started);
  atomic_fetch_add(&p->generation, 1);
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
    begin(p);
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
  begin(p);
  drain(p, 0);
  while (atomic_load_explicit(&p->busy, memory_order_acquire)) relax();
}
