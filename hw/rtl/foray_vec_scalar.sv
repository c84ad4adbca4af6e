/// The scalar steps of the vector unit with one multiplier: the factor of RMSNORM, and the angles of ROPE (docs/numerics.md 3 and 6).
module foray_vec_scalar (
    input  logic               clk_i,
    input  logic               rst_ni,

    /// RMSNORM: pulse; operands stable until norm_done_o.
    input  logic               norm_start_i,
    /// Sum of squares, below 2^63.
    input  logic        [62:0] sum_i,
    input  logic        [31:0] n_i,
    input  logic        [31:0] eps_mant_i,
    /// eps n is R(eps_mant n, this).
    input  logic signed [17:0] eps_sh_i,
    input  logic        [31:0] root_n_i,
    output logic               norm_done_o,
    /// f <= 2^31, and what it adds to the exponent: k + fs.
    output logic        [31:0] f_o,
    output logic signed [ 7:0] f_exp_o,

    /// ROPE: pulse; pairs 1..128, position stable until trig_done_o. Takes ceil(pairs / 8) beats.
    input  logic               trig_start_i,
    input  logic        [ 7:0] pairs_i,
    input  logic        [31:0] position_i,
    input  logic               ax_valid_i,
    output logic               ax_ready_o,
    input  logic       [511:0] ax_data_i,
    output logic               trig_we_o,
    output logic        [ 6:0] trig_idx_o,
    /// {sine, cosine}, Q30.
    output logic        [63:0] trig_o,
    output logic               trig_done_o
);

  typedef enum logic [3:0] {
    N_IDLE,
    N_EPS,
    N_SHIFT,
    N_SCALE,
    N_TABLE,
    N_INTER,
    N_MR,
    N_MR2,
    N_NEWTON,
    N_ROOT,
    N_CUT,
    N_DONE
  } norm_e;
  norm_e st_q;

  // ---- one multiplier, two tables
  logic run_q;
  logic signed [31:0] mul_x;
  logic signed [32:0] mul_y;
  logic signed [63:0] mul_p;
  foray_mul u_mul (
      .clk_i,
      .en_i(run_q || st_q != N_IDLE),
      .x_i(mul_x),
      .y_i(mul_y),
      .p_o(mul_p)
  );

  logic rs_en, sin_en;
  logic [9:0] sin_addr;
  logic [31:0] rs_base, sin_base;
  logic [23:0] rs_delta, sin_delta;
  logic [31:0] d_m;
  foray_tables_rom #(
      .Table(foray_tables_pkg::TAB_RSQRT)
  ) u_rsqrt (
      .clk_i,
      .en_i(rs_en),
      .addr_i(d_m[31:22]),
      .base_o(rs_base),
      .delta_o(rs_delta)
  );
  foray_tables_rom #(
      .Table(foray_tables_pkg::TAB_SIN)
  ) u_sin (
      .clk_i,
      .en_i(sin_en),
      .addr_i(sin_addr),
      .base_o(sin_base),
      .delta_o(sin_delta)
  );

  // ---- RMSNORM: v holds eps n, then the sum, then m r and f in turn
  logic [1:0] wait_q;
  logic [63:0] v_q;
  logic [32:0] r_q;  // r
  logic signed [32:0] delta_q;  // 2^32 - m r^2
  logic signed [17:0] cnt_q;
  logic rnd_q;
  logic signed [7:0] k_q, fs_q;
  logic ready;
  localparam logic [63:0] EpsCap = 64'h2000_0000_0000_0000;

  assign d_m = v_q[31:0] - 32'h4000_0000;
  assign rs_en = st_q == N_TABLE;
  assign ready = wait_q == 2'd3;

  logic signed [32:0] r1_d;  // r + r (1 - m r^2) / 2, doubled
  assign r1_d = (r_q <<< 1) + 33'(mul_p >>> 32);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      st_q   <= N_IDLE;
      wait_q <= 2'd0;
    end else begin
      wait_q <= 2'd0;
      unique case (st_q)
        N_IDLE: if (norm_start_i) st_q <= N_EPS;
        N_EPS: begin
          wait_q <= wait_q + 2'd1;
          if (ready) st_q <= N_SHIFT;
        end
        N_SHIFT:
        if (cnt_q == 18'sd0 || v_q == 64'd0 || cnt_q > 18'sd62 || (cnt_q < 18'sd0 && v_q >= EpsCap))
          st_q <= N_SCALE;
        N_SCALE:
        if (v_q == 64'd0) st_q <= N_DONE;
        else if (v_q[63:32] == 32'd0 && v_q[31:30] != 2'd0) st_q <= N_TABLE;
        N_TABLE: st_q <= N_INTER;
        N_INTER, N_MR, N_MR2, N_NEWTON, N_ROOT: begin
          wait_q <= wait_q + 2'd1;
          if (ready) st_q <= norm_e'(st_q + 4'd1);
        end
        N_CUT: if (v_q[63:31] == 33'd0 && (v_q[30] || v_q == 64'd0)) st_q <= N_DONE;
        default: st_q <= N_IDLE;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    unique case (st_q)
      N_EPS: begin
        v_q   <= mul_p;
        cnt_q <= eps_sh_i;
        rnd_q <= 1'b0;
      end
      N_SHIFT: begin
        if (cnt_q > 18'sd62) v_q <= {1'b0, sum_i};
        else if (cnt_q == 18'sd0 || v_q == 64'd0)
          v_q <= {1'b0, sum_i} + (v_q >= EpsCap ? EpsCap : v_q) + {63'd0, rnd_q && cnt_q == 18'sd0};
        else if (cnt_q < 18'sd0) begin
          if (v_q >= EpsCap) v_q <= {1'b0, sum_i} + EpsCap;
          else v_q <= v_q << 1;
          cnt_q <= cnt_q + 18'sd1;
        end else if (cnt_q >= 18'sd8) begin
          {v_q, rnd_q} <= {8'd0, v_q[63:7]};
          cnt_q <= cnt_q - 18'sd8;
        end else begin
          {v_q, rnd_q} <= {1'd0, v_q};
          cnt_q <= cnt_q - 18'sd1;
        end
        k_q <= 8'sd30;
        fs_q <= -8'sd31;
      end
      N_SCALE: begin
        if (|v_q[63:40]) begin
          v_q <= v_q >> 8;
          k_q <= k_q + 8'sd8;
        end else if (|v_q[39:32]) begin
          v_q <= v_q >> 2;
          k_q <= k_q + 8'sd2;
        end else if (!(|v_q[31:22])) begin
          v_q <= v_q << 8;
          k_q <= k_q - 8'sd8;
        end else if (!(|v_q[31:30])) begin
          v_q <= v_q << 2;
          k_q <= k_q - 8'sd2;
        end
      end
      N_INTER: if (ready) r_q <= {1'b0, rs_base} - 33'(mul_p >> 22);
      N_MR: if (ready) v_q <= mul_p >> 30;
      N_MR2: if (ready) delta_q <= 33'h1_0000_0000 - 33'(mul_p >> 28);
      N_NEWTON: if (ready) r_q <= r1_d > 33'sh0_8000_0000 ? 33'h0_8000_0000 : r1_d;
      N_ROOT:
      if (ready) begin
        v_q   <= mul_p;
        fs_q  <= mul_p == 64'd0 ? -8'sd31 : 8'sd0;
        rnd_q <= 1'b0;
      end
      N_CUT: begin
        if (|v_q[63:39]) begin
          {v_q, rnd_q} <= {8'd0, v_q[63:7]};
          fs_q <= fs_q + 8'sd8;
        end else if (|v_q[38:31]) begin
          {v_q, rnd_q} <= {1'd0, v_q};
          fs_q <= fs_q + 8'sd1;
        end else if (!v_q[30] && v_q != 64'd0) begin
          v_q  <= v_q << 1;
          fs_q <= fs_q - 8'sd1;
        end
      end
      default: ;
    endcase
  end

  assign norm_done_o = st_q == N_DONE;
  assign f_o = v_q[31:0] + {31'd0, rnd_q};
  assign f_exp_o = fs_q - (k_q >>> 1);

  // ---- ROPE: a pair every four cycles, in two overlapping schedules of eleven cycles:
  // 0, 1 position times the two halves of the frequency; 5, 6 table for the phase and its complement; 6, 7 interpolation
  logic [1:0] slot_q;
  logic [10:1] tv_q;  // a pair is in cycle i of its schedule
  logic issue, have_q, spec_q;
  logic [511:0] fq_q;
  logic [7:0] asked_q, given_q, loaded_q;
  logic [2:0] fi_q;
  logic [31:0] p1_q, phase_q, base1_q, base2_q, a_q, b;
  logic [1:0] quad_q;
  logic [29:0] comp;
  logic [63:0] freq;

  assign freq = fq_q[64*fi_q+:64];
  assign issue = run_q && slot_q == 2'd0 && have_q && asked_q != pairs_i;
  assign ax_ready_o = run_q && !have_q && loaded_q < pairs_i;
  assign comp = -phase_q[29:0];  // 2^30 - p; p = 0 is the table's end
  assign sin_en = tv_q[5] || tv_q[6];
  assign sin_addr = tv_q[5] ? phase_q[29:20] : comp[29:20];
  assign b = spec_q ? 32'h4000_0000 : base2_q + 32'(mul_p >>> 20);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      run_q <= 1'b0;
      tv_q <= '0;
      have_q <= 1'b0;
    end else begin
      tv_q <= {tv_q[9:1], issue};
      if (trig_start_i) run_q <= 1'b1;
      else if (trig_done_o) run_q <= 1'b0;
      if (trig_start_i) have_q <= 1'b0;
      else if (ax_valid_i && ax_ready_o) have_q <= 1'b1;
      else if (tv_q[1] && (fi_q == 3'd7 || asked_q == pairs_i)) have_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    slot_q <= trig_start_i ? 2'd0 : slot_q + 2'd1;
    if (trig_start_i) begin
      asked_q  <= 8'd0;
      given_q  <= 8'd0;
      loaded_q <= 8'd0;
      fi_q <= 3'd0;
    end else begin
      if (issue) asked_q <= asked_q + 8'd1;
      if (tv_q[1]) fi_q <= fi_q + 3'd1;
      if (tv_q[10]) given_q <= given_q + 8'd1;
      if (ax_valid_i && ax_ready_o) loaded_q <= loaded_q + 8'd8;
    end
    if (ax_valid_i && ax_ready_o) fq_q <= ax_data_i;
    if (tv_q[3]) p1_q <= mul_p[63:32];
    if (tv_q[4]) phase_q <= p1_q + mul_p[31:0];
    if (tv_q[6]) base1_q <= sin_base;
    if (tv_q[7]) base2_q <= sin_base;
    if (tv_q[8]) begin
      quad_q <= phase_q[31:30];
      spec_q <= phase_q[29:0] == 30'd0;
    end
    if (tv_q[9]) a_q <= base1_q + 32'(mul_p >>> 20);
  end

  assign trig_we_o = tv_q[10];
  assign trig_idx_o = given_q[6:0];
  assign trig_done_o = run_q && given_q == pairs_i;
  always_comb begin
    unique case (quad_q)
      2'd0: trig_o = {a_q, b};
      2'd1: trig_o = {b, -a_q};
      2'd2: trig_o = {-a_q, -b};
      default: trig_o = {-b, a_q};
    endcase
  end

  // ---- operands of the multiplier
  always_comb begin
    mul_x = 32'd0;
    mul_y = 33'd0;
    if (run_q) begin
      if (issue) begin
        mul_x = position_i;
        mul_y = {1'b0, freq[31:0]};
      end else if (tv_q[1]) begin
        mul_x = position_i;
        mul_y = {1'b0, freq[63:32]};
      end else begin
        mul_x = {12'd0, tv_q[6] ? phase_q[19:0] : comp[19:0]};
        mul_y = {9'd0, sin_delta};
      end
    end else begin
      unique case (st_q)
        N_EPS: begin
          mul_x = n_i;
          mul_y = {1'b0, eps_mant_i};
        end
        N_INTER: begin
          mul_x = {10'd0, d_m[21:0]};
          mul_y = {9'd0, rs_delta};
        end
        N_MR, N_MR2: begin
          mul_x = r_q[31:0];
          mul_y = v_q[32:0];
        end
        N_NEWTON: begin
          mul_x = r_q[31:0];
          mul_y = delta_q;
        end
        N_ROOT: begin
          mul_x = root_n_i;
          mul_y = r_q;
        end
        default: ;
      endcase
    end
  end

endmodule
