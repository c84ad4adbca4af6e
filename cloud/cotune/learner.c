#include "cotune/learner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "learner: out of memory");
}

enum foray_status foray_tops_open(int n, int k, struct foray_tops *out, struct foray_err *err) {
  size_t N = (size_t)(n ? n : 1), K = (size_t)k;
  *out = (struct foray_tops){.n = n, .k = k};
  out->v = calloc(N, sizeof *out->v);
  out->row = malloc(N * K * sizeof *out->row);
  out->p = malloc(N * K * sizeof *out->p);
  if (!out->v || !out->row || !out->p) {
    foray_tops_close(out);
    return nomem(err);
  }
  for (size_t i = 0; i < N; i++) out->v[i] = (struct foray_sparse){0, out->row + i * K, out->p + i * K};
  return FORAY_OK;
}
void foray_tops_close(struct foray_tops *t) {
  free(t->v), free(t->row), free(t->p);
  *t = (struct foray_tops){0};
}

enum foray_status foray_learner_open(const struct foray_model *m, struct foray_mm *gemm,
                                     const struct foray_learner_opts *o, struct foray_learner **out,
                                     struct foray_err *err) {
  struct foray_learner *l = calloc(1, sizeof *l);
  struct foray_net_opts no = {.layers = o->layers, .n_layers = o->n_layers};
  int rank = o->rank + o->private_rank;
  float scale = o->alpha_over_rank > 0 ? o->alpha_over_rank : 2;
  if (!l) return nomem(err);
  l->model = m, l->rows = o->rows, l->rank = o->rank, l->private_rank = o->private_rank;
  enum foray_status st = foray_style_open(m, o->plain, &l->style, err);
  if (!st) st = foray_net_open_with(m, gemm, &no, &l->net, err);
  if (!st) st = foray_net_full_head(l->net, true, err);
  if (!st)
    st = foray_net_add_lora_on(l->net, 0, rank, scale * (float)rank, o->targets ? o->targets : FORAY_LIN_ALL,
                               o->drop, o->seed, err);
  if (!st) st = foray_acts_open_with(l->net, o->rows, o->checkpoint, &l->acts, err);
  if (!st) st = foray_lm_open(l->net, o->rows, &l->lm, err);
  if (!st) {
    size_t R = (size_t)o->rows;
    l->optim = foray_optim_default(1e-3);
    l->d = calloc((size_t)l->net->n_layer + 1, sizeof *l->d);
    l->tok = malloc(R * sizeof *l->tok);
    l->seg = malloc(R * sizeof *l->seg);
    l->enc = malloc(R * sizeof *l->enc);
    l->goal = malloc(R * sizeof *l->goal);
    if (!l->d || !l->tok || !l->seg || !l->enc || !l->goal ||
        !(l->d[l->net->n_layer] = malloc(R * (size_t)l->net->D * sizeof(float))))
      st = nomem(err);
  }
  if (st) {
    foray_learner_close(l);
    return st;
  }
  *out = l;
  return FORAY_OK;
}

void foray_learner_close(struct foray_learner *l) {
  if (!l) return;
  if (l->d) free(l->d[l->net->n_layer]);
  free(l->d), free(l->tok), free(l->seg), free(l->enc), free(l->goal);
  foray_lm_close(l->lm);
  foray_acts_close(l->acts);
  foray_net_close(l->net);
  free(l);
}

int foray_learner_fit(const struct foray_learner *l, const struct foray_enc *const *enc, int n) {
  int rows = 0, k = 0;
  while (k < n && rows + enc[k]->n <= l->rows) rows += enc[k++]->n;
  return k;
}

enum foray_status foray_learner_load(struct foray_learner *l, const struct foray_enc *const *enc, int n,
                                     bool training, struct foray_err *err) {
  l->m = l->labels = 0;
  l->n_seg = n;
  if (!n || foray_learner_fit(l, enc, n) < n)
    return foray_err_set(err, FORAY_E_ARG, "%d examples do not fit into a batch of %d tokens", n, l->rows);
  for (int i = 0; i < n; i++) {
    l->enc[i] = enc[i];
    l->seg[i] = (struct foray_segment){l->m, enc[i]->n};
    memcpy(l->tok + l->m, enc[i]->ids, (size_t)enc[i]->n * sizeof *l->tok);
    l->m += enc[i]->n;
    l->labels += enc[i]->cut.n;
  }
  foray_net_set_pass(l->net, training ? l->pass++ : -1);
  return foray_net_forward(l->net, l->acts, l->m, l->tok, l->seg, n, err);
}

enum foray_status foray_learner_top(struct foray_learner *l, int k, float tau, struct foray_sparse *tops,
                                    struct foray_err *err) {
  int *rows = malloc((size_t)(l->labels ? l->labels : 1) * sizeof *rows), at = 0;
  if (!rows) return nomem(err);
  for (int s = 0; s < l->n_seg; s++)
    for (int j = 0; j < l->enc[s]->cut.n; j++) rows[at++] = l->seg[s].start + l->enc[s]->answer + j - 1;
  enum foray_status st = foray_lm_top(l->lm, l->acts, rows, at, k, tau, tops, err);
  free(rows);
  return st;
}

enum foray_status foray_learner_loss(struct foray_learner *l, const struct foray_loss_how *how,
                                     const struct foray_sparse *goals, const bool *gate, bool train,
                                     struct foray_lm_sums *sums, double *ce, struct foray_err *err) {
  int at = 0;
  float *each = NULL, *d_state = l->d[l->net->n_layer];
  struct foray_lm_sums mine = {0};
  for (int s = 0; s < l->n_seg; s++)
    for (int j = 0; j < l->enc[s]->cut.n; j++, at++) {
      bool div = goals && goals[at].n && how->div > 0 && (!gate || gate[s]);
      l->goal[at] = (struct foray_lm_goal){.row = l->seg[s].start + l->enc[s]->answer + j - 1,
                                           .next = l->enc[s]->cut.ids[j],
                                           .ce_weight = ce ? 1 : how->ce,
                                           .div_weight = div ? how->div : 0,
                                           .goal = div ? &goals[at] : NULL};
    }
  if (ce && !(each = malloc((size_t)(at ? at : 1) * sizeof *each))) return nomem(err);
  if (train) memset(d_state, 0, (size_t)l->m * (size_t)l->net->D * sizeof(float));
  enum foray_status st = foray_lm_loss(l->lm, l->acts, l->goal, at, &how->lm, at ? 1.0f / (float)at : 0,
                                       train ? d_state : NULL, &mine, each, err);
  if (!st && train) {
    st = foray_net_backward(l->net, l->acts, l->d, err);
    l->tokens += (uint64_t)l->m;
  }
  for (int s = 0, i = 0; !st && ce && s < l->n_seg; s++) {
    double sum = 0;
    for (int j = 0; j < l->enc[s]->cut.n; j++) sum += (double)each[i++];
    ce[s] = sum / l->enc[s]->cut.n;
  }
  free(each);
  sums->ce += mine.ce, sums->ce_weight += mine.ce_weight, sums->div += mine.div,
      sums->div_weight += mine.div_weight;
  sums->hits += mine.hits, sums->ce_n += mine.ce_n;
  return st;
}

double foray_learner_update(struct foray_learner *l) { return foray_optim_step(&l->optim, l->net, 1); }

enum foray_status foray_learner_perplexity(struct foray_learner *l, const struct foray_enc *const *enc, int n,
                                           double *perplexity, double *accuracy, struct foray_err *err) {
  struct foray_lm_sums sums = {0};
  struct foray_loss_how how = {.ce = 1, .lm = {FORAY_DIV_KL, 0, 1, true, false}};
  enum foray_status st = FORAY_OK;
  for (int at = 0; !st && at < n;) {
    int k = foray_learner_fit(l, enc + at, n - at);
    st = foray_learner_load(l, enc + at, k, false, err);
    if (!st) st = foray_learner_loss(l, &how, NULL, NULL, false, &sums, NULL, err);
    at += k;
  }
  *perplexity = sums.ce_weight > 0 ? exp(sums.ce / sums.ce_weight) : 0;
  if (accuracy) *accuracy = sums.ce_n ? sums.hits / (double)sums.ce_n : 0;
  return st;
}

static bool ends(const void *arg, int32_t id) {
  const struct foray_model *m = arg;
  return foray_tokenizer_is_eog(m->tokenizer, id);
}

enum foray_status foray_learner_answer(struct foray_learner *l, const struct foray_enc *const *enc, int n,
                                       int max_new, char **answers, struct foray_err *err) {
  const int32_t **prompt = malloc((size_t)(n ? n : 1) * sizeof *prompt);
  int *len = malloc((size_t)(n ? n : 1) * sizeof *len);
  struct foray_ids *out = calloc((size_t)(n ? n : 1), sizeof *out);
  struct foray_decode_opts o = {.max_new = max_new, .end = ends, .end_arg = l->model};
  enum foray_status st = prompt && len && out ? FORAY_OK : nomem(err);
  for (int i = 0; !st && i < n; i++) prompt[i] = enc[i]->ids, len[i] = enc[i]->answer;
  foray_net_set_pass(l->net, -1);
  if (!st) st = foray_decode(l->net, l->acts, l->lm, n, prompt, len, &o, out, err);
  for (int i = 0; i < n; i++) {
    struct foray_detok d = {.started = true};
    struct foray_buf b;
    foray_buf_init(&b, 1 << 22);
    for (size_t k = 0; !st && k < out[i].n; k++)
      st = foray_detok_feed(&d, l->model->tokenizer, out[i].ids[k], &b);
    if (!st) st = foray_detok_finish(&d, &b);
    answers[i] = strdup(b.data ? (const char *)b.data : "");
    if (!answers[i] && !st) st = nomem(err);
    foray_buf_deinit(&b);
    if (out) foray_ids_deinit(&out[i]);
  }
  free(prompt), free(len), free(out);
  return st;
}
