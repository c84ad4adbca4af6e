/* Everything about a run block, a context and a program is checked before anything is executed: afterwards
 * every operand lies in memory and has a shape that the kernels take. Codes and their order are those of the
 * device contract (docs/abi.md); a build with smaller local memory refuses what does not fit it with SHAPE.
 */
#include "include/hls_program.h"

#define NEED(cond, code)                                                                                     \
  do {                                                                                                       \
    if (!(cond)) return FORAY_DEVERR_##code;                                                                 \
  } while (0)
#define PASS(call)                                                                                           \
  do {                                                                                                       \
    uint32_t e_ = (call);                                                                                    \
    if (e_) return e_;                                                                                       \
  } while (0)

/* Where the check is inside a program. */
struct place {
  uint32_t units, cols, vocab, width, seg, open, in_test, embed_seen, head_seen, keeps;
};

static int in_heap(uint32_t units, uint32_t unit, uint64_t bytes) {
  return unit != 0 && unit <= units && bytes <= (uint64_t)(units - unit) * FORAY_ABI_UNIT;
}

/* A vector in scratch: [at, end) in units, all columns. */
struct range {
  uint64_t at, end;
};
static struct range range_of(const struct place *k, uint32_t unit, uint32_t words) {
  struct range r;
  r.at = unit;
  r.end = unit + (uint64_t)words / HLS_BEAT * k->cols;
  return r;
}
static int fits(struct range r) { return r.end <= FORAY_HLS_SCRATCH_UNITS; }
static int apart(struct range a, struct range b) { return a.end <= b.at || b.end <= a.at; }

static uint32_t vector(uint32_t n) {
  NEED(n != 0 && n <= FORAY_ABI_COLUMNS_LIMIT && n % FORAY_ABI_GROUP == 0, SHAPE);
  NEED(n <= HLS_N, SHAPE);
  return 0;
}
static uint32_t heads(uint32_t count, uint32_t dim) {
  NEED(count != 0 && count <= FORAY_ABI_HEADS_MAX, SHAPE);
  NEED(dim != 0 && dim <= FORAY_ABI_HEAD_DIM_MAX && dim % FORAY_ABI_GROUP == 0, SHAPE);
  NEED(count * dim <= HLS_N, SHAPE);
  return 0;
}
static int matrix(uint32_t qtype, uint32_t rows, uint32_t cols, int bias, struct hls_layout *l,
                  uint64_t *bytes) {
  if (rows == 0 || rows > FORAY_ABI_ROWS_LIMIT || cols == 0 || cols > FORAY_ABI_COLUMNS_LIMIT ||
      cols % FORAY_ABI_GROUP != 0 || cols > HLS_N)
    return 0;
  *l = hls_layout_of(qtype, rows, cols, bias);
  *bytes = (l->data + l->block * (l->rows_pad / FORAY_ABI_ROW_BLOCK)) * sizeof(foray_word);
  return 1;
}
static int quantised(uint32_t qtype) { return qtype == FORAY_QTYPE_Q4A || qtype == FORAY_QTYPE_Q8S; }

static uint32_t kv_records(const struct foray_rec_state *s, uint32_t offset, uint32_t dim, uint32_t count) {
  uint64_t record = (uint64_t)(dim / 8 + 15) / 16 * 16 + 2 * (uint64_t)dim;
  uint64_t units = (record * count * s->max_pos + FORAY_ABI_UNIT - 1) / FORAY_ABI_UNIT;
  NEED(offset <= s->kv_units && units <= s->kv_units - offset, KV);
  return 0;
}

static uint32_t op_embed(struct place *k, const uint32_t *w) {
  struct foray_desc_embed d;
  struct hls_layout l;
  uint64_t bytes;
  foray_desc_embed_unpack(w, &d);
  NEED(!foray_desc_embed_spare(w) && d.flags == 0 && d.qtype == FORAY_QTYPE_Q8S, FIELD);
  NEED(k->seg == 0 && !k->in_test && !k->embed_seen, ORDER);
  k->embed_seen = 1;
  NEED(matrix(d.qtype, d.rows, d.cols, 0, &l, &bytes) && d.rows >= k->vocab, SHAPE);
  NEED(in_heap(k->units, d.addr, bytes), ADDRESS);
  NEED(fits(range_of(k, d.dst, hls_y32_words(d.cols))), SCRATCH);
  return 0;
}

/* floor(sqrt(n) 2^16), bit by bit. */
static uint32_t root_q16(uint32_t n) {
  uint64_t v = (uint64_t)n << 32, r = 0;
  for (int b = 31; b >= 0; b--) {
    uint64_t t = r | (uint64_t)1 << b;
    if (t * t <= v) r = t;
  }
  return (uint32_t)r;
}

static uint32_t op_rmsnorm(const struct place *k, const uint32_t *w) {
  struct foray_desc_rmsnorm d;
  foray_desc_rmsnorm_unpack(w, &d);
  NEED(!foray_desc_rmsnorm_spare(w) && d.flags == 0, FIELD);
  PASS(vector(d.n));
  NEED(d.n <= FORAY_ABI_NORM_LIMIT, SHAPE);
  NEED(d.root_n == root_q16(d.n), FIELD);
  NEED(in_heap(k->units, d.gamma, 4 * (uint64_t)d.n), ADDRESS);
  struct range a = range_of(k, d.src, hls_y32_words(d.n)), b = range_of(k, d.dst, hls_a16_words(d.n));
  NEED(fits(a) && fits(b) && apart(a, b), SCRATCH);
  return 0;
}

static uint32_t op_gemv(const struct place *k, const uint32_t *w) {
  struct foray_desc_gemv d;
  struct hls_layout l;
  uint64_t bytes;
  foray_desc_gemv_unpack(w, &d);
  uint32_t bias = d.flags & FORAY_DF_BIAS;
  NEED(!foray_desc_gemv_spare(w) && !(d.flags & ~(uint32_t)FORAY_DF_BIAS), FIELD);
  NEED(quantised(d.qtype), FIELD);
  NEED(bias || d.bias_exp == 0, FIELD);
  NEED(matrix(d.qtype, d.rows, d.cols, bias != 0, &l, &bytes), SHAPE);
  NEED(l.rows_pad <= FORAY_ABI_COLUMNS_LIMIT && l.rows_pad <= FORAY_HLS_ROWS, SHAPE);
  NEED(in_heap(k->units, d.addr, bytes), ADDRESS);
  struct range a = range_of(k, d.src, hls_a16_words(d.cols)),
               b = range_of(k, d.dst, hls_y32_words(l.rows_pad));
  NEED(fits(a) && fits(b) && apart(a, b), SCRATCH);
  return 0;
}

static uint32_t op_head(struct place *k, const uint32_t *w, struct hls_checked *c) {
  struct foray_desc_head d;
  struct hls_layout l;
  uint64_t bytes;
  foray_desc_head_unpack(w, &d);
  NEED(!foray_desc_head_spare(w) && d.flags == 0, FIELD);
  NEED(quantised(d.qtype), FIELD);
  NEED(k->in_test && !k->head_seen, ORDER);
  k->head_seen = 1;
  NEED(matrix(d.qtype, d.rows, d.cols, 0, &l, &bytes) && d.used != 0 && d.used <= d.rows, SHAPE);
  NEED(d.ids != 0 || d.used <= k->vocab, SHAPE);
  NEED(in_heap(k->units, d.addr, bytes), ADDRESS);
  NEED(d.ids == 0 || in_heap(k->units, d.ids, 4 * (uint64_t)d.used), ADDRESS);
  NEED(fits(range_of(k, d.src, hls_a16_words(d.cols))), SCRATCH);
  if (c->seg[k->seg].final) c->final_rows = d.used;
  return 0;
}

static uint32_t op_rope(const struct place *k, const uint32_t *w) {
  struct foray_desc_rope d;
  foray_desc_rope_unpack(w, &d);
  NEED(!foray_desc_rope_spare(w) && !(d.flags & ~(uint32_t)FORAY_DF_NEOX), FIELD);
  PASS(heads(d.heads, d.head_dim));
  NEED(in_heap(k->units, d.freq, 4 * (uint64_t)d.head_dim), ADDRESS);
  NEED(fits(range_of(k, d.vec, hls_y32_words(d.heads * d.head_dim))), SCRATCH);
  return 0;
}

static uint32_t op_kv_put(const struct place *k, const uint32_t *w, const struct foray_rec_state *s) {
  struct foray_desc_kv_put d;
  foray_desc_kv_put_unpack(w, &d);
  NEED(!foray_desc_kv_put_spare(w) && d.flags == 0, FIELD);
  NEED(!k->in_test, ORDER);
  PASS(heads(d.heads, d.head_dim));
  uint32_t words = hls_y32_words(d.heads * d.head_dim);
  NEED(fits(range_of(k, d.k, words)) && fits(range_of(k, d.v, words)), SCRATCH);
  return kv_records(s, d.offset, d.head_dim, d.heads);
}

static uint32_t op_attn(const struct place *k, const uint32_t *w, const struct foray_rec_state *s) {
  struct foray_desc_attn d;
  foray_desc_attn_unpack(w, &d);
  NEED(!foray_desc_attn_spare(w) && d.flags == 0, FIELD);
  NEED(d.scale >= 1u << 23 && d.scale <= 1u << 24, FIELD);
  NEED(!k->in_test, ORDER);
  PASS(heads(d.heads, d.head_dim));
  NEED(d.kv_heads != 0 && d.heads % d.kv_heads == 0, SHAPE);
  NEED(d.heads / d.kv_heads <= FORAY_HLS_HEADS, SHAPE);
  uint32_t n = d.heads * d.head_dim;
  struct range a = range_of(k, d.q, hls_y32_words(n)), b = range_of(k, d.dst, hls_a16_words(n));
  NEED(fits(a) && fits(b) && apart(a, b), SCRATCH);
  return kv_records(s, d.offset, d.head_dim, d.kv_heads);
}

static uint32_t op_silu_mul(const struct place *k, const uint32_t *w) {
  struct foray_desc_silu_mul d;
  foray_desc_silu_mul_unpack(w, &d);
  NEED(!foray_desc_silu_mul_spare(w) && d.flags == 0, FIELD);
  PASS(vector(d.n));
  struct range g = range_of(k, d.gate, hls_y32_words(d.n)), u = range_of(k, d.up, hls_y32_words(d.n)),
               o = range_of(k, d.dst, hls_a16_words(d.n));
  NEED(fits(g) && fits(u) && fits(o) && apart(g, o) && apart(u, o), SCRATCH);
  return 0;
}

static uint32_t op_quant(const struct place *k, const uint32_t *w) {
  struct foray_desc_quant d;
  foray_desc_quant_unpack(w, &d);
  NEED(!foray_desc_quant_spare(w) && d.flags == 0, FIELD);
  PASS(vector(d.n));
  struct range a = range_of(k, d.src, hls_y32_words(d.n)), b = range_of(k, d.dst, hls_a16_words(d.n));
  NEED(fits(a) && fits(b) && apart(a, b), SCRATCH);
  return 0;
}

static uint32_t op_add(const struct place *k, const uint32_t *w) {
  struct foray_desc_add d;
  foray_desc_add_unpack(w, &d);
  NEED(!foray_desc_add_spare(w) && d.flags == 0, FIELD);
  PASS(vector(d.n));
  struct range a = range_of(k, d.acc, hls_y32_words(d.n)), b = range_of(k, d.src, hls_y32_words(d.n));
  NEED(fits(a) && fits(b) && apart(a, b), SCRATCH);
  return 0;
}

/* KEEP and PREV: one place in scratch, of the residual's width. */
static uint32_t op_kept(struct place *k, uint32_t at, uint32_t spare) {
  NEED(!spare, FIELD);
  NEED(k->in_test, ORDER);
  k->keeps = 1;
  NEED(fits(range_of(k, at, hls_a16_words(k->width))), SCRATCH);
  return 0;
}

static uint32_t check_op(struct place *k, const uint32_t *w, struct hls_checked *c) {
  switch (w[0] & 0xff) {
  case FORAY_OP_EMBED: return op_embed(k, w);
  case FORAY_OP_RMSNORM: return op_rmsnorm(k, w);
  case FORAY_OP_GEMV: return op_gemv(k, w);
  case FORAY_OP_HEAD: return op_head(k, w, c);
  case FORAY_OP_ROPE: return op_rope(k, w);
  case FORAY_OP_KV_PUT: return op_kv_put(k, w, &c->state);
  case FORAY_OP_ATTN: return op_attn(k, w, &c->state);
  case FORAY_OP_SILU_MUL: return op_silu_mul(k, w);
  case FORAY_OP_QUANT: return op_quant(k, w);
  case FORAY_OP_ADD: return op_add(k, w);
  case FORAY_OP_KEEP: return op_kept(k, w[1], foray_desc_keep_spare(w) | ((w[0] >> 8) & 0xff));
  case FORAY_OP_PREV: return op_kept(k, w[1], foray_desc_prev_spare(w) | ((w[0] >> 8) & 0xff));
  default: return FORAY_DEVERR_OPCODE;
  }
}

static uint32_t check_prog(struct place *k, const uint32_t *w, struct foray_desc_prog *p) {
  NEED((w[0] & 0xff) == FORAY_OP_PROG, ORDER);
  foray_desc_prog_unpack(w, p);
  NEED(p->abi_hash == FORAY_ABI_HASH && p->version == FORAY_ABI_VERSION, ABI);
  NEED(!foray_desc_prog_spare(w) && p->flags == 0, FIELD);
  NEED(p->n_desc >= 5 && p->n_desc <= FORAY_HLS_PROGRAM, SHAPE);
  NEED(p->n_seg >= 1 && p->n_seg <= FORAY_ABI_SEGMENTS_MAX, SHAPE);
  NEED(p->n_test >= 1 && p->n_test <= FORAY_ABI_TESTS_MAX && p->n_test <= p->n_seg, SHAPE);
  NEED(p->cols >= 1 && p->cols <= FORAY_HLS_COLS && p->vocab != 0 && p->vocab <= FORAY_ABI_ROWS_LIMIT, SHAPE);
  PASS(vector(p->width));
  k->cols = p->cols;
  k->vocab = p->vocab;
  k->width = p->width;
  NEED(fits(range_of(k, p->resid, hls_y32_words(p->width))), SCRATCH);
  return 0;
}

static uint32_t begin_segment(struct place *k, const uint32_t *w, uint32_t i, uint32_t next,
                              struct hls_checked *c) {
  struct foray_desc_seg d;
  foray_desc_seg_unpack(w, &d);
  NEED(!foray_desc_seg_spare(w) && d.flags == 0, FIELD);
  NEED(!k->in_test && d.index == next && next < c->prog.n_seg, ORDER);
  NEED(k->seg != 0 || !k->open || k->embed_seen, ORDER);
  if (k->open && !c->seg[k->seg].has_test) c->seg[k->seg].body_end = i;
  k->open = 1;
  k->seg = next;
  c->seg[next].body = c->seg[next].body_end = i + 1;
  c->seg[next].has_test = c->seg[next].final = 0;
  return 0;
}

static uint32_t begin_test(struct place *k, const uint32_t *w, uint32_t i, uint32_t next,
                           struct hls_checked *c) {
  struct foray_desc_test d;
  struct hls_segment *s = &c->seg[k->seg];
  foray_desc_test_unpack(w, &d);
  NEED(!foray_desc_test_spare(w) && !(d.flags & ~(uint32_t)FORAY_DF_FINAL), FIELD);
  NEED(k->open && !k->in_test && !s->has_test && d.index == next && next < c->prog.n_test, ORDER);
  uint32_t final = (d.flags & FORAY_DF_FINAL) != 0;
  NEED(final == (k->seg == c->prog.n_seg - 1) && final == (d.index == c->prog.n_test - 1), ORDER);
  s->body_end = i;
  s->test = i + 1;
  s->exit = d.index;
  s->has_test = 1;
  s->final = final;
  k->in_test = 1;
  k->head_seen = 0;
  return 0;
}

static uint32_t check_body(struct place *k, uint32_t desc[FORAY_HLS_PROGRAM][FORAY_ABI_DESC_WORDS],
                           struct hls_checked *c, uint32_t *at) {
  uint32_t segments = 0, tests = 0;
  for (uint32_t i = 1; i < c->prog.n_desc; i++) {
    HLS_TRIP(4, 4096)
    const uint32_t *w = desc[i];
    *at = i;
    switch (w[0] & 0xff) {
    case FORAY_OP_PROG: return FORAY_DEVERR_ORDER;
    case FORAY_OP_SEG: PASS(begin_segment(k, w, i, segments++, c)); break;
    case FORAY_OP_TEST: PASS(begin_test(k, w, i, tests++, c)); break;
    case FORAY_OP_EXIT:
      NEED(!foray_desc_exit_spare(w) && !(w[0] >> 8), FIELD);
      NEED(k->in_test && k->head_seen, ORDER);
      c->seg[k->seg].test_end = i;
      k->in_test = 0;
      break;
    case FORAY_OP_END:
      NEED(!foray_desc_end_spare(w) && !(w[0] >> 8), FIELD);
      NEED(i == c->prog.n_desc - 1 && !k->in_test && segments == c->prog.n_seg && tests == c->prog.n_test,
           ORDER);
      NEED(k->open && c->seg[k->seg].final && k->embed_seen, ORDER);
      return 0;
    default:
      PASS(check_op(k, w, c));
      NEED(k->open && (k->in_test || !c->seg[k->seg].has_test), ORDER); /* nothing between EXIT and SEG */
      break;
    }
  }
  return FORAY_DEVERR_ORDER; /* no END */
}

static uint32_t check_run(const foray_word *heap, uint32_t units, uint32_t unit, struct foray_rec_run *r) {
  uint32_t w[FORAY_ABI_RUN_WORDS];
  NEED(in_heap(units, unit, FORAY_RUN_BYTES), ADDRESS);
  for (uint32_t i = 0; i < FORAY_ABI_RUN_WORDS; i++) {
    HLS_PIPELINE
    w[i] = hls_word32(heap, (uint64_t)unit * HLS_BEAT, i);
  }
  foray_rec_run_unpack(w, r);
  NEED(r->magic == FORAY_MAGIC_RUN && !foray_rec_run_spare(w), RUN);
  const uint32_t known =
      FORAY_RUN_SAMPLE | FORAY_RUN_SCORE | FORAY_RUN_FLUSH | FORAY_RUN_STOP_BEFORE | FORAY_RUN_FULL_FIRST;
  NEED(!(r->flags & ~known) && r->stop_n <= FORAY_ABI_STOP_IDS && r->check < FORAY_ABI_COLS_MAX, RUN);
  if (r->flags & FORAY_RUN_SAMPLE)
    NEED(r->inv_temp >= 1 && r->inv_temp <= 1u << 26, RUN);
  else
    NEED(r->inv_temp == 0, RUN);
  NEED(!(r->flags & FORAY_RUN_SCORE) || r->max_drafts == 0, RUN);
  NEED(r->max_drafts == 0 || r->feed_n != 0, RUN);
  NEED(in_heap(units, r->program, FORAY_PROG_BYTES) && in_heap(units, r->state, FORAY_STATE_BYTES), ADDRESS);
  NEED(r->feed_n == 0 || in_heap(units, r->feed, 4 * (uint64_t)r->feed_n), ADDRESS);
  if (r->max_drafts) {
    NEED(r->ring_slots >= r->max_drafts && r->ring_head < r->ring_slots, RING);
    NEED(in_heap(units, r->ring, (uint64_t)r->ring_slots * FORAY_RING_BYTES), ADDRESS);
  }
  return 0;
}

static uint32_t check_state(const foray_word *heap, uint32_t units, uint32_t unit,
                            struct foray_rec_state *s) {
  uint32_t w[FORAY_ABI_STATE_WORDS];
  for (uint32_t i = 0; i < FORAY_ABI_STATE_WORDS; i++) {
    HLS_PIPELINE
    w[i] = hls_word32(heap, (uint64_t)unit * HLS_BEAT, i);
  }
  foray_rec_state_unpack(w, s);
  NEED(s->magic == FORAY_MAGIC_STATE && !foray_rec_state_spare(w), STATE);
  NEED(s->max_pos != 0 && s->max_pos <= FORAY_ABI_POSITIONS_MAX && s->len <= s->max_pos, STATE);
  NEED(in_heap(units, s->kv, (uint64_t)s->kv_units * FORAY_ABI_UNIT), ADDRESS);
  return 0;
}

/* What binds run block, context and program together. */
static uint32_t check_together(uint32_t units, const struct hls_checked *c, uint32_t keeps) {
  const struct foray_rec_state *s = &c->state;
  const struct foray_rec_run *r = &c->run;
  NEED(s->done[0] == s->len, STATE);
  for (uint32_t i = 1; i < c->prog.n_seg; i++) NEED(s->done[i] <= s->done[i - 1], STATE);
  if (c->prog.n_seg > 1) {
    NEED(s->resid_slots >= c->prog.cols && s->resid_slots <= FORAY_ABI_POSITIONS_MAX, STATE);
    NEED(s->len - s->done[c->prog.n_seg - 1] <= s->resid_slots, STATE);
    NEED(in_heap(units, s->resid,
                 (uint64_t)s->resid_slots * hls_y32_words(c->prog.width) * sizeof(foray_word)),
         ADDRESS);
  }
  if (keeps) {
    NEED(s->keep_slots > c->prog.cols && s->keep_slots <= FORAY_ABI_POSITIONS_MAX, STATE);
    NEED(in_heap(units, s->keep, (uint64_t)s->keep_slots * hls_a16_words(c->prog.width) * sizeof(foray_word)),
         ADDRESS);
  }
  NEED(r->start <= s->len, RUN);
  NEED(r->feed_n <= s->max_pos - r->start, CONTEXT);
  if ((r->flags & FORAY_RUN_SCORE) && r->feed_n) {
    uint64_t each = ((uint64_t)c->final_rows + 15) / 16;
    NEED(each * r->feed_n <= r->dump_units, DUMP);
    NEED(in_heap(units, r->dump, (uint64_t)r->dump_units * FORAY_ABI_UNIT), ADDRESS);
  }
  return 0;
}

static void fetch(const foray_word *heap, uint32_t unit, uint32_t n,
                  uint32_t desc[FORAY_HLS_PROGRAM][FORAY_ABI_DESC_WORDS]) {
  for (uint32_t i = 0; i < n; i++) {
    HLS_PIPELINE
    HLS_TRIP(5, 4096)
    for (uint32_t k = 0; k < HLS_BEAT; k++) {
      HLS_UNROLL
      foray_word w = heap[((uint64_t)unit + i) * HLS_BEAT + k];
      desc[i][2 * k] = (uint32_t)w;
      desc[i][2 * k + 1] = (uint32_t)(w >> 32);
    }
  }
}

uint32_t hls_validate(const foray_word *heap, uint32_t heap_units, uint32_t run,
                      uint32_t desc[FORAY_HLS_PROGRAM][FORAY_ABI_DESC_WORDS], struct hls_checked *out,
                      uint32_t *at) {
  struct place k = {0};
  k.units = heap_units;
  *at = UINT32_MAX;
  out->final_rows = 0;
  PASS(check_run(heap, heap_units, run, &out->run));
  PASS(check_state(heap, heap_units, out->run.state, &out->state));
  *at = 0;
  fetch(heap, out->run.program, 1, desc);
  PASS(check_prog(&k, desc[0], &out->prog));
  NEED(in_heap(heap_units, out->run.program, (uint64_t)out->prog.n_desc * FORAY_ABI_UNIT), ADDRESS);
  fetch(heap, out->run.program, out->prog.n_desc, desc);
  PASS(check_body(&k, desc, out, at));
  *at = UINT32_MAX;
  return check_together(heap_units, out, k.keeps);
}
