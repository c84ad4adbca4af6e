#include "rt/plan.h"

#include "core/err.h"
#include "dev/device.h"
#include "rt/drafter.h"

#include <string.h>

static const struct foray_board boards[] = {
#define FORAY_BOARD(name, config, mhz, port, cols, mib, memory, peak, eff, lanes, about)                     \
  {#name, config, memory, about, (mhz)*1e6, port, (mib)*1048576.0, (peak)*1e6, eff, cols, lanes},
#include "rt/boards.def"
#undef FORAY_BOARD
};

const struct foray_board *foray_board_at(uint32_t i) {
  return i < sizeof boards / sizeof *boards ? &boards[i] : NULL;
}
const struct foray_board *foray_board_find(const char *name) {
  for (uint32_t i = 0; i < sizeof boards / sizeof *boards; i++)
    if (!strcmp(boards[i].name, name)) return &boards[i];
  return NULL;
}

enum {
  OP_CYCLES = 60,         /* from one op's last result to the next one's first: fetch, decode, pipeline */
  OPS_LAYER = 16,         /* descriptors of a layer */
  OPS_EXIT = 5,           /* of an exit section */
  EXIT_UNIT_CYCLES = 900, /* features of a decision, one after the other */
};

/* Bytes of one tensor; for a head only the blocks of `rows` rows. */
static double bytes_of(const struct foray_image *img, enum foray_image_role role, uint32_t index,
                       uint32_t rows) {
  const struct foray_image_tensor *t = foray_image_find(img, role, index);
  if (!t) return 0;
  if (!rows || rows >= t->rows) return (double)t->bytes;
  return (double)((rows + 15) / 16) * (t->block_bytes + 32.0);
}

static double layer_bytes(const struct foray_image *img, uint32_t il) {
  static const enum foray_image_role roles[] = {
      FORAY_IMAGE_ATTN_NORM, FORAY_IMAGE_ATTN_Q,      FORAY_IMAGE_ATTN_K,
      FORAY_IMAGE_ATTN_V,    FORAY_IMAGE_ATTN_OUTPUT, FORAY_IMAGE_FFN_NORM,
      FORAY_IMAGE_FFN_GATE,  FORAY_IMAGE_FFN_UP,      FORAY_IMAGE_FFN_DOWN};
  double sum = 0;
  for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) sum += bytes_of(img, roles[i], il, 0);
  return sum;
}

/* Vector work of a layer in elements: two norms read twice, q and k turned, KV coded, attention's output,
 * gate and up to the product, two additions to the residual, and the normalisation of each matrix' output. */
static double layer_elements(const struct foray_image_config *c) {
  const double width = c->n_embd, ff = c->n_ff, kv = (double)c->n_head_kv * c->head_dim,
               q = (double)c->n_head * c->head_dim;
  return 2 * 2 * width + 2 * (q + kv) + 2 * kv + q + 2 * ff + 2 * 2 * width +
         (q + 2 * kv + 2 * width + 2 * ff);
}

enum foray_status foray_plan_make(const struct foray_image *img, const struct foray_board *b,
                                  uint32_t position, uint32_t ctx, struct foray_plan *p,
                                  struct foray_err *err) {
  const struct foray_image_config *c = &img->config;
  memset(p, 0, sizeof *p);
  enum foray_status st = foray_drafter_heap_bytes(
      img, &(struct foray_drafter_opts){.ctx = ctx, .columns = b->columns}, &p->heap_bytes, err);
  if (st) return st;
  p->fits = (double)p->heap_bytes <= b->memory_bytes;
  const double memory_rate = b->peak / b->clock_hz;
  p->rate = (memory_rate < b->port_bytes ? memory_rate : b->port_bytes) * b->efficiency;
  const double record = (double)foray_dev_kv_record(c->head_dim) * c->n_head_kv;
  double weights = 0, kv = 0, lost = 0;
  uint32_t exit = 0;
  for (uint32_t il = 0; il <= c->n_layer; il++) {
    const bool test = exit < c->n_exits && c->exit_layer[exit] == il, last = il == c->n_layer;
    if (test || last) {
      const uint32_t n = p->n_depths++;
      if (last)
        weights += bytes_of(img, FORAY_IMAGE_OUTPUT_NORM, 0, 0) +
                   bytes_of(img, c->n_trim ? FORAY_IMAGE_HEAD : FORAY_IMAGE_HEAD_FULL, 0, 0);
      else
        weights += bytes_of(img, FORAY_IMAGE_EXIT_NORM, exit, 0) +
                   bytes_of(img, FORAY_IMAGE_EXIT_MAP, exit, 0) +
                   bytes_of(img, FORAY_IMAGE_EXIT_PREV, exit, 0) +
                   bytes_of(img, FORAY_IMAGE_HEAD, 0, c->exit_rows[exit]);
      lost += OPS_EXIT * OP_CYCLES + EXIT_UNIT_CYCLES + 4.0 * c->n_embd / b->vector_lanes;
      struct foray_plan_depth *d = &p->depth[n];
      d->layer = il;
      d->weight_bytes = weights;
      d->kv_bytes = kv;
      d->stream_cycles = (weights + kv) / p->rate;
      d->lost_cycles = lost;
      d->seconds = (d->stream_cycles + lost) / b->clock_hz;
      if (last) break;
      exit++;
    }
    weights += layer_bytes(img, il);
    kv += record * position;
    lost += OPS_LAYER * OP_CYCLES + layer_elements(c) / b->vector_lanes;
  }
  return FORAY_OK;
}

double foray_plan_draft_seconds(const struct foray_plan *p, const double share[FORAY_PLAN_DEPTHS_MAX]) {
  double s = 0;
  for (uint32_t e = 0; e < p->n_depths; e++) s += share[e] * p->depth[e].seconds;
  return s;
}
