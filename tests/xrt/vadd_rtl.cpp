// The Verilated vadd as a kernel model of the XRT simulation (sim/xrt/kernel_api.h): drives the ports, one
// clock at a time, and serves the masters from device memory with a cycle of latency.
#include "Vvadd.h"
#include "kernel_api.h"
#include "verilated.h"

#include <memory>

namespace {
struct Unit {
  foray_sim_memory mem;
  VerilatedContext context;
  std::unique_ptr<Vvadd> t{new Vvadd{&context}};
  bool read = false, addressed = false, written = false, ack = false;
  uint64_t waddr = 0;
  uint32_t rdata = 0, wdata = 0;

  void clock() {
    Vvadd &v = *t;
    v.m_arready = !read;
    v.m_rvalid = read;
    v.m_rdata = rdata;
    v.m_awready = !addressed;
    v.m_wready = !written;
    v.m_bvalid = ack;
    v.ap_clk = 0;
    v.eval();
    const bool ar = v.m_arvalid && v.m_arready, r = v.m_rvalid && v.m_rready, b = v.m_bvalid && v.m_bready;
    const uint64_t raddr = v.m_araddr;
    if (v.m_awvalid && v.m_awready) waddr = v.m_awaddr, addressed = true;
    if (v.m_wvalid && v.m_wready) wdata = v.m_wdata, written = true;
    v.ap_clk = 1;
    v.eval();
    if (r) read = false;
    if (ar) mem.read(mem.ctx, raddr, &rdata, 4), read = true;
    if (b) ack = false;
    if (addressed && written) mem.write(mem.ctx, waddr, &wdata, 4), addressed = written = false, ack = true;
  }
  void reset() {
    t->ap_rst_n = 0;
    for (int i = 0; i < 4; i++) clock();
    t->ap_rst_n = 1;
    clock();
  }
  void write(uint32_t at, uint32_t x) {
    t->s_awvalid = t->s_wvalid = 1, t->s_awaddr = at & 0xfff, t->s_wdata = x, t->s_bready = 1;
    clock();
    t->s_awvalid = t->s_wvalid = 0;
    clock();
  }
  uint32_t get(uint32_t at) {
    t->s_arvalid = 1, t->s_araddr = at & 0xfff, t->s_rready = 0;
    clock();
    t->s_arvalid = 0;
    const uint32_t x = t->s_rdata;
    t->s_rready = 1;
    clock();
    return x;
  }
};

void *create(const char *, const struct foray_sim_memory *mem) {
  auto *u = new Unit;
  u->mem = *mem;
  u->reset();
  return u;
}
void destroy(void *k) { delete static_cast<Unit *>(k); }
void reg_write(void *k, uint32_t at, uint32_t v) { static_cast<Unit *>(k)->write(at, v); }
uint32_t reg_read(void *k, uint32_t at) { return static_cast<Unit *>(k)->get(at); }
int step(void *k, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) static_cast<Unit *>(k)->clock();
  return 1;
}
} // namespace

extern "C" __attribute__((visibility("default"))) const struct foray_sim_kernel foray_sim_kernel;
const struct foray_sim_kernel foray_sim_kernel = {
    FORAY_SIM_KERNEL_VERSION, create, destroy, reg_write, reg_read, step};
