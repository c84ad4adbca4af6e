// Types inside the vector unit.
package foray_vec_pkg;

  typedef enum logic [2:0] {
    LANE_COPY,
    LANE_SILU,
    LANE_NORM,
    LANE_EMBED,
    LANE_ROPE,
    LANE_SQUARE
  } lane_mode_e;

endpackage
