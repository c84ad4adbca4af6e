/* dev/validate.h - the fetch unit's checks: a program, a run block and a context before anything is executed.
 * After FORAY_DEVERR_NONE every operand of every descriptor lies in memory and has a shape that the kernels
 * take. */
#ifndef FORAY_DEV_VALIDATE_H
#define FORAY_DEV_VALIDATE_H

#include "dev/device.h"

struct foray_segment {
  uint32_t body, body_end; /* descriptors [body, body_end) */
  uint32_t test, test_end; /* exit ops [test, test_end); equal: none */
  uint32_t exit;           /* exit number */
  bool has_test, final;
};

struct foray_checked {
  struct foray_rec_run run;
  struct foray_rec_state state;
  struct foray_desc_prog prog;
  struct foray_segment seg[FORAY_ABI_SEGMENTS_MAX];
  uint32_t head_rows;  /* largest HEAD.used: room for logits */
  uint32_t final_rows; /* HEAD.used of the final section */
};

/* What a device has. */
struct foray_space {
  const uint8_t *heap;
  uint64_t heap_bytes;
  uint32_t scratch_units, cols_max;
  /* How bytes of the heap are read; NULL: memcpy. */
  void (*get)(void *arg, void *to, const void *from, uint64_t bytes);
  void *arg;
};

/* Reads the run block at run_unit, the context, and the program, which is copied to `copy`
 * (FORAY_ABI_PROGRAM_MAX * FORAY_ABI_DESC_WORDS words) before it is checked, so that nothing the run writes
 * can change it. Returns the error code; *desc is the descriptor, UINT32_MAX for the run block and the
 * context. */
uint32_t foray_validate(const struct foray_space *sp, uint32_t run_unit, uint32_t *copy,
                        struct foray_checked *out, uint32_t *desc);

#endif
