# The HLS kernels: C99, compiled natively for device `hls`, its tests, and the scripts of hls/vitis.
HLS_KERNELS := $(sort $(wildcard hls/kernels/*.c))
HLS_OBJS    := $(patsubst %.c,$(B)/obj/%.o,$(HLS_KERNELS))

# -O3: loops over the rows and columns of a beat become vectors, which is what they are in hardware.
$(B)/obj/hls/kernels/%.o: hls/kernels/%.c hw/gen/foray_abi.h
	@mkdir -p $(@D)
	@$(if $(filter 1,$(V)),,echo "  CC    $<")
	$(Q)$(CCACHE) $(CC) $(filter-out -std=c11,$(BASE_CFLAGS)) -std=c99 $(OPT_$(CONFIG)) $(if $(filter release clang,$(CONFIG)),-O3) \
	  -Ihls -Ihw -MMD -MP -c -o $@ $<

$(B)/tests/hls/%: $(B)/obj/tests/unit/hls/%.o $(B)/obj/tests/unit/harness.o $(HLS_OBJS) $(call lib_files,core model dev)
	@mkdir -p $(@D)
	$(Q)$(call link,$(filter %.o,$^),$(filter %.a,$^),$(PKGS_core) $(PKGS_model) $(PKGS_tests))

# These compare device `hls` with `ref`.
$(B)/tests/dev/test_devices $(B)/tests/dev/test_device_programs $(B)/tests/dev/test_trace: | $(B)/devices/foray-dev-hls.so

# One recorded call of each kernel, made by the reference device, for the bench of hls/vitis.
HLS_VECTORS := build/hls/vectors
HLS_NAMES    = $(shell awk '!/^\#/ && NF {print $$1}' hls/vitis/kernels.txt)
HLS_BOARDS  := $(patsubst hls/vitis/boards/%.board,%,$(wildcard hls/vitis/boards/*.board))
.PHONY: hls-vectors hls-csim hls-dry hls-rtl
hls-vectors: $(HLS_VECTORS)/.stamp ## record one call of each HLS kernel for C simulation and cosimulation
$(HLS_VECTORS)/.stamp: build/release/tests/hls/test_hls_ops
	$(Q)mkdir -p $(@D)
	$(Q)FORAY_TOP=$(CURDIR) FORAY_HLS_VECTORS=$(@D) $< >$(@D)/log || { tail -5 $(@D)/log; exit 1; }
	$(Q)for b in $(HLS_BOARDS); do for k in $(HLS_NAMES); do ln -sf $$k.bin $(@D)/$$b-$$k.bin; done; done; touch $@

# The bench that Vitis runs, with each board's limits, compiled here.
hls_defines = $(shell awk '$$1 == "define" {printf "-D%s=%s ", $$2, $$3}' hls/vitis/boards/$(1).board)
build/hls/tb-%: hls/vitis/tb.c $(HLS_KERNELS) $(wildcard hls/include/*.h) hls/vitis/boards/%.board hw/gen/foray_abi.h
	@mkdir -p $(@D)
	$(Q)$(CC_release) -std=c99 -O1 -Wall -Wextra -Werror -Ihls -Ihw -DFORAY_TB_ALL $(call hls_defines,$*) -o $@ hls/vitis/tb.c $(HLS_KERNELS)
hls-csim: $(HLS_VECTORS)/.stamp $(patsubst %,build/hls/tb-%,$(HLS_BOARDS)) ## every HLS kernel with each board's limits on its recorded call
	$(Q)n=0; for b in $(HLS_BOARDS); do for k in $(HLS_NAMES); do \
	  build/hls/tb-$$b $(HLS_VECTORS)/$$b-$$k.bin >build/hls/tb.log || { cat build/hls/tb.log; exit 1; }; n=$$((n + 1)); \
	done; done; echo "hls-csim: $$n calls equal to the reference"
hls-dry: $(HLS_VECTORS)/.stamp ## check the Vitis scripts without Vitis: every file, port, bundle and argument exists
	$(Q)FORAY_VECTORS=$(CURDIR)/$(HLS_VECTORS) python3 hls/vitis/dry.py
# Kernels that PandA-Bambu takes alone; the top is for Vitis.
HLS_RTL ?= gemv_q4 gemv_q8 attention kv_put rmsnorm rope silu_mul quant add sample
hls-rtl: $(HLS_VECTORS)/.stamp ## HLS kernels to Verilog with PandA-Bambu, simulated and compared (HLS_RTL=names)
	$(Q)bash hls/rtl.sh $(HLS_VECTORS) build/hls/rtl $(HLS_RTL)
