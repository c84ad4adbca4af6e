/* The `pcie` device: a card behind two BARs, found and mapped through libpciaccess (pcie_bus.c), driven by
 * the shared host side of the control map (drivers/card). */
#include "pcie/pcie_bus.h"

#include "dev/plugin.h"

#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>

struct pcie {
  struct foray_cardhost *host;
  struct foray_bus bus;
};

static const char *describe(const char *detail, struct foray_dev_info *info) {
  *info = (struct foray_dev_info){.name = "pcie",
                                  .about = "card on the PCI bus",
                                  .abi_hash = FORAY_ABI_HASH,
                                  .scratch_units = 1,
                                  .cols_max = FORAY_ABI_COLS_MAX};
  struct pcie_detail d;
  char where[PCIE_WHERE];
  const char *why = pcie_parse(detail, &d);
  if (!why) why = pcie_find(&d, where, info->about, sizeof info->about);
  if (!why) snprintf(info->name, sizeof info->name, "pcie:%s", where);
  return why;
}

/* FORAY_PCIE_TRACE=1: what the runs have moved over the bus, on stderr. */
static void tell(const struct pcie *p) {
  struct foray_cardhost_traffic t;
  struct pcie_traffic m;
  const char *on = getenv("FORAY_PCIE_TRACE");
  if (!on || *on != '1') return;
  foray_cardhost_traffic(p->host, &t);
  pcie_traffic(&p->bus, &m);
  fprintf(stderr,
          "pcie: %llu runs, %llu register reads, %llu register writes, memory %llu reads (%llu bytes), %llu "
          "writes (%llu "
          "bytes), %llu pauses, %llu interrupts\n",
          (unsigned long long)t.runs, (unsigned long long)t.reg_reads, (unsigned long long)t.reg_writes,
          (unsigned long long)m.mem_reads, (unsigned long long)t.mem_read_bytes,
          (unsigned long long)m.mem_writes, (unsigned long long)t.mem_write_bytes,
          (unsigned long long)t.waits, (unsigned long long)m.interrupts);
}

static void close_pcie(void *self) {
  struct pcie *p = self;
  tell(p);
  foray_cardhost_close(p->host);
  free(p);
}

static enum foray_status open_pcie(const char *detail, const struct foray_dev_opts *opts,
                                   struct foray_dev_info *info, void **self, struct foray_err *err) {
  struct pcie_detail d;
  const char *bad = pcie_parse(detail, &d);
  if (bad) return foray_err_set(err, FORAY_E_ARG, "pcie: %s", bad);
  struct pcie *p = calloc(1, sizeof *p);
  if (!p) return foray_err_set(err, FORAY_E_NOMEM, "pcie");
  char where[PCIE_WHERE], name[PCIE_WHERE + 8];
  uint64_t mem_bytes = 0;
  enum foray_status st = pcie_map(&d, &p->bus, &mem_bytes, where, err);
  if (st != FORAY_OK) {
    free(p);
    return st;
  }
  snprintf(name, sizeof name, "pcie:%s", where);
  st = foray_cardhost_open(
      &p->bus,
      &(struct foray_cardhost_opts){
          .where = name, .mem_base = d.base, .mem_bytes = mem_bytes, .heap_bytes = opts->heap_bytes},
      &p->host, err);
  if (st != FORAY_OK) {
    p->bus.close(p->bus.arg);
    free(p);
    return st;
  }
  foray_cardhost_info(p->host, info);
  *self = p;
  return FORAY_OK;
}

static enum foray_status upload(void *self, uint64_t addr, const void *src, uint64_t bytes,
                                struct foray_err *err) {
  return foray_cardhost_upload(((struct pcie *)self)->host, addr, src, bytes, err);
}
static enum foray_status download(void *self, uint64_t addr, void *dst, uint64_t bytes,
                                  struct foray_err *err) {
  return foray_cardhost_download(((struct pcie *)self)->host, addr, dst, bytes, err);
}
static enum foray_status run(void *self, uint32_t run_unit, uint32_t deadline_ms,
                             struct foray_dev_result *res, struct foray_err *err) {
  return foray_cardhost_run(((struct pcie *)self)->host, run_unit, deadline_ms, res, err);
}
static void counters(void *self, uint64_t out[FORAY_COUNTER_COUNT]) {
  foray_cardhost_counters(((struct pcie *)self)->host, out);
}

static const struct foray_dev_class pcie_class = {
    .name = "pcie",
    .describe = describe,
    .open = open_pcie,
    .close = close_pcie,
    .upload = upload,
    .download = download,
    .run = run,
    .counters = counters,
};

const struct foray_dev_plugin foray_dev_plugin = {FORAY_DEV_PLUGIN_VERSION, FORAY_ABI_HASH, &pcie_class};
