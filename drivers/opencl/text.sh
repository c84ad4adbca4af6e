#!/usr/bin/env bash
# text.sh FILE...: C files that are also OpenCL C, as one program: types, tables in constant memory, no includes. What
# needs 128-bit integers or is done on the host only is left out (foray_rope_freq_q64 and the digamma function).
set -eu
cat <<'CL'
typedef char int8_t; typedef uchar uint8_t; typedef short int16_t; typedef ushort uint16_t;
typedef int int32_t; typedef uint uint32_t; typedef long int64_t; typedef ulong uint64_t;
#define INT64_C(x) x##L
#define INT32_MAX INT_MAX
#define INT64_MAX LONG_MAX
#define INT64_MIN LONG_MIN
#define __builtin_clzll(x) ((int)clz((ulong)(x)))
CL
sed -e '/^#include/d' -e 's/^static const/__constant const/' -e 's/^static inline/inline/' \
    -e 's/\([0-9]\)LL\b/\1L/g' -e '/^uint64_t foray_rope_freq_q64(.*{$/,/^}/d' -e '/^int32_t foray_digamma_q16(uint32_t x_q16) {/,/^}/d' \
    -e '/^static int32_t quarter_sin/s/^static //' "$@"
