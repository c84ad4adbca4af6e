// AXI4-Lite slave with the Vitis RTL-kernel map (docs/abi.md), interrupt and counters. A doorbell while a run is under
// way is remembered and starts the next run; further ones before that are the same doorbell.
module foray_ctrl #(
    parameter int unsigned Cols = 1,
    parameter int unsigned ScratchUnits = 16384,
    parameter logic [31:0] BuildId = 32'd0
) (
    input logic clk_i,
    input logic rst_ni,

    input logic awvalid_i,
    output logic awready_o,
    input logic [11:0] awaddr_i,
    input logic wvalid_i,
    output logic wready_o,
    input logic [31:0] wdata_i,
    input logic [3:0] wstrb_i,
    output logic bvalid_o,
    input logic bready_i,
    output logic [1:0] bresp_o,
    input logic arvalid_i,
    output logic arready_o,
    input logic [11:0] araddr_i,
    output logic rvalid_o,
    input logic rready_i,
    output logic [31:0] rdata_o,
    output logic [1:0] rresp_o,
    output logic irq_o,

    output logic start_o,
    input logic taken_i,
    input logic running_i,
    input logic done_i,
    input logic [7:0] err_i,
    input logic [31:0] err_desc_i,
    output logic stop_o,
    output logic [57:0] base_o,
    output logic [31:0] heap_units_o,
    output logic [31:0] run_unit_o,

    input foray_pkg::count_t count_i,
    /// Activity of a cycle: 0 sequencer, then matrix, attention, vector, exit: busy, starved, blocked.
    input logic [12:0] cycle_i,
    input logic [6:0] read_units_i,
    input logic write_i
);
  localparam int unsigned N = foray_abi_pkg::COUNTERS;
  logic [N-1:0][63:0] counter_q;
  logic [N-1:0][39:0] inc;
  always_comb begin
    inc = '0;
    inc[foray_abi_pkg::COUNTER_RUNS] = 40'(taken_i);
    inc[foray_abi_pkg::COUNTER_OPS] = 40'(count_i.op);
    inc[foray_abi_pkg::COUNTER_COLUMNS] = 40'(count_i.columns);
    inc[foray_abi_pkg::COUNTER_PASSES] = 40'(count_i.pass);
    inc[foray_abi_pkg::COUNTER_DRAFTED] = 40'(count_i.drafted);
    inc[foray_abi_pkg::COUNTER_CHECKED] = 40'(count_i.checked);
    inc[foray_abi_pkg::COUNTER_CORRECTED] = 40'(count_i.corrected);
    inc[foray_abi_pkg::COUNTER_WEIGHT_BYTES] = count_i.weight_bytes;
    inc[foray_abi_pkg::COUNTER_EMBED_BYTES] = count_i.embed_bytes;
    inc[foray_abi_pkg::COUNTER_VECTOR_BYTES] = count_i.vector_bytes;
    inc[foray_abi_pkg::COUNTER_KV_READ_BYTES] = count_i.kv_read_bytes;
    inc[foray_abi_pkg::COUNTER_KV_WRITE_BYTES] = count_i.kv_write_bytes;
    inc[foray_abi_pkg::COUNTER_RESID_BYTES] = count_i.resid_bytes;
    inc[foray_abi_pkg::COUNTER_DESC_BYTES] = count_i.op ? 40'd64 : 40'd0;
    inc[foray_abi_pkg::COUNTER_BUSY] = 40'(running_i);
    for (int unsigned k = 0; k < 13; k++) inc[foray_abi_pkg::COUNTER_CYC_SEQ+k] = 40'(cycle_i[k]);
    inc[foray_abi_pkg::COUNTER_READ_UNITS] = 40'(read_units_i);
    inc[foray_abi_pkg::COUNTER_WRITE_UNITS] = 40'(write_i);
  end
  for (genvar g = 0; g < N; g++) begin : gen_counter
    always_ff @(posedge clk_i) begin
      if (!rst_ni) counter_q[g] <= '0;
      else if (inc[g] != '0) counter_q[g] <= counter_q[g] + 64'(inc[g]);
    end
  end

  // ---- registers ----
  logic start_q, done_q, ready_q, auto_q, gie_q, stop_q;
  logic [1:0] ier_q, isr_q;
  logic [31:0] heap_lo_q, heap_hi_q, heap_units_q, run_q, error_q, error_desc_q, high_q;
  assign start_o = start_q;
  assign stop_o = stop_q;
  assign base_o = {heap_hi_q, heap_lo_q[31:6]};
  assign heap_units_o = heap_units_q;
  assign run_unit_o = run_q;
  assign irq_o = gie_q && isr_q != '0;
  assign bresp_o = 2'b00;
  assign rresp_o = 2'b00;

  // writes: address and data in any order, one at a time
  logic aw_q, w_q, wr;
  logic [11:0] waddr_q;
  logic [31:0] wdata_q, wmask_q;
  assign awready_o = !aw_q;
  assign wready_o = !w_q;
  assign wr = aw_q && w_q && !bvalid_o;
  always_ff @(posedge clk_i) begin
    if (awvalid_i && awready_o) waddr_q <= awaddr_i;
    if (wvalid_i && wready_o) begin
      wdata_q <= wdata_i;
      wmask_q <= {{8{wstrb_i[3]}}, {8{wstrb_i[2]}}, {8{wstrb_i[1]}}, {8{wstrb_i[0]}}};
    end
    if (!rst_ni) begin
      aw_q <= 1'b0;
      w_q <= 1'b0;
      bvalid_o <= 1'b0;
    end else begin
      if (awvalid_i && awready_o) aw_q <= 1'b1;
      else if (wr) aw_q <= 1'b0;
      if (wvalid_i && wready_o) w_q <= 1'b1;
      else if (wr) w_q <= 1'b0;
      if (wr) bvalid_o <= 1'b1;
      else if (bready_i) bvalid_o <= 1'b0;
    end
  end

  logic rd;
  assign arready_o = !rvalid_o;
  assign rd = arvalid_i && arready_o;
  logic [31:0] value;
  logic [11:0] index;  // counter words
  assign index = (araddr_i - 12'(foray_abi_pkg::REG_COUNTERS)) >> 2;
  always_comb begin
    value = '0;
    case ({araddr_i[11:2], 2'b00})
      12'(foray_abi_pkg::REG_CONTROL): value = {24'd0, auto_q, 3'd0, ready_q, !running_i && !start_q, done_q, start_q};
      12'(foray_abi_pkg::REG_IRQ_GLOBAL): value = {31'd0, gie_q};
      12'(foray_abi_pkg::REG_IRQ_ENABLE): value = {30'd0, ier_q};
      12'(foray_abi_pkg::REG_IRQ_STATUS): value = {30'd0, isr_q};
      12'(foray_abi_pkg::REG_ARG_HEAP_LO): value = heap_lo_q;
      12'(foray_abi_pkg::REG_ARG_HEAP_HI): value = heap_hi_q;
      12'(foray_abi_pkg::REG_ARG_HEAP_UNITS): value = heap_units_q;
      12'(foray_abi_pkg::REG_ARG_RUN): value = run_q;
      12'(foray_abi_pkg::REG_TYPE): value = 32'(foray_abi_pkg::TYPE_ID);
      12'(foray_abi_pkg::REG_VERSION): value = 32'(foray_abi_pkg::VERSION);
      12'(foray_abi_pkg::REG_ABI_HASH_LO): value = foray_abi_pkg::ABI_HASH[31:0];
      12'(foray_abi_pkg::REG_ABI_HASH_HI): value = foray_abi_pkg::ABI_HASH[63:32];
      12'(foray_abi_pkg::REG_BUILD_ID): value = BuildId;
      12'(foray_abi_pkg::REG_SCRATCH_UNITS): value = 32'(ScratchUnits);
      12'(foray_abi_pkg::REG_ERROR): value = error_q;
      12'(foray_abi_pkg::REG_ERROR_DESC): value = error_desc_q;
      12'(foray_abi_pkg::REG_STOP): value = {31'd0, stop_q};
      12'(foray_abi_pkg::REG_COLS): value = 32'(Cols);
      default:
      if (araddr_i >= 12'(foray_abi_pkg::REG_COUNTERS) && index < 12'(2 * N))
        value = index[0] ? high_q : counter_q[index[$clog2(N):1]][31:0];
    endcase
  end
  always_ff @(posedge clk_i) begin
    if (rd) begin
      rdata_o <= value;
      // the high word belongs to the low word that was read before it
      if (araddr_i >= 12'(foray_abi_pkg::REG_COUNTERS) && !index[0])
        high_q <= counter_q[index[$clog2(N):1]][63:32];
    end
    if (!rst_ni) rvalid_o <= 1'b0;
    else if (rd) rvalid_o <= 1'b1;
    else if (rready_i) rvalid_o <= 1'b0;
  end

  function automatic logic [31:0] merge(input logic [31:0] old, input logic [31:0] data, input logic [31:0] mask);
    merge = (old & ~mask) | (data & mask);
  endfunction
  logic w_control, r_control;
  assign w_control = wr && waddr_q == 12'(foray_abi_pkg::REG_CONTROL) && wmask_q[0];
  assign r_control = rd && araddr_i == 12'(foray_abi_pkg::REG_CONTROL);
  always_ff @(posedge clk_i) begin
    if (wr)
      case (waddr_q)
        12'(foray_abi_pkg::REG_CONTROL): if (wmask_q[7]) auto_q <= wdata_q[7];
        12'(foray_abi_pkg::REG_IRQ_GLOBAL): if (wmask_q[0]) gie_q <= wdata_q[0];
        12'(foray_abi_pkg::REG_IRQ_ENABLE): if (wmask_q[0]) ier_q <= wdata_q[1:0];
        12'(foray_abi_pkg::REG_ARG_HEAP_LO): heap_lo_q <= merge(heap_lo_q, wdata_q, wmask_q);
        12'(foray_abi_pkg::REG_ARG_HEAP_HI): heap_hi_q <= merge(heap_hi_q, wdata_q, wmask_q);
        12'(foray_abi_pkg::REG_ARG_HEAP_UNITS): heap_units_q <= merge(heap_units_q, wdata_q, wmask_q);
        12'(foray_abi_pkg::REG_ARG_RUN): run_q <= merge(run_q, wdata_q, wmask_q);
        12'(foray_abi_pkg::REG_STOP): if (wmask_q[0]) stop_q <= wdata_q[0];
        default: ;
      endcase
    if (taken_i) stop_q <= 1'b0;
    if (done_i) begin
      error_q <= 32'(err_i);
      error_desc_q <= err_desc_i;
    end
    // a doorbell in the cycle in which the one before is taken is another one
    if (w_control && wdata_q[0]) start_q <= 1'b1;
    else if (taken_i) start_q <= 1'b0;
    else if (done_i && auto_q) start_q <= 1'b1;
    if (done_i) done_q <= 1'b1;
    else if (r_control) done_q <= 1'b0;
    if (taken_i) ready_q <= 1'b1;
    else if (r_control) ready_q <= 1'b0;
    for (int unsigned k = 0; k < 2; k++) begin
      if (ier_q[k] && (k == 0 ? done_i : taken_i)) isr_q[k] <= 1'b1;
      else if (wr && waddr_q == 12'(foray_abi_pkg::REG_IRQ_STATUS) && wmask_q[0] && wdata_q[k]) isr_q[k] <= !isr_q[k];
    end
    if (!rst_ni) begin
      start_q <= 1'b0;
      done_q <= 1'b0;
      ready_q <= 1'b0;
      auto_q <= 1'b0;
      gie_q <= 1'b0;
      stop_q <= 1'b0;
      ier_q <= '0;
      isr_q <= '0;
      heap_lo_q <= '0;
      heap_hi_q <= '0;
      heap_units_q <= '0;
      run_q <= '0;
      error_q <= '0;
      error_desc_q <= '0;
    end
  end
endmodule
