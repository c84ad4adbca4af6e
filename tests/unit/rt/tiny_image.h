/* A whole weight image with random codes, made in memory: what a packed model looks like to a device, in
 * milliseconds and without a model file. Shapes are small but awkward (odd counts of groups, rows that are no
 * multiple of 16, grouped heads, a trimmed head). Used by the tests of lowering, drafter and devices. */
#ifndef FORAY_UNIT_RT_TINY_IMAGE_H
#define FORAY_UNIT_RT_TINY_IMAGE_H

#include "core/philox.h"
#include "model/config.h"
#include "model/image_plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tiny_image {
  struct foray_image *img;
  uint8_t *mem;
};

struct tiny_opts {
  uint64_t seed;
  uint32_t n_layer, n_exits; /* exits are spread over the layers */
  uint32_t n_trim;           /* 0: no trimmed head (and no exits) */
  bool prev;                 /* exits read what the position before kept */
  bool qwen2, tied, q8;      /* q8: every matrix Q8S, else Q4A and Q8S mixed */
  uint32_t head_dim;         /* 0: 32 */
};

static inline uint32_t tiny_rnd(uint64_t seed, uint32_t a, uint32_t b) {
  return foray_philox4x32(seed, a, b, 0x7179, 0).v[0];
}

static inline void tiny_fill(uint8_t *mem, struct foray_image_tensor *t, uint64_t seed, uint32_t which,
                             int gain) {
  uint32_t k = 0;
#define RND() tiny_rnd(seed, which, k++)
  if (t->type == FORAY_IMAGE_V32) {
    int32_t *m = (int32_t *)(void *)(mem + t->data_off);
    t->exp = -20;
    for (uint32_t i = 0; i < t->cols; i++) {
      uint32_t r = RND();
      m[i] = (int32_t)((1 << 20) + r % (1 << 19)) * (r >> 28 ? 1 : -1);
    }
    return;
  }
  uint16_t *mant = (uint16_t *)(void *)(mem + t->scale_off);
  for (uint32_t r = 0; r < t->rows; r++) mant[r] = (uint16_t)(20000 + RND() % 40000);
  /* |w| is about 40000 * 170 * 70 * 2^exp = 2^28.8 2^exp; aim at gain / sqrt(cols) */
  t->exp = gain - 29 - (int)lround(log2(sqrt(t->cols)));
  if (t->has_bias) {
    int32_t *b = (int32_t *)(void *)(mem + t->bias_off);
    t->bias_exp = -22;
    for (uint32_t r = 0; r < t->rows; r++) b[r] = (int32_t)(RND() % (1 << 21)) - (1 << 20);
  }
  for (uint32_t r = 0; r < t->rows; r++)
    for (uint32_t g = 0; g < t->groups; g++) {
      uint8_t *block = mem + t->data_off + (uint64_t)(r / 16) * t->block_bytes;
      uint8_t *codes = block + foray_image_codes_at(t->type, g),
              *beats = block + foray_image_beats_at(t->type, g);
      uint32_t lane = r % 16;
      codes[lane] = (uint8_t)(90 + RND() % 166);
      if (t->type == FORAY_IMAGE_Q4A) {
        codes[16 + lane] = (uint8_t)(110 + RND() % 20); /* near 7.5 * 16: almost no mean */
        for (uint32_t c = 0; c < 32; c += 8)
          for (uint32_t j = 0; j < 4; j++) beats[c / 8 * 64 + lane * 4 + j] = (uint8_t)RND();
      } else
        for (uint32_t c = 0; c < 32; c++)
          beats[c / 4 * 64 + lane * 4 + c % 4] = (uint8_t)(int8_t)((int)(RND() % 255) - 127);
    }
#undef RND
}

/* False: out of memory or the reader refused it (then *err says why). */
static inline bool tiny_image_make(const struct tiny_opts *o, struct tiny_image *out, struct foray_err *err) {
  struct foray_image plan = {0};
  struct foray_image_tensor *t = calloc(FORAY_IMAGE_TENSORS_MAX, sizeof *t);
  struct foray_image_config *c = &plan.config;
  if (!t) return false;
  *c = (struct foray_image_config){.arch = o->qwen2 ? FORAY_ARCH_QWEN2 : FORAY_ARCH_LLAMA,
                                   .n_layer = o->n_layer,
                                   .n_embd = 96,
                                   .n_ff = 160,
                                   .n_head = 4,
                                   .n_head_kv = 2,
                                   .head_dim = o->head_dim ? o->head_dim : 32,
                                   .n_vocab = 203,
                                   .n_ctx_train = 512,
                                   .rope_base = 10000,
                                   .eps_mant = 10995116,
                                   .eps_exp = -40,
                                   .tied = o->tied,
                                   .n_exits = o->n_trim ? o->n_exits : 0,
                                   .exit_prev = o->n_trim && o->n_exits && o->prev,
                                   .n_trim = o->n_trim};
  for (uint32_t e = 0; e < c->n_exits; e++) {
    c->exit_layer[e] = 1 + e * (c->n_layer - 1) / c->n_exits;
    c->exit_rows[e] = e == 0 ? o->n_trim * 2 / 3 : o->n_trim;
    c->exit_threshold[e] = .5f;
  }
  plan.tensors = t;
  plan.n_tensors = foray_image_plan_list(c, true, t);
  for (uint32_t i = 0; i < plan.n_tensors; i++) {
    enum foray_image_role r = t[i].role;
    bool vec = r == FORAY_IMAGE_ATTN_NORM || r == FORAY_IMAGE_FFN_NORM || r == FORAY_IMAGE_EXIT_NORM ||
               r == FORAY_IMAGE_OUTPUT_NORM;
    bool table = r == FORAY_IMAGE_TOKEN_EMBD || r == FORAY_IMAGE_HEAD_FULL || r == FORAY_IMAGE_HEAD;
    t[i].type = vec                                                  ? FORAY_IMAGE_V32
                : table || o->q8 || tiny_rnd(o->seed, 1, i) % 3 == 0 ? FORAY_IMAGE_Q8S
                                                                     : FORAY_IMAGE_Q4A;
    snprintf(t[i].name, sizeof t[i].name, "%s", foray_image_role_name(r));
  }
  const char meta[] = "{}";
  struct foray_image_header h = {.n_tensors = plan.n_tensors, .config = *c, .flags = c->tied ? 0 : 1};
  h.dir_off = FORAY_IMAGE_PAGE;
  h.meta_off = h.dir_off + (uint64_t)plan.n_tensors * FORAY_IMAGE_ENTRY_BYTES;
  h.meta_bytes = sizeof meta - 1;
  h.vocab_off = (h.meta_off + h.meta_bytes + 63) / 64 * 64;
  h.vocab_bytes = (uint64_t)c->n_trim * 4;
  uint8_t *mem = NULL;
  bool ok = foray_image_plan_place(&plan, h.vocab_off + h.vocab_bytes);
  if (ok) mem = aligned_alloc(64, (plan.file_bytes + 63) / 64 * 64);
  ok = mem != NULL;
  if (ok) {
    memset(mem, 0, (plan.file_bytes + 63) / 64 * 64);
    h.file_bytes = plan.file_bytes;
    h.stream_off = plan.stream_off;
    h.stream_bytes = plan.stream_bytes;
    h.rest_off = plan.rest_off;
    h.rest_bytes = plan.rest_bytes;
    for (uint32_t i = 0; i < plan.n_tensors; i++) {
      int gain = t[i].role == FORAY_IMAGE_HEAD || t[i].role == FORAY_IMAGE_HEAD_FULL ||
                         (t[i].role == FORAY_IMAGE_TOKEN_EMBD && c->tied)
                     ? 2
                     : 0; /* sharper choices */
      tiny_fill(mem, &t[i], o->seed, 100 + i, gain);
      foray_image_entry_encode(&t[i], mem + h.dir_off + (uint64_t)i * FORAY_IMAGE_ENTRY_BYTES);
    }
    memcpy(mem + h.meta_off, meta, h.meta_bytes);
    uint32_t *vocab = (uint32_t *)(void *)(mem + h.vocab_off); /* a permutation: i * 37 mod 203 */
    for (uint32_t i = 0; i < c->n_trim; i++) vocab[i] = i * 37 % c->n_vocab;
    foray_sha256_once(mem + FORAY_IMAGE_PAGE, plan.file_bytes - FORAY_IMAGE_PAGE, h.body_sha256);
    foray_image_header_encode(&h, mem);
    ok = foray_image_open_memory(mem, plan.file_bytes, "tiny", &out->img, err) == FORAY_OK;
  }
  free(t);
  if (!ok) free(mem);
  out->mem = ok ? mem : NULL;
  return ok;
}

static inline void tiny_image_free(struct tiny_image *t) {
  foray_image_close(t->img);
  free(t->mem);
}

#endif
