/* The client and the server on real sockets, with a toy target behind the scheduler. */
#include "unit/e2e_server.h"
#include "unit/harness.h"

#include "net/client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX = 200 };

static struct foray_gen_request request(enum foray_mode mode) {
  static const uint32_t prompt[] = {3, 7, 1, 12};
  struct foray_gen_request r = {.prompt = prompt, .n_prompt = 4, .max_tokens = MAX, .mode = mode};
  r.ignore_eos = true;
  r.sampling.temperature = 0.8f;
  r.sampling.seed = 42;
  return r;
}

/* Generates with drafts that are right every so often; true when the tokens are want[n]. */
static bool generate(struct foray_client *c, enum foray_mode mode, const uint32_t *want, uint32_t n,
                     void (*at)(void *, uint32_t), void *arg) {
  struct foray_gen_request r = request(mode);
  struct foray_err err = {0};
  uint32_t session;
  if (foray_client_request(c, &r, &session, &err) != FORAY_OK) {
    fprintf(stderr, "%s\n", err.msg);
    return false;
  }
  uint32_t rng = 1;
  bool same = false;
  for (;;) {
    struct foray_edge_event ev;
    enum foray_status st = foray_client_wait(c, 20000, &ev, &err);
    if (st != FORAY_OK || ev.kind == FORAY_EDGE_FAILED) {
      fprintf(stderr, "%s\n", st != FORAY_OK ? err.msg : ev.text);
      break;
    }
    struct foray_edge_view v;
    if (foray_edge_view(foray_client_edge(c), session, &v) != FORAY_OK) break;
    if (at) at(arg, v.n_generated);
    if (v.finish != FORAY_FINISH_NONE) {
      same = v.n_generated == n && memcmp(v.tokens + v.n_prompt, want, n * sizeof *want) == 0 &&
             v.finish == FORAY_FINISH_LENGTH;
      break;
    }
    while (mode == FORAY_MODE_SPECULATIVE && v.open && v.rounds < 2) {
      uint32_t ids[4], m = 1 + (rng = rng * 1664525 + 1013904223) / 1073741824u,
                       start = v.n_generated + v.n_guessed;
      for (uint32_t k = 0; k < m; k++)
        ids[k] = (rng = rng * 1664525 + 1013904223) < 0xc0000000u && start + k < n ? want[start + k] : 5;
      if (foray_client_draft(c, session, start, ids, m, NULL, &err) != FORAY_OK ||
          foray_edge_view(foray_client_edge(c), session, &v) != FORAY_OK)
        break;
    }
  }
  foray_client_end(c, session, NULL);
  return same;
}

static struct foray_client *open_client(const char *uri) {
  struct foray_client_opts o = {.uri = uri, .retry_max_ms = 10000};
  struct foray_client *c = NULL;
  struct foray_err err = {0};
  if (foray_client_open(&o, &c, &err) != FORAY_OK) fprintf(stderr, "%s\n", err.msg);
  return c;
}

static void want_of(struct toy *t, uint32_t *want, uint32_t *n) {
  struct foray_gen_request r = request(FORAY_MODE_PLAIN);
  toy_plain(t, &r, want, n);
}

TEST(tcp_and_unix_give_plain_tokens) {
  struct toy toy;
  uint32_t want[MAX], n;
  toy_init(&toy, 5, 1000);
  want_of(&toy, want, &n);
  for (int tcp = 0; tcp < 2; tcp++) {
    struct test_server *s = test_server_start(NULL, &toy, tcp);
    CU_ASSERT_FATAL(s != NULL);
    struct foray_client *c = open_client(test_server_uri(s));
    CU_ASSERT_FATAL(c != NULL);
    CU_ASSERT(generate(c, FORAY_MODE_PLAIN, want, n, NULL, NULL));
    CU_ASSERT(generate(c, FORAY_MODE_SPECULATIVE, want, n, NULL, NULL));
    struct foray_edge_stats st;
    foray_edge_stats_get(foray_client_edge(c), &st);
    CU_ASSERT(st.bytes_up > 0 && st.bytes_down > 0 && st.rtt_ns > 0);
    CU_ASSERT(st.links == 1);
    CU_ASSERT_STRING_EQUAL(foray_edge_server_info(foray_client_edge(c))->model_name, "toy");
    foray_client_close(c);
    test_server_stop(s);
  }
}

struct killer {
  struct test_server *s;
  bool done;
};
static void kill_at_40(void *arg, uint32_t n) {
  struct killer *k = arg;
  if (n < 40 || k->done) return;
  k->done = true;
  test_server_kill(k->s);
  CU_ASSERT(test_server_restart(k->s));
}

TEST(a_server_that_dies_and_comes_back_changes_nothing) {
  struct toy toy;
  uint32_t want[MAX], n;
  toy_init(&toy, 6, 1000);
  toy.pass_us = 1000;
  want_of(&toy, want, &n);
  struct test_server *s = test_server_start(NULL, &toy, false);
  CU_ASSERT_FATAL(s != NULL);
  struct foray_client *c = open_client(test_server_uri(s));
  CU_ASSERT_FATAL(c != NULL);
  for (int mode = 0; mode < 2; mode++) {
    struct killer k = {s, false};
    CU_ASSERT(generate(c, (enum foray_mode)mode, want, n, kill_at_40, &k));
  }
  struct foray_edge_stats st;
  foray_edge_stats_get(foray_client_edge(c), &st);
  CU_ASSERT(st.links >= 3 && st.reopens >= 2);
  foray_client_close(c);
  test_server_stop(s);
}

TEST(scores_are_the_targets_log_probabilities) {
  struct toy toy;
  toy_init(&toy, 7, 4000);
  struct test_server *s = test_server_start(NULL, &toy, false);
  CU_ASSERT_FATAL(s != NULL);
  struct foray_client *c = open_client(test_server_uri(s));
  CU_ASSERT_FATAL(c != NULL);
  CU_ASSERT_FATAL(foray_client_wait_ready(c, 10000, NULL, NULL, NULL) == FORAY_OK);
  uint32_t ids[1200], req[2];
  for (uint32_t i = 0; i < 1200; i++) ids[i] = 1 + i * i % 23;
  CU_ASSERT_FATAL(foray_client_score(c, ids, 1200, 100, &req[0], NULL) == FORAY_OK);
  CU_ASSERT_FATAL(foray_client_score(c, ids, 2, 0, &req[1], NULL) == FORAY_OK);
  uint32_t got = 0;
  bool last[2] = {false, false};
  while (!last[0] || !last[1]) {
    struct foray_edge_event ev;
    CU_ASSERT_FATAL(foray_client_wait(c, 20000, &ev, NULL) == FORAY_OK);
    CU_ASSERT(ev.kind != FORAY_EDGE_FAILED);
    if (ev.kind != FORAY_EDGE_SCORED) continue;
    for (uint32_t i = 0; i < ev.n_logp; i++, got++) {
      uint32_t at = ev.logp_first + i;
      CU_ASSERT_DOUBLE_EQUAL(ev.logp[i], toy_logprob(&toy, ids, at + 1, ids[at + 1]), 1e-12);
    }
    last[ev.request == req[1]] = ev.last;
  }
  CU_ASSERT_EQUAL(got, 1099 + 1);
  foray_client_close(c);
  test_server_stop(s);
}

TEST(errors_are_told) {
  struct foray_client_opts o = {.uri = "unix:/nonexistent/sock", .retry_max_ms = -1};
  struct foray_client *c = NULL;
  struct foray_err err = {0};
  struct foray_edge_event ev;
  enum foray_status st = foray_client_open(&o, &c, &err);
  while (st == FORAY_OK) st = foray_client_wait(c, 5000, &ev, &err);
  CU_ASSERT_EQUAL(st, FORAY_E_NET);
  CU_ASSERT(strstr(err.msg, "/nonexistent/sock") != NULL);
  foray_client_close(c);
  static const char *const bad[] = {"nonsense", "tcp:host", "host:0", "host:99999",
                                    "unix:",    "spawn:",   "fd:x",   ":5"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    o.uri = bad[i];
    CU_ASSERT_EQUAL(foray_client_open(&o, &c, &err), FORAY_E_ARG);
  }
  o = (struct foray_client_opts){.uri = "spawn:x", .spawn_program = "/nonexistent/forayd"};
  CU_ASSERT_EQUAL(foray_client_open(&o, &c, &err), FORAY_E_NOTFOUND);
  CU_ASSERT(strstr(err.msg, "/nonexistent/forayd") != NULL);
  /* a program that is no forayd: one try, no endless restarts */
  o.spawn_program = "/bin/false";
  st = foray_client_open(&o, &c, &err);
  while (st == FORAY_OK) st = foray_client_wait(c, 10000, &ev, &err);
  CU_ASSERT_EQUAL(st, FORAY_E_NET);
  foray_client_close(c);
}

TEST(another_tokenizer_is_refused_with_its_name) {
  struct toy toy;
  toy_init(&toy, 8, 100);
  struct test_server *s = test_server_start(NULL, &toy, false);
  CU_ASSERT_FATAL(s != NULL);
  uint8_t other[32] = {1, 2, 3};
  struct foray_client_opts o = {.uri = test_server_uri(s), .edge = {.tokenizer_sha256 = other}};
  struct foray_client *c = NULL;
  struct foray_err err = {0};
  CU_ASSERT_FATAL(foray_client_open(&o, &c, &err) == FORAY_OK);
  CU_ASSERT_EQUAL(foray_client_wait_ready(c, 10000, NULL, NULL, &err), FORAY_OK + FORAY_E_MISMATCH);
  CU_ASSERT(strstr(err.msg, "toy") != NULL && strstr(err.msg, "tokenizer") != NULL);
  foray_client_close(c);
  test_server_stop(s);
}

static void *interrupter(void *c) {
  usleep(50000);
  foray_client_interrupt(c);
  return NULL;
}
TEST(a_wait_can_be_interrupted_and_times_out) {
  int sv[2];
  CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
  char uri[32];
  snprintf(uri, sizeof uri, "fd:%d", sv[0]);
  struct foray_client *c = open_client(uri);
  CU_ASSERT_FATAL(c != NULL);
  struct foray_edge_event ev;
  CU_ASSERT_EQUAL(foray_client_wait(c, 0, &ev, NULL), FORAY_E_TIMEOUT);
  CU_ASSERT_EQUAL(foray_client_wait(c, 20, &ev, NULL), FORAY_E_TIMEOUT);
  pthread_t t;
  pthread_create(&t, NULL, interrupter, c);
  CU_ASSERT_EQUAL(foray_client_wait(c, 10000, &ev, NULL), FORAY_E_CANCELLED);
  pthread_join(t, NULL);
  close(sv[1]); /* writing to a closed stream must not raise SIGPIPE */
  enum foray_status st;
  while ((st = foray_client_wait(c, 5000, &ev, NULL)) == FORAY_OK) continue;
  CU_ASSERT_EQUAL(st, FORAY_E_NET);
  foray_client_close(c);
}
