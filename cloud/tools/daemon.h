/* tools/daemon.h - what the files of forayd share: settings, who may come in, administration. */
#ifndef FORAY_CLOUDTOOLS_DAEMON_H
#define FORAY_CLOUDTOOLS_DAEMON_H

#include "batch/engine_target.h"
#include "cloudapi/cloudapi.h"
#include "core/args.h"
#include "tls/guard.h"
#include "tls/tls.h"
#include "tls/tokens.h"

#include <stdatomic.h>

enum { DAEMON_PORT = 8700, DAEMON_PATH = 4096 };

struct daemon {
  /* settings: command line over environment over file */
  const char *config, *model, *host, *unix_path, *isa, *http, *tls_dir, *journal_path, *client_certs,
      *tokens_path;
  int port, fd, threads, ctx, kv_mb, drain, conns, conns_per_address, sessions, rows, tokens_per_pass,
      prefixes;
  bool quiet, insecure;
  /* parts */
  struct foray_engine_opts engine;
  struct foray_batch_opts batch;
  struct foray_server *server;
  struct foray_cloudapi *api; /* NULL: no --http */
  struct foray_engine_target *target;
  struct foray_batch *sched;
  struct foray_journal *journal; /* NULL: none */
  struct foray_cloud_identity id;
  struct foray_tls *tls;       /* NULL: plain */
  struct foray_tokens *tokens; /* NULL: none are asked for */
  struct foray_guard guard;
  enum foray_tls_client_certs certs;
  char http_host[256];
  int http_port;
  atomic_bool stop;
  int last_percent;
};

/* daemon_config.c: the option table, the file, and checks that need no model. `table` has room for 40 rows.
 */
void daemon_defaults(struct daemon *d);
void daemon_options(struct daemon *d, struct foray_opt *table);
/* Sets options from an INI file: lines `name = value` with the names of the options. FORAY_E_ARG names file
 * and line. */
enum foray_status daemon_config_file(const struct foray_command *cmd, const char *path,
                                     struct foray_err *err) FORAY_NODISCARD;
/* What contradicts itself or would let the world in. */
enum foray_status daemon_check(struct daemon *d, struct foray_err *err) FORAY_NODISCARD;

/* daemon_auth.c: opens TLS and tokens as set; callbacks of link and cloudapi (arg = the daemon). */
enum foray_status daemon_auth_open(struct daemon *d, struct foray_err *err) FORAY_NODISCARD;
/* SIGHUP: certificates anew; with an error the old ones stay. */
enum foray_status daemon_auth_reload(struct daemon *d, struct foray_err *err) FORAY_NODISCARD;
void daemon_auth_close(struct daemon *d);
bool daemon_allow(void *arg, uint64_t address, const char *peer, const char *token,
                  struct foray_hub_grant *g);
bool daemon_authorize(void *arg, uint64_t address, const char *bearer, const char *peer,
                      enum foray_http_scope scope, char *tenant, size_t cap);
bool daemon_route(void *arg, struct foray_http_exchange *x, const char *bearer);

/* daemon_admin.c: forayd init, forayd token. */
int daemon_init(int argc, char **argv);
int daemon_token(int argc, char **argv);

/* daemon_notify.c: systemd's protocols, without its library. */
void daemon_notify(const char *state); /* "READY=1", "STOPPING=1", ...; nothing without NOTIFY_SOCKET */
/* A listening socket passed by socket activation under this FileDescriptorName, or -1. */
int daemon_inherited(const char *name);

#endif
