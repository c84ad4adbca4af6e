// Attention engine: ATTN of docs/numerics.md 8 over int8 records, each read once.
//
// Lanes work on pairs (query head, column) that share a kv head; what does not fit the lanes is done in batches over the
// same buffered block, and only when the accumulators are too small for all batches are records read again (a
// further pass). The multipliers of the lanes alternate between scores of one item (block x batch) and the weighted
// sum of the item before, so that the softmax between the two is hidden:
//
//     multipliers   K0 K1 V0 K2 V1 K3 V2 ...          a phase: 32 cycles for each group of 32 elements of the head
//     softmax          S0 S1    S2    S3
//     accumulators           U0    U1    U2
//
// Stages are counted from the issue of an address: 1 codes and scales, 4 multipliers, 7 dot, 11 score added (K);
// 2 weight, 5 products, 6 sums complete (V). Parts: foray_attn_q (queries to A16), foray_attn_load (records into the
// buffers), foray_attn_lane, foray_attn_out (division, result).
//
// Limits, which foray_check refuses beyond: heads * head_dim / 32 * columns <= QGroups, heads / kv_heads * columns
// <= 256, max_pos <= 65536.
module foray_attn #(
    /// Pairs at a time: 1, 2, 4 or 8.
    parameter int unsigned Lanes = 8,
    /// Groups of 32 query elements that fit, all columns together; a power of two.
    parameter int unsigned QGroups = 512
) (
    /// Clock.
    input  logic             clk_i,
    /// Synchronous reset, active low.
    input  logic             rst_ni,
    /// Command; hw/rtl/README.md.
    input  logic             cmd_valid_i,
    /// See cmd_valid_i.
    input  foray_pkg::cmd_t  cmd_i,
    /// One cycle: the operation is complete.
    output logic             done_o,
    /// Busy.
    output logic             busy_o,
    /// What this cycle was.
    output foray_pkg::act_t  act_o,
    /// Request for records.
    output logic             kr_valid_o,
    /// See kr_valid_o.
    input  logic             kr_ready_i,
    /// Byte address from the start of the heap.
    output logic [35:0]      kr_addr_o,
    /// Bytes.
    output logic [31:0]      kr_bytes_o,
    /// Records.
    input  logic             kv_valid_i,
    /// See kv_valid_i.
    output logic             kv_ready_o,
    /// See kv_valid_i.
    input  logic [511:0]     kv_data_i,
    /// Not needed: the lengths are known.
    input  logic             kv_last_i,
    /// Scratchpad read.
    output logic             sp_re_o,
    /// Its address.
    output logic [19:0]      sp_raddr_o,
    /// Its data, a cycle later.
    input  logic [511:0]     sp_rdata_i,
    /// Scratchpad write.
    output logic             sp_we_o,
    /// Its address.
    output logic [19:0]      sp_waddr_o,
    /// Its data.
    output logic [511:0]     sp_wdata_o,
    /// Its lanes.
    output logic [15:0]      sp_wstrb_o
);

  localparam int unsigned BufW = 9;  // groups of K (and of V) that are buffered
  localparam int unsigned AccW = 9;  // accumulators of a lane and parity
  localparam int unsigned QW = $clog2(QGroups);
  localparam int unsigned LaneW = Lanes > 1 ? $clog2(Lanes) : 1;

  // ---- the command
  logic [31:0] q_unit, dst_unit, offset, scale;
  logic [15:0] head_dim, heads, kv_heads;
  logic signed [15:0] scale_exp;
  logic [3:0] groups, ncols;
  logic [1:0] meta;
  logic [5:0] pieces;
  logic [16:0] npos;
  assign q_unit = cmd_i.desc[32*foray_abi_pkg::ATTN_Q_WORD+:32];
  assign dst_unit = cmd_i.desc[32*foray_abi_pkg::ATTN_DST_WORD+:32];
  assign head_dim = cmd_i.desc[32*foray_abi_pkg::ATTN_HEAD_DIM_WORD+foray_abi_pkg::ATTN_HEAD_DIM_LSB+:16];
  assign heads = cmd_i.desc[32*foray_abi_pkg::ATTN_HEADS_WORD+foray_abi_pkg::ATTN_HEADS_LSB+:16];
  assign offset = cmd_i.desc[32*foray_abi_pkg::ATTN_OFFSET_WORD+:32];
  assign kv_heads = cmd_i.desc[32*foray_abi_pkg::ATTN_KV_HEADS_WORD+foray_abi_pkg::ATTN_KV_HEADS_LSB+:16];
  assign scale_exp = cmd_i.desc[32*foray_abi_pkg::ATTN_SCALE_EXP_WORD+foray_abi_pkg::ATTN_SCALE_EXP_LSB+:16];
  assign scale = cmd_i.desc[32*foray_abi_pkg::ATTN_SCALE_WORD+:32];
  assign groups = head_dim[8:5];
  assign ncols = cmd_i.c1 - cmd_i.c0;
  assign meta = groups > 4'd4 ? 2'd2 : 2'd1;
  assign pieces = 6'(meta) + {groups, 2'b00};
  assign npos = 17'(cmd_i.pos0) + 17'(cmd_i.c1);
  // banks of the buffers, and batches whose accumulators fit: 16 / groups, at most 8
  logic [3:0] fits;
  always_comb begin
    unique case (groups)
      4'd1, 4'd2: fits = 4'd8;
      4'd3: fits = 4'd5;
      4'd4: fits = 4'd4;
      4'd5: fits = 4'd3;
      default: fits = 4'd2;
    endcase
  end

  // ---- setting up: shapes, pairs
  typedef enum logic [2:0] {
    StIdle,
    StShape,
    StShape2,
    StPairs,
    StRepeat,
    StWaitQ,
    StRun,
    StFix
  } state_e;
  state_e state_q;
  logic q_done, q_done_q, fix_start, fix_done, pairs_end;
  logic [15:0] col_groups_q, per_kv_q, kv_sum_q;
  logic [35:0] stride_q;
  logic [22:0] total_q;
  logic signed [16:0] col_groups_p;
  logic signed [23:0] stride_p, total_p;
  logic signed [24:0] q_first, dst_first;
  logic [19:0] q_units, dst_units;
  foray_mul_lut #(
      .AW(13),
      .BW(4)
  ) u_groups (
      .a_i({1'b0, heads[11:0]}),
      .b_i(groups),
      .p_o(col_groups_p)
  );
  foray_mul_lut #(
      .AW(18),
      .BW(6)
  ) u_stride (
      .a_i({1'b0, cmd_i.max_pos[16:0]}),
      .b_i(pieces),
      .p_o(stride_p)
  );
  foray_mul_lut #(
      .AW(18),
      .BW(6)
  ) u_total (
      .a_i({1'b0, npos}),
      .b_i(pieces),
      .p_o(total_p)
  );
  assign q_units = 20'd1 + 20'({col_groups_q, 1'b0});
  assign dst_units = 20'd1 + 20'(col_groups_q) + 20'((20'(col_groups_q) + 20'd63) >> 6);
  foray_mul_lut #(
      .AW(21),
      .BW(4)
  ) u_qfirst (
      .a_i({1'b0, q_units}),
      .b_i(cmd_i.c0),
      .p_o(q_first)
  );
  foray_mul_lut #(
      .AW(21),
      .BW(4)
  ) u_dfirst (
      .a_i({1'b0, dst_units}),
      .b_i(cmd_i.c0),
      .p_o(dst_first)
  );
  logic unused_cmd;
  assign unused_cmd = &{1'b0, cmd_i.pos0[31:17], q_unit[31:20], dst_unit[31:20], head_dim, heads, scale[31:25], cmd_i.token, cmd_i.score,
      cmd_i.max_pos[31:17], cmd_i.desc[511:224], cmd_i.desc[31:0], kv_last_i, col_groups_p[16], stride_p[23],
      total_p[23], q_first[24:20], dst_first[24:20]};

  // pairs: {column, group of the head from the kv head's first}
  logic [18:0] pair_mem[256];
  logic [2:0] pcol_q;
  logic [15:0] phead_q, pgroup_q;
  logic [9:0] pairs_q;  // so far, then all
  assign pairs_end = phead_q + 16'd1 == per_kv_q && 4'(pcol_q) + 4'd1 == ncols;
  logic unit_start_q;  // queries and records may begin
  always_ff @(posedge clk_i) begin
    unit_start_q <= rst_ni && state_q == StShape2 && kv_sum_q + kv_heads > heads;
    if (!rst_ni) begin
      state_q <= StIdle;
    end else begin
      unique case (state_q)
        StIdle: if (cmd_valid_i) state_q <= StShape;
        StShape: state_q <= StShape2;
        StShape2: if (kv_sum_q + kv_heads > heads) state_q <= StPairs;
        StPairs: if (pairs_end) state_q <= StRepeat;
        StRepeat: if (rep_sum_q >= pairs_q) state_q <= StWaitQ;
        StWaitQ: if (q_done_q) state_q <= StRun;
        StRun: if (fix_start) state_q <= StFix;
        default: if (fix_done) state_q <= StIdle;
      endcase
    end
    if (state_q == StShape) begin
      col_groups_q <= col_groups_p[15:0];
      stride_q <= {9'd0, stride_p[22:0], 4'd0};
      total_q <= total_p[22:0];
      per_kv_q <= '0;
      kv_sum_q <= '0;
      pcol_q <= '0;
      phead_q <= '0;
      pgroup_q <= '0;
      pairs_q <= '0;
      q_done_q <= 1'b0;
    end
    // heads / kv_heads by counting
    if (state_q == StShape2 && kv_sum_q + kv_heads <= heads) begin
      kv_sum_q <= kv_sum_q + kv_heads;
      per_kv_q <= per_kv_q + 16'd1;
    end
    if (state_q == StPairs) begin
      pair_mem[pairs_q[7:0]] <= {pcol_q, pgroup_q};
      pairs_q <= pairs_q + 10'd1;
      phead_q <= phead_q + 16'd1;
      pgroup_q <= pgroup_q + 16'(groups);
      if (phead_q + 16'd1 == per_kv_q) begin
        phead_q <= '0;
        pgroup_q <= '0;
        pcol_q <= pcol_q + 3'd1;
      end
    end
    if (q_done) q_done_q <= 1'b1;
  end
  assign busy_o = state_q != StIdle;
  assign done_o = state_q == StFix && fix_done;

  // groups of a kv head's query heads, pairs of a full pass, passes a head
  logic [9:0] pass_pairs, rep_sum_q;
  logic [7:0] repeat_q;
  logic signed [16:0] kv_groups;
  assign pass_pairs = 10'(32'(fits) << $clog2(Lanes));
  foray_mul_lut #(
      .AW(13),
      .BW(4)
  ) u_kvg (
      .a_i({1'b0, per_kv_q[11:0]}),
      .b_i(groups),
      .p_o(kv_groups)
  );
  always_ff @(posedge clk_i) begin
    if (state_q == StPairs) begin
      rep_sum_q <= pass_pairs;
      repeat_q <= 8'd1;
    end else if (state_q == StRepeat && rep_sum_q < pairs_q) begin
      rep_sum_q <= rep_sum_q + pass_pairs;
      repeat_q <= repeat_q + 8'd1;
    end
  end

  // ---- queries
  logic q_re;
  logic [QW-1:0] q_raddr;
  logic [515:0] q_rdata;
  logic [7:0][15:0] q_exp;
  logic q_sp_re;
  logic [19:0] q_sp_raddr;
  foray_attn_q #(
      .Groups(QGroups)
  ) u_q (
      .clk_i,
      .rst_ni,
      .start_i(unit_start_q),
      .src_i(q_unit[19:0] + q_first[19:0]),
      .groups_i(col_groups_q),
      .ncols_i(ncols),
      .done_o(q_done),
      .sp_re_o(q_sp_re),
      .sp_raddr_o(q_sp_raddr),
      .sp_rdata_i,
      .exp_o(q_exp),
      .re_i(q_re),
      .raddr_i(q_raddr),
      .rdata_o(q_rdata)
  );

  // ---- records
  logic [31:0] first_unit;
  logic load_we, load_we_v, scale_we, block_done, block_free;
  logic [BufW-1:0] load_waddr;
  logic [255:0] load_wdata, scale_wdata;
  logic [7:0] scale_waddr;
  assign first_unit = cmd_i.kv + offset;
  foray_attn_load #(
      .BufW(BufW)
  ) u_load (
      .clk_i,
      .rst_ni,
      .start_i(state_q == StRepeat && rep_sum_q >= pairs_q),
      .base_i({first_unit[29:0], 6'd0}),
      .stride_i(stride_q),
      .meta_i(meta),
      .groups_i(groups),
      .npos_i(npos),
      .total_i(total_q),
      .heads_i(kv_heads),
      .repeat_i(repeat_q),
      .banks_i(fits),
      .kr_valid_o,
      .kr_ready_i,
      .kr_addr_o,
      .kr_bytes_o,
      .kv_valid_i,
      .kv_ready_o,
      .kv_data_i,
      .we_o(load_we),
      .we_v_o(load_we_v),
      .waddr_o(load_waddr),
      .wdata_o(load_wdata),
      .scale_we_o(scale_we),
      .scale_waddr_o(scale_waddr),
      .scale_wdata_o(scale_wdata),
      .block_done_o(block_done),
      .block_free_i(block_free)
  );
  logic unused_unit;
  assign unused_unit = &{1'b0, first_unit[31:30], kv_groups[16], per_kv_q[15:12]};

  // ---- the item that K takes next
  typedef struct packed {
    logic [16:0] p;  // first position of the block
    logic first;  // block of the pass
    logic last;
    logic [2:0] batch;
    logic last_batch;
    logic [3:0] acc;  // group address of the batch's accumulators
    logic [2:0] bank;
    logic [BufW-1:0] base;  // of the bank
    logic pass;  // parity
  } item_t;
  item_t ng, k_item, v_item, sm_item, item;
  logic ng_valid_q, ng_pass_q;
  logic [16:0] ng_p_q;
  logic [2:0] ng_batch_q, ng_bank_q;
  logic [3:0] ng_acc_q;
  logic [BufW-1:0] ng_base_q;
  logic [15:0] ng_kv_q, ng_head_group_q;
  logic [7:0] ng_rep_q;
  logic [9:0] ng_pair_q;  // first of the pass
  logic [9:0] ng_pairs;  // of the pass
  logic [9:0] ng_batch_pair;  // first of the batch, within the pass
  logic ng_end_head, ng_bank_wrap;
  assign ng_batch_pair = 10'(ng_batch_q) << $clog2(Lanes);
  assign ng_pairs = pairs_q - ng_pair_q > pass_pairs ? pass_pairs : pairs_q - ng_pair_q;
  assign ng_end_head = ng_rep_q + 8'd1 == repeat_q;
  assign ng_bank_wrap = 4'(ng_bank_q) + 4'd1 == fits;
  always_comb begin
    ng.p = ng_p_q;
    ng.first = ng_p_q == '0;
    ng.last = ng_p_q + 17'd32 >= npos;
    ng.batch = ng_batch_q;
    ng.last_batch = ng_batch_pair + 10'(Lanes) >= ng_pairs;
    ng.acc = ng_acc_q;
    ng.bank = ng_bank_q;
    ng.base = ng_base_q;
    ng.pass = ng_pass_q;
  end

  logic start_k, start_v;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      ng_valid_q <= 1'b0;
    end else if (state_q == StWaitQ && q_done_q) begin
      ng_valid_q <= 1'b1;
    end else if (start_k && ng.last_batch && ng.last && ng_end_head && ng_kv_q + 16'd1 == kv_heads) begin
      ng_valid_q <= 1'b0;
    end
    if (state_q == StWaitQ) begin
      ng_p_q <= '0;
      ng_batch_q <= '0;
      ng_acc_q <= '0;
      ng_bank_q <= '0;
      ng_base_q <= '0;
      ng_pass_q <= 1'b0;
      ng_kv_q <= '0;
      ng_head_group_q <= '0;
      ng_rep_q <= '0;
      ng_pair_q <= '0;
    end else if (start_k) begin
      ng_batch_q <= ng.last_batch ? '0 : ng_batch_q + 3'd1;
      ng_acc_q <= ng.last_batch ? '0 : ng_acc_q + groups;
      if (ng.last_batch) begin
        ng_bank_q <= ng_bank_wrap ? '0 : ng_bank_q + 3'd1;
        ng_base_q <= ng_bank_wrap ? '0 : ng_base_q + BufW'({groups, 5'd0});
        ng_p_q <= ng.last ? '0 : ng_p_q + 17'd32;
        if (ng.last) begin
          ng_pass_q <= !ng_pass_q;
          ng_rep_q <= ng_end_head ? '0 : ng_rep_q + 8'd1;
          ng_pair_q <= ng_end_head ? '0 : ng_pair_q + pass_pairs;
          if (ng_end_head) begin
            ng_kv_q <= ng_kv_q + 16'd1;
            ng_head_group_q <= ng_head_group_q + kv_groups[15:0];
          end
        end
      end
    end
  end

  // ---- multiplier phases
  typedef enum logic [1:0] {
    PhNone,
    PhK,
    PhV
  } phase_e;
  phase_e phase_q;
  logic [3:0] g_q;
  logic [4:0] j_q;
  logic [2:0] kcount_q, vcount_q, kdone_q, smcount_q;  // items: begun by K, by V, scored, through the softmax
  logic [3:0] ready_q;  // blocks in the buffers that K has not begun
  logic [1:0] open_q;  // passes begun and not finished
  logic q_ready_q;
  logic issue, last_issue, free, want_v, k_ok, v_ok, pass_begin, pass_finished;
  logic [2:0] ahead;
  assign ahead = kcount_q - vcount_q;
  assign issue = phase_q == PhV || (phase_q == PhK && (j_q != '0 || q_ready_q));
  assign last_issue = issue && j_q == 5'd31 && g_q + 4'd1 == groups;
  assign free = phase_q == PhNone || last_issue;
  assign want_v = ahead == 3'd2 || !ng_valid_q;
  assign pass_begin = ng.first && ng_batch_q == '0;
  assign k_ok = ng_valid_q && (ng_batch_q != '0 || ready_q != '0) && !(pass_begin && open_q == 2'd2);
  assign v_ok = ahead != '0 && smcount_q != vcount_q;
  assign start_k = free && !want_v && k_ok;
  assign start_v = free && want_v && v_ok;

  logic [$bits(ng)-1:0] item_mem[4];
  always_ff @(posedge clk_i) begin
    if (start_k) item_mem[kcount_q[1:0]] <= ng;
    if (start_k) k_item <= ng;
    if (start_v) v_item <= item_mem[vcount_q[1:0]];
  end
  assign sm_item = item_mem[smcount_q[1:0]];
  assign item = phase_q == PhK ? k_item : v_item;
  always_ff @(posedge clk_i) begin
    if (!rst_ni || cmd_valid_i) begin
      phase_q <= PhNone;
      kcount_q <= '0;
      vcount_q <= '0;
      ready_q <= '0;
      open_q <= '0;
    end else begin
      if (free) phase_q <= start_k ? PhK : start_v ? PhV : PhNone;
      kcount_q <= kcount_q + 3'(start_k);
      vcount_q <= vcount_q + 3'(start_v);
      ready_q <= ready_q + 4'(block_done) - 4'(start_k && ng_batch_q == '0);
      open_q <= open_q + 2'(start_k && pass_begin) - 2'(pass_finished);
    end
    if (start_k || start_v) begin
      g_q <= '0;
      j_q <= '0;
    end else if (issue) begin
      j_q <= j_q + 5'd1;
      if (j_q == 5'd31) g_q <= g_q + 4'd1;
    end
    block_free <= rst_ni && phase_q == PhV && last_issue && v_item.last_batch;
  end

  // ---- along the stages
  typedef struct packed {
    logic k;
    logic v;
    logic [4:0] j;
    logic [2:0] g;
    logic glast;
    logic par;
    logic first;  // block
    logic [3:0] state;
    logic [3:0] acc;
  } along_t;
  along_t a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11;
  always_comb begin
    a0.k = issue && phase_q == PhK;
    a0.v = issue && phase_q == PhV;
    a0.j = j_q;
    a0.g = g_q[2:0];
    a0.glast = g_q + 4'd1 == groups;
    a0.par = phase_q == PhK ? !kcount_q[0] : !vcount_q[0];  // they count the item under way already
    a0.first = item.first;
    a0.state = {item.pass, item.batch};
    a0.acc = item.acc + g_q;
  end
  always_ff @(posedge clk_i) begin
    a1 <= a0;
    a2 <= a1;
    a3 <= a2;
    a4 <= a3;
    a5 <= a4;
    a6 <= a5;
    a7 <= a6;
    a8 <= a7;
    a9 <= a8;
    a10 <= a9;
    a11 <= a10;
    if (!rst_ni) begin
      {a1.k, a1.v} <= '0;
      {a2.k, a2.v} <= '0;
      {a3.k, a3.v} <= '0;
      {a4.k, a4.v} <= '0;
      {a5.k, a5.v} <= '0;
      {a6.k, a6.v} <= '0;
      {a7.k, a7.v} <= '0;
      {a8.k, a8.v} <= '0;
      {a9.k, a9.v} <= '0;
      {a10.k, a10.v} <= '0;
      {a11.k, a11.v} <= '0;
    end
  end
  logic item_end11;  // the last score of an item
  assign item_end11 = a11.k && a11.glast && a11.j == 5'd31;

  // ---- buffers
  logic [255:0] k_mem[1<<BufW];
  logic [255:0] v_mem[1<<BufW];
  logic [255:0] scale_mem[256];
  logic [255:0] scale2_mem[256];  // the same, for the softmax
  logic [255:0] k_rd, v_rd, scale_rd, scale2_rd, codes1;
  logic [BufW-1:0] raddr;
  logic [7:0] sm_scale_addr;
  assign raddr = item.base + BufW'({g_q, 5'd0}) + BufW'(j_q);
  always_ff @(posedge clk_i) begin
    if (load_we && !load_we_v) k_mem[load_waddr] <= load_wdata;
    if (a0.k) k_rd <= k_mem[raddr];
  end
  always_ff @(posedge clk_i) begin
    if (load_we && load_we_v) v_mem[load_waddr] <= load_wdata;
    if (a0.v) v_rd <= v_mem[raddr];
  end
  always_ff @(posedge clk_i) begin
    if (scale_we) scale_mem[scale_waddr] <= scale_wdata;
    if (issue) scale_rd <= scale_mem[{item.bank, j_q}];
  end
  always_ff @(posedge clk_i) begin
    if (scale_we) scale2_mem[scale_waddr] <= scale_wdata;
    scale2_rd <= scale2_mem[sm_scale_addr];
  end
  assign codes1 = a1.k ? k_rd : v_rd;
  logic [15:0] scale_q2, scale_q3, scale_q4, scale_q5, scale_q6;
  logic [3:0] which;
  assign which = 4'(a1.g) + (a1.v ? groups : 4'd0);
  logic signed [36:0] factor;
  logic [35:0] factor_q7;
  foray_mul_lut #(
      .AW(26),
      .BW(11)
  ) u_factor (
      .a_i({1'b0, scale[24:0]}),
      .b_i({1'b1, scale_q6[9:0]}),
      .p_o(factor)
  );
  always_ff @(posedge clk_i) begin
    scale_q2 <= scale_rd[16*which+:16];
    scale_q3 <= scale_q2;
    scale_q4 <= scale_q3;
    scale_q5 <= scale_q4;
    scale_q6 <= scale_q5;
    factor_q7 <= factor[35:0];
  end
  logic unused_stages;
  assign unused_stages = &{1'b0, factor[36], a1, a2, a4, a5, a7, a8, a9, a10, a11, scale_q6[15:10], item, k_item, sm_item,
      v_item};

  // ---- query groups for the lanes: those of the next group of K's item, or of the next item
  logic pf_run_q, pf_v_q, pf_first_q, pf_valid_q;
  logic [LaneW-1:0] pf_lane_q, pf_lane_q1;
  logic [9:0] pf_pair_q, pf_end_q;
  logic [15:0] pf_group_q;
  logic [16:0] pf_p_q;
  logic [2:0] pf_col_q;
  logic [18:0] pair_entry;
  logic [15:0] col_first_q[8];
  logic q_take3, pf_begin, run_begin_q, pf_next;
  logic [15:0] k_group_q;  // of K's item: kv head's group
  logic [9:0] k_pair_q, k_end_q;
  assign q_take3 = a3.k && a3.j == '0;
  assign pf_begin = run_begin_q || (q_take3 && (!a3.glast || ng_valid_q));
  assign pf_next = run_begin_q || a3.glast;  // of the next item
  assign pair_entry = pair_mem[pf_pair_q[7:0]];
  assign q_re = pf_run_q;
  assign q_raddr = QW'(col_first_q[pair_entry[18:16]] + pf_group_q + pair_entry[15:0]);
  always_ff @(posedge clk_i) begin
    run_begin_q <= rst_ni && state_q == StWaitQ && q_done_q;
    col_first_q[0] <= '0;
    for (int c = 1; c < 8; c++) col_first_q[c] <= col_first_q[c-1] + col_groups_q;
    if (start_k) begin
      k_group_q <= ng_head_group_q;
      k_pair_q <= ng_pair_q + ng_batch_pair;
      k_end_q <= ng_pair_q + ng_pairs;
    end
    if (!rst_ni || cmd_valid_i) begin
      pf_run_q <= 1'b0;
      pf_v_q <= 1'b0;
      q_ready_q <= 1'b0;
    end else begin
      if (pf_begin) pf_run_q <= 1'b1;
      else if (pf_lane_q == LaneW'(Lanes - 1)) pf_run_q <= 1'b0;
      pf_v_q <= pf_run_q;
      if (pf_v_q && pf_lane_q1 == LaneW'(Lanes - 1)) q_ready_q <= 1'b1;
      else if (a0.k && j_q == '0) q_ready_q <= 1'b0;
    end
    if (pf_begin) begin
      pf_lane_q <= '0;
      pf_first_q <= pf_next;
      pf_pair_q <= pf_next ? ng_pair_q + ng_batch_pair : k_pair_q;
      pf_end_q <= pf_next ? ng_pair_q + ng_pairs : k_end_q;
      pf_group_q <= pf_next ? ng_head_group_q : k_group_q + 16'(a3.g) + 16'd1;
      pf_p_q <= ng_p_q;
    end else if (pf_run_q) begin
      pf_lane_q <= pf_lane_q + LaneW'(1);
      pf_pair_q <= pf_pair_q + 10'd1;
    end
    pf_lane_q1 <= pf_lane_q;
    pf_col_q <= pair_entry[18:16];
    pf_valid_q <= pf_pair_q < pf_end_q;
  end
  logic signed [17:0] qn_exp;
  logic signed [18:0] see;
  logic [5:0] see_n;
  assign qn_exp = 18'(signed'({1'b0, q_rdata[515:512]})) + 18'(signed'(q_exp[pf_col_q])) + 18'(scale_exp) - 18'sd32;
  assign see = 19'(cmd_i.pos0[16:0]) + 19'(cmd_i.c0) + 19'(pf_col_q) + 19'd1 - 19'(pf_p_q);
  assign see_n = !pf_valid_q || see <= 0 ? 6'd0 : see > 19'sd32 ? 6'd32 : see[5:0];

  // ---- softmax of items whose scores are there: 38 cycles
  logic sm_run_q, sm_start, sm_end, sm_v4;
  logic [5:0] sm_count_q;
  logic [4:0] sm_j0, sm_j3, sm_j4;
  assign sm_start = !sm_run_q && kdone_q != smcount_q;
  assign sm_j0 = 5'(sm_count_q - 6'd1);
  assign sm_j3 = 5'(sm_count_q - 6'd4);
  assign sm_j4 = 5'(sm_count_q - 6'd5);
  assign sm_v4 = sm_run_q && sm_count_q >= 6'd5 && sm_count_q < 6'd37;
  assign sm_end = sm_run_q && sm_count_q == 6'd37;
  assign sm_scale_addr = {sm_item.bank, sm_j3};
  always_ff @(posedge clk_i) begin
    if (!rst_ni || cmd_valid_i) begin
      kdone_q <= '0;
      smcount_q <= '0;
      sm_run_q <= 1'b0;
    end else begin
      if (item_end11) kdone_q <= kdone_q + 3'd1;
      if (sm_start) sm_run_q <= 1'b1;
      else if (sm_end) sm_run_q <= 1'b0;
      if (sm_end) smcount_q <= smcount_q + 3'd1;
    end
    sm_count_q <= sm_start ? 6'd1 : sm_count_q + 6'd1;
  end
  logic [7:0][5:0] sm_x4;
  for (genvar g = 0; g < 8; g++) begin : gen_smx
    logic [3:0] at;
    assign at = 4'(g) + groups;
    assign sm_x4[g] = scale2_rd[16*at+10+:6];
  end

  // ---- accumulators, one element a cycle
  logic upd_start, uv_q, uv_q1, uv_q2;
  logic [4:0] ue_q, ue_q1, ue_q2;
  logic [3:0] uacc_q, uacc_q1, uacc_q2;
  logic upar_q, upar_q1, upar_q2;
  assign upd_start = a6.v && a6.j == 5'd31;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      uv_q <= 1'b0;
    end else if (upd_start) begin
      uv_q <= 1'b1;
    end else if (ue_q == 5'd31) begin
      uv_q <= 1'b0;
    end
    if (upd_start) begin
      ue_q <= '0;
      uacc_q <= a6.acc;
      upar_q <= a6.state[3];
    end else begin
      ue_q <= ue_q + 5'd1;
    end
    uv_q1 <= uv_q && rst_ni;
    uv_q2 <= uv_q1 && rst_ni;
    ue_q1 <= ue_q;
    ue_q2 <= ue_q1;
    uacc_q1 <= uacc_q;
    uacc_q2 <= uacc_q1;
    upar_q1 <= upar_q;
    upar_q2 <= upar_q1;
  end

  // ---- lanes
  logic [LaneW-1:0] fin_lane, div_lane, fin_lane_q;
  logic [3:0] fin_state, div_state;
  logic [2:0] fin_g;
  logic fin_re;
  logic [AccW-1:0] fin_addr;
  logic [Lanes-1:0][47:0] lane_acc, lane_l;
  logic [Lanes-1:0][25:0] lane_ml, lane_mv;
  logic [Lanes-1:0][5:0] lane_bits;
  for (genvar l = 0; l < Lanes; l++) begin : gen_lane
    // positions of the block that the lane sees, on their way from the query to the softmax
    logic [5:0] n_next_q, n_mid_q, n11_q, n_done_q, n_sm_q;
    always_ff @(posedge clk_i) begin
      if (pf_v_q && pf_first_q && pf_lane_q1 == LaneW'(l)) n_next_q <= see_n;
      if (q_take3 && a3.g == '0) n_mid_q <= n_next_q;
      if (a10.k && a10.j == '0 && a10.g == '0) n11_q <= n_mid_q;
      if (item_end11) n_done_q <= n11_q;
      if (sm_start) n_sm_q <= n_done_q;
    end
    foray_attn_lane #(
        .AccW(AccW)
    ) u_lane (
        .clk_i,
        .codes1_i(codes1),
        .scale2_i(scale_q2),
        .qn_we_i(pf_v_q && pf_lane_q1 == LaneW'(l)),
        .qn_data_i(q_rdata[511:0]),
        .qn_exp_i(qn_exp),
        .q_take3_i(q_take3),
        .x4_i(scale_q4[15:10]),
        .factor7_i(factor_q7),
        .t_we11_i(a11.k),
        .t_j11_i(a11.j),
        .t_first11_i(a11.g == '0),
        .t_last11_i(a11.glast),
        .t_par11_i(a11.par),
        .n11_i(n11_q),
        .sm_start_i(sm_start),
        .sm_start1_i(sm_run_q && sm_count_q == 6'd1),
        .sm_n_i(sm_start ? n_done_q : n_sm_q),
        .sm_first_i(sm_item.first),
        .sm_state_i({sm_item.pass, sm_item.batch}),
        .sm_par_i(smcount_q[0]),
        .sm_j0_i(sm_j0),
        .sm_v4_i(sm_v4),
        .sm_j4_i(sm_j4),
        .sm_x4_i(sm_x4),
        .sm_end_i(sm_end),
        .v_j1_i(a1.j),
        .v_par1_i(a1.par),
        .v_g2_i(a2.g),
        .v_par2_i(a2.par),
        .v4_i(a4.v),
        .v5_i(a5.v),
        .v_first5_i(a5.j == '0),
        .upd_start_i(upd_start),
        .upd_g_i(a6.g),
        .upd_par_i(a6.par),
        .upd_first_i(a6.first),
        .upd_state_i(a6.state),
        .upd_re_i(uv_q),
        .upd_addr_i({uacc_q, ue_q}),
        .upd_we_i(uv_q2),
        .upd_waddr_i({uacc_q2, ue_q2}),
        .upd_wpar_i(upar_q2),
        .upd_last_i(ue_q2 == 5'd31),
        .div_state_i(div_state),
        .fin_state_i(fin_state),
        .fin_g_i(fin_g),
        .fin_re_i(fin_re),
        .fin_addr_i(fin_addr),
        .fin_acc_o(lane_acc[l]),
        .fin_l_o(lane_l[l]),
        .fin_ml_o(lane_ml[l]),
        .fin_mv_o(lane_mv[l]),
        .fin_bits_o(lane_bits[l])
    );
  end
  always_ff @(posedge clk_i) fin_lane_q <= fin_lane;

  // ---- passes that end: the last update is in 45 cycles after the last issue
  logic [15:0] pass_group_q[2];
  logic [9:0] pass_pair_q[2], pass_pairs_q[2];
  logic [5:0] settle_q[2];  // by parity: two short passes may end within the time
  logic fin_par_q, fin_ready, fin_start, fin_active_q;
  logic [1:0] fin_req_q;
  assign fin_start = fin_req_q[fin_par_q] && fin_ready && !fin_active_q;
  assign pass_finished = fin_active_q && fin_ready;
  always_ff @(posedge clk_i) begin
    if (start_k && pass_begin) begin
      pass_group_q[ng_pass_q] <= ng_head_group_q;
      pass_pair_q[ng_pass_q] <= ng_pair_q;
      pass_pairs_q[ng_pass_q] <= ng_pairs;
    end
    if (!rst_ni || cmd_valid_i) begin
      settle_q[0] <= '0;
      settle_q[1] <= '0;
      fin_req_q <= '0;
      fin_par_q <= 1'b0;
      fin_active_q <= 1'b0;
    end else begin
      for (int i = 0; i < 2; i++) begin
        if (phase_q == PhV && last_issue && v_item.last_batch && v_item.last && v_item.pass == 1'(i)) begin
          settle_q[i] <= 6'd45;
        end else if (settle_q[i] != '0) begin
          settle_q[i] <= settle_q[i] - 6'd1;
        end
        if (settle_q[i] == 6'd1) fin_req_q[i] <= 1'b1;
      end
      if (fin_start) begin
        fin_req_q[fin_par_q] <= 1'b0;
        fin_active_q <= 1'b1;
      end else if (pass_finished) begin
        fin_active_q <= 1'b0;
        fin_par_q <= !fin_par_q;
      end
    end
  end
  assign fix_start = state_q == StRun && !ng_valid_q && open_q == '0;

  logic out_sp_re;
  logic [19:0] out_sp_raddr;
  logic [7:0] fin_pair;
  logic [18:0] fin_entry;
  assign fin_entry = pair_mem[fin_pair];
  foray_attn_out #(
      .Lanes(Lanes),
      .AccW(AccW),
      .Groups(QGroups)
  ) u_out (
      .clk_i,
      .rst_ni,
      .clear_i(state_q == StWaitQ && q_done_q),
      .groups_i(groups),
      .col_groups_i(col_groups_q),
      .ncols_i(ncols),
      .dst_i(dst_unit[19:0] + dst_first[19:0]),
      .start_i(fin_start),
      .ready_o(fin_ready),
      .par_i(fin_par_q),
      .head_group_i(pass_group_q[fin_par_q]),
      .pairs_i(8'(pass_pairs_q[fin_par_q])),
      .first_pair_i(8'(pass_pair_q[fin_par_q])),
      .fix_i(fix_start),
      .done_o(fix_done),
      .pair_o(fin_pair),
      .pair_col_i(fin_entry[18:16]),
      .pair_group_i(fin_entry[15:0]),
      .div_lane_o(div_lane),
      .div_state_o(div_state),
      .div_l_i(lane_l[LaneW'(div_lane)]),
      .lane_o(fin_lane),
      .state_o(fin_state),
      .group_o(fin_g),
      .acc_re_o(fin_re),
      .acc_addr_o(fin_addr),
      .acc_i(lane_acc[LaneW'(fin_lane_q)]),
      .ml_i(lane_ml[LaneW'(fin_lane)]),
      .mv_i(lane_mv[LaneW'(fin_lane)]),
      .bits_i(lane_bits[LaneW'(fin_lane)]),
      .sp_re_o(out_sp_re),
      .sp_raddr_o(out_sp_raddr),
      .sp_rdata_i,
      .sp_we_o,
      .sp_waddr_o,
      .sp_wdata_o,
      .sp_wstrb_o
  );
  assign sp_re_o = q_sp_re || out_sp_re;
  assign sp_raddr_o = q_sp_raddr | out_sp_raddr;

  always_comb begin
    act_o = '0;
    if (busy_o) begin
      if (state_q == StRun && phase_q == PhNone && !want_v && ready_q == '0 && !kv_valid_i) act_o.starved = 1'b1;
      else act_o.busy = 1'b1;
    end
  end

endmodule
