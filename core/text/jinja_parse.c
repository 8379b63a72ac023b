/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja_parse.c - template source to a syntax tree.
 *
 * Nothing is evaluated. White space as transformers sets it up: the first newline after a block
 * is dropped (trim_blocks), white space between the start of a line and a block too
 * (lstrip_blocks), and the last newline of the source. Invariant: depth and memory of the tree
 * are bounded by the limits, whatever the source.
 */
#include "jinja_lex.h"
#include <stdlib.h>
#include <string.h>

static jnode *node(parser *p, jtag tag)
{
    jnode *n = jx_alloc(p->c, sizeof *n);
    n->tag = tag;
    n->line = p->c->line;
    return n;
}

/* a growing list of nodes; the arena keeps the old ones */
typedef struct nodes {
    jnode **v;
    unsigned char *op;
    int n, cap;
} nodes;

static void nodes_push(parser *p, nodes *l, jnode *n, int op)
{
    if (l->n == l->cap) {
        int cap = l->cap ? l->cap * 2 : 4;
        jnode **v = jx_alloc(p->c, (size_t)cap * sizeof *v);
        unsigned char *o = jx_alloc(p->c, (size_t)cap);
        if (l->n) {
            memcpy(v, l->v, (size_t)l->n * sizeof *v);
            memcpy(o, l->op, (size_t)l->n);
        }
        l->v = v;
        l->op = o;
        l->cap = cap;
    }
    l->op[l->n] = (unsigned char)op;
    l->v[l->n++] = n;
}

/* ---- expressions ------------------------------------------------------- */

static jnode *expr(parser *p);
static jnode *unary(parser *p);

static jnode *literal(parser *p, jval *v)
{
    jnode *n = node(p, N_LIT);
    n->lit = v;
    return n;
}

/* arguments up to ')'; n->kid, opv (starred), name, named */
static void arguments(parser *p, jnode *n)
{
    nodes pos = { 0 }, named = { 0 };
    jstr *names = NULL;
    int cap = 0;
    while (!jp_is_op(p, ")")) {
        bool star = jp_take_op(p, "*");
        jnode *e = expr(p);
        if (!star && e->tag == N_NAME && jp_is_op(p, "=")) {
            jp_next(p);
            if (named.n == cap) {
                jstr *g = jx_alloc(p->c, (size_t)(cap = cap ? cap * 2 : 4) * sizeof *g);
                if (named.n)
                    memcpy(g, names, (size_t)named.n * sizeof *g);
                names = g;
            }
            names[named.n] = e->s;
            nodes_push(p, &named, expr(p), 0);
        } else
            nodes_push(p, &pos, e, star);
        if (!jp_take_op(p, ","))
            break;
    }
    jp_want_op(p, ")");
    n->kid = pos.v;
    n->opv = pos.op;
    n->n = pos.n;
    n->name = names;
    n->named = named.v;
    n->n_named = named.n;
}

static jnode *list_of(parser *p, jtag tag, const char *close, jnode *first)
{
    nodes l = { 0 };
    jnode *n = node(p, tag);
    if (first)
        nodes_push(p, &l, first, 0);
    while (!jp_is_op(p, close)) {
        nodes_push(p, &l, expr(p), 0);
        if (!jp_take_op(p, ","))
            break;
    }
    jp_want_op(p, close);
    n->kid = l.v;
    n->n = l.n;
    return n;
}

static jnode *dict(parser *p)
{
    nodes l = { 0 };
    jnode *n = node(p, N_DICT);
    while (!jp_is_op(p, "}")) {
        nodes_push(p, &l, expr(p), 0);
        jp_want_op(p, ":");
        nodes_push(p, &l, expr(p), 0);
        if (!jp_take_op(p, ","))
            break;
    }
    jp_want_op(p, "}");
    n->kid = l.v;
    n->n = l.n;
    return n;
}

static jnode *atom_name(parser *p)
{
    static const struct {
        const char *name;
        jval *v;
    } words[] = { { "true", &jv_true },   { "True", &jv_true }, { "false", &jv_false },
                  { "False", &jv_false }, { "none", &jv_none }, { "None", &jv_none },
                  { "null", &jv_none } };
    jstr s = jp_want_name(p);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (js_is(s, words[i].name))
            return literal(p, words[i].v);
    jnode *n = node(p, N_NAME);
    n->s = s;
    return n;
}

static jnode *atom(parser *p)
{
    jnode *n;
    if (p->t == T_NAME)
        return atom_name(p);
    if (p->t == T_INT) {
        n = literal(p, jv_int(p->c, p->i));
        jp_next(p);
        return n;
    }
    if (p->t == T_FLOAT) {
        n = literal(p, jv_float(p->c, p->f));
        jp_next(p);
        return n;
    }
    if (p->t == T_STR) { /* strings side by side are one */
        jbuf b = { 0 };
        for (; p->t == T_STR; jp_next(p))
            jb_put(p->c, &b, p->tok);
        return literal(p, jv_str(p->c, jb_str(&b)));
    }
    if (jp_take_op(p, "["))
        return list_of(p, N_LIST, "]", NULL);
    if (jp_take_op(p, "{"))
        return dict(p);
    if (jp_take_op(p, "(")) {
        if (jp_is_op(p, ")"))
            return list_of(p, N_TUPLE, ")", NULL);
        n = expr(p);
        if (jp_take_op(p, ","))
            return list_of(p, N_TUPLE, ")", n);
        jp_want_op(p, ")");
        return n;
    }
    jp_bad(p, "expected an expression");
}

static jnode *subscript(parser *p, jnode *a)
{
    jnode *n = node(p, N_ITEM), *part[3] = { NULL, NULL, NULL };
    int k = 0;
    bool slice = false;
    while (!jp_is_op(p, "]")) {
        if (jp_take_op(p, ":")) {
            slice = true;
            if (++k > 2)
                jp_bad(p, "expected ']'");
        } else if (part[k])
            jp_bad(p, "expected ']'");
        else
            part[k] = expr(p);
    }
    jp_next(p);
    if (!slice && !part[0])
        jp_bad(p, "expected an index");
    n->tag = slice ? N_SLICE : N_ITEM;
    n->a = a;
    n->b = part[0];
    n->c = part[1];
    n->d = part[2];
    return n;
}

static jnode *postfix(parser *p, jnode *a)
{
    for (;; jx_steps(p->c, 1)) {
        if (jp_take_op(p, ".")) {
            jnode *n = node(p, N_ATTR);
            n->a = a;
            if (p->t == T_INT || p->t == T_FLOAT) { /* list.0, and list.0.1 read as one number */
                jstr d = p->tok;
                size_t dot = 0;
                while (dot < d.n && d.s[dot] != '.')
                    dot++;
                n->tag = N_ITEM;
                n->b = literal(p, jv_int(p->c, strtoll(d.s, NULL, 10)));
                if (dot < d.n) {
                    jnode *m = node(p, N_ITEM);
                    m->a = n;
                    m->b = literal(p, jv_int(p->c, strtoll(d.s + dot + 1, NULL, 10)));
                    n = m;
                }
                jp_next(p);
            } else
                n->s = jp_want_name(p);
            a = n;
        } else if (jp_take_op(p, "["))
            a = subscript(p, a);
        else if (jp_take_op(p, "(")) {
            jnode *n = node(p, N_CALL);
            n->a = a;
            arguments(p, n);
            a = n;
        } else
            return a;
    }
}

static jnode *filters(parser *p, jnode *a)
{
    for (;;) {
        if (jp_take_op(p, "|")) {
            jnode *n = node(p, N_FILTER);
            n->a = a;
            n->s = jp_want_name(p);
            if (jp_take_op(p, "("))
                arguments(p, n);
            a = postfix(p, n);
        } else if (jp_is_name(p, "is")) {
            jp_next(p);
            jnode *n = node(p, N_TEST);
            n->op = jp_take_name(p, "not");
            n->a = a;
            n->s = jp_want_name(p);
            if (jp_take_op(p, "("))
                arguments(p, n);
            else if (p->t == T_STR || p->t == T_INT || p->t == T_FLOAT || jp_is_op(p, "[") ||
                     (p->t == T_NAME && !jp_is_name(p, "and") && !jp_is_name(p, "or") &&
                      !jp_is_name(p, "else") && !jp_is_name(p, "if") && !jp_is_name(p, "is") &&
                      !jp_is_name(p, "not") && !jp_is_name(p, "in"))) {
                nodes l = { 0 };
                nodes_push(p, &l, postfix(p, atom(p)), 0);
                n->kid = l.v;
                n->opv = l.op;
                n->n = 1;
            }
            a = n;
        } else
            return a;
    }
}

static jnode *power(parser *p)
{
    jnode *a = postfix(p, atom(p));
    while (jp_take_op(p, "**")) {
        jnode *n = node(p, N_BIN);
        n->op = OP_POW;
        n->a = a;
        n->b = unary(p);
        a = n;
    }
    return a;
}

/* a filter binds its whole operand with the sign: -1 | abs is 1 */
static jnode *unary(parser *p)
{
    jx_enter(p->c);
    jnode *n;
    if (jp_is_op(p, "-") || jp_is_op(p, "+")) {
        n = node(p, jp_is_op(p, "-") ? N_NEG : N_POS);
        jp_next(p);
        n->a = unary(p);
    } else
        n = power(p);
    jx_leave(p->c);
    return n;
}

static jnode *operand(parser *p)
{
    return filters(p, unary(p));
}

static int level_op(const parser *p, int level)
{
    static const struct {
        const char *op;
        int level, code;
    } t[] = { { "*", 2, OP_MUL }, { "/", 2, OP_DIV }, { "//", 2, OP_FLOOR }, { "%", 2, OP_MOD },
              { "~", 1, OP_CAT }, { "+", 0, OP_ADD }, { "-", 0, OP_SUB } };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (t[i].level == level && jp_is_op(p, t[i].op))
            return t[i].code;
    return 0;
}

/* level 2: * / // %, 1: ~, 0: + - */
static jnode *binary(parser *p, int level)
{
    jnode *a = level == 2 ? operand(p) : binary(p, level + 1);
    for (int op; (op = level_op(p, level)) != 0;) {
        jp_next(p);
        jnode *n = node(p, N_BIN);
        n->op = op;
        n->a = a;
        n->b = level == 2 ? operand(p) : binary(p, level + 1);
        a = n;
    }
    return a;
}

static int compare_op(parser *p)
{
    static const struct {
        const char *op;
        int code;
    } t[] = { { "==", OP_EQ }, { "!=", OP_NE }, { "<", OP_LT },
              { "<=", OP_LE }, { ">", OP_GT },  { ">=", OP_GE } };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (jp_take_op(p, t[i].op))
            return t[i].code;
    if (jp_take_name(p, "in"))
        return OP_IN;
    if (jp_is_name(p, "not")) { /* only "not in" can follow an operand */
        jp_next(p);
        if (!jp_take_name(p, "in"))
            jp_bad(p, "expected 'in'");
        return OP_NOTIN;
    }
    return 0;
}

static jnode *compare(parser *p)
{
    jnode *a = binary(p, 0);
    nodes l = { 0 };
    int op = compare_op(p);
    if (!op)
        return a;
    nodes_push(p, &l, a, 0);
    for (; op; op = compare_op(p))
        nodes_push(p, &l, binary(p, 0), op);
    jnode *n = node(p, N_CMP);
    n->kid = l.v;
    n->opv = l.op;
    n->n = l.n;
    return n;
}

static jnode *negation(parser *p)
{
    if (!jp_is_name(p, "not"))
        return compare(p);
    jx_enter(p->c);
    jnode *n = node(p, N_NOT);
    jp_next(p);
    n->a = negation(p);
    jx_leave(p->c);
    return n;
}

static jnode *logic(parser *p, jtag tag)
{
    jnode *a = tag == N_OR ? logic(p, N_AND) : negation(p);
    while (jp_take_name(p, tag == N_OR ? "or" : "and")) {
        jnode *n = node(p, tag);
        n->a = a;
        n->b = tag == N_OR ? logic(p, N_AND) : negation(p);
        a = n;
    }
    return a;
}

static jnode *expr(parser *p)
{
    jx_enter(p->c);
    jx_steps(p->c, 1);
    jnode *a = logic(p, N_OR);
    while (jp_take_name(p, "if")) {
        jnode *n = node(p, N_COND);
        n->b = a;
        n->a = logic(p, N_OR);
        if (jp_take_name(p, "else"))
            n->c = expr(p);
        a = n;
    }
    jx_leave(p->c);
    return a;
}

/* a, b without brackets is a tuple */
static jnode *expr_tuple(parser *p)
{
    jnode *e = expr(p);
    if (!jp_is_op(p, ","))
        return e;
    nodes l = { 0 };
    nodes_push(p, &l, e, 0);
    while (jp_take_op(p, ",") && p->t != T_END)
        nodes_push(p, &l, expr(p), 0);
    jnode *n = node(p, N_TUPLE);
    n->kid = l.v;
    n->n = l.n;
    return n;
}

/* ---- tags and text ----------------------------------------------------- */

/* leaves a tag: p->t is T_END */
static void end_tag(parser *p)
{
    if (p->t != T_END)
        jp_bad(p, "expected the end of the tag");
    p->strip_next = *p->p == '-';
    p->trim_next = p->closer == '%' && *p->p != '+';
    if (*p->p == '-' || *p->p == '+')
        p->p++;
    p->p += 2;
    p->line_start = false;
}

static void begin_tag(parser *p, char closer)
{
    p->p += 2;
    if (p->p < p->end && (*p->p == '-' || *p->p == '+'))
        p->p++;
    p->closer = closer;
    p->brackets = 0;
    jp_next(p);
}

static const char *find_open(const parser *p)
{
    const char *q = p->p;
    while (q + 1 < p->end && !(q[0] == '{' && (q[1] == '{' || q[1] == '%' || q[1] == '#')))
        q++;
    return q + 1 < p->end ? q : p->end;
}

static void count_lines(parser *p, const char *a, const char *e)
{
    for (; a < e; a++)
        if (*a == '\n')
            p->c->line++;
}

static void skip_comment(parser *p)
{
    const char *q = p->p + 2;
    while (q + 1 < p->end && !(q[0] == '#' && q[1] == '}'))
        q++;
    if (q + 1 >= p->end)
        jx_fail(p->c, PB_E_FORMAT, "a comment has no end");
    count_lines(p, p->p, q);
    p->strip_next = q[-1] == '-' && q - 1 >= p->p + 2;
    p->trim_next = !(q[-1] == '+' && q - 1 >= p->p + 2);
    p->p = q + 2;
    p->line_start = false;
}

/* Text up to the next tag, comments skipped; NULL: none. Stops at "{{" or "{%" or the end. */
static jnode *text(parser *p)
{
    jbuf b = { 0 };
    jnode *n = node(p, N_TEXT);
    for (;;) {
        const char *a = p->p, *e = find_open(p), *tag = e;
        count_lines(p, a, e);
        p->p = e;
        if (p->strip_next) {
            while (a < e && strchr(" \t\r\n\f\v", *a))
                a++;
        } else if (p->trim_next && a < e) {
            if (*a == '\r' && a + 1 < e && a[1] == '\n')
                a++;
            if (*a == '\n') {
                a++;
                p->line_start = true;
            }
        }
        p->strip_next = p->trim_next = false;
        if (tag < p->end) {
            char mode = tag + 2 < p->end ? tag[2] : 0;
            const char *k = e;
            if (mode == '-') {
                while (k > a && strchr(" \t\r\n\f\v", k[-1]))
                    k--;
                e = k;
            } else if (tag[1] != '{' && mode != '+') {
                while (k > a && strchr(" \t\f\v", k[-1]))
                    k--;
                if (k > a ? k[-1] == '\n' : p->line_start)
                    e = k;
            }
        }
        if (e > a)
            jb_put(p->c, &b, (jstr){ .s = a, .n = (size_t)(e - a) });
        if (tag >= p->end || tag[1] != '#')
            break;
        skip_comment(p);
    }
    n->s = jb_str(&b);
    return n->s.n ? n : NULL;
}

static jnode *body(parser *p, const char *const *ends);
static jnode *statement(parser *p);

static jnode *block(parser *p, const char *const *ends)
{
    end_tag(p);
    return body(p, ends);
}

/* the tag that ended a body is at its name */
static void finish(parser *p, const char *name)
{
    if (!jp_take_name(p, name))
        jp_bad(p, "expected the end of the block");
    if (p->t == T_NAME)
        jp_next(p); /* endmacro NAME */
}

static jnode *st_if(parser *p)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    jnode *n = node(p, N_IF);
    jx_enter(p->c);
    n->a = expr_tuple(p);
    n->b = block(p, ends);
    if (jp_take_name(p, "elif")) {
        n->c = st_if(p);
        jx_leave(p->c);
        return n;
    }
    if (jp_take_name(p, "else"))
        n->c = block(p, ends + 2);
    finish(p, "endif");
    jx_leave(p->c);
    return n;
}

/* names on the left of = or in */
static jnode *targets(parser *p)
{
    nodes l = { 0 };
    bool tuple = false, bracket = jp_take_op(p, "(");
    do {
        jnode *n = node(p, N_NAME);
        if (p->t != T_NAME)
            break;
        n->s = jp_want_name(p);
        if (jp_take_op(p, ".")) {
            jnode *m = node(p, N_ATTR);
            m->a = n;
            m->s = jp_want_name(p);
            n = m;
        }
        nodes_push(p, &l, n, 0);
    } while (jp_take_op(p, ",") && (tuple = true));
    if (!l.n)
        jp_bad(p, "expected a name");
    if (bracket)
        jp_want_op(p, ")");
    if (l.n == 1 && !tuple)
        return l.v[0];
    jnode *n = node(p, N_TUPLE);
    n->kid = l.v;
    n->n = l.n;
    return n;
}

static jnode *st_for(parser *p)
{
    static const char *const ends[] = { "else", "endfor", NULL };
    jnode *n = node(p, N_FOR);
    n->a = targets(p);
    if (!jp_take_name(p, "in"))
        jp_bad(p, "expected 'in'");
    n->b = logic(p, N_OR);
    if (jp_is_op(p, ",")) { /* for x in a, b */
        nodes l = { 0 };
        nodes_push(p, &l, n->b, 0);
        while (jp_take_op(p, ","))
            nodes_push(p, &l, logic(p, N_OR), 0);
        n->b = node(p, N_TUPLE);
        n->b->kid = l.v;
        n->b->n = l.n;
    }
    if (jp_take_name(p, "if"))
        n->c = expr(p);
    if (jp_is_name(p, "recursive"))
        jp_bad(p, "recursive loops are not supported");
    nodes k = { 0 };
    nodes_push(p, &k, block(p, ends), 0);
    nodes_push(p, &k, jp_take_name(p, "else") ? block(p, ends + 1) : NULL, 0);
    finish(p, "endfor");
    n->kid = k.v;
    n->n = k.n;
    return n;
}

static jnode *st_set(parser *p)
{
    static const char *const ends[] = { "endset", NULL };
    jnode *n = node(p, N_SET);
    n->a = targets(p);
    if (jp_take_op(p, "=")) {
        n->b = expr_tuple(p);
        return n;
    }
    n->tag = N_SETBLOCK;
    n->c = node(p, N_NAME);
    n->d = filters(p, n->c);
    if (n->d == n->c)
        n->d = NULL;
    n->b = block(p, ends);
    finish(p, "endset");
    return n;
}

/* (a, b=1) */
static void parameters(parser *p, jnode *n)
{
    nodes l = { 0 };
    jstr *names = NULL;
    int cap = 0;
    jp_want_op(p, "(");
    while (!jp_is_op(p, ")")) {
        if (l.n == cap) {
            jstr *g = jx_alloc(p->c, (size_t)(cap = cap ? cap * 2 : 4) * sizeof *g);
            if (l.n)
                memcpy(g, names, (size_t)l.n * sizeof *g);
            names = g;
        }
        names[l.n] = jp_want_name(p);
        nodes_push(p, &l, jp_take_op(p, "=") ? expr(p) : NULL, 0);
        if (!jp_take_op(p, ","))
            break;
    }
    jp_want_op(p, ")");
    n->name = names;
    n->named = l.v;
    n->n_named = l.n;
}

static jnode *st_macro(parser *p)
{
    static const char *const ends[] = { "endmacro", NULL };
    jnode *n = node(p, N_MACRO);
    n->s = jp_want_name(p);
    parameters(p, n);
    n->b = block(p, ends);
    finish(p, "endmacro");
    return n;
}

static jnode *st_call(parser *p)
{
    static const char *const ends[] = { "endcall", NULL };
    jnode *n = node(p, N_CALLBLOCK);
    if (jp_is_op(p, "("))
        parameters(p, n);
    n->a = postfix(p, atom(p));
    if (n->a->tag != N_CALL)
        jp_bad(p, "expected a call");
    n->b = block(p, ends);
    finish(p, "endcall");
    return n;
}

static jnode *st_filter(parser *p)
{
    static const char *const ends[] = { "endfilter", NULL };
    jnode *n = node(p, N_FILTERBLOCK), *f = node(p, N_FILTER);
    f->a = n->c = node(p, N_NAME); /* stands for the text of the block */
    f->s = jp_want_name(p);
    if (jp_take_op(p, "("))
        arguments(p, f);
    n->d = filters(p, f);
    n->b = block(p, ends);
    finish(p, "endfilter");
    return n;
}

/* marks the assistant's part for training; the text stays */
static jnode *st_generation(parser *p)
{
    static const char *const ends[] = { "endgeneration", NULL };
    jnode *n = block(p, ends);
    finish(p, "endgeneration");
    return n;
}

static jnode *st_leaf(parser *p, jtag tag)
{
    return node(p, tag);
}

static jnode *statement(parser *p)
{
    jstr s = jp_want_name(p);
    if (js_is(s, "if"))
        return st_if(p);
    if (js_is(s, "for"))
        return st_for(p);
    if (js_is(s, "set"))
        return st_set(p);
    if (js_is(s, "macro"))
        return st_macro(p);
    if (js_is(s, "call"))
        return st_call(p);
    if (js_is(s, "filter"))
        return st_filter(p);
    if (js_is(s, "generation"))
        return st_generation(p);
    if (js_is(s, "break"))
        return st_leaf(p, N_BREAK);
    if (js_is(s, "continue"))
        return st_leaf(p, N_CONTINUE);
    jx_fail(p->c, PB_E_FORMAT, "no statement is called '%.*s'", (int)(s.n < 40 ? s.n : 40), s.s);
}

static bool at_end(const parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jp_is_name(p, *ends))
            return true;
    return false;
}

/* Statements up to a tag whose name is in ends (then the parser is at that name), or to the end
 * of the source if ends is NULL. */
static jnode *body(parser *p, const char *const *ends)
{
    nodes l = { 0 };
    jnode *n = node(p, N_BODY);
    jx_enter(p->c);
    for (;;) {
        jnode *t = text(p);
        if (t)
            nodes_push(p, &l, t, 0);
        if (p->p >= p->end) {
            p->t = T_EOF;
            if (ends)
                jx_fail(p->c, PB_E_FORMAT, "a block has no '%s'", *ends);
            break;
        }
        if (p->p[1] == '{') {
            jnode *o = node(p, N_OUT);
            begin_tag(p, '}');
            o->a = p->t == T_END ? NULL : expr_tuple(p);
            if (!o->a)
                jp_bad(p, "expected an expression");
            end_tag(p);
            nodes_push(p, &l, o, 0);
            continue;
        }
        begin_tag(p, '%');
        if (at_end(p, ends))
            break;
        jnode *s = statement(p);
        end_tag(p);
        nodes_push(p, &l, s, 0);
    }
    jx_leave(p->c);
    n->kid = l.v;
    n->n = l.n;
    return n;
}

jnode *jp_template(jctx *c, const char *src, size_t n)
{
    parser p = { .c = c, .s = src, .p = src, .end = src + n, .line_start = true };
    if (n && src[n - 1] == '\n')
        p.end--;
    if (p.end > src && p.end[-1] == '\r')
        p.end--;
    c->line = 1;
    return body(&p, NULL);
}
