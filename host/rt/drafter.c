/* See drafter.h. The host keeps a mirror of the ids that the device has been fed; every call compares it with
 * the tokens that are wanted, and the first difference is where the device's context is cut. Nothing else has
 * to be rolled back: the device's counters of deeper segments follow the cut (docs/abi.md, RUN.start). */
#include "rt/drafter.h"

#include "core/clock.h"
#include "core/err.h"
#include "core/imath.h"
#include "dev/device.h"
#include "rt/lower.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SCORE_ROWS = 16 };

struct foray_drafter {
  const struct foray_image *img;
  struct foray_dev *dev;
  struct foray_lowered *lw,
      *full;              /* full: no exits, all ids; NULL when the image lacks the head or nobody asked */
  uint64_t heap;          /* our block of the device's heap, bytes */
  uint32_t *want, n_want; /* tokens that the next call continues */
  uint32_t *fed, n_fed;   /* mirror of the device's context */
  uint64_t cost[FORAY_ABI_TESTS_MAX]; /* weight bytes of a token that leaves at test e and tried all before */
  struct foray_drafter_stats st;
};

struct foray_draft_params foray_drafter_defaults(const struct foray_drafter *d) {
  struct foray_draft_params p = foray_draft_defaults();
  if (d->img->config.exit_check) p.check = d->img->config.exit_check;
  for (uint32_t e = 0; e + 1 < d->lw->n_test && e < FORAY_DRAFT_EXITS_MAX; e++)
    p.exit_top[e] = d->img->config.exit_threshold[e];
  return p;
}

/* ---------------------------------------------------------------- opening */
static struct foray_lower_opts lower_opts(const struct foray_image *img, const struct foray_drafter_opts *o) {
  struct foray_lower_opts l = {.ctx = o->ctx,
                               .columns = o->columns,
                               .no_exits = o->no_exits,
                               .full_head = o->full_head,
                               .ring_slots = FORAY_DRAFT_MAX};
  if (o->logits && foray_image_find(img, FORAY_IMAGE_HEAD_FULL, 0)) l.score_rows = SCORE_ROWS;
  return l;
}

static const struct foray_drafter_opts no_opts;

enum foray_status foray_drafter_heap_bytes(const struct foray_image *image,
                                           const struct foray_drafter_opts *opts, uint64_t *bytes,
                                           struct foray_err *err) {
  struct foray_lower_opts l = lower_opts(image, opts ? opts : &no_opts);
  struct foray_lowered *lw = NULL;
  enum foray_status s = foray_lower(image, &l, &lw, err);
  if (s != FORAY_OK) return s;
  *bytes = ((uint64_t)lw->map.end + 1) * FORAY_ABI_UNIT;
  foray_lowered_free(lw);
  return FORAY_OK;
}

static enum foray_status put(struct foray_drafter *d, uint32_t unit, const void *p, uint64_t bytes,
                             struct foray_err *err) {
  return bytes ? foray_dev_upload(d->dev, (uint64_t)unit * FORAY_ABI_UNIT, p, bytes, err) : FORAY_OK;
}

static enum foray_status reset(struct foray_drafter *d, struct foray_err *err) {
  const struct foray_heap_map *m = &d->lw->map;
  uint64_t kv = (uint64_t)m->kv_layer_units * FORAY_ABI_UNIT * d->img->config.n_layer;
  d->n_fed = 0;
  struct foray_dev_context c = {.max_pos = d->lw->ctx,
                                .kv_addr = (uint64_t)m->kv * FORAY_ABI_UNIT,
                                .kv_bytes = kv,
                                .resid_addr = (uint64_t)m->resid * FORAY_ABI_UNIT,
                                .resid_slots = m->resid_slots,
                                .keep_addr = (uint64_t)m->keep * FORAY_ABI_UNIT,
                                .keep_slots = m->keep_slots};
  return foray_dev_state_reset(d->dev, (uint64_t)m->state * FORAY_ABI_UNIT, &c, err);
}

/* Weight bytes by descriptor, to share a doorbell's traffic among its drafts. */
static void costs(struct foray_drafter *d) {
  uint64_t sum = 0;
  uint32_t test = 0;
  for (uint32_t i = 0; i < d->lw->n_desc; i++) {
    const uint32_t *w = d->lw->desc[i];
    struct foray_dev_matrix m;
    uint32_t op = w[0] & 0xff;
    if (op == FORAY_OP_GEMV) {
      struct foray_desc_gemv g;
      foray_desc_gemv_unpack(w, &g);
      if (foray_dev_matrix_of(g.qtype, g.rows, g.cols, (g.flags & FORAY_DF_BIAS) != 0, &m)) sum += m.bytes;
    } else if (op == FORAY_OP_HEAD) {
      struct foray_desc_head h;
      foray_desc_head_unpack(w, &h);
      if (foray_dev_matrix_of(h.qtype, h.used, h.cols, false, &m)) sum += m.bytes;
    } else if (op == FORAY_OP_EXIT)
      d->cost[test++] = sum;
  }
}

static enum foray_status upload_all(struct foray_drafter *d, struct foray_err *err) {
  const struct foray_heap_map *m = &d->lw->map;
  const struct foray_image *img = d->img;
  uint32_t half = img->config.head_dim / 2;
  uint64_t freq[FORAY_ABI_HEAD_DIM_MAX / 2];
  for (uint32_t i = 0; i < half; i++)
    freq[i] = foray_rope_freq_q64(img->config.rope_base, img->config.head_dim, i);
  const uint8_t *data = foray_image_data(img);
  enum foray_status s = put(d, m->program, d->lw->desc, (uint64_t)d->lw->n_desc * FORAY_ABI_UNIT, err);
  if (s == FORAY_OK && d->full)
    s = put(d, m->program2, d->full->desc, (uint64_t)d->full->n_desc * FORAY_ABI_UNIT, err);
  if (s == FORAY_OK) s = put(d, m->freq, freq, (uint64_t)half * sizeof *freq, err);
  if (s == FORAY_OK) s = put(d, m->vocab, img->vocab, (uint64_t)img->config.n_trim * 4, err);
  if (s == FORAY_OK) s = put(d, m->stream, data + img->stream_off, img->stream_bytes, err);
  if (s == FORAY_OK) s = put(d, m->rest, data + img->rest_off, img->rest_bytes, err);
  return s == FORAY_OK ? reset(d, err) : s;
}

enum foray_status foray_drafter_open(const struct foray_image *image, struct foray_dev *dev,
                                     const struct foray_drafter_opts *opts, struct foray_drafter **out,
                                     struct foray_err *err) {
  struct foray_drafter_opts o = opts ? *opts : no_opts;
  const struct foray_dev_info *info = foray_dev_info(dev);
  if (!o.columns) o.columns = info->cols_max;
  if (o.columns > info->cols_max)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%u columns: device %s takes at most %u", o.columns,
                         info->name, info->cols_max);
  struct foray_drafter *d = calloc(1, sizeof *d);
  if (!d) return foray_err_set(err, FORAY_E_NOMEM, "drafter: out of memory");
  d->img = image;
  d->dev = dev;
  uint64_t bytes = 0;
  struct foray_lower_opts l = lower_opts(image, &o);
  enum foray_status s = foray_drafter_heap_bytes(image, &o, &bytes, err);
  if (s == FORAY_OK) s = foray_dev_alloc(dev, bytes - FORAY_ABI_UNIT, &d->heap, err);
  if (s == FORAY_OK) {
    l.base = FORAY_DEV_UNITS(d->heap);
    s = foray_lower(image, &l, &d->lw, err);
  }
  if (s == FORAY_OK && l.score_rows) {
    struct foray_lower_opts full = {.no_exits = true, .full_head = true};
    s = foray_lower_again(image, d->lw, &full, &d->full, err);
  }
  if (s == FORAY_OK && d->lw->scratch_units > info->scratch_units)
    s = foray_err_set(err, FORAY_E_UNSUPPORTED,
                      "%u columns need a scratchpad of %u units, device %s has %u: use fewer", o.columns,
                      d->lw->scratch_units, info->name, info->scratch_units);
  if (s == FORAY_OK) {
    d->want = malloc((size_t)d->lw->ctx * sizeof *d->want);
    d->fed = malloc((size_t)d->lw->ctx * sizeof *d->fed);
    if (!d->want || !d->fed) s = foray_err_set(err, FORAY_E_NOMEM, "drafter: out of memory");
  }
  if (s == FORAY_OK) s = upload_all(d, err);
  if (s != FORAY_OK) {
    foray_drafter_close(d);
    return s;
  }
  costs(d);
  *out = d;
  return FORAY_OK;
}

void foray_drafter_close(struct foray_drafter *d) {
  if (!d) return;
  foray_dev_free(d->dev, d->heap);
  foray_lowered_free(d->lw);
  foray_lowered_free(d->full);
  free(d->want);
  free(d->fed);
  free(d);
}

const uint32_t (*foray_drafter_program(const struct foray_drafter *d, uint32_t *n))[16] {
  *n = d->lw->n_desc;
  return (const uint32_t(*)[16])d->lw->desc;
}
uint32_t foray_drafter_ctx(const struct foray_drafter *d) { return d->lw->ctx; }
uint32_t foray_drafter_vocab(const struct foray_drafter *d) { return d->img->config.n_vocab; }
uint32_t foray_drafter_layers(const struct foray_drafter *d) { return d->img->config.n_layer; }
uint32_t foray_drafter_exits(const struct foray_drafter *d) { return d->lw->n_test - 1; }
uint32_t foray_drafter_exit_layer(const struct foray_drafter *d, uint32_t e) {
  return e < d->lw->n_test ? d->lw->test_layer[e] : d->img->config.n_layer;
}
void foray_drafter_stats(const struct foray_drafter *d, struct foray_drafter_stats *out) { *out = d->st; }
void foray_drafter_stats_reset(struct foray_drafter *d) { d->st = (struct foray_drafter_stats){0}; }

/* ---------------------------------------------------------------- one doorbell */
static uint32_t common(const struct foray_drafter *d) {
  uint32_t k = 0;
  while (k < d->n_fed && k < d->n_want && d->fed[k] == d->want[k]) k++;
  return k;
}

static struct foray_rec_run run_base(const struct foray_drafter *d, const struct foray_lowered *lw) {
  const struct foray_heap_map *m = &d->lw->map;
  return (struct foray_rec_run){.magic = FORAY_MAGIC_RUN,
                                .program = lw == d->lw ? m->program : m->program2,
                                .state = m->state,
                                .feed = m->feed,
                                .ring = m->ring,
                                .ring_slots = m->ring_slots,
                                .dump = m->dump,
                                .dump_units = m->dump_units};
}

/* Feeds want[start .. start + n) and does what r says. Takes the device's word for how far the context goes.
 */
static enum foray_status doorbell(struct foray_drafter *d, struct foray_rec_run *r, uint32_t start,
                                  uint32_t n, struct foray_dev_result *res, uint64_t *bytes,
                                  struct foray_err *err) {
  uint64_t before[FORAY_COUNTER_COUNT], after[FORAY_COUNTER_COUNT];
  uint32_t words[FORAY_ABI_RUN_WORDS];
  const struct foray_heap_map *m = &d->lw->map;
#ifdef FORAY_MUTANT_KV_ROLLBACK /* one stale position survives a rollback */
  if (start < d->n_fed && n > 1) start++, n--;
#endif
  r->start = start;
  r->feed_n = n;
  foray_rec_run_pack(r, words);
  enum foray_status s = put(d, m->feed, d->want + start, (uint64_t)n * 4, err);
  if (s == FORAY_OK) s = put(d, m->run, words, sizeof words, err);
  if (s != FORAY_OK) return s;
  foray_dev_counters(d->dev, before);
  double t0 = foray_clock_s();
  s = foray_dev_run(d->dev, (uint64_t)m->run * FORAY_ABI_UNIT, 0, res, err);
  d->st.seconds += foray_clock_s() - t0;
  foray_dev_counters(d->dev, after);
#define DELTA(c) (after[FORAY_COUNTER_##c] - before[FORAY_COUNTER_##c])
  uint64_t weights = DELTA(WEIGHT_BYTES) + DELTA(EMBED_BYTES) + DELTA(VECTOR_BYTES);
  uint64_t kv = DELTA(KV_READ_BYTES) + DELTA(KV_WRITE_BYTES) + DELTA(RESID_BYTES);
#undef DELTA
  d->st.checked += after[FORAY_COUNTER_CHECKED] - before[FORAY_COUNTER_CHECKED];
  d->st.corrected += after[FORAY_COUNTER_CORRECTED] - before[FORAY_COUNTER_CORRECTED];
  d->st.bytes_weights += weights;
  d->st.bytes_kv += kv;
  d->st.doorbells++;
  d->st.fed += n;
  *bytes = weights + kv;
  if (s != FORAY_OK) { /* what the context holds is unknown: start afresh next time */
    enum foray_status again = reset(d, NULL);
    (void)again;
    return s;
  }
  memcpy(d->fed + start, d->want + start, (size_t)n * 4);
  d->n_fed = start + n;
  return FORAY_OK;
}

enum foray_status foray_drafter_sync(struct foray_drafter *d, const uint32_t *tokens, uint32_t n,
                                     struct foray_err *err) {
  if (n > d->lw->ctx)
    return foray_err_set(err, FORAY_E_LIMIT, "%u tokens: the drafter's context holds %u", n, d->lw->ctx);
  for (uint32_t i = 0; i < n; i++)
    if (tokens[i] >= d->img->config.n_vocab)
      return foray_err_set(err, FORAY_E_ARG, "token %u at position %u: the vocabulary has %u", tokens[i], i,
                           d->img->config.n_vocab);
  if (n) memcpy(d->want, tokens, (size_t)n * 4);
  d->n_want = n;
  return FORAY_OK;
}

/* ---------------------------------------------------------------- drafting */
static int32_t q16(float v) {
  double x = floor((double)v * 65536 + .5);
  return x > INT32_MAX ? INT32_MAX : x < -INT32_MAX ? -INT32_MAX : (int32_t)x;
}
static float from_q16(int32_t v) { return (float)v * (1.f / 65536); }

/* Rules are bias + sum(c * feature); features 1.. are top probability, margin, entropy, ... */
static enum foray_status rules(const struct foray_drafter *d, const struct foray_draft_params *p,
                               struct foray_rec_run *r, struct foray_err *err) {
  for (uint32_t e = 0; e + 1 < d->lw->n_test; e++) {
    float t = e < FORAY_DRAFT_EXITS_MAX ? p->exit_top[e] : 2;
    if (!(t <= 1)) continue;
    r->tests |= (uint32_t)1 << e;
    r->exit_rule[FORAY_ABI_FEATURES * e] = -q16(t);
    r->exit_rule[FORAY_ABI_FEATURES * e + 1] = 65536;
  }
  if (p->check > FORAY_DRAFT_CHECK_MAX)
    return foray_err_set(err, FORAY_E_ARG, "%u tokens waiting for a check: at most %d", p->check,
                         FORAY_DRAFT_CHECK_MAX);
  r->check = r->tests ? p->check : 0;
  int used = (p->stop_top > 0) + (p->stop_margin > 0) + (p->stop_entropy > 0);
  if (used > 1) return foray_err_set(err, FORAY_E_ARG, "one stop rule at a time: top, margin or entropy");
  if (p->stop_top > 0) r->stop_rule[0] = -q16(p->stop_top), r->stop_rule[1] = 65536;
  if (p->stop_margin > 0) r->stop_rule[0] = -q16(p->stop_margin), r->stop_rule[2] = 65536;
  if (p->stop_entropy > 0) r->stop_rule[0] = q16(p->stop_entropy), r->stop_rule[3] = -65536;
  if (p->n_stop > FORAY_ABI_STOP_IDS)
    return foray_err_set(err, FORAY_E_ARG, "%u stop ids: at most %d", p->n_stop, FORAY_ABI_STOP_IDS);
  r->stop_n = p->n_stop;
  memcpy(r->stop_ids, p->stop_ids, p->n_stop * sizeof *p->stop_ids);
  if (p->temperature > 0) {
    double inv = floor(65536.0 / (double)p->temperature + .5);
    r->flags |= FORAY_RUN_SAMPLE;
    r->inv_temp = inv < 1 ? 1 : inv > INT32_MAX ? INT32_MAX : (uint32_t)inv;
    r->seed = p->seed;
  } else if (!(p->temperature == 0)) /* NaN or negative */
    return foray_err_set(err, FORAY_E_ARG, "temperature %g: 0 or more", (double)p->temperature);
  return FORAY_OK;
}

static void fill(const struct foray_drafter *d, const struct foray_rec_ring *e, struct foray_draft *o) {
  uint32_t seen =
      e->flags & FORAY_RING_CONFIRMED ? d->lw->n_test - 1 : e->exit; /* whose features these are */
  *o = (struct foray_draft){.id = e->token, .exit = e->exit};
  o->conf =
      (struct foray_conf){.top = from_q16(e->top_prob),
                          .margin = from_q16(e->margin),
                          .entropy = from_q16(e->entropy),
                          .aleatoric = from_q16(e->aleatoric),
                          .epistemic = from_q16(e->epistemic),
                          .depth = (float)foray_drafter_exit_layer(d, seen) / (float)d->img->config.n_layer};
  for (uint32_t i = 0; i < FORAY_ABI_TOPK && i < FORAY_DRAFT_CANDS; i++) {
    if (e->top_logit[i] <= -INT32_MAX) break; /* fewer rows than candidates */
    int64_t lp = (int64_t)e->top_logit[i] - e->log_z;
    o->cand[i].id = e->top_id[i];
    o->cand[i].logprob = lp < -INT32_MAX ? -INT32_MAX : lp > 0 ? 0 : (int32_t)lp;
    o->n_cand = i + 1;
  }
}

enum foray_status foray_drafter_draft(struct foray_drafter *d, const struct foray_draft_params *p,
                                      struct foray_draft *out, uint32_t *n_out, struct foray_err *err) {
  struct foray_rec_run r = run_base(d, d->lw);
  struct foray_rec_ring ring[FORAY_DRAFT_MAX];
  struct foray_dev_result res = {0};
  uint64_t bytes = 0;
  *n_out = 0;
  if (!d->n_want) return foray_err_set(err, FORAY_E_STATE, "nothing to continue: sync at least one token");
  if (!p->max || p->max > FORAY_DRAFT_MAX)
    return foray_err_set(err, FORAY_E_ARG, "%u drafts: 1 to %d", p->max, FORAY_DRAFT_MAX);
  uint32_t room = d->lw->ctx - d->n_want, start = common(d);
  if (!room) return FORAY_OK;
  r.max_drafts = p->max < room ? p->max : room;
#ifndef FORAY_MUTANT_PREV_STALE                                  /* exits read what an earlier draft kept */
  if (d->img->config.exit_prev) r.flags |= FORAY_RUN_FULL_FIRST; /* a draft depends on its prefix alone */
#endif
  enum foray_status s = rules(d, p, &r, err);
  if (s != FORAY_OK) return s;
  if (start == d->n_want) start--; /* the newest token makes the logits */
  s = doorbell(d, &r, start, d->n_want - start, &res, &bytes, err);
  if (s == FORAY_OK) s = foray_dev_ring(d->dev, &r, res.drafted, ring, err);
  if (s != FORAY_OK) return s;
  for (uint32_t i = 0; i < res.drafted; i++) {
    uint32_t at = d->n_want;
    fill(d, &ring[i], &out[i]);
    if (at < res.len) d->fed[at] = out[i].id, d->n_fed = at + 1;
    d->want[d->n_want++] = out[i].id;
    if (out[i].exit <= FORAY_DRAFT_EXITS_MAX) d->st.drafted[out[i].exit]++;
  }
  uint64_t given = 0;
  for (uint32_t i = res.drafted;
       i-- > 1;) { /* in proportion to depth; the first one also pays for the prefix */
    out[i].bytes = d->cost[out[i].exit < FORAY_ABI_TESTS_MAX ? out[i].exit : 0];
    if (given + out[i].bytes > bytes) out[i].bytes = bytes - given;
    given += out[i].bytes;
  }
  if (res.drafted) out[0].bytes = bytes - given;
  *n_out = res.drafted;
  return FORAY_OK;
}

enum foray_status foray_drafter_prefill(struct foray_drafter *d, struct foray_err *err) {
  struct foray_rec_run r = run_base(d, d->lw);
  struct foray_dev_result res = {0};
  uint64_t bytes = 0;
  uint32_t start = common(d);
  if (start + 1 >= d->n_want)
    return FORAY_OK; /* the newest token is the first draft's: it makes the logits */
  r.flags = FORAY_RUN_FLUSH;
  return doorbell(d, &r, start, d->n_want - 1 - start, &res, &bytes, err);
}

/* ---------------------------------------------------------------- logits */
enum foray_status foray_drafter_logits(struct foray_drafter *d, const uint32_t *tokens, uint32_t n,
                                       uint32_t m, float *out, struct foray_err *err) {
  if (!d->full)
    return foray_err_set(err, FORAY_E_UNSUPPORTED,
                         "no logits: opened without room for them, or no full head in %s",
                         foray_image_path(d->img));
  if (m > n || !n) return foray_err_set(err, FORAY_E_ARG, "logits of %u positions of %u", m, n);
  enum foray_status s = foray_drafter_sync(d, tokens, n, err);
  if (s != FORAY_OK) return s;
  uint32_t rows = d->full->head_rows, start = common(d), from = n - m;
  uint64_t row_bytes = foray_dev_up((uint64_t)rows * 4, FORAY_ABI_UNIT), bytes = 0;
  struct foray_dev_result res = {0};
  if (start < from) {
    struct foray_rec_run r = run_base(d, d->full);
    s = doorbell(d, &r, start, from - start, &res, &bytes, err);
    if (s != FORAY_OK) return s;
  }
  int32_t *row = malloc((size_t)row_bytes);
  if (!row) return foray_err_set(err, FORAY_E_NOMEM, "logits: out of memory");
  for (uint32_t at = from; s == FORAY_OK && at < n;) {
    uint32_t k = n - at < SCORE_ROWS ? n - at : SCORE_ROWS;
    struct foray_rec_run r = run_base(d, d->full);
    r.flags = FORAY_RUN_SCORE;
    s = doorbell(d, &r, at, k, &res, &bytes, err);
    for (uint32_t i = 0; s == FORAY_OK && i < k; i++) {
      s = foray_dev_download(d->dev, (uint64_t)d->lw->map.dump * FORAY_ABI_UNIT + i * row_bytes, row,
                             row_bytes, err);
      float *o = out + (size_t)(at - from + i) * rows;
      for (uint32_t v = 0; s == FORAY_OK && v < rows; v++) o[v] = (float)row[v] * (1.f / 65536);
    }
    at += k;
  }
  free(row);
  return s;
}
