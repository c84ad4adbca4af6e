#!/usr/bin/env bash
# rtl.sh VECTORS OUT KERNEL...: kernels of hls/vitis/kernels.txt become Verilog with PandA-Bambu, are simulated by it
# with Verilator on their recorded calls (VECTORS, see `make hls-vectors`), and compared with what the reference device
# made of them. Without `bambu` on the PATH it says so and does nothing.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
vectors=$(cd "$1" && pwd) out=$2
shift 2
if ! command -v bambu >/dev/null; then
  echo "hls-rtl: PandA-Bambu is not installed (no 'bambu' on the PATH); nothing was run"
  exit 0
fi
defines=$(awk '$1 == "define" {printf "-D%s=%s ", $2, $3}' "$root/hls/vitis/boards/kv260.board")
done=0
for kernel; do
  read -r _ function sources < <(awk -v k="$kernel" '$1 == k' "$root/hls/vitis/kernels.txt") || { echo "hls-rtl: no kernel '$kernel'" >&2; exit 2; }
  mkdir -p "$out/$kernel"
  files=()
  for s in $sources; do files+=("$root/hls/kernels/$s"); done
  common="-std=c99 -I$root/hls -I$root/hw $defines"
  # shellcheck disable=SC2086 # the flags are words
  (cd "$out/$kernel" && bambu "${files[@]}" $common -D__BAMBU__ "--top-fname=$function" --generate-interface=INFER \
    --compiler=I386_CLANG16 -O2 --simulate --simulator=VERILATOR "--generate-tb=$root/hls/vitis/tb.c" \
    "--tb-extra-gcc-options=$common -DFORAY_TB_$kernel -DFORAY_TB_VECTOR=\\\"$vectors/kv260-$kernel.bin\\\"" \
    --tb-param-size=heap:1048576,scratch:1048576,desc:64,tokens:32 >log 2>&1) ||
    { tail -5 "$out/$kernel/log"; echo "hls-rtl: $kernel: bambu failed ($out/$kernel/log)" >&2; exit 1; }
  verilog=$(find "$out/$kernel" -name "$function.v" | head -1)
  [ -n "$verilog" ] || { echo "hls-rtl: $kernel: bambu made no $function.v" >&2; exit 1; }
  grep -q 'DIFFERENT' "$out/$kernel/log" && { echo "hls-rtl: $kernel: the simulated Verilog differs from the reference" >&2; exit 1; }
  if command -v verilator >/dev/null; then
    verilator --lint-only -Wno-fatal --top-module "$function" "$verilog" >"$out/$kernel/lint" 2>&1 ||
      { tail -5 "$out/$kernel/lint"; echo "hls-rtl: $kernel: Verilator does not take $verilog" >&2; exit 1; }
  fi
  done=$((done + 1))
done
echo "hls-rtl: $done kernels as Verilog, simulated and equal to the reference"
