#include "cloudtools/daemon.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

void daemon_notify(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  if (!path || !*path || strlen(path) >= sizeof sa.sun_path) return;
  memcpy(sa.sun_path, path, strlen(path));
  if (sa.sun_path[0] == '@') sa.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  (void)!sendto(fd, state, strlen(state), 0, (struct sockaddr *)&sa,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
  close(fd);
}

int daemon_inherited(const char *name) {
  const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
  if (!pid || !count || strtol(pid, NULL, 10) != (long)getpid()) return -1;
  const long n = strtol(count, NULL, 10);
  const size_t len = strlen(name);
  for (long i = 0; names && i < n; i++) {
    const size_t k = strcspn(names, ":");
    if (k == len && !strncmp(names, name, len)) return (int)(FIRST_FD + i);
    names += k + (names[k] == ':');
  }
  return -1;
}
