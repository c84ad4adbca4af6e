// Unsigned product, four bits of b a cycle: for sizes, which need no multiplier of their own.
module foray_size_mul #(
    parameter int unsigned Aw = 24,
    parameter int unsigned Bw = 24
) (
    input logic clk_i,
    input logic rst_ni,
    /// Begins; ignored while busy.
    input logic start_i,
    input logic [Aw-1:0] a_i,
    input logic [Bw-1:0] b_i,
    /// One cycle, p_o holds until the next start.
    output logic done_o,
    output logic [Aw+Bw-1:0] p_o
);
  logic busy_q;
  logic [Aw+Bw-1:0] a_q;
  logic [Bw-1:0] b_q;
  logic [Aw+Bw-1:0] part;
  assign part = (b_q[0] ? a_q : '0) + (b_q[1] ? a_q << 1 : '0) + (b_q[2] ? a_q << 2 : '0) +
      (b_q[3] ? a_q << 3 : '0);
  always_ff @(posedge clk_i) begin
    done_o <= busy_q && b_q == '0 && rst_ni;
    if (!busy_q) begin
      a_q <= (Aw + Bw)'(a_i);
      b_q <= b_i;
      if (start_i) p_o <= '0;
    end else begin
      a_q <= a_q << 4;
      b_q <= b_q >> 4;
      p_o <= p_o + part;
    end
    if (!rst_ni) busy_q <= 1'b0;
    else if (!busy_q) busy_q <= start_i;
    else if (b_q == '0) busy_q <= 1'b0;
  end
endmodule
