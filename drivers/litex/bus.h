/* litex/bus.h - 32-bit words of a LiteX SoC's bus over a serial line or over Ethernet.
 *
 *   struct foray_litex_bus bus;
 *   if (foray_litex_bus_open("udp://192.168.1.50", &bus, &err)) return err.code;
 *   bus.write(bus.self, 0x40000000, words, n, &err);
 *   bus.read(bus.self, 0x40000000, words, n, &err);
 *   bus.close(bus.self);
 *
 * Both transports survive lost, doubled, late and cut packets or bytes: each transfer is confirmed by what
 * the SoC sends back, and repeated until it is. So a write may reach the SoC more than once; write only what
 * may be written twice. After `tries` attempts in vain the call ends with FORAY_E_TIMEOUT.
 *
 * Protocols (facts from LiteX 2024.12, litex/tools/remote and litex/soc/cores/uart.py): UART bone sends
 * command (1 write, 2 read), word count, word address and words, big endian; the SoC forgets a half command
 * after 100 ms. Etherbone is UDP to port 1234: packet header 4e6f 10 44 00000000, records of {flags, byte
 * enables, writes, reads}.
 *
 * Thread rule: one caller at a time. */
#ifndef FORAY_LITEX_BUS_H
#define FORAY_LITEX_BUS_H

#include <foray/status.h>
#include <stddef.h>
#include <stdint.h>

struct foray_litex_bus {
  void *self; /* owned; NULL when closed */
  /* n words from or to byte address addr (a multiple of 4). */
  enum foray_status (*read)(void *self, uint32_t addr, uint32_t *out, size_t n, struct foray_err *err);
  enum foray_status (*write)(void *self, uint32_t addr, const uint32_t *in, size_t n, struct foray_err *err);
  void (*close)(void *self);
  uint64_t *repeats; /* transfers that had to be repeated, for tests and statistics */
};

enum {
  FORAY_LITEX_TRIES = 6,       /* attempts of one transfer */
  FORAY_LITEX_REPLY_MS = 60,   /* longest wait for a reply of the first attempt; doubled up to 2 s */
  FORAY_LITEX_UDP_PORT = 1234, /* Etherbone's */
  FORAY_LITEX_BAUD = 1000000,  /* of our SoCs */
};

/* where: "/dev/ttyUSB0", "/dev/ttyUSB0@115200" (a serial device), "tcp://HOST:PORT" (a serial line over TCP,
 * as simulators and terminal servers offer), "udp://HOST" or "udp://HOST:PORT" (Etherbone). FORAY_E_ARG,
 * FORAY_E_IO, FORAY_E_NET. */
enum foray_status foray_litex_bus_open(const char *where, struct foray_litex_bus *out, struct foray_err *err)
    __attribute__((warn_unused_result));

/* The two transports over a descriptor that is already open (owned from then on, also on failure). */
enum foray_status foray_litex_uartbone_open(int fd, const char *name, struct foray_litex_bus *out,
                                            struct foray_err *err) __attribute__((warn_unused_result));
enum foray_status foray_litex_etherbone_open(int fd, const char *name, struct foray_litex_bus *out,
                                             struct foray_err *err) __attribute__((warn_unused_result));

#endif
