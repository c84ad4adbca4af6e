/* include/hls_program.h - a whole draft program from the run block: checks, then control (docs/numerics.md
 * 10). */
#ifndef FORAY_HLS_PROGRAM_H
#define FORAY_HLS_PROGRAM_H

#include "include/hls_ops.h"

struct hls_segment {
  uint32_t body, body_end; /* descriptors [body, body_end) */
  uint32_t test, test_end; /* exit section [test, test_end) */
  uint32_t exit, has_test, final;
};

struct hls_checked {
  struct foray_rec_run run;
  struct foray_rec_state state;
  struct foray_desc_prog prog;
  struct hls_segment seg[FORAY_ABI_SEGMENTS_MAX];
  uint32_t final_rows; /* rows of the final head */
};

struct hls_result {
  uint32_t error, error_desc, drafted, len, stop, dumped;
};

/* What a run keeps in local memory. Zero it once; the scratchpad and the counters live on. */
struct hls_machine {
  struct hls_checked c;
  struct hls_result res;
  uint32_t desc[FORAY_HLS_PROGRAM][FORAY_ABI_DESC_WORDS]; /* private copy: the run cannot change it */
  uint64_t counter[FORAY_COUNTER_COUNT];
  uint32_t steps, at, seg; /* descriptors executed; the present one and its segment */
  uint32_t tokens[FORAY_ABI_COLS_MAX];
  struct hls_product product;
  struct hls_exit unit[FORAY_HLS_COLS];
  /* the draft under way: entry i of the ring is the token at position first + i; entries [unchecked, drafted)
   * left early and full depth has not looked at them */
  uint32_t first, drafted, unchecked, rule, fired;
};

/* Error code; *at is the descriptor, UINT32_MAX for run block and context. */
uint32_t hls_validate(const foray_word *heap, uint32_t heap_units, uint32_t run,
                      uint32_t desc[FORAY_HLS_PROGRAM][FORAY_ABI_DESC_WORDS], struct hls_checked *out,
                      uint32_t *at);

void hls_run(foray_word *heap, foray_word *scratch, uint32_t heap_units, uint32_t run, struct hls_machine *s);

/* The kernel: arguments at the offsets of hw/abi/regs.def (ARG_HEAP_LO, ARG_HEAP_UNITS, ARG_RUN). *status
 * after a run: error code, and the descriptor in the upper word, where the registers ERROR and ERROR_DESC
 * are. */
void foray_top(foray_word *heap, uint32_t heap_units, uint32_t run, uint64_t *status);

#endif
