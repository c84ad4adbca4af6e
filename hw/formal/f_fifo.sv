// foray_fifo, foray_queue: nothing lost, nothing invented, order kept, offers stand, what is inside comes out.
module f_fifo (
    input logic       clk_i,
    input logic       rst_ni,
    input logic       clear_i,
    input logic       wvalid_i,
    input logic [3:0] wdata_i,
    input logic       rready_i
);
  logic wready, rvalid;
  logic [3:0] rdata;
`ifdef QUEUE
  localparam int unsigned Holds = 4;
  logic [2:0] count;
  foray_queue #(
      .Width(4),
      .Depth(4)
  ) u_dut (
      .clk_i, .rst_ni, .clear_i, .in_valid_i(wvalid_i), .in_ready_o(wready), .in_data_i(wdata_i), .out_valid_o(rvalid),
      .out_ready_i(rready_i), .out_data_o(rdata), .count_o(count)
  );
`else
  localparam int unsigned Holds = 5;  // the output register is one more
  foray_fifo #(
      .Width(4),
      .Depth(4)
  ) u_dut (
      .clk_i, .rst_ni, .clear_i, .wvalid_i, .wready_o(wready), .wdata_i, .rvalid_o(rvalid), .rready_i, .rdata_o(rdata)
  );
`endif

  logic first_q = 1'b1, past_q = 1'b0;
  always_ff @(posedge clk_i) begin
    first_q <= 1'b0;
    past_q  <= rst_ni && !clear_i;
  end
  always_comb if (first_q) assume (!rst_ni);

  // Word number `which` is followed.
  (* anyconst *) logic [4:0] which;
  logic [4:0] in_q = 5'd0, out_q = 5'd0;
  logic [3:0] word_q;
  logic [2:0] wait_q = 3'd0, room_q = 3'd0;
  logic push, pop;
  assign push = wvalid_i && wready;
  assign pop  = rvalid && rready_i;
  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      in_q  <= 5'd0;
      out_q <= 5'd0;
      wait_q <= 3'd0;
      room_q <= 3'd0;
    end else begin
      if (push) in_q <= in_q + 5'd1;
      if (pop) out_q <= out_q + 5'd1;
      wait_q <= in_q != out_q && !rvalid ? wait_q + 3'd1 : 3'd0;
      room_q <= wvalid_i && !wready && in_q - out_q < 5'd4 ? room_q + 3'd1 : 3'd0;
    end
    if (push && in_q == which) word_q <= wdata_i;
  end

  always_ff @(posedge clk_i) begin
    if (rst_ni && !first_q) begin
      if (rvalid) assert (in_q != out_q);
      assert (in_q - out_q <= 5'(Holds));
      assert (wait_q < 3'd2 && room_q < 3'd2);
      if (rvalid && out_q == which && in_q != out_q) assert (rdata == word_q);
      if (past_q && $past(rvalid && !rready_i)) assert (rvalid && $stable(rdata));
      cover (in_q - out_q == 5'(Holds));
      cover (out_q == 5'd7 && pop && push);
    end
  end
endmodule
