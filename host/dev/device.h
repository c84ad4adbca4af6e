/* dev/device.h - one interface, N devices. Each gives the same bits for the same program (docs/numerics.md).
 *
 *   struct foray_dev *d;
 *   if (foray_dev_open("cpu", &(struct foray_dev_opts){.heap_bytes = 1u << 30}, &d, &err)) return err.code;
 *   foray_dev_alloc(d, n, &addr, &err);             // byte address in the device's heap, 64-byte aligned
 *   foray_dev_upload(d, addr, data, n, &err);
 *   foray_rec_run_pack(&run, w);                    // gen/foray_abi.h: arguments of a doorbell
 *   foray_dev_upload(d, run_addr, w, sizeof w, &err);
 *   foray_dev_run(d, run_addr, 0, &res, &err);      // res.error: FORAY_DEVERR_*
 *   foray_dev_ring(d, &run, res.drafted, entries, &err);
 *   foray_dev_close(d);
 *
 * Descriptors and run blocks name heap places in units of 64 bytes: FORAY_DEV_UNITS(addr). Address 0 is null;
 * alloc never returns it.
 *
 * Thread rule: a device belongs to one caller at a time; several devices may be used at once. */
#ifndef FORAY_DEV_DEVICE_H
#define FORAY_DEV_DEVICE_H

#include "dev/trace.h"
#include "gen/foray_abi.h"
#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct foray_dev; /* opaque; owned by whoever opened it */

struct foray_dev_opts {
  const _Atomic bool *stop; /* ends a run at the next segment border, with DEADLINE, while it is set (ref,
                               cpu); other devices ignore it; NULL: none */
  uint64_t heap_bytes;      /* 0: the device's own size, or 64 MiB where it has none */
  int threads;              /* 0: as many as processors; devices without threads ignore it */
  void *heap; /* heap_bytes of the caller's memory, 64-byte aligned, to work in until close (ref, cpu);
                 NULL: the device's own. FORAY_E_UNSUPPORTED for devices with other memory */
};

struct foray_dev_info {
  char name[32];       /* what open takes: "ref", "cpu:avx512" */
  char about[96];      /* one line for people */
  uint64_t abi_hash;   /* open refuses another one than FORAY_ABI_HASH */
  uint64_t heap_bytes; /* multiple of 64 */
  uint32_t scratch_units;
  uint32_t cols_max; /* 1..FORAY_ABI_COLS_MAX */
  bool ns_busy;      /* counter BUSY is nanoseconds, else cycles */
};

struct foray_dev_result {
  uint32_t error;      /* FORAY_DEVERR_*; NONE = completed */
  uint32_t error_desc; /* index of the descriptor */
  uint32_t drafted;    /* ring entries written */
  uint32_t len;        /* positions in the context */
  uint32_t stop;       /* FORAY_STOP_* */
  uint32_t dumped;     /* positions whose logits were dumped */
};

#define FORAY_DEV_UNITS(addr) ((uint32_t)((addr) / FORAY_ABI_UNIT))

/* Calls fn for each device that this machine has, plugins included (present or not: `why` is NULL, or why it
 * cannot be opened). */
void foray_dev_list(void (*fn)(void *arg, const struct foray_dev_info *info, const char *why), void *arg);

/* spec = name[:detail], e.g. "ref", "cpu", "cpu:avx2"; other names are plugins (dev/plugin.h).
 * FORAY_E_NOTFOUND for an unknown name (the text lists what there is), FORAY_E_UNSUPPORTED where this machine
 * lacks it, FORAY_E_MISMATCH for another ABI. opts may be NULL. */
enum foray_status foray_dev_open(const char *spec, const struct foray_dev_opts *opts, struct foray_dev **out,
                                 struct foray_err *err) FORAY_NODISCARD;
void foray_dev_close(struct foray_dev *d); /* NULL is allowed */
const struct foray_dev_info *foray_dev_info(const struct foray_dev *d);

/* Heap memory. Returned blocks are 64-byte aligned; sizes are rounded up to 64. FORAY_E_LIMIT when the heap
 * has no room. Contents are undefined. free of 0 does nothing. */
enum foray_status foray_dev_alloc(struct foray_dev *d, uint64_t bytes, uint64_t *addr,
                                  struct foray_err *err) FORAY_NODISCARD;
void foray_dev_free(struct foray_dev *d, uint64_t addr);

/* Copies; FORAY_E_ARG outside the heap. */
enum foray_status foray_dev_upload(struct foray_dev *d, uint64_t addr, const void *src, uint64_t bytes,
                                   struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_dev_download(struct foray_dev *d, uint64_t addr, void *dst, uint64_t bytes,
                                     struct foray_err *err) FORAY_NODISCARD;

/* Rings the doorbell and waits. run_addr: a RUN record in the heap. deadline_ms: 0 = none; a device looks at
 * it between segments. A program's failure is FORAY_E_DEVICE with res->error set and the text naming code,
 * descriptor and op; a passed deadline is FORAY_E_TIMEOUT (the context then is consistent, with fewer
 * positions). */
enum foray_status foray_dev_run(struct foray_dev *d, uint64_t run_addr, uint32_t deadline_ms,
                                struct foray_dev_result *res, struct foray_err *err) FORAY_NODISCARD;

/* Reads the first n entries that the run with these arguments has written. */
enum foray_status foray_dev_ring(struct foray_dev *d, const struct foray_rec_run *run, uint32_t n,
                                 struct foray_rec_ring *out, struct foray_err *err) FORAY_NODISCARD;

/* All counters since open, FORAY_COUNTER_COUNT of them. */
void foray_dev_counters(struct foray_dev *d, uint64_t out[FORAY_COUNTER_COUNT]);

/* Has each run from now on watched (dev/trace.h); NULL ends it. *t is copied. FORAY_E_UNSUPPORTED where the
 * device cannot tell. A device that is not watched spends nothing on it. */
enum foray_status foray_dev_trace(struct foray_dev *d, const struct foray_dev_trace *t,
                                  struct foray_err *err) FORAY_NODISCARD;

/* Memory of a context: addresses in bytes. */
struct foray_dev_context {
  uint32_t max_pos;
  uint64_t kv_addr, kv_bytes; /* foray_dev_kv_bytes of all layers */
  uint64_t resid_addr;        /* resid_slots * foray_dev_y32_bytes(width) */
  uint32_t resid_slots;
  uint64_t keep_addr; /* keep_slots * foray_dev_a16_bytes(width); 0 for programs without KEEP and PREV */
  uint32_t keep_slots;
};
/* Writes a fresh context: nothing fed yet. */
enum foray_status foray_dev_state_reset(struct foray_dev *d, uint64_t state_addr,
                                        const struct foray_dev_context *c,
                                        struct foray_err *err) FORAY_NODISCARD;

/* ---- layout arithmetic (docs/numerics.md 4; multiples of 64 bytes) ---- */

static inline uint64_t foray_dev_up(uint64_t v, uint64_t a) { return (v + a - 1) / a * a; }
/* One column of a vector of n elements. A16: header unit, n x i16, n / 32 x u8. Y32 and R32: header unit, n x
 * i32. */
static inline uint64_t foray_dev_a16_bytes(uint32_t n) {
  return 64 + foray_dev_up(2 * (uint64_t)n, 64) + foray_dev_up(n / FORAY_ABI_GROUP, 64);
}
static inline uint64_t foray_dev_y32_bytes(uint32_t n) { return 64 + foray_dev_up(4 * (uint64_t)n, 64); }
/* KV record of one kv head and position: scales, K codes, V codes. */
static inline uint32_t foray_dev_kv_record(uint32_t head_dim) {
  return (uint32_t)foray_dev_up(head_dim / 8, 16) + 2 * head_dim;
}
/* KV memory of one layer: for each kv head the records of positions 0 .. max_pos - 1. */
static inline uint64_t foray_dev_kv_bytes(uint32_t head_dim, uint32_t kv_heads, uint32_t max_pos) {
  return foray_dev_up((uint64_t)foray_dev_kv_record(head_dim) * kv_heads * max_pos, 64);
}
/* Matrix in the heap: row mantissas (u16), bias (i32, optional), row blocks; each part starts on a unit. */
struct foray_dev_matrix {
  uint64_t bias_at, data_at, bytes, block_bytes;
  uint32_t rows_pad, groups;
};
static inline bool foray_dev_matrix_of(uint32_t qtype, uint32_t rows, uint32_t cols, bool bias,
                                       struct foray_dev_matrix *m) {
  if (rows == 0 || rows > FORAY_ABI_ROWS_LIMIT || cols == 0 || cols > FORAY_ABI_COLUMNS_LIMIT ||
      cols % FORAY_ABI_GROUP)
    return false;
  if (qtype != FORAY_QTYPE_Q4A && qtype != FORAY_QTYPE_Q8S) return false;
  m->rows_pad = (rows + 15) & ~15u;
  m->groups = cols / FORAY_ABI_GROUP;
  m->bias_at = foray_dev_up(2 * (uint64_t)m->rows_pad, 64);
  m->data_at = m->bias_at + (bias ? 4 * (uint64_t)m->rows_pad : 0);
  m->block_bytes = qtype == FORAY_QTYPE_Q4A
                       ? 64 * (uint64_t)((m->groups + 1) / 2) + 256 * (uint64_t)m->groups
                       : 64 * (uint64_t)((m->groups + 3) / 4) + 512 * (uint64_t)m->groups;
  m->bytes = m->data_at + m->block_bytes * (m->rows_pad / 16);
  return true;
}
/* floor(sqrt(n) * 2^16), for RMSNORM.root_n. */
uint32_t foray_dev_root_n(uint32_t n);
/* log2(e) / sqrt(head_dim) = scale * 2^exp for ATTN, scale in [2^23, 2^24); integer, so every host has the
 * same. */
void foray_dev_attn_scale(uint32_t head_dim, uint32_t *scale, int32_t *exp);

#endif
