/// Sum of e^logit in powers of two (docs/numerics.md 9): logit log2(e) = i + f; bin i sums 2^f and f 2^f. A logit a cycle, a set of bins per
/// column. At the end the 40 highest bins of a column are brought together.
module foray_exit_bins #(
    /// Columns.
    parameter int unsigned Cols = 1
) (
    input  logic               clk_i,
    input  logic               rst_ni,
    /// Pulse: empties the bins of all columns; takes 512 cycles.
    input  logic               clear_i,
    output logic               clear_busy_o,
    input  logic               valid_i,
    input  logic        [ 2:0] col_i,
    input  logic signed [31:0] logit_i,
    /// No logit is under way.
    output logic               empty_o,
    /// Pulse, when empty: the bins of scan_col_i to z_o and n_o.
    input  logic               scan_i,
    input  logic        [ 2:0] scan_col_i,
    output logic               scan_done_o,
    /// Sum of the bins and sum of log2 times weight against the highest bin.
    output logic        [63:0] z_o,
    output logic signed [63:0] n_o,
    /// Highest bin in use.
    output logic        [ 8:0] top_o,
    /// Table of 2^f for the owner of this unit, when empty; data a cycle later.
    input  logic               side_en_i,
    input  logic        [ 9:0] side_addr_i,
    output logic        [31:0] side_base_o,
    output logic        [23:0] side_delta_o
);

  // 3: product with log2(e); 4: bin and fraction; 5: table; 6: interpolation; 7: 2^f; 10: f 2^f; 11: bins read; then added
  localparam int unsigned Last = 12;
  logic [Last:1] v_q;
  logic [3*Last-1:0] col_q;
  logic [2:0] col11, col12;
  assign col11 = col_q[3*10+:3];
  assign col12 = col_q[3*11+:3];
  always_ff @(posedge clk_i) begin
    if (!rst_ni) v_q <= '0;
    else v_q <= {v_q[Last-1:1], valid_i};
  end
  always_ff @(posedge clk_i) if (valid_i || v_q != '0) col_q <= {col_q[0+:3*(Last-1)], col_i};

  logic [63:0] zp;
  logic signed [33:0] z;
  foray_mul_const #(
      .Factor(32'd1549082005)
  ) u_log2e (
      .clk_i,
      .en_i(valid_i),
      .y_i({logit_i[31], logit_i}),
      .p_o(zp)
  );
  assign z = zp[63:30] + {33'd0, zp[29]};

  logic signed [17:0] bin;
  logic [15:0] f4_q, f5_q, f6_q, f7_q;
  logic [9*8-1:0] bin_q;
  logic [8:0] bin4_d, bin11, bin12_q;
  assign bin = z[33:16] + 18'sd256;
  assign bin4_d = bin < 18'sd0 ? 9'd0 : bin > 18'sd511 ? 9'd511 : bin[8:0];
  assign bin11 = bin_q[9*7+:9];  // stage 4 is the first

  logic tab_en;
  logic [9:0] tab_addr;
  logic [31:0] base, base6_q, inter6_q, t7_q, t8_q, t9_q, t10_q, t11_q, t12_q;
  logic [23:0] delta;
  assign tab_en = v_q[4] || side_en_i;
  assign tab_addr = side_en_i ? side_addr_i : {2'd0, f4_q[15:8]};
  foray_tables_rom #(
      .Table(foray_tables_pkg::TAB_EXP2)
  ) u_exp2 (
      .clk_i,
      .en_i(tab_en),
      .addr_i(tab_addr),
      .base_o(base),
      .delta_o(delta)
  );
  assign side_base_o  = base;
  assign side_delta_o = delta;

  logic signed [63:0] ft;
  logic [30:0] ft11_q, ft12_q;
  foray_mul u_ft (
      .clk_i,
      .en_i(v_q[7]),
      .x_i(t7_q),
      .y_i({17'd0, f7_q}),
      .p_o(ft)
  );

  always_ff @(posedge clk_i) begin
    if (valid_i || v_q != '0) begin
      f4_q <= z[15:0];
      {f5_q, f6_q, f7_q} <= {f4_q, f5_q, f6_q};
      bin_q <= {bin_q[0+:9*7], bin4_d};
      base6_q <= base;
      inter6_q <= 32'(delta * f5_q[7:0]) + 32'd128;
      t7_q <= base6_q + {8'd0, inter6_q[31:8]};
      {t8_q, t9_q, t10_q, t11_q, t12_q} <= {t7_q, t8_q, t9_q, t10_q, t11_q};
      ft11_q <= ft[46:16];
      ft12_q <= ft11_q;
      bin12_q <= bin11;
    end
  end

  localparam int unsigned CW = Cols > 1 ? 3 : 1;  // bits of a column's number

  // Bins: {sum of f 2^f, sum of 2^f}; 2^20 rows stay below 2^52.
  logic clr_q, scan_read, same_q;
  logic [9:0] clr_at_q;
  logic [8:0] rd_bin, scan_bin_q;
  logic [103:0] word, sum_d, sum_q;
  logic [104*Cols-1:0] words;
  logic [2:0] word_col;
  assign rd_bin = scan_read ? scan_bin_q : bin11;
  assign word_col = v_q[12] ? col12 : scan_col_i;
  assign word = words[104*word_col[CW-1:0]+:104];
  assign sum_d[51:0] = (same_q ? sum_q[51:0] : word[51:0]) + {20'd0, t12_q};
  assign sum_d[103:52] = (same_q ? sum_q[103:52] : word[103:52]) + {21'd0, ft12_q};

  for (genvar c = 0; c < Cols; c++) begin : gen_bins
    logic [103:0] mem[512];
    logic we;
    assign we = clr_q || (v_q[12] && (Cols == 1 || col12 == 3'(c)));
    always_ff @(posedge clk_i) begin
      if (we) mem[clr_q ? clr_at_q[8:0] : bin12_q] <= clr_q ? 104'd0 : sum_d;
      if (scan_read || v_q[11]) words[104*c+:104] <= mem[rd_bin];
    end
  end

  // Highest bin of each column.
  logic [9*Cols-1:0] top_q;
  for (genvar c = 0; c < Cols; c++) begin : gen_top
    always_ff @(posedge clk_i) begin
      if (clear_i) top_q[9*c+:9] <= 9'd0;
      else if (v_q[12] && (Cols == 1 || col12 == 3'(c)) && bin12_q > top_q[9*c+:9]) top_q[9*c+:9] <= bin12_q;
    end
  end
  assign top_o = top_q[9*scan_col_i[CW-1:0]+:9];

  always_ff @(posedge clk_i) begin
    if (v_q[12]) sum_q <= sum_d;
    // The bin that is being written is the one read at the same time.
`ifdef FORAY_BUG_EXIT  // tests/rtl must see this
    same_q <= 1'b0;
`else
    same_q <= v_q[11] && v_q[12] && bin11 == bin12_q && col11 == col12;
`endif
    if (!rst_ni) clr_q <= 1'b0;
    else if (clear_i) clr_q <= 1'b1;
    else if (clr_at_q == 10'd511) clr_q <= 1'b0;
    clr_at_q <= clr_q ? clr_at_q + 10'd1 : 10'd0;
  end
  assign clear_busy_o = clr_q;
  assign empty_o = v_q == '0;

  // ---- the scan: bin top - d at a time; 2: d z in two halves; 4: shifts; 5: sums
  logic scan_q;
  logic [5:1] sv_q;
  logic [5:0] d_q, d1_q, d2_q, d3_q, d4_q;
  logic [51:0] z2_q, z3_q, z4_q, fz2_q, fz3_q;
  logic [57:0] dz2_q, dz3_q;
  logic signed [63:0] n4_q, n5_q;
  logic [51:0] z5_q;
  logic last;
  assign last = d_q == 6'd39 || scan_bin_q == 9'd0;
  assign scan_read = scan_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      scan_q <= 1'b0;
      sv_q   <= '0;
    end else begin
      if (scan_i) scan_q <= 1'b1;
      else if (last) scan_q <= 1'b0;
      sv_q <= {sv_q[4:1], scan_q};
    end
  end
  always_ff @(posedge clk_i) begin
    if (scan_i) begin
      scan_bin_q <= top_o;
      d_q <= 6'd0;
      z_o <= 64'd0;
      n_o <= 64'sd0;
    end else if (scan_q || sv_q != '0) begin
      scan_bin_q <= scan_bin_q - 9'd1;
      d_q <= d_q + 6'd1;
      {d1_q, d2_q, d3_q, d4_q} <= {d_q, d1_q, d2_q, d3_q};
      {z2_q, fz2_q} <= {word[51:0], word[103:52]};
      dz2_q <= (d1_q[0] ? {6'd0, word[51:0]} : 58'd0) + (d1_q[1] ? {5'd0, word[51:0], 1'd0} : 58'd0) +
          (d1_q[2] ? {4'd0, word[51:0], 2'd0} : 58'd0);
      {z3_q, fz3_q} <= {z2_q, fz2_q};
      dz3_q <= dz2_q + (d2_q[3] ? {3'd0, z2_q, 3'd0} : 58'd0) + (d2_q[4] ? {2'd0, z2_q, 4'd0} : 58'd0) +
          (d2_q[5] ? {1'd0, z2_q, 5'd0} : 58'd0);
      z4_q <= z3_q;
      n4_q <= $signed({12'd0, fz3_q}) - $signed({6'd0, dz3_q});
      z5_q <= z4_q >> d4_q;
      n5_q <= n4_q >>> d4_q;
      if (sv_q[5]) begin
        z_o <= z_o + {12'd0, z5_q};
        n_o <= n_o + n5_q;
      end
    end
  end
  assign scan_done_o = sv_q == 5'b10000;

endmodule
