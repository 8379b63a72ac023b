/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_schedulers.c - properties of schedulers, on a toy engine that counts tokens.
 *
 * Random limits, lengths, arrivals, drafts and a KV pool small enough to preempt; after each call
 * the plan is checked: every sequence once, rows and slots within limits, only what is left is
 * fed, drafts only where a token is drawn, running ones in order of age, waiting ones in order
 * of arrival. A victim is younger than the one in need. Every sequence ends. A failure prints
 * its seed: PATCHBAY_SEED=n test_schedulers.
 */
#include "plug.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOTAL = 60 };

typedef struct seq {
    pb_seq s;
    int64_t final, held; /* n_tokens at the end; KV tokens reserved */
    int in_step, n_admitted;
} seq;

typedef struct world {
    uint64_t rnd;
    plug p;
    const pb_sched *v;
    pb_view view;
    seq seqs[MAX_TOTAL];
    const pb_seq *waiting[MAX_TOTAL], *running[MAX_TOTAL];
    int32_t n_total, n_arrived, max_ctx, max_seqs;
    int64_t capacity, used, too_much, n_preempted, n_steps, n_drafts, most_running;
    pb_plan plan[MAX_TOTAL];
    int32_t budget; /* chunked: of a step */
    int any_order;  /* a policy may overtake */
    char why[300];
} world;

static int wrong(world *w, const char *fmt, ...) PBI_PRINTF(2, 3);
static int wrong(world *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->why, sizeof w->why, fmt, ap);
    va_end(ap);
    return -1;
}

static int below(world *w, int32_t n)
{
    return plug_below(&w->rnd, n);
}

static seq *of(world *w, const pb_seq *s)
{
    return &w->seqs[s->id];
}

static int64_t match(void *h, const pb_seq *s, int64_t *n_inflight)
{
    *n_inflight = 0;
    return s->id % 3 == 0 ? (s->n_tokens - 1) / 2 : 0;
}

static int32_t index_of(const pb_seq *const *list, int32_t n, const pb_seq *s)
{
    for (int32_t i = 0; i < n; i++)
        if (list[i] == s)
            return i;
    return -1;
}

static void take_out(const pb_seq **list, int32_t *n, const pb_seq *s)
{
    int32_t m = 0;
    for (int32_t i = 0; i < *n; i++)
        if (list[i] != s)
            list[m++] = list[i];
    *n = m;
}

static void to_waiting(world *w, seq *q)
{
    int32_t i = w->view.n_waiting++;
    while (i > 0 && w->waiting[i - 1]->id > q->s.id) {
        w->waiting[i] = w->waiting[i - 1];
        i--;
    }
    w->waiting[i] = &q->s;
    q->s.state = PB_SEQ_WAITING;
    q->s.slot = -1;
    q->s.n_valid = 0;
    q->s.n_left = q->s.n_tokens;
    q->in_step = 0;
}

static void stop(world *w, seq *q)
{
    take_out(w->running, &w->view.n_running, &q->s);
    w->used -= q->held;
    q->held = 0;
    w->view.n_slots_free++;
}

static void arrive(world *w)
{
    static const int32_t none[1] = { 0 };
    seq *q = &w->seqs[w->n_arrived];
    int64_t n = 1 + below(w, w->max_ctx - 1);
    q->s = (pb_seq){ .size = sizeof q->s,
                     .id = (uint64_t)w->n_arrived++,
                     .tokens = none,
                     .n_tokens = n,
                     .n_prompt = n,
                     .priority = below(w, 4),
                     .t_arrival_ns = w->view.now_ns };
    q->s.max_new = below(w, (int32_t)(w->max_ctx - n) + 1);
    q->final = n + q->s.max_new;
    to_waiting(w, q);
}

/* ---- the plan ------------------------------------------------------------------ */

static int check_plan(world *w, int32_t n)
{
    const pb_view *v = &w->view;
    int64_t rows = 0, fed = 0, decodes = 0;
    int32_t n_new = 0, last_run = -1;
    if (n < 0 || n > MAX_TOTAL)
        return wrong(w, "next said %d", n);
    for (int32_t i = 0; i < n; i++) {
        const pb_plan *p = &w->plan[i];
        for (int32_t j = 0; j < i; j++)
            if (w->plan[j].seq == p->seq)
                return wrong(w, "seq %d is in the plan twice", (int)p->seq->id);
        int32_t r = index_of(v->running, v->n_running, p->seq);
        if (r >= 0 && (r < last_run || n_new > 0))
            return wrong(w, "seq %d is planned after a younger one", (int)p->seq->id);
        if (r >= 0)
            last_run = r;
        else if (n_new >= v->n_waiting || index_of(v->waiting, v->n_waiting, p->seq) < 0)
            return wrong(w, "seq %d is not in the view", (int)p->seq->id);
        else if (v->waiting[n_new++] != p->seq && !w->any_order)
            return wrong(w, "seq %d overtakes a waiting one", (int)p->seq->id);
        decodes += r == 0 || p->seq->n_left == 1;
        fed += p->n_tokens;
        if (p->n_tokens < 1 || p->n_tokens > p->seq->n_left)
            return wrong(w, "seq %d: %d tokens of %d left", (int)p->seq->id, p->n_tokens,
                         (int)p->seq->n_left);
        if (p->n_draft < 0 || p->n_draft > v->max_draft ||
            (p->n_draft > 0 && p->n_tokens != p->seq->n_left))
            return wrong(w, "seq %d: %d drafts after %d of %d tokens", (int)p->seq->id, p->n_draft,
                         p->n_tokens, (int)p->seq->n_left);
        rows += p->n_tokens + p->n_draft;
    }
    if (rows > v->max_rows)
        return wrong(w, "%d rows, limit %d", (int)rows, v->max_rows);
    if (w->budget > 0 && fed > w->budget && fed > decodes)
        return wrong(w, "%d tokens, budget %d, %d decode", (int)fed, w->budget, (int)decodes);
    if (n_new > v->n_slots_free)
        return wrong(w, "%d new sequences, %d slots", n_new, v->n_slots_free);
    if (n == 0 && v->n_waiting + v->n_running > 0)
        return wrong(w, "nothing planned for %d running and %d waiting", v->n_running,
                     v->n_waiting);
    if (v->n_running > 0 && v->running[0]->n_left > 0 &&
        (n == 0 || w->plan[0].seq != v->running[0]))
        return wrong(w, "the oldest has no row");
    return 0;
}

/* Makes room for one planned sequence as an engine does. 1: it is in the step, 0: it is not. */
static int reserve(world *w, const pb_plan *p)
{
    seq *q = of(w, p->seq);
    int fresh = index_of(w->running, w->view.n_running, &q->s) < 0;
    if (fresh) {
        take_out(w->waiting, &w->view.n_waiting, &q->s);
        w->running[w->view.n_running++] = &q->s;
        w->view.n_slots_free--;
        int64_t none;
        q->s.n_valid = match(NULL, &q->s, &none);
        q->s.n_left = q->s.n_tokens - q->s.n_valid;
        q->n_admitted++;
    }
    int64_t feed = p->n_tokens < q->s.n_left ? p->n_tokens : q->s.n_left;
    int64_t need = q->s.n_valid + feed + p->n_draft - q->held;
    while (need > 0 && w->used + need > w->capacity) {
        int32_t i = fresh ? -1 : w->v->victim(plug_self(&w->p), &w->view, &q->s);
        if (i < 0) {
            if (fresh) {
                stop(w, q);
                to_waiting(w, q);
            }
            return w->view.n_running == 1 && !fresh
                       ? wrong(w, "seq %d alone does not fit", (int)q->s.id)
                       : 0;
        }
        if (i >= w->view.n_running || i <= index_of(w->running, w->view.n_running, &q->s))
            return wrong(w, "victim %d of %d is not younger than seq %d", i, w->view.n_running,
                         (int)q->s.id);
        seq *victim = of(w, w->running[i]);
        if (victim->in_step)
            return wrong(w, "victim seq %d is in the step", (int)victim->s.id);
        stop(w, victim);
        to_waiting(w, victim);
        w->n_preempted++;
    }
    if (need > 0) {
        q->held += need;
        w->used += need;
    }
    q->in_step = 1;
    return 1;
}

static void advance(world *w, const pb_plan *p)
{
    seq *q = of(w, p->seq);
    int64_t feed = p->n_tokens < q->s.n_left ? p->n_tokens : q->s.n_left;
    q->in_step = 0;
    q->s.n_valid += feed;
    if (q->s.n_valid == q->s.n_tokens) {
        int64_t accepted = p->n_draft > 0 ? below(w, p->n_draft + 1) : 0;
        w->n_drafts += p->n_draft;
        q->s.n_valid += accepted;
        q->s.n_tokens += accepted + 1;
        w->used -= q->held - q->s.n_valid;
        q->held = q->s.n_valid;
    }
    q->s.n_left = q->s.n_tokens - q->s.n_valid;
    if (q->s.n_tokens > q->final || below(w, 200) == 0) {
        stop(w, q);
        q->s.state = PB_SEQ_DONE;
    }
}

static int one_step(world *w, int open)
{
    while (w->n_arrived < w->n_total && (open ? below(w, 3) == 0 : w->view.n_waiting < 2))
        arrive(w);
    w->view.step++;
    w->view.now_ns += 1000000;
    /* with long pages the pool may have less room than it seems */
    w->view.n_tokens_free = w->capacity - w->used + w->too_much;
    int32_t n = w->v->next(plug_self(&w->p), &w->view, w->plan, MAX_TOTAL);
    if (check_plan(w, n))
        return -1;
    int any = 0;
    int64_t preempted = w->n_preempted;
    for (int32_t i = 0; i < n; i++) {
        const pb_seq *s = w->plan[i].seq;
        /* a victim is not in this step; nor does anybody join when there was one */
        int fresh = index_of(w->running, w->view.n_running, s) < 0, in = 0;
        if (!fresh || (s->state == PB_SEQ_WAITING && w->n_preempted == preempted))
            in = reserve(w, &w->plan[i]);
        if (in < 0)
            return -1;
        any |= in;
        if (!in)
            w->plan[i].n_tokens = 0;
    }
    if (w->view.n_running > w->most_running)
        w->most_running = w->view.n_running;
    for (int32_t i = 0; i < n; i++)
        if (of(w, w->plan[i].seq)->in_step)
            advance(w, &w->plan[i]);
    w->n_steps++;
    return n > 0 && !any ? wrong(w, "a step with a plan of %d made no progress", n) : 0;
}

static int run_case(world *w, const char *name, const char *const *options, uint64_t seed)
{
    const char *const *opt = options;
    int rc = 0;
    memset(w, 0, sizeof *w);
    w->rnd = seed;
    for (; opt && *opt; opt++) {
        if (strncmp(*opt, "budget=", 7) == 0)
            w->budget = atoi(*opt + 7);
        w->any_order |= strncmp(*opt, "policy=", 7) == 0;
    }
    w->max_ctx = 2 + below(w, 120);
    w->max_seqs = 1 + below(w, 12);
    w->n_total = 1 + below(w, MAX_TOTAL);
    w->capacity = w->max_ctx + below(w, 4 * w->max_ctx);
    w->view = (pb_view){ .size = sizeof w->view,
                         .waiting = w->waiting,
                         .running = w->running,
                         .max_rows = 1 + below(w, 3) * below(w, 60),
                         .max_seqs = w->max_seqs,
                         .n_slots_free = w->max_seqs,
                         .max_draft = below(w, 2) * below(w, 6),
                         .match = match };
    pbi_services svc = { 0 };
    pb_run run = { .size = sizeof run,
                   .max_seqs = w->max_seqs,
                   .max_rows = w->view.max_rows,
                   .max_ctx = w->max_ctx,
                   .n_vocab = 8 };
    plug_open(&w->p, "scheduler", name, options, &svc, &run);
    w->v = w->p.vtbl;
    w->too_much = below(w, 3) == 0 ? 1000 : 0;
    int open = below(w, 2), i = 0;
    for (; i < 60000 && !rc; i++) {
        rc = one_step(w, open);
        if (w->n_arrived == w->n_total && w->view.n_waiting + w->view.n_running == 0)
            break;
        pb_err err = { 0 };
        if (!rc && below(w, 50) == 0 && pbi_instance_renew(w->p.in, &err)) /* it keeps nothing */
            rc = wrong(w, "%s", err.msg);
    }
    if (!rc && i == 60000)
        rc = wrong(w, "%d wait, %d run after %d steps", w->view.n_waiting, w->view.n_running, i);
    if (!rc && w->used != 0)
        rc = wrong(w, "%d KV tokens left", (int)w->used);
    plug_close(&w->p);
    return rc;
}

static void fuzz(const char *name, const char *const *opt, int64_t may_run)
{
    const char *seed = getenv("PATCHBAY_SEED");
    world *w = malloc(sizeof *w);
    int64_t cases = 0, steps = 0, preempted = 0, drafts = 0;
    double end = plug_clock() + plug_seconds(0.5);
    for (uint64_t i = seed ? strtoull(seed, NULL, 10) : 1; plug_clock() < end || cases < 100; i++) {
        if (run_case(w, name, opt, i))
            fail_msg("scheduler-%s, PATCHBAY_SEED=%llu: %s", name, (unsigned long long)i, w->why);
        if (may_run && w->most_running > may_run)
            fail_msg("scheduler-%s, PATCHBAY_SEED=%llu: %lld ran at once, limit %lld", name,
                     (unsigned long long)i, (long long)w->most_running, (long long)may_run);
        cases++;
        steps += w->n_steps;
        preempted += w->n_preempted;
        drafts += w->n_drafts;
        if (seed)
            break;
    }
    print_message("%s %s: %lld cases, %lld steps, %lld preempted, %lld drafts\n", name,
                  opt ? opt[0] : "", (long long)cases, (long long)steps, (long long)preempted,
                  (long long)drafts);
    if (!seed)
        assert_true(drafts > 0 && steps > cases && preempted > 0);
    free(w);
}

static void test_continuous(void **state)
{
    static const char *const chunk[] = { "chunk=16", "headroom=0", NULL };
    static const char *const few[] = { "max_running=3", NULL };
    fuzz("continuous", NULL, 0);
    fuzz("continuous", chunk, 0);
    fuzz("continuous", few, 3);
}

static void test_static(void **state)
{
    static const char *const three[] = { "batch=3", NULL };
    fuzz("static", NULL, 8);
    fuzz("static", three, 3);
}

static void test_chunked(void **state)
{
    static const char *const budget[] = { "budget=7", NULL };
    static const char *const lpm[] = { "policy=lpm", "budget=30", "victim=largest", NULL };
    static const char *const priority[] = { "policy=priority", "victim=lowest", "patience_ms=20",
                                            NULL };
    static const char *const shortest[] = { "policy=shortest", "max_running=3", NULL };
    fuzz("chunked", NULL, 0);
    fuzz("chunked", budget, 0);
    fuzz("chunked", lpm, 0);
    fuzz("chunked", priority, 0);
    fuzz("chunked", shortest, 3);
}

/* One request that every policy likes least, in a stream of others that never ends: steps (of
 * 1 ms) until it joins. */
static int32_t steps_until_joined(const char *const *opt, int32_t limit)
{
    static const int32_t none[1] = { 0 };
    enum { N = 8 };
    pb_seq slow = { .size = sizeof slow,
                    .id = 0,
                    .tokens = none,
                    .n_tokens = 100,
                    .n_prompt = 100,
                    .n_left = 100,
                    .slot = -1,
                    .priority = 0 };
    pb_seq quick[N];
    const pb_seq *waiting[N + 1];
    pb_plan out[4];
    plug p;
    pbi_services svc = { 0 };
    pb_run run = {
        .size = sizeof run, .max_seqs = 4, .max_rows = 64, .max_ctx = 128, .n_vocab = 8
    };
    pb_view v = { .size = sizeof v,
                  .waiting = waiting,
                  .n_waiting = N + 1,
                  .max_rows = 64,
                  .max_seqs = 4,
                  .n_slots_free = 1,
                  .n_tokens_free = 1000 };
    plug_open(&p, "scheduler", "chunked", opt, &svc, &run);
    const pb_sched *s = p.vtbl;
    int32_t step = 0, joined = 0;
    waiting[0] = &slow;
    for (; step < limit && !joined; step++) {
        v.now_ns += 1000000;
        for (int32_t i = 0; i < N; i++) { /* new ones all the time */
            quick[i] = (pb_seq){ .size = sizeof quick[i],
                                 .id = (uint64_t)(1 + i),
                                 .tokens = none,
                                 .n_tokens = 4,
                                 .n_prompt = 4,
                                 .n_left = 4,
                                 .slot = -1,
                                 .priority = 9,
                                 .t_arrival_ns = v.now_ns };
            waiting[i + 1] = &quick[i];
        }
        int32_t n = s->next(plug_self(&p), &v, out, 4);
        assert_int_equal(n, 1);
        joined = out[0].seq == &slow;
    }
    plug_close(&p);
    return step;
}

static void test_patience(void **state)
{
    static const char *const priority[] = { "policy=priority", "patience_ms=500", NULL };
    static const char *const shortest[] = { "policy=shortest", "patience_ms=500", NULL };
    static const char *const fcfs[] = { "policy=fcfs", NULL };
    static const char *const never[] = { "policy=shortest", "patience_ms=86400000", NULL };
    assert_int_equal(steps_until_joined(priority, 2000), 501);
    assert_int_equal(steps_until_joined(shortest, 2000), 501);
    assert_int_equal(steps_until_joined(fcfs, 2000), 1);
    assert_int_equal(steps_until_joined(never, 2000), 2000); /* the stream would starve it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_continuous),
        cmocka_unit_test(test_static),
        cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_patience),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
