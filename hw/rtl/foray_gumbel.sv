/// -ln(-ln u) of a uniform word, u = (2 w + 1) / 2^33, Q16 (foray_gumbel_from_word_q16): a word a cycle, 22 cycles of latency. The table of
/// log2 may be read through a side port while no word is under way.
module foray_gumbel (
    input  logic               clk_i,
    input  logic               rst_ni,
    input  logic               valid_i,
    input  logic        [31:0] w_i,
    output logic               valid_o,
    output logic signed [31:0] g_o,
    /// Table of log2 for the owner of this unit; data a cycle later.
    input  logic               side_en_i,
    input  logic        [ 9:0] side_addr_i,
    output logic        [31:0] side_base_o,
    output logic        [23:0] side_delta_o
);

  localparam logic [31:0] Ln2 = 32'd2977044472;  // Q32

  logic [22:1] v_q, high_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) v_q <= '0;
    else v_q <= {v_q[21:1], valid_i};
  end
  always_ff @(posedge clk_i) if (valid_i || v_q != '0) high_q <= {high_q[21:1], w_i[31]};

  // 1: below u = 1/2 u itself, above it v = 1 - u, both in units of 2^-33; its leading one
  logic [31:0] val_d, val1_q, val2_q, val3_q, val4_q, val5_q, val6_q;
  logic [4:0] k1_q, k2_q, k3_q, k4_q, k5_q, k6_q;
  /* verilator lint_off UNUSED */  // 32 bits have at most 32
  logic [6:0] bl1, bl2;
  /* verilator lint_on UNUSED */
  assign val_d = {w_i[30:0] ^ {31{w_i[31]}}, 1'b1};
  assign bl1   = foray_math_pkg::bitlen64({32'd0, val_d});
  // 2: place in the table
  logic [31:0] norm;
  logic [ 9:0] addr2_q;
  logic [31:0] f2_q, f3_q;
  assign norm = val1_q << (5'd31 - k1_q);
  // 3: table; 3..6: product
  logic [1:0] lg_en;
  logic [1:0][9:0] lg_addr;
  logic [1:0][31:0] lg_base;
  logic [1:0][23:0] lg_delta;
  logic [31:0] nl_base, base3, base4_q, base5_q, base6_q;
  logic [23:0] nl_delta;
  logic signed [63:0] p1;
  foray_tables_rom #(
      .Table(foray_tables_pkg::TAB_NLOG)
  ) u_nlog (
      .clk_i,
      .en_i(v_q[2]),
      .addr_i(addr2_q),
      .base_o(nl_base),
      .delta_o(nl_delta)
  );
  foray_tables_rom #(
      .Table(foray_tables_pkg::TAB_LOG2),
      .Ports(2)
  ) u_log2 (
      .clk_i,
      .en_i(lg_en),
      .addr_i(lg_addr),
      .base_o(lg_base),
      .delta_o(lg_delta)
  );
  assign lg_en[0] = v_q[2] || side_en_i;
  assign lg_addr[0] = side_en_i ? side_addr_i : addr2_q;
  assign side_base_o = lg_base[0];
  assign side_delta_o = lg_delta[0];
  assign base3 = high_q[3] ? nl_base : lg_base[0];
  foray_mul u_inter1 (
      .clk_i,
      .en_i(v_q[3]),
      .x_i({8'd0, high_q[3] ? nl_delta : lg_delta[0]}),
      .y_i({1'b0, f3_q}),
      .p_o(p1)
  );
  // 7: factors of e = -ln u; 10: e
  logic [37:0] lg_d, minus_d;
  logic [31:0] x7_q, y7_q;
  logic signed [63:0] p2;
  assign lg_d = {1'b0, k6_q, 32'd0} + {5'd0, base6_q, 1'b0} + {6'd0, p1[62:31]};
  assign minus_d = {6'd33, 32'd0} - lg_d;
  foray_mul u_e (
      .clk_i,
      .en_i(v_q[7]),
      .x_i(x7_q),
      .y_i({1'b0, y7_q}),
      .p_o(p2)
  );
  // 11 e, 12 its leading one, 13 place, 14 table, 17 product
  logic [62:0] e11_q, e12_q, norm2;
  logic [5:0] k12_q, k13_q, k14_q, k15_q, k16_q, k17_q;
  logic [9:0] addr13_q;
  logic [31:0] f13_q, f14_q, base15_q, base16_q, base17_q;
  logic signed [63:0] p3;
  assign bl2 = foray_math_pkg::bitlen64({1'b0, e11_q});
  assign norm2 = e12_q << (6'd62 - k12_q);
  assign lg_en[1] = v_q[13];
  assign lg_addr[1] = addr13_q;
  foray_mul u_inter2 (
      .clk_i,
      .en_i(v_q[14]),
      .x_i({8'd0, lg_delta[1]}),
      .y_i({1'b0, f14_q}),
      .p_o(p3)
  );
  // 18: l = -log2 e in Q32; 21: times ln 2; 22: rounded
  logic [39:0] l_d, l_q;
  logic [63:0] p4;
  assign l_d = {2'd0, high_q[17] ? 6'd63 : 6'd50, 32'd0} - {2'd0, k17_q, 32'd0} - {7'd0, base17_q, 1'b0} - {8'd0, p3[62:31]};
  foray_mul_const #(
      .Factor(Ln2 >> 4),
      .YW(36)
  ) u_ln2 (
      .clk_i,
      .en_i(v_q[18]),
      .y_i(l_q[39:4]),
      .p_o(p4)
  );

  always_ff @(posedge clk_i) begin
    if (valid_i || v_q != '0) begin
      val1_q <= val_d;
      k1_q <= 5'(bl1 - 7'd1);
      addr2_q <= high_q[1] ? {1'b0, val1_q[31:23]} : norm[30:21];
      f2_q <= high_q[1] ? {9'd0, val1_q[22:0]} : {norm[20:0], 11'd0};
      f3_q <= f2_q;
      {val2_q, val3_q, val4_q, val5_q, val6_q} <= {val1_q, val2_q, val3_q, val4_q, val5_q};
      {k2_q, k3_q, k4_q, k5_q, k6_q} <= {k1_q, k2_q, k3_q, k4_q, k5_q};
      {base4_q, base5_q, base6_q} <= {base3, base4_q, base5_q};
      x7_q <= high_q[6] ? base6_q + 32'(p1 >>> 23) : {2'd0, minus_d[37:8]};
      y7_q <= high_q[6] ? val6_q : Ln2;
      e11_q <= high_q[10] ? p2[62:0] : {5'd0, p2[63:6]};
      e12_q <= e11_q;
      k12_q <= 6'(bl2 - 7'd1);
      addr13_q <= norm2[61:52];
      f13_q <= norm2[51:20];
      f14_q <= f13_q;
      {k13_q, k14_q, k15_q, k16_q, k17_q} <= {k12_q, k13_q, k14_q, k15_q, k16_q};
      {base15_q, base16_q, base17_q} <= {lg_base[1], base15_q, base16_q};
      l_q <= l_d;
      g_o <= {{8{p4[63]}}, p4[63:40]} + {31'd0, p4[39]};
    end
  end
  assign valid_o = v_q[22];

endmodule
