/* forayd init and forayd token: certificates and tokens, on the machine of the server. */
#include "core/err.h"
#include "cloudtools/daemon.h"
#include "tls/pki.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int complain(const char *who, const struct foray_err *err) {
  fprintf(stderr, "%s: %s\n", who, err->msg);
  return err->code == FORAY_E_ARG ? 2 : 1;
}

static int fingerprint(const char *dir, struct foray_err *err) {
  char path[DAEMON_PATH], hex[65];
  snprintf(path, sizeof path, "%s/ca.crt", dir);
  if (foray_pki_fingerprint(path, hex, err)) return complain("forayd", err);
  printf("fingerprint of the CA: %s\n", hex);
  return 0;
}

int daemon_init(int argc, char **argv) {
  struct foray_strlist names = {0};
  const char *client = "admin";
  const struct foray_opt opts[] = {
      {"name", 0, FORAY_OPT_LIST, &names, "HOST",
       "name or address by which clients reach the server; many times", 0, 0},
      {"client", 0, FORAY_OPT_STR, &client, "NAME", "name in the first client's certificate (admin)", 0, 0},
      {0}};
  const struct foray_command cmd = {
      "forayd init", "DIR [--name HOST]...",
      "Makes a private CA, the server's certificate and a first client's in DIR, and an empty token file.",
      opts,
      "Boards join later with `foray enroll`. Keep DIR/ca.key as safe as the machine: who has it can make "
      "clients.\n"
      "  forayd init /etc/foray/tls --name cloud.example.org"};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return 0;
  case FORAY_ARGS_ERROR: return complain(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (rest + 1 != argc) {
    foray_err_set(&err, FORAY_E_ARG, "name one folder");
    return complain(cmd.name, &err);
  }
  const char *list[FORAY_STRLIST_MAX + 1] = {0};
  for (int i = 0; i < names.n; i++) list[i] = names.v[i];
  const char *dir = argv[rest];
  char path[DAEMON_PATH];
  if (foray_pki_init(dir, list, client, &err)) return complain(cmd.name, &err);
  snprintf(path, sizeof path, "%s/tokens", dir);
  static const char head[] = "# NAME SHA256 SCOPES EXPIRY WEIGHT PRIORITY: see forayd token --help\n";
  if (foray_pki_write(path, head, sizeof head - 1, 0600, true, &err)) return complain(cmd.name, &err);
  printf("made %s: ca, server and client (%s) certificates, tokens\n", dir, client);
  return fingerprint(dir, &err);
}

static int list(const char *path, struct foray_err *err) {
  struct foray_tokens *t;
  if (foray_tokens_open(path, &t, err)) return complain("forayd token", err);
  const int64_t now = (int64_t)time(NULL);
  for (uint32_t i = 0, n = foray_tokens_count(t); i < n; i++) {
    const struct foray_token *k = foray_tokens_at(t, i);
    printf("%-24s%s%s%s%s  weight %g, class %u%s\n", k->name, k->scopes & FORAY_SCOPE_EDGE ? " edge" : "",
           k->scopes & FORAY_SCOPE_API ? " api" : "", k->scopes & FORAY_SCOPE_METRICS ? " metrics" : "",
           k->scopes & FORAY_SCOPE_ENROLL ? " enroll" : "", k->weight, k->priority,
           k->expiry && now >= k->expiry ? ", expired"
           : k->expiry                   ? ", expires"
                                         : "");
  }
  foray_tokens_close(t);
  return 0;
}

int daemon_token(int argc, char **argv) {
  const char *scope = "edge,api", *tls = NULL, *file = NULL;
  double weight = 1;
  int days = 0, priority = 0;
  const struct foray_opt opts[] = {
      {"tls", 0, FORAY_OPT_STR, &tls, "DIR", "folder of forayd init; its tokens file is used", 0, 0},
      {"tokens", 0, FORAY_OPT_STR, &file, "FILE", "token file, instead of the one in the TLS folder", 0, 0},
      {"scope", 0, FORAY_OPT_STR, &scope, "LIST", "of edge, api, metrics, enroll (edge,api)", 0, 0},
      {"days", 0, FORAY_OPT_INT, &days, "N", "expires after N days (0: never; enroll: 1)", 0, 36500},
      {"weight", 0, FORAY_OPT_DOUBLE, &weight, "W", "share of the server where not all fit (1)", 0.001, 1e6},
      {"priority", 0, FORAY_OPT_INT, &priority, "N", "class, 0 goes first (0)", 0, 9},
      {0}};
  const struct foray_command cmd = {"forayd token", "add NAME | revoke NAME | list [OPTIONS]",
                                    "Access tokens. A running forayd sees changes at once.", opts,
                                    "The secret is shown once; only its hash is kept.\n"
                                    "  forayd token add laptop --tls /etc/foray/tls\n"
                                    "  forayd token add board7 --scope enroll --tls /etc/foray/tls"};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return 0;
  case FORAY_ARGS_ERROR: return complain(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  const char *verb = rest < argc ? argv[rest] : "", *name = rest + 1 < argc ? argv[rest + 1] : NULL;
  char path[DAEMON_PATH];
  if (!file && tls) {
    snprintf(path, sizeof path, "%s/tokens", tls);
    file = path;
  }
  if (!file) {
    foray_err_set(&err, FORAY_E_ARG, "--tls DIR or --tokens FILE is needed");
    return complain(cmd.name, &err);
  }
  if (!strcmp(verb, "list") && !name) return list(file, &err);
  if (!strcmp(verb, "revoke") && name)
    return foray_tokens_revoke(file, name, &err) ? complain(cmd.name, &err) : 0;
  if (strcmp(verb, "add") != 0 || !name) {
    foray_err_set(&err, FORAY_E_ARG, "add NAME, revoke NAME or list");
    return complain(cmd.name, &err);
  }
  struct foray_token t = {.weight = weight, .priority = (uint32_t)priority};
  if (!foray_scopes_parse(scope, &t.scopes)) {
    foray_err_set(&err, FORAY_E_ARG, "--scope '%s': a list of edge, api, metrics, enroll", scope);
    return complain(cmd.name, &err);
  }
  if (t.scopes & FORAY_SCOPE_ENROLL && !days) days = 1;
  t.expiry = days ? (int64_t)time(NULL) + (int64_t)days * 86400 : 0;
  snprintf(t.name, sizeof t.name, "%s", name);
  char secret[FORAY_TOKEN_BYTES];
  if (strlen(name) >= sizeof t.name || foray_tokens_add(file, &t, secret, &err)) {
    if (!err.code) foray_err_set(&err, FORAY_E_ARG, "the name is too long");
    return complain(cmd.name, &err);
  }
  printf("%s\n", secret);
  return t.scopes & FORAY_SCOPE_ENROLL && tls ? fingerprint(tls, &err) : 0;
}
