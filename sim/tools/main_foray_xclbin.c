/* foray-xclbin: writes and inspects the files that XRT loads, without Xilinx's tools. */
#include "core/args.h"
#include "core/err.h"
#include "xclbin/xclbin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static uint8_t *slurp(const char *path, size_t *n, struct foray_err *err) {
  FILE *f = fopen(path, "rb");
  uint8_t *p = NULL;
  long size = -1;
  if (f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0 &&
      (p = malloc((size_t)size + 1)) && fread(p, 1, (size_t)size, f) == (size_t)size) {
    p[size] = 0;
    *n = (size_t)size;
  } else {
    (void)foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
    free(p);
    p = NULL;
  }
  if (f) fclose(f);
  return p;
}

static int do_write(const char *spec_path, const char *bits_path, const char *out_path,
                    enum foray_xclbin_mode mode, struct foray_err *err) {
  size_t spec_n, bits_n, n = 0;
  uint8_t *spec = slurp(spec_path, &spec_n, err), *bits = spec ? slurp(bits_path, &bits_n, err) : NULL,
          *out = NULL;
  int rc = EXIT_FAILED;
  if (bits && foray_xclbin_build((const char *)spec, bits, bits_n, mode, &out, &n, err) == FORAY_OK) {
    FILE *f = fopen(out_path, "wb");
    bool ok = f && fwrite(out, 1, n, f) == n;
    if (f && fclose(f) != 0) ok = false;
    if (ok)
      rc = 0;
    else
      (void)foray_err_set(err, FORAY_E_IO, "%s: %s", out_path, strerror(errno));
  }
  free(spec), free(bits), free(out);
  return rc;
}

static int do_show(const char *path, const char *extract, const char *out_path, struct foray_err *err) {
  size_t n;
  uint8_t *p = slurp(path, &n, err);
  struct foray_xclbin x;
  int rc = EXIT_FAILED;
  if (p && foray_xclbin_parse(p, n, &x, err) == FORAY_OK) {
    rc = 0;
    if (!extract)
      foray_xclbin_show(p, &x, stdout);
    else {
      uint32_t i = 0;
      while (i < x.n_sections && strcmp(foray_xclbin_kind(x.section[i].kind), extract) != 0) i++;
      FILE *f = i < x.n_sections ? fopen(out_path, "wb") : NULL;
      bool ok = f && fwrite(p + x.section[i].at, 1, x.section[i].bytes, f) == x.section[i].bytes;
      if (f && fclose(f) != 0) ok = false;
      if (!ok) {
        (void)foray_err_set(err, FORAY_E_IO, "section %s: %s", extract,
                            i < x.n_sections ? strerror(errno) : "there is none");
        rc = EXIT_FAILED;
      }
    }
  }
  free(p);
  return rc;
}

int main(int argc, char **argv) {
  const char *spec = NULL, *bits = NULL, *out = NULL, *mode = "hw_emu", *extract = NULL;
  const struct foray_opt opts[] = {
      {"spec", 0, FORAY_OPT_STR, &spec, "JSON", "description of memory and kernels (drivers/xclbin/xclbin.h)",
       0, 0},
      {"bits", 0, FORAY_OPT_STR, &bits, "FILE", "the BITSTREAM section: a kernel model, or a bitstream", 0,
       0},
      {"mode", 0, FORAY_OPT_STR, &mode, "MODE", "flat, hw_emu or sw_emu (default hw_emu)", 0, 0},
      {"output", 'o', FORAY_OPT_STR, &out, "FILE", "where to write", 0, 0},
      {"extract", 0, FORAY_OPT_STR, &extract, "SECTION", "write this section of FILE to -o", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray-xclbin",
                                    "--spec JSON --bits FILE -o OUT | FILE [--extract SECTION -o OUT]",
                                    "Write an xclbin, or show what is in one.", opts, NULL};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return 0;
  case FORAY_ARGS_ERROR: fprintf(stderr, "foray-xclbin: %s\n", err.msg); return EXIT_USAGE;
  case FORAY_ARGS_RUN: break;
  }
  const int m = !strcmp(mode, "flat")     ? FORAY_XCLBIN_FLAT
                : !strcmp(mode, "hw_emu") ? FORAY_XCLBIN_HW_EMU
                : !strcmp(mode, "sw_emu") ? FORAY_XCLBIN_SW_EMU
                                          : -1;
  int rc = EXIT_USAGE;
  if (spec && bits && out && m >= 0 && rest == argc)
    rc = do_write(spec, bits, out, (enum foray_xclbin_mode)m, &err);
  else if (!spec && rest + 1 == argc && (!extract || out))
    rc = do_show(argv[rest], extract, out, &err);
  else
    fprintf(stderr, "foray-xclbin: wants --spec, --bits and -o, or one file (--help)\n");
  if (rc == EXIT_FAILED) fprintf(stderr, "foray-xclbin: %s\n", err.msg);
  return rc;
}
