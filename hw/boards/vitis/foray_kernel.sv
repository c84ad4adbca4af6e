// foray_top as a Vitis RTL kernel: the port names, address widths and constant AXI signals that Vivado's packager expects.
// One memory port (Alveo, configuration big), or four with FORAY_KERNEL_PORTS_4 (KV260, configuration mid).
`include "foray_cfg.svh"
module foray_kernel (
    /// Clock and synchronous reset of the kernel, as v++ connects them.
    input logic ap_clk,
    input logic ap_rst_n,
    output logic interrupt,

    /// Control map of hw/abi.
    input logic s_axi_control_awvalid,
    output logic s_axi_control_awready,
    input logic [11:0] s_axi_control_awaddr,
    input logic s_axi_control_wvalid,
    output logic s_axi_control_wready,
    input logic [31:0] s_axi_control_wdata,
    input logic [3:0] s_axi_control_wstrb,
    output logic s_axi_control_bvalid,
    input logic s_axi_control_bready,
    output logic [1:0] s_axi_control_bresp,
    input logic s_axi_control_arvalid,
    output logic s_axi_control_arready,
    input logic [11:0] s_axi_control_araddr,
    output logic s_axi_control_rvalid,
    input logic s_axi_control_rready,
    output logic [31:0] s_axi_control_rdata,
    output logic [1:0] s_axi_control_rresp,

    /// Memory port 0, which also writes.
    output logic m00_axi_arvalid,
    input logic m00_axi_arready,
    output logic [63:0] m00_axi_araddr,
    output logic [7:0] m00_axi_arlen,
    output logic [2:0] m00_axi_arsize,
    output logic [1:0] m00_axi_arburst,
    output logic [3:0] m00_axi_arcache,
    output logic [2:0] m00_axi_arprot,
    input logic m00_axi_rvalid,
    output logic m00_axi_rready,
    input logic [`FORAY_PORT_W-1:0] m00_axi_rdata,
    input logic [1:0] m00_axi_rresp,
    input logic m00_axi_rlast,
    output logic m00_axi_awvalid,
    input logic m00_axi_awready,
    output logic [63:0] m00_axi_awaddr,
    output logic [7:0] m00_axi_awlen,
    output logic [2:0] m00_axi_awsize,
    output logic [1:0] m00_axi_awburst,
    output logic [3:0] m00_axi_awcache,
    output logic [2:0] m00_axi_awprot,
    output logic m00_axi_wvalid,
    input logic m00_axi_wready,
    output logic [`FORAY_PORT_W-1:0] m00_axi_wdata,
    output logic [`FORAY_PORT_W/8-1:0] m00_axi_wstrb,
    output logic m00_axi_wlast,
    input logic m00_axi_bvalid,
    output logic m00_axi_bready,
    input logic [1:0] m00_axi_bresp
`ifdef FORAY_KERNEL_PORTS_4
    ,
    /// Memory port 1, reads only.
    output logic m01_axi_arvalid,
    input logic m01_axi_arready,
    output logic [63:0] m01_axi_araddr,
    output logic [7:0] m01_axi_arlen,
    output logic [2:0] m01_axi_arsize,
    output logic [1:0] m01_axi_arburst,
    output logic [3:0] m01_axi_arcache,
    output logic [2:0] m01_axi_arprot,
    input logic m01_axi_rvalid,
    output logic m01_axi_rready,
    input logic [`FORAY_PORT_W-1:0] m01_axi_rdata,
    input logic [1:0] m01_axi_rresp,
    input logic m01_axi_rlast,

    /// Memory port 2, reads only.
    output logic m02_axi_arvalid,
    input logic m02_axi_arready,
    output logic [63:0] m02_axi_araddr,
    output logic [7:0] m02_axi_arlen,
    output logic [2:0] m02_axi_arsize,
    output logic [1:0] m02_axi_arburst,
    output logic [3:0] m02_axi_arcache,
    output logic [2:0] m02_axi_arprot,
    input logic m02_axi_rvalid,
    output logic m02_axi_rready,
    input logic [`FORAY_PORT_W-1:0] m02_axi_rdata,
    input logic [1:0] m02_axi_rresp,
    input logic m02_axi_rlast,

    /// Memory port 3, reads only.
    output logic m03_axi_arvalid,
    input logic m03_axi_arready,
    output logic [63:0] m03_axi_araddr,
    output logic [7:0] m03_axi_arlen,
    output logic [2:0] m03_axi_arsize,
    output logic [1:0] m03_axi_arburst,
    output logic [3:0] m03_axi_arcache,
    output logic [2:0] m03_axi_arprot,
    input logic m03_axi_rvalid,
    output logic m03_axi_rready,
    input logic [`FORAY_PORT_W-1:0] m03_axi_rdata,
    input logic [1:0] m03_axi_rresp,
    input logic m03_axi_rlast
`endif
);
  localparam int unsigned Size = $clog2(`FORAY_PORT_W / 8);
  localparam int unsigned Ports = `FORAY_PORTS;

  logic [Ports-1:0] arvalid, arready, rvalid, rready;
  logic [Ports-1:0][63:0] araddr;
  logic [Ports-1:0][7:0] arlen;
  logic [Ports-1:0][`FORAY_PORT_W-1:0] rdata;
  logic [Ports-1:0][1:0] rresp;

  assign m00_axi_arvalid = arvalid[0];
  assign arready[0] = m00_axi_arready;
  assign m00_axi_araddr = araddr[0];
  assign m00_axi_arlen = arlen[0];
  assign m00_axi_arsize = 3'(Size);
  assign m00_axi_arburst = 2'b01;
  assign m00_axi_arcache = 4'b0011;
  assign m00_axi_arprot = 3'b000;
  assign rvalid[0] = m00_axi_rvalid;
  assign m00_axi_rready = rready[0];
  assign rdata[0] = m00_axi_rdata;
  assign rresp[0] = m00_axi_rresp;
  assign m00_axi_awsize = 3'(Size);
  assign m00_axi_awburst = 2'b01;
  assign m00_axi_awcache = 4'b0011;
  assign m00_axi_awprot = 3'b000;
`ifdef FORAY_KERNEL_PORTS_4
  assign m01_axi_arvalid = arvalid[1];
  assign arready[1] = m01_axi_arready;
  assign m01_axi_araddr = araddr[1];
  assign m01_axi_arlen = arlen[1];
  assign m01_axi_arsize = 3'(Size);
  assign m01_axi_arburst = 2'b01;
  assign m01_axi_arcache = 4'b0011;
  assign m01_axi_arprot = 3'b000;
  assign rvalid[1] = m01_axi_rvalid;
  assign m01_axi_rready = rready[1];
  assign rdata[1] = m01_axi_rdata;
  assign rresp[1] = m01_axi_rresp;
  assign m02_axi_arvalid = arvalid[2];
  assign arready[2] = m02_axi_arready;
  assign m02_axi_araddr = araddr[2];
  assign m02_axi_arlen = arlen[2];
  assign m02_axi_arsize = 3'(Size);
  assign m02_axi_arburst = 2'b01;
  assign m02_axi_arcache = 4'b0011;
  assign m02_axi_arprot = 3'b000;
  assign rvalid[2] = m02_axi_rvalid;
  assign m02_axi_rready = rready[2];
  assign rdata[2] = m02_axi_rdata;
  assign rresp[2] = m02_axi_rresp;
  assign m03_axi_arvalid = arvalid[3];
  assign arready[3] = m03_axi_arready;
  assign m03_axi_araddr = araddr[3];
  assign m03_axi_arlen = arlen[3];
  assign m03_axi_arsize = 3'(Size);
  assign m03_axi_arburst = 2'b01;
  assign m03_axi_arcache = 4'b0011;
  assign m03_axi_arprot = 3'b000;
  assign rvalid[3] = m03_axi_rvalid;
  assign m03_axi_rready = rready[3];
  assign rdata[3] = m03_axi_rdata;
  assign rresp[3] = m03_axi_rresp;
`endif

  // The read masters count their own beats; `last` is of no use to them.
  logic unused;
  assign unused = ^{m00_axi_rlast
`ifdef FORAY_KERNEL_PORTS_4
    , m01_axi_rlast, m02_axi_rlast, m03_axi_rlast
`endif
  };
  foray_pkg::trace_t trace;
  logic [12:0] cycle;

  foray_top u_top (
      .clk_i(ap_clk),
      .rst_ni(ap_rst_n),
      .s_awvalid_i(s_axi_control_awvalid),
      .s_awready_o(s_axi_control_awready),
      .s_awaddr_i(s_axi_control_awaddr),
      .s_wvalid_i(s_axi_control_wvalid),
      .s_wready_o(s_axi_control_wready),
      .s_wdata_i(s_axi_control_wdata),
      .s_wstrb_i(s_axi_control_wstrb),
      .s_bvalid_o(s_axi_control_bvalid),
      .s_bready_i(s_axi_control_bready),
      .s_bresp_o(s_axi_control_bresp),
      .s_arvalid_i(s_axi_control_arvalid),
      .s_arready_o(s_axi_control_arready),
      .s_araddr_i(s_axi_control_araddr),
      .s_rvalid_o(s_axi_control_rvalid),
      .s_rready_i(s_axi_control_rready),
      .s_rdata_o(s_axi_control_rdata),
      .s_rresp_o(s_axi_control_rresp),
      .irq_o(interrupt),
      .m_arvalid_o(arvalid),
      .m_arready_i(arready),
      .m_araddr_o(araddr),
      .m_arlen_o(arlen),
      .m_rvalid_i(rvalid),
      .m_rready_o(rready),
      .m_rdata_i(rdata),
      .m_rresp_i(rresp),
      .m_awvalid_o(m00_axi_awvalid),
      .m_awready_i(m00_axi_awready),
      .m_awaddr_o(m00_axi_awaddr),
      .m_awlen_o(m00_axi_awlen),
      .m_wvalid_o(m00_axi_wvalid),
      .m_wready_i(m00_axi_wready),
      .m_wdata_o(m00_axi_wdata),
      .m_wstrb_o(m00_axi_wstrb),
      .m_wlast_o(m00_axi_wlast),
      .m_bvalid_i(m00_axi_bvalid),
      .m_bready_o(m00_axi_bready),
      .m_bresp_i(m00_axi_bresp),
      .trace_o(trace),
      .cycle_o(cycle)
  );
  logic unused_sim;
  assign unused_sim = ^{trace, cycle};
endmodule
