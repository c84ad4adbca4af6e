/* engine/internal.h - what engine.c, load.c, kv.c and forward.c share. Not for other libraries. */
#ifndef FORAY_ENGINE_INTERNAL_H
#define FORAY_ENGINE_INTERNAL_H

#include "core/pool.h"
#include "engine/engine.h"
#include "engine/kernels.h"
#include "model/config.h"

/* Positions that go through the layers together. Longer passes are cut: the cut changes no bit. */
enum { ENGINE_SLICE = 256 };

struct engine_layer {
  struct ek_mat q, k, v, o, gate, up, down;
  float *attn_norm, *ffn_norm;     /* [n_embd] */
  float *post_attn, *post_ffn;     /* [n_embd] or NULL */
  float *q_bias, *k_bias, *v_bias; /* or NULL */
  float *q_norm, *k_norm;          /* [head_dim] or NULL */
  int rope;                        /* which of the engine's tables */
  int32_t window;                  /* 0: sees everything */
};

/* cos and sin of position * frequency, [len][rope_dim / 2] each, grown as positions come up. */
struct engine_rope {
  float base, scale;
  double *freq; /* [rope_dim / 2] */
  float *cs, *sn;
  int32_t len, cap;
};

struct foray_engine_seq {
  struct foray_engine *engine;
  uint16_t **pages;
  int32_t n_pages, cap_pages;
  int32_t len;
  uint64_t pass; /* the last pass that this sequence took part in: finds duplicates */
#ifdef FORAY_MUTANT_KV_OFF_BY_ONE
  int mutant_kv;
#endif
#ifdef FORAY_MUTANT_ROPE_AFTER_ROLLBACK
  int mutant_rope;
#endif
};

/* A column of a slice: one position of one sequence. */
struct engine_col {
  struct foray_engine_seq *seq;
  int32_t pos, rope_pos, token;
  float *logits; /* or NULL */
};

struct engine_thread {
  void *gemm;    /* EK_SCRATCH_BYTES */
  float *scores; /* [4][score_stride] */
};

struct foray_engine {
  struct foray_engine_info info;
  struct foray_model_config cfg;
  struct foray_pool *pool;
  const struct ek_ops *ops;
  uint64_t kv_bytes_max, kv_bytes;
  uint8_t *arena; /* weights */
  size_t arena_bytes;
  struct ek_mat embd, head; /* head.data == embd.data when tied */
  float *output_norm;
  float *rope_factors; /* [rope_dim / 2] or NULL */
  struct engine_layer *layers;
  struct engine_rope rope[2];
  int n_rope;
  uint16_t **free_pages;
  int32_t n_free, cap_free;
  int32_t n_seqs;
  uint64_t n_passes;
  /* Scratch of a slice, [ENGINE_SLICE][...]. */
  int32_t q_dim, kv_dim;
  float *x, *h, *t, *q, *k, *v, *att, *gate, *up;
  float **cols_q, **cols_k, **cols_v, **cols_t, **cols_gate, **cols_up, **cols_logits;
  struct engine_col *cols;
  struct engine_thread *threads;
  size_t score_stride;
  int8_t *act_q;
  float *act_d, *act_s, *act_xf;
  int32_t *act_n32, *act_n16;
  bool any_quant, any_float; /* kinds of weights in the layers and the head */
  struct ek_act acts[ENGINE_SLICE];
  int n_acts;
};

enum foray_status engine_load(struct foray_engine *e, const char *path, const struct foray_engine_opts *o,
                              struct foray_err *err);
enum foray_status engine_rope_grow(struct foray_engine *e, int32_t len, struct foray_err *err);
/* Makes room for positions up to len (exclusive); on failure nothing has changed. */
enum foray_status engine_seq_reserve(struct foray_engine_seq *s, int32_t len, struct foray_err *err);
void engine_seq_trim(struct foray_engine_seq *s); /* gives pages beyond len back */
/* The layers and the head over cols[0..n), n <= ENGINE_SLICE. Cannot fail: everything has been reserved. */
void engine_slice(struct foray_engine *e, int n);
size_t engine_page_offset(const struct foray_engine *e, int layer,
                          int kv_head);    /* of the keys; values follow */
void *engine_alloc(size_t n, size_t size); /* 64-byte aligned, zeroed, overflow-checked; NULL: no memory */

#endif
