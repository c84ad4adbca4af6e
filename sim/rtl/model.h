/* sim/rtl/model.h - a Verilated foray_top of one configuration behind plain C. sim/rtl/model.cpp is compiled
 * once for each. */
#ifndef FORAY_SIM_MODEL_H
#define FORAY_SIM_MODEL_H

#include "simmem/mem.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What foray_top sees in a cycle. */
struct foray_sim_in {
  bool rst_n;
  bool awvalid, wvalid, bready, arvalid, rready; /* AXI4-Lite */
  uint16_t awaddr, araddr;
  uint32_t wdata;
  struct foray_pins_in mem;
};

/* foray_pkg::trace_t */
struct foray_sim_trace {
  bool op, pass, token, in_test;
  uint32_t desc, opcode, seg, exit, columns, position, entry;
};

/* What it drives. */
struct foray_sim_out {
  bool awready, wready, bvalid, arready, rvalid, irq;
  uint32_t rdata;
  struct foray_pins_out mem;
  uint32_t cycle; /* one bit: whose this cycle is (foray_ctrl) */
  struct foray_sim_trace trace;
};

struct foray_sim_model {
  const char *name;
  uint32_t port_bytes, ports, cols, scratch_units;
  void *(*open)(void); /* NULL: no memory */
  void (*close)(void *self);
  /* A clock edge with these inputs; out is what is driven after it. */
  void (*cycle)(void *self, const struct foray_sim_in *in, struct foray_sim_out *out);
};

#ifdef __cplusplus
}
#endif
#endif
