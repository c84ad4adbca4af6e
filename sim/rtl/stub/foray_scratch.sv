// Stand-in for the scratchpad: its memory is the stubs' (sim/rtl/stub/stub.c).
module foray_scratch #(
    parameter int unsigned Units = 16384
) (
    input logic clk_i,
    input logic re_i,
    input logic [19:0] raddr_i,
    output logic [511:0] rdata_o,
    input logic we_i,
    input logic [19:0] waddr_i,
    input logic [511:0] wdata_i,
    input logic [15:0] wstrb_i
);
  import "DPI-C" function void foray_stub_sp_read(input int unit, output bit [511:0] data);
  import "DPI-C" function void foray_stub_sp_write(input int unit, input bit [511:0] data, input int strobes);
  bit [511:0] got;
  always @(posedge clk_i) begin
    if (re_i) begin
      foray_stub_sp_read(int'(raddr_i), got);
      rdata_o <= got;
    end
    if (we_i) foray_stub_sp_write(int'(waddr_i), wdata_i, int'(wstrb_i));
  end
endmodule
