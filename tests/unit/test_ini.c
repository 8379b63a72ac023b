/* SPDX-License-Identifier: MIT
 * tests/unit/test_ini.c - what is read, and what is refused with which line. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "inifile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pbi_ini *parse(const char *text)
{
    pbi_ini *ini = NULL;
    pb_err err = { 0 };
    if (pbi_ini_parse(text, strlen(text), "p.ini", &ini, &err))
        fail_msg("%s", err.msg);
    return ini;
}

static void refused(const char *text, size_t n, const char *message)
{
    pbi_ini *ini = NULL;
    pb_err err = { 0 };
    assert_int_equal(pbi_ini_parse(text, n, "p.ini", &ini, &err), PB_E_INVAL);
    assert_null(ini);
    assert_string_equal(err.msg, message);
}

static void test_good(void **state)
{
    pbi_ini *ini = parse("\xEF\xBB\xBF; a comment\n"
                         "[attention]\r\n"
                         "plugin=paged ; the block table\n"
                         "  ; an indented comment is one\n"
                         "\n"
                         "page_size \t= 16\n"
                         "# another\n"
                         "[output.brief] ; its options\n"
                         "text = a = b; not a comment\n"
                         "last = 1");
    (void)state;
    assert_int_equal(ini->n_sections, 2);
    assert_int_equal(ini->n_entries, 4);
    assert_int_equal(pbi_ini_find(ini, "attention")->line, 2);
    assert_string_equal(pbi_ini_get(ini, "attention", "plugin")->value, "paged");
    assert_int_equal(pbi_ini_get(ini, "attention", "page_size")->line, 6);
    assert_string_equal(pbi_ini_get(ini, "attention", "page_size")->value, "16");
    assert_string_equal(pbi_ini_get(ini, "output.brief", "text")->value, "a = b; not a comment");
    assert_int_equal(pbi_ini_get(ini, "output.brief", "last")->line, 10);
    assert_null(pbi_ini_get(ini, "attention", "last"));
    assert_null(pbi_ini_find(ini, "nothing"));
    pbi_ini_free(ini);
    ini = parse("");
    assert_int_equal(ini->n_sections, 0);
    pbi_ini_free(ini);
    pbi_ini_free(NULL);
}

static void test_refused(void **state)
{
    static const char nul[] = "[a]\nk = 1\0 2\n";
    static const struct {
        const char *text, *message;
    } cases[] = {
        { "[a]\nk = 1\n  l = 2\n",
          "p.ini:3: an indented line: keys and sections begin in the first column" },
        { "k = 1\n", "p.ini:1: key 'k' before the first [section]" },
        { "[a]\nk = 1\nk = 2\n", "p.ini:3: [a] k is set twice; first in line 2" },
        { "[a]\nk = 1\n[b]\nk = 1\n[a]\nl = 1\n",
          "p.ini:5: section [a] again; it began in line 1" },
        { "[a]\n[b]\nk = 1\n", "p.ini:1: section [a] is empty: write plugin = NAME or remove it" },
        { "[b]\nk = 1\n\n[a]\n; nothing\n",
          "p.ini:4: section [a] is empty: write plugin = NAME or remove it" },
        { "[a]\nword\n", "p.ini:2: neither [section] nor key = value" },
        { "[a]\nkey: value\n", "p.ini:2: neither [section] nor key = value" },
        { "[a]\nke:y = value\n", "p.ini:2: a ':' in the key" },
        { "[a]\n= 3\n", "p.ini:2: a value without a key" },
        { "[a]\nk =\n", "p.ini:2: [a] k has no value" },
        { "[a]\nk = ; nothing\n", "p.ini:2: [a] k has no value" },
        { "[a\nk = 1\n", "p.ini:1: a section without ]" },
        { "[]\nk = 1\n", "p.ini:1: a section without a name" },
        { "[ a ]\nk = 1\n", "p.ini:1: spaces around the section's name" },
        { "[a] k = 1\n", "p.ini:1: text after the section's ]" },
        { "[a2345678901234567890123456789012345678901234567890]\nk = 1\n",
          "p.ini:1: section name longer than 49 characters" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(cases[i].text, strlen(cases[i].text), cases[i].message);
    refused(nul, sizeof nul - 1, "p.ini:2: a NUL byte");
}

/* 49 characters are kept whole; the library cuts at 50 without a word. */
static void test_longest_section(void **state)
{
    static const char text[] = "[a234567890123456789012345678901234567890123456789]\nk = 1\n";
    pbi_ini *ini = parse(text);
    (void)state;
    assert_int_equal(strlen(ini->sections[0].name), 49);
    assert_int_equal(ini->entries[0].section, 0);
    pbi_ini_free(ini);
}

/* Lines up to the library's buffer are whole, longer ones are refused with the limit. */
static void test_long_lines(void **state)
{
    (void)state;
    int seen_bad = 0, limit = 0;
    for (int n = 10; n < 400; n++) {
        char text[512];
        pbi_ini *ini = NULL;
        pb_err err = { 0 };
        int at = snprintf(text, sizeof text, "[a]\nk = ");
        memset(text + at, 'v', (size_t)(n - 4));
        text[at + n - 4] = 0;
        if (pbi_ini_parse(text, strlen(text), "p.ini", &ini, &err) == 0) {
            assert_false(seen_bad);
            assert_int_equal(strlen(ini->entries[0].value), n - 4);
            limit = n;
        } else {
            char want[80];
            snprintf(want, sizeof want, "p.ini:2: line of %d characters; the limit is %d", n,
                     limit);
            assert_string_equal(err.msg, want);
            seen_bad = 1;
        }
        pbi_ini_free(ini);
    }
    assert_true(limit >= 150);
}

static void test_many(void **state)
{
    size_t cap = 200000, n = 0;
    char *text = malloc(cap);
    pbi_ini *ini = NULL;
    pb_err err = { 0 };
    (void)state;
    assert_non_null(text);
    n += (size_t)snprintf(text, cap, "[a]\n");
    for (int i = 0; i < 5000; i++)
        n += (size_t)snprintf(text + n, cap - n, "k%d = %d\n", i, i);
    assert_int_equal(pbi_ini_parse(text, n, "p.ini", &ini, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "p.ini:4098: more than 4096 keys");
    free(text);
}

static void test_files(void **state)
{
    pbi_ini *ini = NULL;
    pb_err err = { 0 };
    char path[] = "/tmp/pb-ini-XXXXXX";
    (void)state;
    assert_int_equal(pbi_ini_load("/nonexistent/x.ini", &ini, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "/nonexistent/x.ini: No such file or directory");
    assert_int_equal(pbi_ini_load("/tmp", &ini, &err), PB_E_INVAL);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, PBI_INI_MAX_FILE + 1), 0);
    close(fd);
    assert_int_equal(pbi_ini_load(path, &ini, &err), PB_E_INVAL);
    assert_non_null(strstr(err.msg, "larger than 1048576 bytes"));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_longest_section),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests_name("ini", tests, NULL, NULL);
}
