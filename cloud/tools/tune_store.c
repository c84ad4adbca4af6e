/* foray-tune keygen, publish, versions, show. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/args.h"
#include "core/err.h"
#include "model/model.h"
#include "store/store.h"
#include "train/adapter.h"
#include "tune.h"

static int status(enum foray_status st, const struct foray_err *err) {
  if (st) fprintf(stderr, "foray-tune: %s\n", err->msg);
  return st ? 1 : 0;
}
static int parse(const struct foray_command *cmd, int argc, char **argv, int *rest, int want) {
  struct foray_err err = {0};
  switch (foray_args_parse(cmd, argc, argv, rest, &err)) {
  case FORAY_ARGS_RUN: break;
  case FORAY_ARGS_DONE: return 0;
  default: fprintf(stderr, "foray-tune: %s\n", err.msg); return 2;
  }
  if (argc - *rest == want) return -1;
  fprintf(stderr, "usage: %s %s\n", cmd->name, cmd->usage);
  return 2;
}

static int cmd_keygen(int argc, char **argv) {
  const struct foray_opt opts[] = {{0}};
  const struct foray_command cmd = {
      "foray-tune keygen", "FILE",
      "Make a key pair: FILE signs versions (keep it), FILE.pub goes to the boards.", opts, NULL};
  uint8_t secret[FORAY_KEY_BYTES], public[FORAY_KEY_BYTES];
  struct foray_err err = {0};
  char path[4096];
  int rest, rc = parse(&cmd, argc, argv, &rest, 1);
  if (rc >= 0) return rc;
  enum foray_status st = foray_key_make(secret, public, &err);
  if (!st) st = foray_key_save(argv[rest], secret, true, &err);
  snprintf(path, sizeof path, "%s.pub", argv[rest]);
  if (!st) st = foray_key_save(path, public, false, &err);
  return status(st, &err);
}

static enum foray_status slurp(const char *path, char **out, size_t *n, struct foray_err *err) {
  struct stat info;
  FILE *f = fopen(path, "rb");
  *out = NULL;
  if (f && !fstat(fileno(f), &info) && info.st_size < FORAY_RELEASE_PAYLOAD_MAX &&
      (*out = malloc((size_t)info.st_size + 1)))
    *n = fread(*out, 1, (size_t)info.st_size, f);
  if (f) fclose(f);
  if (!*out) return foray_err_set(err, FORAY_E_IO, "%s: cannot be read", path);
  (*out)[*n] = 0;
  return FORAY_OK;
}

static int cmd_publish(int argc, char **argv) {
  const char *store = "store", *key = NULL, *name = "adapter", *parent = "", *metrics = NULL, *model = NULL;
  bool serve = false;
  const struct foray_opt opts[] = {
      {"store", 0, FORAY_OPT_STR, &store, "DIR", "where versions are kept", 0, 0},
      {"key", 0, FORAY_OPT_STR, &key, "FILE", "private key (foray-tune keygen)", 0, 0},
      {"model", 'm', FORAY_OPT_STR, &model, "NAME|FILE", "base model; needed when the adapter does not say",
       0, 0},
      {"name", 0, FORAY_OPT_STR, &name, "TEXT", "name of the version", 0, 0},
      {"parent", 0, FORAY_OPT_STR, &parent, "ID", "version that it was made from", 0, 0},
      {"metrics", 0, FORAY_OPT_STR, &metrics, "FILE", "JSON object that goes into the manifest", 0, 0},
      {"serve", 0, FORAY_OPT_FLAG, &serve, NULL, "boards are given this one from now on", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray-tune publish", "--key FILE [OPTIONS] ADAPTER.gguf",
                                    "Sign an adapter and put it into the store as a new version.", opts,
                                    NULL};
  int rest, rc = parse(&cmd, argc, argv, &rest, 1);
  if (rc >= 0) return rc;
  struct foray_err err = {0};
  struct foray_release_info i = {.sequence = 0};
  struct foray_adapter_info a = {0};
  struct foray_store *s = NULL;
  struct foray_model *m = NULL;
  uint8_t secret[FORAY_KEY_BYTES], digest[FORAY_SHA256_BYTES];
  char id[FORAY_SHA256_HEX], *payload = NULL, *text = NULL;
  size_t n = 0, text_n = 0;
  enum foray_status st =
      key ? foray_key_load(key, secret, &err) : foray_err_set(&err, FORAY_E_ARG, "--key FILE is needed");
  if (!st) st = foray_adapter_info(argv[rest], &a, &err); /* also checks that it is one */
  if (!st) st = slurp(argv[rest], &payload, &n, &err);
  if (!st && metrics) st = slurp(metrics, &text, &text_n, &err);
  if (!st && model) {
    st = foray_model_open(model, &m, &err);
    if (!st) foray_model_sha256(m, digest), foray_sha256_hex(digest, i.base_sha256);
    if (!st && *a.base_sha256 && strcmp(a.base_sha256, i.base_sha256))
      st = foray_err_set(&err, FORAY_E_MISMATCH, "%s was made for base %.12s..., %s is %.12s...", argv[rest],
                         a.base_sha256, model, i.base_sha256);
  } else if (!st) {
    memcpy(i.base_sha256, a.base_sha256, sizeof i.base_sha256);
    if (!*a.base_sha256)
      st = foray_err_set(&err, FORAY_E_ARG, "%s does not say its base model: give --model", argv[rest]);
  }
  snprintf(i.name, sizeof i.name, "%s", name);
  snprintf(i.parent, sizeof i.parent, "%s", parent);
  i.metrics = text;
  if (!st) st = foray_store_open(store, secret, &s, &err);
  if (!st) st = foray_store_add(s, &i, payload, n, id, &err);
  if (!st && serve) st = foray_store_set_state(s, id, FORAY_VERSION_SERVED, &err);
  if (!st) puts(id);
  foray_store_close(s);
  foray_model_close(m);
  free(payload), free(text);
  return status(st, &err);
}

static void line(void *arg, const struct foray_version *v) {
  (void)arg;
  printf("%.12s  %4llu  %-8s  base %.12s  parent %-12.12s  %8.1f KiB  %s  %s\n", v->id,
         (unsigned long long)v->sequence, foray_version_state_name(v->state), v->base_sha256,
         *v->parent ? v->parent : "-", (double)v->bytes / 1024, v->name, v->metrics);
}
static int cmd_versions(int argc, char **argv) {
  const char *store = "store", *key = NULL, *revoke = NULL, *serve = NULL;
  const struct foray_opt opts[] = {
      {"store", 0, FORAY_OPT_STR, &store, "DIR", "where versions are kept", 0, 0},
      {"key", 0, FORAY_OPT_STR, &key, "FILE", "private key", 0, 0},
      {"serve", 0, FORAY_OPT_STR, &serve, "ID", "give boards this one", 0, 0},
      {"revoke", 0, FORAY_OPT_STR, &revoke, "ID", "take this one back", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray-tune versions", "--key FILE [OPTIONS]",
                                    "List the versions of a store.", opts, NULL};
  struct foray_err err = {0};
  struct foray_store *s = NULL;
  uint8_t secret[FORAY_KEY_BYTES];
  int rest, rc = parse(&cmd, argc, argv, &rest, 0);
  if (rc >= 0) return rc;
  enum foray_status st =
      key ? foray_key_load(key, secret, &err) : foray_err_set(&err, FORAY_E_ARG, "--key FILE is needed");
  if (!st) st = foray_store_open(store, secret, &s, &err);
  if (!st && serve) st = foray_store_set_state(s, serve, FORAY_VERSION_SERVED, &err);
  if (!st && revoke) st = foray_store_set_state(s, revoke, FORAY_VERSION_REVOKED, &err);
  if (!st) st = foray_store_each(s, NULL, line, NULL, &err);
  foray_store_close(s);
  return status(st, &err);
}

static int cmd_show(int argc, char **argv) {
  const char *key = NULL;
  const struct foray_opt opts[] = {
      {"key", 0, FORAY_OPT_STR, &key, "FILE", "public key, to check a version's signature", 0, 0}, {0}};
  const struct foray_command cmd = {
      "foray-tune show", "[--key FILE.pub] ADAPTER|VERSION.frel",
      "Say what an adapter is (PEFT folder, GGUF file), or check a signed version.", opts, NULL};
  int rest, rc = parse(&cmd, argc, argv, &rest, 1);
  struct foray_err err = {0};
  struct foray_adapter_info i;
  struct foray_release *r;
  uint8_t public[FORAY_KEY_BYTES];
  if (rc >= 0) return rc;
  if (key) {
    enum foray_status st = foray_key_load(key, public, &err);
    if (!st) st = foray_release_open(argv[rest], public, NULL, 0, &r, &err);
    if (st) return status(st, &err);
    printf("version %s\nname %s, sequence %llu, signature good\nbase %s\nparent %s\nadapter %s, %zu "
           "bytes\nmetrics %s\n",
           r->id, r->info.name, (unsigned long long)r->info.sequence, r->info.base_sha256,
           *r->info.parent ? r->info.parent : "-", r->payload_sha256, r->payload_len,
           r->metrics ? r->metrics : "{}");
    foray_release_close(r);
    return 0;
  }
  enum foray_status st = foray_adapter_info(argv[rest], &i, &err);
  if (!st)
    printf("LoRA, rank %d, alpha %g, targets 0x%02x%s%s%s%.16s\n", i.rank, (double)i.alpha, i.targets,
           *i.base_name ? ", of " : "", i.base_name, *i.base_sha256 ? ", base " : "", i.base_sha256);
  return status(st, &err);
}

bool foray_tune_store_command(int argc, char **argv, int *rc) {
  if (!strcmp(argv[0], "keygen"))
    *rc = cmd_keygen(argc, argv);
  else if (!strcmp(argv[0], "publish"))
    *rc = cmd_publish(argc, argv);
  else if (!strcmp(argv[0], "versions"))
    *rc = cmd_versions(argc, argv);
  else if (!strcmp(argv[0], "show"))
    *rc = cmd_show(argc, argv);
  else
    return false;
  return true;
}
