/* Test bench of every kernel, for C simulation and cosimulation: reads one recorded call (`make hls-vectors`:
 * made by the reference device), repeats it, and compares heap, scratchpad and status word by word. Exit
 * status 0: alike. FORAY_TB_<kernel> selects the kernel, FORAY_TB_ALL (native builds) all of them. */
#include "include/hls_program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  MAGIC = 0x31564846, /* "FHV1" */
  NAME = 16,
  ARGS = 16,
  DEPTH = 131072 /* words of a memory: `depth` of the ports in include/hls.h */
};

#ifndef FORAY_TB_VECTOR /* for tools that give the bench no arguments */
#define FORAY_TB_VECTOR ""
#endif

#ifdef FORAY_HLS_NATIVE
int foray_hls_expired(void) { return 0; }
void foray_hls_begin(int pass) { (void)pass; }
void foray_hls_end(int pass, uint32_t desc, uint32_t op, uint32_t segment, uint32_t exit, uint32_t columns,
                   uint32_t position) {
  (void)pass, (void)desc, (void)op, (void)segment, (void)exit, (void)columns, (void)position;
}
void foray_hls_token(uint32_t segment, const struct foray_rec_ring *r) { (void)segment, (void)r; }
#endif

static foray_word heap[DEPTH], scratch[DEPTH], want_heap[DEPTH], want_scratch[DEPTH];
static uint32_t desc[FORAY_ABI_DESC_WORDS], a[ARGS];

static int is(const char *name, const char *kernel) { return !strcmp(name, kernel); }

/* 1: this bench was built without that kernel. */
static int call(const char *name, uint64_t *status) {
  (void)status;
#if defined(FORAY_TB_gemv_q4) || defined(FORAY_TB_ALL)
  if (is(name, "gemv_q4")) return foray_hls_gemv_q4(heap, scratch, desc, a[0], a[1]), 0;
#endif
#if defined(FORAY_TB_gemv_q8) || defined(FORAY_TB_ALL)
  if (is(name, "gemv_q8")) return foray_hls_gemv_q8(heap, scratch, desc, a[0], a[1]), 0;
#endif
#if defined(FORAY_TB_attention) || defined(FORAY_TB_ALL)
  if (is(name, "attention")) return foray_hls_attention(heap, scratch, desc, a[0], a[1], a[2], a[3], a[4]), 0;
#endif
#if defined(FORAY_TB_kv_put) || defined(FORAY_TB_ALL)
  if (is(name, "kv_put")) return foray_hls_kv_put(heap, scratch, desc, a[0], a[1], a[2], a[3], a[4]), 0;
#endif
#if defined(FORAY_TB_rmsnorm) || defined(FORAY_TB_ALL)
  if (is(name, "rmsnorm")) return foray_hls_rmsnorm(heap, scratch, desc, a[0], a[1]), 0;
#endif
#if defined(FORAY_TB_rope) || defined(FORAY_TB_ALL)
  if (is(name, "rope")) return foray_hls_rope(heap, scratch, desc, a[0], a[1], a[2]), 0;
#endif
#if defined(FORAY_TB_silu_mul) || defined(FORAY_TB_ALL)
  if (is(name, "silu_mul")) return foray_hls_silu_mul(scratch, desc, a[0], a[1]), 0;
#endif
#if defined(FORAY_TB_quant) || defined(FORAY_TB_ALL)
  if (is(name, "quant")) return foray_hls_quant(scratch, desc, a[0], a[1]), 0;
#endif
#if defined(FORAY_TB_add) || defined(FORAY_TB_ALL)
  if (is(name, "add")) return foray_hls_add(scratch, desc, a[0], a[1]), 0;
#endif
#if defined(FORAY_TB_embed) || defined(FORAY_TB_ALL)
  if (is(name, "embed")) return foray_hls_embed(heap, scratch, desc, a[0], a[1], a + 2), 0;
#endif
#if defined(FORAY_TB_exit_head) || defined(FORAY_TB_ALL)
  if (is(name, "exit_head"))
    return foray_hls_exit_head(heap, scratch, desc, a[0], a[1], a[2], a[3] | (uint64_t)a[4] << 32, a[5],
                               a[6]),
           0;
#endif
#if defined(FORAY_TB_sample) || defined(FORAY_TB_ALL)
  if (is(name, "sample"))
    return foray_hls_sample(heap, a[0], a[1], a[2], a[3], a[4] | (uint64_t)a[5] << 32, a[6], a[7]), 0;
#endif
#if defined(FORAY_TB_top) || defined(FORAY_TB_ALL)
  if (is(name, "top")) return foray_top(heap, a[0], a[1], status), 0;
#endif
  return 1;
}

static int get(FILE *f, void *to, size_t size, size_t n) { return fread(to, size, n, f) == n; }

static int differ(const char *what, const foray_word *got, const foray_word *want, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (got[i] != want[i]) {
      printf("%s word %u: %016llx, the reference has %016llx\n", what, (unsigned)i,
             (unsigned long long)got[i], (unsigned long long)want[i]);
      return 1;
    }
  return 0;
}

int main(int argc, char **argv) {
  char name[NAME + 1] = {0};
  uint32_t head[3];
  uint64_t status = 0;
  const char *path = argc > 1 ? argv[1] : FORAY_TB_VECTOR;
  FILE *f = fopen(path, "rb");
  if (!f) return fprintf(stderr, "tb: '%s' cannot be opened; usage: tb VECTOR\n", path), 2;
  int good = get(f, head, 4, 3) && head[0] == MAGIC && head[1] <= DEPTH && head[2] <= DEPTH &&
             get(f, name, 1, NAME) && get(f, a, 4, ARGS) && get(f, desc, 4, FORAY_ABI_DESC_WORDS) &&
             get(f, heap, 8, head[1]) && get(f, scratch, 8, head[2]) && get(f, want_heap, 8, head[1]) &&
             get(f, want_scratch, 8, head[2]);
  fclose(f);
  if (!good) return fprintf(stderr, "tb: %s is no vector, or is cut off\n", path), 2;
  if (call(name, &status)) return fprintf(stderr, "tb: built without kernel '%s'\n", name), 2;
  int bad = differ("heap", heap, want_heap, head[1]) | differ("scratchpad", scratch, want_scratch, head[2]);
  if (is(name, "top") && status != (a[2] | (uint64_t)a[3] << 32)) {
    printf("status %016llx, the reference has %08x%08x\n", (unsigned long long)status, (unsigned)a[3],
           (unsigned)a[2]);
    bad = 1;
  }
  printf("%s: %s\n", name, bad ? "DIFFERENT" : "equal to the reference");
  return bad;
}
