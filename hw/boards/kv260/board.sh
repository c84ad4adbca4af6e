# KV260: four 128-bit HP ports of the processing system. Sourced by ../vitis/build.sh.
CONFIG=mid
DEFINES=FORAY_KERNEL_PORTS_4
PART=xck26-sfvc784-2LV-c
PLATFORM=${PLATFORM:-xilinx_kv260_base}
FREQUENCY_MHZ=300
