/* Many conversations at once, one token each per step. Everything random follows from (seed, document,
 * position). */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/philox.h"
#include "model/chat.h"
#include "train/corpus.h"
#include "train/ewise.h"
#include "train/net.h"

enum { TOP = FORAY_CORPUS_TOP };

struct slot {
  struct foray_doc d;
  uint32_t index; /* of the document */
  int pos;        /* next token to feed */
  int limit;      /* of the turn that is being written: total tokens */
  bool answering;
  float temp;
};

struct gen {
  struct foray_net *n;
  struct foray_mm *g;
  const struct foray_corpus_opts *o;
  const struct foray_tokenizer *tok;
  struct foray_chat chat;
  struct foray_mm_b head;
  float *head_dense;
  int S, ctx;
  struct slot *slot;
  float *kc, *vc; /* layer, slot, kv head, position, head_dim */
  float *x, *nx, *q, *k, *v, *att, *gate, *up, *h, *logits;
  float *tab;
  int32_t *top; /* S x TOP of this step */
  float *logp;
  int32_t *tail;      /* what follows a user turn */
  int n_tail, prefix; /* prefix: leading tokens that all documents share */
  uint32_t next_doc;
  int layer;
};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "generation: out of memory");
}

static size_t kv_at(const struct gen *s, int layer, int slot, int kv) {
  return ((((size_t)layer * (size_t)s->S + (size_t)slot) * s->n->cfg.n_head_kv) + (size_t)kv) *
         (size_t)s->ctx * s->n->cfg.head_dim;
}

static double uniform(uint64_t seed, uint32_t doc, uint32_t pos, uint32_t what) {
  struct foray_philox r = foray_philox4x32(seed, doc, pos, what, 1);
  return ((double)r.v[0] + 0.5) / 4294967296.0;
}

/* The user turn's head as ids, open at its end; and, once, what closes it and opens the answer. */
static enum foray_status user_head(struct gen *s, const char *hint, struct foray_ids *out,
                                   struct foray_ids *tail, struct foray_err *err) {
  struct foray_chat_message msg = {"user", hint};
  enum foray_status st = foray_chat_encode(&s->chat, s->tok, &msg, 1, tail != NULL, out, err);
  if (st) return st;
  size_t at = out->n;
  while (at > 0 && !foray_tokenizer_is_eog(s->tok, out->ids[at - 1])) at--;
  if (at == 0)
    return foray_err_set(err, FORAY_E_UNSUPPORTED,
                         "the chat template has no end-of-turn token: no text can be made");
  for (size_t i = at - 1; tail && i < out->n; i++)
    if ((st = foray_ids_add(tail, out->ids[i]))) return st;
  out->n = at - 1;
  return FORAY_OK;
}

static enum foray_status slot_start(struct gen *s, int i, struct foray_err *err) {
  struct slot *t = &s->slot[i];
  struct foray_ids ids = {0};
  char hint[512];
  static const int turn[] = {24, 48, 96, 180};
  *t = (struct slot){.index = s->next_doc++, .temp = 1.0f};
  int category = foray_hint_make(s->o->seed, t->index, hint, sizeof hint);
  enum foray_status st = user_head(s, hint, &ids, NULL, err);
  if (!st && (int)ids.n + s->n_tail + 64 > s->ctx)
    st = foray_err_set(err, FORAY_E_ARG, "context of %d is too small", s->ctx);
  if (!st) {
    t->d.category = category;
    t->d.ids = malloc((size_t)s->ctx * 4);
    t->d.top = malloc((size_t)s->ctx * TOP * 4);
    t->d.logp = malloc((size_t)s->ctx * TOP * 4);
    if (!t->d.ids || !t->d.top || !t->d.logp) st = nomem(err);
  }
  if (!st) {
    memcpy(t->d.ids, ids.ids, ids.n * 4);
    t->d.n = t->d.first = (int)ids.n;
    t->limit = t->d.n + turn[(int)(4 * uniform(s->o->seed, t->index, 0, 2))];
    if (t->limit > s->ctx - s->n_tail - 32) t->limit = s->ctx - s->n_tail - 32;
    /* The shared prefix was computed once; its keys and values are in slot S - 1 + 1 = the spare one. */
    t->pos = s->prefix;
    size_t bytes = (size_t)s->prefix * s->n->cfg.head_dim * sizeof(float);
    for (int l = 0; s->prefix && l < s->n->n_layer; l++)
      for (int kv = 0; kv < (int)s->n->cfg.n_head_kv; kv++) {
        if (i == s->S - 1) break;
        memcpy(s->kc + kv_at(s, l, i, kv), s->kc + kv_at(s, l, s->S - 1, kv), bytes);
        memcpy(s->vc + kv_at(s, l, i, kv), s->vc + kv_at(s, l, s->S - 1, kv), bytes);
      }
  }
  foray_ids_deinit(&ids);
  return st;
}

static void attend_part(void *arg, int part, int thread) {
  struct gen *s = arg;
  const struct foray_net *n = s->n;
  int kvs = (int)n->cfg.n_head_kv, hd = (int)n->cfg.head_dim, group = (int)n->cfg.n_head / kvs;
  int i = part / kvs, kv = part % kvs, T = s->slot[i].pos + 1;
  float p[32 * 1024];
  (void)thread;
  const float *kc = s->kc + kv_at(s, s->layer, i, kv), *vc = s->vc + kv_at(s, s->layer, i, kv);
  size_t qo = (size_t)i * (size_t)n->Q + (size_t)(kv * group * hd);
  foray_mm_small(true, group, T, hd, n->cfg.attn_scale, s->q + qo, (size_t)hd, kc, (size_t)hd, p, (size_t)T,
                 false);
  for (int h = 0; h < group; h++) {
    float *r = p + (size_t)h * (size_t)T, inv = 1.0f / foray_ew_exp_sum(r, T, foray_ew_max(r, T));
    for (int c = 0; c < T; c++) r[c] *= inv;
  }
  foray_mm_small(false, group, hd, T, 1, p, (size_t)T, vc, (size_t)hd, s->att + qo, (size_t)hd, false);
}

/* The TOP most likely of one row, with log-probabilities. Destroys the row. */
static void top_part(void *arg, int part, int thread) {
  struct gen *s = arg;
  int V = (int)s->n->cfg.n_vocab, n = 0;
  float *row = s->logits + (size_t)part * (size_t)V, val[TOP] = {0};
  int32_t *id = s->top + (size_t)part * TOP;
  (void)thread;
  for (int i = 0; i < V; i++) {
    if (n == TOP && row[i] <= val[TOP - 1]) continue;
    int at = n < TOP ? n++ : TOP - 1;
    for (; at > 0 && val[at - 1] < row[i]; at--) val[at] = val[at - 1], id[at] = id[at - 1];
    val[at] = row[i];
    id[at] = i;
  }
  float lse = val[0] + logf(foray_ew_exp_sum(row, V, val[0]));
  for (int k = 0; k < TOP; k++) s->logp[(size_t)part * TOP + (size_t)k] = fminf(val[k] - lse, 0);
}

/* One step of the first m slots: feeds token ids[pos] of each; fills top and logp when asked. */
static enum foray_status step(struct gen *s, int m, bool head, struct foray_err *err) {
  struct foray_net *n = s->n;
  struct foray_pool *pool = foray_mm_pool(s->g);
  int hd = (int)n->cfg.head_dim, dim = (int)n->cfg.rope_dim, neox = n->cfg.rope_style == FORAY_ROPE_NEOX;
  enum foray_status st = FORAY_OK;
  size_t mD = (size_t)m * (size_t)n->D;
  for (int i = 0; i < m; i++)
    foray_net_embed(n, s->slot[i].d.ids[s->slot[i].pos], s->x + (size_t)i * (size_t)n->D);
  for (int l = 0; !st && l < n->n_layer; l++) {
    struct foray_net_layer *y = &n->layer[l];
    foray_ew_rmsnorm(pool, m, n->D, n->cfg.rms_eps, s->x, y->norm1, s->nx);
    if ((st = foray_lin_forward(s->g, &y->lin[FORAY_LIN_Q], m, s->nx, s->q, err))) break;
    if ((st = foray_lin_forward(s->g, &y->lin[FORAY_LIN_K], m, s->nx, s->k, err))) break;
    if ((st = foray_lin_forward(s->g, &y->lin[FORAY_LIN_V], m, s->nx, s->v, err))) break;
    for (int i = 0; i < m; i++) {
      int pos = s->slot[i].pos;
      const float *tab = s->tab + (size_t)pos * (size_t)dim;
      float *k = s->k + (size_t)i * (size_t)n->K, *v = s->v + (size_t)i * (size_t)n->K;
      foray_ew_rope(s->q + (size_t)i * (size_t)n->Q, (int)n->cfg.n_head, hd, dim, neox, tab, 1);
      foray_ew_rope(k, (int)n->cfg.n_head_kv, hd, dim, neox, tab, 1);
      for (int kv = 0; kv < (int)n->cfg.n_head_kv; kv++) {
        size_t at = kv_at(s, l, i, kv) + (size_t)pos * (size_t)hd;
        memcpy(s->kc + at, k + (size_t)kv * (size_t)hd, (size_t)hd * sizeof(float));
        memcpy(s->vc + at, v + (size_t)kv * (size_t)hd, (size_t)hd * sizeof(float));
      }
    }
    s->layer = l;
    foray_pool_run(pool, attend_part, s, m * (int)n->cfg.n_head_kv);
    if ((st = foray_lin_forward(s->g, &y->lin[FORAY_LIN_O], m, s->att, s->nx, err))) break;
    foray_ew_add(pool, mD, s->x, s->nx);
    foray_ew_rmsnorm(pool, m, n->D, n->cfg.rms_eps, s->x, y->norm2, s->nx);
    if ((st = foray_lin_forward(s->g, &y->lin[FORAY_LIN_GATE], m, s->nx, s->gate, err))) break;
    if ((st = foray_lin_forward(s->g, &y->lin[FORAY_LIN_UP], m, s->nx, s->up, err))) break;
    foray_ew_silu_mul(pool, m, n->F, s->gate, s->up, s->h);
    if ((st = foray_lin_forward(s->g, &y->lin[FORAY_LIN_DOWN], m, s->h, s->nx, err))) break;
    foray_ew_add(pool, mD, s->x, s->nx);
  }
  if (st || !head) return st;
  foray_ew_rmsnorm(pool, m, n->D, n->cfg.rms_eps, s->x, n->out_norm, s->nx);
  st = foray_mm_run(s->g, m, s->nx, (size_t)n->D, &s->head, s->logits, n->cfg.n_vocab, false, err);
  if (!st) foray_pool_run(pool, top_part, s, m);
  return st;
}

static int32_t sample(const struct gen *s, const struct slot *t, const int32_t *id, const float *lp) {
  if (t->temp <= 0) return id[0];
  float best = -INFINITY;
  int at = 0;
  for (int k = 0; k < TOP; k++) {
    double u = uniform(s->o->seed, t->index, (uint32_t)t->pos, 16 + (uint32_t)k);
    float v = lp[k] / t->temp - (float)log(-log(u));
    if (v > best) best = v, at = k;
  }
  return id[at];
}

static enum foray_status keep(struct foray_corpus *c, struct foray_doc *d, struct foray_err *err) {
  if (c->n == c->cap) {
    int cap = c->cap ? 2 * c->cap : 256;
    struct foray_doc *p = realloc(c->doc, (size_t)cap * sizeof *p);
    if (!p) return nomem(err);
    c->doc = p;
    c->cap = cap;
  }
  c->scored += (uint64_t)(d->n - d->first);
  c->doc[c->n++] = *d;
  *d = (struct foray_doc){0};
  return FORAY_OK;
}

/* After a step: writes the next token of slot i; the document goes to the corpus when it is complete. */
static enum foray_status advance(struct gen *s, int i, struct foray_corpus *c, struct foray_err *err) {
  struct slot *t = &s->slot[i];
  const int32_t *id = s->top + (size_t)i * TOP;
  const float *lp = s->logp + (size_t)i * TOP;
  if (t->pos + 1 >= t->d.first) {
    size_t at = (size_t)(t->pos + 1 - t->d.first) * TOP;
    memcpy(t->d.top + at, id, TOP * 4);
    memcpy(t->d.logp + at, lp, TOP * 4);
  }
  t->pos++;
  if (t->pos < t->d.n) return FORAY_OK;
  int32_t y = sample(s, t, id, lp);
  bool end = foray_tokenizer_is_eog(s->tok, y);
  if (!t->answering) {
    if (!end) t->d.ids[t->d.n++] = y;
    if (!end && t->d.n < t->limit) return FORAY_OK;
    memcpy(t->d.ids + t->d.n, s->tail, (size_t)s->n_tail * 4);
    t->d.n += s->n_tail;
    t->d.answer = t->d.n;
    t->answering = true;
    double u = uniform(s->o->seed, t->index, 1, 2);
    t->temp = u < 0.6 ? 0.0f : u < 0.85 ? 0.7f : 1.0f;
    t->limit = t->d.n + 64 + (int)(200 * uniform(s->o->seed, t->index, 2, 2));
    return FORAY_OK;
  }
  t->d.ids[t->d.n++] = y;
  if (!end && t->d.n < t->limit && t->d.n < s->ctx) return FORAY_OK;
  /* the last token is never fed, so its own candidates are already stored */
  enum foray_status st = keep(c, &t->d, err);
  return st ? st : slot_start(s, i, err);
}

static enum foray_status head_open(struct gen *s, struct foray_err *err) {
  const struct foray_gguf_tensor *t = foray_model_head(s->n->model);
  size_t V = s->n->cfg.n_vocab, D = (size_t)s->n->D;
  s->head_dense = malloc(V * D * sizeof(float));
  if (!s->head_dense) return nomem(err);
  for (size_t r = 0; r < V; r++)
    if (foray_dequant_row(t->type, foray_tensor_row(t, r), s->head_dense + r * D, D)) return nomem(err);
  enum foray_status st = foray_mm_pack(s->g, s->head_dense, (int)D, (int)V, D, true, true, &s->head, err);
  if (s->head.tiles) {
    free(s->head_dense);
    s->head_dense = NULL;
  }
  return st;
}

static enum foray_status open_all(struct gen *s, const struct foray_model *m, struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  if (m->config.arch == FORAY_ARCH_GEMMA3)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "text is written by llama and qwen2 models, not by '%s'",
                         foray_arch_name(m->config.arch));
  st = foray_net_open(m, s->g, INT_MAX, &s->n, err);
  if (!st) st = head_open(s, err);
  if (st) return st;
  const struct foray_net *n = s->n;
  size_t S = (size_t)s->S, kv = (size_t)n->n_layer * S * (size_t)n->K * (size_t)s->ctx;
  if ((n->cfg.n_head / n->cfg.n_head_kv) * (uint32_t)s->ctx > 32 * 1024)
    return foray_err_set(err, FORAY_E_ARG, "context of %d is too long for text generation", s->ctx);
#define FLOATS(p, count) s->p = calloc((count), sizeof(float))
  FLOATS(kc, kv), FLOATS(vc, kv), FLOATS(x, S * (size_t)n->D), FLOATS(nx, S * (size_t)n->D),
      FLOATS(q, S * (size_t)n->Q);
  FLOATS(k, S * (size_t)n->K), FLOATS(v, S * (size_t)n->K), FLOATS(att, S * (size_t)n->Q),
      FLOATS(gate, S * (size_t)n->F);
  FLOATS(up, S * (size_t)n->F), FLOATS(h, S * (size_t)n->F), FLOATS(logits, S * n->cfg.n_vocab);
  FLOATS(tab, (size_t)s->ctx * n->cfg.rope_dim), FLOATS(logp, S * TOP);
#undef FLOATS
  s->top = calloc(S * TOP, 4);
  s->slot = calloc(S, sizeof *s->slot);
  if (!s->kc || !s->vc || !s->x || !s->nx || !s->q || !s->k || !s->v || !s->att || !s->gate || !s->up ||
      !s->h || !s->logits || !s->tab || !s->logp || !s->top || !s->slot)
    return nomem(err);
  foray_net_rope_tables(n, false, s->ctx, s->tab);
  return FORAY_OK;
}

static enum foray_status template_parts(struct gen *s, struct foray_err *err) {
  struct foray_ids a = {0}, b = {0}, tail = {0};
  enum foray_status st = user_head(s, "Alpha", &a, &tail, err);
  if (!st) st = user_head(s, "9", &b, NULL, err);
  if (!st) {
    while (s->prefix < (int)a.n && s->prefix < (int)b.n && a.ids[s->prefix] == b.ids[s->prefix]) s->prefix++;
    if (s->prefix) s->prefix--; /* never the token before the hint: it may merge */
    s->tail = tail.ids;
    s->n_tail = (int)tail.n;
    tail.ids = NULL;
  }
  foray_ids_deinit(&a);
  foray_ids_deinit(&b);
  foray_ids_deinit(&tail);
  return st;
}

static void close_all(struct gen *s) {
  for (int i = 0; s->slot && i < s->S; i++)
    free(s->slot[i].d.ids), free(s->slot[i].d.top), free(s->slot[i].d.logp);
  foray_mm_b_free(&s->head);
  free(s->head_dense);
  free(s->kc), free(s->vc), free(s->x), free(s->nx), free(s->q), free(s->k), free(s->v), free(s->att),
      free(s->gate);
  free(s->up), free(s->h), free(s->logits), free(s->tab), free(s->logp), free(s->top), free(s->slot),
      free(s->tail);
  foray_net_close(s->n);
}

enum foray_status foray_corpus_generate(struct foray_corpus *c, const struct foray_model *m,
                                        struct foray_mm *g, const struct foray_corpus_opts *o,
                                        struct foray_err *err) {
  /* one more slot than conversations: it keeps the keys and values of the shared prefix */
  struct gen s = {.g = g,
                  .o = o,
                  .tok = m->tokenizer,
                  .S = o->slots + 1,
                  .ctx = o->ctx,
                  .next_doc = c->n ? (uint32_t)(c->n + o->slots) : 0};
  enum foray_status st = foray_chat_open(m->gguf, NULL, &s.chat, err);
  if (!st) st = open_all(&s, m, err);
  if (!st) st = template_parts(&s, err);
  c->n_vocab = m->config.n_vocab;
  if (!st && s.prefix) { /* compute the prefix in slot 0, then copy it to the spare slot */
    int prefix = s.prefix;
    s.prefix = 0;
    st = slot_start(&s, 0, err);
    s.next_doc--;
    for (int i = 0; !st && i < prefix; i++, s.slot[0].pos++) st = step(&s, 1, false, err);
    for (int l = 0; !st && l < s.n->n_layer; l++)
      for (int kv = 0; kv < (int)s.n->cfg.n_head_kv; kv++) {
        size_t bytes = (size_t)prefix * s.n->cfg.head_dim * sizeof(float);
        memcpy(s.kc + kv_at(&s, l, s.S - 1, kv), s.kc + kv_at(&s, l, 0, kv), bytes);
        memcpy(s.vc + kv_at(&s, l, s.S - 1, kv), s.vc + kv_at(&s, l, 0, kv), bytes);
      }
    s.prefix = prefix;
    if (s.slot) free(s.slot[0].d.ids), free(s.slot[0].d.top), free(s.slot[0].d.logp);
  }
  for (int i = 0; !st && i < o->slots; i++) st = slot_start(&s, i, err);
  double t0 = foray_clock_s(), last = t0;
  uint64_t before = c->scored, steps = 0;
  while (!st && c->scored < o->tokens && !(o->stop && *o->stop) &&
         !(o->seconds > 0 && foray_clock_s() - t0 > o->seconds)) {
    st = step(&s, o->slots, true, err);
    for (int i = 0; !st && i < o->slots; i++) st = advance(&s, i, c, err);
    steps++;
    double now = foray_clock_s();
    if (!st && now - last > 60) {
      last = now;
      if (o->progress) o->progress(o->arg, c->scored, (double)(steps * (uint64_t)o->slots) / (now - t0));
      if (o->save && c->scored > before) st = foray_corpus_save(c, o->save, err);
    }
  }
  if (!st && o->save) st = foray_corpus_save(c, o->save, err);
  close_all(&s);
  return st;
}
