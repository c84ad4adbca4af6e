#include "litex/map.h"

#include "core/err.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

struct reader {
  const char *path;
  struct foray_err *err;
  enum foray_status st;
};

static json_t *member(struct reader *r, const json_t *o, const char *key) {
  json_t *v = json_object_get(o, key);
  if (!v && !r->st) r->st = foray_err_set(r->err, FORAY_E_FORMAT, "%s: \"%s\" is missing", r->path, key);
  return v;
}

static uint32_t number(struct reader *r, const json_t *o, const char *key) {
  const json_t *v = member(r, o, key);
  if (!v) return 0;
  const json_int_t n = json_integer_value(v);
  if (!json_is_integer(v) || n < 0 || n > UINT32_MAX) {
    if (!r->st)
      r->st = foray_err_set(r->err, FORAY_E_FORMAT, "%s: \"%s\" is not a number of 32 bits", r->path, key);
    return 0;
  }
  return (uint32_t)n;
}

static void text(struct reader *r, const json_t *o, const char *key, char *out, size_t cap) {
  const json_t *v = member(r, o, key);
  const char *s = json_string_value(v);
  if (v && !s && !r->st)
    r->st = foray_err_set(r->err, FORAY_E_FORMAT, "%s: \"%s\" is not a text", r->path, key);
  snprintf(out, cap, "%s", s ? s : "");
}

enum foray_status foray_litex_map_read(const char *path, struct foray_litex_map *m, struct foray_err *err) {
  memset(m, 0, sizeof *m);
  json_error_t e;
  json_t *j = json_load_file(path, 0, &e);
  if (!j)
    return foray_err_set(err, e.line < 0 ? FORAY_E_IO : FORAY_E_FORMAT, "%s: line %d: %s", path, e.line,
                         e.text);
  struct reader r = {path, err, FORAY_OK};
  if (number(&r, j, "format") != 1 && !r.st)
    r.st = foray_err_set(err, FORAY_E_FORMAT, "%s: a format that this version does not know", path);
  text(&r, j, "board", m->board, sizeof m->board);
  text(&r, j, "config", m->config, sizeof m->config);
  text(&r, j, "memory", m->memory, sizeof m->memory);
  m->clock_hz = number(&r, j, "clock_hz");
  m->foray = number(&r, j, "foray");
  m->ram = number(&r, j, "ram");
  m->ram_bytes = number(&r, j, "ram_bytes");
  const json_t *steps = member(&r, j, "sdram_init"), *csr = member(&r, j, "csr");
  const size_t n = json_array_size(steps);
  if (n > FORAY_LITEX_STEPS_MAX && !r.st)
    r.st = foray_err_set(err, FORAY_E_LIMIT, "%s: %zu steps to bring the memory up, the limit is %d", path, n,
                         FORAY_LITEX_STEPS_MAX);
  for (size_t i = 0; i < n && !r.st; i++) {
    const json_t *s = json_array_get(steps, i);
    m->steps[m->n_steps++] =
        (struct foray_litex_step){number(&r, s, "address"), number(&r, s, "bank"), number(&r, s, "command"),
                                  number(&r, s, "control"), number(&r, s, "delay_cycles")};
  }
  if (n && !r.st) {
    m->control = number(&r, csr, "sdram_dfii_control");
    m->command = number(&r, csr, "sdram_dfii_pi0_command");
    m->issue = number(&r, csr, "sdram_dfii_pi0_command_issue");
    m->address = number(&r, csr, "sdram_dfii_pi0_address");
    m->bank = number(&r, csr, "sdram_dfii_pi0_baddress");
  }
  if (!r.st && (m->ram_bytes < 4096 || m->ram_bytes % 64 || m->ram % 64 || m->clock_hz == 0))
    r.st = foray_err_set(err, FORAY_E_FORMAT, "%s: memory or clock out of range", path);
  json_decref(j);
  return r.st;
}
