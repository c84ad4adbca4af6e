/* Corpus container: little-endian records behind a magic word; loading checks every length against the file.
 */
#include "train/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"

static const char MAGIC[8] = "FRYTEXT1";

struct head {
  char magic[8];
  char writer[72];
  uint32_t n_vocab, n, top, pad;
};
struct doc_head {
  int32_t n, first, answer, category;
};

void foray_corpus_deinit(struct foray_corpus *c) {
  for (int i = 0; i < c->n; i++) {
    free(c->doc[i].ids);
    free(c->doc[i].top);
    free(c->doc[i].logp);
  }
  free(c->doc);
  *c = (struct foray_corpus){0};
}

enum foray_status foray_corpus_save(const struct foray_corpus *c, const char *path, struct foray_err *err) {
  char tmp[4096];
  snprintf(tmp, sizeof tmp, "%s.tmp", path);
  FILE *f = fopen(tmp, "wb");
  if (!f) return foray_err_set(err, FORAY_E_IO, "%s: cannot be written", tmp);
  struct head h = {.n_vocab = c->n_vocab, .n = (uint32_t)c->n, .top = FORAY_CORPUS_TOP};
  memcpy(h.magic, MAGIC, 8);
  memcpy(h.writer, c->writer, sizeof c->writer);
  bool ok = fwrite(&h, sizeof h, 1, f) == 1;
  for (int i = 0; ok && i < c->n; i++) {
    const struct foray_doc *d = &c->doc[i];
    struct doc_head dh = {d->n, d->first, d->answer, d->category};
    size_t n = (size_t)d->n, k = (size_t)(d->n - d->first) * FORAY_CORPUS_TOP;
    ok = fwrite(&dh, sizeof dh, 1, f) == 1 && fwrite(d->ids, 4, n, f) == n && fwrite(d->top, 4, k, f) == k &&
         fwrite(d->logp, 4, k, f) == k;
  }
  ok = fclose(f) == 0 && ok;
  if (!ok || rename(tmp, path)) return foray_err_set(err, FORAY_E_IO, "%s: write failed", path);
  return FORAY_OK;
}

static bool read_doc(FILE *f, struct foray_doc *d) {
  struct doc_head h;
  if (fread(&h, sizeof h, 1, f) != 1 || h.n < 2 || h.n > 1 << 20 || h.first < 1 || h.first > h.answer ||
      h.answer > h.n)
    return false;
  size_t n = (size_t)h.n, k = (size_t)(h.n - h.first) * FORAY_CORPUS_TOP;
  d->n = h.n, d->first = h.first, d->answer = h.answer, d->category = h.category;
  d->ids = malloc(n * 4);
  d->top = malloc(k * 4 + 4);
  d->logp = malloc(k * 4 + 4);
  return d->ids && d->top && d->logp && fread(d->ids, 4, n, f) == n && fread(d->top, 4, k, f) == k &&
         fread(d->logp, 4, k, f) == k;
}

static bool doc_in_range(const struct foray_doc *d, uint32_t n_vocab) {
  for (int i = 0; i < d->n; i++)
    if (d->ids[i] < 0 || (uint32_t)d->ids[i] >= n_vocab) return false;
  for (int i = 0; i < (d->n - d->first) * FORAY_CORPUS_TOP; i++)
    if (d->top[i] < 0 || (uint32_t)d->top[i] >= n_vocab || !(d->logp[i] <= 0.01f)) return false;
  return true;
}

enum foray_status foray_corpus_load(struct foray_corpus *c, const char *path, struct foray_err *err) {
  FILE *f = fopen(path, "rb");
  if (!f) return foray_err_set(err, FORAY_E_NOTFOUND, "%s: cannot be opened", path);
  struct head h;
  bool ok = fread(&h, sizeof h, 1, f) == 1 && !memcmp(h.magic, MAGIC, 8) && h.top == FORAY_CORPUS_TOP &&
            h.n < 1u << 24;
  *c = (struct foray_corpus){0};
  if (ok) {
    memcpy(c->writer, h.writer, 64);
    c->n_vocab = h.n_vocab;
    c->doc = calloc((size_t)h.n + 1, sizeof *c->doc);
    c->cap = (int)h.n + 1;
    ok = c->doc != NULL;
  }
  for (uint32_t i = 0; ok && i < h.n; i++) {
    ok = read_doc(f, &c->doc[i]);
    c->n++; /* so that deinit frees a half-read one */
    ok = ok && doc_in_range(&c->doc[i], h.n_vocab);
    c->scored += (uint64_t)(c->doc[i].n - c->doc[i].first);
  }
  fclose(f);
  if (ok) return FORAY_OK;
  foray_corpus_deinit(c);
  return foray_err_set(err, FORAY_E_FORMAT, "%s: not a training text of this version, or cut short", path);
}

struct freq {
  uint32_t count, id;
  int must;
};
static int by_frequency(const void *a, const void *b) {
  const struct freq *x = a, *y = b;
  if (x->count != y->count) return x->count > y->count ? -1 : 1;
  if (x->must != y->must) return x->must ? -1 : 1;
  return x->id < y->id ? -1 : x->id > y->id;
}

int foray_corpus_vocab(const struct foray_corpus *c, const struct foray_tokenizer *t, int want, uint32_t *ids,
                       double *coverage, struct foray_err *err) {
  struct freq *f = calloc(c->n_vocab, sizeof *f);
  uint64_t total = 0, held = 0;
  int n = 0, musts = 0;
  if (!f) {
    foray_err_set(err, FORAY_E_NOMEM, "vocabulary list: out of memory");
    return 0;
  }
  for (uint32_t i = 0; i < c->n_vocab; i++) {
    size_t len;
    enum foray_token_kind k = foray_tokenizer_kind(t, (int32_t)i);
    f[i].id = i;
    foray_tokenizer_piece(t, (int32_t)i, &len);
    f[i].must = k == FORAY_TOKEN_BYTE || (k == FORAY_TOKEN_NORMAL && len == 1) ||
                foray_tokenizer_is_eog(t, (int32_t)i);
  }
  for (int d = 0; d < c->n; d++) {
    const struct foray_doc *doc = &c->doc[d];
    for (int i = doc->first; i < doc->n; i++) f[doc->ids[i]].count += 4;
    /* likely alternatives count a little: they are what the next text will hold */
    for (int i = 0; i < doc->n - doc->first; i++)
      for (int k = 0; k < FORAY_CORPUS_TOP; k++)
        if (doc->logp[i * FORAY_CORPUS_TOP + k] > -3.0f) f[doc->top[i * FORAY_CORPUS_TOP + k]].count++;
    total += (uint64_t)(doc->n - doc->first);
  }
  qsort(f, c->n_vocab, sizeof *f, by_frequency);
  for (uint32_t i = 0; i < c->n_vocab; i++) musts += f[i].must;
  for (uint32_t i = 0; i < c->n_vocab && n < want; i++) {
    /* places left are kept for those that must be in */
    if (!f[i].must && n + musts >= want) continue;
    musts -= f[i].must;
    ids[n++] = f[i].id;
  }
  uint8_t *in = calloc(c->n_vocab, 1);
  for (int i = 0; in && i < n; i++) in[ids[i]] = 1;
  for (int d = 0; in && d < c->n; d++)
    for (int i = c->doc[d].first; i < c->doc[d].n; i++) held += in[c->doc[d].ids[i]];
  *coverage = total ? (double)held / (double)total : 0;
  free(in);
  free(f);
  return n;
}
