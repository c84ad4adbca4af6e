#!/usr/bin/env bash
# XRT without Vitis: unmodified hosts (C++, C, OpenCL) against a Verilated kernel, and the xrt device against the card
# model, all through Debian's libxrt and the simulation of sim/xrt.
set -u
cd "$(dirname "$0")/../.."
b=build/release w=build/xrt-test pass=0 fail=0
mkdir -p $w
make -j"${JOBS:-2}" sim-xrt $b/bin/foray-xclbin $b/tests/dev/test_devices >$w/make.log 2>&1 || { tail -20 $w/make.log; exit 1; }
ok() { pass=$((pass + 1)); }
bad() { fail=$((fail + 1)); echo "FAILED: $*"; }
says() { # says TEXT WHAT COMMAND...: ends with 0 and says TEXT
  local text=$1 what=$2; shift 2
  if timeout 120 "$@" >$w/out 2>&1 && { [ -z "$text" ] || grep -qF -- "$text" $w/out; }; then ok; else bad "$what"; tail -5 $w/out; fi
}
refuses() { # refuses TEXT WHAT COMMAND...: fails and says TEXT
  local text=$1 what=$2; shift 2
  if timeout 120 "$@" >$w/out 2>&1; then bad "$what: succeeded"; elif grep -qF -- "$text" $w/out; then ok; else bad "$what: does not say '$text'"; tail -5 $w/out; fi
}
sim="setsid -w $b/bin/foray sim-xrt" # XRT signals its whole process group when it crashes

# The kernel, Verilated, into an xclbin.
if [ ! -e $w/vadd.so ] || [ tests/xrt/vadd.sv -nt $w/vadd.so ] || [ tests/xrt/vadd_rtl.cpp -nt $w/vadd.so ]; then
  v=$(verilator --getenv VERILATOR_ROOT)/include
  verilator --cc tests/xrt/vadd.sv --top-module vadd -Wno-fatal --build -CFLAGS "-fPIC -O1" -Mdir $w/obj >$w/verilator.log 2>&1 &&
    g++ -std=c++17 -O1 -fPIC -shared -o $w/vadd.so tests/xrt/vadd_rtl.cpp $w/obj/Vvadd__ALL.a "$v/verilated.cpp" "$v/verilated_threads.cpp" \
      -I$w/obj -I"$v" -I"$v/vltstd" -Isim/xrt -pthread >>$w/verilator.log 2>&1 || { tail -20 $w/verilator.log; bad "verilator"; }
fi
flags="-I/usr/include/xrt -lxrt_coreutil -luuid -pthread"
# shellcheck disable=SC2086
g++ -std=c++17 -O1 tests/xrt/host.cpp -o $w/host_cpp $flags >$w/cc.log 2>&1 && gcc -O1 tests/xrt/host.c -o $w/host_c $flags >>$w/cc.log 2>&1 &&
  gcc -O1 tests/xrt/host_cl.c -o $w/host_cl -lOpenCL >>$w/cc.log 2>&1 || { tail -20 $w/cc.log; bad "hosts do not compile"; }

says "" "xclbin of two units and three banks" $b/bin/foray-xclbin --spec tests/xrt/vadd.json --bits $w/vadd.so -o $w/vadd.xclbin
says "vadd:vadd_2" "inspect" $b/bin/foray-xclbin $w/vadd.xclbin
for mode in hw_emu sw_emu none; do
  says "host: right" "C++ host, $mode" $sim --mode $mode -- $w/host_cpp $w/vadd.xclbin
  says "host: right" "C host, $mode" $sim --mode $mode -- $w/host_c $w/vadd.xclbin
done
says "host: right" "second device" $sim -- $w/host_cpp $w/vadd.xclbin 1
says "host: right" "OpenCL host" $sim -- $w/host_cl $w/vadd.xclbin

# Several hosts at once; one is killed in the middle, and nothing of it stays.
before=$(find /tmp -maxdepth 2 -newer $w/vadd.xclbin \( -name '*xcl*' -o -name 'device*' \) 2>/dev/null | wc -l)
for k in 1 2 3; do ($sim -- $w/host_cpp $w/vadd.xclbin >$w/par$k 2>&1) & done
$b/bin/foray sim-xrt -- $w/host_cpp $w/vadd.xclbin >/dev/null 2>&1 & victim=$!
sleep 0.1; kill -KILL $victim 2>/dev/null; wait
for k in 1 2 3; do if grep -q "host: right" $w/par$k; then ok; else bad "host $k of three"; tail -3 $w/par$k; fi; done
after=$(find /tmp -maxdepth 2 -newer $w/vadd.xclbin \( -name '*xcl*' -o -name 'device*' \) 2>/dev/null | wc -l)
if [ "$before" = "$after" ] && [ ! -e .run ] && [ ! -e $w/.run ]; then ok; else bad "something was left behind"; fi

# The same input gives the same file; another one another UUID.
$b/bin/foray-xclbin --spec tests/xrt/vadd.json --bits $w/vadd.so -o $w/again.xclbin
if cmp -s $w/vadd.xclbin $w/again.xclbin; then ok; else bad "the writer is not reproducible"; fi
says "" "a section comes out again" $b/bin/foray-xclbin $w/vadd.xclbin --extract BITSTREAM -o $w/bits.so
if cmp -s $w/bits.so $w/vadd.so; then ok; else bad "BITSTREAM differs"; fi
head -c 5000 $w/vadd.xclbin >$w/cut.xclbin
refuses "cut off" "a file that is cut off" $b/bin/foray-xclbin $w/cut.xclbin
echo "not a model" >$w/text
$b/bin/foray-xclbin --spec tests/xrt/vadd.json --bits $w/text -o $w/text.xclbin
refuses "no kernel model" "an xclbin without a model" $sim -- $w/host_c $w/text.xclbin

# The device of Foray itself: programs equal ref, on ref and on cpu behind the registers.
says "1 passed" "xrt device" env FORAY_TEST_DEVICES="xrt:0 xrt:1,kernel=foray_top" $b/bin/foray sim-xrt -- $b/tests/dev/test_devices named_devices
says "1 passed" "xrt device, cpu behind it" env FORAY_SIM_DEVICE=cpu FORAY_TEST_DEVICES=xrt $b/bin/foray sim-xrt -- $b/tests/dev/test_devices named_devices
says "ready" "listed" bash -c "$b/bin/foray sim-xrt -- $b/bin/foray devices | grep '^xrt:0'"
refuses "No such file" "no xclbin" env FORAY_TEST_DEVICES=xrt:0,xclbin=/nonexistent $b/bin/foray sim-xrt -- $b/tests/dev/test_devices named_devices
refuses "failed" "a kernel that is not there" env FORAY_TEST_DEVICES=xrt:0,kernel=nothing $b/bin/foray sim-xrt -- $b/tests/dev/test_devices named_devices
refuses "XILINX_XRT is not set" "outside the simulation" env -u XILINX_XRT FORAY_TEST_DEVICES=xrt $b/tests/dev/test_devices named_devices
echo "$pass passed, $fail failed, 0 skipped"
[ "$fail" -eq 0 ]
