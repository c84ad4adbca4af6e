#include "journal/pack.h"

#include "proto/request_wire.h"

#include <stdlib.h>
#include <string.h>

enum foray_status foray_request_pack(const struct foray_gen_request *r, struct foray_buf *out) {
  struct foray_request_wire w;
  Foray__Wire__Open m;
  foray_request_to_wire(r, &w, &m);
  const size_t n = foray__wire__open__get_packed_size(&m);
  uint8_t *b = malloc(n ? n : 1);
  if (!b) return FORAY_E_NOMEM;
  enum foray_status st = foray_buf_add(out, b, foray__wire__open__pack(&m, b));
  free(b);
  return st;
}

struct foray_gen_request *foray_request_unpack(const void *p, size_t n) {
  Foray__Wire__Open *m = foray__wire__open__unpack(NULL, n, p);
  struct foray_gen_request *out = NULL;
  const Foray__Wire__Sampling *s = m ? m->sampling : NULL;
  if (s && m->n_stop <= FORAY_PROTO_STOPS_MAX && s->n_bias == s->n_bias_id &&
      m->n_prompt <= FORAY_PROTO_PROMPT_MAX) {
    struct foray_request_wire w = {.stop_len = {0}};
    const struct foray_gen_request r = foray_request_from_wire(m, &w);
    if (foray_gen_request_check(&r, NULL) == FORAY_OK) out = foray_gen_request_copy(&r);
  }
  if (m) foray__wire__open__free_unpacked(m, NULL);
  return out;
}
