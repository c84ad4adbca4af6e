/* sim/rtl/stub/stub.h - stand-ins for the units of foray_top: the RTL around them fetches, orders and
 * sequences, the plain kernels of libdev do the arithmetic. They check every beat that they are given against
 * the heap. */
#ifndef FORAY_SIM_STUB_H
#define FORAY_SIM_STUB_H

#include <stdint.h>

/* The heap that the stubs work on; base = its bus address. One device at a time per thread. */
void foray_stub_bind(uint8_t *heap, uint64_t heap_bytes);
/* Beats that were not what the op needs, since bind. */
uint64_t foray_stub_wrong(void);

#endif
