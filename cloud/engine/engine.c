#include "engine/engine.h"

#include "core/checked.h"
#include "core/err.h"
#include "engine/fmath.h"
#include "engine/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct foray_engine_opts foray_engine_opts_default(void) {
  return (struct foray_engine_opts){.isa = -1};
}

void *engine_alloc(size_t n, size_t size) { return calloc(n ? n : 1, size); }

const struct ek_ops *ek_ops_get(enum foray_isa isa) {
  switch (isa) {
#if defined(__x86_64__)
  case FORAY_ISA_AMX: return &ek_ops_amx;
  case FORAY_ISA_AVX512: return &ek_ops_avx512;
  case FORAY_ISA_AVX2: return &ek_ops_avx2;
#elif defined(__aarch64__)
  case FORAY_ISA_NEON: return &ek_ops_neon;
#endif
  default: return &ek_ops_scalar;
  }
}

/* Widest input of a matrix: activations are kept for this many values a column. */
static size_t widest(const struct foray_engine *e) {
  size_t k = e->cfg.n_embd;
  if ((size_t)e->q_dim > k) k = (size_t)e->q_dim;
  if (e->cfg.n_ff > k) k = e->cfg.n_ff;
  return k;
}

static float **row_table(float *base, size_t stride) {
  float **t = engine_alloc(ENGINE_SLICE, sizeof *t);
  for (size_t i = 0; t && base && i < ENGINE_SLICE; i++) t[i] = base + i * stride;
  return t;
}

static bool scratch_open(struct foray_engine *e) {
  const size_t E = e->cfg.n_embd, Q = (size_t)e->q_dim, K = (size_t)e->kv_dim, F = e->cfg.n_ff;
  const size_t groups = (widest(e) + EK_GROUP - 1) / EK_GROUP,
               cells = ENGINE_SLICE * groups + EK_BLOCK_MAX; /* kernels may look a block ahead */
  struct {
    float **p;
    size_t width;
  } bufs[] = {{&e->x, E}, {&e->h, E},   {&e->t, E},    {&e->q, Q}, {&e->k, K},
              {&e->v, K}, {&e->att, Q}, {&e->gate, F}, {&e->up, F}};
  for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++)
    if (!(*bufs[i].p = engine_alloc(ENGINE_SLICE * bufs[i].width, sizeof(float)))) return false;
  e->cols_q = row_table(e->q, Q);
  e->cols_k = row_table(e->k, K);
  e->cols_v = row_table(e->v, K);
  e->cols_t = row_table(e->t, E);
  e->cols_gate = row_table(e->gate, F);
  e->cols_up = row_table(e->up, F);
  e->cols_logits = row_table(NULL, 0);
  e->cols = engine_alloc(ENGINE_SLICE, sizeof *e->cols);
  e->threads = engine_alloc((size_t)e->info.threads, sizeof *e->threads);
  if (e->any_quant) {
    e->act_q = engine_alloc(cells, EK_GROUP);
    e->act_d = engine_alloc(cells, sizeof(float));
    e->act_s = engine_alloc(cells, sizeof(float));
    e->act_n32 = engine_alloc(cells, sizeof(int32_t));
    e->act_n16 = engine_alloc(cells, 2 * sizeof(int32_t));
    if (!e->act_q || !e->act_d || !e->act_s || !e->act_n32 || !e->act_n16) return false;
  }
  if (e->any_float && !(e->act_xf = engine_alloc(cells, EK_GROUP * sizeof(float)))) return false;
  for (int i = 0; e->threads && i < e->info.threads; i++)
    if (!(e->threads[i].gemm = aligned_alloc(64, EK_SCRATCH_BYTES))) return false;
  e->cap_free = 256;
  e->free_pages = engine_alloc((size_t)e->cap_free, sizeof *e->free_pages);
  return e->cols_q && e->cols_k && e->cols_v && e->cols_t && e->cols_gate && e->cols_up && e->cols_logits &&
         e->cols && e->threads && e->free_pages;
}

static void info_fill(struct foray_engine *e, const struct foray_engine_opts *o) {
  const struct foray_model_config *c = &e->cfg;
  struct foray_engine_info *i = &e->info;
  strncpy(i->arch, foray_arch_name(c->arch), sizeof i->arch - 1);
  i->n_vocab = (int32_t)c->n_vocab;
  i->n_layer = (int32_t)c->n_layer;
  i->n_embd = (int32_t)c->n_embd;
  const int32_t train = c->n_ctx_train < INT32_MAX / 2 ? (int32_t)c->n_ctx_train : INT32_MAX / 2;
  i->n_ctx = o->n_ctx > 0 && o->n_ctx < train ? o->n_ctx : train;
  i->page_tokens = EK_PAGE;
  i->page_bytes = (uint64_t)c->n_layer * c->n_head_kv * 2 * EK_PAGE * c->head_dim * sizeof(uint16_t);
  i->threads = foray_pool_threads(e->pool);
  i->isa = e->ops->isa;
  e->q_dim = (int32_t)(c->n_head * c->head_dim);
  e->kv_dim = (int32_t)(c->n_head_kv * c->head_dim);
}

enum foray_status foray_engine_open(const char *path, const struct foray_engine_opts *opts,
                                    struct foray_engine **out, struct foray_err *err) {
  *out = NULL;
  const struct foray_engine_opts o = opts ? *opts : foray_engine_opts_default();
  const enum foray_isa native = foray_cpu_isa_native(),
                       isa = o.isa < 0 ? foray_cpu_isa() : (enum foray_isa)o.isa;
  if (isa != FORAY_ISA_SCALAR && (isa > native || (native == FORAY_ISA_NEON) != (isa == FORAY_ISA_NEON)))
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "instruction set '%s': this processor only has up to '%s'",
                         foray_isa_name(isa), foray_isa_name(native));
  struct foray_engine *e = calloc(1, sizeof *e);
  if (!e) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for an engine");
  e->ops = ek_ops_get(isa);
  e->kv_bytes_max = o.kv_bytes_max;
  enum foray_status st = foray_pool_open(o.threads, &e->pool, err);
  if (st == FORAY_OK) st = engine_load(e, path, &o, err);
  if (st == FORAY_OK) {
    info_fill(e, &o);
    if (!scratch_open(e)) st = foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory for activations", path);
  }
  if (st == FORAY_OK && e->info.page_bytes > (uint64_t)1 << 32)
    st = foray_err_set(err, FORAY_E_LIMIT, "%s: a page of keys and values would have %llu bytes", path,
                       (unsigned long long)e->info.page_bytes);
  if (st != FORAY_OK) {
    foray_engine_close(e);
    return st;
  }
  *out = e;
  return FORAY_OK;
}

void foray_engine_close(struct foray_engine *e) {
  if (!e) return;
  for (uint32_t i = 0; e->layers && i < e->cfg.n_layer; i++) {
    struct engine_layer *l = &e->layers[i];
    float *v[] = {l->attn_norm, l->ffn_norm, l->post_attn, l->post_ffn, l->q_bias,
                  l->k_bias,    l->v_bias,   l->q_norm,    l->k_norm};
    for (size_t j = 0; j < sizeof v / sizeof *v; j++) free(v[j]);
  }
  for (int i = 0; e->threads && i < e->info.threads; i++) {
    free(e->threads[i].gemm);
    free(e->threads[i].scores);
  }
  for (int i = 0; i < 2; i++) {
    free(e->rope[i].freq);
    free(e->rope[i].cs);
    free(e->rope[i].sn);
  }
  while (e->n_free) free(e->free_pages[--e->n_free]);
  void *all[] = {
      e->layers, e->output_norm, e->rope_factors, e->free_pages,  e->x,    e->h,       e->t,      e->q,
      e->k,      e->v,           e->att,          e->gate,        e->up,   e->cols_q,  e->cols_k, e->cols_v,
      e->cols_t, e->cols_gate,   e->cols_up,      e->cols_logits, e->cols, e->threads, e->act_q,  e->act_d,
      e->act_s,  e->act_n32,     e->act_n16,      e->act_xf};
  for (size_t j = 0; j < sizeof all / sizeof *all; j++) free(all[j]);
  if (e->arena) munmap(e->arena, e->arena_bytes);
  foray_pool_close(e->pool);
  free(e);
}

const struct foray_engine_info *foray_engine_info(const struct foray_engine *e) { return &e->info; }

/* ---- pass ---- */

static enum foray_status check_item(struct foray_engine *e, const struct foray_engine_item *it, int i,
                                    struct foray_err *err) {
  if (!it->seq || it->seq->engine != e || it->n < 1 || !it->tokens)
    return foray_err_set(err, FORAY_E_ARG, "item %d of the pass has no sequence of this engine, or no tokens",
                         i);
  if (it->seq->pass == e->n_passes)
    return foray_err_set(err, FORAY_E_ARG, "item %d of the pass: its sequence occurs twice", i);
  it->seq->pass = e->n_passes;
  if (it->n_logits < 0 || it->n_logits > it->n || (it->n_logits && !it->logits))
    return foray_err_set(err, FORAY_E_ARG, "item %d of the pass wants %d logits of %d positions", i,
                         (int)it->n_logits, (int)it->n);
  if (it->n > e->info.n_ctx - it->seq->len)
    return foray_err_set(err, FORAY_E_LIMIT, "%d tokens after %d do not fit into a context of %d", (int)it->n,
                         (int)it->seq->len, (int)e->info.n_ctx);
  for (int32_t k = 0; k < it->n; k++)
    if (it->tokens[k] < 0 || it->tokens[k] >= e->info.n_vocab)
      return foray_err_set(err, FORAY_E_ARG, "token id %d is outside the vocabulary of %d",
                           (int)it->tokens[k], (int)e->info.n_vocab);
  return FORAY_OK;
}

static enum foray_status grow_scores(struct foray_engine *e, int32_t len, struct foray_err *err) {
  const size_t stride = ((size_t)len / EK_PAGE + 2) * EK_PAGE;
  if (stride <= e->score_stride) return FORAY_OK;
  const size_t want = stride + stride / 2;
  for (int i = 0; i < e->info.threads; i++) {
    float *p = malloc(4 * want * sizeof *p);
    if (!p)
      return foray_err_set(err, FORAY_E_NOMEM, "out of memory for attention over %d positions", (int)len);
    free(e->threads[i].scores);
    e->threads[i].scores = p;
  }
  e->score_stride = want;
  return FORAY_OK;
}

static enum foray_status reserve_all(struct foray_engine *e, const struct foray_engine_item *items, int n,
                                     struct foray_err *err) {
  int32_t longest = 0;
  for (int i = 0; i < n; i++) {
    enum foray_status st = check_item(e, &items[i], i, err);
    if (st != FORAY_OK) return st;
    const int32_t len = items[i].seq->len + items[i].n;
    if (len > longest) longest = len;
  }
  enum foray_status st = engine_rope_grow(e, longest + 1, err);
  if (st == FORAY_OK) st = grow_scores(e, longest + 1, err);
  for (int i = 0; i < n && st == FORAY_OK; i++) {
    int32_t extra = 0;
#ifdef FORAY_MUTANT_KV_OFF_BY_ONE
    extra = items[i].seq->mutant_kv;
#endif
    st = engine_seq_reserve(items[i].seq, items[i].seq->len + items[i].n + extra, err);
  }
  if (st != FORAY_OK)
    for (int i = 0; i < n; i++) engine_seq_trim(items[i].seq);
  return st;
}

enum foray_status foray_engine_pass(struct foray_engine *e, const struct foray_engine_item *items,
                                    int n_items, struct foray_err *err) {
  if (n_items < 0 || (n_items && !items))
    return foray_err_set(err, FORAY_E_ARG, "a pass of %d items", n_items);
  e->n_passes++;
  enum foray_status st = reserve_all(e, items, n_items, err);
  if (st != FORAY_OK) return st;
  int n = 0;
  for (int i = 0; i < n_items; i++) {
    const struct foray_engine_item *it = &items[i];
    const int32_t first = it->n - it->n_logits, base = it->seq->len;
    for (int32_t k = 0; k < it->n; k++) {
      struct engine_col *c = &e->cols[n++];
      *c = (struct engine_col){.seq = it->seq, .pos = base + k, .rope_pos = base + k, .token = it->tokens[k]};
#ifdef FORAY_MUTANT_KV_OFF_BY_ONE
      c->pos += it->seq->mutant_kv;
#endif
#ifdef FORAY_MUTANT_ROPE_AFTER_ROLLBACK
      c->rope_pos += it->seq->mutant_rope;
#endif
      if (k >= first) c->logits = it->logits + (size_t)(k - first) * (size_t)e->info.n_vocab;
      if (n == ENGINE_SLICE) {
        engine_slice(e, n);
        n = 0;
      }
    }
  }
  if (n) engine_slice(e, n);
  for (int i = 0; i < n_items; i++) {
    items[i].seq->len += items[i].n;
#ifdef FORAY_MUTANT_KV_OFF_BY_ONE
    items[i].seq->mutant_kv = 0;
    engine_seq_trim(items[i].seq);
#endif
#ifdef FORAY_MUTANT_ROPE_AFTER_ROLLBACK
    items[i].seq->mutant_rope = 0;
#endif
  }
  return FORAY_OK;
}

/* ---- scoring ---- */

double foray_engine_logprob(const float *logits, int32_t n, int32_t id) {
  return (double)logits[id] - fm_logsumexp(logits, n, NULL);
}

struct score_job {
  const float *logits;
  int32_t n_vocab;
  const int32_t *next;
  double *logp;
  int32_t from, first;
};

static void score_part(void *arg, int part, int thread) {
  const struct score_job *j = arg;
  (void)thread;
  if (j->first + part < j->from) return;
  j->logp[part] =
      foray_engine_logprob(j->logits + (size_t)part * (size_t)j->n_vocab, j->n_vocab, j->next[part]);
}

enum foray_status foray_engine_score(struct foray_engine *e, struct foray_engine_seq *s,
                                     const int32_t *tokens, int32_t n, int32_t from, double *logp,
                                     struct foray_err *err) {
  enum { CHUNK = 32 };
  if (!tokens || !logp || n < 1 || from < 0)
    return foray_err_set(err, FORAY_E_ARG, "a score of %d tokens from %d on", (int)n, (int)from);
  for (int32_t i = 0; i < n; i++)
    if (tokens[i] < 0 || tokens[i] >= e->info.n_vocab)
      return foray_err_set(err, FORAY_E_ARG, "token id %d is outside the vocabulary of %d", (int)tokens[i],
                           (int)e->info.n_vocab);
  float *logits = malloc(CHUNK * (size_t)e->info.n_vocab * sizeof *logits);
  if (!logits)
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory for the logits of %d positions", (int)CHUNK);
  const int32_t start = s->len;
  enum foray_status st = FORAY_OK;
  if (from == 0) logp[0] = 0.0;
  for (int32_t i = 0; i < n && st == FORAY_OK;) {
    /* Logits of position k score token k + 1, so nothing before from - 1 needs any. */
    int32_t m = n - i, want = 0;
    if (i + 1 < from) {
      if (m > from - 1 - i) m = from - 1 - i;
    } else {
      if (m > CHUNK) m = CHUNK;
      want = m;
    }
    const struct foray_engine_item it = {
        .seq = s, .tokens = tokens + i, .n = m, .n_logits = want, .logits = logits};
    st = foray_engine_pass(e, &it, 1, err);
    if (st == FORAY_OK && want) {
      struct score_job j = {logits, e->info.n_vocab, tokens + i + 1, logp + i + 1, from, i + 1};
      foray_pool_run(e->pool, score_part, &j, i + m < n ? m : m - 1);
    }
    i += m;
  }
  if (st != FORAY_OK) (void)foray_engine_seq_truncate(s, start);
  free(logits);
  return st;
}
