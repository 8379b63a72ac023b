/* SPDX-License-Identifier: MIT
 *
 * core/metrics.h - answers of a run to the numbers that serving is judged by. Definitions are
 * those of vLLM's benchmark (vllm-project/vllm benchmarks/benchmark_serving.py):
 *
 *   TTFT  first token - arrival             E2E  last token - arrival
 *   queue first admission - arrival
 *   TPOT  (E2E - TTFT) / (n - 1), n > 1     ITL  each token - the one before
 *   requests/s, tokens/s                    completed requests and their output tokens over
 *                                           the time from the first arrival to the last token
 *
 * Invariant: only requests that were answered count; one that failed is counted as failed.
 */
#ifndef PBI_METRICS_H
#define PBI_METRICS_H
#include "arm.h"

typedef struct pbi_dist { /* of n values; all NaN if n is 0 */
    int64_t n;
    double mean, p50, p90, p99, max;
} pbi_dist;

typedef struct pbi_metrics {
    int64_t n_ok, n_failed, n_prompt_tokens, n_out_tokens, n_cached_tokens;
    double duration_s;
    double requests_per_s, tokens_per_s, total_tokens_per_s; /* total: prompt tokens too */
    pbi_dist queue_ms, ttft_ms, tpot_ms, itl_ms, e2e_ms;
} pbi_metrics;

/* NaN where there is nothing to say (no token, one token). */
double pbi_queue_ms(const pbi_answer *a);
double pbi_ttft_ms(const pbi_answer *a);
double pbi_tpot_ms(const pbi_answer *a);
double pbi_e2e_ms(const pbi_answer *a);
/* 0 or PB_E_NOMEM. [any] */
int pbi_metrics_of(int64_t n, const pbi_answer *a, pbi_metrics *out);
/* Distribution of n values; sorts them. Percentiles interpolate linearly between ranks. */
void pbi_dist_of(double *v, int64_t n, pbi_dist *out);
#endif
