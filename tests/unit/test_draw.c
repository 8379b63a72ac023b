/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_draw.c - plugins/backend-common/draw.c against the definition in draw.h,
 * written here a second time as sorts and plain loops; boundaries, broken rows, statistics.
 *
 * The slow form shares only pbc_exp, pbc_log and pbc_gumbel with what it checks; these are
 * compared with the C library first. `test_draw bench` prints times instead of testing.
 */
#define _GNU_SOURCE 1
#include "../../plugins/backend-common/draw.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define N_MAX 160000

static uint64_t rng_state = 1;
static uint64_t rnd(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state * 0x2545f4914f6cdd1dull;
}
static double rnd_unit(void)
{
    return (double)(rnd() >> 11) / 9007199254740992.0;
}
static int64_t rnd_below(int64_t n)
{
    return (int64_t)(rnd() % (uint64_t)n);
}
/* about normal: enough for logits */
static double rnd_normal(void)
{
    double s = -6.0;
    for (int i = 0; i < 12; i++)
        s += rnd_unit();
    return s;
}

/* ---- the definition, slowly ------------------------------------------- */

typedef struct cand {
    float l;
    int32_t id;
    uint64_t w;
} cand;

static int by_rank(const void *a, const void *b)
{
    const cand *x = a, *y = b;
    if (x->l != y->l)
        return x->l > y->l ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static uint64_t weight(double z)
{
    return (uint64_t)floor(pbc_exp(z) * 1099511627776.0);
}

static int slow_draw(const pb_draw *d, const float *logits, int64_t n, int32_t *id)
{
    if (d->forced >= 0) {
        *id = d->forced;
        return 0;
    }
    float *l = malloc((size_t)n * sizeof *l);
    cand *c = malloc((size_t)n * sizeof *c);
    memcpy(l, logits, (size_t)n * sizeof *l);
    for (int32_t i = 0; i < d->n_edits; i++) {
        float x = l[d->edits[i].id];
        x = x > 0 ? x / d->edits[i].penalty : x * d->edits[i].penalty;
        l[d->edits[i].id] = x + d->edits[i].add;
    }
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        int allowed = !d->allow || (d->allow[i / 32] >> (i % 32) & 1);
        if (allowed && l[i] > -INFINITY)
            c[m++] = (cand){ l[i], (int32_t)i, 0 };
    }
    qsort(c, (size_t)m, sizeof *c, by_rank);
    if (!(d->temperature > 0)) {
        *id = c[0].id;
    } else {
        double max = c[0].l, t = d->temperature, best = -1e308;
        if (d->top_k > 0 && d->top_k < m)
            m = d->top_k;
        uint64_t sum = 0, part = 0;
        for (int64_t i = 0; i < m; i++) {
            c[i].w = weight(((double)c[i].l - max) / t);
            sum += c[i].w;
        }
        if (d->top_p < 1) {
            uint64_t target = (uint64_t)ceil((double)d->top_p * (double)sum);
            int64_t k = 0;
            do
                part += c[k++].w;
            while (k < m && part < target);
            m = k;
        }
        for (int64_t i = 0; i < m; i++) {
            if (i > 0 && d->min_p > 0 && (double)c[i].w < (double)d->min_p * 1099511627776.0)
                continue;
            double s = ((double)c[i].l - max) / t + pbc_gumbel(d->seed, d->pos, c[i].id);
            if (s > best || (s == best && c[i].id < *id)) {
                best = s;
                *id = c[i].id;
            }
        }
    }
    free(l);
    free(c);
    return 0;
}

/* ---- helpers ----------------------------------------------------------- */

static pb_draw plain(void)
{
    return (pb_draw){ .size = sizeof(pb_draw), .top_p = 1, .forced = -1, .n_logprobs = -1 };
}

static int fast_draw(const pb_draw *d, const float *l, int64_t n, int32_t *id, float *lp)
{
    /* exact size, so that a sanitizer sees one byte too many; garbage inside */
    size_t bytes = pbc_draw_scratch(n);
    void *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(scratch, 0xa5, bytes);
    float *copy = malloc((size_t)n * sizeof *copy);
    memcpy(copy, l, (size_t)n * sizeof *copy);
    int rc = pbc_draw(d, l, n, scratch, id, lp);
    assert_memory_equal(copy, l, (size_t)n * sizeof *copy);
    free(copy);
    free(scratch);
    return rc;
}

static int32_t must_draw(const pb_draw *d, const float *l, int64_t n)
{
    int32_t id = -7;
    assert_int_equal(fast_draw(d, l, n, &id, NULL), 0);
    return id;
}

/* Rows as models and adversaries make them. */
static void fill_row(float *l, int64_t n, int kind)
{
    for (int64_t i = 0; i < n; i++) {
        switch (kind) {
        case 0: l[i] = (float)(rnd_normal() * 3); break;
        case 1: l[i] = (float)(rnd_below(4)) - 2.0f; break; /* many ties */
        case 2: l[i] = 1.5f; break;                         /* all equal */
        case 3: l[i] = rnd_below(10) ? -INFINITY : (float)rnd_normal(); break;
        case 4: l[i] = (float)(rnd_normal() * 1e4); break;          /* one token wins */
        case 5: l[i] = rnd_below(2) ? 0.0f : -0.0f; break;          /* equal zeros */
        case 6: l[i] = -(float)i * 0.001f; break;                   /* sorted */
        default: l[i] = (float)(rnd_normal() * 1e37) * 3.0f; break; /* near overflow */
        }
    }
    if (kind == 3)
        l[rnd_below(n)] = 0.25f;
}

static void random_draw(pb_draw *d, int64_t n, pb_edit *edits, uint32_t *allow)
{
    static const float temps[] = { 0, 0.01f, 0.3f, 0.7f, 1, 1, 2, 50 };
    static const float ps[] = { 0, 1e-6f, 0.1f, 0.5f, 0.9f, 0.95f, 0.999f, 0.9999999f, 1 };
    static const float mins[] = { 0, 1e-9f, 0.01f, 0.1f, 0.5f, 1 };
    *d = plain();
    d->seed = rnd();
    d->pos = rnd_below(100000);
    d->temperature = temps[rnd_below(8)];
    if (rnd_below(2))
        d->top_k = (int32_t)(rnd_below(2) ? rnd_below(60) : rnd_below(n + 3));
    if (rnd_below(2))
        d->top_p = ps[rnd_below(9)];
    if (rnd_below(3) == 0)
        d->min_p = mins[rnd_below(6)];
    if (rnd_below(3) == 0) {
        for (int64_t id = rnd_below(9); id < n && d->n_edits < 50; id += 1 + rnd_below(30))
            edits[d->n_edits++] = (pb_edit){ .id = (int32_t)id,
                                             .penalty = rnd_below(2) ? 1.3f : 0.8f,
                                             .add = (float)rnd_normal() };
        d->edits = edits;
    }
    if (rnd_below(3) == 0) {
        int dense = (int)rnd_below(3);
        for (int64_t w = 0; w < (n + 31) / 32; w++)
            allow[w] = (uint32_t)(dense == 0   ? rnd() & rnd() & rnd()
                                  : dense == 1 ? rnd() | rnd()
                                               : 0u - (uint32_t)(rnd() & 1));
        d->allow = allow;
    }
}

/* At least one id is allowed and above -infinity. */
static int has_choice(const pb_draw *d, const float *l, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if ((!d->allow || (d->allow[i / 32] >> (i % 32) & 1)) && l[i] > -INFINITY)
            return 1;
    return 0;
}

/* ---- tests ------------------------------------------------------------- */

static double ulps(double got, double want)
{
    return fabs(got - want) / (fabs(want) * 2.220446049250313e-16 + 1e-320);
}

static void test_functions(void **state)
{
    (void)state;
    double worst_exp = 0, worst_log = 0;
    for (int i = 0; i < 300000; i++) {
        double x = (rnd_unit() - 0.98) * 700, e = ulps(pbc_exp(x), exp(x));
        worst_exp = e > worst_exp ? e : worst_exp;
        double y = ldexp(0.5 + rnd_unit(), (int)rnd_below(200) - 100);
        /* near 1 the result is small: compare absolutely there */
        double g = fabs(pbc_log(y) - log(y)) / (fabs(log(y)) > 0.5 ? fabs(log(y)) : 0.5) / 2.2e-16;
        worst_log = g > worst_log ? g : worst_log;
    }
    assert_true(worst_exp < 4);
    assert_true(worst_log < 8);
    assert_true(pbc_exp(0.0) == 1.0);
    assert_true(pbc_exp(-708.5) == 0.0 && pbc_exp(-INFINITY) == 0.0);
    assert_true(pbc_log(1.0) == 0.0);
    for (int64_t i = 0; i < 100000; i++) {
        double g = pbc_gumbel(7, i, 3);
        assert_true(g > -3.7 && g < 36.74);
    }
}

static void test_definition(void **state)
{
    (void)state;
    float *l = malloc(N_MAX * sizeof *l);
    uint32_t *allow = malloc(N_MAX / 8 + 8);
    pb_edit edits[64];
    int n_drawn = 0;
    for (int round = 0; round < 6000; round++) {
        int64_t n = round % 100 == 99 ? 20000 + rnd_below(30000)
                    : round & 1       ? 1 + rnd_below(70)
                                      : 1 + rnd_below(4000);
        pb_draw d;
        fill_row(l, n, (int)rnd_below(8));
        random_draw(&d, n, edits, allow);
        if (!has_choice(&d, l, n))
            continue;
        int32_t want = -1, got = must_draw(&d, l, n);
        slow_draw(&d, l, n, &want);
        if (got != want)
            fail_msg("round %d: n %d t %g k %d p %g min %g: got %d, the definition says %d", round,
                     (int)n, (double)d.temperature, d.top_k, (double)d.top_p, (double)d.min_p, got,
                     want);
        n_drawn++;
    }
    assert_true(n_drawn > 5000);
    free(l);
    free(allow);
}

static void test_argmax(void **state)
{
    (void)state;
    float *l = malloc(5000 * sizeof *l);
    for (int round = 0; round < 3000; round++) {
        int64_t n = 1 + rnd_below(round % 10 ? 80 : 5000);
        fill_row(l, n, (int)rnd_below(8));
        int64_t want = 0;
        for (int64_t i = 1; i < n; i++)
            if (l[i] > l[want])
                want = i;
        assert_int_equal(pbc_argmax(l, n), want);
        l[rnd_below(n)] = NAN;
        assert_int_equal(pbc_argmax(l, n), -1);
    }
    l[0] = l[1] = -INFINITY;
    assert_int_equal(pbc_argmax(l, 2), -1);
    free(l);
}

/* Ids that 4000 seeds can draw, as a set. */
static void drawable(pb_draw d, const float *l, int64_t n, char *hit)
{
    memset(hit, 0, (size_t)n);
    for (int s = 0; s < 4000; s++) {
        d.seed = (uint64_t)s;
        hit[must_draw(&d, l, n)] = 1;
    }
}

static void test_boundaries(void **state)
{
    (void)state;
    /* probabilities 1/2, 1/4, 1/8, 1/8 and, tied with id 2, id 3 */
    const float l[4] = { logf(4), logf(2), logf(1), logf(1) };
    const float tied[4] = { 0, 0, 0, 0 };
    char h[4];
    pb_draw d = plain();
    d.temperature = 1;
    struct {
        int32_t k;
        float p, min;
        const float *row;
        char hit[4];
    } cases[] = {
        { 0, 1, 0, l, { 1, 1, 1, 1 } },        { 1, 1, 0, l, { 1, 0, 0, 0 } },
        { 3, 1, 0, l, { 1, 1, 1, 0 } },        { 4, 1, 0, l, { 1, 1, 1, 1 } },
        { 9, 1, 0, l, { 1, 1, 1, 1 } },        { 0, 0, 0, l, { 1, 0, 0, 0 } },
        { 0, 0.4999f, 0, l, { 1, 0, 0, 0 } },  { 0, 0.51f, 0, l, { 1, 1, 0, 0 } },
        { 0, 0.76f, 0, l, { 1, 1, 1, 0 } },    { 0, 0.9999f, 0, l, { 1, 1, 1, 1 } },
        { 0, 1, 0.6f, l, { 1, 0, 0, 0 } },     { 0, 1, 0.49f, l, { 1, 1, 0, 0 } },
        { 0, 1, 0.24f, l, { 1, 1, 1, 1 } },    { 0, 1, 1, l, { 1, 0, 0, 0 } },
        { 3, 0.99f, 0.3f, l, { 1, 1, 0, 0 } }, { 2, 1, 0, tied, { 1, 1, 0, 0 } },
        { 0, 0.5f, 0, tied, { 1, 1, 0, 0 } },  { 0, 1, 1, tied, { 1, 1, 1, 1 } },
        { 3, 0.66f, 0, l, { 1, 1, 0, 0 } }, /* p is of what top_k kept: 4/7, then 6/7 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        d.top_k = cases[i].k;
        d.top_p = cases[i].p;
        d.min_p = cases[i].min;
        drawable(d, cases[i].row, 4, h);
        for (int t = 0; t < 4; t++)
            if (h[t] != cases[i].hit[t])
                fail_msg("case %zu: token %d is %s", i, t, h[t] ? "drawn" : "never drawn");
    }
}

static void test_masks(void **state)
{
    (void)state;
    float l[40];
    uint32_t allow[2] = { 0, 0 };
    int32_t id;
    for (int i = 0; i < 40; i++)
        l[i] = (float)i;
    pb_draw d = plain();
    d.allow = allow;
    assert_int_equal(fast_draw(&d, l, 40, &id, NULL), PB_E_INVAL);
    allow[1] = 0xffffff00u; /* bits 40.. lie beyond the vocabulary */
    assert_int_equal(fast_draw(&d, l, 40, &id, NULL), PB_E_INVAL);
    allow[0] = 1u << 7 | 1u << 5;
    assert_int_equal(must_draw(&d, l, 40), 7);
    allow[1] |= 1u << 7; /* 39: the last one */
    assert_int_equal(must_draw(&d, l, 40), 39);
    d.forced = 3; /* whatever the mask says */
    assert_int_equal(must_draw(&d, l, 40), 3);
    d.forced = 40;
    assert_int_equal(fast_draw(&d, l, 40, &id, NULL), PB_E_INVAL);
    d.forced = -1;
    pb_edit e = { .id = 40, .penalty = 1 };
    d.edits = &e;
    d.n_edits = 1;
    assert_int_equal(fast_draw(&d, l, 40, &id, NULL), PB_E_INVAL);
    assert_int_equal(fast_draw(&d, l, 0, &id, NULL), PB_E_INVAL);
    /* an edit may take the favourite away */
    e = (pb_edit){ .id = 39, .penalty = 1, .add = -100 };
    assert_int_equal(must_draw(&d, l, 40), 7);
}

static void test_broken_rows(void **state)
{
    (void)state;
    float l[100], lp;
    int32_t id;
    uint32_t allow[4];
    for (int greedy = 0; greedy < 2; greedy++) {
        pb_draw d = plain();
        d.temperature = greedy ? 0.0f : 1.0f;
        for (int i = 0; i < 100; i++)
            l[i] = (float)i * 0.1f;
        for (int at = 0; at < 100; at += 33) {
            float keep = l[at];
            l[at] = NAN;
            assert_int_equal(fast_draw(&d, l, 100, &id, NULL), PB_E_NUMERIC);
            l[at] = INFINITY;
            assert_int_equal(fast_draw(&d, l, 100, &id, NULL), PB_E_NUMERIC);
            l[at] = -INFINITY; /* an impossible token, no fault */
            assert_int_equal(fast_draw(&d, l, 100, &id, NULL), 0);
            assert_int_not_equal(id, at);
            /* a NaN where no token is allowed does no harm to the draw ... */
            l[at] = NAN;
            memset(allow, 0xff, sizeof allow);
            allow[at / 32] &= ~(1u << (at % 32));
            d.allow = allow;
            assert_int_equal(fast_draw(&d, l, 100, &id, NULL), 0);
            /* ... but its logprob is unknown */
            d.n_logprobs = 0;
            assert_int_equal(fast_draw(&d, l, 100, &id, &lp), PB_E_NUMERIC);
            d.n_logprobs = -1;
            d.allow = NULL;
            l[at] = keep;
        }
        for (int i = 0; i < 100; i++)
            l[i] = -INFINITY;
        assert_int_equal(fast_draw(&d, l, 100, &id, NULL), PB_E_NUMERIC);
        d.forced = 5; /* needs no probability */
        assert_int_equal(fast_draw(&d, l, 100, &id, NULL), 0);
    }
}

static void test_logprobs(void **state)
{
    (void)state;
    float l[3000], lp;
    int32_t id;
    for (int round = 0; round < 200; round++) {
        int64_t n = 1 + rnd_below(3000);
        fill_row(l, n, round % 2 ? 0 : 3);
        double max = -INFINITY, sum = 0;
        for (int64_t i = 0; i < n; i++)
            max = l[i] > max ? l[i] : max;
        for (int64_t i = 0; i < n; i++)
            sum += exp(l[i] - max);
        pb_draw d = plain();
        pb_edit e = { .id = 0, .penalty = 2, .add = 1 };
        d.temperature = round % 3 ? 0.5f : 0.0f; /* none of these change a logprob */
        d.top_k = 3;
        d.edits = &e;
        d.n_edits = 1;
        d.seed = rnd();
        d.n_logprobs = 0;
        assert_int_equal(fast_draw(&d, l, n, &id, &lp), 0);
        assert_true(fabs((double)lp - (l[id] - max - log(sum))) < 2e-6);
        d.forced = (int32_t)rnd_below(n);
        assert_int_equal(fast_draw(&d, l, n, &id, &lp), 0);
        if (l[id] > -INFINITY)
            assert_true(fabs((double)lp - (l[id] - max - log(sum))) < 2e-6);
        else
            assert_true(lp == -INFINITY);
    }
}

/* Chi-square of draws against the probabilities; the statistic's mean is its degrees of
 * freedom k, its deviation sqrt(2k): 6 deviations never happen by chance. */
static double chi_square(const int *count, const double *p, int n, int draws)
{
    double x = 0;
    for (int i = 0; i < n; i++)
        x += (count[i] - p[i] * draws) * (count[i] - p[i] * draws) / (p[i] * draws);
    return (x - (n - 1)) / sqrt(2.0 * (n - 1));
}

static void check_distribution(const char *what, double x)
{
    if (!(fabs(x) < 6))
        fail_msg("%s: chi-square is %.1f deviations off", what, x);
}

enum { N_STAT = 20, DRAWS = 200000 };

static void softmax(const float *l, float t, double *p)
{
    double sum = 0;
    for (int i = 0; i < N_STAT; i++)
        sum += p[i] = exp((double)l[i] / (double)t);
    for (int i = 0; i < N_STAT; i++)
        p[i] /= sum;
}

static void test_statistics(void **state)
{
    (void)state;
    float l[N_STAT];
    double p[N_STAT];
    for (int i = 0; i < N_STAT; i++)
        l[i] = (float)((i * 7) % N_STAT) * 0.15f;
    for (int by = 0; by < 3; by++) { /* noise by seed, by position, by both */
        pb_draw d = plain();
        int c[N_STAT] = { 0 };
        d.temperature = 0.7f;
        softmax(l, d.temperature, p);
        for (int i = 0; i < DRAWS; i++) {
            d.seed = by != 1 ? (uint64_t)i : 99;
            d.pos = by != 0 ? i : 17;
            c[must_draw(&d, l, N_STAT)]++;
        }
        check_distribution("draws", chi_square(c, p, N_STAT, DRAWS));
    }
    /* filtered: top_k 5 of the same row, renormalised */
    pb_draw d = plain();
    int c[N_STAT] = { 0 }, c5[5], k = 0;
    double p5[5], sum = 0;
    d.temperature = 1;
    d.top_k = 5;
    softmax(l, 1, p);
    for (int i = 0; i < DRAWS; i++) {
        d.seed = (uint64_t)i * 3;
        c[must_draw(&d, l, N_STAT)]++;
    }
    for (int i = 0; i < N_STAT; i++)
        if (l[i] > 14.5f * 0.15f) {
            p5[k] = p[i];
            sum += p[i];
            c5[k++] = c[i];
        } else {
            assert_int_equal(c[i], 0);
        }
    assert_int_equal(k, 5);
    for (int i = 0; i < 5; i++)
        p5[i] /= sum;
    check_distribution("top_k draws", chi_square(c5, p5, 5, DRAWS));
}

/* Draws at neighbouring positions and of neighbouring seeds are independent. */
static void test_independence(void **state)
{
    (void)state;
    const float l[4] = { 0, 0, 0, 0 };
    for (int by_seed = 0; by_seed < 2; by_seed++) {
        int pair[16] = { 0 }, last = 0;
        double p[16];
        pb_draw d = plain();
        d.temperature = 1;
        for (int i = 0; i < DRAWS; i++) {
            d.seed = by_seed ? (uint64_t)i : 5;
            d.pos = by_seed ? 5 : i;
            int id = must_draw(&d, l, 4);
            if (i & 1)
                pair[last * 4 + id]++;
            last = id;
        }
        for (int i = 0; i < 16; i++)
            p[i] = 1.0 / 16;
        check_distribution(by_seed ? "seeds" : "positions", chi_square(pair, p, 16, DRAWS / 2));
    }
}

/* ---- times ------------------------------------------------------------- */

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void bench(void)
{
    static const struct {
        const char *name;
        float t, p, min;
        int32_t k;
        int lp;
    } cases[] = { { "greedy", 0, 1, 0, 0, 0 },
                  { "greedy, logprob", 0, 1, 0, 0, 1 },
                  { "t 1", 1, 1, 0, 0, 0 },
                  { "t 1, top_k 40", 1, 1, 0, 40, 0 },
                  { "t 1, top_p .95", 1, .95f, 0, 0, 0 },
                  { "t 1, min_p .05", 1, 1, .05f, 0, 0 },
                  { "t 1, k 40, p .95", 1, .95f, 0, 40, 0 } };
    static const int64_t sizes[] = { 50000, 150000 };
    float *l = malloc(N_MAX * sizeof *l);
    for (int s = 0; s < 2; s++)
        for (int kind = 0; kind < 2; kind++) {
            int64_t n = sizes[s];
            for (int64_t i = 0; i < n; i++)
                l[i] = kind ? (float)(rnd_normal() * 0.01) : (float)(rnd_normal() * 2.5 - 5);
            l[n / 3] = kind ? 0.0f : 12.0f;
            void *scratch = aligned_alloc(64, (pbc_draw_scratch(n) + 63) / 64 * 64);
            for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
                double best = 1e30, t0;
                for (int r = 0; r < 50; r++) {
                    pb_draw d = plain();
                    int32_t id;
                    float lp;
                    d.seed = (uint64_t)r;
                    d.temperature = cases[c].t;
                    d.top_p = cases[c].p;
                    d.min_p = cases[c].min;
                    d.top_k = cases[c].k;
                    d.n_logprobs = cases[c].lp - 1;
                    t0 = now_us();
                    if (pbc_draw(&d, l, n, scratch, &id, &lp))
                        exit(1);
                    t0 = now_us() - t0;
                    best = t0 < best ? t0 : best;
                }
                printf("%6d ids, %s row, %-18s %8.1f us\n", (int)n, kind ? "flat  " : "peaked",
                       cases[c].name, best);
            }
            free(scratch);
        }
    free(l);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "bench")) {
        bench();
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions),    cmocka_unit_test(test_argmax),
        cmocka_unit_test(test_definition),   cmocka_unit_test(test_boundaries),
        cmocka_unit_test(test_masks),        cmocka_unit_test(test_broken_rows),
        cmocka_unit_test(test_logprobs),     cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_independence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
