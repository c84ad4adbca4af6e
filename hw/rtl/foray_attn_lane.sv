// One lane of foray_attn: a query head of one column against the records in the buffers (docs/numerics.md 8).
//
// 32 multipliers (8 x 16 bits, carry chains) do K (scores: a dot of 32 a cycle) and V (32 sums, weight times code) in
// turn. Between the two the softmax of a block: a new maximum, 32 powers of two, their sum, the scale of each V
// group. Sums of a V group are added to the head's accumulators one element a cycle while the next group runs, so
// one barrel shifter serves 32 of them.
//
// Numbers in signal names are cycles after foray_attn issued an address (stage 0); see there.
module foray_attn_lane #(
    /// Address bits of the accumulators of one parity.
    parameter int unsigned AccW = 9
) (
    /// Clock.
    input  logic           clk_i,
    // ---- both phases
    /// Stage 1: codes of the group read.
    input  logic [255:0]   codes1_i,
    /// Stage 2: scale of it, exponent and fraction.
    input  logic [15:0]    scale2_i,
    // ---- K
    /// Next query group: mantissas, and shift + exponent of q + exponent of the scale - 32.
    input  logic           qn_we_i,
    /// See qn_we_i.
    input  logic [511:0]   qn_data_i,
    /// See qn_we_i.
    input  logic signed [17:0] qn_exp_i,
    /// Stage 3 of a group's first position: take it.
    input  logic           q_take3_i,
    /// Stage 4: exponent field of the scale.
    input  logic [5:0]     x4_i,
    /// Stage 7: scale of the scores times (1024 + F), for this group.
    input  logic [35:0]    factor7_i,
    /// Stage 11: a score term arrives.
    input  logic           t_we11_i,
    /// Position of it.
    input  logic [4:0]     t_j11_i,
    /// First group of the head.
    input  logic           t_first11_i,
    /// Last group of the head.
    input  logic           t_last11_i,
    /// Which score buffer.
    input  logic           t_par11_i,
    /// Positions of the block that this lane sees, 0..32 (0: takes no part).
    input  logic [5:0]     n11_i,
    // ---- softmax
    /// Starts the softmax of a block: the cycle after the last score.
    input  logic           sm_start_i,
    /// The cycle after.
    input  logic           sm_start1_i,
    /// Positions that the lane sees.
    input  logic [5:0]     sm_n_i,
    /// First block: no state yet.
    input  logic           sm_first_i,
    /// State: {pass parity, batch}.
    input  logic [3:0]     sm_state_i,
    /// Score buffer, and buffer of the weights.
    input  logic           sm_par_i,
    /// e0: position.
    input  logic [4:0]     sm_j0_i,
    /// e4: position valid.
    input  logic           sm_v4_i,
    /// Its number.
    input  logic [4:0]     sm_j4_i,
    /// e4: exponent fields of V's scales, by group.
    input  logic [7:0][5:0] sm_x4_i,
    /// After the last e4.
    input  logic           sm_end_i,
    // ---- V
    /// Stage 1: position whose weight is read.
    input  logic [4:0]     v_j1_i,
    /// Buffer of the weights.
    input  logic           v_par1_i,
    /// Group.
    input  logic [2:0]     v_g2_i,
    /// Buffer, stage 2.
    input  logic           v_par2_i,
    /// Stage 4: the multipliers work for V.
    input  logic           v4_i,
    /// Stage 5: products of V.
    input  logic           v5_i,
    /// First position of the group.
    input  logic           v_first5_i,
    /// Stage 6, after the last position: hand the sums over.
    input  logic           upd_start_i,
    /// Group of them.
    input  logic [2:0]     upd_g_i,
    /// Weights' buffer (for the shift).
    input  logic           upd_par_i,
    /// First block.
    input  logic           upd_first_i,
    /// State.
    input  logic [3:0]     upd_state_i,
    /// u0: accumulator address, parity in upd_state_i[3].
    input  logic           upd_re_i,
    /// See upd_re_i.
    input  logic [AccW-1:0] upd_addr_i,
    /// u2: write.
    input  logic           upd_we_i,
    /// Its address.
    input  logic [AccW-1:0] upd_waddr_i,
    /// Parity of it.
    input  logic           upd_wpar_i,
    /// u2 of the last element.
    input  logic           upd_last_i,
    // ---- results
    /// State whose sum of weights is wanted.
    input  logic [3:0]     div_state_i,
    /// State read.
    input  logic [3:0]     fin_state_i,
    /// Group.
    input  logic [2:0]     fin_g_i,
    /// Reads an accumulator.
    input  logic           fin_re_i,
    /// Address, parity in fin_state_i[3].
    input  logic [AccW-1:0] fin_addr_i,
    /// It, a cycle later.
    output logic signed [47:0] fin_acc_o,
    /// Sum of the weights of div_state_i.
    output logic [47:0]    fin_l_o,
    /// Maximum.
    output logic signed [25:0] fin_ml_o,
    /// Exponent of a group's accumulators.
    output logic signed [25:0] fin_mv_o,
    /// Bits of its largest accumulator.
    output logic [5:0]     fin_bits_o
);

  localparam logic signed [25:0] Lowest = -26'sd16777216;

  // ---- codes to the multipliers
  logic [255:0] codes_q2, codes_q3, codes_q4;
  always_ff @(posedge clk_i) begin
    codes_q2 <= codes1_i;
    codes_q3 <= codes_q2;
    codes_q4 <= codes_q3;
  end

  // ---- V: weight of a position, w = R(P (1024 + F), 27 + Mv - a)
  logic [46:0] weight_mem[64];  // {int(d), P}
  logic [46:0] weight_q2;
  logic signed [25:0] snap_ml_q[2];
  logic [207:0] snap_mv_q[2], snap_dm_q[2];
  logic signed [42:0] wp;
  logic [41:0] wp_q3;
  logic signed [27:0] gap;
  logic [5:0] wsh_q3;
  logic [42:0] wdown;
  logic [14:0] w_q4;
  logic signed [25:0] mv2;
  assign mv2 = snap_mv_q[v_par2_i][26*v_g2_i+:26];
  assign gap = 28'sd27 + 28'(mv2) + 28'(signed'({1'b0, weight_q2[46:31]})) - 28'(signed'({1'b0, scale2_i[15:10]})) -
      28'(snap_ml_q[v_par2_i]);
  foray_mul_lut #(
      .AW(32),
      .BW(11)
  ) u_wp (
      .a_i({1'b0, weight_q2[30:0]}),
      .b_i({1'b1, scale2_i[9:0]}),
      .p_o(wp)
  );
  assign wdown = {wp_q3, 1'b0} >> wsh_q3;
  always_ff @(posedge clk_i) begin
    weight_q2 <= weight_mem[{v_par1_i, v_j1_i}];
    wp_q3 <= wp[41:0];
    wsh_q3 <= gap > 28'sd63 ? 6'd63 : gap[5:0];
    w_q4 <= 15'(wdown[15:1]) + 15'(wdown[0]);
  end

  // ---- K: the query group
  logic [511:0] qn_q, q_q;
  logic signed [17:0] qn_exp_q, q_exp_q;
  always_ff @(posedge clk_i) begin
    if (qn_we_i) begin
      qn_q <= qn_data_i;
      qn_exp_q <= qn_exp_i;
    end
    if (q_take3_i) begin
      q_q <= qn_q;
      q_exp_q <= qn_exp_q;
    end
  end

  // ---- multipliers
  logic signed [23:0] prod_q5[32];
  logic signed [25:0] four_q6[8];
  logic signed [27:0] dot_q7;
  logic signed [28:0] bs_q[32];
  for (genvar i = 0; i < 32; i++) begin : gen_mul
    logic signed [15:0] factor;
    logic signed [22:0] low;
    logic signed [23:0] prod;
    logic signed [7:0] code;
    assign factor = v4_i ? {1'b0, w_q4} : q_q[16*i+:16];
    assign code = codes_q4[8*i+:8];
    // signed code: seven bits count up, the sign bit down
    foray_mul_lut #(
        .AW(16),
        .BW(7)
    ) u_mul (
        .a_i(factor),
        .b_i(code[6:0]),
        .p_o(low)
    );
    assign prod = 24'(low) - (code[7] ? 24'(factor) <<< 7 : 24'sd0);
    always_ff @(posedge clk_i) begin
      prod_q5[i] <= prod;
      if (v5_i) bs_q[i] <= (v_first5_i ? 29'sd0 : bs_q[i]) + 29'(prod_q5[i]);
    end
  end
  always_ff @(posedge clk_i) begin
    for (int i = 0; i < 8; i++)
      four_q6[i] <= (26'(prod_q5[4*i]) + 26'(prod_q5[4*i+1])) + (26'(prod_q5[4*i+2]) + 26'(prod_q5[4*i+3]));
    dot_q7 <= ((28'(four_q6[0]) + 28'(four_q6[1])) + (28'(four_q6[2]) + 28'(four_q6[3]))) +
        ((28'(four_q6[4]) + 28'(four_q6[5])) + (28'(four_q6[6]) + 28'(four_q6[7])));
  end

  // ---- score term: clamp(R(dot * factor, -(exponents)), +-2^27)
  logic signed [45:0] low7, low_q8;
  logic signed [45:0] high7, high_q8;
  logic signed [63:0] term_q9;
  logic [6:0] tsh_q5, tsh_q6, tsh_q7, tsh_q8, tsh_q9;  // right shift + 32, 0..95
  logic signed [18:0] te;
  logic signed [64:0] tdown;
  logic signed [63:0] tr;
  logic signed [29:0] tnear, cap;
  logic signed [61:0] tup;
  logic signed [28:0] term_q10;
  assign te = 19'sd32 - 19'(q_exp_q) - 19'(signed'({1'b0, x4_i}));
  foray_mul_lut #(
      .AW(28),
      .BW(18)
  ) u_low (
      .a_i(dot_q7),
      .b_i(factor7_i[17:0]),
      .p_o(low7)
  );
  foray_mul_lut #(
      .AW(28),
      .BW(18)
  ) u_high (
      .a_i(dot_q7),
      .b_i(factor7_i[35:18]),
      .p_o(high7)
  );
  assign tdown = signed'({term_q9, 1'b0}) >>> (tsh_q9[6:5] == 2'd0 ? 6'd0 : tsh_q9 >= 7'd95 ? 6'd63 : 6'(tsh_q9 - 7'd32));
  assign tr = tsh_q9 >= 7'd95 ? '0 : 64'((tdown >>> 1) + 65'(tdown[0]));
  // beyond +-2^28 it is capped prior the shift to the left
  assign tnear = tr > 64'sd268435456 ? 30'sd268435456 : tr < -64'sd268435456 ? -30'sd268435456 : tr[29:0];
  assign tup = 62'(tnear) <<< (tsh_q9[6:5] == 2'd0 ? 6'd32 - tsh_q9[5:0] : 6'd0);
  assign cap = tup > 62'sd134217728 ? 30'sd134217728 : tup < -62'sd134217728 ? -30'sd134217728 : tup[29:0];
  always_ff @(posedge clk_i) begin
    tsh_q5 <= te < 0 ? 7'd0 : te > 19'sd95 ? 7'd95 : te[6:0];
    tsh_q6 <= tsh_q5;
    tsh_q7 <= tsh_q6;
    tsh_q8 <= tsh_q7;
    tsh_q9 <= tsh_q8;
    low_q8 <= low7;
    high_q8 <= high7;
    term_q9 <= 64'(low_q8) + (64'(high_q8) <<< 18);
    term_q10 <= cap[28:0];
  end

  // ---- scores of the block, and their maximum
  logic [31:0] score_mem[64];
  logic signed [31:0] old11, term_q11, new_score, top_q;
  logic see11;
  assign old11 = t_first11_i ? 32'sd0 : score_mem[{t_par11_i, t_j11_i}];
  always_ff @(posedge clk_i) term_q11 <= 32'(term_q10);
  assign new_score = old11 + term_q11;
  assign see11 = 6'(t_j11_i) < n11_i;
  always_ff @(posedge clk_i) begin
    if (t_we11_i) score_mem[{t_par11_i, t_j11_i}] <= new_score;
    if (t_we11_i && t_last11_i && (t_j11_i == '0 || (see11 && new_score > top_q))) top_q <= new_score;
  end

  // ---- softmax: state
  logic signed [25:0] ml_mem[16];
  logic [47:0] l_mem[16];
  logic [207:0] mv_mem[16];
  logic signed [25:0] ml_in, ml_new_q, top_int;
  logic [25:0] ml_gap_q;
  logic [207:0] mv_in;
  logic [47:0] l_q;
  logic [48:0] l_down;
  logic [5:0] ml_shift;
  logic part;  // the lane sees some of the block
  assign part = sm_n_i != '0;
  assign ml_in = sm_first_i ? Lowest : ml_mem[sm_state_i];
  assign mv_in = sm_first_i ? {8{Lowest}} : mv_mem[sm_state_i];
  assign top_int = 26'((33'(top_q) + 33'sd65535) >>> 16);
  assign ml_shift = |ml_gap_q[25:6] ? 6'd63 : ml_gap_q[5:0];
  assign l_down = {l_q, 1'b0} >> ml_shift;

  // ---- e0 .. e3: P = 2^-frac(d)
  logic signed [33:0] d0;
  logic [31:0] d_q;
  logic [16:0] up1;
  logic [9:0] rom_addr;
  logic [31:0] rom_base;
  logic [23:0] rom_delta;
  logic [7:0] r_q2;
  logic zero_q2, zero_q3;
  logic [15:0] int_q2, int_q3, int_q4;
  logic signed [32:0] step;
  logic [31:0] x_q3;
  logic [30:0] p_q4;
  logic see4;
  logic signed [31:0] score0;
  assign score0 = score_mem[{sm_par_i, sm_j0_i}];
  assign d0 = 34'(signed'({ml_new_q, 16'd0})) - 34'(score0);
  assign up1 = 17'h10000 - {1'b0, d_q[15:0]};
  assign rom_addr = {2'd0, up1[15:8]};
  foray_tables_rom #(
      .Table(foray_tables_pkg::TAB_EXP2),
      .Ports(1)
  ) u_exp2 (
      .clk_i,
      .en_i(1'b1),
      .addr_i(rom_addr),
      .base_o(rom_base),
      .delta_o(rom_delta)
  );
  foray_mul_lut #(
      .AW(25),
      .BW(8)
  ) u_step (
      .a_i({1'b0, rom_delta}),
      .b_i(r_q2),
      .p_o(step)
  );
  always_ff @(posedge clk_i) begin
    d_q <= d0[31:0];
    r_q2 <= up1[7:0];
    zero_q2 <= d_q[15:0] == '0;
    int_q2 <= d_q[31:16];
    x_q3 <= rom_base + 32'((step + 33'sd128) >>> 8);
    zero_q3 <= zero_q2;
    int_q3 <= int_q2;
    p_q4 <= zero_q3 ? 31'h40000000 : 31'((x_q3 + 32'd1) >> 1);
    int_q4 <= int_q3;
  end
  // ---- e4: sums, largest exponents
  logic [31:0] p_down;
  logic [7:0][17:0] amax_q;
  assign see4 = 6'(sm_j4_i) < sm_n_i;
  assign p_down = {p_q4, 1'b0} >> (|int_q4[15:6] ? 6'd63 : int_q4[5:0]);
  for (genvar g = 0; g < 8; g++) begin : gen_amax
    logic signed [17:0] cand;
    assign cand = 18'(signed'({1'b0, sm_x4_i[g]})) - 18'(signed'({1'b0, int_q4}));
    always_ff @(posedge clk_i) begin
      if (sm_v4_i && see4 && (sm_j4_i == '0 || cand > signed'(amax_q[g]))) amax_q[g] <= cand;
    end
  end
  logic [207:0] mv_out, dm_out;
  for (genvar g = 0; g < 8; g++) begin : gen_mv
    logic signed [25:0] prior, cand, after;
    assign prior = mv_in[26*g+:26];
    assign cand = ml_new_q + 26'(signed'(amax_q[g]));
    assign after = part && cand > prior ? cand : prior;
    assign mv_out[26*g+:26] = after;
    assign dm_out[26*g+:26] = after - prior;
  end
  always_ff @(posedge clk_i) begin
    if (sm_start_i) begin
      ml_new_q <= part && top_int > ml_in ? top_int : ml_in;
      ml_gap_q <= part && top_int > ml_in ? top_int - ml_in : 26'd0;
      l_q <= sm_first_i ? 48'd0 : l_mem[sm_state_i];
    end else if (sm_start1_i) begin
      l_q <= 48'(l_down[48:1]) + 48'(l_down[0]);
    end else if (sm_v4_i && see4) begin
      l_q <= l_q + 48'(p_down[31:1]) + 48'(p_down[0]);
    end
    if (sm_v4_i) weight_mem[{sm_par_i, sm_j4_i}] <= see4 ? {int_q4, p_q4} : '0;
    if (sm_end_i) begin
      ml_mem[sm_state_i] <= ml_new_q;
      l_mem[sm_state_i] <= l_q;
      mv_mem[sm_state_i] <= mv_out;
      snap_ml_q[sm_par_i] <= ml_new_q;
      snap_mv_q[sm_par_i] <= mv_out;
      snap_dm_q[sm_par_i] <= dm_out;
    end
  end

  // ---- accumulators: acc = R(acc, Mv' - Mv) + 256 * sum of the block
  logic [927:0] sums_q;  // 32 of 29 bits, the next one lowest
  logic upd_first_q;
  logic [5:0] ush_q;
  logic [2:0] ug_q;
  logic [3:0] ustate_q;
  logic signed [25:0] udm;
  logic signed [47:0] acc_rd[2];
  logic signed [47:0] acc1;
  logic signed [48:0] acc_down;
  logic signed [47:0] acc_q2, sum_acc;
  logic signed [28:0] s_q1, s_q2;
  logic [47:0] any_q, any_d;
  logic [5:0] bits_mem[128];
  logic upar_q1, first_q1;
  logic [5:0] ush_q1;
  logic [6:0] ubits_q1, ubits_q2;  // {state, group}, along with the element
  logic upd_v_q2;
  assign udm = snap_dm_q[upd_par_i][26*upd_g_i+:26];
  for (genvar p = 0; p < 2; p++) begin : gen_acc
    logic [47:0] mem[1<<AccW];
    logic re;
    logic [AccW-1:0] raddr;
    assign re = (upd_re_i && ustate_q[3] == 1'(p)) || (fin_re_i && fin_state_i[3] == 1'(p));
    assign raddr = upd_re_i && ustate_q[3] == 1'(p) ? upd_addr_i : fin_addr_i;
    always_ff @(posedge clk_i) begin
      if (re) acc_rd[p] <= mem[raddr];
      if (upd_we_i && upd_wpar_i == 1'(p)) mem[upd_waddr_i] <= sum_acc;
    end
  end
  assign acc1 = first_q1 ? 48'sd0 : acc_rd[upar_q1];
  assign acc_down = signed'({acc1, 1'b0}) >>> ush_q1;
  assign sum_acc = acc_q2 + 48'(signed'({s_q2, 8'd0}));
  assign any_d = (upd_v_q2 ? any_q : '0) | (sum_acc < 0 ? -sum_acc : sum_acc);
  always_ff @(posedge clk_i) begin
    if (upd_start_i) begin
      for (int i = 0; i < 32; i++) sums_q[29*i+:29] <= bs_q[i];
      ush_q <= |udm[25:6] ? 6'd63 : udm[5:0];
      upd_first_q <= upd_first_i;
      ug_q <= upd_g_i;
      ustate_q <= upd_state_i;
    end else if (upd_re_i) begin
      sums_q <= sums_q >> 29;
    end
    s_q1 <= sums_q[28:0];
    upar_q1 <= ustate_q[3];
    ush_q1 <= ush_q;
    first_q1 <= upd_first_q;
    ubits_q1 <= {ustate_q, ug_q};
    ubits_q2 <= ubits_q1;
    acc_q2 <= 48'((acc_down >>> 1) + 49'(acc_down[0]));
    s_q2 <= s_q1;
    if (upd_we_i) any_q <= any_d;
    upd_v_q2 <= upd_we_i && !upd_last_i;
    if (upd_we_i && upd_last_i) bits_mem[ubits_q2] <= 6'(foray_math_pkg::bitlen64(64'(any_d)));
  end

  // ---- results
  assign fin_acc_o = acc_rd[fin_state_i[3]];
  assign fin_l_o = l_mem[div_state_i];
  assign fin_ml_o = ml_mem[fin_state_i];
  assign fin_mv_o = 26'(mv_mem[fin_state_i] >> (26 * fin_g_i));
  assign fin_bits_o = bits_mem[{fin_state_i, fin_g_i}];

  logic unused_bits;
  assign unused_bits = &{1'b0, wp[42], wdown[42:16], cap[29], d0[33:32], up1[16]};

endmodule
