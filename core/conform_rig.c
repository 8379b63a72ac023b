/* SPDX-License-Identifier: MIT
 *
 * core/conform_rig.c - one plugin instance on a test bench: config from texts, memory with
 * fences, a team of one thread, a small vocabulary. What the engine's instance does not need
 * to know (who overran a block, what was not freed) is known here.
 */
#define _GNU_SOURCE 1
#include "conform.h"
#include "calls.h"
#include "instance.h"
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t pbi_rig_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

int64_t pbi_rig_below(uint64_t *state, int64_t n)
{
    return (int64_t)(pbi_rig_random(state) % (uint64_t)n);
}

/* ---- memory with fences ------------------------------------------------ */

enum { FENCE = 64, FENCE_BYTE = 0xfb };

/* One live block. Kept apart from the block, which its plugin may overwrite, and found by its
 * address alone: what free() is given may be anything. */
typedef struct pbi_rig_block {
    char *base, *user; /* what the account gave; what the plugin got */
    size_t bytes;
    struct pbi_rig_block *next;
} block;

static pbi_rig *rig_of(const pb_host *host)
{
    return host->h;
}

static void blame(pbi_rig *r, const char *what, const char *tag)
{
    const pbi_call *c = pbi_call_now;
    if (!r->fault[0])
        snprintf(r->fault, sizeof r->fault, "%s%s%s (in %s)", what, tag ? " " : "", tag ? tag : "",
                 c && c->function ? c->function : "no call");
}

static void *rig_alloc(const pb_host *host, size_t bytes, size_t align, const char *tag)
{
    pbi_rig *r = rig_of(host);
    size_t lead = align > FENCE ? align : FENCE;
    if (align & (align - 1)) {
        blame(r, "asks for memory with an alignment that is no power of two:", tag);
        return NULL;
    }
    if (bytes > ((size_t)1 << 40)) {
        blame(r, "asks for more than 1 TiB:", tag);
        return NULL;
    }
    r->n_allocs++;
    block *b = malloc(sizeof *b);
    char *base = b ? pbi_account_alloc(&r->account, lead + bytes + FENCE, align, tag) : NULL;
    if (!base) {
        free(b);
        return NULL;
    }
    *b = (block){ base, base + lead, bytes, r->blocks };
    r->blocks = b;
    memset(base, FENCE_BYTE, lead);
    memset(base + lead + bytes, FENCE_BYTE, FENCE);
    return base + lead;
}

static void rig_free(const pb_host *host, void *p)
{
    pbi_rig *r = rig_of(host);
    if (!p)
        return;
    block **at = &r->blocks, *b;
    while (*at && (*at)->user != p)
        at = &(*at)->next;
    if (!*at) {
        blame(r, "frees memory that it does not have", NULL);
        return;
    }
    b = *at;
    *at = b->next;
    for (char *q = b->base; q < b->user; q++)
        if (*(unsigned char *)q != FENCE_BYTE) {
            blame(r, "wrote before the begin of a block", NULL);
            break;
        }
    for (size_t i = 0; i < FENCE; i++)
        if (((unsigned char *)b->user)[b->bytes + i] != FENCE_BYTE) {
            blame(r, "wrote past the end of a block", NULL);
            break;
        }
    pbi_account_free(&r->account, b->base);
    free(b);
}

/* ---- services ---------------------------------------------------------- */

static int64_t rig_now(const pb_host *host)
{
    return rig_of(host)->clock += 1000;
}

static void rig_log(const pb_host *host, int32_t level, const char *msg)
{
    if (level < PB_LOG_DEBUG || level > PB_LOG_ERROR || !msg)
        blame(rig_of(host), "logs with an unknown level or without a text", NULL);
}

static void team_run(void *h, void (*fn)(void *arg, int32_t thread, int32_t n), void *arg)
{
    (void)h;
    fn(arg, 0, 1);
}

static void team_barrier(void *h)
{
    (void)h;
}

/* Token i is written "<i>"; enough for constraints and outputs to work on. */
static pb_str text_piece(void *h, int32_t id)
{
    static _Thread_local char names[16][16];
    static _Thread_local int at;
    (void)h;
    if (id < 0 || id >= PBI_RIG_VOCAB)
        return (pb_str){ "", 0 };
    char *s = names[at = (at + 1) % 16];
    return (pb_str){ s, (size_t)snprintf(s, sizeof names[0], "<%d>", id) };
}

static int32_t text_encode(void *h, const char *s, size_t n, int32_t *out, int32_t cap)
{
    (void)h;
    if (n > (size_t)cap)
        return PB_E_FULL;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)s[i];
    return (int32_t)n;
}

static const void *rig_get(const pb_host *host, const char *id)
{
    pbi_rig *r = rig_of(host);
    static const pb_kernel_set none = { .size = sizeof none };
    if (!id) {
        blame(r, "asks for a service without a name", NULL);
        return NULL;
    }
    if (!strcmp(id, "team/1"))
        return &r->team;
    if (!strcmp(id, "text/1"))
        return &r->text;
    if (!strcmp(id, "pages/1") && !strcmp(r->desc->slot, "attention"))
        return r->pages;
    if (!strcmp(id, "kernels/1") && !strcmp(r->desc->slot, "backend"))
        return &none;
    return NULL;
}

/* ---- life -------------------------------------------------------------- */

void pbi_rig_at(const pbi_rig *r, const char *function)
{
    static _Thread_local pbi_call call;
    call = (pbi_call){ .slot = r->desc->slot, .name = r->desc->name, .function = function };
    pbi_call_now = function ? &call : NULL;
}

static const char *value_of(const char *key, int n_set, const char *const *set)
{
    size_t n = strlen(key);
    for (int i = n_set - 1; i >= 0; i--)
        if (!strncmp(set[i], key, n) && set[i][n] == '=')
            return set[i] + n + 1;
    return NULL;
}

static int fill_config(pbi_rig *r, int n_set, const char *const *set, pb_err *err)
{
    const pb_plugin *d = r->desc;
    size_t n_text = 1, at = 0;
    for (const pb_option *o = d->options; o && o->name; o++) {
        const char *v = value_of(o->name, n_set, set);
        v = v ? v : o->def;
        n_text += v ? strlen(v) + 1 : 0;
    }
    r->config = calloc(1, d->config_size + 1);
    r->texts = calloc(1, n_text);
    if (!r->config || !r->texts)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    for (const pb_option *o = d->options; o && o->name; o++) {
        const char *v = value_of(o->name, n_set, set);
        v = v ? v : o->def;
        if (!v)
            continue;
        char *own = strcpy(r->texts + at, v);
        at += strlen(v) + 1;
        int rc = pbi_option_set(o, own, r->config, err);
        if (rc)
            return pbi_err_prefix(err, "%s = %s", o->name, v);
    }
    err->code = 0;
    pbi_rig_at(r, "check");
    int rc = d->check(r->config, err);
    pbi_rig_at(r, NULL);
    if (rc && !err->code)
        pbi_err(err, PB_E_PLUGIN, "check() returned %d and no message", rc);
    return rc;
}

int pbi_rig_init(pbi_rig *r, const pbi_library *lib, int n_set, const char *const *set, pb_err *err)
{
    *r = (pbi_rig){ .lib = lib, .desc = lib->desc, .pages = r->pages };
    r->account = (pbi_account){
        .now = &r->now, .peak = &r->peak, .owner_slot = lib->slot, .owner_name = lib->name
    };
    r->team = (pb_team){
        .size = sizeof(pb_team), .n_threads = 1, .run = team_run, .barrier = team_barrier
    };
    r->text = (pb_text){ .size = sizeof(pb_text),
                         .n_vocab = PBI_RIG_VOCAB,
                         .bos = 1,
                         .eos = 2,
                         .piece = text_piece,
                         .encode = text_encode };
    r->stats = calloc(1, lib->desc->stats_size + 1);
    r->host = (pb_host){ .size = sizeof(pb_host),
                         .h = r,
                         .stats = lib->desc->stats_size ? r->stats : NULL,
                         .alloc = rig_alloc,
                         .free = rig_free,
                         .now_ns = rig_now,
                         .log = rig_log,
                         .get = rig_get };
    if (!r->stats)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    return fill_config(r, n_set, set, err);
}

/* A setup call's result: an error code with a message, or 0. */
static int judge(const char *function, int rc, pb_err *err)
{
    if (rc > 0)
        return pbi_err(err, PB_E_PLUGIN, "%s returned %d, which is no error code", function, rc);
    if (rc && (!err->code || !err->msg[0]))
        return pbi_err(err, PB_E_PLUGIN, "%s returned %d (%s) without a message in err", function,
                       rc, pbi_err_kind(rc));
    return rc;
}

int pbi_rig_create(pbi_rig *r, pb_err *err)
{
    *err = (pb_err){ 0 };
    r->self = NULL;
    pbi_rig_at(r, "create");
    int rc = r->desc->create(&r->host, r->config, &r->self, err);
    pbi_rig_at(r, NULL);
    r->created = rc == 0;
    return judge("create()", rc, err);
}

int pbi_rig_start(pbi_rig *r, pb_err *err)
{
    static const pb_run run = { .size = sizeof run,
                                .max_seqs = PBI_RIG_SEQS,
                                .max_rows = PBI_RIG_ROWS,
                                .max_ctx = PBI_RIG_CTX,
                                .n_vocab = PBI_RIG_VOCAB };
    *err = (pb_err){ 0 };
    pbi_rig_at(r, "start");
    int rc = r->desc->start(r->self, &run, err);
    pbi_rig_at(r, NULL);
    r->started = rc == 0;
    return judge("start()", rc, err);
}

int64_t pbi_rig_destroy(pbi_rig *r)
{
    if (r->started) {
        pbi_rig_at(r, "stop");
        r->desc->stop(r->self);
    }
    if (r->created) {
        pbi_rig_at(r, "destroy");
        r->desc->destroy(r->self);
    }
    pbi_rig_at(r, NULL);
    r->started = r->created = 0;
    r->self = NULL;
    int64_t left = r->now;
    if (left)
        pbi_account_drain(&r->account);
    while (r->blocks) {
        block *b = r->blocks;
        r->blocks = b->next;
        free(b);
    }
    return left;
}

int pbi_rig_done(pbi_rig *r, pb_err *err)
{
    int rc = 0;
    int64_t left = r->lib ? pbi_rig_destroy(r) : 0;
    if (r->fault[0])
        rc = pbi_err(err, PB_E_PLUGIN, "%s", r->fault);
    else if (left)
        rc = pbi_err(err, PB_E_PLUGIN, "destroy() left %lld bytes of host memory", (long long)left);
    free(r->config);
    free(r->texts);
    free(r->stats);
    *r = (pbi_rig){ 0 };
    return rc;
}

int pbi_rig_open(pbi_rig *r, const pbi_library *lib, int n_set, const char *const *set, pb_err *err)
{
    int rc = pbi_rig_init(r, lib, n_set, set, err);
    if (!rc)
        rc = pbi_rig_create(r, err);
    if (!rc)
        rc = pbi_rig_start(r, err);
    return rc;
}

const void *pbi_rig_iface(const pbi_rig *r, const char *id)
{
    return pbi_library_iface(r->lib, id);
}
