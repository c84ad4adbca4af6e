# Hardware: tests of single units under Verilator. A test is tests/rtl/test_<x>.cpp over the top module tests/rtl/<x>_tb.sv.
# It is built once for each name in RTL_VARIANTS_<x> (default: <x>) with RTL_FLAGS_<name>. A name that ends in -bug
# has a seeded bug (a macro) that the test must catch.
RTL_PKGS := hw/gen/foray_abi_pkg.sv $(wildcard hw/gen/foray_tables_pkg.sv) $(wildcard hw/rtl/*_pkg.sv)
RTL_SRCS := $(filter-out $(RTL_PKGS),$(wildcard hw/rtl/*.sv hw/gen/*_rom.sv))
RTL_TESTS := $(patsubst tests/rtl/test_%.cpp,%,$(wildcard tests/rtl/test_*.cpp))

RTL_VARIANTS_vec := vec vec-bug
RTL_FLAGS_vec-bug := +define+FORAY_BUG_VEC
RTL_VARIANTS_exit := exit exit1 exit-bug
RTL_FLAGS_exit1 := -GCols=1 -GUnroll=10 -CFLAGS -DCOLS=1
RTL_FLAGS_exit-bug := +define+FORAY_BUG_EXIT
RTL_VARIANTS_mv := mv mv8 mv64 mv-bug
RTL_FLAGS_mv := -GCols=1 -GWsW=512 -CFLAGS -DCOLS=1 -CFLAGS -DWSW=512
RTL_FLAGS_mv8 := -GCols=8 -GWsW=512 -CFLAGS -DCOLS=8 -CFLAGS -DWSW=512
RTL_FLAGS_mv64 := -GCols=2 -GWsW=64 -CFLAGS -DCOLS=2 -CFLAGS -DWSW=64 +define+FORAY_MUL_STRUCT
RTL_VARIANTS_attn := attn attn1
RTL_FLAGS_attn := -GLanes=8 -CFLAGS -DCOLS=8
RTL_FLAGS_attn1 := -GLanes=1 -CFLAGS -DCOLS=2 +define+FORAY_MUL_STRUCT
RTL_FLAGS_mv-bug := $(RTL_FLAGS_mv) +define+FORAY_BUG_CARRY

$(eval $(call lib_rules,tests,tests/rtl))
RTL_LIBS := $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/rtl/*.c)) $(B)/libdev.a $(B)/libmodel.a $(B)/libcore.a

# $(1) = test, $(2) = variant
define rtl_rule
build/rtl/$(2)/test_$(1): tests/rtl/test_$(1).cpp tests/rtl/$(1)_tb.sv $$(wildcard tests/rtl/*.h tests/rtl/*.hpp) $$(RTL_PKGS) $$(RTL_SRCS) $$(RTL_LIBS)
	@mkdir -p build/rtl
	@echo "  RTL   $(2)"
	$$(Q)verilator --cc --exe --build -O3 --x-assign unique --x-initial unique --assert -Wno-fatal -Wno-lint -Wno-style \
	  --Mdir build/rtl/$(2) --prefix V$(1)_tb --top-module $(1)_tb -y hw/rtl -y hw/gen $(RTL_FLAGS_$(2)) \
	  -CFLAGS "-O1 -std=c++17 -I$$(CURDIR)/build/inc/tests -I$$(CURDIR)/tests/rtl" \
	  $$(RTL_PKGS) tests/rtl/$(1)_tb.sv $$(CURDIR)/tests/rtl/test_$(1).cpp $$(addprefix $$(CURDIR)/,$$(RTL_LIBS)) \
	  -LDFLAGS "$$(call PKG_LIBS,$$(PKGS_core)) $$(LDLIBS)" -o test_$(1) >build/rtl/$(2).log 2>&1 || { grep -E 'rror' build/rtl/$(2).log | cut -c1-200 | head -20; exit 1; }
RTL_BINS += build/rtl/$(2)/test_$(1)
endef
$(foreach t,$(RTL_TESTS),$(foreach v,$(or $(RTL_VARIANTS_$(t)),$(t)),$(eval $(call rtl_rule,$(t),$(v)))))

.PHONY: test-rtl
test-rtl: $(RTL_BINS) ## units of hw/rtl under Verilator against the reference kernels
	$(Q)bash tests/rtl/run.sh $(RTL_BINS)

.PHONY: formal
formal: ## proofs of hw/formal: AXI rules, queues, read and write engine, doorbell (TASKS='ctrl rd' for some)
	$(Q)bash hw/formal/run.sh $(TASKS)
