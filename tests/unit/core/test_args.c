#include "unit/harness.h"

#include "core/args.h"

#include <stdlib.h>
#include <string.h>

static int threads;
static bool json;
static double temp;
static const char *model;
static struct foray_strlist stop;
static const struct foray_opt opts[] = {
    {"model", 'm', FORAY_OPT_STR, &model, "NAME", "model", 0, 0},
    {"threads", 't', FORAY_OPT_INT, &threads, "N", "threads", 1, 256},
    {"temp|temperature", 0, FORAY_OPT_DOUBLE, &temp, "T", "temperature", 0, 100},
    {"json", 0, FORAY_OPT_FLAG, &json, NULL, "JSON", 0, 0},
    {"stop", 0, FORAY_OPT_LIST, &stop, "TEXT", "stop", 0, 0},
    {0}};
static const struct foray_command cmd = {"t", "[OPTIONS]", "A test.", opts, NULL};

static enum foray_args_result parse(int n, const char **v, int *rest, struct foray_err *err) {
  threads = 1, json = false, temp = 0.5, model = NULL, stop.n = 0;
  return foray_args_parse(&cmd, n, (char **)v, rest, err);
}

TEST(options_and_positional_arguments_mix) {
  const char *v[] = {"t",      "one",           "-m",   "x.gguf", "--threads=3", "two",
                     "--json", "--temperature", "0.25", "--",     "-z"};
  int rest = 0;
  struct foray_err e = {0};
  CU_ASSERT_EQUAL_FATAL(parse(11, v, &rest, &e), FORAY_ARGS_RUN);
  CU_ASSERT_EQUAL(11 - rest, 3);
  CU_ASSERT_STRING_EQUAL(v[rest], "one");
  CU_ASSERT_STRING_EQUAL(v[rest + 1], "two");
  CU_ASSERT_STRING_EQUAL(v[rest + 2], "-z");
  CU_ASSERT_STRING_EQUAL(model, "x.gguf");
  CU_ASSERT_EQUAL(threads, 3);
  CU_ASSERT_TRUE(json);
  CU_ASSERT_EQUAL(temp, 0.25);
}

TEST(wrong_values_are_named) {
  const char *bad[][3] = {{"t", "--threads", "abc"},        {"t", "--threads", "0"},
                          {"t", "--threads", "9999999999"}, {"t", "--temp", "nan"},
                          {"t", "--nonsense", "1"},         {"t", "-q", "1"}};
  for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
    int rest;
    struct foray_err e = {0};
    const char *v[3] = {bad[i][0], bad[i][1], bad[i][2]};
    CU_ASSERT_EQUAL(parse(3, v, &rest, &e), FORAY_ARGS_ERROR);
    CU_ASSERT_PTR_NOT_NULL(strstr(e.msg, bad[i][1]));
  }
  const char *v[] = {"t", "--model"};
  int rest;
  struct foray_err e = {0};
  CU_ASSERT_EQUAL(parse(2, v, &rest, &e), FORAY_ARGS_ERROR);
}

TEST(environment_twin_loses_to_the_command_line) {
  setenv("FORAY_ARG_THREADS", "7", 1);
  const char *v[] = {"t"};
  int rest;
  struct foray_err e = {0};
  CU_ASSERT_EQUAL(parse(1, v, &rest, &e), FORAY_ARGS_RUN);
  CU_ASSERT_EQUAL(threads, 7);
  const char *w[] = {"t", "-t", "2", "--no-json"};
  CU_ASSERT_EQUAL(parse(4, w, &rest, &e), FORAY_ARGS_RUN);
  CU_ASSERT_EQUAL(threads, 2);
  CU_ASSERT_FALSE(json);
  unsetenv("FORAY_ARG_THREADS");
}

TEST(lists_have_a_limit) {
  const char *v[2 * FORAY_STRLIST_MAX + 3] = {"t"};
  for (int i = 1; i < 2 * FORAY_STRLIST_MAX + 3; i += 2) v[i] = "--stop", v[i + 1] = "x";
  int rest;
  struct foray_err e = {0};
  CU_ASSERT_EQUAL(parse(2 * FORAY_STRLIST_MAX + 1, v, &rest, &e), FORAY_ARGS_RUN);
  CU_ASSERT_EQUAL(stop.n, FORAY_STRLIST_MAX);
  CU_ASSERT_EQUAL(parse(2 * FORAY_STRLIST_MAX + 3, v, &rest, &e), FORAY_ARGS_ERROR);
}
