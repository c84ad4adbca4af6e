/* Any bytes as program, run block and context: the reference device must answer with a code or complete,
 * never read or write outside its memory, never loop without end. The heap is small and comes from malloc, so
 * the sanitizer sees its ends.
 *
 * Input: an edit list over a good program. First byte: number of columns. Then 8-byte edits: place (2 bytes,
 * 32-bit words from the start of the heap's first 32 KiB, that is run block, state, feed, program and some
 * weights), kind (1), pad (1), value (4). Kind 0 sets, 1 adds, 2 xors. A last odd part is ignored. Thus most
 * inputs stay close to a program that runs. */
#include "unit/tiny_program.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS = 160 }; /* three passes: an input must end soon */

static struct tiny t;
static uint8_t image[TINY_HEAP];

static void begin(void) {
  static const uint32_t tokens[] = {3, 50, 7};
  if (!tiny_open(&t, "ref", 1, 4)) abort();
  t.run.tests = 3, t.run.exit_rule[0] = -20000, t.run.exit_rule[1] = 65536;
  t.run.step_limit = STEPS;
  if (tiny_run(&t, tokens, 3, 0, 2) != FORAY_OK || !tiny_reset(&t, 16)) abort();
  if (foray_dev_download(t.d, 0, image, sizeof image, NULL) != FORAY_OK) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!t.d) begin();
  static uint8_t heap[TINY_HEAP];
  memcpy(heap, image, sizeof heap);
  /* the run block again as written by the host, without results */
  uint32_t w[FORAY_ABI_RUN_WORDS];
  foray_rec_run_pack(&t.run, w);
  memcpy(heap + t.run_addr, w, sizeof w);
  for (size_t i = 1; i + 8 <= size; i += 8) {
    uint32_t place = (uint32_t)(data[i] | data[i + 1] << 8), value, old;
    memcpy(&value, data + i + 4, 4);
    uint64_t at = 4 * (uint64_t)(place & 0x1fff); /* 32 KiB */
    if (place & 0x8000) at = t.prog + 4 * (uint64_t)(place & 0xfff) % (t.n * FORAY_ABI_UNIT);
    if (place & 0x4000) at = t.run_addr + 4 * (uint64_t)(place % FORAY_ABI_RUN_WORDS);
    memcpy(&old, heap + at, 4);
    value = data[i + 2] % 3 == 0 ? value : data[i + 2] % 3 == 1 ? old + value : old ^ value;
    memcpy(heap + at, &value, 4);
  }
  struct foray_dev_result res;
  uint32_t limit;
  memcpy(&limit, heap + t.run_addr + 4 * 14, 4);
  if (limit == 0 || limit > STEPS) { /* no limit is legal, but an input must end soon */
    limit = STEPS;
    memcpy(heap + t.run_addr + 4 * 14, &limit, 4);
  }
  if (foray_dev_upload(t.d, 0, heap, sizeof heap, NULL) != FORAY_OK) abort();
  enum foray_status st = foray_dev_run(t.d, t.run_addr, 0, &res, NULL);
  if (st != FORAY_OK && st != FORAY_E_DEVICE && st != FORAY_E_NOMEM) abort();
  if ((st == FORAY_OK) != (res.error == FORAY_DEVERR_NONE) && st != FORAY_E_NOMEM) abort();
  if (res.error >= FORAY_DEVERR_COUNT) abort();
  return 0;
}
