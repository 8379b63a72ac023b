/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja_value.c - values of templates and their Python-like behaviour: truth, order,
 * arithmetic, printing. Strings carry a mark for each byte (user or template).
 *
 * No names are looked up here and nothing is parsed.
 */
#include "jinja_int.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

jval jv_none = { .kind = J_NONE }, jv_true = { .kind = J_BOOL, .u.i = 1 },
     jv_false = { .kind = J_BOOL };

/* ---- arena ------------------------------------------------------------- */

void *jx_alloc(jctx *c, size_t n)
{
    if (n > c->max_bytes || c->bytes + n > c->max_bytes)
        jx_fail(c, PB_E_NOMEM, "needs more than its limit of %zu bytes", c->max_bytes);
    n = (n + 15) / 16 * 16;
    if (!c->chunk || c->chunk->used + n > c->chunk->cap) {
        size_t cap = n > 16384 ? n : 16384;
        jchunk *k = calloc(1, sizeof *k + cap);
        if (!k)
            jx_fail(c, PB_E_NOMEM, "no memory for %zu bytes", cap);
        k->cap = cap;
        k->next = c->chunk;
        c->chunk = k;
    }
    void *p = c->chunk->mem + c->chunk->used;
    c->chunk->used += n;
    c->bytes += n;
    return p;
}

void jx_free_all(jctx *c)
{
    while (c->chunk) {
        jchunk *k = c->chunk;
        c->chunk = k->next;
        free(k);
    }
}

void jx_fail(jctx *c, int code, const char *fmt, ...)
{
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    pbi_err(c->err, code, "chat template, line %d: %s", c->line, msg);
    longjmp(c->fail, code);
}

void jx_steps(jctx *c, int64_t n)
{
    c->steps -= n;
    if (c->steps < 0)
        jx_fail(c, PB_E_NOMEM, "takes more steps than its limit");
}

void jx_enter(jctx *c)
{
    if (++c->depth > c->max_depth)
        jx_fail(c, PB_E_NOMEM, "is nested or recurses deeper than its limit of %d", c->max_depth);
}

/* ---- making ------------------------------------------------------------ */

static jval *make(jctx *c, jkind k)
{
    jval *v = jx_alloc(c, sizeof *v);
    v->kind = k;
    return v;
}

jval *jv_undef(jctx *c, const char *name, size_t n)
{
    jval *v = make(c, J_UNDEF);
    char *s = jx_alloc(c, (n < 60 ? n : 60) + 1);
    memcpy(s, name, n < 60 ? n : 60);
    v->u.undef = s;
    return v;
}

jval *jv_int(jctx *c, int64_t i)
{
    jval *v = make(c, J_INT);
    v->u.i = i;
    return v;
}

jval *jv_float(jctx *c, double f)
{
    jval *v = make(c, J_FLOAT);
    v->u.f = f;
    return v;
}

jval *jv_str(jctx *c, jstr s)
{
    jval *v = make(c, J_STR);
    v->u.s = s;
    return v;
}

jval *jv_text(jctx *c, const char *s)
{
    return jv_str(c, (jstr){ .s = s, .n = strlen(s) });
}

jval *jv_list(jctx *c)
{
    return make(c, J_LIST);
}

static jval **grown(jctx *c, jval **old, size_t n, size_t cap)
{
    jval **p = jx_alloc(c, cap * sizeof *p);
    if (n)
        memcpy(p, old, n * sizeof *p);
    return p;
}

void jv_push(jctx *c, jval *l, jval *v)
{
    if (l->u.l.n == l->u.l.cap) {
        l->u.l.cap = l->u.l.cap ? l->u.l.cap * 2 : 4;
        l->u.l.v = grown(c, l->u.l.v, l->u.l.n, l->u.l.cap);
    }
    l->u.l.v[l->u.l.n++] = v;
}

jval *jv_dict(jctx *c)
{
    return make(c, J_DICT);
}

static size_t dict_at(jctx *c, const jval *d, const jval *k)
{
    jx_steps(c, (int64_t)(d->u.d.n / 16));
    for (size_t i = 0; i < d->u.d.n; i++)
        if (jv_equal(c, d->u.d.k[i], k))
            return i;
    return SIZE_MAX;
}

void jv_put(jctx *c, jval *d, jval *k, jval *v)
{
    size_t i = dict_at(c, d, k);
    if (i == SIZE_MAX) {
        if (d->u.d.n == d->u.d.cap) {
            d->u.d.cap = d->u.d.cap ? d->u.d.cap * 2 : 4;
            d->u.d.k = grown(c, d->u.d.k, d->u.d.n, d->u.d.cap);
            d->u.d.v = grown(c, d->u.d.v, d->u.d.n, d->u.d.cap);
        }
        i = d->u.d.n++;
        d->u.d.k[i] = k;
    }
    d->u.d.v[i] = v;
}

jval *jv_get(jctx *c, const jval *d, const jval *k)
{
    size_t i = dict_at(c, d, k);
    return i == SIZE_MAX ? NULL : d->u.d.v[i];
}

jval *jv_get_text(jctx *c, const jval *d, const char *k)
{
    jval key = { .kind = J_STR, .u.s = { .s = k, .n = strlen(k) } };
    return jv_get(c, d, &key);
}

jval *jv_func(jctx *c, const char *name, jval *(*fn)(jctx *, jval *, const jargs *), jval *self)
{
    jval *v = make(c, J_FUNC);
    v->u.fn = jx_alloc(c, sizeof *v->u.fn);
    *v->u.fn = (jfunc){ .name = name, .fn = fn, .self = self };
    return v;
}

jval *jv_from_json(jctx *c, const json_t *j, int mark)
{
    jx_enter(c);
    jx_steps(c, 1);
    jval *v = &jv_none;
    if (json_is_boolean(j))
        v = jv_bool(json_is_true(j));
    else if (json_is_integer(j))
        v = jv_int(c, json_integer_value(j));
    else if (json_is_real(j))
        v = jv_float(c, json_real_value(j));
    else if (json_is_string(j))
        v = jv_str(c, (jstr){ .s = json_string_value(j),
                              .n = json_string_length(j),
                              .mark = (unsigned char)mark });
    else if (json_is_array(j)) {
        v = jv_list(c);
        for (size_t i = 0; i < json_array_size(j); i++)
            jv_push(c, v, jv_from_json(c, json_array_get(j, i), mark));
    } else if (json_is_object(j)) {
        v = jv_dict(c);
        const char *k;
        json_t *e;
        json_object_foreach((json_t *)(uintptr_t)j, k, e)
            jv_put(c, v, jv_str(c, (jstr){ .s = k, .n = strlen(k), .mark = (unsigned char)mark }),
                   jv_from_json(c, e, mark));
    }
    jx_leave(c);
    return v;
}

/* ---- strings ----------------------------------------------------------- */

static void room(jctx *c, jbuf *b, size_t n)
{
    if (b->n + n + 1 <= b->cap)
        return;
    size_t cap = b->cap ? b->cap * 2 : 64;
    while (cap < b->n + n + 1)
        cap *= 2;
    char *s = jx_alloc(c, cap);
    unsigned char *u = jx_alloc(c, cap);
    if (b->n) {
        memcpy(s, b->s, b->n);
        memcpy(u, b->user, b->n);
    }
    b->s = s;
    b->user = u;
    b->cap = cap;
}

void jb_put(jctx *c, jbuf *b, jstr s)
{
    if (!s.n)
        return;
    jx_steps(c, 1 + (int64_t)(s.n / 64));
    room(c, b, s.n);
    memcpy(b->s + b->n, s.s, s.n);
    if (s.user)
        memcpy(b->user + b->n, s.user, s.n);
    else
        memset(b->user + b->n, s.mark, s.n);
    b->n += s.n;
}

void jb_text(jctx *c, jbuf *b, const char *s)
{
    jb_put(c, b, (jstr){ .s = s, .n = strlen(s) });
}

void jb_byte(jctx *c, jbuf *b, char ch, unsigned char mark)
{
    jb_put(c, b, (jstr){ .s = &ch, .n = 1, .mark = mark });
}

jstr jb_str(const jbuf *b)
{
    return (jstr){ .s = b->n ? b->s : "", .n = b->n, .user = b->n ? b->user : NULL };
}

jstr js_sub(jstr s, size_t from, size_t n)
{
    return (jstr){ .s = s.s + from, .n = n, .user = s.user ? s.user + from : NULL, .mark = s.mark };
}

bool js_is(jstr s, const char *t)
{
    return strlen(t) == s.n && !memcmp(s.s, t, s.n);
}

size_t js_char(jstr s, size_t at)
{
    size_t n = 1;
    while (at + n < s.n && ((unsigned char)s.s[at + n] & 0xc0) == 0x80)
        n++;
    return n;
}

static bool is_space(jstr s, size_t at, size_t len)
{
    utf8proc_int32_t cp;
    if (len == 1)
        return strchr(" \t\n\r\v\f\x1c\x1d\x1e\x1f", s.s[at]) && s.s[at];
    if (utf8proc_iterate((const utf8proc_uint8_t *)s.s + at, (utf8proc_ssize_t)len, &cp) < 0)
        return false;
    utf8proc_category_t k = utf8proc_category(cp);
    return cp == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL ||
           k == UTF8PROC_CATEGORY_ZP;
}

static bool in_set(jstr s, size_t at, size_t len, const jstr *set)
{
    if (!set)
        return is_space(s, at, len);
    for (size_t i = 0; i < set->n; i += js_char(*set, i))
        if (js_char(*set, i) == len && !memcmp(set->s + i, s.s + at, len))
            return true;
    return false;
}

jstr js_trim(jstr s, bool left, bool right, const jstr *set)
{
    size_t a = 0, e = s.n;
    while (left && a < e && in_set(s, a, js_char(s, a), set))
        a += js_char(s, a);
    while (right && e > a) {
        size_t k = e - 1;
        while (k > a && ((unsigned char)s.s[k] & 0xc0) == 0x80)
            k--;
        if (!in_set(s, k, e - k, set))
            break;
        e = k;
    }
    return js_sub(s, a, e - a);
}

size_t js_find(jctx *c, jstr s, jstr t, size_t from)
{
    if (t.n > s.n)
        return SIZE_MAX;
    for (size_t i = from; i + t.n <= s.n; i++) {
        if (!t.n)
            return i;
        const char *p = memchr(s.s + i, t.s[0], s.n - t.n - i + 1);
        size_t seen = p ? (size_t)(p - s.s) - i : s.n - i;
        jx_steps(c, 1 + (int64_t)(seen / 64 + t.n / 64));
        if (!p)
            return SIZE_MAX;
        i += seen;
        if (!memcmp(p, t.s, t.n))
            return i;
    }
    return SIZE_MAX;
}

/* ---- behaviour --------------------------------------------------------- */

const char *jv_type(const jval *v)
{
    static const char *const name[] = { "undefined", "none", "bool", "int",     "float",
                                        "str",       "list", "dict", "function" };
    return name[v->kind];
}

bool jv_truth(const jval *v)
{
    switch (v->kind) {
    case J_UNDEF:
    case J_NONE: return false;
    case J_BOOL:
    case J_INT: return v->u.i != 0;
    case J_FLOAT: return v->u.f != 0;
    case J_STR: return v->u.s.n != 0;
    case J_LIST: return v->u.l.n != 0;
    case J_DICT: return v->u.d.n != 0 || v->space;
    case J_FUNC: return true;
    }
    return false;
}

bool jv_number(const jval *v, double *f)
{
    if (v->kind == J_FLOAT)
        *f = v->u.f;
    else if (v->kind == J_INT || v->kind == J_BOOL)
        *f = (double)v->u.i;
    else
        return false;
    return true;
}

bool jv_equal(jctx *c, const jval *a, const jval *b)
{
    double x, y;
    jx_steps(c, 1);
    if (jv_number(a, &x) && jv_number(b, &y)) {
        if (a->kind != J_FLOAT && b->kind != J_FLOAT)
            return a->u.i == b->u.i;
        return x == y;
    }
    if (a->kind != b->kind)
        return false;
    bool same = a == b;
    jx_enter(c);
    if (a->kind == J_UNDEF || a->kind == J_NONE)
        same = true;
    else if (a->kind == J_STR)
        same = a->u.s.n == b->u.s.n && (!a->u.s.n || !memcmp(a->u.s.s, b->u.s.s, a->u.s.n));
    else if (a->kind == J_LIST) {
        same = a->u.l.n == b->u.l.n;
        for (size_t i = 0; same && i < a->u.l.n; i++)
            same = jv_equal(c, a->u.l.v[i], b->u.l.v[i]);
    } else if (a->kind == J_DICT) {
        same = a->u.d.n == b->u.d.n;
        for (size_t i = 0; same && i < a->u.d.n; i++) {
            const jval *o = jv_get(c, b, a->u.d.k[i]);
            same = o && jv_equal(c, a->u.d.v[i], o);
        }
    }
    jx_leave(c);
    return same;
}

static int fold(unsigned char x, bool on)
{
    return on && x >= 'A' && x <= 'Z' ? x + 32 : x;
}

int jv_compare(jctx *c, const jval *a, const jval *b, bool fold_case)
{
    double x, y;
    jx_steps(c, 1);
    if (jv_number(a, &x) && jv_number(b, &y))
        return x < y ? -1 : x > y;
    if (a->kind == J_STR && b->kind == J_STR) {
        size_t n = a->u.s.n < b->u.s.n ? a->u.s.n : b->u.s.n;
        for (size_t i = 0; i < n; i++) {
            int d = fold((unsigned char)a->u.s.s[i], fold_case) -
                    fold((unsigned char)b->u.s.s[i], fold_case);
            if (d)
                return d;
        }
        return a->u.s.n < b->u.s.n ? -1 : a->u.s.n > b->u.s.n;
    }
    if (a->kind == J_LIST && b->kind == J_LIST) {
        for (size_t i = 0; i < a->u.l.n && i < b->u.l.n; i++) {
            int d = jv_compare(c, a->u.l.v[i], b->u.l.v[i], fold_case);
            if (d)
                return d;
        }
        return a->u.l.n < b->u.l.n ? -1 : a->u.l.n > b->u.l.n;
    }
    jx_fail(c, PB_E_FORMAT, "%s and %s have no order", jv_type(a), jv_type(b));
}

bool jv_contains(jctx *c, const jval *in, const jval *v)
{
    if (in->kind == J_STR) {
        if (v->kind == J_UNDEF)
            return false;
        if (v->kind != J_STR)
            jx_fail(c, PB_E_FORMAT, "'in' a string needs a string, not %s", jv_type(v));
        return js_find(c, in->u.s, v->u.s, 0) != SIZE_MAX;
    }
    if (in->kind == J_DICT)
        return jv_get(c, in, v) != NULL;
    if (in->kind == J_UNDEF)
        return false;
    if (in->kind != J_LIST)
        jx_fail(c, PB_E_FORMAT, "'in' needs a container, not %s", jv_type(in));
    for (size_t i = 0; i < in->u.l.n; i++)
        if (jv_equal(c, in->u.l.v[i], v))
            return true;
    return false;
}

jval *jv_iter(jctx *c, const jval *v)
{
    jval *l = jv_list(c);
    if (v->kind == J_LIST) {
        l->u.l = v->u.l;
        l->u.l.cap = v->u.l.n; /* a push makes a copy first */
    } else if (v->kind == J_DICT)
        for (size_t i = 0; i < v->u.d.n; i++)
            jv_push(c, l, v->u.d.k[i]);
    else if (v->kind == J_STR)
        for (size_t i = 0; i < v->u.s.n; i += js_char(v->u.s, i))
            jv_push(c, l, jv_str(c, js_sub(v->u.s, i, js_char(v->u.s, i))));
    else if (v->kind != J_UNDEF)
        jx_fail(c, PB_E_FORMAT, "%s cannot be iterated over", jv_type(v));
    return l;
}

int64_t jv_length(jctx *c, const jval *v)
{
    int64_t k = 0;
    switch (v->kind) {
    case J_UNDEF: return 0;
    case J_LIST: return (int64_t)v->u.l.n;
    case J_DICT: return (int64_t)v->u.d.n;
    case J_STR:
        for (size_t i = 0; i < v->u.s.n; i++)
            k += ((unsigned char)v->u.s.s[i] & 0xc0) != 0x80;
        return k;
    default: jx_fail(c, PB_E_FORMAT, "%s has no length", jv_type(v));
    }
}

static jval *arith_int(jctx *c, int op, int64_t x, int64_t y)
{
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case OP_ADD: over = __builtin_add_overflow(x, y, &r); break;
    case OP_SUB: over = __builtin_sub_overflow(x, y, &r); break;
    case OP_MUL: over = __builtin_mul_overflow(x, y, &r); break;
    case OP_POW:
        if (y < 0)
            return jv_float(c, pow((double)x, (double)y));
        for (r = 1; y > 0 && !over; y--) {
            over = __builtin_mul_overflow(r, x, &r);
            jx_steps(c, 1);
        }
        break;
    default: /* OP_FLOOR, OP_MOD: rounded down, as Python does */
        if (!y)
            jx_fail(c, PB_E_FORMAT, "division by zero");
        if (x == INT64_MIN && y == -1) {
            over = op == OP_FLOOR;
            break;
        }
        r = op == OP_FLOOR ? x / y - (x % y != 0 && (x < 0) != (y < 0))
                           : x % y + (x % y != 0 && (x < 0) != (y < 0) ? y : 0);
    }
    if (over)
        jx_fail(c, PB_E_FORMAT, "a whole number is over 64 bits");
    return jv_int(c, r);
}

static jval *arith_repeat(jctx *c, const jval *s, int64_t n)
{
    if (s->kind == J_STR) {
        jbuf b = { 0 };
        for (int64_t i = 0; i < n && s->u.s.n; i++)
            jb_put(c, &b, s->u.s);
        return jv_str(c, jb_str(&b));
    }
    jval *l = jv_list(c);
    for (int64_t i = 0; i < n; i++)
        for (size_t k = 0; k < s->u.l.n; k++) {
            jx_steps(c, 1);
            jv_push(c, l, s->u.l.v[k]);
        }
    return l;
}

jval *jv_arith(jctx *c, int op, jval *a, jval *b)
{
    double x, y;
    if (op == OP_CAT || (op == OP_ADD && (a->kind == J_STR || b->kind == J_STR))) {
        /* a string and a number: Python would refuse, JavaScript implementations join */
        if (op == OP_ADD && (a->kind == J_UNDEF || b->kind == J_UNDEF))
            jx_fail(c, PB_E_FORMAT, "'%s' is undefined",
                    a->kind == J_UNDEF ? a->u.undef : b->u.undef);
        if (op == OP_ADD && (a->kind == J_NONE || b->kind == J_NONE))
            jx_fail(c, PB_E_FORMAT, "none cannot be joined to a string with +");
        jbuf s = { 0 };
        jb_put(c, &s, jv_print(c, a));
        jb_put(c, &s, jv_print(c, b));
        return jv_str(c, jb_str(&s));
    }
    if (op == OP_ADD && a->kind == J_LIST && b->kind == J_LIST) {
        jval *l = jv_list(c);
        l->tuple = a->tuple;
        for (size_t i = 0; i < a->u.l.n; i++)
            jv_push(c, l, a->u.l.v[i]);
        for (size_t i = 0; i < b->u.l.n; i++)
            jv_push(c, l, b->u.l.v[i]);
        return l;
    }
    if (op == OP_MUL && b->kind == J_INT && (a->kind == J_STR || a->kind == J_LIST))
        return arith_repeat(c, a, b->u.i);
    if (!jv_number(a, &x) || !jv_number(b, &y)) {
        if (a->kind == J_UNDEF || b->kind == J_UNDEF)
            jx_fail(c, PB_E_FORMAT, "'%s' is undefined",
                    a->kind == J_UNDEF ? a->u.undef : b->u.undef);
        jx_fail(c, PB_E_FORMAT, "no arithmetic between %s and %s", jv_type(a), jv_type(b));
    }
    if (op != OP_DIV && a->kind != J_FLOAT && b->kind != J_FLOAT)
        return arith_int(c, op, a->u.i, b->u.i);
    if ((op == OP_DIV || op == OP_FLOOR || op == OP_MOD) && y == 0)
        jx_fail(c, PB_E_FORMAT, "division by zero");
    switch (op) {
    case OP_ADD: return jv_float(c, x + y);
    case OP_SUB: return jv_float(c, x - y);
    case OP_MUL: return jv_float(c, x * y);
    case OP_DIV: return jv_float(c, x / y);
    case OP_FLOOR: return jv_float(c, floor(x / y));
    case OP_MOD: return jv_float(c, x - floor(x / y) * y);
    default: return jv_float(c, pow(x, y));
    }
}

/* ---- printing ---------------------------------------------------------- */

/* the shortest digits that give f back, in Python's form */
static void print_float(jctx *c, jbuf *b, double f)
{
    char s[40];
    if (f != f || f == INFINITY || f == -INFINITY) {
        jb_text(c, b, f != f ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    int p = 1;
    for (; p < 17; p++) {
        snprintf(s, sizeof s, "%.*e", p - 1, f);
        if (strtod(s, NULL) == f)
            break;
    }
    snprintf(s, sizeof s, "%.*e", p - 1, f);
    int e = atoi(strchr(s, 'e') + 1);
    if (e >= 16 || e < -4) {
        jb_text(c, b, s);
        return;
    }
    snprintf(s, sizeof s, "%.*f", p - 1 - e > 1 ? p - 1 - e : 1, f);
    jb_text(c, b, s);
}

static void print_quoted(jctx *c, jbuf *b, jstr s)
{
    char q = memchr(s.s, '\'', s.n) && !memchr(s.s, '"', s.n) ? '"' : '\'';
    jb_byte(c, b, q, 0);
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.s[i];
        if (ch == '\n' || ch == '\t' || ch == '\r')
            jb_text(c, b, ch == '\n' ? "\\n" : ch == '\t' ? "\\t" : "\\r");
        else {
            if (ch == q || ch == '\\')
                jb_byte(c, b, '\\', 0);
            jb_put(c, b, js_sub(s, i, 1));
        }
    }
    jb_byte(c, b, q, 0);
}

void jv_print_into(jctx *c, jbuf *b, const jval *v, bool quoted)
{
    char num[32];
    jx_enter(c);
    switch (v->kind) {
    case J_UNDEF: break;
    case J_NONE: jb_text(c, b, "None"); break;
    case J_BOOL: jb_text(c, b, v->u.i ? "True" : "False"); break;
    case J_INT:
        snprintf(num, sizeof num, "%lld", (long long)v->u.i);
        jb_text(c, b, num);
        break;
    case J_FLOAT: print_float(c, b, v->u.f); break;
    case J_STR:
        if (quoted)
            print_quoted(c, b, v->u.s);
        else
            jb_put(c, b, v->u.s);
        break;
    case J_LIST:
        jb_text(c, b, v->tuple ? "(" : "[");
        for (size_t i = 0; i < v->u.l.n; i++) {
            if (i)
                jb_text(c, b, ", ");
            jv_print_into(c, b, v->u.l.v[i], true);
        }
        jb_text(c, b, v->tuple ? (v->u.l.n == 1 ? ",)" : ")") : "]");
        break;
    case J_DICT:
        jb_text(c, b, "{");
        for (size_t i = 0; i < v->u.d.n; i++) {
            if (i)
                jb_text(c, b, ", ");
            jv_print_into(c, b, v->u.d.k[i], true);
            jb_text(c, b, ": ");
            jv_print_into(c, b, v->u.d.v[i], true);
        }
        jb_text(c, b, "}");
        break;
    case J_FUNC:
        jb_text(c, b, "<function ");
        jb_text(c, b, v->u.fn->name ? v->u.fn->name : "macro");
        jb_text(c, b, ">");
        break;
    }
    jx_leave(c);
}

jstr jv_print(jctx *c, const jval *v)
{
    if (v->kind == J_STR)
        return v->u.s;
    jbuf b = { 0 };
    jv_print_into(c, &b, v, false);
    return jb_str(&b);
}
