/* foray selftest. */
#include "core/args.h"
#include "core/err.h"
#include "dev/selftest.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"

struct count {
  unsigned passed, failed;
};

static void on_part(void *arg, const char *part, const char *why) {
  struct count *c = arg;
  *(why ? &c->failed : &c->passed) += 1;
  printf("%-10s %s%s\n", part, why ? "FAILED: " : "passed", why ? why : "");
  fflush(stdout);
}

int cmd_selftest(int argc, char **argv) {
  const char *device = "cpu";
  int blocks = 0, seed = 0;
  const struct foray_opt opts[] = {
      {"device", 0, FORAY_OPT_STR, &device, "DEVICE", "which, see `foray devices` (default cpu)", 0, 0},
      {"blocks", 0, FORAY_OPT_INT, &blocks, "N", "draft blocks of the random sessions (100)", 1, 1000000},
      {"seed", 's', FORAY_OPT_INT, &seed, "N", "other sessions", 0, 1 << 30},
      {0}};
  const struct foray_command cmd = {
      "foray selftest", "--device DEVICE",
      "Compare a device with the reference, bit by bit, on small draft programs.", opts,
      "Parts: open, memory, programs, rollback, errors, counters, blocks, reset. It needs 1 MiB of device "
      "memory and no\n"
      "model. Exit status 1 when a part differs."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  struct count c = {0};
  const struct foray_selftest_opts o = {.blocks = (uint32_t)blocks, .seed = (uint64_t)seed};
  const enum foray_status st = foray_dev_selftest(device, &o, on_part, &c, &err);
  printf("%u passed, %u failed\n", c.passed, c.failed);
  return st == FORAY_OK ? TOOL_EXIT_OK : tool_fail(cmd.name, &err);
}
