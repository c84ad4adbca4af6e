/* model/zip.h - takes one member out of a zip archive (a Python wheel) that is not trusted. Not for others.
 */
#ifndef FORAY_MODEL_ZIP_H
#define FORAY_MODEL_ZIP_H

#include <foray/status.h>
#include <stdint.h>
#include <stdio.h>

/* Appends the member whose path is `name` or ends in "/name" (or, with name = "prefix*", the first one whose
 * last component begins with prefix) to `out`: stored or deflated, CRC checked, at
 * most bytes_max. FORAY_E_FORMAT, FORAY_E_NOTFOUND, FORAY_E_UNSUPPORTED (zip64, encryption, other methods),
 * FORAY_E_LIMIT, FORAY_E_IO. */
enum foray_status foray_zip_extract(const char *path, const char *name, uint64_t bytes_max, FILE *out,
                                    struct foray_err *err) FORAY_NODISCARD;
/* The same on an archive in memory; label stands for the path in errors. */
enum foray_status foray_zip_extract_memory(const uint8_t *zip, size_t size, const char *label,
                                           const char *name, uint64_t bytes_max, FILE *out,
                                           struct foray_err *err) FORAY_NODISCARD;

#endif
