// Loads the activations of one matrix operation: per column the header, the shifts, then the mantissas, one
// unit of the scratchpad a cycle. Mantissas are clamped to 2^14; the sum of each group is made on the way.
module foray_mv_load #(
    /// Columns.
    parameter int unsigned Cols = 1
) (
    /// Clock.
    input  logic               clk_i,
    /// Synchronous reset, active low.
    input  logic               rst_ni,
    /// Begins (one cycle).
    input  logic               start_i,
    /// Unit of the A16 vector, column 0.
    input  logic [19:0]        src_i,
    /// Groups of 32 in a column.
    input  logic [15:0]        groups_i,
    /// First column.
    input  logic [3:0]         c0_i,
    /// Columns to load, 1..Cols.
    input  logic [3:0]         ncols_i,
    /// All is written.
    output logic               done_o,
    /// Scratchpad read.
    output logic               sp_re_o,
    /// Its address.
    output logic [19:0]        sp_raddr_o,
    /// Its data, a cycle later.
    input  logic [511:0]       sp_rdata_i,
    /// Exponent of each column, clamped.
    output logic [Cols-1:0][14:0] exp_o,
    /// Write of a group, by column.
    output logic [Cols-1:0]    act_we_o,
    /// Group.
    output logic [15:0]        act_waddr_o,
    /// Clamped mantissas.
    output logic [511:0]       act_wdata_o,
    /// Write of sum and shift, by column.
    output logic [Cols-1:0]    sum_we_o,
    /// Group.
    output logic [15:0]        sum_waddr_o,
    /// {shift, sum}.
    output logic [24:0]        sum_wdata_o
);

  typedef enum logic [1:0] {
    KindHead,
    KindShift,
    KindMant
  } kind_e;

  // ---- addresses
  logic run_q;
  kind_e kind_q;
  logic [15:0] index_q;
  logic [3:0] col_q;
  logic [19:0] base_q, col_units;
  logic [15:0] shift_units;
  assign shift_units = (groups_i + 16'd63) >> 6;
  assign col_units = 20'd1 + 20'(groups_i) + 20'(shift_units);

  logic signed [24:0] first_units;  // of c0 columns
  logic unused_first;
  assign unused_first = &{1'b0, first_units[24:20]};
  foray_mul_lut #(
      .AW(21),
      .BW(4)
  ) u_first (
      .a_i({1'b0, col_units}),
      .b_i(c0_i),
      .p_o(first_units)
  );

  logic last;
  assign last = kind_q == KindHead || (kind_q == KindShift && index_q + 16'd1 == shift_units) ||
      (kind_q == KindMant && index_q + 16'd1 == groups_i);
  assign sp_re_o = run_q;
  assign sp_raddr_o = !run_q ? '0 :
      base_q + (kind_q == KindHead ? 20'd0 : kind_q == KindMant ? 20'd1 + 20'(index_q) :
                20'd1 + 20'(groups_i) + 20'(index_q));

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      run_q <= 1'b0;
    end else if (start_i) begin
      run_q <= 1'b1;
    end else if (run_q && last && kind_q == KindMant && col_q + 4'd1 == ncols_i) begin
      run_q <= 1'b0;
    end
    if (start_i) begin
      kind_q <= KindHead;
      index_q <= '0;
      col_q <= '0;
      base_q <= src_i + first_units[19:0];
    end else if (run_q) begin
      index_q <= last ? 16'd0 : index_q + 16'd1;
      if (last) begin
        kind_q <= kind_q == KindHead ? KindShift : kind_q == KindShift ? KindMant : KindHead;
        if (kind_q == KindMant) begin
          col_q <= col_q + 4'd1;
          base_q <= base_q + col_units;
        end
      end
    end
  end

  // ---- data: what was asked for a cycle ago
  logic v_q;
  kind_e vkind_q;
  logic [15:0] vindex_q;
  logic [Cols-1:0] vcol_q;
  logic [255:0] shift_mem[64];  // 64 shifts of 4 bits an entry
  logic [255:0] shifts;
  logic [31:0][3:0] nibbles;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) v_q <= 1'b0;
    else v_q <= run_q;
    vkind_q <= kind_q;
    vindex_q <= index_q;
    vcol_q <= Cols'(1) << col_q;
  end
  for (genvar i = 0; i < 64; i++) begin : gen_nibble
    assign shifts[4*i+:4] = sp_rdata_i[8*i+:4];
  end
  logic signed [31:0] head;
  assign head = sp_rdata_i[31:0];
  always_ff @(posedge clk_i) begin
    if (v_q && vkind_q == KindShift) shift_mem[vindex_q[5:0]] <= shifts;
    for (int unsigned c = 0; c < Cols; c++) begin
      if (v_q && vkind_q == KindHead && vcol_q[c]) exp_o[c] <= 15'(foray_math_pkg::clamp_exp(head));
    end
  end

  logic [255:0] shift_row;
  assign shift_row = shift_mem[vindex_q[11:6]];
  assign nibbles = shift_row[128*vindex_q[5]+:128];

  // ---- clamp, write, and the adder tree
  logic [Cols-1:0] mant_q, mant_q2, mant_q3;
  logic [15:0] group_q, group_q2, group_q3;
  logic [3:0] sh_q, sh_q2, sh_q3;
  logic [31:0][15:0] m_q;
  logic signed [18:0] four_q[8];
  logic signed [20:0] sum_q;
  always_ff @(posedge clk_i) begin
    mant_q <= v_q && vkind_q == KindMant ? vcol_q : '0;
    group_q <= vindex_q;
    sh_q <= nibbles[vindex_q[4:0]];
    for (int i = 0; i < 32; i++) m_q[i] <= foray_math_pkg::clamp_a(sp_rdata_i[16*i+:16]);
    mant_q2 <= mant_q;
    group_q2 <= group_q;
    sh_q2 <= sh_q;
    for (int i = 0; i < 8; i++)
      four_q[i] <= (19'(signed'(m_q[4*i])) + 19'(signed'(m_q[4*i+1]))) +
          (19'(signed'(m_q[4*i+2])) + 19'(signed'(m_q[4*i+3])));
    mant_q3 <= mant_q2;
    group_q3 <= group_q2;
    sh_q3 <= sh_q2;
    sum_q <= ((21'(four_q[0]) + 21'(four_q[1])) + (21'(four_q[2]) + 21'(four_q[3]))) +
        ((21'(four_q[4]) + 21'(four_q[5])) + (21'(four_q[6]) + 21'(four_q[7])));
  end
  assign act_we_o = mant_q;
  assign act_waddr_o = group_q;
  assign act_wdata_o = m_q;
  assign sum_we_o = mant_q3;
  assign sum_waddr_o = group_q3;
  assign sum_wdata_o = {sh_q3, sum_q};

  logic [4:0] tail_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) tail_q <= '0;
    else tail_q <= {tail_q[3:0], run_q && last && kind_q == KindMant && col_q + 4'd1 == ncols_i};
  end
  assign done_o = tail_q[4];

endmodule
