/* core/checked.h - arithmetic on sizes that come from outside. Each returns false on overflow and
 * then leaves *out alone. */
#ifndef FORAY_CORE_CHECKED_H
#define FORAY_CORE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool foray_mul_size(size_t a, size_t b, size_t *out) {
  size_t r;
  if (__builtin_mul_overflow(a, b, &r)) return false;
  *out = r;
  return true;
}
static inline bool foray_add_size(size_t a, size_t b, size_t *out) {
  size_t r;
  if (__builtin_add_overflow(a, b, &r)) return false;
  *out = r;
  return true;
}
static inline bool foray_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
  uint64_t r;
  if (__builtin_mul_overflow(a, b, &r)) return false;
  *out = r;
  return true;
}
static inline bool foray_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
  uint64_t r;
  if (__builtin_add_overflow(a, b, &r)) return false;
  *out = r;
  return true;
}
/* Rounds v up to a power of two `align`. */
static inline bool foray_align_up_u64(uint64_t v, uint64_t align, uint64_t *out) {
  uint64_t r;
  if (align == 0 || (align & (align - 1)) || __builtin_add_overflow(v, align - 1, &r)) return false;
  *out = r & ~(align - 1);
  return true;
}

#endif
