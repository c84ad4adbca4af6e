/* sim/xrt/shim.h - the seam between the C part of the shim and the few calls that only C++ can make. */
#ifndef FORAY_SIM_XRT_SHIM_H
#define FORAY_SIM_XRT_SHIM_H

#include <stdint.h>
#include <xclbin.h>
#include <xrt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* XRT's own device object for `dev`, to be kept from open to close. */
void *foray_shim_core_open(void *dev, unsigned index);
void foray_shim_core_close(void *core);
void foray_shim_core_register(void *core, const struct axlf *x);

/* Calls of a hardware layer that the public header does not declare. */
#define FORAY_SHIM_API __attribute__((visibility("default")))
FORAY_SHIM_API unsigned xclProbe(void);
FORAY_SHIM_API unsigned xclVersion(void);
FORAY_SHIM_API int xclRegRead(xclDeviceHandle h, uint32_t unit, uint32_t at, uint32_t *v);
FORAY_SHIM_API int xclRegWrite(xclDeviceHandle h, uint32_t unit, uint32_t at, uint32_t v);
FORAY_SHIM_API int xclP2pEnable(xclDeviceHandle h, bool enable, bool force);
int foray_shim_reset(void *dev);

#ifdef __cplusplus
}
#endif
#endif
