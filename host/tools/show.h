/* tools/show.h - tokens and results as a person sees them, and as JSON. */
#ifndef FORAY_TOOLS_SHOW_H
#define FORAY_TOOLS_SHOW_H

#include <foray/generate.h>
#include <jansson.h>
#include <stdio.h>

/* One token on stdout; with color its origin: greens by exit depth, blue full depth, red a correction, plain
 * text the cloud's own. */
void show_token(const struct foray_token *t, uint32_t n_exits, bool color);
void show_legend(FILE *f, const struct foray_generator *g, bool color);
/* Some lines: tokens a verification, exits, bytes on the wire, time; plain (may be NULL) is the same prompt
 * decoded by the cloud alone, for speed and equality. */
void show_summary(FILE *f, const struct foray_result *r, const struct foray_result *plain);

const char *show_origin_name(enum foray_token_origin origin);
/* New references. */
json_t *show_result_json(const struct foray_result *r);
json_t *show_exits_json(const struct foray_result *r);
/* Prints, frees, ends the line; the exit status of the tool. */
int show_json(json_t *j);

/* Do both runs say the same? */
bool show_equal(const struct foray_result *a, const struct foray_result *b);

#endif
