// One configuration of foray_top, Verilated. -DFORAY_MODEL=<name>; the class is Vforay_<name>;
// the defines of hw/rtl/cfg/<name>/foray_cfg.svh come as -D too.
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define STR_(a) #a
#define STR(a) STR_(a)

#include STR(CAT(Vforay_, FORAY_MODEL).h)
#include "model.h"
#include "verilated.h"

#include <cstring>
#include <new>

using Top = CAT(Vforay_, FORAY_MODEL);

namespace {

struct Model {
  VerilatedContext ctx;
  Top top{&ctx};
};

enum { PORTS = FORAY_PORTS, PORT_BYTES = FORAY_PORT_W / 8 };

// Ports of any width are little-endian bytes in memory.
template <typename T> void get(void *to, const T &from, std::size_t n) { std::memcpy(to, &from, n); }

template <typename T> uint32_t bits(const T &v, int lsb, int n) { // n <= 32 of a packed struct
  const uint32_t *w = reinterpret_cast<const uint32_t *>(&v);
  uint64_t two = w[lsb / 32];
  if (lsb % 32 + n > 32) two |= static_cast<uint64_t>(w[lsb / 32 + 1]) << 32;
  return static_cast<uint32_t>(two >> (lsb % 32) & ((uint64_t{1} << n) - 1));
}

void drive(const Top &t, struct foray_sim_out *out) {
  out->awready = t.s_awready_o, out->wready = t.s_wready_o, out->bvalid = t.s_bvalid_o;
  out->arready = t.s_arready_o, out->rvalid = t.s_rvalid_o, out->rdata = t.s_rdata_o;
  out->irq = t.irq_o;
  out->mem.arvalid = t.m_arvalid_o, out->mem.rready = t.m_rready_o;
  get(out->mem.araddr, t.m_araddr_o, 8 * PORTS);
  get(out->mem.arlen, t.m_arlen_o, PORTS);
  out->mem.awvalid = t.m_awvalid_o, out->mem.wvalid = t.m_wvalid_o, out->mem.wlast = t.m_wlast_o;
  out->mem.bready = t.m_bready_o, out->mem.awaddr = t.m_awaddr_o, out->mem.awlen = t.m_awlen_o;
  out->mem.wstrb = t.m_wstrb_o;
  if (out->mem.wvalid) get(out->mem.wdata, t.m_wdata_o, PORT_BYTES);
  out->cycle = t.cycle_o;
  // foray_pkg::trace_t from its last field on
  out->trace.op = bits(t.trace_o, 99, 1), out->trace.pass = bits(t.trace_o, 98, 1);
  out->trace.token = bits(t.trace_o, 97, 1);
  if (out->trace.op || out->trace.pass || out->trace.token) {
    out->trace.desc = bits(t.trace_o, 84, 13), out->trace.opcode = bits(t.trace_o, 76, 8);
    out->trace.seg = bits(t.trace_o, 72, 4), out->trace.in_test = bits(t.trace_o, 71, 1);
    out->trace.exit = bits(t.trace_o, 68, 3), out->trace.columns = bits(t.trace_o, 64, 4);
    out->trace.position = bits(t.trace_o, 32, 32), out->trace.entry = bits(t.trace_o, 0, 32);
  }
}

void *open_model() { return new (std::nothrow) Model; }
void close_model(void *self) { delete static_cast<Model *>(self); }

void cycle(void *self, const struct foray_sim_in *in, struct foray_sim_out *out) {
  Top &t = static_cast<Model *>(self)->top;
  t.rst_ni = in->rst_n;
  t.s_awvalid_i = in->awvalid, t.s_awaddr_i = in->awaddr, t.s_wvalid_i = in->wvalid, t.s_wdata_i = in->wdata;
  t.s_wstrb_i = 15, t.s_bready_i = in->bready, t.s_arvalid_i = in->arvalid, t.s_araddr_i = in->araddr;
  t.s_rready_i = in->rready;
  t.m_arready_i = in->mem.arready;
  t.m_rvalid_i = in->mem.rvalid;
  uint32_t resp = 0;
  for (int p = 0; p < PORTS; p++)
    if (in->mem.rvalid >> p & 1) {
      std::memcpy(reinterpret_cast<char *>(&t.m_rdata_i) + p * PORT_BYTES, in->mem.rdata[p], PORT_BYTES);
      resp |= static_cast<uint32_t>(in->mem.rresp[p]) << 2 * p;
    }
  t.m_rresp_i = resp;
  t.m_awready_i = in->mem.awready, t.m_wready_i = in->mem.wready;
  t.m_bvalid_i = in->mem.bvalid, t.m_bresp_i = in->mem.bresp;
  t.clk_i = 1;
  t.eval();
  drive(t, out);
  t.clk_i = 0;
  t.eval();
}

} // namespace

extern "C" const struct foray_sim_model CAT(foray_sim_model_, FORAY_MODEL);
const struct foray_sim_model CAT(foray_sim_model_, FORAY_MODEL) = {
    STR(FORAY_MODEL), PORT_BYTES, PORTS, FORAY_COLS, FORAY_SCRATCH_UNITS, open_model, close_model, cycle};
