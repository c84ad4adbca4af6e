/* core/pool.h - a fixed team of threads for data-parallel loops. The result of a loop must not depend on
 * which thread ran which part: parts are independent by contract, so the thread count never changes a bit. */
#ifndef FORAY_CORE_POOL_H
#define FORAY_CORE_POOL_H

#include <foray/status.h>

struct foray_pool; /* opaque; owned by whoever opened it; one caller at a time */

/* part in [0, parts); parts are handed out in order, one at a time, to whichever thread is free. */
typedef void foray_pool_fn(void *arg, int part, int thread);

/* threads <= 0 means one per processor. The calling thread is one of them. */
enum foray_status foray_pool_open(int threads, struct foray_pool **out,
                                  struct foray_err *err) FORAY_NODISCARD;
void foray_pool_close(struct foray_pool *p); /* NULL is allowed */
int foray_pool_threads(const struct foray_pool *p);
/* Runs fn for every part and returns when all are done. p == NULL runs in the caller alone. */
void foray_pool_run(struct foray_pool *p, foray_pool_fn *fn, void *arg, int parts);

#endif
