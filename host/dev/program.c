/* The draft program's interpreter for devices in host memory (docs/numerics.md 10): control, segments, exits,
 * ring. The arithmetic is a table of kernels, so that ref and cpu run the very same program logic. */
#include "dev/device_impl.h"

#include "dev/exit.h"
#include "dev/kernels.h"
#include "dev/validate.h"

#include "core/clock.h"
#include "core/err.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct foray_soft {
  const struct foray_kernels *k;
  void *karg;
  const struct foray_soft_memory *mem; /* NULL: everything is the processor's */
  uint8_t *heap, *scratch;
  const _Atomic bool *stop; /* NULL: none */
  bool foreign;             /* the heap is the caller's */
  uint32_t *prog;           /* private copy */
  int32_t *logits;          /* cols_max x logits_cap */
  size_t logits_cap;
  struct foray_space sp;
  uint64_t counter[FORAY_COUNTER_COUNT];
  struct foray_exit_unit unit[FORAY_ABI_COLS_MAX]; /* of column c0 + i of an exit section */
  /* of the present run */
  struct foray_checked c;
  int64_t deadline_ns;
  uint64_t steps;
  uint32_t at; /* descriptor being executed */
  uint32_t tokens[FORAY_ABI_COLS_MAX];
  struct foray_sampling sampling;
  struct foray_dev_trace trace; /* event NULL: nobody watches */
  uint32_t seg, exit;           /* where the program is, for the trace; UINT32_MAX: not in an exit section */
};

/* A batch: columns [c0, c1) of the scratch vectors; column c is position pos0 + c. */
struct batch {
  uint32_t c0, c1, pos0;
};

enum { HEAP_MAX_DEFAULT = 64 << 20, HEAP_SMALL = 1 << 20 };

/* Large heaps are mapped, in huge pages where the system has them; small ones come from malloc, where a
 * sanitizer sees their ends. */
uint8_t *foray_soft_heap_map(uint64_t bytes) {
  if (bytes < HEAP_SMALL) {
    uint8_t *p = aligned_alloc(FORAY_ABI_UNIT, (size_t)bytes);
    if (p) memset(p, 0, (size_t)bytes);
    return p;
  }
  void *p =
      mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return NULL;
  (void)madvise(p, (size_t)bytes, MADV_HUGEPAGE); /* a hint */
  return p;
}

void foray_soft_heap_unmap(uint8_t *p, uint64_t bytes) {
  if (p && bytes >= HEAP_SMALL)
    munmap(p, (size_t)bytes);
  else
    free(p);
}

static uint8_t *scratch_map(struct foray_soft *s, size_t bytes) {
  if (s->mem) return s->mem->area(s->karg, FORAY_SOFT_SCRATCH, bytes);
  uint8_t *p = aligned_alloc(FORAY_ABI_UNIT, bytes);
  if (p) memset(p, 0, bytes);
  return p;
}

enum foray_status foray_soft_open(const struct foray_kernels *k, void *kernel_arg, uint64_t heap_bytes,
                                  uint32_t scratch_units, uint32_t cols_max, struct foray_soft **out,
                                  struct foray_err *err) {
  return foray_soft_open_on(NULL, k, kernel_arg, heap_bytes, scratch_units, cols_max, out, err);
}

enum foray_status foray_soft_open_on(const struct foray_soft_memory *m, const struct foray_kernels *k,
                                     void *arg, uint64_t heap_bytes, uint32_t scratch_units,
                                     uint32_t cols_max, struct foray_soft **out, struct foray_err *err) {
  *out = NULL;
  if (cols_max < 1 || cols_max > FORAY_ABI_COLS_MAX || scratch_units == 0)
    return foray_err_set(err, FORAY_E_ARG, "device: %u columns, %u scratch units", cols_max, scratch_units);
  if (heap_bytes == 0) heap_bytes = HEAP_MAX_DEFAULT;
  if (heap_bytes > (uint64_t)UINT32_MAX * FORAY_ABI_UNIT - FORAY_ABI_UNIT || heap_bytes > SIZE_MAX / 2)
    return foray_err_set(err, FORAY_E_LIMIT, "device heap of %llu bytes is more than 32-bit units can name",
                         (unsigned long long)heap_bytes);
  heap_bytes = foray_dev_up(heap_bytes, FORAY_ABI_UNIT);
  struct foray_soft *s = calloc(1, sizeof *s);
  if (!s) return foray_err_set(err, FORAY_E_NOMEM, "device");
  s->k = k;
  s->karg = arg;
  s->mem = m;
  s->heap = m ? m->area(arg, FORAY_SOFT_HEAP, heap_bytes) : foray_soft_heap_map(heap_bytes);
  s->sp = (struct foray_space){s->heap, heap_bytes, scratch_units, cols_max, m ? m->get : NULL, arg};
  s->scratch = scratch_map(s, (size_t)scratch_units * FORAY_ABI_UNIT);
  s->prog = malloc((size_t)FORAY_ABI_PROGRAM_MAX * FORAY_ABI_UNIT);
  if (!s->heap || !s->scratch || !s->prog) {
    foray_soft_close(s);
    return foray_err_set(err, FORAY_E_NOMEM, "device heap of %llu bytes", (unsigned long long)heap_bytes);
  }
  *out = s;
  return FORAY_OK;
}

void foray_soft_close(struct foray_soft *s) {
  if (!s) return;
  if (!s->mem) {
    if (!s->foreign) foray_soft_heap_unmap(s->heap, s->sp.heap_bytes);
    free(s->scratch);
    free(s->logits);
  }
  free(s->prog);
  free(s);
}

void foray_soft_stop_flag(struct foray_soft *s, const _Atomic bool *stop) { s->stop = stop; }

void foray_soft_use_heap(struct foray_soft *s, void *heap, uint64_t bytes) {
  if (!heap || s->mem) return;
  if (!s->foreign) foray_soft_heap_unmap(s->heap, s->sp.heap_bytes);
  s->foreign = true;
  s->heap = heap;
  s->sp.heap = heap;
  s->sp.heap_bytes = bytes;
}

uint8_t *foray_soft_heap(struct foray_soft *s) { return s->heap; }
uint64_t foray_soft_heap_bytes(const struct foray_soft *s) { return s->sp.heap_bytes; }

enum foray_status foray_soft_upload(void *self, uint64_t addr, const void *src, uint64_t bytes,
                                    struct foray_err *err) {
  struct foray_soft *s = self;
  (void)err;
  if (bytes) memcpy(s->heap + addr, src, (size_t)bytes);
  return FORAY_OK;
}

enum foray_status foray_soft_download(void *self, uint64_t addr, void *dst, uint64_t bytes,
                                      struct foray_err *err) {
  struct foray_soft *s = self;
  (void)err;
  if (bytes) memcpy(dst, s->heap + addr, (size_t)bytes);
  return FORAY_OK;
}

void foray_soft_counters(void *self, uint64_t out[FORAY_COUNTER_COUNT]) {
  const struct foray_soft *s = self;
  memcpy(out, s->counter, sizeof s->counter);
}

/* ---- trace ---- */

void foray_soft_trace(void *self, const struct foray_dev_trace *t) {
  ((struct foray_soft *)self)->trace = *t;
}

/* Taken before something is done; nothing without a watcher. */
struct mark {
  uint64_t begin, counter[FORAY_COUNTER_COUNT];
};

static void mark(const struct foray_soft *s, struct mark *m) {
  if (!s->trace.event) return;
  m->begin = (uint64_t)foray_clock_ns();
  memcpy(m->counter, s->counter, sizeof m->counter);
}

static void tell(struct foray_soft *s, const struct mark *m, struct foray_trace_event *e) {
  e->begin = m->begin;
  e->end = (uint64_t)foray_clock_ns();
  for (int i = 0; i < FORAY_COUNTER_COUNT; i++) e->counter[i] = s->counter[i] - m->counter[i];
  s->trace.event(s->trace.arg, e);
}

static void tell_batch(struct foray_soft *s, const struct mark *m, enum foray_trace_kind kind,
                       struct batch b) {
  if (!s->trace.event) return;
  bool op = kind == FORAY_TRACE_OP;
  uint32_t code = op ? s->prog[s->at * FORAY_ABI_DESC_WORDS] & 0xff : 0;
  tell(s, m,
       &(struct foray_trace_event){.kind = kind,
                                   .desc = op ? s->at : UINT32_MAX,
                                   .op = code,
                                   .segment = s->seg,
                                   .exit = s->exit,
                                   .columns = b.c1 - b.c0,
                                   .position = b.pos0 + b.c0,
                                   .engine = foray_engine_of(code)});
}

/* ---- moving bytes between places, and between them and the processor ---- */

static void copy(struct foray_soft *s, void *to, const void *from, size_t bytes) {
  if (s->mem)
    s->mem->copy(s->karg, to, from, bytes);
  else
    memcpy(to, from, bytes);
}
static void get(struct foray_soft *s, void *to, const void *from, size_t bytes) {
  if (s->mem)
    s->mem->get(s->karg, to, from, bytes);
  else
    memcpy(to, from, bytes);
}
static void put(struct foray_soft *s, void *to, const void *from, size_t bytes) {
  if (s->mem)
    s->mem->put(s->karg, to, from, bytes);
  else
    memcpy(to, from, bytes);
}

/* ---- operands ---- */

static uint8_t *heap_at(struct foray_soft *s, uint32_t unit) {
  return s->heap + (uint64_t)unit * FORAY_ABI_UNIT;
}

static struct foray_a16 a16(struct foray_soft *s, uint32_t unit, uint32_t n, uint32_t col) {
  uint8_t *p = s->scratch + (uint64_t)unit * FORAY_ABI_UNIT + foray_dev_a16_bytes(n) * col;
  return (struct foray_a16){(int32_t *)(void *)p, (int16_t *)(void *)(p + 64),
                            p + 64 + foray_dev_up(2 * (uint64_t)n, 64)};
}

static struct foray_y32 y32(struct foray_soft *s, uint32_t unit, uint32_t n, uint32_t col) {
  uint8_t *p = s->scratch + (uint64_t)unit * FORAY_ABI_UNIT + foray_dev_y32_bytes(n) * col;
  return (struct foray_y32){(int32_t *)(void *)p, (int32_t *)(void *)(p + 64)};
}

static struct foray_matrix matrix(struct foray_soft *s, uint32_t qtype, uint32_t rows, uint32_t cols,
                                  bool bias, uint32_t addr, int32_t exp, int32_t bias_exp) {
  struct foray_matrix m = {.qtype = qtype, .rows = rows, .cols = cols, .exp = exp, .bias_exp = bias_exp};
  (void)foray_dev_matrix_of(qtype, rows, cols, bias, &m.layout); /* validated */
  const uint8_t *p = heap_at(s, addr);
  m.mant = (const uint16_t *)(const void *)p;
  m.bias = bias ? (const int32_t *)(const void *)(p + m.layout.bias_at) : NULL;
  m.data = p + m.layout.data_at;
  return m;
}

static struct foray_kv kv_layer(struct foray_soft *s, uint32_t offset, uint32_t head_dim, uint32_t heads) {
  const struct foray_rec_state *st = &s->c.state;
  return (struct foray_kv){heap_at(s, st->kv + offset), st->max_pos, foray_dev_kv_record(head_dim), head_dim,
                           heads};
}

/* ---- one descriptor over a batch ---- */

static void count(struct foray_soft *s, int counter, uint64_t n) { s->counter[counter] += n; }

static void do_gemv(struct foray_soft *s, const uint32_t *w, struct batch b) {
  struct foray_desc_gemv d;
  foray_desc_gemv_unpack(w, &d);
  bool bias = (d.flags & FORAY_DF_BIAS) != 0;
  struct foray_matrix m = matrix(s, d.qtype, d.rows, d.cols, bias, d.addr, d.exp, d.bias_exp);
  struct foray_a16 src[FORAY_ABI_COLS_MAX];
  struct foray_y32 dst[FORAY_ABI_COLS_MAX];
  for (uint32_t c = b.c0; c < b.c1; c++) {
    src[c - b.c0] = a16(s, d.src, d.cols, c);
    dst[c - b.c0] = y32(s, d.dst, m.layout.rows_pad, c);
  }
  s->k->gemv(s->karg, &m, (int)(b.c1 - b.c0), src, dst);
  count(s, FORAY_COUNTER_WEIGHT_BYTES, m.layout.bytes - (bias ? 4 * (uint64_t)m.layout.rows_pad : 0));
  count(s, FORAY_COUNTER_VECTOR_BYTES, bias ? 4 * (uint64_t)m.layout.rows_pad : 0);
}

static void do_head(struct foray_soft *s, const uint32_t *w, struct batch b) {
  struct foray_desc_head d;
  foray_desc_head_unpack(w, &d);
  struct foray_matrix m = matrix(s, d.qtype, d.rows, d.cols, false, d.addr, d.exp, 0);
  struct foray_a16 src[FORAY_ABI_COLS_MAX];
  int32_t *logits[FORAY_ABI_COLS_MAX];
  for (uint32_t c = b.c0; c < b.c1; c++) {
    src[c - b.c0] = a16(s, d.src, d.cols, c);
    logits[c - b.c0] = s->logits + s->logits_cap * (c - b.c0);
  }
  s->k->head(s->karg, &m, d.used, (int)(b.c1 - b.c0), src, logits);
  count(s, FORAY_COUNTER_WEIGHT_BYTES, (d.used + 15) / 16 * (m.layout.block_bytes + 32));
  if (s->c.run.flags & FORAY_RUN_SCORE) {
    s->unit[0].rows = d.used;
    return;
  }
  const uint32_t *ids = d.ids ? (const uint32_t *)(const void *)heap_at(s, d.ids) : NULL;
  count(s, FORAY_COUNTER_VECTOR_BYTES, d.ids ? 4 * (uint64_t)d.used : 0);
  for (uint32_t c = b.c0; c < b.c1; c++) {
    s->sampling.position = b.pos0 + c + 1;
    s->k->exit_stream(s->karg, logits[c - b.c0], ids, d.used, &s->sampling, &s->unit[c - b.c0]);
  }
}

static void do_attn(struct foray_soft *s, const uint32_t *w, struct batch b) {
  struct foray_desc_attn d;
  foray_desc_attn_unpack(w, &d);
  struct foray_kv kv = kv_layer(s, d.offset, d.head_dim, d.kv_heads);
  struct foray_y32 q[FORAY_ABI_COLS_MAX];
  struct foray_a16 dst[FORAY_ABI_COLS_MAX];
  uint32_t pos[FORAY_ABI_COLS_MAX];
  for (uint32_t c = b.c0; c < b.c1; c++) {
    q[c - b.c0] = y32(s, d.q, d.heads * d.head_dim, c);
    dst[c - b.c0] = a16(s, d.dst, d.heads * d.head_dim, c);
    pos[c - b.c0] = b.pos0 + c;
  }
  s->k->attn(s->karg, &d, &kv, (int)(b.c1 - b.c0), pos, q, dst);
  /* one stream of records serves all columns and heads of the pass */
  count(s, FORAY_COUNTER_KV_READ_BYTES, (uint64_t)(b.pos0 + b.c1) * kv.record * kv.heads);
}

static void do_embed(struct foray_soft *s, const uint32_t *w, struct batch b) {
  struct foray_desc_embed d;
  foray_desc_embed_unpack(w, &d);
  struct foray_matrix m = matrix(s, d.qtype, d.rows, d.cols, false, d.addr, d.exp, 0);
  for (uint32_t c = b.c0; c < b.c1; c++) s->k->embed(s->karg, &m, s->tokens[c], y32(s, d.dst, d.cols, c));
  count(s, FORAY_COUNTER_EMBED_BYTES, (uint64_t)(b.c1 - b.c0) * (d.cols + d.cols / 32 + 2));
}

/* Between column c of an A16 vector of the residual's width and the slot of a position. */
static void move_kept(struct foray_soft *s, uint32_t unit, uint32_t c, uint32_t position, bool keep) {
  uint64_t bytes = foray_dev_a16_bytes(s->c.prog.width);
  uint8_t *column = (uint8_t *)a16(s, unit, s->c.prog.width, c).exp;
  uint8_t *slot = heap_at(s, s->c.state.keep) + bytes * (position % s->c.state.keep_slots);
  copy(s, keep ? slot : column, keep ? column : slot, (size_t)bytes);
  count(s, FORAY_COUNTER_RESID_BYTES, bytes);
}

static void do_columns(struct foray_soft *s, const uint32_t *w, struct batch b) {
  union {
    struct foray_desc_rmsnorm norm;
    struct foray_desc_rope rope;
    struct foray_desc_kv_put put;
    struct foray_desc_silu_mul silu;
    struct foray_desc_quant quant;
    struct foray_desc_add add;
    struct foray_desc_keep keep;
    struct foray_desc_prev prev;
  } d;
  const struct foray_kernels *k = s->k;
  switch (w[0] & 0xff) {
  case FORAY_OP_RMSNORM:
    foray_desc_rmsnorm_unpack(w, &d.norm);
    for (uint32_t c = b.c0; c < b.c1; c++)
      k->rmsnorm(s->karg, &d.norm, (const int32_t *)(const void *)heap_at(s, d.norm.gamma),
                 y32(s, d.norm.src, d.norm.n, c), a16(s, d.norm.dst, d.norm.n, c));
    count(s, FORAY_COUNTER_VECTOR_BYTES, 4 * (uint64_t)d.norm.n);
    break;
  case FORAY_OP_ROPE:
    foray_desc_rope_unpack(w, &d.rope);
    for (uint32_t c = b.c0; c < b.c1; c++)
      k->rope(s->karg, &d.rope, (const uint64_t *)(const void *)heap_at(s, d.rope.freq), b.pos0 + c,
              y32(s, d.rope.vec, d.rope.heads * d.rope.head_dim, c));
    count(s, FORAY_COUNTER_VECTOR_BYTES, 4 * (uint64_t)d.rope.head_dim);
    break;
  case FORAY_OP_KV_PUT: {
    foray_desc_kv_put_unpack(w, &d.put);
    struct foray_kv kv = kv_layer(s, d.put.offset, d.put.head_dim, d.put.heads);
    uint32_t n = d.put.heads * d.put.head_dim;
    for (uint32_t c = b.c0; c < b.c1; c++)
      k->kv_put(s->karg, &kv, b.pos0 + c, y32(s, d.put.k, n, c), y32(s, d.put.v, n, c));
    count(s, FORAY_COUNTER_KV_WRITE_BYTES, (uint64_t)(b.c1 - b.c0) * kv.record * kv.heads);
    break;
  }
  case FORAY_OP_SILU_MUL:
    foray_desc_silu_mul_unpack(w, &d.silu);
    for (uint32_t c = b.c0; c < b.c1; c++)
      k->silu_mul(s->karg, d.silu.n, y32(s, d.silu.gate, d.silu.n, c), y32(s, d.silu.up, d.silu.n, c),
                  a16(s, d.silu.dst, d.silu.n, c));
    break;
  case FORAY_OP_QUANT:
    foray_desc_quant_unpack(w, &d.quant);
    for (uint32_t c = b.c0; c < b.c1; c++)
      k->quant(s->karg, d.quant.n, y32(s, d.quant.src, d.quant.n, c), a16(s, d.quant.dst, d.quant.n, c));
    break;
  case FORAY_OP_ADD:
    foray_desc_add_unpack(w, &d.add);
    for (uint32_t c = b.c0; c < b.c1; c++)
      k->add(s->karg, d.add.n, y32(s, d.add.acc, d.add.n, c), y32(s, d.add.src, d.add.n, c));
    break;
  case FORAY_OP_KEEP:
    foray_desc_keep_unpack(w, &d.keep);
    for (uint32_t c = b.c0; c < b.c1; c++) move_kept(s, d.keep.src, c, b.pos0 + c, true);
    break;
  case FORAY_OP_PREV:
    foray_desc_prev_unpack(w, &d.prev);
    for (uint32_t c = b.c0; c < b.c1; c++) /* nothing comes before position 0: its own slot, as it is */
      move_kept(s, d.prev.dst, c, b.pos0 + c - (b.pos0 + c > 0), false);
    break;
  }
}

/* Descriptors [from, to) over a batch. */
static uint32_t run_ops(struct foray_soft *s, uint32_t from, uint32_t to, struct batch b) {
  for (uint32_t i = from; i < to; i++) {
    const uint32_t *w = s->prog + i * FORAY_ABI_DESC_WORDS;
    s->at = i;
    if (s->c.run.step_limit && s->steps >= s->c.run.step_limit) return FORAY_DEVERR_STEPS;
    s->steps++;
    struct mark m;
    mark(s, &m);
    count(s, FORAY_COUNTER_OPS, 1);
    count(s, FORAY_COUNTER_DESC_BYTES, FORAY_ABI_UNIT);
    switch (w[0] & 0xff) {
    case FORAY_OP_EMBED: do_embed(s, w, b); break;
    case FORAY_OP_GEMV: do_gemv(s, w, b); break;
    case FORAY_OP_HEAD: do_head(s, w, b); break;
    case FORAY_OP_ATTN: do_attn(s, w, b); break;
    default: do_columns(s, w, b); break;
    }
    tell_batch(s, &m, FORAY_TRACE_OP, b);
  }
  return FORAY_DEVERR_NONE;
}

/* The exit section of segment `seg`. */
static uint32_t run_section(struct foray_soft *s, uint32_t seg, struct batch b) {
  const struct foray_segment *g = &s->c.seg[seg];
  s->seg = seg;
  s->exit = g->exit;
  uint32_t e = run_ops(s, g->test, g->test_end, b);
  s->exit = UINT32_MAX;
  return e;
}

/* ---- segments ---- */

static uint8_t *saved(struct foray_soft *s, uint32_t position) {
  return heap_at(s, s->c.state.resid) +
         foray_dev_y32_bytes(s->c.prog.width) * (position % s->c.state.resid_slots);
}

static uint8_t *resid_column(struct foray_soft *s, uint32_t col) {
  return (uint8_t *)y32(s, s->c.prog.resid, s->c.prog.width, col).exp;
}

/* One batch through segment `seg`; tokens are set for segment 0. On success done[seg] grows by its columns.
 */
static uint32_t run_batch(struct foray_soft *s, uint32_t seg, struct batch b) {
  struct foray_rec_state *st = &s->c.state;
  size_t bytes = (size_t)foray_dev_y32_bytes(s->c.prog.width);
  if (s->deadline_ns && s->mem) s->mem->settle(s->karg);
  if (s->stop && *s->stop) return FORAY_DEVERR_DEADLINE;
  if (s->deadline_ns && foray_clock_ns() > s->deadline_ns) return FORAY_DEVERR_DEADLINE;
  struct mark m;
  mark(s, &m);
  s->seg = seg;
  if (seg > 0)
    for (uint32_t c = b.c0; c < b.c1; c++) copy(s, resid_column(s, c), saved(s, b.pos0 + c), bytes);
  uint32_t e = run_ops(s, s->c.seg[seg].body, s->c.seg[seg].body_end, b);
  if (e) return e;
  if (seg + 1 < s->c.prog.n_seg)
    for (uint32_t c = b.c0; c < b.c1; c++) copy(s, saved(s, b.pos0 + c), resid_column(s, c), bytes);
  uint64_t moved = (uint64_t)(b.c1 - b.c0) * bytes;
  if (seg > 0) count(s, FORAY_COUNTER_RESID_BYTES, moved);
  if (seg + 1 < s->c.prog.n_seg) count(s, FORAY_COUNTER_RESID_BYTES, moved);
  count(s, FORAY_COUNTER_COLUMNS, b.c1 - b.c0);
  count(s, FORAY_COUNTER_PASSES, 1);
  st->done[seg] = b.pos0 + b.c1;
  tell_batch(s, &m, FORAY_TRACE_PASS, b);
  return FORAY_DEVERR_NONE;
}

/* Takes all pending positions through segment seg > 0. *last = the batch that held the newest. */
static uint32_t catch_up(struct foray_soft *s, uint32_t seg, struct batch *last) {
  struct foray_rec_state *st = &s->c.state;
#ifdef FORAY_MUTANT_SKIP_CATCHUP
  if (st->done[seg] + 1 < st->done[seg - 1]) st->done[seg]++;
#endif
  while (st->done[seg] < st->done[seg - 1]) {
    uint32_t n = st->done[seg - 1] - st->done[seg];
    if (n > s->c.prog.cols) n = s->c.prog.cols;
    struct batch b = {0, n, st->done[seg]};
    uint32_t e = run_batch(s, seg, b);
    if (e) return e;
    if (last) *last = b;
  }
  return FORAY_DEVERR_NONE;
}

static uint32_t flush(struct foray_soft *s) {
  for (uint32_t seg = 1; seg < s->c.prog.n_seg; seg++) {
    uint32_t e = catch_up(s, seg, NULL);
    if (e) return e;
  }
  return FORAY_DEVERR_NONE;
}

/* Tokens in s->tokens[0..n) become the next positions and go through segment 0. */
static uint32_t feed(struct foray_soft *s, uint32_t n, struct batch *last) {
  struct foray_rec_state *st = &s->c.state;
  for (uint32_t c = 0; c < n; c++)
    if (s->tokens[c] >= s->c.prog.vocab) return FORAY_DEVERR_TOKEN;
  uint32_t deep = s->c.prog.n_seg - 1;
  if (deep && st->len + n - st->done[deep] > st->resid_slots) {
    uint32_t e = flush(s);
    if (e) return e;
  }
  *last = (struct batch){0, n, st->len};
  uint32_t e = run_batch(s, 0, *last);
  if (!e) st->len += n;
  return e;
}

/* ---- scoring ---- */

static uint32_t score_batch(struct foray_soft *s, struct batch b, uint32_t *dumped) {
  uint32_t e = run_section(s, s->c.prog.n_seg - 1, b);
  if (e) return e;
  uint64_t each = foray_dev_up(4 * (uint64_t)s->unit[0].rows, FORAY_ABI_UNIT);
  for (uint32_t c = b.c0; c < b.c1; c++)
    copy(s, heap_at(s, s->c.run.dump) + each * (*dumped)++, s->logits + s->logits_cap * (c - b.c0),
         4 * (size_t)s->unit[0].rows);
  return FORAY_DEVERR_NONE;
}

/* ---- drafting ---- */

static bool rule_set(const int32_t *c) {
  for (int k = 0; k < FORAY_ABI_FEATURES; k++)
    if (c[k]) return true;
  return false;
}

/* A draft under way. Entry i of the ring is the token at position first + i; entries [unchecked, drafted)
 * left early and full depth has not looked at them yet. */
struct drafting {
  uint32_t first, drafted, unchecked;
  bool rule;  /* there is a stop rule */
  bool fired; /* it fired on a confirmed entry */
};

static uint8_t *ring_at(struct foray_soft *s, uint32_t i) {
  uint32_t slot = (uint32_t)(((uint64_t)s->c.run.ring_head + i) % s->c.run.ring_slots);
  return heap_at(s, s->c.run.ring) + (size_t)slot * FORAY_RING_BYTES;
}

static void ring_read(struct foray_soft *s, uint32_t i, struct foray_rec_ring *r) {
  uint32_t w[FORAY_ABI_RING_WORDS];
  get(s, w, ring_at(s, i), sizeof w);
  foray_rec_ring_unpack(w, r);
}

static void ring_write(struct foray_soft *s, uint32_t i, const struct foray_rec_ring *r) {
  uint32_t w[FORAY_ABI_RING_WORDS];
  foray_rec_ring_pack(r, w);
  put(s, ring_at(s, i), w, sizeof w);
}

static bool stop_fires(const struct foray_soft *s, const struct drafting *d, const struct foray_rec_ring *r) {
  const struct foray_rec_run *run = &s->c.run;
  return (d->rule && foray_exit_rule(run->stop_rule, r) < 0) || (run->cum_min && r->cum < run->cum_min);
}

/* The exit section of segment seg on columns [b.c0, b.c1): afterwards unit[i] holds what column c0 + i says.
 */
static uint32_t exit_section(struct foray_soft *s, uint32_t seg, struct batch b) {
  for (uint32_t c = b.c0; c < b.c1; c++) foray_exit_clear(&s->unit[c - b.c0]);
  return run_section(s, seg, b);
}

/* What unit u says about entry i of the ring. */
static void decision(struct foray_soft *s, const struct drafting *d, const struct foray_segment *g,
                     const struct foray_exit_unit *u, uint32_t i, struct foray_rec_ring *r) {
  struct foray_rec_ring before = {0};
  if (i > 0) ring_read(s, i - 1, &before);
  memset(r, 0, sizeof *r);
  foray_exit_finish(u, before.cum, r);
  r->position = d->first + i;
  r->exit = g->exit;
}

/* Takes all columns through the final segment and lets it decide the newest; on the way it checks early
 * tokens, whose columns ride along. At the first wrong one the context is cut, and the decision is that
 * entry's. */
static uint32_t check_up(struct foray_soft *s, const struct foray_segment *g, struct drafting *d,
                         struct batch b, struct foray_rec_ring *r) {
  struct foray_rec_state *st = &s->c.state;
  uint32_t seg = s->c.prog.n_seg - 1, tried = r->tried;
  for (;;) { /* with one segment, its only batch has been run */
    if (seg > 0) {
      uint32_t n = st->done[seg - 1] - st->done[seg];
      b = (struct batch){0, n < s->c.prog.cols ? n : s->c.prog.cols, st->done[seg]};
      uint32_t e = run_batch(s, seg, b);
      if (e) return e;
    }
    uint32_t end = b.pos0 + b.c1,
             from = d->first + d->unchecked - 1; /* column of the first unchecked entry */
    if (end <= from) continue;
    struct batch t = {from > b.pos0 + b.c0 ? from - b.pos0 : b.c0, b.c1, b.pos0};
    uint32_t e = exit_section(s, seg, t);
    if (e) return e;
    for (uint32_t c = t.c0; c < t.c1; c++) {
      uint32_t i = t.pos0 + c + 1 - d->first;
      struct foray_rec_ring old;
      decision(s, d, g, &s->unit[c - t.c0], i, r);
      if (i == d->drafted) {
        r->tried = tried + 1;
        return FORAY_DEVERR_NONE;
      }
      ring_read(s, i, &old);
      r->tried = old.tried + 1;
      count(s, FORAY_COUNTER_CHECKED, 1);
#ifndef FORAY_MUTANT_CHECK_KEEPS_WRONG
      if (r->token != old.token) {
        count(s, FORAY_COUNTER_CORRECTED, 1);
        r->flags = FORAY_RING_CORRECTED;
        d->drafted = i;
        st->len = r->position;
        for (uint32_t k = 0; k < s->c.prog.n_seg; k++)
          if (st->done[k] > st->len) st->done[k] = st->len;
        return FORAY_DEVERR_NONE;
      }
#endif
      r->token = old.token;
      r->exit = old.exit;
      r->flags = FORAY_RING_CONFIRMED;
      if (stop_fires(s, d, r)) r->flags |= FORAY_RING_STOP_RULE, d->fired = true;
      ring_write(s, i, r);
    }
  }
}

/* From segment 0 (already run for the newest position, in batch b) to the exit that decides entry d->drafted,
 * or, if a check finds a wrong token, an earlier one. */
static uint32_t decide(struct foray_soft *s, struct batch b, struct drafting *d, struct foray_rec_ring *r) {
  const struct foray_rec_run *run = &s->c.run;
  bool early = (!run->check || d->drafted - d->unchecked < run->check) &&
               !((run->flags & FORAY_RUN_FULL_FIRST) && d->drafted == 0);
  uint32_t tried = 0;
  for (uint32_t seg = 0; seg < s->c.prog.n_seg; seg++) {
    const struct foray_segment *g = &s->c.seg[seg];
    if (g->final && run->check) {
      r->tried = tried;
      return check_up(s, g, d, b, r);
    }
    if (seg > 0) {
      uint32_t e = catch_up(s, seg, &b);
      if (e) return e;
    }
    if (!g->has_test || !(g->final || (early && (run->tests >> g->exit & 1)))) continue;
    uint32_t e = exit_section(s, seg, (struct batch){b.c1 - 1, b.c1, b.pos0});
    if (e) return e;
    decision(s, d, g, &s->unit[0], d->drafted, r);
    r->tried = ++tried;
    if (g->final || foray_exit_rule(run->exit_rule + g->exit * FORAY_ABI_FEATURES, r) >= 0)
      return FORAY_DEVERR_NONE;
  }
  return FORAY_DEVERR_ORDER; /* not reached: the final section decides */
}

static void tell_token(struct foray_soft *s, const struct foray_rec_ring *r) {
  if (!s->trace.event) return;
  uint64_t now = (uint64_t)foray_clock_ns();
  s->trace.event(s->trace.arg, &(struct foray_trace_event){.kind = FORAY_TRACE_TOKEN,
                                                           .begin = now,
                                                           .end = now,
                                                           .desc = UINT32_MAX,
                                                           .segment = s->seg,
                                                           .exit = r->exit,
                                                           .columns = 1,
                                                           .position = r->position,
                                                           .engine = FORAY_ENGINE_EXIT,
                                                           .ring = r});
}

static uint32_t draft(struct foray_soft *s, struct batch b, struct foray_dev_result *res) {
  const struct foray_rec_run *run = &s->c.run;
  struct drafting d = {.first = s->c.state.len, .rule = rule_set(run->stop_rule)};
  for (;;) {
    struct foray_rec_ring r;
    uint32_t e = decide(s, b, &d, &r);
    res->drafted = d.drafted;
    if (e) return e;
    bool full = r.exit == s->c.prog.n_test - 1;
    bool fired = (full || !run->check) && stop_fires(s, &d, &r); /* checked drafts are judged at full depth */
    if (fired && (run->flags & FORAY_RUN_STOP_BEFORE)) {
      res->stop = FORAY_STOP_RULE;
      return FORAY_DEVERR_NONE;
    }
    bool stop_id = false;
    for (uint32_t k = 0; k < run->stop_n; k++) stop_id |= r.token == run->stop_ids[k];
    r.flags |= (stop_id ? FORAY_RING_STOP_ID : 0u) | (fired ? FORAY_RING_STOP_RULE : 0u);
    ring_write(s, d.drafted, &r);
    count(s, FORAY_COUNTER_DRAFTED, 1);
    tell_token(s, &r);
    res->drafted = ++d.drafted;
    if (full) d.unchecked = d.drafted;
    if (stop_id || fired || d.fired) {
      res->stop = stop_id ? FORAY_STOP_ID : FORAY_STOP_RULE;
      return FORAY_DEVERR_NONE;
    }
    if (d.drafted == run->max_drafts) return FORAY_DEVERR_NONE;
    if (s->c.state.len == s->c.state.max_pos) {
      res->stop = FORAY_STOP_CONTEXT;
      return FORAY_DEVERR_NONE;
    }
    s->tokens[0] = r.token;
    e = feed(s, 1, &b);
    if (e) return e;
  }
}

static uint32_t execute(struct foray_soft *s, struct foray_dev_result *res) {
  const struct foray_rec_run *run = &s->c.run;
  struct foray_rec_state *st = &s->c.state;
  st->len = run->start;
  for (uint32_t i = 0; i < s->c.prog.n_seg; i++)
    if (st->done[i] > run->start) st->done[i] = run->start;
  bool score = (run->flags & FORAY_RUN_SCORE) != 0;
  uint32_t e = score ? flush(s) : FORAY_DEVERR_NONE;
  struct batch b = {0, 0, 0};
  for (uint32_t i = 0; i < run->feed_n && !e;) {
    uint32_t n = run->feed_n - i < s->c.prog.cols ? run->feed_n - i : s->c.prog.cols;
    get(s, s->tokens, heap_at(s, run->feed) + 4 * (uint64_t)i, 4 * (size_t)n);
    e = feed(s, n, &b);
    if (!e && score) e = flush(s);
    if (!e && score) e = score_batch(s, b, &res->dumped);
    i += n;
  }
  if (!e && run->max_drafts) e = draft(s, b, res);
  if (!e && (run->flags & FORAY_RUN_FLUSH)) e = flush(s);
  return e;
}

static void write_back(struct foray_soft *s, uint32_t run_unit, const struct foray_dev_result *res) {
  uint32_t w[FORAY_ABI_STATE_WORDS];
  foray_rec_state_pack(&s->c.state, w);
  put(s, heap_at(s, s->c.run.state), w, sizeof w);
  uint32_t v[FORAY_ABI_RUN_WORDS];
  s->c.run.error = res->error, s->c.run.error_desc = res->error_desc, s->c.run.drafted = res->drafted;
  s->c.run.len = res->len, s->c.run.stop = res->stop, s->c.run.dumped = res->dumped;
  foray_rec_run_pack(&s->c.run, v);
  put(s, heap_at(s, run_unit), v, sizeof v);
}

enum foray_status foray_soft_run(void *self, uint32_t run_unit, uint32_t deadline_ms,
                                 struct foray_dev_result *res, struct foray_err *err) {
  struct foray_soft *s = self;
  int64_t begun = foray_clock_ns();
  struct mark m;
  mark(s, &m);
  memset(res, 0, sizeof *res);
  count(s, FORAY_COUNTER_RUNS, 1);
  res->error = foray_validate(&s->sp, run_unit, s->prog, &s->c, &res->error_desc);
  if (res->error) {
    res->stop = FORAY_STOP_ERROR;
    return FORAY_OK;
  }
  size_t cap = foray_dev_up(s->c.head_rows, 16);
  if (cap > s->logits_cap) {
    size_t bytes = cap * 4 * s->sp.cols_max;
    int32_t *p =
        s->mem ? s->mem->area(s->karg, FORAY_SOFT_LOGITS, bytes) : aligned_alloc(FORAY_ABI_UNIT, bytes);
    if (!p) return foray_err_set(err, FORAY_E_NOMEM, "logits of %zu rows", cap);
    if (!s->mem) free(s->logits);
    s->logits = p;
    s->logits_cap = cap;
  }
  s->deadline_ns = deadline_ms ? begun + (int64_t)deadline_ms * 1000000 : 0;
  s->steps = 0;
  s->at = UINT32_MAX;
  s->seg = s->exit = UINT32_MAX;
  s->sampling =
      (struct foray_sampling){(s->c.run.flags & FORAY_RUN_SAMPLE) != 0, s->c.run.inv_temp, s->c.run.seed, 0};
  res->error = execute(s, res);
  res->error_desc = res->error ? s->at : 0;
  if (res->error) res->stop = FORAY_STOP_ERROR;
  res->len = s->c.state.len;
  write_back(s, run_unit, res);
  if (s->mem) s->mem->settle(s->karg);
  count(s, FORAY_COUNTER_BUSY, (uint64_t)(foray_clock_ns() - begun));
  if (s->trace.event)
    tell(s, &m,
         &(struct foray_trace_event){.kind = FORAY_TRACE_RUN,
                                     .desc = UINT32_MAX,
                                     .segment = UINT32_MAX,
                                     .exit = UINT32_MAX,
                                     .columns = s->c.run.feed_n,
                                     .position = s->c.run.start,
                                     .engine = FORAY_ENGINE_CONTROL});
  return FORAY_OK;
}
