/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-grammar/gbnf.c - a recursive-descent parser of GBNF (llama.cpp's notation,
 * grammars/README.md there): rules "name ::= ...", "literals", [classes], ., groups, | and
 * * + ? {m} {m,} {m,n}, comments from # to the end of the line.
 *
 * A line feed ends a rule unless it stands inside parentheses, after | or after ::=. So does the
 * next rule's "name ::=", so that a grammar fits one line of an INI.
 */
#include "gbnf.h"

#include <stdio.h>
#include <string.h>

enum { MAX_GROUPS = 200 };

typedef struct parser {
    pbc_grammar *g;
    const char *s;
    size_t n, at;
    int32_t line, depth;
    int failed;
    pb_err *err;
} parser;

static int32_t alternatives(parser *p);

static int32_t bad(parser *p, const char *what)
{
    if (!p->failed)
        pbc_fail(p->err, PB_E_INVAL, "%s: line %d: %s", p->g->who, p->line, what);
    p->failed = 1;
    return 0;
}

static int peek(const parser *p)
{
    return p->at < p->n && !p->failed ? (unsigned char)p->s[p->at] : -1;
}

static int take(parser *p, char c)
{
    if (peek(p) != (unsigned char)c)
        return 0;
    p->at++;
    return 1;
}

/* White space and comments; over line ends only where lines is set. */
static void skip(parser *p, int lines)
{
    for (int c = peek(p); c >= 0; c = peek(p)) {
        if (c == '#') {
            while (peek(p) >= 0 && peek(p) != '\n')
                p->at++;
        } else if (c == ' ' || c == '\t' || c == '\r' || (lines && c == '\n')) {
            p->line += c == '\n';
            p->at++;
        } else {
            return;
        }
    }
}

static int is_name(int c)
{
    return (c >= '0' && c <= '9') || c == '-' || c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

static int name(parser *p, char out[PBC_NAME])
{
    size_t k = 0;
    while (is_name(peek(p))) {
        if (k == PBC_NAME - 1)
            return (int)bad(p, "a name of more than 63 bytes");
        out[k++] = p->s[p->at++];
    }
    out[k] = 0;
    return k > 0;
}

/* ---- characters -------------------------------------------------------- */

static uint32_t hex(parser *p, int n)
{
    uint32_t v = 0;
    for (; n > 0; n--, p->at++) {
        int c = peek(p), low = c | 32;
        int d = c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
        if (c < 0 || d < 0)
            return (uint32_t)bad(p, "hexadecimal digits expected");
        v = v * 16 + (uint32_t)d;
    }
    if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        bad(p, "this number is no code point");
    return v;
}

/* One character of a literal or a class. */
static uint32_t character(parser *p)
{
    static const char names[] = "ntr\\\"[]-^", values[] = "\n\t\r\\\"[]-^";
    uint32_t c = 0;
    if (!take(p, '\\')) {
        int32_t len = pbc_utf8(p->s + p->at, p->n - p->at, &c);
        p->at += (size_t)len;
        p->line += c == '\n';
        return len ? c : (uint32_t)bad(p, "not UTF-8");
    }
    int e = peek(p);
    const char *k = e > 0 ? strchr(names, e) : NULL;
    if (e < 0)
        return (uint32_t)bad(p, "a backslash at the end");
    p->at++;
    if (k)
        return (unsigned char)values[k - names];
    if (e == 'x' || e == 'u' || e == 'U')
        return hex(p, e == 'x' ? 2 : e == 'u' ? 4 : 8);
    return (uint32_t)bad(p, "this escape is not known; \\n \\t \\r \\\\ \\\" \\[ \\] \\xHH \\uHHHH "
                            "\\UHHHHHHHH are");
}

static int32_t literal(parser *p)
{
    int32_t x = 0, n = 0;
    while (peek(p) >= 0 && peek(p) != '"') {
        char utf8[4];
        uint32_t c = character(p);
        if (p->failed)
            return 0;
        int32_t y = pbc_text(p->g, utf8, (size_t)pbc_utf8_put(c, utf8));
        n += x && y;
        x = pbc_cat(p->g, x, y);
    }
    if (!take(p, '"'))
        return bad(p, "a literal without its second \"");
    return pbc_right(p->g, x, n);
}

static int32_t class_of(parser *p)
{
    pbc_set set = { 0 };
    int inverted = take(p, '^');
    while (peek(p) >= 0 && peek(p) != ']') {
        uint32_t lo = character(p), hi = lo;
        if (peek(p) == '-' && p->at + 1 < p->n && p->s[p->at + 1] != ']') {
            p->at++;
            hi = character(p);
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
    if (set.full)
        return bad(p, "a class of more than 512 ranges");
    return set.n ? pbc_class(p->g, &set) : bad(p, "a class that matches nothing");
}

/* ---- structure --------------------------------------------------------- */

static int32_t group(parser *p)
{
    if (p->depth == MAX_GROUPS)
        return bad(p, "more than 200 groups inside one another");
    p->depth++;
    skip(p, 1);
    int32_t x = alternatives(p);
    p->depth--;
    return take(p, ')') ? x : bad(p, "a group without its )");
}

static int32_t atom(parser *p)
{
    char id[PBC_NAME];
    pbc_set all = { .n = 1, .hi = { 0x10ffff } };
    if (take(p, '"'))
        return literal(p);
    if (take(p, '['))
        return class_of(p);
    if (take(p, '('))
        return group(p);
    if (take(p, '.'))
        return pbc_class(p->g, &all);
    if (name(p, id))
        return pbc_ref(p->g, pbc_rule_of(p->g, id, p->line));
    char what[60];
    int c = peek(p);
    snprintf(what, sizeof what,
             c > ' ' && c < 127 ? "'%c' is not expected here" : "byte %d is not expected here", c);
    return bad(p, c < 0 ? "the grammar ends in the middle of a rule" : what);
}

static int32_t number(parser *p)
{
    int32_t v = -1;
    skip(p, 0);
    for (int c = peek(p); c >= '0' && c <= '9'; p->at++, c = peek(p)) {
        v = (v < 0 ? 0 : v) * 10 + (c - '0');
        if (v > PBC_MAX_REPEAT)
            return bad(p, "a repetition of more than 65536");
    }
    skip(p, 0);
    return v;
}

static int32_t repeated(parser *p, int32_t x)
{
    int32_t lo, hi;
    if (take(p, '*'))
        return pbc_repeat(p->g, x, 0, -1);
    if (take(p, '+'))
        return pbc_repeat(p->g, x, 1, -1);
    if (take(p, '?'))
        return pbc_repeat(p->g, x, 0, 1);
    if (!take(p, '{'))
        return x;
    lo = hi = number(p);
    if (take(p, ','))
        hi = number(p);
    if (lo < 0 || !take(p, '}'))
        return bad(p, "{m}, {m,} or {m,n} expected");
    if (hi >= 0 && hi < lo)
        return bad(p, "a repetition whose end is below its start");
    return pbc_repeat(p->g, x, lo, hi);
}

/* name ::= of the next rule, which may begin in the same line */
static int at_rule(const parser *p)
{
    size_t at = p->at;
    while (at < p->n && is_name((unsigned char)p->s[at]))
        at++;
    if (at == p->at)
        return 0;
    while (at < p->n && (p->s[at] == ' ' || p->s[at] == '\t'))
        at++;
    return p->n - at >= 3 && !memcmp(p->s + at, "::=", 3);
}

static int32_t sequence(parser *p)
{
    int32_t x = 0, n = 0;
    for (;;) {
        skip(p, p->depth > 0);
        int c = peek(p);
        if (c < 0 || c == '|' || c == ')' || c == '\n' || at_rule(p))
            return pbc_right(p->g, x, n);
        int32_t y = repeated(p, atom(p));
        while (peek(p) >= 0 && strchr("*+?{", peek(p)))
            y = repeated(p, y);
        n += x && y;
        x = pbc_cat(p->g, x, y);
    }
}

static int32_t alternatives(parser *p)
{
    int32_t whole = sequence(p);
    while (take(p, '|')) {
        skip(p, 1);
        whole = pbc_alt(p->g, whole, sequence(p));
    }
    return whole;
}

static void rule(parser *p)
{
    char id[PBC_NAME], what[PBC_NAME + 40];
    int32_t line = p->line;
    if (!name(p, id)) {
        bad(p, "a rule's name expected: name ::= ...");
        return;
    }
    skip(p, 0);
    if (p->n - p->at < 3 || memcmp(p->s + p->at, "::=", 3)) {
        snprintf(what, sizeof what, "::= expected after %s", id);
        bad(p, what);
        return;
    }
    p->at += 3;
    skip(p, 1);
    int32_t r = pbc_rule_of(p->g, id, line), x = alternatives(p);
    if (p->failed || p->g->failed)
        return;
    if (p->g->rule[r].body >= 0) {
        p->line = line;
        snprintf(what, sizeof what, "rule %s is defined again", id);
        bad(p, what);
    }
    p->g->rule[r].body = x;
    p->g->rule[r].line = line;
    if (peek(p) == ')')
        bad(p, "a ) without its (");
}

int32_t gbnf_parse(pbc_grammar *g, const char *s, size_t n, const char *root, pb_err *err)
{
    parser p = { .g = g, .s = s, .n = n, .line = 1, .err = err };
    skip(&p, 1);
    while (peek(&p) >= 0 && !g->failed) {
        rule(&p);
        skip(&p, 1);
    }
    if (p.failed)
        return -1;
    for (int32_t i = 0; i < g->n_rules; i++)
        if (!strcmp(g->rule[i].name, root))
            return pbc_ref(g, i);
    if (!g->failed)
        pbc_fail(err, PB_E_INVAL, "%s: no rule is named %s", g->who, root);
    return g->failed ? 0 : -1;
}
