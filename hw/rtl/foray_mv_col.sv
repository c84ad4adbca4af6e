// One column of the matrix engine: activations, multipliers, group dots, scales and the 64-bit sums of a row
// block. All control comes from foray_mv and is the same for every column; this is data path only.
//
// Time, counted from the cycle in which foray_mv takes a slice (rd_*): +1 activations out of the RAM, +2..+5
// foray_mv_mac, +6 group dots, then per group 16 / ScaleRows steps: +7 shift buffer, +8 zp * sum, +9
// 16 d - zp s, +10 sc * x, +11 << shift, +12 added to the sum of the row.
module foray_mv_col #(
    /// Bits of a slice: 64, 128, 256 or 512 (rows a cycle = SliceW / 32).
    parameter int unsigned SliceW = 512,
    /// Rows scaled a cycle.
    parameter int unsigned ScaleRows = 4,
    /// Groups of 32 activations that fit (power of two).
    parameter int unsigned Groups = 512
) (
    /// Clock.
    input  logic                        clk_i,
    /// Writes one group of activations (clamped) with its sum and shift.
    input  logic                        act_we_i,
    /// Group written.
    input  logic [15:0]                 act_waddr_i,
    /// Its 32 mantissas.
    input  logic [511:0]                act_wdata_i,
    /// Writes sum and shift (later than the mantissas: they take the adder tree).
    input  logic                        sum_we_i,
    /// Group written.
    input  logic [15:0]                 sum_waddr_i,
    /// {shift, sum of mantissas}.
    input  logic [24:0]                 sum_wdata_i,
    /// Matrix is Q4A.
    input  logic                        q4_i,
    /// Reads the activations of a beat.
    input  logic                        rd_en_i,
    /// Group of the beat.
    input  logic [15:0]                 rd_group_i,
    /// Beat of the group: columns 8 * beat (Q4A) or 4 * beat (Q8S).
    input  logic [2:0]                  rd_beat_i,
    /// Slice of weights, one cycle after rd_en_i.
    input  logic [SliceW-1:0]           w_i,
    /// At +5: this slice is to be added to the dots of rows sub * SliceW / 32 ...
    input  logic                        dot_en_i,
    /// Which rows.
    input  logic [2:0]                  dot_sub_i,
    /// First beat of the group.
    input  logic                        dot_first_i,
    /// At +5 of the last slice of a group: its number, to read sum and shift.
    input  logic                        sum_re_i,
    /// See sum_re_i.
    input  logic [15:0]                 sum_raddr_i,
    /// At +6 of it: move the dots to the shift buffer.
    input  logic                        xfer_i,
    /// Shift buffer moves on (the steps of a group).
    input  logic                        step_i,
    /// Row scales of this step, as foray_mv shifts them.
    input  logic [ScaleRows-1:0][7:0]   sc_i,
    /// Row zero points of this step.
    input  logic [ScaleRows-1:0][7:0]   zp_i,
    /// Four cycles after step_i: write the sums.
    input  logic                        acc_we_i,
    /// {bank, step}.
    input  logic [4:0]                  acc_addr_i,
    /// First group of the row block.
    input  logic                        acc_first_i,
    /// Reads a finished sum, same cycle.
    input  logic [4:0]                  out_addr_i,
    /// Sums of rows out_addr * ScaleRows ...
    output logic [ScaleRows-1:0][61:0]  out_o
);

  localparam int unsigned Rows = SliceW / 32;
  localparam int unsigned Pairs = Rows / 2;
  localparam int unsigned GroupW = $clog2(Groups);
  localparam int unsigned Subs = 16 / Rows;

  logic unused_addr;  // Groups may need fewer bits
  assign unused_addr = &{1'b0, act_waddr_i, sum_waddr_i, rd_group_i, sum_raddr_i};

  // ---- activations: four banks, each a quarter of a group
  logic [127:0] bank_q[4];
  logic [1:0] bank_rd, bank_sel_q;
  logic low_q, q4_q;
  assign bank_rd = q4_i ? rd_beat_i[1:0] : rd_beat_i[2:1];
  for (genvar b = 0; b < 4; b++) begin : gen_bank
    logic [127:0] mem[Groups];
    always_ff @(posedge clk_i) begin
      if (act_we_i) mem[act_waddr_i[GroupW-1:0]] <= act_wdata_i[128*b+:128];
      if (rd_en_i && bank_rd == 2'(b)) bank_q[b] <= mem[rd_group_i[GroupW-1:0]];
    end
  end
  always_ff @(posedge clk_i) begin
    bank_sel_q <= bank_rd;
    low_q <= !rd_beat_i[0];
    q4_q <= q4_i;
  end
  logic [127:0] quarter;
  logic [7:0][15:0] act;
  assign quarter = bank_q[bank_sel_q];
  assign act = q4_q ? quarter : low_q ? {2{quarter[63:0]}} : {2{quarter[127:64]}};

  // ---- multipliers
  logic signed [24:0] mac_sum[Rows];
  for (genvar p = 0; p < Pairs; p++) begin : gen_pair
    foray_mv_mac u_mac (
        .clk_i,
        .q4_i(q4_q),
        .w_i(w_i[64*p+:64]),
        .a_i(act),
        .sum0_o(mac_sum[2*p]),
        .sum1_o(mac_sum[2*p+1])
    );
  end

  // ---- group dots: |dot| <= 32 * 128 * 2^14 = 2^26
  logic signed [27:0] dot_q[16];
  for (genvar r = 0; r < 16; r++) begin : gen_dot
    always_ff @(posedge clk_i) begin
      if (dot_en_i && (Subs == 1 || dot_sub_i == 3'(r / Rows)))
        dot_q[r] <= (dot_first_i ? 28'sd0 : dot_q[r]) + 28'(mac_sum[r%Rows]);
    end
  end

  // ---- sum of the group's activations and its shift
  logic [24:0] sum_mem[Groups];
  logic [24:0] sum_q;
  always_ff @(posedge clk_i) begin
    if (sum_we_i) sum_mem[sum_waddr_i[GroupW-1:0]] <= sum_wdata_i;
    if (sum_re_i) sum_q <= sum_mem[sum_raddr_i[GroupW-1:0]];
  end
  logic signed [20:0] asum_q;
  logic [3:0] shift_q, shift_q2, shift_q3, shift_q4;

  // ---- scaling
  logic signed [27:0] buf_q[16];
  for (genvar r = 0; r < 16; r++) begin : gen_buf
    always_ff @(posedge clk_i) begin
      if (xfer_i) buf_q[r] <= dot_q[r];
      else if (step_i && r + ScaleRows < 16) buf_q[r] <= buf_q[(r+ScaleRows)%16];
    end
  end
  always_ff @(posedge clk_i) begin
    if (xfer_i) {shift_q, asum_q} <= sum_q;
    shift_q2 <= shift_q;
    shift_q3 <= shift_q2;
    shift_q4 <= shift_q3;
  end

  for (genvar i = 0; i < ScaleRows; i++) begin : gen_scale
    logic signed [28:0] zps, zps_q;
    logic signed [27:0] d_q, x_q;
    logic [7:0] sc_q, sc_q2, odd_q;
    logic signed [35:0] p_q;
    logic signed [36:0] scaled;
    logic signed [51:0] z_q;
    logic [61:0] mem[32];
    foray_mul_lut #(
        .AW(21),
        .BW(8)
    ) u_zps (
        .a_i(asum_q),
        .b_i(zp_i[i]),
        .p_o(zps)
    );
    assign scaled = signed'({p_q, 1'b0}) + 37'(signed'({1'b0, odd_q}));
    // |16 d - zp sum| <= 255 * 32 * 2^14 < 2^27 is one bit more than the wide operand of a DSP48E2 takes, so
    // its low bit goes round the multiplier.
    always_ff @(posedge clk_i) begin
      zps_q <= zps;
      d_q <= buf_q[i];
      sc_q <= sc_i[i];
      x_q <= q4_i ? 28'((32'(d_q) <<< 4) - 32'(zps_q)) : d_q;
      sc_q2 <= sc_q;
      p_q <= 36'(signed'(x_q[27:1]) * signed'({1'b0, sc_q2}));
      odd_q <= x_q[0] ? sc_q2 : 8'd0;
      z_q <= 52'(scaled) <<< shift_q4;
      if (acc_we_i) mem[acc_addr_i] <= (acc_first_i ? 62'd0 : mem[acc_addr_i]) + 62'(z_q);
    end
    assign out_o[i] = mem[out_addr_i];
  end

endmodule
