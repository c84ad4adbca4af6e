// The scratchpad: units of 64 bytes, a read and a write a cycle, one strobe per 32-bit lane. A read in the cycle of a write
// to its place gives the old unit; the data stays until the next read.
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
  localparam int unsigned Aw = $clog2(Units);
  // one memory a lane: no tool has to understand strobes
  for (genvar l = 0; l < 16; l++) begin : gen_lane
    logic [31:0] mem[Units];
    always_ff @(posedge clk_i) begin
      if (we_i && wstrb_i[l]) mem[waddr_i[Aw-1:0]] <= wdata_i[32*l+:32];
      if (re_i) rdata_o[32*l+:32] <= mem[raddr_i[Aw-1:0]];
    end
  end
  logic unused_high;
  assign unused_high = ^{raddr_i, waddr_i};
endmodule
