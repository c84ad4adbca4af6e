/* The kernel table: each op becomes enqueues on an in-order queue. */
#include "opencl/opencl.h"

#include "dev/exit.h"
#include "dev/ref.h"

#include <string.h>
#include <sys/mman.h>

enum { COLS = FORAY_ABI_COLS_MAX, XW = 18 /* kernels.cl */ };

_Static_assert(sizeof(struct foray_exit_unit) == 8280, "unit_t of kernels.cl");

bool ocl_bad(struct ocl *o, cl_int e, const char *what) {
  if (e == CL_SUCCESS) return false;
  if (!o->failed) o->failed = e, o->what = what;
  return true;
}

bool ocl_room(struct ocl *o, cl_mem *m, size_t *have, size_t bytes) {
  if (*have >= bytes) return true;
  cl_int e;
  cl_mem p = clCreateBuffer(o->context, CL_MEM_READ_WRITE, bytes, NULL, &e);
  if (ocl_bad(o, e, "work space")) return false;
  if (*m) clReleaseMemObject(*m); /* commands that use it keep it */
  *m = p;
  *have = bytes;
  return true;
}

void ocl_release_space(struct ocl *o) {
  cl_mem *const all[] = {&o->y, &o->any, &o->x, &o->exps, &o->bias, &o->unit};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (*all[i]) clReleaseMemObject(*all[i]);
  for (int i = 0; i < FORAY_SOFT_AREAS; i++) {
    if (o->area[i].mem) clReleaseMemObject(o->area[i].mem);
    if (o->area[i].shadow) munmap(o->area[i].shadow, (size_t)o->area[i].bytes);
  }
}

/* ---- launching ---- */

struct arg {
  size_t size;
  const void *p;
};
#define U32(v)                                                                                               \
  {                                                                                                          \
    4, &(uint32_t) { (uint32_t)(v) }                                                                         \
  }
#define I32(v)                                                                                               \
  {                                                                                                          \
    4, &(int32_t) { (int32_t)(v) }                                                                           \
  }
#define U64(v)                                                                                               \
  {                                                                                                          \
    8, &(uint64_t) { (uint64_t)(v) }                                                                         \
  }
#define MEM(m)                                                                                               \
  { sizeof(cl_mem), &(m) }
#define AREA(o, which) MEM((o)->area[FORAY_SOFT_##which].mem)

static void launch(struct ocl *o, enum ocl_kernel k, size_t groups, size_t local, const struct arg *a,
                   cl_uint n) {
  if (o->failed) return;
  for (cl_uint i = 0; i < n; i++)
    if (ocl_bad(o, clSetKernelArg(o->kernel[k], i, a[i].size, a[i].p), "clSetKernelArg")) return;
  const size_t global = groups * local;
  (void)ocl_bad(o, clEnqueueNDRangeKernel(o->queue, o->kernel[k], 1, NULL, &global, &local, 0, NULL, NULL),
                "clEnqueueNDRangeKernel");
}
#define LAUNCH(o, k, groups, local, ...)                                                                     \
  do {                                                                                                       \
    const struct arg args_[] = {__VA_ARGS__};                                                                \
    launch(o, OCL_##k, groups, local, args_, sizeof args_ / sizeof *args_);                                  \
  } while (0)

static uint64_t offset(const struct ocl *o, enum foray_soft_area which, const void *p) {
  return (uint64_t)((const uint8_t *)p - o->area[which].shadow);
}
static uint64_t heap_of(const struct ocl *o, const void *p) { return offset(o, FORAY_SOFT_HEAP, p); }

/* Kernels take a vector's place and a column; the interpreter gives the place of the column itself. */
struct place {
  uint64_t at;
  uint32_t column;
};
static struct place vector(const struct ocl *o, const void *p) {
  return (struct place){offset(o, FORAY_SOFT_SCRATCH, p), 0};
}

static bool y_room(struct ocl *o, uint64_t elements) {
  return ocl_room(o, &o->y, &o->y_bytes, (size_t)elements * 8);
}

/* ---- vector ops: one column a call ---- */

static void embed(void *arg, const struct foray_matrix *w, uint32_t row, struct foray_y32 dst) {
  struct ocl *o = arg;
  const struct place d = vector(o, dst.exp);
  o->prepared.src = NULL;
  LAUNCH(o, embed, 1, o->local, AREA(o, HEAP), AREA(o, SCRATCH), U64(heap_of(o, w->mant)), U64(d.at),
         U32(w->cols), U32(w->layout.block_bytes), U64(w->layout.data_at), U32(row), I32(w->exp), U32(0));
}

static void rmsnorm(void *arg, const struct foray_desc_rmsnorm *d, const int32_t *gamma, struct foray_y32 src,
                    struct foray_a16 dst) {
  struct ocl *o = arg;
  o->prepared.src = NULL;
  if (!y_room(o, d->n)) return;
  LAUNCH(o, rmsnorm, 1, o->local, AREA(o, HEAP), AREA(o, SCRATCH), MEM(o->y), U64(vector(o, src.exp).at),
         U64(vector(o, dst.exp).at), U32(d->n), U64(heap_of(o, gamma)), I32(d->gamma_exp), I32(d->eps_exp),
         U32(d->eps_mant), U32(d->root_n), U32(0));
}

static void quant(void *arg, uint32_t n, struct foray_y32 src, struct foray_a16 dst) {
  struct ocl *o = arg;
  o->prepared.src = NULL;
  if (!y_room(o, n)) return;
  LAUNCH(o, quant, 1, o->local, AREA(o, SCRATCH), MEM(o->y), U64(vector(o, src.exp).at),
         U64(vector(o, dst.exp).at), U32(n), U32(0));
}

static void add(void *arg, uint32_t n, struct foray_y32 acc, struct foray_y32 src) {
  struct ocl *o = arg;
  o->prepared.src = NULL;
  if (!y_room(o, n)) return;
  LAUNCH(o, add, 1, o->local, AREA(o, SCRATCH), MEM(o->y), U64(vector(o, acc.exp).at),
         U64(vector(o, src.exp).at), U32(n), U32(0));
}

static void silu_mul(void *arg, uint32_t n, struct foray_y32 gate, struct foray_y32 up,
                     struct foray_a16 dst) {
  struct ocl *o = arg;
  o->prepared.src = NULL;
  if (!y_room(o, n)) return;
  LAUNCH(o, silu_mul, 1, o->local, AREA(o, SCRATCH), MEM(o->y), U64(vector(o, gate.exp).at),
         U64(vector(o, up.exp).at), U64(vector(o, dst.exp).at), U32(n), U32(0));
}

static void rope(void *arg, const struct foray_desc_rope *d, const uint64_t *freq, uint32_t position,
                 struct foray_y32 v) {
  struct ocl *o = arg;
  o->prepared.src = NULL;
  LAUNCH(o, rope, 1, o->local, AREA(o, HEAP), AREA(o, SCRATCH), U64(vector(o, v.exp).at), U32(d->head_dim),
         U32(d->heads), U32((d->flags & FORAY_DF_NEOX) != 0), U64(heap_of(o, freq)), U32(position), U32(0));
}

static void kv_put(void *arg, const struct foray_kv *kv, uint32_t position, struct foray_y32 k,
                   struct foray_y32 v) {
  struct ocl *o = arg;
  LAUNCH(o, kv_put, 1, o->local, AREA(o, HEAP), AREA(o, SCRATCH), U64(vector(o, k.exp).at),
         U64(vector(o, v.exp).at), U64(heap_of(o, kv->base)), U32(kv->head_dim), U32(kv->heads),
         U32(kv->record), U32(kv->max_pos), U32(position), U32(0));
}

/* ---- ops over all columns of a pass; columns follow one another in the scratchpad ---- */

static void attn(void *arg, const struct foray_desc_attn *d, const struct foray_kv *kv, int ncols,
                 const uint32_t *position, const struct foray_y32 *q, const struct foray_a16 *dst) {
  struct ocl *o = arg;
  const uint32_t n = d->heads * d->head_dim;
  const size_t cols = (size_t)ncols;
  o->prepared.src = NULL;
  if (!y_room(o, (uint64_t)n * cols) || !ocl_room(o, &o->exps, &o->exps_bytes, (size_t)n / 32 * 4 * cols))
    return;
  const uint64_t out = vector(o, dst[0].exp).at;
  LAUNCH(o, quant, cols, o->local, AREA(o, SCRATCH), MEM(o->y), U64(vector(o, q[0].exp).at), U64(out), U32(n),
         U32(0));
  LAUNCH(o, attn, cols * d->heads, o->local, AREA(o, HEAP), AREA(o, SCRATCH), MEM(o->y), MEM(o->exps),
         U64(out), U32(d->head_dim), U32(d->heads), U32(d->kv_heads), U64(heap_of(o, kv->base)),
         U32(kv->record), U32(kv->max_pos), U32(d->scale), I32(d->scale_exp), U32(position[0]), U32(0));
  LAUNCH(o, attn_end, cols, o->local, AREA(o, SCRATCH), MEM(o->y), MEM(o->exps), U64(out), U32(n), U32(0));
}

/* Mantissas, shifts and sums of the columns, unless they are those of the product before. */
static bool prepare(struct ocl *o, const struct foray_matrix *w, int ncols, const struct foray_a16 *src) {
  const uint32_t cols = (uint32_t)ncols, groups = w->layout.groups;
  if (!ocl_room(o, &o->x, &o->x_bytes, (size_t)groups * cols * XW * 4)) return false;
  if (o->prepared.src == src[0].exp && o->prepared.n == w->cols && o->prepared.ncols == cols) return true;
  LAUNCH(o, prepare, (groups * cols + o->local - 1) / o->local, o->local, AREA(o, SCRATCH), MEM(o->x),
         U64(vector(o, src[0].exp).at), U32(w->cols), U32(0), U32(cols));
  o->prepared.src = src[0].exp, o->prepared.n = w->cols, o->prepared.ncols = cols;
  return true;
}

static size_t groups_of(const struct ocl *o, uint32_t rows) {
  return ((size_t)(rows + 15) / 16 * (16 / o->lanes) + o->group - 1) / o->group;
}

static void gemv(void *arg, const struct foray_matrix *w, int ncols, const struct foray_a16 *src,
                 const struct foray_y32 *dst) {
  struct ocl *o = arg;
  const uint32_t rows = w->layout.rows_pad, items = rows / o->lanes, cols = (uint32_t)ncols;
  const int t = foray_ref_gemv_t(w->layout.groups);
  if (!y_room(o, (uint64_t)rows * cols) || !ocl_room(o, &o->any, &o->any_bytes, (size_t)items * cols * 8) ||
      !ocl_room(o, &o->bias, &o->bias_bytes, (size_t)(rows + 16) * cols * 4) || !prepare(o, w, ncols, src))
    return;
  const uint64_t at = heap_of(o, w->mant);
  LAUNCH(o, gemv, groups_of(o, rows), o->group, AREA(o, HEAP), MEM(o->y), MEM(o->any), MEM(o->x), U64(at),
         U64(w->layout.data_at), U32(w->layout.block_bytes), U32(w->qtype == FORAY_QTYPE_Q8S), U32(rows),
         U32(w->layout.groups), U32(cols), I32(t));
  LAUNCH(o, gemv_end, cols, o->local, AREA(o, HEAP), AREA(o, SCRATCH), MEM(o->y), MEM(o->any),
         U64(vector(o, dst[0].exp).at), U32(rows), U32(items), I32(w->exp + t), U64(vector(o, src[0].exp).at),
         U32(w->cols), U64(w->bias ? at + w->layout.bias_at : 0), I32(w->bias_exp), MEM(o->bias), U32(0));
}

void ocl_gemv_once(struct ocl *o, uint64_t matrix, const struct foray_dev_matrix *m, uint32_t q8s,
                   uint32_t group) {
  const uint32_t items = m->rows_pad / o->lanes;
  if (!y_room(o, m->rows_pad) || !ocl_room(o, &o->any, &o->any_bytes, (size_t)items * 8) ||
      !ocl_room(o, &o->x, &o->x_bytes, (size_t)m->groups * XW * 4))
    return;
  LAUNCH(o, gemv, (items + group - 1) / group, group, AREA(o, HEAP), MEM(o->y), MEM(o->any), MEM(o->x),
         U64(matrix), U64(m->data_at), U32(m->block_bytes), U32(q8s), U32(m->rows_pad), U32(m->groups),
         U32(1), I32(foray_ref_gemv_t(m->groups)));
}

static void head(void *arg, const struct foray_matrix *w, uint32_t used, int ncols,
                 const struct foray_a16 *src, int32_t *const *logits) {
  struct ocl *o = arg;
  const int t = foray_ref_gemv_t(w->layout.groups);
  const uint64_t cap = ncols > 1 ? (uint64_t)(logits[1] - logits[0]) : 0;
  if (!prepare(o, w, ncols, src)) return;
  LAUNCH(o, head, groups_of(o, used), o->group, AREA(o, HEAP), AREA(o, SCRATCH), AREA(o, LOGITS), MEM(o->x),
         U64(heap_of(o, w->mant)), U64(w->layout.data_at), U32(w->layout.block_bytes),
         U32(w->qtype == FORAY_QTYPE_Q8S), U32(used), U32(w->layout.groups), U32(ncols), I32(t), I32(w->exp),
         U64(vector(o, src[0].exp).at), U32(w->cols), U32(0), U32(cap));
}

/* The one place where the processor waits for the device inside a run. */
static void exit_stream(void *arg, const int32_t *logits, const uint32_t *ids, uint32_t n,
                        const struct foray_sampling *s, struct foray_exit_unit *u) {
  struct ocl *o = arg;
  foray_exit_clear(u);
  if (!ocl_room(o, &o->unit, &o->unit_bytes, o->units * sizeof *u)) return;
  LAUNCH(o, exit_stream, o->units, o->local, AREA(o, HEAP), AREA(o, LOGITS), MEM(o->unit),
         U64(offset(o, FORAY_SOFT_LOGITS, logits) / 4), U64(ids ? heap_of(o, ids) : 0), U32(n), U32(s->on),
         U32(s->inv_temp), U64(s->seed), U32(s->position));
  LAUNCH(o, exit_merge, 1, o->local, MEM(o->unit), U32(o->units));
  if (!o->failed)
    (void)ocl_bad(o, clEnqueueReadBuffer(o->queue, o->unit, CL_TRUE, 0, sizeof *u, u, 0, NULL, NULL),
                  "exit unit");
  if (o->failed) { /* something that is defined; the run ends with an error whatever it does */
    foray_exit_clear(u);
    u->rows = n, u->bin_z[0] = 1, u->best_id = 0;
  }
}

const struct foray_kernels ocl_kernels = {
    .embed = embed,
    .rmsnorm = rmsnorm,
    .gemv = gemv,
    .head = head,
    .exit_stream = exit_stream,
    .rope = rope,
    .kv_put = kv_put,
    .attn = attn,
    .silu_mul = silu_mul,
    .quant = quant,
    .add = add,
};

/* ---- memory ---- */

static void *area(void *arg, enum foray_soft_area which, uint64_t bytes) {
  struct ocl *o = arg;
  struct ocl_area *a = &o->area[which];
  if (a->mem) clReleaseMemObject(a->mem);
  if (a->shadow) munmap(a->shadow, (size_t)a->bytes);
  *a = (struct ocl_area){0};
  cl_int e;
  cl_mem m = clCreateBuffer(o->context, CL_MEM_READ_WRITE, (size_t)bytes, NULL, &e);
  if (ocl_bad(o, e, "clCreateBuffer")) return NULL;
  void *p = mmap(NULL, (size_t)bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  const cl_uint zero = 0;
  if (p == MAP_FAILED ||
      ocl_bad(o, clEnqueueFillBuffer(o->queue, m, &zero, 4, 0, (size_t)bytes, 0, NULL, NULL),
              "clEnqueueFillBuffer")) {
    clReleaseMemObject(m);
    return NULL;
  }
  *a = (struct ocl_area){p, bytes, m};
  return p;
}

static struct ocl_area *area_of(struct ocl *o, const void *p, uint64_t *at) {
  for (int i = 0; i < FORAY_SOFT_AREAS; i++) {
    struct ocl_area *a = &o->area[i];
    const uint64_t d = (uint64_t)((uintptr_t)p - (uintptr_t)a->shadow);
    if (a->shadow && d < a->bytes) {
      *at = d;
      return a;
    }
  }
  *at = 0;
  return &o->area[FORAY_SOFT_HEAP]; /* not reached: the interpreter names only places it got */
}

static void copy(void *arg, void *to, const void *from, uint64_t bytes) {
  struct ocl *o = arg;
  uint64_t a, b;
  struct ocl_area *dst = area_of(o, to, &a), *src = area_of(o, from, &b);
  o->prepared.src = NULL;
  if (!o->failed && bytes)
    (void)ocl_bad(o, clEnqueueCopyBuffer(o->queue, src->mem, dst->mem, b, a, (size_t)bytes, 0, NULL, NULL),
                  "clEnqueueCopyBuffer");
}

static void get(void *arg, void *to, const void *from, uint64_t bytes) {
  struct ocl *o = arg;
  uint64_t at;
  struct ocl_area *src = area_of(o, from, &at);
  if (o->failed)
    memset(to, 0, (size_t)bytes);
  else if (bytes)
    (void)ocl_bad(o, clEnqueueReadBuffer(o->queue, src->mem, CL_TRUE, at, (size_t)bytes, to, 0, NULL, NULL),
                  "clEnqueueReadBuffer");
}

static void put(void *arg, void *to, const void *from, uint64_t bytes) {
  struct ocl *o = arg;
  uint64_t at;
  struct ocl_area *dst = area_of(o, to, &at);
  if (!o->failed && bytes)
    (void)ocl_bad(o,
                  clEnqueueWriteBuffer(o->queue, dst->mem, CL_TRUE, at, (size_t)bytes, from, 0, NULL, NULL),
                  "clEnqueueWriteBuffer");
}

static void settle(void *arg) {
  struct ocl *o = arg;
  (void)ocl_bad(o, clFinish(o->queue), "clFinish");
}

const struct foray_soft_memory ocl_memory = {area, copy, get, put, settle};
