/* Alignment across tokenizers, on text of twenty scripts and every ordered pair of tokenizers that is at
 * hand: the tiny ones of the tests always, those of real models where they are on this machine. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/philox.h"
#include "cotune/align.h"
#include "model/model.h"
#include "unit/harness.h"
#include "unit/tiny_model.h"

static const char *const TEXT[] = {
    "The answer is 1,234.5 km; don't ask twice, said the old man, and hello world again.\n\tfor (i = 0; i < "
    "12; i++) x[i] += 1;",
    "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, \xd0\xbc\xd0\xb8\xd1\x80! \xd0\x9a\xd0\xb0\xd0\xba "
    "\xd0\xb4\xd0\xb5\xd0\xbb\xd0\xb0 \xd1\x81\xd0\xb5\xd0\xb3\xd0\xbe\xd0\xb4\xd0\xbd\xd1\x8f?",
    u8"Καλημέρα κόσμε, τι κάνεις;",
    u8"مرحبا بالعالم، كيف حالك اليوم؟",
    u8"שלום עולם, מה שלומך היום?",
    u8"नमस्ते दुनिया, आप कैसे हैं?",
    u8"ওহে বিশ্ব, তুমি কেমন আছো?",
    u8"வணக்கம் உலகம், எப்படி இருக்கிறீர்கள்?",
    u8"హలో ప్రపంచం, మీరు ఎలా ఉన్నారు?",
    u8"ಹಲೋ ವಿಶ್ವ, ನೀವು ಹೇಗಿದ್ದೀರಿ?",
    u8"ഹലോ ലോകം, സുഖമാണോ?",
    u8"สวัสดีชาวโลก สบายดีไหม",
    u8"ສະບາຍດີຊາວໂລກ",
    u8"မင်္ဂလာပါ ကမ္ဘာလောက",
    u8"សួស្តីពិភពលោក",
    u8"გამარჯობა მსოფლიო, როგორ ხარ?",
    u8"Բարեւ աշխարհ, ինչպե՞ս ես",
    u8"ሰላም ለዓለም፣ እንዴት ነህ?",
    u8"こんにちは世界。元気ですか？カタカナも書きます。",
    u8"안녕하세요 세계, 잘 지내세요?",
    u8"你好，世界！今天天气怎么样？三千五百米。",
    u8"emoji 👩‍👩‍👧‍👦 🏳️‍🌈 ﬁ ＡＢＣ  e\xcc\x81  \xc2\xa0 …“quoted”— "
    u8"dash",
    "  leading spaces\n\n\n  and\r\nline   ends  ",
};
enum { TEXTS = sizeof TEXT / sizeof *TEXT, CAP = 64, LEN = 400 };

struct side {
  const char *name;
  struct foray_model *m;
  struct foray_buf buf;
};
static int sides(struct side *s) {
  static const char *const real[] = {"smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "gemma3-270m"};
  struct foray_err err = {0};
  int n = 0;
  for (int k = 0; k < 2; k++, n++) {
    struct foray_tiny d = foray_tiny_default(k ? FORAY_ARCH_GEMMA3 : FORAY_ARCH_QWEN2);
    s[n] = (struct side){.name = k ? "tiny spm" : "tiny bpe"};
    foray_tiny_build(&d, &s[n].buf);
    CU_ASSERT_FATAL(foray_model_open_memory(s[n].buf.data, s[n].buf.len, "tiny", &s[n].m, &err) == FORAY_OK);
  }
  for (int k = 0; k < 3; k++) {
    const char *path = foray_test_model(real[k]);
    if (!path) continue;
    s[n] = (struct side){.name = real[k]};
    CU_ASSERT_FATAL(foray_model_open(path, &s[n++].m, &err) == FORAY_OK);
  }
  return n;
}
static void close_sides(struct side *s, int n) {
  for (int i = 0; i < n; i++) {
    foray_model_close(s[i].m);
    if (s[i].buf.data) foray_buf_deinit(&s[i].buf);
  }
}
static int32_t end_of(const struct foray_tokenizer *t) { return foray_tokenizer_eos(t); }

struct lists {
  struct foray_sparse v[LEN];
  int32_t row[LEN][CAP];
  float p[LEN][CAP];
};
static struct lists *lists(void) {
  struct lists *l = calloc(1, sizeof *l);
  for (int i = 0; i < LEN; i++) l->v[i] = (struct foray_sparse){0, l->row[i], l->p[i]};
  return l;
}
static uint32_t word(uint32_t i, uint32_t k) { return foray_philox4x32(21, i, k, 0, 0).v[0]; }

/* Candidates: the token that comes, with the given mass, and random others with mass that falls; 5 % are
 * missing. */
static void fill(struct lists *l, const struct foray_tokenizer *t, const struct foray_cut *c, float own) {
  uint32_t V = foray_tokenizer_n_vocab(t);
  for (int i = 0; i < c->n; i++) {
    struct foray_sparse *s = &l->v[i];
    float left = own < 1 ? 0.95f - own : 0;
    s->n = 0;
    s->row[0] = c->ids[i], s->p[s->n++] = own;
    for (uint32_t k = 1; own < 1 && s->n < 40; k++) {
      int32_t id = (int32_t)(word((uint32_t)i, k) % V);
      bool twice = false;
      for (int q = 0; q < s->n; q++) twice = twice || s->row[q] == id;
      if (twice) continue;
      s->row[s->n] = id;
      s->p[s->n++] = left * 0.2f;
      left *= 0.8f;
    }
  }
}

TEST(tokens_spell_the_text_in_twenty_scripts) {
  struct side s[5];
  struct foray_err err = {0};
  int n = sides(s);
  CU_ASSERT(TEXTS >= 20);
  for (int k = 0; k < n; k++)
    for (int i = 0; i < TEXTS; i++) {
      struct foray_cut c;
      enum foray_status st =
          foray_cut_text(s[k].m->tokenizer, TEXT[i], strlen(TEXT[i]), end_of(s[k].m->tokenizer), &c, &err);
      if (st) printf("%s, text %d: %s\n", s[k].name, i, err.msg);
      CU_ASSERT_FATAL(st == FORAY_OK);
      CU_ASSERT(c.start[0] == 0 && c.start[c.n] == strlen(TEXT[i]) && c.start[c.n - 1] == c.start[c.n]);
      foray_cut_deinit(&c);
    }
  close_sides(s, n);
}

/* Mass: all that is put in comes out, ids are distinct, order falls. Certainty: a teacher that is sure of the
 * text makes the student sure of the text, wherever it is heard. */
TEST(every_pair_conserves_mass_and_certainty) {
  struct side s[5];
  struct foray_err err = {0};
  struct lists *t = lists(), *o = lists();
  int n = sides(s);
  if (n < 5) foray_test_skip("pairs of real tokenizers: not all models are on this machine");
  for (int a = 0; a < n; a++)
    for (int b = 0; b < n; b++) {
      struct foray_align *al;
      struct foray_align_stats sure = {0}, st = {0};
      const struct foray_tokenizer *ta = s[a].m->tokenizer, *tb = s[b].m->tokenizer;
      CU_ASSERT_FATAL(foray_align_open(ta, tb, &al, &err) == FORAY_OK);
      CU_ASSERT(foray_align_is_identity(al) == (a == b));
      for (int i = 0; i < TEXTS; i++) {
        struct foray_cut ca, cb;
        size_t len = strlen(TEXT[i]);
        CU_ASSERT_FATAL(foray_cut_text(ta, TEXT[i], len, end_of(ta), &ca, &err) == FORAY_OK);
        CU_ASSERT_FATAL(foray_cut_text(tb, TEXT[i], len, end_of(tb), &cb, &err) == FORAY_OK);
        CU_ASSERT_FATAL(ca.n <= LEN && cb.n <= LEN);
        fill(t, ta, &ca, 1);
        CU_ASSERT_FATAL(foray_align_project(al, TEXT[i], &ca, t->v, &cb, CAP, o->v, &sure, &err) == FORAY_OK);
        int wrong = 0;
        for (int j = 0; j < cb.n; j++)
          wrong += o->v[j].n != 1 || o->row[j][0] != cb.ids[j] || fabsf(o->p[j][0] - 1) > 1e-5f;
        if (wrong)
          printf("%s -> %s, text %d: %d of %d positions lost certainty\n", s[a].name, s[b].name, i, wrong,
                 cb.n);
        CU_ASSERT(wrong == 0);
        fill(t, ta, &ca, 0.6f);
        CU_ASSERT_FATAL(foray_align_project(al, TEXT[i], &ca, t->v, &cb, CAP, o->v, &st, &err) == FORAY_OK);
        for (int j = 0; j < cb.n; j++) {
          double sum = 0;
          for (int k = 0; k < o->v[j].n; k++) {
            sum += (double)o->p[j][k];
            CU_ASSERT(o->p[j][k] > 0 && (!k || o->p[j][k] <= o->p[j][k - 1]));
            CU_ASSERT(o->row[j][k] >= 0 && (uint32_t)o->row[j][k] < foray_tokenizer_n_vocab(tb));
            for (int q = 0; q < k; q++) CU_ASSERT(o->row[j][q] != o->row[j][k]);
          }
          CU_ASSERT(sum < 1 + 1e-5);
          CU_ASSERT(o->v[j].n == 0 || sum > 0.2);
        }
        if (a == b)
          for (int j = 0; j < cb.n; j++)
            CU_ASSERT(o->v[j].n == t->v[j].n && !memcmp(o->p[j], t->p[j], (size_t)t->v[j].n * sizeof(float)));
        foray_cut_deinit(&ca), foray_cut_deinit(&cb);
      }
      CU_ASSERT(st.exact + st.inside + st.none == st.positions);
      CU_ASSERT(sure.none == 0);
      CU_ASSERT(a == b || st.mass_out <= st.mass_in * (1 + 1e-9));
      CU_ASSERT(a == b ||
                st.mass_out >= 0.6 * st.mass_in); /* the rest was control tokens, which have no bytes */
      printf("align %-28s -> %-28s exact %.4f, inside %.4f of %llu positions\n", s[a].name, s[b].name,
             (double)st.exact / (double)st.positions, (double)st.inside / (double)st.positions,
             (unsigned long long)st.positions);
      foray_align_close(al);
    }
  close_sides(s, n);
  free(t), free(o);
}

/* Worked example: teacher bytes, student merges. Chain rule over "th"+"e" and conditioning inside "the". */
TEST(chain_rule_and_condition_by_hand) {
  struct side s[5];
  struct foray_err err = {0};
  int n = sides(s);
  const struct foray_tokenizer *t = s[0].m->tokenizer;
  struct lists *l = lists(), *o = lists();
  struct foray_align *al;
  int32_t th = foray_tokenizer_find(t, "th", 2), the = foray_tokenizer_find(t, "the", 3),
          e = foray_tokenizer_find(t, "e", 1), x = foray_tokenizer_find(t, "x", 1),
          a = foray_tokenizer_find(t, "a", 1);
  CU_ASSERT_FATAL(th > 0 && the > 0 && e > 0 && x > 0 && a > 0);
  CU_ASSERT_FATAL(foray_align_open(t, t, &al, &err) == FORAY_OK);
  /* both sides of one tokenizer, cut differently by hand */
  int32_t fine[] = {th, e}, coarse[] = {the};
  uint32_t fine_at[] = {0, 2, 3}, coarse_at[] = {0, 3};
  struct foray_cut f = {2, fine, fine_at}, c = {1, coarse, coarse_at};
  l->v[0].n = 2, l->row[0][0] = th, l->p[0][0] = 0.5f, l->row[0][1] = x, l->p[0][1] = 0.25f;
  l->v[1].n = 2, l->row[1][0] = e, l->p[1][0] = 0.8f, l->row[1][1] = a, l->p[1][1] = 0.1f;
  CU_ASSERT_FATAL(foray_align_project(al, "the", &f, l->v, &c, CAP, o->v, NULL, &err) == FORAY_OK);
  CU_ASSERT(o->v[0].n == 3); /* the .5*.8, x .25, "tha" -> th .5*.1; .25 + .5*.1 stay in the rest */
  CU_ASSERT(o->row[0][0] == the && fabsf(o->p[0][0] - 0.4f) < 1e-6f);
  CU_ASSERT(o->row[0][1] == x && fabsf(o->p[0][1] - 0.25f) < 1e-6f);
  CU_ASSERT(o->row[0][2] == th && fabsf(o->p[0][2] - 0.05f) < 1e-6f);
  l->v[0].n = 3, l->row[0][0] = the, l->p[0][0] = 0.3f, l->row[0][1] = th, l->p[0][1] = 0.2f,
  l->row[0][2] = x, l->p[0][2] = 0.5f;
  CU_ASSERT_FATAL(foray_align_project(al, "the", &c, l->v, &f, CAP, o->v, NULL, &err) == FORAY_OK);
  CU_ASSERT(o->v[0].n == 2 && fabsf(o->p[0][0] - 0.5f) < 1e-6f && fabsf(o->p[0][1] - 0.5f) < 1e-6f);
  CU_ASSERT(o->v[1].n == 1 && o->row[1][0] == e &&
            fabsf(o->p[1][0] - 1) < 1e-6f); /* only "the" goes on behind "th" */
  foray_align_close(al);
  close_sides(s, n);
  free(l), free(o);
}
