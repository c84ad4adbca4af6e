#include "model/chat.h"

#include "core/err.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[] = {
#define X(name, text) text,
    FORAY_CHAT_KINDS(X)
#undef X
};
enum { N_KINDS = sizeof kind_names / sizeof *kind_names };

const char *foray_chat_kind_name(enum foray_chat_kind k) {
  return (unsigned)k < N_KINDS ? kind_names[k] : "?";
}

static bool has(const struct foray_gguf_str t, const char *needle) {
  return memmem(t.ptr, t.len, needle, strlen(needle)) != NULL;
}

/* The text that a ChatML template puts into the system turn that it makes up: what stands between
 * "<|im_start|>system\n" and "<|im_end|>" in one string literal of the template. The newline may be written
 * as backslash and n. An occurrence that is followed by an expression (a quote before the end mark) is not a
 * literal text; the next one is tried. */
static void find_default_system(const struct foray_gguf_str t, char *out, size_t cap) {
  static const char head[] = "<|im_start|>system", end[] = "<|im_end|>";
  const char *p = t.ptr, *stop = t.ptr + t.len;
  out[0] = 0;
  while ((p = memmem(p, (size_t)(stop - p), head, sizeof head - 1))) {
    p += sizeof head - 1;
    if (stop - p >= 2 && p[0] == '\\' && p[1] == 'n')
      p += 2;
    else if (p < stop && *p == '\n')
      p++;
    else
      continue;
    const char *e = memmem(p, (size_t)(stop - p), end, sizeof end - 1);
    if (!e || e == p || (size_t)(e - p) >= cap || memchr(p, '\'', (size_t)(e - p)) ||
        memchr(p, '{', (size_t)(e - p)))
      continue;
    memcpy(out, p, (size_t)(e - p));
    out[e - p] = 0;
    return;
  }
}

/* The template's own default system text, when it makes one up only where the first message is no system
 * message. Templates with tools hold a second literal; the text is the same. */
static bool detect(const struct foray_gguf_str t, struct foray_chat *out) {
  if (has(t, "<|im_start|>")) {
    find_default_system(t, out->default_system, sizeof out->default_system);
    out->kind = !out->default_system[0] ? FORAY_CHAT_CHATML
                : has(t, "SmolLM")      ? FORAY_CHAT_SMOLLM
                                        : FORAY_CHAT_QWEN;
    return true;
  }
  out->kind = has(t, "<start_of_turn>")       ? FORAY_CHAT_GEMMA
              : has(t, "<|start_header_id|>") ? FORAY_CHAT_LLAMA3
              : has(t, "[INST]")              ? FORAY_CHAT_LLAMA2
                                              : FORAY_CHAT_NONE;
  return out->kind != FORAY_CHAT_NONE;
}

static enum foray_status names_error(const char *name, struct foray_err *err) {
  char list[160] = "";
  for (size_t i = 0; i < N_KINDS; i++) {
    size_t at = strlen(list);
    snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", kind_names[i]);
  }
  return foray_err_set(err, FORAY_E_ARG, "chat template '%.60s' is unknown; --chat-template takes one of: %s",
                       name, list);
}

enum foray_status foray_chat_open(const struct foray_gguf *g, const char *name, struct foray_chat *out,
                                  struct foray_err *err) {
  *out = (struct foray_chat){.kind = FORAY_CHAT_NONE};
  struct foray_gguf_str t = {"", 0};
  enum foray_status s = foray_gguf_opt_str(g, "tokenizer.chat_template", &t, err);
  if (s) return s;
  if (name) {
    size_t i = 0;
    while (i < N_KINDS && strcmp(kind_names[i], name)) i++;
    if (i == N_KINDS) return names_error(name, err);
    out->kind = (enum foray_chat_kind)i;
    if (out->kind == FORAY_CHAT_QWEN || out->kind == FORAY_CHAT_SMOLLM)
      find_default_system(t, out->default_system, sizeof out->default_system);
    return FORAY_OK;
  }
  if (t.len == 0)
    return foray_err_set(err, FORAY_E_NOTFOUND,
                         "%s: this model has no chat template (it may be a base model); choose one "
                         "with --chat-template chatml, gemma, llama3, ... or none",
                         foray_gguf_path(g));
  if (detect(t, out)) return FORAY_OK;
  char first[61];
  size_t n = t.len < sizeof first - 1 ? t.len : sizeof first - 1;
  for (size_t i = 0; i < n; i++) first[i] = t.ptr[i] >= 0x20 && t.ptr[i] < 0x7f ? t.ptr[i] : ' ';
  first[n] = 0;
  return foray_err_set(err, FORAY_E_UNSUPPORTED,
                       "%s: the chat template is of no kind that is known here (it begins '%s'); "
                       "choose one with --chat-template chatml, qwen, smollm, gemma, llama3, llama2 or none",
                       foray_gguf_path(g), first);
}

/* ---------------------------------------------------------------- rendering */

/* Text of the template and text of messages alternate; they are kept apart so that the one can be parsed for
 * control tokens and the other not. Spans hold offsets while the buffer grows. */
struct part {
  size_t at, len;
  bool special;
};
struct render {
  struct foray_buf text;
  struct part *parts;
  size_t n, cap;
  enum foray_status status;
};

static void put(struct render *r, const char *p, size_t n, bool special) {
  if (r->status || n == 0) return;
  if (r->n == r->cap) {
    size_t cap = r->cap ? 2 * r->cap : 32;
    struct part *q = realloc(r->parts, cap * sizeof *q);
    if (!q) {
      r->status = FORAY_E_NOMEM;
      return;
    }
    r->parts = q;
    r->cap = cap;
  }
  r->parts[r->n++] = (struct part){r->text.len, n, special};
  r->status = foray_buf_add(&r->text, p, n);
}
static void fixed(struct render *r, const char *s) { put(r, s, strlen(s), true); }
static void content(struct render *r, const char *s) { put(r, s, strlen(s), false); }
/* As Jinja's trim filter: white space off both ends (or, with `keep_head`, off the end only). */
static void trimmed(struct render *r, const char *s, bool keep_head) {
  size_t n = strlen(s);
  while (!keep_head && n && isspace((unsigned char)*s)) s++, n--;
  while (n && isspace((unsigned char)s[n - 1])) n--;
  put(r, s, n, false);
}

static bool is(const char *role, const char *name) { return strcmp(role, name) == 0; }

static void chatml(struct render *r, const struct foray_chat *c, const struct foray_chat_message *m, size_t n,
                   bool gen) {
  if (c->default_system[0] && (n == 0 || !is(m[0].role, "system"))) {
    fixed(r, "<|im_start|>system\n");
    fixed(r, c->default_system);
    fixed(r, "<|im_end|>\n");
  }
  for (size_t i = 0; i < n; i++) {
    fixed(r, "<|im_start|>");
    fixed(r, m[i].role);
    fixed(r, "\n");
    content(r, m[i].content);
    fixed(r, "<|im_end|>\n");
  }
  if (gen) fixed(r, "<|im_start|>assistant\n");
}

/* A system message goes before the first user turn; "assistant" is called "model"; texts are trimmed. */
static void gemma(struct render *r, const struct foray_chat_message *m, size_t n, bool gen) {
  size_t i = n && is(m[0].role, "system");
  for (size_t first = i; i < n; i++) {
    fixed(r, "<start_of_turn>");
    fixed(r, is(m[i].role, "assistant") ? "model" : m[i].role);
    fixed(r, "\n");
    if (i == first && first) {
      content(r, m[0].content);
      fixed(r, "\n\n");
    }
    trimmed(r, m[i].content, false);
    fixed(r, "<end_of_turn>\n");
  }
  if (gen) fixed(r, "<start_of_turn>model\n");
}

static void llama3(struct render *r, const struct foray_chat_message *m, size_t n, bool gen) {
  for (size_t i = 0; i < n; i++) {
    fixed(r, "<|start_header_id|>");
    fixed(r, m[i].role);
    fixed(r, "<|end_header_id|>\n\n");
    trimmed(r, m[i].content, false);
    fixed(r, "<|eot_id|>");
  }
  if (gen) fixed(r, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

/* BOS of the first turn comes from the tokenizer; each later user turn brings its own. */
static void llama2(struct render *r, const struct foray_chat_message *m, size_t n) {
  size_t i = n && is(m[0].role, "system");
  for (size_t first = i; i < n; i++) {
    if (is(m[i].role, "user")) {
      fixed(r, i == first ? "[INST] " : "<s>[INST] ");
      if (i == first && first) {
        fixed(r, "<<SYS>>\n");
        content(r, m[0].content);
        fixed(r, "\n<</SYS>>\n\n");
      }
      trimmed(r, m[i].content, i == first && first); /* the text that is trimmed begins with <<SYS>> then */
      fixed(r, " [/INST]");
    } else {
      fixed(r, " ");
      trimmed(r, m[i].content, false);
      fixed(r, " </s>");
    }
  }
}

static enum foray_status check(const struct foray_chat *c, const struct foray_chat_message *m, size_t n,
                               struct foray_err *err) {
  bool turns = c->kind == FORAY_CHAT_GEMMA || c->kind == FORAY_CHAT_LLAMA2;
  size_t first = n && is(m[0].role, "system");
  for (size_t i = 0; i < n; i++) {
    if (!is(m[i].role, "system") && !is(m[i].role, "user") && !is(m[i].role, "assistant"))
      return foray_err_set(err, FORAY_E_ARG,
                           "message %zu has role '%.40s'; system, user and assistant are known", i,
                           m[i].role);
    if (turns && i >= first && !is(m[i].role, (i - first) % 2 ? "assistant" : "user"))
      return foray_err_set(err, FORAY_E_ARG,
                           "message %zu is of role '%s', but with template '%s' user and assistant must "
                           "take turns, the user first",
                           i, m[i].role, foray_chat_kind_name(c->kind));
  }
  return FORAY_OK;
}

static enum foray_status render(const struct foray_chat *c, const struct foray_chat_message *m, size_t n,
                                bool gen, struct render *r, struct foray_err *err) {
  enum foray_status s = check(c, m, n, err);
  if (s) return s;
  foray_buf_init(&r->text, (size_t)1 << 30);
  switch (c->kind) {
  case FORAY_CHAT_CHATML:
  case FORAY_CHAT_QWEN:
  case FORAY_CHAT_SMOLLM: chatml(r, c, m, n, gen); break;
  case FORAY_CHAT_GEMMA: gemma(r, m, n, gen); break;
  case FORAY_CHAT_LLAMA3: llama3(r, m, n, gen); break;
  case FORAY_CHAT_LLAMA2: llama2(r, m, n); break;
  case FORAY_CHAT_NONE:
    for (size_t i = 0; i < n; i++) content(r, m[i].content);
    break;
  }
  return r->status ? foray_err_set(err, r->status, "no room for the conversation's text") : FORAY_OK;
}

static void render_free(struct render *r) {
  foray_buf_deinit(&r->text);
  free(r->parts);
}

enum foray_status foray_chat_render(const struct foray_chat *c, const struct foray_chat_message *msgs,
                                    size_t n, bool add_generation, struct foray_buf *out,
                                    struct foray_err *err) {
  struct render r = {0};
  enum foray_status s = render(c, msgs, n, add_generation, &r, err);
  if (!s && (s = foray_buf_add(out, r.text.data, r.text.len)))
    foray_err_set(err, s, "no room for the conversation's text");
  render_free(&r);
  return s;
}

enum foray_status foray_chat_encode(const struct foray_chat *c, const struct foray_tokenizer *t,
                                    const struct foray_chat_message *msgs, size_t n, bool add_generation,
                                    struct foray_ids *out, struct foray_err *err) {
  struct render r = {0};
  struct foray_span *spans = NULL;
  enum foray_status s = render(c, msgs, n, add_generation, &r, err);
  if (!s && !(spans = malloc((r.n + 1) * sizeof *spans)))
    s = foray_err_set(err, FORAY_E_NOMEM, "out of memory for the conversation");
  if (!s) {
    for (size_t i = 0; i < r.n; i++)
      spans[i] =
          (struct foray_span){(const char *)r.text.data + r.parts[i].at, r.parts[i].len, r.parts[i].special};
    s = foray_tokenizer_encode_spans(t, spans, r.n, FORAY_ENCODE_BOS, out, err);
  }
  free(spans);
  render_free(&r);
  return s;
}
