/// Exit unit: keeps of a stream of logits, for each column, the eight largest, the sums of e^logit by powers of two and the choice; at the
/// end makes of them a ring entry and the signs of two rules. docs/numerics.md 9, host/dev/ref_exit.c and exit.c to the bit.
/// A logit a cycle; with sampling 10 / Unroll cycles a logit.
module foray_exit #(
    /// Columns that may be under way.
    parameter int unsigned Cols = 1,
    /// Rounds of the noise generator in hardware: 1, 2, 5 or 10.
    parameter int unsigned Unroll = 2
) (
    input  logic                  clk_i,
    input  logic                  rst_ni,
    /// Pulse: forgets everything. Logits wait while clear_busy_o.
    input  logic                  clear_i,
    output logic                  clear_busy_o,
    /// Stable from clear_i to done_o; position is that of column 0's choice.
    input  foray_pkg::exit_arg_t  arg_i,
    input  logic                  lg_valid_i,
    output logic                  lg_ready_o,
    input  foray_pkg::logit_t     lg_i,
    /// Pulse, after the last logit was taken: col_i's entry to res_o, which stands from done_o to the next finish_i or clear_i.
    input  logic                  finish_i,
    input  logic             [2:0] col_i,
    output logic                  done_o,
    output foray_pkg::exit_res_t  res_o,
    output logic                  busy_o,
    output foray_pkg::act_t       act_o
);

  // ---- the stream
  logic take, noise_ready, fifo_room;
  logic clr_busy;
  assign lg_ready_o = !clr_busy && (!arg_i.sample || (noise_ready && fifo_room));
  assign take = lg_valid_i && lg_ready_o;

  logic bins_empty, scan, scan_done;
  logic [2:0] fin_col_q;
  logic [63:0] z;
  logic signed [63:0] n;
  logic [8:0] top_bin;
  logic side_exp_en, side_log_en;
  logic [9:0] side_exp_addr, side_log_addr;
  logic [31:0] side_exp_base, side_log_base;
  logic [23:0] side_exp_delta, side_log_delta;
  foray_exit_bins #(
      .Cols(Cols)
  ) u_bins (
      .clk_i,
      .rst_ni,
      .clear_i,
      .clear_busy_o(clr_busy),
      .valid_i(take),
      .col_i(lg_i.col),
      .logit_i(lg_i.logit),
      .empty_o(bins_empty),
      .scan_i(scan),
      .scan_col_i(fin_col_q),
      .scan_done_o(scan_done),
      .z_o(z),
      .n_o(n),
      .top_o(top_bin),
      .side_en_i(side_exp_en),
      .side_addr_i(side_exp_addr),
      .side_base_o(side_exp_base),
      .side_delta_o(side_exp_delta)
  );
  assign clear_busy_o = clr_busy;

  // ---- keys: the scaled logit waits in a queue for its noise
  logic word_valid, noise_valid;
  logic [31:0] word;
  logic signed [31:0] noise;
  foray_philox #(
      .Unroll(Unroll)
  ) u_philox (
      .clk_i,
      .rst_ni,
      .seed_i(arg_i.seed),
      .valid_i(take && arg_i.sample),
      .ready_o(noise_ready),
      .id_i(lg_i.id),
      .position_i(arg_i.position + {29'd0, lg_i.col}),
      .valid_o(word_valid),
      .word_o(word)
  );
  foray_gumbel u_gumbel (
      .clk_i,
      .rst_ni,
      .valid_i(word_valid),
      .w_i(word),
      .valid_o(noise_valid),
      .g_o(noise),
      .side_en_i(side_log_en),
      .side_addr_i(side_log_addr),
      .side_base_o(side_log_base),
      .side_delta_o(side_log_delta)
  );

  logic fin_mul_en, mul_en;
  logic signed [31:0] fin_mul_x, mul_x;
  logic signed [32:0] fin_mul_y, mul_y;
  logic signed [63:0] mul_p;
  logic [3:1] sv_q;  // scaled logit under way
  logic [66:0] s1_q, s2_q, s3_q;  // {col, id, logit}
  assign mul_en = fin_mul_en || (take && arg_i.sample);
  assign mul_x = fin_mul_en ? fin_mul_x : lg_i.logit;
  assign mul_y = fin_mul_en ? fin_mul_y : {1'b0, arg_i.inv_temp};
  foray_mul u_mul (
      .clk_i,
      .en_i(mul_en),
      .x_i(mul_x),
      .y_i(mul_y),
      .p_o(mul_p)
  );

  localparam int unsigned Depth = 64;  // 30 + 22 cycles of noise
  logic [115:0] fifo_mem[Depth];
  logic [6:0] head_q, tail_q, taken_q;
  logic [115:0] item;
  logic signed [48:0] scaled, item_scaled;
  assign scaled = {mul_p[63], mul_p[63:16]} + {48'd0, mul_p[15]};
  assign fifo_room = taken_q - head_q < 7'(Depth);
  assign item = fifo_mem[head_q[5:0]];
  assign item_scaled = item[115:67];

  logic key_valid_q;
  logic [2:0] key_col_q;
  logic signed [49:0] key_q;
  logic [31:0] key_id_q, key_logit_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      sv_q <= '0;
      head_q <= 7'd0;
      tail_q <= 7'd0;
      taken_q <= 7'd0;
      key_valid_q <= 1'b0;
    end else begin
      sv_q <= {sv_q[2:1], take && arg_i.sample};
      if (take && arg_i.sample) taken_q <= taken_q + 7'd1;
      if (sv_q[3]) tail_q <= tail_q + 7'd1;
      if (noise_valid) head_q <= head_q + 7'd1;
      key_valid_q <= noise_valid || (take && !arg_i.sample);
    end
  end
  always_ff @(posedge clk_i) begin
    if (take || sv_q != '0) begin
      s1_q <= {lg_i.col, lg_i.id, lg_i.logit};
      s2_q <= s1_q;
      s3_q <= s2_q;
    end
    if (sv_q[3]) fifo_mem[tail_q[5:0]] <= {scaled, s3_q};
    if (noise_valid) begin
      key_q <= 50'(item_scaled) + 50'(noise);
      {key_col_q, key_id_q, key_logit_q} <= item[66:0];
    end else if (take) begin
      key_q <= 50'(lg_i.logit);
      {key_col_q, key_id_q, key_logit_q} <= {lg_i.col, lg_i.id, lg_i.logit};
    end
  end

  logic rank_empty;
  logic [7:0][31:0] top_id, top_logit;
  logic [31:0] best_id, best_logit;
  logic [20:0] rows;
  foray_exit_rank #(
      .Cols(Cols)
  ) u_rank (
      .clk_i,
      .rst_ni,
      .clear_i,
      .valid_i(take),
      .col_i(lg_i.col),
      .logit_i(lg_i.logit),
      .id_i(lg_i.id),
      .key_valid_i(key_valid_q),
      .key_col_i(key_col_q),
      .key_i(key_q),
      .key_id_i(key_id_q),
      .key_logit_i(key_logit_q),
      .sel_i(fin_col_q),
      .top_id_o(top_id),
      .top_logit_o(top_logit),
      .best_id_o(best_id),
      .best_logit_o(best_logit),
      .rows_o(rows),
      .empty_o(rank_empty)
  );

  // ---- the end of a column
  typedef enum logic [2:0] {
    E_IDLE,
    E_DRAIN,
    E_SCAN,
    E_START,
    E_RUN
  } end_e;
  end_e end_q;
  logic drained, fin_done, fin_busy, exit_ge0, stop_lt0;
  logic [287:0] words;
  assign drained = bins_empty && rank_empty && !key_valid_q && taken_q == head_q;
  assign scan = end_q == E_DRAIN && drained;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) end_q <= E_IDLE;
    else begin
      unique case (end_q)
        E_IDLE: if (finish_i) end_q <= E_DRAIN;
        E_DRAIN: if (drained) end_q <= E_SCAN;
        E_SCAN: if (scan_done) end_q <= E_START;
        E_START: end_q <= E_RUN;
        default: if (fin_done) end_q <= E_IDLE;
      endcase
    end
  end
  always_ff @(posedge clk_i) if (finish_i) fin_col_q <= col_i;

  foray_exit_finish u_finish (
      .clk_i,
      .rst_ni,
      .start_i(end_q == E_START),
      .z_i(z),
      .n_i(n),
      .top_i(top_bin),
      .logit_i(top_logit),
      .best_logit_i(best_logit),
      .rows_i(rows),
      .cum_i(arg_i.cum),
      .exit_rule_i(arg_i.exit_rule),
      .stop_rule_i(arg_i.stop_rule),
      .busy_o(fin_busy),
      .done_o(fin_done),
      .words_o(words),
      .exit_ge0_o(exit_ge0),
      .stop_lt0_o(stop_lt0),
      .mul_en_o(fin_mul_en),
      .mul_x_o(fin_mul_x),
      .mul_y_o(fin_mul_y),
      .mul_p_i(mul_p),
      .log2_en_o(side_log_en),
      .log2_addr_o(side_log_addr),
      .log2_base_i(side_log_base),
      .log2_delta_i(side_log_delta),
      .exp2_en_o(side_exp_en),
      .exp2_addr_o(side_exp_addr),
      .exp2_base_i(side_exp_base),
      .exp2_delta_i(side_exp_delta)
  );

  assign res_o = {
    {top_logit, top_id, 96'd0, 11'd0, rows, words, 64'd0, best_id}, exit_ge0, stop_lt0
  };
  assign done_o = end_q == E_RUN && fin_done;
  assign busy_o = clr_busy || end_q != E_IDLE || fin_busy || !drained;
  assign act_o = {busy_o, 2'b00};

endmodule
