# The HLS kernels: C99, compiled natively for device `hls`, its tests, and the scripts of hls/vitis.
HLS_KERNELS := $(sort $(wildcard hls/kernels/*.c))
HLS_OBJS    := $(patsubst %.c,$(B)/obj/%.o,$(HLS_KERNELS))

# -O3: loops over the rows and columns of a beat become vectors, which is what they are in hardware.
$(B)/obj/hls/kernels/%.o: hls/kernels/%.c hw/gen/foray_abi.h
	@mkdir -p $(@D)
	@$(if $(filter 1,$(V)),,echo "  CC    $<")
	$(Q)$(CCACHE) $(CC) $(filter-out -std=c11,$(BASE_CFLAGS)) -std=c99 $(OPT_$(CONFIG)) $(if $(filter release clang,$(CONFIG)),-O3) \
	  -Ihls -Ihw -MMD -MP -c -o $@ $<

$(B)/tests/hls/%: $(B)/obj/tests/unit/hls/%.o $(call obj,$(wildcard tests/unit/*.c)) $(HLS_OBJS) $(LIB_FILES)
	@mkdir -p $(@D)
	$(Q)$(call link,$(filter %.o,$^),$(filter %.a,$^),$(PKGS_ALL) $(PKGS_tests))

# These compare device `hls` with `ref`.
$(B)/tests/dev/test_devices $(B)/tests/dev/test_device_programs $(B)/tests/dev/test_trace: | $(B)/devices/foray-dev-hls.so
