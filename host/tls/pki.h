/* tls/pki.h - a private certificate authority: what `forayd init` makes and `foray enroll` asks for. Keys are
 * P-256, certificates X.509 v3, files PEM; private keys are written with mode 600. */
#ifndef FORAY_TLS_PKI_H
#define FORAY_TLS_PKI_H

#include "core/buf.h"

#include <foray/status.h>
#include <stdbool.h>

enum { FORAY_PKI_NAME_MAX = 64, FORAY_PKI_PEM_MAX = 16384, FORAY_PKI_CA_DAYS = 3650, FORAY_PKI_DAYS = 825 };

/* Writes ca.crt, ca.key, server.crt, server.key, client.crt, client.key into dir (made when it is not there).
 * names: NULL-terminated DNS names and addresses of the server; localhost, 127.0.0.1 and ::1 are always in.
 * Never overwrites: FORAY_E_STATE when there is a CA already. */
enum foray_status foray_pki_init(const char *dir, const char *const *names, const char *client,
                                 struct foray_err *err) FORAY_NODISCARD;

/* A new key (written to key_path) and a request for a certificate with this common name (appended, PEM). */
enum foray_status foray_pki_request(const char *key_path, const char *name, struct foray_buf *csr,
                                    struct foray_err *err) FORAY_NODISCARD;
/* Signs a request with dir/ca.key as a client's certificate; of the request only the key is taken, the name
 * is `name`. FORAY_E_FORMAT: no request, a signature that does not fit, or a weak key. */
enum foray_status foray_pki_sign(const char *dir, const char *csr, size_t len, const char *name, int days,
                                 struct foray_buf *cert, struct foray_err *err) FORAY_NODISCARD;
/* SHA-256 of the certificate (DER) in a PEM file, as 64 hex digits and NUL. */
enum foray_status foray_pki_fingerprint(const char *path, char out[65],
                                        struct foray_err *err) FORAY_NODISCARD;
/* 1 to 63 letters, digits, '.', '_' or '-'. */
bool foray_pki_name_ok(const char *name);
/* Writes a file that must not exist yet, or replaces it whole by rename. */
enum foray_status foray_pki_write(const char *path, const void *p, size_t n, int mode, bool replace,
                                  struct foray_err *err) FORAY_NODISCARD;

#endif
