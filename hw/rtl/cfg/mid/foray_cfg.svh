// Configuration mid: sizes of foray_top. hw/rtl/README.md explains them.
`define FORAY_CFG_NAME "mid"
`define FORAY_PORT_W 128
`define FORAY_PORTS 4
`define FORAY_COLS 1
`define FORAY_SCRATCH_UNITS 16384
`define FORAY_FIFO_UNITS 4096
`define FORAY_STRIPE_UNITS 4
`define FORAY_PROG_DEPTH 4096
`define FORAY_ACT_GROUPS 512
`define FORAY_Q_GROUPS 512
`define FORAY_UNROLL 2
`define FORAY_ATTN_LANES 8
