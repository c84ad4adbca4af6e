#include "tls/enroll.h"

#include "core/buf.h"
#include "core/err.h"
#include "core/hash.h"
#include "tls/pki.h"
#include "tls/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static int dial(const char *host, int port, struct foray_err *err) {
  char service[16];
  snprintf(service, sizeof service, "%d", port);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
  int r = getaddrinfo(host, service, &hints, &list), fd = -1;
  if (r) {
    foray_err_set(err, FORAY_E_NET, "host '%s': %s", host, gai_strerror(r));
    return -1;
  }
  const struct timeval limit = {.tv_sec = FORAY_ENROLL_TIMEOUT_S};
  for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
    fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
    foray_err_set(err, FORAY_E_NET, "%s port %d: %s", host, port, strerror(errno));
    close(fd);
    fd = -1;
  }
  freeaddrinfo(list);
  return fd;
}

/* The CA of the fingerprint, when the server's chain really ends in it and the server has this name; owned.
 */
static X509 *believed(SSL *ssl, const char *host, const char *fingerprint, struct foray_err *err) {
  STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
  X509 *server = SSL_get_peer_certificate(ssl), *ca = NULL;
  for (int i = 0; chain && i < sk_X509_num(chain) && !ca; i++) {
    unsigned char d[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char hex[65];
    X509 *c = sk_X509_value(chain, i);
    if (X509_digest(c, EVP_sha256(), d, &n) != 1 || n != 32) continue;
    foray_sha256_hex(d, hex);
    if (!strcmp(hex, fingerprint) && X509_check_ca(c) > 0) ca = c;
  }
  X509_STORE *store = X509_STORE_new();
  X509_STORE_CTX *check = X509_STORE_CTX_new();
  bool ok = server && ca && store && check && X509_STORE_add_cert(store, ca) == 1 &&
            X509_STORE_CTX_init(check, store, server, NULL) == 1;
  if (ok) {
    X509_STORE_CTX_set_purpose(check, X509_PURPOSE_SSL_SERVER);
    ok = X509_verify_cert(check) == 1;
  }
  unsigned char a[16];
  const bool number = inet_pton(AF_INET, host, a) == 1 || inet_pton(AF_INET6, host, a) == 1;
  const bool named =
      ok && (number ? X509_check_ip_asc(server, host, 0) : X509_check_host(server, host, 0, 0, NULL)) == 1;
  if (!ca)
    foray_err_set(err, FORAY_E_DENIED,
                  "%s has no CA with this fingerprint: a wrong one, or somebody in between", host);
  else if (!ok)
    foray_err_set(err, FORAY_E_DENIED, "the certificate of %s is not of that CA", host);
  else if (!named)
    foray_err_set(err, FORAY_E_DENIED,
                  "the certificate is for another name than %s (forayd init takes names)", host);
  if (named) X509_up_ref(ca);
  X509_STORE_CTX_free(check);
  X509_STORE_free(store);
  X509_free(server);
  return named ? ca : NULL;
}

static enum foray_status exchange(SSL *ssl, const char *host, const char *token, const struct foray_buf *csr,
                                  struct foray_buf *answer, struct foray_err *err) {
  json_t *o = json_pack("{s:s}", "csr", (const char *)csr->data);
  char *body = o ? json_dumps(o, JSON_COMPACT) : NULL;
  json_decref(o);
  struct foray_buf b;
  foray_buf_init(&b, 1 << 20);
  enum foray_status st =
      body ? foray_buf_addf(
                 &b,
                 "POST /v1/enroll HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n"
                 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                 host, token, strlen(body), body)
           : FORAY_E_NOMEM;
  free(body);
  if (!st && SSL_write(ssl, b.data, (int)b.len) != (int)b.len)
    st = foray_err_set(err, FORAY_E_NET, "%s: the connection broke", host);
  foray_buf_deinit(&b);
  char chunk[4096];
  for (int n; !st && (n = SSL_read(ssl, chunk, sizeof chunk)) > 0;)
    st = foray_buf_add(answer, chunk, (size_t)n);
  return st ? foray_err_set(err, st, "%s: no answer", host) : FORAY_OK;
}

static enum foray_status keep(const char *dir, const struct foray_buf *answer, X509 *ca,
                              struct foray_err *err) {
  const char *body = answer->len ? strstr((const char *)answer->data, "\r\n\r\n") : NULL;
  json_t *o = body ? json_loads(body + 4, 0, NULL) : NULL;
  const char *cert = json_string_value(json_object_get(o, "certificate"));
  const char *why = json_string_value(json_object_get(json_object_get(o, "error"), "message"));
  char path[PATH_BYTES];
  enum foray_status st =
      cert ? FORAY_OK : foray_err_set(err, FORAY_E_DENIED, "%s", why ? why : "no certificate came");
  BIO *b = BIO_new(BIO_s_mem());
  char *pem = NULL;
  if (!st && (!b || PEM_write_bio_X509(b, ca) != 1)) st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  long n = st ? 0 : BIO_get_mem_data(b, &pem);
  snprintf(path, sizeof path, "%s/ca.crt", dir);
  if (!st) st = foray_pki_write(path, pem, (size_t)n, 0644, true, err);
  snprintf(path, sizeof path, "%s/client.crt", dir);
  if (!st) st = foray_pki_write(path, cert, strlen(cert), 0644, true, err);
  BIO_free(b);
  json_decref(o);
  return st;
}

enum foray_status foray_enroll(const char *host, int port, const char *token, const char *fingerprint,
                               const char *dir, struct foray_err *err) {
  char key[PATH_BYTES], fresh[PATH_BYTES];
  if (strlen(dir) > PATH_BYTES - 64) return foray_err_set(err, FORAY_E_LIMIT, "the path is too long");
  if (strlen(fingerprint) != 64 || strspn(fingerprint, "0123456789abcdef") != 64)
    return foray_err_set(err, FORAY_E_ARG, "the fingerprint has 64 hex digits (forayd token add shows it)");
  if (mkdir(dir, 0700) != 0 && errno != EEXIST)
    return foray_err_set(err, FORAY_E_IO, "%s: %s", dir, strerror(errno));
  snprintf(key, sizeof key, "%s/client.key", dir);
  snprintf(fresh, sizeof fresh, "%s/client.key.enroll", dir);
  unlink(fresh);
  struct foray_buf csr, answer;
  foray_buf_init(&csr, FORAY_PKI_PEM_MAX);
  foray_buf_init(&answer, FORAY_ENROLL_ANSWER_MAX);
  enum foray_status st = foray_pki_request(fresh, "board", &csr, err);
  SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
  SSL *ssl = NULL;
  X509 *ca = NULL;
  int fd = st ? -1 : dial(host, port, err);
  if (!st && fd < 0) st = FORAY_E_NET;
  if (!st && (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 || !(ssl = SSL_new(ctx)) ||
              SSL_set_fd(ssl, fd) != 1))
    st = foray_err_set(err, FORAY_E_NOMEM, "TLS");
  /* No check by OpenSSL: the CA is not known yet. believed() makes up for it before anything is said. */
  if (!st && SSL_connect(ssl) != 1) {
    char why[128];
    foray_tls_why(why, sizeof why);
    st = foray_err_set(err, FORAY_E_NET, "%s port %d: %s", host, port, why);
  }
  if (!st && !(ca = believed(ssl, host, fingerprint, err))) st = FORAY_E_DENIED;
  if (!st) st = exchange(ssl, host, token, &csr, &answer, err);
  if (!st) st = keep(dir, &answer, ca, err);
  if (!st && rename(fresh, key) != 0) st = foray_err_set(err, FORAY_E_IO, "%s: %s", key, strerror(errno));
  if (st) unlink(fresh);
  X509_free(ca);
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  if (fd >= 0) close(fd);
  foray_buf_deinit(&csr);
  foray_buf_deinit(&answer);
  return st;
}
