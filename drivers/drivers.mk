# Rules of drivers/. The OpenCL program is one text: the function tables and integer functions of host/core, then
# drivers/opencl/kernels.cl; as C string literals it becomes a part of the plugin.
OPENCL_TEXT := hw/gen/foray_tables.h host/core/imath.h host/core/imath.c host/core/philox.h host/core/noise.h \
               host/core/noise.c drivers/opencl/kernels.cl
$(B)/gen/opencl/kernels.inc: $(OPENCL_TEXT) drivers/opencl/text.sh
	@mkdir -p $(@D)
	@echo "  TEXT  $@"
	$(Q)bash drivers/opencl/text.sh $(OPENCL_TEXT) | sed 's/\\/\\\\/g; s/"/\\"/g; s/^/"/; s/$$/\\n"/' > $@
$(B)/obj/drivers/opencl/opencl_build.o: | $(B)/gen/opencl/kernels.inc

$(B)/tests/opencl/test_opencl $(B)/tests/dev/test_devices: | $(B)/devices/foray-dev-opencl.so

# Headers of XRT 2.13 are not clean under our warnings.
$(B)/obj/drivers/xrt/%.o: PKG_CFLAGS += -isystem /usr/include/xrt

.PHONY: test-devices
test-devices: ## the conformance suite on every device of this machine (BLOCKS=100)
	$(Q)bash tests/e2e/test_selftest.sh
