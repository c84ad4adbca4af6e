#include "train/train.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/hash.h"
#include "core/philox.h"
#include "train/ewise.h"
#include "train/exits_file.h"

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "training: out of memory");
}

/* ---- optimiser ---- */
struct adam_pass {
  const struct foray_adamw *a;
  double norm, scale, c1, c2;
};
static void add_norm(void *arg, struct foray_param *p) {
  struct adam_pass *s = arg;
  for (size_t i = 0; i < p->n; i++) s->norm += (double)p->g[i] * (double)p->g[i];
}
static void update(void *arg, struct foray_param *p) {
  const struct adam_pass *s = arg;
  const float b1 = 0.9f, b2 = 0.99f, eps = 1e-8f, scale = (float)s->scale;
  double rate = strncmp(p->name, "exit.", 5) ? s->a->lr : s->a->map_lr;
  const float lr = (float)rate, keep = 1.0f - (float)(rate * s->a->decay) * p->decay, c1 = (float)s->c1,
              c2 = (float)s->c2;
  if (strstr(p->name, ".norm")) return; /* the map after it makes a trained norm redundant */
  for (size_t i = 0; i < p->n; i++) {
    float g = p->g[i] * scale;
    p->m[i] = b1 * p->m[i] + (1 - b1) * g;
    p->v[i] = b2 * p->v[i] + (1 - b2) * g * g;
    p->w[i] = p->w[i] * keep - lr * (p->m[i] * c1) / (sqrtf(p->v[i] * c2) + eps);
    p->g[i] = 0;
  }
}
double foray_adamw_step(struct foray_net *n, const struct foray_adamw *a) {
  struct adam_pass s = {.a = a};
  foray_net_params(n, add_norm, &s);
  s.norm = sqrt(s.norm);
  s.scale = s.norm > a->clip ? a->clip / s.norm : 1;
  s.c1 = 1 / (1 - pow(0.9, a->step));
  s.c2 = 1 / (1 - pow(0.99, a->step));
  foray_net_params(n, update, &s);
  return s.norm;
}
double foray_lr_at(double lr, int step, int steps, int warmup) {
  if (step < warmup) return lr * (step + 1) / warmup;
  double t = (double)(step - warmup) / (double)(steps > warmup ? steps - warmup : 1);
  return lr * (0.1 + 0.9 * 0.5 * (1 + cos(3.141592653589793 * (t < 1 ? t : 1))));
}

/* ---- order of documents ---- */
struct order {
  int *doc, n, at;
  uint32_t epoch;
  uint64_t seed;
};
static void shuffle(struct order *r) {
  for (int i = r->n - 1; i > 0; i--) {
    int k = (int)(foray_philox4x32(r->seed, (uint32_t)i, r->epoch, 0x6f726465, 0).v[0] % (uint32_t)(i + 1)),
        t = r->doc[i];
    r->doc[i] = r->doc[k];
    r->doc[k] = t;
  }
  r->at = 0;
  r->epoch++;
}

struct batch {
  int m, n_seg;
  int *doc; /* of each segment */
  int32_t *tokens;
  struct foray_segment *seg;
  struct foray_goals goals;
};

static enum foray_status batch_add(struct batch *b, const struct foray_doc *d, int index, float prompt_weight,
                                   struct foray_err *err) {
  memcpy(b->tokens + b->m, d->ids, (size_t)d->n * 4);
  b->doc[b->n_seg] = index;
  b->seg[b->n_seg++] = (struct foray_segment){b->m, d->n};
  enum foray_status st = foray_goals_add(&b->goals, d, b->m, prompt_weight, err);
  b->m += d->n;
  return st;
}
static void batch_clear(struct batch *b) { b->m = b->n_seg = b->goals.n = 0; }
static enum foray_status batch_fill(struct batch *b, struct foray_tune *t, struct order *r,
                                    struct foray_err *err) {
  batch_clear(b);
  for (;;) {
    if (r->at >= r->n) shuffle(r);
    const struct foray_doc *d = &t->corpus.doc[r->doc[r->at]];
    if (b->m + d->n > t->o->batch) return FORAY_OK;
    r->at++;
    enum foray_status st = batch_add(b, d, r->doc[r->at - 1], (float)t->o->prompt_weight, err);
    if (st) return st;
  }
}
static enum foray_status batch_open(struct batch *b, int rows, struct foray_err *err) {
  *b = (struct batch){0};
  b->tokens = malloc((size_t)rows * 4);
  b->seg = malloc((size_t)rows * sizeof *b->seg);
  b->doc = malloc((size_t)rows * sizeof *b->doc);
  return b->tokens && b->seg && b->doc ? FORAY_OK : nomem(err);
}
static void batch_close(struct batch *b) {
  free(b->tokens);
  free(b->seg);
  free(b->doc);
  foray_goals_deinit(&b->goals);
}

/* States that never change while training: below the first LoRA, or, with no LoRA at all, those that the
 * exits and the head read. Returns how many; layer[] gets which. */
static int fixed_states(const struct foray_tune *t, int layer[FORAY_EXITS_MAX + 1]) {
  const struct foray_net *n = t->net;
  int count = 0;
  if (t->o->rank) {
    if (n->first > 0) layer[count++] = n->first;
    return count;
  }
  for (int e = 0; e < n->n_exits; e++) layer[count++] = n->exit[e].layer;
  layer[count++] = n->n_layer;
  return count;
}

/* Forward pass of a batch. Fixed states are computed once a document and kept, so later epochs start above
 * them. */
static enum foray_status forward(struct foray_tune *t, const struct batch *b, struct foray_err *err) {
  struct foray_net *n = t->net;
  size_t D = (size_t)n->D;
  int layer[FORAY_EXITS_MAX + 1], count = fixed_states(t, layer);
  bool all = count > 0;
  for (int s = 0; all && s < b->n_seg; s++) all = t->low[b->doc[s]] != NULL;
  if (all) {
    for (int s = 0; s < b->n_seg; s++)
      for (int k = 0; k < count; k++) {
        size_t len = (size_t)b->seg[s].len * D;
        float *to = t->o->rank ? t->low_batch : foray_acts_state_edit(t->acts, layer[k]);
        memcpy(to + (size_t)b->seg[s].start * D, t->low[b->doc[s]] + (size_t)k * len, len * sizeof(float));
      }
    return t->o->rank ? foray_net_forward_from(n, t->acts, b->m, t->low_batch, b->seg, b->n_seg, err)
                      : FORAY_OK;
  }
  enum foray_status st = foray_net_forward(n, t->acts, b->m, b->tokens, b->seg, b->n_seg, err);
  for (int s = 0; !st && count && s < b->n_seg; s++) {
    size_t len = (size_t)b->seg[s].len * D;
    float **low = &t->low[b->doc[s]];
    if (*low || !(*low = malloc(len * (size_t)count * sizeof(float)))) continue;
    for (int k = 0; k < count; k++)
      memcpy(*low + (size_t)k * len, foray_acts_state(t->acts, layer[k]) + (size_t)b->seg[s].start * D,
             len * sizeof(float));
  }
  return st;
}

/* Exits that full depth will check learn what full depth says: computed once a document, it does not change.
 */
static enum foray_status own_goals(struct foray_tune *t, struct batch *b, struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  int k = 0;
  for (int s = 0; !st && s < b->n_seg; s++) {
    const struct foray_doc *d = &t->corpus.doc[b->doc[s]];
    struct foray_own *o = &t->own[b->doc[s]];
    int R = d->n - d->first;
    if (!o->top) {
      size_t n = (size_t)R * FORAY_CORPUS_TOP;
      int *row = malloc((size_t)R * sizeof *row);
      o->top = malloc(n * sizeof *o->top);
      o->logp = malloc(n * sizeof *o->logp);
      for (int i = 0; row && i < R; i++) row[i] = b->seg[s].start + d->first + i - 1;
      st = row && o->top && o->logp
               ? foray_loss_top(t->loss, t->net, foray_acts_state(t->acts, t->net->n_layer), row, R, o->top,
                                o->logp, err)
               : nomem(err);
      free(row);
    }
    for (int end = b->seg[s].start + d->n; !st && k < b->goals.n && b->goals.row[k] < end; k++) {
      size_t at = (size_t)(b->goals.row[k] + 1 - b->seg[s].start - d->first) * FORAY_CORPUS_TOP;
      b->goals.top[k] = o->top + at;
      b->goals.logp[k] = o->logp + at;
    }
  }
  return st;
}

/* ---- ridge start ---- */
static enum foray_status ridge_start(struct foray_tune *t, struct batch *b, struct order *r,
                                     struct foray_err *err) {
  struct foray_net *n = t->net;
  struct foray_pool *pool = foray_mm_pool(n->gemm);
  size_t D = (size_t)n->D, cap = (size_t)t->o->batch * D;
  struct foray_ridge ridge[FORAY_EXITS_MAX] = {{0}};
  float *x = malloc(cap * 8), *y = malloc(cap * 4), *s = malloc(cap * 4), *p = malloc(cap * 4);
  float *q = malloc(cap * 4), *w = malloc(D * D * 8);
  enum foray_status st = x && y && s && p && q && w ? FORAY_OK : nomem(err);
  int K = t->o->prev ? 2 * n->D : n->D; /* [own state | final state of the position before] */
  for (int e = 0; !st && e < n->n_exits; e++) st = foray_ridge_open(K, n->D, &ridge[e], err);
  for (int seen = 0; !st && seen < t->o->ridge_tokens && !(t->o->stop && *t->o->stop);) {
    if ((st = batch_fill(b, t, r, err))) break;
    if ((st = forward(t, b, err))) break;
    int R = b->goals.n;
    for (int e = -1; e < n->n_exits; e++) {
      const float *state = foray_acts_state(t->acts, e < 0 ? n->n_layer : n->exit[e].layer);
      for (int i = 0; i < R; i++) memcpy(s + (size_t)i * D, state + (size_t)b->goals.row[i] * D, D * 4);
      foray_ew_rmsnorm(pool, R, n->D, n->cfg.rms_eps, s, e < 0 ? n->out_norm : n->exit[e].norm.w,
                       e < 0 ? y : q);
      if (e < 0) {
        for (int i = 0; i < R; i++)
          if (b->goals.before[i] >= 0)
            memcpy(s + (size_t)i * D, state + (size_t)b->goals.before[i] * D, D * 4);
          else
            memset(s + (size_t)i * D, 0, D * 4);
        foray_ew_rmsnorm(pool, R, n->D, n->cfg.rms_eps, s, n->out_norm, p);
        continue;
      }
      for (int i = 0; i < R; i++) {
        float *to = x + (size_t)i * (size_t)K;
        memcpy(to, q + (size_t)i * D, D * 4);
        if (t->o->prev) memcpy(to + D, p + (size_t)i * D, D * 4);
      }
      foray_ridge_add(&ridge[e], n->gemm, R, x, y);
    }
    seen += R;
    if (t->o->log)
      fprintf(t->o->log, "\rridge start: %d of %d tokens ", seen, t->o->ridge_tokens), fflush(t->o->log);
  }
  if (t->o->log) fprintf(t->o->log, "\n");
  for (int e = 0; !st && e < n->n_exits; e++) {
    st = foray_ridge_solve(&ridge[e], t->o->ridge_lambda, w, err);
    for (size_t i = 0; !st && i < D; i++) {
      memcpy(n->exit[e].map.w + i * D, w + i * (size_t)K, D * 4);
      if (t->o->prev) memcpy(n->exit[e].prev.w + i * D, w + i * (size_t)K + D, D * 4);
    }
  }
  for (int e = 0; e < FORAY_EXITS_MAX; e++) foray_ridge_close(&ridge[e]);
  free(x), free(y), free(s), free(p), free(q), free(w);
  return st;
}

/* ---- checkpoint: parameters and moments, behind a hash of what shaped the run ---- */
struct check_head {
  char magic[8];
  uint8_t key[FORAY_SHA256_BYTES];
  int32_t step, at;
  uint32_t epoch, pad;
  uint64_t tokens;
};
struct file_pass {
  FILE *f;
  bool ok;
};
static void put(void *arg, struct foray_param *p) {
  struct file_pass *s = arg;
  s->ok = s->ok && fwrite(p->w, 4, p->n, s->f) == p->n && fwrite(p->m, 4, p->n, s->f) == p->n &&
          fwrite(p->v, 4, p->n, s->f) == p->n;
}
static void get(void *arg, struct foray_param *p) {
  struct file_pass *s = arg;
  s->ok = s->ok && fread(p->w, 4, p->n, s->f) == p->n && fread(p->m, 4, p->n, s->f) == p->n &&
          fread(p->v, 4, p->n, s->f) == p->n;
}
static int schedule(const struct foray_tune_opts *o) { return o->schedule > 0 ? o->schedule : o->steps; }

static void run_key(const struct foray_tune *t, uint8_t key[FORAY_SHA256_BYTES]) {
  const struct foray_tune_opts *o = t->o;
  char s[1024];
  int n = snprintf(s, sizeof s, "%d %d %d %d %d %d %g %g %g %g %g %g %g %g %d %d %d %d %llu %llu %u", o->own,
                   o->prev, o->head_rows, o->vocab, o->rank, o->first, o->alpha, o->lr, o->map_lr, o->clip,
                   o->decay, o->exit_weight, o->full_weight, o->prompt_weight, schedule(o), o->batch,
                   o->warmup, t->corpus.n, (unsigned long long)t->corpus.scored, (unsigned long long)o->seed,
                   t->net->cfg.n_embd);
  for (int e = 0; e < o->n_exits; e++) n += snprintf(s + n, sizeof s - (size_t)n, " %d", o->layer[e]);
  foray_sha256_once(s, (size_t)n, key);
}
static enum foray_status checkpoint_save(const struct foray_tune *t, const struct order *r,
                                         struct foray_err *err) {
  char path[4096], tmp[4100];
  snprintf(path, sizeof path, "%s/checkpoint", t->o->work);
  snprintf(tmp, sizeof tmp, "%s.t", path);
  struct file_pass s = {fopen(tmp, "wb"), true};
  if (!s.f) return foray_err_set(err, FORAY_E_IO, "%s: cannot be written", tmp);
  struct check_head h = {
      .magic = "FRYCHK1", .step = t->step, .at = r->at, .epoch = r->epoch, .tokens = t->tokens};
  run_key(t, h.key);
  s.ok =
      fwrite(&h, sizeof h, 1, s.f) == 1 && fwrite(r->doc, sizeof *r->doc, (size_t)r->n, s.f) == (size_t)r->n;
  foray_net_params(t->net, put, &s);
  s.ok = fclose(s.f) == 0 && s.ok;
  if (!s.ok || rename(tmp, path)) return foray_err_set(err, FORAY_E_IO, "%s: write failed", path);
  return FORAY_OK;
}
/* True when a checkpoint of this very run was loaded. */
static bool checkpoint_load(struct foray_tune *t, struct order *r) {
  char path[4096];
  uint8_t key[FORAY_SHA256_BYTES];
  struct check_head h;
  snprintf(path, sizeof path, "%s/checkpoint", t->o->work);
  struct file_pass s = {fopen(path, "rb"), true};
  if (!s.f) return false;
  run_key(t, key);
  s.ok = fread(&h, sizeof h, 1, s.f) == 1 && !memcmp(h.key, key, sizeof key) &&
         fread(r->doc, sizeof *r->doc, (size_t)r->n, s.f) == (size_t)r->n;
  if (s.ok) {
    foray_net_params(t->net, get, &s);
    t->step = h.step, t->tokens = h.tokens, r->at = h.at, r->epoch = h.epoch;
  }
  fclose(s.f);
  return s.ok;
}

/* ---- training ---- */
static enum foray_status train(struct foray_tune *t, struct batch *b, struct order *r,
                               struct foray_err *err) {
  const struct foray_tune_opts *o = t->o;
  struct foray_net *n = t->net;
  double kl[FORAY_EXITS_MAX + 1], ema[FORAY_EXITS_MAX + 1] = {0}, t0 = foray_clock_s(), saved = t0,
                                                        said = t0 - 100;
  int start = t->step;
  uint64_t tokens0 = t->tokens;
  enum foray_status st = FORAY_OK;
  for (; !st && t->step < o->steps; t->step++) {
    if (o->stop && *o->stop) {
      st = checkpoint_save(t, r, err);
      return st ? st
                : foray_err_set(err, FORAY_E_CANCELLED, "stopped at step %d of %d; the same command goes on",
                                t->step, o->steps);
    }
    if ((st = batch_fill(b, t, r, err))) break;
    if ((st = forward(t, b, err))) break;
    if (o->own && (st = own_goals(t, b, err))) break;
    for (int l = 0; l <= n->n_layer; l++)
      if (t->d_state[l]) memset(t->d_state[l], 0, (size_t)b->m * (size_t)n->D * sizeof(float));
    kl[0] = 0;
    for (int e = o->rank ? -1 : 0; !st && e < n->n_exits; e++) {
      int l = e < 0 ? n->n_layer : n->exit[e].layer;
      struct foray_chain chain = {
          .last = foray_acts_state(t->acts, n->n_layer), .mix = true, .draw = (uint32_t)t->step};
      st = foray_loss_head(t->loss, n, e, foray_acts_state(t->acts, l), &chain, &b->goals,
                           (float)(e < 0 ? o->full_weight : o->exit_weight), t->d_state[l], &kl[e + 1], NULL,
                           err);
    }
    if (!st && o->rank) st = foray_net_backward(n, t->acts, t->d_state, err);
    if (st) break;
    double f = foray_lr_at(1, t->step, schedule(o), o->warmup);
    struct foray_adamw a = {o->lr * f, o->map_lr * f, o->decay, o->clip, t->step + 1};
    double norm = foray_adamw_step(n, &a), now = foray_clock_s();
    t->tokens += (uint64_t)b->m;
    for (int e = 0; e <= n->n_exits; e++) ema[e] = t->step == start ? kl[e] : 0.95 * ema[e] + 0.05 * kl[e];
    double rate = (double)(t->tokens - tokens0) / (now - t0),
           left = (now - t0) / (t->step - start + 1) * (o->steps - t->step - 1);
    if (o->log && (now - said > 15 || t->step + 1 == o->steps)) {
      said = now;
      fprintf(o->log, "step %d/%d  loss full %.4f", t->step + 1, o->steps, ema[0]);
      for (int e = 0; e < n->n_exits; e++) fprintf(o->log, "  L%d %.4f", n->exit[e].layer, ema[e + 1]);
      fprintf(o->log, "  |g| %.2f  %.0f tokens/s  %.0f s left\n", norm, rate, left);
      fflush(o->log);
    }
    if (o->json) {
      fprintf(o->json, "{\"step\":%d,\"full\":%.6f,\"exits\":[", t->step + 1, kl[0]);
      for (int e = 0; e < n->n_exits; e++) fprintf(o->json, "%s%.6f", e ? "," : "", kl[e + 1]);
      fprintf(o->json, "],\"grad_norm\":%.5f,\"tokens_per_second\":%.1f}\n", norm, rate);
      fflush(o->json);
    }
    if (now - saved > 300) {
      saved = now;
      t->step++;
      st = checkpoint_save(t, r, err);
      t->step--;
    }
  }
  return st;
}

/* ---- text ---- */
static void text_progress(void *arg, uint64_t scored, double rate) {
  const struct foray_tune_opts *o = arg;
  if (o->log)
    fprintf(o->log, "text: %llu of %llu tokens, %.0f tokens/s\n", (unsigned long long)scored,
            (unsigned long long)o->text.tokens, rate),
        fflush(o->log);
}
static enum foray_status text(struct foray_tune *t, struct foray_err *err) {
  const struct foray_tune_opts *o = t->o;
  const struct foray_model *writer = o->target ? o->target : o->model;
  char path[4096], hex[FORAY_SHA256_HEX];
  uint8_t digest[FORAY_SHA256_BYTES];
  snprintf(path, sizeof path, "%s/text", o->work);
  foray_model_sha256(writer, digest);
  foray_sha256_hex(digest, hex);
  enum foray_status st = access(path, R_OK) ? FORAY_OK : foray_corpus_load(&t->corpus, path, err);
  if (st) return st;
  if (t->corpus.n && strcmp(t->corpus.writer, hex))
    return foray_err_set(err, FORAY_E_MISMATCH,
                         "%s was written by another model (%.12s); choose another --work", path,
                         t->corpus.writer);
  memcpy(t->corpus.writer, hex, sizeof hex);
  if (t->corpus.scored < o->text.tokens) {
    struct foray_corpus_opts c = o->text;
    c.save = path, c.stop = o->stop, c.progress = text_progress, c.arg = (void *)(uintptr_t)o,
    c.seed = o->seed;
    st = foray_corpus_generate(&t->corpus, writer, o->gemm, &c, err);
  }
  if (!st && o->stop && *o->stop)
    st = foray_err_set(err, FORAY_E_CANCELLED, "stopped; the same command goes on with the text in %s", path);
  if (!st && t->corpus.n < 32)
    st = foray_err_set(err, FORAY_E_ARG, "only %d conversations: ask for more tokens", t->corpus.n);
  return st;
}

static enum foray_status open_net(struct foray_tune *t, struct foray_err *err) {
  const struct foray_tune_opts *o = t->o;
  uint32_t *ids = malloc((size_t)o->vocab * sizeof *ids);
  if (!ids) return nomem(err);
  int rows = foray_corpus_vocab(&t->corpus, o->model->tokenizer, o->vocab, ids, &t->coverage, err);
  enum foray_status st =
      rows == o->vocab ? FORAY_OK
                       : foray_err_set(err, FORAY_E_ARG, "a vocabulary of %d rows is not possible", o->vocab);
  if (!st) st = foray_net_open(o->model, o->gemm, o->rank ? o->first : INT_MAX, &t->net, err);
  if (!st) st = foray_net_set_vocab(t->net, ids, rows, err);
  if (!st && o->rank) st = foray_net_add_lora(t->net, o->first, o->rank, (float)o->alpha, o->seed, err);
  for (int e = 0; !st && e < o->n_exits; e++)
    st = foray_net_add_exit(t->net, o->layer[e], o->head_rows, o->prev, err);
  if (!st) st = foray_acts_open(t->net, o->batch, &t->acts, err);
  if (!st) st = foray_loss_open(t->net, o->batch, &t->loss, err);
  free(ids);
  if (st) return st;
  t->d_state = calloc((size_t)t->net->n_layer + 1, sizeof *t->d_state);
  t->low = calloc((size_t)t->corpus.n, sizeof *t->low);
  t->own = calloc((size_t)t->corpus.n, sizeof *t->own);
  t->low_batch = malloc((size_t)o->batch * (size_t)t->net->D * sizeof(float));
  if (!t->d_state || !t->low || !t->own || !t->low_batch) return nomem(err);
  for (int e = -1; e < o->n_exits; e++) {
    int l = e < 0 ? t->net->n_layer : o->layer[e];
    if (!(t->d_state[l] = malloc((size_t)o->batch * (size_t)t->net->D * sizeof(float)))) return nomem(err);
  }
  return FORAY_OK;
}

static enum foray_status write_file(struct foray_tune *t, const char *report, struct foray_err *err) {
  const struct foray_tune_opts *o = t->o;
  const struct foray_net *n = t->net;
  uint8_t digest[FORAY_SHA256_BYTES];
  char base[FORAY_SHA256_HEX], target[FORAY_SHA256_HEX] = "";
  uint32_t layer[FORAY_EXITS_MAX], rows[FORAY_EXITS_MAX];
  float threshold[FORAY_EXITS_MAX];
  const float *norm[FORAY_EXITS_MAX], *map[FORAY_EXITS_MAX], *prev[FORAY_EXITS_MAX];
  foray_model_sha256(o->model, digest);
  foray_sha256_hex(digest, base);
  if (o->target) {
    foray_model_sha256(o->target, digest);
    foray_sha256_hex(digest, target);
  }
  int used = 0, pays = 0;
  for (int e = 0; e < n->n_exits; e++) pays += t->threshold[e] <= 1;
  for (int e = 0; e < n->n_exits; e++) {
    if (pays && t->threshold[e] > 1) continue;
    layer[used] = (uint32_t)n->exit[e].layer;
    rows[used] = (uint32_t)n->exit[e].head_rows;
    /* where none pays, all are kept behind a threshold that seldom lets a token leave */
    threshold[used] = (float)(o->threshold > 0 ? o->threshold : pays ? t->threshold[e] : 0.98);
    norm[used] = n->exit[e].norm.w;
    prev[used] = n->exit[e].prev.w;
    map[used++] = n->exit[e].map.w;
  }
  struct foray_exits_write_lora *lora = NULL;
  uint32_t n_lora = 0;
  if (o->rank) {
    lora = calloc((size_t)n->n_layer * FORAY_LIN_N, sizeof *lora);
    if (!lora) return nomem(err);
    for (int i = n->first; i < n->n_layer; i++)
      for (int j = 0; j < FORAY_LIN_N; j++) {
        const struct foray_lin *l = &n->layer[i].lin[j];
        struct foray_exits_write_lora *w = &lora[n_lora++];
        snprintf(w->tensor, sizeof w->tensor, "%s", l->a.name);
        w->rank = (uint32_t)l->rank, w->n_in = (uint32_t)l->n_in, w->n_out = (uint32_t)l->n_out;
        w->a = l->a.w, w->b = l->b.w;
      }
  }
  struct foray_exits_write w = {.arch = foray_arch_name(n->cfg.arch),
                                .name = o->model->name,
                                .base_sha256 = base,
                                .target_sha256 = target,
                                .command = o->command,
                                .report_json = report,
                                .seed = o->seed,
                                .tokens = t->tokens,
                                .n_layer = (uint32_t)n->n_layer,
                                .n_embd = (uint32_t)n->D,
                                .n_exits = used,
                                .layer = layer,
                                .head_rows = rows,
                                .threshold = threshold,
                                .check = (uint32_t)t->check,
                                .norm = norm,
                                .map = map,
                                .prev = o->prev ? prev : NULL,
                                .n_vocab = (uint32_t)n->n_head,
                                .vocab = n->vocab,
                                .n_lora = n_lora,
                                .lora = lora,
                                .lora_alpha = (float)o->alpha};
  enum foray_status st = foray_exits_file_write(o->out, &w, err);
  free(lora);
  return st;
}

enum foray_status foray_tune_exits(const struct foray_tune_opts *o, struct foray_err *err) {
  struct foray_tune t = {.o = o};
  struct batch b = {0};
  struct order r = {.seed = o->seed};
  char *report = NULL;
  enum foray_status st = text(&t, err);
  if (!st) st = open_net(&t, err);
  if (!st) st = batch_open(&b, o->batch, err);
  if (!st) {
    r.doc = malloc((size_t)t.corpus.n * sizeof *r.doc);
    if (!r.doc) st = nomem(err);
  }
  for (int d = 0; !st && d < t.corpus.n; d++) {
    if (t.corpus.doc[d].n > o->batch)
      st = foray_err_set(err, FORAY_E_ARG, "--batch %d is shorter than a document", o->batch);
    if (!foray_tune_held_out(d)) r.doc[r.n++] = d;
  }
  if (!st) {
    if (o->log)
      fprintf(o->log, "%d conversations, %llu tokens; vocabulary of %d covers %.4f; kernel %s, %d threads\n",
              t.corpus.n, (unsigned long long)t.corpus.scored, o->vocab, t.coverage,
              foray_mm_kind_of(o->gemm) ? "amx" : "f32", foray_pool_threads(foray_mm_pool(o->gemm)));
    shuffle(&r);
    t.net->skip_from = o->skip_from;
    t.net->skip_to = o->skip_to;
    if (!o->skip_to && !checkpoint_load(&t, &r)) st = ridge_start(&t, &b, &r, err);
  }
  if (!st && t.step == 0 && o->log) {
    st = foray_tune_report(&t, false, &report, err);
    if (!st)
      fprintf(o->log, "%s: %s\n", o->skip_to ? "without the skipped blocks" : "after the ridge start",
              report),
          fflush(o->log);
    free(report);
    report = NULL;
  }
  if (!st && o->skip_to) goto done;
  if (!st) st = train(&t, &b, &r, err);
  if (!st) st = checkpoint_save(&t, &r, err);
  if (!st) st = foray_tune_report(&t, true, &report, err);
  if (!st && o->log) fprintf(o->log, "%s\n", report), fflush(o->log);
  if (!st && o->json) fprintf(o->json, "{\"report\":%s}\n", report);
  if (!st) st = write_file(&t, report, err);
done:
  free(report);
  free(r.doc);
  batch_close(&b);
  for (int l = 0; t.d_state && l <= t.net->n_layer; l++) free(t.d_state[l]);
  free(t.d_state);
  for (int d = 0; t.low && d < t.corpus.n; d++) free(t.low[d]);
  free(t.low);
  for (int d = 0; t.own && d < t.corpus.n; d++) free(t.own[d].top), free(t.own[d].logp);
  free(t.own);
  free(t.low_batch);
  foray_loss_close(t.loss);
  foray_acts_close(t.acts);
  foray_net_close(t.net);
  foray_corpus_deinit(&t.corpus);
  return st;
}
