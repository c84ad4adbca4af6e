#include "xclbin/xclbin.h"

#include "core/err.h"
#include "core/hash.h"
#include "xclbin/layout.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BANKS_MAX = 64, KERNELS_MAX = 32, UNITS_MAX = 128, ARGS_MAX = 64 };

struct bank {
  const char *tag;
  uint8_t type;
  uint64_t base, kib;
};
struct arg {
  const char *name, *type, *port;
  uint64_t offset, size;
  bool pointer;
};
struct unit {
  const char *name;
  uint64_t base;
  int32_t bank[ARGS_MAX]; /* of the pointers, in order */
  uint32_t kernel;
};
struct kernel {
  const char *name;
  uint64_t range;
  uint32_t control; /* 0 hs, 1 chain, 2 none */
  struct arg arg[ARGS_MAX];
  uint32_t n_args, n_pointers;
};
struct spec {
  const char *name, *platform;
  struct bank bank[BANKS_MAX];
  struct kernel kernel[KERNELS_MAX];
  struct unit unit[UNITS_MAX];
  uint32_t n_banks, n_kernels, n_units;
  uint64_t mhz;
};

/* ---- reading the description ---- */

/* A number, or a text in C notation. */
static bool number(const json_t *o, const char *key, uint64_t def, bool must, uint64_t *v) {
  const json_t *j = json_object_get(o, key);
  *v = def;
  if (!j) return !must;
  if (json_is_integer(j)) {
    *v = (uint64_t)json_integer_value(j);
    return json_integer_value(j) >= 0;
  }
  const char *s = json_string_value(j);
  char *end;
  if (!s || *s < '0' || *s > '9') return false;
  errno = 0;
  *v = strtoull(s, &end, 0);
  return *end == 0 && errno == 0;
}

/* A name that goes into XML and fixed fields. */
static const char *text(const json_t *o, const char *key, const char *def, size_t most) {
  const json_t *j = json_object_get(o, key);
  const char *s = j ? json_string_value(j) : def;
  if (!s || !*s || strlen(s) > most || strpbrk(s, "<>&\"'")) return NULL;
  return s;
}

static const struct {
  const char *name;
  uint8_t type;
} mem_types[] = {{"DDR3", 0}, {"DDR4", 1}, {"DRAM", 2}, {"HBM", 6}, {"BRAM", 7}};

static enum foray_status bad(struct foray_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static enum foray_status bad(struct foray_err *err, const char *fmt, ...) {
  char why[200];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  return foray_err_set(err, FORAY_E_FORMAT, "xclbin description: %s", why);
}

static enum foray_status read_banks(const json_t *list, struct spec *s, struct foray_err *err) {
  size_t i;
  json_t *o;
  if (json_array_size(list) == 0 || json_array_size(list) > BANKS_MAX)
    return bad(err, "\"memory\" must list 1 to %d banks", BANKS_MAX);
  json_array_foreach(list, i, o) {
    struct bank *b = &s->bank[s->n_banks++];
    b->tag = text(o, "tag", NULL, 15);
    const char *type = text(o, "type", "DDR4", 15);
    if (!b->tag || !type || !number(o, "base", 0, true, &b->base) || !number(o, "kib", 0, true, &b->kib) ||
        b->kib == 0)
      return bad(err, "memory %zu wants tag (15 characters at most), base and kib", i);
    size_t t = 0;
    while (t < sizeof mem_types / sizeof *mem_types && strcmp(mem_types[t].name, type) != 0) t++;
    if (t == sizeof mem_types / sizeof *mem_types)
      return bad(err, "memory %zu: type %s (DDR3, DDR4, DRAM, HBM, BRAM)", i, type);
    b->type = mem_types[t].type;
  }
  return FORAY_OK;
}

static enum foray_status read_args(const json_t *list, struct kernel *k, struct foray_err *err) {
  size_t i;
  json_t *o;
  if (json_array_size(list) > ARGS_MAX)
    return bad(err, "kernel %s: more than %d arguments", k->name, ARGS_MAX);
  json_array_foreach(list, i, o) {
    struct arg *a = &k->arg[k->n_args++];
    a->name = text(o, "name", NULL, 63);
    a->type = text(o, "type", "uint", 63);
    if (!a->name || !a->type || !number(o, "offset", 0, true, &a->offset) || a->offset < 0x10 ||
        a->offset % 4)
      return bad(err, "kernel %s: argument %zu wants name, type, and an offset from 0x10 on", k->name, i);
    a->pointer = a->type[strlen(a->type) - 1] == '*';
    a->port = text(o, "port", a->pointer ? "M_AXI_GMEM0" : "S_AXI_CONTROL", 63);
    if (!number(o, "size", a->pointer ? 8 : 4, false, &a->size) || !a->port || (a->size != 4 && a->size != 8))
      return bad(err, "kernel %s: argument %s: size 4 or 8", k->name, a->name);
    k->n_pointers += a->pointer;
  }
  return FORAY_OK;
}

static enum foray_status read_units(const json_t *list, struct spec *s, struct foray_err *err) {
  const struct kernel *k = &s->kernel[s->n_kernels - 1];
  size_t i;
  json_t *o;
  if (json_array_size(list) == 0) return bad(err, "kernel %s has no instances", k->name);
  json_array_foreach(list, i, o) {
    if (s->n_units == UNITS_MAX) return bad(err, "more than %d instances", UNITS_MAX);
    struct unit *u = &s->unit[s->n_units++];
    const json_t *banks = json_object_get(o, "banks");
    u->kernel = s->n_kernels - 1;
    u->name = text(o, "name", NULL, 31);
    if (!u->name || strlen(u->name) + strlen(k->name) > 62 || !number(o, "base", 0, true, &u->base))
      return bad(err, "kernel %s: instance %zu wants name and base", k->name, i);
    for (uint32_t p = 0; p < k->n_pointers; p++) {
      const size_t have = json_array_size(banks);
      const json_t *b = have ? json_array_get(banks, p < have ? p : have - 1) : NULL;
      u->bank[p] = b ? (int32_t)json_integer_value(b) : 0;
      if (u->bank[p] < 0 || (uint32_t)u->bank[p] >= s->n_banks)
        return bad(err, "instance %s: there is no bank %d", u->name, u->bank[p]);
    }
  }
  return FORAY_OK;
}

static int by_base(const void *a, const void *b) {
  const struct unit *x = a, *y = b;
  return x->base < y->base ? -1 : x->base > y->base;
}

static enum foray_status read_spec(const json_t *o, struct spec *s, struct foray_err *err) {
  size_t i;
  json_t *j;
  s->name = text(o, "name", "foray", 63);
  s->platform = text(o, "platform", "foray_sim_1", 63);
  if (!s->name || !s->platform || !number(o, "mhz", 300, false, &s->mhz) || s->mhz > 65535)
    return bad(err, "name or platform (63 characters, no XML), or mhz");
  enum foray_status st = read_banks(json_object_get(o, "memory"), s, err);
  const json_t *kernels = json_object_get(o, "kernels");
  if (st == FORAY_OK && (json_array_size(kernels) == 0 || json_array_size(kernels) > KERNELS_MAX))
    return bad(err, "\"kernels\" must list 1 to %d kernels", KERNELS_MAX);
  json_array_foreach(kernels, i, j) {
    if (st != FORAY_OK) break;
    struct kernel *k = &s->kernel[s->n_kernels++];
    const char *control = text(j, "control", "hs", 7);
    k->name = text(j, "name", NULL, 31);
    if (!k->name || !control || !number(j, "range", 0x10000, false, &k->range))
      return bad(err, "kernel %zu wants a name of at most 31 characters", i);
    k->control = !strcmp(control, "hs")      ? 0
                 : !strcmp(control, "chain") ? 1
                 : !strcmp(control, "none")  ? 2
                                             : 3;
    if (k->control == 3) return bad(err, "kernel %s: control is hs, chain or none", k->name);
    st = read_args(json_object_get(j, "args"), k, err);
    if (st == FORAY_OK) st = read_units(json_object_get(j, "instances"), s, err);
  }
  qsort(s->unit, s->n_units, sizeof *s->unit, by_base); /* XRT numbers units by address */
  for (uint32_t u = 1; st == FORAY_OK && u < s->n_units; u++)
    if (s->unit[u].base == s->unit[u - 1].base)
      st = bad(err, "instances %s and %s have one base", s->unit[u - 1].name, s->unit[u].name);
  return st;
}

/* ---- writing ---- */

struct out {
  uint8_t *p;
  size_t n, cap;
  bool failed;
};

static void put(struct out *o, const void *p, size_t n) {
  if (o->n + n > o->cap) {
    size_t cap = (o->n + n) * 2 + 4096;
    uint8_t *q = o->failed ? NULL : realloc(o->p, cap);
    if (!q) {
      o->failed = true;
      return;
    }
    o->p = q;
    o->cap = cap;
  }
  if (p)
    memcpy(o->p + o->n, p, n);
  else
    memset(o->p + o->n, 0, n);
  o->n += n;
}
static void num(struct out *o, uint64_t v, size_t bytes) {
  uint8_t b[8];
  for (size_t i = 0; i < bytes; i++) b[i] = (uint8_t)(v >> (8 * i));
  put(o, b, bytes);
}
static void field(struct out *o, const char *s, size_t width) {
  size_t n = strlen(s);
  if (n > width) n = width;
  put(o, s, n);
  put(o, NULL, width - n);
}
static void line(struct out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(struct out *o, const char *fmt, ...) {
  char b[1024];
  va_list ap;
  va_start(ap, fmt);
  const int n = vsnprintf(b, sizeof b, fmt, ap);
  va_end(ap);
  if (n < 0 || (size_t)n >= sizeof b)
    o->failed = true;
  else
    put(o, b, (size_t)n);
}

static void memory(struct out *o, const struct spec *s) {
  num(o, s->n_banks, 4);
  put(o, NULL, 4);
  for (uint32_t i = 0; i < s->n_banks; i++) {
    const struct bank *b = &s->bank[i];
    num(o, b->type, 1);
    num(o, 1, 1);
    put(o, NULL, 6);
    num(o, b->kib, 8);
    num(o, b->base, 8);
    field(o, b->tag, 16);
  }
}

static void ip_layout(struct out *o, const struct spec *s) {
  num(o, s->n_units, 4);
  put(o, NULL, 4);
  for (uint32_t i = 0; i < s->n_units; i++) {
    const struct unit *u = &s->unit[i];
    char name[66];
    snprintf(name, sizeof name, "%s:%s", s->kernel[u->kernel].name, u->name);
    num(o, 1, 4);
    num(o, 1 | (uint64_t)s->kernel[u->kernel].control << 8, 4);
    num(o, u->base, 8);
    field(o, name, 64);
  }
}

static void connectivity(struct out *o, const struct spec *s) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < s->n_units; i++) n += s->kernel[s->unit[i].kernel].n_pointers;
  num(o, n, 4);
  for (uint32_t i = 0; i < s->n_units; i++) {
    const struct kernel *k = &s->kernel[s->unit[i].kernel];
    for (uint32_t a = 0, p = 0; a < k->n_args; a++)
      if (k->arg[a].pointer) {
        num(o, a, 4);
        num(o, i, 4);
        num(o, (uint64_t)s->unit[i].bank[p++], 4);
      }
  }
}

static void clocks(struct out *o, const struct spec *s) {
  const struct {
    uint8_t type;
    const char *name;
  } c[] = {{1, "DATA_CLK"}, {2, "KERNEL_CLK"}};
  num(o, 2, 2);
  for (int i = 0; i < 2; i++) {
    num(o, s->mhz, 2);
    num(o, c[i].type, 1);
    put(o, NULL, 5);
    field(o, c[i].name, 128);
  }
}

static void kernel_xml(struct out *o, const struct spec *s, uint32_t at) {
  static const char *const control[] = {"ap_ctrl_hs", "ap_ctrl_chain", "ap_ctrl_none"};
  const struct kernel *k = &s->kernel[at];
  line(o,
       "<kernel name=\"%s\" language=\"ip_c\" vlnv=\"foray:kernel:%s:1.0\" attributes=\"\" "
       "preferredWorkGroupSizeMultiple=\"0\" "
       "workGroupSize=\"1\" interrupt=\"true\" hwControlProtocol=\"%s\"><module name=\"OCL_REGION_0\"/>\n",
       k->name, k->name, control[k->control]);
  for (uint32_t a = 0; a < k->n_args; a++) {
    bool seen = !k->arg[a].pointer;
    for (uint32_t b = 0; b < a; b++) seen |= k->arg[b].pointer && !strcmp(k->arg[a].port, k->arg[b].port);
    if (!seen)
      line(o,
           "<port name=\"%s\" mode=\"master\" range=\"0xFFFFFFFFFFFFFFFF\" dataWidth=\"512\" "
           "portType=\"addressable\" "
           "base=\"0x0\"/>\n",
           k->arg[a].port);
  }
  line(o,
       "<port name=\"S_AXI_CONTROL\" mode=\"slave\" range=\"0x%llx\" dataWidth=\"32\" "
       "portType=\"addressable\" base=\"0x0\"/>\n",
       (unsigned long long)k->range);
  for (uint32_t a = 0; a < k->n_args; a++) {
    const struct arg *g = &k->arg[a];
    line(o,
         "<arg name=\"%s\" addressQualifier=\"%d\" id=\"%u\" port=\"%s\" size=\"0x%llx\" offset=\"0x%llx\" "
         "hostOffset=\"0x0\" "
         "hostSize=\"0x%llx\" type=\"%s\"/>\n",
         g->name, g->pointer, a, g->port, (unsigned long long)g->size, (unsigned long long)g->offset,
         (unsigned long long)g->size, g->type);
  }
  line(o, "<compileWorkGroupSize x=\"1\" y=\"1\" z=\"1\"/><maxWorkGroupSize x=\"1\" y=\"1\" z=\"1\"/>\n");
  for (uint32_t u = 0; u < s->n_units; u++)
    if (s->unit[u].kernel == at)
      line(o,
           "<instance name=\"%s\"><addrRemap base=\"0x%llx\" range=\"0x%llx\" "
           "port=\"S_AXI_CONTROL\"/></instance>\n",
           s->unit[u].name, (unsigned long long)s->unit[u].base, (unsigned long long)k->range);
  line(o, "</kernel>\n");
}

static void metadata(struct out *o, const struct spec *s, enum foray_xclbin_mode mode) {
  const char *target = mode == FORAY_XCLBIN_HW_EMU   ? "hw_em"
                       : mode == FORAY_XCLBIN_SW_EMU ? "csim"
                                                     : "bitstream";
  line(o,
       "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<project name=\"%s\">\n<platform vendor=\"foray\" "
       "boardid=\"%s\" name=\"%s\" "
       "featureRomTime=\"0\"><version major=\"1\" minor=\"0\"/><description/><board name=\"%s\" "
       "vendor=\"foray\" fpga=\"\"/><build_flow/>"
       "<host architecture=\"x86_64\"/>\n",
       s->name, s->platform, s->platform, s->platform);
  line(o,
       "<device name=\"fpga0\" fpgaDevice=\"\" addrWidth=\"0\"><systemClocks><clock port=\"DATA_CLK\" "
       "frequency=\"%llu.0MHz\"/>"
       "</systemClocks>\n<core name=\"OCL_REGION_0\" target=\"%s\" type=\"clc_region\" clockFreq=\"%lluMHz\" "
       "numComputeUnits=\"%u\">"
       "<kernelClocks><clock port=\"KERNEL_CLK\" frequency=\"%llu.0MHz\"/></kernelClocks>\n",
       (unsigned long long)s->mhz, target, (unsigned long long)s->mhz, s->n_units,
       (unsigned long long)s->mhz);
  for (uint32_t k = 0; k < s->n_kernels; k++) kernel_xml(o, s, k);
  line(o, "</core></device></platform></project>\n");
}

static void assemble(struct out *o, const struct spec *s, const void *bits, size_t bits_n,
                     enum foray_xclbin_mode mode) {
  enum { N = 8 };
  static const struct {
    uint32_t kind;
    const char *name;
  } kinds[N] = {{XB_BITSTREAM, "bitstream"},          {XB_METADATA, "metadata"},
                {XB_MEM_TOPOLOGY, "memory"},          {XB_IP_LAYOUT, "units"},
                {XB_CONNECTIVITY, "wires"},           {XB_CLOCKS, "clocks"},
                {XB_GROUP_TOPOLOGY, "memory groups"}, {XB_GROUP_CONNECTIVITY, "wire groups"}};
  struct out body[N] = {{0}};
  put(&body[0], bits, bits_n);
  metadata(&body[1], s, mode);
  memory(&body[2], s);
  ip_layout(&body[3], s);
  connectivity(&body[4], s);
  clocks(&body[5], s);
  memory(&body[6], s);
  connectivity(&body[7], s);
  struct foray_sha256 *h = foray_sha256_open();
  uint8_t digest[FORAY_SHA256_BYTES] = {0};
  uint64_t at = (XB_SECTIONS_AT + N * XB_SECTION + 7) / 8 * 8, total = at;
  o->failed |= !h;
  for (int i = 0; i < N; i++) {
    o->failed |= body[i].failed;
    if (h && !body[i].failed) foray_sha256_update(h, body[i].p, body[i].n);
    total = (total + 7) / 8 * 8 + body[i].n;
  }
  if (h) foray_sha256_close(h, digest);
  put(o, "xclbin2", 8);
  num(o, UINT32_MAX, 4);
  for (int i = 0; i < 28; i++) num(o, 0xff, 1);
  put(o, NULL, 256);
  put(o, digest + 16, 8);
  num(o, total, 8);
  num(o, 0, 8); /* time stamp: none, so that equal inputs give equal files */
  num(o, 0, 8);
  num(o, 0, 2);
  num(o, 2, 1);
  num(o, 13, 1);
  num(o, (uint64_t)mode, 2);
  num(o, 0, 2);
  put(o, NULL, 16);
  field(o, s->platform, 64);
  put(o, digest, 16);
  put(o, NULL, 16);
  num(o, N, 4);
  put(o, NULL, 4);
  for (int i = 0; i < N; i++) {
    at = (at + 7) / 8 * 8;
    num(o, kinds[i].kind, 4);
    field(o, kinds[i].name, 16);
    put(o, NULL, 4);
    num(o, at, 8);
    num(o, body[i].n, 8);
    at += body[i].n;
  }
  for (int i = 0; i < N; i++) {
    put(o, NULL, (8 - o->n % 8) % 8);
    put(o, body[i].p, body[i].n);
    free(body[i].p);
  }
}

enum foray_status foray_xclbin_build(const char *spec, const void *bits, size_t bits_n,
                                     enum foray_xclbin_mode mode, uint8_t **out, size_t *n,
                                     struct foray_err *err) {
  *out = NULL;
  *n = 0;
  json_error_t e;
  json_t *j = json_loads(spec, 0, &e);
  if (!j) return foray_err_set(err, FORAY_E_FORMAT, "xclbin description: line %d: %s", e.line, e.text);
  struct spec *s = calloc(1, sizeof *s);
  struct out o = {0};
  enum foray_status st = s ? read_spec(j, s, err) : foray_err_set(err, FORAY_E_NOMEM, "xclbin");
  if (st == FORAY_OK) {
    assemble(&o, s, bits, bits_n, mode);
    if (o.failed) st = foray_err_set(err, FORAY_E_NOMEM, "xclbin");
  }
  free(s);
  json_decref(j);
  if (st != FORAY_OK) {
    free(o.p);
    return st;
  }
  *out = o.p;
  *n = o.n;
  return FORAY_OK;
}
