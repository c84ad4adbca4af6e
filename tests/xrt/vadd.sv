// A kernel as a Vitis user would package it: c[i] = a[i] + b[i], control map at s_axil, one read and one write master
// with single-beat transfers. Arguments: a 0x10, b 0x1c, c 0x28 (64 bits each), n 0x34.
module vadd (
    input  logic        ap_clk,
    input  logic        ap_rst_n,
    input  logic        s_awvalid,
    output logic        s_awready,
    input  logic [11:0] s_awaddr,
    input  logic        s_wvalid,
    output logic        s_wready,
    input  logic [31:0] s_wdata,
    output logic        s_bvalid,
    input  logic        s_bready,
    input  logic        s_arvalid,
    output logic        s_arready,
    input  logic [11:0] s_araddr,
    output logic        s_rvalid,
    input  logic        s_rready,
    output logic [31:0] s_rdata,
    output logic        m_arvalid,
    input  logic        m_arready,
    output logic [63:0] m_araddr,
    input  logic        m_rvalid,
    output logic        m_rready,
    input  logic [31:0] m_rdata,
    output logic        m_awvalid,
    input  logic        m_awready,
    output logic [63:0] m_awaddr,
    output logic        m_wvalid,
    input  logic        m_wready,
    output logic [31:0] m_wdata,
    input  logic        m_bvalid,
    output logic        m_bready
);
  typedef enum logic [2:0] {Idle, ReadA, GetA, ReadB, GetB, Write, Ack} state_e;
  state_e state;
  logic [63:0] a, b, c;
  logic [31:0] n, i, x, y;
  logic start, done, aw_done, w_done, last;

  assign s_awready = s_awvalid && s_wvalid && !s_bvalid;
  assign s_wready  = s_awready;
  assign s_arready = !s_rvalid;
  assign last      = i + 1 == n;
  assign m_arvalid = state == ReadA || state == ReadB;
  assign m_araddr  = (state == ReadA ? a : b) + {30'd0, i, 2'd0};
  assign m_rready  = state == GetA || state == GetB;
  assign m_awvalid = state == Write && !aw_done;
  assign m_awaddr  = c + {30'd0, i, 2'd0};
  assign m_wvalid  = state == Write && !w_done;
  assign m_wdata   = x + y;
  assign m_bready  = state == Ack;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      {s_bvalid, s_rvalid, start, done, aw_done, w_done} <= '0;
      {a, b, c, n, i, x, y, s_rdata} <= '0;
      state <= Idle;
    end else begin
      if (s_awready) begin
        s_bvalid <= 1'b1;
        unique case (s_awaddr)
          12'h00: start <= s_wdata[0];
          12'h10: a[31:0] <= s_wdata;
          12'h14: a[63:32] <= s_wdata;
          12'h1c: b[31:0] <= s_wdata;
          12'h20: b[63:32] <= s_wdata;
          12'h28: c[31:0] <= s_wdata;
          12'h2c: c[63:32] <= s_wdata;
          12'h34: n <= s_wdata;
          default: ;
        endcase
      end else if (s_bready) s_bvalid <= 1'b0;
      if (s_arvalid && s_arready) begin
        s_rvalid <= 1'b1;
        s_rdata  <= s_araddr == 12'h34 ? n : s_araddr == 12'h00 ? {28'd0, done, state == Idle && !start, done, start} : '0;
        if (s_araddr == 12'h00) done <= 1'b0;
      end else if (s_rready) s_rvalid <= 1'b0;

      unique case (state)
        Idle: if (start) begin
          i <= '0;
          if (n == 0) {start, done} <= 2'b01;
          else state <= ReadA;
        end
        ReadA: if (m_arready) state <= GetA;
        GetA: if (m_rvalid) begin
          x <= m_rdata;
          state <= ReadB;
        end
        ReadB: if (m_arready) state <= GetB;
        GetB: if (m_rvalid) begin
          y <= m_rdata;
          {aw_done, w_done} <= '0;
          state <= Write;
        end
        Write: begin
          if (m_awready) aw_done <= 1'b1;
          if (m_wready) w_done <= 1'b1;
          if ((aw_done || m_awready) && (w_done || m_wready)) state <= Ack;
        end
        Ack: if (m_bvalid) begin
          i <= i + 1;
          state <= last ? Idle : ReadA;
          if (last) {start, done} <= 2'b01;
        end
        default: state <= Idle;
      endcase
    end
endmodule
