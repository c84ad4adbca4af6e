/* Calibration: one sweep over the layers rounds every matrix against the inputs that it really gets (those of
 * the layers already rounded), and measures on the way what each layer's rounding does to the model's output
 * distribution. Then the matrices that cost most per bit become 8-bit ones, as far as the budget goes. */
#include "model/pack_job.h"

#include "core/err.h"
#include "model/pack_block.h"
#include "model/pack_gptq.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  SEQ = 256, /* tokens of a calibration sequence */
  TOKENS_DEFAULT = 2048,
  TEXT_MAX = 1 << 26, /* bytes of a calibration text */
  PROBE_SEQ = 128,    /* the measurement's own sequences */
  PROBE_SEQS = 2,
  PROBE_STEP = 4, /* every 4th position is scored */
  PROBE = PROBE_SEQ * PROBE_SEQS,
  SCORED = PROBE / PROBE_STEP,
  VOCAB_CHUNK = 2048,
};

struct calib {
  struct foray_pack_job *j;
  struct foray_pool *pool;
  struct foray_pack_gemm *g;
  struct foray_pack_block block;
  struct foray_pack_weights plain, coded; /* coded shares norms and biases */
  float *h, *u;                           /* widest input squared, each */
  float *work;                            /* largest matrix */
  float *x;                               /* calibration tokens x n_embd */
  float *probe;  /* (n_layer + 1) x PROBE x n_embd: variant l has layer l rounded; the last one is the plain
                    model */
  float *trial;  /* PROBE x n_embd */
  double *share; /* n_layer x PB_MATRICES */
  size_t n_seq;
  uint32_t layer;
  uint32_t at[PB_MATRICES]; /* index in img.tensors of this layer's matrices */
  struct foray_err *err;
  enum foray_status st;
};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "out of memory for calibration");
}

/* ---- text ---- */

static enum foray_status read_text(const char *path, char **text, size_t *len, struct foray_err *err) {
  FILE *f = fopen(path, "re");
  if (!f) return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  size_t n = 0, cap = 1 << 16, got = 1;
  char *s = malloc(cap);
  if (!s) {
    fclose(f);
    return nomem(err);
  }
  while (got) {
    if (n == cap) {
      char *t = cap < TEXT_MAX ? realloc(s, cap * 2) : NULL;
      if (!t) break;
      s = t;
      cap *= 2;
    }
    got = fread(s + n, 1, cap - n, f);
    n += got;
  }
  bool bad = ferror(f), more = got > 0;
  fclose(f);
  if (bad || more) {
    free(s);
    return bad ? foray_err_set(err, FORAY_E_IO, "%s: cannot be read", path)
               : foray_err_set(err, FORAY_E_LIMIT, "%s: longer than %d bytes", path, TEXT_MAX);
  }
  *text = s;
  *len = n;
  return FORAY_OK;
}

static enum foray_status tokens(struct foray_pack_job *j, struct foray_ids *ids, struct foray_err *err) {
  char *owned = NULL;
  const char *text = foray_pack_sample;
  size_t len = strlen(text);
  enum foray_status st = FORAY_OK;
  if (j->opts->calib_path) {
    st = read_text(j->opts->calib_path, &owned, &len, err);
    text = owned;
  }
  if (st == FORAY_OK) {
    st = foray_tokenizer_encode(j->m->tokenizer, text, len, FORAY_ENCODE_SPECIAL, ids, err);
  }
  free(owned);
  if (st == FORAY_OK && ids->n < SEQ) {
    st = foray_err_set(err, FORAY_E_ARG, "the calibration text has %zu tokens, %d are needed", ids->n, SEQ);
  }
  return st;
}

static enum foray_status embed(struct foray_pack_job *j, const int32_t *ids, size_t n, float *x,
                               struct foray_err *err) {
  struct foray_image_tensor t = {.role = FORAY_IMAGE_TOKEN_EMBD,
                                 .rows = j->img.config.n_vocab,
                                 .cols = j->img.config.n_embd,
                                 .name = "token_embd.weight"};
  enum foray_status st = FORAY_OK;
  for (size_t i = 0; i < n && st == FORAY_OK; i++)
    st = foray_pack_row(j, &t, (uint32_t)ids[i], x + i * t.cols, err);
  return st;
}

/* ---- rounding of a layer, from inside its forward ---- */

static enum foray_status round_matrix(struct calib *c, int which) {
  struct foray_pack_job *j = c->j;
  struct foray_image_tensor *t = &j->img.tensors[c->at[which]];
  struct foray_codes *codes;
  size_t n = (size_t)t->rows * t->cols;
  enum foray_status st = foray_codes_open(FORAY_IMAGE_Q4A, t->rows, t->cols, &codes, c->err);
  if (st != FORAY_OK) return st;
  memcpy(c->work, c->plain.w[which], n * sizeof *c->work);
  st = foray_gptq_round(c->g, c->pool, c->work, c->u, codes, c->err);
  if (st != FORAY_OK) {
    foray_codes_close(codes);
    return st;
  }
  double e = 0, ref = 0;
  for (uint32_t r = 0; r < t->rows; r++) {
    float *q = c->coded.w[which] + (size_t)r * t->cols;
    const float *w = c->plain.w[which] + (size_t)r * t->cols;
    foray_codes_row(codes, r, q);
    for (uint32_t i = 0; i < t->cols; i++) {
      e += (double)((q[i] - w[i]) * (q[i] - w[i]));
      ref += (double)(w[i] * w[i]);
    }
  }
  t->exp = codes->exp;
  t->rms_error = ref > 0 ? (float)sqrt(e / ref) : 0;
  foray_codes_close(j->codes[c->at[which]]);
  j->codes[c->at[which]] = codes;
  return FORAY_OK;
}

static bool before(void *user, int first, const float *x, size_t n, size_t width) {
  struct calib *c = user;
  static const int last[PB_MATRICES] = {[PB_Q] = PB_V, [PB_O] = PB_O, [PB_GATE] = PB_UP, [PB_DOWN] = PB_DOWN};
  memset(c->h, 0, width * width * sizeof *c->h);
  foray_pack_gemm_run(c->g, &(struct foray_pack_gemm_args){.m = width,
                                                           .n = width,
                                                           .k = n,
                                                           .alpha = 1.0f / (float)n,
                                                           .beta = 0,
                                                           .a = x,
                                                           .a_row = 1,
                                                           .a_col = width,
                                                           .b = x,
                                                           .b_row = width,
                                                           .b_col = 1,
                                                           .c = c->h,
                                                           .ldc = width,
                                                           .upper_only = 1});
  c->st = foray_gptq_factor(c->g, c->h, c->u, width, c->err);
  for (int i = first; c->st == FORAY_OK && i <= last[first]; i++) c->st = round_matrix(c, i);
  double part = first == PB_Q ? 0.1 : first == PB_O ? 0.2 : first == PB_GATE ? 0.4 : 0.7;
  if (c->st == FORAY_OK && !foray_pack_tick(c->j, ((double)c->layer + part) / c->j->img.config.n_layer)) {
    c->st = foray_err_set(c->err, FORAY_E_CANCELLED, "packing was cancelled");
  }
  return c->st == FORAY_OK;
}

static enum foray_status load_layer(struct calib *c) {
  struct foray_pack_job *j = c->j;
  static const enum foray_image_role first = FORAY_IMAGE_ATTN_Q;
  enum foray_status st = FORAY_OK;
  int m = 0, v = 0;
  for (uint32_t i = 0; i < j->img.n_tensors && st == FORAY_OK; i++) {
    struct foray_image_tensor *t = &j->img.tensors[i];
    if (t->role > FORAY_IMAGE_FFN_DOWN || t->index != c->layer) continue;
    if (t->rows == 1) {
      st = foray_pack_row(j, t, 0, c->plain.norm[v++], c->err);
      continue;
    }
    c->at[m] = i;
    st = foray_pack_matrix(j, t, c->plain.w[m++], c->err);
    if (st == FORAY_OK && t->has_bias) st = foray_pack_bias(j, t, c->plain.bias[t->role - first], c->err);
  }
  return st;
}

/* ---- measurement ---- */

/* sum over positions of |a - b|^2 / |b|^2 */
static double distance(const float *a, const float *b, size_t n, size_t d) {
  double sum = 0;
  for (size_t i = 0; i < n; i++, a += d, b += d) {
    double e = 0, r = 0;
    for (size_t k = 0; k < d; k++) {
      e += (double)((a[k] - b[k]) * (a[k] - b[k]));
      r += (double)(b[k] * b[k]);
    }
    sum += r > 0 ? e / r : 0;
  }
  return sum;
}

/* After layer c->layer was rounded: carries the plain model and all variants through it, and starts a new
 * variant. share: how far each matrix alone, rounded, moves the layer's output. */
static void probe_layer(struct calib *c) {
  const struct foray_image_config *g = &c->j->img.config;
  size_t d = g->n_embd, size = (size_t)PROBE * d;
  float *plain = c->probe + (size_t)g->n_layer * size, *mine = c->probe + (size_t)c->layer * size;
  bool (*hook)(void *, int, const float *, size_t, size_t) = c->block.before;
  c->block.before = NULL;
  memcpy(mine, plain, size * sizeof *mine);
  foray_pack_block_run(&c->block, &c->plain, plain, PROBE_SEQS, PROBE_SEQ);
  for (int i = 0; i < PB_MATRICES; i++) {
    struct foray_pack_weights w = c->plain;
    w.w[i] = c->coded.w[i];
    memcpy(c->trial, mine, size * sizeof *mine);
    foray_pack_block_run(&c->block, &w, c->trial, PROBE_SEQS, PROBE_SEQ);
    c->share[(size_t)c->layer * PB_MATRICES + (size_t)i] = distance(c->trial, plain, PROBE, d);
  }
  foray_pack_block_run(&c->block, &c->coded, mine, PROBE_SEQS, PROBE_SEQ);
  size_t batch = c->block.cap / PROBE;
  for (size_t v = 0; v < c->layer; v += batch) {
    size_t n = c->layer - v < batch ? c->layer - v : batch;
    foray_pack_block_run(&c->block, &c->plain, c->probe + v * size, n * PROBE_SEQS, PROBE_SEQ);
  }
  c->block.before = hook;
}

/* Running log-sum-exp of one scored position, and of sum p_plain (l_plain - l_variant). */
struct tally {
  double top, sum, cross;
};

struct score {
  const float *logits; /* variants x SCORED x VOCAB_CHUNK */
  struct tally *tally; /* variants x SCORED; the last variant is the plain model */
  size_t variants, chunk;
};

/* One part = one scored position, all variants. */
static void score_part(void *arg, int part, int thread) {
  const struct score *s = arg;
  (void)thread;
  size_t base = s->variants - 1;
  const float *lb = s->logits + (base * SCORED + (size_t)part) * VOCAB_CHUNK;
  struct tally *tb = &s->tally[base * SCORED + (size_t)part];
  float top = (float)tb->top;
  for (size_t i = 0; i < s->chunk; i++) top = lb[i] > top ? lb[i] : top;
  double shrink = exp(tb->top - (double)top), sum = 0;
  for (size_t i = 0; i < s->chunk; i++) sum += (double)foray_pack_exp(lb[i] - top);
  for (size_t v = 0; v < base; v++) {
    const float *l = s->logits + (v * SCORED + (size_t)part) * VOCAB_CHUNK;
    struct tally *t = &s->tally[v * SCORED + (size_t)part];
    float mine = (float)t->top;
    for (size_t i = 0; i < s->chunk; i++) mine = l[i] > mine ? l[i] : mine;
    double own = 0, cross = 0;
    for (size_t i = 0; i < s->chunk; i++) {
      own += (double)foray_pack_exp(l[i] - mine);
      cross += (double)(foray_pack_exp(lb[i] - top) * (lb[i] - l[i]));
    }
    t->sum = t->sum * exp(t->top - (double)mine) + own;
    t->top = (double)mine;
    t->cross = t->cross * shrink + cross;
  }
  tb->sum = tb->sum * shrink + sum;
  tb->top = (double)top;
}

/* Mean KL of each variant against the plain model: kl[0 .. n_layer). */
static enum foray_status probe_score(struct calib *c, double *kl) {
  const struct foray_image_config *g = &c->j->img.config;
  size_t d = g->n_embd, variants = (size_t)g->n_layer + 1, rows = variants * SCORED;
  struct foray_image_tensor head = {.role = FORAY_IMAGE_HEAD_FULL, .rows = g->n_vocab, .cols = g->n_embd};
  struct foray_image_tensor norm = {.role = FORAY_IMAGE_OUTPUT_NORM, .rows = 1, .cols = g->n_embd};
  float *y = malloc(rows * d * sizeof *y), *w = malloc((size_t)VOCAB_CHUNK * d * sizeof *w);
  float *logits = malloc(rows * VOCAB_CHUNK * sizeof *logits), *gamma = malloc(d * sizeof *gamma);
  struct tally *tally = calloc(rows, sizeof *tally);
  enum foray_status st = y && w && logits && gamma && tally ? FORAY_OK : nomem(c->err);
  if (st == FORAY_OK) st = foray_pack_row(c->j, &norm, 0, gamma, c->err);
  for (size_t i = 0; st == FORAY_OK && i < rows; i++) {
    size_t v = i / SCORED, pos = i % SCORED * PROBE_STEP + PROBE_STEP - 1;
    foray_pack_rmsnorm(g, c->probe + (v * PROBE + pos) * d, gamma, y + i * d, 1, d);
    tally[i].top = -1e30;
  }
  for (uint32_t r = 0; st == FORAY_OK && r < g->n_vocab; r += VOCAB_CHUNK) {
    size_t n = g->n_vocab - r < VOCAB_CHUNK ? g->n_vocab - r : VOCAB_CHUNK;
    for (size_t i = 0; st == FORAY_OK && i < n; i++)
      st = foray_pack_row(c->j, &head, r + (uint32_t)i, w + i * d, c->err);
    if (st != FORAY_OK) break;
    foray_pack_gemm_run(c->g, &(struct foray_pack_gemm_args){.m = rows,
                                                             .n = n,
                                                             .k = d,
                                                             .alpha = 1,
                                                             .beta = 0,
                                                             .a = y,
                                                             .a_row = d,
                                                             .a_col = 1,
                                                             .b = w,
                                                             .b_row = 1,
                                                             .b_col = d,
                                                             .c = logits,
                                                             .ldc = VOCAB_CHUNK});
    struct score s = {logits, tally, variants, n};
    foray_pool_run(c->pool, score_part, &s, SCORED);
  }
  for (size_t v = 0; st == FORAY_OK && v + 1 < variants; v++) {
    double sum = 0;
    for (size_t i = 0; i < SCORED; i++) {
      const struct tally *b = &tally[(variants - 1) * SCORED + i], *t = &tally[v * SCORED + i];
      sum += t->cross / b->sum - (b->top + log(b->sum)) + (t->top + log(t->sum));
    }
    kl[v] = sum > 0 ? sum / SCORED : 0;
  }
  free(y);
  free(w);
  free(logits);
  free(gamma);
  free(tally);
  return st;
}

/* ---- the mix ---- */

struct candidate {
  uint32_t tensor;
  double worth; /* cost per weight */
};
static int by_worth(const void *a, const void *b) {
  const struct candidate *x = a, *y = b;
  if (x->worth != y->worth) return x->worth > y->worth ? -1 : 1;
  return x->tensor < y->tensor ? -1 : 1;
}

static enum foray_status upgrade(struct foray_pack_job *j, struct foray_err *err) {
  struct candidate *list = malloc(j->img.n_tensors * sizeof *list);
  double bits_max = foray_pack_bits_max(j->opts);
  uint32_t n = 0;
  enum foray_status st = list ? FORAY_OK : nomem(err);
  for (uint32_t i = 0; list && i < j->img.n_tensors; i++) {
    const struct foray_image_tensor *t = &j->img.tensors[i];
    if (t->role > FORAY_IMAGE_FFN_DOWN || t->type != FORAY_IMAGE_Q4A) continue;
    list[n++] = (struct candidate){i, (double)t->cost / ((double)t->rows * (double)t->cols)};
  }
  if (list) qsort(list, n, sizeof *list, by_worth);
  for (uint32_t i = 0; i < n && st == FORAY_OK; i++) {
    struct foray_image_tensor *t = &j->img.tensors[list[i].tensor];
    if (!(t->cost > 0)) continue;
    t->type = FORAY_IMAGE_Q8S;
    if (foray_pack_bits(j) > bits_max) {
      t->type = FORAY_IMAGE_Q4A;
      continue;
    }
    struct foray_codes *c;
    double before_error = (double)t->rms_error;
    st = foray_pack_round(j, t, &c, err);
    if (st != FORAY_OK) break;
    foray_codes_close(j->codes[list[i].tensor]);
    j->codes[list[i].tensor] = c;
    double ratio = before_error > 0 ? (double)t->rms_error / before_error : 0;
    t->cost = (float)((double)t->cost * ratio * ratio);
  }
  free(list);
  return st;
}

/* ---- driver ---- */

static void calib_deinit(struct calib *c) {
  foray_pack_block_deinit(&c->block);
  for (int i = 0; i < PB_MATRICES; i++) {
    free(c->plain.w[i]);
    free(c->coded.w[i]);
  }
  for (int i = 0; i < 2; i++) free(c->plain.norm[i]);
  for (int i = 0; i < 3; i++) free(c->plain.bias[i]);
  free(c->h);
  free(c->u);
  free(c->work);
  free(c->x);
  free(c->probe);
  free(c->trial);
  free(c->share);
  foray_pack_gemm_close(c->g);
}

static enum foray_status calib_open(struct calib *c, size_t n_tokens) {
  const struct foray_image_config *g = &c->j->img.config;
  size_t d = g->n_embd, q = (size_t)g->n_head * g->head_dim, kv = (size_t)g->n_head_kv * g->head_dim,
         f = g->n_ff;
  const size_t shape[PB_MATRICES] = {q * d, kv * d, kv * d, d * q, f * d, f * d, d * f};
  size_t widest = d > q ? d : q, largest = 0;
  widest = f > widest ? f : widest;
  c->g = foray_pack_gemm_open(c->pool);
  bool ok = c->g != NULL;
  for (int i = 0; i < PB_MATRICES; i++) {
    ok &= (c->plain.w[i] = malloc(shape[i] * sizeof(float))) != NULL;
    ok &= (c->coded.w[i] = malloc(shape[i] * sizeof(float))) != NULL;
    largest = shape[i] > largest ? shape[i] : largest;
  }
  for (int i = 0; i < 2; i++) ok &= (c->plain.norm[i] = malloc(d * sizeof(float))) != NULL;
  for (int i = 0; i < 3; i++) ok &= (c->plain.bias[i] = calloc(i ? kv : q, sizeof(float))) != NULL;
  for (int i = 0; i < 2; i++) c->coded.norm[i] = c->plain.norm[i];
  for (int i = 0; i < 3; i++) c->coded.bias[i] = c->plain.bias[i];
  ok &= (c->h = malloc(widest * widest * sizeof(float))) != NULL;
  ok &= (c->u = malloc(widest * widest * sizeof(float))) != NULL;
  ok &= (c->work = malloc(largest * sizeof(float))) != NULL;
  ok &= (c->x = malloc(n_tokens * d * sizeof(float))) != NULL;
  ok &= (c->probe = malloc(((size_t)g->n_layer + 1) * PROBE * d * sizeof(float))) != NULL;
  ok &= (c->trial = malloc((size_t)PROBE * d * sizeof(float))) != NULL;
  ok &= (c->share = calloc((size_t)g->n_layer * PB_MATRICES, sizeof(double))) != NULL;
  if (!ok) return nomem(c->err);
  enum foray_status st =
      foray_pack_block_open(g, c->pool, c->g, n_tokens < PROBE ? PROBE : n_tokens, SEQ, &c->block, c->err);
  c->block.before = before;
  c->block.user = c;
  return st;
}

static enum foray_status sweep(struct calib *c, const int32_t *ids) {
  struct foray_pack_job *j = c->j;
  const struct foray_image_config *g = &j->img.config;
  size_t d = g->n_embd;
  float *plain = c->probe + (size_t)g->n_layer * PROBE * d;
  enum foray_status st = embed(j, ids, c->n_seq * SEQ, c->x, c->err);
  /* probes: the beginnings of sequences spread over the text */
  for (size_t s = 0; st == FORAY_OK && s < PROBE_SEQS; s++) {
    st = embed(j, ids + c->n_seq * s / PROBE_SEQS * SEQ + (c->n_seq == 1 ? s * PROBE_SEQ : 0), PROBE_SEQ,
               plain + s * PROBE_SEQ * d, c->err);
  }
  for (c->layer = 0; st == FORAY_OK && c->layer < g->n_layer; c->layer++) {
    st = load_layer(c);
    if (st != FORAY_OK) break;
    if (!foray_pack_block_run(&c->block, &c->coded, c->x, c->n_seq, SEQ)) return c->st;
    uint32_t at[PB_MATRICES];
    memcpy(at, c->at, sizeof at);
    probe_layer(c);
    double all = 0;
    for (int i = 0; i < PB_MATRICES; i++) all += c->share[(size_t)c->layer * PB_MATRICES + (size_t)i];
    for (int i = 0; i < PB_MATRICES; i++) { /* as a share of 1 for now */
      j->img.tensors[at[i]].cost =
          all > 0 ? (float)(c->share[(size_t)c->layer * PB_MATRICES + (size_t)i] / all) : 0;
    }
  }
  return st;
}

enum foray_status foray_pack_calibrate(struct foray_pack_job *j, struct foray_err *err) {
  struct calib c = {.j = j, .pool = j->opts->pool, .err = err};
  struct foray_ids ids = {0};
  double *kl = calloc(j->img.config.n_layer, sizeof *kl);
  enum foray_status st = kl ? tokens(j, &ids, err) : nomem(err);
  size_t want = j->opts->calib_tokens ? j->opts->calib_tokens : TOKENS_DEFAULT;
  if (st == FORAY_OK) {
    c.n_seq = (want < ids.n ? want : ids.n) / SEQ;
    if (!c.n_seq) c.n_seq = 1;
    j->calib_tokens = (uint32_t)(c.n_seq * SEQ);
    /* sequences spread evenly over the text; moving down in place, because starts only rise */
    for (size_t s = 0; s < c.n_seq; s++) {
      size_t from = c.n_seq > 1 ? s * (ids.n - SEQ) / (c.n_seq - 1) : 0;
      memmove(ids.ids + s * SEQ, ids.ids + from, SEQ * sizeof *ids.ids);
    }
    st = calib_open(&c, c.n_seq * SEQ);
  }
  if (st == FORAY_OK) st = sweep(&c, ids.ids);
  if (st == FORAY_OK) st = probe_score(&c, kl);
  calib_deinit(&c);
  foray_ids_deinit(&ids);
  j->measured_kl = 0;
  for (uint32_t i = 0; st == FORAY_OK && i < j->img.n_tensors; i++) {
    struct foray_image_tensor *t = &j->img.tensors[i];
    if (t->role > FORAY_IMAGE_FFN_DOWN || t->type == FORAY_IMAGE_V32) continue;
    t->cost = (float)((double)t->cost * kl[t->index]);
  }
  if (st == FORAY_OK) st = upgrade(j, err);
  for (uint32_t i = 0; st == FORAY_OK && i < j->img.n_tensors; i++)
    j->measured_kl += (double)j->img.tensors[i].cost;
  free(kl);
  return st;
}
