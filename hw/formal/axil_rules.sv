// AXI4-Lite rules at a slave port: the master's are assumed, the slave's asserted. Prefixes of the names as the slave sees them.
module axil_rules #(
    parameter int unsigned AddrW = 12,
    // Cycles within which the slave must answer.
    parameter int unsigned Within = 4
) (
    input logic             clk_i,
    input logic             rst_ni,
    input logic             awvalid_i,
    input logic             awready_i,
    input logic [AddrW-1:0] awaddr_i,
    input logic             wvalid_i,
    input logic             wready_i,
    input logic [31:0]      wdata_i,
    input logic [3:0]       wstrb_i,
    input logic             bvalid_i,
    input logic             bready_i,
    input logic [1:0]       bresp_i,
    input logic             arvalid_i,
    input logic             arready_i,
    input logic [AddrW-1:0] araddr_i,
    input logic             rvalid_i,
    input logic             rready_i,
    input logic [31:0]      rdata_i,
    input logic [1:0]       rresp_i
);
  logic past_q = 1'b0;  // $past is of a cycle out of reset
  always_ff @(posedge clk_i) past_q <= rst_ni;

  // Requests without an answer: addresses, data, reads.
  logic [3:0] aw_q = 4'd0, w_q = 4'd0, ar_q = 4'd0;
  logic [3:0] wait_w_q = 4'd0, wait_r_q = 4'd0, wait_aw_q = 4'd0, wait_d_q = 4'd0, wait_ar_q = 4'd0;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      aw_q <= 4'd0;
      w_q <= 4'd0;
      ar_q <= 4'd0;
    end else begin
      aw_q <= aw_q + 4'(awvalid_i && awready_i) - 4'(bvalid_i && bready_i);
      w_q <= w_q + 4'(wvalid_i && wready_i) - 4'(bvalid_i && bready_i);
      ar_q <= ar_q + 4'(arvalid_i && arready_i) - 4'(rvalid_i && rready_i);
    end
    wait_w_q <= rst_ni && aw_q != 4'd0 && w_q != 4'd0 && !bvalid_i ? wait_w_q + 4'd1 : 4'd0;
    wait_r_q <= rst_ni && ar_q != 4'd0 && !rvalid_i ? wait_r_q + 4'd1 : 4'd0;
    // A request may wait only for the answer to one before it.
    wait_aw_q <= rst_ni && awvalid_i && !awready_i && aw_q == 4'd0 ? wait_aw_q + 4'd1 : 4'd0;
    wait_d_q <= rst_ni && wvalid_i && !wready_i && w_q == 4'd0 ? wait_d_q + 4'd1 : 4'd0;
    wait_ar_q <= rst_ni && arvalid_i && !arready_i && ar_q == 4'd0 ? wait_ar_q + 4'd1 : 4'd0;
  end

  always_ff @(posedge clk_i) begin
    if (past_q && rst_ni) begin
      // the master keeps what it offers
      if ($past(awvalid_i && !awready_i)) assume (awvalid_i && $stable(awaddr_i));
      if ($past(wvalid_i && !wready_i)) assume (wvalid_i && $stable(wdata_i) && $stable(wstrb_i));
      if ($past(arvalid_i && !arready_i)) assume (arvalid_i && $stable(araddr_i));
      // so does the slave
      if ($past(bvalid_i && !bready_i)) assert (bvalid_i && $stable(bresp_i));
      if ($past(rvalid_i && !rready_i)) assert (rvalid_i && $stable(rdata_i) && $stable(rresp_i));
    end
    if (past_q && !rst_ni) assume (!awvalid_i && !wvalid_i && !arvalid_i);
    if (!past_q && rst_ni) assert (!bvalid_i && !rvalid_i);
    if (rst_ni) begin
      // an answer belongs to a request that was taken
      if (bvalid_i) assert (aw_q != 4'd0 && w_q != 4'd0);
      if (rvalid_i) assert (ar_q != 4'd0);
      // and comes in time
      assert (wait_w_q < Within && wait_r_q < Within);
      assert (wait_aw_q < Within && wait_d_q < Within && wait_ar_q < Within);
      cover (bvalid_i && bready_i && $past(bvalid_i && !bready_i));
      cover (rvalid_i && rready_i && arvalid_i);
    end
  end
endmodule
