// foray_ctrl: AXI4-Lite rules; no doorbell is lost; done and ready are told exactly once; the interrupt follows done.
module f_ctrl (
    input logic        clk_i,
    input logic        awvalid_i,
    input logic [11:0] awaddr_i,
    input logic        wvalid_i,
    input logic [31:0] wdata_i,
    input logic [3:0]  wstrb_i,
    input logic        bready_i,
    input logic        arvalid_i,
    input logic [11:0] araddr_i,
    input logic        rready_i,
    input logic        taken_i,
    input logic        done_i,
    input logic        running_i,
    input logic [7:0]  err_i,
    input logic        rst_ni
);
  logic awready, wready, bvalid, arready, rvalid, irq, start, stop;
  logic [1:0] bresp, rresp;
  logic [31:0] rdata, heap_units, run_unit;
  logic [57:0] base;
  foray_ctrl u_dut (
      .clk_i, .rst_ni, .awvalid_i, .awready_o(awready), .awaddr_i, .wvalid_i, .wready_o(wready), .wdata_i, .wstrb_i,
      .bvalid_o(bvalid), .bready_i, .bresp_o(bresp), .arvalid_i, .arready_o(arready), .araddr_i, .rvalid_o(rvalid), .rready_i,
      .rdata_o(rdata), .rresp_o(rresp), .irq_o(irq), .start_o(start), .taken_i, .running_i, .done_i, .err_i, .err_desc_i(32'd0),
      .stop_o(stop), .base_o(base), .heap_units_o(heap_units), .run_unit_o(run_unit), .count_i('0), .cycle_i('0), .read_units_i('0),
      .write_i(1'b0)
  );
  axil_rules u_rules (
      .clk_i, .rst_ni, .awvalid_i, .awready_i(awready), .awaddr_i, .wvalid_i, .wready_i(wready), .wdata_i, .wstrb_i,
      .bvalid_i(bvalid), .bready_i, .bresp_i(bresp), .arvalid_i, .arready_i(arready), .araddr_i, .rvalid_i(rvalid), .rready_i,
      .rdata_i(rdata), .rresp_i(rresp)
  );

  logic first_q = 1'b1, past_q = 1'b0;
  always_ff @(posedge clk_i) begin
    first_q <= 1'b0;
    past_q  <= rst_ni;
  end
  always_comb if (first_q) assume (!rst_ni);
  // the sequencer takes a doorbell that is there
  always_comb if (taken_i) assume (start);

  // what was last written, as seen at the port
  logic [11:0] aw_addr_q;
  logic [31:0] w_data_q;
  logic [3:0] w_strb_q;
  logic bell, bell_q = 1'b0, bvalid_q = 1'b0;
  always_ff @(posedge clk_i) begin
    if (awvalid_i && awready) aw_addr_q <= awaddr_i;
    if (wvalid_i && wready) {w_strb_q, w_data_q} <= {wstrb_i, wdata_i};
    bvalid_q <= rst_ni && bvalid && !bready_i;
  end
  // the write took effect in the cycle before its answer appears
  assign bell = bvalid && !bvalid_q && aw_addr_q == 12'(foray_abi_pkg::REG_CONTROL) && w_strb_q[0] && w_data_q[0];

  // done and ready bits as a host must read them
  logic done_q = 1'b0, ready_q = 1'b0, rd_q = 1'b0, want_done_q, want_ready_q, auto_seen_q = 1'b0;
  logic rd_control;
  assign rd_control = arvalid_i && arready && araddr_i == 12'(foray_abi_pkg::REG_CONTROL);
  always_ff @(posedge clk_i) begin
    if (!rst_ni) {done_q, ready_q} <= 2'b00;
    else begin
      done_q  <= done_i || (done_q && !rd_control);
      ready_q <= taken_i || (ready_q && !rd_control);
    end
    rd_q <= rst_ni && rd_control;
    {want_done_q, want_ready_q} <= {done_q, ready_q};
  end

  always_ff @(posedge clk_i) begin
    if (past_q && rst_ni) begin
      if (bell) assert (start);  // rung: there
      if ($past(start && !taken_i)) assert (start);  // stays until it is taken
      if (rd_q) assert (rdata[1] == want_done_q && rdata[3] == want_ready_q);
      if (rd_q && rvalid) assert (rresp == 2'b00);
      cover (bell && $past(taken_i));  // rung while the one before is taken
      cover (irq && $past(done_i));
      cover (rd_q && rdata[1]);
    end
    if (rst_ni && first_q == 1'b0 && !past_q) assert (!start && !irq);
  end
endmodule
