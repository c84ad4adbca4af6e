// Reads and checks run block, context and program before anything is executed; same rules, same order, same codes as
// host/dev/validate.c. The program is copied on chip, so that nothing the run writes can change it.
module foray_load #(
    parameter int unsigned Cols = 1,
    parameter int unsigned ScratchUnits = 16384,
    parameter int unsigned ActGroups = 2048,
    parameter int unsigned QGroups = 2048,
    /// Descriptors that the program memory holds.
    parameter int unsigned ProgDepth = 4096
) (
    input logic clk_i,
    input logic rst_ni,
    input logic start_i,
    /// Gives up; the read client is drained by the sequencer.
    input logic abort_i,
    input logic [31:0] run_unit_i,
    input logic [31:0] heap_units_i,
    output logic done_o,
    output logic [7:0] err_o,
    output logic [31:0] err_desc_o,

    /// Reads of units, in heap units.
    output logic range_valid_o,
    input logic range_ready_i,
    output logic [31:0] range_unit_o,
    output logic [31:0] range_units_o,
    input logic cd_valid_i,
    output logic cd_ready_o,
    input logic [511:0] cd_data_i,

    /// Program memory: words 0..7 of each descriptor.
    output logic pw_valid_o,
    output logic [11:0] pw_addr_o,
    output logic [255:0] pw_data_o,

    /// Stable after done until the next start.
    output logic [7:0][511:0] run_o,
    output logic [1:0][511:0] state_o,
    output logic [255:0] prog_o,
    output logic [15:0][12:0] body_o,
    output logic [15:0][12:0] body_end_o,
    output logic [15:0][12:0] test_o,
    output logic [15:0][12:0] test_end_o,
    output logic [15:0][2:0] exit_o,
    output logic [15:0] has_test_o,
    output logic [31:0] final_rows_o
);
  typedef enum logic [4:0] {
    StIdle,
    StRunAsk,
    StRunGet,
    StRunCheck,
    StStateAsk,
    StStateGet,
    StStateCheck,
    StProgAsk,
    StProgGet,
    StProgCheck,
    StBodyAsk,
    StBodyGet,
    StBodyCheck,
    StOpWait,
    StTogether,
    StDoneOrder,
    StResid,
    StResidWait,
    StKeep,
    StKeepWait,
    StStart,
    StDump,
    StDumpWait
  } state_e;
  state_e state_q;

  function automatic logic heap_ok(input logic [31:0] unit, input logic [47:0] n, input logic [31:0] all);
    heap_ok = unit != '0 && 49'(unit) + 49'(n) <= 49'(all);
  endfunction

  // ---- records ----
  logic [127:0][31:0] r;
  logic [31:0][31:0] s;
  logic [7:0][31:0] p;
  assign r = run_o;
  assign s = state_o;
  assign p = prog_o;
  logic [15:0][31:0] w_q;  // descriptor under inspection
  logic [7:0] op, flags;
  assign op = w_q[0][7:0];
  assign flags = w_q[0][15:8];

  logic [31:0] n_desc;
  logic [7:0] n_seg, n_test, cols;
  logic [31:0] width, width_units;
  assign n_desc = p[foray_abi_pkg::PROG_N_DESC_WORD];
  assign n_seg = p[foray_abi_pkg::PROG_N_SEG_WORD][foray_abi_pkg::PROG_N_SEG_LSB+:8];
  assign n_test = p[foray_abi_pkg::PROG_N_TEST_WORD][foray_abi_pkg::PROG_N_TEST_LSB+:8];
  assign cols = p[foray_abi_pkg::PROG_COLS_WORD][foray_abi_pkg::PROG_COLS_LSB+:8];
  assign width = p[foray_abi_pkg::PROG_WIDTH_WORD];
  assign width_units = 32'd1 + (width >> 4);

  logic sample, score;
  logic [31:0] rflags, max_drafts, feed_n, ring_slots;
  assign rflags = r[foray_abi_pkg::RUN_FLAGS_WORD];
  assign sample = (rflags & 32'(foray_abi_pkg::RUN_SAMPLE)) != '0;
  assign score = (rflags & 32'(foray_abi_pkg::RUN_SCORE)) != '0;
  assign max_drafts = r[foray_abi_pkg::RUN_MAX_DRAFTS_WORD];
  assign feed_n = r[foray_abi_pkg::RUN_FEED_N_WORD];
  assign ring_slots = r[foray_abi_pkg::RUN_RING_SLOTS_WORD];
  localparam logic [31:0] RunKnown = 32'(foray_abi_pkg::RUN_SAMPLE | foray_abi_pkg::RUN_SCORE |
      foray_abi_pkg::RUN_FLUSH | foray_abi_pkg::RUN_STOP_BEFORE | foray_abi_pkg::RUN_FULL_FIRST);

  logic [7:0] run_err, state_err, prog_err;
  logic [31:0] inv_temp;
  assign inv_temp = r[foray_abi_pkg::RUN_INV_TEMP_WORD];
  always_comb begin
    run_err = foray_abi_pkg::ERR_NONE;
    if (r[0] != 32'(foray_abi_pkg::MAGIC_RUN) || (run_o & foray_abi_pkg::RUN_SPARE) != '0 ||
        (rflags & ~RunKnown) != '0 || r[foray_abi_pkg::RUN_STOP_N_WORD] > 32'(foray_abi_pkg::STOP_IDS) ||
        32'(r[foray_abi_pkg::RUN_CHECK_WORD][7:0]) >= 32'(foray_abi_pkg::COLS_MAX) ||
        (sample ? inv_temp == '0 || inv_temp > 32'h0400_0000 : inv_temp != '0) ||
        (score && max_drafts != '0) || (max_drafts != '0 && feed_n == '0))
      run_err = foray_abi_pkg::ERR_RUN;
    else if (!heap_ok(r[foray_abi_pkg::RUN_PROGRAM_WORD], 48'd1, heap_units_i) ||
        !heap_ok(r[foray_abi_pkg::RUN_STATE_WORD], 48'd2, heap_units_i) ||
        (feed_n != '0 && !heap_ok(r[foray_abi_pkg::RUN_FEED_WORD], (48'(feed_n) + 48'd15) >> 4, heap_units_i)))
      run_err = foray_abi_pkg::ERR_ADDRESS;
    else if (max_drafts != '0) begin
      if (ring_slots < max_drafts || r[foray_abi_pkg::RUN_RING_HEAD_WORD] >= ring_slots)
        run_err = foray_abi_pkg::ERR_RING;
      else if (!heap_ok(r[foray_abi_pkg::RUN_RING_WORD], 48'(ring_slots) << 1, heap_units_i))
        run_err = foray_abi_pkg::ERR_ADDRESS;
    end
  end
  logic [31:0] len, max_pos;
  assign len = s[foray_abi_pkg::STATE_LEN_WORD];
  assign max_pos = s[foray_abi_pkg::STATE_MAX_POS_WORD];
  always_comb begin
    state_err = foray_abi_pkg::ERR_NONE;
    if (s[0] != 32'(foray_abi_pkg::MAGIC_STATE) || (state_o & foray_abi_pkg::STATE_SPARE) != '0 ||
        max_pos == '0 || max_pos > 32'(foray_abi_pkg::POSITIONS_MAX) || len > max_pos)
      state_err = foray_abi_pkg::ERR_STATE;
    else if (!heap_ok(s[foray_abi_pkg::STATE_KV_WORD], 48'(s[foray_abi_pkg::STATE_KV_UNITS_WORD]), heap_units_i))
      state_err = foray_abi_pkg::ERR_ADDRESS;
  end
  logic [31:0] vocab;
  logic [35:0] resid_end;
  assign vocab = p[foray_abi_pkg::PROG_VOCAB_WORD];
  assign resid_end = 36'(p[foray_abi_pkg::PROG_RESID_WORD]) + (cols[0] ? 36'(width_units) : '0) +
      (cols[1] ? 36'(width_units) << 1 : '0) + (cols[2] ? 36'(width_units) << 2 : '0) +
      (cols[3] ? 36'(width_units) << 3 : '0);
  always_comb begin
    prog_err = foray_abi_pkg::ERR_NONE;
    if (op != foray_abi_pkg::OP_PROG) prog_err = foray_abi_pkg::ERR_ORDER;
    else if ({w_q[15], w_q[14]} != foray_abi_pkg::ABI_HASH ||
        w_q[0][31:16] != 16'(foray_abi_pkg::VERSION))
      prog_err = foray_abi_pkg::ERR_ABI;
    else if ((w_q & foray_abi_pkg::PROG_SPARE) != '0 || flags != '0) prog_err = foray_abi_pkg::ERR_FIELD;
    else if (n_desc < 32'd5 || n_desc > 32'(ProgDepth) || n_seg == '0 ||
        n_seg > 8'(foray_abi_pkg::SEGMENTS_MAX) || n_test == '0 || n_test > 8'(foray_abi_pkg::TESTS_MAX) ||
        n_test > n_seg || cols == '0 || cols > 8'(Cols) || vocab == '0 ||
        vocab > 32'(foray_abi_pkg::ROWS_LIMIT) || width == '0 ||
        width > 32'(foray_abi_pkg::COLUMNS_LIMIT) || width[4:0] != '0)
      prog_err = foray_abi_pkg::ERR_SHAPE;
    else if (resid_end > 36'(ScratchUnits)) prog_err = foray_abi_pkg::ERR_SCRATCH;
    else if (!heap_ok(r[foray_abi_pkg::RUN_PROGRAM_WORD], 48'(n_desc), heap_units_i))
      prog_err = foray_abi_pkg::ERR_ADDRESS;
  end

  // ---- the program's structure ----
  logic [12:0] at_q;
  logic [4:0] seg_next_q;
  logic [3:0] seg_q, test_next_q;
  logic open_q, in_test_q, embed_q, head_q, final_q, keeps_q;  // final_q: the open segment has the final section
  logic [7:0] body_err;
  logic is_op, has_test, last_test;
  logic [7:0] index;
  assign index = w_q[1][7:0];
  assign has_test = open_q && has_test_o[seg_q];
  assign last_test = index == n_test - 8'd1;
  always_comb begin
    body_err = foray_abi_pkg::ERR_NONE;
    is_op = 1'b0;
    case (op)
      foray_abi_pkg::OP_SEG:
      if ((w_q & foray_abi_pkg::SEG_SPARE) != '0 || flags != '0) body_err = foray_abi_pkg::ERR_FIELD;
      else if (in_test_q || index != 8'(seg_next_q) || 8'(seg_next_q) >= n_seg ||
          !(seg_q != '0 || !open_q || embed_q))
        body_err = foray_abi_pkg::ERR_ORDER;
      foray_abi_pkg::OP_TEST:
      if ((w_q & foray_abi_pkg::TEST_SPARE) != '0 || (flags & ~8'(foray_abi_pkg::DF_FINAL)) != '0)
        body_err = foray_abi_pkg::ERR_FIELD;
      else if (!open_q || in_test_q || has_test || index != 8'(test_next_q) || 8'(test_next_q) >= n_test ||
          flags[0] != (8'(seg_q) == n_seg - 8'd1) || flags[0] != last_test)
        body_err = foray_abi_pkg::ERR_ORDER;
      foray_abi_pkg::OP_EXIT:
      if ((w_q & foray_abi_pkg::EXIT_SPARE) != '0 || w_q[0][31:8] != '0) body_err = foray_abi_pkg::ERR_FIELD;
      else if (!in_test_q || !head_q) body_err = foray_abi_pkg::ERR_ORDER;
      foray_abi_pkg::OP_END:
      if ((w_q & foray_abi_pkg::END_SPARE) != '0 || w_q[0][31:8] != '0) body_err = foray_abi_pkg::ERR_FIELD;
      else if (32'(at_q) != n_desc - 32'd1 || in_test_q || 8'(seg_next_q) != n_seg ||
          8'(test_next_q) != n_test || !open_q || !final_q || !embed_q)
        body_err = foray_abi_pkg::ERR_ORDER;
      foray_abi_pkg::OP_PROG: body_err = foray_abi_pkg::ERR_ORDER;
      default: is_op = 1'b1;
    endcase
  end

  logic ck_start, ck_done;
  logic [7:0] ck_err;
  assign ck_start = state_q == StBodyCheck && is_op;
  foray_check #(
      .ScratchUnits(ScratchUnits),
      .ActGroups(ActGroups),
      .QGroups(QGroups)
  ) u_check (
      .clk_i,
      .rst_ni(rst_ni && !abort_i),
      .start_i(ck_start),
      .desc_i(w_q),
      .heap_units_i,
      .cols_i(cols[3:0]),
      .vocab_i(vocab),
      .width_i(width),
      .max_pos_i(max_pos[23:0]),
      .kv_units_i(s[foray_abi_pkg::STATE_KV_UNITS_WORD]),
      .seg0_i(seg_q == '0),
      .in_test_i(in_test_q),
      .embed_seen_i(embed_q),
      .head_seen_i(head_q),
      .done_o(ck_done),
      .err_o(ck_err)
  );

  // ---- reads ----
  logic [2:0] k_q;
  assign range_valid_o = state_q == StRunAsk || state_q == StStateAsk || state_q == StProgAsk ||
      state_q == StBodyAsk;
  always_comb begin
    range_unit_o = run_unit_i;
    range_units_o = 32'd8;
    if (state_q == StStateAsk) begin
      range_unit_o = r[foray_abi_pkg::RUN_STATE_WORD];
      range_units_o = 32'd2;
    end else if (state_q == StProgAsk) begin
      range_unit_o = r[foray_abi_pkg::RUN_PROGRAM_WORD];
      range_units_o = 32'd1;
    end else if (state_q == StBodyAsk) begin
      range_unit_o = r[foray_abi_pkg::RUN_PROGRAM_WORD] + 32'd1;
      range_units_o = n_desc - 32'd1;
    end
  end
  assign cd_ready_o = state_q == StRunGet || state_q == StStateGet || state_q == StProgGet ||
      state_q == StBodyGet;
  assign pw_valid_o = state_q == StBodyCheck || state_q == StProgCheck;
  assign pw_addr_o = state_q == StProgCheck ? '0 : at_q[11:0];
  assign pw_data_o = w_q[7:0];

  logic mul_start, mul_done;
  logic [23:0] mul_a, mul_b;
  logic [47:0] mul_p;
  logic [31:0] slots, dump_each;
  assign slots = s[foray_abi_pkg::STATE_RESID_SLOTS_WORD];
  assign dump_each = (final_rows_o + 32'd15) >> 4;
  logic [31:0] keep_slots, keep_units;
  assign keep_slots = s[foray_abi_pkg::STATE_KEEP_SLOTS_WORD];
  assign keep_units = 32'd1 + (width >> 5) + ((width + 32'd2047) >> 11);
  assign mul_start = state_q == StResid || state_q == StKeep || state_q == StDump;
  always_comb begin
    mul_a = slots[23:0];
    mul_b = width_units[23:0];
    if (state_q == StKeep) begin
      mul_a = keep_slots[23:0];
      mul_b = keep_units[23:0];
    end else if (state_q == StDump) begin
      mul_a = dump_each[23:0];
      mul_b = feed_n[23:0];
    end
  end
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

  logic [3:0] i_q;
  logic [15:0][31:0] done;
  for (genvar g = 0; g < 16; g++) begin : gen_done
    assign done[g] = s[foray_abi_pkg::STATE_DONE_WORD+g];
  end

  logic fail;  // combinational: this state ends with code
  logic [7:0] code;
  always_comb begin
    code = foray_abi_pkg::ERR_NONE;
    case (state_q)
      StIdle: if (!heap_ok(run_unit_i, 48'd8, heap_units_i)) code = foray_abi_pkg::ERR_ADDRESS;
      StRunCheck: code = run_err;
      StStateCheck: code = state_err;
      StProgCheck: code = prog_err;
      StBodyCheck: if (!is_op) code = body_err;
      StOpWait:
      if (ck_done)
        code = ck_err != '0 ? ck_err :
            !open_q || (!in_test_q && has_test) ? foray_abi_pkg::ERR_ORDER : foray_abi_pkg::ERR_NONE;
      StTogether: if (done[0] != len) code = foray_abi_pkg::ERR_STATE;
      StDoneOrder: if (done[i_q] > done[4'(i_q - 4'd1)]) code = foray_abi_pkg::ERR_STATE;
      StResid:
      if (slots < 32'(cols) || slots > 32'(foray_abi_pkg::POSITIONS_MAX) ||
          len - done[4'(n_seg-8'd1)] > slots)
        code = foray_abi_pkg::ERR_STATE;
      StResidWait:
      if (mul_done && !heap_ok(s[foray_abi_pkg::STATE_RESID_WORD], mul_p, heap_units_i))
        code = foray_abi_pkg::ERR_ADDRESS;
      StKeep:
      if (keeps_q && (keep_slots <= 32'(cols) || keep_slots > 32'(foray_abi_pkg::POSITIONS_MAX)))
        code = foray_abi_pkg::ERR_STATE;
      StKeepWait:
      if (keeps_q && mul_done && !heap_ok(s[foray_abi_pkg::STATE_KEEP_WORD], mul_p, heap_units_i))
        code = foray_abi_pkg::ERR_ADDRESS;
      StStart:
      if (r[foray_abi_pkg::RUN_START_WORD] > len) code = foray_abi_pkg::ERR_RUN;
      else if (feed_n > max_pos - r[foray_abi_pkg::RUN_START_WORD]) code = foray_abi_pkg::ERR_CONTEXT;
      StDumpWait:
      if (mul_done) begin
        if (mul_p > 48'(r[foray_abi_pkg::RUN_DUMP_UNITS_WORD])) code = foray_abi_pkg::ERR_DUMP;
        else if (!heap_ok(r[foray_abi_pkg::RUN_DUMP_WORD], 48'(r[foray_abi_pkg::RUN_DUMP_UNITS_WORD]), heap_units_i))
          code = foray_abi_pkg::ERR_ADDRESS;
      end
      default: ;
    endcase
    fail = code != foray_abi_pkg::ERR_NONE && (state_q != StIdle || start_i);
    // a program that never ends
    if (state_q == StBodyGet && 32'(at_q) == n_desc) begin
      code = foray_abi_pkg::ERR_ORDER;
      fail = 1'b1;
    end
  end

  always_ff @(posedge clk_i) begin
    done_o <= 1'b0;
    case (state_q)
      StIdle: begin
        k_q <= '0;
        if (start_i) begin
          err_o <= foray_abi_pkg::ERR_NONE;
          err_desc_o <= '1;
          state_q <= StRunAsk;
        end
      end
      StRunAsk: if (range_ready_i) state_q <= StRunGet;
      StRunGet:
      if (cd_valid_i) begin
        run_o[k_q] <= cd_data_i;
        k_q <= k_q + 3'd1;
        if (k_q == 3'd7) state_q <= StRunCheck;
      end
      StRunCheck: state_q <= StStateAsk;
      StStateAsk: if (range_ready_i) state_q <= StStateGet;
      StStateGet:
      if (cd_valid_i) begin
        state_o[k_q[0]] <= cd_data_i;
        k_q <= k_q + 3'd1;
        if (k_q[0]) state_q <= StStateCheck;
      end
      StStateCheck: begin
        state_q <= StProgAsk;
        if (!fail) err_desc_o <= '0;
      end
      StProgAsk: if (range_ready_i) state_q <= StProgGet;
      StProgGet:
      if (cd_valid_i) begin
        w_q <= cd_data_i;
        prog_o <= cd_data_i[255:0];
        state_q <= StProgCheck;
      end
      StProgCheck: begin
        at_q <= 13'd1;
        seg_next_q <= '0;
        seg_q <= '0;
        test_next_q <= '0;
        open_q <= 1'b0;
        in_test_q <= 1'b0;
        embed_q <= 1'b0;
        head_q <= 1'b0;
        final_q <= 1'b0;
        keeps_q <= 1'b0;
        has_test_o <= '0;
        final_rows_o <= '0;
        state_q <= StBodyAsk;
      end
      StBodyAsk: if (range_ready_i) state_q <= StBodyGet;
      StBodyGet:
      if (cd_valid_i) begin
        w_q <= cd_data_i;
        err_desc_o <= 32'(at_q);
        state_q <= StBodyCheck;
      end
      StBodyCheck: begin
        state_q <= StBodyGet;
        if (is_op) state_q <= StOpWait;
        else at_q <= at_q + 13'd1;
        case (op)
          foray_abi_pkg::OP_SEG: begin
            if (open_q && !has_test) body_end_o[seg_q] <= at_q;
            open_q <= 1'b1;
            final_q <= 1'b0;
            seg_q <= 4'(seg_next_q);
            seg_next_q <= seg_next_q + 5'd1;
            body_o[4'(seg_next_q)] <= at_q + 13'd1;
            body_end_o[4'(seg_next_q)] <= at_q + 13'd1;
          end
          foray_abi_pkg::OP_TEST: begin
            test_next_q <= test_next_q + 4'd1;
            body_end_o[seg_q] <= at_q;
            test_o[seg_q] <= at_q + 13'd1;
            exit_o[seg_q] <= index[2:0];
            has_test_o[seg_q] <= 1'b1;
            final_q <= flags[0];
            in_test_q <= 1'b1;
            head_q <= 1'b0;
          end
          foray_abi_pkg::OP_EXIT: begin
            test_end_o[seg_q] <= at_q;
            in_test_q <= 1'b0;
          end
          foray_abi_pkg::OP_END: begin
            err_desc_o <= fail ? 32'(at_q) : '1;
            state_q <= StTogether;
          end
          default: ;
        endcase
      end
      StOpWait:
      if (ck_done) begin
        if (op == foray_abi_pkg::OP_EMBED) embed_q <= 1'b1;
        if (op == foray_abi_pkg::OP_KEEP || op == foray_abi_pkg::OP_PREV) keeps_q <= 1'b1;
        if (op == foray_abi_pkg::OP_HEAD) begin
          head_q <= 1'b1;
          if (final_q) final_rows_o <= w_q[foray_abi_pkg::HEAD_USED_WORD];
        end
        at_q <= at_q + 13'd1;
        state_q <= StBodyGet;
      end
      StTogether: begin
        i_q <= 4'd1;
        state_q <= n_seg > 8'd1 ? StDoneOrder : StKeep;
      end
      StDoneOrder: begin
        i_q <= i_q + 4'd1;
        if (8'(i_q) == n_seg - 8'd1) state_q <= StResid;
      end
      StResid: state_q <= StResidWait;
      StResidWait: if (mul_done) state_q <= StKeep;
      StKeep: state_q <= StKeepWait;
      StKeepWait: if (mul_done) state_q <= StStart;
      StStart: begin
        if (score && feed_n != '0) state_q <= StDump;
        else begin
          state_q <= StIdle;
          done_o <= 1'b1;
        end
      end
      StDump: state_q <= StDumpWait;
      StDumpWait:
      if (mul_done) begin
        state_q <= StIdle;
        done_o <= 1'b1;
      end
      default: state_q <= StIdle;
    endcase
    if (fail) begin
      err_o <= code;
      done_o <= 1'b1;
      state_q <= StIdle;
      if (state_q == StIdle) err_desc_o <= '1;
    end
    if (!rst_ni || abort_i) begin
      state_q <= StIdle;
      done_o <= 1'b0;
    end
  end
endmodule
