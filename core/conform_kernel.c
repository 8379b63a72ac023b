/* SPDX-License-Identifier: MIT
 *
 * core/conform_kernel.c - linear rows of a kernels plugin against products written out: the
 * definition of docs/numerics.md in plain loops, compared bit by bit, for sizes around a
 * panel, ranges of panels, numbers of rows, stacked and sliced pieces.
 *
 * It knows the stored types F32, F16, Q8_0, Q4_0, Q4_1 and both activation formats; a row of
 * another type is named as unchecked.
 */
#define _GNU_SOURCE 1
#include "conform_checks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 32, FENCE = 64, MAX_X = 67 };

/* ---- stored types ------------------------------------------------------ */

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023, u;
    if (e == 0) { /* zero and subnormals: m * 2^-24 */
        float f = (float)m * 0x1p-24f;
        return sign ? -f : f;
    }
    u = sign | (e == 31 ? 0x7f800000u : (e + 112) << 23) | m << 13;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static size_t row_bytes(int32_t type, int64_t cols)
{
    size_t n = (size_t)cols;
    switch (type) {
    case PB_F32: return n * 4;
    case PB_F16: return n * 2;
    case PB_Q8_0: return n / BLOCK * 34;
    case PB_Q4_0: return n / BLOCK * 18;
    case PB_Q4_1: return n / BLOCK * 20;
    default: return 0;
    }
}

/* One block's scale, minimum and 32 whole numbers; quantized types only. */
static void read_block(int32_t type, const unsigned char *b, float *d, float *m, int *q)
{
    uint16_t h;
    memcpy(&h, b, 2);
    *d = half_to_float(h);
    *m = 0;
    b += 2;
    if (type == PB_Q4_1) {
        memcpy(&h, b, 2);
        *m = half_to_float(h);
        b += 2;
    }
    for (int i = 0; i < BLOCK; i++) {
        if (type == PB_Q8_0)
            q[i] = (signed char)b[i];
        else
            q[i] = i < 16 ? b[i] & 15 : b[i - 16] >> 4;
        if (type == PB_Q4_0)
            q[i] -= 8;
    }
}

static float float_at(int32_t type, const unsigned char *row, int64_t k)
{
    float f;
    uint16_t h;
    if (type == PB_F32) {
        memcpy(&f, row + k * 4, 4);
        return f;
    }
    memcpy(&h, row + k * 2, 2);
    return half_to_float(h);
}

/* What a stored whole number stands for. */
static float value_of(int32_t type, float d, float m, int q)
{
    return type == PB_Q4_1 ? fmaf(d, (float)q, m) : d * (float)q;
}

/* y of one stored row and one row of activations */
static float dot(int32_t type, int32_t format, const unsigned char *w, const void *x, int64_t cols)
{
    float acc = 0, d, m;
    int q[BLOCK];
    if (type == PB_F32 || type == PB_F16) {
        for (int64_t k = 0; k < cols; k++)
            acc = fmaf(float_at(type, w, k), ((const float *)x)[k], acc);
        return acc;
    }
    const signed char *xq = x;
    const float *xd = (const void *)((const char *)x + pb_x_q8_d(cols));
    const int32_t *xs = (const void *)((const char *)x + pb_x_q8_s(cols));
    for (int64_t b = 0; b < cols / BLOCK; b++) {
        int32_t sum = 0;
        read_block(type, w + row_bytes(type, BLOCK) * (size_t)b, &d, &m, q);
        if (format == PB_X_F32) {
            for (int i = 0; i < BLOCK; i++)
                acc = fmaf(value_of(type, d, m, q[i]), ((const float *)x)[b * BLOCK + i], acc);
            continue;
        }
        for (int i = 0; i < BLOCK; i++)
            sum += q[i] * xq[b * BLOCK + i];
        acc = fmaf(d * xd[b], (float)sum, acc);
        if (type == PB_Q4_1)
            acc = fmaf(m * xd[b], (float)xs[b], acc);
    }
    return acc;
}

static int is_defined(const pb_linear_kernel *k)
{
    int quant = k->w_type == PB_Q8_0 || k->w_type == PB_Q4_0 || k->w_type == PB_Q4_1;
    if (k->w_type == PB_F32 || k->w_type == PB_F16)
        return k->x_format == PB_X_F32;
    return quant && (k->x_format == PB_X_Q8 || k->x_format == PB_X_F32);
}

/* ---- a case ------------------------------------------------------------ */

typedef struct bench {
    pb_tensor t;
    unsigned char *stored;
    int64_t rows, cols; /* of the pieces, stacked */
    pb_piece piece[2];
    int n_pieces;
    unsigned char *packed; /* packed_bytes, then a fence */
    size_t packed_bytes;
    char *x;
    size_t x_stride;
} bench;

static int read_rows(const pb_tensor *t, int64_t row0, int64_t n, void *dst)
{
    const bench *b = t->owner;
    if (row0 < 0 || n < 0 || row0 + n > t->rows)
        return PB_E_INVAL;
    memcpy(dst, b->stored + (size_t)row0 * t->row_bytes, (size_t)n * t->row_bytes);
    return 0;
}

static void *aligned(size_t bytes)
{
    return aligned_alloc(64, (bytes + 127) / 64 * 64);
}

static void put_half(unsigned char *p, uint64_t *rng)
{
    uint16_t h = (uint16_t)(pbi_rig_random(rng) & 0x83ff); /* about 2^-7 .. 2^-4, both signs */
    h = (uint16_t)(h | (8 + pbi_rig_below(rng, 4)) << 10);
    memcpy(p, &h, 2);
}

static void fill_stored(bench *b, uint64_t *rng)
{
    size_t bytes = (size_t)b->t.rows * b->t.row_bytes, block = row_bytes(b->t.type, BLOCK);
    for (size_t i = 0; i < bytes; i++)
        b->stored[i] = (unsigned char)pbi_rig_random(rng);
    for (size_t i = 0; i < bytes; i += b->t.type == PB_F32 ? 4 : b->t.type == PB_F16 ? 2 : block) {
        float f = (float)pbi_rig_below(rng, 2001) * 0.001f - 1.0f;
        if (b->t.type == PB_F32)
            memcpy(b->stored + i, &f, 4);
        else
            put_half(b->stored + i, rng);
        if (b->t.type == PB_Q4_1)
            put_half(b->stored + i + 2, rng);
    }
}

static void fill_x(bench *b, int32_t format, int n_x, uint64_t *rng)
{
    b->x_stride = pb_x_bytes(format, b->cols);
    b->x = aligned(b->x_stride * (size_t)n_x);
    for (int i = 0; i < n_x; i++) {
        char *row = b->x + (size_t)i * b->x_stride;
        float *d = (void *)(row + (format == PB_X_Q8 ? pb_x_q8_d(b->cols) : 0));
        int32_t *s = (void *)(row + (format == PB_X_Q8 ? pb_x_q8_s(b->cols) : 0));
        for (int64_t k = 0; format == PB_X_F32 && k < b->cols; k++)
            d[k] = (float)pbi_rig_below(rng, 20001) * 0.0001f - 1.0f;
        for (int64_t k = 0; format == PB_X_Q8 && k < b->cols; k++) {
            row[k] = (char)(pbi_rig_below(rng, 255) - 127);
            if (k % BLOCK == 0) {
                s[k / BLOCK] = 0;
                d[k / BLOCK] = (float)(1 + pbi_rig_below(rng, 1000)) * 1e-5f;
            }
            s[k / BLOCK] += (signed char)row[k];
        }
    }
}

/* A tensor larger than what is used of it, as one piece or two. */
static void make_tensor(bench *b, int32_t type, int64_t rows, int64_t cols, int two, uint64_t *rng)
{
    b->rows = rows;
    b->cols = cols;
    b->t = (pb_tensor){ .name = "lint.weight",
                        .type = type,
                        .n_dims = 2,
                        .dim = { cols + 2 * BLOCK, rows + 5, 1, 1 },
                        .rows = rows + 5,
                        .cols = cols + 2 * BLOCK,
                        .row_bytes = row_bytes(type, cols + 2 * BLOCK),
                        .read = read_rows,
                        .owner = b };
    b->stored = malloc((size_t)b->t.rows * b->t.row_bytes);
    fill_stored(b, rng);
    int64_t cut = two && rows > 1 ? rows / 2 : rows;
    b->n_pieces = cut < rows ? 2 : 1;
    b->piece[0] = (pb_piece){ &b->t, 3, cut, BLOCK, cols };
    b->piece[1] = (pb_piece){ &b->t, 0, rows - cut, 0, cols };
    if (!two) { /* also with the bytes in memory, as a mapped file gives them */
        b->t.data = b->stored;
    }
}

static const unsigned char *stored_row(const bench *b, int64_t r)
{
    const pb_piece *p = r < b->piece[0].n_rows ? &b->piece[0] : &b->piece[1];
    int64_t at = p == &b->piece[0] ? r : r - b->piece[0].n_rows;
    return b->stored + (size_t)(p->row0 + at) * b->t.row_bytes + row_bytes(b->t.type, p->col0);
}

static void free_bench(bench *b)
{
    free(b->stored);
    free(b->packed);
    free(b->x);
    *b = (bench){ 0 };
}

/* Packs panels [p0, p1) into both; they were filled differently, so that bytes in which they then
 * agree are those that were written. */
static int pack_range(pbi_lint *l, const pb_linear_kernel *k, const bench *b, unsigned char *dst[2],
                      int64_t p0, int64_t p1)
{
    for (int i = 0; i < 2; i++) {
        memset(dst[i], i ? 0x5a : 0xa5, b->packed_bytes + FENCE);
        int rc = k->pack(b->piece, b->n_pieces, dst[i], p0, p1);
        if (rc)
            return pbi_say(l, PBI_FAIL, "%s: pack() of %lld x %lld, panels %lld..%lld, returns %d",
                           k->name, (long long)b->rows, (long long)b->cols, (long long)p0,
                           (long long)p1 - 1, rc);
    }
    return PBI_PASS;
}

/* Two ranges of panels, that threads may write at once, share no byte; together they are all. */
static int pack(pbi_lint *l, const pb_linear_kernel *k, bench *b, int64_t cut)
{
    int64_t panels = (b->rows + k->panel_rows - 1) / k->panel_rows;
    uint64_t bytes = k->packed_bytes(b->rows, b->cols);
    unsigned char *first[2], *second[2];
    if (bytes == 0 || bytes > (1u << 28))
        return pbi_say(l, PBI_FAIL, "%s: packed_bytes(%lld, %lld) is %llu", k->name,
                       (long long)b->rows, (long long)b->cols, (unsigned long long)bytes);
    b->packed_bytes = (size_t)bytes;
    for (int i = 0; i < 2; i++) {
        first[i] = aligned(b->packed_bytes + FENCE);
        second[i] = aligned(b->packed_bytes + FENCE);
    }
    b->packed = first[0];
    int status = pack_range(l, k, b, first, 0, cut);
    if (!status)
        status = pack_range(l, k, b, second, cut, panels);
    for (size_t i = 0; i < b->packed_bytes + FENCE && !status; i++) {
        int one = first[0][i] == first[1][i], two = second[0][i] == second[1][i];
        if (i >= b->packed_bytes && (one || two))
            status = pbi_say(l, PBI_FAIL, "%s: pack() writes past packed_bytes()", k->name);
        else if (one && two)
            status = pbi_say(l, PBI_FAIL,
                             "%s: pack() of panels 0..%lld and of %lld..%lld both write byte %zu",
                             k->name, (long long)cut - 1, (long long)cut, (long long)panels - 1, i);
        if (two)
            b->packed[i] = second[0][i];
    }
    free(first[1]);
    free(second[0]);
    free(second[1]);
    return status;
}

static int check_y(pbi_lint *l, const pb_linear_kernel *k, const bench *b, const float *y,
                   int64_t stride, int n_x, int64_t row0, int64_t row1)
{
    float guard;
    memset(&guard, 0x7e, sizeof guard);
    for (int i = 0; i < n_x; i++)
        for (int64_t r = 0; r < stride; r++) {
            float got = y[i * stride + r], want = guard;
            if (r >= row0 && r < row1)
                want = dot(k->w_type, k->x_format, stored_row(b, r), b->x + (size_t)i * b->x_stride,
                           b->cols);
            if (!memcmp(&got, &want, sizeof got))
                continue;
            if (r < row0 || r >= row1)
                return pbi_say(l, PBI_FAIL,
                               "%s: %lld x %lld: run() of rows %lld..%lld writes row %lld", k->name,
                               (long long)b->rows, (long long)b->cols, (long long)row0,
                               (long long)row1 - 1, (long long)r);
            return pbi_say(l, PBI_FAIL,
                           "%s: %lld x %lld, %d rows of x: y[%d][%lld] is %.9g, the reference "
                           "says %.9g",
                           k->name, (long long)b->rows, (long long)b->cols, n_x, i, (long long)r,
                           (double)got, (double)want);
        }
    return PBI_PASS;
}

static int run(pbi_lint *l, const pb_linear_kernel *k, bench *b, int n_x, int64_t p0, int64_t p1)
{
    int64_t stride = b->rows + 3, row0 = p0 * k->panel_rows, row1 = p1 * k->panel_rows;
    size_t bytes = (size_t)(n_x * stride) * sizeof(float);
    float *y = aligned(bytes);
    memset(y, 0x7e, bytes);
    row0 = row0 < b->rows ? row0 : b->rows;
    row1 = row1 < b->rows ? row1 : b->rows;
    pb_linear_args a = { .size = sizeof a,
                         .w = b->packed,
                         .rows = b->rows,
                         .cols = b->cols,
                         .x = b->x,
                         .x_stride = b->x_stride,
                         .n_x = n_x,
                         .y = y,
                         .y_stride = stride };
    k->run(&a, p0, p1);
    int status = check_y(l, k, b, y, stride, n_x, row0, row1);
    free(y);
    return status;
}

/* row(): the stored row as floats, for EMBED */
static int check_row(pbi_lint *l, const pb_linear_kernel *k, const bench *b)
{
    float *out = aligned((size_t)(b->cols + 16) * sizeof *out), d, m;
    int q[BLOCK], status = PBI_PASS;
    for (int64_t r = 0; r < b->rows && !status; r++) {
        const unsigned char *w = stored_row(b, r);
        memset(out, 0x7e, (size_t)(b->cols + 16) * sizeof *out);
        k->row(b->packed, b->rows, b->cols, r, out);
        for (int64_t c = 0; c < b->cols && !status; c++) {
            float want;
            if (k->w_type == PB_F32 || k->w_type == PB_F16) {
                want = float_at(k->w_type, w, c);
            } else {
                read_block(k->w_type, w + row_bytes(k->w_type, BLOCK) * (size_t)(c / BLOCK), &d, &m,
                           q);
                want = value_of(k->w_type, d, m, q[c % BLOCK]);
            }
            if (out[c] != want)
                status = pbi_say(l, PBI_FAIL, "%s: row(%lld)[%lld] is %.9g, stored is %.9g",
                                 k->name, (long long)r, (long long)c, (double)out[c], (double)want);
        }
        if (!status && ((unsigned char *)&out[b->cols])[0] != 0x7e)
            status = pbi_say(l, PBI_FAIL, "%s: row() writes past the row's end", k->name);
    }
    free(out);
    return status;
}

static int one_size(pbi_lint *l, const pb_linear_kernel *k, int64_t rows, int64_t cols, int two,
                    uint64_t *rng)
{
    static const int counts[] = { 1, 2, 3, 4, 5, 7, 8, 16, 17, MAX_X };
    int64_t panels = (rows + k->panel_rows - 1) / k->panel_rows;
    bench b = { 0 };
    make_tensor(&b, k->w_type, rows, cols, two, rng);
    int status = pack(l, k, &b, pbi_rig_below(rng, panels + 1));
    for (size_t i = 0; i < sizeof counts / sizeof *counts && !status; i++) {
        int n_x = counts[i];
        if (k->max_rows && n_x > k->max_rows)
            continue;
        free(b.x);
        fill_x(&b, k->x_format, n_x, rng);
        status = run(l, k, &b, n_x, 0, panels);
        int64_t cut = pbi_rig_below(rng, panels + 1);
        if (!status)
            status = run(l, k, &b, n_x, 0, cut);
        if (!status)
            status = run(l, k, &b, n_x, cut, panels);
    }
    if (!status)
        status = check_row(l, k, &b);
    free_bench(&b);
    return status;
}

static int check_kernel(pbi_lint *l, const pb_linear_kernel *k)
{
    uint64_t rng = l->seed;
    if (!k->name || !k->isa || !k->usable || !k->packed_bytes || !k->pack || !k->run || !k->row ||
        k->panel_rows < 1)
        return pbi_say(l, PBI_FAIL, "row %s lacks a name, isa, panel_rows or a function",
                       k->name ? k->name : "?");
    if (!k->usable())
        return PBI_SKIP;
    if (!is_defined(k))
        return pbi_say(l, PBI_WARN, "%s: weight type %d with activation format %d: unchecked",
                       k->name, k->w_type, k->x_format);
    const int64_t p = k->panel_rows;
    const int64_t rows[] = { 1, p - 1, p, p + 1, 3 * p, 4 * p + 3, 67 };
    const int64_t cols[] = { 32, 64, 96, 288, 1536 };
    int status = PBI_PASS;
    for (size_t r = 0; r < sizeof rows / sizeof *rows && !status; r++)
        for (size_t c = 0; c < sizeof cols / sizeof *cols && !status; c++)
            if (rows[r] > 0 && (rows[r] < 50 || cols[c] < 300))
                status = one_size(l, k, rows[r], cols[c], (r + c) % 2 == 0, &rng);
    return status;
}

int pbi_check_linear(pbi_lint *l)
{
    const pb_kernel_set *set = pbi_library_iface(l->lib, "kernels/1");
    int status = PBI_PASS, n_run = 0;
    if (!set->n_linear)
        return pbi_say(l, PBI_SKIP, "no linear rows");
    for (int i = 0; i < set->n_linear; i++) {
        int s = check_kernel(l, set->linear[i]);
        n_run += s == PBI_PASS;
        if (s >= PBI_FAIL)
            return s;
        status = s == PBI_WARN ? s : status;
    }
    if (!status && !n_run)
        return pbi_say(l, PBI_SKIP, "no row can run on this machine");
    return status;
}
