// Checks one op descriptor (not PROG, SEG, TEST, EXIT, END) as host/dev/validate.c does: reserved bits and fields,
// place in the program, shapes, heap ranges, scratch ranges, KV ranges, in this order; the first failure counts.
module foray_check #(
    parameter int unsigned ScratchUnits = 16384,
    /// Most groups of 32 inputs that the matrix engine keeps.
    parameter int unsigned ActGroups = 2048,
    /// Most groups of 32 query elements, over all columns, that the attention engine keeps.
    parameter int unsigned QGroups = 2048
) (
    input logic clk_i,
    input logic rst_ni,
    input logic start_i,
    /// Stable until done.
    input logic [511:0] desc_i,
    input logic [31:0] heap_units_i,
    /// Fields of PROG and STATE.
    input logic [3:0] cols_i,
    input logic [31:0] vocab_i,
    input logic [31:0] width_i,
    input logic [23:0] max_pos_i,
    input logic [31:0] kv_units_i,
    /// Where in the program this op stands.
    input logic seg0_i,
    input logic in_test_i,
    input logic embed_seen_i,
    input logic head_seen_i,
    output logic done_o,
    output logic [7:0] err_o
);
  localparam int unsigned HeadDimMax = foray_abi_pkg::HEAD_DIM_MAX;
  // Pairs of query head and column that may share a KV head (foray_attn).
  localparam int unsigned AttnPairs = 256;
  localparam int unsigned HeadsMax = foray_abi_pkg::HEADS_MAX;

  // column units * columns (1..8)
  function automatic logic [35:0] times(input logic [31:0] u, input logic [3:0] c);
    times = (c[0] ? 36'(u) : '0) + (c[1] ? 36'(u) << 1 : '0) + (c[2] ? 36'(u) << 2 : '0) +
        (c[3] ? 36'(u) << 3 : '0);
  endfunction

  // ---- fields ----
  logic [15:0][31:0] w;
  logic [7:0] op, flags, qtype;
  assign w = desc_i;
  assign op = w[0][7:0];
  assign flags = w[0][15:8];
  assign qtype = w[0][23:16];

  logic is_matrix, is_heads, is_vec;
  always_comb begin
    is_matrix = op == foray_abi_pkg::OP_EMBED || op == foray_abi_pkg::OP_GEMV || op == foray_abi_pkg::OP_HEAD;
    is_heads = op == foray_abi_pkg::OP_ROPE || op == foray_abi_pkg::OP_KV_PUT || op == foray_abi_pkg::OP_ATTN;
    is_vec = op == foray_abi_pkg::OP_RMSNORM || op == foray_abi_pkg::OP_SILU_MUL ||
        op == foray_abi_pkg::OP_QUANT || op == foray_abi_pkg::OP_ADD;
  end

  // matrix
  logic [31:0] m_rows, m_cols, m_addr, m_used, groups, block_units, rows_pad, mant_units, id_units;
  logic q4, q8, bias;
  always_comb begin
    m_rows = w[4];
    m_cols = w[3];
    m_addr = w[5];
    m_used = op == foray_abi_pkg::OP_HEAD ? w[7] : w[4];
    if (op == foray_abi_pkg::OP_EMBED) begin
      m_rows = w[foray_abi_pkg::EMBED_ROWS_WORD];
      m_cols = w[foray_abi_pkg::EMBED_COLS_WORD];
      m_addr = w[foray_abi_pkg::EMBED_ADDR_WORD];
    end
    q4 = qtype == 8'(foray_abi_pkg::QTYPE_Q4A);
    q8 = qtype == 8'(foray_abi_pkg::QTYPE_Q8S);
    bias = op == foray_abi_pkg::OP_GEMV && flags[1];
    groups = m_cols >> 5;
    rows_pad = (m_rows + 32'd15) & ~32'd15;
    mant_units = (rows_pad + 32'd31) >> 5;
    id_units = (m_used + 32'd15) >> 4;
    block_units = q4 ? ((groups + 32'd1) >> 1) + (groups << 2) : ((groups + 32'd3) >> 2) + (groups << 3);
  end
  // heads
  logic [15:0] head_dim, heads, kv_heads;
  logic [31:0] head_n, vec_n, kv_offset;
  always_comb begin
    head_dim = op == foray_abi_pkg::OP_ROPE ? w[foray_abi_pkg::ROPE_HEAD_DIM_WORD][15:0] : w[3][15:0];
    heads = op == foray_abi_pkg::OP_ROPE ? w[foray_abi_pkg::ROPE_HEADS_WORD][31:16] : w[3][31:16];
    kv_heads = op == foray_abi_pkg::OP_ATTN ? w[foray_abi_pkg::ATTN_KV_HEADS_WORD][15:0] : heads;
    kv_offset = w[4];
    // heads * head_dim, head_dim = 32 .. 256 by 32
    head_n = '0;
    for (int unsigned k = 5; k <= 8; k++) if (head_dim[k]) head_n = head_n + (32'(heads) << k);
    vec_n = op == foray_abi_pkg::OP_RMSNORM ? w[foray_abi_pkg::RMSNORM_N_WORD] :
        op == foray_abi_pkg::OP_SILU_MUL ? w[foray_abi_pkg::SILU_MUL_N_WORD] : w[3];
  end

  // ---- fields and place ----
  logic field_bad, order_bad, shape_bad, known;
  logic [511:0] spare;
  always_comb begin
    known = 1'b1;
    spare = '1;
    field_bad = flags != '0;
    order_bad = 1'b0;
    case (op)
      foray_abi_pkg::OP_EMBED: begin
        spare = foray_abi_pkg::EMBED_SPARE;
        field_bad = flags != '0 || !q8;
        order_bad = !seg0_i || in_test_i || embed_seen_i;
      end
      foray_abi_pkg::OP_RMSNORM: spare = foray_abi_pkg::RMSNORM_SPARE;
      foray_abi_pkg::OP_GEMV: begin
        spare = foray_abi_pkg::GEMV_SPARE;
        field_bad = (flags & ~8'(foray_abi_pkg::DF_BIAS)) != '0 || !(q4 || q8) || (!bias && w[6][31:16] != '0);
      end
      foray_abi_pkg::OP_HEAD: begin
        spare = foray_abi_pkg::HEAD_SPARE;
        field_bad = flags != '0 || !(q4 || q8);
        order_bad = !in_test_i || head_seen_i;
      end
      foray_abi_pkg::OP_ROPE: begin
        spare = foray_abi_pkg::ROPE_SPARE;
        field_bad = (flags & ~8'(foray_abi_pkg::DF_NEOX)) != '0;
      end
      foray_abi_pkg::OP_KV_PUT: begin
        spare = foray_abi_pkg::KV_PUT_SPARE;
        order_bad = in_test_i;
      end
      foray_abi_pkg::OP_ATTN: begin
        spare = foray_abi_pkg::ATTN_SPARE;
        field_bad = flags != '0 || w[6] < 32'h0080_0000 || w[6] > 32'h0100_0000;
        order_bad = in_test_i;
      end
      foray_abi_pkg::OP_SILU_MUL: spare = foray_abi_pkg::SILU_MUL_SPARE;
      foray_abi_pkg::OP_QUANT: spare = foray_abi_pkg::QUANT_SPARE;
      foray_abi_pkg::OP_ADD: spare = foray_abi_pkg::ADD_SPARE;
      foray_abi_pkg::OP_KEEP, foray_abi_pkg::OP_PREV: begin
        spare = op == foray_abi_pkg::OP_KEEP ? foray_abi_pkg::KEEP_SPARE : foray_abi_pkg::PREV_SPARE;
        order_bad = !in_test_i;
      end
      default: known = 1'b0;
    endcase
  end
  always_comb begin
    shape_bad = 1'b0;
    if (is_matrix) begin
      shape_bad = m_rows == '0 || m_rows > 32'(foray_abi_pkg::ROWS_LIMIT) || m_cols == '0 ||
          m_cols > 32'(foray_abi_pkg::COLUMNS_LIMIT) || m_cols[4:0] != '0;
      if (op == foray_abi_pkg::OP_EMBED) shape_bad = shape_bad || m_rows < vocab_i;
      else shape_bad = shape_bad || groups > 32'(ActGroups);
      if (op == foray_abi_pkg::OP_GEMV) shape_bad = shape_bad || rows_pad > 32'(foray_abi_pkg::COLUMNS_LIMIT);
      if (op == foray_abi_pkg::OP_HEAD)
        shape_bad = shape_bad || m_used == '0 || m_used > m_rows || (w[2] == '0 && m_used > vocab_i);
    end
    if (is_heads) begin
      shape_bad = heads == '0 || heads > 16'(HeadsMax) || head_dim == '0 || head_dim > 16'(HeadDimMax) ||
          head_dim[4:0] != '0;
      if (op == foray_abi_pkg::OP_ATTN)
        shape_bad = shape_bad || kv_heads == '0 || rem_q != '0 || 36'(QGroups) < times(head_n >> 5, cols_i) ||
            times(32'(quot_q), cols_i) > 36'(AttnPairs);
    end
    if (is_vec) begin
      shape_bad = vec_n == '0 || vec_n > 32'(foray_abi_pkg::COLUMNS_LIMIT) || vec_n[4:0] != '0;
      if (op == foray_abi_pkg::OP_RMSNORM) shape_bad = shape_bad || vec_n > 32'(foray_abi_pkg::NORM_LIMIT);
    end
  end

  // ---- scratch ranges: x, y are read, z is written; units of a column ----
  function automatic logic [31:0] y_units(input logic [31:0] n);
    y_units = 32'd1 + ((n + 32'd15) >> 4);
  endfunction
  function automatic logic [31:0] a_units(input logic [31:0] n);
    a_units = 32'd1 + ((n + 32'd31) >> 5) + ((n + 32'd2047) >> 11);
  endfunction
  logic [2:0] sp_has;
  logic [2:0][31:0] sp_at, sp_units;
  logic sp_xz, sp_yz;
  always_comb begin
    sp_has = '0;
    sp_at = '0;
    sp_units = '0;
    sp_xz = 1'b0;
    sp_yz = 1'b0;
    case (op)
      foray_abi_pkg::OP_EMBED: begin
        sp_has = 3'b100;
        sp_at[2] = w[1];
        sp_units[2] = y_units(m_cols);
      end
      foray_abi_pkg::OP_RMSNORM, foray_abi_pkg::OP_QUANT: begin
        sp_has = 3'b101;
        sp_at[0] = w[1];
        sp_units[0] = y_units(vec_n);
        sp_at[2] = w[2];
        sp_units[2] = a_units(vec_n);
        sp_xz = 1'b1;
      end
      foray_abi_pkg::OP_GEMV: begin
        sp_has = 3'b101;
        sp_at[0] = w[1];
        sp_units[0] = a_units(m_cols);
        sp_at[2] = w[2];
        sp_units[2] = y_units(rows_pad);
        sp_xz = 1'b1;
      end
      foray_abi_pkg::OP_HEAD: begin
        sp_has = 3'b001;
        sp_at[0] = w[1];
        sp_units[0] = a_units(m_cols);
      end
      foray_abi_pkg::OP_ROPE: begin
        sp_has = 3'b001;
        sp_at[0] = w[1];
        sp_units[0] = y_units(head_n);
      end
      foray_abi_pkg::OP_KV_PUT: begin
        sp_has = 3'b011;
        sp_at[0] = w[1];
        sp_units[0] = y_units(head_n);
        sp_at[1] = w[2];
        sp_units[1] = y_units(head_n);
      end
      foray_abi_pkg::OP_ATTN: begin
        sp_has = 3'b101;
        sp_at[0] = w[1];
        sp_units[0] = y_units(head_n);
        sp_at[2] = w[2];
        sp_units[2] = a_units(head_n);
        sp_xz = 1'b1;
      end
      foray_abi_pkg::OP_SILU_MUL: begin
        sp_has = 3'b111;
        sp_at[0] = w[1];
        sp_units[0] = y_units(vec_n);
        sp_at[1] = w[2];
        sp_units[1] = y_units(vec_n);
        sp_at[2] = w[3];
        sp_units[2] = a_units(vec_n);
        sp_xz = 1'b1;
        sp_yz = 1'b1;
      end
      foray_abi_pkg::OP_ADD: begin
        sp_has = 3'b101;
        sp_at[0] = w[2];
        sp_units[0] = y_units(vec_n);
        sp_at[2] = w[1];
        sp_units[2] = y_units(vec_n);
        sp_xz = 1'b1;
      end
      foray_abi_pkg::OP_KEEP, foray_abi_pkg::OP_PREV: begin
        sp_has = 3'b001;
        sp_at[0] = w[1];
        sp_units[0] = a_units(width_i);
      end
      default: ;
    endcase
  end

  // ---- steps ----
  typedef enum logic [3:0] {
    StIdle,
    StDivide,
    StShape,
    StRoot,
    StRootUp,
    StMatrix,
    StHeap,
    StHeap2,
    StScratch,
    StApart,
    StKv,
    StKv2,
    StKvEnd
  } state_e;
  state_e state_q;
  logic [15:0] rem_q, quot_q;  // heads / kv_heads
  logic [4:0] bit_q;
  logic mul_start_q, mul_done;
  logic [23:0] mul_a_q, mul_b_q;
  logic [47:0] mul_p;
  foray_size_mul #(
      .Aw(24),
      .Bw(24)
  ) u_mul (
      .clk_i,
      .rst_ni,
      .start_i(mul_start_q),
      .a_i(mul_a_q),
      .b_i(mul_b_q),
      .done_o(mul_done),
      .p_o(mul_p)
  );
  logic [47:0] bytes_q;  // heap units of the first range
  logic [35:0] ends_q[3];
  logic [31:0] root;
  logic [31:0] freq_or_gamma, one_units;
  logic [5:0] granules;  // of a KV record
  assign root = w[foray_abi_pkg::RMSNORM_ROOT_N_WORD];
  assign freq_or_gamma = op == foray_abi_pkg::OP_ROPE ? w[foray_abi_pkg::ROPE_FREQ_WORD] :
      w[foray_abi_pkg::RMSNORM_GAMMA_WORD];
  assign one_units = op == foray_abi_pkg::OP_ROPE ? 32'(head_dim) >> 4 : vec_n >> 4;
  assign granules = 6'(head_dim >> 3) + (head_dim > 16'd128 ? 6'd2 : 6'd1);

  function automatic logic heap_ok(input logic [31:0] unit, input logic [47:0] n, input logic [31:0] all);
    heap_ok = unit != '0 && 49'(unit) + 49'(n) <= 49'(all);
  endfunction

  always_ff @(posedge clk_i) begin
    done_o <= 1'b0;
    mul_start_q <= 1'b0;
    case (state_q)
      StIdle: begin
        err_o <= foray_abi_pkg::ERR_NONE;
        rem_q <= '0;
        quot_q <= '0;
        bit_q <= 5'd15;
        if (start_i) begin
          state_q <= StDivide;
          if (!known) begin
            err_o <= foray_abi_pkg::ERR_OPCODE;
            done_o <= 1'b1;
            state_q <= StIdle;
          end else if (field_bad || (desc_i & spare) != '0) begin
            err_o <= foray_abi_pkg::ERR_FIELD;
            done_o <= 1'b1;
            state_q <= StIdle;
          end else if (order_bad) begin
            err_o <= foray_abi_pkg::ERR_ORDER;
            done_o <= 1'b1;
            state_q <= StIdle;
          end
        end
      end
      // heads mod kv_heads, for ATTN
      StDivide: begin
        if (op != foray_abi_pkg::OP_ATTN) state_q <= StShape;
        else begin
          if ({rem_q[14:0], heads[bit_q[3:0]]} >= kv_heads)
            rem_q <= {rem_q[14:0], heads[bit_q[3:0]]} - kv_heads;
          else rem_q <= {rem_q[14:0], heads[bit_q[3:0]]};
          quot_q <= {quot_q[14:0], {rem_q[14:0], heads[bit_q[3:0]]} >= kv_heads};
          bit_q <= bit_q - 5'd1;
          if (bit_q == '0) state_q <= StShape;
        end
      end
      StShape: begin
        mul_a_q <= is_matrix ? block_units[23:0] : root[23:0];
        mul_b_q <= is_matrix ? 24'(rows_pad >> 4) : root[23:0];
        bytes_q <= 48'(one_units);
        if (shape_bad) begin
          err_o <= foray_abi_pkg::ERR_SHAPE;
          done_o <= 1'b1;
          state_q <= StIdle;
        end else if (op == foray_abi_pkg::OP_RMSNORM) begin
          mul_start_q <= 1'b1;
          state_q <= StRoot;
        end else if (is_matrix) begin
          mul_start_q <= 1'b1;
          state_q <= StMatrix;
        end else if (op == foray_abi_pkg::OP_ROPE) state_q <= StHeap;
        else state_q <= StScratch;
      end
      // root_n^2 <= n 2^32 < (root_n + 1)^2
      StRoot:
      if (mul_done) begin
        mul_a_q <= root[23:0] + 24'd1;
        mul_b_q <= root[23:0] + 24'd1;
        mul_start_q <= 1'b1;
        state_q <= StRootUp;
        if (root >= 32'h00ff_ffff || mul_p > {vec_n[15:0], 32'd0}) begin
          err_o <= foray_abi_pkg::ERR_FIELD;
          done_o <= 1'b1;
          mul_start_q <= 1'b0;
          state_q <= StIdle;
        end
      end
      StRootUp:
      if (mul_done) begin
        state_q <= StHeap;
        if (mul_p <= {vec_n[15:0], 32'd0}) begin
          err_o <= foray_abi_pkg::ERR_FIELD;
          done_o <= 1'b1;
          state_q <= StIdle;
        end
      end
      StMatrix:
      if (mul_done) begin
        bytes_q <= mul_p + 48'(mant_units) + (bias ? 48'(rows_pad[31:4]) : 48'd0);
        state_q <= StHeap;
      end
      StHeap: begin
        state_q <= op == foray_abi_pkg::OP_HEAD && w[foray_abi_pkg::HEAD_IDS_WORD] != '0 ? StHeap2 : StScratch;
        if (!heap_ok(is_matrix ? m_addr : freq_or_gamma, bytes_q, heap_units_i)) begin
          err_o <= foray_abi_pkg::ERR_ADDRESS;
          done_o <= 1'b1;
          state_q <= StIdle;
        end
      end
      StHeap2: begin
        state_q <= StScratch;
        if (!heap_ok(w[foray_abi_pkg::HEAD_IDS_WORD], 48'(id_units), heap_units_i)) begin
          err_o <= foray_abi_pkg::ERR_ADDRESS;
          done_o <= 1'b1;
          state_q <= StIdle;
        end
      end
      StScratch: begin
        for (int unsigned k = 0; k < 3; k++) ends_q[k] <= 36'(sp_at[k]) + times(sp_units[k], cols_i);
        state_q <= StApart;
      end
      StApart: begin
        mul_a_q <= 24'(granules);
        mul_b_q <= 24'(kv_heads);
        if ((sp_has[0] && ends_q[0] > 36'(ScratchUnits)) || (sp_has[1] && ends_q[1] > 36'(ScratchUnits)) ||
            (sp_has[2] && ends_q[2] > 36'(ScratchUnits)) ||
            (sp_xz && !(ends_q[0] <= 36'(sp_at[2]) || ends_q[2] <= 36'(sp_at[0]))) ||
            (sp_yz && !(ends_q[1] <= 36'(sp_at[2]) || ends_q[2] <= 36'(sp_at[1])))) begin
          err_o <= foray_abi_pkg::ERR_SCRATCH;
          done_o <= 1'b1;
          state_q <= StIdle;
        end else if (op == foray_abi_pkg::OP_KV_PUT || op == foray_abi_pkg::OP_ATTN) begin
          mul_start_q <= 1'b1;
          state_q <= StKv;
        end else begin
          done_o <= 1'b1;
          state_q <= StIdle;
        end
      end
      StKv:
      if (mul_done) begin
        mul_a_q <= mul_p[23:0];
        mul_b_q <= max_pos_i;
        mul_start_q <= 1'b1;
        state_q <= StKv2;
      end
      StKv2: if (mul_done) state_q <= StKvEnd;
      StKvEnd: begin
        if (48'(kv_offset) + ((mul_p + 48'd3) >> 2) > 48'(kv_units_i)) err_o <= foray_abi_pkg::ERR_KV;
        done_o <= 1'b1;
        state_q <= StIdle;
      end
      default: state_q <= StIdle;
    endcase
    if (!rst_ni) state_q <= StIdle;
  end
endmodule
