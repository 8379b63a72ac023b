/* SPDX-License-Identifier: MIT
 *
 * plugins/output-brief/test_outputs.c - output-brief and output-budget on random sequences of
 * bytes: the same text however many tokens come at once; the cap exact; blocks closed at the
 * budget, never inside a code point, closing marks completed and not doubled.
 */
#include "conform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* token b is byte b; 256 is <think> in one token */
enum { THINK = 256, N_VOCAB = 257, LONG = 400 };

static pb_str piece(void *h, int32_t id)
{
    static char bytes[256];
    (void)h;
    if (id < 0 || id >= N_VOCAB)
        return (pb_str){ "", 0 };
    if (id == THINK)
        return (pb_str){ "<think>", 7 };
    bytes[id] = (char)id;
    return (pb_str){ &bytes[id], 1 };
}

static void open_output(pbi_rig *r, const char *name, int n_set, const char *const *set)
{
    const pbi_library *lib;
    pb_err err = { 0 };
    *r = (pbi_rig){ 0 };
    if (pbi_loader_open("output", name, &lib, &err) || pbi_rig_init(r, lib, n_set, set, &err))
        fail_msg("%s", err.msg);
    r->text.piece = piece;
    r->text.n_vocab = N_VOCAB;
    r->text.eos = 0;
    if (pbi_rig_create(r, &err) || pbi_rig_start(r, &err))
        fail_msg("%s", err.msg);
}

static void close_output(pbi_rig *r)
{
    pb_err err = { 0 };
    if (pbi_rig_done(r, &err))
        fail_msg("%s", err.msg);
}

/* What an engine does: the source's tokens come in bunches, cut and forced by verdicts. A cut
 * source goes on where it was cut. Returns the number of tokens; out has room for LONG. */
static int run(pbi_rig *r, const char *prompt, const int32_t *src, int n_src, uint64_t seed,
               int most, int32_t *out)
{
    const pb_output *o = pbi_rig_iface(r, "output/1");
    int n = 0, at = 0, n_prompt = (int)strlen(prompt);
    static uint64_t id;
    pb_seq s = { .size = sizeof s, .id = ++id, .tokens = out, .n_prompt = n_prompt };
    const pb_seq *list[1] = { &s };
    for (; n < n_prompt; n++)
        out[n] = (unsigned char)prompt[n];
    while (at < n_src && n + 80 < LONG) {
        int32_t n_new = 1 + (int32_t)pbi_rig_below(&seed, most);
        n_new = n_new > n_src - at ? n_src - at : n_new;
        memcpy(out + n, src + at, (size_t)n_new * sizeof *out);
        s.n_tokens = n + n_new;
        pb_verdict v = { .keep = n_new };
        assert_int_equal(o->accept(r->self, 1, list, &n_new, &v), 0);
        assert_in_range(v.keep, 0, n_new);
        n += v.keep;
        at += v.keep;
        if (v.finish)
            break;
        for (int k = 0; k < v.n_forced; k++)
            out[n++] = v.forced[k];
    }
    return n;
}

static void test_brief(void **state)
{
    static const char *const set[] = { "max_tokens=10", "instruction=Be brief." };
    (void)state;
    pbi_rig r;
    int32_t src[100], out[LONG];
    for (int i = 0; i < 100; i++)
        src[i] = 'a' + i % 26;
    open_output(&r, "brief", 2, set);
    const pb_output *o = pbi_rig_iface(&r, "output/1");
    for (int most = 1; most < 20; most++)
        assert_int_equal(run(&r, "hello", src, 100, (uint64_t)most, most, out), 15);
    assert_int_equal(run(&r, "hello", src, 7, 1, 3, out), 12);
    pb_request q = { .size = sizeof q, .max_new = 50, .has_messages = 1 };
    assert_int_equal(o->request(r.self, &q), 0);
    assert_int_equal(q.max_new, 10);
    assert_string_equal(q.system_add, "Be brief.");
    q = (pb_request){ .size = sizeof q, .max_new = 3 };
    o->request(r.self, &q);
    assert_int_equal(q.max_new, 3);
    assert_null(q.system_add);
    q = (pb_request){ .size = sizeof q, .max_new = -1 };
    o->request(r.self, &q);
    assert_int_equal(q.max_new, 10);
    close_output(&r);
}

static int to_tokens(const char *s, int32_t *out)
{
    int n = 0;
    for (; *s; s++)
        out[n++] = (unsigned char)*s;
    return n;
}

/* prompt and answer -> the text that must come, with a budget of 5 and bunches of any size */
static void budget_case(pbi_rig *r, const char *prompt, const char *answer, const char *want)
{
    int32_t src[LONG], out[LONG], wanted[LONG];
    int n_src = to_tokens(answer, src), n_want = to_tokens(want, wanted);
    int n_prompt = (int)strlen(prompt);
    for (int most = 1; most < 12; most++) {
        int n = run(r, prompt, src, n_src, (uint64_t)most, most, out) - n_prompt;
        char text[LONG + 1] = "";
        for (int i = 0; i < n; i++)
            text[i] = (char)out[n_prompt + i];
        if (n != n_want || memcmp(out + n_prompt, wanted, (size_t)n * sizeof *out))
            fail_msg("'%s' in bunches of %d became '%s', expected '%s'", answer, most, text, want);
    }
}

static void test_budget(void **state)
{
    static const char *const set[] = { "tokens=5", "close=</think>\\n" };
    (void)state;
    pbi_rig r;
    open_output(&r, "budget", 2, set);
    budget_case(&r, "q", "abcdefghij", "abcdefghij");
    budget_case(&r, "q", "<think>abcdefghi", "<think>abcde</think>\nfghi");
    budget_case(&r, "q<think>", "abcdefghi", "abcde</think>\nfghi");
    budget_case(&r, "q<think>x</think>\n", "abcdefghi", "abcdefghi");
    budget_case(&r, "q<think>", "abcd\xf0\x9f\x98\x80yz", "abcd\xf0\x9f\x98\x80</think>\nyz");
    budget_case(&r, "q<think>", "abcd\xc3\xa9yz", "abcd\xc3\xa9</think>\nyz");
    budget_case(&r, "q<think>", "ab</tXX", "ab</think>\nXX");
    budget_case(&r, "q", "<think>abcdef<think>ghijklm",
                "<think>abcde</think>\nf<think>ghijk</think>\nlm");
    int32_t src[] = { THINK, 'a', 'b', 'c', 'd', 'e', 'f' }, out[LONG];
    assert_int_equal(run(&r, "q", src, 7, 1, 4, out), 1 + 7 + 9);
    assert_int_equal(out[1 + 6], '<');
    close_output(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_brief),
                                        cmocka_unit_test(test_budget) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
