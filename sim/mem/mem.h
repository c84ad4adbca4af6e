/* sim/mem/mem.h - the memory behind the AXI ports of a simulated device: when answers come, and which. Time
 * is counted in cycles of the device's clock.
 *
 *   struct foray_mem_cfg cfg; foray_mem_preset("ddr4", &cfg); cfg.ports = 4; cfg.port_bytes = 16;
 * cfg.core_mhz = 300; struct foray_mem *m = foray_mem_new(&cfg, heap, bytes, base); each cycle:
 * foray_mem_cycle(m, &pins);     // reads the device's outputs, sets its inputs of this cycle
 *
 * Not thread-safe; one memory belongs to one device. */
#ifndef FORAY_SIM_MEM_H
#define FORAY_SIM_MEM_H

#include <stdbool.h>
#include <stdint.h>

enum { FORAY_MEM_PORTS = 4, FORAY_MEM_PORT_BYTES = 64 };

/* Signals of foray_top, one cycle. `out` is what the device drives, `in` what it sees. */
struct foray_pins_out {
  uint32_t arvalid, rready; /* bit per port */
  uint64_t araddr[FORAY_MEM_PORTS];
  uint8_t arlen[FORAY_MEM_PORTS];
  bool awvalid, wvalid, wlast, bready;
  uint64_t awaddr, wstrb;
  uint8_t awlen, wdata[FORAY_MEM_PORT_BYTES];
};
struct foray_pins_in {
  uint32_t arready, rvalid;
  uint8_t rdata[FORAY_MEM_PORTS][FORAY_MEM_PORT_BYTES];
  uint8_t rresp[FORAY_MEM_PORTS];
  bool awready, wready, bvalid;
  uint8_t bresp;
};

/* DRAM timing in memory clocks (JEDEC names); access = bytes of one burst. */
struct foray_dram {
  double mhz; /* memory clock; 0: no DRAM model, answers come after `latency` */
  uint32_t access, row_bytes, groups, banks; /* banks of a group */
  uint32_t burst, cl, cwl, rcd, rp, ras, ccd_s, ccd_l, rrd_s, rrd_l, faw, rtp, wr, wtr, refi, rfc;
};

struct foray_mem_cfg {
  const char *name;
  uint32_t ports, port_bytes, core_mhz;
  uint32_t latency;     /* cycles added to every answer: interconnect and controller */
  uint32_t outstanding; /* bursts that a port may have open */
  uint32_t window;      /* accesses that the controller sees at once */
  uint32_t stall;       /* percent of cycles in which each ready and valid is held back at random */
  uint32_t jitter;      /* up to so many cycles more latency, at random */
  uint64_t seed;
  struct foray_dram dram;
  /* Faults for tests: the n-th burst from now (1 = the next); 0: none. */
  uint32_t bad_read, bad_write, dead_after;
  uint32_t dead_for; /* cycles without answers behind the burst dead_after */
};

struct foray_mem_stats {
  uint64_t cycles, read_bytes, write_bytes, accesses, row_misses, refreshes,
      stolen; /* stolen: cycles of refresh */
};

struct foray_mem; /* opaque */

/* "ideal", "ddr4" (DDR4-2400, 64 bits), "lpddr4" (LPDDR4-3200, 32 bits), "sdr" (ULX3S: 16 bits at the
 * device's clock), "hbm" (a pseudo channel of HBM2: 64 bits, 2 Gbit/s). False for another name. */
bool foray_mem_preset(const char *name, struct foray_mem_cfg *cfg);

/* heap is borrowed; addresses outside [base, base + bytes) are answered with DECERR. NULL: no memory. */
struct foray_mem *foray_mem_new(const struct foray_mem_cfg *cfg, uint8_t *heap, uint64_t bytes,
                                uint64_t base);
void foray_mem_free(struct foray_mem *m);
/* Forgets everything that is open, as a reset does. */
void foray_mem_reset(struct foray_mem *m);
/* New faults. */
void foray_mem_fault(struct foray_mem *m, uint32_t bad_read, uint32_t bad_write, uint32_t dead_after);
void foray_mem_cycle(struct foray_mem *m, const struct foray_pins_out *out, struct foray_pins_in *in);
const struct foray_mem_stats *foray_mem_stats(const struct foray_mem *m);
/* Bytes that the memory could move in a cycle. */
double foray_mem_peak(const struct foray_mem *m);

#endif
