/* foray enroll: joins this board to a cloud. */
#include "core/args.h"
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"
#include "http/server.h"
#include "tls/enroll.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int cmd_enroll(int argc, char **argv) {
  const char *token = NULL, *fingerprint = NULL, *dir = NULL;
  const struct foray_opt opts[] = {
      {"token", 0, FORAY_OPT_STR, &token, "TOKEN",
       "token of scope enroll: forayd token add NAME --scope enroll", 0, 0},
      {"fingerprint", 0, FORAY_OPT_STR, &fingerprint, "HEX", "of the cloud's CA, shown with the token", 0, 0},
      {"dir", 0, FORAY_OPT_STR, &dir, "DIR", "where keys go (default ~/.config/foray/tls)", 0, 0},
      {0}};
  const struct foray_command cmd = {
      "foray enroll", "HOST:PORT --token TOKEN --fingerprint HEX",
      "Join this board to a cloud: makes a key, has it signed, keeps the certificate.", opts,
      "HOST:PORT is the HTTPS port of forayd (--http). The key never leaves this machine; the token works "
      "once.\n"
      "Afterwards: foray generate -m MODEL --cloud HOST:PORT"};
  struct foray_err err = {0};
  int rest, port;
  char host[256], own[4096];
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (rest + 1 != argc || !token || !fingerprint) {
    foray_err_set(&err, FORAY_E_ARG, "HOST:PORT, --token and --fingerprint are needed");
    return tool_fail(cmd.name, &err);
  }
  if (foray_http_address(argv[rest], host, sizeof host, &port, &err)) return tool_fail(cmd.name, &err);
  if (!dir) {
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char parent[4000];
    snprintf(parent, sizeof parent, "%s%s",
             config && *config ? config
             : home            ? home
                               : "",
             config && *config ? "" : "/.config");
    (void)mkdir(parent, 0700);
    snprintf(own, sizeof own, "%s/foray", parent);
    (void)mkdir(own, 0700); /* what fails here fails again below, with a message */
    snprintf(own, sizeof own, "%s/foray/tls", parent);
    dir = own;
  }
  if (foray_enroll(host, port, token, fingerprint, dir, &err)) return tool_fail(cmd.name, &err);
  printf("enrolled: certificate in %s\n", dir);
  return TOOL_EXIT_OK;
}
