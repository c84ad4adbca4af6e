#!/usr/bin/env bash
# build.sh kv260|alveo [xo|xclbin] [--dry]: packages the kernel with Vivado and links it with v++ (needs Vitis on the PATH; PLATFORM
# may name another one). --dry prints the commands and checks the files they name; it needs no tools.
set -eu
cd "$(dirname "$0")/../../.."
board=${1:?usage: build.sh kv260|alveo [xo|xclbin] [--dry]} goal=${2:-xclbin} dry=
for a in "$@"; do [ "$a" = --dry ] && dry=1; done
[ "$goal" = --dry ] && goal=xclbin
dir=hw/boards/$board
if [ ! -e "$dir/board.sh" ] || [ ! -e "$dir/kernel.xml" ]; then
  echo "build.sh: '$board' is no board of the Vitis flow; there are: kv260 alveo" >&2
  exit 2
fi
# shellcheck disable=SC1090
. "$dir/board.sh"
out=build/boards/$board
run() {
  echo "+ $*"
  [ -n "$dry" ] || "$@"
}
need() {
  [ -n "$dry" ] || command -v "$1" >/dev/null || { echo "build.sh: $1 is not on the PATH: source Vitis' settings64.sh first" >&2; exit 1; }
}
for f in hw/boards/vitis/package_xo.tcl hw/boards/vitis/foray_kernel.sv "$dir/kernel.xml" "$dir/link.cfg" "hw/rtl/cfg/$CONFIG/foray_cfg.svh"; do
  [ -e "$f" ] || { echo "build.sh: $f is missing" >&2; exit 1; }
done
mkdir -p "$out"
need vivado
run vivado -mode batch -notrace -nojournal -log "$out/package.log" -source hw/boards/vitis/package_xo.tcl \
  -tclargs "$PWD" "$CONFIG" "$DEFINES" "$PART" "$PWD/$dir/kernel.xml" "$PWD/$out/foray.xo"
[ "$goal" = xo ] && exit 0
need v++
run v++ --link --target hw --platform "$PLATFORM" --kernel_frequency "$FREQUENCY_MHZ" --config "$dir/link.cfg" --save-temps --temp_dir "$out/v++" \
  --report_level 2 -o "$out/foray.xclbin" "$out/foray.xo"
