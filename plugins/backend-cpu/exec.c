/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/exec.c - compiles a program: checks that every operation can be run, lays
 * the values into as few buffers as their lifetimes allow, and allocates all that a step needs.
 *
 * Nothing is allocated later. Invariant: a value's buffer is not given to another one before the
 * last operation that reads it has run.
 */
#include "cpu.h"
#include "../backend-common/draw.h"

#include <string.h>

/* Overflow-safe: NULL and *failed when a x b x c bytes cannot be had. */
static void *take(struct pb_exec *x, int64_t a, int64_t b, size_t c, int *failed)
{
    double want = (double)a * (double)b * (double)c;
    void *p = NULL;
    if (!*failed && a >= 0 && b >= 0 && want < 1e15)
        p = x->dev->host->alloc(x->dev->host, want < 1 ? 64 : (size_t)a * (size_t)b * c, 64,
                                "exec");
    if (!p)
        *failed = 1;
    return p;
}

static int64_t pad16(int64_t n)
{
    return (n + 15) / 16 * 16;
}

static const struct pb_weight *weight_at(const pb_program *p, pb_wid w)
{
    return w < 0 ? NULL : p->weights[w].packed;
}

/* ---- what can be run ---------------------------------------------------------- */

static int check_linear(const pb_program *p, const pb_op *op, pb_err *err)
{
    const pb_op_linear *l = &op->u.linear;
    int mul = l->act == PB_ACT_SILU_MUL || l->act == PB_ACT_GELU_MUL;
    if (l->act != PB_ACT_NONE && (!mul || l->n_w != 2))
        return cpu_fail(err, PB_E_UNSUPPORTED,
                        "backend-cpu: operation %s: activation %d of %d products", op->name, l->act,
                        l->n_w);
    if (l->sum_ranks)
        return cpu_fail(err, PB_E_UNSUPPORTED,
                        "backend-cpu: operation %s: sums over ranks need a parallel plugin",
                        op->name);
    for (int32_t i = 0; i < l->n_w; i++) {
        const struct pb_weight *w = weight_at(p, l->w[i]);
        if (!w || !w->k)
            return cpu_fail(err, PB_E_INVAL,
                            "backend-cpu: operation %s: its weight %d is not loaded as a matrix",
                            op->name, i);
        if (mul && (w->k->panel_rows != weight_at(p, l->w[0])->k->panel_rows || l->post_norm >= 0))
            return cpu_fail(err, PB_E_UNSUPPORTED,
                            "backend-cpu: operation %s: kernels %s and %s differ in panel rows, or "
                            "a norm follows the activation",
                            op->name, weight_at(p, l->w[0])->k->name, w->k->name);
    }
    return 0;
}

static int check_attend(const pb_program *p, const pb_op *op, pb_err *err)
{
    const pb_op_attend *a = &op->u.attend;
    const pb_kv_shape *s = &p->groups[a->group];
    if (s->kind != PB_KV_GQA || a->n_kv_heads != s->n_kv_heads || a->head_dim != s->head_dim ||
        a->v_dim != s->v_dim || a->n_heads % a->n_kv_heads || a->n_heads / a->n_kv_heads > 64)
        return cpu_fail(err, PB_E_UNSUPPORTED,
                        "backend-cpu: operation %s: %d query heads on %d KV heads of %d and %d "
                        "(KV group: kind %d, %d heads of %d and %d)",
                        op->name, a->n_heads, a->n_kv_heads, a->head_dim, a->v_dim, s->kind,
                        s->n_kv_heads, s->head_dim, s->v_dim);
    if (a->rope != PB_ROPE_NONE &&
        (a->rope_dims < 2 || a->rope_dims % 2 || a->rope_dims > a->head_dim))
        return cpu_fail(err, PB_E_UNSUPPORTED, "backend-cpu: operation %s: rope of %d of %d dims",
                        op->name, a->rope_dims, a->head_dim);
    if (s->window > 0 && (a->window <= 0 || a->window > s->window))
        return cpu_fail(err, PB_E_INVAL,
                        "backend-cpu: operation %s: window %d, its KV group keeps %d", op->name,
                        a->window, s->window);
    return 0;
}

static int check_op(const pb_program *p, const pb_op *op, pb_err *err)
{
    switch (op->kind) {
    case PB_OP_LINEAR: return check_linear(p, op, err);
    case PB_OP_ATTEND: return check_attend(p, op, err);
    case PB_OP_EMBED:
    case PB_OP_NORM:
    case PB_OP_ADD:
    case PB_OP_ROWS: return 0;
    case PB_OP_CUSTOM:
        return cpu_fail(err, PB_E_UNSUPPORTED, "backend-cpu: operation %s: custom operation %s",
                        op->name, op->u.custom.id);
    default:
        return cpu_fail(err, PB_E_UNSUPPORTED, "backend-cpu: operation %s: kind %d", op->name,
                        op->kind);
    }
}

/* ---- values -------------------------------------------------------------------- */

enum { MAX_REFS = 8 };

/* values an operation reads, then (from *n_in) writes; -1 entries are left out */
static int refs_of(const pb_op *op, pb_val *v, int *n_in)
{
    pb_val in[MAX_REFS] = { -1, -1, -1, -1, -1, -1, -1, -1 }, out[4] = { -1, -1, -1, -1 };
    int n = 0;
    switch (op->kind) {
    case PB_OP_EMBED: out[0] = op->u.embed.y; break;
    case PB_OP_LINEAR:
        in[0] = op->u.linear.x;
        in[1] = op->u.linear.residual;
        for (int i = 0; i < (op->u.linear.act == PB_ACT_NONE ? op->u.linear.n_w : 1); i++)
            out[i] = op->u.linear.y[i];
        break;
    case PB_OP_ATTEND:
        in[0] = op->u.attend.q;
        in[1] = op->u.attend.k;
        in[2] = op->u.attend.v;
        out[0] = op->u.attend.y;
        break;
    case PB_OP_NORM: in[0] = op->u.norm.x, out[0] = op->u.norm.y; break;
    case PB_OP_ADD: in[0] = op->u.add.a, in[1] = op->u.add.b, out[0] = op->u.add.y; break;
    case PB_OP_ROWS: in[0] = op->u.rows.x, out[0] = op->u.rows.y; break;
    default: break;
    }
    for (int i = 0; i < MAX_REFS; i++)
        if (in[i] >= 0)
            v[n++] = in[i];
    *n_in = n;
    for (int i = 0; i < 4; i++)
        if (out[i] >= 0)
            v[n++] = out[i];
    return n;
}

/* One buffer while values are laid out. */
typedef struct slot {
    int64_t floats;
    int32_t free_after; /* index of the last operation that reads what lies in it */
} slot;

/* The smallest free buffer that fits, else the largest free one, grown, else a new one. */
static int slot_for(slot *s, int *n, int64_t floats, int32_t op)
{
    int best = -1;
    for (int i = 0; i < *n; i++) {
        if (s[i].free_after >= op)
            continue;
        int fits = s[i].floats >= floats, best_fits = best >= 0 && s[best].floats >= floats;
        if (best < 0 || (fits && (!best_fits || s[i].floats < s[best].floats)) ||
            (!fits && !best_fits && s[i].floats > s[best].floats))
            best = i;
    }
    if (best < 0) {
        best = (*n)++;
        s[best].floats = 0;
    }
    if (s[best].floats < floats)
        s[best].floats = floats;
    return best;
}

static int lay_values(struct pb_exec *x, slot *s, int32_t *last, int32_t *in, int *failed)
{
    const pb_program *p = x->p;
    pb_val v[MAX_REFS + 4];
    int n = 0, n_in;
    for (int32_t o = 0; o < p->n_ops; o++) {
        int m = refs_of(&p->ops[o], v, &n_in);
        for (int i = 0; i < m; i++)
            last[v[i]] = o;
    }
    last[p->logits] = p->n_ops;
    for (int32_t o = 0; o < p->n_ops; o++) {
        int m = refs_of(&p->ops[o], v, &n_in);
        for (int i = n_in; i < m; i++) {
            cpu_val *c = &x->val[v[i]];
            int64_t rows = c->picked ? x->lim.max_out : x->lim.max_rows;
            if (c->stride > INT64_MAX / 4 / (rows + 1)) {
                *failed = 1;
                return n;
            }
            in[v[i]] = slot_for(s, &n, rows * c->stride, o);
            s[in[v[i]]].free_after = last[v[i]];
        }
    }
    return n;
}

static int allocate_values(struct pb_exec *x)
{
    const pb_program *p = x->p;
    int failed = 0;
    x->val = take(x, p->n_vals, 1, sizeof *x->val, &failed);
    int32_t *last = take(x, p->n_vals, 1, sizeof *last, &failed);
    int32_t *in = take(x, p->n_vals, 1, sizeof *in, &failed);
    slot *s = take(x, p->n_vals, 1, sizeof *s, &failed);
    x->buffer = take(x, p->n_vals, 1, sizeof *x->buffer, &failed);
    if (!failed) {
        for (int32_t i = 0; i < p->n_vals; i++) {
            x->val[i].width = p->vals[i].width;
            x->val[i].picked = p->vals[i].picked;
            x->val[i].stride = i == p->logits ? p->vals[i].width : pad16(p->vals[i].width);
            in[i] = -1;
        }
        x->n_buffers = lay_values(x, s, last, in, &failed);
        for (int i = 0; i < x->n_buffers; i++)
            x->buffer[i] = take(x, s[i].floats, 1, 4, &failed);
        for (int32_t i = 0; i < p->n_vals && !failed; i++)
            x->val[i].data = in[i] < 0 ? NULL : x->buffer[in[i]];
    }
    x->dev->host->free(x->dev->host, last);
    x->dev->host->free(x->dev->host, in);
    x->dev->host->free(x->dev->host, s);
    return failed;
}

/* ---- rope ------------------------------------------------------------------------ */

/* angle of pair i at position 1: scale * base^(-2i/dims) / factor[i] */
static void rope_freq(const struct pb_exec *x, const pb_op_attend *a, double *freq)
{
    const struct pb_weight *f = weight_at(x->p, a->rope_factors);
    double step = pbc_log(a->rope_base) * -2.0 / (double)a->rope_dims;
    for (int32_t i = 0; i < a->rope_dims / 2; i++) {
        freq[i] = pbc_exp(step * (double)i) * a->rope_scale;
        if (f)
            freq[i] /= (double)((const float *)f->data)[i];
    }
}

static int same_rope(const pb_op_attend *a, const pb_op_attend *b)
{
    return a->rope_dims == b->rope_dims && a->rope_base >= b->rope_base &&
           a->rope_base <= b->rope_base && a->rope_scale >= b->rope_scale &&
           a->rope_scale <= b->rope_scale && a->rope_factors == b->rope_factors;
}

/* One table for all layers that turn alike. */
static int allocate_ropes(struct pb_exec *x, pb_err *err)
{
    const pb_program *p = x->p;
    int failed = 0;
    x->rope_of = take(x, p->n_ops, 1, sizeof *x->rope_of, &failed);
    x->rope = take(x, p->n_ops, 1, sizeof *x->rope, &failed);
    for (int32_t o = 0; o < p->n_ops && !failed; o++) {
        const pb_op_attend *a = &p->ops[o].u.attend;
        x->rope_of[o] = -1;
        if (p->ops[o].kind != PB_OP_ATTEND || a->rope == PB_ROPE_NONE)
            continue;
        const struct pb_weight *f = weight_at(p, a->rope_factors);
        if (!(a->rope_base > 1.0) || (f && f->rows * f->cols < a->rope_dims / 2))
            return cpu_fail(err, PB_E_INVAL,
                            "backend-cpu: operation %s: rope base %g, %lld factors", p->ops[o].name,
                            a->rope_base, f ? (long long)(f->rows * f->cols) : 0ll);
        for (int32_t b = 0; b < o && x->rope_of[o] < 0; b++)
            if (x->rope_of[b] >= 0 && same_rope(a, &p->ops[b].u.attend))
                x->rope_of[o] = x->rope_of[b];
        if (x->rope_of[o] >= 0)
            continue;
        cpu_rope *r = &x->rope[x->n_rope];
        r->n = a->rope_dims / 2;
        r->freq = take(x, r->n, 1, sizeof *r->freq, &failed);
        r->cs = take(x, x->lim.max_rows, 2 * r->n, sizeof *r->cs, &failed);
        x->rope_of[o] = x->n_rope++;
        if (!failed)
            rope_freq(x, a, r->freq);
    }
    return failed ? cpu_fail(err, PB_E_NOMEM, "backend-cpu: no memory for rope tables of %d rows",
                             x->lim.max_rows)
                  : 0;
}

/* ---- work memory -------------------------------------------------------------- */

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Widest of everything that the operations need. */
typedef struct widest {
    int64_t x, q8, up, q, k, part, items;
    size_t scratch;
} widest;

static void widen_attend(const struct pb_exec *x, const pb_op_attend *a, widest *w)
{
    const pb_kv_shape *s = &x->p->groups[a->group];
    int64_t spans = x->lim.max_ctx / PB_SPAN + 2;
    int64_t whole = x->lim.max_rows / CPU_ITEM_ROWS + x->lim.max_seqs + 1;
    w->q = max64(w->q, pad16((int64_t)a->n_heads * a->head_dim));
    w->k = max64(w->k, pad16((int64_t)a->n_kv_heads * a->head_dim));
    w->part = max64(w->part, CPU_FEW * spans * a->n_heads * (a->v_dim + 2));
    w->items = max64(w->items, max64(whole, CPU_FEW * spans) * a->n_kv_heads);
    size_t n = x->dev->kvfmt->scratch_bytes(s, a->n_heads, x->lim.max_ctx);
    w->scratch = n > w->scratch ? n : w->scratch;
}

static void widen(const struct pb_exec *x, const pb_op *op, widest *w)
{
    if (op->kind == PB_OP_ATTEND)
        widen_attend(x, &op->u.attend, w);
    if (op->kind == PB_OP_NORM)
        w->x = max64(w->x, pad16(x->p->vals[op->u.norm.x].width));
    if (op->kind != PB_OP_LINEAR)
        return;
    const pb_op_linear *l = &op->u.linear;
    w->x = max64(w->x, pad16(x->p->vals[l->x].width));
    w->q8 = max64(w->q8, x->p->vals[l->x].width);
    if (l->post_norm >= 0)
        w->x = max64(w->x, pad16(x->p->vals[l->y[0]].width));
    if (l->act != PB_ACT_NONE)
        w->up = max64(w->up, pad16(weight_at(x->p, l->w[0])->rows));
}

static int allocate_work(struct pb_exec *x)
{
    widest w = { 0 };
    int failed = 0;
    int64_t rows = x->lim.max_rows, nt = x->n_threads;
    for (int32_t o = 0; o < x->p->n_ops; o++)
        widen(x, &x->p->ops[o], &w);
    x->xn_stride = w.x;
    x->up_stride = w.up;
    x->q_stride = w.q;
    x->k_stride = w.k;
    x->xq_bytes = pb_x_bytes(PB_X_Q8, (w.q8 + CPU_BLOCK - 1) / CPU_BLOCK * CPU_BLOCK);
    x->scratch_bytes = CPU_ALIGN64(w.scratch);
    x->draw_bytes = CPU_ALIGN64(pbc_draw_scratch(x->p->n_vocab));
    x->xn = take(x, rows, w.x, 4, &failed);
    x->xq = take(x, rows, (int64_t)x->xq_bytes, 1, &failed);
    x->xn_own = take(x, nt * CPU_FEW, w.x, 4, &failed);
    x->xq_own = take(x, nt * CPU_FEW, (int64_t)x->xq_bytes, 1, &failed);
    x->gate = take(x, CPU_CHUNK, w.up, 4, &failed);
    x->up = take(x, CPU_CHUNK, w.up, 4, &failed);
    x->q = take(x, rows, w.q, 4, &failed);
    x->k = take(x, rows, w.k, 4, &failed);
    x->scratch = take(x, nt, (int64_t)x->scratch_bytes, 1, &failed);
    x->part = take(x, w.part, 1, 4, &failed);
    for (int32_t g = 0; g < x->p->n_groups; g++)
        x->items[g] = take(x, w.items, 1, sizeof(pb_attend_item), &failed);
    x->work = take(x, x->p->n_ops, 1, sizeof *x->work, &failed);
    x->token = take(x, rows, 1, 4, &failed);
    x->ids = take(x, x->lim.max_out, 1, 4, &failed);
    x->logprob = take(x, x->lim.max_out, 1, 4, &failed);
    x->pick_rc = take(x, nt, 1, sizeof *x->pick_rc, &failed);
    x->draw_scratch = take(x, nt, (int64_t)x->draw_bytes, 1, &failed);
    return failed;
}

void cpu_exec_free(void *self, struct pb_exec *x)
{
    cpu *d = self;
    if (!x)
        return;
    const pb_host *h = d->host;
    for (int i = 0; i < x->n_buffers; i++)
        h->free(h, x->buffer[i]);
    for (int i = 0; i < x->n_rope; i++) {
        h->free(h, x->rope[i].freq);
        h->free(h, x->rope[i].cs);
    }
    for (int g = 0; g < CPU_MAX_GROUPS; g++)
        h->free(h, x->items[g]);
    void *all[] = { x->buffer, x->val,   x->rope, x->rope_of, x->xn,      x->xq,          x->xn_own,
                    x->xq_own, x->gate,  x->up,   x->q,       x->k,       x->scratch,     x->part,
                    x->work,   x->token, x->ids,  x->logprob, x->pick_rc, x->draw_scratch };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        h->free(h, all[i]);
    h->free(h, x);
}

int cpu_compile(void *self, const pb_program *p, const pb_limits *lim, struct pb_exec **out,
                pb_err *err)
{
    cpu *d = self;
    if (p->n_groups > CPU_MAX_GROUPS)
        return cpu_fail(err, PB_E_UNSUPPORTED, "backend-cpu: program has %d KV groups, limit %d",
                        p->n_groups, CPU_MAX_GROUPS);
    for (int32_t o = 0; o < p->n_ops; o++) {
        int rc = check_op(p, &p->ops[o], err);
        if (rc)
            return rc;
    }
    struct pb_exec *x = d->host->alloc(d->host, sizeof *x, 0, "exec");
    if (!x)
        return cpu_fail(err, PB_E_NOMEM, "backend-cpu: no memory for a program");
    x->dev = d;
    x->p = p;
    x->lim = *lim;
    x->n_threads = d->team ? d->team->n_threads : 1;
    int rc = allocate_ropes(x, err);
    if (!rc && (allocate_values(x) || allocate_work(x)))
        rc =
            cpu_fail(err, PB_E_NOMEM,
                     "backend-cpu: no memory for steps of %d rows, %d of them wanted, %d tokens of "
                     "context",
                     lim->max_rows, lim->max_out, lim->max_ctx);
    if (rc) {
        cpu_exec_free(self, x);
        return rc;
    }
    *out = x;
    return 0;
}
