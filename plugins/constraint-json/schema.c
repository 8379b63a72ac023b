/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-json/schema.c - translates a schema (draft 2020-12's words) keyword by
 * keyword. jansson reads the schema and writes constants; everything else is nodes.
 *
 * Narrower than the standard, and always valid: members in the schema's order; without
 * additionalProperties no names but those in properties (any, where there are none); names that
 * are not declared have no escapes; integers have at most 18 digits, numbers 15 and an exponent
 * of 2; oneOf only where no text could match two branches.
 */
#include "schema.h"
#include "../constraint-common/regex.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 100, MAX_ITEMS = 65536, MAX_PATH = 200 };

typedef struct tr {
    pbc_grammar *g;
    json_t *root;
    pb_err *err;
    int failed, depth;
    int32_t ws, chr, any; /* blanks; a character of a string; rule of any value */
    char path[MAX_PATH];
} tr;

static int32_t value(tr *t, json_t *s);

static int32_t bad(tr *t, const char *what, const char *name)
{
    if (!t->failed)
        pbc_fail(t->err, PB_E_INVAL, "%s: schema, at #%s: %s %s", t->g->who, t->path, what, name);
    t->failed = 1;
    return 0;
}

/* Goes into a member for messages; the result is given to leave(). */
static size_t enter(tr *t, const char *key, const char *name)
{
    size_t at = strlen(t->path);
    snprintf(t->path + at, sizeof t->path - at, "/%s%s%s", key, name[0] ? "/" : "", name);
    return at;
}

static int32_t sub(tr *t, json_t *s, const char *key, const char *name)
{
    size_t at = enter(t, key, name);
    int32_t x = value(t, s);
    t->path[at] = 0;
    return x;
}

static int32_t sign(tr *t, const char *s)
{
    return pbc_text(t->g, s, strlen(s));
}

/* x with blanks before and after it */
static int32_t spaced(tr *t, const char *s)
{
    return pbc_cat(t->g, t->ws, pbc_cat(t->g, sign(t, s), t->ws));
}

/* ---- scalars ----------------------------------------------------------- */

static int32_t regex(tr *t, const char *s)
{
    pb_err err = { 0 };
    int32_t x = pbc_regex(t->g, s, strlen(s), 0, &err);
    return x < 0 ? bad(t, err.msg, "") : x;
}

/* A number of things from schema members min and max; 0 and -1 when absent. */
static int limits(tr *t, json_t *s, const char *min, const char *max, int32_t *lo, int32_t *hi)
{
    const char *const key[2] = { min, max };
    int32_t *const out[2] = { lo, hi };
    *lo = 0;
    *hi = -1;
    for (int i = 0; i < 2; i++) {
        json_t *v = json_object_get(s, key[i]);
        if (!v)
            continue;
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > MAX_ITEMS)
            return (int)bad(t, "a whole number from 0 to 65536 is expected in", key[i]);
        *out[i] = (int32_t)json_integer_value(v);
    }
    if (*hi >= 0 && *hi < *lo)
        bad(t, "greater than its maximum:", min);
    return !t->failed;
}

static int32_t string(tr *t, json_t *s)
{
    int32_t lo, hi, quote = sign(t, "\""), inner;
    json_t *pattern = json_object_get(s, "pattern");
    if (!limits(t, s, "minLength", "maxLength", &lo, &hi))
        return 0;
    if (pattern) {
        pb_err err = { 0 };
        if (!json_is_string(pattern))
            return bad(t, "a string is expected in", "pattern");
        if (lo != 0 || hi != -1)
            return bad(t, "not both are translated: pattern and", lo ? "minLength" : "maxLength");
        inner = pbc_regex(t->g, json_string_value(pattern), json_string_length(pattern), 1, &err);
        if (inner < 0)
            return bad(t, err.msg, "");
    } else {
        inner = pbc_repeat(t->g, t->chr, lo, hi);
    }
    return pbc_cat(t->g, quote, pbc_cat(t->g, inner, quote));
}

static int32_t constant(tr *t, json_t *v)
{
    char *s = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!s)
        return bad(t, "cannot be written:", "const");
    int32_t x = sign(t, s);
    free(s);
    return x;
}

static int32_t enumeration(tr *t, json_t *list)
{
    size_t i;
    json_t *v;
    int32_t x = -1;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return bad(t, "a list that is not empty is expected in", "enum");
    json_array_foreach(list, i, v)
    {
        int32_t y = constant(t, v);
        x = x < 0 ? y : pbc_alt(t->g, x, y);
    }
    return x;
}

/* ---- arrays and objects ------------------------------------------------ */

static int32_t array(tr *t, json_t *s)
{
    int32_t lo, hi;
    json_t *items = json_object_get(s, "items");
    if (!limits(t, s, "minItems", "maxItems", &lo, &hi))
        return 0;
    int32_t x = items ? sub(t, items, "items", "") : pbc_ref(t->g, t->any), full = 0;
    if (hi != 0) {
        int32_t next = pbc_cat(t->g, spaced(t, ","), x);
        full = pbc_cat(t->g, x, pbc_repeat(t->g, next, lo > 0 ? lo - 1 : 0, hi < 0 ? -1 : hi - 1));
        if (lo == 0)
            full = pbc_alt(t->g, full, 0);
    }
    int32_t end = pbc_cat(t->g, t->ws, sign(t, "]"));
    return pbc_cat(t->g, sign(t, "["), pbc_cat(t->g, t->ws, pbc_cat(t->g, full, end)));
}

/* The rest of a name, after n bytes that it has in common with names of props, that is none of
 * them. Names are plain characters; a byte that some declared name has here goes on with it. */
static int32_t other_name(tr *t, json_t *props, const char *prefix, size_t n)
{
    uint8_t taken[256] = { 0 };
    const char *key;
    json_t *v;
    int declared = 0;
    int32_t x = -1, plain = -1;
    if (n > 128 || t->g->failed)
        return bad(t, "a name of more than 128 bytes beside", "additionalProperties");
    json_object_foreach(props, key, v)
    {
        if (strncmp(key, prefix, n) != 0)
            continue;
        declared |= key[n] == 0;
        if (key[n] && !taken[(uint8_t)key[n]]) {
            char longer[132];
            taken[(uint8_t)key[n]] = 1;
            memcpy(longer, key, n + 1);
            longer[n + 1] = 0;
            int32_t y = pbc_cat(t->g, pbc_byte(t->g, (uint8_t)key[n], (uint8_t)key[n]),
                                other_name(t, props, longer, n + 1));
            if ((uint8_t)key[n] < 0x80 && key[n] >= ' ' && key[n] != '"' && key[n] != '\\')
                x = x < 0 ? y : pbc_alt(t->g, x, y);
        }
    }
    pbc_set set = { 0 };
    for (uint32_t c = ' '; c < 0x7f; c++)
        if (c != '"' && c != '\\' && !taken[c])
            pbc_set_add(&set, c, c);
    if (set.n) {
        pbc_set all = { .n = 3, .lo = { ' ', '#', ']' }, .hi = { '!', '[', '~' } };
        plain =
            pbc_cat(t->g, pbc_class(t->g, &set), pbc_repeat(t->g, pbc_class(t->g, &all), 0, -1));
        x = x < 0 ? plain : pbc_alt(t->g, x, plain);
    }
    if (!declared)
        x = x < 0 ? 0 : pbc_alt(t->g, x, 0);
    return x < 0 ? bad(t, "no name is left for", "additionalProperties") : x;
}

static int required(json_t *s, const char *key)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(s, "required"), i, v)
    {
        if (!strcmp(json_string_value(v), key))
            return 1;
    }
    return 0;
}

/* required must be a list of names that properties has. */
static void check_required(tr *t, json_t *s, json_t *props)
{
    json_t *list = json_object_get(s, "required"), *v;
    size_t i;
    if (list && !json_is_array(list))
        bad(t, "a list is expected in", "required");
    json_array_foreach(list, i, v)
    {
        if (!json_is_string(v))
            bad(t, "names are expected in", "required");
        else if (!json_object_get(props, json_string_value(v)))
            bad(t, "required, but not in properties:", json_string_value(v));
    }
}

static int32_t member(tr *t, const char *key, json_t *s)
{
    json_t *name = json_string(key);
    int32_t k = constant(t, name);
    json_decref(name);
    return pbc_cat(t->g, k, pbc_cat(t->g, spaced(t, ":"), sub(t, s, "properties", key)));
}

/* One more member that is not declared, or -1: none. */
static int32_t additional(tr *t, json_t *s, json_t *props)
{
    json_t *more = json_object_get(s, "additionalProperties");
    int32_t q = sign(t, "\""), v;
    if (json_is_false(more) || (!more && json_object_size(props) > 0))
        return -1;
    v = more ? sub(t, more, "additionalProperties", "") : pbc_ref(t->g, t->any);
    v = pbc_cat(t->g, q, pbc_cat(t->g, spaced(t, ":"), v));
    return pbc_cat(t->g, q, pbc_cat(t->g, other_name(t, props, "", 0), v));
}

/* From the last member to the first: what may follow when none was written yet (first) and when
 * one was (later, with its comma). */
static int32_t object(tr *t, json_t *s)
{
    json_t *props = json_object_get(s, "properties"), *empty = json_object(), *v;
    const char *key[1024];
    size_t n = 0;
    if (props && !json_is_object(props))
        bad(t, "an object is expected in", "properties");
    props = json_is_object(props) ? props : empty;
    check_required(t, s, props);
    if (json_object_size(props) > 1024)
        bad(t, "more than 1024 members in", "properties");
    int32_t more = t->failed ? -1 : additional(t, s, props), first = 0, later = 0;
    int32_t comma = spaced(t, ",");
    if (more >= 0) {
        later = pbc_repeat(t->g, pbc_cat(t->g, comma, more), 0, -1);
        first = pbc_alt(t->g, pbc_cat(t->g, more, later), 0);
    }
    if (!t->failed) {
        const char *k;
        json_object_foreach(props, k, v) key[n++] = k;
    }
    while (n-- > 0 && !t->failed) {
        int32_t m = member(t, key[n], json_object_get(props, key[n]));
        int32_t with = pbc_cat(t->g, m, later), after = pbc_cat(t->g, comma, with);
        int must = required(s, key[n]);
        first = must ? with : pbc_alt(t->g, with, first);
        later = must ? after : pbc_alt(t->g, after, later);
    }
    json_decref(empty);
    int32_t end = pbc_cat(t->g, t->ws, sign(t, "}"));
    return pbc_cat(t->g, sign(t, "{"), pbc_cat(t->g, t->ws, pbc_cat(t->g, first, end)));
}

/* ---- types ------------------------------------------------------------- */

static const char *const types[] = { "null",   "boolean", "integer", "number",
                                     "string", "array",   "object" };

static int32_t of_type(tr *t, json_t *s, const char *type)
{
    static const char integer[] = "-?(0|[1-9][0-9]{0,17})";
    static const char number[] = "-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?";
    if (!strcmp(type, "null"))
        return sign(t, "null");
    if (!strcmp(type, "boolean"))
        return regex(t, "true|false");
    if (!strcmp(type, "integer"))
        return regex(t, integer);
    if (!strcmp(type, "number"))
        return regex(t, number);
    if (!strcmp(type, "string"))
        return string(t, s);
    if (!strcmp(type, "array"))
        return array(t, s);
    if (!strcmp(type, "object"))
        return object(t, s);
    return bad(t, "this type is not known:", type);
}

/* The type that keywords speak of when there is no type, or NULL: any value. */
static const char *implied(json_t *s)
{
    static const struct {
        const char *key, *type;
    } of[] = {
        { "properties", "object" }, { "required", "object" },  { "additionalProperties", "object" },
        { "items", "array" },       { "minItems", "array" },   { "maxItems", "array" },
        { "minLength", "string" },  { "maxLength", "string" }, { "pattern", "string" }
    };
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++)
        if (json_object_get(s, of[i].key))
            return of[i].type;
    return NULL;
}

static int32_t typed(tr *t, json_t *s)
{
    json_t *type = json_object_get(s, "type"), *v;
    const char *guess = implied(s);
    size_t i;
    int32_t x = -1;
    if (!type)
        return guess ? of_type(t, s, guess) : pbc_ref(t->g, t->any);
    if (json_is_string(type))
        return of_type(t, s, json_string_value(type));
    if (!json_is_array(type) || json_array_size(type) == 0)
        return bad(t, "a name or a list of names is expected in", "type");
    json_array_foreach(type, i, v)
    {
        if (!json_is_string(v))
            return bad(t, "names are expected in", "type");
        int32_t y = of_type(t, s, json_string_value(v));
        x = x < 0 ? y : pbc_alt(t->g, x, y);
    }
    return x;
}

/* ---- combinations ------------------------------------------------------ */

/* Bits of the types that a branch may have, of types[]; all when it does not say. */
static unsigned type_bits(json_t *s)
{
    json_t *type = json_object_get(s, "type"), *one;
    const char *guess = implied(s);
    unsigned bits = 0;
    for (unsigned i = 0; i < 7; i++) {
        int has = (json_is_string(type) && !strcmp(json_string_value(type), types[i])) ||
                  (!type && guess && !strcmp(guess, types[i]));
        for (size_t k = 0; k < json_array_size(type); k++) {
            one = json_array_get(type, k);
            has |= json_is_string(one) && !strcmp(json_string_value(one), types[i]);
        }
        bits |= has ? 1u << i : 0;
    }
    if (bits & 12) /* an integer is a number */
        bits |= bits & 8 ? 12 : 4;
    return bits ? bits : 127;
}

static int same_constant(json_t *a, json_t *b)
{
    json_t *x = json_object_get(a, "const"), *y = json_object_get(b, "const");
    return !x || !y || json_equal(x, y);
}

/* Might one text match both? Types differ, constants differ, or a required member's constants. */
static int overlap(json_t *a, json_t *b)
{
    const char *key;
    json_t *v;
    if (!(type_bits(a) & type_bits(b)) || !same_constant(a, b))
        return 0;
    json_object_foreach(json_object_get(a, "properties"), key, v)
    {
        json_t *w = json_object_get(json_object_get(b, "properties"), key);
        if (w && required(a, key) && required(b, key) && !same_constant(v, w))
            return 0;
    }
    return 1;
}

static int32_t branches(tr *t, json_t *list, const char *key)
{
    int32_t x = -1;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return bad(t, "a list that is not empty is expected in", key);
    for (size_t i = 0; i < json_array_size(list) && !t->failed; i++) {
        char name[24];
        snprintf(name, sizeof name, "%zu", i);
        for (size_t k = 0; k < i && !strcmp(key, "oneOf"); k++)
            if (overlap(json_array_get(list, i), json_array_get(list, k)))
                return bad(t,
                           "a text might match two branches; use anyOf, or a constant member "
                           "that tells them apart, in",
                           key);
        int32_t y = sub(t, json_array_get(list, i), key, name);
        x = x < 0 ? y : pbc_alt(t->g, x, y);
    }
    return x;
}

/* "#" or "#/a/b": a rule named by the reference, translated when first met. */
static int32_t reference(tr *t, json_t *ref)
{
    const char *s = json_string_value(ref);
    char name[PBC_NAME], part[PBC_NAME];
    json_t *to = t->root;
    if (!s || s[0] != '#' || (s[1] && s[1] != '/') || strpbrk(s, "~%"))
        return bad(t, "only local references as #/$defs/name are followed, not", s ? s : "this");
    if (strlen(s) >= sizeof name)
        return bad(t, "a reference of more than 63 bytes:", s);
    snprintf(name, sizeof name, "%s", s);
    for (const char *p = s + 1; *p; p += strlen(part)) {
        p++;
        snprintf(part, sizeof part, "%.*s", (int)strcspn(p, "/"), p);
        to = json_is_array(to) ? NULL : json_object_get(to, part);
        if (!to)
            return bad(t, "nothing is at", s);
    }
    int32_t before = t->g->n_rules, r = pbc_rule_of(t->g, name, 1);
    if (r >= before && !t->g->failed) {
        int32_t x = value(t, to);
        if (!t->g->failed)
            t->g->rule[r].body = x;
    }
    return pbc_ref(t->g, r);
}

/* Every keyword is translated, an annotation, or refused. alone: it may stand with annotations
 * only, since two conditions on one value are not joined. */
static const char *check_keywords(tr *t, json_t *s)
{
    static const char alone[] = " $ref anyOf oneOf const enum ";
    static const char known[] = " type properties required additionalProperties items minItems "
                                "maxItems minLength maxLength pattern ";
    static const char notes[] = " title description default examples $schema $id $comment $defs "
                                "definitions deprecated readOnly writeOnly ";
    const char *key, *only = NULL, *other = NULL;
    json_t *v;
    json_object_foreach(s, key, v)
    {
        char word[40];
        snprintf(word, sizeof word, " %.37s ", key);
        if (strlen(key) > 30 || strchr(key, ' ') ||
            (!strstr(alone, word) && !strstr(known, word) && !strstr(notes, word))) {
            bad(t, "this keyword is not translated:", key);
            return NULL;
        }
        if (strstr(alone, word)) {
            other = only ? only : other;
            only = key;
        } else if (strstr(known, word) && strcmp(key, "type") != 0) {
            other = key;
        } else if (!strcmp(key, "type")) {
            other = other ? other : key;
        }
    }
    int constant_typed = only && other && (!strcmp(only, "const") || !strcmp(only, "enum")) &&
                         !strcmp(other, "type");
    if (only && other && !constant_typed)
        bad(t, "conditions are not joined: leave out one of", only);
    return only;
}

/* With type beside const or enum, the constants must have it. */
static void check_constants(tr *t, json_t *s)
{
    json_t *list = json_object_get(s, "enum"), *one = json_object_get(s, "const");
    unsigned bits = type_bits(s);
    for (size_t i = 0; i < json_array_size(list) + (one != NULL); i++) {
        json_t *v = i < json_array_size(list) ? json_array_get(list, i) : one;
        unsigned is = json_is_null(v)      ? 1u
                      : json_is_boolean(v) ? 2u
                      : json_is_integer(v) ? 4u
                      : json_is_real(v)    ? 8u
                      : json_is_string(v)  ? 16u
                      : json_is_array(v)   ? 32u
                                           : 64u;
        if (!(bits & is))
            bad(t, "a constant is not of the", "type");
    }
}

static int32_t value(tr *t, json_t *s)
{
    if (t->failed || t->g->failed)
        return 0;
    if (json_is_true(s))
        return pbc_ref(t->g, t->any);
    if (!json_is_object(s))
        return bad(t, "a schema is an object or true, not", json_is_false(s) ? "false" : "this");
    if (t->depth == MAX_DEPTH)
        return bad(t, "more than 100 schemas inside one another", "");
    const char *only = check_keywords(t, s);
    int32_t x = 0;
    t->depth++;
    if (t->failed)
        x = 0;
    else if (!only)
        x = typed(t, s);
    else if (!strcmp(only, "$ref"))
        x = reference(t, json_object_get(s, only));
    else if (!strcmp(only, "anyOf") || !strcmp(only, "oneOf"))
        x = branches(t, json_object_get(s, only), only);
    else {
        check_constants(t, s);
        x = !strcmp(only, "enum") ? enumeration(t, json_object_get(s, only))
                                  : constant(t, json_object_get(s, only));
    }
    t->depth--;
    return x;
}

/* ---- the whole --------------------------------------------------------- */

/* Blanks, characters and the rule of any value, which others refer to. */
static void prepare(tr *t, int64_t spaces)
{
    pbc_set blank = { .n = 2, .lo = { '\n', ' ' }, .hi = { '\n', ' ' } };
    json_t *empty = json_object();
    t->ws = pbc_repeat(t->g, pbc_class(t->g, &blank), 0, (int32_t)spaces);
    t->chr = regex(t, "[^\"\\\\\\x00-\\x1f]|\\\\([\"\\\\/bfnrt]|u([0-9a-cA-CefEF][0-9a-fA-F]{3}|"
                      "[dD][0-7][0-9a-fA-F]{2}))");
    t->any = pbc_rule_of(t->g, "any value", 1);
    int32_t x = of_type(t, empty, types[0]);
    for (int i = 1; i < 7; i++)
        if (i != 2) /* integers are numbers */
            x = pbc_alt(t->g, x, of_type(t, empty, types[i]));
    if (!t->g->failed)
        t->g->rule[t->any].body = x;
    json_decref(empty);
}

int32_t schema_translate(pbc_grammar *g, const char *s, size_t n, int64_t spaces, pb_err *err)
{
    json_error_t why;
    tr t = { .g = g, .err = err };
    t.root = json_loadb(s, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!t.root) {
        pbc_fail(err, PB_E_INVAL, "%s: the schema is no JSON: line %d: %s", g->who, why.line,
                 why.text);
        return -1;
    }
    prepare(&t, spaces);
    int32_t r = pbc_rule_of(g, "#", 1), x = value(&t, t.root);
    if (!g->failed)
        g->rule[r].body = x;
    json_decref(t.root);
    return t.failed ? -1 : pbc_ref(g, r);
}
