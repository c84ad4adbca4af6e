/* Which Python index to ask, and reading its pages. */
#include "core/err.h"
#include "model/fetch.h"
#include "model/pull.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char DEFAULT_INDEX[] = "https://pypi.org/simple";

/* The value of `index-url` in sections [global] or [install] of a pip.conf. */
static bool from_conf(const char *path, char *out, size_t cap) {
  FILE *f = fopen(path, "r");
  char line[2048];
  bool wanted = false, found = false;
  if (!f) return false;
  while (fgets(line, sizeof line, f)) {
    char *p = line + strspn(line, " \t"), *end = p + strlen(p);
    while (end > p && isspace((unsigned char)end[-1])) *--end = 0;
    if (*p == '[') wanted = strcmp(p, "[global]") == 0 || strcmp(p, "[install]") == 0;
    if (!wanted || (strncmp(p, "index-url", 9) && strncmp(p, "index_url", 9))) continue;
    p += 9;
    p += strspn(p, " \t");
    if (*p != '=' && *p != ':') continue;
    p += 1 + strspn(p + 1, " \t");
    found = *p && (size_t)snprintf(out, cap, "%s", p) < cap;
  }
  fclose(f);
  return found;
}

enum foray_status foray_pull_index_url(char *out, size_t cap, struct foray_err *err) {
  static const char *const vars[] = {"FORAY_INDEX_URL", "PIP_INDEX_URL"};
  for (size_t i = 0; i < 2; i++) {
    const char *v = getenv(vars[i]);
    if (!v || !*v) continue;
    if ((size_t)snprintf(out, cap, "%s", v) >= cap)
      return foray_err_set(err, FORAY_E_LIMIT, "%s is too long", vars[i]);
    return FORAY_OK;
  }
  char path[4096];
  const char *conf = getenv("PIP_CONFIG_FILE"), *home = getenv("HOME"), *xdg = getenv("XDG_CONFIG_HOME");
  if (conf && *conf && from_conf(conf, out, cap)) return FORAY_OK;
  if (xdg && *xdg) {
    snprintf(path, sizeof path, "%s/pip/pip.conf", xdg);
    if (from_conf(path, out, cap)) return FORAY_OK;
  }
  static const char *const in_home[] = {".config/pip/pip.conf", ".pip/pip.conf"};
  for (size_t i = 0; home && i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", home, in_home[i]);
    if (from_conf(path, out, cap)) return FORAY_OK;
  }
  if (from_conf("/etc/xdg/pip/pip.conf", out, cap) || from_conf("/etc/pip.conf", out, cap)) return FORAY_OK;
  if ((size_t)snprintf(out, cap, "%s", DEFAULT_INDEX) >= cap)
    return foray_err_set(err, FORAY_E_LIMIT, "no room for the URL");
  return FORAY_OK;
}

/* "<distribution>-<version>-<tags>.whl": distributions have no '-' in wheel names. */
static bool is_wheel(const char *name, size_t n, const char *version) {
  size_t v = strlen(version);
  const char *dash = memchr(name, '-', n);
  if (!dash || n < 4 || memcmp(name + n - 4, ".whl", 4)) return false;
  size_t rest = n - (size_t)(dash + 1 - name);
  return rest > v && memcmp(dash + 1, version, v) == 0 && dash[1 + v] == '-';
}

static bool hex64(const char *s) {
  for (int i = 0; i < 64; i++)
    if (!isxdigit((unsigned char)s[i]) || isupper((unsigned char)s[i])) return false;
  return true;
}

static enum foray_status take(const char *link, size_t n, const char *page_url, char *url, size_t cap,
                              struct foray_err *err) {
  char rel[4096];
  size_t o = 0;
  for (size_t i = 0; i < n && o < sizeof rel - 1; i++) {
    rel[o++] = link[i];
    if (link[i] == '&' && n - i >= 5 && memcmp(link + i, "&amp;", 5) == 0) i += 4;
  }
  rel[o] = 0;
  if (o == sizeof rel - 1 || foray_fetch_resolve(page_url, rel, url, cap))
    return foray_err_set(err, FORAY_E_FORMAT, "%s: a link on it cannot be understood", page_url);
  return FORAY_OK;
}

static enum foray_status find_json(const char *page, size_t len, const char *page_url, const char *version,
                                   char *url, size_t cap, char sha256[FORAY_SHA256_HEX],
                                   struct foray_err *err) {
  json_t *doc = json_loadb(page, len, 0, NULL);
  if (!doc) return foray_err_set(err, FORAY_E_FORMAT, "%s: broken JSON", page_url);
  enum foray_status s = FORAY_E_NOTFOUND;
  size_t i;
  json_t *f;
  json_array_foreach(json_object_get(doc, "files"), i, f) {
    const char *name = json_string_value(json_object_get(f, "filename")),
               *link = json_string_value(json_object_get(f, "url"));
    const char *sha = json_string_value(json_object_get(json_object_get(f, "hashes"), "sha256"));
    if (!name || !link || !is_wheel(name, strlen(name), version)) continue;
    s = take(link, strlen(link), page_url, url, cap, err);
    if (sha && strlen(sha) == 64 && hex64(sha)) memcpy(sha256, sha, 65);
    break;
  }
  json_decref(doc);
  return s;
}

static enum foray_status find_html(const char *page, size_t len, const char *page_url, const char *version,
                                   char *url, size_t cap, char sha256[FORAY_SHA256_HEX],
                                   struct foray_err *err) {
  const char *p = page, *end = page + len;
  while ((p = memmem(p, (size_t)(end - p), "href=", 5))) {
    p += 5;
    if (p == end || (*p != '"' && *p != '\'')) continue;
    const char *q = memchr(p + 1, *p, (size_t)(end - p - 1)), *link = p + 1;
    if (!q) break;
    const char *hash = memchr(link, '#', (size_t)(q - link)), *stop = hash ? hash : q, *name = stop;
    while (name > link && name[-1] != '/') name--;
    p = q;
    if (!is_wheel(name, (size_t)(stop - name), version)) continue;
    if (hash && q - hash >= 72 && memcmp(hash, "#sha256=", 8) == 0 && hex64(hash + 8)) {
      memcpy(sha256, hash + 8, 64);
      sha256[64] = 0;
    }
    return take(link, (size_t)(stop - link), page_url, url, cap, err);
  }
  return FORAY_E_NOTFOUND;
}

enum foray_status foray_pull_find_wheel(const char *page, size_t len, const char *page_url,
                                        const char *version, char *url, size_t cap,
                                        char sha256[FORAY_SHA256_HEX], struct foray_err *err) {
  size_t i = 0;
  sha256[0] = 0;
  while (i < len && isspace((unsigned char)page[i])) i++;
  enum foray_status s = i < len && page[i] == '{'
                            ? find_json(page, len, page_url, version, url, cap, sha256, err)
                            : find_html(page, len, page_url, version, url, cap, sha256, err);
  if (s == FORAY_E_NOTFOUND) foray_err_set(err, s, "%s: no wheel of version %s on it", page_url, version);
  return s;
}
