/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/test_cpu.c - a whole small program on the backend, through nothing but the
 * plugin's descriptor and a host made here, against a computation in double that shares no line
 * with it; and that batch, threads, pages and instruction set cannot be seen in the logits.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

extern const pb_plugin pb_plugin_v0;

/* ---- a host --------------------------------------------------------------------- */

enum { MAX_T = 4 };

static const pb_kernel_set *extra_rows; /* of a kernels plugin; or NULL */

typedef struct rig {
    pb_host host;
    pb_team team;
    pthread_barrier_t bar;
    cpu_stats stats;
    cpu_config cfg;
    int64_t live;
} rig;

static void *rig_alloc(const pb_host *h, size_t n, size_t align, const char *tag)
{
    rig *g = h->h;
    void *p = NULL;
    if (posix_memalign(&p, align > 64 ? align : 64, n ? n : 1))
        return NULL;
    memset(p, 0, n);
    g->live++;
    return p;
}

static void rig_free(const pb_host *h, void *p)
{
    rig *g = h->h;
    g->live -= p != NULL;
    free(p);
}

static int64_t rig_now(const pb_host *h)
{
    return 0;
}

static void rig_log(const pb_host *h, int32_t level, const char *msg)
{
}

typedef struct job {
    rig *g;
    void (*fn)(void *, int32_t, int32_t);
    void *arg;
    int32_t i;
} job;

static void *job_main(void *arg)
{
    job *j = arg;
    j->fn(j->arg, j->i, j->g->team.n_threads);
    return NULL;
}

static void rig_run(void *h, void (*fn)(void *, int32_t, int32_t), void *arg)
{
    rig *g = h;
    pthread_t t[MAX_T];
    job j[MAX_T];
    for (int32_t i = 0; i < g->team.n_threads; i++) {
        j[i] = (job){ g, fn, arg, i };
        assert_int_equal(pthread_create(&t[i], NULL, job_main, &j[i]), 0);
    }
    for (int32_t i = 0; i < g->team.n_threads; i++)
        pthread_join(t[i], NULL);
}

static void rig_barrier(void *h)
{
    rig *g = h;
    pthread_barrier_wait(&g->bar);
}

static const void *rig_get(const pb_host *h, const char *id)
{
    rig *g = h->h;
    return !strcmp(id, "team/1")      ? (const void *)&g->team
           : !strcmp(id, "kernels/1") ? extra_rows
                                      : NULL;
}

static void rig_open(rig *g, int threads)
{
    memset(g, 0, sizeof *g);
    g->host = (pb_host){ .size = sizeof g->host,
                         .h = g,
                         .stats = &g->stats,
                         .alloc = rig_alloc,
                         .free = rig_free,
                         .now_ns = rig_now,
                         .log = rig_log,
                         .get = rig_get };
    g->team = (pb_team){
        .size = sizeof g->team, .h = g, .n_threads = threads, .run = rig_run, .barrier = rig_barrier
    };
    pthread_barrier_init(&g->bar, NULL, (unsigned)threads);
    g->cfg.verify = 1;
}

/* ---- a model ---------------------------------------------------------------------- */

enum { WIDTH = 64, HEADS = 4, KV = 2, DIM = 16, FF = 96, VOCAB = 80, LAYERS = 2, MAX_LEN = 700 };
enum { N_W = 3 + LAYERS * 9 };

typedef struct model {
    int32_t type;
    pb_tensor t[N_W];
    pb_piece piece[N_W];
    pb_weight_use use[N_W];
    double *w[N_W]; /* what the stored bytes mean */
    int n;
    pb_op op[3 + LAYERS * 5];
    pb_val_info val[64];
    pb_kv_shape group;
    pb_program p;
    int32_t rope;
    float softcap;
    int32_t window;
} model;

static uint32_t seed_ = 1;

static double rnd(void)
{
    seed_ = seed_ * 1664525u + 1013904223u;
    return (double)(seed_ >> 8) / 8388608.0 - 1.0;
}

static int read_rows(const pb_tensor *t, int64_t row0, int64_t n, void *dst)
{
    memcpy(dst, (const char *)t->data + (uint64_t)row0 * t->row_bytes, (size_t)n * t->row_bytes);
    return 0;
}

static double half_value(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

/* stored rows of random values, and what they mean */
static pb_wid add_tensor(model *m, int32_t role, int32_t type, int64_t rows, int64_t cols,
                         double amp)
{
    int i = m->n++;
    size_t block = type == PB_F32 ? 4 : type == PB_Q8_0 ? 34 : type == PB_Q4_0 ? 18 : 20;
    size_t per = type == PB_F32 ? 1 : 32, rb = (size_t)cols / per * block;
    uint8_t *d = malloc((size_t)rows * rb);
    double *w = m->w[i] = malloc((size_t)(rows * cols) * sizeof *w);
    for (int64_t b = 0; b < rows * cols / (int64_t)per; b++) {
        uint8_t *s = d + (size_t)b * block;
        if (type == PB_F32) {
            float f = (float)(rnd() * amp + (role == PB_ROLE_VECTOR ? 1.0 : 0.0));
            memcpy(s, &f, 4);
            w[b] = (double)f;
            continue;
        }
        uint16_t h = (uint16_t)(0x1800 + ((int)(rnd() * 500) & 0x1ff)), hm = (uint16_t)(h | 0x8000);
        memcpy(s, &h, 2);
        if (type == PB_Q4_1)
            memcpy(s + 2, &hm, 2);
        for (int k = 0; k < 32; k++) {
            int q = (int)(rnd() * 127.0);
            if (type == PB_Q8_0) {
                s[2 + k] = (uint8_t)(int8_t)q;
                w[b * 32 + k] = half_value(h) * q;
                continue;
            }
            uint8_t *at = s + (type == PB_Q4_1 ? 4 : 2) + k % 16;
            q &= 15;
            *at = (uint8_t)(k < 16 ? q : *at | q << 4);
            w[b * 32 + k] =
                type == PB_Q4_0 ? half_value(h) * (q - 8) : half_value(h) * q + half_value(hm);
        }
    }
    m->t[i] = (pb_tensor){ .name = "w",
                           .type = type,
                           .n_dims = 2,
                           .dim = { cols, rows, 1, 1 },
                           .rows = rows,
                           .cols = cols,
                           .row_bytes = rb,
                           .content = (uint64_t)i,
                           .data = d,
                           .read = read_rows,
                           .owner = d };
    m->piece[i] = (pb_piece){ &m->t[i], 0, rows, 0, cols };
    m->use[i] = (pb_weight_use){
        .role = role, .n_pieces = 1, .pieces = &m->piece[i], .rows = rows, .cols = cols
    };
    return i;
}

static pb_val add_val(model *m, int32_t width, int32_t picked)
{
    m->val[m->p.n_vals] = (pb_val_info){ "v", width, picked };
    return m->p.n_vals++;
}

static void add_op(model *m, pb_op op)
{
    op.name = "op";
    m->op[m->p.n_ops++] = op;
}

static pb_val add_layer(model *m, int32_t layer, pb_val x)
{
    double a = m->type == PB_Q8_0 ? 1 : 0.3;
    int32_t T = m->type;
    pb_wid n1 = add_tensor(m, PB_ROLE_VECTOR, PB_F32, 1, WIDTH, 0.2);
    pb_wid q = add_tensor(m, PB_ROLE_LINEAR, T, HEADS * DIM, WIDTH, a);
    pb_wid k = add_tensor(m, PB_ROLE_LINEAR, T, KV * DIM, WIDTH, a);
    pb_wid v = add_tensor(m, PB_ROLE_LINEAR, T, KV * DIM, WIDTH, a);
    pb_wid o = add_tensor(m, PB_ROLE_LINEAR, T, WIDTH, HEADS * DIM, a);
    pb_wid n2 = add_tensor(m, PB_ROLE_VECTOR, PB_F32, 1, WIDTH, 0.2);
    pb_wid g = add_tensor(m, PB_ROLE_LINEAR, T, FF, WIDTH, a);
    pb_wid u = add_tensor(m, PB_ROLE_LINEAR, T, FF, WIDTH, a);
    pb_wid d = add_tensor(m, PB_ROLE_LINEAR, T, WIDTH, FF, a);
    pb_val vq = add_val(m, HEADS * DIM, 0), vk = add_val(m, KV * DIM, 0);
    pb_val vv = add_val(m, KV * DIM, 0), va = add_val(m, HEADS * DIM, 0);
    pb_val x2 = add_val(m, WIDTH, 0), h = add_val(m, FF, 0), x3 = add_val(m, WIDTH, 0);
    add_op(m, (pb_op){ .kind = PB_OP_LINEAR,
                       .u.linear = { x,
                                     -1,
                                     { vq, vk, vv, -1 },
                                     { q, k, v, -1 },
                                     { -1, -1, -1, -1 },
                                     n1,
                                     -1,
                                     1e-5f,
                                     3,
                                     PB_ACT_NONE,
                                     0 } });
    add_op(m, (pb_op){ .kind = PB_OP_ATTEND,
                       .u.attend = { .q = vq,
                                     .k = vk,
                                     .v = vv,
                                     .y = va,
                                     .layer = layer,
                                     .n_heads = HEADS,
                                     .n_kv_heads = KV,
                                     .head_dim = DIM,
                                     .v_dim = DIM,
                                     .window = m->window,
                                     .rope = m->rope,
                                     .rope_dims = DIM - 4,
                                     .scale = 0.25f,
                                     .softcap = m->softcap,
                                     .eps = 1e-5f,
                                     .rope_base = 10000.0,
                                     .rope_scale = 1.0,
                                     .rope_factors = -1,
                                     .q_norm = -1,
                                     .k_norm = -1 } });
    add_op(m, (pb_op){ .kind = PB_OP_LINEAR,
                       .u.linear = { va,
                                     x,
                                     { x2, -1, -1, -1 },
                                     { o, -1, -1, -1 },
                                     { -1, -1, -1, -1 },
                                     -1,
                                     -1,
                                     1e-5f,
                                     1,
                                     PB_ACT_NONE,
                                     0 } });
    add_op(m, (pb_op){ .kind = PB_OP_LINEAR,
                       .u.linear = { x2,
                                     -1,
                                     { h, -1, -1, -1 },
                                     { g, u, -1, -1 },
                                     { -1, -1, -1, -1 },
                                     n2,
                                     -1,
                                     1e-5f,
                                     2,
                                     PB_ACT_SILU_MUL,
                                     0 } });
    add_op(m, (pb_op){ .kind = PB_OP_LINEAR,
                       .u.linear = { h,
                                     x2,
                                     { x3, -1, -1, -1 },
                                     { d, -1, -1, -1 },
                                     { -1, -1, -1, -1 },
                                     -1,
                                     -1,
                                     1e-5f,
                                     1,
                                     PB_ACT_NONE,
                                     0 } });
    return x3;
}

static void make_model(model *m, int32_t type, int32_t rope, float softcap, int32_t window)
{
    memset(m, 0, sizeof *m);
    seed_ = 7;
    m->type = type;
    m->rope = rope;
    m->softcap = softcap;
    m->window = window;
    pb_wid e = add_tensor(m, PB_ROLE_LINEAR, type, VOCAB, WIDTH, 1.0);
    pb_wid nf = add_tensor(m, PB_ROLE_VECTOR, PB_F32, 1, WIDTH, 0.2);
    pb_wid bias = add_tensor(m, PB_ROLE_VECTOR, PB_F32, 1, VOCAB, 0.5);
    pb_val x = add_val(m, WIDTH, 0);
    add_op(m, (pb_op){ .kind = PB_OP_EMBED, .u.embed = { x, e, 0.5f } });
    for (int32_t l = 0; l < LAYERS; l++)
        x = add_layer(m, l, x);
    pb_val r = add_val(m, WIDTH, 1), y = add_val(m, VOCAB, 1);
    add_op(m, (pb_op){ .kind = PB_OP_ROWS, .u.rows = { x, r } });
    add_op(m, (pb_op){ .kind = PB_OP_LINEAR,
                       .u.linear = { r,
                                     -1,
                                     { y, -1, -1, -1 },
                                     { e, -1, -1, -1 },
                                     { bias, -1, -1, -1 },
                                     nf,
                                     -1,
                                     1e-5f,
                                     1,
                                     PB_ACT_NONE,
                                     0 } });
    m->group = (pb_kv_shape){ sizeof m->group, PB_KV_GQA, LAYERS, window, KV, DIM, DIM };
    m->p.size = sizeof m->p;
    m->p.ops = m->op;
    m->p.vals = m->val;
    m->p.weights = m->use;
    m->p.n_weights = m->n;
    m->p.groups = &m->group;
    m->p.n_groups = 1;
    m->p.n_vocab = VOCAB;
    m->p.logits = y;
}

static void free_model(model *m)
{
    for (int i = 0; i < m->n; i++) {
        free(m->t[i].owner);
        free(m->w[i]);
    }
}

/* ---- the same in double -------------------------------------------------------------- */

typedef double seq_rows[MAX_LEN][FF];

static void d_linear(const double *w, const double *x, int rows, int cols, double *y)
{
    for (int r = 0; r < rows; r++) {
        y[r] = 0;
        for (int c = 0; c < cols; c++)
            y[r] += w[r * cols + c] * x[c];
    }
}

static void d_norm(const double *w, const double *x, double *y)
{
    double s = 0;
    for (int i = 0; i < WIDTH; i++)
        s += x[i] * x[i];
    for (int i = 0; i < WIDTH; i++)
        y[i] = x[i] / sqrt(s / WIDTH + 1e-5) * w[i];
}

static void d_rope(const model *m, double *x, int pos)
{
    int dims = DIM - 4;
    for (int i = 0; i < dims / 2; i++) {
        double a = pos * pow(10000.0, -2.0 * i / dims), c = cos(a), s = sin(a);
        int j = m->rope == PB_ROPE_PAIRS ? 2 * i : i,
            k = m->rope == PB_ROPE_PAIRS ? j + 1 : i + dims / 2;
        double u = x[j], v = x[k];
        x[j] = u * c - v * s;
        x[k] = u * s + v * c;
    }
}

static void d_attend(const model *m, int pos, const double *q, seq_rows *k, seq_rows *v, double *y)
{
    static double p[MAX_LEN];
    int first = m->window && pos >= m->window ? pos - m->window + 1 : 0;
    for (int h = 0; h < HEADS; h++) {
        int kh = h / (HEADS / KV);
        double top = -1e300, sum = 0;
        for (int j = first; j <= pos; j++) {
            p[j] = 0;
            for (int d = 0; d < DIM; d++)
                p[j] += q[h * DIM + d] * 0.25 * (*k)[j][kh * DIM + d];
            if (m->softcap > 0)
                p[j] = m->softcap * tanh(p[j] / m->softcap);
            top = p[j] > top ? p[j] : top;
        }
        for (int d = 0; d < DIM; d++)
            y[h * DIM + d] = 0;
        for (int j = first; j <= pos; j++) {
            double e = exp(p[j] - top);
            sum += e;
            for (int d = 0; d < DIM; d++)
                y[h * DIM + d] += e * (*v)[j][kh * DIM + d];
        }
        for (int d = 0; d < DIM; d++)
            y[h * DIM + d] /= sum;
    }
}

/* logits of the last token of ids[0..n) */
static void d_forward(const model *m, const int32_t *ids, int n, double *logits)
{
    static seq_rows x, k, v, q;
    double a[FF], b[FF], c[FF];
    for (int i = 0; i < n; i++)
        for (int d = 0; d < WIDTH; d++)
            x[i][d] = m->w[0][ids[i] * WIDTH + d] * 0.5;
    for (int l = 0; l < LAYERS; l++) {
        double *const *w = &m->w[3 + 9 * l];
        for (int i = 0; i < n; i++) {
            d_norm(w[0], x[i], a);
            d_linear(w[1], a, HEADS * DIM, WIDTH, q[i]);
            d_linear(w[2], a, KV * DIM, WIDTH, k[i]);
            d_linear(w[3], a, KV * DIM, WIDTH, v[i]);
            for (int h = 0; h < HEADS; h++)
                d_rope(m, q[i] + h * DIM, i);
            for (int h = 0; h < KV; h++)
                d_rope(m, k[i] + h * DIM, i);
        }
        for (int i = 0; i < n; i++) {
            d_attend(m, i, q[i], &k, &v, a);
            d_linear(w[4], a, WIDTH, HEADS * DIM, b);
            for (int d = 0; d < WIDTH; d++)
                x[i][d] += b[d];
            d_norm(w[5], x[i], a);
            d_linear(w[6], a, FF, WIDTH, b);
            d_linear(w[7], a, FF, WIDTH, c);
            for (int d = 0; d < FF; d++)
                b[d] = b[d] / (1 + exp(-b[d])) * c[d];
            d_linear(w[8], b, WIDTH, FF, a);
            for (int d = 0; d < WIDTH; d++)
                x[i][d] += a[d];
        }
    }
    d_norm(m->w[1], x[n - 1], a);
    d_linear(m->w[0], a, VOCAB, WIDTH, logits);
    for (int i = 0; i < VOCAB; i++)
        logits[i] += m->w[2][i];
}

/* ---- steps -------------------------------------------------------------------------- */

enum { MAX_ROWS = 640, MAX_SEQS = 4, MAX_OUT = 8, ARENA = 8 << 20 };

typedef struct flat {
    pb_step s;
    int32_t token[MAX_ROWS], pos[MAX_ROWS], row_begin[MAX_SEQS + 1], slot[MAX_SEQS];
    int32_t table_begin[MAX_SEQS + 1], table[MAX_SEQS * 64], out_row[MAX_OUT];
    pb_copy copy[4];
} flat;

typedef struct bench {
    rig g;
    void *self, *arena;
    const pb_backend *be;
    struct pb_exec *x;
    struct pb_kv *kv;
    int32_t page_tokens;
    uint64_t n;
    pb_err err;
} bench;

static void open_bench(bench *b, model *m, int threads, int32_t page_tokens, cpu_config cfg)
{
    uint64_t bytes;
    memset(b, 0, sizeof *b);
    rig_open(&b->g, threads);
    b->g.cfg = cfg;
    b->g.host.h = &b->g;
    b->page_tokens = page_tokens;
    b->be = pb_plugin_v0.ifaces[0].vtbl;
    if (pb_plugin_v0.create(&b->g.host, &b->g.cfg, &b->self, &b->err))
        fail_msg("create: %s", b->err.msg);
    if (pb_plugin_v0.start(b->self, NULL, &b->err))
        fail_msg("start: %s", b->err.msg);
    for (int i = 0; i < m->n; i++)
        if (b->be->weight(b->self, m->use[i].role, 1, m->use[i].pieces, &m->use[i].packed, &bytes,
                          &b->err))
            fail_msg("weight: %s", b->err.msg);
    pb_limits lim = { sizeof lim, MAX_ROWS, MAX_SEQS, MAX_LEN, MAX_OUT };
    pb_kv_plan plan = { page_tokens, 1024 / page_tokens * 2 };
    if (b->be->compile(b->self, &m->p, &lim, &b->x, &b->err) ||
        b->be->arena(b->self, ARENA, &b->arena, &b->err) ||
        b->be->kv(b->self, b->x, b->arena, ARENA, 1, &plan, &b->kv, &b->err))
        fail_msg("compile: %s", b->err.msg);
    for (pb_page i = 0; i < plan.n_pages; i++)
        assert_int_equal(b->be->poison(b->self, b->kv, 0, i), 0);
}

static void close_bench(bench *b, model *m)
{
    b->be->kv_free(b->self, b->kv);
    b->be->exec_free(b->self, b->x);
    b->be->arena_free(b->self, b->arena);
    for (int i = 0; i < m->n; i++)
        b->be->weight_free(b->self, m->use[i].packed);
    pb_plugin_v0.destroy(b->self);
    assert_int_equal(b->g.live, 0);
    pthread_barrier_destroy(&b->g.bar);
}

static flat *new_step(bench *b)
{
    flat *f = calloc(1, sizeof *f);
    f->s = (pb_step){ .size = sizeof f->s,
                      .bytes = sizeof *f,
                      .n = ++b->n,
                      .n_groups = 1,
                      .flags = PB_STEP_LOGITS,
                      .token = offsetof(flat, token),
                      .pos = offsetof(flat, pos),
                      .kv_pos = offsetof(flat, pos),
                      .row_begin = offsetof(flat, row_begin),
                      .slot = offsetof(flat, slot),
                      .table_begin = offsetof(flat, table_begin),
                      .table = offsetof(flat, table),
                      .copy = offsetof(flat, copy),
                      .out_row = offsetof(flat, out_row) };
    return f;
}

/* tokens [a, b) of ids as a sequence whose pages are first + stride * i */
static void add_seq(bench *b, flat *f, const int32_t *ids, int32_t from, int32_t to, pb_page first,
                    int32_t stride, int want)
{
    int32_t q = f->s.n_seqs++, t = f->table_begin[q];
    for (int32_t i = from; i < to; i++) {
        f->token[f->s.n_rows] = ids[i];
        f->pos[f->s.n_rows++] = i;
    }
    for (int32_t i = 0; i * b->page_tokens < to; i++)
        f->table[t++] = first + stride * i;
    f->table_begin[q + 1] = t;
    f->row_begin[q + 1] = f->s.n_rows;
    if (want)
        f->out_row[f->s.n_out++] = f->s.n_rows - 1;
}

static pb_result run(bench *b, flat *f, int want_rc)
{
    pb_result r = { .size = sizeof r };
    assert_int_equal(b->be->submit(b->self, b->x, b->kv, &f->s), 0);
    assert_int_equal(b->be->wait(b->self, b->x, f->s.n, &r), want_rc);
    free(f);
    return r;
}

/* logits of ids[0..n) fed in chunks */
static void feed(bench *b, const int32_t *ids, int32_t n, int32_t chunk, pb_page first,
                 int32_t stride, float *out)
{
    pb_result r = { 0 };
    for (int32_t i = 0; i < n; i += chunk) {
        flat *f = new_step(b);
        add_seq(b, f, ids, i, i + chunk < n ? i + chunk : n, first, stride, i + chunk >= n);
        r = run(b, f, 0);
    }
    memcpy(out, r.logits, VOCAB * 4);
}

static void make_ids(int32_t *ids, int n, uint32_t s)
{
    seed_ = s;
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)((rnd() + 1.0) * 0.4999 * VOCAB);
}

/* ---- tests ----------------------------------------------------------------------------- */

static const cpu_config exact = { CPU_ACT_F32, CPU_KV_F32, CPU_ISA_AUTO, 1 };
static const cpu_config q8 = { CPU_ACT_Q8, CPU_KV_F16, CPU_ISA_AUTO, 1 };

static void check_against_double(int32_t type, int32_t rope, float softcap, int32_t window, int n,
                                 cpu_config cfg, double tol)
{
    static model m;
    static bench b;
    int32_t ids[MAX_LEN];
    float got[VOCAB];
    double want[VOCAB], err = 0, mean = 0;
    make_model(&m, type, rope, softcap, window);
    make_ids(ids, n, 3);
    open_bench(&b, &m, 2, 32, cfg);
    feed(&b, ids, n, 300, 1, 1, got);
    d_forward(&m, ids, n, want);
    for (int i = 0; i < VOCAB; i++) {
        err = fabs(got[i] - want[i]) > err || isnan(got[i]) ? fabs(got[i] - want[i]) : err;
        mean += fabs(want[i]) / VOCAB;
    }
    if (!(err <= tol * mean))
        fail_msg("type %d, act %d: off by %g, mean %g", type, cfg.activations, err, mean);
    close_bench(&b, &m);
    free_model(&m);
}

static void test_double(void **state)
{
    check_against_double(PB_F32, PB_ROPE_HALVES, 0, 0, 40, exact, 1e-5);
    check_against_double(PB_F32, PB_ROPE_PAIRS, 0, 0, 650, exact, 1e-5);
    check_against_double(PB_F32, PB_ROPE_PAIRS, 5.0f, 100, 300, exact, 1e-5);
    check_against_double(PB_Q8_0, PB_ROPE_PAIRS, 0, 0, 40, exact, 1e-4);
    check_against_double(PB_Q4_0, PB_ROPE_PAIRS, 0, 0, 40, exact, 1e-4);
    check_against_double(PB_Q4_1, PB_ROPE_PAIRS, 0, 0, 40, exact, 1e-4);
    check_against_double(PB_Q8_0, PB_ROPE_PAIRS, 0, 0, 40, q8, 0.25);
    check_against_double(PB_Q4_0, PB_ROPE_PAIRS, 0, 0, 40, q8, 0.25);
    check_against_double(PB_Q4_1, PB_ROPE_PAIRS, 0, 0, 40, q8, 0.25);
}

/* threads x chunks x pages x instruction sets: one set of bits */
static void test_same_bits(void **state)
{
    static const int32_t types[] = { PB_F32, PB_Q8_0, PB_Q4_0, PB_Q4_1 };
    static const int32_t chunks[] = { 640, 1, 7, 64 };
    static model m;
    static bench b;
    int32_t ids[600];
    make_ids(ids, 600, 5);
    for (int t = 0; t < 4; t++) {
        float want[VOCAB], got[VOCAB];
        make_model(&m, types[t], PB_ROPE_PAIRS, 0, 0);
        for (int v = 0; v < 8; v++) {
            cpu_config cfg = { CPU_ACT_Q8, v < 6 ? CPU_KV_F16 : CPU_KV_F32,
                               v % 3 == 0   ? CPU_ISA_ANY
                               : v % 3 == 1 ? CPU_ISA_AVX2
                                            : CPU_ISA_AVX512,
                               1 };
            if ((cfg.isa == CPU_ISA_AVX2 && !cpu_has_avx2()) ||
                (cfg.isa == CPU_ISA_AVX512 && !cpu_has_avx512()))
                cfg.isa = CPU_ISA_ANY;
            open_bench(&b, &m, 1 + v % 3, v % 2 ? 16 : 64, cfg);
            feed(&b, ids, 530, chunks[v % 4], v % 2 ? 40 : 1, v % 2 ? -1 : 2, got);
            if (v == 0 || v == 6)
                memcpy(want, got, sizeof got);
            if (memcmp(want, got, sizeof got))
                fail_msg("type %d, variant %d: other bits", types[t], v);
            close_bench(&b, &m);
        }
        free_model(&m);
    }
}

/* Two sequences in a batch, picks fed back as ~i, copies, and a NaN that is named. */
static void test_step_features(void **state)
{
    static model m;
    static bench b;
    int32_t a[64], c[64], next;
    float wa[VOCAB], wc[VOCAB];
    make_model(&m, PB_Q8_0, PB_ROPE_PAIRS, 0, 0);
    make_ids(a, 64, 11);
    make_ids(c, 64, 12);
    memcpy(c, a, 20 * sizeof a[0]); /* they share a beginning */
    open_bench(&b, &m, 2, 16, exact);
    feed(&b, c, 50, 50, 20, 1, wc);
    flat *f = new_step(&b);
    add_seq(&b, f, a, 0, 50, 1, 1, 1);
    add_seq(&b, f, c, 0, 50, 30, 1, 1);
    pb_result r = run(&b, f, 0);
    assert_memory_equal(r.logits + VOCAB, wc, sizeof wc);
    pb_draw d[2];
    memset(d, 0, sizeof d);
    d[0].size = d[1].size = sizeof d[0];
    d[0].forced = d[1].forced = -1;
    d[0].n_logprobs = d[1].n_logprobs = -1;
    assert_int_equal(b.be->pick(b.self, b.x, 2, d, sizeof d[0]), 0);
    assert_int_equal(b.be->wait(b.self, b.x, b.n, &r), 0);
    next = r.ids[0];
    /* the pick by id, then by ~0: equal */
    a[50] = next;
    f = new_step(&b);
    f->s.n = b.n;
    add_seq(&b, f, (int32_t[]){ ~0 }, 0, 1, 1, 1, 1);
    f->pos[0] = 50;
    f->table_begin[1] = 4;
    for (int i = 0; i < 4; i++)
        f->table[i] = 1 + i;
    r = run(&b, f, 0);
    memcpy(wa, r.logits, sizeof wa);
    f = new_step(&b);
    add_seq(&b, f, a, 50, 51, 1, 1, 1);
    r = run(&b, f, 0);
    assert_memory_equal(r.logits, wa, sizeof wa);
    /* prefix of a copied: 20 tokens, 4 of them in the second page; then the rest of c */
    f = new_step(&b);
    add_seq(&b, f, c, 20, 50, 50, 1, 1);
    f->s.n_copies = 2;
    f->copy[0] = (pb_copy){ 0, 1, 50, 16 };
    f->copy[1] = (pb_copy){ 0, 2, 51, 4 };
    r = run(&b, f, 0);
    assert_memory_equal(r.logits, wc, sizeof wc);
    /* without the copy: poison is met, and named in check mode */
    f = new_step(&b);
    add_seq(&b, f, c, 20, 50, 60, 1, 1);
    f->s.flags |= PB_STEP_CHECK;
    r = run(&b, f, PB_E_NUMERIC);
    assert_int_equal(r.faulty_op, 2);
    close_bench(&b, &m);
    free_model(&m);
}

/* Rows of a kernels plugin run when they are faster, give the same bits, and are counted. */
static void test_plugin_rows(void **state)
{
    static model m;
    static bench b;
    int at = 0;
    while (cpu_linear_any[at]->w_type != PB_Q8_0 || cpu_linear_any[at]->x_format != PB_X_Q8)
        at++;
    pb_linear_kernel mine = *cpu_linear_any[at];
    const pb_linear_kernel *linear[] = { &mine };
    const pb_kernel_set set = { .size = sizeof set, .n_linear = 1, .linear = linear };
    float want[VOCAB], got[VOCAB];
    int32_t ids[9];
    make_ids(ids, 9, 3);
    make_model(&m, PB_Q8_0, PB_ROPE_PAIRS, 0, 0);
    for (int v = 0; v < 3; v++) { /* without; too slow to be chosen; the fastest */
        mine.speed = v == 2 ? 1000 : -1;
        extra_rows = v ? &set : NULL;
        open_bench(&b, &m, 2, 16, q8);
        feed(&b, ids, 9, 9, 1, 2, v ? got : want);
        assert_int_equal(b.g.stats.plugin_row_ops, v == 2 ? LAYERS * 7 + 1 : 0);
        assert_true(!v || !memcmp(want, got, sizeof got));
        close_bench(&b, &m);
    }
    extra_rows = NULL;
    free_model(&m);
}

static void test_refusals(void **state)
{
    static model m;
    static bench b;
    pb_err err = { 0 };
    struct pb_exec *x = NULL;
    struct pb_weight *w = NULL;
    struct pb_kv *kv = NULL;
    uint64_t bytes;
    make_model(&m, PB_Q8_0, PB_ROPE_PAIRS, 0, 0);
    open_bench(&b, &m, 1, 16, exact);
    pb_limits lim = { sizeof lim, 8, 1, 64, 1 };
    m.op[1].kind = PB_OP_CUSTOM;
    m.op[1].u.custom.id = "org.example.x";
    assert_int_equal(b.be->compile(b.self, &m.p, &lim, &x, &err), PB_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "org.example.x"));
    pb_tensor t = m.t[0];
    t.type = 22; /* of the GGUF specification, without a kernel */
    t.name = "tok";
    pb_piece p = { &t, 0, 1, 0, 64 };
    assert_int_equal(b.be->weight(b.self, PB_ROLE_LINEAR, 1, &p, &w, &bytes, &err),
                     PB_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "tok"));
    assert_non_null(strstr(err.msg, "IQ2_S"));
    t.type = PB_Q6_K; /* 64 columns are no block */
    assert_int_equal(b.be->weight(b.self, PB_ROLE_LINEAR, 1, &p, &w, &bytes, &err), PB_E_FORMAT);
    assert_non_null(strstr(err.msg, "tok"));
    assert_non_null(strstr(err.msg, "Q6_K"));
    pb_kv_plan plan = { 24, 4 };
    assert_int_equal(b.be->kv(b.self, b.x, b.arena, ARENA, 1, &plan, &kv, &err), PB_E_INVAL);
    plan = (pb_kv_plan){ 16, 1 << 30 };
    assert_int_equal(b.be->kv(b.self, b.x, b.arena, ARENA, 1, &plan, &kv, &err), PB_E_INVAL);
    close_bench(&b, &m);
    free_model(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_double),        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_step_features), cmocka_unit_test(test_plugin_rows),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
