// Plain ports around foray_mv for its bench.
module mv_tb #(
    parameter int unsigned Cols = 1,
    parameter int unsigned WsW = 512,
    parameter int unsigned ActGroups = 64
) (
    input  logic           clk_i,
    input  logic           rst_ni,
    input  logic           cmd_valid_i,
    input  logic [511:0]   desc_i,
    input  logic [3:0]     c0_i,
    input  logic [3:0]     c1_i,
    output logic           done_o,
    output logic           busy_o,
    output logic [2:0]     act_o,
    input  logic           ws_valid_i,
    output logic           ws_ready_o,
    input  logic [WsW-1:0] ws_data_i,
    input  logic           ax_valid_i,
    output logic           ax_ready_o,
    input  logic [511:0]   ax_data_i,
    output logic           sp_re_o,
    output logic [19:0]    sp_raddr_o,
    input  logic [511:0]   sp_rdata_i,
    output logic           sp_we_o,
    output logic [19:0]    sp_waddr_o,
    output logic [511:0]   sp_wdata_o,
    output logic [15:0]    sp_wstrb_o,
    output logic           lg_valid_o,
    input  logic           lg_ready_i,
    output logic [2:0]     lg_col_o,
    output logic [19:0]    lg_row_o,
    output logic [31:0]    lg_id_o,
    output logic [31:0]    lg_logit_o,
    output logic           lg_last_o
);

  foray_pkg::cmd_t cmd;
  foray_pkg::logit_t lg;
  always_comb begin
    cmd = '0;
    cmd.desc = desc_i;
    cmd.c0 = c0_i;
    cmd.c1 = c1_i;
  end
  assign lg_col_o = lg.col;
  assign lg_row_o = lg.row;
  assign lg_id_o = lg.id;
  assign lg_logit_o = lg.logit;
  assign lg_last_o = lg.last;

  foray_mv #(
      .Cols(Cols),
      .WsW(WsW),
      .ActGroups(ActGroups)
  ) u_dut (
      .cmd_i(cmd),
      .lg_o(lg),
      .*
  );

endmodule
