#include "mem.h"

#include "dram.h"

#include <stdlib.h>
#include <string.h>

enum { BURSTS = 64, PARTS = 256, WRITES = 16 };

/* A read burst of a port; part k is its k-th DRAM access. */
struct burst {
  uint64_t addr, first; /* first byte; start of the first access */
  uint32_t beats, given, parts, pushed;
  bool bad;
  uint64_t done[PARTS]; /* UINT64_MAX: under way */
};

struct port {
  struct burst q[BURSTS];
  uint32_t head, n;
  bool rvalid; /* a beat is on the bus until it is taken */
};

struct foray_mem {
  struct foray_mem_cfg cfg;
  uint8_t *heap;
  uint64_t bytes, base, now;
  uint64_t rng;
  struct port port[FORAY_MEM_PORTS];
  uint32_t turn; /* port whose accesses go first */
  struct foray_channel ch;
  struct foray_mem_stats stats;
  /* the write that is coming in, responses that go out */
  bool aw;
  uint64_t waddr;
  uint32_t wbeats;
  bool wbad;
  struct {
    uint64_t at;
    bool bad;
  } b[WRITES];
  uint32_t b_head, b_n;
  uint64_t wpost[64]; /* DRAM accesses of writes that wait for room in the channel */
  uint32_t wpost_n;
  uint32_t bad_read, bad_write, dead_after;
  uint64_t dead_until; /* answers nothing before */
};

bool foray_mem_preset(const char *name, struct foray_mem_cfg *cfg) {
  static const struct foray_mem_cfg presets[] = {
      {.name = "ideal", .latency = 4, .outstanding = 64},
      {.name = "ddr4", .latency = 24, .outstanding = 16, .window = 64, .dram = {1200, 64,   8192, 4,  4,  4,
                                                                                17,   12,   17,   17, 39, 4,
                                                                                6,    4,    6,    26, 9,  18,
                                                                                9,    9360, 420}},
      {.name = "lpddr4",
       .latency = 24,
       .outstanding = 16,
       .window = 48,
       .dram = {1600, 64, 4096, 1, 8, 8, 28, 14, 29, 29, 68, 8, 8, 16, 16, 64, 12, 29, 16, 6240, 448}},
      {.name = "sdr", .latency = 2, .outstanding = 4, .window = 8, .dram = {0, 16, 1024, 1, 4, 8,   3,
                                                                            0, 2,  2,    5, 8, 8,   2,
                                                                            2, 8,  8,    2, 1, 780, 7}},
      {.name = "hbm", .latency = 40, .outstanding = 32, .window = 64, .dram = {1000, 32,   1024, 4,  4,  2,
                                                                               14,   4,    14,   14, 33, 2,
                                                                               4,    4,    4,    16, 5,  16,
                                                                               8,    3900, 260}},
  };
  for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
    if (!strcmp(name, presets[i].name)) {
      *cfg = presets[i];
      return true;
    }
  return false;
}

static uint32_t rnd(struct foray_mem *m) { /* xorshift64* */
  m->rng ^= m->rng >> 12, m->rng ^= m->rng << 25, m->rng ^= m->rng >> 27;
  return (uint32_t)((m->rng * UINT64_C(0x2545F4914F6CDD1D)) >> 32);
}
static bool held(struct foray_mem *m) { return m->cfg.stall && rnd(m) % 100 < m->cfg.stall; }

static bool dead(const struct foray_mem *m) { return m->now < m->dead_until; }

static bool dram(const struct foray_mem *m) { return m->cfg.dram.access != 0; }

static double ratio(const struct foray_mem *m) {
  return m->cfg.dram.mhz != 0 ? m->cfg.dram.mhz / m->cfg.core_mhz : 1;
}

void foray_mem_reset(struct foray_mem *m) {
  memset(m->port, 0, sizeof m->port);
  m->aw = false, m->wbeats = 0, m->b_n = m->b_head = 0, m->wpost_n = 0, m->dead_until = 0;
  if (dram(m)) {
    uint64_t a = m->ch.accesses, r = m->ch.row_misses;
    foray_channel_init(&m->ch, &m->cfg.dram, ratio(m), m->cfg.latency, m->cfg.window);
    m->ch.accesses = a, m->ch.row_misses = r;
    m->ch.refresh = (double)m->now * ratio(m) + m->cfg.dram.refi;
  }
}

struct foray_mem *foray_mem_new(const struct foray_mem_cfg *cfg, uint8_t *heap, uint64_t bytes,
                                uint64_t base) {
  struct foray_mem *m = calloc(1, sizeof *m);
  if (!m) return NULL;
  m->cfg = *cfg;
  m->heap = heap, m->bytes = bytes, m->base = base;
  m->rng = cfg->seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
  if (m->cfg.outstanding < 1 || m->cfg.outstanding > BURSTS) m->cfg.outstanding = BURSTS;
  foray_mem_fault(m, cfg->bad_read, cfg->bad_write, cfg->dead_after);
  foray_mem_reset(m);
  return m;
}

void foray_mem_free(struct foray_mem *m) { free(m); }

void foray_mem_fault(struct foray_mem *m, uint32_t bad_read, uint32_t bad_write, uint32_t dead_after) {
  m->bad_read = bad_read, m->bad_write = bad_write, m->dead_after = dead_after;
}

const struct foray_mem_stats *foray_mem_stats(const struct foray_mem *m) { return &m->stats; }

double foray_mem_peak(const struct foray_mem *m) {
  double ports = (double)m->cfg.ports * m->cfg.port_bytes;
  if (!dram(m)) return ports;
  double chip = m->cfg.dram.access / (double)m->cfg.dram.burst * ratio(m);
  return chip < ports ? chip : ports;
}

static bool inside(const struct foray_mem *m, uint64_t addr, uint64_t n) {
  return addr >= m->base && n <= m->bytes && addr - m->base <= m->bytes - n;
}

static void take_read(struct foray_mem *m, struct port *p, uint64_t addr, uint32_t beats) {
  struct burst *b = &p->q[(p->head + p->n++) % BURSTS];
  uint32_t step = dram(m) ? m->cfg.dram.access : 64;
  uint64_t bytes = (uint64_t)beats * m->cfg.port_bytes;
  b->addr = addr, b->first = addr - addr % step, b->beats = beats, b->given = 0, b->pushed = 0;
  b->parts = (uint32_t)((addr + bytes - b->first + step - 1) / step);
  if (b->parts > PARTS) b->parts = PARTS; /* not reached: a burst is 4 KiB at most */
  b->bad = !inside(m, addr, bytes) || (m->bad_read && --m->bad_read == 0);
  if (m->dead_after && --m->dead_after == 0) m->dead_until = m->now + m->cfg.dead_for;
  uint64_t late = m->cfg.jitter ? rnd(m) % (m->cfg.jitter + 1) : 0;
  for (uint32_t k = 0; k < b->parts; k++)
    b->done[k] = dram(m) && !b->bad ? UINT64_MAX : m->now + m->cfg.latency + late;
  if (b->bad) b->pushed = b->parts;
}

/* Accesses of the ports' oldest bursts go into the controller's window, one port after the other. */
static void feed_channel(struct foray_mem *m) {
  while (m->wpost_n) {
    if (!foray_channel_push(&m->ch, m->wpost[0], NULL)) break;
    memmove(m->wpost, m->wpost + 1, --m->wpost_n * sizeof *m->wpost);
  }
  for (uint32_t k = 0; k < m->cfg.ports; k++) {
    struct port *p = &m->port[(m->turn + k) % m->cfg.ports];
    for (uint32_t i = 0; i < p->n; i++) {
      struct burst *b = &p->q[(p->head + i) % BURSTS];
      while (b->pushed < b->parts) {
        if (!foray_channel_push(&m->ch, b->first - m->base + (uint64_t)b->pushed * m->cfg.dram.access,
                                &b->done[b->pushed]))
          return;
        b->pushed++;
      }
    }
  }
  m->turn = (m->turn + 1) % m->cfg.ports;
}

static void read_port(struct foray_mem *m, uint32_t i, const struct foray_pins_out *out,
                      struct foray_pins_in *in) {
  struct port *p = &m->port[i];
  in->arready &= ~(1u << i), in->rvalid &= ~(1u << i);
  if (p->n < m->cfg.outstanding && !dead(m) && !held(m)) {
    in->arready |= 1u << i;
    if (out->arvalid >> i & 1) take_read(m, p, out->araddr[i], out->arlen[i] + 1u);
  }
  if (!p->n || dead(m)) return;
  struct burst *b = &p->q[p->head];
  uint64_t at = b->addr + (uint64_t)b->given * m->cfg.port_bytes;
  uint32_t step = dram(m) ? m->cfg.dram.access : 64;
  uint32_t part =
      (uint32_t)((at + m->cfg.port_bytes - 1 - b->first) / step); /* the last one that the beat needs */
  if (b->done[part] > m->now) return;
  if (!p->rvalid && held(m)) return;
  p->rvalid = true;
  in->rvalid |= 1u << i;
  in->rresp[i] = b->bad ? (inside(m, at, m->cfg.port_bytes) ? 2 : 3) : 0;
  if (inside(m, at, m->cfg.port_bytes)) memcpy(in->rdata[i], m->heap + (at - m->base), m->cfg.port_bytes);
  if (!(out->rready >> i & 1)) return;
  p->rvalid = false;
  m->stats.read_bytes += m->cfg.port_bytes;
  if (++b->given == b->beats) p->head = (p->head + 1) % BURSTS, p->n--;
}

static void write_port(struct foray_mem *m, const struct foray_pins_out *out, struct foray_pins_in *in) {
  in->bvalid = m->b_n && m->b[m->b_head].at <= m->now && !dead(m);
  if (in->bvalid) {
    in->bresp = m->b[m->b_head].bad ? 2 : 0;
    if (out->bready) m->b_head = (m->b_head + 1) % WRITES, m->b_n--;
  }
  in->awready = !m->aw && m->b_n < WRITES && m->wpost_n < 32 && !dead(m) && !held(m);
  in->wready = m->aw && !dead(m) && !held(m);
  if (in->wready && out->wvalid) {
    if (!m->wbad && inside(m, m->waddr, m->cfg.port_bytes))
      for (uint32_t k = 0; k < m->cfg.port_bytes; k++)
        if (out->wstrb >> k & 1) m->heap[m->waddr - m->base + k] = out->wdata[k], m->stats.write_bytes++;
    m->waddr += m->cfg.port_bytes;
    if (--m->wbeats == 0) {
      m->aw = false;
      m->b[(m->b_head + m->b_n++) % WRITES].at = m->now + m->cfg.latency;
      m->b[(m->b_head + m->b_n - 1) % WRITES].bad = m->wbad;
    }
  } else if (in->awready && out->awvalid) {
    m->aw = true;
    m->waddr = out->awaddr;
    m->wbeats = out->awlen + 1u;
    uint64_t n = (uint64_t)m->wbeats * m->cfg.port_bytes;
    m->wbad = !inside(m, m->waddr, n) || (m->bad_write && --m->bad_write == 0);
    if (dram(m) && !m->wbad)
      for (uint64_t a = 0; a < n && m->wpost_n < 64; a += m->cfg.dram.access)
        m->wpost[m->wpost_n++] = m->waddr - m->base + a;
  }
}

void foray_mem_cycle(struct foray_mem *m, const struct foray_pins_out *out, struct foray_pins_in *in) {
  for (uint32_t i = 0; i < m->cfg.ports; i++) read_port(m, i, out, in);
  write_port(m, out, in);
  if (dram(m)) {
    feed_channel(m);
    foray_channel_cycle(&m->ch, m->now);
    m->stats.accesses = m->ch.accesses, m->stats.row_misses = m->ch.row_misses;
    m->stats.refreshes = m->ch.refreshes, m->stats.stolen = (uint64_t)(m->ch.stolen / ratio(m));
  }
  m->now++;
  m->stats.cycles = m->now;
}
