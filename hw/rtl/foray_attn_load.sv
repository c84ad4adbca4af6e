// Fetches KV records for foray_attn and sorts them into its buffers.
//
// A pass reads all positions of one kv head. Records (scales, K codes, V codes; docs/numerics.md 7) come as one
// run of 16-byte granules; a cycle takes the scales and the first group, or one more group of 32 codes. Blocks of
// 32 positions go to a ring of banks: group g of position j lies at bank * 32 * groups + 32 g + j, so that a group can
// be read for all positions in a row.
module foray_attn_load #(
    /// Address bits of the K and V buffers (groups of 32 codes).
    parameter int unsigned BufW = 9
) (
    /// Clock.
    input  logic            clk_i,
    /// Synchronous reset, active low.
    input  logic            rst_ni,
    /// Begins an operation; what follows is stable until its end.
    input  logic            start_i,
    /// Byte address of the first record of kv head 0.
    input  logic [35:0]     base_i,
    /// Bytes from head to head.
    input  logic [35:0]     stride_i,
    /// Granules of scales, 1 or 2.
    input  logic [1:0]      meta_i,
    /// Groups of K, 1..8.
    input  logic [3:0]      groups_i,
    /// Positions of a pass, 1..65536.
    input  logic [16:0]     npos_i,
    /// Granules of a pass.
    input  logic [22:0]     total_i,
    /// kv heads.
    input  logic [15:0]     heads_i,
    /// Passes a head needs.
    input  logic [7:0]      repeat_i,
    /// Banks in use, 2..8.
    input  logic [3:0]      banks_i,
    /// Request of a pass.
    output logic            kr_valid_o,
    /// See kr_valid_o.
    input  logic            kr_ready_i,
    /// Byte address.
    output logic [35:0]     kr_addr_o,
    /// Bytes.
    output logic [31:0]     kr_bytes_o,
    /// Records.
    input  logic            kv_valid_i,
    /// See kv_valid_i.
    output logic            kv_ready_o,
    /// See kv_valid_i.
    input  logic [511:0]    kv_data_i,
    /// Writes a group of codes.
    output logic            we_o,
    /// It belongs to V.
    output logic            we_v_o,
    /// Where.
    output logic [BufW-1:0] waddr_o,
    /// 32 codes.
    output logic [255:0]    wdata_o,
    /// Writes the scales of a position.
    output logic            scale_we_o,
    /// {bank, position in the block}.
    output logic [7:0]      scale_waddr_o,
    /// 16 scales.
    output logic [255:0]    scale_wdata_o,
    /// A block is complete.
    output logic            block_done_o,
    /// A bank is free again.
    input  logic            block_free_i
);

  // ---- requests: head by head, each as often as needed
  logic req_q;
  logic [15:0] req_head_q;
  logic [7:0] req_rep_q;
  logic [35:0] req_addr_q;
  assign kr_valid_o = req_q;
  assign kr_addr_o = req_addr_q;
  assign kr_bytes_o = {5'd0, total_i, 4'd0};
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      req_q <= 1'b0;
    end else if (start_i) begin
      req_q <= 1'b1;
    end else if (req_q && kr_ready_i && req_rep_q + 8'd1 == repeat_i && req_head_q + 16'd1 == heads_i) begin
      req_q <= 1'b0;
    end
    if (start_i) begin
      req_head_q <= '0;
      req_rep_q <= '0;
      req_addr_q <= base_i;
    end else if (req_q && kr_ready_i) begin
      req_rep_q <= req_rep_q + 8'd1;
      if (req_rep_q + 8'd1 == repeat_i) begin
        req_rep_q <= '0;
        req_head_q <= req_head_q + 16'd1;
        req_addr_q <= req_addr_q + stride_i;
      end
    end
  end

  // ---- granules on hand
  logic run_q;
  logic [15:0] head_q;
  logic [7:0] rep_q;
  logic [22:0] rx_q;  // granules of this pass still to come
  logic [16:0] pos_q;  // positions of this pass still to store
  logic [3:0] have_q;
  logic [1023:0] gran_q;
  logic [3:0] slot_q;  // group of the record: K then V
  logic second_q;  // slot_q is one of V
  logic [4:0] j_q;
  logic [2:0] bank_q;
  logic [BufW-1:0] base_q;  // of the bank
  logic [3:0] free_q;

  logic first, last_slot, last_pos, last_j, bank_ok, use_it, take;
  logic [3:0] need, gets, rest;
  assign first = slot_q == '0 && !second_q;
  assign last_slot = second_q && slot_q + 4'd1 == groups_i;
  assign last_pos = pos_q == 17'd1;
  assign last_j = j_q == 5'd31 || last_pos;
  assign need = first ? 4'd2 + 4'(meta_i) : 4'd2;
  assign bank_ok = !(first && j_q == '0) || free_q != '0;
  assign use_it = run_q && pos_q != '0 && have_q >= need && bank_ok;
  assign rest = use_it ? have_q - need : have_q;
  assign kv_ready_o = run_q && have_q <= 4'd4 && rx_q != '0;
  assign take = kv_valid_i && kv_ready_o;
  assign gets = rx_q >= 23'd4 ? 4'd4 : rx_q[3:0];

  logic [1023:0] shifted;
  assign shifted = !use_it ? gran_q : need == 4'd2 ? gran_q >> 256 : need == 4'd3 ? gran_q >> 384 : gran_q >> 512;
  logic [7:0][127:0] gran_d;
  always_comb begin
    gran_d = shifted;
    if (take) begin
      for (int i = 0; i < 8; i++) begin
        for (int b = 0; b < 4; b++) begin
          if (4'(i) == rest + 4'(b)) gran_d[i] = kv_data_i[128*b+:128];
        end
      end
    end
  end

  logic pass_end, last_pass;
  assign pass_end = use_it && last_slot && last_pos;
  assign last_pass = rep_q + 8'd1 == repeat_i && head_q + 16'd1 == heads_i;

  always_ff @(posedge clk_i) begin
    gran_q <= gran_d;
    if (!rst_ni || start_i) begin
      run_q <= rst_ni;
      head_q <= '0;
      rep_q <= '0;
      rx_q <= total_i;
      pos_q <= npos_i;
      have_q <= '0;
      slot_q <= '0;
      second_q <= 1'b0;
      j_q <= '0;
      bank_q <= '0;
      base_q <= '0;
      free_q <= banks_i;
    end else begin
      have_q <= rest + (take ? gets : 4'd0);
      if (take) rx_q <= rx_q - 23'(gets);
      if (use_it) begin
        slot_q <= slot_q + 4'd1;
        if (slot_q + 4'd1 == groups_i) begin
          slot_q <= '0;
          second_q <= !second_q;
        end
        if (last_slot) begin
          j_q <= last_j ? '0 : j_q + 5'd1;
          pos_q <= pos_q - 17'd1;
          if (last_j) begin
            bank_q <= 4'(bank_q) + 4'd1 == banks_i ? '0 : bank_q + 3'd1;
            base_q <= 4'(bank_q) + 4'd1 == banks_i ? '0 : base_q + BufW'({groups_i, 5'd0});
          end
        end
      end
      if (pass_end) begin
        rx_q <= total_i;
        pos_q <= npos_i;
        rep_q <= rep_q + 8'd1;
        if (rep_q + 8'd1 == repeat_i) begin
          rep_q <= '0;
          head_q <= head_q + 16'd1;
        end
        if (last_pass) run_q <= 1'b0;
      end
      free_q <= free_q + 4'(block_free_i) - 4'(use_it && first && j_q == '0);
    end
    if (!rst_ni) run_q <= 1'b0;
  end

  assign we_o = use_it;
  assign we_v_o = second_q;
  assign waddr_o = base_q + BufW'({slot_q, 5'd0}) + BufW'(j_q);
  assign wdata_o = !first ? gran_q[255:0] : meta_i == 2'd1 ? gran_q[383:128] : gran_q[511:256];
  assign scale_we_o = use_it && first;
  assign scale_waddr_o = {bank_q, j_q};
  assign scale_wdata_o = gran_q[255:0];
  always_ff @(posedge clk_i) block_done_o <= rst_ni && !start_i && use_it && last_slot && last_j;

endmodule
