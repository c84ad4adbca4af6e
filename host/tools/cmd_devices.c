/* foray devices. */
#include "core/args.h"
#include "core/clock.h"
#include "core/err.h"
#include "dev/device.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"
#include "hosttools/show.h"

#include <stdlib.h>
#include <string.h>

enum { TEST_BYTES = 4 << 20, TEXT = 512, MIB = 1 << 20 };

struct listing {
  json_t *json; /* NULL: print lines */
  bool test;
  const char *spec; /* what to open; NULL: the listed name */
};

/* What a short test of an open device says. */
struct measured {
  uint64_t heap_bytes;
  double up, down; /* MB/s of copies to and from device memory; 0: not measured */
  uint32_t cols;
};

/* Opens the device with all its memory and moves some of it. false: why says what to do. */
static bool measure(const char *spec, struct measured *m, char why[TEXT]) {
  struct foray_dev *d;
  struct foray_err err = {0};
  if (foray_dev_open(spec, NULL, &d, &err) != FORAY_OK) {
    snprintf(why, TEXT, "%s", err.msg);
    return false;
  }
  const struct foray_dev_info *info = foray_dev_info(d);
  m->heap_bytes = info->heap_bytes;
  m->cols = info->cols_max;
  uint64_t bytes = info->heap_bytes / 2 < TEST_BYTES ? info->heap_bytes / 2 : TEST_BYTES, at = 0;
  uint8_t *p = calloc(1, (size_t)bytes);
  bool ok = p && foray_dev_alloc(d, bytes, &at, &err) == FORAY_OK;
  for (int k = 0; ok && k < 2; k++) { /* the first touches the pages */
    const double t0 = foray_clock_s();
    ok = foray_dev_upload(d, at, p, bytes, &err) == FORAY_OK;
    const double t1 = foray_clock_s();
    ok = ok && foray_dev_download(d, at, p, bytes, &err) == FORAY_OK;
    const double t2 = foray_clock_s();
    m->up = 1e-6 * (double)bytes / (t1 - t0 > 1e-9 ? t1 - t0 : 1e-9);
    m->down = 1e-6 * (double)bytes / (t2 - t1 > 1e-9 ? t2 - t1 : 1e-9);
    if (t2 - t0 > 1) break; /* a slow line has said enough */
  }
  if (!ok) snprintf(why, TEXT, "%s", *err.msg ? err.msg : "no memory for the test");
  free(p);
  foray_dev_close(d);
  return ok;
}

static void on_device(void *arg, const struct foray_dev_info *info, const char *why) {
  const struct listing *l = arg;
  char text[TEXT] = "", hash[20];
  struct measured m = {.heap_bytes = info->heap_bytes, .cols = info->cols_max};
  bool usable = !why;
  if (why) snprintf(text, sizeof text, "%s", why);
  if (usable && l->test) usable = measure(l->spec ? l->spec : info->name, &m, text);
  const size_t driver = strcspn(info->name, ":");
  const char *location = info->name[driver] ? info->name + driver + 1 : "";
  snprintf(hash, sizeof hash, "%016llx", (unsigned long long)info->abi_hash);
  if (l->json) {
    json_array_append_new(l->json, json_pack("{ss ss% ss ss ss sI si sf sf sb ss}", "name", info->name,
                                             "driver", info->name, driver, "location", location, "about",
                                             info->about, "abi", hash, "heap_bytes", (json_int_t)m.heap_bytes,
                                             "columns", (int)m.cols, "upload_mb_s", m.up, "download_mb_s",
                                             m.down, "usable", usable, "why", text));
    return;
  }
  char link[48] = "-", memory[24] = "-";
  if (m.up > 0) snprintf(link, sizeof link, "%.0f/%.0f", m.up, m.down);
  if (m.heap_bytes) snprintf(memory, sizeof memory, "%llu MiB", (unsigned long long)(m.heap_bytes / MIB));
  printf("%-18s %-9s %-17s %-10s %-13s %s\n", info->name, usable ? "ready" : "unusable", hash, memory, link,
         info->about);
  if (*text) printf("    %s\n", text);
}

/* A device by its whole name, as --device takes it. */
static void one_device(struct listing *l, const char *spec) {
  struct foray_dev_info info = {.abi_hash = 0};
  struct foray_dev *d;
  struct foray_err err = {0};
  if (foray_dev_open(spec, NULL, &d, &err) == FORAY_OK) {
    info = *foray_dev_info(d);
    foray_dev_close(d);
  }
  snprintf(info.name, sizeof info.name, "%.31s", spec);
  l->spec = spec; /* a name may be longer than what info holds */
  on_device(l, &info, err.code ? err.msg : NULL);
}

int cmd_devices(int argc, char **argv) {
  bool json = false, quick = false;
  const char *only = NULL;
  const struct foray_opt opts[] = {
      {"json", 0, FORAY_OPT_FLAG, &json, NULL, "print JSON", 0, 0},
      {"device", 0, FORAY_OPT_STR, &only, "DEVICE", "only this one, with its detail", 0, 0},
      {"no-test", 0, FORAY_OPT_FLAG, &quick, NULL, "only list: open nothing, measure nothing", 0, 0},
      {0}};
  const struct foray_command cmd = {
      "foray devices", "[--device DEVICE] [--json] [--no-test]",
      "List the devices that can draft, and what to do about those that cannot.", opts,
      "Each device that seems usable is opened, and 4 MiB are copied to its memory and back: MB/s is up/down "
      "over the\n"
      "link to it (not the speed of that memory). MEMORY is what it offers when it is opened without a "
      "size.\n"
      "A device in use by another program shows as unusable."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  struct listing l = {.json = json ? json_array() : NULL, .test = !quick};
  if (!json) printf("%-18s %-9s %-17s %-10s %-13s %s\n", "DEVICE", "STATE", "ABI", "MEMORY", "MB/s", "ABOUT");
  if (only)
    one_device(&l, only);
  else
    foray_dev_list(on_device, &l);
  return json ? show_json(l.json) : TOOL_EXIT_OK;
}
