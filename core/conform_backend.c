/* SPDX-License-Identifier: MIT
 *
 * core/conform_backend.c - a backend runs a one-layer program: the same sequence alone and in
 * one step, then cut in two among another's rows and on other pages. The logits must have the
 * same bits, greedy, forced and seeded draws must agree with them, and what cannot be done
 * must be refused with a reason. Whether the numbers are right is the backend's own test.
 */
#define _GNU_SOURCE 1
#include "conform_checks.h"
#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { W = 64, V = 96, HEAD = 32, N_TOK = 20, CUT = 7, N_PAGES = 12, MAX_TABLE = 8, N_TENSORS = 7 };

typedef struct world {
    pbi_rig rig;
    const pb_backend *v;
    pb_tensor t[N_TENSORS];
    float *data[N_TENSORS];
    pbi_program *prog;
    pb_program *p;
    struct pb_exec *exec;
    void *arena;
    uint64_t arena_bytes;
    struct pb_kv *kv;
    pb_kv_plan plan;
    pb_kv_group group;
    uint64_t n_step;
    float logits[V];
    int32_t id;
} world;

static int read_rows(const pb_tensor *t, int64_t row0, int64_t n, void *dst)
{
    if (row0 < 0 || n < 0 || row0 + n > t->rows)
        return PB_E_INVAL;
    memcpy(dst, (const char *)t->data + (size_t)row0 * t->row_bytes, (size_t)n * t->row_bytes);
    return 0;
}

/* ---- the program ------------------------------------------------------- */

static int make_tensors(world *w, uint64_t seed)
{
    static const struct {
        const char *name;
        int64_t rows, cols;
    } shape[N_TENSORS] = { { "embed", V, W }, { "norm", 1, W }, { "q", W, W },   { "k", HEAD, W },
                           { "v", HEAD, W },  { "o", W, W },    { "head", V, W } };
    for (int i = 0; i < N_TENSORS; i++) {
        int64_t n = shape[i].rows * shape[i].cols;
        w->data[i] = malloc((size_t)n * sizeof(float));
        if (!w->data[i])
            return -1;
        for (int64_t k = 0; k < n; k++)
            w->data[i][k] = (float)pbi_rig_below(&seed, 2001) * 0.0005f - 0.5f;
        w->t[i] = (pb_tensor){ .name = shape[i].name,
                               .type = PB_F32,
                               .n_dims = shape[i].rows > 1 ? 2 : 1,
                               .dim = { shape[i].cols, shape[i].rows, 1, 1 },
                               .rows = shape[i].rows,
                               .cols = shape[i].cols,
                               .row_bytes = (uint64_t)shape[i].cols * sizeof(float),
                               .content = 1000 + (uint64_t)i,
                               .data = w->data[i],
                               .read = read_rows };
    }
    return 0;
}

static pb_wid weight_of(world *w, const pb_builder *b, int i)
{
    pb_piece p = { &w->t[i], 0, w->t[i].rows, 0, W };
    return b->weight(b->h, i == 1 ? PB_ROLE_VECTOR : PB_ROLE_LINEAR, 1, &p);
}

static pb_op linear(const char *name, int32_t layer, pb_val x, pb_val y, pb_wid w, pb_wid norm)
{
    return (pb_op){ .kind = PB_OP_LINEAR,
                    .layer = layer,
                    .name = name,
                    .u.linear = { .x = x,
                                  .residual = -1,
                                  .y = { y, -1, -1, -1 },
                                  .w = { w, -1, -1, -1 },
                                  .b = { -1, -1, -1, -1 },
                                  .pre_norm = norm,
                                  .post_norm = -1,
                                  .eps = 1e-5f,
                                  .n_w = 1 } };
}

/* custom: with an operation that no backend knows. */
static int build(world *w, int custom, pb_err *err)
{
    if (pbi_program_new(&w->prog, err))
        return err->code;
    const pb_builder *b = pbi_program_builder(w->prog);
    pb_val h = b->value(b->h, "h", W, 0), q = b->value(b->h, "q", W, 0),
           k = b->value(b->h, "k", HEAD, 0), v = b->value(b->h, "v", HEAD, 0),
           a = b->value(b->h, "a", W, 0), h2 = b->value(b->h, "h2", W, 0),
           last = b->value(b->h, "last", W, 1), out = b->value(b->h, "logits", V, 1);
    pb_wid id[N_TENSORS];
    for (int i = 0; i < N_TENSORS; i++)
        id[i] = weight_of(w, b, i);
    pb_kv_shape shape = { .size = sizeof shape,
                          .kind = PB_KV_GQA,
                          .n_layers = 1,
                          .n_kv_heads = 1,
                          .head_dim = HEAD,
                          .v_dim = HEAD };
    int32_t g = b->group(b->h, &shape);
    pb_op qkv = linear("blk.0.qkv", 0, h, q, id[2], id[1]);
    qkv.u.linear.n_w = 3;
    qkv.u.linear.y[1] = k;
    qkv.u.linear.y[2] = v;
    qkv.u.linear.w[1] = id[3];
    qkv.u.linear.w[2] = id[4];
    pb_op o = linear("blk.0.out", 0, a, h2, id[5], -1);
    o.u.linear.residual = h;
    pb_op ops[] = {
        { .kind = PB_OP_EMBED, .layer = -1, .name = "embed", .u.embed = { h, id[0], 1.0f } },
        qkv,
        { .kind = PB_OP_ATTEND,
          .name = "blk.0.attend",
          .u.attend = { .q = q,
                        .k = k,
                        .v = v,
                        .y = a,
                        .group = g,
                        .n_heads = 2,
                        .n_kv_heads = 1,
                        .head_dim = HEAD,
                        .v_dim = HEAD,
                        .rope = PB_ROPE_HALVES,
                        .rope_dims = HEAD,
                        .scale = 0.176776695f,
                        .eps = 1e-5f,
                        .rope_base = 10000,
                        .rope_scale = 1,
                        .rope_factors = -1,
                        .q_norm = -1,
                        .k_norm = -1 } },
        o,
        { .kind = PB_OP_ROWS, .layer = -1, .name = "rows", .u.rows = { h2, last } },
        linear("head", -1, last, out, id[6], id[1]),
    };
    pb_op odd = { .kind = PB_OP_CUSTOM,
                  .layer = -1,
                  .name = "odd",
                  .u.custom = { .id = "lint.no-such-operation",
                                .x = { h2, -1, -1, -1 },
                                .y = { -1, -1, -1, -1 },
                                .w = { -1, -1, -1, -1 } } };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        b->op(b->h, &ops[i]);
        if (custom && i == 3)
            b->op(b->h, &odd);
    }
    b->finish(b->h, out, V, 64);
    w->p = pbi_program_get(w->prog);
    return w->p ? 0 : err->code ? err->code : PB_E_INTERNAL;
}

/* ---- set up and down --------------------------------------------------- */

static int failed(pbi_lint *l, const char *what, int rc, const pb_err *err)
{
    return pbi_say(l, PBI_FAIL, "%s returns %d: %s", what, rc,
                   err->msg[0] ? err->msg : "no message in err");
}

static int set_up(pbi_lint *l, world *w, int custom)
{
    static const pb_limits lim = {
        .size = sizeof lim, .max_rows = 64, .max_seqs = 4, .max_ctx = 64, .max_out = 8
    };
    pb_err err = { 0 };
    int rc = make_tensors(w, l->seed) ? PB_E_NOMEM : build(w, custom, &err);
    if (rc)
        return custom ? PBI_SKIP : failed(l, "the program", rc, &err);
    rc = pbi_rig_open(&w->rig, l->lib, 0, NULL, &err);
    if (rc)
        return failed(l, "with default options: create()", rc, &err);
    w->v = pbi_rig_iface(&w->rig, "backend/1");
    for (int32_t i = 0; i < w->p->n_weights; i++) {
        pb_weight_use *u = &w->p->weights[i];
        uint64_t bytes = 0;
        pbi_rig_at(&w->rig, "weight");
        rc = w->v->weight(w->rig.self, u->role, u->n_pieces, u->pieces, &u->packed, &bytes, &err);
        if (rc)
            return failed(l, "weight()", rc, &err);
    }
    pbi_rig_at(&w->rig, "compile");
    rc = w->v->compile(w->rig.self, w->p, &lim, &w->exec, &err);
    pbi_rig_at(&w->rig, NULL);
    if (custom)
        return rc == 0       ? pbi_say(l, PBI_FAIL, "compile() accepts an unknown operation")
               : !err.msg[0] ? pbi_say(l, PBI_FAIL, "compile() fails without a reason")
               : !strstr(err.msg, "odd") ? pbi_say(l, PBI_FAIL,
                                                   "compile() does not name the operation that it "
                                                   "cannot do: %s",
                                                   err.msg)
                                         : PBI_PASS;
    return rc ? failed(l, "compile()", rc, &err) : PBI_PASS;
}

static int set_up_kv(pbi_lint *l, world *w)
{
    pb_err err = { 0 };
    w->group = (pb_kv_group){ .size = sizeof(pb_kv_group) };
    pbi_rig_at(&w->rig, "kv_group");
    int rc = w->v->kv_group(w->rig.self, &w->p->groups[0], &w->group, &err);
    if (rc)
        return failed(l, "kv_group()", rc, &err);
    if (w->group.granule < 1 || w->group.token_bytes < 1)
        return pbi_say(l, PBI_FAIL, "kv_group() gives granule %d, %lld bytes a token",
                       w->group.granule, (long long)w->group.token_bytes);
    int32_t g = w->group.granule;
    w->plan = (pb_kv_plan){ .page_tokens = (8 + g - 1) / g * g, .n_pages = N_PAGES };
    w->arena_bytes =
        (uint64_t)N_PAGES * (uint64_t)w->plan.page_tokens * (uint64_t)w->group.token_bytes;
    pbi_rig_at(&w->rig, "arena");
    rc = w->v->arena(w->rig.self, w->arena_bytes, &w->arena, &err);
    if (rc)
        return failed(l, "arena()", rc, &err);
    pbi_rig_at(&w->rig, "kv");
    rc = w->v->kv(w->rig.self, w->exec, w->arena, w->arena_bytes / 2, 1, &w->plan, &w->kv, &err);
    if (rc >= 0 || !err.msg[0])
        return pbi_say(l, PBI_FAIL, "kv() of %d pages in half of the bytes that they need %s",
                       N_PAGES, rc >= 0 ? "succeeds" : "fails without a reason");
    w->kv = NULL;
    err = (pb_err){ 0 };
    rc = w->v->kv(w->rig.self, w->exec, w->arena, w->arena_bytes, 1, &w->plan, &w->kv, &err);
    pbi_rig_at(&w->rig, NULL);
    return rc ? failed(l, "kv()", rc, &err) : PBI_PASS;
}

static int tear_down(pbi_lint *l, world *w, int status)
{
    pb_err err = { 0 };
    pbi_rig_at(&w->rig, "free");
    if (w->kv)
        w->v->kv_free(w->rig.self, w->kv);
    if (w->exec)
        w->v->exec_free(w->rig.self, w->exec);
    if (w->arena)
        w->v->arena_free(w->rig.self, w->arena);
    for (int32_t i = 0; w->v && w->p && i < w->p->n_weights; i++)
        if (w->p->weights[i].packed)
            w->v->weight_free(w->rig.self, w->p->weights[i].packed);
    if (w->rig.lib && pbi_rig_done(&w->rig, &err) && status < PBI_FAIL)
        status = pbi_say(l, PBI_FAIL, "%s", err.msg);
    pbi_program_free(w->prog);
    for (int i = 0; i < N_TENSORS; i++)
        free(w->data[i]);
    free(w);
    return status;
}

/* ---- steps ------------------------------------------------------------- */

typedef struct part { /* one sequence of a step */
    const int32_t *tokens;
    int32_t pos, n, slot, wanted;
    const pb_page *pages; /* [MAX_TABLE] */
} part;

typedef struct record {
    pb_step s;
    int32_t col[1024];
} record;

static uint32_t put(record *r, int32_t *at, const int32_t *v, int32_t n)
{
    uint32_t offset = (uint32_t)(offsetof(record, col) + (size_t)*at * sizeof(int32_t));
    memcpy(&r->col[*at], v, (size_t)n * sizeof *v);
    *at += n;
    return offset;
}

static void make_step(world *w, record *r, const part *p, int32_t n)
{
    int32_t token[64], pos[64], row[5] = { 0 }, slot[4], adapter[4], begin[5] = { 0 }, out[4],
                                table[4 * MAX_TABLE], at = 0, k = 0, n_out = 0;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = 0; j < p[i].n; j++, k++) {
            token[k] = p[i].tokens[p[i].pos + j];
            pos[k] = p[i].pos + j;
        }
        if (p[i].wanted)
            out[n_out++] = k - 1;
        row[i + 1] = k;
        slot[i] = p[i].slot;
        adapter[i] = -1;
        memcpy(table + i * MAX_TABLE, p[i].pages, MAX_TABLE * sizeof *table);
        begin[i + 1] = (i + 1) * MAX_TABLE;
    }
    memset(r, 0, sizeof *r);
    r->s = (pb_step){ .size = sizeof(pb_step),
                      .n = ++w->n_step,
                      .n_rows = k,
                      .n_seqs = n,
                      .n_out = n_out,
                      .n_groups = 1,
                      .flags = PB_STEP_LOGITS };
    r->s.token = put(r, &at, token, k);
    r->s.pos = put(r, &at, pos, k);
    r->s.kv_pos = put(r, &at, pos, k);
    r->s.row_begin = put(r, &at, row, n + 1);
    r->s.slot = put(r, &at, slot, n);
    r->s.adapter = put(r, &at, adapter, n);
    r->s.table_begin = put(r, &at, begin, n + 1);
    r->s.table = put(r, &at, table, n * MAX_TABLE);
    if (n_out)
        r->s.out_row = put(r, &at, out, n_out);
    r->s.bytes = (offsetof(record, col) + (size_t)at * sizeof(int32_t) + 63) / 64 * 64;
}

/* Runs a step; the answer of its last wanted row goes to w->logits, w->id. */
static int run_step(pbi_lint *l, world *w, const part *p, int32_t n, const pb_draw *d)
{
    record *r = malloc(sizeof *r);
    pb_result res = { .size = sizeof res };
    pb_draw draws[4];
    make_step(w, r, p, n);
    for (int32_t i = 0; i < r->s.n_out; i++)
        draws[i] = *d;
    pbi_rig_at(&w->rig, "submit");
    int rc = w->v->submit(w->rig.self, w->exec, w->kv, &r->s);
    pbi_rig_at(&w->rig, "pick");
    if (!rc && r->s.n_out)
        rc = w->v->pick(w->rig.self, w->exec, r->s.n_out, draws, sizeof *draws);
    pbi_rig_at(&w->rig, "wait");
    if (!rc)
        rc = w->v->wait(w->rig.self, w->exec, w->n_step, &res);
    pbi_rig_at(&w->rig, NULL);
    int32_t n_out = r->s.n_out;
    memset(r, 0x7e, sizeof *r); /* a backend that still looks at it is found out */
    free(r);
    if (rc)
        return pbi_say(l, PBI_FAIL, "a step of %d sequences fails with %d", n, rc);
    if (n_out == 0)
        return PBI_PASS;
    if (res.n_out != n_out || !res.ids || res.n_vocab != V || !res.logits)
        return pbi_say(l, PBI_FAIL,
                       "wait() gives %d of %d rows, %s ids, %s logits, vocabulary %lld", res.n_out,
                       n_out, res.ids ? "with" : "no", res.logits ? "with" : "no",
                       (long long)res.n_vocab);
    w->id = res.ids[n_out - 1];
    memcpy(w->logits, res.logits + (size_t)(n_out - 1) * V, sizeof w->logits);
    if (w->id < 0 || w->id >= V)
        return pbi_say(l, PBI_FAIL, "wait() gives token %d of a vocabulary of %d", w->id, V);
    return PBI_PASS;
}

static int check_draw(pbi_lint *l, const world *w, const pb_draw *d, const char *how)
{
    int32_t best = 0;
    for (int32_t i = 1; i < V; i++)
        if (w->logits[i] > w->logits[best])
            best = i;
    if (d->forced >= 0 && w->id != d->forced)
        return pbi_say(l, PBI_FAIL, "%s: token %d was forced, %d is drawn", how, d->forced, w->id);
    if (d->forced < 0 && d->temperature == 0 && w->id != best)
        return pbi_say(l, PBI_FAIL, "%s: token %d is drawn, %d has the highest logit", how, w->id,
                       best);
    return PBI_PASS;
}

/* The sequence alone, then in two parts with another one and other pages. */
static int compare_runs(pbi_lint *l, world *w, const pb_draw *d)
{
    static const pb_page one[MAX_TABLE] = { 1, 2, 3 }, two[MAX_TABLE] = { 9, 4, 7 },
                         other[MAX_TABLE] = { 8, 5, 6 };
    int32_t tok[N_TOK], tok2[N_TOK];
    float logits[V];
    uint64_t rng = l->seed + 9;
    for (int i = 0; i < N_TOK; i++) {
        tok[i] = (int32_t)pbi_rig_below(&rng, V);
        tok2[i] = (int32_t)pbi_rig_below(&rng, V);
    }
    part alone = { tok, 0, N_TOK, 0, 1, one };
    int status = run_step(l, w, &alone, 1, d);
    if (!status)
        status = check_draw(l, w, d, "alone");
    int32_t id = w->id;
    memcpy(logits, w->logits, sizeof logits);
    part first[] = { { tok2, 0, N_TOK - 2, 0, 0, other }, { tok, 0, CUT, 2, 0, two } };
    part second[] = { { tok2, N_TOK - 2, 1, 0, 1, other }, { tok, CUT, N_TOK - CUT, 2, 1, two } };
    if (!status)
        status = run_step(l, w, first, 2, d);
    if (!status)
        status = run_step(l, w, second, 2, d);
    if (!status)
        status = check_draw(l, w, d, "in a batch");
    for (int i = 0; i < V && !status; i++)
        if (memcmp(&logits[i], &w->logits[i], sizeof(float)))
            status = pbi_say(l, PBI_FAIL,
                             "logit %d is %.9g alone and in one step, %.9g in two steps, a batch "
                             "and other pages",
                             i, (double)logits[i], (double)w->logits[i]);
    if (!status && id != w->id)
        status = pbi_say(l, PBI_FAIL, "equal logits and draws give token %d, then %d", id, w->id);
    return status;
}

int pbi_check_backend(pbi_lint *l)
{
    pb_draw draws[] = { { .temperature = 0, .forced = -1 },
                        { .temperature = 1, .forced = -1, .seed = 5, .pos = N_TOK },
                        { .temperature = 2, .forced = -1, .seed = 6, .pos = N_TOK, .top_k = 9 },
                        { .temperature = 1, .forced = 41 } };
    world *w = calloc(1, sizeof *w);
    int status = set_up(l, w, 1); /* refused, and nothing left */
    status = tear_down(l, w, status == PBI_SKIP ? PBI_PASS : status);
    if (status)
        return status;
    w = calloc(1, sizeof *w);
    status = set_up(l, w, 0);
    if (!status)
        status = set_up_kv(l, w);
    for (size_t i = 0; i < sizeof draws / sizeof *draws && !status; i++) {
        draws[i].size = sizeof(pb_draw);
        draws[i].top_p = 1;
        draws[i].n_logprobs = -1;
        status = compare_runs(l, w, &draws[i]);
    }
    return tear_down(l, w, status);
}
