// Eight multipliers for two matrix rows and one column: the whole of a 64-bit slice of a weight beat.
//
// Q4A: a slice holds rows 0 and 1 at eight columns. Both codes of a column are multiplied at once,
//
//     P_j = (q1_j * 2^22 + q0_j) * a_j         S = sum of P_j = S1 * 2^22 + S0,   S_i = sum of q_i * a
//
// and |S0| <= 8 * 15 * 2^14 = 1966080 < 2^21, so the low 22 bits of S, read as a signed number, are S0, and
// S1 = (S - S0) / 2^22 = floor(S / 2^22) + (S0 < 0): the carry that a negative S0 borrowed is given back.
// Operands: 26 bits unsigned (27 signed) and 16 bits signed, one DSP48E2. On 18-bit multipliers it is two
// either way: 16-bit activations leave no room for a second code.
// Q8S: the slice holds four columns of each row, so each multiplier has one product, row 0 in slots 0..3.
//
// Four registers from input to output; no enable: what comes out of a cycle nobody asked about is not used.
module foray_mv_mac (
    /// Clock.
    input  logic               clk_i,
    /// Codes are Q4A (else Q8S).
    input  logic               q4_i,
    /// Slice: bytes 0..3 of row 0, bytes 4..7 of row 1.
    input  logic        [63:0] w_i,
    /// Activation of each slot, signed, magnitude at most 2^14.
    input  logic [ 7:0] [15:0] a_i,
    /// Sum of the slice for row 0.
    output logic signed [24:0] sum0_o,
    /// Sum of the slice for row 1.
    output logic signed [24:0] sum1_o
);

  logic signed [26:0] op_q[8];
  logic signed [15:0] a_q[8];
  logic signed [42:0] prod_q[8];
  logic signed [44:0] half0_q, half1_q;
  logic q4_q, q4_q2, q4_q3;

  for (genvar j = 0; j < 8; j++) begin : gen_slot
    // Q4A: byte j % 4 of both rows, low nibble for slots 0..3. Q8S: byte j % 4 of row j / 4.
    localparam int unsigned Nib = 8 * (j % 4) + 4 * (j / 4);
    localparam int unsigned Byte = 8 * (j % 4) + 32 * (j / 4);
    always_ff @(posedge clk_i) begin
      op_q[j] <= q4_i ? {1'b0, w_i[32+Nib+:4], 18'b0, w_i[Nib+:4]} : 27'(signed'(w_i[Byte+:8]));
      a_q[j] <= a_i[j];
      prod_q[j] <= op_q[j] * a_q[j];
    end
  end

  logic signed [45:0] total;
  logic signed [23:0] high;
  assign total = half0_q + half1_q;
`ifdef FORAY_BUG_CARRY
  assign high = total[45:22];
`else
  assign high = total[45:22] + 24'(total[21]);
`endif

  always_ff @(posedge clk_i) begin
    q4_q <= q4_i;
    q4_q2 <= q4_q;
    q4_q3 <= q4_q2;
    half0_q <= (45'(prod_q[0]) + 45'(prod_q[1])) + (45'(prod_q[2]) + 45'(prod_q[3]));
    half1_q <= (45'(prod_q[4]) + 45'(prod_q[5])) + (45'(prod_q[6]) + 45'(prod_q[7]));
    sum0_o <= q4_q3 ? 25'(signed'(total[21:0])) : half0_q[24:0];
    sum1_o <= q4_q3 ? 25'(high) : half1_q[24:0];
  end

endmodule
