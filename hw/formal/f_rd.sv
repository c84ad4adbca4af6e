// foray_rd over two ports: AXI rules, at most one grant and only to who asks, the lower number first, a word for every unit granted, with
// that unit's contents, in the order of the grants; nobody waits while there is room and the memory answers.
module f_rd (
    input logic             clk_i,
    input logic             rst_ni,
    input logic [3:0]       req_valid_i,
    input logic [3:0][57:0] req_unit_i,
    input logic [3:0][15:0] req_units_i
);
  localparam int unsigned PortW = 256;
  logic idle, error, progress;
  logic [6:0] taken, gnt_units;
  logic [3:0] gnt;
  logic word_valid;
  logic [1:0] word_client;
  logic [511:0] word;
  logic [1:0] arvalid, arready, rvalid, rready;
  logic [1:0][63:0] araddr;
  logic [1:0][7:0] arlen;
  logic [1:0][PortW-1:0] rdata;
  foray_rd #(
      .PortW(PortW),
      .Ports(2),
      .WordW(512),
      .StripeUnits(2),
      .PortUnits(4)
  ) u_dut (
      .clk_i, .rst_ni, .abort_i(1'b0), .idle_o(idle), .error_o(error), .progress_o(progress), .units_o(taken), .req_valid_i, .req_unit_i,
      .req_units_i, .gnt_o(gnt), .gnt_units_o(gnt_units), .word_valid_o(word_valid), .word_client_o(word_client), .word_o(word),
      .arvalid_o(arvalid), .arready_i(arready), .araddr_o(araddr), .arlen_o(arlen), .rvalid_i(rvalid), .rready_o(rready),
      .rdata_i(rdata), .rresp_i('0)
  );
  for (genvar p = 0; p < 2; p++) begin : gen_port
    logic [7:0] beats;
    axi_read_slave #(
        .PortW(PortW)
    ) u_slave (
        .clk_i, .rst_ni, .arvalid_i(arvalid[p]), .arready_o(arready[p]), .araddr_i(araddr[p]), .arlen_i(arlen[p]),
        .rvalid_o(rvalid[p]), .rready_i(rready[p]), .rdata_o(rdata[p]), .beats_o(beats)
    );
    always_ff @(posedge clk_i) if (rst_ni) assert (rready[p]);
  end

  logic first_q = 1'b1, past_q = 1'b0;
  always_ff @(posedge clk_i) begin
    first_q <= 1'b0;
    past_q  <= rst_ni;
  end
  always_comb assume (rst_ni == !first_q);

  // requests stand until they are granted, and ask for something
  for (genvar c = 0; c < 4; c++) begin : gen_client
    always_comb if (req_valid_i[c]) assume (req_units_i[c] != 16'd0 && req_unit_i[c] < 58'd1024);
  end

  // Grants in order: client, first unit, taken. Words are compared with the head.
  logic [1:0] cl[16];
  logic [57:0] un[16];
  logic [6:0] ct[16];
  logic [3:0] gp_q = 4'd0, hp_q = 4'd0;
  logic [6:0] off_q = 7'd0;
  logic [1:0] who;
  logic [57:0] expect_unit;
  assign who = req_valid_i[0] ? 2'd0 : req_valid_i[1] ? 2'd1 : req_valid_i[2] ? 2'd2 : 2'd3;
  assign expect_unit = un[hp_q] + 58'(off_q);
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      gp_q <= 4'd0;
      hp_q <= 4'd0;
      off_q <= 7'd0;
    end else begin
      if (gnt != 4'd0) begin
        cl[gp_q] <= who;
        un[gp_q] <= req_unit_i[who];
        ct[gp_q] <= gnt_units;
        gp_q <= gp_q + 4'd1;
      end
      if (word_valid) begin
        off_q <= off_q + 7'd1 == ct[hp_q] ? 7'd0 : off_q + 7'd1;
        if (off_q + 7'd1 == ct[hp_q]) hp_q <= hp_q + 4'd1;
      end
    end
  end
  // With nothing presented or on the way somebody who asks is served.
  logic [3:0] wait_q = 4'd0;
  always_ff @(posedge clk_i) wait_q <= rst_ni && req_valid_i != 4'd0 && gnt == 4'd0 && idle ? wait_q + 4'd1 : 4'd0;
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      assert (wait_q < 4'd9);
      assert (gnt == 4'd0 || gnt == 4'd1 << who);
      if (gnt != 4'd0) begin
        assert (req_valid_i[who]);
        assert (gnt_units != 7'd0 && 16'(gnt_units) <= req_units_i[who]);
        assert (7'(req_unit_i[who][0]) + gnt_units <= 7'd2);  // inside a stripe
        assert (gp_q + 4'd1 != hp_q);  // this bench's own list does not run over
      end
      if (word_valid) begin
        assert (gp_q != hp_q);
        assert (word_client == cl[hp_q]);
        assert (word[31:0] == {expect_unit[30:0], 1'b0} && word[PortW+:32] == {expect_unit[30:0], 1'b1});
      end
      if (idle && gp_q == hp_q) assert (!word_valid);
      cover (word_valid && word_client == 2'd3 && hp_q == 4'd3);
    end
  end
endmodule
