#include "dev/validate.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are copied as little-endian words");

struct checker {
  const struct foray_space *sp;
  struct foray_checked *c;
  bool in_test, embed_seen, head_seen, keeps;
  uint32_t seg; /* the open segment */
};

/* First failure wins. */
#define NEED(cond, code)                                                                                     \
  do {                                                                                                       \
    if (!(cond)) return FORAY_DEVERR_##code;                                                                 \
  } while (0)

static void get(const struct foray_space *sp, void *to, const uint8_t *from, uint64_t bytes) {
  if (sp->get)
    sp->get(sp->arg, to, from, bytes);
  else
    memcpy(to, from, (size_t)bytes);
}

static bool in_heap(const struct foray_space *sp, uint32_t unit, uint64_t bytes) {
  uint64_t at = (uint64_t)unit * FORAY_ABI_UNIT;
  return unit != 0 && at <= sp->heap_bytes && bytes <= sp->heap_bytes - at;
}

struct range {
  uint64_t at, end; /* units */
};

static bool in_scratch(const struct checker *k, uint32_t unit, uint64_t column_bytes, struct range *r) {
  r->at = unit;
  r->end = unit + column_bytes / FORAY_ABI_UNIT * k->c->prog.cols;
  return r->end <= k->sp->scratch_units;
}
static bool apart(struct range a, struct range b) { return a.end <= b.at || b.end <= a.at; }

static uint32_t vec_n(uint32_t n) {
  NEED(n != 0 && n <= FORAY_ABI_COLUMNS_LIMIT && n % FORAY_ABI_GROUP == 0, SHAPE);
  return FORAY_DEVERR_NONE;
}

#define VEC(n)                                                                                               \
  do {                                                                                                       \
    uint32_t e_ = vec_n(n);                                                                                  \
    if (e_) return e_;                                                                                       \
  } while (0)

static uint32_t heads_shape(uint32_t heads, uint32_t head_dim) {
  NEED(heads != 0 && heads <= FORAY_ABI_HEADS_MAX, SHAPE);
  NEED(head_dim != 0 && head_dim <= FORAY_ABI_HEAD_DIM_MAX && head_dim % FORAY_ABI_GROUP == 0, SHAPE);
  return FORAY_DEVERR_NONE;
}

static uint32_t kv_range(const struct checker *k, uint32_t offset, uint32_t head_dim, uint32_t kv_heads) {
  const struct foray_rec_state *st = &k->c->state;
  uint64_t units = foray_dev_kv_bytes(head_dim, kv_heads, st->max_pos) / FORAY_ABI_UNIT;
  NEED(offset <= st->kv_units && units <= st->kv_units - offset, KV);
  return FORAY_DEVERR_NONE;
}

static uint32_t op_embed(struct checker *k, const uint32_t *w) {
  struct foray_desc_embed d;
  struct range r;
  struct foray_dev_matrix m;
  foray_desc_embed_unpack(w, &d);
  NEED(!foray_desc_embed_spare(w) && d.flags == 0 && d.qtype == FORAY_QTYPE_Q8S, FIELD);
  NEED(k->seg == 0 && !k->in_test && !k->embed_seen, ORDER);
  k->embed_seen = true;
  NEED(foray_dev_matrix_of(d.qtype, d.rows, d.cols, false, &m) && d.rows >= k->c->prog.vocab, SHAPE);
  NEED(in_heap(k->sp, d.addr, m.bytes), ADDRESS);
  NEED(in_scratch(k, d.dst, foray_dev_y32_bytes(d.cols), &r), SCRATCH);
  return FORAY_DEVERR_NONE;
}

static uint32_t op_rmsnorm(struct checker *k, const uint32_t *w) {
  struct foray_desc_rmsnorm d;
  struct range a, b;
  foray_desc_rmsnorm_unpack(w, &d);
  NEED(!foray_desc_rmsnorm_spare(w) && d.flags == 0, FIELD);
  VEC(d.n);
  NEED(d.n <= FORAY_ABI_NORM_LIMIT, SHAPE);
  NEED(d.root_n == foray_dev_root_n(d.n), FIELD);
  NEED(in_heap(k->sp, d.gamma, 4 * (uint64_t)d.n), ADDRESS);
  NEED(in_scratch(k, d.src, foray_dev_y32_bytes(d.n), &a) &&
           in_scratch(k, d.dst, foray_dev_a16_bytes(d.n), &b) && apart(a, b),
       SCRATCH);
  return FORAY_DEVERR_NONE;
}

static uint32_t op_gemv(struct checker *k, const uint32_t *w) {
  struct foray_desc_gemv d;
  struct range a, b;
  struct foray_dev_matrix m;
  foray_desc_gemv_unpack(w, &d);
  bool bias = (d.flags & FORAY_DF_BIAS) != 0;
  NEED(!foray_desc_gemv_spare(w) && !(d.flags & ~(uint32_t)FORAY_DF_BIAS), FIELD);
  NEED(d.qtype == FORAY_QTYPE_Q4A || d.qtype == FORAY_QTYPE_Q8S, FIELD);
  NEED(bias || d.bias_exp == 0, FIELD);
  NEED(foray_dev_matrix_of(d.qtype, d.rows, d.cols, bias, &m) && m.rows_pad <= FORAY_ABI_COLUMNS_LIMIT,
       SHAPE);
  NEED(in_heap(k->sp, d.addr, m.bytes), ADDRESS);
  NEED(in_scratch(k, d.src, foray_dev_a16_bytes(d.cols), &a) &&
           in_scratch(k, d.dst, foray_dev_y32_bytes(m.rows_pad), &b) && apart(a, b),
       SCRATCH);
  return FORAY_DEVERR_NONE;
}

static uint32_t op_head(struct checker *k, const uint32_t *w) {
  struct foray_desc_head d;
  struct range a;
  struct foray_dev_matrix m;
  foray_desc_head_unpack(w, &d);
  NEED(!foray_desc_head_spare(w) && d.flags == 0, FIELD);
  NEED(d.qtype == FORAY_QTYPE_Q4A || d.qtype == FORAY_QTYPE_Q8S, FIELD);
  NEED(k->in_test && !k->head_seen, ORDER);
  k->head_seen = true;
  NEED(foray_dev_matrix_of(d.qtype, d.rows, d.cols, false, &m) && d.used != 0 && d.used <= d.rows, SHAPE);
  NEED(d.ids != 0 || d.used <= k->c->prog.vocab, SHAPE);
  NEED(in_heap(k->sp, d.addr, m.bytes) && (d.ids == 0 || in_heap(k->sp, d.ids, 4 * (uint64_t)d.used)),
       ADDRESS);
  NEED(in_scratch(k, d.src, foray_dev_a16_bytes(d.cols), &a), SCRATCH);
  if (d.used > k->c->head_rows) k->c->head_rows = d.used;
  if (k->c->seg[k->seg].final) k->c->final_rows = d.used;
  return FORAY_DEVERR_NONE;
}

static uint32_t op_rope(struct checker *k, const uint32_t *w) {
  struct foray_desc_rope d;
  struct range a;
  foray_desc_rope_unpack(w, &d);
  NEED(!foray_desc_rope_spare(w) && !(d.flags & ~(uint32_t)FORAY_DF_NEOX), FIELD);
  uint32_t e = heads_shape(d.heads, d.head_dim);
  if (e) return e;
  NEED(in_heap(k->sp, d.freq, 4 * (uint64_t)d.head_dim), ADDRESS);
  NEED(in_scratch(k, d.vec, foray_dev_y32_bytes(d.heads * d.head_dim), &a), SCRATCH);
  return FORAY_DEVERR_NONE;
}

static uint32_t op_kv_put(struct checker *k, const uint32_t *w) {
  struct foray_desc_kv_put d;
  struct range a, b;
  foray_desc_kv_put_unpack(w, &d);
  NEED(!foray_desc_kv_put_spare(w) && d.flags == 0, FIELD);
  NEED(!k->in_test, ORDER);
  uint32_t e = heads_shape(d.heads, d.head_dim);
  if (e) return e;
  uint64_t bytes = foray_dev_y32_bytes(d.heads * d.head_dim);
  NEED(in_scratch(k, d.k, bytes, &a) && in_scratch(k, d.v, bytes, &b), SCRATCH);
  return kv_range(k, d.offset, d.head_dim, d.heads);
}

static uint32_t op_attn(struct checker *k, const uint32_t *w) {
  struct foray_desc_attn d;
  struct range a, b;
  foray_desc_attn_unpack(w, &d);
  NEED(!foray_desc_attn_spare(w) && d.flags == 0, FIELD);
  NEED(d.scale >= 1u << 23 && d.scale <= 1u << 24, FIELD);
  NEED(!k->in_test, ORDER);
  uint32_t e = heads_shape(d.heads, d.head_dim);
  if (e) return e;
  NEED(d.kv_heads != 0 && d.heads % d.kv_heads == 0, SHAPE);
  uint32_t n = d.heads * d.head_dim;
  NEED(in_scratch(k, d.q, foray_dev_y32_bytes(n), &a) && in_scratch(k, d.dst, foray_dev_a16_bytes(n), &b) &&
           apart(a, b),
       SCRATCH);
  return kv_range(k, d.offset, d.head_dim, d.kv_heads);
}

static uint32_t op_silu_mul(struct checker *k, const uint32_t *w) {
  struct foray_desc_silu_mul d;
  struct range a, b, c;
  foray_desc_silu_mul_unpack(w, &d);
  NEED(!foray_desc_silu_mul_spare(w) && d.flags == 0, FIELD);
  VEC(d.n);
  uint64_t y = foray_dev_y32_bytes(d.n);
  NEED(in_scratch(k, d.gate, y, &a) && in_scratch(k, d.up, y, &b) &&
           in_scratch(k, d.dst, foray_dev_a16_bytes(d.n), &c) && apart(a, c) && apart(b, c),
       SCRATCH);
  return FORAY_DEVERR_NONE;
}

static uint32_t op_quant(struct checker *k, const uint32_t *w) {
  struct foray_desc_quant d;
  struct range a, b;
  foray_desc_quant_unpack(w, &d);
  NEED(!foray_desc_quant_spare(w) && d.flags == 0, FIELD);
  VEC(d.n);
  NEED(in_scratch(k, d.src, foray_dev_y32_bytes(d.n), &a) &&
           in_scratch(k, d.dst, foray_dev_a16_bytes(d.n), &b) && apart(a, b),
       SCRATCH);
  return FORAY_DEVERR_NONE;
}

static uint32_t op_add(struct checker *k, const uint32_t *w) {
  struct foray_desc_add d;
  struct range a, b;
  foray_desc_add_unpack(w, &d);
  NEED(!foray_desc_add_spare(w) && d.flags == 0, FIELD);
  VEC(d.n);
  uint64_t y = foray_dev_y32_bytes(d.n);
  NEED(in_scratch(k, d.acc, y, &a) && in_scratch(k, d.src, y, &b) && apart(a, b), SCRATCH);
  return FORAY_DEVERR_NONE;
}

static uint32_t op_kept(struct checker *k, uint32_t at, bool plain) {
  struct range a;
  NEED(plain, FIELD);
  NEED(k->in_test, ORDER);
  k->keeps = true;
  NEED(in_scratch(k, at, foray_dev_a16_bytes(k->c->prog.width), &a), SCRATCH);
  return FORAY_DEVERR_NONE;
}

static uint32_t op_keep(struct checker *k, const uint32_t *w) {
  struct foray_desc_keep d;
  foray_desc_keep_unpack(w, &d);
  return op_kept(k, d.src, !foray_desc_keep_spare(w) && d.flags == 0);
}

static uint32_t op_prev(struct checker *k, const uint32_t *w) {
  struct foray_desc_prev d;
  foray_desc_prev_unpack(w, &d);
  return op_kept(k, d.dst, !foray_desc_prev_spare(w) && d.flags == 0);
}

static uint32_t check_op(struct checker *k, const uint32_t *w) {
  switch (w[0] & 0xff) {
  case FORAY_OP_EMBED: return op_embed(k, w);
  case FORAY_OP_RMSNORM: return op_rmsnorm(k, w);
  case FORAY_OP_GEMV: return op_gemv(k, w);
  case FORAY_OP_HEAD: return op_head(k, w);
  case FORAY_OP_ROPE: return op_rope(k, w);
  case FORAY_OP_KV_PUT: return op_kv_put(k, w);
  case FORAY_OP_ATTN: return op_attn(k, w);
  case FORAY_OP_SILU_MUL: return op_silu_mul(k, w);
  case FORAY_OP_QUANT: return op_quant(k, w);
  case FORAY_OP_ADD: return op_add(k, w);
  case FORAY_OP_KEEP: return op_keep(k, w);
  case FORAY_OP_PREV: return op_prev(k, w);
  default: return FORAY_DEVERR_OPCODE;
  }
}

static uint32_t check_prog(struct checker *k, const uint32_t *w) {
  struct foray_desc_prog *p = &k->c->prog;
  struct range r;
  NEED((w[0] & 0xff) == FORAY_OP_PROG, ORDER);
  foray_desc_prog_unpack(w, p);
  NEED(p->abi_hash == FORAY_ABI_HASH && p->version == FORAY_ABI_VERSION, ABI);
  NEED(!foray_desc_prog_spare(w) && p->flags == 0, FIELD);
  NEED(p->n_desc >= 5 && p->n_desc <= FORAY_ABI_PROGRAM_MAX, SHAPE);
  NEED(p->n_seg >= 1 && p->n_seg <= FORAY_ABI_SEGMENTS_MAX, SHAPE);
  NEED(p->n_test >= 1 && p->n_test <= FORAY_ABI_TESTS_MAX && p->n_test <= p->n_seg, SHAPE);
  NEED(p->cols >= 1 && p->cols <= k->sp->cols_max && p->vocab != 0 && p->vocab <= FORAY_ABI_ROWS_LIMIT,
       SHAPE);
  VEC(p->width);
  NEED(in_scratch(k, p->resid, foray_dev_y32_bytes(p->width), &r), SCRATCH);
  return FORAY_DEVERR_NONE;
}

static uint32_t check_body(struct checker *k, const uint32_t *copy, uint32_t *at) {
  struct foray_desc_prog *p = &k->c->prog;
  uint32_t seg_next = 0, test_next = 0;
  bool open = false; /* a segment is open */
  for (uint32_t i = 1; i < p->n_desc; i++) {
    const uint32_t *w = copy + i * FORAY_ABI_DESC_WORDS;
    struct foray_segment *s = open ? &k->c->seg[k->seg] : NULL;
    *at = i;
    switch (w[0] & 0xff) {
    case FORAY_OP_SEG: {
      struct foray_desc_seg d;
      foray_desc_seg_unpack(w, &d);
      NEED(!foray_desc_seg_spare(w) && d.flags == 0, FIELD);
      NEED(!k->in_test && d.index == seg_next && seg_next < p->n_seg, ORDER);
      NEED(k->seg != 0 || !open || k->embed_seen, ORDER);
      if (s && !s->has_test) s->body_end = i;
      open = true;
      k->seg = seg_next++;
      k->c->seg[k->seg] = (struct foray_segment){.body = i + 1, .body_end = i + 1};
      break;
    }
    case FORAY_OP_TEST: {
      struct foray_desc_test d;
      foray_desc_test_unpack(w, &d);
      NEED(!foray_desc_test_spare(w) && !(d.flags & ~(uint32_t)FORAY_DF_FINAL), FIELD);
      NEED(s && !k->in_test && !s->has_test && d.index == test_next && test_next < p->n_test, ORDER);
      bool final = (d.flags & FORAY_DF_FINAL) != 0;
      NEED(final == (k->seg == p->n_seg - 1) && final == (d.index == p->n_test - 1), ORDER);
      test_next++;
      s->body_end = i;
      s->test = i + 1;
      s->exit = d.index;
      s->has_test = true;
      s->final = final;
      k->in_test = true;
      k->head_seen = false;
      break;
    }
    case FORAY_OP_EXIT:
      NEED(!foray_desc_exit_spare(w) && !(w[0] >> 8), FIELD);
      NEED(k->in_test && k->head_seen, ORDER);
      s->test_end = i;
      k->in_test = false;
      break;
    case FORAY_OP_END:
      NEED(!foray_desc_end_spare(w) && !(w[0] >> 8), FIELD);
      NEED(i == p->n_desc - 1 && !k->in_test && seg_next == p->n_seg && test_next == p->n_test, ORDER);
      NEED(s && s->final && k->embed_seen, ORDER);
      return FORAY_DEVERR_NONE;
    case FORAY_OP_PROG: return FORAY_DEVERR_ORDER;
    default: {
      uint32_t e = check_op(k, w);
      if (e) return e;
      NEED(s && (k->in_test || !s->has_test), ORDER); /* nothing between EXIT and SEG */
      break;
    }
    }
  }
  return FORAY_DEVERR_ORDER; /* no END */
}

static uint32_t check_run(const struct foray_space *sp, uint32_t unit, struct foray_rec_run *r) {
  uint32_t w[FORAY_ABI_RUN_WORDS];
  NEED(in_heap(sp, unit, FORAY_RUN_BYTES), ADDRESS);
  get(sp, w, sp->heap + (uint64_t)unit * FORAY_ABI_UNIT, sizeof w);
  foray_rec_run_unpack(w, r);
  NEED(r->magic == FORAY_MAGIC_RUN && !foray_rec_run_spare(w), RUN);
  const uint32_t known =
      FORAY_RUN_SAMPLE | FORAY_RUN_SCORE | FORAY_RUN_FLUSH | FORAY_RUN_STOP_BEFORE | FORAY_RUN_FULL_FIRST;
  NEED(!(r->flags & ~known) && r->stop_n <= FORAY_ABI_STOP_IDS && r->check < FORAY_ABI_COLS_MAX, RUN);
  bool sample = (r->flags & FORAY_RUN_SAMPLE) != 0, score = (r->flags & FORAY_RUN_SCORE) != 0;
  NEED(sample ? r->inv_temp >= 1 && r->inv_temp <= 1u << 26 : r->inv_temp == 0, RUN);
  NEED(!score || r->max_drafts == 0, RUN);
  NEED(r->max_drafts == 0 || r->feed_n != 0, RUN);
  NEED(in_heap(sp, r->program, FORAY_PROG_BYTES) && in_heap(sp, r->state, FORAY_STATE_BYTES), ADDRESS);
  NEED(r->feed_n == 0 || in_heap(sp, r->feed, 4 * (uint64_t)r->feed_n), ADDRESS);
  if (r->max_drafts) {
    NEED(r->ring_slots >= r->max_drafts && r->ring_head < r->ring_slots, RING);
    NEED(in_heap(sp, r->ring, (uint64_t)r->ring_slots * FORAY_RING_BYTES), ADDRESS);
  }
  return FORAY_DEVERR_NONE;
}

static uint32_t check_state(const struct foray_space *sp, struct foray_checked *c) {
  uint32_t w[FORAY_ABI_STATE_WORDS];
  struct foray_rec_state *s = &c->state;
  get(sp, w, sp->heap + (uint64_t)c->run.state * FORAY_ABI_UNIT, sizeof w);
  foray_rec_state_unpack(w, s);
  NEED(s->magic == FORAY_MAGIC_STATE && !foray_rec_state_spare(w), STATE);
  NEED(s->max_pos != 0 && s->max_pos <= FORAY_ABI_POSITIONS_MAX && s->len <= s->max_pos, STATE);
  NEED(in_heap(sp, s->kv, (uint64_t)s->kv_units * FORAY_ABI_UNIT), ADDRESS);
  return FORAY_DEVERR_NONE;
}

/* What binds run, context and program together. */
static uint32_t check_together(const struct foray_space *sp, struct foray_checked *c, bool keeps) {
  struct foray_rec_state *s = &c->state;
  struct foray_rec_run *r = &c->run;
  NEED(s->done[0] == s->len, STATE);
  for (uint32_t i = 1; i < c->prog.n_seg; i++) NEED(s->done[i] <= s->done[i - 1], STATE);
  if (c->prog.n_seg > 1) {
    NEED(s->resid_slots >= c->prog.cols && s->resid_slots <= FORAY_ABI_POSITIONS_MAX, STATE);
    NEED(s->len - s->done[c->prog.n_seg - 1] <= s->resid_slots, STATE);
    NEED(in_heap(sp, s->resid, s->resid_slots * foray_dev_y32_bytes(c->prog.width)), ADDRESS);
  }
  if (keeps) {
    NEED(s->keep_slots > c->prog.cols && s->keep_slots <= FORAY_ABI_POSITIONS_MAX, STATE);
    NEED(in_heap(sp, s->keep, s->keep_slots * foray_dev_a16_bytes(c->prog.width)), ADDRESS);
  }
  NEED(r->start <= s->len, RUN);
  NEED(r->feed_n <= s->max_pos - r->start, CONTEXT);
  if ((r->flags & FORAY_RUN_SCORE) && r->feed_n) {
    uint64_t each = foray_dev_up(4 * (uint64_t)c->final_rows, FORAY_ABI_UNIT) / FORAY_ABI_UNIT;
    NEED(each * r->feed_n <= r->dump_units, DUMP);
    NEED(in_heap(sp, r->dump, (uint64_t)r->dump_units * FORAY_ABI_UNIT), ADDRESS);
  }
  return FORAY_DEVERR_NONE;
}

uint32_t foray_validate(const struct foray_space *sp, uint32_t run_unit, uint32_t *copy,
                        struct foray_checked *out, uint32_t *desc) {
  struct checker k = {.sp = sp, .c = out};
  memset(out, 0, sizeof *out);
  *desc = UINT32_MAX;
  uint32_t e = check_run(sp, run_unit, &out->run);
  if (!e) e = check_state(sp, out);
  if (e) return e;
  *desc = 0;
  uint64_t at = (uint64_t)out->run.program * FORAY_ABI_UNIT;
  get(sp, copy, sp->heap + at, FORAY_PROG_BYTES);
  e = check_prog(&k, copy);
  if (e) return e;
  uint64_t bytes = (uint64_t)out->prog.n_desc * FORAY_ABI_UNIT;
  if (!in_heap(sp, out->run.program, bytes)) return FORAY_DEVERR_ADDRESS;
  get(sp, copy, sp->heap + at, bytes);
  e = check_body(&k, copy, desc);
  if (e) return e;
  *desc = UINT32_MAX;
  return check_together(sp, out, k.keeps);
}
