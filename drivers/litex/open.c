/* From the text behind `litex:` to a transport. */
#include "litex/bus.h"

#include "core/err.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

static const struct {
  long baud;
  speed_t code;
} speeds[] = {{9600, B9600},       {19200, B19200},     {38400, B38400},     {57600, B57600},
              {115200, B115200},   {230400, B230400},   {460800, B460800},   {921600, B921600},
              {1000000, B1000000}, {2000000, B2000000}, {3000000, B3000000}, {4000000, B4000000}};

static enum foray_status open_serial(const char *where, struct foray_litex_bus *out, struct foray_err *err) {
  char path[256];
  const char *at = strrchr(where, '@');
  const size_t n = at ? (size_t)(at - where) : strlen(where);
  long baud = FORAY_LITEX_BAUD;
  if (n >= sizeof path) return foray_err_set(err, FORAY_E_ARG, "the path of the serial device is too long");
  memcpy(path, where, n);
  path[n] = 0;
  if (at) {
    char *end;
    baud = strtol(at + 1, &end, 10);
    if (*end || end == at + 1)
      return foray_err_set(err, FORAY_E_ARG, "'%s' is no speed of a serial line", at + 1);
  }
  speed_t code = 0;
  for (size_t i = 0; i < sizeof speeds / sizeof *speeds; i++)
    if (speeds[i].baud == baud) code = speeds[i].code;
  if (!code)
    return foray_err_set(err, FORAY_E_ARG,
                         "%ld baud is not a speed that this driver sets; 115200, 1000000, 3000000 are", baud);
  const int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    const bool rights = errno == EACCES;
    return foray_err_set(
        err, FORAY_E_IO, "%s: %s%s", path, strerror(errno),
        rights ? "; add yourself to the device's group (usermod -aG dialout USER) and log in again" : "");
  }
  struct termios t;
  if (tcgetattr(fd, &t)) {
    close(fd);
    return foray_err_set(err, FORAY_E_IO, "%s is no serial line", path);
  }
  cfmakeraw(&t);
  t.c_cflag = (t.c_cflag & ~(tcflag_t)(CSTOPB | CRTSCTS)) | CLOCAL | CREAD;
  t.c_cc[VMIN] = 0;
  t.c_cc[VTIME] = 0;
  if (cfsetispeed(&t, code) || cfsetospeed(&t, code) || tcsetattr(fd, TCSANOW, &t)) {
    const int e = errno;
    close(fd);
    return foray_err_set(err, FORAY_E_IO, "%s: %ld baud: %s", path, baud, strerror(e));
  }
  (void)tcflush(fd, TCIOFLUSH);
  return foray_litex_uartbone_open(fd, path, out, err);
}

static enum foray_status open_net(const char *where, const char *rest, int type, const char *default_port,
                                  struct foray_litex_bus *out, struct foray_err *err) {
  char host[256], port[16];
  const char *colon = strrchr(rest, ':');
  const size_t n = colon ? (size_t)(colon - rest) : strlen(rest);
  if (!n || n >= sizeof host || (colon && strlen(colon + 1) >= sizeof port) || (!colon && !default_port))
    return foray_err_set(err, FORAY_E_ARG, "'%s': write udp://HOST[:PORT] or tcp://HOST:PORT", where);
  memcpy(host, rest, n);
  host[n] = 0;
  snprintf(port, sizeof port, "%s", colon ? colon + 1 : default_port);
  struct addrinfo hints = {.ai_socktype = type}, *list = NULL;
  const int e = getaddrinfo(host, port, &hints, &list);
  if (e) return foray_err_set(err, FORAY_E_NET, "%s: %s", where, gai_strerror(e));
  int fd = -1, why = 0;
  for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
    fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen)) {
      why = errno;
      close(fd);
      fd = -1;
    }
  }
  freeaddrinfo(list);
  if (fd < 0) return foray_err_set(err, FORAY_E_NET, "%s: %s", where, strerror(why));
  if (type == SOCK_DGRAM) return foray_litex_etherbone_open(fd, where, out, err);
  const int one = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return foray_litex_uartbone_open(fd, where, out, err);
}

enum foray_status foray_litex_bus_open(const char *where, struct foray_litex_bus *out,
                                       struct foray_err *err) {
  memset(out, 0, sizeof *out);
  char udp_port[8];
  snprintf(udp_port, sizeof udp_port, "%d", FORAY_LITEX_UDP_PORT);
  if (!strncmp(where, "udp://", 6)) return open_net(where, where + 6, SOCK_DGRAM, udp_port, out, err);
  if (!strncmp(where, "tcp://", 6)) return open_net(where, where + 6, SOCK_STREAM, NULL, out, err);
  if (*where == '/') return open_serial(where, out, err);
  return foray_err_set(err, FORAY_E_ARG,
                       "'%s' is no place of a LiteX board; write /dev/ttyUSB0[@BAUD], udp://HOST[:PORT] "
                       "or tcp://HOST:PORT",
                       where);
}
