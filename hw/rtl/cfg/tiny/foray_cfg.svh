// Configuration tiny: sizes of foray_top. hw/rtl/README.md explains them.
`define FORAY_CFG_NAME "tiny"
`define FORAY_PORT_W 64
`define FORAY_PORTS 1
`define FORAY_COLS 1
`define FORAY_SCRATCH_UNITS 2048
`define FORAY_FIFO_UNITS 256
`define FORAY_STRIPE_UNITS 32
`define FORAY_PROG_DEPTH 1024
`define FORAY_ACT_GROUPS 128
`define FORAY_Q_GROUPS 128
`define FORAY_UNROLL 1
`define FORAY_ATTN_LANES 1
