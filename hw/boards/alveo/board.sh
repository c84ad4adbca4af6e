# Alveo U250: one 512-bit port to one DDR4 bank. Sourced by ../vitis/build.sh.
CONFIG=big
DEFINES=
PART=xcu250-figd2104-2L-e
PLATFORM=${PLATFORM:-xilinx_u250_gen3x16_xdma_4_1_202210_1}
FREQUENCY_MHZ=300
