/* tls/enroll.h - how a board gets its certificate: it makes a key (which never leaves it), asks the cloud's
 * HTTPS port with a token of scope "enroll" that works once, and believes whoever's chain ends in the CA with
 * the fingerprint that the operator gave it together with the token. Blocking. */
#ifndef FORAY_TLS_ENROLL_H
#define FORAY_TLS_ENROLL_H

#include <foray/status.h>

enum { FORAY_ENROLL_TIMEOUT_S = 20, FORAY_ENROLL_ANSWER_MAX = 65536 };

/* Writes ca.crt, client.crt and client.key into dir (made when it is not there). FORAY_E_DENIED: another CA,
 * or the token is not taken. On failure dir holds no half of it. */
enum foray_status foray_enroll(const char *host, int port, const char *token, const char *fingerprint,
                               const char *dir, struct foray_err *err) FORAY_NODISCARD;

#endif
