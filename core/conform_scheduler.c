/* SPDX-License-Identifier: MIT
 *
 * core/conform_scheduler.c - a property run of a scheduler on a toy engine: requests arrive,
 * KV memory is counted in tokens, every plan is checked, and all must end. What is computed
 * does not matter here, only who gets rows and who gives way.
 */
#define _GNU_SOURCE 1
#include "conform_checks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 60, CTX = PBI_RIG_CTX, MAX_TURNS = 60000, IDLE_TURNS = 2000 };

typedef struct req {
    pb_seq v;
    int32_t tokens[CTX + 8];
    int64_t arrives; /* turn */
    int state, in_step;
} req;

typedef struct toy {
    const pb_sched *sched;
    pbi_rig rig;
    uint64_t rng;
    req r[N];
    const pb_seq *waiting[N], *running[N];
    int32_t n_waiting, n_running, max_draft;
    int64_t kv, turn; /* kv: tokens that memory holds */
    pb_view view;
    pb_err *err;
} toy;

static int wrong(toy *t, const char *fmt, ...) PBI_PRINTF(2, 3);
static int wrong(toy *t, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return pbi_err(t->err, PB_E_PLUGIN, "turn %lld (%d waiting, %d running): %s",
                   (long long)t->turn, t->n_waiting, t->n_running, text);
}

static req *req_of(const pb_seq *s)
{
    return (req *)(void *)s; /* v is the first member */
}

static int64_t below(toy *t, int64_t n)
{
    return pbi_rig_below(&t->rng, n);
}

static int64_t view_match(void *h, const pb_seq *s, int64_t *n_inflight)
{
    (void)h;
    *n_inflight = 0;
    return s->id % 3 ? 0 : (s->n_tokens - 1) / 2;
}

static int64_t kv_used(const toy *t)
{
    int64_t n = 0;
    for (int32_t i = 0; i < t->n_running; i++)
        n += t->running[i]->n_valid;
    return n;
}

static const pb_view *view(toy *t)
{
    t->view = (pb_view){ .size = sizeof(pb_view),
                         .step = (uint64_t)t->turn,
                         .now_ns = t->turn * 1000000,
                         .n_waiting = t->n_waiting,
                         .n_running = t->n_running,
                         .waiting = t->waiting,
                         .running = t->running,
                         .max_rows = PBI_RIG_ROWS,
                         .max_seqs = PBI_RIG_SEQS,
                         .n_slots_free = PBI_RIG_SEQS - t->n_running,
                         .max_draft = t->max_draft,
                         .n_tokens_free = t->kv - kv_used(t),
                         .h = t,
                         .match = view_match };
    return &t->view;
}

/* ---- queues ------------------------------------------------------------ */

static void remove_from(const pb_seq **list, int32_t *n, const pb_seq *s)
{
    int32_t k = 0;
    for (int32_t i = 0; i < *n; i++)
        if (list[i] != s)
            list[k++] = list[i];
    *n = k;
}

/* Waiting sequences are in order of arrival; a preempted one returns to its place. */
static void enqueue(toy *t, req *q)
{
    int32_t at = t->n_waiting;
    q->v.state = PB_SEQ_WAITING;
    q->v.slot = -1;
    q->v.n_valid = 0;
    q->v.n_left = q->v.n_tokens;
    while (at > 0 && t->waiting[at - 1]->id > q->v.id)
        at--;
    memmove(t->waiting + at + 1, t->waiting + at, (size_t)(t->n_waiting - at) * sizeof *t->waiting);
    t->waiting[at] = &q->v;
    t->n_waiting++;
}

static int32_t free_slot(const toy *t)
{
    for (int32_t slot = 0;; slot++) {
        int used = 0;
        for (int32_t i = 0; i < t->n_running; i++)
            used |= t->running[i]->slot == slot;
        if (!used)
            return slot;
    }
}

static void admit(toy *t, req *q)
{
    int64_t inflight;
    remove_from(t->waiting, &t->n_waiting, &q->v);
    q->v.slot = free_slot(t);
    q->v.state = PB_SEQ_RUNNING;
    q->v.n_valid = view_match(t, &q->v, &inflight);
    q->v.n_left = q->v.n_tokens - q->v.n_valid;
    t->running[t->n_running++] = &q->v;
}

/* ---- a turn ------------------------------------------------------------ */

static int is_in(const pb_seq *const *list, int32_t n, const pb_seq *s)
{
    for (int32_t i = 0; i < n; i++)
        if (list[i] == s)
            return 1;
    return 0;
}

static int check_plan(toy *t, const pb_plan *plan, int32_t n)
{
    int64_t rows = 0;
    int32_t fresh = 0;
    for (int32_t i = 0; i < n; i++) {
        const pb_seq *s = plan[i].seq;
        int waits = is_in(t->waiting, t->n_waiting, s);
        if (!waits && !is_in(t->running, t->n_running, s))
            return wrong(t, "entry %d names a sequence that neither waits nor runs", i);
        for (int32_t k = 0; k < i; k++)
            if (plan[k].seq == s)
                return wrong(t, "sequence %llu is planned twice", (unsigned long long)s->id);
        if (plan[i].n_tokens < 1 || plan[i].n_tokens > s->n_left)
            return wrong(t, "sequence %llu: %d tokens planned, %lld are left",
                         (unsigned long long)s->id, plan[i].n_tokens, (long long)s->n_left);
        if (plan[i].n_draft < 0 || plan[i].n_draft > t->max_draft)
            return wrong(t, "sequence %llu: %d drafts planned, at most %d may be",
                         (unsigned long long)s->id, plan[i].n_draft, t->max_draft);
        if (plan[i].n_draft && plan[i].n_tokens != s->n_left)
            return wrong(t, "sequence %llu: drafts before all its tokens are fed",
                         (unsigned long long)s->id);
        rows += plan[i].n_tokens + plan[i].n_draft;
        fresh += waits;
    }
    if (rows > PBI_RIG_ROWS)
        return wrong(t, "%lld rows planned, a step has %d", (long long)rows, PBI_RIG_ROWS);
    if (fresh > PBI_RIG_SEQS - t->n_running)
        return wrong(t, "%d sequences admitted, %d slots are free", fresh,
                     PBI_RIG_SEQS - t->n_running);
    return 0;
}

static int32_t age(const toy *t, const pb_seq *s)
{
    for (int32_t i = 0; i < t->n_running; i++)
        if (t->running[i] == s)
            return i;
    return -1;
}

/* Memory for `need` more tokens of q; victims give way. 1: q waits this turn. */
static int make_room(toy *t, req *q, int64_t need)
{
    while (kv_used(t) + need > t->kv) {
        pbi_rig_at(&t->rig, "victim");
        int32_t i = t->sched->victim(t->rig.self, view(t), &q->v);
        pbi_rig_at(&t->rig, NULL);
        if (i == -1)
            return 1;
        if (i < -1 || i >= t->n_running)
            return wrong(t, "victim() returns %d", i);
        if (i <= age(t, &q->v))
            return wrong(t, "victim() gives sequence %llu, which is not younger than %llu",
                         (unsigned long long)t->running[i]->id, (unsigned long long)q->v.id);
        req *out = req_of(t->running[i]);
        if (out->in_step)
            return wrong(t, "victim() gives sequence %llu, which has rows in this step already",
                         (unsigned long long)out->v.id);
        remove_from(t->running, &t->n_running, &out->v);
        enqueue(t, out);
    }
    return 0;
}

static int run_entry(toy *t, const pb_plan *p)
{
    req *q = req_of(p->seq);
    int32_t n_draft = p->n_draft;
    if (q->v.state == PB_SEQ_WAITING) {
        /* preempted for an older one of this very step: it is not younger than its plan */
        if (t->n_running >= PBI_RIG_SEQS)
            return 0;
        admit(t, q);
    }
    int64_t n = p->n_tokens < q->v.n_left ? p->n_tokens : q->v.n_left;
    if (n < q->v.n_left)
        n_draft = 0;
    int rc = make_room(t, q, n + n_draft);
    if (rc) {
        if (rc > 0 && q->v.n_valid == 0) { /* never got anywhere: back to the queue */
            remove_from(t->running, &t->n_running, &q->v);
            enqueue(t, q);
        }
        return rc < 0 ? rc : 0;
    }
    int64_t kept = n_draft ? below(t, n_draft + 1) : 0;
    int drawn = n == q->v.n_left;
    q->in_step = 1;
    q->v.n_valid += n + kept;
    if (drawn)
        q->v.n_tokens += kept + 1;
    q->v.n_left = q->v.n_tokens - q->v.n_valid;
    return 0;
}

static int one_turn(toy *t, int *progress)
{
    pb_plan plan[PBI_RIG_SEQS + 2];
    memset(plan, 0x7e, sizeof plan);
    pbi_rig_at(&t->rig, "next");
    int32_t n = t->sched->next(t->rig.self, view(t), plan, PBI_RIG_SEQS);
    pbi_rig_at(&t->rig, NULL);
    if (n < 0 || n > PBI_RIG_SEQS)
        return wrong(t, "next() returns %d, cap is %d", n, PBI_RIG_SEQS);
    for (size_t k = 0; k < sizeof *plan * 2; k++)
        if (((unsigned char *)(plan + PBI_RIG_SEQS))[k] != 0x7e)
            return wrong(t, "next() writes past out[cap)");
    int rc = check_plan(t, plan, n);
    *progress = 0;
    for (int32_t i = 0; i < n && !rc; i++)
        rc = run_entry(t, &plan[i]);
    for (int32_t i = 0; i < N; i++) {
        *progress |= t->r[i].in_step;
        t->r[i].in_step = 0;
    }
    for (int32_t i = t->n_running - 1; i >= 0 && !rc; i--) {
        req *q = req_of(t->running[i]);
        if (q->v.n_tokens - q->v.n_prompt >= q->v.max_new || q->v.n_tokens >= CTX ||
            below(t, 300) == 0) {
            remove_from(t->running, &t->n_running, &q->v);
            q->v.state = PB_SEQ_DONE;
        }
    }
    return rc;
}

static void arrive(toy *t)
{
    for (int32_t i = 0; i < N; i++)
        if (t->r[i].v.state == 0 && t->r[i].arrives <= t->turn)
            enqueue(t, &t->r[i]);
}

static void make_requests(toy *t, int spread)
{
    for (int32_t i = 0; i < N; i++) {
        int64_t n = below(t, 4) ? 1 + below(t, 30) : 1 + below(t, 180);
        t->r[i].v = (pb_seq){ .size = sizeof(pb_seq),
                              .id = (uint64_t)i + 1,
                              .cache_key = 1,
                              .slot = -1,
                              .priority = (int32_t)below(t, 3),
                              .tokens = t->r[i].tokens,
                              .n_tokens = n,
                              .n_prompt = n,
                              .max_new = 1 + below(t, 40) };
        t->r[i].arrives = spread ? below(t, 300) : 0;
        t->r[i].v.t_arrival_ns = t->r[i].arrives * 1000000;
    }
}

int pbi_conform_scheduler(const pbi_library *lib, int n_set, const char *const *set, uint64_t seed,
                          pb_err *err)
{
    toy *t = calloc(1, sizeof *t);
    if (!t)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    t->err = err;
    t->rng = seed;
    t->sched = pbi_library_iface(lib, "scheduler/1");
    t->max_draft = (int32_t)(seed % 2 * 3);
    t->kv = CTX + 8 + (int64_t)(seed / 2 % 3) * 200;
    make_requests(t, (int)(seed / 6 % 2));
    int rc = pbi_rig_open(&t->rig, lib, n_set, set, err), done = 0, idle = 0;
    for (t->turn = 1; !rc && done < N; t->turn++) {
        int progress = 0;
        arrive(t);
        rc = one_turn(t, &progress);
        if (rc)
            break;
        if (t->rig.fault[0])
            rc = wrong(t, "%s", t->rig.fault);
        idle = progress || t->n_waiting + t->n_running == 0 ? 0 : idle + 1;
        if (!rc && (idle > IDLE_TURNS || t->turn > MAX_TURNS))
            rc = wrong(t, "nobody got rows for %d turns of 1 ms", idle);
        if (!rc && seed % 5 == 4 && below(t, 20) == 0) { /* amnesia */
            pbi_rig_destroy(&t->rig);
            rc = pbi_rig_create(&t->rig, err);
            if (!rc)
                rc = pbi_rig_start(&t->rig, err);
        }
        done = 0;
        for (int32_t i = 0; i < N; i++)
            done += t->r[i].v.state == PB_SEQ_DONE;
    }
    pb_err e = { 0 };
    if (t->rig.lib && pbi_rig_done(&t->rig, &e) && !rc)
        rc = pbi_err(err, PB_E_PLUGIN, "%s", e.msg);
    free(t);
    return rc;
}

int pbi_check_scheduler(pbi_lint *l)
{
    for (uint64_t k = 0; k < 60; k++) {
        pb_err err = { 0 };
        if (pbi_conform_scheduler(l->lib, 0, NULL, l->seed + k, &err))
            return pbi_say(l, PBI_FAIL, "seed %llu: %s", (unsigned long long)(l->seed + k),
                           err.msg);
    }
    return PBI_PASS;
}
