/// Vector unit: EMBED, RMSNORM, ROPE, SILU_MUL, QUANT and ADD over columns [c0, c1) of scratchpad vectors, docs/numerics.md 2 and 6 to the bit
/// (host/dev/ref_vector.c). A column is one or more passes over its units; interface as hw/rtl/README.md says.
///
///   EMBED    codes times scales into dst as they come, then NORM
///   ADD      sums into acc, then NORM (one shift for all: norm30)
///   RMSNORM  bits of the largest; sum of squares; the factor; LANES, then FIX
///   SILU     LANES, then FIX (to_a16 from 16 bits a value and the bits of each group)
///   QUANT    LANES, then FIX
///   ROPE     angles; then pairs in place
module foray_vec (
    input  logic                clk_i,
    input  logic                rst_ni,
    input  logic                cmd_valid_i,
    input  foray_pkg::cmd_t     cmd_i,
    output logic                done_o,
    output logic                busy_o,
    output foray_pkg::act_t     act_o,
    /// Norm weights, frequencies, embedding rows.
    input  logic                ax_valid_i,
    output logic                ax_ready_o,
    input  logic        [511:0] ax_data_i,
    /// Scratchpad.
    output logic                sp_re_o,
    output logic        [ 19:0] sp_raddr_o,
    input  logic        [511:0] sp_rdata_i,
    output logic                sp_we_o,
    output logic        [ 19:0] sp_waddr_o,
    output logic        [511:0] sp_wdata_o,
    output logic        [ 15:0] sp_wstrb_o
);

  typedef enum logic [4:0] {
    V_IDLE,
    V_SKIP,  // addresses up to column c0
    V_HEAD,  // headers of the sources
    V_HEAD2,
    V_HEAD3,
    V_MANT,  // EMBED: mantissa of the row
    V_ROW,  // EMBED: codes
    V_BITS,  // RMSNORM: largest magnitude
    V_SQUARE,
    V_FACTOR,
    V_ANGLE,
    V_SUM,  // ADD
    V_NORM,
    V_LANES,
    V_ROTATE,
    V_FIXB,  // FIX: bits of 64 groups
    V_FIXB2,
    V_FIX,
    V_FIXS,  // FIX: shifts of 64 groups
    V_EXP,  // header of the result
    V_NEXT,
    V_DONE
  } state_e;
  state_e st_q, st_d;

  // ---- the descriptor
  logic [511:0] d;
  logic [7:0] op;
  logic embed, norm, rope, silu, quant, add, neox;
  assign d = cmd_i.desc;
  assign op = d[7:0];
  assign embed = op == foray_abi_pkg::OP_EMBED;
  assign norm = op == foray_abi_pkg::OP_RMSNORM;
  assign rope = op == foray_abi_pkg::OP_ROPE;
  assign silu = op == foray_abi_pkg::OP_SILU_MUL;
  assign quant = op == foray_abi_pkg::OP_QUANT;
  assign add = op == foray_abi_pkg::OP_ADD;
  assign neox = |(d[15:8] & 8'(foray_abi_pkg::DF_NEOX));

  logic [15:0] gamma_exp, eps_exp, embed_exp;
  assign gamma_exp = d[32*foray_abi_pkg::RMSNORM_GAMMA_EXP_WORD+foray_abi_pkg::RMSNORM_GAMMA_EXP_LSB+:16];
  assign eps_exp = d[32*foray_abi_pkg::RMSNORM_EPS_EXP_WORD+foray_abi_pkg::RMSNORM_EPS_EXP_LSB+:16];
  assign embed_exp = d[32*foray_abi_pkg::EMBED_EXP_WORD+foray_abi_pkg::EMBED_EXP_LSB+:16];

  // Size in groups of 32 elements; of ROPE also half a head in units.
  logic [11:0] groups_d, groups_q;
  logic [3:0] hd32;
  always_comb begin
    logic [11:0] heads;
    heads = {3'd0, d[32*foray_abi_pkg::ROPE_HEADS_WORD+foray_abi_pkg::ROPE_HEADS_LSB+:9]};
    hd32 = d[32*foray_abi_pkg::ROPE_HEAD_DIM_WORD+foray_abi_pkg::ROPE_HEAD_DIM_LSB+5+:4];
    unique case (1'b1)
      embed: groups_d = d[32*foray_abi_pkg::EMBED_COLS_WORD+5+:12];
      norm: groups_d = d[32*foray_abi_pkg::RMSNORM_N_WORD+5+:12];
      silu: groups_d = d[32*foray_abi_pkg::SILU_MUL_N_WORD+5+:12];
      quant: groups_d = d[32*foray_abi_pkg::QUANT_N_WORD+5+:12];
      add: groups_d = d[32*foray_abi_pkg::ADD_N_WORD+5+:12];
      default:
      groups_d = (hd32[0] ? heads : 12'd0) + (hd32[1] ? heads << 1 : 12'd0) + (hd32[2] ? heads << 2 : 12'd0) +
          (hd32[3] ? heads << 3 : 12'd0);
    endcase
  end
  logic [12:0] n_units;
  assign n_units = {groups_q, 1'b0};

  // ---- addresses of the present column
  logic [19:0] a_q, b_q, dst_q, stride_y, stride_a;
  logic [3:0] col_q;
  logic step;  // to the next column
  assign stride_y = {7'd0, n_units} + 20'd1;
  assign stride_a = {8'd0, groups_q} + {14'd0, groups_q[11:6]} + {19'd0, groups_q[5:0] != 6'd0} + 20'd1;
  assign step = (st_q == V_SKIP && col_q != cmd_i.c0) || st_q == V_NEXT;

  always_ff @(posedge clk_i) begin
    if (cmd_valid_i) begin
      groups_q <= groups_d;
      col_q <= 4'd0;
      unique case (1'b1)
        embed: a_q <= d[32*foray_abi_pkg::EMBED_DST_WORD+:20];
        norm: a_q <= d[32*foray_abi_pkg::RMSNORM_SRC_WORD+:20];
        silu: a_q <= d[32*foray_abi_pkg::SILU_MUL_GATE_WORD+:20];
        quant: a_q <= d[32*foray_abi_pkg::QUANT_SRC_WORD+:20];
        add: a_q <= d[32*foray_abi_pkg::ADD_ACC_WORD+:20];
        default: a_q <= d[32*foray_abi_pkg::ROPE_VEC_WORD+:20];
      endcase
      b_q <= silu ? d[32*foray_abi_pkg::SILU_MUL_UP_WORD+:20] : d[32*foray_abi_pkg::ADD_SRC_WORD+:20];
      unique case (1'b1)
        norm: dst_q <= d[32*foray_abi_pkg::RMSNORM_DST_WORD+:20];
        silu: dst_q <= d[32*foray_abi_pkg::SILU_MUL_DST_WORD+:20];
        default: dst_q <= d[32*foray_abi_pkg::QUANT_DST_WORD+:20];
      endcase
    end else if (step) begin
      col_q <= col_q + 4'd1;
      a_q   <= a_q + stride_y;
      b_q   <= b_q + stride_y;
      dst_q <= dst_q + stride_a;
    end
  end

  // ---- results of the passes
  logic signed [15:0] ea_q, eb_q;  // exponents of the sources
  logic signed [15:0] emax;  // of both
  logic [31:0] or_bits;
  logic [5:0] bits_d, bits_q;  // of the largest magnitude of a Y32
  /* verilator lint_off UNUSED */  // bitlen64 has room for 64
  logic [6:0] bitlen;
  /* verilator lint_on UNUSED */
  logic [5:0] top_q;  // largest bits of an A16's groups
  logic [2:0] sx_q;
  logic [62:0] sum_q;
  logic [15:0] mant_q;
  assign emax = ea_q > eb_q ? ea_q : eb_q;
  assign bitlen = foray_math_pkg::bitlen64({32'd0, or_bits});
  assign bits_d = bitlen[5:0];

  // ---- counters of a pass
  logic [13:0] rd_q;  // reads issued (V_SUM: of both sources)
  logic [12:0] wr_q;  // units that came out
  logic enter;
  assign enter = st_d != st_q;

  // ---- front: passes of a unit a cycle
  logic fr_read, fr_valid_q, fr_second_q, fr_valid, skip_valid;
  logic [511:0] fr_data;
  logic [511:0] asm_q;
  logic [5:0] fr_sh, fr_sh2;
  logic odd_q, sqodd_q;
  logic signed [16:0] below_a, below_b;
  assign below_a = 17'(emax) - 17'(ea_q);
  assign below_b = 17'(emax) - 17'(eb_q);
  always_comb begin
    unique case (st_q)
      V_SQUARE: fr_sh = 6'd31 + {3'd0, sx_q};
      V_SUM: fr_sh = below_a > 17'sd32 ? 6'd63 : 6'd31 + below_a[5:0];
      V_NORM: fr_sh = bits_q + 6'd1;
      default: fr_sh = 6'd31;
    endcase
    fr_sh2 = below_b > 17'sd32 ? 6'd63 : 6'd31 + below_b[5:0];
    unique case (st_q)
      V_BITS, V_NORM: fr_read = rd_q != {1'b0, n_units};
      V_SQUARE: fr_read = rd_q != {1'b0, n_units} && !odd_q;
      V_SUM: fr_read = rd_q != {n_units, 1'b0};
      default: fr_read = 1'b0;
    endcase
  end

  foray_vec_front u_front (
      .clk_i,
      .rst_ni,
      .clear_i(st_q == V_HEAD),
      .valid_i(fr_valid_q),
      .data_i(sp_rdata_i),
      .second_i(fr_second_q),
      .sum_i(st_q == V_SUM),
      .clamp_i(st_q != V_NORM),
      .sh_i(fr_sh),
      .sh2_i(fr_sh2),
      .skip_valid_i(skip_valid),
      .skip_data_i(asm_q),
      .valid_o(fr_valid),
      .data_o(fr_data),
      .or_o(or_bits)
  );

  // ---- lanes: passes of four elements a cycle
  foray_vec_pkg::lane_mode_e mode;
  logic ln_valid, ln_out, rot_out, sq_out, half_q;
  logic [3:0][31:0] ln_a, ln_b, rot;
  logic [3:0][63:0] ln_v;
  logic [51:0] sq;
  logic [5:0] ln_idx, trig_idx, silu_sh;
  logic [1:0][63:0] trig;
  logic [31:0] factor;
  always_comb begin
    if (st_q == V_SQUARE) mode = foray_vec_pkg::LANE_SQUARE;
    else if (silu) mode = foray_vec_pkg::LANE_SILU;
    else if (norm) mode = foray_vec_pkg::LANE_NORM;
    else if (embed) mode = foray_vec_pkg::LANE_EMBED;
    else if (rope) mode = foray_vec_pkg::LANE_ROPE;
    else mode = foray_vec_pkg::LANE_COPY;
  end
  // s = -(e + 16); beyond 32 the result is 0, below -21 it is at a bound whatever it is exactly.
  assign silu_sh = ea_q < -16'sd48 ? 6'd63 : ea_q > 16'sd5 ? 6'd10 : 6'd15 - ea_q[5:0];

  foray_vec_lanes u_lanes (
      .clk_i,
      .rst_ni,
      .mode_i(mode),
      .sh_i(silu_sh),
      .k_i(embed ? {16'd0, mant_q} : factor),
      .valid_i(ln_valid),
      .a_i(ln_a),
      .b_i(ln_b),
      .idx_i(ln_idx),
      .idx_o(trig_idx),
      .trig_i(trig),
      .valid_o(ln_out),
      .v_o(ln_v),
      .rot_valid_o(rot_out),
      .rot_o(rot),
      .sq_valid_o(sq_out),
      .sq_o(sq)
  );

  // ---- the scalar steps, and the angles of a column
  logic norm_done, trig_we, trig_done, trig_ready;
  logic [6:0] trig_at;
  logic [63:0] trig_new;
  logic signed [7:0] f_exp;
  logic signed [17:0] eps_sh;
  assign eps_sh = ((18'(ea_q) + {15'd0, sx_q}) <<< 1) - {{2{eps_exp[15]}}, eps_exp};
  foray_vec_scalar u_scalar (
      .clk_i,
      .rst_ni,
      .norm_start_i(enter && st_d == V_FACTOR),
      .sum_i(sum_q),
      .n_i({15'd0, groups_q, 5'd0}),
      .eps_mant_i(d[32*foray_abi_pkg::RMSNORM_EPS_MANT_WORD+:32]),
      .eps_sh_i(eps_sh),
      .root_n_i(d[32*foray_abi_pkg::RMSNORM_ROOT_N_WORD+:32]),
      .norm_done_o(norm_done),
      .f_o(factor),
      .f_exp_o(f_exp),
      .trig_start_i(enter && st_d == V_ANGLE),
      .pairs_i({hd32, 4'd0}),
      .position_i(cmd_i.pos0 + {28'd0, col_q}),
      .ax_valid_i,
      .ax_ready_o(trig_ready),
      .ax_data_i,
      .trig_we_o(trig_we),
      .trig_idx_o(trig_at),
      .trig_o(trig_new),
      .trig_done_o(trig_done)
  );

  logic [63:0] trig_even[64];
  logic [63:0] trig_odd[64];
  always_ff @(posedge clk_i) begin
    if (trig_we && !trig_at[0]) trig_even[trig_at[6:1]] <= trig_new;
    if (trig_we && trig_at[0]) trig_odd[trig_at[6:1]] <= trig_new;
  end
  assign trig = {trig_odd[trig_idx], trig_even[trig_idx]};

  // ---- operands: the next unit (and its partner) is fetched while the present one goes through the lanes
  typedef enum logic [1:0] {
    F_FIRST,
    F_SECOND,
    F_THIRD
  } fetch_e;
  fetch_e ft_q;
  logic next_full_q, cur_full_q, load, fetching, fetched, ft_read, two;
  logic [511:0] next_a_q, next_b_q, cur_a_q, cur_b_q;
  logic [3:0] next_j_q, cur_j_q, rj_q, wj_q;
  logic [2:0] sub_q, sub_last;
  logic [12:0] total;
  logic [19:0] ra_q, wa_q, ft_addr;
  logic [3:0] j_last;

  assign two = silu || (rope && neox);
  assign fetching = st_q == V_LANES || st_q == V_ROTATE;
  assign total = rope && neox ? {1'b0, groups_q} : n_units;
  assign j_last = neox ? hd32 - 4'd1 : {hd32[2:0], 1'b0} - 4'd1;
  assign sub_last = rope && neox ? 3'd7 : 3'd3;
  assign load = next_full_q && (!cur_full_q || sub_q == sub_last);
  always_comb begin
    ft_read = 1'b0;
    fetched = 1'b0;
    ft_addr = ra_q;
    if (fetching) begin
      unique case (ft_q)
        F_FIRST: ft_read = !next_full_q && rd_q != {1'b0, total};
        F_SECOND: begin
          ft_read = two;
          ft_addr = silu ? b_q + 20'd1 + {6'd0, rd_q} : ra_q + {16'd0, hd32};
          fetched = !two && (!norm || ax_valid_i);
        end
        default: fetched = 1'b1;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni || enter) begin
      ft_q <= F_FIRST;
      next_full_q <= 1'b0;
      cur_full_q <= 1'b0;
      sub_q <= 3'd0;
    end else begin
      if (fetching) begin
        unique case (ft_q)
          F_FIRST: if (ft_read) ft_q <= F_SECOND;
          F_SECOND: ft_q <= two ? F_THIRD : fetched ? F_FIRST : F_SECOND;
          default: ft_q <= F_FIRST;
        endcase
      end
      if (fetched) next_full_q <= 1'b1;
      else if (load) next_full_q <= 1'b0;
      if (load) cur_full_q <= 1'b1;
      else if (sub_q == sub_last) cur_full_q <= 1'b0;
      if (cur_full_q) sub_q <= sub_q == sub_last ? 3'd0 : sub_q + 3'd1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (ft_q == F_SECOND) next_a_q <= sp_rdata_i;
    if (ft_q == F_SECOND && norm) next_b_q <= ax_data_i;
    else if (ft_q == F_THIRD) next_b_q <= sp_rdata_i;
    if (load) begin
      cur_a_q <= next_a_q;
      cur_b_q <= next_b_q;
      cur_j_q <= next_j_q;
    end
    if (fetched) next_j_q <= rj_q;
    if (enter) begin
      ra_q <= a_q + 20'd1;
      rj_q <= 4'd0;
    end else if (fetched) begin
      rj_q <= rj_q == j_last ? 4'd0 : rj_q + 4'd1;
      ra_q <= ra_q + 20'd1 + (rope && neox && rj_q == j_last ? {16'd0, hd32} : 20'd0);
    end
  end

  // ---- EMBED: which beat comes
  logic code_q, code_beat;
  logic [1:0] quad_q;
  logic [2:0] beat_q;
  logic [11:0] left_q;
  logic [3:0][7:0] sc_q;
  logic [31:0] token;
  logic row_take;
  assign token = cmd_i.token[col_q[2:0]];
  assign row_take = st_q == V_ROW && ax_valid_i && ax_ready_o;
  assign code_beat = code_q;
  always_ff @(posedge clk_i) begin
    if (st_q == V_MANT) begin
      code_q <= 1'b1;
      quad_q <= 2'd0;
      beat_q <= 3'd0;
      left_q <= groups_q;
      if (ax_valid_i) mant_q <= ax_data_i[16*token[4:0]+:16];
    end else if (row_take) begin
      if (code_q) begin
        code_q <= 1'b0;
        for (int unsigned i = 0; i < 4; i++) sc_q[i] <= ax_data_i[128*i+8*token[3:0]+:8];
      end else begin
        beat_q <= beat_q + 3'd1;
        if (beat_q == 3'd7) begin
          quad_q <= quad_q + 2'd1;
          left_q <= left_q - 12'd1;
          if (quad_q == 2'd3) code_q <= 1'b1;
        end
      end
    end
  end

  // ---- what enters the lanes
  always_comb begin
    logic [127:0] wide_a, wide_b;
    logic [31:0] codes;
    wide_a = cur_a_q[128*sub_q[1:0]+:128];
    wide_b = cur_b_q[128*sub_q[1:0]+:128];
    codes = ax_data_i[32*token[3:0]+:32];
    ln_a = wide_a;
    ln_b = wide_b;
    ln_valid = cur_full_q;
    ln_idx = neox ? {cur_j_q[2:0], sub_q} : {cur_j_q, sub_q[1:0]};
    if (st_q == V_SQUARE) begin
      ln_valid = fr_valid || half_q;
      ln_a = half_q ? fr_data[256+:128] : fr_data[0+:128];
      ln_b = half_q ? fr_data[384+:128] : fr_data[128+:128];
    end else if (embed) begin
      ln_valid = row_take && !code_beat;
      for (int unsigned i = 0; i < 4; i++) begin
        ln_a[i] = {{24{codes[8*i+7]}}, codes[8*i+:8]};
        ln_b[i] = {24'd0, sc_q[quad_q]};
      end
    end else if (rope) begin
      for (int unsigned i = 0; i < 4; i++) begin
        ln_a[i] = neox ? cur_a_q[64*sub_q+32*(i/2)+:32] : wide_a[64*(i/2)+:32];
        ln_b[i] = neox ? cur_b_q[64*sub_q+32*(i/2)+:32] : wide_a[64*(i/2)+32+:32];
      end
    end
  end

  // ---- what leaves them
  logic [511:0] asm_y_q, hold_y_q;
  logic [2:0] asm_n_q;
  logic asm_full_q, y_due_q;
  logic [19:0] wy_q;
  assign skip_valid = embed && asm_full_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      asm_n_q <= 3'd0;
      asm_full_q <= 1'b0;
      y_due_q <= 1'b0;
    end else begin
      asm_full_q <= 1'b0;
      if (cmd_valid_i) asm_n_q <= 3'd0;
      else if ((ln_out && embed) || rot_out) begin
        asm_n_q <= asm_n_q == sub_last ? 3'd0 : asm_n_q + 3'd1;
        asm_full_q <= asm_n_q == sub_last;
      end
      y_due_q <= asm_full_q && rope && neox;
    end
  end
  always_ff @(posedge clk_i) begin
    if (ln_out && embed) asm_q <= {ln_v[3][31:0], ln_v[2][31:0], ln_v[1][31:0], ln_v[0][31:0], asm_q[511:128]};
    else if (rot_out && neox) begin
      asm_q   <= {rot[2], rot[0], asm_q[511:64]};
      asm_y_q <= {rot[3], rot[1], asm_y_q[511:64]};
    end else if (rot_out) asm_q <= {rot, asm_q[511:128]};
    if (asm_full_q) begin
      hold_y_q <= asm_y_q;
      wy_q <= wa_q + {16'd0, hd32};
    end
    if (enter) begin
      wa_q <= a_q + 20'd1;
      wj_q <= 4'd0;
    end else if (asm_full_q) begin
      wj_q <= wj_q == j_last ? 4'd0 : wj_q + 4'd1;
      wa_q <= wa_q + 20'd1 + (neox && wj_q == j_last ? {16'd0, hd32} : 20'd0);
    end
  end

  // ---- to_a16: groups with their bits to dst, then from there again
  logic gr_valid, sb_due_q;
  logic [511:0] gr_w, sb_q, ns_q, fx_m;
  logic [5:0] gr_bits, sb_at, fx_bits, blk_q;
  logic [3:0] fx_shift;
  logic [3:1] fv_q;
  logic [6:0] fx_n;
  logic [11:0] fx_rd_q, fx_wr_q;
  logic [5:0] fx_k_q;
  logic fx_read;
  logic [19:0] bits_at;
  foray_vec_group u_group (
      .clk_i,
      .rst_ni,
      .valid_i(ln_out && !embed),
      .v_i(ln_v),
      .valid_o(gr_valid),
      .w_o(gr_w),
      .bits_o(gr_bits)
  );
  foray_vec_fix u_fix (
      .clk_i,
      .w_i(sp_rdata_i),
      .bits_i(fx_bits),
      .top_i(top_q),
      .m_o(fx_m),
      .shift_o(fx_shift)
  );
  assign bits_at = dst_q + 20'd1 + {8'd0, groups_q} + {14'd0, blk_q};
  assign sb_at = wr_q[5:0];
  assign fx_n = groups_q - {blk_q, 6'd0} > 12'd64 ? 7'd64 : 7'(groups_q - {blk_q, 6'd0});
  assign fx_read = st_q == V_FIX && fx_rd_q != {blk_q, 6'd0} + {5'd0, fx_n};
  assign fx_bits = sb_q[8*fx_k_q+:6];

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      fv_q <= '0;
      sb_due_q <= 1'b0;
    end else begin
      fv_q <= {fv_q[2:1], fx_read};
      sb_due_q <= gr_valid && (sb_at == 6'd63 || wr_q[11:0] == groups_q - 12'd1);
    end
  end
  always_ff @(posedge clk_i) begin
    if (st_q == V_LANES && gr_valid) begin
      for (int unsigned k = 0; k < 64; k++) if (sb_at == 6'(k)) sb_q[8*k+:8] <= {2'd0, gr_bits};
      if (gr_bits > top_q) top_q <= gr_bits;
    end else if (st_q == V_FIXB2) sb_q <= sp_rdata_i;
    if (st_q == V_HEAD) top_q <= 6'd0;
    if (st_q == V_FIXB2) ns_q <= '0;
    else if (fv_q[1]) begin
      for (int unsigned k = 0; k < 64; k++) if (fx_k_q == 6'(k)) ns_q[8*k+:4] <= fx_shift;
    end
    fx_k_q <= fx_rd_q[5:0];
    if (st_q == V_HEAD) begin
      blk_q   <= 6'd0;
      fx_rd_q <= 12'd0;
      fx_wr_q <= 12'd0;
    end else begin
      if (enter && st_q == V_LANES) blk_q <= 6'd0;
      else if (sb_due_q || st_q == V_FIXS) blk_q <= blk_q + 6'd1;
      if (fx_read) fx_rd_q <= fx_rd_q + 12'd1;
      if (fv_q[3]) fx_wr_q <= fx_wr_q + 12'd1;
    end
  end

  // ---- exponent of the result
  logic signed [31:0] exp_d;
  logic zero;
  always_comb begin
    unique case (1'b1)
      rope: exp_d = 32'(ea_q) + 32'sd1;
      embed: exp_d = $signed({{16{embed_exp[15]}}, embed_exp}) + $signed({26'd0, bits_q}) - 32'sd30;
      add: exp_d = 32'(emax) + $signed({26'd0, bits_q}) - 32'sd30;
      norm:
      exp_d = 32'(f_exp) - $signed({29'd0, sx_q}) - 32'sd16 + $signed({{16{gamma_exp[15]}}, gamma_exp}) +
          $signed({26'd0, top_q}) - 32'sd29;
      silu: exp_d = 32'(ea_q) + 32'(eb_q) + $signed({26'd0, top_q}) - 32'sd29;
      default: exp_d = 32'(ea_q) + $signed({26'd0, top_q}) - 32'sd29;
    endcase
    zero = rope ? ea_q == 16'(foray_abi_pkg::EXP_ZERO) : embed || add ? bits_q == 6'd0 : top_q == 6'd0;
  end

  // ---- scratchpad
  logic we_d, we_q;
  logic [19:0] waddr_d, waddr_q, raddr;
  logic [511:0] wdata_d, wdata_q;
  logic head_d, head_q;
  always_comb begin
    sp_re_o = 1'b1;
    unique case (st_q)
      V_HEAD: begin
        sp_re_o = !embed;
        raddr   = a_q;
      end
      V_HEAD2: begin
        sp_re_o = silu || add;
        raddr   = b_q;
      end
      V_BITS, V_SQUARE, V_NORM: begin
        sp_re_o = fr_read;
        raddr   = a_q + 20'd1 + {6'd0, rd_q};
      end
      V_SUM: begin
        sp_re_o = fr_read;
        raddr   = (rd_q[0] ? b_q : a_q) + 20'd1 + {7'd0, rd_q[13:1]};
      end
      V_LANES, V_ROTATE: begin
        sp_re_o = ft_read;
        raddr   = ft_addr;
      end
      V_FIXB: raddr = bits_at;
      V_FIX: begin
        sp_re_o = fx_read;
        raddr   = dst_q + 20'd1 + {8'd0, fx_rd_q};
      end
      default: begin
        sp_re_o = 1'b0;
        raddr   = 20'd0;
      end
    endcase
    sp_raddr_o = sp_re_o ? raddr : 20'd0;
  end
  always_comb begin
    we_d = 1'b1;
    head_d = 1'b0;
    waddr_d = 20'd0;
    wdata_d = '0;
    if (fr_valid && (st_q == V_SUM || st_q == V_NORM || st_q == V_ROW)) begin
      waddr_d = a_q + 20'd1 + {7'd0, wr_q};
      wdata_d = fr_data;
    end else if (asm_full_q && rope) begin
      waddr_d = wa_q;
      wdata_d = asm_q;
    end else if (y_due_q) begin
      waddr_d = wy_q;
      wdata_d = hold_y_q;
    end else if (gr_valid) begin
      waddr_d = dst_q + 20'd1 + {7'd0, wr_q};
      wdata_d = gr_w;
    end else if (sb_due_q) begin
      waddr_d = bits_at;
      wdata_d = sb_q;
    end else if (fv_q[3]) begin
      waddr_d = dst_q + 20'd1 + {8'd0, fx_wr_q};
      wdata_d = fx_m;
    end else if (st_q == V_FIXS) begin
      waddr_d = bits_at;
      wdata_d = ns_q;
    end else if (st_q == V_EXP) begin
      head_d = 1'b1;
      waddr_d = norm || silu || quant ? dst_q : a_q;
      wdata_d[15:0] = zero ? 16'(foray_abi_pkg::EXP_ZERO) : foray_math_pkg::clamp_exp(exp_d);
      wdata_d[31:16] = {16{wdata_d[15]}};
    end else we_d = 1'b0;
  end
  always_ff @(posedge clk_i) begin
    if (!rst_ni) we_q <= 1'b0;
    else we_q <= we_d;
  end
  always_ff @(posedge clk_i) begin
    if (we_d || we_q) begin
      waddr_q <= waddr_d;
      wdata_q <= wdata_d;
      head_q  <= head_d;
    end
  end
  assign sp_we_o = we_q;
  assign sp_waddr_o = we_q ? waddr_q : 20'd0;
  assign sp_wdata_o = wdata_q;
  assign sp_wstrb_o = !we_q ? 16'd0 : head_q ? 16'd1 : 16'hffff;

  // ---- control
  logic col_last;
  assign col_last = col_q + 4'd1 == cmd_i.c1;
  always_comb begin
    st_d = st_q;
    unique case (st_q)
      V_IDLE: if (cmd_valid_i) st_d = V_SKIP;
      V_SKIP: if (col_q == cmd_i.c0) st_d = V_HEAD;
      V_HEAD: st_d = V_HEAD2;
      V_HEAD2: st_d = V_HEAD3;
      V_HEAD3: begin
        unique case (1'b1)
          embed: st_d = V_MANT;
          norm: st_d = V_BITS;
          rope: st_d = V_ANGLE;
          add: st_d = V_SUM;
          default: st_d = V_LANES;
        endcase
      end
      V_MANT: if (ax_valid_i) st_d = V_ROW;
      V_BITS: if (wr_q == n_units) st_d = V_SQUARE;
      V_SQUARE: if (wr_q == n_units) st_d = V_FACTOR;
      V_FACTOR: if (norm_done) st_d = V_LANES;
      V_ANGLE: if (trig_done) st_d = V_ROTATE;
      V_SUM, V_ROW: if (wr_q == n_units) st_d = bits_d == 6'd30 || bits_d == 6'd0 ? V_EXP : V_NORM;
      V_NORM: if (wr_q == n_units) st_d = V_EXP;
      V_ROTATE: if (wr_q == total && !y_due_q) st_d = V_EXP;
      V_LANES: if (wr_q == {1'b0, groups_q} && !sb_due_q) st_d = V_FIXB;
      V_FIXB: st_d = V_FIXB2;
      V_FIXB2: st_d = V_FIX;
      V_FIX: if (fx_wr_q == {blk_q, 6'd0} + {5'd0, fx_n}) st_d = V_FIXS;
      V_FIXS: st_d = fx_wr_q == groups_q ? V_EXP : V_FIXB;
      V_EXP: st_d = V_NEXT;
      V_NEXT: st_d = col_last ? V_DONE : V_HEAD;
      default: st_d = V_IDLE;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      st_q <= V_IDLE;
      fr_valid_q <= 1'b0;
    end else begin
      st_q <= st_d;
      fr_valid_q <= fr_read;
    end
  end

  always_ff @(posedge clk_i) begin
    fr_second_q <= rd_q[0];
    if (st_q == V_HEAD2) ea_q <= foray_math_pkg::clamp_exp(sp_rdata_i[31:0]);
    if (st_q == V_HEAD3) eb_q <= foray_math_pkg::clamp_exp(sp_rdata_i[31:0]);
    if (enter) begin
      rd_q <= 14'd0;
      wr_q <= 13'd0;
      odd_q <= 1'b0;
      half_q <= 1'b0;
      if (st_q == V_BITS || st_q == V_SUM || st_q == V_ROW) bits_q <= bits_d;
      if (st_q == V_BITS) begin
        sx_q  <= bits_d > 6'd24 ? 3'(bits_d - 6'd24) : 3'd0;
        sum_q <= 63'd0;
      end
    end else begin
      odd_q <= !odd_q;
      if (fr_read || fetched) rd_q <= rd_q + 14'd1;
      if (st_q == V_SQUARE) begin
        // A unit is two beats of squares.
        half_q <= fr_valid;
        if (sq_out) begin
          sum_q <= sum_q + {11'd0, sq};
          sqodd_q <= !sqodd_q;
          if (sqodd_q) wr_q <= wr_q + 13'd1;
        end
      end else if (fr_valid || gr_valid || (asm_full_q && rope)) wr_q <= wr_q + 13'd1;
    end
    if (st_q == V_HEAD) sqodd_q <= 1'b0;
  end

  // ---- streams and status
  assign ax_ready_o = st_q == V_MANT || (st_q == V_ROW && left_q != 12'd0) ||
      (fetching && norm && ft_q == F_SECOND) || trig_ready;
  assign busy_o = st_q != V_IDLE;
  assign done_o = st_q == V_DONE;
  logic starved;
  assign starved = busy_o && ax_ready_o && !ax_valid_i && !cur_full_q;
  assign act_o = {busy_o && !starved, starved, 1'b0};

endmodule
