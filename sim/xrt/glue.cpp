// The C++ face of the XRT shim: what libxrt's own objects (taken from the installed package, so that the C++
// ABI is right by construction) want to link against. Everything else is shim.c.
#include "shim.h"

#include <memory>
#include <xrt.h>

namespace xrt_core {
class device {
public:
  void register_axlf(const axlf *);
};
std::shared_ptr<device> get_userpf_device(void *, unsigned);
namespace query {
enum class key_type;
}
} // namespace xrt_core

extern "C" void *foray_shim_core_open(void *dev, unsigned index) {
  try {
    return new std::shared_ptr<xrt_core::device>(xrt_core::get_userpf_device(dev, index));
  } catch (...) {
    return nullptr;
  }
}
extern "C" void foray_shim_core_close(void *core) {
  delete static_cast<std::shared_ptr<xrt_core::device> *>(core);
}
extern "C" void foray_shim_core_register(void *core, const axlf *x) {
  (*static_cast<std::shared_ptr<xrt_core::device> *>(core))->register_axlf(x);
}

// Named by the archive's objects with C++ linkage; nothing of the simulation needs them.
int xclCloseExportHandle(xclBufferExportHandle) { return 0; }
int xclCmaEnable(xclDeviceHandle, bool, uint64_t) { return -1; }
int xclUpdateSchedulerStat(xclDeviceHandle) { return 0; }
int xclInternalResetDevice(xclDeviceHandle h, xclResetKind) { return foray_shim_reset(h); }
namespace xclhwemhal2 {
class HwEmShim {
public:
  static HwEmShim *handleCheck(void *);
  int deviceQuery(xrt_core::query::key_type);
};
HwEmShim *HwEmShim::handleCheck(void *) { return nullptr; }
int HwEmShim::deviceQuery(xrt_core::query::key_type) { return 0; }
} // namespace xclhwemhal2
