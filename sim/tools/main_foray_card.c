/* foray-card: a card model for another process: registers and memory are files that both map. With --pci the
 * files look like a device of the PCI bus to libpciaccess; see tests/e2e/test_pcie.sh. */
#include "card/card.h"
#include "core/args.h"
#include "core/err.h"
#include "dev/device.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_CAP = 1024, EXIT_FAILED = 1, EXIT_USAGE = 2, CTL_BAR = 0, MEM_BAR = 2 };

static atomic_bool stop;
static void on_signal(int s) {
  (void)s;
  atomic_store(&stop, true);
}

/* `bytes` at `offset` of a file, which is made that long when it is shorter. NULL: errno. */
static void *map_file(const char *path, uint64_t offset, uint64_t bytes) {
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  struct stat st;
  if (fd < 0) return NULL;
  void *p = MAP_FAILED;
  if (fstat(fd, &st) == 0 &&
      ((uint64_t)st.st_size >= offset + bytes || ftruncate(fd, (off_t)(offset + bytes)) == 0))
    p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
  close(fd);
  return p == MAP_FAILED ? NULL : p;
}

static bool write_file(const char *dir, const char *name, const void *data, size_t n) {
  char path[PATH_CAP];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "wb");
  if (!f) return false;
  bool ok = fwrite(data, 1, n, f) == n;
  return fclose(f) == 0 && ok;
}

static bool write_text(const char *dir, const char *name, const char *text) {
  return write_file(dir, name, text, strlen(text));
}

/* The files of a PCI device: configuration space, resource list, ids. */
static bool pci_files(const char *dir, uint64_t mem_bytes) {
  enum { CONFIG = 256 };
  const uint64_t ctl = 0xfe000000, mem = 0x400000000;
  uint8_t c[CONFIG] = {0x09, 0x12, 0x4b, 0x46, 0x06, 0, 0x10, 0, 1, 0, 0, 0x12};
  memcpy(c + 0x10, &(uint32_t){(uint32_t)ctl}, 4);
  memcpy(c + 0x18, &(uint64_t){mem | 0xc}, 8); /* 64 bits, prefetchable */
  memcpy(c + 0x2c, (const uint8_t[]){0x09, 0x12, 0x59, 0x46}, 4);
  char text[800], *t = text;
  for (int i = 0; i < 7; i++) {
    const uint64_t at = i == CTL_BAR ? ctl : i == MEM_BAR ? mem : 0;
    const uint64_t n = i == CTL_BAR ? FORAY_CARD_REGS_BYTES : mem_bytes;
    t += snprintf(t, (size_t)(text + sizeof text - t), "0x%016llx 0x%016llx 0x%016llx\n",
                  (unsigned long long)at, (unsigned long long)(at ? at + n - 1 : 0),
                  at == ctl ? 0x40200ULL
                  : at      ? 0x14220cULL
                            : 0ULL);
  }
  return (mkdir(dir, 0777) == 0 || errno == EEXIST) && write_file(dir, "config", c, sizeof c) &&
         write_text(dir, "resource", text) && write_text(dir, "vendor", "0x1209\n") &&
         write_text(dir, "device", "0x464b\n") && write_text(dir, "class", "0x120000\n") &&
         write_text(dir, "subsystem_vendor", "0x1209\n") && write_text(dir, "subsystem_device", "0x4659\n") &&
         write_text(dir, "revision", "0x01\n") && write_text(dir, "irq", "0\n") &&
         write_text(dir, "boot_vga", "0\n");
}

int main(int argc, char **argv) {
  const char *device = "ref", *regs = NULL, *mem = NULL, *pci = NULL;
  int mib = 64, regs_at = 0, mem_at = 0;
  const struct foray_opt opts[] = {
      {"device", 0, FORAY_OPT_STR, &device, "DEVICE", "device class behind the registers (default ref)", 0,
       0},
      {"regs", 0, FORAY_OPT_STR, &regs, "FILE", "file of the register window", 0, 0},
      {"regs-at", 0, FORAY_OPT_INT, &regs_at, "N", "where it begins in the file (0)", 0, 1 << 30},
      {"mem", 0, FORAY_OPT_STR, &mem, "FILE", "file of the memory", 0, 0},
      {"mem-at", 0, FORAY_OPT_INT, &mem_at, "N", "where it begins in the file (0)", 0, 1 << 30},
      {"mib", 0, FORAY_OPT_INT, &mib, "N", "size of the memory in MiB (64)", 1, 1 << 16},
      {"pci", 0, FORAY_OPT_STR, &pci, "DIR",
       "make DIR a device of the PCI bus: config, resource, BAR 0 and 2", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray-card", "--regs FILE --mem FILE | --pci DIR",
                                    "Serve a card model in shared files until a signal.", opts, NULL};
  struct foray_err err = {0};
  int rest;
  char path[2][PATH_CAP];
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return 0;
  case FORAY_ARGS_ERROR: fprintf(stderr, "foray-card: %s\n", err.msg); return EXIT_USAGE;
  case FORAY_ARGS_RUN: break;
  }
  const uint64_t bytes = (uint64_t)mib << 20;
  if (pci) {
    snprintf(path[0], PATH_CAP, "%s/resource%d", pci, CTL_BAR);
    snprintf(path[1], PATH_CAP, "%s/resource%d", pci, MEM_BAR);
    if (!pci_files(pci, bytes)) {
      fprintf(stderr, "foray-card: %s: %s\n", pci, strerror(errno));
      return EXIT_FAILED;
    }
  } else if (regs && mem) {
    snprintf(path[0], PATH_CAP, "%s", regs);
    snprintf(path[1], PATH_CAP, "%s", mem);
  } else {
    fprintf(stderr, "foray-card: wants --regs and --mem, or --pci\n");
    return EXIT_USAGE;
  }
  uint8_t *m = map_file(path[1], (uint64_t)mem_at, bytes);
  volatile uint32_t *r = map_file(path[0], (uint64_t)regs_at, FORAY_CARD_REGS_BYTES);
  if (!m || !r) {
    fprintf(stderr, "foray-card: %s: %s\n", path[m ? 0 : 1], strerror(errno));
    return EXIT_FAILED;
  }
  struct foray_card *c;
  if (foray_card_open(&(struct foray_card_opts){.device = device, .mem = m, .mem_bytes = bytes}, &c, &err) !=
      FORAY_OK) {
    fprintf(stderr, "foray-card: %s\n", err.msg);
    return EXIT_FAILED;
  }
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  fprintf(stderr, "foray-card: serving %s\n", device);
  foray_card_serve(c, r, &stop);
  foray_card_close(c);
  return 0;
}
