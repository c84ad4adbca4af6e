/* include/hls.h - what all HLS kernels share: the word of the memory ports, limits of a build, pragmas.
 *
 * The kernels are C99 that three compilers take: gcc and clang (device `hls`, tests), Vitis HLS (hls/vitis),
 * and PandA-Bambu (make hls-rtl). So: no streams, no arbitrary-precision types, no recursion, no allocation,
 * no pointer that changes its object, loops with a bound that is a constant or an argument; pragmas only
 * through the macros below, because each tool refuses some of the others' pragmas.
 *
 * Memory is an array of 64-bit little-endian words. Eight words are a beat = one unit of the ABI = what a
 * 512-bit port moves in a cycle; loops over beats move eight words in an unrolled inner loop, which is the
 * form that Vitis HLS widens to 512 bits and bursts.
 *
 * A kernel is load (memory to local buffers), compute, store (local buffers to memory), each a loop of its
 * own that can run at one beat a cycle. */
#ifndef FORAY_HLS_H
#define FORAY_HLS_H

#include "gen/foray_abi.h"
#include <stdint.h>

typedef uint64_t foray_word;
enum { HLS_BEAT = 8 /* words of a unit */ };

/* ---- limits of a build: local memory. The defaults are the ABI's own limits, so that the native build runs
 * whatever `ref` runs; a board's build (hls/vitis/boards) is given smaller ones, and a program that needs
 * more ends with error SHAPE or SCRATCH before anything is executed. ---- */
#ifndef FORAY_HLS_SCRATCH_UNITS
#define FORAY_HLS_SCRATCH_UNITS 131072 /* 8 MiB */
#endif
#ifndef FORAY_HLS_GROUPS /* groups of the input of a matrix product, and of any vector */
#define FORAY_HLS_GROUPS (FORAY_ABI_COLUMNS_LIMIT / FORAY_ABI_GROUP)
#endif
#ifndef FORAY_HLS_ROWS /* elements of the output of a matrix product (HEAD: no limit, logits are not kept)   \
                        */
#define FORAY_HLS_ROWS FORAY_ABI_COLUMNS_LIMIT
#endif
#ifndef FORAY_HLS_COLS /* columns of a pass: 1, 2, 4 or 8 */
#define FORAY_HLS_COLS FORAY_ABI_COLS_MAX
#endif
#ifndef FORAY_HLS_HEADS /* query heads that share a kv head */
#define FORAY_HLS_HEADS FORAY_ABI_HEADS_MAX
#endif
#ifndef FORAY_HLS_PROGRAM /* descriptors of a program */
#define FORAY_HLS_PROGRAM FORAY_ABI_PROGRAM_MAX
#endif

enum {
  HLS_N = FORAY_HLS_GROUPS * FORAY_ABI_GROUP,                             /* elements of a vector */
  HLS_NORM = HLS_N < FORAY_ABI_NORM_LIMIT ? HLS_N : FORAY_ABI_NORM_LIMIT, /* of RMSNORM */
};

/* ---- pragmas. HLS_LOCAL: a buffer too large for a processor's stack becomes storage of the thread.
 * HLS_CHANNEL: one between two processes of a DATAFLOW region, where a tool wants an automatic variable.
 * HLS_CHANNEL: one between two processes of a DATAFLOW region, where a tool wants an automatic variable. ----
 */
#define HLS_STRING(...) #__VA_ARGS__
#if defined(__VITIS_HLS__) || defined(__SYNTHESIS__)
#define HLS_VITIS(...) _Pragma(HLS_STRING(HLS __VA_ARGS__))
#define HLS_BAMBU(...)
#define HLS_LOCAL static
#define HLS_CHANNEL
#define HLS_CHANNEL
#elif defined(__BAMBU__)
#define HLS_VITIS(...)
#define HLS_BAMBU(...) _Pragma(HLS_STRING(HLS __VA_ARGS__))
#define HLS_LOCAL      static
#define HLS_CHANNEL
#else
#define HLS_VITIS(...)
#define HLS_BAMBU(...)
#define HLS_LOCAL        static __thread
#define HLS_CHANNEL      static __thread
#define FORAY_HLS_NATIVE 1
#endif

#define HLS_PIPELINE     HLS_VITIS(PIPELINE II = 1)
#define HLS_UNROLL       HLS_VITIS(UNROLL)
#define HLS_DATAFLOW     HLS_VITIS(DATAFLOW)
#define HLS_INLINE_OFF   HLS_VITIS(INLINE off)
#define HLS_SPLIT(v, d)  HLS_VITIS(ARRAY_PARTITION variable = v complete dim = d)
#define HLS_WIDE(v, f)   HLS_VITIS(ARRAY_RESHAPE variable = v cyclic factor = f)
#define HLS_URAM(v)      HLS_VITIS(BIND_STORAGE variable = v type = RAM_2P impl = URAM)
#define HLS_TRIP(lo, hi) HLS_VITIS(LOOP_TRIPCOUNT min = lo max = hi)

/* Ports of a function that is synthesised on its own. Vitis reads interface pragmas inside the top function
 * only and Bambu before it, so each op has both lines; a build names its top by -DFORAY_HLS_TOP_<op>. */
#define HLS_PORT_HEAP                                                                                        \
  HLS_VITIS(INTERFACE m_axi port = heap bundle = gmem offset = slave depth = 131072 latency =                \
                64 max_read_burst_length = 64 num_read_outstanding = 16 max_write_burst_length = 16)
#define HLS_PORT_SCRATCH                                                                                     \
  HLS_VITIS(INTERFACE m_axi port = scratch bundle = gmem1 offset = slave depth = 131072 latency = 64)
#define HLS_PORT_DESC      HLS_VITIS(INTERFACE m_axi port = desc bundle = gmem2 offset = slave depth = 16)
#define HLS_PORT_SCALAR(p) HLS_VITIS(INTERFACE s_axilite port = p bundle = control)
#define HLS_PORT_RETURN    HLS_VITIS(INTERFACE s_axilite port = return bundle = control)
#define HLS_MEMORY(p, b)   HLS_BAMBU(interface port = p mode = m_axi offset = direct bundle = b)

/* ---- natively, who runs the kernels may end a run by the clock, and may watch. No hardware has these. ----
 */
#ifdef FORAY_HLS_NATIVE
int foray_hls_expired(void);
void foray_hls_begin(int pass); /* 0: a descriptor, 1: a pass */
void foray_hls_end(int pass, uint32_t desc, uint32_t op, uint32_t segment, uint32_t exit, uint32_t columns,
                   uint32_t position);
void foray_hls_token(uint32_t segment, const struct foray_rec_ring *r);
#define HLS_EXPIRED()  foray_hls_expired()
#define HLS_BEGIN(p)   foray_hls_begin(p)
#define HLS_END(...)   foray_hls_end(__VA_ARGS__)
#define HLS_TOKEN(...) foray_hls_token(__VA_ARGS__)
#else
#define HLS_EXPIRED()  0
#define HLS_BEGIN(p)   ((void)0)
#define HLS_END(...)   ((void)0)
#define HLS_TOKEN(...) ((void)0)
#endif

#endif
