/* Frames into both protocol machines. The first byte says which machine and how the rest is cut into reads;
 * the cloud machine sits in a hub with a scheduler and the toy target behind it, so that whatever a peer can
 * say runs the whole way. Nothing may crash, leak, or hang. */
#include "unit/toy_target.h"

#include "batch/hub.h"
#include "proto/edge_sm.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t now_of(void *arg) { return *(int64_t *)arg; }
static void zeros(void *arg, void *p, size_t n) {
  (void)arg;
  memset(p, 7, n);
}

static void cloud(const uint8_t *p, size_t n, size_t piece) {
  struct toy toy;
  toy_init(&toy, 1, 64);
  int64_t now = 0;
  struct foray_batch_opts o = {
      .sessions_max = 4, .tokens_max = 32, .slice = 8, .now = now_of, .random = zeros, .arg = &now};
  struct foray_batch *b;
  struct foray_hub *h;
  struct foray_cloud_identity id = {.model_name = "toy", .vocab = TOY_VOCAB, .ctx = 64};
  if (foray_batch_create(&toy.target, &o, &b, NULL) != FORAY_OK) abort();
  if (foray_hub_create(NULL, 2, &h, NULL) != FORAY_OK) abort();
  foray_hub_serve(h, b, &id);
  uint64_t c = foray_hub_connect(h, now);
  while (n) {
    size_t k = n < piece ? n : piece;
    enum foray_status st = foray_hub_feed(h, c, p, k, now, NULL);
    p += k;
    n -= k;
    now += 1000000;
    for (int i = 0; i < 4 && foray_batch_step(b); i++) continue;
    foray_hub_pump(h);
    const uint8_t *q;
    foray_hub_output_consumed(h, c, foray_hub_output(h, c, &q));
    if (st != FORAY_OK || foray_hub_tick(h, c, now, NULL) != FORAY_OK) break;
  }
  foray_hub_disconnect(h, c);
  for (int i = 0; i < 200 && foray_batch_step(b); i++) continue;
  foray_hub_destroy(h);
  foray_batch_destroy(b);
  if (toy.open_seqs || toy.open_samplers) abort();
}

static void edge(const uint8_t *p, size_t n, size_t piece) {
  struct foray_edge *e;
  if (foray_edge_create(NULL, &e, NULL) != FORAY_OK) abort();
  static const uint32_t prompt[] = {1, 2, 3};
  struct foray_gen_request r = {.prompt = prompt, .n_prompt = 3, .max_tokens = 40};
  uint32_t s[2] = {0}, request;
  if (foray_edge_open(e, &r, &s[0], NULL) != FORAY_OK) abort();
  r.mode = FORAY_MODE_PLAIN;
  if (foray_edge_open(e, &r, &s[1], NULL) != FORAY_OK) abort();
  foray_edge_link_up(e, 0);
  for (int64_t now = 0; n; now += 1000000) {
    size_t k = n < piece ? n : piece;
    bool ok = foray_edge_feed(e, p, k, now, NULL) == FORAY_OK && foray_edge_tick(e, now, NULL) == FORAY_OK;
    p += k;
    n -= k;
    struct foray_edge_event ev;
    while (foray_edge_event(e, &ev)) {
      uint32_t sum = 0; /* whatever an event lends must be readable */
      for (uint32_t i = 0; i < ev.n_new; i++) sum += ev.ids[i];
      for (uint32_t i = 0; i < ev.n_logp; i++) sum += ev.logp[i] > 0;
      if (strlen(ev.text) + sum == SIZE_MAX) abort();
    }
    struct foray_edge_view v;
    if (foray_edge_view(e, s[0], &v) == FORAY_OK && v.open) {
      static const uint32_t ids[] = {4, 5, 6};
      (void)!foray_edge_draft(e, s[0], v.n_generated + v.n_guessed, ids, 1 + v.rounds % 3, now, NULL, NULL);
      if (v.n_generated > r.max_tokens) abort();
    }
    (void)!foray_edge_score(e, prompt, 3, 0, &request, NULL);
    const uint8_t *q;
    foray_edge_output_consumed(e, foray_edge_output(e, &q));
    if (!ok) { /* a new link: everything must still stand */
      foray_edge_link_down(e, "refused", now);
      foray_edge_link_up(e, now);
    }
  }
  foray_edge_destroy(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  size_t piece = 1 + (data[0] >> 1) % 64;
  if (piece == 64) piece = 1 << 20;
  (data[0] & 1 ? cloud : edge)(data + 1, size - 1, piece);
  return 0;
}
