#include "train/net.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/philox.h"
#include "train/ewise.h"

static const enum foray_role ROLE[FORAY_LIN_N] = {
    FORAY_ROLE_ATTN_Q,   FORAY_ROLE_ATTN_K, FORAY_ROLE_ATTN_V,  FORAY_ROLE_ATTN_OUTPUT,
    FORAY_ROLE_FFN_GATE, FORAY_ROLE_FFN_UP, FORAY_ROLE_FFN_DOWN};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "training network: out of memory");
}

/* Standard normal from (seed, stream, i), Box-Muller on Philox words. */
static float gauss(uint64_t seed, uint32_t stream, uint32_t i) {
  struct foray_philox p = foray_philox4x32(seed, i, stream, 0x7261696e, 0);
  double u = ((double)p.v[0] + 0.5) / 4294967296.0, v = (double)p.v[1] / 4294967296.0;
  return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

static enum foray_status param_init(struct foray_param *p, const char *name, size_t n, float decay,
                                    struct foray_err *err) {
  snprintf(p->name, sizeof p->name, "%s", name);
  p->n = p->to = n;
  p->decay = decay;
  p->w = calloc(n, sizeof(float));
  p->g = calloc(n, sizeof(float));
  p->m = calloc(n, sizeof(float));
  p->v = calloc(n, sizeof(float));
  return p->w && p->g && p->m && p->v ? FORAY_OK : nomem(err);
}
/* A parameter over weights that the network already has (and goes on to own). */
static enum foray_status param_over(struct foray_param *p, const char *name, size_t n, float decay, float *w,
                                    struct foray_err *err) {
  snprintf(p->name, sizeof p->name, "%s", name);
  p->g = calloc(n, sizeof(float));
  p->m = calloc(n, sizeof(float));
  p->v = calloc(n, sizeof(float));
  if (!p->g || !p->m || !p->v) return nomem(err);
  p->n = p->to = n;
  p->decay = decay;
  p->w = w;
  return FORAY_OK;
}
static void param_drop(struct foray_param *p) {
  free(p->g);
  free(p->m);
  free(p->v);
}
static void param_free(struct foray_param *p) {
  free(p->w);
  free(p->g);
  free(p->m);
  free(p->v);
}

static enum foray_status lin_pack(struct foray_net *n, struct foray_lin *l, float *w, bool backward,
                                  struct foray_err *err) {
  bool keep = n->dense || foray_mm_kind_of(n->gemm) == FORAY_MM_F32;
  enum foray_status st;
  if (keep) l->dense = w;
  st = foray_mm_pack(n->gemm, w, l->n_in, l->n_out, (size_t)l->n_in, true, keep, &l->fwd, err);
  if (!st && backward)
    st = foray_mm_pack(n->gemm, w, l->n_out, l->n_in, (size_t)l->n_in, false, keep, &l->bwd, err);
  if (!keep) free(w);
  return st;
}

/* Owned floats of a whole tensor. */
static float *dequant(const struct foray_gguf_tensor *t) {
  size_t rows = (size_t)(t->ne[1] * t->ne[2] * t->ne[3]), cols = (size_t)t->ne[0];
  float *w = malloc(rows * cols * sizeof(float));
  for (size_t r = 0; w && r < rows; r++)
    if (foray_dequant_row(t->type, foray_tensor_row(t, r), w + r * cols, cols)) {
      free(w);
      return NULL;
    }
  return w;
}

static enum foray_status shape(struct foray_net *n, const int *layers, int n_layers, struct foray_err *err) {
  const struct foray_model_config *c = &n->cfg;
  if (c->logit_softcap > 0 || c->attn_softcap > 0)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "training with capped logits (softcap) is not supported");
  n->n_layer = layers ? n_layers : (int)c->n_layer;
  n->D = (int)c->n_embd;
  n->F = (int)c->n_ff;
  n->Q = (int)(c->n_head * c->head_dim);
  n->K = (int)(c->n_head_kv * c->head_dim);
  n->layer = calloc((size_t)n->n_layer, sizeof *n->layer);
  if (!n->layer) return nomem(err);
  for (int i = 0; i < n->n_layer; i++) {
    struct foray_net_layer *y = &n->layer[i];
    y->source = layers ? layers[i] : i;
    if (y->source < 0 || y->source >= (int)c->n_layer || (i && y->source <= n->layer[i - 1].source))
      return foray_err_set(err, FORAY_E_ARG, "blocks to keep must rise and lie in 0..%u (got %d)",
                           c->n_layer - 1, y->source);
    y->local = foray_config_layer_local(c, (uint32_t)y->source);
    for (int j = 0; j < FORAY_LIN_N; j++) {
      struct foray_lin *l = &y->lin[j];
      l->n_in = j == FORAY_LIN_O ? n->Q : j == FORAY_LIN_DOWN ? n->F : n->D;
      l->n_out = j == FORAY_LIN_Q                           ? n->Q
                 : j == FORAY_LIN_K || j == FORAY_LIN_V     ? n->K
                 : j == FORAY_LIN_GATE || j == FORAY_LIN_UP ? n->F
                                                            : n->D;
    }
  }
  return FORAY_OK;
}

/* Vector of a block: where it is kept, its role, and whether this architecture has it. */
static float **norm_slot(struct foray_net_layer *y, int which) {
  float **const slot[FORAY_NORM_N] = {&y->norm1, &y->norm2, &y->post1, &y->post2, &y->qn, &y->kn};
  return slot[which];
}
static const enum foray_role NORM_ROLE[FORAY_NORM_N] = {FORAY_ROLE_ATTN_NORM,      FORAY_ROLE_FFN_NORM,
                                                        FORAY_ROLE_ATTN_POST_NORM, FORAY_ROLE_FFN_POST_NORM,
                                                        FORAY_ROLE_ATTN_Q_NORM,    FORAY_ROLE_ATTN_K_NORM};
static const enum foray_role BIAS_ROLE[3] = {FORAY_ROLE_ATTN_Q_BIAS, FORAY_ROLE_ATTN_K_BIAS,
                                             FORAY_ROLE_ATTN_V_BIAS};
static bool has_norm(const struct foray_net *n, int which) {
  return which <= FORAY_NORM_2 || (which <= FORAY_NORM_POST2 ? n->cfg.post_norms : n->cfg.qk_norm);
}
static size_t norm_size(const struct foray_net *n, int which) {
  return which >= FORAY_NORM_Q ? n->cfg.head_dim : (size_t)n->D;
}

static enum foray_status load_layer(struct foray_net *n, struct foray_net_layer *y, bool backward,
                                    struct foray_err *err) {
  uint32_t il = (uint32_t)y->source;
  for (int k = 0; k < FORAY_NORM_N; k++)
    if (has_norm(n, k) && !(*norm_slot(y, k) = dequant(foray_model_tensor(n->model, NORM_ROLE[k], il))))
      return nomem(err);
  for (int j = 0; j < FORAY_LIN_N; j++) {
    float *w = dequant(foray_model_tensor(n->model, ROLE[j], il));
    enum foray_status st = w ? lin_pack(n, &y->lin[j], w, backward, err) : nomem(err);
    if (st) return st;
    if (j <= FORAY_LIN_V && n->cfg.qkv_bias &&
        !(y->lin[j].bias = dequant(foray_model_tensor(n->model, BIAS_ROLE[j], il))))
      return nomem(err);
  }
  return FORAY_OK;
}

enum foray_status foray_net_open_with(const struct foray_model *model, struct foray_mm *gemm,
                                      const struct foray_net_opts *o, struct foray_net **out,
                                      struct foray_err *err) {
  struct foray_net *n = calloc(1, sizeof *n);
  if (!n) return nomem(err);
  n->cfg = model->config;
  n->model = model;
  n->gemm = gemm;
  n->dense = o->dense;
  enum foray_status st = shape(n, o->layers, o->n_layers, err);
  for (int i = 0; !st && i < n->n_layer; i++) st = load_layer(n, &n->layer[i], i >= o->backward_from, err);
  const struct foray_gguf_tensor *factors = foray_model_tensor(model, FORAY_ROLE_ROPE_FREQS, 0);
  if (!st && factors && !(n->rope_factor = dequant(factors))) st = nomem(err);
  if (!st && !(n->out_norm = dequant(foray_model_tensor(model, FORAY_ROLE_OUTPUT_NORM, 0)))) st = nomem(err);
  if (!st && o->dense && !(n->embd = dequant(foray_model_tensor(model, FORAY_ROLE_TOKEN_EMBD, 0))))
    st = nomem(err);
  if (st) {
    foray_net_close(n);
    return st;
  }
  *out = n;
  return FORAY_OK;
}

enum foray_status foray_net_open(const struct foray_model *model, struct foray_mm *gemm, int backward_from,
                                 struct foray_net **out, struct foray_err *err) {
  struct foray_net_opts o = {.backward_from = backward_from};
  return foray_net_open_with(model, gemm, &o, out, err);
}

static float *random_matrix(size_t count, float sd, float mean, uint64_t seed, uint32_t stream) {
  float *w = malloc(count * sizeof(float));
  for (size_t i = 0; w && i < count; i++) w[i] = mean + sd * gauss(seed, stream, (uint32_t)i);
  return w;
}

enum foray_status foray_net_open_random(const struct foray_model_config *cfg, struct foray_mm *gemm,
                                        uint64_t seed, struct foray_net **out, struct foray_err *err) {
  struct foray_net *n = calloc(1, sizeof *n);
  if (!n) return nomem(err);
  n->cfg = *cfg;
  n->gemm = gemm;
  n->dense = true;
  enum foray_status st = shape(n, NULL, 0, err);
  uint32_t stream = 1;
  for (int i = 0; !st && i < n->n_layer; i++) {
    struct foray_net_layer *y = &n->layer[i];
    for (int k = 0; !st && k < FORAY_NORM_N; k++)
      if (has_norm(n, k) && !(*norm_slot(y, k) = random_matrix(norm_size(n, k), 0.2f, 1, seed, stream++)))
        st = nomem(err);
    for (int j = 0; !st && j < FORAY_LIN_N; j++) {
      struct foray_lin *l = &y->lin[j];
      float *w =
          random_matrix((size_t)l->n_in * (size_t)l->n_out, 1.0f / sqrtf((float)l->n_in), 0, seed, stream++);
      st = w ? lin_pack(n, l, w, true, err) : nomem(err);
      if (!st && j <= FORAY_LIN_V && cfg->qkv_bias)
        l->bias = random_matrix((size_t)l->n_out, 0.3f, 0, seed, stream++);
    }
  }
  if (!st) {
    n->out_norm = random_matrix((size_t)n->D, 0.2f, 1, seed, stream++);
    n->embd = random_matrix((size_t)n->D * cfg->n_vocab, 1, 0, seed, stream++);
    if (!n->out_norm || !n->embd) st = nomem(err);
  }
  if (st) {
    foray_net_close(n);
    return st;
  }
  *out = n;
  return FORAY_OK;
}

void foray_net_close(struct foray_net *n) {
  if (!n) return;
  for (int i = 0; n->layer && i < n->n_layer; i++) {
    struct foray_net_layer *y = &n->layer[i];
    for (int j = 0; j < FORAY_LIN_N; j++) {
      struct foray_lin *l = &y->lin[j];
      foray_mm_b_free(&l->fwd);
      foray_mm_b_free(&l->bwd);
      free(l->dense);
      free(l->bias);
      param_free(&l->a);
      param_free(&l->b);
      param_drop(&l->w);
      param_drop(&l->bias_p);
    }
    for (int k = 0; k < FORAY_NORM_N; k++) {
      free(*norm_slot(y, k));
      param_drop(&y->norm_p[k]);
    }
  }
  for (int e = 0; e < n->n_exits; e++) {
    foray_mm_b_free(&n->exit_fwd[e]);
    foray_mm_b_free(&n->exit_bwd[e]);
    param_free(&n->exit[e].norm);
    param_free(&n->exit[e].map);
    param_free(&n->exit[e].prev);
  }
  foray_mm_b_free(&n->head_fwd);
  foray_mm_b_free(&n->head_bwd);
  if (n->head_dense != n->embd) free(n->head_dense);
  param_drop(&n->out_norm_p);
  param_drop(&n->embd_p);
  param_drop(&n->head_p);
  free(n->rope_factor);
  free(n->vocab);
  free(n->row_of);
  free(n->out_norm);
  free(n->embd);
  free(n->layer);
  free(n);
}

void foray_net_embed(const struct foray_net *n, int32_t token, float *out) {
  size_t d = (size_t)n->D;
  if (token < 0 || (uint32_t)token >= n->cfg.n_vocab) token = 0;
  if (n->embd) {
    memcpy(out, n->embd + (size_t)token * d, d * sizeof(float));
  } else {
    const struct foray_gguf_tensor *t = foray_model_tensor(n->model, FORAY_ROLE_TOKEN_EMBD, 0);
    if (foray_dequant_row(t->type, foray_tensor_row(t, (uint64_t)token), out, d))
      memset(out, 0, d * sizeof(float));
  }
  if (n->cfg.embd_scale != 0 && n->cfg.embd_scale != 1)
    for (size_t i = 0; i < d; i++) out[i] *= n->cfg.embd_scale;
}

void foray_net_rope_tables(const struct foray_net *n, bool local, int rows, float *tab) {
  int dim = (int)n->cfg.rope_dim;
  float base = local ? n->cfg.rope_base_local : n->cfg.rope_base;
  float scale = local || n->cfg.rope_scale <= 0 ? 1 : n->cfg.rope_scale;
  for (int i = 0; i < rows; i++)
    foray_ew_rope_table(dim, base, scale, n->rope_factor, i, tab + (size_t)i * (size_t)dim);
}

enum foray_status foray_net_set_vocab(struct foray_net *n, const uint32_t *ids, int count,
                                      struct foray_err *err) {
  size_t d = (size_t)n->D;
  n->vocab = malloc((size_t)count * sizeof *n->vocab);
  n->row_of = malloc(n->cfg.n_vocab * sizeof *n->row_of);
  n->head_dense = malloc((size_t)count * d * sizeof(float));
  if (!n->vocab || !n->row_of || !n->head_dense) return nomem(err);
  n->n_head = count;
  memset(n->row_of, 0xff, n->cfg.n_vocab * sizeof *n->row_of);
  for (int i = 0; i < count; i++) {
    if (ids[i] >= n->cfg.n_vocab)
      return foray_err_set(err, FORAY_E_ARG, "vocabulary list: id %u is out of range", ids[i]);
    n->vocab[i] = ids[i];
    n->row_of[ids[i]] = i;
    float *row = n->head_dense + (size_t)i * d;
    if (n->embd) {
      memcpy(row, n->embd + (size_t)ids[i] * d, d * sizeof(float));
    } else {
      const struct foray_gguf_tensor *t = foray_model_head(n->model);
      if (foray_dequant_row(t->type, foray_tensor_row(t, ids[i]), row, d)) return nomem(err);
    }
  }
  enum foray_status st = foray_mm_pack(n->gemm, n->head_dense, n->D, count, d, true, true, &n->head_fwd, err);
  if (!st) st = foray_mm_pack(n->gemm, n->head_dense, count, n->D, d, false, true, &n->head_bwd, err);
  return st;
}

enum foray_status foray_net_full_head(struct foray_net *n, bool backward, struct foray_err *err) {
  const size_t V = n->cfg.n_vocab, d = (size_t)n->D;
  n->vocab = malloc(V * sizeof *n->vocab);
  n->row_of = malloc(V * sizeof *n->row_of);
  if (!n->vocab || !n->row_of) return nomem(err);
  for (size_t i = 0; i < V; i++) n->vocab[i] = (uint32_t)i, n->row_of[i] = (int32_t)i;
  n->n_head = (int)V;
  n->head_dense = n->embd && (!n->model || n->cfg.tied) ? n->embd : NULL;
  if (!n->head_dense && !(n->head_dense = dequant(foray_model_head(n->model)))) return nomem(err);
  enum foray_status st =
      foray_mm_pack(n->gemm, n->head_dense, n->D, (int)V, d, true, true, &n->head_fwd, err);
  if (!st && backward)
    st = foray_mm_pack(n->gemm, n->head_dense, (int)V, n->D, d, false, true, &n->head_bwd, err);
  if (!n->dense && foray_mm_kind_of(n->gemm) != FORAY_MM_F32 && n->head_dense != n->embd) {
    free(n->head_dense);
    n->head_dense = NULL;
  }
  return st;
}

enum foray_status foray_net_add_lora(struct foray_net *n, int first, int rank, float alpha, uint64_t seed,
                                     struct foray_err *err) {
  return foray_net_add_lora_on(n, first, rank, alpha, FORAY_LIN_ALL, 0, seed, err);
}

enum foray_status foray_net_add_lora_on(struct foray_net *n, int first, int rank, float alpha,
                                        unsigned targets, float drop, uint64_t seed, struct foray_err *err) {
  uint32_t stream = 1000;
  char name[64];
  n->first = first;
  for (int i = first; i < n->n_layer; i++)
    for (int j = 0; j < FORAY_LIN_N; j++, stream++) {
      struct foray_lin *l = &n->layer[i].lin[j];
      enum foray_status st;
      if (!(targets >> j & 1)) continue;
      foray_role_tensor_name(ROLE[j], (uint32_t)i, name, sizeof name);
      l->rank = rank;
      l->scale = alpha / (float)rank;
      l->drop = 0;
      l->drop_key = seed ^ (uint64_t)stream << 32;
      if ((st = param_init(&l->a, name, (size_t)rank * (size_t)l->n_in, 1, err))) return st;
      if ((st = param_init(&l->b, name, (size_t)rank * (size_t)l->n_out, 1, err))) return st;
      float sd = 1.0f / sqrtf((float)l->n_in);
      for (size_t k = 0; k < l->a.n; k++) l->a.w[k] = sd * gauss(seed, stream, (uint32_t)k);
    }
  n->drop = drop;
  return FORAY_OK;
}

void foray_net_set_pass(struct foray_net *n, int64_t pass) {
  for (int i = 0; i < n->n_layer; i++)
    for (int j = 0; j < FORAY_LIN_N; j++) {
      n->layer[i].lin[j].drop = pass < 0 ? 0 : n->drop;
      n->layer[i].lin[j].drop_pass = (uint32_t)pass;
    }
}

enum foray_status foray_net_train_all(struct foray_net *n, struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  char name[64];
  if (!n->dense || !n->embd || !n->head_dense || n->n_head != (int)n->cfg.n_vocab)
    return foray_err_set(err, FORAY_E_ARG, "full tuning needs a network with dense weights and a full head");
  for (int i = 0; !st && i < n->n_layer; i++) {
    struct foray_net_layer *y = &n->layer[i];
    for (int k = 0; !st && k < FORAY_NORM_N; k++) {
      foray_role_tensor_name(NORM_ROLE[k], (uint32_t)i, name, sizeof name);
      if (has_norm(n, k)) st = param_over(&y->norm_p[k], name, norm_size(n, k), 0, *norm_slot(y, k), err);
    }
    for (int j = 0; !st && j < FORAY_LIN_N; j++) {
      struct foray_lin *l = &y->lin[j];
      foray_role_tensor_name(ROLE[j], (uint32_t)i, name, sizeof name);
      st = param_over(&l->w, name, (size_t)l->n_in * (size_t)l->n_out, 1, l->dense, err);
      if (st || !l->bias) continue;
      foray_role_tensor_name(BIAS_ROLE[j], (uint32_t)i, name, sizeof name);
      st = param_over(&l->bias_p, name, (size_t)l->n_out, 0, l->bias, err);
    }
  }
  size_t all = (size_t)n->D * n->cfg.n_vocab;
  if (!st) st = param_over(&n->out_norm_p, "output_norm.weight", (size_t)n->D, 0, n->out_norm, err);
  if (!st) st = param_over(&n->embd_p, "token_embd.weight", all, 1, n->embd, err);
  if (!st && n->head_dense != n->embd)
    st = param_over(&n->head_p, "output.weight", all, 1, n->head_dense, err);
  n->first = 0;
  return st;
}

enum foray_status foray_net_refresh(struct foray_net *n, struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  if (foray_mm_kind_of(n->gemm) == FORAY_MM_F32) return FORAY_OK; /* operands point at the weights */
  for (int i = 0; !st && i < n->n_layer; i++)
    for (int j = 0; !st && j < FORAY_LIN_N; j++) {
      struct foray_lin *l = &n->layer[i].lin[j];
      if (!l->w.n) continue;
      foray_mm_b_free(&l->fwd);
      foray_mm_b_free(&l->bwd);
      st = lin_pack(n, l, l->dense, true, err);
    }
  if (!st && (n->embd_p.n || n->head_p.n)) {
    size_t d = (size_t)n->D;
    foray_mm_b_free(&n->head_fwd);
    foray_mm_b_free(&n->head_bwd);
    st = foray_mm_pack(n->gemm, n->head_dense, n->D, n->n_head, d, true, true, &n->head_fwd, err);
    if (!st) st = foray_mm_pack(n->gemm, n->head_dense, n->n_head, n->D, d, false, true, &n->head_bwd, err);
  }
  return st;
}

enum foray_status foray_net_add_exit(struct foray_net *n, int layer, int head_rows, bool prev,
                                     struct foray_err *err) {
  if (n->n_exits >= FORAY_EXITS_MAX || layer < 1 || layer >= n->n_layer || !n->n_head ||
      (n->n_exits && n->exit[n->n_exits - 1].layer >= layer))
    return foray_err_set(err, FORAY_E_ARG,
                         "exit after layer %d is not possible (1..%d, rising, at most %d exits)", layer,
                         n->n_layer - 1, FORAY_EXITS_MAX);
  int e = n->n_exits++;
  struct foray_net_exit *x = &n->exit[e];
  char name[64];
  enum foray_status st;
  size_t d = (size_t)n->D;
  x->layer = layer;
  x->head_rows = head_rows < n->n_head ? head_rows : n->n_head;
  snprintf(name, sizeof name, "exit.%d.norm", e);
  if ((st = param_init(&x->norm, name, d, 0, err))) return st;
  snprintf(name, sizeof name, "exit.%d.map", e);
  if ((st = param_init(&x->map, name, d * d, 0, err))) return st;
  snprintf(name, sizeof name, "exit.%d.prev", e);
  if (prev && (st = param_init(&x->prev, name, d * d, 0, err))) return st;
  for (size_t i = 0; i < d; i++) x->norm.w[i] = 1;
  st = foray_mm_pack(n->gemm, n->head_dense, n->D, x->head_rows, d, true, true, &n->exit_fwd[e], err);
  if (!st)
    st = foray_mm_pack(n->gemm, n->head_dense, x->head_rows, n->D, d, false, true, &n->exit_bwd[e], err);
  return st;
}

void foray_net_params(struct foray_net *n, foray_param_fn *fn, void *arg) {
  for (int i = 0; i < n->n_layer; i++)
    for (int j = 0; j < FORAY_LIN_N; j++)
      if (n->layer[i].lin[j].rank) {
        fn(arg, &n->layer[i].lin[j].a);
        fn(arg, &n->layer[i].lin[j].b);
      }
  for (int i = 0; n->embd_p.n && i < n->n_layer; i++) {
    struct foray_net_layer *y = &n->layer[i];
    for (int k = 0; k < FORAY_NORM_N; k++)
      if (y->norm_p[k].n) fn(arg, &y->norm_p[k]);
    for (int j = 0; j < FORAY_LIN_N; j++) {
      if (y->lin[j].w.n) fn(arg, &y->lin[j].w);
      if (y->lin[j].bias_p.n) fn(arg, &y->lin[j].bias_p);
    }
  }
  if (n->out_norm_p.n) fn(arg, &n->out_norm_p);
  if (n->embd_p.n) fn(arg, &n->embd_p);
  if (n->head_p.n) fn(arg, &n->head_p);
  for (int e = 0; e < n->n_exits; e++) {
    fn(arg, &n->exit[e].norm);
    fn(arg, &n->exit[e].map);
    if (n->exit[e].prev.n) fn(arg, &n->exit[e].prev);
  }
}
