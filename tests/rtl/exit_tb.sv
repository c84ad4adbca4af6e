// foray_exit with the fields of its structs as ports of their own.
module exit_tb #(
    parameter int unsigned Cols = 8,
    parameter int unsigned Unroll = 2
) (
    input  logic             clk_i,
    input  logic             rst_ni,
    input  logic             clear_i,
    output logic             clear_busy_o,
    input  logic             sample_i,
    input  logic [31:0]      inv_temp_i,
    input  logic [63:0]      seed_i,
    input  logic [31:0]      position_i,
    input  logic [31:0]      cum_i,
    input  logic [7:0][31:0] exit_rule_i,
    input  logic [7:0][31:0] stop_rule_i,
    input  logic             lg_valid_i,
    output logic             lg_ready_o,
    input  logic [2:0]       lg_col_i,
    input  logic [31:0]      lg_id_i,
    input  logic [31:0]      lg_logit_i,
    input  logic             finish_i,
    input  logic [2:0]       col_i,
    output logic             done_o,
    output logic [1023:0]    entry_o,
    output logic             exit_ge0_o,
    output logic             stop_lt0_o,
    output logic             busy_o
);
  foray_pkg::exit_arg_t arg;
  foray_pkg::exit_res_t res;
  foray_pkg::logit_t lg;
  foray_pkg::act_t act;
  always_comb begin
    arg = '0;
    arg.sample = sample_i;
    arg.inv_temp = inv_temp_i;
    arg.seed = seed_i;
    arg.position = position_i;
    arg.cum = cum_i;
    arg.exit_rule = exit_rule_i;
    arg.stop_rule = stop_rule_i;
    lg = '0;
    lg.col = lg_col_i;
    lg.id = lg_id_i;
    lg.logit = lg_logit_i;
  end
  assign entry_o = res.entry;
  assign exit_ge0_o = res.exit_ge0;
  assign stop_lt0_o = res.stop_lt0;
  foray_exit #(
      .Cols(Cols),
      .Unroll(Unroll)
  ) u_exit (
      .arg_i(arg),
      .lg_i(lg),
      .res_o(res),
      .act_o(act),
      .*
  );
endmodule
