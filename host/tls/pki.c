#include "tls/pki.h"

#include "core/err.h"
#include "core/hash.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, SAN_BYTES = 2048, BACKDATE_S = 300 };

bool foray_pki_name_ok(const char *name) {
  const size_t n = strlen(name);
  return n > 0 && n < FORAY_PKI_NAME_MAX &&
         strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

enum foray_status foray_pki_write(const char *path, const void *p, size_t n, int mode, bool replace,
                                  struct foray_err *err) {
  char tmp[PATH_BYTES];
  int k = snprintf(tmp, sizeof tmp, "%s%s", path, replace ? ".new" : "");
  if (k < 0 || k >= PATH_BYTES) return foray_err_set(err, FORAY_E_LIMIT, "%s: the path is too long", path);
  if (replace) unlink(tmp);
  int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return foray_err_set(err, FORAY_E_IO, "%s: %s", tmp, strerror(errno));
  bool ok = write(fd, p, n) == (ssize_t)n && fsync(fd) == 0;
  ok &= close(fd) == 0;
  if (ok && replace) ok = rename(tmp, path) == 0;
  if (ok) return FORAY_OK;
  int e = errno;
  unlink(tmp);
  return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(e));
}

/* ---------------------------------------------------------------- pieces */

static bool extension(X509 *c, X509 *issuer, int nid, const char *value) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, issuer, c, NULL, NULL, 0);
  X509_EXTENSION *x = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
  bool ok = x && X509_add_ext(c, x, -1) == 1;
  X509_EXTENSION_free(x);
  return ok;
}

/* A certificate for `key`. issuer NULL: signed by itself, a CA. san: subjectAltName of a server, or NULL. */
static X509 *issue(EVP_PKEY *key, const char *name, const char *san, bool server, X509 *issuer, EVP_PKEY *by,
                   int days) {
  X509 *c = X509_new();
  unsigned char serial[16];
  BIGNUM *n = NULL;
  X509_NAME *subject = c ? X509_get_subject_name(c) : NULL;
  bool ok = c && RAND_bytes(serial, sizeof serial) == 1;
  serial[0] &= 0x7f;
  ok = ok && (n = BN_bin2bn(serial, sizeof serial, NULL)) && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(c));
  ok = ok && X509_set_version(c, 2) && X509_gmtime_adj(X509_getm_notBefore(c), -BACKDATE_S) &&
       X509_time_adj_ex(X509_getm_notAfter(c), days, 0, NULL) && X509_set_pubkey(c, key) &&
       X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0) &&
       X509_set_issuer_name(c, issuer ? X509_get_subject_name(issuer) : subject);
  X509 *root = issuer ? issuer : c;
  ok = ok &&
       extension(c, root, NID_basic_constraints,
                 issuer ? "critical,CA:FALSE" : "critical,CA:TRUE,pathlen:0") &&
       extension(c, root, NID_key_usage,
                 issuer ? "critical,digitalSignature" : "critical,keyCertSign,cRLSign") &&
       extension(c, root, NID_subject_key_identifier, "hash");
  if (issuer)
    ok = ok && extension(c, root, NID_ext_key_usage, server ? "serverAuth" : "clientAuth") &&
         extension(c, root, NID_authority_key_identifier, "keyid");
  if (san) ok = ok && extension(c, root, NID_subject_alt_name, san);
  ok = ok && X509_sign(c, by, EVP_sha256()) > 0;
  BN_free(n);
  if (ok) return c;
  X509_free(c);
  return NULL;
}

static enum foray_status take_bio(BIO *b, struct foray_buf *out) {
  char *p;
  long n = b ? BIO_get_mem_data(b, &p) : 0;
  return n > 0 ? foray_buf_add(out, p, (size_t)n) : FORAY_E_NOMEM;
}

static enum foray_status write_key(const char *path, EVP_PKEY *key, struct foray_err *err) {
  BIO *b = BIO_new(BIO_s_mem());
  struct foray_buf text;
  foray_buf_init(&text, FORAY_PKI_PEM_MAX);
  enum foray_status st = b && PEM_write_bio_PKCS8PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) == 1
                             ? take_bio(b, &text)
                             : FORAY_E_NOMEM;
  st = st ? foray_err_set(err, st, "%s: out of memory", path)
          : foray_pki_write(path, text.data, text.len, 0600, false, err);
  if (text.data) OPENSSL_cleanse(text.data, text.len);
  foray_buf_deinit(&text);
  BIO_free(b);
  return st;
}
static enum foray_status cert_text(X509 *c, struct foray_buf *out) {
  BIO *b = BIO_new(BIO_s_mem());
  enum foray_status st = b && PEM_write_bio_X509(b, c) == 1 ? take_bio(b, out) : FORAY_E_NOMEM;
  BIO_free(b);
  return st;
}
/* chain: further certificate behind it, or NULL. */
static enum foray_status write_cert(const char *path, X509 *c, X509 *chain, struct foray_err *err) {
  struct foray_buf text;
  foray_buf_init(&text, 2 * FORAY_PKI_PEM_MAX);
  enum foray_status st = cert_text(c, &text);
  if (!st && chain) st = cert_text(chain, &text);
  st = st ? foray_err_set(err, st, "%s: out of memory", path)
          : foray_pki_write(path, text.data, text.len, 0644, false, err);
  foray_buf_deinit(&text);
  return st;
}

/* ---------------------------------------------------------------- init */

static bool san_add(char *san, const char *name) {
  unsigned char a[16];
  size_t n = strlen(san);
  const char *kind = inet_pton(AF_INET, name, a) == 1 || inet_pton(AF_INET6, name, a) == 1 ? "IP" : "DNS";
  if (!strcmp(kind, "DNS") && !foray_pki_name_ok(name)) return false;
  int k = snprintf(san + n, SAN_BYTES - n, "%s%s:%s", n ? "," : "", kind, name);
  return k > 0 && (size_t)k < SAN_BYTES - n;
}

static enum foray_status write_pair(const char *dir, const char *base, X509 *c, X509 *chain, EVP_PKEY *key,
                                    struct foray_err *err) {
  char path[PATH_BYTES];
  snprintf(path, sizeof path, "%s/%s.key", dir, base);
  enum foray_status st = write_key(path, key, err);
  snprintf(path, sizeof path, "%s/%s.crt", dir, base);
  return st ? st : write_cert(path, c, chain, err);
}

enum foray_status foray_pki_init(const char *dir, const char *const *names, const char *client,
                                 struct foray_err *err) {
  char san[SAN_BYTES] = "", path[PATH_BYTES];
  if (strlen(dir) > PATH_BYTES - 64) return foray_err_set(err, FORAY_E_LIMIT, "the path is too long");
  if (!foray_pki_name_ok(client))
    return foray_err_set(err, FORAY_E_ARG, "'%s' is no name for a client", client);
  bool ok = san_add(san, "localhost") && san_add(san, "127.0.0.1") && san_add(san, "::1");
  for (; ok && names && *names; names++)
    if (!san_add(san, *names))
      return foray_err_set(err, FORAY_E_ARG, "'%s' is neither a host name nor an address", *names);
  if (mkdir(dir, 0700) != 0 && errno != EEXIST)
    return foray_err_set(err, FORAY_E_IO, "%s: %s", dir, strerror(errno));
  snprintf(path, sizeof path, "%s/ca.key", dir);
  if (access(path, F_OK) == 0)
    return foray_err_set(err, FORAY_E_STATE,
                         "%s is there already: this folder has a CA, which is not replaced", path);
  EVP_PKEY *ca = EVP_EC_gen("P-256"), *server = EVP_EC_gen("P-256"), *board = EVP_EC_gen("P-256");
  X509 *c0 = NULL, *c1 = NULL, *c2 = NULL;
  ok = ca && server && board && (c0 = issue(ca, "Foray CA", NULL, false, NULL, ca, FORAY_PKI_CA_DAYS)) &&
       (c1 = issue(server, "forayd", san, true, c0, ca, FORAY_PKI_DAYS)) &&
       (c2 = issue(board, client, NULL, false, c0, ca, FORAY_PKI_DAYS));
  enum foray_status st = ok ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "certificates cannot be made");
  /* The server sends its CA along, so that a board that only knows the fingerprint can check it. */
  if (!st) st = write_pair(dir, "ca", c0, NULL, ca, err);
  if (!st) st = write_pair(dir, "server", c1, c0, server, err);
  if (!st) st = write_pair(dir, "client", c2, NULL, board, err);
  X509_free(c0);
  X509_free(c1);
  X509_free(c2);
  EVP_PKEY_free(ca);
  EVP_PKEY_free(server);
  EVP_PKEY_free(board);
  return st;
}

/* ---------------------------------------------------------------- enrolment */

enum foray_status foray_pki_request(const char *key_path, const char *name, struct foray_buf *csr,
                                    struct foray_err *err) {
  if (!foray_pki_name_ok(name)) return foray_err_set(err, FORAY_E_ARG, "'%s' is no name for a board", name);
  EVP_PKEY *key = EVP_EC_gen("P-256");
  X509_REQ *r = X509_REQ_new();
  BIO *b = BIO_new(BIO_s_mem());
  bool ok = key && r && b && X509_REQ_set_pubkey(r, key) &&
            X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(r), "CN", MBSTRING_UTF8,
                                       (const unsigned char *)name, -1, -1, 0) &&
            X509_REQ_sign(r, key, EVP_sha256()) > 0 && PEM_write_bio_X509_REQ(b, r) == 1;
  enum foray_status st =
      ok ? write_key(key_path, key, err) : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  if (!st && take_bio(b, csr)) st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  BIO_free(b);
  X509_REQ_free(r);
  EVP_PKEY_free(key);
  return st;
}

static void *read_pem(const char *dir, const char *name, bool key, struct foray_err *err) {
  char path[PATH_BYTES];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "r");
  void *o = f ? (key ? (void *)PEM_read_PrivateKey(f, NULL, NULL, NULL)
                     : (void *)PEM_read_X509(f, NULL, NULL, NULL))
              : NULL;
  if (!o) foray_err_set(err, FORAY_E_IO, "%s cannot be read", path);
  if (f) fclose(f);
  return o;
}

enum foray_status foray_pki_sign(const char *dir, const char *csr, size_t len, const char *name, int days,
                                 struct foray_buf *cert, struct foray_err *err) {
  if (!foray_pki_name_ok(name)) return foray_err_set(err, FORAY_E_ARG, "'%s' is no name for a board", name);
  if (len == 0 || len > FORAY_PKI_PEM_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "a request of %zu bytes; at most %d", len, FORAY_PKI_PEM_MAX);
  BIO *b = BIO_new_mem_buf(csr, (int)len);
  X509_REQ *r = b ? PEM_read_bio_X509_REQ(b, NULL, NULL, NULL) : NULL;
  EVP_PKEY *key = r ? X509_REQ_get0_pubkey(r) : NULL;
  enum foray_status st = FORAY_OK;
  if (!key || EVP_PKEY_get_security_bits(key) < 112 || X509_REQ_verify(r, key) != 1)
    st = foray_err_set(err, FORAY_E_FORMAT, "this is no certificate request whose signature fits its key");
  X509 *ca = st ? NULL : read_pem(dir, "ca.crt", false, err), *c = NULL;
  EVP_PKEY *by = ca ? read_pem(dir, "ca.key", true, err) : NULL;
  if (!st && !by) st = FORAY_E_IO;
  if (!st && !(c = issue(key, name, NULL, false, ca, by, days)))
    st = foray_err_set(err, FORAY_E_NOMEM, "the certificate cannot be made");
  if (!st && cert_text(c, cert)) st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  X509_free(c);
  X509_free(ca);
  EVP_PKEY_free(by);
  X509_REQ_free(r);
  BIO_free(b);
  return st;
}

enum foray_status foray_pki_fingerprint(const char *path, char out[65], struct foray_err *err) {
  FILE *f = fopen(path, "r");
  X509 *c = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
  if (f) fclose(f);
  unsigned char d[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  if (!c || X509_digest(c, EVP_sha256(), d, &n) != 1 || n != 32) {
    X509_free(c);
    return foray_err_set(err, FORAY_E_FORMAT, "%s is no certificate", path);
  }
  X509_free(c);
  foray_sha256_hex(d, out);
  return FORAY_OK;
}
