#!/usr/bin/env bash
# The HLS kernels outside the unit tests: as Vitis would be given them, as Bambu would be, and under the whole edge.
set -u
. "$(dirname "$0")/lib.sh"
m=smollm2-135m-instruct

check "recorded calls" make hls-vectors
check "every kernel with each board's limits" make hls-csim
check "the Vitis scripts" make hls-dry

# One wrong thing at a time in a copy of the scripts: the dry run must name it.
vectors=$PWD/build/hls/vectors
mutant() { # mutant NAME FILE SED-EXPRESSION TEXT [KERNEL]
  local name=$1 file=$2 edit=$3 text=$4 kernel=${5:-top}
  rm -rf "$tmp/tree"
  mkdir -p "$tmp/tree/hls" "$tmp/tree/hw"
  cp -r hls/include hls/kernels hls/vitis "$tmp/tree/hls/" && cp -r hw/abi hw/gen "$tmp/tree/hw/"
  sed -i -E "$edit" "$tmp/tree/$file"
  cmp -s "$tmp/tree/$file" "$file" && { echo "FAILED $name: the edit changes nothing"; failed=$((failed + 1)); return; }
  if FORAY_VECTORS=$vectors python3 "$tmp/tree/hls/vitis/dry.py" "$tmp/tree" "$kernel" >"$tmp/dry" 2>&1 || ! grep -qF -- "$text" "$tmp/dry"; then
    echo "FAILED $name: wanted '$text'"
    tail -5 "$tmp/dry"
    failed=$((failed + 1))
  else passed=$((passed + 1)); fi
}
mutant "a source that is not there" hls/vitis/kernels.txt 's/ validate\.c//' "do not make a program"
mutant "a file of another name" hls/vitis/kernels.txt 's/rmsnorm\.c$/rms.c/' "does not exist" rmsnorm
mutant "a port that is no argument" hls/kernels/rope.c 's/HLS_PORT_SCALAR\(pos0\)/HLS_PORT_SCALAR(pos)/' "port 'pos'" rope
mutant "an argument without a port" hls/kernels/rope.c '/HLS_PORT_SCALAR\(c1\)/d' "argument 'c1'" rope
mutant "a bundle of two ports" hls/include/hls.h 's/bundle = gmem1/bundle = gmem/' "bundle 'gmem'" rmsnorm
mutant "a register that moved" hls/kernels/top.c 's/offset = 0x24/offset = 0x28/' "'run' at 0x28"
mutant "memory of a port that is not there" hls/vitis/boards/u250.cfg 's/foray_top_1\.heap/foray_top_1.weights/' "'weights'"
mutant "an instance that is not there" hls/vitis/boards/kv260.cfg 's/^sp=foray_top_1/sp=foray_top_2/' "foray_top_2"
mutant "a macro that nothing reads" hls/vitis/boards/kv260.board 's/FORAY_HLS_GROUPS/FORAY_HLS_GROUP/' "nothing reads"
mutant "more memory than the board has" hls/vitis/boards/kv260.board 's/10240/40960/' "KB of arrays"
mutant "an object of another name" hls/vitis/hls.tcl 's/function\.xo/kernel.xo/' "v++ links"

# PandA-Bambu: without it the rule says so; with a stand-in that records its command line it is given what exists.
without=$(make -s hls-rtl HLS_RTL=rmsnorm 2>&1) rc=$?
if command -v bambu >/dev/null; then
  check "kernels through PandA-Bambu" [ $rc -eq 0 ]
else
  check "without Bambu the rule says so" grep -q "not installed" <<<"$without"
  skip "PandA-Bambu is not installed: kernels were not turned into Verilog"
fi
mkdir -p "$tmp/bin"
cat >"$tmp/bin/bambu" <<'SH'
#!/bin/sh
printf '%s\n' "$@" >>"$RECORD"
for a; do case $a in --top-fname=*) top=${a#*=} ;; esac; done
[ "${STANDIN:-}" = fails ] && exit 3
[ "${STANDIN:-}" = silent ] || echo "module $top; endmodule" >"$top.v"
[ "${STANDIN:-}" = differs ] && echo "rmsnorm: DIFFERENT"
exit 0
SH
chmod +x "$tmp/bin/bambu"
bambu() { rm -rf "$tmp/rtl";  env PATH="$tmp/bin:$PATH" RECORD="$tmp/record" STANDIN="$1" bash hls/rtl.sh build/hls/vectors "$tmp/rtl" rmsnorm gemv_q4; }
recorded() {
  rm -f "$tmp/record"
  bambu "" | grep -q "2 kernels" || return 1
  for want in --top-fname=foray_hls_rmsnorm --top-fname=foray_hls_gemv_q4 --simulate --simulator=VERILATOR --generate-interface=INFER -D__BAMBU__; do
    grep -qxF -- "$want" "$tmp/record" || { echo "not on the command line: $want"; return 1; }
  done
  while read -r file; do [ -e "$file" ] || { echo "no such file: $file"; return 1; }; done < <(grep -E '^/.*\.c$' "$tmp/record")
  [ "$(grep -cE '^/.*\.c$' "$tmp/record")" -eq 4 ] || return 1
  file=$(sed -n 's/^--generate-tb=//p' "$tmp/record" | head -1)
  [ -e "$file" ] || return 1
  file=$(sed -nE 's/.*FORAY_TB_VECTOR=\\"([^"\\]*)\\".*/\1/p' "$tmp/record" | head -1)
  [ -e "$file" ] || { echo "no such vector: $file"; return 1; }
}
check "what Bambu is given" recorded
check "Bambu that fails" fails_with 1 "bambu failed" bambu fails
check "Bambu that makes no Verilog" fails_with 1 "made no" bambu silent
check "Verilog that differs" fails_with 1 "differs" bambu differs

# The same text from the kernels as from the fast device.
if have_model $m; then
  text() { "$bin/foray" generate -m $m --alone --device "$1" -n 6 -c 128 -p 'The capital of France is' --json | jq -c '[.ids, [.steps[].confidence]]' >"$tmp/$1.ids" && [ -s "$tmp/$1.ids" ]; }
  check "generate on cpu" text cpu
  check "generate on hls" text hls
  check "the same tokens and confidences" cmp "$tmp/cpu.ids" "$tmp/hls.ids"
else
  skip "$m is not on this machine"
fi
finish
