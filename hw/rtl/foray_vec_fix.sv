/// Second half of to_a16 (docs/numerics.md 2): a group as foray_vec_group left it, to mantissas and shift, now that the largest bits of
/// the vector are known. R(w, 1 + extra). A group a cycle, two cycles of latency.
module foray_vec_fix (
    input  logic         clk_i,
    input  logic [511:0] w_i,
    input  logic [5:0]   bits_i,
    /// Largest bits of all groups.
    input  logic [5:0]   top_i,
    output logic [511:0] m_o,
    /// Of this cycle's bits_i.
    output logic [3:0]   shift_o
);

  logic [5:0] below;
  logic [511:0] w_q;
  logic [3:0] extra_q;
  assign below = top_i - bits_i;
  assign shift_o = bits_i == 6'd0 || below > 6'd15 ? 4'd0 : 4'd15 - below[3:0];

  logic [511:0] m_d;
  for (genvar i = 0; i < 32; i++) begin : gen_lane
    logic signed [15:0] t;
    assign t = $signed(w_q[16*i+:16]) >>> extra_q;
    assign m_d[16*i+:16] = {t[15], t[15:1]} + {15'd0, t[0]};
  end

  always_ff @(posedge clk_i) begin
    w_q <= w_i;
    extra_q <= below <= 6'd15 ? 4'd0 : below - 6'd15 > 6'd15 ? 4'd15 : 4'(below - 6'd15);
    m_o <= m_d;
  end

endmodule
