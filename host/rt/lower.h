/* rt/lower.h - a weight image becomes a draft program (descriptors of hw/abi) and a plan of the device's
 * heap. Pure: nothing is allocated on a device, nothing is uploaded; rt/drafter.c does that.
 *
 *   struct foray_lowered *lw;
 *   if (foray_lower(img, &(struct foray_lower_opts){.ctx = 4096}, &lw, &err) != FORAY_OK) ...
 *   lw->desc[lw->n_desc][16]      the program: PROG { SEG layers { TEST exit EXIT }? }+ END
 *   lw->map.kv, ...               where everything lies, in units of FORAY_UNIT bytes
 *
 * The model is cut into segments behind the exits' layers. A program without exits is cut at the same places,
 * so that all programs of one image work on the same context. Thread rule: immutable after foray_lower. */
#ifndef FORAY_RT_LOWER_H
#define FORAY_RT_LOWER_H

#include "model/image.h"
#include <foray/status.h>

#include "gen/foray_abi.h"

struct foray_lower_opts {
  uint32_t ctx;        /* positions: 1..FORAY_ABI_POSITIONS_MAX; 0: 4096 or the model's own if less */
  uint32_t columns;    /* of one weight pass, 1..FORAY_ABI_COLS_MAX; 0: the most */
  uint32_t ring_slots; /* 0: 64 */
  bool no_exits;       /* only the final test */
  bool full_head;      /* the final test chooses among all ids */
  uint32_t score_rows; /* make room for logits of this many positions (full head); 0: none */
  uint32_t base;       /* first unit of the heap that may be used; 0: 1 */
};

/* Heap addresses and sizes in units; 0 = absent. */
struct foray_heap_map {
  uint32_t run, state, program, program2, ring, feed, freq, vocab, stream, rest, kv, resid, keep, dump;
  uint32_t ring_slots, feed_ids, kv_layer_units, resid_slots, keep_slots, dump_units;
  uint32_t end; /* first unit behind it all */
};

struct foray_lowered {
  uint32_t (*desc)[FORAY_ABI_DESC_WORDS]; /* owned */
  uint32_t n_desc, n_seg, n_test;         /* n_test includes the final one */
  uint32_t columns, ctx, scratch_units;
  uint32_t head_rows;                       /* of the final test */
  uint32_t test_layer[FORAY_ABI_TESTS_MAX]; /* layers that have run before test e */
  struct foray_heap_map map;
};

/* *out is owned by the caller. FORAY_E_UNSUPPORTED: a shape or a number of exits that descriptors cannot say;
 * FORAY_E_ARG: an option out of range; FORAY_E_LIMIT: more heap than addresses reach. */
enum foray_status foray_lower(const struct foray_image *img, const struct foray_lower_opts *o,
                              struct foray_lowered **out, struct foray_err *err) FORAY_NODISCARD;
void foray_lowered_free(struct foray_lowered *lw); /* NULL is allowed */

/* A second program over the same image, context and map (copied from base), with other exits or another head:
 * it goes to map.program2. Only no_exits and full_head of o are read. */
enum foray_status foray_lower_again(const struct foray_image *img, const struct foray_lowered *base,
                                    const struct foray_lower_opts *o, struct foray_lowered **out,
                                    struct foray_err *err) FORAY_NODISCARD;

#endif
