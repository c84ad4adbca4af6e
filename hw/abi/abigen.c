/* abigen - writes everything that is derived from hw/abi (make abi), to stdout:
 *   c          hw/gen/foray_abi.h          constants, records with pack and unpack
 *   sv         hw/gen/foray_abi_pkg.sv     the same constants for RTL
 *   md         docs/abi.md                 for people
 *   hash       the ABI hash: FNV-1a 64 over the canonical text of all rows
 *   tables     hw/gen/foray_tables.h       function tables for C
 *   tables-sv  hw/gen/foray_tables_pkg.sv    names of the tables
 *   tables-rom hw/gen/foray_tables_rom.sv    the tables as a ROM module
 * A bad argument, an inconsistent table or a failed write gives status 1. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tables.h"

struct row {
  const char *name;
  long long value;
  const char *doc, *access;
};
struct field {
  const char *record, *name;
  int word, lsb, width, count;
  char sign;
  const char *doc;
};

#define FORAY_PARAM(n, v, d) {#n, v, d, ""},
static const struct row params[] = {
#include "params.def"
};
#define FORAY_QTYPE(n, v, d) {#n, v, d, ""},
static const struct row qtypes[] = {
#include "qtypes.def"
};
#define FORAY_OP(n, v, d) {#n, v, d, ""},
static const struct row ops[] = {
#include "ops.def"
};
#define FORAY_DEVERR(n, v, d) {#n, v, d, ""},
static const struct row errors[] = {
#include "errors.def"
};
#define FORAY_COUNTER(n, d) {#n, -1, d, ""},
static struct row counters[] = {
#include "counters.def"
};
#define FORAY_FLAG(n, v, d) {#n, v, d, ""},
static const struct row flags[] = {
#include "flags.def"
};
#define FORAY_REG(n, v, a, d) {#n, v, d, a},
static const struct row regs[] = {
#include "regs.def"
};
#define FORAY_FIELD(r, n, w, l, b, c, s, d) {#r, #n, w, l, b, c, #s[0], d},
static const struct field fields[] = {
#include "desc.def"
};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static uint64_t hash_text(uint64_t h, const char *s) {
  for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001b3u;
  return (h ^ '\n') * 0x100000001b3u;
}

static uint64_t hash_rows(uint64_t h, const char *kind, const struct row *r, int n) {
  char line[512];
  for (int i = 0; i < n; i++) {
    snprintf(line, sizeof line, "%s %s %lld %s", kind, r[i].name, r[i].value, r[i].access);
    h = hash_text(h, line);
  }
  return h;
}

/* Names, numbers and layouts count; texts do not, so that a better sentence keeps old programs valid. */
static uint64_t abi_hash(void) {
  uint64_t h = 0xcbf29ce484222325u;
  h = hash_rows(h, "param", params, COUNT(params));
  h = hash_rows(h, "qtype", qtypes, COUNT(qtypes));
  h = hash_rows(h, "op", ops, COUNT(ops));
  h = hash_rows(h, "error", errors, COUNT(errors));
  h = hash_rows(h, "counter", counters, COUNT(counters));
  h = hash_rows(h, "flag", flags, COUNT(flags));
  h = hash_rows(h, "reg", regs, COUNT(regs));
  char line[512];
  for (int i = 0; i < COUNT(fields); i++) {
    const struct field *f = &fields[i];
    snprintf(line, sizeof line, "field %s %s %d %d %d %d %c", f->record, f->name, f->word, f->lsb, f->width,
             f->count, f->sign);
    h = hash_text(h, line);
  }
  for (int t = 0; t < TAB_DEFS; t++)
    for (int i = 0; i <= tab_defs[t].last; i++) {
      snprintf(line, sizeof line, "table %s %d %" PRId64, tab_defs[t].name, i, tab_defs[t].entry(i));
      h = hash_text(h, line);
    }
  return h;
}

static long long param(const char *name) {
  for (int i = 0; i < COUNT(params); i++)
    if (!strcmp(params[i].name, name)) return params[i].value;
  fprintf(stderr, "abigen: no parameter %s\n", name);
  exit(1); /* a build tool on its own tables */
}

static const struct row *op_of(const char *record) {
  for (int i = 0; i < COUNT(ops); i++)
    if (!strcmp(ops[i].name, record)) return &ops[i];
  return NULL;
}

static int words_of(const char *record) {
  char name[64];
  if (op_of(record)) return (int)param("DESC_WORDS");
  snprintf(name, sizeof name, "%s_WORDS", record);
  return (int)param(name);
}

/* Bits of `word` that a field of the record covers. */
static uint32_t used_bits(const char *record, int word) {
  uint32_t m = op_of(record) && word == 0 ? 0xffffu : 0;
  for (int i = 0; i < COUNT(fields); i++) {
    const struct field *f = &fields[i];
    if (strcmp(f->record, record)) continue;
    if (f->width == 64) {
      if (word == f->word || word == f->word + 1) m |= 0xffffffffu;
    } else if (word >= f->word && word < f->word + f->count)
      m |= (f->width == 32 ? 0xffffffffu : ((1u << f->width) - 1)) << f->lsb;
  }
  return m;
}

static void check(void) {
  for (int i = 0; i < COUNT(fields); i++) {
    const struct field *f = &fields[i];
    int span = f->width == 64 ? 2 : f->count, bad = 0;
    if (f->word < 0 || f->word + span > words_of(f->record)) bad = 1;
    if (f->width == 64 ? f->lsb != 0 || f->count != 1 : f->lsb + f->width > 32) bad = 1;
    if (f->count > 1 && f->width != 32) bad = 1;
    if (op_of(f->record) && f->word == 0 && f->lsb < 16) bad = 1;
    for (int k = 0; k < i; k++) {
      const struct field *g = &fields[k];
      if (strcmp(f->record, g->record)) continue;
      int gs = g->width == 64 ? 2 : g->count;
      int words = f->word < g->word + gs && g->word < f->word + span;
      int bits =
          f->width == 64 || g->width == 64 || (f->lsb < g->lsb + g->width && g->lsb < f->lsb + f->width);
      if (words && bits) bad = 1;
      if (!strcmp(f->name, g->name)) bad = 1;
    }
    if (bad) {
      fprintf(stderr, "abigen: field %s.%s overlaps another or leaves its record\n", f->record, f->name);
      exit(1);
    }
  }
}

static const char *lower(const char *s) {
  static char b[4][64];
  static int k;
  char *d = b[k = (k + 1) & 3];
  size_t i = 0;
  for (; s[i] && i < 63; i++) d[i] = (char)tolower((unsigned char)s[i]);
  d[i] = 0;
  return d;
}

static void rows_c(const char *title, const char *prefix, const struct row *r, int n) {
  printf("\n/* %s */\nenum {\n", title);
  for (int i = 0; i < n; i++)
    printf("  FORAY_%s%s = %s%lld, /* %s */\n", prefix, r[i].name, r[i].value < 0 ? "" : "", r[i].value,
           r[i].doc);
  puts("};");
}

static void record_c(const char *record) {
  const char *low = lower(record), *kind = op_of(record) ? "desc" : "rec";
  int words = words_of(record), n = 0;
  printf("\nenum { FORAY_%s_BYTES = %d };\nstruct foray_%s_%s {\n", record, words * 4, kind, low);
  if (op_of(record)) printf("  uint32_t flags; /* FORAY_DF_* */\n"), n++;
  for (int i = 0; i < COUNT(fields); i++) {
    const struct field *f = &fields[i];
    if (strcmp(f->record, record)) continue;
    const char *type = f->width == 64 ? "uint64_t" : f->sign == 'S' ? "int32_t" : "uint32_t";
    char dim[16] = "";
    if (f->count > 1) snprintf(dim, sizeof dim, "[%d]", f->count);
    printf("  %s %s%s; /* %s */\n", type, f->name, dim, f->doc);
    n++;
  }
  if (!n) puts("  uint32_t nothing;");
  printf("};\nstatic inline void foray_%s_%s_pack(const struct foray_%s_%s *v, uint32_t w[%d]) {\n"
         "  for (int i = 0; i < %d; i++) w[i] = 0;\n",
         kind, low, kind, low, words, words);
  if (op_of(record)) printf("  w[0] = %lldu | (v->flags & 0xffu) << 8;\n", op_of(record)->value);
  for (int i = 0; i < COUNT(fields); i++) {
    const struct field *f = &fields[i];
    if (strcmp(f->record, record)) continue;
    if (f->width == 64)
      printf("  w[%d] = (uint32_t)v->%s, w[%d] = (uint32_t)(v->%s >> 32);\n", f->word, f->name, f->word + 1,
             f->name);
    else if (f->count > 1)
      printf("  for (int i = 0; i < %d; i++) w[%d + i] = (uint32_t)v->%s[i];\n", f->count, f->word, f->name);
    else if (f->width == 32)
      printf("  w[%d] = (uint32_t)v->%s;\n", f->word, f->name);
    else
      printf("  w[%d] |= ((uint32_t)v->%s & 0x%xu) << %d;\n", f->word, f->name, (1u << f->width) - 1, f->lsb);
  }
  printf("}\nstatic inline void foray_%s_%s_unpack(const uint32_t w[%d], struct foray_%s_%s *v) {\n", kind,
         low, words, kind, low);
  if (op_of(record)) puts("  v->flags = w[0] >> 8 & 0xffu;");
  for (int i = 0; i < COUNT(fields); i++) {
    const struct field *f = &fields[i];
    if (strcmp(f->record, record)) continue;
    const char *cast = f->sign == 'S' ? "(int32_t)" : "";
    if (f->width == 64)
      printf("  v->%s = w[%d] | (uint64_t)w[%d] << 32;\n", f->name, f->word, f->word + 1);
    else if (f->count > 1)
      printf("  for (int i = 0; i < %d; i++) v->%s[i] = %sw[%d + i];\n", f->count, f->name, cast, f->word);
    else if (f->width == 32)
      printf("  v->%s = %sw[%d];\n", f->name, cast, f->word);
    else if (f->sign == 'S') {
      uint32_t half = 1u << (f->width - 1);
      printf("  v->%s = (int32_t)((w[%d] >> %d & 0x%xu) ^ 0x%xu) - 0x%x;\n", f->name, f->word, f->lsb,
             (1u << f->width) - 1, half, half);
    } else
      printf("  v->%s = w[%d] >> %d & 0x%xu;\n", f->name, f->word, f->lsb, (1u << f->width) - 1);
  }
  if (!n) puts("  (void)w, v->nothing = 0;");
  printf("}\n/* Nonzero when a bit that no field covers is set. */\n"
         "static inline uint32_t foray_%s_%s_spare(const uint32_t w[%d]) {\n  return 0",
         kind, low, words);
  for (int i = 0; i < words; i++) {
    uint32_t m = used_bits(record, i);
    if (m == 0)
      printf(" | w[%d]", i);
    else if (m != 0xffffffffu)
      printf(" | (w[%d] & 0x%08xu)", i, ~m);
  }
  puts(";\n}");
}

static void each_record(void (*fn)(const char *)) {
  for (int i = 0; i < COUNT(ops); i++) fn(ops[i].name);
  fn("RUN");
  fn("STATE");
  fn("RING");
}

static void out_c(void) {
  puts("/* Generated by hw/abi/abigen.c (make abi) from the tables in hw/abi; do not edit. The device "
       "contract: "
       "docs/abi.md.\n"
       " * Records are arrays of little-endian 32-bit words; pack and unpack shift and mask, never cast. */\n"
       "#ifndef FORAY_ABI_H\n#define FORAY_ABI_H\n\n#include <stdint.h>\n");
  printf("#define FORAY_ABI_HASH UINT64_C(0x%016" PRIx64 ")\n", abi_hash());
  rows_c("sizes and limits", "ABI_", params, COUNT(params));
  rows_c("element types", "QTYPE_", qtypes, COUNT(qtypes));
  rows_c("opcodes", "OP_", ops, COUNT(ops));
  rows_c("error codes of a run", "DEVERR_", errors, COUNT(errors));
  rows_c("flags and constants", "", flags, COUNT(flags));
  rows_c("registers, byte offsets", "REG_", regs, COUNT(regs));
  rows_c("counters, in register order", "COUNTER_", counters, COUNT(counters));
  printf("enum { FORAY_COUNTER_COUNT = %d, FORAY_OP_COUNT = %d, FORAY_DEVERR_COUNT = %d };\n",
         COUNT(counters), COUNT(ops) + 1, COUNT(errors));
  const struct {
    const char *fn;
    const struct row *r;
    int n;
  } names[] = {
      {"op", ops, COUNT(ops)}, {"deverr", errors, COUNT(errors)}, {"counter", counters, COUNT(counters)}};
  for (int k = 0; k < 3; k++) {
    printf("\n/* Never NULL. */\nstatic inline const char *foray_%s_name(uint32_t v) {\n  switch (v) {\n",
           names[k].fn);
    for (int i = 0; i < names[k].n; i++)
      printf("  case %lld: return \"%s\";\n", names[k].r[i].value, names[k].r[i].name);
    puts("  default: return \"?\";\n  }\n}");
  }
  puts("static inline const char *foray_deverr_text(uint32_t v) {\n  switch (v) {");
  for (int i = 0; i < COUNT(errors); i++)
    printf("  case %lld: return \"%s\";\n", errors[i].value, errors[i].doc);
  puts("  default: return \"unknown code\";\n  }\n}");
  each_record(record_c);
  puts("\n_Static_assert(FORAY_ABI_DESC_WORDS * 4 == FORAY_ABI_UNIT, \"a descriptor is one unit\");\n"
       "_Static_assert(FORAY_RUN_BYTES % FORAY_ABI_UNIT == 0 && FORAY_STATE_BYTES % FORAY_ABI_UNIT == 0 &&\n"
       "                   FORAY_RING_BYTES % FORAY_ABI_UNIT == 0, \"records fill units\");\n"
       "_Static_assert(FORAY_REG_COUNTERS >= FORAY_REG_ERROR_DESC + 4, \"counters come last\");\n\n#endif");
}

static void rows_sv(const char *title, const char *prefix, const struct row *r, int n) {
  printf("\n  // %s\n", title);
  for (int i = 0; i < n; i++)
    printf("  localparam int signed %s%s = %lld; // %s\n", prefix, r[i].name, r[i].value, r[i].doc);
}

static void record_sv(const char *record) {
  printf("\n  // %s: word, least bit, width\n", record);
  for (int i = 0; i < COUNT(fields); i++) {
    const struct field *f = &fields[i];
    if (strcmp(f->record, record)) continue;
    char up[96];
    size_t k = (size_t)snprintf(up, sizeof up, "%s_%s", record, f->name);
    for (size_t j = 0; j < k && j < sizeof up; j++) up[j] = (char)toupper((unsigned char)up[j]);
    printf("  localparam int unsigned %s_WORD = %d, %s_LSB = %d, %s_WIDTH = %d;\n", up, f->word, up, f->lsb,
           up, f->width);
  }
  int words = words_of(record);
  printf("  localparam logic [%d:0] %s_SPARE = %d'h", words * 32 - 1, record,
         words * 32); /* bits that must be 0 */
  for (int i = words - 1; i >= 0; i--)
    printf("%s%08" PRIx32, i < words - 1 ? "_" : "", ~used_bits(record, i));
  puts(";");
}

static void out_sv(void) {
  puts("// Generated by hw/abi/abigen.c (make abi) from the tables in hw/abi; do not edit. The device "
       "contract: "
       "docs/abi.md.\n"
       "package foray_abi_pkg;\n");
  printf("  localparam logic [63:0] ABI_HASH = 64'h%016" PRIx64 ";\n", abi_hash());
  rows_sv("sizes and limits", "", params, COUNT(params));
  rows_sv("element types", "QTYPE_", qtypes, COUNT(qtypes));
  puts("\n  typedef enum logic [7:0] {");
  for (int i = 0; i < COUNT(ops); i++)
    printf("    OP_%s = 8'd%lld%s // %s\n", ops[i].name, ops[i].value, i + 1 < COUNT(ops) ? "," : "",
           ops[i].doc);
  puts("  } opcode_e;\n\n  typedef enum logic [7:0] {");
  for (int i = 0; i < COUNT(errors); i++)
    printf("    ERR_%s = 8'd%lld%s // %s\n", errors[i].name, errors[i].value,
           i + 1 < COUNT(errors) ? "," : "", errors[i].doc);
  puts("  } error_e;");
  rows_sv("flags and constants", "", flags, COUNT(flags));
  rows_sv("registers, byte offsets", "REG_", regs, COUNT(regs));
  rows_sv("counters, in register order", "COUNTER_", counters, COUNT(counters));
  printf("  localparam int unsigned COUNTERS = %d;\n", COUNT(counters));
  each_record(record_sv);
  puts("\nendpackage");
}

static void rows_md(const char *title, const char *head, const struct row *r, int n, int access) {
  printf("\n## %s\n\n| name | %s |%s what |\n|---|---|%s---|\n", title, head, access ? " access |" : "",
         access ? "---|" : "");
  for (int i = 0; i < n; i++) {
    if (access)
      printf("| %s | 0x%02llX | %s | %s |\n", r[i].name, r[i].value, r[i].access, r[i].doc);
    else
      printf("| %s | %lld | %s |\n", r[i].name, r[i].value, r[i].doc);
  }
}

static void record_md(const char *record) {
  const struct row *op = op_of(record);
  printf("\n### %s\n\n", record);
  if (op) printf("Opcode %lld: %s.\n\n", op->value, op->doc);
  int n = 0;
  for (int i = 0; i < COUNT(fields); i++) {
    const struct field *f = &fields[i];
    if (strcmp(f->record, record)) continue;
    if (!n++) puts("| word | bits | field | what |\n|---|---|---|---|");
    if (f->width == 64)
      printf("| %d, %d | 64 | %s | %s |\n", f->word, f->word + 1, f->name, f->doc);
    else if (f->count > 1)
      printf("| %d..%d | 31:0 | %s[%d]%s | %s |\n", f->word, f->word + f->count - 1, f->name, f->count,
             f->sign == 'S' ? " (signed)" : "", f->doc);
    else
      printf("| %d | %d:%d | %s%s | %s |\n", f->word, f->lsb + f->width - 1, f->lsb, f->name,
             f->sign == 'S' ? " (signed)" : "", f->doc);
  }
  if (!n) puts("No fields.");
}

static void out_md(void) {
  printf("# The device contract\n\nGenerated by `make abi` from `hw/abi`; do not edit. What the "
         "numbers mean: "
         "[numerics.md](numerics.md).\n\nABI hash: `%016" PRIx64
         "` (FNV-1a 64 over names, numbers and layouts of all "
         "tables; texts do not count). A host refuses\na device or a program of another hash.\n\n"
         "All records are arrays of little-endian 32-bit words. Addresses count units of 64 bytes: heap "
         "addresses from "
         "the start of the heap\n(unit 0 is null), scratch addresses from the start of the scratchpad. Bits "
         "that no field "
         "covers must be 0.\n",
         abi_hash());
  rows_md("Registers", "offset", regs, COUNT(regs), 1);
  rows_md("Opcodes", "value", ops, COUNT(ops), 0);
  rows_md("Error codes", "value", errors, COUNT(errors), 0);
  rows_md("Element types", "value", qtypes, COUNT(qtypes), 0);
  rows_md("Counters", "index", counters, COUNT(counters), 0);
  rows_md("Flags and constants", "value", flags, COUNT(flags), 0);
  rows_md("Sizes and limits", "value", params, COUNT(params), 0);
  puts("\n## Records\n\nWord 0 of a descriptor: bits 7:0 opcode, 15:8 flags (DF_\x2a).");
  each_record(record_md);
}

static void tables_c(void) {
  puts("/* Generated by hw/abi/abigen.c (make abi); do not edit. Function tables of docs/numerics.md 3. */\n"
       "#ifndef FORAY_TABLES_H\n#define FORAY_TABLES_H\n\n#include <stdint.h>\n");
  for (int t = 0; t < TAB_DEFS; t++) {
    const struct tab_def *d = &tab_defs[t];
    printf("/* %s */\nstatic const uint32_t foray_tab_%s[%d] = {", d->what, lower(d->name), d->last + 1);
    for (int i = 0; i <= d->last; i++)
      printf("%s%" PRIu32 "u,", i % 10 ? " " : "\n    ", (uint32_t)d->entry(i));
    puts("\n};");
  }
  puts("\n#endif");
}

static void tables_sv(void) {
  puts("// Generated by hw/abi/abigen.c (make abi); do not edit. Names of the function tables of "
       "docs/numerics.md 3.\n"
       "package foray_tables_pkg;\n");
  for (int t = 0; t < TAB_DEFS; t++)
    printf("  localparam int unsigned TAB_%s = %d;  // %s\n", tab_defs[t].name, t, tab_defs[t].what);
  puts("\nendpackage");
}

/* A word is {entry i, |entry i + 1 - entry i|}: one read serves the interpolation between both. Arrays of
 * constants are no parameters here, because yosys reads none; a memory with contents is a ROM for every tool.
 */
static void tables_rom(void) {
  puts("// Generated by hw/abi/abigen.c (make abi); do not edit. Function tables of docs/numerics.md 3 as "
       "ROMs.\n"
       "\n"
       "/// Table of a function: entry addr_i and the magnitude of the step to the next entry, a cycle "
       "later.\n"
       "module foray_tables_rom #(\n"
       "    /// foray_tables_pkg::TAB_*\n"
       "    parameter int unsigned Table = 0,\n"
       "    /// Reads a cycle; two share a block RAM.\n"
       "    parameter int unsigned Ports = 1\n"
       ") (\n"
       "    input  logic                   clk_i,\n"
       "    /// A port holds its output without.\n"
       "    input  logic [Ports-1:0]       en_i,\n"
       "    /// Interval; below the number of intervals of the table.\n"
       "    input  logic [Ports-1:0][ 9:0] addr_i,\n"
       "    output logic [Ports-1:0][31:0] base_o,\n"
       "    output logic [Ports-1:0][23:0] delta_o\n"
       ");\n");
  for (int t = 0; t < TAB_DEFS; t++) {
    const struct tab_def *d = &tab_defs[t];
    int bits = 0;
    while (1 << bits < d->last) bits++;
    printf("  %sif (Table == %d) begin : gen_%s  // %s\n", t ? "end else " : "", t, lower(d->name), d->what);
    printf("    logic [55:0] rom[%d];\n    initial begin\n", 1 << bits);
    for (int i = 0; i < 1 << bits; i++) {
      int64_t a = i < d->last ? d->entry(i) : 0, b = i < d->last ? d->entry(i + 1) : 0;
      if (llabs(b - a) >> 24) exit(1); /* a table that does not fit this form */
      printf("%srom[%d] = 56'h%08" PRIx32 "_%06" PRIx32 ";%s", i % 4 ? " " : "      ", i, (uint32_t)a,
             (uint32_t)llabs(b - a), i % 4 == 3 ? "\n" : "");
    }
    puts("    end\n    for (genvar p = 0; p < Ports; p++) begin : gen_port");
    puts("      always_ff @(posedge clk_i) begin");
    printf("        if (en_i[p]) {base_o[p], delta_o[p]} <= rom[addr_i[p][%d:0]];\n", bits - 1);
    puts("      end\n    end");
  }
  puts("  end\n\nendmodule");
}

int main(int argc, char **argv) {
  const struct {
    const char *name;
    void (*fn)(void);
  } modes[] = {{"c", out_c},         {"sv", out_sv},           {"md", out_md},
               {"tables", tables_c}, {"tables-sv", tables_sv}, {"tables-rom", tables_rom}};
  for (int i = 0; i < COUNT(counters); i++) counters[i].value = i;
  check();
  const char *mode = argc == 2 ? argv[1] : "";
  if (!strcmp(mode, "hash")) {
    printf("%016" PRIx64 "\n", abi_hash());
    return fflush(stdout) ? 1 : 0;
  }
  for (size_t k = 0; k < sizeof modes / sizeof *modes; k++)
    if (!strcmp(mode, modes[k].name)) {
      modes[k].fn();
      return fflush(stdout) || ferror(stdout) ? 1 : 0;
    }
  fprintf(stderr, "usage: abigen c|sv|md|hash|tables|tables-sv|tables-rom\n");
  return 1;
}
