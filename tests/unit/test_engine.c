/* SPDX-License-Identifier: MIT
 * tests/unit/test_engine.c - messages, the page pool, the step validator, and what an engine
 * does when requests, plugins or memory are not as they should be. That tokens stay the same
 * under every pipeline is fuzz_pipeline's affair. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fakes.h"
#include "pipe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HAS(text, part)                                                                            \
    do {                                                                                           \
        if (!strstr(text, part))                                                                   \
            fail_msg("\"%s\" does not say \"%s\"", text, part);                                    \
    } while (0)

/* ---- messages --------------------------------------------------------- */

static void message_round_trip(void **state)
{
    uint64_t buf[128];
    int32_t tok[5] = { 4, 5, 6, 7, 8 }, eos[1] = { 2 };
    float lp[3] = { -1, -2, -3 };
    pbi_msg_submit m = { .h.id = 9,
                         .max_new = 7,
                         .params = pipe_request_default().params,
                         .n_tokens = 5,
                         .n_prompt = 3,
                         .n_eos = 1 };
    pbi_msg_tokens t = { .h.id = 9, .n = 3 };
    pb_err err;
    size_t n = pbi_msg_put_submit(buf, sizeof buf, &m, tok, eos);
    const pbi_msg_submit *r = (const void *)buf;
    assert_int_equal(n % 8, 0);
    assert_int_equal(pbi_msg_check(buf, n, &err), 0);
    assert_memory_equal(pbi_msg_submit_tokens(r), tok, sizeof tok);
    assert_int_equal(pbi_msg_submit_eos(r)[0], 2);
    assert_int_equal(pbi_msg_put_submit(buf, n - 8, &m, tok, eos), 0);
    n = pbi_msg_put_tokens(buf, sizeof buf, &t, tok, lp);
    assert_int_equal(pbi_msg_check(buf, n, &err), 0);
    assert_memory_equal(pbi_msg_tokens_logprobs((const void *)buf), lp, sizeof lp);
    n = pbi_msg_put_tokens(buf, sizeof buf, &t, tok, NULL);
    assert_null(pbi_msg_tokens_logprobs((const void *)buf));
    t.n = PBI_MSG_MAX_IDS + 1;
    assert_int_equal(pbi_msg_put_tokens(buf, sizeof buf, &t, tok, NULL), 0);
}

static void message_refused(void **state)
{
    uint64_t buf[128];
    int32_t tok[5] = { 0 };
    pbi_msg_submit *m = (void *)buf,
                   ok = { .params = pipe_request_default().params, .n_tokens = 5, .n_prompt = 5 };
    pb_err err;
    size_t n = pbi_msg_put_submit(buf, sizeof buf, &ok, tok, NULL);
    assert_int_equal(pbi_msg_check(buf, 8, &err), PB_E_FORMAT);
    HAS(err.msg, "shorter than its header");
    assert_int_equal(pbi_msg_check(buf, n - 8, &err), PB_E_FORMAT);
    m->n_tokens = 1000;
    assert_int_equal(pbi_msg_check(buf, n, &err), PB_E_FORMAT);
    HAS(err.msg, "n_tokens = 1000");
    m->n_tokens = -1;
    assert_int_equal(pbi_msg_check(buf, n, &err), PB_E_FORMAT);
    m->n_tokens = 5;
    m->n_prompt = 6;
    assert_int_equal(pbi_msg_check(buf, n, &err), PB_E_FORMAT);
    HAS(err.msg, "n_prompt = 6");
    m->n_prompt = 5;
    m->n_eos = INT32_MAX;
    assert_int_equal(pbi_msg_check(buf, n, &err), PB_E_FORMAT);
    m->n_eos = 0;
    assert_int_equal(pbi_msg_check(buf, n, &err), 0);
    m->h.kind = 60;
    assert_int_equal(pbi_msg_check(buf, n, &err), PB_E_FORMAT);
    HAS(err.msg, "unknown kind 60");
}

/* ---- pages ------------------------------------------------------------ */

static int n_poisoned;
static int poison(void *arg, int32_t g, pb_page p)
{
    n_poisoned++;
    return 0;
}

static pbi_pages *pool(int32_t n_pages)
{
    pbi_pages *p;
    pb_err err;
    pb_kv_group g = { .size = sizeof g, .token_bytes = 10 };
    pb_kv_plan plan = { .page_tokens = 4, .n_pages = n_pages };
    assert_int_equal(pbi_pages_new("attention-test", &p, &err), 0);
    assert_int_equal(pbi_pages_plan(p, 1, &g, &plan, &err), 0);
    return p;
}

static void pages_take_and_free(void **state)
{
    pbi_pages *p = pool(6);
    const pb_pages *s = pbi_pages_service(p);
    pb_page a[5], b[5];
    pbi_pages_poison(p, poison, NULL);
    n_poisoned = 0;
    assert_int_equal(s->take(s->h, 0, 6, a), PB_E_FULL);
    assert_int_equal(s->n_free(s->h, 0), 5);
    assert_int_equal(s->take(s->h, 0, 3, a), 0);
    assert_int_equal(a[0], 1); /* a function of the calls alone */
    assert_int_equal(a[2], 3);
    assert_int_equal(pbi_pages_bytes_used(p), 3 * 40);
    s->ref(s->h, 0, a[1]);
    s->unref(s->h, 0, a[1]);
    assert_int_equal(s->refs(s->h, 0, a[1]), 1);
    s->unref(s->h, 0, a[1]);
    assert_int_equal(n_poisoned, 1);
    assert_int_equal(s->take(s->h, 0, 3, b), 0);
    assert_int_equal(b[0], a[1]);
    assert_int_equal(pbi_pages_bytes_peak(p), 5 * 40);
    assert_int_equal(pbi_pages_fault(p, NULL), 0);
    assert_int_equal(pbi_pages_clear(p), 5);
    assert_int_equal(s->n_free(s->h, 0), 5);
    pbi_pages_free(p);
}

/* a source stays as it is until the step ran, even when its owner gives it up */
static void pages_pin_sources(void **state)
{
    pbi_pages *p = pool(4);
    const pb_pages *s = pbi_pages_service(p);
    pb_page a[2], b[2];
    int32_t n;
    assert_int_equal(s->take(s->h, 0, 2, a), 0);
    s->copy(s->h, 0, a[0], a[1], 3);
    s->unref(s->h, 0, a[0]);
    assert_int_equal(s->n_free(s->h, 0), 1);
    assert_int_equal(s->take(s->h, 0, 2, b), PB_E_FULL);
    assert_int_equal(pbi_pages_copies(p, &n)->n_tokens, 3);
    assert_int_equal(n, 1);
    pbi_pages_step_done(p);
    assert_int_equal(s->n_free(s->h, 0), 2);
    pbi_pages_copies(p, &n);
    assert_int_equal(n, 0);
    /* a target that is given up takes its copy along */
    assert_int_equal(s->take(s->h, 0, 1, b), 0);
    s->copy(s->h, 0, a[1], b[0], 1);
    s->unref(s->h, 0, b[0]);
    pbi_pages_copies(p, &n);
    assert_int_equal(n, 0);
    assert_int_equal(pbi_pages_pins(p, 0, a[1]), 0);
    assert_int_equal(pbi_pages_fault(p, NULL), 0);
    pbi_pages_free(p);
}

static void expect_misuse(pbi_pages *p, const char *what)
{
    pb_err err = { 0 };
    assert_int_equal(pbi_pages_fault(p, &err), PB_E_PLUGIN);
    HAS(err.msg, "attention-test");
    HAS(err.msg, what);
    assert_int_equal(pbi_pages_fault(p, &err), 0);
}

static void pages_misuse(void **state)
{
    pbi_pages *p = pool(6);
    const pb_pages *s = pbi_pages_service(p);
    const pbi_call call = { "attention", "test", "release" };
    pb_page a[2];
    pbi_call_now = &call;
    s->unref(s->h, 0, 2);
    expect_misuse(p, "unref of page 2 of group 0 in release: the page is free");
    pbi_call_now = NULL;
    s->ref(s->h, 0, 2);
    expect_misuse(p, "ref of page 2");
    s->unref(s->h, 0, 0);
    expect_misuse(p, "page 0 is the sink");
    s->unref(s->h, 0, 6);
    expect_misuse(p, "no such page");
    s->unref(s->h, 1, 1);
    expect_misuse(p, "no such group");
    assert_int_equal(s->take(s->h, 0, 2, a), 0);
    s->copy(s->h, 0, a[0], a[0], 1);
    expect_misuse(p, "one page");
    s->copy(s->h, 0, a[0], a[1], 5);
    expect_misuse(p, "1..page_tokens");
    s->copy(s->h, 0, 4, a[1], 1);
    expect_misuse(p, "the source is free");
    s->ref(s->h, 0, a[1]);
    s->copy(s->h, 0, a[0], a[1], 1);
    expect_misuse(p, "exactly one reference");
    pbi_pages_free(p);
}

/* ---- the step validator ----------------------------------------------- */

enum { N_TOK = 30 };
static int32_t prompt_a[N_TOK], prompt_b[N_TOK];

static void make_prompts(int32_t n_same)
{
    uint64_t r = 3;
    for (int32_t i = 0; i < N_TOK; i++)
        prompt_a[i] = prompt_b[i] = pipe_below(&r, 90);
    for (int32_t i = n_same; i < N_TOK; i++)
        prompt_b[i] = 95;
}

/* two requests that share 14 tokens, pages of 4: the second joins when the first has begun */
static int run_donor(int bug, int paranoid, pipe_answer *a, pb_err *err)
{
    pipe_config c = pipe_default();
    pipe_request q[2] = { pipe_request_default(), pipe_request_default() };
    char text[64];
    pipe_t *p;
    int rc;
    make_prompts(14);
    snprintf(text, sizeof text, "@donor page_size=4 bug=%d", bug);
    c.attention = text;
    c.fakes = fakes;
    c.paranoid = paranoid;
    q[0].ids = prompt_a;
    q[1].ids = prompt_b;
    q[0].n = 14;
    q[1].n = 20;
    q[1].at_turn = 1;
    assert_int_equal(pipe_open(&c, &p, err), 0);
    rc = pipe_run(p, 2, q, a, err);
    pipe_close(p);
    return rc;
}

static void validator_passes_a_right_one(void **state)
{
    pipe_answer a[2];
    pb_err err;
    assert_int_equal(run_donor(BUG_NONE, 1, a, &err), 0);
    assert_int_equal(a[1].n_cached, 14);
    assert_int_equal(a[1].n, 16);
    pipe_answers_free(a, 2);
}

static void validator_names_the_culprit(void **state)
{
    static const struct {
        int bug;
        const char *says[3];
    } t[] = {
        { BUG_WRITES_SHARED,
          { "attention-donor: step 2: page 4 of group 0 is written at position 14 by seq 1",
            "but has 2 references", "reserve" } },
        { BUG_FORGETS_COPY, { "attention-donor: step 2: page", "seq", "a copy is missing" } },
        { BUG_SHORT_COPY, { "attention-donor: step 2: page", "holds 1 of 2 tokens", "reserve" } },
        { BUG_UNREF_TWICE, { "attention-donor: step 2: page", "at position 14", "is free" } },
        { BUG_STALE_TABLE, { "attention-donor: step 2: ", "by seq", "position 14" } },
        { BUG_SHORT_TABLE, { "attention-donor.table: seq", "pages", "need" } },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        pipe_answer a[2];
        pb_err err = { 0 };
        int rc = run_donor(t[i].bug, 1, a, &err);
        if (rc != PB_E_PLUGIN)
            fail_msg("bug %d: %d %s", t[i].bug, rc, err.msg);
        for (int k = 0; k < 3; k++)
            HAS(err.msg, t[i].says[k]);
        pipe_answers_free(a, 2);
    }
}

static void leak_is_found_when_idle(void **state)
{
    pipe_answer a[2];
    pb_err err = { 0 };
    assert_int_equal(run_donor(BUG_LEAK, 1, a, &err), PB_E_PLUGIN);
    HAS(err.msg, "attention-donor");
    HAS(err.msg, "left");
    pipe_answers_free(a, 2);
}

/* without the validator a copy that never ran reads memory that nobody wrote: NaN, and the
 * operation is named; only the sequence that it hits fails */
static void nan_is_named(void **state)
{
    pipe_answer a[2];
    pb_err err = { 0 };
    assert_int_equal(run_donor(BUG_FORGETS_COPY, 0, a, &err), 0);
    int bad = a[0].reason == PBI_DONE_ERROR ? 0 : 1;
    assert_int_equal(a[bad].reason, PBI_DONE_ERROR);
    assert_int_equal(a[bad].err.code, PB_E_NUMERIC);
    HAS(a[bad].err.msg, "operation attend");
    assert_int_equal(a[!bad].reason, PBI_DONE_LENGTH);
    assert_int_equal(a[!bad].n, 16);
    pipe_answers_free(a, 2);
}

/* ---- requests --------------------------------------------------------- */

static void run_one(const pipe_config *c, const pipe_request *q, pipe_answer *a)
{
    pipe_t *p;
    pb_err err;
    if (pipe_open(c, &p, &err))
        fail_msg("%s", err.msg);
    if (pipe_run(p, 1, q, a, &err))
        fail_msg("%s", err.msg);
    pipe_close(p);
}

static void requests_refused(void **state)
{
    pipe_config c = pipe_default();
    pipe_request q = pipe_request_default();
    pipe_answer a;
    int32_t bad[3] = { 1, 97, 2 };
    static int32_t many[300];
    q.ids = bad;
    run_one(&c, &q, &a);
    assert_int_equal(a.reason, PBI_DONE_ERROR);
    HAS(a.err.msg, "no token");
    q.n = 3;
    run_one(&c, &q, &a);
    HAS(a.err.msg, "token 1 of the prompt is 97, the vocabulary has 97");
    q.ids = many;
    q.n = 257;
    run_one(&c, &q, &a);
    HAS(a.err.msg, "257 tokens, the context 256");
    q.n = 256;
    run_one(&c, &q, &a);
    assert_int_equal(a.reason, PBI_DONE_CONTEXT);
    assert_int_equal(a.n, 0);
    q.n = 250;
    run_one(&c, &q, &a);
    assert_int_equal(a.reason, PBI_DONE_CONTEXT);
    assert_int_equal(a.n, 6);
    pipe_answers_free(&a, 1);
    q.max_new = 6;
    run_one(&c, &q, &a);
    assert_int_equal(a.reason, PBI_DONE_LENGTH);
    pipe_answers_free(&a, 1);
    q.max_new = 0;
    run_one(&c, &q, &a);
    assert_int_equal(a.reason, PBI_DONE_LENGTH);
    assert_int_equal(a.n, 0);
}

/* after the engine was lost, prompt + emitted tokens go on to the same text and hash */
static void resubmission_continues(void **state)
{
    for (int all = 0; all < 2; all++)
        for (int32_t cut = 1; cut <= 16; cut += 5) {
            pipe_config c = pipe_default();
            pipe_request q = pipe_request_default();
            pipe_answer whole, half, rest;
            int32_t ids[64];
            make_prompts(14);
            c.sampler = "chain temperature=1";
            q.ids = prompt_a;
            q.n = 9;
            q.flags |= all ? PBI_SUBMIT_ALL_LOGITS : 0;
            run_one(&c, &q, &whole);
            q.max_new = cut;
            run_one(&c, &q, &half);
            memcpy(ids, prompt_a, 9 * sizeof *ids);
            memcpy(ids + 9, half.ids, (size_t)cut * sizeof *ids);
            q.ids = ids;
            q.n = 9 + cut;
            q.n_prompt = 9;
            q.max_new = 16;
            q.logits_hash = half.hash;
            run_one(&c, &q, &rest);
            assert_int_equal(rest.n, 16 - cut);
            assert_int_equal(rest.reason, PBI_DONE_LENGTH);
            assert_memory_equal(rest.ids, whole.ids + cut, (size_t)rest.n * sizeof *ids);
            assert_int_equal(rest.hash, whole.hash);
            pipe_answers_free(&whole, 1);
            pipe_answers_free(&half, 1);
            pipe_answers_free(&rest, 1);
        }
}

typedef struct seen {
    int64_t n, last;
} seen;

static void see(void *arg, uint64_t id, int64_t pos, const float *row, int64_t n_vocab)
{
    seen *s = arg;
    assert_int_equal(pos, s->last + 1);
    s->last = pos;
    s->n++;
}

/* score: every row of the prompt once and in order, though only 64 fit in a step */
static void all_logits_in_order(void **state)
{
    pipe_config c = pipe_default();
    pipe_request q = pipe_request_default();
    pipe_answer a;
    static int32_t ids[200];
    seen s = { 0, -1 };
    c.max_rows = 128;
    c.attention = "hash page_size=8";
    c.hooks = (pbi_engine_hooks){ .arg = &s, .on_logits = see };
    q.ids = ids;
    q.n = 200;
    q.max_new = 0;
    q.flags |= PBI_SUBMIT_ALL_LOGITS;
    run_one(&c, &q, &a);
    assert_int_equal(a.reason, PBI_DONE_LENGTH);
    assert_int_equal(s.n, 200);
}

static void dead_end_fails_its_request(void **state)
{
    pipe_config c = pipe_default();
    pipe_request q = pipe_request_default();
    pipe_answer a;
    make_prompts(14);
    c.fakes = fakes;
    c.constraint[0] = "@mask none_at=12";
    c.spec = "ngram min_n=1";
    q.ids = prompt_a;
    q.n = 9;
    run_one(&c, &q, &a);
    assert_int_equal(a.reason, PBI_DONE_ERROR);
    assert_int_equal(a.n, 3);
    HAS(a.err.msg, "constraint-mask: no token is allowed at position 12");
    pipe_answers_free(&a, 1);
}

/* ---- memory ----------------------------------------------------------- */

/* The pool holds fewer pages than the plan promised: the request fails, the engine goes on. */
static void what_never_fits_is_failed(void **state)
{
    pipe_config c = pipe_default();
    pipe_request q[2] = { pipe_request_default(), pipe_request_default() };
    pipe_answer a[2];
    pipe_t *p;
    pb_err err;
    make_prompts(14);
    c.attention = "paged page_size=4 watermark=0";
    q[0].ids = q[1].ids = prompt_a;
    q[0].n = 6;
    q[0].max_new = 2;
    q[1].n = 20;
    assert_int_equal(pipe_open(&c, &p, &err), 0);
    pbi_pages_limit(pbi_runner_pages(pipe_runner(p)), 3);
    if (pipe_run(p, 2, q, a, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(a[0].reason, PBI_DONE_LENGTH);
    assert_int_equal(a[1].reason, PBI_DONE_ERROR);
    HAS(a[1].err.msg, "no room for KV of 20 tokens");
    pipe_answers_free(a, 2);
    pipe_close(p);
}

/* ---- a scheduler that breaks its contract ----------------------------- */

static void bad_schedulers_are_named(void **state)
{
    static const char *const says[] = {
        NULL,          "seq named twice", "names no sequence of the view",
        "n_tokens is", "n_tokens is 0",   "n_tokens is",
        "n_draft",     "not younger",     "planned nothing"
    };
    for (int bug = 1; bug <= SCHED_IDLE; bug++) {
        pipe_config c = pipe_default();
        pipe_request q[2] = { pipe_request_default(), pipe_request_default() };
        pipe_answer a[2];
        pipe_t *p;
        pb_err err = { 0 };
        char text[32];
        make_prompts(14);
        snprintf(text, sizeof text, "@sched bug=%d", bug);
        c.scheduler = text;
        c.fakes = fakes;
        c.attention = "paged page_size=4 watermark=0";
        q[0].ids = q[1].ids = prompt_a;
        q[0].n = q[1].n = 12;
        if (pipe_open(&c, &p, &err))
            fail_msg("%s", err.msg);
        pbi_pages_limit(pbi_runner_pages(pipe_runner(p)), 8);
        if (bug == SCHED_IDLE) { /* patience is long while nothing runs */
            int rc = 0;
            pbi_msg_submit m = { .h.id = 1, .params = q[0].params, .n_tokens = 12, .n_prompt = 12 };
            uint64_t buf[64];
            pipe_put(p, buf, pbi_msg_put_submit(buf, sizeof buf, &m, prompt_a, NULL));
            for (int i = 0; i < (1 << 21) && rc >= 0; i++)
                rc = pbi_engine_turn(pipe_engine(p));
            err = *pbi_engine_error(pipe_engine(p));
            memset(a, 0, sizeof a);
        } else {
            assert_int_equal(pipe_run(p, 2, q, a, &err), PB_E_PLUGIN);
        }
        HAS(err.msg, "scheduler-sched.");
        HAS(err.msg, says[bug]);
        /* said to the front as well */
        assert_non_null(pipe_last(p, PBI_MSG_FAULT));
        pipe_answers_free(a, 2);
        pipe_close(p);
    }
}

/* ---- other messages --------------------------------------------------- */

static const pbi_msg_ack *ask(pipe_t *p, const void *msg, size_t n)
{
    pipe_put(p, msg, n);
    assert_true(pbi_engine_turn(pipe_engine(p)) >= 0);
    return pipe_last(p, PBI_MSG_ACK);
}

static void reset_renew_stats_quit(void **state)
{
    pipe_config c = pipe_default();
    pipe_request q = pipe_request_default();
    pipe_answer a;
    pipe_t *p;
    pb_err err;
    const pbi_msg_ack *ack;
    pbi_msg reset = { PBI_MSG_RESET, sizeof reset, 77 }, st = { PBI_MSG_ASK, sizeof st, 78 },
            quit = { PBI_MSG_QUIT, sizeof quit, 79 };
    pbi_msg_renew renew = { .h = { PBI_MSG_RENEW, sizeof renew, 80 }, .slot = "attention" };
    uint64_t before;
    make_prompts(14);
    c.attention = "hash page_size=4";
    q.ids = prompt_a;
    q.n = 20;
    assert_int_equal(pipe_open(&c, &p, &err), 0);
    assert_int_equal(pipe_run(p, 1, &q, &a, &err), 0);
    before = a.hash;
    pipe_answers_free(&a, 1);
    assert_int_equal(pipe_run(p, 1, &q, &a, &err), 0);
    assert_int_equal(a.n_cached, 16); /* whole pages before the last token */
    assert_int_equal(a.hash, before);
    pipe_answers_free(&a, 1);
    ack = ask(p, &reset, sizeof reset);
    assert_int_equal(ack->h.id, 77);
    assert_int_equal(ack->err.code, 0);
    ask(p, &st, sizeof st);
    const pbi_msg_stats *s = pipe_last(p, PBI_MSG_STATS);
    assert_int_equal(s->stats.n_steps, 0);
    assert_int_equal(s->stats.kv_bytes_used, 0);
    assert_int_equal(pipe_run(p, 1, &q, &a, &err), 0);
    assert_int_equal(a.n_cached, 0); /* the cache is gone */
    pipe_answers_free(&a, 1);
    assert_int_equal(ask(p, &renew, sizeof renew)->err.code, 0);
    assert_int_equal(pipe_run(p, 1, &q, &a, &err), 0);
    assert_int_equal(a.n_cached, 0);
    assert_int_equal(a.hash, before);
    pipe_answers_free(&a, 1);
    strcpy(renew.slot, "nonsense");
    HAS(ask(p, &renew, sizeof renew)->err.msg, "nonsense");
    assert_int_equal(ask(p, &quit, sizeof quit)->kind, PBI_MSG_QUIT);
    assert_int_equal(pbi_engine_turn(pipe_engine(p)), PB_LOOP_DONE);
    pipe_close(p);
}

/* ---- two engines on one device ---------------------------------------- */

static void expect_equal(const pipe_answer *a, const pipe_answer *b, int n)
{
    for (int i = 0; i < n; i++) {
        assert_int_equal(a[i].n, b[i].n);
        assert_memory_equal(a[i].ids, b[i].ids, (size_t)a[i].n * sizeof *a[i].ids);
        assert_int_equal(a[i].hash, b[i].hash);
    }
}

/* They alternate steps. In arenas of their own nothing is lost; in a shared one each turn takes
 * the other's KV away, and both compute it again. Bits are as if alone either way. */
static void engines_take_turns(void **state)
{
    for (int own = 0; own < 2; own++) {
        pipe_config c = pipe_default(), d;
        pipe_request q[3];
        pipe_answer alone[3], x[3], y[3];
        pipe_t *p1, *p2;
        pb_err err = { 0 };
        pbi_engine_stats st;
        int r1 = 0, r2 = 0;
        make_prompts(14);
        c.attention = "paged page_size=4";
        c.sampler = "chain temperature=1";
        for (int i = 0; i < 3; i++) {
            q[i] = pipe_request_default();
            q[i].ids = i == 2 ? prompt_b : prompt_a;
            q[i].n = 12 + 4 * i;
            q[i].max_new = own ? 30 : 1;
        }
        assert_int_equal(pipe_open(&c, &p1, &err), 0);
        assert_int_equal(pipe_run(p1, 3, q, alone, &err), 0);
        d = c;
        d.share = p1;
        d.own_arena = own;
        d.attention = "hash page_size=8";
        assert_int_equal(pipe_open(&d, &p2, &err), 0);
        pipe_begin(p1, 3, q, x);
        pipe_begin(p2, 3, q, y);
        while (r1 == 0 || r2 == 0) {
            r1 = r1 ? r1 : pipe_turn(p1, &err);
            r2 = r2 ? r2 : pipe_turn(p2, &err);
        }
        if (r1 < 0 || r2 < 0)
            fail_msg("%s", err.msg);
        expect_equal(x, alone, 3);
        expect_equal(y, alone, 3);
        pbi_engine_get_stats(pipe_engine(p2), &st);
        assert_int_equal(st.n_preempted, 0); /* a taken arena is no preemption */
        pipe_answers_free(x, 3);
        pipe_answers_free(y, 3);
        /* p1's KV is gone now if the arena is shared: its cache must know */
        assert_int_equal(pipe_run(p1, 3, q, x, &err), 0);
        assert_int_equal(pipe_run(p2, 3, q, y, &err), 0);
        assert_int_equal(y[2].n_cached, own ? 16 : 0);
        expect_equal(x, alone, 3);
        expect_equal(y, alone, 3);
        pipe_close(p2);
        pipe_close(p1);
        pipe_answers_free(alone, 3);
        pipe_answers_free(x, 3);
        pipe_answers_free(y, 3);
    }
}

/* ---- a second runner -------------------------------------------------- */

/* It knows no sequence and no attention plugin: the steps say it all. */
typedef struct mirror {
    pbi_runner *run;
    void *step;
    pb_draw *draws;
    int32_t n_draws;
    int64_t n_same;
} mirror;

static void mirror_step(void *arg, const pb_step *s)
{
    mirror *m = arg;
    free(m->step);
    m->step = aligned_alloc(64, (s->bytes + 63) / 64 * 64);
    memcpy(m->step, s, s->bytes);
    m->n_draws = 0;
}

static void mirror_draws(void *arg, int32_t n, const pb_draw *d, size_t stride)
{
    mirror *m = arg;
    assert_int_equal(stride, sizeof *d);
    m->draws = realloc(m->draws, (size_t)n * sizeof *d);
    memcpy(m->draws, d, (size_t)n * sizeof *d);
    m->n_draws = n;
}

static void mirror_result(void *arg, const pb_step *s, const pb_result *r)
{
    mirror *m = arg;
    pb_result x;
    pb_err err;
    if (!m->run)
        return;
    if (pbi_runner_check(m->run, m->step, NULL, &err) || pbi_runner_submit(m->run, m->step, &err) ||
        (m->n_draws && pbi_runner_pick(m->run, m->n_draws, m->draws, sizeof *m->draws, &err)) ||
        pbi_runner_wait(m->run, s->n, &x, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(x.n_out, r->n_out);
    if (m->n_draws)
        assert_memory_equal(x.ids, r->ids, (size_t)r->n_out * sizeof *r->ids);
    if (r->logits)
        assert_memory_equal(x.logits, r->logits,
                            (size_t)(r->n_out * r->n_vocab) * sizeof *r->logits);
    m->n_same++;
}

static void steps_alone_give_the_bits(void **state)
{
    pipe_config c = pipe_default();
    pipe_request q[4];
    pipe_answer a[4];
    pipe_t *p;
    pb_err err = { 0 };
    mirror m = { 0 };
    make_prompts(14);
    c.attention = "@donor page_size=4";
    c.fakes = fakes;
    c.n_groups = 2;
    c.window = 9;
    c.scheduler = "@sched wild=3";
    c.sampler = "chain temperature=1 repeat_penalty=1.3";
    c.spec = "ngram min_n=1";
    c.constraint[0] = "@mask";
    c.preempt_every = 7;
    c.copy_steps = 1;
    c.hooks = (pbi_engine_hooks){
        .arg = &m, .on_step = mirror_step, .on_draws = mirror_draws, .on_result = mirror_result
    };
    for (int i = 0; i < 4; i++) {
        q[i] = pipe_request_default();
        q[i].ids = i % 2 ? prompt_a : prompt_b;
        q[i].n = 14 + i;
        q[i].max_new = 40;
    }
    if (pipe_open(&c, &p, &err))
        fail_msg("%s", err.msg);
    pbi_runner_options o = *pbi_runner_opts(pipe_runner(p));
    o.attention = NULL;
    o.n_plan = pbi_runner_groups(pipe_runner(p));
    o.plan = pbi_runner_plan(pipe_runner(p));
    o.own_arena = 1;
    if (pbi_runner_open(&o, &m.run, &err))
        fail_msg("%s", err.msg);
    if (pipe_run(p, 4, q, a, &err))
        fail_msg("%s", err.msg);
    assert_true(m.n_same > 40);
    pbi_runner_close(m.run);
    pipe_close(p);
    pipe_answers_free(a, 4);
    free(m.step);
    free(m.draws);
}

/* ---- no allocation at a step ------------------------------------------ */

static int counting;
static int64_t n_allocs;
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n)
{
    n_allocs += counting;
    return __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t each)
{
    n_allocs += counting;
    return __real_calloc(n, each);
}
void *__wrap_realloc(void *p, size_t n)
{
    n_allocs += counting;
    return __real_realloc(p, n);
}

static void quiet(void *arg, const pb_step *s)
{
    counting = s->n > 8; /* the first steps size the buffers */
}

static void silent(void *arg, const pb_step *s, const pb_result *r)
{
    counting = 0; /* from here the test's own front receives */
}

static void steady_steps_allocate_nothing(void **state)
{
    pipe_config c = pipe_default();
    pipe_request q[4];
    pipe_answer a[4];
    pipe_t *p;
    pb_err err;
    make_prompts(14);
    c.attention = "paged page_size=4";
    c.spec = "ngram min_n=1";
    c.hooks = (pbi_engine_hooks){ .on_step = quiet, .on_result = silent };
    for (int i = 0; i < 4; i++) {
        q[i] = pipe_request_default();
        q[i].ids = prompt_a;
        q[i].n = 10 + i;
        q[i].max_new = 50;
    }
    assert_int_equal(pipe_open(&c, &p, &err), 0);
    n_allocs = 0;
    assert_int_equal(pipe_run(p, 4, q, a, &err), 0);
    counting = 0;
    assert_int_equal(n_allocs, 0);
    pipe_answers_free(a, 4);
    pipe_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_round_trip),
        cmocka_unit_test(message_refused),
        cmocka_unit_test(pages_take_and_free),
        cmocka_unit_test(pages_pin_sources),
        cmocka_unit_test(pages_misuse),
        cmocka_unit_test(validator_passes_a_right_one),
        cmocka_unit_test(validator_names_the_culprit),
        cmocka_unit_test(leak_is_found_when_idle),
        cmocka_unit_test(nan_is_named),
        cmocka_unit_test(requests_refused),
        cmocka_unit_test(resubmission_continues),
        cmocka_unit_test(all_logits_in_order),
        cmocka_unit_test(dead_end_fails_its_request),
        cmocka_unit_test(what_never_fits_is_failed),
        cmocka_unit_test(bad_schedulers_are_named),
        cmocka_unit_test(reset_renew_stats_quit),
        cmocka_unit_test(engines_take_turns),
        cmocka_unit_test(steps_alone_give_the_bits),
        cmocka_unit_test(steady_steps_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
