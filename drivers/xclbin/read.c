#include "xclbin/xclbin.h"

#include "core/err.h"
#include "xclbin/layout.h"

#include <stdbool.h>
#include <string.h>

static uint64_t num(const uint8_t *p, int bytes) {
  uint64_t v = 0;
  for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
  return v;
}

static const struct {
  uint32_t kind;
  const char *name;
  uint32_t head, each, count_bytes; /* of tables: bytes before the entries, of an entry, of the count */
} kinds[] = {{XB_BITSTREAM, "BITSTREAM", 0, 0, 0},
             {XB_METADATA, "EMBEDDED_METADATA", 0, 0, 0},
             {XB_MEM_TOPOLOGY, "MEM_TOPOLOGY", 8, XB_MEM, 4},
             {XB_CONNECTIVITY, "CONNECTIVITY", 4, XB_CONN, 4},
             {XB_IP_LAYOUT, "IP_LAYOUT", 8, XB_IP, 4},
             {XB_CLOCKS, "CLOCK_FREQ_TOPOLOGY", 2, XB_CLOCK, 2},
             {14, "BUILD_METADATA", 0, 0, 0},
             {XB_GROUP_TOPOLOGY, "GROUP_TOPOLOGY", 8, XB_MEM, 4},
             {XB_GROUP_CONNECTIVITY, "GROUP_CONNECTIVITY", 4, XB_CONN, 4}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int index_of(uint32_t kind) {
  for (int i = 0; i < KINDS; i++)
    if (kinds[i].kind == kind) return i;
  return -1;
}

const char *foray_xclbin_kind(uint32_t kind) {
  static _Thread_local char other[24];
  const int i = index_of(kind);
  if (i >= 0) return kinds[i].name;
  snprintf(other, sizeof other, "kind %u", kind);
  return other;
}

static void copy_text(char *to, const uint8_t *from, size_t n) {
  memcpy(to, from, n);
  to[n] = 0;
  for (char *c = to; *c; c++)
    if ((unsigned char)*c < 32 || (unsigned char)*c > 126) *c = '?';
}

enum foray_status foray_xclbin_parse(const uint8_t *p, size_t n, struct foray_xclbin *x,
                                     struct foray_err *err) {
  memset(x, 0, sizeof *x);
  if (n < XB_SECTIONS_AT || memcmp(p, "xclbin2", 8) != 0)
    return foray_err_set(err, FORAY_E_FORMAT, "no xclbin: it does not begin with \"xclbin2\"");
  const uint8_t *h = p + XB_HEADER_AT;
  if (num(h, 8) != n)
    return foray_err_set(err, FORAY_E_FORMAT,
                         "xclbin: its header says %llu bytes, the file has %zu: cut off?",
                         (unsigned long long)num(h, 8), n);
  x->mode = (uint16_t)num(h + 28, 2);
  copy_text(x->platform, h + 48, 64);
  memcpy(x->uuid, h + 112, 16);
  x->n_sections = (uint32_t)num(h + 144, 4);
  if (x->n_sections > FORAY_XCLBIN_SECTIONS || XB_SECTIONS_AT + (uint64_t)x->n_sections * XB_SECTION > n)
    return foray_err_set(err, FORAY_E_FORMAT, "xclbin: %u sections", x->n_sections);
  for (uint32_t i = 0; i < x->n_sections; i++) {
    const uint8_t *q = p + XB_SECTIONS_AT + i * XB_SECTION;
    struct foray_xclbin_section *s = &x->section[i];
    s->kind = (uint32_t)num(q, 4);
    copy_text(s->name, q + 4, 16);
    s->at = num(q + 24, 8);
    s->bytes = num(q + 32, 8);
    const int k = index_of(s->kind);
    if (s->at > n || s->bytes > n - s->at || s->at % 8)
      return foray_err_set(err, FORAY_E_FORMAT, "xclbin: section %s lies outside the file",
                           foray_xclbin_kind(s->kind));
    if (k < 0 || kinds[k].each == 0) continue;
    if (s->bytes < kinds[k].head ||
        num(p + s->at, (int)kinds[k].count_bytes) > (s->bytes - kinds[k].head) / kinds[k].each)
      return foray_err_set(err, FORAY_E_FORMAT, "xclbin: table %s is longer than its section", kinds[k].name);
  }
  return FORAY_OK;
}

static void show_memory(const uint8_t *t, FILE *f) {
  for (uint64_t i = 0; i < num(t, 4); i++) {
    const uint8_t *e = t + 8 + i * XB_MEM;
    char tag[17];
    copy_text(tag, e + 24, 16);
    fprintf(f, "    %2llu %-16s type %u  base 0x%llx  %llu KiB%s\n", (unsigned long long)i, tag, e[0],
            (unsigned long long)num(e + 16, 8), (unsigned long long)num(e + 8, 8),
            e[1] ? "" : "  (not used)");
  }
}

static void show_units(const uint8_t *t, FILE *f) {
  static const char *const control[] = {"hs", "chain", "none"};
  for (uint64_t i = 0; i < num(t, 4); i++) {
    const uint8_t *e = t + 8 + i * XB_IP;
    const uint64_t c = num(e + 4, 4) >> 8 & 0xff;
    char name[65];
    copy_text(name, e + 16, 64);
    fprintf(f, "    %2llu %-32s base 0x%llx  control %s\n", (unsigned long long)i, name,
            (unsigned long long)num(e + 8, 8), c < 3 ? control[c] : "?");
  }
}

static void show_wires(const uint8_t *t, FILE *f) {
  for (uint64_t i = 0; i < num(t, 4); i++) {
    const uint8_t *e = t + 4 + i * XB_CONN;
    fprintf(f, "    argument %llu of unit %llu in memory %llu\n", (unsigned long long)num(e, 4),
            (unsigned long long)num(e + 4, 4), (unsigned long long)num(e + 8, 4));
  }
}

void foray_xclbin_show(const uint8_t *p, const struct foray_xclbin *x, FILE *f) {
  fprintf(f, "platform %s  mode %s  uuid ", x->platform,
          x->mode == FORAY_XCLBIN_FLAT     ? "flat"
          : x->mode == FORAY_XCLBIN_HW_EMU ? "hw_emu"
          : x->mode == FORAY_XCLBIN_SW_EMU ? "sw_emu"
                                           : "other");
  for (int i = 0; i < 16; i++) fprintf(f, "%02x", x->uuid[i]);
  fprintf(f, "\n");
  for (uint32_t i = 0; i < x->n_sections; i++) {
    const struct foray_xclbin_section *s = &x->section[i];
    fprintf(f, "  %-20s %8llu bytes at %llu\n", foray_xclbin_kind(s->kind), (unsigned long long)s->bytes,
            (unsigned long long)s->at);
    if (s->kind == XB_MEM_TOPOLOGY) show_memory(p + s->at, f);
    if (s->kind == XB_IP_LAYOUT) show_units(p + s->at, f);
    if (s->kind == XB_CONNECTIVITY) show_wires(p + s->at, f);
  }
}
