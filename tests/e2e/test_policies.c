/* SPDX-License-Identifier: MIT
 *
 * tests/e2e/test_policies.c - token policies in whole pipelines, on the simulated device, whose
 * tokens depend on every token before them: sampler-chain, spec-ngram, constraint-mask,
 * output-force do what they say, alike with and without speculation and batching; and
 * attention-nocopy, whose copy on write is missing, is named by the step validator.
 */
#include "arm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_REQ = 6, N_NEW = 40, V = 128 };

static const char base[] = "[pipeline]\nparanoid = yes\nmax_seqs = 4\nmax_rows = 64\n"
                           "context = 256\nkv_bytes = 4M\n"
                           "[weights]\nplugin = synthetic\nvocab = 128\n"
                           "[backend]\nplugin = sim\necho = 0.9\n";

typedef struct outcome {
    int32_t ids[N_REQ][N_NEW + 8];
    int64_t n[N_REQ];
    char finish[N_REQ][16];
    pbi_totals totals;
    int rc;
    pb_err err;
} outcome;

/* Runs the requests through base + more; prompts repeat themselves, so that drafts hit. */
static void run(const char *more, float temperature, outcome *o)
{
    char text[2000];
    pbi_pipeline *p = NULL;
    pbi_arm *arm = NULL;
    pbi_request req[N_REQ];
    pbi_answer ans[N_REQ] = { 0 };
    int32_t prompt[N_REQ][48];
    pbi_arm_options opt = { .model_path = "", .no_text = 1 };
    *o = (outcome){ 0 };
    snprintf(text, sizeof text, "%s%s", base, more);
    if (pbi_pipeline_parse(text, "test.ini", 0, NULL, &p, &o->err) ||
        pbi_arm_open(p, &opt, &arm, &o->err))
        fail_msg("%s", o->err.msg);
    for (int i = 0; i < N_REQ; i++) {
        for (int k = 0; k < 48; k++) /* the first 33 tokens are common: pages end in mid-prompt */
            prompt[i][k] = 3 + (k % 11) + (k < 33 ? 0 : i);
        pbi_request_default(&req[i]);
        req[i].ids = prompt[i];
        req[i].n_ids = 34 + i * 2;
        req[i].max_new = N_NEW;
        req[i].ignore_eos = 1;
        req[i].params.temperature = temperature;
        req[i].params.has_seed = 1;
        req[i].params.seed = (uint64_t)i + 5;
        req[i].abort_after = -1;
    }
    o->rc = pbi_arm_run(arm, N_REQ, req, ans, NULL, &o->totals, &o->err);
    for (int i = 0; i < N_REQ; i++) {
        o->n[i] = ans[i].n_ids;
        if (ans[i].n_ids > 0)
            memcpy(o->ids[i], ans[i].ids,
                   (size_t)(ans[i].n_ids < N_NEW + 8 ? ans[i].n_ids : N_NEW + 8) * sizeof(int32_t));
        snprintf(o->finish[i], sizeof o->finish[i], "%s", ans[i].finish ? ans[i].finish : "");
        if (ans[i].err.code && !o->err.code)
            o->err = ans[i].err;
        pbi_answer_clear(&ans[i]);
    }
    pbi_arm_close(arm);
    pbi_pipeline_free(p);
}

static void must_run(const char *more, float temperature, outcome *o)
{
    run(more, temperature, o);
    if (o->rc || o->err.code)
        fail_msg("%s", o->err.msg);
}

static void same(const outcome *a, const outcome *b, const char *what)
{
    for (int i = 0; i < N_REQ; i++) {
        if (a->n[i] != b->n[i])
            fail_msg("%s: request %d has %d tokens, then %d", what, i, (int)a->n[i], (int)b->n[i]);
        for (int64_t k = 0; k < a->n[i]; k++)
            if (a->ids[i][k] != b->ids[i][k])
                fail_msg("%s: request %d, token %d: %d, then %d", what, i, (int)k, a->ids[i][k],
                         b->ids[i][k]);
    }
}

static int differ(const outcome *a, const outcome *b)
{
    return memcmp(a->ids, b->ids, sizeof a->ids) != 0;
}

#define CHAIN                                                                                      \
    "[sampler]\nplugin = chain\nrepeat_penalty = 1.1\nfrequency_penalty = 0.5\ntop_p = 0.95\n"
/* recent tokens are likely again, so that drafts hit and the window's end matters */
#define LOOPS "[sampler]\nplugin = chain\npenalty_window = 2\nfrequency_penalty = -5\n"
#define NGRAM "[spec]\nplugin = ngram\nmin_n = 1\n"

static outcome plain, other;

static void test_sampled(void **state)
{
    (void)state;
    must_run("[scheduler]\nplugin = static\n" CHAIN, 0.8f, &plain);
    for (int i = 0; i < N_REQ; i++)
        assert_int_equal(plain.n[i], N_NEW);
    must_run(CHAIN, 0.8f, &other);
    same(&plain, &other, "another scheduler");
    must_run(CHAIN NGRAM "[attention]\nplugin = hash\npage_size = 8\n", 0.8f, &other);
    same(&plain, &other, "ngram and hash");
    assert_true(other.totals.n_drafted > 0 && other.totals.n_accepted > 0);
    must_run("[sampler]\nplugin = chain\nrepeat_penalty = 4\n", 0, &other);
    assert_true(differ(&plain, &other));
    must_run(LOOPS, 1, &plain);
    must_run(LOOPS NGRAM, 1, &other);
    same(&plain, &other, "loops with ngram");
    assert_true(other.totals.n_accepted > 50);
    must_run("", 0, &plain); /* greedy, without penalties */
    assert_true(differ(&plain, &other));
    must_run(NGRAM, 0, &other);
    same(&plain, &other, "greedy with ngram");
    assert_true(other.totals.n_accepted > 0);
}

static void test_mask(void **state)
{
    (void)state;
    static const char mask[] = "[constraint]\nplugin = mask\n"
                               "[constraint.mask]\nfirst = 10\nlast = 90\nmodulus = 4\n";
    char more[600];
    for (int sampled = 0; sampled < 2; sampled++) {
        snprintf(more, sizeof more, "%s" CHAIN, mask);
        must_run(more, sampled ? 1.0f : 0.0f, &plain);
        for (int i = 0; i < N_REQ; i++)
            for (int64_t k = 0; k < plain.n[i]; k++) {
                int64_t pos = 34 + i * 2 + k;
                assert_in_range(plain.ids[i][k], 10, 90);
                assert_int_not_equal((plain.ids[i][k] + pos) % 4, 0);
            }
        snprintf(more, sizeof more, "%s" CHAIN NGRAM, mask);
        must_run(more, sampled ? 1.0f : 0.0f, &other);
        same(&plain, &other, "mask with ngram");
    }
}

static void test_force(void **state)
{
    (void)state;
    static const char force[] = "[output]\nplugin = force\n"
                                "[output.force]\nafter = 7\ntokens = 5 6 7 8\nend = 20\n";
    char more[600];
    snprintf(more, sizeof more, "%s", force);
    must_run(more, 0, &plain);
    for (int i = 0; i < N_REQ; i++) {
        assert_int_equal(plain.n[i], 20);
        for (int k = 0; k < 4; k++)
            assert_int_equal(plain.ids[i][7 + k], 5 + k);
    }
    snprintf(more, sizeof more, "%s" LOOPS, force);
    must_run(more, 1, &plain);
    snprintf(more, sizeof more, "%s" LOOPS NGRAM, force);
    must_run(more, 1, &other);
    same(&plain, &other, "forced tokens with ngram");
    assert_true(other.totals.n_accepted > 0);
}

static void test_nocopy(void **state)
{
    (void)state;
    must_run("[attention]\nplugin = nocopy\npage_size = 16\ncopy = yes\n", 0, &other);
    assert_true(other.totals.n_cached_tokens > 0);
    must_run("", 0, &plain);
    same(&plain, &other, "attention-nocopy that copies");
    run("[attention]\nplugin = nocopy\npage_size = 16\n", 0, &other);
    assert_int_not_equal(other.err.code, 0);
    assert_non_null(strstr(other.err.msg, "nocopy"));
    assert_non_null(strstr(other.err.msg, "page"));
    assert_non_null(strstr(other.err.msg, "step"));
}

/* What one plugin does to the thread's floating-point mode would change the bits of others. */
static void test_spoiled_mode(void **state)
{
    (void)state;
#if defined(__x86_64__)
    run("[constraint]\nplugin = mask\n[constraint.mask]\nspoil = yes\n", 0, &other);
    assert_int_equal(other.rc, PB_E_PLUGIN);
    assert_non_null(strstr(other.err.msg, "constraint-mask: mask()"));
    must_run("", 0, &plain); /* and it is put right */
    unsigned mode = __builtin_ia32_stmxcsr();
    assert_int_equal(mode & 0xe040u, 0);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_sampled), cmocka_unit_test(test_mask),
                                        cmocka_unit_test(test_force), cmocka_unit_test(test_nocopy),
                                        cmocka_unit_test(test_spoiled_mode) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
