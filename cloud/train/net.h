/* train/net.h - a llama, qwen2 or gemma3 network in float for training: base weights (dequantised, packed
 * once; frozen, or trained in full), LoRA on block matrices, early exits, and a head trimmed to a vocabulary
 * list. Forward of many packed sequences at once, and reverse mode by hand.
 *
 * Tokens of a batch are rows; a batch is cut into segments, each one sequence from position 0, which attend
 * only to themselves. All matrices are row-major, one row per token; D = n_embd, F = n_ff, Q = n_head *
 * head_dim, K = n_head_kv * head_dim.
 *
 * Thread rule: one caller at a time; the loops inside run on the pool of the matrix context. */
#ifndef FORAY_TRAIN_NET_H
#define FORAY_TRAIN_NET_H

#include "model/exits.h"
#include "model/model.h"
#include "model/quant.h"
#include "train/gemm.h"

/* A trained parameter with its gradient and AdamW moments, n floats each. */
struct foray_param {
  char name[64];
  size_t n;
  size_t from, to; /* the part that an optimiser moves: all of it, unless somebody narrowed it */
  float decay;     /* 1 where weight decay applies */
  float *w, *g, *m, *v;
};

/* y = x W^T + bias + scale * (drop(x) a^T) b; W is n_out x n_in. */
struct foray_lin {
  int n_in, n_out, rank;
  float scale;
  float drop; /* of the LoRA's input, 0..1; noise from (drop_key, drop_pass, row, column) */
  uint64_t drop_key;
  uint32_t drop_pass;
  float *bias;  /* n_out, or NULL */
  float *dense; /* owned copy of W for the f32 kernel or full tuning, else NULL */
  struct foray_mm_b fwd, bwd;
  struct foray_param a, b;      /* rank x n_in, rank x n_out; n = 0 without LoRA */
  struct foray_param w, bias_p; /* full tuning: w.w is dense, bias_p.w is bias; n = 0 when frozen */
};

enum {
  FORAY_LIN_Q,
  FORAY_LIN_K,
  FORAY_LIN_V,
  FORAY_LIN_O,
  FORAY_LIN_GATE,
  FORAY_LIN_UP,
  FORAY_LIN_DOWN,
  FORAY_LIN_N
};

enum {
  FORAY_NORM_1,
  FORAY_NORM_2,
  FORAY_NORM_POST1,
  FORAY_NORM_POST2,
  FORAY_NORM_Q,
  FORAY_NORM_K,
  FORAY_NORM_N
};

struct foray_net_layer {
  struct foray_lin lin[FORAY_LIN_N];
  float *norm1, *norm2; /* D */
  float *post1, *post2; /* D: after attention and feed-forward, before the adds; NULL without */
  float *qn, *kn;       /* head_dim: of each head of q and k before RoPE; NULL without */
  struct foray_param norm_p[FORAY_NORM_N]; /* full tuning; w is one of the above */
  bool local;                              /* attention window and RoPE base of a local layer */
  int source;                              /* number of this block in the model that it comes from */
};

struct foray_net_exit {
  int layer, head_rows;
  struct foray_param norm; /* D */
  struct foray_param map;  /* D x D */
  struct foray_param prev; /* D x D, of the final state of the position before; n = 0: not read */
};

struct foray_net {
  struct foray_model_config cfg;
  int n_layer, D, F, Q, K;
  int skip_from, skip_to;          /* forward passes leave out blocks [from, to) */
  int first;                       /* LoRA on blocks first.. only; the reverse pass ends there */
  bool dense;                      /* float copies of all weights are kept */
  float drop;                      /* of the LoRA's inputs in training passes */
  struct foray_mm *gemm;           /* borrowed */
  const struct foray_model *model; /* borrowed; embedding rows are dequantised from it. NULL: embd */
  float *embd;                     /* n_vocab x D when there is no model (tests) */
  struct foray_net_layer *layer;
  float *rope_factor; /* rope_dim / 2 divisors of the angles, or NULL */
  float *out_norm;
  struct foray_param out_norm_p, embd_p, head_p; /* full tuning; embd_p also is the head of a tied model */
  int n_head;                                    /* rows of the trimmed head; 0 = none yet */
  uint32_t *vocab;                               /* n_head ids */
  int32_t *row_of;                               /* n_vocab: row in the trimmed head, or -1 */
  float *head_dense; /* n_head x D; with a full head kept only where a kernel or the tuning needs it */
  struct foray_mm_b head_fwd, head_bwd;
  int n_exits;
  struct foray_net_exit exit[FORAY_EXITS_MAX];
  struct foray_mm_b exit_fwd[FORAY_EXITS_MAX], exit_bwd[FORAY_EXITS_MAX]; /* head prefixes */
};

struct foray_segment {
  int start, len; /* rows of the batch */
};

/* Loads the weights; of blocks backward_from.. also what the reverse pass needs (twice the memory; n_layer:
 * none). */
enum foray_status foray_net_open(const struct foray_model *model, struct foray_mm *gemm, int backward_from,
                                 struct foray_net **out, struct foray_err *err) FORAY_NODISCARD;
/* What else a network can be made of. */
struct foray_net_opts {
  int backward_from; /* as above */
  bool dense;        /* keep float copies of everything, embeddings too: for foray_net_train_all */
  const int *layers; /* blocks to take, rising; NULL = all. A cut network is a proxy of the whole one */
  int n_layers;
};
enum foray_status foray_net_open_with(const struct foray_model *model, struct foray_mm *gemm,
                                      const struct foray_net_opts *o, struct foray_net **out,
                                      struct foray_err *err) FORAY_NODISCARD;
/* A random network of the shape in cfg, for tests: everything deterministic in seed. */
enum foray_status foray_net_open_random(const struct foray_model_config *cfg, struct foray_mm *gemm,
                                        uint64_t seed, struct foray_net **out,
                                        struct foray_err *err) FORAY_NODISCARD;
void foray_net_close(struct foray_net *n);

/* Trimmed head: rows ids[0..n) of the model's head. */
enum foray_status foray_net_set_vocab(struct foray_net *n, const uint32_t *ids, int count,
                                      struct foray_err *err) FORAY_NODISCARD;
/* LoRA of this rank on the matrices of blocks first..: a random, b zero. scale = alpha / rank. */
enum foray_status foray_net_add_lora(struct foray_net *n, int first, int rank, float alpha, uint64_t seed,
                                     struct foray_err *err) FORAY_NODISCARD;
/* The same on some matrices of each block only: bit FORAY_LIN_x of targets. drop: probability that an input
 * of the LoRA is left out of a pass (foray_net_set_pass). */
enum { FORAY_LIN_ALL = (1 << FORAY_LIN_N) - 1 };
enum foray_status foray_net_add_lora_on(struct foray_net *n, int first, int rank, float alpha,
                                        unsigned targets, float drop, uint64_t seed,
                                        struct foray_err *err) FORAY_NODISCARD;
/* Training pass number `pass` (its own dropout noise), or, below zero, no dropout. */
void foray_net_set_pass(struct foray_net *n, int64_t pass);
/* Head over the whole vocabulary, in order of ids. */
enum foray_status foray_net_full_head(struct foray_net *n, bool backward,
                                      struct foray_err *err) FORAY_NODISCARD;
/* Makes every weight of the network a trained parameter (needs opts.dense; after foray_net_full_head). */
enum foray_status foray_net_train_all(struct foray_net *n, struct foray_err *err) FORAY_NODISCARD;
/* Packs the weights anew after a full-tuning step, where the kernel keeps them packed. */
enum foray_status foray_net_refresh(struct foray_net *n, struct foray_err *err) FORAY_NODISCARD;
/* Exit after `layer` blocks with norm = ones, map = prev = 0; call after set_vocab, in rising order of layer.
 */
enum foray_status foray_net_add_exit(struct foray_net *n, int layer, int head_rows, bool prev,
                                     struct foray_err *err) FORAY_NODISCARD;

/* Applies fn to each trained parameter, in a fixed order. */
typedef void foray_param_fn(void *arg, struct foray_param *p);
void foray_net_params(struct foray_net *n, foray_param_fn *fn, void *arg);

/* ---- one batch ---- */
struct foray_acts; /* stored activations; reused from batch to batch */
enum foray_status foray_acts_open(const struct foray_net *n, int max_rows, struct foray_acts **out,
                                  struct foray_err *err) FORAY_NODISCARD;
/* checkpoint: keeps only the residuals and computes a block anew before its reverse step: the same bits, a
 * fraction of the memory, a third more arithmetic. */
enum foray_status foray_acts_open_with(const struct foray_net *n, int max_rows, bool checkpoint,
                                       struct foray_acts **out, struct foray_err *err) FORAY_NODISCARD;
void foray_acts_close(struct foray_acts *a);
int foray_acts_rows(const struct foray_acts *a); /* most rows of a batch */
/* Called after each block of a forward pass with its keys (after RoPE) and values, m x K. NULL: nobody. */
typedef void foray_acts_kv_fn(void *arg, int layer, const float *k, const float *v);
void foray_acts_on_kv(struct foray_acts *a, foray_acts_kv_fn *fn, void *arg);

/* Runs all blocks over m rows. Afterwards foray_acts_state(a, l) is the residual before block l (l = n_layer:
 * after the last), m x D. */
enum foray_status foray_net_forward(struct foray_net *n, struct foray_acts *a, int m, const int32_t *tokens,
                                    const struct foray_segment *seg, int n_seg,
                                    struct foray_err *err) FORAY_NODISCARD;
const float *foray_acts_state(const struct foray_acts *a, int l);
float *foray_acts_state_edit(struct foray_acts *a, int l);
/* The same from given states (m x D) before block n->first: what lies below never changes while training, so
 * a trainer may keep it. States below `first` are then not filled. */
enum foray_status foray_net_forward_from(struct foray_net *n, struct foray_acts *a, int m, const float *low,
                                         const struct foray_segment *seg, int n_seg,
                                         struct foray_err *err) FORAY_NODISCARD;

/* Reverse pass. d_state(l), m x D, is the gradient of the loss with respect to the residual before block l
 * that comes from outside the blocks (exits, head); NULL for none. Adds to the LoRA gradients; touches none
 * of d. */
enum foray_status foray_net_backward(struct foray_net *n, struct foray_acts *a, float *const *d_state,
                                     struct foray_err *err) FORAY_NODISCARD;

/* ---- pieces shared with the generator and the tests ---- */
enum foray_status foray_lin_forward(struct foray_mm *g, const struct foray_lin *l, int m, const float *x,
                                    float *y, struct foray_err *err) FORAY_NODISCARD;
/* dx (m x n_in) = or += ...; adds to a.g and b.g. */
enum foray_status foray_lin_backward(struct foray_mm *g, struct foray_lin *l, int m, const float *x,
                                     const float *dy, float *dx, bool add,
                                     struct foray_err *err) FORAY_NODISCARD;
/* D floats, scaled where the architecture scales. */
void foray_net_embed(const struct foray_net *n, int32_t token, float *out);
/* RoPE table of positions 0..rows-1 (rope_dim floats each) for local or global layers. */
void foray_net_rope_tables(const struct foray_net *n, bool local, int rows, float *tab);

#endif
