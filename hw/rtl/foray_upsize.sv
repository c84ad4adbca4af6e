// Gathers InW-bit words to OutW bits, low bits first. Nothing holds it up: whoever asked has reserved room.
module foray_upsize #(
    parameter int unsigned InW = 128,
    parameter int unsigned OutW = 512
) (
    input logic clk_i,
    input logic rst_ni,
    input logic clear_i,
    input logic valid_i,
    input logic [InW-1:0] data_i,
    output logic valid_o,
    output logic [OutW-1:0] data_o
);
  localparam int unsigned Ratio = OutW / InW;
  if (Ratio == 1) begin : gen_same
    logic unused;
    assign unused = clk_i ^ rst_ni ^ clear_i;
    assign valid_o = valid_i;
    assign data_o = data_i;
  end else begin : gen_wide
    localparam int unsigned Cw = $clog2(Ratio);
    logic [Cw-1:0] n_q;
    logic [OutW-InW-1:0] low_q;
    assign valid_o = valid_i && n_q == Cw'(Ratio - 1);
    assign data_o = {data_i, low_q};
    always_ff @(posedge clk_i) begin
      if (valid_i) low_q <= (OutW - InW)'({data_i, low_q} >> InW);
      if (!rst_ni || clear_i) n_q <= '0;
      else if (valid_i) n_q <= n_q + Cw'(1);
    end
  end
endmodule
