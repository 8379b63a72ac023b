/* SPDX-License-Identifier: MIT
 *
 * tests/fuzz/fuzz_pipeline.c - swap anything, keep the tokens: random pipelines and requests,
 * each answer compared with that of the plainest pipeline (one sequence at a time, contiguous,
 * no speculation, plenty of memory): ids, reason, logprobs and the hash of all logits.
 *
 * A failure prints a case that is as plain as it can be made and still fails, as a line for
 * PATCHBAY_FUZZ_CASE. Runs PATCHBAY_FUZZ_SECONDS (5), half of them on backend sim, whose tokens
 * depend on every KV word read through the page tables, half on cpu with a small model; there the
 * plain one has one thread and no vector instruction. PATCHBAY_FUZZ_BACKEND takes one of them,
 * PATCHBAY_FUZZ_SEED starts elsewhere.
 */
#define _GNU_SOURCE 1
#include "../unit/fakes.h"
#include "../unit/pipe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Everything about a case; 0 is the plainest value of each. */
enum {
    SEED,
    ATTENTION, /* contiguous, paged, hash, donor */
    SCHEDULER, /* continuous, static, wild: any plan that is valid, chunked */
    SAMPLED,
    SPEC,
    MASK,
    CUT,
    CHUNK,
    PAGE,   /* index into pages */
    SEQS,   /* at once, less one */
    ROWS,   /* index into rows */
    TIGHT,  /* 0: plenty of KV memory, else the least and some */
    GROUPS, /* KV groups, less one */
    WINDOW,
    PREEMPT, /* every so many steps */
    AMNESIA,
    COPY_STEPS,
    RING,
    ABORT,
    ALL_LOGITS,
    EOS,
    LATE, /* requests come over time */
    REQUESTS,
    NEW,     /* tokens to make, at most */
    PROMPT,  /* longest */
    LAX,     /* 1: no checks of steps, no poison: only the tokens tell */
    BACKEND, /* sim, cpu */
    MODEL,   /* of cpu: stored type, activations, KV format */
    ISA,     /* any, auto */
    THREADS,
    N_FIELDS
};
static const char *const names[N_FIELDS] = {
    "seed",   "attention",  "scheduler", "sampled", "spec",       "mask",
    "cut",    "chunk",      "page",      "seqs",    "rows",       "tight",
    "groups", "window",     "preempt",   "amnesia", "copy_steps", "ring",
    "abort",  "all_logits", "eos",       "late",    "requests",   "new",
    "prompt", "lax",        "backend",   "model",   "isa",        "threads",
};
typedef struct fuzz_case {
    int64_t f[N_FIELDS];
} fuzz_case;

enum { MAX_REQ = 12, CTX = 128, VOCAB = 61 };

static const int pages[] = { 16, 1, 2, 3, 4, 8, 32 };
static const int rows[] = { 64, 1, 2, 5, 16, 33 };

/* ---- cases ------------------------------------------------------------ */

static int64_t some(uint64_t *r, int one_in, int32_t n)
{
    return pipe_below(r, one_in) ? 0 : pipe_below(r, n) + 1;
}

static fuzz_case make_case(uint64_t seed, int cpu)
{
    fuzz_case c = { { (int64_t)seed } };
    uint64_t r = seed;
    c.f[ATTENTION] = pipe_below(&r, 5);
    c.f[SCHEDULER] = some(&r, 2, 3);
    c.f[SAMPLED] = pipe_below(&r, 2);
    c.f[SPEC] = some(&r, 2, 6);
    c.f[MASK] = pipe_below(&r, 4) == 0;
    c.f[CUT] = pipe_below(&r, 3) == 0;
    c.f[CHUNK] = some(&r, 2, 9);
    c.f[PAGE] = pipe_below(&r, 7);
    c.f[SEQS] = pipe_below(&r, 6);
    c.f[ROWS] = pipe_below(&r, 6);
    c.f[TIGHT] = some(&r, 2, 6);
    c.f[GROUPS] = pipe_below(&r, 3) == 0;
    c.f[WINDOW] = some(&r, 4, 30);
    c.f[PREEMPT] = some(&r, 3, 5);
    c.f[AMNESIA] = some(&r, 4, 1000);
    c.f[COPY_STEPS] = pipe_below(&r, 2);
    c.f[RING] = some(&r, 3, 4);
    c.f[ABORT] = pipe_below(&r, 3) == 0;
    c.f[ALL_LOGITS] = pipe_below(&r, 4) == 0;
    c.f[EOS] = pipe_below(&r, 2);
    c.f[LATE] = pipe_below(&r, 2);
    c.f[REQUESTS] = pipe_below(&r, MAX_REQ - 1) + 1;
    c.f[NEW] = pipe_below(&r, 40);
    c.f[PROMPT] = pipe_below(&r, 60) + 1;
    c.f[LAX] = pipe_below(&r, 2);
    c.f[BACKEND] = cpu;
    c.f[MODEL] = cpu ? pipe_below(&r, 8) : 0;
    c.f[ISA] = cpu ? pipe_below(&r, 2) : 0;
    if (cpu) { /* steps cost more */
        c.f[REQUESTS] = 1 + c.f[REQUESTS] / 2;
        c.f[NEW] /= 2;
    }
    c.f[THREADS] = cpu ? pipe_below(&r, 3) : 0;
    return c;
}

static void print_case(const fuzz_case *c)
{
    printf("PATCHBAY_FUZZ_CASE='");
    for (int i = 0; i < N_FIELDS; i++)
        if (c->f[i])
            printf("%s=%lld ", names[i], (long long)c->f[i]);
    printf("'\n");
}

static int read_case(const char *text, fuzz_case *c)
{
    char name[32];
    long long v;
    int n;
    memset(c, 0, sizeof *c);
    while (sscanf(text, " %31[a-z_]=%lld%n", name, &v, &n) == 2) {
        int i = 0;
        while (i < N_FIELDS && strcmp(names[i], name))
            i++;
        if (i == N_FIELDS)
            return -1;
        c->f[i] = v;
        text += n;
    }
    return 0;
}

/* ---- a case as a pipeline and requests -------------------------------- */

typedef struct texts {
    char backend[120], attention[80], scheduler[120], sampler[80], spec[80], weights[160];
} texts;

static void on_cpu(const fuzz_case *c, pipe_config *p, texts *t, const char *isa)
{
    static const char *const type[] = { "f32", "q8_0", "q4_1",   "q4_0",
                                        "f16", "q8_0", "q4_k_m", "q4_k_m" };
    int64_t m = c->f[MODEL];
    snprintf(t->weights, sizeof t->weights,
             "synthetic layers=2 width=64 heads=4 kv_heads=2 ffn=%d vocab=%d context=%d type=%s",
             m < 6 ? 96 : 256, VOCAB, CTX, type[m]);
    snprintf(t->backend, sizeof t->backend, "cpu isa=%s kv=%s activations=%s verify=off", isa,
             m % 2 ? "f16" : "f32", m == 5 || m == 7 ? "f32" : "q8");
    p->weights = t->weights;
}

static void common(const fuzz_case *c, pipe_config *p, texts *t)
{
    *p = pipe_default();
    p->fakes = fakes;
    p->n_vocab = VOCAB;
    p->max_ctx = CTX;
    p->n_groups = 1 + (int32_t)c->f[GROUPS];
    p->window = (int32_t)c->f[WINDOW];
    p->sampler = c->f[SAMPLED] ? "chain temperature=1 top_k=20 repeat_penalty=1.2" : "greedy";
    p->constraint[0] = c->f[MASK] ? "@mask" : NULL;
    p->output[0] = c->f[CUT] ? "@cut" : NULL;
    snprintf(t->backend, sizeof t->backend, "sim echo=0.7");
    if (c->f[BACKEND])
        on_cpu(c, p, t, "any");
    p->backend = t->backend;
}

static void plainest(const fuzz_case *c, pipe_config *p, texts *t)
{
    common(c, p, t);
    p->max_seqs = 1;
    p->max_rows = CTX;
    p->kv_tokens = 4 * CTX;
}

static void fuzzed(const fuzz_case *c, pipe_config *p, texts *t)
{
    static const char *const att[] = { "contiguous", "paged", "hash", "@donor", "radix" };
    static const char *const policy[] = { "fcfs", "lpm", "priority", "shortest" };
    static const char *const victim[] = { "youngest", "largest", "lowest" };
    int page = pages[c->f[PAGE]], n = (int)c->f[SEQS] + 1;
    if (c->f[BACKEND]) /* the granule of its KV formats */
        page = 16 * (1 + (int)c->f[PAGE] % 3);
    common(c, p, t);
    p->max_seqs = n;
    p->threads = (int32_t)c->f[THREADS] + 1;
    if (c->f[BACKEND])
        on_cpu(c, p, t, c->f[ISA] ? "auto" : "any");
    p->max_rows = rows[c->f[ROWS]];
    p->kv_tokens = (int64_t)(n + 2) * (CTX + 2 * page);
    if (c->f[TIGHT]) /* one sequence fits, and a bit of another */
        p->kv_tokens = (CTX + page - 1) / page * page + page * c->f[TIGHT] * 2;
    snprintf(t->attention, sizeof t->attention, "%s page_size=%d", att[c->f[ATTENTION]], page);
    if (!c->f[ATTENTION]) {
        strcpy(t->attention, "contiguous");
        p->kv_tokens = (int64_t)(c->f[TIGHT] ? 2 : n + 1) * CTX;
    }
    p->attention = t->attention;
    snprintf(t->scheduler, sizeof t->scheduler, "continuous chunk=%d", (int)c->f[CHUNK]);
    if (c->f[SCHEDULER] == 1)
        snprintf(t->scheduler, sizeof t->scheduler, "static batch=%d", n);
    if (c->f[SCHEDULER] == 2)
        snprintf(t->scheduler, sizeof t->scheduler, "@sched wild=%d", (int)c->f[CHUNK] + 1);
    if (c->f[SCHEDULER] == 3)
        snprintf(t->scheduler, sizeof t->scheduler,
                 "chunked budget=%d patience_ms=%d policy=%s victim=%s", (int)c->f[CHUNK] + 1,
                 (int)(c->f[SEED] % 2), policy[c->f[SEED] % 4], victim[c->f[SEED] % 3]);
    p->scheduler = t->scheduler;
    if (c->f[SPEC]) {
        snprintf(t->spec, sizeof t->spec, "ngram min_n=1 max_draft=%d", (int)c->f[SPEC]);
        p->spec = t->spec;
    }
    p->preempt_every = (int32_t)(c->f[PREEMPT] ? c->f[PREEMPT] + 1 : 0);
    p->amnesia = (uint64_t)c->f[AMNESIA];
    p->copy_steps = (int32_t)c->f[COPY_STEPS];
    p->ring = (int32_t)c->f[RING];
    p->paranoid = !c->f[LAX];
}

static int32_t ids_of[MAX_REQ][CTX + 8];

/* Prompts share beginnings; some are empty, too long or hold an id that is none. */
static int make_requests(const fuzz_case *c, pipe_request *q)
{
    uint64_t r = (uint64_t)c->f[SEED] * 77 + 5;
    int n = (int)c->f[REQUESTS];
    for (int i = 0; i < n; i++) {
        uint64_t base = 1000 + (uint64_t)pipe_below(&r, 2);
        int32_t len = pipe_below(&r, (int32_t)c->f[PROMPT] + 1) + (pipe_below(&r, 20) > 0);
        int32_t same = pipe_below(&r, len + 1);
        q[i] = pipe_request_default();
        if (pipe_below(&r, 40) == 0)
            len = CTX - 2 + pipe_below(&r, 5);
        for (int32_t k = 0; k < len; k++) {
            uint64_t *from = k < same ? &base : &r;
            ids_of[i][k] = pipe_below(from, VOCAB);
        }
        if (pipe_below(&r, 40) == 0 && len)
            ids_of[i][len / 2] = VOCAB;
        q[i].ids = ids_of[i];
        q[i].n = len;
        q[i].max_new = pipe_below(&r, (int32_t)c->f[NEW] + 1);
        if (pipe_below(&r, 30) == 0)
            q[i].max_new = -1;
        q[i].salt = pipe_below(&r, 8) == 0;
        q[i].params.seed = (uint64_t)pipe_below(&r, 3);
        q[i].params.has_seed = 1;
        q[i].priority = pipe_below(&r, 3);
        q[i].params.n_logprobs = pipe_below(&r, 3) ? -1 : 0;
        if (c->f[ALL_LOGITS] && pipe_below(&r, 2))
            q[i].flags |= PBI_SUBMIT_ALL_LOGITS;
        if (c->f[EOS]) {
            q[i].n_eos = 2;
            q[i].eos[0] = 3;
            q[i].eos[1] = 11;
        }
        q[i].at_turn = pipe_below(&r, 30) * (c->f[LATE] != 0);
        if (c->f[ABORT] && pipe_below(&r, 3) == 0)
            q[i].abort_after = pipe_below(&r, 20);
    }
    return n;
}

/* ---- comparison ------------------------------------------------------- */

static int differ(int i, const pipe_request *q, const pipe_answer *want, const pipe_answer *got,
                  char *why, size_t n)
{
    int aborted = got->reason == PBI_DONE_ABORT && q->abort_after >= 0;
    if (!aborted && got->reason != want->reason)
        return snprintf(why, n, "request %d ended with %s (%s), not %s (%s)", i,
                        pbi_done_name(got->reason), got->err.msg, pbi_done_name(want->reason),
                        want->err.msg);
    if (aborted ? got->n > want->n : got->n != want->n)
        return snprintf(why, n, "request %d has %lld tokens, not %lld", i, (long long)got->n,
                        (long long)want->n);
    for (int64_t k = 0; k < got->n; k++) {
        if (got->ids[k] != want->ids[k])
            return snprintf(why, n, "request %d: token %lld is %d, not %d", i, (long long)k,
                            got->ids[k], want->ids[k]);
        if (memcmp(&got->logprobs[k], &want->logprobs[k], sizeof(float)))
            return snprintf(why, n, "request %d: logprob %lld is %.9g, not %.9g", i, (long long)k,
                            (double)got->logprobs[k], (double)want->logprobs[k]);
    }
    if (!aborted && got->hash != want->hash)
        return snprintf(why, n, "request %d: logits hash of %lld tokens is %016llx, not %016llx", i,
                        (long long)got->n, (unsigned long long)got->hash,
                        (unsigned long long)want->hash);
    return 0;
}

typedef struct totals {
    int64_t cases, requests, tokens, preempted, accepted, copies, cached;
} totals;
static totals tot;

static void count(pipe_t *p, int n)
{
    pbi_engine_stats s;
    pbi_engine_get_stats(pipe_engine(p), &s);
    tot.cases++;
    tot.requests += n;
    tot.tokens += s.n_out_tokens;
    tot.preempted += s.n_preempted;
    tot.accepted += s.n_accepted;
    tot.copies += s.n_copies;
    tot.cached += s.n_cached_tokens;
}

static int run_pipe(const pipe_config *c, int n, const pipe_request *q, pipe_answer *a, int alone,
                    pb_err *err)
{
    pipe_t *p = NULL;
    int rc = pipe_open(c, &p, err);
    for (int i = 0; alone && i < n && !rc; i++) {
        pipe_request one = q[i];
        one.at_turn = 0;
        one.abort_after = -1;
        rc = pipe_run(p, 1, &one, &a[i], err);
    }
    if (!rc && !alone)
        rc = pipe_run(p, n, q, a, err);
    if (!rc && !alone)
        count(p, n);
    pipe_close(p);
    return rc;
}

/* 0: equal; 1: why says what differs */
static int run_case(const fuzz_case *c, char *why, size_t n_why)
{
    pipe_request q[MAX_REQ];
    pipe_answer want[MAX_REQ] = { { 0 } }, got[MAX_REQ] = { { 0 } };
    pipe_config plain, other;
    texts t1, t2;
    pb_err err = { 0 };
    int n = make_requests(c, q), bad = 0;
    plainest(c, &plain, &t1);
    fuzzed(c, &other, &t2);
    if (run_pipe(&plain, n, q, want, 1, &err))
        bad = snprintf(why, n_why, "the plain pipeline: %s", err.msg);
    else if (run_pipe(&other, n, q, got, 0, &err))
        bad = snprintf(why, n_why, "%s", err.msg);
    for (int i = 0; i < n && !bad; i++)
        bad = differ(i, &q[i], &want[i], &got[i], why, n_why);
    pipe_answers_free(want, n);
    pipe_answers_free(got, n);
    return bad != 0;
}

/* ---- shrinking -------------------------------------------------------- */

/* Makes each field as plain as the failure allows, several times over. */
static void shrink(fuzz_case *c, char *why, size_t n)
{
    char w[600];
    for (int pass = 0, better = 1; better && pass < 6; pass++) {
        better = 0;
        for (int i = 1; i < N_FIELDS; i++)
            for (int64_t v = i == REQUESTS || i == PROMPT; v < c->f[i];
                 v = v ? v + (c->f[i] - v + 1) / 2 : (c->f[i] > 1 ? 1 : c->f[i])) {
                fuzz_case t = *c;
                t.f[i] = v;
                if (run_case(&t, w, sizeof w)) {
                    *c = t;
                    snprintf(why, n, "%s", w);
                    better = 1;
                    break;
                }
            }
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int fail(fuzz_case c, char *why, size_t n, int small)
{
    printf("FAIL: %s\n", why);
    print_case(&c);
    if (!small) {
        shrink(&c, why, n);
        printf("shrunk: %s\n", why);
        print_case(&c);
    }
    return 1;
}

int main(void)
{
    const char *s = getenv("PATCHBAY_FUZZ_SECONDS"), *one = getenv("PATCHBAY_FUZZ_CASE");
    const char *from = getenv("PATCHBAY_FUZZ_SEED");
    const char *which = getenv("PATCHBAY_FUZZ_BACKEND");
    double limit = s ? atof(s) : 5, t0 = now(), spent[2] = { 0, 0 };
    int64_t n_cpu = 0;
    uint64_t seed = from ? strtoull(from, NULL, 10) : 1;
    char why[600];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (one) {
        fuzz_case c;
        if (read_case(one, &c)) {
            printf("PATCHBAY_FUZZ_CASE names an unknown field\n");
            return 2;
        }
        return run_case(&c, why, sizeof why) ? fail(c, why, sizeof why, 1) : 0;
    }
    for (; now() - t0 < limit; seed++) { /* half of the time on each backend */
        int cpu = which ? !strcmp(which, "cpu") : spent[1] < spent[0];
        fuzz_case c = make_case(seed, cpu);
        double begin = now();
        if (run_case(&c, why, sizeof why))
            return fail(c, why, sizeof why, 0);
        spent[cpu] += now() - begin;
        n_cpu += cpu;
    }
    printf("%lld cases (%lld on cpu), %lld requests, %lld tokens: %lld preempted, %lld drafts "
           "accepted, %lld "
           "copies, %lld cached tokens\n",
           (long long)tot.cases, (long long)n_cpu, (long long)tot.requests, (long long)tot.tokens,
           (long long)tot.preempted, (long long)tot.accepted, (long long)tot.copies,
           (long long)tot.cached);
    if (tot.cases > 300 && !(tot.preempted && tot.accepted && tot.copies && tot.cached)) {
        printf("FAIL: a feature was never engaged\n");
        return 1;
    }
    return 0;
}
