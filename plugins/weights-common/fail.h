/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-common/fail.h - how plugins that read models fill a pb_err.
 */
#ifndef FAIL_H
#define FAIL_H
#include <patchbay/base.h>

#include <stdarg.h>
#include <stdio.h>

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static inline int
fail(pb_err *err, int code, const char *fmt, ...)
{
    va_list ap;
    err->code = code;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    return code;
}
#endif
