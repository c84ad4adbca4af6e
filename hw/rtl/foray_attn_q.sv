// Queries of an attention operation to A16 (docs/numerics.md 2), column by column into a memory of groups.
//
// Two readings of a column: the bits of each group's largest mantissa, then the mantissas. With B the bits of the
// largest group and b those of a group, m = R(x, max(B - 29, b - 14)), shift = max(0, 15 - (B - b)).
module foray_attn_q #(
    /// Groups of 32 that fit, all columns together; a power of two.
    parameter int unsigned Groups = 512
) (
    /// Clock.
    input  logic                      clk_i,
    /// Synchronous reset, active low.
    input  logic                      rst_ni,
    /// Begins.
    input  logic                      start_i,
    /// Header unit of the first column.
    input  logic [19:0]               src_i,
    /// Groups of a column.
    input  logic [15:0]               groups_i,
    /// Columns.
    input  logic [3:0]                ncols_i,
    /// All is written.
    output logic                      done_o,
    /// Scratchpad read.
    output logic                      sp_re_o,
    /// Its address.
    output logic [19:0]               sp_raddr_o,
    /// Its data, a cycle later.
    input  logic [511:0]              sp_rdata_i,
    /// Exponent of q, by column.
    output logic [7:0][15:0]          exp_o,
    /// Reads a group.
    input  logic                      re_i,
    /// Which: column * groups + group.
    input  logic [$clog2(Groups)-1:0] raddr_i,
    /// {shift, mantissas}, a cycle later.
    output logic [515:0]              rdata_o
);

  localparam int unsigned Aw = $clog2(Groups);

  // ---- walk: column, reading (header, bits, mantissas), unit
  typedef enum logic [2:0] {
    StIdle,
    StHead,
    StBits,
    StWait,  // the last group's bits are on their way
    StMant
  } state_e;
  state_e state_q, was_q;
  logic [3:0] col_q, was_col_q;
  logic [16:0] unit_q, was_unit_q;
  logic [19:0] base_q;
  logic [Aw-1:0] first_q;  // group of the column's first
  logic last_unit, last_col;
  logic [2:0] wait_q;
  assign last_unit = unit_q + 17'd1 == {groups_i, 1'b0};
  assign last_col = col_q + 4'd1 == ncols_i;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= StIdle;
    end else begin
      unique case (state_q)
        StIdle: if (start_i) state_q <= StHead;
        StHead: state_q <= StBits;
        StBits: if (last_unit) state_q <= StWait;
        StWait: if (wait_q == 3'd4) state_q <= StMant;
        default: if (last_unit) state_q <= last_col ? StIdle : StHead;
      endcase
    end
    wait_q <= state_q == StWait ? wait_q + 3'd1 : 3'd0;
    if (state_q == StIdle) begin
      col_q <= '0;
      unit_q <= '0;
      base_q <= src_i;
      first_q <= '0;
    end else if (state_q == StBits || state_q == StMant) begin
      unit_q <= last_unit ? '0 : unit_q + 17'd1;
      if (state_q == StMant && last_unit) begin
        col_q <= col_q + 4'd1;
        base_q <= base_q + 20'd1 + 20'({groups_i, 1'b0});
        first_q <= first_q + Aw'(groups_i);
      end
    end
    was_q <= rst_ni ? state_q : StIdle;
    was_col_q <= col_q;
    was_unit_q <= unit_q;
  end
  assign sp_re_o = state_q == StHead || state_q == StBits || state_q == StMant;
  assign sp_raddr_o = !sp_re_o ? '0 : base_q + (state_q == StHead ? 20'd0 : 20'd1 + 20'(unit_q));

  // ---- a unit has arrived
  logic [15:0][31:0] m;
  logic [31:0] unit_any, any_q, any;
  for (genvar i = 0; i < 16; i++) begin : gen_in
    assign m[i] = foray_math_pkg::clamp_y(sp_rdata_i[32*i+:32]);
  end
  always_comb begin
    unit_any = '0;
    for (int i = 0; i < 16; i++) unit_any = unit_any | foray_math_pkg::abs32(m[i]);
  end
  assign any = (was_unit_q[0] ? any_q : '0) | unit_any;

  logic bits_v_q;
  logic [31:0] bits_any_q;
  logic [Aw-1:0] bits_at_q;
  logic [4:0] bits_new;
  logic [4:0] bits_mem[Groups];
  logic [4:0] top_q;  // bits of the column's largest, at most 31
  assign bits_new = 5'(foray_math_pkg::bitlen64(64'(bits_any_q)));
  always_ff @(posedge clk_i) begin
    any_q <= unit_any;
    bits_v_q <= was_q == StBits && was_unit_q[0];
    bits_any_q <= any;
    bits_at_q <= Aw'(was_unit_q[16:1]);
    if (bits_v_q) bits_mem[bits_at_q] <= bits_new;
    if (was_q == StHead) top_q <= '0;
    else if (bits_v_q && bits_new > top_q) top_q <= bits_new;
  end

  logic signed [15:0] head_exp_q;
  for (genvar c = 0; c < 8; c++) begin : gen_exp
    always_ff @(posedge clk_i) begin
      if (was_q == StWait && was_col_q == 4'(c))
        exp_o[c] <= top_q == '0 ? 16'(foray_abi_pkg::EXP_ZERO) :
            foray_math_pkg::clamp_exp(32'(head_exp_q) + 32'(top_q) - 32'sd29);
    end
  end

  // ---- mantissas: shift right by s >= 0 with rounding, or left by -s (the result has 15 bits then too)
  logic [4:0] b;
  logic signed [6:0] s, s_top, s_own;
  logic [3:0] shift, shift_q;
  logic mant_q, odd_q, we_q;
  logic [15:0][31:0] x_q;
  logic [4:0] right_q, left_q;
  logic [Aw-1:0] at_q, at_q2;
  logic [15:0][15:0] out, half_q;
  logic [515:0] word_q;
  logic [515:0] mem[Groups];
  assign b = bits_mem[Aw'(was_unit_q[16:1])];
  assign s_top = 7'(signed'({2'b0, top_q})) - 7'sd29;
  assign s_own = 7'(signed'({2'b0, b})) - 7'sd14;
  assign s = s_top > s_own ? s_top : s_own;
  assign shift = b == '0 || 5'(top_q - b) > 5'd15 ? 4'd0 : 4'(5'd15 - (top_q - b));
  always_ff @(posedge clk_i) begin
    if (was_q == StHead) head_exp_q <= foray_math_pkg::clamp_exp(sp_rdata_i[31:0]);
    mant_q <= was_q == StMant;
    odd_q <= was_unit_q[0];
    x_q <= m;
    right_q <= s > 0 ? s[4:0] : 5'd0;
    left_q <= s < 0 ? 5'(-s) : 5'd0;
    shift_q <= shift;
    at_q <= first_q_was + Aw'(was_unit_q[16:1]);
  end
  logic [Aw-1:0] first_q_was;
  always_ff @(posedge clk_i) first_q_was <= first_q;
  for (genvar i = 0; i < 16; i++) begin : gen_out
    logic signed [31:0] r;
    logic unused_r;
    assign unused_r = &{1'b0, r[31:16]};
    assign r = foray_math_pkg::round32(x_q[i], {1'b0, right_q});
    assign out[i] = left_q != '0 ? 16'(x_q[i][15:0] << left_q) : r[15:0];
  end
  always_ff @(posedge clk_i) begin
    half_q <= out;
    we_q <= mant_q && odd_q && rst_ni;
    word_q <= {shift_q, out, half_q};
    at_q2 <= at_q;
    if (we_q) mem[at_q2] <= word_q;
    if (re_i) rdata_o <= mem[raddr_i];
  end

  logic [4:0] tail_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) tail_q <= '0;
    else tail_q <= {tail_q[3:0], state_q == StMant && last_unit && last_col};
  end
  assign done_o = tail_q[4];

endmodule
