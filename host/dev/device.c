/* The interface's common part: registry, heap allocation, range checks, error texts. */
#include "dev/device_impl.h"

#include "core/err.h"
#include "dev/plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct foray_dev_class foray_dev_class_ref, foray_dev_class_cpu;

enum { CLASSES_MAX = 16 };
static const struct foray_dev_class *classes[CLASSES_MAX] = {&foray_dev_class_ref, &foray_dev_class_cpu};
static int n_classes = 2;

struct block {
  uint64_t at, bytes;
};

struct foray_dev {
  const struct foray_dev_class *cls;
  void *self;
  struct foray_dev_info info;
  struct block *used; /* sorted by address */
  size_t n_used, cap_used;
};

enum foray_status foray_dev_register(const struct foray_dev_class *cls, struct foray_err *err) {
  for (int i = 0; i < n_classes; i++)
    if (!strcmp(classes[i]->name, cls->name))
      return classes[i] == cls ? FORAY_OK
                               : foray_err_set(err, FORAY_E_STATE, "device name '%s' is taken", cls->name);
  if (n_classes == CLASSES_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "more than %d device classes", CLASSES_MAX);
  classes[n_classes++] = cls;
  return FORAY_OK;
}

static const struct foray_dev_class *find(const char *name) {
  for (int i = 0; i < n_classes; i++)
    if (!strcmp(classes[i]->name, name)) return classes[i];
  return NULL;
}

/* The class of that name, from a plugin when need be. NULL: err says why. */
static const struct foray_dev_class *find_or_load(const char *name, struct foray_err *err) {
  const struct foray_dev_class *cls = find(name);
  if (cls) return cls;
  char why[512];
  cls = foray_dev_plugin_load(name, why, sizeof why);
  if (cls) return foray_dev_register(cls, err) == FORAY_OK ? cls : NULL;
  if (*why) {
    (void)foray_err_set(err, FORAY_E_UNSUPPORTED, "device '%s': %s", name, why);
    return NULL;
  }
  char names[256] = "";
  for (int i = 0; i < n_classes; i++) {
    size_t at = strlen(names);
    snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", classes[i]->name);
  }
  (void)foray_err_set(err, FORAY_E_NOTFOUND, "no device '%s'; there are: %s (and plugins: foray devices)",
                      name, names);
  return NULL;
}

struct listing {
  void (*fn)(void *arg, const struct foray_dev_info *info, const char *why);
  void *arg;
};

static void list_plugin(void *arg, const char *name) {
  const struct listing *l = arg;
  struct foray_err err = {0};
  if (find(name) || find_or_load(name, &err)) return; /* listed with the classes */
  struct foray_dev_info info = {.about = "plugin"};
  snprintf(info.name, sizeof info.name, "%s", name);
  l->fn(l->arg, &info, err.msg);
}

void foray_dev_list(void (*fn)(void *arg, const struct foray_dev_info *info, const char *why), void *arg) {
  foray_dev_plugin_scan(list_plugin, &(struct listing){fn, arg});
  for (int i = 0; i < n_classes; i++) {
    struct foray_dev_info info = {0};
    const char *why = classes[i]->describe("", &info);
    fn(arg, &info, why);
  }
}

enum foray_status foray_dev_open(const char *spec, const struct foray_dev_opts *opts, struct foray_dev **out,
                                 struct foray_err *err) {
  static const struct foray_dev_opts none;
  *out = NULL;
  if (!opts) opts = &none;
  size_t n = strcspn(spec, ":");
  const char *detail = spec[n] ? spec + n + 1 : "";
  char name[32];
  if (n >= sizeof name) return foray_err_set(err, FORAY_E_NOTFOUND, "no device '%s'", spec);
  snprintf(name, sizeof name, "%.*s", (int)n, spec);
  struct foray_err own = {0};
  const struct foray_dev_class *cls = find_or_load(name, err ? err : &own);
  if (!cls) return err ? err->code : own.code;
  struct foray_dev *d = calloc(1, sizeof *d);
  if (!d) return foray_err_set(err, FORAY_E_NOMEM, "device '%s'", spec);
  d->cls = cls;
  const char *why = cls->describe(detail, &d->info);
  enum foray_status st;
  if (why)
    st = foray_err_set(err, FORAY_E_UNSUPPORTED, "device '%s': %s", spec, why);
  else if (d->info.abi_hash != FORAY_ABI_HASH)
    st = foray_err_set(err, FORAY_E_MISMATCH, "device '%s' has ABI %016llx, this host %016llx", spec,
                       (unsigned long long)d->info.abi_hash, (unsigned long long)FORAY_ABI_HASH);
  else if (opts->heap && (!cls->takes_heap || opts->heap_bytes == 0 || opts->heap_bytes % FORAY_ABI_UNIT))
    st = foray_err_set(err, FORAY_E_UNSUPPORTED,
                       "device '%s' cannot work in %llu bytes of the caller's memory", spec,
                       (unsigned long long)opts->heap_bytes);
  else
    st = cls->open(detail, opts, &d->info, &d->self, err);
  if (st != FORAY_OK) {
    free(d);
    return st;
  }
  *out = d;
  return FORAY_OK;
}

void foray_dev_close(struct foray_dev *d) {
  if (!d) return;
  d->cls->close(d->self);
  free(d->used);
  free(d);
}

const struct foray_dev_info *foray_dev_info(const struct foray_dev *d) { return &d->info; }

/* First fit between the blocks in use, which stay sorted; there are at most some hundreds. */
enum foray_status foray_dev_alloc(struct foray_dev *d, uint64_t bytes, uint64_t *addr,
                                  struct foray_err *err) {
  *addr = 0;
  uint64_t size = foray_dev_up(bytes ? bytes : 1, FORAY_ABI_UNIT), at = FORAY_ABI_UNIT;
  if (bytes > d->info.heap_bytes) size = UINT64_MAX;
  size_t i = 0;
  for (; i < d->n_used; i++) {
    if (d->used[i].at - at >= size) break;
    at = d->used[i].at + d->used[i].bytes;
  }
  if (at > d->info.heap_bytes || size > d->info.heap_bytes - at)
    return foray_err_set(err, FORAY_E_LIMIT, "device '%s': no %llu bytes free in its heap of %llu",
                         d->info.name, (unsigned long long)bytes, (unsigned long long)d->info.heap_bytes);
  if (d->n_used == d->cap_used) {
    size_t cap = d->cap_used ? 2 * d->cap_used : 32;
    struct block *p = realloc(d->used, cap * sizeof *p);
    if (!p) return foray_err_set(err, FORAY_E_NOMEM, "device heap list");
    d->used = p;
    d->cap_used = cap;
  }
  memmove(d->used + i + 1, d->used + i, (d->n_used - i) * sizeof *d->used);
  d->used[i] = (struct block){at, size};
  d->n_used++;
  *addr = at;
  return FORAY_OK;
}

void foray_dev_free(struct foray_dev *d, uint64_t addr) {
  for (size_t i = 0; i < d->n_used; i++)
    if (d->used[i].at == addr) {
      memmove(d->used + i, d->used + i + 1, (d->n_used - i - 1) * sizeof *d->used);
      d->n_used--;
      return;
    }
}

static enum foray_status range(const struct foray_dev *d, uint64_t addr, uint64_t bytes,
                               struct foray_err *err) {
  if (addr > d->info.heap_bytes || bytes > d->info.heap_bytes - addr)
    return foray_err_set(err, FORAY_E_ARG, "device '%s': %llu bytes at %llu are outside its heap",
                         d->info.name, (unsigned long long)bytes, (unsigned long long)addr);
  return FORAY_OK;
}

enum foray_status foray_dev_upload(struct foray_dev *d, uint64_t addr, const void *src, uint64_t bytes,
                                   struct foray_err *err) {
  enum foray_status st = range(d, addr, bytes, err);
  return st != FORAY_OK ? st : d->cls->upload(d->self, addr, src, bytes, err);
}

enum foray_status foray_dev_download(struct foray_dev *d, uint64_t addr, void *dst, uint64_t bytes,
                                     struct foray_err *err) {
  enum foray_status st = range(d, addr, bytes, err);
  return st != FORAY_OK ? st : d->cls->download(d->self, addr, dst, bytes, err);
}

enum foray_status foray_dev_run(struct foray_dev *d, uint64_t run_addr, uint32_t deadline_ms,
                                struct foray_dev_result *res, struct foray_err *err) {
  memset(res, 0, sizeof *res);
  if (run_addr % FORAY_ABI_UNIT || run_addr / FORAY_ABI_UNIT > UINT32_MAX)
    return foray_err_set(err, FORAY_E_ARG, "run block at %llu is not on a unit",
                         (unsigned long long)run_addr);
  enum foray_status st = d->cls->run(d->self, FORAY_DEV_UNITS(run_addr), deadline_ms, res, err);
  if (st != FORAY_OK || res->error == FORAY_DEVERR_NONE) return st;
  if (res->error == FORAY_DEVERR_DEADLINE)
    return foray_err_set(err, FORAY_E_TIMEOUT, "device '%s': deadline of %u ms passed", d->info.name,
                         deadline_ms);
  char where[48] = "run block or context";
  if (res->error_desc != UINT32_MAX) snprintf(where, sizeof where, "descriptor %u", res->error_desc);
  return foray_err_set(err, FORAY_E_DEVICE, "device '%s': %s (%s): %s", d->info.name,
                       foray_deverr_name(res->error), where, foray_deverr_text(res->error));
}

enum foray_status foray_dev_ring(struct foray_dev *d, const struct foray_rec_run *run, uint32_t n,
                                 struct foray_rec_ring *out, struct foray_err *err) {
  if (n > run->ring_slots)
    return foray_err_set(err, FORAY_E_ARG, "%u entries of a ring of %u", n, run->ring_slots);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t w[FORAY_ABI_RING_WORDS], slot = (uint32_t)(((uint64_t)run->ring_head + i) % run->ring_slots);
    enum foray_status st = foray_dev_download(
        d, (uint64_t)run->ring * FORAY_ABI_UNIT + (uint64_t)slot * FORAY_RING_BYTES, w, sizeof w, err);
    if (st != FORAY_OK) return st;
    foray_rec_ring_unpack(w, &out[i]);
  }
  return FORAY_OK;
}

void foray_dev_counters(struct foray_dev *d, uint64_t out[FORAY_COUNTER_COUNT]) {
  memset(out, 0, FORAY_COUNTER_COUNT * sizeof *out);
  d->cls->counters(d->self, out);
}

enum foray_status foray_dev_trace(struct foray_dev *d, const struct foray_dev_trace *t,
                                  struct foray_err *err) {
  static const struct foray_dev_trace off;
  if (!d->cls->trace)
    return t ? foray_err_set(err, FORAY_E_UNSUPPORTED, "device '%s' does not tell what it does", d->info.name)
             : FORAY_OK;
  d->cls->trace(d->self, t ? t : &off);
  return FORAY_OK;
}

enum foray_status foray_dev_state_reset(struct foray_dev *d, uint64_t state_addr,
                                        const struct foray_dev_context *c, struct foray_err *err) {
  struct foray_rec_state s = {.magic = FORAY_MAGIC_STATE,
                              .max_pos = c->max_pos,
                              .kv = FORAY_DEV_UNITS(c->kv_addr),
                              .kv_units = (uint32_t)(c->kv_bytes / FORAY_ABI_UNIT),
                              .resid = FORAY_DEV_UNITS(c->resid_addr),
                              .resid_slots = c->resid_slots,
                              .keep = FORAY_DEV_UNITS(c->keep_addr),
                              .keep_slots = c->keep_slots};
  uint32_t w[FORAY_ABI_STATE_WORDS];
  foray_rec_state_pack(&s, w);
  return foray_dev_upload(d, state_addr, w, sizeof w, err);
}

static uint64_t root(uint64_t v) {
  uint64_t r = 0;
  for (uint64_t b = (uint64_t)1 << 31; b; b >>= 1)
    if ((r | b) * (r | b) <= v) r |= b;
  return r;
}

uint32_t foray_dev_root_n(uint32_t n) { return (uint32_t)root((uint64_t)n << 32); }

void foray_dev_attn_scale(uint32_t head_dim, uint32_t *scale, int32_t *exp) {
  if (head_dim == 0 || head_dim > FORAY_ABI_HEAD_DIM_MAX) head_dim = FORAY_ABI_HEAD_DIM_MAX;
  uint64_t r = root((uint64_t)head_dim << 54);   /* Q27 */
  uint64_t q = UINT64_C(0xb8aa3b295c17f0bc) / r; /* log2(e) in Q63 by Q27: Q36 */
  int s = 64 - __builtin_clzll(q) - 24;
  *scale = (uint32_t)((q + ((uint64_t)1 << (s - 1))) >> s);
  *exp = s - 36;
}
