/* Whole runs of every algorithm on tiny models with two kinds of tokenizers: bits, privacy, bytes, resuming.
 */
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cotune/dpm.h"
#include "cotune/fed.h"
#include "unit/harness.h"
#include "unit/tiny_model.h"

static char g_dir[64];

static void write_file(const char *name, const void *data, size_t n) {
  char path[160];
  snprintf(path, sizeof path, "%s/%s", g_dir, name);
  FILE *f = fopen(path, "wb");
  CU_ASSERT_FATAL(f != NULL && fwrite(data, 1, n, f) == n);
  fclose(f);
}
static const char *const COLOURS[] = {"red", "green", "blue", "white"};
static const char *const THINGS[] = {"house", "river", "stone", "garden", "window"};

static void set_up(void) {
  snprintf(g_dir, sizeof g_dir, "/tmp/foray-fed-XXXXXX");
  CU_ASSERT_FATAL(mkdtemp(g_dir) != NULL);
  for (int k = 0; k < 3; k++) {
    static const char *const name[] = {"cloud.gguf", "bpe.gguf", "spm.gguf"};
    struct foray_tiny d = foray_tiny_default(k == 2 ? FORAY_ARCH_GEMMA3
                                             : k    ? FORAY_ARCH_LLAMA
                                                    : FORAY_ARCH_QWEN2);
    struct foray_buf b;
    d.seed = 5 + (uint64_t)k;
    if (!k) d.n_layer = 5;
    foray_tiny_build(&d, &b);
    write_file(name[k], b.data, b.len);
    foray_buf_deinit(&b);
  }
  for (int s = 0; s < 4; s++) {
    static const char *const name[] = {"a-train.jsonl", "b-train.jsonl", "a-dev.jsonl", "b-dev.jsonl"};
    char text[8192];
    size_t n = 0;
    for (int i = 0; i < (s < 2 ? 20 : 4); i++)
      n += (size_t)snprintf(text + n, sizeof text - n,
                            "{\"prompt\": \"What is the %s of %d?\", \"completion\": \"the %s %s\"}\n",
                            s % 2 ? "colour" : "name", i + 31 * s, COLOURS[(i + s) % 4],
                            THINGS[(i * 3 + s) % 5]);
    write_file(name[s], text, n);
  }
}
static void tear_down(const char *sub) {
  char path[512];
  snprintf(path, sizeof path, "%s%s%s", g_dir, *sub ? "/" : "", sub);
  DIR *d = opendir(path);
  for (struct dirent *e; d && (e = readdir(d));) {
    char file[900];
    if (e->d_name[0] == '.') continue;
    snprintf(file, sizeof file, "%s/%s", path, e->d_name);
    if (unlink(file) && !*sub) tear_down(e->d_name);
  }
  if (d) closedir(d);
  rmdir(path);
}

static void config(struct foray_fed_config *c, const char *algorithm, const char *work, const char *more) {
  char text[4096];
  struct foray_err err = {0};
  snprintf(text, sizeof text,
           "[run]\nrounds = 2\nalgorithm = \"%s\"\nkernel = \"f32\"\nwork = \"%s/%s\"\n"
           "[data]\ntrain = [\"a=%s/a-train.jsonl\", \"b=%s/b-train.jsonl\"]\ndev = [\"a=%s/a-dev.jsonl\",\n "
           "\"b=%s/b-dev.jsonl\"] # two lines\n"
           "max_tokens = 120\npublic_share = 0.3\n[cloud]\nmodel = \"%s/cloud.gguf\"\n"
           "[[device]]\nmodel = \"%s/bpe.gguf\"\ndomain = \"a\"\n[[device]]\nmodel = \"%s/spm.gguf\"\ndomain "
           "= \"b\"\n"
           "[[device]]\nmodel = \"%s/bpe.gguf\"\ndomain = \"b\"\n"
           "[proxy]\nlayers = 4\ndistil_steps = 6\ndistil_lr = 0.01\n"
           "[train]\nbatch = 3\ndst_steps = 2\nsaml_steps = 2\nserver_steps = 2\nrank = 2\nprivate_rank = "
           "1\nk = 12\nlr = 0.01\n"
           "[eval]\nmax_new = 4\n%s",
           algorithm, g_dir, work, g_dir, g_dir, g_dir, g_dir, g_dir, g_dir, g_dir, g_dir, more);
  enum foray_status st = foray_fed_config_parse(text, "test", c, &err);
  if (st) printf("%s\n", err.msg);
  CU_ASSERT_FATAL(st == FORAY_OK);
}

/* Result without the seconds; owned. wire: file for all bytes, or NULL. */
static char *run(struct foray_fed_config *c, int threads, const char *wire, struct foray_fed_result *r) {
  struct foray_err err = {0};
  struct foray_pool *pool;
  struct foray_mm *gemm;
  struct foray_fed *f = NULL;
  CU_ASSERT_FATAL(foray_pool_open(threads, &pool, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_mm_open(FORAY_MM_F32, pool, &gemm, &err) == FORAY_OK);
  enum foray_status st = foray_fed_open(c, gemm, NULL, NULL, NULL, &f, &err);
  if (!st && wire) CU_ASSERT((f->wire.log = fopen(wire, "wb")) != NULL);
  if (!st) st = foray_fed_run(f, r, &err);
  if (st) printf("%s: %s\n", c->algorithm, err.msg);
  CU_ASSERT_FATAL(st == FORAY_OK);
  if (f->wire.log) fclose(f->wire.log);
  r->seconds = 0;
  char *text = foray_fed_result_json(f, r);
  foray_fed_close(f);
  foray_mm_close(gemm);
  foray_pool_close(pool);
  return text;
}

static bool holds(const uint8_t *data, size_t n, const char *text) {
  return memmem(data, n, text, strlen(text)) != NULL;
}

TEST(every_algorithm_is_deterministic_and_keeps_text_at_home) {
  set_up();
  for (int i = 0; FORAY_ALGOS[i]; i++) {
    const struct foray_algo *a = FORAY_ALGOS[i];
    struct foray_fed_config c;
    struct foray_fed_result r, r2;
    char wire[128], one[48], two[48];
    snprintf(wire, sizeof wire, "%s/wire", g_dir);
    snprintf(one, sizeof one, "%s-1", a->name);
    snprintf(two, sizeof two, "%s-2", a->name);
    config(&c, a->name, one, "");
    char *x = run(&c, 1, wire, &r);
    for (int k = 0; k < 3; k++)
      CU_ASSERT(r.device[k].n > 0 && isfinite(r.device[k].perplexity) && r.device[k].perplexity > 1);
    /* again with three threads, in two lives: the checkpoint of the first round is taken up */
    config(&c, a->name, two, "");
    c.rounds = 1;
    free(run(&c, 3, NULL, &r2));
    c.rounds = 2;
    char *y = run(&c, 3, NULL, &r2);
    if (strcmp(x, y)) printf("%s:\n%s\n%s\n", a->name, x, y);
    CU_ASSERT(!strcmp(x, y));
    free(x), free(y);
    bool alone = !strcmp(a->name, "standalone"), central = !strcmp(a->name, "central");
    CU_ASSERT(alone ? r.up + r.down == 0 : r.up > 0);
    FILE *f = fopen(wire, "rb");
    uint8_t *data = malloc(1 << 22);
    size_t n = fread(data, 1, 1 << 22, f);
    fclose(f);
    CU_ASSERT(n < 1 << 22 && (alone || central || n > 100));
    for (int k = 0; k < 4; k++) CU_ASSERT(!holds(data, n, COLOURS[k]));
    for (int k = 0; k < 5; k++) CU_ASSERT(!holds(data, n, THINGS[k]));
    CU_ASSERT(!holds(data, n, "What is"));
    free(data);
  }
  tear_down("");
}

TEST(devices_learn_and_the_cloud_with_them) {
  set_up();
  struct foray_fed_config c;
  struct foray_fed_result none, some;
  config(&c, "coplm", "w0", "[federation]\nparticipation = 1.0\n");
  c.rounds = 6, c.dst_steps = c.saml_steps = c.server_steps = 8;
  free(run(&c, 2, NULL, &some));
  config(&c, "coplm", "w1", "");
  c.dst_steps = c.saml_steps = c.server_steps = 0;
  free(run(&c, 2, NULL, &none));
  for (int k = 0; k < 3; k++) CU_ASSERT(some.device[k].perplexity < 0.5 * none.device[k].perplexity);
  CU_ASSERT(some.cloud.perplexity < 0.7 * none.cloud.perplexity);
  tear_down("");
}

/* Under masks the result differs from the open one by rounding alone (fixed point against bf16). */
TEST(masked_sums_give_the_same_run) {
  set_up();
  struct foray_fed_config c;
  struct foray_fed_result open, hidden, again;
  config(&c, "coplm", "w0", "");
  free(run(&c, 2, NULL, &open));
  config(&c, "coplm", "w1", "[privacy]\nsecure = true\n");
  free(run(&c, 2, NULL, &hidden));
  config(&c, "coplm", "w2", "[privacy]\nsecure = true\n");
  free(run(&c, 1, NULL, &again));
  CU_ASSERT(hidden.up > open.up);
  CU_ASSERT(hidden.mean.perplexity == again.mean.perplexity); /* other masks, same sum */
  for (int k = 0; k < 3; k++)
    CU_ASSERT(fabs(hidden.device[k].perplexity / open.device[k].perplexity - 1) < 0.01);
  CU_ASSERT(fabs(hidden.cloud.perplexity / open.cloud.perplexity - 1) < 0.01);
  tear_down("");
}

TEST(lost_and_late_devices) {
  set_up();
  struct foray_fed_config c;
  struct foray_fed_result r;
  config(&c, "coplm", "w0", "[federation]\nparticipation = 0.6\nstraggler = 0.5\ndropout = 0.4\n");
  c.rounds = 4;
  struct foray_fed f = {.c = &c, .n_devices = 3};
  int who[FORAY_FED_DEVICES], percent[FORAY_FED_DEVICES], count = 0, late = 0, rounds = 2000;
  for (int i = 0; i < rounds; i++) {
    int n = foray_fed_draw(&f, i, who, percent);
    CU_ASSERT(n <= 2);
    for (int k = 0; k < n; k++) {
      count++, late += percent[k] == 50;
      CU_ASSERT(who[k] >= 0 && who[k] < 3 && (!k || who[k] > who[k - 1]));
    }
  }
  CU_ASSERT(abs(count - (int)(rounds * 2 * 0.6)) < 150); /* two are asked, 40 % are lost */
  CU_ASSERT(abs(late - count / 2) < 150);
  free(run(&c, 2, NULL, &r));
  CU_ASSERT(isfinite(r.mean.perplexity));
  tear_down("");
}

TEST(dirichlet_deals_everything_once) {
  set_up();
  struct foray_dataset d = {0};
  struct foray_err err = {0};
  for (int i = 0; i < 400; i++)
    CU_ASSERT_FATAL(foray_dataset_put(&d, "p", "c", i % 2 ? "x" : "y", &err) == FORAY_OK);
  double unequal[2];
  for (int k = 0; k < 2; k++) {
    struct foray_share s[5] = {{0}};
    int seen[400] = {0}, most = 0;
    CU_ASSERT(foray_split_dirichlet(&d, k ? 0.1 : 100, 5, 3, s, &err) == FORAY_OK);
    for (int i = 0; i < 5; i++) {
      for (int q = 0; q < s[i].n; q++) seen[s[i].index[q]]++;
      if (s[i].n > most) most = s[i].n;
      foray_share_deinit(&s[i]);
    }
    for (int i = 0; i < 400; i++) CU_ASSERT(seen[i] == 1);
    unequal[k] = most;
  }
  CU_ASSERT(unequal[0] < 110 && unequal[1] > 130);
  foray_dataset_deinit(&d);
  tear_down("");
}

TEST(a_proxy_is_a_model_and_distillation_brings_it_nearer) {
  set_up();
  struct foray_err err = {0};
  struct foray_pool *pool;
  struct foray_mm *gemm;
  struct foray_model *m, *p;
  struct foray_learner *l;
  struct foray_dpm_report r;
  char path[2][128], *text[24];
  int layers[8];
  foray_dpm_layers(28, 8, layers);
  CU_ASSERT(layers[0] == 0 && layers[1] == 1 && layers[6] == 26 && layers[7] == 27);
  for (int i = 1; i < 8; i++) CU_ASSERT(layers[i] > layers[i - 1]);
  for (int n = 1; n < 40; n++)
    for (int k = 1; k <= n; k++) {
      int v[40];
      foray_dpm_layers(n, k, v);
      for (int i = 0; i < k; i++) CU_ASSERT(v[i] >= 0 && v[i] < n && (!i || v[i] > v[i - 1]));
    }
  snprintf(path[0], 128, "%s/cloud.gguf", g_dir);
  snprintf(path[1], 128, "%s/proxy.gguf", g_dir);
  for (int i = 0; i < 24; i++) {
    text[i] = malloc(64);
    snprintf(text[i], 64, "the %s %s and the world", COLOURS[i % 4], THINGS[i % 5]);
  }
  CU_ASSERT_FATAL(foray_pool_open(2, &pool, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_mm_open(FORAY_MM_F32, pool, &gemm, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_model_open(path[0], &m, &err) == FORAY_OK);
  struct foray_learner_opts lo = {.rank = 2, .rows = 256, .plain = true, .seed = 1};
  CU_ASSERT_FATAL(foray_learner_open(m, gemm, &lo, &l, &err) == FORAY_OK);
  struct foray_dpm_opts o = {.layers = 3,
                             .rank = 8,
                             .steps = 40,
                             .batch = 4,
                             .max_tokens = 64,
                             .k = 32,
                             .lr = 0.01,
                             .mu = 0.8,
                             .tau = 1,
                             .seed = 1};
  CU_ASSERT_FATAL(foray_dpm_make(l, (const char *const *)text, 24, &o, path[1], &r, &err) == FORAY_OK);
  CU_ASSERT(r.kl_after < 0.6 * r.kl_before && r.bytes > 10000);
  CU_ASSERT_FATAL(foray_model_open(path[1], &p, &err) == FORAY_OK);
  CU_ASSERT(p->config.n_layer == 3 && p->config.n_embd == m->config.n_embd);
  foray_model_close(p);
  foray_learner_close(l);
  foray_model_close(m);
  foray_mm_close(gemm);
  foray_pool_close(pool);
  for (int i = 0; i < 24; i++) free(text[i]);
  tear_down("");
}

TEST(messages_that_lie_are_refused) {
  struct foray_err err = {0};
  struct foray_buf m;
  float v[5] = {1, -2, 0.5f, 3, 0}, back[5];
  CU_ASSERT(foray_wire_put_values(&m, FORAY_WIRE_DELTA, 1, 2, v, 5, &err) == FORAY_OK);
  CU_ASSERT(m.len == FORAY_WIRE_HEADER + 10);
  CU_ASSERT(foray_wire_get_values(&m, FORAY_WIRE_DELTA, back, 5, &err) == FORAY_OK &&
            !memcmp(v, back, sizeof v));
  CU_ASSERT(foray_wire_get_values(&m, FORAY_WIRE_DELTA, back, 4, &err) == FORAY_E_FORMAT);
  CU_ASSERT(foray_wire_get_values(&m, FORAY_WIRE_WEIGHTS, back, 5, &err) == FORAY_E_FORMAT);
  m.data[FORAY_WIRE_HEADER] = 0x80, m.data[FORAY_WIRE_HEADER + 1] = 0x7f; /* infinity */
  CU_ASSERT(foray_wire_get_values(&m, FORAY_WIRE_DELTA, back, 5, &err) == FORAY_E_FORMAT);
  m.len -= 1;
  CU_ASSERT(foray_wire_get_values(&m, FORAY_WIRE_DELTA, back, 5, &err) == FORAY_E_FORMAT);
  foray_buf_deinit(&m);
  int32_t row[2][2] = {{4, 9}, {1, 0}};
  float p[2][2] = {{0.5f, 0.25f}, {1, 0}};
  struct foray_sparse t[2] = {{2, row[0], p[0]}, {1, row[1], p[1]}};
  int count[2] = {1, 1};
  double ce[2] = {1.5, 0.25};
  CU_ASSERT(foray_wire_put_tops(&m, 0, 0, t, count, ce, 2, &err) == FORAY_OK);
  CU_ASSERT(foray_wire_get_tops(&m, 2, 10, t, count, ce, 2, &err) == FORAY_OK && row[0][1] == 9 &&
            ce[1] == 0.25);
  CU_ASSERT(foray_wire_get_tops(&m, 2, 9, t, count, ce, 2, &err) == FORAY_E_FORMAT);
  CU_ASSERT(foray_wire_get_tops(&m, 1, 10, t, count, ce, 2, &err) == FORAY_E_FORMAT);
  for (size_t cut = m.len; cut-- > 0;) {
    m.len = cut;
    CU_ASSERT(foray_wire_get_tops(&m, 2, 10, t, count, ce, 2, &err) == FORAY_E_FORMAT);
  }
  foray_buf_deinit(&m);
}

TEST(configurations_with_mistakes_name_them) {
  static const struct {
    const char *text, *why;
  } bad[] = {{"[run]\nround = 3\n", "round"},
             {"[run]\nrounds = 0\n", "rounds"},
             {"[run]\nrounds = \"x\"\n", "rounds"},
             {"[run\n", "test:1"},
             {"\n\nx\n", "test:3"},
             {"[run]\nseed = 1\nseed = 2\n", "test:3"},
             {"[train]\ndiv = \"kll\"\n", "div"},
             {"[data]\ntrain = [\"nopath\"]\n", "train"},
             {"[[device]]\nmodel = \"m\"\nspeed = 2\n", "device"},
             {"[nothing]\nx = 1\n", "nothing"},
             {"[run]\nrounds = 2\n", "needs"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct foray_fed_config c;
    struct foray_err err = {0};
    CU_ASSERT(foray_fed_config_parse(bad[i].text, "test", &c, &err) != FORAY_OK);
    if (!strstr(err.msg, bad[i].why)) printf("'%s': %s\n", bad[i].text, err.msg);
    CU_ASSERT(strstr(err.msg, bad[i].why) != NULL);
  }
}
