/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-grammar/test_grammar.c - constraint-grammar against a matcher of a few lines
 * (sets of end positions, by recursion) on random recursive grammars; refusals by name; limits.
 * PATCHBAY_FUZZ_SECONDS lengthens the random part.
 */
#include "../constraint-common/test_host.h"
#include "../../tests/unit/plug.h"

enum { RULES = 4, ALTS = 3, ITEMS = 4, LONG = 9 };

static bench b;

typedef struct item {
    int rule; /* -1: the letter */
    char letter, op;
} item;

typedef struct random_grammar {
    item it[RULES][ALTS][ITEMS];
    int n[RULES][ALTS];
    char text[2000];
} random_grammar;

static void put(char *out, size_t n, const char *s)
{
    size_t at = strlen(out);
    snprintf(out + at, n - at, "%s", s);
}

/* Alternatives begin with a letter (no left recursion), the first has letters alone (it ends). */
static void make(uint64_t *rng, random_grammar *r)
{
    static const char ops[] = { 0, 0, 0, '?', '*', '+' };
    *r = (random_grammar){ 0 };
    for (int i = 0; i < RULES; i++) {
        char s[80];
        snprintf(s, sizeof s, "%s ::= ", i ? (char[]){ 'r', (char)('0' + i), 0 } : "root");
        put(r->text, sizeof r->text, s);
        for (int a = 0; a < ALTS; a++) {
            r->n[i][a] = 1 + plug_below(rng, ITEMS);
            for (int k = 0; k < r->n[i][a]; k++) {
                item *t = &r->it[i][a][k];
                t->rule = k && a && plug_below(rng, 2) ? 1 + plug_below(rng, RULES - 1) : -1;
                t->letter = (char)('a' + plug_below(rng, 3));
                t->op = k ? ops[plug_below(rng, 6)] : 0;
                if (t->rule < 0)
                    snprintf(s, sizeof s, plug_below(rng, 2) ? "\"%c\"%c" : "[%c]%c", t->letter,
                             t->op ? t->op : ' ');
                else
                    snprintf(s, sizeof s, " r%d%c", t->rule, t->op ? t->op : ' ');
                put(r->text, sizeof r->text, s);
            }
            put(r->text, sizeof r->text, a + 1 < ALTS ? " | " : "\n");
        }
    }
}

/* ---- the oracle: sets of positions ------------------------------------- */

typedef struct match {
    const random_grammar *r;
    const char *s;
    int n, viable; /* viable: some path came to the end of the text and wants more, or is done */
} match;

static uint32_t rule_ends(match *m, int rule, int at);

static uint32_t item_ends(match *m, const item *t, int at)
{
    if (t->rule >= 0)
        return rule_ends(m, t->rule, at);
    if (at == m->n)
        m->viable = 1;
    return at < m->n && m->s[at] == t->letter ? 2u << at : 0;
}

static uint32_t from_all(match *m, const item *t, uint32_t from)
{
    uint32_t to = 0;
    for (int at = 0; at <= m->n; at++)
        if (from >> at & 1)
            to |= item_ends(m, t, at);
    return to;
}

static uint32_t rule_ends(match *m, int rule, int at)
{
    uint32_t all = 0;
    for (int a = 0; a < ALTS; a++) {
        uint32_t set = 1u << at;
        for (int k = 0; k < m->r->n[rule][a]; k++) {
            const item *t = &m->r->it[rule][a][k];
            uint32_t one = from_all(m, t, set), now = one;
            while ((t->op == '*' || t->op == '+') && now) {
                now = from_all(m, t, now) & ~one;
                one |= now;
            }
            set = t->op == '?' || t->op == '*' ? set | one : one;
        }
        all |= set;
    }
    return all;
}

static int oracle(const random_grammar *r, const char *s, int *viable)
{
    match m = { .r = r, .s = s, .n = (int)strlen(s) };
    int whole = rule_ends(&m, 0, 0) >> m.n & 1;
    *viable = m.viable || whole;
    return whole;
}

static void compare(const random_grammar *r, const char *text, int32_t n_seq)
{
    int viable, whole = oracle(r, text, &viable);
    assert_int_equal(bench_mask(&b, n_seq, b.n_tok - n_seq), 0);
    if (bench_allows(&b, 0) != (viable && whole))
        fail_msg("%safter '%s': end allowed: %d", r->text, text, bench_allows(&b, 0));
    for (int32_t id = 'a'; id < b.n_vocab; id++) {
        char longer[64];
        if (id > 1 + 'd' && id < BYTES)
            continue;
        snprintf(longer, sizeof longer, "%s%s", text, b.piece[id]);
        oracle(r, longer, &viable);
        if (bench_allows(&b, id) != viable)
            fail_msg("%safter '%s': '%s' allowed: %d", r->text, text, b.piece[id], !viable);
    }
}

static void test_random(void **state)
{
    static const char *const words[] = { "ab", "abc", "ba", "aa", "bb", "cab", "cc" };
    uint64_t rng = 1;
    (void)state;
    bench_words(&b, sizeof words / sizeof words[0], words);
    double end = plug_clock() + plug_seconds(3);
    int done = 0;
    for (; done < 60 || plug_clock() < end; done++) {
        random_grammar r;
        char set[2100];
        const char *all[] = { set };
        pb_err err = { 0 };
        make(&rng, &r);
        snprintf(set, sizeof set, "text=%s", r.text);
        if (bench_open(&b, "grammar", 1, all, &err))
            fail_msg("%s%s", r.text, err.msg);
        for (int t = 0; t < 4; t++) {
            char text[32] = "";
            b.n_tok = 0;
            for (int k = 0; k < LONG; k++) {
                int viable;
                compare(&r, text, b.n_tok ? plug_below(&rng, b.n_tok + 1) : 0);
                oracle(&r, text, &viable);
                if (!viable)
                    break;
                char l[2] = { (char)('a' + plug_below(&rng, 3)), 0 };
                put(text, sizeof text, l);
                bench_say(&b, l);
            }
        }
        bench_close(&b);
    }
    print_message("%d grammars\n", done);
}

/* ---- refusals and limits ----------------------------------------------- */

static int open_text(const char *text, const char *more, pb_err *err)
{
    static char set[70000];
    const char *all[] = { set, more };
    snprintf(set, sizeof set, "text=%s", text);
    return bench_open(&b, "grammar", more ? 2 : 1, all, err);
}

static void refused(const char *text, const char *words)
{
    pb_err err = { 0 };
    int rc = open_text(text, NULL, &err);
    bench_close(&b);
    if (rc != PB_E_INVAL || !strstr(err.msg, words))
        fail_msg("%.60s: code %d, message '%s', expected '%s'", text, rc, err.msg, words);
}

static void test_refusals(void **state)
{
    (void)state;
    static char deep[60000];
    refused("root ::= sum\nsum ::= sum \"+\" [0-9] | [0-9]", "rule sum is left-recursive");
    refused("root ::= a \"x\"\na ::= b? a \"y\" | \"z\"\nb ::= \"b\"", "rule a is left-recursive");
    refused("root ::= a\na ::= b \"1\" | \"2\"\nb ::= a \"3\"", "left-recursive");
    refused("root ::= root | \"x\"", "rule root is left-recursive");
    refused("root ::= \"a\" other", "line 1: rule other is not defined");
    refused("x ::= \"a\"", "no rule is named root");
    refused("root ::= \"a\"\nroot ::= \"b\"", "line 2: rule root is defined again");
    refused("root ::= \"a\" loop\nloop ::= \"b\" loop", "rule loop (line 2) matches nothing");
    refused("root ::= \"a", "without its second");
    refused("root ::= [a", "without its ]");
    refused("root ::= [^\\x00-\\U0010ffff]", "matches nothing");
    refused("root ::= (\"a\"", "without its )");
    refused("root ::= \"a\" )", "without its (");
    refused("root = \"a\"", "::= expected after root");
    refused("root ::= \"\xff\"", "UTF-8");
    refused("root ::= \"\\q\"", "escape");
    refused("root ::= \"a\"{5,2}", "below its start");
    refused("root ::= \"a\"{70000}", "65536");
    refused("root ::= \"a\" $", "'$' is not expected here");
    refused("root ::= (((\"a\" | \"b\"){60000} \"c\"){60000} \"d\"){60000}", "too large");
    strcpy(deep, "root ::= ");
    for (int i = 0; i < 50000; i++)
        deep[9 + i] = '(';
    refused(deep, "200");
    memset(deep + 9, 'n', 50000);
    refused(deep, "63 bytes");
}

/* Nesting ends at max_depth: then "(" is no longer allowed and the text can be closed. */
static void test_depth(void **state)
{
    (void)state;
    pb_err err = { 0 };
    int n = 0;
    assert_int_equal(open_text("root ::= \"(\" root \")\" | \"x\"", "max_depth=20", &err), 0);
    for (; n < 100; n++) {
        assert_int_equal(bench_mask(&b, b.n_tok, 0), 0);
        if (!bench_allows(&b, 1 + '('))
            break;
        bench_say(&b, "(");
    }
    assert_in_range(n, 10, 20);
    assert_true(bench_allows(&b, 1 + 'x'));
    bench_say(&b, "x");
    for (int i = 0; i < n; i++)
        bench_say(&b, ")");
    assert_int_equal(bench_mask(&b, b.n_tok, 0), 0);
    assert_true(bench_allows(&b, 0) && !bench_allows(&b, 1 + ')'));
    bench_close(&b);
}

static int64_t forgotten(void)
{
    for (const pb_counter *c = b.r.desc->counters; c->name; c++)
        if (!strcmp(c->name, "forgotten"))
            return *(const int64_t *)(const void *)((const char *)b.r.stats + c->offset);
    return -1;
}

/* With room for few states they are computed again, and masks stay what they were. */
static void test_forgets(void **state)
{
    (void)state;
    static uint32_t want[200][(BYTES + 50) / 32];
    pb_err err = { 0 };
    size_t bytes = (size_t)(b.n_vocab + 31) / 32 * 4;
    for (int small = 0; small < 2; small++) {
        assert_int_equal(open_text("root ::= \"(\" root \")\" | [a-c] root | \"x\"",
                                   small ? "max_states=64" : "max_states=8192", &err),
                         0);
        for (int i = 0; i < 200; i++) {
            assert_int_equal(bench_mask(&b, b.n_tok, 0), 0);
            if (small)
                assert_memory_equal(want[i], b.bits, bytes);
            else
                memcpy(want[i], b.bits, bytes);
            bench_say(&b, i % 3 ? "(" : "a");
        }
        assert_int_equal(forgotten() > 0, small);
        bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random),
                                        cmocka_unit_test(test_refusals),
                                        cmocka_unit_test(test_depth),
                                        cmocka_unit_test(test_forgets) };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    free(b.piece);
    free(b.len);
    return rc;
}
