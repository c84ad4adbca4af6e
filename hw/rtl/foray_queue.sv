// Queue in distributed RAM, for small depths: its head is visible in the cycle after it was written, and it
// says how much it holds (foray_fifo is for block RAM).
module foray_queue #(
    /// Bits of an entry.
    parameter int unsigned Width = 32,
    /// Entries, a power of two.
    parameter int unsigned Depth = 4
) (
    /// Clock.
    input  logic                   clk_i,
    /// Synchronous reset, active low.
    input  logic                   rst_ni,
    /// Empties it.
    input  logic                   clear_i,
    /// Input stream.
    input  logic                   in_valid_i,
    /// See in_valid_i.
    output logic                   in_ready_o,
    /// See in_valid_i.
    input  logic [Width-1:0]       in_data_i,
    /// Output stream.
    output logic                   out_valid_o,
    /// See out_valid_o.
    input  logic                   out_ready_i,
    /// See out_valid_o.
    output logic [Width-1:0]       out_data_o,
    /// Entries held.
    output logic [$clog2(Depth):0] count_o
);

  localparam int unsigned PtrW = $clog2(Depth);
  logic [Width-1:0] mem[Depth];
  logic [PtrW-1:0] rd_q, wr_q;
  logic [PtrW:0] count_q;
  logic push, pop;

  assign in_ready_o = count_q != (PtrW + 1)'(Depth);
  assign out_valid_o = count_q != '0;
  assign out_data_o = mem[rd_q];
  assign count_o = count_q;
  assign push = in_valid_i && in_ready_o;
  assign pop = out_valid_o && out_ready_i;

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      rd_q <= '0;
      wr_q <= '0;
      count_q <= '0;
    end else begin
      if (push) wr_q <= wr_q + PtrW'(1);
      if (pop) rd_q <= rd_q + PtrW'(1);
      count_q <= count_q + (PtrW + 1)'(push) - (PtrW + 1)'(pop);
    end
    if (push) mem[wr_q] <= in_data_i;
  end

endmodule
