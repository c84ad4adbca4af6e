// A client of the read engine: asks for one range after another, never more than its FIFO has room for, and hands
// the words on in order.
module foray_client #(
    parameter int unsigned InW = 512,
    parameter int unsigned OutW = 512,
    /// Units of the FIFO, a power of two.
    parameter int unsigned Units = 64,
    /// Smallest piece worth asking for when there is more to ask.
    parameter int unsigned StripeUnits = 4
) (
    input logic clk_i,
    input logic rst_ni,
    /// Drops ranges and words; hold until the read engine is idle.
    input logic abort_i,

    /// Next range; taken when the one before has been asked for in whole.
    input logic range_valid_i,
    output logic range_ready_o,
    input logic [57:0] range_unit_i,
    input logic [31:0] range_units_i,

    output logic req_valid_o,
    output logic [57:0] req_unit_o,
    output logic [15:0] req_units_o,
    input logic gnt_i,
    input logic [6:0] gnt_units_i,

    input logic word_valid_i,
    input logic [InW-1:0] word_i,

    output logic valid_o,
    input logic ready_i,
    output logic [OutW-1:0] data_o
);
  localparam int unsigned OutPerUnit = 512 / OutW;
  localparam int unsigned Cw = $clog2(Units) + 1;

  logic [57:0] unit_q;
  logic [31:0] left_q;
  logic [Cw-1:0] held_q;  // units asked for and not yet taken
  logic [Cw-1:0] free;
  logic [3:0] part_q;  // words taken of the present unit
  logic pop, unit_out;

  assign free = Cw'(Units) - held_q;
  assign range_ready_o = left_q == '0;
  assign req_valid_o = left_q != '0 && free != '0 &&
      (32'(free) >= left_q || 32'(free) >= 32'(StripeUnits));
  assign req_unit_o = unit_q;
  assign req_units_o = left_q < 32'(free) ? 16'(left_q) : 16'(free);
  assign pop = valid_o && ready_i;
  assign unit_out = pop && part_q == 4'(OutPerUnit - 1);

  always_ff @(posedge clk_i) begin
    if (range_valid_i && range_ready_o) unit_q <= range_unit_i;
    else if (gnt_i) unit_q <= unit_q + 58'(gnt_units_i);
    if (!rst_ni || abort_i) begin
      left_q <= '0;
      held_q <= '0;
      part_q <= '0;
    end else begin
      if (range_valid_i && range_ready_o) left_q <= range_units_i;
      else if (gnt_i) left_q <= left_q - 32'(gnt_units_i);
      held_q <= held_q + (gnt_i ? Cw'(gnt_units_i) : '0) - (unit_out ? Cw'(1) : '0);
      if (pop) part_q <= unit_out ? '0 : part_q + 4'd1;
    end
  end

  logic up_valid, unused_ready;
  logic [OutW-1:0] up;
  foray_upsize #(
      .InW (InW),
      .OutW(OutW)
  ) u_up (
      .clk_i,
      .rst_ni,
      .clear_i(abort_i),
      .valid_i(word_valid_i),
      .data_i (word_i),
      .valid_o(up_valid),
      .data_o (up)
  );
  foray_fifo #(
      .Width(OutW),
      .Depth(Units * OutPerUnit)
  ) u_fifo (
      .clk_i,
      .rst_ni,
      .clear_i(abort_i),
      .wvalid_i(up_valid),
      .wready_o(unused_ready),
      .wdata_i(up),
      .rvalid_o(valid_o),
      .rready_i(ready_i),
      .rdata_o(data_o)
  );
endmodule
