/* pcie/pcie_bus.h - finding a card through libpciaccess and mapping it: a struct foray_bus over two BARs (or
 * two parts of one).
 *
 * A detail is   [PLACE][,ctl=BAR[+OFFSET]][,mem=BAR[+OFFSET]][,base=ADDRESS]
 * PLACE: 0000:03:00.0 (a slot), 10ee:9038 (vendor and device, the first such), or nothing (the first card
 * that carries Foray's mark: subsystem device id 0x4659). ctl: where the control map is (default: BAR 0).
 * mem: where the memory is (default: the largest other memory BAR). base: the address under which the card
 * itself sees that memory (0). */
#ifndef FORAY_PCIE_PCIE_BUS_H
#define FORAY_PCIE_PCIE_BUS_H

#include "cardhost/cardhost.h"

enum { PCIE_SUBSYSTEM = 0x4659 /* "FY" */, PCIE_WHERE = 32, PCIE_ANY = -1 };

struct pcie_detail {
  bool by_slot, by_id;
  uint32_t domain, bus, dev, func;
  uint16_t vendor, device;
  int ctl_bar, mem_bar; /* PCIE_ANY: the default */
  uint64_t ctl_at, mem_at, base;
};

/* NULL, or what is wrong with the text. */
const char *pcie_parse(const char *detail, struct pcie_detail *d);

/* A card that matches. where: its slot; about: ids and BARs. Why there is none (of this thread, until the
 * next call), or NULL. */
const char *pcie_find(const struct pcie_detail *d, char where[PCIE_WHERE], char *about, size_t cap);

struct pcie_map; /* opaque: a mapped card */
struct pcie_traffic {
  uint64_t mem_reads, mem_writes; /* accesses of at most 8 bytes to the memory BAR */
  uint64_t interrupts;
};

/* Locks and maps the card; bus->arg is the map, bus->close ends it. FORAY_E_NOTFOUND, _BUSY (another process
 * has it), _ARG (no such BAR, too small), _IO with what to do about rights. */
enum foray_status pcie_map(const struct pcie_detail *d, struct foray_bus *bus, uint64_t *mem_bytes,
                           char where[PCIE_WHERE], struct foray_err *err) FORAY_NODISCARD;
void pcie_traffic(const struct foray_bus *bus, struct pcie_traffic *t);

#endif
