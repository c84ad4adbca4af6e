// Types that the units of foray_top share. Numbers of the device contract come from foray_abi_pkg, function
// tables from foray_tables_pkg; sizes of a configuration are module parameters (hw/rtl/README.md).
package foray_pkg;


  // A command to a unit: one descriptor over columns [c0, c1); column c is position pos0 + c.
  typedef struct packed {
    logic [511:0] desc;  // as in memory: word i is desc[32*i +: 32]; fields by foray_abi_pkg's *_WORD, *_LSB
    logic [3:0] c0;  // first column
    logic [3:0] c1;  // one past the last column
    logic [31:0] pos0;  // position of column 0
    logic [31:0] kv;  // heap unit of the context's KV memory (KV_PUT, ATTN: + field offset)
    logic [31:0] max_pos;  // positions of the KV memory
    logic [7:0][31:0] token;  // EMBED: token id of each column
    logic score;  // HEAD: logits go to the dump, not into the exit unit
  } cmd_t;

  // What the exit unit needs for a decision (stable from its clear to its done).
  typedef struct packed {
    logic sample;  // Gumbel noise at inv_temp
    logic [31:0] inv_temp;  // Q16
    logic [63:0] seed;
    logic [31:0] position;  // of the token that column 0 chooses; column c: + c
    logic signed [31:0] cum;  // sum so far, before this token
    logic [7:0][31:0] exit_rule;  // coefficients, signed Q16
    logic [7:0][31:0] stop_rule;
  } exit_arg_t;

  // Result of a decision. Entry word i is entry[32*i +: 32]; position, exit, tried and flags are zero in it
  // (the sequencer fills them).
  typedef struct packed {
    logic [1023:0] entry;
    logic exit_ge0;  // score of exit_rule >= 0
    logic stop_lt0;  // score of stop_rule < 0
  } exit_res_t;

  // One logit on its way from the matrix engine.
  typedef struct packed {
    logic [2:0] col;  // column, c0 .. c1-1
    logic [19:0] row;
    logic [31:0] id;  // token id of the row
    logic signed [31:0] logit;  // Q16
    logic last;  // last row of this column
  } logit_t;

  // What a unit does in a cycle; at most one bit is set, none = idle. The sum over all units and the
  // sequencer explains each cycle of a run.
  typedef struct packed {
    logic busy;  // makes progress
    logic starved;  // waits for its input stream
    logic blocked;  // waits for its consumer
  } act_t;

  // Events of a cycle that foray_ctrl counts.
  typedef struct packed {
    logic op;
    logic pass;
    logic [3:0] columns;
    logic drafted;
    logic checked;
    logic corrected;
    logic [39:0] weight_bytes;
    logic [39:0] embed_bytes;
    logic [39:0] vector_bytes;
    logic [39:0] kv_read_bytes;
    logic [39:0] kv_write_bytes;
    logic [39:0] resid_bytes;
  } count_t;

  // What a watcher sees: one bit says what ended in this cycle.
  typedef struct packed {
    logic op;
    logic pass;
    logic token;
    logic [12:0] desc;
    logic [7:0] opcode;
    logic [3:0] seg;
    logic in_test;
    logic [2:0] exit_no;
    logic [3:0] columns;
    logic [31:0] position;
    logic [31:0] entry;  // ring entry of a token
  } trace_t;

endpackage
