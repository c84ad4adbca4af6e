#include "model/zip.h"

#include "core/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static uint32_t rd16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t rd32(const uint8_t *p) { return rd16(p) | rd16(p + 2) << 16; }

struct member {
  const uint8_t *data;
  size_t packed, unpacked;
  uint32_t crc;
  int method;
};

static enum foray_status bad(struct foray_err *err, const char *label, size_t off, const char *why) {
  return foray_err_set(err, FORAY_E_FORMAT, "%s: offset %zu: %s", label, off, why);
}

static bool matches(const uint8_t *p, size_t n, const char *name) {
  size_t k = strlen(name);
  if (k && name[k - 1] == '*') { /* the last part of the path begins so */
    size_t base = n;
    while (base && p[base - 1] != '/') base--;
    return n - base >= k - 1 && memcmp(p + base, name, k - 1) == 0;
  }
  return n >= k && memcmp(p + n - k, name, k) == 0 && (n == k || p[n - k - 1] == '/');
}

/* Follows end record -> central directory -> local header, checking each offset and length against the file.
 */
static enum foray_status find(const uint8_t *z, size_t size, const char *label, const char *name,
                              struct member *out, struct foray_err *err) {
  if (size < 22) return bad(err, label, 0, "too short for a zip archive");
  size_t at = size - 22, stop = size > 22 + 65535 ? size - 22 - 65535 : 0;
  while (rd32(z + at) != 0x06054b50) {
    if (at == stop) return bad(err, label, at, "no end record: this is no zip archive, or it is cut off");
    at--;
  }
  uint32_t entries = rd16(z + at + 10);
  size_t dir = rd32(z + at + 16), end = at;
  if (dir == 0xffffffffu || entries == 0xffff)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: zip64 archives are not supported", label);
  for (uint32_t i = 0; i < entries; i++) {
    if (dir > end || end - dir < 46 || rd32(z + dir) != 0x02014b50)
      return bad(err, label, dir, "broken zip directory");
    size_t nl = rd16(z + dir + 28), xl = rd16(z + dir + 30), cl = rd16(z + dir + 32);
    if (end - dir - 46 < nl + xl + cl) return bad(err, label, dir, "broken zip directory");
    if (!matches(z + dir + 46, nl, name)) {
      dir += 46 + nl + xl + cl;
      continue;
    }
    if (rd16(z + dir + 8) & 1)
      return foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: '%s' is encrypted", label, name);
    *out = (struct member){.packed = rd32(z + dir + 20),
                           .unpacked = rd32(z + dir + 24),
                           .crc = rd32(z + dir + 16),
                           .method = (int)rd16(z + dir + 10)};
    size_t local = rd32(z + dir + 42);
    if (local > size || size - local < 30 || rd32(z + local) != 0x04034b50)
      return bad(err, label, dir, "broken zip entry");
    size_t skip = 30 + (size_t)rd16(z + local + 26) + rd16(z + local + 28);
    if (size - local < skip || size - local - skip < out->packed)
      return bad(err, label, local, "a zip entry is cut off");
    out->data = z + local + skip;
    return FORAY_OK;
  }
  return foray_err_set(err, FORAY_E_NOTFOUND, "%s: no file '%s' in it", label, name);
}

static enum foray_status write_error(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_IO, "cannot write: %s", strerror(errno));
}

static enum foray_status inflate_to(const struct member *m, const char *label, FILE *out,
                                    struct foray_err *err) {
  static const size_t CHUNK = 1 << 16;
  uint8_t buf[1 << 16];
  z_stream s = {.next_in = (Bytef *)(uintptr_t)m->data, .avail_in = (uInt)m->packed};
  if (inflateInit2(&s, -15) != Z_OK) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for inflating");
  enum foray_status st = FORAY_OK;
  uLong crc = crc32(0, NULL, 0);
  size_t total = 0;
  int rc = Z_OK;
  while (!st && rc != Z_STREAM_END) {
    s.next_out = buf;
    s.avail_out = (uInt)CHUNK;
    rc = inflate(&s, Z_NO_FLUSH);
    size_t n = CHUNK - s.avail_out;
    if ((rc != Z_OK && rc != Z_STREAM_END) || (rc == Z_OK && n == 0) || n > m->unpacked - total)
      st = bad(err, label, 0, "the compressed data is broken");
    else if (fwrite(buf, 1, n, out) != n)
      st = write_error(err);
    total += n;
    crc = crc32(crc, buf, (uInt)n);
  }
  inflateEnd(&s);
  if (!st && (total != m->unpacked || crc != m->crc))
    st = bad(err, label, 0, "checksum or size of the data is wrong");
  return st;
}

enum foray_status foray_zip_extract_memory(const uint8_t *zip, size_t size, const char *label,
                                           const char *name, uint64_t bytes_max, FILE *out,
                                           struct foray_err *err) {
  struct member m;
  enum foray_status s = find(zip, size, label, name, &m, err);
  if (s) return s;
  if (m.unpacked > bytes_max)
    return foray_err_set(err, FORAY_E_LIMIT, "%s: '%s' has %zu bytes; at most %llu were expected", label,
                         name, m.unpacked, (unsigned long long)bytes_max);
  if (m.method == 8) return inflate_to(&m, label, out, err);
  if (m.method != 0)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: '%s' is packed with method %d", label, name,
                         m.method);
  if (m.packed != m.unpacked || crc32(crc32(0, NULL, 0), m.data, (uInt)m.packed) != m.crc)
    return bad(err, label, (size_t)(m.data - zip), "checksum or size of the data is wrong");
  if (fwrite(m.data, 1, m.packed, out) != m.packed) return write_error(err);
  return FORAY_OK;
}

enum foray_status foray_zip_extract(const char *path, const char *name, uint64_t bytes_max, FILE *out,
                                    struct foray_err *err) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st)) {
    int e = errno;
    if (fd >= 0) close(fd);
    return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(e));
  }
  void *p = st.st_size > 0 ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
  close(fd);
  if (p == MAP_FAILED) return foray_err_set(err, FORAY_E_FORMAT, "%s: empty, or cannot be mapped", path);
  enum foray_status s = foray_zip_extract_memory(p, (size_t)st.st_size, path, name, bytes_max, out, err);
  munmap(p, (size_t)st.st_size);
  return s;
}
