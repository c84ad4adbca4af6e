#include "pcie/pcie_bus.h"

#include "core/err.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pciaccess.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  BARS = 6,
  CTL_BYTES = FORAY_REG_COUNTERS + 8 * FORAY_COUNTER_COUNT,
  PATH_CAP = 320,
  COMMAND = 4,
  COMMAND_MEM = 2
};

#define SYSFS "/sys/bus/pci/devices"

/* ---- details ---- */

static bool number(const char **s, int base, uint64_t most, uint64_t *v) {
  char *end;
  errno = 0;
  *v = strtoull(*s, &end, base);
  const bool ok = end != *s && **s != '-' && **s != '+' && errno == 0 && *v <= most;
  *s = end;
  return ok;
}

static bool take(const char **s, char c) {
  if (**s != c) return false;
  (*s)++;
  return true;
}

static bool option(const char **s, struct pcie_detail *d) {
  const bool ctl = !strncmp(*s, "ctl=", 4), mem = !strncmp(*s, "mem=", 4), base = !strncmp(*s, "base=", 5);
  uint64_t bar, at = 0;
  *s += ctl || mem ? 4 : base ? 5 : 0;
  if (base) return number(s, 0, UINT64_MAX, &d->base);
  if (!(ctl || mem) || !number(s, 10, BARS - 1, &bar)) return false;
  if (take(s, '+') && !number(s, 0, UINT64_MAX / 2, &at)) return false;
  *(ctl ? &d->ctl_bar : &d->mem_bar) = (int)bar;
  *(ctl ? &d->ctl_at : &d->mem_at) = at;
  return at % 64 == 0;
}

const char *pcie_parse(const char *text, struct pcie_detail *d) {
  static const char *const bad = "wants a slot (0000:03:00.0), ids (10ee:9038) or nothing, then "
                                 ",ctl=BAR[+OFFSET] ,mem=BAR[+OFFSET] ,base=ADDRESS";
  *d = (struct pcie_detail){.ctl_bar = PCIE_ANY, .mem_bar = PCIE_ANY};
  const char *s = text;
  uint64_t a, b, c, f;
  if (*s && *s != ',') {
    if (!number(&s, 16, UINT32_MAX, &a) || !take(&s, ':') || !number(&s, 16, UINT16_MAX, &b)) return bad;
    if (take(&s, ':')) {
      if (!number(&s, 16, 31, &c) || !take(&s, '.') || !number(&s, 16, 7, &f) || b > 255) return bad;
      d->by_slot = true;
      d->domain = (uint32_t)a, d->bus = (uint32_t)b, d->dev = (uint32_t)c, d->func = (uint32_t)f;
    } else {
      if (a > UINT16_MAX) return bad;
      d->by_id = true;
      d->vendor = (uint16_t)a, d->device = (uint16_t)b;
    }
  }
  while (take(&s, ','))
    if (!option(&s, d)) return bad;
  return *s ? bad : NULL;
}

/* ---- finding; libpciaccess keeps one list for the process ---- */

static pthread_mutex_t pci_lock = PTHREAD_MUTEX_INITIALIZER;

static bool matches(const struct pcie_detail *d, const struct pci_device *p) {
  if (d->by_slot) return p->domain == d->domain && p->bus == d->bus && p->dev == d->dev && p->func == d->func;
  if (d->by_id) return p->vendor_id == d->vendor && p->device_id == d->device;
  return p->subdevice_id == PCIE_SUBSYSTEM;
}

/* With pci_lock held and pci_system_init done. NULL: none; *seen counts devices of any kind. */
static struct pci_device *first_match(const struct pcie_detail *d, unsigned *seen) {
  struct pci_device_iterator *it = pci_slot_match_iterator_create(NULL);
  struct pci_device *p, *found = NULL;
  *seen = 0;
  while (it && (p = pci_device_next(it))) {
    (*seen)++;
    if (pci_device_probe(p) == 0 && !found && matches(d, p)) found = p;
  }
  if (it) pci_iterator_destroy(it);
  return found;
}

static void slot_of(const struct pci_device *p, char where[PCIE_WHERE]) {
  snprintf(where, PCIE_WHERE, "%04x:%02x:%02x.%x", p->domain, p->bus, p->dev, p->func);
}

static const char *none(const struct pcie_detail *d, unsigned seen) {
  static _Thread_local char text[240];
  if (d->by_slot || d->by_id)
    snprintf(text, sizeof text,
             "no such device among the %u on the PCI bus (lspci -nn; after programming a card: echo 1 > "
             "/sys/bus/pci/rescan)",
             seen);
  else
    snprintf(
        text, sizeof text,
        "none of the %u devices on the PCI bus carries Foray's mark (subsystem device %04x); name a slot "
        "for another one: pcie:0000:03:00.0",
        seen, (unsigned)PCIE_SUBSYSTEM);
  return text;
}

const char *pcie_find(const struct pcie_detail *d, char where[PCIE_WHERE], char *about, size_t cap) {
  const char *why = NULL;
  unsigned seen = 0;
  pthread_mutex_lock(&pci_lock);
  if (pci_system_init() != 0)
    why = "no PCI bus on this machine (" SYSFS ")";
  else {
    struct pci_device *p = first_match(d, &seen);
    if (p) {
      slot_of(p, where);
      size_t at = (size_t)snprintf(about, cap, "PCIe card %04x:%04x", p->vendor_id, p->device_id);
      for (int i = 0; i < BARS && at < cap; i++)
        if (p->regions[i].size)
          at += (size_t)snprintf(about + at, cap - at, ", BAR%d %llu KiB", i,
                                 (unsigned long long)(p->regions[i].size >> 10));
    } else
      why = none(d, seen);
    pci_system_cleanup();
  }
  pthread_mutex_unlock(&pci_lock);
  return why;
}

/* ---- a mapped card ---- */

struct pcie_map {
  char where[PCIE_WHERE];
  int lock, irq; /* -1: none */
  volatile uint8_t *ctl, *mem;
  void *maps[2];
  size_t sizes[2];
  struct pcie_traffic traffic;
};

static void unmap(void *arg) {
  struct pcie_map *m = arg;
  for (int i = 0; i < 2; i++)
    if (m->maps[i]) munmap(m->maps[i], m->sizes[i]); /* the library has forgotten its device by now */
  if (m->irq >= 0) close(m->irq);
  if (m->lock >= 0) close(m->lock);
  free(m);
}

static enum foray_status rights(const char *where, int bar, int e, struct foray_err *err) {
  if (e == EACCES || e == EPERM)
    return foray_err_set(
        err, FORAY_E_IO,
        "pcie:%s: no right to map BAR %d (%s/%s/resource%d): install drivers/pcie/60-foray.rules in "
        "/etc/udev/rules.d and join its group 'foray' (root sees this only where the kernel is locked down: "
        "Secure Boot)",
        where, bar, SYSFS, where, bar);
  return foray_err_set(err, FORAY_E_IO, "pcie:%s: BAR %d cannot be mapped: %s", where, bar, strerror(e));
}

/* One user at a time, over processes. The file is the one that the kernel offers for mapping, so no lock file
 * is left behind by a crash. */
static enum foray_status lock_card(struct pcie_map *m, int bar, struct foray_err *err) {
  char path[PATH_CAP];
  snprintf(path, sizeof path, "%s/%s/resource%d", SYSFS, m->where, bar);
  m->lock = open(path, O_RDWR | O_CLOEXEC);
  if (m->lock < 0) return rights(m->where, bar, errno, err);
  if (flock(m->lock, LOCK_EX | LOCK_NB) != 0)
    return foray_err_set(err, FORAY_E_BUSY, "pcie:%s: another process uses this card (fuser -v %s)", m->where,
                         path);
  return FORAY_OK;
}

static int largest_other(const struct pci_device *p, int not_this) {
  int best = PCIE_ANY;
  for (int i = 0; i < BARS; i++)
    if (i != not_this && p->regions[i].size && !p->regions[i].is_IO &&
        (best == PCIE_ANY || p->regions[i].size > p->regions[best].size))
      best = i;
  return best;
}

/* The window of a BAR from `at` on: its size must be what the kernel's file says and hold `least` bytes. */
static enum foray_status window(const struct pcie_map *m, const struct pci_device *p, int bar, uint64_t at,
                                uint64_t least, const char *what, struct foray_err *err) {
  char path[PATH_CAP];
  struct stat st;
  if (bar == PCIE_ANY || p->regions[bar].size == 0 || p->regions[bar].is_IO)
    return foray_err_set(err, FORAY_E_ARG,
                         "pcie:%s: no memory BAR%s%.0d for the %s (set ctl= or mem=; lspci -v shows them)",
                         m->where, bar == PCIE_ANY ? "" : " ", bar == PCIE_ANY ? 0 : bar, what);
  const uint64_t size = p->regions[bar].size;
  snprintf(path, sizeof path, "%s/%s/resource%d", SYSFS, m->where, bar);
  if (stat(path, &st) == 0 && (uint64_t)st.st_size != size)
    return foray_err_set(
        err, FORAY_E_FORMAT,
        "pcie:%s: BAR %d has %llu bytes by its configuration, %llu by the kernel's file: rescan "
        "the bus",
        m->where, bar, (unsigned long long)size, (unsigned long long)st.st_size);
  if (at > size || size - at < least)
    return foray_err_set(
        err, FORAY_E_ARG,
        "pcie:%s: BAR %d has %llu bytes, too few for the %s (%llu from offset %llu): another "
        "bitstream is loaded, or ctl= and mem= are wrong",
        m->where, bar, (unsigned long long)size, what, (unsigned long long)least, (unsigned long long)at);
  return FORAY_OK;
}

static enum foray_status map_bar(struct pcie_map *m, struct pci_device *p, int bar, int k, bool combine,
                                 struct foray_err *err) {
  const unsigned flags = PCI_DEV_MAP_FLAG_WRITABLE |
                         (combine && p->regions[bar].is_prefetchable ? PCI_DEV_MAP_FLAG_WRITE_COMBINE : 0);
  m->sizes[k] = (size_t)p->regions[bar].size;
  int e = pci_device_map_range(p, p->regions[bar].base_addr, p->regions[bar].size, flags, &m->maps[k]);
  if (e == 0) return FORAY_OK;
  m->maps[k] = NULL;
  return rights(m->where, bar, e, err);
}

/* /dev/uioN of this card, where uio_pci_generic (or another UIO driver) is bound to it. */
static int open_irq(const char *where) {
  char path[PATH_CAP], dev[PATH_CAP];
  snprintf(path, sizeof path, "%s/%s/uio", SYSFS, where);
  DIR *d = opendir(path);
  if (!d) return -1;
  int fd = -1;
  for (struct dirent *e; fd < 0 && (e = readdir(d));)
    if (!strncmp(e->d_name, "uio", 3)) {
      snprintf(dev, sizeof dev, "/dev/%s", e->d_name);
      fd = open(dev, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    }
  closedir(d);
  return fd;
}

/* ---- the bus ---- */

static enum foray_status read32(void *arg, uint32_t at, uint32_t *v, struct foray_err *err) {
  const struct pcie_map *m = arg;
  (void)err;
  *v = *(volatile uint32_t *)(volatile void *)(m->ctl + at);
  atomic_thread_fence(memory_order_acquire);
  return FORAY_OK;
}

static enum foray_status write32(void *arg, uint32_t at, uint32_t v, struct foray_err *err) {
  struct pcie_map *m = arg;
  (void)err;
  atomic_thread_fence(memory_order_seq_cst); /* write-combined data first */
  *(volatile uint32_t *)(volatile void *)(m->ctl + at) = v;
  return FORAY_OK;
}

/* Aligned accesses of 8 bytes, single bytes at the ends: what every root complex and card takes. */
static enum foray_status mem_read(void *arg, uint64_t at, void *to, uint64_t n, struct foray_err *err) {
  struct pcie_map *m = arg;
  uint8_t *out = to;
  volatile uint8_t *p = m->mem + at;
  (void)err;
  for (; n && (uintptr_t)p % 8; n--) *out++ = *p++, m->traffic.mem_reads++;
  for (; n >= 8; n -= 8, out += 8, p += 8, m->traffic.mem_reads++) {
    const uint64_t v = *(volatile uint64_t *)(volatile void *)p;
    memcpy(out, &v, 8);
  }
  for (; n; n--) *out++ = *p++, m->traffic.mem_reads++;
  return FORAY_OK;
}

static enum foray_status mem_write(void *arg, uint64_t at, const void *from, uint64_t n,
                                   struct foray_err *err) {
  struct pcie_map *m = arg;
  const uint8_t *in = from;
  volatile uint8_t *p = m->mem + at;
  (void)err;
  for (; n && (uintptr_t)p % 8; n--) *p++ = *in++, m->traffic.mem_writes++;
  for (; n >= 8; n -= 8, in += 8, p += 8, m->traffic.mem_writes++) {
    uint64_t v;
    memcpy(&v, in, 8);
    *(volatile uint64_t *)(volatile void *)p = v;
  }
  for (; n; n--) *p++ = *in++, m->traffic.mem_writes++;
  return FORAY_OK;
}

/* UIO: a read gives the count of interrupts, a write of 1 lets the next one through. */
static bool wait_irq(void *arg, uint32_t us) {
  struct pcie_map *m = arg;
  struct pollfd p = {.fd = m->irq, .events = POLLIN};
  uint32_t v = 1;
  if (poll(&p, 1, us < 1000 ? 1 : (int)(us / 1000)) <= 0 || read(m->irq, &v, 4) != 4) return false;
  m->traffic.interrupts++;
  (void)write32(m, FORAY_REG_IRQ_STATUS, 1, NULL);
  v = 1;
  if (write(m->irq, &v, 4) != 4) return false;
  return true;
}

enum foray_status pcie_map(const struct pcie_detail *want, struct foray_bus *bus, uint64_t *mem_bytes,
                           char where[PCIE_WHERE], struct foray_err *err) {
  struct pcie_map *m = calloc(1, sizeof *m);
  if (!m) return foray_err_set(err, FORAY_E_NOMEM, "pcie");
  m->lock = m->irq = -1;
  unsigned seen = 0;
  uint16_t command = 0;
  enum foray_status st = FORAY_OK;
  pthread_mutex_lock(&pci_lock);
  struct pci_device *p = NULL;
  if (pci_system_init() != 0)
    st = foray_err_set(err, FORAY_E_UNSUPPORTED, "pcie: no PCI bus on this machine (" SYSFS ")");
  else if (!(p = first_match(want, &seen)))
    st = foray_err_set(err, FORAY_E_NOTFOUND, "pcie: %s", none(want, seen));
  if (p) {
    struct pcie_detail d = *want;
    slot_of(p, m->where);
    if (d.ctl_bar == PCIE_ANY) d.ctl_bar = 0;
    if (d.mem_bar == PCIE_ANY) d.mem_bar = largest_other(p, d.ctl_bar);
    if (pci_device_cfg_read_u16(p, &command, COMMAND) == 0 && command == UINT16_MAX)
      st = foray_err_set(err, FORAY_E_CLOSED, "pcie:%s: its configuration reads all ones: the card is gone",
                         m->where);
    else if (!(command & COMMAND_MEM))
      st = foray_err_set(err, FORAY_E_STATE,
                         "pcie:%s: its memory windows are switched off; as root: echo 1 > %s/%s/enable",
                         m->where, SYSFS, m->where);
    if (st == FORAY_OK) st = window(m, p, d.ctl_bar, d.ctl_at, CTL_BYTES, "control map", err);
    if (st == FORAY_OK) st = window(m, p, d.mem_bar, d.mem_at, FORAY_ABI_UNIT * 2, "memory", err);
    if (st == FORAY_OK) st = lock_card(m, d.ctl_bar, err);
    if (st == FORAY_OK) st = map_bar(m, p, d.ctl_bar, 0, false, err);
    if (st == FORAY_OK && d.mem_bar != d.ctl_bar) st = map_bar(m, p, d.mem_bar, 1, true, err);
    if (st == FORAY_OK) {
      m->ctl = (volatile uint8_t *)m->maps[0] + d.ctl_at;
      m->mem = (volatile uint8_t *)m->maps[d.mem_bar != d.ctl_bar] + d.mem_at;
      *mem_bytes = p->regions[d.mem_bar].size - d.mem_at;
      if (d.mem_bar == d.ctl_bar && d.ctl_at > d.mem_at) *mem_bytes = d.ctl_at - d.mem_at;
      m->irq = open_irq(m->where);
    }
    snprintf(where, PCIE_WHERE, "%s", m->where);
  }
  if (p || seen) pci_system_cleanup(); /* mappings stay */
  pthread_mutex_unlock(&pci_lock);
  if (st != FORAY_OK) {
    unmap(m);
    return st;
  }
  *bus = (struct foray_bus){.arg = m,
                            .read32 = read32,
                            .write32 = write32,
                            .mem_read = mem_read,
                            .mem_write = mem_write,
                            .wait = m->irq >= 0 ? wait_irq : NULL,
                            .close = unmap};
  if (m->irq >= 0) {
    (void)write32(m, FORAY_REG_IRQ_ENABLE, 1, NULL);
    (void)write32(m, FORAY_REG_IRQ_GLOBAL, 1, NULL);
  }
  return FORAY_OK;
}

void pcie_traffic(const struct foray_bus *bus, struct pcie_traffic *t) {
  *t = ((const struct pcie_map *)bus->arg)->traffic;
}
