/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/verify.c - compares a row with the plain-C one on a small random problem,
 * bit by bit, before the row is used.
 *
 * It is a smoke detector for miscompiled or third-party kernels; the wide grid is the test
 * test_rows. A row of a type or format that plain C lacks has nothing to be compared with.
 */
#include "cpu.h"
#include "math.h"

#include <string.h>

static uint32_t next(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

/* in [-1, 1) */
static float next_float(uint32_t *s)
{
    return (float)next(s) * 0x1p-23f - 1.0f;
}

/* ---- products -------------------------------------------------------------- */

enum { V_ROWS = 37, V_COLS = 96, V_K_COLS = 256, V_X = 7, V_ROW_BYTES = V_K_COLS * 4 };

/* whole blocks */
static int64_t cols_of(int32_t type)
{
    const cpu_stored *t = cpu_stored_of(type);
    return t && t->n > 32 ? V_K_COLS : V_COLS;
}

static int read_rows(const pb_tensor *t, int64_t row0, int64_t n, void *dst)
{
    memcpy(dst, (const char *)t->data + (uint64_t)row0 * t->row_bytes,
           (size_t)n * (size_t)t->row_bytes);
    return 0;
}

/* Random stored rows of a type that plain C has; scales are small. Returns bytes of a row. */
static uint64_t fill_rows(const cpu_stored *t, uint8_t *w, uint32_t *seed)
{
    const size_t bytes = (size_t)(cols_of(t->type) / t->n) * (size_t)t->bytes;
    for (uint8_t *b = w; b < w + V_ROWS * bytes; b += t->bytes) {
        float x = next_float(seed);
        uint16_t h = m_to_half(x), top = (uint16_t)(m_bits(x) >> 16);
        for (int32_t i = 0; i < t->bytes; i++)
            b[i] = (uint8_t)next(seed);
        for (int i = 0; i < t->n_halves; i++) /* exponent field 8: about 2^-7 */
            b[t->half[i] + 1] = (uint8_t)(0x20 | (b[t->half[i] + 1] & 0x83));
        if (t->type == PB_MXFP4)
            b[0] = (uint8_t)(120 + b[0] % 16);
        else if (t->type == PB_F32 || t->type == PB_F8_E4M3)
            memcpy(b, &x, 4);
        else if (t->type == PB_F16)
            memcpy(b, &h, 2);
        else if (t->type == PB_BF16)
            memcpy(b, &top, 2);
        for (int i = 4; t->type == PB_F8_E4M3 && i < t->bytes; i++)
            b[i] &= 0xf7; /* no NaN */
    }
    return bytes;
}

static void fill_inputs(int32_t format, int64_t cols, char *x, size_t stride, uint32_t *seed)
{
    for (int i = 0; i < V_X; i++) {
        float row[V_K_COLS];
        for (int64_t k = 0; k < cols; k++)
            row[k] = next_float(seed);
        if (format == PB_X_Q8)
            cpu_elem_any.quant(row, cols, x + (size_t)i * stride);
        else
            memcpy(x + (size_t)i * stride, row, (size_t)cols * 4);
    }
}

static int run_linear(const cpu *d, const pb_linear_kernel *k, const pb_piece *p, const char *x,
                      size_t stride, float *y)
{
    int64_t cols = p->n_cols, panels = (V_ROWS + k->panel_rows - 1) / k->panel_rows;
    void *w = d->host->alloc(d->host, k->packed_bytes(V_ROWS, cols), 64, "verify");
    int rc = w ? k->pack(p, 1, w, 0, panels / 2) : PB_E_NOMEM;
    if (!rc)
        rc = k->pack(p, 1, w, panels / 2, panels);
    int32_t most = k->max_rows > 0 && k->max_rows < V_X ? k->max_rows : V_X;
    for (int32_t i = 0; i < V_X && !rc; i += most) {
        pb_linear_args a = { .size = sizeof a,
                             .w = w,
                             .rows = V_ROWS,
                             .cols = cols,
                             .x = x + (size_t)i * stride,
                             .x_stride = stride,
                             .n_x = V_X - i < most ? V_X - i : most,
                             .y = y + i * V_ROWS,
                             .y_stride = V_ROWS };
        k->run(&a, 0, panels);
    }
    d->host->free(d->host, w);
    return rc;
}

int cpu_verify_linear(const cpu *d, const pb_linear_kernel *k, pb_err *err)
{
    uint8_t stored[V_ROWS * V_ROW_BYTES];
    _Alignas(64) char x[V_X * V_ROW_BYTES];
    float want[V_X * V_ROWS], got[V_X * V_ROWS];
    uint32_t seed = 1;
    const pb_linear_kernel *ref = NULL;
    for (int i = 0; cpu_linear_any[i]; i++)
        if (cpu_linear_any[i]->w_type == k->w_type && cpu_linear_any[i]->x_format == k->x_format)
            ref = cpu_linear_any[i];
    if (!ref || ref == k)
        return 0;
    const int64_t cols = cols_of(k->w_type);
    pb_tensor t = { .name = "verify",
                    .type = k->w_type,
                    .n_dims = 2,
                    .dim = { cols, V_ROWS, 1, 1 },
                    .rows = V_ROWS,
                    .cols = cols,
                    .data = stored,
                    .read = read_rows };
    pb_piece p = { &t, 0, V_ROWS, 0, cols };
    size_t stride = pb_x_bytes(k->x_format, cols);
    t.row_bytes = fill_rows(cpu_stored_of(k->w_type), stored, &seed);
    fill_inputs(k->x_format, cols, x, stride, &seed);
    memset(want, 0xff, sizeof want);
    memset(got, 0xff, sizeof got);
    int rc = run_linear(d, ref, &p, x, stride, want);
    if (!rc)
        rc = run_linear(d, k, &p, x, stride, got);
    if (rc)
        return cpu_fail(err, rc, "backend-cpu: kernel %s fails on a test problem", k->name);
    d->st->rows_verified++;
    for (int i = 0; i < V_X * V_ROWS; i++)
        if (memcmp(&want[i], &got[i], 4))
            return cpu_fail(err, PB_E_PLUGIN,
                            "backend-cpu: kernel %s gives %.9g for row %d of input %d of a test "
                            "problem, %s gives %.9g; verify = off skips this check",
                            k->name, (double)got[i], i % V_ROWS, i / V_ROWS, ref->name,
                            (double)want[i]);
    return 0;
}

/* ---- KV formats --------------------------------------------------------------- */

enum { K_TOKENS = 32, K_PAGES = 21, K_ROWS = 5, K_HEADS = 4, K_KV = 2, K_DIM = 48 };
enum { K_Q = K_HEADS * K_DIM, K_KVW = K_KV * K_DIM, K_LAST = K_TOKENS * (K_PAGES - 1) - 9 };

/* A step of one sequence, as flat as a real one. */
typedef struct small_step {
    pb_step s;
    int32_t kv_pos[K_TOKENS * K_PAGES], row_begin[2], table_begin[2], table[K_PAGES];
} small_step;

static void make_step(small_step *t, int32_t n_rows, int32_t pos0)
{
    memset(t, 0, sizeof *t);
    t->s.size = sizeof t->s;
    t->s.bytes = sizeof *t;
    t->s.n = 1;
    t->s.n_rows = n_rows;
    t->s.n_seqs = t->s.n_groups = 1;
    t->s.kv_pos = (uint32_t)offsetof(small_step, kv_pos);
    t->s.row_begin = (uint32_t)offsetof(small_step, row_begin);
    t->s.table_begin = (uint32_t)offsetof(small_step, table_begin);
    t->s.table = (uint32_t)offsetof(small_step, table);
    for (int32_t i = 0; i < n_rows; i++)
        t->kv_pos[i] = pos0 + i;
    t->row_begin[1] = n_rows;
    t->table_begin[1] = K_PAGES - 1;
    for (int32_t i = 0; i < K_PAGES - 1; i++)
        t->table[i] = 1 + i * 7 % (K_PAGES - 1); /* scattered */
}

/* Fills the cache with all tokens, then attends from the last rows. */
static int run_kvfmt(const cpu *d, const pb_kvfmt *f, const float *q, const float *kv, float *y)
{
    const pb_host *h = d->host;
    pb_kv_shape shape = { .size = sizeof shape,
                          .kind = PB_KV_GQA,
                          .n_layers = 1,
                          .n_kv_heads = K_KV,
                          .head_dim = K_DIM,
                          .v_dim = K_DIM };
    uint64_t page = f->layer_bytes(&shape, K_TOKENS);
    char *mem = h->alloc(h, (size_t)page * K_PAGES, 64, "verify");
    void *scratch = h->alloc(h, f->scratch_bytes(&shape, K_HEADS, K_LAST + 1), 64, "verify");
    small_step *t = h->alloc(h, sizeof *t, 64, "verify");
    int rc = mem && scratch && t ? 0 : PB_E_NOMEM;
    if (!rc) {
        pb_attend_item items[K_KV];
        pb_attend_args a = { .size = sizeof a,
                             .shape = &shape,
                             .step = &t->s,
                             .n_heads = K_HEADS,
                             .page_tokens = K_TOKENS,
                             .scale = 0.125f,
                             .kv = mem,
                             .page_stride = (size_t)page,
                             .q = q,
                             .k = kv,
                             .v = kv + K_KVW,
                             .y = y,
                             .q_stride = K_Q,
                             .k_stride = 2 * K_KVW,
                             .v_stride = 2 * K_KVW,
                             .y_stride = K_Q,
                             .items = items,
                             .scratch = scratch };
        memset(mem, 0xff, (size_t)page * K_PAGES);
        make_step(t, K_LAST + 1, 0);
        f->write(&a, 0, K_LAST + 1);
        make_step(t, K_ROWS, K_LAST + 1 - K_ROWS);
        for (int32_t i = 0; i < K_KV; i++)
            items[i] = (pb_attend_item){ 0, 0, K_ROWS, i, 0, K_LAST / PB_SPAN + 1 };
        f->attend(&a, 0, K_KV);
    }
    h->free(h, mem);
    h->free(h, scratch);
    h->free(h, t);
    return rc;
}

int cpu_verify_kvfmt(const cpu *d, const pb_kvfmt *f, pb_err *err)
{
    const pb_kvfmt *ref = NULL;
    size_t n_kv = (size_t)(K_LAST + 1) * 2 * K_KVW;
    uint32_t seed = 2;
    for (int i = 0; cpu_kvfmt_any[i]; i++)
        if (!strcmp(cpu_kvfmt_any[i]->name, f->name))
            ref = cpu_kvfmt_any[i];
    if (!ref || ref == f || K_TOKENS % f->granule)
        return 0;
    float q[K_ROWS * K_Q], want[K_ROWS * K_Q] = { 0 }, got[K_ROWS * K_Q] = { 0 };
    float *kv = d->host->alloc(d->host, n_kv * 4, 64, "verify");
    if (!kv)
        return cpu_fail(err, PB_E_NOMEM, "backend-cpu: no memory to verify KV format %s", f->name);
    for (size_t i = 0; i < n_kv; i++)
        kv[i] = next_float(&seed);
    for (size_t i = 0; i < K_ROWS * K_Q; i++)
        q[i] = next_float(&seed) * 4.0f;
    int rc = run_kvfmt(d, ref, q, kv, want);
    if (!rc)
        rc = run_kvfmt(d, f, q, kv, got);
    d->host->free(d->host, kv);
    if (rc)
        return cpu_fail(err, rc, "backend-cpu: no memory to verify KV format %s", f->name);
    d->st->rows_verified++;
    for (int i = 0; i < K_ROWS * K_Q; i++)
        if (memcmp(&want[i], &got[i], 4))
            return cpu_fail(err, PB_E_PLUGIN,
                            "backend-cpu: KV format %s (%s) gives %.9g at element %d of row %d of "
                            "a test problem, plain C %.9g; verify = off skips this check",
                            f->name, f->isa, (double)got[i], i % K_Q, i / K_Q, (double)want[i]);
    return 0;
}
