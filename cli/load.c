/* SPDX-License-Identifier: MIT
 *
 * cli/load.c - one pipeline on one workload: requests drawn, run, and judged by the numbers that
 * serving is judged by.
 */
#define _GNU_SOURCE
#include "load.h"
#include "cli.h"
#include "metrics.h"
#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

pbw_vocab pbi_load_vocab(const pbi_arm *arm)
{
    return (pbw_vocab){ .n_vocab = pbi_arm_program(arm)->n_vocab,
                        .context = pbi_arm_context(arm),
                        .tokenizer = pbi_arm_tokenizer(arm) };
}

/* ---- text -------------------------------------------------------------------- */

static void print_dist(FILE *f, const char *name, const pbi_dist *d)
{
    fprintf(f, "  %-9s %10.2f %10.2f %10.2f %10.2f %10.2f\n", name, d->mean, d->p50, d->p90, d->p99,
            d->max);
}

static double share(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static void print_workload(FILE *f, const pbw_workload *w, const pbw_drawn *d, int64_t clients)
{
    fprintf(f, "%s: %" PRId64 " requests, %" PRId64 " prompt tokens, up to %" PRId64 " new; ",
            pbw_kind(w), d->n_requests, d->prompt_tokens, d->max_new);
    if (clients)
        fprintf(f, "closed loop of %" PRId64 " clients", clients);
    else
        fprintf(f, "arriving over %.2f s", d->seconds);
    fprintf(f, "; hash %016" PRIx64 "\n", d->hash);
    if (d->n_left_out)
        fprintf(f, "left out: %" PRId64 " requests that are longer than the context\n",
                d->n_left_out);
    if (isfinite(d->reuse))
        fprintf(f, "a cache of any size could reuse %.1f %% of the prompt tokens\n",
                100 * d->reuse);
}

static void print_load(FILE *f, const pbi_metrics *m, const pbi_totals *t, double score)
{
    double wall = (double)t->wall_ns, cpus = (double)sysconf(_SC_NPROCESSORS_ONLN);
    fprintf(
        f,
        "\n  %.3f requests/s, %.1f output tokens/s, %.1f tokens/s with prompts; %.2f s; %" PRId64
        " answered, %" PRId64 " failed\n\n",
        m->requests_per_s, m->tokens_per_s, m->total_tokens_per_s, m->duration_s, m->n_ok,
        m->n_failed);
    if (isfinite(score))
        fprintf(f, "  %.1f %% of the answers are as expected\n\n", 100 * score);
    fprintf(f, "  %-9s %10s %10s %10s %10s %10s\n", "ms", "mean", "p50", "p90", "p99", "max");
    print_dist(f, "queue", &m->queue_ms);
    print_dist(f, "TTFT", &m->ttft_ms);
    print_dist(f, "TPOT", &m->tpot_ms);
    print_dist(f, "ITL", &m->itl_ms);
    print_dist(f, "E2E", &m->e2e_ms);
    fprintf(f,
            "\n  running %.1f (most %" PRId64 "), waiting %.1f (most %" PRId64
            "), preempted %" PRId64 "\n",
            t->running_mean, t->running_max, t->waiting_mean, t->waiting_max, t->n_preempted);
    fprintf(f, "  prefix cache: %.1f %% of %" PRId64 " prompt tokens\n",
            share((double)m->n_cached_tokens, (double)m->n_prompt_tokens), m->n_prompt_tokens);
    fprintf(
        f,
        "  KV: %.1f MiB taken on average, %.1f at most, of %.1f; %.0f %% of what is taken holds "
        "tokens of running requests\n",
        t->kv_used_mean / 0x1p20, (double)t->kv_bytes_peak / 0x1p20,
        (double)t->kv_bytes_arena / 0x1p20, share(t->kv_live_mean, t->kv_used_mean));
    if (t->n_drafted)
        fprintf(f, "  speculation: %" PRId64 " of %" PRId64 " drafted tokens accepted\n",
                t->n_accepted, t->n_drafted);
    fprintf(f,
            "  %" PRId64
            " steps of %.1f rows and %.2f ms; busy: processors %.0f %%, device %.0f %%, "
            "policies %.1f %% of a step\n",
            t->n_steps, (double)t->n_rows / (double)(t->n_steps ? t->n_steps : 1),
            (double)t->step_ns / 1e6 / (double)(t->n_steps ? t->n_steps : 1),
            share((double)t->cpu_ns, wall * cpus), share((double)t->device_ns, wall),
            share((double)(t->step_ns - t->device_ns), (double)t->step_ns));
}

/* ---- JSON -------------------------------------------------------------------- */

static json_t *drawn_json(const pbw_workload *w, const pbw_drawn *d, int64_t clients)
{
    char hash[20], *text = pbw_text(w);
    snprintf(hash, sizeof hash, "%016" PRIx64, d->hash);
    json_t *j =
        json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:s,s:s}", "kind", pbw_kind(w), "requests",
                  (json_int_t)d->n_requests, "left_out", (json_int_t)d->n_left_out, "prompt_tokens",
                  (json_int_t)d->prompt_tokens, "max_new_tokens", (json_int_t)d->max_new, "clients",
                  (json_int_t)clients, "seconds", pbi_number(d->seconds), "ideal_reuse",
                  pbi_number(d->reuse), "hash", hash, "ini", text ? text : "");
    free(text);
    return j;
}

static json_t *row_json(const pbi_answer *a, int64_t t0)
{
    char hash[20];
    snprintf(hash, sizeof hash, "%016" PRIx64,
             (uint64_t)XXH3_64bits(a->ids, (size_t)a->n_ids * sizeof *a->ids));
    json_t *j = json_pack(
        "{s:o,s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:s,s:s}", "arrival_ms",
        pbi_number((double)(a->t_submit_ns - t0) / 1e6), "prompt_tokens", (json_int_t)a->n_prompt,
        "output_tokens", (json_int_t)a->n_ids, "cached_tokens", (json_int_t)a->n_cached, "queue_ms",
        pbi_number(pbi_queue_ms(a)), "ttft_ms", pbi_number(pbi_ttft_ms(a)), "tpot_ms",
        pbi_number(pbi_tpot_ms(a)), "e2e_ms", pbi_number(pbi_e2e_ms(a)), "finish_reason",
        a->finish ? a->finish : "error", "output_hash", hash);
    if (a->err.code)
        json_object_set_new(j, "error", json_string(a->err.msg));
    return j;
}

static json_t *load_json(const pbw_workload *w, const pbw_drawn *d, const pbi_requests *r,
                         const pbi_arm *arm, const pbi_pipeline *p, const pbi_answer *a,
                         const pbi_totals *t, const pbi_metrics *m)
{
    json_t *list = json_array();
    char key[2048];
    for (int64_t i = 0; i < r->n; i++)
        json_array_append_new(list, row_json(&a[i], a[0].t_submit_ns));
    pbi_pipeline_numeric_key(p, key, sizeof key, NULL);
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:s}", "workload", drawn_json(w, d, r->clients),
                     "score", pbi_number(pbw_score(r->n, r->v, a)), "totals", pbi_totals_json(t, m),
                     "requests", list, "plugins", pbi_plugins_json(arm), "pipeline",
                     pbi_pipeline_json(p), "numeric_key", key);
}

/* ---- the run ------------------------------------------------------------------- */

int pbi_load_run(pbw_workload *w, pbi_arm *arm, const pbi_pipeline *p, int json, pb_err *err)
{
    const pbw_vocab v = pbi_load_vocab(arm);
    pbi_requests r = { 0 };
    pbi_answer *a = NULL;
    pbw_drawn d;
    pbi_totals t;
    pbi_metrics m;
    int rc = pbw_draw(w, &v, pbw_seed(w), &r, &d, err);
    if (!rc && !(a = calloc((size_t)r.n, sizeof *a)))
        rc = pbi_err(err, PB_E_NOMEM, "no memory for %" PRId64 " answers", r.n);
    if (!rc && !json)
        print_workload(stdout, w, &d, r.clients);
    if (!rc) {
        const pbi_run_hooks hooks = { .clients = r.clients, .stop = pbi_interrupted };
        rc = pbi_arm_run(arm, r.n, r.v, a, &hooks, &t, err);
    }
    if (!rc && pbi_metrics_of(r.n, a, &m))
        rc = pbi_err(err, PB_E_NOMEM, "no memory for metrics");
    if (!rc && json)
        rc = pbi_print_json(load_json(w, &d, &r, arm, p, a, &t, &m));
    else if (!rc)
        print_load(stdout, &m, &t, pbw_score(r.n, r.v, a));
    for (int64_t i = 0; a && i < r.n; i++) {
        if (!rc && a[i].err.code) { /* the numbers stand, but not for all requests */
            rc = a[i].err.code;
            *err = a[i].err;
        }
        pbi_answer_clear(&a[i]);
    }
    free(a);
    pbi_requests_clear(&r);
    return rc;
}

void pbi_load_help(FILE *f)
{
    fputs(
        "What patchbay run --workload, run --json and compare report. Times are the engine's; a\n"
        "request arrives when the workload says, in a closed loop when its client sends it.\n"
        "Formulas are those of vLLM's serving benchmark (benchmarks/benchmark_serving.py).\n"
        "\n"
        "  requests/s (QPS)   answered requests / (last token - first arrival)\n"
        "  output tokens/s    tokens of all answers / the same time\n"
        "  tokens/s           prompt and answer tokens / the same time\n"
        "  queue              first admission to the engine's batch - arrival\n"
        "  TTFT               first token - arrival\n"
        "  E2E (RT)           last token - arrival\n"
        "  TPOT               (E2E - TTFT) / (tokens - 1), for answers of 2 tokens and more\n"
        "  ITL                a token - the one before it, all answers together; tokens of one\n"
        "                     step (speculation) are 0 apart\n"
        "  p50, p90, p99      percentiles, interpolated linearly between ranks; of requests, but\n"
        "                     of tokens for ITL\n"
        "  running, waiting   sequences in the batch and in the queue, averaged over time\n"
        "  prefix cache       prompt tokens that were not computed at first admission / all\n"
        "  preempted          times that a running sequence gave up its KV to be computed again\n"
        "  KV taken           bytes of pages that sequences or caches hold, averaged over time;\n"
        "                     of these, what holds tokens of running sequences (a token that two\n"
        "                     share counts twice, so over 100 % is possible); the rest is room\n"
        "                     at the end of pages, reservation, and cache\n"
        "  processors busy    CPU time of this process and its children / wall time / CPUs\n"
        "  device busy        time inside the backend / wall time\n"
        "  policies           time of steps outside of the backend / time of steps\n",
        f);
}
