# Foray: one non-recursive Makefile. `make help` lists the targets.
#
# Everything that is built lies under build/<config>/. The only files written beside the sources are
# hw/gen/* and docs/abi.md: generated, committed, and compared by `make abi-check`.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := help

VERSION := 0.1.0
PREFIX  ?= /usr/local
DESTDIR ?=
PAIR    ?= smollm2
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
JOBS    ?= $(shell nproc)

# ---------------------------------------------------------------- configuration
# CONFIG selects compiler, flags and object tree: release, clang, asan (gcc, ASan+UBSan), fuzz
# (clang, libFuzzer+ASan), mutant (release plus -DFORAY_MUTANT=$(MUTANT), see tests/e2e/mutants.sh).
CONFIG ?= release
B      := build/$(CONFIG)$(if $(MUTANT),-$(MUTANT))

CC_release := gcc
CC_clang   := clang
CC_asan    := gcc
CC_fuzz    := clang
CC_mutant  := gcc
OPT_release := -O2 -g
OPT_clang   := -O2 -g
OPT_asan    := -O1 -g -fno-var-tracking -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
# Unrolled kernels are slow to compile with every check (and gcc's variable tracking alone takes minutes on them):
# they keep AddressSanitizer in the asan configuration, and none in the fuzz configuration, whose targets parse.
OPT_SIMD_asan := -O1 -g -fno-var-tracking -fsanitize=address -fno-omit-frame-pointer
OPT_SIMD_fuzz := -O1 -g
OPT_mutant  := -O2 -g -DFORAY_MUTANT_$(MUTANT)=1
CCACHE := $(shell command -v ccache 2>/dev/null)
ifeq ($(origin CC),default)
CC := $(CC_$(CONFIG))
endif

# -ffp-contract=off is part of the numeric contract: the same expression gives the same bits in every
# file, with every compiler and instruction set (docs/numerics.md).
CFLAGS   ?=
WARNINGS := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            -Wpointer-arith -Wformat=2 -Werror
WARNINGS += $(if $(findstring gcc,$(CC_$(CONFIG))),-Wno-format-truncation)# cutting a message at its limit is meant
BASE_CFLAGS := -std=c11 -D_GNU_SOURCE -DFORAY_VERSION='"$(VERSION)"' -ffp-contract=off -fno-math-errno \
               -fvisibility=hidden -fPIC -pthread $(WARNINGS) $(CFLAGS)
LDFLAGS  ?=
LDLIBS   := -lm -pthread

# A file whose name ends in _<isa>.c is compiled for that instruction set and called only after
# foray_cpu_isa() has seen it (host/core/cpu.h).
ISA_CFLAGS_avx2   := -mavx2 -mfma -mf16c -mbmi2
ISA_CFLAGS_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mfma -mf16c -mbmi2
ISA_CFLAGS_amx    := $(ISA_CFLAGS_avx512) -mamx-tile -mamx-int8 -mamx-bf16 -mavx512bf16

# ---------------------------------------------------------------- layers (docs/architecture.md)
# Library = folder; DEPS_<lib> = the lower layers that it may include. The compiler sees nothing else:
# build/inc/<lib> holds links to just these folders, so `#include "engine/x.h"` from host/ cannot compile.
# Headers are named by folder: "core/err.h", "model/gguf.h", "engine/engine.h", <foray/...> for public ones.
LIBS := core model proto dev rt tls net http api prof journal engine batch link obs cloudapi train cotune store simlink card cardhost xclbin simmem

DIR_abi := hw/abi
DIR_gen := hw/gen
DIR_foray := host/include/foray
DIR_core := host/core
DIR_model := host/model
DIR_proto := host/proto
DIR_dev := host/dev
DIR_rt := host/rt
DIR_net := host/net
DIR_tls := host/tls
DIR_http := host/http
DIR_api := host/api
DIR_engine := cloud/engine
DIR_batch := cloud/batch
DIR_link := cloud/link
DIR_obs := cloud/obs
DIR_journal := cloud/journal
DIR_cloudapi := cloud/api
DIR_train := cloud/train
DIR_cotune := cloud/cotune
DIR_store := cloud/store
DIR_simlink := sim/link
DIR_simmem := sim/mem
DIR_card := sim/card
DIR_cardhost := drivers/card
DIR_xclbin := drivers/xclbin
DIR_prof := host/prof
DIR_hls := hls/device
DIR_include := hls/include
DIR_hosttools := host/tools
DIR_cloudtools := cloud/tools
DIR_simtools := sim/tools
DIR_fuzz := tests/fuzz
DIR_unit := tests/unit

DEPS_core    := foray abi gen
DEPS_model   := $(DEPS_core) core
DEPS_proto   := $(DEPS_core) core
DEPS_dev     := $(DEPS_core) core model
DEPS_rt      := $(DEPS_dev) dev proto
DEPS_tls     := $(DEPS_core) core
DEPS_net     := $(DEPS_core) core proto tls
DEPS_http    := $(DEPS_core) core model proto tls
DEPS_api     := $(DEPS_rt) rt net tls
DEPS_engine  := $(DEPS_core) core model
DEPS_batch   := $(DEPS_core) core model proto engine journal
DEPS_link    := $(DEPS_batch) batch tls
DEPS_journal := $(DEPS_core) core proto
DEPS_obs     := $(DEPS_link) link http
DEPS_cloudapi := $(DEPS_obs) obs
DEPS_train   := $(DEPS_core) core model engine
DEPS_cotune  := $(DEPS_train) train
DEPS_store   := $(DEPS_core) core model
DEPS_simlink := $(DEPS_core) core proto
DEPS_simmem  := foray
DEPS_card    := $(DEPS_dev) dev
DEPS_cardhost := $(DEPS_dev) dev
DEPS_xclbin  := $(DEPS_core) core
DEPS_prof    := $(DEPS_dev) dev
DEPS_hls     := $(DEPS_dev) dev include
DEPS_hosttools  := $(DEPS_api) api http prof tls
DEPS_cloudtools := $(DEPS_cloudapi) cloudapi train cotune store
DEPS_simtools := $(DEPS_dev) dev card xclbin
DEPS_tests   := $(LIBS) $(PLUGINS) foray abi gen unit include

# Devices outside host/dev are shared objects, build/<config>/devices/foray-dev-<name>.so (dev/plugin.h). A plugin is a
# library of LIBS_PLUGIN with its own folder; it is linked with the archives below it and with its packages, so that
# a program starts where such a package is missing. SO_<name>: archives to link; PKGS_<name>: packages.
PLUGINS :=
PLUGINS += opencl
DIR_opencl  := drivers/opencl
DEPS_opencl := $(DEPS_dev) dev
SO_opencl   := dev core
PKGS_opencl := OpenCL
PLUGINS += hls
SO_hls    := dev core
EXTRA_hls  = $(patsubst %.c,$(B)/obj/%.o,$(wildcard hls/kernels/*.c))
PLUGINS += pcie
DIR_pcie  := drivers/pcie
DEPS_pcie := $(DEPS_dev) dev cardhost
SO_pcie   := cardhost dev core
PKGS_pcie := pciaccess
PLUGINS += litex
DIR_litex  := drivers/litex
DEPS_litex := $(DEPS_dev) dev cardhost
SO_litex   := cardhost dev core
PLUGINS += xrt
DIR_xrt  := drivers/xrt
DEPS_xrt := $(DEPS_dev) dev cardhost
SO_xrt   := cardhost dev core
LIBS_xrt := -lxrt_coreutil -luuid
# sim/sim.mk makes the Verilated models, one for each of SIM_CONFIGS (folders of hw/rtl/cfg).
SIM_CONFIGS ?= mid
PLUGINS += $(if $(wildcard hw/rtl/foray_attn.sv),sim)
DIR_sim  := sim/rtl
DEPS_sim := $(DEPS_dev) dev simmem
SO_sim   := dev core simmem
EXTRA_sim := $(SIM_CONFIGS:%=build/sim/%/model.o) $(SIM_CONFIGS:%=build/sim/%/libsim.a) build/sim/verilated/verilated.o build/sim/verilated/verilated_threads.o
LIBS_sim := -lstdc++

PKGS_core  := libcrypto jansson
PKGS_model := libpcre2-8 libcurl zlib
PKGS_proto := libprotobuf-c
PKGS_net   := libevent libevent_openssl openssl
PKGS_http  := libevent libevent_openssl openssl jansson
PKGS_tls   := libssl libcrypto jansson
PKGS_link  := libevent libevent_openssl openssl
PKGS_train := openblas jansson
PKGS_cloudapi := inih
PKGS_journal := sqlite3 libprotobuf-c
PKGS_cotune := jansson
PKGS_store := sqlite3
PKGS_tests := cunit
PKG_CONFIG := pkg-config
PKGS_ALL   := $(sort $(foreach l,$(LIBS),$(PKGS_$(l))))
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS_ALL) $(PKGS_tests) $(foreach p,$(PLUGINS),$(PKGS_$(p))) 2>/dev/null)
PKG_LIBS    = $(shell $(PKG_CONFIG) --libs $(1) 2>/dev/null)

srcs = $(wildcard $(DIR_$(1))/*.c)
obj  = $(patsubst %.c,$(B)/obj/%.o,$(1))
isa  = $(ISA_CFLAGS_$(lastword $(subst _, ,$(basename $(notdir $(1))))))
opt  = $(or $(if $(filter %_avx2.c %_avx512.c %_amx.c %_neon.c %_scalar.c,$(1)),$(OPT_SIMD_$(CONFIG))),$(OPT_$(CONFIG)))

PROTO_C := $(patsubst host/proto/%.proto,$(B)/gen/%.pb-c.c,$(wildcard host/proto/*.proto))
PROTO_H := $(PROTO_C:.c=.h)
ABI_OUT := hw/gen/foray_abi.h hw/gen/foray_abi_pkg.sv hw/gen/foray_tables.h hw/gen/foray_tables_pkg.sv hw/gen/foray_tables_rom.sv docs/abi.md

# ---------------------------------------------------------------- products
LIB_FILES := $(foreach l,$(LIBS),$(if $(call srcs,$(l)),$(B)/lib$(l).a))
TEST_SRCS := $(wildcard tests/unit/*/test_*.c)
TEST_BINS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(TEST_SRCS))
FUZZ_SRCS := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_BINS := $(patsubst tests/fuzz/%.c,build/fuzz/fuzz/%,$(FUZZ_SRCS))
# A tool is main_<name>.c; the other files of the folder are linked into each tool of that folder.
HOST_TOOLS  := $(patsubst host/tools/main_%.c,%,$(wildcard host/tools/main_*.c))
CLOUD_TOOLS := $(patsubst cloud/tools/main_%.c,%,$(wildcard cloud/tools/main_*.c))
sub_        = $(subst _,-,$(1))
SIM_TOOLS   := $(patsubst sim/tools/main_%.c,%,$(wildcard sim/tools/main_*.c))
BINS := $(foreach t,$(HOST_TOOLS) $(CLOUD_TOOLS) $(SIM_TOOLS),$(B)/bin/$(call sub_,$(t)))

.PHONY: help all
help: ## list the targets
	@printf 'Foray %s. Targets:\n' '$(VERSION)'
	@grep -hE '^[a-z][a-z-]*:.*## ' $(filter Makefile %.mk,$(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16
	@printf 'Variables: CONFIG=release|clang|asan|fuzz  V=1 (show commands)  DRY=1 (deps: print only)\n'
	@printf '           PAIR=smollm2|coder (demo)  PREFIX, DESTDIR (install)  FILTER=regex (test-unit)\n'

PLUGIN_FILES := $(foreach p,$(PLUGINS),$(B)/devices/foray-dev-$(p).so)
.PHONY: programs
programs: $(BINS)
	$(Q)ln -sfn $(CONFIG)$(if $(MUTANT),-$(MUTANT)) build/current
all: $(BINS) $(LIB_FILES) $(PLUGIN_FILES) ## build libraries and programs into build/release
	$(Q)ln -sfn $(CONFIG)$(if $(MUTANT),-$(MUTANT)) build/current

# ---------------------------------------------------------------- rules
INC_LIBS := $(LIBS) $(PLUGINS) hosttools cloudtools simtools tests
build/inc/.stamp: Makefile
	$(Q)rm -rf build/inc; mkdir -p build/inc
	$(Q)$(foreach l,$(INC_LIBS),mkdir -p build/inc/$(l); \
	  $(foreach d,$(sort $(l) $(DEPS_$(l))),$(if $(DIR_$(d)),ln -sfn ../../../$(DIR_$(d)) build/inc/$(l)/$(d);)))
	$(Q)touch $@

# $(1) = library, $(2) = folder
define lib_rules
$(B)/obj/$(2)/%.o: $(2)/%.c build/inc/.stamp | $(PROTO_H) hw/gen/foray_abi.h
	@mkdir -p $$(@D)
	@$$(if $$(filter 1,$$(V)),,echo "  CC    $$<")
	$$(Q)$$(CCACHE) $$(CC) $$(BASE_CFLAGS) $$(call opt,$$<) $$(call isa,$$<) -Ibuild/inc/$(1) $(if $(filter abi gen foray core model dev engine train batch card cardhost,$(1)),,-I$(B)/gen) \
	  $$(PKG_CFLAGS) -MMD -MP -c -o $$@ $$<
endef
$(foreach l,$(LIBS) $(PLUGINS) hosttools cloudtools simtools,$(eval $(call lib_rules,$(l),$(DIR_$(l)))))
$(foreach d,tests/fuzz tests/perf tests/unit docs/examples $(sort $(patsubst %/,%,$(dir $(TEST_SRCS)))),$(eval $(call lib_rules,tests,$(d))))

define ar_rule
$(B)/lib$(1).a: $(call obj,$(call srcs,$(1))) $(if $(filter proto,$(1)),$(PROTO_C:.c=.o))
	@rm -f $$@
	$$(Q)ar rcs $$@ $$^
endef
$(foreach l,$(LIBS),$(if $(call srcs,$(l)),$(eval $(call ar_rule,$(l)))))

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h &: host/proto/%.proto
	@mkdir -p $(B)/gen
	@echo "  PROTO $<"
	$(Q)protoc-c --proto_path=host/proto --c_out=$(B)/gen $<
$(B)/gen/%.pb-c.o: $(B)/gen/%.pb-c.c
	$(Q)$(CCACHE) $(CC) -std=c11 $(OPT_$(CONFIG)) -I$(B)/gen $(PKG_CFLAGS) -c -o $@ $<

lib_files = $(foreach l,$(1),$(if $(call srcs,$(l)),$(B)/lib$(l).a))
link = $(CC) $(OPT_$(CONFIG)) $(LDFLAGS) -o $@ $(1) -Wl,--start-group $(2) -Wl,--end-group $(call PKG_LIBS,$(3)) $(LDLIBS)

define plugin_rule
$(B)/devices/foray-dev-$(1).so: $(call obj,$(call srcs,$(1))) $(EXTRA_$(1)) $(call lib_files,$(SO_$(1)))
	@mkdir -p $$(@D)
	@echo "  LINK  $$@"
	$$(Q)$$(or $$(LD_$(1)),$$(CC)) $$(OPT_$(CONFIG)) $$(LDFLAGS) -shared -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(call PKG_LIBS,$(PKGS_$(1)) $(foreach l,$(SO_$(1)),$(PKGS_$(l)))) $$(LIBS_$(1)) $$(LDLIBS)
endef
$(foreach p,$(PLUGINS),$(eval $(call plugin_rule,$(p))))

HOST_LIBS  := $(filter $(LIBS),$(DEPS_hosttools))
CLOUD_LIBS := $(filter $(LIBS),$(DEPS_cloudtools))
SIM_LIBS   := $(filter $(LIBS),$(DEPS_simtools))
define tool_rule
$(B)/bin/$(call sub_,$(1)): $(call obj,$(DIR_$(2))/main_$(1).c $(filter-out $(DIR_$(2))/main_%,$(call srcs,$(2)))) $(call lib_files,$(3))
	@mkdir -p $$(@D)
	@echo "  LINK  $$@"
	$$(Q)$$(call link,$$(filter %.o,$$^),$$(filter %.a,$$^),$(foreach l,$(3),$(PKGS_$(l))))
endef
$(foreach t,$(HOST_TOOLS),$(eval $(call tool_rule,$(t),hosttools,$(HOST_LIBS))))
$(foreach t,$(CLOUD_TOOLS),$(eval $(call tool_rule,$(t),cloudtools,$(CLOUD_LIBS))))
$(foreach t,$(SIM_TOOLS),$(eval $(call tool_rule,$(t),simtools,$(SIM_LIBS))))

$(B)/tests/%: $(B)/obj/tests/unit/%.o $(call obj,$(wildcard tests/unit/*.c)) $(LIB_FILES)
	@mkdir -p $(@D)
	$(Q)$(call link,$(filter %.o,$^),$(filter %.a,$^),$(PKGS_ALL) $(PKGS_tests))

# Measuring programs of tests/perf: `make build/release/perf/bench_engine`.
$(B)/perf/%: $(B)/obj/tests/perf/%.o $(LIB_FILES)
	@mkdir -p $(@D)
	$(Q)$(call link,$(filter %.o,$^),$(filter %.a,$^),$(PKGS_ALL))

$(B)/fuzz/%: $(B)/obj/tests/fuzz/%.o $(call obj,tests/unit/toy_target.c) $(LIB_FILES)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) $(OPT_$(CONFIG)) -fsanitize=fuzzer -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call PKG_LIBS,$(PKGS_ALL)) $(LDLIBS)

# ---------------------------------------------------------------- device contract
build/abigen: hw/abi/abigen.c $(wildcard hw/abi/*.def hw/abi/*.h)
	@mkdir -p build
	$(Q)$(CC_release) -std=c11 -D_GNU_SOURCE -O1 $(WARNINGS) -Ihw -o $@ $<
.PHONY: abi abi-check
ABI_MODE = $(if $(filter %.md,$1),md,$(if $(findstring tables,$1),tables$(if $(filter %_rom.sv,$1),-rom,$(if $(filter %.sv,$1),-sv)),$(if $(filter %.sv,$1),sv,c)))
abi: build/abigen ## regenerate hw/gen and docs/abi.md from hw/abi/*.def
	$(Q)mkdir -p hw/gen docs; $(foreach f,$(ABI_OUT),build/abigen $(call ABI_MODE,$f) > $f;)
abi-check: build/abigen ## fail when generated files differ from hw/abi/*.def
	$(Q)mkdir -p build/abi-check; $(foreach f,$(ABI_OUT),build/abigen $(call ABI_MODE,$f) | diff -u $f -;) \
	  echo "abi-check: generated files match hw/abi (hash $$(build/abigen hash))"

# ---------------------------------------------------------------- system packages
APT := gcc clang libclang-rt-14-dev clang-format cppcheck make pkg-config ccache git ca-certificates \
       libcunit1-dev libevent-dev libssl-dev libjansson-dev libpcre2-dev libprotobuf-c-dev protobuf-c-compiler \
       protobuf-compiler libcurl4-openssl-dev zlib1g-dev libinih-dev libopenblas-dev libsqlite3-dev sqlite3 curl verilator valgrind \
       ocl-icd-opencl-dev pocl-opencl-icd libpciaccess-dev libxrt-dev uuid-dev \
       python3 python3-venv tcl mandoc unzip jq g++ gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
.PHONY: deps
deps: ## install what is missing from Debian's packages (root or sudo; DRY=1 prints)
	$(Q)DRY='$(DRY)' bash tests/build/deps.sh $(APT)

# ---------------------------------------------------------------- checks
SRC_ALL := $(shell git ls-files -co --exclude-standard '*.c' '*.h' 2>/dev/null | grep -v '^hw/gen/')
.PHONY: layers format lint compdb
layers: ## check that no layer includes a higher one
	$(Q)bash tests/lint/layers.sh $(foreach l,$(INC_LIBS),$(if $(DIR_$(l)),'$(l):$(DIR_$(l)):$(sort $(l) $(DEPS_$(l)))'))
format: ## clang-format the tree
	$(Q)clang-format -i $(SRC_ALL)
lint: compdb ## clang-format, cppcheck, Verilator and Verible checks, gcc and clang builds
	$(Q)bash tests/lint/lint.sh $(SRC_ALL)
compdb: build/compile_commands.json
build/compile_commands.json: Makefile
	$(Q)mkdir -p build; $(MAKE) -nB CCACHE= V=1 all 2>/dev/null | python3 tests/build/compdb.py > $@.tmp && mv $@.tmp $@

# ---------------------------------------------------------------- tests
.PHONY: test test-run test-unit test-long asan fuzz
test: ## install what is missing, build, and run everything that CI runs
	$(Q)$(MAKE) deps
	$(Q)$(MAKE) test-run
test-run: ; $(Q)bash tests/run.sh fast
test-long: ## the whole proof on all models (hours; downloads 1.9 GB)
	$(Q)$(MAKE) deps
	$(Q)bash tests/run.sh long
test-unit: $(TEST_BINS) $(PLUGIN_FILES) ## unit tests only (CONFIG=..., FILTER=regex)
	$(Q)FILTER='$(FILTER)' bash tests/unit/run.sh $(TEST_BINS)
asan: ## unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(Q)$(MAKE) -j$(JOBS) CONFIG=asan test-unit
fuzz: ## build and run each fuzz target for FUZZ_SECONDS (default 60)
	$(Q)$(MAKE) -j$(JOBS) CONFIG=fuzz fuzz-bins
	$(Q)bash tests/fuzz/run.sh $${FUZZ_SECONDS:-60} $(FUZZ_BINS)
.PHONY: fuzz-bins
fuzz-bins: $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(FUZZ_SRCS))

.PHONY: demo bench install clean
demo: ## edge and cloud on this machine; PAIR=coder for the Qwen pair (1.6 GB)
	$(Q)$(MAKE) deps
	$(Q)$(MAKE) -j$(JOBS) programs
	$(Q)bash tests/e2e/demo.sh $(PAIR)
bench: ## speed as ratios against llama.cpp in the same run (downloads the Qwen pair)
	$(Q)$(MAKE) deps
	$(Q)$(MAKE) -j$(JOBS) all
	$(Q)bash tests/perf/bench.sh
install: all ## install programs, library, headers, man pages, completions
	$(Q)DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' VERSION='$(VERSION)' bash tests/build/install.sh $(B)
clean: ## remove build/
	$(Q)rm -rf build

# Parts of the tree with rules of their own.
-include $(wildcard hw/hw.mk hls/hls.mk sim/sim.mk drivers/drivers.mk cloud/cloud.mk hw/boards/boards.mk)

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
