/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja.c - evaluates the syntax tree of a template.
 *
 * Scopes are Jinja's: a loop's body has its own, `if` and `set` blocks do not, a macro sees the
 * scope that it was defined in. Invariant: each evaluation costs a step and each nesting a
 * level, so that a hostile template ends with an error.
 */
#include "jinja_int.h"
#include <stdlib.h>
#include <string.h>

typedef struct jscope jscope;
struct jscope {
    jscope *up;
    jval *vars; /* dict */
};

typedef struct jrun {
    jctx *c;
    jscope *scope;
    jbuf *out;
    enum { GO, BREAK, CONTINUE } flow;
} jrun;

static jval *eval(jrun *r, const jnode *n);
static void exec(jrun *r, const jnode *n);

/* ---- variables --------------------------------------------------------- */

static jscope *scope_new(jrun *r, jscope *up)
{
    jscope *s = jx_alloc(r->c, sizeof *s);
    s->up = up;
    s->vars = jv_dict(r->c);
    return s;
}

static jval *lookup(jrun *r, jstr name)
{
    jval key = { .kind = J_STR, .u.s = name };
    for (const jscope *s = r->scope; s; s = s->up) {
        jval *v = jv_get(r->c, s->vars, &key);
        if (v)
            return v;
    }
    jval *v = jl_global(r->c, name);
    return v ? v : jv_undef(r->c, name.s, name.n);
}

static void assign(jrun *r, const jnode *to, jval *v)
{
    jctx *c = r->c;
    if (to->tag == N_NAME)
        jv_put(c, r->scope->vars, jv_str(c, to->s), v);
    else if (to->tag == N_ATTR) {
        jval *o = lookup(r, to->a->s);
        if (o->kind != J_DICT || !o->space)
            jx_fail(c, PB_E_FORMAT, "'%.*s' is no namespace: its members cannot be set",
                    (int)to->a->s.n, to->a->s.s);
        jv_put(c, o, jv_str(c, to->s), v);
    } else {
        jval *l = jv_iter(c, v);
        if (l->u.l.n != (size_t)to->n)
            jx_fail(c, PB_E_FORMAT, "%d names for %zu values", to->n, l->u.l.n);
        for (int i = 0; i < to->n; i++)
            assign(r, to->kid[i], l->u.l.v[i]);
    }
}

/* ---- calls ------------------------------------------------------------- */

static void eval_args(jrun *r, const jnode *n, jargs *a)
{
    jval *l = jv_list(r->c);
    for (int i = 0; i < n->n; i++) {
        jval *v = eval(r, n->kid[i]);
        if (n->opv && n->opv[i]) {
            jval *more = jv_iter(r->c, v);
            for (size_t k = 0; k < more->u.l.n; k++)
                jv_push(r->c, l, more->u.l.v[k]);
        } else
            jv_push(r->c, l, v);
    }
    *a = (jargs){ .n = (int)l->u.l.n, .v = l->u.l.v, .n_named = n->n_named, .name = n->name };
    a->named = jx_alloc(r->c, (size_t)(n->n_named + 1) * sizeof *a->named);
    for (int i = 0; i < n->n_named; i++)
        a->named[i] = eval(r, n->named[i]);
}

/* runs a body with its output caught */
static jval *caught(jrun *r, const jnode *b)
{
    jbuf buf = { 0 }, *old = r->out;
    r->out = &buf;
    exec(r, b);
    r->out = old;
    return jv_str(r->c, jb_str(&buf));
}

static jval *call_macro(jrun *r, const jfunc *f, const jargs *a, jval *caller)
{
    const jnode *m = f->macro;
    jscope *old = r->scope, *s = scope_new(r, f->scope);
    jx_enter(r->c);
    if (a->n > m->n_named)
        jx_fail(r->c, PB_E_FORMAT, "macro '%.*s' takes %d arguments, got %d", (int)m->s.n, m->s.s,
                m->n_named, a->n);
    r->scope = s;
    for (int i = 0; i < m->n_named; i++) {
        jval *v = i < a->n ? a->v[i] : NULL;
        for (int k = 0; k < a->n_named && !v; k++)
            if (a->name[k].n == m->name[i].n && !memcmp(a->name[k].s, m->name[i].s, m->name[i].n))
                v = a->named[k];
        if (!v)
            v = m->named[i] ? eval(r, m->named[i]) : jv_undef(r->c, m->name[i].s, m->name[i].n);
        jv_put(r->c, s->vars, jv_str(r->c, m->name[i]), v);
    }
    if (caller)
        jv_put(r->c, s->vars, jv_text(r->c, "caller"), caller);
    jval *v = caught(r, m->b);
    r->flow = GO;
    r->scope = old;
    jx_leave(r->c);
    return v;
}

static jval *macro_value(jrun *r, const jnode *n)
{
    jval *v = jv_func(r->c, NULL, NULL, NULL);
    v->u.fn->macro = (void *)(uintptr_t)n;
    v->u.fn->scope = r->scope;
    v->u.fn->run = r;
    return v;
}

/* also for filters that call a function that they were given */
jval *jl_call(jctx *c, jval *f, const jargs *a)
{
    if (f->kind == J_UNDEF)
        jx_fail(c, PB_E_FORMAT, "'%s' is undefined", f->u.undef);
    if (f->kind != J_FUNC)
        jx_fail(c, PB_E_FORMAT, "%s cannot be called", jv_type(f));
    if (f->u.fn->macro)
        return call_macro(f->u.fn->run, f->u.fn, a, NULL);
    return f->u.fn->fn(c, f->u.fn->self, a);
}

static jval *eval_call(jrun *r, const jnode *n, jval *caller)
{
    jargs a;
    jval *f = eval(r, n->a);
    eval_args(r, n, &a);
    if (f->kind == J_FUNC && f->u.fn->macro)
        return call_macro(r, f->u.fn, &a, caller);
    return jl_call(r->c, f, &a);
}

/* ---- expressions ------------------------------------------------------- */

static jval *eval_slice(jrun *r, const jnode *n)
{
    jctx *c = r->c;
    jval *v = eval(r, n->a), *part[3] = { NULL, NULL, NULL };
    const jnode *e[3] = { n->b, n->c, n->d };
    if (v->kind == J_UNDEF)
        jx_fail(c, PB_E_FORMAT, "'%s' is undefined", v->u.undef);
    if (v->kind != J_STR && v->kind != J_LIST)
        jx_fail(c, PB_E_FORMAT, "%s cannot be sliced", jv_type(v));
    jval *l = jv_iter(c, v);
    int64_t len = (int64_t)l->u.l.n, at[3];
    for (int i = 0; i < 3; i++) {
        part[i] = e[i] ? eval(r, e[i]) : &jv_none;
        if (part[i]->kind != J_INT && part[i]->kind != J_NONE)
            jx_fail(c, PB_E_FORMAT, "a slice needs whole numbers, not %s", jv_type(part[i]));
    }
    int64_t step = part[2]->kind == J_INT ? part[2]->u.i : 1;
    if (!step)
        jx_fail(c, PB_E_FORMAT, "the step of a slice is 0");
    int64_t lo = step > 0 ? 0 : -1, hi = step > 0 ? len : len - 1;
    for (int i = 0; i < 2; i++) {
        bool low = (i == 0) == (step > 0);
        at[i] = part[i]->kind == J_INT ? part[i]->u.i : low ? lo : hi;
        if (part[i]->kind == J_INT && at[i] < 0)
            at[i] += len;
        if (at[i] < lo)
            at[i] = lo;
        if (at[i] > hi)
            at[i] = hi;
    }
    jval *o = jv_list(c);
    o->tuple = v->tuple;
    for (int64_t i = at[0]; step > 0 ? i < at[1] : i > at[1]; i += step) {
        jx_steps(c, 1);
        jv_push(c, o, l->u.l.v[i]);
        if (step > 0 ? step > len - i : -step > i + 1)
            break;
    }
    if (v->kind == J_LIST)
        return o;
    jbuf b = { 0 };
    for (size_t i = 0; i < o->u.l.n; i++)
        jb_put(c, &b, o->u.l.v[i]->u.s);
    return jv_str(c, jb_str(&b));
}

static bool compare_once(jctx *c, int op, jval *a, jval *b)
{
    switch (op) {
    case OP_EQ: return jv_equal(c, a, b);
    case OP_NE: return !jv_equal(c, a, b);
    case OP_LT: return jv_compare(c, a, b, false) < 0;
    case OP_LE: return jv_compare(c, a, b, false) <= 0;
    case OP_GT: return jv_compare(c, a, b, false) > 0;
    case OP_GE: return jv_compare(c, a, b, false) >= 0;
    case OP_IN: return jv_contains(c, b, a);
    default: return !jv_contains(c, b, a);
    }
}

static jval *eval_compare(jrun *r, const jnode *n)
{
    jval *a = eval(r, n->kid[0]);
    for (int i = 1; i < n->n; i++) {
        jval *b = eval(r, n->kid[i]);
        if (!compare_once(r->c, n->opv[i], a, b))
            return &jv_false;
        a = b;
    }
    return &jv_true;
}

static jval *eval_sign(jrun *r, const jnode *n)
{
    jval *v = eval(r, n->a);
    if (v->kind == J_FLOAT)
        return n->tag == N_NEG ? jv_float(r->c, -v->u.f) : v;
    if (v->kind != J_INT && v->kind != J_BOOL)
        jx_fail(r->c, PB_E_FORMAT, "%s has no sign", jv_type(v));
    if (v->u.i == INT64_MIN)
        jx_fail(r->c, PB_E_FORMAT, "a whole number is over 64 bits");
    return jv_int(r->c, n->tag == N_NEG ? -v->u.i : v->u.i);
}

static jval *eval_container(jrun *r, const jnode *n)
{
    if (n->tag == N_DICT) {
        jval *d = jv_dict(r->c);
        for (int i = 0; i + 1 < n->n; i += 2) {
            jval *k = eval(r, n->kid[i]);
            jv_put(r->c, d, k, eval(r, n->kid[i + 1]));
        }
        return d;
    }
    jval *l = jv_list(r->c);
    l->tuple = n->tag == N_TUPLE;
    for (int i = 0; i < n->n; i++)
        jv_push(r->c, l, eval(r, n->kid[i]));
    return l;
}

static jval *eval_inner(jrun *r, const jnode *n)
{
    jargs a;
    jval *v;
    switch (n->tag) {
    case N_LIT: return n->lit;
    case N_NAME: return lookup(r, n->s);
    case N_ATTR: return jl_attr(r->c, eval(r, n->a), n->s);
    case N_ITEM: v = eval(r, n->a); return jl_item(r->c, v, eval(r, n->b));
    case N_SLICE: return eval_slice(r, n);
    case N_CALL: return eval_call(r, n, NULL);
    case N_FILTER:
        v = eval(r, n->a);
        eval_args(r, n, &a);
        return jl_filter(r->c, n->s, v, &a);
    case N_TEST:
        v = eval(r, n->a);
        eval_args(r, n, &a);
        return jv_bool(jl_test(r->c, n->s, v, &a) != n->op);
    case N_BIN: v = eval(r, n->a); return jv_arith(r->c, n->op, v, eval(r, n->b));
    case N_AND: v = eval(r, n->a); return jv_truth(v) ? eval(r, n->b) : v;
    case N_OR: v = eval(r, n->a); return jv_truth(v) ? v : eval(r, n->b);
    case N_NOT: return jv_bool(!jv_truth(eval(r, n->a)));
    case N_NEG:
    case N_POS: return eval_sign(r, n);
    case N_CMP: return eval_compare(r, n);
    case N_COND:
        if (jv_truth(eval(r, n->a)))
            return eval(r, n->b);
        return n->c ? eval(r, n->c) : jv_undef(r->c, "else", 4);
    default: return eval_container(r, n);
    }
}

static jval *eval(jrun *r, const jnode *n)
{
    r->c->line = n->line;
    jx_steps(r->c, 1);
    jx_enter(r->c);
    jval *v = eval_inner(r, n);
    jx_leave(r->c);
    return v;
}

/* ---- statements -------------------------------------------------------- */

static jval *loop_cycle(jctx *c, jval *self, const jargs *a)
{
    jval *i = jv_get_text(c, self, "index0");
    if (!a->n || !i)
        jx_fail(c, PB_E_FORMAT, "loop.cycle() needs values");
    return a->v[i->u.i % a->n];
}

static jval *loop_object(jctx *c, const jval *l, size_t i)
{
    jval *o = jv_dict(c);
    int64_t n = (int64_t)l->u.l.n, k = (int64_t)i;
    jv_put(c, o, jv_text(c, "index"), jv_int(c, k + 1));
    jv_put(c, o, jv_text(c, "index0"), jv_int(c, k));
    jv_put(c, o, jv_text(c, "revindex"), jv_int(c, n - k));
    jv_put(c, o, jv_text(c, "revindex0"), jv_int(c, n - k - 1));
    jv_put(c, o, jv_text(c, "first"), jv_bool(i == 0));
    jv_put(c, o, jv_text(c, "last"), jv_bool(k == n - 1));
    jv_put(c, o, jv_text(c, "length"), jv_int(c, n));
    if (i)
        jv_put(c, o, jv_text(c, "previtem"), l->u.l.v[i - 1]);
    if (k + 1 < n)
        jv_put(c, o, jv_text(c, "nextitem"), l->u.l.v[i + 1]);
    jv_put(c, o, jv_text(c, "cycle"), jv_func(c, "cycle", loop_cycle, o));
    return o;
}

static void exec_for(jrun *r, const jnode *n)
{
    jctx *c = r->c;
    jscope *old = r->scope;
    jval *v = eval(r, n->b);
    if (v->kind == J_UNDEF)
        jx_fail(c, PB_E_FORMAT, "'%s' is undefined", v->u.undef);
    jval *l = jv_iter(c, v);
    if (n->c) {
        jval *kept = jv_list(c);
        for (size_t i = 0; i < l->u.l.n; i++) {
            r->scope = scope_new(r, old);
            assign(r, n->a, l->u.l.v[i]);
            if (jv_truth(eval(r, n->c)))
                jv_push(c, kept, l->u.l.v[i]);
        }
        l = kept;
    }
    for (size_t i = 0; i < l->u.l.n && r->flow != BREAK; i++) {
        r->flow = GO;
        jx_steps(c, 1);
        r->scope = scope_new(r, old);
        jv_put(c, r->scope->vars, jv_text(c, "loop"), loop_object(c, l, i));
        assign(r, n->a, l->u.l.v[i]);
        exec(r, n->kid[0]);
    }
    r->flow = GO;
    r->scope = old;
    if (!l->u.l.n && n->kid[1])
        exec(r, n->kid[1]);
}

/* the text of a block through its filters: c stands for the text in the tree of d */
static jval *filtered(jrun *r, const jnode *n, jval *text)
{
    if (!n->d)
        return text;
    jscope *old = r->scope;
    r->scope = scope_new(r, old);
    jv_put(r->c, r->scope->vars, jv_str(r->c, n->c->s), text);
    jval *v = eval(r, n->d);
    r->scope = old;
    return v;
}

static void exec_inner(jrun *r, const jnode *n)
{
    jctx *c = r->c;
    switch (n->tag) {
    case N_TEXT: jb_put(c, r->out, n->s); break;
    case N_OUT: jb_put(c, r->out, jv_print(c, eval(r, n->a))); break;
    case N_BODY:
        for (int i = 0; i < n->n && r->flow == GO; i++)
            exec(r, n->kid[i]);
        break;
    case N_IF:
        if (jv_truth(eval(r, n->a)))
            exec(r, n->b);
        else if (n->c)
            exec(r, n->c);
        break;
    case N_FOR: exec_for(r, n); break;
    case N_SET: assign(r, n->a, eval(r, n->b)); break;
    case N_SETBLOCK: assign(r, n->a, filtered(r, n, caught(r, n->b))); break;
    case N_FILTERBLOCK: jb_put(c, r->out, jv_print(c, filtered(r, n, caught(r, n->b)))); break;
    case N_MACRO: jv_put(c, r->scope->vars, jv_str(c, n->s), macro_value(r, n)); break;
    case N_CALLBLOCK: jb_put(c, r->out, jv_print(c, eval_call(r, n->a, macro_value(r, n)))); break;
    case N_BREAK: r->flow = BREAK; break;
    case N_CONTINUE: r->flow = CONTINUE; break;
    default: jx_fail(c, PB_E_INTERNAL, "unknown node %d", (int)n->tag);
    }
}

static void exec(jrun *r, const jnode *n)
{
    if (!n)
        return;
    r->c->line = n->line;
    jx_steps(r->c, 1);
    jx_enter(r->c);
    exec_inner(r, n);
    jx_leave(r->c);
}

/* ---- entries ----------------------------------------------------------- */

static void ctx_init(jctx *c, const pbi_jinja_limits *l, pb_err *err)
{
    *c = (jctx){ .max_bytes = l->bytes, .steps = l->steps, .max_depth = l->depth, .err = err };
}

static bool valid_utf8(const char *s, size_t n)
{
    json_t *j = json_stringn(s, n); /* jansson refuses anything else */
    json_decref(j);
    return j != NULL;
}

int pbi_jinja_parse(const char *src, size_t n, const pbi_jinja_limits *limits, pbi_jinja **out,
                    pb_err *err)
{
    if (n > 1 << 20)
        return pbi_err(err, PB_E_FORMAT, "chat template: %zu bytes are over the limit of 1 MiB", n);
    if (!valid_utf8(src, n))
        return pbi_err(err, PB_E_FORMAT, "chat template: not UTF-8");
    pbi_jinja *t = calloc(1, sizeof *t);
    char *own = malloc(n + 1);
    if (!t || !own) {
        free(t);
        free(own);
        return pbi_err(err, PB_E_NOMEM, "no memory for a chat template");
    }
    memcpy(own, src, n);
    own[n] = 0;
    t->source = own;
    if (limits)
        t->limits = *limits;
    if (!t->limits.steps)
        t->limits.steps = 20000000;
    if (!t->limits.bytes)
        t->limits.bytes = (size_t)64 << 20;
    if (!t->limits.depth)
        t->limits.depth = 200;
    ctx_init(&t->c, &t->limits, err);
    int rc = setjmp(t->c.fail);
    if (rc) {
        pbi_jinja_free(t);
        return rc;
    }
    t->root = jp_template(&t->c, own, n);
    *out = t;
    return 0;
}

void pbi_jinja_free(pbi_jinja *t)
{
    if (!t)
        return;
    jx_free_all(&t->c);
    free(t->source);
    free(t);
}

void pbi_marked_clear(pbi_marked *m)
{
    free(m->s);
    free(m->user);
    *m = (pbi_marked){ 0 };
}

static void render(const pbi_jinja *t, jctx *c, const json_t *context, jbuf *out)
{
    jrun r = { .c = c, .out = out };
    r.scope = scope_new(&r, NULL);
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)context, k, v)
    {
        size_t n = strlen(k);
        int ours = n > 6 && !strcmp(k + n - 6, "_token");
        jv_put(c, r.scope->vars, jv_text(c, k), jv_from_json(c, v, !ours));
    }
    r.scope = scope_new(&r, r.scope);
    exec(&r, t->root);
}

static int marked_from(jstr s, pbi_marked *out, pb_err *err)
{
    out->s = malloc(s.n + 1);
    out->user = calloc(s.n + 1, 1);
    if (!out->s || !out->user) {
        pbi_marked_clear(out);
        return pbi_err(err, PB_E_NOMEM, "no memory for a rendered template of %zu bytes", s.n);
    }
    memcpy(out->s, s.s, s.n);
    if (s.user)
        memcpy(out->user, s.user, s.n);
    out->s[s.n] = 0;
    out->n = s.n;
    return 0;
}

int pbi_jinja_render(const pbi_jinja *t, const json_t *context, const struct tm *now,
                     pbi_marked *out, pb_err *err)
{
    jctx *c = malloc(sizeof *c); /* not automatic: it changes after setjmp */
    jbuf *b = calloc(1, sizeof *b);
    *out = (pbi_marked){ 0 };
    if (!c || !b) {
        free(c);
        free(b);
        return pbi_err(err, PB_E_NOMEM, "no memory to render a chat template");
    }
    ctx_init(c, &t->limits, err);
    c->now = now;
    int rc = setjmp(c->fail);
    if (!rc) {
        render(t, c, context, b);
        rc = marked_from(jb_str(b), out, err);
    }
    jx_free_all(c);
    free(c);
    free(b);
    return rc;
}
