/* sim/xrt/kernel_api.h - a kernel model for the XRT simulation: a shared object that exports
 * `foray_sim_kernel` and lies as the BITSTREAM section in an xclbin. One object is made per compute unit.
 * Registers are those of the Vitis control map (start, done, idle at 0x00; arguments from 0x10). A C host of
 * a Verilated kernel implements it in some tens of lines (tests/xrt/vadd_rtl.cpp). */
#ifndef FORAY_SIM_XRT_KERNEL_API_H
#define FORAY_SIM_XRT_KERNEL_API_H

#include <stddef.h>
#include <stdint.h>

enum { FORAY_SIM_KERNEL_VERSION = 1 };

/* Device memory as the kernel's masters see it. Accesses outside every bank read zeros and are dropped. */
struct foray_sim_memory {
  void *ctx;
  void (*read)(void *ctx, uint64_t addr, void *to, size_t n);
  void (*write)(void *ctx, uint64_t addr, const void *from, size_t n);
  /* Processor address of [addr, addr + n) when it lies in one bank, else NULL; *base and *bytes: that bank.
   */
  uint8_t *(*direct)(void *ctx, uint64_t addr, size_t n, uint64_t *base, uint64_t *bytes);
};

struct foray_sim_kernel {
  uint32_t version;
  /* name: "kernel:instance". NULL: it cannot be made. */
  void *(*create)(const char *name, const struct foray_sim_memory *mem);
  void (*destroy)(void *k);
  void (*reg_write)(void *k, uint32_t offset, uint32_t v);
  uint32_t (*reg_read)(void *k, uint32_t offset);
  /* Time passes here only: up to n clock cycles. Returns 0 when a pause would be better than the next call (a
   * model with threads of its own). */
  int (*step)(void *k, uint32_t n);
};

#endif
