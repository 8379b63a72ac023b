/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja_method.c - methods of strings, dicts and lists in templates, as in Python 3,
 * and the arguments of functions. Invariant: the object itself is never changed.
 */
#include "jinja_int.h"
#include <string.h>
#include <utf8proc.h>

jval *jl_arg(const jargs *a, int i, const char *name)
{
    if (i >= 0 && i < a->n)
        return a->v[i];
    for (int k = 0; k < a->n_named; k++)
        if (js_is(a->name[k], name))
            return a->named[k];
    return NULL;
}

bool jl_flag_arg(const jargs *a, int i, const char *name, bool def)
{
    const jval *v = jl_arg(a, i, name);
    return v ? jv_truth(v) : def;
}

int64_t jl_int_arg(jctx *c, const jargs *a, int i, const char *name, int64_t def)
{
    const jval *v = jl_arg(a, i, name);
    if (!v || v->kind == J_NONE)
        return def;
    if (v->kind != J_INT && v->kind != J_BOOL)
        jx_fail(c, PB_E_FORMAT, "argument '%s' must be a whole number, not %s", name, jv_type(v));
    return v->u.i;
}

jstr jl_str_arg(jctx *c, const jargs *a, int i, const char *name)
{
    const jval *v = jl_arg(a, i, name);
    if (!v || v->kind != J_STR)
        jx_fail(c, PB_E_FORMAT, "argument '%s' must be a string, not %s", name,
                v ? jv_type(v) : "absent");
    return v->u.s;
}

jstr jl_as_str(jctx *c, const jval *v)
{
    return jv_print(c, v);
}

/* ---- strings ----------------------------------------------------------- */

/* each character through utf8proc's simple case mapping */
jval *jl_recase(jctx *c, jstr s, int how)
{
    jbuf b = { 0 };
    bool start = true;
    for (size_t i = 0; i < s.n;) {
        size_t len = js_char(s, i);
        utf8proc_int32_t cp;
        utf8proc_uint8_t out[4];
        if (utf8proc_iterate((const utf8proc_uint8_t *)s.s + i, (utf8proc_ssize_t)len, &cp) < 0) {
            jb_put(c, &b, js_sub(s, i, len));
            i += len;
            continue;
        }
        bool up = how == JL_UPPER || (how != JL_LOWER && start);
        utf8proc_int32_t to = up ? utf8proc_toupper(cp) : utf8proc_tolower(cp);
        utf8proc_ssize_t n = utf8proc_encode_char(to, out);
        unsigned char mark = s.user ? s.user[i] : s.mark;
        jb_put(c, &b, (jstr){ .s = (char *)out, .n = (size_t)n, .mark = mark });
        utf8proc_category_t k = utf8proc_category(cp);
        bool letter = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
        start = how == JL_TITLE ? !letter : false;
        i += len;
    }
    return jv_str(c, jb_str(&b));
}

jval *jl_replace(jctx *c, jstr s, jstr from, jstr to, int64_t count)
{
    jbuf b = { 0 };
    size_t at = 0;
    for (; count != 0; count--) {
        size_t k = js_find(c, s, from, at);
        if (k == SIZE_MAX || (!from.n && k > s.n))
            break;
        if (!from.n) { /* between all characters */
            jb_put(c, &b, to);
            if (at >= s.n) {
                at = s.n;
                break;
            }
            size_t len = js_char(s, at);
            jb_put(c, &b, js_sub(s, at, len));
            at += len;
            continue;
        }
        jb_put(c, &b, js_sub(s, at, k - at));
        jb_put(c, &b, to);
        at = k + from.n;
    }
    jb_put(c, &b, js_sub(s, at, s.n - at));
    return jv_str(c, jb_str(&b));
}

static void push_str(jctx *c, jval *l, jstr s)
{
    jv_push(c, l, jv_str(c, s));
}

/* at runs of white space */
static jval *split_space(jctx *c, jstr s, int64_t max)
{
    jval *l = jv_list(c);
    s = js_trim(s, true, max < 0, NULL);
    while (s.n) {
        size_t i = 0;
        if (max >= 0 && (int64_t)l->u.l.n == max) {
            push_str(c, l, s);
            break;
        }
        while (i < s.n && js_trim(js_sub(s, i, js_char(s, i)), true, false, NULL).n)
            i += js_char(s, i);
        push_str(c, l, js_sub(s, 0, i));
        s = js_trim(js_sub(s, i, s.n - i), true, false, NULL);
    }
    return l;
}

jval *jl_split_at(jctx *c, jstr s, jstr sep, int64_t max)
{
    jval *l = jv_list(c);
    size_t at = 0, k;
    if (!sep.n)
        jx_fail(c, PB_E_FORMAT, "split: the separator is empty");
    while ((max < 0 || (int64_t)l->u.l.n < max) && (k = js_find(c, s, sep, at)) != SIZE_MAX) {
        push_str(c, l, js_sub(s, at, k - at));
        at = k + sep.n;
    }
    push_str(c, l, js_sub(s, at, s.n - at));
    return l;
}

static jval *m_split(jctx *c, jval *self, const jargs *a)
{
    const jval *sep = jl_arg(a, 0, "sep");
    int64_t max = jl_int_arg(c, a, 1, "maxsplit", -1);
    if (!sep || sep->kind == J_NONE)
        return split_space(c, self->u.s, max);
    return jl_split_at(c, self->u.s, jl_str_arg(c, a, 0, "sep"), max);
}

static jval *m_rsplit(jctx *c, jval *self, const jargs *a)
{
    jstr s = self->u.s, sep = jl_str_arg(c, a, 0, "sep");
    int64_t max = jl_int_arg(c, a, 1, "maxsplit", -1);
    jval *all = jl_split_at(c, s, sep, -1), *l = jv_list(c);
    size_t n = all->u.l.n, join = max >= 0 && (size_t)max + 1 < n ? n - (size_t)max : 1;
    const jval *last = all->u.l.v[join - 1];
    push_str(c, l, js_sub(s, 0, (size_t)(last->u.s.s + last->u.s.n - s.s)));
    for (size_t i = join; i < n; i++)
        jv_push(c, l, all->u.l.v[i]);
    return l;
}

static jval *m_splitlines(jctx *c, jval *self, const jargs *a)
{
    jval *l = jv_list(c);
    jstr s = self->u.s;
    for (size_t i = 0, from = 0; i <= s.n; i++)
        if (i == s.n ? from < s.n : s.s[i] == '\n') {
            size_t e = i > from && i < s.n && s.s[i - 1] == '\r' ? i - 1 : i;
            push_str(c, l, js_sub(s, from, e - from));
            from = i + 1;
        }
    return l;
}

jval *jl_trimmed(jctx *c, jstr s, const jargs *a, bool left, bool right)
{
    const jval *set = jl_arg(a, 0, "chars");
    jstr t;
    if (set && set->kind == J_STR)
        t = set->u.s;
    return jv_str(c, js_trim(s, left, right, set && set->kind == J_STR ? &t : NULL));
}

static jval *m_strip(jctx *c, jval *self, const jargs *a)
{
    return jl_trimmed(c, self->u.s, a, true, true);
}

static jval *m_lstrip(jctx *c, jval *self, const jargs *a)
{
    return jl_trimmed(c, self->u.s, a, true, false);
}

static jval *m_rstrip(jctx *c, jval *self, const jargs *a)
{
    return jl_trimmed(c, self->u.s, a, false, true);
}

static bool affix(jstr s, jstr t, bool end)
{
    return t.n <= s.n && !memcmp(s.s + (end ? s.n - t.n : 0), t.s, t.n);
}

static jval *with_affix(jctx *c, jval *self, const jargs *a, bool end)
{
    const jval *t = jl_arg(a, 0, "prefix");
    if (!t || t->kind != J_LIST)
        return jv_bool(affix(self->u.s, jl_str_arg(c, a, 0, "prefix"), end));
    for (size_t i = 0; i < t->u.l.n; i++)
        if (t->u.l.v[i]->kind == J_STR && affix(self->u.s, t->u.l.v[i]->u.s, end))
            return &jv_true;
    return &jv_false;
}

static jval *m_startswith(jctx *c, jval *self, const jargs *a)
{
    return with_affix(c, self, a, false);
}

static jval *m_endswith(jctx *c, jval *self, const jargs *a)
{
    return with_affix(c, self, a, true);
}

static jval *m_upper(jctx *c, jval *self, const jargs *a)
{
    return jl_recase(c, self->u.s, JL_UPPER);
}

static jval *m_lower(jctx *c, jval *self, const jargs *a)
{
    return jl_recase(c, self->u.s, JL_LOWER);
}

static jval *m_title(jctx *c, jval *self, const jargs *a)
{
    return jl_recase(c, self->u.s, JL_TITLE);
}

static jval *m_capitalize(jctx *c, jval *self, const jargs *a)
{
    return jl_recase(c, self->u.s, JL_CAPITAL);
}

static jval *m_replace(jctx *c, jval *self, const jargs *a)
{
    return jl_replace(c, self->u.s, jl_str_arg(c, a, 0, "old"), jl_str_arg(c, a, 1, "new"),
                      jl_int_arg(c, a, 2, "count", -1));
}

static jval *m_find(jctx *c, jval *self, const jargs *a)
{
    size_t k = js_find(c, self->u.s, jl_str_arg(c, a, 0, "sub"), 0);
    if (k == SIZE_MAX)
        return jv_int(c, -1);
    jval head = { .kind = J_STR, .u.s = js_sub(self->u.s, 0, k) };
    return jv_int(c, jv_length(c, &head));
}

static jval *m_count(jctx *c, jval *self, const jargs *a)
{
    jstr t = jl_str_arg(c, a, 0, "sub");
    int64_t n = 0;
    for (size_t k = 0; t.n && (k = js_find(c, self->u.s, t, k)) != SIZE_MAX; k += t.n)
        n++;
    return jv_int(c, n);
}

static jval *m_join(jctx *c, jval *self, const jargs *a)
{
    if (!a->n)
        jx_fail(c, PB_E_FORMAT, "join() needs a list");
    return jl_join(c, jv_iter(c, a->v[0]), self->u.s, NULL);
}

/* ---- dicts ------------------------------------------------------------- */

static jval *pair(jctx *c, jval *k, jval *v)
{
    jval *t = jv_list(c);
    t->tuple = true;
    jv_push(c, t, k);
    jv_push(c, t, v);
    return t;
}

jval *jl_m_items(jctx *c, jval *self, const jargs *a)
{
    jval *l = jv_list(c);
    if (self->kind == J_UNDEF)
        return l;
    if (self->kind != J_DICT)
        jx_fail(c, PB_E_FORMAT, "items needs a dict, not %s", jv_type(self));
    for (size_t i = 0; i < self->u.d.n; i++)
        jv_push(c, l, pair(c, self->u.d.k[i], self->u.d.v[i]));
    return l;
}

static jval *m_keys(jctx *c, jval *self, const jargs *a)
{
    return jv_iter(c, self);
}

static jval *m_values(jctx *c, jval *self, const jargs *a)
{
    jval *l = jv_list(c);
    for (size_t i = 0; i < self->u.d.n; i++)
        jv_push(c, l, self->u.d.v[i]);
    return l;
}

static jval *m_get(jctx *c, jval *self, const jargs *a)
{
    if (!a->n)
        jx_fail(c, PB_E_FORMAT, "get() needs a key");
    jval *v = jv_get(c, self, a->v[0]), *def = jl_arg(a, 1, "default");
    return v ? v : def ? def : &jv_none;
}

static jval *m_index(jctx *c, jval *self, const jargs *a)
{
    for (size_t i = 0; a->n && i < self->u.l.n; i++)
        if (jv_equal(c, self->u.l.v[i], a->v[0]))
            return jv_int(c, (int64_t)i);
    jx_fail(c, PB_E_FORMAT, "index(): the value is not in the list");
}

jval *jl_method(jctx *c, jval *self, jstr name)
{
    static const struct {
        jkind kind;
        const char *name;
        jval *(*fn)(jctx *, jval *, const jargs *);
    } t[] = { { J_STR, "split", m_split },           { J_STR, "rsplit", m_rsplit },
              { J_STR, "splitlines", m_splitlines }, { J_STR, "strip", m_strip },
              { J_STR, "lstrip", m_lstrip },         { J_STR, "rstrip", m_rstrip },
              { J_STR, "startswith", m_startswith }, { J_STR, "endswith", m_endswith },
              { J_STR, "upper", m_upper },           { J_STR, "lower", m_lower },
              { J_STR, "title", m_title },           { J_STR, "capitalize", m_capitalize },
              { J_STR, "replace", m_replace },       { J_STR, "find", m_find },
              { J_STR, "count", m_count },           { J_STR, "join", m_join },
              { J_DICT, "items", jl_m_items },       { J_DICT, "keys", m_keys },
              { J_DICT, "values", m_values },        { J_DICT, "get", m_get },
              { J_LIST, "index", m_index } };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (t[i].kind == self->kind && js_is(name, t[i].name))
            return jv_func(c, t[i].name, t[i].fn, self);
    return NULL;
}
