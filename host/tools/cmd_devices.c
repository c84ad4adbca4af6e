/* foray devices. */
#include "core/args.h"
#include "core/err.h"
#include "dev/device.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"
#include "hosttools/show.h"

struct listing {
  json_t *json; /* NULL: print lines */
};

static void on_device(void *arg, const struct foray_dev_info *info, const char *why) {
  struct listing *l = arg;
  char hash[20];
  snprintf(hash, sizeof hash, "%016llx", (unsigned long long)info->abi_hash);
  if (l->json)
    json_array_append_new(l->json, json_pack("{ss ss ss sI sb ss}", "name", info->name, "about", info->about,
                                             "abi", hash, "heap_bytes", (json_int_t)info->heap_bytes,
                                             "usable", !why, "why", why ? why : ""));
  else
    printf("%-12s %-12s %s  %s%s%s\n", info->name, why ? "unusable" : "ready", hash, info->about,
           why ? ": " : "", why ? why : "");
}

int cmd_devices(int argc, char **argv) {
  bool json = false;
  const struct foray_opt opts[] = {{"json", 0, FORAY_OPT_FLAG, &json, NULL, "print JSON", 0, 0}, {0}};
  const struct foray_command cmd = {"foray devices", "[--json]", "List the devices that can draft.", opts,
                                    NULL};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  struct listing l = {.json = json ? json_array() : NULL};
  if (!json) printf("%-12s %-12s %-16s  %s\n", "DEVICE", "STATE", "ABI", "ABOUT");
  foray_dev_list(on_device, &l);
  return json ? show_json(l.json) : TOOL_EXIT_OK;
}
