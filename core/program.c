/* SPDX-License-Identifier: MIT
 *
 * core/program.c - collects a model's operations, checks each as it comes, owns the result.
 */
#include "program.h"
#include "error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct pbi_program {
    pb_program p;
    pb_builder b;
    pb_err *err;
    int failed, finished;
    pb_op *ops;
    pb_val_info *vals;
    pb_weight_use *weights;
    pb_kv_shape *groups;
    unsigned char *written; /* [n_vals] */
    struct text {
        struct text *next;
        char s[];
    } * texts;
};

enum { MAX_THINGS = 1 << 20 };

/* the first error stays; finish reports it again */
#define FAIL(pp, code, ...)                                                                        \
    ((pp)->failed ? (pp)->failed : ((pp)->failed = pbi_err((pp)->err, code, __VA_ARGS__)))

static const char *keep(pbi_program *pp, const char *s)
{
    size_t n = strlen(s);
    struct text *t = malloc(sizeof *t + n + 1);
    if (!t)
        return NULL;
    memcpy(t->s, s, n + 1);
    t->next = pp->texts;
    pp->texts = t;
    return t->s;
}

/* room for one more element of an array of n; grows by doubling */
static int room(pbi_program *pp, void *array, int32_t n, size_t size)
{
    void **a = array;
    if (n >= MAX_THINGS)
        return FAIL(pp, PB_E_PLUGIN, "a program of over %d parts", MAX_THINGS);
    if (n & (n - 1))
        return 0;
    void *p = realloc(*a, (size_t)(n ? 2 * n : 1) * size);
    if (!p)
        return FAIL(pp, PB_E_NOMEM, "no memory for a program");
    *a = p;
    return 0;
}

/* ---- builder ----------------------------------------------------------- */

static pb_val add_value(void *h, const char *name, int32_t width, int32_t picked)
{
    pbi_program *pp = h;
    if (pp->failed || pp->finished)
        return pp->failed ? pp->failed : FAIL(pp, PB_E_STATE, "value %s after finish", name);
    if (width < 1 || width > 1 << 24)
        return FAIL(pp, PB_E_PLUGIN, "value %s: width %d is outside of 1..%d", name, (int)width,
                    1 << 24);
    for (int32_t i = 0; i < pp->p.n_vals; i++)
        if (!strcmp(pp->vals[i].name, name))
            return FAIL(pp, PB_E_PLUGIN, "value %s exists already", name);
    if (room(pp, &pp->vals, pp->p.n_vals, sizeof *pp->vals) ||
        room(pp, &pp->written, pp->p.n_vals, 1))
        return pp->failed;
    const char *own = keep(pp, name);
    if (!own)
        return FAIL(pp, PB_E_NOMEM, "no memory for a program");
    pp->vals[pp->p.n_vals] = (pb_val_info){ .name = own, .width = width, .picked = picked };
    pp->written[pp->p.n_vals] = 0;
    return pp->p.n_vals++;
}

static int check_piece(pbi_program *pp, const pb_piece *q, int64_t cols)
{
    const pb_tensor *t = q->t;
    if (!t)
        return FAIL(pp, PB_E_PLUGIN, "a piece of no tensor");
    if (q->row0 < 0 || q->n_rows < 1 || q->row0 > t->rows - q->n_rows || q->col0 < 0 ||
        q->n_cols < 1 || q->col0 > t->cols - q->n_cols)
        return FAIL(pp, PB_E_PLUGIN,
                    "tensor %s is %" PRId64 " x %" PRId64 ": rows %" PRId64 "+%" PRId64
                    ", columns %" PRId64 "+%" PRId64 " lie outside",
                    t->name, t->rows, t->cols, q->row0, q->n_rows, q->col0, q->n_cols);
    if (q->n_cols != cols)
        return FAIL(pp, PB_E_PLUGIN,
                    "tensor %s: pieces of %" PRId64 " and %" PRId64 " columns cannot be stacked",
                    t->name, cols, q->n_cols);
    return 0;
}

static pb_wid add_weight(void *h, int32_t role, int32_t n, const pb_piece *pieces)
{
    pbi_program *pp = h;
    int64_t rows = 0;
    if (pp->failed)
        return pp->failed;
    if (pp->finished || n < 1 || n > MAX_THINGS ||
        (role != PB_ROLE_LINEAR && role != PB_ROLE_VECTOR))
        return FAIL(pp, PB_E_PLUGIN, "a weight of role %d in %d pieces", (int)role, (int)n);
    for (int32_t i = 0; i < n; i++) {
        if (check_piece(pp, &pieces[i], pieces[0].n_cols))
            return pp->failed;
        if (pieces[i].t->type != pieces[0].t->type)
            return FAIL(pp, PB_E_UNSUPPORTED,
                        "tensors %s and %s are of types %d and %d: they cannot be one weight",
                        pieces[0].t->name, pieces[i].t->name, (int)pieces[0].t->type,
                        (int)pieces[i].t->type);
        if (__builtin_add_overflow(rows, pieces[i].n_rows, &rows))
            return FAIL(pp, PB_E_PLUGIN, "a weight of too many rows");
    }
    if (role == PB_ROLE_VECTOR && rows != 1)
        return FAIL(pp, PB_E_PLUGIN, "tensor %s: a vector of %" PRId64 " rows", pieces[0].t->name,
                    rows);
    pb_piece *own = malloc((size_t)n * sizeof *own);
    if (!own || room(pp, &pp->weights, pp->p.n_weights, sizeof *pp->weights)) {
        free(own);
        return FAIL(pp, PB_E_NOMEM, "no memory for a program");
    }
    memcpy(own, pieces, (size_t)n * sizeof *own);
    pp->weights[pp->p.n_weights] = (pb_weight_use){
        .role = role, .n_pieces = n, .pieces = own, .rows = rows, .cols = pieces[0].n_cols
    };
    return pp->p.n_weights++;
}

static int32_t add_group(void *h, const pb_kv_shape *s)
{
    pbi_program *pp = h;
    if (pp->failed)
        return pp->failed;
    if (s->size != sizeof *s || s->n_layers < 1 || s->n_kv_heads < 1 || s->head_dim < 1 ||
        s->v_dim < 1 || s->window < 0 || s->n_kv_heads > 1 << 16 || s->head_dim > 1 << 16 ||
        s->v_dim > 1 << 16)
        return FAIL(pp, PB_E_PLUGIN, "a KV group of %d layers, %d heads of %d and %d, window %d",
                    (int)s->n_layers, (int)s->n_kv_heads, (int)s->head_dim, (int)s->v_dim,
                    (int)s->window);
    if (room(pp, &pp->groups, pp->p.n_groups, sizeof *pp->groups))
        return pp->failed;
    pp->groups[pp->p.n_groups] = *s;
    return pp->p.n_groups++;
}

/* ---- operations -------------------------------------------------------- */

/* v is read by op: it exists, was written, and has the width (0: any) */
static void reads(pbi_program *pp, const char *op, const char *what, pb_val v, int64_t width)
{
    if (v < 0 || v >= pp->p.n_vals)
        FAIL(pp, PB_E_PLUGIN, "%s: %s is no value", op, what);
    else if (!pp->written[v])
        FAIL(pp, PB_E_PLUGIN, "%s: %s (%s) is read before it is written", op, what,
             pp->vals[v].name);
    else if (width && pp->vals[v].width != width)
        FAIL(pp, PB_E_PLUGIN, "%s: %s (%s) has width %d, %" PRId64 " is needed", op, what,
             pp->vals[v].name, (int)pp->vals[v].width, width);
}

static void writes(pbi_program *pp, const char *op, pb_val v, int64_t width, int32_t picked)
{
    if (v < 0 || v >= pp->p.n_vals)
        FAIL(pp, PB_E_PLUGIN, "%s: the output is no value", op);
    else if (pp->written[v])
        FAIL(pp, PB_E_PLUGIN, "%s: %s is written twice", op, pp->vals[v].name);
    else if (pp->vals[v].width != width)
        FAIL(pp, PB_E_PLUGIN, "%s: %s has width %d, the result %" PRId64, op, pp->vals[v].name,
             (int)pp->vals[v].width, width);
    else if (pp->vals[v].picked != picked)
        FAIL(pp, PB_E_PLUGIN, "%s: %s mixes all rows and wanted rows", op, pp->vals[v].name);
    else
        pp->written[v] = 1;
}

/* weight w has the role and the shape (0: any) */
static const pb_weight_use *uses(pbi_program *pp, const char *op, const char *what, pb_wid w,
                                 int32_t role, int64_t rows, int64_t cols)
{
    static const pb_weight_use none = { .rows = 1, .cols = 1 };
    if (w < 0 || w >= pp->p.n_weights) {
        FAIL(pp, PB_E_PLUGIN, "%s: %s is no weight", op, what);
        return &none;
    }
    const pb_weight_use *u = &pp->weights[w];
    if (u->role != role)
        FAIL(pp, PB_E_PLUGIN, "%s: %s (%s) has role %d, not %d", op, what, u->pieces[0].t->name,
             (int)u->role, (int)role);
    if ((rows && u->rows != rows) || (cols && u->cols != cols))
        FAIL(pp, PB_E_FORMAT,
             "%s: %s (%s) is %" PRId64 " x %" PRId64 ", needed is %" PRId64 " x %" PRId64, op, what,
             u->pieces[0].t->name, u->rows, u->cols, rows ? rows : u->rows, cols ? cols : u->cols);
    return u;
}

static void vector(pbi_program *pp, const char *op, const char *what, pb_wid w, int64_t n)
{
    if (w >= 0)
        uses(pp, op, what, w, PB_ROLE_VECTOR, 1, n);
}

static int32_t width_of(const pbi_program *pp, pb_val v)
{
    return v >= 0 && v < pp->p.n_vals ? pp->vals[v].width : 0;
}

static int32_t picked_of(const pbi_program *pp, pb_val v)
{
    return v >= 0 && v < pp->p.n_vals ? pp->vals[v].picked : 0;
}

static void check_linear(pbi_program *pp, const char *n, const pb_op_linear *o)
{
    int32_t width = width_of(pp, o->x), picked = picked_of(pp, o->x);
    if (o->n_w < 1 || o->n_w > 4 || (o->act != PB_ACT_NONE && o->n_w != 2)) {
        FAIL(pp, PB_E_PLUGIN, "%s: %d weights for activation %d", n, (int)o->n_w, (int)o->act);
        return;
    }
    reads(pp, n, "x", o->x, 0);
    vector(pp, n, "pre_norm", o->pre_norm, width);
    for (int i = 0; i < o->n_w && !pp->failed; i++) {
        const pb_weight_use *u = uses(pp, n, "w", o->w[i], PB_ROLE_LINEAR, 0, width);
        vector(pp, n, "b", o->b[i], u->rows);
        if (o->act != PB_ACT_NONE && i == 1) {
            if (u->rows != pp->weights[o->w[0]].rows)
                FAIL(pp, PB_E_FORMAT, "%s: gate and up have %" PRId64 " and %" PRId64 " rows", n,
                     pp->weights[o->w[0]].rows, u->rows);
            continue; /* both make y[0] */
        }
        writes(pp, n, o->y[i], u->rows, picked);
    }
    if (pp->failed)
        return;
    vector(pp, n, "post_norm", o->post_norm, width_of(pp, o->y[0]));
    if (o->residual >= 0) {
        reads(pp, n, "residual", o->residual, width_of(pp, o->y[0]));
        if (o->residual == o->y[0] || picked_of(pp, o->residual) != picked)
            FAIL(pp, PB_E_PLUGIN, "%s: the residual is not another value of the same rows", n);
    }
}

static void check_attend(pbi_program *pp, const char *n, const pb_op_attend *o)
{
    if (o->group < 0 || o->group >= pp->p.n_groups) {
        FAIL(pp, PB_E_PLUGIN, "%s: KV group %d of %d", n, (int)o->group, (int)pp->p.n_groups);
        return;
    }
    const pb_kv_shape *g = &pp->groups[o->group];
    if (o->layer < 0 || o->layer >= g->n_layers || o->n_kv_heads != g->n_kv_heads ||
        o->head_dim != g->head_dim || o->v_dim != g->v_dim || o->window != g->window)
        FAIL(pp, PB_E_PLUGIN, "%s: does not fit KV group %d", n, (int)o->group);
    else if (o->n_heads < 1 || o->n_heads % o->n_kv_heads)
        FAIL(pp, PB_E_FORMAT, "%s: %d query heads on %d KV heads", n, (int)o->n_heads,
             (int)o->n_kv_heads);
    else if (o->rope_dims < 0 || o->rope_dims > o->head_dim || o->rope_dims % 2)
        FAIL(pp, PB_E_FORMAT, "%s: rope over %d of %d dimensions", n, (int)o->rope_dims,
             (int)o->head_dim);
    reads(pp, n, "q", o->q, (int64_t)o->n_heads * o->head_dim);
    reads(pp, n, "k", o->k, (int64_t)o->n_kv_heads * o->head_dim);
    reads(pp, n, "v", o->v, (int64_t)o->n_kv_heads * o->v_dim);
    vector(pp, n, "rope_factors", o->rope_factors, o->rope_dims / 2);
    vector(pp, n, "q_norm", o->q_norm, o->head_dim);
    vector(pp, n, "k_norm", o->k_norm, o->head_dim);
    writes(pp, n, o->y, (int64_t)o->n_heads * o->v_dim, 0);
}

static void check_moe(pbi_program *pp, const char *n, const pb_op_moe *o)
{
    int64_t width = width_of(pp, o->x), e = o->n_experts;
    if (e < 1 || o->n_used < 1 || o->n_used > e) {
        FAIL(pp, PB_E_FORMAT, "%s: %d of %d experts", n, (int)o->n_used, (int)e);
        return;
    }
    reads(pp, n, "x", o->x, 0);
    vector(pp, n, "pre_norm", o->pre_norm, width);
    uses(pp, n, "router", o->router, PB_ROLE_LINEAR, e, width);
    const pb_weight_use *g = uses(pp, n, "gate", o->gate, PB_ROLE_LINEAR, 0, width);
    uses(pp, n, "up", o->up, PB_ROLE_LINEAR, g->rows, width);
    uses(pp, n, "down", o->down, PB_ROLE_LINEAR, e * width, g->rows / e);
    vector(pp, n, "bias", o->bias, e);
    if (!pp->failed && o->residual >= 0)
        reads(pp, n, "residual", o->residual, width);
    writes(pp, n, o->y, width, picked_of(pp, o->x));
}

static void check_op(pbi_program *pp, const pb_op *o)
{
    const char *n = o->name;
    switch (o->kind) {
    case PB_OP_EMBED:
        writes(pp, n, o->u.embed.y,
               uses(pp, n, "table", o->u.embed.table, PB_ROLE_LINEAR, 0, 0)->cols, 0);
        break;
    case PB_OP_LINEAR: check_linear(pp, n, &o->u.linear); break;
    case PB_OP_ATTEND: check_attend(pp, n, &o->u.attend); break;
    case PB_OP_MOE: check_moe(pp, n, &o->u.moe); break;
    case PB_OP_NORM:
        reads(pp, n, "x", o->u.norm.x, 0);
        vector(pp, n, "w", o->u.norm.w, width_of(pp, o->u.norm.x));
        writes(pp, n, o->u.norm.y, width_of(pp, o->u.norm.x), picked_of(pp, o->u.norm.x));
        break;
    case PB_OP_ADD:
        reads(pp, n, "a", o->u.add.a, 0);
        reads(pp, n, "b", o->u.add.b, width_of(pp, o->u.add.a));
        writes(pp, n, o->u.add.y, width_of(pp, o->u.add.a), picked_of(pp, o->u.add.a));
        break;
    case PB_OP_ROWS:
        reads(pp, n, "x", o->u.rows.x, 0);
        if (picked_of(pp, o->u.rows.x))
            FAIL(pp, PB_E_PLUGIN, "%s: its rows were picked already", n);
        writes(pp, n, o->u.rows.y, width_of(pp, o->u.rows.x), 1);
        break;
    case PB_OP_CUSTOM:
        if (!o->u.custom.id)
            FAIL(pp, PB_E_PLUGIN, "%s: a custom operation without id", n);
        for (int i = 0; i < 4; i++) {
            if (o->u.custom.x[i] >= 0)
                reads(pp, n, "x", o->u.custom.x[i], 0);
            if (o->u.custom.w[i] >= pp->p.n_weights)
                FAIL(pp, PB_E_PLUGIN, "%s: w is no weight", n);
        }
        for (int i = 0; i < 4 && !pp->failed; i++)
            if (o->u.custom.y[i] >= 0)
                writes(pp, n, o->u.custom.y[i], width_of(pp, o->u.custom.y[i]),
                       picked_of(pp, o->u.custom.y[i]));
        break;
    default: FAIL(pp, PB_E_PLUGIN, "%s: no operation has kind %d", n, (int)o->kind);
    }
}

static int add_op(void *h, const pb_op *op)
{
    pbi_program *pp = h;
    if (pp->failed)
        return pp->failed;
    if (pp->finished || !op->name)
        return FAIL(pp, PB_E_PLUGIN, "an operation without name, or after finish");
    for (int32_t i = 0; i < pp->p.n_ops; i++)
        if (!strcmp(pp->ops[i].name, op->name))
            return FAIL(pp, PB_E_PLUGIN, "operation %s exists already", op->name);
    check_op(pp, op);
    if (pp->failed || room(pp, &pp->ops, pp->p.n_ops, sizeof *pp->ops))
        return pp->failed;
    pp->ops[pp->p.n_ops] = *op;
    pp->ops[pp->p.n_ops].name = keep(pp, op->name);
    if (!pp->ops[pp->p.n_ops].name)
        return FAIL(pp, PB_E_NOMEM, "no memory for a program");
    if (op->kind == PB_OP_CUSTOM && !(pp->ops[pp->p.n_ops].u.custom.id = keep(pp, op->u.custom.id)))
        return FAIL(pp, PB_E_NOMEM, "no memory for a program");
    pp->p.n_ops++;
    return 0;
}

static int finish(void *h, pb_val logits, int32_t n_vocab, int32_t ctx_train)
{
    pbi_program *pp = h;
    if (pp->failed)
        return pp->failed;
    reads(pp, "program", "logits", logits, n_vocab);
    if (!pp->failed && !pp->vals[logits].picked)
        FAIL(pp, PB_E_PLUGIN, "logits are of all rows; ROWS must pick the wanted ones");
    if (!pp->failed && (n_vocab < 1 || ctx_train < 1))
        FAIL(pp, PB_E_PLUGIN, "a vocabulary of %d tokens, a context of %d", (int)n_vocab,
             (int)ctx_train);
    if (pp->failed)
        return pp->failed;
    pp->p.ops = pp->ops;
    pp->p.vals = pp->vals;
    pp->p.weights = pp->weights;
    pp->p.groups = pp->groups;
    pp->p.logits = logits;
    pp->p.n_vocab = n_vocab;
    pp->p.ctx_train = ctx_train;
    pp->finished = 1;
    return 0;
}

/* ---- the core's side --------------------------------------------------- */

int pbi_program_new(pbi_program **out, pb_err *err)
{
    pbi_program *pp = calloc(1, sizeof *pp);
    if (!pp)
        return pbi_err(err, PB_E_NOMEM, "no memory for a program");
    pp->err = err;
    pp->p.size = sizeof pp->p;
    pp->b = (pb_builder){ .size = sizeof(pb_builder),
                          .h = pp,
                          .err = err,
                          .value = add_value,
                          .weight = add_weight,
                          .group = add_group,
                          .op = add_op,
                          .finish = finish };
    *out = pp;
    return 0;
}

const pb_builder *pbi_program_builder(pbi_program *p)
{
    return &p->b;
}

pb_program *pbi_program_get(pbi_program *p)
{
    return p && p->finished ? &p->p : NULL;
}

void pbi_program_free(pbi_program *p)
{
    if (!p)
        return;
    for (int32_t i = 0; i < p->p.n_weights; i++)
        free((void *)(uintptr_t)p->weights[i].pieces);
    while (p->texts) {
        struct text *t = p->texts;
        p->texts = t->next;
        free(t);
    }
    free(p->ops);
    free(p->vals);
    free(p->weights);
    free(p->groups);
    free(p->written);
    free(p);
}

/* ---- floors and print -------------------------------------------------- */

/* multiply-adds of one row in op, without attention over the cache */
static int64_t op_macs(const pb_program *p, const pb_op *o)
{
    int64_t n = 0;
    if (o->kind == PB_OP_LINEAR)
        for (int i = 0; i < o->u.linear.n_w; i++)
            n += p->weights[o->u.linear.w[i]].rows * p->weights[o->u.linear.w[i]].cols;
    if (o->kind == PB_OP_MOE) {
        const pb_op_moe *m = &o->u.moe;
        const pb_wid w[3] = { m->gate, m->up, m->down };
        n = p->weights[m->router].rows * p->weights[m->router].cols;
        for (int i = 0; i < 3; i++)
            n += p->weights[w[i]].rows / m->n_experts * p->weights[w[i]].cols * m->n_used;
    }
    return n;
}

int64_t pbi_program_macs(const pb_program *p)
{
    int64_t n = 0;
    for (int32_t i = 0; i < p->n_ops; i++)
        n += op_macs(p, &p->ops[i]);
    return n;
}

static int64_t weight_bytes(const pb_weight_use *u)
{
    int64_t n = 0;
    for (int32_t i = 0; i < u->n_pieces; i++) {
        const pb_tensor *t = u->pieces[i].t;
        n += (int64_t)((double)t->row_bytes * (double)u->pieces[i].n_rows *
                       (double)u->pieces[i].n_cols / (double)t->cols);
    }
    return n;
}

int64_t pbi_program_weight_bytes(const pb_program *p)
{
    int64_t n = 0;
    for (int32_t i = 0; i < p->n_ops; i++) {
        const pb_op *o = &p->ops[i];
        if (o->kind == PB_OP_LINEAR)
            for (int k = 0; k < o->u.linear.n_w; k++)
                n += weight_bytes(&p->weights[o->u.linear.w[k]]);
        if (o->kind == PB_OP_MOE) {
            const pb_op_moe *m = &o->u.moe;
            const pb_wid w[3] = { m->gate, m->up, m->down };
            n += weight_bytes(&p->weights[m->router]);
            for (int k = 0; k < 3; k++)
                n += weight_bytes(&p->weights[w[k]]) / m->n_experts * m->n_used;
        }
    }
    return n;
}

static void print_value(const pb_program *p, FILE *f, const char *what, pb_val v)
{
    if (v >= 0)
        fprintf(f, " %s=%s[%d]", what, p->vals[v].name, (int)p->vals[v].width);
}

static void print_weight(const pb_program *p, FILE *f, const char *what, pb_wid w)
{
    if (w < 0)
        return;
    const pb_weight_use *u = &p->weights[w];
    fprintf(f, " %s=%s", what, u->pieces[0].t->name);
    if (u->n_pieces > 1)
        fprintf(f, "+%d", (int)u->n_pieces - 1);
    if (u->role == PB_ROLE_LINEAR)
        fprintf(f, "(%" PRId64 "x%" PRId64 " type %d)", u->rows, u->cols,
                (int)u->pieces[0].t->type);
}

static void print_op(const pb_program *p, FILE *f, const pb_op *o)
{
    static const char *const kinds[] = { "?",    "EMBED", "LINEAR", "ATTEND", "MOE",
                                         "NORM", "ADD",   "ROWS",   "CUSTOM" };
    const pb_op_linear *l = &o->u.linear;
    const pb_op_attend *a = &o->u.attend;
    fprintf(f, "%-6s %-18s", kinds[o->kind > 0 && o->kind < 9 ? o->kind : 0], o->name);
    switch (o->kind) {
    case PB_OP_EMBED:
        print_value(p, f, "y", o->u.embed.y);
        print_weight(p, f, "table", o->u.embed.table);
        break;
    case PB_OP_LINEAR:
        print_value(p, f, "x", l->x);
        print_weight(p, f, "pre_norm", l->pre_norm);
        for (int i = 0; i < l->n_w; i++) {
            print_weight(p, f, "w", l->w[i]);
            if (l->act == PB_ACT_NONE || !i)
                print_value(p, f, "y", l->y[i]);
        }
        fprintf(f, "%s", l->act == PB_ACT_SILU_MUL ? " silu*" : l->act ? " gelu*" : "");
        print_value(p, f, "residual", l->residual);
        break;
    case PB_OP_ATTEND:
        print_value(p, f, "q", a->q);
        print_value(p, f, "k", a->k);
        print_value(p, f, "v", a->v);
        print_value(p, f, "y", a->y);
        fprintf(f, " group=%d.%d heads=%d/%dx%d rope=%s base=%g", (int)a->group, (int)a->layer,
                (int)a->n_heads, (int)a->n_kv_heads, (int)a->head_dim,
                a->rope == PB_ROPE_PAIRS    ? "pairs"
                : a->rope == PB_ROPE_HALVES ? "halves"
                                            : "none",
                a->rope_base);
        break;
    case PB_OP_MOE:
        print_value(p, f, "x", o->u.moe.x);
        print_weight(p, f, "router", o->u.moe.router);
        print_value(p, f, "y", o->u.moe.y);
        fprintf(f, " experts=%d/%d", (int)o->u.moe.n_used, (int)o->u.moe.n_experts);
        break;
    case PB_OP_NORM:
        print_value(p, f, "x", o->u.norm.x);
        print_value(p, f, "y", o->u.norm.y);
        break;
    case PB_OP_ADD:
        print_value(p, f, "a", o->u.add.a);
        print_value(p, f, "b", o->u.add.b);
        print_value(p, f, "y", o->u.add.y);
        break;
    case PB_OP_ROWS:
        print_value(p, f, "x", o->u.rows.x);
        print_value(p, f, "y", o->u.rows.y);
        break;
    default: fprintf(f, " %s", o->u.custom.id); break;
    }
    if (op_macs(p, o))
        fprintf(f, " MAC=%" PRId64, op_macs(p, o));
    fputc('\n', f);
}

void pbi_program_print(const pb_program *p, FILE *f)
{
    for (int32_t i = 0; i < p->n_ops; i++)
        print_op(p, f, &p->ops[i]);
    for (int32_t g = 0; g < p->n_groups; g++)
        fprintf(f, "KV group %d: %d layers, %d heads of %d, window %d\n", (int)g,
                (int)p->groups[g].n_layers, (int)p->groups[g].n_kv_heads,
                (int)p->groups[g].head_dim, (int)p->groups[g].window);
    fprintf(f,
            "%d operations, %d values, %d weights; vocabulary %d, trained context %d\n"
            "a row: %" PRId64 " multiply-adds; a decode step reads %" PRId64 " weight bytes\n",
            (int)p->n_ops, (int)p->n_vals, (int)p->n_weights, (int)p->n_vocab, (int)p->ctx_train,
            pbi_program_macs(p), pbi_program_weight_bytes(p));
}
