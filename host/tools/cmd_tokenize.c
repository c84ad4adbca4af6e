/* foray tokenize, foray detokenize. */
#include "core/args.h"
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"
#include "model/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int cmd_tokenize(int argc, char **argv) {
  const char *model_name = NULL, *file = NULL, *prompt = NULL;
  bool json = false, pieces = false, no_special = false, no_bos = false, no_parse = false;
  const struct foray_opt opts[] = {
      {"model", 'm', FORAY_OPT_STR, &model_name, "NAME|FILE", "model whose tokenizer is used", 0, 0},
      {"file", 'f', FORAY_OPT_STR, &file, "FILE", "text to read (default: standard input)", 0, 0},
      {"prompt", 'p', FORAY_OPT_STR, &prompt, "TEXT", "text given here", 0, 0},
      {"no-special", 0, FORAY_OPT_FLAG, &no_special, NULL,
       "treat all input as plain text: neither add BOS or EOS nor recognise control tokens in it", 0, 0},
      {"no-bos", 0, FORAY_OPT_FLAG, &no_bos, NULL, "do not add BOS or EOS", 0, 0},
      {"no-parse-special", 0, FORAY_OPT_FLAG, &no_parse, NULL, "do not recognise control tokens in the text",
       0, 0},
      {"pieces", 0, FORAY_OPT_FLAG, &pieces, NULL, "one line a token: id and text", 0, 0},
      {"json", 0, FORAY_OPT_FLAG, &json, NULL, "print a JSON array of the ids", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray tokenize", "-m MODEL [OPTIONS] < FILE",
                                    "Turn text into token ids.", opts, NULL};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (!model_name) {
    foray_err_set(&err, FORAY_E_ARG, "name the model with -m");
    return tool_fail(cmd.name, &err);
  }
  struct foray_buf text = {0};
  struct foray_model *m = NULL;
  struct foray_ids ids = {0};
  int rc = TOOL_EXIT_FAILURE;
  foray_buf_init(&text, TOOL_INPUT_BYTES_MAX);
  enum foray_status s =
      prompt ? foray_buf_add(&text, prompt, strlen(prompt)) : tool_read_input(file, &text, &err);
  if (s || foray_model_open(model_name, &m, &err)) goto done;
  unsigned flags = 0;
  if (!no_special && !no_bos) flags |= FORAY_ENCODE_BOS;
  if (!no_special && !no_parse) flags |= FORAY_ENCODE_SPECIAL;
  if (foray_tokenizer_encode(m->tokenizer, (const char *)text.data, text.len, flags, &ids, &err)) goto done;
  if (json) putchar('[');
  for (size_t i = 0; i < ids.n; i++) {
    if (pieces && !json) {
      size_t len;
      const char *piece = foray_tokenizer_piece(m->tokenizer, ids.ids[i], &len);
      printf("%7d  ", ids.ids[i]);
      for (size_t k = 0; k < len; k++) {
        unsigned char c = (unsigned char)piece[k];
        if (c < 0x20 || c == 0x7f)
          printf("\\x%02x", c);
        else
          putchar(c);
      }
      putchar('\n');
    } else {
      printf("%s%d", i ? (json ? ", " : " ") : "", ids.ids[i]);
    }
  }
  if (json) putchar(']');
  if (!pieces || json) putchar('\n');
  rc = fflush(stdout) ? TOOL_EXIT_FAILURE : TOOL_EXIT_OK;
done:
  if (err.code) rc = tool_fail(cmd.name, &err);
  foray_ids_deinit(&ids);
  foray_model_close(m);
  foray_buf_deinit(&text);
  return rc;
}

/* Ids as a JSON array or as numbers between white space: [1, 2, 3] and "1 2 3" are the same input. */
static enum foray_status parse_ids(const struct foray_buf *in, struct foray_ids *ids, struct foray_err *err) {
  const char *p = (const char *)in->data;
  for (;;) {
    if (p) p += strspn(p, " \t\r\n,[]");
    if (!p || !*p) return FORAY_OK;
    char *end;
    errno = 0;
    long v = strtol(p, &end, 10);
    if (end == p || errno || v < 0 || v > INT32_MAX)
      return foray_err_set(err, FORAY_E_ARG, "byte %zu of the input: '%.12s' is not a token id",
                           (size_t)(p - (const char *)in->data), p);
    if (foray_ids_add(ids, (int32_t)v)) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
    p = end;
  }
}

int cmd_detokenize(int argc, char **argv) {
  const char *model_name = NULL, *file = NULL;
  bool special = false;
  const struct foray_opt opts[] = {
      {"model", 'm', FORAY_OPT_STR, &model_name, "NAME|FILE", "model whose tokenizer is used", 0, 0},
      {"file", 'f', FORAY_OPT_STR, &file, "FILE", "ids to read (default: standard input)", 0, 0},
      {"special", 0, FORAY_OPT_FLAG, &special, NULL,
       "show control tokens by name (they are left out otherwise)", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray detokenize", "-m MODEL [OPTIONS] [ID...] < FILE",
                                    "Turn token ids (a JSON array, or numbers) into text.", opts, NULL};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (!model_name) {
    foray_err_set(&err, FORAY_E_ARG, "name the model with -m");
    return tool_fail(cmd.name, &err);
  }
  struct foray_buf in, out;
  struct foray_ids ids = {0};
  struct foray_model *m = NULL;
  struct foray_detok detok = {.special = special};
  int rc = TOOL_EXIT_FAILURE;
  foray_buf_init(&in, TOOL_INPUT_BYTES_MAX);
  foray_buf_init(&out, TOOL_INPUT_BYTES_MAX);
  enum foray_status s = FORAY_OK;
  if (rest < argc)
    for (int i = rest; !s && i < argc; i++) s = foray_buf_addf(&in, "%s ", argv[i]);
  else
    s = tool_read_input(file, &in, &err);
  if (s || parse_ids(&in, &ids, &err) || foray_model_open(model_name, &m, &err)) goto done;
  for (size_t i = 0; i < ids.n; i++) {
    s = foray_detok_feed(&detok, m->tokenizer, ids.ids[i], &out);
    if (s) {
      foray_err_set(&err, s, "id %d (number %zu) is outside the vocabulary of %u tokens", ids.ids[i], i,
                    foray_tokenizer_n_vocab(m->tokenizer));
      goto done;
    }
  }
  if (foray_detok_finish(&detok, &out)) goto done;
  rc = fwrite(out.data, 1, out.len, stdout) == out.len && !fflush(stdout) ? TOOL_EXIT_OK : TOOL_EXIT_FAILURE;
done:
  if (err.code) rc = tool_fail(cmd.name, &err);
  foray_model_close(m);
  foray_ids_deinit(&ids);
  foray_buf_deinit(&in);
  foray_buf_deinit(&out);
  return rc;
}
