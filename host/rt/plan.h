/* rt/plan.h - what a board would do with a model, computed from the weight image: does it fit, how long does
 * a token take at each depth, up to which round trip does drafting pay. Nothing is run.
 *
 *   const struct foray_board *b = foray_board_find("kv260");
 *   struct foray_plan p;
 *   if (foray_plan_make(image, b, 1024, 4096, &p, &err)) return err.code;
 *   for (uint32_t e = 0; e < p.n_depths; e++) print(p.depth[e].layer, 1 / p.depth[e].seconds);
 *
 * The cycle model. A token streams the matrices of the layers that it runs, of the exits that it tries and of
 * the head, and the KV records of `position` positions: bytes / (rate) cycles, rate = the smaller of the
 * ports' and the memory's bytes a cycle, times the efficiency. Vector operations and commands are hidden
 * behind the stream as far as its prefetch reaches; the rest is `lost` cycles: for each op its fill and
 * drain, and elements / lanes beyond the prefetch.
 *
 * Pure functions; thread rule: none. */
#ifndef FORAY_RT_PLAN_H
#define FORAY_RT_PLAN_H

#include "model/image.h"

struct foray_board {
  const char *name, *config, *memory_name, *about;
  double clock_hz, port_bytes, memory_bytes, peak; /* peak: bytes a second */
  double efficiency;
  uint32_t columns, vector_lanes;
};

const struct foray_board *foray_board_at(uint32_t i);         /* NULL behind the last */
const struct foray_board *foray_board_find(const char *name); /* NULL: unknown */

enum { FORAY_PLAN_DEPTHS_MAX = FORAY_IMAGE_EXITS_MAX + 1 };

struct foray_plan {
  uint64_t heap_bytes; /* of the drafter with `ctx` positions */
  bool fits;
  double rate; /* bytes a cycle that the stream gets */
  uint32_t n_depths;
  struct foray_plan_depth {
    uint32_t layer;      /* layers that run; the last entry is full depth */
    double weight_bytes; /* matrices, tests of earlier exits included */
    double kv_bytes;     /* records read */
    double stream_cycles, lost_cycles, seconds;
  } depth[FORAY_PLAN_DEPTHS_MAX]; /* a token that leaves there */
};

/* position: of the token (attention reads that many records); ctx: positions of the context, for the memory.
 */
enum foray_status foray_plan_make(const struct foray_image *img, const struct foray_board *board,
                                  uint32_t position, uint32_t ctx, struct foray_plan *out,
                                  struct foray_err *err) FORAY_NODISCARD;

/* Mean seconds of a draft when share[e] of the tokens leave at depth e (they sum to 1). */
double foray_plan_draft_seconds(const struct foray_plan *p, const double share[FORAY_PLAN_DEPTHS_MAX]);

#endif
