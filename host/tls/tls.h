/* tls/tls.h - TLS 1.3 contexts by OpenSSL, for both ends: who we are, and whom we believe.
 *
 *   struct foray_tls_opts o = {.dir = "/etc/foray/tls", .server = true, .client_certs = FORAY_TLS_OPTIONAL};
 *   foray_tls_open(&o, &ctx, &err);      // ca.crt, server.crt, server.key of that folder (forayd init makes
 * it) SSL *ssl = SSL_new(foray_tls_ctx(ctx));
 *
 * Nothing below TLS 1.3. Sessions are resumed by tickets (one round trip is saved); early data ("0-RTT") is
 * off: it can be replayed by whoever recorded it, and an OPEN that runs twice costs the operator twice. A
 * client checks the server's name against its certificate and believes its own CA file only, not the
 * system's.
 *
 * Thread rule: a context may be used by any thread after open. */
#ifndef FORAY_TLS_TLS_H
#define FORAY_TLS_TLS_H

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_ctx_st;
struct ssl_st;
struct foray_tls; /* opaque */

enum foray_tls_client_certs { FORAY_TLS_NONE, FORAY_TLS_OPTIONAL, FORAY_TLS_REQUIRED };

struct foray_tls_opts {
  const char *dir; /* ca.crt, and server.crt + server.key, or client.crt + client.key (may be absent) */
  bool server;
  enum foray_tls_client_certs client_certs; /* server: shall clients show a certificate of our CA? */
};

/* FORAY_E_IO / FORAY_E_FORMAT with the file's name; FORAY_E_DENIED when a private key can be read by others.
 */
enum foray_status foray_tls_open(const struct foray_tls_opts *o, struct foray_tls **out,
                                 struct foray_err *err) FORAY_NODISCARD;
void foray_tls_close(struct foray_tls *t); /* NULL is allowed; connections under way keep what they need */
struct ssl_ctx_st *foray_tls_ctx(const struct foray_tls *t);

/* A client's connection to `host`: name to be checked, session of the last one resumed. NULL: no memory. The
 * caller owns it. */
struct ssl_st *foray_tls_client(struct foray_tls *t, const char *host);

/* Why the last handshake of this thread failed, for people; empties OpenSSL's queue. */
void foray_tls_why(char *out, size_t cap);

/* True for localhost, 127.0.0.0/8 and ::1. */
bool foray_tls_is_loopback(const char *host);

#endif
