/* SPDX-License-Identifier: MIT
 * core/error.c - error messages, kinds and exit statuses. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int pbi_err(pb_err *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
        err->code = code;
    }
    return code;
}

int pbi_err_prefix(pb_err *err, const char *fmt, ...)
{
    if (!err)
        return PB_E_INTERNAL;
    char old[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    old[sizeof old - 1] = 0;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->msg)
        snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %.*s",
                 (int)(sizeof err->msg - (size_t)n), old);
    return err->code;
}

const char *pbi_err_kind(int code)
{
    switch (code) {
    case PB_E_INVAL: return "user mistake";
    case PB_E_NOMEM: return "out of memory";
    case PB_E_IO: return "system";
    case PB_E_FORMAT: return "broken file";
    case PB_E_UNSUPPORTED: return "unsupported";
    case PB_E_FULL: return "full";
    case PB_E_PLUGIN: return "plugin bug";
    case PB_E_LOST: return "engine lost";
    case PB_E_NUMERIC: return "numeric fault";
    default: return "core bug";
    }
}

int pbi_err_exit(int code)
{
    switch (code) {
    case PB_OK: return 0;
    case PB_E_INVAL:
    case PB_E_UNSUPPORTED: return 2;
    case PB_E_FORMAT: return 3;
    case PB_E_PLUGIN:
    case PB_E_NUMERIC: return 4;
    case PB_E_NOMEM:
    case PB_E_IO:
    case PB_E_FULL:
    case PB_E_LOST: return 6;
    default: return 5;
    }
}
