/* cardhost/cardhost.h - the host side of the control map (docs/abi.md, "Registers"), over any bus: who the
 * card is, heap and run arguments, doorbell, waiting, stop at a deadline, results, counters. A driver (PCIe,
 * LiteX, ...) is a table of bus functions; the rest of its device class is here.
 *
 *   struct foray_cardhost *h;
 *   foray_cardhost_open(&bus, &(struct foray_cardhost_opts){.mem_bytes = n, .where = "0000:03:00.0"}, &h,
 * &err); foray_cardhost_run(h, unit, 0, &res, &err); foray_cardhost_close(h);
 *
 * Thread rule: that of a device, one caller at a time. */
#ifndef FORAY_CARDHOST_CARDHOST_H
#define FORAY_CARDHOST_CARDHOST_H

#include "dev/device_impl.h"

/* A bus function that fails returns FORAY_E_CLOSED when the card is gone, FORAY_E_IO or _TIMEOUT otherwise,
 * and sets err; the error then is the call's. mem_*: `at` counts bytes from the start of the memory window;
 * ranges are inside. */
struct foray_bus {
  void *arg;
  enum foray_status (*read32)(void *arg, uint32_t offset, uint32_t *v, struct foray_err *err);
  enum foray_status (*write32)(void *arg, uint32_t offset, uint32_t v, struct foray_err *err);
  enum foray_status (*mem_read)(void *arg, uint64_t at, void *to, uint64_t bytes, struct foray_err *err);
  enum foray_status (*mem_write)(void *arg, uint64_t at, const void *from, uint64_t bytes,
                                 struct foray_err *err);
  /* Waits for an interrupt, at most `us` microseconds; true when one came. NULL: the card is polled. */
  bool (*wait)(void *arg, uint32_t us);
  /* Where a run is started and awaited by somebody else's scheduler (XRT), which then owns CONTROL and the
   * arguments: start returns at once, finish waits at most `ms` and returns FORAY_E_TIMEOUT (err untouched)
   * when the card still runs. Both NULL: the doorbell is CONTROL. */
  enum foray_status (*start)(void *arg, uint32_t run_unit, struct foray_err *err);
  enum foray_status (*finish)(void *arg, uint32_t ms, struct foray_err *err);
  void (*close)(void *arg); /* called once, by foray_cardhost_close; NULL: nothing to do */
};

struct foray_cardhost_opts {
  const char *where;   /* for texts: "pcie:0000:03:00.0" */
  uint64_t mem_base;   /* bus address, as the card sees it, of the memory window's first byte */
  uint64_t mem_bytes;  /* size of the window */
  uint64_t heap_bytes; /* 0: the whole window */
  uint32_t limit_ms;   /* a run without a deadline ends after so long; 0: 120 s */
  uint32_t poll_us;    /* longest pause between two polls; 0: 500 */
};

struct foray_cardhost_id {
  uint32_t version, build_id, scratch_units, cols;
  uint64_t abi_hash;
};

/* What was moved since open. */
struct foray_cardhost_traffic {
  uint64_t runs, reg_reads, reg_writes, mem_read_bytes, mem_write_bytes, waits;
};

struct foray_cardhost; /* opaque */

/* Reads who is there. FORAY_E_CLOSED when every read gives ones (no card behind the window), FORAY_E_FORMAT
 * when it is no Foray card, FORAY_E_MISMATCH for another ABI (id is filled all the same). */
enum foray_status foray_cardhost_identify(const struct foray_bus *bus, const char *where,
                                          struct foray_cardhost_id *id,
                                          struct foray_err *err) FORAY_NODISCARD;

/* Identifies the card and waits a moment for it to be idle (FORAY_E_BUSY when it stays busy). On failure the
 * bus is left to the caller, also its close. `bus` is copied. */
enum foray_status foray_cardhost_open(const struct foray_bus *bus, const struct foray_cardhost_opts *o,
                                      struct foray_cardhost **out, struct foray_err *err) FORAY_NODISCARD;
void foray_cardhost_close(struct foray_cardhost *h); /* NULL is allowed */

/* Fills abi_hash, heap_bytes, scratch_units, cols_max, ns_busy; name and about are the driver's. */
void foray_cardhost_info(const struct foray_cardhost *h, struct foray_dev_info *info);
void foray_cardhost_traffic(const struct foray_cardhost *h, struct foray_cardhost_traffic *t);

/* As the members of struct foray_dev_class. A deadline writes STOP; a card that does not stop within two
 * seconds is FORAY_E_DEVICE, and every later call says so. */
enum foray_status foray_cardhost_upload(struct foray_cardhost *h, uint64_t addr, const void *src,
                                        uint64_t bytes, struct foray_err *err);
enum foray_status foray_cardhost_download(struct foray_cardhost *h, uint64_t addr, void *dst, uint64_t bytes,
                                          struct foray_err *err);
enum foray_status foray_cardhost_run(struct foray_cardhost *h, uint32_t run_unit, uint32_t deadline_ms,
                                     struct foray_dev_result *res, struct foray_err *err);
void foray_cardhost_counters(struct foray_cardhost *h, uint64_t out[FORAY_COUNTER_COUNT]);

#endif
