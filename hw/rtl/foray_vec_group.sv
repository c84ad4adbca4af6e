/// First half of to_a16 (docs/numerics.md 2): of each 32 elements the number of bits of the largest magnitude, and the elements cut to 16
/// bits below it. R(v, s) looks at no bit below s - 1, so what is cut off cannot change the result of the second half (foray_vec_fix),
/// and the full values need not be kept. Four elements a cycle.
module foray_vec_group (
    input  logic              clk_i,
    input  logic              rst_ni,
    input  logic              valid_i,
    /// Elements in order; magnitude below 2^62.
    input  logic [3:0][63:0]  v_i,
    /// A group: 32 int16, floor(v 2^(15 - bits)), and bits (0: all zero).
    output logic              valid_o,
    output logic [511:0]      w_o,
    output logic [5:0]        bits_o
);

  // In: eight beats into one half of the buffer, magnitudes collected.
  logic [251:0] buf_mem[16];
  logic bank_q, last_q, done_q, v1_q, first_q;
  logic [2:0] beat_q;
  logic [61:0] or4_d, or4_q, all_d, all_q;
  always_comb begin
    or4_d = 62'd0;
    for (int unsigned i = 0; i < 4; i++) or4_d = or4_d | (v_i[i][63] ? -v_i[i][61:0] : v_i[i][61:0]);
  end
  assign all_d = first_q ? or4_q : all_q | or4_q;

  // Out: the other half, shifted so that the largest has its leading one at bit 61.
  logic out_q, obank_q;
  logic [2:0] obeat_q;
  logic [5:0] bits_d, bits_q, sh_q;
  logic [251:0] word;
  logic [63:0] w_d;
  /* verilator lint_off UNUSED */  // seven bits hold up to 64; here it is at most 62
  logic [6:0] bitlen;
  /* verilator lint_on UNUSED */
  assign bitlen = foray_math_pkg::bitlen64({2'd0, all_q});
  assign bits_d = bitlen[5:0];
  assign word = buf_mem[{obank_q, obeat_q}];
  for (genvar i = 0; i < 4; i++) begin : gen_shift
    logic [62:0] t;
    assign t = word[63*i+:63] << sh_q;
    assign w_d[16*i+:16] = t[62:47];
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      bank_q <= 1'b0;
      beat_q <= 3'd0;
      v1_q <= 1'b0;
      last_q <= 1'b0;
      done_q <= 1'b0;
      out_q <= 1'b0;
      valid_o <= 1'b0;
    end else begin
      v1_q <= valid_i;
      last_q <= valid_i && beat_q == 3'd7;
      done_q <= last_q;
      if (valid_i) begin
        beat_q <= beat_q + 3'd1;
        if (beat_q == 3'd7) bank_q <= !bank_q;
      end
      if (done_q) out_q <= 1'b1;
      else if (obeat_q == 3'd7) out_q <= 1'b0;
      valid_o <= out_q && obeat_q == 3'd7;
    end
  end

  always_ff @(posedge clk_i) begin
    if (valid_i) begin
      buf_mem[{bank_q, beat_q}] <= {v_i[3][62:0], v_i[2][62:0], v_i[1][62:0], v_i[0][62:0]};
      or4_q <= or4_d;
      first_q <= beat_q == 3'd0;
    end
    if (v1_q) all_q <= all_d;
    if (done_q) begin
      obank_q <= !bank_q;
      sh_q <= 6'd62 - bits_d;
      bits_q <= bits_d;
      obeat_q <= 3'd0;
    end else if (out_q) obeat_q <= obeat_q + 3'd1;
    if (out_q) w_o <= {w_d, w_o[511:64]};
    if (out_q && obeat_q == 3'd7) bits_o <= bits_q;
  end

endmodule
