/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-sim/sim.c - a backend that computes no model: pipelines run through it with
 * the same policies, pages and steps as on a real device, on a virtual clock, thousands of
 * requests a second. For the study of schedulers and caches, and for tests: its KV words
 * (sim.h) turn every mistake in a page table into a different token.
 *
 * It is not a predictor of a machine's speed unless its prices were measured there. Invariant:
 * virtual time and tokens are the same on every machine. Class EXACT among pipelines on sim.
 * Test: test_sim.
 */
#include "sim.h"
#include "../backend-common/draw.h"

#include <string.h>

static int weight(void *self, int32_t role, int32_t n, const pb_piece *p, struct pb_weight **out,
                  uint64_t *bytes, pb_err *err)
{
    sim *d = self;
    struct pb_weight *w = d->host->alloc(d->host, sizeof *w, 0, "weight");
    if (!w)
        return sim_fail(err, PB_E_NOMEM, "backend-sim: no memory for a weight's handle");
    w->bytes = sim_piece_bytes(p, n);
    *out = w;
    *bytes = w->bytes; /* of the simulated device: nothing is read */
    return 0;
}

static void weight_free(void *self, struct pb_weight *w)
{
    sim *d = self;
    d->host->free(d->host, w);
}

static int kv_group(void *self, const pb_kv_shape *s, pb_kv_group *out, pb_err *err)
{
    sim *d = self;
    double bits = (double)s->n_layers * (double)s->n_kv_heads * (double)(s->head_dim + s->v_dim) *
                  (double)d->cfg->kv_bits;
    if (!(bits >= 8.0) || bits > 8e15)
        return sim_fail(err, PB_E_INVAL,
                        "backend-sim: KV group of %d layers, %d heads of %d + %d: %g bits a token",
                        s->n_layers, s->n_kv_heads, s->head_dim, s->v_dim, bits);
    out->kind = s->kind;
    out->n_layers = s->n_layers;
    out->window = s->window;
    out->granule = (int32_t)d->cfg->granule;
    out->token_bytes = (int64_t)(bits / 8.0);
    return 0;
}

static int arena(void *self, uint64_t bytes, void **out, pb_err *err)
{
    sim *d = self;
    sim_arena *a = d->host->alloc(d->host, sizeof *a, 0, "arena");
    if (!a)
        return sim_fail(err, PB_E_NOMEM, "backend-sim: no memory for an arena's handle");
    a->bytes = bytes;
    *out = a;
    return 0;
}

static void arena_free(void *self, void *arena_)
{
    sim *d = self;
    sim_arena *a = arena_;
    if (!a)
        return;
    d->host->free(d->host, a->words);
    d->host->free(d->host, a);
}

/* ---- a compiled program ---------------------------------------------------- */

static void exec_free(void *self, struct pb_exec *x)
{
    sim *d = self;
    if (!x)
        return;
    for (int i = 0; i < 2; i++) {
        d->host->free(d->host, x->out[i].hash);
        d->host->free(d->host, x->out[i].last);
        d->host->free(d->host, x->out[i].ids);
        d->host->free(d->host, x->out[i].logprob);
    }
    d->host->free(d->host, x->state);
    d->host->free(d->host, x->logits);
    d->host->free(d->host, x->row);
    d->host->free(d->host, x->scratch);
    d->host->free(d->host, x);
}

static void *take(struct pb_exec *x, double n, size_t each, int *failed)
{
    if (*failed || n * (double)each > 1e15) {
        *failed = 1;
        return NULL;
    }
    size_t bytes = (size_t)n * each;
    void *p = x->dev->host->alloc(x->dev->host, bytes ? bytes : 1, 0, "exec");
    *failed = !p;
    return p;
}

/* Buffers for the limits. Logits of all wanted rows are address space until they are asked for. */
static int allocate(struct pb_exec *x, pb_err *err)
{
    int failed = 0;
    double n_out = x->lim.max_out, vocab = x->n_vocab;
    for (int i = 0; i < 2; i++) {
        sim_out *o = &x->out[i];
        o->hash = take(x, n_out, sizeof *o->hash, &failed);
        o->last = take(x, n_out, sizeof *o->last, &failed);
        o->ids = take(x, n_out, sizeof *o->ids, &failed);
        o->logprob = take(x, n_out, sizeof *o->logprob, &failed);
    }
    x->logits = take(x, n_out * vocab, sizeof *x->logits, &failed);
    x->state = take(x, x->lim.max_rows, sizeof *x->state, &failed);
    x->row = take(x, vocab, sizeof *x->row, &failed);
    x->scratch = take(x, (double)pbc_draw_scratch(x->n_vocab), 1, &failed);
    if (failed)
        return sim_fail(err, PB_E_NOMEM,
                        "backend-sim: no memory for %d rows, %d of them wanted, of %d logits",
                        x->lim.max_rows, x->lim.max_out, x->n_vocab);
    return 0;
}

static int compile(void *self, const pb_program *p, const pb_limits *lim, struct pb_exec **out,
                   pb_err *err)
{
    sim *d = self;
    if (p->n_groups < 1 || p->n_groups > SIM_MAX_GROUPS)
        return sim_fail(err, PB_E_UNSUPPORTED,
                        "backend-sim: program has %d KV groups, 1..%d are supported", p->n_groups,
                        SIM_MAX_GROUPS);
    if (p->n_vocab < 2)
        return sim_fail(err, PB_E_INVAL, "backend-sim: program has a vocabulary of %d", p->n_vocab);
    struct pb_exec *x = d->host->alloc(d->host, sizeof *x, 0, "exec");
    if (!x)
        return sim_fail(err, PB_E_NOMEM, "backend-sim: no memory for a program");
    x->dev = d;
    x->lim = *lim;
    x->n_vocab = p->n_vocab;
    x->n_groups = p->n_groups;
    for (int32_t g = 0; g < p->n_groups; g++) {
        x->window[g] = p->groups[g].window;
        x->attend_op[g] = -1;
        pb_kv_group group = { .size = sizeof group };
        int bad = kv_group(self, &p->groups[g], &group, err);
        if (bad) {
            exec_free(self, x);
            return bad;
        }
        x->token_bytes[g] = group.token_bytes;
    }
    /* about half of the probability at temperature 1, where the others are uniform in [0, 4) */
    float peak = (float)(pbc_log((double)p->n_vocab) + 2.6);
    x->peak = peak > 4.5f ? peak : 4.5f;
    int rc = sim_cost_of(x, p, err);
    if (!rc)
        rc = allocate(x, err);
    if (rc) {
        exec_free(self, x);
        return rc;
    }
    *out = x;
    return 0;
}

/* ---- pools ------------------------------------------------------------------ */

static int kv(void *self, struct pb_exec *x, void *arena_, uint64_t arena_bytes, int32_t n_groups,
              const pb_kv_plan *plan, struct pb_kv **out, pb_err *err)
{
    sim *d = self;
    sim_arena *a = arena_;
    size_t n = 0;
    double bytes = 0.0; /* what the pages stand for: the words that hold them are fewer or more */
    if (n_groups != x->n_groups)
        return sim_fail(err, PB_E_INVAL, "backend-sim: plan for %d KV groups, program has %d",
                        n_groups, x->n_groups);
    struct pb_kv *k = d->host->alloc(d->host, sizeof *k, 0, "kv");
    if (!k)
        return sim_fail(err, PB_E_NOMEM, "backend-sim: no memory for a pool's handle");
    k->arena = a;
    k->n_groups = n_groups;
    for (int32_t g = 0; g < n_groups; g++) {
        k->plan[g] = plan[g];
        k->first[g] = n;
        if (plan[g].page_tokens < 1 || plan[g].n_pages < 1 || n > SIZE_MAX / 16) {
            d->host->free(d->host, k);
            return sim_fail(err, PB_E_INVAL, "backend-sim: KV group %d: %d pages of %d tokens", g,
                            plan[g].n_pages, plan[g].page_tokens);
        }
        n += (size_t)plan[g].page_tokens * (size_t)plan[g].n_pages;
        bytes += (double)plan[g].page_tokens * plan[g].n_pages * (double)x->token_bytes[g];
    }
    if (bytes > (double)arena_bytes) {
        d->host->free(d->host, k);
        return sim_fail(err, PB_E_INVAL, "backend-sim: a plan of %.0f bytes in an arena of %llu",
                        bytes, (unsigned long long)arena_bytes);
    }
    if (a->n_words < n) { /* what was in it is garbage now, as it may be */
        d->host->free(d->host, a->words);
        a->n_words = 0;
        a->words = n > SIZE_MAX / sizeof *a->words
                       ? NULL
                       : d->host->alloc(d->host, n * sizeof *a->words, 0, "kv words");
        if (!a->words) {
            d->host->free(d->host, k);
            return sim_fail(err, PB_E_NOMEM, "backend-sim: no memory for %zu KV words", n);
        }
        a->n_words = n;
    }
    *out = k;
    return 0;
}

static void kv_free(void *self, struct pb_kv *k)
{
    sim *d = self;
    d->host->free(d->host, k);
}

/* ---- lifecycle ---------------------------------------------------------------- */

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    sim *d = host->alloc(host, sizeof *d, 0, "sim");
    if (!d)
        return sim_fail(err, PB_E_NOMEM, "backend-sim: no memory for %zu bytes", sizeof *d);
    d->host = host;
    d->cfg = cfg;
    d->st = host->stats;
    d->clock = host->get(host, "clock/1");
    *self = d;
    return 0;
}

static void destroy(void *self)
{
    sim *d = self;
    d->host->free(d->host, d);
}

static const pb_backend vtable = {
    .size = sizeof(pb_backend),
    .weight = weight,
    .weight_free = weight_free,
    .kv_group = kv_group,
    .arena = arena,
    .arena_free = arena_free,
    .compile = compile,
    .exec_free = exec_free,
    .kv = kv,
    .kv_free = kv_free,
    .poison = sim_poison,
    .submit = sim_submit,
    .pick = sim_pick,
    .wait = sim_wait,
};

static const pb_option options[] = {
    PB_FLOAT(sim_config, step_us, "20", "0", "1e9", 0, "us", "fixed time of a step"),
    PB_FLOAT(sim_config, row_us, "0", "0", "1e9", 0, "us",
             "time of each row, beside its arithmetic"),
    PB_FLOAT(sim_config, kv_ns, "0", "0", "1e9", 0, "ns",
             "time of each KV token read, beside its bytes"),
    PB_FLOAT(sim_config, gflops, "200", "0", "1e9", 0, "GFLOP/s",
             "arithmetic of the device; 0: free"),
    PB_FLOAT(sim_config, gbps, "20", "0", "1e9", 0, "GB/s",
             "memory bandwidth of the device; 0: free"),
    PB_FLOAT(sim_config, echo, "0.5", "0", "1", PB_O_OUTPUT, NULL,
             "how often the next token follows from the last one alone"),
    PB_INT(sim_config, granule, "1", "1", "256", 0, "tokens", "page sizes are multiples of it"),
    PB_INT(sim_config, kv_bits, "16", "1", "64", 0, "bits",
           "of a KV element: sets the price of a token"),
    PB_OPTIONS_END,
};

static const pb_counter counters[] = {
    PB_COUNTER(sim_stats, steps, PB_C_ENGAGED, "steps", "steps run"),
    PB_COUNTER(sim_stats, rows, 0, "rows", "rows run"),
    PB_COUNTER(sim_stats, keys, 0, "tokens", "KV tokens read"),
    PB_COUNTER(sim_stats, copies, 0, "pages", "pages copied"),
    PB_COUNTER(sim_stats, poisoned, 0, "pages", "pages poisoned"),
    PB_COUNTER(sim_stats, device_ns, 0, "ns", "virtual time that the device worked"),
    PB_COUNTERS_END,
};

static const pb_iface ifaces[] = { { "backend/1", &vtable }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .slot = "backend",
    .name = "sim",
    .version = "0.1.0",
    .license = "MIT",
    .summary = "runs pipelines on a virtual clock, with hashes in place of a model",
    .flags = PB_EXACT,
    .provides = "clock.virtual",
    .options = options,
    .counters = counters,
    .config_size = sizeof(sim_config),
    .stats_size = sizeof(sim_stats),
    .ifaces = ifaces,
    .create = create,
    .destroy = destroy,
};
