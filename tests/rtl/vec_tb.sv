// foray_vec with the fields of its command as ports of their own.
module vec_tb (
    input  logic             clk_i,
    input  logic             rst_ni,
    input  logic             cmd_valid_i,
    input  logic [511:0]     desc_i,
    input  logic [3:0]       c0_i,
    input  logic [3:0]       c1_i,
    input  logic [31:0]      pos0_i,
    input  logic [7:0][31:0] token_i,
    output logic             done_o,
    output logic             busy_o,
    output logic             starved_o,
    input  logic             ax_valid_i,
    output logic             ax_ready_o,
    input  logic [511:0]     ax_data_i,
    output logic             sp_re_o,
    output logic [19:0]      sp_raddr_o,
    input  logic [511:0]     sp_rdata_i,
    output logic             sp_we_o,
    output logic [19:0]      sp_waddr_o,
    output logic [511:0]     sp_wdata_o,
    output logic [15:0]      sp_wstrb_o
);
  foray_pkg::cmd_t cmd;
  foray_pkg::act_t act;
  always_comb begin
    cmd = '0;
    cmd.desc = desc_i;
    cmd.c0 = c0_i;
    cmd.c1 = c1_i;
    cmd.pos0 = pos0_i;
    cmd.token = token_i;
  end
  assign starved_o = act.starved;
  foray_vec u_vec (
      .cmd_i(cmd),
      .act_o(act),
      .*
  );
endmodule
