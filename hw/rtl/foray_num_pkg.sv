// Small numeric functions of docs/numerics.md that more than one unit needs.
package foray_num_pkg;

  // Number of bits of a magnitude (foray_bitlen64).
  function automatic logic [6:0] bitlen(input logic [63:0] v);
    logic [6:0] n;
    logic [63:0] x;
    n = |v ? 7'd1 : 7'd0;
    x = v;
    if (|x[63:32]) n = n + 7'd32;
    else x = {x[31:0], 32'd0};
    if (|x[63:48]) n = n + 7'd16;
    else x = {x[47:0], 16'd0};
    if (|x[63:56]) n = n + 7'd8;
    else x = {x[55:0], 8'd0};
    if (|x[63:60]) n = n + 7'd4;
    else x = {x[59:0], 4'd0};
    if (|x[63:62]) n = n + 7'd2;
    else x = {x[61:0], 2'd0};
    if (x[63]) n = n + 7'd1;
    bitlen = n;
  endfunction

  // Exponents are kept within +-EXP_MAX (foray_clamp_exp).
  function automatic logic signed [15:0] clamp_exp(input logic signed [31:0] e);
    if (e > foray_abi_pkg::EXP_MAX) clamp_exp = 16'(foray_abi_pkg::EXP_MAX);
    else if (e < -foray_abi_pkg::EXP_MAX) clamp_exp = 16'(-foray_abi_pkg::EXP_MAX);
    else clamp_exp = e[15:0];
  endfunction

  // Mantissas of A16 and Y32 are clamped when read (foray_clamp_a, foray_clamp_y).
  function automatic logic signed [15:0] clamp_a(input logic signed [15:0] m);
    if (m > 16'sd16384) clamp_a = 16'sd16384;
    else if (m < -16'sd16384) clamp_a = -16'sd16384;
    else clamp_a = m;
  endfunction

  function automatic logic signed [31:0] clamp_y(input logic signed [31:0] m);
    if (m > 32'sd1073741824) clamp_y = 32'sd1073741824;
    else if (m < -32'sd1073741824) clamp_y = -32'sd1073741824;
    else clamp_y = m;
  endfunction

  // R(v, s) of a 32-bit v for s in 0..63.
  function automatic logic signed [31:0] round32(input logic signed [31:0] v, input logic [5:0] s);
    logic signed [33:0] t;
    t = 34'(signed'({v, 1'b0})) >>> (s > 6'd33 ? 6'd33 : s);
    // t holds v >> s above one more bit, the one that rounds
    round32 = 32'((t >>> 1) + 34'(t[0]));
  endfunction

endpackage
