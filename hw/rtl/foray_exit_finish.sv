/// Features and rules of a finished stream, word for word what host/dev/exit.c does, by a small program on sixteen 64-bit registers: an
/// instruction a cycle, a few more for products, quotients and tables.
module foray_exit_finish (
    input  logic                  clk_i,
    input  logic                  rst_ni,
    /// Pulse: operands stable until done_o.
    input  logic                  start_i,
    input  logic        [63:0]    z_i,
    input  logic        [63:0]    n_i,
    input  logic        [ 8:0]    top_i,
    input  logic        [7:0][31:0] logit_i,
    input  logic        [31:0]    best_logit_i,
    input  logic        [20:0]    rows_i,
    input  logic        [31:0]    cum_i,
    input  logic        [7:0][31:0] exit_rule_i,
    input  logic        [7:0][31:0] stop_rule_i,
    output logic                  busy_o,
    output logic                  done_o,
    /// Ring words 3..11 (log_z .. logprob).
    output logic        [287:0]   words_o,
    output logic                  exit_ge0_o,
    output logic                  stop_lt0_o,
    /// A multiplier (foray_mul: three cycles) and the tables of log2 and 2^f (a cycle), lent by the owner.
    output logic                  mul_en_o,
    output logic signed [31:0]    mul_x_o,
    output logic signed [32:0]    mul_y_o,
    input  logic signed [63:0]    mul_p_i,
    output logic                  log2_en_o,
    output logic        [ 9:0]    log2_addr_o,
    input  logic        [31:0]    log2_base_i,
    input  logic        [23:0]    log2_delta_i,
    output logic                  exp2_en_o,
    output logic        [ 9:0]    exp2_addr_o,
    input  logic        [31:0]    exp2_base_i,
    input  logic        [23:0]    exp2_delta_i
);

  typedef enum logic [4:0] {
    I_HALT,
    I_LDI,  // d = imm
    I_LD,  // d = source imm (SRC_*)
    I_ST,  // ring word imm, or sign of a rule (DST_*), = a
    I_ADD,
    I_SUB,
    I_ADDI,  // d = a + imm
    I_ADDH,  // d = a + imm 2^32
    I_SHL,  // d = a << imm
    I_SHR,  // d = a >> imm
    I_SHRV,  // d = a >> b
    I_RND,  // d = R(a, imm), imm > 0
    I_RNDV,  // d = R(a, b), b > 0
    I_MAXI,  // d = max(a, imm)
    I_MINI,
    I_SAT,  // d = foray_sat32(a)
    I_BITS,  // d = bits of a >= 0
    I_MUL,  // d = a[31:0] * b[32:0], signed
    I_MULI,  // d = imm[31:0] * a[32:0]
    I_DIV,  // d = a / b towards 0; 0 < b < 2^42
    I_LOG2,  // d = log2(a), Q32, a > 0
    I_EXPN,  // d = 2^-(a mod 2^16), Q16 to Q30
    I_JMP,  // to imm
    I_JPOS,  // to imm if a >= 0
    I_JZ,  // to imm if a = 0
    I_CALL,  // one level
    I_RET,
    I_LDK,  // k = imm
    I_LOOP  // k = k + 1; to imm unless k = 8
  } op_e;

  localparam logic signed [32:0] SRC_TOP = 33'sd0;  // highest bin - 256
  localparam logic signed [32:0] SRC_LOGIT = 33'sd1;  // of candidate k
  localparam logic signed [32:0] SRC_BEST = 33'sd2;  // logit of the choice
  localparam logic signed [32:0] SRC_ROWS = 33'sd3;
  localparam logic signed [32:0] SRC_CUM = 33'sd4;
  localparam logic signed [32:0] SRC_FEATURE = 33'sd5;  // feature k = ring word 3 + k
  localparam logic signed [32:0] SRC_EXIT = 33'sd6;  // coefficient k of the exit rule
  localparam logic signed [32:0] SRC_STOP = 33'sd7;
  localparam logic signed [32:0] DST_EXIT_SCORE = 33'sd0;
  localparam logic signed [32:0] DST_STOP_SCORE = 33'sd1;

  // Registers. Z and N come from the bins.
  localparam logic [3:0] Z = 4'd0, N = 4'd1, M = 4'd2, L = 4'd3, T = 4'd4, U = 4'd5, X = 4'd6, S = 4'd7;
  localparam logic [3:0] INV = 4'd8, I2 = 4'd9, SUM = 4'd10, TOT = 4'd11, PSI = 4'd12, LZ = 4'd13, Z1 = 4'd14, A = 4'd15;

  // ---- the program
  function automatic logic [49:0] ins(input op_e op, input logic [3:0] d, input logic [3:0] a, input logic [3:0] b,
                                      input logic signed [32:0] imm);
    ins = {op, d, a, b, imm};
  endfunction

  localparam logic signed [32:0] AT_MARGIN = 33'sd49;
  localparam logic signed [32:0] AT_SUM = 33'sd63;
  localparam logic signed [32:0] AT_DIRICHLET = 33'sd80;
  localparam logic signed [32:0] AT_NEXT = 33'sd89;
  localparam logic signed [32:0] AT_ALEATORIC = 33'sd92;
  localparam logic signed [32:0] AT_RULE = 33'sd97;
  localparam logic signed [32:0] AT_POWER = 33'sd110;
  localparam logic signed [32:0] AT_POWERED = 33'sd118;
  localparam logic signed [32:0] AT_DIGAMMA = 33'sd119;
  localparam logic signed [32:0] AT_RECUR = 33'sd120;
  localparam logic signed [32:0] AT_SERIES = 33'sd128;

  logic [49:0] rom, ins_q;
  logic [7:0] at, pc_q, link_q;
  always_comb begin
    unique case (at)
      // entropy and log Z (exit.c: foray_exit_finish)
      8'd0: rom = ins(I_LOG2, M, Z, T, 33'sd0);
      8'd1: rom = ins(I_ADDH, M, M, T, -33'sd30);  // log2 of Z against the highest bin, Q32
      8'd2: rom = ins(I_LD, T, T, T, SRC_TOP);
      8'd3: rom = ins(I_SHL, T, T, T, 33'sd32);
      8'd4: rom = ins(I_ADD, L, M, T, 33'sd0);  // log2 Z
      8'd5: rom = ins(I_BITS, T, Z, T, 33'sd0);
      8'd6: rom = ins(I_ADDI, T, T, T, -33'sd40);
      8'd7: rom = ins(I_MAXI, T, T, T, 33'sd0);
      8'd8: rom = ins(I_SHRV, U, N, T, 33'sd0);
      8'd9: rom = ins(I_SHL, U, U, T, 33'sd16);
      8'd10: rom = ins(I_SHRV, T, Z, T, 33'sd0);
      8'd11: rom = ins(I_DIV, U, U, T, 33'sd0);  // mean of log2 weight, Q16
      8'd12: rom = ins(I_SHL, U, U, T, 33'sd16);
      8'd13: rom = ins(I_SUB, U, M, U, 33'sd0);
      8'd14: rom = ins(I_SHR, U, U, T, 33'sd10);  // ln2_q16
      8'd15: rom = ins(I_MULI, U, U, T, 33'sd11629079);
      8'd16: rom = ins(I_RND, U, U, T, 33'sd30);
      8'd17: rom = ins(I_MAXI, U, U, T, 33'sd0);
      8'd18: rom = ins(I_SAT, U, U, T, 33'sd0);
      8'd19: rom = ins(I_ST, T, U, T, 33'sd6);  // entropy
      8'd20: rom = ins(I_SHR, U, L, T, 33'sd10);
      8'd21: rom = ins(I_MULI, U, U, T, 33'sd11629079);
      8'd22: rom = ins(I_RND, U, U, T, 33'sd30);
      8'd23: rom = ins(I_SAT, U, U, T, 33'sd0);
      8'd24: rom = ins(I_ST, T, U, T, 33'sd3);  // log_z
      8'd25: rom = ins(I_LD, T, T, T, SRC_BEST);
      8'd26: rom = ins(I_SUB, T, T, U, 33'sd0);
      8'd27: rom = ins(I_SAT, T, T, T, 33'sd0);
      8'd28: rom = ins(I_ST, T, T, T, 33'sd11);  // logprob
      // probabilities
      8'd29: rom = ins(I_RND, LZ, L, T, 33'sd16);
      8'd30: rom = ins(I_LDK, T, T, T, 33'sd0);
      8'd31: rom = ins(I_LD, T, T, T, SRC_LOGIT);
      8'd32: rom = ins(I_MULI, Z1, T, T, 33'sd1549082005);
      8'd33: rom = ins(I_RND, Z1, Z1, T, 33'sd30);
      8'd34: rom = ins(I_SUB, U, LZ, Z1, 33'sd0);
      8'd35: rom = ins(I_CALL, T, T, T, AT_POWER);
      8'd36: rom = ins(I_ST, T, X, T, 33'sd4);  // top_prob
      8'd37: rom = ins(I_ADDI, S, X, T, 33'sd0);
      8'd38: rom = ins(I_LDK, T, T, T, 33'sd1);
      8'd39: rom = ins(I_LD, T, T, T, SRC_LOGIT);
      8'd40: rom = ins(I_MULI, T, T, T, 33'sd1549082005);
      8'd41: rom = ins(I_RND, T, T, T, 33'sd30);
      8'd42: rom = ins(I_SUB, U, LZ, T, 33'sd0);
      8'd43: rom = ins(I_CALL, T, T, T, AT_POWER);
      8'd44: rom = ins(I_SUB, T, S, X, 33'sd0);
      8'd45: rom = ins(I_LD, U, T, T, SRC_ROWS);
      8'd46: rom = ins(I_ADDI, U, U, T, -33'sd2);
      8'd47: rom = ins(I_JPOS, T, U, T, AT_MARGIN);
      8'd48: rom = ins(I_ADDI, T, S, T, 33'sd0);  // a single row
      8'd49: rom = ins(I_ST, T, T, T, 33'sd5);  // margin: margin
      8'd50: rom = ins(I_LD, U, T, T, SRC_LOGIT);
      8'd51: rom = ins(I_LDK, T, T, T, 33'sd0);
      8'd52: rom = ins(I_LD, T, T, T, SRC_LOGIT);
      8'd53: rom = ins(I_SUB, T, T, U, 33'sd0);
      8'd54: rom = ins(I_SAT, T, T, T, 33'sd0);
      8'd55: rom = ins(I_ST, T, T, T, 33'sd9);  // logit_gap
      8'd56: rom = ins(I_SUB, T, Z1, LZ, 33'sd0);
      8'd57: rom = ins(I_MINI, T, T, T, 33'sd0);
      8'd58: rom = ins(I_LD, U, T, T, SRC_CUM);
      8'd59: rom = ins(I_ADD, T, T, U, 33'sd0);
      8'd60: rom = ins(I_SAT, T, T, T, 33'sd0);
      8'd61: rom = ins(I_ST, T, T, T, 33'sd10);  // cum
      // evidence
      8'd62: rom = ins(I_LDI, SUM, T, T, 33'sd0);
      8'd63: rom = ins(I_LD, T, T, T, SRC_LOGIT);  // sum:
      8'd64: rom = ins(I_MAXI, T, T, T, 33'sd0);
      8'd65: rom = ins(I_MINI, T, T, T, 33'sd268369920);
      8'd66: rom = ins(I_ADD, SUM, SUM, T, 33'sd0);
      8'd67: rom = ins(I_LOOP, T, T, T, AT_SUM);
      8'd68: rom = ins(I_ADDI, T, SUM, T, 33'sd524288);
      8'd69: rom = ins(I_LDI, U, T, T, 33'sd8);
      8'd70: rom = ins(I_SHL, U, U, T, 33'sd32);
      8'd71: rom = ins(I_DIV, U, U, T, 33'sd0);
      8'd72: rom = ins(I_ST, T, U, T, 33'sd8);  // epistemic
      8'd73: rom = ins(I_LDI, T, T, T, 33'sd0);
      8'd74: rom = ins(I_JZ, T, SUM, T, AT_ALEATORIC);
      8'd75: rom = ins(I_ADDI, X, SUM, T, 33'sd65536);
      8'd76: rom = ins(I_CALL, T, T, T, AT_DIGAMMA);
      8'd77: rom = ins(I_ADDI, PSI, X, T, 33'sd0);
      8'd78: rom = ins(I_LDI, TOT, T, T, 33'sd0);
      8'd79: rom = ins(I_LDK, T, T, T, 33'sd0);
      8'd80: rom = ins(I_LD, A, T, T, SRC_LOGIT);  // dirichlet:
      8'd81: rom = ins(I_MAXI, A, A, T, 33'sd0);
      8'd82: rom = ins(I_MINI, A, A, T, 33'sd268369920);
      8'd83: rom = ins(I_JZ, T, A, T, AT_NEXT);  // adds nothing
      8'd84: rom = ins(I_ADDI, X, A, T, 33'sd65536);
      8'd85: rom = ins(I_CALL, T, T, T, AT_DIGAMMA);
      8'd86: rom = ins(I_SUB, T, PSI, X, 33'sd0);
      8'd87: rom = ins(I_MUL, T, A, T, 33'sd0);
      8'd88: rom = ins(I_ADD, TOT, TOT, T, 33'sd0);
      8'd89: rom = ins(I_LOOP, T, T, T, AT_DIRICHLET);  // next:
      8'd90: rom = ins(I_DIV, T, TOT, SUM, 33'sd0);
      8'd91: rom = ins(I_SAT, T, T, T, 33'sd0);
      8'd92: rom = ins(I_ST, T, T, T, 33'sd7);  // aleatoric: aleatoric
      // rules
      8'd93: rom = ins(I_LDK, T, T, T, 33'sd0);
      8'd94: rom = ins(I_LD, SUM, T, T, SRC_EXIT);
      8'd95: rom = ins(I_LD, TOT, T, T, SRC_STOP);
      8'd96: rom = ins(I_LDK, T, T, T, 33'sd1);
      8'd97: rom = ins(I_LD, U, T, T, SRC_FEATURE);  // rule:
      8'd98: rom = ins(I_LD, T, T, T, SRC_EXIT);
      8'd99: rom = ins(I_MUL, T, T, U, 33'sd0);
      8'd100: rom = ins(I_RND, T, T, T, 33'sd16);
      8'd101: rom = ins(I_ADD, SUM, SUM, T, 33'sd0);
      8'd102: rom = ins(I_LD, T, T, T, SRC_STOP);
      8'd103: rom = ins(I_MUL, T, T, U, 33'sd0);
      8'd104: rom = ins(I_RND, T, T, T, 33'sd16);
      8'd105: rom = ins(I_ADD, TOT, TOT, T, 33'sd0);
      8'd106: rom = ins(I_LOOP, T, T, T, AT_RULE);
      8'd107: rom = ins(I_ST, T, SUM, T, DST_EXIT_SCORE);
      8'd108: rom = ins(I_ST, T, TOT, T, DST_STOP_SCORE);
      8'd109: rom = ins(I_HALT, T, T, T, 33'sd0);
      // X = 2^-U, Q16 (neg_power_q16)
      8'd110: rom = ins(I_EXPN, X, U, T, 33'sd0);  // power:
      8'd111: rom = ins(I_SHR, T, U, T, 33'sd16);
      8'd112: rom = ins(I_MINI, T, T, T, 33'sd40);
      8'd113: rom = ins(I_ADDI, T, T, T, 33'sd14);
      8'd114: rom = ins(I_RNDV, X, X, T, 33'sd0);
      8'd115: rom = ins(I_ADDI, U, U, T, -33'sd1);
      8'd116: rom = ins(I_JPOS, T, U, T, AT_POWERED);
      8'd117: rom = ins(I_LDI, X, T, T, 33'sd65536);
      8'd118: rom = ins(I_RET, T, T, T, 33'sd0);  // powered:
      // X = digamma(X) (core/imath.c)
      8'd119: rom = ins(I_LDI, S, T, T, 33'sd0);  // digamma:
      8'd120: rom = ins(I_ADDI, T, X, T, -33'sd524288);  // recur:
      8'd121: rom = ins(I_JPOS, T, T, T, AT_SERIES);
      8'd122: rom = ins(I_LDI, U, T, T, 33'sd1);
      8'd123: rom = ins(I_SHL, U, U, T, 33'sd48);
      8'd124: rom = ins(I_DIV, U, U, X, 33'sd0);
      8'd125: rom = ins(I_ADD, S, S, U, 33'sd0);
      8'd126: rom = ins(I_ADDI, X, X, T, 33'sd65536);
      8'd127: rom = ins(I_JMP, T, T, T, AT_RECUR);
      8'd128: rom = ins(I_LDI, U, T, T, 33'sd1);  // series:
      8'd129: rom = ins(I_SHL, U, U, T, 33'sd48);
      8'd130: rom = ins(I_DIV, INV, U, X, 33'sd0);  // 1/x, Q32
      8'd131: rom = ins(I_MUL, I2, INV, INV, 33'sd0);
      8'd132: rom = ins(I_SHR, I2, I2, T, 33'sd32);
      8'd133: rom = ins(I_LOG2, U, X, T, 33'sd0);
      8'd134: rom = ins(I_ADDH, U, U, T, -33'sd16);
      8'd135: rom = ins(I_SHR, U, U, T, 33'sd4);
      8'd136: rom = ins(I_MULI, U, U, T, 33'sd186065279);
      8'd137: rom = ins(I_SHR, U, U, T, 33'sd24);  // ln x
      8'd138: rom = ins(I_SHR, T, INV, T, 33'sd1);
      8'd139: rom = ins(I_SUB, U, U, T, 33'sd0);
      8'd140: rom = ins(I_MULI, T, I2, T, 33'sd715827883);
      8'd141: rom = ins(I_SHR, T, T, T, 33'sd33);  // 1/12 of it
      8'd142: rom = ins(I_SUB, U, U, T, 33'sd0);
      8'd143: rom = ins(I_MUL, T, I2, I2, 33'sd0);
      8'd144: rom = ins(I_SHR, T, T, T, 33'sd32);
      8'd145: rom = ins(I_MULI, T, T, T, 33'sd35791395);
      8'd146: rom = ins(I_SHR, T, T, T, 33'sd32);  // 1/120 of it
      8'd147: rom = ins(I_ADD, U, U, T, 33'sd0);
      8'd148: rom = ins(I_SUB, U, U, S, 33'sd0);
      8'd149: rom = ins(I_RND, X, U, T, 33'sd16);
      8'd150: rom = ins(I_SAT, X, X, T, 33'sd0);
      8'd151: rom = ins(I_RET, T, T, T, 33'sd0);
      default: rom = ins(I_HALT, T, T, T, 33'sd0);
    endcase
  end

  // ---- the instruction under way
  op_e op;
  logic [3:0] rd, ra, rb, k_q;
  logic signed [32:0] imm;
  logic signed [63:0] regs[16];
  logic signed [63:0] a, b, imm64;
  logic busy_q, fin, write, taken;
  logic [5:0] cnt_q;
  assign op = op_e'(ins_q[49:45]);
  assign rd = ins_q[44:41];
  assign ra = ins_q[40:37];
  assign rb = ins_q[36:33];
  assign imm = ins_q[32:0];
  assign imm64 = {{31{imm[32]}}, imm};
  assign a = regs[ra];
  assign b = regs[rb];

  // ---- sources
  logic signed [63:0] load;
  logic [287:0] words_q;
  logic [31:0] src32;
  always_comb begin
    unique case (imm[2:0])
      SRC_LOGIT[2:0]: src32 = logit_i[k_q[2:0]];
      SRC_BEST[2:0]: src32 = best_logit_i;
      SRC_ROWS[2:0]: src32 = {11'd0, rows_i};
      SRC_CUM[2:0]: src32 = cum_i;
      SRC_FEATURE[2:0]: src32 = words_q[32*k_q[2:0]+:32];
      SRC_EXIT[2:0]: src32 = exit_rule_i[k_q[2:0]];
      SRC_STOP[2:0]: src32 = stop_rule_i[k_q[2:0]];
      default: src32 = {23'd0, top_i} - 32'd256;
    endcase
    load = {{32{src32[31]}}, src32};
  end

  // ---- shifts: one to each side
  logic [5:0] amount;
  logic signed [63:0] right, rounded, left;
  logic [5:0] left_by, lead_q;
  /* verilator lint_off UNUSED */  // 64 bits of a negative number are not asked for
  logic [6:0] bl;
  /* verilator lint_on UNUSED */
  assign bl = foray_math_pkg::bitlen64(a);
  always_comb begin
    unique case (op)
      I_SHR: amount = imm[5:0];
      I_SHRV: amount = b[5:0];
      I_RND: amount = imm[5:0] - 6'd1;
      default: amount = b[5:0] - 6'd1;
    endcase
  end
  assign right = a >>> amount;
  assign rounded = {right[63], right[63:1]} + {63'd0, right[0]};
  assign left_by = op == I_LOG2 ? 6'd63 - lead_q : imm[5:0];
  assign left = a << left_by;

  // ---- tables and the multiplier
  logic [63:0] norm_q;
  logic [15:0] comp;
  assign comp = -a[15:0];  // 1 - f
  assign log2_en_o = busy_q && op == I_LOG2 && cnt_q == 6'd2;
  assign log2_addr_o = norm_q[62:53];
  assign exp2_en_o = busy_q && op == I_EXPN && cnt_q == 6'd0;
  assign exp2_addr_o = {2'd0, comp[15:8]};
  always_comb begin
    mul_en_o = busy_q && (op == I_MUL || op == I_MULI || op == I_LOG2 || op == I_EXPN);
    unique case (op)
      I_LOG2: begin
        mul_x_o = {8'd0, log2_delta_i};
        mul_y_o = {1'b0, norm_q[52:21]};
      end
      I_EXPN: begin
        mul_x_o = {8'd0, exp2_delta_i};
        mul_y_o = {25'd0, comp[7:0]};
      end
      I_MULI: begin
        mul_x_o = imm[31:0];
        mul_y_o = a[32:0];
      end
      default: begin
        mul_x_o = a[31:0];
        mul_y_o = b[32:0];
      end
    endcase
  end
  logic [31:0] expn, expt;
  assign expt = exp2_base_i + 32'((mul_p_i + 64'sd128) >>> 8);
  assign expn = a[15:0] == 16'd0 ? 32'h4000_0000 : (expt + 32'd1) >> 1;
  logic signed [63:0] lg;
  assign lg = {26'd0, lead_q, 32'd0} + {31'd0, log2_base_i, 1'b0} + 64'(mul_p_i >>> 31);

  // ---- division: two bits of the quotient a cycle
  logic [63:0] num_q;
  logic [42:0] rem_q, r1, r1s, r2;
  logic q1, q2, neg_q;
  assign r1 = {rem_q[41:0], num_q[63]};
  assign q1 = r1 >= b[42:0];
  assign r1s = q1 ? r1 - b[42:0] : r1;
  assign r2 = {r1s[41:0], num_q[62]};
  assign q2 = r2 >= b[42:0];

  // ---- results
  logic signed [63:0] res;
  always_comb begin
    fin = 1'b1;
    write = 1'b1;
    taken = 1'b0;
    at = pc_q;
    res = a;
    unique case (op)
      I_LDI: res = imm64;
      I_LD: res = load;
      I_ADD: res = a + b;
      I_SUB: res = a - b;
      I_ADDI: res = a + imm64;
      I_ADDH: res = a + {imm[31:0], 32'd0};
      I_SHL: res = left;
      I_SHR, I_SHRV: res = right;
      I_RND, I_RNDV: res = rounded;
      I_MAXI: res = a > imm64 ? a : imm64;
      I_MINI: res = a < imm64 ? a : imm64;
      I_SAT:
      res = a > 64'sh7fff_ffff ? 64'sh7fff_ffff : a < -64'sh7fff_ffff ? -64'sh7fff_ffff : a;
      I_BITS: res = {57'd0, bl};
      I_MUL, I_MULI: begin
        fin = cnt_q == 6'd3;
        res = mul_p_i;
      end
      I_DIV: begin
        fin = cnt_q == 6'd33;
        res = neg_q ? -num_q : num_q;
      end
      I_LOG2: begin
        fin = cnt_q == 6'd6;
        res = lg;
      end
      I_EXPN: begin
        fin = cnt_q == 6'd4;
        res = {32'd0, expn};
      end
      I_JMP, I_CALL: begin
        write = 1'b0;
        taken = 1'b1;
      end
      I_JPOS: begin
        write = 1'b0;
        taken = !a[63];
      end
      I_JZ: begin
        write = 1'b0;
        taken = a == 64'sd0;
      end
      I_RET: write = 1'b0;
      I_LOOP: begin
        write = 1'b0;
        taken = k_q != 4'd7;
      end
      default: write = 1'b0;
    endcase
    if (!busy_q) at = 8'd0;
    else if (op == I_RET) at = link_q;
    else if (taken) at = imm[7:0];
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) busy_q <= 1'b0;
    else if (start_i) busy_q <= 1'b1;
    else if (done_o) busy_q <= 1'b0;
  end

  always_ff @(posedge clk_i) begin
    if (start_i || (busy_q && fin)) begin
      ins_q <= rom;
      pc_q  <= at + 8'd1;
    end
    cnt_q <= busy_q && !fin ? cnt_q + 6'd1 : 6'd0;
    if (start_i) begin
      regs[Z] <= z_i;
      regs[N] <= n_i;
    end else if (busy_q && fin && write) regs[rd] <= res;
    if (busy_q) begin
      unique case (op)
        I_LDK: k_q <= imm[3:0];
        I_LOOP: k_q <= k_q + 4'd1;
        I_CALL: link_q <= pc_q;
        I_ST: begin
          if (imm == DST_EXIT_SCORE) exit_ge0_o <= !a[63];
          else if (imm == DST_STOP_SCORE) stop_lt0_o <= a[63];
          for (int unsigned w = 3; w < 12; w++) if (imm == 33'(w)) words_q[32*(w-3)+:32] <= a[31:0];
        end
        I_LOG2: begin
          if (cnt_q == 6'd0) lead_q <= 6'(bl - 7'd1);
          norm_q <= left;
        end
        I_DIV: begin
          if (cnt_q == 6'd0) begin
            neg_q <= a[63];
            num_q <= a[63] ? -a : a;
            rem_q <= 43'd0;
          end else if (cnt_q == 6'd1 && num_q[63:50] == 14'd0) begin
            // Numbers of 50 bits: 25 steps instead of 32.
            num_q <= num_q << 14;
            cnt_q <= 6'd8;
          end else begin
            num_q <= {num_q[61:0], q1, q2};
            rem_q <= q2 ? r2 - b[42:0] : r2;
          end
        end
        default: ;
      endcase
    end
  end

  assign done_o = busy_q && op == I_HALT;
  assign busy_o = busy_q;
  assign words_o = words_q;

endmodule
