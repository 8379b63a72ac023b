/* SPDX-License-Identifier: MIT
 *
 * compare/quality.c - where equal tokens are not promised: how far is the arm from the base? Two
 * answers. NUMERIC and LOSSY: Kullback-Leibler divergence of the next-token distributions at the
 * same places of the same text. DISTRIBUTION: are samples of both drawn from one distribution (a
 * permutation test on token counts; Good, Permutation, Parametric, and Bootstrap Tests, ch. 3)?
 */
#include "live.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXTS = 8,         /* requests whose answers are looked at */
    TEXT_TOKENS = 192, /* of each, with the end of its prompt */
    PROMPT_TOKENS = 128,
    SAMPLES = 200, /* of each arm */
    SAMPLE_TOKENS = 4,
    SAMPLE_PROMPT = 16,
    SHUFFLES = 999
};
static const size_t rows_bytes = 64u << 20; /* the base's logits that are kept */

/* Text of the base: the end of a prompt and what the base answered. */
typedef struct text {
    int32_t ids[TEXT_TOKENS];
    int64_t n;
} text;

typedef struct texts {
    text t[TEXTS];
    int n;
    float *rows; /* [n_rows][n_vocab] of the base */
    int64_t n_rows, max_rows, n_vocab;
    /* while the other arm runs */
    int64_t at;
    int is_base;
    double sum, most;
    int64_t n_same;
} texts;

/* ---- divergence -------------------------------------------------------------- */

static double log_sum_exp(const float *row, int64_t n, float top)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)(row[i] - top));
    return log(sum) + (double)top;
}

static int64_t argmax(const float *row, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (row[i] > row[best])
            best = i;
    return best;
}

/* sum of p (log p - log q), in nats */
static double divergence(const float *p, const float *q, int64_t n, int64_t top_p, int64_t top_q)
{
    double zp = log_sum_exp(p, n, p[top_p]), zq = log_sum_exp(q, n, q[top_q]), kl = 0;
    for (int64_t i = 0; i < n; i++) {
        double lp = (double)p[i] - zp;
        kl += exp(lp) * (lp - ((double)q[i] - zq));
    }
    return kl > 0 ? kl : 0; /* rounding */
}

static void on_row(void *arg, int64_t i, int64_t pos, const float *row, int64_t n_vocab)
{
    texts *x = arg;
    (void)i;
    (void)pos;
    if (n_vocab != x->n_vocab)
        return;
    if (x->is_base) {
        if (x->n_rows < x->max_rows)
            memcpy(x->rows + x->n_rows++ * n_vocab, row, (size_t)n_vocab * sizeof *row);
        return;
    }
    if (x->at >= x->n_rows)
        return;
    const float *base = x->rows + x->at++ * n_vocab;
    int64_t a = argmax(base, n_vocab), b = argmax(row, n_vocab);
    double kl = divergence(base, row, n_vocab, a, b);
    x->sum += kl;
    x->most = kl > x->most ? kl : x->most;
    x->n_same += a == b;
}

/* Runs the texts one by one, so that rows come in one order. */
static int show_rows(pbc_live *l, int arm, texts *x, pb_err *err)
{
    const pbc_options *o = &l->t->o;
    const pbi_arm_options ao = { .model_path = o->model,
                                 .share = l->holder[l->device_of[arm]],
                                 .want_logits = 1 };
    const pbi_run_hooks hooks = { .arg = x, .on_logits = on_row, .stop = o->stop };
    pbi_arm *a = NULL;
    int rc = pbi_arm_open(o->pipelines[arm], &ao, &a, err);
    for (int i = 0; i < x->n && !rc; i++) {
        pbi_request q;
        pbi_answer out = { 0 };
        pbi_request_default(&q);
        q.ids = x->t[i].ids;
        q.n_ids = x->t[i].n;
        q.max_new = 0;
        q.all_logits = 1;
        rc = pbi_arm_run(a, 1, &q, &out, &hooks, NULL, err);
        if (!rc && out.err.code) {
            *err = out.err;
            rc = out.err.code;
        }
        pbi_answer_clear(&out);
    }
    pbi_arm_close(a);
    return rc;
}

/* What the base answers to the first requests of the last round. */
static int make_texts(pbc_live *l, texts *x, pb_err *err)
{
    const pbc_options *o = &l->t->o;
    const pbi_arm_options ao = { .model_path = o->model, .share = l->holder[0] };
    const pbi_run_hooks hooks = { .stop = o->stop };
    pbi_answer out[TEXTS] = { { 0 } };
    pbi_request q[TEXTS];
    pbi_arm *a = NULL;
    int n = l->requests.n < TEXTS ? (int)l->requests.n : TEXTS;
    int rc = pbi_arm_open(o->pipelines[0], &ao, &a, err);
    for (int i = 0; i < n && !rc; i++) {
        q[i] = l->requests.v[i];
        q[i].arrival_ns = q[i].after = 0;
        if (q[i].max_new < 0 || q[i].max_new > TEXT_TOKENS - PROMPT_TOKENS)
            q[i].max_new = TEXT_TOKENS - PROMPT_TOKENS;
    }
    if (!rc)
        rc = pbi_arm_run(a, n, q, out, &hooks, NULL, err);
    x->n_vocab = a ? pbi_arm_program(a)->n_vocab : 0;
    pbi_arm_close(a);
    for (int i = 0; i < n; i++) {
        text *t = &x->t[x->n];
        int64_t skip = out[i].n_prompt > PROMPT_TOKENS ? out[i].n_prompt - PROMPT_TOKENS : 0;
        for (int64_t k = skip; k < out[i].n_prompt; k++)
            t->ids[t->n++] = out[i].prompt_ids[k];
        for (int64_t k = 0; k < out[i].n_ids && t->n < TEXT_TOKENS; k++)
            t->ids[t->n++] = out[i].ids[k];
        x->n += t->n > 0;
        pbi_answer_clear(&out[i]);
    }
    return rc;
}

static int base_rows(pbc_live *l, texts *x, pb_err *err)
{
    x->max_rows = (int64_t)(rows_bytes / sizeof(float)) / (x->n_vocab ? x->n_vocab : 1);
    x->rows = malloc((size_t)x->max_rows * (size_t)x->n_vocab * sizeof *x->rows + 1);
    if (!x->rows)
        return pbi_err(err, PB_E_NOMEM, "no memory for logits");
    x->is_base = 1;
    int rc = show_rows(l, 0, x, err);
    x->is_base = 0;
    return rc;
}

static void measure_divergence(pbc_live *l, int arm, texts *x, pbc_quality *q)
{
    pb_err err = { 0 };
    x->at = x->n_same = 0;
    x->sum = x->most = 0;
    int rc = show_rows(l, arm, x, &err);
    if (rc || !x->at) {
        snprintf(q->why_not, sizeof q->why_not, "%.150s", rc ? err.msg : "no row was shown");
        return;
    }
    q->n_positions = x->at;
    q->kl_mean = x->sum / (double)x->at;
    q->kl_max = x->most;
    q->top1 = (double)x->n_same / (double)x->at;
}

/* ---- samples ------------------------------------------------------------------- */

static int draw_samples(pbc_live *l, int arm, const text *t, uint64_t seed, int32_t *out,
                        pb_err *err)
{
    const pbc_options *o = &l->t->o;
    const pbi_arm_options ao = { .model_path = o->model, .share = l->holder[l->device_of[arm]] };
    const pbi_run_hooks hooks = { .stop = o->stop };
    pbi_request *q = calloc(SAMPLES, sizeof *q);
    pbi_answer *a = calloc(SAMPLES, sizeof *a);
    pbi_arm *x = NULL;
    int rc = q && a ? pbi_arm_open(o->pipelines[arm], &ao, &x, err)
                    : pbi_err(err, PB_E_NOMEM, "no memory for samples");
    for (int i = 0; i < SAMPLES && !rc; i++) {
        pbi_request_default(&q[i]);
        q[i].ids = t->ids;
        q[i].n_ids = t->n < SAMPLE_PROMPT ? t->n : SAMPLE_PROMPT;
        q[i].max_new = SAMPLE_TOKENS;
        q[i].params.seed = seed + (uint64_t)i;
        q[i].params.has_seed = 1;
    }
    if (!rc)
        rc = pbi_arm_run(x, SAMPLES, q, a, &hooks, NULL, err);
    for (int i = 0; i < SAMPLES; i++) {
        for (int k = 0; k < SAMPLE_TOKENS; k++) /* -1: the answer ended */
            out[i * SAMPLE_TOKENS + k] = a && k < a[i].n_ids ? a[i].ids[k] : -1;
        if (a)
            pbi_answer_clear(&a[i]);
    }
    pbi_arm_close(x);
    free(q);
    free(a);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? -1 : x > y;
}

/* tokens of one position as small numbers */
static int rank_tokens(const int32_t *tokens, int k, int *rank)
{
    int32_t v[2 * SAMPLES];
    int n = 0;
    for (int i = 0; i < 2 * SAMPLES; i++)
        v[i] = tokens[i * SAMPLE_TOKENS + k];
    qsort(v, 2 * SAMPLES, sizeof *v, by_value);
    for (int i = 0; i < 2 * SAMPLES; i++)
        if (!i || v[i] != v[n - 1])
            v[n++] = v[i];
    for (int i = 0; i < 2 * SAMPLES; i++) {
        const int32_t *at =
            bsearch(&tokens[i * SAMPLE_TOKENS + k], v, (size_t)n, sizeof *v, by_value);
        rank[i] = (int)(at - v);
    }
    return n;
}

/* squared differences of counts over all positions; who[i]: which half sample i belongs to */
static double statistic(int rank[SAMPLE_TOKENS][2 * SAMPLES], const int *who)
{
    double sum = 0;
    for (int k = 0; k < SAMPLE_TOKENS; k++) {
        int count[2 * SAMPLES] = { 0 };
        for (int i = 0; i < 2 * SAMPLES; i++)
            count[rank[k][i]] += who[i] ? 1 : -1;
        for (int i = 0; i < 2 * SAMPLES; i++)
            sum += (double)count[i] * count[i];
    }
    return sum;
}

double pbc_two_samples(const int32_t *a, const int32_t *b, uint64_t seed)
{
    static const size_t half = (size_t)SAMPLES * SAMPLE_TOKENS;
    int32_t tokens[2 * SAMPLES * SAMPLE_TOKENS];
    int rank[SAMPLE_TOKENS][2 * SAMPLES], who[2 * SAMPLES], at_least = 1;
    memcpy(tokens, a, half * sizeof *a);
    memcpy(tokens + half, b, half * sizeof *b);
    for (int k = 0; k < SAMPLE_TOKENS; k++)
        rank_tokens(tokens, k, rank[k]);
    for (int i = 0; i < 2 * SAMPLES; i++)
        who[i] = i >= SAMPLES;
    double seen = statistic(rank, who);
    for (int s = 0; s < SHUFFLES; s++) {
        pbc_shuffle(who, 2 * SAMPLES, &seed);
        at_least += statistic(rank, who) >= seen;
    }
    return (double)at_least / (SHUFFLES + 1);
}

/* Different seeds on both sides: equal ones would only show that equal code is equal. */
static void test_samples(pbc_live *l, int arm, const text *t, pbc_quality *q)
{
    int32_t s[2][SAMPLES * SAMPLE_TOKENS];
    pb_err err = { 0 };
    int rc = draw_samples(l, 0, t, 1000001, s[0], &err);
    if (!rc)
        rc = draw_samples(l, arm, t, 2000001, s[1], &err);
    if (rc) {
        snprintf(q->why_not, sizeof q->why_not, "%.150s", err.msg);
        return;
    }
    q->n_samples = SAMPLES;
    q->p = pbc_two_samples(s[0], s[1], l->t->o.seed + 5);
}

/* ---- all arms ------------------------------------------------------------------------ */

static int draws(const pbi_pipeline *p)
{
    int some = 0;
    for (int i = 0; i < p->n_uses; i++)
        some |= (p->uses[i]->lib->desc->flags & PB_CLASS_MASK) == PB_DISTRIBUTION;
    return some;
}

static int same_key(const pbi_pipeline *a, const pbi_pipeline *b)
{
    uint64_t x, y;
    char key[2048];
    pbi_pipeline_numeric_key(a, key, sizeof key, &x);
    pbi_pipeline_numeric_key(b, key, sizeof key, &y);
    return x == y;
}

int pbc_weigh_differences(pbc_live *l, pb_err *err)
{
    pbi_pipeline *const *p = l->t->o.pipelines;
    texts *x = NULL;
    int rc = 0;
    for (int a = 1; a < l->t->o.n_arms && !rc; a++) {
        if (same_key(p[0], p[a])) /* equal bits were promised, and compared */
            continue;
        if (!x) {
            x = calloc(1, sizeof *x);
            rc = x ? make_texts(l, x, err) : pbi_err(err, PB_E_NOMEM, "no memory for texts");
            if (rc || !x->n)
                break;
            pb_err hidden = { 0 }; /* logits of another process: then there is no divergence */
            if (base_rows(l, x, &hidden))
                snprintf(l->t->quality[a].why_not, sizeof l->t->quality[a].why_not, "%.150s",
                         hidden.msg);
        }
        if (x->n_rows)
            measure_divergence(l, a, x, &l->t->quality[a]);
        if (draws(p[0]) || draws(p[a]))
            test_samples(l, a, &x->t[0], &l->t->quality[a]);
    }
    if (x)
        free(x->rows);
    free(x);
    return l->t->o.stop && l->t->o.stop(NULL) ? 0 : rc;
}
