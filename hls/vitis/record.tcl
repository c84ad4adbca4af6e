# Stands in for vitis_hls in a dry run: `tclsh record.tcl -f hls.tcl` prints each tool command of the script, one a
# line, fields separated by tabs, and makes the file that export_design would.
foreach command {open_project set_top add_files open_solution set_part create_clock csim_design csynth_design
                 cosim_design export_design} {
  proc $command args [string map [list NAME $command] {
    puts [join [concat NAME $args] "\t"]
    if {"NAME" eq "export_design"} {
      close [open [lindex $args [expr {[lsearch $args -output] + 1}]] w]
    }
  }]
}
if {[lindex $argv 0] ne "-f"} { puts stderr "record.tcl: only -f SCRIPT"; exit 2 }
set script [lindex $argv 1]
proc info_script_of {} { return $::script }
rename info builtin_info
proc info args {
  if {$args eq "script"} { return $::script }
  return [uplevel 1 [linsert $args 0 builtin_info]]
}
source $script
