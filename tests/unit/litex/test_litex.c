/* The `litex` device against a SoC of our own making on loopback: UART bone over TCP and Etherbone over UDP,
 * in front of the card model. The SoC can be hostile: it loses, doubles, cuts and delays what passes.
 * Programs give the bits of `ref` all the same. */
#include "unit/harness.h"
#include "unit/tiny_program.h"

#include "card/card.h"
#include "core/err.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RAM = 0x40000000, CARD = 0x90000000u, CSR = 0x1000, RAM_BYTES = 1 << 21 };

static struct {
  bool udp;
  int fd, port, line; /* line: the connected TCP socket */
  pthread_t thread;
  atomic_bool stop, dead;
  struct foray_card *card;
  uint8_t *ram;
  uint32_t csr[8], commands[32];
  int n_commands;
  bool memory_up; /* the controller has it */
  int need;       /* commands that must have come before */
  uint32_t wrap;  /* address lines of the memory that are there; 0: all */
  uint32_t type;  /* 0: what the card says */
  int hostile;    /* of 100 packets (bytes, over 1000), how many suffer */
  uint32_t rng;
  _Atomic long hurt;
} soc;

static uint32_t dice(void) {
  soc.rng = soc.rng * 1664525u + 1013904223u;
  return soc.rng >> 8;
}
static bool bad_luck(uint32_t of) {
  const bool hit = soc.hostile && dice() % of < (uint32_t)soc.hostile;
  soc.hurt += hit;
  return hit;
}

static uint32_t *cell(uint32_t addr) {
  uint32_t at = addr - RAM;
  if (soc.wrap) at &= soc.wrap;
  return (uint32_t *)(void *)(soc.ram + at);
}
static uint32_t bus_read(uint32_t addr) {
  if (addr >= RAM && addr < RAM + RAM_BYTES) return soc.memory_up ? *cell(addr) : 0;
  if (addr >= CARD && addr < CARD + FORAY_CARD_REGS_BYTES)
    return soc.type && addr == CARD + FORAY_REG_TYPE ? soc.type : foray_card_read(soc.card, addr - CARD);
  if (addr >= CSR && addr < CSR + 32) return soc.csr[(addr - CSR) / 4];
  return UINT32_MAX; /* nobody answers: the bus error timeout */
}
static void bus_write(uint32_t addr, uint32_t v) {
  if (addr >= RAM && addr < RAM + RAM_BYTES) {
    if (soc.memory_up) *cell(addr) = v;
  } else if (addr >= CARD && addr < CARD + FORAY_CARD_REGS_BYTES)
    foray_card_write(soc.card, addr - CARD, v);
  else if (addr >= CSR && addr < CSR + 32) {
    soc.csr[(addr - CSR) / 4] = v;
    if (addr == CSR + 8 && soc.n_commands < 32) soc.commands[soc.n_commands++] = soc.csr[1];
    if (addr == CSR) soc.memory_up = (v & 1) && soc.n_commands >= soc.need;
  }
}

static uint32_t get32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static void put32(uint8_t *p, uint32_t v) {
  p[0] = (uint8_t)(v >> 24), p[1] = (uint8_t)(v >> 16), p[2] = (uint8_t)(v >> 8), p[3] = (uint8_t)v;
}

/* ---- Etherbone ---- */
static size_t etherbone_answer(const uint8_t *p, size_t len, uint8_t *out) {
  if (len < 12 || p[0] != 0x4e || p[1] != 0x6f) return 0;
  const size_t nw = p[10], nr = p[11], wants = 12 + (nw ? 4 + 4 * nw : 0) + (nr ? 4 + 4 * nr : 0);
  if (len < wants) return 0;
  const uint8_t *q = p + 12;
  if (nw) {
    const uint32_t base = get32(q);
    for (size_t i = 0; i < nw; i++) bus_write(base + 4 * (uint32_t)i, get32(q + 4 + 4 * i));
    q += 4 + 4 * nw;
  }
  if (!nr) return 0;
  memcpy(out, p, 8);
  out[8] = 0, out[9] = 0x0f, out[10] = (uint8_t)nr, out[11] = 0;
  memcpy(out + 12, q, 4);
  for (size_t i = 0; i < nr; i++) put32(out + 16 + 4 * i, bus_read(get32(q + 4 + 4 * i)));
  return 16 + 4 * nr;
}

static void serve_udp(void) {
  static uint8_t in[4096], out[4096], late[4096];
  size_t late_n = 0;
  struct sockaddr_in from;
  while (!soc.stop) {
    struct pollfd p = {.fd = soc.fd, .events = POLLIN};
    if (poll(&p, 1, 20) <= 0) continue;
    socklen_t fl = sizeof from;
    const ssize_t n = recvfrom(soc.fd, in, sizeof in, 0, (struct sockaddr *)&from, &fl);
    if (n <= 0 || soc.dead || bad_luck(100)) continue; /* lost on the way here */
    size_t m = etherbone_answer(in, (size_t)n, out);
    if (bad_luck(100)) m = etherbone_answer(in, (size_t)n, out); /* came twice */
    if (!m || bad_luck(100)) continue;                           /* lost on the way back */
    if (late_n) {                                                /* an old reply, behind time */
      (void)!sendto(soc.fd, late, late_n, 0, (struct sockaddr *)&from, fl);
      late_n = 0;
    }
    if (bad_luck(100)) memcpy(late, out, m), late_n = m;
    (void)!sendto(soc.fd, out, bad_luck(100) ? m - 1 - dice() % 8 : m, 0, (struct sockaddr *)&from, fl);
  }
}

/* ---- UART bone ---- */
static bool byte_in(uint8_t *b) {
  for (int idle = 0; !soc.stop; idle++) {
    struct pollfd p = {.fd = soc.line, .events = POLLIN};
    if (poll(&p, 1, 10) <= 0) {
      if (idle >= 10) return false; /* 100 ms: a half command is forgotten */
      continue;
    }
    if (read(soc.line, b, 1) != 1) {
      soc.dead = true;
      return false;
    }
    if (!bad_luck(2000)) return true;
    idle = 0;
  }
  return false;
}
static bool word_in(uint32_t *v) {
  uint8_t b[4];
  for (int i = 0; i < 4; i++)
    if (!byte_in(&b[i])) return false;
  *v = get32(b);
  return true;
}
static void serve_line(void) {
  soc.line = accept(soc.fd, NULL, NULL);
  const int one = 1;
  (void)setsockopt(soc.line, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  while (!soc.stop && !soc.dead) {
    uint8_t cmd, n;
    uint32_t addr, v;
    if (!byte_in(&cmd)) continue;
    if (!byte_in(&n) || !word_in(&addr)) continue;
    for (uint32_t i = 0; i < n && (cmd == 1 || cmd == 2); i++) {
      if (cmd == 1) {
        if (!word_in(&v)) break;
        bus_write(4 * (addr + i), v);
        continue;
      }
      uint8_t b[4];
      put32(b, bus_read(4 * (addr + i)));
      size_t kept = 0;
      for (int k = 0; k < 4; k++)
        if (!bad_luck(4000)) b[kept++] = b[k];
      (void)!write(soc.line, b, kept);
    }
  }
  if (soc.line >= 0) close(soc.line);
}

static void *serve(void *arg) {
  (void)arg;
  if (soc.udp)
    serve_udp();
  else
    serve_line();
  return NULL;
}

static char map_file[] = "/tmp/foray-litex-XXXXXX";
static char spec[256];

static void start(bool udp, int hostile) {
  memset(&soc, 0, sizeof soc);
  soc.udp = udp, soc.hostile = hostile, soc.need = 3, soc.line = -1, soc.rng = 7;
  soc.ram = aligned_alloc(64, RAM_BYTES);
  CU_ASSERT_PTR_NOT_NULL_FATAL(soc.ram);
  memset(soc.ram, 0, RAM_BYTES);
  struct foray_err err = {0};
  const struct foray_card_opts o = {.device = "ref", .mem = soc.ram, .mem_bytes = RAM_BYTES, .mem_base = RAM};
  CU_ASSERT_EQUAL_FATAL(foray_card_open(&o, &soc.card, &err), FORAY_OK);
  soc.fd = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof a;
  CU_ASSERT_EQUAL_FATAL(bind(soc.fd, (struct sockaddr *)&a, sizeof a), 0);
  if (!udp) CU_ASSERT_EQUAL_FATAL(listen(soc.fd, 1), 0);
  CU_ASSERT_EQUAL_FATAL(getsockname(soc.fd, (struct sockaddr *)&a, &len), 0);
  soc.port = ntohs(a.sin_port);
  CU_ASSERT_EQUAL_FATAL(pthread_create(&soc.thread, NULL, serve, NULL), 0);
  snprintf(spec, sizeof spec, "litex:%s://127.0.0.1:%d,map=%s", udp ? "udp" : "tcp", soc.port, map_file);
}

static void stop(void) {
  soc.stop = true;
  if (!soc.udp) shutdown(soc.fd, SHUT_RDWR);
  pthread_join(soc.thread, NULL);
  close(soc.fd);
  foray_card_close(soc.card);
  free(soc.ram);
}

static void write_map(bool good) {
  static bool made;
  if (!made) {
    const int fd = mkstemp(map_file);
    CU_ASSERT_FATAL(fd >= 0);
    close(fd);
    made = true;
  }
  FILE *f = fopen(map_file, "w");
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  if (good)
    fprintf(f,
            "{\"format\": 1, \"board\": \"loop\", \"config\": \"tiny\", \"memory\": \"SDR\", \"clock_hz\": "
            "50000000, "
            "\"foray\": %u, "
            "\"ram\": %d, \"ram_bytes\": %d, \"csr\": {\"sdram_dfii_control\": %d, "
            "\"sdram_dfii_pi0_command\": %d, "
            "\"sdram_dfii_pi0_command_issue\": %d, \"sdram_dfii_pi0_address\": %d, "
            "\"sdram_dfii_pi0_baddress\": %d}, "
            "\"sdram_init\": ["
            "{\"address\": 0, \"bank\": 0, \"command\": 0, \"control\": 14, \"delay_cycles\": 20000},"
            "{\"address\": 1024, \"bank\": 0, \"command\": 11, \"control\": 0, \"delay_cycles\": 0},"
            "{\"address\": 288, \"bank\": 0, \"command\": 15, \"control\": 0, \"delay_cycles\": 200},"
            "{\"address\": 0, \"bank\": 0, \"command\": 13, \"control\": 0, \"delay_cycles\": 4}]}\n",
            CARD, RAM, RAM_BYTES, CSR, CSR + 4, CSR + 8, CSR + 12, CSR + 16);
  else
    fputs("{\"format\": 1, \"board\": 7}\n", f);
  fclose(f);
}

static const uint32_t prompt[] = {3, 50, 7, 99, 21, 0, 64, 8, 77, 31, 12, 5};
enum { P = sizeof prompt / sizeof *prompt };

/* Bytes that differ, but for those words where open has tested the memory and nothing has been written since.
 */
static int differ(const uint8_t *x, const uint8_t *y) {
  int n = 0;
  for (size_t i = 0; i < TINY_HEAP; i++) n += x[i] != y[i] && x[i] != 0;
  return n;
}

static void equal_to_ref(void) {
  static struct tiny a, b;
  static uint8_t x[TINY_HEAP], y[TINY_HEAP];
  CU_ASSERT_TRUE_FATAL(tiny_open(&a, "ref", 5, 1));
  if (!tiny_open(&b, spec, 5, 1)) {
    printf("%s: %s\n", spec, b.err.msg);
    CU_FAIL("the board cannot be opened");
    tiny_close(&a);
    return;
  }
  struct tiny *both[2] = {&a, &b};
  for (int k = 0; k < 2; k++) {
    both[k]->run.tests = 3;
    both[k]->run.exit_rule[0] = -52428, both[k]->run.exit_rule[1] = 65536;
    CU_ASSERT_EQUAL(tiny_run(both[k], prompt, P, 0, 9), FORAY_OK);
    CU_ASSERT_EQUAL(tiny_run(both[k], prompt + 2, 3, 7, 5), FORAY_OK); /* rollback */
    both[k]->run.step_limit = 20;
    CU_ASSERT_EQUAL(tiny_run(both[k], prompt, P, 0, 9), FORAY_E_DEVICE);
  }
  CU_ASSERT_EQUAL(a.res.error, b.res.error);
  CU_ASSERT_EQUAL(a.res.error_desc, b.res.error_desc);
  CU_ASSERT_EQUAL(foray_dev_download(a.d, 0, x, TINY_HEAP, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_download(b.d, 0, y, TINY_HEAP, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(differ(x, y), 0);
  uint64_t ca[FORAY_COUNTER_COUNT], cb[FORAY_COUNTER_COUNT];
  foray_dev_counters(a.d, ca);
  foray_dev_counters(b.d, cb);
  CU_ASSERT_EQUAL(ca[FORAY_COUNTER_DRAFTED], cb[FORAY_COUNTER_DRAFTED]);
  CU_ASSERT_EQUAL(ca[FORAY_COUNTER_WEIGHT_BYTES], cb[FORAY_COUNTER_WEIGHT_BYTES]);
  tiny_close(&a);
  tiny_close(&b);
}

TEST(etherbone_gives_the_bits_of_ref) {
  write_map(true);
  start(true, 0);
  equal_to_ref();
  CU_ASSERT_EQUAL(soc.n_commands, 3); /* the memory was brought up, once */
  CU_ASSERT_EQUAL(soc.commands[0], 11);
  CU_ASSERT_EQUAL(soc.commands[1], 15);
  CU_ASSERT_EQUAL(soc.commands[2], 13);
  equal_to_ref();
  CU_ASSERT_EQUAL(soc.n_commands, 3); /* a second host leaves it alone */
  stop();
}
TEST(etherbone_survives_a_hostile_network) {
  write_map(true);
  start(true, 1);
  equal_to_ref();
  CU_ASSERT(soc.hurt > 10);
  stop();
}
TEST(uart_bone_gives_the_bits_of_ref) {
  write_map(true);
  start(false, 0);
  equal_to_ref();
  stop();
}
/* Bytes get lost; the heap is most of the traffic, so a few per cent of the bursts suffer. */
TEST(uart_bone_survives_lost_bytes) {
  write_map(true);
  start(false, 1);
  soc.hostile = 1;
  struct foray_err err = {0};
  struct foray_dev *d;
  CU_ASSERT_EQUAL_FATAL(foray_dev_open(spec, NULL, &d, &err), FORAY_OK);
  static uint8_t out[20000], in[20000];
  for (size_t i = 0; i < sizeof out; i++) out[i] = (uint8_t)(i * i >> 3);
  CU_ASSERT_EQUAL(foray_dev_upload(d, 4099, out, sizeof out, &err), FORAY_OK); /* neither end on a word */
  CU_ASSERT_EQUAL(foray_dev_download(d, 4099, in, sizeof in, &err), FORAY_OK);
  CU_ASSERT_EQUAL(memcmp(in, out, sizeof in), 0);
  CU_ASSERT(soc.hurt > 3);
  foray_dev_close(d);
  stop();
}

static void refused(enum foray_status code, const char *text) {
  struct foray_err err = {0};
  struct foray_dev *d = NULL;
  CU_ASSERT_EQUAL(foray_dev_open(spec, NULL, &d, &err), code);
  if (!strstr(err.msg, text)) {
    printf("'%s' is not in: %s\n", text, err.msg);
    CU_FAIL("another error text was expected");
  }
  foray_dev_close(d);
}

TEST(what_cannot_work_is_said) {
  write_map(true);
  start(true, 0);
  soc.type = 0x12345678;
  refused(FORAY_E_FORMAT, "TYPE");
  soc.type = 0;
  soc.memory_up = false, soc.need = 99, soc.csr[0] = 0;
  refused(FORAY_E_DEVICE, "not initialised");
  soc.need = 0, soc.csr[0] = 0, soc.wrap = (RAM_BYTES >> 1) - 1;
  refused(FORAY_E_DEVICE, "smaller than said");
  soc.wrap = 0;
  char keep[256];
  snprintf(keep, sizeof keep, "%s", spec);
  snprintf(spec, sizeof spec, "litex:udp://127.0.0.1:%d,map=/nonexistent.json", soc.port);
  refused(FORAY_E_IO, "/nonexistent.json");
  snprintf(spec, sizeof spec, "litex:udp://127.0.0.1:%d", soc.port);
  refused(FORAY_E_ARG, "FORAY_LITEX_MAP");
  snprintf(spec, sizeof spec, "litex:carrier-pigeon,map=%s", map_file);
  refused(FORAY_E_ARG, "carrier-pigeon");
  snprintf(spec, sizeof spec, "litex:/dev/null,map=%s", map_file);
  refused(FORAY_E_IO, "no serial line");
  snprintf(spec, sizeof spec, "%s", keep);
  write_map(false);
  refused(FORAY_E_FORMAT, "board");
  write_map(true);
  CU_ASSERT_EQUAL(soc.n_commands > 0, true);
  stop();
}

TEST(a_board_that_falls_silent_is_a_timeout) {
  write_map(true);
  start(true, 0);
  struct foray_err err = {0};
  struct foray_dev *d;
  CU_ASSERT_EQUAL_FATAL(foray_dev_open(spec, NULL, &d, &err), FORAY_OK);
  soc.dead = true;
  uint32_t w = 0;
  CU_ASSERT_EQUAL(foray_dev_upload(d, 64, &w, 4, &err), FORAY_E_TIMEOUT);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "attempts"));
  foray_dev_close(d);
  stop();
  unlink(map_file);
}
