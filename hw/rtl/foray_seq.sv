// The sequencer: one doorbell is one run of a draft program (docs/numerics.md 10, host/dev/program.c). It lets foray_load
// check everything, then feeds, drafts, catches up, checks early tokens, scores, and leaves the context consistent.
module foray_seq #(
    parameter int unsigned Cols = 1,
    parameter int unsigned ScratchUnits = 16384,
    parameter int unsigned ActGroups = 2048,
    parameter int unsigned QGroups = 2048,
    parameter int unsigned ProgDepth = 4096,
    /// Cycles without any sign of life after which the memory is given up.
    parameter int unsigned Watchdog = 1 << 18
) (
    input logic clk_i,
    input logic rst_ni,

    /// Doorbell pending; taken_o ends it.
    input logic start_i,
    output logic taken_o,
    output logic running_o,
    /// One cycle at the end of a run, with the result.
    output logic done_o,
    output logic [7:0] err_o,
    output logic [31:0] err_desc_o,
    input logic stop_i,
    input logic [31:0] heap_units_i,
    input logic [31:0] run_unit_i,

    /// What happened in this cycle, for the counters.
    output foray_pkg::count_t count_o,
    /// For whoever watches.
    output foray_pkg::trace_t trace_o,

    /// Drops all streams and resets the units.
    output logic abort_o,
    output logic unit_rst_no,
    input logic rd_idle_i,
    input logic wr_idle_i,
    input logic bus_error_i,
    /// A sign of life from the memory.
    input logic progress_i,

    /// Reads of whole units (heap units).
    output logic range_valid_o,
    input logic range_ready_i,
    output logic [31:0] range_unit_o,
    output logic [31:0] range_units_o,
    input logic cd_valid_i,
    output logic cd_ready_o,
    input logic [511:0] cd_data_i,

    /// Prefetch of a section.
    output logic walk_start_o,
    output logic [12:0] walk_from_o,
    output logic [12:0] walk_to_o,

    /// Program memory.
    output logic pw_valid_o,
    output logic [11:0] pw_addr_o,
    output logic [255:0] pw_data_o,
    output logic pr_valid_o,
    output logic [11:0] pr_addr_o,
    input logic pr_gnt_i,
    input logic [255:0] pr_data_i,

    /// Commands, one hot by unit: 0 foray_mv, 1 foray_attn, 2 foray_kv_put, 3 foray_vec.
    output logic [3:0] cmd_valid_o,
    output foray_pkg::cmd_t cmd_o,
    input logic [3:0] cmd_done_i,

    /// Scratchpad, for residuals.
    output logic sp_re_o,
    output logic [19:0] sp_raddr_o,
    input logic [511:0] sp_rdata_i,
    output logic sp_we_o,
    output logic [19:0] sp_waddr_o,
    output logic [511:0] sp_wdata_o,

    /// Writes to memory.
    output logic kw_valid_o,
    input logic kw_ready_i,
    output logic [31:0] kw_addr_o,
    output logic [511:0] kw_data_o,
    /// One per word.
    output logic [15:0] kw_strb_o,

    /// Logits of scored positions (with score_o; otherwise they are the exit unit's).
    output logic score_o,
    input logic lg_valid_i,
    output logic lg_ready_o,
    input foray_pkg::logit_t lg_i,

    /// Exit unit.
    output logic ex_clear_o,
    output logic ex_finish_o,
    output logic [2:0] ex_col_o,
    output foray_pkg::exit_arg_t ex_arg_o,
    input logic ex_done_i,
    input foray_pkg::exit_res_t ex_res_i
);
  typedef enum logic [6:0] {
    StIdle,
    StLoad,
    StCut,
    StFeedLoop,
    StFeedAsk,
    StFeedGet,
    StFeedCheck,
    StFeedRoom,
    StFeedRun,
    StFed,
    StFlush,
    StFlushNext,
    StCatch,
    StBatch,
    StSlot,
    StSlotDiv,
    StSlotMul,
    StMoveCol,
    StLoadAsk,
    StLoadGet,
    StSaveRead,
    StSavePut,
    StMoved,
    StBody,
    StBodyEnd,
    StBatchDone,
    StSection,
    StOpsStart,
    StOpRead,
    StOpLatch,
    StOpReady,
    StOpIssue,
    StOpRun,
    StKept,
    StScore,
    StScoreBase,
    StScored,
    StDecide,
    StSegment,
    StTest,
    StTested,
    StCheckUp,
    StCheckSect,
    StCheckFirst,
    StCheckCol,
    StCheckNext,
    StRingPrev,
    StRingGet,
    StFinish,
    StFinishRun,
    StJudge,
    StOldAsk,
    StOldGet,
    StCompare,
    StDecided,
    StRingPut0,
    StRingPut1,
    StEntryDone,
    StDraftEnd,
    StAbort,
    StBack0,
    StBack1,
    StBack2,
    StBackWait,
    StDone
  } state_e;
  state_e state_q, ret_flush_q, ret_catch_q, ret_batch_q, ret_ops_q, ret_put_q;

  // ---- loaded records ----
  logic [31:0] run_unit_q, heap_units_q;
  logic ld_done, ld_range_valid, ld_cd_ready;
  logic [7:0] ld_err;
  logic [31:0] ld_desc, ld_range_unit, ld_range_units;
  logic [7:0][511:0] run;
  logic [1:0][511:0] state;
  logic [255:0] prog;
  logic [15:0][12:0] body, body_end, test, test_end;
  logic [15:0][2:0] exit_no;
  logic [15:0] has_test;
  logic [31:0] final_rows;
  logic ld_start_q;
  foray_load #(
      .Cols(Cols),
      .ScratchUnits(ScratchUnits),
      .ActGroups(ActGroups),
      .QGroups(QGroups),
      .ProgDepth(ProgDepth)
  ) u_load (
      .clk_i,
      .rst_ni,
      .start_i(ld_start_q),
      .abort_i(abort_o),
      .run_unit_i(run_unit_q),
      .heap_units_i(heap_units_q),
      .done_o(ld_done),
      .err_o(ld_err),
      .err_desc_o(ld_desc),
      .range_valid_o(ld_range_valid),
      .range_ready_i,
      .range_unit_o(ld_range_unit),
      .range_units_o(ld_range_units),
      .cd_valid_i,
      .cd_ready_o(ld_cd_ready),
      .cd_data_i,
      .pw_valid_o,
      .pw_addr_o,
      .pw_data_o,
      .run_o(run),
      .state_o(state),
      .prog_o(prog),
      .body_o(body),
      .body_end_o(body_end),
      .test_o(test),
      .test_end_o(test_end),
      .exit_o(exit_no),
      .has_test_o(has_test),
      .final_rows_o(final_rows)
  );
  logic [127:0][31:0] r;
  logic [31:0][31:0] s;
  logic [7:0][31:0] p;
  assign r = run;
  assign s = state;
  assign p = prog;

  logic [4:0] n_seg;
  logic [7:0] n_test, check;
  logic [3:0] cols;
  logic [31:0] width_units, resid, vocab, slots, max_pos, rflags;
  logic [31:0] feed_n, max_drafts, step_limit, cum_min, ring_slots, start;
  logic score, do_flush, stop_before, full_first, rule;
  logic [7:0][31:0] stop_rule, stop_ids;
  logic [63:0][31:0] exit_rule;
  assign n_seg = p[foray_abi_pkg::PROG_N_SEG_WORD][foray_abi_pkg::PROG_N_SEG_LSB+:5];
  assign n_test = p[foray_abi_pkg::PROG_N_TEST_WORD][foray_abi_pkg::PROG_N_TEST_LSB+:8];
  assign cols = p[foray_abi_pkg::PROG_COLS_WORD][foray_abi_pkg::PROG_COLS_LSB+:4];
  assign width_units = 32'd1 + (p[foray_abi_pkg::PROG_WIDTH_WORD] >> 4);
  assign resid = p[foray_abi_pkg::PROG_RESID_WORD];
  assign vocab = p[foray_abi_pkg::PROG_VOCAB_WORD];
  assign slots = s[foray_abi_pkg::STATE_RESID_SLOTS_WORD];
  assign max_pos = s[foray_abi_pkg::STATE_MAX_POS_WORD];
  assign start = r[foray_abi_pkg::RUN_START_WORD];
  assign feed_n = r[foray_abi_pkg::RUN_FEED_N_WORD];
  assign max_drafts = r[foray_abi_pkg::RUN_MAX_DRAFTS_WORD];
  assign step_limit = r[foray_abi_pkg::RUN_STEP_LIMIT_WORD];
  assign cum_min = r[foray_abi_pkg::RUN_CUM_MIN_WORD];
  assign ring_slots = r[foray_abi_pkg::RUN_RING_SLOTS_WORD];
  assign check = r[foray_abi_pkg::RUN_CHECK_WORD][7:0];
  assign rflags = r[foray_abi_pkg::RUN_FLAGS_WORD];
  assign score = (rflags & 32'(foray_abi_pkg::RUN_SCORE)) != '0;
  assign do_flush = (rflags & 32'(foray_abi_pkg::RUN_FLUSH)) != '0;
  assign stop_before = (rflags & 32'(foray_abi_pkg::RUN_STOP_BEFORE)) != '0;
  assign full_first = (rflags & 32'(foray_abi_pkg::RUN_FULL_FIRST)) != '0;
  assign stop_rule = r[foray_abi_pkg::RUN_STOP_RULE_WORD+:8];
  assign stop_ids = r[foray_abi_pkg::RUN_STOP_IDS_WORD+:8];
  assign exit_rule = r[foray_abi_pkg::RUN_EXIT_RULE_WORD+:64];
  assign rule = stop_rule != '0;
  assign score_o = score;

  // ---- the run ----
  logic [31:0] len_q, at_q, steps_q, dumped_q, fed_q;
  logic [12:0] pc_q, to_q;  // next descriptor of the section, its end
  logic [15:0][31:0] done_q;
  logic [7:0] err_q, stop_q;
  logic loaded_q, dead_q;  // dead: the memory does not answer
  logic drafting_q;  // a feed returns to the draft
  logic section_q;  // inside an exit section
  logic [3:0] seg_q;
  logic [3:0] c0_q, c1_q;  // the batch
  logic [31:0] pos0_q;
  logic [3:0] n_q;  // columns of the feed
  logic [7:0][31:0] tok_q;
  logic [31:0] keep_unit_q;  // unit of the feed that keep_q holds
  logic [511:0] keep_q;
  logic keep_valid_q;
  logic [31:0] first_q, drafted_q, unchecked_q;  // struct drafting of program.c
  logic fired_q, in_check_q;
  logic [7:0] tried_q;
  logic [3:0] tc_q;  // column being judged
  logic [31:0] i_q, cum_q;  // its ring entry, the sum before it
  logic [1023:0] entry_q;
  logic [31:0] old_token_q;
  logic [7:0] old_exit_q, old_tried_q;
  logic save_q, kept_q;  // kept: the move is an op, KEEP or PREV
  logic [31:0] slot_q, move_addr_q, k_q, sp_base_q;
  logic [16:0] div_q;
  logic [4:0] bit_q;
  logic [3:0] col_q;
  logic [31:0] dump_base_q;
  logic [7:0][31:0] dump_q;  // where each column's logits go
  logic [255:0] desc_q;

  logic final_seg;
  assign final_seg = 5'(seg_q) == n_seg - 5'd1;

  // ---- ring ----
  logic [15:0][31:0] e0;  // first half of the entry
  logic stop_fires, stop_hit, full, fired;
  assign e0 = entry_q[511:0];
  always_comb begin
    stop_fires = (rule && ex_res_i.stop_lt0) ||
        (cum_min != '0 && $signed(e0[foray_abi_pkg::RING_CUM_WORD]) < $signed(cum_min));
    stop_hit = 1'b0;
    for (int unsigned k = 0; k < 8; k++)
      if (32'(k) < r[foray_abi_pkg::RUN_STOP_N_WORD] && e0[0] == stop_ids[k]) stop_hit = 1'b1;
  end
  assign full = e0[foray_abi_pkg::RING_EXIT_WORD][7:0] == n_test - 8'd1;
  assign fired = (full || check == '0) && stop_fires;
  logic [31:0] ring_index, ring_at;
  logic [32:0] slot_sum;
  assign ring_index = state_q == StRingPrev ? i_q - 32'd1 : i_q;
  assign slot_sum = 33'(r[foray_abi_pkg::RUN_RING_HEAD_WORD]) + 33'(ring_index);
  assign ring_at = r[foray_abi_pkg::RUN_RING_WORD] +
      ((slot_sum >= 33'(ring_slots) ? 32'(slot_sum - 33'(ring_slots)) : slot_sum[31:0]) << 1);

  // Checked before the run; guarded here so that no write can leave the ring from any state.
  logic ring_ok;
  assign ring_ok = ring_index < ring_slots && r[foray_abi_pkg::RUN_RING_HEAD_WORD] < ring_slots;
`ifdef FORMAL
  always_ff @(posedge clk_i) begin
    if (kw_valid_o && (state_q == StRingPut0 || state_q == StRingPut1))
      assert ({1'b0, kw_addr_o - r[foray_abi_pkg::RUN_RING_WORD]} < {ring_slots, 1'b0});
    cover (kw_valid_o && kw_ready_i && state_q == StRingPut1);
  end
`endif

  // ---- bytes of an op, computed while it runs ----
  logic [15:0][31:0] d;
  logic [7:0] op;
  assign d = {256'd0, desc_q};
  assign op = desc_q[7:0];
  logic bias, q4, is_matrix;
  logic [31:0] m_cols, groups, rows_pad, mant_units, take_rows, block_units;
  logic [15:0] head_dim, kv_heads;
  logic [23:0] head_granules;  // 16-byte granules of a position, all KV heads
  logic [5:0] granules;
  always_comb begin
    is_matrix = op == foray_abi_pkg::OP_GEMV || op == foray_abi_pkg::OP_HEAD;
    bias = op == foray_abi_pkg::OP_GEMV && desc_q[9];
    q4 = desc_q[23:16] == 8'(foray_abi_pkg::QTYPE_Q4A);
    m_cols = d[foray_abi_pkg::GEMV_COLS_WORD];
    groups = m_cols >> 5;
    rows_pad = (d[foray_abi_pkg::GEMV_ROWS_WORD] + 32'd15) & ~32'd15;
    mant_units = (rows_pad + 32'd31) >> 5;
    take_rows = op == foray_abi_pkg::OP_HEAD ? (d[foray_abi_pkg::HEAD_USED_WORD] + 32'd15) & ~32'd15 : rows_pad;
    block_units = q4 ? ((groups + 32'd1) >> 1) + (groups << 2) : ((groups + 32'd3) >> 2) + (groups << 3);
    head_dim = d[foray_abi_pkg::ATTN_HEAD_DIM_WORD][15:0];
    kv_heads = op == foray_abi_pkg::OP_ATTN ? d[foray_abi_pkg::ATTN_KV_HEADS_WORD][15:0] :
        d[foray_abi_pkg::KV_PUT_HEADS_WORD][31:16];
    granules = 6'(head_dim >> 3) + (head_dim > 16'd128 ? 6'd2 : 6'd1);
    head_granules = '0;
    for (int unsigned k = 0; k < 6; k++) if (granules[k]) head_granules = head_granules + (24'(kv_heads) << k);
  end
  logic mul_start, mul_done, mul_done_q, op_done_q;
  logic [23:0] mul_a, mul_b;
  logic [47:0] mul_p;
  foray_size_mul #(
      .Aw(24),
      .Bw(24)
  ) u_mul (
      .clk_i,
      .rst_ni,
      .start_i(mul_start),
      .a_i(mul_a),
      .b_i(mul_b),
      .done_o(mul_done),
      .p_o(mul_p)
  );
  always_comb begin
    mul_start = state_q == StOpIssue || state_q == StSlotMul;
    mul_a = head_granules;
    mul_b = pos0_q[23:0] + 24'(c1_q);
    if (state_q == StSlotMul) begin
      mul_a = slot_q[23:0];
      mul_b = move_units[23:0];
    end else if (is_matrix) begin
      mul_a = block_units[23:0];
      mul_b = take_rows[27:4];
    end else if (op == foray_abi_pkg::OP_KV_PUT) mul_b = 24'(c1_q) - 24'(c0_q);
    else if (op == foray_abi_pkg::OP_EMBED) begin
      mul_a = d[foray_abi_pkg::EMBED_COLS_WORD][23:0] + 24'(d[foray_abi_pkg::EMBED_COLS_WORD][23:5]) + 24'd2;
      mul_b = 24'(c1_q) - 24'(c0_q);
    end
  end
  logic retire;
  assign retire = (state_q == StOpRun && (op_done_q || cmd_done_i != '0) && mul_done_q) || state_q == StKept;

  always_comb begin
    count_o = '0;
    count_o.op = state_q == StOpIssue;
    if (retire)
      case (op)
        foray_abi_pkg::OP_GEMV: begin
          count_o.weight_bytes = 40'((mul_p + 48'(mant_units)) << 6);
          count_o.vector_bytes = bias ? 40'(rows_pad) << 2 : '0;
        end
        foray_abi_pkg::OP_HEAD: begin
          count_o.weight_bytes = 40'((mul_p << 6) + (48'(take_rows) << 1));
          count_o.vector_bytes = d[foray_abi_pkg::HEAD_IDS_WORD] != '0 && !score ?
              40'(d[foray_abi_pkg::HEAD_USED_WORD]) << 2 : '0;
        end
        foray_abi_pkg::OP_EMBED: count_o.embed_bytes = 40'(mul_p);
        foray_abi_pkg::OP_RMSNORM: count_o.vector_bytes = 40'(d[foray_abi_pkg::RMSNORM_N_WORD]) << 2;
        foray_abi_pkg::OP_ROPE: count_o.vector_bytes = 40'(d[foray_abi_pkg::ROPE_HEAD_DIM_WORD][15:0]) << 2;
        foray_abi_pkg::OP_KV_PUT: count_o.kv_write_bytes = 40'(mul_p << 4);
        foray_abi_pkg::OP_ATTN: count_o.kv_read_bytes = 40'(mul_p << 4);
        default: ;
      endcase
    count_o.pass = state_q == StBatchDone;
    count_o.columns = count_o.pass ? c1_q : '0;
    count_o.resid_bytes = state_q == StMoved ? {10'd0, move_units[23:0], 6'd0} : '0;
    count_o.drafted = state_q == StEntryDone;
    count_o.checked = state_q == StCompare;
    count_o.corrected = state_q == StCompare && e0[0] != old_token_q;
  end
  always_comb begin
    trace_o = '0;
    trace_o.op = retire;
    trace_o.pass = state_q == StBatchDone;
    trace_o.token = state_q == StEntryDone;
    trace_o.desc = at_q[12:0];
    trace_o.opcode = op;
    trace_o.seg = seg_q;
    trace_o.in_test = section_q;
    trace_o.exit_no = exit_no[seg_q];
    trace_o.columns = c1_q - c0_q;
    trace_o.position = pos0_q + 32'(c0_q);
    trace_o.entry = i_q;
  end

  // ---- moves between context and scratchpad: residuals, or the vectors of KEEP and PREV ----
  logic [31:0] move_units, move_slots, keep_units, kept_offset;
  logic [16:0] kept_at, kept_pos;
  assign keep_units = 32'd1 + (p[foray_abi_pkg::PROG_WIDTH_WORD] >> 5) +
      ((p[foray_abi_pkg::PROG_WIDTH_WORD] + 32'd2047) >> 11);
  assign move_units = kept_q ? keep_units : width_units;
  assign move_slots = kept_q ? s[foray_abi_pkg::STATE_KEEP_SLOTS_WORD] : slots;
  assign kept_offset = (c0_q[0] ? keep_units : '0) + (c0_q[1] ? keep_units << 1 : '0) +
      (c0_q[2] ? keep_units << 2 : '0);
  assign kept_at = pos0_q[16:0] + 17'(col_q);
  assign kept_pos = !save_q && kept_at != '0 ? kept_at - 17'd1 : kept_at;

  // ---- streams ----
  logic [31:0] feed_at;  // index of the token being read
  assign feed_at = fed_q + 32'(col_q);
  always_comb begin
    range_valid_o = 1'b0;
    range_unit_o = ring_at;
    range_units_o = 32'd1;
    cd_ready_o = 1'b0;
    case (state_q)
      StLoad: begin
        range_valid_o = ld_range_valid;
        range_unit_o = ld_range_unit;
        range_units_o = ld_range_units;
        cd_ready_o = ld_cd_ready;
      end
      StFeedAsk: begin
        range_valid_o = col_q != n_q && !(keep_valid_q && keep_unit_q == feed_at >> 4);
        range_unit_o = r[foray_abi_pkg::RUN_FEED_WORD] + (feed_at >> 4);
      end
      StLoadAsk: begin
        range_valid_o = wr_idle_i;
        range_unit_o = move_addr_q;
        range_units_o = move_units;
      end
      StRingPrev: range_valid_o = wr_idle_i && i_q != '0;
      StOldAsk: range_valid_o = wr_idle_i;
      StFeedGet, StLoadGet, StRingGet, StOldGet: cd_ready_o = 1'b1;
      default: ;
    endcase
  end
  logic range_taken;
  assign range_taken = range_valid_o && range_ready_i;

  assign sp_re_o = state_q == StSaveRead;
  assign sp_raddr_o = sp_re_o ? 20'(sp_base_q + k_q) : '0;
  assign sp_we_o = state_q == StLoadGet && cd_valid_i;
  assign sp_waddr_o = sp_we_o ? 20'(sp_base_q + k_q) : '0;
  assign sp_wdata_o = sp_we_o ? cd_data_i : '0;

  // logits of scored positions, sixteen to a unit
  logic [15:0][31:0] pack_q;
  logic [15:0] pack_strb_q;
  logic [31:0] pack_addr_q;
  logic pack_valid_q, lg_take, pack_first;
  assign lg_ready_o = !pack_valid_q;
  assign lg_take = lg_valid_i && lg_ready_o && score;
  assign pack_first = lg_i.row[3:0] == '0;
  always_ff @(posedge clk_i) begin
    if (lg_take) begin
      pack_q[lg_i.row[3:0]] <= lg_i.logit;
      pack_addr_q <= dump_q[lg_i.col] + 32'(lg_i.row[19:4]);
      pack_strb_q <= (pack_first ? '0 : pack_strb_q) | 16'd1 << lg_i.row[3:0];
    end
    if (!rst_ni || abort_o) pack_valid_q <= 1'b0;
    else if (lg_take) pack_valid_q <= lg_i.row[3:0] == 4'd15 || lg_i.last;
    else if (kw_ready_i) pack_valid_q <= 1'b0;
  end

  logic [31:0] err_desc;
  assign err_desc = err_q != '0 ? at_q : '0;
  always_comb begin
    kw_valid_o = pack_valid_q;
    kw_addr_o = pack_addr_q;
    kw_data_o = pack_q;
    kw_strb_o = pack_strb_q;
    case (state_q)
      StSavePut: begin
        kw_valid_o = 1'b1;
        kw_addr_o = move_addr_q + k_q;
        kw_data_o = sp_rdata_i;
        kw_strb_o = '1;
      end
      StRingPut0: begin
        kw_valid_o = ring_ok;
        kw_addr_o = ring_at;
        kw_data_o = entry_q[511:0];
        kw_strb_o = '1;
      end
      StRingPut1: begin
        kw_valid_o = ring_ok;
        kw_addr_o = ring_at + 32'd1;
        kw_data_o = entry_q[1023:512];
        kw_strb_o = '1;
      end
      StBack0: begin
        kw_valid_o = 1'b1;
        kw_addr_o = r[foray_abi_pkg::RUN_STATE_WORD];
        kw_data_o = {state[0][511:64], len_q, state[0][31:0]};
        kw_strb_o = '1;
      end
      StBack1: begin
        kw_valid_o = 1'b1;
        kw_addr_o = r[foray_abi_pkg::RUN_STATE_WORD] + 32'd1;
        kw_data_o = done_q;
        kw_strb_o = '1;
      end
      StBack2: begin
        kw_valid_o = 1'b1;
        kw_addr_o = run_unit_q + 32'd7;
        kw_data_o = {320'd0, dumped_q, 24'd0, stop_q, len_q, drafted_q, err_desc, 24'd0, err_q};
        kw_strb_o = '1;
      end
      default: ;
    endcase
  end

  assign walk_start_o = state_q == StOpsStart;
  assign walk_from_o = pc_q;
  assign walk_to_o = step_limit != '0 && step_limit - steps_q < 32'(to_q) - 32'(pc_q) ?
      pc_q + 13'(step_limit - steps_q) : to_q;
  assign pr_valid_o = state_q == StOpRead && !fail;
  assign pr_addr_o = pc_q[11:0];

  always_comb begin
    cmd_o.desc = {256'd0, desc_q};
    cmd_o.c0 = c0_q;
    cmd_o.c1 = c1_q;
    cmd_o.pos0 = pos0_q;
    cmd_o.kv = s[foray_abi_pkg::STATE_KV_WORD];
    cmd_o.max_pos = max_pos;
    cmd_o.token = tok_q;
    cmd_o.score = score;
    cmd_valid_o = '0;
    if (state_q == StOpIssue)
      case (op)
        foray_abi_pkg::OP_GEMV, foray_abi_pkg::OP_HEAD: cmd_valid_o = 4'b0001;
        foray_abi_pkg::OP_ATTN: cmd_valid_o = 4'b0010;
        foray_abi_pkg::OP_KV_PUT: cmd_valid_o = 4'b0100;
        foray_abi_pkg::OP_KEEP, foray_abi_pkg::OP_PREV: cmd_valid_o = 4'b0000;
        default: cmd_valid_o = 4'b1000;
      endcase
  end

  assign ex_clear_o = state_q == StSection;
  assign ex_finish_o = state_q == StFinish;
  assign ex_col_o = tc_q[2:0];
  always_comb begin
    ex_arg_o.sample = (rflags & 32'(foray_abi_pkg::RUN_SAMPLE)) != '0;
    ex_arg_o.inv_temp = r[foray_abi_pkg::RUN_INV_TEMP_WORD];
    ex_arg_o.seed = {r[foray_abi_pkg::RUN_SEED_WORD+1], r[foray_abi_pkg::RUN_SEED_WORD]};
    ex_arg_o.position = pos0_q + 32'd1;
    ex_arg_o.cum = cum_q;
    ex_arg_o.exit_rule = exit_rule[{exit_no[seg_q], 3'd0}+:8];
    ex_arg_o.stop_rule = stop_rule;
  end

  assign taken_o = state_q == StIdle && start_i && ((rd_idle_i && wr_idle_i) || expired);
  assign running_o = state_q != StIdle;
  assign done_o = state_q == StDone;
  assign err_o = err_q;
  assign err_desc_o = err_desc;
  assign abort_o = state_q == StAbort || (state_q == StIdle && !rd_idle_i);
  assign unit_rst_no = rst_ni && state_q != StAbort;

  // ---- watchdog and errors of the memory ----
  localparam int unsigned Dw = $clog2(Watchdog) + 1;
  logic [Dw-1:0] quiet_q;
  logic expired, bus_q;
  assign expired = quiet_q == Dw'(Watchdog);
  always_ff @(posedge clk_i) begin
    if (!rst_ni || (state_q == StIdle && !start_i) || progress_i || cmd_valid_o != '0 || cmd_done_i != '0 ||
        ex_done_i || expired)
      quiet_q <= '0;
    else quiet_q <= quiet_q + Dw'(1);
    if (!rst_ni || state_q == StIdle) bus_q <= 1'b0;
    else if (bus_error_i) bus_q <= 1'b1;
  end

  logic [3:0] batch_n;
  logic [31:0] behind, sect_end, sect_from;
  assign behind = done_q[4'(seg_q-4'd1)] - done_q[seg_q];
  assign batch_n = behind < 32'(cols) ? behind[3:0] : cols;
  assign sect_end = pos0_q + 32'(c1_q);
  assign sect_from = first_q + unchecked_q - 32'd1;

  logic fail;
  logic [7:0] code;
  always_comb begin
    fail = 1'b0;
    code = foray_abi_pkg::ERR_BUS;
    case (state_q)
      StLoad: begin
        fail = bus_q || (ld_done && ld_err != '0);
        if (!bus_q) code = ld_err;
      end
      StFeedCheck: begin
        fail = bus_q;
        for (int unsigned k = 0; k < 8; k++)
          if (4'(k) < n_q && tok_q[k] >= vocab) begin
            fail = 1'b1;
            if (!bus_q) code = foray_abi_pkg::ERR_TOKEN;
          end
      end
      StBatch: begin
        fail = bus_q || stop_i;
        if (!bus_q) code = foray_abi_pkg::ERR_DEADLINE;
      end
      StOpRead: begin
        fail = bus_q || (step_limit != '0 && steps_q >= step_limit);
        if (!bus_q) code = foray_abi_pkg::ERR_STEPS;
      end
      StRingPut0, StRingPut1: begin
        fail = !ring_ok;
        code = foray_abi_pkg::ERR_RING;
      end
      StMoved, StBodyEnd, StTested, StScored, StCheckFirst, StDecided: fail = bus_q;
      default: ;
    endcase
  end

  function automatic logic [31:0] min32(input logic [31:0] a, input logic [31:0] b);
    min32 = a < b ? a : b;
  endfunction

  always_ff @(posedge clk_i) begin
    ld_start_q <= 1'b0;
    if (mul_done) mul_done_q <= 1'b1;
    if (cmd_done_i != '0) op_done_q <= 1'b1;
    case (state_q)
      StIdle: begin
        run_unit_q <= run_unit_i;
        heap_units_q <= heap_units_i;
        err_q <= foray_abi_pkg::ERR_NONE;
        stop_q <= 8'(foray_abi_pkg::STOP_MAX);
        at_q <= '1;
        steps_q <= '0;
        dumped_q <= '0;
        fed_q <= '0;
        drafted_q <= '0;
        unchecked_q <= '0;
        fired_q <= 1'b0;
        loaded_q <= 1'b0;
        dead_q <= 1'b0;
        drafting_q <= 1'b0;
        keep_valid_q <= 1'b0;
        in_check_q <= 1'b0;
        section_q <= 1'b0;
        kept_q <= 1'b0;
        if (taken_o) begin
          state_q <= StLoad;
          ld_start_q <= 1'b1;
        end
      end
      StLoad: begin
        dump_base_q <= r[foray_abi_pkg::RUN_DUMP_WORD];
        if (ld_done) begin
          loaded_q <= ld_err == '0;
          if (ld_err != '0) at_q <= ld_desc;
          state_q <= StCut;
        end
      end
      StCut: begin
        len_q <= start;
        for (int unsigned k = 0; k < 16; k++)
          done_q[k] <= 5'(k) < n_seg ? min32(s[foray_abi_pkg::STATE_DONE_WORD+k], start) :
              s[foray_abi_pkg::STATE_DONE_WORD+k];
        ret_flush_q <= StFeedLoop;
        state_q <= score ? StFlush : StFeedLoop;
      end

      // ---- feed ----
      StFeedLoop: begin
        n_q <= feed_n - fed_q < 32'(cols) ? 4'(feed_n - fed_q) : cols;
        col_q <= '0;
        first_q <= len_q;
        if (fed_q != feed_n) state_q <= StFeedAsk;
        else if (max_drafts != '0) state_q <= StDecide;
        else state_q <= StDraftEnd;
      end
      StFeedAsk:
      if (col_q == n_q) state_q <= StFeedCheck;
      else if (range_taken) state_q <= StFeedGet;
      else if (!range_valid_o) begin
        tok_q[col_q[2:0]] <= keep_q[{feed_at[3:0], 5'd0}+:32];
        col_q <= col_q + 4'd1;
      end
      StFeedGet:
      if (cd_valid_i) begin
        keep_q <= cd_data_i;
        keep_valid_q <= 1'b1;
        keep_unit_q <= feed_at >> 4;
        state_q <= StFeedAsk;
      end
      StFeedCheck: state_q <= StFeedRoom;  // tokens are there, fed or drafted
      StFeedRoom: begin
        ret_flush_q <= StFeedRun;
        state_q <= n_seg > 5'd1 && len_q + 32'(n_q) - done_q[4'(n_seg-5'd1)] > slots ? StFlush : StFeedRun;
      end
      StFeedRun: begin
        seg_q <= '0;
        c0_q <= '0;
        c1_q <= n_q;
        pos0_q <= len_q;
        ret_batch_q <= StFed;
        state_q <= StBatch;
      end
      StFed: begin
        len_q <= len_q + 32'(n_q);
        ret_flush_q <= StScore;
        if (drafting_q) state_q <= StDecide;
        else begin
          fed_q <= fed_q + 32'(n_q);
          state_q <= score ? StFlush : StFeedLoop;
        end
      end

      // ---- segments ----
      StFlush: begin
        seg_q <= 4'd1;
        ret_catch_q <= StFlushNext;
        state_q <= n_seg == 5'd1 ? ret_flush_q : StCatch;
      end
      StFlushNext: begin
        seg_q <= seg_q + 4'd1;
        state_q <= final_seg ? ret_flush_q : StCatch;
      end
      StCatch: begin
        ret_batch_q <= StCatch;
        if (behind == '0) state_q <= ret_catch_q;
        else begin
          c0_q <= '0;
          c1_q <= batch_n;
          pos0_q <= done_q[seg_q];
          state_q <= StBatch;
        end
      end
      StBatch: begin
        save_q <= 1'b0;
        section_q <= 1'b0;
        state_q <= seg_q != '0 ? StSlot : StBody;
      end
      // residuals of the batch's columns, from or to slot = position mod slots
      StSlot: begin
        slot_q <= '0;
        bit_q <= 5'd16;
        if (!kept_q) begin
          col_q <= '0;
          sp_base_q <= resid;
        end
        div_q <= kept_q ? kept_pos : pos0_q[16:0];
        state_q <= StSlotDiv;
      end
      StSlotDiv: begin
        slot_q <= {slot_q[30:0], div_q[16]} >= move_slots ? {slot_q[30:0], div_q[16]} - move_slots :
            {slot_q[30:0], div_q[16]};
        div_q <= div_q << 1;
        bit_q <= bit_q - 5'd1;
        if (bit_q == '0) state_q <= StSlotMul;
      end
      StSlotMul: state_q <= StMoveCol;
      StMoveCol:
      if (mul_done) begin
        move_addr_q <= (kept_q ? s[foray_abi_pkg::STATE_KEEP_WORD] : s[foray_abi_pkg::STATE_RESID_WORD]) +
            mul_p[31:0];
        k_q <= '0;
        state_q <= save_q ? StSaveRead : StLoadAsk;
      end
      StLoadAsk: if (range_taken) state_q <= StLoadGet;
      StLoadGet:
      if (cd_valid_i) begin
        k_q <= k_q + 32'd1;
        if (k_q + 32'd1 == move_units) state_q <= StMoved;
      end
      StSaveRead: state_q <= StSavePut;
      StSavePut:
      if (kw_ready_i) begin
        k_q <= k_q + 32'd1;
        state_q <= k_q + 32'd1 == move_units ? StMoved : StSaveRead;
      end
      StMoved: begin
        col_q <= col_q + 4'd1;
        sp_base_q <= sp_base_q + move_units;
        slot_q <= slot_q + 32'd1 == slots ? '0 : slot_q + 32'd1;
        if (col_q + 4'd1 != c1_q) state_q <= kept_q ? StSlot : StSlotMul;
        else if (kept_q) state_q <= StKept;
        else state_q <= save_q ? StBatchDone : StBody;
      end
      StBody: begin
        pc_q <= body[seg_q];
        to_q <= body_end[seg_q];
        ret_ops_q <= StBodyEnd;
        state_q <= StOpsStart;
      end
      StBodyEnd: begin
        save_q <= 1'b1;
        state_q <= final_seg ? StBatchDone : StSlot;
      end
      StBatchDone: begin
        done_q[seg_q] <= pos0_q + 32'(c1_q);
        state_q <= ret_batch_q;
      end

      // ---- descriptors [pc, to) over [c0, c1) ----
      StSection: begin
        section_q <= 1'b1;
        pc_q <= test[seg_q];
        to_q <= test_end[seg_q];
        state_q <= StOpsStart;
      end
      StOpsStart: state_q <= pc_q == to_q ? ret_ops_q : StOpRead;
      StOpRead: begin
        at_q <= 32'(pc_q);
        if (pr_gnt_i) state_q <= StOpLatch;
      end
      StOpLatch: begin
        desc_q <= pr_data_i;
        steps_q <= steps_q + 32'd1;
        state_q <= StOpReady;
      end
      // attention reads what KV_PUT wrote
      StOpReady: if (op != foray_abi_pkg::OP_ATTN || wr_idle_i) state_q <= StOpIssue;
      StOpIssue: begin
        mul_done_q <= 1'b0;
        op_done_q <= cmd_done_i != '0;
        state_q <= StOpRun;
        col_q <= c0_q;
        sp_base_q <= d[foray_abi_pkg::KEEP_SRC_WORD] + kept_offset;
        if (op == foray_abi_pkg::OP_KEEP || op == foray_abi_pkg::OP_PREV) begin
          kept_q <= 1'b1;
          save_q <= op == foray_abi_pkg::OP_KEEP;
          state_q <= StSlot;
        end
      end
      StOpRun, StKept:
      if (retire) begin
        kept_q <= 1'b0;
        pc_q <= pc_q + 13'd1;
        state_q <= pc_q + 13'd1 == to_q ? ret_ops_q : StOpRead;
      end

      // ---- scoring ----
      StScore: begin
        seg_q <= 4'(n_seg - 5'd1);
        c0_q <= '0;
        c1_q <= n_q;
        pos0_q <= len_q - 32'(n_q);
        col_q <= '0;
        state_q <= StScoreBase;
      end
      StScoreBase: begin
        dump_q[col_q[2:0]] <= dump_base_q;
        dump_base_q <= dump_base_q + ((final_rows + 32'd15) >> 4);
        col_q <= col_q + 4'd1;
        ret_ops_q <= StScored;
        if (col_q + 4'd1 == n_q) state_q <= StSection;
      end
      StScored:
      if (!pack_valid_q) begin
        section_q <= 1'b0;
        dumped_q <= dumped_q + 32'(n_q);
        state_q <= StFeedLoop;
      end

      // ---- drafting ----
      StDecide: begin
        drafting_q <= 1'b1;
        tried_q <= '0;
        seg_q <= '0;
        in_check_q <= 1'b0;
        i_q <= drafted_q;
        section_q <= 1'b0;
        state_q <= StSegment;
      end
      StSegment: begin
        ret_catch_q <= StTest;
        section_q <= 1'b0;
        if (final_seg && check != '0) state_q <= StCheckUp;
        else state_q <= seg_q != '0 ? StCatch : StTest;
      end
      StTest: begin
        ret_ops_q <= StTested;
        if (has_test[seg_q] && (final_seg || (r[foray_abi_pkg::RUN_TESTS_WORD][5'(exit_no[seg_q])] &&
            (check == '0 || drafted_q - unchecked_q < 32'(check)) && !(full_first && drafted_q == '0)))) begin
          c0_q <= c1_q - 4'd1;
          state_q <= StSection;
        end else begin
          seg_q <= seg_q + 4'd1;
          state_q <= StSegment;
        end
      end
      StTested: begin
        tc_q <= c0_q;
        state_q <= StRingPrev;
      end

      // full depth on all columns whose tokens it has not seen
      StCheckUp: begin
        in_check_q <= 1'b1;
        ret_batch_q <= StCheckSect;
        if (seg_q == '0) state_q <= StCheckSect;
        else begin
          c0_q <= '0;
          c1_q <= batch_n;
          pos0_q <= done_q[seg_q];
          state_q <= StBatch;
        end
      end
      StCheckSect: begin
        ret_ops_q <= StCheckFirst;
        if ($signed(sect_end) <= $signed(sect_from)) state_q <= StCheckUp;
        else begin
          if ($signed(sect_from) > $signed(pos0_q + 32'(c0_q))) c0_q <= 4'(sect_from - pos0_q);
          state_q <= StSection;
        end
      end
      StCheckFirst: begin
        tc_q <= c0_q;
        state_q <= StCheckCol;
      end
      StCheckCol: begin
        i_q <= pos0_q + 32'(tc_q) + 32'd1 - first_q;
        state_q <= StRingPrev;
      end
      StCheckNext: begin
        tc_q <= tc_q + 4'd1;
        state_q <= tc_q + 4'd1 == c1_q ? StCheckUp : StCheckCol;
      end

      // what column tc says about entry i
      StRingPrev: begin
        cum_q <= '0;
        if (i_q == '0) state_q <= StFinish;
        else if (range_taken) state_q <= StRingGet;
      end
      StRingGet:
      if (cd_valid_i) begin
        cum_q <= cd_data_i[32*foray_abi_pkg::RING_CUM_WORD+:32];
        state_q <= StFinish;
      end
      StFinish: state_q <= StFinishRun;
      StFinishRun:
      if (ex_done_i) begin
        entry_q <= ex_res_i.entry;
        state_q <= StJudge;
      end
      StJudge: begin
        entry_q[32*foray_abi_pkg::RING_POSITION_WORD+:32] <= first_q + i_q;
        entry_q[32*foray_abi_pkg::RING_EXIT_WORD+:32] <= {16'd0, tried_q + 8'd1, 5'd0, exit_no[seg_q]};
        tried_q <= tried_q + 8'd1;
        if (in_check_q && i_q != drafted_q) state_q <= StOldAsk;
        else if (final_seg || ex_res_i.exit_ge0) state_q <= StDecided;
        else begin
          seg_q <= seg_q + 4'd1;
          state_q <= StSegment;
        end
      end
      StOldAsk: begin
        tried_q <= tried_q - 8'd1;  // it was not the newest column's
        if (range_taken) state_q <= StOldGet;
        else tried_q <= tried_q;
      end
      StOldGet:
      if (cd_valid_i) begin
        old_token_q <= cd_data_i[31:0];
        {old_tried_q, old_exit_q} <= cd_data_i[32*foray_abi_pkg::RING_EXIT_WORD+:16];
        state_q <= StCompare;
      end
      StCompare: begin
        if (e0[0] != old_token_q) begin
          entry_q[32*foray_abi_pkg::RING_EXIT_WORD+:32] <=
              {16'(foray_abi_pkg::RING_CORRECTED), old_tried_q + 8'd1, 5'd0, exit_no[seg_q]};
          drafted_q <= i_q;
          len_q <= first_q + i_q;
          for (int unsigned k = 0; k < 16; k++)
            if (5'(k) < n_seg) done_q[k] <= min32(done_q[k], first_q + i_q);
          state_q <= StDecided;
        end else begin
          entry_q[32*foray_abi_pkg::RING_EXIT_WORD+:32] <=
              {16'(foray_abi_pkg::RING_CONFIRMED) | (stop_fires ? 16'(foray_abi_pkg::RING_STOP_RULE) : 16'd0),
               old_tried_q + 8'd1, old_exit_q};
          if (stop_fires) fired_q <= 1'b1;
          ret_put_q <= StCheckNext;
          state_q <= StRingPut0;
        end
      end
      StDecided: begin
        entry_q[32*foray_abi_pkg::RING_FLAGS_WORD+16+:16] <= e0[foray_abi_pkg::RING_FLAGS_WORD][31:16] |
            (stop_hit ? 16'(foray_abi_pkg::RING_STOP_ID) : 16'd0) |
            (fired ? 16'(foray_abi_pkg::RING_STOP_RULE) : 16'd0);
        ret_put_q <= StEntryDone;
        state_q <= StRingPut0;
        if (fired && stop_before) begin
          stop_q <= 8'(foray_abi_pkg::STOP_RULE);
          state_q <= StDraftEnd;
        end
      end
      StRingPut0: if (kw_ready_i) state_q <= StRingPut1;
      StRingPut1: if (kw_ready_i) state_q <= ret_put_q;
      StEntryDone: begin
        drafted_q <= drafted_q + 32'd1;
        if (full) unchecked_q <= drafted_q + 32'd1;
        tok_q[0] <= e0[0];
        n_q <= 4'd1;
        state_q <= StFeedCheck;
        if (stop_hit || fired || fired_q) begin
          stop_q <= stop_hit ? 8'(foray_abi_pkg::STOP_ID) : 8'(foray_abi_pkg::STOP_RULE);
          state_q <= StDraftEnd;
        end else if (drafted_q + 32'd1 == max_drafts) state_q <= StDraftEnd;
        else if (len_q == max_pos) begin
          stop_q <= 8'(foray_abi_pkg::STOP_CONTEXT);
          state_q <= StDraftEnd;
        end
      end

      // ---- end ----
      StDraftEnd: begin
        ret_flush_q <= StBack0;
        state_q <= do_flush ? StFlush : StBack0;
      end
      StAbort: if (rd_idle_i) state_q <= loaded_q && !dead_q ? StBack0 : StDone;
      StBack0: if (kw_ready_i) state_q <= StBack1;
      StBack1: if (kw_ready_i) state_q <= StBack2;
      StBack2: if (kw_ready_i) state_q <= StBackWait;
      StBackWait:
      if (wr_idle_i) begin
        if (bus_q && err_q == '0) err_q <= foray_abi_pkg::ERR_BUS;
        state_q <= StDone;
      end
      StDone: state_q <= StIdle;
      default: state_q <= StIdle;
    endcase
    if (fail) begin
      err_q <= code;
      stop_q <= 8'(foray_abi_pkg::STOP_ERROR);
      state_q <= StAbort;
    end
    if (expired) begin
      err_q <= foray_abi_pkg::ERR_BUS;
      stop_q <= 8'(foray_abi_pkg::STOP_ERROR);
      dead_q <= 1'b1;
      state_q <= dead_q || state_q == StIdle || state_q == StAbort ? StDone : StAbort;
    end
    if (!rst_ni) state_q <= StIdle;
  end
endmodule
