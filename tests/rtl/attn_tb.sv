// Plain ports around foray_attn for its bench.
module attn_tb #(
    parameter int unsigned Lanes = 8,
    parameter int unsigned QGroups = 512
) (
    input  logic         clk_i,
    input  logic         rst_ni,
    input  logic         cmd_valid_i,
    input  logic [511:0] desc_i,
    input  logic [3:0]   c0_i,
    input  logic [3:0]   c1_i,
    input  logic [31:0]  pos0_i,
    input  logic [31:0]  kv_i,
    input  logic [31:0]  max_pos_i,
    output logic         done_o,
    output logic         busy_o,
    output logic [2:0]   act_o,
    output logic         kr_valid_o,
    input  logic         kr_ready_i,
    output logic [35:0]  kr_addr_o,
    output logic [31:0]  kr_bytes_o,
    input  logic         kv_valid_i,
    output logic         kv_ready_o,
    input  logic [511:0] kv_data_i,
    input  logic         kv_last_i,
    output logic         sp_re_o,
    output logic [19:0]  sp_raddr_o,
    input  logic [511:0] sp_rdata_i,
    output logic         sp_we_o,
    output logic [19:0]  sp_waddr_o,
    output logic [511:0] sp_wdata_o,
    output logic [15:0]  sp_wstrb_o
);

  foray_pkg::cmd_t cmd;
  always_comb begin
    cmd = '0;
    cmd.desc = desc_i;
    cmd.c0 = c0_i;
    cmd.c1 = c1_i;
    cmd.pos0 = pos0_i;
    cmd.kv = kv_i;
    cmd.max_pos = max_pos_i;
  end

  foray_attn #(
      .Lanes(Lanes),
      .QGroups(QGroups)
  ) u_dut (
      .cmd_i(cmd),
      .*
  );

endmodule
