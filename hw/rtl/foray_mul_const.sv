/// Product with a constant from adders alone (no multiplier block), three cycles later, modulo 2^64.
module foray_mul_const #(
    parameter logic [31:0] Factor = 32'd1,
    /// Width of the signed operand.
    parameter int unsigned YW = 33
) (
    input  logic          clk_i,
    /// An operand stands; without it nothing moves.
    input  logic          en_i,
    input  logic [YW-1:0] y_i,
    /// Factor * y_i of three cycles ago.
    output logic [63:0]   p_o
);

  logic en1_q, en2_q;
  logic [63:0] y_q, lo_q, hi_q, lo_d, hi_d;

  always_comb begin
    lo_d = 64'd0;
    hi_d = 64'd0;
    for (int unsigned i = 0; i < 16; i++) begin
      if (Factor[i]) lo_d = lo_d + (y_q << i);
      if (Factor[i+16]) hi_d = hi_d + (y_q << i);
    end
  end

  always_ff @(posedge clk_i) begin
    en1_q <= en_i;
    en2_q <= en1_q;
    if (en_i) y_q <= {{(64 - YW) {y_i[YW-1]}}, y_i};
    if (en1_q) begin
      lo_q <= lo_d;
      hi_q <= hi_d;
    end
    if (en2_q) p_o <= lo_q + (hi_q << 16);
  end

endmodule
