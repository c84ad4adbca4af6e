#!/usr/bin/env bash
# The conformance suite on every device that this machine can have: make test-devices. Behind xrt and pcie stands the
# card model (sim/card), the PCI bus is one of our own in a mount namespace.
set -u
cd "$(dirname "$0")/../.."
b=build/release pass=0 fail=0 skip=0 blocks=${BLOCKS:-100}
make -j"${JOBS:-2}" all sim-xrt >build/log.selftest 2>&1 || { tail -20 build/log.selftest; exit 1; }
row() { printf '%-28s %s\n' "$1" "$2"; }
run() { # run NAME COMMAND...
  local name=$1 out; shift
  if out=$(timeout 300 "$@" 2>&1); then pass=$((pass + 1)); row "$name" "$(tail -1 <<<"$out")"
  else fail=$((fail + 1)); row "$name" FAILED; tail -6 <<<"$out"; fi
}
usable() { $b/bin/foray devices --json --no-test | jq -e --arg d "$1" 'any(.[]; .driver == $d and .usable)' >/dev/null; }

for d in ref cpu hls opencl sim; do
  if usable $d; then run $d $b/bin/foray selftest --device $d --blocks "$blocks"
  else skip=$((skip + 1)); row $d "SKIPPED: $($b/bin/foray devices --json --no-test | jq -r --arg d $d '[.[] | select(.driver == $d) | .why] | first // "not built"')"; fi
done
run "xrt (simulation)" $b/bin/foray sim-xrt -- $b/bin/foray selftest --device xrt:0 --blocks "$blocks"
run "xrt (simulation, cpu)" env FORAY_SIM_DEVICE=cpu $b/bin/foray sim-xrt -- $b/bin/foray selftest --device xrt:1 --blocks "$blocks"
how=(unshare -m); [ "$(id -u)" = 0 ] || how=(unshare -r -m)
if "${how[@]}" true 2>/dev/null; then
  # shellcheck disable=SC2016
  run "pcie (namespace)" "${how[@]}" bash -c 'mount -t tmpfs none /sys/bus && mkdir -p /sys/bus/pci/devices &&
    { "$1"/bin/foray-card --pci /sys/bus/pci/devices/0000:03:00.0 --mib 8 2>/dev/null & } && server=$! &&
    for _ in $(seq 100); do [ -s /sys/bus/pci/devices/0000:03:00.0/resource0 ] && break; sleep 0.05; done; sleep 0.3
    "$1"/bin/foray selftest --device pcie --blocks "$2"; rc=$?; kill $server; exit $rc' - $b "$blocks"
else
  skip=$((skip + 1)); row pcie "SKIPPED: this machine gives no mount namespace"
fi
echo "$pass passed, $fail failed, $skip skipped"
[ "$fail" -eq 0 ]
