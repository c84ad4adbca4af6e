/* litex/map.h - where things lie in a LiteX SoC: foray-map.json, written by hw/boards/litex/foray_soc.py
 * beside the bitstream. Thread rule: none needed, plain data. */
#ifndef FORAY_LITEX_MAP_H
#define FORAY_LITEX_MAP_H

#include <foray/status.h>
#include <stdint.h>

enum { FORAY_LITEX_STEPS_MAX = 32 };

struct foray_litex_map {
  char board[32], config[16], memory[16]; /* memory: "SDR", "DDR3", ... */
  uint32_t clock_hz;
  uint32_t foray;          /* control map */
  uint32_t ram, ram_bytes; /* main memory */
  uint32_t control;        /* CSRs of the memory controller's manual port; 0: there is none */
  uint32_t command, issue, address, bank;
  int n_steps;
  struct foray_litex_step {
    uint32_t address, bank, command, control, delay_cycles;
  } steps[FORAY_LITEX_STEPS_MAX]; /* what brings the memory up, in this order */
};

/* FORAY_E_IO, FORAY_E_FORMAT with file and reason. */
enum foray_status foray_litex_map_read(const char *path, struct foray_litex_map *out, struct foray_err *err)
    __attribute__((warn_unused_result));

#endif
