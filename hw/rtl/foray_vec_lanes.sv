/// Four lanes of the vector unit, two multipliers each. A beat of four elements (two pairs for ROPE, eight elements for the sum of
/// squares) a cycle; no stalls inside.
///
///   SILU   v = R(a sigmoid(R(a, -(e + 16))), 30) b      NORM   v = R(a f, 31) b      COPY   v = a
///   EMBED  v = a b k                                    ROPE   r = R(a c - b s, 31), R(a s + b c, 31)
///   SQUARE sum of a a + b b
module foray_vec_lanes (
    input  logic                     clk_i,
    input  logic                     rst_ni,
    /// foray_vec_pkg::lane_mode_e, constant while beats are under way.
    input  foray_vec_pkg::lane_mode_e mode_i,
    /// SILU: 31 + s of the rounding rule for the argument of the sigmoid.
    input  logic        [ 5:0]       sh_i,
    /// NORM: f, at most 2^31; EMBED: the row's mantissa.
    input  logic        [31:0]       k_i,
    input  logic                     valid_i,
    input  logic        [3:0][31:0]  a_i,
    input  logic        [3:0][31:0]  b_i,
    /// ROPE: which pair of pairs; comes back on idx_o when the angles of it are wanted on trig_i (same cycle).
    input  logic        [ 5:0]       idx_i,
    output logic        [ 5:0]       idx_o,
    /// {sine, cosine} of pair 0, of pair 1 (upper half).
    input  logic        [1:0][63:0]  trig_i,
    /// SILU, NORM, COPY, EMBED.
    output logic                     valid_o,
    output logic        [3:0][63:0]  v_o,
    /// ROPE: x and y of pair 0, of pair 1.
    output logic                     rot_valid_o,
    output logic        [3:0][31:0]  rot_o,
    /// SQUARE: one beat's sum.
    output logic                     sq_valid_o,
    output logic        [51:0]       sq_o
);

  localparam int unsigned MulAt = 6;  // stage at which operands of the first multipliers stand
  localparam int unsigned SecAt = 10;  // of the second ones, when they take the first one's result
  localparam int unsigned OutAt = 13;

  logic [OutAt:1] v_q;
  logic silu, norm, copy, embed, rope, square;
  assign silu = mode_i == foray_vec_pkg::LANE_SILU;
  assign norm = mode_i == foray_vec_pkg::LANE_NORM;
  assign copy = mode_i == foray_vec_pkg::LANE_COPY;
  assign embed = mode_i == foray_vec_pkg::LANE_EMBED;
  assign rope = mode_i == foray_vec_pkg::LANE_ROPE;
  assign square = mode_i == foray_vec_pkg::LANE_SQUARE;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) v_q <= '0;
    else begin
      v_q <= {v_q[OutAt-1:1], valid_i};
      if (rope || square) v_q[SecAt+1] <= 1'b0;  // these leave at stage 10
    end
  end

  // Index of the angles, with the operands a stage before the multipliers.
  logic [6*(MulAt-1)-1:0] idx_q;
  logic [1:0][63:0] trig_q;
  assign idx_o = idx_q[6*(MulAt-2)+:6];
  always_ff @(posedge clk_i) begin
    if (rope) begin
      idx_q  <= {idx_q[0+:6*(MulAt-2)], idx_i};
      trig_q <= trig_i;
    end
  end

  // Sigmoid: two lanes share a table with two reads.
  logic [3:0][9:0] tab_addr;
  logic [3:0][31:0] tab_base;
  logic [3:0][23:0] tab_delta;
  for (genvar i = 0; i < 2; i++) begin : gen_table
    foray_tables_rom #(
        .Table(foray_tables_pkg::TAB_SIGMOID),
        .Ports(2)
    ) u_rom (
        .clk_i,
        .en_i({2{v_q[3]}}),
        .addr_i({tab_addr[2*i+1], tab_addr[2*i]}),
        .base_o({tab_base[2*i+1], tab_base[2*i]}),
        .delta_o({tab_delta[2*i+1], tab_delta[2*i]})
    );
  end

  logic [3:0][63:0] prod_a, prod_b;

  for (genvar i = 0; i < 4; i++) begin : gen_lane
    // Operands wait here for the multipliers.
    logic [32*MulAt-1:0] a_q;
    logic [32*SecAt-1:0] b_q;
    logic [31:0] a_mul, b_mul, b_sec;
    assign a_mul = a_q[32*(MulAt-1)+:32];
    assign b_mul = b_q[32*(MulAt-1)+:32];
    assign b_sec = b_q[32*(SecAt-1)+:32];
    always_ff @(posedge clk_i) begin
      if (|{valid_i, v_q[MulAt:1]})
        a_q <= {a_q[0+:32*(MulAt-1)], embed || square ? a_i[i] : foray_math_pkg::clamp_y(a_i[i])};
      if (|{valid_i, v_q[SecAt:1]})
        b_q <= {b_q[0+:32*(SecAt-1)], norm || embed || square ? b_i[i] : foray_math_pkg::clamp_y(b_i[i])};
    end

    // Stage 2: the shift; 3: rounding, interval of the table; 4: table; 5: interpolation; 6: the sigmoid.
    logic signed [63:0] y;
    logic [21:0] y_q;
    logic big_q, neg_q, sat_d, neg_d;
    logic [21:0] x_d;
    logic [20:0] mag_d;
    logic [6:3] flip_q, top_q;
    logic [9:0] at_q, frac3_q, frac4_q;
    logic [33:0] inter_q;
    logic [31:0] base_q;
    logic [31:0] sig_q;
    assign y = $signed({a_q[31:0], 32'd0}) >>> sh_i;
    assign x_d = {y_q[21], y_q[21:1]} + {21'd0, y_q[0]};
    assign neg_d = big_q ? neg_q : x_d[21];
    assign mag_d = x_d[21] ? 21'(-x_d) : x_d[20:0];
    assign sat_d = big_q || mag_d[20];
    assign tab_addr[i] = at_q;
    always_ff @(posedge clk_i) begin
      if (silu) begin
        if (v_q[1]) begin
          y_q   <= y[21:0];
          big_q <= y[63:21] != {43{y[63]}};
          neg_q <= y[63];
        end
        if (v_q[2]) begin
          at_q <= mag_d[19:10];
          frac3_q <= mag_d[9:0];
          flip_q[3] <= neg_d;
          top_q[3] <= sat_d;
        end
        frac4_q <= frac3_q;
        flip_q[6:4] <= flip_q[5:3];
        top_q[6:4] <= top_q[5:3];
        if (v_q[4]) begin
          inter_q <= tab_delta[i] * frac4_q;
          base_q  <= tab_base[i];
        end
        if (v_q[5]) begin
          if (top_q[5]) sig_q <= flip_q[5] ? 32'd0 : 32'h4000_0000;
          else if (flip_q[5]) sig_q <= 32'h4000_0000 - base_q - {8'd0, inter_q[33:10]};
          else sig_q <= base_q + {8'd0, inter_q[33:10]};
        end
      end
    end

    // First product.
    logic [32:0] ya;
    logic [31:0] trig_a, trig_b;
    assign trig_a = trig_q[i/2][32*(i%2)+:32];  // lane 0 of a pair: a c, lane 1: a s
    assign trig_b = trig_q[i/2][32*(1-i%2)+:32];
    always_comb begin
      unique case (1'b1)
        silu: ya = {1'b0, sig_q};
        norm: ya = {1'b0, k_i};
        embed: ya = {25'd0, b_mul[7:0]};
        rope: ya = {trig_a[31], trig_a};
        square: ya = {a_mul[31], a_mul};
        default: ya = 33'd1;
      endcase
    end
    foray_mul u_first (
        .clk_i,
        .en_i(v_q[MulAt]),
        .x_i(a_mul),
        .y_i(ya),
        .p_o(prod_a[i])
    );

    // Rounded for the second one.
    logic [31:0] s_q;
    always_ff @(posedge clk_i) begin
      if (v_q[9]) begin
        unique case (1'b1)
          silu: s_q <= prod_a[i][61:30] + {31'd0, prod_a[i][29]};
          norm: s_q <= prod_a[i][62:31] + {31'd0, prod_a[i][30]};
          default: s_q <= prod_a[i][31:0];
        endcase
      end
    end

    logic [31:0] xb;
    logic [32:0] yb;
    always_comb begin
      xb = rope || square ? b_mul : s_q;
      unique case (1'b1)
        rope: yb = {trig_b[31], trig_b};
        square: yb = {b_mul[31], b_mul};
        copy: yb = 33'd1;
        embed: yb = {1'b0, k_i};
        default: yb = {b_sec[31], b_sec};
      endcase
    end
    foray_mul u_second (
        .clk_i,
        .en_i(rope || square ? v_q[MulAt] : v_q[SecAt]),
        .x_i(xb),
        .y_i(yb),
        .p_o(prod_b[i])
    );
  end

  assign valid_o = v_q[OutAt];
  assign v_o = prod_b;

  // Rotation and squares leave at stage 10.
  logic [3:0][31:0] rot_d;
  logic [51:0] sq_d;
  for (genvar i = 0; i < 4; i++) begin : gen_rot
    logic [63:0] t;
    assign t = i % 2 == 0 ? prod_a[i] - prod_b[i] : prod_a[i] + prod_b[i];
    assign rot_d[i] = t[62:31] + {31'd0, t[30]};
  end
  always_comb begin
    sq_d = 52'd0;
    for (int unsigned i = 0; i < 4; i++) sq_d = sq_d + prod_a[i][51:0] + prod_b[i][51:0];
  end
  always_ff @(posedge clk_i) begin
    if (v_q[9] && rope) rot_o <= rot_d;
    if (v_q[9] && square) sq_o <= sq_d;
  end
  assign rot_valid_o = v_q[10] && rope;
  assign sq_valid_o = v_q[10] && square;

endmodule
