/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_jinja.c - templates: white space, scopes, marks of the user's text, limits
 * against hostile sources, and a bounded run of random mutations.
 *
 * Published templates and their renderings are tests/e2e/test_templates.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

static int run(const char *src, size_t n, const char *json, const pbi_jinja_limits *lim,
               pbi_marked *out, pb_err *err)
{
    pbi_jinja *t;
    json_error_t je;
    struct tm tm = { .tm_year = 124, .tm_mon = 6, .tm_mday = 26, .tm_hour = 12 };
    *out = (pbi_marked){ 0 };
    int rc = pbi_jinja_parse(src, n, lim, &t, err);
    if (rc)
        return rc;
    json_t *ctx = json_loads(json, 0, &je);
    if (!ctx)
        fail_msg("%s", je.text);
    rc = pbi_jinja_render(t, ctx, &tm, out, err);
    json_decref(ctx);
    pbi_jinja_free(t);
    return rc;
}

static const char context[] =
    "{\"bos_token\":\"<s>\",\"messages\":[{\"role\":\"user\",\"content\":\"<s>Hi \\u00e9\"},"
    "{\"role\":\"assistant\",\"content\":\"yo\"}],\"n\":3,\"d\":{\"b\":1,\"a\":[1,2.5,null]}}";

static void renders(void **state)
{
    static const struct {
        const char *src, *want;
    } cases[] = {
        { "a{{ n + 1 }}b", "a4b" },
        { "  {% if n %}\n  x\n  {% endif %}\ny\n", "  x\ny" }, /* trim_blocks, lstrip_blocks */
        { "  {%+ if n %}\nx{% endif %}", "  x" },
        { "a {{- n -}} b", "a3b" },
        { "{# c #}\nx{#- d -#} y", "xy" },
        { "{% for m in messages %}{{ loop.index }}{{ m.role }}{% if not loop.last %},{% endif %}"
          "{% endfor %}",
          "1user,2assistant" },
        { "{% set x = 1 %}{% for i in range(3) %}{% set x = i %}{% endfor %}{{ x }}", "1" },
        { "{% set q = namespace(x=1) %}{% for i in range(3) %}{% set q.x = i %}{% endfor %}"
          "{{ q.x }}",
          "2" },
        { "{{ d | tojson }}|{{ d.a }}|{{ true }}", "{\"b\": 1, \"a\": [1, 2.5, null]}|[1, 2.5, "
                                                   "None]|True" },
        { "{{ messages[0].content[3:] | upper }}", "HI \xc3\x89" },
        { "{{ messages | map(attribute='role') | join('+') }}", "user+assistant" },
        { "{{ strftime_now('%Y-%m-%d') }}", "2024-07-26" },
        { "{{ nothing }}{{ nothing is defined }}{{ nothing | default('x') }}", "Falsex" },
        { "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(3, b=4) }}", "1234" },
        { "{{ 'a' if n == 3 else 'b' }}{{ 7 // 2 }}{{ -7 // 2 }}{{ 2 ** 10 }}", "a3-41024" },
        { "{% for x in [1,2,3,4] if x != 2 %}{% if x == 4 %}{% break %}{% endif %}{{ x }}"
          "{% endfor %}",
          "13" },
        { "{% generation %}text{% endgeneration %}", "text" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pbi_marked m;
        pb_err err = { 0 };
        if (run(cases[i].src, strlen(cases[i].src), context, NULL, &m, &err))
            fail_msg("%s: %s", cases[i].src, err.msg);
        assert_string_equal(m.s, cases[i].want);
        pbi_marked_clear(&m);
    }
}

/* what came from a message is marked through all that templates do with it */
static void user_text_is_marked(void **state)
{
    static const struct {
        const char *src, *marks;
    } cases[] = {
        { "{{ bos_token }}[{{ messages[0].content }}]", "000011111111 0" },
        { "{{ messages[0].content | trim | upper }}", "11111111" },
        { "{{ ('<s>' + messages[0].content)[2:6] }}", "0111" },
        { "{{ messages[0].content.replace('s', '<s>') }}", "1000111111" },
        { "{% set x %}<s>{{ messages[1].content }}{% endset %}{{ x }}{{ x | tojson }}",
          "00011000011 0" },
        { "{{ messages[1].content.split('o') | join('<s>') }}", "1000" },
        { "{% for k in {'a': 1} %}{{ k }}{{ messages[1].role[:2] }}{% endfor %}", "011" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pbi_marked m;
        pb_err err = { 0 };
        char want[64] = "";
        for (const char *p = cases[i].marks; *p; p++)
            if (*p != ' ')
                strncat(want, p, 1);
        if (run(cases[i].src, strlen(cases[i].src), context, NULL, &m, &err))
            fail_msg("%s: %s", cases[i].src, err.msg);
        if (m.n != strlen(want))
            fail_msg("%s: %zu bytes \"%s\" for marks %s", cases[i].src, m.n, m.s, want);
        for (size_t k = 0; k < m.n; k++)
            if (m.user[k] != want[k] - '0')
                fail_msg("%s: mark of byte %zu of \"%s\"", cases[i].src, k, m.s);
        pbi_marked_clear(&m);
    }
}

static void errors_say_what_and_where(void **state)
{
    static const struct {
        const char *src, *says;
        int code;
    } cases[] = {
        { "\n\n{{ x.y }}", "line 3: 'x' is undefined", PB_E_FORMAT },
        { "{% if n %}", "no 'elif'", PB_E_FORMAT },
        { "{{ n | wat }}", "no filter is called 'wat'", PB_E_UNSUPPORTED },
        { "{% include 'x' %}", "no statement is called 'include'", PB_E_FORMAT },
        { "{{ raise_exception('no ' + 'way') }}", "refused by the template: no way", PB_E_INVAL },
        { "{{ 1 / 0 }}", "division by zero", PB_E_FORMAT },
        { "{{ 'abc }}", "a string has no end", PB_E_FORMAT },
        { "{{ n", "end of the template", PB_E_FORMAT },
        { "{{ 9223372036854775807 + 1 }}", "over 64 bits", PB_E_FORMAT },
        { "\xff", "not UTF-8", PB_E_FORMAT },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pbi_marked m;
        pb_err err = { 0 };
        assert_int_equal(run(cases[i].src, strlen(cases[i].src), context, NULL, &m, &err),
                         cases[i].code);
        if (!strstr(err.msg, cases[i].says))
            fail_msg("\"%s\" lacks \"%s\"", err.msg, cases[i].says);
    }
}

static void hostile_templates_end(void **state)
{
    static const char *const src[] = {
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{% for k in range(1000) %}"
        "{% endfor %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set q = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(100) %}"
        "{% set q.s = q.s + q.s %}{% endfor %}",
        "{{ 'a' * 1000000000000 }}",
        "{{ [1] * 1000000000000 }}",
        "{{ 2 ** 1000000000000 }}",
        "{% set q = namespace(l=[]) %}{% for i in range(100) %}{% set q.l = [q.l, q.l] %}"
        "{% endfor %}{{ q.l }}",
        "{{ x | indent(100000) }}",
    };
    for (size_t i = 0; i < sizeof src / sizeof *src; i++) {
        pbi_marked m;
        pb_err err = { 0 };
        if (!run(src[i], strlen(src[i]), context, NULL, &m, &err))
            fail_msg("%s went through", src[i]);
        assert_true(err.code == PB_E_NOMEM || err.code == PB_E_FORMAT);
    }
    static const char *const open[] = { "(", "[", "{", "-", "not ", "{{ ", "{% if 1 %}", "a.b[" };
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) { /* deep nesting */
        char *s = calloc(1, 800004);
        assert_non_null(s);
        strcpy(s, "{{");
        for (size_t n = 2, k = strlen(open[i]); n + k < 800000; n += k)
            memcpy(s + n, open[i], k);
        pbi_marked m;
        pb_err err = { 0 };
        assert_true(run(s, strlen(s), context, NULL, &m, &err) < 0);
        free(s);
    }
}

/* random splices of template fragments: an error or a rendering, never a crash */
static void mutations(void **state)
{
    static const char *const bit[] = { "{{ ",        " }}",
                                       "{% ",        " %}",
                                       "{# ",        " #}",
                                       "-",          "if ",
                                       "else ",      "endif ",
                                       "for x in ",  "endfor ",
                                       "messages",   "[0]",
                                       ".content",   "(",
                                       ")",          "[",
                                       "]",          "{",
                                       "}",          "'s'",
                                       "\"",         "1",
                                       " in ",       " is ",
                                       "defined",    " | ",
                                       "tojson",     "upper",
                                       "join",       "sort",
                                       "set q = ",   "macro f(a) ",
                                       "endmacro ",  "f(",
                                       "*",          "range(5)",
                                       ",",          ":",
                                       "=",          "~",
                                       "+",          "\n",
                                       " ",          "loop.index",
                                       "x",          "namespace()",
                                       "not ",       " and ",
                                       " or ",       "map('f')",
                                       "split('o')", "\xc3\xa9",
                                       "3.5",        "//",
                                       "dictsort",   "d",
                                       "n",          "break ",
                                       "call ",      "filter upper ",
                                       "-1",         "::",
                                       "true",       "none" };
    srand(17);
    const char *budget = getenv("PATCHBAY_FUZZ_SECONDS");
    time_t end = time(NULL) + (budget ? atoi(budget) : 1) + 1;
    pbi_jinja_limits lim = { .steps = 20000, .bytes = 1 << 20, .depth = 50 };
    long good = 0, total = 0;
    while (time(NULL) < end) {
        char s[512] = "";
        int n = 1 + rand() % 24;
        if (rand() % 2)
            strcat(s, "{{ ");
        for (int i = 0; i < n; i++)
            strcat(s, bit[(size_t)rand() % (sizeof bit / sizeof *bit)]);
        if (rand() % 2)
            strcat(s, " }}");
        pbi_marked m;
        pb_err err = { 0 };
        if (!run(s, strlen(s), context, &lim, &m, &err))
            good++;
        else
            assert_true(err.code < 0 && err.code != PB_E_INTERNAL && err.msg[0]);
        total++;
        pbi_marked_clear(&m);
    }
    assert_true(good > total / 100); /* or the fragments never get past the parser */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders),
        cmocka_unit_test(user_text_is_marked),
        cmocka_unit_test(errors_say_what_and_where),
        cmocka_unit_test(hostile_templates_end),
        cmocka_unit_test(mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
