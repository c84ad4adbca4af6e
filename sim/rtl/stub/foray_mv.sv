// Stand-in for the matrix-vector engine: takes and checks its streams, and lets the plain kernels do the work.
module foray_mv #(
    parameter int unsigned Cols = 1,
    parameter int unsigned WsW = 512,
    parameter int unsigned ActGroups = 512
) (
    input logic clk_i,
    input logic rst_ni,
    input logic cmd_valid_i,
    input foray_pkg::cmd_t cmd_i,
    output logic done_o,
    output logic busy_o,
    output foray_pkg::act_t act_o,
    input logic ws_valid_i,
    output logic ws_ready_o,
    input logic [WsW-1:0] ws_data_i,
    input logic ax_valid_i,
    output logic ax_ready_o,
    input logic [511:0] ax_data_i,
    output logic sp_re_o,
    output logic [19:0] sp_raddr_o,
    input logic [511:0] sp_rdata_i,
    output logic sp_we_o,
    output logic [19:0] sp_waddr_o,
    output logic [511:0] sp_wdata_o,
    output logic [15:0] sp_wstrb_o,
    output logic lg_valid_o,
    input logic lg_ready_i,
    output foray_pkg::logit_t lg_o
);
  import "DPI-C" function void foray_stub_op(input bit [511:0] desc, input int c0, input int c1, input int pos0,
                                             input int kv, input int max_pos, input bit [255:0] tokens,
                                             input bit score, output int ws_bits, output int ax_units);
  import "DPI-C" function void foray_stub_ws(input bit [511:0] data, input int bits);
  import "DPI-C" function void foray_stub_ax(input bit [511:0] data);
  import "DPI-C" function int foray_stub_logit(output int col, output int row, output int id, output int logit,
                                               output int last);
  assign sp_re_o = 1'b0;
  assign sp_raddr_o = '0;
  assign sp_we_o = 1'b0;
  assign sp_waddr_o = '0;
  assign sp_wdata_o = '0;
  assign sp_wstrb_o = '0;
  int ws_q, ax_q, col, row, id, logit, last, more, ws, ax;
  assign ws_ready_o = busy_o && ws_q != 0;
  assign ax_ready_o = busy_o && ax_q != 0;
  assign act_o = busy_o ? (ws_q != 0 && !ws_valid_i ? 3'b010 : 3'b100) : '0;
  always @(posedge clk_i) begin
    done_o <= 1'b0;
    if (!rst_ni) begin
      busy_o <= 1'b0;
      lg_valid_o <= 1'b0;
      done_o <= 1'b0;
    end else if (cmd_valid_i) begin
      foray_stub_op(cmd_i.desc, int'(cmd_i.c0), int'(cmd_i.c1), cmd_i.pos0, cmd_i.kv, cmd_i.max_pos, cmd_i.token,
                    cmd_i.score, ws, ax);
      ws_q <= ws;
      ax_q <= ax;
      busy_o <= 1'b1;
    end else if (busy_o) begin
      if (ws_valid_i && ws_ready_o) begin
        foray_stub_ws(512'(ws_data_i), WsW);
        ws_q <= ws_q - WsW;
      end
      if (ax_valid_i && ax_ready_o) begin
        foray_stub_ax(ax_data_i);
        ax_q <= ax_q - 1;
      end
      if (ws_q == 0 && ax_q == 0 && (!lg_valid_o || lg_ready_i)) begin
        more = foray_stub_logit(col, row, id, logit, last);
        lg_valid_o <= more != 0;
        lg_o <= {3'(col), 20'(row), 32'(id), 32'(logit), 1'(last)};
        if (more == 0) begin
          busy_o <= 1'b0;
          done_o <= 1'b1;
        end
      end
    end
  end
endmodule
