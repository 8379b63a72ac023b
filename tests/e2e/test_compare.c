/* SPDX-License-Identifier: MIT
 *
 * tests/e2e/test_compare.c - comparisons whose truth is known. On backend-sim time is virtual, so
 * that an injected 2 % is exactly that; on backend-cpu a KV plugin with a planted fault must be
 * found at the right token of the right request.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "compare/trial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char ini[] = "[pipeline]\ncontext = 256\nmax_seqs = 4\nmax_rows = 64\nthreads = 1\n"
                          "kv_bytes = 8M\nparanoid = false\n"
                          "[weights]\nplugin = synthetic\nlayers = 2\nwidth = 64\nheads = 4\n"
                          "kv_heads = 2\nffn = 128\nvocab = 512\ntype = q8_0\n"
                          "[backend]\nplugin = sim\nstep_us = 1000\nrow_us = 100\n"
                          "[attention]\nplugin = paged\npage_size = 16\n";

enum { MANY = 6, PREFIX = 40 };

typedef struct rig {
    pbi_pipeline *p[PBC_MAX_ARMS];
    const char *names[PBC_MAX_ARMS];
    pbc_options o;
    pbc_trial *t;
    int shared; /* tokens at the beginning that all requests share */
    int64_t drawn, gap_ns;
    int stop_after;
} rig;

static int draw(void *arg, const pbi_arm *like, uint64_t seed, pbi_requests *out, pb_err *err)
{
    (void)like;
    rig *g = arg;
    g->drawn++;
    for (int i = 0; i < MANY; i++) {
        pbi_request q;
        int32_t ids[PREFIX + 20];
        char text[1024];
        int at = 0, n = PREFIX + 3 * i;
        uint64_t s = seed + (uint64_t)i;
        for (int k = 0; k < n; k++)
            ids[k] = k < g->shared ? 10 + k : (int32_t)(3 + pbc_random(&s) % 500);
        for (int k = 0; k < n; k++)
            at += snprintf(text + at, sizeof text - (size_t)at, "%s%d", k ? "," : "", (int)ids[k]);
        pbi_request_default(&q);
        q.max_new = 12;
        q.ignore_eos = 1;
        q.arrival_ns = g->gap_ns * i;
        int rc = pbi_requests_ids(out, text, &q, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int stop(void *arg)
{
    (void)arg;
    return 0;
}

/* arms: settings of each arm but the base, "a=b c.d=e", up to NULL */
static void open(rig *g, const char *base, const char *const *arms)
{
    pb_err err = { 0 };
    int n = 0;
    for (int a = 0;; a++) {
        const char *sets[8];
        char copy[512];
        int k = 0, last = a > 0 && !arms[a - 1];
        snprintf(copy, sizeof copy, "%s %s", base, a == 0 || last ? "" : arms[a - 1]);
        for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "))
            sets[k++] = w;
        if (pbi_pipeline_parse(ini, "compare.ini", k, sets, &g->p[a], &err))
            fail_msg("%s", err.msg);
        g->names[a] = a ? arms[a - 1] : "base";
        n = a;
        if (last)
            break;
    }
    g->o = (pbc_options){ .model = "",
                          .n_arms = n,
                          .pipelines = g->p,
                          .names = g->names,
                          .source = { g, draw, g->gap_ns > 0 },
                          .max_epochs = 9,
                          .min_epochs = 9,
                          .blocks = 2,
                          .level = 0.035,
                          .delta = 0.005,
                          .seed = 5,
                          .stop = stop };
}

static void run_ok(rig *g)
{
    pb_err err = { 0 };
    if (pbc_run(&g->o, &g->t, &err))
        fail_msg("%s", err.msg);
}

static void close_rig(rig *g)
{
    pbc_free(g->t);
    for (int a = 0; a <= g->o.n_arms; a++)
        pbi_pipeline_free(g->p[a]);
}

static void equal_arms_tie(void **state)
{
    (void)state;
    rig g = { 0 };
    open(&g, "", (const char *[]){ "pipeline.threads=1", NULL });
    run_ok(&g);
    assert_int_equal(g.t->n_epochs, 9);
    assert_int_equal(g.t->n_rows, 9 * 2 * 3);
    assert_int_equal(g.drawn, 9 * 3); /* a draw for each round and for the untimed one */
    for (int m = 0; m < PBC_N_METRICS; m++) {
        pbc_interval r;
        pbc_ratio(g.t, 1, m, &r);
        assert_true(fabs(r.lo - 1) < 1e-9 && fabs(r.hi - 1) < 1e-9);
        assert_int_equal(pbc_judge(g.t, 1, m), PBC_TIE);
    }
    assert_false(g.t->diff[1].found || g.t->diff[2].found);
    /* each arm has each turn, and orders are not all alike */
    int first[3] = { 0 };
    for (int i = 0; i < g.t->n_rows; i++)
        first[g.t->rows[i].arm] += g.t->rows[i].place == 0;
    assert_true(first[0] > 1 && first[1] > 1 && first[2] > 1);
    close_rig(&g);
}

static void two_percent_is_found(void **state)
{
    (void)state;
    rig g = { 0 };
    open(&g, "backend.gflops=0 backend.gbps=0 backend.row_us=0",
         (const char *[]){ "backend.step_us=1020", "backend.step_us=980", NULL });
    g.o.max_epochs = g.o.min_epochs = pbc_least_epochs(&g.o);
    run_ok(&g);
    for (int a = 1; a <= 2; a++) {
        pbc_interval r;
        double want = a == 1 ? 1.02 : 0.98;
        pbc_ratio(g.t, a, PBC_E2E, &r);
        assert_true(fabs(r.mid - want) < 1e-6);
        assert_true(fabs(r.lo - want) < 1e-6 && fabs(r.hi - want) < 1e-6);
        assert_int_equal(pbc_judge(g.t, a, PBC_E2E), a == 1 ? PBC_SLOWER : PBC_FASTER);
        assert_int_equal(pbc_judge(g.t, a, PBC_REQ_S), a == 1 ? PBC_SLOWER : PBC_FASTER);
        assert_int_equal(pbc_judge(g.t, a, PBC_TPOT), a == 1 ? PBC_SLOWER : PBC_FASTER);
        assert_int_equal(g.t->shares[a], 0);
    }
    assert_int_equal(pbc_judge(g.t, 3, PBC_E2E), PBC_TIE);
    close_rig(&g);
}

static void few_epochs_say_nothing(void **state)
{
    (void)state;
    rig g = { 0 };
    open(&g, "", (const char *[]){ "backend.step_us=3000", NULL });
    g.o.max_epochs = g.o.min_epochs = pbc_least_epochs(&g.o) - 1;
    run_ok(&g);
    assert_int_equal(pbc_judge(g.t, 1, PBC_E2E), PBC_UNDECIDED);
    close_rig(&g);
}

static void engagement(void **state)
{
    (void)state;
    for (int shared = 0; shared <= PREFIX; shared += PREFIX) {
        rig g = { .shared = shared };
        int from = 0;
        open(&g, "", (const char *[]){ "attention=hash", NULL });
        run_ok(&g);
        const pbi_use *idle = pbc_idle_use(g.t, 1, &from);
        assert_false(g.t->diff[1].found);
        if (shared) {
            assert_null(idle);
            assert_int_equal(pbc_judge(g.t, 1, PBC_TTFT), PBC_FASTER);
        } else {
            assert_non_null(idle);
            assert_string_equal(idle->name, "hash");
        }
        close_rig(&g);
    }
}

/* warm: the untimed run leaves what the timed one finds again */
static void cache_states(void **state)
{
    (void)state;
    int64_t cached[3];
    for (int c = PBC_COLD; c <= PBC_NATURAL; c++) {
        rig g = { 0 };
        open(&g, "", (const char *[]){ "attention=hash", NULL });
        g.o.cache = c;
        g.o.max_epochs = g.o.min_epochs = 2;
        run_ok(&g);
        cached[c] = 0;
        for (int i = 0; i < g.t->n_rows; i++)
            cached[c] += g.t->rows[i].arm == 1 ? g.t->rows[i].cached : 0;
        assert_false(g.t->diff[1].found);
        close_rig(&g);
    }
    assert_int_equal(cached[PBC_COLD], 0);
    assert_true(cached[PBC_WARM] > 0);
    assert_int_equal(cached[PBC_NATURAL], 0); /* each round draws other requests */
}

/* One page is not copied on write: the writer changes what its neighbour reads. */
static void planted_fault(void **state)
{
    (void)state;
    rig g = { .shared = PREFIX };
    open(&g, "backend=cpu attention=nocopy attention.copy=yes pipeline.max_seqs=2",
         (const char *[]){ "attention.copy=no", NULL });
    g.o.max_epochs = g.o.min_epochs = 1;
    run_ok(&g);
    const pbc_difference *d = &g.t->diff[1];
    assert_true(d->found && !d->logits_only);
    assert_true(d->token[0] != d->token[1]);
    assert_true(d->request >= 0 && d->request < MANY && d->position < 12);
    assert_int_equal(d->n_before, PBC_CONTEXT);
    /* the place is right: alone, without a neighbour, both arms give the base's token */
    assert_true(d->explained && !d->repeated);
    assert_false(g.t->diff[2].found);
    close_rig(&g);
}

/* Other activations give other bits, on purpose; the logits there are shown. */
static void other_numbers(void **state)
{
    (void)state;
    rig g = { 0 };
    open(&g, "backend=cpu", (const char *[]){ "backend.activations=f32", NULL });
    g.o.max_epochs = g.o.min_epochs = 1;
    run_ok(&g);
    const pbc_difference *d = &g.t->diff[1];
    assert_true(d->found);
    if (!d->logits_only) {
        assert_true(d->explained && d->repeated);
        assert_true(d->margin[0] > 0 && d->margin[1] > 0);
    }
    close_rig(&g);
}

/* Requests faster than they can be answered: the queue grows. */
static void growing_queue(void **state)
{
    (void)state;
    for (int slow = 0; slow < 2; slow++) {
        rig g = { .gap_ns = slow ? 400000000 : 1000000 };
        open(&g, "pipeline.max_seqs=1", (const char *[]){ "pipeline.threads=1", NULL });
        g.o.max_epochs = g.o.min_epochs = 1;
        run_ok(&g);
        int unsteady = 0;
        for (int i = 0; i < g.t->n_rows; i++)
            unsteady += g.t->rows[i].unsteady;
        assert_int_equal(unsteady > 0, !slow);
        close_rig(&g);
    }
}

static int stop_at_once(void *arg)
{
    (void)arg;
    return 1;
}

static void interrupted(void **state)
{
    (void)state;
    rig g = { 0 };
    open(&g, "", (const char *[]){ "attention=hash", NULL });
    g.o.stop = stop_at_once;
    run_ok(&g);
    assert_true(g.t->interrupted);
    assert_int_equal(g.t->n_epochs, 0);
    assert_int_equal(pbc_judge(g.t, 1, PBC_E2E), PBC_UNDECIDED);
    close_rig(&g);
}

/* p is uniform where there is one distribution, and tiny where there are two. */
static void two_samples(void **state)
{
    enum { N = 200, K = 4, RUNS = 120 };
    static int32_t v[3][N * K];
    uint64_t s = 4;
    int below[2] = { 0 };
    (void)state;
    for (int r = 0; r < RUNS; r++) {
        for (int i = 0; i < N * K; i++)
            for (int k = 0; k < 3; k++) { /* a few common tokens, many rare ones; the third leans */
                uint64_t z = pbc_random(&s);
                int common = z % 10 < (k == 2 ? 7 : 5);
                v[k][i] = (int32_t)(common ? z / 16 % 3 : z / 16 % 400);
            }
        below[0] += pbc_two_samples(v[0], v[1], s) < 0.1;
        below[1] += pbc_two_samples(v[0], v[2], s) < 0.01;
    }
    assert_in_range(below[0], 2, 25); /* 12 expected; 4 standard deviations are 13 */
    assert_in_range(below[1], RUNS * 9 / 10, RUNS);
}

/* Other numbers: how far, and whether samples are alike. The same key: nothing to weigh. */
static void quality(void **state)
{
    (void)state;
    rig g = { 0 };
    open(&g, "backend=cpu sampler=chain sampler.temperature=1",
         (const char *[]){ "attention=hash", "backend.kv=f32", "sampler.temperature=0.2",
                           "process=split backend.kv=f32", NULL });
    g.o.max_epochs = g.o.min_epochs = 1;
    run_ok(&g);
    const pbc_quality *q = g.t->quality;
    assert_int_equal(q[1].n_positions, 0);
    assert_true(q[2].n_positions > 50 && q[2].kl_mean > 0 && q[2].kl_mean < 1e-2);
    assert_true(q[2].kl_max >= q[2].kl_mean && q[2].top1 > 0.9);
    assert_int_equal(q[2].n_samples, 200);
    assert_true(q[2].p > 1e-3);
    assert_true(q[3].kl_max == 0 && q[3].top1 == 1); /* logits are those of the base */
    assert_true(q[3].p < 0.01);
    assert_int_equal(q[4].n_positions, 0);
    assert_non_null(strstr(q[4].why_not, "another process"));
    close_rig(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_arms_tie),
        cmocka_unit_test(two_percent_is_found),
        cmocka_unit_test(few_epochs_say_nothing),
        cmocka_unit_test(engagement),
        cmocka_unit_test(cache_states),
        cmocka_unit_test(planted_fault),
        cmocka_unit_test(other_numbers),
        cmocka_unit_test(growing_queue),
        cmocka_unit_test(interrupted),
        cmocka_unit_test(two_samples),
        cmocka_unit_test(quality),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
