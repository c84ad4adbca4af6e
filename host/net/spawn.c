#include "net/spawn.h"

#include "core/err.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ARGS_MAX = 64, CHILD_FD = 3 };

static void beside_self(char *out, size_t cap) {
  ssize_t n = readlink("/proc/self/exe", out, cap - 1);
  out[n > 0 ? n : 0] = 0;
  char *slash = strrchr(out, '/');
  if (!slash || (size_t)(slash - out) + sizeof "/forayd" > cap) {
    out[0] = 0;
    return;
  }
  memcpy(slash, "/forayd", sizeof "/forayd");
  if (access(out, X_OK) != 0) out[0] = 0;
}

enum foray_status foray_spawn(const char *program, const char *model, const char *const *args, bool quiet,
                              int *fd, pid_t *pid, struct foray_err *err) {
  char path[4096];
  if (program)
    snprintf(path, sizeof path, "%s", program);
  else
    beside_self(path, sizeof path);
  if (!path[0]) snprintf(path, sizeof path, "forayd");
  char num[16];
  snprintf(num, sizeof num, "%d", CHILD_FD);
  const char *argv[ARGS_MAX] = {path, "-m", model, "--fd", num};
  int n = 5;
  for (; args && *args && n < ARGS_MAX - 1; args++) argv[n++] = *args;
  int sv[2], report[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0)
    return foray_err_set(err, FORAY_E_NET, "socket pair: %s", strerror(errno));
  if (pipe2(report, O_CLOEXEC) != 0) {
    close(sv[0]);
    close(sv[1]);
    return foray_err_set(err, FORAY_E_NET, "pipe: %s", strerror(errno));
  }
  pid_t parent = getpid(), p = fork();
  if (p == 0) { /* only async-signal-safe calls from here on */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the foreground program, which ends us by closing the stream */
    signal(SIGPIPE, SIG_DFL);
    if (getppid() != parent) _exit(1);
    if (quiet) {
      int null = open("/dev/null", O_WRONLY);
      if (null >= 0) dup2(null, 2);
    }
    int out = fcntl(report[1], F_DUPFD_CLOEXEC, CHILD_FD + 1),
        end = fcntl(sv[1], F_DUPFD_CLOEXEC, CHILD_FD + 1);
    if (out >= 0 && end >= 0 && dup2(end, CHILD_FD) >= 0) execvp(path, (char *const *)(uintptr_t)argv);
    int e = errno;
    (void)!write(out, &e, sizeof e);
    _exit(127);
  }
  close(sv[1]);
  close(report[1]);
  int e = p < 0 ? errno : 0;
  if (p > 0 && read(report[0], &e, sizeof e) != sizeof e) e = 0;
  close(report[0]);
  if (e) {
    close(sv[0]);
    if (p > 0) waitpid(p, NULL, 0);
    return foray_err_set(err, e == ENOENT ? FORAY_E_NOTFOUND : FORAY_E_NET, "cannot start '%s': %s", path,
                         strerror(e));
  }
  fcntl(sv[0], F_SETFL, fcntl(sv[0], F_GETFL) | O_NONBLOCK);
  *fd = sv[0];
  *pid = p;
  return FORAY_OK;
}

void foray_spawn_reap(pid_t pid, int ms) {
  for (int i = 0; i < ms; i += 5) {
    if (waitpid(pid, NULL, WNOHANG) != 0) return; /* gone, or not ours any more */
    nanosleep(&(struct timespec){0, 5000000}, NULL);
  }
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}
