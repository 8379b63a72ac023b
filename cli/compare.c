/* SPDX-License-Identifier: MIT
 *
 * cli/compare.c - patchbay compare: two pipelines on the same requests, in turns. Says first
 * whether the tokens are the same, then which is faster, by how much and how sure that is.
 *
 * Three arms run in each round, in an order drawn from a seed: A, B, and a second instance of
 * A, which shows how far two equal pipelines seem to differ here. Each begins with empty caches.
 * Arms with equal backend sections share device, packed weights and the KV arena. Invariant: every
 * answer of every timed round is compared token by token, and the logits in one untimed round.
 */
#define _GNU_SOURCE
#include "compare.h"
#include "cli.h"
#include "instance.h"
#include "report.h"
#include "requests.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* exit statuses of its own (patchbay(1)) */
enum { EXIT_DIFFERENT = 10, EXIT_NOT_ENGAGED = 11 };
enum { A, B, A2, N_ARMS, MAX_ROUNDS = 1000 };

enum { REQ_S, TOK_S, TTFT, TPOT, E2E, N_METRICS };
static const struct {
    const char *name, *unit, *key;
    int more_is_better;
} metrics[N_METRICS] = { { "requests", "/s", "requests_per_s", 1 },
                         { "tokens", "/s", "tokens_per_s", 1 },
                         { "TTFT", "ms", "ttft_ms", 0 },
                         { "TPOT", "ms", "tpot_ms", 0 },
                         { "E2E", "ms", "e2e_ms", 0 } };

typedef struct arm {
    pbi_pipeline *pipeline;
    pbi_arm *arm;
    double v[N_METRICS][MAX_ROUNDS];
    int64_t cached, kv_peak;
    int not_engaged[64]; /* by use of the pipeline: 1 = counters stayed 0 so far */
} arm;

typedef struct difference { /* the first one */
    int64_t request, position;
    int32_t a, b;
    int found, logits; /* logits: tokens are the same, hashes are not */
} difference;

typedef struct comparison {
    const char *path[2];
    pbi_common common;
    const char *file, *prompt;
    int64_t rounds, max_new, seed;
    double delta; /* percent */
    pbi_requests requests;
    arm arms[N_ARMS];
    pbi_answer *ref; /* of A in the untimed round */
    difference diff, diff_aa;
    int n_done, shared, n_failed;
} comparison;

/* ---- running ----------------------------------------------------------- */

static void note_difference(const comparison *c, const pbi_answer *got, int hashes, difference *d)
{
    for (int64_t i = 0; i < c->requests.n; i++) {
        const pbi_answer *x = &c->ref[i], *y = &got[i];
        int64_t n = x->n_ids < y->n_ids ? x->n_ids : y->n_ids, k = 0;
        while (k < n && x->ids[k] == y->ids[k])
            k++;
        int other = x->n_ids != y->n_ids || k < n;
        int bits = hashes && x->logits_hash && y->logits_hash && x->logits_hash != y->logits_hash;
        if (!other && !bits)
            continue;
        if (d->found && !(d->logits && other))
            continue;
        *d = (difference){ .request = i,
                           .position = k,
                           .a = k < x->n_ids ? x->ids[k] : -1,
                           .b = k < y->n_ids ? y->ids[k] : -1,
                           .found = 1,
                           .logits = !other };
    }
}

/* A plugin has counters that prove its work, and all of them are still 0. */
static void note_engagement(arm *x)
{
    pbi_instance *const *in;
    int n = pbi_arm_instances(x->arm, &in);
    for (int u = 0; u < x->pipeline->n_uses && u < 64; u++) {
        const pb_counter *t = x->pipeline->uses[u]->lib->desc->counters;
        int has = 0, worked = 0;
        for (int i = 0; i < n; i++)
            for (int k = 0; t && t[k].name && pbi_instance_use(in[i]) == x->pipeline->uses[u]; k++)
                if (t[k].flags & PB_C_ENGAGED) {
                    has = 1;
                    worked |= pbi_instance_counter(in[i], k) != 0;
                }
        if (worked)
            x->not_engaged[u] = 0;
        else if (has && x->not_engaged[u] < 0)
            x->not_engaged[u] = 1;
    }
}

static int timed_run(comparison *c, int which, int round, pbi_answer *out, pb_err *err)
{
    arm *x = &c->arms[which];
    const pbi_run_hooks hooks = { .stop = pbi_interrupted };
    pbi_totals t;
    pbi_metrics m;
    int rc = pbi_arm_reset(x->arm, err);
    if (!rc)
        rc = pbi_arm_run(x->arm, c->requests.n, c->requests.v, out, &hooks, &t, err);
    if (rc)
        return rc;
    if (pbi_metrics_of(c->requests.n, out, &m))
        return pbi_err(err, PB_E_NOMEM, "no memory for metrics");
    note_engagement(x);
    c->n_failed += (int)m.n_failed;
    x->cached = m.n_cached_tokens;
    x->kv_peak = t.kv_bytes_peak;
    if (round >= 0) {
        x->v[REQ_S][round] = m.requests_per_s;
        x->v[TOK_S][round] = m.tokens_per_s;
        x->v[TTFT][round] = m.ttft_ms.mean;
        x->v[TPOT][round] = m.tpot_ms.mean;
        x->v[E2E][round] = m.e2e_ms.mean;
    }
    return 0;
}

static void clear_answers(pbi_answer *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        pbi_answer_clear(&a[i]);
}

static uint64_t random64(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u); /* splitmix64 (Steele et al., 2014) */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* one run of each arm; round -1: untimed, with hashes of the logits, A first */
static int one_round(comparison *c, int round, uint64_t *state, pbi_answer *buf, pb_err *err)
{
    int order[N_ARMS] = { A, B, A2 };
    for (int i = N_ARMS - 1; i > 0 && round >= 0; i--) {
        int k = (int)(random64(state) % (uint64_t)(i + 1)), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    for (int i = 0; i < N_ARMS; i++) {
        int which = order[i], keep = round < 0 && which == A;
        pbi_answer *out = keep ? c->ref : buf;
        pbi_arm_hash_logits(c->arms[which].arm, round < 0);
        int rc = timed_run(c, which, round, out, err);
        if (!rc && !keep && !pbi_interrupted(NULL))
            note_difference(c, out, round < 0, which == B ? &c->diff : &c->diff_aa);
        if (!keep)
            clear_answers(buf, c->requests.n);
        if (rc || pbi_interrupted(NULL))
            return rc;
    }
    if (round >= 0)
        c->n_done = round + 1;
    return 0;
}

static int measure(comparison *c, pb_err *err)
{
    uint64_t state = (uint64_t)c->seed;
    pbi_answer *buf = calloc((size_t)c->requests.n, sizeof *buf);
    c->ref = calloc((size_t)c->requests.n, sizeof *c->ref);
    if (!buf || !c->ref) {
        free(buf);
        return pbi_err(err, PB_E_NOMEM, "no memory for answers");
    }
    int rc = 0, tty = isatty(2);
    for (int round = -1; round < c->rounds && !rc && !pbi_interrupted(NULL); round++) {
        if (tty)
            pbi_show_progress(NULL, "comparing", (round + 1) / (double)(c->rounds + 1));
        rc = one_round(c, round, &state, buf, err);
    }
    if (tty)
        pbi_show_progress(NULL, NULL, 1);
    free(buf);
    return rc;
}

static int open_arms(comparison *c, pb_err *err)
{
    for (int i = 0; i < N_ARMS; i++) {
        arm *x = &c->arms[i];
        pbi_arm_options o = { .model_path = c->common.model };
        c->common.pipeline = c->path[i == B];
        for (int u = 0; u < 64; u++)
            x->not_engaged[u] = -1;
        int rc = pbi_common_load(&c->common, &x->pipeline, err);
        if (rc)
            return rc;
        if (i != A && pbi_arm_can_share(c->arms[A].arm, x->pipeline)) {
            o.share = c->arms[A].arm;
            c->shared += i == B;
        }
        if (i == A && isatty(2))
            o.progress = pbi_show_progress;
        rc = pbi_arm_open(x->pipeline, &o, &x->arm, err);
        if (isatty(2))
            pbi_show_progress(NULL, NULL, 1);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- results ----------------------------------------------------------- */

static double median_of(const double *v, int n)
{
    double copy[MAX_ROUNDS];
    pbi_dist d;
    memcpy(copy, v, (size_t)n * sizeof *v);
    pbi_dist_of(copy, n, &d);
    return d.p50;
}

static void ratios(const comparison *c, int which, int metric, pbi_ratio *out)
{
    double v[MAX_ROUNDS];
    for (int i = 0; i < c->n_done; i++)
        v[i] = c->arms[which].v[metric][i] / c->arms[A].v[metric][i];
    pbi_ratio_of(v, c->n_done, out);
}

/* uses of B whose plugin A does not have in that slot, and which never worked */
static const pbi_use *idle_use(const comparison *c, int from, int *index)
{
    const pbi_pipeline *a = c->arms[A].pipeline, *b = c->arms[B].pipeline;
    for (int u = from; u < b->n_uses && u < 64; u++) {
        int same = 0;
        for (int k = 0; k < a->n_uses; k++)
            same |= a->uses[k]->lib == b->uses[u]->lib;
        if (!same && c->arms[B].not_engaged[u] == 1) {
            *index = u;
            return b->uses[u];
        }
    }
    return NULL;
}

static void print_equality(const comparison *c)
{
    const difference *d = &c->diff;
    char ka[2048], kb[2048];
    pbi_pipeline_numeric_key(c->arms[A].pipeline, ka, sizeof ka, NULL);
    pbi_pipeline_numeric_key(c->arms[B].pipeline, kb, sizeof kb, NULL);
    if (!d->found)
        printf("tokens: the same in all %" PRId64 " answers of %d rounds; logits bitwise equal\n",
               c->requests.n, c->n_done + 1);
    else if (d->logits)
        printf("tokens: the same; LOGITS DIFFER, first in request %" PRId64 "\n", d->request);
    else
        printf("TOKENS DIFFER: request %" PRId64 ", token %" PRId64
               ": %d in A, %d in B (-1: none)\n",
               d->request, d->position, (int)d->a, (int)d->b);
    if (strcmp(ka, kb))
        printf("numeric keys differ, so equal tokens were not promised:\n  A %s\n  B %s\n", ka, kb);
    else if (d->found)
        printf("numeric keys are equal: this is a fault of a plugin, or of the core\n");
    if (c->diff_aa.found)
        printf("A DIFFERS FROM ITSELF: request %" PRId64 ", token %" PRId64 "\n",
               c->diff_aa.request, c->diff_aa.position);
}

static void print_row(const comparison *c, int m)
{
    pbi_ratio r, noise;
    ratios(c, B, m, &r);
    ratios(c, A2, m, &noise);
    printf("%-8s %-3s %11.3f %11.3f   %6.3f [%5.3f, %5.3f]   [%5.3f, %5.3f]  %s\n", metrics[m].name,
           metrics[m].unit, median_of(c->arms[A].v[m], c->n_done),
           median_of(c->arms[B].v[m], c->n_done), r.median, r.lo, r.hi, noise.lo, noise.hi,
           pbi_verdict_name(pbi_verdict(&r, &noise, c->delta / 100, metrics[m].more_is_better)));
}

static void print_count(const char *name, int64_t a, int64_t b)
{
    printf("%-12s %11" PRId64 " %11" PRId64 "   %6.3f\n", name, a, b,
           a ? (double)b / (double)a : NAN);
}

static void print_text(const comparison *c)
{
    int u = 0;
    printf("A: %s\nB: %s\n%" PRId64 " requests, %d timed rounds, seed %" PRId64
           ", empty caches; %s\n\n",
           c->path[0], c->path[1], c->requests.n, c->n_done, c->seed,
           c->shared ? "one device, one set of weights" : "each on a device of its own");
    print_equality(c);
    if (c->n_failed)
        printf("%d answers failed\n", c->n_failed);
    for (const pbi_use *i = idle_use(c, 0, &u); i; i = idle_use(c, u + 1, &u))
        printf("NEVER ENGAGED: [%s] %s of B did nothing on these requests\n", i->slot, i->name);
    printf("\n%-12s %11s %11s   %s\n", "", "A", "B",
           " B / A  [95 % interval]   A / A            verdict");
    for (int m = 0; m < N_METRICS && c->n_done; m++)
        print_row(c, m);
    print_count("cached tok", c->arms[A].cached, c->arms[B].cached);
    print_count("KV bytes", c->arms[A].kv_peak, c->arms[B].kv_peak);
    if (c->n_done < 6)
        printf("fewer than 6 rounds give no 95 %% interval\n");
}

static json_t *ratio_json(const pbi_ratio *r)
{
    return json_pack("{s:o,s:o,s:o,s:i}", "median", pbi_number(r->median), "lo", pbi_number(r->lo),
                     "hi", pbi_number(r->hi), "rounds", r->n);
}

static json_t *rounds_json(const double *v, int n)
{
    json_t *a = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(a, pbi_number(v[i]));
    return a;
}

static json_t *metrics_json(const comparison *c)
{
    json_t *all = json_object();
    for (int m = 0; m < N_METRICS; m++) {
        pbi_ratio r, noise;
        ratios(c, B, m, &r);
        ratios(c, A2, m, &noise);
        int v = pbi_verdict(&r, &noise, c->delta / 100, metrics[m].more_is_better);
        json_object_set_new(all, metrics[m].key,
                            json_pack("{s:o,s:o,s:o,s:o,s:s,s:o,s:o,s:o}", "a",
                                      pbi_number(median_of(c->arms[A].v[m], c->n_done)), "b",
                                      pbi_number(median_of(c->arms[B].v[m], c->n_done)), "ratio",
                                      ratio_json(&r), "a_a", ratio_json(&noise), "verdict",
                                      pbi_verdict_name(v), "rounds_a",
                                      rounds_json(c->arms[A].v[m], c->n_done), "rounds_b",
                                      rounds_json(c->arms[B].v[m], c->n_done), "rounds_a2",
                                      rounds_json(c->arms[A2].v[m], c->n_done)));
    }
    return all;
}

static json_t *difference_json(const difference *d)
{
    if (!d->found)
        return json_null();
    return json_pack("{s:I,s:I,s:i,s:i,s:b}", "request", (json_int_t)d->request, "token",
                     (json_int_t)d->position, "a", d->a, "b", d->b, "logits_only", d->logits);
}

static json_t *compare_json(const comparison *c)
{
    json_t *j = json_object(), *idle = json_array();
    int u = 0;
    for (const pbi_use *i = idle_use(c, 0, &u); i; i = idle_use(c, u + 1, &u))
        json_array_append_new(idle, json_sprintf("%s-%s", i->slot, i->name));
    json_object_set_new(j, "requests", json_integer(c->requests.n));
    json_object_set_new(j, "rounds", json_integer(c->n_done));
    json_object_set_new(j, "seed", json_integer(c->seed));
    json_object_set_new(j, "shared_device", json_boolean(c->shared));
    json_object_set_new(j, "same_tokens", json_boolean(!c->diff.found || c->diff.logits));
    json_object_set_new(j, "same_logits", json_boolean(!c->diff.found));
    json_object_set_new(j, "first_difference", difference_json(&c->diff));
    json_object_set_new(j, "first_difference_a_a", difference_json(&c->diff_aa));
    json_object_set_new(j, "never_engaged", idle);
    json_object_set_new(j, "failed_answers", json_integer(c->n_failed));
    json_object_set_new(j, "metrics", metrics_json(c));
    for (int i = 0; i < 2; i++) {
        const arm *x = &c->arms[i];
        json_object_set_new(j, i ? "b" : "a",
                            json_pack("{s:I,s:I,s:o,s:o}", "cached_tokens", (json_int_t)x->cached,
                                      "kv_bytes_peak", (json_int_t)x->kv_peak, "plugins",
                                      pbi_plugins_json(x->arm), "pipeline",
                                      pbi_pipeline_json(x->pipeline)));
    }
    return j;
}

/* ---- the command ------------------------------------------------------- */

static int compare(comparison *c, pb_err *err)
{
    pbi_request q;
    int u;
    pbi_request_default(&q);
    q.max_new = c->max_new;
    if (c->prompt) {
        q.prompt = c->prompt;
        q.n_prompt = strlen(c->prompt);
    }
    int rc = c->prompt ? pbi_requests_add(&c->requests, &q, err)
                       : pbi_requests_load(&c->requests, c->file, &q, err);
    if (!rc)
        rc = open_arms(c, err);
    if (!rc)
        rc = measure(c, err);
    if (rc)
        return rc;
    if (c->common.json)
        rc = pbi_print_json(compare_json(c));
    else
        print_text(c);
    if (!rc && (c->diff.found || c->diff_aa.found))
        rc = EXIT_DIFFERENT;
    if (!rc && idle_use(c, 0, &u))
        rc = EXIT_NOT_ENGAGED;
    return rc;
}

static void comparison_clear(comparison *c)
{
    if (c->ref)
        clear_answers(c->ref, c->requests.n);
    free(c->ref);
    for (int i = N_ARMS - 1; i >= 0; i--)
        pbi_arm_close(c->arms[i].arm);
    for (int i = 0; i < N_ARMS; i++)
        pbi_pipeline_free(c->arms[i].pipeline);
    pbi_requests_clear(&c->requests);
    free(c);
}

int pbi_cmd_compare(int argc, char **argv)
{
    comparison *c = calloc(1, sizeof *c);
    pb_err err = { 0 };
    if (!c) {
        pbi_err(&err, PB_E_NOMEM, "no memory for a comparison");
        return pbi_fail("compare", &err);
    }
    c->rounds = 6;
    c->max_new = 64;
    c->seed = 1;
    c->delta = 2;
    const pbi_arg table[] = {
        PBI_ARG_MODEL(&c->common),
        PBI_ARG_SET(&c->common),
        { .name = "--file",
          .alias = "-f",
          .kind = PBI_ARG_TEXT,
          .out = &c->file,
          .value = "FILE.jsonl",
          .help = "requests, one JSON object a line" },
        { .name = "--prompt",
          .alias = "-p",
          .kind = PBI_ARG_TEXT,
          .out = &c->prompt,
          .value = "TEXT",
          .help = "one request" },
        { .name = "--max-tokens",
          .alias = "-n",
          .kind = PBI_ARG_INT,
          .out = &c->max_new,
          .value = "N",
          .help = "new tokens of a request that does not say (64)" },
        { .name = "--rounds",
          .kind = PBI_ARG_INT,
          .out = &c->rounds,
          .value = "N",
          .help = "timed runs of each arm (6); fewer give no interval" },
        { .name = "--seed",
          .kind = PBI_ARG_INT,
          .out = &c->seed,
          .value = "N",
          .help = "of the order in which the arms run (1)" },
        { .name = "--delta",
          .kind = PBI_ARG_FLOAT,
          .out = &c->delta,
          .value = "PERCENT",
          .help = "a tie is an interval within 1 +- this (2)" },
        PBI_ARG_JSON(&c->common),
        PBI_ARGS_END,
    };
    int n_words, rc = pbi_args(argc, argv, table, &n_words);
    if (rc == PBI_GO && n_words != 2)
        rc = pbi_usage("compare", "two pipelines, please: patchbay compare A.ini B.ini ...");
    if (rc == PBI_GO && (c->file != NULL) == (c->prompt != NULL))
        rc = pbi_usage("compare", "give one of -f FILE.jsonl or -p TEXT");
    if (rc == PBI_GO && (c->rounds < 1 || c->rounds > MAX_ROUNDS))
        rc =
            pbi_usage("compare", "--rounds %" PRId64 " is outside of 1..%d", c->rounds, MAX_ROUNDS);
    if (rc == PBI_GO) {
        c->path[0] = argv[1];
        c->path[1] = argv[2];
        pbi_catch_interrupts();
        rc = compare(c, &err);
        if (rc < 0)
            rc = pbi_fail("compare", &err);
    }
    comparison_clear(c);
    return rc;
}
