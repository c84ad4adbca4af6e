// Walks the descriptors of a section ahead of their execution and lists the memory ranges that they stream: the
// row blocks (Aux = 0) or everything else (Aux = 1), in the order in which the units take them (hw/rtl/README.md).
module foray_walk #(
    parameter bit Aux = 1'b0
) (
    input logic clk_i,
    input logic rst_ni,
    input logic abort_i,
    /// Begins a section: descriptors [from_i, to_i) over the columns of cmd_i (its desc is not looked at).
    input logic start_i,
    input logic [12:0] from_i,
    input logic [12:0] to_i,
    input foray_pkg::cmd_t cmd_i,
    input logic [57:0] base_i,
    output logic busy_o,

    /// Read port of the program memory.
    output logic pr_valid_o,
    output logic [11:0] pr_addr_o,
    input logic pr_gnt_i,
    /// Words 0..7 of the descriptor, a cycle after the grant.
    input logic [255:0] pr_data_i,

    output logic range_valid_o,
    input logic range_ready_i,
    output logic [57:0] range_unit_o,
    output logic [31:0] range_units_o
);
  typedef enum logic [2:0] {
    StIdle,
    StRead,
    StLatch,
    StSetup,
    StMul,
    StEmit,
    StNext
  } state_e;
  state_e state_q;

  logic [12:0] at_q, to_q;
  logic [255:0] d_q;
  logic [3:0] col_q;
  logic [31:0] row_q;  // first row of the present chunk (HEAD with ids)
  // up to three ranges of a round
  logic [2:0][31:0] addr_q, units_q;
  logic [1:0] n_q, i_q;
  logic [31:0] mul_a_q, mul_b_q, mul_s_q;

  // ---- what the descriptor says ----
  logic [7:0] op;
  logic [31:0] rows, cols, addr, used, groups, rows_pad, mant_units, block_units, take_rows, chunk, token;
  logic q4, bias, is_matrix, embed, by_column;
  always_comb begin
    op = d_q[7:0];
    embed = op == foray_abi_pkg::OP_EMBED;
    q4 = d_q[23:16] == 8'(foray_abi_pkg::QTYPE_Q4A);
    bias = op == foray_abi_pkg::OP_GEMV && (d_q[15:8] & 8'(foray_abi_pkg::DF_BIAS)) != '0;
    is_matrix = op == foray_abi_pkg::OP_GEMV || op == foray_abi_pkg::OP_HEAD;
    by_column = embed || op == foray_abi_pkg::OP_RMSNORM || op == foray_abi_pkg::OP_ROPE;
    cols = embed ? d_q[foray_abi_pkg::EMBED_COLS_WORD*32+:32] : d_q[foray_abi_pkg::GEMV_COLS_WORD*32+:32];
    rows = embed ? d_q[foray_abi_pkg::EMBED_ROWS_WORD*32+:32] : d_q[foray_abi_pkg::GEMV_ROWS_WORD*32+:32];
    addr = embed ? d_q[foray_abi_pkg::EMBED_ADDR_WORD*32+:32] : d_q[foray_abi_pkg::GEMV_ADDR_WORD*32+:32];
    used = op == foray_abi_pkg::OP_HEAD ? d_q[foray_abi_pkg::HEAD_USED_WORD*32+:32] : rows;
    groups = cols >> 5;
    rows_pad = (rows + 32'd15) & ~32'd15;
    take_rows = (used + 32'd15) & ~32'd15;
    mant_units = (rows_pad + 32'd31) >> 5;
    block_units = q4 ? ((groups + 32'd1) >> 1) + (groups << 2) : ((groups + 32'd3) >> 2) + (groups << 3);
    chunk = take_rows - row_q > 32'd512 ? 32'd512 : take_rows - row_q;
    token = cmd_i.token[col_q[2:0]];
  end
  logic with_ids;
  assign with_ids = op == foray_abi_pkg::OP_HEAD && d_q[foray_abi_pkg::HEAD_IDS_WORD*32+:32] != '0;

  assign busy_o = state_q != StIdle;
  assign pr_valid_o = state_q == StRead;
  assign pr_addr_o = at_q[11:0];
  assign range_valid_o = state_q == StEmit && i_q != n_q;
  assign range_unit_o = base_i + 58'(addr_q[i_q]);
  assign range_units_o = units_q[i_q];

  always_ff @(posedge clk_i) begin
    case (state_q)
      StIdle: begin
        at_q <= from_i;
        to_q <= to_i;
        if (start_i && from_i != to_i) state_q <= StRead;
      end
      StRead: if (pr_gnt_i) state_q <= StLatch;
      StLatch: begin
        d_q <= pr_data_i;
        col_q <= cmd_i.c0;
        row_q <= '0;
        state_q <= StSetup;
      end
      StSetup: begin
        i_q <= '0;
        n_q <= '0;
        mul_a_q <= block_units;
        mul_s_q <= '0;
        mul_b_q <= embed ? token >> 4 : take_rows >> 4;
        state_q <= StEmit;
        if (!Aux) begin
          addr_q[0] <= addr + mant_units + (bias ? rows_pad >> 4 : 32'd0);
          addr_q[2:1] <= '0;
          units_q[2:1] <= '0;
          n_q <= 2'd1;
          if (is_matrix) state_q <= StMul;
          else state_q <= StNext;
        end else
          case (op)
            foray_abi_pkg::OP_GEMV: begin
              addr_q[0] <= bias ? addr + mant_units : addr;
              units_q[0] <= bias ? rows_pad >> 4 : mant_units;
              addr_q[1] <= addr;
              units_q[1] <= mant_units;
              addr_q[2] <= addr + mant_units;
              units_q[2] <= rows_pad >> 4;
              n_q <= bias ? 2'd3 : 2'd1;
            end
            foray_abi_pkg::OP_HEAD: begin
              addr_q[0] <= addr + (row_q >> 5);
              units_q[0] <= with_ids ? (chunk + 32'd31) >> 5 : (take_rows + 32'd31) >> 5;
              addr_q[1] <= d_q[foray_abi_pkg::HEAD_IDS_WORD*32+:32] + (row_q >> 4);
              units_q[1] <= chunk >> 4;
              n_q <= with_ids ? 2'd2 : 2'd1;
            end
            foray_abi_pkg::OP_RMSNORM: begin
              addr_q[0] <= d_q[foray_abi_pkg::RMSNORM_GAMMA_WORD*32+:32];
              units_q[0] <= d_q[foray_abi_pkg::RMSNORM_N_WORD*32+:32] >> 4;
              n_q <= 2'd1;
            end
            foray_abi_pkg::OP_ROPE: begin
              addr_q[0] <= d_q[foray_abi_pkg::ROPE_FREQ_WORD*32+:32];
              units_q[0] <= 32'(d_q[foray_abi_pkg::ROPE_HEAD_DIM_WORD*32+:16]) >> 4;
              n_q <= 2'd1;
            end
            foray_abi_pkg::OP_EMBED: begin
              addr_q[0] <= addr + (token >> 5);
              units_q[0] <= 32'd1;
              addr_q[1] <= addr + mant_units;
              units_q[1] <= block_units;
              n_q <= 2'd2;
              state_q <= StMul;
            end
            default: state_q <= StNext;
          endcase
      end
      StMul: begin
        mul_b_q <= mul_b_q >> 1;
        mul_a_q <= mul_a_q << 1;
        if (mul_b_q[0]) mul_s_q <= mul_s_q + mul_a_q;
        if (mul_b_q == '0) begin
          if (Aux) addr_q[1] <= addr_q[1] + mul_s_q;
          else units_q[0] <= mul_s_q;
          state_q <= StEmit;
        end
      end
      StEmit:
      if (i_q == n_q) state_q <= StNext;
      else if (range_ready_i) i_q <= i_q + 2'd1;
      StNext: begin
        if (Aux && by_column && col_q + 4'd1 != cmd_i.c1) begin
          col_q <= col_q + 4'd1;
          state_q <= StSetup;
        end else if (Aux && with_ids && row_q + chunk != take_rows) begin
          row_q <= row_q + chunk;
          state_q <= StSetup;
        end else begin
          at_q <= at_q + 13'd1;
          state_q <= at_q + 13'd1 == to_q ? StIdle : StRead;
        end
      end
      default: state_q <= StIdle;
    endcase
    if (!rst_ni || abort_i) state_q <= StIdle;
  end
endmodule
