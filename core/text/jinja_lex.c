/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja_lex.c - cuts the inside of a tag into tokens. What a token means is the
 * parser's affair.
 */
#include "jinja_lex.h"
#include <stdlib.h>
#include <string.h>

_Noreturn void jp_bad(parser *p, const char *what)
{
    jstr t = p->tok;
    if (p->t == T_EOF)
        jx_fail(p->c, PB_E_FORMAT, "%s, found the end of the template", what);
    if (p->t == T_END)
        jx_fail(p->c, PB_E_FORMAT, "%s, found the end of the tag", what);
    jx_fail(p->c, PB_E_FORMAT, "%s, found '%.*s'", what, (int)(t.n < 40 ? t.n : 40), t.s);
}

static bool name_char(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (!first && c >= '0' && c <= '9') || (unsigned char)c >= 0x80;
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static void skip_space(parser *p)
{
    while (p->p < p->end && strchr(" \t\r\n\f\v", *p->p) && *p->p) {
        if (*p->p == '\n')
            p->c->line++;
        p->p++;
    }
}

static void lex_string(parser *p)
{
    char q = *p->p++;
    jbuf b = { 0 };
    for (;; p->p++) {
        if (p->p >= p->end)
            jx_fail(p->c, PB_E_FORMAT, "a string has no end");
        char ch = *p->p;
        if (ch == q)
            break;
        if (ch == '\n')
            p->c->line++;
        if (ch == '\\' && p->p + 1 < p->end) {
            static const char from[] = "ntrbf\\'\"", to[] = "\n\t\r\b\f\\'\"";
            const char *at = strchr(from, p->p[1]);
            if (p->p[1] && at) {
                ch = to[at - from];
                p->p++;
            }
        }
        jb_byte(p->c, &b, ch, 0);
    }
    p->p++;
    p->t = T_STR;
    p->tok = jb_str(&b);
}

static void lex_number(parser *p)
{
    char num[64];
    size_t n = 0;
    const char *at = p->p;
    p->t = T_INT;
    while (p->p < p->end && n < 60) {
        char ch = *p->p;
        bool dot = ch == '.' && p->t == T_INT && p->p + 1 < p->end && digit(p->p[1]);
        bool exp = (ch == 'e' || ch == 'E') && p->p + 1 < p->end &&
                   (digit(p->p[1]) ||
                    ((p->p[1] == '-' || p->p[1] == '+') && p->p + 2 < p->end && digit(p->p[2])));
        if (!digit(ch) && !dot && !exp && ch != '_')
            break;
        if (dot || exp)
            p->t = T_FLOAT;
        if (ch != '_')
            num[n++] = ch;
        p->p++;
        if (exp)
            num[n++] = *p->p++;
    }
    num[n] = 0;
    p->tok = (jstr){ .s = at, .n = (size_t)(p->p - at) };
    p->f = strtod(num, NULL);
    if (p->t == T_INT && p->f > 9.2e18)
        jx_fail(p->c, PB_E_FORMAT, "%s is over 64 bits", num);
    p->i = p->t == T_INT ? (int64_t)strtoll(num, NULL, 10) : 0;
}

void jp_next(parser *p)
{
    skip_space(p);
    p->tok = (jstr){ .s = p->p, .n = 1 };
    if (p->p >= p->end) {
        p->t = T_EOF;
        return;
    }
    char ch = *p->p, two = p->p + 1 < p->end ? p->p[1] : 0, three = p->p + 2 < p->end ? p->p[2] : 0;
    if (!p->brackets && ((ch == p->closer && two == '}') ||
                         ((ch == '-' || ch == '+') && two == p->closer && three == '}'))) {
        p->t = T_END;
        return;
    }
    if (ch == '"' || ch == '\'') {
        lex_string(p);
        return;
    }
    if (digit(ch)) {
        lex_number(p);
        return;
    }
    if (name_char(ch, true)) {
        while (p->p < p->end && name_char(*p->p, false))
            p->p++;
        p->tok.n = (size_t)(p->p - p->tok.s);
        p->t = T_NAME;
        return;
    }
    p->t = T_OP;
    static const char *const pairs[] = { "==", "!=", "<=", ">=", "//", "**" };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (pairs[i][0] == ch && pairs[i][1] == two)
            p->tok.n = 2;
    memcpy(p->op, p->tok.s, p->tok.n);
    p->op[p->tok.n] = 0;
    if (!strchr("+-*/%~|.,:()[]{}<>=!", ch))
        jp_bad(p, "expected an expression");
    if (strchr("([{", ch))
        p->brackets++;
    if (strchr(")]}", ch) && p->brackets > 0)
        p->brackets--;
    p->p += p->tok.n;
}

bool jp_is_op(const parser *p, const char *op)
{
    return p->t == T_OP && !strcmp(p->op, op);
}

bool jp_is_name(const parser *p, const char *n)
{
    return p->t == T_NAME && js_is(p->tok, n);
}

bool jp_take_op(parser *p, const char *op)
{
    if (!jp_is_op(p, op))
        return false;
    jp_next(p);
    return true;
}

bool jp_take_name(parser *p, const char *n)
{
    if (!jp_is_name(p, n))
        return false;
    jp_next(p);
    return true;
}

void jp_want_op(parser *p, const char *op)
{
    char msg[32] = "expected '";
    strcat(strcat(msg, op), "'");
    if (!jp_take_op(p, op))
        jp_bad(p, msg);
}

jstr jp_want_name(parser *p)
{
    if (p->t != T_NAME)
        jp_bad(p, "expected a name");
    jstr s = p->tok;
    jp_next(p);
    return s;
}
