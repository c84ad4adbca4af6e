// Write engine: one unit a command, with a strobe per byte, as one AXI4 burst on the first port; up to
// 8 commands wait for their response.
module foray_wr #(
    parameter int unsigned PortW = 128
) (
    input logic clk_i,
    input logic rst_ni,
    /// First bus unit of the heap.
    input logic [57:0] base_i,
    /// Level: takes nothing new; what is presented is finished.
    input logic abort_i,
    /// No command waits for data, address or response.
    output logic idle_o,
    output logic error_o,
    output logic progress_o,

    input logic valid_i,
    output logic ready_o,
    /// Heap unit.
    input logic [31:0] addr_i,
    input logic [511:0] data_i,
    /// One per byte.
    input logic [63:0] strb_i,

    output logic awvalid_o,
    input logic awready_i,
    output logic [63:0] awaddr_o,
    output logic [7:0] awlen_o,
    output logic wvalid_o,
    input logic wready_i,
    output logic [PortW-1:0] wdata_o,
    output logic [PortW/8-1:0] wstrb_o,
    output logic wlast_o,
    input logic bvalid_i,
    output logic bready_o,
    input logic [1:0] bresp_i
);
  localparam int unsigned Beats = 512 / PortW;

  logic aw_q;  // address presented
  logic [3:0] n_q;  // beats left to present
  logic [3:0] open_q;  // responses to come
  logic [511:0] data_q;
  logic [63:0] strb_q;
  logic [57:0] unit_q;
  logic take;

  assign ready_o = !aw_q && n_q == '0 && open_q != 4'd8 && !abort_i;
  assign take = valid_i && ready_o;
  assign idle_o = !aw_q && n_q == '0 && open_q == '0;
  assign awvalid_o = aw_q;
  assign awaddr_o = {unit_q, 6'd0};
  assign awlen_o = 8'(Beats - 1);
  assign wvalid_o = n_q != '0;
  assign wdata_o = data_q[PortW-1:0];
  assign wstrb_o = strb_q[PortW/8-1:0];
  assign wlast_o = n_q == 4'd1;
  assign bready_o = 1'b1;
  assign error_o = bvalid_i && bresp_i != 2'b00;
  assign progress_o = bvalid_i || (awvalid_o && awready_i) || (wvalid_o && wready_i);

  always_ff @(posedge clk_i) begin
    if (take) begin
      unit_q <= base_i + 58'(addr_i);
      data_q <= data_i;
      strb_q <= strb_i;
    end else if (wvalid_o && wready_i) begin
      data_q <= data_q >> PortW;
      strb_q <= strb_q >> PortW / 8;
    end
    if (!rst_ni) begin
      aw_q <= 1'b0;
      n_q <= '0;
      open_q <= '0;
    end else begin
      if (take) aw_q <= 1'b1;
      else if (awready_i) aw_q <= 1'b0;
      if (take) n_q <= 4'(Beats);
      else if (wvalid_o && wready_i) n_q <= n_q - 4'd1;
      open_q <= open_q + (take ? 4'd1 : 4'd0) - (bvalid_i ? 4'd1 : 4'd0);
    end
  end
endmodule
