/* SPDX-License-Identifier: MIT
 * core/error.h - how the core reports errors. Not for plugins. */
#ifndef PBI_ERROR_H
#define PBI_ERROR_H
#include <patchbay/base.h>

#if defined(__GNUC__)
#define PBI_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define PBI_PRINTF(a, b)
#endif

/* Fills err (may be NULL) and returns code, so that `return pbi_err(...)` works. [any] */
int pbi_err(pb_err *err, int code, const char *fmt, ...) PBI_PRINTF(3, 4);
/* Puts "prefix: " before the message in err; returns err->code. [any] */
int pbi_err_prefix(pb_err *err, const char *fmt, ...) PBI_PRINTF(2, 3);
/* "user mistake", "broken file", "plugin bug", ... */
const char *pbi_err_kind(int code);
/* Exit status of the CLI for a PB_E_* code: 2 user, 3 model file, 4 plugin, 5 core, 6
 * system/memory. */
int pbi_err_exit(int code);
#endif
