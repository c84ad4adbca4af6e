#include "core/err.h"
#include "cloudtools/daemon.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void daemon_defaults(struct daemon *d) {
  *d = (struct daemon){
      .port = -1, .fd = -1, .ctx = 4096, .drain = 10, .client_certs = "optional", .last_percent = -1};
  d->engine = foray_engine_opts_default();
}

void daemon_options(struct daemon *d, struct foray_opt *table) {
  const struct foray_opt opts[] = {
      {"model", 'm', FORAY_OPT_STR, &d->model, "NAME|FILE", "model to serve", 0, 0},
      {"config", 0, FORAY_OPT_STR, &d->config, "FILE", "read settings from FILE (forayd check-config FILE)",
       0, 0},
      {"host", 0, FORAY_OPT_STR, &d->host, "HOST", "address to listen on (127.0.0.1)", 0, 0},
      {"port", 0, FORAY_OPT_INT, &d->port, "N", "TCP port (8700; 0: any free one)", 0, 65535},
      {"unix", 0, FORAY_OPT_STR, &d->unix_path, "PATH", "listen on a Unix socket instead", 0, 0},
      {"http", 0, FORAY_OPT_STR, &d->http, "[HOST:]PORT",
       "serve the OpenAI API, /metrics and /health over HTTP too (host 127.0.0.1; port 0: any free one)", 0,
       0},
      {"tls", 0, FORAY_OPT_STR, &d->tls_dir, "DIR", "TLS 1.3 on all TCP ports; folder of forayd init", 0, 0},
      {"client-certs", 0, FORAY_OPT_STR, &d->client_certs, "WHEN",
       "none, optional or required: certificates of our CA (optional)", 0, 0},
      {"tokens", 0, FORAY_OPT_STR, &d->tokens_path, "FILE", "access tokens; see forayd token", 0, 0},
      {"journal", 0, FORAY_OPT_STR, &d->journal_path, "FILE",
       "commit log (SQLite): sessions survive a restart; holds prompts and texts as ids", 0, 0},
      {"insecure", 0, FORAY_OPT_FLAG, &d->insecure, NULL,
       "plain TCP, or no authentication, on other addresses than this machine's own", 0, 0},
      {"fd", 0, FORAY_OPT_INT, &d->fd, "N", "serve one inherited, connected stream and end with it", 0,
       1 << 20},
      {"threads", 't', FORAY_OPT_INT, &d->threads, "N", "threads (0: one per processor)", 0, 1024},
      {"ctx-size", 'c', FORAY_OPT_INT, &d->ctx, "N",
       "longest session, tokens (4096; 0: what the model allows)", 0, FORAY_PROTO_PROMPT_MAX},
      {"kv-mb", 0, FORAY_OPT_INT, &d->kv_mb, "MB", "memory for keys and values (0: no limit)", 0, 1 << 20},
      {"sessions", 0, FORAY_OPT_INT, &d->sessions, "N", "sessions held at most (1024)", 0, 1 << 20},
      {"conns", 0, FORAY_OPT_INT, &d->conns, "N", "edge connections at most (1024)", 0, 1 << 20},
      {"conns-per-address", 0, FORAY_OPT_INT, &d->conns_per_address, "N", "of them from one address (256)", 0,
       1 << 20},
      {"rows", 0, FORAY_OPT_INT, &d->rows, "N", "rows of logits in a pass at most (64)", 0, 4096},
      {"tokens-per-pass", 0, FORAY_OPT_INT, &d->tokens_per_pass, "N", "positions in a pass at most (512)", 0,
       65536},
      {"prefixes", 0, FORAY_OPT_INT, &d->prefixes, "N",
       "beginnings kept for others of a tenant (128; -1: none)", -1, 65536},
      {"isa", 0, FORAY_OPT_STR, &d->isa, "NAME", "kernels: scalar, avx2, avx512, amx (the best there is)", 0,
       0},
      {"drain", 0, FORAY_OPT_INT, &d->drain, "SECONDS", "after SIGTERM, time for sessions under way (10)", 0,
       3600},
      {"quiet", 'q', FORAY_OPT_FLAG, &d->quiet, NULL, "say nothing but errors", 0, 0},
      {0}};
  memcpy(table, opts, sizeof opts);
}

struct reading {
  const struct foray_command *cmd;
  const char *path;
  struct foray_err *err;
  enum foray_status st;
};

static int on_line(void *user, const char *section, const char *name, const char *value) {
  struct reading *r = user;
  if (*section)
    r->st = foray_err_set(r->err, FORAY_E_ARG, "section [%s]: there are none, write `name = value`", section);
  else
    r->st = foray_args_set(r->cmd, name, value, r->err);
  return r->st == FORAY_OK;
}

enum foray_status daemon_config_file(const struct foray_command *cmd, const char *path,
                                     struct foray_err *err) {
  struct reading r = {cmd, path, err, FORAY_OK};
  errno = 0;
  int line = ini_parse(path, on_line, &r);
  if (line == -1) return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  if (line == -2) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  if (line && !r.st) r.st = foray_err_set(err, FORAY_E_ARG, "write `name = value`");
  if (!r.st) return FORAY_OK;
  (void)!foray_err_prefix(err, "%s, line %d", path, line);
  return FORAY_E_ARG;
}

enum foray_status daemon_check(struct daemon *d, struct foray_err *err) {
  static const char *const when[] = {"none", "optional", "required"};
  int k = 0;
  while (k < 3 && strcmp(d->client_certs, when[k]) != 0) k++;
  if (k == 3)
    return foray_err_set(err, FORAY_E_ARG, "client-certs '%s': none, optional or required", d->client_certs);
  d->certs = (enum foray_tls_client_certs)k;
  if (!d->model) return foray_err_set(err, FORAY_E_ARG, "a model is needed (-m)");
  if (d->http && foray_http_address(d->http, d->http_host, sizeof d->http_host, &d->http_port, err))
    return err->code;
  const bool tcp = d->fd < 0 && (!d->unix_path || d->host || d->port >= 0);
  const char *out = tcp && d->host && !foray_tls_is_loopback(d->host) ? d->host
                    : d->http && !foray_tls_is_loopback(d->http_host) ? d->http_host
                                                                      : NULL;
  if (!out || d->insecure) return FORAY_OK;
  if (!d->tls_dir)
    return foray_err_set(
        err, FORAY_E_DENIED,
        "%s can be reached from other machines: give --tls DIR (forayd init makes it), or --insecure", out);
  if (!d->tokens_path && d->certs != FORAY_TLS_REQUIRED)
    return foray_err_set(
        err, FORAY_E_DENIED,
        "%s can be reached from other machines and nobody is asked who they are: give --tokens FILE, "
        "--client-certs required, or --insecure",
        out);
  return FORAY_OK;
}
