/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja_lib.c - the names that templates may use: filters, tests, global functions. Each
 * behaves as in Jinja 3.
 *
 * What is not here is an error that names it. Invariant: no function has a side effect outside
 * of the arena; dicts and lists of the context are never changed.
 */
#include "jinja_int.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

jval *jl_attr(jctx *c, jval *v, jstr name)
{
    if (v->kind == J_UNDEF)
        jx_fail(c, PB_E_FORMAT, "'%s' is undefined, so it has no '%.*s'", v->u.undef,
                (int)(name.n < 60 ? name.n : 60), name.s);
    jval key = { .kind = J_STR, .u.s = name };
    /* methods first, as Python's getattr; loop and namespace objects have members only */
    jval *m = v->space ? NULL : jl_method(c, v, name);
    if (m && v->kind == J_DICT) {
        jval *own = jv_get(c, v, &key);
        if (own && own->kind == J_FUNC)
            return own;
        return m;
    }
    if (m)
        return m;
    if (v->kind == J_DICT) {
        jval *e = jv_get(c, v, &key);
        if (e)
            return e;
    }
    return jv_undef(c, name.s, name.n);
}

jval *jl_item(jctx *c, jval *v, const jval *key)
{
    if (v->kind == J_UNDEF)
        jx_fail(c, PB_E_FORMAT, "'%s' is undefined", v->u.undef);
    if (v->kind == J_DICT) {
        jval *e = jv_get(c, v, key);
        if (e)
            return e;
    } else if ((v->kind == J_LIST || v->kind == J_STR) && key->kind == J_INT) {
        jval *l = jv_iter(c, v);
        int64_t i = key->u.i < 0 ? key->u.i + (int64_t)l->u.l.n : key->u.i;
        if (i >= 0 && i < (int64_t)l->u.l.n)
            return l->u.l.v[i];
    } else if (key->kind == J_STR)
        return jl_attr(c, v, key->u.s);
    jstr k = jv_print(c, key);
    return jv_undef(c, k.s, k.n);
}

/* ---- filters ----------------------------------------------------------- */

/* a.b.0 of v */
static jval *path(jctx *c, jval *v, const jval *attr)
{
    if (attr->kind == J_INT)
        return jl_item(c, v, attr);
    if (attr->kind != J_STR)
        jx_fail(c, PB_E_FORMAT, "an attribute must be a name");
    jval *parts = jl_split_at(c, attr->u.s, (jstr){ .s = ".", .n = 1 }, -1);
    for (size_t i = 0; i < parts->u.l.n && v->kind != J_UNDEF; i++) {
        jstr s = parts->u.l.v[i]->u.s;
        if (s.n && s.n < 18 && strspn(s.s, "0123456789") >= s.n)
            v = jl_item(c, v, jv_int(c, strtoll(s.s, NULL, 10)));
        else
            v = jl_item(c, v, parts->u.l.v[i]);
    }
    return v;
}

jval *jl_join(jctx *c, const jval *l, jstr sep, const jval *attr)
{
    jbuf b = { 0 };
    for (size_t i = 0; i < l->u.l.n; i++) {
        if (i)
            jb_put(c, &b, sep);
        jb_put(c, &b, jv_print(c, attr ? path(c, l->u.l.v[i], attr) : l->u.l.v[i]));
    }
    return jv_str(c, jb_str(&b));
}

static jval *f_join(jctx *c, jval *v, const jargs *a)
{
    const jval *d = jl_arg(a, 0, "d");
    return jl_join(c, jv_iter(c, v), d ? jl_as_str(c, d) : (jstr){ .s = "", .n = 0 },
                   jl_arg(a, 1, "attribute"));
}

static jval *f_length(jctx *c, jval *v, const jargs *a)
{
    return jv_int(c, jv_length(c, v));
}

static jval *f_upper(jctx *c, jval *v, const jargs *a)
{
    return jl_recase(c, jl_as_str(c, v), JL_UPPER);
}

static jval *f_lower(jctx *c, jval *v, const jargs *a)
{
    return jl_recase(c, jl_as_str(c, v), JL_LOWER);
}

static jval *f_title(jctx *c, jval *v, const jargs *a)
{
    return jl_recase(c, jl_as_str(c, v), JL_TITLE);
}

static jval *f_capitalize(jctx *c, jval *v, const jargs *a)
{
    return jl_recase(c, jl_as_str(c, v), JL_CAPITAL);
}

static jval *f_trim(jctx *c, jval *v, const jargs *a)
{
    return jl_trimmed(c, jl_as_str(c, v), a, true, true);
}

static jval *f_replace(jctx *c, jval *v, const jargs *a)
{
    return jl_replace(c, jl_as_str(c, v), jl_str_arg(c, a, 0, "old"), jl_str_arg(c, a, 1, "new"),
                      jl_int_arg(c, a, 2, "count", -1));
}

static jval *f_first(jctx *c, jval *v, const jargs *a)
{
    jval *l = jv_iter(c, v);
    return l->u.l.n ? l->u.l.v[0] : jv_undef(c, "first", 5);
}

static jval *f_last(jctx *c, jval *v, const jargs *a)
{
    jval *l = jv_iter(c, v);
    return l->u.l.n ? l->u.l.v[l->u.l.n - 1] : jv_undef(c, "last", 4);
}

static jval *f_list(jctx *c, jval *v, const jargs *a)
{
    return jv_iter(c, v);
}

static jval *f_string(jctx *c, jval *v, const jargs *a)
{
    return jv_str(c, jl_as_str(c, v));
}

static jval *f_same(jctx *c, jval *v, const jargs *a)
{
    return v;
}

static jval *f_escape(jctx *c, jval *v, const jargs *a)
{
    static const char from[] = "&<>\"'";
    static const char *const to[] = { "&amp;", "&lt;", "&gt;", "&#34;", "&#39;" };
    jstr s = jl_as_str(c, v);
    jbuf b = { 0 };
    for (size_t i = 0; i < s.n; i++) {
        const char *at = s.s[i] ? strchr(from, s.s[i]) : NULL;
        if (at)
            jb_text(c, &b, to[at - from]);
        else
            jb_put(c, &b, js_sub(s, i, 1));
    }
    return jv_str(c, jb_str(&b));
}

static jval *f_tojson(jctx *c, jval *v, const jargs *a)
{
    jbuf b = { 0 };
    jv_json(c, &b, v, a);
    return jv_str(c, jb_str(&b));
}

static bool number_text(jctx *c, const jval *v, double *f)
{
    if (jv_number(v, f))
        return true;
    if (v->kind != J_STR)
        return false;
    jstr s = js_trim(v->u.s, true, true, NULL);
    char num[64], *end;
    if (!s.n || s.n >= sizeof num || strspn(s.s, "+-.0123456789eE") < s.n)
        return false;
    memcpy(num, s.s, s.n);
    num[s.n] = 0;
    *f = strtod(num, &end);
    return !*end;
}

static jval *f_int(jctx *c, jval *v, const jargs *a)
{
    double f;
    jval *def = jl_arg(a, 0, "default");
    if (v->kind == J_INT || v->kind == J_BOOL)
        return jv_int(c, v->u.i);
    if (!number_text(c, v, &f) || !(fabs(f) < 9e18))
        return def ? def : jv_int(c, 0);
    return jv_int(c, (int64_t)f);
}

static jval *f_float(jctx *c, jval *v, const jargs *a)
{
    double f;
    jval *def = jl_arg(a, 0, "default");
    if (!number_text(c, v, &f))
        return def ? def : jv_float(c, 0);
    return jv_float(c, f);
}

static jval *f_abs(jctx *c, jval *v, const jargs *a)
{
    if (v->kind == J_FLOAT)
        return jv_float(c, fabs(v->u.f));
    if ((v->kind != J_INT && v->kind != J_BOOL) || v->u.i == INT64_MIN)
        jx_fail(c, PB_E_FORMAT, "abs needs a number, not %s", jv_type(v));
    return jv_int(c, v->u.i < 0 ? -v->u.i : v->u.i);
}

static jval *f_round(jctx *c, jval *v, const jargs *a)
{
    double f, p = pow(10, (double)jl_int_arg(c, a, 0, "precision", 0));
    const jval *how = jl_arg(a, 1, "method");
    if (!jv_number(v, &f))
        jx_fail(c, PB_E_FORMAT, "round needs a number, not %s", jv_type(v));
    f *= p;
    f = how && js_is(jl_as_str(c, how), "ceil")    ? ceil(f)
        : how && js_is(jl_as_str(c, how), "floor") ? floor(f)
                                                   : nearbyint(f);
    return jv_float(c, f / p);
}

static jval *f_default(jctx *c, jval *v, const jargs *a)
{
    jval *def = jl_arg(a, 0, "default_value");
    bool use = v->kind == J_UNDEF || (jl_flag_arg(a, 1, "boolean", false) && !jv_truth(v));
    return !use ? v : def ? def : jv_text(c, "");
}

/* merge sort: stable and O(n log n) whatever the order says */
typedef struct order {
    jctx *c;
    const jval *attr;
    bool reverse, sensitive;
} order;

static int order_cmp(const order *o, jval *a, jval *b)
{
    if (o->attr) {
        a = path(o->c, a, o->attr);
        b = path(o->c, b, o->attr);
    }
    if (a->kind == b->kind && (a->kind == J_UNDEF || a->kind == J_NONE))
        return 0;
    int d = jv_compare(o->c, a, b, !o->sensitive);
    return o->reverse ? -d : d;
}

static void merge_sort(const order *o, jval **v, jval **tmp, size_t n)
{
    if (n < 2)
        return;
    size_t h = n / 2, i = 0, k = h, w = 0;
    merge_sort(o, v, tmp, h);
    merge_sort(o, v + h, tmp, n - h);
    while (i < h && k < n)
        tmp[w++] = order_cmp(o, v[k], v[i]) < 0 ? v[k++] : v[i++];
    while (i < h)
        tmp[w++] = v[i++];
    while (k < n)
        tmp[w++] = v[k++];
    memcpy(v, tmp, n * sizeof *v);
}

static jval *sorted(jctx *c, const jval *v, const order *o)
{
    jval *l = jv_list(c), *in = jv_iter(c, v);
    for (size_t i = 0; i < in->u.l.n; i++)
        jv_push(c, l, in->u.l.v[i]);
    jval **tmp = jx_alloc(c, (l->u.l.n + 1) * sizeof *tmp);
    merge_sort(o, l->u.l.v, tmp, l->u.l.n);
    return l;
}

static jval *f_sort(jctx *c, jval *v, const jargs *a)
{
    order o = { .c = c,
                .reverse = jl_flag_arg(a, 0, "reverse", false),
                .sensitive = jl_flag_arg(a, 1, "case_sensitive", false),
                .attr = jl_arg(a, 2, "attribute") };
    return sorted(c, v, &o);
}

static jval *f_dictsort(jctx *c, jval *v, const jargs *a)
{
    const jval *by = jl_arg(a, 1, "by");
    jval at = { .kind = J_INT, .u.i = by && js_is(jl_as_str(c, by), "value") };
    order o = { .c = c,
                .sensitive = jl_flag_arg(a, 0, "case_sensitive", false),
                .reverse = jl_flag_arg(a, 2, "reverse", false),
                .attr = &at };
    return sorted(c, jl_m_items(c, v, a), &o);
}

static jval *f_reverse(jctx *c, jval *v, const jargs *a)
{
    jval *l = jv_list(c), *in = jv_iter(c, v);
    for (size_t i = in->u.l.n; i-- > 0;)
        jv_push(c, l, in->u.l.v[i]);
    return v->kind == J_STR ? jl_join(c, l, (jstr){ .s = "", .n = 0 }, NULL) : l;
}

static jval *f_unique(jctx *c, jval *v, const jargs *a)
{
    jval *l = jv_list(c), *in = jv_iter(c, v);
    for (size_t i = 0; i < in->u.l.n; i++)
        if (!jv_contains(c, l, in->u.l.v[i]))
            jv_push(c, l, in->u.l.v[i]);
    return l;
}

static jval *f_sum(jctx *c, jval *v, const jargs *a)
{
    jval *in = jv_iter(c, v), *attr = jl_arg(a, 0, "attribute"), *s = jl_arg(a, 1, "start");
    if (!s)
        s = jv_int(c, 0);
    for (size_t i = 0; i < in->u.l.n; i++)
        s = jv_arith(c, OP_ADD, s, attr ? path(c, in->u.l.v[i], attr) : in->u.l.v[i]);
    return s;
}

static jval *extreme(jctx *c, jval *v, int sign)
{
    jval *in = jv_iter(c, v), *best = NULL;
    for (size_t i = 0; i < in->u.l.n; i++)
        if (!best || sign * jv_compare(c, in->u.l.v[i], best, true) > 0)
            best = in->u.l.v[i];
    return best ? best : jv_undef(c, "extreme of nothing", 18);
}

static jval *f_max(jctx *c, jval *v, const jargs *a)
{
    return extreme(c, v, 1);
}

static jval *f_min(jctx *c, jval *v, const jargs *a)
{
    return extreme(c, v, -1);
}

static jval *f_indent(jctx *c, jval *v, const jargs *a)
{
    jstr s = jl_as_str(c, v);
    const jval *w = jl_arg(a, 0, "width");
    int64_t n = w && w->kind == J_STR ? 0 : jl_int_arg(c, a, 0, "width", 4);
    bool first = jl_flag_arg(a, 1, "first", false), blank = jl_flag_arg(a, 2, "blank", false);
    if (n > 1000)
        jx_fail(c, PB_E_FORMAT, "indent: a width over 1000");
    jbuf b = { 0 };
    for (size_t i = 0, line = 0; i <= s.n; line++) {
        size_t e = i;
        while (e < s.n && s.s[e] != '\n')
            e++;
        if ((line || first) && (e > i || blank)) {
            if (w && w->kind == J_STR)
                jb_put(c, &b, w->u.s);
            for (int64_t k = 0; k < n; k++)
                jb_byte(c, &b, ' ', 0);
        }
        jb_put(c, &b, js_sub(s, i, (e < s.n ? e + 1 : e) - i));
        i = e + 1;
    }
    return jv_str(c, jb_str(&b));
}

/* select, reject, selectattr, rejectattr: attr and keep tell which */
static jval *sift(jctx *c, jval *v, const jargs *a, bool attr, bool keep)
{
    jval *l = jv_list(c), *in = jv_iter(c, v);
    int skip = attr ? 1 : 0;
    if (attr && !a->n)
        jx_fail(c, PB_E_FORMAT, "selectattr needs the name of an attribute");
    jargs rest = { 0 };
    if (a->n > skip + 1) {
        rest.n = a->n - skip - 1;
        rest.v = a->v + skip + 1;
    }
    for (size_t i = 0; i < in->u.l.n; i++) {
        jval *e = attr ? path(c, in->u.l.v[i], a->v[0]) : in->u.l.v[i];
        bool yes = a->n > skip ? jl_test(c, jl_as_str(c, a->v[skip]), e, &rest) : jv_truth(e);
        if (yes == keep)
            jv_push(c, l, in->u.l.v[i]);
    }
    return l;
}

static jval *f_select(jctx *c, jval *v, const jargs *a)
{
    return sift(c, v, a, false, true);
}

static jval *f_reject(jctx *c, jval *v, const jargs *a)
{
    return sift(c, v, a, false, false);
}

static jval *f_selectattr(jctx *c, jval *v, const jargs *a)
{
    return sift(c, v, a, true, true);
}

static jval *f_rejectattr(jctx *c, jval *v, const jargs *a)
{
    return sift(c, v, a, true, false);
}

static jval *f_map(jctx *c, jval *v, const jargs *a)
{
    jval *l = jv_list(c), *in = jv_iter(c, v), *attr = jl_arg(a, -1, "attribute");
    jval *def = jl_arg(a, -1, "default");
    if (!attr && !a->n)
        jx_fail(c, PB_E_FORMAT, "map needs a filter or attribute=");
    jargs rest = { .n = a->n > 1 ? a->n - 1 : 0, .v = a->v + 1 };
    for (size_t i = 0; i < in->u.l.n; i++) {
        jval *e = attr ? path(c, in->u.l.v[i], attr)
                       : jl_filter(c, jl_as_str(c, a->v[0]), in->u.l.v[i], &rest);
        jv_push(c, l, attr && def && e->kind == J_UNDEF ? def : e);
    }
    return l;
}

static jval *f_items(jctx *c, jval *v, const jargs *a)
{
    return jl_m_items(c, v, a);
}

jval *jl_filter(jctx *c, jstr name, jval *v, const jargs *a)
{
    static const struct {
        const char *name;
        jval *(*fn)(jctx *, jval *, const jargs *);
    } t[] = { { "length", f_length },
              { "count", f_length },
              { "upper", f_upper },
              { "lower", f_lower },
              { "title", f_title },
              { "capitalize", f_capitalize },
              { "trim", f_trim },
              { "strip", f_trim },
              { "replace", f_replace },
              { "join", f_join },
              { "first", f_first },
              { "last", f_last },
              { "list", f_list },
              { "string", f_string },
              { "safe", f_same },
              { "e", f_escape },
              { "escape", f_escape },
              { "tojson", f_tojson },
              { "int", f_int },
              { "float", f_float },
              { "abs", f_abs },
              { "round", f_round },
              { "default", f_default },
              { "d", f_default },
              { "sort", f_sort },
              { "dictsort", f_dictsort },
              { "reverse", f_reverse },
              { "unique", f_unique },
              { "sum", f_sum },
              { "max", f_max },
              { "min", f_min },
              { "indent", f_indent },
              { "select", f_select },
              { "reject", f_reject },
              { "selectattr", f_selectattr },
              { "rejectattr", f_rejectattr },
              { "map", f_map },
              { "items", f_items } };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (js_is(name, t[i].name))
            return t[i].fn(c, v, a);
    jx_fail(c, PB_E_UNSUPPORTED, "no filter is called '%.*s'", (int)(name.n < 60 ? name.n : 60),
            name.s);
}

/* ---- tests ------------------------------------------------------------- */

static bool case_test(jstr s, bool upper)
{
    bool any = false;
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.s[i];
        if (upper ? ch >= 'a' && ch <= 'z' : ch >= 'A' && ch <= 'Z')
            return false;
        any |= (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
    }
    return any;
}

static bool whole(jctx *c, const jval *v, int64_t by)
{
    if (v->kind != J_INT && v->kind != J_BOOL)
        jx_fail(c, PB_E_FORMAT, "a whole number is needed, not %s", jv_type(v));
    if (!by)
        jx_fail(c, PB_E_FORMAT, "division by zero");
    return by == -1 || v->u.i % by == 0;
}

static bool kind_test(jstr n, const jval *v, bool *yes)
{
    jkind k = v->kind;
    static const char *const names[] = { "defined", "undefined", "none",     "string",  "number",
                                         "integer", "float",     "boolean",  "true",    "false",
                                         "mapping", "iterable",  "sequence", "callable" };
    const bool is[] = { k != J_UNDEF,
                        k == J_UNDEF,
                        k == J_NONE,
                        k == J_STR,
                        k == J_INT || k == J_FLOAT || k == J_BOOL,
                        k == J_INT,
                        k == J_FLOAT,
                        k == J_BOOL,
                        k == J_BOOL && v->u.i,
                        k == J_BOOL && !v->u.i,
                        k == J_DICT,
                        k == J_STR || k == J_LIST || k == J_DICT || k == J_UNDEF,
                        k == J_STR || k == J_LIST || k == J_DICT || k == J_UNDEF,
                        k == J_FUNC };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (js_is(n, names[i])) {
            *yes = is[i];
            return true;
        }
    return false;
}

bool jl_test(jctx *c, jstr n, jval *v, const jargs *a)
{
    bool yes;
    jval *o = jl_arg(a, 0, "other");
    if (kind_test(n, v, &yes))
        return yes;
    if (js_is(n, "odd"))
        return !whole(c, v, 2);
    if (js_is(n, "even"))
        return whole(c, v, 2);
    if (js_is(n, "lower"))
        return case_test(jl_as_str(c, v), false);
    if (js_is(n, "upper"))
        return case_test(jl_as_str(c, v), true);
    if (!o)
        jx_fail(c, PB_E_UNSUPPORTED, "no test without an argument is called '%.*s'",
                (int)(n.n < 60 ? n.n : 60), n.s);
    if (js_is(n, "eq") || js_is(n, "equalto") || js_is(n, "=="))
        return jv_equal(c, v, o);
    if (js_is(n, "ne") || js_is(n, "!="))
        return !jv_equal(c, v, o);
    if (js_is(n, "lt") || js_is(n, "lessthan") || js_is(n, "<"))
        return jv_compare(c, v, o, false) < 0;
    if (js_is(n, "le") || js_is(n, "<="))
        return jv_compare(c, v, o, false) <= 0;
    if (js_is(n, "gt") || js_is(n, "greaterthan") || js_is(n, ">"))
        return jv_compare(c, v, o, false) > 0;
    if (js_is(n, "ge") || js_is(n, ">="))
        return jv_compare(c, v, o, false) >= 0;
    if (js_is(n, "in"))
        return jv_contains(c, o, v);
    if (js_is(n, "sameas"))
        return v == o || (v->kind == o->kind && jv_equal(c, v, o));
    if (js_is(n, "divisibleby"))
        return whole(c, v, jl_int_arg(c, a, 0, "other", 0));
    jx_fail(c, PB_E_UNSUPPORTED, "no test is called '%.*s'", (int)(n.n < 60 ? n.n : 60), n.s);
}

/* ---- global functions -------------------------------------------------- */

static jval *g_range(jctx *c, jval *self, const jargs *a)
{
    int64_t lo = a->n > 1 ? jl_int_arg(c, a, 0, "start", 0) : 0;
    int64_t hi = jl_int_arg(c, a, a->n > 1 ? 1 : 0, "stop", 0),
            step = jl_int_arg(c, a, 2, "step", 1);
    if (!step)
        jx_fail(c, PB_E_FORMAT, "the step of range() is 0");
    jval *l = jv_list(c);
    for (int64_t i = lo; step > 0 ? i < hi : i > hi;) {
        jx_steps(c, 1);
        jv_push(c, l, jv_int(c, i));
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    return l;
}

static jval *g_dict(jctx *c, jval *self, const jargs *a)
{
    jval *d = jv_dict(c);
    if (a->n && a->v[0]->kind == J_DICT)
        for (size_t i = 0; i < a->v[0]->u.d.n; i++)
            jv_put(c, d, a->v[0]->u.d.k[i], a->v[0]->u.d.v[i]);
    for (int i = 0; i < a->n_named; i++)
        jv_put(c, d, jv_str(c, a->name[i]), a->named[i]);
    return d;
}

static jval *g_namespace(jctx *c, jval *self, const jargs *a)
{
    jval *d = g_dict(c, self, a);
    d->space = true;
    return d;
}

static jval *g_raise(jctx *c, jval *self, const jargs *a)
{
    jstr s = a->n ? jl_as_str(c, a->v[0]) : (jstr){ .s = "", .n = 0 };
    jx_fail(c, PB_E_INVAL, "refused by the template: %.*s", (int)(s.n < 300 ? s.n : 300), s.s);
}

static jval *g_strftime(jctx *c, jval *self, const jargs *a)
{
    jstr f = jl_str_arg(c, a, 0, "format");
    char fmt[256], out[512];
    if (!c->now)
        jx_fail(c, PB_E_UNSUPPORTED, "strftime_now: no time was given");
    if (!f.n || f.n >= sizeof fmt)
        jx_fail(c, PB_E_FORMAT, "strftime_now: a format of %zu bytes", f.n);
    memcpy(fmt, f.s, f.n);
    fmt[f.n] = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = strftime(out, sizeof out, fmt, c->now);
#pragma GCC diagnostic pop
    jbuf b = { 0 };
    jb_put(c, &b, (jstr){ .s = out, .n = n });
    return jv_str(c, jb_str(&b));
}

jval *jl_global(jctx *c, jstr name)
{
    static const struct {
        const char *name;
        jval *(*fn)(jctx *, jval *, const jargs *);
    } t[] = { { "range", g_range },
              { "dict", g_dict },
              { "namespace", g_namespace },
              { "raise_exception", g_raise },
              { "strftime_now", g_strftime } };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (js_is(name, t[i].name))
            return jv_func(c, t[i].name, t[i].fn, NULL);
    return NULL;
}
