#!/usr/bin/env bash
# The Vitis packaging of KV260 and Alveo against the sources (hw/boards/check.py), and that the check notices what it is for. The
# scripts themselves have not been run with the vendor's tools; --dry prints what they would do.
set -u
cd "$(dirname "$0")/../.."
passed=0 failed=0
ok() { # ok NAME STATUS
  if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  echo "$([ "$2" -eq 0 ] && echo ok || echo FAILED): $1"
}
python3 hw/boards/check.py
ok "packaging agrees with the sources" $?
for b in kv260 alveo; do
  bash hw/boards/vitis/build.sh $b --dry | grep -q '+ v++ --link'
  ok "$b: build.sh --dry" $?
done
! bash hw/boards/vitis/build.sh toaster --dry 2>/dev/null
ok "an unknown board is refused" $?

w=$(mktemp -d); trap 'rm -rf "$w"' EXIT
mutant() { # mutant NAME FILE SED
  rm -rf "$w/hw"
  mkdir -p "$w/hw"
  cp -r hw/boards hw/rtl hw/gen "$w/hw/"
  sed -i "$3" "$w/$2"
  if cmp -s "$2" "$w/$2"; then ok "$1 (nothing was changed)" 1; return; fi
  ! python3 hw/boards/check.py --top "$w" >/dev/null
  ok "noticed: $1" $?
}
mutant "an argument at another offset" hw/boards/alveo/kernel.xml 's/offset="0x24"/offset="0x28"/'
mutant "another width of a port" hw/boards/kv260/kernel.xml 's/m02_axi" mode="master" range="0xFFFFFFFFFFFFFFFF" dataWidth="128"/m02_axi" mode="master" range="0xFFFFFFFFFFFFFFFF" dataWidth="64"/'
mutant "a port that is not linked" hw/boards/kv260/link.cfg '/m03_axi/d'
mutant "a signal of foray_top left out" hw/boards/vitis/foray_kernel.sv '/\.irq_o/d'
mutant "a file that does not exist" hw/boards/vitis/package_xo.tcl 's/foray_tables_rom\.sv/foray_tables_ram.sv/'
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
