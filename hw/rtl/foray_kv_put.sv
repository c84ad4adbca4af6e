// KV_PUT: K and V of each column become one int8 record a kv head (docs/numerics.md 7).
//
// A group of 32 mantissas at a time: two units are read, the largest magnitude gives the scale (division by
// 127 a byte of the quotient a cycle, a table of 2^32 / s), then four codes in three cycles (byte by byte of the
// inverse, so no DSP slice). The record is collected in 16-byte pieces and written in whole units. A group takes
// about 42 cycles.
module foray_kv_put (
    /// Clock.
    input  logic             clk_i,
    /// Synchronous reset, active low.
    input  logic             rst_ni,
    /// Command; hw/rtl/README.md.
    input  logic             cmd_valid_i,
    /// See cmd_valid_i.
    input  foray_pkg::cmd_t  cmd_i,
    /// One cycle: all is handed to the write channel.
    output logic             done_o,
    /// Busy.
    output logic             busy_o,
    /// What this cycle was.
    output foray_pkg::act_t  act_o,
    /// Scratchpad read.
    output logic             sp_re_o,
    /// Its address.
    output logic [19:0]      sp_raddr_o,
    /// Its data, a cycle later.
    input  logic [511:0]     sp_rdata_i,
    /// Write channel.
    output logic             kw_valid_o,
    /// See kw_valid_o.
    input  logic             kw_ready_i,
    /// Heap unit.
    output logic [31:0]      kw_addr_o,
    /// Unit.
    output logic [511:0]     kw_data_o,
    /// Bytes of it.
    output logic [63:0]      kw_strb_o
);

  // ---- the command
  logic [31:0] k_unit, v_unit, offset;
  logic [15:0] head_dim, heads;
  logic [3:0] groups;  // of K, 1..8
  logic [1:0] meta_pieces;
  logic [5:0] pieces;  // of 16 bytes in a record, at most 34
  assign k_unit = cmd_i.desc[32*foray_abi_pkg::KV_PUT_K_WORD+:32];
  assign v_unit = cmd_i.desc[32*foray_abi_pkg::KV_PUT_V_WORD+:32];
  assign head_dim = cmd_i.desc[32*foray_abi_pkg::KV_PUT_HEAD_DIM_WORD+foray_abi_pkg::KV_PUT_HEAD_DIM_LSB+:16];
  assign heads = cmd_i.desc[32*foray_abi_pkg::KV_PUT_HEADS_WORD+foray_abi_pkg::KV_PUT_HEADS_LSB+:16];
  assign offset = cmd_i.desc[32*foray_abi_pkg::KV_PUT_OFFSET_WORD+:32];
  assign groups = head_dim[8:5];
  assign meta_pieces = groups > 4'd4 ? 2'd2 : 2'd1;
  assign pieces = 6'(meta_pieces) + {groups, 2'b00};
  logic unused_cmd;
  assign unused_cmd = &{1'b0, k_unit[31:20], v_unit[31:20], head_dim, cmd_i.token, cmd_i.score, cmd_i.desc[511:160],
      cmd_i.desc[31:0], cmd_i.max_pos[31:17], first_pos[31:17], half_units[16], s_up[10],
      piece_addr[3:0], first_units[24:20]};

  typedef enum logic [3:0] {
    StIdle,
    StHeadK,  // reads the exponent of K
    StHeadV,
    StExpV,  // that of V arrives; addresses
    StRead0,
    StRead1,
    StMax,
    StDivide,
    StScale,
    StInverse,
    StCodes,
    StStore0,
    StStore1,
    StWrite,
    StDone
  } state_e;
  state_e state_q;

  // ---- walk: column, head, K groups then V groups
  logic [3:0] col_q;  // from c0
  logic [15:0] head_q;
  logic [4:0] group_q;  // 0 .. 2 * groups - 1
  logic is_v, last_group, last_head, last_col, group_done, record_done;
  logic [19:0] k_base_q, v_base_q;  // header units of this column
  logic [19:0] k_next_q, v_next_q;  // unit that is read next
  logic [19:0] col_units_q;
  assign is_v = group_q >= 5'(groups);
  assign last_group = group_q + 5'd1 == {groups, 1'b0};
  assign last_head = head_q + 16'd1 == heads;
  assign last_col = cmd_i.c0 + col_q + 4'd1 == cmd_i.c1;

  // Byte addresses: record of (head, position) at (head * max_pos + position) * record.
  logic [31:0] first_pos;
  logic signed [23:0] stride_pieces, first_pieces;
  logic [35:0] col_addr_q, rec_addr_q, stride;
  assign first_pos = cmd_i.pos0 + 32'(cmd_i.c0);
  foray_mul_lut #(
      .AW(18),
      .BW(6)
  ) u_stride (
      .a_i({1'b0, cmd_i.max_pos[16:0]}),
      .b_i(pieces),
      .p_o(stride_pieces)
  );
  foray_mul_lut #(
      .AW(18),
      .BW(6)
  ) u_first (
      .a_i({1'b0, first_pos[16:0]}),
      .b_i(pieces),
      .p_o(first_pieces)
  );
  assign stride = {8'd0, stride_pieces, 4'd0};

  // units of a column: header and heads * head_dim / 16
  logic signed [16:0] half_units;
  foray_mul_lut #(
      .AW(13),
      .BW(4)
  ) u_units (
      .a_i({1'b0, heads[11:0]}),
      .b_i(groups),
      .p_o(half_units)
  );

  logic signed [24:0] first_units;  // of c0 columns
  foray_mul_lut #(
      .AW(21),
      .BW(4)
  ) u_cols (
      .a_i({1'b0, col_units_q}),
      .b_i(cmd_i.c0),
      .p_o(first_units)
  );

  // ---- a group: mantissas, largest magnitude
  logic signed [15:0] exp_k_q, exp_v_q, exp;
  logic [15:0][31:0] m_in, m_low_q, m_high_q;
  logic [31:0] max_in, amax_q;
  logic [31:0] m_abs[16], max8[8], max4[4], max2[2];
  assign exp = is_v ? exp_v_q : exp_k_q;
  for (genvar i = 0; i < 16; i++) begin : gen_in
    assign m_in[i] = foray_math_pkg::clamp_y(sp_rdata_i[32*i+:32]);
    assign m_abs[i] = foray_math_pkg::abs32(m_in[i]);
  end
  always_comb begin
    for (int i = 0; i < 8; i++) max8[i] = m_abs[2*i] > m_abs[2*i+1] ? m_abs[2*i] : m_abs[2*i+1];
    for (int i = 0; i < 4; i++) max4[i] = max8[2*i] > max8[2*i+1] ? max8[2*i] : max8[2*i+1];
    for (int i = 0; i < 2; i++) max2[i] = max4[2*i] > max4[2*i+1] ? max4[2*i] : max4[2*i+1];
    max_in = max2[0] > max2[1] ? max2[0] : max2[1];
  end

  // amax * 2^32 / 127: n = rest * 256 + next byte is below 127 * 256. Of n = 128 q + r the quotient by 127 is q
  // and what q + r (at most 380) holds of 127.
  logic [6:0] rest_q;
  logic [63:0] num_q;
  logic [31:0] left_q;
  logic [4:0] count_q;
  logic [14:0] n;
  logic [8:0] over;
  logic [1:0] more;
  logic [7:0] quot;
  assign n = {rest_q, left_q[31:24]};
  assign over = 9'(n[14:7]) + 9'(n[6:0]);
  assign more = over >= 9'd254 ? 2'd2 : over >= 9'd127 ? 2'd1 : 2'd0;
  assign quot = n[14:7] + 8'(more);

  // S = num / 2^(len - 11) rounded up, 11 bits
  logic [6:0] len_q, len_up;
  logic [63:0] num_top;  // highest bit at bit 63
  logic [11:0] s_up;
  logic [9:0] f_q;  // S - 1024
  logic signed [17:0] x;
  logic live_q;
  logic [5:0] x_q;
  assign num_top = num_q << (6'd0 - len_q[5:0]);
  assign s_up = 12'(num_top[63:53]) + 12'(|num_top[52:0]);
  assign len_up = len_q + 7'(s_up[11]);
  assign x = 18'(exp) + 18'(len_up) + 18'sd5;

  // 2^32 / s for s = 1024 .. 2047
  logic [22:0] inverse_rom[1024];
  logic [22:0] inverse_q;
  initial begin
    for (int unsigned i = 0; i < 1024; i++) inverse_rom[i] = 23'(64'h1_0000_0000 / (64'd1024 + 64'(i)));
  end
  always_ff @(posedge clk_i) inverse_q <= inverse_rom[f_q];

  // ---- codes: clamp(R(m * inverse, len - 11), -127, 127), four at a time, three bytes of the inverse each
  logic [1:0] digit_q;
  logic [1:0] done_q;  // along the pipeline: a product is complete
  logic [7:0] byte_in;
  logic [5:0] rsh;
  logic [255:0] codes_q;
  logic [31:0] codes;
  assign byte_in = digit_q == 2'd0 ? inverse_q[7:0] : digit_q == 2'd1 ? inverse_q[15:8] : {1'b0, inverse_q[22:16]};
  assign rsh = 6'(len_q - 7'd11);
  for (genvar i = 0; i < 4; i++) begin : gen_code
    logic signed [39:0] part;
    logic signed [55:0] p_q, r_q;
    logic signed [56:0] t;
    foray_mul_lut #(
        .AW(32),
        .BW(8)
    ) u_mul (
        .a_i(m_low_q[i]),
        .b_i(byte_in),
        .p_o(part)
    );
    assign t = signed'({p_q, 1'b0}) >>> rsh;
    always_ff @(posedge clk_i) begin
      p_q <= digit_q == 2'd0 ? 56'(part) : p_q + (56'(part) <<< (digit_q == 2'd1 ? 8 : 16));
      r_q <= 56'((t >>> 1) + 57'(t[0]));
    end
    assign codes[8*i+:8] = !live_q ? 8'd0 : r_q > 56'sd127 ? 8'd127 : r_q < -56'sd127 ? 8'h81 : r_q[7:0];
  end

  // ---- the record in pieces of 16 bytes: scales, then codes
  logic [127:0] piece_mem[64];
  logic [255:0] meta_q;
  logic [5:0] rd_q, store_at;
  logic [127:0] piece;
  logic [35:0] piece_addr;
  logic [1:0] slot;
  logic last_piece, emit, go;
  logic [511:0] unit_q, unit_d;
  logic [3:0] have_q, have_d;
  assign store_at = 6'(meta_pieces) + {group_q, state_q == StStore1};
  assign piece = rd_q < 6'(meta_pieces) ? (rd_q[0] ? meta_q[255:128] : meta_q[127:0]) : piece_mem[rd_q];
  assign piece_addr = rec_addr_q + {26'd0, rd_q, 4'd0};
  assign slot = piece_addr[5:4];
  assign last_piece = rd_q + 6'd1 == pieces;
  assign emit = slot == 2'd3 || last_piece;
  always_comb begin
    unit_d = unit_q;
    have_d = have_q;
    for (int i = 0; i < 4; i++) begin
      if (slot == 2'(i)) begin
        unit_d[128*i+:128] = piece;
        have_d[i] = 1'b1;
      end
    end
  end
  assign go = state_q == StWrite && (!emit || kw_ready_i);
  assign kw_valid_o = state_q == StWrite && emit;
  assign kw_addr_o = 32'(piece_addr[35:6]) + cmd_i.kv + offset;
  assign kw_data_o = unit_d;
  assign kw_strb_o = {{16{have_d[3]}}, {16{have_d[2]}}, {16{have_d[1]}}, {16{have_d[0]}}};

  assign group_done = state_q == StStore1;
  assign record_done = go && last_piece;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= StIdle;
    end else begin
      unique case (state_q)
        StIdle: if (cmd_valid_i) state_q <= StHeadK;
        StHeadK: state_q <= StHeadV;
        StHeadV: state_q <= StExpV;
        StExpV: state_q <= StRead0;
        StRead0: state_q <= StRead1;
        StRead1: state_q <= StMax;
        StMax: state_q <= StDivide;
        StDivide: if (count_q == 5'd7) state_q <= StScale;
        StScale: state_q <= count_q == 5'd1 ? StInverse : StScale;
        StInverse: state_q <= StCodes;
        StCodes: if (count_q == 5'd25) state_q <= StStore0;
        StStore0: state_q <= StStore1;
        StStore1: state_q <= last_group ? StWrite : StRead0;
        StWrite: if (record_done) state_q <= !last_head ? StRead0 : !last_col ? StHeadK : StDone;
        default: state_q <= StIdle;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    // counts the cycles of a state
    count_q <= state_q == StDivide && count_q != 5'd7 || state_q == StScale && count_q != 5'd1 ||
        state_q == StCodes ? count_q + 5'd1 : 5'd0;

    if (state_q == StIdle) begin
      col_q <= '0;
      col_units_q <= 20'd1 + 20'({half_units[15:0], 1'b0});
      k_base_q <= k_unit[19:0];
      v_base_q <= v_unit[19:0];
    end
    if (state_q == StHeadK) begin
      if (col_q == '0) begin
        // the first column's base, by its number
        k_base_q <= k_unit[19:0] + first_units[19:0];
        v_base_q <= v_unit[19:0] + first_units[19:0];
        col_addr_q <= {8'd0, first_pieces, 4'd0};
      end
      head_q <= '0;
      group_q <= '0;
      meta_q <= '0;
    end
    if (state_q == StHeadV) exp_k_q <= foray_math_pkg::clamp_exp(sp_rdata_i[31:0]);
    if (state_q == StExpV) begin
      exp_v_q <= foray_math_pkg::clamp_exp(sp_rdata_i[31:0]);
      k_next_q <= k_base_q + 20'd1;
      v_next_q <= v_base_q + 20'd1;
      rec_addr_q <= col_addr_q;
    end
    if (state_q == StRead0 || state_q == StRead1) begin
      if (is_v) v_next_q <= v_next_q + 20'd1;
      else k_next_q <= k_next_q + 20'd1;
    end
    if (state_q == StRead1) begin
      m_low_q <= m_in;
      amax_q <= max_in;
    end
    if (state_q == StMax) begin
      m_high_q <= m_in;
      left_q <= max_in > amax_q ? max_in : amax_q;
      rest_q <= '0;
      num_q <= '0;
    end
    if (state_q == StDivide) begin
      left_q <= {left_q[23:0], 8'd0};
      num_q <= {num_q[55:0], quot};
      rest_q <= 7'(over - (more[1] ? 9'd254 : more[0] ? 9'd127 : 9'd0));
    end
    if (state_q == StScale) begin
      if (count_q == '0) begin
        len_q <= foray_math_pkg::bitlen64(num_q);
      end else begin
        len_q <= len_up;
        f_q <= s_up[11] ? 10'd0 : s_up[9:0];
        live_q <= num_q != '0 && x >= 0;
        x_q <= x > 18'sd63 ? 6'd63 : x[5:0];
      end
    end
    if (state_q == StInverse) begin
      meta_q[16*group_q[3:0]+:16] <= live_q ? {x_q, f_q} : 16'd0;
      digit_q <= '0;
    end
    done_q <= {done_q[0], state_q == StCodes && digit_q == 2'd2};
    if (state_q == StCodes) begin
      digit_q <= digit_q == 2'd2 ? 2'd0 : digit_q + 2'd1;
      if (digit_q == 2'd2) begin
        m_low_q <= {m_high_q[3:0], m_low_q[15:4]};
        m_high_q <= m_high_q >> 128;
      end
    end
    // product complete, rounded, stored
    if (done_q[1]) codes_q <= {codes, codes_q[255:32]};
    if (state_q == StStore0) piece_mem[store_at] <= codes_q[127:0];
    if (state_q == StStore1) piece_mem[store_at] <= codes_q[255:128];
    if (group_done) group_q <= last_group ? '0 : group_q + 5'd1;

    if (state_q != StWrite) begin
      rd_q <= '0;
      have_q <= '0;
    end else if (go) begin
      rd_q <= rd_q + 6'd1;
      unit_q <= unit_d;
      have_q <= emit ? 4'd0 : have_d;
    end
    if (record_done) begin
      head_q <= head_q + 16'd1;
      rec_addr_q <= rec_addr_q + stride;
      meta_q <= '0;
      if (last_head) begin
        col_q <= col_q + 4'd1;
        col_addr_q <= col_addr_q + {26'd0, pieces, 4'd0};
        k_base_q <= k_base_q + col_units_q;
        v_base_q <= v_base_q + col_units_q;
      end
    end
  end

  always_comb begin
    sp_re_o = 1'b1;
    unique case (state_q)
      StHeadK: sp_raddr_o = col_q == '0 ? k_unit[19:0] + first_units[19:0] : k_base_q;
      StHeadV: sp_raddr_o = v_base_q;
      StRead0, StRead1: sp_raddr_o = is_v ? v_next_q : k_next_q;
      default: begin
        sp_re_o = 1'b0;
        sp_raddr_o = '0;
      end
    endcase
  end

  assign busy_o = state_q != StIdle;
  assign done_o = state_q == StDone;
  always_comb begin
    act_o = '0;
    if (busy_o) begin
      if (kw_valid_o && !kw_ready_i) act_o.blocked = 1'b1;
      else act_o.busy = 1'b1;
    end
  end

endmodule
