/* SPDX-License-Identifier: MIT
 *
 * compare/trial.c - epochs, rounds and blocks of a comparison; what they measured; the verdicts.
 * Whether tokens are the same is equal.c's.
 */
#define _GNU_SOURCE
#include "live.h"
#include "workload/workload.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const pbc_metric pbc_metrics[PBC_N_METRICS] = {
    { "requests", "/s", "requests_per_s", 1, 0 },
    { "tokens", "/s", "tokens_per_s", 1, 0 },
    { "TTFT", "ms", "ttft_ms", 0, 0 },
    { "TPOT", "ms", "tpot_ms", 0, 0 },
    { "E2E", "ms", "e2e_ms", 0, 0 },
    { "TTFT p99", "ms", "ttft_p99_ms", 0, 1 },
    { "ITL p99", "ms", "itl_p99_ms", 0, 1 },
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the machine around a block ------------------------------------------ */

/* Processor seconds of the machine: spent on anything, and taken by the host (steal). Source:
 * proc(5), the first line of /proc/stat. -1 where there is none. */
static double machine_busy(void)
{
    unsigned long long v[8] = { 0 };
    FILE *f = fopen("/proc/stat", "r");
    int n = f ? fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
                       &v[4], &v[5], &v[6], &v[7])
              : 0;
    if (f)
        fclose(f);
    if (n < 8)
        return -1;
    return (double)(v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- arms ------------------------------------------------------------------- */

static void close_arms(pbc_live *l)
{
    for (int a = 0; a < l->t->n_all; a++) {
        pbi_arm_close(l->arm[a]);
        l->arm[a] = NULL;
    }
}

static int open_arm(pbc_live *l, int a, pb_err *err)
{
    const pbc_options *o = &l->t->o;
    pbi_arm_options ao = { .model_path = o->model,
                           .share = l->holder[l->device_of[a]],
                           .own_arena = o->cache == PBC_NATURAL };
    return pbi_arm_open(o->pipelines[a], &ao, &l->arm[a], err);
}

/* One arm for each kind of device stays open and idle, so that what the device holds outlives
 * the epochs' arms. Where an arm has a device of its own, so has the second instance of the base:
 * only then does A/A show what two devices differ by. */
static int open_holders(pbc_live *l, pb_err *err)
{
    const pbc_options *o = &l->t->o;
    for (int a = 0; a < l->t->n_all; a++) {
        int d = 0, own = a == o->n_arms && l->n_holders > 1;
        while (d < l->n_holders && (own || !pbi_arm_can_share(l->holder[d], o->pipelines[a])))
            d++;
        l->device_of[a] = d;
        l->t->shares[a] = d == 0;
        if (d < l->n_holders)
            continue;
        pbi_arm_options ao = { .model_path = o->model };
        int rc = pbi_arm_open(o->pipelines[a], &ao, &l->holder[d], err);
        if (rc)
            return rc;
        l->n_holders = d + 1;
    }
    return 0;
}

/* ---- blocks ------------------------------------------------------------------ */

/* Rows of a kernels plugin have no counters: what the backend says that such rows computed, or -1
 * when it does not say. Several kernels plugins cannot be told apart. */
static int kernels_worked(pbi_instance *const *in, int n)
{
    for (int i = 0; i < n; i++) {
        const pb_plugin *d = pbi_instance_use(in[i])->lib->desc;
        for (int k = 0; !strcmp(d->slot, "backend") && d->counters && d->counters[k].name; k++)
            if (!strcmp(d->counters[k].name, "plugin_row_ops"))
                return pbi_instance_counter(in[i], k) != 0;
    }
    return -1;
}

/* A plugin has counters that prove its work: has one of them moved? */
static void note_engagement(pbc_live *l, int a)
{
    const pbi_pipeline *p = l->t->o.pipelines[a];
    pbi_instance *const *in;
    int n = pbi_arm_instances(l->arm[a], &in);
    for (int u = 0; u < p->n_uses && u < PBC_MAX_USES; u++) {
        const pb_counter *c = p->uses[u]->lib->desc->counters;
        if (!strcmp(p->uses[u]->lib->desc->slot, "kernels") && l->t->engaged[a][u] < 1)
            l->t->engaged[a][u] = kernels_worked(in, n);
        for (int i = 0; i < n; i++)
            for (int k = 0; c && c[k].name && pbi_instance_use(in[i]) == p->uses[u]; k++)
                if (c[k].flags & PB_C_ENGAGED) {
                    int worked = pbi_instance_counter(in[i], k) != 0;
                    if (l->t->engaged[a][u] < worked)
                        l->t->engaged[a][u] = worked;
                }
    }
}

/* Open loop: a queue that grows has no steady mean. The block must last 20 mean E2E, and the
 * last third of the requests must not take half as long again as the first third. */
static int is_unsteady(const pbc_live *l, const pbi_answer *a, const pbi_metrics *m)
{
    int64_t n = l->requests.n, third = n / 3;
    double first = 0, last = 0;
    if (!l->t->o.source.open_loop)
        return 0;
    for (int64_t i = 0; i < third; i++) {
        first += pbi_e2e_ms(&a[i]);
        last += pbi_e2e_ms(&a[n - 1 - i]);
    }
    return m->duration_s * 1e3 < 20 * m->e2e_ms.mean || third == 0 || last > 1.5 * first;
}

static int keep_row(pbc_trial *t, const pbc_row *r, pb_err *err)
{
    if (t->n_rows == t->cap_rows) {
        int cap = t->cap_rows ? 2 * t->cap_rows : 64;
        pbc_row *rows = realloc(t->rows, (size_t)cap * sizeof *rows);
        if (!rows)
            return pbi_err(err, PB_E_NOMEM, "no memory for %d rows of results", cap);
        t->rows = rows;
        t->cap_rows = cap;
    }
    t->rows[t->n_rows++] = *r;
    return 0;
}

/* all TTFT and ITL of an epoch, for its 99th percentiles */
static int pool(pbc_live *l, int a, int64_t n, const pbi_answer *ans)
{
    for (int64_t i = 0; i < n; i++) {
        if (ans[i].err.code || ans[i].n_ids < 1)
            continue;
        if (pbc_pool_add(&l->pool[a][0], pbi_ttft_ms(&ans[i])))
            return -1;
        for (int64_t k = 1; k < ans[i].n_ids; k++)
            if (pbc_pool_add(&l->pool[a][1],
                             (double)(ans[i].t_token_ns[k] - ans[i].t_token_ns[k - 1]) * 1e-6))
                return -1;
    }
    return 0;
}

typedef struct step_log {
    pbc_trial *t;
    int arm;
} step_log;

/* A step that finds no memory is missing from a figure, no more. */
static void keep_step(void *arg, const pbi_step_event *e)
{
    const step_log *s = arg;
    pbc_trial *t = s->t;
    if (t->n_steps[s->arm] == t->cap_steps[s->arm]) {
        int64_t cap = t->cap_steps[s->arm] ? 2 * t->cap_steps[s->arm] : 1024;
        pbi_step_event *v = realloc(t->steps[s->arm], (size_t)cap * sizeof *v);
        if (!v)
            return;
        t->steps[s->arm] = v;
        t->cap_steps[s->arm] = cap;
    }
    t->steps[s->arm][t->n_steps[s->arm]++] = *e;
}

int pbc_block(pbc_live *l, int a, pbi_answer *out, pbi_totals *totals, pb_err *err)
{
    const pbc_options *o = &l->t->o;
    step_log log = { l->t, a };
    const pbi_run_hooks warm = { .clients = l->requests.clients, .stop = o->stop };
    const pbi_run_hooks hooks = { .clients = l->requests.clients,
                                  .stop = o->stop,
                                  .arg = &log,
                                  .on_step = l->log_steps ? keep_step : NULL };
    int rc = o->cache == PBC_NATURAL ? 0 : pbi_arm_reset(l->arm[a], err);
    if (!rc && o->cache == PBC_WARM) {
        rc = pbi_arm_run(l->arm[a], l->requests.n, l->requests.v, out, &warm, totals, err);
        pbc_clear_answers(out, l->requests.n);
    }
    if (!rc)
        rc = pbi_arm_run(l->arm[a], l->requests.n, l->requests.v, out, &hooks, totals, err);
    return rc;
}

static int timed_block(pbc_live *l, int epoch, int round, int a, int place, pb_err *err)
{
    pbc_trial *t = l->t;
    pbi_answer *out = l->answers[a];
    pbi_totals tot;
    pbi_metrics m;
    double busy = machine_busy(), wall = seconds();
    l->log_steps = epoch == 0 && round == 0;
    int rc = pbc_block(l, a, out, &tot, err);
    l->log_steps = 0;
    if (rc)
        return rc;
    wall = seconds() - wall;
    busy = busy < 0 ? -1 : machine_busy() - busy;
    if (pbi_metrics_of(l->requests.n, out, &m) || pool(l, a, l->requests.n, out))
        return pbi_err(err, PB_E_NOMEM, "no memory for metrics");
    if (t->o.stop && t->o.stop(NULL))
        return 0; /* cut off: no measurement */
    note_engagement(l, a);
    pbc_row r = { .epoch = epoch,
                  .round = round,
                  .arm = a,
                  .place = place,
                  .v = { m.requests_per_s, m.tokens_per_s, m.ttft_ms.mean, m.tpot_ms.mean,
                         m.e2e_ms.mean, m.ttft_ms.p99, m.itl_ms.p99 },
                  .wall_s = wall,
                  .cpu_s = (double)tot.cpu_ns * 1e-9,
                  .requests = l->requests.n,
                  .failed = m.n_failed,
                  .cached = m.n_cached_tokens,
                  .prompt_tokens = m.n_prompt_tokens,
                  .out_tokens = m.n_out_tokens,
                  .steps = tot.n_steps,
                  .preempted = tot.n_preempted,
                  .drafted = tot.n_drafted,
                  .accepted = tot.n_accepted,
                  .unsteady = is_unsteady(l, out, &m),
                  .score = pbw_score(l->requests.n, l->requests.v, out) };
    double cpus = (double)sysconf(_SC_NPROCESSORS_ONLN), others = busy - r.cpu_s;
    r.busy = busy < 0 || others < 0 ? 0 : others / (cpus * wall);
    r.disturbed = r.busy > 0.05 && others > 0.03; /* /proc/stat counts hundredths */
    if (tot.kv_bytes_peak > t->kv_peak[a])
        t->kv_peak[a] = tot.kv_bytes_peak;
    t->kv_arena[a] = tot.kv_bytes_arena;
    t->weight_bytes[a] = tot.weight_bytes;
    if (t->o.on_block) {
        rc = t->o.on_block(t->o.on_block_arg, &r, out, l->arm[a]);
        if (rc)
            return pbi_err(err, rc, "no memory for what a block measured");
    }
    return keep_row(t, &r, err);
}

static int untimed_block(pbc_live *l, int epoch, int a, pb_err *err)
{
    const pbc_row r = { .epoch = epoch, .round = -1, .arm = a };
    pbi_totals tot;
    int rc = pbc_block(l, a, l->answers[a], &tot, err);
    if (!rc && l->t->o.on_block)
        rc = l->t->o.on_block(l->t->o.on_block_arg, &r, l->answers[a], l->arm[a]);
    return rc;
}

/* ---- rounds and epochs ---------------------------------------------------------- */

static int draw(pbc_live *l, uint64_t seed, pb_err *err)
{
    pbi_requests_clear(&l->requests);
    l->requests = (pbi_requests){ 0 };
    const pbc_source *src = &l->t->o.source;
    int rc = src->draw(src->arg, l->holder[0], seed, &l->requests, err);
    if (rc)
        return rc;
    if (l->requests.n < 1)
        return pbi_err(err, PB_E_INVAL, "there is no request to compare with");
    l->t->n_requests = l->requests.n;
    for (int a = 0; a < l->t->n_all; a++) {
        free(l->answers[a]);
        l->answers[a] = calloc((size_t)l->requests.n, sizeof *l->answers[a]);
        if (!l->answers[a])
            return pbi_err(err, PB_E_NOMEM, "no memory for %lld answers", (long long)l->requests.n);
    }
    return 0;
}

/* round -1: untimed; in the first epoch with hashes of the logits */
static int one_round(pbc_live *l, int epoch, int round, pb_err *err)
{
    pbc_trial *t = l->t;
    int order[PBC_MAX_ARMS], hashes = round < 0 && epoch == 0, rc;
    for (int a = 0; a < t->n_all; a++)
        order[a] = a;
    pbc_shuffle(order, t->n_all, &l->state);
    rc = draw(l, pbc_random(&l->state), err);
    for (int i = 0; i < t->n_all && !rc; i++) {
        int a = order[i];
        pbi_arm_hash_logits(l->arm[a], hashes);
        pbi_trace_enable(round < 0); /* the time inside of plugins, where nothing is timed */
        rc = round < 0 ? untimed_block(l, epoch, a, err) : timed_block(l, epoch, round, a, i, err);
        if (t->o.stop && t->o.stop(NULL)) {
            t->interrupted = 1;
            break;
        }
    }
    if (!rc && !t->interrupted)
        rc = pbc_note_differences(l, round < 0 ? -1 : epoch, round, err);
    for (int a = 0; a < t->n_all; a++)
        if (l->answers[a])
            pbc_clear_answers(l->answers[a], l->requests.n);
    return rc;
}

/* One number an epoch and metric: the mean of its rounds' paired log-ratios, or the log-ratio of
 * what was pooled. */
static void close_epoch(pbc_live *l, int epoch)
{
    pbc_trial *t = l->t;
    double base[PBC_N_METRICS];
    for (int a = 0; a < t->n_all; a++) {
        double sum[PBC_N_METRICS] = { 0 }, log_sum[PBC_N_METRICS] = { 0 };
        int rounds = 0;
        for (int i = 0; i < t->n_rows; i++) {
            const pbc_row *r = &t->rows[i], *b = NULL;
            if (r->epoch != epoch || r->arm != a)
                continue;
            for (int k = 0; k < t->n_rows; k++)
                if (t->rows[k].epoch == epoch && t->rows[k].round == r->round && !t->rows[k].arm)
                    b = &t->rows[k];
            rounds++;
            for (int m = 0; b && m < PBC_N_METRICS; m++) {
                sum[m] += r->v[m];
                log_sum[m] += log(r->v[m] / b->v[m]);
            }
        }
        for (int m = 0; m < PBC_N_METRICS; m++) {
            double value = sum[m] / rounds, ratio = log_sum[m] / rounds;
            if (pbc_metrics[m].pooled) {
                pbi_dist d;
                pbc_pool *p = &l->pool[a][m == PBC_ITL_P99];
                pbi_dist_of(p->v, p->n, &d);
                value = d.p99;
                p->n = 0;
                base[m] = a == 0 ? value : base[m];
                ratio = log(value / base[m]);
            }
            t->value[a][m][epoch] = value;
            t->log_ratio[a][m][epoch] = ratio;
        }
    }
    t->n_epochs = epoch + 1;
}

static int one_epoch(pbc_live *l, int epoch, pb_err *err)
{
    pbc_trial *t = l->t;
    int order[PBC_MAX_ARMS], rc = 0;
    for (int a = 0; a < t->n_all; a++)
        order[a] = a;
    pbc_shuffle(order, t->n_all, &l->state);
    for (int i = 0; i < t->n_all && !rc; i++)
        rc = open_arm(l, order[i], err);
    for (int round = -1; round < t->o.blocks && !rc && !t->interrupted; round++)
        rc = one_round(l, epoch, round, err);
    if (!rc && !t->interrupted)
        close_epoch(l, epoch);
    close_arms(l);
    return rc;
}

/* ---- when it is done --------------------------------------------------------------- */

/* Judged together: each metric of each arm but the A/A one. */
static double shared_level(const pbc_options *o)
{
    return o->level / ((double)PBC_N_METRICS * (o->n_arms - 1));
}

int pbc_least_epochs(const pbc_options *o)
{
    int n = pbc_least_n(shared_level(o));
    return n < 8 ? 8 : n;
}

void pbc_ratio(const pbc_trial *t, int arm, int metric, pbc_interval *out)
{
    if (pbc_interval_of(t->log_ratio[arm][metric], t->n_epochs, shared_level(&t->o), out))
        *out = (pbc_interval){ t->n_epochs, NAN, NAN, NAN };
}

int pbc_judge(const pbc_trial *t, int arm, int metric)
{
    pbc_interval r, noise;
    pbc_ratio(t, arm, metric, &r);
    pbc_ratio(t, t->n_all - 1, metric, &noise);
    return pbc_verdict(&r, &noise, t->o.delta, pbc_metrics[metric].more_is_better);
}

/* the widest primary interval (requests/s) is narrow enough; never whether it is significant */
static int narrow_enough(const pbc_trial *t)
{
    if (t->o.until <= 0)
        return 0;
    for (int a = 1; a < t->o.n_arms; a++) {
        pbc_interval r;
        pbc_ratio(t, a, PBC_REQ_S, &r);
        if (!isfinite(r.lo) || !((r.hi - r.lo) / 2 <= t->o.until * r.mid))
            return 0;
    }
    return 1;
}

static int done(pbc_trial *t)
{
    double spent = seconds() - t->began_s;
    double share = (double)t->n_epochs / t->o.max_epochs;
    double left = t->n_epochs ? spent / t->n_epochs * (t->o.max_epochs - t->n_epochs) : NAN;
    if (t->o.max_time_s > 0 && t->n_epochs && spent + left > t->o.max_time_s)
        left = t->o.max_time_s - spent;
    if (t->o.progress)
        t->o.progress(t->o.progress_arg, share, left);
    if (t->interrupted || t->n_epochs >= t->o.max_epochs)
        return 1;
    if (t->o.max_time_s > 0 && spent >= t->o.max_time_s)
        return t->timed_out = 1;
    if (t->n_epochs >= t->o.min_epochs && narrow_enough(t))
        return t->reached = 1;
    return 0;
}

int pbc_run(const pbc_options *o, pbc_trial **out, pb_err *err)
{
    pbc_trial *t = calloc(1, sizeof *t);
    pbc_live *l = calloc(1, sizeof *l);
    *out = t;
    if (!t || !l || o->n_arms < 2 || o->n_arms >= PBC_MAX_ARMS || o->max_epochs > PBC_MAX_EPOCHS) {
        free(l);
        return t && l ? pbi_err(err, PB_E_INVAL, "%d arms and %d epochs: 2 to %d and up to %d",
                                o->n_arms, o->max_epochs, PBC_MAX_ARMS - 1, PBC_MAX_EPOCHS)
                      : pbi_err(err, PB_E_NOMEM, "no memory for a comparison");
    }
    t->o = *o;
    t->n_all = o->n_arms + 1;
    t->began_s = seconds();
    memset(t->engaged, -1, sizeof t->engaged);
    l->t = t;
    l->state = o->seed;
    int rc = open_holders(l, err);
    for (int e = 0; !rc && !done(t); e++)
        rc = one_epoch(l, e, err);
    if (!rc && !t->interrupted)
        rc = pbc_explain_differences(l, err);
    if (!rc && !t->interrupted)
        rc = pbc_weigh_differences(l, err);
    close_arms(l);
    for (int d = l->n_holders - 1; d >= 0; d--)
        pbi_arm_close(l->holder[d]);
    for (int a = 0; a < t->n_all; a++) {
        free(l->answers[a]);
        free(l->pool[a][0].v);
        free(l->pool[a][1].v);
        pbi_requests_clear(&l->differing[a]);
    }
    pbi_requests_clear(&l->requests);
    free(l);
    return rc;
}

void pbc_free(pbc_trial *t)
{
    if (!t)
        return;
    for (int a = 0; a < PBC_MAX_ARMS; a++)
        free(t->steps[a]);
    free(t->rows);
    free(t);
}

const pbi_use *pbc_idle_use(const pbc_trial *t, int arm, int *from)
{
    const pbi_pipeline *a = t->o.pipelines[0], *b = t->o.pipelines[arm];
    for (int u = *from; u < b->n_uses && u < PBC_MAX_USES; u++) {
        int same = 0;
        for (int k = 0; k < a->n_uses; k++)
            same |= a->uses[k]->lib == b->uses[u]->lib;
        *from = u + 1;
        if (!same && t->engaged[arm][u] == 0)
            return b->uses[u];
    }
    return NULL;
}
