/* SPDX-License-Identifier: MIT
 *
 * core/device.c - opens kernels plugins and the backend, keeps packed weights and arenas.
 * A weight is looked up by what it is made of, so that two arms of one model share it and a
 * tied embedding is resident once.
 */
#include "device.h"
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { N_BUCKETS = 1024 };

/* what a piece is, without its address */
typedef struct piece_key {
    uint64_t content;
    int64_t row0, n_rows, col0, n_cols;
    int64_t type;
} piece_key;

typedef struct weight_entry {
    struct weight_entry *next;
    uint64_t hash, bytes;
    int32_t role, n, refs;
    struct pb_weight *w;
    piece_key key[];
} weight_entry;

struct pbi_device {
    pbi_device_options o;
    pbi_services svc;
    int n_in; /* in[0] is the backend, then kernels */
    pbi_instance **in;
    const pb_backend *be;
    pbi_call_stat *st_weight, *st_weight_free, *st_arena, *st_arena_free;
    pb_kernel_set set;
    const pb_linear_kernel **linear;
    const pb_kvfmt **kvfmt;
    weight_entry *bucket[N_BUCKETS];
    int64_t weight_bytes, weight_count;
    pbi_arena *arenas;
};

/* ---- open and close --------------------------------------------------- */

/* One list of rows from all kernels plugins, in the INI's order. */
static int collect_kernels(pbi_device *d, pb_err *err)
{
    size_t nl = 0, nk = 0;
    for (int i = 1; i < d->n_in; i++) {
        const pb_kernel_set *s = pbi_instance_iface(d->in[i], "kernels/1");
        nl += (size_t)s->n_linear;
        nk += (size_t)s->n_kvfmt;
    }
    d->linear = calloc(nl + 1, sizeof *d->linear);
    d->kvfmt = calloc(nk + 1, sizeof *d->kvfmt);
    if (!d->linear || !d->kvfmt)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    for (int i = 1; i < d->n_in; i++) {
        const pb_kernel_set *s = pbi_instance_iface(d->in[i], "kernels/1");
        for (int32_t k = 0; k < s->n_linear; k++)
            d->linear[d->set.n_linear++] = s->linear[k];
        for (int32_t k = 0; k < s->n_kvfmt; k++)
            d->kvfmt[d->set.n_kvfmt++] = s->kvfmt[k];
    }
    d->set.size = sizeof d->set;
    d->set.linear = d->linear;
    d->set.kvfmt = d->kvfmt;
    return 0;
}

static int open_all(pbi_device *d, pb_err *err)
{
    int rc;
    for (int i = 0; i < d->o.n_kernels; i++) {
        rc = pbi_instance_new(d->o.kernels[i], &d->svc, &d->in[i + 1], err);
        if (rc)
            return rc;
        d->n_in = i + 2;
        rc = pbi_instance_start(d->in[i + 1], &d->o.run, err);
        if (rc)
            return rc;
    }
    rc = collect_kernels(d, err);
    if (rc)
        return rc;
    d->svc.kernels = &d->set;
    rc = pbi_instance_new(d->o.backend, &d->svc, &d->in[0], err);
    if (!rc)
        rc = pbi_instance_start(d->in[0], &d->o.run, err);
    if (rc)
        return rc;
    d->be = pbi_instance_iface(d->in[0], "backend/1");
    d->st_weight = pbi_call_stat_get(d->in[0], "weight");
    d->st_weight_free = pbi_call_stat_get(d->in[0], "weight_free");
    d->st_arena = pbi_call_stat_get(d->in[0], "arena");
    d->st_arena_free = pbi_call_stat_get(d->in[0], "arena_free");
    if (!d->st_weight || !d->st_weight_free || !d->st_arena || !d->st_arena_free)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    return 0;
}

int pbi_device_open(const pbi_device_options *o, pbi_device **out, pb_err *err)
{
    pbi_device *d = calloc(1, sizeof *d);
    int rc;
    if (d)
        d->in = calloc((size_t)o->n_kernels + 1, sizeof *d->in);
    if (!d || !d->in) {
        free(d);
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    }
    d->o = *o;
    d->n_in = 1;
    d->svc = (pbi_services){
        .team = o->team, .clock = o->clock, .now_ns = o->now_ns, .now_arg = o->now_arg
    };
    rc = open_all(d, err);
    if (rc) {
        pbi_device_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

void pbi_device_close(pbi_device *d)
{
    if (!d)
        return;
    for (int i = 0; i < d->n_in; i++) /* the backend first: it may use rows of kernels */
        pbi_instance_free(d->in[i]);
    free(d->in);
    free(d->linear);
    free(d->kvfmt);
    free(d);
}

const pb_backend *pbi_device_backend(const pbi_device *d)
{
    return d->be;
}

pbi_instance *pbi_device_instance(const pbi_device *d)
{
    return d->in[0];
}

const pbi_device_options *pbi_device_opts(const pbi_device *d)
{
    return &d->o;
}

int64_t pbi_device_now(const pbi_device *d)
{
    return d->o.now_ns(d->o.now_arg);
}

int pbi_device_instances(const pbi_device *d, pbi_instance *const **out)
{
    *out = d->in;
    return d->n_in;
}

/* ---- weights ---------------------------------------------------------- */

static weight_entry *entry_new(const pb_weight_use *u)
{
    size_t n = (size_t)u->n_pieces;
    weight_entry *e = calloc(1, sizeof *e + n * sizeof e->key[0]);
    if (!e)
        return NULL;
    e->role = u->role;
    e->n = u->n_pieces;
    for (size_t i = 0; i < n; i++) {
        const pb_piece *p = &u->pieces[i];
        e->key[i] =
            (piece_key){ p->t->content, p->row0, p->n_rows, p->col0, p->n_cols, p->t->type };
    }
    e->hash = XXH3_64bits_withSeed(e->key, n * sizeof e->key[0], (uint64_t)(uint32_t)e->role);
    return e;
}

static weight_entry *entry_find(const pbi_device *d, const weight_entry *like)
{
    for (weight_entry *e = d->bucket[like->hash % N_BUCKETS]; e; e = e->next)
        if (e->hash == like->hash && e->role == like->role && e->n == like->n &&
            !memcmp(e->key, like->key, (size_t)e->n * sizeof e->key[0]))
            return e;
    return NULL;
}

static int use_weight(pbi_device *d, pb_weight_use *u, pb_err *err)
{
    weight_entry *e = entry_new(u), *had;
    int rc;
    if (!e)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    had = entry_find(d, e);
    if (had) {
        free(e);
        had->refs++;
        u->packed = had->w;
        return 0;
    }
    PBI_CALL(d->st_weight, rc = d->be->weight(pbi_instance_self(d->in[0]), u->role, u->n_pieces,
                                              u->pieces, &e->w, &e->bytes, err));
    if (rc) {
        free(e);
        return pbi_err_prefix(err, "weight of tensor %s",
                              u->n_pieces > 0 ? u->pieces[0].t->name : "(none)");
    }
    e->refs = 1;
    e->next = d->bucket[e->hash % N_BUCKETS];
    d->bucket[e->hash % N_BUCKETS] = e;
    d->weight_bytes += (int64_t)e->bytes;
    d->weight_count++;
    u->packed = e->w;
    return 0;
}

int pbi_device_weights(pbi_device *d, pb_program *p, void (*progress)(void *arg, double done),
                       void *arg, pb_err *err)
{
    double total = 0, done = 0;
    for (int32_t i = 0; i < p->n_weights; i++)
        total += (double)p->weights[i].rows * (double)p->weights[i].cols;
    for (int32_t i = 0; i < p->n_weights; i++)
        p->weights[i].packed = NULL;
    for (int32_t i = 0; i < p->n_weights; i++) {
        int rc = use_weight(d, &p->weights[i], err);
        if (rc) {
            pbi_device_weights_release(d, p);
            return rc;
        }
        done += (double)p->weights[i].rows * (double)p->weights[i].cols;
        if (progress && total > 0)
            progress(arg, done / total);
    }
    return 0;
}

static void drop_weight(pbi_device *d, struct pb_weight *w)
{
    for (int b = 0; b < N_BUCKETS; b++)
        for (weight_entry **at = &d->bucket[b]; *at; at = &(*at)->next) {
            weight_entry *e = *at;
            if (e->w != w)
                continue;
            if (--e->refs > 0)
                return;
            *at = e->next;
            d->weight_bytes -= (int64_t)e->bytes;
            d->weight_count--;
            PBI_CALL(d->st_weight_free, d->be->weight_free(pbi_instance_self(d->in[0]), w));
            free(e);
            return;
        }
}

void pbi_device_weights_release(pbi_device *d, pb_program *p)
{
    for (int32_t i = 0; i < p->n_weights; i++) {
        if (p->weights[i].packed)
            drop_weight(d, p->weights[i].packed);
        p->weights[i].packed = NULL;
    }
}

int64_t pbi_device_weight_bytes(const pbi_device *d)
{
    return d->weight_bytes;
}

int64_t pbi_device_weight_count(const pbi_device *d)
{
    return d->weight_count;
}

/* ---- arenas ----------------------------------------------------------- */

int pbi_device_arena(pbi_device *d, uint64_t bytes, int own, pbi_arena **out, pb_err *err)
{
    pbi_arena *a;
    int rc;
    for (a = d->arenas; a && !own; a = a->next)
        if (a->shared && a->bytes >= bytes) {
            a->refs++;
            *out = a;
            return 0;
        }
    a = calloc(1, sizeof *a);
    if (!a)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    PBI_CALL(d->st_arena, rc = d->be->arena(pbi_instance_self(d->in[0]), bytes, &a->mem, err));
    if (rc) {
        free(a);
        return pbi_err_prefix(err, "KV arena of %llu bytes", (unsigned long long)bytes);
    }
    a->bytes = bytes;
    a->shared = !own;
    a->refs = 1;
    a->next = d->arenas;
    d->arenas = a;
    *out = a;
    return 0;
}

void pbi_device_arena_release(pbi_device *d, pbi_arena *a)
{
    if (!a || --a->refs > 0)
        return;
    for (pbi_arena **at = &d->arenas; *at; at = &(*at)->next)
        if (*at == a) {
            *at = a->next;
            break;
        }
    PBI_CALL(d->st_arena_free, d->be->arena_free(pbi_instance_self(d->in[0]), a->mem));
    free(a);
}
