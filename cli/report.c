/* SPDX-License-Identifier: MIT
 *
 * cli/report.c - what run, score and compare print: answers, statistics, plugin accounts.
 */
#define _GNU_SOURCE
#include "report.h"
#include "cli.h"
#include "instance.h"
#include "program.h"

#include <math.h>
#include <signal.h>
#include <string.h>

/* ---- terminal ---------------------------------------------------------- */

void pbi_show_progress(void *arg, const char *what, double done)
{
    (void)arg;
    if (what)
        fprintf(stderr, "\r%s %3.0f %%\033[K", what, done * 100);
    else
        fprintf(stderr, "\r\033[K");
    fflush(stderr);
}

static volatile sig_atomic_t interrupted;

static void note(int sig)
{
    (void)sig;
    interrupted = 1;
}

void pbi_catch_interrupts(void)
{
    struct sigaction sa = { .sa_handler = note, .sa_flags = (int)(SA_RESETHAND | SA_RESTART) };
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

int pbi_interrupted(void *arg)
{
    (void)arg;
    return interrupted;
}

/* ---- answers ----------------------------------------------------------- */

void pbi_print_answer(const pbi_answer *a, int64_t i, int many, int has_text)
{
    if (many)
        printf("%s[%lld] %s: ", i ? "\n" : "", (long long)i, a->finish ? a->finish : "?");
    if (a->err.code) {
        if (many)
            printf("%s\n", a->err.msg);
        return;
    }
    if (a->text && has_text) {
        if (many)
            fwrite(a->text, 1, a->n_text, stdout);
    } else {
        for (int64_t k = 0; k < a->n_ids; k++)
            printf("%s%d", k ? "," : "", (int)a->ids[k]);
    }
    putchar('\n');
    fflush(stdout);
}

json_t *pbi_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *pbi_text(const char *s, size_t n)
{
    json_t *j = s ? json_stringn(s, n) : json_null();
    return j ? j : json_null();
}

static json_t *ids_json(const int32_t *v, int64_t n)
{
    json_t *a = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(a, json_integer(v[i]));
    return a;
}

json_t *pbi_answer_json(const pbi_answer *a)
{
    json_t *j = json_object();
    json_object_set_new(j, "prompt_ids", ids_json(a->prompt_ids, a->n_prompt));
    json_object_set_new(j, "output_ids", ids_json(a->ids, a->n_ids));
    json_object_set_new(j, "text", pbi_text(a->text, a->n_text));
    json_object_set_new(j, "finish_reason", json_string(a->finish ? a->finish : "error"));
    json_object_set_new(j, "cached_tokens", json_integer(a->n_cached));
    json_object_set_new(j, "ttft_ms", pbi_number(pbi_ttft_ms(a)));
    json_object_set_new(j, "tpot_ms", pbi_number(pbi_tpot_ms(a)));
    json_object_set_new(j, "e2e_ms", pbi_number(pbi_e2e_ms(a)));
    if (a->logprobs) {
        json_t *l = json_array();
        for (int64_t i = 0; i < a->n_ids; i++)
            json_array_append_new(l, pbi_number((double)a->logprobs[i]));
        json_object_set_new(j, "logprobs", l);
    }
    if (a->err.code)
        json_object_set_new(j, "error", json_string(a->err.msg));
    return j;
}

/* ---- totals ------------------------------------------------------------ */

static json_t *dist_json(const pbi_dist *d)
{
    return json_pack("{s:o,s:o,s:o,s:o,s:o}", "mean", pbi_number(d->mean), "p50",
                     pbi_number(d->p50), "p90", pbi_number(d->p90), "p99", pbi_number(d->p99),
                     "max", pbi_number(d->max));
}

json_t *pbi_totals_json(const pbi_totals *t, const pbi_metrics *m)
{
    json_t *j = json_object();
    const struct {
        const char *name;
        int64_t v;
    } whole[] = { { "requests_ok", m->n_ok },
                  { "requests_failed", m->n_failed },
                  { "prompt_tokens", m->n_prompt_tokens },
                  { "output_tokens", m->n_out_tokens },
                  { "cached_tokens", m->n_cached_tokens },
                  { "steps", t->n_steps },
                  { "rows", t->n_rows },
                  { "preempted", t->n_preempted },
                  { "drafted_tokens", t->n_drafted },
                  { "accepted_tokens", t->n_accepted },
                  { "engine_lost", t->n_engine_lost },
                  { "kv_bytes_arena", t->kv_bytes_arena },
                  { "kv_bytes_peak", t->kv_bytes_peak },
                  { "weight_bytes", t->weight_bytes } };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        json_object_set_new(j, whole[i].name, json_integer(whole[i].v));
    json_object_set_new(j, "wall_ms", pbi_number((double)t->wall_ns / 1e6));
    json_object_set_new(j, "cpu_ms", pbi_number((double)t->cpu_ns / 1e6));
    json_object_set_new(j, "step_ms", pbi_number((double)t->step_ns / 1e6));
    json_object_set_new(j, "device_ms", pbi_number((double)t->device_ns / 1e6));
    json_object_set_new(j, "requests_per_s", pbi_number(m->requests_per_s));
    json_object_set_new(j, "tokens_per_s", pbi_number(m->tokens_per_s));
    json_object_set_new(j, "total_tokens_per_s", pbi_number(m->total_tokens_per_s));
    json_object_set_new(j, "running_mean", pbi_number(t->running_mean));
    json_object_set_new(j, "running_max", json_integer(t->running_max));
    json_object_set_new(j, "waiting_mean", pbi_number(t->waiting_mean));
    json_object_set_new(j, "waiting_max", json_integer(t->waiting_max));
    json_object_set_new(j, "kv_bytes_mean", pbi_number(t->kv_used_mean));
    json_object_set_new(j, "kv_live_bytes_mean", pbi_number(t->kv_live_mean));
    json_object_set_new(j, "queue_ms", dist_json(&m->queue_ms));
    json_object_set_new(j, "ttft_ms", dist_json(&m->ttft_ms));
    json_object_set_new(j, "tpot_ms", dist_json(&m->tpot_ms));
    json_object_set_new(j, "itl_ms", dist_json(&m->itl_ms));
    json_object_set_new(j, "e2e_ms", dist_json(&m->e2e_ms));
    return j;
}

static json_t *calls_json(const pbi_instance *in)
{
    json_t *j = json_object();
    for (const pbi_call_stat *s = pbi_call_stats(in); s; s = s->next)
        if (s->n)
            json_object_set_new(j, s->call.function,
                                json_pack("{s:I,s:o}", "calls", (json_int_t)s->n, "ms",
                                          pbi_number((double)s->ns / 1e6)));
    return j;
}

json_t *pbi_plugins_json(const pbi_arm *arm)
{
    json_t *all = json_array();
    pbi_instance *const *in = NULL;
    int n = pbi_arm_instances(arm, &in);
    for (int i = 0; i < n; i++) {
        const pbi_use *u = pbi_instance_use(in[i]);
        const pb_counter *c = u->lib->desc->counters;
        int64_t now, peak;
        json_t *j = json_object(), *counters = json_object();
        for (int k = 0; c && c[k].name; k++)
            json_object_set_new(counters, c[k].name, json_integer(pbi_instance_counter(in[i], k)));
        pbi_instance_memory(in[i], &now, &peak);
        json_object_set_new(j, "slot", json_string(u->slot));
        json_object_set_new(j, "name", json_string(u->name));
        json_object_set_new(j, "counters", counters);
        json_object_set_new(j, "memory_bytes", json_integer(now));
        json_object_set_new(j, "memory_peak_bytes", json_integer(peak));
        json_object_set_new(j, "calls", calls_json(in[i]));
        json_array_append_new(all, j);
    }
    return all;
}

json_t *pbi_run_json(const pbi_arm *arm, const pbi_pipeline *p, int64_t n, const pbi_answer *a,
                     const pbi_totals *t)
{
    json_t *j = json_object(), *list = json_array();
    pbi_metrics m;
    char key[2048];
    if (pbi_metrics_of(n, a, &m))
        m = (pbi_metrics){ 0 };
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(list, pbi_answer_json(&a[i]));
    pbi_pipeline_numeric_key(p, key, sizeof key, NULL);
    json_object_set_new(j, "requests", list);
    json_object_set_new(j, "totals", pbi_totals_json(t, &m));
    json_object_set_new(j, "plugins", pbi_plugins_json(arm));
    json_object_set_new(j, "pipeline", pbi_pipeline_json(p));
    json_object_set_new(j, "numeric_key", json_string(key));
    return j;
}

/* multiply-adds of products over all rows, or over the wanted rows only */
static double macs(const pb_program *p, int picked)
{
    double n = 0;
    for (int32_t i = 0; i < p->n_ops; i++) {
        const pb_op_linear *l = &p->ops[i].u.linear;
        if (p->ops[i].kind != PB_OP_LINEAR || p->vals[l->x].picked != picked)
            continue;
        for (int k = 0; k < l->n_w; k++)
            n += (double)p->weights[l->w[k]].rows * (double)p->weights[l->w[k]].cols;
    }
    return n;
}

void pbi_print_stats(FILE *f, const pbi_arm *arm, int64_t n, const pbi_answer *a,
                     const pbi_totals *t)
{
    pbi_metrics m;
    if (pbi_metrics_of(n, a, &m))
        return;
    const pb_program *p = pbi_arm_program(arm);
    double device = (double)t->device_ns / 1e9;
    fprintf(f,
            "%lld prompt tokens (%lld cached), %lld new in %.3f s: TTFT %.1f ms, TPOT %.2f ms, "
            "%.1f tokens/s\n",
            (long long)m.n_prompt_tokens, (long long)m.n_cached_tokens, (long long)m.n_out_tokens,
            m.duration_s, m.ttft_ms.mean, m.tpot_ms.mean, m.tokens_per_s);
    fprintf(f,
            "%lld steps, %.1f rows each; the device read %.2f GB/s of weights and made %.1f G "
            "multiply-adds/s; outside of it %.1f us a step\n",
            (long long)t->n_steps, (double)t->n_rows / (double)(t->n_steps ? t->n_steps : 1),
            (double)pbi_program_weight_bytes(p) * (double)t->n_steps / device / 1e9,
            (macs(p, 0) * (double)t->n_rows + macs(p, 1) * (double)t->n_out_tokens) / device / 1e9,
            (double)(t->step_ns - t->device_ns) / 1e3 / (double)(t->n_steps ? t->n_steps : 1));
}
