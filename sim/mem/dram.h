/* sim/mem/dram.h - one DRAM channel: takes accesses of one burst each, tells when their data is through. */
#ifndef FORAY_SIM_DRAM_H
#define FORAY_SIM_DRAM_H

#include "mem.h"

enum { FORAY_DRAM_WINDOW = 64, FORAY_DRAM_BANKS = 64 };

struct foray_dram_access {
  uint64_t
      *done; /* gets the device cycle in which the data is complete; borrowed until then. NULL: a write */
  uint64_t row;
  uint32_t bank, group, age;
};

struct foray_dram_bank {
  int64_t open;         /* row, -1: closed */
  double col, pre, act; /* earliest next column command, precharge, activate */
};

struct foray_channel {
  struct foray_dram t;
  double ratio, latency; /* memory clocks a device cycle; cycles added */
  uint32_t n, window;
  struct foray_dram_access q[FORAY_DRAM_WINDOW];
  struct foray_dram_bank bank[FORAY_DRAM_BANKS];
  double last_col[16], last_act[16], any_col, any_act, acts[4]; /* by group; the last four activates */
  double bus, last_read, last_write; /* data bus free; ends of the last read and write bursts */
  double refresh;                    /* next one */
  uint32_t writes;
  uint64_t accesses, row_misses, refreshes;
  double stolen;
};

void foray_channel_init(struct foray_channel *c, const struct foray_dram *t, double ratio, double latency,
                        uint32_t window);
/* False: the queue is full. */
bool foray_channel_push(struct foray_channel *c, uint64_t addr, uint64_t *done);
/* Lets everything happen that happens before device cycle now + 1. */
void foray_channel_cycle(struct foray_channel *c, uint64_t now);

#endif
