/* Certificates, tokens and the guard: both ends of a handshake in memory, times as arguments. */
#include "unit/harness.h"

#include "core/err.h"
#include "core/hash.h"
#include "tls/guard.h"
#include "tls/pki.h"
#include "tls/tls.h"
#include "tls/tokens.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], other[64];
static void folders(void) {
  if (*dir) return;
  snprintf(dir, sizeof dir, "/tmp/foray-tls-XXXXXX");
  snprintf(other, sizeof other, "/tmp/foray-tls-XXXXXX");
  struct foray_err err = {0};
  const char *const names[] = {"cloud.test", "10.1.2.3", NULL};
  CU_ASSERT_FATAL(mkdtemp(dir) != NULL && mkdtemp(other) != NULL);
  CU_ASSERT_EQUAL_FATAL(foray_pki_init(dir, names, "admin", &err), FORAY_OK);
  CU_ASSERT_EQUAL_FATAL(foray_pki_init(other, NULL, "admin", &err), FORAY_OK);
}

struct pair {
  SSL *c, *s;
};
/* Both ends talk over two memory buffers; true: the handshake is done at both. */
static bool handshake(struct pair *p, struct foray_tls *server, struct foray_tls *client, const char *host) {
  p->s = SSL_new(foray_tls_ctx(server));
  p->c = foray_tls_client(client, host);
  BIO *a = BIO_new(BIO_s_mem()), *b = BIO_new(BIO_s_mem());
  BIO_up_ref(a);
  BIO_up_ref(b);
  SSL_set_bio(p->c, a, b); /* reads a, writes b */
  SSL_set_bio(p->s, b, a);
  SSL_set_connect_state(p->c);
  SSL_set_accept_state(p->s);
  int done_c = 0, done_s = 0;
  for (int i = 0; i < 20 && !(done_c == 1 && done_s == 1); i++) {
    done_c = SSL_do_handshake(p->c);
    done_s = SSL_do_handshake(p->s);
    if ((done_c < 0 && SSL_get_error(p->c, done_c) == SSL_ERROR_SSL) ||
        (done_s < 0 && SSL_get_error(p->s, done_s) == SSL_ERROR_SSL))
      return false;
  }
  char b1[8];
  if (done_c == 1 && done_s == 1) { /* the tickets are read with the first byte */
    SSL_write(p->s, "x", 1);
    (void)!SSL_read(p->c, b1, 1);
  }
  return done_c == 1 && done_s == 1;
}
static void end(struct pair *p) {
  SSL_shutdown(p->c);
  SSL_free(p->c);
  SSL_free(p->s);
}
static struct foray_tls *open_tls(const char *d, bool server, enum foray_tls_client_certs certs) {
  struct foray_tls *t = NULL;
  struct foray_err err = {0};
  const struct foray_tls_opts o = {.dir = d, .server = server, .client_certs = certs};
  CU_ASSERT_EQUAL_FATAL(foray_tls_open(&o, &t, &err), FORAY_OK);
  return t;
}

TEST(both_ends_believe_their_own_ca_only) {
  folders();
  struct foray_tls *server = open_tls(dir, true, FORAY_TLS_REQUIRED),
                   *client = open_tls(dir, false, FORAY_TLS_NONE),
                   *stranger = open_tls(other, false, FORAY_TLS_NONE);
  struct pair p;
  CU_ASSERT(handshake(&p, server, client, "cloud.test"));
  CU_ASSERT_EQUAL(SSL_version(p.s), TLS1_3_VERSION);
  CU_ASSERT_EQUAL(SSL_session_reused(p.s), 0);
  CU_ASSERT_EQUAL(SSL_SESSION_get_max_early_data(SSL_get_session(p.c)), 0);
  end(&p);
  CU_ASSERT(handshake(&p, server, client, "cloud.test")); /* resumed by ticket, certificate still known */
  CU_ASSERT_EQUAL(SSL_session_reused(p.s), 1);
  X509 *cert = SSL_get_peer_certificate(p.s);
  CU_ASSERT_PTR_NOT_NULL(cert);
  X509_free(cert);
  end(&p);
  CU_ASSERT(handshake(&p, server, client, "10.1.2.3"));
  end(&p);
  struct foray_tls *fresh = open_tls(dir, false, FORAY_TLS_NONE);
  CU_ASSERT(!handshake(&p, server, fresh, "elsewhere.test"));
  CU_ASSERT_EQUAL(SSL_get_verify_result(p.c), X509_V_ERR_HOSTNAME_MISMATCH);
  end(&p);
  CU_ASSERT(!handshake(&p, server, stranger, "cloud.test"));
  end(&p);
  SSL_set_max_proto_version((p.c = SSL_new(foray_tls_ctx(client))), TLS1_2_VERSION);
  CU_ASSERT(SSL_get_min_proto_version(p.c) == TLS1_3_VERSION);
  SSL_free(p.c);
  foray_tls_close(server);
  foray_tls_close(client);
  foray_tls_close(stranger);
  foray_tls_close(fresh);
}

TEST(a_request_is_signed_under_the_name_that_was_granted) {
  folders();
  struct foray_err err = {0};
  char key[128], path[128];
  snprintf(key, sizeof key, "%s/new.key", dir);
  struct foray_buf csr, cert;
  foray_buf_init(&csr, FORAY_PKI_PEM_MAX);
  foray_buf_init(&cert, FORAY_PKI_PEM_MAX);
  CU_ASSERT_EQUAL_FATAL(foray_pki_request(key, "I-am-root", &csr, &err), FORAY_OK);
  CU_ASSERT_EQUAL(foray_pki_sign(dir, (char *)csr.data, csr.len, "board7", 30, &cert, &err), FORAY_OK);
  snprintf(path, sizeof path, "%s/new.crt", dir);
  CU_ASSERT_EQUAL(foray_pki_write(path, cert.data, cert.len, 0644, true, &err), FORAY_OK);
  BIO *b = BIO_new_mem_buf(cert.data, (int)cert.len);
  X509 *c = PEM_read_bio_X509(b, NULL, NULL, NULL);
  char name[64];
  CU_ASSERT(c && X509_NAME_get_text_by_NID(X509_get_subject_name(c), NID_commonName, name, sizeof name) > 0);
  CU_ASSERT_STRING_EQUAL(name, "board7");
  CU_ASSERT_EQUAL(X509_check_ca(c), 0);
  X509_free(c);
  BIO_free(b);
  csr.data[csr.len / 2] ^= 1;
  CU_ASSERT_EQUAL(foray_pki_sign(dir, (char *)csr.data, csr.len, "board7", 30, &cert, &err), FORAY_E_FORMAT);
  CU_ASSERT_EQUAL(foray_pki_sign(dir, "x", 1, "board7", 30, &cert, &err), FORAY_E_FORMAT);
  CU_ASSERT_EQUAL(foray_pki_sign(dir, (char *)csr.data, FORAY_PKI_PEM_MAX + 1, "b", 30, &cert, &err),
                  FORAY_E_LIMIT);
  CU_ASSERT_EQUAL(foray_pki_sign(dir, (char *)csr.data, csr.len, "a b", 30, &cert, &err), FORAY_E_ARG);
  unlink(key);
  unlink(path);
  foray_buf_deinit(&csr);
  foray_buf_deinit(&cert);
}

TEST(tokens_are_hashed_scoped_and_end) {
  folders();
  char path[128], secret[FORAY_TOKEN_BYTES], line[512];
  snprintf(path, sizeof path, "%s/tokens", dir);
  struct foray_err err = {0};
  struct foray_tokens *t;
  CU_ASSERT_EQUAL_FATAL(foray_tokens_open(path, &t, &err), FORAY_OK); /* not there yet: nobody */
  CU_ASSERT_EQUAL(foray_tokens_count(t), 0);
  struct foray_token k = {.name = "one",
                          .scopes = FORAY_SCOPE_EDGE | FORAY_SCOPE_API,
                          .expiry = 1000,
                          .weight = 2,
                          .priority = 3};
  CU_ASSERT_EQUAL_FATAL(foray_tokens_add(path, &k, secret, &err), FORAY_OK);
  CU_ASSERT_EQUAL(strlen(secret), 47);
  CU_ASSERT_EQUAL(foray_tokens_add(path, &k, line, &err), FORAY_E_STATE);
  struct stat st;
  CU_ASSERT(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
  FILE *f = fopen(path, "r");
  CU_ASSERT(f && fgets(line, sizeof line, f) && !strstr(line, secret));
  fclose(f);
  const struct foray_token *found = foray_tokens_find(t, secret, FORAY_SCOPE_EDGE, 999);
  CU_ASSERT_PTR_NOT_NULL_FATAL(found);
  CU_ASSERT(!strcmp(found->name, "one") && found->weight == 2 && found->priority == 3);
  CU_ASSERT_PTR_NOT_NULL(foray_tokens_find(t, secret, FORAY_SCOPE_EDGE | FORAY_SCOPE_API, 999));
  CU_ASSERT_PTR_NULL(foray_tokens_find(t, secret, FORAY_SCOPE_METRICS, 999));
  CU_ASSERT_PTR_NULL(foray_tokens_find(t, secret, FORAY_SCOPE_EDGE, 1000)); /* at the second of its end */
  secret[10] ^= 1;
  CU_ASSERT_PTR_NULL(foray_tokens_find(t, secret, FORAY_SCOPE_EDGE, 999));
  secret[10] ^= 1;
  CU_ASSERT_PTR_NULL(foray_tokens_find(t, "", FORAY_SCOPE_EDGE, 999));
  char huge[1024];
  memset(huge, 'a', sizeof huge - 1);
  huge[sizeof huge - 1] = 0;
  CU_ASSERT_PTR_NULL(foray_tokens_find(t, huge, FORAY_SCOPE_EDGE, 999));
  CU_ASSERT_EQUAL(foray_tokens_revoke(path, "two", &err), FORAY_E_NOTFOUND);
  CU_ASSERT_EQUAL(foray_tokens_revoke(path, "one", &err), FORAY_OK);
  CU_ASSERT_PTR_NULL(foray_tokens_find(t, secret, FORAY_SCOPE_EDGE, 999)); /* seen at once */
  f = fopen(path, "a");                                                    /* a broken file lets nobody in */
  fputs("x y z\n", f);
  fclose(f);
  CU_ASSERT_EQUAL(foray_tokens_count(t), 0);
  foray_tokens_close(t);
  CU_ASSERT_EQUAL(foray_tokens_open(path, &t, &err), FORAY_E_FORMAT);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "line 1"));
  unsigned bits;
  CU_ASSERT(foray_scopes_parse("edge,metrics", &bits) && bits == (FORAY_SCOPE_EDGE | FORAY_SCOPE_METRICS));
  CU_ASSERT(!foray_scopes_parse("edge,all", &bits) && !foray_scopes_parse("", &bits));
}

TEST(who_guesses_is_shut_out_for_a_while) {
  static struct foray_guard g;
  const int64_t ms = 1000000;
  for (int i = 0; i < FORAY_GUARD_FAILURES; i++) foray_guard_failed(&g, 7, i);
  CU_ASSERT(foray_guard_open(&g, 7, 100)); /* at the limit */
  foray_guard_failed(&g, 7, 100);
  CU_ASSERT(!foray_guard_open(&g, 7, 101)); /* one more */
  CU_ASSERT(foray_guard_open(&g, 8, 101));
  CU_ASSERT(!foray_guard_open(&g, 7, 100 + FORAY_GUARD_SHUT_MS * ms - 1));
  CU_ASSERT(foray_guard_open(&g, 7, 100 + FORAY_GUARD_SHUT_MS * ms));
  for (int i = 0; i < 3 * FORAY_GUARD_FAILURES; i++) /* rarely wrong is not guessing */
    foray_guard_failed(&g, 9, i * (FORAY_GUARD_WINDOW_MS / 5) * ms);
  CU_ASSERT(foray_guard_open(&g, 9, 4000 * (int64_t)1000 * ms));
  for (uint64_t a = 100; a < 100 + 2 * FORAY_GUARD_SLOTS; a++)
    foray_guard_failed(&g, a, (int64_t)a); /* bounded */
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6}, same = v6;
  inet_pton(AF_INET, "10.0.0.1", &v4.sin_addr);
  inet_pton(AF_INET6, "::ffff:10.0.0.1", &v6.sin6_addr);
  CU_ASSERT_EQUAL(foray_guard_address((struct sockaddr *)&v4), foray_guard_address((struct sockaddr *)&v6));
  inet_pton(AF_INET6, "2001:db8::1", &v6.sin6_addr);
  inet_pton(AF_INET6, "2001:db8::ffff:2", &same.sin6_addr); /* the same network */
  CU_ASSERT_EQUAL(foray_guard_address((struct sockaddr *)&same), foray_guard_address((struct sockaddr *)&v6));
  CU_ASSERT(foray_tls_is_loopback("127.9.9.9") && foray_tls_is_loopback("::1") &&
            foray_tls_is_loopback("localhost"));
  CU_ASSERT(!foray_tls_is_loopback("128.0.0.1") && !foray_tls_is_loopback("localhost.example"));
}
