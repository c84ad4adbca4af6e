/* See lower.h. One function builds the descriptors of one model part; the order is the order of the weight
 * stream, so that a device reads the image from front to back. */
#include "rt/lower.h"

#include "core/err.h"
#include "dev/device.h"

#include <stdlib.h>
#include <string.h>

struct build {
  const struct foray_image *img;
  const struct foray_image_config *c;
  const struct foray_heap_map *map;
  struct foray_lowered *lw;
  uint32_t cap;
  /* scratch addresses */
  uint32_t r, n, y, q, k, v, a, gate, up, h;
};

/* ---------------------------------------------------------------- heap */
struct plan {
  uint64_t at; /* units */
  bool bad;
};

static uint32_t take(struct plan *p, uint64_t bytes) {
  uint64_t units = bytes / FORAY_ABI_UNIT + (bytes % FORAY_ABI_UNIT != 0), at = p->at;
  if (!bytes) return 0;
  p->at += units;
  if (p->at > UINT32_MAX) p->bad = true;
  return (uint32_t)at;
}

static uint32_t vec32(uint32_t n) { return (uint32_t)(foray_dev_y32_bytes(n) / FORAY_ABI_UNIT); }
static uint32_t vec16(uint32_t n) { return (uint32_t)(foray_dev_a16_bytes(n) / FORAY_ABI_UNIT); }

static enum foray_status plan(const struct foray_image *img, const struct foray_lower_opts *o,
                              struct foray_lowered *lw, uint32_t n_desc, struct foray_err *err) {
  const struct foray_image_config *c = &img->config;
  struct foray_heap_map *m = &lw->map;
  struct plan p = {.at = o->base ? o->base : 1};
  lw->columns = o->columns ? o->columns : FORAY_ABI_COLS_MAX;
  lw->ctx = o->ctx ? o->ctx : c->n_ctx_train < 4096 ? c->n_ctx_train : 4096;
  m->ring_slots = o->ring_slots ? o->ring_slots : 64;
  m->feed_ids = lw->ctx;
  m->resid_slots = lw->ctx; /* any number of positions may have left early */
  m->run = take(&p, 4 * FORAY_ABI_RUN_WORDS);
  m->state = take(&p, 4 * FORAY_ABI_STATE_WORDS);
  m->program = take(&p, (uint64_t)n_desc * FORAY_ABI_UNIT);
  m->program2 = take(&p, (uint64_t)n_desc * FORAY_ABI_UNIT);
  m->ring = take(&p, (uint64_t)m->ring_slots * 4 * FORAY_ABI_RING_WORDS);
  m->feed = take(&p, (uint64_t)m->feed_ids * 4);
  m->freq = take(&p, (uint64_t)c->head_dim / 2 * 8);
  m->vocab = take(&p, (uint64_t)c->n_trim * 4);
  m->resid = take(&p, m->resid_slots * foray_dev_y32_bytes(c->n_embd));
  m->keep_slots = c->exit_prev ? 2 * FORAY_ABI_COLS_MAX : 0;
  m->keep = take(&p, m->keep_slots * foray_dev_a16_bytes(c->n_embd));
  uint64_t row = foray_dev_up((uint64_t)c->n_vocab * 4, FORAY_ABI_UNIT);
  m->dump_units = (uint32_t)(o->score_rows * row / FORAY_ABI_UNIT);
  m->dump = take(&p, o->score_rows * row);
  uint64_t kv = foray_dev_kv_bytes(c->head_dim, c->n_head_kv, lw->ctx);
  m->kv_layer_units = (uint32_t)(kv / FORAY_ABI_UNIT);
  m->kv = take(&p, kv * c->n_layer);
  m->stream = take(&p, img->stream_bytes);
  m->rest = take(&p, img->rest_bytes);
  m->end = (uint32_t)p.at;
  if (p.bad)
    return foray_err_set(err, FORAY_E_LIMIT, "the image and %u positions need more heap than addresses reach",
                         lw->ctx);
  return FORAY_OK;
}

/* ---------------------------------------------------------------- descriptors */
static uint32_t *next(struct build *b) { return b->lw->desc[b->lw->n_desc++]; }

#define EMIT(kind, ...) foray_desc_##kind##_pack(&(struct foray_desc_##kind){__VA_ARGS__}, next(b))

/* Heap address of something at a file offset of the image. */
static uint32_t where(const struct build *b, uint64_t off) {
  const struct foray_image *i = b->img;
  if (off >= i->rest_off && off - i->rest_off < i->rest_bytes)
    return b->map->rest + (uint32_t)((off - i->rest_off) / FORAY_ABI_UNIT);
  return b->map->stream + (uint32_t)((off - i->stream_off) / FORAY_ABI_UNIT);
}

static void norm(struct build *b, enum foray_image_role role, uint32_t index, uint32_t src, uint32_t dst) {
  const struct foray_image_tensor *t = foray_image_find(b->img, role, index);
  EMIT(rmsnorm, .src = src, .dst = dst, .n = t->cols, .gamma = where(b, t->data_off), .gamma_exp = t->exp,
       .eps_exp = b->c->eps_exp, .eps_mant = (uint32_t)b->c->eps_mant, .root_n = foray_dev_root_n(t->cols));
}

static void gemv(struct build *b, enum foray_image_role role, uint32_t index, uint32_t src, uint32_t dst) {
  const struct foray_image_tensor *t = foray_image_find(b->img, role, index);
  EMIT(gemv, .flags = t->has_bias ? FORAY_DF_BIAS : 0, .qtype = (uint32_t)t->type, .src = src, .dst = dst,
       .cols = t->cols, .rows = t->rows, .addr = where(b, t->off), .exp = t->exp,
       .bias_exp = t->has_bias ? t->bias_exp : 0);
}

static void layer(struct build *b, uint32_t il) {
  const struct foray_image_config *c = b->c;
  uint32_t kv_layer = b->map->kv_layer_units;
  uint32_t scale;
  int32_t e;
  foray_dev_attn_scale(c->head_dim, &scale, &e);
  norm(b, FORAY_IMAGE_ATTN_NORM, il, b->r, b->n);
  gemv(b, FORAY_IMAGE_ATTN_Q, il, b->n, b->q);
  gemv(b, FORAY_IMAGE_ATTN_K, il, b->n, b->k);
  gemv(b, FORAY_IMAGE_ATTN_V, il, b->n, b->v);
  EMIT(rope, .flags = FORAY_DF_NEOX, .vec = b->q, .head_dim = c->head_dim, .heads = c->n_head,
       .freq = b->map->freq);
  EMIT(rope, .flags = FORAY_DF_NEOX, .vec = b->k, .head_dim = c->head_dim, .heads = c->n_head_kv,
       .freq = b->map->freq);
  EMIT(kv_put, .k = b->k, .v = b->v, .head_dim = c->head_dim, .heads = c->n_head_kv, .offset = il * kv_layer);
  EMIT(attn, .q = b->q, .dst = b->a, .head_dim = c->head_dim, .heads = c->n_head, .offset = il * kv_layer,
       .kv_heads = c->n_head_kv, .scale_exp = e, .scale = scale);
  gemv(b, FORAY_IMAGE_ATTN_OUTPUT, il, b->a, b->y);
  EMIT(add, .acc = b->r, .src = b->y, .n = c->n_embd);
  norm(b, FORAY_IMAGE_FFN_NORM, il, b->r, b->n);
  gemv(b, FORAY_IMAGE_FFN_GATE, il, b->n, b->gate);
  gemv(b, FORAY_IMAGE_FFN_UP, il, b->n, b->up);
  EMIT(silu_mul, .gate = b->gate, .up = b->up, .dst = b->h, .n = c->n_ff);
  gemv(b, FORAY_IMAGE_FFN_DOWN, il, b->h, b->y);
  EMIT(add, .acc = b->r, .src = b->y, .n = c->n_embd);
}

/* rmsnorm, map, trimmed head: model/exits.h says what an exit is. */
static void early_exit(struct build *b, uint32_t e, uint32_t index) {
  const struct foray_image_tensor *head = foray_image_find(b->img, FORAY_IMAGE_HEAD, 0);
  EMIT(test, .index = index);
  norm(b, FORAY_IMAGE_EXIT_NORM, e, b->r, b->n);
  gemv(b, FORAY_IMAGE_EXIT_MAP, e, b->n, b->y);
  if (b->c->exit_prev) { /* + map of what the position before kept: its final state, or an exit's guess of it
                          */
    EMIT(prev, .dst = b->n);
    gemv(b, FORAY_IMAGE_EXIT_PREV, e, b->n, b->q);
    EMIT(add, .acc = b->y, .src = b->q, .n = b->c->n_embd);
  }
  EMIT(quant, .src = b->y, .dst = b->n, .n = b->c->n_embd);
  if (b->c->exit_prev) EMIT(keep, .src = b->n);
  EMIT(head, .qtype = (uint32_t)head->type, .src = b->n, .ids = b->map->vocab, .cols = head->cols,
       .rows = head->rows, .addr = where(b, head->off), .exp = head->exp, .used = b->c->exit_rows[e]);
  EMIT(exit, .flags = 0);
}

static void final_test(struct build *b, uint32_t index, bool full_head, bool keep) {
  bool trim = b->c->n_trim && !full_head;
  const struct foray_image_tensor *head =
      foray_image_find(b->img, trim ? FORAY_IMAGE_HEAD : FORAY_IMAGE_HEAD_FULL, 0);
  EMIT(test, .flags = FORAY_DF_FINAL, .index = index);
  norm(b, FORAY_IMAGE_OUTPUT_NORM, 0, b->r, b->n);
  if (keep) EMIT(keep, .src = b->n);
  EMIT(head, .qtype = (uint32_t)head->type, .src = b->n, .ids = trim ? b->map->vocab : 0, .cols = head->cols,
       .rows = head->rows, .addr = where(b, head->off), .exp = head->exp, .used = head->rows);
  EMIT(exit, .flags = 0);
  b->lw->head_rows = head->rows;
}

/* ---------------------------------------------------------------- the whole */
static enum foray_status check(const struct foray_image *img, const struct foray_lower_opts *o,
                               struct foray_err *err) {
  const struct foray_image_config *c = &img->config;
  if (o->ctx > FORAY_ABI_POSITIONS_MAX || o->columns > FORAY_ABI_COLS_MAX)
    return foray_err_set(err, FORAY_E_ARG, "context of %u positions, %u columns: at most %d and %d", o->ctx,
                         o->columns, FORAY_ABI_POSITIONS_MAX, FORAY_ABI_COLS_MAX);
  if (c->n_exits + 1 > FORAY_ABI_TESTS_MAX || c->n_exits + 1 > FORAY_ABI_SEGMENTS_MAX)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%u exits: a program has at most %d", c->n_exits,
                         FORAY_ABI_TESTS_MAX - 1);
  if (c->head_dim % 32 || c->head_dim > FORAY_ABI_HEAD_DIM_MAX || c->n_embd % 32 || c->n_ff % 32 ||
      c->n_embd > FORAY_ABI_NORM_LIMIT)
    return foray_err_set(err, FORAY_E_UNSUPPORTED,
                         "width %u, feed-forward %u, head %u: devices take multiples of 32, heads up to %d",
                         c->n_embd, c->n_ff, c->head_dim, FORAY_ABI_HEAD_DIM_MAX);
  if (c->n_exits && !c->n_trim)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "exits without a vocabulary list");
  if ((o->full_head || !c->n_trim) && !foray_image_find(img, FORAY_IMAGE_HEAD_FULL, 0))
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: the image was packed without the full head",
                         foray_image_path(img));
  return FORAY_OK;
}

static uint32_t count_desc(const struct foray_image_config *c) {
  return 8 + 17 * c->n_layer + 12 * (c->n_exits + 1);
}

static enum foray_status build(const struct foray_image *img, const struct foray_lower_opts *o,
                               struct foray_lowered *lw, struct foray_err *err) {
  const struct foray_image_config *c = &img->config;
  struct build bb = {.img = img, .c = c, .map = &lw->map, .lw = lw, .cap = count_desc(c)}, *b = &bb;
  if (b->cap > FORAY_ABI_PROGRAM_MAX)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%u layers: a program has at most %d descriptors",
                         c->n_layer, FORAY_ABI_PROGRAM_MAX);
  lw->desc = calloc(b->cap, sizeof *lw->desc);
  if (!lw->desc) return foray_err_set(err, FORAY_E_NOMEM, "program of %u descriptors: out of memory", b->cap);
  /* Scratch: the attention part and the feed-forward part of a layer share a place. */
  uint32_t cols = lw->columns, at = 0;
  uint32_t r = vec32(c->n_embd) * cols, n = vec16(c->n_embd) * cols,
           q = vec32(c->n_head * c->head_dim) * cols;
  uint32_t kv = vec32(c->n_head_kv * c->head_dim) * cols, a = vec16(c->n_head * c->head_dim) * cols;
  uint32_t f = vec32(c->n_ff) * cols, h = vec16(c->n_ff) * cols;
  b->r = at, at += r;
  b->n = at, at += n;
  b->y = at, at += r;
  b->q = at, b->k = b->q + q, b->v = b->k + kv, b->a = b->v + kv;
  b->gate = at, b->up = b->gate + f, b->h = b->up + f;
  uint32_t end1 = b->a + a, end2 = b->h + h;
  if (end1 < b->q + r) end1 = b->q + r; /* exits use the place of q for a vector of the residual's width */
  lw->scratch_units = end1 > end2 ? end1 : end2;

  const struct foray_image_tensor *embd = foray_image_find(img, FORAY_IMAGE_TOKEN_EMBD, 0);
  uint32_t *prog = next(b), seg = 0, test = 0, exit = 0;
  for (uint32_t il = 0; il <= c->n_layer; il++) {
    bool cut = exit < c->n_exits && c->exit_layer[exit] == il;
    if (cut) {
      if (!o->no_exits) {
        lw->test_layer[test] = il;
        early_exit(b, exit, test++);
      }
      exit++;
    }
    if (il == c->n_layer) break;
    if (il == 0 || cut) EMIT(seg, .index = seg++);
    if (il == 0)
      EMIT(embed, .qtype = (uint32_t)embd->type, .dst = b->r, .cols = embd->cols, .rows = embd->rows,
           .addr = where(b, embd->off), .exp = embd->exp);
    layer(b, il);
  }
  lw->test_layer[test] = c->n_layer;
  final_test(b, test++, o->full_head, c->exit_prev && !o->no_exits);
  EMIT(end, .flags = 0);
  lw->n_seg = seg;
  lw->n_test = test;
  foray_desc_prog_pack(&(struct foray_desc_prog){.version = FORAY_ABI_VERSION,
                                                 .n_desc = lw->n_desc,
                                                 .n_seg = seg,
                                                 .n_test = test,
                                                 .cols = cols,
                                                 .width = c->n_embd,
                                                 .resid = b->r,
                                                 .vocab = c->n_vocab,
                                                 .abi_hash = FORAY_ABI_HASH},
                       prog);
  return FORAY_OK;
}

static enum foray_status lower(const struct foray_image *img, const struct foray_lower_opts *o,
                               const struct foray_lowered *base, struct foray_lowered **out,
                               struct foray_err *err) {
  enum foray_status s = check(img, o, err);
  if (s != FORAY_OK) return s;
  struct foray_lowered *lw = calloc(1, sizeof *lw);
  if (!lw) return foray_err_set(err, FORAY_E_NOMEM, "lowering: out of memory");
  if (base) {
    lw->map = base->map;
    lw->columns = base->columns;
    lw->ctx = base->ctx;
  } else
    s = plan(img, o, lw, count_desc(&img->config), err);
  if (s == FORAY_OK) s = build(img, o, lw, err);
  if (s != FORAY_OK) {
    foray_lowered_free(lw);
    return s;
  }
  *out = lw;
  return FORAY_OK;
}

enum foray_status foray_lower(const struct foray_image *img, const struct foray_lower_opts *o,
                              struct foray_lowered **out, struct foray_err *err) {
  return lower(img, o, NULL, out, err);
}

enum foray_status foray_lower_again(const struct foray_image *img, const struct foray_lowered *base,
                                    const struct foray_lower_opts *o, struct foray_lowered **out,
                                    struct foray_err *err) {
  return lower(img, o, base, out, err);
}

void foray_lowered_free(struct foray_lowered *lw) {
  if (!lw) return;
  free(lw->desc);
  free(lw);
}
