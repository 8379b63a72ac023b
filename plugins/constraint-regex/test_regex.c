/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-regex/test_regex.c - constraint-regex against PCRE2: on random patterns and
 * texts it allows a token exactly where PCRE2 finds a match or a partial one, and the end exactly
 * where it finds a match. Hostile patterns are refused with a reason; cached rows are fast.
 * PATCHBAY_FUZZ_SECONDS lengthens the random part.
 */
#include "../constraint-common/test_host.h"
#include "../../tests/unit/plug.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

static bench b;

static int open_pattern(const char *pattern, const char *more, pb_err *err)
{
    char text[4000];
    snprintf(text, sizeof text, "pattern=%s", pattern);
    const char *set[] = { text, more };
    return bench_open(&b, "regex", more ? 2 : 1, set, err);
}

/* ---- random patterns --------------------------------------------------- */

static void put(char *out, size_t n, const char *s)
{
    size_t at = strlen(out);
    snprintf(out + at, n - at, "%s", s);
}

static void make(uint64_t *rng, int depth, char *out, size_t n)
{
    static const char *const atoms[] = { "a",     "b",    "c",        "\\d",   ".",
                                         "[ab]",  "[^a]", "\xc3\xa9", "[b-d]", "[^\\d\xc3\xa9]",
                                         "\\x61", "\\W" };
    static const char *const many[] = { "*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "+?" };
    int parts = 1 + plug_below(rng, 3);
    if (strlen(out) > 120)
        depth = 0;
    for (int i = 0; i < parts; i++) {
        if (depth > 0 && plug_below(rng, 3) == 0) {
            put(out, n, plug_below(rng, 2) ? "(" : "(?:");
            make(rng, depth - 1, out, n);
            put(out, n, ")");
        } else {
            put(out, n, atoms[plug_below(rng, 12)]);
        }
        if (plug_below(rng, 3) == 0)
            put(out, n, many[plug_below(rng, 8)]);
        if (depth > 0 && plug_below(rng, 5) == 0)
            put(out, n, "|");
    }
}

enum { NO = 0, PARTIAL = 1, MATCH = 2, UNKNOWN = 3 /* too much backtracking */ };
static pcre2_match_context *limits;

static int oracle(const pcre2_code *re, pcre2_match_data *md, const char *s)
{
    int rc = pcre2_match(re, (PCRE2_SPTR)s, strlen(s), 0, PCRE2_PARTIAL_SOFT, md, limits);
    if (rc >= 0)
        return MATCH;
    if (rc == PCRE2_ERROR_PARTIAL)
        return PARTIAL;
    if (rc == PCRE2_ERROR_MATCHLIMIT)
        return UNKNOWN;
    assert_int_equal(rc, PCRE2_ERROR_NOMATCH);
    return NO;
}

/* All words after one text; n_seq: how much of it is sequence, the rest is draft. */
static void compare(const char *pattern, const pcre2_code *re, pcre2_match_data *md,
                    const char *text, int32_t n_seq)
{
    char longer[64];
    int now = *text ? oracle(re, md, text) : -1;
    if (bench_mask(&b, n_seq, b.n_tok - n_seq))
        fail_msg("%s: mask failed", pattern);
    if (now >= 0 && now != UNKNOWN && bench_allows(&b, 0) != (now == MATCH))
        fail_msg("%s after '%s': end allowed: %d, PCRE2 says %d", pattern, text,
                 bench_allows(&b, 0), now);
    for (int32_t id = 1; id < b.n_vocab; id++) {
        if (b.len[id] == 1 && (id - 1 >= 128 || id == 1))
            continue; /* a part of a code point */
        snprintf(longer, sizeof longer, "%s%s", text, b.piece[id]);
        int say = oracle(re, md, longer), want = say != NO;
        if (say != UNKNOWN && bench_allows(&b, id) != want)
            fail_msg("%s after '%s': token '%s' allowed: %d, PCRE2 wants %d", pattern, text,
                     b.piece[id], !want, want);
    }
}

static int one_pattern(uint64_t *rng)
{
    static const char *const letters[] = { "a", "b", "c", "d", "5", "\xc3\xa9", "\n", " " };
    char pattern[400] = "";
    pb_err err = { 0 };
    int code;
    PCRE2_SIZE at;
    make(rng, 3, pattern, sizeof pattern);
    char whole[420];
    snprintf(whole, sizeof whole, "(?:%s)\\z", pattern); /* ENDANCHORED forbids partial matches */
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_ANCHORED, &code, &at, NULL);
    if (!re)
        fail_msg("%s: PCRE2 refuses the pattern", pattern);
    int rc = open_pattern(pattern, NULL, &err);
    if (rc && !strstr(err.msg, "max_states"))
        fail_msg("%s: %s", pattern, err.msg);
    pcre2_match_data *md = pcre2_match_data_create_from_pattern(re, NULL);
    for (int t = 0; t < 6 && !rc; t++) {
        char text[64] = "";
        b.n_tok = 0;
        for (int k = 0; k < 8; k++) {
            compare(pattern, re, md, text, b.n_tok ? plug_below(rng, b.n_tok + 1) : 0);
            const char *l = letters[plug_below(rng, 8)];
            put(text, sizeof text, l);
            bench_say(&b, l);
        }
    }
    pcre2_match_data_free(md);
    pcre2_code_free(re);
    bench_close(&b);
    return rc == 0;
}

static void test_pcre2(void **state)
{
    static const char *const words[] = { "ab",
                                         "abc",
                                         "ba",
                                         "aa",
                                         "bb",
                                         "a5",
                                         "55",
                                         "\xc3\xa9",
                                         "\xc3\xa9"
                                         "a",
                                         "a\n",
                                         "  ",
                                         "\xe2\x82\xac",
                                         "b\xc3\xa9" };
    uint64_t rng = 1;
    int done = 0, fit = 0;
    (void)state;
    limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(limits, 20000);
    bench_words(&b, sizeof words / sizeof words[0], words);
    double end = plug_clock() + plug_seconds(3);
    for (; done < 60 || plug_clock() < end; done++)
        fit += one_pattern(&rng);
    assert_true(fit * 10 > done * 9);
    pcre2_match_context_free(limits);
    print_message("%d patterns\n", done);
}

/* ---- what it refuses --------------------------------------------------- */

static void refused(const char *pattern, const char *more, const char *words)
{
    pb_err err = { 0 };
    int rc = open_pattern(pattern, more, &err);
    bench_close(&b);
    if (rc != PB_E_INVAL || !strstr(err.msg, words))
        fail_msg("%.40s: code %d, message '%s', expected '%s'", pattern, rc, err.msg, words);
}

static void test_refusals(void **state)
{
    (void)state;
    char deep[1000] = "";
    refused("a(?=b)", NULL, "look-around");
    refused("(a)\\1", NULL, "back references");
    refused("\\bword", NULL, "\\b");
    refused("a++", NULL, "possessive");
    refused("a**", NULL, "repetition of a repetition");
    refused("*a", NULL, "nothing to repeat");
    refused("(a", NULL, "without its )");
    refused("a)", NULL, "without its (");
    refused("[a", NULL, "without its ]");
    refused("[z-a]", NULL, "below its start");
    refused("a{3,1}", NULL, "below its start");
    refused("a\\", NULL, "backslash");
    refused("a^b", NULL, "ends");
    refused("^a|b$", NULL, "group");
    refused("[^\\d\\D]", NULL, "matches nothing");
    refused("\xff", NULL, "UTF-8");
    refused("[[:alpha:]]", NULL, "[:alpha:]");
    refused("a{99999999999}", NULL, "65536");
    refused("((a{1000}){1000}){1000}", NULL, "max_states");
    refused("(((a|b){60000}c){60000}d){60000}", NULL, "too large");
    refused("(a|b)*a(a|b){20}", NULL, "max_states");
    refused("a{100}", "max_states=64", "max_states = 64");
    for (int i = 0; i < 300; i++)
        put(deep, sizeof deep, "(");
    refused(deep, NULL, "200");
}

/* Something nested, or long, is no reason to refuse. */
static void test_accepted(void **state)
{
    static const char *const good[] = { "((((a*)*)*)+)?", "(a|aa|aaa){0,60}", "(a*|b*)*",
                                        "x{0,1000}",      "(|a)(|b)",         "^(yes|no)$",
                                        "\\x{1F600}{3}" };
    (void)state;
    pb_err err = { 0 };
    char text[3000] = "";
    for (int i = 0; i < 300; i++)
        put(text, sizeof text, "abcdefg");
    for (size_t i = 0; i <= sizeof good / sizeof good[0]; i++) {
        if (open_pattern(i ? good[i - 1] : text, NULL, &err))
            fail_msg("%s: %s", i ? good[i - 1] : "a long text", err.msg);
        assert_int_equal(bench_mask(&b, 0, 0), 0);
        bench_close(&b);
    }
}

/* After the end only the end; after what is not allowed nothing; parts of code points join. */
static void test_rows(void **state)
{
    pb_err err = { 0 };
    (void)state;
    assert_int_equal(open_pattern("(\xc3\xa9|ab)+", NULL, &err), 0);
    bench_say(&b, "\xc3");
    assert_int_equal(bench_mask(&b, 1, 0), 0);
    assert_true(bench_allows(&b, 1 + 0xa9) && !bench_allows(&b, 1 + 'a') && !bench_allows(&b, 0));
    bench_say(&b, "\xa9");
    assert_int_equal(bench_mask(&b, 1, 1), 0);
    assert_true(bench_allows(&b, 1 + 'a') && bench_allows(&b, 0) && !bench_allows(&b, 1 + 'b'));
    b.tok[b.n_tok++] = 0;
    assert_int_equal(bench_mask(&b, 2, 1), 0);
    assert_true(bench_allows(&b, 0) && !bench_allows(&b, 1 + 'a'));
    b.n_tok--;
    bench_say(&b, "x");
    assert_int_equal(bench_mask(&b, 2, 1), 0);
    for (int32_t id = 0; id < b.n_vocab; id++)
        assert_false(bench_allows(&b, id));
    bench_close(&b);
}

/* ---- speed ------------------------------------------------------------- */

static void test_speed(void **state)
{
    enum { V = 150000, ROWS = 2000 };
    static char text[V][12];
    static const char *words[V];
    pb_err err = { 0 };
    uint64_t rng = 3;
    (void)state;
    free(b.piece);
    free(b.len);
    for (int i = 0; i < V; i++) {
        int n = 2 + plug_below(&rng, 9);
        for (int k = 0; k < n; k++)
            text[i][k] = (char)(k == 0 && i % 2 ? ' ' : 'a' + plug_below(&rng, 26));
        words[i] = text[i];
    }
    bench_words(&b, V, words);
    assert_int_equal(open_pattern("[a-z ]{1,400}", NULL, &err), 0);
    double t0 = plug_clock();
    assert_int_equal(bench_mask(&b, 0, 0), 0);
    double cold = plug_clock() - t0;
    const pb_constraint *v = pbi_rig_iface(&b.r, "constraint/1");
    pb_seq s = { .size = sizeof s, .id = 7, .tokens = b.tok };
    pb_pick p = { .seq = &s };
    bench_say(&b, "abcdefgh");
    s.n_tokens = 8;
    t0 = plug_clock();
    for (int i = 0; i < ROWS; i++)
        v->mask(b.r.self, 1, &p, b.bits, (b.n_vocab + 31) / 32);
    double row = (plug_clock() - t0) / ROWS;
    print_message("%d tokens: %.2f ms a new state, %.2f us a cached row\n", b.n_vocab, cold * 1e3,
                  row * 1e6);
    assert_true(row < 50e-6 || getenv("PATCHBAY_SLOW"));
    bench_close(&b);
    free(b.piece);
    free(b.len);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_pcre2),
                                        cmocka_unit_test(test_refusals),
                                        cmocka_unit_test(test_accepted),
                                        cmocka_unit_test(test_rows), cmocka_unit_test(test_speed) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
