`include "foray_cfg.svh"
// The device: control registers, sequencer, read and write masters, engines (hw/rtl/README.md).
module foray_top #(
    parameter int unsigned PortW = `FORAY_PORT_W,
    parameter int unsigned Ports = `FORAY_PORTS,
    parameter int unsigned Cols = `FORAY_COLS,
    parameter int unsigned ScratchUnits = `FORAY_SCRATCH_UNITS,
    /// Units of the weight prefetch.
    parameter int unsigned FifoUnits = `FORAY_FIFO_UNITS,
    /// Units of a stripe: one burst of one port.
    parameter int unsigned StripeUnits = `FORAY_STRIPE_UNITS,
    /// Descriptors that the program memory holds.
    parameter int unsigned ProgDepth = `FORAY_PROG_DEPTH,
    /// Groups of 32 that the matrix engine and, over all columns, the attention engine keep.
    parameter int unsigned ActGroups = `FORAY_ACT_GROUPS,
    parameter int unsigned QGroups = `FORAY_Q_GROUPS,
    /// Pairs of query head and column that the attention engine works on at a time.
    parameter int unsigned AttnLanes = `FORAY_ATTN_LANES,
    /// Rounds of the noise generator that run side by side: 1, 2, 5, 10.
    parameter int unsigned Unroll = `FORAY_UNROLL,
    /// Cycles without a sign of life after which the memory is given up; the longest op takes far fewer.
    parameter int unsigned Watchdog = 1 << 18,
    parameter logic [31:0] BuildId = 32'd0
) (
    input logic clk_i,
    input logic rst_ni,

    /// AXI4-Lite, control.
    input logic s_awvalid_i,
    output logic s_awready_o,
    input logic [11:0] s_awaddr_i,
    input logic s_wvalid_i,
    output logic s_wready_o,
    input logic [31:0] s_wdata_i,
    input logic [3:0] s_wstrb_i,
    output logic s_bvalid_o,
    input logic s_bready_i,
    output logic [1:0] s_bresp_o,
    input logic s_arvalid_i,
    output logic s_arready_o,
    input logic [11:0] s_araddr_i,
    output logic s_rvalid_o,
    input logic s_rready_i,
    output logic [31:0] s_rdata_o,
    output logic [1:0] s_rresp_o,
    output logic irq_o,

    /// AXI4 read masters (ID 0, INCR, whole beats).
    output logic [Ports-1:0] m_arvalid_o,
    input logic [Ports-1:0] m_arready_i,
    output logic [Ports-1:0][63:0] m_araddr_o,
    output logic [Ports-1:0][7:0] m_arlen_o,
    input logic [Ports-1:0] m_rvalid_i,
    output logic [Ports-1:0] m_rready_o,
    input logic [Ports-1:0][PortW-1:0] m_rdata_i,
    input logic [Ports-1:0][1:0] m_rresp_i,

    /// AXI4 write master, on the first port.
    output logic m_awvalid_o,
    input logic m_awready_i,
    output logic [63:0] m_awaddr_o,
    output logic [7:0] m_awlen_o,
    output logic m_wvalid_o,
    input logic m_wready_i,
    output logic [PortW-1:0] m_wdata_o,
    output logic [PortW/8-1:0] m_wstrb_o,
    output logic m_wlast_o,
    input logic m_bvalid_i,
    output logic m_bready_o,
    input logic [1:0] m_bresp_i,

    /// For simulators; leave open on a board.
    output foray_pkg::trace_t trace_o,
    output logic [12:0] cycle_o
);
  localparam int unsigned Raw = PortW * Ports;
  localparam int unsigned WsW = Raw < 64 ? 64 : Raw > 512 ? 512 : Raw;
  // the joiner moves what all ports bring in a cycle
  localparam int unsigned WordW = Raw > 512 ? 512 : Raw < PortW ? PortW : Raw;

  // ---- control ----
  logic start, taken, running, done, stop;
  logic [7:0] err;
  logic [31:0] err_desc, heap_units, run_unit;
  logic [57:0] base;
  foray_pkg::count_t count;
  logic [12:0] cycle;
  logic [6:0] read_units;
  logic kw_take;
  foray_ctrl #(
      .Cols(Cols),
      .ScratchUnits(ScratchUnits),
      .BuildId(BuildId)
  ) u_ctrl (
      .clk_i,
      .rst_ni,
      .awvalid_i(s_awvalid_i),
      .awready_o(s_awready_o),
      .awaddr_i(s_awaddr_i),
      .wvalid_i(s_wvalid_i),
      .wready_o(s_wready_o),
      .wdata_i(s_wdata_i),
      .wstrb_i(s_wstrb_i),
      .bvalid_o(s_bvalid_o),
      .bready_i(s_bready_i),
      .bresp_o(s_bresp_o),
      .arvalid_i(s_arvalid_i),
      .arready_o(s_arready_o),
      .araddr_i(s_araddr_i),
      .rvalid_o(s_rvalid_o),
      .rready_i(s_rready_i),
      .rdata_o(s_rdata_o),
      .rresp_o(s_rresp_o),
      .irq_o,
      .start_o(start),
      .taken_i(taken),
      .running_i(running),
      .done_i(done),
      .err_i(err),
      .err_desc_i(err_desc),
      .stop_o(stop),
      .base_o(base),
      .heap_units_o(heap_units),
      .run_unit_o(run_unit),
      .count_i(count),
      .cycle_i(cycle),
      .read_units_i(read_units),
      .write_i(kw_take)
  );

  // ---- sequencer ----
  logic abort, unit_rst_n, rd_idle, wr_idle, rd_error, wr_error, rd_progress, wr_progress;
  logic sq_range_valid, sq_range_ready, cd_valid, cd_ready;
  logic [31:0] sq_range_unit, sq_range_units;
  logic [511:0] cd_data;
  logic walk_start;
  logic [12:0] walk_from, walk_to;
  logic pw_valid, sq_pr_valid, sq_pr_gnt;
  logic [11:0] pw_addr, sq_pr_addr;
  logic [255:0] pw_data, pr_data;
  logic [3:0] cmd_valid, cmd_done, unit_busy;
  foray_pkg::cmd_t cmd;
  logic sq_sp_re, sq_sp_we;
  logic [19:0] sq_sp_raddr, sq_sp_waddr;
  logic [511:0] sq_sp_wdata, sp_rdata;
  logic sq_kw_valid, sq_kw_ready;
  logic [31:0] sq_kw_addr;
  logic [511:0] sq_kw_data;
  logic [15:0] sq_kw_strb;
  logic score, lg_valid, lg_ready, sq_lg_ready, ex_lg_ready;
  foray_pkg::logit_t lg;
  logic ex_clear, ex_clear_busy, ex_finish, ex_done, ex_busy;
  logic [2:0] ex_col;
  foray_pkg::exit_arg_t ex_arg;
  foray_pkg::exit_res_t ex_res;
  foray_seq #(
      .Cols(Cols),
      .ScratchUnits(ScratchUnits),
      .ActGroups(ActGroups),
      .QGroups(QGroups),
      .ProgDepth(ProgDepth),
      .Watchdog(Watchdog)
  ) u_seq (
      .clk_i,
      .rst_ni,
      .start_i(start),
      .taken_o(taken),
      .running_o(running),
      .done_o(done),
      .err_o(err),
      .err_desc_o(err_desc),
      .stop_i(stop),
      .heap_units_i(heap_units),
      .run_unit_i(run_unit),
      .count_o(count),
      .trace_o,
      .abort_o(abort),
      .unit_rst_no(unit_rst_n),
      .rd_idle_i(rd_idle),
      .wr_idle_i(wr_idle),
      .bus_error_i(rd_error || wr_error),
      .progress_i(rd_progress || wr_progress),
      .range_valid_o(sq_range_valid),
      .range_ready_i(sq_range_ready),
      .range_unit_o(sq_range_unit),
      .range_units_o(sq_range_units),
      .cd_valid_i(cd_valid),
      .cd_ready_o(cd_ready),
      .cd_data_i(cd_data),
      .walk_start_o(walk_start),
      .walk_from_o(walk_from),
      .walk_to_o(walk_to),
      .pw_valid_o(pw_valid),
      .pw_addr_o(pw_addr),
      .pw_data_o(pw_data),
      .pr_valid_o(sq_pr_valid),
      .pr_addr_o(sq_pr_addr),
      .pr_gnt_i(sq_pr_gnt),
      .pr_data_i(pr_data),
      .cmd_valid_o(cmd_valid),
      .cmd_o(cmd),
      .cmd_done_i(cmd_done),
      .sp_re_o(sq_sp_re),
      .sp_raddr_o(sq_sp_raddr),
      .sp_rdata_i(sp_rdata),
      .sp_we_o(sq_sp_we),
      .sp_waddr_o(sq_sp_waddr),
      .sp_wdata_o(sq_sp_wdata),
      .kw_valid_o(sq_kw_valid),
      .kw_ready_i(sq_kw_ready),
      .kw_addr_o(sq_kw_addr),
      .kw_data_o(sq_kw_data),
      .kw_strb_o(sq_kw_strb),
      .score_o(score),
      .lg_valid_i(lg_valid),
      .lg_ready_o(sq_lg_ready),
      .lg_i(lg),
      .ex_clear_o(ex_clear),
      .ex_finish_o(ex_finish),
      .ex_col_o(ex_col),
      .ex_arg_o(ex_arg),
      .ex_done_i(ex_done),
      .ex_res_i(ex_res)
  );

  // ---- program memory: one read port, the sequencer first ----
  logic [255:0] prog[ProgDepth];
  logic ws_pr_valid, ws_pr_gnt, ax_pr_valid, ax_pr_gnt;
  logic [11:0] ws_pr_addr, ax_pr_addr, pr_addr;
  localparam int unsigned Daw = $clog2(ProgDepth);
  assign sq_pr_gnt = sq_pr_valid;
  assign ws_pr_gnt = ws_pr_valid && !sq_pr_valid;
  assign ax_pr_gnt = ax_pr_valid && !sq_pr_valid && !ws_pr_valid;
  assign pr_addr = sq_pr_valid ? sq_pr_addr : ws_pr_valid ? ws_pr_addr : ax_pr_addr;
  always_ff @(posedge clk_i) begin
    if (pw_valid) prog[pw_addr[Daw-1:0]] <= pw_data;
    if (sq_pr_valid || ws_pr_valid || ax_pr_valid) pr_data <= prog[pr_addr[Daw-1:0]];
  end

  // ---- reads: 0 sequencer, 1 KV, 2 aux, 3 weights ----
  logic [3:0] req_valid, gnt;
  logic [3:0][57:0] req_unit;
  logic [3:0][15:0] req_units;
  logic [6:0] gnt_units;
  logic word_valid;
  logic [1:0] word_client;
  logic [WordW-1:0] word;
  foray_rd #(
      .PortW(PortW),
      .Ports(Ports),
      .WordW(WordW),
      .StripeUnits(StripeUnits),
      .PortUnits(64)
  ) u_rd (
      .clk_i,
      .rst_ni,
      .abort_i(abort),
      .idle_o(rd_idle),
      .error_o(rd_error),
      .progress_o(rd_progress),
      .units_o(read_units),
      .req_valid_i(req_valid),
      .req_unit_i(req_unit),
      .req_units_i(req_units),
      .gnt_o(gnt),
      .gnt_units_o(gnt_units),
      .word_valid_o(word_valid),
      .word_client_o(word_client),
      .word_o(word),
      .arvalid_o(m_arvalid_o),
      .arready_i(m_arready_i),
      .araddr_o(m_araddr_o),
      .arlen_o(m_arlen_o),
      .rvalid_i(m_rvalid_i),
      .rready_o(m_rready_o),
      .rdata_i(m_rdata_i),
      .rresp_i(m_rresp_i)
  );

  foray_client #(
      .InW(WordW),
      .OutW(512),
      .Units(16),
      .StripeUnits(StripeUnits < 8 ? StripeUnits : 8)
  ) u_cd (
      .clk_i,
      .rst_ni,
      .abort_i(abort),
      .range_valid_i(sq_range_valid),
      .range_ready_o(sq_range_ready),
      .range_unit_i(base + 58'(sq_range_unit)),
      .range_units_i(sq_range_units),
      .req_valid_o(req_valid[0]),
      .req_unit_o(req_unit[0]),
      .req_units_o(req_units[0]),
      .gnt_i(gnt[0]),
      .gnt_units_i(gnt_units),
      .word_valid_i(word_valid && word_client == 2'd0),
      .word_i(word),
      .valid_o(cd_valid),
      .ready_i(cd_ready),
      .data_o(cd_data)
  );

  logic kr_valid, kr_ready, kv_valid, kv_ready, kv_last;
  logic [35:0] kr_addr;
  logic [31:0] kr_bytes;
  logic [511:0] kv_data;
  foray_kv_rd #(
      .InW(WordW),
      .Units(FifoUnits < 256 ? FifoUnits : 256),
      .StripeUnits(StripeUnits)
  ) u_kv_rd (
      .clk_i,
      .rst_ni,
      .abort_i(abort),
      .base_i(base),
      .kr_valid_i(kr_valid),
      .kr_ready_o(kr_ready),
      .kr_addr_i(kr_addr),
      .kr_bytes_i(kr_bytes),
      .kv_valid_o(kv_valid),
      .kv_ready_i(kv_ready),
      .kv_data_o(kv_data),
      .kv_last_o(kv_last),
      .req_valid_o(req_valid[1]),
      .req_unit_o(req_unit[1]),
      .req_units_o(req_units[1]),
      .gnt_i(gnt[1]),
      .gnt_units_i(gnt_units),
      .word_valid_i(word_valid && word_client == 2'd1),
      .word_i(word)
  );

  logic ax_range_valid, ax_range_ready, ax_valid, ax_ready, ws_range_valid, ws_range_ready, ws_valid, ws_ready;
  logic [57:0] ax_range_unit, ws_range_unit;
  logic [31:0] ax_range_units, ws_range_units;
  logic [511:0] ax_data;
  logic [WsW-1:0] ws_data;
  logic ax_walk_busy, ws_walk_busy;
  foray_walk #(
      .Aux(1'b1)
  ) u_ax_walk (
      .clk_i,
      .rst_ni,
      .abort_i(abort),
      .start_i(walk_start),
      .from_i(walk_from),
      .to_i(walk_to),
      .cmd_i(cmd),
      .base_i(base),
      .busy_o(ax_walk_busy),
      .pr_valid_o(ax_pr_valid),
      .pr_addr_o(ax_pr_addr),
      .pr_gnt_i(ax_pr_gnt),
      .pr_data_i(pr_data),
      .range_valid_o(ax_range_valid),
      .range_ready_i(ax_range_ready),
      .range_unit_o(ax_range_unit),
      .range_units_o(ax_range_units)
  );
  foray_client #(
      .InW(WordW),
      .OutW(512),
      .Units(64),
      .StripeUnits(StripeUnits)
  ) u_ax (
      .clk_i,
      .rst_ni,
      .abort_i(abort),
      .range_valid_i(ax_range_valid),
      .range_ready_o(ax_range_ready),
      .range_unit_i(ax_range_unit),
      .range_units_i(ax_range_units),
      .req_valid_o(req_valid[2]),
      .req_unit_o(req_unit[2]),
      .req_units_o(req_units[2]),
      .gnt_i(gnt[2]),
      .gnt_units_i(gnt_units),
      .word_valid_i(word_valid && word_client == 2'd2),
      .word_i(word),
      .valid_o(ax_valid),
      .ready_i(ax_ready),
      .data_o(ax_data)
  );
  foray_walk #(
      .Aux(1'b0)
  ) u_ws_walk (
      .clk_i,
      .rst_ni,
      .abort_i(abort),
      .start_i(walk_start),
      .from_i(walk_from),
      .to_i(walk_to),
      .cmd_i(cmd),
      .base_i(base),
      .busy_o(ws_walk_busy),
      .pr_valid_o(ws_pr_valid),
      .pr_addr_o(ws_pr_addr),
      .pr_gnt_i(ws_pr_gnt),
      .pr_data_i(pr_data),
      .range_valid_o(ws_range_valid),
      .range_ready_i(ws_range_ready),
      .range_unit_o(ws_range_unit),
      .range_units_o(ws_range_units)
  );
  foray_client #(
      .InW(WordW),
      .OutW(WsW),
      .Units(FifoUnits),
      .StripeUnits(StripeUnits)
  ) u_ws (
      .clk_i,
      .rst_ni,
      .abort_i(abort),
      .range_valid_i(ws_range_valid),
      .range_ready_o(ws_range_ready),
      .range_unit_i(ws_range_unit),
      .range_units_i(ws_range_units),
      .req_valid_o(req_valid[3]),
      .req_unit_o(req_unit[3]),
      .req_units_o(req_units[3]),
      .gnt_i(gnt[3]),
      .gnt_units_i(gnt_units),
      .word_valid_i(word_valid && word_client == 2'd3),
      .word_i(word),
      .valid_o(ws_valid),
      .ready_i(ws_ready),
      .data_o(ws_data)
  );

  // ---- units ----
  logic mv_ax_ready, vec_ax_ready, mv_op_q;  // the aux stream goes to the unit that works
  logic [3:0] sp_re, sp_we;
  logic [3:0][19:0] sp_raddr, sp_waddr;
  logic [3:0][511:0] sp_wdata;
  logic [3:0][15:0] sp_wstrb;
  logic [3:0][2:0] act;  // act_t of each unit: busy, starved, blocked
  logic [2:0] ex_act;
  assign mv_op_q = unit_busy[0];
  assign ax_ready = mv_op_q ? mv_ax_ready : vec_ax_ready;
  foray_mv #(
      .Cols(Cols),
      .WsW(WsW),
      .ActGroups(ActGroups)
  ) u_mv (
      .clk_i,
      .rst_ni(unit_rst_n),
      .cmd_valid_i(cmd_valid[0]),
      .cmd_i(cmd),
      .done_o(cmd_done[0]),
      .busy_o(unit_busy[0]),
      .act_o(act[0]),
      .ws_valid_i(ws_valid),
      .ws_ready_o(ws_ready),
      .ws_data_i(ws_data),
      .ax_valid_i(ax_valid && mv_op_q),
      .ax_ready_o(mv_ax_ready),
      .ax_data_i(ax_data),
      .sp_re_o(sp_re[0]),
      .sp_raddr_o(sp_raddr[0]),
      .sp_rdata_i(sp_rdata),
      .sp_we_o(sp_we[0]),
      .sp_waddr_o(sp_waddr[0]),
      .sp_wdata_o(sp_wdata[0]),
      .sp_wstrb_o(sp_wstrb[0]),
      .lg_valid_o(lg_valid),
      .lg_ready_i(lg_ready),
      .lg_o(lg)
  );
  assign lg_ready = score ? sq_lg_ready : ex_lg_ready;

  foray_attn #(
      .Lanes(AttnLanes),
      .QGroups(QGroups)
  ) u_attn (
      .clk_i,
      .rst_ni(unit_rst_n),
      .cmd_valid_i(cmd_valid[1]),
      .cmd_i(cmd),
      .done_o(cmd_done[1]),
      .busy_o(unit_busy[1]),
      .act_o(act[1]),
      .kr_valid_o(kr_valid),
      .kr_ready_i(kr_ready),
      .kr_addr_o(kr_addr),
      .kr_bytes_o(kr_bytes),
      .kv_valid_i(kv_valid),
      .kv_ready_o(kv_ready),
      .kv_data_i(kv_data),
      .kv_last_i(kv_last),
      .sp_re_o(sp_re[1]),
      .sp_raddr_o(sp_raddr[1]),
      .sp_rdata_i(sp_rdata),
      .sp_we_o(sp_we[1]),
      .sp_waddr_o(sp_waddr[1]),
      .sp_wdata_o(sp_wdata[1]),
      .sp_wstrb_o(sp_wstrb[1])
  );

  assign sp_we[2] = 1'b0;  // it only reads
  assign sp_waddr[2] = '0;
  assign sp_wdata[2] = '0;
  assign sp_wstrb[2] = '0;
  logic kp_valid, kp_ready;
  logic [31:0] kp_addr;
  logic [511:0] kp_data;
  logic [63:0] kp_strb;
  foray_kv_put u_kv_put (
      .clk_i,
      .rst_ni(unit_rst_n),
      .cmd_valid_i(cmd_valid[2]),
      .cmd_i(cmd),
      .done_o(cmd_done[2]),
      .busy_o(unit_busy[2]),
      .act_o(act[2]),
      .sp_re_o(sp_re[2]),
      .sp_raddr_o(sp_raddr[2]),
      .sp_rdata_i(sp_rdata),
      .kw_valid_o(kp_valid),
      .kw_ready_i(kp_ready),
      .kw_addr_o(kp_addr),
      .kw_data_o(kp_data),
      .kw_strb_o(kp_strb)
  );

  foray_vec u_vec (
      .clk_i,
      .rst_ni(unit_rst_n),
      .cmd_valid_i(cmd_valid[3]),
      .cmd_i(cmd),
      .done_o(cmd_done[3]),
      .busy_o(unit_busy[3]),
      .act_o(act[3]),
      .ax_valid_i(ax_valid && !mv_op_q),
      .ax_ready_o(vec_ax_ready),
      .ax_data_i(ax_data),
      .sp_re_o(sp_re[3]),
      .sp_raddr_o(sp_raddr[3]),
      .sp_rdata_i(sp_rdata),
      .sp_we_o(sp_we[3]),
      .sp_waddr_o(sp_waddr[3]),
      .sp_wdata_o(sp_wdata[3]),
      .sp_wstrb_o(sp_wstrb[3])
  );

  foray_exit #(
      .Cols(Cols),
      .Unroll(Unroll)
  ) u_exit (
      .clk_i,
      .rst_ni(unit_rst_n),
      .clear_i(ex_clear),
      .clear_busy_o(ex_clear_busy),
      .lg_valid_i(lg_valid && !score),
      .lg_ready_o(ex_lg_ready),
      .lg_i(lg),
      .arg_i(ex_arg),
      .finish_i(ex_finish),
      .col_i(ex_col),
      .done_o(ex_done),
      .res_o(ex_res),
      .busy_o(ex_busy),
      .act_o(ex_act)
  );

  // ---- scratchpad: the working unit owns it, idle ones are silent ----
  foray_scratch #(
      .Units(ScratchUnits)
  ) u_scratch (
      .clk_i,
      .re_i(sq_sp_re || sp_re != '0),
      .raddr_i(sq_sp_raddr | sp_raddr[0] | sp_raddr[1] | sp_raddr[2] | sp_raddr[3]),
      .rdata_o(sp_rdata),
      .we_i(sq_sp_we || sp_we != '0),
      .waddr_i(sq_sp_waddr | sp_waddr[0] | sp_waddr[1] | sp_waddr[2] | sp_waddr[3]),
      .wdata_i(sq_sp_wdata | sp_wdata[0] | sp_wdata[1] | sp_wdata[2] | sp_wdata[3]),
      .wstrb_i({16{sq_sp_we}} | sp_wstrb[0] | sp_wstrb[1] | sp_wstrb[2] | sp_wstrb[3])
  );

  // ---- writes ----
  logic kw_valid, kw_ready;
  logic [63:0] sq_bytes;
  for (genvar g = 0; g < 16; g++) begin : gen_bytes
    assign sq_bytes[4*g+:4] = {4{sq_kw_strb[g]}};
  end
  assign kw_valid = sq_kw_valid || kp_valid;
  assign sq_kw_ready = kw_ready;
  assign kp_ready = kw_ready && !sq_kw_valid;
  assign kw_take = kw_valid && kw_ready;
  foray_wr #(
      .PortW(PortW)
  ) u_wr (
      .clk_i,
      .rst_ni,
      .base_i(base),
      .abort_i(abort),
      .idle_o(wr_idle),
      .error_o(wr_error),
      .progress_o(wr_progress),
      .valid_i(kw_valid),
      .ready_o(kw_ready),
      .addr_i(sq_kw_valid ? sq_kw_addr : kp_addr),
      .data_i(sq_kw_valid ? sq_kw_data : kp_data),
      .strb_i(sq_kw_valid ? sq_bytes : kp_strb),
      .awvalid_o(m_awvalid_o),
      .awready_i(m_awready_i),
      .awaddr_o(m_awaddr_o),
      .awlen_o(m_awlen_o),
      .wvalid_o(m_wvalid_o),
      .wready_i(m_wready_i),
      .wdata_o(m_wdata_o),
      .wstrb_o(m_wstrb_o),
      .wlast_o(m_wlast_o),
      .bvalid_i(m_bvalid_i),
      .bready_o(m_bready_o),
      .bresp_i(m_bresp_i)
  );

  // ---- where each cycle of a run goes: exactly one bit ----
  function automatic logic [2:0] one(input logic starved, input logic blocked);
    one = starved ? 3'b010 : blocked ? 3'b100 : 3'b001;
  endfunction
  logic ex_wait_q;  // from finish to done
  always_ff @(posedge clk_i) begin
    if (!unit_rst_n || ex_done) ex_wait_q <= 1'b0;
    else if (ex_finish) ex_wait_q <= 1'b1;
  end
  always_comb begin
    cycle = '0;
    if (running) begin
      if (unit_busy[0]) cycle[3:1] = one(act[0][1], act[0][0]);
      else if (unit_busy[1]) cycle[6:4] = one(act[1][1], act[1][0]);
      else if (unit_busy[2]) cycle[9:7] = one(act[2][1], act[2][0]);
      else if (unit_busy[3]) cycle[9:7] = one(act[3][1], act[3][0]);
      else if (ex_wait_q) cycle[12:10] = one(ex_act[1], ex_act[0]);
      else cycle[0] = 1'b1;
    end
  end
  assign cycle_o = cycle;
  logic unused_busy;
  assign unused_busy = ^{act, ex_act, ax_walk_busy, ws_walk_busy, ex_busy, ex_clear_busy};
endmodule
