/* SPDX-License-Identifier: MIT
 *
 * cli/run.c - patchbay run: answers prompts with one pipeline. Text streams to stdout; --json
 * prints everything that was measured.
 */
#define _GNU_SOURCE
#include "cli.h"
#include "instance.h"
#include "load.h"
#include "metrics.h"
#include "report.h"
#include "requests.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct options {
    pbi_common common;
    const char *prompt, *ids, *file, *calls, *workload;
    pbi_texts workload_set;
    int64_t max_new, seed, top_k;
    double temperature, top_p;
    int ignore_eos, special, no_bos, stats;
} options;

typedef struct output { /* what streams to stdout */
    int64_t now;        /* request that is being printed, -1 none */
    int many, quiet;
} output;

static void on_text(void *arg, int64_t i, const char *s, size_t n)
{
    output *o = arg;
    if (o->many || i != 0)
        return; /* several answers would mix: they are printed at the end */
    fwrite(s, 1, n, stdout);
    fflush(stdout);
}

static int run_requests(const options *o, pbi_arm *arm, const pbi_pipeline *p,
                        const pbi_requests *r, pb_err *err)
{
    pbi_answer *a = calloc((size_t)r->n, sizeof *a);
    output out = { .many = r->n > 1 };
    pbi_run_hooks hooks = { .arg = &out,
                            .on_text = o->common.json ? NULL : on_text,
                            .stop = pbi_interrupted };
    pbi_totals t;
    if (!a)
        return pbi_err(err, PB_E_NOMEM, "no memory for %lld answers", (long long)r->n);
    int rc = pbi_arm_run(arm, r->n, r->v, a, &hooks, &t, err), first = 0;
    if (!rc && o->common.json)
        rc = pbi_print_json(pbi_run_json(arm, p, r->n, a, &t));
    else if (!rc) {
        for (int64_t i = 0; i < r->n; i++)
            pbi_print_answer(&a[i], i, out.many, r->v[i].prompt != NULL);
        if (o->stats || isatty(2))
            pbi_print_stats(stderr, arm, r->n, a, &t);
    }
    for (int64_t i = 0; i < r->n; i++) {
        if (a[i].err.code && !first) {
            first = a[i].err.code;
            if (!rc)
                *err = a[i].err;
        }
        pbi_answer_clear(&a[i]);
    }
    free(a);
    return rc ? rc : first;
}

static void request_like(const options *o, pbi_request *q)
{
    pbi_request_default(q);
    q->max_new = o->max_new;
    q->ignore_eos = o->ignore_eos;
    q->special = o->special;
    q->no_bos = o->no_bos;
    if (!isnan(o->temperature))
        q->params.temperature = (float)o->temperature;
    if (!isnan(o->top_p))
        q->params.top_p = (float)o->top_p;
    if (o->top_k != INT64_MIN)
        q->params.top_k = o->top_k < 0 ? -1 : o->top_k > INT32_MAX ? INT32_MAX : (int32_t)o->top_k;
    if (o->seed >= 0) {
        q->params.seed = (uint64_t)o->seed;
        q->params.has_seed = 1;
    }
}

static int collect(const options *o, pbi_requests *r, pb_err *err)
{
    pbi_request q;
    request_like(o, &q);
    if (o->file)
        return pbi_requests_load(r, o->file, &q, err);
    if (o->ids)
        return pbi_requests_ids(r, o->ids, &q, err);
    q.prompt = o->prompt;
    q.n_prompt = strlen(o->prompt);
    return pbi_requests_add(r, &q, err);
}

static int run(const options *o, pb_err *err)
{
    pbi_pipeline *p = NULL;
    pbi_arm *arm = NULL;
    pbi_requests r = { 0 };
    pbw_workload *w = NULL;
    int rc = o->workload ? pbw_load(o->workload, o->workload_set.n, o->workload_set.s, &w, err)
                         : collect(o, &r, err);
    if (!rc)
        rc = pbi_common_load(&o->common, &p, err);
    if (!rc) {
        pbi_arm_options ao = { .model_path = o->common.model,
                               .progress = isatty(2) ? pbi_show_progress : NULL };
        if (o->calls)
            pbi_calls_log(o->calls);
        rc = pbi_arm_open(p, &ao, &arm, err);
        if (isatty(2))
            pbi_show_progress(NULL, NULL, 1);
    }
    if (!rc)
        rc = w ? pbi_load_run(w, arm, p, o->common.json, err) : run_requests(o, arm, p, &r, err);
    pbi_arm_close(arm);
    pbi_pipeline_free(p);
    pbi_requests_clear(&r);
    pbw_free(w);
    return rc;
}

int pbi_cmd_run(int argc, char **argv)
{
    options o = {
        .max_new = 128, .seed = -1, .top_k = INT64_MIN, .temperature = NAN, .top_p = NAN
    };
    const pbi_arg table[] = {
        PBI_ARG_PIPELINE(&o.common),
        PBI_ARG_MODEL(&o.common),
        PBI_ARG_SET(&o.common),
        { .name = "--prompt",
          .alias = "-p",
          .kind = PBI_ARG_TEXT,
          .out = &o.prompt,
          .value = "TEXT",
          .help = "the prompt" },
        { .name = "--ids",
          .kind = PBI_ARG_TEXT,
          .out = &o.ids,
          .value = "1,2,3",
          .help = "the prompt as token ids, nothing added" },
        { .name = "--file",
          .alias = "-f",
          .kind = PBI_ARG_TEXT,
          .out = &o.file,
          .value = "FILE.jsonl",
          .help = "requests, one JSON object a line; - is stdin" },
        { .name = "--workload",
          .alias = "-w",
          .kind = PBI_ARG_TEXT,
          .out = &o.workload,
          .value = "W.ini",
          .help = "the requests of a workload; prints metrics (patchbay help workloads)" },
        { .name = "--workload-set",
          .kind = PBI_ARG_LIST,
          .out = &o.workload_set,
          .value = "KEY=VALUE",
          .help = "override one value of the workload; may be repeated" },
        { .name = "--max-tokens",
          .alias = "-n",
          .kind = PBI_ARG_INT,
          .out = &o.max_new,
          .value = "N",
          .help = "new tokens at most (128); -1: until the context is full; 0: none" },
        { .name = "--ignore-eos",
          .kind = PBI_ARG_FLAG,
          .out = &o.ignore_eos,
          .help = "go on after the token that ends a text" },
        { .name = "--special",
          .kind = PBI_ARG_FLAG,
          .out = &o.special,
          .help = "text of special tokens in the prompt means the tokens" },
        { .name = "--no-bos",
          .kind = PBI_ARG_FLAG,
          .out = &o.no_bos,
          .help = "do not add the tokens that begin a text" },
        { .name = "--temperature",
          .kind = PBI_ARG_FLOAT,
          .out = &o.temperature,
          .value = "T",
          .help = "for sampler chain; 0 is greedy" },
        { .name = "--top-k",
          .kind = PBI_ARG_INT,
          .out = &o.top_k,
          .value = "K",
          .help = "likewise" },
        { .name = "--top-p",
          .kind = PBI_ARG_FLOAT,
          .out = &o.top_p,
          .value = "P",
          .help = "likewise" },
        { .name = "--seed", .kind = PBI_ARG_INT, .out = &o.seed, .value = "N", .help = "likewise" },
        { .name = "--calls",
          .kind = PBI_ARG_TEXT,
          .out = &o.calls,
          .value = "SLOT[,SLOT]",
          .help = "print each call of these slots' plugins on stderr" },
        { .name = "--stats",
          .kind = PBI_ARG_FLAG,
          .out = &o.stats,
          .help = "print times and speeds on stderr, as on a terminal" },
        PBI_ARG_JSON(&o.common),
        PBI_ARGS_END,
    };
    int n_words, rc = pbi_args(argc, argv, table, &n_words);
    if (rc != PBI_GO)
        return rc;
    if (n_words)
        return pbi_usage("run", "what is \"%s\"? a prompt follows -p", argv[1]);
    if ((o.prompt != NULL) + (o.ids != NULL) + (o.file != NULL) + (o.workload != NULL) != 1)
        return pbi_usage("run", "give one of -p TEXT, --ids 1,2,3, -f FILE.jsonl or -w W.ini");
    pb_err err = { 0 };
    if (o.max_new < -1)
        return pbi_usage("run", "-n %lld: from 0, or -1 for all that fits", (long long)o.max_new);
    if (o.seed < -1)
        return pbi_usage("run", "--seed %lld is below 0", (long long)o.seed);
    pbi_catch_interrupts();
    rc = run(&o, &err);
    return rc < 0 ? pbi_fail("run", &err) : rc;
}
