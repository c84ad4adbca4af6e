/* Any bytes as text, with small BPE and SPM vocabularies that are made once: no crash, only known ids, and
 * where the text is UTF-8 and free of control tokens, the same text back. The first byte chooses vocabulary
 * and flags. */
#include "core/buf.h"
#include "model/gguf_write.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { KINDS = 4, VOCAB_MAX = 400 };
static struct foray_gguf *files[KINDS]; /* these live as long as the process */
static struct foray_tokenizer *toks[KINDS];

static size_t byte_text(int b, char *out) {
  int c = b;
  if (!((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)) {
    c = 256;
    for (int i = 0; i < b; i++) c += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
  }
  if (c < 128) {
    out[0] = (char)c;
    return 1;
  }
  out[0] = (char)(0xc0 | c >> 6);
  out[1] = (char)(0x80 | (c & 63));
  return 2;
}

static const char *const merges[] = {"t h",
                                     "th e",
                                     "a a",
                                     "aa aa",
                                     "aaaa aaaa",
                                     "\xc4\xa0 t",
                                     "\xc4\xa0 the",
                                     "\xc4\xa0 \xc4\xa0",
                                     "\xc4\xa0\xc4\xa0 \xc4\xa0\xc4\xa0",
                                     "\xc4\x8a \xc4\x8a",
                                     "1 2",
                                     "\xc3\x83 \xc2\xa9",
                                     "\xef \xbc"};
static const char *const words[] = {"\xe2\x96\x81",
                                    "a",
                                    "aa",
                                    "aaaa",
                                    "t",
                                    "h",
                                    "e",
                                    "th",
                                    "the",
                                    "\xe2\x96\x81the",
                                    "\xe2\x96\x81\xe2\x96\x81",
                                    "\xc3\xa9",
                                    "1",
                                    "2",
                                    "12",
                                    "\n\n"};

static struct foray_tokenizer *make(int kind) {
  static char text[VOCAB_MAX][16];
  static struct foray_gguf_str strs[VOCAB_MAX];
  static int32_t kinds[VOCAB_MAX];
  static float scores[VOCAB_MAX];
  static const char *const pres[] = {"smollm", "qwen2", "llama-bpe"};
  int n = 0;
#define PUT(p, len, k)                                                                                       \
  do {                                                                                                       \
    memcpy(text[n], p, len);                                                                                 \
    strs[n] = (struct foray_gguf_str){text[n], len};                                                         \
    scores[n] = (float)-n;                                                                                   \
    kinds[n++] = k;                                                                                          \
  } while (0)
  PUT("<s>", 3, 3);
  PUT("</s>", 4, 3);
  PUT("<unk>", 5, 2);
  PUT("<tool>", 6, 4);
  PUT("<tool></tool>", 13, 4);
  for (int b = 0; b < 256; b++) {
    char s[16];
    size_t len = kind < 3 ? byte_text(b, s) : (size_t)snprintf(s, sizeof s, "<0x%02X>", b);
    PUT(s, len, kind < 3 ? 1 : 6);
  }
  if (kind < 3) {
    for (size_t i = 0; i < sizeof merges / sizeof *merges - 1; i++) {
      char s[16];
      size_t len = 0;
      for (const char *p = merges[i]; *p; p++)
        if (*p != ' ') s[len++] = *p;
      PUT(s, len, 1);
    }
  } else {
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
      PUT(words[i], strlen(words[i]), i + 1 < sizeof words / sizeof *words ? 1 : 4);
  }
  struct foray_gguf_writer *w = foray_gguf_writer_open();
  static struct foray_buf b[KINDS];
  foray_buf_init(&b[kind], 1 << 20);
  foray_gguf_writer_str(w, "tokenizer.ggml.model", kind < 3 ? "gpt2" : "llama");
  if (kind < 3) {
    foray_gguf_writer_str(w, "tokenizer.ggml.pre", pres[kind]);
    foray_gguf_writer_arr_str(w, "tokenizer.ggml.merges", merges, sizeof merges / sizeof *merges);
  } else {
    foray_gguf_writer_arr(w, "tokenizer.ggml.scores", FORAY_GGUF_F32, scores, (size_t)n);
  }
  foray_gguf_writer_arr_strn(w, "tokenizer.ggml.tokens", strs, (size_t)n);
  foray_gguf_writer_arr(w, "tokenizer.ggml.token_type", FORAY_GGUF_I32, kinds, (size_t)n);
  foray_gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 0);
  foray_gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", kind == 2);
  foray_gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix",
                         false); /* else a space follows each special token */
  foray_gguf_writer_u32(w, "tokenizer.ggml.unknown_token_id", 2);
  struct foray_gguf *g = NULL;
  struct foray_tokenizer *t = NULL;
  struct foray_err err = {0};
  if (foray_gguf_writer_save_buf(w, &b[kind], &err) ||
      foray_gguf_open_memory(b[kind].data, b[kind].len, "fuzz", &g, &err) ||
      foray_tokenizer_open(g, &t, &err)) {
    fprintf(stderr, "fuzz_tokenizer: %s\n", err.msg);
    abort();
  }
  foray_gguf_writer_close(w);
  files[kind] = g;
  return t;
}

static bool strict_utf8(const uint8_t *p, size_t n) {
  for (size_t i = 0; i < n;) {
    size_t k = p[i] < 0x80                   ? 1
               : p[i] >= 0xc2 && p[i] < 0xe0 ? 2
               : p[i] >= 0xe0 && p[i] < 0xf0 ? 3
               : p[i] >= 0xf0 && p[i] < 0xf5 ? 4
                                             : 0;
    if (!k || k > n - i) return false;
    for (size_t j = 1; j < k; j++)
      if ((p[i + j] & 0xc0) != 0x80) return false;
    if ((p[i] == 0xe0 && p[i + 1] < 0xa0) || (p[i] == 0xed && p[i + 1] >= 0xa0) ||
        (p[i] == 0xf0 && p[i + 1] < 0x90) || (p[i] == 0xf4 && p[i + 1] >= 0x90))
      return false;
    i += k;
  }
  return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size) return 0;
  for (int k = 0; k < KINDS && !toks[k]; k++) toks[k] = make(k);
  int kind = data[0] & 3;
  const struct foray_tokenizer *t = toks[kind];
  unsigned flags = data[0] >> 2 & 3;
  const uint8_t *text = data + 1;
  size_t n = size - 1;
  struct foray_ids ids = {0};
  struct foray_span spans[2] = {{(const char *)text, n / 3, (data[0] & 16) != 0},
                                {(const char *)text + n / 3, n - n / 3, false}};
  enum foray_status s = data[0] & 32 ? foray_tokenizer_encode_spans(t, spans, 2, flags, &ids, NULL)
                                     : foray_tokenizer_encode(t, (const char *)text, n, flags, &ids, NULL);
  if (s) abort(); /* no text of this size runs into a limit */
  struct foray_buf out;
  foray_buf_init(&out, 1 << 24);
  struct foray_detok d = {.special = true,
                          .started = true}; /* control tokens by name; the space that SPM adds stays */
  size_t whole = 0;
  for (size_t i = 0; i < ids.n; i++) {
    if (ids.ids[i] < 0 || (uint32_t)ids.ids[i] >= foray_tokenizer_n_vocab(t)) abort();
    if (foray_detok_feed(&d, t, ids.ids[i], &out)) abort();
    if (strict_utf8(text, n) && out.len > whole && !strict_utf8(out.data + whole, out.len - whole))
      abort(); /* never split */
    whole = out.len;
  }
  if (foray_detok_finish(&d, &out)) abort();
  /* SPM writes spaces as U+2581: the two cannot be told apart afterwards. Kind 2 adds BOS. */
  bool lossless = kind != 2 && !(data[0] & 60) && strict_utf8(text, n) &&
                  !(kind == 3 && memmem(text, n, "\xe2\x96\x81", 3));
  if (lossless && (out.len != n || (n && memcmp(out.data, text, n)))) abort();
  foray_buf_deinit(&out);
  foray_ids_deinit(&ids);
  return 0;
}
