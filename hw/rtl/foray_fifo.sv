// FIFO over a RAM with registered read; the register is the output, so a word is visible two cycles after it
// was written, and one word a cycle goes through.
module foray_fifo #(
    parameter int unsigned Width = 512,
    /// Words of the RAM, a power of two; one more word is in the output register.
    parameter int unsigned Depth = 16
) (
    input logic clk_i,
    input logic rst_ni,
    /// Drops everything.
    input logic clear_i,
    /// Written when valid and ready.
    input logic wvalid_i,
    output logic wready_o,
    input logic [Width-1:0] wdata_i,
    output logic rvalid_o,
    input logic rready_i,
    output logic [Width-1:0] rdata_o
);
  localparam int unsigned Aw = Depth > 1 ? $clog2(Depth) : 1;

  logic [Width-1:0] mem[Depth];
  logic [Aw-1:0] wp_q, rp_q;
  logic [Aw:0] count_q;
  logic valid_q;
  logic push, fetch;

  assign wready_o = count_q != (Aw + 1)'(Depth);
  assign push = wvalid_i && wready_o;
  assign fetch = count_q != '0 && (!valid_q || rready_i);
  assign rvalid_o = valid_q;

  always_ff @(posedge clk_i) begin
    if (push) mem[wp_q] <= wdata_i;
    if (fetch) rdata_o <= mem[rp_q];
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      wp_q <= '0;
      rp_q <= '0;
      count_q <= '0;
      valid_q <= 1'b0;
    end else begin
      if (push) wp_q <= wp_q == Aw'(Depth - 1) ? '0 : wp_q + Aw'(1);
      if (fetch) rp_q <= rp_q == Aw'(Depth - 1) ? '0 : rp_q + Aw'(1);
      if (push && !fetch) count_q <= count_q + (Aw + 1)'(1);
      if (!push && fetch) count_q <= count_q - (Aw + 1)'(1);
      if (fetch) valid_q <= 1'b1;
      else if (rready_i) valid_q <= 1'b0;
    end
  end
endmodule
