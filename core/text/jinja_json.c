/* SPDX-License-Identifier: MIT
 *
 * core/text/jinja_json.c - the tojson filter, with the forms of Python's json.dumps: indent,
 * separators, ensure_ascii, sort_keys. Marks of strings pass through.
 */
#include "jinja_int.h"
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

typedef struct jform {
    int64_t indent; /* -1: one line */
    jstr item, key;
    bool ascii, sort;
} jform;

static void put_string(jctx *c, jbuf *b, jstr s, bool ascii)
{
    char esc[16];
    jb_byte(c, b, '"', 0);
    for (size_t i = 0; i < s.n;) {
        unsigned char ch = (unsigned char)s.s[i];
        size_t len = js_char(s, i);
        static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
        const char *at = ch ? strchr(from, ch) : NULL;
        utf8proc_int32_t cp = 0;
        if (at) {
            esc[0] = '\\';
            esc[1] = to[at - from];
            esc[2] = 0;
            jb_text(c, b, esc);
        } else if (ch < 32 || (ascii && ch == 127)) {
            snprintf(esc, sizeof esc, "\\u%04x", (unsigned)ch);
            jb_text(c, b, esc);
        } else if (ascii && len > 1 &&
                   utf8proc_iterate((const utf8proc_uint8_t *)s.s + i, (utf8proc_ssize_t)len, &cp) >
                       0) {
            if (cp > 0xffff)
                snprintf(esc, sizeof esc, "\\u%04x\\u%04x", (unsigned)(0xd7c0 + (cp >> 10)),
                         (unsigned)(0xdc00 + (cp & 0x3ff)));
            else
                snprintf(esc, sizeof esc, "\\u%04x", (unsigned)cp);
            jb_text(c, b, esc);
        } else
            jb_put(c, b, js_sub(s, i, len));
        i += len;
    }
    jb_byte(c, b, '"', 0);
}

static void put_line(jctx *c, jbuf *b, const jform *f, int level)
{
    if (f->indent < 0)
        return;
    jb_text(c, b, "\n");
    for (int64_t i = 0; i < f->indent * level; i++)
        jb_text(c, b, " ");
}

static void put_value(jctx *c, jbuf *b, const jval *v, const jform *f, int level);

static void put_dict(jctx *c, jbuf *b, const jval *v, const jform *f, int level)
{
    size_t n = v->u.d.n;
    size_t *order = jx_alloc(c, (n + 1) * sizeof *order);
    for (size_t i = 0; i < n; i++) {
        size_t k = i;
        while (f->sort && k > 0 && jv_compare(c, v->u.d.k[i], v->u.d.k[order[k - 1]], false) < 0) {
            order[k] = order[k - 1];
            k--;
        }
        order[k] = i;
    }
    jb_text(c, b, "{");
    for (size_t i = 0; i < n; i++) {
        const jval *k = v->u.d.k[order[i]];
        if (i)
            jb_put(c, b, f->item);
        put_line(c, b, f, level + 1);
        put_string(c, b, jv_print(c, k), f->ascii);
        jb_put(c, b, f->key);
        put_value(c, b, v->u.d.v[order[i]], f, level + 1);
    }
    if (n)
        put_line(c, b, f, level);
    jb_text(c, b, "}");
}

static void put_value(jctx *c, jbuf *b, const jval *v, const jform *f, int level)
{
    jx_enter(c);
    switch (v->kind) {
    case J_UNDEF: jx_fail(c, PB_E_FORMAT, "tojson: '%s' is undefined", v->u.undef);
    case J_NONE: jb_text(c, b, "null"); break;
    case J_BOOL: jb_text(c, b, v->u.i ? "true" : "false"); break;
    case J_STR: put_string(c, b, v->u.s, f->ascii); break;
    case J_LIST:
        jb_text(c, b, "[");
        for (size_t i = 0; i < v->u.l.n; i++) {
            if (i)
                jb_put(c, b, f->item);
            put_line(c, b, f, level + 1);
            put_value(c, b, v->u.l.v[i], f, level + 1);
        }
        if (v->u.l.n)
            put_line(c, b, f, level);
        jb_text(c, b, "]");
        break;
    case J_DICT: put_dict(c, b, v, f, level); break;
    case J_FUNC: jx_fail(c, PB_E_FORMAT, "tojson: a function has no JSON form");
    default: jv_print_into(c, b, v, false);
    }
    jx_leave(c);
}

void jv_json(jctx *c, jbuf *b, const jval *v, const jargs *a)
{
    jval *indent = jl_arg(a, 1, "indent"), *sep = jl_arg(a, 2, "separators");
    jval *ascii = jl_arg(a, 0, "ensure_ascii"), *sort = jl_arg(a, 3, "sort_keys");
    if (a->n == 1 && a->v[0]->kind == J_INT) { /* Jinja's own tojson(indent) */
        indent = a->v[0];
        ascii = NULL;
    }
    jform f = { .indent = indent && indent->kind == J_INT ? indent->u.i : -1,
                .item = { .s = ", ", .n = 2 },
                .key = { .s = ": ", .n = 2 },
                .ascii = ascii && jv_truth(ascii),
                .sort = sort && jv_truth(sort) };
    if (f.indent > 64)
        jx_fail(c, PB_E_FORMAT, "tojson: an indent of %lld is over the limit of 64",
                (long long)f.indent);
    if (f.indent >= 0)
        f.item = (jstr){ .s = ",", .n = 1 };
    if (sep && sep->kind == J_LIST && sep->u.l.n == 2 && sep->u.l.v[0]->kind == J_STR &&
        sep->u.l.v[1]->kind == J_STR) {
        f.item = sep->u.l.v[0]->u.s;
        f.key = sep->u.l.v[1]->u.s;
    }
    put_value(c, b, v, &f, 0);
}
