// One AXI4 read port: bursts of whole units, answers gathered to words of WordW bits and kept until the joiner takes
// them. Room is reserved by foray_rd before a burst is asked for, so RREADY is always high.
module foray_rd_port #(
    parameter int unsigned PortW = 128,
    parameter int unsigned WordW = 512,
    /// Words of the answer FIFO.
    parameter int unsigned Words = 64
) (
    input logic clk_i,
    input logic rst_ni,
    /// Drops queued bursts and everything that still arrives.
    input logic abort_i,
    /// A burst is presented or its data has not come in whole.
    output logic active_o,
    /// An answer was not OKAY (one cycle).
    output logic error_o,
    /// A beat was taken (one cycle).
    output logic beat_o,

    input logic cmd_valid_i,
    output logic cmd_ready_o,
    /// Bus address in units.
    input logic [57:0] cmd_unit_i,
    /// 1.. units, inside one burst.
    input logic [6:0] cmd_units_i,

    output logic word_valid_o,
    input logic word_ready_i,
    output logic [WordW-1:0] word_o,

    output logic arvalid_o,
    input logic arready_i,
    output logic [63:0] araddr_o,
    output logic [7:0] arlen_o,
    input logic rvalid_i,
    output logic rready_o,
    input logic [PortW-1:0] rdata_i,
    input logic [1:0] rresp_i
);
  localparam int unsigned BeatsPerUnit = 512 / PortW;

  logic q_valid, q_ready, q_space;
  logic [64:0] q_cmd;
  foray_fifo #(
      .Width(65),
      .Depth(8)
  ) u_cmd (
      .clk_i,
      .rst_ni,
      .clear_i(abort_i),
      .wvalid_i(cmd_valid_i),
      .wready_o(q_space),
      .wdata_i({cmd_units_i, cmd_unit_i}),
      .rvalid_o(q_valid),
      .rready_i(q_ready),
      .rdata_o(q_cmd)
  );
  assign cmd_ready_o = q_space;

  logic arvalid_q;
  logic [57:0] unit_q;
  logic [8:0] beats_q;
  logic [15:0] open_q;  // beats asked for and not yet here
  assign q_ready = !arvalid_q || arready_i;
  assign arvalid_o = arvalid_q;
  assign araddr_o = {unit_q, 6'd0};
  assign arlen_o = 8'(beats_q - 9'd1);
  assign rready_o = 1'b1;
  assign active_o = arvalid_q || open_q != '0;
  assign error_o = rvalid_i && rresp_i != 2'b00;
  assign beat_o = rvalid_i;

  always_ff @(posedge clk_i) begin
    if (q_ready) begin
      unit_q <= q_cmd[57:0];
      beats_q <= 9'(16'(q_cmd[64:58]) * 16'(BeatsPerUnit));
    end
    if (!rst_ni) begin
      arvalid_q <= 1'b0;
      open_q <= '0;
    end else begin
      if (q_ready) arvalid_q <= q_valid && !abort_i;
      open_q <= open_q + (arvalid_q && arready_i ? 16'(beats_q) : 16'd0) - (rvalid_i ? 16'd1 : 16'd0);
    end
  end

  logic up_valid;
  logic [WordW-1:0] up_word;
  logic unused_ready;
  foray_upsize #(
      .InW (PortW),
      .OutW(WordW)
  ) u_up (
      .clk_i,
      .rst_ni,
      .clear_i(abort_i),
      .valid_i(rvalid_i && !abort_i),
      .data_i (rdata_i),
      .valid_o(up_valid),
      .data_o (up_word)
  );
  foray_fifo #(
      .Width(WordW),
      .Depth(Words)
  ) u_data (
      .clk_i,
      .rst_ni,
      .clear_i(abort_i),
      .wvalid_i(up_valid),
      .wready_o(unused_ready),
      .wdata_i(up_word),
      .rvalid_o(word_valid_o),
      .rready_i(word_ready_i),
      .rdata_o(word_o)
  );
endmodule
