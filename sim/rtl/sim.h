/* sim/rtl/sim.h - device `sim`: Verilated RTL with a memory model, behind the device interface; and the
 * strings that tests and benchmarks need to reach into it.
 *
 *   sim[:CONFIG][,KEY=VALUE...]     e.g. "sim", "sim:tiny", "sim:mid,mem=ddr4",
 * "sim:mid,mem=ideal,stall=30,seed=7"
 *
 * CONFIG   mid (default), or another folder of hw/rtl/cfg that was built in
 * mem      ideal (default), ddr4, lpddr4, sdr, hbm
 * mhz      clock of the device against the memory (default 300)
 * stall    percent of cycles in which each handshake of the memory is held back; jitter: cycles; seed
 * badread, badwrite   the n-th burst after opening is answered with an error
 * dead, deadfor   behind the n-th burst the memory answers nothing, for so many cycles (default: for good)
 * again    cycles after the first doorbell at which it is rung once more: that run is made twice
 * resetat  cycles after the first doorbell at which reset is pulled for a while; that run ends with an error
 * of the interface */
#ifndef FORAY_SIM_H
#define FORAY_SIM_H

#include "dev/device_impl.h"
#include "simmem/mem.h"
#include "model.h"

extern const struct foray_dev_class foray_dev_class_sim;

#endif
