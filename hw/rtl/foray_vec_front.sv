/// Front of the vector unit: 16 elements of a unit are clamped, shifted by the one rounding rule, for ADD summed with the unit before,
/// and the bits of their magnitudes collected. A unit a cycle.
module foray_vec_front (
    input  logic         clk_i,
    input  logic         rst_ni,
    /// Forgets the bits collected.
    input  logic         clear_i,
    input  logic         valid_i,
    input  logic [511:0] data_i,
    /// data_i is the second of two units to be added; without it but with sum_i the first.
    input  logic         second_i,
    input  logic         sum_i,
    /// Limit to 2^30.
    input  logic         clamp_i,
    /// 31 + s, 1..63: shift of the rounding rule (right if s > 0).
    input  logic [  5:0] sh_i,
    /// The same for the second unit of a sum.
    input  logic [  5:0] sh2_i,
    /// A unit that skips all this but the collection of bits.
    input  logic         skip_valid_i,
    input  logic [511:0] skip_data_i,
    /// Result. A sum of 2^31 is written as 2^31 - 1: every shift that follows rounds both alike.
    output logic         valid_o,
    output logic [511:0] data_o,
    /// Collected, with the unit of valid_o of the cycle before.
    output logic [ 31:0] or_o
);

  logic v1_q, v2_q, second1_q, second2_q, ovf_d, ovf_q;
  logic [511:0] r_q, s_q, s_d, hold_q, v_d;
  logic [31:0] or_d, or_q;

  logic [5:0] sh;
  assign sh = sum_i && second1_q ? sh2_i : sh_i;

  for (genvar i = 0; i < 16; i++) begin : gen_lane
    logic [31:0] m;
    logic signed [63:0] wide;
    assign m = clamp_i ? foray_math_pkg::clamp_y(r_q[32*i+:32]) : r_q[32*i+:32];
    // One more bit than the result: its value rounds (docs/numerics.md 1).
    assign wide = $signed({m, 32'd0}) >>> sh;
    assign s_d[32*i+:32] = wide[32:1] + {31'd0, wide[0]};
  end

  always_comb begin
    logic [32:0] t;
    t = 33'd0;
    ovf_d = 1'b0;
    v_d   = s_q;
    if (sum_i) begin
      for (int unsigned i = 0; i < 16; i++) begin
        t = {s_q[32*i+31], s_q[32*i+:32]} + {hold_q[32*i+31], hold_q[32*i+:32]};
        if (!t[32] && t[31]) begin
`ifndef FORAY_BUG_VEC  // tests/rtl must see this gone
          ovf_d = 1'b1;
`endif
          v_d[32*i+:32] = 32'h7fff_ffff;
        end else v_d[32*i+:32] = t[31:0];
      end
    end
  end

  always_comb begin
    or_d = {ovf_q, 31'd0};
    for (int unsigned i = 0; i < 16; i++) or_d = or_d | foray_math_pkg::abs32(data_o[32*i+:32]);
  end

  assign or_o = or_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      v1_q <= 1'b0;
      v2_q <= 1'b0;
      valid_o <= 1'b0;
    end else begin
      v1_q <= valid_i;
      v2_q <= v1_q;
      valid_o <= skip_valid_i || (v2_q && (!sum_i || second2_q));
    end
  end

  always_ff @(posedge clk_i) begin
    second1_q <= second_i;
    second2_q <= second1_q;
    if (valid_i) r_q <= data_i;
    if (v1_q) s_q <= s_d;
    if (v2_q && sum_i && !second2_q) hold_q <= s_q;
    if (skip_valid_i) begin
      data_o <= skip_data_i;
      ovf_q  <= 1'b0;
    end else if (v2_q) begin
      data_o <= v_d;
      ovf_q  <= ovf_d;
    end
    if (clear_i) or_q <= 32'd0;
    else if (valid_o) or_q <= or_q | or_d;
  end

endmodule
