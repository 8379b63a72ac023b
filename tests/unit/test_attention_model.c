/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_attention_model.c - attention plugins against an integer oracle.
 *
 * A small engine without numerics: sequences arrive, share beginnings, run in ragged steps, are
 * drafted for, cut, preempted, aborted, failed and swapped, on the core's page pool. Each KV
 * token is one word, the hash of all tokens up to it; before a step reads, every word that its
 * sequence should find is looked for where the plugin's table points. Each case is one seed;
 * a failure prints it. Run one: PATCHBAY_SEED=n PATCHBAY_ATTENTION=hash test_attention_model.
 *
 * The last tests plant faults - a copy left out, a page committed before it is full, a page freed
 * too early - and ask that the same cases find them.
 */
#include "pages.h"
#include "plug.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CTX = 96, MAX_SEQS = 8, MAX_TOTAL = 40, MAX_DRAFT = 6, N_HEADS = 6, POISON = 0 };
enum { NO_FAULT, NO_COPY, EARLY_COMMIT, EARLY_UNREF, N_FAULTS };

typedef struct seq {
    pb_seq s;
    int32_t tokens[MAX_CTX + MAX_DRAFT + 1];
    int64_t final; /* n_tokens at which it ends */
    int32_t drafts, feed, pages_before[MAX_CTX];
    int in_step, admitted, head;
} seq;

typedef struct world {
    uint64_t rnd;
    plug p;
    const pb_attention *v;
    pbi_pages *pool;
    pb_pages service; /* the pool's, or with a fault planted */
    int fault, roomy; /* roomy: nothing is ever evicted */
    int32_t n_groups, n_pages, page_tokens, max_seqs, max_ctx, alphabet;
    uint64_t *kv[2]; /* [n_pages][page_tokens] */
    pb_kv_group group[2];
    pb_kv_plan plan[2];
    int64_t budget;
    seq seqs[MAX_TOTAL];
    int32_t n_total, n_arrived;
    seq *waiting[MAX_TOTAL], *running[MAX_TOTAL];
    int32_t n_waiting, n_running, slot_used[MAX_SEQS];
    int32_t heads[N_HEADS][MAX_CTX];
    int64_t n_steps, n_preempted, n_drafts, n_cached, n_full, n_copied;
    char why[400];
} world;

typedef struct totals {
    int64_t cases, steps, preempted, drafts, cached, full, copied, evicted, collisions;
} totals;

static int wrong(world *w, const char *fmt, ...) PBI_PRINTF(2, 3);
static int wrong(world *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!w->why[0])
        vsnprintf(w->why, sizeof w->why, fmt, ap);
    va_end(ap);
    return -1;
}

static int below(world *w, int32_t n)
{
    return plug_below(&w->rnd, n);
}

/* ---- what KV should hold ------------------------------------------------- */

static uint64_t word(uint64_t before, int32_t token)
{
    uint64_t x = before ^ ((uint64_t)(uint32_t)token + 1) * 0x9e3779b97f4a7c15ull;
    x = plug_random(&x);
    return x == POISON ? 1 : x;
}

/* words[k] of position k, [0, n) */
static void expected(const seq *q, int64_t n, uint64_t *words)
{
    uint64_t h = q->s.cache_key * 77 + 5;
    for (int64_t k = 0; k < n; k++)
        words[k] = h = word(h, q->tokens[k]);
}

static int poison(void *arg, int32_t g, pb_page page)
{
    world *w = arg;
    memset(w->kv[g] + (size_t)page * (size_t)w->plan[g].page_tokens, POISON,
           (size_t)w->plan[g].page_tokens * sizeof(uint64_t));
    return 0;
}

/* ---- planted faults --------------------------------------------------------- */

static void copy_not(void *h, int32_t g, pb_page src, pb_page dst, int32_t n)
{
}

static void unref_twice(void *h, int32_t g, pb_page p)
{
    world *w = h;
    const pb_pages *real = pbi_pages_service(w->pool);
    if (real->refs(real->h, g, p) == 2 && w->n_steps % 7 == 0)
        real->unref(real->h, g, p);
    real->unref(real->h, g, p);
}

static int fw_take(void *h, int32_t g, int32_t n, pb_page *out)
{
    const pb_pages *r = pbi_pages_service(((world *)h)->pool);
    return r->take(r->h, g, n, out);
}
static void fw_ref(void *h, int32_t g, pb_page p)
{
    const pb_pages *r = pbi_pages_service(((world *)h)->pool);
    r->ref(r->h, g, p);
}
static int32_t fw_refs(void *h, int32_t g, pb_page p)
{
    const pb_pages *r = pbi_pages_service(((world *)h)->pool);
    return r->refs(r->h, g, p);
}
static int32_t fw_free(void *h, int32_t g)
{
    const pb_pages *r = pbi_pages_service(((world *)h)->pool);
    return r->n_free(r->h, g);
}
static void fw_copy(void *h, int32_t g, pb_page src, pb_page dst, int32_t n)
{
    const pb_pages *r = pbi_pages_service(((world *)h)->pool);
    r->copy(r->h, g, src, dst, n);
}

static void plant(world *w)
{
    w->service = *pbi_pages_service(w->pool);
    if (w->fault == NO_COPY)
        w->service.copy = copy_not;
    if (w->fault == EARLY_UNREF)
        w->service = (pb_pages){ .size = sizeof(pb_pages),
                                 .h = w,
                                 .take = fw_take,
                                 .ref = fw_ref,
                                 .unref = unref_twice,
                                 .refs = fw_refs,
                                 .n_free = fw_free,
                                 .copy = fw_copy };
}

/* ---- checks ------------------------------------------------------------------ */

static int pool_ok(world *w, const char *after)
{
    pb_err err = { 0 };
    if (pbi_pages_fault(w->pool, &err))
        return wrong(w, "after %s: %s", after, err.msg);
    return 0;
}

static int check_plugin(world *w)
{
    pb_err err = { 0 };
    if (w->v->check(plug_self(&w->p), &err))
        return wrong(w, "check: %s", err.msg);
    for (int32_t g = 0; g < w->n_groups && w->n_running == 0; g++) {
        int32_t n = pbi_pages_n_free(w->pool, g) + w->v->idle(plug_self(&w->p), g);
        if (n != w->plan[g].n_pages - 1)
            return wrong(w, "nothing runs, yet group %d has %d pages free or idle of %d", g, n,
                         w->plan[g].n_pages - 1);
    }
    return 0;
}

/* All that s should find in the cache is there: words [0, n_valid), through the table. */
static int check_kv(world *w, const seq *q)
{
    uint64_t want[MAX_CTX + MAX_DRAFT];
    pb_page table[MAX_CTX];
    expected(q, q->s.n_valid, want);
    for (int32_t g = 0; g < w->n_groups; g++) {
        int32_t pt = w->plan[g].page_tokens;
        int32_t n = w->v->table(plug_self(&w->p), &q->s, g, table, MAX_CTX);
        if ((int64_t)n * pt < q->s.n_valid + q->feed + q->drafts)
            return wrong(w, "seq %d: table of %d pages for %d tokens", (int)q->s.id, n,
                         (int)(q->s.n_valid + q->feed + q->drafts));
        for (int64_t k = 0; k < q->s.n_valid; k++) {
            uint64_t have = w->kv[g][(size_t)table[k / pt] * (size_t)pt + (size_t)(k % pt)];
            if (have != want[k])
                return wrong(w, "seq %d: position %d of %d, group %d, page %d: %s KV", (int)q->s.id,
                             (int)k, (int)q->s.n_valid, g, table[k / pt],
                             have == POISON ? "poisoned" : "wrong");
        }
    }
    return 0;
}

static int write_kv(world *w, const seq *q)
{
    uint64_t have[MAX_CTX + MAX_DRAFT];
    pb_page table[MAX_CTX];
    int64_t end = q->s.n_valid + q->feed + q->drafts;
    expected(q, end, have);
    for (int32_t g = 0; g < w->n_groups; g++) {
        int32_t pt = w->plan[g].page_tokens;
        w->v->table(plug_self(&w->p), &q->s, g, table, MAX_CTX);
        for (int64_t k = q->s.n_valid; k < end; k++) {
            pb_page p = table[k / pt];
            if (pbi_pages_refs(w->pool, g, p) != 1)
                return wrong(w,
                             "seq %d: position %d is written to page %d, which has %d references",
                             (int)q->s.id, (int)k, p, pbi_pages_refs(w->pool, g, p));
            w->kv[g][(size_t)p * (size_t)pt + (size_t)(k % pt)] = have[k];
        }
    }
    return 0;
}

/* A token at position k: mostly its head's, so that texts that went apart look alike again. */
static int32_t draw(world *w, const seq *q, int64_t k)
{
    return below(w, 8) && k < MAX_CTX ? w->heads[q->head][k] : below(w, w->alphabet);
}

/* ---- queues -------------------------------------------------------------------- */

static void take_out(seq **list, int32_t *n, const seq *q)
{
    int32_t m = 0;
    for (int32_t i = 0; i < *n; i++)
        if (list[i] != q)
            list[m++] = list[i];
    *n = m;
}

static void arrive(world *w)
{
    seq *q = &w->seqs[w->n_arrived++];
    int32_t n = 1 + below(w, w->max_ctx - 1);
    int32_t head = below(w, N_HEADS), own = below(w, 3) == 0 ? n : below(w, 8);
    q->s = (pb_seq){ .size = sizeof q->s,
                     .id = (uint64_t)w->n_arrived,
                     .cache_key = 100 + (uint64_t)(below(w, 4) == 0),
                     .slot = -1,
                     .state = PB_SEQ_WAITING,
                     .flags = below(w, 12) == 0 ? PB_SEQ_ALL_LOGITS : 0,
                     .tokens = q->tokens,
                     .n_tokens = n,
                     .n_prompt = n,
                     .n_left = n,
                     .max_new = w->max_ctx };
    for (int32_t k = 0; k < n; k++)
        q->tokens[k] = k < n - own ? w->heads[head][k] : below(w, w->alphabet);
    q->head = head;
    q->final = n + below(w, w->max_ctx - n + 1);
    w->waiting[w->n_waiting++] = q;
}

/* Back to the queue, by arrival. */
static void to_waiting(world *w, seq *q)
{
    int32_t i = w->n_waiting++;
    while (i > 0 && w->waiting[i - 1]->s.id > q->s.id) {
        w->waiting[i] = w->waiting[i - 1];
        i--;
    }
    w->waiting[i] = q;
    q->s.state = PB_SEQ_WAITING;
}

static int leave(world *w, seq *q, int32_t why)
{
    w->v->release(plug_self(&w->p), &q->s, why);
    if (below(w, 4) == 0)
        w->v->release(plug_self(&w->p), &q->s, why);
    w->slot_used[q->s.slot] = 0;
    take_out(w->running, &w->n_running, q);
    q->s.slot = -1;
    q->s.n_valid = 0;
    q->s.n_left = q->s.n_tokens;
    q->in_step = 0;
    if (below(w, 4) == 0)
        w->v->release(plug_self(&w->p), &q->s, why);
    if (why == PB_REL_PREEMPTED || why == PB_REL_SWAPPED)
        to_waiting(w, q);
    else
        q->s.state = PB_SEQ_DONE;
    return pool_ok(w, "release");
}

static int admit(world *w)
{
    seq *q = w->waiting[0];
    int64_t in_flight = 0;
    int64_t m = w->v->match(plug_self(&w->p), &q->s, &in_flight);
    if (m != w->v->match(plug_self(&w->p), &q->s, &in_flight))
        return wrong(w, "match is not pure");
    for (int32_t i = 0; i < w->max_seqs; i++)
        if (!w->slot_used[i])
            q->s.slot = i;
    w->slot_used[q->s.slot] = 1;
    take_out(w->waiting, &w->n_waiting, q);
    w->running[w->n_running++] = q;
    q->s.state = PB_SEQ_RUNNING;
    int64_t n = w->v->attach(plug_self(&w->p), &q->s);
    if (n != m)
        return wrong(w, "seq %d: match said %d, attach %d", (int)q->s.id, (int)m, (int)n);
    if (n < 0 || n > q->s.n_tokens - 1 || (n > 0 && q->s.flags & PB_SEQ_ALL_LOGITS))
        return wrong(w, "seq %d: attach says %d of %d tokens", (int)q->s.id, (int)n,
                     (int)q->s.n_tokens);
    q->s.n_valid = n;
    q->s.n_left = q->s.n_tokens - n;
    q->admitted = 1;
    w->n_cached += n;
    return pool_ok(w, "attach");
}

/* ---- a step ---------------------------------------------------------------------- */

/* reserve, and if it says full, that nothing changed */
static int reserve(world *w, seq *q, int64_t end)
{
    pb_page before[2][MAX_CTX], after[MAX_CTX];
    int32_t n[2], room[2], pinned = 0;
    pbi_pages_copies(w->pool, &pinned);
    for (int32_t g = 0; g < w->n_groups; g++) {
        n[g] = w->v->table(plug_self(&w->p), &q->s, g, before[g], MAX_CTX);
        room[g] = pbi_pages_n_free(w->pool, g) + w->v->idle(plug_self(&w->p), g);
    }
    int rc = w->v->reserve(plug_self(&w->p), &q->s, end);
    if (rc != PB_E_FULL)
        return rc ? wrong(w, "seq %d: reserve(%d) said %d", (int)q->s.id, (int)end, rc) : 0;
    w->n_full++;
    for (int32_t g = 0; g < w->n_groups; g++) {
        int32_t m = w->v->table(plug_self(&w->p), &q->s, g, after, MAX_CTX);
        if (m != n[g] || memcmp(before[g], after, (size_t)m * sizeof *after) != 0)
            return wrong(w, "seq %d: reserve said full and changed the table", (int)q->s.id);
        int32_t pt = w->plan[g].page_tokens, need = (int32_t)((end + pt - 1) / pt) - n[g];
        for (int64_t i = q->s.n_valid / pt; i < n[g] && i * pt < end; i++)
            need += pbi_pages_refs(w->pool, g, before[g][i]) > 1;
        if (pinned == 0 && !q->admitted && room[g] >= need && n[g] * pt < end)
            return wrong(w, "seq %d: reserve said full, with room for %d pages and %d needed",
                         (int)q->s.id, room[g], need);
        /* the source of a queued copy may be evicted in vain: it is free after the step */
        if (pinned == 0 &&
            room[g] != pbi_pages_n_free(w->pool, g) + w->v->idle(plug_self(&w->p), g))
            return wrong(w, "seq %d: reserve said full and changed the pool", (int)q->s.id);
    }
    return PB_E_FULL;
}

static seq *youngest_after(world *w, const seq *q)
{
    for (int32_t i = w->n_running - 1; i >= 0 && w->running[i] != q; i--)
        if (!w->running[i]->in_step)
            return w->running[i];
    return NULL;
}

static int join_step(world *w, seq *q, int first)
{
    int rc;
    q->feed = 1 + below(w, (int32_t)q->s.n_left);
    q->drafts = 0;
    if (q->feed == q->s.n_left && q->s.n_tokens < q->final) {
        int32_t most = w->max_ctx - (int32_t)q->s.n_tokens;
        q->drafts = below(w, 1 + (most < MAX_DRAFT ? most : MAX_DRAFT));
        for (int32_t i = 0; i < q->drafts; i++)
            q->tokens[q->s.n_tokens + i] = draw(w, q, q->s.n_tokens + i);
        w->n_drafts += q->drafts;
    }
    while ((rc = reserve(w, q, q->s.n_valid + q->feed + q->drafts)) == PB_E_FULL) {
        seq *victim = q->admitted ? NULL : youngest_after(w, q);
        int32_t pinned = 0;
        pbi_pages_copies(w->pool, &pinned);
        if (victim) {
            w->n_preempted++;
            if (leave(w, victim, PB_REL_PREEMPTED))
                return -1;
        } else if (q->admitted && w->n_running > 1) {
            return leave(w, q, PB_REL_PREEMPTED);
        } else if (first && pinned == 0) {
            return wrong(w, "seq %d: the oldest cannot go on: %d pages free, %d idle", (int)q->s.id,
                         pbi_pages_n_free(w->pool, 0), w->v->idle(plug_self(&w->p), 0));
        } else {
            return 0;
        }
    }
    if (rc)
        return rc;
    q->admitted = 0;
    q->in_step = 1;
    return pool_ok(w, "reserve");
}

static void run_copies(world *w)
{
    int32_t n;
    const pb_copy *c = pbi_pages_copies(w->pool, &n);
    w->n_copied += n;
    for (int32_t i = 0; i < n; i++) {
        size_t pt = (size_t)w->plan[c[i].group].page_tokens;
        uint64_t *kv = w->kv[c[i].group];
        memcpy(kv + (size_t)c[i].dst * pt, kv + (size_t)c[i].src * pt,
               (size_t)c[i].n_tokens * sizeof *kv);
    }
}

/* Verification: some drafts are accepted, then one token is drawn. */
static int advance(world *w, seq *q)
{
    int64_t n = q->s.n_valid + q->feed;
    int draws = n == q->s.n_tokens;
    int32_t accepted = q->drafts > 0 ? below(w, q->drafts + 1) : 0;
    n += accepted;
    if (draws) {
        q->s.n_tokens += accepted;
        if (q->s.n_tokens > q->final)
            q->s.n_tokens = q->final;
        if (n > q->s.n_tokens)
            n = q->s.n_tokens;
    }
    /* n_valid is still the old one while commit and truncate are called, then it is set */
    int64_t told = n;
    if (w->fault == EARLY_COMMIT &&
        (told += w->page_tokens - 1 - (n - 1) % w->page_tokens) > q->s.n_tokens)
        told = n;
    w->v->commit(plug_self(&w->p), &q->s, told);
    if (pool_ok(w, "commit"))
        return -1;
    q->s.n_valid = n;
    if (q->drafts > 0)
        w->v->truncate(plug_self(&w->p), &q->s, n);
    if (draws && q->s.n_tokens < q->final)
        q->tokens[q->s.n_tokens] = draw(w, q, q->s.n_tokens), q->s.n_tokens++;
    else if (draws)
        q->final = 0;
    q->s.n_left = q->s.n_tokens - q->s.n_valid;
    q->in_step = q->feed = q->drafts = 0;
    return pool_ok(w, "truncate");
}

/* The last tokens are taken back and others come in their place. */
static int cut(world *w, seq *q)
{
    int64_t n = 1 + below(w, (int32_t)q->s.n_tokens);
    if (n >= q->s.n_tokens)
        return 0;
    q->s.n_tokens = n;
    q->s.n_prompt = n < q->s.n_prompt ? n : q->s.n_prompt;
    if (q->s.n_valid > n - 1)
        q->s.n_valid = n - 1;
    w->v->truncate(plug_self(&w->p), &q->s, q->s.n_valid);
    q->tokens[n - 1] = below(w, w->alphabet);
    q->s.n_left = n - q->s.n_valid;
    return pool_ok(w, "truncate");
}

static int32_t budget_pages(world *w, int64_t budget, pb_err *err)
{
    if (w->v->plan(plug_self(&w->p), w->n_groups, w->group, budget, w->max_ctx, w->plan, err))
        return -1;
    return w->plan[0].n_pages;
}

static int swap(world *w)
{
    pb_err err = { 0 };
    while (w->n_running > 0)
        if (leave(w, w->running[w->n_running - 1], PB_REL_SWAPPED))
            return -1;
    if (pbi_instance_renew(w->p.in, &err))
        return wrong(w, "renew: %s", err.msg);
    pbi_pages_clear(w->pool);
    if (budget_pages(w, w->budget, &err) < 0)
        return wrong(w, "plan: %s", err.msg);
    return 0;
}

static int one_step(world *w)
{
    while (w->n_arrived < w->n_total && below(w, 3) == 0)
        arrive(w);
    while (w->n_waiting > 0 && w->n_running < w->max_seqs && (w->n_running == 0 || below(w, 2)))
        if (admit(w))
            return -1;
    for (int32_t i = 0; i < w->n_running; i++)
        if ((i == 0 || below(w, 5)) && join_step(w, w->running[i], i == 0))
            return -1;
    run_copies(w);
    for (int32_t i = 0; i < w->n_running; i++)
        if (w->running[i]->in_step && check_kv(w, w->running[i]))
            return -1;
    for (int32_t i = 0; i < w->n_running; i++)
        if (w->running[i]->in_step && write_kv(w, w->running[i]))
            return -1;
    pbi_pages_step_done(w->pool);
    w->n_steps++;
    int failed = below(w, 40) == 0;
    for (int32_t i = w->n_running - 1; i >= 0; i--) {
        seq *q = w->running[i];
        if (q->in_step &&
            (failed ? leave(w, q, below(w, 2) ? PB_REL_FAILED : PB_REL_PREEMPTED) : advance(w, q)))
            return -1;
    }
    for (int32_t i = w->n_running - 1; i >= 0; i--) {
        seq *q = w->running[i];
        int done = q->final == 0 && q->s.n_left == 0;
        if ((done || below(w, 60) == 0) && leave(w, q, done ? PB_REL_FINISHED : PB_REL_ABORTED))
            return -1;
        if (q->s.slot >= 0 && below(w, 50) == 0 && cut(w, q))
            return -1;
    }
    if (below(w, 100) == 0 && swap(w))
        return -1;
    return below(w, 8) == 0 || w->n_running == 0 || w->fault ? check_plugin(w) : 0;
}

/* ---- a case ------------------------------------------------------------------------ */

static void setup(world *w, const char *name)
{
    char text[4][40];
    const char *opt[5] = { NULL };
    int n = 0;
    pb_err err = { 0 };
    w->page_tokens = 1 + below(w, 16);
    w->max_ctx = 8 + below(w, MAX_CTX - 8);
    w->max_seqs = 1 + below(w, MAX_SEQS);
    w->n_groups = 1 + (below(w, 3) == 0);
    w->n_total = 6 + below(w, MAX_TOTAL - 6);
    w->alphabet = below(w, 2) ? 2 : 50;
    for (int32_t i = 0; i < N_HEADS; i++)
        for (int32_t k = 0; k < MAX_CTX; k++)
            w->heads[i][k] = i > 0 && k < 10 * i ? w->heads[0][k] : below(w, w->alphabet);
    if (strcmp(name, "contiguous") != 0) {
        snprintf(text[0], sizeof text[0], "page_size=%d", w->page_tokens);
        snprintf(text[1], sizeof text[1], "watermark=%s", below(w, 2) ? "0" : "0.1");
        opt[n++] = text[0];
        opt[n++] = text[1];
    }
    if (strcmp(name, "hash") == 0) {
        snprintf(text[2], sizeof text[2], "hash_bits=%d", below(w, 3) ? 64 : 1 + below(w, 6));
        opt[n++] = text[2];
    }
    if (strcmp(name, "radix") == 0) {
        static const char *const evict[] = { "lru", "lfu", "fifo" };
        snprintf(text[2], sizeof text[2], "evict=%s", evict[below(w, 3)]);
        opt[n++] = text[2];
    }
    for (int32_t g = 0; g < w->n_groups; g++)
        w->group[g] = (pb_kv_group){ .size = sizeof(pb_kv_group),
                                     .kind = PB_KV_GQA,
                                     .n_layers = 1 + g,
                                     .granule = 1,
                                     .token_bytes = 8 * (1 + g) };
    pbi_services svc = { 0 };
    pb_run run = { .size = sizeof run,
                   .max_seqs = w->max_seqs,
                   .max_rows = 256,
                   .max_ctx = w->max_ctx,
                   .n_vocab = 64 };
    if (pbi_pages_new(name, &w->pool, &err))
        fail_msg("%s", err.msg);
    plant(w);
    svc.pages = &w->service;
    plug_open(&w->p, "attention", name, opt, &svc, &run);
    w->v = w->p.vtbl;
    /* from the smallest pool that is allowed to three times that */
    int64_t page = strcmp(name, "contiguous") == 0 ? w->max_ctx : w->page_tokens;
    int64_t least = ((w->max_ctx + page - 1) / page + 1) * page * (w->n_groups == 1 ? 8 : 24);
    if (budget_pages(w, least - 1, &err) > 0)
        fail_msg("a budget of %d bytes was accepted", (int)least - 1);
    w->budget = least + below(w, 3) * (least / 2 + below(w, (int32_t)least));
    if (w->roomy)
        w->budget = least * 2 * MAX_TOTAL;
    if (budget_pages(w, w->budget, &err) < 2)
        fail_msg("%s", err.msg);
    if (pbi_pages_plan(w->pool, w->n_groups, w->group, w->plan, &err))
        fail_msg("%s", err.msg);
    for (int32_t g = 0; g < w->n_groups; g++)
        w->kv[g] =
            calloc((size_t)w->plan[g].n_pages * (size_t)w->plan[g].page_tokens, sizeof *w->kv[g]);
    pbi_pages_poison(w->pool, poison, w);
}

static void teardown(world *w)
{
    pbi_pages_poison(w->pool, NULL, NULL);
    plug_close(&w->p);
    pbi_pages_free(w->pool);
    free(w->kv[0]);
    free(w->kv[1]);
}

static int caches(const char *name)
{
    return strcmp(name, "hash") == 0 || strcmp(name, "radix") == 0;
}

/* 0, or -1 with w->why */
static int run_case(world *w, const char *name, uint64_t seed, int fault, totals *t)
{
    int rc = 0;
    memset(w, 0, sizeof *w);
    w->rnd = seed;
    w->fault = fault;
    setup(w, name);
    for (int i = 0; i < 20000 && !rc; i++) {
        rc = one_step(w);
        if (w->n_arrived == w->n_total && w->n_waiting == 0 && w->n_running == 0)
            break;
    }
    if (!rc && (w->n_waiting || w->n_running))
        rc = wrong(w, "%d sequences wait and %d run after 20000 steps", w->n_waiting, w->n_running);
    if (!rc)
        rc = check_plugin(w);
    t->cases++;
    t->steps += w->n_steps;
    t->preempted += w->n_preempted;
    t->drafts += w->n_drafts;
    t->cached += w->n_cached;
    t->full += w->n_full;
    t->copied += w->n_copied;
    if (caches(name))
        t->evicted += plug_counter(&w->p, "evicted");
    if (strcmp(name, "hash") == 0)
        t->collisions += plug_counter(&w->p, "collisions");
    teardown(w);
    return rc;
}

static void fuzz(const char *name)
{
    const char *only = getenv("PATCHBAY_ATTENTION"), *seed = getenv("PATCHBAY_SEED");
    world *w = malloc(sizeof *w);
    totals t = { 0 };
    double end = plug_clock() + plug_seconds(1.2);
    uint64_t first = seed ? strtoull(seed, NULL, 10) : 1, i = first;
    if (only && strcmp(only, name) != 0)
        i = UINT64_MAX;
    for (; i != UINT64_MAX && (plug_clock() < end || i - first < 300); i++) {
        if (run_case(w, name, i, NO_FAULT, &t))
            fail_msg("attention-%s, PATCHBAY_SEED=%llu: %s", name, (unsigned long long)i, w->why);
        if (seed)
            break;
    }
    print_message(
        "%s: %lld cases, %lld steps, %lld preempted, %lld drafts, %lld cached tokens, %lld full, "
        "%lld copies, %lld evicted, %lld collisions\n",
        name, (long long)t.cases, (long long)t.steps, (long long)t.preempted, (long long)t.drafts,
        (long long)t.cached, (long long)t.full, (long long)t.copied, (long long)t.evicted,
        (long long)t.collisions);
    free(w);
}

static void test_contiguous(void **state)
{
    fuzz("contiguous");
}

static void test_paged(void **state)
{
    fuzz("paged");
}

static void test_hash(void **state)
{
    fuzz("hash");
}

static void test_radix(void **state)
{
    fuzz("radix");
}

/* ---- the longest beginning ------------------------------------------------------- */

/* What a cache with room for all must find: the longest beginning that any sequence published,
 * whole pages of it while that one runs, and for hash always. */
static int64_t longest(const world *w, const char *name, const seq *q)
{
    int64_t best = 0, limit = q->s.n_tokens - 1;
    for (const seq *o = w->seqs; o != q; o++) {
        int64_t n = o->s.n_tokens, k = 0;
        if (o->s.state == PB_SEQ_RUNNING || strcmp(name, "hash") == 0)
            n -= n % w->page_tokens;
        while (o->s.cache_key == q->s.cache_key && k < n && k < limit &&
               o->tokens[k] == q->tokens[k])
            k++;
        best = k > best ? k : best;
    }
    return strcmp(name, "hash") == 0 ? best - best % w->page_tokens : best;
}

static void one_longest(world *w, const char *name, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->rnd = seed;
    w->roomy = 1;
    setup(w, name);
    w->n_total = MAX_TOTAL;
    while (w->n_arrived < w->n_total) {
        seq *q = &w->seqs[w->n_arrived];
        arrive(w);
        q->s.flags = 0; /* who reuses nothing computes pages twice, and keeps its own */
        if (w->n_running == w->max_seqs &&
            leave(w, w->running[below(w, w->n_running)], PB_REL_FINISHED))
            fail_msg("%s", w->why);
        int64_t want = longest(w, name, q);
        if (admit(w))
            fail_msg("%s", w->why);
        if (q->s.n_valid != want)
            fail_msg("attention-%s, PATCHBAY_SEED=%llu: seq %d: %d tokens reused, %d are there",
                     name, (unsigned long long)seed, (int)q->s.id, (int)q->s.n_valid, (int)want);
        q->feed = (int32_t)q->s.n_left;
        if (reserve(w, q, q->s.n_tokens))
            fail_msg("full");
        run_copies(w);
        if (check_kv(w, q) || write_kv(w, q) || check_plugin(w))
            fail_msg("attention-%s, PATCHBAY_SEED=%llu: %s", name, (unsigned long long)seed,
                     w->why);
        pbi_pages_step_done(w->pool);
        w->v->commit(plug_self(&w->p), &q->s, q->s.n_tokens);
        q->s.n_valid = q->s.n_tokens;
        q->s.n_left = q->feed = 0;
    }
    teardown(w);
}

static void test_longest(void **state)
{
    world *w = malloc(sizeof *w);
    for (uint64_t i = 1; i <= 300; i++) {
        one_longest(w, "hash", i);
        one_longest(w, "radix", i);
    }
    free(w);
}

/* The fault is found within so many cases. */
static void finds(const char *name, int fault, int within)
{
    world *w = malloc(sizeof *w);
    totals t = { 0 };
    int found = 0;
    for (int i = 1; i <= within && !found; i++)
        found = run_case(w, name, (uint64_t)i, fault, &t) != 0;
    if (!found)
        fail_msg("attention-%s: fault %d stayed hidden in %d cases", name, fault, within);
    print_message("%s, fault %d: case %lld: %s\n", name, fault, (long long)t.cases, w->why);
    free(w);
}

static void test_planted(void **state)
{
    finds("hash", NO_COPY, 300);
    finds("hash", EARLY_COMMIT, 300);
    finds("hash", EARLY_UNREF, 300);
    finds("radix", NO_COPY, 300);
    finds("radix", EARLY_COMMIT, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contiguous), cmocka_unit_test(test_paged),
        cmocka_unit_test(test_hash),       cmocka_unit_test(test_radix),
        cmocka_unit_test(test_longest),    cmocka_unit_test(test_planted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
