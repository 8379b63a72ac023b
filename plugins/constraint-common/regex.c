/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/regex.c - a recursive-descent parser of regular expressions; the depth
 * of groups and all counts are limited before they cost anything.
 */
#include "regex.h"

#include <string.h>

enum { MAX_GROUPS = 200 };

typedef struct parser {
    pbc_grammar *g;
    const char *s;
    size_t n, at;
    int json, depth, failed;
    pb_err *err;
} parser;

static int32_t alternatives(parser *p);

static int32_t bad(parser *p, const char *what)
{
    if (!p->failed)
        pbc_fail(p->err, PB_E_INVAL, "%s: pattern, byte %zu: %s", p->g->who, p->at, what);
    p->failed = 1;
    return 0;
}

static int more(const parser *p)
{
    return p->at < p->n && !p->failed;
}

static int take(parser *p, char c)
{
    if (!more(p) || p->s[p->at] != c)
        return 0;
    p->at++;
    return 1;
}

/* ---- one character ----------------------------------------------------- */

/* Characters as they stand in JSON: those that need an escape get one. */
static int32_t json_class(parser *p, pbc_set *set)
{
    static const char from[] = "\"\\\n\t\r\b\f", to[] = "\"\\ntrbf";
    pbc_set plain = { 0 }, keep = { 0 };
    pbc_set_add(&plain, 0x20, 0x21);
    pbc_set_add(&plain, 0x23, 0x5b);
    pbc_set_add(&plain, 0x5d, 0x10ffff);
    for (int32_t i = 0; i < set->n; i++)
        for (int32_t k = 0; k < plain.n; k++) {
            uint32_t lo = set->lo[i] > plain.lo[k] ? set->lo[i] : plain.lo[k];
            uint32_t hi = set->hi[i] < plain.hi[k] ? set->hi[i] : plain.hi[k];
            if (lo <= hi)
                pbc_set_add(&keep, lo, hi);
        }
    keep.full |= set->full;
    int32_t x = keep.n ? pbc_class(p->g, &keep) : -1;
    for (int32_t i = 0; from[i]; i++)
        if (pbc_set_has(set, (uint8_t)from[i])) {
            const char esc[2] = { '\\', to[i] };
            int32_t y = pbc_text(p->g, esc, 2);
            x = x < 0 ? y : pbc_alt(p->g, x, y);
        }
    return x < 0 ? pbc_class(p->g, &keep) : x;
}

static int32_t one_of(parser *p, pbc_set *set)
{
    pbc_set_invert(set); /* drops what is no code point */
    pbc_set_invert(set);
    if (set->full)
        return bad(p, "a class of more than 512 ranges");
    if (set->n == 0)
        return bad(p, "a class that matches nothing");
    return p->json ? json_class(p, set) : pbc_class(p->g, set);
}

static uint32_t hex(parser *p, int32_t least, int32_t most)
{
    uint32_t v = 0;
    int32_t i = 0;
    for (; i < most && more(p); i++, p->at++) {
        int c = (unsigned char)p->s[p->at];
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0)
            break;
        v = v * 16 + (uint32_t)d;
    }
    if (i < least)
        bad(p, "hexadecimal digits expected");
    else if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        bad(p, "this number is no code point");
    return v;
}

/* \d and the like, added to set; 0: c is none of them */
static int shorthand(char c, pbc_set *set)
{
    pbc_set k = { 0 };
    switch (c | 32) {
    case 'd': pbc_set_add(&k, '0', '9'); break;
    case 'w':
        pbc_set_add(&k, '0', '9');
        pbc_set_add(&k, 'A', 'Z');
        pbc_set_add(&k, '_', '_');
        pbc_set_add(&k, 'a', 'z');
        break;
    case 's':
        pbc_set_add(&k, '\t', '\r');
        pbc_set_add(&k, ' ', ' ');
        break;
    default: return 0;
    }
    if (c < 'a')
        pbc_set_invert(&k);
    for (int32_t i = 0; i < k.n; i++)
        pbc_set_add(set, k.lo[i], k.hi[i]);
    return 1;
}

/* After a backslash: a class (returns 1, added to set) or a character (0, *c). */
static int escape(parser *p, pbc_set *set, uint32_t *c)
{
    static const char names[] = "ntrfvae0", values[] = "\n\t\r\f\v\a\033\0";
    char e = p->s[p->at];
    *c = 0;
    if (shorthand(e, set)) {
        p->at++;
        return 1;
    }
    const char *k = e ? strchr(names, e) : NULL;
    if (k) {
        p->at++;
        *c = (unsigned char)values[k - names];
    } else if (e == 'x') {
        p->at++;
        if (take(p, '{')) {
            *c = hex(p, 1, 6);
            if (!take(p, '}'))
                bad(p, "} expected after \\x{");
        } else {
            *c = hex(p, 2, 2);
        }
    } else if (e == 'u') {
        p->at++;
        *c = hex(p, 4, 4);
    } else if ((e >= '0' && e <= '9') || ((e | 32) >= 'a' && (e | 32) <= 'z')) {
        bad(p, "this escape is not known; of letters \\d \\w \\s \\D \\W \\S \\n \\t \\r \\f \\v "
               "\\a \\e \\0 \\xHH \\x{H} \\uHHHH are (no back references, no \\b, no \\p)");
    } else {
        int32_t len = pbc_utf8(p->s + p->at, p->n - p->at, c);
        p->at += (size_t)len;
        if (!len)
            bad(p, "not UTF-8");
    }
    return 0;
}

/* A character, escaped or not, or a shorthand (returns 1). */
static int item(parser *p, pbc_set *set, uint32_t *c)
{
    if (take(p, '\\')) {
        if (p->at == p->n)
            return bad(p, "a backslash at the end");
        return escape(p, set, c);
    }
    int32_t len = pbc_utf8(p->s + p->at, p->n - p->at, c);
    p->at += (size_t)len;
    return len ? 0 : bad(p, "not UTF-8");
}

static int32_t class_of(parser *p)
{
    pbc_set set = { 0 };
    int inverted = take(p, '^'), first = 1;
    for (; more(p) && (first || p->s[p->at] != ']'); first = 0) {
        uint32_t lo = 0, hi = 0;
        if (p->at + 1 < p->n && p->s[p->at] == '[' && strchr(":.=", p->s[p->at + 1]))
            return bad(p, "classes with a name, as [:alpha:], are not known");
        if (item(p, &set, &lo))
            continue;
        hi = lo;
        if (p->at + 1 < p->n && p->s[p->at] == '-' && p->s[p->at + 1] != ']') {
            p->at++;
            if (item(p, &set, &hi))
                return bad(p, "a range ends in a class such as \\d");
        }
        if (hi < lo)
            return bad(p, "a range whose end is below its start");
        if (!p->failed)
            pbc_set_add(&set, lo, hi);
    }
    if (!take(p, ']'))
        return bad(p, "a class without its ]");
    if (inverted)
        pbc_set_invert(&set);
    return one_of(p, &set);
}

/* ---- structure --------------------------------------------------------- */

static int32_t group(parser *p)
{
    if (p->depth == MAX_GROUPS)
        return bad(p, "more than 200 groups inside one another");
    if (take(p, '?') && !take(p, ':'))
        return bad(p, "of groups with (? only (?: is known: no look-around, names or flags");
    if (more(p) && p->s[p->at] == '*')
        return bad(p, "verbs as (*ACCEPT) are not known");
    p->depth++;
    int32_t x = alternatives(p);
    p->depth--;
    if (!take(p, ')'))
        return bad(p, "a group without its )");
    return x;
}

static int32_t atom(parser *p)
{
    pbc_set set = { 0 };
    uint32_t c = 0;
    if (take(p, '('))
        return group(p);
    if (take(p, '['))
        return class_of(p);
    if (take(p, '.')) {
        pbc_set_add(&set, '\n', '\n');
        pbc_set_invert(&set);
        return one_of(p, &set);
    }
    if (strchr("*+?", p->s[p->at]) && p->s[p->at])
        return bad(p, "nothing to repeat");
    if (p->s[p->at] == '^' || p->s[p->at] == '$')
        return bad(p, "^ and $ stand at the ends of the whole pattern only");
    if (item(p, &set, &c) == 0 && !p->failed)
        pbc_set_add(&set, c, c);
    return p->failed ? 0 : one_of(p, &set);
}

/* A number at *at, -1: none; too large ones become PBC_MAX_REPEAT + 1. */
static int32_t number(const parser *p, size_t *at)
{
    int32_t v = -1;
    for (; *at < p->n && p->s[*at] >= '0' && p->s[*at] <= '9'; ++*at) {
        v = (v < 0 ? 0 : v) * 10 + (p->s[*at] - '0');
        v = v > PBC_MAX_REPEAT ? PBC_MAX_REPEAT + 1 : v;
    }
    return v;
}

/* {m}, {m,}, {m,n}; anything else is a literal brace, as everywhere. */
static int braces(parser *p, int32_t *lo, int32_t *hi)
{
    size_t at = p->at + 1;
    if (p->s[p->at] != '{')
        return 0;
    *lo = *hi = number(p, &at);
    if (at < p->n && p->s[at] == ',') {
        at++;
        *hi = number(p, &at);
    }
    if (*lo < 0 || at >= p->n || p->s[at] != '}')
        return 0;
    if (*lo > PBC_MAX_REPEAT || *hi > PBC_MAX_REPEAT)
        return (int)bad(p, "a repetition of more than 65536");
    if (*hi >= 0 && *hi < *lo)
        return (int)bad(p, "a repetition whose end is below its start");
    p->at = at + 1;
    return 1;
}

static int32_t piece(parser *p)
{
    int32_t x = atom(p), lo = 0, hi = 0;
    if (!more(p))
        return x;
    char c = p->s[p->at];
    if (c == '*' || c == '+' || c == '?') {
        p->at++;
        lo = c == '+';
        hi = c == '?' ? 1 : -1;
    } else if (!braces(p, &lo, &hi)) {
        return x;
    }
    if (more(p) && p->s[p->at] == '+')
        return bad(p, "possessive repetitions are not known");
    take(p, '?');
    size_t at = p->at;
    int32_t l, h;
    if (more(p) && ((p->s[at] && strchr("*+?", p->s[at])) || braces(p, &l, &h)))
        return bad(p, "a repetition of a repetition; put the inner one into a group");
    return pbc_repeat(p->g, x, lo, hi);
}

static int at_end_sign(const parser *p)
{
    return p->s[p->at] == '$' && p->at + 1 == p->n && p->depth == 0;
}

static int32_t alternatives(parser *p)
{
    int32_t whole = -1;
    for (;;) {
        int32_t x = 0, n = 0;
        while (more(p) && p->s[p->at] != '|' && p->s[p->at] != ')' && !at_end_sign(p)) {
            int32_t y = piece(p);
            n += x && y;
            x = pbc_cat(p->g, x, y);
        }
        x = pbc_right(p->g, x, n);
        whole = whole < 0 ? x : pbc_alt(p->g, whole, x);
        if (!take(p, '|'))
            return whole;
    }
}

/* A pattern with | at its top and an anchor would anchor one alternative alone. */
static int top_choice(const parser *p)
{
    int depth = 0, in_class = 0;
    for (size_t i = 0; i < p->n; i++) {
        char c = p->s[i];
        if (c == '\\')
            i++;
        else if (in_class)
            in_class = c != ']' || p->s[i - 1] == '[';
        else if (c == '[')
            in_class = 1;
        else if (c == '(')
            depth++;
        else if (c == ')')
            depth--;
        else if (c == '|' && depth == 0)
            return 1;
    }
    return 0;
}

int32_t pbc_regex(pbc_grammar *g, const char *s, size_t n, int json, pb_err *err)
{
    parser p = { .g = g, .s = s, .n = n, .json = json, .err = err };
    int begins = take(&p, '^');
    int32_t x = alternatives(&p), any = 0;
    int ends = more(&p) && at_end_sign(&p);
    p.at += (size_t)ends;
    if (!p.failed && p.at < n)
        bad(&p, "a ) without its (");
    if (!p.failed && (begins || ends) && top_choice(&p))
        bad(&p, "^ or $ beside a | would hold for one alternative; put them into a group");
    if (p.failed)
        return -1;
    if (json && !(begins && ends)) {
        pbc_set all = { 0 };
        pbc_set_add(&all, 0, 0x10ffff);
        any = pbc_repeat(g, json_class(&p, &all), 0, -1);
        x = pbc_cat(g, begins ? 0 : any, pbc_cat(g, x, ends ? 0 : any));
    }
    return x;
}
