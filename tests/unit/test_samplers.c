/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_samplers.c - sampler-greedy, sampler-chain and spec-ngram as built: do
 * parameters, penalties, seeds and proposals mean what their READMEs say? Penalties are
 * counted a second time here, by plain loops. That answers do not depend on the batch is
 * lint's affair (core/conform_policy.c).
 */
#include "conform.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void open_plugin(pbi_rig *r, const char *slot, const char *name, int n_set,
                        const char *const *set)
{
    const pbi_library *lib;
    pb_err err = { 0 };
    *r = (pbi_rig){ 0 };
    if (pbi_loader_open(slot, name, &lib, &err) || pbi_rig_open(r, lib, n_set, set, &err))
        fail_msg("%s", err.msg);
}

static void close_plugin(pbi_rig *r)
{
    pb_err err = { 0 };
    if (pbi_rig_done(r, &err))
        fail_msg("%s", err.msg);
}

static int64_t counter(const pbi_rig *r, const char *name)
{
    for (const pb_counter *c = r->desc->counters; c->name; c++)
        if (!strcmp(c->name, name)) {
            int64_t v;
            memcpy(&v, (char *)r->stats + c->offset, sizeof v);
            return v;
        }
    fail_msg("no counter %s", name);
    return 0;
}

static pb_params unset(void)
{
    return (pb_params){ .size = sizeof(pb_params),
                        .temperature = NAN,
                        .top_p = NAN,
                        .min_p = NAN,
                        .repeat_penalty = NAN,
                        .presence_penalty = NAN,
                        .frequency_penalty = NAN,
                        .top_k = INT32_MIN,
                        .n_logprobs = -1 };
}

static pb_draw draw_one(pbi_rig *r, const pb_seq *s, const int32_t *tail, int32_t n_tail)
{
    const pb_sampler *v = pbi_rig_iface(r, "sampler/1");
    pb_pick p = { .seq = s, .n_tail = n_tail, .tail = tail };
    pb_draw d = { .size = sizeof d, .top_p = 1, .forced = -1, .n_logprobs = -1 };
    assert_int_equal(v->draw(r->self, 1, &p, &d), 0);
    return d;
}

static void test_greedy(void **state)
{
    (void)state;
    pbi_rig r;
    int32_t tok[3] = { 1, 2, 3 };
    pb_params q = unset();
    pb_seq s = { .tokens = tok, .n_tokens = 3, .params = &q };
    open_plugin(&r, "sampler", "greedy", 0, NULL);
    pb_draw d = draw_one(&r, &s, NULL, 0);
    assert_true(d.temperature == 0 && d.forced == -1 && d.n_edits == 0);
    assert_int_equal(counter(&r, "drawn"), 1);
    assert_int_equal(counter(&r, "overridden"), 0);
    q.temperature = 0.7f;
    d = draw_one(&r, &s, NULL, 0);
    assert_true(d.temperature == 0);
    assert_int_equal(counter(&r, "overridden"), 1);
    close_plugin(&r);
}

static void test_chain_params(void **state)
{
    (void)state;
    static const char *const set[] = { "temperature=0.5", "top_k=40",  "top_p=0.9",
                                       "min_p=0.05",      "seed=1234", "presence_penalty=1" };
    pbi_rig r;
    int32_t tok[3] = { 1, 2, 3 };
    pb_params q = unset();
    pb_seq s = { .tokens = tok, .n_tokens = 3 };
    open_plugin(&r, "sampler", "chain", 6, set);
    for (int i = 0; i < 2; i++) { /* without parameters, and with all of them unset */
        pb_draw d = draw_one(&r, &s, NULL, 0);
        assert_true(d.temperature == 0.5f && d.top_k == 40 && d.top_p == 0.9f && d.min_p == 0.05f);
        assert_int_equal(d.seed, 1234);
        assert_int_equal(d.n_edits, 3);
        s.params = &q;
    }
    q.temperature = 0;
    q.top_k = 0;
    q.top_p = 1;
    q.min_p = 0;
    q.presence_penalty = 0;
    q.has_seed = 1;
    q.seed = 0; /* a seed of 0 is a seed */
    pb_draw d = draw_one(&r, &s, NULL, 0);
    assert_true(d.temperature == 0 && d.top_k == 0 && d.top_p == 1 && d.min_p == 0);
    assert_int_equal(d.seed, 0);
    assert_int_equal(d.n_edits, 0);
    assert_int_equal(counter(&r, "drawn"), 3);
    assert_int_equal(counter(&r, "sampled"), 2);
    assert_int_equal(counter(&r, "edits"), 6);
    close_plugin(&r);
}

/* The window's counts by plain loops, against the edits. */
static void check_penalties(pbi_rig *r, const pb_seq *s, const int32_t *tail, int32_t n_tail,
                            int64_t window, float rep, float pres, float freq)
{
    static int count[PBI_RIG_VOCAB];
    memset(count, 0, sizeof count);
    int64_t n = s->n_tokens + n_tail;
    for (int64_t i = n - window > 0 ? n - window : 0; i < n; i++)
        count[i < s->n_tokens ? s->tokens[i] : tail[i - s->n_tokens]]++;
    pb_draw d = draw_one(r, s, tail, n_tail);
    int32_t k = 0;
    for (int32_t id = 0; id < PBI_RIG_VOCAB; id++) {
        if (!count[id])
            continue;
        assert_true(k < d.n_edits);
        assert_int_equal(d.edits[k].id, id);
        assert_true(d.edits[k].penalty == rep);
        assert_true(d.edits[k].add == -(pres + freq * (float)count[id]));
        k++;
    }
    assert_int_equal(k, d.n_edits);
}

static void test_penalties(void **state)
{
    (void)state;
    static const char *const windows[] = { "penalty_window=1", "penalty_window=5",
                                           "penalty_window=64", "penalty_window=4096" };
    static const int64_t width[] = { 1, 5, 64, PBI_RIG_CTX };
    uint64_t rng = 3;
    int32_t tok[PBI_RIG_CTX], tail[6];
    for (int w = 0; w < 4; w++) {
        const char *set[] = { windows[w], "repeat_penalty=1.25", "presence_penalty=0.5",
                              "frequency_penalty=-0.25" };
        pbi_rig r;
        open_plugin(&r, "sampler", "chain", 4, set);
        for (int round = 0; round < 300; round++) {
            pb_seq s = { .tokens = tok, .n_tokens = pbi_rig_below(&rng, PBI_RIG_CTX - 6) };
            int32_t n_tail = (int32_t)pbi_rig_below(&rng, 7);
            int64_t ids = 1 + pbi_rig_below(&rng, PBI_RIG_VOCAB);
            for (int64_t i = 0; i < s.n_tokens; i++)
                tok[i] = (int32_t)pbi_rig_below(&rng, ids);
            for (int i = 0; i < 6; i++)
                tail[i] = (int32_t)(PBI_RIG_VOCAB - 1 - pbi_rig_below(&rng, ids));
            check_penalties(&r, &s, tail, n_tail, width[w], 1.25f, 0.5f, -0.25f);
        }
        close_plugin(&r);
    }
}

/* ---- spec-ngram -------------------------------------------------------- */

static int32_t propose(pbi_rig *r, const int32_t *tok, int64_t n, int32_t want, int32_t *out)
{
    const pb_spec *v = pbi_rig_iface(r, "spec/1");
    pb_seq s = { .tokens = tok, .n_tokens = n };
    const pb_seq *list[] = { &s };
    int32_t n_out = -1;
    assert_int_equal(v->propose(r->self, 1, list, &want, out, 16, &n_out), 0);
    return n_out;
}

static void expect(pbi_rig *r, const int32_t *tok, int64_t n, int32_t want, const int32_t *answer,
                   int32_t n_answer)
{
    int32_t out[16] = { 0 };
    assert_int_equal(propose(r, tok, n, want, out), n_answer);
    for (int32_t i = 0; i < n_answer; i++)
        assert_int_equal(out[i], answer[i]);
}

#define TOKENS(...)                                                                                \
    (const int32_t[])                                                                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static void test_ngram(void **state)
{
    (void)state;
    static const char *const set[] = { "min_n=2", "max_n=3", "max_draft=6" };
    pbi_rig r;
    open_plugin(&r, "spec", "ngram", 3, set);
    expect(&r, TOKENS(1, 2, 7, 8, 9, 1, 2), 7, 3, TOKENS(7, 8, 9), 3);
    expect(&r, TOKENS(1, 2, 7, 8, 9, 5, 2), 7, 3, NULL, 0); /* one token alike is not min_n */
    expect(&r, TOKENS(1, 2, 7, 1, 2), 5, 0, NULL, 0);
    expect(&r, TOKENS(1), 1, 4, NULL, 0);
    /* the longer match, though the shorter one is nearer */
    expect(&r, TOKENS(4, 1, 2, 7, 5, 1, 2, 8, 4, 1, 2), 11, 1, TOKENS(7), 1);
    /* among equally long ones the nearer */
    expect(&r, TOKENS(1, 2, 7, 3, 1, 2, 8, 3, 5, 1, 2), 11, 1, TOKENS(8), 1);
    /* past the end it goes on with itself, at most max_draft */
    expect(&r, TOKENS(9, 5, 6, 5, 6), 5, 16, TOKENS(5, 6, 5, 6, 5, 6), 6);
    assert_int_equal(counter(&r, "drafted"), 3 + 1 + 1 + 6);
    const pb_spec *v = pbi_rig_iface(&r, "spec/1");
    const pb_seq *none[] = { NULL, NULL };
    v->observe(r.self, 2, none, TOKENS(4, 3), TOKENS(2, 0), 1000);
    assert_int_equal(counter(&r, "verified"), 7);
    assert_int_equal(counter(&r, "accepted"), 2);
    close_plugin(&r);
}

static void test_ngram_options(void **state)
{
    (void)state;
    static const char *const set[] = { "min_n=5", "max_n=4" };
    const pbi_library *lib;
    pbi_rig r = { 0 };
    pb_err err = { 0 };
    assert_int_equal(pbi_loader_open("spec", "ngram", &lib, &err), 0);
    assert_int_equal(pbi_rig_init(&r, lib, 2, set, &err), PB_E_INVAL);
    assert_non_null(strstr(err.msg, "min_n"));
    pbi_rig_done(&r, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),        cmocka_unit_test(test_chain_params),
        cmocka_unit_test(test_penalties),     cmocka_unit_test(test_ngram),
        cmocka_unit_test(test_ngram_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
