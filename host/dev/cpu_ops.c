#include "dev/cpu_ops.h"

#include "core/err.h"
#include "core/imath.h"
#include "core/pool.h"
#include "dev/cpu_exit.h"
#include "dev/cpu_gemv.h"
#include "dev/cpu_vec.h"
#include "dev/exit.h"
#include "dev/ref.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS_MAX = 96, HEAD_BLOCKS = 64, EXIT_ROWS = 2048, COLS = FORAY_ABI_COLS_MAX };

struct foray_cpu_ops {
  struct foray_kernels table;
  struct foray_pool *pool;
  int threads;
  const struct foray_cpu_gemv *gemv;
  const struct foray_cpu_vec *vec;
  foray_cpu_exit_fn *exit;
  struct foray_exit_unit *units; /* threads */
  struct foray_cpu_group *x;     /* COLUMNS_LIMIT / 32 * COLS: prepared columns of the present product */
  int64_t *y;                    /* COLS * COLUMNS_LIMIT: its rows before rounding to a vector */
  int64_t *head;                 /* threads * COLS * HEAD_BLOCKS * 16 */
  int32_t *bias;                 /* COLUMNS_LIMIT */
  int32_t *exps;                 /* COLS * COLUMNS_LIMIT / 32: attention's exponents; its values are in y */
};

/* How the row blocks of a matrix are dealt out: large parts first and small ones last, so that threads finish
 * together even when one of them is slowed down, and each reads long runs. */
struct plan {
  uint32_t start[PARTS_MAX + 1];
  int parts;
};

static void make_plan(uint32_t blocks, int threads, struct plan *p) {
  const uint32_t team = (uint32_t)threads, share = blocks / team;
  uint32_t at = 0;
  p->parts = 0;
  p->start[0] = 0;
  while (at < blocks) {
    const uint32_t left = blocks - at;
    uint32_t n = (uint32_t)p->parts < team ? share - share / 8 : left / (2 * team);
    n = team == 1 ? left : (n + 3) & ~3u; /* whole sets of streams (cpu_gemv_avx512.c) */
    if (n < 4) n = 4;
    if (n > left || p->parts == PARTS_MAX - 1) n = left;
    at += n;
    p->start[++p->parts] = at;
  }
}

struct product {
  struct foray_cpu_ops *o;
  const struct foray_matrix *w;
  struct foray_cpu_run run; /* data, blocks and acc are of the part */
  struct plan plan;
  int t;
  uint64_t any[PARTS_MAX][COLS]; /* GEMV: OR of magnitudes */
  uint32_t used;                 /* HEAD */
  int shift[COLS];
  int32_t *const *logits;
};

static void begin(struct product *p, struct foray_cpu_ops *o, const struct foray_matrix *w, int ncols,
                  const struct foray_a16 *src) {
  p->o = o;
  p->w = w;
  p->t = foray_ref_gemv_t(w->layout.groups);
  p->run = (struct foray_cpu_run){
      .block_bytes = w->layout.block_bytes, .groups = w->layout.groups, .x = o->x, .k = ncols};
  for (int c = 0; c < ncols; c++) o->gemv->prepare(src[c], w->layout.groups, c, ncols, o->x);
}

static void multiply(const struct product *p, const struct foray_cpu_run *run) {
  (p->w->qtype == FORAY_QTYPE_Q4A ? p->o->gemv->q4a : p->o->gemv->q8s)(run);
}

static void gemv_part(void *arg, int part, int thread) {
  (void)thread;
  struct product *p = arg;
  struct foray_cpu_run run = p->run;
  const uint32_t first = p->plan.start[part];
  run.blocks = p->plan.start[part + 1] - first;
  run.data = p->w->data + first * run.block_bytes;
  run.stride = p->w->layout.rows_pad;
  run.acc = p->o->y + (size_t)first * 16;
  multiply(p, &run);
  for (int c = 0; c < run.k; c++)
    p->any[part][c] = p->o->vec->finish(run.acc + (size_t)c * run.stride, p->w->mant + (size_t)first * 16,
                                        run.blocks * 16, p->t);
}

static void gemv(void *arg, const struct foray_matrix *w, int ncols, const struct foray_a16 *src,
                 const struct foray_y32 *dst) {
  struct foray_cpu_ops *o = arg;
  struct product p;
  const uint32_t rows = w->layout.rows_pad;
  int32_t exp[COLS];
  for (int c = 0; c < ncols; c++) exp[c] = foray_clamp_exp(*src[c].exp) + w->exp;
  begin(&p, o, w, ncols, src);
  make_plan(rows / 16, o->threads, &p.plan);
  foray_pool_run(o->pool, gemv_part, &p, p.plan.parts);
  struct foray_y32 bias = {&(int32_t){0}, o->bias};
  for (int c = 0; c < ncols; c++) {
    uint64_t any = 0;
    for (int i = 0; i < p.plan.parts; i++) any |= p.any[i][c];
    if (any == 0) {
      memset(dst[c].m, 0, rows * sizeof *dst[c].m);
      *dst[c].exp = FORAY_ABI_EXP_ZERO;
    } else {
      const int s = 64 - __builtin_clzll(any) - FORAY_ABI_Y32_BITS;
      o->vec->narrow(o->y + (size_t)c * rows, rows, s, dst[c].m);
      *dst[c].exp = foray_clamp_exp((int64_t)exp[c] + p.t + s);
    }
  }
  if (!w->bias) return;
  for (uint32_t r = 0; r < rows; r++) o->y[r] = w->bias[r];
  foray_ref_norm30(o->y, rows, w->bias_exp, bias);
  for (int c = 0; c < ncols; c++) o->vec->add(NULL, rows, dst[c], bias);
}

static void head_part(void *arg, int part, int thread) {
  struct product *p = arg;
  struct foray_cpu_run run = p->run;
  const uint32_t first = p->plan.start[part];
  run.stride = HEAD_BLOCKS * 16;
  run.acc = p->o->head + (size_t)thread * COLS * HEAD_BLOCKS * 16;
  for (uint32_t b = first; b < p->plan.start[part + 1]; b += HEAD_BLOCKS) {
    const uint32_t left = p->plan.start[part + 1] - b;
    run.blocks = left < HEAD_BLOCKS ? left : HEAD_BLOCKS;
    run.data = p->w->data + b * run.block_bytes;
    multiply(p, &run);
    const uint32_t row = b * 16, rows = p->used - row < run.blocks * 16 ? p->used - row : run.blocks * 16;
    for (int c = 0; c < run.k; c++)
      p->o->vec->logits(run.acc + (size_t)c * run.stride, p->w->mant + row, rows, p->t, p->shift[c],
                        p->logits[c] + row);
  }
}

static void head(void *arg, const struct foray_matrix *w, uint32_t used, int ncols,
                 const struct foray_a16 *src, int32_t *const *logits) {
  struct foray_cpu_ops *o = arg;
  struct product p;
  begin(&p, o, w, ncols, src);
  p.used = used;
  p.logits = logits;
  for (int c = 0; c < ncols; c++) p.shift[c] = -(foray_clamp_exp(*src[c].exp) + w->exp + p.t + 16);
  make_plan((used + 15) / 16, o->threads, &p.plan);
  foray_pool_run(o->pool, head_part, &p, p.plan.parts);
}

/* Each (column, query head) is a part. */
struct attention {
  struct foray_cpu_ops *o;
  const struct foray_desc_attn *d;
  const struct foray_kv *kv;
  const uint32_t *position;
  const struct foray_a16 *q; /* lives in the destination until the end */
};

static void attn_part(void *arg, int part, int thread) {
  (void)thread;
  struct attention *t = arg;
  const uint32_t heads = t->d->heads, hd = t->d->head_dim, groups = hd / FORAY_ABI_GROUP;
  const uint32_t c = (uint32_t)part / heads, h = (uint32_t)part % heads;
  const struct foray_a16 q = t->q[c];
  t->o->vec->attn_head(&(struct foray_cpu_attn){
      .head_dim = hd,
      .record = t->kv->record,
      .n = t->position[c] + 1,
      .records = t->kv->base + (uint64_t)(h / (heads / t->d->kv_heads)) * t->kv->max_pos * t->kv->record,
      .q = q.m + h * hd,
      .shift = q.shift + h * groups,
      .q_exp = *q.exp,
      .scale = (int32_t)t->d->scale,
      .scale_exp = t->d->scale_exp,
      .out = t->o->y + ((size_t)c * heads + h) * hd,
      .exp = t->o->exps + ((size_t)c * heads + h) * groups,
  });
}

static void attn(void *arg, const struct foray_desc_attn *d, const struct foray_kv *kv, int ncols,
                 const uint32_t *position, const struct foray_y32 *q, const struct foray_a16 *dst) {
  struct foray_cpu_ops *o = arg;
  const uint32_t n = d->heads * d->head_dim;
  for (int c = 0; c < ncols; c++) o->vec->quant(NULL, n, q[c], dst[c]);
  struct attention t = {o, d, kv, position, dst};
  foray_pool_run(o->pool, attn_part, &t, ncols * (int)d->heads);
  for (int c = 0; c < ncols; c++)
    o->vec->to_a16(o->y + (size_t)c * n, n, o->exps + (size_t)c * (n / FORAY_ABI_GROUP), dst[c]);
}

struct stream {
  struct foray_cpu_ops *o;
  const int32_t *logits;
  const uint32_t *ids;
  uint32_t n;
  const struct foray_sampling *s;
};

static void exit_part(void *arg, int part, int thread) {
  const struct stream *t = arg;
  const uint32_t first = (uint32_t)part * EXIT_ROWS;
  t->o->exit(t->logits, t->ids, first, t->n - first < EXIT_ROWS ? t->n - first : EXIT_ROWS, t->s,
             &t->o->units[thread]);
}

static void exit_stream(void *arg, const int32_t *logits, const uint32_t *ids, uint32_t n,
                        const struct foray_sampling *s, struct foray_exit_unit *u) {
  struct foray_cpu_ops *o = arg;
  if (o->threads == 1 || n <= EXIT_ROWS) {
    o->exit(logits, ids, 0, n, s, u);
    return;
  }
  struct stream t = {o, logits, ids, n, s};
  for (int i = 0; i < o->threads; i++) foray_exit_clear(&o->units[i]);
  foray_pool_run(o->pool, exit_part, &t, (int)((n + EXIT_ROWS - 1) / EXIT_ROWS));
  for (int i = 0; i < o->threads; i++) foray_cpu_exit_merge(u, &o->units[i]);
}

static void rmsnorm(void *arg, const struct foray_desc_rmsnorm *d, const int32_t *gamma, struct foray_y32 src,
                    struct foray_a16 dst) {
  ((struct foray_cpu_ops *)arg)->vec->rmsnorm(arg, d, gamma, src, dst);
}
static void silu_mul(void *arg, uint32_t n, struct foray_y32 gate, struct foray_y32 up,
                     struct foray_a16 dst) {
  ((struct foray_cpu_ops *)arg)->vec->silu_mul(arg, n, gate, up, dst);
}
static void quant(void *arg, uint32_t n, struct foray_y32 src, struct foray_a16 dst) {
  ((struct foray_cpu_ops *)arg)->vec->quant(arg, n, src, dst);
}
static void add(void *arg, uint32_t n, struct foray_y32 acc, struct foray_y32 src) {
  ((struct foray_cpu_ops *)arg)->vec->add(arg, n, acc, src);
}

static void *memory(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

enum foray_status foray_cpu_ops_open(enum foray_isa isa, int threads, struct foray_cpu_ops **out,
                                     struct foray_err *err) {
  *out = NULL;
  struct foray_cpu_ops *o = calloc(1, sizeof *o);
  if (!o) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for the cpu device");
  enum foray_status st = foray_pool_open(threads, &o->pool, err);
  if (st != FORAY_OK) {
    foray_cpu_ops_close(o);
    return st;
  }
  o->threads = foray_pool_threads(o->pool);
  o->gemv = foray_cpu_gemv_of(isa);
  o->vec = foray_cpu_vec_of(isa);
  o->exit = foray_cpu_exit_of(isa);
  o->units = memory((size_t)o->threads * sizeof *o->units);
  o->x = memory(FORAY_ABI_COLUMNS_LIMIT / FORAY_ABI_GROUP * COLS * sizeof *o->x);
  o->y = memory(COLS * (size_t)FORAY_ABI_COLUMNS_LIMIT * sizeof *o->y);
  o->head = memory((size_t)o->threads * COLS * HEAD_BLOCKS * 16 * sizeof *o->head);
  o->bias = memory(FORAY_ABI_COLUMNS_LIMIT * sizeof *o->bias);
  o->exps = memory(COLS * (size_t)FORAY_ABI_COLUMNS_LIMIT / FORAY_ABI_GROUP * sizeof *o->exps);
  if (!o->x || !o->y || !o->head || !o->bias || !o->exps || !o->units) {
    foray_cpu_ops_close(o);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory for the cpu device");
  }
  o->table = foray_ref_kernels;
  o->table.gemv = gemv;
  o->table.head = head;
  o->table.rmsnorm = rmsnorm;
  o->table.silu_mul = silu_mul;
  o->table.quant = quant;
  o->table.add = add;
  o->table.exit_stream = exit_stream;
  if (o->vec->attn_head) o->table.attn = attn;
  *out = o;
  return FORAY_OK;
}

void foray_cpu_ops_close(struct foray_cpu_ops *o) {
  if (!o) return;
  foray_pool_close(o->pool);
  free(o->x);
  free(o->y);
  free(o->head);
  free(o->bias);
  free(o->exps);
  free(o->units);
  free(o);
}

const struct foray_kernels *foray_cpu_ops_kernels(const struct foray_cpu_ops *o) { return &o->table; }
