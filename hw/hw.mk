# Hardware: tests of single units under Verilator. A test is tests/rtl/test_<x>.cpp with the top module of tests/rtl/<x>_tb.sv;
# RTL_FLAGS_<x> for more flags. Variants: <x>-bug is the same with a seeded bug (RTL_BUG_<x>, a macro) that the test must catch.
RTL_PKGS := hw/gen/foray_abi_pkg.sv hw/gen/foray_tables_pkg.sv $(wildcard hw/rtl/*_pkg.sv)
RTL_SRCS := $(wildcard hw/rtl/*.sv) hw/gen/foray_tables_rom.sv
RTL_TESTS := $(patsubst tests/rtl/test_%.cpp,%,$(wildcard tests/rtl/test_*.cpp))
RTL_BUG_vec := FORAY_BUG_VEC
RTL_BUGS := $(foreach t,$(RTL_TESTS),$(if $(RTL_BUG_$(t)),$(t)))

# $(1) = test, $(2) = folder, $(3) = further flags
define rtl_rule
build/rtl/$(2)/test_$(1): tests/rtl/test_$(1).cpp tests/rtl/$(1)_tb.sv $$(wildcard tests/rtl/*.hpp) $$(RTL_PKGS) $$(RTL_SRCS) $$(B)/libdev.a $$(B)/libcore.a
	@mkdir -p build/rtl
	@echo "  RTL   $(2)"
	$$(Q)verilator --cc --exe --build -O3 --x-assign unique --x-initial unique --assert -Wno-fatal -Wno-lint -Wno-style $(3) \
	  --Mdir build/rtl/$(2) --prefix V$(1)_tb --top-module $(1)_tb -y hw/rtl -y hw/gen -CFLAGS "-O1 -std=c++17 -I$$(CURDIR)/build/inc/tests -I$$(CURDIR)/tests/rtl" \
	  $$(RTL_PKGS) tests/rtl/$(1)_tb.sv $$(CURDIR)/tests/rtl/test_$(1).cpp $$(CURDIR)/$$(B)/libdev.a $$(CURDIR)/$$(B)/libcore.a \
	  -LDFLAGS "$$(call PKG_LIBS,$$(PKGS_core)) $$(LDLIBS)" -o test_$(1) >build/rtl/$(2).log 2>&1 || { grep -E 'rror' build/rtl/$(2).log | cut -c1-200 | head -20; exit 1; }
endef
$(foreach t,$(RTL_TESTS),$(eval $(call rtl_rule,$(t),$(t),$(RTL_FLAGS_$(t)))))
$(foreach t,$(RTL_BUGS),$(eval $(call rtl_rule,$(t),$(t)-bug,$(RTL_FLAGS_$(t)) +define+$(RTL_BUG_$(t)))))

.PHONY: test-rtl
test-rtl: $(foreach t,$(RTL_TESTS),build/rtl/$(t)/test_$(t)) $(foreach t,$(RTL_BUGS),build/rtl/$(t)-bug/test_$(t)) ## units of hw/rtl under Verilator against the reference kernels
	$(Q)set -e; $(foreach t,$(RTL_TESTS),build/rtl/$(t)/test_$(t);)
	$(Q)$(foreach t,$(RTL_BUGS),if build/rtl/$(t)-bug/test_$(t) >build/rtl/$(t)-bug.out; then echo "test-rtl: seeded bug $(RTL_BUG_$(t)) not caught"; exit 1; else echo "test_$(t): seeded bug $(RTL_BUG_$(t)) caught"; fi;)
