/* Frames, request limits and both machines against peers that break the rules. What they do right is tested
 * in simlink and net. */
#include "unit/harness.h"

#include "proto/cloud_sm.h"
#include "proto/edge_sm.h"
#include "proto/frame.h"

#include "foray.pb-c.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum foray_status feed_all(struct foray_frame_reader *r, const uint8_t *p, size_t n, int *frames) {
  *frames = 0;
  while (n) {
    size_t used;
    struct foray_frame f;
    bool complete;
    enum foray_status st = foray_frame_feed(r, p, n, &used, &f, &complete, NULL);
    if (st != FORAY_OK) return st;
    *frames += complete;
    p += used;
    n -= used;
  }
  return FORAY_OK;
}

TEST(frames_survive_any_cut) {
  struct foray_buf out;
  foray_buf_init(&out, 1 << 20);
  uint8_t payload[300];
  memset(payload, 0x5a, sizeof payload);
  for (size_t n = 0; n < sizeof payload; n += 37)
    CU_ASSERT_EQUAL(foray_frame_write(&out, FORAY_FRAME_PING, payload, n), FORAY_OK);
  for (size_t piece = 1; piece < 200; piece++) {
    struct foray_frame_reader r;
    foray_frame_reader_init(&r, 'E');
    int total = 0, got;
    for (size_t at = 0; at < out.len; at += piece) {
      CU_ASSERT_EQUAL(feed_all(&r, out.data + at, piece < out.len - at ? piece : out.len - at, &got),
                      FORAY_OK);
      total += got;
    }
    CU_ASSERT_EQUAL(total, 9);
    foray_frame_reader_deinit(&r);
  }
  foray_buf_deinit(&out);
}

TEST(bad_frames_are_refused) {
  static const struct {
    uint8_t bytes[8];
    size_t n;
    enum foray_status want;
  } bad[] = {
      {{0, 0}, 2, FORAY_E_PROTO},                         /* type 0 */
      {{99, 0}, 2, FORAY_E_PROTO},                        /* unknown */
      {{FORAY_FRAME_WELCOME, 0}, 2, FORAY_E_PROTO},       /* of the other side */
      {{FORAY_FRAME_PING, 0x80, 0x00}, 3, FORAY_E_PROTO}, /* not the shortest length */
      {{FORAY_FRAME_PING, 0x81, 0x20}, 3, FORAY_E_LIMIT}, /* 4097 bytes */
      {{FORAY_FRAME_OPEN, 0x81, 0x80, 0x40}, 4, FORAY_E_LIMIT},
      {{FORAY_FRAME_OPEN, 0xff, 0xff, 0xff, 0xff, 0x01}, 6, FORAY_E_PROTO},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct foray_frame_reader r;
    int frames;
    foray_frame_reader_init(&r, 'E');
    CU_ASSERT_EQUAL(feed_all(&r, bad[i].bytes, bad[i].n, &frames), bad[i].want);
    CU_ASSERT_EQUAL(frames, 0);
    foray_frame_reader_deinit(&r);
  }
}

TEST(decoding_uses_bounded_memory) {
  /* 2000 empty stop strings in 4000 bytes: as structures they would take 16 bytes each and more */
  static uint8_t bomb[60000];
  for (size_t i = 0; i < sizeof bomb; i += 2) bomb[i] = 5 << 3 | 2, bomb[i + 1] = 0;
  struct foray_frame f = {FORAY_FRAME_OPEN, bomb, sizeof bomb};
  struct foray_msg m;
  CU_ASSERT_EQUAL(foray_msg_read(&f, &m, NULL), FORAY_E_PROTO);
  f = (struct foray_frame){FORAY_FRAME_OPEN, (const uint8_t *)"\xff\xff", 2};
  CU_ASSERT_EQUAL(foray_msg_read(&f, &m, NULL), FORAY_E_PROTO);
}

TEST(requests_are_checked) {
  static const uint32_t prompt[] = {1};
  const struct foray_gen_request good = {.prompt = prompt, .n_prompt = 1, .max_tokens = 1};
  CU_ASSERT_EQUAL(foray_gen_request_check(&good, NULL), FORAY_OK);
#define BAD(change, code)                                                                                    \
  do {                                                                                                       \
    struct foray_gen_request r = good;                                                                       \
    change;                                                                                                  \
    CU_ASSERT_EQUAL(foray_gen_request_check(&r, NULL), code);                                                \
  } while (0)
  static const char *const stop[] = {""};
  static const uint32_t len[] = {0};
  static const uint32_t id[] = {1};
  static const float not_a_number[] = {NAN};
  BAD(r.n_prompt = 0, FORAY_E_ARG);
  BAD(r.n_prompt = FORAY_PROTO_PROMPT_MAX + 1, FORAY_E_LIMIT);
  BAD(r.max_tokens = 0, FORAY_E_LIMIT);
  BAD(r.mode = (enum foray_mode)7, FORAY_E_ARG);
  BAD(r.sampling.temperature = NAN, FORAY_E_ARG);
  BAD(r.sampling.temperature = -1, FORAY_E_ARG);
  BAD(r.sampling.top_p = 1.5f, FORAY_E_ARG);
  BAD(r.sampling.min_p = INFINITY, FORAY_E_ARG);
  BAD(r.sampling.repeat_last_n = -2, FORAY_E_ARG);
  BAD(r.n_stops = FORAY_PROTO_STOPS_MAX + 1, FORAY_E_LIMIT);
  BAD((r.n_stops = 1, r.stops = stop, r.stop_len = len), FORAY_E_LIMIT);
  BAD((r.sampling.n_bias = 1, r.sampling.bias_ids = id, r.sampling.bias = not_a_number), FORAY_E_ARG);
}

/* ---------------------------------------------------------------- a cloud that lies */

static void put(struct foray_buf *b, enum foray_frame_type t, void *m) {
  CU_ASSERT_EQUAL(foray_msg_write(b, t, m, NULL), FORAY_OK);
}

/* An edge with one open speculative session (handle 0), one round of 3 ids in flight. */
static struct foray_edge *ready_edge(enum foray_mode mode) {
  struct foray_edge *e;
  static const uint32_t prompt[] = {1, 2}, ids[] = {5, 6, 7};
  struct foray_gen_request r = {.prompt = prompt, .n_prompt = 2, .max_tokens = 8, .mode = mode};
  uint32_t s, round;
  CU_ASSERT_FATAL(foray_edge_create(NULL, &e, NULL) == FORAY_OK);
  CU_ASSERT_FATAL(foray_edge_open(e, &r, &s, NULL) == FORAY_OK && s == 0);
  foray_edge_link_up(e, 0);
  struct foray_buf b;
  foray_buf_init(&b, 4096);
  uint8_t zero[32] = {0};
  Foray__Wire__Welcome w = FORAY__WIRE__WELCOME__INIT;
  w.version = 1;
  w.features = FORAY_FEATURES_ALL;
  w.tokenizer = w.model = (ProtobufCBinaryData){32, zero};
  w.vocab = 100;
  w.ctx = 100;
  w.draft_max = 8;
  w.rounds_max = 4;
  w.sessions_max = 4;
  put(&b, FORAY_FRAME_WELCOME, &w);
  Foray__Wire__Opened o = FORAY__WIRE__OPENED__INIT;
  o.secret = (ProtobufCBinaryData){16, zero};
  put(&b, FORAY_FRAME_OPENED, &o);
  CU_ASSERT_FATAL(foray_edge_feed(e, b.data, b.len, 1, NULL) == FORAY_OK);
  foray_buf_deinit(&b);
  if (mode == FORAY_MODE_SPECULATIVE)
    CU_ASSERT_FATAL(foray_edge_draft(e, 0, 0, ids, 3, 2, &round, NULL) == FORAY_OK && round == 1);
  return e;
}

static enum foray_status verdict(struct foray_edge *e, uint32_t session, uint32_t round, uint32_t accepted,
                                 uint32_t n_ids, uint32_t finish) {
  uint32_t ids[16] = {40, 41, 42, 43, 44, 45, 46, 47, 48};
  struct foray_buf b;
  foray_buf_init(&b, 4096);
  Foray__Wire__Verdict v = FORAY__WIRE__VERDICT__INIT;
  v.session = session;
  v.round = round;
  v.accepted = accepted;
  v.n_ids = n_ids;
  v.ids = ids;
  v.finish = finish;
  put(&b, FORAY_FRAME_VERDICT, &v);
  enum foray_status st = foray_edge_feed(e, b.data, b.len, 3, NULL);
  foray_buf_deinit(&b);
  return st;
}

TEST(verdicts_that_cannot_be_are_refused) {
  static const struct {
    uint32_t session, round, accepted, n_ids, finish;
    bool plain;
  } bad[] = {
      {9, 1, 0, 1, 0, false},  /* a session that never was */
      {0, 2, 0, 1, 0, false},  /* a round that is not the next one */
      {0, 1, 4, 1, 0, false},  /* more accepted than drafted */
      {0, 1, 1, 0, 0, false},  /* a rejection without the token that is right */
      {0, 1, 3, 6, 0, false},  /* more than max_tokens */
      {0, 1, 0, 1, 17, false}, /* unknown finish */
      {0, 0, 0, 1, 0, false},  /* tokens that nobody asked for */
      {0, 0, 1, 1, 0, true},   /* a gap in plain mode */
      {0, 0, 0, 0, 0, true},   /* nothing */
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct foray_edge *e = ready_edge(bad[i].plain ? FORAY_MODE_PLAIN : FORAY_MODE_SPECULATIVE);
    CU_ASSERT_EQUAL(verdict(e, bad[i].session, bad[i].round, bad[i].accepted, bad[i].n_ids, bad[i].finish),
                    FORAY_E_PROTO);
    struct foray_edge_view v;
    CU_ASSERT(foray_edge_view(e, 0, &v) == FORAY_OK && v.n_generated == 0);
    foray_edge_destroy(e);
  }
}

TEST(a_verdict_commits_and_tells_what_still_holds) {
  struct foray_edge *e = ready_edge(FORAY_MODE_SPECULATIVE);
  struct foray_edge_view v;
  struct foray_edge_event ev = {0};
  static const uint32_t ids[] = {40, 9};
  uint32_t round;
  CU_ASSERT_EQUAL(foray_edge_draft(e, 0, 2, ids, 2, 3, &round, NULL), FORAY_E_ARG); /* must start at 3 */
  CU_ASSERT_EQUAL(foray_edge_draft(e, 0, 3, ids, 2, 3, &round, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(verdict(e, 0, 1, 3, 1, 0), FORAY_OK); /* all of round 1, and 40, as round 2 guessed */
  while (foray_edge_event(e, &ev) && ev.kind != FORAY_EDGE_TOKENS) continue;
  CU_ASSERT(ev.kind == FORAY_EDGE_TOKENS && !ev.diverged && ev.n_new == 4 && ev.n_accepted == 3 &&
            ev.n_free == 1);
  CU_ASSERT(ev.ids[0] == 5 && ev.ids[3] == 40);
  CU_ASSERT(foray_edge_view(e, 0, &v) == FORAY_OK && v.n_generated == 4 && v.n_guessed == 1 && v.epoch == 0);
  CU_ASSERT_EQUAL(verdict(e, 0, 2, 1, 2, 0), FORAY_OK); /* the overlap and one rejection */
  CU_ASSERT(foray_edge_event(e, &ev) && ev.diverged && ev.n_new == 2);
  CU_ASSERT(foray_edge_view(e, 0, &v) == FORAY_OK && v.n_generated == 6 && v.rounds == 0 && v.epoch == 1);
  foray_edge_destroy(e);
}

TEST(silence_ends_the_link_and_pings_measure_it) {
  struct foray_edge *e = ready_edge(FORAY_MODE_SPECULATIVE);
  CU_ASSERT_EQUAL(foray_edge_tick(e, INT64_C(6000000000), NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_edge_tick(e, INT64_C(21000000000), NULL), FORAY_E_TIMEOUT);
  foray_edge_destroy(e);
  CU_ASSERT_FATAL(foray_edge_create(NULL, &e, NULL) == FORAY_OK);
  CU_ASSERT_EQUAL(foray_edge_deadline(e), INT64_MAX);
  foray_edge_link_up(e, 5);
  CU_ASSERT(foray_edge_deadline(e) > 5 && foray_edge_deadline(e) < INT64_MAX);
  CU_ASSERT_EQUAL(foray_edge_tick(e, INT64_C(31000000000), NULL), FORAY_E_TIMEOUT);
  foray_edge_destroy(e);
}

/* ---------------------------------------------------------------- an edge that lies */

TEST(an_edge_that_breaks_the_order_is_told_and_dropped) {
  for (int way = 0; way < 6; way++) {
    struct foray_cloud *c;
    struct foray_cloud_event ev;
    struct foray_err err = {0};
    struct foray_buf b;
    foray_buf_init(&b, 4096);
    CU_ASSERT_FATAL(foray_cloud_create(NULL, 0, &c, NULL) == FORAY_OK);
    Foray__Wire__Hello h = FORAY__WIRE__HELLO__INIT;
    h.version_min = way == 1 ? 7 : 1;
    h.version_max = way == 1 ? 9 : 1;
    Foray__Wire__Draft d = FORAY__WIRE__DRAFT__INIT;
    d.round = 1;
    if (way != 0) put(&b, FORAY_FRAME_HELLO, &h);
    if (way == 2) put(&b, FORAY_FRAME_HELLO, &h);
    if (way == 0) put(&b, FORAY_FRAME_DRAFT, &d);
    enum foray_status st = foray_cloud_feed(c, b.data, b.len, 1, &err), want = FORAY_E_PROTO;
    if (way == 1) want = FORAY_E_UNSUPPORTED;
    if (way >= 3) {
      struct foray_cloud_identity id = {.model_name = "m", .vocab = 10, .ctx = 50};
      CU_ASSERT(st == FORAY_OK && foray_cloud_event(c, &ev) && ev.kind == FORAY_CLOUD_HELLO);
      CU_ASSERT_EQUAL(foray_cloud_send_welcome(c, &id, NULL), FORAY_OK);
      uint32_t ids[1] = {3};
      Foray__Wire__Open o = FORAY__WIRE__OPEN__INIT;
      o.prompt = ids;
      o.n_prompt = 1;
      o.max_tokens = 5;
      foray_buf_clear(&b);
      put(&b, FORAY_FRAME_OPEN, &o);
      if (way == 3) put(&b, FORAY_FRAME_OPEN, &o); /* the handle twice */
      d.ids = ids;
      d.n_ids = 1;
      if (way == 4) ids[0] = 10; /* outside the vocabulary */
      put(&b, FORAY_FRAME_DRAFT, &d);
      d.round = 3; /* a gap */
      if (way == 5) put(&b, FORAY_FRAME_DRAFT, &d);
      if (way == 4) ids[0] = 3;
      st = foray_cloud_feed(c, b.data, b.len, 2, &err);
    }
    CU_ASSERT_EQUAL(st, want);
    CU_ASSERT(err.msg[0] != 0);
    const uint8_t *p;
    CU_ASSERT(foray_cloud_output(c, &p) > 0); /* the reason goes out */
    CU_ASSERT_EQUAL(foray_cloud_feed(c, b.data, b.len, 3, NULL), FORAY_E_STATE);
    foray_buf_deinit(&b);
    foray_cloud_destroy(c);
  }
}
