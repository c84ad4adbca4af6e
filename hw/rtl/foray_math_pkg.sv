// Small functions of docs/numerics.md 1 and 2 that several units share.
package foray_math_pkg;

  // Number of bits of v: 0 for 0.
  function automatic logic [6:0] bitlen64(input logic [63:0] v);
    logic [63:0] x;
    logic [ 6:0] n;
    x = v;
    n = 7'd0;
    if (|x[63:32]) begin
      n = n + 7'd32;
      x = {32'd0, x[63:32]};
    end
    if (|x[31:16]) begin
      n = n + 7'd16;
      x = {48'd0, x[31:16]};
    end
    if (|x[15:8]) begin
      n = n + 7'd8;
      x = {56'd0, x[15:8]};
    end
    if (|x[7:4]) begin
      n = n + 7'd4;
      x = {60'd0, x[7:4]};
    end
    if (|x[3:2]) begin
      n = n + 7'd2;
      x = {62'd0, x[3:2]};
    end
    bitlen64 = n + (x[1] ? 7'd2 : {6'd0, x[0]});
  endfunction

  // A mantissa of Y32 or R32 as it is read: at most 2^30 in magnitude.
  function automatic logic [31:0] clamp_y(input logic [31:0] m);
    clamp_y = m[31] == m[30] ? m : m[31] ? 32'hc000_0000 : 32'h4000_0000;
  endfunction

  // An exponent as it is read or written: at most EXP_MAX in magnitude.
  function automatic logic signed [15:0] clamp_exp(input logic signed [31:0] e);
    clamp_exp = e > foray_abi_pkg::EXP_MAX ? 16'(foray_abi_pkg::EXP_MAX) :
        e < -foray_abi_pkg::EXP_MAX ? -16'(foray_abi_pkg::EXP_MAX) : e[15:0];
  endfunction

  // |v| of 32 bits as unsigned.
  function automatic logic [31:0] abs32(input logic [31:0] v);
    abs32 = v[31] ? -v : v;
  endfunction

  // A mantissa of A16 as it is read: at most 2^14 in magnitude.
  function automatic logic signed [15:0] clamp_a(input logic signed [15:0] m);
    if (m > 16'sd16384) clamp_a = 16'sd16384;
    else if (m < -16'sd16384) clamp_a = -16'sd16384;
    else clamp_a = m;
  endfunction

  // R(v, s) of a 32-bit v for s in 0..63.
  function automatic logic signed [31:0] round32(input logic signed [31:0] v, input logic [5:0] s);
    logic signed [33:0] t;
    t = 34'(signed'({v, 1'b0})) >>> (s > 6'd33 ? 6'd33 : s);
    // t holds v >> s above one more bit, the one that rounds
    round32 = 32'((t >>> 1) + 34'(t[0]));
  endfunction

endpackage
