/* dev/tiny_program.h - a random three-layer model as a draft program, for tests of devices: exits after
 * layers 0 and 1 with a trimmed head, Q4A and Q8S matrices, biases. Everything comes from a seed, so two
 * devices can be given the same bytes. */
#ifndef FORAY_DEV_TINY_PROGRAM_H
#define FORAY_DEV_TINY_PROGRAM_H

#include "core/imath.h"
#include "dev/device.h"

#include <stdlib.h>
#include <string.h>

enum {
  TINY_WIDTH = 64,
  TINY_FF = 96,
  TINY_HD = 32,
  TINY_HEADS = 4,
  TINY_KVH = 2,
  TINY_VOCAB = 100,
  TINY_TRIM = 40,
  TINY_LAYERS = 3,
  TINY_MAX_POS = 160,
  TINY_RING = 32,
  TINY_HEAP = (1 << 20) - 64, /* below a mapping: sanitizers see its ends */
};

struct tiny {
  struct foray_dev *d;
  uint64_t prog, state, kv, resid, keep, run_addr, feed, ring, dump, kv_bytes, dump_bytes;
  uint32_t n, w[128][FORAY_ABI_DESC_WORDS];
  struct foray_rec_run run; /* defaults of tiny_run: change before a call */
  struct foray_dev_result res;
  struct foray_err err;
  uint64_t rng;
  bool failed; /* an upload or an allocation did */
};

static inline uint32_t tiny_rand(struct tiny *t) {
  t->rng ^= t->rng << 13, t->rng ^= t->rng >> 7, t->rng ^= t->rng << 17;
  return (uint32_t)(t->rng >> 20);
}

static inline uint64_t tiny_put(struct tiny *t, const void *data, uint64_t bytes) {
  uint64_t at = 0;
  if (foray_dev_alloc(t->d, bytes, &at, &t->err) != FORAY_OK ||
      (data && foray_dev_upload(t->d, at, data, bytes, &t->err) != FORAY_OK))
    t->failed = true;
  return at;
}

/* Random matrix; weights of about 1/8, so that a layer keeps its scale. */
static inline uint32_t tiny_matrix(struct tiny *t, uint32_t qtype, uint32_t rows, uint32_t cols, bool bias) {
  struct foray_dev_matrix m;
  if (!foray_dev_matrix_of(qtype, rows, cols, bias, &m)) t->failed = true;
  uint8_t *p = calloc(1, m.bytes);
  if (!p) return 0;
  for (uint64_t i = m.data_at; i < m.bytes; i++) p[i] = (uint8_t)tiny_rand(t);
  for (uint32_t r = 0; r < m.rows_pad; r++) {
    uint16_t mant = r < rows ? (uint16_t)(32768 + tiny_rand(t) % 32768) : 0;
    memcpy(p + 2 * r, &mant, 2);
    int32_t b = r < rows ? (int32_t)(tiny_rand(t) << 4) : 0;
    if (bias) memcpy(p + m.bias_at + 4 * (uint64_t)r, &b, 4);
  }
  uint32_t unit = FORAY_DEV_UNITS(tiny_put(t, p, m.bytes));
  free(p);
  return unit;
}

#define TINY_EMIT(t, name, ...)                                                                              \
  do {                                                                                                       \
    struct foray_desc_##name d_ = {__VA_ARGS__};                                                             \
    foray_desc_##name##_pack(&d_, (t)->w[(t)->n++]);                                                         \
  } while (0)

static inline uint32_t tiny_gamma(struct tiny *t) {
  int32_t g[TINY_WIDTH];
  for (int i = 0; i < TINY_WIDTH; i++) g[i] = (1 << 29) + (int32_t)(tiny_rand(t) % (1u << 29));
  return FORAY_DEV_UNITS(tiny_put(t, g, sizeof g));
}

enum { TINY_E = -32 };

/* cols: columns of a batch. The weights do not depend on it. */
static inline void tiny_build(struct tiny *t, uint32_t cols) {
  uint32_t at = 0;
  const uint32_t yw = (uint32_t)(foray_dev_y32_bytes(TINY_HEADS * TINY_HD) / 64) * cols;
#define SLOT (at += 2 * yw, at - 2 * yw)
  uint32_t r = SLOT, n = SLOT, q = SLOT, k = SLOT, v = SLOT, a = SLOT, y = SLOT, g = SLOT, u = SLOT, h = SLOT,
           x = SLOT;
#undef SLOT
  uint64_t freq[TINY_HD / 2];
  for (uint32_t i = 0; i < TINY_HD / 2; i++) freq[i] = foray_rope_freq_q64(10000, TINY_HD, i);
  uint32_t freq_at = FORAY_DEV_UNITS(tiny_put(t, freq, sizeof freq));
  uint32_t ids[TINY_TRIM];
  for (uint32_t i = 0; i < TINY_TRIM; i++) ids[i] = (i * 37 + 5) % TINY_VOCAB;
  uint32_t ids_at = FORAY_DEV_UNITS(tiny_put(t, ids, sizeof ids));
  uint32_t embd = tiny_matrix(t, FORAY_QTYPE_Q8S, TINY_VOCAB, TINY_WIDTH, false);
  uint32_t trim = tiny_matrix(t, FORAY_QTYPE_Q8S, TINY_TRIM, TINY_WIDTH, false);
  uint32_t scale, root_n = foray_dev_root_n(TINY_WIDTH);
  int32_t scale_exp;
  foray_dev_attn_scale(TINY_HD, &scale, &scale_exp);
  t->n = 1;
  for (uint32_t l = 0; l < TINY_LAYERS; l++) {
    uint32_t type = l == 1 ? FORAY_QTYPE_Q8S : FORAY_QTYPE_Q4A;
    uint32_t kv = (uint32_t)(foray_dev_kv_bytes(TINY_HD, TINY_KVH, TINY_MAX_POS) / 64) * l;
    TINY_EMIT(t, seg, .index = l);
    if (l == 0)
      TINY_EMIT(t, embed, .qtype = FORAY_QTYPE_Q8S, .dst = r, .cols = TINY_WIDTH, .rows = TINY_VOCAB,
                .addr = embd, .exp = TINY_E);
#define NORM(dst_)                                                                                           \
  TINY_EMIT(t, rmsnorm, .src = r, .dst = dst_, .n = TINY_WIDTH, .gamma = tiny_gamma(t), .gamma_exp = -30,    \
            .eps_exp = -40, .eps_mant = 1 << 20, .root_n = root_n)
#define MUL(src_, dst_, rows_, cols_, bias_)                                                                 \
  TINY_EMIT(t, gemv, .flags = (bias_) ? FORAY_DF_BIAS : 0, .qtype = type, .src = src_, .dst = dst_,          \
            .cols = cols_, .rows = rows_, .addr = tiny_matrix(t, type, rows_, cols_, bias_), .exp = TINY_E,  \
            .bias_exp = (bias_) ? -33 : 0)
    NORM(n);
    MUL(n, q, TINY_HEADS * TINY_HD, TINY_WIDTH, true);
    MUL(n, k, TINY_KVH * TINY_HD, TINY_WIDTH, true);
    MUL(n, v, TINY_KVH * TINY_HD, TINY_WIDTH, l == 2);
    TINY_EMIT(t, rope, .flags = l == 1 ? 0 : FORAY_DF_NEOX, .vec = q, .head_dim = TINY_HD,
              .heads = TINY_HEADS, .freq = freq_at);
    TINY_EMIT(t, rope, .flags = l == 1 ? 0 : FORAY_DF_NEOX, .vec = k, .head_dim = TINY_HD, .heads = TINY_KVH,
              .freq = freq_at);
    TINY_EMIT(t, kv_put, .k = k, .v = v, .head_dim = TINY_HD, .heads = TINY_KVH, .offset = kv);
    TINY_EMIT(t, attn, .q = q, .dst = a, .head_dim = TINY_HD, .heads = TINY_HEADS, .offset = kv,
              .kv_heads = TINY_KVH, .scale_exp = scale_exp, .scale = scale);
    MUL(a, y, TINY_WIDTH, TINY_HEADS * TINY_HD, false);
    TINY_EMIT(t, add, .acc = r, .src = y, .n = TINY_WIDTH);
    NORM(n);
    MUL(n, g, TINY_FF, TINY_WIDTH, false);
    MUL(n, u, TINY_FF, TINY_WIDTH, false);
    TINY_EMIT(t, silu_mul, .gate = g, .up = u, .dst = h, .n = TINY_FF);
    MUL(h, y, TINY_WIDTH, TINY_FF, false);
    TINY_EMIT(t, add, .acc = r, .src = y, .n = TINY_WIDTH);
    bool final = l == TINY_LAYERS - 1;
    TINY_EMIT(t, test, .flags = final ? FORAY_DF_FINAL : 0, .index = l);
    NORM(n);
    if (!final) {
      MUL(n, y, TINY_WIDTH, TINY_WIDTH, false);
      if (l == 1) { /* the second exit also reads what the position before kept */
        TINY_EMIT(t, prev, .dst = x);
        MUL(x, g, TINY_WIDTH, TINY_WIDTH, false);
        TINY_EMIT(t, add, .acc = y, .src = g, .n = TINY_WIDTH);
      }
      TINY_EMIT(t, quant, .src = y, .dst = x, .n = TINY_WIDTH);
      TINY_EMIT(t, keep, .src = x);
      TINY_EMIT(t, head, .qtype = FORAY_QTYPE_Q8S, .src = x, .ids = ids_at, .cols = TINY_WIDTH,
                .rows = TINY_TRIM, .addr = trim, .exp = TINY_E + 1, .used = l ? TINY_TRIM : 30);
    } else {
      TINY_EMIT(t, keep, .src = n);
      TINY_EMIT(t, head, .qtype = FORAY_QTYPE_Q8S, .src = n, .ids = 0, .cols = TINY_WIDTH, .rows = TINY_VOCAB,
                .addr = embd, .exp = TINY_E, .used = TINY_VOCAB);
    }
    TINY_EMIT(t, exit, .flags = 0);
#undef NORM
#undef MUL
  }
  TINY_EMIT(t, end, .flags = 0);
  struct foray_desc_prog p = {.version = FORAY_ABI_VERSION,
                              .n_desc = t->n,
                              .n_seg = TINY_LAYERS,
                              .n_test = TINY_LAYERS,
                              .cols = cols,
                              .width = TINY_WIDTH,
                              .resid = r,
                              .vocab = TINY_VOCAB,
                              .abi_hash = FORAY_ABI_HASH};
  foray_desc_prog_pack(&p, t->w[0]);
  t->prog = tiny_put(t, t->w, t->n * FORAY_ABI_UNIT);
}

static inline bool tiny_reset(struct tiny *t, uint32_t resid_slots) {
  struct foray_dev_context c = {.max_pos = TINY_MAX_POS,
                                .kv_addr = t->kv,
                                .kv_bytes = t->kv_bytes,
                                .resid_addr = t->resid,
                                .resid_slots = resid_slots,
                                .keep_addr = t->keep,
                                .keep_slots = 9};
  return foray_dev_state_reset(t->d, t->state, &c, &t->err) == FORAY_OK;
}

static inline bool tiny_open(struct tiny *t, const char *spec, uint64_t seed, uint32_t cols) {
  memset(t, 0, sizeof *t);
  t->rng = seed * 2654435761u + 88172645463325252u;
  if (foray_dev_open(spec, &(struct foray_dev_opts){.heap_bytes = TINY_HEAP, .threads = 2}, &t->d, &t->err) !=
      FORAY_OK)
    return false;
  void *zeros = calloc(1, TINY_HEAP); /* a card keeps what was there before */
  if (!zeros || foray_dev_upload(t->d, 0, zeros, TINY_HEAP, &t->err) != FORAY_OK) t->failed = true;
  free(zeros);
  t->kv_bytes = TINY_LAYERS * foray_dev_kv_bytes(TINY_HD, TINY_KVH, TINY_MAX_POS);
  t->dump_bytes = TINY_MAX_POS * 512;
  t->state = tiny_put(t, NULL, FORAY_STATE_BYTES);
  t->run_addr = tiny_put(t, NULL, FORAY_RUN_BYTES);
  t->kv = tiny_put(t, NULL, t->kv_bytes);
  t->resid = tiny_put(t, NULL, 64 * foray_dev_y32_bytes(TINY_WIDTH));
  t->keep = tiny_put(t, NULL, 9 * foray_dev_a16_bytes(TINY_WIDTH));
  t->feed = tiny_put(t, NULL, 4 * TINY_MAX_POS);
  t->ring = tiny_put(t, NULL, TINY_RING * FORAY_RING_BYTES);
  t->dump = tiny_put(t, NULL, t->dump_bytes);
  tiny_build(t, cols);
  t->run = (struct foray_rec_run){.magic = FORAY_MAGIC_RUN,
                                  .program = FORAY_DEV_UNITS(t->prog),
                                  .state = FORAY_DEV_UNITS(t->state),
                                  .feed = FORAY_DEV_UNITS(t->feed),
                                  .ring = FORAY_DEV_UNITS(t->ring),
                                  .ring_slots = TINY_RING,
                                  .dump = FORAY_DEV_UNITS(t->dump),
                                  .dump_units = (uint32_t)(t->dump_bytes / 64)};
  return tiny_reset(t, 64) && !t->failed;
}

static inline void tiny_close(struct tiny *t) { foray_dev_close(t->d); }

/* Feeds n tokens at `start`, then up to `drafts` drafts, with t->run's other fields. */
static inline enum foray_status tiny_run(struct tiny *t, const uint32_t *tokens, uint32_t n, uint32_t start,
                                         uint32_t drafts) {
  uint32_t w[FORAY_ABI_RUN_WORDS];
  t->run.feed_n = n, t->run.start = start, t->run.max_drafts = drafts;
  foray_rec_run_pack(&t->run, w);
  enum foray_status st = FORAY_OK;
  if (n) st = foray_dev_upload(t->d, t->feed, tokens, 4 * (uint64_t)n, &t->err);
  if (st == FORAY_OK) st = foray_dev_upload(t->d, t->run_addr, w, sizeof w, &t->err);
  return st != FORAY_OK ? st : foray_dev_run(t->d, t->run_addr, 0, &t->res, &t->err);
}

/* out has TINY_RING places; false when the ring could not be read. */
static inline bool tiny_ring(struct tiny *t, struct foray_rec_ring *out) {
  return foray_dev_ring(t->d, &t->run, t->res.drafted, out, &t->err) == FORAY_OK;
}

#endif
