// Configuration mid8: sizes of foray_top. hw/rtl/README.md explains them.
`define FORAY_CFG_NAME "mid8"
`define FORAY_PORT_W 128
`define FORAY_PORTS 4
`define FORAY_COLS 8
`define FORAY_SCRATCH_UNITS 32768
`define FORAY_FIFO_UNITS 4096
`define FORAY_STRIPE_UNITS 4
`define FORAY_PROG_DEPTH 4096
`define FORAY_ACT_GROUPS 512
`define FORAY_Q_GROUPS 2048
`define FORAY_UNROLL 10
`define FORAY_ATTN_LANES 8
