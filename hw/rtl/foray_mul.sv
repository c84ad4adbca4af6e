/// Signed product of 32 and 33 bits, three cycles later (y_i is never -2^32, so 64 bits hold it). Cut at bits 26 and 17: two 27 x 18
/// multiplier blocks and a few adders make it, where a plain product takes four blocks.
module foray_mul (
    input  logic               clk_i,
    /// Operands stand; without it nothing moves.
    input  logic               en_i,
    input  logic signed [31:0] x_i,
    input  logic signed [32:0] y_i,
    /// x_i * y_i of three cycles ago.
    output logic signed [63:0] p_o
);

  logic en1_q, en2_q;
  logic signed [31:0] x_q;
  logic signed [32:0] y_q;
  logic signed [26:0] xl;
  logic signed [17:0] yl;
  logic signed [15:0] yh;
  logic signed [44:0] ll_q;
  logic signed [42:0] lh_q;
  logic signed [38:0] hy_q, hy_d, y_ext;

  assign xl = {1'b0, x_q[25:0]};
  assign yl = {1'b0, y_q[16:0]};
  assign yh = y_q[32:17];
  assign y_ext = {{6{y_q[32]}}, y_q};

  // The six upper bits of x, the last one with the weight of a sign.
  always_comb begin
    hy_d = x_q[26] ? y_ext : 39'sd0;
    for (int unsigned i = 1; i < 5; i++) hy_d = hy_d + (x_q[26+i] ? y_ext <<< i : 39'sd0);
    hy_d = hy_d - (x_q[31] ? y_ext <<< 5 : 39'sd0);
  end

  always_ff @(posedge clk_i) begin
    en1_q <= en_i;
    en2_q <= en1_q;
    if (en_i) begin
      x_q <= x_i;
      y_q <= y_i;
    end
    if (en1_q) begin
      ll_q <= 45'(xl * yl);
      lh_q <= 43'(xl * yh);
      hy_q <= hy_d;
    end
    if (en2_q) p_o <= 64'(ll_q) + (64'(lh_q) <<< 17) + (64'(hy_q) <<< 26);
  end

endmodule
