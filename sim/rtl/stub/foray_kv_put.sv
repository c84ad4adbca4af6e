// Stand-in for the KV writer: the records go into memory behind the bus, except for one granule that is written twice.
module foray_kv_put (
    input logic clk_i,
    input logic rst_ni,
    input logic cmd_valid_i,
    input foray_pkg::cmd_t cmd_i,
    output logic done_o,
    output logic busy_o,
    output foray_pkg::act_t act_o,
    output logic sp_re_o,
    output logic [19:0] sp_raddr_o,
    input logic [511:0] sp_rdata_i,
    output logic kw_valid_o,
    input logic kw_ready_i,
    output logic [31:0] kw_addr_o,
    output logic [511:0] kw_data_o,
    output logic [63:0] kw_strb_o
);
  import "DPI-C" function void foray_stub_op(input bit [511:0] desc, input int c0, input int c1, input int pos0,
                                             input int kv, input int max_pos, input bit [255:0] tokens,
                                             input bit score, output int ws_bits, output int ax_units);
  assign sp_re_o = 1'b0;
  assign sp_raddr_o = '0;
  int ws, ax;
  assign kw_valid_o = 1'b0;
  assign kw_addr_o = '0;
  assign kw_data_o = '0;
  assign kw_strb_o = '0;
  assign act_o = busy_o ? 3'b100 : '0;
  always @(posedge clk_i) begin
    done_o <= busy_o && rst_ni;
    busy_o <= cmd_valid_i && rst_ni;
    if (cmd_valid_i)
      foray_stub_op(cmd_i.desc, int'(cmd_i.c0), int'(cmd_i.c1), cmd_i.pos0, cmd_i.kv, cmd_i.max_pos, cmd_i.token,
                    cmd_i.score, ws, ax);
  end
endmodule
