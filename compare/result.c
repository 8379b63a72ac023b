/* SPDX-License-Identifier: MIT
 *
 * compare/result.c - a trial into its JSON document.
 */
#define _GNU_SOURCE
#include "result.h"
#include "cli.h"
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { N_QUANTILES = 101 };

/* ---- gathering ------------------------------------------------------------- */

int pbc_gather_block(void *arg, const pbc_row *row, const pbi_answer *a, const pbi_arm *arm)
{
    pbc_gather *g = arg;
    int k = row->arm;
    for (int64_t i = 0; i < row->requests; i++) {
        if (a[i].err.code || a[i].n_ids < 1)
            continue;
        if (g->n[k] == g->cap[k]) {
            int64_t cap = g->cap[k] ? 2 * g->cap[k] : 1024;
            for (int m = 0; m < 2; m++) {
                double *v = realloc(g->v[k][m], (size_t)cap * sizeof *v);
                if (!v)
                    return PB_E_NOMEM;
                g->v[k][m] = v;
            }
            g->cap[k] = cap;
        }
        g->v[k][0][g->n[k]] = pbi_ttft_ms(&a[i]);
        g->v[k][1][g->n[k]++] = pbi_e2e_ms(&a[i]);
    }
    json_t *now = pbi_plugins_json(arm), **keep = row->round < 0 ? &g->untimed[k] : &g->plugins[k];
    json_decref(*keep);
    *keep = now;
    for (size_t i = 0; row->round >= 0 && i < json_array_size(now); i++)
        json_object_set(json_array_get(now, i), "calls",
                        json_object_get(json_array_get(g->untimed[k], i), "calls"));
    return now ? 0 : PB_E_NOMEM;
}

void pbc_gather_clear(pbc_gather *g)
{
    for (int k = 0; k < PBC_MAX_ARMS; k++) {
        free(g->v[k][0]);
        free(g->v[k][1]);
        json_decref(g->plugins[k]);
        json_decref(g->untimed[k]);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* the 0th, 1st, ... 100th percentile */
static json_t *quantiles(double *v, int64_t n)
{
    json_t *a = json_array();
    if (n > 0)
        qsort(v, (size_t)n, sizeof *v, ascending);
    for (int i = 0; i < N_QUANTILES && n > 0; i++)
        json_array_append_new(a, pbi_number(v[(n - 1) * i / (N_QUANTILES - 1)]));
    return a;
}

/* ---- parts of the document --------------------------------------------------- */

static void put(json_t *j, const char *key, json_t *value)
{
    json_object_set_new(j, key, value);
}

static json_t *machine_json(void)
{
    struct utsname u = { 0 };
    char line[256], model[200] = "";
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !model[0] && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':'))
            snprintf(model, sizeof model, "%s", strchr(line, ':') + 2);
    if (f)
        fclose(f);
    model[strcspn(model, "\n")] = 0;
    uname(&u);
    return json_pack("{s:s,s:s,s:s,s:I,s:I}", "system", u.sysname, "release", u.release,
                     "processor", model, "processors", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN),
                     "memory_bytes",
                     (json_int_t)sysconf(_SC_PHYS_PAGES) * (json_int_t)sysconf(_SC_PAGESIZE));
}

static json_t *interval_json(const pbc_interval *r)
{
    return json_pack("{s:o,s:o,s:o,s:i}", "ratio", pbi_number(r->mid), "lo", pbi_number(r->lo),
                     "hi", pbi_number(r->hi), "epochs", r->n);
}

static json_t *values_json(const double *v, int n)
{
    json_t *a = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(a, pbi_number(v[i]));
    return a;
}

static json_t *difference_json(const pbc_difference *d)
{
    json_t *j = json_object(), *before = json_array();
    if (!d->found) {
        json_decref(j);
        json_decref(before);
        return json_null();
    }
    for (int i = 0; i < d->n_before; i++)
        json_array_append_new(before, json_integer(d->before[i]));
    put(j, "logits_only", json_boolean(d->logits_only));
    put(j, "epoch", json_integer(d->epoch));
    put(j, "round", json_integer(d->round));
    put(j, "request", json_integer(d->request));
    put(j, "token", json_integer(d->position));
    put(j, "answers", json_integer(d->n_answers));
    put(j, "base", json_integer(d->token[0]));
    put(j, "arm", json_integer(d->token[1]));
    put(j, "base_text", pbi_text(d->text[0], strlen(d->text[0])));
    put(j, "arm_text", pbi_text(d->text[1], strlen(d->text[1])));
    put(j, "before", before);
    put(j, "before_text", pbi_text(d->before_text, strlen(d->before_text)));
    put(j, "base_margin", pbi_number(d->margin[0]));
    put(j, "arm_margin", pbi_number(d->margin[1]));
    put(j, "repeats_alone", d->explained ? json_boolean(d->repeated) : json_null());
    return j;
}

/* At most MAX_POINTS points: of neighbours the last. Times from the first step's end, ms. */
static json_t *timeline_json(const pbc_trial *t, int a)
{
    enum { MAX_POINTS = 400 };
    static const char *const keys[] = { "ms",      "prefill_rows", "decode_rows",
                                        "running", "waiting",      "kv_bytes" };
    json_t *j = json_object(), *v[6];
    int64_t n = t->n_steps[a], stride = n / MAX_POINTS + 1;
    for (int k = 0; k < 6; k++)
        put(j, keys[k], v[k] = json_array());
    for (int64_t i = 0; i < n; i += stride) {
        const pbi_step_event *e = &t->steps[a][i + stride - 1 < n ? i + stride - 1 : n - 1];
        int64_t rows[2] = { 0, 0 };
        for (int64_t k = i; k < i + stride && k < n; k++) {
            rows[0] += t->steps[a][k].prefill_rows;
            rows[1] += t->steps[a][k].decode_rows;
        }
        const double x[6] = { (double)(e->t_ns - t->steps[a][0].t_ns) / 1e6,
                              (double)rows[0] / (double)stride,
                              (double)rows[1] / (double)stride,
                              e->running,
                              e->waiting,
                              (double)e->kv_used };
        for (int k = 0; k < 6; k++)
            json_array_append_new(v[k], pbi_number(x[k]));
    }
    return j;
}

static json_t *arm_json(const pbc_trial *t, const pbc_gather *g, int a)
{
    const pbc_options *o = &t->o;
    int again = a == t->n_all - 1;
    int64_t cached = 0, prompt = 0, out = 0, failed = 0, preempted = 0, drafted = 0, accepted = 0;
    char key[2048];
    json_t *j = json_object(), *m = json_object();
    for (int i = 0; i < t->n_rows; i++)
        if (t->rows[i].arm == a) {
            cached += t->rows[i].cached;
            prompt += t->rows[i].prompt_tokens;
            out += t->rows[i].out_tokens;
            failed += t->rows[i].failed;
            preempted += t->rows[i].preempted;
            drafted += t->rows[i].drafted;
            accepted += t->rows[i].accepted;
        }
    double score = 0;
    int scored = 0;
    for (int i = 0; i < t->n_rows; i++)
        if (t->rows[i].arm == a && isfinite(t->rows[i].score)) {
            score += t->rows[i].score;
            scored++;
        }
    put(j, "score", pbi_number(scored ? score / scored : NAN));
    pbi_pipeline_numeric_key(o->pipelines[a], key, sizeof key, NULL);
    put(j, "name", json_string(again ? "A/A" : o->names[a]));
    put(j, "role", json_string(a == 0 ? "base" : again ? "again" : "arm"));
    put(j, "pipeline", pbi_pipeline_json(o->pipelines[a]));
    put(j, "numeric_key", json_string(key));
    put(j, "shares_device", json_boolean(t->shares[a]));
    put(j, "prompt_tokens", json_integer(prompt));
    put(j, "cached_tokens", json_integer(cached));
    put(j, "output_tokens", json_integer(out));
    put(j, "failed", json_integer(failed));
    put(j, "preempted", json_integer(preempted));
    put(j, "drafted_tokens", json_integer(drafted));
    put(j, "accepted_tokens", json_integer(accepted));
    put(j, "kv_bytes_peak", json_integer(t->kv_peak[a]));
    put(j, "kv_bytes_arena", json_integer(t->kv_arena[a]));
    put(j, "weight_bytes", json_integer(t->weight_bytes[a]));
    for (int k = 0; k < PBC_N_METRICS; k++) {
        double copy[PBC_MAX_EPOCHS];
        pbi_dist d;
        memcpy(copy, t->value[a][k], (size_t)t->n_epochs * sizeof *copy);
        pbi_dist_of(copy, t->n_epochs, &d);
        put(m, pbc_metrics[k].key,
            json_pack("{s:o,s:o}", "median", pbi_number(d.p50), "epochs",
                      values_json(t->value[a][k], t->n_epochs)));
    }
    put(j, "metrics", m);
    put(j, "quantiles",
        json_pack("{s:o,s:o}", "ttft_ms", quantiles(g->v[a][0], g->n[a]), "e2e_ms",
                  quantiles(g->v[a][1], g->n[a])));
    put(j, "timeline", timeline_json(t, a));
    put(j, "plugins", g->plugins[a] ? json_incref(g->plugins[a]) : json_null());
    return j;
}

/* names of the counters that would have shown that a plugin worked */
static json_t *idle_json(const pbc_trial *t, int a)
{
    json_t *all = json_array();
    int from = 0;
    for (const pbi_use *u = pbc_idle_use(t, a, &from); u; u = pbc_idle_use(t, a, &from)) {
        json_t *names = json_array();
        for (const pb_counter *c = u->lib->desc->counters; c && c->name; c++)
            if (c->flags & PB_C_ENGAGED)
                json_array_append_new(names, json_string(c->name));
        if (!strcmp(u->slot, "kernels")) /* the backend's: trial.c */
            json_array_append_new(names, json_string("plugin_row_ops"));
        json_array_append_new(
            all, json_pack("{s:s,s:s,s:o}", "slot", u->slot, "name", u->name, "counters", names));
    }
    return all;
}

static json_t *quality_json(const pbc_quality *q)
{
    if (!q->n_positions && !q->n_samples && !q->why_not[0])
        return json_null();
    return json_pack("{s:I,s:o,s:o,s:o,s:i,s:o,s:s}", "positions", (json_int_t)q->n_positions,
                     "kl_mean", pbi_number(q->n_positions ? q->kl_mean : NAN), "kl_max",
                     pbi_number(q->n_positions ? q->kl_max : NAN), "same_top_token",
                     pbi_number(q->n_positions ? q->top1 : NAN), "samples", q->n_samples, "p",
                     pbi_number(q->n_samples ? q->p : NAN), "why_not", q->why_not);
}

static json_t *comparison_json(const pbc_trial *t, int a)
{
    const pbc_difference *d = &t->diff[a];
    json_t *j = json_object(), *m = json_object();
    put(j, "arm", json_integer(a));
    put(j, "pipeline_diff", pbi_pipeline_diff(t->o.pipelines[0], t->o.pipelines[a]));
    put(j, "same_tokens", json_boolean(!d->found || d->logits_only));
    put(j, "same_logits", json_boolean(!d->found));
    put(j, "difference", difference_json(d));
    put(j, "quality", quality_json(&t->quality[a]));
    put(j, "never_engaged", idle_json(t, a));
    for (int k = 0; k < PBC_N_METRICS; k++) {
        pbc_interval r, noise;
        pbc_ratio(t, a, k, &r);
        pbc_ratio(t, t->n_all - 1, k, &noise);
        json_t *x = interval_json(&r);
        put(x, "noise_lo", pbi_number(noise.lo));
        put(x, "noise_hi", pbi_number(noise.hi));
        put(x, "log_ratios", values_json(t->log_ratio[a][k], t->n_epochs));
        put(x, "noise_log_ratios", values_json(t->log_ratio[t->n_all - 1][k], t->n_epochs));
        put(x, "verdict", json_string(pbc_verdict_name(pbc_judge(t, a, k))));
        put(m, pbc_metrics[k].key, x);
    }
    put(j, "metrics", m);
    return j;
}

static json_t *rows_json(const pbc_trial *t)
{
    json_t *all = json_array();
    for (int i = 0; i < t->n_rows; i++) {
        const pbc_row *r = &t->rows[i];
        json_t *j = json_pack("{s:i,s:i,s:i,s:i}", "epoch", r->epoch, "round", r->round, "arm",
                              r->arm, "place", r->place);
        for (int k = 0; k < PBC_N_METRICS; k++)
            put(j, pbc_metrics[k].key, pbi_number(r->v[k]));
        put(j, "wall_s", pbi_number(r->wall_s));
        put(j, "cpu_s", pbi_number(r->cpu_s));
        put(j, "others_busy", pbi_number(r->busy));
        put(j, "disturbed", json_boolean(r->disturbed));
        put(j, "unsteady", json_boolean(r->unsteady));
        put(j, "cached_tokens", json_integer(r->cached));
        put(j, "steps", json_integer(r->steps));
        json_array_append_new(all, j);
    }
    return all;
}

static json_t *options_json(const pbc_options *o)
{
    static const char *const caches[] = { "cold", "warm", "natural" };
    return json_pack("{s:s,s:i,s:i,s:i,s:s,s:f,s:f,s:f,s:f,s:I}", "model", o->model, "min_epochs",
                     o->min_epochs, "max_epochs", o->max_epochs, "blocks", o->blocks, "cache",
                     caches[o->cache], "level", o->level, "delta", o->delta, "until", o->until,
                     "max_time_s", o->max_time_s, "seed", (json_int_t)o->seed);
}

json_t *pbc_result(const pbc_trial *t, const pbc_gather *g, const char *name, const pbw_workload *w)
{
    json_t *j = json_object(), *arms = json_array(), *comparisons = json_array();
    json_t *names = json_array();
    struct timespec now;
    int disturbed = 0, unsteady = 0, same = 1, bits = 1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (int i = 0; i < t->n_rows; i++) {
        disturbed += t->rows[i].disturbed;
        unsteady += t->rows[i].unsteady;
    }
    for (int k = 0; k < PBC_N_METRICS; k++)
        json_array_append_new(names,
                              json_pack("{s:s,s:s,s:s,s:b}", "key", pbc_metrics[k].key, "name",
                                        pbc_metrics[k].name, "unit", pbc_metrics[k].unit,
                                        "more_is_better", pbc_metrics[k].more_is_better));
    for (int a = 0; a < t->n_all; a++)
        json_array_append_new(arms, arm_json(t, g, a));
    for (int a = 1; a < t->o.n_arms; a++) {
        json_array_append_new(comparisons, comparison_json(t, a));
        same &= !t->diff[a].found || t->diff[a].logits_only;
        bits &= !t->diff[a].found;
    }
    put(j, "format", json_string("patchbay-comparison/1"));
    char *ini = w ? pbw_text(w) : NULL;
    put(j, "workload", json_string(name));
    put(j, "workload_ini", ini ? json_string(ini) : json_null());
    put(j, "left_out", json_integer(w ? pbw_last(w)->n_left_out : 0));
    free(ini);
    put(j, "options", options_json(&t->o));
    put(j, "machine", machine_json());
    put(j, "ended",
        json_string(t->interrupted ? "interrupted"
                    : t->timed_out ? "time"
                    : t->reached   ? "narrow"
                                   : "epochs"));
    put(j, "seconds", json_real((double)now.tv_sec + (double)now.tv_nsec * 1e-9 - t->began_s));
    put(j, "requests", json_integer(t->n_requests));
    put(j, "epochs", json_integer(t->n_epochs));
    put(j, "least_epochs", json_integer(pbc_least_epochs(&t->o)));
    put(j, "rows_disturbed", json_integer(disturbed));
    put(j, "rows_unsteady", json_integer(unsteady));
    put(j, "same_tokens", json_boolean(same));
    put(j, "same_logits", json_boolean(bits));
    put(j, "a_a_difference", difference_json(&t->diff[t->n_all - 1]));
    put(j, "metrics", names);
    put(j, "arms", arms);
    put(j, "comparisons", comparisons);
    put(j, "rows", rows_json(t));
    return j;
}

int pbc_exit_status(const json_t *result)
{
    size_t i;
    const json_t *c;
    int idle = 0;
    json_array_foreach(json_object_get(result, "comparisons"), i, c) idle |=
        json_array_size(json_object_get(c, "never_engaged")) > 0;
    if (idle)
        return PBC_EXIT_IDLE;
    if (!json_is_true(json_object_get(result, "same_logits")) ||
        !json_is_null(json_object_get(result, "a_a_difference")))
        return PBC_EXIT_DIFFERENT;
    return 0;
}
