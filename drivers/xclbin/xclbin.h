/* xclbin/xclbin.h - the container that XRT loads (axlf, "xclbin2"), written and read without Xilinx's tools.
 * Layout: public headers of XRT 2.13; every field little endian, sections on 8 bytes.
 *
 * A file is described in JSON:
 *
 *   { "name": "foray", "platform": "foray_sim_1",
 *     "memory":  [ {"tag": "bank0", "type": "DDR4", "base": "0x0", "kib": 4194304} ],
 *     "kernels": [ {"name": "foray_top", "control": "hs", "range": "0x10000",
 *                   "instances": [ {"name": "foray_top_1", "base": "0x1800000", "banks": [0]} ],
 *                   "args": [ {"name": "heap", "type": "void*", "offset": "0x10"}, ... ]} ] }
 *
 * A type that ends in '*' is a pointer (8 bytes; port M_AXI_GMEM0 unless "port" says otherwise); other types
 * are scalars of 4 bytes, or 8 with "size". "banks" of an instance: the memory of each pointer in order (the
 * last one repeats). */
#ifndef FORAY_XCLBIN_XCLBIN_H
#define FORAY_XCLBIN_XCLBIN_H

#include <foray/status.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum foray_xclbin_mode { FORAY_XCLBIN_FLAT = 0, FORAY_XCLBIN_HW_EMU = 4, FORAY_XCLBIN_SW_EMU = 5 };

/* Builds the file from the JSON text and the bytes of the BITSTREAM section. *out is malloc'd, the caller's.
 * The same input gives the same bytes, its UUID included; another input another UUID. FORAY_E_FORMAT names
 * the place. */
enum foray_status foray_xclbin_build(const char *spec, const void *bits, size_t bits_n,
                                     enum foray_xclbin_mode mode, uint8_t **out, size_t *n,
                                     struct foray_err *err) FORAY_NODISCARD;

struct foray_xclbin_section {
  uint32_t kind;
  char name[17];
  uint64_t at, bytes;
};
enum { FORAY_XCLBIN_SECTIONS = 64 };
struct foray_xclbin {
  char platform[65];
  uint8_t uuid[16];
  uint16_t mode;
  uint32_t n_sections;
  struct foray_xclbin_section section[FORAY_XCLBIN_SECTIONS];
};

/* Checks the container and every table in it. */
enum foray_status foray_xclbin_parse(const uint8_t *p, size_t n, struct foray_xclbin *x,
                                     struct foray_err *err) FORAY_NODISCARD;
/* "MEM_TOPOLOGY", or a number. Static or of this thread. */
const char *foray_xclbin_kind(uint32_t kind);
/* Everything, for people. p as it was parsed. */
void foray_xclbin_show(const uint8_t *p, const struct foray_xclbin *x, FILE *f);

#endif
