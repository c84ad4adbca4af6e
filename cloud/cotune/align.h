/* cotune/align.h - next-token distributions of one tokenizer said in the words of another, by byte offsets.
 *
 * Both sides have the same text cut in different places. A distribution of the teacher at a byte offset is
 * one over the strings that come next there; each string becomes the student's first token of it, so every
 * bit of mass arrives somewhere or stays in the rest bucket (train/lm.h). Where the student's token reaches
 * further than the teacher's, the teacher's own tokens are multiplied along the text (chain rule) until they
 * reach as far. Where the student stands inside a teacher's token, the candidates that begin with the bytes
 * already said are kept and scaled to 1 (conditional probability). Formulas and what they give:
 * docs/cotuning.md.
 *
 * Thread rule: one thread at a time per map (tables are filled at first use). */
#ifndef FORAY_COTUNE_ALIGN_H
#define FORAY_COTUNE_ALIGN_H

#include "model/tokenizer.h"
#include "train/lm.h"

/* The tokens of a text and the byte where each begins; start[n] = bytes of the text. An end token (control,
 * no bytes) may stand last. Arrays are owned. */
struct foray_cut {
  int n;
  int32_t *ids;
  uint32_t *start;
};
/* Encodes text (no control tokens) and adds end_id when it is not negative. FORAY_E_FORMAT when the tokens do
 * not spell the text. */
enum foray_status foray_cut_text(const struct foray_tokenizer *t, const char *text, size_t len,
                                 int32_t end_id, struct foray_cut *out,
                                 struct foray_err *err) FORAY_NODISCARD;
void foray_cut_deinit(struct foray_cut *c);

struct foray_align; /* teacher -> student */
enum foray_status foray_align_open(const struct foray_tokenizer *teacher,
                                   const struct foray_tokenizer *student, struct foray_align **out,
                                   struct foray_err *err) FORAY_NODISCARD;
void foray_align_close(struct foray_align *a);
/* Both sides have one tokenizer: positions and ids are taken over as they are. */
bool foray_align_is_identity(const struct foray_align *a);

/* How many of the student's positions had what. */
struct foray_align_stats {
  uint64_t positions, exact, inside, none;
  double mass_in, mass_out; /* of candidates at used positions, before and behind the translation */
};

/* teacher_top[i]: candidates before teacher token i, i < teacher->n. For each position of the student: out[j]
 * with room for cap pairs (n = 0: no distribution here), best first. stats (may be NULL) is added to. */
enum foray_status foray_align_project(struct foray_align *a, const char *text,
                                      const struct foray_cut *teacher, const struct foray_sparse *teacher_top,
                                      const struct foray_cut *student, int cap, struct foray_sparse *out,
                                      struct foray_align_stats *stats, struct foray_err *err) FORAY_NODISCARD;

#endif
