/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/linear_any.c - products in plain C: the rows that define the bits
 * (docs/numerics.md). Slow, and the same on every machine.
 */
#include "math.h"
#include "panel.h"

enum { INPUTS = 16 }; /* that meet a weight once it is unpacked */

/* Float products of a row with n inputs: of each one chain, k ascending. */
static void dot_f32(int32_t type, const uint8_t *panel, int64_t cols, int lane, const char *x,
                    size_t stride, int n, float *acc)
{
    const int64_t per = panel_is_float(type) ? 1 : panel_group(type);
    float w[CPU_BLOCK], e;
    for (int64_t k = 0; k < cols; k += per) {
        if (per == 1)
            w[0] = cpu_float_at(type, panel, (size_t)lane, (size_t)k);
        else
            cpu_group_at(type, panel, cols, (size_t)(k / per), (size_t)lane, w);
        for (int i = 0; i < n; i++)
            for (int64_t j = 0; j < per; j++) {
                memcpy(&e, x + (size_t)i * stride + (size_t)(k + j) * 4, 4);
                acc[i] = CPU_FMA(w[j], e, acc[i]);
            }
    }
}

/* Quantized products: exact within a group, one chain over groups. */
static void dot_q8(int32_t type, const uint8_t *panel, int64_t cols, int lane, const char *x,
                   size_t stride, int n, float *acc)
{
    const int64_t per = panel_group(type);
    for (int64_t k = 0; k < cols; k += per) {
        int q[CPU_BLOCK];
        float d, mw, dw = cpu_scale_at(type, panel, cols, (size_t)(k / per), (size_t)lane, &mw);
        for (int64_t j = 0; j < per; j++)
            q[j] = cpu_quant_at(type, panel, (size_t)((k + j) / CPU_BLOCK), (size_t)lane,
                                (size_t)((k + j) % CPU_BLOCK));
        for (int i = 0; i < n; i++) {
            const char *xi = x + (size_t)i * stride;
            int32_t sum = 0, xsum = 0;
            memcpy(&d, xi + pb_x_q8_d(cols) + k / CPU_BLOCK * 4, 4);
            for (int64_t j = 0; j < per; j++) {
                sum += q[j] * (int8_t)xi[k + j];
                xsum += (int8_t)xi[k + j];
            }
            acc[i] = CPU_FMA(dw * d, (float)sum, acc[i]);
            if (panel_has_min(type))
                acc[i] = CPU_FMA(mw * d, (float)xsum, acc[i]);
        }
    }
}

/* Row r of W with n inputs from number i. */
static void dots(int32_t type, int32_t x_format, const pb_linear_args *a, int64_t r, int32_t i,
                 int n)
{
    const uint8_t *panel =
        (const uint8_t *)a->w + (uint64_t)(r / CPU_ROWS) * panel_size(type, a->cols);
    const char *x = (const char *)a->x + (size_t)i * a->x_stride;
    float acc[INPUTS] = { 0 };
    if (x_format == PB_X_Q8)
        dot_q8(type, panel, a->cols, (int)(r % CPU_ROWS), x, a->x_stride, n, acc);
    else
        dot_f32(type, panel, a->cols, (int)(r % CPU_ROWS), x, a->x_stride, n, acc);
    for (int j = 0; j < n; j++)
        a->y[(i + j) * a->y_stride + r] = acc[j];
}

static void run(int32_t type, int32_t x_format, const pb_linear_args *a, int64_t p0, int64_t p1)
{
    for (int64_t r = p0 * CPU_ROWS; r < a->rows && r < p1 * CPU_ROWS; r++)
        for (int32_t i = 0; i < a->n_x; i += INPUTS)
            dots(type, x_format, a, r, i, a->n_x - i < INPUTS ? a->n_x - i : INPUTS);
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

#define FLOATS(TYPE) ROW(TYPE, F32)
#define QUANTS(TYPE) ROW(TYPE, F32) ROW(TYPE, Q8)
CPU_FLOAT_TYPES(CPU_PACKING)
CPU_QUANT_TYPES(CPU_PACKING)
CPU_FLOAT_TYPES(FLOATS)
CPU_QUANT_TYPES(QUANTS)

#define FLOAT_ROWS(TYPE) &row_##TYPE##_F32,
#define QUANT_ROWS(TYPE) &row_##TYPE##_F32, &row_##TYPE##_Q8,
const pb_linear_kernel *const cpu_linear_any[] = { CPU_FLOAT_TYPES(FLOAT_ROWS)
                                                       CPU_QUANT_TYPES(QUANT_ROWS) NULL };
