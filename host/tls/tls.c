#include "tls/tls.h"

#include "core/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, TICKETS = 2 };

struct foray_tls {
  SSL_CTX *ctx;
  SSL_SESSION *last; /* client: of the last connection, under lock */
  pthread_mutex_t lock;
};

void foray_tls_why(char *out, size_t cap) {
  unsigned long e = 0, k;
  while ((k = ERR_get_error())) e = k;
  const char *text = e ? ERR_reason_error_string(e) : NULL;
  snprintf(out, cap, "%s", text ? text : "TLS handshake failed");
}

static enum foray_status bad(struct foray_err *err, enum foray_status st, const char *path) {
  char why[128];
  foray_tls_why(why, sizeof why);
  return foray_err_set(err, st, "%s: %s", path, why);
}

static bool join(char *out, const char *dir, const char *name) {
  int n = snprintf(out, PATH_BYTES, "%s/%s", dir, name);
  return n > 0 && n < PATH_BYTES;
}

/* A session ticket has come: the next connection begins with it. */
static int on_session(SSL *ssl, SSL_SESSION *s) {
  struct foray_tls *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
  pthread_mutex_lock(&t->lock);
  SSL_SESSION_free(t->last);
  t->last = s;
  pthread_mutex_unlock(&t->lock);
  return 1; /* we keep the reference */
}

static enum foray_status load(struct foray_tls *t, const struct foray_tls_opts *o, struct foray_err *err) {
  char cert[PATH_BYTES], key[PATH_BYTES], ca[PATH_BYTES];
  if (!join(cert, o->dir, o->server ? "server.crt" : "client.crt") ||
      !join(key, o->dir, o->server ? "server.key" : "client.key") || !join(ca, o->dir, "ca.crt"))
    return foray_err_set(err, FORAY_E_LIMIT, "the path of the TLS folder is too long");
  if (access(ca, R_OK) != 0)
    return foray_err_set(err, FORAY_E_IO, "%s: %s (%s)", ca, strerror(errno),
                         o->server ? "make the folder with: forayd init DIR" : "join with: foray enroll");
  if (SSL_CTX_load_verify_locations(t->ctx, ca, NULL) != 1) return bad(err, FORAY_E_FORMAT, ca);
  if (!o->server && access(cert, F_OK) != 0) return FORAY_OK; /* a token will do */
  struct stat st;
  if (stat(key, &st) != 0) return foray_err_set(err, FORAY_E_IO, "%s: %s", key, strerror(errno));
  if (st.st_mode & (S_IRWXO | S_IWGRP)) /* a group may read it: that is how a service gets at its key */
    return foray_err_set(err, FORAY_E_DENIED, "%s can be read by others: chmod 600 it", key);
  if (SSL_CTX_use_certificate_chain_file(t->ctx, cert) != 1) return bad(err, FORAY_E_FORMAT, cert);
  if (SSL_CTX_use_PrivateKey_file(t->ctx, key, SSL_FILETYPE_PEM) != 1) return bad(err, FORAY_E_FORMAT, key);
  if (SSL_CTX_check_private_key(t->ctx) != 1) return bad(err, FORAY_E_MISMATCH, key);
  if (o->server && o->client_certs != FORAY_TLS_NONE) {
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(ca);
    if (!names) return bad(err, FORAY_E_FORMAT, ca);
    SSL_CTX_set_client_CA_list(t->ctx, names);
  }
  return FORAY_OK;
}

enum foray_status foray_tls_open(const struct foray_tls_opts *o, struct foray_tls **out,
                                 struct foray_err *err) {
  *out = NULL;
  struct foray_tls *t = calloc(1, sizeof *t);
  if (!t) return foray_err_set(err, FORAY_E_NOMEM, "TLS");
  pthread_mutex_init(&t->lock, NULL);
  t->ctx = SSL_CTX_new(o->server ? TLS_server_method() : TLS_client_method());
  if (!t->ctx) {
    free(t);
    return foray_err_set(err, FORAY_E_NOMEM, "TLS");
  }
  SSL_CTX_set_min_proto_version(t->ctx, TLS1_3_VERSION);
  SSL_CTX_set_mode(t->ctx, SSL_MODE_RELEASE_BUFFERS); /* idle connections keep no record buffers */
  SSL_CTX_set_app_data(t->ctx, t);
  enum foray_status st = load(t, o, err);
  if (o->server) {
    static const unsigned char context[] = "foray";
    SSL_CTX_set_session_id_context(t->ctx, context, sizeof context - 1);
    SSL_CTX_set_num_tickets(t->ctx, TICKETS);
    SSL_CTX_set_max_early_data(t->ctx, 0);
    SSL_CTX_set_options(t->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_verify(t->ctx,
                       o->client_certs == FORAY_TLS_NONE ? SSL_VERIFY_NONE
                       : o->client_certs == FORAY_TLS_OPTIONAL
                           ? SSL_VERIFY_PEER
                           : SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                       NULL);
  } else {
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(t->ctx, on_session);
    SSL_CTX_set_verify(t->ctx, SSL_VERIFY_PEER, NULL);
  }
  if (st != FORAY_OK) {
    foray_tls_close(t);
    return st;
  }
  *out = t;
  return FORAY_OK;
}

void foray_tls_close(struct foray_tls *t) {
  if (!t) return;
  SSL_SESSION_free(t->last);
  SSL_CTX_free(t->ctx);
  pthread_mutex_destroy(&t->lock);
  free(t);
}
struct ssl_ctx_st *foray_tls_ctx(const struct foray_tls *t) {
  return t->ctx;
}

struct ssl_st *foray_tls_client(struct foray_tls *t, const char *host) {
  SSL *ssl = SSL_new(t->ctx);
  if (!ssl) return NULL;
  unsigned char address[sizeof(struct in6_addr)];
  const bool number = inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
  /* SSL_set1_host takes addresses as well; the name goes into the hello only when it is one */
  if (SSL_set1_host(ssl, host) != 1 || (!number && SSL_set_tlsext_host_name(ssl, host) != 1)) {
    SSL_free(ssl);
    return NULL;
  }
  pthread_mutex_lock(&t->lock);
  if (t->last) SSL_set_session(ssl, t->last);
  pthread_mutex_unlock(&t->lock);
  return ssl;
}

bool foray_tls_is_loopback(const char *host) {
  struct in_addr a;
  struct in6_addr b;
  if (!strcmp(host, "localhost")) return true;
  if (inet_pton(AF_INET, host, &a) == 1) return (ntohl(a.s_addr) >> 24) == 127;
  return inet_pton(AF_INET6, host, &b) == 1 && IN6_IS_ADDR_LOOPBACK(&b);
}
