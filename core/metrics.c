/* SPDX-License-Identifier: MIT
 *
 * core/metrics.c - answers of a run to the numbers that serving is judged by.
 */
#include "metrics.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(const double *v, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t k = (int64_t)at;
    return k + 1 < n ? v[k] + (at - (double)k) * (v[k + 1] - v[k]) : v[n - 1];
}

void pbi_dist_of(double *v, int64_t n, pbi_dist *out)
{
    double sum = 0;
    *out = (pbi_dist){ n, NAN, NAN, NAN, NAN, NAN };
    if (n < 1)
        return;
    qsort(v, (size_t)n, sizeof *v, ascending);
    for (int64_t i = 0; i < n; i++)
        sum += v[i];
    out->mean = sum / (double)n;
    out->p50 = percentile(v, n, 0.5);
    out->p90 = percentile(v, n, 0.9);
    out->p99 = percentile(v, n, 0.99);
    out->max = v[n - 1];
}

double pbi_queue_ms(const pbi_answer *a)
{
    return a->t_admit_ns ? (double)(a->t_admit_ns - a->t_submit_ns) / 1e6 : NAN;
}

double pbi_ttft_ms(const pbi_answer *a)
{
    return a->n_ids > 0 ? (double)(a->t_first_ns - a->t_submit_ns) / 1e6 : NAN;
}

double pbi_e2e_ms(const pbi_answer *a)
{
    return a->n_ids > 0 ? (double)(a->t_last_ns - a->t_submit_ns) / 1e6 : NAN;
}

double pbi_tpot_ms(const pbi_answer *a)
{
    return a->n_ids > 1 ? (double)(a->t_last_ns - a->t_first_ns) / 1e6 / (double)(a->n_ids - 1)
                        : NAN;
}

/* one request into the sums; v[0..4]: TTFT, TPOT, E2E, queue, ITL with n[0..4] values so far */
static void add(pbi_metrics *m, const pbi_answer *a, double **v, int64_t *n)
{
    m->n_ok++;
    m->n_prompt_tokens += a->n_prompt;
    m->n_out_tokens += a->n_ids;
    m->n_cached_tokens += a->n_cached;
    if (a->t_admit_ns)
        v[3][n[3]++] = pbi_queue_ms(a);
    if (a->n_ids < 1)
        return;
    v[0][n[0]++] = pbi_ttft_ms(a);
    v[2][n[2]++] = pbi_e2e_ms(a);
    if (a->n_ids > 1)
        v[1][n[1]++] = pbi_tpot_ms(a);
    for (int64_t k = 1; k < a->n_ids; k++)
        v[4][n[4]++] = (double)(a->t_token_ns[k] - a->t_token_ns[k - 1]) / 1e6;
}

int pbi_metrics_of(int64_t n, const pbi_answer *a, pbi_metrics *out)
{
    int64_t tokens = 0, count[5] = { 0 }, first = INT64_MAX, last = INT64_MIN;
    double *v[5];
    *out = (pbi_metrics){ 0 };
    for (int64_t i = 0; i < n; i++)
        tokens += a[i].n_ids;
    double *all = malloc((size_t)(4 * n + tokens + 1) * sizeof *all);
    if (!all)
        return PB_E_NOMEM;
    for (int i = 0; i < 5; i++)
        v[i] = all + i * n;
    for (int64_t i = 0; i < n; i++) {
        if (a[i].err.code) {
            out->n_failed++;
            continue;
        }
        add(out, &a[i], v, count);
        if (a[i].t_submit_ns < first)
            first = a[i].t_submit_ns;
        if (a[i].n_ids > 0 && a[i].t_last_ns > last)
            last = a[i].t_last_ns;
    }
    pbi_dist *const dist[5] = { &out->ttft_ms, &out->tpot_ms, &out->e2e_ms, &out->queue_ms,
                                &out->itl_ms };
    for (int i = 0; i < 5; i++)
        pbi_dist_of(v[i], count[i], dist[i]);
    free(all);
    out->duration_s = last > first ? (double)(last - first) / 1e9 : NAN;
    out->requests_per_s = (double)out->n_ok / out->duration_s;
    out->tokens_per_s = (double)out->n_out_tokens / out->duration_s;
    out->total_tokens_per_s = (double)(out->n_out_tokens + out->n_prompt_tokens) / out->duration_s;
    return 0;
}
