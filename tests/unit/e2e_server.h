/* unit/e2e_server.h - a forayd inside the test program: engine thread and socket thread on a Unix socket
 * in a temporary folder, with the toy target or a real model. */
#ifndef FORAY_UNIT_E2E_SERVER_H
#define FORAY_UNIT_E2E_SERVER_H

#include "unit/toy_target.h"

struct test_server; /* opaque */
/* model NULL: toy (borrowed). tcp: on 127.0.0.1 at a free port instead. NULL: could not be started. */
struct test_server *test_server_start(const char *model, struct toy *toy, bool tcp);
/* The same address again after test_server_kill. */
bool test_server_restart(struct test_server *s);
/* Ends without a word to anyone: connections are simply gone, sessions forgotten. */
void test_server_kill(struct test_server *s);
void test_server_stop(struct test_server *s); /* and frees */
const char *test_server_uri(const struct test_server *s);

#endif
