/* Collecting: parts of the program get names, events are added to them. */
#include "prof/prof_impl.h"

#include "core/err.h"

#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

static const char *nth(const char *const *names, int n, int i, const char *other) {
  return i < n ? names[i] : other;
}

/* Where the walk over the program is. */
struct walk {
  int layer, exit, adds, gemvs, norms, ropes, final;
};

static const char *body_name(struct walk *w, uint32_t op) {
  static const char *const gemv[] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                     "ffn_gate", "ffn_up", "ffn_down"};
  static const char *const norm[] = {"attn_norm", "ffn_norm"}, *const rope[] = {"rope_q", "rope_k"},
                           *const add[] = {"attn_add", "ffn_add"};
  switch (op) {
  case FORAY_OP_EMBED: return "embed";
  case FORAY_OP_RMSNORM:
    if (w->adds >= 2) w->layer++, w->adds = w->gemvs = w->norms = w->ropes = 0; /* a layer adds twice */
    return nth(norm, 2, w->norms++, "norm");
  case FORAY_OP_GEMV: return nth(gemv, 7, w->gemvs++, "gemv");
  case FORAY_OP_ROPE: return nth(rope, 2, w->ropes++, "rope");
  case FORAY_OP_ADD: return nth(add, 2, w->adds++, "add");
  case FORAY_OP_KV_PUT: return "kv_put";
  case FORAY_OP_ATTN: return "attn";
  case FORAY_OP_SILU_MUL: return "ffn_act";
  case FORAY_OP_QUANT: return "quant";
  default: return foray_op_name(op);
  }
}

static const char *exit_name(const struct walk *w, uint32_t op) {
  switch (op) {
  case FORAY_OP_RMSNORM: return w->final ? "output_norm" : "exit_norm";
  case FORAY_OP_GEMV: return "exit_map";
  case FORAY_OP_QUANT: return "exit_quant";
  case FORAY_OP_HEAD: return w->final ? "head" : "exit_head";
  case FORAY_OP_KEEP: return "exit_keep";
  case FORAY_OP_PREV: return "exit_prev";
  case FORAY_OP_ADD: return "exit_add";
  default: return foray_op_name(op);
  }
}

/* Multiplications and bytes, as the device contract counts them (host/dev/program.c). */
static void set_work(const uint32_t *d, struct prof_part *p) {
  union {
    struct foray_desc_gemv gemv;
    struct foray_desc_head head;
    struct foray_desc_attn attn;
    struct foray_desc_kv_put put;
    struct foray_desc_embed embed;
    struct foray_desc_rmsnorm norm;
    struct foray_desc_rope rope;
  } u;
  struct foray_dev_matrix m;
  p->bytes_call[PROF_REST] = FORAY_ABI_UNIT; /* the descriptor */
  switch (p->op) {
  case FORAY_OP_GEMV:
    foray_desc_gemv_unpack(d, &u.gemv);
    p->macs_column = (uint64_t)u.gemv.rows * u.gemv.cols;
    if (foray_dev_matrix_of(u.gemv.qtype, u.gemv.rows, u.gemv.cols, false, &m))
      p->bytes_call[PROF_WEIGHTS] = m.bytes;
    if (u.gemv.flags & FORAY_DF_BIAS) p->bytes_call[PROF_VECTORS] = 4 * (uint64_t)((u.gemv.rows + 15) & ~15u);
    break;
  case FORAY_OP_HEAD:
    foray_desc_head_unpack(d, &u.head);
    p->macs_column = (uint64_t)u.head.used * u.head.cols;
    if (foray_dev_matrix_of(u.head.qtype, u.head.rows, u.head.cols, false, &m))
      p->bytes_call[PROF_WEIGHTS] = (u.head.used + 15) / 16 * (m.block_bytes + 32);
    if (u.head.ids) p->bytes_call[PROF_VECTORS] = 4 * (uint64_t)u.head.used;
    break;
  case FORAY_OP_ATTN:
    foray_desc_attn_unpack(d, &u.attn);
    p->macs_position = 2 * (uint64_t)u.attn.heads * u.attn.head_dim;
    p->kv_position = (uint64_t)foray_dev_kv_record(u.attn.head_dim) * u.attn.kv_heads;
    break;
  case FORAY_OP_KV_PUT:
    foray_desc_kv_put_unpack(d, &u.put);
    p->bytes_column[PROF_KV] = (uint64_t)foray_dev_kv_record(u.put.head_dim) * u.put.heads;
    break;
  case FORAY_OP_EMBED:
    foray_desc_embed_unpack(d, &u.embed);
    p->bytes_column[PROF_VECTORS] = u.embed.cols + u.embed.cols / 32 + 2;
    break;
  case FORAY_OP_RMSNORM:
    foray_desc_rmsnorm_unpack(d, &u.norm);
    p->bytes_call[PROF_VECTORS] = 4 * (uint64_t)u.norm.n;
    break;
  case FORAY_OP_ROPE:
    foray_desc_rope_unpack(d, &u.rope);
    p->bytes_call[PROF_VECTORS] = 4 * (uint64_t)u.rope.head_dim;
    break;
  default: break;
  }
}

static void name_part(const uint32_t *d, struct walk *w, struct prof_part *p) {
  uint32_t op = d[0] & 0xff;
  p->op = (uint8_t)op;
  if (op == FORAY_OP_TEST) {
    struct foray_desc_test t;
    foray_desc_test_unpack(d, &t);
    w->exit = (int)t.index;
    w->final = (t.flags & FORAY_DF_FINAL) != 0;
  }
  const char *name = w->exit >= 0 ? exit_name(w, op) : body_name(w, op);
  (void)snprintf(p->name, sizeof p->name, "%s", name);
  p->layer = (int16_t)(w->exit >= 0 ? -1 : op == FORAY_OP_EMBED ? -1 : w->layer);
  p->exit = (int16_t)w->exit;
  if (op == FORAY_OP_EXIT) w->exit = -1;
  set_work(d, p);
}

enum foray_status foray_prof_open(const uint32_t (*desc)[FORAY_ABI_DESC_WORDS], uint32_t n_desc, bool ns,
                                  struct foray_prof **out, struct foray_err *err) {
  *out = NULL;
  struct foray_prof *p = calloc(1, sizeof *p);
  if (p) p->part = calloc(n_desc ? n_desc : 1, sizeof *p->part);
  if (p) p->sum = calloc(n_desc ? n_desc : 1, sizeof *p->sum);
  if (!p || !p->part || !p->sum) {
    foray_prof_close(p);
    return foray_err_set(err, FORAY_E_NOMEM, "profile of %u descriptors: out of memory", n_desc);
  }
  p->n = n_desc;
  p->ns = ns;
  struct walk w = {.layer = -1, .exit = -1, .adds = 2};
  for (uint32_t i = 0; i < n_desc; i++) name_part(desc[i], &w, &p->part[i]);
  *out = p;
  return FORAY_OK;
}

void foray_prof_close(struct foray_prof *p) {
  if (!p) return;
  free(p->part);
  free(p->sum);
  free(p->events);
  free(p);
}

const char *foray_prof_name(const struct foray_prof *p, uint32_t desc, int *layer, int *exit) {
  *layer = *exit = -1;
  if (desc >= p->n) return "";
  *layer = p->part[desc].layer;
  *exit = p->part[desc].exit;
  return p->part[desc].name;
}

const char *prof_engine_name(int engine) {
  static const char *const names[FORAY_ENGINE_COUNT] = {"memory", "matrix", "attention",
                                                        "vector", "exit",   "control"};
  return engine >= 0 && engine < FORAY_ENGINE_COUNT ? names[engine] : "?";
}

/* ---- events ---- */

/* What an event's counters say; for an op whose device leaves them 0, what the op has to move. */
static void bytes_of(const struct foray_prof *p, const struct foray_trace_event *e, uint64_t to[PROF_BYTES]) {
  const uint64_t *c = e->counter;
  to[PROF_WEIGHTS] = c[FORAY_COUNTER_WEIGHT_BYTES];
  to[PROF_KV] = c[FORAY_COUNTER_KV_READ_BYTES] + c[FORAY_COUNTER_KV_WRITE_BYTES];
  to[PROF_VECTORS] = c[FORAY_COUNTER_VECTOR_BYTES] + c[FORAY_COUNTER_EMBED_BYTES];
  to[PROF_REST] = c[FORAY_COUNTER_RESID_BYTES] + c[FORAY_COUNTER_DESC_BYTES];
  if (e->kind != FORAY_TRACE_OP || e->desc >= p->n || c[FORAY_COUNTER_OPS]) return;
  const struct prof_part *part = &p->part[e->desc];
  for (int k = 0; k < PROF_BYTES; k++) to[k] = part->bytes_call[k] + part->bytes_column[k] * e->columns;
  to[PROF_KV] += part->kv_position * ((uint64_t)e->position + e->columns);
}

static void keep(struct foray_prof *p, const struct foray_trace_event *e) {
  if (p->n_events == p->cap_events) {
    size_t cap = p->cap_events ? 2 * p->cap_events : 4096;
    struct prof_event *more =
        p->n_events < FORAY_PROF_EVENTS_MAX ? realloc(p->events, cap * sizeof *more) : NULL;
    if (!more) {
      p->lost++;
      return;
    }
    p->events = more;
    p->cap_events = cap;
  }
  struct prof_event *to = &p->events[p->n_events++];
  *to = (struct prof_event){
      .begin = e->begin,
      .end = e->end,
      .desc = e->desc,
      .position = e->position,
      .token = e->ring ? e->ring->token : 0,
      .top_prob = e->ring ? e->ring->top_prob : 0,
      .exit = e->exit == UINT32_MAX ? -1 : (int32_t)e->exit,
      .kind = (uint8_t)e->kind,
      .engine = (uint8_t)e->engine,
      .columns = (uint8_t)(e->columns > 255 ? 255 : e->columns),
      .segment = (uint8_t)e->segment,
  };
  bytes_of(p, e, to->bytes);
}

static uint64_t all_bytes(const struct foray_prof *p, const struct foray_trace_event *e) {
  uint64_t bytes[PROF_BYTES];
  bytes_of(p, e, bytes);
  return bytes[PROF_WEIGHTS] + bytes[PROF_KV] + bytes[PROF_VECTORS] + bytes[PROF_REST];
}

static void on_op(struct foray_prof *p, const struct foray_trace_event *e) {
  if (e->desc >= p->n) return;
  const struct prof_part *part = &p->part[e->desc];
  struct prof_sum *s = &p->sum[e->desc];
  const struct foray_trace_engine *mine = &e->engines[e->engine < FORAY_ENGINE_COUNT ? e->engine : 0];
  uint64_t positions = 0;
  for (uint32_t c = 0; c < e->columns; c++) positions += (uint64_t)e->position + c + 1;
  uint64_t took = e->end - e->begin;
  if (s->calls == 0 || took < s->fastest) s->fastest = took;
  s->calls++;
  s->columns += e->columns;
  s->time += took;
  s->bytes += all_bytes(p, e);
  s->macs += part->macs_column * e->columns + part->macs_position * positions;
  s->busy += mine->busy, s->starved += mine->starved, s->blocked += mine->blocked;
  s->row_misses += e->row_misses, s->beats += e->beats;
}

/* Hardware that counts its engines' cycles in the registers tells the rise of each counter; that says it all.
 */
static bool engines_of_counters(const struct foray_trace_event *e, struct foray_trace_event *to) {
  static const struct {
    enum foray_engine engine;
    int busy; /* counter; starved and blocked follow */
  } rows[] = {{FORAY_ENGINE_MATRIX, FORAY_COUNTER_MATRIX_BUSY},
              {FORAY_ENGINE_ATTENTION, FORAY_COUNTER_ATTN_BUSY},
              {FORAY_ENGINE_VECTOR, FORAY_COUNTER_VECTOR_BUSY},
              {FORAY_ENGINE_EXIT, FORAY_COUNTER_EXIT_BUSY}};
  const uint64_t *c = e->counter;
  uint64_t any = c[FORAY_COUNTER_CYC_SEQ] | c[FORAY_COUNTER_READ_UNITS];
  for (int i = 0; i < 4; i++) any |= c[rows[i].busy] | c[rows[i].busy + 1] | c[rows[i].busy + 2];
  if (e->has_engines || !any) return false;
  *to = *e;
  to->has_engines = true;
  for (int i = 0; i < 4; i++)
    to->engines[rows[i].engine] =
        (struct foray_trace_engine){c[rows[i].busy], c[rows[i].busy + 1], c[rows[i].busy + 2]};
  to->engines[FORAY_ENGINE_CONTROL].busy = c[FORAY_COUNTER_CYC_SEQ];
  to->beats = c[FORAY_COUNTER_READ_UNITS];
  return true;
}

void foray_prof_event(void *arg, const struct foray_trace_event *e) {
  struct foray_prof *p = arg;
  struct foray_trace_event counted;
  if (engines_of_counters(e, &counted)) e = &counted;
  if (e->has_engines) p->engines = true;
  if (e->port_bytes) p->port_bytes = e->port_bytes;
  switch (e->kind) {
  case FORAY_TRACE_OP: on_op(p, e); break;
  case FORAY_TRACE_TOKEN:
    p->drafted++;
    if (e->exit < FORAY_ABI_TESTS_MAX) p->tokens[e->exit]++;
    break;
  case FORAY_TRACE_RUN:
    p->runs.calls++;
    p->runs.time += e->end - e->begin;
    p->runs.bytes += all_bytes(p, e);
    p->runs.row_misses += e->row_misses, p->runs.beats += e->beats;
    for (int i = 0; i < FORAY_COUNTER_COUNT; i++) p->counter[i] += e->counter[i];
    for (int i = 0; i < FORAY_ENGINE_COUNT; i++) {
      p->engine[i].busy += e->engines[i].busy;
      p->engine[i].starved += e->engines[i].starved;
      p->engine[i].blocked += e->engines[i].blocked;
    }
    break;
  case FORAY_TRACE_PASS:
  case FORAY_TRACE_SPAN: break;
  }
  keep(p, e);
}

void foray_prof_totals(struct foray_prof *p, const uint64_t counter[FORAY_COUNTER_COUNT]) {
  struct foray_trace_event e = {
      .kind = FORAY_TRACE_RUN, .desc = UINT32_MAX, .segment = UINT32_MAX, .exit = UINT32_MAX};
  if (p->runs.calls) return;
  memcpy(e.counter, counter, sizeof e.counter);
  if (p->n_events) e.begin = p->events[0].begin;
  e.end = e.begin + counter[FORAY_COUNTER_BUSY];
  foray_prof_event(p, &e);
  p->runs.calls = counter[FORAY_COUNTER_RUNS];
}
