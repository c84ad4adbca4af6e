#!/usr/bin/env bash
# The pcie device through the real libpciaccess: a mount namespace in which the PCI bus has one device, a card model in
# another process. Then cards that are gone, dead, locked, switched off, too small; two users at once.
set -u
cd "$(dirname "$0")/../.."
b=build/release
make -j"${JOBS:-2}" $b/bin/foray $b/bin/foray-card $b/devices/foray-dev-pcie.so $b/tests/dev/test_devices >build/log.pcie 2>&1 ||
  { tail -20 build/log.pcie; exit 1; }
if [ -z "${FORAY_PCIE_INSIDE:-}" ]; then
  how=(unshare -m); [ "$(id -u)" = 0 ] || how=(unshare -r -m)
  if ! "${how[@]}" true 2>/dev/null; then
    echo "SKIPPED: this machine gives no mount namespace, so the pcie device was NOT tested"
    echo "0 passed, 0 failed, 1 skipped"; exit 0
  fi
  FORAY_PCIE_INSIDE=1 exec "${how[@]}" bash "$0"
fi

pass=0 fail=0 slot=0000:03:00.0 dev=/sys/bus/pci/devices/0000:03:00.0 server=
work=$(mktemp -d)
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
ok() { pass=$((pass + 1)); }
bad() { fail=$((fail + 1)); echo "FAILED: $*"; }
check() { local what=$1; shift; if "$@" >"$work/out" 2>&1; then ok; else bad "$what"; tail -5 "$work/out"; fi; }
# refuses TEXT COMMAND...: the command fails and says TEXT.
refuses() {
  local text=$1; shift
  if "$@" >"$work/out" 2>&1; then bad "succeeded instead of: $text"
  elif ! grep -qF -- "$text" "$work/out"; then bad "did not say: $text"; tail -3 "$work/out"
  else ok; fi
}
start() { # start [DEVICE]
  rm -rf "$dev"; mkdir -p "${dev%/*}"
  $b/bin/foray-card --pci "$dev" --mib 8 --device "${1:-ref}" 2>"$work/server" & server=$!
  for _ in $(seq 200); do grep -q serving "$work/server" 2>/dev/null && return; sleep 0.05; done
  bad "the card model does not start"; cat "$work/server"
}
halt() { kill "$server"; wait "$server" 2>/dev/null; server=; }
try() { FORAY_TEST_DEVICES="$1" timeout 120 $b/tests/dev/test_devices named_devices; }

mount -t tmpfs none /sys/bus || { echo "FAILED: no tmpfs in the namespace"; exit 1; }
mkdir -p /sys/bus/pci/devices
refuses "carries Foray's mark" try pcie
start
check "listed" bash -c "$b/bin/foray devices | grep -q 'pcie:$slot.*ready'"
check "programs on the card equal ref" try pcie
check "by slot" try pcie:$slot
check "by ids" try pcie:1209:464b,ctl=0,mem=2
refuses "no such device" try pcie:0000:04:00.0
refuses "wants a slot" try pcie:zebra
refuses "too few for the memory" try pcie:$slot,mem=0+4032
refuses "no memory BAR" try pcie:$slot,mem=1

# MMIO of a draft block: five register writes, polls, the error register, 24 bytes of results.
FORAY_PCIE_TRACE=1 FORAY_TEST_DEVICES=pcie $b/tests/dev/test_devices named_devices >"$work/out" 2>&1
line=$(grep -E '^pcie: [1-9][0-9]* runs' "$work/out" | tail -1)
if read -r runs writes < <(sed -nE 's/^pcie: ([0-9]+) runs, [0-9]+ register reads, ([0-9]+) register writes.*/\1 \2/p' <<<"$line") &&
  [ "$writes" -eq $((5 * runs)) ]; then ok; echo "$line"; else bad "traffic: $line"; fi

# Two processes at once: the first holds the lock.
exec 7<>"$dev/resource0"; flock -n 7
refuses "another process uses this card" try pcie
exec 7<&-
check "free again" try pcie

printf '\0\0' | dd of="$dev/config" bs=1 seek=4 conv=notrunc 2>/dev/null
refuses "switched off" try pcie
printf '\377\377' | dd of="$dev/config" bs=1 seek=4 conv=notrunc 2>/dev/null
refuses "the card is gone" try pcie
printf '\6\0' | dd of="$dev/config" bs=1 seek=4 conv=notrunc 2>/dev/null
check "back" try pcie

# Another ABI: the window has another hash.
halt
printf '\1' | dd of="$dev/resource0" bs=1 seek=$((0x48)) conv=notrunc 2>/dev/null
refuses "bitstream of this release" try pcie
# Dead: nobody serves; CONTROL says busy.
start; halt
printf '\1\0\0\0' | dd of="$dev/resource0" bs=1 seek=0 conv=notrunc 2>/dev/null
refuses "does not become idle" try pcie
# Removed: all reads give ones.
head -c 4096 /dev/zero | tr '\0' '\377' | dd of="$dev/resource0" conv=notrunc 2>/dev/null
refuses "all reads give ones" try pcie
# Wrong size: the file is shorter than the BAR.
start
truncate -s 4M "$dev/resource2"
refuses "by the kernel's file" try pcie
halt
start cpu
check "another device class behind the registers" try pcie
# Surprise removal in the middle: the window turns to ones while a session goes on.
( for _ in $(seq 60); do try pcie || break; done >"$work/gone" 2>&1 ) & user=$!
sleep 0.5; kill -STOP "$server"
head -c 4096 /dev/zero | tr '\0' '\377' | dd of="$dev/resource0" conv=notrunc 2>/dev/null
wait "$user"
if grep -qE "all reads give ones" "$work/gone"; then ok; else bad "surprise removal"; tail -3 "$work/gone"; fi
kill -CONT "$server"; kill -KILL "$server"; wait "$server" 2>/dev/null; server=
echo "$pass passed, $fail failed, 0 skipped"
[ "$fail" -eq 0 ]
