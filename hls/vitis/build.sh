#!/usr/bin/env bash
# build.sh BOARD [TARGET]: the xclbin of foray_top for a board of boards/, with Vitis (vitis_hls and v++ on the PATH,
# platforms installed). TARGET: hw (default), hw_emu or sw_emu. What it makes lies in build/vitis/BOARD.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
board=${1:?usage: build.sh BOARD [hw|hw_emu|sw_emu]} target=${2:-hw}
[ -f "$here/boards/$board.board" ] || { echo "build.sh: no board '$board'; there are: $(cd "$here/boards" && ls ./*.board | sed 's/^..//; s/\.board//' | tr '\n' ' ')" >&2; exit 2; }
for tool in vitis_hls v++; do
  command -v $tool >/dev/null || { echo "build.sh: $tool is not on the PATH: source the settings64.sh of Vitis first" >&2; exit 1; }
done
out=${FORAY_OUT:-$root/build/vitis/$board}
platform=$(awk '$1 == "platform" {print $2}' "$here/boards/$board.board")
clock=$(awk '$1 == "clock_ns" {print $2}' "$here/boards/$board.board")
mkdir -p "$out"
FORAY_KERNEL=top FORAY_BOARD=$board FORAY_OUT=$out FORAY_STEPS=${FORAY_STEPS:-csynth export} vitis_hls -f "$here/hls.tcl"
v++ --link --target "$target" --platform "${FORAY_PLATFORM:-$platform}" --config "$here/boards/$board.cfg" \
  --kernel_frequency "$(awk -v ns="$clock" 'BEGIN {printf "%d", 1000 / ns}')" --save-temps --temp_dir "$out/temp" \
  --output "$out/foray_top.$target.xclbin" "$out/foray_top.xo"
echo "$out/foray_top.$target.xclbin"
