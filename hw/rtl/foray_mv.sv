// Matrix-vector engine: GEMV and HEAD of docs/numerics.md 5 over weights as docs/image.md stores them.
//
// One slice of WS_W bits of the weight stream a cycle, for all columns at once; the stream waits only for the
// activations at the start of an operation and, with row blocks that are shorter than their way out, for a
// bank of sums (foray_mv_out). Parts: foray_mv_load (activations in), foray_mv_col (one per column: products,
// group sums, scales), foray_mv_out (row scale, rounding, bias, logits). This module walks the row blocks.
//
// Limit: cols <= 32 * ActGroups; foray_check refuses larger ones.
module foray_mv #(
    /// Columns, 1..8.
    parameter int unsigned Cols = 1,
    /// Bits of a weight stream beat: 64, 128, 256 or 512.
    parameter int unsigned WsW = 512,
    /// Groups of 32 activations that fit, a power of two.
    parameter int unsigned ActGroups = 512
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
    /// Weight stream.
    input  logic             ws_valid_i,
    /// See ws_valid_i.
    output logic             ws_ready_o,
    /// See ws_valid_i.
    input  logic [WsW-1:0]   ws_data_i,
    /// Row mantissas, bias, ids.
    input  logic             ax_valid_i,
    /// See ax_valid_i.
    output logic             ax_ready_o,
    /// See ax_valid_i.
    input  logic [511:0]     ax_data_i,
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
    output logic [15:0]      sp_wstrb_o,
    /// Logits.
    output logic             lg_valid_o,
    /// See lg_valid_o.
    input  logic             lg_ready_i,
    /// See lg_valid_o.
    output foray_pkg::logit_t lg_o
);

  localparam int unsigned ScaleRows = WsW >= 128 ? WsW / 128 : 1;
  localparam int unsigned OutRows = ScaleRows >= 2 ? 2 : 1;
  localparam int unsigned Subs = 512 / WsW;
  localparam int unsigned NumSteps = 16 / ScaleRows;

  // ---- the command
  logic is_head, q4, has_bias;
  logic [31:0] src, dst, cols, rows, used, ids;
  logic signed [15:0] mat_exp;
  logic [3:0] ncols;
  logic [15:0] groups;
  logic [16:0] blocks;
  logic [3:0] t;
  assign is_head = cmd_i.desc[7:0] == foray_abi_pkg::OP_HEAD;
  assign has_bias = !is_head && |(cmd_i.desc[15:8] & 8'(foray_abi_pkg::DF_BIAS));
  assign q4 = cmd_i.desc[32*foray_abi_pkg::GEMV_QTYPE_WORD+foray_abi_pkg::GEMV_QTYPE_LSB+:8] ==
      8'(foray_abi_pkg::QTYPE_Q4A);
  assign src = cmd_i.desc[32*foray_abi_pkg::GEMV_SRC_WORD+:32];
  assign dst = cmd_i.desc[32*foray_abi_pkg::GEMV_DST_WORD+:32];
  assign cols = cmd_i.desc[32*foray_abi_pkg::GEMV_COLS_WORD+:32];
  assign rows = cmd_i.desc[32*foray_abi_pkg::GEMV_ROWS_WORD+:32];
  assign used = cmd_i.desc[32*foray_abi_pkg::HEAD_USED_WORD+:32];
  assign ids = cmd_i.desc[32*foray_abi_pkg::HEAD_IDS_WORD+:32];
  assign mat_exp = cmd_i.desc[32*foray_abi_pkg::GEMV_EXP_WORD+foray_abi_pkg::GEMV_EXP_LSB+:16];
  assign ncols = cmd_i.c1 - cmd_i.c0;
  assign groups = cols[20:5];
  logic unused_cmd;
  assign unused_cmd = &{1'b0, src[31:20], dst[31:20], cols[31:21], cols[4:0], cmd_i.pos0, cmd_i.kv, cmd_i.max_pos,
      cmd_i.token, cmd_i.score, cmd_i.desc[511:256]};
  assign blocks = is_head ? 17'((used + 32'd15) >> 4) : 17'((rows + 32'd15) >> 4);
  assign t = 4'd4 + (groups <= 16'd1 ? 4'd0 : 4'(foray_math_pkg::bitlen64(64'(groups) - 64'd1)));

  // ---- states
  typedef enum logic [1:0] {
    StIdle,
    StLoad,
    StRun
  } state_e;
  state_e state_q;
  logic load_done, out_done;
  logic front_q;  // there are slices to take
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= StIdle;
    end else begin
      unique case (state_q)
        StIdle: if (cmd_valid_i) state_q <= StLoad;
        StLoad: if (load_done) state_q <= StRun;
        default: if (out_done) state_q <= StIdle;
      endcase
    end
  end
  assign busy_o = state_q != StIdle;
  assign done_o = state_q == StRun && out_done;

  // ---- activations
  logic load_re;
  logic [19:0] load_raddr;
  logic [Cols-1:0][14:0] act_exp;
  logic [Cols-1:0] act_we, sum_we;
  logic [15:0] act_waddr, sum_waddr;
  logic [511:0] act_wdata;
  logic [24:0] sum_wdata;
  foray_mv_load #(
      .Cols(Cols)
  ) u_load (
      .clk_i,
      .rst_ni,
      .start_i(cmd_valid_i),
      .src_i(src[19:0]),
      .groups_i(groups),
      .c0_i(cmd_i.c0),
      .ncols_i(ncols),
      .done_o(load_done),
      .sp_re_o(load_re),
      .sp_raddr_o(load_raddr),
      .sp_rdata_i,
      .exp_o(act_exp),
      .act_we_o(act_we),
      .act_waddr_o(act_waddr),
      .act_wdata_o(act_wdata),
      .sum_we_o(sum_we),
      .sum_waddr_o(sum_waddr),
      .sum_wdata_o(sum_wdata)
  );

  // ---- the walk: row blocks of code beats and weight beats, slice by slice
  logic [16:0] blk_q;
  logic [15:0] grp_q;
  logic [2:0] beat_q, sub_q;
  logic code_q;  // the next beat holds scales
  logic [1:0] tag_q;  // which of the last code beats belongs to the weights that follow
  logic [1:0] credit_q;  // banks of sums that are free
  logic bank_free, bank_q;
  logic take, last_sub, last_beat, last_grp, quad_end, start_block;
  assign start_block = code_q && grp_q == '0 && sub_q == '0;
  assign ws_ready_o = front_q && (!start_block || credit_q != '0);
  assign take = ws_valid_i && ws_ready_o;
  assign last_sub = sub_q == 3'(Subs - 1);
  assign last_beat = beat_q == (q4 ? 3'd3 : 3'd7);
  assign last_grp = grp_q + 16'd1 == groups;
  assign quad_end = q4 ? grp_q[0] : &grp_q[1:0];

  always_ff @(posedge clk_i) begin
    if (!rst_ni || cmd_valid_i) begin
      front_q <= 1'b0;
      blk_q <= '0;
      grp_q <= '0;
      beat_q <= '0;
      sub_q <= '0;
      code_q <= 1'b1;
      tag_q <= '0;
      bank_q <= 1'b0;
      credit_q <= 2'd2;
    end else begin
      if (state_q == StLoad && load_done) front_q <= 1'b1;
      credit_q <= credit_q + 2'(bank_free) - 2'(take && start_block);
      if (take) begin
        sub_q <= last_sub ? '0 : sub_q + 3'd1;
        if (last_sub) begin
          if (code_q) begin
            code_q <= 1'b0;
            tag_q <= tag_q + 2'd1;
          end else begin
            beat_q <= last_beat ? '0 : beat_q + 3'd1;
            if (last_beat) begin
              grp_q <= last_grp ? '0 : grp_q + 16'd1;
              code_q <= last_grp || quad_end;
              if (last_grp) begin
                bank_q <= !bank_q;
                blk_q <= blk_q + 17'd1;
                if (blk_q + 17'd1 == blocks) front_q <= 1'b0;
              end
            end
          end
        end
      end
    end
  end

  // ---- scales of the last four code beats (a group's are used up to eleven cycles after its last beat)
  logic [511:0] codes_q[4];
  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < 4; i++) begin
      for (int unsigned s = 0; s < Subs; s++) begin
        if (take && code_q && (tag_q + 2'd1) == 2'(i) && sub_q == 3'(s)) codes_q[i][WsW*s+:WsW] <= ws_data_i;
      end
    end
  end

  // ---- control that goes along with a slice: index = cycles after it was taken
  typedef struct packed {
    logic valid;
    logic [2:0] sub;
    logic first;  // beat of its group
    logic last;  // slice of its group
    logic [15:0] group;
    logic group0;  // first group of the row block
    logic block_end;  // last group of the row block
    logic bank;
    logic [1:0] tag;
    logic [1:0] part;  // of the code beat
  } along_t;
  along_t along_d, along_q1, along_q2, along_q3, along_q4, along_q5, along_q6;
  always_comb begin
    along_d.valid = take && !code_q;
    along_d.sub = sub_q;
    along_d.first = beat_q == '0;
    along_d.last = last_beat && last_sub;
    along_d.group = grp_q;
    along_d.group0 = grp_q == '0;
    along_d.block_end = last_grp;
    along_d.bank = bank_q;
    along_d.tag = tag_q;
    along_d.part = grp_q[1:0];
  end
  always_ff @(posedge clk_i) begin
    along_q1 <= along_d;
    along_q2 <= along_q1;
    along_q3 <= along_q2;
    along_q4 <= along_q3;
    along_q5 <= along_q4;
    along_q6 <= along_q5;
    if (!rst_ni) begin
      along_q1.valid <= 1'b0;
      along_q2.valid <= 1'b0;
      along_q3.valid <= 1'b0;
      along_q4.valid <= 1'b0;
      along_q5.valid <= 1'b0;
      along_q6.valid <= 1'b0;
    end
  end
  logic [WsW-1:0] slice_q;
  always_ff @(posedge clk_i) if (take) slice_q <= ws_data_i;

  // ---- steps of a group through the scales
  logic xfer;
  assign xfer = along_q6.valid && along_q6.last;
  logic step_q;
  logic [4:0] count_q;
  logic [127:0] sc_q, zp_q;
  logic [127:0] sc_new, zp_new;
  logic [511:0] codes;
  logic sgroup0_q, sbank_q, send_q;
  logic unused_along;
  assign unused_along = &{1'b0, along_q6.sub, along_q6.first, along_q6.group};
  assign codes = codes_q[along_q6.tag];
  assign sc_new = q4 ? (along_q6.part[0] ? codes[256+:128] : codes[0+:128]) : codes[128*along_q6.part+:128];
  assign zp_new = along_q6.part[0] ? codes[384+:128] : codes[128+:128];
  always_ff @(posedge clk_i) begin
    if (!rst_ni) step_q <= 1'b0;
    else if (xfer) step_q <= 1'b1;
    else if (count_q == 5'(NumSteps - 1)) step_q <= 1'b0;
    if (xfer) begin
      count_q <= '0;
      sc_q <= sc_new;
      zp_q <= zp_new;
      sgroup0_q <= along_q6.group0;
      sbank_q <= along_q6.bank;
      send_q <= along_q6.block_end;
    end else begin
      count_q <= count_q + 5'd1;
      sc_q <= 128'(sc_q >> (8 * ScaleRows));
      zp_q <= 128'(zp_q >> (8 * ScaleRows));
    end
  end
  // four cycles later the sums are written
  logic [3:0] w_q, wfirst_q, wend_q, wbank_q;
  logic [3:0] wcount_q[4];
  always_ff @(posedge clk_i) begin
    w_q <= rst_ni ? {w_q[2:0], step_q} : 4'd0;
    wfirst_q <= {wfirst_q[2:0], sgroup0_q};
    wend_q <= {wend_q[2:0], send_q && count_q == 5'(NumSteps - 1)};
    wbank_q <= {wbank_q[2:0], sbank_q};
    wcount_q[0] <= count_q[3:0];
    for (int i = 1; i < 4; i++) wcount_q[i] <= wcount_q[i-1];
  end
  logic bank_done_q;
  always_ff @(posedge clk_i) bank_done_q <= w_q[3] && wend_q[3] && rst_ni;

  logic [4:0] acc_addr;
  logic [Cols-1:0][ScaleRows-1:0][61:0] acc;
  for (genvar c = 0; c < Cols; c++) begin : gen_col
    foray_mv_col #(
        .SliceW(WsW),
        .ScaleRows(ScaleRows),
        .Groups(ActGroups)
    ) u_col (
        .clk_i,
        .act_we_i(act_we[c]),
        .act_waddr_i(act_waddr),
        .act_wdata_i(act_wdata),
        .sum_we_i(sum_we[c]),
        .sum_waddr_i(sum_waddr),
        .sum_wdata_i(sum_wdata),
        .q4_i(q4),
        .rd_en_i(take && !code_q),
        .rd_group_i(grp_q),
        .rd_beat_i(beat_q),
        .w_i(slice_q),
        .dot_en_i(along_q5.valid),
        .dot_sub_i(along_q5.sub),
        .dot_first_i(along_q5.first),
        .sum_re_i(along_q5.valid && along_q5.last),
        .sum_raddr_i(along_q5.group),
        .xfer_i(xfer),
        .step_i(step_q),
        .sc_i(sc_q[8*ScaleRows-1:0]),
        .zp_i(zp_q[8*ScaleRows-1:0]),
        .acc_we_i(w_q[3]),
        .acc_addr_i({wbank_q[3], wcount_q[3]}),
        .acc_first_i(wfirst_q[3]),
        .out_addr_i(acc_addr),
        .out_o(acc[c])
    );
  end

  // ---- out
  logic [Cols-1:0][17:0] y_exp_q;
  always_ff @(posedge clk_i) begin
    for (int unsigned c = 0; c < Cols; c++)
      y_exp_q[c] <= 18'(signed'(act_exp[c])) + 18'(mat_exp) + 18'(t);
  end
  logic out_re;
  logic [19:0] out_raddr;
  foray_mv_out #(
      .Cols(Cols),
      .ScaleRows(ScaleRows),
      .OutRows(OutRows)
  ) u_out (
      .clk_i,
      .rst_ni,
      .start_i(cmd_valid_i),
      .head_i(is_head),
      .bias_i(has_bias),
      .ids_i(is_head && ids != '0),
      .c0_i(cmd_i.c0),
      .ncols_i(ncols),
      .blocks_i(blocks),
      .used_i(used[20:0]),
      .t_i(t),
      .exp_i(y_exp_q),
      .bias_exp_i(cmd_i.desc[32*foray_abi_pkg::GEMV_BIAS_EXP_WORD+foray_abi_pkg::GEMV_BIAS_EXP_LSB+:16]),
      .dst_i(dst[19:0]),
      .bank_done_i(bank_done_q),
      .bank_free_o(bank_free),
      .acc_addr_o(acc_addr),
      .acc_i(acc),
      .ax_valid_i(ax_valid_i),
      .ax_ready_o,
      .ax_data_i,
      .sp_re_o(out_re),
      .sp_raddr_o(out_raddr),
      .sp_rdata_i,
      .sp_we_o,
      .sp_waddr_o,
      .sp_wdata_o,
      .sp_wstrb_o,
      .lg_valid_o,
      .lg_ready_i,
      .lg_o,
      .done_o(out_done)
  );
  assign sp_re_o = load_re || out_re;
  assign sp_raddr_o = load_raddr | out_raddr;

  always_comb begin
    act_o = '0;
    if (busy_o) begin
      if (lg_valid_o && !lg_ready_i) act_o.blocked = 1'b1;
      else if (ws_ready_o && !ws_valid_i) act_o.starved = 1'b1;
      else act_o.busy = 1'b1;
    end
  end

endmodule
