#include "cotune/align.h"

#include <stdlib.h>
#include <string.h>

#include "core/err.h"

enum {
  CHAIN_MAX = 96, /* teacher tokens multiplied along one token of the student */
  UNKNOWN = -2,
  NOWHERE = -1, /* stays in the rest */
};
static const double INSIDE_LEAST = 1e-3; /* mass that must agree with the bytes already said */

struct foray_align {
  const struct foray_tokenizer *teacher, *student;
  bool same;
  int32_t *first; /* by teacher id: the student's first token of its bytes */
  struct foray_ids ids;
  char *buf;
  size_t cap;
  /* accumulation of one position */
  int32_t *slot; /* by student id: place in acc, or -1 */
  struct foray_sparse acc;
  double *mass;
  int acc_cap;
};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "alignment: out of memory");
}

void foray_cut_deinit(struct foray_cut *c) {
  free(c->ids), free(c->start);
  *c = (struct foray_cut){0};
}

enum foray_status foray_cut_text(const struct foray_tokenizer *t, const char *text, size_t len,
                                 int32_t end_id, struct foray_cut *out, struct foray_err *err) {
  struct foray_ids ids = {0};
  size_t at = 0;
  enum foray_status st = foray_tokenizer_encode(t, text, len, 0, &ids, err);
  *out = (struct foray_cut){0};
  if (!st && end_id >= 0 && foray_ids_add(&ids, end_id)) st = nomem(err);
  if (!st && !(out->start = malloc((ids.n + 1) * sizeof *out->start))) st = nomem(err);
  for (size_t i = 0; !st && i < ids.n; i++) {
    size_t n;
    const char *p = foray_tokenizer_piece(t, ids.ids[i], &n);
    out->start[i] = (uint32_t)at;
    if (end_id >= 0 && i + 1 == ids.n) break;
    if (!i && n && p[0] == ' ' && foray_tokenizer_adds_space(t)) p++, n--;
    if (at + n > len || memcmp(text + at, p, n))
      st = foray_err_set(err, FORAY_E_FORMAT, "token %d at byte %zu does not spell the text", ids.ids[i], at);
    at += n;
  }
  if (!st && at != len) st = foray_err_set(err, FORAY_E_FORMAT, "the tokens spell %zu of %zu bytes", at, len);
  if (st) {
    foray_ids_deinit(&ids);
    foray_cut_deinit(out);
    return st;
  }
  out->start[ids.n] = (uint32_t)at;
  out->ids = ids.ids;
  out->n = (int)ids.n;
  return FORAY_OK;
}

enum foray_status foray_align_open(const struct foray_tokenizer *teacher,
                                   const struct foray_tokenizer *student, struct foray_align **out,
                                   struct foray_err *err) {
  struct foray_align *a = calloc(1, sizeof *a);
  uint8_t x[FORAY_SHA256_BYTES], y[FORAY_SHA256_BYTES];
  if (!a) return nomem(err);
  a->teacher = teacher, a->student = student;
  foray_tokenizer_hash(teacher, x);
  foray_tokenizer_hash(student, y);
  a->same = !memcmp(x, y, sizeof x);
  size_t n = foray_tokenizer_n_vocab(teacher), m = foray_tokenizer_n_vocab(student);
  a->first = malloc(n * sizeof *a->first);
  a->slot = malloc(m * sizeof *a->slot);
  if (!a->first || !a->slot) {
    foray_align_close(a);
    return nomem(err);
  }
  for (size_t i = 0; i < n; i++) a->first[i] = UNKNOWN;
  for (size_t i = 0; i < m; i++) a->slot[i] = -1;
  *out = a;
  return FORAY_OK;
}
void foray_align_close(struct foray_align *a) {
  if (!a) return;
  foray_ids_deinit(&a->ids);
  free(a->first), free(a->slot), free(a->buf), free(a->acc.row), free(a->mass);
  free(a);
}
bool foray_align_is_identity(const struct foray_align *a) { return a->same; }

/* ---- strings to tokens of the student ---- */
static enum foray_status first_of(struct foray_align *a, const char *text, size_t n, int32_t *id,
                                  struct foray_err *err) {
  a->ids.n = 0;
  enum foray_status st = foray_tokenizer_encode(a->student, text, n, 0, &a->ids, err);
  *id = a->ids.n ? a->ids.ids[0] : NOWHERE;
  return st;
}

static enum foray_status add(struct foray_align *a, int32_t id, double p, struct foray_err *err) {
  if (id < 0 || p <= 0) return FORAY_OK;
  if (a->slot[id] < 0) {
    if (a->acc.n == a->acc_cap) {
      int cap = a->acc_cap ? 2 * a->acc_cap : 256;
      int32_t *row = realloc(a->acc.row, (size_t)cap * sizeof *row);
      if (row) a->acc.row = row;
      double *mass = realloc(a->mass, (size_t)cap * sizeof *mass);
      if (mass) a->mass = mass;
      if (!row || !mass) return nomem(err);
      a->acc_cap = cap;
    }
    a->slot[id] = a->acc.n;
    a->acc.row[a->acc.n] = id;
    a->mass[a->acc.n++] = 0;
  }
  a->mass[a->slot[id]] += p;
  return FORAY_OK;
}

/* What a student's position is asked about. */
struct spot {
  const char *text;
  const struct foray_cut *teacher;
  const struct foray_sparse *top;
  uint32_t at, end;    /* bytes of the student's own token */
  int32_t own, end_id; /* that token; the student's end token */
};

static bool is_end(const struct foray_tokenizer *t, int32_t id) { return foray_tokenizer_is_eog(t, id); }

/* Candidate c of the teacher, behind the bytes text[s->at .. from) that were said since the student's
 * position, of which the candidate itself repeats `skip` bytes (the student stands inside it). */
static enum foray_status candidate(struct foray_align *a, const struct spot *s, int32_t c, uint32_t from,
                                   size_t skip, int32_t *id, struct foray_err *err) {
  size_t said = from > s->at ? from - s->at : 0, n;
  enum foray_token_kind kind = foray_tokenizer_kind(a->teacher, c);
  *id = NOWHERE;
  if (is_end(a->teacher, c) && !skip) {
    if (!said) *id = s->end_id;
    return said ? first_of(a, s->text + s->at, said, id, err) : FORAY_OK;
  }
  if (kind == FORAY_TOKEN_CONTROL || kind == FORAY_TOKEN_UNUSED || kind == FORAY_TOKEN_UNKNOWN)
    return FORAY_OK;
  const char *p = foray_tokenizer_piece(a->teacher, c, &n);
  if (n <= skip) return FORAY_OK;
  p += skip, n -= skip;
  /* the text itself, at least as far as the student's token: that token */
  size_t need = s->end - s->at;
  if (need && said + n >= need && !memcmp(s->text + s->at + said, p, need > said ? need - said : 0)) {
    *id = s->own;
    return FORAY_OK;
  }
  if (!said && !skip) {
    if (a->first[c] == UNKNOWN) {
      enum foray_status st = first_of(a, p, n, &a->first[c], err);
      if (st) return st;
    }
    *id = a->first[c];
    return FORAY_OK;
  }
  if (said + n > a->cap) {
    char *b = realloc(a->buf, 2 * (said + n));
    if (!b) return nomem(err);
    a->buf = b, a->cap = 2 * (said + n);
  }
  memcpy(a->buf, s->text + s->at, said);
  memcpy(a->buf + said, p, n);
  return first_of(a, a->buf, said + n, id, err);
}

/* Mass of the candidates at teacher position i that begin with the `skip` bytes already said. */
static double agreeing(const struct foray_align *a, const struct spot *s, int i, size_t skip) {
  double z = 0;
  for (int k = 0; k < s->top[i].n; k++) {
    size_t n;
    const char *p = foray_tokenizer_piece(a->teacher, s->top[i].row[k], &n);
    if (foray_tokenizer_kind(a->teacher, s->top[i].row[k]) == FORAY_TOKEN_CONTROL) continue;
    if (n > skip && !memcmp(p, s->text + s->teacher->start[i], skip)) z += (double)s->top[i].p[k];
  }
  return z;
}

/* Fills the accumulator for one position; *inside says how it was reached, false result: nothing to say. */
static enum foray_status position(struct foray_align *a, const struct spot *s, int i, bool *used,
                                  double *mass_in, struct foray_err *err) {
  const struct foray_cut *t = s->teacher;
  size_t skip = s->at - t->start[i];
  double carry = 1;
  enum foray_status st = FORAY_OK;
  *used = false;
  *mass_in = 0;
  if (skip) {
    double z = agreeing(a, s, i, skip);
    if (z < INSIDE_LEAST) return FORAY_OK;
    carry = 1 / z;
  }
  for (int depth = 0; !st && depth < CHAIN_MAX; depth++, i++, skip = 0) {
    const struct foray_sparse *top = &s->top[i];
    uint32_t from = depth ? t->start[i] : s->at;
    bool further = i + 1 < t->n && t->start[i + 1] < s->end && depth + 1 < CHAIN_MAX;
    double next = 0;
    for (int k = 0; !st && k < top->n; k++) {
      double p = carry * (double)top->p[k];
      int32_t id;
      size_t n;
      const char *piece = foray_tokenizer_piece(a->teacher, top->row[k], &n);
      if (skip && (foray_tokenizer_kind(a->teacher, top->row[k]) == FORAY_TOKEN_CONTROL || n <= skip ||
                   memcmp(piece, s->text + t->start[i], skip)))
        continue;
      if (further && top->row[k] == t->ids[i]) {
        next += p;
        continue;
      }
      st = candidate(a, s, top->row[k], from, skip, &id, err);
      if (!st) st = add(a, id, p, err);
      *mass_in += p;
    }
    if (!further || next <= 0) break;
    carry = next;
  }
  *used = true;
  return st;
}

static int by_mass(const void *x, const void *y) {
  const double *p = x, *q = y;
  return p[0] > q[0] ? -1 : p[0] < q[0] ? 1 : p[1] < q[1] ? -1 : p[1] > q[1];
}

/* Accumulator to the cap best pairs; leaves it empty. */
static enum foray_status flush(struct foray_align *a, int cap, struct foray_sparse *out, double *mass_out,
                               struct foray_err *err) {
  double(*pair)[2] = malloc(((size_t)a->acc.n + 1) * sizeof *pair);
  if (!pair) return nomem(err);
  for (int k = 0; k < a->acc.n; k++) {
    pair[k][0] = a->mass[k], pair[k][1] = a->acc.row[k];
    *mass_out += a->mass[k];
    a->slot[a->acc.row[k]] = -1;
  }
  qsort(pair, (size_t)a->acc.n, sizeof *pair, by_mass);
  out->n = a->acc.n < cap ? a->acc.n : cap;
  for (int k = 0; k < out->n; k++) out->row[k] = (int32_t)pair[k][1], out->p[k] = (float)pair[k][0];
  a->acc.n = 0;
  free(pair);
  return FORAY_OK;
}

static void copy(const struct foray_sparse *in, int cap, struct foray_sparse *out) {
  out->n = in->n < cap ? in->n : cap;
  memcpy(out->row, in->row, (size_t)out->n * sizeof *out->row);
  memcpy(out->p, in->p, (size_t)out->n * sizeof *out->p);
}

enum foray_status foray_align_project(struct foray_align *a, const char *text,
                                      const struct foray_cut *teacher, const struct foray_sparse *teacher_top,
                                      const struct foray_cut *student, int cap, struct foray_sparse *out,
                                      struct foray_align_stats *stats, struct foray_err *err) {
  struct foray_align_stats none = {0}, *c = stats ? stats : &none;
  enum foray_status st = FORAY_OK;
  int i = 0;
  if (teacher->start[teacher->n] != student->start[student->n])
    return foray_err_set(err, FORAY_E_ARG, "the two sides hold texts of %u and %u bytes",
                         teacher->start[teacher->n], student->start[student->n]);
  for (int j = 0; !st && j < student->n; j++) {
    struct spot s = {text,
                     teacher,
                     teacher_top,
                     student->start[j],
                     student->start[j + 1],
                     student->ids[j],
                     student->ids[student->n - 1]};
    bool used = false;
    double in = 0, arrived = 0;
    if (!is_end(a->student, s.end_id)) s.end_id = NOWHERE;
    out[j].n = 0;
    c->positions++;
    while (i + 1 < teacher->n && teacher->start[i + 1] <= s.at) i++;
    if (a->same && teacher->start[i] == s.at && teacher->ids[i] == student->ids[j]) {
      copy(&teacher_top[i], cap, &out[j]);
      c->exact++;
      continue;
    }
    /* the student's end token stands behind the text; a teacher without one has nothing to say there */
    if (teacher->start[i + 1] <= s.at && !(s.at == s.end && teacher->start[i] == s.at)) {
      c->none++;
      continue;
    }
    st = position(a, &s, i, &used, &in, err);
    if (!st) st = flush(a, cap, &out[j], &arrived, err);
    if (!used || !out[j].n) {
      c->none++;
      continue;
    }
    c->mass_in += in, c->mass_out += arrived;
    if (teacher->start[i] == s.at)
      c->exact++;
    else
      c->inside++;
  }
  return st;
}
