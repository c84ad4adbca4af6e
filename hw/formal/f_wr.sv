// foray_wr: AXI rules; each unit taken becomes one burst at its address with its data and strobes; it is idle only when every
// response has come.
module f_wr (
    input logic         clk_i,
    input logic         rst_ni,
    input logic [57:0]  base_i,
    input logic         abort_i,
    input logic         valid_i,
    input logic [31:0]  addr_i,
    input logic [511:0] data_i,
    input logic [63:0]  strb_i,
    input logic         awready_i,
    input logic         wready_i,
    input logic         bvalid_i
);
  localparam int unsigned PortW = 256;
  localparam int unsigned Beats = 512 / PortW;
  logic idle, error, progress, ready, awvalid, wvalid, wlast, bready;
  logic [63:0] awaddr;
  logic [7:0] awlen;
  logic [PortW-1:0] wdata;
  logic [PortW/8-1:0] wstrb;
  foray_wr #(
      .PortW(PortW)
  ) u_dut (
      .clk_i, .rst_ni, .base_i, .abort_i, .idle_o(idle), .error_o(error), .progress_o(progress), .valid_i, .ready_o(ready), .addr_i,
      .data_i, .strb_i, .awvalid_o(awvalid), .awready_i, .awaddr_o(awaddr), .awlen_o(awlen), .wvalid_o(wvalid), .wready_i, .wdata_o(wdata),
      .wstrb_o(wstrb), .wlast_o(wlast), .bvalid_i, .bready_o(bready), .bresp_i(2'b00)
  );
  logic first_q = 1'b1, past_q = 1'b0;
  always_ff @(posedge clk_i) begin
    first_q <= 1'b0;
    past_q  <= rst_ni;
  end
  always_comb assume (rst_ni == !first_q);
  always_comb if (!first_q) assume (base_i == 58'd4096);

  // Unit number `which`, and how many of everything.
  (* anyconst *) logic [4:0] which;
  logic [4:0] taken_q = 5'd0, aw_q = 5'd0, last_q = 5'd0, b_q = 5'd0;
  logic [2:0] beat_q = 3'd0;
  logic [511:0] data_q;
  logic [63:0] strb_q;
  logic [31:0] addr_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      {taken_q, aw_q, last_q, b_q} <= '0;
      beat_q <= 3'd0;
    end else begin
      if (valid_i && ready) taken_q <= taken_q + 5'd1;
      if (valid_i && ready && taken_q == which) {data_q, strb_q, addr_q} <= {data_i, strb_i, addr_i};
      if (awvalid && awready_i) aw_q <= aw_q + 5'd1;
      if (wvalid && wready_i) beat_q <= wlast ? 3'd0 : beat_q + 3'd1;
      if (wvalid && wready_i && wlast) last_q <= last_q + 5'd1;
      if (bvalid_i && bready) b_q <= b_q + 5'd1;
    end
  end
  // a response needs its address and its last data
  always_comb if (bvalid_i) assume (b_q != aw_q && b_q != last_q);
  always_ff @(posedge clk_i) begin
    if (rst_ni && past_q) begin
      if ($past(awvalid && !awready_i)) assert (awvalid && $stable(awaddr) && $stable(awlen));
      if ($past(wvalid && !wready_i)) assert (wvalid && $stable(wdata) && $stable(wstrb) && $stable(wlast));
    end
    if (rst_ni) begin
      if (!past_q) assert (!awvalid && !wvalid);
      assert (awlen == 8'(Beats - 1) && bready);
      if (awvalid) begin
        assert (awaddr[5:0] == 6'd0 && aw_q != taken_q);
        if (aw_q == which) assert (awaddr[63:6] == base_i + 58'(addr_q));
      end
      if (wvalid) begin
        assert (last_q != taken_q && wlast == (beat_q == 3'(Beats - 1)));
        if (last_q == which)
          assert (beat_q[0] ? wdata == data_q[511:256] && wstrb == strb_q[63:32] : wdata == data_q[255:0] && wstrb == strb_q[31:0]);
      end
      if (idle) assert (taken_q == aw_q && taken_q == last_q && taken_q == b_q);
      if (abort_i) assert (!ready);
      cover (b_q == 5'd2 && idle && taken_q == 5'd2);
      cover (taken_q - b_q == 5'd3);
    end
  end
endmodule
