# vitis_hls -f hls.tcl: one kernel of kernels.txt through C simulation, synthesis, cosimulation and export.
# Environment: FORAY_KERNEL (top), FORAY_BOARD (kv260), FORAY_STEPS ("csim csynth cosim export"), FORAY_OUT (folder),
# FORAY_VECTORS (folder of the test vectors, made by `make hls-vectors`).
set here [file dirname [file normalize [info script]]]
set root [file dirname [file dirname $here]]

proc from_env {name default} {
  return [expr {[info exists ::env($name)] && $::env($name) ne "" ? $::env($name) : $default}]
}
set kernel  [from_env FORAY_KERNEL top]
set board   [from_env FORAY_BOARD kv260]
set steps   [from_env FORAY_STEPS "csim csynth cosim export"]
set out     [file normalize [from_env FORAY_OUT $root/build/vitis/$board]]
set vectors [file normalize [from_env FORAY_VECTORS $root/build/hls/vectors]]

# Rows of a table, without comments and empty lines.
proc rows {path} {
  set f [open $path]
  set rows {}
  foreach line [split [read $f] "\n"] {
    set line [string trim [regsub {#.*} $line ""]]
    if {$line ne ""} { lappend rows [regexp -all -inline {\S+} $line] }
  }
  close $f
  return $rows
}

set function ""
foreach row [rows $here/kernels.txt] {
  if {[lindex $row 0] eq $kernel} { set function [lindex $row 1]; set sources [lrange $row 2 end] }
}
if {$function eq ""} { puts stderr "hls.tcl: kernels.txt has no kernel '$kernel'"; exit 2 }
if {![file exists $here/boards/$board.board]} { puts stderr "hls.tcl: no board '$board'"; exit 2 }

set part "" ; set clock 4.0 ; set defines "-DFORAY_HLS_TOP_$kernel"
foreach row [rows $here/boards/$board.board] {
  switch [lindex $row 0] {
    part     { set part [lindex $row 1] }
    clock_ns { set clock [lindex $row 1] }
    define   { append defines " -D[lindex $row 1]=[lindex $row 2]" }
  }
}
set cflags "-std=c99 -I$root/hls -I$root/hw $defines"

file mkdir $out
cd $out
open_project -reset foray_$kernel
set_top $function
foreach s $sources { add_files $root/hls/kernels/$s -cflags $cflags }
add_files -tb $here/tb.c -cflags "$cflags -DFORAY_TB_$kernel"
add_files -tb $vectors/$board-$kernel.bin
open_solution -reset -flow_target vitis solution
set_part $part
create_clock -period $clock
if {"csim" in $steps}   { csim_design -argv $vectors/$board-$kernel.bin }
if {"csynth" in $steps} { csynth_design }
if {"cosim" in $steps}  { cosim_design -argv $vectors/$board-$kernel.bin }
if {"export" in $steps} { export_design -format xo -output $out/$function.xo }
exit 0
