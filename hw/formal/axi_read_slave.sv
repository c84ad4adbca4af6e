// A memory behind an AXI4 read port for proofs: takes bursts when it likes, answers in order when it likes, data = number of the
// unit and beat. The master's rules are asserted.
module axi_read_slave #(
    parameter int unsigned PortW = 256,
    parameter int unsigned Bursts = 4
) (
    input  logic             clk_i,
    input  logic             rst_ni,
    input  logic             arvalid_i,
    output logic             arready_o,
    input  logic [63:0]      araddr_i,
    input  logic [7:0]       arlen_i,
    output logic             rvalid_o,
    input  logic             rready_i,
    output logic [PortW-1:0] rdata_o,
    output logic [7:0]       beats_o
);
  localparam int unsigned Bytes = PortW / 8;
  (* anyseq *) logic free_ar, free_r;
  logic [63:0] addr_q[Bursts];
  logic [7:0] len_q[Bursts];
  logic [3:0] n_q = 4'd0;
  logic [1:0] wp_q = 2'd0, rp_q = 2'd0;
  logic [7:0] beat_q = 8'd0, open_q = 8'd0;
  logic past_q = 1'b0, hold_q = 1'b0;
  logic ar, r, last;
  assign arready_o = free_ar && n_q < 4'(Bursts);
  assign rvalid_o = n_q != 4'd0 && (free_r || hold_q);
  assign ar = arvalid_i && arready_o;
  assign r = rvalid_o && rready_i;
  assign last = beat_q == len_q[rp_q];
  // the beat's address in beats tells it apart
  assign rdata_o = PortW'((addr_q[rp_q] >> $clog2(Bytes)) + 64'(beat_q));
  assign beats_o = open_q;
  always_ff @(posedge clk_i) begin
    past_q <= rst_ni;
    hold_q <= rst_ni && rvalid_o && !rready_i;
    if (ar) begin
      addr_q[wp_q] <= araddr_i;
      len_q[wp_q]  <= arlen_i;
    end
    if (!rst_ni) begin
      n_q <= 4'd0;
      wp_q <= 2'd0;
      rp_q <= 2'd0;
      beat_q <= 8'd0;
      open_q <= 8'd0;
    end else begin
      n_q <= n_q + 4'(ar) - 4'(r && last);
      if (ar) wp_q <= wp_q + 2'd1;
      if (r && last) rp_q <= rp_q + 2'd1;
      if (r) beat_q <= last ? 8'd0 : beat_q + 8'd1;
      open_q <= open_q + (ar ? arlen_i + 8'd1 : 8'd0) - 8'(r);
    end
  end
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      if (past_q && $past(arvalid_i && !arready_o)) assert (arvalid_i && $stable(araddr_i) && $stable(arlen_i));
      if (!past_q) assert (!arvalid_i);
      if (arvalid_i) begin
        assert (araddr_i[$clog2(Bytes)-1:0] == '0);  // whole beats
        assert ({20'd0, araddr_i[11:0]} + (32'(arlen_i) + 32'd1) * Bytes <= 32'd4096);
      end
      cover (ar && arlen_i != 8'd0 && n_q != 4'd0);
    end
  end
endmodule
