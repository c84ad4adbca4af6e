/// What the exit unit keeps of the order of a column's logits: the eight largest (ties to the lowest id) and the best key. One of each a cycle.
module foray_exit_rank #(
    parameter int unsigned Cols = 1
) (
    input  logic                    clk_i,
    input  logic                    rst_ni,
    /// Forgets all columns.
    input  logic                    clear_i,
    input  logic                    valid_i,
    input  logic        [ 2:0]      col_i,
    input  logic signed [31:0]      logit_i,
    input  logic        [31:0]      id_i,
    /// Of a logit that came before: the key by which it is chosen.
    input  logic                    key_valid_i,
    input  logic        [ 2:0]      key_col_i,
    input  logic signed [49:0]      key_i,
    input  logic        [31:0]      key_id_i,
    input  logic signed [31:0]      key_logit_i,
    /// Results of a column.
    input  logic        [ 2:0]      sel_i,
    output logic        [7:0][31:0] top_id_o,
    output logic        [7:0][31:0] top_logit_o,
    output logic        [31:0]      best_id_o,
    output logic        [31:0]      best_logit_o,
    output logic        [20:0]      rows_o,
    output logic                    empty_o
);

  // An entry is {logit + 2^31, ~id}: a greater one goes before.
  localparam logic [63:0] None = 64'h0000_0001_0000_0000;
  localparam int unsigned CW = Cols > 1 ? 3 : 1;  // bits of a column's number
  logic [511:0] top_mem[Cols];
  logic [Cols-1:0] used_q, keyed_q;
  logic v_q, kv_q;
  logic [2:0] col_q, kcol_q;
  logic [63:0] new_q;
  logic [511:0] now_raw, now, next;
  assign now_raw = top_mem[col_q[CW-1:0]];
  assign now = used_q[col_q[CW-1:0]] ? now_raw : {8{None}};
  logic [7:0] before_new;
  for (genvar k = 0; k < 8; k++) begin : gen_rank
    assign before_new[k] = new_q > now[64*k+:64];
    assign next[64*k+:64] = !before_new[k] ? now[64*k+:64] :
        before_new[k==0?0 : k-1] && k != 0 ? now[64*(k==0?0 : k-1)+:64] : new_q;
  end

  // The best so far is {key, ~id, logit}; the first two decide.
  logic [113:0] best_mem[Cols];
  logic [81:0] knew_q;
  logic [31:0] klogit_q;
  logic [113:0] best;
  logic better;
  assign best = best_mem[kcol_q[CW-1:0]];
  assign better = !keyed_q[kcol_q[CW-1:0]] || knew_q > best[113:32];

  logic [21*Cols-1:0] rows_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      v_q <= 1'b0;
      kv_q <= 1'b0;
    end else begin
      v_q <= valid_i;
      kv_q <= key_valid_i;
    end
  end

  always_ff @(posedge clk_i) begin
    if (valid_i) begin
      col_q <= col_i;
      new_q <= {~logit_i[31], logit_i[30:0], ~id_i};
    end
    if (key_valid_i) begin
      kcol_q   <= key_col_i;
      knew_q   <= {~key_i[49], key_i[48:0], ~key_id_i};
      klogit_q <= key_logit_i;
    end
    if (clear_i) begin
      used_q  <= '0;
      keyed_q <= '0;
    end else begin
      if (v_q) used_q[col_q[CW-1:0]] <= 1'b1;
      if (kv_q) keyed_q[kcol_q[CW-1:0]] <= 1'b1;
    end
    if (v_q && (before_new[7] || !used_q[col_q[CW-1:0]])) top_mem[col_q[CW-1:0]] <= next;
    if (kv_q && better) best_mem[kcol_q[CW-1:0]] <= {knew_q, klogit_q};
  end
  for (genvar c = 0; c < Cols; c++) begin : gen_rows
    always_ff @(posedge clk_i) begin
      if (clear_i) rows_q[21*c+:21] <= 21'd0;
      else if (v_q && (Cols == 1 || col_q == 3'(c))) rows_q[21*c+:21] <= rows_q[21*c+:21] + 21'd1;
    end
  end

  logic [511:0] top_sel;
  logic [113:0] best_sel;
  assign top_sel  = top_mem[sel_i[CW-1:0]];
  assign best_sel = best_mem[sel_i[CW-1:0]];
  for (genvar k = 0; k < 8; k++) begin : gen_out
    assign top_id_o[k] = ~top_sel[64*k+:32];
    assign top_logit_o[k] = {~top_sel[64*k+63], top_sel[64*k+32+:31]};
  end
  assign best_id_o = ~best_sel[63:32];
  assign best_logit_o = best_sel[31:0];
  assign rows_o = rows_q[21*sel_i[CW-1:0]+:21];
  assign empty_o = !v_q && !kv_q;

endmodule
