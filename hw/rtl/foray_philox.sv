/// Philox4x32-10 of host/core/noise.h: word (id mod 4) of the block with key = seed and counter (id / 4, position, 0x464F5241, 0). A ring of Unroll
/// rounds (1, 2, 5 or 10) of three cycles each, in which 3 Unroll blocks turn; one goes in and one comes out every 10 / Unroll cycles, in
/// order, 30 cycles after.
module foray_philox #(
    parameter int unsigned Unroll = 2
) (
    input  logic        clk_i,
    input  logic        rst_ni,
    /// Key; stable while blocks are under way.
    input  logic [63:0] seed_i,
    input  logic        valid_i,
    output logic        ready_o,
    input  logic [31:0] id_i,
    input  logic [31:0] position_i,
    output logic        valid_o,
    output logic [31:0] word_o
);

  localparam int unsigned Passes = 10 / Unroll;
  localparam int unsigned Len = 3 * Unroll;
  localparam logic [31:0] MulA = 32'hD251_1F53, MulB = 32'hCD9E_8D57;
  localparam logic [31:0] WeylA = 32'h9E37_79B9, WeylB = 32'hBB67_AE85;

  // What goes along with a block.
  logic [Len-1:0] v_q;
  logic [4*Len-1:0] round_q;  // rounds done before the present pass
  logic [2*Len-1:0] sel_q;
  logic again, enter;
  logic [3:0] last_round;
  assign last_round = round_q[4*(Len-1)+:4];
  assign again = v_q[Len-1] && last_round != 4'(Unroll * (Passes - 1));
  assign ready_o = !again;
  assign enter = again || valid_i;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) v_q <= '0;
    else v_q <= Len'({v_q, enter});
  end
  always_ff @(posedge clk_i) begin
    if (enter || v_q != '0) begin
      round_q <= (4 * Len)'({round_q, again ? last_round + 4'(Unroll) : 4'd0});
      sel_q   <= (2 * Len)'({sel_q, again ? sel_q[2*(Len-1)+:2] : id_i[1:0]});
    end
  end

  // {c3, c2, c1, c0} of the block that enters the ring, and of the one at its end.
  logic [127:0] head, tail;
  assign head = again ? tail : {32'd0, 32'h464F_5241, position_i, 2'd0, id_i[31:2]};
  assign tail = gen_round[Unroll-1].y;

  for (genvar u = 0; u < Unroll; u++) begin : gen_round
    logic [63:0] pa, pb;
    logic [191:0] keep_q;  // c1 and c3 wait for the products
    logic [31:0] ka_q, kb_q;
    logic [3:0] r;
    logic en;
    logic [127:0] x, y;
    if (u == 0) begin : gen_head
      assign x = head;
    end else begin : gen_chain
      assign x = gen_round[u-1].y;
    end
    assign en = u == 0 ? enter : v_q[u==0?0 : 3*u-1];
    foray_mul_const #(
        .Factor(MulA)
    ) u_a (
        .clk_i,
        .en_i(en),
        .y_i({1'b0, x[31:0]}),
        .p_o(pa)
    );
    foray_mul_const #(
        .Factor(MulB)
    ) u_b (
        .clk_i,
        .en_i(en),
        .y_i({1'b0, x[95:64]}),
        .p_o(pb)
    );
    // Keys of the round: seed + round * Weyl, a cycle ahead.
    assign r = round_q[4*(3*u+1)+:4] + 4'(u);
    always_ff @(posedge clk_i) begin
      if (enter || v_q != '0) keep_q <= {keep_q[127:0], x[127:96], x[63:32]};
      if (v_q[3*u+1]) begin
        ka_q <= seed_i[31:0] + (r[0] ? WeylA : 32'd0) + (r[1] ? WeylA << 1 : 32'd0) + (r[2] ? WeylA << 2 : 32'd0) +
            (r[3] ? WeylA << 3 : 32'd0);
        kb_q <= seed_i[63:32] + (r[0] ? WeylB : 32'd0) + (r[1] ? WeylB << 1 : 32'd0) + (r[2] ? WeylB << 2 : 32'd0) +
            (r[3] ? WeylB << 3 : 32'd0);
      end
    end
    assign y = {
      pa[31:0], pa[63:32] ^ keep_q[160+:32] ^ kb_q, pb[31:0], pb[63:32] ^ keep_q[128+:32] ^ ka_q
    };
  end

  assign valid_o = v_q[Len-1] && !again;
  assign word_o  = tail[32*sel_q[2*(Len-1)+:2]+:32];

endmodule
