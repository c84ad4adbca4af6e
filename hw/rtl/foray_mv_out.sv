// Rows of the matrix engine on their way out: y = R(acc, t) * M, then to the exit unit (HEAD) or, with one
// exponent for the vector, into the scratchpad (GEMV), with the bias if there is one.
//
// norm30 keeps the highest 30 bits of the largest |y|, which is known only after the last row. Since
// R(v, s) = (v >> s) + bit s-1 of v, and s only grows with the maximum, v >> (s' - 1) for the s' of the rows so
// far loses nothing. So units go to their place in the scratchpad at once, 32 bits an element, and one pass
// at the end (16 rows a cycle) shifts them by what the maximum has grown since, plus one. s' changes at most
// 63 times a column; the changes are kept, not the s' of each unit.
//
// The bias is an ADD afterwards: a second sweep of the same kind, its own maximum taken before the weights.
// So the ax stream of a biased GEMV is: bias, row mantissas, bias again.
module foray_mv_out #(
    /// Columns.
    parameter int unsigned Cols = 1,
    /// Rows in a sum read (foray_mv_col).
    parameter int unsigned ScaleRows = 4,
    /// Rows a cycle, a divisor of ScaleRows.
    parameter int unsigned OutRows = 2
) (
    /// Clock.
    input  logic                                     clk_i,
    /// Synchronous reset, active low.
    input  logic                                     rst_ni,
    /// Begins an operation (one cycle; what follows is stable until done_o).
    input  logic                                     start_i,
    /// HEAD, else GEMV.
    input  logic                                     head_i,
    /// GEMV: there is a bias.
    input  logic                                     bias_i,
    /// HEAD: ids come with the mantissas, else id = row.
    input  logic                                     ids_i,
    /// First column and number of columns.
    input  logic [3:0]                               c0_i,
    /// See c0_i.
    input  logic [3:0]                               ncols_i,
    /// Row blocks of 16.
    input  logic [16:0]                              blocks_i,
    /// HEAD: rows to send.
    input  logic [20:0]                              used_i,
    /// Shift of the sums, 4 + ceil(log2(groups)).
    input  logic [3:0]                               t_i,
    /// Exponent of y, by column: clamped exponent of the activations + E + t. Stable from the first block on.
    input  logic [Cols-1:0][17:0]                    exp_i,
    /// Exponent of the bias.
    input  logic [15:0]                              bias_exp_i,
    /// GEMV: unit of the destination, column 0.
    input  logic [19:0]                              dst_i,
    /// A bank of sums is complete (banks alternate, 0 first).
    input  logic                                     bank_done_i,
    /// A bank has been read.
    output logic                                     bank_free_o,
    /// Which sums: {bank, rows / ScaleRows}.
    output logic [4:0]                               acc_addr_o,
    /// The sums, same cycle.
    input  logic [Cols-1:0][ScaleRows-1:0][61:0]     acc_i,
    /// Row mantissas, bias, ids.
    input  logic                                     ax_valid_i,
    /// See ax_valid_i.
    output logic                                     ax_ready_o,
    /// See ax_valid_i.
    input  logic [511:0]                             ax_data_i,
    /// Scratchpad, as in hw/rtl/README.md.
    output logic                                     sp_re_o,
    /// Read address.
    output logic [19:0]                              sp_raddr_o,
    /// Read data.
    input  logic [511:0]                             sp_rdata_i,
    /// Write.
    output logic                                     sp_we_o,
    /// Write address.
    output logic [19:0]                              sp_waddr_o,
    /// Write data.
    output logic [511:0]                             sp_wdata_o,
    /// Lanes written.
    output logic [15:0]                              sp_wstrb_o,
    /// Logit stream.
    output logic                                     lg_valid_o,
    /// See lg_valid_o.
    input  logic                                     lg_ready_i,
    /// See lg_valid_o.
    output foray_pkg::logit_t                        lg_o,
    /// The operation is complete.
    output logic                                     done_o
);

  localparam int unsigned Steps = 16 / OutRows;
  localparam int unsigned StepW = $clog2(Steps);
  localparam int unsigned LaneW = ScaleRows > 1 ? $clog2(ScaleRows) : 1;
  localparam int unsigned ColW = Cols > 1 ? $clog2(Cols) : 1;

  typedef enum logic [2:0] {
    StIdle,
    StBiasMax,  // reads the bias once, for its largest magnitude
    StStream,  // row blocks as they are finished
    StFlush,  // the last units or logits are on their way
    StFix,  // shifts all units to the final exponent
    StAdd,  // adds the bias
    StHeader,
    StDone
  } state_e;
  state_e state_q;
  logic added_q;  // the bias is in, or being added
  logic [5:0] flush_q;

  // ---- position of the sweep: row block, column, step of OutRows rows (StStream, StAdd); StFix: column, block
  logic [16:0] blk_q;
  logic [ColW-1:0] col_q;
  logic [StepW-1:0] step_q;
  logic last_step, last_col, last_blk;
  assign last_step = step_q == StepW'(Steps - 1);
  assign last_col = 4'(col_q) + 4'd1 == ncols_i;
  assign last_blk = blk_q + 17'd1 == blocks_i;
  logic [19:0] col_units, unit_q;
  assign col_units = 20'd1 + 20'(blocks_i);
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
  logic [Cols-1:0][19:0] col_base_q;

  // ---- row mantissas, ids, bias
  logic mant_in, id_in, mant_full_n, id_full_n, mant_v, id_v, mant_pop, id_pop;
  logic [511:0] mant_beat, id_beat;
  logic [4:0] unused_mant_count;
  logic [5:0] unused_id_count;
  logic [16:0] take_q;  // row blocks whose mantissas have been taken
  logic [5:0] chunk_q;  // HEAD with ids: beat of a chunk of 512 rows
  logic [16:0] chunk_left;
  logic [5:0] chunk_mant, chunk_all;
  assign chunk_left = blocks_i - take_q;
  // beats of this chunk: mantissas of 32 rows, ids of 16
  assign chunk_mant = chunk_left >= 17'd32 ? 6'd16 : 6'((chunk_left + 17'd1) >> 1);
  assign chunk_all = chunk_mant + (chunk_left >= 17'd32 ? 6'd32 : chunk_left[5:0]);
  logic want_mant, want_id, take_more;
  assign take_more = state_q == StStream && take_q < blocks_i;
  assign want_mant = take_more && (!ids_i || chunk_q < chunk_mant);
  assign want_id = take_more && ids_i && chunk_q >= chunk_mant;
  assign mant_in = ax_valid_i && want_mant;
  assign id_in = ax_valid_i && want_id;

  foray_queue #(
      .Width(512),
      .Depth(16)
  ) u_mant (
      .clk_i,
      .rst_ni,
      .clear_i(start_i),
      .in_valid_i(mant_in),
      .in_ready_o(mant_full_n),
      .in_data_i(ax_data_i),
      .out_valid_o(mant_v),
      .out_ready_i(mant_pop),
      .out_data_o(mant_beat),
      .count_o(unused_mant_count)
  );
  foray_queue #(
      .Width(512),
      .Depth(32)
  ) u_ids (
      .clk_i,
      .rst_ni,
      .clear_i(start_i),
      .in_valid_i(id_in),
      .in_ready_o(id_full_n),
      .in_data_i(ax_data_i),
      .out_valid_o(id_v),
      .out_ready_i(id_pop),
      .out_data_o(id_beat),
      .count_o(unused_id_count)
  );
  logic bias_take;  // StAdd takes a beat
  assign ax_ready_o = state_q == StBiasMax || bias_take || (want_mant && mant_full_n) || (want_id && id_full_n);

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      take_q <= '0;
      chunk_q <= '0;
    end else if (!ids_i) begin
      if (mant_in && mant_full_n) take_q <= chunk_left == 17'd1 ? blocks_i : take_q + 17'd2;
    end else if ((mant_in && mant_full_n) || (id_in && id_full_n)) begin
      chunk_q <= chunk_q + 6'd1;
      if (chunk_q + 6'd1 == chunk_all) begin
        chunk_q <= '0;
        take_q <= chunk_left >= 17'd32 ? take_q + 17'd32 : blocks_i;
      end
    end
  end

  // ---- banks of sums
  logic [1:0] full_q;
  logic bank_q;
  logic fill_q;  // bank that completes next
  logic go;  // StStream: one step this cycle
  logic lg_room;
  assign go = state_q == StStream && full_q[bank_q] && mant_v && (!ids_i || id_v) && lg_room;
  logic end_block;
  assign end_block = go && last_step && last_col;
  assign bank_free_o = end_block;
  assign mant_pop = end_block && (blk_q[0] || last_blk);
  assign id_pop = end_block && ids_i;
  always_ff @(posedge clk_i) begin
    if (!rst_ni || start_i) begin
      full_q <= '0;
      bank_q <= 1'b0;
      fill_q <= 1'b0;
    end else begin
      if (bank_done_i) begin
        full_q[fill_q] <= 1'b1;
        fill_q <= !fill_q;
      end
      if (end_block) begin
        full_q[bank_q] <= 1'b0;
        bank_q <= !bank_q;
      end
    end
  end

  // ---- y = R(acc, t) * M
  logic [3:0] row0;  // first row of the step
  assign row0 = 4'(step_q) * 4'(OutRows);
  assign acc_addr_o = {bank_q, 4'(32'(row0) / ScaleRows)};
  logic [ScaleRows-1:0][61:0] acc_col;
  assign acc_col = acc_i[col_q];
  logic [255:0] mant16;
  assign mant16 = blk_q[0] ? mant_beat[511:256] : mant_beat[255:0];

  // control that goes along: [0] operands, [1] rounded, [2] product, [3] y
  logic [3:0] pv_q, plast_q;
  logic [ColW-1:0] pcol_q[4];
  logic [StepW-1:0] pstep_q[4];
  logic [16:0] pblk_q[4];
  logic add_go;  // StAdd: one step
  always_ff @(posedge clk_i) begin
    if (!rst_ni) pv_q <= '0;
    else pv_q <= {pv_q[2:0], go || add_go};
    plast_q <= {plast_q[2:0], last_step};
    pcol_q[0] <= col_q;
    pstep_q[0] <= step_q;
    pblk_q[0] <= blk_q;
    for (int i = 1; i < 4; i++) begin
      pcol_q[i] <= pcol_q[i-1];
      pstep_q[i] <= pstep_q[i-1];
      pblk_q[i] <= pblk_q[i-1];
    end
  end
  logic signed [63:0] y_q[OutRows];
  logic signed [63:0] sum_y[OutRows];  // of StAdd, in step with the product
  for (genvar l = 0; l < OutRows; l++) begin : gen_mul
    logic signed [61:0] a_q;
    logic signed [47:0] r_q;
    logic [15:0] m_q, m_q2;
    logic signed [41:0] low_q;
    logic signed [40:0] high_q;
    logic signed [62:0] shifted;
    assign shifted = signed'({a_q, 1'b0}) >>> t_i;  // one bit below the unit
    always_ff @(posedge clk_i) begin
      a_q <= acc_col[LaneW'(32'(row0)%ScaleRows+l)];
      m_q <= mant16[16*(32'(row0)+l)+:16];
      r_q <= 48'((shifted >>> 1) + 63'(shifted[0]));
      m_q2 <= m_q;
      // two products of 25 x 17 bits, a DSP slice each
      low_q <= signed'({1'b0, r_q[23:0]}) * signed'({1'b0, m_q2});
      high_q <= signed'(r_q[47:24]) * signed'({1'b0, m_q2});
      y_q[l] <= added_q ? sum_y[l] : 64'(low_q) + (64'(high_q) <<< 24);
    end
  end

  // ---- GEMV: a unit at a time. Magnitudes are gathered while the rows wait in a small memory.
  logic add_start;  // the second sweep begins
  logic [Cols-1:0][63:0] any_q;  // OR of all magnitudes so far
  logic [63:0] step_any;
  always_comb begin
    step_any = '0;
    for (int l = 0; l < OutRows; l++) step_any = step_any | 64'(y_q[l] < 0 ? -y_q[l] : y_q[l]);
  end
  logic half_q;  // which half of the memory is being filled
  logic unit_done_q;
  logic [ColW-1:0] ucol_q;
  logic [16:0] ublk_q;
  logic [63:0] uany_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni || start_i) half_q <= 1'b0;
    else if (pv_q[3] && plast_q[3]) half_q <= !half_q;
    if (start_i || add_start) any_q <= '0;
    else if (pv_q[3]) any_q[pcol_q[3]] <= any_q[pcol_q[3]] | step_any;
    unit_done_q <= rst_ni && pv_q[3] && plast_q[3] && !head_i;
    ucol_q <= pcol_q[3];
    ublk_q <= pblk_q[3];
    uany_q <= any_q[pcol_q[3]] | step_any;
  end

  // ---- what the exponent was, unit by unit: {first block, bits}, for each column in order
  logic [22:0] change_mem[64<<ColW];
  logic [Cols-1:0][6:0] changes_q;
  logic [Cols-1:0][5:0] bits_q;
  logic [5:0] ubits;
  logic change;
  assign ubits = 6'(foray_math_pkg::bitlen64(uany_q));
  assign change = unit_done_q && (ublk_q == '0 || ubits != bits_q[ucol_q]);
  always_ff @(posedge clk_i) begin
    if (!rst_ni || start_i || add_start) begin
      changes_q <= '0;
    end else if (change) begin
      changes_q[ucol_q] <= changes_q[ucol_q] + 7'd1;
      bits_q[ucol_q] <= ubits;
    end
    if (change) change_mem[{ucol_q, changes_q[ucol_q][5:0]}] <= {ublk_q, ubits};
  end

  // ---- shift phase: OutRows rows a cycle, gathered to a unit
  logic sv_q, sv_q2, swe_q;
  logic [StepW-1:0] sstep_q;
  logic slast_q, shalf_q;
  logic [5:0] sbits_q;
  logic [19:0] saddr_q, saddr_q2, saddr_q3;
  logic slast_q2;
  logic [511:0] gather_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni || start_i) begin
      sv_q <= 1'b0;
    end else if (unit_done_q) begin
      sv_q <= 1'b1;
    end else if (slast_q) begin
      sv_q <= 1'b0;
    end
    if (unit_done_q) begin
      sstep_q <= '0;
      slast_q <= 1'b0;
      shalf_q <= !half_q;
      sbits_q <= ubits;
      saddr_q <= col_base_q[ucol_q] + 20'd1 + 20'(ublk_q);
    end else begin
      sstep_q <= sstep_q + StepW'(1);
      slast_q <= sv_q && 32'(sstep_q) + 2 == Steps;
    end
    sv_q2 <= sv_q && rst_ni;
    slast_q2 <= slast_q;
    saddr_q2 <= saddr_q;
    swe_q <= sv_q2 && slast_q2 && rst_ni;
    saddr_q3 <= saddr_q2;
  end
  for (genvar l = 0; l < OutRows; l++) begin : gen_shift
    logic signed [63:0] mem[2*Steps];
    logic signed [94:0] wide;
    logic unused_wide;
    assign unused_wide = &{1'b0, wide[94:32]};
    logic signed [31:0] w_q;
    assign wide = signed'({mem[{shalf_q, sstep_q}], 31'd0}) >>> sbits_q;
    always_ff @(posedge clk_i) begin
      if (pv_q[3]) mem[{half_q, pstep_q[3]}] <= y_q[l];
      w_q <= wide[31:0];
      if (sv_q2) gather_q[32*(16-OutRows+l)+:32] <= w_q;
    end
  end
  if (OutRows < 16) begin : gen_gather
    always_ff @(posedge clk_i) begin
      if (sv_q2) gather_q[511-32*OutRows:0] <= gather_q[511:32*OutRows];
    end
  end

  // ---- StFix: one unit a cycle
  logic [6:0] ptr_q;
  logic [22:0] next_change;
  logic [5:0] cur_q, cur_bits;
  logic take_change;
  assign next_change = change_mem[{col_q, ptr_q[5:0]}];
  assign take_change = ptr_q < changes_q[col_q] && next_change[22:6] == blk_q;
  assign cur_bits = take_change ? next_change[5:0] : cur_q;
  logic fix_q, fix_q2;
  logic [5:0] fix_shift_q;
  logic [19:0] fix_addr_q, fix_addr_q2;
  logic [15:0][31:0] fix_data_q;
  always_ff @(posedge clk_i) begin
    fix_q <= state_q == StFix && rst_ni;
    fix_addr_q <= unit_q;
    fix_shift_q <= bits_q[col_q] - cur_bits + 6'd1;
    fix_q2 <= fix_q && rst_ni;
    fix_addr_q2 <= fix_addr_q;
    for (int i = 0; i < 16; i++) fix_data_q[i] <= foray_math_pkg::round32(sp_rdata_i[32*i+:32], fix_shift_q);
  end

  // ---- exponents
  logic signed [15:0] fin_exp[Cols];
  logic signed [17:0] base_exp_q[Cols];
  logic signed [15:0] ya_exp_q[Cols];  // of the product, when the bias is added
  logic [511:0] bias_q;
  logic [31:0] bias_any_q;
  logic [5:0] bias_bits;
  logic signed [15:0] bias_e;
  assign bias_bits = 6'(foray_math_pkg::bitlen64(64'(bias_any_q)));
  assign bias_e = bias_bits == '0 ? 16'(foray_abi_pkg::EXP_ZERO) :
      foray_math_pkg::clamp_exp(32'(signed'(bias_exp_i)) + 32'(bias_bits) - foray_abi_pkg::Y32_BITS);
  for (genvar c = 0; c < Cols; c++) begin : gen_exp
    assign fin_exp[c] = bits_q[c] == '0 ? 16'(foray_abi_pkg::EXP_ZERO) :
        foray_math_pkg::clamp_exp(32'(base_exp_q[c]) + 32'(bits_q[c]) - foray_abi_pkg::Y32_BITS);
    always_ff @(posedge clk_i) begin
      if (state_q == StStream) base_exp_q[c] <= exp_i[c];
      if (add_start) begin
        ya_exp_q[c] <= fin_exp[c];
        base_exp_q[c] <= fin_exp[c] > bias_e ? 18'(fin_exp[c]) : 18'(bias_e);
      end
    end
  end

  // ---- bias: its bits first ...
  logic [31:0] bias_any;
  always_comb begin
    bias_any = '0;
    for (int i = 0; i < 16; i++)
      bias_any = bias_any | (ax_data_i[32*i+31] ? -ax_data_i[32*i+:32] : ax_data_i[32*i+:32]);
  end
  always_ff @(posedge clk_i) begin
    if (start_i) bias_any_q <= '0;
    else if (state_q == StBiasMax && ax_valid_i) bias_any_q <= bias_any_q | bias_any;
  end
  // ... and at the end R(a, e - ea) + R(R(bias), e - eb), four registers as the product has
  typedef enum logic {
    AddRead,
    AddRun
  } add_e;
  add_e add_q;
  logic have_bias;
  logic fix_idle;  // what StFix has shifted is in the scratchpad
  assign fix_idle = !fix_q && !fix_q2;
  assign have_bias = fix_idle && (col_q != '0 || ax_valid_i);
  assign bias_take = state_q == StAdd && add_q == AddRead && col_q == '0 && fix_idle;
  assign add_go = state_q == StAdd && add_q == AddRun;
  always_ff @(posedge clk_i) begin
    if (state_q != StAdd) add_q <= AddRead;
    else if (add_q == AddRead && have_bias) add_q <= AddRun;
    else if (add_q == AddRun && last_step) add_q <= AddRead;
    if (bias_take && ax_valid_i) bias_q <= ax_data_i;
  end
  logic [5:0] ya_shift, bias_shift;
  logic [16:0] ya_gap, bias_gap;
  assign ya_gap = 17'(base_exp_q[col_q]) - 17'(ya_exp_q[col_q]);
  assign bias_gap = 17'(base_exp_q[col_q]) - 17'(bias_e);
  assign ya_shift = |ya_gap[16:6] ? 6'd63 : ya_gap[5:0];
  assign bias_shift = |bias_gap[16:6] ? 6'd63 : bias_gap[5:0];
  for (genvar l = 0; l < OutRows; l++) begin : gen_add
    logic signed [31:0] a_q, a_q2, b_q, b_q2;
    logic [5:0] as_q, bs_q, bs_q2;
    logic signed [32:0] v_q;
    logic signed [61:0] left;
    logic unused_left;
    assign unused_left = &{1'b0, left[61:32]};
    assign left = 62'(b_q) <<< (6'd30 - bias_bits);
    always_ff @(posedge clk_i) begin
      a_q <= sp_rdata_i[32*(32'(row0)+l)+:32];
      b_q <= bias_q[32*(32'(row0)+l)+:32];
      as_q <= ya_shift;
      bs_q <= bias_shift;
      bs_q2 <= bs_q;
      // normalised to 30 bits: left, or right by one or two with rounding
      b_q2 <= bias_bits > 6'd30 ? foray_math_pkg::round32(b_q, bias_bits - 6'd30) : left[31:0];
      a_q2 <= foray_math_pkg::round32(a_q, as_q);
      v_q <= 33'(a_q2) + 33'(foray_math_pkg::round32(b_q2, bs_q2));
    end
    assign sum_y[l] = 64'(v_q);
  end

  // ---- HEAD: logit = saturate(R(y, -(exponent + 16)))
  logic [Cols-1:0][6:0] lsh_q;  // right shift + 32, 0..95
  for (genvar c = 0; c < Cols; c++) begin : gen_lsh
    logic signed [18:0] s;
    assign s = -(19'(signed'(exp_i[c])) + 19'sd16) + 19'sd32;
    always_ff @(posedge clk_i) lsh_q[c] <= s < 0 ? 7'd0 : s > 19'sd95 ? 7'd95 : s[6:0];
  end
  logic l0_q, l1_q;
  logic [6:0] l0_sh_q;
  logic [ColW-1:0] l0_col_q, l1_col_q;
  logic [20:0] l0_row_q, l1_row_q;
  logic [OutRows-1:0][31:0] l1_logit_q;
  always_ff @(posedge clk_i) begin
    l0_q <= pv_q[3] && head_i && rst_ni;
    l0_sh_q <= lsh_q[pcol_q[3]];
    l0_col_q <= pcol_q[3];
    l0_row_q <= {pblk_q[3], 4'(pstep_q[3]) * 4'(OutRows)};
    l1_q <= l0_q && rst_ni;
    l1_col_q <= l0_col_q;
    l1_row_q <= l0_row_q;
  end
  for (genvar l = 0; l < OutRows; l++) begin : gen_logit
    logic signed [63:0] r_q;
    logic signed [64:0] down;
    logic [6:0] rs;
    logic signed [33:0] near;
    logic signed [65:0] up;
    assign rs = lsh_q[pcol_q[3]];
    assign down = signed'({y_q[l], 1'b0}) >>> (rs[6:5] == 2'd0 ? 6'd0 : rs >= 7'd95 ? 6'd63 : 6'(rs - 7'd32));
    // beyond +-2^32 is saturated before it is shifted left by 32 at most
    assign near = r_q > 64'sd4294967296 ? 34'sd4294967296 : r_q < -64'sd4294967296 ? -34'sd4294967296 : r_q[33:0];
    assign up = 66'(near) <<< (l0_sh_q[6:5] != 2'd0 ? 6'd0 : 6'd32 - l0_sh_q[5:0]);
    always_ff @(posedge clk_i) begin
      r_q <= rs >= 7'd95 ? '0 : 64'((down >>> 1) + 65'(down[0]));
      l1_logit_q[l] <= up > 66'sd2147483647 ? 32'h7fffffff : up < -66'sd2147483647 ? 32'h80000001 : up[31:0];
    end
  end

  // Entries of OutRows logits, sent one by one.
  localparam int unsigned EntryW = 32 * OutRows + 21 + ColW;
  logic lf_v, lf_pop, unused_full;
  logic [4:0] lf_count;
  logic [EntryW-1:0] lf_data;
  logic [OutRows-1:0][31:0] lf_logit;
  logic [20:0] lf_row, lane_row;
  logic [ColW-1:0] lf_col;
  logic [3:0] lane_q;
  foray_queue #(
      .Width(EntryW),
      .Depth(16)
  ) u_logits (
      .clk_i,
      .rst_ni,
      .clear_i(start_i),
      .in_valid_i(l1_q),
      .in_ready_o(unused_full),
      .in_data_i({l1_col_q, l1_row_q, l1_logit_q}),
      .out_valid_o(lf_v),
      .out_ready_i(lf_pop),
      .out_data_o(lf_data),
      .count_o(lf_count)
  );
  assign lg_room = !head_i || lf_count < 5'd8;
  assign {lf_col, lf_row, lf_logit} = lf_data;
  assign lane_row = lf_row + 21'(lane_q);

  // Ids follow the logits through a second, small memory: those of the blocks still in the FIFO.
  logic [511:0] id_mem[8];
  logic [511:0] id_block;
  always_ff @(posedge clk_i) begin
    if (go && ids_i) id_mem[blk_q[2:0]] <= id_beat;
  end
  assign id_block = id_mem[lf_row[6:4]];

  logic skip;
  assign skip = lane_row >= used_i;
  assign lg_valid_o = lf_v && !skip;
  assign lf_pop = lf_v && (skip || lg_ready_i) && lane_q == 4'(OutRows - 1);
  always_comb begin
    lg_o = '0;
    if (lf_v) begin
      lg_o.col = 3'(c0_i + 4'(lf_col));
      lg_o.row = lane_row[19:0];
      lg_o.id = ids_i ? id_block[32*lane_row[3:0]+:32] : 32'(lane_row);
      lg_o.logit = lf_logit[lane_q];
      lg_o.last = lane_row + 21'd1 == used_i;
    end
  end
  always_ff @(posedge clk_i) begin
    if (!rst_ni || start_i) lane_q <= '0;
    else if (lf_v && (skip || lg_ready_i)) lane_q <= lf_pop ? 4'd0 : lane_q + 4'd1;
  end

  // ---- states
  logic fix_end;
  assign fix_end = state_q == StFix && last_blk && last_col;
  assign add_start = fix_end && bias_i && !added_q;
  logic flushed;
  // from the last step to the last write it takes Steps + 7 cycles, to the last logit seven
  assign flushed = head_i ? flush_q > 6'd8 && !lf_v : flush_q == 6'(Steps + 9);
  always_ff @(posedge clk_i) begin
    flush_q <= state_q != StFlush ? 6'd0 : &flush_q ? flush_q : flush_q + 6'd1;
    if (start_i) added_q <= 1'b0;
    else if (add_start) added_q <= 1'b1;
    if (!rst_ni) begin
      state_q <= StIdle;
    end else begin
      unique case (state_q)
        StIdle: if (start_i) state_q <= bias_i ? StBiasMax : StStream;
        StBiasMax: if (ax_valid_i && last_blk) state_q <= StStream;
        StStream: if (end_block && last_blk) state_q <= StFlush;
        StFlush: if (flushed) state_q <= head_i ? StDone : StFix;
        StFix: if (fix_end) state_q <= add_start ? StAdd : StHeader;
        StAdd: if (add_go && last_step && last_col && last_blk) state_q <= StFlush;
        StHeader: if (fix_idle && last_col) state_q <= StDone;
        default: state_q <= StIdle;
      endcase
    end
  end
  assign done_o = state_q == StDone;

  // sweep counters
  always_ff @(posedge clk_i) begin
    if (start_i) begin
      blk_q <= '0;
      col_q <= '0;
      step_q <= '0;
    end else begin
      unique case (state_q)
        StBiasMax: if (ax_valid_i) blk_q <= last_blk ? '0 : blk_q + 17'd1;
        StStream, StAdd:
        if (go || add_go) begin
          step_q <= step_q + StepW'(1);
          if (last_step) begin
            col_q <= last_col ? '0 : col_q + ColW'(1);
            if (last_col) blk_q <= last_blk ? '0 : blk_q + 17'd1;
          end
        end
        StFix: begin
          blk_q <= last_blk ? '0 : blk_q + 17'd1;
          if (last_blk) col_q <= last_col ? '0 : col_q + ColW'(1);
        end
        StHeader: if (fix_idle) col_q <= last_col ? '0 : col_q + ColW'(1);
        default: ;
      endcase
    end
  end
  logic [ColW-1:0] next_col;
  assign next_col = last_col ? '0 : col_q + ColW'(1);
  always_ff @(posedge clk_i) begin
    if (start_i) col_base_q[0] <= dst_i + first_units[19:0];
    for (int unsigned c = 1; c < Cols; c++) col_base_q[c] <= col_base_q[c-1] + col_units;
    // StFix walks a column's units
    if (state_q != StFix) begin
      unit_q <= col_base_q[0] + 20'd1;
      ptr_q <= '0;
    end else begin
      unit_q <= last_blk ? col_base_q[next_col] + 20'd1 : unit_q + 20'd1;
      ptr_q <= last_blk ? 7'd0 : ptr_q + 7'(take_change);
      cur_q <= cur_bits;
    end
  end

  logic add_read;
  assign add_read = state_q == StAdd && add_q == AddRead && have_bias;
  assign sp_re_o = state_q == StFix || add_read;
  assign sp_raddr_o = state_q == StFix ? unit_q : add_read ? col_base_q[col_q] + 20'd1 + 20'(blk_q) : '0;
  always_comb begin
    sp_we_o = 1'b0;
    sp_waddr_o = '0;
    sp_wdata_o = '0;
    sp_wstrb_o = '0;
    if (swe_q) begin
      sp_we_o = 1'b1;
      sp_waddr_o = saddr_q3;
      sp_wdata_o = gather_q;
      sp_wstrb_o = 16'hffff;
    end else if (fix_q2) begin
      sp_we_o = 1'b1;
      sp_waddr_o = fix_addr_q2;
      sp_wdata_o = fix_data_q;
      sp_wstrb_o = 16'hffff;
    end else if (state_q == StHeader && fix_idle) begin
      sp_we_o = 1'b1;
      sp_waddr_o = col_base_q[col_q];
      sp_wdata_o[31:0] = 32'(fin_exp[col_q]);
      sp_wstrb_o = 16'h0001;
    end
  end

endmodule
