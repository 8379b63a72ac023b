/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/weights.c - weights: which row multiplies them, and their packing by all
 * threads of the team into slabs that lie on huge pages.
 *
 * Invariant: a kernel is verified before anything is computed with it; threads divide panels, so
 * their number changes no byte.
 */
#include "panel.h"

#include <stdatomic.h>

enum { SLAB = 32 << 20, OWN_SLAB = 8 << 20 };
enum { SHARE = 256 << 10 }; /* bytes of panels that a thread packs at a time, about */

/* Memory that many weights share, so that small ones lie on huge pages too. */
struct cpu_slab {
    cpu_slab *next;
    char *mem;
    uint64_t size, used;
    int live; /* weights in it */
};

static cpu_slab *slab_new(cpu *d, uint64_t size)
{
    cpu_slab *s = d->host->alloc(d->host, sizeof *s, 0, "weights");
    if (!s)
        return NULL;
    s->mem = d->host->alloc(d->host, size, 64, "weights");
    if (!s->mem) {
        d->host->free(d->host, s);
        return NULL;
    }
    s->size = size;
    s->next = d->slabs;
    d->slabs = s;
    return s;
}

static void slab_drop(cpu *d, cpu_slab *s)
{
    if (!s || --s->live > 0)
        return;
    for (cpu_slab **at = &d->slabs; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    d->host->free(d->host, s->mem);
    d->host->free(d->host, s);
}

static int slab_take(cpu *d, uint64_t bytes, struct pb_weight *w)
{
    cpu_slab *s = d->slabs;
    bytes = CPU_ALIGN64(bytes ? bytes : 1);
    while (s && (bytes >= OWN_SLAB || s->size - s->used < bytes))
        s = s->next;
    if (!s)
        s = slab_new(d, bytes >= OWN_SLAB ? bytes : SLAB);
    if (!s)
        return PB_E_NOMEM;
    w->data = s->mem + s->used;
    w->slab = s;
    s->used += bytes;
    s->live++;
    return 0;
}

/* Shape of the stack; all pieces must agree. */
static int shape_of(struct pb_weight *w, int32_t n, const pb_piece *p, pb_err *err)
{
    w->type = n > 0 ? p[0].t->type : 0;
    w->cols = n > 0 ? p[0].n_cols : 0;
    for (int32_t i = 0; i < n; i++) {
        if (p[i].t->type != w->type)
            return cpu_fail(err, PB_E_UNSUPPORTED,
                            "backend-cpu: tensor %s is %s (type %d), stacked under %s of %s",
                            p[i].t->name, cpu_type_name(p[i].t->type), p[i].t->type, p[0].t->name,
                            cpu_type_name(w->type));
        if (p[i].n_cols != w->cols)
            return cpu_fail(err, PB_E_INVAL,
                            "backend-cpu: tensor %s gives %lld columns, stacked under %lld of %s",
                            p[i].t->name, (long long)p[i].n_cols, (long long)w->cols, p[0].t->name);
        w->rows += p[i].n_rows;
    }
    if (n < 1 || w->rows < 1 || w->cols < 1 || w->rows > INT32_MAX || w->cols > INT32_MAX / 4)
        return cpu_fail(err, PB_E_INVAL, "backend-cpu: weight of %lld rows and %lld columns",
                        (long long)w->rows, (long long)w->cols);
    return 0;
}

static int load_vector(cpu *d, struct pb_weight *w, int32_t n, const pb_piece *p, uint64_t *bytes,
                       pb_err *err)
{
    *bytes = (uint64_t)w->rows * (uint64_t)w->cols * 4;
    int rc = slab_take(d, *bytes, w);
    if (rc)
        return cpu_fail(err, rc, "backend-cpu: no memory for %llu bytes of %s",
                        (unsigned long long)*bytes, p[0].t->name);
    rc = cpu_read_f32(p, n, w->data);
    if (rc)
        return cpu_fail(err, rc,
                        "backend-cpu: tensor %s: type %d (%s) as a vector; F32, F16 and BF16 are",
                        p[0].t->name, w->type, cpu_type_name(w->type));
    return 0;
}

typedef struct pack_job {
    const struct pb_weight *w;
    const pb_piece *p;
    int32_t n;
    int64_t panels, share; /* panels in all, and that a thread takes at a time */
    atomic_llong next;
    atomic_int rc; /* of the first share that failed */
} pack_job;

static void pack_shares(void *arg, int32_t thread, int32_t n_threads)
{
    pack_job *j = arg;
    (void)thread;
    (void)n_threads;
    while (!atomic_load(&j->rc)) {
        int64_t p0 = atomic_fetch_add(&j->next, j->share), p1 = p0 + j->share;
        if (p0 >= j->panels)
            return;
        int rc = j->w->k->pack(j->p, j->n, j->w->data, p0, p1 < j->panels ? p1 : j->panels);
        if (rc)
            atomic_store(&j->rc, rc);
    }
}

static int pack_all(cpu *d, const struct pb_weight *w, int32_t n, const pb_piece *p, uint64_t bytes)
{
    pack_job j = { .w = w, .p = p, .n = n };
    j.panels = (w->rows + w->k->panel_rows - 1) / w->k->panel_rows;
    uint64_t shares = bytes / SHARE + 1;
    j.share = (j.panels + (int64_t)shares - 1) / (int64_t)shares;
    if (d->team && j.share < j.panels)
        d->team->run(d->team->h, pack_shares, &j);
    else
        pack_shares(&j, 0, 1);
    return atomic_load(&j.rc);
}

static int load_matrix(cpu *d, struct pb_weight *w, int32_t n, const pb_piece *p, uint64_t *bytes,
                       pb_err *err)
{
    int32_t x =
        panel_meets_float(w->type) || d->cfg->activations == CPU_ACT_F32 ? PB_X_F32 : PB_X_Q8;
    w->k = cpu_linear_choose(d, w->type, x);
    if (!w->k)
        return cpu_fail(err, PB_E_UNSUPPORTED,
                        "backend-cpu: tensor %s: no kernel for type %d (%s) with %s activations",
                        p[0].t->name, w->type, cpu_type_name(w->type), x == PB_X_Q8 ? "q8" : "f32");
    const cpu_stored *t = cpu_stored_of(w->type);
    for (int32_t i = 0; t && i < n; i++)
        if (p[i].n_cols % t->n || p[i].col0 % t->n)
            return cpu_fail(err, PB_E_FORMAT,
                            "backend-cpu: tensor %s: columns %lld to %lld of a row; %s comes in "
                            "blocks of %d",
                            p[i].t->name, (long long)p[i].col0,
                            (long long)(p[i].col0 + p[i].n_cols - 1), t->name, t->n);
    w->extra = cpu_is_extra(d, w->k);
    *bytes = w->k->packed_bytes(w->rows, w->cols);
    int rc = slab_take(d, *bytes, w);
    if (rc)
        return cpu_fail(err, rc, "backend-cpu: no memory for %llu bytes of %s",
                        (unsigned long long)*bytes, p[0].t->name);
    rc = pack_all(d, w, n, p, *bytes);
    return rc ? cpu_fail(err, rc, "backend-cpu: kernel %s cannot pack tensor %s", w->k->name,
                         p[0].t->name)
              : 0;
}

void cpu_weight_free(void *self, struct pb_weight *w)
{
    cpu *d = self;
    if (!w)
        return;
    slab_drop(d, w->slab);
    d->host->free(d->host, w);
}

/* A kernel is verified before the first weight is packed for it. */
static int verify_once(cpu *d, const struct pb_weight *w, pb_err *err)
{
    if (!w->k || !d->cfg->verify)
        return 0;
    for (int i = 0; i < d->n_verified; i++)
        if (d->verified[i] == w->k)
            return 0;
    int rc = cpu_verify_linear(d, w->k, err);
    if (!rc && d->n_verified < (int)(sizeof d->verified / sizeof d->verified[0]))
        d->verified[d->n_verified++] = w->k;
    return rc;
}

int cpu_weight(void *self, int32_t role, int32_t n, const pb_piece *p, struct pb_weight **out,
               uint64_t *bytes, pb_err *err)
{
    cpu *d = self;
    struct pb_weight *w = d->host->alloc(d->host, sizeof *w, 0, "weights");
    if (!w)
        return cpu_fail(err, PB_E_NOMEM, "backend-cpu: no memory for a weight's handle");
    w->role = role;
    int rc = shape_of(w, n, p, err);
    if (!rc)
        rc = role == PB_ROLE_VECTOR ? load_vector(d, w, n, p, bytes, err)
                                    : load_matrix(d, w, n, p, bytes, err);
    if (!rc)
        rc = verify_once(d, w, err);
    if (rc) {
        cpu_weight_free(d, w);
        return rc;
    }
    *out = w;
    return 0;
}

void cpu_weights_end(cpu *d)
{
    while (d->slabs) {
        cpu_slab *s = d->slabs;
        s->live = 1;
        slab_drop(d, s);
    }
}
