/* Opens a GGUF file and repacks its weights into one arena, tensor by tensor. Source pages are given back to
 * the system as they have been read, so the peak stays near the size of the arena. */
#include "engine/internal.h"

#include "core/checked.h"
#include "core/err.h"
#include "engine/fmath.h"
#include "engine/repack.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/quant.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct loader {
  struct foray_engine *e;
  struct foray_gguf *g;
  const struct foray_engine_opts *o;
  struct foray_err *err;
  size_t at;    /* next free byte of the arena (second pass) */
  size_t total; /* bytes that the first pass counted */
  bool fill;    /* second pass */
  long page;    /* bytes of a page of the file mapping */
};

static const char *role_name(enum foray_role role) {
  static const char *const names[] = {
#define X(role, name, layer, rows, cols) name,
      FORAY_ROLE_MAP(X)
#undef X
  };
  return names[role];
}

static const struct foray_gguf_tensor *find(struct loader *ld, enum foray_role role, int layer) {
  char name[FORAY_GGUF_NAME_MAX];
  if (layer >= 0)
    snprintf(name, sizeof name, "blk.%d.%s", layer, role_name(role));
  else
    snprintf(name, sizeof name, "%s", role_name(role));
  return foray_gguf_find_tensor(ld->g, name);
}

static enum foray_status missing(struct loader *ld, enum foray_role role, int layer) {
  return foray_err_set(ld->err, FORAY_E_FORMAT, "%s: tensor '%s' of layer %d is missing",
                       foray_gguf_path(ld->g), role_name(role), layer);
}

static enum foray_status bad_shape(struct loader *ld, const struct foray_gguf_tensor *t, uint64_t rows,
                                   uint64_t cols) {
  return foray_err_set(ld->err, FORAY_E_FORMAT, "%s: tensor '%s' is %llu x %llu where %llu x %llu is needed",
                       foray_gguf_path(ld->g), t->name, (unsigned long long)t->ne[1],
                       (unsigned long long)t->ne[0], (unsigned long long)rows, (unsigned long long)cols);
}

/* A vector of n floats into *out (from malloc); absent is an error only when required. */
static enum foray_status load_vec(struct loader *ld, enum foray_role role, int layer, uint64_t n,
                                  bool required, float **out) {
  if (*out) return FORAY_OK;
  const struct foray_gguf_tensor *t = find(ld, role, layer);
  if (!t) return required ? missing(ld, role, layer) : FORAY_OK;
  if (t->ne[0] != n || t->ne[1] != 1 || t->ne[2] != 1 || t->ne[3] != 1) return bad_shape(ld, t, 1, n);
  *out = engine_alloc((size_t)n, sizeof **out);
  if (!*out) return foray_err_set(ld->err, FORAY_E_NOMEM, "out of memory for tensor '%s'", t->name);
  if (foray_dequant_row(t->type, t->data, *out, (size_t)n) != FORAY_OK)
    return foray_err_set(ld->err, FORAY_E_UNSUPPORTED, "%s: tensor '%s' has a type that cannot be read",
                         foray_gguf_path(ld->g), t->name);
  return FORAY_OK;
}

struct repack_job {
  const struct ek_mat *m;
  const uint8_t *src;
  uint8_t *dst;
  size_t row_bytes;
  int step, blocks;
  long page;
};

static void repack_part(void *arg, int part, int thread) {
  const struct repack_job *j = arg;
  (void)thread;
  const int b0 = part * j->step, b1 = b0 + j->step < j->blocks ? b0 + j->step : j->blocks;
  ek_repack(j->m, j->src, j->row_bytes, j->dst, b0, b1);
  const uintptr_t mask = (uintptr_t)j->page - 1;
  const int32_t r1 = b1 * EK_ROWS < j->m->rows ? b1 * EK_ROWS : j->m->rows;
  const uintptr_t lo = ((uintptr_t)(j->src + (size_t)b0 * EK_ROWS * j->row_bytes) + mask) & ~mask,
                  hi = (uintptr_t)(j->src + (size_t)r1 * j->row_bytes) & ~mask;
  /* The mapping is read-only and shared with the file: dropping a page costs at most a later read. */
  if (hi > lo) (void)madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

static enum foray_status load_mat(struct loader *ld, enum foray_role role, int layer, uint64_t rows,
                                  uint64_t cols, struct ek_mat *m) {
  const struct foray_gguf_tensor *t = find(ld, role, layer);
  if (!t) return missing(ld, role, layer);
  if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1)
    return bad_shape(ld, t, rows, cols);
  if (!ld->fill) {
    const struct foray_type_info *ti = foray_type_info(t->type);
    if (!ek_mat_shape(m, t->type, (int32_t)rows, (int32_t)cols))
      return foray_err_set(ld->err, FORAY_E_UNSUPPORTED,
                           "%s: tensor '%s': the target engine has no kernel for %s with rows of %llu",
                           foray_gguf_path(ld->g), t->name, ti ? ti->name : "this type",
                           (unsigned long long)cols);
    ld->total += ek_mat_bytes(m);
    if (m->format >= EK_F32)
      ld->e->any_float = true;
    else
      ld->e->any_quant = true;
    return FORAY_OK;
  }
  uint8_t *dst = ld->e->arena + ld->at;
  struct repack_job j = {.m = m,
                         .src = t->data,
                         .dst = dst,
                         .row_bytes = foray_type_row_bytes(t->type, (size_t)cols),
                         .blocks = ek_blocks(m),
                         .page = ld->page};
  j.step = (int)(((size_t)1 << 20) / m->block_bytes) + 1;
  foray_pool_run(ld->e->pool, repack_part, &j, (j.blocks + j.step - 1) / j.step);
  m->data = dst;
  ld->at += ek_mat_bytes(m);
  if (ld->o->progress && !ld->o->progress(ld->o->progress_arg, (double)ld->at / (double)ld->total))
    return foray_err_set(ld->err, FORAY_E_CANCELLED, "%s: loading was cancelled", foray_gguf_path(ld->g));
  return FORAY_OK;
}

#define TRY(call)                                                                                            \
  do {                                                                                                       \
    enum foray_status try_st = (call);                                                                       \
    if (try_st != FORAY_OK) return try_st;                                                                   \
  } while (0)

/* Order of the arena is the order of use. */
static enum foray_status load_layer(struct loader *ld, int il) {
  const struct foray_model_config *c = &ld->e->cfg;
  struct engine_layer *l = &ld->e->layers[il];
  const uint64_t E = c->n_embd, Q = (uint64_t)c->n_head * c->head_dim,
                 K = (uint64_t)c->n_head_kv * c->head_dim;
  TRY(load_vec(ld, FORAY_ROLE_ATTN_NORM, il, E, true, &l->attn_norm));
  TRY(load_vec(ld, FORAY_ROLE_FFN_NORM, il, E, true, &l->ffn_norm));
  if (c->qkv_bias) {
    TRY(load_vec(ld, FORAY_ROLE_ATTN_Q_BIAS, il, Q, true, &l->q_bias));
    TRY(load_vec(ld, FORAY_ROLE_ATTN_K_BIAS, il, K, true, &l->k_bias));
    TRY(load_vec(ld, FORAY_ROLE_ATTN_V_BIAS, il, K, true, &l->v_bias));
  }
  if (c->qk_norm) {
    TRY(load_vec(ld, FORAY_ROLE_ATTN_Q_NORM, il, c->head_dim, true, &l->q_norm));
    TRY(load_vec(ld, FORAY_ROLE_ATTN_K_NORM, il, c->head_dim, true, &l->k_norm));
  }
  if (c->post_norms) {
    TRY(load_vec(ld, FORAY_ROLE_ATTN_POST_NORM, il, E, true, &l->post_attn));
    TRY(load_vec(ld, FORAY_ROLE_FFN_POST_NORM, il, E, true, &l->post_ffn));
  }
  TRY(load_mat(ld, FORAY_ROLE_ATTN_Q, il, Q, E, &l->q));
  TRY(load_mat(ld, FORAY_ROLE_ATTN_K, il, K, E, &l->k));
  TRY(load_mat(ld, FORAY_ROLE_ATTN_V, il, K, E, &l->v));
  TRY(load_mat(ld, FORAY_ROLE_ATTN_OUTPUT, il, E, Q, &l->o));
  TRY(load_mat(ld, FORAY_ROLE_FFN_GATE, il, c->n_ff, E, &l->gate));
  TRY(load_mat(ld, FORAY_ROLE_FFN_UP, il, c->n_ff, E, &l->up));
  TRY(load_mat(ld, FORAY_ROLE_FFN_DOWN, il, E, c->n_ff, &l->down));
  const bool local = foray_config_layer_local(c, (uint32_t)il);
  l->window = local ? (int32_t)c->window : 0;
  l->rope = local ? 1 : 0;
  return FORAY_OK;
}

static enum foray_status load_all(struct loader *ld) {
  struct foray_engine *e = ld->e;
  const struct foray_model_config *c = &e->cfg;
  TRY(load_vec(ld, FORAY_ROLE_OUTPUT_NORM, -1, c->n_embd, true, &e->output_norm));
  TRY(load_vec(ld, FORAY_ROLE_ROPE_FREQS, -1, c->rope_dim / 2, false, &e->rope_factors));
  TRY(load_mat(ld, FORAY_ROLE_TOKEN_EMBD, -1, c->n_vocab, c->n_embd, &e->embd));
  for (int il = 0; il < (int)c->n_layer; il++) TRY(load_layer(ld, il));
  if (c->tied)
    e->head = e->embd;
  else
    TRY(load_mat(ld, FORAY_ROLE_OUTPUT, -1, c->n_vocab, c->n_embd, &e->head));
  return FORAY_OK;
}

static enum foray_status check_config(struct loader *ld) {
  const struct foray_model_config *c = &ld->e->cfg;
  const char *path = foray_gguf_path(ld->g);
  if (c->head_dim % 16)
    return foray_err_set(ld->err, FORAY_E_UNSUPPORTED,
                         "%s: heads of %u values; the target engine needs a multiple of 16", path,
                         c->head_dim);
  if (c->n_ff % 16)
    return foray_err_set(ld->err, FORAY_E_UNSUPPORTED,
                         "%s: feed-forward width %u; the target engine needs a multiple of 16", path,
                         c->n_ff);
  if (c->attn_softcap != 0.0f)
    return foray_err_set(ld->err, FORAY_E_UNSUPPORTED,
                         "%s: soft-capped attention has no kernel in the target engine", path);
  return FORAY_OK;
}

/* One anonymous mapping, on huge pages where the system has them: a decode step reads all of it, and 4 KiB
 * pages cost a quarter of the memory bandwidth in address translation. */
static enum foray_status arena_open(struct loader *ld) {
  const size_t huge = (size_t)2 << 20;
  struct foray_engine *e = ld->e;
  e->arena_bytes = (ld->total + 8192 + huge - 1) & ~(huge - 1); /* kernels prefetch a little beyond the end */
  void *p =
      mmap(NULL, e->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    e->arena_bytes = 0;
    return foray_err_set(ld->err, FORAY_E_NOMEM, "%s: out of memory for %zu bytes of weights",
                         foray_gguf_path(ld->g), ld->total);
  }
  e->arena = p;
  (void)madvise(p, e->arena_bytes, MADV_HUGEPAGE);
  return FORAY_OK;
}

static enum foray_status rope_open(struct loader *ld) {
  struct foray_engine *e = ld->e;
  const struct foray_model_config *c = &e->cfg;
  const int half = (int)c->rope_dim / 2;
  for (int t = 0; t < 2; t++) {
    struct engine_rope *r = &e->rope[t];
    r->base = t ? c->rope_base_local : c->rope_base;
    r->scale = t ? 1.0f : c->rope_scale;
    r->freq = engine_alloc((size_t)half, sizeof *r->freq);
    if (!r->freq) return foray_err_set(ld->err, FORAY_E_NOMEM, "out of memory for RoPE tables");
    for (int i = 0; i < half; i++) {
      r->freq[i] =
          fm_exp(-2.0 * (double)i / (double)c->rope_dim * fm_log((double)r->base)) * (double)r->scale;
      if (e->rope_factors) r->freq[i] = r->freq[i] / (double)e->rope_factors[i];
    }
  }
  e->n_rope = c->window && c->window_pattern ? 2 : 1;
  return FORAY_OK;
}

static enum foray_status load_open_file(struct loader *ld) {
  struct foray_engine *e = ld->e;
  TRY(foray_config_read(ld->g, &e->cfg, ld->err));
  TRY(check_config(ld));
  e->layers = engine_alloc(e->cfg.n_layer, sizeof *e->layers);
  if (!e->layers) return foray_err_set(ld->err, FORAY_E_NOMEM, "out of memory for %u layers", e->cfg.n_layer);
  TRY(load_all(ld));
  TRY(arena_open(ld));
  ld->fill = true;
  TRY(load_all(ld));
  TRY(rope_open(ld));
  e->info.weight_bytes = ld->total;
  e->info.file_bytes = foray_gguf_file_bytes(ld->g);
  return FORAY_OK;
}

enum foray_status engine_load(struct foray_engine *e, const char *path, const struct foray_engine_opts *o,
                              struct foray_err *err) {
  struct loader ld = {.e = e, .o = o, .err = err, .page = sysconf(_SC_PAGESIZE)};
  if (ld.page <= 0) ld.page = 4096;
  TRY(foray_gguf_open(path, &ld.g, err));
  enum foray_status st = load_open_file(&ld);
  foray_gguf_close(ld.g);
  return st;
}
