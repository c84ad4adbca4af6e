// Stand-in for the exit unit.
module foray_exit #(
    parameter int unsigned Cols = 1,
    parameter int unsigned Unroll = 2
) (
    input logic clk_i,
    input logic rst_ni,
    input logic clear_i,
    output logic clear_busy_o,
    input logic lg_valid_i,
    output logic lg_ready_o,
    input foray_pkg::logit_t lg_i,
    input foray_pkg::exit_arg_t arg_i,
    input logic finish_i,
    input logic [2:0] col_i,
    output logic done_o,
    output foray_pkg::exit_res_t res_o,
    output logic busy_o,
    output foray_pkg::act_t act_o
);
  import "DPI-C" function void foray_stub_clear();
  import "DPI-C" function void foray_stub_exit_logit(input int col, input int id, input int logit, input bit sample,
                                                     input int inv_temp, input longint seed, input int position);
  import "DPI-C" function void foray_stub_finish(input int col, input int cum, input bit [255:0] exit_rule,
                                                 input bit [255:0] stop_rule, output bit [1023:0] entry,
                                                 output bit exit_ge0, output bit stop_lt0);
  bit [1023:0] entry;
  bit ge0, lt0;
  assign lg_ready_o = 1'b1;
  assign busy_o = 1'b0;
  assign clear_busy_o = 1'b0;
  assign act_o = '0;
  always @(posedge clk_i) begin
    done_o <= 1'b0;
    if (clear_i) foray_stub_clear();
    if (lg_valid_i)
      foray_stub_exit_logit(int'(lg_i.col), lg_i.id, lg_i.logit, arg_i.sample, arg_i.inv_temp, arg_i.seed,
                            arg_i.position + 32'(lg_i.col));
    if (finish_i && rst_ni) begin
      foray_stub_finish(int'(col_i), arg_i.cum, arg_i.exit_rule, arg_i.stop_rule, entry, ge0, lt0);
      res_o <= {entry, ge0, lt0};
      done_o <= 1'b1;
    end
  end
endmodule
