// KV reads: byte requests (multiples of 16) to unit ranges, and the answer moved so that each begins at bit 0.
module foray_kv_rd #(
    parameter int unsigned InW = 512,
    parameter int unsigned Units = 64,
    parameter int unsigned StripeUnits = 4
) (
    input logic clk_i,
    input logic rst_ni,
    input logic abort_i,
    input logic [57:0] base_i,

    input logic kr_valid_i,
    output logic kr_ready_o,
    input logic [35:0] kr_addr_i,
    input logic [31:0] kr_bytes_i,

    output logic kv_valid_o,
    input logic kv_ready_i,
    output logic [511:0] kv_data_o,
    output logic kv_last_o,

    output logic req_valid_o,
    output logic [57:0] req_unit_o,
    output logic [15:0] req_units_o,
    input logic gnt_i,
    input logic [6:0] gnt_units_i,
    input logic word_valid_i,
    input logic [InW-1:0] word_i
);
  // Requests wait in two queues: for the ranges, and for cutting the answers.
  logic q_space, c_valid, c_ready, r_valid, r_ready, r_space;
  logic [1:0] c_off;
  logic [31:0] c_granules;
  logic [29:0] r_unit;
  logic [31:0] r_units;
  assign kr_ready_o = q_space && r_space;
  foray_fifo #(
      .Width(62),
      .Depth(4)
  ) u_ranges (
      .clk_i,
      .rst_ni,
      .clear_i(abort_i),
      .wvalid_i(kr_valid_i && kr_ready_o),
      .wready_o(r_space),
      .wdata_i({32'((kr_bytes_i + 32'(kr_addr_i[5:0]) + 32'd63) >> 6), kr_addr_i[35:6]}),
      .rvalid_o(r_valid),
      .rready_i(r_ready),
      .rdata_o({r_units, r_unit})
  );
  foray_fifo #(
      .Width(34),
      .Depth(4)
  ) u_cuts (
      .clk_i,
      .rst_ni,
      .clear_i(abort_i),
      .wvalid_i(kr_valid_i && kr_ready_o),
      .wready_o(q_space),
      .wdata_i({kr_addr_i[5:4], 32'(kr_bytes_i >> 4)}),
      .rvalid_o(c_valid),
      .rready_i(c_ready),
      .rdata_o({c_off, c_granules})
  );
  logic unused_low;
  assign unused_low = ^{kr_addr_i[3:0], kr_bytes_i[3:0]};

  logic u_valid, u_ready;
  logic [511:0] u_data;
  foray_client #(
      .InW(InW),
      .OutW(512),
      .Units(Units),
      .StripeUnits(StripeUnits)
  ) u_client (
      .clk_i,
      .rst_ni,
      .abort_i,
      .range_valid_i(r_valid),
      .range_ready_o(r_ready),
      .range_unit_i(base_i + 58'(r_unit)),
      .range_units_i(r_units),
      .req_valid_o,
      .req_unit_o,
      .req_units_o,
      .gnt_i,
      .gnt_units_i,
      .word_valid_i,
      .word_i,
      .valid_o(u_valid),
      .ready_i(u_ready),
      .data_o(u_data)
  );

  // The moved answer: a beat needs the upper part of one unit and the lower part of the next.
  logic open_q, have_q, valid_q, last_q;
  logic [1:0] off_q;
  logic [31:0] left_q;  // granules to hand out
  logic [511:0] keep_q;
  logic out_free, step, alone;
  logic [511:0] joined;
  always_comb begin
    case (off_q)
      2'd0: joined = u_data;
      2'd1: joined = {u_data[127:0], keep_q[511:128]};
      2'd2: joined = {u_data[255:0], keep_q[511:256]};
      default: joined = {u_data[383:0], keep_q[511:384]};
    endcase
  end
  assign out_free = !valid_q || kv_ready_i;
  // what is left lies in the kept unit alone
  assign alone = off_q != 2'd0 && have_q && left_q <= 32'd4 - 32'(off_q);
  assign step = open_q && out_free && (alone || (u_valid && (off_q == 2'd0 || have_q)));
  assign u_ready = open_q && ((out_free && !alone && (off_q == 2'd0 || have_q)) ||
                              (off_q != 2'd0 && !have_q));
  assign c_ready = !open_q;
  assign kv_valid_o = valid_q;
  assign kv_last_o = last_q;
  always_ff @(posedge clk_i) begin
    if (step) begin
      kv_data_o <= joined;
      last_q <= left_q <= 32'd4;
    end
    if (u_valid && u_ready) keep_q <= u_data;
    if (c_ready && c_valid) begin
      off_q <= c_off;
      left_q <= c_granules;
    end else if (step) left_q <= left_q - 32'd4;
    if (!rst_ni || abort_i) begin
      open_q <= 1'b0;
      have_q <= 1'b0;
      valid_q <= 1'b0;
    end else begin
      if (c_ready && c_valid) begin
        open_q <= 1'b1;
        have_q <= 1'b0;
      end else if (step && left_q <= 32'd4) open_q <= 1'b0;
      else if (u_valid && u_ready) have_q <= 1'b1;
      if (step) valid_q <= 1'b1;
      else if (kv_ready_i) valid_q <= 1'b0;
    end
  end
endmodule
