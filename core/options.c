/* SPDX-License-Identifier: MIT
 *
 * core/options.c - option tables: text to config struct and back.
 *
 * It knows no INI and no plugin. Invariant: a value that pbi_option_set stored is of the
 * option's type and inside its bounds, and pbi_option_format writes text that
 * pbi_option_set reads back to the same value. Test: tests/unit/test_options.c.
 */
#define _GNU_SOURCE 1
#include "options.h"
#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const pb_option *pbi_option_find(const pb_option *table, size_t stride, const char *name)
{
    if (!table)
        return NULL;
    for (const char *p = (const char *)table;; p += stride) {
        const pb_option *o = (const pb_option *)(const void *)p;
        if (!o->name)
            return NULL;
        if (strcmp(o->name, name) == 0)
            return o;
    }
}

/* ---- numbers ----------------------------------------------------------- */

/* Digits at *s, moved past; PB_E_INVAL without a digit or above limit. */
static int digits(const char **s, uint64_t limit, uint64_t *out)
{
    uint64_t v = 0;
    const char *p = *s;
    if (*p < '0' || *p > '9')
        return PB_E_INVAL;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t d = (uint64_t)(*p - '0');
        if (v > (limit - d) / 10)
            return PB_E_INVAL;
        v = v * 10 + d;
    }
    *s = p;
    *out = v;
    return 0;
}

int pbi_parse_int(const char *s, int64_t *out)
{
    int neg = *s == '-';
    uint64_t v;
    if (*s == '-' || *s == '+')
        s++;
    if (digits(&s, (uint64_t)INT64_MAX, &v) || *s)
        return PB_E_INVAL;
    *out = neg ? -(int64_t)v : (int64_t)v;
    return 0;
}

static const char suffixes[] = "KMGT";

int pbi_parse_bytes(const char *s, int64_t *out)
{
    uint64_t v;
    if (digits(&s, (uint64_t)INT64_MAX, &v))
        return PB_E_INVAL;
    if (*s) {
        char c = *s >= 'a' && *s <= 'z' ? (char)(*s - 'a' + 'A') : *s;
        const char *at = strchr(suffixes, c);
        if (!at || s[1])
            return PB_E_INVAL;
        unsigned shift = 10u * (unsigned)(at - suffixes + 1);
        if (v > (uint64_t)INT64_MAX >> shift)
            return PB_E_INVAL;
        v <<= shift;
    }
    *out = (int64_t)v;
    return 0;
}

/* strtod and printf follow the process's locale, which a plugin's library may have set. */
int pbi_parse_float(const char *s, double *out)
{
    const char *p = *s == '-' || *s == '+' ? s + 1 : s;
    if (!(*p >= '0' && *p <= '9') && *p != '.')
        return PB_E_INVAL; /* no spaces, no "nan", no "inf" */
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X'))
        return PB_E_INVAL;
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0)
        return PB_E_INVAL;
    char *end;
    double v = strtod_l(s, &end, c);
    freelocale(c);
    if (end == s || *end || !isfinite(v))
        return PB_E_INVAL;
    *out = v;
    return 0;
}

static void format_float(double v, char *buf, size_t n)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0), old = (locale_t)0;
    if (c != (locale_t)0)
        old = uselocale(c);
    for (int prec = 6; prec <= 17; prec++) {
        double back;
        snprintf(buf, n, "%.*g", prec, v);
        if (pbi_parse_float(buf, &back) == 0 && back <= v && back >= v)
            break;
    }
    if (c != (locale_t)0) {
        uselocale(old);
        freelocale(c);
    }
}

static void format_bytes(int64_t v, char *buf, size_t n)
{
    int s = 0;
    while (s < 4 && v && v % 1024 == 0) {
        v /= 1024;
        s++;
    }
    if (s)
        snprintf(buf, n, "%" PRId64 "%c", v, suffixes[s - 1]);
    else
        snprintf(buf, n, "%" PRId64, v);
}

/* ---- one option -------------------------------------------------------- */

void pbi_option_range(const pb_option *o, char *buf, size_t n)
{
    buf[0] = 0;
    if (o->type == PB_T_BOOL)
        snprintf(buf, n, "on|off");
    else if (o->type == PB_T_ENUM)
        snprintf(buf, n, "%s", o->choices);
    else if (o->type == PB_T_STR)
        snprintf(buf, n, "text");
    else {
        static const char *const what[] = { [PB_T_INT] = "an integer",
                                            [PB_T_BYTES] = "bytes, as 64K, 16M or 2G",
                                            [PB_T_FLOAT] = "a number" };
        if (o->min && o->max)
            snprintf(buf, n, "%s..%s", o->min, o->max);
        else if (o->min)
            snprintf(buf, n, "at least %s", o->min);
        else if (o->max)
            snprintf(buf, n, "at most %s", o->max);
        else
            snprintf(buf, n, "%s", what[o->type]);
        size_t used = strlen(buf);
        if (o->flags & PB_O_POW2 && used < n)
            snprintf(buf + used, n - used, ", a power of two");
    }
}

static int out_of_range(const pb_option *o, const char *text, pb_err *err)
{
    char range[256];
    pbi_option_range(o, range, sizeof range);
    return pbi_err(err, PB_E_INVAL, "%s = %.100s: allowed is %s%s%s", o->name, text, range,
                   o->unit && o->type != PB_T_BYTES ? " " : "",
                   o->unit && o->type != PB_T_BYTES ? o->unit : "");
}

static int parse_bool(const char *s, int32_t *out)
{
    static const char *const words[] = { "off", "on", "no", "yes", "false", "true", "0", "1" };
    for (int i = 0; i < 8; i++)
        if (strcmp(s, words[i]) == 0) {
            *out = i & 1;
            return 0;
        }
    return PB_E_INVAL;
}

static int parse_enum(const pb_option *o, const char *s, int32_t *out)
{
    const char *p = o->choices;
    size_t len = strlen(s);
    for (int32_t i = 0; len && p && *p; i++) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, s, n) == 0) {
            *out = i;
            return 0;
        }
        p += n + (p[n] == '|');
    }
    return PB_E_INVAL;
}

static int set_int(const pb_option *o, const char *text, int64_t *out)
{
    int (*parse)(const char *, int64_t *) = o->type == PB_T_INT ? pbi_parse_int : pbi_parse_bytes;
    int64_t v, lo = INT64_MIN, hi = INT64_MAX;
    if (parse(text, &v) || (o->min && parse(o->min, &lo)) || (o->max && parse(o->max, &hi)))
        return PB_E_INVAL;
    if (v < lo || v > hi || (o->flags & PB_O_POW2 && (v <= 0 || (v & (v - 1)))))
        return PB_E_INVAL;
    *out = v;
    return 0;
}

static int set_float(const pb_option *o, const char *text, double *out)
{
    double v, lo = -HUGE_VAL, hi = HUGE_VAL;
    if (pbi_parse_float(text, &v) || (o->min && pbi_parse_float(o->min, &lo)) ||
        (o->max && pbi_parse_float(o->max, &hi)))
        return PB_E_INVAL;
    if (v < lo || v > hi)
        return PB_E_INVAL;
    *out = v;
    return 0;
}

int pbi_option_set(const pb_option *o, const char *text, void *config, pb_err *err)
{
    char *at = (char *)config + o->offset;
    int32_t i32;
    int64_t i64;
    double f;
    switch (o->type) {
    case PB_T_BOOL:
    case PB_T_ENUM:
        if (o->type == PB_T_BOOL ? parse_bool(text, &i32) : parse_enum(o, text, &i32))
            return out_of_range(o, text, err);
        memcpy(at, &i32, sizeof i32);
        return 0;
    case PB_T_INT:
    case PB_T_BYTES:
        if (set_int(o, text, &i64))
            return out_of_range(o, text, err);
        memcpy(at, &i64, sizeof i64);
        return 0;
    case PB_T_FLOAT:
        if (set_float(o, text, &f))
            return out_of_range(o, text, err);
        memcpy(at, &f, sizeof f);
        return 0;
    case PB_T_STR: memcpy(at, &text, sizeof text); return 0;
    default: return pbi_err(err, PB_E_PLUGIN, "option %s: unknown type %u", o->name, o->type);
    }
}

static void format_enum(const pb_option *o, int32_t i, char *buf, size_t n)
{
    const char *p = o->choices;
    for (; i > 0 && p && *p; i--) {
        p += strcspn(p, "|");
        p += *p == '|';
    }
    snprintf(buf, n, "%.*s", p ? (int)strcspn(p, "|") : 0, p ? p : "");
}

void pbi_option_format(const pb_option *o, const void *config, char *buf, size_t n)
{
    const char *at = (const char *)config + o->offset;
    const char *s;
    int32_t i32;
    int64_t i64;
    double f;
    switch (o->type) {
    case PB_T_BOOL:
        memcpy(&i32, at, sizeof i32);
        snprintf(buf, n, "%s", i32 ? "on" : "off");
        return;
    case PB_T_ENUM:
        memcpy(&i32, at, sizeof i32);
        format_enum(o, i32, buf, n);
        return;
    case PB_T_INT:
        memcpy(&i64, at, sizeof i64);
        snprintf(buf, n, "%" PRId64, i64);
        return;
    case PB_T_BYTES:
        memcpy(&i64, at, sizeof i64);
        format_bytes(i64, buf, n);
        return;
    case PB_T_FLOAT:
        memcpy(&f, at, sizeof f);
        format_float(f, buf, n);
        return;
    default: memcpy(&s, at, sizeof s); snprintf(buf, n, "%s", s ? s : "");
    }
}

/* ---- typing mistakes --------------------------------------------------- */

enum { WORD_MAX = 48 };

/* Edit distance where a swap of neighbours counts once; words longer than WORD_MAX are far. */
static int distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > WORD_MAX || m > WORD_MAX)
        return 99;
    int row[3][WORD_MAX + 1];
    for (size_t j = 0; j <= m; j++)
        row[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *cur = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        cur[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int d = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < d)
                d = up[j] + 1;
            if (cur[j - 1] + 1 < d)
                d = cur[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                up2[j - 2] + 1 < d)
                d = up2[j - 2] + 1;
            cur[j] = d;
        }
    }
    return row[n % 3][m];
}

const char *pbi_nearest(const char *word, const char *const *names, int n)
{
    int best = 3, len = (int)strlen(word);
    const char *name = NULL;
    for (int i = 0; i < n; i++) {
        int d = distance(word, names[i]);
        if (d < best && d * 2 <= len) { /* two edits of a three-letter word fit anything */
            best = d;
            name = names[i];
        }
    }
    for (int i = 0; !name && len >= 3 && i < n; i++)
        if (strncmp(word, names[i], (size_t)len) == 0)
            name = names[i];
    return name;
}
