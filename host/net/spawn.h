/* net/spawn.h - starts a server program with one end of a socket pair. Internal to net. */
#ifndef FORAY_NET_SPAWN_H
#define FORAY_NET_SPAWN_H

#include <foray/status.h>
#include <stdbool.h>
#include <sys/types.h>

/* Runs `program -m model --fd N args...`; the child gets SIGTERM when the calling thread ends. *fd: our
 * end, non-blocking, close-on-exec. program NULL: forayd beside the running program, else from PATH. */
enum foray_status foray_spawn(const char *program, const char *model, const char *const *args, bool quiet,
                              int *fd, pid_t *pid, struct foray_err *err) FORAY_NODISCARD;
/* Waits up to ms for the child to end by itself (its stream has been closed), then kills it; reaps it. */
void foray_spawn_reap(pid_t pid, int ms);

#endif
