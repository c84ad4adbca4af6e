/* card/card.h - a card at register level: the Vitis control map of hw/abi in front of any device class, so
 * that drivers (PCIe, XRT, LiteX) and their hosts can be run before, and beside, the RTL.
 *
 * The card has one memory, which the caller supplies (a shared file, when another process is the host), at a
 * bus address. A host writes ARG_HEAP, ARG_HEAP_UNITS, ARG_RUN and then CONTROL.start; the card opens its
 * device class with that part of the memory as the heap, without a copy, and runs it on a thread of its own.
 *
 *   struct foray_card *c;
 *   foray_card_open(&(struct foray_card_opts){.device = "ref", .mem = m, .mem_bytes = n}, &c, &err);
 *   foray_card_write(c, FORAY_REG_ARG_RUN, unit);
 *   foray_card_write(c, FORAY_REG_CONTROL, FORAY_CARD_START);
 *   foray_card_wait(c, 1000);
 *
 * Thread rule: read, write, wait and serve may be called from any threads at once; open and close from one.
 */
#ifndef FORAY_CARD_CARD_H
#define FORAY_CARD_CARD_H

#include <foray/status.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct foray_card; /* opaque; owned by whoever opened it */

enum { /* bits of CONTROL */
       FORAY_CARD_START = 1,
       FORAY_CARD_DONE = 2,
       FORAY_CARD_IDLE = 4,
       FORAY_CARD_READY = 8
};
enum { FORAY_CARD_REGS_BYTES = 4096 }; /* size of the register window; reads beyond the map give 0 */

struct foray_card_opts {
  const char *device; /* device class behind the registers, e.g. "ref"; it must take a heap of the caller's */
  int threads;        /* as in foray_dev_opts */
  uint8_t *mem;       /* the card's memory, 64-byte aligned; the caller's, until after close */
  uint64_t mem_bytes; /* multiple of 64 */
  uint64_t mem_base;  /* bus address of mem[0] */
  void (*irq)(void *arg); /* called on the card's thread when an enabled interrupt rises; may be NULL */
  void *irq_arg;
};

/* FORAY_E_ARG, or what opening the device class gave. */
enum foray_status foray_card_open(const struct foray_card_opts *o, struct foray_card **out,
                                  struct foray_err *err) __attribute__((warn_unused_result));
/* Waits for a run that is under way. NULL is allowed. */
void foray_card_close(struct foray_card *c);

/* 32-bit registers. Offsets that the map does not have read 0 and ignore writes; CONTROL.done and ready are
 * cleared by reading, as Vitis kernels do. A start while the card is busy is ignored. */
uint32_t foray_card_read(struct foray_card *c, uint32_t offset);
void foray_card_write(struct foray_card *c, uint32_t offset, uint32_t value);

/* True when the card is idle; false when it is still busy after `ms`. */
bool foray_card_wait(struct foray_card *c, int ms);
/* Why the last run was refused by the card itself (not by its device); "" when it was not. Static until the
 * next run. */
const char *foray_card_trouble(struct foray_card *c);

/* Serves a register window that lies in shared memory, where accesses cannot be trapped: publishes the
 * registers, watches CONTROL for a start, runs, publishes again; until *stop. done is then cleared by the
 * next start and not by reading. `window` has FORAY_CARD_REGS_BYTES. */
void foray_card_serve(struct foray_card *c, volatile uint32_t *window, const atomic_bool *stop);

#endif
