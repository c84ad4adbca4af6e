// Stand-in for the attention engine: asks for the records of each KV head and checks what comes.
module foray_attn #(
    parameter int unsigned Lanes = 8,
    parameter int unsigned QGroups = 512
) (
    input logic clk_i,
    input logic rst_ni,
    input logic cmd_valid_i,
    input foray_pkg::cmd_t cmd_i,
    output logic done_o,
    output logic busy_o,
    output foray_pkg::act_t act_o,
    output logic kr_valid_o,
    input logic kr_ready_i,
    output logic [35:0] kr_addr_o,
    output logic [31:0] kr_bytes_o,
    input logic kv_valid_i,
    output logic kv_ready_o,
    input logic [511:0] kv_data_i,
    input logic kv_last_i,
    output logic sp_re_o,
    output logic [19:0] sp_raddr_o,
    input logic [511:0] sp_rdata_i,
    output logic sp_we_o,
    output logic [19:0] sp_waddr_o,
    output logic [511:0] sp_wdata_o,
    output logic [15:0] sp_wstrb_o
);
  import "DPI-C" function void foray_stub_op(input bit [511:0] desc, input int c0, input int c1, input int pos0,
                                             input int kv, input int max_pos, input bit [255:0] tokens,
                                             input bit score, output int ws_bits, output int ax_units);
  import "DPI-C" function int foray_stub_kr(output longint addr, output int bytes);
  import "DPI-C" function int foray_stub_kv(input bit [511:0] data, input bit last);
  assign sp_re_o = 1'b0;
  assign sp_raddr_o = '0;
  assign sp_we_o = 1'b0;
  assign sp_waddr_o = '0;
  assign sp_wdata_o = '0;
  assign sp_wstrb_o = '0;
  int ws, ax, bytes, more, open_q, ended;
  longint addr;
  logic asked_q;
  assign kv_ready_o = busy_o;
  assign act_o = busy_o ? 3'b100 : '0;
  always @(posedge clk_i) begin
    done_o <= 1'b0;
    if (!rst_ni) begin
      busy_o <= 1'b0;
      kr_valid_o <= 1'b0;
    end else if (cmd_valid_i) begin
      foray_stub_op(cmd_i.desc, int'(cmd_i.c0), int'(cmd_i.c1), cmd_i.pos0, cmd_i.kv, cmd_i.max_pos, cmd_i.token,
                    cmd_i.score, ws, ax);
      busy_o <= 1'b1;
      asked_q <= 1'b0;
      open_q <= 0;
    end else if (busy_o) begin
      if ((!kr_valid_o || kr_ready_i) && !asked_q) begin
        more = foray_stub_kr(addr, bytes);
        kr_valid_o <= more != 0;
        kr_addr_o <= 36'(addr);
        kr_bytes_o <= bytes;
        if (more == 0) asked_q <= 1'b1;
      end
      ended = 0;  // a call inside an expression would be made in any case
      if (kv_valid_i && kv_ready_o) ended = foray_stub_kv(kv_data_i, kv_last_i);
      open_q <= open_q + (kr_valid_o && kr_ready_i ? 1 : 0) - ended;
      if (asked_q && open_q == 0 && !kr_valid_o) begin
        busy_o <= 1'b0;
        done_o <= 1'b1;
      end
    end
  end
endmodule
