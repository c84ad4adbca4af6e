/* model/chat.h - messages to the text that a chat model was trained on.
 *
 * There is no Jinja here: the family of the file's template is recognised by what it contains, as llama.cpp
 * does, and rendered by our own code; golden tests compare with Jinja's output of the real templates. A
 * template that is not recognised is an error that names it and the --chat-template values. */
#ifndef FORAY_MODEL_CHAT_H
#define FORAY_MODEL_CHAT_H

#include "core/buf.h"
#include "model/tokenizer.h"

/* X(name, text of --chat-template) */
#define FORAY_CHAT_KINDS(X)                                                                                  \
  X(CHATML, "chatml")                                                                                        \
  X(QWEN, "qwen")                                                                                            \
  X(SMOLLM, "smollm")                                                                                        \
  X(GEMMA, "gemma")                                                                                          \
  X(LLAMA3, "llama3")                                                                                        \
  X(LLAMA2, "llama2")                                                                                        \
  X(NONE, "none") /* messages are joined as they are: base models */

enum foray_chat_kind {
#define X(name, text) FORAY_CHAT_##name,
  FORAY_CHAT_KINDS(X)
#undef X
};

enum { FORAY_CHAT_SYSTEM_MAX = 512 };

struct foray_chat {
  enum foray_chat_kind kind;
  /* Inserted as a system turn when the first message is not one; "" for none. qwen and smollm: read from the
   * file's template. */
  char default_system[FORAY_CHAT_SYSTEM_MAX];
};

struct foray_chat_message {
  const char *role;    /* "system", "user", "assistant" */
  const char *content; /* UTF-8, NUL-terminated; borrowed */
};

/* Chooses the kind: `name` (a text of FORAY_CHAT_KINDS) when not NULL, else from the file's
 * tokenizer.chat_template. FORAY_E_ARG: unknown name; FORAY_E_UNSUPPORTED: unknown template (its first bytes
 * are in the text); FORAY_E_NOTFOUND: the file has none. */
enum foray_status foray_chat_open(const struct foray_gguf *g, const char *name, struct foray_chat *out,
                                  struct foray_err *err) FORAY_NODISCARD;
const char *foray_chat_kind_name(enum foray_chat_kind k);

/* Appends the conversation as text, as the model's Jinja template gives it but without a leading BOS (the
 * tokenizer adds that), ending with the head of an assistant turn if add_generation. FORAY_E_ARG: role that
 * the template does not know, or turns in an order that it refuses. */
enum foray_status foray_chat_render(const struct foray_chat *c, const struct foray_chat_message *msgs,
                                    size_t n, bool add_generation, struct foray_buf *out,
                                    struct foray_err *err) FORAY_NODISCARD;
/* The same as token ids: control tokens of the template are parsed, those in the messages are plain text. BOS
 * is added where the file asks for it. */
enum foray_status foray_chat_encode(const struct foray_chat *c, const struct foray_tokenizer *t,
                                    const struct foray_chat_message *msgs, size_t n, bool add_generation,
                                    struct foray_ids *out, struct foray_err *err) FORAY_NODISCARD;

#endif
