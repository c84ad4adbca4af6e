/* Devices from shared objects: what is found where, and what is said of files that cannot be used. */
#include "unit/harness.h"

#include "dev/plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/foray-plugins-XXXXXX";

static void put(const char *name, const char *text) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "w");
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  fputs(text, f);
  fclose(f);
}

struct seen {
  int n, broken;
};
static void on_device(void *arg, const struct foray_dev_info *info, const char *why) {
  struct seen *s = arg;
  s->n++;
  if (strcmp(info->name, "broken") != 0) return;
  s->broken++;
  CU_ASSERT_PTR_NOT_NULL_FATAL(why);
  CU_ASSERT_PTR_NOT_NULL(strstr(why, "foray-dev-broken.so"));
}

TEST(a_file_that_is_no_plugin_is_listed_with_the_reason) {
  CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
  setenv("FORAY_DEVICE_PATH", "/nonexistent", 1);
  struct seen without = {0}, with = {0};
  foray_dev_list(on_device, &without);
  CU_ASSERT(without.n >= 2);
  char two[300];
  snprintf(two, sizeof two, ":/nonexistent:%s", folder);
  setenv("FORAY_DEVICE_PATH", two, 1);
  put("foray-dev-broken.so", "not a shared object");
  put("foray-dev-Bad Name.so", "");
  put("foray-dev-.so", "");
  put("libother.so", "");
  foray_dev_list(on_device, &with);
  CU_ASSERT_EQUAL(with.broken, 1);
  CU_ASSERT_EQUAL(with.n, without.n + 1);

  struct foray_dev *d;
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(foray_dev_open("broken:detail", NULL, &d, &err), FORAY_E_UNSUPPORTED);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "broken"));
  CU_ASSERT_PTR_NULL(d);
  CU_ASSERT_EQUAL(foray_dev_open("broken", NULL, &d, NULL), FORAY_E_UNSUPPORTED);
  CU_ASSERT_EQUAL(foray_dev_open("absent", NULL, &d, &err), FORAY_E_NOTFOUND);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "ref, cpu"));
  CU_ASSERT_EQUAL(foray_dev_open("../broken", NULL, &d, &err), FORAY_E_NOTFOUND);
  char command[300];
  snprintf(command, sizeof command, "rm -r '%s'", folder);
  CU_ASSERT_EQUAL(system(command), 0);
  unsetenv("FORAY_DEVICE_PATH");
}

/* Whatever was built beside this program must load: a plugin of another ABI in the tree is a broken build. */
static void on_built(void *arg, const char *name) {
  (void)arg;
  char why[512];
  const struct foray_dev_class *cls = foray_dev_plugin_load(name, why, sizeof why);
  if (!cls && strstr(why, "another version")) CU_FAIL("a plugin of the build tree is out of date");
  if (cls) CU_ASSERT_STRING_EQUAL(cls->name, name);
}
TEST(plugins_of_the_build_tree_load) { foray_dev_plugin_scan(on_built, NULL); }
