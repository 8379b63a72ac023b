/* SPDX-License-Identifier: MIT
 *
 * plugins/model-llama/llama.c - writes the program of Llama-like models (Touvron et al. 2023):
 * Llama, SmolLM2, stories. Five operations a layer; see build_layer.
 *
 * It computes nothing and reads no weight; which tensor is which is in names.c. Invariant: all
 * shapes are checked here against the hyperparameters, so that a wrong file is refused with the
 * tensor's name and offset. Test: tests/unit/test_model_llama.c
 */
#include "llama.h"
#include "../weights-common/fail.h"

#include <math.h>
#include <string.h>

typedef struct llama {
    const pb_host *host;
    derived *made; /* tensors of the last program */
} llama;

/* One build. `failed` keeps the first error, so that build_layer reads without checks. */
typedef struct ctx {
    llama *self;
    const pb_meta *m;
    const pb_builder *b;
    pb_err *err;
    shape s;
    int failed;
    int64_t vocab;
    pb_wid freqs;
    unsigned char *used; /* [n_tensors] */
} ctx;

/* ---- parts ------------------------------------------------------------- */

/* A whole tensor as a weight of rows x cols (0: any), times the factor that the file gives
 * tensor scale_of (-1: none). need = 0: -1 if it is absent. */
static pb_wid weight(ctx *c, int what, int scale_of, int32_t layer, int32_t role, int64_t rows,
                     int64_t cols, int need)
{
    if (c->failed)
        return -1;
    const pb_tensor *t = find_tensor(c->m, what, layer);
    const pb_tensor *scale = scale_of >= 0 ? find_scale(c->m, scale_of, layer) : NULL;
    char name[128];
    if (!t) {
        tensor_name(c->m, what, layer, name, sizeof name);
        if (need)
            c->failed = fail(c->err, PB_E_FORMAT, "%s: tensor %s is missing", c->m->path, name);
        return -1;
    }
    if ((rows && t->rows != rows) || (cols && t->cols != cols) || t->rows < 1 || t->cols < 1) {
        c->failed = fail(c->err, PB_E_FORMAT,
                         "%s: tensor %s at offset %llu has %lld rows of %lld; the model needs "
                         "%lld of %lld",
                         c->m->path, t->name, (unsigned long long)t->offset, (long long)t->rows,
                         (long long)t->cols, (long long)(rows ? rows : t->rows),
                         (long long)(cols ? cols : t->cols));
        return -1;
    }
    c->used[t - c->m->tensors] = 1;
    if (scale) {
        c->used[scale - c->m->tensors] = 1;
        c->failed = derive_scaled(c->self->host, &c->self->made, t, scale, &t, c->err);
        if (c->failed)
            return -1;
    }
    pb_piece p = { .t = t, .n_rows = t->rows, .n_cols = t->cols };
    pb_wid w = c->b->weight(c->b->h, role, 1, &p);
    if (w < 0)
        c->failed = w;
    return w;
}

static pb_wid matrix(ctx *c, int what, int32_t layer, int64_t rows, int64_t cols)
{
    return weight(c, what, what, layer, PB_ROLE_LINEAR, rows, cols, 1);
}

static pb_wid norm(ctx *c, int what, int32_t layer)
{
    return weight(c, what, -1, layer, PB_ROLE_VECTOR, 1, c->s.width, 1);
}

/* scale_of: the matrix whose factor applies to the sum of product and bias, or -1 */
static pb_wid bias(ctx *c, int what, int scale_of, int32_t layer, int64_t n)
{
    return weight(c, what, scale_of, layer, PB_ROLE_VECTOR, 1, n, 0);
}

static pb_val value(ctx *c, int32_t layer, const char *what, int64_t width, int picked)
{
    char name[64];
    if (c->failed)
        return -1;
    if (layer >= 0)
        snprintf(name, sizeof name, "blk.%d.%s", (int)layer, what);
    else
        snprintf(name, sizeof name, "%s", what);
    pb_val v = c->b->value(c->b->h, name, (int32_t)width, picked);
    if (v < 0)
        c->failed = v;
    return v;
}

static void op(ctx *c, int32_t layer, const char *what, pb_op *o)
{
    char name[64];
    if (c->failed)
        return;
    if (layer >= 0)
        snprintf(name, sizeof name, "blk.%d.%s", (int)layer, what);
    else
        snprintf(name, sizeof name, "%s", what);
    o->layer = layer;
    o->name = name;
    int rc = c->b->op(c->b->h, o);
    if (rc < 0)
        c->failed = rc;
}

/* a LINEAR without outputs, weights and norms yet */
static pb_op linear(const ctx *c, pb_val x, int32_t n_w)
{
    return (pb_op){ .kind = PB_OP_LINEAR,
                    .u.linear = { .x = x,
                                  .residual = -1,
                                  .y = { -1, -1, -1, -1 },
                                  .w = { -1, -1, -1, -1 },
                                  .b = { -1, -1, -1, -1 },
                                  .pre_norm = -1,
                                  .post_norm = -1,
                                  .eps = c->s.eps,
                                  .n_w = n_w } };
}

/* ---- the program ------------------------------------------------------- */

static pb_val build_attention(ctx *c, int32_t l, pb_val x)
{
    const shape *s = &c->s;
    int64_t qw = (int64_t)s->heads * s->head_dim, kw = (int64_t)s->kv_heads * s->head_dim;
    static const int mats[] = { T_Q, T_K, T_V };
    static const int biases[] = { T_Q_BIAS, T_K_BIAS, T_V_BIAS };
    static const char *const outs[] = { "q", "k", "v" };

    pb_op qkv = linear(c, x, 3);
    qkv.u.linear.pre_norm = norm(c, T_ATTN_NORM, l);
    for (int i = 0; i < 3; i++) {
        int64_t rows = i ? kw : qw;
        qkv.u.linear.w[i] = matrix(c, mats[i], l, rows, s->width);
        qkv.u.linear.b[i] = bias(c, biases[i], -1, l, rows);
        qkv.u.linear.y[i] = value(c, l, outs[i], rows, 0);
    }
    op(c, l, "qkv", &qkv);

    pb_val att = value(c, l, "att", qw, 0);
    pb_op a = { .kind = PB_OP_ATTEND,
                .u.attend = { .q = qkv.u.linear.y[0],
                              .k = qkv.u.linear.y[1],
                              .v = qkv.u.linear.y[2],
                              .y = att,
                              .group = 0,
                              .layer = l,
                              .n_heads = s->heads,
                              .n_kv_heads = s->kv_heads,
                              .head_dim = s->head_dim,
                              .v_dim = s->head_dim,
                              .window = s->window,
                              .rope = s->rope,
                              .rope_dims = s->rope_dims,
                              .scale = (float)(1 / sqrt(s->head_dim)),
                              .eps = s->eps,
                              .rope_base = s->rope_base,
                              .rope_scale = s->rope_scale,
                              .rope_factors = c->freqs,
                              .q_norm = -1,
                              .k_norm = -1 } };
    op(c, l, "attend", &a);

    pb_op o = linear(c, att, 1);
    o.u.linear.w[0] = matrix(c, T_O, l, s->width, qw);
    o.u.linear.b[0] = bias(c, T_O_BIAS, -1, l, s->width);
    o.u.linear.y[0] = value(c, l, "mid", s->width, 0);
    o.u.linear.residual = x;
    op(c, l, "o", &o);
    return o.u.linear.y[0];
}

/* qkv, attend, o + x; gate and up, down + x. Returns the layer's output. Where a file has both
 * a factor and a bias, llama.cpp multiplies the product alone in attention, but the sum of product
 * and bias in the MLP; files are written for that. */
static pb_val build_layer(ctx *c, int32_t l, pb_val x)
{
    const shape *s = &c->s;
    pb_val mid = build_attention(c, l, x);

    pb_op up = linear(c, mid, 2);
    up.u.linear.pre_norm = norm(c, T_FFN_NORM, l);
    up.u.linear.act = PB_ACT_SILU_MUL;
    up.u.linear.w[0] = matrix(c, T_GATE, l, s->ffn, s->width);
    up.u.linear.w[1] = matrix(c, T_UP, l, s->ffn, s->width);
    up.u.linear.b[0] = bias(c, T_GATE_BIAS, T_GATE, l, s->ffn);
    up.u.linear.b[1] = bias(c, T_UP_BIAS, T_UP, l, s->ffn);
    up.u.linear.y[0] = value(c, l, "ffn", s->ffn, 0);
    op(c, l, "gate_up", &up);

    pb_op down = linear(c, up.u.linear.y[0], 1);
    down.u.linear.w[0] = matrix(c, T_DOWN, l, s->width, s->ffn);
    down.u.linear.b[0] = bias(c, T_DOWN_BIAS, T_DOWN, l, s->width);
    down.u.linear.y[0] = value(c, l, "out", s->width, 0);
    down.u.linear.residual = mid;
    op(c, l, "down", &down);
    return down.u.linear.y[0];
}

static pb_val build_head(ctx *c, pb_val x, pb_wid table)
{
    const shape *s = &c->s;
    pb_val last = value(c, -1, "last", s->width, 1);
    pb_op rows = { .kind = PB_OP_ROWS, .u.rows = { .x = x, .y = last } };
    op(c, -1, "rows", &rows);

    int own = !c->failed && find_tensor(c->m, T_OUTPUT, 0) && s->tied != 1;
    pb_op out = linear(c, last, 1);
    out.u.linear.pre_norm = norm(c, T_OUT_NORM, 0);
    if (own || s->tied == 0)
        table = matrix(c, T_OUTPUT, 0, c->vocab, s->width);
    out.u.linear.w[0] = table;
    out.u.linear.y[0] = value(c, -1, "logits", c->vocab, 1);
    op(c, -1, "output", &out);
    return out.u.linear.y[0];
}

/* ---- rope factors ------------------------------------------------------ */

/* Llama 3's scaling (Meta's llama-models, "apply_scaling"): wavelengths under context/high stay,
 * those over context/low are stretched by factor, between them the two are blended. Here each
 * frequency is divided by factors[i]. */
static void build_llama3(ctx *c)
{
    const shape *s = &c->s;
    int32_t n = s->rope_dims / 2;
    derived *d = NULL;
    c->failed = derive_vector(c->self->host, &c->self->made, "rope_freqs.weight", n, &d, c->err);
    if (c->failed)
        return;
    for (int32_t i = 0; i < n; i++) {
        double freq = pow(s->rope_base, -2.0 * i / s->rope_dims);
        double wave = 2 * 3.14159265358979323846 / freq;
        double blend = (s->l3_context / wave - s->l3_low) / (s->l3_high - s->l3_low);
        blend = blend < 0 ? 0 : blend > 1 ? 1 : blend;
        d->values[i] = (float)(1 / ((1 - blend) / s->l3_factor + blend));
    }
    derive_seal(d);
    pb_piece p = { .t = &d->t, .n_rows = 1, .n_cols = n };
    c->freqs = c->b->weight(c->b->h, PB_ROLE_VECTOR, 1, &p);
    if (c->freqs < 0)
        c->failed = c->freqs;
}

static void build_freqs(ctx *c)
{
    if (c->s.has_llama3)
        build_llama3(c);
    else
        c->freqs = weight(c, T_FREQS, -1, 0, PB_ROLE_VECTOR, 1, c->s.rope_dims / 2, 0);
}

/* A tensor that nothing reads belongs to a model that this plugin does not know: better no answer
 * than a wrong one. */
static void check_used(ctx *c)
{
    for (int32_t i = 0; i < c->m->n_tensors && !c->failed; i++) {
        const char *name = c->m->tensors[i].name;
        if (c->used[i] || is_ballast(name))
            continue;
        if (c->s.tied == 1 && &c->m->tensors[i] == find_tensor(c->m, T_OUTPUT, 0))
            continue; /* a copy of the embeddings */
        c->failed =
            fail(c->err, PB_E_UNSUPPORTED,
                 "%s: tensor %s at offset %llu has no place in a Llama of %d layers", c->m->path,
                 name, (unsigned long long)c->m->tensors[i].offset, (int)c->s.layers);
    }
}

/* ---- interface --------------------------------------------------------- */

static int match(const pb_meta *m)
{
    pb_str a = arch_of(m);
    return a.n == 5 && !memcmp(a.s, "llama", 5) ? 100 : 0;
}

static void build_all(ctx *c)
{
    pb_wid table = matrix(c, T_EMBED, 0, c->vocab, c->s.width);
    build_freqs(c);
    pb_kv_shape kv = { .size = sizeof kv,
                       .kind = PB_KV_GQA,
                       .n_layers = c->s.layers,
                       .window = c->s.window,
                       .n_kv_heads = c->s.kv_heads,
                       .head_dim = c->s.head_dim,
                       .v_dim = c->s.head_dim };
    if (!c->failed && c->b->group(c->b->h, &kv) < 0)
        c->failed = c->err->code;
    pb_val x = value(c, -1, "embedding", c->s.width, 0);
    pb_op e = { .kind = PB_OP_EMBED, .u.embed = { .y = x, .table = table, .scale = 1 } };
    op(c, -1, "embed", &e);
    for (int32_t l = 0; l < c->s.layers && !c->failed; l++)
        x = build_layer(c, l, x);
    pb_val logits = build_head(c, x, table);
    check_used(c);
    if (!c->failed)
        c->failed = c->b->finish(c->b->h, logits, (int32_t)c->vocab, c->s.context);
}

static int build(void *self, const pb_meta *m, int32_t max_ctx, const pb_builder *b, pb_err *err)
{
    ctx c = { .self = self, .m = m, .b = b, .err = err, .freqs = -1 };
    (void)max_ctx;
    if (!match(m))
        return fail(err, PB_E_UNSUPPORTED, "%s: architecture \"%.*s\"; model llama knows llama",
                    m->path, (int)(arch_of(m).n < 40 ? arch_of(m).n : 40), arch_of(m).s);
    if ((c.failed = read_shape(m, &c.s, err)))
        return c.failed;
    const pb_tensor *embed = find_tensor(m, T_EMBED, 0);
    c.vocab = embed ? embed->rows : 0;
    if (c.vocab > 1 << 24)
        return fail(err, PB_E_FORMAT, "%s: tensor %s has %lld rows, over %d", m->path, embed->name,
                    (long long)c.vocab, 1 << 24);
    const pb_host *host = c.self->host;
    derived_free(host, c.self->made);
    c.self->made = NULL;
    c.used = host->alloc(host, (size_t)m->n_tensors + 1, 0, "used tensors");
    if (!c.used)
        return fail(err, PB_E_NOMEM, "no memory for %d marks", (int)m->n_tensors);
    build_all(&c);
    host->free(host, c.used);
    return c.failed;
}

/* ---- lifecycle --------------------------------------------------------- */

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    llama *l = host->alloc(host, sizeof *l, 0, "llama");
    (void)cfg;
    if (!l)
        return fail(err, PB_E_NOMEM, "no memory for the model");
    l->host = host;
    *self = l;
    return 0;
}

static void destroy(void *self)
{
    llama *l = self;
    derived_free(l->host, l->made);
    l->host->free(l->host, l);
}

static const pb_model model = { .size = sizeof model, .match = match, .build = build };
static const pb_iface ifaces[] = { { "model/1", &model }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_EXACT,
    .slot = "model",
    .name = "llama",
    .version = "0.1",
    .license = "MIT",
    .summary = "Llama and SmolLM2",
    .ifaces = ifaces,
    .create = create,
    .destroy = destroy,
};
