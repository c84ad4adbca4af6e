# The XRT simulation: a prefix that XRT accepts as its installation ($XILINX_XRT), in which every hardware layer is the
# shim of sim/xrt. Five objects come out of Debian's own static archive, so the C++ interface is the installed one's.
XRT_PREFIX := $(B)/xrt
XRT_LIBDIR := /usr/lib/$(shell gcc -print-multiarch 2>/dev/null)
XRT_OBJS   := device_hwemu.cxx.o system_hwemu.cxx.o device_pcie.cpp.o system_pcie.cpp.o aie_stubs.cpp.o
XRT_SHIM   := $(B)/obj/sim/xrt/shim.o $(B)/obj/sim/xrt/glue.o

$(B)/obj/sim/xrt/%.o: sim/xrt/%.c build/inc/.stamp
	@mkdir -p $(@D)
	@$(if $(filter 1,$(V)),,echo "  CC    $<")
	$(Q)$(CCACHE) $(CC) $(BASE_CFLAGS) $(OPT_$(CONFIG)) -Isim/xrt -Ibuild/inc/card -Ibuild/inc/tests -isystem /usr/include/xrt -MMD -MP -c -o $@ $<
$(B)/obj/sim/xrt/glue.o: sim/xrt/glue.cpp
	@mkdir -p $(@D)
	@$(if $(filter 1,$(V)),,echo "  CXX   $<")
	$(Q)$(CCACHE) g++ -std=c++17 $(OPT_release) -fPIC -Wall -Wextra -isystem /usr/include/xrt -Isim/xrt -MMD -MP -c -o $@ $<

$(XRT_PREFIX)/lib/libforay_xrt_sim.so.2: $(XRT_SHIM)
	@mkdir -p $(@D) $(B)/obj/sim/xrt/libxrt
	@echo "  LINK  $@"
	$(Q)cd $(B)/obj/sim/xrt/libxrt && ar x $(XRT_LIBDIR)/libxrt_hwemu.a $(XRT_OBJS)
	$(Q)g++ $(OPT_release) -shared -o $@ $^ $(addprefix $(B)/obj/sim/xrt/libxrt/,$(XRT_OBJS)) -Wl,-Bsymbolic \
	  -Wl,-soname,libforay_xrt_sim.so.2 -lxrt_coreutil -luuid -l:$(notdir $(firstword $(wildcard $(XRT_LIBDIR)/libboost_filesystem.so.*))) -ldl -pthread
	$(Q)for n in core hwemu swemu noop; do ln -sf libforay_xrt_sim.so.2 $(@D)/libxrt_$$n.so.2; done
	$(Q)mkdir -p $(XRT_PREFIX)/icd && echo $(XRT_LIBDIR)/libxilinxopencl.so.2 > $(XRT_PREFIX)/icd/xilinx.icd

# Kernel models: foray_top by the card model.
$(XRT_PREFIX)/kernel_card.so: $(B)/obj/sim/xrt/kernel_card.o $(call lib_files,card dev core)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) $(OPT_$(CONFIG)) -shared -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call PKG_LIBS,$(PKGS_core)) $(LDLIBS)
$(XRT_PREFIX)/foray.xclbin: $(XRT_PREFIX)/kernel_card.so sim/xrt/foray_top.json $(B)/bin/foray-xclbin
	@echo "  XCLB  $@"
	$(Q)$(B)/bin/foray-xclbin --spec sim/xrt/foray_top.json --bits $< -o $@

.PHONY: sim-xrt
sim-xrt: $(XRT_PREFIX)/lib/libforay_xrt_sim.so.2 $(XRT_PREFIX)/foray.xclbin $(B)/devices/foray-dev-xrt.so $(B)/bin/foray ## build the XRT simulation (then: foray sim-xrt -- ./host)

# Simulated devices: Verilated RTL (device `sim`). Each configuration of hw/rtl/cfg in SIM_CONFIGS is built in.
SIM_VERILATOR := $(or $(wildcard $(VERILATOR_ROOT)),/usr/share/verilator)/include
SIM_PKGS := hw/gen/foray_abi_pkg.sv $(wildcard hw/gen/foray_tables_pkg.sv) $(wildcard hw/rtl/*_pkg.sv)
SIM_UNITS := $(filter-out $(SIM_PKGS),$(wildcard hw/rtl/*.sv hw/gen/*_rom.sv))
# Units that sim/rtl/stub stands in for (tests of the spine, or while a unit is missing).
SIM_STUB ?=
SIM_STUB_SV := $(foreach u,$(SIM_STUB),sim/rtl/stub/$(u).sv)
SIM_SV := $(filter-out $(foreach u,$(SIM_STUB),hw/rtl/$(u).sv),$(SIM_UNITS)) $(SIM_STUB_SV)
SIM_DIR := build/sim$(if $(SIM_STUB),-stub)
SIM_CXX := $(CCACHE) g++ -std=c++17 -O2 -fPIC -fvisibility=hidden -w -I$(SIM_VERILATOR) -I$(SIM_VERILATOR)/vltstd
SIM_VFLAGS := -O3 --x-assign fast --x-initial fast --noassert --output-split 20000 -Wno-fatal -Wno-lint -Wno-style

# $(1) = configuration
define sim_rule
$(SIM_DIR)/$(1)/.stamp: $$(SIM_PKGS) $$(SIM_SV) hw/rtl/cfg/$(1)/foray_cfg.svh sim/sim.mk
	@mkdir -p $$(@D)
	@echo "  VERIL $(1)"
	$$(Q)verilator --cc $(SIM_VFLAGS) --Mdir $$(@D) --prefix Vforay_$(1) --top-module foray_top +incdir+hw/rtl/cfg/$(1) \
	  $$(SIM_PKGS) $$(SIM_SV) >$$(@D)/verilator.log 2>&1 || { grep -E '^%Error' $$(@D)/verilator.log | cut -c1-200 | head -20; exit 1; }
	$$(Q)touch $$@
$(SIM_DIR)/$(1)/libsim.a: $(SIM_DIR)/$(1)/.stamp
	@echo "  C++   $(1)"
	$$(Q)cd $$(@D) && rm -f Vforay_*.o libsim.a && ls Vforay_$(1)*.cpp | xargs -P $(JOBS) -I{} $(SIM_CXX) -I. -c {}
	$$(Q)ar rcs $$@ $$(@D)/Vforay_*.o
$(SIM_DIR)/$(1)/model.o: $(SIM_DIR)/$(1)/.stamp sim/rtl/model.cpp sim/rtl/model.h sim/mem/mem.h build/inc/.stamp
	$$(Q)$(SIM_CXX) $$(shell awk '/^.define/ {if ($$$$2 != "FORAY_CFG_NAME") printf "-D%s=%s ", $$$$2, $$$$3}' hw/rtl/cfg/$(1)/foray_cfg.svh) \
	  -DFORAY_MODEL=$(1) -I$$(@D) -Isim/rtl -Ibuild/inc/sim -c -o $$@ sim/rtl/model.cpp
endef
$(foreach c,$(SIM_CONFIGS),$(eval $(call sim_rule,$(c))))

build/sim/verilated/%.o: $(SIM_VERILATOR)/%.cpp
	@mkdir -p $(@D)
	$(Q)$(SIM_CXX) -c -o $@ $<

.PHONY: sim-bench
sim-bench: $(B)/perf/bench_sim $(B)/devices/foray-dev-sim.so ## cycles of a whole token on the simulated device, and where they went
	$(Q)FORAY_DEVICE_PATH=$(B)/devices $(B)/perf/bench_sim sim:mid,mem=ddr4
	$(Q)FORAY_DEVICE_PATH=$(B)/devices $(B)/perf/bench_sim sim:mid,mem=ideal 1023 2 1 2048
