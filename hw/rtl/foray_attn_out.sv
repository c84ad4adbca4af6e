// End of an attention head, and of the operation (docs/numerics.md 8, last lines).
//
// Per head: l = lambda 2^k, inv = 2^63 / lambda bit by bit while the head before is multiplied; then each accumulator,
// brought to 30 bits, times inv, one a cycle. A group goes to the scratchpad as 16 bits an element with an exponent of
// its own; since m = R(v, s) needs no bit below s - 1, nothing is lost. When all heads of a column are there, one
// pass shifts the groups to the column's exponent.
module foray_attn_out #(
    /// Lanes.
    parameter int unsigned Lanes = 8,
    /// Address bits of the accumulators of one parity.
    parameter int unsigned AccW = 9,
    /// Groups of 32 that fit, all columns together; a power of two.
    parameter int unsigned Groups = 512
) (
    /// Clock.
    input  logic                           clk_i,
    /// Synchronous reset, active low.
    input  logic                           rst_ni,
    /// Begins an operation.
    input  logic                           clear_i,
    /// Groups of a head.
    input  logic [3:0]                     groups_i,
    /// Groups of a column.
    input  logic [15:0]                    col_groups_i,
    /// Columns.
    input  logic [3:0]                     ncols_i,
    /// Header unit of the first column's destination.
    input  logic [19:0]                    dst_i,
    /// A pass is to be finished (one cycle, while ready).
    input  logic                           start_i,
    /// Idle.
    output logic                           ready_o,
    /// Its state parity.
    input  logic                           par_i,
    /// Group of the kv head's first query head.
    input  logic [15:0]                    head_group_i,
    /// Heads (of columns) in it, 1 and more.
    input  logic [7:0]                     pairs_i,
    /// First one.
    input  logic [7:0]                     first_pair_i,
    /// All passes are finished: shift the columns.
    input  logic                           fix_i,
    /// That is done.
    output logic                           done_o,
    /// Looks up a pair.
    output logic [7:0]                     pair_o,
    /// Its column.
    input  logic [2:0]                     pair_col_i,
    /// Group of its head, from the kv head's first.
    input  logic [15:0]                    pair_group_i,
    /// Lane of the head being divided.
    output logic [(Lanes > 1 ? $clog2(Lanes) : 1)-1:0]     div_lane_o,
    /// State of it.
    output logic [3:0]                     div_state_o,
    /// Its sum of weights.
    input  logic [47:0]                    div_l_i,
    /// Lane of the head being multiplied.
    output logic [(Lanes > 1 ? $clog2(Lanes) : 1)-1:0]     lane_o,
    /// State of it.
    output logic [3:0]                     state_o,
    /// Group.
    output logic [2:0]                     group_o,
    /// Reads an accumulator.
    output logic                           acc_re_o,
    /// Address.
    output logic [AccW-1:0]                acc_addr_o,
    /// Accumulator, a cycle later (of the lane in the cycle of acc_re_o).
    input  logic signed [47:0]             acc_i,
    /// Maximum of the head.
    input  logic signed [25:0]             ml_i,
    /// Exponent of the group.
    input  logic signed [25:0]             mv_i,
    /// Bits of the group.
    input  logic [5:0]                     bits_i,
    /// Scratchpad read.
    output logic                           sp_re_o,
    /// Its address.
    output logic [19:0]                    sp_raddr_o,
    /// Its data, a cycle later.
    input  logic [511:0]                   sp_rdata_i,
    /// Scratchpad write.
    output logic                           sp_we_o,
    /// Its address.
    output logic [19:0]                    sp_waddr_o,
    /// Its data.
    output logic [511:0]                   sp_wdata_o,
    /// Its lanes.
    output logic [15:0]                    sp_wstrb_o
);

  localparam int unsigned Aw = $clog2(Groups);
  localparam int unsigned LaneW = Lanes > 1 ? $clog2(Lanes) : 1;

  // ---- cursor of the divider, one head ahead of the multiplier
  logic run_q, par_q;
  logic [7:0] pairs_q, first_q;
  logic [15:0] head_group_q;
  logic [7:0] dn_q;  // heads whose division has begun
  logic [LaneW-1:0] dlane_q;
  logic [2:0] dbatch_q;
  logic dbusy_q, dvalid_q;
  logic [5:0] dstep_q;
  logic [32:0] drem_q, dinv_q;
  logic [31:0] lambda_q;
  logic signed [7:0] dk_q;
  logic [6:0] l_bits;
  logic [47:0] l_norm;
  logic [33:0] rem2, diff;
  logic dstart, dend, mstart;
  assign l_bits = foray_math_pkg::bitlen64(64'(div_l_i));
  assign l_norm = div_l_i << (6'd48 - l_bits[5:0]);
  logic unused_norm;
  assign unused_norm = &{1'b0, l_norm[15:0], l_bits[6]};
  assign rem2 = {drem_q, 1'b0};
  assign diff = rem2 - {2'b0, lambda_q};
  assign dstart = run_q && !dbusy_q && !dvalid_q && dn_q != pairs_q;
  assign dend = dbusy_q && dstep_q == 6'd32;
  assign div_lane_o = dlane_q;
  assign div_state_o = {par_q, dbatch_q};
  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      dbusy_q <= 1'b0;
      dvalid_q <= 1'b0;
      dn_q <= '0;
      dlane_q <= '0;
      dbatch_q <= '0;
    end else begin
      if (start_i) begin
        dn_q <= '0;
        dlane_q <= '0;
        dbatch_q <= '0;
      end else if (dstart) begin
        dn_q <= dn_q + 8'd1;
        dlane_q <= dlane_q == LaneW'(Lanes - 1) ? '0 : dlane_q + LaneW'(1);
        if (dlane_q == LaneW'(Lanes - 1)) dbatch_q <= dbatch_q + 3'd1;
      end
      if (dstart) dbusy_q <= 1'b1;
      else if (dend) dbusy_q <= 1'b0;
      if (dend) dvalid_q <= 1'b1;
      else if (mstart) dvalid_q <= 1'b0;
    end
    if (dstart) begin
      lambda_q <= l_norm[47:16];
      dk_q <= 8'(signed'({1'b0, l_bits})) - 8'sd32;
      drem_q <= 33'h40000000;
      dstep_q <= '0;
      dinv_q <= '0;
    end else if (dbusy_q) begin
      dstep_q <= dstep_q + 6'd1;
      drem_q <= diff[33] ? rem2[32:0] : diff[32:0];
      dinv_q <= {dinv_q[31:0], !diff[33]};
    end
  end

  // ---- cursor of the multiplier: head, group, element
  logic mrun_q;
  logic [7:0] mn_q;  // heads begun
  logic [LaneW-1:0] mlane_q, lane_next;
  logic [2:0] mbatch_q, batch_next;
  logic [AccW-6:0] mbase_q, base_next;  // group address of the batch
  logic [3:0] g_q;
  logic [4:0] e_q;
  logic [32:0] inv_q;
  logic signed [7:0] k_q;
  logic [2:0] col_q;
  logic [15:0] group_at_q;
  logic mlast;
  assign mlast = e_q == 5'd31 && g_q + 4'd1 == groups_i;
  assign mstart = run_q && dvalid_q && (!mrun_q || mlast);
  assign pair_o = first_q + mn_q;
  assign lane_o = mlane_q;
  assign state_o = {par_q, mbatch_q};
  assign group_o = g_q[2:0];
  assign acc_re_o = mrun_q;
  assign acc_addr_o = {mbase_q + (AccW - 5)'(g_q), e_q};
  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      mrun_q <= 1'b0;
    end else begin
      if (mstart) mrun_q <= 1'b1;
      else if (mlast) mrun_q <= 1'b0;
    end
    if (start_i) begin
      mn_q <= '0;
      lane_next <= '0;
      batch_next <= '0;
      base_next <= '0;
    end else if (mstart) begin
      mn_q <= mn_q + 8'd1;
      lane_next <= lane_next == LaneW'(Lanes - 1) ? '0 : lane_next + LaneW'(1);
      if (lane_next == LaneW'(Lanes - 1)) begin
        batch_next <= batch_next + 3'd1;
        base_next <= base_next + (AccW - 5)'(groups_i);
      end
      mlane_q <= lane_next;
      mbatch_q <= batch_next;
      mbase_q <= base_next;
      inv_q <= dinv_q;
      k_q <= dk_q;
      col_q <= pair_col_i;
      group_at_q <= head_group_q + pair_group_i;
    end
    if (mstart) begin
      e_q <= '0;
      g_q <= '0;
    end else if (mrun_q) begin
      e_q <= e_q + 5'd1;
      if (e_q == 5'd31) g_q <= g_q + 4'd1;
    end
  end

  // ---- m1: R(acc, sa)   m2, m3: times inv   m4: v
  logic [3:0] v_q, last_q;
  logic [4:0] e1_q, e2_q, e3_q, e4_q;
  logic [5:0] sa, sa_q1;
  logic signed [48:0] down;
  logic signed [31:0] r_q2;
  logic [32:0] inv_q1, inv_q2;
  logic signed [48:0] plow, plow_q3;
  logic signed [47:0] phigh, phigh_q3;
  logic signed [63:0] v_q4;
  logic signed [19:0] ge_q1, ge_q2, ge_q3, ge_q4;  // exponent of the group
  logic [2:0] col_q1, col_q2, col_q3, col_q4;
  logic [15:0] at_q1, at_q2, at_q3, at_q4;
  assign sa = bits_i > 6'd30 ? bits_i - 6'd30 : 6'd0;
  assign down = signed'({acc_i, 1'b0}) >>> sa_q1;
  foray_mul_lut #(
      .AW(32),
      .BW(17)
  ) u_low (
      .a_i(r_q2),
      .b_i(inv_q2[16:0]),
      .p_o(plow)
  );
  foray_mul_lut #(
      .AW(32),
      .BW(16)
  ) u_high (
      .a_i(r_q2),
      .b_i(inv_q2[32:17]),
      .p_o(phigh)
  );
  always_ff @(posedge clk_i) begin
    v_q <= rst_ni ? {v_q[2:0], mrun_q} : 4'd0;
    last_q <= {last_q[2:0], e_q == 5'd31};
    e1_q <= e_q;
    e2_q <= e1_q;
    e3_q <= e2_q;
    e4_q <= e3_q;
    sa_q1 <= sa;
    inv_q1 <= inv_q;
    inv_q2 <= inv_q1;
    r_q2 <= 32'((down >>> 1) + 49'(down[0]));
    plow_q3 <= plow;
    phigh_q3 <= phigh;
    v_q4 <= 64'(plow_q3) + (64'(phigh_q3) <<< 17);
    ge_q1 <= 20'(signed'({1'b0, sa})) - 20'sd92 - 20'(k_q) + 20'(mv_i - ml_i);
    ge_q2 <= ge_q1;
    ge_q3 <= ge_q2;
    ge_q4 <= ge_q3;
    col_q1 <= col_q;
    col_q2 <= col_q1;
    col_q3 <= col_q2;
    col_q4 <= col_q3;
    at_q1 <= group_at_q + 16'(g_q);
    at_q2 <= at_q1;
    at_q3 <= at_q2;
    at_q4 <= at_q3;
  end

  // ---- a group: bits while it is gathered, then 16 bits an element
  logic half_q, unit_done_q, started_q;
  logic [63:0] any_q, any_d, uany_q;
  logic signed [19:0] uge_q;
  logic [2:0] ucol_q;
  logic [15:0] uat_q;
  logic signed [63:0] v_mem[64];
  assign any_d = (started_q ? any_q : '0) | (v_q4 < 0 ? -v_q4 : v_q4);
  logic [6:0] ubits;
  assign ubits = foray_math_pkg::bitlen64(uany_q);
  logic sv_q, sv_q2, swe_q, slast_q, slast_q2;
  logic shalf_q;
  logic [4:0] sstep_q;
  logic [5:0] sbits_q;
  logic signed [78:0] wide;
  logic unused_wide;
  logic [15:0] w_q;
  logic [511:0] gather_q;
  logic [19:0] saddr_q, saddr_q2, saddr_q3;
  assign wide = signed'({v_mem[{shalf_q, sstep_q}], 15'd0}) >>> sbits_q;
  assign unused_wide = &{1'b0, wide[78:16]};
  logic [7:0][19:0] col_base_q;
  logic [19:0] col_units;
  assign col_units = 20'd1 + 20'(col_groups_i) + 20'((20'(col_groups_i) + 20'd63) >> 6);
  always_ff @(posedge clk_i) begin
    if (clear_i) col_base_q[0] <= dst_i;
    for (int c = 1; c < 8; c++) col_base_q[c] <= col_base_q[c-1] + col_units;
  end
  always_ff @(posedge clk_i) begin
    if (v_q[3]) begin
      v_mem[{half_q, e4_q}] <= v_q4;
      any_q <= any_d;
    end
    if (!rst_ni || clear_i) begin
      half_q <= 1'b0;
      started_q <= 1'b0;
      unit_done_q <= 1'b0;
      sv_q <= 1'b0;
    end else begin
      if (v_q[3]) started_q <= !last_q[3];
      if (v_q[3] && last_q[3]) half_q <= !half_q;
      unit_done_q <= v_q[3] && last_q[3];
      if (unit_done_q) sv_q <= 1'b1;
      else if (slast_q) sv_q <= 1'b0;
    end
    uany_q <= any_d;
    uge_q <= ge_q4;
    ucol_q <= col_q4;
    uat_q <= at_q4;
    if (unit_done_q) begin
      sstep_q <= '0;
      slast_q <= 1'b0;
      shalf_q <= !half_q;
      sbits_q <= ubits[5:0];
      saddr_q <= col_base_q[ucol_q] + 20'd1 + 20'(uat_q);
    end else begin
      sstep_q <= sstep_q + 5'd1;
      slast_q <= sv_q && sstep_q == 5'd30;
    end
    sv_q2 <= sv_q && rst_ni;
    slast_q2 <= slast_q;
    saddr_q2 <= saddr_q;
    swe_q <= sv_q2 && slast_q2 && rst_ni;
    saddr_q3 <= saddr_q2;
    w_q <= wide[15:0];
    if (sv_q2) gather_q <= {w_q, gather_q[511:16]};
  end

  // ---- exponents of the groups, and the largest of each column
  logic [20:0] top_mem[Groups];
  logic [20:0] top_rd_q;
  logic [7:0][20:0] top_q;  // {any, exponent + bits}
  logic signed [19:0] utop;
  logic [Aw-1:0] col_first_q[8], top_at, fix_at_q;
  assign utop = uge_q + 20'(signed'({1'b0, ubits}));
  assign top_at = col_first_q[ucol_q] + Aw'(uat_q);
  always_ff @(posedge clk_i) begin
    col_first_q[0] <= '0;
    for (int c = 1; c < 8; c++) col_first_q[c] <= col_first_q[c-1] + Aw'(col_groups_i);
    if (clear_i) begin
      top_q <= '0;
    end else if (unit_done_q && ubits != '0) begin
      if (!top_q[ucol_q][20] || utop > signed'(top_q[ucol_q][19:0])) top_q[ucol_q] <= {1'b1, utop};
    end
    if (unit_done_q) top_mem[top_at] <= {ubits != '0, utop};
    top_rd_q <= top_mem[fix_at_q];
  end

  // ---- a pass is done when its last group is in the scratchpad
  logic [6:0] tail_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      run_q <= 1'b0;
      tail_q <= '0;
    end else if (start_i) begin
      run_q <= 1'b1;
      par_q <= par_i;
      pairs_q <= pairs_i;
      first_q <= first_pair_i;
      head_group_q <= head_group_i;
      tail_q <= '0;
    end else if (run_q && mn_q == pairs_q && !mrun_q && !mstart) begin
      // from the last element read to its group's write: 42 cycles
      tail_q <= tail_q + 7'd1;
      if (tail_q == 7'd44) run_q <= 1'b0;
    end
  end
  assign ready_o = !run_q;

  // ---- the last pass over the scratchpad, column by column
  typedef enum logic [2:0] {
    FxIdle,
    FxGroups,
    FxWait,
    FxShifts,
    FxHeader
  } fix_e;
  fix_e fix_q;
  logic [3:0] fcol_q;
  logic [15:0] fgrp_q;
  logic fpart_end, fcol_end;
  logic [1:0] fwait_q;
  logic [15:0] fshift_unit_q;
  logic f1_q, f2_q;
  logic [19:0] faddr_q1, faddr_q2;
  logic [5:0] fslot_q1;
  logic signed [19:0] top_col;
  logic top_any;
  logic [20:0] fgap;
  logic [5:0] fsh;
  logic [3:0] fbyte;
  logic [511:0] fdata_q2, fshifts_q;
  assign {top_any, top_col} = top_q[fcol_q[2:0]];
  assign fpart_end = &fgrp_q[5:0] || fgrp_q + 16'd1 == col_groups_i;
  assign fcol_end = fgrp_q + 16'd1 == col_groups_i;
  assign fgap = 21'(top_col) - 21'(signed'(top_rd_q[19:0]));
  assign fsh = !top_rd_q[20] ? 6'd1 : fgap > 21'd31 ? 6'd17 : fgap < 21'd15 ? 6'd1 : 6'(fgap - 21'd14);
  assign fbyte = !top_rd_q[20] || fgap > 21'd15 ? 4'd0 : 4'(21'd15 - fgap);
  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      fix_q <= FxIdle;
    end else begin
      unique case (fix_q)
        FxIdle: if (fix_i) fix_q <= FxGroups;
        FxGroups: if (fpart_end) fix_q <= FxWait;
        FxWait: if (fwait_q == 2'd2) fix_q <= FxShifts;
        FxShifts: fix_q <= fgrp_q == '0 ? FxHeader : FxGroups;
        default: fix_q <= fcol_q + 4'd1 == ncols_i ? FxIdle : FxGroups;
      endcase
    end
    fwait_q <= fix_q == FxWait ? fwait_q + 2'd1 : 2'd0;
    if (fix_q == FxIdle) begin
      fcol_q <= '0;
      fgrp_q <= '0;
      fix_at_q <= '0;
      fshift_unit_q <= '0;
    end else if (fix_q == FxGroups) begin
      fgrp_q <= fcol_end ? '0 : fgrp_q + 16'd1;
      fix_at_q <= fix_at_q + Aw'(1);
    end else if (fix_q == FxShifts) begin
      fshift_unit_q <= fshift_unit_q + 16'd1;
    end else if (fix_q == FxHeader) begin
      fcol_q <= fcol_q + 4'd1;
      fshift_unit_q <= '0;
    end
    f1_q <= fix_q == FxGroups && rst_ni;
    faddr_q1 <= sp_raddr_o;
    fslot_q1 <= fgrp_q[5:0];
    f2_q <= f1_q && rst_ni;
    faddr_q2 <= faddr_q1;
    if (fix_q == FxShifts || fix_q == FxIdle) fshifts_q <= '0;
    else if (f1_q) fshifts_q[8*fslot_q1+:8] <= {4'd0, fbyte};
  end
  for (genvar i = 0; i < 32; i++) begin : gen_fix
    logic signed [31:0] r;
    logic unused_r;
    assign unused_r = &{1'b0, r[31:16]};
    assign r = foray_math_pkg::round32(32'(signed'(sp_rdata_i[16*i+:16])), fsh);
    always_ff @(posedge clk_i) fdata_q2[16*i+:16] <= r[15:0];
  end
  assign done_o = fix_q == FxHeader && fcol_q + 4'd1 == ncols_i;

  assign sp_re_o = fix_q == FxGroups;
  assign sp_raddr_o = sp_re_o ? col_base_q[fcol_q[2:0]] + 20'd1 + 20'(fgrp_q) : '0;
  logic signed [15:0] out_exp;
  assign out_exp = top_any ? foray_math_pkg::clamp_exp(32'(top_col) - 32'sd29) : 16'(foray_abi_pkg::EXP_ZERO);
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
    end else if (f2_q) begin
      sp_we_o = 1'b1;
      sp_waddr_o = faddr_q2;
      sp_wdata_o = fdata_q2;
      sp_wstrb_o = 16'hffff;
    end else if (fix_q == FxShifts) begin
      sp_we_o = 1'b1;
      sp_waddr_o = col_base_q[fcol_q[2:0]] + 20'd1 + 20'(col_groups_i) + 20'(fshift_unit_q);
      sp_wdata_o = fshifts_q;
      sp_wstrb_o = 16'hffff;
    end else if (fix_q == FxHeader) begin
      sp_we_o = 1'b1;
      sp_waddr_o = col_base_q[fcol_q[2:0]];
      sp_wdata_o[31:0] = 32'(out_exp);
      sp_wstrb_o = 16'h0001;
    end
  end

endmodule
