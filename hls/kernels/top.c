/* A draft program from one doorbell, docs/numerics.md 10: feed, segments, exits, checks, stop rules, ring.
 * Control only: the arithmetic is in the op kernels. */
#include "include/hls_program.h"

/* Columns [c0, c1) of the scratch vectors; column c is position pos0 + c. */
struct batch {
  uint32_t c0, c1, pos0;
};
static struct batch batch_of(uint32_t c0, uint32_t c1, uint32_t pos0) {
  struct batch b;
  b.c0 = c0;
  b.c1 = c1;
  b.pos0 = pos0;
  return b;
}

/* Words between the two memories. */
static void to_scratch(const foray_word *heap, uint64_t from, foray_word *scratch, uint32_t to,
                       uint32_t words) {
  for (uint32_t w = 0; w < words; w++) {
    HLS_PIPELINE
    HLS_TRIP(16, 8192)
    scratch[to + w] = heap[from + w];
  }
}
static void to_heap(const foray_word *scratch, uint32_t from, foray_word *heap, uint64_t to, uint32_t words) {
  for (uint32_t w = 0; w < words; w++) {
    HLS_PIPELINE
    HLS_TRIP(16, 8192)
    heap[to + w] = scratch[from + w];
  }
}

/* ---- bytes that an op moves, for the counters ---- */

static void count(struct hls_machine *s, const uint32_t *w, struct batch b) {
  const uint32_t cols = b.c1 - b.c0;
  uint64_t *c = s->counter;
  c[FORAY_COUNTER_OPS] += 1;
  c[FORAY_COUNTER_DESC_BYTES] += FORAY_ABI_UNIT;
  switch (w[0] & 0xff) {
  case FORAY_OP_GEMV: {
    struct foray_desc_gemv d;
    foray_desc_gemv_unpack(w, &d);
    uint32_t bias = d.flags & FORAY_DF_BIAS;
    struct hls_layout l = hls_layout_of(d.qtype, d.rows, d.cols, 0);
    c[FORAY_COUNTER_WEIGHT_BYTES] +=
        (l.data + l.block * (l.rows_pad / FORAY_ABI_ROW_BLOCK)) * sizeof(foray_word);
    if (bias) c[FORAY_COUNTER_VECTOR_BYTES] += 4 * (uint64_t)l.rows_pad;
    break;
  }
  case FORAY_OP_HEAD: {
    struct foray_desc_head d;
    foray_desc_head_unpack(w, &d);
    struct hls_layout l = hls_layout_of(d.qtype, d.rows, d.cols, 0);
    c[FORAY_COUNTER_WEIGHT_BYTES] += (d.used + 15) / 16 * (l.block * sizeof(foray_word) + 32);
    if (d.ids && !(s->c.run.flags & FORAY_RUN_SCORE)) c[FORAY_COUNTER_VECTOR_BYTES] += 4 * (uint64_t)d.used;
    break;
  }
  case FORAY_OP_EMBED: {
    struct foray_desc_embed d;
    foray_desc_embed_unpack(w, &d);
    c[FORAY_COUNTER_EMBED_BYTES] += (uint64_t)cols * (d.cols + d.cols / 32 + 2);
    break;
  }
  case FORAY_OP_RMSNORM: c[FORAY_COUNTER_VECTOR_BYTES] += 4 * (uint64_t)w[3]; break;
  case FORAY_OP_ROPE: c[FORAY_COUNTER_VECTOR_BYTES] += 4 * (uint64_t)(w[2] & 0xffff); break;
  case FORAY_OP_KV_PUT:
  case FORAY_OP_ATTN: {
    struct foray_desc_attn a;
    struct foray_desc_kv_put p;
    foray_desc_attn_unpack(w, &a);
    foray_desc_kv_put_unpack(w, &p);
    uint32_t put = (w[0] & 0xff) == FORAY_OP_KV_PUT, dim = put ? p.head_dim : a.head_dim;
    uint64_t record = (uint64_t)(dim / 8 + 15) / 16 * 16 + 2 * (uint64_t)dim;
    if (put)
      c[FORAY_COUNTER_KV_WRITE_BYTES] += cols * record * p.heads;
    else
      c[FORAY_COUNTER_KV_READ_BYTES] += (uint64_t)(b.pos0 + b.c1) * record * a.kv_heads;
    break;
  }
  default: break;
  }
}

/* ---- descriptors over a batch ---- */

/* KEEP and PREV: a column of scratch and the context's slot of a position; before position 0 is its own slot.
 */
static void move_kept(foray_word *heap, foray_word *scratch, struct hls_machine *s, const uint32_t *w,
                      struct batch b) {
  const struct foray_rec_state *st = &s->c.state;
  const uint32_t keep = (w[0] & 0xff) == FORAY_OP_KEEP, words = hls_a16_words(s->c.prog.width);
  for (uint32_t c = b.c0; c < b.c1; c++) {
    HLS_TRIP(1, 8)
    uint32_t position = b.pos0 + c, from = keep || position == 0 ? position : position - 1;
    uint64_t slot = (uint64_t)st->keep * HLS_BEAT + (uint64_t)(from % st->keep_slots) * words;
    uint32_t column = hls_a16_at(w[1], s->c.prog.width, c);
    if (keep)
      to_heap(scratch, column, heap, slot, words);
    else
      to_scratch(heap, slot, scratch, column, words);
    s->counter[FORAY_COUNTER_RESID_BYTES] += words * sizeof(foray_word);
  }
}

static void run_op(foray_word *heap, foray_word *scratch, struct hls_machine *s, const uint32_t *w,
                   struct batch b, uint32_t dump) {
  const struct foray_rec_state *st = &s->c.state;
  switch (w[0] & 0xff) {
  case FORAY_OP_EMBED: foray_hls_embed(heap, scratch, w, b.c0, b.c1, s->tokens); break;
  case FORAY_OP_RMSNORM: foray_hls_rmsnorm(heap, scratch, w, b.c0, b.c1); break;
  case FORAY_OP_GEMV: hls_gemv(heap, scratch, w, (w[0] >> 16) & 0xff, b.c0, b.c1, &s->product); break;
  case FORAY_OP_HEAD: {
    struct hls_sampling how;
    how.on = s->c.run.flags & FORAY_RUN_SAMPLE;
    how.inv_temp = s->c.run.inv_temp;
    how.seed = s->c.run.seed;
    how.position = b.pos0 + b.c0 + 1;
    hls_head(heap, scratch, w, b.c0, b.c1, &how, dump, (s->c.final_rows + 15) / 16, &s->product.act, s->unit);
    break;
  }
  case FORAY_OP_ROPE: foray_hls_rope(heap, scratch, w, b.c0, b.c1, b.pos0); break;
  case FORAY_OP_KV_PUT: foray_hls_kv_put(heap, scratch, w, b.c0, b.c1, b.pos0, st->kv, st->max_pos); break;
  case FORAY_OP_ATTN: foray_hls_attention(heap, scratch, w, b.c0, b.c1, b.pos0, st->kv, st->max_pos); break;
  case FORAY_OP_SILU_MUL: foray_hls_silu_mul(scratch, w, b.c0, b.c1); break;
  case FORAY_OP_QUANT: foray_hls_quant(scratch, w, b.c0, b.c1); break;
  case FORAY_OP_ADD: foray_hls_add(scratch, w, b.c0, b.c1); break;
  case FORAY_OP_KEEP:
  case FORAY_OP_PREV: move_kept(heap, scratch, s, w, b); break;
  default: break; /* checked */
  }
}

static uint32_t run_ops(foray_word *heap, foray_word *scratch, struct hls_machine *s, uint32_t from,
                        uint32_t to, uint32_t seg, uint32_t exit, struct batch b, uint32_t dump) {
  (void)exit; /* for who watches */
  s->seg = seg;
  for (uint32_t i = from; i < to; i++) {
    HLS_TRIP(1, 512)
    s->at = i;
    if (s->c.run.step_limit && s->steps >= s->c.run.step_limit) return FORAY_DEVERR_STEPS;
    s->steps++;
    HLS_BEGIN(0);
    count(s, s->desc[i], b);
    run_op(heap, scratch, s, s->desc[i], b, dump);
    HLS_END(0, i, s->desc[i][0] & 0xff, seg, exit, b.c1 - b.c0, b.pos0 + b.c0);
  }
  return 0;
}

/* ---- segments ---- */

/* Where the residual of a position waits for deeper segments. */
static uint64_t saved(const struct hls_machine *s, uint32_t position, uint32_t words) {
  return (uint64_t)s->c.state.resid * HLS_BEAT + (uint64_t)(position % s->c.state.resid_slots) * words;
}

/* One batch through a segment; tokens are set for segment 0. */
static uint32_t run_batch(foray_word *heap, foray_word *scratch, struct hls_machine *s, uint32_t seg,
                          struct batch b) {
  struct foray_rec_state *st = &s->c.state;
  const uint32_t words = hls_y32_words(s->c.prog.width), last = s->c.prog.n_seg - 1, cols = b.c1 - b.c0;
  if (HLS_EXPIRED()) return FORAY_DEVERR_DEADLINE;
  HLS_BEGIN(1);
  if (seg > 0)
    for (uint32_t c = b.c0; c < b.c1; c++)
      to_scratch(heap, saved(s, b.pos0 + c, words), scratch, hls_y32_at(s->c.prog.resid, s->c.prog.width, c),
                 words);
  uint32_t e = run_ops(heap, scratch, s, s->c.seg[seg].body, s->c.seg[seg].body_end, seg, UINT32_MAX, b, 0);
  if (e) return e;
  if (seg < last)
    for (uint32_t c = b.c0; c < b.c1; c++)
      to_heap(scratch, hls_y32_at(s->c.prog.resid, s->c.prog.width, c), heap, saved(s, b.pos0 + c, words),
              words);
  s->counter[FORAY_COUNTER_RESID_BYTES] +=
      (uint64_t)((seg > 0) + (seg < last)) * cols * words * sizeof(foray_word);
  s->counter[FORAY_COUNTER_COLUMNS] += cols;
  s->counter[FORAY_COUNTER_PASSES] += 1;
  st->done[seg] = b.pos0 + b.c1;
  HLS_END(1, UINT32_MAX, 0, seg, UINT32_MAX, cols, b.pos0 + b.c0);
  return 0;
}

/* The next batch that segment seg > 0 owes. */
static struct batch pending(const struct hls_machine *s, uint32_t seg) {
  uint32_t n = s->c.state.done[seg - 1] - s->c.state.done[seg];
  return batch_of(0, n < s->c.prog.cols ? n : s->c.prog.cols, s->c.state.done[seg]);
}

/* All pending positions through segment seg > 0; *last: the batch that held the newest. */
static uint32_t catch_up(foray_word *heap, foray_word *scratch, struct hls_machine *s, uint32_t seg,
                         struct batch *last) {
  while (s->c.state.done[seg] < s->c.state.done[seg - 1]) {
    HLS_TRIP(1, 8)
    *last = pending(s, seg);
    uint32_t e = run_batch(heap, scratch, s, seg, *last);
    if (e) return e;
  }
  return 0;
}

static uint32_t flush(foray_word *heap, foray_word *scratch, struct hls_machine *s) {
  struct batch b;
  for (uint32_t seg = 1; seg < s->c.prog.n_seg; seg++) {
    uint32_t e = catch_up(heap, scratch, s, seg, &b);
    if (e) return e;
  }
  return 0;
}

/* s->tokens[0 .. n) become the next positions and go through segment 0. */
static uint32_t feed(foray_word *heap, foray_word *scratch, struct hls_machine *s, uint32_t n,
                     struct batch *last) {
  struct foray_rec_state *st = &s->c.state;
  const uint32_t deep = s->c.prog.n_seg - 1;
  for (uint32_t c = 0; c < n; c++)
    if (s->tokens[c] >= s->c.prog.vocab) return FORAY_DEVERR_TOKEN;
  if (deep && st->len + n - st->done[deep] > st->resid_slots) {
    uint32_t e = flush(heap, scratch, s);
    if (e) return e;
  }
  *last = batch_of(0, n, st->len);
  uint32_t e = run_batch(heap, scratch, s, 0, *last);
  if (!e) st->len += n;
  return e;
}

/* ---- exits ---- */

static uint64_t ring_at(const struct hls_machine *s, uint32_t i) {
  uint64_t slot = ((uint64_t)s->c.run.ring_head + i) % s->c.run.ring_slots;
  return (uint64_t)s->c.run.ring * HLS_BEAT + slot * (FORAY_ABI_RING_WORDS / 2);
}
static void ring_read(const foray_word *heap, const struct hls_machine *s, uint32_t i,
                      struct foray_rec_ring *r) {
  uint32_t w[FORAY_ABI_RING_WORDS];
  for (uint32_t k = 0; k < FORAY_ABI_RING_WORDS; k++) w[k] = hls_word32(heap, ring_at(s, i), k);
  foray_rec_ring_unpack(w, r);
}
static void ring_write(foray_word *heap, const struct hls_machine *s, uint32_t i,
                       const struct foray_rec_ring *r) {
  uint32_t w[FORAY_ABI_RING_WORDS];
  foray_rec_ring_pack(r, w);
  for (uint32_t k = 0; k < FORAY_ABI_RING_WORDS / 2; k++)
    heap[ring_at(s, i) + k] = hls_pair((int32_t)w[2 * k], (int32_t)w[2 * k + 1]);
}

static uint32_t stop_fires(const struct hls_machine *s, const struct foray_rec_ring *r) {
  return (s->rule && hls_exit_rule(s->c.run.stop_rule, r) < 0) ||
         (s->c.run.cum_min && r->cum < s->c.run.cum_min);
}

/* Afterwards unit[i] holds what column c0 + i says. */
static uint32_t exit_section(foray_word *heap, foray_word *scratch, struct hls_machine *s, uint32_t seg,
                             struct batch b) {
  const struct hls_segment *g = &s->c.seg[seg];
  for (uint32_t c = b.c0; c < b.c1; c++) hls_exit_clear(&s->unit[c - b.c0]);
  return run_ops(heap, scratch, s, g->test, g->test_end, seg, g->exit, b, 0);
}

/* What a unit says about ring entry i. */
static void decision(const foray_word *heap, const struct hls_machine *s, uint32_t exit,
                     const struct hls_exit *u, uint32_t i, struct foray_rec_ring *r) {
  struct foray_rec_ring before = {0}, none = {0};
  if (i > 0) ring_read(heap, s, i - 1, &before);
  *r = none;
  hls_exit_finish(u, before.cum, r);
  r->position = s->first + i;
  r->exit = exit;
}

/* All columns through the final segment, which decides the newest; early tokens whose columns ride along are
 * checked. At the first wrong one the context is cut, and the decision is that entry's. */
static uint32_t check_up(foray_word *heap, foray_word *scratch, struct hls_machine *s, struct batch b,
                         struct foray_rec_ring *r) {
  struct foray_rec_state *st = &s->c.state;
  const uint32_t seg = s->c.prog.n_seg - 1, tried = r->tried;
  for (;;) {
    HLS_TRIP(1, 8)
    if (seg > 0) {
      b = pending(s, seg);
      uint32_t e = run_batch(heap, scratch, s, seg, b);
      if (e) return e;
    }
    uint32_t from = s->first + s->unchecked - 1; /* column of the first unchecked entry */
    if (b.pos0 + b.c1 <= from) continue;
    struct batch t = batch_of(from > b.pos0 + b.c0 ? from - b.pos0 : b.c0, b.c1, b.pos0);
    uint32_t e = exit_section(heap, scratch, s, seg, t);
    if (e) return e;
    for (uint32_t c = t.c0; c < t.c1; c++) {
      HLS_TRIP(1, 8)
      uint32_t i = t.pos0 + c + 1 - s->first;
      struct foray_rec_ring old;
      decision(heap, s, s->c.seg[seg].exit, &s->unit[c - t.c0], i, r);
      if (i == s->drafted) {
        r->tried = tried + 1;
        return 0;
      }
      ring_read(heap, s, i, &old);
      r->tried = old.tried + 1;
      s->counter[FORAY_COUNTER_CHECKED]++;
      if (r->token != old.token) {
        s->counter[FORAY_COUNTER_CORRECTED]++;
        r->flags = FORAY_RING_CORRECTED;
        s->drafted = i;
        st->len = r->position;
        for (uint32_t k = 0; k < s->c.prog.n_seg; k++)
          if (st->done[k] > st->len) st->done[k] = st->len;
        return 0;
      }
      r->token = old.token;
      r->exit = old.exit;
      r->flags = FORAY_RING_CONFIRMED;
      if (stop_fires(s, r)) {
        r->flags |= FORAY_RING_STOP_RULE;
        s->fired = 1;
      }
      ring_write(heap, s, i, r);
    }
  }
}

/* From segment 0, already run for the newest position in batch b, to the exit that decides. */
static uint32_t decide(foray_word *heap, foray_word *scratch, struct hls_machine *s, struct batch b,
                       struct foray_rec_ring *r) {
  const struct foray_rec_run *run = &s->c.run;
  const uint32_t early = (!run->check || s->drafted - s->unchecked < run->check) &&
                         !((run->flags & FORAY_RUN_FULL_FIRST) && s->drafted == 0);
  uint32_t tried = 0;
  for (uint32_t seg = 0; seg < s->c.prog.n_seg; seg++) {
    HLS_TRIP(1, 16)
    const struct hls_segment *g = &s->c.seg[seg];
    if (g->final && run->check) {
      r->tried = tried;
      return check_up(heap, scratch, s, b, r);
    }
    if (seg > 0) {
      uint32_t e = catch_up(heap, scratch, s, seg, &b);
      if (e) return e;
    }
    if (!g->has_test || !(g->final || (early && (run->tests >> g->exit & 1)))) continue;
    uint32_t e = exit_section(heap, scratch, s, seg, batch_of(b.c1 - 1, b.c1, b.pos0));
    if (e) return e;
    decision(heap, s, g->exit, &s->unit[0], s->drafted, r);
    r->tried = ++tried;
    if (g->final || hls_exit_rule(run->exit_rule + g->exit * FORAY_ABI_FEATURES, r) >= 0) return 0;
  }
  return FORAY_DEVERR_ORDER; /* not reached: the final section decides */
}

static uint32_t draft(foray_word *heap, foray_word *scratch, struct hls_machine *s, struct batch b) {
  const struct foray_rec_run *run = &s->c.run;
  struct hls_result *res = &s->res;
  s->first = s->c.state.len;
  s->drafted = s->unchecked = s->fired = s->rule = 0;
  for (int k = 0; k < FORAY_ABI_FEATURES; k++) s->rule |= run->stop_rule[k] != 0;
  for (;;) {
    HLS_TRIP(1, 64)
    struct foray_rec_ring r = {0};
    uint32_t e = decide(heap, scratch, s, b, &r);
    res->drafted = s->drafted;
    if (e) return e;
    uint32_t full = r.exit == s->c.prog.n_test - 1, stop_id = 0;
    uint32_t fired = (full || !run->check) && stop_fires(s, &r); /* checked drafts are judged at full depth */
    if (fired && (run->flags & FORAY_RUN_STOP_BEFORE)) {
      res->stop = FORAY_STOP_RULE;
      return 0;
    }
    for (uint32_t k = 0; k < FORAY_ABI_STOP_IDS; k++)
      stop_id |= k < run->stop_n && r.token == run->stop_ids[k];
    if (stop_id) r.flags |= FORAY_RING_STOP_ID;
    if (fired) r.flags |= FORAY_RING_STOP_RULE;
    ring_write(heap, s, s->drafted, &r);
    s->counter[FORAY_COUNTER_DRAFTED]++;
    HLS_TOKEN(s->seg, &r);
    res->drafted = ++s->drafted;
    if (full) s->unchecked = s->drafted;
    if (stop_id || fired || s->fired) {
      res->stop = stop_id ? FORAY_STOP_ID : FORAY_STOP_RULE;
      return 0;
    }
    if (s->drafted == run->max_drafts) return 0;
    if (s->c.state.len == s->c.state.max_pos) {
      res->stop = FORAY_STOP_CONTEXT;
      return 0;
    }
    s->tokens[0] = r.token;
    e = feed(heap, scratch, s, 1, &b);
    if (e) return e;
  }
}

/* ---- the run ---- */

/* Logits of a batch at full depth to the dump. With a step limit that ends inside the section nothing is
 * dumped. */
static uint32_t score(foray_word *heap, foray_word *scratch, struct hls_machine *s, struct batch b) {
  const struct hls_segment *g = &s->c.seg[s->c.prog.n_seg - 1];
  const uint32_t limit = s->c.run.step_limit, each = (s->c.final_rows + 15) / 16;
  if (limit && s->steps + (g->test_end - g->test) > limit) {
    uint32_t dry = limit - s->steps; /* the ops before the limit still count */
    uint32_t e = run_ops(heap, scratch, s, g->test, g->test + dry, s->c.prog.n_seg - 1, g->exit, b, 0);
    s->at = g->test + dry;
    return e ? e : FORAY_DEVERR_STEPS;
  }
  uint32_t e = run_ops(heap, scratch, s, g->test, g->test_end, s->c.prog.n_seg - 1, g->exit, b,
                       s->c.run.dump + each * s->res.dumped);
  if (!e) s->res.dumped += b.c1 - b.c0;
  return e;
}

static uint32_t execute(foray_word *heap, foray_word *scratch, struct hls_machine *s) {
  const struct foray_rec_run *run = &s->c.run;
  struct foray_rec_state *st = &s->c.state;
  const uint32_t scoring = run->flags & FORAY_RUN_SCORE;
  st->len = run->start;
  for (uint32_t i = 0; i < s->c.prog.n_seg; i++)
    if (st->done[i] > run->start) st->done[i] = run->start;
  uint32_t e = scoring ? flush(heap, scratch, s) : 0;
  struct batch b = batch_of(0, 0, 0);
  for (uint32_t i = 0; i < run->feed_n && !e;) {
    HLS_TRIP(1, 512)
    uint32_t n = run->feed_n - i < s->c.prog.cols ? run->feed_n - i : s->c.prog.cols;
    for (uint32_t c = 0; c < n; c++) s->tokens[c] = hls_word32(heap, (uint64_t)run->feed * HLS_BEAT, i + c);
    e = feed(heap, scratch, s, n, &b);
    if (!e && scoring) e = flush(heap, scratch, s);
    if (!e && scoring) e = score(heap, scratch, s, b);
    i += n;
  }
  if (!e && run->max_drafts) e = draft(heap, scratch, s, b);
  if (!e && (run->flags & FORAY_RUN_FLUSH)) e = flush(heap, scratch, s);
  return e;
}

static void write_back(foray_word *heap, uint32_t run, struct hls_machine *s) {
  uint32_t state[FORAY_ABI_STATE_WORDS], w[FORAY_ABI_RUN_WORDS];
  foray_rec_state_pack(&s->c.state, state);
  for (uint32_t k = 0; k < FORAY_ABI_STATE_WORDS / 2; k++)
    heap[(uint64_t)s->c.run.state * HLS_BEAT + k] =
        hls_pair((int32_t)state[2 * k], (int32_t)state[2 * k + 1]);
  s->c.run.error = s->res.error;
  s->c.run.error_desc = s->res.error_desc;
  s->c.run.drafted = s->res.drafted;
  s->c.run.len = s->res.len;
  s->c.run.stop = s->res.stop;
  s->c.run.dumped = s->res.dumped;
  foray_rec_run_pack(&s->c.run, w);
  for (uint32_t k = 0; k < FORAY_ABI_RUN_WORDS / 2; k++)
    heap[(uint64_t)run * HLS_BEAT + k] = hls_pair((int32_t)w[2 * k], (int32_t)w[2 * k + 1]);
}

void hls_run(foray_word *heap, foray_word *scratch, uint32_t heap_units, uint32_t run,
             struct hls_machine *s) {
  const struct hls_result none = {0};
  s->res = none;
  s->counter[FORAY_COUNTER_RUNS]++;
  s->res.error = hls_validate(heap, heap_units, run, s->desc, &s->c, &s->res.error_desc);
  if (s->res.error) {
    s->res.stop = FORAY_STOP_ERROR;
    return;
  }
  s->res.error_desc = 0;
  s->steps = 0;
  s->at = UINT32_MAX;
  s->res.error = execute(heap, scratch, s);
  if (s->res.error) {
    s->res.error_desc = s->at;
    s->res.stop = FORAY_STOP_ERROR;
  }
  s->res.len = s->c.state.len;
  write_back(heap, run, s);
}

HLS_MEMORY(heap, gmem)
void foray_top(foray_word *heap, uint32_t heap_units, uint32_t run, uint64_t *status) {
#ifdef FORAY_HLS_TOP_top
  HLS_PORT_HEAP
  HLS_VITIS(INTERFACE s_axilite port = heap bundle = control offset = 0x10)
  HLS_VITIS(INTERFACE s_axilite port = heap_units bundle = control offset = 0x1C)
  HLS_VITIS(INTERFACE s_axilite port = run bundle = control offset = 0x24)
  HLS_VITIS(INTERFACE s_axilite port = status bundle = control offset = 0x58)
  HLS_PORT_RETURN
#endif
  static foray_word scratch[FORAY_HLS_SCRATCH_UNITS * HLS_BEAT];
  static struct hls_machine machine;
  HLS_WIDE(scratch, 8)
  HLS_URAM(scratch)
  hls_run(heap, scratch, heap_units, run, &machine);
  *status = machine.res.error | (uint64_t)machine.res.error_desc << 32;
}
