#!/usr/bin/env bash
# The engine's NEON kernels, built for 64-bit ARM and run under qemu: the bits of every result equal those of the plain C
# lanes on this processor, with and without the dot-product extension. A kernel with one rounding too many is noticed.
set -eu
cd "$(dirname "$0")/../.."
cross=aarch64-linux-gnu-gcc qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
if ! command -v $cross >/dev/null || [ -z "$qemu" ]; then
  echo "SKIPPED: $cross and qemu-aarch64 are not installed (make deps)"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
fi
out=build/cross
mkdir -p $out
make -s build/inc/.stamp hw/gen/foray_abi.h
common=(tests/cross/kernel_hashes.c cloud/engine/kernels_scalar.c cloud/engine/repack.c host/model/quant.c host/core/err.c)
flags=(-std=c11 -D_GNU_SOURCE -O1 -ffp-contract=off -fno-math-errno -Wall -Wextra -Wconversion -Wshadow -Wno-format-truncation -Werror -Itests/cross)
ccache=$(command -v ccache || true)
objects() { # objects COMPILER FOLDER FILE...: compiles the files
  local cc=$1 to=$out/$2 f
  shift 2
  mkdir -p "$to"
  for f in "$@"; do
    # shellcheck disable=SC2086
    $ccache "$cc" "${flags[@]}" ${extra:-} -Ibuild/inc/tests -c -o "$to/$(basename "$f" .c).o" "$f"
  done
}
passed=0 failed=0
check() { # check NAME expected|other FILE
  if { cmp -s $out/here.txt "$3" && [ "$2" = same ]; } || { ! cmp -s $out/here.txt "$3" && [ "$2" = other ]; }; then
    echo "ok: $1"
    passed=$((passed + 1))
  else
    echo "FAILED: $1"
    diff $out/here.txt "$3" | head -10 || true
    failed=$((failed + 1))
  fi
}
objects gcc here "${common[@]}" & here=$!
objects $cross arm "${common[@]}"
wait $here
gcc -o $out/here.x $out/here/*.o -lm
$out/here.x scalar >$out/here.txt
[ "$(wc -l <$out/here.txt)" -ge 20 ]
neon() { # neon NAME FLAGS: the kernels with these flags, as a program
  extra=$2 objects $cross "$1" cloud/engine/kernels_neon.c
  $cross -static -o "$out/$1.x" $out/arm/*.o "$out/$1/kernels_neon.o" -lm
}
# The mutant: multiply and add with two roundings.
mkdir -p $out/changed/engine
sed 's/c\.v\[r\] = vfmaq_f32(c\.v\[r\], a\.v\[r\], b\.v\[r\])/c.v[r] = vaddq_f32(c.v[r], vmulq_f32(a.v[r], b.v[r]))/' cloud/engine/vec_neon.h >$out/changed/engine/vec_neon.h
! cmp -s cloud/engine/vec_neon.h $out/changed/engine/vec_neon.h
neon base "" & base=$!
neon mutant -I$out/changed
wait $base
neon dot -march=armv8.2-a+dotprod
"$qemu" $out/base.x scalar >$out/arm_scalar
"$qemu" $out/base.x native >$out/arm_neon
"$qemu" $out/dot.x native >$out/arm_dot
check "plain C lanes on ARM" same $out/arm_scalar
check "NEON" same $out/arm_neon
check "NEON with dot products" same $out/arm_dot
"$qemu" $out/mutant.x native >$out/arm_mutant
check "two roundings instead of one are noticed" other $out/arm_mutant
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
