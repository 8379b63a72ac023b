/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/test_rows.c - every row of the tables, bit by bit against the plain-C row of
 * the same types: products here, KV formats and elementwise operations in test_rows_*.c. New rows
 * are found in the tables; those that the machine lacks are named and left out.
 *
 * A covering plan runs always; PATCHBAY_FUZZ_SECONDS adds random cases, PATCHBAY_FUZZ_SEED their
 * seed. Invariant: what the comparison could not see is a fault of this test, so rows with planted
 * faults must be caught by the same lines.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test_rows.h"

/* ---- what the parts share ------------------------------------------------------- */

enum { PAGE = 4096 };

void *tail_take(tail *t, size_t n, int fill)
{
    if (n + LEAD > t->room) {
        if (t->mem)
            munmap(t->mem, t->room + PAGE);
        t->room = (n + LEAD + (1 << 16)) / PAGE * PAGE;
        t->mem =
            mmap(NULL, t->room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(t->mem != MAP_FAILED);
        assert_int_equal(mprotect(t->mem + t->room, PAGE, PROT_NONE), 0);
    }
    memset(t->mem + t->room - n - LEAD, fill, n + LEAD);
    return t->mem + t->room - n;
}

int tail_lead_ok(const tail *t, const void *p, int fill)
{
    const uint8_t *at = p;
    assert_true((const char *)p - LEAD >= t->mem);
    for (int i = 1; i <= LEAD; i++)
        if (at[-i] != (uint8_t)fill)
            return 0;
    return 1;
}

uint32_t rnd_next(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int seconds_over(double since, double part)
{
    const char *s = getenv("PATCHBAY_FUZZ_SECONDS");
    return now_s() - since >= (s ? atof(s) : 0.0) * part;
}

/* ---- one product ------------------------------------------------------------------ */

typedef struct problem {
    int64_t rows, cols, p0, p1; /* panels of 16 rows */
    int32_t n_x, y_gap, x_gap, fill, sliced, by_read;
    uint32_t seed;
} problem;

typedef struct arena { /* of one process: reused for all problems */
    tail stored, w, x, want, got, row;
} arena;

static arena mem_;

typedef struct count {
    const void *row;
    int64_t cases, outputs;
} count;

static const pb_linear_kernel *plain_of(const pb_linear_kernel *k)
{
    for (int i = 0; cpu_linear_any[i]; i++)
        if (cpu_linear_any[i]->w_type == k->w_type && cpu_linear_any[i]->x_format == k->x_format)
            return cpu_linear_any[i];
    return NULL;
}

/* One row of inputs in format; beyond them NaN, which nobody may add. */
static void fill_x(int32_t format, int32_t fill, int64_t cols, char *x, uint32_t *s)
{
    if (format == PB_X_F32) {
        for (int64_t k = 0; k < cols; k++) {
            float v = fill == F_WILD ? rnd_bits(s) : rnd_float(s);
            v = fill == F_TINY ? m_float(m_bits(rnd_bits(s)) & 0x80ffffffu) : v;
            v = fill == F_EXTREME ? v * 0x1p100f : v;
            memcpy(x + 4 * k, &v, 4);
        }
        return;
    }
    for (int64_t b = 0; b < cols / CPU_BLOCK; b++) {
        int32_t sum = 0, sign = rnd_to(s, 2) ? 127 : -127;
        for (int64_t k = 0; k < CPU_BLOCK; k++) {
            int32_t q = fill == F_EXTREME ? sign : rnd_to(s, 255) - 127;
            x[b * CPU_BLOCK + k] = (char)q;
            sum += q;
        }
        float d = (rnd_float(s) + 1.0f) * 0x1p-6f;
        if (fill == F_TINY)
            d = rnd_to(s, 2) ? 0.0f : m_float(rnd_next(s) & 0x7fffffu);
        if (fill == F_WILD)
            d = rnd_bits(s);
        memcpy(x + pb_x_q8_d(cols) + 4 * b, &d, 4);
        memcpy(x + pb_x_q8_s(cols) + 4 * b, &sum, 4);
    }
}

static int read_rows(const pb_tensor *t, int64_t row0, int64_t n, void *dst)
{
    memcpy(dst, (const char *)t->owner + (uint64_t)row0 * t->row_bytes,
           (size_t)n * (size_t)t->row_bytes);
    return 0;
}

/* The stored matrix of a problem: sliced ones are two ranges of rows, within more columns. */
typedef struct stored {
    pb_tensor t;
    pb_piece piece[2];
    int32_t n;
    int64_t col0;
} stored;

static void make_stored(stored *m, int32_t type, const problem *p)
{
    uint32_t s = p->seed;
    size_t n, bytes = type_block(type, &n);
    const int64_t more = n > 32 ? (int64_t)n : 32;
    int64_t cols = p->cols + (p->sliced ? 2 * more : 0), rows = p->rows + (p->sliced ? 3 : 0);
    size_t row_bytes = (size_t)cols / n * bytes;
    uint8_t *d = tail_take(&mem_.stored, (size_t)rows * row_bytes, CANARY);
    for (size_t i = 0; i < (size_t)rows * row_bytes; i += bytes)
        type_fill(type, p->fill, d + i, &s);
    m->t = (pb_tensor){ .name = "w",
                        .type = type,
                        .n_dims = 2,
                        .dim = { cols, rows, 1, 1 },
                        .rows = rows,
                        .cols = cols,
                        .row_bytes = row_bytes,
                        .data = p->by_read ? NULL : d,
                        .read = read_rows,
                        .owner = d };
    m->col0 = p->sliced ? more : 0;
    m->n = p->sliced && p->rows > 1 ? 2 : 1;
    int64_t first = m->n == 2 ? p->rows / 2 : p->rows;
    m->piece[0] = (pb_piece){ &m->t, 0, first, m->col0, p->cols };
    m->piece[1] = (pb_piece){ &m->t, rows - (p->rows - first), p->rows - first, m->col0, p->cols };
}

/* Packs as threads would, the last panels first. */
static void pack_by_parts(const pb_linear_kernel *k, const problem *p, const stored *m, void *w)
{
    int64_t panels = (p->rows + k->panel_rows - 1) / k->panel_rows, cut = p->seed % (panels + 1);
    assert_int_equal(k->pack(m->piece, m->n, w, cut, panels), 0);
    assert_int_equal(k->pack(m->piece, m->n, w, 0, cut), 0);
}

/* Packs for k and runs it as a backend would. Returns y with what surrounds it. */
static float *run_product(const pb_linear_kernel *k, const problem *p, const stored *m,
                          const char *x, size_t x_stride, tail *t)
{
    uint64_t bytes = k->packed_bytes(p->rows, p->cols);
    int64_t y_stride = p->rows + p->y_gap, p0 = p->p0, p1 = p->p1;
    char *w = tail_take(&mem_.w, (size_t)bytes, CANARY);
    float *y = tail_take(t, (size_t)((p->n_x - 1) * y_stride + p->rows) * 4, CANARY);
    assert_int_equal(k->panel_rows, CPU_ROWS);
    pack_by_parts(k, p, m, w);
    assert_true(tail_lead_ok(&mem_.w, w, CANARY));
    int32_t most = k->max_rows > 0 ? k->max_rows : p->n_x;
    for (int32_t i = 0; i < p->n_x; i += most) {
        pb_linear_args a = { .size = sizeof a,
                             .w = w,
                             .rows = p->rows,
                             .cols = p->cols,
                             .x = x + (size_t)i * x_stride,
                             .x_stride = x_stride,
                             .n_x = p->n_x - i < most ? p->n_x - i : most,
                             .y = y + i * y_stride,
                             .y_stride = y_stride };
        k->run(&a, p0, p1);
    }
    return y;
}

/* row(): the stored row as floats, exactly cols of them */
static int same_row(const pb_linear_kernel *k, const pb_linear_kernel *ref, const problem *p,
                    const stored *m)
{
    float *want = malloc((size_t)p->cols * 4);
    int same = 1;
    for (int pass = 0; pass < 3 && same; pass++) {
        int64_t r = pass == 0 ? 0 : pass == 1 ? p->rows - 1 : p->rows / 2;
        char *w = tail_take(&mem_.w, (size_t)ref->packed_bytes(p->rows, p->cols), CANARY);
        pack_by_parts(ref, p, m, w);
        ref->row(w, p->rows, p->cols, r, want);
        w = tail_take(&mem_.w, (size_t)k->packed_bytes(p->rows, p->cols), CANARY);
        pack_by_parts(k, p, m, w);
        float *got = tail_take(&mem_.row, (size_t)p->cols * 4, CANARY);
        k->row(w, p->rows, p->cols, r, got);
        same &= tail_lead_ok(&mem_.row, got, CANARY);
        for (int64_t c = 0; c < p->cols; c++)
            same &= same_float(want[c], got[c]);
    }
    free(want);
    return same;
}

/* 1 if y (of k) is want inside of the range and untouched outside; else says where not. */
static int same_product(const char *name, const problem *p, const float *want, const float *y,
                        const tail *t, int quiet)
{
    int64_t stride = p->rows + p->y_gap, n = (p->n_x - 1) * stride + p->rows;
    float untouched;
    memset(&untouched, CANARY, 4);
    int64_t bad = -1;
    for (int64_t i = 0; i < n && bad < 0; i++) {
        int64_t r = i % stride;
        int in = r >= p->p0 * CPU_ROWS && r < p->p1 * CPU_ROWS && r < p->rows;
        if (in ? !same_float(want[i], y[i]) : m_bits(y[i]) != m_bits(untouched))
            bad = i;
    }
    if (bad < 0 && tail_lead_ok(t, y, CANARY))
        return 1;
    if (!quiet && bad >= 0)
        print_error("%s: row %lld of input %lld is %.9g (%08x), plain C %.9g (%08x)\n", name,
                    (long long)(bad % stride), (long long)(bad / stride), (double)y[bad],
                    m_bits(y[bad]), (double)want[bad], m_bits(want[bad]));
    if (!quiet)
        print_error("%s: rows %lld cols %lld inputs %d panels %lld..%lld fill %d gaps %d %d sliced "
                    "%d read %d seed %u%s\n",
                    name, (long long)p->rows, (long long)p->cols, p->n_x, (long long)p->p0,
                    (long long)p->p1, p->fill, p->y_gap, p->x_gap, p->sliced, p->by_read, p->seed,
                    bad < 0 ? ": writes before y" : "");
    return 0;
}

/* All inputs of a problem. */
static char *make_x(int32_t format, const problem *p, size_t *stride)
{
    uint32_t s = p->seed ^ 0x5bd1e995u;
    size_t bytes = pb_x_bytes(format, p->cols);
    *stride = bytes + (size_t)p->x_gap * 64;
    char *x = tail_take(&mem_.x, (size_t)(p->n_x - 1) * *stride + bytes, 0xff);
    for (int32_t i = 0; i < p->n_x; i++)
        fill_x(format, p->fill, p->cols, x + (size_t)i * *stride, &s);
    return x;
}

/* k against plain C in one problem */
static int agree(const pb_linear_kernel *k, const problem *p, int quiet)
{
    const pb_linear_kernel *ref = plain_of(k);
    stored m;
    size_t stride;
    make_stored(&m, k->w_type, p);
    const char *x = make_x(k->x_format, p, &stride);
    const float *want = run_product(ref, p, &m, x, stride, &mem_.want);
    const float *got = run_product(k, p, &m, x, stride, &mem_.got);
    return same_product(k->name, p, want, got, &mem_.got, quiet) && same_row(k, ref, p, &m);
}

/* ---- the definition, from stored blocks ------------------------------------------------ */

/* docs/numerics.md, "Products", in as few lines as it takes: w is a stored row */
static float defined(int32_t type, int32_t format, const uint8_t *w, const char *x, int64_t cols)
{
    size_t n, bytes = type_block(type, &n);
    const int64_t group = format == PB_X_Q8 ? type_group(type) : 1;
    float acc = 0.0f, f;
    for (int64_t k = 0; k < cols; k += group) {
        int32_t sum = 0, xsum = 0;
        element e = type_at(type, w + (size_t)k / n * bytes, (int)(k % (int64_t)n));
        if (format == PB_X_F32) {
            memcpy(&f, x + 4 * k, 4);
            acc = CPU_FMA(type_has_min(type) ? CPU_FMA(e.d, (float)e.q, e.m) : e.d * (float)e.q, f,
                          acc);
            continue;
        }
        for (int64_t j = k; j < k + group; j++) {
            sum += type_at(type, w + (size_t)j / n * bytes, (int)(j % (int64_t)n)).q * (int8_t)x[j];
            xsum += (int8_t)x[j];
        }
        memcpy(&f, x + pb_x_q8_d(cols) + k / 32 * 4, 4);
        acc = CPU_FMA(e.d * f, (float)sum, acc);
        if (type_has_min(type))
            acc = CPU_FMA(e.m * f, (float)xsum, acc);
    }
    return acc;
}

/* Plain C does what the document says. */
static void check_definition(const pb_linear_kernel *k, const problem *p)
{
    stored m;
    size_t n, bytes = type_block(k->w_type, &n), stride;
    make_stored(&m, k->w_type, p);
    const char *x = make_x(k->x_format, p, &stride);
    const float *y = run_product(k, p, &m, x, stride, &mem_.want);
    for (int32_t i = 0; i < p->n_x; i++)
        for (int64_t r = p->p0 * CPU_ROWS; r < p->rows && r < p->p1 * CPU_ROWS; r++) {
            const pb_piece *c = r < m.piece[0].n_rows ? &m.piece[0] : &m.piece[1];
            int64_t at = c->row0 + (c == m.piece ? r : r - m.piece[0].n_rows);
            const uint8_t *w = (const uint8_t *)m.t.owner + (uint64_t)at * m.t.row_bytes +
                               (size_t)m.col0 / n * bytes;
            float want = defined(k->w_type, k->x_format, w, x + (size_t)i * stride, p->cols);
            assert_true(same_float(want, y[i * (p->rows + p->y_gap) + r]));
        }
}

/* ---- the plan ------------------------------------------------------------------------ */

static int64_t cols_at(int32_t type, int i)
{
    static const int64_t blocks[] = { 32, 64, 96, 160, 288, 128, 352, 224 };
    static const int64_t odd[] = { 1, 7, 33, 64, 95, 16, 130, 31 };
    size_t n;
    type_block(type, &n);
    return n == 1 ? odd[i % 8] : n == 32 ? blocks[i % 8] : (int64_t)n * (1 + i % 3);
}

enum { SHAPES = 2 * 67 };

/* Problem i of the plan, 0 after the last: every number of rows and of inputs up to 67, each of
 * both with small counts of the other, large ones, and all fills. */
static int planned(int32_t type, int i, problem *p)
{
    enum { SMALL = 9 * 6, LARGE = 7, FILLS = 3 * 8 };
    static const int64_t few_rows[] = { 1, 15, 16, 17, 33, 67 };
    size_t n;
    *p = (problem){ .seed = (uint32_t)i * 2654435761u + 1, .cols = cols_at(type, i) };
    p->y_gap = i % 3 ? i % 7 : 0;
    p->x_gap = i % 4 == 3 ? 3 : i % 2;
    p->sliced = i % 5 == 0;
    p->by_read = i % 7 == 0;
    if (i < SHAPES) {
        p->rows = i % 67 + 1;
        p->n_x = i * (i < 67 ? 29 : 11) % 67 + 1; /* each number once */
        p->fill = i % 4 ? F_NORMAL : i / 4 % TYPE_FILLS;
    } else if ((i -= SHAPES) < SMALL) {
        p->rows = few_rows[i % 6];
        p->n_x = i / 6 + 1;
        p->cols = cols_at(type, i / 6 + i % 6);
    } else if ((i -= SMALL) < LARGE) {
        static const int64_t rows[] = { 576, 192, 1025, 320, 33, 40, 17 };
        static const int64_t cols[] = { 576, 1536, 64, 960, 2080, 10304, 1056 };
        static const int32_t inputs[] = { 3, 2, 9, 5, 64, 2, 125 };
        p->rows = rows[i];
        type_block(type, &n);
        p->cols = (cols[i] + (int64_t)n - 1) / (int64_t)n * (int64_t)n;
        p->n_x = inputs[i];
    } else if ((i -= LARGE) < FILLS) {
        p->fill = 1 + i % 3;
        p->rows = 16 + i;
        p->n_x = 1 + i / 3;
    } else {
        return 0;
    }
    int64_t panels = (p->rows + CPU_ROWS - 1) / CPU_ROWS;
    uint32_t s = p->seed;
    p->p1 = panels;
    if (panels > 1 && i % 3 == 2) { /* a range in the middle, at times an empty one */
        p->p0 = rnd_to(&s, (int32_t)panels);
        p->p1 = p->p0 + rnd_to(&s, (int32_t)(panels - p->p0) + 1);
    }
    return 1;
}

static void random_problem(int32_t type, uint32_t *s, problem *p)
{
    size_t n;
    *p = (problem){ .seed = rnd_next(s), .rows = 1 + rnd_to(s, rnd_to(s, 4) ? 67 : 700) };
    p->n_x = 1 + rnd_to(s, 67);
    type_block(type, &n);
    p->cols = n == 1 ? 1 + rnd_to(s, 400) : (int64_t)n * (1 + rnd_to(s, n == 32 ? 20 : 4));
    p->cols *= rnd_to(s, 8) ? 1 : 16;
    while (p->rows * p->cols * p->n_x > 1000000)
        p->n_x = (p->n_x + 1) / 2, p->rows = (p->rows + 1) / 2;
    p->y_gap = rnd_to(s, 20);
    p->x_gap = rnd_to(s, 3);
    p->fill = rnd_to(s, 2) ? F_NORMAL : rnd_to(s, TYPE_FILLS);
    p->sliced = rnd_to(s, 2);
    p->by_read = rnd_to(s, 2);
    int32_t panels = (int32_t)((p->rows + CPU_ROWS - 1) / CPU_ROWS);
    p->p0 = rnd_to(s, panels);
    p->p1 = p->p0 + rnd_to(s, panels - (int32_t)p->p0 + 1);
}

/* One problem for all rows of plain's types; the number that were compared. */
static int compare_all(const pb_linear_kernel *plain, const problem *p, count *c)
{
    stored m;
    size_t stride;
    int n = 0;
    const pb_linear_kernel *k;
    const float *want = NULL;
    const char *x = NULL;
    for (int i = 0; (k = cpu_linear_at(i)) != NULL; i++) {
        if (k == plain || plain_of(k) != plain || !k->usable())
            continue;
        if (!want) {
            make_stored(&m, plain->w_type, p);
            x = make_x(plain->x_format, p, &stride);
            want = run_product(plain, p, &m, x, stride, &mem_.want);
        }
        const float *got = run_product(k, p, &m, x, stride, &mem_.got);
        if (!same_product(k->name, p, want, got, &mem_.got, 0))
            fail_msg("%s differs from %s", k->name, plain->name);
        if (c[i].cases % 8 == 0 && !same_row(k, plain, p, &m))
            fail_msg("row() of %s differs from %s", k->name, plain->name);
        c[i].row = k;
        c[i].cases++;
        c[i].outputs += p->n_x * (p->p1 - p->p0) * CPU_ROWS;
        n++;
    }
    return n;
}

void test_products(void **state)
{
    enum { MOST = 256 };
    static count c[MOST];
    const char *env = getenv("PATCHBAY_FUZZ_SEED");
    uint32_t s = env ? (uint32_t)strtoul(env, NULL, 0) : 1;
    const pb_linear_kernel *k;
    double t0 = now_s();
    problem p;
    (void)state;
    for (int r = 0; cpu_linear_any[r]; r++) {
        for (int i = 0; planned(cpu_linear_any[r]->w_type, i, &p); i++) {
            if (i >= SHAPES && p.rows < 100)
                check_definition(cpu_linear_any[r], &p);
            compare_all(cpu_linear_any[r], &p, c);
        }
    }
    for (int any = 1; any && !seconds_over(t0, 0.6);) {
        any = 0;
        for (int r = 0; cpu_linear_any[r]; r++) {
            random_problem(cpu_linear_any[r]->w_type, &s, &p);
            any += compare_all(cpu_linear_any[r], &p, c);
        }
    }
    for (int i = 0; (k = cpu_linear_at(i)) != NULL; i++) {
        assert_true(i < MOST);
        assert_non_null(plain_of(k)); /* a row that nothing defines */
        if (plain_of(k) == k)
            continue;
        assert_true(!k->usable() || c[i].cases > 100);
        if (c[i].cases)
            print_message("%s = %s: %lld problems, %lld outputs\n", k->name, plain_of(k)->name,
                          (long long)c[i].cases, (long long)c[i].outputs);
        else
            print_message("%s: not on this machine\n", k->name);
    }
}

/* ---- rows with faults are caught --------------------------------------------------------- */

static const pb_linear_kernel *faulty; /* what the planted rows make wrong */

/* blocks descending instead of ascending */
static void run_backward(const pb_linear_args *a, int64_t p0, int64_t p1)
{
    for (int64_t r = p0 * CPU_ROWS; r < p1 * CPU_ROWS && r < a->rows; r++)
        for (int32_t i = 0; i < a->n_x; i++) {
            const float *x =
                (const float *)(const void *)((const char *)a->x + (size_t)i * a->x_stride);
            const float *w = a->w;
            float acc = 0.0f;
            for (int64_t k = a->cols - 1; k >= 0; k--)
                acc = CPU_FMA(w[(r / CPU_ROWS * a->cols + k) * CPU_ROWS + r % CPU_ROWS], x[k], acc);
            a->y[i * a->y_stride + r] = acc;
        }
}

static void run_too_far(const pb_linear_args *a, int64_t p0, int64_t p1)
{
    faulty->run(a, p0, p1);
    if (p0 > 0 && a->n_x > 0)
        a->y[p0 * CPU_ROWS - 1] = 0.0f;
}

static void run_reads_more(const pb_linear_args *a, int64_t p0, int64_t p1)
{
    const volatile char *end = (const char *)a->w + faulty->packed_bytes(a->rows, a->cols);
    (void)*end;
    faulty->run(a, p0, p1);
}

static void run_inputs_more(const pb_linear_args *a, int64_t p0, int64_t p1)
{
    const volatile char *end = (const char *)a->x + (size_t)(a->n_x - 1) * a->x_stride +
                               pb_x_bytes(faulty->x_format, a->cols);
    (void)*end;
    faulty->run(a, p0, p1);
}

/* 1 if the row ends its process */
static int crashes(const pb_linear_kernel *k, const problem *p)
{
    pid_t child = fork();
    int status;
    assert_true(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1), dup2(null, 2);
        signal(SIGSEGV, SIG_DFL);
        agree(k, p, 1);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

void test_products_see_faults(void **state)
{
    problem p = { .rows = 37, .cols = 96, .p0 = 1, .p1 = 3, .n_x = 3, .y_gap = 2, .seed = 9 };
    pb_linear_kernel k = *cpu_linear_any[0];
    (void)state;
    faulty = cpu_linear_any[0];
    assert_int_equal(k.w_type, PB_F32);
    assert_true(agree(&k, &p, 1));
    k.run = run_backward;
    assert_false(agree(&k, &p, 1));
    k.run = run_too_far;
    assert_false(agree(&k, &p, 1));
    k.run = run_reads_more;
    assert_true(crashes(&k, &p));
    k.run = run_inputs_more;
    assert_true(crashes(&k, &p));
    k.run = faulty->run;
    assert_false(crashes(&k, &p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_see_faults),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_kv_see_faults),
        cmocka_unit_test(test_kv),
        cmocka_unit_test(test_elem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
