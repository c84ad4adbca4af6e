// Read engine: takes requests of four clients (0 control, 1 KV, 2 aux, 3 weights; the lower number goes first),
// cuts them at stripes of StripeUnits units, spreads stripes over the ports by their address, and hands
// the answers back in the order of the requests. A client asks only for what it has room for, so nothing here waits for
// a client and none holds up another.
module foray_rd #(
    parameter int unsigned PortW = 128,
    parameter int unsigned Ports = 4,
    parameter int unsigned WordW = 512,
    /// Units of a stripe, a power of two; stripes divide 4096 bytes, so no burst crosses that border.
    parameter int unsigned StripeUnits = 4,
    /// Units that a port may have on the way.
    parameter int unsigned PortUnits = 64
) (
    input logic clk_i,
    input logic rst_ni,
    /// Level: drops everything; hold until idle_o.
    input logic abort_i,
    /// Nothing is presented or on the way.
    output logic idle_o,
    /// Some answer was not OKAY (one cycle).
    output logic error_o,
    /// A read handshake happened (one cycle).
    output logic progress_o,
    /// Units granted in this cycle.
    output logic [6:0] units_o,

    input logic [3:0] req_valid_i,
    /// Bus address in units.
    input logic [3:0][57:0] req_unit_i,
    /// Units wanted, of which at most a stripe is granted.
    input logic [3:0][15:0] req_units_i,
    /// One hot: the client's first gnt_units_o units are taken.
    output logic [3:0] gnt_o,
    output logic [6:0] gnt_units_o,

    /// Answers: one word a cycle at most.
    output logic word_valid_o,
    output logic [1:0] word_client_o,
    output logic [WordW-1:0] word_o,

    output logic [Ports-1:0] arvalid_o,
    input logic [Ports-1:0] arready_i,
    output logic [Ports-1:0][63:0] araddr_o,
    output logic [Ports-1:0][7:0] arlen_o,
    input logic [Ports-1:0] rvalid_i,
    output logic [Ports-1:0] rready_o,
    input logic [Ports-1:0][PortW-1:0] rdata_i,
    input logic [Ports-1:0][1:0] rresp_i
);
  localparam int unsigned Sw = StripeUnits > 1 ? $clog2(StripeUnits) : 1;
  localparam logic [57:0] StripeMask = 58'(StripeUnits) - 58'd1;
  localparam int unsigned WordsPerUnit = 512 / WordW;
  localparam int unsigned Pw = Ports > 1 ? $clog2(Ports) : 1;

  // ---- choice of a client, cut at the stripe ----
  logic [1:0] sel;
  logic any;
  logic [57:0] unit;
  logic [15:0] want;
  logic [6:0] left, take;
  logic [Pw-1:0] port;
  always_comb begin
    any = req_valid_i != '0;
    sel = req_valid_i[0] ? 2'd0 : req_valid_i[1] ? 2'd1 : req_valid_i[2] ? 2'd2 : 2'd3;
    unit = req_unit_i[sel];
    want = req_units_i[sel];
    left = 7'(StripeUnits) - 7'(unit & StripeMask);
    take = want < 16'(left) ? 7'(want) : left;
    port = Ports > 1 ? Pw'(unit >> (StripeUnits > 1 ? Sw : 0)) : '0;
  end

  logic [Ports-1:0] port_ready, port_active, port_error, port_beat, word_valid, word_ready;
  logic [Ports-1:0][WordW-1:0] word;
  logic [Ports-1:0][15:0] held_q;  // units asked of a port and not yet joined
  logic order_space, go;
  assign go = any && !abort_i && order_space && port_ready[port] &&
      held_q[port] + 16'(take) <= 16'(PortUnits);
  assign gnt_units_o = take;
  assign units_o = go ? take : '0;
  always_comb begin
    gnt_o = '0;
    gnt_o[sel] = go;
  end

  // ---- joining ----
  logic o_valid, o_ready;
  logic [1:0] o_client;
  logic [Pw-1:0] o_port;
  logic [6:0] o_units;
  foray_fifo #(
      .Width(9 + Pw),
      .Depth(64)
  ) u_order (
      .clk_i,
      .rst_ni,
      .clear_i(abort_i),
      .wvalid_i(go),
      .wready_o(order_space),
      .wdata_i({sel, port, take}),
      .rvalid_o(o_valid),
      .rready_i(o_ready),
      .rdata_o({o_client, o_port, o_units})
  );
  logic [12:0] done_q;  // words of this piece already joined
  logic take_word, last_word;
  assign take_word = o_valid && word_valid[o_port] && !abort_i;
  assign last_word = done_q == 13'(o_units) * 13'(WordsPerUnit) - 13'd1;
  assign o_ready = take_word && last_word;
  always_comb begin
    word_ready = '0;
    word_ready[o_port] = take_word;
  end
  always_ff @(posedge clk_i) begin
    if (take_word) begin
      word_o <= word[o_port];
      word_client_o <= o_client;
    end
    if (!rst_ni || abort_i) begin
      done_q <= '0;
      word_valid_o <= 1'b0;
    end else begin
      word_valid_o <= take_word;
      if (take_word) done_q <= last_word ? '0 : done_q + 13'd1;
    end
  end

  for (genvar p = 0; p < Ports; p++) begin : gen_port
    always_ff @(posedge clk_i) begin
      if (!rst_ni || abort_i) held_q[p] <= '0;
      else
        held_q[p] <= held_q[p] + (go && port == Pw'(p) ? 16'(take) : 16'd0) -
            (o_ready && o_port == Pw'(p) ? 16'(o_units) : 16'd0);
    end
    foray_rd_port #(
        .PortW(PortW),
        .WordW(WordW),
        .Words(PortUnits * WordsPerUnit)
    ) u_port (
        .clk_i,
        .rst_ni,
        .abort_i,
        .active_o(port_active[p]),
        .error_o(port_error[p]),
        .beat_o(port_beat[p]),
        .cmd_valid_i(go && port == Pw'(p)),
        .cmd_ready_o(port_ready[p]),
        .cmd_unit_i(unit),
        .cmd_units_i(take),
        .word_valid_o(word_valid[p]),
        .word_ready_i(word_ready[p]),
        .word_o(word[p]),
        .arvalid_o(arvalid_o[p]),
        .arready_i(arready_i[p]),
        .araddr_o(araddr_o[p]),
        .arlen_o(arlen_o[p]),
        .rvalid_i(rvalid_i[p]),
        .rready_o(rready_o[p]),
        .rdata_i(rdata_i[p]),
        .rresp_i(rresp_i[p])
    );
  end
  assign idle_o = port_active == '0;
  assign error_o = port_error != '0;
  assign progress_o = port_beat != '0 || (arvalid_o & arready_i) != '0;
endmodule
