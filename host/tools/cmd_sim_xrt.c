/* foray sim-xrt: runs an unmodified XRT or OpenCL host against the XRT simulation (sim/xrt). */
#include "core/args.h"
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_CAP = 4096 };

/* Beside the program: ../xrt in the build tree, ../lib/foray/xrt when installed. */
static bool find_prefix(char *out, size_t cap) {
  static const char *const beside[] = {"../xrt", "../lib/foray/xrt"};
  const char *env = getenv("FORAY_SIM_XRT");
  char exe[PATH_CAP - 64], lib[PATH_CAP + 64];
  const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (env) {
    snprintf(out, cap, "%s", env);
    return true;
  }
  if (n <= 0) return false;
  exe[n] = 0;
  char *slash = strrchr(exe, '/');
  if (!slash) return false;
  *slash = 0;
  for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
    snprintf(out, cap, "%s/%s", exe, beside[i]);
    snprintf(lib, sizeof lib, "%s/lib/libforay_xrt_sim.so.2", out);
    if (access(lib, R_OK) == 0) return true;
  }
  return false;
}

/* value, then ':' and what was there. */
static void prepend(const char *name, const char *value) {
  char text[2 * PATH_CAP];
  const char *old = getenv(name);
  snprintf(text, sizeof text, "%s%s%s", value, old && *old ? ":" : "", old && *old ? old : "");
  setenv(name, text, 1);
}

int cmd_sim_xrt(int argc, char **argv) {
  const char *mode = "hw_emu";
  const struct foray_opt opts[] = {
      {"mode", 0, FORAY_OPT_STR, &mode, "MODE",
       "what XCL_EMULATION_MODE says: hw_emu, sw_emu, or none to look like a card (hw_emu)", 0, 0},
      {0}};
  const struct foray_command cmd = {
      "foray sim-xrt", "[--mode MODE] -- HOST [ARGS]",
      "Run an unmodified XRT or OpenCL host against simulated kernels: no Vitis, no card.", opts,
      "The kernels are models inside the xclbin that the host loads (foray-xclbin). The simulation leaves "
      "nothing behind.\n"
      "$FORAY_SIM_DEVICE: device class behind the foray_top of foray.xclbin (ref)."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  char prefix[PATH_CAP], path[PATH_CAP + 16];
  const bool none = !strcmp(mode, "none");
  if (rest >= argc || (!none && strcmp(mode, "hw_emu") != 0 && strcmp(mode, "sw_emu") != 0)) {
    (void)foray_err_set(&err, FORAY_E_ARG,
                        "wants a host program after --, and a mode hw_emu, sw_emu or none");
    return tool_fail(cmd.name, &err);
  }
  if (!find_prefix(prefix, sizeof prefix)) {
    (void)foray_err_set(&err, FORAY_E_NOTFOUND,
                        "the simulation is not built (make sim-xrt; it needs libxrt-dev), or not beside this "
                        "program ($FORAY_SIM_XRT)");
    return tool_fail(cmd.name, &err);
  }
  setenv("XILINX_XRT", prefix, 1);
  snprintf(path, sizeof path, "%s/lib", prefix);
  prepend("LD_LIBRARY_PATH", path);
  snprintf(path, sizeof path, "%s/icd", prefix);
  setenv("OCL_ICD_VENDORS", path, 1);
  if (none)
    unsetenv("XCL_EMULATION_MODE");
  else
    setenv("XCL_EMULATION_MODE", mode, 1);
  if (!getenv("USER")) setenv("USER", "foray", 1); /* XRT names sockets by it */
  execvp(argv[rest], argv + rest);
  (void)foray_err_set(&err, FORAY_E_IO, "%s: %s", argv[rest], strerror(errno));
  return tool_fail(cmd.name, &err);
}
