/* SPDX-License-Identifier: MIT
 * tests/unit/test_options.c - numbers, ranges, formatting, typing mistakes. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "error.h"
#include "options.h"

#include <float.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct config {
    int64_t n, size, free_int;
    double f;
    int32_t flag, kind;
    const char *text;
} config;

static const pb_option table[] = { PB_INT(config, n, "16", "1", "4096", PB_O_POW2, "tokens",
                                          "a power"),
                                   PB_BYTES(config, size, "1M", "4K", "8G", 0, "some memory"),
                                   PB_INT(config, free_int, "0", NULL, NULL, 0, NULL, "anything"),
                                   PB_FLOAT(config, f, "0.5", "0", "1", 0, NULL, "a part"),
                                   PB_BOOL(config, flag, "off", 0, "a switch"),
                                   PB_ENUM(config, kind, "fast", "fast|exact|both", 0, "a kind"),
                                   PB_STR(config, text, NULL, 0, "a text"),
                                   PB_OPTIONS_END };

static const pb_option *opt(const char *name)
{
    const pb_option *o = pbi_option_find(table, sizeof *table, name);
    assert_non_null(o);
    return o;
}

static void test_int(void **state)
{
    static const struct {
        const char *s;
        int64_t v;
    } good[] = { { "0", 0 },
                 { "-0", 0 },
                 { "+7", 7 },
                 { "-12", -12 },
                 { "007", 7 },
                 { "9223372036854775807", INT64_MAX },
                 { "-9223372036854775807", -INT64_MAX } };
    static const char *const bad[] = { "",     " 1",  "1 ",
                                       "0x10", "1e3", "--1",
                                       "+",    "1K",  "9223372036854775808",
                                       "a",    "1,0", "99999999999999999999999" };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t v = 1234;
        assert_int_equal(pbi_parse_int(good[i].s, &v), 0);
        assert_int_equal(v, good[i].v);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t v = 1234;
        if (pbi_parse_int(bad[i], &v) != PB_E_INVAL)
            fail_msg("'%s' was taken", bad[i]);
        assert_int_equal(v, 1234);
    }
}

static void test_bytes(void **state)
{
    int64_t v;
    (void)state;
    assert_int_equal(pbi_parse_bytes("64K", &v), 0);
    assert_int_equal(v, 65536);
    assert_int_equal(pbi_parse_bytes("3g", &v), 0);
    assert_int_equal(v, (int64_t)3 << 30);
    assert_int_equal(pbi_parse_bytes("8388607T", &v), 0);
    assert_int_equal(v, (int64_t)8388607 << 40);
    assert_int_equal(pbi_parse_bytes("8388608T", &v), PB_E_INVAL); /* 2^63 */
    assert_int_equal(pbi_parse_bytes("1KB", &v), PB_E_INVAL);
    assert_int_equal(pbi_parse_bytes("-1K", &v), PB_E_INVAL);
    assert_int_equal(pbi_parse_bytes("K", &v), PB_E_INVAL);
}

static void test_float(void **state)
{
    static const char *const bad[] = { "",      "nan", "inf", "-inf", "1.2.3", "0x1p3",
                                       "1e999", " 1",  "1 ",  "1,5",  "e5",    "." };
    double v;
    (void)state;
    assert_int_equal(pbi_parse_float("-1.5e-3", &v), 0);
    assert_float_equal(v, -0.0015, 0);
    assert_int_equal(pbi_parse_float(".25", &v), 0);
    assert_float_equal(v, 0.25, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (pbi_parse_float(bad[i], &v) != PB_E_INVAL)
            fail_msg("'%s' was taken", bad[i]);
}

/* What format writes, set reads back to the same bits. */
static void test_round_trip(void **state)
{
    config a = { 0 }, b = { 0 };
    char buf[64];
    uint64_t x = 88172645463325252u;
    pb_option o = *opt("f");
    (void)state;
    o.min = o.max = NULL;
    for (int i = 0; i < 3000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memcpy(&a.f, &x, sizeof x);
        if (!(a.f >= -DBL_MAX && a.f <= DBL_MAX))
            continue;
        pbi_option_format(&o, &a, buf, sizeof buf);
        assert_int_equal(pbi_option_set(&o, buf, &b, NULL), 0);
        assert_memory_equal(&a.f, &b.f, sizeof a.f);
        a.size = (int64_t)(x >> (1 + x % 62));
        o = *opt("size");
        o.min = o.max = NULL;
        pbi_option_format(&o, &a, buf, sizeof buf);
        assert_int_equal(pbi_option_set(&o, buf, &b, NULL), 0);
        assert_int_equal(a.size, b.size);
        o = *opt("f");
        o.min = o.max = NULL;
    }
    a.f = 0.1;
    pbi_option_format(&o, &a, buf, sizeof buf);
    assert_string_equal(buf, "0.1");
}

/* A library may set a locale with a decimal comma. */
static void test_locale(void **state)
{
    static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE" };
    config c = { 0 };
    char buf[32];
    const char *set = NULL;
    (void)state;
    for (int i = 0; i < 4 && !set; i++)
        set = setlocale(LC_ALL, names[i]);
    assert_int_equal(pbi_option_set(opt("f"), "0.25", &c, NULL), 0);
    pbi_option_format(opt("f"), &c, buf, sizeof buf);
    setlocale(LC_ALL, "C");
    assert_string_equal(buf, "0.25");
    if (!set)
        print_message("no locale with a decimal comma here: only the C locale was tried\n");
}

static void test_set(void **state)
{
    config c = { 0 };
    pb_err err = { 0 };
    char buf[64];
    (void)state;
    assert_int_equal(pbi_option_set(opt("n"), "32", &c, &err), 0);
    assert_int_equal(c.n, 32);
    assert_int_equal(pbi_option_set(opt("n"), "33", &c, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "n = 33: allowed is 1..4096, a power of two tokens");
    assert_int_equal(c.n, 32);
    assert_int_equal(pbi_option_set(opt("n"), "8192", &c, &err), PB_E_INVAL);
    assert_int_equal(pbi_option_set(opt("n"), "0", &c, &err), PB_E_INVAL);
    pb_option free_pow2 = *opt("free_int");
    free_pow2.flags = PB_O_POW2;
    assert_int_equal(pbi_option_set(&free_pow2, "0", &c, &err), PB_E_INVAL);
    assert_int_equal(pbi_option_set(&free_pow2, "-9223372036854775807", &c, &err), PB_E_INVAL);
    assert_int_equal(pbi_option_set(&free_pow2, "4611686018427387904", &c, &err), 0);
    assert_int_equal(pbi_option_set(opt("size"), "2K", &c, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "size = 2K: allowed is 4K..8G");
    assert_int_equal(pbi_option_set(opt("size"), "8G", &c, &err), 0);
    assert_int_equal(pbi_option_set(opt("f"), "1.0000001", &c, &err), PB_E_INVAL);
    assert_int_equal(pbi_option_set(opt("f"), "1", &c, &err), 0);
    assert_int_equal(pbi_option_set(opt("flag"), "on", &c, &err), 0);
    assert_int_equal(c.flag, 1);
    assert_int_equal(pbi_option_set(opt("flag"), "no", &c, &err), 0);
    assert_int_equal(c.flag, 0);
    assert_int_equal(pbi_option_set(opt("flag"), "maybe", &c, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "flag = maybe: allowed is on|off");
    assert_int_equal(pbi_option_set(opt("kind"), "both", &c, &err), 0);
    assert_int_equal(c.kind, 2);
    pbi_option_format(opt("kind"), &c, buf, sizeof buf);
    assert_string_equal(buf, "both");
    assert_int_equal(pbi_option_set(opt("kind"), "bot", &c, &err), PB_E_INVAL);
    assert_string_equal(err.msg, "kind = bot: allowed is fast|exact|both");
    assert_int_equal(pbi_option_set(opt("kind"), "", &c, &err), PB_E_INVAL);
    assert_int_equal(pbi_option_set(opt("kind"), "fast|exact", &c, &err), PB_E_INVAL);
    assert_int_equal(pbi_option_set(opt("text"), "hello", &c, &err), 0);
    assert_string_equal(c.text, "hello");
    assert_null(pbi_option_find(table, sizeof *table, "nn"));
}

static void test_nearest(void **state)
{
    static const char *const names[] = { "page_size", "paged", "contiguous",
                                         "cpu",       "sim",   "watermark" };
    (void)state;
    assert_string_equal(pbi_nearest("page_sise", names, 6), "page_size");
    assert_string_equal(pbi_nearest("paegd", names, 6), "paged"); /* a swap is one edit */
    assert_string_equal(pbi_nearest("cup", names, 6), "cpu");
    assert_string_equal(pbi_nearest("conti", names, 6), "contiguous"); /* a beginning */
    assert_null(pbi_nearest("xyz", names, 6));
    assert_null(pbi_nearest("xm", names, 6)); /* two edits make anything of two letters */
    assert_null(pbi_nearest("", names, 6));
    assert_null(pbi_nearest("ab", names, 0));
    char longer[500];
    memset(longer, 'p', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_null(pbi_nearest(longer, names, 6));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int),     cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_float),   cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_locale),  cmocka_unit_test(test_set),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
