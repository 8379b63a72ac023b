/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja_lex.h - tokens inside the tags of a template, for jinja_parse.c alone.
 * Invariant: p never passes end; line numbers follow p.
 */
#ifndef PBI_JINJA_LEX_H
#define PBI_JINJA_LEX_H
#include "jinja_int.h"

typedef enum ttype { T_EOF, T_NAME, T_INT, T_FLOAT, T_STR, T_OP, T_END /* of a block */ } ttype;

typedef struct parser {
    jctx *c;
    const char *s, *end, *p;
    bool line_start; /* text up to p ended with a newline, or nothing was read yet */
    bool strip_next; /* the last tag ended with '-' */
    bool trim_next;  /* the last tag was a block or comment: drop a newline */
    /* current token within {{ }} or {% %} */
    ttype t;
    jstr tok;
    char op[4];
    double f;
    int64_t i;
    char closer; /* '}' of {{ }} or '%' */
    int brackets;
} parser;

/* "what, found ...": ends the parse */
_Noreturn void jp_bad(parser *p, const char *what);
/* next token of a tag; T_END leaves p->p at the closer */
void jp_next(parser *p);
bool jp_is_op(const parser *p, const char *op);
bool jp_is_name(const parser *p, const char *n);
bool jp_take_op(parser *p, const char *op);
bool jp_take_name(parser *p, const char *n);
void jp_want_op(parser *p, const char *op);
jstr jp_want_name(parser *p);
#endif
