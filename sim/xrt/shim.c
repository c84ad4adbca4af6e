/* The XRT simulation: the xcl* calls of a hardware layer in which a device is banks of memory and kernel
 * models (kernel_api.h) loaded out of the xclbin. libxrt, and so every unmodified host, sits on top. Buffers
 * have host memory apart from device memory, so that a host which forgets a sync sees it here as it would on
 * a card.
 *
 * Thread rule: any thread may call; one lock a device. Kernels are stepped by a thread of the device. */
#include "shim.h"

#include "kernel_api.h"

#include <dlfcn.h>
#include <errno.h>
#include <ert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xrt.h>

enum {
  DEVICES = 2,
  BANKS_MAX = 64,
  CUS_MAX = 128,
  QUEUE_MAX = 1024,
  PAGE = 4096,
  STEP = 2000, /* cycles between looks at CONTROL */
  START = 1,
  DONE = 2,
  BANK_BITS = 0xffffff,
  BANK_NONE = 0xffffff,
  DIRECT = 7 << 28 /* device only, host only, P2P: one memory for both sides */
};

struct bank {
  uint64_t base, bytes;
  uint8_t *mem;
};

struct bo {
  bool used, own;
  uint8_t *host;
  uint64_t at, bytes; /* at: device address; 0 with a command buffer */
  unsigned flags;
};

struct cu {
  uint64_t base;
  void *k;
  int64_t command; /* handle of the command it runs, -1: idle */
  char name[65];
};

struct device {
  unsigned index;
  void *core;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pthread_t worker;
  bool quit;
  struct bank bank[BANKS_MAX];
  unsigned n_banks;
  struct cu cu[CUS_MAX];
  unsigned n_cus;
  struct bo *bo;
  unsigned n_bo;
  unsigned queue[QUEUE_MAX], n_queue;
  unsigned done; /* completions that nobody has waited for */
  void *so;
  const struct foray_sim_kernel *api;
};

static void say(const char *what, const char *why) { fprintf(stderr, "foray sim-xrt: %s: %s\n", what, why); }

/* ---- memory ---- */

static uint8_t *direct(void *ctx, uint64_t addr, size_t n, uint64_t *base, uint64_t *bytes) {
  const struct device *d = ctx;
  for (unsigned i = 0; i < d->n_banks; i++) {
    const struct bank *b = &d->bank[i];
    if (!b->mem || addr < b->base || addr - b->base > b->bytes || n > b->bytes - (addr - b->base)) continue;
    if (base) *base = b->base;
    if (bytes) *bytes = b->bytes;
    return b->mem + (addr - b->base);
  }
  return NULL;
}
static void mem_read(void *ctx, uint64_t addr, void *to, size_t n) {
  const uint8_t *p = direct(ctx, addr, n, NULL, NULL);
  if (p)
    memcpy(to, p, n);
  else
    memset(to, 0, n);
}
static void mem_write(void *ctx, uint64_t addr, const void *from, size_t n) {
  uint8_t *p = direct(ctx, addr, n, NULL, NULL);
  if (p) memcpy(p, from, n);
}

static void drop_banks(struct device *d) {
  for (unsigned i = 0; i < d->n_banks; i++)
    if (d->bank[i].mem) munmap(d->bank[i].mem, d->bank[i].bytes);
  d->n_banks = 0;
}

static int make_banks(struct device *d, const struct mem_topology *t) {
  drop_banks(d);
  for (int i = 0; i < t->m_count && i < BANKS_MAX; i++) {
    const struct mem_data *m = &t->m_mem_data[i];
    struct bank *b = &d->bank[d->n_banks++];
    *b = (struct bank){m->m_base_address, m->m_size * 1024, NULL};
    if (!m->m_used || m->m_type == MEM_STREAMING || b->bytes == 0) continue;
    /* Group topologies name the same memory twice: one mapping serves both. */
    for (unsigned k = 0; k + 1 < d->n_banks; k++)
      if (d->bank[k].mem && d->bank[k].base == b->base) b->bytes = 0;
    if (b->bytes == 0) continue;
    void *p =
        mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return -ENOMEM;
    b->mem = p;
  }
  return 0;
}

/* The bank that a buffer of these flags goes to. */
static const struct bank *bank_of(const struct device *d, unsigned flags) {
  unsigned i = flags & BANK_BITS;
  if (i == BANK_NONE) i = 0;
  if (i < d->n_banks && !d->bank[i].mem) /* an alias */
    for (unsigned k = 0; k < d->n_banks; k++)
      if (d->bank[k].mem && d->bank[k].base == d->bank[i].base) return &d->bank[k];
  if (i < d->n_banks && d->bank[i].mem) return &d->bank[i];
  for (unsigned k = 0; k < d->n_banks; k++)
    if (d->bank[k].mem) return &d->bank[k];
  return NULL;
}

/* First fit above the first page of a bank; there are few buffers. */
static bool place(const struct device *d, const struct bank *b, uint64_t bytes, uint64_t *at) {
  uint64_t a = b->base + PAGE;
  bytes = (bytes + PAGE - 1) / PAGE * PAGE;
  for (bool moved = true; moved;) {
    moved = false;
    for (unsigned i = 0; i < d->n_bo; i++) {
      const struct bo *o = &d->bo[i];
      const uint64_t end = o->at + (o->bytes + PAGE - 1) / PAGE * PAGE;
      if (o->used && o->at && a < end && o->at < a + bytes) a = end, moved = true;
    }
  }
  *at = a;
  return a - b->base <= b->bytes && bytes <= b->bytes - (a - b->base);
}

static struct bo *bo_of(struct device *d, unsigned h) {
  return h < d->n_bo && d->bo[h].used ? &d->bo[h] : NULL;
}

static unsigned bo_make(struct device *d, void *user, size_t bytes, unsigned flags) {
  unsigned h = 0;
  pthread_mutex_lock(&d->lock);
  while (h < d->n_bo && d->bo[h].used) h++;
  if (h == d->n_bo) {
    const unsigned n = d->n_bo ? 2 * d->n_bo : 64;
    struct bo *p = realloc(d->bo, n * sizeof *p);
    if (!p) goto none;
    memset(p + d->n_bo, 0, (n - d->n_bo) * sizeof *p);
    d->bo = p;
    d->n_bo = n;
  }
  struct bo o = {.used = true, .bytes = bytes, .flags = flags, .host = user};
  if (!(flags & XCL_BO_FLAGS_EXECBUF)) {
    const struct bank *b = bank_of(d, flags);
    if (!b || !place(d, b, bytes, &o.at)) {
      say("buffer", b ? "its memory bank is full" : "no xclbin with memory banks is loaded");
      goto none;
    }
    if (flags & DIRECT && !user) o.host = direct(d, o.at, bytes, NULL, NULL);
  }
  if (!o.host) {
    o.own = true;
    o.host = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!o.host) goto none;
    memset(o.host, 0, bytes);
  }
  d->bo[h] = o;
  pthread_mutex_unlock(&d->lock);
  return h;
none:
  pthread_mutex_unlock(&d->lock);
  errno = ENOMEM;
  return NULLBO;
}

/* ---- kernels ---- */

static struct ert_start_kernel_cmd *command(struct device *d, unsigned h) {
  struct bo *o = bo_of(d, h);
  return o ? (struct ert_start_kernel_cmd *)(void *)o->host : NULL;
}

/* An idle unit that the command may run on; -1: all are busy, -2: none is named. */
static int unit_for(const struct device *d, const struct ert_start_kernel_cmd *c) {
  int any = -2;
  for (unsigned i = 0; i < d->n_cus; i++) {
    const uint32_t mask = i < 32 ? c->cu_mask : i / 32 <= c->extra_cu_masks ? c->data[i / 32 - 1] : 0;
    if (!(mask >> (i % 32) & 1)) continue;
    if (d->cu[i].command < 0) return (int)i;
    any = -1;
  }
  return any;
}

static void finish(struct device *d, struct ert_start_kernel_cmd *c, uint32_t state) {
  c->state = state & 15;
  d->done++;
  pthread_cond_broadcast(&d->changed);
}

static void begin(struct device *d, struct cu *u, unsigned h, const struct ert_start_kernel_cmd *c) {
  const uint32_t *image = c->data + c->extra_cu_masks;
  const uint32_t words = (uint32_t)c->count - 1u - c->extra_cu_masks;
  for (uint32_t i = 4; i < words; i++) d->api->reg_write(u->k, 4 * i, image[i]);
  (void)d->api->reg_read(u->k, 0); /* a done that was left */
  d->api->reg_write(u->k, 0, START);
  u->command = h;
}

/* Starts what can be started, in order of arrival but past what must wait. */
static void dispatch(struct device *d) {
  for (unsigned i = 0; i < d->n_queue;) {
    struct ert_start_kernel_cmd *c = command(d, d->queue[i]);
    const int u = !c ? -2 : c->opcode == ERT_CONFIGURE ? -3 : unit_for(d, c);
    if (u == -1) {
      i++;
      continue;
    }
    const unsigned h = d->queue[i];
    memmove(d->queue + i, d->queue + i + 1, (--d->n_queue - i) * sizeof *d->queue);
    if (u >= 0)
      begin(d, &d->cu[u], h, c);
    else if (c)
      finish(d, c, u == -3 ? ERT_CMD_STATE_COMPLETED : ERT_CMD_STATE_ERROR);
  }
}

/* One round over the busy units. Returns whether one is busy; *eager: stepping again at once is worth it. */
static bool step_all(struct device *d, bool *eager) {
  bool busy = false;
  *eager = false;
  for (unsigned i = 0; i < d->n_cus; i++) {
    struct cu *u = &d->cu[i];
    if (u->command < 0) continue;
    const bool more = d->api->step(u->k, STEP) != 0;
    if (d->api->reg_read(u->k, 0) & DONE) {
      struct ert_start_kernel_cmd *c = command(d, (unsigned)u->command);
      u->command = -1;
      if (c) finish(d, c, ERT_CMD_STATE_COMPLETED);
      *eager = true;
    } else {
      *eager |= more;
    }
    busy = true;
  }
  return busy;
}

static void *work(void *arg) {
  struct device *d = arg;
  pthread_mutex_lock(&d->lock);
  while (!d->quit) {
    bool eager;
    dispatch(d);
    if (!step_all(d, &eager)) {
      pthread_cond_wait(&d->changed, &d->lock);
      continue;
    }
    pthread_mutex_unlock(&d->lock); /* callers get their turn */
    if (!eager) nanosleep(&(struct timespec){0, 30000}, NULL);
    pthread_mutex_lock(&d->lock);
  }
  pthread_mutex_unlock(&d->lock);
  return NULL;
}

static void drop_kernels(struct device *d) {
  for (unsigned i = 0; i < d->n_cus; i++)
    if (d->cu[i].k) d->api->destroy(d->cu[i].k);
  d->n_cus = 0;
  if (d->so) dlclose(d->so);
  d->so = NULL;
  d->api = NULL;
}

static int load_model(struct device *d, const void *p, size_t n) {
  char path[64];
  if (n < 4 || memcmp(p, "\177ELF", 4) != 0) {
    say("xclbin", "its BITSTREAM is no kernel model (foray-xclbin puts one in); a bitstream for a card does "
                  "not run here");
    return -EINVAL;
  }
  const int fd = memfd_create("kernel-model", MFD_CLOEXEC);
  if (fd < 0) return -errno;
  for (size_t at = 0; at < n;) {
    const ssize_t k = write(fd, (const char *)p + at, n - at);
    if (k <= 0) {
      close(fd);
      return -EIO;
    }
    at += (size_t)k;
  }
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  d->so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!d->so) say("kernel model", dlerror());
  close(fd);
  if (!d->so) return -EINVAL;
  d->api = dlsym(d->so, "foray_sim_kernel");
  if (d->api && d->api->version == FORAY_SIM_KERNEL_VERSION) return 0;
  say("kernel model", "it does not export foray_sim_kernel of this version");
  return -EINVAL;
}

static const void *section(const struct axlf *x, enum axlf_section_kind kind, size_t *bytes) {
  for (uint32_t i = 0; i < x->m_header.m_numSections; i++)
    if (x->m_sections[i].m_sectionKind == (uint32_t)kind) {
      *bytes = x->m_sections[i].m_sectionSize;
      return (const char *)x + x->m_sections[i].m_sectionOffset;
    }
  return NULL;
}

static int make_units(struct device *d, const struct ip_layout *l) {
  const struct foray_sim_memory mem = {d, mem_read, mem_write, direct};
  for (int i = 0; l && i < l->m_count && d->n_cus < CUS_MAX; i++) {
    if (l->m_ip_data[i].m_type != IP_KERNEL) continue;
    struct cu *u = &d->cu[d->n_cus];
    *u = (struct cu){.base = l->m_ip_data[i].m_base_address, .command = -1};
    snprintf(u->name, sizeof u->name, "%.63s", (const char *)l->m_ip_data[i].m_name);
    u->k = d->api->create(u->name, &mem);
    if (!u->k) {
      say(u->name, "the kernel model cannot be made");
      return -EINVAL;
    }
    d->n_cus++;
  }
  return 0;
}

int foray_shim_reset(void *dev) {
  struct device *d = dev;
  const struct foray_sim_memory mem = {d, mem_read, mem_write, direct};
  int rc = 0;
  pthread_mutex_lock(&d->lock);
  for (unsigned i = 0; i < d->n_cus; i++) {
    struct ert_start_kernel_cmd *c = d->cu[i].command < 0 ? NULL : command(d, (unsigned)d->cu[i].command);
    d->cu[i].command = -1;
    if (c) finish(d, c, ERT_CMD_STATE_ABORT);
    d->api->destroy(d->cu[i].k);
    d->cu[i].k = d->api->create(d->cu[i].name, &mem);
    if (!d->cu[i].k) rc = -ENOMEM;
  }
  pthread_mutex_unlock(&d->lock);
  return rc;
}

/* ---- the hardware layer ---- */

unsigned xclProbe(void) { return DEVICES; }
unsigned xclVersion(void) { return 2; }

xclDeviceHandle xclOpen(unsigned index, const char *log, enum xclVerbosityLevel level) {
  (void)log, (void)level;
  if (index >= DEVICES) return NULL;
  struct device *d = calloc(1, sizeof *d);
  if (!d) return NULL;
  d->index = index;
  pthread_mutex_init(&d->lock, NULL);
  pthread_cond_init(&d->changed, NULL);
  d->core = foray_shim_core_open(d, index);
  if (!d->core || pthread_create(&d->worker, NULL, work, d)) {
    if (d->core) foray_shim_core_close(d->core);
    free(d);
    return NULL;
  }
  return d;
}

void xclClose(xclDeviceHandle h) {
  struct device *d = h;
  pthread_mutex_lock(&d->lock);
  d->quit = true;
  pthread_cond_broadcast(&d->changed);
  pthread_mutex_unlock(&d->lock);
  pthread_join(d->worker, NULL);
  foray_shim_core_close(d->core);
  drop_kernels(d);
  for (unsigned i = 0; i < d->n_bo; i++)
    if (d->bo[i].used && d->bo[i].own) free(d->bo[i].host);
  drop_banks(d);
  free(d->bo);
  free(d);
}

int xclGetDeviceInfo2(xclDeviceHandle h, struct xclDeviceInfo2 *info) {
  const struct device *d = h;
  memset(info, 0, sizeof *info);
  snprintf(info->mName, sizeof info->mName, "foray_sim_%u", d->index);
  info->mHALMajorVersion = 2;
  info->mHALMinorVersion = 1;
  info->mDataAlignment = PAGE;
  for (unsigned i = 0; i < d->n_banks; i++) info->mDDRSize += d->bank[i].bytes;
  info->mDDRBankCount = (unsigned short)d->n_banks;
  info->mOCLFrequency[0] = 300;
  info->mNumClocks = 1;
  return 0;
}

int xclLoadXclBin(xclDeviceHandle h, const struct axlf *x) {
  struct device *d = h;
  size_t n = 0, bits_n = 0;
  const struct mem_topology *mem = section(x, ASK_GROUP_TOPOLOGY, &n);
  if (!mem) mem = section(x, MEM_TOPOLOGY, &n);
  const struct ip_layout *ips = section(x, IP_LAYOUT, &n);
  const void *bits = section(x, BITSTREAM, &bits_n);
  int rc = mem && bits ? 0 : -EINVAL;
  if (rc) say("xclbin", "it has no MEM_TOPOLOGY or no BITSTREAM");
  pthread_mutex_lock(&d->lock);
  for (unsigned i = 0; i < d->n_cus; i++)
    if (d->cu[i].command >= 0) rc = -EBUSY;
  for (unsigned i = 0; i < d->n_bo; i++)
    if (d->bo[i].used && d->bo[i].at) rc = rc ? rc : -EBUSY; /* their addresses would be lost */
  if (rc == 0) {
    drop_kernels(d);
    rc = make_banks(d, mem);
  }
  if (rc == 0) rc = load_model(d, bits, bits_n);
  if (rc == 0) rc = make_units(d, ips);
  pthread_mutex_unlock(&d->lock);
  if (rc == 0) foray_shim_core_register(d->core, x);
  return rc;
}

xclBufferHandle xclAllocBO(xclDeviceHandle h, size_t n, int unused, unsigned flags) {
  (void)unused;
  return bo_make(h, NULL, n, flags);
}
xclBufferHandle xclAllocUserPtrBO(xclDeviceHandle h, void *user, size_t n, unsigned flags) {
  return bo_make(h, user, n, flags);
}

void xclFreeBO(xclDeviceHandle h, xclBufferHandle b) {
  struct device *d = h;
  pthread_mutex_lock(&d->lock);
  struct bo *o = bo_of(d, b);
  if (o) {
    if (o->own) free(o->host);
    *o = (struct bo){0};
  }
  pthread_mutex_unlock(&d->lock);
}

void *xclMapBO(xclDeviceHandle h, xclBufferHandle b, bool write) {
  (void)write;
  struct device *d = h;
  pthread_mutex_lock(&d->lock);
  struct bo *o = bo_of(d, b);
  void *p = o ? o->host : NULL;
  pthread_mutex_unlock(&d->lock);
  return p;
}
int xclUnmapBO(xclDeviceHandle h, xclBufferHandle b, void *p) {
  (void)h, (void)b, (void)p;
  return 0;
}

/* [at, at + n) of a buffer between `p` and the device. */
static int transfer(struct device *d, xclBufferHandle b, void *p, size_t n, size_t at, bool to_device,
                    bool host) {
  int rc = -EINVAL;
  pthread_mutex_lock(&d->lock);
  struct bo *o = bo_of(d, b);
  if (o && at <= o->bytes && n <= o->bytes - at) {
    uint8_t *q = host ? o->host + at : p, *mem = direct(d, o->at + at, n, NULL, NULL);
    if (mem && mem != q) memmove(to_device ? mem : q, to_device ? q : mem, n);
    rc = mem ? 0 : -EINVAL;
  }
  pthread_mutex_unlock(&d->lock);
  return rc;
}

int xclSyncBO(xclDeviceHandle h, xclBufferHandle b, enum xclBOSyncDirection dir, size_t n, size_t at) {
  return transfer(h, b, NULL, n, at, dir == XCL_BO_SYNC_BO_TO_DEVICE, true);
}
size_t xclWriteBO(xclDeviceHandle h, xclBufferHandle b, const void *src, size_t n, size_t at) {
  return (size_t)transfer(h, b, (void *)(uintptr_t)src, n, at, true, false);
}
size_t xclReadBO(xclDeviceHandle h, xclBufferHandle b, void *dst, size_t n, size_t at) {
  return (size_t)transfer(h, b, dst, n, at, false, false);
}

int xclCopyBO(xclDeviceHandle h, xclBufferHandle to, xclBufferHandle from, size_t n, size_t to_at,
              size_t from_at) {
  struct device *d = h;
  int rc = -EINVAL;
  pthread_mutex_lock(&d->lock);
  const struct bo *t = bo_of(d, to), *f = bo_of(d, from);
  if (t && f && to_at <= t->bytes && n <= t->bytes - to_at && from_at <= f->bytes &&
      n <= f->bytes - from_at) {
    uint8_t *a = direct(d, t->at + to_at, n, NULL, NULL), *b = direct(d, f->at + from_at, n, NULL, NULL);
    if (a && b) memmove(a, b, n), rc = 0;
  }
  pthread_mutex_unlock(&d->lock);
  return rc;
}

int xclGetBOProperties(xclDeviceHandle h, xclBufferHandle b, struct xclBOProperties *p) {
  struct device *d = h;
  pthread_mutex_lock(&d->lock);
  const struct bo *o = bo_of(d, b);
  if (o) {
    p->handle = b;
    p->flags = o->flags;
    p->size = o->bytes;
    p->paddr = o->at;
  }
  pthread_mutex_unlock(&d->lock);
  return o ? 0 : -EINVAL;
}

xclBufferExportHandle xclExportBO(xclDeviceHandle h, xclBufferHandle b) {
  (void)h, (void)b;
  return -1;
}
xclBufferHandle xclImportBO(xclDeviceHandle h, xclBufferExportHandle fd, unsigned flags) {
  (void)h, (void)fd, (void)flags;
  return NULLBO;
}

/* Commands that are refused make XRT take its own way (a copy through the host). */
int xclExecBuf(xclDeviceHandle h, xclBufferHandle b) {
  struct device *d = h;
  pthread_mutex_lock(&d->lock);
  const struct ert_start_kernel_cmd *c = command(d, b);
  int rc = !c ? -EINVAL : (c->opcode != ERT_START_CU && c->opcode != ERT_CONFIGURE) ? -ENOSYS : 0;
  if (rc == 0 && d->n_queue == QUEUE_MAX) rc = -ENOSPC;
  if (rc == 0) {
    d->queue[d->n_queue++] = b;
    pthread_cond_broadcast(&d->changed);
  }
  pthread_mutex_unlock(&d->lock);
  return rc;
}

int xclExecWait(xclDeviceHandle h, int ms) {
  struct device *d = h;
  struct timespec until;
  int rc = 0;
  clock_gettime(CLOCK_REALTIME, &until);
  if (ms < 0) ms = 1000;
  until.tv_sec += ms / 1000;
  until.tv_nsec += (long)(ms % 1000) * 1000000;
  if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
  pthread_mutex_lock(&d->lock);
  while (d->done == 0 && rc == 0) rc = pthread_cond_timedwait(&d->changed, &d->lock, &until);
  const bool got = d->done > 0;
  if (got) d->done--;
  pthread_mutex_unlock(&d->lock);
  return got;
}

int xclOpenContext(xclDeviceHandle h, const xuid_t id, unsigned ip, bool shared) {
  (void)h, (void)id, (void)ip, (void)shared;
  return 0;
}
int xclCloseContext(xclDeviceHandle h, const xuid_t id, unsigned ip) {
  (void)h, (void)id, (void)ip;
  return 0;
}

static int reg(struct device *d, unsigned unit, uint32_t at, uint32_t *v, bool write) {
  int rc = -EINVAL;
  pthread_mutex_lock(&d->lock);
  if (unit < d->n_cus && at % 4 == 0) {
    if (write)
      d->api->reg_write(d->cu[unit].k, at, *v);
    else {
      /* The done of a scheduled run belongs to the scheduler. */
      *v = at == 0 && d->cu[unit].command >= 0 ? START : d->api->reg_read(d->cu[unit].k, at);
      (void)d->api->step(d->cu[unit].k, STEP); /* a host that polls lets time pass */
    }
    rc = 0;
  }
  pthread_mutex_unlock(&d->lock);
  return rc;
}
int xclRegRead(xclDeviceHandle h, uint32_t unit, uint32_t at, uint32_t *v) {
  return reg(h, unit, at, v, false);
}
int xclRegWrite(xclDeviceHandle h, uint32_t unit, uint32_t at, uint32_t v) {
  return reg(h, unit, at, &v, true);
}

/* By absolute address: registers of the unit whose window it is, else memory. */
static size_t by_address(struct device *d, enum xclAddressSpace space, uint64_t at, void *p, size_t n,
                         bool write) {
  if (space == XCL_ADDR_KERNEL_CTRL) {
    uint32_t *w = p;
    unsigned unit = 0;
    for (unsigned i = 0; i < d->n_cus; i++)
      if (d->cu[i].base <= at && d->cu[i].base >= d->cu[unit].base) unit = i;
    for (size_t i = 0; i + 4 <= n; i += 4)
      if (d->n_cus == 0 || reg(d, unit, (uint32_t)(at - d->cu[unit].base + i), &w[i / 4], write))
        return (size_t)-1;
    return n;
  }
  pthread_mutex_lock(&d->lock);
  if (write)
    mem_write(d, at, p, n);
  else
    mem_read(d, at, p, n);
  pthread_mutex_unlock(&d->lock);
  return n;
}
size_t xclRead(xclDeviceHandle h, enum xclAddressSpace s, uint64_t at, void *p, size_t n) {
  return by_address(h, s, at, p, n, false);
}
size_t xclWrite(xclDeviceHandle h, enum xclAddressSpace s, uint64_t at, const void *p, size_t n) {
  return by_address(h, s, at, (void *)(uintptr_t)p, n, true);
}
ssize_t xclUnmgdPread(xclDeviceHandle h, unsigned flags, void *p, size_t n, uint64_t at) {
  (void)flags;
  (void)by_address(h, XCL_ADDR_SPACE_DEVICE_RAM, at, p, n, false);
  return 0; /* what the core wants, whatever its header says */
}
ssize_t xclUnmgdPwrite(xclDeviceHandle h, unsigned flags, const void *p, size_t n, uint64_t at) {
  (void)flags;
  (void)by_address(h, XCL_ADDR_SPACE_DEVICE_RAM, at, (void *)(uintptr_t)p, n, true);
  return 0;
}

int xclLockDevice(xclDeviceHandle h) {
  (void)h;
  return 0;
}
int xclUnlockDevice(xclDeviceHandle h) {
  (void)h;
  return 0;
}
int xclReClock2(xclDeviceHandle h, unsigned short region, const unsigned short *mhz) {
  (void)h, (void)region, (void)mhz;
  return 0;
}
int xclP2pEnable(xclDeviceHandle h, bool enable, bool force) {
  (void)h, (void)enable, (void)force;
  return -1;
}
