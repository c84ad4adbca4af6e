#include "model/tokenizer.h"

#include <string.h>

/* How many bytes the sequence that begins with lead has; 0 when no sequence begins so. */
static unsigned sequence(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  return lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
}

/* May byte b follow at place i (1..3) of the sequence of `lead`? Refuses overlong forms, surrogates and code
 * points above U+10FFFF as early as their second byte. */
static bool may_follow(uint8_t lead, unsigned i, uint8_t b) {
  if (i == 1) {
    if (lead == 0xe0) return b >= 0xa0 && b <= 0xbf;
    if (lead == 0xed) return b >= 0x80 && b <= 0x9f;
    if (lead == 0xf0) return b >= 0x90 && b <= 0xbf;
    if (lead == 0xf4) return b >= 0x80 && b <= 0x8f;
  }
  return (b & 0xc0) == 0x80;
}

enum foray_status foray_detok_finish(struct foray_detok *d, struct foray_buf *out) {
  enum foray_status s = foray_buf_add(out, d->held, d->n_held);
  d->n_held = 0;
  d->started = false;
  return s;
}

static enum foray_status put_byte(struct foray_detok *d, uint8_t b, struct foray_buf *out) {
  enum foray_status s = FORAY_OK;
  if (d->n_held && !may_follow(d->held[0], d->n_held, b)) {
    s = foray_buf_add(out, d->held, d->n_held); /* it can no longer become a character */
    d->n_held = 0;
    if (s) return s;
  }
  if (!d->n_held && sequence(b) < 2) return foray_buf_add(out, &b, 1);
  d->held[d->n_held++] = b;
  if (d->n_held == sequence(d->held[0])) {
    s = foray_buf_add(out, d->held, d->n_held);
    d->n_held = 0;
  }
  return s;
}

enum foray_status foray_detok_feed(struct foray_detok *d, const struct foray_tokenizer *t, int32_t id,
                                   struct foray_buf *out) {
  if (id < 0 || (uint32_t)id >= foray_tokenizer_n_vocab(t)) return FORAY_E_ARG;
  enum foray_token_kind kind = foray_tokenizer_kind(t, id);
  if (!d->special && (kind == FORAY_TOKEN_CONTROL || kind == FORAY_TOKEN_UNKNOWN)) return FORAY_OK;
  size_t len;
  const char *p = foray_tokenizer_piece(t, id, &len);
  size_t i = 0;
  if (!d->started && len && foray_tokenizer_adds_space(t) && p[0] == ' ') i = 1;
  d->started = true;
  for (; i < len; i++) {
    enum foray_status s = put_byte(d, (uint8_t)p[i], out);
    if (s) return s;
  }
  return FORAY_OK;
}
