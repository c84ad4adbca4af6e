#include "hosttools/show.h"

#include "hosttools/common.h"

#include <string.h>

/* 256-colour codes that read well on dark and light grounds. */
static const int exit_colors[] = {46, 40, 34, 70, 106, 142, 178, 214};
enum { COLOR_FULL = 39, COLOR_CORRECTION = 203 };

static int color_of(enum foray_token_origin origin, int exit, uint32_t n_exits) {
  switch (origin) {
  case FORAY_ORIGIN_CORRECTION: return COLOR_CORRECTION;
  case FORAY_ORIGIN_DRAFT:
  case FORAY_ORIGIN_EDGE:
    if (exit < 0 || (uint32_t)exit >= n_exits) return COLOR_FULL;
    return exit_colors[(size_t)exit % (sizeof exit_colors / sizeof *exit_colors)];
  default: return 0;
  }
}

void show_token(const struct foray_token *t, uint32_t n_exits, bool color) {
  int c = color ? color_of(t->origin, t->exit, n_exits) : 0;
  if (!t->text_len) return;
  if (c) printf("\033[38;5;%dm", c);
  fwrite(t->text, 1, t->text_len, stdout);
  if (c) fputs("\033[0m", stdout);
  fflush(stdout);
}

void show_legend(FILE *f, const struct foray_generator *g, bool color) {
  if (!color) return;
  uint32_t n = foray_generator_exits(g);
  fprintf(f, "drafted and accepted:");
  for (uint32_t e = 0; e < n; e++)
    fprintf(f, " \033[38;5;%dm%s %d\033[0m,", color_of(FORAY_ORIGIN_DRAFT, (int)e, n),
            e ? "layer" : "left at layer", foray_generator_exit_layer(g, e));
  fprintf(f, " \033[38;5;%dmall %d layers\033[0m;  ", COLOR_FULL, foray_generator_exit_layer(g, n));
  fprintf(f, "the cloud's: \033[38;5;%dmcorrection\033[0m, its own\n\n", COLOR_CORRECTION);
}

bool show_equal(const struct foray_result *a, const struct foray_result *b) {
  return a->tokens == b->tokens && (a->tokens == 0 || !memcmp(a->ids, b->ids, a->tokens * sizeof *a->ids)) &&
         a->text_len == b->text_len && !memcmp(a->text, b->text, a->text_len);
}

static double per(double a, double b) { return b > 0 ? a / b : 0; }

void show_summary(FILE *f, const struct foray_result *r, const struct foray_result *plain) {
  fprintf(f, "\n%u tokens", r->tokens);
  if (r->drafted && r->verifications)
    fprintf(f, " in %u verifications (%.2f a verification); %u drafted, %u accepted (%.0f %%)",
            r->verifications, per(r->tokens, r->verifications), r->drafted, r->accepted,
            100 * per(r->accepted, r->drafted));
  fprintf(f, "; ended by %s\n", r->finish);
  for (uint32_t e = 0; r->drafted && e <= r->n_exits && e < FORAY_EXITS_SHOWN_MAX; e++) {
    enum { WIDTH = 30 };
    int n = (int)(per(r->exits[e].drafted, r->drafted) * WIDTH + .5);
    fprintf(f, "  %-5s layer %2d  %.*s%*s %4u drafted, %4u accepted\n", e < r->n_exits ? "exit" : "full",
            r->exits[e].layer, n, "##############################", WIDTH - n, "", r->exits[e].drafted,
            r->exits[e].accepted);
  }
  if (r->bytes_up || r->bytes_down)
    fprintf(f, "  wire  %.1f bytes up and %.1f down a token (%llu and %llu in all, prompt included)\n",
            per((double)r->bytes_up, r->tokens), per((double)r->bytes_down, r->tokens),
            (unsigned long long)r->bytes_up, (unsigned long long)r->bytes_down);
  if (r->device_bytes)
    fprintf(f, "  edge  %.1f MB streamed from device memory a drafted token\n",
            per((double)r->device_bytes / 1e6, r->drafted));
  fprintf(f, "  time  %.2f s, %.1f tokens/s", r->seconds, per(r->tokens, r->seconds));
  if (r->wait_seconds > 0)
    fprintf(f, "  (drafting %.2f s, waiting for verdicts %.2f s)", r->draft_seconds, r->wait_seconds);
  fputc('\n', f);
  if (!plain) return;
  fprintf(f,
          "  plain cloud decoding of the same prompt in the same run: %.2f s, so drafting is %.2fx as fast\n",
          plain->seconds, per(plain->seconds, r->seconds));
  if (show_equal(r, plain))
    fprintf(f,
            "\nThe text equals the cloud model's own: all %u tokens are the same as in its plain decoding.\n",
            plain->tokens);
  else
    fprintf(f, "\nERROR: the text differs from the cloud model's plain decoding. This must never happen; "
               "please report it.\n");
}

const char *show_origin_name(enum foray_token_origin origin) {
  switch (origin) {
  case FORAY_ORIGIN_DRAFT: return "draft";
  case FORAY_ORIGIN_CORRECTION: return "correction";
  case FORAY_ORIGIN_BONUS: return "bonus";
  case FORAY_ORIGIN_CLOUD: return "cloud";
  case FORAY_ORIGIN_EDGE: return "edge";
  }
  return "unknown";
}

json_t *show_exits_json(const struct foray_result *r) {
  json_t *exits = json_object();
  for (uint32_t e = 0; r->drafted && e <= r->n_exits && e < FORAY_EXITS_SHOWN_MAX; e++) {
    char layer[16];
    snprintf(layer, sizeof layer, "%d", r->exits[e].layer);
    json_object_set_new(exits, layer,
                        json_pack("{sI sI sI}", "drafted", (json_int_t)r->exits[e].drafted, "accepted",
                                  (json_int_t)r->exits[e].accepted, "judged",
                                  (json_int_t)r->exits[e].judged));
  }
  return exits;
}

json_t *show_result_json(const struct foray_result *r) {
  json_t *ids = json_array();
  for (uint32_t i = 0; i < r->tokens; i++) json_array_append_new(ids, json_integer(r->ids[i]));
  /* Text that is no UTF-8 (possible at a cut) is replaced by null; the ids are always exact. */
  json_t *text = json_stringn(r->text, r->text_len);
  return json_pack("{s:o s:o s:s s:I s:I s:I s:I s:I s:o s:I s:I s:I s:f s:f s:f s:f}", "text",
                   text ? text : json_null(), "ids", ids, "finish", r->finish, "prompt_tokens",
                   (json_int_t)r->prompt_tokens, "tokens", (json_int_t)r->tokens, "verifications",
                   (json_int_t)r->verifications, "drafted", (json_int_t)r->drafted, "accepted",
                   (json_int_t)r->accepted, "exits", show_exits_json(r), "bytes_up", (json_int_t)r->bytes_up,
                   "bytes_down", (json_int_t)r->bytes_down, "device_bytes", (json_int_t)r->device_bytes,
                   "seconds", r->seconds, "first_token_seconds", r->first_token_seconds, "draft_seconds",
                   r->draft_seconds, "wait_seconds", r->wait_seconds);
}

int show_json(json_t *j) {
  int rc = j ? json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10)) : -1;
  json_decref(j);
  putchar('\n');
  return rc || fflush(stdout) ? TOOL_EXIT_FAILURE : TOOL_EXIT_OK;
}
