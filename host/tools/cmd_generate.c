/* foray generate, foray chat. */
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/gen_opts.h"
#include "hosttools/show.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct shown {
  uint32_t n_exits;
  bool color, text;
  json_t *tokens; /* collected with --json */
  struct foray_buf reply;
};

static bool on_token(void *user, const struct foray_token *t) {
  struct shown *s = user;
  if (s->text) show_token(t, s->n_exits, s->color);
  if (s->tokens) {
    json_t *piece = json_stringn(t->text, t->text_len);
    json_array_append_new(s->tokens, json_pack("{s:i s:o s:s s:i s:i s:f}", "id", t->id, "text",
                                               piece ? piece : json_null(), "origin",
                                               show_origin_name(t->origin), "exit_layer", t->exit_layer,
                                               "rejected", t->rejected, "confidence", (double)t->confidence));
  }
  return !tool_interrupted();
}

/* With --check the same request is decoded by the cloud alone, before anything is shown to wait for. */
static enum foray_status plain_run(struct foray_generator *g, const struct foray_request *r,
                                   struct foray_result *out, struct foray_err *err) {
  struct foray_request p = *r;
  struct shown quiet = {0};
  p.mode = FORAY_GENERATE_PLAIN;
  return foray_generator_run(g, &p, on_token, &quiet, out, err);
}

static int generate(const char *name, const struct gen_opts *o, const struct foray_request *r, bool color,
                    bool check) {
  struct foray_err err = {0};
  struct foray_generator *g = NULL;
  struct foray_result res = {0}, plain = {0};
  if (gen_opts_open(o, &g, &err)) return tool_fail(name, &err);
  struct shown shown = {.n_exits = foray_generator_exits(g), .color = color, .text = !o->json};
  if (o->json) shown.tokens = json_array();
  if (!o->json && !o->quiet && r->mode == FORAY_GENERATE_SPECULATIVE) show_legend(stderr, g, color);
  enum foray_status s = foray_generator_run(g, r, on_token, &shown, &res, &err);
  if (!o->json) putchar('\n');
  bool checked = !s && check && r->mode == FORAY_GENERATE_SPECULATIVE;
  if (checked) s = plain_run(g, r, &plain, &err);
  int rc = TOOL_EXIT_OK;
  if (o->json && !s) {
    json_t *j = show_result_json(&res);
    json_object_set_new(j, "steps", shown.tokens);
    if (checked) {
      json_object_set_new(j, "equal", json_boolean(show_equal(&res, &plain)));
      json_object_set_new(j, "plain_seconds", json_real(plain.seconds));
    }
    rc = show_json(j);
  } else {
    json_decref(shown.tokens);
    if (!o->quiet && (!s || s == FORAY_E_CANCELLED))
      show_summary(stderr, &res, checked && !s ? &plain : NULL);
  }
  if (checked && !s && !show_equal(&res, &plain)) rc = TOOL_EXIT_FAILURE;
  if (s) rc = s == FORAY_E_CANCELLED ? TOOL_EXIT_INTERRUPTED : tool_fail(name, &err);
  foray_result_deinit(&res);
  foray_result_deinit(&plain);
  gen_opts_close(g);
  return rc;
}

int cmd_generate(int argc, char **argv) {
  struct gen_opts o;
  const char *prompt = NULL, *file = NULL, *color_mode = "auto";
  bool raw = false, check = false, color = false;
  gen_opts_init(&o);
  const struct foray_opt own[] = {
      {"prompt", 'p', FORAY_OPT_STR, &prompt, "TEXT", "the prompt", 0, 0},
      {"file", 'f', FORAY_OPT_STR, &file, "FILE", "read the prompt from FILE (- for standard input)", 0, 0},
      {"raw|no-conversation|no-cnv", 0, FORAY_OPT_FLAG, &raw, NULL,
       "continue the text as it is, instead of answering it as a user's turn", 0, 0},
      {"check", 0, FORAY_OPT_FLAG, &check, NULL,
       "decode the same prompt plainly in the cloud too; compare text and speed", 0, 0},
      {"color", 0, FORAY_OPT_STR, &color_mode, "WHEN", "auto, always or never", 0, 0},
      {0}};
  struct foray_opt table[GEN_OPTS_MAX];
  gen_opts_table(&o, own, table);
  const struct foray_command cmd = {
      "foray generate", "-m MODEL -p TEXT [OPTIONS]",
      "Continue a prompt: the edge model drafts, the cloud model verifies; the text is the cloud model's "
      "own.",
      table,
      "Without --cloud the same model verifies in a forayd of its own (spawn:MODEL).\n"
      "  foray generate -m qwen2.5-coder-0.5b-instruct --cloud spawn:qwen2.5-coder-1.5b-instruct -p 'Sort in "
      "C' --check"};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (gen_opts_finish(&o, &err) || tool_color_parse(color_mode, stdout, &color, &err))
    return tool_fail(cmd.name, &err);
  if (rest < argc) {
    if (prompt || rest + 1 < argc) {
      foray_err_set(&err, FORAY_E_ARG, "'%s' is too much: the prompt is one argument", argv[argc - 1]);
      return tool_fail(cmd.name, &err);
    }
    prompt = argv[rest];
  }
  struct foray_buf text;
  foray_buf_init(&text, TOOL_INPUT_BYTES_MAX);
  if (!prompt) {
    if (!file && isatty(STDIN_FILENO)) {
      foray_err_set(&err, FORAY_E_ARG, "give a prompt with -p or -f");
      return tool_fail(cmd.name, &err);
    }
    foray_buf_deinit(&text);
    if (tool_read_input(file, &text, &err)) {
      foray_buf_deinit(&text);
      return tool_fail(cmd.name, &err);
    }
  }
  struct foray_request r;
  gen_opts_request(&o, &r);
  r.prompt = prompt ? prompt : text.len ? (const char *)text.data : "";
  r.prompt_len = prompt ? strlen(prompt) : text.len;
  r.chat = !raw;
  tool_interrupt_install();
  int rc = generate(cmd.name, &o, &r, color, check);
  foray_buf_deinit(&text);
  return rc;
}

/* ---------------------------------------------------------------- chat */
enum { TURNS_MAX = 512 };
struct talk {
  struct foray_message turns[TURNS_MAX]; /* texts owned */
  size_t n;
};

static bool talk_add(struct talk *t, const char *role, const char *text, size_t len) {
  char *copy = t->n < TURNS_MAX ? malloc(len + 1) : NULL;
  if (!copy) return false;
  memcpy(copy, text, len);
  copy[len] = 0;
  t->turns[t->n++] = (struct foray_message){role, copy};
  return true;
}

static void talk_clear(struct talk *t, size_t keep) {
  while (t->n > keep) free((void *)(uintptr_t)t->turns[--t->n].content);
}

int cmd_chat(int argc, char **argv) {
  struct gen_opts o;
  const char *color_mode = "auto";
  bool color = false;
  gen_opts_init(&o);
  o.n_predict = 512;
  const struct foray_opt own[] = {
      {"color", 0, FORAY_OPT_STR, &color_mode, "WHEN", "auto, always or never", 0, 0}, {0}};
  struct foray_opt table[GEN_OPTS_MAX];
  gen_opts_table(&o, own, table);
  const struct foray_command cmd = {
      "foray chat", "-m MODEL [OPTIONS]", "Talk: the edge model drafts, the cloud model verifies.", table,
      "Lines are turns. /clear forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C "
      "ends a reply."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (gen_opts_finish(&o, &err) || tool_color_parse(color_mode, stdout, &color, &err))
    return tool_fail(cmd.name, &err);
  struct foray_generator *g = NULL;
  if (gen_opts_open(&o, &g, &err)) return tool_fail(cmd.name, &err);
  bool prompt_shown = isatty(STDIN_FILENO) && !o.quiet;
  if (!o.quiet) show_legend(stderr, g, color);
  struct talk talk = {0};
  if (o.system && !talk_add(&talk, "system", o.system, strlen(o.system))) err.code = FORAY_E_NOMEM;
  size_t first = talk.n;
  char *line = NULL;
  size_t cap = 0;
  int rc = TOOL_EXIT_OK;
  while (!err.code) {
    if (prompt_shown) {
      fputs("> ", stderr);
      fflush(stderr);
    }
    ssize_t n = getline(&line, &cap, stdin);
    if (n < 0) break;
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
    if (!strcmp(line, "/exit") || !strcmp(line, "/quit")) break;
    if (!strcmp(line, "/clear")) {
      talk_clear(&talk, first);
      continue;
    }
    if (!n) continue;
    if (!talk_add(&talk, "user", line, (size_t)n)) {
      foray_err_set(&err, FORAY_E_LIMIT, "the conversation has more than %d turns; /clear begins a new one",
                    TURNS_MAX);
      break;
    }
    struct foray_request r;
    gen_opts_request(&o, &r);
    r.messages = talk.turns;
    r.n_messages = talk.n;
    struct shown shown = {.n_exits = foray_generator_exits(g), .color = color, .text = !o.json};
    struct foray_result res = {0};
    tool_interrupt_install();
    enum foray_status s = foray_generator_run(g, &r, on_token, &shown, &res, &err);
    tool_interrupt_reset();
    if (!s || s == FORAY_E_CANCELLED) {
      err = (struct foray_err){0};
      if (o.json)
        show_json(show_result_json(&res));
      else
        putchar('\n');
      if (!o.quiet && !o.json && r.mode == FORAY_GENERATE_SPECULATIVE)
        fprintf(stderr, "[%u tokens, %.2f a verification, %.1f tokens/s]\n", res.tokens,
                res.verifications ? (double)res.tokens / res.verifications : 0,
                res.seconds > 0 ? res.tokens / res.seconds : 0);
      if (!talk_add(&talk, "assistant", res.text, res.text_len)) talk_clear(&talk, first);
    }
    foray_result_deinit(&res);
  }
  if (err.code) rc = tool_fail(cmd.name, &err);
  talk_clear(&talk, 0);
  free(line);
  gen_opts_close(g);
  return rc;
}
