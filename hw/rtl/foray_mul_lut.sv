// Signed times unsigned product in carry chains, for narrow factors that are not worth a DSP slice (and that
// synthesis would otherwise give one). Combinational.
//
// Simulation uses the operator; FORAY_MUL_STRUCT selects the structure there too, so that the tests can show
// that both are equal.
module foray_mul_lut #(
    /// Bits of the signed factor.
    parameter int unsigned AW = 21,
    /// Bits of the unsigned factor, 1 and more.
    parameter int unsigned BW = 8
) (
    /// Signed factor.
    input  logic signed [   AW-1:0] a_i,
    /// Unsigned factor: each bit adds a row.
    input  logic        [   BW-1:0] b_i,
    /// Product.
    output logic signed [AW+BW-1:0] p_o
);

`ifdef VERILATOR
`ifndef FORAY_MUL_STRUCT
`define FORAY_MUL_OPERATOR
`endif
`endif

`ifdef FORAY_MUL_OPERATOR
  assign p_o = (AW + BW)'(a_i * signed'({1'b0, b_i}));
`else
  // A tree over the rows b[i] ? a << i : 0, so that the first level of adders takes the gates in.
  localparam int unsigned Levels = $clog2(BW);
  localparam int unsigned Leaves = 1 << Levels;
  logic signed [AW+BW-1:0] node[2*Leaves];
  for (genvar i = 0; i < Leaves; i++) begin : gen_row
    if (i < BW) begin : gen_bit
      assign node[Leaves+i] = b_i[i] ? (AW + BW)'(a_i) <<< i : '0;
    end else begin : gen_none
      assign node[Leaves+i] = '0;
    end
  end
  for (genvar i = 1; i < Leaves; i++) begin : gen_add
    assign node[i] = node[2*i] + node[2*i+1];
  end
  assign node[0] = '0;
  assign p_o = node[1];
`endif

endmodule
