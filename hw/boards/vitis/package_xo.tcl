# Packages foray_kernel as an .xo: vivado -mode batch -source package_xo.tcl -tclargs TOP CONFIG DEFINES PART KERNEL_XML OUT
lassign $argv top config defines part kernel_xml out
set work [file join [file dirname $out] package]
file delete -force $work $out
create_project -force foray_kernel [file join $work project] -part $part

set gen [list foray_abi_pkg.sv foray_tables_pkg.sv foray_tables_rom.sv]
foreach f $gen { add_files -norecurse [file join $top hw/gen $f] }
add_files -norecurse [glob [file join $top hw/rtl *.sv]]
add_files -norecurse [file join $top hw/boards/vitis/foray_kernel.sv]
set_property include_dirs [list [file join $top hw/rtl/cfg $config]] [current_fileset]
if {$defines ne ""} { set_property verilog_define $defines [current_fileset] }
set_property top foray_kernel [current_fileset]
update_compile_order -fileset sources_1

ipx::package_project -root_dir [file join $work ip] -vendor foray -library kernel -name foray_kernel -version 1.0 -taxonomy /KernelIP -import_files -set_current true
set core [ipx::current_core]
set_property sdx_kernel true $core
set_property sdx_kernel_type rtl $core
foreach bus [ipx::get_bus_interfaces -of_objects $core -filter {ABSTRACTION_TYPE_NAME == aximm_rtl}] {
  ipx::associate_bus_interfaces -busif [get_property NAME $bus] -clock ap_clk $core
}
ipx::associate_bus_interfaces -clock ap_clk -reset ap_rst_n $core
set_property core_revision 1 $core
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity -kernel $core
ipx::save_core $core
close_project -delete

package_xo -xo_path $out -kernel_name foray -ip_directory [file join $work ip] -kernel_xml $kernel_xml
