/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/layers.c - the operations of a step. Each function is called by every
 * thread of the team with the same operation; it takes its share, and all meet at its end.
 *
 * Invariant: what one thread computes is never split differently in a way that changes an order
 * of additions: shares are rows, panels of outputs, or (row, head, span).
 */
#include "cpu.h"

#include <string.h>

void cpu_barrier(const cpu_run *r)
{
    const pb_team *t = r->x->dev->team;
    if (t && r->n_threads > 1)
        t->barrier(t->h);
}

void cpu_share(const cpu_run *r, int64_t n, int64_t unit, int64_t *a, int64_t *b)
{
    int64_t units = (n + unit - 1) / unit;
    *a = units * r->thread / r->n_threads * unit;
    *b = units * (r->thread + 1) / r->n_threads * unit;
    *a = *a > n ? n : *a;
    *b = *b > n ? n : *b;
}

int32_t cpu_rows_of(const cpu_run *r, pb_val v)
{
    return r->x->val[v].picked ? r->s->n_out : r->s->n_rows;
}

static const struct pb_weight *weight_at(const cpu_run *r, pb_wid w)
{
    return w < 0 ? NULL : r->x->p->weights[w].packed;
}

static const float *vector_at(const cpu_run *r, pb_wid w)
{
    return w < 0 ? NULL : weight_at(r, w)->data;
}

static float *row_at(const cpu_run *r, pb_val v, int64_t row)
{
    const cpu_val *c = &r->x->val[v];
    return c->data + row * c->stride;
}

/* ---- LINEAR ----------------------------------------------------------------- */

/* One operation's inputs, ready for the kernels. */
typedef struct inputs {
    const char *f32, *q8;
    size_t f32_stride, q8_stride;
} inputs;

/* Normalises and quantizes the rows: shared among the threads, or each thread for itself if they
 * are few (then nobody need wait). */
static inputs prepare(const cpu_run *r, const pb_op_linear *l, int32_t rows)
{
    const struct pb_exec *x = r->x;
    const cpu_elem *e = x->dev->elem;
    const cpu_val *v = &x->val[l->x];
    const float *w = vector_at(r, l->pre_norm);
    int own = rows <= CPU_FEW && r->n_threads > 1, need_q8 = 0;
    float *xn = own ? x->xn_own + (int64_t)r->thread * CPU_FEW * x->xn_stride : x->xn;
    char *xq = own ? x->xq_own + (size_t)r->thread * CPU_FEW * x->xq_bytes : x->xq;
    int64_t a = 0, b = rows;
    inputs in = { (const char *)(w ? xn : v->data), xq, (size_t)(w ? x->xn_stride : v->stride) * 4,
                  x->xq_bytes };
    for (int32_t i = 0; i < l->n_w; i++)
        need_q8 |= weight_at(r, l->w[i])->k->x_format == PB_X_Q8;
    if (!own)
        cpu_share(r, rows, 1, &a, &b);
    for (int64_t i = a; i < b; i++) {
        const float *src = v->data + i * v->stride;
        if (w) {
            e->norm(src, w, l->eps, v->width, xn + i * x->xn_stride);
            src = xn + i * x->xn_stride;
        }
        if (need_q8)
            e->quant(src, v->width, xq + (size_t)i * x->xq_bytes);
    }
    if (!own && (w || need_q8))
        cpu_barrier(r);
    return in;
}

/* Rows [i0, i0 + n) of product j, panels [p0, p1), into y. */
static void product(const cpu_run *r, const pb_op_linear *l, int j, const inputs *in, int64_t i0,
                    int32_t n, int64_t p0, int64_t p1, float *y, int64_t y_stride)
{
    const struct pb_weight *w = weight_at(r, l->w[j]);
    int q8 = w->k->x_format == PB_X_Q8;
    pb_linear_args a = {
        .size = sizeof a,
        .w = w->data,
        .rows = w->rows,
        .cols = w->cols,
        .x_stride = q8 ? in->q8_stride : in->f32_stride,
        .y_stride = y_stride,
    };
    int32_t most = w->k->max_rows > 0 ? w->k->max_rows : n;
    for (int32_t i = 0; i < n; i += most) {
        a.n_x = n - i < most ? n - i : most;
        a.x = (q8 ? in->q8 : in->f32) + (size_t)(i0 + i) * a.x_stride;
        a.y = y + i * y_stride;
        w->k->run(&a, p0, p1);
    }
    const float *b = vector_at(r, l->b[j]);
    int64_t c0 = p0 * w->k->panel_rows, c1 = p1 * w->k->panel_rows;
    c1 = c1 > w->rows ? w->rows : c1;
    for (int32_t i = 0; b && i < n; i++)
        r->x->dev->elem->add(y + i * y_stride + c0, y + i * y_stride + c0, b + c0, c1 - c0);
}

/* y = act(W_0 x) * (W_1 x), a chunk of rows at a time so that it stays in the cache. */
static void gated(const cpu_run *r, const pb_op_linear *l, const inputs *in, int32_t rows)
{
    struct pb_exec *x = r->x;
    const struct pb_weight *w = weight_at(r, l->w[0]);
    const cpu_elem *e = x->dev->elem;
    const cpu_val *res = l->residual < 0 ? NULL : &x->val[l->residual];
    int64_t c0, c1, pr = w->k->panel_rows;
    cpu_share(r, w->rows, pr, &c0, &c1);
    if (c0 >= c1)
        return;
    int64_t p0 = c0 / pr, p1 = (c1 + pr - 1) / pr;
    for (int32_t i = 0; i < rows; i += CPU_CHUNK) {
        int32_t n = rows - i < CPU_CHUNK ? rows - i : CPU_CHUNK;
        product(r, l, 0, in, i, n, p0, p1, x->gate, x->up_stride);
        product(r, l, 1, in, i, n, p0, p1, x->up, x->up_stride);
        for (int32_t k = 0; k < n; k++) {
            const float *g = x->gate + k * x->up_stride + c0, *u = x->up + k * x->up_stride + c0;
            float *y = row_at(r, l->y[0], i + k) + c0;
            (l->act == PB_ACT_SILU_MUL ? e->silu_mul : e->gelu_mul)(y, g, u, c1 - c0);
            if (res)
                e->add(y, y, res->data + (i + k) * res->stride + c0, c1 - c0);
        }
    }
}

static void plain(const cpu_run *r, const pb_op_linear *l, const inputs *in, int32_t rows)
{
    struct pb_exec *x = r->x;
    int add = l->residual >= 0 && l->post_norm < 0;
    for (int j = 0; j < l->n_w; j++) {
        const struct pb_weight *w = weight_at(r, l->w[j]);
        const cpu_val *v = &x->val[l->y[j]];
        int64_t c0, c1, pr = w->k->panel_rows;
        cpu_share(r, w->rows, pr, &c0, &c1);
        for (int32_t i = 0; i < rows && c0 < c1; i += CPU_CHUNK) {
            int32_t n = rows - i < CPU_CHUNK ? rows - i : CPU_CHUNK;
            product(r, l, j, in, i, n, c0 / pr, (c1 + pr - 1) / pr, v->data + i * v->stride,
                    v->stride);
            for (int32_t k = 0; add && j == 0 && k < n; k++) {
                float *y = v->data + (i + k) * v->stride + c0;
                x->dev->elem->add(y, y, row_at(r, l->residual, i + k) + c0, c1 - c0);
            }
        }
    }
}

/* The norm behind a product needs whole rows. */
static void post_norm(const cpu_run *r, const pb_op_linear *l, int32_t rows)
{
    struct pb_exec *x = r->x;
    const cpu_elem *e = x->dev->elem;
    int64_t a, b;
    cpu_barrier(r);
    cpu_share(r, rows, 1, &a, &b);
    for (int32_t j = 0; j < l->n_w; j++)
        for (int64_t i = a; i < b; i++) {
            float *y = row_at(r, l->y[j], i), *tmp = x->xn + i * x->xn_stride;
            e->norm(y, vector_at(r, l->post_norm), l->eps, x->val[l->y[j]].width, tmp);
            if (j == 0 && l->residual >= 0)
                e->add(y, tmp, row_at(r, l->residual, i), x->val[l->y[j]].width);
            else
                memcpy(y, tmp, (size_t)x->val[l->y[j]].width * 4);
        }
}

void cpu_op_linear(const cpu_run *r, int32_t op)
{
    const pb_op_linear *l = &r->x->p->ops[op].u.linear;
    int32_t rows = cpu_rows_of(r, l->x);
    if (rows > 0) {
        inputs in = prepare(r, l, rows);
        if (l->act != PB_ACT_NONE)
            gated(r, l, &in, rows);
        else
            plain(r, l, &in, rows);
        if (l->post_norm >= 0)
            post_norm(r, l, rows);
        for (int32_t i = 0; i < l->n_w && r->thread == 0; i++)
            r->x->dev->st->plugin_row_ops += weight_at(r, l->w[i])->extra;
    }
    cpu_barrier(r);
}

/* ---- ATTEND ----------------------------------------------------------------- */

/* Norm and rope of n heads of one row. */
static void turn(const cpu_run *r, int32_t op, int32_t row, const float *src, float *dst,
                 int32_t n_heads, pb_wid norm)
{
    const struct pb_exec *x = r->x;
    const pb_op_attend *a = &x->p->ops[op].u.attend;
    const cpu_elem *e = x->dev->elem;
    const float *w = vector_at(r, norm);
    float tmp[1024];
    for (int32_t h = 0; h < n_heads; h++, src += a->head_dim, dst += a->head_dim) {
        const float *v = src;
        if (w) {
            e->norm(src, w, a->eps, a->head_dim, tmp);
            v = tmp;
        }
        if (x->rope_of[op] >= 0) {
            const cpu_rope *t = &x->rope[x->rope_of[op]];
            e->rope(dst, v, t->cs + row * 2 * t->n, t->n, a->head_dim, a->rope);
        } else {
            memcpy(dst, v, (size_t)a->head_dim * 4);
        }
    }
}

/* The spans of single items, joined: item (row, KV head) after item. */
static void join_spans(const cpu_run *r, const pb_attend_args *a)
{
    const pb_kv_shape *s = a->shape;
    int32_t g = a->group, heads = a->n_heads / s->n_kv_heads, unit = 0;
    const pb_attend_item *it = r->x->items[g];
    for (int32_t i = 0, j; i < r->x->n_items[g]; i = j, unit++) {
        for (j = i + 1; j < r->x->n_items[g]; j++)
            if (it[j].row0 != it[i].row0 || it[j].kv_head != it[i].kv_head)
                break;
        if (unit % r->n_threads != r->thread)
            continue;
        for (int32_t h = 0; h < heads; h++)
            cpu_merge_spans(
                a->part + i * a->part_stride + h * (s->v_dim + 2), a->part_stride, j - i, s->v_dim,
                a->y + it[i].row0 * a->y_stride + (it[i].kv_head * heads + h) * s->v_dim);
    }
    cpu_barrier(r);
}

static pb_attend_args attend_args(const cpu_run *r, const pb_op_attend *o)
{
    struct pb_exec *x = r->x;
    const struct pb_kv *kv = r->kv;
    const pb_kv_shape *s = &x->p->groups[o->group];
    return (pb_attend_args){
        .size = sizeof(pb_attend_args),
        .shape = s,
        .step = r->s,
        .group = o->group,
        .n_heads = o->n_heads,
        .page_tokens = kv->plan[o->group].page_tokens,
        .window = o->window,
        .scale = o->scale,
        .softcap = o->softcap,
        .kv = kv->group[o->group] + (uint64_t)o->layer * kv->layer_bytes[o->group],
        .page_stride = (size_t)kv->page_bytes[o->group],
        .q = x->q,
        .k = x->k,
        .v = x->val[o->v].data,
        .y = x->val[o->y].data,
        .q_stride = x->q_stride,
        .k_stride = x->k_stride,
        .v_stride = x->val[o->v].stride,
        .y_stride = x->val[o->y].stride,
        .items = x->items[o->group],
        .scratch = x->scratch + (size_t)r->thread * x->scratch_bytes,
        .part = x->split ? x->part : NULL,
        .part_stride = (int64_t)(o->n_heads / o->n_kv_heads) * (o->v_dim + 2),
    };
}

void cpu_op_attend(const cpu_run *r, int32_t op)
{
    struct pb_exec *x = r->x;
    const pb_op_attend *o = &x->p->ops[op].u.attend;
    pb_attend_args a = attend_args(r, o);
    int64_t row0, row1;
    cpu_share(r, r->s->n_rows, CPU_ITEM_ROWS, &row0, &row1);
    if (r->thread == 0)
        x->dev->st->plugin_row_ops += x->dev->kvfmt_extra;
    for (int64_t i = row0; i < row1; i++) {
        turn(r, op, (int32_t)i, row_at(r, o->q, i), x->q + i * x->q_stride, o->n_heads, o->q_norm);
        turn(r, op, (int32_t)i, row_at(r, o->k, i), x->k + i * x->k_stride, o->n_kv_heads,
             o->k_norm);
    }
    if (row0 < row1)
        x->dev->kvfmt->write(&a, (int32_t)row0, (int32_t)row1);
    cpu_barrier(r);
    for (;;) {
        int i = atomic_fetch_add_explicit(&x->work[op].next, 1, memory_order_relaxed);
        if (i >= x->n_items[o->group])
            break;
        x->dev->kvfmt->attend(&a, i, i + 1);
    }
    cpu_barrier(r);
    if (a.part)
        join_spans(r, &a);
}

/* ---- the small ones ---------------------------------------------------------------- */

static void embed(const cpu_run *r, const pb_op_embed *o, int64_t a, int64_t b)
{
    const struct pb_weight *w = weight_at(r, o->table);
    for (int64_t i = a; i < b; i++) {
        float *y = row_at(r, o->y, i);
        w->k->row(w->data, w->rows, w->cols, r->x->token[i], y);
        r->x->dev->elem->scale(y, y, o->scale, w->cols);
    }
}

void cpu_op_small(const cpu_run *r, int32_t op)
{
    const struct pb_exec *x = r->x;
    const pb_op *o = &x->p->ops[op];
    const cpu_elem *e = x->dev->elem;
    const int32_t *out_row = PB_STEP_COL(r->s, out_row);
    pb_val y = o->kind == PB_OP_EMBED  ? o->u.embed.y
               : o->kind == PB_OP_NORM ? o->u.norm.y
               : o->kind == PB_OP_ADD  ? o->u.add.y
                                       : o->u.rows.y;
    int64_t a, b, width = x->val[y].width;
    cpu_share(r, cpu_rows_of(r, y), 1, &a, &b);
    if (o->kind == PB_OP_EMBED)
        embed(r, &o->u.embed, a, b);
    for (int64_t i = a; i < b && o->kind == PB_OP_NORM; i++)
        e->norm(row_at(r, o->u.norm.x, i), vector_at(r, o->u.norm.w), o->u.norm.eps, width,
                row_at(r, y, i));
    for (int64_t i = a; i < b && o->kind == PB_OP_ADD; i++)
        e->add(row_at(r, y, i), row_at(r, o->u.add.a, i), row_at(r, o->u.add.b, i), width);
    for (int64_t i = a; i < b && o->kind == PB_OP_ROWS; i++)
        memcpy(row_at(r, y, i), row_at(r, o->u.rows.x, out_row[i]), (size_t)width * 4);
    cpu_barrier(r);
}
