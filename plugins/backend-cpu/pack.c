/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/pack.c - packed panels of 16 rows, and the plain-C linear rows that define
 * the bits of a product (docs/numerics.md).
 *
 * All own rows share these layouts, whatever their instruction set. A panel of [16][cols]:
 *   Q8_0  u8 [cols/32][8 k4][16 rows][4 k] = q + 128, then f16 d [cols/32][16]
 *   Q4_0  u8 [cols/32][4][16 rows][4]: byte (i, r, j) holds k = 4i + j in its low half and
 *         k = 16 + 4i + j in its high half, then f16 d [cols/32][16]
 *   Q4_1  as Q4_0, but f16 {d [16], m [16]} [cols/32]
 *   F16   f16 [cols][16];  F32  f32 [cols][16]
 * each part padded to 64 bytes. Rows beyond the last are zero. Invariant: packing loses nothing.
 */
#include "cpu.h"
#include "math.h"

#include <stdlib.h>

typedef struct stored { /* a type as it is stored: blocks of n elements in b bytes */
    int32_t type, n, b;
} stored;

static const stored stored_types[] = {
    { PB_F32, 1, 4 },    { PB_F16, 1, 2 },    { PB_Q8_0, 32, 34 },
    { PB_Q4_0, 32, 18 }, { PB_Q4_1, 32, 20 },
};

static const stored *stored_of(int32_t type)
{
    for (size_t i = 0; i < sizeof stored_types / sizeof stored_types[0]; i++)
        if (stored_types[i].type == type)
            return &stored_types[i];
    return NULL;
}

/* bytes of the part of a panel before the scales */
static uint64_t quants_bytes(int32_t type, int64_t cols)
{
    uint64_t n = (uint64_t)cols;
    switch (type) {
    case PB_Q8_0: return n * CPU_ROWS;
    case PB_Q4_0:
    case PB_Q4_1: return n * CPU_ROWS / 2;
    case PB_F16: return CPU_ALIGN64(n * CPU_ROWS * 2);
    default: return n * CPU_ROWS * 4;
    }
}

uint64_t cpu_panel_bytes(int32_t type, int64_t cols)
{
    uint64_t blocks = (uint64_t)cols / CPU_BLOCK, scales = 0;
    if (type == PB_Q8_0 || type == PB_Q4_0)
        scales = CPU_ALIGN64(blocks * 32);
    if (type == PB_Q4_1)
        scales = blocks * 64;
    return quants_bytes(type, cols) + scales;
}

uint64_t cpu_packed_bytes_of(int32_t type, int64_t rows, int64_t cols)
{
    return (uint64_t)((rows + CPU_ROWS - 1) / CPU_ROWS) * cpu_panel_bytes(type, cols);
}

static void put_half(uint8_t *panel, uint64_t at, size_t i, const uint8_t *src)
{
    memcpy(panel + at + 2 * i, src, 2);
}

/* one stored row into its lane of a panel */
static void pack_row(int32_t type, const uint8_t *src, int64_t cols, uint8_t *panel, size_t lane)
{
    uint64_t scales = quants_bytes(type, cols);
    size_t nb = (size_t)cols / CPU_BLOCK, n = (size_t)cols;
    if (type == PB_F32) {
        for (size_t k = 0; k < n; k++)
            memcpy(panel + (k * CPU_ROWS + lane) * 4, src + 4 * k, 4);
    } else if (type == PB_F16) {
        for (size_t k = 0; k < n; k++)
            memcpy(panel + (k * CPU_ROWS + lane) * 2, src + 2 * k, 2);
    } else if (type == PB_Q8_0) {
        for (size_t b = 0; b < nb; b++, src += 34) {
            put_half(panel, scales, b * CPU_ROWS + lane, src);
            for (size_t k = 0; k < CPU_BLOCK; k++)
                panel[b * 512 + k / 4 * 64 + lane * 4 + k % 4] = (uint8_t)(src[2 + k] ^ 0x80);
        }
    } else {
        size_t head = type == PB_Q4_1 ? 4 : 2;
        for (size_t b = 0; b < nb; b++, src += head + 16) {
            put_half(panel, scales, b * CPU_ROWS * (head / 2) + lane, src);
            if (type == PB_Q4_1)
                put_half(panel, scales, b * CPU_ROWS * 2 + CPU_ROWS + lane, src + 2);
            for (size_t k = 0; k < 16; k++)
                panel[b * 256 + k / 4 * 64 + lane * 4 + k % 4] = src[head + k];
        }
    }
}

/* Calls put for each row of the pieces, in order. */
static int each_row(const pb_piece *p, int32_t n, int32_t type,
                    void (*put)(void *arg, int64_t row, const uint8_t *src), void *arg)
{
    const stored *t = stored_of(type);
    int64_t row = 0;
    for (int32_t i = 0; i < n; i++) {
        const pb_tensor *x = p[i].t;
        if (!t || x->type != type || p[i].col0 % t->n || p[i].n_cols % t->n)
            return PB_E_UNSUPPORTED;
        size_t skip = (size_t)(p[i].col0 / t->n) * (size_t)t->b;
        uint8_t *tmp = x->data ? NULL : malloc((size_t)x->row_bytes);
        if (!x->data && !tmp)
            return PB_E_NOMEM;
        for (int64_t r = 0; r < p[i].n_rows; r++, row++) {
            const uint8_t *src =
                (const uint8_t *)x->data + (uint64_t)(p[i].row0 + r) * x->row_bytes;
            if (tmp) {
                int rc = x->read(x, p[i].row0 + r, 1, tmp);
                if (rc) {
                    free(tmp);
                    return rc;
                }
                src = tmp;
            }
            put(arg, row, src + skip);
        }
        free(tmp);
    }
    return 0;
}

typedef struct pack_arg {
    int32_t type;
    int64_t cols;
    uint64_t panel;
    uint8_t *dst;
} pack_arg;

static void pack_put(void *arg, int64_t row, const uint8_t *src)
{
    const pack_arg *a = arg;
    pack_row(a->type, src, a->cols, a->dst + (uint64_t)(row / CPU_ROWS) * a->panel,
             (size_t)(row % CPU_ROWS));
}

int cpu_pack(int32_t type, const pb_piece *p, int32_t n, void *dst)
{
    pack_arg a = { type, p[0].n_cols, cpu_panel_bytes(type, p[0].n_cols), dst };
    int64_t rows = 0;
    for (int32_t i = 0; i < n; i++)
        rows += p[i].n_rows;
    memset(dst, 0, cpu_packed_bytes_of(type, rows, a.cols));
    return each_row(p, n, type, pack_put, &a);
}

typedef struct f32_arg {
    int32_t type;
    int64_t cols;
    float *out;
} f32_arg;

static void f32_put(void *arg, int64_t row, const uint8_t *src)
{
    const f32_arg *a = arg;
    float *y = a->out + row * a->cols;
    for (int64_t k = 0; k < a->cols; k++) {
        uint16_t h;
        if (a->type == PB_F32) {
            memcpy(&y[k], src + 4 * k, 4);
        } else {
            memcpy(&h, src + 2 * k, 2);
            y[k] = m_half(h);
        }
    }
}

int cpu_read_f32(const pb_piece *p, int32_t n, float *out)
{
    f32_arg a = { p[0].t->type, p[0].n_cols, out };
    if (a.type != PB_F32 && a.type != PB_F16)
        return PB_E_UNSUPPORTED;
    return each_row(p, n, a.type, f32_put, &a);
}

/* ---- reading a panel ------------------------------------------------------- */

static float half_at(const uint8_t *p, size_t i)
{
    uint16_t h;
    memcpy(&h, p + 2 * i, 2);
    return m_half(h);
}

/* scale of a block; which: 1 for the minimum of Q4_1 */
static float scale_at(int32_t type, const uint8_t *panel, int64_t cols, size_t b, size_t lane,
                      size_t which)
{
    size_t per = type == PB_Q4_1 ? 2 : 1;
    return half_at(panel + quants_bytes(type, cols), (b * per + which) * CPU_ROWS + lane);
}

/* the stored integer: Q8_0 -128..127, Q4_0 -8..7, Q4_1 0..15 */
static int quant_at(int32_t type, const uint8_t *panel, size_t b, size_t lane, size_t k)
{
    if (type == PB_Q8_0)
        return panel[b * 512 + k / 4 * 64 + lane * 4 + k % 4] - 128;
    uint8_t v = panel[b * 256 + k % 16 / 4 * 64 + lane * 4 + k % 4];
    int q = k < 16 ? v & 15 : v >> 4;
    return type == PB_Q4_0 ? q - 8 : q;
}

float cpu_packed_at(int32_t type, const uint8_t *panel, int64_t cols, int lane, int64_t k)
{
    size_t l = (size_t)lane, b = (size_t)k / CPU_BLOCK, j = (size_t)k % CPU_BLOCK;
    float v;
    switch (type) {
    case PB_F32: memcpy(&v, panel + ((size_t)k * CPU_ROWS + l) * 4, 4); return v;
    case PB_F16: return half_at(panel, (size_t)k * CPU_ROWS + l);
    case PB_Q4_1:
        return CPU_FMA(scale_at(type, panel, cols, b, l, 0), (float)quant_at(type, panel, b, l, j),
                       scale_at(type, panel, cols, b, l, 1));
    default: return scale_at(type, panel, cols, b, l, 0) * (float)quant_at(type, panel, b, l, j);
    }
}

void cpu_packed_row(int32_t type, const void *w, int64_t rows, int64_t cols, int64_t r, float *y)
{
    const uint8_t *panel =
        (const uint8_t *)w + (uint64_t)(r / CPU_ROWS) * cpu_panel_bytes(type, cols);
    (void)rows;
    for (int64_t k = 0; k < cols; k++)
        y[k] = cpu_packed_at(type, panel, cols, (int)(r % CPU_ROWS), k);
}

/* ---- the plain-C rows --------------------------------------------------------- */

/* Float product: one chain, k ascending. */
static float dot_f32(int32_t type, const uint8_t *panel, int64_t cols, int lane, const float *x)
{
    float acc = 0.0f;
    for (int64_t k = 0; k < cols; k++)
        acc = CPU_FMA(cpu_packed_at(type, panel, cols, lane, k), x[k], acc);
    return acc;
}

/* Quantized product: exact within a block, one chain over blocks. */
static float dot_q8(int32_t type, const uint8_t *panel, int64_t cols, int lane, const char *x)
{
    float acc = 0.0f;
    for (int64_t b = 0; b < cols / CPU_BLOCK; b++) {
        const int8_t *q = (const int8_t *)x + b * CPU_BLOCK;
        float d;
        int32_t s, isum = 0;
        memcpy(&d, x + pb_x_q8_d(cols) + 4 * b, 4);
        memcpy(&s, x + pb_x_q8_s(cols) + 4 * b, 4);
        for (size_t k = 0; k < CPU_BLOCK; k++)
            isum += quant_at(type, panel, (size_t)b, (size_t)lane, k) * q[k];
        acc =
            CPU_FMA(scale_at(type, panel, cols, (size_t)b, (size_t)lane, 0) * d, (float)isum, acc);
        if (type == PB_Q4_1)
            acc =
                CPU_FMA(scale_at(type, panel, cols, (size_t)b, (size_t)lane, 1) * d, (float)s, acc);
    }
    return acc;
}

static void run(int32_t type, int32_t x_format, const pb_linear_args *a, int64_t p0, int64_t p1)
{
    uint64_t bytes = cpu_panel_bytes(type, a->cols);
    for (int64_t p = p0; p < p1; p++) {
        const uint8_t *panel = (const uint8_t *)a->w + (uint64_t)p * bytes;
        for (int32_t i = 0; i < a->n_x; i++) {
            const char *x = (const char *)a->x + (size_t)i * a->x_stride;
            for (int64_t r = p * CPU_ROWS; r < a->rows && r < (p + 1) * CPU_ROWS; r++)
                a->y[i * a->y_stride + r] =
                    x_format == PB_X_Q8 ? dot_q8(type, panel, a->cols, (int)(r % CPU_ROWS), x)
                                        : dot_f32(type, panel, a->cols, (int)(r % CPU_ROWS),
                                                  (const float *)(const void *)x);
        }
    }
}

static int always(void)
{
    return 1;
}

#define ROW(TYPE, X)                                                                               \
    static void run_##TYPE##_##X(const pb_linear_args *a, int64_t p0, int64_t p1)                  \
    {                                                                                              \
        run(PB_##TYPE, PB_X_##X, a, p0, p1);                                                       \
    }                                                                                              \
    static const pb_linear_kernel row_##TYPE##_##X = {                                             \
        .size = sizeof(pb_linear_kernel),                                                          \
        .name = #TYPE "_" #X "_any",                                                               \
        .isa = "any",                                                                              \
        .w_type = PB_##TYPE,                                                                       \
        .x_format = PB_X_##X,                                                                      \
        .panel_rows = CPU_ROWS,                                                                    \
        .usable = always,                                                                          \
        .packed_bytes = bytes_##TYPE,                                                              \
        .pack = pack_##TYPE,                                                                       \
        .run = run_##TYPE##_##X,                                                                   \
        .row = row_##TYPE,                                                                         \
    };

CPU_PACKING(F32)
CPU_PACKING(F16)
CPU_PACKING(Q8_0)
CPU_PACKING(Q4_0)
CPU_PACKING(Q4_1)
ROW(F32, F32)
ROW(F16, F32)
ROW(Q8_0, F32)
ROW(Q4_0, F32)
ROW(Q4_1, F32)
ROW(Q8_0, Q8)
ROW(Q4_0, Q8)
ROW(Q4_1, Q8)

const pb_linear_kernel *const cpu_linear_any[] = {
    &row_F32_F32, &row_F16_F32, &row_Q8_0_F32, &row_Q4_0_F32, &row_Q4_1_F32,
    &row_Q8_0_Q8, &row_Q4_0_Q8, &row_Q4_1_Q8,  NULL,
};
