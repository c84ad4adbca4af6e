#include "cotune/dpm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/err.h"
#include "cotune/fed.h"
#include "model/gguf_write.h"

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "proxy: out of memory");
}

void foray_dpm_layers(int n, int m, int *out) {
  if (m < 4) {
    for (int i = 0; i < m; i++) out[i] = m == 1 ? 0 : (int)lround((double)i * (n - 1) / (m - 1));
    return;
  }
  int mid = m - 4, room = n - 4;
  out[0] = 0, out[1] = 1, out[m - 2] = n - 2, out[m - 1] = n - 1;
  for (int i = 0; i < mid; i++) /* the middles of equal parts of what lies between */
    out[2 + i] = 2 + (int)(((double)i + 0.5) * room / mid);
}

/* ---- file ---- */
static bool renamed(const char *name, const struct foray_net *n, char *out, size_t cap) {
  char *end;
  if (strncmp(name, "blk.", 4)) return snprintf(out, cap, "%s", name) > 0;
  long block = strtol(name + 4, &end, 10);
  for (int i = 0; i < n->n_layer; i++)
    if (n->layer[i].source == block) return snprintf(out, cap, "blk.%d%s", i, end) > 0;
  return false;
}

/* Matrix with its LoRA added, n_out x n_in; owned. */
static float *merged(const struct foray_lin *l, const struct foray_gguf_tensor *t) {
  size_t rows = (size_t)l->n_out, cols = (size_t)l->n_in;
  float *w = malloc(rows * cols * sizeof(float));
  for (size_t r = 0; w && r < rows; r++) {
    float *row = w + r * cols;
    if (foray_dequant_row(t->type, foray_tensor_row(t, r), row, cols)) memset(row, 0, cols * sizeof(float));
    for (int k = 0; k < l->rank; k++) {
      float s = l->scale * l->b.w[(size_t)k * rows + r];
      const float *a = l->a.w + (size_t)k * cols;
      for (size_t c = 0; c < cols; c++) row[c] += s * a[c];
    }
  }
  return w;
}

static const char *const LIN_NAME[FORAY_LIN_N] = {"attn_q.weight",      "attn_k.weight",   "attn_v.weight",
                                                  "attn_output.weight", "ffn_gate.weight", "ffn_up.weight",
                                                  "ffn_down.weight"};
static const struct foray_lin *lin_of(const struct foray_net *n, const char *name) {
  char *end;
  if (strncmp(name, "blk.", 4)) return NULL;
  long i = strtol(name + 4, &end, 10);
  for (int j = 0; i >= 0 && i < n->n_layer && j < FORAY_LIN_N; j++)
    if (*end == '.' && !strcmp(end + 1, LIN_NAME[j]) && n->layer[i].lin[j].rank) return &n->layer[i].lin[j];
  return NULL;
}

static enum foray_status put_tensor(struct foray_gguf_writer *w, const struct foray_net *n,
                                    const struct foray_gguf_tensor *t, const char *name, void **owned,
                                    struct foray_err *err) {
  const struct foray_lin *l = lin_of(n, name);
  uint32_t dims = t->ne[3] > 1 ? 4 : t->ne[2] > 1 ? 3 : t->ne[1] > 1 ? 2 : 1;
  if (!l) {
    foray_gguf_writer_tensor(w, name, t->type, dims, t->ne, t->data);
    return FORAY_OK;
  }
  uint32_t type = t->ne[0] % 32 ? FORAY_GGML_F16 : FORAY_GGML_Q8_0;
  size_t bytes = foray_type_row_bytes(type, (size_t)t->ne[0]);
  float *f = merged(l, t);
  uint8_t *q = malloc(bytes * (size_t)t->ne[1]);
  enum foray_status st = f && q ? FORAY_OK : nomem(err);
  for (size_t r = 0; !st && r < t->ne[1]; r++)
    st = foray_quantise_row(type, f + r * (size_t)t->ne[0], q + r * bytes, (size_t)t->ne[0]);
  free(f);
  *owned = q;
  if (!st) foray_gguf_writer_tensor(w, name, type, 2, t->ne, q);
  return st;
}

enum foray_status foray_merge_write(const struct foray_net *n, const char *model_name, const char *path,
                                    struct foray_err *err) {
  const struct foray_gguf *g = n->model->gguf;
  size_t count = foray_gguf_n_tensors(g);
  void **owned = calloc(count + 1, sizeof *owned);
  struct foray_gguf_writer *w = foray_gguf_writer_open();
  char blocks[64];
  enum foray_status st = owned && w ? FORAY_OK : nomem(err);
  if (!st && n->cfg.arch == FORAY_ARCH_GEMMA3 && n->n_layer != (int)n->cfg.n_layer)
    st = foray_err_set(err, FORAY_E_UNSUPPORTED,
                       "a gemma3 model cannot be cut: its window pattern counts blocks");
  snprintf(blocks, sizeof blocks, "%s.block_count", foray_arch_name(n->cfg.arch));
  for (size_t i = 0; !st && i < foray_gguf_n_kv(g); i++) {
    const struct foray_gguf_kv *kv = foray_gguf_kv_at(g, i);
    if (kv->key.len == strlen(blocks) && !memcmp(kv->key.ptr, blocks, kv->key.len)) continue;
    if (kv->key.len == 12 && !memcmp(kv->key.ptr, "general.name", 12)) continue;
    foray_gguf_writer_copy_kv(w, kv);
  }
  if (!st) {
    foray_gguf_writer_u32(w, blocks, (uint32_t)n->n_layer);
    foray_gguf_writer_str(w, "general.name", model_name);
  }
  for (size_t i = 0; !st && i < count; i++) {
    const struct foray_gguf_tensor *t = foray_gguf_tensor_at(g, i);
    char name[96];
    if (renamed(t->name, n, name, sizeof name)) st = put_tensor(w, n, t, name, &owned[i], err);
  }
  if (!st) st = foray_gguf_writer_save(w, path, err);
  foray_gguf_writer_close(w);
  for (size_t i = 0; owned && i < count; i++) free(owned[i]);
  free(owned);
  return st;
}

/* ---- distillation ---- */
struct teach {
  struct foray_learner *whole, *cut;
  const struct foray_dpm_opts *o;
  struct foray_enc *enc;
  int *own, n_own, *held, n_held;
};

static enum foray_status batch_of(struct teach *t, const int *pick, int n, bool train,
                                  struct foray_lm_sums *sums, double *agree, struct foray_err *err) {
  const struct foray_enc *enc[1024];
  const struct foray_dpm_opts *o = t->o;
  struct foray_tops top = {0}, mine = {0};
  struct foray_loss_how how = {
      (float)(1 - o->mu), (float)o->mu, {FORAY_DIV_KL, 0.5f, (float)o->tau, true, true}};
  if (!train) how.ce = 0, how.div = 1;
  for (int i = 0; i < n; i++) enc[i] = &t->enc[pick[i]];
  enum foray_status st = foray_learner_load(t->whole, enc, n, false, err);
  if (!st) st = foray_tops_open(t->whole->labels, o->k, &top, err);
  if (!st) st = foray_learner_top(t->whole, o->k, (float)o->tau, top.v, err);
  if (!st) st = foray_learner_load(t->cut, enc, n, train, err);
  if (!st) st = foray_learner_loss(t->cut, &how, top.v, NULL, train, sums, NULL, err);
  if (!st && train) foray_learner_update(t->cut);
  if (!st && !train) {
    st = foray_tops_open(t->cut->labels, 1, &mine, err);
    if (!st) st = foray_learner_top(t->cut, 1, 1, mine.v, err);
    for (int i = 0; !st && i < mine.n; i++) *agree += mine.v[i].row[0] == top.v[i].row[0];
  }
  foray_tops_close(&top), foray_tops_close(&mine);
  return st;
}

static enum foray_status measure(struct teach *t, double *kl, double *agree, struct foray_err *err) {
  struct foray_lm_sums s = {0};
  enum foray_status st = FORAY_OK;
  *agree = 0;
  for (int i = 0; !st && i < t->n_held; i += t->o->batch)
    st = batch_of(t, t->held + i, t->n_held - i < t->o->batch ? t->n_held - i : t->o->batch, false, &s, agree,
                  err);
  *kl = s.div_weight > 0 ? s.div / s.div_weight : 0;
  if (s.div_weight > 0) *agree /= s.div_weight;
  return st;
}

static enum foray_status encode(struct teach *t, const char *const *text, int n, struct foray_err *err) {
  t->enc = calloc((size_t)n + 1, sizeof *t->enc);
  t->own = malloc(((size_t)n + 1) * sizeof *t->own);
  t->held = malloc(((size_t)n + 1) * sizeof *t->held);
  if (!t->enc || !t->own || !t->held) return nomem(err);
  for (int i = 0; i < n; i++) {
    enum foray_status st = foray_enc_text(&t->whole->style, text[i], t->o->max_tokens, &t->enc[i], err);
    if (st == FORAY_E_LIMIT) continue; /* too long */
    if (st) return st;
    if (i % 8 == 7)
      t->held[t->n_held++] = i;
    else
      t->own[t->n_own++] = i;
  }
  return t->n_own && t->n_held
             ? FORAY_OK
             : foray_err_set(err, FORAY_E_ARG, "%d texts of at most %d tokens: too few to distil from",
                             t->n_own + t->n_held, t->o->max_tokens);
}

enum foray_status foray_dpm_make(struct foray_learner *whole, const char *const *text, int n,
                                 const struct foray_dpm_opts *o, const char *path,
                                 struct foray_dpm_report *report, struct foray_err *err) {
  int layers[FORAY_LAYERS_MAX], pick[1024];
  struct teach t = {.whole = whole, .o = o};
  struct foray_share share;
  struct foray_cursor cur = {0};
  struct foray_lm_sums sums = {0};
  char name[160];
  struct stat info;
  *report = (struct foray_dpm_report){.layers = o->layers};
  if (o->layers < 1 || o->layers > whole->net->n_layer)
    return foray_err_set(err, FORAY_E_ARG, "a proxy of %d blocks, from a model of %d", o->layers,
                         whole->net->n_layer);
  foray_dpm_layers(whole->net->n_layer, o->layers, layers);
  struct foray_learner_opts lo = {.rank = o->rank,
                                  .rows = o->batch * o->max_tokens,
                                  .checkpoint = o->checkpoint,
                                  .plain = true,
                                  .layers = layers,
                                  .n_layers = o->layers,
                                  .seed = o->seed};
  enum foray_status st = foray_learner_open(whole->model, whole->net->gemm, &lo, &t.cut, err);
  if (!st) st = encode(&t, text, n, err);
  if (!st) st = measure(&t, &report->kl_before, &report->agree_before, err);
  share = (struct foray_share){t.own, t.n_own};
  if (!st)
    t.cut->optim.lr = o->lr, t.cut->optim.schedule = FORAY_LR_COSINE, t.cut->optim.steps = o->steps,
    t.cut->optim.floor = 0.1;
  for (int s = 0; !st && s < o->steps; s++) {
    double none = 0;
    if (o->stop && *o->stop) st = foray_err_set(err, FORAY_E_CANCELLED, "stopped while distilling the proxy");
    if (st) break;
    foray_fed_next(&share, &cur, o->seed, 7, o->batch, pick);
    sums = (struct foray_lm_sums){0};
    st = batch_of(&t, pick, o->batch, true, &sums, &none, err);
    if (!st && o->log && (s % 10 == 9 || s + 1 == o->steps))
      fprintf(o->log, "proxy: step %d of %d, loss %.4f\n", s + 1, o->steps,
              (sums.ce + sums.div) / (sums.ce_n ? (double)sums.ce_n : 1)),
          fflush(o->log);
  }
  if (!st) st = measure(&t, &report->kl_after, &report->agree_after, err);
  snprintf(name, sizeof name, "%s-proxy%d", whole->model->name, o->layers);
  if (!st) st = foray_merge_write(t.cut->net, name, path, err);
  if (!st && stat(path, &info) == 0) report->bytes = (uint64_t)info.st_size;
  for (int i = 0; t.enc && i < n; i++) foray_enc_deinit(&t.enc[i]);
  free(t.enc), free(t.own), free(t.held);
  foray_learner_close(t.cut);
  return st;
}
